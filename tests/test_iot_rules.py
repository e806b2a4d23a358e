"""The rules engine with the clock in hand, and its control plane as boto3 speaks it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import botocore.parsers
import botocore.session
import pytest
from botocore.serialize import create_serializer
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.cloud.errors import AwsError
from simulator.cloud.iot_rules import REPUBLISH_MAX_DEPTH, Failure, Message, RuleEngine, basic_ingest
from simulator.cloud.iot_rules_api import RulesApi
from simulator.cloud.limits import LimitSettings
from simulator.cloud.metrics import Metrics

ROLE = "arn:aws:iam::123456789012:role/r"
THROTTLED = Failure("ProvisionedThroughputExceededException", "Rate exceeded for shard shardId-000000000000.", True)
GONE = Failure("ResourceNotFoundException", "Stream s under account 123456789012 not found.")


@dataclass
class Bench:
    """An engine, what it did, and a clock that only moves when told."""

    now: float = 1_000.0
    records: list[tuple[str, bytes, str]] = field(default_factory=list)
    published: list[Message] = field(default_factory=list)
    objects: list[tuple[str, str, bytes, str | None]] = field(default_factory=list)
    put_answers: list[Failure | None] = field(default_factory=list)
    object_answers: list[Failure | None] = field(default_factory=list)
    timers: list[tuple[float, Callable[[], None]]] = field(default_factory=list)
    loops: bool = False

    def __post_init__(self) -> None:
        self.metrics = Metrics()
        self.engine = self.new()

    def new(self, settings: LimitSettings | None = None) -> RuleEngine:
        return RuleEngine(
            "us-east-1", "123456789012", self.metrics, settings or LimitSettings(), self, lambda: self.now, self.later
        )

    def later(self, delay_s: float, callback: Callable[[], None]) -> None:
        self.timers.append((self.now + delay_s, callback))

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while self.timers and min(at for at, _ in self.timers) <= end:
            timer = min(self.timers, key=lambda one: one[0])
            self.timers.remove(timer)
            self.now = timer[0]
            timer[1]()
        self.now = end

    def put_record(self, region: str, stream: str, data: bytes, partition_key: str, now: float) -> Failure | None:
        answer = self.put_answers.pop(0) if self.put_answers else None
        if answer is None:
            self.records.append((stream, data, partition_key))
        return answer

    def republish(self, message: Message, now: float) -> None:
        self.published.append(message)
        if self.loops:
            self.engine.handle(message, now)

    def put_object(
        self, region: str, bucket: str, key: str, body: bytes, acl: str | None, done: Callable[[Failure | None], None]
    ) -> None:
        answer = self.object_answers.pop(0) if self.object_answers else None
        if answer is None:
            self.objects.append((bucket, key, body, acl))
        done(answer)

    def rule(self, name: str = "r", sql: str = "SELECT * FROM 'bikes/#'", **more: Any) -> None:
        actions = more.pop("actions", [kinesis()])
        self.engine.create(name, {"sql": sql, "awsIotSqlVersion": "2016-03-23", "actions": actions, **more}, self.now)

    def send(self, payload: Any = None, topic: str = "bikes/101", client_id: str = "bike-101") -> None:
        body = payload if isinstance(payload, bytes) else json.dumps(payload or {"racerId": 101}).encode()
        self.engine.handle(Message(topic, body, client_id, int(self.now * 1000)), self.now)

    def total(self, name: str, **dimensions: str) -> float:
        return self.metrics.total("AWS/IoT", name, tuple(dimensions.items()) if dimensions else None)


def kinesis(key: str = "${racerId}") -> dict[str, Any]:
    return {"kinesis": {"roleArn": ROLE, "streamName": "alleycat", "partitionKey": key}}


def s3(key: str = "${topic()}/${timestamp()}.json") -> dict[str, Any]:
    return {"s3": {"roleArn": ROLE, "bucketName": "lost", "key": key}}


def republish(topic: str, qos: int = 0) -> dict[str, Any]:
    return {"republish": {"roleArn": ROLE, "topic": topic, "qos": qos}}


@pytest.fixture
def bench() -> Bench:
    return Bench()


# -- actions -------------------------------------------------------------------------------------------


def test_a_message_is_one_put_record_with_the_key_of_its_template(bench: Bench) -> None:
    bench.rule()
    bench.send({"racerId": 7})
    bench.send(b"\xff binary")
    bench.send({"racerId": 8}, topic="cars/8")
    assert bench.records == [("alleycat", b'{"racerId": 7}', "7"), ("alleycat", b"\xff binary", "undefined")]
    assert bench.total("TopicMatch", RuleName="r") == 2
    assert bench.total("Success", RuleName="r", ActionType="Kinesis") == 2
    assert bench.total("RulesExecuted") == 2


def test_templates_are_in_the_version_of_their_rule(bench: Bench) -> None:
    """What a version of the SQL does not have, the rule's templates do not have either."""
    newer = [kinesis("${numbytes(racerId)}")]
    bench.engine.create(
        "new", {"sql": "SELECT * FROM 'bikes/#'", "awsIotSqlVersion": "2016-03-23", "actions": newer}, 0.0
    )
    with pytest.raises(AwsError, match="2016-03-23 or later"):
        bench.engine.create("old", {"sql": "SELECT * FROM 'bikes/#'", "actions": newer}, 0.0)


