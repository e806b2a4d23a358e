"""The production side of a plan: in bulk as tick by tick, and in its books."""

from __future__ import annotations

import random
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.runtime.sources.aggregation import UserRecord, deaggregate, hash_of
from simulator.capacity.aggregating import AggregatingProducer
from simulator.capacity.arrivals import TICKS, Arrivals
from simulator.capacity.attendance import Attendance
from simulator.capacity.gate import Gate
from simulator.capacity.lanes import Lanes
from simulator.capacity.packing import AGGREGATE_MAX_BYTES, OUTER_KEY, Packing, encode
from simulator.capacity.producing import PutRecordsProducer
from simulator.capacity.rule import RuleProducer
from simulator.capacity.timeline import Timeline
from simulator.capacity.workload import START_MS, Riders, Workload
from simulator.cloud.iot_admission import AccountRates
from simulator.cloud.limits import IOT_PUBLISH_IN, SHARD_WRITE_BYTES, SHARD_WRITE_RECORDS, LimitSettings
from simulator.cloud.sequence import uniform_ranges
from simulator.cloud.shard import Shard
from simulator.cloud.shard_bank import ShardBank

START = START_MS / 1000


class Ridden:
    """Producers and shards after a workload, without consumers."""

    def __init__(
        self,
        workload: Workload,
        shards: int = 2,
        limits: LimitSettings | None = None,
        factors: tuple[int, ...] = (1,),
        *,
        in_bulk: bool = True,
        by_kinesis: type[PutRecordsProducer] = PutRecordsProducer,
    ) -> None:
        limits = limits or LimitSettings()
        ranges = uniform_ranges(shards)
        self.shards = [Shard(index, one, START - 1.5, limits) for index, one in enumerate(ranges)]
        self.timeline, lanes = Timeline(START), Lanes(factors)
        self.arrivals = Arrivals(START, shards, lane_keys=lanes.keys)
        arguments = Riders(workload, [low for low, _ in ranges]), self.shards, self.arrivals, self.timeline
        rng = random.Random(workload.seed)
        self.producer: Gate = (
            RuleProducer(*arguments, rng, limits, lanes, in_bulk=in_bulk)
            if workload.transport == "mqtt"
            else AggregatingProducer(*arguments, rng, lanes, in_bulk=in_bulk)
            if workload.aggregation
            else by_kinesis(*arguments, rng, lanes, in_bulk=in_bulk)
        )
        for race in range(workload.races):
            self.producer.ride((race + 1) * workload.seconds)
            assert self.arrivals.until >= (race + 1) * workload.seconds
        self.producer.finish()

    def told(self) -> dict[str, Any]:
        """All that can be seen of it."""
        seconds = self.arrivals.until
        pages = [self.arrivals.page_at(second) for second in range(seconds)]
        return {
            "ledger": asdict(self.producer.ledger),
            "stored": asdict(self.producer.stored),
            "waits": dict(self.producer.waits),
            "timeline": self.timeline.as_json(seconds),
            "broken": [one.as_json() for one in self.timeline.broken],
            "arrivals": [
                {
                    "parts": [(kind, counts.tolist()) for kind, counts in page.parts],
                    "waits": None if page.waits is None else page.waits.tolist(),
                }
                for page in pages
                if page is not None
            ],
            "buckets": [
                (one.tokens, one.updated_at)
                for shard in self.shards
                for one in (shard.write_records, shard.write_bytes)
            ],
            "refused": [(shard.refused_by_count, shard.refused_by_bytes) for shard in self.shards],
        }


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    key = draw(st.sampled_from(["racer", "race", "class", "random", "timestamp"]))
    transport: Any = draw(st.sampled_from(["putrecords", "mqtt"]))
    return Workload(
        racers=draw(st.integers(1, 60)),
        seconds=draw(st.integers(1, 6)),
        races=draw(st.integers(1, 3)),
        classes=draw(st.sampled_from([(1,), (1, 4)])),
        interval_s=draw(st.sampled_from([1, 1, 2, 5])),
        late_share=draw(st.sampled_from([0.0, 0.0, 0.3])),
        dropout_share=draw(st.sampled_from([0.0, 0.0, 0.3, 1.0])),
        partition_key=key,
        skew=draw(st.sampled_from([0.0, 1.1])) if key == "racer" else 0.0,
        transport=transport,
        qos=draw(st.integers(0, 1)),
        phase=draw(st.sampled_from(["spread", "burst"])),
        batch_records=draw(st.sampled_from([1, 7, 500])),
        aggregation=transport == "putrecords" and draw(st.booleans()),
        linger_ms=draw(st.sampled_from([None, 20, 60, 980])) if transport == "putrecords" else None,
        deadline_s=draw(st.sampled_from([1.0, 300.0])),
    )


