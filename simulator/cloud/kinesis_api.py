"""Kinesis's operations over the engine: one request in, one answer out.

PutRecords is decoded by a typed msgspec codec, which also turns base64 into bytes; every other operation, and every
request the typed decoder refuses, goes through :mod:`simulator.cloud.request_model`, which finds AWS's words for
what is wrong.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from simulator.cloud import (
    kinesis_consumers,
    kinesis_reads,
    kinesis_settings,
    kinesis_shards,
    kinesis_streams,
    limits,
    request_model,
)
from simulator.cloud.errors import AwsError
from simulator.cloud.fan_out import Subscription
from simulator.cloud.kinesis import Kinesis
from simulator.cloud.kinesis_streams import not_simulated, stream_of
from simulator.cloud.kinesis_wire import JSON_WIRE, Wire
from simulator.cloud.limits import LimitSettings
from simulator.cloud.metrics import Metrics
from simulator.cloud.sequence import parse as parse_sequence
from simulator.cloud.stream import NAMESPACE, PutEntry, PutResult, Stream, key_bytes

TARGET = "Kinesis_20131202"
_max_call_bytes = int(limits.PUT_RECORDS_MAX_BYTES)


class _Entry(PutEntry, gc=False):
    PartitionKey: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    ExplicitHashKey: Annotated[str, msgspec.Meta(pattern=r"^(0|([1-9]\d{0,38}))$")] | None = None


class _PutRecordsRequest(msgspec.Struct):
    Records: Annotated[list[_Entry], msgspec.Meta(min_length=1, max_length=500)]
    StreamName: str | None = None
    StreamARN: str | None = None
    DryRun: bool = False


class _PutRecordsAnswer(msgspec.Struct):
    FailedRecordCount: int
    Records: list[PutResult]
    EncryptionType: str


_decode_put_records = msgspec.json.Decoder(_PutRecordsRequest).decode


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
        self._operations: dict[str, Callable[[Kinesis, dict[str, Any], float], Any]] = {
            **kinesis_streams.OPERATIONS,
            **kinesis_shards.OPERATIONS,
            **kinesis_settings.OPERATIONS,
            **kinesis_consumers.OPERATIONS,
            "PutRecord": _put_record,
            "GetShardIterator": kinesis_reads.get_shard_iterator,
            "GetRecords": kinesis_reads.get_records,
        }

    @property
    def operations(self) -> frozenset[str]:
        """The operations that are simulated."""
        return frozenset(self._operations) | {"PutRecords", "SubscribeToShard"}

    def region(self, name: str) -> Kinesis:
        if name not in self.regions:
            self.regions[name] = Kinesis(name, self.account_id, self.settings, self.metrics)
        return self.regions[name]

    def sweep(self) -> None:
        """Free what retention has ended; to be called once in a while."""
        now = self.clock()
        for kinesis in self.regions.values():
            kinesis.sweep(now)

    def reset(self) -> None:
        """Forget every stream."""
        now = self.clock()
        for kinesis in self.regions.values():
            for name in list(kinesis.streams):
                kinesis.delete_stream(name, now)
        self.regions.clear()

    def handle(self, operation: str, body: bytes, region: str, wire: Wire = JSON_WIRE) -> tuple[int, bytes]:
        """HTTP status and body of the answer. Never raises for anything a client sent."""
        try:
            return 200, self.answer(operation, body, region, wire)
        except AwsError as error:
            return error.status, wire.error(error)

    def answer(self, operation: str, body: bytes, region: str, wire: Wire) -> bytes:
        """The body of a success. :raises AwsError: for everything else."""
        kinesis = self.region(region)
        if operation == "PutRecords":
            return wire.encode(self._put_records(kinesis, body, wire))
        handler = self._operations.get(operation)
        if handler is None:
            raise _unknown(operation)
        request = self._request(operation, body, wire)
        now = self.clock()
        self._admit(kinesis, operation, request, now)
        answer = handler(kinesis, request, now)
        return b"" if answer is None else wire.encode(answer)

    def subscribe(self, body: bytes, region: str, wire: Wire) -> tuple[Stream, str, Subscription]:
        """SubscribeToShard: the stream, the consumer's name, and what is to be pushed. :raises AwsError:"""
        request = self._request("SubscribeToShard", body, wire)
        kinesis = self.region(region)
        now = self.clock()
        self._admit(kinesis, "SubscribeToShard", request, now)
        return kinesis_reads.subscribe(kinesis, request, now)

    def _request(self, operation: str, body: bytes, wire: Wire) -> dict[str, Any]:
        try:
            decoded = wire.decode(body) if body else None
        except ValueError:
            decoded = None
        request = request_model.check("kinesis", operation, decoded)
        if request.get("DryRun"):
            raise not_simulated("DryRun")
        return request

    def _admit(self, kinesis: Kinesis, operation: str, request: dict[str, Any], now: float) -> None:
        kinesis.settle(now)
        arn = request.get("StreamARN") or request.get("ResourceARN") or request.get("ConsumerARN") or ""
        name = request.get("StreamName") or arn.partition("/")[2].partition("/")[0] or None
        kinesis.rates.admit(operation, name, now)

    # -- PutRecords ------------------------------------------------------------------------------------

    def _put_records(self, kinesis: Kinesis, body: bytes, wire: Wire) -> _PutRecordsAnswer:
        began = time.perf_counter()
        request = self._put_records_request(body, wire)
        if request.DryRun:
            raise not_simulated("DryRun")
        now = self.clock()
        stream = kinesis.resolve(request.StreamName, request.StreamARN)
        stream.require_usable(now)
        most = stream.max_record_bytes
        total = 0
        for index, entry in enumerate(request.Records, 1):
            size = len(entry.Data) + key_bytes(entry.PartitionKey)
            if size > most:
                raise _oversize(most, f"records.{index}.member.data")
            total += size
        if total > _max_call_bytes:
            raise AwsError("InvalidArgumentException", f"Records size exceeds {_max_call_bytes // limits.MIB} MB limit")
        results = stream.put_records(request.Records, now)
        _record_latency(stream, "PutRecords", began, now)
        failed = sum(result.ErrorCode is not None for result in results)
        return _PutRecordsAnswer(failed, results, "NONE" if stream.encryption_key is None else "KMS")

    def _put_records_request(self, body: bytes, wire: Wire) -> _PutRecordsRequest:
        try:
            if wire is JSON_WIRE:
                return _decode_put_records(body)
            return msgspec.convert(wire.decode(body), _PutRecordsRequest, builtin_types=(bytes,))
        except (msgspec.MsgspecError, ValueError, RecursionError):
            # The slow path either names what is wrong or finds that only our stricter decoder minded.
            checked = self._request("PutRecords", body, wire)
        for index, entry in enumerate(checked["Records"], 1):
            _require_key(entry, f"records.{index}.member.partitionKey")
        return msgspec.convert(
            {name: checked[name] for name in ("Records", "StreamName", "StreamARN") if name in checked},
            _PutRecordsRequest,
            builtin_types=(bytes,),
        )


