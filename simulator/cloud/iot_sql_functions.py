"""Functions of IoT Core's SQL (developer guide, *Functions*, ``iot-sql-functions``): those that need but the message.

Called with a wrong type or number of arguments a function returns Undefined (*Data types*), and so it does when an
argument is Undefined, unless the reference says otherwise.
"""

from __future__ import annotations

import math
import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_DOWN, ROUND_FLOOR, ROUND_HALF_UP, Decimal
from decimal import Context as DecimalContext
from typing import Any, Final

from simulator.cloud.iot_sql_model import FIRST_VERSION, Compiled, Context, SqlError
from simulator.cloud.iot_sql_strings import STRINGS
from simulator.cloud.iot_sql_time import parse_time
from simulator.cloud.iot_sql_values import (
    DECIMALS,
    UNDEFINED,
    remainder,
    to_boolean,
    to_int,
    to_number,
    to_string,
    whole,
)

NOT_SIMULATED: Final = frozenset(
    [
        "accountid",
        "aws_lambda",
        "bitnot",
        "get_dynamodb",
        "get_mqtt_property",
        "get_or_default",
        "get_registry_data",
        "get_secret",
        "get_thing_shadow",
        "get_user_properties",
        "machinelearning_predict",
        "md2",
        "sourceip",
        "time_to_epoch",
    ]
)
"""Of AWS's list, those that ask another service or that nobody has needed here yet.

``bitnot`` is here because the reference's one example, bitnot(13) = 2, fits no width that an Int could have.
"""

_SINCE_SECOND_VERSION = frozenset(
    ["decode", "encode", "indexof", "isundefined", "length", "numbytes", "parse_time", "transform"]
)


def compile_call(name: str, arguments: Sequence[Compiled], version: str) -> Compiled:
    """:raises SqlError: for a function that there is not, not in this version, or not here."""
    lower = name.lower()
    if lower in NOT_SIMULATED:
        raise SqlError(f"the function {name}() is not simulated here")
    if version == FIRST_VERSION and lower in _SINCE_SECOND_VERSION:
        raise SqlError(f"the function {name}() needs awsIotSqlVersion 2016-03-23 or later, not {version}")
    if lower == "sql_version":
        return lambda context: UNDEFINED if arguments else version
    if lower in _OF_MESSAGE:
        least, most, of_message = _OF_MESSAGE[lower]
        if not least <= len(arguments) <= most:
            return _undefined
        return lambda context: of_message(context, [one(context) for one in arguments])
    if lower not in _PLAIN:
        raise SqlError(f"there is no function {name}()")
    least, most, plain = _PLAIN[lower]
    if not least <= len(arguments) <= most:
        return _undefined
    if lower in _TAKES_UNDEFINED:
        return lambda context: plain(*(one(context) for one in arguments))

    def call(context: Context) -> Any:
        values = [one(context) for one in arguments]
        return UNDEFINED if any(value is UNDEFINED for value in values) else plain(*values)

    if lower == "get" and version != FIRST_VERSION:
        return lambda context: whole(call(context))
    return call


def _undefined(context: Context) -> Any:
    return UNDEFINED


# -- cast ----------------------------------------------------------------------------------------------


def compile_cast(value: Compiled, kind: str, version: str) -> Compiled:
    """``cast(value as kind)``. :raises SqlError: for a keyword that this version does not have."""
    casts = _CASTS if version == FIRST_VERSION else _CASTS | _CASTS_SINCE_SECOND_VERSION
    cast = casts.get(kind.lower())
    if cast is None:
        raise SqlError(f"there is no cast as {kind!r} in awsIotSqlVersion {version}; there are {', '.join(casts)}")
    if version != FIRST_VERSION and cast in (_as_decimal, _as_double):
        return lambda context: whole(cast(value(context)))
    return lambda context: cast(value(context))


def _as_decimal(value: Any) -> Any:
    if isinstance(value, bool):
        return Decimal("1.0") if value else Decimal("0.0")
    number = to_number(value)
    return Decimal(number) if isinstance(number, int) else number