@settings(deadline=None, max_examples=40)
@given(
    workload=workloads(),
    shards=st.integers(1, 4),
    rate=st.sampled_from([0.01, 0.03, 0.1, 1.0]),
    factors=st.sampled_from([(1,), (2, 3)]),
    burst_s=st.sampled_from([1.0, 0.005]),
)
def test_seconds_pass_in_bulk_as_they_do_tick_by_tick(
    workload: Workload, shards: int, rate: float, factors: tuple[int, ...], burst_s: float
) -> None:
    limits = LimitSettings(shard_rate_factor=rate, iot_small_region=True, iot_burst_seconds=burst_s)
    in_bulk = Ridden(workload, shards, limits, factors).told()
    assert in_bulk == Ridden(workload, shards, limits, factors, in_bulk=False).told()


class OneByOne(PutRecordsProducer):
    """Looks at every answer before it makes the next call."""

    @property
    def _usual_calls(self) -> int:
        return 1

    @_usual_calls.setter
    def _usual_calls(self, calls: int) -> None:
        pass


@settings(deadline=None, max_examples=20)
@given(
    racers=st.integers(30, 80),
    shards=st.integers(1, 4),
    most=st.sampled_from([1, 10, 40]),
    batch=st.sampled_from([1, 7]),
    phase=st.sampled_from(["spread", "burst"]),
)
def test_calls_of_a_tick_go_together_as_one_by_one(racers: int, shards: int, most: int, batch: int, phase: Any) -> None:
    workload = Workload(racers=racers, seconds=2, batch_records=batch, phase=phase)
    limits = LimitSettings(shard_rate_factor=0.01)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("simulator.capacity.producing.MAX_RETRYING", most)
        together = Ridden(workload, shards, limits).told()
        assert together == Ridden(workload, shards, limits, by_kinesis=OneByOne).told()


def sent_by_hand(workload: Workload) -> list[tuple[int, int]]:
    """(biker, second) of each message, by the definition."""
    attendance, found = Attendance(workload), []
    for second in range(workload.total_seconds):
        race, at = divmod(second, workload.seconds)
        joins, leaves = attendance._drawn(race)
        for biker in range(workload.bikers):
            in_turn = (at - biker % workload.racers) % workload.interval_s == 0 or at == workload.seconds - 1
            if joins[biker] <= at < leaves[biker] and in_turn:
                found.append((biker, second))
    return found


@settings(deadline=None, max_examples=50)
@given(workload=workloads())
def test_each_message_is_followed_by_the_biker_s_next(workload: Workload) -> None:
    attendance = Attendance(workload)
    by_biker: dict[int, list[int]] = {}
    for biker, second in sent_by_hand(workload):
        by_biker.setdefault(biker, []).append(second)
    pairs = [(biker, *pair) for biker, seconds in by_biker.items() for pair in pairwise(seconds)]
    if pairs:
        members, heads, expected = np.array(pairs).T
        assert attendance.following(members, heads).tolist() == expected.tolist()
    for second in range(workload.total_seconds):
        alike, sends = attendance.sending(second)
        chosen = list(range(workload.bikers)) if sends is None else np.flatnonzero(sends).tolist()
        for same in range(second, second + alike):
            assert chosen == sorted(biker for biker, seconds in by_biker.items() if same in seconds)


