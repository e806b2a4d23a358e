"""AWS::KinesisFirehose::DeliveryStream: from a Kinesis stream to S3, perhaps through a function.

Ranges and defaults are CreateDeliveryStream's.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from simulator.template.context import Context
from simulator.template.nodes import MapNode
from simulator.template.properties import Properties
from simulator.template.specs import DeliveryStreamSpec, TransformSpec
from simulator.template.support import DELIVERY_DESTINATION_UNDERSTOOD, DELIVERY_STREAM

_DESTINATION = "ExtendedS3DestinationConfiguration"
_SOURCE = "KinesisStreamSourceConfiguration"
_STREAM_ARN = re.compile(r"arn:[^:]+:kinesis:[^:]*:[^:]*:stream/[^/:]+")
_BUCKET_ARN = re.compile(r"arn:[^:]+:s3:::[^:/]+")
_FUNCTION_ARN = re.compile(r"(?P<arn>arn:[^:]+:lambda:[^:]*:[^:]*:function:[^:]+)(?::[^:]+)?")
_COMPRESSIONS = ("UNCOMPRESSED", "GZIP", "ZIP", "Snappy", "HADOOP_SNAPPY")
_BUFFER_MB, _BUFFER_S = (1, 128), (0, 900)
_TRANSFORM_MB = (0.2, 3.0)
_MAX_RETRIES = 300
_PARAMETERS = ("LambdaArn", "NumberOfRetries", "RoleArn", "BufferSizeInMBs", "BufferIntervalInSeconds")


def delivery_stream(logical_id: str, raw: MapNode, context: Context) -> DeliveryStreamSpec:
    """AWS::KinesisFirehose::DeliveryStream."""
    properties = context.take(logical_id, DELIVERY_STREAM, raw)
    kind = properties.text("DeliveryStreamType", "DirectPut")
    if kind != "KinesisStreamAsSource":
        raise properties.error(
            "DeliveryStreamType",
            f"DeliveryStreamType {kind[:80]!r} is not supported",
            f"use KinesisStreamAsSource and {_SOURCE}",
        )
    properties.require(_SOURCE, _DESTINATION)
    # What is ignored inside of them is listed like the rest.
    source, s3 = (
        context.take(logical_id, DELIVERY_STREAM, properties.part(member).values, understood, member)
        for member, understood in ((_SOURCE, ("KinesisStreamARN",)), (_DESTINATION, DELIVERY_DESTINATION_UNDERSTOOD))
    )
    s3.one_of("S3BackupMode", ("Disabled",), "Disabled")
    hints = s3.part("BufferingHints", ("SizeInMBs", "IntervalInSeconds"))
    name = context.names.name(logical_id)
    return DeliveryStreamSpec(
        logical_id,
        name,
        context.names.arn(DELIVERY_STREAM, name),
        _arn(source, "KinesisStreamARN", _STREAM_ARN, "a Kinesis stream"),
        _arn(s3, "BucketARN", _BUCKET_ARN, "a bucket"),
        hints.whole("SizeInMBs", *_BUFFER_MB, 5),
        hints.whole("IntervalInSeconds", *_BUFFER_S, 300),
        s3.text("Prefix", ""),
        s3.text("ErrorOutputPrefix", ""),
        s3.one_of("CompressionFormat", _COMPRESSIONS, "UNCOMPRESSED"),
        _transform(s3),
    )


def _transform(s3: Properties) -> TransformSpec | None:
    """The Lambda processor of ProcessingConfiguration; None when there is none, or it is not enabled."""
    processing = s3.part("ProcessingConfiguration", ("Enabled", "Processors"))
    processors = processing.parts("Processors", ("Type", "Parameters"))
    if not processing.flag("Enabled", False):
        return None
    for one in processors:
        kind = one.text("Type")
        if kind != "Lambda":
            raise one.error("Type", f"a processor of type {kind[:80]!r} is not supported", "supported is Lambda")
    if len(processors) != 1:
        raise processing.error("Processors", f"Processors must have one of type Lambda, not {len(processors)}")
    parameters = MapNode(processors[0].line)
    for one in processors[0].parts("Parameters", ("ParameterName", "ParameterValue")):
        name = one.one_of("ParameterName", _PARAMETERS)
        one.require("ParameterValue")
        parameters.put(name, one.values["ParameterValue"], one.values.line_of("ParameterValue"))
    told = Properties(s3.file, s3.kind, processors[0].what, parameters)
    return TransformSpec(
        _arn(told, "LambdaArn", _FUNCTION_ARN, "a function"),
        _megabytes(told),
        told.whole("BufferIntervalInSeconds", *_BUFFER_S, 60),
        told.whole("NumberOfRetries", 0, _MAX_RETRIES, 3),
    )


def _megabytes(told: Properties) -> float:
    key, (least, most) = "BufferSizeInMBs", _TRANSFORM_MB
    text = told.text(key, "1").strip()
    number = float(text) if re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,6})?", text) else None
    if number is None or not least <= number <= most:
        raise told.error(key, f"{key} must be a number from {least:g} to {most:g}, not {text[:80]!r}")
    return number


def _arn(properties: Properties, key: str, pattern: re.Pattern[str], what: str) -> str:
    """An ARN, without the qualifier of a function."""
    text = properties.text(key)
    found = pattern.fullmatch(text)
    if found is None:
        raise properties.error(key, f"{key} must be the ARN of {what}, not {text[:200]!r}")
    return found.groupdict().get("arn", text)


def missing(spec: DeliveryStreamSpec, streams: Collection[str], functions: Collection[str]) -> str:
    """What ``spec`` refers to that is not among the ARNs of a template; nothing when all is."""
    if spec.stream_arn not in streams:
        return f"{spec.stream_arn} is not a stream of this template"
    if spec.transform is not None and spec.transform.function_arn not in functions:
        return f"{spec.transform.function_arn} is not a function of this template"
    return ""
