"""Names and ARNs: what Ref and GetAtt of a resource give, as AWS gives them.

A resource without a name gets ``STACK-LOGICALID``; AWS adds a random suffix, here the same template always means the
same names.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from simulator.template.errors import TemplateError
from simulator.template.intrinsics import NO_VALUE, Resolver, scalar_text
from simulator.template.nodes import MapNode
from simulator.template.support import (
    BUCKET,
    CONSUMER,
    DELIVERY_STREAM,
    FUNCTION,
    MAPPING,
    QUEUE,
    SAM_FUNCTION,
    SCALABLE_TARGET,
    SIMPLE_TABLE,
    STREAM,
    TABLE,
    TOPIC,
    TOPIC_RULE,
    ignored_type,
)

# The property that names a resource, and what names may be (the service models of botocore).
_RULES: Final[Mapping[str, tuple[str, str]]] = {
    STREAM: ("Name", r"[a-zA-Z0-9_.-]{1,128}"),
    CONSUMER: ("ConsumerName", r"[a-zA-Z0-9_.-]{1,128}"),
    TABLE: ("TableName", r"[a-zA-Z0-9_.-]{3,255}"),
    SIMPLE_TABLE: ("TableName", r"[a-zA-Z0-9_.-]{3,255}"),
    SAM_FUNCTION: ("FunctionName", r"[a-zA-Z0-9_-]{1,64}"),
    FUNCTION: ("FunctionName", r"[a-zA-Z0-9_-]{1,64}"),
    BUCKET: ("BucketName", r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"),
    QUEUE: ("QueueName", r"[a-zA-Z0-9_-]{1,80}"),
    TOPIC: ("TopicName", r"[a-zA-Z0-9_-]{1,256}"),
    TOPIC_RULE: ("RuleName", r"[a-zA-Z0-9_]{1,128}"),
    DELIVERY_STREAM: ("DeliveryStreamName", r"[a-zA-Z0-9_.-]{1,64}"),
}
# Resources that SAM adds to a template, and that other parts of it may therefore refer to.
_SAM_ADDS = re.compile(r"Serverless(Rest|Http)Api([A-Z]\w*)?")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a template is deployed: what the pseudo parameters say.

    ``physical_names`` are what resources without a name are called there, by logical id.
    """

    region: str
    account_id: str
    stack_name: str
    physical_names: Mapping[str, str] = field(default_factory=dict)

    @property
    def partition(self) -> str:
        special = {"cn-": "aws-cn", "us-gov-": "aws-us-gov"}
        return next((name for prefix, name in special.items() if self.region.startswith(prefix)), "aws")

    def pseudo_parameters(self) -> dict[str, Any]:
        """AWS::NoValue is not among them: it is no value."""
        stack = f"arn:{self.partition}:cloudformation:{self.region}:{self.account_id}:stack/{self.stack_name}/local"
        return {
            "AWS::Region": self.region,
            "AWS::AccountId": self.account_id,
            "AWS::Partition": self.partition,
            "AWS::StackName": self.stack_name,
            "AWS::StackId": stack,
            "AWS::URLSuffix": self.url_suffix,
            "AWS::NotificationARNs": [],
        }

    @property
    def url_suffix(self) -> str:
        return "amazonaws.com.cn" if self.partition == "aws-cn" else "amazonaws.com"


def consumer_arn(stream_arn: str, name: str) -> str:
    """The ARN of a stream's consumer; AWS puts the time of its registration at the end, in seconds."""
    return f"{stream_arn}/consumer/{name}:0"


