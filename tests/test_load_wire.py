"""The load generator's PutRecords, PutRecord and GetRecords, held against botocore's own serializer and parsers."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import botocore.session
import pytest
from botocore.parsers import create_parser
from botocore.serialize import create_serializer
from conftest import client_of
from hypothesis import given
from hypothesis import strategies as st

from loadtests import kinesis_wire
from loadtests.kinesis_wire import End, Ends
from loadtests.payloads import KeyChoice, Message, Messages
from simulator.cloud.server import CloudProcess

MODEL = botocore.session.get_session().get_service_model("kinesis")
SHARDS = tuple(f"shardId-{number:012d}" for number in range(3))
THROTTLE = "ProvisionedThroughputExceededException"
FAULT = "InternalFailure"


def serialized(operation: str, **members: Any) -> Any:
    """What boto3 would send, decoded."""
    request = create_serializer("json").serialize_to_request(members, MODEL.operation_model(operation))
    return json.loads(request["body"])


def parsed(operation: str, body: bytes) -> Any:
    """What boto3 would hand to its caller."""
    answer = {"status_code": 200, "headers": {}, "body": body}
    return create_parser("json").parse(answer, MODEL.operation_model(operation).output_shape)


def members_of(message: Message) -> dict[str, Any]:
    found = {"Data": message.data, "PartitionKey": message.partition_key}
    return found | ({"ExplicitHashKey": message.explicit_hash_key} if message.explicit_hash_key is not None else {})


def refusal(code: str, shard: str) -> dict[str, str]:
    if code == THROTTLE:
        return {"ErrorCode": code, "ErrorMessage": f"Rate exceeded for shard {shard} in stream s under account 1."}
    return {"ErrorCode": code, "ErrorMessage": "Internal Service Failure"}


def answer_of(results: list[tuple[str, str | None]]) -> bytes:
    """A PutRecords answer: shard and error code of each entry."""
    entries = [
        refusal(code, shard) if code else {"SequenceNumber": str(10**55 + place), "ShardId": shard}
        for place, (shard, code) in enumerate(results)
    ]
    failed = sum(code is not None for _, code in results)
    return json.dumps({"FailedRecordCount": failed, "Records": entries, "EncryptionType": "NONE"}).encode()


message_strategy = st.builds(
    Message,
    data=st.binary(max_size=60),
    partition_key=st.text(min_size=1, max_size=20),
    explicit_hash_key=st.none() | st.integers(0, 2**128 - 1).map(str),
)
results_strategy = st.lists(
    st.tuples(st.sampled_from(SHARDS), st.sampled_from([None, None, None, THROTTLE, FAULT])), max_size=60
)
names = st.text("abcXYZ019_.-", min_size=1, max_size=128)


def some(number: int) -> list[Message]:
    return [Message(b"x" * (place + 1), str(100 + place)) for place in range(number)]


# -- requests ------------------------------------------------------------------------------------------


@given(names, st.lists(message_strategy, min_size=1, max_size=30))
def test_put_records_says_what_boto3_would(stream: str, messages: list[Message]) -> None:
    body = kinesis_wire.encode(stream, messages)
    assert json.loads(body) == serialized(
        "PutRecords", StreamName=stream, Records=[members_of(message) for message in messages]
    )


@given(names, message_strategy)
def test_put_record_says_what_boto3_would(stream: str, message: Message) -> None:
    body = kinesis_wire.encode_one(stream, message)
    assert json.loads(body) == serialized("PutRecord", StreamName=stream, **members_of(message))


# -- answers -------------------------------------------------------------------------------------------


@given(results_strategy)
def test_put_records_answers(results: list[tuple[str, str | None]]) -> None:
    """Read record by record as botocore reads them; every record has exactly one end."""
    body, messages = answer_of(results), some(len(results))
    ends = kinesis_wire.read(body, messages)
    told = parsed("PutRecords", body)["Records"]
    accepted = Counter(one["ShardId"] for one in told if "ErrorCode" not in one)
    size_bytes: Counter[str] = Counter()
    for one, message in zip(told, messages, strict=True):
        if "ErrorCode" not in one:
            size_bytes[one["ShardId"]] += len(message.data) + len(message.partition_key)
    throttled = Counter(shard for shard, code in results if code == THROTTLE)
    assert Counter({shard: end.accepted for shard, end in ends.by_shard.items()}) == accepted
    assert Counter({shard: end.size_bytes for shard, end in ends.by_shard.items()}) == size_bytes
    assert Counter({shard: end.throttled for shard, end in ends.by_shard.items()}) == throttled
    # A fault names no shard.
    faults = sum(code == FAULT for _, code in results)
    assert sum(end.failed for end in ends.by_shard.values()) == ends.by_shard.get("", End()).failed == faults
    assert ends.refused == [message for message, (_, code) in zip(messages, results, strict=True) if code == THROTTLE]
    assert sum(ends.problems.values()) == sum(throttled.values()) + faults
    assert {code for _, code, _ in ends.problems} == {code for _, code in results if code}


def test_entries_decide_not_the_count_above_them() -> None:
    """FailedRecordCount is the service's summary; an entry that failed failed whatever it says."""
    told = json.loads(answer_of([(SHARDS[0], None), (SHARDS[1], THROTTLE)]))
    body = json.dumps({**told, "FailedRecordCount": 0}).encode()
    ends = kinesis_wire.read(body, some(2))
    assert (ends.by_shard[SHARDS[0]].accepted, ends.by_shard[SHARDS[1]].throttled) == (1, 1)


