"""Where a race runs: the embedded cloud, or whatever AWS's own settings point at.

One object gives every part the same clients and hands functions the same environment, so that nothing else
knows which it is.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import boto3
import botocore.exceptions
import botocore.parsers
from botocore.config import Config

from simulator.cloud.server import CloudProcess, client_environment
from simulator.deployment import ConsumerSpec, Deployment


class TargetError(Exception):
    """The target could not be reached, or lacks what the race needs. The text says what to do (exit code 3)."""


_DEFAULT_RETENTION_HOURS = 24


@dataclass(frozen=True, slots=True)
class Target:
    """``kind`` is ``local`` or ``aws``; ``environment`` is what functions need to find the same place."""

    kind: str
    region: str
    endpoint_url: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    cloud: CloudProcess | None = None
    mqtt_url: str | None = None

    @property
    def keys(self) -> dict[str, str]:
        """boto3's arguments for credentials: the conventional ones of the embedded cloud, none for AWS's own chain."""
        return {"aws_access_key_id": "test", "aws_secret_access_key": "test"} if self.kind == "local" else {}

    def client(self, service: str, **config: Any) -> Any:
        """A boto3 client of ``service``; ``config`` are members of botocore's Config.

        :raises TargetError: when the endpoint is no address.
        """
        settings: dict[str, Any] = {"retries": {"mode": "standard", "total_max_attempts": 10}, **config}
        if self.endpoint_url:
            settings["s3"] = {"addressing_style": "path"}
        try:
            return boto3.session.Session(region_name=self.region, **self.keys).client(
                service, endpoint_url=self.endpoint_url, config=Config(**settings)
            )
        except ValueError as error:
            raise TargetError(f"cannot use {service}: {error} (AWS_ENDPOINT_URL?)") from None


def local_target(cloud: CloudProcess, region: str) -> Target:
    """The embedded cloud, already started."""
    return replace(endpoint_target(cloud.endpoint_url, region), cloud=cloud, mqtt_url=cloud.mqtt_url)


def endpoint_target(url: str, region: str) -> Target:
    """An embedded cloud, or another emulator, that somebody else runs at ``url``; any credentials will do."""
    return Target("local", region, url, client_environment(url, region))


def aws_target() -> Target:
    """What the usual variables and profile name; ``AWS_ENDPOINT_URL`` is honoured as everywhere.

    :raises TargetError: without a region or credentials.
    """
    session = boto3.session.Session()
    # boto3 reads AWS_DEFAULT_REGION only; the other SDKs, Lambda and the CLI's users mean AWS_REGION.
    region = os.environ.get("AWS_REGION") or session.region_name
    if not region:
        raise TargetError("no AWS region is configured; set AWS_REGION, or choose a profile with AWS_PROFILE")
    try:
        credentials = session.get_credentials()
    except botocore.exceptions.BotoCoreError as error:
        raise TargetError(f"AWS credentials could not be loaded: {error}") from None
    if credentials is None:
        raise TargetError("no AWS credentials were found; set AWS_PROFILE, or run `aws configure`")
    return Target("aws", region, None, {"AWS_REGION": region, "AWS_DEFAULT_REGION": region})


def physical_names(target: Target, stack_name: str) -> dict[str, str]:
    """What CloudFormation called the resources of a stack, by logical id; empty when it does not tell.

    A stack that is not there, or a caller who may not ask, is no error: the template may name all that matters.
    """
    client = target.client("cloudformation", connect_timeout=5, retries={"mode": "standard", "total_max_attempts": 2})
    try:
        return {
            one["LogicalResourceId"]: _name_in(one["PhysicalResourceId"])
            for page in client.get_paginator("list_stack_resources").paginate(StackName=stack_name)
            for one in page["StackResourceSummaries"]
            if one.get("PhysicalResourceId")
        }
    except (
        botocore.exceptions.ClientError,
        botocore.exceptions.BotoCoreError,
        botocore.parsers.ResponseParserError,
    ):
        return {}


def _name_in(physical_id: str) -> str:
    """The name in a physical id, which is that name, an ARN, or the URL of a queue."""
    _, is_consumer, rest = physical_id.partition("/consumer/")
    return rest.partition(":")[0] if is_consumer else re.split("[/:]", physical_id)[-1]


@contextlib.contextmanager
def reaching(target: Target, what: str) -> Iterator[None]:
    """Turn botocore's errors while doing ``what`` into one :class:`TargetError`."""
    try:
        yield
    except botocore.exceptions.ClientError as error:
        told = error.response["Error"]
        raise TargetError(f"{what} failed: {told.get('Code')}: {told.get('Message')}") from None
    except botocore.exceptions.BotoCoreError as error:
        where = target.endpoint_url or f"AWS in {target.region}"
        raise TargetError(f"{what} failed: {where} gave no answer ({error})") from None


