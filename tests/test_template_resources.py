"""From template to deployment in detail: every property, its range, its line; the view; and no traceback ever."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console
from template_files import EVENT, FUNCTION, SAM, STREAM, fails, load, write

from simulator.cloud.server import CloudProcess
from simulator.deployment import Deployment, DeploymentError, TemplateError, load_deployment, to_dict
from simulator.deployment_view import render
from simulator.target import local_target, provision
from simulator.template import nodes
from simulator.template.support import IGNORED, UNDERSTOOD

ROOT = Path(__file__).resolve().parents[1]
OURS = ROOT / "template.yaml"
DATA = Path(__file__).parent / "data"


# -- the project's own template ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config_env", "shards", "window_s", "table", "index"),
    [("default", 2, 5, (100, 20), (50, 10)), ("as-published", 1, 0, (20, 20), (10, 10))],
)
def test_our_template_in_its_environments(
    config_env: str, shards: int, window_s: int, table: tuple[int, int], index: tuple[int, int]
) -> None:
    found = load_deployment(OURS, config_env)
    (stream,) = found.streams
    assert (stream.name, stream.shard_count, stream.retention_hours) == ("alleycat", shards, 24)
    (races,) = found.tables
    assert (races.name, races.keys) == ("alleycat-races", (("PK", "HASH"), ("SK", "RANGE")))
    assert (races.wcu, races.rcu) == table
    assert races.stream_view_type == "NEW_AND_OLD_IMAGES"
    lsi, gsi = races.indexes
    assert (lsi.name, lsi.kind, lsi.keys) == ("GSI_PK_Index", "LSI", (("PK", "HASH"), ("GSI", "RANGE")))
    assert (gsi.name, gsi.kind, gsi.keys) == ("GSI_Index", "GSI", (("GSI", "HASH"), ("SK", "RANGE")))
    assert (gsi.wcu, gsi.rcu) == index
    assert lsi.projection == gsi.projection == {"ProjectionType": "ALL"}
    role = "arn:aws:iam::123456789012:role/alleycat-IngestRole"
    windowed, final, published = found.functions
    assert [one.handler for one in found.functions] == [
        "consumers.tumbling_window.handler",
        "consumers.final_results.handler",
        "consumers.publish.handler",
    ]
    assert windowed.code_path == final.code_path == ROOT
    undelivered, rejected = (bucket.name for bucket in found.buckets)
    assert windowed.environment["REJECTED_BUCKET"] == rejected == "alleycat-rejected-123456789012"
    for function, window in ((windowed, window_s), (final, 0)):
        assert (function.timeout_s, function.environment["TABLE_NAME"]) == (15, "alleycat-races")
        (source,) = function.event_sources
        assert (source.source_arn, source.source_name) == (stream.arn, "alleycat")
        assert (source.starting_position, source.batch_size) == ("TRIM_HORIZON", 1000)
        assert (source.tumbling_window_s, source.maximum_retry_attempts) == (window, -1)
        assert source.report_batch_item_failures
    (source,) = published.event_sources
    assert (source.kind, source.source_name, source.batch_size) == ("DynamoDB", "alleycat-races", 10)
    assert (published.reserved_concurrency, published.environment["RESULTS_TOPIC"]) == (1, "alleycat-subscribe")
    (rule,) = found.topic_rules
    assert rule.payload == {
        "sql": "SELECT * FROM 'alleycat-publish'",
        "awsIotSqlVersion": "2016-03-23",
        "ruleDisabled": False,
        "actions": [{"kinesis": {"roleArn": role, "streamName": "alleycat", "partitionKey": "${racerId}"}}],
        "errorAction": {
            "s3": {"roleArn": role, "bucketName": undelivered, "key": "${topic()}/${timestamp()}-${newuuid()}.json"}
        },
    }
    assert {one.reason for one in found.ignored if one.member == "Policies"} == {"permissions are not checked here"}


def test_the_modules_of_our_handlers_are_where_the_template_says() -> None:
    for function in load_deployment(OURS).functions:
        module = function.handler.rpartition(".")[0]
        assert (function.code_path / f"{module.replace('.', '/')}.py").is_file()


def test_our_environments_say_everything_that_sam_deploy_asks_for() -> None:
    import tomllib

    config = tomllib.loads((ROOT / "samconfig.toml").read_text())
    assert config.pop("version") == 0.1
    assert set(config) >= {"default", "as-published"}
    for environment in config.values():
        parameters = environment["deploy"]["parameters"]
        assert parameters["stack_name"] == "alleycat"
        assert parameters["capabilities"] == "CAPABILITY_IAM"


def test_our_template_as_long_form_json_is_the_same_deployment(tmp_path: Path) -> None:
    for folder in ("consumers", "simulator"):
        (tmp_path / folder).mkdir()
    path = write(tmp_path, json.dumps(nodes.load(OURS)), "template.json")
    long = to_dict(load_deployment(path, samconfig=ROOT / "samconfig.toml"))
    short = to_dict(load_deployment(OURS))
    for one in (long, short):
        del one["path"]
        for entry in (*one["functions"], *one["ignored"]):
            entry.pop("code_path", None), entry.pop("line", None)
        one["ignored"].sort(key=str)
    assert long == short


def test_overrides_reach_what_they_size() -> None:
    found = load_deployment(OURS, overrides={"ShardCount": "7", "WriteCapacityUnits": "33", "FunctionTimeout": "60"})
    assert found.streams[0].shard_count == 7
    assert found.tables[0].wcu == 33
    assert {one.timeout_s for one in found.functions} == {60}
    assert found.origins["ShardCount"] == "override"
    assert found.origins["BatchSize"] == "samconfig.toml [default]"
    assert found.origins["FunctionMemory"] == "default"


def test_our_stream_and_table_on_demand_have_no_sizes() -> None:
    found = load_deployment(OURS, overrides={"StreamMode": "ON_DEMAND", "BillingMode": "PAY_PER_REQUEST"})
    (stream,), (races,) = found.streams, found.tables
    assert stream.mode == "ON_DEMAND"
    assert "ShardCount" not in stream.create_stream_kwargs()
    asked = races.create_table_kwargs()
    assert asked["BillingMode"] == "PAY_PER_REQUEST"
    assert "ProvisionedThroughput" not in asked
    assert all("ProvisionedThroughput" not in index for index in asked["GlobalSecondaryIndexes"])
    assert {(one.wcu, one.rcu) for one in (races, *races.indexes)} == {(0, 0)}


@pytest.mark.parametrize(("window_s", "windowed"), [(5, 1), (0, 4)])
def test_our_functions_read_side_by_side_where_lambda_lets_them(window_s: int, windowed: int) -> None:
    overrides = {"ParallelizationFactor": "4", "TumblingWindowInSeconds": str(window_s)}
    live, final, _ = load_deployment(OURS, overrides=overrides).functions
    assert live.event_sources[0].parallelization_factor == windowed
    assert final.event_sources[0].parallelization_factor == 4


@pytest.mark.parametrize(
    "override", ["StreamMode=MAYBE", "BillingMode=ON_DEMAND", "ParallelizationFactor=0", "ParallelizationFactor=11"]
)
def test_our_modes_and_factor_are_those_of_aws(override: str) -> None:
    name, _, value = override.partition("=")
    with pytest.raises(DeploymentError, match=name):
        load_deployment(OURS, overrides={name: value})


def test_our_deployment_on_demand_is_provisioned() -> None:
    deployment = load_deployment(OURS, overrides={"StreamMode": "ON_DEMAND", "BillingMode": "PAY_PER_REQUEST"})
    with CloudProcess(port=0) as cloud:
        there = local_target(cloud, "us-east-1")
        provision(there, deployment)
        stream = there.client("kinesis").describe_stream_summary(StreamName="alleycat")["StreamDescriptionSummary"]
        table = there.client("dynamodb").describe_table(TableName="alleycat-races")["Table"]
    assert (stream["StreamModeDetails"]["StreamMode"], stream["OpenShardCount"]) == ("ON_DEMAND", 4)
    assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"


def test_without_a_template_it_is_the_one_here_or_our_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_deployment().path == OURS
    write(tmp_path, STREAM, "template.yaml")
    assert load_deployment().path == Path("template.yaml")
    assert load_deployment().tables == ()


# -- templates of others -------------------------------------------------------------------------------


def test_a_usual_sam_application_loads_and_says_what_it_leaves_out() -> None:
    found = load_deployment(DATA / "web_api.yaml")
    (hello,) = found.functions
    assert (hello.name, hello.timeout_s, hello.memory_mb, hello.runtime) == ("alleycat-Hello", 3, 256, "python3.13")
    assert hello.environment == {"TABLE": "alleycat-Items", "MORE": "true"}  # NoValue takes the global one away
    assert hello.event_sources == ()
    (items,) = found.tables
    assert (items.keys, items.attribute_types) == ((("id", "HASH"),), {"id": "N"})
    assert (items.billing_mode, items.wcu) == ("PAY_PER_REQUEST", 0)
    assert found.buckets == ()
    assert found.outputs == {
        "Url": "https://alleycat-ServerlessRestApi.execute-api.us-east-1.amazonaws.com/Prod/hello/",
        "RoleArn": "arn:aws:iam::123456789012:role/alleycat-HelloRole",
    }
    assert [(one.what, one.line) for one in found.ignored] == [
        ("Globals.Api", 9),
        ("Items.SSESpecification", 25),
        ("Hello.Events.Get (Api)", 34),
        ("HelloLogs (AWS::Logs::LogGroup)", 39),
    ]
    prod = load_deployment(DATA / "web_api.yaml", overrides={"Stage": "prod"})
    assert (prod.functions[0].memory_mb, prod.functions[0].environment["LOG_LEVEL"]) == (1024, "warning")
    assert prod.buckets[0].name == prod.outputs["AuditBucket"] == "alleycat-audit"


def test_plain_cloudformation_in_json() -> None:
    found = load_deployment(DATA / "plain.json")
    (worker,) = found.functions
    assert (worker.name, worker.reserved_concurrency, worker.timeout_s, worker.memory_mb) == ("worker", 2, 3, 128)
    (source,) = worker.event_sources
    assert (source.name, source.source_name, source.batch_size) == ("FromStream", "alleycat-Stream", 500)
    assert (source.starting_position, source.report_batch_item_failures) == ("LATEST", False)
    assert found.queues[0].name == "alleycat-Dead"
    assert found.outputs["DeadArn"] == "arn:aws:sqs:us-east-1:123456789012:alleycat-Dead"


def test_globals_merge_as_sam_merges_them(tmp_path: Path) -> None:
    text = """
    Transform: AWS::Serverless-2016-10-31
    Globals:
      Function:
        Runtime: python3.12
        Timeout: 9
        MemorySize: 512
        Layers: [one]
        Environment: {Variables: {SHARED: all, STAGE: global}}
    Resources:
      A:
        Type: AWS::Serverless::Function
        Properties:
          Handler: a.b
          Timeout: 4
          MemorySize: !Ref AWS::NoValue
          Environment: {Variables: {STAGE: own, MORE: 1.5}}
      B:
        Type: AWS::Serverless::Function
        IgnoreGlobals: [Timeout, Environment]
        Properties: {Handler: a.b}
      C:
        Type: AWS::Serverless::Function
        IgnoreGlobals: "*"
        Properties: {Handler: a.b, Runtime: python3.13}
    """
    a, b, c = load(tmp_path, text).functions
    assert (a.timeout_s, a.memory_mb) == (4, 128)
    assert a.environment == {"SHARED": "all", "STAGE": "own", "MORE": "1.5"}
    assert (b.timeout_s, b.memory_mb, b.environment) == (3, 512, {})
    assert (c.timeout_s, c.memory_mb, c.runtime) == (3, 128, "python3.13")


def test_global_lists_come_first() -> None:
    from simulator.template.functions import merge

    def node(**members: Any) -> nodes.MapNode:
        made = nodes.MapNode(1)
        made.update(members)
        return made

    under = node(Layers=nodes.ListNode(1, ["a"]), Tags=node(x="1"), Role=node(Ref="R"))
    over = node(Layers=nodes.ListNode(1, ["b"]), Tags=node(y="2"), Role=node(Ref="S"))
    assert merge(under, over) == {"Layers": ["a", "b"], "Tags": {"x": "1", "y": "2"}, "Role": {"Ref": "S"}}
    assert under == node(Layers=["a"], Tags={"x": "1"}, Role={"Ref": "R"})


# -- properties ----------------------------------------------------------------------------------------

TABLE_EVENT = EVENT.replace("  Stream: {Type: AWS::Kinesis::Stream, Properties: {ShardCount: 1}}", """\
  Table:
    Type: AWS::DynamoDB::Table
    Properties: {BillingMode: PAY_PER_REQUEST, KeySchema: [{AttributeName: PK, KeyType: HASH}],
      AttributeDefinitions: [{AttributeName: PK, AttributeType: S}], StreamSpecification: {StreamViewType: NEW_IMAGE}}
