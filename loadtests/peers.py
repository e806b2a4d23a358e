"""Other Kinesis emulators, started for a benchmark when they are installed (``make bench`` does that)."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from simulator.cloud.limits import LimitSettings
from simulator.cloud.server import CloudProcess

BENCH = Path(__file__).resolve().parents[1] / ".bench"
START_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Peer:
    """A server under test."""

    name: str
    host: str
    port: int


def version_of(python: Path, package: str) -> str:
    """The installed version of ``package`` beside ``python``."""
    code = f"import importlib.metadata as m; print(m.version('{package}'))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=False).stdout.strip()


@contextlib.contextmanager
def alleycat() -> Iterator[Peer]:
    """Ours: limits enforced, their rate raised out of the way."""
    with CloudProcess(settings=LimitSettings(shard_rate_factor=1e6)) as cloud:
        yield Peer("alleycat", cloud.host, cloud.port)


def installed() -> list[tuple[str, list[str], dict[str, str]]]:
    """``(name and version, command, environment)`` of each peer here; ``{port}`` is to be filled in."""
    python = BENCH / "venv" / "bin" / "python"
    found: list[tuple[str, list[str], dict[str, str]]] = []
    if (moto := python.with_name("moto_server")).exists():
        found.append((f"moto {version_of(python, 'moto')}", [str(moto), "-H", "127.0.0.1", "-p", "{port}"], {}))
    if (ministack := python.with_name("ministack")).exists():
        environment = {"GATEWAY_PORT": "{port}", "SERVICES": "kinesis", "LOG_LEVEL": "ERROR"}
        found.append((f"ministack {version_of(python, 'ministack')}", [str(ministack)], environment))
    kinesalite = BENCH / "node" / "node_modules" / "kinesalite" / "cli.js"
    node = shutil.which("node")
    if kinesalite.exists() and node:
        options = ["--port", "{port}", "--createStreamMs", "10", "--shardLimit", "1000"]
        found.append(("kinesalite", [node, str(kinesalite), *options], {}))
    return found


@contextlib.contextmanager
def peer(name: str, command: list[str], environment: dict[str, str]) -> Iterator[Peer | None]:
    """Start one of :func:`installed`; None when it does not come up."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    filled = [part.format(port=port) for part in command]
    settings = {key: value.format(port=port) for key, value in environment.items()}
    process = subprocess.Popen(
        filled, env={**os.environ, **settings}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield Peer(name, "127.0.0.1", port) if _answers(port, process) else None
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(port: int, process: subprocess.Popen[bytes]) -> bool:
    give_up = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < give_up and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/")
            connection.getresponse().read()
            connection.close()
            return True
        connection.close()
        time.sleep(0.2)
    return False
