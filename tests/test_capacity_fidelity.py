"""The same workload in a plan and on the embedded cloud: by the real producer at and over shards' limits, and the
short scenarios of ``make fidelity``, which has the others.

The shard's rates are a fifth, so that a small machine carries it without effort. What is accepted is decided by the
shard's bucket and compared within 2 %. How often records are refused hangs on the jitter of some dozens of back-offs,
so the live count is held, within 2 %, against what plans of many seeds say is possible. A machine that stalls sends
late, which is no fault of the plan: up to three live runs are made, and one must agree.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import botocore.session
import numpy as np
import pytest

from loadtests.fidelity import judge
from loadtests.fidelity_cases import CASES, Case
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
        ("at", 200, 1, False),
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


@pytest.mark.parametrize("case", [case for case in CASES if case.is_short], ids=lambda case: case.name)
def test_a_plan_and_a_ridden_race_agree(case: Case) -> None:
    """As ``make fidelity`` has it for all of them: records within 2 %, units within 1 %, ages within 1 s or 5 %."""
    rows, _ = judge(case)
    assert [row for row in rows if not row.agrees] == []
    assert {"accepted", "throttled", "table WCU", "index WCU", "first limit"} <= {row.name for row in rows}
