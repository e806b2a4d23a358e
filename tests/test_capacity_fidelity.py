"""The same workload in a plan and on the embedded cloud, by the real producer: under, at and over a shard's limit.

The shard's rates are a fifth, so that a small machine carries it without effort. What is accepted is decided by the
shard's bucket and compared within 2 %. How often records are refused hangs on the jitter of some dozens of back-offs,
so the live count is held, within 2 %, against what plans of many seeds say is possible. A machine that stalls sends
late, which is no fault of the plan: up to three live runs are made, and one must agree.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import numpy as np
import pytest

from producers import KinesisProducer, Ledger
from simulator.capacity.model import Plan, plan
from simulator.capacity.workload import Workload
from simulator.cloud.limits import LimitSettings
from simulator.cloud.server import CloudProcess
from simulator.deployment import load_deployment
from simulator.race import plan_race
from simulator.riders import partition_key_of, records_of

TEMPLATE = Path(__file__).resolve().parents[1] / "template.yaml"
LIMITS = LimitSettings(shard_rate_factor=0.2)
SECONDS = 12
SEEDS = range(16)
SHARE = 0.02


@pytest.fixture(scope="module")
def small_cloud() -> Iterator[CloudProcess]:
    with CloudProcess(settings=LIMITS) as process:
        yield process


async def _live(cloud: CloudProcess, stream: str, workload: Workload) -> tuple[Ledger, Ledger]:
    """The producer's ledger when the last message is due, and when everything is settled."""
    session = botocore.session.Session()
    session.set_credentials("test", "test")
    async with KinesisProducer(
        stream=stream,
        region="us-east-1",
        endpoint_url=cloud.endpoint_url,
        session=session,
        deadline_s=workload.deadline_s,
    ) as producer:
        start_ms = int((time.time() + 1.0) * 1000)
        race = plan_race(start_ms=start_ms, racers=workload.racers, seconds=workload.seconds, seed=workload.seed)
        key = partition_key_of(workload.partition_key, race)
        everybody = np.ones(workload.racers, np.bool_)
        for second in range(1, workload.seconds + 1):
            await producer.put_many(records_of(race, second, key, everybody))
        await asyncio.sleep(race.end_ms / 1000 + 0.02 - time.time())
        at_the_end = producer.statistics().ledger
    return at_the_end, producer.statistics().ledger


def _plans(workload: Workload, shards: int) -> list[Plan]:
    """Of the same race, with other jitter."""
    deployment = load_deployment(TEMPLATE, overrides={"ShardCount": str(shards)})
    return [plan(deployment, workload, settings=LIMITS, jitter_seed=seed) for seed in SEEDS]


def _differences(live: tuple[Ledger, Ledger], plans: list[Plan]) -> list[str]:
    """What live and plan do not agree in."""
    at_the_end, final = live
    found = []
    for name, seen, possible in (
        ("delivered when the race ends", at_the_end.delivered, [_delivered_during(one) for one in plans]),
        ("delivered", final.delivered, [one.ledger.delivered for one in plans]),
        ("throttled", final.throttled, [one.ledger.throttled for one in plans]),
        ("retried", final.retried, [one.ledger.retried for one in plans]),
    ):
        low, high = min(possible) * (1 - SHARE), max(possible) * (1 + SHARE)
        if not low <= seen <= high:
            found.append(f"{name}: {seen} live, {low:.0f} to {high:.0f} planned")
    return found


def _delivered_during(found: Plan) -> float:
    return sum(sum(found.timeline.series("accepted", shard.shard_id, SECONDS)) for shard in found.shards)


@pytest.mark.parametrize(
    ("name", "racers", "shards", "refuses"),
    [
        ("under", 180, 1, False),
        ("at", 200, 1, False),
        ("over", 260, 1, True),
        ("over-two-shards", 480, 2, True),
    ],
)
def test_plan_and_cloud_agree(small_cloud: CloudProcess, name: str, racers: int, shards: int, refuses: bool) -> None:
    workload = Workload(racers=racers, seconds=SECONDS, deadline_s=60.0)
    plans = _plans(workload, shards)
    assert all((one.ledger.throttled > 0) == refuses for one in plans)
    differences: list[str] = []
    for attempt in range(3):
        stream = f"{name}-{attempt}"
        small_cloud.client("kinesis").create_stream(StreamName=stream, ShardCount=shards)
        live = asyncio.run(_live(small_cloud, stream, workload))
        assert live[1].delivered + live[1].lost == live[1].generated == workload.messages
        differences = _differences(live, plans)
        if not differences:
            break
    assert differences == []


# -- whole races ------------------------------------------------------------------------------------------


def _race(*arguments: str) -> dict[str, Any]:
    """A live race's report."""
    command = [sys.executable, "-c", "from simulator.cli import main; main()", "race"]
    done = subprocess.run(
        [*command, "--json", "--port", "0", "--mqtt-port", "0", *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=TEMPLATE.parent,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def _total(report: dict[str, Any], name: str, resource: str) -> float:
    return next(float(one["total"]) for one in report["limits"] if (one["name"], one["resource"]) == (name, resource))


def test_consumed_units_are_those_of_a_live_race() -> None:
    """200 bikers for 8 s, results after every batch. How many batches there are hangs on when pollers began, so the
    difference in them is taken out at what a merge costs."""
    sizes = {"WriteCapacityUnits": "1000", "IndexWriteCapacityUnits": "500"}
    settings = [text for name, value in sizes.items() for text in ("--set", f"{name}={value}")]
    live = _race("-u", "200", "-t", "8s", "--config-env", "as-published", *settings)
    planned = plan(load_deployment(TEMPLATE, "as-published", sizes), Workload(racers=200, seconds=8))
    merges = {one["name"]: one["invocations"] for one in live["functions"]}["TumblingWindowFunction"]
    planned_merges = planned.functions[0].totals.invocations
    for name, resource, of_finish in (
        ("dynamodb.table.write.units_per_second", "alleycat-races", 4),
        ("dynamodb.index.write.units_per_second", "alleycat-races/GSI_Index", 2),
    ):
        units = planned.timeline.total("consumed_write_units", resource)
        a_merge = (units - 200 * of_finish) / planned_merges
        seen = _total(live, name, resource)
        assert seen == pytest.approx(units + (merges - planned_merges) * a_merge, rel=0.01)
        assert seen != 200 * of_finish


def test_a_rule_loses_what_a_live_rule_loses() -> None:
    """260 messages a second, a PutRecord each, into a shard of 200: three attempts, then the error action."""
    shard = "shardId-000000000000"
    workload = Workload(racers=260, seconds=SECONDS, transport="mqtt")
    plans = _plans(workload, 1)
    differences: dict[str, tuple[float, float, float]] = {}
    for _ in range(2):
        live = _race(
            *("-u", "260", "-t", f"{SECONDS}s", "--via", "mqtt", "--shards", "1", "--limit", "shard_rate_factor=0.2")
        )
        throttled = next(
            one["throttled"]
            for one in live["limits"]
            if (one["name"], one["resource"]) == ("kinesis.shard.write.records_per_second", shard)
        )
        differences = {}
        for name, seen, possible in (
            ("delivered", live["ledger"]["delivered"], [one.ledger.delivered for one in plans]),
            ("lost", live["ledger"]["lost"], [one.ledger.lost for one in plans]),
            ("throttled", throttled, [one.ledger.throttled for one in plans]),
        ):
            low, high = min(possible) * (1 - SHARE), max(possible) * (1 + SHARE)
            if not low <= seen <= high:
                differences[name] = (seen, low, high)
        if not differences:
            break
    assert differences == {}
