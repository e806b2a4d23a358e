"""The Kinesis engine with the clock in hand: routing, resharding, time that passes."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.cloud.errors import AwsError
from simulator.cloud.kinesis import Kinesis
from simulator.cloud.kinesis_api import KinesisApi
from simulator.cloud.limits import LimitSettings
from simulator.cloud.metrics import Metrics
from simulator.cloud.resharding import update_shard_count
from simulator.cloud.sequence import MAX_HASH_KEY
from simulator.cloud.stream import PutEntry, Stream


def stream(shards: int, **settings: Any) -> Stream:
    kinesis = Kinesis("us-east-1", "123456789012", LimitSettings(**settings), Metrics())
    return kinesis.create_stream("s", shards, 0.0)


def ranges(one: Stream, now: float) -> list[tuple[int, int]]:
    return [(shard.starting_hash_key, shard.ending_hash_key) for shard in one.open_shards(now)]


# -- resharding ----------------------------------------------------------------------------------------


@given(st.integers(1, 12), st.lists(st.integers(1, 24), max_size=5))
def test_any_chain_of_reshards_covers_the_hash_keys_once(first: int, targets: list[int]) -> None:
    one = stream(first, reshard_seconds=0.0)
    now = 0.0
    for target in targets:
        now += 1
        current = len(one.open_shards(now))
        try:
            update_shard_count(one, target, now)
        except AwsError as error:
            assert error.code == "LimitExceededException"
            assert target > 2 * current or target < current / 2
            continue
        found = ranges(one, now)
        assert len(found) == target
        assert found[0][0] == 0
        assert found[-1][1] == MAX_HASH_KEY
        assert all(left[1] + 1 == right[0] for left, right in pairwise(found))
        assert [shard.index for shard in one.shards] == list(range(len(one.shards)))
        for shard in one.shards:
            parents = [parent for parent in (shard.parent, shard.adjacent_parent) if parent]
            assert all(not parent.is_open and shard in parent.children for parent in parents)
            assert shard.is_open == (not shard.children)


def test_a_reshard_takes_its_time_and_writes_go_on() -> None:
    """
    ::

        0        1 call                              31 done
        |--------|-----------UPDATING----------------|---ACTIVE
        shard 0  ------------ takes writes ----------| closed
        1 and 2                                      | take writes
    """
    one = stream(1)
    update_shard_count(one, 2, 1.0)
    assert one.status(30.9) == "UPDATING"
    assert one.put_records([PutEntry(b"x", "k")], 30.9)[0].ShardId == "shardId-000000000000"
    with pytest.raises(AwsError, match="not ACTIVE, instead in state UPDATING"):
        update_shard_count(one, 2, 30.9)
    assert one.status(31.0) == "ACTIVE"
    assert {shard.shard_id for shard in one.open_shards(31.0)} == {"shardId-000000000001", "shardId-000000000002"}
    assert one.put_records([PutEntry(b"x", "k")], 31.0)[0].ShardId != "shardId-000000000000"


def test_ten_reshards_a_day() -> None:
    one = stream(2, reshard_seconds=0.0)
    for call in range(10):
        update_shard_count(one, 2 + call % 2, float(call))
    with pytest.raises(AwsError, match="LimitExceededException"):
        update_shard_count(one, 2, 11.0)
    update_shard_count(one, 2, 86_400.0)


# -- routing -------------------------------------------------------------------------------------------


@given(st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=50), st.integers(1, 9))
def test_a_record_lies_in_the_shard_whose_range_holds_its_hash(keys: list[str], shards: int) -> None:
    import hashlib

    one = stream(shards)
    results = one.put_records([PutEntry(b"x", key) for key in keys], 0.0)
    for key, result in zip(keys, results, strict=True):
        number = int.from_bytes(hashlib.md5(key.encode("utf-8", "surrogatepass")).digest(), "big")
        shard = one.shard(result.ShardId or "")
        assert shard.starting_hash_key <= number <= shard.ending_hash_key


def test_explicit_hash_keys_decide_and_are_checked() -> None:
    one = stream(2)
    entries = [PutEntry(b"x", "same", "0"), PutEntry(b"x", "same", str(MAX_HASH_KEY))]
    assert [result.ShardId for result in one.put_records(entries, 0.0)] == [
        "shardId-000000000000",
        "shardId-000000000001",
    ]
    with pytest.raises(AwsError, match=r"must be in the range: \[0, 2\^128-1\]"):
        one.put_records([PutEntry(b"x", "k", str(MAX_HASH_KEY + 1))], 0.0)


def test_a_hot_shard_is_refused_while_the_other_takes() -> None:
    one = stream(2)
    hot = [PutEntry(b"x", "k", "0") for _ in range(500)]
    cold = [PutEntry(b"x", "k", str(MAX_HASH_KEY)) for _ in range(10)]
    for _ in range(2):
        one.put_records(hot, 0.0)
    mixed = one.put_records(hot[:490] + cold, 0.0)
    assert [result.ErrorCode for result in mixed[:490]] == ["ProvisionedThroughputExceededException"] * 490
    assert all(result.ErrorCode is None for result in mixed[490:])


# -- iterators and retention ---------------------------------------------------------------------------


class Api:
    """The API under a clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.api = KinesisApi("123456789012", LimitSettings(), Metrics(), lambda: self.now)

    def __call__(self, operation: str, **request: Any) -> Any:
        status, body = self.api.handle(operation, json.dumps(request).encode(), "us-east-1")
        told = json.loads(body) if body else {}
        return told if status == 200 else (told["__type"], told.get("message"))


