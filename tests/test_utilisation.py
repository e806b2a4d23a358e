"""What the report makes of the cloud's metrics: IoT Core's limits, the balance of shards, and what they mean."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from template_files import STREAM, load

from simulator.cloud.metrics import Metrics
from simulator.deployment import Deployment
from simulator.diagnosis import diagnose, hot_shards
from simulator.utilisation import Balance, balances, limit_use

MQTT = (("Protocol", "MQTT"),)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    return load(tmp_path_factory.mktemp("t"), STREAM.replace("ShardCount: 1", "ShardCount: 4\n      Name: s"))


def offered(by_second: list[list[int]], refused: int = 0) -> dict[str, Any]:
    """Metrics of a stream whose shard n got ``by_second[t][n]`` records in second t."""
    metrics = Metrics()
    for second, counts in enumerate(by_second):
        for shard, count in enumerate(counts):
            dimensions = (("StreamName", "s"), ("ShardId", f"shardId-{shard:012d}"))
            if count > refused:
                metrics.record("AWS/Kinesis", "IncomingRecords", dimensions, count - refused, 1000.0 + second)
                metrics.record(
                    "AWS/Kinesis", "WriteProvisionedThroughputExceeded", dimensions, refused, 1000.0 + second
                )
    return metrics.to_json()


@given(st.lists(st.lists(st.integers(60, 2_000), min_size=4, max_size=4), min_size=1, max_size=20), st.integers(0, 50))
@settings(max_examples=60, deadline=None)
def test_shares_are_those_of_what_was_offered(deployment: Deployment, by_second: list[list[int]], refused: int) -> None:
    (found,) = balances(offered(by_second, refused), deployment)
    total = sum(map(sum, by_second))
    assert found.shards == 4
    assert found.hottest_share == pytest.approx(sum(max(one) for one in by_second) / total)
    assert found.worst_share == pytest.approx(max(max(one) / sum(one) for one in by_second))
    assert found.steady_share == pytest.approx(max(map(sum, zip(*by_second, strict=True))) / total)
    assert 0.25 <= found.steady_share <= found.hottest_share + 1e-9 <= found.worst_share + 2e-9


def test_a_key_that_moves_load_is_told_from_one_that_stays(deployment: Deployment) -> None:
    (moving,) = balances(offered([[400, 200, 200, 200], [200, 400, 200, 200], [200, 200, 400, 200]]), deployment)
    (steady,) = balances(offered([[400, 200, 200, 200]] * 3), deployment)
    assert [one.hottest_share for one in (moving, steady)] == [0.4, 0.4]
    (finding,) = hot_shards([moving, steady])
    assert "took 40% of the records" in str(finding)
    assert hot_shards([steady]) == []


def test_too_little_to_speak_of_balance(deployment: Deployment) -> None:
    assert balances(offered([[10, 0, 0, 0]] * 5), deployment) == []
    assert balances(Metrics().to_json(), deployment) == []
    assert Balance("s", 4, 0.3, 0.31, 0.5).to_json()["even_share"] == 0.25


def test_iot_limits_are_there_when_somebody_came_by_mqtt(deployment: Deployment) -> None:
    metrics = Metrics()
    for second in range(3):
        metrics.record("AWS/IoT", "Connect.Success", MQTT, 500 + second, 1000.0 + second)
        metrics.record("AWS/IoT", "PublishIn.Success", MQTT, 19_000, 1000.0 + second)
    metrics.record("AWS/IoT", "Connect.ClientIDThrottle", MQTT, 7, 1001.0)
    metrics.record("AWS/IoT", "Connect.Throttle", MQTT, 2, 1001.0)
    metrics.record("AWS/IoT", "PublishIn.Throttle", MQTT, 40, 1001.0)
    uses = {one.name: one for one in limit_use(metrics.to_json(), deployment)}
    connects = uses["iot.account.connects_per_second"]
    assert (connects.peak, connects.limit, connects.throttled, connects.total) == (502, 3_000, 9, 1_503)
    publishes = uses["iot.account.publish_in_per_second"]
    assert (publishes.utilisation, publishes.throttled) == (0.95, 40)
    assert "iot.account.publish_out_per_second" not in uses
    told = [str(one) for one in diagnose(list(uses.values()), 10, [], deployment)]
    assert any("100 a connection (40 refused in 10 s, discarded)" in one for one in told)
    assert any("--connect-rate" in one for one in told)
    assert not [one for one in limit_use(Metrics().to_json(), deployment) if one.name.startswith("iot")]
