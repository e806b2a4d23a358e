"""The MQTT part of ``make bench``: brokers side by side, and the bikes beside a client in C."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from loadtests.mqtt_load import flood, ride
from loadtests.peers import BENCH, version_of
from simulator.cloud.limits import LimitSettings
from simulator.cloud.server import CloudProcess, allow_many_connections, run

FLOOD_MESSAGES = {0: 100_000, 1: 50_000}
ROUNDS = 3
CONNECTIONS = 1_000
RIDE_S = 10


@dataclass(frozen=True, slots=True)
class Broker:
    """A running broker; ``pid`` is the process whose CPU time is its cost."""

    name: str
    port: int
    pid: int

    def cpu_s(self) -> float:
        """User and system time so far (Linux)."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def mosquitto_path() -> str | None:
    """Debian puts it where a user's PATH does not look."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


@contextlib.contextmanager
def brokers() -> Iterator[list[Broker]]:
    """Ours with limits off (they would stop a flood at 100 messages a second), and the peers that are installed."""
    with contextlib.ExitStack() as stack:
        cloud = stack.enter_context(CloudProcess(settings=LimitSettings(enforced=False)))
        found = [Broker("alleycat", cloud.mqtt_port, cloud.pid)]
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if (binary := mosquitto_path()) is not None:
            told = subprocess.run([binary, "-h"], capture_output=True, text=True, check=False).stdout.split()
            port = free_port()
            config = folder / "mosquitto.conf"
            config.write_text(
                f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nlog_type none\n"
            )
            found.append(
                _start(stack, f"mosquitto {told[2] if len(told) > 2 else ''}", port, [binary, "-c", str(config)])
            )
        amqtt = BENCH / "venv" / "bin" / "amqtt"
        if amqtt.exists():
            port = free_port()
            config = folder / "amqtt.yaml"
            config.write_text(
                f"listeners:\n  default:\n    type: tcp\n    bind: 127.0.0.1:{port}\n    max_connections: 20000\n"
                "plugins:\n  amqtt.plugins.authentication.AnonymousAuthPlugin:\n    allow_anonymous: true\n"
            )
            name = f"amqtt {version_of(amqtt.with_name('python'), 'amqtt')}"
            found.append(_start(stack, name, port, [str(amqtt), "-c", str(config)]))
        yield found


def _start(stack: contextlib.ExitStack, name: str, port: int, command: list[str]) -> Broker:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    give_up = time.monotonic() + 15
    while time.monotonic() < give_up and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return Broker(name, port, process.pid)
        time.sleep(0.1)
    raise RuntimeError(f"{name} did not start")


def free_port() -> int:
    """A TCP port that nothing listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def bench_brokers() -> None:
    print("\nMQTT brokers: publishes of 170 B from 50 connections as fast as they are taken, no subscriber")
    print(f"{'broker':<22}{'QoS':>4}{'messages/s':>13}{'CPU us/message':>16}")
    rates: dict[tuple[str, int], float] = {}
    allow_many_connections()
    with brokers() as found:
        for broker in found:
            for qos, messages in FLOOD_MESSAGES.items():
                measured: list[float] = []
                before = broker.cpu_s()
                for _ in range(ROUNDS):
                    run(_into(measured, broker.port, qos, messages))
                cpu_us = (broker.cpu_s() - before) / ROUNDS / messages * 1e6
                rates[broker.name, qos] = statistics.median(measured)
                print(f"{broker.name:<22}{qos:>4}{rates[broker.name, qos]:>13,.0f}{cpu_us:>16.1f}", flush=True)
        for broker in found[1:]:
            ratios = ", ".join(
                f"{rates['alleycat', qos] / rates[broker.name, qos]:.2f}x at QoS {qos}" for qos in (0, 1)
            )
            print(f"alleycat / {broker.name}: {ratios}")
        print(f"\nMQTT brokers: {CONNECTIONS:,} connections at 1 message a second to one subscriber, {RIDE_S} s")
        print(f"{'broker':<22}{'QoS':>4}{'p50 ms':>9}{'p99 ms':>9}{'core':>7}{'arrived':>10}")
        for broker in found:
            for qos in (0, 1):
                before, began = broker.cpu_s(), time.monotonic()
                p50, p99, arrived = asyncio.run(ride(broker.port, qos, CONNECTIONS, RIDE_S))
                share = (broker.cpu_s() - before) / (time.monotonic() - began)
                print(f"{broker.name:<22}{qos:>4}{p50:>9.2f}{p99:>9.2f}{share:>7.1%}{arrived:>10,}", flush=True)


async def _into(measured: list[float], port: int, qos: int, messages: int) -> None:
    measured.append(await flood(port, qos, messages))
