"""A deployment under a workload, in virtual time: what breaks, when, and what it costs.

Prior art is the discrete-event simulation of SimPy and the spreadsheet that sizes a stream by its average. A sheet
cannot see that writes starve at a finish, or that a refused record comes back; a general simulator would need every
limit written again. Here the limits are the embedded cloud's own objects, asked with a clock that jumps::

    Riders --tick--> PutRecordsProducer / RuleProducer --admit_many--> Shard          simulator.cloud.shard
                                                          Arrivals <--'  |
                       Reader --next_action--> ShardSchedule             | admit_read consumers.runtime
                         `--> Function --put, get--> Table --admit_write--> TableCapacity  simulator.cloud.dynamodb

Costs: O(shards) a tick of 20 ms, about a third of a microsecond a record and function (the runtime cuts its batches
record by record), and O(calls) for the table. Memory is O(racers + what of
ticks x shards is not read yet).

Not modelled, and said so in every plan: functions that are not fed by the telemetry stream, enhanced fan-out, streams
that are on-demand for longer than the 15 minutes after which one may split, auto scaling, cold starts.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from consumers.runtime.event import EventBuilder
from consumers.store import DEFAULT_TABLE
from simulator.capacity.aggregating import AggregatingProducer
from simulator.capacity.arrivals import Arrivals
from simulator.capacity.clock import Clock
from simulator.capacity.delays import SHARES
from simulator.capacity.functions import Durations, Function
from simulator.capacity.gate import Ledger, Producer
from simulator.capacity.items import League
from simulator.capacity.lanes import Lanes
from simulator.capacity.prices import PRICES, BillLine, Price, Usage, bill_of
from simulator.capacity.producing import PutRecordsProducer
from simulator.capacity.reading import Reader, forgettable
from simulator.capacity.rule import RuleProducer
from simulator.capacity.tables import Table
from simulator.capacity.timeline import Broken, Timeline
from simulator.capacity.workload import START_MS, Riders, Workload
from simulator.cloud import limits
from simulator.cloud.limits import LimitSettings
from simulator.cloud.sequence import uniform_ranges
from simulator.cloud.shard import Shard
from simulator.deployment import Deployment, EventSourceSpec, FunctionSpec, StreamSpec
from simulator.local_functions import mapping_config

LEAD_S = 1.5
"""The deployment stands so long before the first message."""
DRAIN_S = 900.0
"""How long after the last message consumers may take before a plan gives up on them."""
UNKNOWN = "reads its batches; what it writes is not known to the planner"
PACKED = (
    "gets records that hold several messages as they are, for it polls; ours reject these and write nothing, and what "
    "a function that takes them apart writes is not known to the planner"
)
_HOPES_S = 10.0
"""How often it is asked whether they still can."""


class PlanError(ValueError):
    """What was asked for cannot be planned; the text is one line and says why."""


@dataclass(frozen=True, eq=False, slots=True)
class Plan:
    """What came out.

    ``settled_s`` is when consumers had caught up, from the end of the last race; None when they had not within
    :data:`DRAIN_S`, or could not any more, which ``never`` then says. ``accepted_ms`` is how long messages waited for
    their acceptance from when they were due, in whole ticks of 20 ms: p50, p99 and max. ``not_modelled`` says what was
    left out, one line each.
    """

    deployment: Deployment
    workload: Workload
    riders: Riders
    ledger: Ledger
    accepted_ms: Mapping[str, int]
    timeline: Timeline
    seconds: int
    settled_s: float | None
    never: str
    backlog: int
    shards: tuple[Shard, ...]
    tables: tuple[Table, ...]
    functions: tuple[Function, ...]
    durations: Durations
    usage: Usage
    bill: tuple[BillLine, ...]
    not_modelled: tuple[str, ...]

    @property
    def broken(self) -> list[Broken]:
        """Limits that refused something, the first one first."""
        return self.timeline.broken

    @property
    def recovers(self) -> bool:
        """Nothing was lost, no function was killed, and consumers caught up: what was refused was made good."""
        timeouts = sum(function.totals.timeouts for function in self.functions)
        return not self.ledger.lost and not timeouts and self.settled_s is not None

    @property
    def holds(self) -> bool:
        """No limit refused anything, nothing was lost, and consumers caught up."""
        return self.recovers and not self.broken


def plan(
    deployment: Deployment,
    workload: Workload,
    *,
    settings: LimitSettings | None = None,
    durations: Durations | None = None,
    prices: Mapping[str, Price] = PRICES,
    drain_s: float = DRAIN_S,
    jitter_seed: int | None = None,
    rests: bool = True,
) -> Plan:
    """Run ``workload`` on ``deployment``. The same arguments give the same plan.

    ``jitter_seed`` is of back-offs and of when pollers begin; the workload's own seed when None. Without ``rests``, no
    second is skipped (:mod:`simulator.capacity.reading`), which changes nothing but the time it takes.

    :raises PlanError: for what the model does not know.
    """
    settings, durations = settings or LimitSettings(), durations or Durations()
    stream = _stream_of(deployment, workload)
    start = START_MS / 1000
    now = start - LEAD_S
    rng = random.Random(workload.seed if jitter_seed is None else jitter_seed)
    clock, timeline = Clock(now), Timeline(start)
    ranges = uniform_ranges(
        int(limits.ON_DEMAND_SHARDS) if stream.mode == "ON_DEMAND" else stream.shard_count,
    )
    riders = Riders(workload, [low for low, _ in ranges])
    shards = [Shard(index, one, now, settings) for index, one in enumerate(ranges)]
    sources, left_out = _sources(deployment, stream)
    if workload.transport == "mqtt":
        connects = limits.IOT_SMALL_CONNECTS if settings.iot_small_region else limits.IOT_CONNECTS
        left_out.append(
            f"{workload.bikers:,} bikes are connected when the first race begins; the account's "
            f"{connects.value:,.0f} connects/s take {math.ceil(workload.bikers / connects.value):,} s for it"
        )
    lanes = Lanes(source.parallelization_factor for _, source in sources)
    arrivals = _arrivals(riders, shards, sources, lanes)
    tables = {table.name: Table(table, settings, timeline, now) for table in deployment.tables}
    league = League(riders)
    functions: dict[str, Function] = {}
    readers: list[Reader] = []
    siblings: list[list[Reader]] = [[] for _ in shards]
    for spec, source in sources:
        function = functions.get(spec.name)
        if function is None:
            table = None if workload.aggregation else tables.get(spec.environment.get("TABLE_NAME", DEFAULT_TABLE))
            function = Function(spec, table, league, durations, clock, timeline, rng)
            functions[spec.name] = function
            if not function.is_modelled:
                left_out.append(f"{spec.name} {PACKED if workload.aggregation else UNKNOWN}")
        mapping = mapping_config(spec, source, source.source_arn)
        for place, shard in enumerate(shards):
            reader = Reader(
                clock, mapping, shard, place, arrivals, function, timeline, rng, siblings[place], rests=rests
            )
            readers.append(reader)
            # Pollers begin when they begin: their seconds are not aligned.
            clock.at(now + rng.random(), reader.step)
    producer = _producer(riders, shards, arrivals, timeline, rng, settings, lanes)
    levels = _Levels(clock, list(tables.values()))
    for race in range(workload.races):
        # Producers run ahead of consumers, on which nothing that they do depends.
        producer.ride((race + 1) * workload.seconds)
        clock.run_until(arrivals.until_s)
        arrivals.forget(forgettable(readers, len(shards), arrivals))
    producer.finish()
    clock.run_until(arrivals.until_s)
    end = start + workload.total_seconds
    settled_s, never = _drain(clock, readers, end, drain_s)
    levels.stop()
    seconds = timeline.second(clock.now) + 1
    for function in functions.values():
        function.settle(seconds)
    _tell_backlog(timeline, sources, seconds)
    usage = _usage(workload, riders, producer, functions.values(), tables.values(), clock.now - now)
    return Plan(
        deployment=deployment,
        workload=workload,
        riders=riders,
        ledger=producer.ledger,
        accepted_ms={name: producer.wait_ms(share) for name, share in SHARES.items()},
        timeline=timeline,
        seconds=seconds,
        settled_s=settled_s,
        never=never,
        backlog=sum(reader.backlog for reader in readers),
        shards=tuple(shards),
        tables=tuple(tables.values()),
        functions=tuple(functions.values()),
        durations=durations,
        usage=usage,
        bill=tuple(bill_of(deployment, usage, prices)),
        not_modelled=tuple(left_out),
    )


def _producer(
    riders: Riders,
    shards: Sequence[Shard],
    arrivals: Arrivals,
    timeline: Timeline,
    rng: random.Random,
    settings: LimitSettings,
    lanes: Lanes,
) -> Producer:
    workload = riders.workload
    if workload.transport == "mqtt":
        return RuleProducer(riders, shards, arrivals, timeline, rng, settings, lanes)
    if workload.aggregation:
        return AggregatingProducer(riders, shards, arrivals, timeline, rng, lanes)
    return PutRecordsProducer(riders, shards, arrivals, timeline, rng, lanes)


def _stream_of(deployment: Deployment, workload: Workload) -> StreamSpec:
    if not deployment.streams:
        raise PlanError(f"{deployment.path} declares no stream for telemetry; add an AWS::Kinesis::Stream")
    stream = deployment.streams[0]
    split_s = limits.ON_DEMAND_SPLIT_MINUTES.value * 60
    if stream.mode == "ON_DEMAND" and workload.total_seconds > split_s:
        raise PlanError(
            f"stream {stream.name} is on-demand, and its shards may split after {split_s:.0f} s, which is not planned "
            "yet; plan at most that long"
        )
    if workload.transport == "mqtt" and not _has_rule(deployment, stream):
        raise PlanError(
            f"{deployment.path} has no rule that puts messages on stream {stream.name}; add an AWS::IoT::TopicRule "
            "with a Kinesis action, or plan producers that put records themselves"
        )
    return stream


def _has_rule(deployment: Deployment, stream: StreamSpec) -> bool:
    actions = [action for rule in deployment.topic_rules for action in rule.payload.get("actions", ())]
    return any(action.get("kinesis", {}).get("streamName") == stream.name for action in actions)


def _sources(
    deployment: Deployment, stream: StreamSpec
) -> tuple[list[tuple[FunctionSpec, EventSourceSpec]], list[str]]:
    """Functions that the stream feeds, and a line on each event source that is left out."""
    found, left_out = [], []
    for function in deployment.functions:
        for source in function.event_sources:
            if source.kind != "Kinesis" or source.source_name != stream.name:
                left_out.append(f"{function.name} is fed by {source.source_name}, not by {stream.name}")
            elif source.consumer_name:
                left_out.append(f"{function.name} reads by enhanced fan-out ({source.consumer_name})")
            else:
                found.append((function, source))
    if deployment.scaling_policies:
        left_out.append("auto scaling: capacity stays as provisioned")
    return found, left_out


def _arrivals(
    riders: Riders, shards: Sequence[Shard], sources: Sequence[tuple[FunctionSpec, EventSourceSpec]], lanes: Lanes
) -> Arrivals:
    """Its entries of events are made by the runtime's own encoder of a real message."""
    entries = [b"{}", b"{}"]
    if sources:
        function, source = sources[0]
        events = EventBuilder(mapping_config(function, source, source.source_arn), shards[0].shard_id)
        number = shards[0].sequence_number(0, START_MS)
        entries = [
            events.record(number, str(riders.racer_ids[0]), message, START_MS / 1000).encoded
            for message in _entries(riders)
        ]
    return Arrivals(START_MS / 1000, len(shards), entries[0], entries[1], riders.sizes.record_bytes, lanes.keys)


