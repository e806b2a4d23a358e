"""CloudWatch's API as boto3 and older clients ask it, over a real socket; alarms with a clock of their own."""

from __future__ import annotations

import gzip
import http.client
import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import botocore.parsers
import botocore.serialize
import botocore.session
import cbor2
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from conftest import client_of
from hypothesis import given
from hypothesis import strategies as st

from simulator.cloud import aws_protocols
from simulator.cloud.cloudwatch import CloudWatch
from simulator.cloud.errors import AwsError
from simulator.cloud.kinesis_api import KinesisApi
from simulator.cloud.limits import LimitSettings
from simulator.cloud.metrics import Metrics
from simulator.cloud.server import CloudProcess

MODEL = botocore.session.get_session().get_service_model("cloudwatch")
START = 1_800_000_000 // 3600 * 3600


@pytest.fixture
def cloudwatch(cloud: CloudProcess) -> Iterator[Any]:
    client = client_of(cloud, "cloudwatch")
    yield client
    client.close()


@pytest.fixture
def namespace() -> str:
    return f"Mine/{uuid.uuid4().hex[:8]}"


def ask(cloud: CloudProcess, protocol: str, operation: str, **parameters: Any) -> dict[str, Any]:
    """One call in ``protocol``, written and read by botocore as an older client would; errors have ``Error``."""
    model = MODEL.operation_model(operation)
    written = botocore.serialize.create_serializer(protocol).serialize_to_request(parameters, model)
    request = AWSRequest("POST", f"{cloud.endpoint_url}/", written["headers"], written["body"])
    SigV4Auth(Credentials("test", "test"), "monitoring", "us-east-1").add_auth(request)
    prepared = request.prepare()
    connection = http.client.HTTPConnection("127.0.0.1", cloud.port)
    connection.request("POST", written["url_path"], prepared.body, dict(prepared.headers))
    answer = connection.getresponse()
    told = {"status_code": answer.status, "headers": dict(answer.getheaders()), "body": answer.read()}
    connection.close()
    found = botocore.parsers.create_parser(protocol).parse(told, model.output_shape)
    return dict(found)


# -- what the cloud recorded ---------------------------------------------------------------------------


def test_what_was_put_into_a_stream_is_what_its_metrics_add_up_to(
    cloud: CloudProcess, cloudwatch: Any, kinesis: Any, stream: str
) -> None:
    kinesis.create_stream(StreamName=stream, ShardCount=1)
    began = time.time()
    for _ in range(3):
        told = kinesis.put_records(StreamName=stream, Records=[{"Data": b"x" * 10, "PartitionKey": "key"}] * 7)
        assert told["FailedRecordCount"] == 0
    dimensions = [{"Name": "StreamName", "Value": stream}]
    asked = {
        "Namespace": "AWS/Kinesis",
        "MetricName": "IncomingRecords",
        "Dimensions": dimensions,
        "StartTime": began - 60,
        "EndTime": time.time() + 60,
        "Period": 60,
        "Statistics": ["Sum"],
    }
    told = cloudwatch.get_metric_statistics(**asked)
    assert sum(point["Sum"] for point in told["Datapoints"]) == 21
    for point in told["Datapoints"]:
        assert set(point) == {"Timestamp", "Sum", "Unit"}
        assert point["Unit"] == "Count"
        assert point["Timestamp"].timestamp() % 60 == 0
    for protocol in ("json", "query"):
        older = ask(cloud, protocol, "GetMetricStatistics", **asked)
        assert older["Datapoints"] == told["Datapoints"]
    listed = cloudwatch.list_metrics(Namespace="AWS/Kinesis", Dimensions=dimensions)["Metrics"]
    assert {"Namespace": "AWS/Kinesis", "MetricName": "IncomingRecords", "Dimensions": dimensions} in listed
    assert all({"Name": "StreamName", "Value": stream} in one["Dimensions"] for one in listed)