def test_who_joins_late_and_who_drops_out() -> None:
    workload = Workload(racers=20_000, seconds=100, late_share=0.1, dropout_share=0.2)
    joins, leaves = Attendance(workload)._drawn(0)
    assert np.mean(joins > 0) == pytest.approx(0.1, abs=0.01)
    assert np.mean(leaves < 100) == pytest.approx(0.2, abs=0.01)
    assert (joins < leaves).all()
    assert joins[joins > 0].min() == 1
    assert joins[joins > 0].mean() == pytest.approx(50, abs=2)
    assert leaves[leaves < 100].mean() == pytest.approx(50, abs=3)
    assert not np.array_equal(joins, Attendance(workload)._drawn(1)[0])


@settings(deadline=None, max_examples=25)
@given(
    workload=workloads(),
    shards=st.integers(1, 4),
    rate=st.sampled_from([0.01, 0.03, 1.0]),
    burst_s=st.sampled_from([1.0, 0.005]),
)
def test_every_message_is_in_the_books_once(workload: Workload, shards: int, rate: float, burst_s: float) -> None:
    limits = LimitSettings(shard_rate_factor=rate, iot_small_region=True, iot_burst_seconds=burst_s)
    ridden = Ridden(workload, shards, limits)
    ledger, timeline, arrivals = ridden.producer.ledger, ridden.timeline, ridden.arrivals
    assert ledger.generated == len(sent_by_hand(workload))
    assert ledger.delivered + ledger.lost == ledger.generated
    stored = ridden.producer.stored
    assert sum(arrivals.total(place) for place in range(shards)) == stored.records
    assert sum(ridden.producer.waits.values()) == ledger.delivered
    assert timeline.total("accepted") == stored.records
    assert stored.records <= ledger.delivered
    assert timeline.total("throttled") == ledger.throttled == sum(one.refused for one in timeline.broken)
    discarded = timeline.total("throttled", "IoT Core")
    assert timeline.total("offered") == stored.records + ledger.throttled - discarded
    assert ledger.lost == sum(ledger.lost_by.values())
    assert timeline.total("retried") == ledger.retried
    assert timeline.total("lost") == ledger.lost
    assert ledger.throttled - discarded == sum(
        shard.refused_by_count + shard.refused_by_bytes for shard in ridden.shards
    )
    if not ledger.lost and not workload.aggregation:
        finals = [second for _, second in sent_by_hand(workload) if second % workload.seconds == workload.seconds - 1]
        assert arrivals.finals == len(finals)
    if not (workload.late_share or workload.dropout_share):
        assert ledger.generated == workload.messages


def test_seconds_that_are_alike_are_one_page() -> None:
    arrivals = Ridden(Workload(racers=1000, seconds=300)).arrivals
    first, last = arrivals.page_at(0), arrivals.page_at(299)
    assert first is not None
    assert last is not None
    assert (first.first, first.seconds, last.first, last.seconds) == (0, 299, 299, 1)
    assert not first.has_finals
    assert last.has_finals


def test_a_shard_gives_what_it_has_and_its_rate() -> None:
    """1,500 messages a second for 10 s: a bucket of 1,000 and 1,000 a second."""
    ridden = Ridden(Workload(racers=1500, seconds=10), 1)
    # What was accepted in the race's seconds: what was saved, and 1,000 in each, the last ticks' draws aside.
    accepted = ridden.timeline.series("accepted", ridden.shards[0].shard_id, 10)
    assert 10_800 <= sum(accepted) <= 11_000
    assert [one.name for one in ridden.timeline.broken] == [SHARD_WRITE_RECORDS.name]
    assert ridden.producer.ledger.delivered == 15_000
    assert ridden.producer.ledger.lost == 0


