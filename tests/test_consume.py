"""``alleycat consume`` as people run it: their template, their handlers, real processes, Ctrl-C, restarts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from conftest import client_of
from rich.console import Console

from consumers.runtime import (
    Failure,
    FunctionStatistics,
    MappingStatistics,
    RuntimeStatistics,
    ShardStatistics,
)
from simulator.cloud.server import CloudProcess
from simulator.consume import Snapshot, Summary
from simulator.consume_view import ConsumeView, functions_table, print_summary, shards_table
from simulator.deployment import load_deployment
from simulator.target import physical_names

ALLEYCAT = [sys.executable, "-c", "from simulator.cli import main; main()"]
TEMPLATE = """
Transform: AWS::Serverless-2016-10-31
Parameters:
  Name: {Type: String, Default: clicks}
  Out: {Type: String, Default: /dev/null}
Globals:
  Function: {Runtime: python3.12, CodeUri: src, Timeout: 20, Environment: {Variables: {OUT: !Ref Out}}}
Resources:
  Clicks: {Type: AWS::Kinesis::Stream, Properties: {Name: !Ref Name, ShardCount: 2}}
  Counts:
    Type: AWS::DynamoDB::Table
    Properties:
      TableName: !Ref Name
      BillingMode: PAY_PER_REQUEST
      KeySchema: [{AttributeName: id, KeyType: HASH}]
      AttributeDefinitions: [{AttributeName: id, AttributeType: S}]
      StreamSpecification: {StreamViewType: NEW_IMAGE}
  Count:
    Type: AWS::Serverless::Function
    Properties:
      Handler: app.count
      Events:
        Clicks:
          Type: Kinesis
          Properties: {Stream: !GetAtt Clicks.Arn, StartingPosition: TRIM_HORIZON, BatchSize: 10}
  Watch:
    Type: AWS::Serverless::Function
    Properties:
      Handler: app.watch
      Events:
        Counts: {Type: DynamoDB, Properties: {Stream: !GetAtt Counts.StreamArn, StartingPosition: TRIM_HORIZON}}
"""
APP = """
import base64, json, os, time
from pathlib import Path
import boto3

def _write(**document):
    with Path(os.environ["OUT"]).open("a") as out:
        out.write(json.dumps(document) + "\\n")

def count(event, context):
    data = [base64.b64decode(record["kinesis"]["data"]).decode() for record in event["Records"]]
    if "slow" in data:
        _write(began=data)
        time.sleep(3)
    if "endless" in data:
        _write(began=data)
        time.sleep(15)
    _write(data=data)
    print("counted", *data)
    if "store" in data:
        boto3.client("dynamodb").put_item(TableName=os.environ.get("TABLE", "clicks"), Item={"id": {"S": "stored"}})

def watch(event, context):
    _write(seen=[[record["eventName"], record["dynamodb"]["Keys"]] for record in event["Records"]])
