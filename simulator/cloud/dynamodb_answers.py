"""DynamoDB's answers: the wire form, the errors in AWS's words, ``ConsumedCapacity``, and the metrics.

Shapes and texts are botocore's model and the AWS documentation's, as far as they are not the store's.
"""

from __future__ import annotations

import base64
import binascii
import os
from dataclasses import dataclass
from typing import Any

import orjson

from simulator.cloud.dynamodb import Admission
from simulator.cloud.dynamodb_costs import Cost, TableSpec
from simulator.cloud.metrics import Dimensions, Metrics
from simulator.cloud.store import table_name_of

ERRORS = "com.amazonaws.dynamodb.v20120810#"
FRONT_END_ERRORS = "com.amazon.coral.service#"
_FRONT_END = {"SerializationException", "UnknownOperationException"}


@dataclass(frozen=True, slots=True)
class Response:
    """One answer as HTTP carries it; ``content-length`` is the server's to add."""

    status: int
    headers: dict[str, str]
    body: bytes


def respond(status: int, body: bytes) -> Response:
    """``body`` with the headers that DynamoDB sends, its CRC among them."""
    if status == 400 and b'"__type"' in body and b"#" not in body.partition(b",")[0]:
        # Some of the store's errors come without their namespace.
        told = orjson.loads(body)
        body = orjson.dumps({**told, "__type": ERRORS + told["__type"]}) if "#" not in told["__type"] else body
    headers = {
        "content-type": "application/x-amz-json-1.0",
        "x-amzn-requestid": base64.b32encode(os.urandom(33))[:52].decode(),
        "x-amz-crc32": str(binascii.crc32(body)),
    }
    if status >= 400:
        headers["x-amzn-errortype"] = error_code(body)
    return Response(status, headers, body)


def error_body(code: str, message: str | None, **members: Any) -> bytes:
    """An exception's JSON; ``members`` are those it has besides ``message``."""
    namespace = FRONT_END_ERRORS if code in _FRONT_END else ERRORS
    return orjson.dumps({"__type": namespace + code, "message": message, **members})


def throttled_body(admission: Admission) -> bytes:
    """The exception of a table or index that cannot pay. The two exceptions spell the member differently."""
    reasons = [{"reason": why.reason, "resource": why.resource} for why in admission.throttled_by]
    member = "throttlingReasons" if admission.on_demand else "ThrottlingReasons"
    return error_body(admission.exception, admission.message, **{member: reasons})


def cancelled_body(refusals: list[Admission | None]) -> bytes:
    """A transaction that capacity cancelled: per item what throttled it, ``None`` for one not to blame."""
    codes = [
        "None" if one is None else "ThrottlingError" if one.on_demand else "ProvisionedThroughputExceeded"
        for one in refusals
    ]
    reasons = [
        {"Code": code} if one is None else {"Code": code, "Message": one.message}
        for code, one in zip(codes, refusals, strict=True)
    ]
    told = "Transaction cancelled, please refer cancellation reasons for specific reasons "
    told += f"[{', '.join(codes)}]"
    body = {"__type": f"{ERRORS}TransactionCanceledException", "Message": told}
    return orjson.dumps({**body, "CancellationReasons": reasons})


def error_code(body: bytes) -> str:
    """The short name of the exception in an error's ``body``, empty when there is none."""
    try:
        return str(orjson.loads(body).get("__type", "")).rpartition("#")[2]
    except (orjson.JSONDecodeError, AttributeError):
        return ""


def consumed_capacity(spec: TableSpec, cost: Cost, detail: str, transaction: str = "") -> dict[str, Any] | None:
    """``ConsumedCapacity`` of one table at ``detail`` (NONE, TOTAL, INDEXES); ``None`` for NONE.

    ``transaction`` is ``Read`` or ``Write`` for transactions, which tell their units under that name too.
    """
    if detail == "NONE":
        return None

    def units(amount: float) -> dict[str, float]:
        told = {"CapacityUnits": amount}
        if transaction:
            told[f"{transaction}CapacityUnits"] = amount
        return told

    told: dict[str, Any] = {"TableName": spec.name, **units(cost.total_units)}
    if detail == "INDEXES":
        told["Table"] = units(cost.item_units)
        if cost.local:
            told["LocalSecondaryIndexes"] = {name: units(amount) for name, amount in cost.local.items()}
        if cost.global_:
            told["GlobalSecondaryIndexes"] = {name: units(amount) for name, amount in cost.global_.items()}
    return told


