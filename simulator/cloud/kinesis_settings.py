"""Kinesis's control plane: what can be set on a stream that exists. Retention, mode, record size, encryption,
monitoring, tags."""

from __future__ import annotations

import re
from typing import Any

from simulator.cloud import limits
from simulator.cloud.errors import AwsError
from simulator.cloud.kinesis import Kinesis
from simulator.cloud.kinesis_streams import Operation, not_simulated, stream_of
from simulator.cloud.limits import KIB
from simulator.cloud.on_demand import OnDemandScaling
from simulator.cloud.stream import Stream

SHARD_LEVEL_METRICS = (
    "IncomingBytes",
    "IncomingRecords",
    "OutgoingBytes",
    "OutgoingRecords",
    "WriteProvisionedThroughputExceeded",
    "ReadProvisionedThroughputExceeded",
    "IteratorAgeMilliseconds",
)
_TAG_CHARACTERS = re.compile(r"[\w \u00C0-\u1FFF\u2C00-\uD7FF./=+\-@%:,]*")


# -- retention -----------------------------------------------------------------------------------------


def increase_retention(kinesis: Kinesis, request: dict[str, Any], now: float) -> None:
    stream, hours = stream_of(kinesis, request), request["RetentionPeriodHours"]
    _require_hours(hours)
    if hours < stream.retention_hours:
        raise AwsError(
            "InvalidArgumentException",
            f"Requested retention period ({hours} hours) for stream {stream.name} can not be shorter than existing "
            f"retention period ({int(stream.retention_hours)} hours). Use DecreaseRetentionPeriod API.",
        )
    stream.retention_hours = float(hours)


def decrease_retention(kinesis: Kinesis, request: dict[str, Any], now: float) -> None:
    stream, hours = stream_of(kinesis, request), request["RetentionPeriodHours"]
    _require_hours(hours)
    if hours > stream.retention_hours:
        raise AwsError(
            "InvalidArgumentException",
            f"Requested retention period ({hours} hours) for stream {stream.name} can not be longer than existing "
            f"retention period ({int(stream.retention_hours)} hours). Use IncreaseRetentionPeriod API.",
        )
    stream.retention_hours = float(hours)
    # "Decreasing makes older data unreadable at once" (DecreaseStreamRetentionPeriod).
    stream.sweep(now)


def _require_hours(hours: int) -> None:
    least, most = int(limits.RETENTION_MIN_HOURS), int(limits.RETENTION_MAX_HOURS)
    if hours < least:
        raise AwsError(
            "InvalidArgumentException",
            f"Minimum allowed retention period is {least} hours. Requested retention period ({hours} hours) is too "
            "short.",
        )
    if hours > most:
        raise AwsError(
            "InvalidArgumentException",
            f"Maximum allowed retention period is {most} hours. Requested retention period ({hours} hours) is too "
            "long.",
        )


# -- mode, record size ---------------------------------------------------------------------------------


def update_stream_mode(kinesis: Kinesis, request: dict[str, Any], now: float) -> None:
    stream, mode = stream_of(kinesis, request), request["StreamModeDetails"]["StreamMode"]
    if "WarmThroughputMiBps" in request:
        raise not_simulated("WarmThroughputMiBps")
    stream.require_active(now)
    if mode == stream.mode:
        return
    if mode == "ON_DEMAND":
        kinesis.require_on_demand()
    stream.count_call("UpdateStreamMode", limits.MODE_SWITCHES_PER_DAY, now)

    def switch(_: float) -> None:
        # The shards stay: "your data stream initially retains whatever shard count it had" (CAH).
        stream.mode = mode
        stream.on_demand = OnDemandScaling(stream.shards) if mode == "ON_DEMAND" else None

    stream.begin("UPDATING", stream.settings.reshard_seconds, switch, now)


def update_max_record_size(kinesis: Kinesis, request: dict[str, Any], now: float) -> None:
    stream = stream_of(kinesis, request)
    stream.require_active(now)
    nbytes = request["MaxRecordSizeInKiB"] * KIB
    stream.begin(
        "UPDATING", stream.settings.stream_transition_seconds, lambda at: stream.resize_records(nbytes, at), now
    )


# -- encryption ----------------------------------------------------------------------------------------


def start_encryption(kinesis: Kinesis, request: dict[str, Any], now: float) -> None:
    stream, key = stream_of(kinesis, request), request["KeyId"]
    stream.require_active(now)
    stream.count_call("StartStreamEncryption", limits.STREAM_ENCRYPTION_PER_DAY, now)
    _encrypt(stream, key if request["EncryptionType"] == "KMS" else None, now)


def stop_encryption(kinesis: Kinesis, request: dict[str, Any], now: float) -> None:
    stream = stream_of(kinesis, request)
    stream.require_active(now)
    _encrypt(stream, None, now)


def _encrypt(stream: Stream, key: str | None, now: float) -> None:
    def change(_: float) -> None:
        stream.encryption_key = key

    stream.begin("UPDATING", stream.settings.stream_transition_seconds, change, now)


# -- monitoring ----------------------------------------------------------------------------------------


def enable_monitoring(kinesis: Kinesis, request: dict[str, Any], now: float) -> dict[str, Any]:
    return _monitor(stream_of(kinesis, request), request["ShardLevelMetrics"], wanted=True)


