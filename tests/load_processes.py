"""Load tests as people start them: ``alleycat loadtest`` and ``locust -f loadtests/locustfile.py`` in processes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from simulator.cloud.server import CloudProcess
from simulator.deployment import load_deployment
from simulator.target import local_target, provision

ROOT = Path(__file__).parents[1]
LOCUSTFILE = ROOT / "loadtests" / "locustfile.py"
REGION = "us-east-1"
MOST_S = 240.0
"""Longer than any of these takes on a slow machine."""
SHORT = ("--stage-time", "2s", "--hold-time", "5s", "--precision", "0.03")
"""A search that is as short as still gives firm figures."""
MARK = "LOADTEST_MARK"
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": REGION}


@dataclass(frozen=True, slots=True)
class Run:
    """A process that has ended; ``report`` is None when there is none."""

    code: int
    out: str
    err: str
    directory: Path
    report: Any
    mark: str


def environment(given: Mapping[str, str] | None = None, mark: str = "") -> dict[str, str]:
    """This process's, without what would change a test, with ``given``; processes of a test are known by ``mark``."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("ALLEYCAT_", "AWS_", "LOCUST_", "PY"))
    }
    # Nothing of the developer's own account, and no look for a machine's role.
    nothing = {
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "PYTHONUNBUFFERED": "1",
    }
    return {**kept, **nothing, **({MARK: mark} if mark else {}), **(given or {})}


class Started:
    """A process that is running. Ended, whatever happens, by :func:`started`."""

    def __init__(self, command: Sequence[str], directory: Path, given: Mapping[str, str] | None, mark: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.mark = directory, mark or uuid.uuid4().hex
        name = uuid.uuid4().hex[:8]
        self._out, self._err = directory / f"{name}.out", directory / f"{name}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                command,
                cwd=directory,
                env=environment(given, self.mark),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    @property
    def out(self) -> str:
        return self._out.read_text(encoding="utf-8")

    @property
    def err(self) -> str:
        return self._err.read_text(encoding="utf-8")

    def ended(self, most_s: float = MOST_S) -> Run:
        code = self.process.wait(timeout=most_s)
        path = self.directory / "report" / "report.json"
        report = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        return Run(code, self.out, self.err, self.directory, report, self.mark)


@contextmanager
def started(
    command: Sequence[str], directory: Path, given: Mapping[str, str] | None = None, mark: str = ""
) -> Iterator[Started]:
    one = Started(command, directory, given, mark)
    try:
        yield one
    finally:
        if one.process.poll() is None:
            one.process.terminate()
            try:
                one.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                one.process.kill()
        one.process.wait()


def loadtest(*arguments: str) -> list[str]:
    return [str(Path(sys.executable).with_name("alleycat")), "loadtest", *arguments]


def locust(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), *arguments]


def run(command: Sequence[str], directory: Path, given: Mapping[str, str] | None = None, most_s: float = MOST_S) -> Run:
    """Start and wait for the end."""
    with started(command, directory, given) as one:
        return one.ended(most_s)


@contextmanager
def cloud_with_stream(shards: int = 1) -> Iterator[CloudProcess]:
    """An embedded cloud of its own, with the template's stream and table."""
    with CloudProcess() as cloud:
        deployment = load_deployment(None, "default", {"ShardCount": str(shards)})
        provision(local_target(cloud, REGION), deployment)
        yield cloud


def until(what: Callable[[], Any], most_s: float = 60.0) -> Any:
    """What ``what`` returns once that is true."""
    give_up_at = time.monotonic() + most_s
    while not (found := what()):
        if time.monotonic() > give_up_at:
            pytest.fail(f"waited {most_s:g} s in vain for {what}")
        time.sleep(0.1)
    return found


def processes_of(mark: str) -> list[psutil.Process]:
    """All that still run of what was started with ``mark``."""
    found = []
    for one in psutil.process_iter():
        try:
            if one.environ().get(MARK) == mark and one.status() != psutil.STATUS_ZOMBIE:
                found.append(one)
        except (psutil.Error, OSError):
            continue
    return found


def gone(mark: str) -> bool:
    """Whether everything that was started with ``mark`` has ended, or ends soon."""
    return bool(until(lambda: not processes_of(mark), 15.0))


def limit(report: Any, name: str) -> list[Any]:
    """The report's rows of one limit, by resource. Skips where the machine and not the service was the bottleneck."""
    if report["outcome"] in ("generator", "target"):
        pytest.skip(report["summary"])
    return sorted((one for one in report["limits"] if one["name"] == name), key=lambda one: str(one["resource"]))


def is_plain(text: str) -> bool:
    """No escape codes, no traceback."""
    return not re.search(r"\x1b|Traceback", text)