def test_calls_of_few_records_a_shard_are_rounded_up_each() -> None:
    """500 records of 200 bytes on 500 shards: a KiB each, though five of them would fit into it."""
    workload = Workload(racers=5000, seconds=2, phase="burst", batch_records=50)
    one, many = Ridden(workload, 1), Ridden(workload, 200)
    nbytes = one.producer.nbytes
    assert one.producer.offers.at(0).demand.costs[0, 1].sum() == 100 * -(-50 * nbytes // 1024) * 1024
    costs = many.producer.offers.at(0).demand.costs[0, 1].sum()
    assert 5000 * 1024 * 0.85 < costs <= 5000 * 1024


@pytest.mark.parametrize("transport", ["putrecords", "mqtt"])
def test_many_shards_one_of_which_is_hot(transport: Any) -> None:
    """By class, one shard of forty takes everything."""
    workload = Workload(racers=1300, seconds=4, partition_key="class", transport=transport, deadline_s=3.0)
    ridden = Ridden(workload, 40)
    hot = [place for place in range(40) if ridden.arrivals.total(place)]
    assert len(hot) == 1
    page = ridden.arrivals.page_at(3)
    assert page is not None
    assert np.count_nonzero(sum(counts.sum(axis=0) for _, counts in page.parts)) == 1
    assert page.base.shape == (40,)
    assert all(counts.shape == (TICKS, 40) for _, counts in page.parts)


# -- IoT Core's account ------------------------------------------------------------------------------------


@given(
    asked=st.lists(st.tuples(st.sampled_from([0.0, 0.01, 0.3]), st.integers(0, 60)), max_size=20),
    enforced=st.booleans(),
)
def test_publishes_are_taken_as_one_by_one(asked: list[tuple[float, int]], enforced: bool) -> None:
    limits = LimitSettings(iot_small_region=True, iot_burst_seconds=0.02, enforced=enforced)
    together, alone, now = AccountRates(limits, START), AccountRates(limits, START), START
    for gap, count in asked:
        now += gap
        taken = together.take_many(together.publishes_in, count, now)
        assert taken == sum(alone.take(alone.publishes_in, now) for _ in range(count))
        if count:
            assert together.publishes_in.tokens == alone.publishes_in.tokens


def test_what_the_account_may_not_publish_is_discarded() -> None:
    """25,000 bikes for 10 s at QoS 0: a second's worth of 20,000 was saved, and as many come each second."""
    workload = Workload(racers=25_000, seconds=10, transport="mqtt", qos=0)
    ridden = Ridden(workload, 40)
    ledger = ridden.producer.ledger
    assert ledger.delivered == pytest.approx(11 * 20_000, rel=0.005)
    assert ledger.lost_by == {"IoT Core": 250_000 - ledger.delivered}
    assert ledger.retried == 0
    (broken,) = ridden.timeline.broken
    assert (broken.name, broken.limit, broken.refused) == (IOT_PUBLISH_IN.name, 20_000, ledger.lost)
    assert broken.first_s == pytest.approx(4, abs=0.2)


def test_at_qos_1_a_bike_publishes_again_and_the_rest_waits() -> None:
    workload = Workload(racers=25_000, seconds=10, transport="mqtt", qos=1, deadline_s=60.0)
    ridden = Ridden(workload, 40)
    ledger = ridden.producer.ledger
    assert (ledger.delivered, ledger.lost) == (250_000, 0)
    # Each publish that was discarded was repeated, no sooner than after five seconds.
    assert ledger.retried == ledger.throttled > 0
    assert max(ridden.producer.waits) > 250
    # Never more than what was saved and comes.
    delivered = np.cumsum(ridden.timeline.summed("accepted", ridden.arrivals.until))
    assert (delivered <= 20_000 * (np.arange(len(delivered)) + 2)).all()


def test_a_small_region_takes_a_tenth() -> None:
    workload = Workload(racers=2500, seconds=6, transport="mqtt", qos=0)
    ridden = Ridden(workload, 4, LimitSettings(iot_small_region=True))
    assert ridden.producer.ledger.delivered == pytest.approx(7 * 2000, rel=0.01)


# -- aggregation -------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(
    count=st.integers(2, 300),
    size=st.sampled_from([0, 1, 100, 127, 128, 200, 3000]),
    key_bytes=st.sampled_from([1, 6, 16, 36, 200]),
    one_key=st.booleans(),
)
def test_packed_records_have_the_real_size_and_can_be_taken_apart(
    count: int, size: int, key_bytes: int, one_key: bool
) -> None:
    keys = ["k" * key_bytes if one_key else str(index).rjust(key_bytes, "k")[-key_bytes:] for index in range(count)]
    records = [(key, b"x" * size) for key in keys]
    packing = Packing(size, key_bytes, one_key=one_key)
    data = encode(records)
    assert deaggregate(data) == [UserRecord(key, hash_of(key), message) for key, message in records]
    if count <= packing.most and len(set(keys)) == (1 if one_key else count):
        assert packing.sizes[count] == len(data) + len(OUTER_KEY)
        assert packing.records(np.array([count])) == 1
    assert packing.sizes[-1] <= AGGREGATE_MAX_BYTES + len(OUTER_KEY) or packing.most == 1


