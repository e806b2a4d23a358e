"""The report of a race or a load test, as far as a plan can be held against it.

Reports of older versions lack members (what a duration was by the size of its batch, how long the deployment had
stood); what is not there is None or empty, and :attr:`Measurement.notes` says what follows from that.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from simulator.capacity.workload import PARTITION_KEYS, Riders, Workload

SCHEMA = 1
TABLE_CALLS = ("PutItem", "GetItem", "UpdateItem", "DeleteItem", "Query", "BatchWriteItem", "TransactWriteItems")
_SHARD_RECORDS, _SHARD_BYTES = "kinesis.shard.write.records_per_second", "kinesis.shard.write.bytes_per_second"
_T = TypeVar("_T")
_SIZE_OFF = 0.01
"""Messages of a race differ by their digits; sizes that are closer than this are the same."""
_Some = Annotated[int, Meta(ge=1)]
_Count = Annotated[int, Meta(ge=0)]
_Amount = Annotated[float, Meta(ge=0)]


class CalibrationError(ValueError):
    """The file cannot be used; the text is one line and says why."""


class Group(msgspec.Struct, frozen=True):
    """Warm invocations of a function that got about as many records: at most ``records_most``."""

    records_most: _Count
    invocations: _Some
    p50: _Amount
    sum: _Amount


class Percentiles(msgspec.Struct, frozen=True):
    """Milliseconds; None where nothing was measured."""

    p50: _Amount | None = None
    p99: _Amount | None = None
    max: _Amount | None = None


class MeasuredFunction(msgspec.Struct, frozen=True):
    """``name`` is the logical id."""

    name: str
    invocations: _Count
    duration_ms: Percentiles
    iterator_age_ms_max: _Amount | None = None
    cold_starts: _Count = 0
    warm_duration_ms: tuple[Group, ...] = ()

    @property
    def warm_ms(self) -> float:
        """What warm invocations took in all; 0 in an older report."""
        return sum(group.sum for group in self.warm_duration_ms)

    @property
    def warm_mean_ms(self) -> float | None:
        """Of the warm invocations; None in an older report."""
        count = sum(group.invocations for group in self.warm_duration_ms)
        return self.warm_ms / count if count else None


class MeasuredLimit(msgspec.Struct, frozen=True):
    """``total`` is what was used of it in all, None where the report does not say."""

    name: str
    resource: str
    throttled: _Count = 0
    total: _Amount | None = None


class _Deployment(msgspec.Struct, frozen=True):
    parameters: dict[str, Any] = {}
    config_env: str = "default"


class _Race(msgspec.Struct, frozen=True):
    racers: _Some
    run_time_s: _Some
    target: str
    races: _Some = 1
    classes: tuple[int, ...] = (1,)
    via: Literal["kinesis", "mqtt"] = "kinesis"
    seed: _Count = 7
    phase: Literal["spread", "burst"] = "spread"
    partition_key: str | None = None
    interval_s: _Some = 1
    qos: int = 1
    deadline_s: Annotated[float, Meta(gt=0)] = 300.0
    started_at: str | None = None
    lead_s: _Amount | None = None
    settled_s: _Amount | None = None
    interrupted: bool = False
    limit_settings: dict[str, float | bool] = {}


class _RaceReport(msgspec.Struct, frozen=True):
    run: _Race
    deployment: _Deployment
    ledger: dict[str, Any]
    limits: tuple[MeasuredLimit, ...]
    functions: tuple[MeasuredFunction, ...]


class _LoadRun(msgspec.Struct, frozen=True):
    scenario: str


class _LoadReport(msgspec.Struct, frozen=True):
    run: _LoadRun
    latency_ms: dict[str, Percentiles]
    ledger: dict[str, Any]
    operations: dict[str, Any]


class _Envelope(msgspec.Struct, frozen=True):
    schema: int
    run: dict[str, Any]
    kind: str = "race"


@dataclass(frozen=True, slots=True)
class Measurement:
    """What was measured. ``workload`` and ``deployment`` are the race's; None and empty for a load test, of which
    only ``call_ms`` is known, the median of a call of the table, if it made such calls. ``message_bytes`` is the mean
    message where it is another than the encoder's."""

    path: Path
    kind: Literal["race", "loadtest"]
    workload: Workload | None = None
    config_env: str = "default"
    parameters: dict[str, str] = field(default_factory=dict)
    limit_settings: tuple[str, ...] = ()
    lead_s: float | None = None
    settled_s: float | None = None
    ledger: dict[str, float] = field(default_factory=dict)
    limits: tuple[MeasuredLimit, ...] = ()
    functions: tuple[MeasuredFunction, ...] = ()
    call_ms: float | None = None
    message_bytes: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def record_bytes(self) -> float | None:
        """The mean record on the stream, with its key; None where that was not counted."""
        records, size = self.total(_SHARD_RECORDS), self.total(_SHARD_BYTES)
        return size / records if records and size else None

    def total(self, name: str, resource: str | None = None) -> float | None:
        """What was used of a limit, of one resource or of all; None where that was not counted."""
        found = [one.total for one in self._of(name, resource) if one.total is not None]
        return sum(found) if found else None

    def throttled(self, name: str, resource: str | None = None) -> int | None:
        """How often a limit refused; None where the report does not name it."""
        found = [one.throttled for one in self._of(name, resource)]
        return sum(found) if found else None

    def _of(self, name: str, resource: str | None) -> list[MeasuredLimit]:
        return [one for one in self.limits if one.name == name and resource in (None, one.resource)]


