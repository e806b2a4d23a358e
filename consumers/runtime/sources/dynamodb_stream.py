"""A table's stream by polling, four times a second a shard, as Lambda does.

It differs from Kinesis in four things. A read takes 1,000 records or 1 MB at most. Answers do not say how far behind
they are: an empty one is taken for the tip, and otherwise the age of the last record is told. There is no position
by time: what LATEST stood for is kept as a time, and a reader that must go back to it reads from the oldest record
and leaves out what was written before. And records older than 24 hours are refused rather than skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from math import floor
from typing import Any

from consumers.runtime.config import MappingConfig, RuntimeSettings
from consumers.runtime.event import EventBuilder, Record
from consumers.runtime.lineage import ShardInfo
from consumers.runtime.sources.source import Read, told

GET_RECORDS_MAX_RECORDS = 1000
"""GetRecords of DynamoDB Streams returns 1,000 records or 1 MB (its API reference)."""


class DynamoDBStream:
    """The stream whose ARN (``...:table/NAME/stream/LABEL``) is the mapping's ``stream_arn``."""

    def __init__(self, mapping: MappingConfig, client: Any, settings: RuntimeSettings, clock: Callable[[], float]):
        self._mapping = mapping
        self._client = client
        self._limit = min(settings.get_records_limit, GET_RECORDS_MAX_RECORDS)
        self._clock = clock

    def paced(self, settings: RuntimeSettings) -> RuntimeSettings:
        pace_s = settings.dynamodb_poll_interval_s
        return replace(
            settings,
            poll_interval_s=pace_s,
            catch_up_interval_s=min(settings.catch_up_interval_s, pace_s),
            get_records_limit=self._limit,
        )

    def list_shards(self) -> list[ShardInfo]:
        shards: list[ShardInfo] = []
        request: dict[str, Any] = {"StreamArn": self._mapping.stream_arn}
        while True:
            with told():
                page = self._client.describe_stream(**request)["StreamDescription"]
            shards += [_shard_info(shard) for shard in page.get("Shards", ())]
            last = page.get("LastEvaluatedShardId")
            if not last:
                return shards
            request["ExclusiveStartShardId"] = last

    def open(self, shard_id: str, position: Mapping[str, str | float]) -> DynamoDBReader:
        request: dict[str, Any] = {"ShardIteratorType": position["ShardIteratorType"]}
        since_s = 0
        if request["ShardIteratorType"] == "AT_TIMESTAMP":
            # Times of the stream are in whole seconds.
            request, since_s = {"ShardIteratorType": "TRIM_HORIZON"}, floor(float(position["Timestamp"]))
        elif "StartingSequenceNumber" in position:
            request["SequenceNumber"] = position["StartingSequenceNumber"]
        with told():
            answer = self._client.get_shard_iterator(StreamArn=self._mapping.stream_arn, ShardId=shard_id, **request)
        events = EventBuilder(self._mapping, shard_id)
        return DynamoDBReader(self._client, events, answer["ShardIterator"], self._limit, since_s, self._clock)


class DynamoDBReader:
    """One shard; records written before ``since_s`` (seconds since the epoch) are left out."""

    def __init__(
        self,
        client: Any,
        events: EventBuilder,
        iterator: str,
        limit: int,
        since_s: int,
        clock: Callable[[], float],
    ) -> None:
        self._client, self._events, self._limit, self._clock = client, events, limit, clock
        self._iterator: str | None = iterator
        self._since_s = since_s

    def read(self) -> Read:
        began = self._clock()
        with told():
            answer = self._client.get_records(ShardIterator=self._iterator, Limit=self._limit)
        self._iterator = answer.get("NextShardIterator")
        found = [self._record(record) for record in answer["Records"]]
        behind_ms = max(1, int((began - found[-1].arrival_s) * 1000)) if found else 0
        records = [record for record in found if record.arrival_s >= self._since_s]
        return Read(records, behind_ms, began, self._iterator is None)

    def close(self) -> None:
        """There is nothing to close: iterators just expire."""

    def _record(self, record: Mapping[str, Any]) -> Record:
        created = record["dynamodb"]["ApproximateCreationDateTime"]
        return self._events.dynamodb_record(
            record, created.timestamp() if isinstance(created, datetime) else float(created)
        )


def _shard_info(shard: Mapping[str, Any]) -> ShardInfo:
    parent = shard.get("ParentShardId")
    numbers = shard.get("SequenceNumberRange", {})
    return ShardInfo(
        shard["ShardId"],
        (parent,) if parent else (),
        "EndingSequenceNumber" not in numbers,
        numbers.get("StartingSequenceNumber", "0"),
    )
