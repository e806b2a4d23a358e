"""Item sizes and units: AWS's worked examples, and the arithmetic's properties."""

from __future__ import annotations

import base64
import json
import time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.cloud.item_size import (
    ItemFormatError,
    item_size,
    number_bytes,
    read_units,
    text_bytes,
    value_size,
    write_units,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 1),
        ("-0", 1),
        ("0.000", 1),
        ("1", 2),
        ("-1", 3),
        ("10", 2),
        ("100", 2),
        ("101", 3),
        ("12", 2),  # digits fill one pair: 12
        ("1.2", 3),  # and spill over here: 01 20
        ("123", 3),
        ("1234", 3),
        ("123.4", 4),
        ("0.5", 2),
        ("0.05", 2),
        ("0.012", 3),  # 01 20 at an even exponent
        ("0.12", 2),
        ("-1.5", 4),
        ("1E+125", 2),
        ("1E-130", 2),
        ("00012", 2),
        ("1200.00", 2),
        ("9" * 38, 20),
        ("-" + "9" * 38, 21),
        ("1." + "9" * 37, 21),  # the documented maximum of a positive number
    ],
)
def test_numbers(text: str, expected: int) -> None:
    assert number_bytes(text) == expected


# The stream records in AWS's documentation: SizeBytes is the size of Keys, NewImage and OldImage together.
KEYS = {"Id": {"N": "101"}}
FIRST = {"Message": {"S": "New item!"}, "Id": {"N": "101"}}
SECOND = {"Message": {"S": "This item has changed"}, "Id": {"N": "101"}}


@pytest.mark.parametrize(
    ("images", "size_bytes"),
    [((KEYS, FIRST), 26), ((KEYS, SECOND, FIRST), 59), ((KEYS, SECOND), 38)],
    ids=["INSERT", "MODIFY", "REMOVE"],
)
def test_stream_records_of_the_aws_documentation(images: tuple[dict[str, Any], ...], size_bytes: int) -> None:
    assert sum(map(item_size, images)) == size_bytes


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"S": ""}, 0),
        ({"S": "é"}, 2),
        ({"S": "🚲"}, 4),
        ({"B": b"abc"}, 3),
        ({"B": base64.b64encode(b"abcd").decode()}, 4),
        ({"BOOL": False}, 1),
        ({"NULL": True}, 1),
        ({"L": []}, 3),
        ({"M": {}}, 3),
        ({"L": [{"N": "0"}, {"S": "ab"}]}, 3 + (1 + 1) + (1 + 2)),
        ({"M": {"key": {"BOOL": True}}}, 3 + 1 + 3 + 1),
        ({"M": {"k": {"L": [{"NULL": True}]}}}, 3 + 1 + 1 + (3 + 1 + 1)),
        ({"SS": ["a", "bc"]}, 3),
        ({"NS": ["101", "0"]}, 4),
        ({"BS": [b"ab", b"c"]}, 3),
    ],
)
def test_values(value: dict[str, Any], expected: int) -> None:
    assert value_size(value) == expected
    assert item_size({"näme": value}) == expected + 5


@pytest.mark.parametrize(
    "item",
    [{"a": {"X": "1"}}, {"a": {}}, {"a": {"N": "twelve"}}, {"a": {"N": "NaN"}}, {"a": "plain"}, {"a": {"S": 5}}],
)
def test_what_is_no_item_is_named(item: dict[str, Any]) -> None:
    with pytest.raises(ItemFormatError, match="attribute 'a' is not in DynamoDB JSON"):
        item_size(item)


@given(st.binary(max_size=100))
def test_binary_is_the_same_raw_and_in_base64(content: bytes) -> None:
    assert value_size({"B": base64.b64encode(content).decode()}) == value_size({"B": content}) == len(content)


@given(st.text(max_size=200))
def test_text_is_its_utf_8(text: str) -> None:
    assert text_bytes(text) == len(text.encode("utf-8", "surrogatepass"))


def base_100_digits(number: Decimal) -> int:
    """The number rule told another way: count the base-100 digits between the outermost that are not zero."""
    digits = format(number.copy_abs(), "f")
    whole, _, fraction = digits.partition(".")
    whole = "0" * (len(whole) % 2) + whole
    fraction += "0" * (len(fraction) % 2)
    text = whole + fraction
    pairs = [text[i : i + 2] for i in range(0, len(text), 2)]
    used = [i for i, pair in enumerate(pairs) if pair != "00"]
    return used[-1] - used[0] + 1 if used else 0


@given(
    st.integers(-(10**38) + 1, 10**38 - 1).flatmap(
        lambda digits: st.integers(-60, 60).map(lambda exponent: Decimal(f"{digits}E{exponent}"))
    )
)
def test_a_number_is_its_base_100_digits(number: Decimal) -> None:
    expected = 1 + base_100_digits(number) + (number < 0) if number else 1
    assert number_bytes(str(number)) == number_bytes(format(number, "f")) == expected
    assert expected <= 1 + 20 + 1


@given(st.dictionaries(st.text(max_size=5), st.sampled_from([{"S": "x"}, {"N": "7"}, {"BOOL": True}]), max_size=6))
def test_an_item_is_the_sum_of_its_attributes(item: dict[str, Any]) -> None:
    assert item_size(item) == sum(item_size({name: value}) for name, value in item.items())


@pytest.mark.parametrize(("size_bytes", "units"), [(0, 1), (1, 1), (1024, 1), (1025, 2), (14 * 1024, 14)])
def test_write_units(size_bytes: int, units: int) -> None:
    assert write_units(size_bytes) == units


@pytest.mark.parametrize(("size_bytes", "units"), [(0, 1), (4096, 1), (4097, 2), (14 * 1024, 4)])
def test_read_units(size_bytes: int, units: int) -> None:
    assert read_units(size_bytes, consistent=True) == units
    assert read_units(size_bytes) == units / 2


def test_the_results_item_of_a_race_is_sized_in_microseconds() -> None:
    results = json.dumps({str(racer): 123.45 for racer in range(100, 1100)})
    item = {"PK": {"S": "race-5403307"}, "SK": {"S": "results"}, "results": {"S": results}}
    assert item_size(item) > 13_000
    started = time.perf_counter()
    for _ in range(1000):
        item_size(item)
    # Encoding it character by character takes some 500 us an item; this takes about 2.
    assert (time.perf_counter() - started) / 1000 < 100e-6
