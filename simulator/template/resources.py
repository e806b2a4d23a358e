"""Resources to specs: which types and properties have behaviour here, which are ignored, which are refused.

A property is in one of three tables: understood (read below), without behaviour here (``IGNORED``, listed to the
user), or neither, which is an error: silence about a setting that changes behaviour would be a wrong answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from simulator.deployment import (
    BucketSpec,
    Deployment,
    EventSourceSpec,
    FunctionSpec,
    Ignored,
    IndexSpec,
    QueueSpec,
    StreamSpec,
    TableSpec,
)
from simulator.template.errors import TemplateError
from simulator.template.intrinsics import NO_VALUE, Resolver
from simulator.template.nodes import ListNode, MapNode
from simulator.template.parameters import Parameter

STREAM = "AWS::Kinesis::Stream"
TABLE = "AWS::DynamoDB::Table"
SAM_FUNCTION = "AWS::Serverless::Function"
FUNCTION = "AWS::Lambda::Function"
MAPPING = "AWS::Lambda::EventSourceMapping"
BUCKET = "AWS::S3::Bucket"
QUEUE = "AWS::SQS::Queue"
SUPPORTED = (STREAM, TABLE, SAM_FUNCTION, FUNCTION, MAPPING, BUCKET, QUEUE)

NO_BEHAVIOUR = (
    "AWS::IAM::",
    "AWS::Cognito::",
    "AWS::Logs::",
    "AWS::CloudWatch::",
    "AWS::KMS::",
    "AWS::SSM::",
    "AWS::S3::BucketPolicy",
    "AWS::SQS::QueuePolicy",
    "AWS::Lambda::Permission",
    "AWS::Lambda::LayerVersion",
    "AWS::Serverless::LayerVersion",
    "AWS::Serverless::Api",
    "AWS::Serverless::HttpApi",
    "AWS::ApiGateway",
)

IGNORED = {
    STREAM: ("Tags", "StreamEncryption"),
    TABLE: (
        "Tags",
        "SSESpecification",
        "PointInTimeRecoverySpecification",
        "DeletionProtectionEnabled",
        "TableClass",
        "ContributorInsightsSpecification",
        "ResourcePolicy",
    ),
    SAM_FUNCTION: (
        "Policies",
        "Role",
        "Description",
        "Tags",
        "Architectures",
        "Tracing",
        "Layers",
        "LoggingConfig",
        "PermissionsBoundary",
        "EphemeralStorage",
        "PackageType",
        "KmsKeyArn",
        "AutoPublishAlias",
        "DeadLetterQueue",
    ),
    FUNCTION: (
        "Role",
        "Description",
        "Tags",
        "Architectures",
        "TracingConfig",
        "Layers",
        "LoggingConfig",
        "EphemeralStorage",
        "PackageType",
        "KmsKeyArn",
    ),
    BUCKET: (
        "Tags",
        "BucketEncryption",
        "PublicAccessBlockConfiguration",
        "OwnershipControls",
        "LifecycleConfiguration",
        "VersioningConfiguration",
        "AccessControl",
        "CorsConfiguration",
    ),
    QUEUE: ("Tags", "KmsMasterKeyId", "SqsManagedSseEnabled", "MessageRetentionPeriod", "VisibilityTimeout"),
}

# Parameters of an event source mapping: (minimum, maximum) as CreateEventSourceMapping has them.
MAPPING_RANGES = {
    "BatchSize": (1, 10_000),
    "MaximumBatchingWindowInSeconds": (0, 300),
    "TumblingWindowInSeconds": (0, 900),
    "MaximumRetryAttempts": (-1, 10_000),
    "MaximumRecordAgeInSeconds": (-1, 604_800),
    "ParallelizationFactor": (1, 10),
}
# What the runtime does not act on yet: accepted with the value that changes nothing.
NOT_YET: Mapping[str, Any] = {
    "ParallelizationFactor": 1,
    "MaximumRecordAgeInSeconds": -1,
    "BisectBatchOnFunctionError": False,
    "FilterCriteria": None,
    "DestinationConfig": None,
}
MAPPING_KNOWN = (
    *MAPPING_RANGES,
    "StartingPosition",
    "StartingPositionTimestamp",
    "FunctionResponseTypes",
    "BisectBatchOnFunctionError",
    "FilterCriteria",
    "DestinationConfig",
    "Enabled",
)


def build(
    tree: MapNode,
    path: Path,
    config_env: str,
    parameters: Mapping[str, Parameter],
    region: str,
    account_id: str,
) -> Deployment:
    """The deployment that ``tree`` describes. :raises TemplateError: with the line to blame."""
    return _Builder(tree, path, config_env, parameters, region, account_id).build()


class _Builder:
    def __init__(
        self,
        tree: MapNode,
        path: Path,
        config_env: str,
        parameters: Mapping[str, Parameter],
        region: str,
        account_id: str,
    ) -> None:
        self.tree, self.path, self.config_env = tree, path, config_env
        self.parameters, self.region, self.account_id = parameters, region, account_id
        self.stack = "alleycat"
        pseudo = {
            "AWS::Region": region,
            "AWS::AccountId": account_id,
            "AWS::Partition": "aws",
            "AWS::StackName": self.stack,
            "AWS::StackId": f"arn:aws:cloudformation:{region}:{account_id}:stack/{self.stack}/local",
            "AWS::URLSuffix": "amazonaws.com",
            "AWS::NotificationARNs": [],
        }
        values = {name: parameter.value for name, parameter in parameters.items()} | pseudo
        self.resolver = Resolver(
            path, values, tree.get("Mappings") or {}, tree.get("Conditions") or {}, self._resource_value
        )
        self.resources: MapNode = tree["Resources"]
        self.ignored: list[Ignored] = []
        self._naming: list[str] = []

    def error(self, message: str, line: int, advice: str = "") -> TemplateError:
        return TemplateError(message, self.path, line, advice)

    # -- the whole -------------------------------------------------------------------------------------

    def build(self) -> Deployment:
        makers: dict[str, Callable[[str, MapNode, int], Any]] = {
            STREAM: self._stream,
            TABLE: self._table,
            SAM_FUNCTION: self._sam_function,
            FUNCTION: self._function,
            BUCKET: self._bucket,
            QUEUE: self._queue,
        }
        made: dict[str, list[Any]] = {kind: [] for kind in SUPPORTED}
        mappings: list[tuple[str, EventSourceSpec]] = []
        for logical_id, resource in self.resources.items():
            line = self.resources.line_of(logical_id)
            kind = self._type(logical_id, line)
            if not self._present(resource, line):
                continue
            if kind.startswith(NO_BEHAVIOUR):
                self.ignored.append(Ignored(f"{logical_id} ({kind})", line, "carries no behaviour here"))
                continue
            properties = self.resolver.resolve(resource.get("Properties") or MapNode(line), line)
            if kind == MAPPING:
                mappings.append(self._mapping_resource(logical_id, properties, line))
            elif kind in makers:
                made[kind].append(makers[kind](logical_id, properties, line))
            else:
                raise self.error(
                    f"{logical_id}: the resource type {kind} is not supported",
                    line,
                    f"remove it, or use one of {', '.join(SUPPORTED)}",
                )
        functions = [self._with_mappings(one, mappings) for one in [*made[SAM_FUNCTION], *made[FUNCTION]]]
        outputs = self.tree.get("Outputs") or {}
        return Deployment(
            path=self.path,
            config_env=self.config_env,
            region=self.region,
            account_id=self.account_id,
            parameters={name: parameter.value for name, parameter in self.parameters.items()},
            origins={name: parameter.origin for name, parameter in self.parameters.items()},
            streams=tuple(made[STREAM]),
            tables=tuple(made[TABLE]),
            functions=tuple(functions),
            buckets=tuple(made[BUCKET]),
            queues=tuple(made[QUEUE]),
            ignored=tuple(self.ignored),
            outputs={
                name: self.resolver.resolve(output["Value"], output.line)
                for name, output in outputs.items()
                if isinstance(output, MapNode) and "Value" in output and self._present(output, output.line)
            },
        )

    def _type(self, logical_id: str, line: int) -> str:
        resource = self.resources[logical_id]
        if not isinstance(resource, MapNode) or not isinstance(resource.get("Type"), str):
            raise self.error(f"{logical_id} has no Type", line)
        return str(resource["Type"])

    def _present(self, resource: MapNode, line: int) -> bool:
        name = resource.get("Condition")
        return name is None or self.resolver.condition(str(name), resource.line_of("Condition") or line)

    # -- names and ARNs --------------------------------------------------------------------------------

    def _resource_value(self, logical_id: str, attribute: str | None, line: int) -> Any:
        if logical_id not in self.resources:
            raise self.error(f"there is no parameter or resource {logical_id}", line)
        kind = self._type(logical_id, self.resources.line_of(logical_id))
        name = self._name(logical_id, kind, line)
        if attribute is None:
            return f"https://sqs.{self.region}.amazonaws.com/{self.account_id}/{name}" if kind == QUEUE else name
        arn = self._arn(kind, name)
        known = {"Arn": arn}
        if kind == TABLE:
            known["StreamArn"] = f"{arn}/stream/latest"
        elif kind == QUEUE:
            known["QueueName"] = name
        elif kind == BUCKET:
            known["DomainName"] = f"{name}.s3.amazonaws.com"
        elif kind.startswith(NO_BEHAVIOUR):
            return f"{name}.{attribute}" if attribute != "Arn" else f"arn:aws:ignored:::{name}"
        if attribute not in known:
            raise self.error(f"{logical_id} ({kind}) has no attribute {attribute}", line, f"it has {', '.join(known)}")
        return known[attribute]

    def _name(self, logical_id: str, kind: str, line: int) -> str:
        if logical_id in self._naming:
            raise self.error(
                f"resources refer to each other in a circle: {' -> '.join([*self._naming, logical_id])}", line
            )
        key = {STREAM: "Name", TABLE: "TableName", BUCKET: "BucketName", QUEUE: "QueueName"}.get(kind, "FunctionName")
        properties = self.resources[logical_id].get("Properties") or {}
        given: Any = NO_VALUE
        if key in properties:
            self._naming.append(logical_id)
            given = self.resolver.resolve(properties[key], line)
            self._naming.pop()
        if given is not NO_VALUE:
            return str(given)
        name = f"{self.stack}-{logical_id}"
        return name.lower() if kind == BUCKET else name

    def _arn(self, kind: str, name: str) -> str:
        where = f"{self.region}:{self.account_id}"
        return {
            STREAM: f"arn:aws:kinesis:{where}:stream/{name}",
            TABLE: f"arn:aws:dynamodb:{where}:table/{name}",
            BUCKET: f"arn:aws:s3:::{name}",
            QUEUE: f"arn:aws:sqs:{where}:{name}",
        }.get(kind, f"arn:aws:lambda:{where}:function:{name}")

    # -- properties ------------------------------------------------------------------------------------

    def _known(self, logical_id: str, kind: str, properties: MapNode, understood: tuple[str, ...]) -> None:
        for name in properties:
            line = properties.line_of(name)
            if name in IGNORED.get(kind, ()):
                self.ignored.append(Ignored(f"{logical_id}.{name}", line, "carries no behaviour here"))
            elif name not in understood:
                raise self.error(
                    f"{logical_id}: the property {name} of {kind} is not supported",
                    line,
                    f"remove it; understood are {', '.join(understood)}",
                )

    def _integer(self, what: str, node: MapNode, key: str, default: int, low: int, high: int) -> int:
        value = node.get(key, default)
        try:
            number = int(value) if not isinstance(value, bool) and float(value) == int(value) else None
        except (TypeError, ValueError, OverflowError):
            number = None
        if number is None or not low <= number <= high:
            raise self.error(
                f"{what}: {key} must be a whole number from {low:,} to {high:,}, not {value!r}", node.line_of(key)
            )
        return number

    # -- the types -------------------------------------------------------------------------------------

    def _stream(self, logical_id: str, properties: MapNode, line: int) -> StreamSpec:
        self._known(logical_id, STREAM, properties, ("Name", "ShardCount", "RetentionPeriodHours", "StreamModeDetails"))
        mode = (properties.get("StreamModeDetails") or {}).get("StreamMode", "PROVISIONED")
        if mode != "PROVISIONED":
            raise self.error(
                f"{logical_id}: StreamMode {mode} is not supported",
                properties.line_of("StreamModeDetails"),
                "use PROVISIONED with a ShardCount",
            )
        if "ShardCount" not in properties:
            raise self.error(f"{logical_id}: a provisioned stream needs a ShardCount", line)
        name = self._name(logical_id, STREAM, line)
        return StreamSpec(
            logical_id,
            name,
            self._arn(STREAM, name),
            self._integer(logical_id, properties, "ShardCount", 1, 1, 10_000),
            self._integer(logical_id, properties, "RetentionPeriodHours", 24, 24, 8760),
        )

    def _table(self, logical_id: str, properties: MapNode, line: int) -> TableSpec:
        self._known(
            logical_id,
            TABLE,
            properties,
            (
                "TableName",
                "KeySchema",
                "AttributeDefinitions",
                "BillingMode",
                "ProvisionedThroughput",
                "LocalSecondaryIndexes",
                "GlobalSecondaryIndexes",
                "StreamSpecification",
            ),
        )
        billing = properties.get("BillingMode", "PROVISIONED")
        if billing not in ("PROVISIONED", "PAY_PER_REQUEST"):
            raise self.error(f"{logical_id}: BillingMode {billing!r} is not one", properties.line_of("BillingMode"))
        provisioned = billing == "PROVISIONED"
        rcu, wcu = self._throughput(logical_id, properties, line) if provisioned else (0, 0)
        keys = self._keys(logical_id, properties, line)
        indexes = [
            *self._indexes(logical_id, properties, "LocalSecondaryIndexes", "LSI", False),
            *self._indexes(logical_id, properties, "GlobalSecondaryIndexes", "GSI", provisioned),
        ]
        try:
            types = {
                str(one["AttributeName"]): str(one["AttributeType"])
                for one in properties.get("AttributeDefinitions", [])
            }
        except (KeyError, TypeError):
            raise self.error(
                f"{logical_id}: AttributeDefinitions takes AttributeName and AttributeType",
                properties.line_of("AttributeDefinitions"),
            ) from None
        used = {name for one in (keys, *(index.keys for index in indexes)) for name, _ in one}
        if used != set(types):
            raise self.error(
                f"{logical_id}: AttributeDefinitions must name exactly the key attributes {', '.join(sorted(used))}",
                properties.line_of("AttributeDefinitions"),
            )
        name = self._name(logical_id, TABLE, line)
        view = (properties.get("StreamSpecification") or {}).get("StreamViewType")
        return TableSpec(logical_id, name, self._arn(TABLE, name), keys, types, billing, rcu, wcu, tuple(indexes), view)

    def _throughput(self, what: str, node: MapNode, line: int) -> tuple[int, int]:
        given = node.get("ProvisionedThroughput")
        if not isinstance(given, MapNode):
            raise self.error(f"{what}: PROVISIONED needs ProvisionedThroughput", line)
        return (
            self._integer(what, given, "ReadCapacityUnits", 0, 1, 40_000),
            self._integer(what, given, "WriteCapacityUnits", 0, 1, 40_000),
        )

    def _keys(self, what: str, node: MapNode, line: int) -> tuple[tuple[str, str], ...]:
        try:
            keys = tuple((str(key["AttributeName"]), str(key["KeyType"])) for key in node["KeySchema"])
        except (KeyError, TypeError):
            keys = ()
        if [kind for _, kind in keys] not in (["HASH"], ["HASH", "RANGE"]):
            raise self.error(
                f"{what}: KeySchema takes a HASH key and perhaps a RANGE key", node.line_of("KeySchema") or line
            )
        return keys

    def _indexes(self, logical_id: str, table: MapNode, member: str, kind: str, provisioned: bool) -> list[IndexSpec]:
        found = []
        for index in table.get(member) or []:
            if not isinstance(index, MapNode) or "IndexName" not in index:
                raise self.error(f"{logical_id}: each of {member} needs an IndexName", table.line_of(member))
            what = f"{logical_id} index {index['IndexName']}"
            rcu, wcu = self._throughput(what, index, index.line) if provisioned else (0, 0)
            projection = dict(index.get("Projection") or {"ProjectionType": "ALL"})
            found.append(
                IndexSpec(str(index["IndexName"]), kind, self._keys(what, index, index.line), projection, rcu, wcu)
            )
        return found

    def _sam_function(self, logical_id: str, properties: MapNode, line: int) -> FunctionSpec:
        merged = self._with_globals(properties, line)
        self._known(
            logical_id,
            SAM_FUNCTION,
            merged,
            (
                "FunctionName",
                "Handler",
                "Runtime",
                "CodeUri",
                "Timeout",
                "MemorySize",
                "Environment",
                "Events",
                "ReservedConcurrentExecutions",
            ),
        )
        sources = []
        for name, event in (merged.get("Events") or {}).items():
            event_line = merged["Events"].line_of(name)
            kind = event.get("Type") if isinstance(event, MapNode) else None
            if kind in ("Api", "HttpApi", "Schedule"):
                self.ignored.append(Ignored(f"{logical_id}.Events.{name} ({kind})", event_line, "is not simulated"))
                continue
            if kind != "Kinesis":
                raise self.error(
                    f"{logical_id}: an event of type {kind} is not supported", event_line, "use a Kinesis event"
                )
            settings = event.get("Properties") or MapNode(event_line)
            if "Stream" not in settings:
                raise self.error(f"{logical_id}: event {name} needs a Stream", event_line, "such as !GetAtt Stream.Arn")
            sources.append(self._source(f"{logical_id}{name}", str(settings["Stream"]), settings, ("Stream",)))
        return self._function_spec(logical_id, merged, line, merged.get("CodeUri", "."), tuple(sources))

    def _with_globals(self, properties: MapNode, line: int) -> MapNode:
        """Globals under the function's own, merged as SAM merges: mappings by key, lists appended."""
        globals_ = self.tree.get("Globals") or {}
        shared = globals_.get("Function") if isinstance(globals_, dict) else None
        if not isinstance(shared, MapNode):
            return properties
        return _merge(self.resolver.resolve(shared, line), properties)

    def _function(self, logical_id: str, properties: MapNode, line: int) -> FunctionSpec:
        self._known(
            logical_id,
            FUNCTION,
            properties,
            (
                "FunctionName",
                "Handler",
                "Runtime",
                "Code",
                "Timeout",
                "MemorySize",
                "Environment",
                "ReservedConcurrentExecutions",
            ),
        )
        code = properties.get("Code")
        if not isinstance(code, str):
            raise self.error(
                f"{logical_id}: Code must be a local folder here",
                properties.line_of("Code"),
                "as `sam package` takes it",
            )
        return self._function_spec(logical_id, properties, line, code, ())

    def _function_spec(
        self, logical_id: str, properties: MapNode, line: int, code: Any, sources: tuple[EventSourceSpec, ...]
    ) -> FunctionSpec:
        handler, runtime = str(properties.get("Handler", "")), str(properties.get("Runtime", ""))
        if "." not in handler:
            raise self.error(
                f"{logical_id}: Handler must be module.function, not {handler!r}", properties.line_of("Handler")
            )
        if not runtime.startswith("python3"):
            raise self.error(
                f"{logical_id}: Runtime {runtime or 'missing'} is not supported",
                properties.line_of("Runtime"),
                "functions run locally in Python",
            )
        code_path = (self.path.parent / str(code)).resolve()
        if not code_path.is_dir():
            raise self.error(f"{logical_id}: there is no folder {code}", properties.line_of("CodeUri"))
        variables = (properties.get("Environment") or {}).get("Variables") or {}
        name = self._name(logical_id, SAM_FUNCTION, line)
        reserved = properties.get("ReservedConcurrentExecutions")
        return FunctionSpec(
            logical_id,
            name,
            self._arn(SAM_FUNCTION, name),
            handler,
            runtime,
            code_path,
            self._integer(logical_id, properties, "Timeout", 3, 1, 900),
            self._integer(logical_id, properties, "MemorySize", 128, 128, 10_240),
            {str(key): str(value) for key, value in variables.items()},
            None
            if reserved is None
            else self._integer(logical_id, properties, "ReservedConcurrentExecutions", 0, 0, 1000),
            sources,
        )

    def _mapping_resource(self, logical_id: str, properties: MapNode, line: int) -> tuple[str, EventSourceSpec]:
        for key in ("FunctionName", "EventSourceArn"):
            if key not in properties:
                raise self.error(f"{logical_id} needs {key}", line)
        function = str(properties["FunctionName"]).rpartition(":")[2]
        source = self._source(
            logical_id, str(properties["EventSourceArn"]), properties, ("FunctionName", "EventSourceArn")
        )
        return function, source

    def _with_mappings(self, function: FunctionSpec, mappings: list[tuple[str, EventSourceSpec]]) -> FunctionSpec:
        more = tuple(source for name, source in mappings if name == function.name)
        if not more:
            return function
        values = {name: getattr(function, name) for name in FunctionSpec.__slots__}
        return FunctionSpec(**values | {"event_sources": (*function.event_sources, *more)})

    def _source(self, name: str, arn: str, settings: MapNode, also: tuple[str, ...]) -> EventSourceSpec:
        if ":kinesis:" not in arn:
            raise self.error(f"{name}: the event source {arn} is not supported", settings.line, "use a Kinesis stream")
        for key in settings:
            line = settings.line_of(key)
            if key not in (*MAPPING_KNOWN, *also):
                raise self.error(
                    f"{name}: the property {key} is not supported", line, f"known are {', '.join(MAPPING_KNOWN)}"
                )
            if key in NOT_YET and settings[key] != NOT_YET[key] and str(settings[key]) != str(NOT_YET[key]):
                raise self.error(f"{name}: {key} is not acted on yet", line, f"leave it out, or at {NOT_YET[key]}")
        numbers = {
            key: self._integer(name, settings, key, default, *MAPPING_RANGES[key])
            for key, default in (
                ("BatchSize", 100),
                ("MaximumBatchingWindowInSeconds", 0),
                ("TumblingWindowInSeconds", 0),
                ("MaximumRetryAttempts", -1),
            )
        }
        position = settings.get("StartingPosition")
        if position not in ("TRIM_HORIZON", "LATEST", "AT_TIMESTAMP"):
            raise self.error(
                f"{name}: StartingPosition must be TRIM_HORIZON, LATEST or AT_TIMESTAMP",
                settings.line_of("StartingPosition"),
            )
        stamp = settings.get("StartingPositionTimestamp")
        responses = settings.get("FunctionResponseTypes") or ListNode(0)
        if any(one != "ReportBatchItemFailures" for one in responses):
            raise self.error(
                f"{name}: FunctionResponseTypes may hold ReportBatchItemFailures only",
                settings.line_of("FunctionResponseTypes"),
            )
        return EventSourceSpec(
            name,
            "Kinesis",
            arn,
            position,
            float(stamp) if stamp is not None else None,
            numbers["BatchSize"],
            numbers["MaximumBatchingWindowInSeconds"],
            numbers["TumblingWindowInSeconds"],
            numbers["MaximumRetryAttempts"],
            bool(responses),
        )

    def _bucket(self, logical_id: str, properties: MapNode, line: int) -> BucketSpec:
        self._known(logical_id, BUCKET, properties, ("BucketName",))
        return BucketSpec(logical_id, self._name(logical_id, BUCKET, line))

    def _queue(self, logical_id: str, properties: MapNode, line: int) -> QueueSpec:
        self._known(logical_id, QUEUE, properties, ("QueueName",))
        return QueueSpec(logical_id, self._name(logical_id, QUEUE, line))


def _merge(under: MapNode, over: MapNode) -> MapNode:
    merged = MapNode(over.line)
    merged.lines = under.lines | over.lines
    merged.update(under)
    for key, value in over.items():
        mine = merged.get(key)
        if isinstance(mine, MapNode) and isinstance(value, MapNode):
            merged[key] = _merge(mine, value)
        elif isinstance(mine, ListNode) and isinstance(value, ListNode):
            both = ListNode(value.line)
            both.extend([*mine, *value])
            merged[key] = both
        else:
            merged[key] = value
    return merged
