"""Kinesis's control plane: listing shards, and splitting and merging them."""

from __future__ import annotations

from typing import Any

from simulator.cloud import page_tokens, resharding
from simulator.cloud.errors import AwsError
from simulator.cloud.kinesis import Kinesis
from simulator.cloud.kinesis_streams import Operation, describe_shard, stream_of
from simulator.cloud.shard import Shard
from simulator.cloud.stream import Stream

_MAX_PAGE = 10_000
# What a NextToken stands for cannot be given beside it.
_NOT_WITH_TOKEN = ("StreamName", "StreamARN", "ExclusiveStartShardId", "StreamCreationTimestamp", "ShardFilter")


def list_shards(kinesis: Kinesis, request: dict[str, Any], now: float) -> dict[str, Any]:
    size = request.get("MaxResults", _MAX_PAGE)
    if "NextToken" in request:
        for member in _NOT_WITH_TOKEN:
            if member in request:
                raise AwsError("InvalidArgumentException", f"NextToken and {member} cannot be provided together.")
        request = page_tokens.read("ListShards", request["NextToken"], now)
    elif "StreamName" not in request and "StreamARN" not in request:
        raise AwsError("InvalidArgumentException", "Either NextToken or StreamName should be provided.")
    stream = stream_of(kinesis, request)
    created = request.get("StreamCreationTimestamp")
    if created is not None and abs(created - stream.created_at) >= 1:
        # Another stream of this name; clients send whole seconds.
        raise AwsError(
            "ResourceNotFoundException",
            f"Stream {stream.name} under account {stream.account_id} with that creation timestamp not found.",
        )
    start = request.get("ExclusiveStartShardId", "")
    asked = request.get("ShardFilter", {})
    shards = [shard for shard in _filtered(stream, asked, now) if shard.shard_id > start]
    answer: dict[str, Any] = {"Shards": [describe_shard(shard) for shard in shards[:size]]}
    if len(shards) > size:
        position = {
            "StreamName": stream.name,
            "StreamCreationTimestamp": stream.created_at,
            "ShardFilter": asked,
            "ExclusiveStartShardId": shards[size - 1].shard_id,
        }
        answer["NextToken"] = page_tokens.issue("ListShards", position, now)
    return answer


def _filtered(stream: Stream, asked: dict[str, Any], now: float) -> list[Shard]:
    """The listed shards that a ShardFilter leaves. A closed shard was open from its creation to its closing."""
    shards, kind = stream.listed(now), asked.get("Type")
    if kind == "AFTER_SHARD_ID":
        if "ShardId" not in asked:
            raise AwsError("InvalidArgumentException", "ShardFilter of type AFTER_SHARD_ID needs a ShardId.")
        return [shard for shard in shards if shard.shard_id > asked["ShardId"]]
    if kind == "AT_LATEST":
        return [shard for shard in shards if shard.is_open]
    if kind in (None, "FROM_TRIM_HORIZON"):
        return shards
    at = max(now - stream.retention_hours * 3600, stream.created_at)
    if kind in ("AT_TIMESTAMP", "FROM_TIMESTAMP"):
        if "Timestamp" not in asked:
            raise AwsError("InvalidArgumentException", f"ShardFilter of type {kind} needs a Timestamp.")
        at = max(at, asked["Timestamp"])
    return [
        shard
        for shard in shards
        if (shard.closed_at is None or shard.closed_at > at) and (kind == "FROM_TIMESTAMP" or shard.created_at <= at)
    ]


def update_shard_count(kinesis: Kinesis, request: dict[str, Any], now: float) -> dict[str, Any]:
    stream, target = stream_of(kinesis, request), request["TargetShardCount"]
    current = len(stream.open_shards(now))
    if current < target <= 2 * current:
        kinesis.require_shards(target - current, now)
    current = resharding.update_shard_count(stream, target, now)
    return {
        "StreamName": stream.name,
        "CurrentShardCount": current,
        "TargetShardCount": target,
        "StreamARN": stream.arn,
    }


def split_shard(kinesis: Kinesis, request: dict[str, Any], now: float) -> None:
    stream = stream_of(kinesis, request)
    stream.require_active(now)
    stream.shard(request["ShardToSplit"])
    kinesis.require_shards(1, now)
    resharding.split_shard(stream, request["ShardToSplit"], request["NewStartingHashKey"], now)


def merge_shards(kinesis: Kinesis, request: dict[str, Any], now: float) -> None:
    stream = stream_of(kinesis, request)
    resharding.merge_shards(stream, request["ShardToMerge"], request["AdjacentShardToMerge"], now)


OPERATIONS: dict[str, Operation] = {
    "ListShards": list_shards,
    "MergeShards": merge_shards,
    "SplitShard": split_shard,
    "UpdateShardCount": update_shard_count,
}
