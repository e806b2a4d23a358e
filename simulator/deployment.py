"""The backend that a template describes, as plain data.

``template.yaml`` and the overrides on top of it become a :class:`Deployment`; the cloud provisions from it, the
consumer runtime takes its event sources from it, the report names its parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from simulator.template.errors import ConfigError, DeploymentError, TemplateError

__all__ = [
    "BucketSpec",
    "ConfigError",
    "Deployment",
    "DeploymentError",
    "EventSourceSpec",
    "FunctionSpec",
    "Ignored",
    "IndexSpec",
    "QueueSpec",
    "StreamSpec",
    "TableSpec",
    "TemplateError",
    "load_deployment",
    "to_dict",
]

ACCOUNT_ID = "123456789012"
DEFAULT_REGION = "us-east-1"
REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """A provisioned Kinesis stream."""

    logical_id: str
    name: str
    arn: str
    shard_count: int
    retention_hours: int = 24


@dataclass(frozen=True, slots=True)
class IndexSpec:
    """An index; ``kind`` is LSI or GSI, ``keys`` are (attribute, HASH or RANGE). Units are 0 for an LSI."""

    name: str
    kind: str
    keys: tuple[tuple[str, str], ...]
    projection: Mapping[str, Any]
    rcu: int = 0
    wcu: int = 0


@dataclass(frozen=True, slots=True)
class TableSpec:
    """A DynamoDB table. Units are 0 when ``billing_mode`` is PAY_PER_REQUEST."""

    logical_id: str
    name: str
    arn: str
    keys: tuple[tuple[str, str], ...]
    attribute_types: Mapping[str, str]
    billing_mode: str
    rcu: int
    wcu: int
    indexes: tuple[IndexSpec, ...] = ()
    stream_view_type: str | None = None

    def create_table_kwargs(self) -> dict[str, Any]:
        """Arguments for boto3's ``create_table``."""
        asked: dict[str, Any] = {
            "TableName": self.name,
            "KeySchema": _key_schema(self.keys),
            "AttributeDefinitions": [
                {"AttributeName": name, "AttributeType": kind} for name, kind in self.attribute_types.items()
            ],
            "BillingMode": self.billing_mode,
        }
        provisioned = self.billing_mode == "PROVISIONED"
        if provisioned:
            asked["ProvisionedThroughput"] = {"ReadCapacityUnits": self.rcu, "WriteCapacityUnits": self.wcu}
        for member, kind in (("LocalSecondaryIndexes", "LSI"), ("GlobalSecondaryIndexes", "GSI")):
            indexes = [
                {"IndexName": index.name, "KeySchema": _key_schema(index.keys), "Projection": dict(index.projection)}
                | (
                    {"ProvisionedThroughput": {"ReadCapacityUnits": index.rcu, "WriteCapacityUnits": index.wcu}}
                    if kind == "GSI" and provisioned
                    else {}
                )
                for index in self.indexes
                if index.kind == kind
            ]
            if indexes:
                asked[member] = indexes
        if self.stream_view_type:
            asked["StreamSpecification"] = {"StreamEnabled": True, "StreamViewType": self.stream_view_type}
        return asked


def _key_schema(keys: tuple[tuple[str, str], ...]) -> list[dict[str, str]]:
    return [{"AttributeName": name, "KeyType": kind} for name, kind in keys]


@dataclass(frozen=True, slots=True)
class EventSourceSpec:
    """One event source mapping of a function. Names and ranges are CreateEventSourceMapping's."""

    name: str
    kind: str
    source_arn: str
    starting_position: str
    starting_timestamp_s: float | None = None
    batch_size: int = 100
    batching_window_s: int = 0
    tumbling_window_s: int = 0
    maximum_retry_attempts: int = -1
    report_batch_item_failures: bool = False

    @property
    def source_name(self) -> str:
        return self.source_arn.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class FunctionSpec:
    """A Lambda function; ``code_path`` is a directory of this machine."""

    logical_id: str
    name: str
    arn: str
    handler: str
    runtime: str
    code_path: Path
    timeout_s: int
    memory_mb: int
    environment: Mapping[str, str]
    reserved_concurrency: int | None = None
    event_sources: tuple[EventSourceSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class BucketSpec:
    """An S3 bucket."""

    logical_id: str
    name: str


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """An SQS queue."""

    logical_id: str
    name: str


@dataclass(frozen=True, slots=True)
class Ignored:
    """Something of the template that has no effect here, and why."""

    what: str
    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Deployment:
    """Everything a template declares that has behaviour here; ``origins`` says where each parameter came from."""

    path: Path
    config_env: str
    region: str
    account_id: str
    parameters: Mapping[str, Any]
    origins: Mapping[str, str]
    streams: tuple[StreamSpec, ...] = ()
    tables: tuple[TableSpec, ...] = ()
    functions: tuple[FunctionSpec, ...] = ()
    buckets: tuple[BucketSpec, ...] = ()
    queues: tuple[QueueSpec, ...] = ()
    ignored: tuple[Ignored, ...] = ()
    outputs: Mapping[str, Any] = field(default_factory=dict)


def load_deployment(
    template: Path | None = None,
    config_env: str = "default",
    overrides: Mapping[str, str] | None = None,
    samconfig: Path | None = None,
    region: str = DEFAULT_REGION,
    account_id: str = ACCOUNT_ID,
) -> Deployment:
    """Read a template with the sizes of ``config_env`` and ``overrides`` on top.

    ``template=None`` is ``template.yaml`` of the current directory, or the project's own. ``samconfig=None`` is
    ``samconfig.toml`` beside the template.

    :raises DeploymentError: with one line that says what is wrong, where, and what to do.
    """
    from simulator.template import nodes, parameters
    from simulator.template.resources import build

    here = Path("template.yaml")
    path = template or (here if here.exists() else REPOSITORY / "template.yaml")
    tree = nodes.load(path)
    from_config = parameters.read_samconfig(samconfig or path.parent / "samconfig.toml", config_env)
    declared = tree.get("Parameters")
    resolved = parameters.resolve_parameters(
        declared if isinstance(declared, nodes.MapNode) else nodes.MapNode(0),
        path,
        from_config,
        config_env,
        overrides or {},
    )
    return build(tree, path, config_env, resolved, region, account_id)


def to_dict(value: Any) -> Any:
    """A deployment, or a part of one, as JSON can hold it."""
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: to_dict(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_dict(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [to_dict(one) for one in value]
    return str(value) if isinstance(value, Path) else value