""".rstrip()).replace("Type: Kinesis\n", "Type: DynamoDB\n").replace("Stream.Arn", "Table.StreamArn")  # fmt: skip
CONSUMER_EVENT = EVENT.replace("  Work:\n", """\
  Fan: {Type: AWS::Kinesis::StreamConsumer, Properties: {ConsumerName: fan, StreamARN: !GetAtt Stream.Arn}}
  Work:
""").replace("Stream: !GetAtt Stream.Arn", "Stream: !GetAtt Fan.ConsumerARN")  # fmt: skip

MAPPING_RANGES = {
    # name of the property: field of EventSourceSpec
    "BatchSize": "batch_size",
    "MaximumBatchingWindowInSeconds": "batching_window_s",
    "TumblingWindowInSeconds": "tumbling_window_s",
    "MaximumRetryAttempts": "maximum_retry_attempts",
    "ParallelizationFactor": "parallelization_factor",
}


def service_model(service: str, operation: str) -> Any:
    return botocore.session.get_session().get_service_model(service).operation_model(operation).input_shape


@pytest.mark.parametrize("name", MAPPING_RANGES)
def test_ranges_of_an_event_source_are_lambdas(tmp_path: Path, name: str) -> None:
    limits = service_model("lambda", "CreateEventSourceMapping").members[name].metadata
    for value in (limits["min"], limits["max"]):
        (source,) = load(tmp_path, EVENT + f"            {name}: {value}\n").functions[0].event_sources
        assert getattr(source, MAPPING_RANGES[name]) == value
    for value in (limits["min"] - 1, limits["max"] + 1, "x", 1.5, True, "[1]"):
        fails(tmp_path, EVENT + f"            {name}: {value}  #<<\n", f"{name} must be a ")


def test_a_record_age_is_for_ever_or_at_least_a_minute(tmp_path: Path) -> None:
    name = "MaximumRecordAgeInSeconds"
    high = service_model("lambda", "CreateEventSourceMapping").members[name].metadata["max"]
    for value in (-1, 60, high):
        (source,) = load(tmp_path, EVENT + f"            {name}: {value}\n").functions[0].event_sources
        assert source.maximum_record_age_s == value
    for value in (-2, high + 1):
        fails(tmp_path, EVENT + f"            {name}: {value}  #<<\n", f"{name} must be a whole number")


@pytest.mark.parametrize(
    ("setting", "field", "value", "words"),
    [
        ("ParallelizationFactor: 2", "parallelization_factor", 2, "2 at a time"),
        ("MaximumRecordAgeInSeconds: 60", "maximum_record_age_s", 60, "records up to 60 s old"),
        ("BisectBatchOnFunctionError: true", "bisect_batch_on_function_error", True, "failed batches halved"),
        ("FilterCriteria: {Filters: [{Pattern: '{}'}, {Pattern: x}]}", "filter_patterns", ("{}", "x"), "filtered"),
        (
            "DestinationConfig: {OnFailure: {Destination: 'arn:aws:sqs:r:1:q'}}",
            "on_failure_destination",
            "arn:aws:sqs:r:1:q",
            "failures to arn:aws:sqs:r:1:q",
        ),
    ],
)
def test_settings_of_failures_and_concurrency(tmp_path: Path, setting: str, field: str, value: Any, words: str) -> None:
    found = load(tmp_path, EVENT + f"            {setting}\n")
    (source,) = found.functions[0].event_sources
    assert getattr(source, field) == value
    assert words in " ".join(shown(found, 300).split())


def test_a_destination_may_be_a_topic_of_the_template(tmp_path: Path) -> None:
    setting = "            DestinationConfig: {OnFailure: {Destination: !Ref Failures}}\n"
    found = load(tmp_path, EVENT + setting + "  Failures: {Type: AWS::SNS::Topic, Properties: {TopicName: failures}}\n")
    (source,) = found.functions[0].event_sources
    assert source.on_failure_destination == "arn:aws:sns:us-east-1:123456789012:failures"
    assert [topic.name for topic in found.topics] == ["failures"]
    wrong = setting.replace("!Ref Failures", "somewhere").replace("\n", "  #<<\n")
    fails(tmp_path, EVENT + wrong, "Destination 'somewhere' is not supported; give the ARN of a queue, topic or bucket")


@pytest.mark.parametrize(
    "setting",
    [
        "ParallelizationFactor: 1",
        "MaximumRecordAgeInSeconds: -1",
        "BisectBatchOnFunctionError: false",
        "FilterCriteria: {Filters: []}",
        "DestinationConfig: {}",
        "DestinationConfig: {OnFailure: {}}",
        "Enabled: true",
    ],
)
def test_defaults_may_be_written_out(tmp_path: Path, setting: str) -> None:
    plain = load(tmp_path, EVENT).functions[0].event_sources
    assert load(tmp_path, EVENT + f"            {setting}\n").functions[0].event_sources == plain


def test_a_mapping_that_is_not_enabled_feeds_nothing_and_is_listed(tmp_path: Path) -> None:
    found = load(tmp_path, EVENT + "            Enabled: false\n")
    assert found.functions[0].event_sources == ()
    assert [(one.what, one.reason) for one in found.ignored] == [("Work.Events.Telemetry", "it is not enabled")]


def test_the_stream_of_a_table_is_an_event_source(tmp_path: Path) -> None:
    found = load(tmp_path, TABLE_EVENT)
    (source,) = found.functions[0].event_sources
    assert (source.kind, source.source_name, source.consumer_name) == ("DynamoDB", "alleycat-Table", None)
    assert (source.batch_size, source.starting_position) == (100, "LATEST")
    assert found.ignored == ()
    assert "from the stream of alleycat-Table" in shown(found)


def test_a_registered_consumer_is_an_event_source(tmp_path: Path) -> None:
    found = load(tmp_path, CONSUMER_EVENT)
    (source,) = found.functions[0].event_sources
    assert (source.kind, source.source_name, source.consumer_name) == ("Kinesis", "alleycat-Stream", "fan")
    (consumer,) = found.consumers
    assert (consumer.arn, consumer.stream_arn) == (source.source_arn, found.streams[0].arn)
    assert "from alleycat-Stream as fan" in shown(found)


@pytest.mark.parametrize(
    ("text", "replaced", "by", "says"),
    [
        (EVENT, "Type: Kinesis", "Type: DynamoDB", "stream/alleycat-Stream is not supported; use a Kinesis stream"),
        (
            TABLE_EVENT,
            "Type: DynamoDB\n          Prop",
            "Type: Kinesis\n          Prop",
            "is not supported; use a Kinesis",
        ),
        (
            TABLE_EVENT,
            "!GetAtt Table.StreamArn",
            "arn:aws:dynamodb:r:1:table/t/stream/x",
            "is not a stream of this temp",
        ),
        (TABLE_EVENT, "LATEST", "AT_TIMESTAMP", "StartingPosition must be TRIM_HORIZON or LATEST, not"),
        (TABLE_EVENT, "LATEST", "LATEST\n            BatchSize: 10001", "BatchSize must be a whole number from 1 to"),
        (TABLE_EVENT, ", StreamSpecification: {StreamViewType: NEW_IMAGE}", "", "has no attribute StreamArn"),
        (CONSUMER_EVENT, "Fan.ConsumerARN", "Fan.Arn", "Fan (AWS::Kinesis::StreamConsumer) has no attribute Arn"),
        (CONSUMER_EVENT, ", StreamARN: !GetAtt Stream.Arn", "", "Fan: StreamARN is missing"),
        (CONSUMER_EVENT, "ConsumerName: fan, ", "", "Fan: ConsumerName is missing"),
        (CONSUMER_EVENT, "StreamARN: !GetAtt Stream.Arn", "StreamARN: !Sub '${Stream.Arn}s'", "Fan: arn:aws:kinesis:"),
        (EVENT, "!GetAtt Stream.Arn", "!Sub '${Stream.Arn}/consumer/c:1'", "is not a stream of this template"),
    ],
)
def test_refused_event_sources(tmp_path: Path, text: str, replaced: str, by: str, says: str) -> None:
    assert replaced in text
    assert fails(tmp_path, text.replace(replaced, by), says).line


def test_event_source_mappings_take_what_sams_events_take(tmp_path: Path) -> None:
    for event, kind in ((TABLE_EVENT, "DynamoDB"), (CONSUMER_EVENT, "Kinesis")):
        arn = event.partition("            Stream: ")[2].partition("\n")[0]
        text = (
            event.partition("      Events:")[0]
            + f"""\
  Mapping:
    Type: AWS::Lambda::EventSourceMapping
    Properties: {{FunctionName: !Ref Work, EventSourceArn: {arn}, StartingPosition: TRIM_HORIZON}}
