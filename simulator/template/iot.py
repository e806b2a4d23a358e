"""AWS::IoT::TopicRule: a rule of IoT Core and its actions, as CreateTopicRule takes them."""

from __future__ import annotations

from typing import Any

from simulator.template.names import Names
from simulator.template.properties import Properties
from simulator.template.specs import TopicRuleSpec

_PAYLOAD = ("Sql", "AwsIotSqlVersion", "RuleDisabled", "Description", "Actions", "ErrorAction")
_VERSIONS = ("2015-10-08", "2016-03-23", "beta")
_ACTIONS = ("Kinesis", "Republish", "S3")
_MOST_ACTIONS = 10
_ACLS = (
    "private",
    "public-read",
    "public-read-write",
    "aws-exec-read",
    "authenticated-read",
    "bucket-owner-read",
    "bucket-owner-full-control",
    "log-delivery-write",
)


def topic_rule(logical_id: str, properties: Properties, names: Names) -> TopicRuleSpec:
    """AWS::IoT::TopicRule."""
    properties.require("TopicRulePayload")
    payload = properties.part("TopicRulePayload", _PAYLOAD)
    payload.require("Sql", "Actions")
    actions = payload.parts("Actions", _action_kinds(payload, "Actions"))
    if len(actions) > _MOST_ACTIONS:
        raise payload.error("Actions", f"a rule has at most {_MOST_ACTIONS} actions, this one {len(actions)}")
    told: dict[str, Any] = {
        "sql": payload.text("Sql"),
        "awsIotSqlVersion": payload.one_of("AwsIotSqlVersion", _VERSIONS, "2015-10-08"),
        "ruleDisabled": payload.flag("RuleDisabled", False),
        "actions": [_action(action) for action in actions],
    }
    if "Description" in payload:
        told["description"] = payload.text("Description")
    if "ErrorAction" in payload:
        told["errorAction"] = _action(payload.part("ErrorAction", _action_kinds(payload, "ErrorAction")))
    name = names.name(logical_id)
    return TopicRuleSpec(logical_id, name, names.arn(properties.kind, name), told)


def _action_kinds(payload: Properties, member: str) -> tuple[str, ...]:
    """The kinds that are simulated; names the first that is not. :raises TemplateError:"""
    given = payload.values.get(member)
    for one in given if isinstance(given, list) else [given]:
        for kind in one if isinstance(one, dict) else ():
            if kind not in _ACTIONS:
                raise payload.error(
                    member, f"the action {kind} is not supported", f"supported are {', '.join(_ACTIONS)}"
                )
    return _ACTIONS


def _action(given: Properties) -> dict[str, Any]:
    kinds = [kind for kind in _ACTIONS if kind in given]
    if len(kinds) != 1:
        raise given.error("", f"an action is one of {', '.join(_ACTIONS)}")
    match kinds[0]:
        case "Kinesis":
            one = given.part("Kinesis", ("StreamName", "PartitionKey", "RoleArn"))
            kinesis = {"roleArn": one.text("RoleArn"), "streamName": one.text("StreamName")}
            if "PartitionKey" in one:
                kinesis["partitionKey"] = one.text("PartitionKey")
            return {"kinesis": kinesis}
        case "Republish":
            one = given.part("Republish", ("Topic", "Qos", "RoleArn"))
            qos = one.whole("Qos", 0, 1, 0)
            return {"republish": {"roleArn": one.text("RoleArn"), "topic": one.text("Topic"), "qos": qos}}
    one = given.part("S3", ("BucketName", "Key", "CannedAcl", "RoleArn"))
    s3 = {"roleArn": one.text("RoleArn"), "bucketName": one.text("BucketName"), "key": one.text("Key")}
    if "CannedAcl" in one:
        s3["cannedAcl"] = one.one_of("CannedAcl", _ACLS)
    return {"s3": s3}
