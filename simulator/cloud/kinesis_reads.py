"""Reading a shard: GetShardIterator, GetRecords, and where SubscribeToShard begins."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from simulator.cloud import iterators, limits
from simulator.cloud.errors import AwsError
from simulator.cloud.fan_out import Event, Subscription
from simulator.cloud.iterators import Iterator
from simulator.cloud.kinesis import Kinesis
from simulator.cloud.kinesis_consumers import consumer_of
from simulator.cloud.kinesis_streams import child_shard, stream_of
from simulator.cloud.metrics import Dimensions, Metrics
from simulator.cloud.sequence import parse as parse_sequence
from simulator.cloud.shard import Shard, shard_id
from simulator.cloud.shard_log import StoredRecord
from simulator.cloud.stream import NAMESPACE, Stream, key_bytes, shard_index

_FUTURE_S = 1.0
"""A client's clock may be this much ahead in AT_TIMESTAMP."""


class _Record(msgspec.Struct, gc=False, omit_defaults=True):
    SequenceNumber: str
    ApproximateArrivalTimestamp: float
    Data: bytes
    PartitionKey: str
    # AWS leaves it out for streams that are not encrypted (recorded in LocalStack's snapshots).
    EncryptionType: str | None = None


class _GetRecordsAnswer(msgspec.Struct, omit_defaults=True):
    Records: list[_Record]
    MillisBehindLatest: int
    NextShardIterator: str | None = None
    ChildShards: list[dict[str, Any]] | None = None


class _SubscribeToShardEvent(msgspec.Struct, omit_defaults=True):
    Records: list[_Record]
    ContinuationSequenceNumber: str
    MillisBehindLatest: int
    ChildShards: list[dict[str, Any]] | None = None


# -- GetShardIterator ----------------------------------------------------------------------------------


def get_shard_iterator(kinesis: Kinesis, request: dict[str, Any], now: float) -> dict[str, Any]:
    index = shard_index(request["ShardId"])
    try:
        stream = stream_of(kinesis, request)
    except AwsError as error:
        if index is None or error.code != "ResourceNotFoundException":
            raise
        name = request.get("StreamName") or request["StreamARN"].partition("/")[2]
        raise _no_shard(shard_id(index), name, kinesis.account_id) from None
    stream.require_usable(now)
    if index is not None and index >= len(stream.shards):
        raise _no_shard(shard_id(index), stream.name, stream.account_id)
    shard = stream.shard(request["ShardId"])
    position = starting_position(
        stream,
        shard,
        request["ShardIteratorType"],
        request.get("StartingSequenceNumber"),
        request.get("Timestamp"),
        now,
    )
    if stream.settings.enforced and not shard.iterator_calls.take(1, now):
        raise AwsError("ProvisionedThroughputExceededException", stream.rate_exceeded(shard))
    return {"ShardIterator": _iterator(stream, shard, position, now)}


def _no_shard(shard: str, stream: str, account_id: str) -> AwsError:
    return AwsError(
        "ResourceNotFoundException", f"Shard {shard} in stream {stream} under account {account_id} does not exist"
    )


def starting_position(
    stream: Stream, shard: Shard, kind: str, number: str | None, timestamp: float | None, now: float
) -> int:
    """The log position that an iterator type stands for. :raises AwsError: InvalidArgumentException."""
    if kind in ("AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER") and number is not None:
        seq_ix = _seq_ix(stream, shard, number)
        # seqIx 0 is the start of the shard; record positions are seqIx - 1.
        return max(seq_ix - 1, 0) if kind == "AT_SEQUENCE_NUMBER" or seq_ix == 0 else min(seq_ix, shard.log.end)
    if kind == "AT_TIMESTAMP" and number is None:
        if timestamp is None:
            raise AwsError(
                "InvalidArgumentException",
                "Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. "
                "Current request has no timestamp parameter.",
            )
        if timestamp > now + _FUTURE_S:
            raise AwsError(
                "InvalidArgumentException",
                f"The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. "
                f"timestampInMillis: {int(timestamp * 1000)}, currentTimestampInMillis: {int(now * 1000)}",
            )
        return shard.log.position_at(round(timestamp * 1000))
    if kind == "TRIM_HORIZON" and number is None:
        return shard.horizon(stream.retention_hours, now)
    if kind == "LATEST" and number is None:
        return shard.log.end
    also = "and also a StartingSequenceNumber" if number is not None else "and no StartingSequenceNumber"
    raise AwsError(
        "InvalidArgumentException",
        "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or "
        f"(2) TRIM_HORIZON or LATEST and no StartingSequenceNumber. Request specified {kind} {also}.",
    )


