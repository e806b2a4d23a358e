"""What a template declares, as plain data. ``simulator.deployment`` is where these are imported from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """A Kinesis stream. ``mode`` is PROVISIONED or ON_DEMAND, which begins with four shards."""

    logical_id: str
    name: str
    arn: str
    shard_count: int
    retention_hours: int = 24
    mode: str = "PROVISIONED"
    max_record_kib: int = 1024

    def create_stream_kwargs(self) -> dict[str, Any]:
        """Arguments for boto3's ``create_stream``."""
        asked: dict[str, Any] = {"StreamName": self.name, "StreamModeDetails": {"StreamMode": self.mode}}
        if self.mode == "PROVISIONED":
            asked["ShardCount"] = self.shard_count
        if self.max_record_kib != 1024:
            asked["MaxRecordSizeInKiB"] = self.max_record_kib
        return asked


@dataclass(frozen=True, slots=True)
class ConsumerSpec:
    """A registered consumer of a Kinesis stream: enhanced fan-out. The ARN of a deployed one ends in another number."""

    logical_id: str
    name: str
    arn: str
    stream_arn: str


@dataclass(frozen=True, slots=True)
class ScalableTargetSpec:
    """What Application Auto Scaling may change: ``resource_id`` is table/NAME or table/NAME/index/INDEX."""

    logical_id: str
    resource_id: str
    dimension: str
    least_units: int
    most_units: int

    def register_kwargs(self) -> dict[str, Any]:
        """Arguments for boto3's ``register_scalable_target``."""
        return {
            "ServiceNamespace": "dynamodb",
            "ResourceId": self.resource_id,
            "ScalableDimension": self.dimension,
            "MinCapacity": self.least_units,
            "MaxCapacity": self.most_units,
        }


@dataclass(frozen=True, slots=True)
class ScalingPolicySpec:
    """A target-tracking policy; ``target_percent`` is of provisioned units."""

    logical_id: str
    name: str
    resource_id: str
    dimension: str
    target_percent: int
    scale_in_cooldown_s: int = 0
    scale_out_cooldown_s: int = 0

    def put_kwargs(self) -> dict[str, Any]:
        """Arguments for boto3's ``put_scaling_policy``."""
        direction = "Read" if "Read" in self.dimension else "Write"
        return {
            "PolicyName": self.name,
            "PolicyType": "TargetTrackingScaling",
            "ServiceNamespace": "dynamodb",
            "ResourceId": self.resource_id,
            "ScalableDimension": self.dimension,
            "TargetTrackingScalingPolicyConfiguration": {
                "TargetValue": float(self.target_percent),
                "PredefinedMetricSpecification": {"PredefinedMetricType": f"DynamoDB{direction}CapacityUtilization"},
                "ScaleInCooldown": self.scale_in_cooldown_s,
                "ScaleOutCooldown": self.scale_out_cooldown_s,
            },
        }


@dataclass(frozen=True, slots=True)
class IndexSpec:
    """An index; ``kind`` is LSI or GSI, ``keys`` are (attribute, HASH or RANGE).

    ``projection`` is boto3's Projection. Units are 0 for an LSI, which is paid from the table's.
    """

    name: str
    kind: str
    keys: tuple[tuple[str, str], ...]
    projection: Mapping[str, Any]
    rcu: int = 0
    wcu: int = 0


