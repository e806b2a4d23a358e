"""Locust in a process of its own: started, followed, interrupted, and its report read.

Locust replaces the standard library's sockets and threads when it is imported, so it never shares a process with the
commands. What it prints goes to a log; its progress comes as JSON lines.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulator.target import TargetError

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
PROGRESS = "alleycat-progress "


@dataclass(frozen=True, slots=True)
class Ended:
    """``report`` is None when the test never began; ``said`` is then why, and ``code`` what Locust left with."""

    code: int
    report: dict[str, Any] | None
    said: str
    interrupted: bool


def run_locust(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    out: Path,
    show: Callable[[Mapping[str, Any]], None],
) -> Ended:
    """Run Locust headless with ``arguments`` and wait for its end.

    The first Ctrl-C lets it finish what is on its way and report, the second ends it at once.

    :raises TargetError: when Locust cannot be started.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / "report.json"
    path.unlink(missing_ok=True)
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary", *arguments]
    interrupted = False
    with (out / "locust.log").open("w", encoding="utf-8") as log:
        try:
            process = subprocess.Popen(
                [*command, "--report", str(out), "--progress"],
                env={**environment, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        except OSError as error:
            raise TargetError(f"locust could not be started: {error}") from None
        said: list[str] = []
        reader = threading.Thread(target=_follow, args=(process, log, show, said), daemon=True)
        reader.start()
        try:
            while True:
                try:
                    process.wait()
                    break
                except KeyboardInterrupt:
                    if interrupted:
                        raise
                    interrupted = True
                    # Workers of --processes hear it from the master.
                    process.send_signal(signal.SIGINT)
        finally:
            _end(process)
            reader.join(timeout=5)
            if process.stdout is not None:
                process.stdout.close()
    report = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    return Ended(process.returncode, report, said[-1] if said else "", interrupted)


def _follow(
    process: subprocess.Popen[str], log: Any, show: Callable[[Mapping[str, Any]], None], said: list[str]
) -> None:
    for line in process.stdout or ():
        if line.startswith(PROGRESS):
            show(json.loads(line.removeprefix(PROGRESS)))
            continue
        log.write(line)
        if line.startswith("alleycat: "):
            said.append(line.removeprefix("alleycat: ").strip())


def _end(process: subprocess.Popen[str]) -> None:
    """Whatever is left of the session's processes."""
    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=10)
        except ProcessLookupError:
            pass
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
