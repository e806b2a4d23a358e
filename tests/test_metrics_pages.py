"""What scrapers read and what comes in from outside: Prometheus's text, and POST of points."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import subprocess
import sys
import time
import uuid
from typing import Any

import boto3
import pytest
from botocore.exceptions import BotoCoreError, ClientError
from conftest import client_of
from prometheus_client.parser import text_string_to_metric_families

from consumers.runtime import FunctionStatistics, RuntimeStatistics
from simulator.cloud import metrics_intake, prometheus
from simulator.cloud.metrics import CLIENT_SERIES_MAX, Metrics
from simulator.cloud.metrics_intake import IntakeError
from simulator.cloud.server import CloudProcess
from simulator.progress import MetricsFeed
from simulator.runtime_metrics import RuntimeMetrics


def http_call(cloud: CloudProcess, method: str, path: str, body: bytes | None = None) -> tuple[int, str, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", cloud.port)
    connection.request(method, path, body)
    answer = connection.getresponse()
    told = answer.status, answer.getheader("content-type", ""), answer.read()
    connection.close()
    return told


def samples(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    found: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for family in text_string_to_metric_families(text.decode()):
        assert family.documentation
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found
            found[key] = sample.value
    return found


# -- Prometheus ----------------------------------------------------------------------------------------


def test_prometheus_reads_what_was_put_as_totals_that_only_grow(cloud: CloudProcess, kinesis: Any, stream: str) -> None:
    kinesis.create_stream(StreamName=stream, ShardCount=1)
    totals = []
    for _ in range(2):
        kinesis.put_records(StreamName=stream, Records=[{"Data": b"x", "PartitionKey": "k"}] * 5)
        status, content_type, text = http_call(cloud, "GET", "/_alleycat/prometheus")
        assert status == 200
        assert content_type.startswith("text/plain; version=0.0.4")
        totals.append(samples(text)["aws_kinesis_incoming_records_sum", (("stream_name", stream),)])
    assert totals == [5, 10]
    shard = (("shard_id", "shardId-000000000000"), ("stream_name", stream))
    assert samples(text)["aws_kinesis_incoming_records_sum", shard] == 10
    assert samples(text)["aws_kinesis_put_records_success_count", (("stream_name", stream),)] == 2


def test_totals_do_not_fall_when_old_minutes_leave_and_values_are_escaped() -> None:
    metrics = Metrics(keep_seconds=2, keep_minutes=2)
    odd = 'a "quoted" \\ back\nslash'
    for second in range(0, 1200, 30):
        metrics.record("Mine/Ünits 2", "HTTPErrors", (("Path", odd),), 2, second)
    found = samples(prometheus.render(metrics, 1200))
    name = "mine_nits_2_http_errors"
    assert found == {
        (f"{name}_sum", (("path", odd),)): 80,
        (f"{name}_count", (("path", odd),)): 40,
        (f"{name}_minimum", (("path", odd),)): 2,
        (f"{name}_maximum", (("path", odd),)): 2,
    }
    assert f"# TYPE {name} summary" in prometheus.render(metrics, 1200).decode()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("PutRecords.SuccessfulRecords", "put_records_successful_records"),
        ("GetRecords.IteratorAgeMilliseconds", "get_records_iterator_age_milliseconds"),
        ("HTTPCode_5XX", "http_code_5_xx"),
        ("AWS/DynamoDB", "aws_dynamo_db"),
    ],
)
def test_names_are_those_of_the_exporters(name: str, expected: str) -> None:
    assert prometheus.snake(name) == expected


# -- metrics from outside ------------------------------------------------------------------------------


def test_points_posted_are_seen_through_cloudwatch_and_a_second_sent_again_replaces_itself(
    cloud: CloudProcess,
) -> None:
    function = f"f-{uuid.uuid4().hex[:8]}"
    second = int(time.time()) - 5
    for total in (1.0, 3.0):
        points = [[second, total, total, 1.0, 1.0], [second + 1, 1, 1, 1, 1]]
        series = {"Namespace": "AWS/Lambda", "MetricName": "Invocations", "Dimensions": {"FunctionName": function}}
        status, _, told = http_call(
            cloud, "POST", "/_alleycat/metrics", json.dumps({"metrics": [{**series, "Points": points}]}).encode()
        )
        assert (status, json.loads(told)) == (200, {"stored": 2})
    client = client_of(cloud, "cloudwatch")
    told = client.get_metric_statistics(
        Namespace="AWS/Lambda",
        MetricName="Invocations",
        Dimensions=[{"Name": "FunctionName", "Value": function}],
        StartTime=second - 60,
        EndTime=second + 60,
        Period=60,
        Statistics=["Sum"],
    )
    client.close()
    assert sum(point["Sum"] for point in told["Datapoints"]) == 4
    _, _, page = http_call(cloud, "GET", f"/_alleycat/metrics?since={second}")
    (mine,) = [one for one in json.loads(page)["metrics"] if one["Dimensions"] == {"FunctionName": function}]
    assert mine["Points"] == [[second, 3.0, 3.0, 1.0, 1.0], [second + 1, 1.0, 1.0, 1.0, 1.0]]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not as GET answers it"),
        (b'{"metrics": [{"Namespace": "N", "MetricName": "M", "Points": [[1, 2]]}]}', "not as GET answers it"),
        (b'{"metrics": [{"Namespace": "N", "MetricName": "M", "Points": [[1, 0, 2, 1, 1]]}]}', "SampleCount > 0"),
        (b'{"metrics": [{"Namespace": "AWS/Kinesis", "MetricName": "M", "Points": []}]}', "by the cloud itself"),
    ],
)
def test_what_cannot_be_taken_is_refused_as_a_whole(body: bytes, words: str) -> None:
    metrics = Metrics()
    with pytest.raises(IntakeError, match=words):
        metrics_intake.take(metrics, body)
    assert metrics.keys() == []


def test_series_from_outside_are_limited() -> None:
    metrics = Metrics()
    series = [
        {"Namespace": "N", "MetricName": f"M{number}", "Points": [[1, 1, 1, 1, 1]]}
        for number in range(CLIENT_SERIES_MAX)
    ]
    metrics_intake.take(metrics, json.dumps({"metrics": series}).encode())
    one_more = {"Namespace": "N", "MetricName": "other", "Points": [[1, 1, 1, 1, 1]]}
    with pytest.raises(IntakeError, match="over 10,000 series"):
        metrics_intake.take(metrics, json.dumps({"metrics": [one_more]}).encode())


def test_metrics_of_the_future_do_not_stop_a_race_from_reading_those_of_now() -> None:
    feed = MetricsFeed()
    now = int(time.time())
    points = [[now - 1, 1, 1, 1, 1], [now + 7000, 1, 1, 1, 1]]
    feed.merge({"metrics": [{"Namespace": "N", "MetricName": "M", "Dimensions": {}, "Points": points}]})
    assert now - 1 <= feed.newest() < now + 7000


def test_a_post_elsewhere_or_of_nonsense_is_told_so(cloud: CloudProcess) -> None:
    assert http_call(cloud, "POST", "/_alleycat/metrics", b"{")[0] == 400
    assert http_call(cloud, "POST", "/_alleycat/health", b"{}")[0] == 405
    status, _, told = http_call(cloud, "GET", "/_alleycat/nothing")
    assert status == 404
    assert b"/_alleycat/prometheus" in told


# -- the runtime's -------------------------------------------------------------------------------------


def statistics(*series: tuple[int, str, str, float]) -> RuntimeStatistics:
    return RuntimeStatistics(functions={"f": FunctionStatistics(concurrency=2)}, mappings={}, series=series)


def test_the_runtimes_seconds_arrive_once_under_lambdas_names() -> None:
    metrics, feeder = Metrics(), RuntimeMetrics()

    def send(now: float, *series: tuple[int, str, str, float]) -> None:
        metrics_intake.take(metrics, json.dumps(feeder.body(statistics(*series), now)).encode())

    first = [(100, "f", "Invocations", 4.0), (100, "f", "Duration", 30.0), (100, "f", "IteratorAge", 900.0)]
    send(100.5, *first)
    grown = [(100, "f", "Invocations", 5.0), (100, "f", "Errors", 1.0), (100, "f", "Duration", 40.0)]
    later = [(101, "f", "Invocations", 2.0), (101, "f", "Throttles", 3.0)]
    send(101.5, *grown, *later)
    send(102.5, *grown, *later)
    dimensions = (("FunctionName", "f"),)

    def minute(name: str) -> tuple[float, float, float, float]:
        one = metrics.periods(("AWS/Lambda", name, dimensions), 60, 120, 60)[60]
        return one.sample_count, one.sum, one.minimum, one.maximum

    assert minute("Invocations") == (7, 7, 1, 1)
    assert minute("Errors") == (7, 1, 0, 1)
    assert minute("Throttles") == (3, 3, 1, 1)
    assert minute("Duration") == (1, 40, 40, 40)
    assert minute("IteratorAge") == (1, 900, 900, 900)
    assert minute("ConcurrentExecutions") == (3, 6, 2, 2)


def test_only_what_is_new_is_sent() -> None:
    feeder = RuntimeMetrics()
    old = [(second, "f", "Invocations", 1.0) for second in range(100, 200)]
    assert sum(len(one["Points"]) for one in feeder.body(statistics(*old), 200)["metrics"]) > 200
    told = feeder.body(statistics(*old, (200, "f", "Invocations", 1.0)), 201)
    (invocations,) = [one for one in told["metrics"] if one["MetricName"] == "Invocations"]
    assert [point[0] for point in invocations["Points"]] == [196, 197, 198, 199, 200]


def test_cloudwatch_knows_a_races_functions_while_it_is_ridden() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    race = subprocess.Popen(
        [
            *(sys.executable, "-c", "from simulator.cli import main; main()"),
            *("race", "-u", "20", "-t", "4s", "--port", str(port), "--json"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    session = boto3.session.Session(aws_access_key_id="t", aws_secret_access_key="t", region_name="us-east-1")
    client = session.client("cloudwatch", endpoint_url=f"http://127.0.0.1:{port}")
    seen: set[str] = set()
    while race.poll() is None:
        with contextlib.suppress(BotoCoreError, ClientError):
            seen |= {one["MetricName"] for one in client.list_metrics(Namespace="AWS/Lambda")["Metrics"]}
        time.sleep(0.1)
    client.close()
    _, errors = race.communicate()
    assert race.returncode == 0, errors
    assert seen == {"Invocations", "Errors", "Duration", "IteratorAge", "ConcurrentExecutions"}
