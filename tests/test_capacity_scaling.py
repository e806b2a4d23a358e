"""Auto scaling in a plan: when Tracker says, as the cloud does, and on the bill."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from simulator.capacity.clock import Clock
from simulator.capacity.model import plan
from simulator.capacity.plan_figures import figures
from simulator.capacity.report import as_json
from simulator.capacity.scaling import Scaling, policies_of
from simulator.capacity.tables import Table
from simulator.capacity.timeline import Timeline
from simulator.capacity.view import render
from simulator.capacity.workload import START_MS, Workload
from simulator.cloud import moto_store
from simulator.cloud.auto_scaling import Tracker
from simulator.cloud.endpoint import Cloud
from simulator.cloud.limits import LimitSettings
from simulator.deployment import Deployment, load_deployment

OURS = Path(__file__).resolve().parents[1] / "template.yaml"
START_S = START_MS / 1000
TABLE, INDEX = "table/races", "table/races/index/ByKind"


def scaled_by(name: str, resource_id: str, least: int, most: int, dimension: str = "table") -> str:
    """A target and its policy, for the section Resources."""
    return f"""
  {name}Target:
    Type: AWS::ApplicationAutoScaling::ScalableTarget
    Properties:
      ServiceNamespace: dynamodb
      ResourceId: {resource_id}
      ScalableDimension: dynamodb:{dimension}:WriteCapacityUnits
      MinCapacity: {least}
      MaxCapacity: {most}
  {name}Policy:
    Type: AWS::ApplicationAutoScaling::ScalingPolicy
    Properties:
      PolicyName: {name}
      PolicyType: TargetTrackingScaling
      ScalingTargetId: !Ref {name}Target
      TargetTrackingScalingPolicyConfiguration:
        TargetValue: 70
        PredefinedMetricSpecification: {{PredefinedMetricType: DynamoDBWriteCapacityUtilization}}
"""


def races(tmp_path: Path, wcu: int, least: int, most: int) -> Deployment:
    text = f"""
Resources:
  Races:
    Type: AWS::DynamoDB::Table
    Properties:
      TableName: races
      AttributeDefinitions: [{{AttributeName: PK, AttributeType: S}}, {{AttributeName: kind, AttributeType: S}}]
      KeySchema: [{{AttributeName: PK, KeyType: HASH}}]
      ProvisionedThroughput: {{ReadCapacityUnits: 5, WriteCapacityUnits: {wcu}}}
      GlobalSecondaryIndexes:
        - IndexName: ByKind
          KeySchema: [{{AttributeName: kind, KeyType: HASH}}]
          Projection: {{ProjectionType: ALL}}
          ProvisionedThroughput: {{ReadCapacityUnits: 5, WriteCapacityUnits: {wcu}}}