"""
        )
        (source,) = load(tmp_path, text).functions[0].event_sources
        assert (source.name, source.kind) == ("Mapping", kind)


def test_a_start_at_a_time(tmp_path: Path) -> None:
    text = EVENT.replace("LATEST", "AT_TIMESTAMP") + "            StartingPositionTimestamp: 1620240672.5\n"
    assert load(tmp_path, text).functions[0].event_sources[0].starting_timestamp_s == 1620240672.5


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (EVENT + "            BatchSizes: 3  #<<\n", "the property BatchSizes of AWS::Lambda::EventSourceMapping"),
        (EVENT + "            StartingPositionTimestamp: 3  #<<\n", "goes with StartingPosition AT_TIMESTAMP"),
        (EVENT.replace("LATEST", "OLDEST  #<<"), "StartingPosition must be TRIM_HORIZON or LATEST or AT_TIMESTAMP"),
        (EVENT + "            FunctionResponseTypes: [All]  #<<\n", "may hold ReportBatchItemFailures only"),
        (EVENT + "            MaximumRecordAgeInSeconds: 30  #<<\n", "must be -1 or from 60"),
        (EVENT + "            Enabled: perhaps  #<<\n", "Enabled must be true or false, not 'perhaps'"),
        (EVENT.replace("Type: Kinesis\n", "Type: SQS  #<<\n"), "an event of type SQS is not supported"),
        (EVENT.replace("!GetAtt Stream.Arn", "!Ref Stream  #<<"), "the event source alleycat-Stream is not supported"),
        (EVENT.replace("!GetAtt Stream.Arn", "!Sub '${Stream.Arn}/consumer/c'  #<<"), "is not supported"),
        (
            EVENT.replace("  Work:\n", "  Work:  #<<\n").replace("!GetAtt Stream.Arn", "!Sub '${Stream.Arn}s'"),
            "is not a stream of this template; declare the stream",
        ),
        (FUNCTION + "      Events: [x]  #<<\n", "Events must be a mapping"),
        (FUNCTION + "      Events: {E: 3}  #<<\n", "Work Events.E has no Type"),
        (FUNCTION + "      Events: {E: {Type: Kinesis, Properties: x}}  #<<\n", "Properties must be a mapping"),
        (FUNCTION + "      Events: {E: {Type: Kinesis}}  #<<\n", "Work Events.E: Stream is missing"),
        (FUNCTION + "      Timeout: 901  #<<\n", "Work: Timeout must be a whole number from 1 to 900, not '901'"),
        (FUNCTION + "      MemorySize: 127  #<<\n", "from 128 to 10,240"),
        (FUNCTION + "      MemorySize: !Ref Stream  #<<\n", "MemorySize must be a whole number"),
        (FUNCTION + "      ReservedConcurrentExecutions: -1  #<<\n", "ReservedConcurrentExecutions must be"),
        (FUNCTION + "      CodeUri: s3://bucket/key  #<<\n", "CodeUri must be a local folder here"),
        (FUNCTION + "      CodeUri: {Bucket: b, Key: k}  #<<\n", "CodeUri must be a local folder here"),
        (FUNCTION + "      CodeUri: src  #<<\n", "there is no folder 'src'; CodeUri is relative to the template"),
        (FUNCTION + "      CodeUri: \"a\\0b\"  #<<\n", "there is no folder"),
        (FUNCTION + "      InlineCode: x  #<<\n", "the property InlineCode of AWS::Serverless::Function is not supp"),
        (FUNCTION + "      FunctionName: a b  #<<\n", "'a b' is not a possible FunctionName"),
        (FUNCTION + "      Environment: {Variable: {}}  #<<\n", "the property Variable is not supported"),
        (FUNCTION + "      Environment: {Variables: {AWS_REGION: x}}  #<<\n", "AWS_REGION is reserved, Lambda sets it"),
        (FUNCTION + "      Environment: {Variables: {A: x}}  #<<\n", "must have at least two letters"),
        (FUNCTION + "      Environment: {Variables: {AA: [x]}}  #<<\n", "the variable AA must be a text"),
        (FUNCTION + f"      Environment: {{Variables: {{AA: {'x' * 4096}}}}}  #<<\n", "4,098 bytes"),
        (FUNCTION.replace("app.handler", "handler  #<<"), "Handler must be module.function, not 'handler'"),
        (FUNCTION.replace("python3.12", "nodejs22.x  #<<"), "Runtime 'nodejs22.x' is not supported; functions run in"),
        (FUNCTION.replace("      Runtime: python3.12\n", "").replace("Properties:\n", "Properties:\n"), "is missing"),
        (STREAM.replace("1", "0  #<<"), "Stream: ShardCount must be a whole number from 1 to 20,000, not '0'"),
        (STREAM.replace("      ShardCount: 1\n", "      Name: x\n"), "Stream: ShardCount is missing"),
        (STREAM + "      RetentionPeriodHours: 12  #<<\n", "RetentionPeriodHours must be a whole number from 24"),
        (STREAM.replace("1\n", "1  #<<\n") + "      StreamModeDetails: {StreamMode: ON_DEMAND}\n", "has no ShardCount"),
        (STREAM + "      StreamModeDetails: ON_DEMAND  #<<\n", "StreamModeDetails must be a mapping"),
        (STREAM + "      MaxRecordSizeInKiB: 512  #<<\n", "MaxRecordSizeInKiB must be a whole number from 1,0"),
        (STREAM + "      Name: a b  #<<\n", "'a b' is not a possible Name; it must match"),
        (STREAM + "      Name: x\n  Other:  #<<\n    Type: AWS::Kinesis::Stream\n    Properties: {ShardCount: 1, Name: x}",  # noqa: E501
         "Stream and Other are both named x"),
        (STREAM + "  B:\n    Type: AWS::S3::Bucket\n    Properties: {BucketName: Upper}  #<<\n", "possible BucketName"),
        (STREAM + "  B:\n    Type: AWS::S3::Bucket\n    Properties:\n      WebsiteConfiguration: {}  #<<\n", "Website"),
        (STREAM + "  Q:\n    Type: AWS::SQS::Queue\n    Properties:\n      FifoQueue: true  #<<\n", "FifoQueue"),
    ],
)  # fmt: skip
def test_refused_properties_name_their_line(tmp_path: Path, text: str, says: str) -> None:
    fails(tmp_path, text, says)


LAMBDA = """
Resources:
  Stream: {Type: AWS::Kinesis::Stream, Properties: {ShardCount: 1}}
  Work:
    Type: AWS::Lambda::Function
    Properties: {FunctionName: work, Handler: a.b, Runtime: python3.12, Code: .}
  Map:
    Type: AWS::Lambda::EventSourceMapping
    Properties:
      EventSourceArn: !GetAtt Stream.Arn
      StartingPosition: LATEST
