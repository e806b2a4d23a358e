"""Reading templates: nodes and lines, intrinsics, parameters, samconfig, and what each error says and where."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from template_files import STREAM, fails, load, write

from simulator.deployment import ConfigError, DeploymentError, TemplateError, load_deployment
from simulator.template.samconfig import parse_overrides, read_environment

# -- the file ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not a SAM or CloudFormation template: it is empty"),
        (b"# only a comment\n", "it is empty"),
        (b"\x89PNG\r\n\x1a\n\xff\xfe", "not UTF-8 text"),
        (b"Resources:\x00", "not valid YAML"),
        (b"- a\n- b\n", "it needs a mapping named Resources"),
        (b"just words", "it needs a mapping named Resources"),
        (b"Description: x\n", "Resources must be a mapping that is not empty"),
        (b"Resources: []\n", "Resources must be a mapping"),
        (b"#" * 1_000_001, "the template has 1,000,001 bytes"),
        (b"Resources: {a: [1, 2}\n", "t.yaml:1: not valid YAML"),
        (b"a: 1\nb:\n  - x\n c: 3\n", "t.yaml:4: not valid YAML"),
        (b"Resources: {}\n---\nResources: {}\n", "not valid YAML"),
        (b"Resources: " + b"[" * 500 + b"]" * 500, "nested too deeply"),
        (b"Resources: &a {b: *a}\n", "nested too deeply"),
        (b"Resources: {? [a, b] : c}\n", "a key must be plain text"),
        (b"Resources: {A: !!int x}\n", "'x' is not a whole number"),
        (b"Resources: {A: !!python/object:os.system x}\n", "not valid YAML"),
        (b"Resources: {A: !!binary eA==}\n", "!!binary is not supported"),
    ],
)
def test_what_is_not_a_template_gets_one_line(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "t.yaml"
    path.write_bytes(content)
    with pytest.raises(TemplateError) as caught:
        load_deployment(path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_a_folder_and_an_endless_file(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match=r"cannot read the template: No such file.*--template"):
        load_deployment(tmp_path / "none.yaml")
    with pytest.raises(TemplateError, match="is not a file"):
        load_deployment(tmp_path)
    with pytest.raises(TemplateError, match="is not a file"):
        load_deployment(Path("/dev/zero"))


def test_anchors_that_multiply_are_refused_at_once(tmp_path: Path) -> None:
    text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    text += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
    started = time.process_time()
    fails(tmp_path, text + STREAM, "multiply without end")
    assert time.process_time() - started < 5


def test_anchors_and_merge_keys_work_and_keep_their_lines(tmp_path: Path) -> None:
    text = """
    Resources:
      A: &a
        Type: AWS::Kinesis::Stream
        Properties: &p {ShardCount: 1, RetentionPeriodHours: 48}
      B:
        <<: *a
        Properties: {<<: *p, ShardCount: 4}
    """
    a, b = load(tmp_path, text).streams
    assert (a.shard_count, a.retention_hours) == (1, 48)
    assert (b.shard_count, b.retention_hours) == (4, 48)


def test_a_byte_order_mark_is_no_trouble(tmp_path: Path) -> None:
    assert load(tmp_path, "\ufeff" + STREAM).streams


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Resources:\n  A: {Type: x}\n  A: {Type: y}  #<<\n", "the key A is given twice"),
        (STREAM + "      Name:  #<<\n", "null values are not allowed"),
        (STREAM + "Resuorces: {}  #<<\n", "did you mean Resources?"),
        (STREAM + "Zzz: {}  #<<\n", "sections are Parameters"),
        (STREAM + "Outputs: []  #<<\n", "Outputs must be a mapping"),
        (STREAM + "Transform: My::Macro  #<<\n", "the transform My::Macro is not supported"),
        (STREAM + "Fn::Transform: {Name: x}  #<<\n", "Fn::Transform is not supported"),
        (STREAM + "  F:\n    Type: AWS::Serverless::Function  #<<\n", "add Transform: AWS::Serverless-2016-10-31"),
        (STREAM + "Globals: {Fucntion: {}}  #<<\n", "Globals has no section Fucntion"),
        (STREAM + "  Fn::ForEach::Each: [a, [b], {}]  #<<\n", "Fn::ForEach::Each is not supported"),
        (STREAM + "  B: 3  #<<\n", "B must be a mapping with a Type"),
        (STREAM + "  B: {Properties: {}}  #<<\n", "B has no Type"),
        (STREAM + "  B:\n    Type: AWS::S3::Bucket\n    Propertes: {}  #<<\n", "did you mean Properties?"),
        (STREAM + "  B:\n    Type: AWS::S3::Bucket\n    Properties: text  #<<\n", "Properties must be a mapping"),
        (STREAM + "  B:\n    Type: AWS::S3::Bucket\n    DependsOn: C  #<<\n", "DependsOn names no resource: C"),
        (STREAM + "  B:\n    Type: AWS::S3::Bucket\n    Condition: C  #<<\n", "there is no condition C"),
        (
            STREAM + "  T:  #<<\n    Type: AWS::Events::Rule\n",
            "AWS::Events::Rule is not supported; remove it, or use one",
        ),
        (STREAM + "Outputs:\n  X: {Description: x}  #<<\n", "the output X has no Value"),
    ],
)
def test_errors_of_the_frame_name_their_line(tmp_path: Path, text: str, says: str) -> None:
    fails(tmp_path, text, says)


def test_an_unsupported_type_lists_the_supported_ones(tmp_path: Path) -> None:
    error = fails(
        tmp_path, "Resources:\n  T:  #<<\n    Type: AWS::Events::Rule\n", "T: the resource type AWS::Events::Rule"
    )
    for kind in ("AWS::Kinesis::Stream", "AWS::Serverless::SimpleTable", "AWS::Lambda::EventSourceMapping"):
        assert kind in error.advice


# -- intrinsics ----------------------------------------------------------------------------------------

FRAME = """
Parameters:
  Size: {Type: Number, Default: 3}
  Flag: {Type: String, Default: "true"}
  Names: {Type: CommaDelimitedList, Default: "a, b,c"}
