"""Alleycat's load tests for people who live in Locust.

    locust -f loadtests/locustfile.py --scenario shard-limit --headless --report out/
    locust -f loadtests/locustfile.py --scenario race-day --processes 4          # with the web page
    locust -f loadtests/locustfile.py --scenario shard-limit --master --expect-workers 2

The endpoint, the region and the credentials are AWS's own variables (``AWS_ENDPOINT_URL``, ``AWS_REGION``,
``AWS_PROFILE``). ``alleycat loadtest NAME --help`` lists the flags of settings and objectives; workers get them from
the master. The load follows the scenario's plan in an open model, so ``--users`` and ``--spawn-rate`` have no effect:
``--rate`` and ``--connections`` have. On a 200 with failed entries see :mod:`loadtests.users`.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import gevent
from locust import LoadTestShape, events
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadtests import limit_report, mqtt_users, users
from loadtests.ceiling import CpuWatch, listener_pid
from loadtests.conductor import Conductor, Crew
from loadtests.findings import fullest
from loadtests.flags import OBJECTIVE_FLAGS, breaks, objectives_from
from loadtests.generator import Generator
from loadtests.mqtt_users import BikerUser
from loadtests.prepare import create, endpoint_of, environment_target, kind_of, seed
from loadtests.report_page import write_page
from loadtests.resources import Resources, iot_limits, limits_of, look_up
from loadtests.scenarios import SCENARIOS, Scenario, adapted, scenario_of
from loadtests.session import LocalCrew, RemoteCrew, Session, WorkerService, tell_progress
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
_OURS = {"scenario", "stream", "table", "broker", "create", *OBJECTIVE_FLAGS, *(f"load_{name}" for name in FLAGS)}
"""The options that say what is tested."""
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

    def add(flag: str, help_text: str, default: str | bool = "", dest: str = "", on_page: bool = True) -> None:
        name = dest or flag.removeprefix("--").replace("-", "_")
        action = "store" if isinstance(default, str) else "store_true"
        env = f"ALLEYCAT_{name.removeprefix('load_').upper()}" if on_page else None
        added = group.add_argument(flag, dest=name, default=default, action=action, env_var=env, help=help_text)
        # As Locust's own parser marks what its web page has fields for; a group does not.
        added.include_in_web_ui = on_page
        added.is_secret = added.is_required = added.is_multiple = False

    add("--scenario", f"One of {', '.join(SCENARIOS)}.", "shard-limit")
    add("--stream", "Name of the stream.", "alleycat")
    add("--table", "Name of the table.", "alleycat-races")
    add("--broker", "MQTT broker: mqtt://HOST:PORT.")
    add("--report", "Directory for report.json and .html.")
    add("--create", "Create the template's stream and table first (for emulators).", False)
    for flag, help_text in OBJECTIVE_FLAGS.values():
        add(flag, help_text)
    for name, (flag, metadata) in FLAGS.items():
        add(flag, metadata["help"], dest=f"load_{name}")
    add("--progress", "Print a JSON line a second for who runs this.", False, on_page=False)
    add("--target-pid", "Process whose CPU is the target's.", on_page=False)
    add("--context", "JSON that goes into the report: target, parameters.", on_page=False)


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
        self.context = json.loads(options.context) if options.context else {}
        self._read: Mapping[str, Any] | None = None
        self.session: Session | None = None
        self.crew: RemoteCrew | None = None
        self.generator: Generator | None = None
        self.told: dict[str, Any] | None = None
        self.runs = 0
        """How many have begun; the web page may start several."""

    def prepare(self) -> None:
        """Read the flags, and look up what is to be loaded; only the first time and when the web page changed them.

        :raises UsageError: for flags that make no test.
        :raises TargetError: when what is to be loaded is not there.
        """
        asked = {name: value for name, value in vars(self.options).items() if name in _OURS}
        if asked == self._read:
            return
        self._read = None
        scenario = scenario_of(asked["scenario"])
        self.objectives = objectives_from(asked, scenario.name)
        self.settings = scenario.settings(settings_from({name: asked[f"load_{name}"] for name in FLAGS}))
        self.scenario = adapted(scenario, self.settings, self.objectives.max_iterator_age_ms is not None)
        # A plan that cannot be made is told before anything is touched.
        self.scenario.plan(self.settings, Resources())
        self._find()
        self._read = asked

    def _find(self) -> None:
        scenario, options = self.scenario, self.options
        if scenario.broker and not options.broker:
            raise UsageError(f"the scenario {scenario.name} needs --broker mqtt://HOST:PORT")
        target = environment_target(None)
        service = "kinesis" if scenario.stream else "dynamodb"
        self.region = target.region
        self.endpoint = options.broker if scenario.broker else endpoint_of(service, target.region)
        if options.create:
            create(target, dict(scenario.parameters))
        found = look_up(target, options.stream if scenario.stream else None, options.table if scenario.table else None)
        extra = {**scenario.extra, **({"mqtt_url": options.broker} if options.broker else {})}
        self.resources = replace(found, extra=extra, small_region=bool(self.context.get("small_region")))
        seed(target, scenario, self.settings, self.resources)

    def is_ready(self) -> bool:
        """Whether a run can begin; why not goes into the log, which the web page shows."""
        if isinstance(self.environment.runner, MasterRunner) and not self.environment.runner.worker_count:
            log.error("no worker has connected yet; start locust --worker first")
            return False
        try:
            self.prepare()
        except (UsageError, TargetError) as error:
            log.error("%s", error)
            return False
        return True

    @property
    def counts(self) -> dict[type, int]:
        """Users of each class, in all."""
        workers = getattr(self.environment.runner, "worker_count", 1) or 1
        main, *others = self.scenario.traffic
        found = {_class(main.user): max(self.settings.connections or 1, 1)}
        for one in others:
            found[_class(one.user)] = max(4, workers)
        return found

    def begin(self) -> None:
        """A new run."""
        self.told = None
        self.runs += 1
        crew: Crew
        if self.crew is not None:
            self.crew.begin(self.runs)
            crew = self.crew
            # Workers get it with their first users.
            self.options.alleycat = json.dumps(
                {"run": self.runs, "settings": asdict(self.settings), "resources": self.resources.to_json()}
            )
        else:
            if self.generator is not None:
                self.generator.close()
            self.generator = Generator(self.settings, self.resources)
            crew = LocalCrew(self.generator)
            self.environment.alleycat = self.generator  # type: ignore[attr-defined]
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
            target=self.context.get("target") or kind_of(self.endpoint),
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
_services: dict[int, WorkerService] = {}


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
        elif not test.is_ready():
            return None
        for user, count in test.counts.items():
            user.weight = count  # type: ignore[attr-defined]
        total = sum(test.counts.values())
        # A smaller region of IoT Core lets 100 connect in a second.
        return total, 80.0 if test.scenario.broker else max(float(total), 100.0), list(test.counts)


@listen(events.init)
def _init(environment: Environment, **_: Any) -> None:
    if isinstance(environment.runner, WorkerRunner):
        _services[id(environment)] = WorkerService(environment)
        return
    try:
        test = Test(environment)
        test.prepare()
    except UsageError as error:
        _leave(str(error), EXIT_USAGE)
    except TargetError as error:
        _leave(str(error), EXIT_TARGET)
    _tests[id(environment)] = test
    # From gevent's hub, so that Ctrl-C reaches Locust's main greenlet and not whichever user is sending just then.
    gevent.signal_handler(signal.SIGINT, _interrupt)
    if isinstance(environment.runner, MasterRunner):
        test.crew = RemoteCrew(environment.runner)


@listen(events.test_start)
def _start(environment: Any, **_: Any) -> None:
    if isinstance(environment.runner, WorkerRunner):
        told = json.loads(environment.parsed_options.alleycat)
        settings, resources = LoadSettings(**told["settings"]), Resources.from_json(told["resources"])
        environment.alleycat = _services[id(environment)].begin(told["run"], settings, resources)
    else:
        _tests[id(environment)].begin()
    _freeze()


def _interrupt() -> None:
    gevent.get_hub().handle_system_error(KeyboardInterrupt, KeyboardInterrupt())


def _freeze() -> None:
    """What has been imported stays out of later garbage collections, whose pauses would be measured as latency."""
    gc.collect()
    gc.freeze()


@listen(events.test_stopping)
def _stopping(environment: Any, **_: Any) -> None:
    """Before users are killed, so that what is on its way can still end."""
    test = _tests.get(id(environment))
    if test is not None:
        test.finish("the test was interrupted before its end")


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
