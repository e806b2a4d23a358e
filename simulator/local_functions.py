"""A deployment's functions and event sources, as the consumer runtime takes them, on a target.

What a template cannot know is asked of the target: the account in a stream's ARN, when a table's stream was enabled,
when a consumer was registered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from consumers.runtime import (
    ConfigurationError,
    FunctionConfig,
    MappingConfig,
    Runtime,
    dynamodb_streams_client,
    kinesis_client,
    service_client,
)
from simulator.deployment import Deployment, DeploymentError, EventSourceSpec, FunctionSpec
from simulator.target import Target, TargetError, reaching


def function_config(function: FunctionSpec, deployment: Deployment, target: Target) -> FunctionConfig:
    """``function`` with the environment that lets its code find the target."""
    return FunctionConfig(
        name=function.name,
        handler=function.handler,
        code_path=function.code_path,
        timeout_s=function.timeout_s,
        memory_mb=function.memory_mb,
        environment={**target.environment, **function.environment},
        reserved_concurrency=function.reserved_concurrency,
        region=deployment.region,
        account_id=deployment.account_id,
    )


def mapping_config(function: FunctionSpec, source: EventSourceSpec, stream_arn: str) -> MappingConfig:
    """``source`` of ``function``; ``stream_arn`` is what :func:`source_arn_on` says.

    :raises DeploymentError: the runtime refuses a setting, a filter's pattern say.
    """
    try:
        return MappingConfig(
            name=source.name,
            function_name=function.name,
            stream_name=source.source_name,
            stream_arn=stream_arn,
            batch_size=source.batch_size,
            batching_window_s=source.batching_window_s,
            tumbling_window_s=source.tumbling_window_s,
            starting_position=source.starting_position,  # type: ignore[arg-type]
            starting_timestamp=source.starting_timestamp_s,
            maximum_retry_attempts=source.maximum_retry_attempts,
            report_batch_item_failures=source.report_batch_item_failures,
            parallelization_factor=source.parallelization_factor,
            maximum_record_age_s=source.maximum_record_age_s,
            bisect_batch_on_function_error=source.bisect_batch_on_function_error,
            filter_patterns=source.filter_patterns,
            on_failure_destination=source.on_failure_destination,
            source_kind=source.kind,  # type: ignore[arg-type]
        )
    except ConfigurationError as error:
        raise DeploymentError(str(error)) from None


def source_arn_on(target: Target, deployment: Deployment, source: EventSourceSpec) -> str:
    """The ARN that ``source`` has on ``target``.

    :raises TargetError: there is no such stream, consumer or table, or the table has no stream.
    """
    try:
        with reaching(target, f"looking for {source.source_name}"):
            return _source_arn(target, source)
    except TargetError as error:
        if "ResourceNotFoundException" not in str(error):
            raise
        noun = "table" if source.kind == "DynamoDB" else "stream"
        what = (
            f"{source.source_name} with the consumer {source.consumer_name}"
            if source.consumer_name
            else source.source_name
        )
        raise TargetError(
            f"there is no {noun} {what} in {target.endpoint_url or target.region}; "
            + (
                f"start that cloud with `alleycat cloud --template {deployment.path}`, or create it there"
                if target.kind == "local"
                else "deploy the template first, and name its streams and tables in it as they are deployed"
            )
        ) from None


def _source_arn(target: Target, source: EventSourceSpec) -> str:
    # Somebody waits for the answer, and a place that is not there stays away.
    config = {"connect_timeout": 5, "retries": {"mode": "standard", "total_max_attempts": 3}}
    if source.kind == "DynamoDB":
        table = target.client("dynamodb", **config).describe_table(TableName=source.source_name)["Table"]
        if not table.get("StreamSpecification", {}).get("StreamEnabled"):
            raise TargetError(f"the table {source.source_name} has no stream; enable it with a StreamSpecification")
        return str(table["LatestStreamArn"])
    kinesis = target.client("kinesis", **config)
    summary = kinesis.describe_stream_summary(StreamName=source.source_name)["StreamDescriptionSummary"]
    stream_arn = str(summary["StreamARN"])
    if source.consumer_name is None:
        return stream_arn
    found = kinesis.describe_stream_consumer(StreamARN=stream_arn, ConsumerName=source.consumer_name)
    return str(found["ConsumerDescription"]["ConsumerARN"])


def runtime_on(
    target: Target,
    deployment: Deployment,
    functions: Sequence[FunctionSpec],
    *,
    log: Callable[[str, str], None],
    state_dir: Path | None = None,
) -> Runtime:
    """A runtime, not started, that drives ``functions`` from their event sources.

    :raises TargetError: a stream or table is not there.
    :raises DeploymentError: a setting that the runtime refuses.
    """
    mappings = [
        mapping_config(function, source, source_arn_on(target, deployment, source))
        for function in functions
        for source in function.event_sources
    ]
    access: dict[str, Any] = {"region_name": target.region, **target.keys}
    if target.endpoint_url:
        access["endpoint_url"] = target.endpoint_url
    return Runtime(
        [function_config(function, deployment, target) for function in functions],
        mappings,
        client_factory=lambda: kinesis_client(**access),
        dynamodb_client_factory=lambda: dynamodb_streams_client(**access),
        service_client_factory=lambda service: service_client(service, **access),
        state_dir=state_dir,
        log=log,
    )
