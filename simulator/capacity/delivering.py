"""A delivery stream (Amazon Data Firehose) in virtual time: it reads beside the functions and writes objects.

::

    Shard --1 GetRecords/s--> gather 1 MB or 60 s --> transform function --> gather 5 MB or 300 s --> an object
    (one of its 5 reads/s)    (of each shard, at most 5 calls at a time)     (of the delivery stream)

Reads are the shard's own ``admit_read`` and ``charge_read``; one that is refused is tried a second later. Buffers end
at whichever comes first, and at whole records. That the first buffer is a shard's and the second the delivery stream's
is an assumption: AWS publishes only what stands in brackets. What comes out of a transform is taken to be as large as
what went in. What is still gathered when a plan ends is delivered after it; the books count it, the timeline does not.

Series of the timeline, by delivery stream: ``delivered_records``, ``delivered_bytes``, ``delivered_objects`` when they
are written, ``delivery_age_s`` of the oldest record in an object (CloudWatch's DataFreshness).
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from consumers.runtime.batches import Outcome
from simulator.capacity.arrivals import Arrivals
from simulator.capacity.clock import Clock, Process
from simulator.capacity.functions import Function
from simulator.capacity.handlers import Durations
from simulator.capacity.reading import ShardReader
from simulator.capacity.timeline import Timeline
from simulator.cloud import limits
from simulator.cloud.shard import Shard
from simulator.deployment import DeliveryStreamSpec, Deployment, FunctionSpec

MIB = 1024 * 1024
POLL_S = 1.0
"""GetRecords once a second and shard (CAH Data Firehose ``limits.md``)."""
MOST_CALLS = 5
"""Invocations of the transform at a time, for a shard (CAH ``limits.md``)."""
RETRY_PAUSE_S = 1.0
"""Between attempts of a transform; AWS publishes their number and not their pace."""


@dataclass(slots=True)
class DeliveryTotals:
    """``records`` were read, and are in ``objects`` of ``nbytes`` before compression; those ``failed``, on which the
    function failed to the last retry, in objects of their own."""

    records: int = 0
    failed: int = 0
    objects: int = 0
    nbytes: int = 0


class Gathering:
    """Records of ``each`` bytes until there are ``most_bytes`` of them or the first has waited ``most_s``; ``full``
    then gets their number and the arrival of the first."""

    def __init__(
        self, clock: Clock, each: int, most_bytes: float, most_s: float, full: Callable[[int, float], None]
    ) -> None:
        self.records = 0
        self.most_records = max(1, math.ceil(most_bytes / each))
        self._clock = clock
        self._most_s = most_s
        self._full = full
        self._oldest_s = 0.0
        self._number = 0

    def add(self, records: int, arrived_s: float) -> None:
        """``records`` more, the first of which came at ``arrived_s``."""
        while records:
            if not self.records:
                self._open(arrived_s)
            self._oldest_s = min(self._oldest_s, arrived_s)
            taken = min(records, self.most_records - self.records)
            self.records += taken
            records -= taken
            if self.records == self.most_records:
                self._flush()
        if self.records and not self._most_s:
            self._flush()

    def _open(self, arrived_s: float) -> None:
        self._oldest_s = arrived_s
        self._number += 1
        number = self._number

        def over() -> None:
            if self.records and self._number == number:
                self._flush()

        self._clock.at(self._clock.now + self._most_s, over)

    def _flush(self) -> None:
        records, self.records = self.records, 0
        self._number += 1
        self._full(records, self._oldest_s)


class _Poller:
    """Reads one shard for a delivery stream, from the first :meth:`step` on."""

    def __init__(self, delivery: Delivery, shard: Shard, place: int, siblings: list[ShardReader]) -> None:
        self.place = place
        self.is_behind = False
        self.position = 0
        self.gathering: Gathering | None = None
        self.waiting: deque[tuple[int, float]] = deque()
        self.calls = 0
        self._delivery = delivery
        self._shard = shard
        self._siblings = siblings
        siblings.append(self)

    @property
    def needs_from(self) -> int:
        """The first position that it has not read."""
        return self.position

    def rouse(self) -> None:
        """It never rests."""

    def step(self) -> None:
        delivery, shard, place = self._delivery, self._shard, self.place
        clock, timeline, arrivals = delivery.clock, delivery.timeline, delivery.arrivals
        now = clock.now
        clock.at(now + POLL_S, self.step)
        if not shard.admit_read(now):
            timeline.add("read_throttled", shard.shard_id, now, 1)
            quota, bucket = limits.SHARD_READ_CALLS, shard.read_calls
            if shard.read_bytes.tokens < 0:
                quota, bucket = limits.SHARD_READ_BYTES, shard.read_bytes
            timeline.broke(quota.name, shard.shard_id, bucket.rate, quota.unit, now)
            self._fall_behind()
            return
        came = arrivals.end(place, now)
        end = min(came, self.position + arrivals.read_max)
        records = end - self.position
        timeline.add("read_calls", shard.shard_id, now, 1)
        if came > end:
            self._fall_behind()
        else:
            self.is_behind = False
        if records:
            shard.charge_read(records * arrivals.record_bytes, now)
            arrived_s = arrivals.arrived_s(place, self.position)
            self.position = end
            delivery.take(self, records, arrived_s)

    def _fall_behind(self) -> None:
        self.is_behind = True
        for one in self._siblings:
            one.rouse()


class Delivery:
    """One delivery stream. ``data_bytes`` are a record's, without its key; ``function`` transforms it, if any does."""

    def __init__(
        self,
        spec: DeliveryStreamSpec,
        shards: Sequence[Shard],
        siblings: Sequence[list[ShardReader]],
        arrivals: Arrivals,
        data_bytes: int,
        function: Function | None,
        durations: Durations,
        clock: Clock,
        timeline: Timeline,
        rng: random.Random,
    ) -> None:
        self.spec = spec
        self.totals = DeliveryTotals()
        self.arrivals = arrivals
        self.clock = clock
        self.timeline = timeline
        self._function = function
        self._durations = durations
        self._data_bytes = data_bytes
        self._objects, self._failures = (
            Gathering(clock, data_bytes, spec.buffer_mb * MIB, spec.buffer_s, self._write) for _ in range(2)
        )
        self._running = 0
        self.pollers = [_Poller(self, shard, place, siblings[place]) for place, shard in enumerate(shards)]
        for poller in self.pollers:
            if function is not None and spec.transform is not None:
                most_bytes, most_s = spec.transform.buffer_mb * MIB, spec.transform.buffer_s
                poller.gathering = Gathering(clock, data_bytes, most_bytes, most_s, self._transform_for(poller))
            clock.at(clock.now + rng.random(), poller.step)

    def take(self, poller: _Poller, records: int, arrived_s: float) -> None:
        """``records`` were read, the first of which came at ``arrived_s``."""
        self.totals.records += records
        if poller.gathering is not None:
            poller.gathering.add(records, arrived_s)
        else:
            self._objects.add(records, arrived_s)

    def finish(self) -> None:
        """Count what is delivered after the plan: what is not read, gathered, or on its way through the function."""
        left = self._objects.records + self._running
        for poller in self.pollers:
            unread = self.arrivals.total(poller.place) - poller.position
            poller.position += unread
            self.totals.records += unread
            left += unread + sum(records for records, _ in poller.waiting)
            if poller.gathering is not None and self._function is not None:
                self._call_later(poller, self._function, unread)
                left += poller.gathering.records
        for records in (left, self._failures.records):
            self.totals.objects += math.ceil(records / self._objects.most_records)
            self.totals.nbytes += records * self._data_bytes

    def _call_later(self, poller: _Poller, function: Function, unread: int) -> None:
        assert poller.gathering is not None
        calls = [records for records, _ in poller.waiting]
        whole, rest = divmod(poller.gathering.records + unread, poller.gathering.most_records)
        calls += [poller.gathering.most_records] * whole + ([rest] if rest else [])
        for records in calls:
            function.totals.invocations += 1
            function.totals.duration_s += self._durations.base_s(records)

    # -- on the way ------------------------------------------------------------------------------------

    def _transform_for(self, poller: _Poller) -> Callable[[int, float], None]:
        def gathered(records: int, oldest_s: float) -> None:
            poller.waiting.append((records, oldest_s))
            self._transform(poller)

        return gathered

    def _transform(self, poller: _Poller) -> None:
        while poller.waiting and poller.calls < MOST_CALLS:
            poller.calls += 1
            records, oldest_s = poller.waiting.popleft()
            self._running += records
            self._call(poller, records, oldest_s, attempt=0)

    def _call(self, poller: _Poller, records: int, oldest_s: float, attempt: int) -> None:
        assert self._function is not None
        assert self.spec.transform is not None
        retries = self.spec.transform.retries

        def done(outcome: Outcome) -> None:
            is_failed = outcome.is_throttled or outcome.function_error is not None
            if is_failed and attempt < retries:
                again_at = self.clock.now + RETRY_PAUSE_S
                self.clock.at(again_at, lambda: self._call(poller, records, oldest_s, attempt + 1))
                return
            poller.calls -= 1
            self._running -= records
            if is_failed:
                self.totals.failed += records
                self._failures.add(records, oldest_s)
            else:
                self._objects.add(records, oldest_s)
            self._transform(poller)

        self._function.run(self._work(records), records, self.spec.name, done)

    def _work(self, records: int) -> Process[Outcome]:
        yield self._durations.base_s(records)
        return Outcome(records)

    def _write(self, records: int, oldest_s: float) -> None:
        now, name, timeline = self.clock.now, self.spec.name, self.timeline
        nbytes = records * self._data_bytes
        self.totals.objects += 1
        self.totals.nbytes += nbytes
        timeline.add("delivered_objects", name, now, 1)
        timeline.add("delivered_records", name, now, records)
        timeline.add("delivered_bytes", name, now, nbytes)
        timeline.peak("delivery_age_s", name, now, now - oldest_s)


def transforms_of(
    deployment: Deployment, stream_name: str, function_of: Callable[[FunctionSpec], Function], left_out: list[str]
) -> Iterator[tuple[DeliveryStreamSpec, Function | None]]:
    """Delivery streams that read the stream, each with its transform; a line in ``left_out`` on what is not known."""
    for one in deployment.delivery_streams:
        if one.stream_name != stream_name:
            left_out.append(f"{one.name} delivers {one.stream_name}, not {stream_name}")
        elif one.transform is None:
            yield one, None
        else:
            arn = one.transform.function_arn
            function = function_of(next(spec for spec in deployment.functions if spec.arn == arn))
            left_out.append(f"{function.spec.name} transforms what it gets; its records are taken to stay as large")
            yield one, function
