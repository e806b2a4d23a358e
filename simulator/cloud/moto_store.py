"""The seam to moto: the only module that knows it.

:class:`MotoStore` keeps the contract of :class:`~simulator.cloud.store.Store` with moto's own request handler,
called in-process: no socket, no ``mock_aws``, no Flask. :class:`MotoServices` hands every other AWS service to
moto in the same way.

**Staging.** A throttled write must leave no trace, but what a write costs is only known from the item after
it, which only moto's expressions can tell. So a write runs for real on a *scratch backend* that holds copies of
just the items it names; its answer, and the images before and after, come back as ``Staged``. Once the capacity
is paid, :meth:`MotoStore.commit` puts the after-images into the real table. One
execution a write, however large the table; a transaction needs no copy of whole tables, as it does in moto; and
a write that changes nothing leaves no stream record, as on AWS.

**Reading** runs on a scratch backend too: it sees only the items or the partition asked for, so a Query costs
what its partition holds and not what the table holds (moto sorts the whole table first). A Query on a global
index still looks at every item once.

Importing moto takes half a second, so it happens when the first of these objects is made. It patches nothing
that is active: no botocore client of this process is intercepted.
"""

from __future__ import annotations

import base64
import binascii
import copy
import logging
import os
import re
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import orjson

from simulator.cloud.auto_scaling import ScalingPolicy
from simulator.cloud.dynamodb import Direction
from simulator.cloud.item_size import Item, item_size
from simulator.cloud.store import Change, Read, Staged, StoreAnswer, Target, table_name_of

log = logging.getLogger(__name__)


@cache
def _moto() -> SimpleNamespace:
    # AWS_REGION=local and the like are common with local endpoints.
    os.environ.setdefault("MOTO_ALLOW_NONEXISTENT_REGION", "true")
    import moto.dynamodb.responses as dynamodb_responses
    from botocore.model import OperationNotFoundError
    from moto import backend_index, backends
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.core.exceptions import HTTPException
    from moto.core.request import Request
    from moto.dynamodb.models import DynamoDBBackend, dynamodb_backends
    from moto.dynamodb.models.dynamo_type import DynamoType, LimitedSizeDict

    # AWS raised it from 25 in 2022.
    dynamodb_responses.TRANSACTION_MAX_ITEMS = 100
    # It estimates an item's size and refuses from 405,000; AWS's rules and 409,600 are in dynamodb_item_rules.
    LimitedSizeDict.__setitem__ = dict.__setitem__

    class Handler(dynamodb_responses.DynamoHandler):  # type: ignore[misc]
        """moto's DynamoDB on a backend of our choice."""

        def __init__(self, backend: Any) -> None:
            super().__init__()
            self._backend = backend

        @property
        def dynamodb_backend(self) -> Any:
            return self._backend

    return SimpleNamespace(
        account_id=os.environ.get("MOTO_ACCOUNT_ID", DEFAULT_ACCOUNT_ID),
        backend_url_patterns=backend_index.backend_url_patterns,
        get_backend=backends.get_backend,
        HTTPException=HTTPException,
        OperationNotFoundError=OperationNotFoundError,
        Request=Request,
        DynamoDBBackend=DynamoDBBackend,
        dynamodb_backends=dynamodb_backends,
        DynamoType=DynamoType,
        Handler=Handler,
    )


