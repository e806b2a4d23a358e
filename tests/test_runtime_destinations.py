"""On-failure destinations: AWS's documents to the letter, and their way to a queue, a topic and a bucket."""

from __future__ import annotations

import json
import re
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from consumers.runtime.actions import Discard
from consumers.runtime.config import MappingConfig
from consumers.runtime.destinations import Destination
from consumers.runtime.event import EventBuilder, Record
from consumers.runtime.failure_record import failure_record, mapping_uuid, object_key

FUNCTION_ARN = "arn:aws:lambda:us-east-1:123456789012:function:f"
KINESIS_ARN = "arn:aws:kinesis:us-east-1:123456789012:stream/alleycat"
TABLE_ARN = "arn:aws:dynamodb:us-east-1:123456789012:table/races/stream/2019-11-14T00:04:06.388"
SHARD = "shardId-000000000001"
NOW = 1573691886.021
KINESIS = MappingConfig(name="m", function_name="f", stream_name="alleycat", stream_arn=KINESIS_ARN)
TABLE = MappingConfig(
    name="t", function_name="f", stream_name="races", stream_arn=TABLE_ARN, source_kind="DynamoDB", batch_size=1
)
RECORDS = (Record("49601", 1573691884.835, b'{"a":1}'), Record("49609", 1573691885.58, b'{"a":2}'))
GIVEN_UP = Discard(RECORDS, "RetryAttemptsExhausted", 3, "c9b8fa9f", "Unhandled")


def document(discard: Discard, mapping: MappingConfig = KINESIS, **options: Any) -> Any:
    return json.loads(failure_record(discard, mapping, SHARD, FUNCTION_ARN, NOW, **options))


def test_the_document_about_a_kinesis_batch() -> None:
    assert document(GIVEN_UP) == {
        "requestContext": {
            "requestId": "c9b8fa9f",
            "functionArn": FUNCTION_ARN,
            "condition": "RetryAttemptsExhausted",
            "approximateInvokeCount": 3,
        },
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
        "version": "1.0",
        "timestamp": "2019-11-14T00:38:06.021Z",
        "KinesisBatchInfo": {
            "shardId": SHARD,
            "startSequenceNumber": "49601",
            "endSequenceNumber": "49609",
            "approximateArrivalOfFirstRecord": "2019-11-14T00:38:04.835Z",
            "approximateArrivalOfLastRecord": "2019-11-14T00:38:05.580Z",
            "batchSize": 2,
            "streamArn": KINESIS_ARN,
        },
    }


def test_members_come_in_awss_order() -> None:
    assert list(document(GIVEN_UP)) == ["requestContext", "responseContext", "version", "timestamp", "KinesisBatchInfo"]


def test_the_document_about_a_table_streams_batch() -> None:
    found = document(GIVEN_UP, TABLE)
    assert "KinesisBatchInfo" not in found
    assert found["DDBStreamBatchInfo"] == {
        "shardId": SHARD,
        "startSequenceNumber": "49601",
        "endSequenceNumber": "49609",
        "approximateArrivalOfFirstRecord": "2019-11-14T00:38:04Z",
        "approximateArrivalOfLastRecord": "2019-11-14T00:38:05Z",
        "batchSize": 2,
        "streamArn": TABLE_ARN,
    }


def test_a_reported_partial_failure_has_a_null_function_error() -> None:
    context = document(Discard(RECORDS, "RetryAttemptsExhausted", 1, "r"))["responseContext"]
    assert context == {"statusCode": 200, "executedVersion": "$LATEST", "functionError": None}


def test_records_that_were_too_old_have_no_response() -> None:
    found = document(Discard(RECORDS, "RecordAgeExceeded", 0, "r"))
    assert list(found) == ["requestContext", "version", "timestamp", "KinesisBatchInfo"]
    assert found["requestContext"] == {
        "requestId": "r",
        "functionArn": FUNCTION_ARN,
        "condition": "RecordAgeExceeded",
        "approximateInvokeCount": 1,
    }
    assert "responseContext" not in document(Discard(RECORDS, "RecordAgeExceeded", 4, "r")), "nor after failures"


