"""Telemetry: what is accepted, what is rejected and why, and the arithmetic of an output."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from consumers.telemetry import (
    REASON_MAX_CHARS,
    Rejected,
    State,
    Telemetry,
    aggregate,
    decode,
    output_hundredths,
)

GOOD: dict[str, Any] = {
    "uuid": "3f1f3bd4-6d0c-4f8e-9f52-0a52a3a1f1aa",
    "event": "update",
    "deviceTimestamp": 1620240672076,
    "second": 17,
    "raceId": 5403307,
    "name": "Hubert",
    "racerId": 101,
    "classId": 1,
    "cadence": 80.4,
    "resistance": 78.1,
}


def text(**changes: Any) -> bytes:
    return json.dumps(GOOD | changes).encode()


def without(name: str) -> bytes:
    return json.dumps({key: value for key, value in GOOD.items() if key != name}).encode()


def record(data: bytes | str | None, number: int = 0) -> dict[str, Any]:
    return {
        "kinesis": {
            "data": base64.b64encode(data).decode() if isinstance(data, bytes) else data,
            "sequenceNumber": str(number),
            "partitionKey": f"key-{number}",
            "approximateArrivalTimestamp": 1620240672.5,
        },
        "eventID": f"shardId-000000000000:{number}",
    }


def only_rejected(record: dict[str, Any]) -> Rejected:
    """The record's rejection, and a check that its neighbours are untouched."""
    batch = decode([_GOOD_RECORD, record, _GOOD_RECORD])
    assert [message.racerId for message in batch.messages] == [101, 101]
    assert list(batch.positions()) == [0, 2]
    (rejected,) = batch.rejected
    assert rejected.position == 1
    return rejected


_GOOD_RECORD = record(text())

REASONS: list[tuple[bytes, str]] = [
    (b"", "empty record"),
    (b" ", "not JSON"),
    (b"hello", "not JSON"),
    (b"null", "not telemetry: Expected `object`, got `null`"),
    (b"[]", "not telemetry: Expected `object`, got `array`"),
    (b"[" + text() + b"]", "not telemetry: Expected `object`, got `array`"),
    (b"1],[2", "not telemetry: Expected `object`, got `int`"),
    (text() + b"," + text(), "not JSON: trailing characters"),
    (text() + b"\n" + text(), "not JSON: trailing characters"),
    (text() + text(), "not JSON: trailing characters"),
    (text() + b"\0", "not JSON: trailing characters"),
    (text() + b"],[", "not JSON: trailing characters"),
    (text()[:-1], "not JSON"),
    (text()[:40], "not JSON"),
    (b'{"x":[{}', "not JSON"),
    (b'{}],"x":1}', "missing field `uuid`"),
    (b"\xef\xbb\xbf" + text(), "not JSON"),
    (text().decode().encode("utf-16"), "not JSON"),
    (text(name="@").replace(b"@", b"\xff\xfe"), "not JSON: not UTF-8"),
    (text(name="@").replace(b"@", b"\\ud800"), "not JSON"),
    (text(name="@").replace(b"@", b"a\nb"), "not JSON"),
    (text(name="n" * 2**20), "`name` out of range"),
    (text(uuid="u" * 65), "`uuid` out of range"),
    (text(name=5), "`name` of the wrong type: Expected `str`, got `int`"),
    (text(name=None), "`name` of the wrong type"),
    (text(classId=9), "`classId` out of range: Expected `int` <= 6"),
    (text(classId=0), "`classId` out of range: Expected `int` >= 1"),
    (text(classId="1"), "`classId` of the wrong type: Expected `int`, got `str`"),
    (text(classId=True), "`classId` of the wrong type"),
    (text(classId=1.5), "`classId` of the wrong type"),
    (text(event="start"), "`event` unknown: Invalid enum value 'start'"),
    (text(event="e" * 2**20), "`event` unknown"),
    (text(event=1), "`event` of the wrong type"),
    (text(second=-1), "`second` out of range"),
    (text(raceId=-5403307), "`raceId` out of range"),
    (text(raceId=2**53), "`raceId` out of range"),
    (text(racerId=10**400), "`racerId` out of range"),
    (text(racerId=None), "`racerId` of the wrong type"),
    (text(deviceTimestamp="now"), "`deviceTimestamp` of the wrong type"),
    (text(cadence=-0.1), "`cadence` out of range"),
    (text(cadence=300.1), "`cadence` out of range"),
    (text(cadence="80.4"), "`cadence` of the wrong type"),
    (text(resistance=[78.1]), "`resistance` of the wrong type"),
    (text(cadence=float("nan")), "not JSON"),
    (text(resistance=float("inf")), "not JSON"),
    (text(resistance=float("-inf")), "not JSON"),
    (text(cadence="@").replace(b'"@"', b"1e400"), "`cadence` out of range"),
    (text(cadence="@").replace(b'"@"', b"080.4"), "not JSON"),
    (b'{"deep":' + b"[" * 100_000, "nested too deeply"),
    (b'{"deep":' * 100_000, "nested too deeply"),
    (b"\xf3\x89\x9a\xc2" + b"\x0a\x03key" + text() + bytes(16), "KPL aggregated record"),
    *[(without(name), f"missing field `{name}`") for name in GOOD],
]


