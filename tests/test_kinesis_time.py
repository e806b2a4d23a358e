"""What time does to Kinesis, with the clock in hand: on-demand growth, retention, subscriptions, rates, tokens."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.cloud import page_tokens
from simulator.cloud.control_rates import PER_ACCOUNT, PER_STREAM, ControlRates
from simulator.cloud.errors import AwsError
from simulator.cloud.fan_out import HEARTBEAT_S, Consumer, Event, Subscription
from simulator.cloud.kinesis import Kinesis
from simulator.cloud.kinesis_api import KinesisApi
from simulator.cloud.limits import MIB, LimitSettings, with_settings
from simulator.cloud.metrics import Metrics
from simulator.cloud.resharding import merge_shards, split_shard
from simulator.cloud.sequence import MAX_HASH_KEY
from simulator.cloud.stream import PutEntry, Stream

HOUR_S = 3600.0


def stream(shards: int = 1, mode: Any = "PROVISIONED", **given_settings: Any) -> Stream:
    kinesis = Kinesis("us-east-1", "123456789012", LimitSettings(**given_settings), Metrics())
    return kinesis.create_stream("s", shards, 0.0, mode=mode)


# -- on-demand -----------------------------------------------------------------------------------------


def ride(one: Stream, from_s: int, to_s: int, records: int, nbytes: int, hash_key: int = 0) -> None:
    for second in range(from_s, to_s):
        one.put_records([PutEntry(b"x" * nbytes, "k", str(hash_key))] * records, float(second))


def test_a_shard_above_500_kb_a_second_for_fifteen_minutes_is_split() -> None:
    """
    ::

        minute   0          15            16
        shard 0  |-- 600 KiB/s --|  split
        1, 2, 3  |-- idle --------------------
    """
    one = stream(mode="ON_DEMAND")
    assert len(one.open_shards(0.0)) == 4
    ride(one, 0, 899, 1, 600 * 1024)
    assert len(one.open_shards(899.0)) == 4
    ride(one, 899, 961, 1, 600 * 1024)
    assert [shard.shard_id[-1] for shard in one.open_shards(961.0)] == ["4", "5", "1", "2", "3"]
    assert one.status(961.0) == "ACTIVE"


@pytest.mark.parametrize(
    ("records", "nbytes", "quiet_at"), [(1, 400 * 1024, None), (1, 600 * 1024, 480), (400, 10, None)]
)
def test_less_or_not_for_long_enough_splits_nothing(records: int, nbytes: int, quiet_at: int | None) -> None:
    one = stream(mode="ON_DEMAND")
    ride(one, 0, quiet_at or 1000, records, nbytes)
    if quiet_at:
        ride(one, quiet_at + 61, 1200, records, nbytes)
    assert len(one.open_shards(1200.0)) == 4


def test_a_hot_key_still_meets_its_shards_limit() -> None:
    one = stream(mode="ON_DEMAND")
    results = [result for _ in range(3) for result in one.put_records([PutEntry(b"x", "k", "0")] * 500, 0.0)]
    assert sum(result.ErrorCode is not None for result in results) == 500


# -- retention -----------------------------------------------------------------------------------------


def test_what_retention_ends_is_gone_with_its_memory() -> None:
    one = stream()
    for hour in range(30):
        one.put_records([PutEntry(b"x" * 1000, "k")] * 100, hour * HOUR_S)
    (shard,) = one.shards
    assert shard.log.first == 500  # 24 h before hour 29 is hour 5
    assert shard.log.bytes_stored == 2500 * 1000
    one.retention_hours = 25.0
    one.sweep(29 * HOUR_S)
    assert shard.log.first == 500  # what is gone does not come back
    one.sweep(60 * HOUR_S)
    assert (shard.log.bytes_stored, list(shard.log.read(0, 10, MIB))) == (0, [])


def test_a_closed_shard_is_listed_until_its_records_have_expired() -> None:
    one = stream(reshard_seconds=0.0)
    one.put_records([PutEntry(b"x", "k")], 0.0)
    split_shard(one, "shardId-000000000000", str(1 << 127), HOUR_S)
    assert len(one.listed(24 * HOUR_S)) == 3
    assert [shard.index for shard in one.listed(25 * HOUR_S + 1)] == [1, 2]
    merge_shards(one, "1", "2", 26 * HOUR_S)
    assert [shard.index for shard in one.listed(26 * HOUR_S)] == [1, 2, 3]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5000)), min_size=1, max_size=30), st.data())
def test_a_trimmed_log_reads_what_a_list_would(puts: list[tuple[int, int]], data: Any) -> None:
    from simulator.cloud.shard_log import ShardLog

    log, kept, now = ShardLog(), [], 0
    for gap, count in puts:
        now += gap
        log.append([b"abc"] * count, ["k"] * count, now)
        kept += [now] * count
    for _ in range(3):
        before = data.draw(st.integers(0, now + 10))
        gone = sum(arrival < before for arrival in kept)
        log.trim(before)
        first = max(log.first, gone)
        assert log.first == first
        assert log.bytes_stored == 3 * (len(kept) - first)
        assert [record.arrival_ms for record in log.read(0, 10**6, 10**9)] == kept[first:]


# -- enhanced fan-out ----------------------------------------------------------------------------------


def events(subscription: Subscription, now: float, until: float) -> list[tuple[float, int]]:
    """(time, records) of every event until ``until``, by the times the subscription itself asks for."""
    found = []
    while now < until:
        told = subscription.next_event(now, 0)
        if isinstance(told, Event):
            found.append((round(now, 3), len(told.records)))
            if told.ended:
                break
        else:
            assert told > now
            now = told
    return found


def test_two_mebibytes_a_second_for_each_consumer() -> None:
    one = stream(shard_rate_factor=100.0)
    one.put_records([PutEntry(b"x" * (MIB // 4 - 1), "k")] * 40, 0.0)  # 10 MiB
    (shard,) = one.shards
    first, second = (Consumer(name, one.arn, 0.0, 0.0).subscribe(shard, 0, 0.0, one.settings) for name in "ab")
    for subscription in (first, second):
        arrived = events(subscription, 0.0, 10.0)
        # Two of the ten MiB are in the bucket, and one event may put it into debt; the rest comes at 2 MiB/s.
        took = next(at for at, _ in arrived if sum(n for when, n in arrived if when <= at) == 40)
        assert 3.4 <= took <= 4.1, arrived


def test_an_idle_subscription_beats_and_ends_after_five_minutes() -> None:
    one = stream()
    subscription = Consumer("c", one.arn, 0.0, 0.0).subscribe(one.shards[0], 0, 0.0, one.settings)
    beats = events(subscription, 0.0, 299.9)
    assert beats == [(HEARTBEAT_S * index, 0) for index in range(60)]
    assert not subscription.is_over(299.9)
    assert subscription.is_over(300.0)


def test_a_second_subscription_waits_five_seconds_then_takes_over() -> None:
    one = stream()
    consumer = Consumer("c", one.arn, 0.0, active_at=2.0)
    with pytest.raises(AwsError, match="not ACTIVE, instead in state CREATING"):
        consumer.subscribe(one.shards[0], 0, 1.0, one.settings)
    first = consumer.subscribe(one.shards[0], 0, 2.0, one.settings)
    with pytest.raises(AwsError, match="ResourceInUseException"):
        consumer.subscribe(one.shards[0], 0, 6.9, one.settings)
    second = consumer.subscribe(one.shards[0], 0, 7.0, one.settings)
    assert first.is_over(7.0)
    assert not second.is_over(7.0)
    consumer.end()
    assert second.is_over(7.0)


# -- rates and tokens ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "per_second"),
    [
        ("CreateStream", 5),
        ("DeleteStream", 5),
        ("ListStreams", 5),
        ("SplitShard", 5),
        ("MergeShards", 5),
        ("RegisterStreamConsumer", 5),
        ("DescribeStream", 10),
        ("DescribeStreamSummary", 20),
        ("DescribeLimits", 1),
        ("UpdateShardCount", 10),
        ("ListShards", 1000),
    ],
)
def test_the_control_planes_rates(operation: str, per_second: int) -> None:
    """Fact sheet of AWS's quotas for the control plane: one second's worth, then the rate."""
    rates = ControlRates("1", LimitSettings())

    def admitted(now: float) -> int:
        count = 0
        while True:
            try:
                rates.admit(operation, "s", now)
            except AwsError as error:
                assert error.code == "LimitExceededException"
                return count
            count += 1

    assert admitted(0.0) == per_second
    assert admitted(1.0) == per_second
    assert admitted(1.0) == 0


def test_rates_of_streams_do_not_meet_those_of_the_account_do() -> None:
    rates = ControlRates("1", LimitSettings())
    for _ in range(5):
        rates.admit("AddTagsToStream", "a", 0.0)
    rates.admit("AddTagsToStream", "b", 0.0)
    with pytest.raises(AwsError, match=r"Rate exceeded for stream a under account 1\."):
        rates.admit("AddTagsToStream", "a", 0.0)
    rates.admit("PutRecords", "a", 0.0)
    assert not set(PER_ACCOUNT) & set(PER_STREAM)


def test_page_tokens_expire_after_300_seconds() -> None:
    token = page_tokens.issue("ListShards", {"a": 1}, 100.0)
    assert page_tokens.read("ListShards", token, 400.0) == {"a": 1}
    with pytest.raises(AwsError, match="ExpiredNextTokenException"):
        page_tokens.read("ListShards", token, 400.1)


def test_settings_by_name() -> None:
    assert with_settings(["reshard_seconds=5", "enforced=false"]) == LimitSettings(reshard_seconds=5.0, enforced=False)
    for text in ("x=1", "reshard_seconds=-1", "reshard_seconds=inf", "enforced=maybe", "reshard_seconds"):
        with pytest.raises(ValueError, match=text.partition("=")[0]):
            with_settings([text])


def test_deleting_takes_its_time_and_the_name_is_free_afterwards() -> None:
    now = 0.0
    api = KinesisApi("1", LimitSettings(stream_transition_seconds=3.0), Metrics(), lambda: now)

    def ask(operation: str, **members: Any) -> Any:
        status, body = api.handle(operation, json.dumps({"StreamName": "s", **members}).encode(), "us-east-1")
        told = json.loads(body) if body else {}
        return told.get("__type") if status != 200 else told.get("StreamDescriptionSummary", {}).get("StreamStatus")

    assert ask("CreateStream", ShardCount=1) is None
    assert ask("DescribeStreamSummary") == "CREATING"
    now = 3.0
    assert ask("DescribeStreamSummary") == "ACTIVE"
    assert ask("DeleteStream") is None
    assert ask("DescribeStreamSummary") == "DELETING"
    assert ask("CreateStream", ShardCount=1) == "ResourceInUseException"
    now = 6.0
    assert ask("DescribeStreamSummary") == "ResourceNotFoundException"
    assert ask("CreateStream", ShardCount=1) is None
    assert MAX_HASH_KEY == 2**128 - 1