def with_capacity(body: bytes, consumed: Any | None) -> bytes:
    """A success's ``body`` with our ``ConsumedCapacity`` in place of the store's guess."""
    if consumed is None and b'"ConsumedCapacity"' not in body:
        return body
    answer = orjson.loads(body)
    answer.pop("ConsumedCapacity", None)
    if consumed is not None:
        answer["ConsumedCapacity"] = consumed
    return orjson.dumps(answer)


# How CloudWatch names the limits of ThrottlingReasons.
_EVENT_NAMES = {
    "ProvisionedThroughput": "ProvisionedThroughput",
    "KeyRangeThroughput": "KeyRangeThroughput",
    "MaxOnDemandThroughput": "MaxOnDemand",
    "AccountLimit": "AccountLimit",
}


_NO_USER_ERRORS = {
    "ConditionalCheckFailedException",
    "ProvisionedThroughputExceededException",
    "ThrottlingException",
}


class CapacityMetrics:
    """Records what CloudWatch's ``AWS/DynamoDB`` shows, under its names. ``direction`` is Read or Write."""

    namespace = "AWS/DynamoDB"

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def _record(self, name: str, dimensions: Dimensions, value: float, now: float) -> None:
        self._metrics.record(self.namespace, name, dimensions, value, now)

    def consumed(self, direction: str, spec: TableSpec, cost: Cost, now: float) -> None:
        """The table's own units (local indexes among them) and each global index's."""
        name = f"Consumed{direction}CapacityUnits"
        if cost.table_units:
            self._record(name, _dimensions(spec.name), cost.table_units, now)
        for index_name, units in cost.global_.items():
            self._record(name, _dimensions(spec.name, index_name), units, now)

    def throttled(self, direction: str, spec: TableSpec, admission: Admission, now: float) -> None:
        """One throttle event on each resource that refused, by both of CloudWatch's names for it."""
        for reason in admission.throttled_by:
            dimensions = _dimensions(spec.name, reason.index_name)
            self._record(f"{direction}ThrottleEvents", dimensions, 1, now)
            self._record(f"{direction}{_EVENT_NAMES[reason.limit]}ThrottleEvents", dimensions, 1, now)

    def throttled_request(self, table_name: str, operation: str, now: float) -> None:
        """One a request, however many events; a batch counts when all of it was throttled."""
        dimensions = (("TableName", table_name), ("Operation", operation))
        self._record("ThrottledRequests", dimensions, 1, now)

    def failed_condition(self, table_name: str, now: float) -> None:
        self._record("ConditionalCheckFailedRequests", _dimensions(table_name), 1, now)

    def answered(self, operation: str, params: Any, answer: Response, latency_ms: float, now: float) -> None:
        """What every request leaves: its latency when it succeeded, the items it returned, an error of the user's."""
        if answer.status != 200:
            # "Most user errors" (CAH metrics-dimensions): neither throttling nor a failed condition.
            if answer.status == 400 and error_code(answer.body) not in _NO_USER_ERRORS:
                self._record("UserErrors", (), 1, now)
            return
        name = params.get("TableName")
        if isinstance(name, str):
            dimensions = (("TableName", table_name_of(name)), ("Operation", operation))
            self._record("SuccessfulRequestLatency", dimensions, latency_ms, now)
            if operation in ("Query", "Scan"):
                self._record("ReturnedItemCount", dimensions, orjson.loads(answer.body).get("Count", 0), now)

    def provisioned(self, spec: TableSpec, now: float) -> None:
        """What is provisioned, told when it is set."""
        resources = [(None, spec.throughput), *((index.name, index.throughput) for index in spec.global_indexes)]
        for index_name, throughput in resources:
            if throughput is None or not throughput.write_units:
                continue
            dimensions = _dimensions(spec.name, index_name)
            self._record("ProvisionedReadCapacityUnits", dimensions, throughput.read_units, now)
            self._record("ProvisionedWriteCapacityUnits", dimensions, throughput.write_units, now)


def _dimensions(table_name: str, index_name: str | None = None) -> Dimensions:
    if index_name is None:
        return (("TableName", table_name),)
    return (("TableName", table_name), ("GlobalSecondaryIndexName", index_name))