def test_every_matching_rule_runs_and_a_disabled_one_does_not(bench: Bench) -> None:
    bench.rule("a")
    bench.rule("b", "SELECT racerId, topic(2) AS bike FROM 'bikes/+' WHERE racerId > 5", actions=[kinesis("k"), s3()])
    bench.rule("c", ruleDisabled=True)
    bench.send({"racerId": 7})
    bench.send({"racerId": 3})
    assert [data for _, data, _ in bench.records] == [
        b'{"racerId": 7}',
        b'{"racerId":7,"bike":"101"}',
        b'{"racerId": 3}',
    ]
    assert bench.objects == [("lost", "bikes/101/1000000.json", b'{"racerId":7,"bike":"101"}', None)]
    assert bench.total("TopicMatch", RuleName="b") == 2
    assert bench.total("TopicMatch", RuleName="c") == 0
    assert bench.total("Success", RuleName="b", ActionType="S3") == 1


def test_a_payload_that_cannot_be_parsed_is_counted(bench: Bench) -> None:
    bench.rule("a", "SELECT *, topic(2) AS bike FROM 'bikes/#'")
    bench.send(b"no json")
    assert not bench.records
    assert bench.total("ParseError", RuleName="a") == 1


def test_a_throttled_action_is_tried_again_and_then_succeeds(bench: Bench) -> None:
    bench.rule(errorAction=s3())
    bench.put_answers = [THROTTLED, THROTTLED]
    bench.send({"racerId": 7})
    assert not bench.records
    bench.advance(0.16)
    assert not bench.records
    bench.advance(0.4)
    assert bench.records == [("alleycat", b'{"racerId": 7}', "7")]
    assert not bench.objects
    assert bench.total("Success", RuleName="r", ActionType="Kinesis") == 1
    assert bench.total("Failure") == 0


def test_the_error_action_gets_what_aws_documents(bench: Bench) -> None:
    bench.rule(actions=[kinesis(), republish("good/${racerId}")], errorAction=s3("errors/${clientid()}"))
    bench.put_answers = [THROTTLED] * 3
    bench.send({"racerId": 7})
    bench.advance(5)
    assert not bench.records
    assert [one.topic for one in bench.published] == ["good/7"]
    ((bucket, key, body, _),) = bench.objects
    assert (bucket, key) == ("lost", "errors/bike-101")
    told = json.loads(body)
    assert len(told.pop("cloudwatchTraceId")) == 36
    assert base64.b64decode(told.pop("base64OriginalPayload")) == b'{"racerId": 7}'
    assert told == {
        "ruleName": "r",
        "topic": "bikes/101",
        "clientId": "bike-101",
        "failures": [
            {
                "failedAction": "KinesisAction",
                "failedResource": "alleycat",
                "errorMessage": "Rate exceeded for shard shardId-000000000000. "
                "(Error code: ProvisionedThroughputExceededException)",
            }
        ],
    }
    assert bench.total("Failure", RuleName="r", ActionType="Kinesis") == 1
    assert bench.total("ErrorActionSuccess", RuleName="r", ActionType="S3") == 1


def test_one_error_action_for_all_failures_of_a_message(bench: Bench) -> None:
    bench.rule(actions=[kinesis(), kinesis("x" * 300), s3()], errorAction=republish("errors"))
    bench.put_answers = [GONE]
    bench.object_answers = [Failure("NoSuchBucket", "The bucket does not exist")]
    bench.send()
    (told,) = [json.loads(one.payload) for one in bench.published]
    assert [one["failedAction"] for one in told["failures"]] == ["KinesisAction", "KinesisAction", "S3Action"]
    assert "300 characters" in told["failures"][1]["errorMessage"]
    assert not bench.timers, "what cannot succeed is not tried again"


