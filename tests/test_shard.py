"""One shard with the clock in hand: admission, storage, reading."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.cloud.limits import KIB, MIB, LimitSettings
from simulator.cloud.sequence import MAX_HASH_KEY
from simulator.cloud.shard import Shard, whole_kib
from simulator.cloud.shard_log import ShardLog


def shard(now: float = 0.0, **settings: float) -> Shard:
    return Shard(0, (0, MAX_HASH_KEY), now, LimitSettings(**settings))  # type: ignore[arg-type]


# -- admission -----------------------------------------------------------------------------------------


def test_a_second_takes_a_thousand_records_after_the_burst() -> None:
    one = shard()
    assert one.admit([100] * 500, 0.0) == []
    assert one.admit([100] * 500, 0.0) == []
    assert one.admit([100] * 500, 0.0) == list(range(500))
    assert len(one.admit([100] * 500, 0.25)) == 250
    assert one.refused_by_count == 750
    assert one.refused_by_bytes == 0


def test_five_thousand_a_second_for_ten_seconds_gets_a_thousand_a_second() -> None:
    one = shard()
    accepted = 0
    for tick in range(100):
        accepted += 500 - len(one.admit([170] * 500, tick / 10))
    assert accepted == 1000 + 9900  # the bucket's depth, then 1,000/s for 9.9 s


def test_a_mebibyte_a_second() -> None:
    one = shard()
    assert one.admit([100 * KIB] * 10, 0.0) == []
    refused = one.admit([100 * KIB] * 10, 0.0)
    assert refused == list(range(10))  # 24 KiB are left, less than any of them
    assert one.refused_by_bytes == 10


def test_a_small_record_passes_behind_a_refused_large_one() -> None:
    one = shard()
    assert one.admit([MIB - 2 * KIB], 0.0) == []
    assert one.admit([600, 3 * KIB, 600, 600], 0.0) == [1]


def test_put_records_rounds_the_sum_and_put_record_each() -> None:
    # 1.1 KiB records: alone each costs 2 KiB, so 512 fit; in one call their sum is rounded once.
    size = 1126
    alone = shard()
    assert sum(not alone.admit([size], 0.0) for _ in range(1000)) == 512
    together = shard()
    assert 500 - len(together.admit([size] * 500, 0.0)) + 500 - len(together.admit([size] * 500, 0.0)) == 931


def test_limits_off_admits_everything() -> None:
    one = Shard(0, (0, MAX_HASH_KEY), 0.0, LimitSettings(enforced=False))
    assert all(one.admit([MIB] * 10, 0.0) == [] for _ in range(1000))
    assert one.admit_many(10**6, 170, 0.0) == 10**6


calls = st.lists(st.tuples(st.floats(0, 0.5), st.integers(1, 500), st.integers(1, 40_000)), min_size=1, max_size=30)


@given(calls)
def test_admit_many_is_admit(calls: list[tuple[float, int, int]]) -> None:
    single, many = shard(), shard()
    now = 0.0
    for passed, count, nbytes in calls:
        now += passed
        assert count - len(single.admit([nbytes] * count, now)) == many.admit_many(count, nbytes, now)
        assert single.write_records.tokens == pytest.approx(many.write_records.tokens)
        assert single.write_bytes.tokens == pytest.approx(many.write_bytes.tokens)
    assert (single.refused_by_count + single.refused_by_bytes) == (many.refused_by_count + many.refused_by_bytes)


@given(st.lists(st.tuples(st.floats(0, 0.4), st.lists(st.integers(1, MIB), min_size=1, max_size=40)), max_size=30))
def test_never_more_than_the_published_rate_plus_the_burst(calls: list[tuple[float, list[int]]]) -> None:
    one = shard()
    now = 0.0
    records = nbytes = 0
    for passed, sizes in calls:
        now += passed
        refused = set(one.admit(sizes, now))
        taken = [size for place, size in enumerate(sizes) if place not in refused]
        records += len(taken)
        nbytes += whole_kib(sum(taken))
        assert records <= 1000 * (1 + now) + 1e-3
        assert nbytes <= MIB * (1 + now) + 1e-3


# -- reading -------------------------------------------------------------------------------------------


def test_five_reads_a_second() -> None:
    one = shard()
    assert [one.admit_read(0.0) for _ in range(6)] == [True] * 5 + [False]
    assert one.admit_read(0.2)
    assert not one.admit_read(0.2)


def test_two_mebibytes_a_second_out() -> None:
    one = shard()
    assert one.admit_read(0.0)
    one.charge_read(6 * MIB, 0.0)  # 2 MiB were there: 4 MiB of debt, 2 s
    assert not one.admit_read(1.9)
    assert one.admit_read(2.0)


def test_a_ten_mebibyte_read_blocks_five_seconds() -> None:
    one = shard()
    assert one.admit_read(0.0)
    one.charge_read(10 * MIB, 0.0)
    assert not one.admit_read(4.9)
    assert one.admit_read(5.0)


# -- storage -------------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(1, 3000), min_size=1, max_size=12),
    st.integers(0, 40_000),
    st.integers(1, 10_000),
)
def test_the_log_gives_back_what_was_put(batches: list[int], start: int, limit: int) -> None:
    log = ShardLog()
    expected: list[tuple[bytes, str, int]] = []
    for index, count in enumerate(batches):
        data = [b"%d" % (len(expected) + place) for place in range(count)]
        keys = [f"k{place % 7}" for place in range(count)]
        assert log.append(data, keys, index * 10) == len(expected)
        expected += [(one, key, index * 10) for one, key in zip(data, keys, strict=True)]
    read = list(log.read(start, limit, 10**9))
    wanted = expected[start : start + limit]
    assert [(record.data, record.partition_key, record.arrival_ms) for record in read] == wanted
    assert [record.position for record in read] == list(range(start, start + len(wanted)))
    assert log.end == len(expected)
    assert log.bytes_stored == sum(len(data) for data, _, _ in expected)


def test_positions_by_time() -> None:
    log = ShardLog()
    for second in range(10):
        log.append([b"x"] * 1000, ["k"] * 1000, second * 1000)
    assert log.position_at(0) == 0
    assert log.position_at(1) == 1000
    assert log.position_at(7000) == 7000
    assert log.position_at(7001) == 8000
    assert log.position_at(9001) == log.end == 10_000
    assert log.arrival_ms_at(7999) == 7000


def test_a_read_stops_at_its_bytes_but_gives_at_least_one_record() -> None:
    log = ShardLog()
    log.append([b"x" * 1000] * 10, ["key"] * 10, 0)
    assert len(list(log.read(0, 10, 3009))) == 3
    assert len(list(log.read(0, 10, 1))) == 1


def test_trimming_drops_old_segments_and_keeps_positions() -> None:
    log = ShardLog()
    for second in range(20):
        log.append([b"x" * 10] * 1000, ["k"] * 1000, second * 1000)
    dropped = log.trim(10_000)
    assert dropped == 10_000
    assert log.first == dropped
    assert log.bytes_stored == (20_000 - dropped) * 10
    assert next(log.read(0, 1, 10**6)).position == dropped
    assert log.trim(10_000) == 0
    assert log.append([b"y"], ["k"], 20_000) == 20_000
    assert log.trim(20_001) == 10_001
    assert (log.first, log.bytes_stored) == (20_001, 0)
    assert list(log.read(0, 10, 100)) == []
    assert log.append([b"z"], ["k"], 21_000) == 20_001
    assert [(one.position, one.data) for one in log.read(0, 10, 100)] == [(20_001, b"z")]
    with pytest.raises(IndexError):
        log.arrival_ms_at(0)


def test_arrival_times_never_go_back() -> None:
    log = ShardLog()
    log.append([b"a"], ["k"], 5000)
    log.append([b"b"], ["k"], 4000)
    assert [record.arrival_ms for record in log.read(0, 10, 100)] == [5000, 5000]


def test_retention_is_exact_for_readers() -> None:
    one = shard(now=0.0)
    for hour in range(30):
        one.append([b"x"] * 10, ["k"] * 10, hour * 3600.0)
    assert one.horizon(24, now=29 * 3600.0) == 50
