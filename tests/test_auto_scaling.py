"""DynamoDB's auto scaling: the alarms with the clock in hand, then through the template and the real endpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.cloud import moto_store
from simulator.cloud.auto_scaling import AutoScaling, ScalingPolicy, Tracker
from simulator.cloud.endpoint import Cloud
from simulator.cloud.metrics import Metrics
from simulator.cloud.server import CloudProcess
from simulator.deployment import DeploymentError, load_deployment
from simulator.target import local_target, provision

POLICY = ScalingPolicy("us-east-1", "races", None, "Write", 5, 100)


def timeline(consumed: list[float], provisioned: float = 10.0, policy: ScalingPolicy = POLICY) -> str:
    """What a minute of so many units a second each leads to, as ``minute:units`` of every change."""
    tracker, changes = Tracker(), []
    for minute, units in enumerate(consumed):
        wanted = tracker.observe(policy, units, provisioned, minute * 60.0)
        if wanted is not None:
            changes.append(f"{minute}:{wanted}")
            tracker.scaled(out=wanted > provisioned, now=minute * 60.0)
            provisioned = wanted
    return " ".join(changes)


def test_out_after_two_minutes_in_after_fifteen() -> None:
    """
    ::

        units/s   5 5 | 14 14 14 | 2 2 2 ... 2
        minute    0   |  2  3    | 5        19
        change               20  |          5 (the least)
    """
    assert timeline([5, 5, 14, 14, 14] + [2] * 20) == "3:20 19:5"


@pytest.mark.parametrize(
    ("consumed", "told"),
    [
        ([8, 5, 8, 5, 8, 5], ""),  # never two in a row
        ([6] * 40, ""),  # between the alarms: below 70 %, above 50 %
        ([4.9] * 15, "14:7"),  # 49 %: below the low alarm for fifteen minutes
        ([4.9] * 14 + [6] + [4.9] * 14, ""),
        ([500, 500, 500], "1:100"),  # the most
        ([7, 7, 7], ""),  # exactly at the target
    ],
)
def test_what_does_and_does_not_scale(consumed: list[float], told: str) -> None:
    assert timeline(consumed) == told


def test_cooldowns_hold_changes_back() -> None:
    slow = ScalingPolicy("us-east-1", "races", None, "Write", 5, 100, 70, 3600, 300)
    assert timeline([14, 14, 28, 28, 28, 28, 28], policy=slow) == "1:20 6:40"
    assert timeline([14, 14] + [1] * 70, policy=slow) == "1:20 61:5"


@given(
    st.lists(st.floats(0, 1000), max_size=80),
    st.integers(1, 50),
    st.integers(0, 200),
    st.integers(20, 90),
)
def test_units_stay_within_bounds_and_a_constant_load_settles(
    consumed: list[float], least: int, more: int, target: int
) -> None:
    policy = ScalingPolicy("us-east-1", "races", None, "Read", least, least + more, target)
    tracker, units = Tracker(), float(least)
    for minute, amount in enumerate(consumed):
        wanted = tracker.observe(policy, amount, units, minute * 60.0)
        if wanted is not None:
            assert policy.least_units <= wanted <= policy.most_units
            tracker.scaled(out=wanted > units, now=minute * 60.0)
            units = wanted
    load = consumed[-1] if consumed else 0.0
    for minute in range(60):
        wanted = tracker.observe(policy, load, units, 9000.0 + 60 * minute)
        if wanted is not None:
            tracker.scaled(out=wanted > units, now=9000.0 + 60 * minute)
            units = wanted
    assert tracker.observe(policy, load, units, 20_000.0) is None


def test_minutes_are_whole_and_policies_that_go_are_forgotten() -> None:
    metrics, changes = Metrics(), []

    def change(policy: ScalingPolicy, units: int) -> bool:
        changes.append(units)
        return True

    scaling = AutoScaling(metrics, lambda policy: 10.0, change)
    for second in range(180):
        metrics.record("AWS/DynamoDB", "ConsumedWriteCapacityUnits", POLICY.dimensions, 14, float(second))
    scaling.evaluate([POLICY], 65.0)
    assert changes == []
    scaling.evaluate([], 125.0)
    scaling.evaluate([POLICY], 185.0)
    assert changes == []  # the count began anew
    scaling.evaluate([POLICY], 190.0)
    assert changes == [20]


def test_a_change_that_is_refused_is_asked_for_again() -> None:
    metrics, asked = Metrics(), []

    def refuse(policy: ScalingPolicy, units: int) -> bool:
        asked.append(units)
        return False

    scaling = AutoScaling(metrics, lambda policy: 10.0, refuse)
    for minute in range(17):
        scaling.evaluate([POLICY], 60.0 * minute)
    assert asked == [5, 5, 5]  # decreases are limited a day: the fifteenth idle minute and every one after it


def test_a_low_target_scales_in_and_a_policy_may_not() -> None:
    low = ScalingPolicy("us-east-1", "races", None, "Write", 1, 100, 20)
    assert timeline([0.5] * 16, policy=low) == "14:3"
    only_out = ScalingPolicy("us-east-1", "races", None, "Write", 1, 100, scales_in=False)
    assert timeline([0.5] * 40, policy=only_out) == ""


TEMPLATE = """
Resources:
  Races:
    Type: AWS::DynamoDB::Table
    Properties:
      TableName: NAME
      AttributeDefinitions: [{AttributeName: PK, AttributeType: S}]
      KeySchema: [{AttributeName: PK, KeyType: HASH}]
      ProvisionedThroughput: {ReadCapacityUnits: 5, WriteCapacityUnits: 10}
  Writes:
    Type: AWS::ApplicationAutoScaling::ScalableTarget
    Properties:
      ServiceNamespace: dynamodb
      ResourceId: !Sub table/${Races}
      ScalableDimension: dynamodb:table:WriteCapacityUnits
      MinCapacity: 5
      MaxCapacity: 50
      RoleARN: arn:aws:iam::123456789012:role/scaling
  Tracking:
    Type: AWS::ApplicationAutoScaling::ScalingPolicy
    Properties:
      PolicyName: writes
      PolicyType: TargetTrackingScaling
      ScalingTargetId: !Ref Writes
      TargetTrackingScalingPolicyConfiguration:
        TargetValue: 70
        PredefinedMetricSpecification: {PredefinedMetricType: DynamoDBWriteCapacityUtilization}