class Names:
    """Names, ARNs and attributes of the resources of one template."""

    def __init__(self, file: Path, resources: MapNode, place: Place, resolver: Resolver) -> None:
        self.file, self.resources, self.place, self.resolver = file, resources, place, resolver
        self._known: dict[str, str] = {}
        self._asking: list[str] = []

    def error(self, message: str, line: int, advice: str = "") -> TemplateError:
        return TemplateError(message, self.file, line, advice)

    def kind(self, logical_id: str) -> str:
        """The type of a resource. :raises TemplateError: when it has none."""
        line = self.resources.line_of(logical_id)
        if logical_id.startswith("Fn::"):
            raise self.error(f"the intrinsic function {logical_id} is not supported", line, "write the resources out")
        resource = self.resources[logical_id]
        if not isinstance(resource, MapNode):
            raise self.error(f"{logical_id} must be a mapping with a Type", line)
        if not isinstance(resource.get("Type"), str):
            raise self.error(f"{logical_id} has no Type", line, f"give it one such as {STREAM}")
        return str(resource["Type"])

    def value(self, logical_id: str, attribute: str | None, line: int) -> Any:
        """What ``Ref`` (``attribute=None``) or ``GetAtt`` of a resource gives. :raises TemplateError: unknown."""
        if logical_id not in self.resources:
            if not self._added_by_sam(logical_id):
                known = [*(one for one in self.resolver.parameters if not one.startswith("AWS::")), *self.resources]
                near = difflib.get_close_matches(logical_id, known, 1)
                advice = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
                raise self.error(f"there is no parameter or resource {logical_id}", line, advice)
            return self._of_ignored(logical_id, "", attribute)
        kind = self.kind(logical_id)
        if kind == SCALABLE_TARGET and attribute is None:
            return self._of_scalable_target(logical_id)
        if kind not in _RULES:
            if kind != MAPPING and ignored_type(kind) is None:
                raise self.error(f"{logical_id}: the resource type {kind} is not supported", line)
            return self._of_ignored(logical_id, kind, attribute)
        name = self.name(logical_id)
        if kind == CONSUMER:
            return self._of_consumer(logical_id, name, attribute, line)
        place = self.place
        url = f"https://sqs.{place.region}.{place.url_suffix}/{place.account_id}/{name}"
        if attribute is None:
            return url if kind == QUEUE else self.arn(kind, name) if kind == TOPIC else name
        arn = self.arn(kind, name)
        attributes = {"TopicArn": arn, "TopicName": name} if kind == TOPIC else {"Arn": arn}
        if kind == TABLE and "StreamSpecification" in (self.resources[logical_id].get("Properties") or {}):
            # AWS puts the time of its creation here.
            attributes["StreamArn"] = f"{arn}/stream/latest"
        elif kind == QUEUE:
            attributes |= {"QueueName": name, "QueueUrl": url}
        elif kind == BUCKET:
            attributes["DomainName"] = f"{name}.s3.{place.url_suffix}"
            attributes["RegionalDomainName"] = f"{name}.s3.{place.region}.{place.url_suffix}"
        if attribute not in attributes:
            there = ", ".join(attributes)
            raise self.error(f"{logical_id} ({kind}) has no attribute {attribute}", line, f"it has {there}")
        return attributes[attribute]

    def _of_scalable_target(self, logical_id: str) -> str:
        """``table/NAME|dynamodb:table:WriteCapacityUnits|dynamodb``."""
        properties = self.resources[logical_id].get("Properties") or MapNode(self.resources.line_of(logical_id))
        parts = [
            scalar_text(self.resolver.resolve(properties.get(key, ""), properties.line_of(key))) or ""
            for key in ("ResourceId", "ScalableDimension", "ServiceNamespace")
        ]
        return "|".join(parts)

    def _of_consumer(self, logical_id: str, name: str, attribute: str | None, line: int) -> str:
        properties = self.resources[logical_id].get("Properties")
        stream: str | None = None
        if isinstance(properties, MapNode) and "StreamARN" in properties:
            stream = scalar_text(self.resolver.resolve(properties["StreamARN"], properties.line_of("StreamARN")))
        if stream is None:
            raise self.error(f"{logical_id}: StreamARN is missing", self.resources.line_of(logical_id))
        attributes: dict[str, str] = {
            "ConsumerARN": consumer_arn(stream, name),
            "ConsumerName": name,
            "ConsumerStatus": "ACTIVE",
            "StreamARN": stream,
        }
        if (attribute or "ConsumerARN") not in attributes:
            there = ", ".join(attributes)
            raise self.error(f"{logical_id} ({CONSUMER}) has no attribute {attribute}", line, f"it has {there}")
        return attributes[attribute or "ConsumerARN"]

    def name(self, logical_id: str) -> str:
        """The physical name of a resource of a supported type. :raises TemplateError: not a possible name."""
        if logical_id in self._known:
            return self._known[logical_id]
        kind, line = self.kind(logical_id), self.resources.line_of(logical_id)
        key, rule = _RULES[kind]
        properties = self.resources[logical_id].get("Properties")
        given: Any = NO_VALUE
        if isinstance(properties, MapNode) and key in properties:
            line = properties.line_of(key)
            if logical_id in self._asking:
                circle = " -> ".join([*self._asking, logical_id])
                raise self.error(f"resources refer to each other in a circle: {circle}", line, "name one of them")
            self._asking.append(logical_id)
            given = self.resolver.resolve(properties[key], line)
            self._asking.pop()
        if given is not NO_VALUE:
            name = scalar_text(given) or ""
        elif logical_id in self.place.physical_names:
            name = self.place.physical_names[logical_id]
        else:
            name = f"{self.place.stack_name}-{logical_id}"
            name = name.lower() if kind == BUCKET else name
            name = re.sub(r"[^a-zA-Z0-9_]", "_", name) if kind == TOPIC_RULE else name
        if not re.fullmatch(rule, name):
            raise self.error(f"{logical_id}: {name[:300]!r} is not a possible {key}", line, f"it must match {rule}")
        self._known[logical_id] = name
        return name

    def arn(self, kind: str, name: str) -> str:
        partition, where = self.place.partition, f"{self.place.region}:{self.place.account_id}"
        return {
            STREAM: f"arn:{partition}:kinesis:{where}:stream/{name}",
            TABLE: f"arn:{partition}:dynamodb:{where}:table/{name}",
            SIMPLE_TABLE: f"arn:{partition}:dynamodb:{where}:table/{name}",
            BUCKET: f"arn:{partition}:s3:::{name}",
            QUEUE: f"arn:{partition}:sqs:{where}:{name}",
            TOPIC: f"arn:{partition}:sns:{where}:{name}",
            TOPIC_RULE: f"arn:{partition}:iot:{where}:rule/{name}",
            DELIVERY_STREAM: f"arn:{partition}:firehose:{where}:deliverystream/{name}",
        }.get(kind, f"arn:{partition}:lambda:{where}:function:{name}")

    def _added_by_sam(self, logical_id: str) -> bool:
        if _SAM_ADDS.fullmatch(logical_id):
            return True
        for function, resource in self.resources.items():
            if not logical_id.startswith(function) or not isinstance(resource, MapNode):
                continue
            properties = resource.get("Properties")
            events = properties.get("Events") if isinstance(properties, MapNode) else None
            added = ("Role", *(events if isinstance(events, MapNode) else ()))
            if resource.get("Type") == SAM_FUNCTION and logical_id.removeprefix(function) in added:
                return True
        return False

    def _of_ignored(self, logical_id: str, kind: str, attribute: str | None) -> str:
        """Something plausible for what is not simulated: others, such as outputs, may be built of it."""
        name = f"{self.place.stack_name}-{logical_id}"
        if attribute is None:
            return name
        if attribute == "Arn":
            service = kind.split("::")[1].lower() if "::" in kind else "iam"
            resource = f"role/{name}" if service == "iam" else name
            region = "" if service == "iam" else self.place.region
            return f"arn:{self.place.partition}:{service}:{region}:{self.place.account_id}:{resource}"
        return f"{name}.{attribute}"