def _as_double(value: Any) -> Any:
    number = _as_decimal(value)
    return UNDEFINED if number is UNDEFINED or math.isinf(float(number)) else float(number)


def _as_int(value: Any) -> Any:
    return int(value) if isinstance(value, bool) else to_int(value)


def _as_boolean(value: Any) -> Any:
    if isinstance(value, bool | str):
        return to_boolean(value)
    number = to_number(value)
    return UNDEFINED if number is UNDEFINED else number != 0


# The page's row for a String cast to String is that of a Boolean; a string is taken to stay what it is.
_CASTS: dict[str, Callable[[Any], Any]] = {
    "string": to_string,
    "nvarchar": to_string,
    "text": to_string,
    "ntext": to_string,
    "varchar": to_string,
    "int": _as_int,
    "integer": _as_int,
    "double": _as_double,
}
_CASTS_SINCE_SECOND_VERSION: dict[str, Callable[[Any], Any]] = {
    "decimal": _as_decimal,
    "bool": _as_boolean,
    "boolean": _as_boolean,
}


# -- of the message ------------------------------------------------------------------------------------


def _topic(context: Context, arguments: list[Any]) -> Any:
    """The topic, or its nth level, counted from 1."""
    topic = context.message.topic
    if not arguments:
        return topic
    levels, number = topic.split("/"), to_int(arguments[0])
    return UNDEFINED if number is UNDEFINED or not 1 <= number <= len(levels) else levels[number - 1]


_OF_MESSAGE: Mapping[str, tuple[int, int, Callable[[Context, list[Any]], Any]]] = {
    "topic": (0, 1, _topic),
    "timestamp": (0, 0, lambda context, _: context.message.timestamp_ms),
    # By HTTP and from another broker there is no client id; AWS says n/a.
    "clientid": (0, 0, lambda context, _: context.message.client_id or "n/a"),
    "principal": (0, 0, lambda context, _: context.message.principal or UNDEFINED),
    # Undefined for what was not sent over MQTT.
    "traceid": (0, 0, lambda context, _: context.trace_id if context.message.client_id else UNDEFINED),
    "newuuid": (0, 0, lambda context, _: str(uuid.uuid4())),
    "rand": (0, 0, lambda context, _: random.random()),
}


# -- of numbers ----------------------------------------------------------------------------------------

_LONG = DecimalContext(prec=1100)
"""Digits enough for 34 places of any Decimal."""


def _rounded(mode: str) -> Callable[[Any], Any]:
    def compute(value: Any) -> Any:
        number = to_number(value)
        if isinstance(number, Decimal):
            return int(number.to_integral_value(mode))
        return number

    return compute


def _double(work: Callable[..., float]) -> Callable[..., Any]:
    """A function whose arguments are rounded to double precision first, and whose result is of double precision."""

    def compute(*values: Any) -> Any:
        numbers = [to_number(value) for value in values]
        if any(number is UNDEFINED for number in numbers):
            return UNDEFINED
        try:
            found = work(*(float(number) for number in numbers))
        except (ValueError, ArithmeticError):
            return UNDEFINED
        # What is imaginary is Undefined.
        return UNDEFINED if isinstance(found, complex) or not math.isfinite(found) else found

    return compute


def _absolute(value: Any) -> Any:
    number = to_number(value)
    return number.copy_abs() if isinstance(number, Decimal) else number if number is UNDEFINED else abs(number)


def _sign(value: Any) -> Any:
    number = to_number(value)
    return UNDEFINED if number is UNDEFINED else (number > 0) - (number < 0)


def _trunc(value: Any, places: Any) -> Any:
    """To so many places, 0 to 34, without the zeros at the end. A String can be the first argument only."""
    number, digits = to_number(value), to_int(places)
    if number is UNDEFINED or digits is UNDEFINED or isinstance(places, str):
        return UNDEFINED
    shorter = Decimal(number).quantize(Decimal(1).scaleb(-min(max(digits, 0), 34)), ROUND_DOWN, _LONG)
    return int(shorter) if shorter == shorter.to_integral_value() else shorter.normalize(DECIMALS)