def _seq_ix(stream: Stream, shard: Shard, number: str) -> int:
    used = (
        f"StartingSequenceNumber {number} used in GetShardIterator on shard {shard.shard_id} "
        f"in stream {stream.name} under account {stream.account_id} is invalid"
    )
    try:
        fields = parse_sequence(number)
    except ValueError:
        raise AwsError("InvalidArgumentException", f"{used}.") from None
    if fields.shard_index != shard.index:
        raise AwsError(
            "InvalidArgumentException",
            f"Invalid StartingSequenceNumber. It encodes {shard_id(fields.shard_index)}, "
            f"while it was used in a call to a shard with {shard.shard_id}",
        )
    if fields.created_s != shard.created_s:
        raise AwsError("InvalidArgumentException", f"{used} because it did not come from this stream.")
    return min(fields.seq_ix, shard.log.end + 1)


# -- GetRecords ----------------------------------------------------------------------------------------


def get_records(kinesis: Kinesis, request: dict[str, Any], now: float) -> _GetRecordsAnswer:
    began = time.perf_counter()
    stream, iterator = _read_iterator(kinesis, request, now)
    stream.settle(now)
    shard = stream.shards[iterator.shard_index]
    dimensions = (("StreamName", stream.name),)
    shard_dimensions = (*dimensions, ("ShardId", shard.shard_id))
    if not shard.admit_read(now):
        for dims in (dimensions, shard_dimensions):
            kinesis.metrics.record(NAMESPACE, "ReadProvisionedThroughputExceeded", dims, 1, now)
        if shard.read_bytes.tokens < 0:
            kinesis.metrics.record("Alleycat/Kinesis", "RefusedReadsByBytes", shard_dimensions, 1, now)
        raise AwsError("ProvisionedThroughputExceededException", stream.rate_exceeded(shard))
    start = max(iterator.position, shard.horizon(stream.retention_hours, now))
    limit = request.get("Limit", int(limits.GET_RECORDS_MAX_RECORDS))
    stored = list(shard.log.read(start, limit, int(limits.GET_RECORDS_MAX_BYTES)))
    size = sum(len(record.data) + key_bytes(record.partition_key) for record in stored)
    shard.charge_read(size, now)
    end = start + len(stored)
    answer = _GetRecordsAnswer(_records(stream, shard, stored), shard.millis_behind(end, now))
    if shard.is_open or end < shard.log.end:
        answer.NextShardIterator = _iterator(stream, shard, end, now)
    else:
        answer.ChildShards = [child_shard(child) for child in shard.children]
    age_ms = int(now * 1000) - stored[-1].arrival_ms if stored and answer.MillisBehindLatest else 0
    _record_get(kinesis.metrics, dimensions, shard_dimensions, len(stored), size, age_ms, now)
    latency_ms = (time.perf_counter() - began) * 1000
    kinesis.metrics.record(NAMESPACE, "GetRecords.Latency", dimensions, latency_ms, now)
    return answer


def _read_iterator(kinesis: Kinesis, request: dict[str, Any], now: float) -> tuple[Stream, Iterator]:
    """:raises AwsError: InvalidArgumentException, ExpiredIteratorException, ResourceNotFoundException."""
    iterator = iterators.read(request["ShardIterator"])
    if iterator is None:
        raise AwsError("InvalidArgumentException", "Invalid ShardIterator.")
    lifetime_ms = int(limits.ITERATOR_LIFETIME)
    if (now - iterator.issued_at) * 1000 > lifetime_ms:
        raise AwsError(
            "ExpiredIteratorException",
            f"Iterator expired. The iterator was created at time {_java_date(iterator.issued_at)} while right "
            f"now it is {_java_date(now)} which is further in the future than the tolerated delay of "
            f"{lifetime_ms} milliseconds.",
        )
    stream = kinesis.streams.get(iterator.stream)
    if stream is None or stream.status(now) == "DELETING":
        raise _no_shard(shard_id(iterator.shard_index), iterator.stream, kinesis.account_id)
    if int(stream.created_at * 1000) != iterator.created_ms or request.get("StreamARN", stream.arn) != stream.arn:
        raise AwsError("InvalidArgumentException", "Invalid ShardIterator.")
    return stream, iterator


