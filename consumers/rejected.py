"""Keep the records that are not telemetry, with their reasons.

One gzip object of JSON lines per invocation that met any: ``rejected/{shardId}/{sequenceNumber of the first}.jsonl.gz``
in ``REJECTED_BUCKET``. The name follows from the records, so a replay of a batch overwrites its object. A batch
that is replayed in other pieces may store a record twice, never lose one; its sequence number tells.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from consumers.telemetry import Rejected

LOGGED_DATA_MAX_CHARS = 400
LOGGED_RECORDS_MAX = 100


def log(event: str, **fields: Any) -> None:
    """One line of JSON on stdout, where Lambda collects logs."""
    print(json.dumps({"event": event, **fields}, separators=(",", ":")), flush=True)


def shard_of(event: Mapping[str, Any]) -> str:
    """The shard of a Kinesis event: windows name it, otherwise the first record's ``eventID`` does."""
    if shard_id := event.get("shardId"):
        return str(shard_id)
    records = event.get("Records") or [{}]
    return str(records[0].get("eventID", "unknown")).partition(":")[0]


def keep(rejected: Sequence[Rejected], shard_id: str) -> None:
    """Store ``rejected`` (not empty) and log how many there were.

    Without a bucket, or when S3 refuses, the records go to the log instead, shortened: a record that is not
    telemetry must not stop a shard, whatever else is wrong, and the stream still has it under its sequence number.
    """
    bucket = os.environ.get("REJECTED_BUCKET", "")
    key = f"rejected/{shard_id}/{rejected[0].sequence_number}.jsonl.gz"
    if bucket:
        try:
            _s3().put_object(
                Bucket=bucket,
                Key=key,
                Body=_body(rejected),
                ContentType="application/gzip",
            )
        except (ClientError, BotoCoreError) as error:
            _log_records(rejected, shard_id, f"s3://{bucket}/{key}: {error}")
        else:
            reasons: dict[str, int] = {}
            for record in rejected[:LOGGED_RECORDS_MAX]:
                reasons[record.reason] = reasons.get(record.reason, 0) + 1
            log("rejected", shardId=shard_id, count=len(rejected), object=f"s3://{bucket}/{key}", reasons=reasons)
    else:
        _log_records(rejected, shard_id, "REJECTED_BUCKET is not set")


def _body(rejected: Sequence[Rejected]) -> bytes:
    lines = [
        json.dumps(
            {
                "sequenceNumber": record.sequence_number,
                "partitionKey": record.partition_key,
                "approximateArrivalTimestamp": record.approximate_arrival_timestamp,
                "reason": record.reason,
                "data": record.data,
            },
            separators=(",", ":"),
        )
        for record in rejected
    ]
    # Without a time in the header the same records are the same bytes.
    return gzip.compress(("\n".join(lines) + "\n").encode(), mtime=0)


def _log_records(rejected: Sequence[Rejected], shard_id: str, not_stored: str) -> None:
    log(
        "rejected",
        shardId=shard_id,
        count=len(rejected),
        notStored=not_stored,
        records=[
            {"sequenceNumber": r.sequence_number, "reason": r.reason, "data": r.data[:LOGGED_DATA_MAX_CHARS]}
            for r in rejected[:LOGGED_RECORDS_MAX]
        ],
    )


@cache
def _s3() -> Any:
    """One client a process. Virtual-hosted buckets need DNS that a local endpoint does not have."""
    local = "AWS_ENDPOINT_URL" in os.environ or "AWS_ENDPOINT_URL_S3" in os.environ
    style = "path" if local else "auto"
    return boto3.client("s3", config=Config(s3={"addressing_style": style}, connect_timeout=2, read_timeout=5))