def test_an_error_action_that_fails_is_tried_again_and_counted(bench: Bench) -> None:
    bench.rule(errorAction=s3())
    bench.put_answers = [GONE]
    bench.object_answers = [Failure("SlowDown", "", True)] * 3
    bench.send()
    bench.advance(5)
    assert bench.total("ErrorActionFailure", RuleName="r", ActionType="S3") == 1
    assert not bench.objects


@given(st.lists(st.lists(st.sampled_from([None, THROTTLED, GONE]), max_size=6), min_size=1, max_size=8))
@settings(max_examples=80, deadline=None)
def test_every_message_ends_on_the_stream_or_in_the_error_action(fates: list[list[Failure | None]]) -> None:
    bench = Bench()
    bench.rule(errorAction=s3("${racerId}"))
    for number, fate in enumerate(fates):
        bench.put_answers = list(fate)
        bench.send({"racerId": number})
        bench.advance(10)
    on_stream = {key for _, _, key in bench.records}
    failed = {key for _, key, _, _ in bench.objects}
    assert on_stream | failed == {str(number) for number in range(len(fates))}
    assert not on_stream & failed
    assert len(bench.records) + len(bench.objects) == len(fates)


# -- Republish, Basic Ingest, rates --------------------------------------------------------------------


def test_republishing_in_a_circle_ends(bench: Bench) -> None:
    bench.loops = True
    bench.rule(sql="SELECT * FROM 'a'", actions=[republish("a", 1)])
    bench.send(topic="a")
    assert len(bench.published) == REPUBLISH_MAX_DEPTH
    assert bench.total("Failure", RuleName="r", ActionType="Republish") == 1


@pytest.mark.parametrize("topic", ["a/+", "", "$aws/things/x", "x/" * 9, "${missing}/#"])
def test_a_topic_that_nobody_can_publish_to_is_a_failure(bench: Bench, topic: str) -> None:
    bench.rule(actions=[republish(topic)])
    bench.send()
    assert not bench.published
    assert bench.total("Failure", RuleName="r", ActionType="Republish") == 1


def test_basic_ingest_reaches_its_rule_alone(bench: Bench) -> None:
    bench.rule("r", "SELECT *, topic() AS t FROM 'other'")
    bench.rule("s", "SELECT * FROM '#'")
    bench.send({"racerId": 1}, topic="$aws/rules/r/bikes/1")
    assert bench.records == [("alleycat", b'{"racerId":1,"t":"bikes/1"}', "1")]
    bench.send(topic="$aws/rules/nobody/x")
    assert bench.total("RuleNotFound", RuleName="nobody") == 1
    assert basic_ingest("$aws/rules/r/a/b") == ("r", "a/b")
    assert basic_ingest("a/b") is None


def test_rule_evaluations_have_a_rate(bench: Bench) -> None:
    bench.rule()
    for _ in range(20_050):
        bench.send(b"{}")
    assert len(bench.records) == 20_000
    assert bench.total("RuleExecutionThrottled", RuleName="r") == 50
    bench.engine = bench.new(LimitSettings(enforced=False))
    bench.rule()
    for _ in range(20_050):
        bench.send(b"{}")
    assert len(bench.records) == 40_050


# -- the control plane ---------------------------------------------------------------------------------


class Client:
    """boto3's serializer and parser around the API, without a socket."""

    def __init__(self, bench: Bench) -> None:
        self._api = RulesApi(bench.engine, lambda: bench.now)
        self._model = botocore.session.get_session().get_service_model("iot")

    def __call__(self, operation: str, **arguments: Any) -> dict[str, Any]:
        model = self._model.operation_model(operation)
        request = create_serializer("rest-json", False).serialize_to_request(arguments, model)
        query = "&".join(f"{name}={value}" for name, value in (request.get("query_string") or {}).items())
        answer = self._api.handle(request["method"], request["url_path"], query, request["body"] or b"")
        assert answer is not None
        status, headers, body = answer
        parser = botocore.parsers.create_parser("rest-json")
        told = parser.parse({"status_code": status, "headers": headers, "body": body}, model.output_shape)
        if "Error" in told:
            raise AwsError(told["Error"]["Code"], told["Error"]["Message"], status)
        return dict(told)


@pytest.fixture
def client(bench: Bench) -> Client:
    return Client(bench)


def rule_payload(sql: str = "SELECT * FROM 'bikes/#'", **more: Any) -> dict[str, Any]:
    return {"sql": sql, "actions": [kinesis()], **more}


