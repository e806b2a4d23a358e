"""Values of IoT Core's SQL: how they convert, and what operators make of them. No I/O.

By the developer guide's pages *Data types* (``iot-sql-data-types``) and *Operators* (``iot-sql-operators``). An Int is
an ``int``. A Decimal is a ``float`` as the payload has it, or by a function of double precision, and a
:class:`decimal.Decimal` of 34 digits once something was computed, so that 0.1 + 0.2 is 0.3 here as it is there.

``UNDEFINED`` is the value of whatever is not there, and of whatever makes no sense.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Context as DecimalContext
from decimal import Decimal, DivisionByZero, InvalidOperation, Overflow
from typing import Any, Final

import orjson


class _Undefined:
    """The one value of what is not there."""

    def __repr__(self) -> str:
        return "Undefined"

    def __bool__(self) -> bool:
        return False


UNDEFINED: Final = _Undefined()

DIGITS: Final = 34
# How the 35th digit is rounded the reference does not say; 34 digits are IEEE 754's decimal128, which rounds to even.
DECIMALS: Final = DecimalContext(
    prec=DIGITS, Emin=-999, Emax=999, capitals=1, clamp=0, traps=[DivisionByZero, InvalidOperation, Overflow]
)
_LARGEST_INT = 10**DIGITS
_NUMBER_IN_STRING = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE]-?[0-9]+)?")

Operator = Callable[[Any, Any], Any]


# -- conversions ---------------------------------------------------------------------------------------


def to_boolean(value: Any) -> Any:
    """True, False or Undefined. Of strings only "true" and "false", in any case, are Booleans."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    return UNDEFINED


def to_number(value: Any) -> Any:
    """An ``int`` as it is, a ``Decimal`` of another number or of a string that is one; else Undefined."""
    if isinstance(value, bool):
        return UNDEFINED
    if isinstance(value, int | Decimal):
        return value
    if isinstance(value, float):
        return Decimal(repr(value))
    if isinstance(value, str) and _NUMBER_IN_STRING.fullmatch(value):
        try:
            return DECIMALS.create_decimal(value)
        except ArithmeticError:
            return UNDEFINED
    return UNDEFINED


def to_int(value: Any) -> Any:
    """An ``int``, or Undefined.

    *Data types* rounds a Decimal to the nearest Int, but every function says "rounded down", and the examples of
    ``substring`` make 2 of 2.745. Strings lose their decimal places, so down is taken to be towards 0.
    """
    number = to_number(value)
    return UNDEFINED if number is UNDEFINED else int(number)


def to_string(value: Any) -> Any:
    """A ``str``; Undefined for Null and Undefined."""
    if isinstance(value, str):
        return value
    if value is None or value is UNDEFINED:
        return UNDEFINED
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(Decimal(repr(value)))
    return str(value) if isinstance(value, int | Decimal) else to_json(value).decode()


def to_text(value: Any) -> str:
    """How a value stands in a substitution template, where Null is ``null`` and what is not there ``undefined``."""
    found = to_string(value)
    if isinstance(found, str):
        return found
    return "undefined" if value is UNDEFINED else "null"


def whole(value: Any) -> Any:
    """A Decimal without a fraction as an Int, which is how version 2016-03-23 takes 10.0; anything else as it is."""
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < _LARGEST_INT else value
    if isinstance(value, Decimal):
        return int(value) if abs(value) < _LARGEST_INT and value == value.to_integral_value() else value
    return value


def to_json(value: Any) -> bytes:
    """:raises TypeError: for what is nested more deeply than JSON is written here."""
    try:
        return orjson.dumps(value, default=_digits)
    except TypeError:
        # An Int of more than 64 bits, which orjson does not write itself.
        return orjson.dumps(_with_long_ints(value), default=_digits)


def _digits(value: Any) -> orjson.Fragment:
    if isinstance(value, Decimal):
        return orjson.Fragment(str(value))
    raise TypeError(f"{type(value).__name__} is no value of SQL")


