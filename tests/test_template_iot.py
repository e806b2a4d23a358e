"""AWS::IoT::TopicRule in a template: what is understood, what is refused, and that the embedded cloud takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator
from rich.console import Console
from template_files import SAM, fails, load

from simulator.cloud.server import CloudProcess
from simulator.deployment_view import render
from simulator.target import local_target, provision

RULE = """
Parameters:
  Key: {Type: String, Default: "${racerId}"}
Resources:
  Stream: {Type: AWS::Kinesis::Stream, Properties: {Name: bikes-iot, ShardCount: 1}}
  Lost: {Type: AWS::S3::Bucket, Properties: {BucketName: lost-iot}}
  Role:
    Type: AWS::IAM::Role
    Properties: {AssumeRolePolicyDocument: {}}
  Ingest:
    Type: AWS::IoT::TopicRule
    Properties:
      Tags: [{Key: a, Value: b}]
      TopicRulePayload:
        Sql: !Sub "SELECT *, topic(2) AS bike FROM '${AWS::StackName}/+'"
        AwsIotSqlVersion: "2016-03-23"
        Description: bikes in
        RuleDisabled: "true"
        Actions:
          - Kinesis: {StreamName: !Ref Stream, PartitionKey: !Ref Key, RoleArn: !GetAtt Role.Arn}
          - Republish: {Topic: !Sub "copy/${!clientid()}", Qos: "1", RoleArn: !GetAtt Role.Arn}
          - S3: {BucketName: !Ref Lost, Key: "${topic()}", CannedAcl: private, RoleArn: !GetAtt Role.Arn}
        ErrorAction:
          S3: {BucketName: !Ref Lost, Key: "e/${newuuid()}", RoleArn: !GetAtt Role.Arn}
Outputs:
  RuleArn: {Value: !GetAtt Ingest.Arn}
  RuleName: {Value: !Ref Ingest}
"""
ROLE = "arn:aws:iam::123456789012:role/alleycat-Role"
PAYLOAD: dict[str, Any] = {
    "sql": "SELECT *, topic(2) AS bike FROM 'alleycat/+'",
    "awsIotSqlVersion": "2016-03-23",
    "description": "bikes in",
    "ruleDisabled": True,
    "actions": [
        {"kinesis": {"roleArn": ROLE, "streamName": "bikes-iot", "partitionKey": "${racerId}"}},
        {"republish": {"roleArn": ROLE, "topic": "copy/${clientid()}", "qos": 1}},
        {"s3": {"roleArn": ROLE, "bucketName": "lost-iot", "key": "${topic()}", "cannedAcl": "private"}},
    ],
    "errorAction": {"s3": {"roleArn": ROLE, "bucketName": "lost-iot", "key": "e/${newuuid()}"}},
}


def test_a_rule_is_what_create_topic_rule_takes(tmp_path: Path) -> None:
    deployment = load(tmp_path, RULE)
    (rule,) = deployment.topic_rules
    assert (rule.name, rule.arn) == ("alleycat_Ingest", "arn:aws:iot:us-east-1:123456789012:rule/alleycat_Ingest")
    assert rule.payload == PAYLOAD
    assert deployment.outputs == {"RuleArn": rule.arn, "RuleName": rule.name}
    model = botocore.session.get_session().get_service_model("iot").operation_model("CreateTopicRule")
    report = ParamValidator().validate({"ruleName": rule.name, "topicRulePayload": rule.payload}, model.input_shape)
    assert not report.has_errors(), report.generate_report()
    assert {one.what for one in deployment.ignored} == {"Role (AWS::IAM::Role)", "Ingest.Tags"}


def test_the_embedded_cloud_takes_it(tmp_path: Path, cloud: CloudProcess) -> None:
    provision(local_target(cloud, "us-east-1"), load(tmp_path, RULE))
    iot = cloud.client("iot")
    found = iot.get_topic_rule(ruleName="alleycat_Ingest")["rule"]
    assert {name: found[name] for name in PAYLOAD} == PAYLOAD
    iot.delete_topic_rule(ruleName="alleycat_Ingest")
    iot.close()


def test_people_are_shown_it(tmp_path: Path) -> None:
    console = Console(width=140, record=True, file=(tmp_path / "out").open("w"))
    console.print(render(load(tmp_path, RULE)))
    console.file.close()
    shown = console.export_text()
    for line in (
        "alleycat_Ingest    SELECT *, topic(2) AS bike FROM 'alleycat/+' (disabled)",
        "stream bikes-iot, partition key ${racerId}",
        "topic copy/${clientid()}, QoS 1",
        "failures to      s3://lost-iot/e/${newuuid()}",
    ):
        assert line in shown or " ".join(line.split()) in " ".join(shown.split())


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('RuleDisabled: "true"', "RuleDisabled: maybe #<<", "RuleDisabled must be true or false"),
        ('AwsIotSqlVersion: "2016-03-23"', "AwsIotSqlVersion: today #<<", "AwsIotSqlVersion must be 2015-10-08"),
        ("Description: bikes in", "Colour: red #<<", "the property Colour is not supported"),
        ('Qos: "1"', "Qos: 2", "Qos must be a whole number from 0 to 1"),
        ("CannedAcl: private", "CannedAcl: mine", "CannedAcl must be private"),
        ("- Republish: {", "- Lambda: {", "the action Lambda is not supported"),
        ("- Republish: {", "- {} \n          - Republish: {", "an action is one of Kinesis, Republish, S3"),
        ("      TopicRulePayload:\n", "      RuleName: a-b\n      TopicRulePayload:\n", "not a possible RuleName"),
        ("        Sql: !Sub \"SELECT *, topic(2) AS bike FROM '${AWS::StackName}/+'\"\n", "", "Sql is missing"),
    ],
)
def test_mistakes_name_themselves(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in RULE
    fails(tmp_path, RULE.replace(old, new), says)


def test_what_has_no_behaviour_is_listed(tmp_path: Path) -> None:
    text = f"""
{SAM}
Resources:
  Stream: {{Type: AWS::Kinesis::Stream, Properties: {{ShardCount: 1}}}}
  Bike: {{Type: AWS::IoT::Thing, Properties: {{}}}}
  Policy: {{Type: AWS::IoT::Policy, Properties: {{PolicyDocument: {{}}}}}}
  Work:
    Type: AWS::Serverless::Function
    Properties:
      Handler: app.handler
      Runtime: python3.12
      CodeUri: .
      Events:
        Rule: {{Type: IoTRule, Properties: {{Sql: "SELECT * FROM 'a'"}}}}
"""
    ignored = {one.what: one.reason for one in load(tmp_path, text).ignored}
    assert set(ignored) == {"Bike (AWS::IoT::Thing)", "Policy (AWS::IoT::Policy)", "Work.Events.Rule (IoTRule)"}
    assert "any client may connect" in ignored["Bike (AWS::IoT::Thing)"]
