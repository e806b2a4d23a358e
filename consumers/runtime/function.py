"""A Lambda function: its pool of execution environments, and how an invocation can end.

One invocation at a time runs in an environment. An idle (warm) one is reused, otherwise a new one starts (a cold
start); beyond ``reserved_concurrency`` the invocation is refused, as Lambda's 429. An environment whose function
raised is kept; one that ran into its Timeout, crashed, or could not load its handler is gone.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from threading import Lock
from typing import Any

import msgspec

from consumers.runtime.batches import PAYLOAD_MAX_BYTES
from consumers.runtime.config import FunctionConfig
from consumers.runtime.sandbox import Sandbox, SandboxExitError, SandboxTimeoutError


@dataclass(frozen=True, slots=True, kw_only=True)
class InvokeResult:
    """How an invocation ended.

    ``payload`` is the function's answer as JSON, None if it failed. ``error_type`` and ``error_message`` are
    Lambda's. ``duration_ms`` counts from the invocation, ``init_ms`` (None when warm) before it. ``log_tail`` is
    the last 4 KB the function printed.
    """

    request_id: str
    payload: bytes | None = None
    error_type: str | None = None
    error_message: str = ""
    stack_trace: tuple[str, ...] = ()
    is_timed_out: bool = False
    is_throttled: bool = False
    duration_ms: float = 0.0
    init_ms: float | None = None
    log_tail: str = ""


class _Answer(msgspec.Struct):
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: dict[str, Any] | None = None


_decode_answer = msgspec.json.Decoder(_Answer).decode


class Function:
    """Invokes one function. Thread-safe. Close it, or its idle processes stay until this process ends."""

    def __init__(self, config: FunctionConfig, *, log: Callable[[str, str], None] | None = None) -> None:
        """``log(function name, line)`` gets every line the function prints, on the thread that invoked it."""
        self.config = config
        self._log_line = None if log is None else lambda line: log(config.name, line)
        self._lock = Lock()
        self._idle: list[Sandbox] = []
        self._active: set[Sandbox] = set()
        self._concurrency = 0
        self._is_closed = self._is_killed = False

    @property
    def concurrency(self) -> int:
        """Invocations running now."""
        return self._concurrency

    def invoke(self, event: bytes | Mapping[str, Any]) -> InvokeResult:
        """Invoke with ``event`` (JSON, or what encodes to it) and wait for the end. Never raises for the function."""
        request_id = str(uuid.uuid4())
        payload = event if isinstance(event, bytes) else msgspec.json.encode(event)
        if len(payload) > PAYLOAD_MAX_BYTES:
            problem = f"Request must be smaller than {PAYLOAD_MAX_BYTES} bytes for the InvokeFunction operation"
            return InvokeResult(
                request_id=request_id, error_type="RequestEntityTooLargeException", error_message=problem
            )
        with self._lock:
            reserved = self.config.reserved_concurrency
            if self._is_closed:
                return _stopped(request_id)
            if reserved is not None and self._concurrency >= reserved:
                return InvokeResult(
                    request_id=request_id,
                    error_type="TooManyRequestsException",
                    error_message="Rate Exceeded.",
                    is_throttled=True,
                )
            self._concurrency += 1
            sandbox = self._idle.pop() if self._idle else None
            if sandbox is not None:
                self._active.add(sandbox)
        if sandbox is not None and not sandbox.is_alive:
            # It was killed while it was idle, for want of memory perhaps: nobody's invocation failed.
            self._give_back(sandbox, is_usable=False)
            sandbox = None
        try:
            return self._invoke(sandbox, request_id, payload)
        finally:
            with self._lock:
                self._concurrency -= 1

    def kill(self) -> None:
        """End running invocations now; they return an error, and later ones are refused."""
        with self._lock:
            self._is_closed = self._is_killed = True
            active = list(self._active)
        for sandbox in active:
            sandbox.kill()

    def close(self) -> None:
        """Refuse further invocations and end the idle environments; running invocations go on."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for sandbox in idle:
            sandbox.close()

    def _invoke(self, sandbox: Sandbox | None, request_id: str, payload: bytes) -> InvokeResult:
        init_ms: float | None = None
        is_usable = False
        try:
            if sandbox is None:
                sandbox = self._start()
                failure = self._initialise(sandbox, request_id)
                init_ms = (time.monotonic() - sandbox.started_at) * 1000
                if failure is not None:
                    return replace(failure, init_ms=init_ms, log_tail=sandbox.log_tail)
            began = time.monotonic()
            result = self._exchange(sandbox, request_id, payload, began)
            is_usable = result.error_type not in _FATAL
            duration_ms = (time.monotonic() - began) * 1000
            return replace(result, duration_ms=duration_ms, init_ms=init_ms, log_tail=sandbox.log_tail)
        except OSError as error:
            problem = f"the function's process could not be started: {error}"
            return InvokeResult(request_id=request_id, error_type="Runtime.StartError", error_message=problem)
        finally:
            if sandbox is not None:
                self._give_back(sandbox, is_usable)

    def _start(self) -> Sandbox:
        now = datetime.now(UTC)
        sandbox = Sandbox(self.config, f"{now:%Y/%m/%d}/[$LATEST]{uuid.uuid4().hex}", self._log_line)
        with self._lock:
            self._active.add(sandbox)
            is_killed = self._is_killed
        if is_killed:
            sandbox.kill()
        return sandbox

    def _give_back(self, sandbox: Sandbox, is_usable: bool) -> None:
        with self._lock:
            self._active.discard(sandbox)
            if is_usable and not self._is_closed:
                self._idle.append(sandbox)
                return
        sandbox.close()

    def _initialise(self, sandbox: Sandbox, request_id: str) -> InvokeResult | None:
        limit_s = self.config.init_timeout_s
        try:
            error = sandbox.initialise(sandbox.started_at + limit_s)
        except SandboxTimeoutError:
            text = f"{_stamp()} {request_id} Init phase timed out after {limit_s:.2f} seconds"
            return InvokeResult(
                request_id=request_id, error_type="Sandbox.Timedout", error_message=text, is_timed_out=True
            )
        except SandboxExitError as exit_error:
            return self._exited(request_id, exit_error)
        return None if error is None else _failed(request_id, error)

    def _exchange(self, sandbox: Sandbox, request_id: str, payload: bytes, began: float) -> InvokeResult:
        limit_s = self.config.timeout_s
        request = b'{"requestId":"%b","functionArn":%b,"deadline":%b,"event":%b}' % (
            request_id.encode(),
            msgspec.json.encode(self.config.arn),
            msgspec.json.encode(began + limit_s),
            payload,
        )
        try:
            answer = _decode_answer(sandbox.invoke(request, began + limit_s))
        except SandboxTimeoutError:
            text = f"{_stamp()} {request_id} Task timed out after {limit_s:.2f} seconds"
            return InvokeResult(
                request_id=request_id, error_type="Sandbox.Timedout", error_message=text, is_timed_out=True
            )
        except SandboxExitError as exit_error:
            return self._exited(request_id, exit_error)
        if answer.error is not None:
            return _failed(request_id, answer.error)
        return InvokeResult(
            request_id=request_id,
            payload=b"null" if isinstance(answer.result, msgspec.UnsetType) else bytes(answer.result),
        )

    def _exited(self, request_id: str, error: SandboxExitError) -> InvokeResult:
        if self._is_killed:
            return _stopped(request_id)
        text = f"RequestId: {request_id} Error: {error}"
        return InvokeResult(request_id=request_id, error_type="Runtime.ExitError", error_message=text)


STOPPED = "Alleycat.RuntimeStopped"
"""The error type of an invocation that :meth:`Function.kill` ended or refused: nobody's failure."""

_FATAL = frozenset({"Sandbox.Timedout", "Runtime.ExitError", STOPPED})


def _stopped(request_id: str) -> InvokeResult:
    return InvokeResult(request_id=request_id, error_type=STOPPED, error_message="the runtime was stopped")


def _failed(request_id: str, error: Mapping[str, Any]) -> InvokeResult:
    return InvokeResult(
        request_id=request_id,
        error_type=str(error["errorType"]),
        error_message=str(error["errorMessage"]),
        stack_trace=tuple(error["stackTrace"]),
    )


def _stamp() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"