def _records(stream: Stream, shard: Shard, stored: list[StoredRecord]) -> list[_Record]:
    number, encryption = shard.sequence_number, None if stream.encryption_key is None else "KMS"
    return [
        _Record(number(position, arrival_ms), arrival_ms / 1000, data, key, encryption)
        for position, data, key, arrival_ms in stored
    ]


def _record_get(
    metrics: Metrics, stream: Dimensions, shard: Dimensions, records: int, size: int, age_ms: int, now: float
) -> None:
    record = metrics.record
    record(NAMESPACE, "GetRecords.Success", stream, 1, now)
    record(NAMESPACE, "GetRecords.Records", stream, records, now)
    record(NAMESPACE, "GetRecords.Bytes", stream, size, now)
    record(NAMESPACE, "GetRecords.IteratorAgeMilliseconds", stream, age_ms, now)
    record(NAMESPACE, "OutgoingRecords", shard, records, now)
    record(NAMESPACE, "OutgoingBytes", shard, size, now)
    record(NAMESPACE, "IteratorAgeMilliseconds", shard, age_ms, now)
    record("Alleycat/Kinesis", "GetRecordsCalls", shard, 1, now)


def _iterator(stream: Stream, shard: Shard, position: int, now: float) -> str:
    return iterators.issue(Iterator(stream.name, int(stream.created_at * 1000), shard.index, position, now))


def _java_date(at: float) -> str:
    return time.strftime("%a %b %d %H:%M:%S UTC %Y", time.gmtime(at))


# -- SubscribeToShard ----------------------------------------------------------------------------------


def subscribe(kinesis: Kinesis, request: dict[str, Any], now: float) -> tuple[Stream, str, Subscription]:
    """Begin a subscription; also tells the stream and the consumer's name. :raises AwsError: as AWS words it."""
    stream, consumer = consumer_of(kinesis, request)
    stream.require_usable(now)
    shard = stream.shard(request["ShardId"])
    start = request["StartingPosition"]
    position = starting_position(stream, shard, start["Type"], start.get("SequenceNumber"), start.get("Timestamp"), now)
    try:
        subscription = consumer.subscribe(shard, position, now, kinesis.settings)
    except AwsError as error:
        exceeded = float(error.code == "LimitExceededException")
        _record_subscribe(kinesis.metrics, stream.name, consumer.name, 0.0, exceeded, now)
        raise
    _record_subscribe(kinesis.metrics, stream.name, consumer.name, 1.0, 0.0, now)
    return stream, consumer.name, subscription


def _record_subscribe(
    metrics: Metrics, stream: str, consumer: str, success: float, rate_exceeded: float, now: float
) -> None:
    dimensions = (("StreamName", stream), ("ConsumerName", consumer))
    metrics.record(NAMESPACE, "SubscribeToShard.Success", dimensions, success, now)
    metrics.record(NAMESPACE, "SubscribeToShard.RateExceeded", dimensions, rate_exceeded, now)


def subscription_event(
    stream: Stream, consumer: str, subscription: Subscription, event: Event, now: float
) -> _SubscribeToShardEvent:
    """The wire's form of ``event``, counted in the metrics."""
    shard, records = subscription.shard, _records(stream, subscription.shard, event.records)
    size = sum(len(record.data) + key_bytes(record.partition_key) for record in event.records)
    dimensions = (("StreamName", stream.name), ("ConsumerName", consumer))
    record = stream.metrics.record
    record(NAMESPACE, "SubscribeToShardEvent.Success", dimensions, 1, now)
    record(NAMESPACE, "SubscribeToShardEvent.Records", dimensions, len(records), now)
    record(NAMESPACE, "SubscribeToShardEvent.Bytes", dimensions, size, now)
    record(NAMESPACE, "SubscribeToShardEvent.MillisBehindLatest", dimensions, event.millis_behind, now)
    # AFTER_SEQUENCE_NUMBER with this number goes on where the event ended.
    continuation = records[-1].SequenceNumber if records else shard.position_number(event.continuation, now)
    return _SubscribeToShardEvent(
        records,
        continuation,
        event.millis_behind,
        [child_shard(child) for child in shard.children] if event.ended else None,
    )