class MotoStore:
    """A :class:`~simulator.cloud.store.Store`. State lives in moto's own backends. All instances of a
    process share it, as all of moto does."""

    def __init__(self) -> None:
        self._moto = _moto()

    def call(self, operation: str, body: bytes, region: str) -> StoreAnswer:
        if operation == "UpdateTable":
            self._allow_new_stream(orjson.loads(body or b"{}"), region)
        return self._dispatch(operation, body, region, self._backend(region))

    def _allow_new_stream(self, request: Mapping[str, Any], region: str) -> None:
        """moto refuses a stream where there ever was one; AWS begins another when the former was switched off."""
        table = self._table(request.get("TableName", ""), region)
        wants = (request.get("StreamSpecification") or {}).get("StreamEnabled")
        if wants and table is not None and not table.stream_specification["StreamEnabled"]:
            table.latest_stream_label = None

    def stage(self, operation: str, targets: Sequence[Target], body: bytes, region: str) -> Staged:
        scratch, places = self._scratch(targets, region, copied=True)
        answer = self._dispatch(operation, body, region, scratch)
        changes = []
        for place in places:
            if place is None:
                changes.append(Change(None, None, None))
                continue
            table, key, before = place
            after = _lookup(scratch.tables[table.name], key) if answer.status == 200 else before
            changes.append(Change(_to_json(before), _to_json(after), (table.name, key, before, after)))
        return Staged(answer, tuple(changes))

    def commit(self, changes: Sequence[Change], region: str) -> None:
        tables = self._backend(region).tables
        for change in changes:
            if change.handle is None:
                continue
            name, (hash_key, range_key), _, after = change.handle
            table = tables[name]
            if after is None:
                rows = table.items.get(hash_key)
                if range_key is not None and rows is not None:
                    rows.pop(range_key, None)
                if range_key is None or not rows:
                    table.items.pop(hash_key, None)
            elif range_key is None:
                table.items[hash_key] = after
            else:
                table.items[hash_key][range_key] = after

    def read(self, operation: str, targets: Sequence[Target], body: bytes, region: str) -> Read:
        if operation in ("Query", "Scan"):
            return self._search(operation, targets[0].table, body, region)
        scratch, places = self._scratch(targets, region, copied=False)
        answer = self._dispatch(operation, body, region, scratch)
        images = (_to_json(place[2]) if place else None for place in places)
        return Read(answer, tuple(item_size(image) if image else 0 for image in images))

    def _search(self, operation: str, table_name: str, body: bytes, region: str) -> Read:
        backend, table = self._backend(region), self._table(table_name, region)
        if table is None:
            return Read(self._dispatch(operation, body, region, backend), (0,))
        scratch = self._moto.DynamoDBBackend(region, self._moto.account_id)
        metered, meter = _metered(table)
        scratch.tables[table.name] = metered
        answer = self._dispatch(operation, body, region, scratch)
        return Read(answer, (meter.evaluated_bytes,))

    def describe_table(self, table: str, region: str) -> Mapping[str, Any] | None:
        answer = self.call("DescribeTable", orjson.dumps({"TableName": table}), region)
        return orjson.loads(answer.body)["Table"] if answer.status == 200 else None

    def _backend(self, region: str) -> Any:
        return self._moto.dynamodb_backends[self._moto.account_id][region]

    def _table(self, name: str, region: str) -> Any | None:
        return self._backend(region).tables.get(table_name_of(name))

    def _scratch(
        self, targets: Sequence[Target], region: str, copied: bool
    ) -> tuple[Any, list[tuple[Any, tuple[Any, Any], Any] | None]]:
        """A backend with just the target items, and where each is: (real table, key, real item). ``None`` for
        a target that names no table or no key: the handler will say what is wrong with it."""
        scratch = self._moto.DynamoDBBackend(region, self._moto.account_id)
        places: list[tuple[Any, tuple[Any, Any], Any] | None] = []
        for name, key_of in targets:
            table = self._table(name, region)
            if table is None:
                places.append(None)
                continue
            aside = scratch.tables.get(table.name)
            if aside is None:
                aside = scratch.tables[table.name] = _empty_copy(table)
            key = self._key(table, key_of)
            if key is None:
                places.append(None)
                continue
            item = _lookup(table, key)
            places.append((table, key, item))
            if item is not None:
                held = copy.deepcopy(item) if copied else item
                if key[1] is None:
                    aside.items[key[0]] = held
                else:
                    aside.items[key[0]][key[1]] = held
        return scratch, places

    def _key(self, table: Any, key_of: Item) -> tuple[Any, Any] | None:
        parts: list[Any] = []
        for name, kind in (
            (table.hash_key_attr, table.hash_key_type),
            (table.range_key_attr, table.range_key_type),
        ):
            if name is None:
                parts.append(None)
                continue
            value = key_of.get(name)
            content = value.get(kind) if isinstance(value, Mapping) else None
            if not isinstance(content, str):
                return None
            try:
                part = self._moto.DynamoType({kind: base64.b64decode(content) if kind == "B" else content})
                hash(part)
            except (ValueError, binascii.Error):
                return None
            parts.append(part)
        return parts[0], parts[1]

    def _dispatch(self, operation: str, body: bytes, region: str, backend: Any) -> StoreAnswer:
        request = self._moto.Request.from_primitives(
            "POST",
            f"http://dynamodb.{region}.amazonaws.com/",
            {"X-Amz-Target": f"DynamoDB_20120810.{operation}", "Content-Type": "application/x-amz-json-1.0"},
            body,
        )
        try:
            status, _, answer = self._moto.Handler(backend)._dispatch(request)
        except (self._moto.OperationNotFoundError, NotImplementedError):
            told = f"DynamoDB has no operation {operation} here"
            kind = "com.amazon.coral.service#UnknownOperationException"
            return StoreAnswer(400, orjson.dumps({"__type": kind, "message": told}))
        except Exception as error:
            # moto does not check every shape, and what it trips over can be anything.
            log.warning("moto failed at DynamoDB %s: %r", operation, error)
            log.debug("moto failed at DynamoDB %s", operation, exc_info=True)
            told = f"The store failed at {operation} ({type(error).__name__}: {error}); check its parameters"
            kind = "com.amazonaws.dynamodb.v20120810#InternalServerError"
            return StoreAnswer(500, orjson.dumps({"__type": kind, "message": told}))
        return StoreAnswer(int(status), answer.encode() if isinstance(answer, str) else answer)


