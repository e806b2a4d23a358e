"""Kinesis's control plane: creating, describing and listing streams.

Each function takes the region's engine, the checked request and ``now``, and returns the answer's members.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from simulator.cloud import limits, page_tokens
from simulator.cloud.errors import AwsError
from simulator.cloud.kinesis import Kinesis
from simulator.cloud.limits import KIB
from simulator.cloud.shard import Shard
from simulator.cloud.stream import Stream, open_count

Operation = Callable[[Kinesis, dict[str, Any], float], dict[str, Any] | None]


def stream_of(kinesis: Kinesis, request: dict[str, Any]) -> Stream:
    """The stream a request names, by StreamName or StreamARN. :raises AwsError: as AWS words it."""
    return kinesis.resolve(request.get("StreamName"), request.get("StreamARN"))


def not_simulated(member: str) -> AwsError:
    """A member of the model that would change behaviour and does not here."""
    return AwsError("ValidationException", f"{member} is not implemented by the embedded cloud.")


def create_stream(kinesis: Kinesis, request: dict[str, Any], now: float) -> None:
    for member in ("WarmThroughputMiBps", "RecordDistributionStrategy"):
        if request.get(member) not in (None, "USER_PARTITION_KEY"):
            raise not_simulated(member)
    # Without either, AWS makes an on-demand stream (recorded in LocalStack's snapshots).
    default = "PROVISIONED" if "ShardCount" in request else "ON_DEMAND"
    mode = request.get("StreamModeDetails", {}).get("StreamMode", default)
    if mode == "PROVISIONED" and "ShardCount" not in request:
        raise AwsError("ValidationException", "ShardCount is required when StreamMode is PROVISIONED.")
    record_kib = request.get("MaxRecordSizeInKiB", int(limits.RECORD_MAX_BYTES) // KIB)
    stream = kinesis.create_stream(
        request["StreamName"], request.get("ShardCount"), now, mode=mode, max_record_bytes=record_kib * KIB
    )
    stream.tags.update(request.get("Tags", {}))


def delete_stream(kinesis: Kinesis, request: dict[str, Any], now: float) -> None:
    stream = stream_of(kinesis, request)
    if stream.consumers and not request.get("EnforceConsumerDeletion"):
        raise AwsError(
            "ResourceInUseException",
            f"Stream {stream.name} under account {stream.account_id} has {len(stream.consumers)} registered "
            "consumers; deregister them, or set EnforceConsumerDeletion.",
        )
    kinesis.delete_stream(stream.name, now)


def list_streams(kinesis: Kinesis, request: dict[str, Any], now: float) -> dict[str, Any]:
    after = request.get("ExclusiveStartStreamName", "")
    if "NextToken" in request:
        after = page_tokens.read("ListStreams", request["NextToken"], now)["after"]
    names = sorted(name for name in kinesis.streams if name > after)
    page = names[: request.get("Limit", 100)]
    answer: dict[str, Any] = {
        "StreamNames": page,
        "HasMoreStreams": len(names) > len(page),
        "StreamSummaries": [_summary(kinesis.streams[name], now) for name in page],
    }
    if len(names) > len(page):
        answer["NextToken"] = page_tokens.issue("ListStreams", {"after": page[-1]}, now)
    return answer


def describe_stream(kinesis: Kinesis, request: dict[str, Any], now: float) -> dict[str, Any]:
    stream = stream_of(kinesis, request)
    start = request.get("ExclusiveStartShardId")
    shards = [shard for shard in stream.listed(now) if start is None or shard.shard_id > start]
    page = shards[: request.get("Limit", 100)]
    return {
        "StreamDescription": _description(stream, now)
        | {"Shards": [describe_shard(shard) for shard in page], "HasMoreShards": len(shards) > len(page)}
    }


def describe_stream_summary(kinesis: Kinesis, request: dict[str, Any], now: float) -> dict[str, Any]:
    stream = stream_of(kinesis, request)
    return {
        "StreamDescriptionSummary": _description(stream, now)
        | {
            "OpenShardCount": sum(shard.is_open for shard in stream.listed(now)),
            "ConsumerCount": len(stream.consumers),
            "MaxRecordSizeInKiB": stream.max_record_bytes // KIB,
        }
    }


def describe_limits(kinesis: Kinesis, request: dict[str, Any], now: float) -> dict[str, Any]:
    return {
        "ShardLimit": int(limits.SHARDS_PER_ACCOUNT),
        "OpenShardCount": open_count(kinesis.streams.values(), now),
        "OnDemandStreamCount": kinesis.on_demand_count(),
        "OnDemandStreamCountLimit": int(limits.ON_DEMAND_STREAMS),
    }


def _summary(stream: Stream, now: float) -> dict[str, Any]:
    return {
        "StreamName": stream.name,
        "StreamARN": stream.arn,
        "StreamStatus": stream.status(now),
        "StreamModeDetails": {"StreamMode": stream.mode},
        "StreamCreationTimestamp": round(stream.created_at, 3),
    }


def _description(stream: Stream, now: float) -> dict[str, Any]:
    described = _summary(stream, now) | {
        "RetentionPeriodHours": int(stream.retention_hours),
        "EnhancedMonitoring": [{"ShardLevelMetrics": stream.shard_level_metrics}],
        "EncryptionType": "NONE" if stream.encryption_key is None else "KMS",
    }
    if stream.encryption_key is not None:
        described["KeyId"] = stream.encryption_key
    return described


def describe_shard(shard: Shard) -> dict[str, Any]:
    """The model's Shard."""
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
    """The model's ChildShard, as readers of a drained shard are told."""
    parents = [parent.shard_id for parent in (shard.parent, shard.adjacent_parent) if parent is not None]
    return {"ShardId": shard.shard_id, "ParentShards": parents, "HashKeyRange": _hash_range(shard)}


def _hash_range(shard: Shard) -> dict[str, str]:
    return {"StartingHashKey": str(shard.starting_hash_key), "EndingHashKey": str(shard.ending_hash_key)}


OPERATIONS: dict[str, Operation] = {
    "CreateStream": create_stream,
    "DeleteStream": delete_stream,
    "DescribeLimits": describe_limits,
    "DescribeStream": describe_stream,
    "DescribeStreamSummary": describe_stream_summary,
    "ListStreams": list_streams,
}
