"""Runs Lambda handlers on this machine as Lambda's event source mappings for streams do.

::

    functions = [FunctionConfig(name="Live", handler="consumers.tumbling_window.handler", code_path=Path("."))]
    mappings = [MappingConfig(name="live", function_name="Live", stream_name="alleycat", stream_arn=arn)]
    with Runtime(functions, mappings) as runtime:
        while not runtime.caught_up(finish):
            time.sleep(0.2)

A stream is one of Kinesis or a table's; it may be AWS's or an emulator's: the runtime speaks boto3 and nothing else.
"""

from consumers.runtime.client import dynamodb_streams_client, kinesis_client
from consumers.runtime.cold_start import cold_start_problem
from consumers.runtime.config import Backoff, FunctionConfig, MappingConfig, RuntimeSettings
from consumers.runtime.destinations import service_client
from consumers.runtime.errors import CheckpointError, ConfigurationError, RuntimeFault
from consumers.runtime.function import Function, InvokeResult
from consumers.runtime.runtime import Runtime
from consumers.runtime.statistics import (
    Failure,
    FunctionStatistics,
    MappingStatistics,
    RuntimeStatistics,
    ShardStatistics,
)

__all__ = [
    "Backoff",
    "CheckpointError",
    "ConfigurationError",
    "Failure",
    "Function",
    "FunctionConfig",
    "FunctionStatistics",
    "InvokeResult",
    "MappingConfig",
    "MappingStatistics",
    "Runtime",
    "RuntimeFault",
    "RuntimeSettings",
    "RuntimeStatistics",
    "ShardStatistics",
    "cold_start_problem",
    "dynamodb_streams_client",
    "kinesis_client",
    "service_client",
]
