"""A Kinesis stream by polling: GetShardIterator and GetRecords, which all consumers of a shard share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from consumers.runtime.config import MappingConfig, RuntimeSettings
from consumers.runtime.event import EventBuilder, Record
from consumers.runtime.lineage import ShardInfo
from consumers.runtime.sources.source import Read, told


class KinesisPolling:
    """The stream whose ARN is the mapping's ``stream_arn``."""

    def __init__(self, mapping: MappingConfig, client: Any, settings: RuntimeSettings, clock: Callable[[], float]):
        self._mapping = mapping
        self._client = client
        self._limit = settings.get_records_limit
        self._clock = clock

    def paced(self, settings: RuntimeSettings) -> RuntimeSettings:
        return settings

    def list_shards(self) -> list[ShardInfo]:
        return list_stream_shards(self._client, self._mapping.stream_arn)

    def open(self, shard_id: str, position: Mapping[str, str | float]) -> PollingReader:
        with told():
            answer = self._client.get_shard_iterator(
                StreamARN=self._mapping.stream_arn, ShardId=shard_id, **dict(position)
            )
        events = EventBuilder(self._mapping, shard_id)
        return PollingReader(self._client, events, answer["ShardIterator"], self._limit, self._clock)


class PollingReader:
    """One shard. A throttled read keeps its iterator."""

    def __init__(
        self, client: Any, events: EventBuilder, iterator: str, limit: int, clock: Callable[[], float]
    ) -> None:
        self._client, self._events, self._limit, self._clock = client, events, limit, clock
        self._iterator: str | None = iterator

    def read(self) -> Read:
        began = self._clock()
        with told():
            answer = self._client.get_records(ShardIterator=self._iterator, Limit=self._limit)
        self._iterator = answer.get("NextShardIterator")
        records = [kinesis_record(self._events, record) for record in answer["Records"]]
        return Read(records, int(answer.get("MillisBehindLatest") or 0), began, self._iterator is None)

    def close(self) -> None:
        """There is nothing to close: iterators just expire."""


def kinesis_record(events: EventBuilder, record: Mapping[str, Any]) -> Record:
    """A record of GetRecords or SubscribeToShard as an entry of the event."""
    return events.record(record["SequenceNumber"], record["PartitionKey"], record["Data"], arrival_s(record))


def arrival_s(record: Mapping[str, Any]) -> float:
    """ApproximateArrivalTimestamp, in seconds since the epoch, by whichever parser."""
    arrival = record["ApproximateArrivalTimestamp"]
    return float(arrival.timestamp() if isinstance(arrival, datetime) else arrival)


def list_stream_shards(client: Any, stream_arn: str) -> list[ShardInfo]:
    """All shards of a Kinesis stream, by ListShards. :raises SourceError:"""
    shards: list[ShardInfo] = []
    request: dict[str, Any] = {"StreamARN": stream_arn}
    while True:
        with told():
            page = client.list_shards(**request)
        shards += [_shard_info(shard) for shard in page["Shards"]]
        token = page.get("NextToken")
        if not token:
            return shards
        request = {"NextToken": token}


def _shard_info(shard: Mapping[str, Any]) -> ShardInfo:
    parents = tuple(shard[name] for name in ("ParentShardId", "AdjacentParentShardId") if shard.get(name))
    numbers, keys = shard["SequenceNumberRange"], shard.get("HashKeyRange")
    return ShardInfo(
        shard["ShardId"],
        parents,
        "EndingSequenceNumber" not in numbers,
        numbers.get("StartingSequenceNumber", "0"),
        (int(keys["StartingHashKey"]), int(keys["EndingHashKey"])) if keys else None,
    )