def test_a_rule_lives_as_boto3_says(bench: Bench, client: Client) -> None:
    client("CreateTopicRule", ruleName="one", topicRulePayload=rule_payload(description="first", errorAction=s3()))
    client("CreateTopicRule", ruleName="two", topicRulePayload=rule_payload("SELECT * FROM 'cars'", ruleDisabled=True))
    found = client("GetTopicRule", ruleName="one")
    assert found["ruleArn"] == "arn:aws:iot:us-east-1:123456789012:rule/one"
    rule = found["rule"]
    assert (rule["ruleName"], rule["sql"], rule["description"]) == ("one", "SELECT * FROM 'bikes/#'", "first")
    assert rule["actions"] == [kinesis()]
    assert rule["errorAction"] == s3()
    assert rule["ruleDisabled"] is False
    assert [one["ruleName"] for one in client("ListTopicRules")["rules"]] == ["one", "two"]
    assert [one["ruleName"] for one in client("ListTopicRules", topic="bikes/7")["rules"]] == ["one"]
    assert [one["ruleName"] for one in client("ListTopicRules", ruleDisabled=True)["rules"]] == ["two"]
    page = client("ListTopicRules", maxResults=1)
    assert [one["ruleName"] for one in page["rules"]] == ["one"]
    rest = client("ListTopicRules", nextToken=page["nextToken"])
    assert [one["ruleName"] for one in rest["rules"]] == ["two"]
    assert "nextToken" not in rest
    client("DisableTopicRule", ruleName="one")
    bench.send()
    assert not bench.records
    client("EnableTopicRule", ruleName="one")
    bench.send()
    assert len(bench.records) == 1
    client("ReplaceTopicRule", ruleName="one", topicRulePayload=rule_payload("SELECT * FROM 'boats'"))
    bench.send()
    bench.send(topic="boats")
    assert len(bench.records) == 2
    client("DeleteTopicRule", ruleName="one")
    client("DeleteTopicRule", ruleName="one")
    bench.send(topic="boats")
    assert len(bench.records) == 2


def _create(name: str = "x", **more: Any) -> tuple[str, dict[str, Any]]:
    return "CreateTopicRule", {"ruleName": name, "topicRulePayload": rule_payload(**more)}


SQL, INVALID, MISSING = "SqlParseException", "InvalidRequestException", "UnauthorizedException"


@pytest.mark.parametrize(
    ("call", "code", "status"),
    [
        (_create("one"), "ResourceAlreadyExistsException", 409),
        (_create("a b"), INVALID, 400),
        (_create(sql="SELEC"), SQL, 400),
        (_create(awsIotSqlVersion="1"), SQL, 400),
        (_create(actions=[kinesis("${")]), SQL, 400),
        (_create(actions=[{"lambda": {"functionArn": "a"}}]), INVALID, 400),
        (_create(actions=[{}]), INVALID, 400),
        (_create(actions=[kinesis()] * 11), INVALID, 400),
        (("GetTopicRule", {"ruleName": "nobody"}), MISSING, 401),
        (("ReplaceTopicRule", {"ruleName": "nobody", "topicRulePayload": rule_payload()}), MISSING, 401),
        (("EnableTopicRule", {"ruleName": "nobody"}), MISSING, 401),
        (("ListTopicRules", {"maxResults": 0}), INVALID, 400),
        (("ListTopicRules", {"nextToken": "%"}), INVALID, 400),
    ],
)
def test_refusals(client: Client, call: tuple[str, dict[str, Any]], code: str, status: int) -> None:
    client("CreateTopicRule", ruleName="one", topicRulePayload=rule_payload())
    with pytest.raises(AwsError) as refused:
        client(call[0], **call[1])
    assert (refused.value.code, refused.value.status) == (code, status)
    assert refused.value.message


def test_an_account_has_a_thousand_rules(bench: Bench) -> None:
    for number in range(1_000):
        bench.rule(f"r{number}", "SELECT * FROM 'x'")
    with pytest.raises(AwsError, match="LimitExceededException"):
        bench.rule("one_more")


@pytest.mark.parametrize("body", [b"", b"nope", b"[]", b'{"sql": 1}', b'{"actions": []}'])
def test_bodies_that_are_none(bench: Bench, body: bytes) -> None:
    answer = RulesApi(bench.engine).handle("POST", "/rules/x", "", body)
    assert answer is not None
    assert answer[0] == 400
    assert answer[1]["x-amzn-errortype"] == "InvalidRequestException"
    assert RulesApi(bench.engine).handle("GET", "/things", "", b"") is None