"""


def template(tmp_path: Path, name: str, text: str = TEMPLATE) -> Path:
    path = tmp_path / "template.yaml"
    path.write_text(text.replace("NAME", name))
    return path


def test_a_template_asks_for_it_and_clients_see_it(cloud: CloudProcess, tmp_path: Path) -> None:
    name = f"races-{tmp_path.name[-10:]}"
    deployment = load_deployment(template(tmp_path, name))
    provision(local_target(cloud, "us-east-1"), deployment)
    client = cloud.client("application-autoscaling")
    (target,) = client.describe_scalable_targets(ServiceNamespace="dynamodb", ResourceIds=[f"table/{name}"])[
        "ScalableTargets"
    ]
    assert (target["MinCapacity"], target["MaxCapacity"]) == (5, 50)
    policies = client.describe_scaling_policies(ServiceNamespace="dynamodb", ResourceId=f"table/{name}")
    assert policies["ScalingPolicies"][0]["TargetTrackingScalingPolicyConfiguration"]["TargetValue"] == 70
    client.close()


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("MaxCapacity: 50", "MaxCapacity: 4", "MaxCapacity must be at least MinCapacity, 5"),
        ("TargetValue: 70", "TargetValue: 95", "TargetValue must be a whole number from 20 to 90"),
        ("ServiceNamespace: dynamodb", "ServiceNamespace: ecs", "ServiceNamespace must be dynamodb"),
        ("dynamodb:table:Write", "dynamodb:index:Write", "is not a dimension of table/"),
        ("DynamoDBWriteCap", "DynamoDBReadCap", "must be DynamoDBWriteCapacityUtilization"),
        (
            "!Ref Writes",
            "table/other|dynamodb:table:WriteCapacityUnits|dynamodb",
            "no scalable target of this template",
        ),
        ("PolicyType: TargetTrackingScaling", "PolicyType: StepScaling", "PolicyType must be TargetTrackingScaling"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, old: str, new: str, told: str) -> None:
    with pytest.raises(DeploymentError, match=told):
        load_deployment(template(tmp_path, "races", TEMPLATE.replace(old, new, 1)))


def test_a_busy_table_is_scaled_out_and_an_idle_one_in() -> None:
    now = 1_795_000_020.0
    cloud = Cloud(clock=lambda: now)
    assert cloud.others is not None
    moto_store.reset()
    try:

        def ask(operation: str, **members: Any) -> dict[str, Any]:
            answer = cloud.dynamodb.handle(operation, json.dumps(members).encode(), "us-east-1")
            return dict(json.loads(answer.body))

        ask("CreateTable", TableName="busy", KeySchema=[{"AttributeName": "PK", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "PK", "AttributeType": "S"}],
            ProvisionedThroughput={"ReadCapacityUnits": 5, "WriteCapacityUnits": 10})  # fmt: skip
        headers = {
            "content-type": "application/x-amz-json-1.1",
            "authorization": "AWS4-HMAC-SHA256 Credential=a/20261120/us-east-1/application-autoscaling/aws4_request",
        }
        target = {
            "ServiceNamespace": "dynamodb", "ResourceId": "table/busy",
            "ScalableDimension": "dynamodb:table:WriteCapacityUnits",
        }  # fmt: skip
        for operation, more in (
            ("RegisterScalableTarget", {"MinCapacity": 5, "MaxCapacity": 50}),
            ("PutScalingPolicy", {"PolicyName": "p", "PolicyType": "TargetTrackingScaling",
                                  "TargetTrackingScalingPolicyConfiguration": {"TargetValue": 70.0}}),
        ):  # fmt: skip
            status, _, body = cloud.others.call(
                "POST", "http://localhost/",
                {**headers, "x-amz-target": f"AnyScaleFrontendService.{operation}"},
                json.dumps({**target, **more}).encode(),
            )  # fmt: skip
            assert status == 200, body

        def units() -> int:
            described = ask("DescribeTable", TableName="busy")["Table"]
            return int(described["ProvisionedThroughput"]["WriteCapacityUnits"])

        for _ in range(2):
            for _ in range(9 * 60):
                ask("PutItem", TableName="busy", Item={"PK": {"S": "a"}})
                now += 1 / 9
            cloud.scale_tables(now)
        assert units() == 13  # nine a second are 70 % of that
        for _ in range(15):
            now += 60
            cloud.scale_tables(now)
        assert units() == 5
    finally:
        cloud.close()