@pytest.mark.parametrize("protocol", ["smithy-rpc-v2-cbor", "json", "query"])
def test_each_protocol_writes_and_reads_the_same(cloud: CloudProcess, namespace: str, protocol: str) -> None:
    minute = int(time.time()) // 60 * 60 - 120
    datum = {"MetricName": "Ünits <&>", "Dimensions": [{"Name": "A", "Value": "b"}], "Timestamp": minute}
    values = {"Values": [1.5, 4.0], "Counts": [2.0, 1.0], "Unit": "Seconds"}
    ask(cloud, protocol, "PutMetricData", Namespace=namespace, MetricData=[{**datum, **values}])
    metric = {"Namespace": namespace, "MetricName": "Ünits <&>", "Dimensions": datum["Dimensions"]}
    queries = [
        {"Id": "m1", "MetricStat": {"Metric": metric, "Period": 60, "Stat": "Sum"}, "ReturnData": False},
        {"Id": "m2", "MetricStat": {"Metric": metric, "Period": 60, "Stat": "SampleCount"}, "Label": "count"},
        {"Id": "mean", "Expression": "m1 / m2"},
    ]
    told = ask(cloud, protocol, "GetMetricData", MetricDataQueries=queries, StartTime=minute, EndTime=minute + 60)
    found = {one["Id"]: one for one in told["MetricDataResults"]}
    assert set(found) == {"m2", "mean"}
    assert found["m2"]["Label"] == "count"
    assert found["m2"]["StatusCode"] == "Complete"
    assert [at.timestamp() for at in found["mean"]["Timestamps"]] == [minute]
    assert found["mean"]["Values"] == [pytest.approx(7 / 3)]
    refused = ask(cloud, protocol, "PutMetricData", Namespace="AWS/Lambda", MetricData=[{**datum, "Value": 1.0}])
    assert refused["Error"]["Code"] == "InvalidParameterValue"
    assert refused["ResponseMetadata"]["HTTPStatusCode"] == 400
    unknown = ask(cloud, protocol, "ListDashboards")
    assert unknown["Error"]["Code"] == "InvalidAction"
    assert "not implemented" in unknown["Error"]["Message"]
    token = ask(cloud, protocol, "ListMetrics", NextToken="nonsense")
    assert token["Error"]["Code"].startswith("InvalidNextToken")


def test_a_large_put_arrives_compressed(cloudwatch: Any, namespace: str) -> None:
    encodings: list[str | None] = []
    cloudwatch.meta.events.register(
        "before-send.cloudwatch.PutMetricData",
        lambda request, **_: encodings.append(request.headers.get("Content-Encoding")),
    )
    datums = [{"MetricName": f"M{number:03}", "Value": number, "Unit": "Count"} for number in range(400)]
    cloudwatch.put_metric_data(Namespace=namespace, MetricData=datums)
    assert encodings in (["gzip"], [b"gzip"])
    assert len(cloudwatch.list_metrics(Namespace=namespace)["Metrics"]) == 400


@pytest.mark.parametrize("body", [b"", b"no gzip", gzip.compress(b"{}")[:-4], gzip.compress(bytes(17 * 1024 * 1024))])
def test_a_body_that_cannot_be_read_is_told_so(body: bytes) -> None:
    with pytest.raises(AwsError, match="SerializationException"):
        headers = {"content-encoding": "gzip", "x-amz-target": "GraniteServiceVersion20100801.ListMetrics"}
        aws_protocols.read("json", "/", "", headers, body)


def test_answers_have_no_member_that_the_model_does_not_know(cloudwatch: Any, namespace: str) -> None:
    cloudwatch.put_metric_alarm(
        AlarmName=namespace,
        Namespace=namespace,
        MetricName="M",
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanThreshold",
        Tags=[{"Key": "k", "Value": "v"}],
    )
    (alarm,) = cloudwatch.describe_alarms(AlarmNames=[namespace])["MetricAlarms"]
    known = set(MODEL.shape_for("MetricAlarm").members)
    assert set(alarm) <= known
    assert alarm["StateValue"] == "INSUFFICIENT_DATA"
    assert alarm["AlarmArn"] == f"arn:aws:cloudwatch:us-east-1:123456789012:alarm:{namespace}"
    (item,) = cloudwatch.describe_alarm_history(AlarmName=namespace)["AlarmHistoryItems"]
    assert set(item) <= set(MODEL.shape_for("AlarmHistoryItem").members)
    assert item["HistoryItemType"] == "ConfigurationUpdate"
    cloudwatch.delete_alarms(AlarmNames=[namespace])
    assert cloudwatch.describe_alarms(AlarmNames=[namespace])["MetricAlarms"] == []


