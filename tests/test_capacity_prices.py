"""Bills of three deployments, worked out by hand, and prices from a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from simulator.capacity.prices import PRICES, PricesError, Usage, bill_of, load_prices, total_usd
from simulator.cost import estimate
from simulator.deployment import ConsumerSpec, DeliveryStreamSpec, Deployment, load_deployment

TEMPLATE = Path(__file__).resolve().parents[1] / "template.yaml"
LIVE, FINAL = "TumblingWindowFunction", "FinalResultsFunction"


def lines_of(deployment: Deployment, usage: Usage) -> dict[tuple[str, str], float]:
    return {(line.price.name, line.resource): line.usd for line in bill_of(deployment, usage)}


def function_name(deployment: Deployment, logical_id: str) -> str:
    return next(one.name for one in deployment.functions if one.logical_id == logical_id)


def test_a_five_minute_race_on_the_default_sizes() -> None:
    """2 shards, 100+50 WCU and 20+10 RCU for the hour that is begun; 300,000 records of one payload unit each.

    shards        2 h x 0.015                 = 0.030
    payload units 0.3 M x 0.014               = 0.0042
    WCU           150 h x 0.00065             = 0.0975
    RCU           30 h x 0.00013              = 0.0039
    requests      600 of 0.20/M               = 0.00012
    GB-seconds    40 s x 0.5 GB x 0.0000166667 = 0.000333334
    """
    deployment = load_deployment(TEMPLATE)
    live = function_name(deployment, LIVE)
    usage = Usage(300, 300_000, 180, invocations={live: 600}, duration_s={live: 40.0})
    found = lines_of(deployment, usage)
    assert found == pytest.approx(
        {
            ("kinesis.shard_hour", "alleycat"): 0.030,
            ("kinesis.put_payload_unit", "alleycat"): 0.0042,
            ("dynamodb.wcu_hour", "alleycat-races"): 0.0975,
            ("dynamodb.rcu_hour", "alleycat-races"): 0.0039,
            ("lambda.request", live): 0.00012,
            ("lambda.gb_second", live): 0.000333334,
        }
    )
    assert total_usd(bill_of(deployment, usage)) == pytest.approx(0.136053334)


def test_bikes_by_mqtt_as_published_for_ninety_minutes() -> None:
    """1 shard, 30 WCU, 30 RCU for two hours begun; 5.4 M messages of 170 bytes, one rule with one action.

    shard 2 x 0.015 = 0.03; units 5.4 x 0.014 = 0.0756; WCU 60 x 0.00065 = 0.039; RCU 60 x 0.00013 = 0.0078
    messages 5.4 x 1.00 = 5.4; connections 1,000 x 90 min = 0.09 M x 0.08 = 0.0072; rule and action 5.4 x 0.15 = 0.81
    """
    deployment = load_deployment(TEMPLATE, "as-published")
    usage = Usage(5400, 5_400_000, 180, mqtt_messages=5_400_000, mqtt_message_bytes=170, connections=1000)
    assert lines_of(deployment, usage) == pytest.approx(
        {
            ("kinesis.shard_hour", "alleycat"): 0.03,
            ("kinesis.put_payload_unit", "alleycat"): 0.0756,
            ("dynamodb.wcu_hour", "alleycat-races"): 0.039,
            ("dynamodb.rcu_hour", "alleycat-races"): 0.0078,
            ("iot.message", "IoT Core"): 5.4,
            ("iot.connection_minute", "IoT Core"): 0.0072,
            ("iot.rule", "alleycatIngest"): 0.81,
            ("iot.rule_action", "alleycatIngest"): 0.81,
        }
    )


def test_on_demand_with_a_registered_consumer_for_a_day() -> None:
    """On-demand stream and table: 86.4 M records of 2 KB metered (1,500 bytes), two pollers, one fan-out consumer.

    stream 24 x 0.04 = 0.96; in 86.4 M x 2,048 B = 176.9472 GB x 0.08 = 14.155776
    out 2 x 176.9472 x 0.04 = 14.155776; fan-out 176.9472 x 0.05 = 8.84736
    writes 10 M x 0.625 = 6.25; reads 4 M x 0.125 = 0.5
    """
    plain = load_deployment(TEMPLATE)
    stream = replace(plain.streams[0], mode="ON_DEMAND")
    table = replace(plain.tables[0], billing_mode="PAY_PER_REQUEST", wcu=0, rcu=0)
    consumer = ConsumerSpec("Screen", "screen", f"{stream.arn}/consumer/screen:1", stream.arn)
    deployment = replace(plain, streams=(stream,), tables=(table,), consumers=(consumer,))
    usage = Usage(86_400, 86_400_000, 1500, write_units={table.name: 10e6}, read_units={table.name: 4e6})
    assert lines_of(deployment, usage) == pytest.approx(
        {
            ("kinesis.on_demand.stream_hour", "alleycat"): 0.96,
            ("kinesis.on_demand.gb_in", "alleycat"): 14.155776,
            ("kinesis.on_demand.gb_out", "alleycat"): 14.155776,
            ("kinesis.on_demand.fan_out_gb", "alleycat"): 8.84736,
            ("dynamodb.on_demand.write_unit", "alleycat-races"): 6.25,
            ("dynamodb.on_demand.read_unit", "alleycat-races"): 0.5,
        }
    )


def test_a_delivery_stream_charges_small_records_as_five_kilobytes() -> None:
    """300,000 records of 180 bytes are 300,000 x 5,120 B = 1.536 GB; x 0.029 = 0.044544. 10 objects x 0.005/1,000.

    On demand it is a reader like the two functions: 3 x 300,000 x 1 KB = 0.9216 GB x 0.04 = 0.036864.
    """
    plain = load_deployment(TEMPLATE)
    arn = plain.streams[0].arn
    deployment = replace(plain, delivery_streams=(DeliveryStreamSpec("D", "raw", "arn:d", arn, "arn:aws:s3:::raw"),))
    usage = Usage(300, 300_000, 180, delivered={"raw": 300_000}, objects={"raw": 10})
    found = lines_of(deployment, usage)
    assert found["firehose.gb", "raw"] == pytest.approx(0.044544)
    assert found["s3.put", "raw"] == pytest.approx(0.00005)
    on_demand = replace(deployment, streams=(replace(plain.streams[0], mode="ON_DEMAND"),))
    assert lines_of(on_demand, usage)["kinesis.on_demand.gb_out", "alleycat"] == pytest.approx(0.036864)
    estimated = {line.what: line.usd for line in estimate(deployment, 300_000, 300)}
    assert estimated["300,000 messages delivered by raw"] == pytest.approx(0.044544)
    longer = lines_of(deployment, replace(usage, record_bytes=5121))
    assert longer["firehose.gb", "raw"] == pytest.approx(2 * 0.044544)


def test_large_records_and_long_retention() -> None:
    """60 KB are three payload units of 25 KB; retention beyond a day is charged by the shard-hour."""
    plain = load_deployment(TEMPLATE)
    deployment = replace(plain, streams=(replace(plain.streams[0], retention_hours=48),))
    found = lines_of(deployment, Usage(3600, 1_000_000, 60 * 1024))
    assert found["kinesis.put_payload_unit", "alleycat"] == pytest.approx(3 * 0.014)
    assert found["kinesis.extended_retention_shard_hour", "alleycat"] == pytest.approx(2 * 0.020)


def test_the_estimate_before_a_run_charges_the_same_prices() -> None:
    deployment = load_deployment(TEMPLATE)
    usd = {line.what: line.usd for line in estimate(deployment, 300_000, 300)}
    assert usd["2 shards for 1 h"] == pytest.approx(0.030)
    assert usd["300,000 PUT payload units"] == pytest.approx(0.0042)
    assert usd["150 WCU and 30 RCU for 1 h"] == pytest.approx(0.1014)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("prices.toml", '"kinesis.shard_hour" = 0.018\nlambda.request = 0\n'),
        ("prices.json", '{"kinesis.shard_hour": 0.018, "lambda": {"request": 0}}'),
    ],
)
def test_a_file_replaces_prices(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    prices = load_prices(path)
    assert prices["kinesis.shard_hour"].usd == 0.018
    assert prices["lambda.request"].usd == 0
    assert name in prices["lambda.request"].source
    assert prices["dynamodb.wcu_hour"] == PRICES["dynamodb.wcu_hour"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("shard_hour = 1", "there is no price 'shard_hour'"),
        ('"kinesis.shard_hour" = -1', "0 or more, not -1"),
        ('"kinesis.shard_hour" = "1"', "must be a number of USD"),
        ('"kinesis.shard_hour" = true', "must be a number of USD"),
        ('"kinesis.shard_hour" = nan', "must be a number of USD"),
        ("kinesis", "neither TOML nor JSON"),
    ],
)
def test_a_wrong_file_is_told_in_one_line(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(text)
    with pytest.raises(PricesError, match="prices.toml") as caught:
        load_prices(path)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(PricesError, match="cannot be read"):
        load_prices(tmp_path / "none.toml")


def test_every_price_names_its_date_and_source() -> None:
    for name, price in PRICES.items():
        assert price.name == name
        assert price.date >= "2024"
        assert price.source
