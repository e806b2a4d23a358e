"""Back-off arithmetic, what answers mean, and PutRecords on the wire."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.delivery import Record
from producers.put_records import AnswerUnreadable, Encoder, error_of, failures, shard_of
from producers.retry import FAULT, THROTTLE, Backoff, Meaning, meaning_of_call

backoffs = st.builds(Backoff, base_s=st.floats(0.001, 10), cap_s=st.floats(0.001, 100))


@given(backoffs, st.integers(1, 10_000), st.integers(0, 2**32))
def test_delay_is_between_zero_and_a_ceiling_that_doubles_up_to_the_cap(
    backoff: Backoff, failures_: int, seed: int
) -> None:
    ceiling = backoff.ceiling_s(failures_)
    assert 0 <= backoff.delay_s(failures_, random.Random(seed)) <= ceiling <= backoff.cap_s
    following = backoff.ceiling_s(failures_ + 1)
    assert following == pytest.approx(min(2 * ceiling, backoff.cap_s))
    assert backoff.ceiling_s(1) == min(backoff.base_s, backoff.cap_s)


def test_jitter_is_full() -> None:
    rng = random.Random(1)
    delays = [THROTTLE.delay_s(3, rng) for _ in range(4000)]
    tenths = {int(delay / 0.04) for delay in delays}
    assert tenths == set(range(10))
    assert sum(delays) / len(delays) == pytest.approx(0.2, rel=0.05)


def test_throttles_and_faults_differ() -> None:
    assert [THROTTLE.ceiling_s(n) for n in (1, 2, 3, 9)] == [0.1, 0.2, 0.4, 2.0]
    assert [FAULT.ceiling_s(n) for n in (1, 2, 3, 9)] == [0.05, 0.1, 0.2, 5.0]
    with pytest.raises(ValueError, match="at least one failure"):
        FAULT.ceiling_s(0)


@pytest.mark.parametrize(
    ("status", "code", "meaning"),
    [
        (400, "ProvisionedThroughputExceededException", Meaning.THROTTLED),
        (400, "ThrottlingException", Meaning.THROTTLED),
        (429, "", Meaning.THROTTLED),
        (503, "", Meaning.FAILED),
        (500, "InternalFailure", Meaning.UNCERTAIN),
        (504, "", Meaning.UNCERTAIN),
        (400, "ValidationException", Meaning.INVALID),
        (413, "", Meaning.INVALID),
        (400, "ResourceNotFoundException", Meaning.STREAM_MISSING),
        (400, "UnrecognizedClientException", Meaning.ACCESS),
        (400, "MissingAuthenticationTokenException", Meaning.ACCESS),
        (403, "", Meaning.ACCESS),
        (404, "", Meaning.REFUSED),
        (400, "KMSDisabledException", Meaning.REFUSED),
    ],
)
def test_meaning_of_a_failed_call(status: int, code: str, meaning: Meaning) -> None:
    assert meaning_of_call(status, code) is meaning


def test_request_holds_stream_data_and_key_and_nothing_else() -> None:
    body = json.loads(Encoder('a"b').encode([Record(b"\x00\xff", "ключ", 1.0, ("k", 1))]))
    assert body == {"StreamName": 'a"b', "Records": [{"Data": "AP8=", "PartitionKey": "ключ"}]}
    arn = "arn:aws:kinesis:us-east-1:123456789012:stream/a"
    assert json.loads(Encoder(arn).encode([Record(b"", "k", 1.0)]))["StreamARN"] == arn


def test_answers() -> None:
    assert failures(b'{"FailedRecordCount":0,"Records":[{"SequenceNumber":"1","ShardId":"s"}]}', 1) == []
    code = "ProvisionedThroughputExceededException"
    answer = {"FailedRecordCount": 2, "Records": [{"ErrorCode": code, "ErrorMessage": "m"}, {"ShardId": "s"}]}
    answer["Records"].append({"ErrorCode": "InternalFailure"})  # type: ignore[attr-defined]
    assert failures(json.dumps(answer).encode(), 3) == [
        (0, Meaning.THROTTLED, code + ": m"),
        (2, Meaning.FAILED, "InternalFailure: None"),
    ]
    for body in (json.dumps(answer).encode(), b"<html>", b"[]", b'{"FailedRecordCount":1}', b"\xff"):
        with pytest.raises(AnswerUnreadable):
            failures(body, 2)


def test_error_bodies() -> None:
    assert error_of(b'{"__type":"com.amazonaws.kinesis#X","message":"m"}', {}) == ("X", "m")
    assert error_of(b'{"Message":"m"}', {"x-amzn-ErrorType": "X:http://internal"}) == ("X", "m")
    assert error_of(b"Bad Gateway\n", {}) == ("", "Bad Gateway")
    assert error_of(b"", {}) == ("", "")


def test_shard_of_a_throttle() -> None:
    assert shard_of("Rate exceeded for shard shardId-000000000012 in stream a.") == "shardId-000000000012"
    assert shard_of("Internal service failure.") is None