def test_boto3_sees_errors_by_the_models_names(cloudwatch: Any) -> None:
    with pytest.raises(cloudwatch.exceptions.ResourceNotFound):
        cloudwatch.set_alarm_state(AlarmName="none", StateValue="OK", StateReason="r")
    with pytest.raises(ClientError) as error:
        cloudwatch.get_metric_statistics(
            Namespace="N", MetricName="M", StartTime=0, EndTime=86_400 * 30, Period=60, Statistics=["Sum"]
        )
    assert "exceeds the limit of 1,440" in error.value.response["Error"]["Message"]


def test_an_alarm_tells_an_sns_topic_which_tells_a_queue(cloud: CloudProcess, cloudwatch: Any, namespace: str) -> None:
    sns, sqs = client_of(cloud, "sns"), client_of(cloud, "sqs")
    name = namespace.replace("/", "-")
    topic = sns.create_topic(Name=name)["TopicArn"]
    queue = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    cloudwatch.put_metric_alarm(
        AlarmName=name,
        Namespace=namespace,
        MetricName="M",
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanThreshold",
        AlarmActions=[topic],
    )
    cloudwatch.set_alarm_state(AlarmName=name, StateValue="ALARM", StateReason="a drill")
    (message,) = sqs.receive_message(QueueUrl=queue)["Messages"]
    told = json.loads(json.loads(message["Body"])["Message"])
    assert told["AlarmName"] == name
    assert (told["OldStateValue"], told["NewStateValue"]) == ("INSUFFICIENT_DATA", "ALARM")
    assert told["NewStateReason"] == "a drill"
    cloudwatch.delete_alarms(AlarmNames=[name])


# -- queries, with a clock of their own ----------------------------------------------------------------