def disable_monitoring(kinesis: Kinesis, request: dict[str, Any], now: float) -> dict[str, Any]:
    return _monitor(stream_of(kinesis, request), request["ShardLevelMetrics"], wanted=False)


def _monitor(stream: Stream, named: list[str], *, wanted: bool) -> dict[str, Any]:
    chosen = set(SHARD_LEVEL_METRICS if "ALL" in named else named)
    before = stream.shard_level_metrics
    kept = chosen.union(before) if wanted else set(before) - chosen
    after = [name for name in SHARD_LEVEL_METRICS if name in kept]
    stream.shard_level_metrics = after
    return {
        "StreamName": stream.name,
        "CurrentShardLevelMetrics": before,
        "DesiredShardLevelMetrics": after,
        "StreamARN": stream.arn,
    }


# -- tags ----------------------------------------------------------------------------------------------


def add_tags(kinesis: Kinesis, request: dict[str, Any], now: float) -> None:
    stream = stream_of(kinesis, request)
    _tag(stream, stream.tags, request["Tags"])


def remove_tags(kinesis: Kinesis, request: dict[str, Any], now: float) -> None:
    stream = stream_of(kinesis, request)
    _untag(stream, stream.tags, request["TagKeys"])


def list_tags(kinesis: Kinesis, request: dict[str, Any], now: float) -> dict[str, Any]:
    tags = stream_of(kinesis, request).tags
    after = request.get("ExclusiveStartTagKey", "")
    keys = sorted(key for key in tags if key > after)
    page = keys[: request.get("Limit", int(limits.TAGS_PER_STREAM))]
    return {"Tags": [{"Key": key, "Value": tags[key]} for key in page], "HasMoreTags": len(keys) > len(page)}


def tag_resource(kinesis: Kinesis, request: dict[str, Any], now: float) -> None:
    _tag(*_tagged(kinesis, request), request["Tags"])


def untag_resource(kinesis: Kinesis, request: dict[str, Any], now: float) -> None:
    _untag(*_tagged(kinesis, request), request["TagKeys"])


def list_tags_for_resource(kinesis: Kinesis, request: dict[str, Any], now: float) -> dict[str, Any]:
    _, tags = _tagged(kinesis, request)
    return {"Tags": [{"Key": key, "Value": value} for key, value in sorted(tags.items())]}


def _tagged(kinesis: Kinesis, request: dict[str, Any]) -> tuple[Stream, dict[str, str]]:
    """The tags of the stream, or of its consumer, that ResourceARN names."""
    arn, _, consumer = request["ResourceARN"].partition("/consumer/")
    stream = kinesis.resolve(None, arn)
    if not consumer:
        return stream, stream.tags
    found = stream.consumers.get(consumer.partition(":")[0])
    if found is None or found.arn != request["ResourceARN"]:
        raise AwsError(
            "ResourceNotFoundException", f"Consumer {request['ResourceARN']}, account {stream.account_id} not found."
        )
    return stream, found.tags


def _tag(stream: Stream, tags: dict[str, str], added: dict[str, str]) -> None:
    _require_characters(stream, [*added, *added.values()], "add tags to")
    most = int(limits.TAGS_PER_STREAM)
    if len({*tags, *added}) > most:
        raise AwsError(
            "InvalidArgumentException",
            f"Failed to add tags to stream {stream.name} under account {stream.account_id} because a given stream "
            f"cannot have more than {most} tags associated with it.",
        )
    tags.update(added)


def _untag(stream: Stream, tags: dict[str, str], keys: list[str]) -> None:
    _require_characters(stream, keys, "remove tags from")
    for key in keys:
        tags.pop(key, None)


def _require_characters(stream: Stream, texts: list[str], what: str) -> None:
    # Both texts as kinesalite's author recorded them: two checks after one another, of which the first allows %.
    if not all(_TAG_CHARACTERS.fullmatch(text) for text in texts):
        raise AwsError(
            "InvalidArgumentException",
            "Some tags contain invalid characters. Valid characters: "
            "Unicode letters, digits, white space, _ . / = + - % @.",
        )
    if any("%" in text for text in texts):
        raise AwsError(
            "InvalidArgumentException",
            f"Failed to {what} stream {stream.name} under account {stream.account_id} because some tags contained "
            "illegal characters. The allowed characters are Unicode letters, white-spaces, "
            "'_',',','/','=','+','-','@'.",
        )


OPERATIONS: dict[str, Operation] = {
    "AddTagsToStream": add_tags,
    "DecreaseStreamRetentionPeriod": decrease_retention,
    "DisableEnhancedMonitoring": disable_monitoring,
    "EnableEnhancedMonitoring": enable_monitoring,
    "IncreaseStreamRetentionPeriod": increase_retention,
    "ListTagsForResource": list_tags_for_resource,
    "ListTagsForStream": list_tags,
    "RemoveTagsFromStream": remove_tags,
    "StartStreamEncryption": start_encryption,
    "StopStreamEncryption": stop_encryption,
    "TagResource": tag_resource,
    "UntagResource": untag_resource,
    "UpdateMaxRecordSize": update_max_record_size,
    "UpdateStreamMode": update_stream_mode,
}
