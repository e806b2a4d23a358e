"""Kinesis's control plane: registered consumers of enhanced fan-out."""

from __future__ import annotations

from typing import Any

from simulator.cloud import limits, page_tokens
from simulator.cloud.errors import AwsError
from simulator.cloud.fan_out import Consumer
from simulator.cloud.kinesis import Kinesis
from simulator.cloud.kinesis_streams import Operation
from simulator.cloud.stream import Stream


def register(kinesis: Kinesis, request: dict[str, Any], now: float) -> dict[str, Any]:
    stream, name = kinesis.resolve(None, request["StreamARN"]), request["ConsumerName"]
    stream.require_usable(now)
    if name in stream.consumers:
        raise AwsError(
            "ResourceInUseException",
            f"Consumer {name} under stream {stream.arn} already exists for account {stream.account_id}.",
        )
    settings = kinesis.settings
    creating = sum(consumer.status(now) == "CREATING" for consumer in stream.consumers.values())
    for count, quota, what in (
        (len(stream.consumers), limits.FAN_OUT_CONSUMERS, "registered consumers"),
        (creating, limits.FAN_OUT_CREATING, "consumers in the CREATING state"),
    ):
        if settings.enforced and count >= quota.value:
            raise AwsError(
                "LimitExceededException",
                f"Stream {stream.name} under account {stream.account_id} already has {count} {what}, "
                "which is the limit.",
            )
    consumer = Consumer(name, stream.arn, now, now + settings.stream_transition_seconds, dict(request.get("Tags", {})))
    stream.consumers[name] = consumer
    # AWS answers CREATING even when the consumer can be used at once.
    return {"Consumer": _summary(consumer, now) | {"ConsumerStatus": "CREATING"}}


def describe(kinesis: Kinesis, request: dict[str, Any], now: float) -> dict[str, Any]:
    stream, consumer = consumer_of(kinesis, request)
    return {"ConsumerDescription": _summary(consumer, now) | {"StreamARN": stream.arn}}


def list_consumers(kinesis: Kinesis, request: dict[str, Any], now: float) -> dict[str, Any]:
    stream = kinesis.resolve(None, request["StreamARN"])
    after = ""
    if "NextToken" in request:
        after = page_tokens.read("ListStreamConsumers", request["NextToken"], now)["after"]
    names = sorted(name for name in stream.consumers if name > after)
    page = names[: request.get("MaxResults", 100)]
    answer: dict[str, Any] = {"Consumers": [_summary(stream.consumers[name], now) for name in page]}
    if len(names) > len(page):
        answer["NextToken"] = page_tokens.issue("ListStreamConsumers", {"after": page[-1]}, now)
    return answer


def deregister(kinesis: Kinesis, request: dict[str, Any], now: float) -> None:
    stream, consumer = consumer_of(kinesis, request)
    consumer.end()
    del stream.consumers[consumer.name]


def consumer_of(kinesis: Kinesis, request: dict[str, Any]) -> tuple[Stream, Consumer]:
    """The consumer named by ConsumerARN, or by StreamARN and ConsumerName.

    :raises AwsError: InvalidArgumentException, ResourceNotFoundException.
    """
    arn, name = request.get("ConsumerARN"), request.get("ConsumerName")
    if arn is not None:
        stream_arn, _, rest = arn.partition("/consumer/")
        stream, name = kinesis.resolve(None, stream_arn), rest.partition(":")[0]
    elif name is not None and "StreamARN" in request:
        stream = kinesis.resolve(None, request["StreamARN"])
    else:
        raise AwsError(
            "InvalidArgumentException", "Either ConsumerARN or both StreamARN and ConsumerName must be provided."
        )
    consumer = stream.consumers.get(name)
    if consumer is None or arn not in (None, consumer.arn):
        raise AwsError("ResourceNotFoundException", f"Consumer {arn or name}, account {stream.account_id} not found.")
    return stream, consumer


def _summary(consumer: Consumer, now: float) -> dict[str, Any]:
    return {
        "ConsumerName": consumer.name,
        "ConsumerARN": consumer.arn,
        "ConsumerStatus": consumer.status(now),
        "ConsumerCreationTimestamp": round(consumer.created_at, 3),
    }


OPERATIONS: dict[str, Operation] = {
    "DeregisterStreamConsumer": deregister,
    "DescribeStreamConsumer": describe,
    "ListStreamConsumers": list_consumers,
    "RegisterStreamConsumer": register,
}