def _empty_copy(table: Any) -> Any:
    aside = copy.copy(table)
    aside.items = defaultdict(dict)
    aside.stream_shard = None
    return aside


def _lookup(table: Any, key: tuple[Any, Any]) -> Any | None:
    hash_key, range_key = key
    found = table.items.get(hash_key)
    return found if found is None or range_key is None else found.get(range_key)


def _to_json(item: Any | None) -> Item | None:
    return None if item is None else item.to_json()["Attributes"]


class _Meter:
    """Stands in for moto's filter expression, which sees every item that a Query or Scan evaluates."""

    def __init__(self) -> None:
        self.evaluated_bytes = 0
        self.filter: Any | None = None

    def expr(self, item: Any) -> bool:
        self.evaluated_bytes += item_size(item.to_json()["Attributes"])
        return self.filter is None or bool(self.filter.expr(item))


def _metered(table: Any) -> tuple[Any, _Meter]:
    """A view of ``table`` that meters, and shows a Query only what can match its partition key."""
    meter = _Meter()
    view = copy.copy(table)
    plain_query, plain_scan = view.query, view.scan

    # Their first parameters are positional in moto: hash key ... index name (8th), consistent, filter (10th).
    def query(*args: Any, hash_key_conditions: Any = None, **rest: Any) -> Any:
        hash_key, index_name = args[0], args[7]
        view.items = _candidates(table, index_name, hash_key)
        meter.filter = args[9]
        return plain_query(*args[:9], meter, hash_key_conditions=hash_key_conditions, **rest)

    def scan(filters: Any, limit: Any, start: Any, filter_expression: Any, *args: Any, **rest: Any) -> Any:
        meter.filter = filter_expression
        return plain_scan(filters, limit, start, meter, *args, **rest)

    view.query, view.scan = query, scan
    return view, meter


def _candidates(table: Any, index_name: str | None, hash_key: Any) -> Any:
    index = next((index for index in table.global_indexes if index.name == index_name), None)
    if hash_key is None:
        return table.items
    if index is None:
        found = table.items.get(hash_key)
        return {hash_key: found} if found else {}
    attribute = next((key["AttributeName"] for key in index.schema if key["KeyType"] == "HASH"), None)

    def matches(item: Any) -> bool:
        value = item.attrs.get(attribute)
        return value is not None and bool(value == hash_key)

    if table.range_key_attr is None:
        return {key: item for key, item in table.items.items() if matches(item)}
    kept = {}
    for key, rows in table.items.items():
        matching = {range_key: item for range_key, item in rows.items() if matches(item)}
        if matching:
            kept[key] = matching
    return kept


_CREDENTIAL = re.compile(r"Credential=[^/\s,]+/\d{8}/([^/\s,]+)/([^/\s,]+)/aws4_request")
# Services whose signing name is not the host that moto knows them by.
_HOSTS = {"iotdata": "data.iot", "eventbridge": "events", "execute-api": "iot"}


