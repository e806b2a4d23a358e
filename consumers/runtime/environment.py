"""The process a function runs in: Lambda's execution environment. Run by :mod:`consumers.runtime.sandbox`.

``python -P environment.py READ_FD WRITE_FD HANDLER``: imports the handler once (the cold start), says how that went,
then answers one invocation after another. Frames are a big-endian 32-bit length and JSON:

======== ==================================================================================================
out      ``{"init": null}``, or ``{"init": {"errorType", "errorMessage", "stackTrace"}}`` and exit
in       ``{"requestId", "functionArn", "deadline", "event"}``; ``deadline`` on the monotonic clock, in seconds
out      ``{"result": ...}`` or ``{"error": {"errorType", "errorMessage", "stackTrace"}}``
======== ==================================================================================================

Standard output and error are the function's log. Ctrl-C is the parent's business; when the parent is gone, its
end of the pipe closes and this process exits, in the middle of an invocation if need be.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import queue
import signal
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable
from decimal import Decimal
from io import TextIOWrapper
from typing import Any, BinaryIO

import msgspec

RESPONSE_MAX_BYTES = 6_291_556
"""Lambda's own text for an answer that is too large names this number."""

HEADER = struct.Struct(">I")
Handler = Callable[[dict[str, Any], "LambdaContext"], Any]
Failure = dict[str, Any]


class LambdaContext:
    """The second argument of a handler, as in Lambda's Python runtime."""

    def __init__(self, request_id: str, function_arn: str, deadline: float) -> None:
        self.aws_request_id = request_id
        self.invoked_function_arn = function_arn
        self.function_name = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
        self.function_version = os.environ["AWS_LAMBDA_FUNCTION_VERSION"]
        self.memory_limit_in_mb = os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]
        self.log_group_name = os.environ["AWS_LAMBDA_LOG_GROUP_NAME"]
        self.log_stream_name = os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]
        self.identity = None
        self.client_context = None
        self._deadline = deadline

    def get_remaining_time_in_millis(self) -> int:
        """Time until Timeout ends this process, in ms; not below 0."""
        return max(0, int((self._deadline - time.monotonic()) * 1000))


def load_handler(name: str) -> Handler:
    """Import ``package.module.attribute``.

    :raises InitError: with the error types and texts of Lambda's Python runtime.
    """
    module_name, _, attribute = name.replace("/", ".").rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        text = f"Unable to import module '{module_name}': {error}"
        raise InitError(_failure("Runtime.ImportModuleError", text, error)) from error
    except SyntaxError as error:
        text = f"Syntax error in module '{module_name}': {error}"
        raise InitError(_failure("Runtime.UserCodeSyntaxError", text, error)) from error
    except BaseException as error:
        raise InitError(_failure(type(error).__name__, str(error), error)) from error
    handler = getattr(module, attribute, None)
    if not callable(handler):
        text = f"Handler '{attribute}' missing on module '{module_name}'"
        raise InitError(_failure("Runtime.HandlerNotFound", text, None))
    return handler  # type: ignore[no-any-return]


class InitError(Exception):
    """The handler could not be loaded; ``failure`` is what Lambda would report."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure["errorMessage"])
        self.failure = failure


def answer(handler: Handler, event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Invoke ``handler``; never raises for what it does."""
    try:
        result = handler(event, context)
    except Exception as error:
        failure = _failure(type(error).__name__, str(error), error)
        print(
            f"[ERROR] {failure['errorType']}: {failure['errorMessage']}",
            "Traceback (most recent call last):",
            sep="\n",
        )
        print("".join(failure["stackTrace"]), end="")
        return {"error": failure}
    try:
        encoded = json.dumps(result, ensure_ascii=False, allow_nan=False, default=_decimal).encode()
    except (TypeError, ValueError, RecursionError) as error:
        # Includes lone surrogates, which have no UTF-8.
        return {"error": _failure("Runtime.MarshalError", f"Unable to marshal response: {error}", None)}
    if len(encoded) > RESPONSE_MAX_BYTES:
        text = f"Response payload size exceeded maximum allowed payload size ({RESPONSE_MAX_BYTES} bytes)."
        return {"error": _failure("Function.ResponseSizeTooLarge", text, None)}
    return {"result": msgspec.Raw(encoded)}


def _decimal(value: object) -> float:
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _failure(error_type: str, message: str, error: BaseException | None) -> Failure:
    frames = traceback.extract_tb(error.__traceback__) if error is not None else []
    shown = [frame for frame in frames if frame.filename != __file__ and "importlib" not in frame.filename]
    return {"errorType": error_type, "errorMessage": message, "stackTrace": traceback.format_list(shown)}


def _read_requests(stream: BinaryIO, requests: queue.SimpleQueue[bytes]) -> None:
    """Hand requests to the main thread, and end the process with its parent."""
    while True:
        header = stream.read(HEADER.size)
        body = stream.read(HEADER.unpack(header)[0]) if len(header) == HEADER.size else b""
        if not body:
            os._exit(0)
        requests.put(body)


def _send(stream: BinaryIO, message: dict[str, Any]) -> None:
    body = msgspec.json.encode(message)
    stream.write(HEADER.pack(len(body)) + body)
    stream.flush()


def main(read_fd: int, write_fd: int, handler_name: str) -> None:
    """Serve invocations until the parent closes its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for descriptor in (read_fd, write_fd):
        # What the function starts must not keep the pipes open.
        os.set_inheritable(descriptor, False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(line_buffering=True, errors="replace")
    sys.path.insert(0, os.environ["LAMBDA_TASK_ROOT"])
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    source = os.fdopen(read_fd, "rb")
    out = os.fdopen(write_fd, "wb")
    threading.Thread(target=_read_requests, args=(source, requests), name="requests", daemon=True).start()
    try:
        handler = load_handler(handler_name)
    except InitError as error:
        print(f"[ERROR] {error.failure['errorType']}: {error}")
        _send(out, {"init": error.failure})
        return
    _send(out, {"init": None})
    while True:
        request = msgspec.json.decode(requests.get())
        context = LambdaContext(request["requestId"], request["functionArn"], request["deadline"])
        message = answer(handler, request["event"], context)
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        _send(out, message)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