"""


@pytest.mark.parametrize(
    "name",
    [
        "!Ref Work",
        "!GetAtt Work.Arn",
        "work",
        "work:live",
        "'123456789012:function:work'",
        "!Sub '${Work.Arn}:1'",
    ],
)
def test_a_mapping_finds_its_function_by_each_form_of_name(tmp_path: Path, name: str) -> None:
    (work,) = load(tmp_path, LAMBDA + f"      FunctionName: {name}\n").functions
    assert [source.name for source in work.event_sources] == ["Map"]


def test_a_mapping_without_its_function_or_doubled(tmp_path: Path) -> None:
    lost = LAMBDA.replace("  Map:\n", "  Map:  #<<\n") + "      FunctionName: other\n"
    fails(tmp_path, lost, "Map: there is no function other in this template; there are work")
    twice = (
        LAMBDA.replace("  Work:\n", "  Work:  #<<\n")
        + """\
      FunctionName: work
  Again:
    Type: AWS::Lambda::EventSourceMapping
    Properties: {FunctionName: work, EventSourceArn: !GetAtt Stream.Arn, StartingPosition: LATEST}
"""
    )
    fails(tmp_path, twice, "twice; remove one of them")


# -- tables --------------------------------------------------------------------------------------------

TABLE = """
Resources:
  Table:
    Type: AWS::DynamoDB::Table
    Properties:
      TableName: races
      AttributeDefinitions: [{AttributeName: PK, AttributeType: S}, {AttributeName: SK, AttributeType: S}]
      KeySchema: [{AttributeName: PK, KeyType: HASH}, {AttributeName: SK, KeyType: RANGE}]
      ProvisionedThroughput: {ReadCapacityUnits: 5, WriteCapacityUnits: "6"}