def _of_bits(work: Callable[[int, int], int]) -> Callable[[Any, Any], Any]:
    def compute(one: Any, other: Any) -> Any:
        left, right = to_int(one), to_int(other)
        return UNDEFINED if left is UNDEFINED or right is UNDEFINED else work(left, right)

    return compute


# -- of values -----------------------------------------------------------------------------------------


def get(of: Any, index: Any) -> Any:
    """A member of an object, an element of an array or a character, counted from 0; else Undefined.

    So the table; the example get("abc", 1) = "a" would count from 1.
    """
    if isinstance(of, dict) and isinstance(index, str):
        return of.get(index, UNDEFINED)
    if isinstance(of, list | str):
        at = to_int(index)
        return of[at] if at is not UNDEFINED and 0 <= at < len(of) else UNDEFINED
    return UNDEFINED


def _concat(*values: Any) -> Any:
    """An array if one of the arguments is one, else a string.

    A single argument is "returned unmodified" by the table, but 1 becomes "1" in the example; the example it is.
    """
    if any(isinstance(value, list) for value in values):
        return [one for value in values for one in (value if isinstance(value, list) else [value])]
    texts = [to_string(value) for value in values]
    return UNDEFINED if not texts or any(text is UNDEFINED for text in texts) else "".join(texts)


def _transform(mode: Any, attributes: Any, values: Any) -> Any:
    """Which of two attributes of one name stays is not said; here it is the one that is added."""
    if mode != "enrichArray" or not isinstance(attributes, dict) or not isinstance(values, list):
        return UNDEFINED
    if not all(isinstance(value, dict) for value in values):
        return UNDEFINED
    return [value | attributes for value in values]


_MANY = 1_000_000_000
_TAKES_UNDEFINED = frozenset({"isundefined", "isnull", "nanvl"})
_PLAIN: Mapping[str, tuple[int, int, Callable[..., Any]]] = {
    "abs": (1, 1, _absolute),
    "acos": (1, 1, _double(math.acos)),
    "asin": (1, 1, _double(math.asin)),
    "atan": (1, 1, _double(math.atan)),
    "atan2": (2, 2, _double(math.atan2)),
    "ceil": (1, 1, _rounded(ROUND_CEILING)),
    "cos": (1, 1, _double(math.cos)),
    "cosh": (1, 1, _double(math.cosh)),
    "exp": (1, 1, _double(math.exp)),
    "floor": (1, 1, _rounded(ROUND_FLOOR)),
    "ln": (1, 1, _double(math.log)),
    "log": (1, 1, _double(math.log10)),
    "power": (2, 2, _double(lambda base, exponent: base**exponent)),
    # "Up", where two Ints are equally near, is away from 0: round(-1.5) is -2 in the example.
    "round": (1, 1, _rounded(ROUND_HALF_UP)),
    "sign": (1, 1, _sign),
    "sin": (1, 1, _double(math.sin)),
    "sinh": (1, 1, _double(math.sinh)),
    "sqrt": (1, 1, _double(math.sqrt)),
    "tan": (1, 1, _double(math.tan)),
    "tanh": (1, 1, _double(math.tanh)),
    "trunc": (2, 2, _trunc),
    "mod": (2, 2, remainder),
    "remainder": (2, 2, remainder),
    "bitand": (2, 2, _of_bits(lambda one, other: one & other)),
    "bitor": (2, 2, _of_bits(lambda one, other: one | other)),
    "bitxor": (2, 2, _of_bits(lambda one, other: one ^ other)),
    "concat": (1, _MANY, _concat),
    "get": (2, 2, get),
    "isnull": (1, 1, lambda value: value is None),
    "isundefined": (1, 1, lambda value: value is UNDEFINED),
    "nanvl": (2, 2, lambda one, other: other if one is None or one is UNDEFINED else one),
    "parse_time": (2, 3, parse_time),
    "transform": (3, 3, _transform),
    **STRINGS,
}

SIMULATED: Final = frozenset({"cast", "sql_version", *_OF_MESSAGE, *_PLAIN})
