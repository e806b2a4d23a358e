"""The event's exact shape, the cut of a batch, and the meaning of every form of answer."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.runtime.batches import PAYLOAD_MAX_BYTES, Cut, Outcome, cut, interpret
from consumers.runtime.config import MappingConfig
from consumers.runtime.event import EventBuilder, Record, Window, assemble, envelope_bytes

ARN = "arn:aws:kinesis:us-east-1:123456789012:stream/alleycat"
MAPPING = MappingConfig(name="m", function_name="f", stream_name="alleycat", stream_arn=ARN)
EVENTS = EventBuilder(MAPPING, "shardId-000000000006")
NUMBERS = ["10", "11", "12", "13"]


# -- the event -----------------------------------------------------------------------------------------


def test_the_event_is_lambdas() -> None:
    record = EVENTS.record(
        "49590338271490256608559692538361571095921575989136588898", "p\u00e4", b"\x00\xff{}", 1545084650.987
    )
    assert json.loads(assemble([record])) == {
        "Records": [
            {
                "kinesis": {
                    "kinesisSchemaVersion": "1.0",
                    "partitionKey": "p\u00e4",
                    "sequenceNumber": "49590338271490256608559692538361571095921575989136588898",
                    "data": "AP97fQ==",
                    "approximateArrivalTimestamp": 1545084650.987,
                },
                "eventSource": "aws:kinesis",
                "eventVersion": "1.0",
                "eventID": "shardId-000000000006:49590338271490256608559692538361571095921575989136588898",
                "eventName": "aws:kinesis:record",
                "invokeIdentityArn": "arn:aws:iam::123456789012:role/f-role",
                "awsRegion": "us-east-1",
                "eventSourceARN": ARN,
            }
        ]
    }


def test_base64_of_the_wire_is_taken_as_it_is() -> None:
    assert EVENTS.record("1", "p", "AP97fQ==", 1.5) == EVENTS.record("1", "p", b"\x00\xff{}", 1.5)


def test_a_window_adds_its_members() -> None:
    members = EVENTS.window_members(Window(1596128400, 1596128520), b'{"1":{"2":3}}', is_final=True, is_early=False)
    event = json.loads(assemble([], members))
    assert event == {
        "Records": [],
        "window": {"start": "2020-07-30T17:00:00Z", "end": "2020-07-30T17:02:00Z"},
        "state": {"1": {"2": 3}},
        "shardId": "shardId-000000000006",
        "eventSourceARN": ARN,
        "isFinalInvokeForWindow": True,
        "isWindowTerminatedEarly": False,
    }


@given(st.lists(st.tuples(st.binary(max_size=20), st.text(max_size=5))), st.booleans())
def test_sizes_are_exact(contents: list[tuple[bytes, str]], windowed: bool) -> None:
    records = [EVENTS.record(str(n), key, data, float(n)) for n, (data, key) in enumerate(contents)]
    members = EVENTS.window_members(Window(0, 5), b'{"a":1}', is_final=False, is_early=False) if windowed else b"{}"
    event = assemble(records, members)
    commas = max(0, len(records) - 1)
    assert len(event) == envelope_bytes(members) + sum(len(r.encoded) for r in records) + commas
    assert [base64.b64decode(r["kinesis"]["data"]) for r in json.loads(event)["Records"]] == [c[0] for c in contents]


# -- the cut -------------------------------------------------------------------------------------------


def records(*sizes: int) -> list[Record]:
    return [Record(str(n), float(n), b"x" * size) for n, size in enumerate(sizes)]


def test_a_batch_ends_at_batch_size() -> None:
    assert cut(records(*[10] * 5), batch_size=4, envelope_bytes=0) == Cut(4, is_closed=True)
    assert cut(records(*[10] * 4), batch_size=4, envelope_bytes=0) == Cut(4, is_closed=True)
    assert cut(records(*[10] * 3), batch_size=4, envelope_bytes=0) == Cut(3, is_closed=False)
    assert cut([], batch_size=4, envelope_bytes=0) == Cut(0, is_closed=False)


def test_a_batch_ends_where_its_window_ends() -> None:
    assert cut(records(*[10] * 5), batch_size=9, envelope_bytes=0, window_end_s=3) == Cut(3, is_closed=True)
    assert cut(records(*[10] * 3), batch_size=9, envelope_bytes=0, window_end_s=3) == Cut(3, is_closed=False)


def test_a_batch_ends_at_six_megabytes_of_encoded_event() -> None:
    # A record of 1 MiB is 1.33 MiB of base64: four fit, though five MiB of data would.
    four = [EVENTS.record(str(n), "p", bytes(1024 * 1024), 0.0) for n in range(5)]
    assert cut(four, batch_size=100, envelope_bytes=envelope_bytes()) == Cut(4, is_closed=True)
    assert len(assemble(four[:4])) <= PAYLOAD_MAX_BYTES < len(assemble(four))


def test_a_record_that_fits_no_event_is_a_batch_of_none() -> None:
    assert cut(records(101, 10), batch_size=9, envelope_bytes=0, payload_max_bytes=100) == Cut(0, is_closed=True)


@given(st.lists(st.integers(1, 60), max_size=20), st.integers(1, 10), st.integers(0, 50), st.integers(0, 20))
def test_no_batch_exceeds_a_limit_and_none_is_smaller_than_it_must_be(
    sizes: list[int], batch_size: int, envelope: int, window_end_s: int
) -> None:
    buffered = records(*sizes)
    found = cut(
        buffered, batch_size=batch_size, envelope_bytes=envelope, window_end_s=window_end_s, payload_max_bytes=100
    )

    def fits(count: int) -> bool:
        return (
            count <= batch_size
            and count <= window_end_s
            and (count == 0 or envelope + sum(sizes[:count]) + count - 1 <= 100)
        )

    assert fits(found.count)
    assert found.count == len(sizes) or not fits(found.count + 1)
    assert found.is_closed == (found.count < len(sizes) or found.count == batch_size)


# -- answers -------------------------------------------------------------------------------------------


def answered(payload: bytes, **settings: Any) -> Outcome:
    return interpret(payload, NUMBERS, **({"report_batch_item_failures": True} | settings))


@pytest.mark.parametrize(
    "payload",
    [b"null", b"{}", b"[]", b'""', b"", b' {"batchItemFailures": []}', b'{"batchItemFailures":null}', b'{"other":1}'],
)
def test_complete_successes(payload: bytes) -> None:
    assert answered(payload) == Outcome(4)


@pytest.mark.parametrize(
    "payload",
    [
        b'{"batchItemFailures":[{"itemIdentifier":""}]}',
        b'{"batchItemFailures":[{"itemIdentifier":null}]}',
        b'{"batchItemFailures":[{"foo":"12"}]}',
        b'{"batchItemFailures":[{"itemIdentifier":"99"}]}',
        b'{"batchItemFailures":[{"itemIdentifier":"12"},{"itemIdentifier":"99"}]}',
        b'{"batchItemFailures":[{"itemIdentifier":12}]}',
        b'{"batchItemFailures":["12"]}',
        b'{"batchItemFailures":"12"}',
        b'{"batchItemFailures":[',
        b'"a text"',
        b"7",
    ],
)
def test_complete_failures(payload: bytes) -> None:
    outcome = answered(payload)
    assert outcome.processed == 0
    assert outcome.failure is not None
    assert outcome.failure[0] == "Alleycat.BatchItemFailures"


def test_the_lowest_reported_record_is_where_to_continue() -> None:
    outcome = answered(b'{"batchItemFailures":[{"itemIdentifier":"13"},{"itemIdentifier":"11"}]}')
    assert outcome.processed == 1
    assert outcome.failure == ("Alleycat.PartialBatch", "2 of 4 records reported, from 11")
    assert answered(b'{"batchItemFailures":[{"itemIdentifier":"10"}]}').processed == 0


def test_reports_mean_nothing_unless_the_mapping_asks_for_them() -> None:
    payload = b'{"batchItemFailures":[{"itemIdentifier":"11"}]}'
    assert answered(payload, report_batch_item_failures=False) == Outcome(4)
    assert answered(b'"anything"', report_batch_item_failures=False) == Outcome(4)


@pytest.mark.parametrize(
    "payload", [b"null", b"{}", b"[]", b'""', b'{"state":null}', b'{"state":[1]}', b'{"state":"x"}']
)
@pytest.mark.parametrize("report", [True, False])
def test_in_a_window_an_answer_without_state_fails_except_the_last(payload: bytes, report: bool) -> None:
    outcome = answered(payload, is_windowed=True, report_batch_item_failures=report)
    assert outcome.processed == 0
    assert outcome.failure is not None
    assert outcome.failure[0] == "Alleycat.TumblingWindowResponse"
    assert interpret(payload, [], report_batch_item_failures=report, is_windowed=True, is_final=True) == Outcome(0)


def test_in_a_window_the_state_comes_back_with_success_and_with_progress() -> None:
    assert answered(b'{"state": {"n": 1}}', is_windowed=True) == Outcome(4, state=b'{"n": 1}')
    partial = answered(b'{"state":{"n":1},"batchItemFailures":[{"itemIdentifier":"12"}]}', is_windowed=True)
    assert (partial.processed, partial.state) == (2, b'{"n":1}')


@given(st.binary(max_size=30) | st.text(max_size=30).map(str.encode), st.booleans(), st.booleans())
def test_no_answer_is_too_strange(payload: bytes, report: bool, windowed: bool) -> None:
    outcome = interpret(payload, NUMBERS, report_batch_item_failures=report, is_windowed=windowed)
    assert (outcome.processed == 4) == (outcome.failure is None)
