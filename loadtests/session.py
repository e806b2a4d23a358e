"""A load test inside Locust: generators in workers, the conductor where Locust's master or only process is.

Loads travel as Locust messages of our own, four tellings a second come back; Locust's statistics go their usual way
beside them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gevent
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadtests.ceiling import CpuWatch
from loadtests.conductor import Conductor
from loadtests.generator import Generator
from loadtests.launch import PROGRESS
from loadtests.resources import Resources
from loadtests.settings import LoadSettings

LOAD, TOLD = "alleycat-load", "alleycat-told"
TELL_S = 0.25


class LocalCrew:
    """The generator of this very process."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator

    def workers(self) -> Sequence[str]:
        return ["local"]

    def load(self, worker: str, load: Mapping[str, Any]) -> None:
        self._generator.apply(load)

    def collect(self) -> list[tuple[str, Mapping[str, Any]]]:
        return [("local", self._generator.tell())]


class RemoteCrew:
    """Locust's workers."""

    def __init__(self, runner: MasterRunner) -> None:
        self._runner = runner
        self._run = 0
        self._told: list[tuple[str, Mapping[str, Any]]] = []
        runner.register_message(TOLD, self._hear)

    def begin(self, run: int) -> None:
        """What is told of earlier runs is not listened to any more."""
        self._run, self._told = run, []

    def workers(self) -> Sequence[str]:
        return [one.id for one in self._runner.clients.all if one.state not in ("missing", "stopped")]

    def load(self, worker: str, load: Mapping[str, Any]) -> None:
        self._runner.send_message(LOAD, {**load, "run": self._run}, worker)

    def collect(self) -> list[tuple[str, Mapping[str, Any]]]:
        told, self._told = self._told, []
        return told

    def _hear(self, environment: Environment, msg: Any, **_: Any) -> None:
        if msg.data["run"] == self._run:
            self._told.append((msg.node_id, json.loads(msg.data["text"])))


class WorkerService:
    """What a worker process does for the master: takes loads and tells what happens, run after run."""

    def __init__(self, environment: Environment) -> None:
        runner = environment.runner
        if not isinstance(runner, WorkerRunner):
            raise TypeError("only a Locust worker is served")
        self._runner = runner
        self._run = 0
        self._generator: Generator | None = None
        runner.register_message(LOAD, self._take)
        gevent.spawn(self._tell_on)
        quitting: Any = environment.events.quitting
        quitting.add_listener(lambda **_: self._tell())

    def begin(self, run: int, settings: LoadSettings, resources: Resources) -> Generator:
        """The generator of run number ``run``; that of the last run is closed."""
        if self._generator is not None:
            self._generator.close()
        self._run = run
        self._generator = Generator(settings, resources, index=max(self._runner.worker_index, 0))
        return self._generator

    def _take(self, environment: Environment, msg: Any, **_: Any) -> None:
        if self._generator is not None and msg.data["run"] == self._run:
            self._generator.apply(msg.data)

    def _tell_on(self) -> None:
        while True:
            gevent.sleep(TELL_S)
            self._tell()

    def _tell(self) -> None:
        if self._generator is not None:
            # As text: a meter tells floats and long integers that a message's own packing would have to agree on.
            self._runner.send_message(TOLD, {"run": self._run, "text": json.dumps(self._generator.tell())})


class Session:
    """The conductor's greenlet, its look at the target's CPU, and how it is stopped."""

    def __init__(
        self,
        conductor: Conductor,
        watch: CpuWatch,
        users: int,
        environment: Environment,
        show: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        self.conductor, self._watch, self._users, self._environment = conductor, watch, users, environment
        self._show = show
        self._greenlet: Any = None

    @property
    def done(self) -> bool:
        return self.conductor.done

    def start(self) -> None:
        if self._greenlet is None:
            self._greenlet = gevent.spawn(self._run)

    def stop(self, why: str) -> None:
        """Give up now; waits for what is on its way."""
        if self._greenlet is None:
            self.conductor.record.incomplete.append(why)
            self.conductor.done = True
            return
        self.conductor.stop(time.time(), why)
        self._greenlet.join(timeout=self.conductor.settings.timeout_s + 5)

    def _run(self) -> None:
        self._wait_for_users()
        conductor = self.conductor
        conductor.begin(time.time())
        self._watch.share()
        sampled = time.time()
        while not conductor.done:
            gevent.sleep(0.1)
            now = time.time()
            if now - sampled >= 0.5:
                sampled = now
                share = self._watch.share()
                if share is not None:
                    at = conductor.record.target_cpu
                    at[int(now)] = max(at.get(int(now), 0.0), share)
                if self._show is not None:
                    self._show(conductor.progress(now))
            conductor.tick(now)

    def _wait_for_users(self) -> None:
        """All connections first: a load on half of them would be late."""
        runner: Any = self._environment.runner
        deadline = time.time() + max(30.0, self._users / 50)
        while runner.user_count < self._users and time.time() < deadline and not self.conductor.record.fatal:
            gevent.sleep(0.05)
            self.conductor.hear(time.time())
        # Workers tell which users they have, and bikers connect.
        gevent.sleep(3 * TELL_S)


def tell_progress(told: Mapping[str, Any]) -> None:
    """One line for the process that runs this one."""
    print(PROGRESS + json.dumps(told), flush=True)
