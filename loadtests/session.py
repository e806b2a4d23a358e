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
        self._told: list[tuple[str, Mapping[str, Any]]] = []
        runner.register_message(TOLD, self._hear)

    def workers(self) -> Sequence[str]:
        return [one.id for one in self._runner.clients.all if one.state not in ("missing", "stopped")]

    def load(self, worker: str, load: Mapping[str, Any]) -> None:
        order = self.workers().index(worker) if worker in self.workers() else 0
        self._runner.send_message(LOAD, {**load, "index": order}, worker)

    def collect(self) -> list[tuple[str, Mapping[str, Any]]]:
        told, self._told = self._told, []
        return told

    def _hear(self, environment: Environment, msg: Any, **_: Any) -> None:
        self._told.append((msg.node_id, json.loads(msg.data["text"])))


def serve_worker(environment: Environment, settings: LoadSettings, resources: Resources) -> Generator:
    """Make this worker's generator, take loads, and tell what happens until the process ends."""
    runner = environment.runner
    if not isinstance(runner, WorkerRunner):
        raise TypeError("only a Locust worker is served")
    generator = Generator(settings, resources, index=max(runner.worker_index, 0))

    def tell() -> None:
        while True:
            gevent.sleep(TELL_S)
            _send(runner, generator)

    def take(environment: Environment, msg: Any, **_: Any) -> None:
        generator.apply(msg.data)

    runner.register_message(LOAD, take)
    gevent.spawn(tell)
    quitting: Any = environment.events.quitting
    quitting.add_listener(lambda **_: _send(runner, generator))
    return generator


def _send(runner: WorkerRunner, generator: Generator) -> None:
    # As text: what a meter tells has floats and long integers that a message's own packing would have to agree on.
    runner.send_message(TOLD, {"text": json.dumps(generator.tell())})


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
        while runner.user_count < self._users and time.time() < deadline:
            gevent.sleep(0.05)
        # Workers tell which users they have, and bikers connect.
        gevent.sleep(3 * TELL_S)


def tell_progress(told: Mapping[str, Any]) -> None:
    """One line for the process that runs this one."""
    print(PROGRESS + json.dumps(told), flush=True)
