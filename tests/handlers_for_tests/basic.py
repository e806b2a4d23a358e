"""Handlers that show one thing each; ``event["do"]`` chooses among those of :func:`handler`."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

invocations = 0


def handler(event: dict[str, Any], context: Any) -> Any:
    global invocations
    invocations += 1
    what = event.get("do", "count")
    if what == "count":
        return {"pid": os.getpid(), "invocations": invocations}
    if what == "echo":
        return event
    if what == "context":
        return {
            "request_id": context.aws_request_id,
            "name": context.function_name,
            "version": context.function_version,
            "memory": context.memory_limit_in_mb,
            "arn": context.invoked_function_arn,
            "log_group": context.log_group_name,
            "log_stream": context.log_stream_name,
            "remaining_ms": context.get_remaining_time_in_millis(),
            "environment": os.environ.get("COLOUR"),
            "region": os.environ["AWS_REGION"],
            "cwd": str(Path.cwd()),
        }
    if what == "raise":
        print("about to fail")
        raise LookupError("no such biker")
    if what == "sleep":
        print("sleeping")
        time.sleep(event["s"])
        return {"pid": os.getpid(), "remaining_ms": context.get_remaining_time_in_millis()}
    if what == "spin":
        while True:
            pass
    if what == "exit":
        os._exit(event["status"])
    if what == "allocate":
        held = bytearray(event["mb"] * 1024 * 1024)
        held[::4096] = b"x" * len(held[::4096])
        del held
        time.sleep(event.get("s", 0))
        return {}
    if what == "fork":
        # The pipes stay open in a process of its own group, which ends soon by itself.
        if os.fork() == 0:
            os.setsid()
            time.sleep(3)
            os._exit(0)
        os._exit(event["status"])
    if what == "segfault":
        os.kill(os.getpid(), 11)
    if what == "print":
        print("x" * 1023 + "\n", end="")
        sys.stdout.write(("y" * 1023 + "\n") * event["kib"])
        return {}
    if what == "big":
        return "z" * event["bytes"]
    if what == "decimal":
        return {"n": Decimal("1.5")}
    if what == "set":
        return {1, 2}
    if what == "nan":
        return {"n": float("nan")}
    if what == "surrogate":
        return "\ud800"
    if what == "child":
        # A process that outlives its invocation and holds the log's pipe open.
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        print(child.pid)
        time.sleep(event.get("s", 0))
        return child.pid
    if what == "thread_noise":
        threading.Thread(target=_noise, daemon=True).start()
        return {}
    raise ValueError(what)


def _noise() -> None:
    while True:
        print("n" * 4000)


not_callable = 7
