"""One execution environment, seen from the parent: a child process, two pipes for frames and one for its log.

Nothing here can hang: every wait is a ``poll`` over all three pipes with a deadline, so a function that fills its
log, stops reading or never answers is drained, or killed when its time is up. The process leads its own group, and
the whole group is killed.

Memory is limited as in Lambda, which kills a function that used more than MemorySize. What counts is the peak of the
process's resident memory, the interpreter's included, as Linux keeps it (``VmHWM``): a limit on addresses would kill
functions that only reserve them, and a peak is seen even after it is over. Processes that the function starts are
not counted, and where there is no ``/proc`` nothing is enforced.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

import msgspec

from consumers.runtime.config import FunctionConfig
from consumers.runtime.environment import HEADER

LOG_TAIL_BYTES = 4096
"""Lambda returns the last 4 KB of an invocation's log."""

_CHUNK_BYTES = 65_536
_LOG_CHUNKS_MAX = 64
_FRAME_MAX_BYTES = 64 * 1024 * 1024
_REAP_S = 5.0
_LOOK_MS = 100  # a dead process is noticed after this even if one it forked keeps its pipes open; so is its memory

LogLine = Callable[[str], None]


class SandboxTimeoutError(Exception):
    """The time was up; the process was killed."""


class SandboxExitError(Exception):
    """The process ended by itself, or was killed from outside. Its text says how, in Lambda's words."""