Mappings:
  Regions: {us-east-1: {Zone: use1, Codes: [x, y]}}
Conditions:
  Big: !Not [!Equals [!Ref Size, 1]]
  On: !Equals [!Ref Flag, "true"]
  Both: !And [Condition: Big, !Condition On]
  Either: !Or [!Equals [a, b], !Condition Big]
  Never: !And [!Condition Both, !Not [!Condition Either]]
Resources:
  Stream: {Type: AWS::Kinesis::Stream, Properties: {ShardCount: !Ref Size, Name: races}}
  Table:
    Type: AWS::DynamoDB::Table
    Properties:
      BillingMode: PAY_PER_REQUEST
      KeySchema: [{AttributeName: PK, KeyType: HASH}]
      AttributeDefinitions: [{AttributeName: PK, AttributeType: S}]
      StreamSpecification: {StreamViewType: KEYS_ONLY}
  Bucket: {Type: AWS::S3::Bucket}
  Queue: {Type: AWS::SQS::Queue}
  Topic: {Type: AWS::SNS::Topic}
  Fan: {Type: AWS::Kinesis::StreamConsumer, Properties: {ConsumerName: fan, StreamARN: !GetAtt Stream.Arn}}
  Absent: {Type: AWS::S3::Bucket, Condition: Never}
  Role: {Type: AWS::IAM::Role}
Outputs:
  Out: {Value: %s}
