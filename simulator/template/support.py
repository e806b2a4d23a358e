"""Which resource types and properties have behaviour here, and which are ignored.

A property of a supported resource is in one of three tables: :data:`UNDERSTOOD`, :data:`IGNORED` (listed to the user
with its reason), or neither, which is an error: silence about a setting that changes behaviour would be a wrong answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

STREAM: Final = "AWS::Kinesis::Stream"
CONSUMER: Final = "AWS::Kinesis::StreamConsumer"
TABLE: Final = "AWS::DynamoDB::Table"
SIMPLE_TABLE: Final = "AWS::Serverless::SimpleTable"
SAM_FUNCTION: Final = "AWS::Serverless::Function"
FUNCTION: Final = "AWS::Lambda::Function"
MAPPING: Final = "AWS::Lambda::EventSourceMapping"
BUCKET: Final = "AWS::S3::Bucket"
QUEUE: Final = "AWS::SQS::Queue"
TOPIC: Final = "AWS::SNS::Topic"
TOPIC_RULE: Final = "AWS::IoT::TopicRule"
SCALABLE_TARGET: Final = "AWS::ApplicationAutoScaling::ScalableTarget"
SCALING_POLICY: Final = "AWS::ApplicationAutoScaling::ScalingPolicy"
DELIVERY_STREAM: Final = "AWS::KinesisFirehose::DeliveryStream"

NO_BEHAVIOUR: Final[tuple[tuple[str, str], ...]] = (
    ("AWS::IAM::", "permissions are not checked here"),
    ("AWS::Cognito::", "identities are not checked here"),
    ("AWS::Logs::", "functions log to this machine"),
    ("AWS::CloudWatch::", "alarms and dashboards of a template are not made here; PutMetricAlarm makes alarms"),
    ("AWS::KMS::", "nothing is encrypted here"),
    ("AWS::SSM::", "parameters of Systems Manager are not simulated"),
    ("AWS::IoT::Policy", "permissions are not checked here"),
    ("AWS::IoT::ThingPrincipalAttachment", "any certificate of the broker's CA may connect here"),
    ("AWS::IoT::Thing", "things are not simulated; any client may connect"),
    ("AWS::IoT::Certificate", "any certificate of the broker's CA may connect here"),
    ("AWS::IoT::Logging", "IoT Core's logs are not simulated"),
    ("AWS::S3::BucketPolicy", "permissions are not checked here"),
    ("AWS::SQS::QueuePolicy", "permissions are not checked here"),
    ("AWS::SNS::TopicPolicy", "permissions are not checked here"),
    ("AWS::SNS::Subscription", "topics have no subscribers here"),
    ("AWS::Lambda::Permission", "permissions are not checked here"),
    ("AWS::Lambda::LayerVersion", "what layers hold must be installed here"),
    ("AWS::Serverless::LayerVersion", "what layers hold must be installed here"),
    ("AWS::Serverless::Connector", "permissions are not checked here"),
    ("AWS::Serverless::Api", "web APIs are not simulated"),
    ("AWS::Serverless::HttpApi", "web APIs are not simulated"),
    ("AWS::ApiGateway", "web APIs are not simulated"),
)

_TAGS = {"Tags": "tags change nothing here"}
_ENCRYPTION = "nothing is encrypted here"
_DEPLOYMENT = "it concerns deployments to AWS only"
_PERMISSIONS = "permissions are not checked here"
_FUNCTION = {
    **_TAGS,
    "Role": _PERMISSIONS,
    "Description": "it changes nothing",
    "Architectures": "functions run on this machine's processor",
    "Layers": "what layers hold must be installed here",
    "LoggingConfig": "functions log to this machine",
    "EphemeralStorage": "functions use this machine's disk",
    "PackageType": _DEPLOYMENT,
    "KmsKeyArn": _ENCRYPTION,
    "VpcConfig": "functions use this machine's network",
    "SnapStart": "functions start as they start here",
    "RuntimeManagementConfig": _DEPLOYMENT,
    "CodeSigningConfigArn": _DEPLOYMENT,
}
_ITEMS = "it changes nothing that is simulated"

IGNORED: Final[Mapping[str, Mapping[str, str]]] = {
    STREAM: {**_TAGS, "StreamEncryption": _ENCRYPTION, "DesiredShardLevelMetrics": "all metrics are always on"},
    CONSUMER: _TAGS,
    TABLE: {
        **_TAGS,
        "SSESpecification": _ENCRYPTION,
        "PointInTimeRecoverySpecification": _ITEMS,
        "DeletionProtectionEnabled": _ITEMS,
        "TableClass": "it changes the price only",
        "ContributorInsightsSpecification": _ITEMS,
        "ResourcePolicy": _PERMISSIONS,
        "TimeToLiveSpecification": "items do not expire here (on AWS they do, within days)",
    },
    SIMPLE_TABLE: {**_TAGS, "SSESpecification": _ENCRYPTION, "PointInTimeRecoverySpecification": _ITEMS},
    SAM_FUNCTION: {
        **_FUNCTION,
        "Policies": _PERMISSIONS,
        "PermissionsBoundary": _PERMISSIONS,
        "AssumeRolePolicyDocument": _PERMISSIONS,
        "RolePath": _PERMISSIONS,
        "Tracing": "traces are not simulated",
        "PropagateTags": "tags change nothing here",
        "AutoPublishAlias": "every invocation runs the code as it is",
        "DeploymentPreference": _DEPLOYMENT,
        "VersionDescription": _DEPLOYMENT,
        "DeadLetterQueue": "it concerns asynchronous invocations, which are not simulated",
        "EventInvokeConfig": "it concerns asynchronous invocations, which are not simulated",
        "FunctionUrlConfig": "web APIs are not simulated",
        "ProvisionedConcurrencyConfig": "functions start as they start here",
    },
    FUNCTION: {
        **_FUNCTION,
        "TracingConfig": "traces are not simulated",
        "DeadLetterConfig": "it concerns asynchronous invocations, which are not simulated",
    },
    MAPPING: {**_TAGS, "KmsKeyArn": _ENCRYPTION, "MetricsConfig": "all metrics are always on"},
    BUCKET: {
        **_TAGS,
        "BucketEncryption": _ENCRYPTION,
        "PublicAccessBlockConfiguration": _PERMISSIONS,
        "OwnershipControls": _PERMISSIONS,
        "AccessControl": _PERMISSIONS,
        "CorsConfiguration": _PERMISSIONS,
        "LifecycleConfiguration": "objects do not expire here",
        "VersioningConfiguration": "buckets keep the last version here",
        "LoggingConfiguration": "access logs are not simulated",
    },
    QUEUE: {
        **_TAGS,
        "KmsMasterKeyId": _ENCRYPTION,
        "KmsDataKeyReusePeriodSeconds": _ENCRYPTION,
        "SqsManagedSseEnabled": _ENCRYPTION,
        "MessageRetentionPeriod": "nothing here waits that long",
        "VisibilityTimeout": "nothing here consumes from queues",
        "ReceiveMessageWaitTimeSeconds": "nothing here consumes from queues",
    },
    TOPIC: {
        **_TAGS,
        "DisplayName": "it changes nothing",
        "KmsMasterKeyId": _ENCRYPTION,
        "Subscription": "topics have no subscribers here",
        "TracingConfig": "traces are not simulated",
        "DeliveryStatusLogging": "deliveries are not logged here",
    },
    TOPIC_RULE: _TAGS,
    SCALABLE_TARGET: {"RoleARN": _PERMISSIONS},
    SCALING_POLICY: {},
    # Of the whole and of its destination.
    DELIVERY_STREAM: {
        **_TAGS,
        "DeliveryStreamEncryptionConfigurationInput": _ENCRYPTION,
        "EncryptionConfiguration": _ENCRYPTION,
        "RoleARN": _PERMISSIONS,
        "CloudWatchLoggingOptions": "what cannot be delivered is not logged here",
        "CustomTimeZone": "nothing is delivered here, it is only planned",
        "FileExtension": "nothing is delivered here, it is only planned",
    },
}

_FUNCTION_UNDERSTOOD = (
    "FunctionName",
    "Handler",
    "Runtime",
    "Timeout",
    "MemorySize",
    "Environment",
    "ReservedConcurrentExecutions",
)
_MAPPING_UNDERSTOOD = (
    "StartingPosition",
    "StartingPositionTimestamp",
    "BatchSize",
    "MaximumBatchingWindowInSeconds",
    "TumblingWindowInSeconds",
    "MaximumRetryAttempts",
    "MaximumRecordAgeInSeconds",
    "ParallelizationFactor",
    "BisectBatchOnFunctionError",
    "FunctionResponseTypes",
    "FilterCriteria",
    "DestinationConfig",
    "Enabled",
)
UNDERSTOOD: Final[Mapping[str, tuple[str, ...]]] = {
    STREAM: ("Name", "ShardCount", "RetentionPeriodHours", "StreamModeDetails", "MaxRecordSizeInKiB"),
    CONSUMER: ("ConsumerName", "StreamARN"),
    TABLE: (
        "TableName",
        "KeySchema",
        "AttributeDefinitions",
        "BillingMode",
        "ProvisionedThroughput",
        "LocalSecondaryIndexes",
        "GlobalSecondaryIndexes",
        "StreamSpecification",
    ),
    SIMPLE_TABLE: ("TableName", "PrimaryKey", "ProvisionedThroughput"),
    SAM_FUNCTION: (*_FUNCTION_UNDERSTOOD, "CodeUri", "Events"),
    FUNCTION: (*_FUNCTION_UNDERSTOOD, "Code"),
    MAPPING: ("FunctionName", "EventSourceArn", *_MAPPING_UNDERSTOOD),
    BUCKET: ("BucketName",),
    QUEUE: ("QueueName",),
    TOPIC: ("TopicName",),
    TOPIC_RULE: ("RuleName", "TopicRulePayload"),
    SCALABLE_TARGET: ("ServiceNamespace", "ResourceId", "ScalableDimension", "MinCapacity", "MaxCapacity"),
    SCALING_POLICY: (
        "PolicyName",
        "PolicyType",
        "ScalingTargetId",
        "ServiceNamespace",
        "ResourceId",
        "ScalableDimension",
        "TargetTrackingScalingPolicyConfiguration",
    ),
    DELIVERY_STREAM: (
        "DeliveryStreamName",
        "DeliveryStreamType",
        "KinesisStreamSourceConfiguration",
        "ExtendedS3DestinationConfiguration",
    ),
}
DELIVERY_DESTINATION_UNDERSTOOD: Final = (
    "BucketARN",
    "BufferingHints",
    "Prefix",
    "ErrorOutputPrefix",
    "CompressionFormat",
    "ProcessingConfiguration",
    "S3BackupMode",
)
STREAM_EVENT_UNDERSTOOD: Final = ("Stream", *_MAPPING_UNDERSTOOD)
# SAM's events that are event source mappings of a stream.
STREAM_EVENTS: Final = ("Kinesis", "DynamoDB")

# SAM's events that reach a function otherwise than by an event source mapping of a stream.
IGNORED_EVENTS: Final[Mapping[str, str]] = {
    "Api": "web APIs are not simulated",
    "HttpApi": "web APIs are not simulated",
    "IoTRule": "rules that invoke a function are not simulated; a rule can put on a stream that the function reads",
    "Schedule": "schedules are not simulated",
    "ScheduleV2": "schedules are not simulated",
}


def ignored_type(kind: str) -> str | None:
    """Why resources of type ``kind`` carry no behaviour here; None when they may."""
    return next((reason for prefix, reason in NO_BEHAVIOUR if kind.startswith(prefix)), None)