def _with_long_ints(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_long_ints(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_with_long_ints(one) for one in value]
    return orjson.Fragment(str(value)) if isinstance(value, int) and value.bit_length() > 63 else value


# -- arithmetic ----------------------------------------------------------------------------------------


def _arithmetic(of_ints: Callable[[int, int], int], of_decimals: Callable[[Any, Any], Decimal]) -> Operator:
    """Int of two Ints; Decimal if one is a Decimal or a String; Undefined of anything else, and where it fails.

    That what fails, such as 1 / 0, is Undefined is said of functions only; for operators no source was found.
    """

    def compute(one: Any, other: Any) -> Any:
        left, right = to_number(one), to_number(other)
        if left is UNDEFINED or right is UNDEFINED:
            return UNDEFINED
        try:
            if isinstance(left, int) and isinstance(right, int):
                found = of_ints(left, right)
                return found if abs(found) < _LARGEST_INT else DECIMALS.create_decimal(found)
            return of_decimals(left, right)
        except ArithmeticError:
            return UNDEFINED

    return compute


def _quotient(one: int, other: int) -> int:
    """An Int of two Ints, as the operand table has it; towards which side is not said, here it is towards 0."""
    found = abs(one) // abs(other)
    return found if (one < 0) == (other < 0) else -found


_sum_of_numbers = _arithmetic(lambda one, other: one + other, DECIMALS.add)
subtract: Final = _arithmetic(lambda one, other: one - other, DECIMALS.subtract)
multiply: Final = _arithmetic(lambda one, other: one * other, DECIMALS.multiply)
divide: Final = _arithmetic(_quotient, DECIMALS.divide)
remainder: Final = _arithmetic(lambda one, other: one - other * _quotient(one, other), DECIMALS.remainder)


def add(one: Any, other: Any) -> Any:
    """Either being a String, both are put together as strings."""
    if isinstance(one, str) or isinstance(other, str):
        left, right = to_string(one), to_string(other)
        return UNDEFINED if left is UNDEFINED or right is UNDEFINED else left + right
    return _sum_of_numbers(one, other)


ARITHMETIC: Final[dict[str, Operator]] = {
    "+": add,
    "-": subtract,
    "*": multiply,
    "/": divide,
    "%": remainder,
}


# -- logic and comparison ------------------------------------------------------------------------------


def both(one: Any, other: Any) -> Any:
    """AND. By its table any operand that is no Boolean makes Undefined, also if the other one is false."""
    left, right = to_boolean(one), to_boolean(other)
    return UNDEFINED if left is UNDEFINED or right is UNDEFINED else left and right


def either(one: Any, other: Any) -> Any:
    """OR. By its table any operand that is no Boolean makes Undefined, also if the other one is true."""
    left, right = to_boolean(one), to_boolean(other)
    return UNDEFINED if left is UNDEFINED or right is UNDEFINED else left or right


def equal(one: Any, other: Any) -> bool:
    """Numbers by value, all else only with its own type; the order of keys does not matter."""
    if _is_number(one) and _is_number(other):
        return bool(one == other if type(one) is type(other) else to_number(one) == to_number(other))
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(equal(left, right) for left, right in zip(one, other, strict=True))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(value, other[name]) for name, value in one.items())
    return type(one) is type(other) and bool(one == other)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _ordered(work: Callable[[Any, Any], bool]) -> Operator:
    """Both operands are converted to Decimal; Undefined if one cannot be."""

    def compare(one: Any, other: Any) -> Any:
        if type(one) is type(other) and isinstance(one, int | float) and not isinstance(one, bool):
            return work(one, other)
        left, right = to_number(one), to_number(other)
        return UNDEFINED if left is UNDEFINED or right is UNDEFINED else work(left, right)

    return compare


def is_in(one: Any, others: Any) -> Any:
    return any(equal(one, other) for other in others) if isinstance(others, list) else UNDEFINED


COMPARISONS: Final[dict[str, Operator]] = {
    "=": equal,
    "<>": lambda one, other: not equal(one, other),
    "<": _ordered(lambda one, other: one < other),
    "<=": _ordered(lambda one, other: one <= other),
    ">": _ordered(lambda one, other: one > other),
    ">=": _ordered(lambda one, other: one >= other),
}