def _record_latency(stream: Stream, operation: str, began: float, now: float) -> None:
    """``<operation>.Latency`` in ms, of the successful call that began at ``began`` (``time.perf_counter``)."""
    elapsed_ms = (time.perf_counter() - began) * 1000
    stream.metrics.record(NAMESPACE, f"{operation}.Latency", (("StreamName", stream.name),), elapsed_ms, now)


# -- PutRecord -----------------------------------------------------------------------------------------


def _put_record(kinesis: Kinesis, request: dict[str, Any], now: float) -> dict[str, Any]:
    began = time.perf_counter()
    _require_key(request, "partitionKey")
    stream = stream_of(kinesis, request)
    stream.require_usable(now)
    size = len(request["Data"]) + key_bytes(request["PartitionKey"])
    if size > stream.max_record_bytes:
        raise _oversize(stream.max_record_bytes, "data")
    if "SequenceNumberForOrdering" in request:
        _require_order(stream, request["SequenceNumberForOrdering"], now)
    entry = PutEntry(request["Data"], request["PartitionKey"], request.get("ExplicitHashKey"))
    (result,) = stream.put_records([entry], now, "PutRecord")
    if result.ErrorCode is not None:
        raise AwsError(result.ErrorCode, result.ErrorMessage)
    _record_latency(stream, "PutRecord", began, now)
    encryption = "NONE" if stream.encryption_key is None else "KMS"
    return {"ShardId": result.ShardId, "SequenceNumber": result.SequenceNumber, "EncryptionType": encryption}


def _require_order(stream: Stream, number: str, now: float) -> None:
    """SequenceNumberForOrdering must be of the past; every later record of a shard is numbered higher anyway.

    :raises AwsError: InvalidArgumentException.
    """
    try:
        is_past = parse_sequence(number).time_s <= now
    except ValueError:
        is_past = False
    if not is_past:
        raise AwsError(
            "InvalidArgumentException",
            f"ExclusiveMinimumSequenceNumber {number} used in PutRecord on stream {stream.name} under account "
            f"{stream.account_id} is invalid.",
        )


# -- errors --------------------------------------------------------------------------------------------


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


def _oversize(most: int, path: str) -> AwsError:
    return AwsError(
        "ValidationException",
        f"1 validation error detected: Value at '{path}' failed to satisfy constraint: "
        f"Member must have length less than or equal to {most}",
    )
