"""Whole lives of shards at random: whatever a function, a destination and a machine do, no record is lost unseen.

Every setting at once: lanes, bisecting, retries, record age, filters, a destination, windows, a reader that is
throttled, invocations that end in any order, and machines that die and start again from their checkpoint.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.runtime.actions import Deliver, Finished, Invoke, Poll, Wait
from consumers.runtime.batches import PAYLOAD_MAX_BYTES, Outcome
from consumers.runtime.checkpoints import ShardCheckpoint
from consumers.runtime.config import MappingConfig, RuntimeSettings
from consumers.runtime.event import EventBuilder, Record
from consumers.runtime.shard_schedule import ShardSchedule, lane_of

ARN = "arn:aws:kinesis:us-east-1:123456789012:stream/alleycat"
QUEUE = "arn:aws:sqs:us-east-1:123456789012:dead"
SHARD = "shardId-000000000000"
SETTINGS = RuntimeSettings(destination_attempts=2, read_ahead_max_records=12)
KEYS = "abcdefgh"
T = 1_000_000.0
KEEP = '{"data":{"keep":[true]}}'


@dataclass
class World:
    """A shard, and what happens to its reader by a script: one word per thing that can go wrong."""

    gaps: list[float]
    keys: str
    kept: list[bool]
    poison: set[int]
    config: MappingConfig
    script: list[str]
    takes: list[float]
    now: float = T
    processed: Counter[int] = field(default_factory=Counter)
    first_done: list[int] = field(default_factory=list)
    told: set[int] = field(default_factory=set)
    running: list[tuple[float, Invoke]] = field(default_factory=list)
    restarts: int = 0

    def run(self) -> ShardSchedule:
        events = EventBuilder(self.config, SHARD)
        self.records: list[Record] = []
        arrival_s = T
        for number, gap in enumerate(self.gaps):
            arrival_s += gap
            data = json.dumps({"keep": self.kept[number % len(self.kept)]}).encode()
            key = self.keys[number % len(self.keys)]
            self.records.append(events.record(str(number), key, data, arrival_s))
        self._position = -1
        self.one = self._restart(ShardCheckpoint())
        for _ in range(50_000):
            if self._is_over():
                return self.one
            if self.running and self.config.parallelization_factor == 1:
                self.now = self.running[0][0]  # with one lane nothing else happens meanwhile
            while due := [entry for entry in self.running if entry[0] <= self.now]:
                self.running.remove(due[0])
                self._returned(due[0][1])
            self._look_at_checkpoint()
            match self.one.next_action(self.now):
                case Poll(position):
                    self._poll(dict(position.arguments))
                case Invoke() as invocation:
                    self._invoke(invocation)
                case Deliver(discard, lane):
                    self._deliver(discard.records, lane)
                case Wait(until):
                    at = min([until, *(entry[0] for entry in self.running)])
                    assert at > self.now, "a wait that does not wait is a busy loop"
                    self.now = at
                case Finished():
                    raise AssertionError("the shard never ends here")
        raise AssertionError("the shard never caught up")

    def _is_over(self) -> bool:
        return not self.running and self.one.caught_up(
            max([record.arrival_s for record in self.records], default=T) + 1
        )

    def _restart(self, checkpoint: ShardCheckpoint) -> ShardSchedule:
        self._iterator: int | None = None
        self.running.clear()
        return ShardSchedule(self.config, SHARD, SETTINGS, self.now, checkpoint, rng=lambda: 0.5)

    def _next(self) -> str:
        return self.script.pop() if self.script else "ok"

    def _poll(self, position: dict[str, Any]) -> None:
        if self._next() == "throttle":
            self.one.on_poll_throttled(self.now)
            return
        if self._iterator is None:
            self._iterator = int(position.get("StartingSequenceNumber", -1)) + 1
        there = [record for record in self.records[self._iterator :] if record.arrival_s <= self.now]
        found = there[:5]
        self._iterator += len(found)
        self.one.on_poll_result(self.now, self.now, found, 1000 * (len(there) > 5), shard_ended=False)

    def _invoke(self, invocation: Invoke) -> None:
        config = self.config
        batch = numbers(invocation.records)
        assert len(batch) <= config.batch_size
        assert len(invocation.event()) <= PAYLOAD_MAX_BYTES
        assert bool(batch) != invocation.is_final
        assert all(self.passes(n) for n in batch), "what is filtered out is not sent"
        if config.maximum_record_age_s > 0 and batch:
            assert self.now - invocation.records[0].arrival_s <= config.maximum_record_age_s
        lanes = config.parallelization_factor
        assert {lane_of(record.partition_key, lanes) for record in invocation.records} <= {invocation.lane}
        busy_keys = {record.partition_key for _, other in self.running for record in other.records}
        assert not busy_keys & {record.partition_key for record in invocation.records}, "a key is in two invocations"
        assert len(self.running) < lanes
        takes = self.takes[sum(self.processed.values()) % len(self.takes)]
        self.running.append((self.now + takes, invocation))

    def _returned(self, invocation: Invoke) -> None:
        batch, what = numbers(invocation.records), self._next()
        count, failure = len(batch), None
        if what == "throttle":
            self.one.on_invoke_result(Outcome(0, is_throttled=True), self.now, invocation.lane)
            return
        bad = [n for n in batch if n in self.poison]
        if what == "partial" and self.config.report_batch_item_failures:
            count = batch.index(bad[0]) if bad else len(batch) // 2
        elif what in ("fail", "die") or bad:
            count = 0
        if count < len(batch) or what == "fail":
            failure = ("ValueError", "no")
        if what == "die":
            # Nobody heard of it; whatever else was in flight is gone as well.
            self.restarts += 1
            self.one = self._restart(self.one.checkpoint)
            return
        for n in batch[:count]:
            if not self.processed[n]:
                self.first_done.append(n)
            self.processed[n] += 1
        state = b'{"seen":1}' if invocation.window is not None else None
        self.one.on_invoke_result(Outcome(count, failure, state), self.now, invocation.lane)

    def _deliver(self, records: tuple[Record, ...], lane: int) -> None:
        if self._next() == "fail":
            self.one.on_delivery_failed(self.now, lane)
        else:
            self.told.update(numbers(records))
            self.one.on_delivered(self.now, lane)

    def passes(self, n: int) -> bool:
        return not self.config.filter_patterns or self.kept[n % len(self.kept)]

    def _look_at_checkpoint(self) -> None:
        """Below it, everything is processed, filtered out, or given up and counted."""
        number = self.one.checkpoint.sequence_number
        position = int(number) if number is not None else -1
        assert position >= self._position, "a checkpoint never goes back"
        self._position = position
        below = range(int(number) + 1) if number is not None else range(0)
        left = [n for n in below if self.passes(n) and not self.processed[n] and n not in self.told]
        if not self.restarts:
            # Without a destination, or when it refuses for good, only the count tells.
            assert len(left) <= self.one.counts.dropped
        if self.config.maximum_retry_attempts < 0 and self.config.maximum_record_age_s < 0:
            assert left == [], "the checkpoint passed a record that is not processed"


def numbers(records: tuple[Record, ...]) -> list[int]:
    return [int(record.sequence_number) for record in records]


def configs(*, windows: bool) -> st.SearchStrategy[MappingConfig]:
    return st.builds(
        MappingConfig,
        name=st.just("m"),
        function_name=st.just("f"),
        stream_name=st.just("alleycat"),
        stream_arn=st.just(ARN),
        batch_size=st.integers(1, 6),
        batching_window_s=st.sampled_from([0.0, 0.7, 3.0]),
        maximum_retry_attempts=st.sampled_from([-1, 0, 1, 3]),
        maximum_record_age_s=st.sampled_from([-1, -1, 60]),
        bisect_batch_on_function_error=st.booleans(),
        report_batch_item_failures=st.booleans(),
        on_failure_destination=st.sampled_from([None, QUEUE]),
        filter_patterns=st.sampled_from([(), (KEEP,)]),
        **(
            {"tumbling_window_s": st.sampled_from([1, 3, 900])}
            if windows
            else {"parallelization_factor": st.sampled_from([1, 2, 3, 10])}
        ),
    )


def worlds(*, windows: bool = False) -> st.SearchStrategy[World]:
    return st.builds(
        World,
        gaps=st.lists(st.sampled_from([0.0, 0.0, 0.0, 0.2, 1.5, 20.0]), max_size=30),
        keys=st.text(st.sampled_from(KEYS), min_size=1, max_size=8),
        kept=st.lists(st.booleans(), min_size=1, max_size=5),
        poison=st.sets(st.integers(0, 29), max_size=3),
        config=configs(windows=windows),
        script=st.lists(st.sampled_from(["ok", "ok", "fail", "partial", "throttle", "die"]), max_size=40),
        takes=st.lists(st.sampled_from([0.05, 0.3, 2.0]), min_size=1, max_size=4),
    )


def live(world: World) -> ShardSchedule:
    if world.config.maximum_retry_attempts < 0 and world.config.maximum_record_age_s < 0:
        world.poison = set()  # it would block for ever, as it should
    return world.run()


@given(worlds())
@settings(max_examples=400, deadline=None)
def test_every_record_is_processed_or_dropped_and_counted_or_filtered_and_counted(world: World) -> None:
    one = live(world)
    everything = range(len(world.gaps))
    wanted = {n for n in everything if world.passes(n)}
    done = {n for n in wanted if world.processed[n]}
    assert set(world.processed) <= wanted
    assert one.checkpoint.sequence_number == (str(everything[-1]) if everything else None)
    missing = wanted - done - world.told
    if not world.restarts:
        counts = one.counts
        assert counts.polled == len(everything)
        assert counts.filtered_out == len(everything) - len(wanted)
        assert len(missing) == counts.dropped
        assert counts.delivered == len(world.told)
        assert counts.dropped_records == counts.dropped + counts.delivered == len(wanted - done)
        assert sum(world.processed.values()) == len(done), "without restarts nothing is processed twice"
    if world.config.maximum_retry_attempts < 0 and world.config.maximum_record_age_s < 0:
        assert done == wanted


@given(worlds())
@settings(max_examples=300, deadline=None)
def test_records_of_a_key_are_first_processed_in_their_order(world: World) -> None:
    live(world)
    by_key: dict[str, list[int]] = {}
    for n in world.first_done:
        by_key.setdefault(world.keys[n % len(world.keys)], []).append(n)
    assert all(found == sorted(found) for found in by_key.values())


@given(worlds(windows=True))
@settings(max_examples=300, deadline=None)
def test_with_windows_too_nothing_is_lost_unseen_and_none_stays_open(world: World) -> None:
    one = live(world)
    wanted = {n for n in range(len(world.gaps)) if world.passes(n)}
    assert one.checkpoint.window is None
    if not world.restarts:
        assert len(wanted) == sum(map(bool, world.processed.values())) + one.counts.dropped_records
    if world.config.maximum_retry_attempts < 0 and world.config.maximum_record_age_s < 0:
        assert set(world.processed) == wanted


SIZES = {n: b"x" * n for n in (10, 1_000_000, 2_500_000, PAYLOAD_MAX_BYTES - 14, PAYLOAD_MAX_BYTES - 13)}


@given(
    st.lists(st.sampled_from(sorted(SIZES)), max_size=8), st.integers(1, 5), st.integers(1, 3), st.lists(st.booleans())
)
@settings(max_examples=60, deadline=None)
def test_no_event_is_larger_than_a_batch_or_six_megabytes_and_no_record_is_left_behind(
    sizes: list[int], batch_size: int, lanes: int, fails: list[bool]
) -> None:
    config = MappingConfig(
        name="m",
        function_name="f",
        stream_name="alleycat",
        stream_arn=ARN,
        batch_size=batch_size,
        parallelization_factor=lanes,
        bisect_batch_on_function_error=True,
        on_failure_destination=QUEUE,
    )
    one = ShardSchedule(config, SHARD, SETTINGS, T, rng=lambda: 0.5)
    records = [Record(str(n), T, SIZES[size], KEYS[n % len(KEYS)]) for n, size in enumerate(sizes)]
    now, seen = T, list[int]()
    while not one.caught_up(T + 1):
        match one.next_action(now):
            case Poll():
                one.on_poll_result(now, now, records if now == T else [], 0, shard_ended=False)
            case Invoke() as invocation:
                assert len(invocation.records) <= batch_size
                assert len(invocation.event()) <= PAYLOAD_MAX_BYTES
                failed = bool(fails and fails.pop())
                if not failed:
                    seen += numbers(invocation.records)
                outcome = Outcome(0, ("E", "no")) if failed else Outcome(len(invocation.records))
                one.on_invoke_result(outcome, now, invocation.lane)
            case Deliver(discard, lane):
                # Only a record that fits no event at all is given up.
                assert [len(record.encoded) for record in discard.records] == [PAYLOAD_MAX_BYTES - 13]
                seen += numbers(discard.records)
                one.on_delivered(now, lane)
            case Wait(until):
                now = until
    assert sorted(seen) == list(range(len(sizes)))
