"""Batches and transactions: several items in one request, paid one by one or all together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from simulator.cloud import limits
from simulator.cloud.dynamodb import Admission, TableCapacity
from simulator.cloud.dynamodb_answers import (
    CapacityMetrics,
    Response,
    cancelled_body,
    consumed_capacity,
    error_code,
    respond,
    throttled_body,
    with_capacity,
)
from simulator.cloud.dynamodb_costs import Cost, failed_condition_cost, write_cost
from simulator.cloud.dynamodb_item_rules import check_key, check_size, check_values
from simulator.cloud.dynamodb_placement import TouchMap, item_touches, joined, write_touches
from simulator.cloud.dynamodb_requests import Call, Part, as_item, as_list, as_object, as_single, as_text
from simulator.cloud.dynamodb_tables import Tables
from simulator.cloud.errors import AwsError
from simulator.cloud.item_size import item_size, read_units
from simulator.cloud.store import Change, Store, Target, table_name_of


class Bill:
    """What a batch or transaction spent on each table."""

    def __init__(self) -> None:
        self.costs: dict[str, tuple[TableCapacity, Cost]] = {}
        self._touches: dict[str, list[TouchMap]] = {}

    def add(self, table: TableCapacity, cost: Cost, touches: TouchMap | None = None) -> None:
        _, before = self.costs.get(table.spec.arn, (table, Cost(0.0)))
        self.costs[table.spec.arn] = (table, before + cost)
        if touches is not None:
            self._touches.setdefault(table.spec.arn, []).append(touches)

    def touches(self, table: TableCapacity) -> TouchMap:
        """Where on ``table`` all its items lie."""
        return joined(self._touches.get(table.spec.arn, ()))

    def told(self, detail: str, transaction: str = "") -> list[dict[str, Any]] | None:
        """The ``ConsumedCapacity`` list of the answer."""
        if detail == "NONE":
            return None
        entries = (consumed_capacity(table.spec, cost, detail, transaction) for table, cost in self.costs.values())
        return [entry for entry in entries if entry]


class Batches:
    """BatchWriteItem, BatchGetItem, TransactWriteItems and TransactGetItems."""

    def __init__(self, store: Store, tables: Tables, metrics: CapacityMetrics) -> None:
        self._store = store
        self._tables = tables
        self._metrics = metrics

    # -- batches ---------------------------------------------------------------------------------------

    def batch_write(self, call: Call) -> Response:
        """Each item is admitted by itself; what is not goes to ``UnprocessedItems``."""
        parts = []
        for table_name, requests in as_object(call.params["RequestItems"]).items():
            for request in as_list(requests):
                kind, content = as_single(request)
                key_of = as_item(as_object(content).get("Item" if kind == "PutRequest" else "Key"))
                check_values(key_of.values())
                parts.append(Part(table_name, kind, request, Target(table_name, key_of)))
        if len(parts) > limits.BATCH_WRITE_ITEMS.value:
            raise AwsError("ValidationException", "Too many items requested for the BatchWriteItem call")
        staged = self._store.stage(call.operation, [part.target for part in parts], call.body, call.region)
        if staged.answer.status != 200:
            return respond(*staged.answer)
        self._refuse_duplicates(parts, call)
        for change in staged.changes:
            check_size(change.after)
        bill = Bill()
        admitted: list[tuple[str, Change]] = []
        unprocessed: dict[str, list[Any]] = {}
        refusal = None
        for part, change in zip(parts, staged.changes, strict=True):
            table = self._tables.of(part.table, call)
            cost = write_cost(table.spec, change.before, change.after)
            touches = write_touches(table.spec, change.before, change.after, part.target.key, cost)
            admission = table.admit_write(cost.table_units, cost.global_, call.now, touches)
            if admission.admitted:
                admitted.append((part.table, change))
                bill.add(table, cost)
            else:
                refusal = refusal or admission
                unprocessed.setdefault(part.table, []).append(part.request)
                self._metrics.throttled("Write", table.spec, admission, call.now)
        if refusal is not None and not admitted:
            return self._batch_throttled(refusal, unprocessed, call)
        self._tables.commit(admitted, call)
        self._record(bill, "Write", call)
        answer = orjson.loads(staged.answer.body)
        answer["UnprocessedItems"] = unprocessed
        return respond(200, with_capacity(orjson.dumps(answer), bill.told(call.detail)))

    def _refuse_duplicates(self, parts: Sequence[Part], call: Call) -> None:
        seen = set()
        for part in parts:
            spec = self._tables.of(part.table, call).spec
            key = (
                spec.name,
                *(orjson.dumps(part.target.key.get(name)) for name in spec.key_attributes),
            )
            if key in seen:
                raise AwsError("ValidationException", "Provided list of item keys contains duplicates")
            seen.add(key)

    def _batch_throttled(self, refusal: Admission, unprocessed: Mapping[str, Any], call: Call) -> Response:
        for table_name in unprocessed:
            self._metrics.throttled_request(table_name_of(table_name), call.operation, call.now)
        return respond(400, throttled_body(refusal))

    def batch_get(self, call: Call) -> Response:
        """Each key is admitted by itself; what is not goes to ``UnprocessedKeys``."""
        request_items = as_object(call.params["RequestItems"])
        parts = [
            Part(table_name, "Get", request, Target(table_name, as_item(key)))
            for table_name, request in request_items.items()
            for key in as_list(as_object(request).get("Keys"))
        ]
        for part in parts:
            check_key(self._tables.of(part.table, call).spec, part.target.key)
        read = self._store.read(call.operation, [part.target for part in parts], call.body, call.region)
        if read.answer.status != 200:
            return respond(*read.answer)
        bill = Bill()
        processed: dict[str, list[Any]] = {}
        unprocessed: dict[str, list[Any]] = {}
        refusal = None
        for part, size_bytes in zip(parts, read.evaluated_bytes, strict=True):
            table = self._tables.of(part.table, call)
            units = read_units(size_bytes, bool(part.request.get("ConsistentRead")))
            touches = item_touches(table.spec, part.target.key, units)
            admission = table.admit_read(units, call.now, touches=touches)
            if admission.admitted:
                bill.add(table, Cost(units))
                processed.setdefault(part.table, []).append(part.target.key)
            else:
                refusal = refusal or admission
                unprocessed.setdefault(part.table, []).append(part.target.key)
                self._metrics.throttled("Read", table.spec, admission, call.now)
        if refusal is not None and not processed:
            return self._batch_throttled(refusal, unprocessed, call)
        self._record(bill, "Read", call)
        answer = orjson.loads(read.answer.body)
        if unprocessed:
            paid = {name: {**request_items[name], "Keys": keys} for name, keys in processed.items()}
            body = orjson.dumps({**call.params, "RequestItems": paid})
            answer = orjson.loads(self._store.call(call.operation, body, call.region).body)
            answer["UnprocessedKeys"] = {
                name: {**request_items[name], "Keys": keys} for name, keys in unprocessed.items()
            }
        return respond(200, with_capacity(orjson.dumps(answer), bill.told(call.detail)))

    # -- transactions ----------------------------------------------------------------------------------

    def transact_write(self, call: Call) -> Response:
        """All or nothing, twice the units, paid also when a condition cancels it."""
        parts = []
        for item in as_list(call.params["TransactItems"]):
            if isinstance(item, dict) and len(item) > 1:
                raise AwsError(
                    "ValidationException", "TransactItems can only contain one of Check, Put, Update or Delete"
                )
            kind, content = as_single(item)
            request = as_object(content)
            key_of = as_item(request.get("Item" if kind == "Put" else "Key"))
            check_values(key_of.values())
            check_values((request.get("ExpressionAttributeValues") or {}).values())
            target = Target(as_text(request.get("TableName")), key_of)
            parts.append(Part(target.table, kind, request, target))
        staged = self._store.stage(call.operation, [part.target for part in parts], call.body, call.region)
        cancelled = error_code(staged.answer.body) == "TransactionCanceledException"
        if staged.answer.status != 200 and not cancelled:
            return respond(*staged.answer)
        self._require_size(staged.changes)
        costs, touches = [], []
        for part, change in zip(parts, staged.changes, strict=True):
            spec = self._tables.of(part.table, call).spec
            if part.kind == "ConditionCheck" or cancelled:
                cost = failed_condition_cost(change.before)
                if part.kind == "Put":
                    put = failed_condition_cost(part.target.key)
                    cost = max(cost, put, key=lambda either: either.item_units)
            else:
                cost = write_cost(spec, change.before, change.after)
            costs.append(cost.times(2))
            touches.append(write_touches(spec, change.before, change.after, part.target.key, costs[-1]))
        refused, bill = self._pay_together("Write", parts, costs, touches, call)
        if refused is not None:
            return refused
        if cancelled:
            return respond(*staged.answer)
        self._tables.commit([(part.table, change) for part, change in zip(parts, staged.changes, strict=True)], call)
        return respond(200, with_capacity(staged.answer.body, bill.told(call.detail, "Write")))

    def _require_size(self, changes: Sequence[Change]) -> None:
        """:raises AwsError: ValidationException when a transaction's items are larger than 4 MB together."""
        for change in changes:
            check_size(change.after)
        total = sum(item_size(change.after) for change in changes if change.after)
        if total > limits.TRANSACTION_BYTES.value:
            raise AwsError("ValidationException", f"Transaction request size exceeds 4 MB limit: {total} bytes")

    def transact_get(self, call: Call) -> Response:
        parts = []
        for item in as_list(call.params["TransactItems"]):
            kind, content = as_single(item)
            request = as_object(content)
            target = Target(as_text(request.get("TableName")), as_item(request.get("Key")))
            parts.append(Part(target.table, kind, request, target))
        read = self._store.read(call.operation, [part.target for part in parts], call.body, call.region)
        if read.answer.status != 200:
            return respond(*read.answer)
        costs = [Cost(2 * read_units(size_bytes, consistent=True)) for size_bytes in read.evaluated_bytes]
        touches: list[TouchMap] = [
            {None: item_touches(self._tables.of(part.table, call).spec, part.target.key, cost.table_units)}
            for part, cost in zip(parts, costs, strict=True)
        ]
        refused, bill = self._pay_together("Read", parts, costs, touches, call)
        if refused is not None:
            return refused
        return respond(200, with_capacity(read.answer.body, bill.told(call.detail, "Read")))

    def _pay_together(
        self, direction: str, parts: Sequence[Part], costs: Sequence[Cost], touches: Sequence[TouchMap], call: Call
    ) -> tuple[Response | None, Bill]:
        """Spend ``costs`` on all tables or on none; the answer that refuses, if it comes to that."""
        bill = Bill()
        for part, cost, where in zip(parts, costs, touches, strict=True):
            bill.add(self._tables.of(part.table, call), cost, where)
        starved: dict[str, Admission] = {}
        for table, cost in bill.costs.values():
            if direction == "Write":
                admission = table.check_write(cost.table_units, cost.global_, call.now, bill.touches(table))
            else:
                admission = table.check_read(cost.table_units, call.now, touches=bill.touches(table).get(None))
            if not admission.admitted:
                starved[table.spec.arn] = admission
                self._metrics.throttled(direction, table.spec, admission, call.now)
                self._metrics.throttled_request(table.spec.name, call.operation, call.now)
        if starved:
            refusals: list[Admission | None] = []
            for part, cost in zip(parts, costs, strict=True):
                admission = starved.get(self._tables.of(part.table, call).spec.arn, Admission())
                uses = {None, *cost.global_}
                blamed = any(reason.index_name in uses for reason in admission.throttled_by)
                refusals.append(admission if blamed else None)
            return respond(400, cancelled_body(refusals)), bill
        for table, cost in bill.costs.values():
            if direction == "Write":
                table.spend_write(cost.table_units, cost.global_, call.now, bill.touches(table))
            else:
                table.spend_read(cost.table_units, call.now, touches=bill.touches(table).get(None))
        self._record(bill, direction, call)
        return None, bill

    def _record(self, bill: Bill, direction: str, call: Call) -> None:
        for table, cost in bill.costs.values():
            self._metrics.consumed(direction, table.spec, cost, call.now)
