"""Alleycat's load tests for people who live in Locust.

    locust -f loadtests/locustfile.py --scenario shard-limit --headless --report out/
    locust -f loadtests/locustfile.py --scenario race-day --processes 4          # with the web page
    locust -f loadtests/locustfile.py --scenario shard-limit --master --expect-workers 2

The endpoint, the region and the credentials are AWS's own variables (``AWS_ENDPOINT_URL``, ``AWS_REGION``,
``AWS_PROFILE``). Every setting is a flag, see ``--help``; workers get them from the master. The load follows the
scenario's plan in an open model, so ``--users`` and ``--spawn-rate`` have no effect: ``--rate`` and ``--connections``
have. On a 200 with failed entries see :mod:`loadtests.users`.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from locust import LoadTestShape, events
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadtests import limit_report, mqtt_users, users
from loadtests.ceiling import CpuWatch, listener_pid
from loadtests.conductor import Conductor
from loadtests.findings import fullest
from loadtests.flags import OBJECTIVE_FLAGS, breaks, objectives_from
from loadtests.generator import Generator
from loadtests.mqtt_users import BikerUser
from loadtests.prepare import create, endpoint_of, environment_target, seed
from loadtests.report_page import write_page
from loadtests.resources import Resources, iot_limits, limits_of, look_up
from loadtests.scenarios import SCENARIOS, Scenario, adapted, scenario_of
from loadtests.session import LocalCrew, RemoteCrew, Session, serve_worker, tell_progress
from loadtests.settings import FLAGS, LoadSettings, settings_from
from loadtests.users import FinishWriter, GatewayUser, LeaderboardReader, PutRecordUser, ResultsWriter, StreamReader
from loadtests.versions import versions
from simulator.flags import EXIT_TARGET, EXIT_USAGE, UsageError
from simulator.target import TargetError

__all__ = [
    "BikerUser",
    "FinishWriter",
    "GatewayUser",
    "LeaderboardReader",
    "PlannedLoad",
    "PutRecordUser",
    "ResultsWriter",
    "StreamReader",
]

log = logging.getLogger("alleycat")
Listener = TypeVar("Listener", bound=Callable[..., None])


def listen(event: Any) -> Callable[[Listener], Listener]:
    """Locust's ``add_listener`` with a type."""

    def added(listener: Listener) -> Listener:
        event.add_listener(listener)
        return listener

    return added


@listen(events.init_command_line_parser)
def _flags(parser: Any) -> None:
    group = parser.add_argument_group("Alleycat")
    group.add_argument(
        "--scenario", default="shard-limit", env_var="ALLEYCAT_SCENARIO", help=f"One of {', '.join(SCENARIOS)}."
    )
    group.add_argument("--stream", default="alleycat", env_var="ALLEYCAT_STREAM", help="Name of the stream.")
    group.add_argument("--table", default="alleycat-races", env_var="ALLEYCAT_TABLE", help="Name of the table.")
    group.add_argument("--broker", default="", env_var="ALLEYCAT_BROKER", help="MQTT broker: mqtt://HOST:PORT.")
    group.add_argument("--report", default="", env_var="ALLEYCAT_REPORT", help="Directory for report.json and .html.")
    group.add_argument(
        "--create", action="store_true", help="Create the template's stream and table first (for emulators)."
    )
    group.add_argument("--progress", action="store_true", help="Print a JSON line a second for who runs this.")
    group.add_argument("--target-pid", default="", help="Process whose CPU is the target's.")
    group.add_argument("--context", default="", help="JSON that goes into the report: target, parameters, endpoint.")
    for name, (flag, help_text) in OBJECTIVE_FLAGS.items():
        group.add_argument(flag, default="", env_var=f"ALLEYCAT_{name.upper()}", help=help_text)
    for name, (flag, metadata) in FLAGS.items():
        group.add_argument(
            flag, dest=f"load_{name}", default="", env_var=f"ALLEYCAT_{name.upper()}", help=metadata["help"]
        )