class Account:
    """CloudWatch without a socket, at a time that tests move."""

    def __init__(self) -> None:
        self.now = float(START)
        self.metrics = Metrics()
        self.notified: list[tuple[str, str, str]] = []
        self.cloudwatch = CloudWatch(
            self.metrics, "123456789012", lambda region, arn, subject, text: self.notified.append((region, arn, text)),
            clock=lambda: self.now,
        )  # fmt: skip

    def __call__(self, operation: str, **told: Any) -> dict[str, Any]:
        headers = {"x-amz-target": f"GraniteServiceVersion20100801.{operation}"}
        status, answer_headers, body = self.cloudwatch.handle("/", "", headers, json.dumps(told).encode(), "us-east-1")
        answer: dict[str, Any] = json.loads(body)
        assert (status == 200) == ("__type" not in answer)
        assert answer_headers["x-amzn-requestid"]
        return answer

    def query(self, expression: str, **stats: str) -> Any:
        """Values by minute since START of ``expression`` over M with the given statistics by id, or the error."""
        metric = {"Namespace": "N", "MetricName": "M"}
        queries: list[dict[str, Any]] = [
            {"Id": name, "MetricStat": {"Metric": metric, "Period": 60, "Stat": stat}, "ReturnData": False}
            for name, stat in stats.items()
        ]
        queries.append({"Id": "e", "Expression": expression})
        told = self(
            "GetMetricData",
            MetricDataQueries=queries,
            StartTime=START,
            EndTime=START + 240,
            ScanBy="TimestampAscending",
        )
        if "__type" in told:
            return told["message"]
        (one,) = told["MetricDataResults"]
        return dict(zip(((at - START) // 60 for at in one["Timestamps"]), one["Values"], strict=True))


@pytest.fixture
def account() -> Account:
    return Account()


def test_expressions(account: Account) -> None:
    for minute, value in ((0, 10.0), (1, 20.0), (3, -5.0)):
        account.metrics.record("N", "M", (), value, START + 60 * minute)
        account.metrics.record("N", "M", (), value, START + 60 * minute + 59)
    account.metrics.record("N", "M", (), 1e9, START + 240)
    assert account.query("s / 2 - 1", s="Sum") == {0: 9, 1: 19, 3: -6}
    assert account.query("-(s + n) * 2", s="Sum", n="SampleCount") == {0: -44, 1: -84, 3: 16}
    assert account.query("s / (n - 2)", s="Sum", n="SampleCount") == {}
    assert account.query("FILL(s, 0)", s="Sum") == {0: 20, 1: 40, 2: 0, 3: -10}
    assert account.query("FILL(s, REPEAT)", s="Sum") == {0: 20, 1: 40, 2: 40, 3: -10}
    assert account.query("s / PERIOD(s)", s="Sum") == {0: 20 / 60, 1: 40 / 60, 3: -10 / 60}
    assert account.query("SUM(s)", s="Sum") == {0: 50, 1: 50, 2: 50, 3: 50}
    assert account.query("SUM(METRICS())", s="Sum", n="SampleCount") == {0: 22, 1: 42, 3: -8}
    assert account.query("MAX([s, n])", s="Sum", n="SampleCount") == {0: 20, 1: 40, 3: 2}
    assert account.query("RATE(s)", s="Sum") == {1: 20 / 60, 3: -50 / 120}
    assert account.query("ABS(DIFF(s))", s="Sum") == {1: 20, 3: 50}
    assert account.query("s * 1", s="p50") == {0: 10, 1: 20, 3: -5}


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("SEARCH('{N} M', 'Sum', 60)", "SEARCH is not supported here"),
        ("s +", "cannot be read"),
        ("t + 1", "no query with the id t"),
        ("s ** 2", "of the operators + - * /"),
        ("__import__('os')", "not supported here"),
        ("s.values", "only numbers, ids"),
        ("1 / 0", "division by zero"),
        ("SUM(s, s)", "takes one argument"),
        ("FILL(s)", "takes two arguments"),
        ("e + 1", "need each other"),
        ("-" * 1500 + "s", "nested too deeply"),
        ("1" + "0" * 400, "too large"),
        ("1e308 * 10", "too large"),
    ],
)
def test_what_expressions_cannot_do_is_said(account: Account, expression: str, words: str) -> None:
    assert words in account.query(expression, s="Sum")


def test_a_number_over_all_of_time_is_refused_and_not_written_out(account: Account) -> None:
    account.metrics.record("N", "M", (), 1, START)
    metric = {"Metric": {"Namespace": "N", "MetricName": "M"}, "Period": 60, "Stat": "Sum"}
    for expression in ("SUM(m)", "FILL(m, 0)"):
        told = account(
            "GetMetricData",
            MetricDataQueries=[{"Id": "m", "MetricStat": metric}, {"Id": "e", "Expression": expression}],
            StartTime=0,
            EndTime=START + 60,
        )
        assert "100,800 are the most" in told["message"]


@given(
    protocol=st.sampled_from(["cbor", "json", "query"]),
    operation=st.sampled_from(sorted(MODEL.operation_names)),
    body=st.binary(max_size=60)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
        lambda below: (
            st.lists(below, max_size=3)
            | st.dictionaries(
                st.sampled_from(["Namespace", "MetricData", "MetricName", "Period", "StartTime", "Value", "Id"]), below
            )
        ),
    ).map(cbor2.dumps),
)
def test_any_body_is_read_or_refused_in_awss_words(protocol: str, operation: str, body: bytes) -> None:
    path = f"{aws_protocols.CBOR_PATH}{operation}" if protocol == "cbor" else "/"
    headers = {"x-amz-target": f"GraniteServiceVersion20100801.{operation}"} if protocol == "json" else {}
    account = Account()
    status, _, told = account.cloudwatch.handle(path, f"Action={operation}", headers, body, "us-east-1")
    assert status in (200, 400, 404)
    assert told