class MotoServices:
    """Every other AWS service (S3, SQS, STS, ...) by moto, in-process.

    The service is the one that the request is signed for (``Authorization`` header or presigned query);
    unsigned requests go to S3, as for a public object. Any credentials do. Not thread-safe.
    """

    def __init__(self) -> None:
        self._moto = _moto()

    def call(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Answer one HTTP request: ``(status, headers, body)``.

        ``url`` is absolute and as it arrived (path still percent-encoded, S3 path-style); queue URLs and the
        like are built from its host. The answer to a HEAD has no body; its ``content-length`` header is the
        object's and is for the caller to keep.
        """
        parts = urlsplit(url)
        lower = {name.lower(): value for name, value in headers.items()}
        region, service = _signed_for(lower.get("authorization", ""), parts.query)
        host = f"{_HOSTS.get(service, service)}.{region}.amazonaws.com"
        aws_url = f"https://{host}{parts.path or '/'}"
        try:
            execute = self._find(aws_url)
        except ImportError as error:
            needs = f"moto needs {error.name} for {service}, which is not installed: pip install 'moto[{service}]'"
            return _failed(501, "NotImplemented", needs)
        if execute is None:
            return _not_served(service, host)
        request = self._moto.Request.from_primitives(method, url, headers, body)
        request.environ["RAW_URI"] = url.partition(parts.netloc)[2] or "/"
        try:
            status, answer_headers, answer = execute(request, request.raw_url, request.headers)
        except self._moto.HTTPException as error:
            status, answer_headers, answer = error.code, dict(error.get_headers()), error.get_body()
        except NotImplementedError:
            return _not_served(service, host)
        except Exception as error:
            log.warning("moto failed at %s %s for %s: %r", method, parts.path, service, error)
            log.debug("moto failed at %s", service, exc_info=True)
            return _failed(500, "InternalFailure", f"moto failed at this {service} request: {error!r}")
        told = {str(name): str(value) for name, value in answer_headers.items()}
        return int(status), told, answer.encode() if isinstance(answer, str) else bytes(answer or b"")

    def _find(self, aws_url: str) -> Any | None:
        for service, pattern in self._moto.backend_url_patterns:
            if not pattern.match(aws_url):
                continue
            regional = self._moto.get_backend(service)[self._moto.account_id]
            backend = regional["us-east-1" if "us-east-1" in regional else "aws"]
            for url_pattern, execute in backend.urls.items():
                if re.match(url_pattern, aws_url):
                    return execute
        return None


def _signed_for(authorization: str, query: str) -> tuple[str, str]:
    found = _CREDENTIAL.search(authorization)
    if found is None and "X-Amz-Credential" in query:
        credential = parse_qs(query).get("X-Amz-Credential", [""])[0]
        found = _CREDENTIAL.search(f"Credential={unquote(credential)}")
    return (found[1], found[2].lower()) if found else ("us-east-1", "s3")


def _not_served(service: str, host: str) -> tuple[int, dict[str, str], bytes]:
    told = f"The embedded cloud has no {service} for this request (it would go to {host})"
    return _failed(501, "NotImplemented", told)


def _failed(status: int, code: str, message: str) -> tuple[int, dict[str, str], bytes]:
    body = orjson.dumps({"__type": code, "message": message})
    return status, {"content-type": "application/x-amz-json-1.0", "x-amzn-errortype": code}, body


def reset() -> None:
    """Forget everything that moto keeps in this process: every table, bucket, queue and alarm."""
    from moto.core.base_backend import BackendDict
    from moto.core.model_instances import reset_model_data

    BackendDict.reset()
    reset_model_data()


def scaling_policies() -> list[ScalingPolicy]:
    """What clients have registered with Application Auto Scaling for tables and global indexes."""
    if "moto.applicationautoscaling.models" not in sys.modules:
        # Nobody has asked for that service yet. Importing it would hold up every answer for half a second.
        return []
    from moto.applicationautoscaling.models import applicationautoscaling_backends

    found = []
    for accounts in applicationautoscaling_backends.values():
        for region, backend in accounts.items():
            for policy in backend.policies.values():
                tracking = policy.target_tracking_scaling_policy_configuration
                target = backend.targets.get(policy.scalable_dimension, {}).get(policy.resource_id)
                if policy.service_namespace != "dynamodb" or not tracking or target is None:
                    continue
                if target.min_capacity is None or target.max_capacity is None:
                    continue
                if any((target.suspended_state or {}).values()):
                    continue
                # table/NAME or table/NAME/index/INDEX
                _, table, *index = policy.resource_id.split("/")
                direction: Direction = "Read" if "Read" in policy.scalable_dimension else "Write"
                found.append(
                    ScalingPolicy(
                        region,
                        table,
                        index[1] if index else None,
                        direction,
                        int(target.min_capacity),
                        int(target.max_capacity),
                        float(tracking.get("TargetValue", 70)),
                        float(tracking.get("ScaleInCooldown", 0)),
                        float(tracking.get("ScaleOutCooldown", 0)),
                        not tracking.get("DisableScaleIn", False),
                    )
                )
    return found