def test_only_a_bucket_gets_the_event() -> None:
    assert "payload" not in document(GIVEN_UP)
    payload = document(GIVEN_UP, with_payload=True)["payload"]
    assert isinstance(payload, str)
    assert json.loads(payload) == {"Records": [{"a": 1}, {"a": 2}]}


def test_an_objects_key() -> None:
    key = object_key(KINESIS, SHARD, NOW, "00000000-1111")
    assert key == f"aws/lambda/{mapping_uuid(KINESIS)}/{SHARD}/2019/11/14/2019-11-14T00.38.06-00000000-1111"
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", mapping_uuid(KINESIS))
    assert mapping_uuid(KINESIS) != mapping_uuid(TABLE)


# -- delivery ------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    with mock_aws():
        yield


def client(service: str) -> Any:
    return boto3.client(service, region_name="us-east-1")


def deliver(arn: str) -> None:
    mapping = MappingConfig(
        name="m", function_name="f", stream_name="alleycat", stream_arn=KINESIS_ARN, on_failure_destination=arn
    )
    destination = Destination(mapping, FUNCTION_ARN, client)
    record = EventBuilder(mapping, SHARD).record("49601", "p", b"data", NOW)
    destination.deliver(Discard((record,), "RetryAttemptsExhausted", 1, "r", "Unhandled"), SHARD, NOW)
    destination.close()


def messages(queue_url: str) -> list[Any]:
    answer = client("sqs").receive_message(QueueUrl=queue_url, MaxNumberOfMessages=10)
    return [json.loads(message["Body"]) for message in answer.get("Messages", [])]


def test_a_queue_gets_a_message() -> None:
    url = client("sqs").create_queue(QueueName="dead")["QueueUrl"]
    deliver("arn:aws:sqs:us-east-1:123456789012:dead")
    (message,) = messages(url)
    assert message["KinesisBatchInfo"]["startSequenceNumber"] == "49601"
    assert "payload" not in message


def test_a_topic_gets_a_notification() -> None:
    sqs, sns = client("sqs"), client("sns")
    url = sqs.create_queue(QueueName="subscribed")["QueueUrl"]
    arn = sns.create_topic(Name="dead")["TopicArn"]
    queue_arn = "arn:aws:sqs:us-east-1:123456789012:subscribed"
    sns.subscribe(TopicArn=arn, Protocol="sqs", Endpoint=queue_arn)
    deliver(arn)
    (message,) = messages(url)
    assert json.loads(message["Message"])["requestContext"]["condition"] == "RetryAttemptsExhausted"


def test_a_bucket_gets_an_object_with_the_event() -> None:
    s3 = client("s3")
    s3.create_bucket(Bucket="dead")
    deliver("arn:aws:s3:::dead")
    (entry,) = s3.list_objects_v2(Bucket="dead")["Contents"]
    assert entry["Key"].startswith(f"aws/lambda/{mapping_uuid(KINESIS)}/{SHARD}/2019/11/14/2019-11-14T00.38.06-")
    found = json.loads(s3.get_object(Bucket="dead", Key=entry["Key"])["Body"].read())
    assert json.loads(found["payload"])["Records"][0]["kinesis"]["data"] == "ZGF0YQ=="


@pytest.mark.parametrize(
    ("arn", "code"),
    [
        ("arn:aws:sqs:us-east-1:123456789012:missing", "AWS.SimpleQueueService.NonExistentQueue"),
        ("arn:aws:sns:us-east-1:123456789012:missing", "NotFound"),
        ("arn:aws:s3:::missing-bucket", "NoSuchBucket"),
    ],
)
def test_a_destination_that_is_not_there_is_an_error(arn: str, code: str) -> None:
    with pytest.raises(ClientError) as raised:
        deliver(arn)
    assert code in raised.value.response["Error"]["Code"]