class Sandbox:
    """A process that runs one handler. Not thread-safe, except :meth:`kill`.

    :meth:`initialise` comes first. After either error the process is gone and reaped.
    """

    def __init__(self, config: FunctionConfig, log_stream: str, log_line: LogLine | None = None) -> None:
        self.started_at = time.monotonic()
        self._log_line = log_line
        self._log_tail = bytearray()
        self._log_partial = bytearray()
        self._input = bytearray()
        self._lock = Lock()
        self._is_closed = False
        self._memory_limit_kib = config.memory_mb * 1024
        child_read, self._write_fd = os.pipe()
        self._read_fd, child_write = os.pipe()
        script = Path(__file__).with_name("environment.py")
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(script), str(child_read), str(child_write), config.handler],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
                pass_fds=(child_read, child_write),
                cwd=config.code_path,
                env=_environ(config, log_stream),
                # A Ctrl-C at the terminal is for the parent, which lets the invocation finish.
                start_new_session=True,
            )
        except BaseException:
            os.close(self._write_fd)
            os.close(self._read_fd)
            raise
        finally:
            os.close(child_read)
            os.close(child_write)
        assert self._process.stdout is not None
        self._log = self._process.stdout
        for descriptor in (self._write_fd, self._read_fd, self._log.fileno()):
            os.set_blocking(descriptor, False)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return not self._is_closed and self._process.poll() is None

    @property
    def log_tail(self) -> str:
        """The end of the current invocation's log."""
        return self._log_tail.decode(errors="replace")

    def initialise(self, deadline: float) -> dict[str, Any] | None:
        """Wait for the cold start; returns Lambda's error document if the handler could not be loaded.

        :raises SandboxTimeoutError: not by ``deadline`` (monotonic clock).
        :raises SandboxExitError: the process ended.
        """
        answer = msgspec.json.decode(self._exchange(b"", deadline))
        return answer["init"]  # type: ignore[no-any-return]

    def invoke(self, request: bytes, deadline: float) -> bytes:
        """Send one request (JSON) and return the answer (JSON).

        :raises SandboxTimeoutError: no answer by ``deadline`` (monotonic clock).
        :raises SandboxExitError: the process ended.
        """
        self._drain_log()
        self._log_tail.clear()
        return self._exchange(HEADER.pack(len(request)) + request, deadline)

    def kill(self) -> None:
        """End the process group now. From any thread, any number of times."""
        with self._lock:
            if self._process.poll() is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End and reap the process, and close the pipes. Once is enough, more do no harm."""
        if self._is_closed:
            return
        self._is_closed = True
        self.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_REAP_S)
        self._drain_log()
        if self._log_partial:
            self._emit(bytes(self._log_partial))
            self._log_partial.clear()
        self._log.close()
        for descriptor in (self._write_fd, self._read_fd):
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _exchange(self, out: bytes, deadline: float) -> bytes:
        """Write ``out``, read one frame, and keep the log flowing meanwhile."""
        poller = select.poll()
        poller.register(self._read_fd, select.POLLIN)
        poller.register(self._log.fileno(), select.POLLIN)
        if out:
            poller.register(self._write_fd, select.POLLOUT)
        pending = memoryview(out)
        look_at = time.monotonic() + _LOOK_MS / 1000
        while True:
            now = time.monotonic()
            if now >= deadline:
                self.close()
                raise SandboxTimeoutError
            ready = poller.poll(min(_LOOK_MS, int((deadline - now) * 1000) + 1))
            if not ready and not self.is_alive:
                raise self._exited()
            if now >= look_at:
                # A function that floods its log is looked at too.
                look_at = now + _LOOK_MS / 1000
                self._limit_memory()
            for descriptor, _ in ready:
                if descriptor == self._write_fd:
                    try:
                        pending = pending[os.write(descriptor, pending) :]
                    except BlockingIOError:
                        continue
                    except OSError:
                        pending = pending[:0]  # the process is gone, as its other pipe will tell
                    if not pending:
                        poller.unregister(descriptor)
                elif descriptor == self._read_fd:
                    frame = self._read_frame()
                    if frame is not None:
                        self._limit_memory()
                        self._drain_log()
                        return frame
                elif self._read_log() == 0:
                    poller.unregister(descriptor)

    def _read_frame(self) -> bytes | None:
        try:
            chunk = os.read(self._read_fd, _CHUNK_BYTES)
        except BlockingIOError:
            return None
        if not chunk:
            raise self._exited()
        self._input += chunk
        if len(self._input) < HEADER.size:
            return None
        (length,) = HEADER.unpack_from(self._input)
        if length > _FRAME_MAX_BYTES:
            self.close()
            raise SandboxExitError("Runtime exited with error: it broke the protocol of its pipes")
        end = HEADER.size + length
        if len(self._input) < end:
            return None
        frame = bytes(self._input[HEADER.size : end])
        del self._input[:end]
        return frame

    def _limit_memory(self) -> None:
        """Kill a process that used more than its memory.

        :raises SandboxExitError: it did.
        """
        peak_kib = _peak_memory_kib(self._process.pid)
        if peak_kib is None or peak_kib <= self._memory_limit_kib:
            return
        self.kill()
        self._drain_log()
        line = f"Memory Size: {self._memory_limit_kib // 1024} MB Max Memory Used: {peak_kib // 1024} MB"
        self._log_tail += f"{line}\n".encode()
        self._emit(line.encode())
        raise self._exited()

    def _exited(self) -> SandboxExitError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.5)
        status = self._process.returncode
        self.close()
        if status is None:
            return SandboxExitError("Runtime exited with error: it closed its pipes")
        if status < 0:
            reason = (signal.strsignal(-status) or str(-status)).lower()
            return SandboxExitError(f"Runtime exited with error: signal: {reason}")
        if status > 0:
            return SandboxExitError(f"Runtime exited with error: exit status {status}")
        return SandboxExitError("Runtime exited without providing a reason")

    def _drain_log(self) -> None:
        for _ in range(_LOG_CHUNKS_MAX):
            if not self._read_log():
                return

    def _read_log(self) -> int | None:
        """Take what the function printed: the bytes read, 0 at the end of the log, None when there is nothing now."""
        try:
            chunk = os.read(self._log.fileno(), _CHUNK_BYTES)
        except BlockingIOError:
            return None
        self._log_tail += chunk
        del self._log_tail[:-LOG_TAIL_BYTES]
        if self._log_line is not None and chunk:
            *lines, rest = (self._log_partial + chunk).split(b"\n")
            for line in lines:
                self._emit(line)
            # A line without an end must not grow for ever.
            self._log_partial = bytearray(rest[-_CHUNK_BYTES:])
        return len(chunk)

    def _emit(self, line: bytes | bytearray) -> None:
        if self._log_line is not None:
            self._log_line(line.decode(errors="replace"))


def _peak_memory_kib(pid: int) -> int | None:
    """The largest resident memory the process has had; None when it is gone or this is not Linux."""
    try:
        with open(f"/proc/{pid}/status", "rb") as status:  # noqa: PTH123 - read at every invocation
            _, found, rest = status.read().partition(b"VmHWM:")
    except OSError:
        return None
    return int(rest.split(None, 1)[0]) if found else None


def _environ(config: FunctionConfig, log_stream: str) -> dict[str, str]:
    return {
        **os.environ,
        "AWS_REGION": config.region,
        "AWS_DEFAULT_REGION": config.region,
        **config.environment,
        "AWS_EXECUTION_ENV": f"AWS_Lambda_python{sys.version_info.major}.{sys.version_info.minor}",
        "AWS_LAMBDA_FUNCTION_NAME": config.name,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(config.memory_mb),
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{config.name}",
        "AWS_LAMBDA_LOG_STREAM_NAME": log_stream,
        "LAMBDA_TASK_ROOT": str(config.code_path),
        "_HANDLER": config.handler,
    }
