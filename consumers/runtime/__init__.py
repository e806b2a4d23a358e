"""Runs Lambda handlers on this machine as Lambda's event source mapping for Kinesis does.

::

    functions = [FunctionConfig(name="Live", handler="consumers.tumbling_window.handler", code_path=Path("."))]
    mappings = [MappingConfig(name="live", function_name="Live", stream_name="alleycat", stream_arn=arn)]
    with Runtime(functions, mappings) as runtime:
        while not runtime.caught_up(finish):
            time.sleep(0.2)

The stream may be AWS's or an emulator's: the runtime speaks boto3 and nothing else.
"""

from consumers.runtime.client import kinesis_client
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
    "kinesis_client",
    "service_client",
]
