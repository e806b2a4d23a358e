"""Kinesis's wire protocol (JSON 1.1) over the engine: one request in, one answer out.

The two calls of the hot path are decoded and encoded by typed msgspec codecs, which also turn base64 into bytes
and back; every other operation, and every request the typed decoder refuses, goes through
:mod:`simulator.cloud.request_model`, which finds AWS's words for what is wrong.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from simulator.cloud import iterators, limits, request_model
from simulator.cloud.errors import AwsError
from simulator.cloud.iterators import Iterator
from simulator.cloud.kinesis import NAMESPACE, Kinesis, PutEntry, PutResult, Stream, key_bytes
from simulator.cloud.kinesis_control import OPERATIONS, child_shard, stream_of
from simulator.cloud.limits import LimitSettings
from simulator.cloud.metrics import Metrics
from simulator.cloud.sequence import parse as parse_sequence
from simulator.cloud.shard import Shard

TARGET = "Kinesis_20131202"
CONTENT_TYPE = "application/x-amz-json-1.1"
_DAY_MS = 86_400_000


class _Entry(PutEntry, gc=False):
    PartitionKey: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    ExplicitHashKey: Annotated[str, msgspec.Meta(pattern=r"^(0|([1-9]\d{0,38}))$")] | None = None


class _PutRecordsRequest(msgspec.Struct):
    Records: Annotated[list[_Entry], msgspec.Meta(min_length=1, max_length=500)]
    StreamName: str | None = None
    StreamARN: str | None = None


class _PutRecordsAnswer(msgspec.Struct):
    FailedRecordCount: int
    Records: list[PutResult]
    EncryptionType: str = "NONE"


class _Record(msgspec.Struct, gc=False):
    SequenceNumber: str
    ApproximateArrivalTimestamp: float
    Data: bytes
    PartitionKey: str
    EncryptionType: str = "NONE"


class _GetRecordsAnswer(msgspec.Struct, omit_defaults=True):
    Records: list[_Record]
    MillisBehindLatest: int
    NextShardIterator: str | None = None
    ChildShards: list[dict[str, Any]] | None = None


_decode_put_records = msgspec.json.Decoder(_PutRecordsRequest).decode
_encode = msgspec.json.Encoder().encode
_max_record_bytes = int(limits.RECORD_MAX_BYTES)
_max_call_bytes = int(limits.PUT_RECORDS_MAX_BYTES)


class KinesisApi:
    """Answers Kinesis requests for every region of one account."""

    def __init__(
        self,
        account_id: str,
        settings: LimitSettings,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.account_id = account_id
        self.settings = settings
        self.metrics = metrics
        self.clock = clock
        self.regions: dict[str, Kinesis] = {}
        self._operations: dict[str, Callable[[Kinesis, dict[str, Any], float], dict[str, Any] | bytes | None]] = {
            **OPERATIONS,
            "PutRecord": self._put_record,
            "GetShardIterator": self._get_shard_iterator,
            "GetRecords": self._get_records,
        }

    @property
    def operations(self) -> frozenset[str]:
        """The operations that are simulated."""
        return frozenset(self._operations) | {"PutRecords"}

    def region(self, name: str) -> Kinesis:
        if name not in self.regions:
            self.regions[name] = Kinesis(name, self.account_id, self.settings, self.metrics)
        return self.regions[name]

    def handle(self, operation: str, body: bytes, region: str) -> tuple[int, bytes]:
        """HTTP status and body of the answer. Never raises for anything a client sent."""
        try:
            if operation == "PutRecords":
                return 200, self._put_records(self.region(region), body)
            handler = self._operations.get(operation)
            if handler is None:
                raise _unknown(operation)
            request = request_model.parse("kinesis", operation, body)
            answer = handler(self.region(region), request, self.clock())
            return 200, answer if isinstance(answer, bytes) else _encode(answer) if answer is not None else b""
        except AwsError as error:
            return error.status, error_body(error)

    # -- PutRecords, PutRecord -------------------------------------------------------------------------

    def _put_records(self, kinesis: Kinesis, body: bytes) -> bytes:
        try:
            request = _decode_put_records(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            # The slow path either names what is wrong or finds that only our stricter decoder minded.
            checked = request_model.parse("kinesis", "PutRecords", body)
            for index, entry in enumerate(checked["Records"], 1):
                _require_key(entry, f"records.{index}.member.partitionKey")
            request = msgspec.convert(
                {name: checked[name] for name in ("Records", "StreamName", "StreamARN") if name in checked},
                _PutRecordsRequest,
            )
        stream = kinesis.resolve(request.StreamName, request.StreamARN)
        entries = request.Records
        total = 0
        for index, entry in enumerate(entries, 1):
            size = len(entry.Data) + key_bytes(entry.PartitionKey)
            if size > _max_record_bytes:
                raise _oversize(size, f"records.{index}.member.data")
            total += size
        if total > _max_call_bytes:
            raise AwsError("InvalidArgumentException", f"Records size exceeds {_max_call_bytes // limits.MIB} MB limit")
        results = stream.put_records(entries, self.clock())
        failed = sum(result.ErrorCode is not None for result in results)
        return _encode(_PutRecordsAnswer(failed, results))

    def _put_record(self, kinesis: Kinesis, request: dict[str, Any], now: float) -> dict[str, Any]:
        _require_key(request, "partitionKey")
        size = len(request["Data"]) + key_bytes(request["PartitionKey"])
        if size > _max_record_bytes:
            raise _oversize(size, "data")
        stream = stream_of(kinesis, request)
        entry = PutEntry(request["Data"], request["PartitionKey"], request.get("ExplicitHashKey"))
        (result,) = stream.put_records([entry], now, "PutRecord")
        if result.ErrorCode is not None:
            raise AwsError(result.ErrorCode, result.ErrorMessage)
        return {"ShardId": result.ShardId, "SequenceNumber": result.SequenceNumber, "EncryptionType": "NONE"}

    # -- reading ---------------------------------------------------------------------------------------

    def _get_shard_iterator(self, kinesis: Kinesis, request: dict[str, Any], now: float) -> dict[str, Any]:
        stream = stream_of(kinesis, request)
        stream.settle(now)
        shard = stream.shard(request["ShardId"])
        position = self._starting_position(stream, shard, request, now)
        return {"ShardIterator": self._iterator(stream, shard, position, now)}

    def _starting_position(self, stream: Stream, shard: Shard, request: dict[str, Any], now: float) -> int:
        kind = request["ShardIteratorType"]
        number = request.get("StartingSequenceNumber")
        if kind in ("AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER") and number is not None:
            seq_ix = self._seq_ix(stream, shard, number)
            # seqIx 0 is the start of the shard; record positions are seqIx - 1.
            return max(seq_ix - 1, 0) if kind == "AT_SEQUENCE_NUMBER" or seq_ix == 0 else min(seq_ix, shard.log.end)
        if kind == "AT_TIMESTAMP" and number is None:
            if "Timestamp" not in request:
                raise AwsError(
                    "InvalidArgumentException",
                    "Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. "
                    "Current request has no timestamp parameter.",
                )
            if request["Timestamp"] > now + 1:
                raise AwsError(
                    "InvalidArgumentException",
                    f"The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. "
                    f"timestampInMillis: {int(request['Timestamp'] * 1000)}, "
                    f"currentTimestampInMillis: {int(now * 1000)}",
                )
            return shard.log.position_at(round(request["Timestamp"] * 1000))
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

    def _seq_ix(self, stream: Stream, shard: Shard, number: str) -> int:
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
                f"Invalid StartingSequenceNumber. It encodes shardId-{fields.shard_index:012d}, "
                f"while it was used in a call to a shard with {shard.shard_id}",
            )
        if fields.created_s != shard.created_s:
            raise AwsError("InvalidArgumentException", f"{used} because it did not come from this stream.")
        return min(fields.seq_ix, shard.log.end + 1)

    def _get_records(self, kinesis: Kinesis, request: dict[str, Any], now: float) -> bytes:
        iterator = iterators.read(request["ShardIterator"])
        if iterator is None:
            raise AwsError("InvalidArgumentException", "Invalid ShardIterator.")
        stream = kinesis.stream(iterator.stream)
        if int(stream.created_at * 1000) != iterator.created_ms:
            raise AwsError("InvalidArgumentException", "Invalid ShardIterator.")
        if (now - iterator.issued_at) * 1000 > limits.ITERATOR_LIFETIME.value:
            raise AwsError(
                "ExpiredIteratorException",
                f"Iterator expired. The iterator was created at time {_java_date(iterator.issued_at)} while right "
                f"now it is {_java_date(now)} which is further in the future than the tolerated delay of "
                f"{int(limits.ITERATOR_LIFETIME)} milliseconds.",
            )
        stream.settle(now)
        shard = stream.shards[iterator.shard_index]
        dimensions = (("StreamName", stream.name),)
        shard_dimensions = (*dimensions, ("ShardId", shard.shard_id))
        if not shard.admit_read(now):
            for dims in (dimensions, shard_dimensions):
                self.metrics.record(NAMESPACE, "ReadProvisionedThroughputExceeded", dims, 1, now)
            if shard.read_bytes.tokens < 0:
                self.metrics.record("Alleycat/Kinesis", "RefusedReadsByBytes", shard_dimensions, 1, now)
            raise AwsError(
                "ProvisionedThroughputExceededException",
                f"Rate exceeded for shard {shard.shard_id} in stream {stream.name} under account {stream.account_id}.",
            )
        start = max(iterator.position, shard.horizon(stream.retention_hours, now))
        limit = request.get("Limit", int(limits.GET_RECORDS_MAX_RECORDS))
        records = []
        size = 0
        base = shard.sequence_number
        for position, data, key, arrival_ms in shard.log.read(start, limit, int(limits.GET_RECORDS_MAX_BYTES)):
            size += len(data) + key_bytes(key)
            records.append(_Record(base(position, arrival_ms), arrival_ms / 1000, data, key))
        shard.charge_read(size, now)
        end = start + len(records)
        answer = _GetRecordsAnswer(records, self._millis_behind(shard, end, now))
        if shard.is_open or end < shard.log.end:
            answer.NextShardIterator = self._iterator(stream, shard, end, now)
        else:
            answer.ChildShards = [child_shard(child) for child in shard.children]
        age = int(now * 1000) - int(records[-1].ApproximateArrivalTimestamp * 1000) if answer.MillisBehindLatest else 0
        self._record_get(dimensions, shard_dimensions, len(records), size, age, now)
        return _encode(answer)

    def _record_get(self, stream: Any, shard: Any, records: int, size: int, age_ms: int, now: float) -> None:
        record = self.metrics.record
        record(NAMESPACE, "GetRecords.Success", stream, 1, now)
        record(NAMESPACE, "GetRecords.Records", stream, records, now)
        record(NAMESPACE, "GetRecords.Bytes", stream, size, now)
        record(NAMESPACE, "GetRecords.IteratorAgeMilliseconds", stream, age_ms, now)
        record(NAMESPACE, "OutgoingRecords", shard, records, now)
        record(NAMESPACE, "OutgoingBytes", shard, size, now)
        record(NAMESPACE, "IteratorAgeMilliseconds", shard, age_ms, now)
        record("Alleycat/Kinesis", "GetRecordsCalls", shard, 1, now)

    def _millis_behind(self, shard: Shard, end: int, now: float) -> int:
        """0 at the tip; otherwise how long ago the next unread record arrived (at least 1)."""
        if end >= shard.log.end:
            return 0
        return max(1, int(now * 1000) - shard.log.arrival_ms_at(end))

    def _iterator(self, stream: Stream, shard: Shard, position: int, now: float) -> str:
        return iterators.issue(Iterator(stream.name, int(stream.created_at * 1000), shard.index, position, now))


def error_body(error: AwsError) -> bytes:
    """``{"__type", "message"}``; a message of None is left out, as AWS does for SerializationException."""
    body = {"__type": error.code}
    if error.message is not None:
        body["message"] = error.message
    return _encode(body)


def _unknown(operation: str) -> AwsError:
    if operation in request_model.operations("kinesis"):
        return AwsError("UnknownOperationException", f"{operation} is not implemented by the embedded cloud.")
    return AwsError("UnknownOperationException", None)


def _require_key(entry: dict[str, Any], path: str) -> None:
    # Optional in the model since on-demand streams may distribute records themselves; a provisioned one needs it.
    if "PartitionKey" not in entry:
        raise AwsError(
            "ValidationException",
            f"1 validation error detected: Value null at '{path}' failed to satisfy constraint: "
            "Member must not be null",
        )


def _oversize(size: int, path: str) -> AwsError:
    return AwsError(
        "ValidationException",
        f"1 validation error detected: Value at '{path}' failed to satisfy constraint: "
        f"Member must have length less than or equal to {_max_record_bytes} (data and partition key: {size})",
    )


def _java_date(at: float) -> str:
    return time.strftime("%a %b %d %H:%M:%S UTC %Y", time.gmtime(at))