def test_a_percentile_of_what_was_added_up_is_refused_and_not_guessed(account: Account) -> None:
    asked = {"Namespace": "N", "MetricName": "M", "StartTime": START, "EndTime": START + 60, "Period": 60}
    for second in range(10):
        account.metrics.record("N", "M", (), second, START + second)
    told = account("GetMetricStatistics", **asked, ExtendedStatistics=["p90", "p50", "p0"])
    assert told["Datapoints"][0]["ExtendedStatistics"] == {"p90": 8, "p50": 4, "p0": 0}
    account.metrics.record("N", "M", (), 7, START)
    refused = account("GetMetricStatistics", **asked, ExtendedStatistics=["p90"])
    assert "needs single observations" in refused["message"]
    metric = {"Metric": {"Namespace": "N", "MetricName": "M"}, "Period": 60, "Stat": "p90"}
    (one,) = account(
        "GetMetricData", MetricDataQueries=[{"Id": "p", "MetricStat": metric}], StartTime=START, EndTime=START + 60
    )["MetricDataResults"]
    assert one["Values"] == []
    assert "needs single observations" in one["Messages"][0]["Value"]


@given(counts=st.lists(st.integers(0, 12), min_size=1, max_size=4), most=st.integers(1, 15), ascending=st.booleans())
def test_pages_of_data_points_are_the_whole(counts: list[int], most: int, ascending: bool) -> None:
    account = Account()
    for metric, count in enumerate(counts):
        for minute in range(count):
            account.metrics.record("N", f"M{metric}", (), minute, START + 60 * minute)
    queries = [
        {
            "Id": f"m{n}",
            "MetricStat": {"Metric": {"Namespace": "N", "MetricName": f"M{n}"}, "Period": 60, "Stat": "Sum"},
        }
        for n in range(len(counts))
    ]
    asked = {"MetricDataQueries": queries, "StartTime": START, "EndTime": START + 3600, "MaxDatapoints": most,
             "ScanBy": "TimestampAscending" if ascending else "TimestampDescending"}  # fmt: skip
    found: dict[str, list[float]] = {query["Id"]: [] for query in queries}
    token: dict[str, str] = {}
    for _ in range(sum(counts) + 1):
        told = account("GetMetricData", **asked, **token)
        assert sum(len(one["Values"]) for one in told["MetricDataResults"]) <= most
        for one in told["MetricDataResults"]:
            found[one["Id"]] += one["Values"]
        if "NextToken" not in told:
            break
        token = {"NextToken": told["NextToken"]}
    for metric, count in enumerate(counts):
        values = list(range(count))
        assert found[f"m{metric}"] == (values if ascending else values[::-1])


def test_the_running_minute_is_told_and_short_periods_are_had_for_every_metric(account: Account) -> None:
    account.metrics.record("AWS/Kinesis", "M", (), 1, START + 61)
    account.metrics.record("AWS/Kinesis", "M", (), 2, START + 63)
    asked = {"Namespace": "AWS/Kinesis", "MetricName": "M", "StartTime": START + 5, "EndTime": START + 62}
    told = account("GetMetricStatistics", **asked, Period=60, Statistics=["Sum", "Maximum"])
    assert told["Datapoints"] == [{"Timestamp": START + 60, "Unit": "Count", "Sum": 3, "Maximum": 2}]
    fine = account("GetMetricStatistics", **asked, Period=1, Statistics=["Sum"])
    assert [point["Timestamp"] for point in fine["Datapoints"]] == [START + 61]
    assert "Period must be" in account("GetMetricStatistics", **asked, Period=45, Statistics=["Sum"])["message"]


def test_list_metrics_pages(account: Account) -> None:
    for number in range(1100):
        account.metrics.record("N", f"M{number:04}", (("D", str(number % 2)),), 1, START)
    names: list[str] = []
    token: dict[str, str] = {}
    sizes = []
    while True:
        told = account("ListMetrics", Namespace="N", **token)
        sizes.append(len(told["Metrics"]))
        names += [one["MetricName"] for one in told["Metrics"]]
        if "NextToken" not in told:
            break
        token = {"NextToken": told["NextToken"]}
    assert sizes == [500, 500, 100]
    assert names == [f"M{number:04}" for number in range(1100)]
    assert account("ListMetrics", Dimensions=[{"Name": "Other"}])["Metrics"] == []


# -- alarms --------------------------------------------------------------------------------------------


def put_alarm(account: Account, **settings: Any) -> None:
    told = account(
        "PutMetricAlarm",
        **{
            "AlarmName": "a",
            "Namespace": "N",
            "MetricName": "M",
            "Statistic": "Sum",
            "Period": 60,
            "EvaluationPeriods": 3,
            "DatapointsToAlarm": 2,
            "Threshold": 10,
            "ComparisonOperator": "GreaterThanOrEqualToThreshold",
            **settings,
        },
    )
    assert told == {}


