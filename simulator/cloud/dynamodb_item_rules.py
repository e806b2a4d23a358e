"""What an item may hold beyond its size: nesting, numbers, sets. Texts as dynalite's author recorded them on AWS.

moto checks keys, sizes and types; these it lets pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from simulator.cloud import limits
from simulator.cloud.dynamodb_costs import TableSpec
from simulator.cloud.errors import AwsError
from simulator.cloud.item_size import Item, item_size

_LARGEST = Decimal("9.9999999999999999999999999999999999999E+125")
_SMALLEST = Decimal("1E-130")
_SETS = {"SS": "string", "NS": "number", "BS": "binary"}


def check_values(values: Iterable[Any]) -> None:
    """Check attribute values in DynamoDB JSON. :raises AwsError: ValidationException."""
    for value in values:
        _check(value, 1)


def check_key(spec: TableSpec, key: Item) -> None:
    """Check a request's Key: the table's key attributes, all of them, no other, of their types.

    :raises AwsError: ValidationException.
    """
    types = spec.attribute_types
    if set(key) != set(spec.key_attributes) or any(next(iter(key[name])) != types.get(name) for name in key):
        raise _invalid("The provided key element does not match the schema")


def check_size(after: Item | None, *, updated: bool = False) -> None:
    """Check the item that a write leaves. :raises AwsError: ValidationException above 400 KB."""
    if after is not None and item_size(after) > limits.ITEM_MAX_BYTES.value:
        raise _invalid(f"Item size {'to update ' if updated else ''}has exceeded the maximum allowed size")


def _check(value: Any, level: int) -> None:
    if not isinstance(value, Mapping) or len(value) != 1:
        return  # Not a value: the store says so in AWS's words.
    ((kind, content),) = value.items()
    if kind in ("L", "M"):
        if level > limits.NESTING_LEVELS.value:
            raise _invalid("Nesting Levels have exceeded supported limits")
        members = content.values() if isinstance(content, Mapping) else content
        for member in members if isinstance(members, Iterable) else ():
            _check(member, level + 1)
    elif kind == "N" and isinstance(content, str):
        _check_number(content)
    elif kind in _SETS and isinstance(content, list):
        if kind == "NS":
            for number in content:
                if isinstance(number, str):
                    _check_number(number)
        if len({str(one) for one in content}) < len(content):
            told = f"[{', '.join(map(str, content))}]"
            raise _invalid(f"One or more parameter values were invalid: Input collection {told} contains duplicates.")


def _check_number(text: str) -> None:
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        return
    if not number.is_finite() or not number:
        return
    digits = "".join(map(str, number.as_tuple().digits)).strip("0")
    if len(digits) > limits.NUMBER_DIGITS.value:
        raise _invalid("Attempting to store more than 38 significant digits in a Number")
    if abs(number) > _LARGEST:
        raise _invalid("Number overflow. Attempting to store a number with magnitude larger than supported range")
    if abs(number) < _SMALLEST:
        raise _invalid("Number underflow. Attempting to store a number with magnitude smaller than supported range")


def _invalid(text: str) -> AwsError:
    return AwsError("ValidationException", text)
