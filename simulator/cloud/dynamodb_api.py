"""The DynamoDB front: one request in, one answer out.

Semantics and texts are the store's (:mod:`simulator.cloud.store`, in practice moto), capacity is ours
(:mod:`simulator.cloud.dynamodb`). A write is staged, priced by the images before and after, admitted or
refused, and only then made real, so a throttled write changes no item and leaves no stream record. A read
costs by what it evaluated. Validation errors of the store cost nothing; a failed condition costs the item it
looked at.

Control operations pass to the store, and keep the tables' buckets in step. What is neither priced nor
throttled here: PartiQL, backups, imports and exports.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from simulator.cloud import limits
from simulator.cloud.auto_scaling import ScalingPolicy
from simulator.cloud.dynamodb import Admission, ResourceCapacity, TableCapacity
from simulator.cloud.dynamodb_answers import (
    CapacityMetrics,
    Response,
    consumed_capacity,
    error_body,
    error_code,
    respond,
    throttled_body,
    with_capacity,
)
from simulator.cloud.dynamodb_batches import Batches
from simulator.cloud.dynamodb_costs import Cost, TableSpec, Throughput, failed_condition_cost, write_cost
from simulator.cloud.dynamodb_item_rules import check_key, check_size, check_values
from simulator.cloud.dynamodb_partitions import Touches
from simulator.cloud.dynamodb_placement import item_touches, query_touches, write_touches
from simulator.cloud.dynamodb_requests import Call, as_item, as_object, as_text, check_request
from simulator.cloud.dynamodb_streams_api import DynamoDBStreamsApi
from simulator.cloud.dynamodb_tables import Tables
from simulator.cloud.errors import AwsError
from simulator.cloud.item_size import ItemFormatError, read_units
from simulator.cloud.limits import LimitSettings
from simulator.cloud.metrics import Metrics
from simulator.cloud.store import Store, Target

PARTIQL = ("ExecuteStatement", "BatchExecuteStatement", "ExecuteTransaction")


class DynamoDBApi:
    """DynamoDB on ``store``, with the limits of ``settings``; ``clock`` gives seconds since the epoch.

    Synchronous; calls from several threads are served one after the other.
    """

    def __init__(self, store: Store, *, settings: LimitSettings, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._store = store
        self._settings = settings
        self._metrics = CapacityMetrics(metrics)
        self._clock = clock
        self._lock = threading.Lock()
        self._tables = Tables(store, settings, self._metrics)
        self._streams = DynamoDBStreamsApi(self._tables.streams, clock)
        batches = Batches(store, self._tables, self._metrics)
        self._handlers: dict[str, Callable[[Call], Response]] = {
            "PutItem": self._write,
            "UpdateItem": self._write,
            "DeleteItem": self._write,
            "GetItem": self._read,
            "Query": self._read,
            "Scan": self._read,
            "BatchWriteItem": batches.batch_write,
            "BatchGetItem": batches.batch_get,
            "TransactWriteItems": batches.transact_write,
            "TransactGetItems": batches.transact_get,
            "CreateTable": self._create_or_update_table,
            "UpdateTable": self._create_or_update_table,
            "DeleteTable": self._delete_table,
            "DescribeTable": self._describe_table,
            "DescribeLimits": self._describe_limits,
        }

    def handle(
        self, target_operation: str, body: bytes, region: str, headers: Mapping[str, str] | None = None
    ) -> Response:
        """Answer one request.

        ``target_operation`` is the operation's name or the whole ``X-Amz-Target``; ``body`` its JSON. Never
        raises for what a client sent: errors are answers with status 400 or 500. ``headers`` are not needed.
        """
        operation = target_operation.rpartition(".")[2]
        with self._lock:
            now, began = self._clock(), time.perf_counter()
            params: dict[str, Any] = {}
            try:
                params = as_object(orjson.loads(body or b"{}"))
                check_request(operation, params)
                call = Call(operation, params, body or b"{}", region, now)
                answer = self._handlers.get(operation, self._pass)(call)
            except orjson.JSONDecodeError:
                answer = respond(400, error_body("SerializationException", "The body is not JSON"))
            except ItemFormatError as error:
                answer = respond(400, error_body("SerializationException", str(error)))
            except AwsError as error:
                answer = respond(error.status, error_body(error.code, error.message))
            self._metrics.answered(operation, params, answer, (time.perf_counter() - began) * 1000, now)
            return answer

    def handle_streams(self, operation: str, body: bytes, region: str) -> Response:
        """Answer a request to DynamoDB Streams."""
        with self._lock:
            return self._streams.handle(operation, body, region)

    def sweep(self) -> None:
        """Let go what the streams' retention has ended; to be called once in a while."""
        with self._lock:
            self._tables.streams.settle(self._clock())

    def describe_capacity(self, now: float) -> dict[str, list[ResourceCapacity]]:
        """By table ARN, the capacity of the table and of its global indexes: provisioned, saved, at most."""
        with self._lock:
            return self._tables.levels(now)

    def provisioned(self, policy: ScalingPolicy) -> float | None:
        """The units that auto scaling would change; None when there are none to change."""
        throughput = self._throughput(policy)
        return None if throughput is None else policy.units(throughput)

    def scale(self, policy: ScalingPolicy, units: int) -> bool:
        """UpdateTable to ``units``, as auto scaling calls it; False when it was refused (decreases are limited)."""
        throughput = self._throughput(policy)
        if throughput is None:
            return False
        request = policy.update_table(throughput, units)
        return self.handle("UpdateTable", orjson.dumps(request), policy.region).status == 200

    def _throughput(self, policy: ScalingPolicy) -> Throughput | None:
        with self._lock:
            described = self._store.describe_table(policy.table, policy.region)
        return None if described is None else policy.throughput(TableSpec.from_description(described))

    # -- tables ----------------------------------------------------------------------------------------

    def _pass(self, call: Call) -> Response:
        if call.operation in PARTIQL and self._settings.enforced:
            raise AwsError(
                "UnknownOperationException",
                f"{call.operation} is not implemented by the embedded cloud: PartiQL is not priced, so its limits "
                "cannot be enforced. Use the other operations, or start the cloud with --limits off.",
            )
        return respond(*self._store.call(call.operation, call.body, call.region))

    def _create_or_update_table(self, call: Call) -> Response:
        name = as_text(call.params["TableName"])
        before = None
        if call.operation == "UpdateTable":
            before = self._store.describe_table(name, call.region)
        if before is not None:
            spec = TableSpec.from_description(before)
            changes = self._tables.changes(name, call.region)
            changes.check(spec, call.params, call.now, enforced=self._settings.enforced)
        answer = self._store.call(call.operation, call.body, call.region)
        if answer.status != 200:
            return respond(*answer)
        told = orjson.loads(answer.body)
        if before is not None:
            changes.count(spec, call.params, call.now)
        self._tables.set_on_demand(call.params, call.region)
        described = told["TableDescription"] = self._tables.described(told["TableDescription"], call.region, call.now)
        self._tables.keep(TableSpec.from_description(described), call.region, call.now)
        self._tables.streams.follow(described, call.region, call.now)
        return respond(200, orjson.dumps(told))

    def _describe_limits(self, call: Call) -> Response:
        account, table = int(limits.ACCOUNT_UNITS), int(limits.TABLE_MAX_UNITS)
        told = {
            "AccountMaxReadCapacityUnits": account,
            "AccountMaxWriteCapacityUnits": account,
            "TableMaxReadCapacityUnits": table,
            "TableMaxWriteCapacityUnits": table,
        }
        return respond(200, orjson.dumps(told))

    def _describe_table(self, call: Call) -> Response:
        answer = self._store.call(call.operation, call.body, call.region)
        if answer.status != 200:
            return respond(*answer)
        told = orjson.loads(answer.body)
        told["Table"] = self._tables.described(told["Table"], call.region, call.now)
        return respond(200, orjson.dumps(told))

    def _delete_table(self, call: Call) -> Response:
        answer = self._store.call(call.operation, call.body, call.region)
        if answer.status == 200:
            self._tables.forget(call.params["TableName"], call.region, call.now)
            told = orjson.loads(answer.body)
            # The store has let it go already; AWS takes a while.
            told["TableDescription"]["TableStatus"] = "DELETING"
            return respond(200, orjson.dumps(told))
        return respond(*answer)

    # -- single items ----------------------------------------------------------------------------------

    def _write(self, call: Call) -> Response:
        key_of = as_item(call.params["Item" if call.operation == "PutItem" else "Key"])
        check_values(key_of.values())
        check_values(as_object(call.params.get("ExpressionAttributeValues") or {}).values())
        target = Target(as_text(call.params["TableName"]), key_of)
        if call.operation != "PutItem":
            self._check_key(target, call)
        staged = self._store.stage(call.operation, [target], call.body, call.region)
        failed_condition = staged.answer.status != 200
        if failed_condition and error_code(staged.answer.body) != "ConditionalCheckFailedException":
            return respond(*staged.answer)
        table = self._tables.of(target.table, call)
        (change,) = staged.changes
        check_size(change.after, updated=call.operation == "UpdateItem")
        if failed_condition:
            cost = failed_condition_cost(change.before)
        else:
            cost = write_cost(table.spec, change.before, change.after)
        touches = write_touches(table.spec, change.before, change.after, target.key, cost)
        admission = table.admit_write(cost.table_units, cost.global_, call.now, touches)
        if not admission.admitted:
            return self._throttled("Write", table, admission, call)
        self._metrics.consumed("Write", table.spec, cost, call.now)
        if failed_condition:
            self._metrics.failed_condition(table.spec.name, call.now)
            return respond(*staged.answer)
        self._tables.commit([(target.table, change)], call)
        return respond(200, with_capacity(staged.answer.body, consumed_capacity(table.spec, cost, call.detail)))

    def _read(self, call: Call) -> Response:
        key = as_item(call.params["Key"]) if call.operation == "GetItem" else {}
        target = Target(as_text(call.params["TableName"]), key)
        if call.operation == "GetItem":
            self._check_key(target, call)
        read = self._store.read(call.operation, [target], call.body, call.region)
        if read.answer.status != 200:
            return respond(*read.answer)
        table = self._tables.of(target.table, call)
        units = read_units(read.evaluated_bytes[0], bool(call.params.get("ConsistentRead")))
        cost, index_name = _read_cost(table.spec, units, call.params.get("IndexName"))
        if call.operation == "GetItem":
            touches: Touches | None = item_touches(table.spec, key, units)
        else:
            touches = query_touches(table.spec, call.params, index_name, units)
        admission = table.admit_read(units, call.now, index_name, touches)
        if not admission.admitted:
            return self._throttled("Read", table, admission, call)
        self._metrics.consumed("Read", table.spec, cost, call.now)
        return respond(200, with_capacity(read.answer.body, consumed_capacity(table.spec, cost, call.detail)))

    def _check_key(self, target: Target, call: Call) -> None:
        check_key(self._tables.of(target.table, call).spec, target.key)

    def _throttled(self, direction: str, table: TableCapacity, admission: Admission, call: Call) -> Response:
        self._metrics.throttled(direction, table.spec, admission, call.now)
        self._metrics.throttled_request(table.spec.name, call.operation, call.now)
        return respond(400, throttled_body(admission))


def _read_cost(spec: TableSpec, units: float, index_name: str | None) -> tuple[Cost, str | None]:
    """The cost of a read, and the global index that pays for it (``None``: the table)."""
    if index_name is None:
        return Cost(units), None
    if any(index.name == index_name for index in spec.local_indexes):
        return Cost(0.0, local={index_name: units}), None
    return Cost(0.0, global_={index_name: units}), index_name