@dataclass(frozen=True, slots=True)
class TableSpec:
    """A DynamoDB table. ``attribute_types`` are S, N or B. Units are 0 when ``billing_mode`` is PAY_PER_REQUEST."""

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
        provisioned = self.billing_mode == "PROVISIONED"
        asked: dict[str, Any] = {
            "TableName": self.name,
            "KeySchema": _key_schema(self.keys),
            "AttributeDefinitions": [
                {"AttributeName": name, "AttributeType": kind} for name, kind in self.attribute_types.items()
            ],
            "BillingMode": self.billing_mode,
        }
        if provisioned:
            asked["ProvisionedThroughput"] = _throughput(self)
        for member, kind in (("LocalSecondaryIndexes", "LSI"), ("GlobalSecondaryIndexes", "GSI")):
            indexes = [
                {"IndexName": index.name, "KeySchema": _key_schema(index.keys), "Projection": dict(index.projection)}
                | ({"ProvisionedThroughput": _throughput(index)} if kind == "GSI" and provisioned else {})
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


def _throughput(units: TableSpec | IndexSpec) -> dict[str, int]:
    return {"ReadCapacityUnits": units.rcu, "WriteCapacityUnits": units.wcu}


@dataclass(frozen=True, slots=True)
class EventSourceSpec:
    """One enabled event source mapping of a function.

    ``kind`` is Kinesis or DynamoDB, ``source_arn`` of a stream, of a stream's consumer or of a table's stream; how the
    last two end is known only where they are deployed.

    Names, ranges and defaults are CreateEventSourceMapping's, with the unit in the name where there is one; -1 is
    for ever. ``name`` is its logical id, as SAM makes it: the function's, then the event's.
    """

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
    parallelization_factor: int = 1
    maximum_record_age_s: int = -1
    bisect_batch_on_function_error: bool = False
    filter_criteria: Mapping[str, Any] = field(default_factory=dict)
    destination_config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def filter_patterns(self) -> tuple[str, ...]:
        """The patterns of FilterCriteria, JSON texts."""
        return tuple(one["Pattern"] for one in self.filter_criteria.get("Filters", ()))

    @property
    def on_failure_destination(self) -> str | None:
        """The ARN of DestinationConfig's OnFailure."""
        found = self.destination_config.get("OnFailure", {}).get("Destination")
        return None if found is None else str(found)

    @property
    def source_name(self) -> str:
        """The stream's name, or the table's."""
        return self.source_arn.split("/")[1]

    @property
    def consumer_name(self) -> str | None:
        """The registered consumer that it reads as; None when it polls."""
        parts = self.source_arn.split("/")
        return parts[3].partition(":")[0] if self.kind == "Kinesis" and len(parts) == 4 else None


@dataclass(frozen=True, slots=True)
class FunctionSpec:
    """A Lambda function; ``code_path`` is an absolute directory of this machine.

    ``reserved_concurrency=None`` is unlimited.
    """

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
class TopicSpec:
    """An SNS topic."""

    logical_id: str
    name: str


@dataclass(frozen=True, slots=True)
class TopicRuleSpec:
    """A rule of IoT Core; ``payload`` is the topicRulePayload of boto3's ``create_topic_rule``."""

    logical_id: str
    name: str
    arn: str
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TransformSpec:
    """The function that a delivery stream invokes with what it read, and how much it gathers for a call of it."""

    function_arn: str
    buffer_mb: float = 1.0
    buffer_s: int = 60
    retries: int = 3


@dataclass(frozen=True, slots=True)
class DeliveryStreamSpec:
    """A stream of Amazon Data Firehose from a Kinesis stream to a bucket. It writes an object when ``buffer_mb`` are
    there, before compression, or ``buffer_s`` have passed since the first record of it."""

    logical_id: str
    name: str
    arn: str
    stream_arn: str
    bucket_arn: str
    buffer_mb: int = 5
    buffer_s: int = 300
    prefix: str = ""
    error_prefix: str = ""
    compression: str = "UNCOMPRESSED"
    transform: TransformSpec | None = None

    @property
    def stream_name(self) -> str:
        """Of the Kinesis stream that it reads."""
        return self.stream_arn.rpartition("/")[2]

    @property
    def bucket_name(self) -> str:
        return self.bucket_arn.rpartition(":")[2]


@dataclass(frozen=True, slots=True)
class Ignored:
    """Something of the template that has no effect here, and why.

    ``type`` is the resource's; ``member`` is the property or event of it, empty for the whole resource.
    """

    logical_id: str
    type: str
    line: int
    reason: str
    member: str = ""

    @property
    def what(self) -> str:
        """How a person names it."""
        return f"{self.logical_id}.{self.member}" if self.member else f"{self.logical_id} ({self.type})"


@dataclass(frozen=True, slots=True)
class Deployment:
    """Everything a template declares that has behaviour here.

    ``parameters`` are values in their declared type and ``origins`` say where each came from: ``default``,
    ``samconfig.toml [env]`` or ``override``. Those named in ``no_echo`` are not to be shown.
    """

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
    topics: tuple[TopicSpec, ...] = ()
    topic_rules: tuple[TopicRuleSpec, ...] = ()
    consumers: tuple[ConsumerSpec, ...] = ()
    scalable_targets: tuple[ScalableTargetSpec, ...] = ()
    scaling_policies: tuple[ScalingPolicySpec, ...] = ()
    delivery_streams: tuple[DeliveryStreamSpec, ...] = ()
    ignored: tuple[Ignored, ...] = ()
    outputs: Mapping[str, Any] = field(default_factory=dict)
    stack_name: str = "alleycat"
    no_echo: frozenset[str] = frozenset()

    def shown_parameters(self) -> dict[str, Any]:
        """The parameters as they may be printed: ``****`` for those that are NoEcho."""
        return {name: "****" if name in self.no_echo else value for name, value in self.parameters.items()}

    @property
    def not_run(self) -> tuple[str, ...]:
        """A line on each resource that plans know and the embedded cloud does not run."""
        return tuple(
            f"the delivery stream {one.name} is planned, not run: nothing of {one.stream_name} is delivered to the "
            f"bucket {one.bucket_name} here"
            for one in self.delivery_streams
        )
