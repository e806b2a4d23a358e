"""The actions of a rule, compiled from the API's shapes: Kinesis, Republish, S3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simulator.cloud import limits
from simulator.cloud.errors import AwsError
from simulator.cloud.iot_sql import SqlError
from simulator.cloud.iot_templates import Render, compile_template
from simulator.cloud.topic_filters import problem_with_topic

SIMULATED = ("kinesis", "republish", "s3")


@dataclass(frozen=True, slots=True)
class Action:
    """``kind`` is ActionType's value in CloudWatch, ``resource`` what a failure names."""

    kind: str
    resource: str


@dataclass(frozen=True, slots=True)
class KinesisAction(Action):
    """One PutRecord a message."""

    stream: Render
    partition_key: Render


@dataclass(frozen=True, slots=True)
class RepublishAction(Action):
    """A publish to another topic."""

    topic: Render
    qos: int

    @staticmethod
    def problem_with(topic: str, payload: bytes) -> str | None:
        """Why nothing can be published there."""
        if topic.startswith("$") and not topic.startswith("$aws/rules/"):
            return f"{topic!r} is reserved, and reserved topics are not simulated"
        if len(payload) > int(limits.IOT_PAYLOAD_MAX_BYTES):
            return f"the payload has {len(payload)} bytes, more than 128 KB"
        return problem_with_topic(topic)


@dataclass(frozen=True, slots=True)
class S3Action(Action):
    """A PutObject a message."""

    bucket: Render
    key: Render
    canned_acl: str | None


def compile_action(action: Mapping[str, Any], version: str) -> Action:
    """An action of TopicRulePayload; its templates are in the rule's version of the SQL.

    :raises AwsError: InvalidRequestException, SqlParseException.
    """
    given = {name: members for name, members in action.items() if members is not None}
    if len(given) != 1:
        raise AwsError("InvalidRequestException", f"An action is one of its kinds, not {sorted(given) or 'none'}.")
    ((name, members),) = given.items()
    try:
        match name:
            case "kinesis":
                stream = members["streamName"]
                key = compile_template(members.get("partitionKey") or "", version)
                return KinesisAction("Kinesis", stream, compile_template(stream, version), key)
            case "republish":
                topic = members["topic"]
                # $$ stands for the $ of a reserved topic, which would begin a template otherwise.
                plain = topic[1:] if topic.startswith("$$") else topic
                qos = int(members.get("qos") or 0)
                return RepublishAction("Republish", topic, compile_template(plain, version), qos)
            case "s3":
                bucket = members["bucketName"]
                return S3Action(
                    "S3",
                    bucket,
                    compile_template(bucket, version),
                    compile_template(members["key"], version),
                    members.get("cannedAcl"),
                )
    except SqlError as error:
        raise AwsError("SqlParseException", f"The {name} action: {error}.") from None
    raise AwsError(
        "InvalidRequestException",
        f"The action {name} is not simulated by this endpoint; {', '.join(SIMULATED)} are.",
    )
