"""A deployment under a workload, in virtual time: what breaks, when, and what it costs.

Prior art is the discrete-event simulation of SimPy and the spreadsheet that sizes a stream by its average. A sheet
cannot see that writes starve at a finish, or that a refused record comes back; a general simulator would need every
limit written again. Here the limits are the embedded cloud's own objects, asked with a clock that jumps::

    Riders --tick--> PutRecordsProducer / RuleProducer --admit_many--> Shard          simulator.cloud.shard
                                                          Arrivals <--'  |
                       Reader --next_action--> ShardSchedule             | admit_read consumers.runtime
                         `--> Function --put, get--> Table --admit_write--> TableCapacity  simulator.cloud.dynamodb
                                                      `--> TableFeed --> TableReader --> Function

Costs: what is the same every second costs nothing (:mod:`simulator.capacity.arrivals`,
:mod:`simulator.capacity.reading`); what is not, O(shards) numpy a tick of 20 ms, O(runs) an invocation, O(calls) for
the table. Memory is O(racers + seconds + pages not read yet).

Not modelled, and said so in every plan: what functions of others write, the growth of on-demand streams. Not modelled
at all: cold starts.
"""

from __future__ import annotations

import contextlib
import gc
import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from consumers.runtime.event import EventBuilder
from consumers.store import DEFAULT_TABLE
from simulator.capacity.aggregating import AggregatingProducer
from simulator.capacity.arrivals import Arrivals
from simulator.capacity.catching_up import GIVEN_UP, Levels, drain, tell_backlog
from simulator.capacity.clock import Clock
from simulator.capacity.delays import SHARES
from simulator.capacity.delivering import Delivery, transforms_of
from simulator.capacity.fan_out import FanOutReader
from simulator.capacity.functions import MODELLED, Durations, Function
from simulator.capacity.gate import Ledger, Producer
from simulator.capacity.growth import first_split_s
from simulator.capacity.items import League
from simulator.capacity.lanes import Lanes
from simulator.capacity.prices import PRICES, BillLine, Price, Usage, bill_of
from simulator.capacity.producing import PutRecordsProducer
from simulator.capacity.publishing import Publish
from simulator.capacity.reading import Reader, ShardReader, forgettable
from simulator.capacity.rule import RuleProducer
from simulator.capacity.scaling import Scaling
from simulator.capacity.table_reading import read_tables
from simulator.capacity.tables import Table
from simulator.capacity.timeline import Broken, Timeline
from simulator.capacity.workload import Riders, Workload
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
    deliveries: tuple[Delivery, ...]
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
        return not self.ledger.lost and not self.given_up and not timeouts and self.settled_s is not None

    @property
    def given_up(self) -> int:
        """Records, by event source, that were on the stream and that no function will process."""
        return int(sum(self.timeline.total(metric) for metric in GIVEN_UP))

    @property
    def holds(self) -> bool:
        """No limit refused anything, nothing was lost, and consumers caught up and could read what they got."""
        return self.recovers and not self.broken and not self.rejects

    @property
    def rejects(self) -> bool:
        """Whether our functions get packed records, which they do not take apart: no result is ever written."""
        return self.workload.aggregation and any(one.spec.handler in MODELLED for one in self.functions)


@contextlib.contextmanager
def _few_collections() -> Iterator[None]:
    """A plan makes millions of small objects and hardly a cycle: looking for those as often as usual takes a sixth of
    its time."""
    usual = gc.get_threshold()
    gc.set_threshold(200_000, 50, 100)
    try:
        yield
    finally:
        gc.set_threshold(*usual)


