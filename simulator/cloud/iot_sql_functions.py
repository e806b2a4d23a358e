"""Functions of IoT Core's SQL (developer guide, *Functions*): those that need nothing but the message."""

from __future__ import annotations

import base64
import hashlib
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from decimal import ROUND_HALF_UP
from typing import Any, Final

import orjson

from simulator.cloud.iot_sql import Compiled, Context, SqlError, get
from simulator.cloud.iot_sql_values import UNDEFINED, remainder, to_boolean, to_number, to_text

NOT_SIMULATED: Final = frozenset(
    [
        "accountid",
        "aws_lambda",
        "bitand",
        "bitor",
        "bitxor",
        "bitnot",
        "decode",
        "get_dynamodb",
        "get_mqtt_property",
        "get_or_create_kafka_header",
        "get_registry_data",
        "get_secret",
        "get_thing_shadow",
        "get_user_properties",
        "machinelearning_predict",
        "numbytes",
        "parse_time",
        "sourceip",
        "time_to_epoch",
        "transform",
        "rpad",
        "lpad",
        "regexp_matches",
        "regexp_replace",
        "regexp_substr",
    ]
)
"""Of AWS's list, those that ask another service or that nobody has needed here yet."""


def compile_call(name: str, arguments: Sequence[Compiled]) -> Compiled:
    """:raises SqlError: for a function that is not known or not simulated, or a wrong number of arguments."""
    lower = name.lower()
    if lower in _OF_MESSAGE:
        least, most, of_message = _OF_MESSAGE[lower]
        _check_count(name, len(arguments), least, most)
        return lambda context: of_message(context, [one(context) for one in arguments])
    if lower in _PLAIN:
        least, most, plain = _PLAIN[lower]
        _check_count(name, len(arguments), least, most)
        if lower in _TAKES_UNDEFINED:
            return lambda context: plain(*(one(context) for one in arguments))

        def call(context: Context) -> Any:
            values = [one(context) for one in arguments]
            return UNDEFINED if any(value is UNDEFINED for value in values) else plain(*values)

        return call
    if lower in NOT_SIMULATED:
        raise SqlError(f"the function {name}() is not simulated here")
    raise SqlError(f"there is no function {name}()")


def _check_count(name: str, count: int, least: int, most: int) -> None:
    if not least <= count <= most:
        wanted = str(least) if least == most else f"{least} to {most}"
        raise SqlError(f"{name}() takes {wanted} arguments, not {count}")


# -- of the message ------------------------------------------------------------------------------------


def _topic(context: Context, arguments: list[Any]) -> Any:
    """The topic, or its nth level, counted from 1."""
    topic = context.message.topic
    if not arguments:
        return topic
    levels, number = topic.split("/"), to_number(arguments[0])
    if not isinstance(number, int) or not 1 <= number <= len(levels):
        return UNDEFINED
    return levels[number - 1]


_OF_MESSAGE: Mapping[str, tuple[int, int, Callable[[Context, list[Any]], Any]]] = {
    "topic": (0, 1, _topic),
    "timestamp": (0, 0, lambda context, _: context.message.timestamp_ms),
    # By HTTP and from another broker there is no client id; AWS says n/a.
    "clientid": (0, 0, lambda context, _: context.message.client_id or "n/a"),
    "principal": (0, 0, lambda context, _: context.message.principal or UNDEFINED),
    "traceid": (0, 0, lambda context, _: context.trace_id),
    "newuuid": (0, 0, lambda context, _: str(uuid.uuid4())),
    "qos": (0, 0, lambda context, _: context.message.qos),
}


# -- of values -----------------------------------------------------------------------------------------


