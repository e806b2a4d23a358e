"""The bikes in ``make bench``: their cost beside a client in C, how late they are in a race, ten thousand of them."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from producers import IotDeviceProducer, MqttProducer, Record
from simulator.cloud.limits import LimitSettings
from simulator.cloud.server import CloudProcess, allow_many_connections
from simulator.fleet import Fleet

ROOT = Path(__file__).resolve().parents[1]
BIKES = 1_000
SECONDS = 20
PAYLOAD = b"x" * 170
RACE = f"-u {BIKES} -t 30s --via mqtt --json --port 0 --mqtt-port 0"
FLEET_BIKES = 10_000
FLEET_SECONDS = 30
FLEET_INTERVAL_S = 10
FLEET_PROCESSES = 2


def _second(devices: range, second: int, interval_s: int, began: float) -> list[Record]:
    """One message of each device whose turn it is, spread over the second."""
    chosen = [device for device in devices if device % interval_s == second % interval_s]
    return [Record(PAYLOAD, "k", began + second + place / len(chosen), device) for place, device in enumerate(chosen)]


async def _ride(producer: Any, devices: range, seconds: int, interval_s: int = 1) -> None:
    async with producer:
        began = time.time() + 1.0
        for second in range(seconds):
            await asyncio.sleep(max(0.0, began + second - 0.5 - time.time()))
            await producer.put_many(_second(devices, second, interval_s, began))
        await producer.flush()


def as_bikes(kind: str, url: str) -> dict[str, float]:
    """Run in a process of its own: CPU seconds per 1,000 messages and lateness of 1,000 bikes at a message a second."""
    allow_many_connections()
    make = MqttProducer if kind == "aiomqtt" else IotDeviceProducer
    devices = range(BIKES)

    async def ride() -> dict[str, float]:
        producer = make(url=url, topic="bench", devices=list(devices), qos=1, connect_rate_per_s=1_000)
        began = time.process_time()
        await _ride(producer, devices, SECONDS)
        used = time.process_time() - began
        ledger = producer.statistics().ledger
        assert ledger.delivered == BIKES * SECONDS, ledger
        late = producer.latencies().send_lateness
        return {"cpu_s": used / ledger.delivered * 1000, "p50": late.p50, "p99": late.p99}

    return asyncio.run(ride())


def _child(role: str, url: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "loadtests.bike_bench", role, url], capture_output=True, text=True, check=True, cwd=ROOT
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _mosquitto_pub(port: int) -> float | None:
    """CPU seconds per 1,000 messages of mosquitto's own client at QoS 1, one connection, a message a line."""
    binary = shutil.which("mosquitto_pub")
    if binary is None:
        return None
    with tempfile.TemporaryFile() as lines:
        lines.write((PAYLOAD + b"\n") * BIKES * SECONDS)
        lines.seek(0)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [binary, "-h", "127.0.0.1", "-p", str(port), "-t", "bench", "-q", "1", "-l"]
        subprocess.run(command, stdin=lines, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used / (BIKES * SECONDS) * 1000


def bench_bikes() -> None:
    print(
        f"\nBikes: {BIKES:,} connections at 1 message a second, QoS 1, {SECONDS} s, one process, nothing else running"
    )
    print(f"{'client':<30}{'CPU s per 1,000':>17}{'late p50 ms':>13}{'late p99 ms':>13}")
    with CloudProcess(settings=LimitSettings(enforced=False)) as cloud:
        in_c = _mosquitto_pub(cloud.mqtt_port)
        if in_c is None:
            print("mosquitto_pub is not installed; it is left out")
        else:
            print(f"{'mosquitto_pub (C), 1 connection':<30}{in_c:>16.3f}")
        for kind in ("aiomqtt", "awsiotsdk"):
            found = _child(kind, cloud.mqtt_url)
            ratio = f"  {found['cpu_s'] / in_c:.0f}x C" if in_c else ""
            print(f"{kind:<30}{found['cpu_s']:>17.3f}{found['p50']:>13.2f}{found['p99']:>13.2f}{ratio}", flush=True)


def bench_race(rounds: int = 3) -> None:
    """The whole race on this machine: bikes, cloud, functions."""
    print(f"\nSend lateness during `alleycat race -u {BIKES} -t 30s --via mqtt`, everything on this machine")
    found: list[float] = []
    for _ in range(rounds):
        done = subprocess.run(
            [sys.executable, "-c", "from simulator.cli import main; main()", *f"race {RACE}".split()],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
        told = json.loads(done.stdout)
        late = told["latency_ms"]["send_lateness"]
        found.append(late["p99"])
        passed = "passed" if told["verdict"]["passed"] else "FAILED"
        visible = told["latency_ms"]["visible"]
        print(
            f"p50 {late['p50']:.2f} ms, p99 {late['p99']:.2f} ms, max {late['max']:.0f} ms; visible p50 "
            f"{visible['p50'] / 1000:.1f} s; {passed}",
            flush=True,
        )
    print(f"median p99 {statistics.median(found):.2f} ms")


def bench_fleet() -> None:
    print(
        f"\n{FLEET_BIKES:,} connections at {1 / FLEET_INTERVAL_S} messages a second from {FLEET_PROCESSES} processes, "
        f"{FLEET_SECONDS} s"
    )
    allow_many_connections()
    with CloudProcess(settings=LimitSettings()) as cloud, tempfile.TemporaryDirectory() as folder:
        idle_bytes = _resident_bytes(cloud.pid)
        devices = range(FLEET_BIKES)
        fleet = Fleet(
            processes=FLEET_PROCESSES,
            client="aiomqtt",
            devices=list(devices),
            spool=Path(folder) / "spool.jsonl",
            tls=None,
            arguments={"url": cloud.mqtt_url, "topic": "bench", "qos": 1, "connect_rate_per_s": 1_000},
        )
        watched: list[int] = []
        asyncio.run(_watched(fleet, devices, lambda: watched.append(_resident_bytes(cloud.pid))))
        found = fleet.statistics()
        late = fleet.latencies().send_lateness
        print(f"delivered {found.ledger.delivered:,} of {found.ledger.generated:,}, lost {found.ledger.lost:,}")
        print(f"send lateness p50 {late.p50:.2f} ms, p99 {late.p99:.2f} ms")
        print(f"bikes: {found.peak_memory_bytes / FLEET_BIKES / 1024:.1f} KiB a connection (whole processes), "
              f"{found.cpu_s:.1f} CPU s")  # fmt: skip
        print(f"broker: {(max(watched) - idle_bytes) / FLEET_BIKES / 1024:.1f} KiB a connection", flush=True)


async def _watched(fleet: Fleet, devices: range, look: Callable[[], None]) -> None:
    async def looking() -> None:
        while True:
            await asyncio.sleep(1.0)
            look()

    task = asyncio.create_task(looking())
    try:
        await _ride(fleet, devices, FLEET_SECONDS, FLEET_INTERVAL_S)
    finally:
        task.cancel()


def _resident_bytes(pid: int) -> int:
    """Memory of a process (Linux)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    print(json.dumps(as_bikes(sys.argv[1], sys.argv[2])))