"""


class Project:
    """Somebody's template, handlers and stream on the embedded cloud."""

    def __init__(self, folder: Path, cloud: CloudProcess, name: str) -> None:
        self.folder, self.cloud, self.name = folder, cloud, name
        self.out = folder / "out"
        self.kinesis = client_of(cloud, "kinesis")
        (folder / "src").mkdir()
        self.write(TEMPLATE, APP.replace('"clicks"', f'"{name}"'))

    def write(self, template: str, app: str) -> None:
        (self.folder / "template.yaml").write_text(template)
        (self.folder / "src" / "app.py").write_text(textwrap.dedent(app))

    def create(self) -> None:
        self.kinesis.create_stream(StreamName=self.name, ShardCount=2)
        dynamodb = client_of(self.cloud, "dynamodb")
        dynamodb.create_table(
            TableName=self.name,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
        )
        dynamodb.close()

    def put(self, *data: str) -> None:
        entries = [{"Data": one.encode(), "PartitionKey": one} for one in data]
        assert self.kinesis.put_records(StreamName=self.name, Records=entries)["FailedRecordCount"] == 0

    def command(self, *arguments: str) -> list[str]:
        out = ("--set", f"Out={self.out}", "--set", f"Name={self.name}")
        return [*ALLEYCAT, "consume", "--template", str(self.folder / "template.yaml"), *out, *arguments]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command("--endpoint-url", self.cloud.endpoint_url, *arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def written(self, kind: str = "data") -> list[Any]:
        lines = self.out.read_text().splitlines() if self.out.exists() else []
        return [one for line in lines for one in json.loads(line).get(kind, [])]


@pytest.fixture
def project(tmp_path: Path, cloud: CloudProcess, stream: str) -> Any:
    made = Project(tmp_path, cloud, stream)
    yield made
    made.kinesis.close()


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    # What functions print is theirs.
    assert not any("Traceback" in line for line in err.splitlines() if " | " not in line)
    return process.returncode, out, err


# -- running -------------------------------------------------------------------------------------------


def test_functions_run_from_streams_and_tables_and_find_aws_by_themselves(project: Project) -> None:
    project.create()
    project.put("one", "two", "store")
    process = project.start("--json")
    eventually(lambda: project.written("seen"))
    process.send_signal(signal.SIGINT)
    code, out, err = end(process)
    assert code == 130
    assert sorted(project.written()) == ["one", "store", "two"]
    assert project.written("seen") == [["INSERT", {"id": {"S": "stored"}}]]
    assert "alleycat-Count | counted " in err
    told = json.loads(out)
    assert told["interrupted"] is True
    functions = {one["name"]: one for one in told["functions"]}
    assert functions["alleycat-Count"]["records"] == 3
    assert functions["alleycat-Watch"]["invocations"] == 1
    assert functions["alleycat-Count"]["errors"] == 0
    assert {one["event_source"] for one in told["shards"]} == {"CountClicks", "WatchCounts"}


def test_it_ends_by_itself_after_the_run_time_and_runs_only_what_was_asked_for(project: Project) -> None:
    project.create()
    project.put("before")
    process = project.start("--run-time", "6s", "--functions", "Count")
    code, out, err = end(process)
    assert code == 0
    assert project.written() == ["before"]
    assert "1 records in 1 invocations" in out
    assert "alleycat-Count" in out
    assert "Watch" not in out + err


def test_latest_leaves_out_what_was_there(project: Project) -> None:
    project.create()
    project.put("before")
    process = project.start("--from", "LATEST", "--functions", "alleycat-Count")
    marker = 0

    def seen() -> object:
        nonlocal marker
        marker += 1
        project.put(f"after {marker}")
        return project.written()

    eventually(seen)
    process.send_signal(signal.SIGINT)
    assert end(process)[0] == 130
    assert "before" not in project.written()


def test_the_first_interrupt_lets_the_invocation_finish(project: Project) -> None:
    project.create()
    project.put("slow")
    process = project.start("--functions", "Count", "--state", str(project.folder / "state"))
    eventually(lambda: project.written("began"))
    process.send_signal(signal.SIGINT)
    code, out, err = end(process)
    assert code == 130
    assert project.written() == ["slow"]
    assert "1 records in 1 invocations" in out
    assert "finishing running invocations; Ctrl-C again quits" in err
    project.put("next")
    process = project.start("--functions", "Count", "--state", str(project.folder / "state"))
    eventually(lambda: len(project.written()) > 1)
    process.send_signal(signal.SIGINT)
    assert end(process)[0] == 130
    assert project.written() == ["slow", "next"]


def test_the_second_interrupt_quits(project: Project) -> None:
    project.create()
    project.put("endless")
    process = project.start("--functions", "Count")
    eventually(lambda: project.written("began"))
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    while "finishing running" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    code, out, err = end(process)
    assert (code, out) == (130, "")
    assert err.strip().splitlines()[-1] == "alleycat: interrupted; what was running was killed"
    assert project.written() == []


def test_a_restart_goes_on_where_it_stopped(project: Project) -> None:
    project.create()
    state = ("--state", str(project.folder / "state"), "--functions", "Count")
    everything = [f"r{number}" for number in range(300)]
    project.put(*everything[:200])
    process = project.start(*state)
    eventually(lambda: len(project.written()) > 50)
    process.send_signal(signal.SIGINT)
    assert end(process)[0] == 130
    project.put(*everything[200:])
    process = project.start(*state)
    eventually(lambda: len(set(project.written())) == 300)
    process.send_signal(signal.SIGINT)
    assert end(process)[0] == 130
    # An orderly end leaves nothing half done, so nothing is done twice.
    assert sorted(project.written()) == sorted(everything)


def test_a_cloud_of_its_own_has_what_the_template_declares(project: Project) -> None:
    process = subprocess.Popen(
        project.command("--port", "0", "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    first = process.stderr.readline()
    assert first.startswith("alleycat: AWS endpoint: http://127.0.0.1:")
    own = CloudProcess(port=int(first.partition("127.0.0.1:")[2].split()[0]))
    kinesis = client_of(own, "kinesis")
    kinesis.put_record(StreamName=project.name, Data=b"store", PartitionKey="p")
    kinesis.close()
    eventually(lambda: project.written("seen"))
    process.send_signal(signal.SIGTERM)
    code, out, _ = end(process)
    assert code == 130
    assert json.loads(out)["target"] == own.endpoint_url
    assert project.written() == ["store"]


def test_a_registered_consumer_of_the_template_is_pushed_to(project: Project) -> None:
    fan = (
        "  Fan: {Type: AWS::Kinesis::StreamConsumer, Properties: {ConsumerName: fan, StreamARN: !GetAtt Clicks.Arn}}\n"
    )
    template = TEMPLATE.replace("Stream: !GetAtt Clicks.Arn", "Stream: !GetAtt Fan.ConsumerARN") + fan
    app = APP + "def arns(event, context):\n    _write(data=[one['eventSourceARN'] for one in event['Records']])\n"
    project.write(template.replace("app.count", "app.arns"), app)
    process = subprocess.Popen(
        project.command("--port", "0"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    own = CloudProcess(port=int(process.stderr.readline().partition("127.0.0.1:")[2].split()[0]))
    kinesis = client_of(own, "kinesis")
    kinesis.put_record(StreamName=project.name, Data=b"x", PartitionKey="p")
    eventually(project.written)
    (consumer,) = kinesis.list_stream_consumers(
        StreamARN=kinesis.describe_stream_summary(StreamName=project.name)["StreamDescriptionSummary"]["StreamARN"]
    )["Consumers"]
    kinesis.close()
    process.send_signal(signal.SIGINT)
    assert end(process)[0] == 130
    assert project.written() == [consumer["ConsumerARN"]]


def test_a_stream_of_another_template_is_read_too(project: Project) -> None:
    project.create()
    project.put("theirs")
    template = TEMPLATE.replace(
        "  Clicks: {Type: AWS::Kinesis::Stream, Properties: {Name: !Ref Name, ShardCount: 2}}\n", ""
    )
    project.write(template.replace("!GetAtt Clicks.Arn", "!Sub 'arn:aws:kinesis:eu-west-1:1:stream/${Name}'"), APP)
    process = project.start("--functions", "Count")
    eventually(project.written)
    process.send_signal(signal.SIGINT)
    assert end(process)[0] == 130
    assert project.written() == ["theirs"]
    own = project.command("--port", "0", "--functions", "Count", "-t", "1s")
    done = subprocess.run(own, capture_output=True, text=True, timeout=60, check=True)
    assert f"the template does not declare the stream {project.name}; it has one shard here" in done.stderr
    assert "CountClicks" in done.stdout


def test_a_cloud_that_runs_on_the_port_is_used(project: Project) -> None:
    project.create()
    project.put("here")
    process = subprocess.Popen(
        project.command("--port", str(project.cloud.port), "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    eventually(project.written)
    process.send_signal(signal.SIGINT)
    assert json.loads(end(process)[1])["target"] == project.cloud.endpoint_url
    assert project.written() == ["here"]


def test_filters_and_destinations_of_the_template_are_acted_on(project: Project) -> None:
    settings = """, MaximumRetryAttempts: 0, ParallelizationFactor: 2,
            FilterCriteria: {Filters: [{Pattern: '{"partitionKey": ["bad"]}'}]},
            DestinationConfig: {OnFailure: {Destination: !GetAtt Failures.Arn}}}"""
    template = TEMPLATE.replace(", BatchSize: 10}", settings) + "  Failures: {Type: AWS::SQS::Queue}\n"
    app = APP + "def fails(event, context):\n    _write(data=[len(event['Records'])])\n    raise ValueError('no')\n"
    project.write(template.replace("app.count", "app.fails"), app)
    process = subprocess.Popen(
        project.command("--port", "0", "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    own = CloudProcess(port=int(process.stderr.readline().partition("127.0.0.1:")[2].split()[0]))
    kinesis, sqs = client_of(own, "kinesis"), client_of(own, "sqs")
    entries = [{"Data": b"x", "PartitionKey": key} for key in ("good", "bad", "good")]
    kinesis.put_records(StreamName=project.name, Records=entries)
    url = sqs.get_queue_url(QueueName="alleycat-Failures")["QueueUrl"]
    found: list[Any] = []
    eventually(lambda: found.extend(sqs.receive_message(QueueUrl=url).get("Messages", [])) or found)
    kinesis.close()
    sqs.close()
    process.send_signal(signal.SIGINT)
    code, out, _ = end(process)
    assert code == 130
    told = json.loads(found[0]["Body"])
    assert told["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert told["KinesisBatchInfo"]["batchSize"] == 1
    assert project.written() == [1]
    assert sum(one["dropped_records"] for one in json.loads(out)["shards"]) == 1


def test_a_stacks_resources_are_found_by_the_names_that_they_got(tmp_path: Path) -> None:
    ids = {
        "Clicks": "shop-Clicks-a1b2",
        "Counts": "shop-Counts-c3d4",
        "Failures": "https://sqs.us-east-1.amazonaws.com/1/shop-Failures-e5",
        "Alarm": "arn:aws:sns:us-east-1:1:shop-Alarm-f6",
        "Fan": "arn:aws:kinesis:us-east-1:1:stream/shop-Clicks-a1b2/consumer/fan:1700000000",
        "Role": None,
    }
    summaries = [
        {"LogicalResourceId": name, "ResourceType": "T", "LastUpdatedTimestamp": 0, "ResourceStatus": "CREATE_COMPLETE"}
        | ({"PhysicalResourceId": physical} if physical else {})
        for name, physical in ids.items()
    ]
    client = boto3.client("cloudformation", "us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    with Stubber(client) as stub:
        stub.add_response("list_stack_resources", {"StackResourceSummaries": summaries}, {"StackName": "shop"})
        stub.add_client_error("list_stack_resources", "ValidationError", "Stack with id nix does not exist")
        target = SimpleNamespace(client=lambda service, **config: client)
        names = physical_names(target, "shop")  # type: ignore[arg-type]
        assert physical_names(target, "nix") == {}  # type: ignore[arg-type]
    client.close()
    assert names == {
        "Clicks": "shop-Clicks-a1b2",
        "Counts": "shop-Counts-c3d4",
        "Failures": "shop-Failures-e5",
        "Alarm": "shop-Alarm-f6",
        "Fan": "fan",
    }
    (tmp_path / "src").mkdir()
    path = tmp_path / "template.yaml"
    path.write_text(TEMPLATE.replace("Properties: {Name: !Ref Name, ShardCount", "Properties: {ShardCount"))
    found = load_deployment(path, physical_names=names)
    (source,) = found.functions[0].event_sources
    assert source.source_name == "shop-Clicks-a1b2"
    assert found.tables[0].name == "clicks", "a name that the template gives stays"


def test_flags_read_the_environment(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.create()
    project.put("data")
    monkeypatch.setenv("ALLEYCAT_FUNCTIONS", "Count")
    monkeypatch.setenv("ALLEYCAT_JSON", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", project.cloud.endpoint_url)
    process = subprocess.Popen(project.command(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    eventually(project.written)
    process.send_signal(signal.SIGINT)
    told = json.loads(end(process)[1])
    assert told["target"] == project.cloud.endpoint_url
    assert [one["name"] for one in told["functions"]] == ["alleycat-Count"]


def test_a_cloud_that_dies_is_one_clear_line(project: Project) -> None:
    process = subprocess.Popen(
        project.command("--port", "0"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    own = CloudProcess(port=int(process.stderr.readline().partition("127.0.0.1:")[2].split()[0]))
    kinesis = client_of(own, "kinesis")
    kinesis.put_record(StreamName=project.name, Data=b"data", PartitionKey="p")
    kinesis.close()
    eventually(project.written)
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid), "-f", "simulator.cloud.server"], capture_output=True, text=True, check=True
    )
    os.kill(int(children.stdout.split()[0]), signal.SIGKILL)
    code, out, err = end(process)
    assert (code, out) == (3, "")
    assert "the embedded cloud died (exit code -9)" in err.strip().splitlines()[-1]


# -- wrong input ---------------------------------------------------------------------------------------


def refused(project: Project, code: int, says: str, *arguments: str) -> None:
    """The command ends with ``code`` and one line that has ``says``, before anything ran."""
    process = project.start(*arguments)
    got, out, err = end(process)
    lines = [line for line in err.strip().splitlines() if " | " not in line]
    assert (got, out) == (code, ""), err
    assert len(lines) == 1, err
    assert says in lines[0]


@pytest.mark.parametrize(
    ("app", "says"),
    [
        ("import nix_da\n", "Count cannot start, app.count in "),
        ("import nix_da\n", "Runtime.ImportModuleError: Unable to import module 'app': No module named 'nix_da'"),
        ("def count(:\n", "Runtime.UserCodeSyntaxError: Syntax error in module 'app': "),
        ("def other(): pass\n", "Runtime.HandlerNotFound: Handler 'count' missing on module 'app'"),
        ("raise RuntimeError('no database')\n", "no database"),
    ],
)
def test_a_handler_that_cannot_be_loaded(project: Project, app: str, says: str) -> None:
    project.write(TEMPLATE, app)
    refused(project, 2, says)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (TEMPLATE.partition("  Count:")[0], "the template declares no function; there is nothing to run"),
        (TEMPLATE.partition("      Events:")[0], "no stream feeds Count; give a function a Kinesis or DynamoDB event"),
        (TEMPLATE.replace("Handler: app.count", "Handler: app.count\n      Runtime: nodejs22.x"), "template.yaml:22: "),
        (
            TEMPLATE.replace("Handler: app.count", "Handler: app.count\n      Runtime: nodejs22.x"),
            "Count: Runtime 'nod",
        ),
        (TEMPLATE.replace("BatchSize: 10", "FilterCriteria: {Filters: [{Pattern: 'no'}]}"), "CountClicks': "),
        (TEMPLATE.replace("CodeUri: src", "CodeUri: nowhere"), "there is no folder 'nowhere'"),
        ("Resources: [", "not valid YAML"),
    ],
)
def test_a_template_that_cannot_be_run(project: Project, template: str, says: str) -> None:
    project.write(template, APP)
    refused(project, 2, says)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--functions", "Nobody"], "there is no function 'Nobody' in "),
        (["--functions", "Nobody"], "; there are Count, Watch"),
        (["--from", "YESTERDAY"], "--from 'YESTERDAY': choose TRIM_HORIZON or LATEST"),
        (["--target", "moon"], "--target 'moon': choose local or aws"),
        (["--endpoint-url", "localhost"], "--endpoint-url 'localhost': give a URL"),
        (["--state", "/proc/nothing"], "choose a directory that can be written"),
        (["--run-time", "soon"], "--run-time 'soon': give a time"),
        (["--set", "Nix=1"], "there is no parameter Nix"),
        (["--port", "70000"], "--port"),
    ],
)
def test_wrong_flags(project: Project, arguments: list[str], says: str) -> None:
    refused(project, 2, says, *arguments)


def test_a_stream_that_is_not_there(project: Project) -> None:
    refused(project, 3, f"there is no stream {project.name} in {project.cloud.endpoint_url}; start that cloud with")
    refused(project, 3, f"there is no table {project.name} in ", "--functions", "Watch")


def test_a_table_without_a_stream(project: Project) -> None:
    dynamodb = client_of(project.cloud, "dynamodb")
    dynamodb.create_table(
        TableName=project.name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
    )
    dynamodb.close()
    refused(project, 3, f"the table {project.name} has no stream", "--functions", "Watch")


def test_an_endpoint_where_nobody_is(project: Project) -> None:
    refused(project, 3, "http://127.0.0.1:9 gave no answer", "--endpoint-url", "http://127.0.0.1:9")


def test_checkpoints_that_cannot_be_used(project: Project) -> None:
    project.create()
    state = project.folder / "state"
    state.mkdir()
    (state / "CountClicks.json").write_text("{}")
    refused(project, 2, "CountClicks.json: is not a checkpoint file", "--state", str(state))


def test_an_account_that_is_not_configured(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(project.folder))
    refused(project, 3, "no AWS region is configured", "--target", "aws")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    refused(project, 3, "no AWS credentials were found", "--target", "aws")


def test_a_real_stream_is_found_by_name_in_whatever_account(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.create()
    project.put("theirs")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "somebody")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    process = project.start("--target", "aws", "--functions", "Count")
    eventually(project.written)
    process.send_signal(signal.SIGINT)
    assert end(process)[0] == 130
    assert project.written() == ["theirs"]


# -- what is shown -------------------------------------------------------------------------------------

STATISTICS = RuntimeStatistics(
    functions={
        "Count": FunctionStatistics(
            invocations=1234, errors=5, duration_ms_p99=12.3, last_error=Failure(1.0, "ValueError", "a [bad] record")
        )
    },
    mappings={
        "CountClicks": MappingStatistics(
            status="unreachable",
            function_name="Count",
            shards={
                f"shardId-{number:012d}": ShardStatistics(status="blocked", millis_behind=number * 1000, retries=7)
                for number in range(30)
            },
            last_error=Failure(1.0, "EndpointConnectionError", "nobody there"),
        ),
    },
)
SNAPSHOT = Snapshot("running", 12.0, "http://127.0.0.1:4566", STATISTICS)


def test_tables_show_the_shards_that_are_most_behind() -> None:
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    with console.file:
        console.print(functions_table(STATISTICS))
        console.print(shards_table(STATISTICS))
        print_summary(Summary(SNAPSHOT, False), console)
    text = console.export_text()
    assert "1,234" in text
    assert "shard-0029" in text
    assert "shard-0000" not in text
    assert "and 10 more" in text
    assert "unreachable: nobody there" in text
    assert "! Count: ValueError: a [bad] record" in text


def test_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("simulator.consume_view.time.monotonic", lambda: now)
    with ConsumeView() as view:
        for _ in range(9):
            now += 1
            view.show(SNAPSHOT)
        view.log("Count", "its own line")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "running 12 s; Count 1,234 calls, 0 records, 5 errors, p99 12 ms, age 0.0 s; 30 shards in trouble; "
        "CountClicks is unreachable",
        "Count | its own line",
    ]