def state(account: Account) -> str:
    (alarm,) = account("DescribeAlarms", AlarmNames=["a"])["MetricAlarms"]
    return str(alarm["StateValue"])


def test_two_of_three_periods_raise_an_alarm_and_the_history_has_each_step(account: Account) -> None:
    put_alarm(account, AlarmActions=["arn:aws:sns:us-east-1:123456789012:t"])
    for minute, value in enumerate((1, 10, 1, 12, 1, 1, 1)):
        account.metrics.record("N", "M", (), value, START + 60 * minute)
    seen = []
    for minute in range(1, 8):
        account.now = START + 60.0 * minute
        seen.append(state(account))
    assert seen == ["OK", "OK", "OK", "ALARM", "OK", "OK", "OK"]
    ((region, arn, text),) = account.notified
    assert (region, arn) == ("us-east-1", "arn:aws:sns:us-east-1:123456789012:t")
    assert json.loads(text)["NewStateValue"] == "ALARM"
    account.now = START + 3000.0
    history = account("DescribeAlarmHistory", AlarmName="a", ScanBy="TimestampAscending")["AlarmHistoryItems"]
    steps = [(item["HistoryItemType"], item["Timestamp"] - START) for item in history]
    assert steps == [
        ("ConfigurationUpdate", 0),
        ("StateUpdate", 60),
        ("StateUpdate", 240),
        ("Action", 240),
        ("StateUpdate", 300),
        ("StateUpdate", 600),
    ]
    backwards = account("DescribeAlarmHistory", AlarmName="a")["AlarmHistoryItems"]
    assert backwards == history[::-1]


def test_asking_late_finds_what_a_timer_would_have_found(account: Account) -> None:
    put_alarm(account)
    for minute, value in enumerate((12, 12, 1, 1, 1)):
        account.metrics.record("N", "M", (), value, START + 60 * minute)
    account.now = START + 301.0
    assert state(account) == "OK"
    items = account("DescribeAlarmHistory", AlarmName="a", HistoryItemType="StateUpdate")["AlarmHistoryItems"]
    assert [(item["HistorySummary"], item["Timestamp"] - START) for item in items] == [
        ("Alarm updated from ALARM to OK", 240),
        ("Alarm updated from OK to ALARM", 120),
        ("Alarm updated from INSUFFICIENT_DATA to OK", 60),
    ]


@pytest.mark.parametrize(
    ("treatment", "with_data", "without"),
    [
        ("missing", "OK", "INSUFFICIENT_DATA"),
        ("notBreaching", "OK", "OK"),
        ("breaching", "ALARM", "ALARM"),
        ("ignore", "OK", "OK"),
    ],
)
def test_missing_data_is_taken_as_asked(account: Account, treatment: str, with_data: str, without: str) -> None:
    put_alarm(account, TreatMissingData=treatment)
    account.metrics.record("N", "M", (), 1, START)
    account.now = START + 60.0
    assert state(account) == with_data
    account.now = START + 600.0
    assert state(account) == without


@pytest.mark.parametrize(
    ("operator", "raised"),
    [
        ("GreaterThanOrEqualToThreshold", True),
        ("GreaterThanThreshold", False),
        ("LessThanThreshold", False),
        ("LessThanOrEqualToThreshold", True),
    ],
)
def test_each_comparison_at_the_threshold(account: Account, operator: str, raised: bool) -> None:
    put_alarm(account, ComparisonOperator=operator, EvaluationPeriods=1, DatapointsToAlarm=1)
    account.metrics.record("N", "M", (), 10, START)
    account.now = START + 60.0
    assert state(account) == ("ALARM" if raised else "OK")