def _leave(text: str, code: int) -> NoReturn:
    """One line and out; locust has nothing to clean up yet."""
    print(f"alleycat: {text}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(code)


class Test:
    """What the events below share, in this process."""

    def __init__(self, environment: Environment) -> None:
        options: Any = environment.parsed_options
        self.environment = environment
        self.options = options
        self.scenario = scenario_of(options.scenario)
        self.objectives = objectives_from(vars(options), self.scenario.name)
        given = settings_from({name: getattr(options, f"load_{name}") for name in FLAGS})
        self.settings = self.scenario.settings(given)
        self.scenario = adapted(self.scenario, self.settings, self.objectives.max_iterator_age_ms is not None)
        self.context = json.loads(options.context) if options.context else {}
        self.session: Session | None = None
        self.crew: RemoteCrew | None = None
        self.told: dict[str, Any] | None = None

    def find(self) -> None:
        """Look up what is to be loaded, or create it. :raises TargetError:"""
        scenario, options = self.scenario, self.options
        target = environment_target(None)
        # A plan that cannot be made is told now, before anything is touched.
        if options.create:
            create(target, dict(scenario.parameters))
        found = look_up(target, options.stream if scenario.stream else None, options.table if scenario.table else None)
        extra = {**scenario.extra, **({"mqtt_url": options.broker} if options.broker else {})}
        if scenario.broker and not options.broker:
            raise UsageError(f"the scenario {scenario.name} needs --broker mqtt://HOST:PORT")
        self.resources = replace(found, extra=extra, small_region=bool(self.context.get("small_region")))
        service = "kinesis" if scenario.stream else "dynamodb"
        self.region = target.region
        self.endpoint = options.broker if scenario.broker else endpoint_of(service, target.region)
        seed(target, scenario, self.settings, self.resources)
        # Workers get it with their first users.
        options.alleycat = json.dumps({"settings": asdict(self.settings), "resources": self.resources.to_json()})

    @property
    def counts(self) -> dict[type, int]:
        """Users of each class, in all."""
        workers = getattr(self.environment.runner, "worker_count", 1) or 1
        main, *others = self.scenario.traffic
        found = {_class(main.user): max(self.settings.connections or 1, 1)}
        for one in others:
            found[_class(one.user)] = max(4, workers)
        return found

    def begin(self, crew: Any) -> None:
        """A new run."""
        self.told = None
        objectives = self.objectives

        def judge(**measured: Any) -> str | None:
            return breaks(objectives, **measured)

        conductor = Conductor(self.scenario, self.settings, self.resources, crew, judge)
        pid = int(self.options.target_pid) if self.options.target_pid else listener_pid(self.endpoint)
        show = tell_progress if self.options.progress else None
        self.session = Session(conductor, CpuWatch(pid), sum(self.counts.values()), self.environment, show)

    def finish(self, why: str) -> None:
        """Make the report, once."""
        if self.session is None or self.told is not None:
            return
        if not self.session.done:
            self.session.stop(why)
        record = self.session.conductor.record
        clients = tuple(record.measurements.resources("Publish"))
        limits = limits_of(self.resources) + (
            iot_limits(() if "IoT Core" in clients else clients, self.resources.small_region)
            if self.scenario.broker
            else []
        )
        subject = limit_report.Subject(
            scenario=self.scenario,
            settings=self.settings,
            objectives=self.objectives,
            resources=self.resources,
            limits=fullest(limits, record.measurements),
            target=self.context.get("target", "aws"),
            endpoint=self.endpoint,
            region=self.region,
            users=sum(self.counts.values()),
            versions=versions(),
            parameters=self.context.get("parameters", {}),
        )
        if not record.ended_at:
            record.ended_at = time.time()
        self.told = limit_report.build(record, subject)
        if self.options.report:
            directory = Path(self.options.report)
            limit_report.write_json(self.told, directory)
            write_page(self.told, directory / "report.html")
        print(self.told["summary"], flush=True)
        self.environment.process_exit_code = 0 if self.told["verdict"]["passed"] else 1


def _class(name: str) -> type:
    found: type = getattr(mqtt_users if name == "BikerUser" else users, name)
    return found


_tests: dict[int, Test] = {}


class PlannedLoad(LoadTestShape):
    """Keeps the scenario's users alive while the conductor walks its plan; ends when that is done."""

    def tick(self) -> tuple[int, float, list[Any]] | None:
        test = _tests.get(id(self.runner.environment)) if self.runner else None
        if test is None:
            return None
        # Locust starts a test, and so makes its session, with the first answer to this.
        if test.session is not None:
            test.session.start()
            if test.session.done:
                test.finish("")
                return None
        for user, count in test.counts.items():
            user.weight = count  # type: ignore[attr-defined]
        total = sum(test.counts.values())
        # A smaller region of IoT Core lets 100 connect in a second.
        return total, 80.0 if test.scenario.broker else max(float(total), 100.0), list(test.counts)


@listen(events.init)
def _init(environment: Environment, **_: Any) -> None:
    if isinstance(environment.runner, WorkerRunner):
        return
    try:
        test = Test(environment)
        test.scenario.plan(test.settings, Resources())
        test.find()
    except UsageError as error:
        _leave(str(error), EXIT_USAGE)
    except TargetError as error:
        _leave(str(error), EXIT_TARGET)
    _tests[id(environment)] = test
    if isinstance(environment.runner, MasterRunner):
        test.crew = RemoteCrew(environment.runner)


@listen(events.test_start)
def _start(environment: Any, **_: Any) -> None:
    if isinstance(environment.runner, WorkerRunner):
        told = json.loads(environment.parsed_options.alleycat)
        settings, resources = LoadSettings(**told["settings"]), Resources.from_json(told["resources"])
        environment.alleycat = serve_worker(environment, settings, resources)
        _freeze()
        return
    test = _tests[id(environment)]
    if test.crew is None:
        environment.alleycat = Generator(test.settings, test.resources)
        test.begin(LocalCrew(environment.alleycat))
        _freeze()
    else:
        test.begin(test.crew)


def _freeze() -> None:
    """What has been imported stays out of later garbage collections, whose pauses would be measured as latency."""
    gc.collect()
    gc.freeze()


@listen(events.test_stopping)
def _stopping(environment: Any, **_: Any) -> None:
    """Before users are killed, so that what is on its way can still end."""
    test = _tests.get(id(environment))
    if test is not None:
        test.finish("the test was stopped before its end")


@listen(events.test_stop)
def _stopped(environment: Any, **_: Any) -> None:
    """The web page may start another."""
    test = _tests.get(id(environment))
    if test is not None:
        test.session = None


@listen(events.quitting)
def _quitting(environment: Any, **_: Any) -> None:
    test = _tests.get(id(environment))
    if test is not None:
        test.finish("the test was interrupted before its end")


def scenario_names() -> list[Scenario]:
    """In the order in which they are listed."""
    return list(SCENARIOS.values())
