"""Runs a template's functions from their streams, on the embedded cloud or an account's.

The target is, in this order: what ``--endpoint-url`` or ``AWS_ENDPOINT_URL`` names, the embedded cloud that already
listens on the port, or one that is started here and gets everything that the template declares.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from consumers.runtime import Runtime, RuntimeStatistics, cold_start_problem
from simulator.cloud.server import DEFAULT_HOST, DEFAULT_PORT, CloudError, CloudProcess
from simulator.deployment import (
    ACCOUNT_ID,
    DEFAULT_REGION,
    Deployment,
    DeploymentError,
    FunctionSpec,
    StreamSpec,
    load_deployment,
)
from simulator.flags import UsageError
from simulator.local_functions import function_config, mapping_config, runtime_on
from simulator.target import (
    Target,
    TargetError,
    aws_target,
    endpoint_target,
    local_target,
    physical_names,
    provision,
    reaching,
)

SHOWN_EVERY_S = 0.25
GRACE_S = 5.0
"""On top of the longest Timeout, for running invocations to finish after the first Ctrl-C."""


class Killed(Exception):  # noqa: N818 - not an error: somebody pressed Ctrl-C twice
    """The second Ctrl-C came: running invocations were killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumeSettings:
    """What ``alleycat consume`` was asked for. ``run_time_s=None`` is until Ctrl-C."""

    template: Path | None = None
    config_env: str = "default"
    overrides: Mapping[str, str] = field(default_factory=dict)
    target: str = "local"
    endpoint_url: str | None = None
    port: int = DEFAULT_PORT
    functions: tuple[str, ...] | None = None
    starting_position: str | None = None
    state_dir: Path | None = None
    run_time_s: int | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A run as of now. ``phase`` is ``running`` or ``finishing``."""

    phase: str
    elapsed_s: float
    where: str
    statistics: RuntimeStatistics


@dataclass(frozen=True, slots=True)
class Summary:
    """How a run ended. ``interrupted``: by Ctrl-C rather than by ``--run-time``."""

    snapshot: Snapshot
    interrupted: bool

    def to_json(self) -> dict[str, Any]:
        statistics = self.snapshot.statistics
        return {
            "schema": 1,
            "target": self.snapshot.where,
            "run_time_s": round(self.snapshot.elapsed_s, 3),
            "interrupted": self.interrupted,
            "functions": [
                {
                    "name": name,
                    "invocations": one.invocations,
                    "errors": one.errors,
                    "timeouts": one.timeouts,
                    "throttles": one.throttles,
                    "records": one.records_processed,
                    "cold_starts": one.cold_starts,
                    "concurrency_max": one.concurrency_max,
                    "duration_ms": {
                        "p50": round(one.duration_ms_p50, 3),
                        "p99": round(one.duration_ms_p99, 3),
                        "max": round(one.duration_ms_max, 3),
                    },
                    "iterator_age_ms_max": round(one.iterator_age_ms_max),
                    **({"last_error": f"{one.last_error.type}: {one.last_error.message}"} if one.last_error else {}),
                }
                for name, one in statistics.functions.items()
            ],
            "shards": [
                {
                    "event_source": name,
                    "function": mapping.function_name,
                    "shard": shard_id,
                    "status": one.status,
                    "sequence_number": one.sequence_number,
                    "millis_behind": one.millis_behind,
                    "retries": one.retries,
                    "dropped_records": one.dropped_records,
                    "read_throttles": one.read_throttles,
                    **({"last_error": f"{one.last_error.type}: {one.last_error.message}"} if one.last_error else {}),
                }
                for name, mapping in statistics.mappings.items()
                for shard_id, one in mapping.shards.items()
            ],
        }


class View(Protocol):
    """Who is told."""

    def show(self, snapshot: Snapshot) -> None: ...

    def note(self, text: str) -> None: ...

    def log(self, source: str, line: str) -> None: ...


class Consumption:
    """One call of ``alleycat consume``."""

    def __init__(self, settings: ConsumeSettings, view: View) -> None:
        self.settings, self.view = settings, view
        self._signals = 0
        self._signalled = threading.Event()
        self._cloud: CloudProcess | None = None

    def run(self) -> Summary:
        """Run until the time is over or Ctrl-C, let running invocations finish, and sum up.

        :raises DeploymentError: the template or a handler cannot be used.
        :raises UsageError: a flag does not go with the template.
        :raises TargetError: the target cannot be reached or lacks a stream.
        :raises simulator.cloud.server.CloudError: the embedded cloud cannot be started.
        :raises Killed: after a second Ctrl-C.
        """
        with self._listening():
            target = aws_target() if self.settings.target == "aws" else None
            deployment = self._deployment(target)
            functions = self._functions(deployment)
            try:
                target = self._opened(target, deployment)
                self._check_handlers(functions, deployment, target)
                runtime = runtime_on(
                    target, deployment, functions, log=self.view.log, state_dir=self.settings.state_dir
                )
                return self._run(runtime, target, functions)
            finally:
                if self._cloud is not None:
                    self._cloud.stop()

    # -- before ----------------------------------------------------------------------------------------

    def _deployment(self, target: Target | None) -> Deployment:
        settings = self.settings
        account_id, region = ACCOUNT_ID, DEFAULT_REGION
        if target is not None:
            target = replace(target, endpoint_url=settings.endpoint_url)
            region = target.region
            with reaching(target, "asking who this is"):
                client = target.client("sts", connect_timeout=5, retries={"mode": "standard", "total_max_attempts": 3})
                account_id = str(client.get_caller_identity()["Account"])

        def load(names: Mapping[str, str] | None = None) -> Deployment:
            return load_deployment(
                settings.template,
                settings.config_env,
                settings.overrides,
                region=region,
                account_id=account_id,
                outside_streams=True,
                physical_names=names,
            )

        deployment = load()
        return deployment if target is None else load(physical_names(target, deployment.stack_name))

    def _functions(self, deployment: Deployment) -> list[FunctionSpec]:
        """Those to run, with the starting position that was asked for."""
        wanted = self.settings.functions
        if not deployment.functions:
            raise DeploymentError(f"{deployment.path}: the template declares no function; there is nothing to run")
        names = {name: one for one in deployment.functions for name in (one.name, one.logical_id)}
        for name in wanted or ():
            if name not in names:
                there = ", ".join(one.logical_id for one in deployment.functions)
                raise UsageError(f"--functions: there is no function {name!r} in {deployment.path}; there are {there}")
        chosen = [
            one for one in deployment.functions if wanted is None or one.name in wanted or one.logical_id in wanted
        ]
        fed = [one for one in chosen if one.event_sources]
        if not fed:
            who = ", ".join(one.logical_id for one in chosen)
            raise DeploymentError(
                f"{deployment.path}: no stream feeds {who}; give a function a Kinesis or DynamoDB event"
            )
        for one in chosen:
            if one not in fed:
                self.view.note(f"{one.logical_id} is not run: no stream feeds it")
        for one in fed:
            for source in one.event_sources:
                mapping_config(one, source, source.source_arn)  # what the runtime would refuse, before anything starts
        position = self.settings.starting_position
        if position is None:
            return fed
        return [
            replace(
                one,
                event_sources=tuple(
                    replace(source, starting_position=position, starting_timestamp_s=None)
                    for source in one.event_sources
                ),
            )
            for one in fed
        ]

    def _opened(self, target: Target | None, deployment: Deployment) -> Target:
        settings = self.settings
        if target is not None:
            if settings.endpoint_url is None:
                return target
            environment = {**target.environment, "AWS_ENDPOINT_URL": settings.endpoint_url}
            return replace(target, endpoint_url=settings.endpoint_url, environment=environment)
        if settings.endpoint_url is not None:
            return endpoint_target(settings.endpoint_url, deployment.region)
        if settings.port and _is_embedded_cloud(f"http://{DEFAULT_HOST}:{settings.port}"):
            return endpoint_target(f"http://{DEFAULT_HOST}:{settings.port}", deployment.region)
        self._cloud = CloudProcess(port=settings.port)
        try:
            self._cloud.start()
        except CloudError:
            if self._signals:  # a Ctrl-C reaches the child too
                raise Killed from None
            raise
        target = local_target(self._cloud, deployment.region)
        for line in deployment.not_run:
            self.view.note(f"warning: {line}")
        outside = _outside_streams(deployment)
        provision(target, replace(deployment, streams=(*deployment.streams, *outside)))
        for stream in outside:
            self.view.note(f"the template does not declare the stream {stream.name}; it has one shard here")
        self.view.note(f"AWS endpoint: {self._cloud.endpoint_url} (any credentials), with what the template declares")
        return target

    def _check_handlers(self, functions: Sequence[FunctionSpec], deployment: Deployment, target: Target) -> None:
        for one in functions:
            config = function_config(one, deployment, target)
            problem = cold_start_problem(config, log=lambda line, name=one.name: self.view.log(name, line))  # type: ignore[misc]
            if problem is not None:
                where = f"{one.handler} in {one.code_path}"
                raise DeploymentError(f"{deployment.path}: {one.logical_id} cannot start, {where}: {problem}")
            if self._signals:
                return

    # -- running ---------------------------------------------------------------------------------------

    def _run(self, runtime: Runtime, target: Target, functions: Sequence[FunctionSpec]) -> Summary:
        started_at = time.monotonic()
        where = target.endpoint_url or f"AWS in {target.region}"

        def snapshot(phase: str) -> Snapshot:
            return Snapshot(phase, time.monotonic() - started_at, where, runtime.statistics())

        stopping = threading.Thread(
            target=runtime.stop, args=(max(one.timeout_s for one in functions) + GRACE_S,), name="alleycat-stop"
        )
        try:
            if not self._signals:
                runtime.start()
            run_time_s = self.settings.run_time_s
            while not self._signalled.wait(SHOWN_EVERY_S):
                self.view.show(snapshot("running"))
                if self._cloud is not None and (code := self._cloud.poll()) is not None:
                    raise TargetError(f"the embedded cloud died (exit code {code}) and its data is gone; run again")
                if run_time_s is not None and time.monotonic() - started_at >= run_time_s:
                    break
            interrupted = self._signals > 0
            if interrupted:
                self.view.note("finishing running invocations; Ctrl-C again quits")
            stopping.start()
            while stopping.is_alive():
                stopping.join(SHOWN_EVERY_S)
                self.view.show(snapshot("finishing"))
                if self._signals > 1:
                    raise Killed
            return Summary(snapshot("finished"), interrupted)
        finally:
            # After an orderly end this finds nothing to do.
            runtime.stop(0.0)
            if stopping.ident is not None:
                stopping.join()

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        """Count Ctrl-C, and what ``kill`` sends."""

        def hit(number: int, frame: object) -> None:
            self._signals += 1
            self._signalled.set()

        before = {number: signal.signal(number, hit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _outside_streams(deployment: Deployment) -> list[StreamSpec]:
    """Kinesis streams that feed functions and that other templates declare."""
    declared = {one.name for one in deployment.streams}
    sources = [one for function in deployment.functions for one in function.event_sources if one.kind == "Kinesis"]
    names = sorted({one.source_name for one in sources} - declared)
    prefix = f"arn:aws:kinesis:{deployment.region}:{deployment.account_id}:stream/"
    return [StreamSpec(name, name, prefix + name, 1) for name in names]


def _is_embedded_cloud(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/_alleycat/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False
