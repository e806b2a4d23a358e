"""A bank of shards decides as its shards would, to the last bit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.cloud.limits import LimitSettings
from simulator.cloud.sequence import uniform_ranges
from simulator.cloud.shard import Shard
from simulator.cloud.shard_bank import Demand, ShardBank, call_costs

START = 1_700_000_000.0
LIMITS = st.builds(
    LimitSettings,
    enforced=st.sampled_from([True, True, True, False]),
    shard_rate_factor=st.sampled_from([0.01, 0.05, 1.0]),
    shard_burst_seconds=st.sampled_from([0.05, 1.0]),
)
SIZES = st.sampled_from([1, 200, 1024, 1025, 1500, 30_000, 700_000])


def shards_of(count: int, limits: LimitSettings) -> list[Shard]:
    return [Shard(index, one, START - 1.5, limits) for index, one in enumerate(uniform_ranges(count))]


def states(shards: Sequence[Shard]) -> list[tuple[float, ...]]:
    return [
        (
            shard.write_records.tokens,
            shard.write_records.updated_at,
            shard.write_bytes.tokens,
            shard.write_bytes.updated_at,
            shard.refused_by_count,
            shard.refused_by_bytes,
        )
        for shard in shards
    ]


@st.composite
def calls(draw: st.DrawFn) -> tuple[int, list[tuple[float, np.ndarray[tuple[int, int], np.dtype[np.int64]]]]]:
    """Shards, and (when, counts by call and shard)."""
    count = draw(st.integers(1, 4))
    rows = st.lists(st.lists(st.integers(0, 40), min_size=count, max_size=count), min_size=1, max_size=5)
    moments = draw(st.lists(st.tuples(st.sampled_from([0.0, 0.02, 0.3, 2.0]), rows), min_size=1, max_size=8))
    found, now = [], START
    for gap, counts in moments:
        now += gap
        found.append((now, np.array(counts, np.int64)))
    return count, found


@settings(deadline=None, max_examples=100)
@given(asked=calls(), limits=LIMITS, nbytes=SIZES, each=st.booleans())
def test_calls_pass_as_the_shards_let_them(
    asked: tuple[int, list[tuple[float, np.ndarray[tuple[int, int], np.dtype[np.int64]]]]],
    limits: LimitSettings,
    nbytes: int,
    each: bool,
) -> None:
    count, moments = asked
    alone, banked = shards_of(count, limits), shards_of(count, limits)
    bank = ShardBank(banked)
    for now, counts in moments:
        expected, refused = np.zeros(count, np.int64), []
        for row in counts.tolist():
            for place, asked_for in enumerate(row):
                ones = [1] * asked_for if each else [asked_for] * (asked_for > 0)
                expected[place] += sum(alone[place].admit_many(one, nbytes, now) for one in ones)
            refused.append(sum(shard.refused_by_count + shard.refused_by_bytes for shard in alone))
        before = int((bank.refused_by_count + bank.refused_by_bytes).sum())
        if not each:
            assert (before + bank.refusals(counts, nbytes, now)).tolist() == refused
        assert bank.admit(counts, nbytes, now, each=each).tolist() == expected.tolist()
        bank.settle()
        assert states(banked) == states(alone)


@settings(deadline=None, max_examples=100)
@given(asked=calls(), limits=LIMITS, nbytes=SIZES, each=st.booleans())
def test_all_pass_or_nothing_is_taken(
    asked: tuple[int, list[tuple[float, np.ndarray[tuple[int, int], np.dtype[np.int64]]]]],
    limits: LimitSettings,
    nbytes: int,
    each: bool,
) -> None:
    count, moments = asked
    alone, banked = shards_of(count, limits), shards_of(count, limits)
    before = states(banked)
    bank = ShardBank(banked)
    records = np.array([counts.sum(axis=0) for _, counts in moments])
    costs = np.array([call_costs(counts, nbytes, each=each).sum(axis=0) for _, counts in moments])
    passed = bank.pass_all(Demand.of(records, costs), [now for now, _ in moments])
    for now, counts in moments:
        for row in counts.tolist():
            for place, asked_for in enumerate(row):
                for one in [1] * asked_for if each else [asked_for] * (asked_for > 0):
                    alone[place].admit_many(one, nbytes, now)
    refused = sum(shard.refused_by_count + shard.refused_by_bytes for shard in alone)
    assert passed == (not refused)
    bank.settle()
    assert states(banked) == (states(alone) if passed else before)


def test_time_goes_on_for_shards_that_were_asked_alone() -> None:
    banked = shards_of(2, LimitSettings())
    bank = ShardBank(banked)
    demand = Demand.of(np.array([[3, 0]]), np.array([[1024, 0]]))
    assert bank.pass_all(demand, [START])
    bank.skip(demand, 7)
    bank.settle()
    assert [shard.write_records.updated_at for shard in banked] == [START + 7, START - 1.5]