"""
GSI = """\
      GlobalSecondaryIndexes:
        - IndexName: ByS
          KeySchema: [{AttributeName: SK, KeyType: HASH}]
          Projection: {ProjectionType: INCLUDE, NonKeyAttributes: [x]}
          ProvisionedThroughput: {ReadCapacityUnits: 1, WriteCapacityUnits: 2}
"""


@pytest.mark.parametrize(
    "load_it",
    [
        lambda folder: load_deployment(OURS),
        lambda folder: load_deployment(DATA / "web_api.yaml"),
        lambda folder: load(folder, TABLE + GSI),
        lambda folder: load(folder, TABLE.split("      Prov")[0] + "      BillingMode: PAY_PER_REQUEST\n"),
    ],
)
def test_create_table_takes_what_a_spec_says(tmp_path: Path, load_it: Any) -> None:
    (table,) = load_it(tmp_path).tables
    asked = table.create_table_kwargs()
    problems = ParamValidator().validate(asked, service_model("dynamodb", "CreateTable"))
    assert not problems.has_errors(), problems.generate_report()
    assert ("ProvisionedThroughput" in asked) == (table.billing_mode == "PROVISIONED")


def test_an_index_keeps_its_projection_and_units(tmp_path: Path) -> None:
    asked = load(tmp_path, TABLE + GSI).tables[0].create_table_kwargs()
    assert asked["ProvisionedThroughput"] == {"ReadCapacityUnits": 5, "WriteCapacityUnits": 6}
    assert asked["GlobalSecondaryIndexes"] == [
        {
            "IndexName": "ByS",
            "KeySchema": [{"AttributeName": "SK", "KeyType": "HASH"}],
            "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["x"]},
            "ProvisionedThroughput": {"ReadCapacityUnits": 1, "WriteCapacityUnits": 2},
        }
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (TABLE + "      BillingMode: FREE  #<<\n", "BillingMode must be PROVISIONED or PAY_PER_REQUEST, not 'FREE'"),
        (
            TABLE.replace('"6"}', '"6"}  #<<') + "      BillingMode: PAY_PER_REQUEST\n",
            "does not go with BillingMode PAY_PER_REQUEST",
        ),
        (TABLE.split("      Prov")[0].replace("Properties:", "Properties:"), "ProvisionedThroughput is missing"),
        (TABLE.replace('"6"}', '0}  #<<'), "WriteCapacityUnits must be a whole number from 1 to 40,000, not '0'"),
        (TABLE.replace('"6"}', '6, Units: 1}  #<<'), "the property Units is not supported"),
        (TABLE.replace("KeyType: RANGE}]", "KeyType: SORT}]  #<<"), "KeyType must be HASH or RANGE, not 'SORT'"),
        (TABLE.replace("KeyType: RANGE}]", "KeyType: HASH}]  #<<"), "KeySchema takes a HASH key"),
        (TABLE.replace("SK, KeyType: RANGE}]", "PK, KeyType: RANGE}]  #<<"), "KeySchema takes a HASH key"),
        (TABLE.replace("SK, AttributeType: S}]", "SK, AttributeType: X}]  #<<"), "must be S or N or B, not 'X'"),
        (TABLE.replace("SK, AttributeType: S}]", "PK, AttributeType: S}]  #<<"), "PK is defined twice"),
        (TABLE.replace("SK, AttributeType: S}]", "ZZ, AttributeType: S}]  #<<"), "has PK, ZZ, the keys are PK, SK"),
        (TABLE + "      StreamSpecification: {}  #<<\n", "StreamViewType is missing"),
        (TABLE + "      StreamSpecification: {StreamViewType: ALL}  #<<\n", "StreamViewType must be NEW_AND_OLD"),
        (TABLE + "      KinesisStreamSpecification: {StreamArn: x}  #<<\n", "KinesisStreamSpecification"),
        (TABLE + GSI.replace("[x]}", "[x], Y: 1}  #<<"), "Table index ByS Projection: the property Y is not supp"),
        (TABLE + GSI.replace("INCLUDE, NonKeyAttributes: [x]}", "INCLUDE}  #<<"), "go with ProjectionType INCLUDE"),
        (TABLE + GSI.replace("          Projection: {ProjectionType: INCLUDE, NonKeyAttributes: [x]}\n", ""),
         "Projection is missing"),
        (TABLE + GSI.replace("      GlobalSecondaryIndexes:", "      LocalSecondaryIndexes:"), "ProvisionedThroughput"),
        (
            TABLE + GSI.replace("      GlobalSecondaryIndexes:", "      LocalSecondaryIndexes:  #<<")
            .replace("          ProvisionedThroughput: {ReadCapacityUnits: 1, WriteCapacityUnits: 2}\n", ""),
            "the local index ByS must have the table's HASH key and a RANGE key of its own",
        ),
        (TABLE + GSI.replace("Indexes:\n", "Indexes:  #<<\n") + GSI.partition("\n")[2], "two indexes are named ByS"),
        (TABLE + GSI.replace("ByS", "I  #<<"), "'I' is not a possible IndexName"),
        (TABLE + "      GlobalSecondaryIndexes: [x]  #<<\n", "GlobalSecondaryIndexes must be a list of mappings"),
    ],
)  # fmt: skip
def test_refused_tables_name_their_line(tmp_path: Path, text: str, says: str) -> None:
    fails(tmp_path, text, says)


def test_no_property_is_both_understood_and_ignored() -> None:
    assert set(IGNORED) == set(UNDERSTOOD)
    for kind, properties in UNDERSTOOD.items():
        assert not set(properties) & set(IGNORED[kind])


def test_an_on_demand_stream_with_long_retention_and_large_records(tmp_path: Path) -> None:
    from simulator.cost import estimate

    path = tmp_path / "template.yaml"
    path.write_text(
        "Resources:\n  Stream:\n    Type: AWS::Kinesis::Stream\n    Properties:\n      Name: large\n"
        "      StreamModeDetails: {StreamMode: ON_DEMAND}\n      RetentionPeriodHours: 48\n"
        "      MaxRecordSizeInKiB: 2048\n"
    )
    found = load_deployment(path)
    assert found.streams[0].create_stream_kwargs() == {
        "StreamName": "large",
        "StreamModeDetails": {"StreamMode": "ON_DEMAND"},
        "MaxRecordSizeInKiB": 2048,
    }
    assert "on demand" in shown(found)
    # 0.04 an hour and 0.08 a GB of records rounded up to a kilobyte.
    assert estimate(found, 1_000_000, 60)[0].usd == pytest.approx(0.04 + 1.024 * 0.08)


def test_provisioning_makes_what_the_template_says(cloud: CloudProcess, tmp_path: Path) -> None:
    name = f"large-{tmp_path.name[-12:]}"
    path = tmp_path / "template.yaml"
    path.write_text(
        f"Resources:\n  Stream:\n    Type: AWS::Kinesis::Stream\n    Properties:\n      Name: {name}\n"
        "      StreamModeDetails: {StreamMode: ON_DEMAND}\n      RetentionPeriodHours: 48\n"
    )
    provision(local_target(cloud, "us-east-1"), load_deployment(path))
    described = cloud.client("kinesis").describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
    assert (described["RetentionPeriodHours"], described["OpenShardCount"]) == (48, 4)
    assert described["StreamModeDetails"] == {"StreamMode": "ON_DEMAND"}


# -- what is shown -------------------------------------------------------------------------------------


def shown(deployment: Deployment, width: int = 120) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    with console.file:
        console.print(render(deployment))
        return console.export_text()


def test_the_view_shows_everything_and_where_it_came_from() -> None:
    text = shown(load_deployment(OURS, overrides={"ShardCount": "3"}))
    for words in (
        "--config-env default",
        "override",
        "samconfig.toml [default]",
        "3 shards",
        "100 WCU, 20 RCU",
        "LSI GSI_PK_Index",
        "50 WCU, 10 RCU",
        "consumers.tumbling_window.handler",
        "windows of 5 s",
        "no window",
        "tried until it expires",
        "alleycat-rejected-123456789012",
        "TumblingWindowFunction.Policies",
        "permissions are not checked here",
    ):
        assert words in text, words


@pytest.mark.parametrize("width", [40, 60, 80])
def test_the_view_folds_and_never_cuts(width: int) -> None:
    def letters(text: str) -> list[str]:
        return sorted(text.replace(" ", "").replace("\n", ""))

    assert letters(shown(load_deployment(OURS), width)) == letters(shown(load_deployment(OURS), 400))


def test_the_view_takes_square_brackets_as_text(tmp_path: Path) -> None:
    text = "Parameters: {P: {Type: String, Default: '[bold]x[/]'}}" + STREAM
    assert "[bold]x[/]" in shown(load(tmp_path, text))


def test_what_is_no_echo_is_never_shown(tmp_path: Path) -> None:
    text = "Parameters: {P: {Type: String, Default: hunter2, NoEcho: true}}" + STREAM
    found = load(tmp_path, text)
    assert found.parameters == {"P": "hunter2"}
    assert found.shown_parameters() == {"P": "****"}
    assert "hunter2" not in shown(found) + json.dumps(to_dict(found))


@pytest.mark.parametrize("path", [OURS, DATA / "web_api.yaml", DATA / "plain.json"])
def test_a_deployment_is_json(path: Path) -> None:
    told = json.loads(json.dumps(to_dict(load_deployment(path)), allow_nan=False))
    assert told["path"] == str(path)
    assert all(Path(one["code_path"]).is_absolute() for one in told["functions"])


# -- no traceback, whatever the template ---------------------------------------------------------------

JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from(
        [
            {},
            {"Ref": "RacesTable"},
            {"Ref": "AWS::NoValue"},
            {"Ref": []},
            {"Fn::GetAtt": ["TelemetryStream", "Arn"]},
            {"Fn::Sub": "${TumblingWindowFunction}"},
            {"Fn::If": ["HasWindow", {"Ref": "AWS::NoValue"}, []]},
            {"Fn::Split": [",", "a,b"]},
            {"Condition": "HasWindow"},
            {"Type": "AWS::S3::Bucket"},
            "AWS::Serverless::SimpleTable",
            "${",
        ]
    ),
)


def places(tree: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every node of a tree."""
    members = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [way, *(place for key, one in members for place in places(one, (*way, key)))]