@_few_collections()
def plan(
    deployment: Deployment,
    workload: Workload,
    *,
    settings: LimitSettings | None = None,
    durations: Durations | None = None,
    prices: Mapping[str, Price] = PRICES,
    drain_s: float = DRAIN_S,
    jitter_seed: int | None = None,
    lead_s: float = LEAD_S,
    rests: bool = True,
) -> Plan:
    """Run ``workload`` on ``deployment``. The same arguments give the same plan.

    ``jitter_seed`` is of back-offs and of when pollers begin; the workload's own seed when None. ``lead_s`` is
    how long the deployment stands before the first message, and tables save what they do not use. Without ``rests``, no
    second is skipped (:mod:`simulator.capacity.reading`), which changes nothing but the time it takes.

    :raises PlanError: for what the model does not know.
    """
    settings, durations = settings or LimitSettings(), durations or Durations()
    stream = _stream_of(deployment, workload)
    start = workload.start_ms / 1000
    now = start - lead_s
    seed = workload.seed if jitter_seed is None else jitter_seed
    rng = random.Random(seed)
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
    Scaling(deployment, tables, clock, timeline)
    league = League(riders, seed)
    functions: dict[str, Function] = {}
    readers: list[Reader] = []
    siblings: list[list[ShardReader]] = [[] for _ in shards]

    def function_of(spec: FunctionSpec) -> Function:
        if spec.name not in functions:
            table = None if workload.aggregation else tables.get(spec.environment.get("TABLE_NAME", DEFAULT_TABLE))
            functions[spec.name] = Function(spec, table, league, durations, clock, timeline, rng)
        return functions[spec.name]

    for spec, source in sources:
        is_new, function = spec.name not in functions, function_of(spec)
        if is_new and not function.is_modelled:
            left_out.append(f"{spec.name} {PACKED if workload.aggregation else UNKNOWN}")
        mapping = mapping_config(spec, source, source.source_arn)
        for place, shard in enumerate(shards):
            reader = (
                FanOutReader(clock, mapping, shard, place, arrivals, function, timeline, rng, settings)
                if source.consumer_name
                else Reader(
                    clock,
                    mapping,
                    shard,
                    place,
                    arrivals,
                    function,
                    timeline,
                    rng,
                    siblings[place],
                    rests=rests,
                    retention_s=stream.retention_hours * 3600,
                )
            )
            readers.append(reader)
            # Pollers begin when they begin: their seconds are not aligned.
            clock.at(now + rng.random(), reader.step)
    deliveries = [
        Delivery(one, shards, siblings, arrivals, riders.sizes.message_bytes, by, durations, clock, timeline, rng)
        for one, by in transforms_of(deployment, stream.name, function_of, left_out)
    ]
    producer = _producer(riders, shards, arrivals, timeline, rng, settings, lanes)
    levels = Levels(clock, list(tables.values()), start)
    table_readers = read_tables(deployment, tables, function_of, clock, timeline, seed, left_out)
    pollers = [poller for delivery in deliveries for poller in delivery.pollers]
    for race in range(workload.races):
        # Producers run ahead of consumers, on which nothing that they do depends.
        producer.ride((race + 1) * workload.seconds)
        clock.run_until(arrivals.until_s)
        arrivals.forget(forgettable([*readers, *pollers], len(shards), arrivals))
    producer.finish()
    clock.run_until(arrivals.until_s)
    end = start + workload.total_seconds
    settled_s, never = drain(clock, readers, table_readers, end, drain_s)
    levels.stop()
    seconds = timeline.second(clock.now) + 1
    for function in functions.values():
        function.settle(seconds)
    for one in deliveries:
        one.finish()
    tell_backlog(timeline, (source.name for _, source in sources), seconds)
    if stream.mode == "ON_DEMAND":
        split_s = first_split_s(shards, timeline, riders.sizes.record_bytes, seconds)
        if split_s is not None:
            left_out.append(
                f"on-demand stream {stream.name} would split a shard {split_s / 60:.0f} minutes after the start and "
                f"take more from then on; {len(shards)} shards are planned throughout"
            )
    usage = _usage(workload, riders, producer, functions.values(), tables.values(), deliveries, clock.now - now)
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
        backlog=sum(one.backlog for one in readers) + sum(one.backlog for one in table_readers),
        shards=tuple(shards),
        tables=tuple(tables.values()),
        functions=tuple(functions.values()),
        deliveries=tuple(deliveries),
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
            if source.kind == "DynamoDB":
                continue
            if source.source_name != stream.name:
                left_out.append(f"{function.name} is fed by {source.source_name}, not by {stream.name}")
            else:
                found.append((function, source))
    return found, left_out


def _arrivals(
    riders: Riders, shards: Sequence[Shard], sources: Sequence[tuple[FunctionSpec, EventSourceSpec]], lanes: Lanes
) -> Arrivals:
    """Its entries of events are made by the runtime's own encoder of a real message."""
    entries = [b"{}", b"{}"]
    start_s = riders.workload.start_ms / 1000
    if sources:
        function, source = sources[0]
        events = EventBuilder(mapping_config(function, source, source.source_arn), shards[0].shard_id)
        number = shards[0].sequence_number(0, riders.workload.start_ms)
        entries = [
            events.record(number, str(riders.racer_ids[0]), message, start_s).encoded for message in _entries(riders)
        ]
    return Arrivals(start_s, len(shards), entries[0], entries[1], riders.sizes.record_bytes, lanes.keys)


def _entries(riders: Riders) -> Sequence[bytes]:
    """What stands for the data of records: an update and a final, or of packed ones only their size."""
    sizes = riders.sizes
    return [b" " * sizes.record_bytes] * 2 if riders.workload.aggregation else riders.messages


def _usage(
    workload: Workload,
    riders: Riders,
    producer: Producer,
    functions: Iterable[Function],
    tables: Iterable[Table],
    deliveries: Iterable[Delivery],
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
        published={one.spec.name: one.handler.metered for one in functions if isinstance(one.handler, Publish)},
        delivered={one.spec.name: one.totals.records for one in deliveries},
        objects={one.spec.name: one.totals.objects for one in deliveries},
        wcu_hours={one.name: one.unit_hours("Write", seconds) for one in tables if one.scaled},
        rcu_hours={one.name: one.unit_hours("Read", seconds) for one in tables if one.scaled},
    )