def _number(work: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def compute(value: Any) -> Any:
        number = to_number(value)
        if number is UNDEFINED:
            return UNDEFINED
        try:
            found = work(number)
        except (ValueError, OverflowError):
            return UNDEFINED
        return found if isinstance(found, int) or math.isfinite(found) else UNDEFINED

    return compute


def _power(base: Any, exponent: Any) -> Any:
    one, other = to_number(base), to_number(exponent)
    if one is UNDEFINED or other is UNDEFINED or abs(other) > 1_000:
        return UNDEFINED
    try:
        found = one**other
    except (ValueError, ZeroDivisionError, OverflowError):
        return UNDEFINED
    return found if not isinstance(found, complex) else UNDEFINED


def _round(value: Any) -> Any:
    """To the nearest Int; what lies between two goes away from zero, so that round(-1.5) is -2."""
    if isinstance(value, int):
        return value
    return int(value.to_integral_value(ROUND_HALF_UP))


def _trunc(value: Any, places: Any = 0) -> Any:
    number, digits = to_number(value), to_number(places)
    if number is UNDEFINED or not isinstance(digits, int) or not 0 <= digits <= 34:
        return UNDEFINED
    factor = 10**digits
    found = math.trunc(number * factor) / factor
    return int(found) if digits == 0 else found


def _text(work: Callable[..., Any]) -> Callable[..., Any]:
    """``work`` on the first argument as a string."""
    return lambda value, *more: work(to_text(value), *more)


def _substring(text: str, start: Any, end: Any = None) -> Any:
    first = to_number(start)
    last = len(text) if end is None else to_number(end)
    if not isinstance(first, int) or not isinstance(last, int):
        return UNDEFINED
    return text[max(0, first) : max(0, last)]


def _cast(value: Any, kind: Any) -> Any:
    match to_text(kind).lower():
        case "string":
            return to_text(value)
        case "int" | "integer":
            number = to_number(value)
            return UNDEFINED if number is UNDEFINED else math.trunc(number)
        case "decimal":
            number = to_number(value)
            return UNDEFINED if number is UNDEFINED else float(number)
        case "boolean" | "bool":
            return to_boolean(value)
    return UNDEFINED


def _encode(value: Any, scheme: Any) -> Any:
    if scheme != "base64":
        return UNDEFINED
    data = value if isinstance(value, bytes) else to_text(value).encode()
    return base64.b64encode(data).decode()


def _length(value: Any) -> Any:
    return len(value) if isinstance(value, str) else len(to_text(value))


def _parse_json(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return UNDEFINED


def _digest(name: str) -> Callable[[Any], str]:
    return lambda value: hashlib.new(name, to_text(value).encode(), usedforsecurity=False).hexdigest()


def _chr(value: Any) -> Any:
    number = to_number(value)
    return chr(number) if isinstance(number, int) and 0 <= number < 0xD800 else UNDEFINED


def _coalesce(*values: Any) -> Any:
    return next((value for value in values if value is not UNDEFINED and value is not None), UNDEFINED)


def _nullif(one: Any, other: Any) -> Any:
    return None if one == other else one


_MANY = 100
_TAKES_UNDEFINED = frozenset({"isundefined", "isnull", "coalesce"})
_PLAIN: Mapping[str, tuple[int, int, Callable[..., Any]]] = {
    "abs": (1, 1, _number(abs)),
    "acos": (1, 1, _number(math.acos)),
    "asin": (1, 1, _number(math.asin)),
    "atan": (1, 1, _number(math.atan)),
    "ceil": (1, 1, _number(math.ceil)),
    "cos": (1, 1, _number(math.cos)),
    "exp": (1, 1, _number(math.exp)),
    "floor": (1, 1, _number(math.floor)),
    "ln": (1, 1, _number(math.log)),
    "log": (1, 1, _number(math.log10)),
    "power": (2, 2, _power),
    "round": (1, 1, _number(_round)),
    "sign": (1, 1, _number(lambda value: (value > 0) - (value < 0))),
    "sin": (1, 1, _number(math.sin)),
    "sqrt": (1, 1, _number(math.sqrt)),
    "tan": (1, 1, _number(math.tan)),
    "trunc": (1, 2, _trunc),
    "mod": (2, 2, remainder),
    "cast": (2, 2, _cast),
    "chr": (1, 1, _chr),
    "concat": (1, _MANY, lambda *values: "".join(to_text(value) for value in values)),
    "encode": (2, 2, _encode),
    "endswith": (2, 2, _text(lambda text, end: text.endswith(to_text(end)))),
    "get": (2, 2, get),
    "indexof": (2, 2, _text(lambda text, part: text.find(to_text(part)))),
    "isnull": (1, 1, lambda value: value is None),
    "isundefined": (1, 1, lambda value: value is UNDEFINED),
    "coalesce": (1, _MANY, _coalesce),
    "nullif": (2, 2, _nullif),
    "length": (1, 1, _length),
    "lower": (1, 1, _text(str.lower)),
    "upper": (1, 1, _text(str.upper)),
    "ltrim": (1, 1, _text(str.lstrip)),
    "rtrim": (1, 1, _text(str.rstrip)),
    "trim": (1, 1, _text(str.strip)),
    "md5": (1, 1, _digest("md5")),
    "sha1": (1, 1, _digest("sha1")),
    "sha224": (1, 1, _digest("sha224")),
    "sha256": (1, 1, _digest("sha256")),
    "sha384": (1, 1, _digest("sha384")),
    "sha512": (1, 1, _digest("sha512")),
    "parse_json": (1, 1, _text(_parse_json)),
    "replace": (3, 3, _text(lambda text, old, new: text.replace(to_text(old), to_text(new)))),
    "startswith": (2, 2, _text(lambda text, start: text.startswith(to_text(start)))),
    "substring": (2, 3, _text(_substring)),
    "remainder": (2, 2, remainder),
}