@pytest.mark.parametrize(("data", "reason"), REASONS, ids=range(len(REASONS)))
def test_bad_telemetry_is_set_aside_with_its_reason(data: bytes, reason: str) -> None:
    rejected = only_rejected(record(data, 7))
    assert rejected.reason.startswith(reason)
    assert len(rejected.reason) <= REASON_MAX_CHARS
    assert "\n" not in rejected.reason
    assert (rejected.sequence_number, rejected.partition_key) == ("7", "key-7")
    assert rejected.approximate_arrival_timestamp == 1620240672.5
    assert base64.b64decode(rejected.data) == data


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("not base64!", "not base64: Only base64 data is allowed"),
        ("e30", "not base64"),
        ("e30=e30=", "not base64"),
        ("é30=", "not base64"),
        ("\ud800", "not base64"),
        (None, "not a Kinesis record"),
    ],
)
def test_data_that_is_not_base64_is_set_aside(data: str | None, reason: str) -> None:
    rejected = only_rejected(record(data, 7))
    assert rejected.reason.startswith(reason)
    assert rejected.data == (data or "")


@pytest.mark.parametrize("broken", [{}, {"kinesis": None}, {"kinesis": {}}, {"kinesis": "x"}])
def test_a_record_without_data_is_set_aside(broken: dict[str, Any]) -> None:
    assert only_rejected(broken).reason == "not a Kinesis record: it has no `kinesis.data`"


@pytest.mark.parametrize(
    "data",
    [
        text(event="final"),
        text(cadence=0, resistance=300),
        text(cadence=80),
        text(extra={"deep": [[[{"more": None}]]]}),
        text(name=""),
        text(name="Žofie 🚲"),
        text(classId=6),
        text(raceId=2**53 - 1),
        b" \r\n\t" + text() + b"\n",
        json.dumps(GOOD, indent=2).encode(),
    ],
)
def test_unusual_telemetry_is_accepted(data: bytes) -> None:
    batch = decode([record(data)])
    assert not batch.rejected
    assert len(batch.messages) == 1


def test_of_duplicate_keys_the_last_counts() -> None:
    (message,) = decode([record(text()[:-1] + b',"cadence":90.1}')]).messages
    assert message.cadence == 90.1


def test_records_cannot_leak_into_their_neighbours() -> None:
    # Joined with commas these three are two valid objects and one more: counts would match.
    bad = [b'{"x":[{}', b"{}]," + text()[1:], text() + b"," + text()]
    batch = decode([record(data, number) for number, data in enumerate(bad)])
    assert batch.messages == []
    assert [rejected.sequence_number for rejected in batch.rejected] == ["0", "1", "2"]


@given(st.lists(st.one_of(st.binary(max_size=200), st.sampled_from([data for data, _ in REASONS[:20]]))))
@example([text(), b"1],[2", text()])
def test_no_batch_raises_and_every_record_is_accounted_for(payloads: list[bytes]) -> None:
    batch = decode([record(data, number) for number, data in enumerate(payloads)])
    accounted = sorted([*batch.positions(), *[rejected.position for rejected in batch.rejected]])
    assert accounted == list(range(len(payloads)))
    assert len(batch.positions()) == len(batch.messages)
    for message, position in zip(batch.messages, batch.positions(), strict=True):
        assert msgspec.json.decode(payloads[position], type=Telemetry) == message


def exact_hundredths(cadence_tenths: int, resistance_tenths: int) -> int:
    """The design's definition, in integers."""
    return ((cadence_tenths + 350) * (resistance_tenths + 650) + 50) // 100


def test_output_is_exact_for_every_reading_a_bike_can_send() -> None:
    # 601 x 531 readings; the decimals come through JSON, as telemetry's do.
    cadences = [(tenths, float(f"{tenths / 10:.1f}")) for tenths in range(300, 901)]
    for resistance_tenths in range(330, 861):
        resistance = float(f"{resistance_tenths / 10:.1f}")
        for cadence_tenths, cadence in cadences:
            assert output_hundredths(cadence, resistance) == exact_hundredths(cadence_tenths, resistance_tenths)


@given(st.integers(0, 3000), st.integers(0, 3000))
def test_output_is_exact_over_the_whole_accepted_range(cadence_tenths: int, resistance_tenths: int) -> None:
    output = output_hundredths(cadence_tenths / 10, resistance_tenths / 10)
    assert output == exact_hundredths(cadence_tenths, resistance_tenths)


readings = st.tuples(st.sampled_from([7, 8]), st.sampled_from([1, 2]), st.integers(100, 104), st.integers(300, 900))


@given(st.lists(readings), st.randoms(use_true_random=False), st.integers(1, 5))
def test_aggregation_knows_no_order_and_no_repetition(rides: list[Any], rng: Any, cut: int) -> None:
    messages = [
        Telemetry("u", "update", 0, 0, race, "n", racer, class_id, tenths / 10, 50.0)
        for race, class_id, racer, tenths in rides
    ]
    expected: State = {}
    for race, class_id, racer, tenths in rides:
        best = expected.setdefault(f"{race}|{class_id}", {})
        best[str(racer)] = max(best.get(str(racer), 0), exact_hundredths(tenths, 500))
    shuffled = messages + messages[::cut]
    rng.shuffle(shuffled)
    state: State = {}
    aggregate(shuffled[:cut], state)
    aggregate(shuffled[cut:], state)
    assert state == expected


def test_ten_thousands_of_racers_fit_into_the_state_of_a_window() -> None:
    state: State = {}
    aggregate(
        [Telemetry("u", "update", 0, 0, 5403307, "n", racer, 1, 90.0, 86.0) for racer in range(100, 50_100)],
        state,
    )
    assert len(json.dumps(state, separators=(",", ":"))) < 1_000_000
