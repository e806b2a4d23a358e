"""Kinesis's control plane: creating, describing and resharding streams.

Each function takes the region's engine, the checked request and ``now``, and returns the answer's members.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from simulator.cloud import limits
from simulator.cloud.errors import AwsError
from simulator.cloud.kinesis import Kinesis, Stream
from simulator.cloud.shard import Shard

Operation = Callable[[Kinesis, dict[str, Any], float], dict[str, Any] | None]


def stream_of(kinesis: Kinesis, request: dict[str, Any]) -> Stream:
    """The stream a request names, by StreamName or StreamARN. :raises AwsError: as AWS words it."""
    return kinesis.resolve(request.get("StreamName"), request.get("StreamARN"))


def create_stream(kinesis: Kinesis, request: dict[str, Any], now: float) -> None:
    mode = request.get("StreamModeDetails", {}).get("StreamMode", "PROVISIONED")
    if mode != "PROVISIONED":
        raise AwsError(
            "ValidationException",
            "On-demand streams are not simulated; give a ShardCount, or StreamMode PROVISIONED.",
        )
    if "ShardCount" not in request:
        raise AwsError("ValidationException", "ShardCount is required when StreamMode is PROVISIONED.")
    stream = kinesis.create_stream(request["StreamName"], request["ShardCount"], now)
    stream.tags.update(request.get("Tags", {}))


def delete_stream(kinesis: Kinesis, request: dict[str, Any], now: float) -> None:
    kinesis.delete_stream(stream_of(kinesis, request).name)


def list_streams(kinesis: Kinesis, request: dict[str, Any], now: float) -> dict[str, Any]:
    after = request.get("ExclusiveStartStreamName") or request.get("NextToken") or ""
    names = sorted(name for name in kinesis.streams if name > after)
    page = names[: request.get("Limit", 100)]
    answer: dict[str, Any] = {
        "StreamNames": page,
        "HasMoreStreams": len(names) > len(page),
        "StreamSummaries": [_summary(kinesis.streams[name], now) for name in page],
    }
    if len(names) > len(page):
        answer["NextToken"] = page[-1]
    return answer


def describe_stream(kinesis: Kinesis, request: dict[str, Any], now: float) -> dict[str, Any]:
    stream = stream_of(kinesis, request)
    stream.settle(now)
    shards, more = _page(_listed(stream, now), request.get("ExclusiveStartShardId"), request.get("Limit", 100))
    description = _summary(stream, now) | {
        "Shards": [_describe(shard) for shard in shards],
        "HasMoreShards": more,
        "RetentionPeriodHours": int(stream.retention_hours),
        "EnhancedMonitoring": [{"ShardLevelMetrics": []}],
        "EncryptionType": "NONE",
    }
    return {"StreamDescription": description}


def describe_stream_summary(kinesis: Kinesis, request: dict[str, Any], now: float) -> dict[str, Any]:
    stream = stream_of(kinesis, request)
    description = _summary(stream, now) | {
        "RetentionPeriodHours": int(stream.retention_hours),
        "EnhancedMonitoring": [{"ShardLevelMetrics": []}],
        "EncryptionType": "NONE",
        "OpenShardCount": len(stream.open_shards(now)),
        "ConsumerCount": 0,
        "MaxRecordSizeInKiB": int(limits.RECORD_MAX_BYTES) // limits.KIB,
    }
    return {"StreamDescriptionSummary": description}


def list_shards(kinesis: Kinesis, request: dict[str, Any], now: float) -> dict[str, Any]:
    start = request.get("ExclusiveStartShardId")
    if "NextToken" in request:
        if "StreamName" in request or start is not None:
            raise AwsError("InvalidArgumentException", "NextToken and StreamName cannot be provided together.")
        name, _, start = request["NextToken"].partition("/")
        request = {"StreamName": name, "MaxResults": request.get("MaxResults", 10_000)}
    stream = stream_of(kinesis, request)
    stream.settle(now)
    kept = _filtered(_listed(stream, now), request.get("ShardFilter", {}), stream, now)
    shards, more = _page(kept, start, request.get("MaxResults", 10_000))
    answer: dict[str, Any] = {"Shards": [_describe(shard) for shard in shards]}
    if more:
        answer["NextToken"] = f"{stream.name}/{shards[-1].shard_id}"
    return answer


def _listed(stream: Stream, now: float) -> list[Shard]:
    """Every shard that is open, or closed within the retention period."""
    horizon = now - stream.retention_hours * 3600
    return [s for s in stream.shards if s.closed_at is None or s.closed_at >= horizon]


def update_shard_count(kinesis: Kinesis, request: dict[str, Any], now: float) -> dict[str, Any]:
    stream = stream_of(kinesis, request)
    current = stream.update_shard_count(request["TargetShardCount"], now)
    return {
        "StreamName": stream.name,
        "CurrentShardCount": current,
        "TargetShardCount": request["TargetShardCount"],
        "StreamARN": stream.arn,
    }


def describe_limits(kinesis: Kinesis, request: dict[str, Any], now: float) -> dict[str, Any]:
    return {
        "ShardLimit": int(limits.SHARDS_PER_ACCOUNT),
        "OpenShardCount": sum(len(stream.open_shards(now)) for stream in kinesis.streams.values()),
        "OnDemandStreamCount": 0,
        "OnDemandStreamCountLimit": 50,
    }


def _summary(stream: Stream, now: float) -> dict[str, Any]:
    return {
        "StreamName": stream.name,
        "StreamARN": stream.arn,
        "StreamStatus": stream.status(now),
        "StreamModeDetails": {"StreamMode": "PROVISIONED"},
        "StreamCreationTimestamp": round(stream.created_at, 3),
    }


def _describe(shard: Shard) -> dict[str, Any]:
    numbers = {"StartingSequenceNumber": shard.starting_sequence_number()}
    if not shard.is_open:
        numbers["EndingSequenceNumber"] = shard.ending_sequence_number() or ""
    described: dict[str, Any] = {
        "ShardId": shard.shard_id,
        "HashKeyRange": _hash_range(shard),
        "SequenceNumberRange": numbers,
    }
    if shard.parent is not None:
        described["ParentShardId"] = shard.parent.shard_id
    if shard.adjacent_parent is not None:
        described["AdjacentParentShardId"] = shard.adjacent_parent.shard_id
    return described


def child_shard(shard: Shard) -> dict[str, Any]:
    parents = [parent.shard_id for parent in (shard.parent, shard.adjacent_parent) if parent is not None]
    return {"ShardId": shard.shard_id, "ParentShards": parents, "HashKeyRange": _hash_range(shard)}


def _hash_range(shard: Shard) -> dict[str, str]:
    return {"StartingHashKey": str(shard.starting_hash_key), "EndingHashKey": str(shard.ending_hash_key)}


def _page(shards: list[Shard], start: str | None, size: int) -> tuple[list[Shard], bool]:
    rest = [shard for shard in shards if start is None or shard.shard_id > start]
    return rest[:size], len(rest) > size


def _filtered(shards: list[Shard], wanted: dict[str, Any], stream: Stream, now: float) -> list[Shard]:
    """ListShards' ShardFilter. A closed shard was open at a time between its creation and its closing."""
    kind = wanted.get("Type")
    if kind == "AFTER_SHARD_ID":
        return [s for s in shards if s.shard_id > wanted.get("ShardId", "")]
    if kind == "AT_LATEST":
        return [s for s in shards if s.is_open]
    if kind in ("AT_TIMESTAMP", "FROM_TIMESTAMP", "AT_TRIM_HORIZON"):
        at = wanted.get("Timestamp", max(now - stream.retention_hours * 3600, stream.created_at))
        return [
            s
            for s in shards
            if (s.closed_at is None or s.closed_at > at) and (kind == "FROM_TIMESTAMP" or s.created_s <= at)
        ]
    return shards


OPERATIONS: dict[str, Operation] = {
    "CreateStream": create_stream,
    "DeleteStream": delete_stream,
    "DescribeLimits": describe_limits,
    "DescribeStream": describe_stream,
    "DescribeStreamSummary": describe_stream_summary,
    "ListShards": list_shards,
    "ListStreams": list_streams,
    "UpdateShardCount": update_shard_count,
}