"""
    text += scaled_by("Table", TABLE, least, most) + scaled_by("Index", INDEX, least, most, "index")
    path = tmp_path / "template.yaml"
    path.write_text(text)
    return load_deployment(path)


def item(kib: int, *, is_indexed: bool = False) -> dict[str, Any]:
    """Just under ``kib`` KiB, names included."""
    kind = {"kind": {"S": "a"}} if is_indexed else {}
    return {"PK": {"S": "a"}, "text": {"S": "x" * (kib * 1024 - 20)}} | kind


class World:
    """One table that stands since ``START_S`` and is scaled, on a clock of its own."""

    def __init__(self, deployment: Deployment, settings: LimitSettings | None = None) -> None:
        self.clock, self.timeline = Clock(START_S), Timeline(START_S)
        self.table = Table(deployment.tables[0], settings or LimitSettings(), self.timeline, START_S)
        Scaling(deployment, {"races": self.table}, self.clock, self.timeline)


def test_a_steady_load_scales_out_after_two_minutes_as_tracker_says(tmp_path: Path) -> None:
    """
    ::

        90 units/s of 100 are more than 70 %     0:00 ------ 1:00 ------ 2:00 129 units ---
    """
    deployment = races(tmp_path, wcu=100, least=5, most=500)
    world = World(deployment)
    for second in range(240):
        world.clock.run_until(START_S + second + 0.5)
        assert world.table.put(item(90), item(90), world.clock.now)
    policy, tracker, units, expected = policies_of(deployment)[0], Tracker(), 100.0, []
    for minute in range(1, 4):
        wanted = tracker.observe(policy, 90.0, units, START_S + 60 * minute)
        if wanted is not None:
            expected.append((60.0 * minute, units, float(wanted)))
            tracker.scaled(out=True, now=START_S + 60 * minute)
            units = wanted
    assert expected == [(120.0, 100.0, 129.0)]
    changes = [(one.at_s, one.before, one.after) for one in world.table.scaled]
    assert changes == expected
    levels = world.timeline.series("provisioned_write_units", "races", 240)
    assert levels == [100.0] * 120 + [129.0] * 120
    (level, _) = world.table.capacity.levels(world.clock.now)
    assert (level.provisioned_write, level.capacity_write) == (129, 129 * 300)


def test_hours_are_charged_at_their_highest_level(tmp_path: Path) -> None:
    """
    ::

        units   100 | 129 | 5 (idle)
        minute  0     2     fifteen minutes after the load
        hours   129 + index 100, then 5 + 5
    """
    world = World(races(tmp_path, wcu=100, least=5, most=500))
    for second in range(180):
        world.clock.run_until(START_S + second + 0.5)
        world.table.put(item(90), item(90), world.clock.now)
    world.clock.run_until(START_S + 7200)
    assert [one.after for one in world.table.scaled if one.resource == "races"] == [129, 5]
    assert world.table.unit_hours("Write", 3600) == 129 + 100
    assert world.table.unit_hours("Write", 3601) == 129 + 100 + 10
    assert world.table.unit_hours("Write", 7200) == 129 + 100 + 10
    assert world.table.unit_hours("Read", 7200) == 2 * 10


def test_who_may_be_scaled_out_is_not_given_up(tmp_path: Path) -> None:
    """Ten hours of writes at 1 unit a second are a quarter of an hour at 40."""
    deployment = races(tmp_path, wcu=1, least=1, most=40)
    plain = World(replace(deployment, scaling_policies=())).table
    assert "owes 36,000 write units and has 1 a second" in plain.why_never(
        36_000, None, item(1), START_S, START_S + 900
    )
    assert World(deployment).table.why_never(36_000, None, item(1), START_S, START_S + 900) == ""


@pytest.fixture
def cloud_time() -> Iterator[tuple[Cloud, list[float]]]:
    time_s = [START_S]
    cloud = Cloud(clock=lambda: time_s[0])
    moto_store.reset()
    yield cloud, time_s
    cloud.close()


def test_the_cloud_comes_to_the_same_levels(tmp_path: Path, cloud_time: tuple[Cloud, list[float]]) -> None:
    """The same puts at the same times, three hours of them in stretches of load and of rest, give the same answers and
    the same units, minute by minute, until no more decreases are allowed."""
    cloud, time_s = cloud_time
    deployment = races(tmp_path, wcu=20, least=2, most=60)

    def ask(operation: str, **members: Any) -> tuple[int, dict[str, Any]]:
        answer = cloud.dynamodb.handle(operation, json.dumps(members).encode(), "us-east-1")
        return answer.status, json.loads(answer.body)

    assert ask("CreateTable", **deployment.tables[0].create_table_kwargs())[0] == 200
    world = World(deployment)
    policies = policies_of(deployment)
    rng, before = random.Random(5), None
    levels: list[tuple[float, ...]] = []
    for minute in range(1, 181):
        is_busy = minute % 20 < 3
        for second in (20, 40) if is_busy else ():
            time_s[0] = START_S + 60 * (minute - 1) + second
            put = item(rng.randint(20, 380), is_indexed=rng.random() < 0.7)
            world.clock.run_until(time_s[0])
            admitted = world.table.put(before, put, time_s[0])
            assert (ask("PutItem", TableName="races", Item=put)[0] == 200) is admitted
            before = put if admitted else before
        time_s[0] = START_S + 60 * minute
        world.clock.run_until(time_s[0])
        cloud.auto_scaling.evaluate(policies, time_s[0])
        levels.append(tuple(cloud.dynamodb.provisioned(policy) or 0.0 for policy in policies))
        throughputs = [policy.throughput(world.table.spec) for policy in policies]
        planned = [policy.units(one) for policy, one in zip(policies, throughputs, strict=True) if one is not None]
        assert tuple(planned) == levels[-1], minute
    lower = sum(after[0] < earlier[0] for earlier, after in itertools.pairwise(levels))
    # Four decreases a day are free, the fifth comes an hour after the fourth: some of the rests kept their units.
    assert 5 <= lower < 9
    assert len(set(levels)) > 8


@pytest.fixture(scope="module")
def scaled_plan(tmp_path_factory: pytest.TempPathFactory) -> Any:
    text = OURS.read_text()
    head, mark, outputs = text.partition("\nOutputs:")
    path = tmp_path_factory.mktemp("scaled") / "template.yaml"
    path.write_text(head + scaled_by("Races", "table/alleycat-races", 1, 100) + mark + outputs)
    deployment = load_deployment(path, overrides={"WriteCapacityUnits": "2"})
    return plan(deployment, Workload(racers=100, seconds=300))


def test_a_plan_tells_what_scaled_and_charges_for_it(scaled_plan: Any) -> None:
    told = as_json(scaled_plan)
    assert not any("scal" in line for line in told["not_modelled"])
    table, index = told["tables"]
    first = table["scaled"][0]
    assert (first["from"], first["direction"], first["at_s"] % 60) == (2, "write", 0)
    assert first["to"] > 2
    assert (table["provisioned_write_units"], index["scaled"]) == (2, [])
    levels = told["timeline"]["series"]["provisioned_write_units"]
    assert list(levels) == ["alleycat-races"]
    at = int(first["at_s"])
    assert levels["alleycat-races"][at - 1 : at + 1] == [2, first["to"]]
    highest = max(one["to"] for one in table["scaled"])
    line = next(one for one in told["bill"]["lines"] if one["line"] == "dynamodb.wcu_hour")
    assert line["quantity"] == highest + 50  # the hour that is begun, and the index beside it


def test_figures_and_the_screen_show_it(scaled_plan: Any) -> None:
    first = scaled_plan.tables[0].scaled[0]
    console = Console(width=120)
    with console.capture() as screen:
        console.print(render(scaled_plan))
    assert f"alleycat-races scaled from 2 to {first.after:,.0f} write units" in screen.get()
    drawn = next(one for one in figures(scaled_plan) if one.title == "Write capacity of alleycat-races")
    line = next(trace for trace in drawn.drawing.data if trace.name == "provisioned, scaled")
    assert set(line.y) >= {2.0, first.after}