def test_an_iterator_expires_after_five_minutes() -> None:
    call = Api()
    call("CreateStream", StreamName="s", ShardCount=1)
    iterator = call("GetShardIterator", StreamName="s", ShardId="shardId-000000000000", ShardIteratorType="LATEST")
    call.now += 300
    assert call("GetRecords", **iterator)["Records"] == []
    call.now += 0.001
    kind, message = call("GetRecords", **iterator)
    assert kind == "ExpiredIteratorException"
    assert "further in the future than the tolerated delay of 300000 milliseconds." in message


def test_records_go_when_retention_ends() -> None:
    call = Api()
    call("CreateStream", StreamName="s", ShardCount=1)
    for _ in range(60):
        call("PutRecords", StreamName="s", Records=[{"Data": "eA==", "PartitionKey": "k"}] * 300)
        call.now += 3600
    iterator = call(
        "GetShardIterator", StreamName="s", ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON"
    )
    told = call("GetRecords", **iterator)
    assert len(told["Records"]) == 24 * 300
    log = call.api.region("us-east-1").streams["s"].shards[0].log
    assert log.end - log.first < 60 * 300


def test_millis_behind_and_paging() -> None:
    call = Api()
    call("CreateStream", StreamName="s", ShardCount=1)
    for _ in range(4):
        call("PutRecords", StreamName="s", Records=[{"Data": "eA==", "PartitionKey": "k"}] * 100)
        call.now += 1
    iterator = call(
        "GetShardIterator", StreamName="s", ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    behind = []
    for _ in range(4):
        told = call("GetRecords", ShardIterator=iterator, Limit=100)
        behind.append(told["MillisBehindLatest"])
        iterator = told["NextShardIterator"]
    assert behind == [3000, 2000, 1000, 0]


def test_iterators_of_a_deleted_stream_are_not_those_of_its_successor() -> None:
    call = Api()
    call("CreateStream", StreamName="s", ShardCount=1)
    iterator = call("GetShardIterator", StreamName="s", ShardId="shardId-000000000000", ShardIteratorType="LATEST")
    call("DeleteStream", StreamName="s")
    call.now += 1
    call("CreateStream", StreamName="s", ShardCount=1)
    assert call("GetRecords", **iterator) == ("InvalidArgumentException", "Invalid ShardIterator.")


@given(st.text(max_size=600))
def test_no_text_is_an_iterator(text: str) -> None:
    from simulator.cloud import iterators

    assert iterators.read(text) is None


@given(st.binary(max_size=300))
def test_no_body_breaks_the_api(body: bytes) -> None:
    api = KinesisApi("123456789012", LimitSettings(), Metrics(), lambda: 1.0)
    for operation in ("PutRecords", "PutRecord", "GetRecords", "CreateStream", "ListShards"):
        status, told = api.handle(operation, body, "us-east-1")
        assert status == 400
        assert json.loads(told)["__type"]