def _entries(riders: Riders) -> Sequence[bytes]:
    """What stands for the data of records: an update and a final, or of packed ones only their size."""
    sizes = riders.sizes
    return [b" " * sizes.record_bytes] * 2 if riders.workload.aggregation else riders.messages


class _Levels:
    """What tables have saved, told at the end of each second."""

    def __init__(self, clock: Clock, tables: Sequence[Table]) -> None:
        self._clock = clock
        self._tables = tables
        self._next = START_MS / 1000 + 1
        self._runs = bool(tables)
        self._plan()

    def _plan(self) -> None:
        if self._runs:
            self._clock.at(self._next, self._tell)

    def _tell(self) -> None:
        for table in self._tables:
            # It belongs to the second that it ends.
            table.record_levels(self._clock.now - 1e-3)
        self._next += 1
        self._plan()

    def stop(self) -> None:
        """Nothing more happens."""
        self._runs = False
        for table in self._tables:
            table.record_levels(self._clock.now)


def _tell_backlog(timeline: Timeline, sources: Sequence[tuple[FunctionSpec, EventSourceSpec]], seconds: int) -> None:
    """Records on the stream that an event source has not processed, at the end of each second."""
    accepted = np.cumsum(timeline.summed("accepted", seconds))
    for name in {source.name for _, source in sources}:
        left = accepted - np.cumsum(timeline.series("processed", name, seconds))
        timeline.set_series("backlog", name, left.tolist())


