"""Bikes in processes of their own: the same interface, nothing lost, no hang when a process or the broker goes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from producers import INTERRUPTED, ProducerClosed, ProducerError, Record, read_spool
from simulator.cloud.server import CloudProcess
from simulator.fleet import Fleet
from simulator.results_feed import listening


def fleet(url: str, spool: Path, devices: int = 6, processes: int = 2, **more: Any) -> Fleet:
    # A client id may connect once a second, and the tests of this file are faster than that.
    own = f"{uuid.uuid4().hex[:8]}-"
    arguments = {"url": url, "topic": "fleet", "client_id": own, "deadline_s": 5.0, "connect_timeout_s": 2.0, **more}
    return Fleet(
        processes=processes, client="aiomqtt", devices=list(range(devices)), spool=spool, tls=None, arguments=arguments
    )


def record(device: int, number: int, in_s: float = 0.0) -> Record:
    return Record(json.dumps([device, number]).encode(), "k", time.time() + in_s, device)


def test_every_record_arrives_in_its_devices_order(cloud: CloudProcess, tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []

    async def main() -> Fleet:
        def seen(payload: bytes, at_s: float) -> None:
            device, number = json.loads(payload)
            heard.append((device, number))

        async with listening(cloud.mqtt_url, "fleet", seen, client_id="ear") as feed:
            assert feed.subscribed is not None
            await asyncio.wait_for(feed.subscribed.wait(), 10)
            made = fleet(cloud.mqtt_url, tmp_path / "spool.jsonl")
            async with made:
                for number in range(10):
                    await made.put_many([record(device, number) for device in range(6)])
                await made.flush()
                with pytest.raises(KeyError):
                    await made.put_many([record(99, 0)])
            deadline = time.monotonic() + 10
            while len(heard) < 60 and time.monotonic() < deadline:
                await asyncio.sleep(0.02)
            return made

    made = asyncio.run(main())
    for device in range(6):
        assert [number for one, number in heard if one == device] == list(range(10))
    statistics = made.statistics()
    assert (statistics.ledger.generated, statistics.ledger.delivered, statistics.ledger.lost) == (60, 60, 0)
    assert statistics.cpu_s > 0
    assert statistics.peak_memory_bytes > 1_000_000
    assert len(made.samples[0]) == len(made.samples[1]) == 60
    assert made.latencies().accepted.max >= made.latencies().accepted.p50 > 0
    assert not list(tmp_path.glob("spool.*.jsonl"))


def test_what_is_lost_is_in_one_spool(cloud: CloudProcess, tmp_path: Path) -> None:
    spool = tmp_path / "spool.jsonl"

    async def main() -> Fleet:
        made = fleet(cloud.mqtt_url, spool)
        with pytest.raises(RuntimeError):
            async with made:
                await made.put_many([record(device, 0, in_s=60) for device in range(6)])
                raise RuntimeError
        return made

    ledger = asyncio.run(main()).statistics().ledger
    assert ledger.lost_by_reason == {INTERRUPTED: 6}
    assert {item.order_key for item in read_spool(spool)} == set(range(6))


def test_a_broker_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    async def main() -> None:
        async with fleet("mqtt://127.0.0.1:1", tmp_path / "spool.jsonl"):
            raise AssertionError("it connected to nothing")

    with pytest.raises(ProducerError, match=r"cannot reach the MQTT broker at mqtt://127\.0\.0\.1:1"):
        asyncio.run(main())


def test_a_process_that_is_killed_is_told_and_what_it_had_is_counted(cloud: CloudProcess, tmp_path: Path) -> None:
    async def main() -> Fleet:
        made = fleet(cloud.mqtt_url, tmp_path / "spool.jsonl")
        with pytest.raises(ProducerError, match="died"):
            async with made:
                await made.put_many([record(device, 0, in_s=60) for device in range(6)])
                os.kill(made._members[0].process.pid, signal.SIGKILL)
                while True:
                    await made.put_many([record(1, 1, in_s=60)])
                    await asyncio.sleep(0.05)
        with pytest.raises((ProducerClosed, ProducerError)):
            await made.put_many([record(1, 2)])
        return made

    ledger = asyncio.run(main()).statistics().ledger
    assert ledger.in_flight == 0
    assert ledger.lost_by_reason[INTERRUPTED] == ledger.generated >= 6
