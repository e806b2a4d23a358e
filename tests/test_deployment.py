"""The template: what is understood, and what every mistake is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.deployment import Deployment, DeploymentError, load_deployment, to_dict
from simulator.deployment_view import render
from simulator.template.samconfig import parse_overrides

ROOT = Path(__file__).resolve().parents[1]

HEAD = """\
Parameters:
  Count: {Type: Number, Default: 2, MinValue: 1, MaxValue: 10}
  Names: {Type: CommaDelimitedList, Default: "a,b,c"}
  Stage: {Type: String, Default: dev, AllowedValues: [dev, prod]}
Mappings:
  Sizes:
    dev: {shards: 3}
    prod: {shards: 30}
Conditions:
  IsProd: !Equals [!Ref Stage, prod]
  NotProd: !Not [!Condition IsProd]
  Either: !Or [!Condition IsProd, !Equals [!Ref Count, 2]]
Resources:
"""


def load(tmp_path: Path, resources: str, head: str = HEAD, **overrides: str) -> Deployment:
    path = tmp_path / "template.yaml"
    transform = "Transform: AWS::Serverless-2016-10-31\n" if "AWS::Serverless" in resources else ""
    path.write_text(head + resources + transform, encoding="utf-8")
    return load_deployment(path, overrides=overrides)


def stream(value: str, extra: str = "") -> str:
    return f"  S:\n    Type: AWS::Kinesis::Stream\n    Properties:\n      ShardCount: 1\n      Name: {value}\n{extra}"


# -- our own -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config_env", "shards", "window", "wcu", "gsi_wcu"), [("default", 2, 5, 100, 50), ("as-published", 1, 0, 20, 10)]
)
def test_the_projects_template(config_env: str, shards: int, window: int, wcu: int, gsi_wcu: int) -> None:
    found = load_deployment(ROOT / "template.yaml", config_env)
    assert [(one.name, one.shard_count) for one in found.streams] == [("alleycat", shards)]
    (table,) = found.tables
    assert (table.name, table.wcu, table.rcu) == ("alleycat-races", wcu, 20)
    assert [(index.name, index.kind, index.wcu) for index in table.indexes] == [
        ("GSI_PK_Index", "LSI", 0),
        ("GSI_Index", "GSI", gsi_wcu),
    ]
    assert table.stream_view_type == "NEW_AND_OLD_IMAGES"
    by_id = {function.logical_id: function for function in found.functions}
    tumbling, final = by_id["TumblingWindowFunction"], by_id["FinalResultsFunction"]
    assert tumbling.environment == {"TABLE_NAME": "alleycat-races", "REJECTED_BUCKET": "alleycat-rejected-123456789012"}
    assert final.environment == {"TABLE_NAME": "alleycat-races"}
    assert [one.tumbling_window_s for one in tumbling.event_sources] == [window]
    assert [one.tumbling_window_s for one in final.event_sources] == [0]
    assert all(one.report_batch_item_failures for f in found.functions for one in f.event_sources)
    assert tumbling.event_sources[0].source_arn == found.streams[0].arn
    assert (tumbling.code_path / "consumers").is_dir()


def test_overrides_win_over_samconfig_and_defaults() -> None:
    found = load_deployment(ROOT / "template.yaml", "as-published", {"ShardCount": "7"})
    assert found.streams[0].shard_count == 7
    assert found.tables[0].wcu == 20
    assert found.origins["ShardCount"] == "override"
    assert found.origins["WriteCapacityUnits"] == "samconfig.toml [as-published]"
    assert found.origins["FunctionTimeout"] == "default"


def test_create_table_takes_what_the_template_says() -> None:
    import boto3
    from moto import mock_aws

    table = load_deployment(ROOT / "template.yaml").tables[0]
    with mock_aws():
        client = boto3.client(
            "dynamodb", region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
        )
        client.create_table(**table.create_table_kwargs())
        described = client.describe_table(TableName=table.name)["Table"]
        client.close()
    assert described["ProvisionedThroughput"]["WriteCapacityUnits"] == 100
    assert described["GlobalSecondaryIndexes"][0]["ProvisionedThroughput"]["WriteCapacityUnits"] == 50
    assert described["LocalSecondaryIndexes"][0]["IndexName"] == "GSI_PK_Index"


def test_it_can_be_printed_and_is_json() -> None:
    import io
    import json

    from rich.console import Console

    found = load_deployment(ROOT / "template.yaml")
    console = Console(file=io.StringIO(), width=200)
    console.print(render(found))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(
        word in text for word in ("alleycat-races", "GSI GSI_Index", "100 WCU", "FinalResultsFunction", "Ignored")
    )
    assert json.loads(json.dumps(to_dict(found)))["streams"][0]["shard_count"] == 2


# -- intrinsics ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("!Ref Stage", "dev"),
        ("{Ref: Stage}", "dev"),
        ("!Sub 'x-${Stage}-${AWS::Region}'", "x-dev-us-east-1"),
        ("!Sub ['${A}-${Stage}', {A: !Ref Count}]", "2-dev"),
        ("!Join ['-', [a, !Ref Stage, !Ref Count]]", "a-dev-2"),
        ("!Select [1, !Ref Names]", "b"),
        ("!Select [2, !Split ['-', x-y-z]]", "z"),
        ("!If [IsProd, p, d]", "d"),
        ("!If [NotProd, !If [Either, both, one], d]", "both"),
        ("!Sub '${AWS::StackName}.${AWS::AccountId}.${AWS::Partition}'", "alleycat.123456789012.aws"),
        ("{'Fn::Join': ['', [!FindInMap [Sizes, !Ref Stage, shards], x]]}", "3x"),
    ],
)
def test_intrinsics(tmp_path: Path, expression: str, value: str) -> None:
    other = "  Other:\n    Type: AWS::Kinesis::Stream\n    Properties: {Name: other, ShardCount: 1}\n"
    found = load(tmp_path, stream(expression, other))
    assert found.streams[0].name == value


def test_what_a_stream_cannot_be_named(tmp_path: Path) -> None:
    other = "  Other:\n    Type: AWS::Kinesis::Stream\n    Properties: {Name: other, ShardCount: 1}\n"
    for expression, value in (
        ("!Sub '${!Literal}-${Stage}'", "${Literal}-dev"),
        ("!Sub '${Other}-${Other.Arn}'", "other-arn:aws:kinesis:us-east-1:123456789012:stream/other"),
    ):
        with pytest.raises(DeploymentError) as error:
            load(tmp_path, stream(expression, other))
        assert f"{value!r} is not a possible Name" in str(error.value)


def test_no_value_leaves_a_property_out_and_conditions_resources(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        stream("!If [IsProd, named, !Ref AWS::NoValue]")
        + "  T:\n    Type: AWS::SQS::Queue\n    Condition: IsProd\n"
        + "  U:\n    Type: AWS::SQS::Queue\n    Condition: NotProd\n",
    )
    assert found.streams[0].name == "alleycat-S"
    assert [one.logical_id for one in found.queues] == ["U"]


def test_json_templates(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text('{"Resources": {"S": {"Type": "AWS::Kinesis::Stream", "Properties": {"ShardCount": 3}}}}')
    assert load_deployment(path).streams[0].shard_count == 3


def test_what_carries_no_behaviour_is_listed(tmp_path: Path) -> None:
    found = load(tmp_path, stream("s") + "  R:\n    Type: AWS::IAM::Role\n    Properties: {Anything: !Ref S}\n")
    assert [(one.what, one.line) for one in found.ignored] == [("R (AWS::IAM::Role)", 19)]


def test_lambda_function_with_its_mapping(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        stream("s")
        + "  F:\n    Type: AWS::Lambda::Function\n    Properties: {Handler: a.b, Runtime: python3.12, Code: .}\n"
        + "  M:\n    Type: AWS::Lambda::EventSourceMapping\n    Properties:\n      FunctionName: !Ref F\n"
        + "      EventSourceArn: !GetAtt S.Arn\n      StartingPosition: LATEST\n      BatchSize: 7\n",
    )
    (source,) = found.functions[0].event_sources
    assert (source.source_name, source.batch_size, source.starting_position) == ("s", 7, "LATEST")


# -- mistakes ------------------------------------------------------------------------------------------

FUNCTION = (
    "  F:\n    Type: AWS::Serverless::Function\n    Properties:\n      Handler: a.b\n      Runtime: python3.12\n"
    "      Events:\n        E:\n          Type: Kinesis\n          Properties:\n            Stream: !GetAtt S.Arn\n"
)


@pytest.mark.parametrize(
    ("resources", "line", "told"),
    [
        (stream("!Ref Nix"), 18, "there is no parameter or resource Nix"),
        (stream("!GetAtt S.Nix"), 18, "circle|no attribute"),
        (stream("!ImportValue x"), 18, "Fn::ImportValue is not supported; supported are Ref"),
        (stream("!Select [9, !Ref Names]"), 18, "Select cannot take item 9"),
        (stream("!If [Nix, a, b]"), 18, "there is no condition Nix"),
        (stream("!FindInMap [Sizes, nix, shards]"), 18, "FindInMap finds nothing"),
        (stream("s", "      Colour: red\n"), 19, "property Colour of AWS::Kinesis::Stream is not supported; remove"),
        (
            "  X:\n    Type: AWS::EC2::Instance\n",
            14,
            "type AWS::EC2::Instance is not supported; .*AWS::Kinesis::Stream",
        ),
        ("  X:\n    Typ: y\n", 14, "X has no Type"),
        (
            "  S:\n    Type: AWS::Kinesis::Stream\n    Properties:\n      ShardCount: 0\n",
            17,
            "ShardCount must be a whole number from 1",
        ),
        (
            "  S:\n    Type: AWS::Kinesis::Stream\n    Properties:\n      StreamModeDetails: {StreamMode: SOMETIMES}\n",
            17,
            "StreamMode",
        ),
        ("  B: {Type: AWS::S3::Bucket}\n  B: {Type: AWS::S3::Bucket}\n", 15, "key B is given twice"),
        ("  A: [\n", 15, "not valid YAML"),
        (
            stream("s") + FUNCTION + "            StartingPosition: SOMETIME\n",
            29,
            "StartingPosition must be TRIM_HORIZON",
        ),
        (
            stream("s") + FUNCTION + "            StartingPosition: LATEST\n            BatchSize: 10001\n",
            30,
            "BatchSize must be a whole number from 1 to 10,000",
        ),
        (
            stream("s") + FUNCTION + "            StartingPosition: LATEST\n            ParallelizationFactor: 11\n",
            30,
            "ParallelizationFactor must be a whole number from 1 to 10",
        ),
    ],
)
def test_each_mistake_has_a_file_a_line_and_advice(tmp_path: Path, resources: str, line: int, told: str) -> None:
    with pytest.raises(DeploymentError, match=told) as error:
        load(tmp_path, resources)
    text = str(error.value)
    assert "\n" not in text
    assert f"template.yaml:{line}:" in text


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"Cuont": "1"}, "no parameter Cuont; did you mean Count"),
        ({"Count": "many"}, "'many' is not a number"),
        ({"Count": "11"}, "is more than 10"),
        ({"Count": "0"}, "is less than 1"),
        ({"Stage": "test"}, "is not one of dev, prod"),
    ],
)
def test_wrong_overrides(tmp_path: Path, overrides: dict[str, str], told: str) -> None:
    with pytest.raises(DeploymentError, match=told):
        load(tmp_path, stream("s"), **overrides)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "not a SAM"),
        (b"just text", "not a SAM"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"Resources: []", "not a SAM"),
        (b"[" * 5000, "nested too deeply|not valid YAML"),
        (b"x" * 1_000_001, "1,000,001 bytes"),
        (b"a: \x01", "not valid YAML"),
    ],
)
def test_what_is_no_template(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "template.yaml"
    path.write_bytes(content)
    with pytest.raises(DeploymentError, match=told):
        load_deployment(path)


def test_a_missing_template_and_environment(tmp_path: Path) -> None:
    with pytest.raises(DeploymentError, match=r"No such file.*--template"):
        load_deployment(tmp_path / "nix.yaml")
    with pytest.raises(DeploymentError, match="no environment 'nix'; it has default, as-published"):
        load_deployment(ROOT / "template.yaml", "nix")


def test_a_circle_of_conditions(tmp_path: Path) -> None:
    head = "Conditions:\n  A: !Not [!Condition B]\n  B: !Not [!Condition A]\nResources:\n"
    with pytest.raises(DeploymentError, match="circle: A -> B -> A"):
        load(tmp_path, stream("!If [A, x, y]"), head)


names = st.text("abcXYZ019", min_size=1, max_size=8)


@given(st.dictionaries(names, st.text("abc ='-./:", max_size=8), max_size=5))
def test_sams_three_forms_of_overrides_agree(values: dict[str, str]) -> None:
    as_list = [f'{name}="{value}"' for name, value in values.items()]
    assert parse_overrides(" ".join(as_list), "x") == values
    assert parse_overrides(as_list, "x") == parse_overrides(values, "x") == values
