"""What an on-failure destination is told, as Lambda words it. Pure functions.

The document holds no records, only where they are (CAH kinesis-on-failure-destination, services-dynamodb-errors;
recorded against AWS). An S3 object also has ``payload``, the event that failed, as JSON in a string.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

import msgspec

from consumers.runtime.actions import Discard
from consumers.runtime.config import MappingConfig

BATCH_INFO = {"Kinesis": "KinesisBatchInfo", "DynamoDB": "DDBStreamBatchInfo"}


def failure_record(
    discard: Discard,
    mapping: MappingConfig,
    shard_id: str,
    function_arn: str,
    now: float,
    *,
    with_payload: bool = False,
) -> bytes:
    """The document about ``discard`` as JSON; ``now`` is in seconds since the epoch.

    Records that were too old were not invoked, so there is no ``responseContext``. ``functionError`` is null when
    the function answered and its answer reported the failure.
    """
    first, last = discard.records[0], discard.records[-1]
    document: dict[str, Any] = {
        "requestContext": {
            "requestId": discard.request_id,
            "functionArn": function_arn,
            "condition": discard.condition,
            # AWS has 1 also for records that were never sent (recorded).
            "approximateInvokeCount": max(1, discard.invoke_count),
        }
    }
    if discard.condition != "RecordAgeExceeded" and discard.invoke_count:
        document["responseContext"] = {
            "statusCode": 200,
            "executedVersion": "$LATEST",
            "functionError": discard.function_error,
        }
    # AWS's samples have milliseconds for Kinesis and whole seconds for DynamoDB, whose records have no finer time.
    precision = "milliseconds" if mapping.source_kind == "Kinesis" else "seconds"
    document |= {
        "version": "1.0",
        "timestamp": _iso(now, "milliseconds"),
        BATCH_INFO[mapping.source_kind]: {
            "shardId": shard_id,
            "startSequenceNumber": first.aws_sequence_number,
            "endSequenceNumber": last.aws_sequence_number,
            "approximateArrivalOfFirstRecord": _iso(first.arrival_s, precision),
            "approximateArrivalOfLastRecord": _iso(last.arrival_s, precision),
            "batchSize": discard.count,
            "streamArn": mapping.stream_arn,
        },
    }
    if with_payload:
        document["payload"] = discard.event().decode()
    return msgspec.json.encode(document)


def mapping_uuid(mapping: MappingConfig) -> str:
    """Lambda gives every mapping a UUID; here it follows from the stream and the mapping's name, so it stays the
    same from run to run."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{mapping.stream_arn}#{mapping.name}"))


def object_key(mapping: MappingConfig, shard_id: str, now: float, object_id: str) -> str:
    """``aws/lambda/<ESM-UUID>/<shardID>/YYYY/MM/DD/YYYY-MM-DDTHH.MM.SS-<UUID>``."""
    at = datetime.fromtimestamp(now, UTC)
    return f"aws/lambda/{mapping_uuid(mapping)}/{shard_id}/{at:%Y/%m/%d}/{at:%Y-%m-%dT%H.%M.%S}-{object_id}"


def _iso(epoch_s: float, precision: str) -> str:
    # The nearest millisecond: the float of one is often a hair below it.
    at = datetime.fromtimestamp(round(epoch_s, 3), UTC)
    return at.isoformat(timespec=precision).replace("+00:00", "Z")