"""


def value_of(folder: Path, expression: str, **arguments: Any) -> Any:
    return load(folder, FRAME % expression, **arguments).outputs.get("Out")


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("!Ref Size", 3),
        ("!Ref Names", ["a", "b", "c"]),
        ("!Ref Stream", "races"),
        ("{Ref: Stream}", "races"),
        ("!GetAtt Stream.Arn", "arn:aws:kinesis:us-east-1:123456789012:stream/races"),
        ("!GetAtt [Stream, Arn]", "arn:aws:kinesis:us-east-1:123456789012:stream/races"),
        ("{Fn::GetAtt: Stream.Arn}", "arn:aws:kinesis:us-east-1:123456789012:stream/races"),
        ("!Ref Table", "alleycat-Table"),
        ("!GetAtt Table.StreamArn", "arn:aws:dynamodb:us-east-1:123456789012:table/alleycat-Table/stream/latest"),
        ("!Ref Bucket", "alleycat-bucket"),
        ("!GetAtt Bucket.Arn", "arn:aws:s3:::alleycat-bucket"),
        ("!GetAtt Bucket.DomainName", "alleycat-bucket.s3.amazonaws.com"),
        ("!GetAtt Bucket.RegionalDomainName", "alleycat-bucket.s3.us-east-1.amazonaws.com"),
        ("!Ref Queue", "https://sqs.us-east-1.amazonaws.com/123456789012/alleycat-Queue"),
        ("!GetAtt Queue.Arn", "arn:aws:sqs:us-east-1:123456789012:alleycat-Queue"),
        ("!GetAtt Queue.QueueName", "alleycat-Queue"),
        ("!Ref Topic", "arn:aws:sns:us-east-1:123456789012:alleycat-Topic"),
        ("!GetAtt Topic.TopicArn", "arn:aws:sns:us-east-1:123456789012:alleycat-Topic"),
        ("!GetAtt Topic.TopicName", "alleycat-Topic"),
        ("!Ref Fan", "arn:aws:kinesis:us-east-1:123456789012:stream/races/consumer/fan:0"),
        ("!GetAtt Fan.ConsumerARN", "arn:aws:kinesis:us-east-1:123456789012:stream/races/consumer/fan:0"),
        ("!GetAtt Fan.ConsumerName", "fan"),
        ("!GetAtt Fan.StreamARN", "arn:aws:kinesis:us-east-1:123456789012:stream/races"),
        ("!GetAtt Role.Arn", "arn:aws:iam::123456789012:role/alleycat-Role"),
        ("!Ref AWS::Region", "us-east-1"),
        ("!Ref AWS::AccountId", "123456789012"),
        ("!Ref AWS::Partition", "aws"),
        ("!Ref AWS::StackName", "alleycat"),
        ("!Ref AWS::URLSuffix", "amazonaws.com"),
        ("!Ref AWS::NoValue", None),
        ("!Sub '${Stream}-${Size}-${AWS::Region}'", "races-3-us-east-1"),
        ("!Sub '${Stream.Arn}/x'", "arn:aws:kinesis:us-east-1:123456789012:stream/races/x"),
        ("!Sub '${!Stream} costs $5 {x}'", "${Stream} costs $5 {x}"),
        ("!Sub ['${x}${Size}${!x}', {x: !Join ['', [a, '${Size}']]}]", "a${Size}3${x}"),
        ("{Fn::Sub: '${ Size }'}", "3"),
        ("!Join ['-', [a, !Ref Size, !Ref Stream]]", "a-3-races"),
        ("!Join [',', !Ref Names]", "a,b,c"),
        ("!Join ['+', [a, !Ref AWS::NoValue, b]]", "a+b"),
        ("!Select [1, !Ref Names]", "b"),
        ("!Select ['2', [x, y, z]]", "z"),
        ("!Select [1, !Split ['|', 'a|b|c']]", "b"),
        ("!Split [',', 'a,,b']", ["a", "", "b"]),
        ("!FindInMap [Regions, !Ref AWS::Region, Zone]", "use1"),
        ("!Select [1, !FindInMap [Regions, us-east-1, Codes]]", "y"),
        ("!If [Both, yes-both, no]", "yes-both"),
        ("!If [Never, !GetAtt Absent.Arn, other]", "other"),
        ("!If [Either, !If [Never, 1, 2], 3]", 2),
        ("!If [Never, x, !Ref AWS::NoValue]", None),
        ("[1, !If [Never, 2, !Ref AWS::NoValue], 3]", [1, 3]),
        ("{a: !Ref AWS::NoValue, b: 1}", {"b": 1}),
        ("'0123456789012'", "0123456789012"),
        ("2010-09-09", "2010-09-09"),
    ],
)
def test_intrinsics(tmp_path: Path, expression: str, value: Any) -> None:
    assert value_of(tmp_path, expression) == value


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("!Ref Strem", "there is no parameter or resource Strem"),
        ("!Ref AWS::Regoin", "there is no pseudo parameter AWS::Regoin"),
        ("!Ref [a]", "Ref takes a name"),
        ("!Ref Absent", "Absent is not there, its condition Never is false"),
        ("!Sub '${Absent.Arn}'", "Absent is not there"),
        ("!GetAtt Stream.Name", "Stream (AWS::Kinesis::Stream) has no attribute Name; it has Arn"),
        ("!GetAtt Stream", "GetAtt takes a logical id and an attribute"),
        ("!GetAtt Nope.Arn", "there is no parameter or resource Nope"),
        ("!Sub '${Nope}'", "there is no parameter or resource Nope"),
        ("!Sub '${AWS::NoValue}'", "Sub takes text, not AWS::NoValue"),
        ("!Sub '${Names}'", "Sub takes text, not a list"),
        ("!Sub [a]", "Sub takes a string, or a string and a mapping"),
        ("!Join [a]", "Join takes two arguments"),
        ("!Join [a, b]", "Join takes a separator and a list"),
        ("!Join ['', [[a], b]]", "Join takes text, not a list"),
        ("!Split ['', abc]", "Split takes a separator and a text"),
        ("!Select [3, !Ref Names]", "Select cannot take item 3 of 3"),
        ("!Select [-1, !Ref Names]", "Select cannot take item -1 of 3"),
        ("!Select [0, text]", "Select takes an index and a list"),
        (
            "!FindInMap [Regions, eu-west-1, Zone]",
            "FindInMap finds nothing under eu-west-1; Mappings has us-east-1 there",
        ),
        ("!FindInMap [Regions, us-east-1]", "FindInMap takes a mapping's name and two keys"),
        ("!If [Nope, a, b]", "there is no condition Nope"),
        ("!If [Both, a]", "If takes a condition's name and two values"),
        ("!If [!Equals [a, a], a, b]", "If takes a condition's name and two values"),
        ("!And [!Condition Big]", "And takes 2 to 10 conditions"),
        ("!Not [!Condition Big, !Condition On]", "Not takes one condition in a list"),
        ("!Or [maybe, !Condition On]", "a condition must be true or false, not 'maybe'"),
        ("!ImportValue other-stack", "the intrinsic function Fn::ImportValue is not supported; supported are Ref,"),
        ("!Base64 text", "the intrinsic function Fn::Base64 is not supported"),
        ("{Fn::Transform: {Name: x}}", "the intrinsic function Fn::Transform is not supported"),
        ("{Fn::Sub: a, Other: b}", "Fn::Sub must stand alone in its mapping"),
        ("!Nonsense x", "the intrinsic function Fn::Nonsense is not supported"),
    ],
)
def test_intrinsic_errors_name_their_line(tmp_path: Path, expression: str, says: str) -> None:
    fails(tmp_path, (FRAME % expression).rstrip() + "  #<<\n", says)


def test_pseudo_parameters_follow_place_and_stack(tmp_path: Path) -> None:
    write(tmp_path, '[default.global.parameters]\nstack_name = "club"\n', "samconfig.toml")
    expression = (
        "!Sub '${AWS::StackName} ${AWS::Partition} ${AWS::URLSuffix} ${AWS::Region} ${AWS::AccountId} ${Table}'"
    )
    found = value_of(tmp_path, expression, region="cn-north-1", account_id="000000000001")
    assert found == "club aws-cn amazonaws.com.cn cn-north-1 000000000001 club-Table"


def test_conditions_that_need_each_other_are_a_circle(tmp_path: Path) -> None:
    text = STREAM + "Conditions:\n  A: !Not [!Condition B]\n  B: !Not [!Condition A]  #<<\n"
    fails(tmp_path, text, "conditions refer to each other in a circle: A -> B -> A")


@pytest.mark.parametrize(
    ("text", "circle"),
    [
        (
            """
            Resources:
              A: {Type: AWS::S3::Bucket, Properties: {BucketName: !Sub "x-${B}"}}
              B: {Type: AWS::S3::Bucket, Properties: {BucketName: !Ref A}}  #<<
            """,
            "B -> A -> B",
        ),
        (
            """
            Transform: AWS::Serverless-2016-10-31
            Globals: {Function: {Handler: a.b, Runtime: python3.12}}
            Resources:
              A:
                Type: AWS::Serverless::Function
                Properties: {Environment: {Variables: {NEXT: !Ref B}}}
              B:
                Type: AWS::Serverless::Function
                Properties: {Environment: {Variables: {NEXT: !GetAtt C.Arn}}}
              C:
                Type: AWS::S3::Bucket
                DependsOn: [A]  #<<
            """,
            "A -> B -> C -> A",
        ),
    ],
)
def test_resources_that_need_each_other_are_a_circle(tmp_path: Path, text: str, circle: str) -> None:
    fails(tmp_path, text, f"resources refer to each other in a circle: {circle}")


# -- parameters ----------------------------------------------------------------------------------------


def parameter(declaration: str) -> str:
    return f"Parameters:\n  P: {declaration}\n{STREAM}"


@pytest.mark.parametrize(
    ("declaration", "given_text", "value"),
    [
        ("{Type: Number}", "7", 7),
        ("{Type: Number}", "-2.5", -2.5),
        ("{Type: Number}", "1e3", 1000.0),
        ("{Type: Number, MinValue: 0, MaxValue: 10}", "10", 10),
        ("{Type: Number, AllowedValues: [1, 2]}", "2.0", 2.0),
        ("{Type: String}", "007", "007"),
        ("{Type: String, MinLength: 2, MaxLength: 3, AllowedPattern: '[a-z]+'}", "abc", "abc"),
        ("{Type: CommaDelimitedList, AllowedValues: [a, b]}", "a, b,a", ["a", "b", "a"]),
        ("{Type: CommaDelimitedList}", "", []),
        ("{Type: List<Number>}", "1, 2.5", [1, 2.5]),
        ("{Type: AWS::EC2::VPC::Id}", "vpc-1", "vpc-1"),
    ],
)
def test_parameter_values(tmp_path: Path, declaration: str, given_text: str, value: Any) -> None:
    found = load(tmp_path, parameter(declaration), overrides={"P": given_text}).parameters["P"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("declaration", "given_text", "says"),
    [
        ("{Type: Number}", "many", "'many' is not a number"),
        ("{Type: Number}", "nan", "'nan' is not a number"),
        ("{Type: Number}", "1e999", "'1e999' is not a number"),
        ("{Type: Number}", "1_000", "'1_000' is not a number"),
        ("{Type: Number}", "٣", "'٣' is not a number"),
        ("{Type: Number}", "", "'' is not a number"),
        ("{Type: Number, MinValue: 1}", "0", "'0' is less than 1"),
        ("{Type: Number, MaxValue: 1.5}", "2", "'2' is more than 1.5"),
        ("{Type: Number, AllowedValues: [1, 2]}", "3", "'3' is not one of 1, 2"),
        ("{Type: String, AllowedValues: [on, 'off']}", "of", "'of' is not one of true, off"),
        ("{Type: String, MinLength: 2}", "a", "'a' is shorter than 2 characters"),
        ("{Type: String, MaxLength: 2}", "abc", "'abc' is longer than 2 characters"),
        ("{Type: String, AllowedPattern: '[a-z]+'}", "abc1", "'abc1' does not match [a-z]+"),
        ("{Type: String, AllowedPattern: a, ConstraintDescription: say a}", "b", "does not match a; say a"),
        ("{Type: List<Number>}", "1,x", "'1,x' is not a number"),
        ("{Type: CommaDelimitedList, AllowedValues: [a]}", "a,b", "is not one of a"),
        ("{Type: String, NoEcho: true, MaxLength: 2}", "hunter2", "override): **** is longer than 2"),
    ],
)
def test_refused_values_say_why_and_where_declared(
    tmp_path: Path, declaration: str, given_text: str, says: str
) -> None:
    path = write(tmp_path, parameter(declaration))
    with pytest.raises(ConfigError) as caught:
        load_deployment(path, overrides={"P": given_text})
    assert says in str(caught.value)
    assert f"(declared at {path}:2)" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("declaration", "says"),
    [
        ("{Type: Number, Default: x}", "parameter P refuses its own Default: 'x' is not a number"),
        ("{Type: Number, Default: 1, MinValue: x}", "parameter P takes a number as MinValue, not 'x'"),
        ("{Type: String, Default: a, AllowedPattern: '('}", "AllowedPattern that is not a pattern"),
        ("{Type: String, Default: a, AllowedValues: a}", "takes a list as AllowedValues"),
        ("{Type: String, Default: [a]}", "takes a text or a number as Default"),
        ("{Type: Integer, Default: 1}", "cannot have the Type Integer; types are String, Number"),
        ("{Default: 1}", "cannot have the Type missing"),
        ("{Type: 'AWS::SSM::Parameter::Value<String>', Default: /x}", "use String and give the value itself"),
        ("{Type: String, Defualt: 1}", "has no member Defualt"),
        ("{Type: String}", "parameter P has no value; give one with --set P=VALUE"),
        ("text", "parameter P must be a mapping with a Type"),
    ],
)
def test_malformed_declarations_name_their_line(tmp_path: Path, declaration: str, says: str) -> None:
    fails(tmp_path, parameter(declaration + "  #<<"), says)


def test_an_unknown_override_names_near_ones_and_all(tmp_path: Path) -> None:
    path = write(
        tmp_path, "Parameters: {ShardCount: {Type: Number, Default: 1}, Zz: {Type: String, Default: a}}" + STREAM
    )
    with pytest.raises(ConfigError, match=r"no parameter shards; did you mean ShardCount\? there are ShardCount, Zz"):
        load_deployment(path, overrides={"shards": "2"})
    with pytest.raises(ConfigError, match=r"no parameter Qqqq; there are ShardCount, Zz"):
        load_deployment(path, overrides={"Qqqq": "2"})
    write(tmp_path, '[default.deploy.parameters]\nparameter_overrides = "ShardCuont=1"\n', "samconfig.toml")
    with pytest.raises(ConfigError, match=r"samconfig.toml \[default\]: there is no parameter ShardCuont"):
        load_deployment(path)


# -- samconfig -----------------------------------------------------------------------------------------

PARAMETERS = "Parameters: {A: {Type: String, Default: d}, B: {Type: String, Default: d}, C: {Type: String, Default: d}}"


def test_override_beats_samconfig_beats_default_and_deploy_beats_global(tmp_path: Path) -> None:
    config = """
    version = 0.1
    [prod.global.parameters]
    stack_name = "global"
    parameter_overrides = "A=global B=global"
    [prod.deploy.parameters]
    stack_name = "league"
    parameter_overrides = ["B=deploy"]
    """
    write(tmp_path, config, "samconfig.toml")
    found = load(tmp_path, PARAMETERS + STREAM, config_env="prod", overrides={"A": "set"})
    assert found.parameters == {"A": "set", "B": "deploy", "C": "d"}
    assert found.origins == {"A": "override", "B": "samconfig.toml [prod]", "C": "default"}
    assert found.stack_name == "league"
    assert found.streams[0].name == "league-Stream"


@pytest.mark.parametrize(
    ("overrides", "value"),
    [
        ("A=1", {"A": "1"}),
        ("A=1 B=2", {"A": "1", "B": "2"}),
        ('A=1   B="x y"  C=z', {"A": "1", "B": "x y", "C": "z"}),
        ("A='x y'", {"A": "x y"}),
        (r"A=x\ y", {"A": "x y"}),
        (r'A="say \"hi\" = yes"', {"A": 'say "hi" = yes'}),
        ('A=""', {"A": ""}),
        ("A=a=b,c", {"A": "a=b,c"}),
        ("A=it's", {"A": "it's"}),
        ("ParameterKey=A,ParameterValue=1 ParameterKey=B,ParameterValue='2 3'", {"A": "1", "B": "2 3"}),
        ('"A"="1"', {"A": "1"}),
        (["A=1", "B=x=y"], {"A": "1", "B": "x=y"}),
        (['A="x y"', "B=2 C=3"], {"A": "x y", "B": "2", "C": "3"}),
        ({"A": 1, "B": True, "C": ["x", "y"]}, {"A": "1", "B": "true", "C": "x,y"}),
        ("", {}),
        ([], {}),
    ],
)
def test_the_forms_of_overrides(overrides: Any, value: dict[str, str]) -> None:
    assert parse_overrides(overrides, "here") == value


@pytest.mark.parametrize(
    ("overrides", "word"),
    [
        ("A", "'A'"),
        ("A=1 B", "'B'"),
        ("A=", "'A='"),
        ("=1", "'=1'"),
        ("My_Name=1", "'My_Name=1'"),
        (["A=x y"], "'y'"),  # SAM reads x and drops y
        ("A=1\nB=2", "after 'A=1' there is a tab or a line break"),  # SAM reads one value of two lines
        ('A="x', "'A=\"x'"),
        ('A="x"y', "'A=\"x\"y'"),
        ({"A": {"b": 1}}, "A must be a text or a number"),
        (3, "a text or a list of texts"),
        ([1], "a text or a list of texts"),
    ],
)
def test_malformed_overrides_name_the_word(overrides: Any, word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_overrides(overrides, "here")
    assert str(caught.value).startswith("here: ")
    assert word in str(caught.value)


NAMES = st.text("ABCXYZabcxyz019", min_size=1, max_size=8)
# A backslash only escapes a space or a quote, so values with one cannot be written in every form.
VALUES = st.text(st.characters(exclude_characters="\\\0", exclude_categories=("Cs",)), max_size=20)
OVERRIDES = st.dictionaries(NAMES, VALUES, max_size=6)


def quoted(value: str) -> str:
    return '"' + value.replace('"', '\\"') + '"'


@given(OVERRIDES, st.sampled_from([" ", "   "]))
def test_any_quoted_value_survives_as_one_text(overrides: dict[str, str], gap: str) -> None:
    text = gap.join(f"{name}={quoted(value)}" for name, value in overrides.items())
    assert parse_overrides(text, "here") == overrides


@given(OVERRIDES)
def test_the_forms_agree(overrides: dict[str, str]) -> None:
    listed = [f"{name}={quoted(value)}" for name, value in overrides.items()]
    keyed = " ".join(f"ParameterKey={name},ParameterValue={quoted(value)}" for name, value in overrides.items())
    assert parse_overrides(listed, "here") == parse_overrides(keyed, "here") == parse_overrides(overrides, "here")


@given(st.one_of(st.text(max_size=40), st.text("AB=' \"\\,1", max_size=40), st.lists(st.text(max_size=10))))
def test_any_text_is_parsed_wholly_or_refused(text: str | list[str]) -> None:
    try:
        found = parse_overrides(text, "here")
    except ConfigError:
        return
    whole = text if isinstance(text, str) else " ".join(text)
    assert all(name.isalnum() for name in found)
    assert bool(found) == bool(whole.strip())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("version = ", "not valid TOML"),
        ("[default.deploy]\nparameters = 3\n", "parameters must be a table"),
        ("[default]\ndeploy = 3\n", "deploy must be a table"),
        ("[default.deploy.parameters]\nparameter_overrides = 3\n", "[default.deploy.parameters]: parameter_overrides"),
        ("[default.deploy.parameters]\nstack_name = 3\n", "stack_name must be a text, not 3"),
    ],
)
def test_malformed_samconfig(tmp_path: Path, content: str, says: str) -> None:
    path = write(tmp_path, content, "samconfig.toml")
    with pytest.raises(ConfigError) as caught:
        read_environment(path, "default")
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


def test_environments_that_are_not_there(tmp_path: Path) -> None:
    path = tmp_path / "samconfig.toml"
    assert read_environment(path, "default").overrides == {}
    with pytest.raises(ConfigError, match=r"there is no .*samconfig.toml, so no environment 'prod'"):
        read_environment(path, "prod")
    with pytest.raises(ConfigError, match="there is no "):
        read_environment(path, "default", required=True)
    write(tmp_path, "version = 0.1\n[default.deploy.parameters]\n[race-day.deploy.parameters]\n", "samconfig.toml")
    assert read_environment(path, "race-day").overrides == {}
    with pytest.raises(
        ConfigError, match=r"no environment 'raceday'; did you mean race-day\? it has default, race-day"
    ):
        read_environment(path, "raceday")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        read_environment(path, "default")
    with pytest.raises(ConfigError, match="cannot read"):
        read_environment(tmp_path, "default")


def test_every_error_is_a_deployment_error() -> None:
    assert issubclass(TemplateError, DeploymentError)
    assert issubclass(ConfigError, DeploymentError)
    error = TemplateError("the property X is not supported", Path("template.yaml"), 41, "remove it")
    assert str(error) == "template.yaml:41: the property X is not supported; remove it"
    assert (error.file, error.line, error.advice) == (Path("template.yaml"), 41, "remove it")
    assert str(TemplateError("it is empty", Path("t"), 0)) == "t: it is empty"
