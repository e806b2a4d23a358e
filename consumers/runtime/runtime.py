"""The runtime: functions, their event source mappings, and their life from start to stop."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Any

import msgspec
from botocore.exceptions import BotoCoreError

from consumers.runtime.checkpoints import Checkpoints
from consumers.runtime.client import dynamodb_streams_client, kinesis_client
from consumers.runtime.config import FunctionConfig, MappingConfig, RuntimeSettings
from consumers.runtime.destinations import ClientFactory, Destination, service_client
from consumers.runtime.errors import ConfigurationError
from consumers.runtime.function import Function, InvokeResult
from consumers.runtime.mapping import EventSourceMapping
from consumers.runtime.shard_poller import MappingContext
from consumers.runtime.sources import Clients, source_of
from consumers.runtime.statistics import FunctionMeter, RuntimeStatistics

_KILLED_S = 5.0


class Runtime:
    """Drives functions from Kinesis and DynamoDB streams as Lambda's event source mappings do.

    ``client_factory`` makes a boto3 Kinesis client and ``dynamodb_client_factory`` one for DynamoDB Streams, each when
    a mapping needs it; all threads share them, and :meth:`stop` closes them.
    ``state_dir`` keeps checkpoints, so that the next runtime with the same mapping names resumes; None keeps them
    in memory. ``log`` is called with ``(source, line)`` from several threads: what functions print, and what goes
    wrong. ``service_client_factory`` makes the boto3 clients that on-failure destinations need, by service name.
    ``clock`` is in seconds since the epoch and must agree with the stream's to well below
    ``window_close_grace_s``.

    Use it as a context manager, or call :meth:`start` and :meth:`stop`. A runtime starts once.

    :raises ConfigurationError: names that are used twice or do not exist.
    """

    def __init__(
        self,
        functions: Sequence[FunctionConfig],
        mappings: Sequence[MappingConfig],
        *,
        client_factory: Callable[[], Any] = kinesis_client,
        dynamodb_client_factory: Callable[[], Any] = dynamodb_streams_client,
        service_client_factory: ClientFactory = service_client,
        state_dir: Path | None = None,
        settings: RuntimeSettings | None = None,
        clock: Callable[[], float] = time.time,
        log: Callable[[str, str], None] | None = None,
    ) -> None:
        _require_unique("function", [function.name for function in functions])
        _require_unique("mapping", [mapping.name for mapping in mappings])
        known = {function.name for function in functions}
        for mapping in mappings:
            if mapping.function_name not in known:
                raise ConfigurationError(
                    f"mapping {mapping.name!r} invokes {mapping.function_name!r}, which is not among the functions "
                    f"{', '.join(sorted(known)) or '(none)'}"
                )
        self._functions = {function.name: Function(function, log=log) for function in functions}
        self._meters = {function.name: FunctionMeter(function.name) for function in functions}
        self._configs = list(mappings)
        self._clients = Clients({"kinesis": client_factory, "dynamodbstreams": dynamodb_client_factory})
        self._service_client_factory = service_client_factory
        self._destinations: dict[str, Destination] = {}
        self._state_dir = state_dir
        self._settings = settings or RuntimeSettings()
        self._clock = clock
        self._log = log or (lambda source, line: None)
        self._stopping = Event()
        self._mappings: dict[str, EventSourceMapping] = {}

    def start(self) -> None:
        """Start all mappings; returns at once.

        :raises ConfigurationError: started before, or the client could not be made (no region, say).
        :raises CheckpointError: a checkpoint file cannot be used.
        """
        if self._mappings or self._stopping.is_set():
            raise ConfigurationError("a runtime starts once; make another one")
        if not self._configs:
            return
        try:
            mappings = {config.name: EventSourceMapping(self._context(config)) for config in self._configs}
        except BotoCoreError as error:
            raise ConfigurationError(f"no client for the streams could be made: {error}") from error
        self._mappings = mappings
        for mapping in mappings.values():
            mapping.start()

    def _context(self, config: MappingConfig) -> MappingContext:
        source = source_of(config, self._clients, self._settings, self._clock)
        function = self._functions[config.function_name]
        if config.on_failure_destination is not None:
            self._destinations[config.name] = Destination(config, function.config.arn, self._service_client_factory)
        return MappingContext(
            mapping=config,
            settings=source.paced(self._settings),
            source=source,
            function=function,
            meter=self._meters[config.function_name],
            checkpoints=Checkpoints(config.name, config.stream_arn, self._state_dir),
            clock=self._clock,
            stopping=self._stopping,
            log=self._log,
            destination=self._destinations.get(config.name),
        )

    def stop(self, timeout_s: float = 30.0) -> bool:
        """Let running invocations finish, and end everything; after ``timeout_s`` they are killed.

        What was not finished is not checkpointed, so a later runtime processes it. Returns whether nothing had to
        be killed. May be called more than once.
        """
        deadline = time.monotonic() + timeout_s
        self._stopping.set()
        for mapping in self._mappings.values():
            mapping.wake()
        finished = [mapping.join(deadline) for mapping in self._mappings.values()]
        if not all(finished):
            for function in self._functions.values():
                function.kill()
            last = time.monotonic() + _KILLED_S
            for mapping in self._mappings.values():
                mapping.join(last)
        for function in self._functions.values():
            function.close()
        self._clients.close()
        for destination in self._destinations.values():
            destination.close()
        return all(finished)

    def __enter__(self) -> Runtime:
        try:
            self.start()
        except BaseException:
            with contextlib.suppress(Exception):
                self.stop(0.0)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def invoke(self, function_name: str, event: bytes | Mapping[str, Any]) -> InvokeResult:
        """Invoke a function directly, as Lambda's Invoke with RequestResponse does, and count it."""
        if function_name not in self._functions:
            raise ConfigurationError(
                f"there is no function {function_name!r}; there are {', '.join(sorted(self._functions)) or '(none)'}"
            )
        payload = event if isinstance(event, bytes) else msgspec.json.encode(event)
        meter = self._meters[function_name]
        meter.began(self._clock(), None)
        result = self._functions[function_name].invoke(payload)
        meter.ended(self._clock(), result)
        return result

    def caught_up(self, since: float) -> bool:
        """Whether everything that was in the streams at ``since`` (by ``clock``) is processed.

        That is, for every open shard of every mapping: a read that began at ``since`` or later was empty and at the
        tip, nothing is buffered, in flight or waiting for a retry, and no window is open; closed shards are drained.
        False before the mappings have found their shards.
        """
        if len(self._mappings) != len(self._configs):
            return False
        return all(mapping.caught_up(since) for mapping in self._mappings.values())

    def statistics(self) -> RuntimeStatistics:
        """A snapshot of all counts and states; cheap enough for once a second."""
        return RuntimeStatistics(
            functions={name: meter.snapshot() for name, meter in self._meters.items()},
            mappings={name: mapping.statistics() for name, mapping in self._mappings.items()},
            series=tuple(sorted(point for meter in self._meters.values() for point in meter.series())),
        )


def _require_unique(what: str, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigurationError(f"{what} names must be unique; used more than once: {', '.join(twice)}")
