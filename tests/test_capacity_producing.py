"""The production side of a plan: in bulk as tick by tick, and in its books."""

from __future__ import annotations

import random
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.capacity.arrivals import TICKS, Arrivals
from simulator.capacity.gate import Gate
from simulator.capacity.lanes import Lanes
from simulator.capacity.producing import PutRecordsProducer
from simulator.capacity.rule import RuleProducer
from simulator.capacity.timeline import Timeline
from simulator.capacity.workload import START_MS, Riders, Workload
from simulator.cloud.limits import SHARD_WRITE_RECORDS, LimitSettings
from simulator.cloud.sequence import uniform_ranges
from simulator.cloud.shard import Shard

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


WORKLOADS = st.builds(
    Workload,
    racers=st.integers(1, 60),
    seconds=st.integers(1, 6),
    races=st.integers(1, 3),
    classes=st.sampled_from([(1,), (1, 4)]),
    partition_key=st.sampled_from(["racer", "race", "class", "random", "timestamp"]),
    transport=st.sampled_from(["putrecords", "mqtt"]),
    phase=st.sampled_from(["spread", "burst"]),
    batch_records=st.sampled_from([1, 7, 500]),
    deadline_s=st.sampled_from([1.0, 300.0]),
)


@settings(deadline=None, max_examples=40)
@given(
    workload=WORKLOADS,
    shards=st.integers(1, 4),
    rate=st.sampled_from([0.01, 0.03, 0.1, 1.0]),
    factors=st.sampled_from([(1,), (2, 3)]),
)
def test_seconds_pass_in_bulk_as_they_do_tick_by_tick(
    workload: Workload, shards: int, rate: float, factors: tuple[int, ...]
) -> None:
    limits = LimitSettings(shard_rate_factor=rate)
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


@settings(deadline=None, max_examples=25)
@given(workload=WORKLOADS, shards=st.integers(1, 4), rate=st.sampled_from([0.01, 0.03, 1.0]))
def test_every_message_is_in_the_books_once(workload: Workload, shards: int, rate: float) -> None:
    ridden = Ridden(workload, shards, LimitSettings(shard_rate_factor=rate))
    ledger, timeline, arrivals = ridden.producer.ledger, ridden.timeline, ridden.arrivals
    assert ledger.generated == workload.messages
    assert ledger.delivered + ledger.lost == ledger.generated
    assert sum(arrivals.total(place) for place in range(shards)) == ledger.delivered
    assert sum(ridden.producer.waits.values()) == ledger.delivered
    assert timeline.total("accepted") == ledger.delivered
    assert timeline.total("throttled") == ledger.throttled == sum(one.refused for one in timeline.broken)
    assert timeline.total("offered") == ledger.delivered + ledger.throttled
    assert timeline.total("retried") == ledger.retried
    assert timeline.total("lost") == ledger.lost
    assert ledger.throttled == sum(shard.refused_by_count + shard.refused_by_bytes for shard in ridden.shards)
    if not ledger.lost:
        assert arrivals.finals == workload.bikers * workload.races


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
