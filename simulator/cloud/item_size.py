"""Sizes of DynamoDB items in bytes, and the capacity units they cost.

Items are in DynamoDB JSON, ``{"PK": {"S": "race-1"}, "n": {"N": "101"}}``; a binary value may be ``bytes`` or
the base64 text of the wire. Nothing here reads a clock, a table or a setting.

Sources: CAH ``CapacityUnitCalculations`` for every type but numbers, whose page only says "approximately";
the number rule is dynalite's, tested against AWS, and agrees with the SizeBytes of the stream records in the
AWS documentation (26, 59 and 38 bytes). It is what you get when a number is kept as base-100 digits aligned
at the decimal point: one byte for the exponent, one a pair of digits, one more for a minus sign.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from simulator.cloud.limits import READ_UNIT_BYTES, WRITE_UNIT_BYTES

AttributeValue = Mapping[str, Any]
Item = Mapping[str, AttributeValue]

_CONTAINER_BYTES = 3
_ELEMENT_BYTES = 1
_WRITE_UNIT = int(WRITE_UNIT_BYTES)
_READ_UNIT = int(READ_UNIT_BYTES)


class ItemFormatError(ValueError):
    """What should be an item is not in DynamoDB JSON; the text names the attribute."""


def item_size(item: Item) -> int:
    """Bytes of an item as capacity units count it: names and values, no indexing overhead.

    Raises :class:`ItemFormatError` for an attribute that is not in DynamoDB JSON.
    """
    total = 0
    for name, value in item.items():
        try:
            total += text_bytes(name) + value_size(value)
        except (AttributeError, TypeError, ValueError) as error:
            raise ItemFormatError(f"attribute {name!r} is not in DynamoDB JSON: {error}") from None
    return total


def value_size(value: AttributeValue) -> int:
    """Bytes of one typed value, such as ``{"S": "abc"}``; raises ``ValueError`` for an unknown type."""
    if len(value) != 1:
        raise ValueError(f"a value needs exactly one type, got {sorted(value)}")
    ((kind, content),) = value.items()
    match kind:
        case "S":
            return text_bytes(content)
        case "N":
            return number_bytes(content)
        case "M":
            return _CONTAINER_BYTES + sum(
                _ELEMENT_BYTES + text_bytes(name) + value_size(member) for name, member in content.items()
            )
        case "L":
            return _CONTAINER_BYTES + sum(_ELEMENT_BYTES + value_size(member) for member in content)
        case "BOOL" | "NULL":
            return 1
        case "B":
            return _binary_bytes(content)
        case "SS":
            return sum(map(text_bytes, content))
        case "NS":
            return sum(map(number_bytes, content))
        case "BS":
            return sum(map(_binary_bytes, content))
    raise ValueError(f"unknown type {kind!r}; DynamoDB has S, N, B, BOOL, NULL, M, L, SS, NS and BS")


def text_bytes(text: str) -> int:
    """Bytes of ``text`` in UTF-8, without encoding it when it is ASCII."""
    return len(text) if text.isascii() else len(text.encode())


def number_bytes(text: str) -> int:
    """Bytes of a number given as text: ``"0"`` is 1, ``"101"`` is 3, ``"-1.5"`` is 4.

    Raises ``ValueError`` for what is no finite number.
    """
    if text.isascii() and text.isdigit():
        integer = text.lstrip("0")
        significant = len(integer.rstrip("0"))
        exponent = len(integer) - 1
        negative = False
    else:
        try:
            number = Decimal(text)
        except InvalidOperation:
            raise ValueError(f"{text!r} is not a number") from None
        if not number.is_finite():
            raise ValueError(f"{text!r} is not a finite number")
        sign, digits, _ = number.as_tuple()
        significant = len(bytes(digits).rstrip(b"\x00"))
        exponent = number.adjusted()
        negative = sign == 1
    if significant == 0:
        return 1
    # An even exponent leaves the first digit alone in its pair, which an even number of digits then spills over.
    spilled = significant % 2 == 0 and exponent % 2 == 0
    return 1 + (significant + 1) // 2 + spilled + negative


def _binary_bytes(content: bytes | str) -> int:
    if isinstance(content, bytes):
        return len(content)
    return len(content) * 3 // 4 - content.count("=", -2)


def write_units(size_bytes: int) -> int:
    """Write capacity units of one write of ``size_bytes``: a unit a started KiB, at least one."""
    return max(1, -(-size_bytes // _WRITE_UNIT))


def read_units(size_bytes: int, consistent: bool = False) -> float:
    """Read capacity units of one read of ``size_bytes`` in all: a unit a started 4 KiB, at least one; half of
    that when the read is eventually consistent. A missing item is 0 bytes."""
    units = max(1, math.ceil(size_bytes / _READ_UNIT))
    return float(units) if consistent else units / 2