def test_entries_that_spell_out_what_they_lack() -> None:
    entries = [
        {"SequenceNumber": "1", "ShardId": SHARDS[0], "ErrorCode": None, "ErrorMessage": None},
        {"SequenceNumber": None, "ShardId": None, "ErrorCode": FAULT, "ErrorMessage": None},
    ]
    ends = kinesis_wire.read(json.dumps({"FailedRecordCount": 1, "Records": entries}).encode(), some(2))
    assert ends.by_shard == {SHARDS[0]: End(1, 0, 0, 4), "": End(0, 0, 1, 0)}
    assert ends.problems == {("", FAULT, ""): 1}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not a PutRecords answer"),
        (b"<html>", "not a PutRecords answer"),
        (b"\xff\xfe", "not a PutRecords answer"),
        (b"[]", "not a PutRecords answer"),
        (b"{}", "not a PutRecords answer"),
        (b'{"FailedRecordCount":0}', "not a PutRecords answer"),
        (b'{"FailedRecordCount":0,"Records":[7,8]}', "not a PutRecords answer"),
        (b'{"FailedRecordCount":0,"Records":[]}', "2 records were sent, the answer tells of 0"),
        (answer_of([(SHARDS[0], None)] * 3), "2 records were sent, the answer tells of 3"),
    ],
)
def test_what_is_no_put_records_answer(body: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        kinesis_wire.read(body, some(2))


def test_put_record_answers() -> None:
    body = json.dumps({"ShardId": SHARDS[1], "SequenceNumber": "49"}).encode()
    message = Message(b"abc", "10")
    assert kinesis_wire.read_one(body, message) == Ends({parsed("PutRecord", body)["ShardId"]: End(1, 0, 0, 5)})
    for broken in (b"", b"[]", b"\xff", b'{"ShardId":7}'):
        with pytest.raises(ValueError, match="not a PutRecord answer"):
            kinesis_wire.read_one(broken, message)


@given(
    st.lists(st.tuples(st.binary(max_size=50), st.text("0123456789", min_size=1, max_size=9)), max_size=20),
    st.none() | st.integers(0, 10**9),
    st.none() | st.text("abc123+/=", min_size=1),
)
def test_get_records_answers(records: list[tuple[bytes, str]], behind: int | None, following: str | None) -> None:
    entries = [
        serialized("PutRecord", StreamName="s", Data=data, PartitionKey=key)
        | {"SequenceNumber": "1", "ApproximateArrivalTimestamp": 1.8e9}
        for data, key in records
    ]
    answer = {"Records": entries, "MillisBehindLatest": behind, "NextShardIterator": following}
    body = json.dumps({name: value for name, value in answer.items() if value is not None}).encode()
    page, told = kinesis_wire.read_page(body), parsed("GetRecords", body)
    assert page.records == len(told["Records"])
    assert page.size_bytes == sum(len(one["Data"]) + len(one["PartitionKey"]) for one in told["Records"])
    assert page.behind_ms == told.get("MillisBehindLatest", 0)
    assert page.next_iterator == told.get("NextShardIterator")


@pytest.mark.parametrize("body", [b"", b"{}", b"\xff", b'{"Records":[{"Data":"?","PartitionKey":"k"}]}'])
def test_what_is_no_get_records_answer(body: bytes) -> None:
    with pytest.raises(ValueError, match="not a GetRecords answer"):
        kinesis_wire.read_page(body)


def test_a_call_that_failed_as_one() -> None:
    messages = some(3)
    words = f"Rate exceeded for shard {SHARDS[2]} in stream s"
    ends = kinesis_wire.refused_whole(THROTTLE, words, messages, throttled=True)
    assert ends == Ends({SHARDS[2]: End(0, 3, 0, 0)}, messages, {(SHARDS[2], THROTTLE, words): 3})
    ends = kinesis_wire.refused_whole("NoAnswer", "timed out", messages, throttled=False)
    assert ends == Ends({"": End(0, 0, 3, 0)}, [], {("", "NoAnswer", "timed out"): 3})


# -- the embedded cloud --------------------------------------------------------------------------------


def test_the_cloud_stores_what_was_encoded(cloud: CloudProcess, kinesis: Any, stream: str) -> None:
    """Sent as it is, by botocore's own HTTP layer, and read back by boto3: same data, same keys, the right shard."""
    kinesis.create_stream(StreamName=stream, ShardCount=2)
    messages = Messages(
        start_ms=1_800_000_000_000, racers=9, key=KeyChoice("even"), hash_keys=(str(2**126), str(2**127 + 2**126))
    ).take(10)
    sent = Sent(cloud, kinesis_wire.encode(stream, messages))
    answer = sent.put_records()
    ends = kinesis_wire.read(answer, messages)
    assert {shard: end.accepted for shard, end in ends.by_shard.items()} == {SHARDS[0]: 5, SHARDS[1]: 5}
    for place, shard in enumerate(SHARDS[:2]):
        iterator = kinesis.get_shard_iterator(StreamName=stream, ShardId=shard, ShardIteratorType="TRIM_HORIZON")
        stored = kinesis.get_records(ShardIterator=iterator["ShardIterator"])["Records"]
        expected = messages[place::2]
        assert [(one["Data"], one["PartitionKey"]) for one in stored] == [
            (message.data, message.partition_key) for message in expected
        ]
        assert ends.by_shard[shard].size_bytes == sum(len(one["Data"]) + len(one["PartitionKey"]) for one in stored)


class Sent:
    """One body put in place of boto3's own."""

    def __init__(self, cloud: CloudProcess, body: bytes) -> None:
        self._client, self._body = client_of(cloud, "kinesis"), body
        self._answer = b""

    def put_records(self) -> bytes:
        events = self._client.meta.events
        events.register("before-call.kinesis.PutRecords", lambda params, **_: params.update(body=self._body))
        events.register("before-parse.kinesis.PutRecords", self._keep)
        self._client.put_records(StreamName="-", Records=[{"Data": b"-", "PartitionKey": "-"}])
        self._client.close()
        return self._answer

    def _keep(self, response_dict: dict[str, Any], **_: Any) -> None:
        self._answer = response_dict["body"]
