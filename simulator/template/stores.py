"""Streams, tables, buckets and queues."""

from __future__ import annotations

import re
from typing import Any

from simulator.template.names import Names, consumer_arn
from simulator.template.properties import Properties
from simulator.template.specs import BucketSpec, ConsumerSpec, IndexSpec, QueueSpec, StreamSpec, TableSpec, TopicSpec

# Defaults of AWS's quotas: units of a table or index, secondary indexes of a table.
MAX_UNITS = 40_000
MAX_LSI = 5
MAX_GSI = 20
MAX_SHARDS = 20_000
MAX_RETENTION_HOURS = 8760
ON_DEMAND_SHARDS = 4
RECORD_KIB = (1024, 10_240)

_INDEX_NAME = r"[a-zA-Z0-9_.-]{3,255}"
_KEY_MEMBERS = ("AttributeName", "KeyType")
_UNIT_MEMBERS = ("ReadCapacityUnits", "WriteCapacityUnits")
_PROJECTIONS = ("ALL", "KEYS_ONLY", "INCLUDE")
_VIEWS = ("NEW_AND_OLD_IMAGES", "NEW_IMAGE", "OLD_IMAGE", "KEYS_ONLY")
_SIMPLE_TYPES = {"String": "S", "Number": "N", "Binary": "B"}

Keys = tuple[tuple[str, str], ...]


def stream(logical_id: str, properties: Properties, names: Names) -> StreamSpec:
    """AWS::Kinesis::Stream."""
    given = properties.part("StreamModeDetails", ("StreamMode",))
    mode = given.one_of("StreamMode", ("PROVISIONED", "ON_DEMAND"), "PROVISIONED")
    if mode == "ON_DEMAND" and "ShardCount" in properties:
        raise properties.error("ShardCount", "an ON_DEMAND stream has no ShardCount", "leave it out")
    name = names.name(logical_id)
    return StreamSpec(
        logical_id,
        name,
        names.arn(properties.kind, name),
        properties.whole("ShardCount", 1, MAX_SHARDS) if mode == "PROVISIONED" else ON_DEMAND_SHARDS,
        properties.whole("RetentionPeriodHours", 24, MAX_RETENTION_HOURS, 24),
        mode,
        properties.whole("MaxRecordSizeInKiB", *RECORD_KIB, RECORD_KIB[0]),
    )


def consumer(logical_id: str, properties: Properties, names: Names) -> ConsumerSpec:
    """AWS::Kinesis::StreamConsumer."""
    properties.require("ConsumerName")
    stream_arn, name = properties.text("StreamARN"), names.name(logical_id)
    return ConsumerSpec(logical_id, name, consumer_arn(stream_arn, name), stream_arn)


def table(logical_id: str, properties: Properties, names: Names) -> TableSpec:
    """AWS::DynamoDB::Table."""
    billing = properties.one_of("BillingMode", ("PROVISIONED", "PAY_PER_REQUEST"), "PROVISIONED")
    provisioned = billing == "PROVISIONED"
    keys = _keys(properties)
    indexes = (
        *_indexes(properties, "LocalSecondaryIndexes", "LSI", MAX_LSI, False),
        *_indexes(properties, "GlobalSecondaryIndexes", "GSI", MAX_GSI, provisioned),
    )
    index_names = [index.name for index in indexes]
    for index in indexes:
        member = "LocalSecondaryIndexes" if index.kind == "LSI" else "GlobalSecondaryIndexes"
        if index_names.count(index.name) > 1:
            raise properties.error(member, f"two indexes are named {index.name}", "give one another name")
        if index.kind == "LSI" and (index.keys[0] != keys[0] or len(index.keys) != 2 or len(keys) != 2):
            raise properties.error(
                member,
                f"the local index {index.name} must have the table's HASH key and a RANGE key of its own",
                "and so must the table have a RANGE key",
            )
    rcu, wcu = _units(properties, provisioned)
    name = names.name(logical_id)
    view = None
    if "StreamSpecification" in properties:
        view = properties.part("StreamSpecification", ("StreamViewType",)).one_of("StreamViewType", _VIEWS)
    return TableSpec(
        logical_id,
        name,
        names.arn(properties.kind, name),
        keys,
        _attribute_types(properties, [keys, *(index.keys for index in indexes)]),
        billing,
        rcu,
        wcu,
        indexes,
        view,
    )