def read_measurement(path: Path) -> Measurement:
    """``report.json``, or the one in the directory ``path``.

    :raises CalibrationError: when it cannot be read, or is not the report of a race or a load test.
    """
    if path.is_dir():
        path /= "report.json"
    try:
        text = path.read_bytes()
    except OSError as error:
        raise CalibrationError(f"{path}: {error.strerror}") from None
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CalibrationError(f"{path} is not JSON: {error}") from None
    envelope = _decoded(path, text, _Envelope)
    if envelope.schema != SCHEMA:
        raise CalibrationError(f"{path} has schema {envelope.schema}; this version reads schema {SCHEMA}")
    if envelope.run.get("target") == "plan":
        raise CalibrationError(f"{path} is a plan, which measured nothing; give the report of a race or a load test")
    if envelope.kind == "loadtest":
        return _load_test(path, _decoded(path, text, _LoadReport))
    if envelope.kind != "race":
        raise CalibrationError(f"{path} is of the kind {envelope.kind!r}; give the report of a race or a load test")
    return _race(path, _decoded(path, text, _RaceReport))


def _decoded(path: Path, text: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError as error:
        raise CalibrationError(f"{path} is not the report of a race or a load test: {error}") from None


def _race(path: Path, report: _RaceReport) -> Measurement:
    run, notes = report.run, []
    try:
        workload = Workload(
            racers=run.racers,
            seconds=run.run_time_s,
            races=run.races,
            classes=run.classes,
            transport="mqtt" if run.via == "mqtt" else "putrecords",
            phase=run.phase,
            deadline_s=run.deadline_s,
            interval_s=run.interval_s,
            qos=run.qos,
            seed=run.seed,
        )
        if run.partition_key in PARTITION_KEYS:
            workload = replace(workload, partition_key=run.partition_key)
        elif run.partition_key is None:
            notes.append(f"it does not say the partition key; {workload.partition_key} is planned")
        else:
            raise CalibrationError(f"{path}: partition_key must be one of {', '.join(PARTITION_KEYS)}")
        if run.started_at is not None:
            began_ms = round(datetime.fromisoformat(run.started_at).timestamp() * 1000)
            # Windows end where they ended.
            workload = replace(workload, start_ms=began_ms)
    except CalibrationError:
        raise
    except (ValueError, OverflowError) as error:
        raise CalibrationError(f"{path}: {error}") from None
    if run.interrupted:
        notes.append("it was interrupted; the whole race is planned")
    if run.lead_s is None:
        notes.append("it does not say how long its deployment had stood, so what tables had saved may differ")
    if not report.functions:
        notes.append("no function was watched, so durations stay as they are")
    elif not any(one.warm_duration_ms for one in report.functions):
        notes.append("it does not tell durations by batch size, so only its percentiles are used")
    cold = [f"{one.cold_starts} of {one.name}" for one in report.functions if one.cold_starts]
    if cold:
        notes.append(f"cold starts ({', '.join(cold)}) are in its p99 and max; plans have none")
    found = Measurement(
        path=path,
        kind="race",
        workload=workload,
        config_env=report.deployment.config_env,
        parameters={
            name: ",".join(map(str, value)) if isinstance(value, list) else _text(value)
            for name, value in report.deployment.parameters.items()
            if value != "****"
        },
        limit_settings=tuple(f"{name}={_text(value)}" for name, value in run.limit_settings.items()),
        lead_s=run.lead_s,
        settled_s=run.settled_s,
        ledger={name: value for name, value in report.ledger.items() if isinstance(value, int | float)},
        limits=report.limits,
        functions=report.functions,
    )
    sizes = Riders(workload, [0]).sizes
    measured = found.record_bytes
    if measured is not None and abs(measured / sizes.record_bytes - 1) > _SIZE_OFF:
        found = replace(found, message_bytes=max(1, round(measured - (sizes.record_bytes - sizes.message_bytes))))
        notes.append(
            f"its records were {measured:.0f} bytes, not {sizes.record_bytes}: messages of {found.message_bytes} bytes "
            "are planned"
        )
    return replace(found, notes=tuple(notes))


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _load_test(path: Path, report: _LoadReport) -> Measurement:
    # Its latencies and its ledger are of the same operation, whose name stands only with the operations.
    alike = [name for name, told in report.operations.items() if told == report.ledger]
    operation = alike[0] if len(alike) == 1 else ""
    told = report.latency_ms.get("before_knee") or report.latency_ms.get("all") or Percentiles()
    if told.p50 is None:
        told = report.latency_ms.get("all") or Percentiles()
    notes = [f"a load test ({report.run.scenario}) runs no functions and no race: what is planned is as asked for"]
    if operation in TABLE_CALLS and told.p50 is not None:
        notes.append(f"call_ms is the median of its {operation} calls; invocation_ms and record_us stay as they are")
        return Measurement(path, "loadtest", call_ms=told.p50, notes=tuple(notes))
    notes.append(f"its latencies are of {operation or 'several operations'}, not of a table's, so durations stay as is")
    return Measurement(path, "loadtest", notes=tuple(notes))