def test_an_alarm_on_an_expression_and_actions_switched_off(account: Account) -> None:
    metric = {"Metric": {"Namespace": "N", "MetricName": "M"}, "Period": 60, "Stat": "Sum"}
    account(
        "PutMetricAlarm",
        AlarmName="a",
        EvaluationPeriods=1,
        Threshold=0.5,
        ComparisonOperator="GreaterThanThreshold",
        AlarmActions=["arn:aws:sns:us-east-1:123456789012:t"],
        Metrics=[
            {"Id": "m1", "MetricStat": metric, "ReturnData": False},
            {"Id": "rate", "Expression": "m1 / PERIOD(m1)"},
        ],
    )
    account("DisableAlarmActions", AlarmNames=["a"])
    account.metrics.record("N", "M", (), 31, START)
    account.now = START + 60.0
    assert state(account) == "ALARM"
    assert account.notified == []


def test_throttled_puts_raise_an_alarm() -> None:
    account = Account()
    kinesis = KinesisApi("123456789012", LimitSettings(reshard_seconds=0.0), account.metrics, lambda: account.now)

    def call(operation: str, **told: Any) -> dict[str, Any]:
        status, body = kinesis.handle(operation, json.dumps(told).encode(), "us-east-1")
        assert status == 200, body
        return json.loads(body) if body else {}

    call("CreateStream", StreamName="s", ShardCount=1)
    account.now += 1
    put_alarm(
        account,
        Namespace="AWS/Kinesis",
        MetricName="WriteProvisionedThroughputExceeded",
        Dimensions=[{"Name": "StreamName", "Value": "s"}],
        EvaluationPeriods=1,
        DatapointsToAlarm=1,
        Threshold=0,
        ComparisonOperator="GreaterThanThreshold",
        TreatMissingData="notBreaching",
    )
    refused = sum(
        call("PutRecords", StreamName="s", Records=[{"Data": "eA==", "PartitionKey": "k"}] * 500)["FailedRecordCount"]
        for _ in range(3)
    )
    assert refused == 500
    account.now = START + 59.0
    assert state(account) == "OK"
    account.now = START + 60.0
    assert state(account) == "ALARM"
    found = account("DescribeAlarmsForMetric", Namespace="AWS/Kinesis",
                    MetricName="WriteProvisionedThroughputExceeded",
                    Dimensions=[{"Name": "StreamName", "Value": "s"}])  # fmt: skip
    assert "[500" in found["MetricAlarms"][0]["StateReason"]
    account.now = START + 120.0
    assert state(account) == "OK"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"DatapointsToAlarm": 4}, "must not be greater"),
        ({"TreatMissingData": "never"}, "TreatMissingData must be one of"),
        ({"ExtendedStatistic": "p99"}, "Give one of"),
        ({"Period": 45}, "Period must be"),
        ({"ComparisonOperator": "GreaterThanUpperThreshold"}, "anomaly detection"),
        ({"EvaluationPeriods": 0}, "at least 1"),
    ],
)
def test_an_alarm_that_makes_no_sense_is_refused(account: Account, settings: dict[str, Any], words: str) -> None:
    told = {
        "AlarmName": "a",
        "Namespace": "N",
        "MetricName": "M",
        "Statistic": "Sum",
        "Period": 60,
        "EvaluationPeriods": 3,
        "Threshold": 10,
        "ComparisonOperator": "GreaterThanThreshold",
    }
    assert words in account("PutMetricAlarm", **{**told, **settings})["message"]
    assert account("DescribeAlarms")["MetricAlarms"] == []


def test_a_new_alarm_judges_what_has_already_happened(account: Account) -> None:
    account.metrics.record("N", "M", (), 50, START)
    account.now = START + 110.0
    put_alarm(account, EvaluationPeriods=1, DatapointsToAlarm=1)
    assert state(account) == "ALARM"
    items = account("DescribeAlarmHistory", AlarmName="a", ScanBy="TimestampAscending")["AlarmHistoryItems"]
    assert [item["HistoryItemType"] for item in items] == ["ConfigurationUpdate", "StateUpdate"]
    assert [item["Timestamp"] for item in items] == [account.now, account.now]


def test_no_client_gets_an_answer_without_credentials(cloud: CloudProcess) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", cloud.port)
    headers = {
        "x-amz-target": "GraniteServiceVersion20100801.ListMetrics",
        "content-type": "application/x-amz-json-1.0",
    }
    connection.request("POST", "/", b"{}", headers)
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["__type"]) == (400, "MissingAuthenticationTokenException")
    connection.close()