def test_as_many_as_fit_are_in_a_record() -> None:
    packing = Packing(200, 3, one_key=False)
    records = [(str(100 + index), b"x" * 200) for index in range(packing.most + 1)]
    assert len(encode(records[:-1])) <= AGGREGATE_MAX_BYTES < len(encode(records))
    assert packing.records(np.array([0, 1, packing.most, packing.most + 1])).tolist() == [0, 1, 1, 2]
    assert packing.nbytes(np.array([0, 1])).tolist() == [0, 203]
    assert packing.units(np.array([1, 100, packing.most]), 25 * 1024).tolist() == [1, 1, 2]


@settings(deadline=None, max_examples=100)
@given(
    asked=st.lists(
        st.tuples(st.sampled_from([0.0, 0.1, 2.0]), st.integers(0, 12), st.sampled_from([0, 1, 900, 20_000])),
        max_size=8,
    ),
    rate=st.sampled_from([0.01, 0.2, 1.0]),
    burst_s=st.sampled_from([0.05, 1.0]),
    nbytes=st.sampled_from([21_000, 51_200, 400_000]),
    enforced=st.booleans(),
)
def test_a_call_of_unequal_records_passes_as_the_shard_lets_it(
    asked: list[tuple[float, int, int]], rate: float, burst_s: float, nbytes: int, enforced: bool
) -> None:
    limits = LimitSettings(shard_rate_factor=rate, shard_burst_seconds=burst_s, enforced=enforced)
    (alone,), (banked,) = ([Shard(0, (0, 2**128 - 1), START, limits)] for _ in range(2))
    bank, now = ShardBank([banked]), START
    for gap, count, last in asked:
        now += gap
        sizes = [nbytes] * count + [last] * (last > 0)
        refused = alone.admit(sizes, now) if sizes else []
        taken, last_taken = bank.admit_unequal(np.array([count]), nbytes, np.array([last]), now)
        assert int(taken[0]) == count - sum(one < count for one in refused)
        assert int(last_taken[0]) == (last > 0) - sum(one == count for one in refused)
        bank.settle()
        for one, other in ((alone.write_records, banked.write_records), (alone.write_bytes, banked.write_bytes)):
            assert (one.tokens, one.updated_at) == (other.tokens, other.updated_at)
        assert (alone.refused_by_count, alone.refused_by_bytes) == (banked.refused_by_count, banked.refused_by_bytes)


def test_packed_messages_need_a_tenth_of_the_shards() -> None:
    """4,000 messages a second on one shard: ten records a second of 80 messages each, so that bytes decide."""
    ridden = Ridden(Workload(racers=4000, seconds=10, aggregation=True), 1)
    ledger, stored = ridden.producer.ledger, ridden.producer.stored
    assert (ledger.delivered, ledger.throttled) == (40_000, 0)
    assert stored.records == 10 * 10 * -(-400 // ridden.producer.riders.packing.most)
    assert stored.record_bytes == pytest.approx(ridden.producer.riders.sizes.record_bytes, rel=0.05)
    over = Ridden(Workload(racers=6000, seconds=10, aggregation=True), 1)
    assert [one.name for one in over.timeline.broken] == [SHARD_WRITE_BYTES.name]
    assert over.producer.ledger.delivered == 60_000
    accepted = sum(over.timeline.series("accepted", over.shards[0].shard_id, 10)) * over.producer.stored.record_bytes
    assert accepted == pytest.approx(11 * 1024 * 1024, rel=0.1)