PLAIN = json.loads(json.dumps(nodes.load(OURS)))
PLACES = [way for way in places(PLAIN) if way]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(PLACES), JUNK, st.sampled_from(["put", "drop", "rename"])), max_size=3))
def test_a_damaged_template_loads_or_says_in_one_line_why_not(tmp_path: Path, damages: list[Any]) -> None:
    tree = json.loads(json.dumps(PLAIN))
    for way, junk, how in damages:
        parent = tree
        try:
            for key in way[:-1]:
                parent = parent[key]
            if how == "put":
                parent[way[-1]] = copy.deepcopy(junk)  # a later damage may reach into it
            else:
                value = parent.pop(way[-1])
                if how == "rename" and isinstance(parent, dict):
                    parent[f"{way[-1]}x"] = value
        except (KeyError, IndexError, TypeError, AttributeError):
            continue  # an earlier damage took it away
    path = write(tmp_path, json.dumps(tree, indent=1))
    error = None
    try:
        found = load_deployment(path)
    except DeploymentError as caught:
        error = caught
    if error is not None:
        assert "\n" not in str(error)
        assert str(path) in str(error)
        assert not isinstance(error, TemplateError) or 0 <= error.line <= len(path.read_text().splitlines())
        return
    json.dumps(to_dict(found))
    shown(found)
    for table in found.tables:
        table.create_table_kwargs()


def test_an_error_is_one_line_whatever_the_template_says(tmp_path: Path) -> None:
    path = write(tmp_path, json.dumps({**PLAIN, "Transform": "AWS::\n\nNothing"}))
    with pytest.raises(TemplateError, match=r"the transform AWS:: Nothing is not supported; use AWS::Serverless"):
        load_deployment(path)


def test_the_sam_line_is_only_needed_by_sam_types(tmp_path: Path) -> None:
    assert load(tmp_path, SAM + STREAM) == load(tmp_path, STREAM)