def provision(target: Target, deployment: Deployment) -> None:
    """Create every stream, consumer, table, bucket, queue and topic of ``deployment``, and wait until they can be used.

    :raises TargetError: when one cannot be created.
    """
    with reaching(target, "creating the stream"):
        kinesis = target.client("kinesis")
        for stream in deployment.streams:
            kinesis.create_stream(**stream.create_stream_kwargs())
        for stream in deployment.streams:
            kinesis.get_waiter("stream_exists").wait(StreamName=stream.name, WaiterConfig={"Delay": 1})
            if stream.retention_hours != _DEFAULT_RETENTION_HOURS:
                kinesis.increase_stream_retention_period(
                    StreamName=stream.name, RetentionPeriodHours=stream.retention_hours
                )
        for consumer in deployment.consumers:
            kinesis.register_stream_consumer(StreamARN=consumer.stream_arn, ConsumerName=consumer.name)
        for consumer in deployment.consumers:
            while _consumer_status(kinesis, consumer) != "ACTIVE":
                time.sleep(0.2)
    with reaching(target, "creating the table"):
        dynamodb = target.client("dynamodb")
        for table in deployment.tables:
            dynamodb.create_table(**table.create_table_kwargs())
        for table in deployment.tables:
            dynamodb.get_waiter("table_exists").wait(TableName=table.name, WaiterConfig={"Delay": 1})
    if deployment.scalable_targets:
        with reaching(target, "registering auto scaling"):
            scaling = target.client("application-autoscaling")
            for scalable in deployment.scalable_targets:
                scaling.register_scalable_target(**scalable.register_kwargs())
            for policy in deployment.scaling_policies:
                scaling.put_scaling_policy(**policy.put_kwargs())
    if deployment.buckets:
        with reaching(target, "creating the bucket"):
            s3 = target.client("s3")
            elsewhere = {} if target.region == "us-east-1" else {"LocationConstraint": target.region}
            for bucket in deployment.buckets:
                s3.create_bucket(Bucket=bucket.name, **({"CreateBucketConfiguration": elsewhere} if elsewhere else {}))
    if deployment.queues:
        with reaching(target, "creating the queue"):
            sqs = target.client("sqs")
            for queue in deployment.queues:
                sqs.create_queue(QueueName=queue.name)
    if deployment.topic_rules:
        with reaching(target, "creating the topic rule"):
            iot = target.client("iot")
            for rule in deployment.topic_rules:
                iot.create_topic_rule(ruleName=rule.name, topicRulePayload=dict(rule.payload))
    if deployment.topics:
        with reaching(target, "creating the topic"):
            sns = target.client("sns")
            for topic in deployment.topics:
                sns.create_topic(Name=topic.name)


def _consumer_status(kinesis: Any, consumer: ConsumerSpec) -> str:
    found = kinesis.describe_stream_consumer(StreamARN=consumer.stream_arn, ConsumerName=consumer.name)
    return str(found["ConsumerDescription"]["ConsumerStatus"])


def require(target: Target, deployment: Deployment) -> None:
    """Check that what ``deployment`` names exists on a target that is not ours to provision.

    :raises TargetError: naming what is missing and how to deploy it.
    """
    for service, resources, describe, argument in (
        ("kinesis", deployment.streams, "describe_stream_summary", "StreamName"),
        ("dynamodb", deployment.tables, "describe_table", "TableName"),
    ):
        client = target.client(service, connect_timeout=5)
        for resource in resources:
            try:
                with reaching(target, f"looking for {resource.name}"):
                    getattr(client, describe)(**{argument: resource.name})
            except TargetError as error:
                if "ResourceNotFoundException" in str(error):
                    noun = "stream" if service == "kinesis" else "table"
                    where = target.endpoint_url or target.region
                    raise TargetError(
                        f"there is no {noun} {resource.name} in {where}; deploy it first: "
                        f"sam build && sam deploy --config-env {deployment.config_env}"
                    ) from None
                raise