def _drain(clock: Clock, readers: Sequence[Reader], end: float, drain_s: float) -> tuple[float | None, str]:
    """Run on until consumers have caught up; when that was, from ``end``, to a tenth of a second. Or why they never
    will, once that is certain."""
    sent = clock.now
    give_up = max(sent, end) + drain_s
    asks_at = sent + _HOPES_S
    # Who has caught up with all that was sent stays so.
    left = list(readers)
    while True:
        while left and left[-1].schedule.caught_up(sent):
            left.pop()
        if not left:
            return max(0.0, clock.now - end), ""
        if clock.now >= give_up:
            return None, ""
        if clock.now >= asks_at:
            asks_at = clock.now + _HOPES_S
            by_function: dict[Function, list[Reader]] = {}
            for one in left:
                if not one.schedule.caught_up(sent):
                    by_function.setdefault(one.function, []).append(one)
            reasons = {function.why_never(its, give_up) for function, its in by_function.items()}
            if "" not in reasons:
                return None, "; ".join(sorted(reasons))
        # Nothing changes before something that was planned happens.
        clock.run_until(min(give_up, max(clock.now + 0.1, clock.next_at())))


def _usage(
    workload: Workload,
    riders: Riders,
    producer: Producer,
    functions: Iterable[Function],
    tables: Iterable[Table],
    seconds: float,
) -> Usage:
    by_mqtt = workload.transport == "mqtt"
    sizes, ledger, stored = riders.sizes, producer.ledger, producer.stored
    return Usage(
        seconds=seconds,
        records=stored.records,
        record_bytes=stored.record_bytes,
        payload_units=stored.payload_units,
        mqtt_messages=ledger.generated if by_mqtt else 0,
        mqtt_message_bytes=sizes.message_bytes if by_mqtt else 0,
        connections=workload.bikers if by_mqtt else 0,
        invocations={one.spec.name: one.totals.invocations for one in functions},
        duration_s={one.spec.name: one.totals.duration_s for one in functions},
        write_units={one.name: one.write_units for one in tables},
        read_units={one.name: one.read_units for one in tables},
    )
