"""What one core of the load generator offers through PutRecords, beside a boto3 loop and ``async-kinesis``.

Rounds alternate, every run is a process of its own on a stream of its own, and the embedded cloud has its limits
scaled away, so the client is what is measured. By the wall clock the cloud (a core of its own) has a part in it; the
claim is by the client's CPU seconds.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from loadtests.peers import BENCH, Peer, alleycat
from loadtests.put_clients import RECORDS_A_CALL
from simulator.cloud.server import client_environment

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 5
SHARDS = 4
RECORDS = {"generator": 300_000, "boto3": 60_000, "async-kinesis": 15_000, "async-kinesis-unthrottled": 60_000}
"""A round, half a second of CPU or more each. The first includes a race of 300,000 messages being planned."""
OURS = "generator"
PACKAGED = ("async-kinesis", "async-kinesis-unthrottled")
"""Roles that need the environment of the peers."""
TIMEOUT_S = 300.0


class Ask(Protocol):
    """A control call to the embedded cloud."""

    def __call__(self, operation: str, **members: Any) -> Any: ...


@dataclass
class Rates:
    """Accepted records per second of one client, a figure a round."""

    per_cpu_s: list[float] = field(default_factory=list)
    per_wall_s: list[float] = field(default_factory=list)
    failed: str = ""
    versions: str = ""


def bench_generators(ask_of: Any) -> None:
    """``ask_of(server)`` makes a control connection to the embedded cloud."""
    print(f"\nAccepted records a second of CPU of the client (PutRecords of {RECORDS_A_CALL} messages of a race,")
    print("made while they are sent), one process each")
    print(f"{'client':<28}{'records/CPU s':>15}{'records/s':>12}")
    with alleycat() as server:
        rates = rounds(server, ask_of(server))
    for role, one in rates.items():
        if one.failed:
            print(f"{role:<28} failed: {one.failed}")
            continue
        cpu, wall = statistics.median(one.per_cpu_s), statistics.median(one.per_wall_s)
        print(f"{role:<28}{cpu:>15,.0f}{wall:>12,.0f}   {one.versions}")
    ours = rates.pop(OURS)
    peers = {role: statistics.median(one.per_cpu_s) for role, one in rates.items() if not one.failed}
    if ours.failed or not peers:
        return
    better = max(peers, key=lambda role: peers[role])
    ratio = statistics.median(ours.per_cpu_s) / peers[better]
    print(f"generator / best peer ({better}), per CPU second: {ratio:.1f}x (3x or more is asked)")


def rounds(server: Peer, ask: Ask) -> dict[str, Rates]:
    """Every client in turn, :data:`ROUNDS` times; one that fails is left out from then on."""
    found = {role: Rates() for role in RECORDS}
    for turn in range(ROUNDS):
        for role, rates in found.items():
            if rates.failed:
                continue
            stream = f"bench-{role}-{turn}"
            ask("CreateStream", StreamName=stream, ShardCount=SHARDS)
            try:
                told = run(role, server, stream)
            except RuntimeError as error:
                rates.failed = str(error)
                continue
            finally:
                # Half a million records a round would otherwise stay in the cloud's memory.
                ask("DeleteStream", StreamName=stream)
            rates.per_cpu_s.append(told["accepted"] / told["cpu_s"])
            rates.per_wall_s.append(told["accepted"] / told["wall_s"])
            rates.versions = ", ".join(f"{name} {version}" for name, version in told["versions"].items())
    return found


def run(role: str, server: Peer, stream: str) -> dict[str, Any]:
    """One client in a process of its own. :raises RuntimeError: when it cannot run, in a line."""
    python = BENCH / "venv" / "bin" / "python" if role in PACKAGED else Path(sys.executable)
    if not python.exists():
        raise RuntimeError(f"{python} is missing; `make bench` installs it")
    url = f"http://{server.host}:{server.port}"
    try:
        done = subprocess.run(
            [python, "-m", "loadtests.put_clients", role, url, stream, str(RECORDS[role])],
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=TIMEOUT_S,
            env=environment(url),
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"not done within {TIMEOUT_S:.0f} s") from None
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no word why"])[-1])
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def environment(url: str) -> dict[str, str]:
    """The variables of a client of the embedded cloud; what the user has set about AWS stays out of it."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return {**others, **client_environment(url, "us-east-1"), "AWS_CONFIG_FILE": os.devnull}