def simple_table(logical_id: str, properties: Properties, names: Names) -> TableSpec:
    """AWS::Serverless::SimpleTable: one HASH key, on demand unless it has units."""
    key = properties.part("PrimaryKey", ("Name", "Type"))
    attribute = key.text("Name", "id")
    kind = _SIMPLE_TYPES[key.one_of("Type", tuple(_SIMPLE_TYPES), "String")]
    provisioned = "ProvisionedThroughput" in properties
    rcu, wcu = _units(properties, provisioned)
    name = names.name(logical_id)
    billing = "PROVISIONED" if provisioned else "PAY_PER_REQUEST"
    keys: Keys = ((attribute, "HASH"),)
    return TableSpec(logical_id, name, names.arn(properties.kind, name), keys, {attribute: kind}, billing, rcu, wcu)


def bucket(logical_id: str, properties: Properties, names: Names) -> BucketSpec:
    """AWS::S3::Bucket."""
    return BucketSpec(logical_id, names.name(logical_id))


def queue(logical_id: str, properties: Properties, names: Names) -> QueueSpec:
    """AWS::SQS::Queue."""
    return QueueSpec(logical_id, names.name(logical_id))


def topic(logical_id: str, properties: Properties, names: Names) -> TopicSpec:
    """AWS::SNS::Topic."""
    return TopicSpec(logical_id, names.name(logical_id))


def _units(properties: Properties, provisioned: bool) -> tuple[int, int]:
    """(read, write) units; (0, 0) on demand."""
    if not provisioned:
        if "ProvisionedThroughput" in properties:
            raise properties.error(
                "ProvisionedThroughput",
                "ProvisionedThroughput does not go with BillingMode PAY_PER_REQUEST",
                "remove one of them",
            )
        return 0, 0
    properties.require("ProvisionedThroughput")
    given = properties.part("ProvisionedThroughput", _UNIT_MEMBERS)
    return given.whole("ReadCapacityUnits", 1, MAX_UNITS), given.whole("WriteCapacityUnits", 1, MAX_UNITS)


def _keys(properties: Properties) -> Keys:
    keys = tuple(
        (key.text("AttributeName"), key.one_of("KeyType", ("HASH", "RANGE")))
        for key in properties.parts("KeySchema", _KEY_MEMBERS)
    )
    if [kind for _, kind in keys] not in (["HASH"], ["HASH", "RANGE"]) or len({name for name, _ in keys}) < len(keys):
        raise properties.error("KeySchema", "KeySchema takes a HASH key and perhaps another attribute as RANGE key")
    return keys


def _indexes(properties: Properties, member: str, kind: str, most: int, provisioned: bool) -> list[IndexSpec]:
    members = ("IndexName", "KeySchema", "Projection", *(("ProvisionedThroughput",) if kind == "GSI" else ()))
    found = []
    for index in properties.parts(member, members):
        name = index.text("IndexName")
        if not re.fullmatch(_INDEX_NAME, name):
            raise index.error(
                "IndexName", f"{name[:300]!r} is not a possible IndexName", f"it must match {_INDEX_NAME}"
            )
        index.what = f"{properties.what} index {name}"
        index.require("Projection")
        rcu, wcu = _units(index, provisioned) if kind == "GSI" else (0, 0)
        found.append(IndexSpec(name, kind, _keys(index), _projection(index), rcu, wcu))
    if len(found) > most:
        raise properties.error(member, f"{member} takes {most} at most, not {len(found)}")
    return found


def _projection(index: Properties) -> dict[str, Any]:
    given = index.part("Projection", ("ProjectionType", "NonKeyAttributes"))
    kind = given.one_of("ProjectionType", _PROJECTIONS)
    attributes = given.texts("NonKeyAttributes")
    if (kind == "INCLUDE") != bool(attributes):
        raise given.error("NonKeyAttributes", "NonKeyAttributes go with ProjectionType INCLUDE, and only with it")
    return {"ProjectionType": kind} | ({"NonKeyAttributes": attributes} if attributes else {})


def _attribute_types(properties: Properties, keys: list[Keys]) -> dict[str, str]:
    types: dict[str, str] = {}
    for one in properties.parts("AttributeDefinitions", ("AttributeName", "AttributeType")):
        name = one.text("AttributeName")
        if name in types:
            raise one.error("AttributeName", f"the attribute {name} is defined twice", "remove one of them")
        types[name] = one.one_of("AttributeType", ("S", "N", "B"))
    used = {name for schema in keys for name, _ in schema}
    if used != set(types):
        raise properties.error(
            "AttributeDefinitions",
            f"AttributeDefinitions has {', '.join(sorted(types)) or 'nothing'}, the keys are {', '.join(sorted(used))}",
            "define each key attribute, and no other",
        )
    return types
