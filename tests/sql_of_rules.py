"""What the tests of IoT Core's SQL have in common: a message, and what a statement or an expression makes of it."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from simulator.cloud.iot_sql import Context, Message, parse, parse_expression

SECOND = "2016-03-23"
BIKE = {
    "racerId": 101,
    "raceId": 5403307,
    "cadence": 80.4,
    "name": "Hubert",
    "on": True,
    "none": None,
    "deep": {"a": {"b": [1, {"c": "x"}]}, "with space": 3},
    "list": [10, 20, 30],
    "text": "42",
}


def message(payload: Any = None, topic: str = "bikes/101/telemetry", **more: Any) -> Message:
    body = payload if isinstance(payload, bytes) else json.dumps(BIKE if payload is None else payload).encode()
    return Message(topic, body, more.pop("client_id", "bike-101"), 1_620_240_672_076, **more)


def select(sql: str, payload: Any = None, version: str = SECOND, **more: Any) -> Any:
    told = parse(sql, version).evaluate(Context(message(payload, **more)))
    return None if told is None else json.loads(told)


def value(expression: str, payload: Any = None, version: str = SECOND, **more: Any) -> Any:
    return parse_expression(expression, version)(Context(message(payload, **more)))


def same(found: Any, expected: Any) -> bool:
    """Equal, an Int to an Int and a Decimal, here written as a ``float``, to the Decimal of those digits."""
    if isinstance(found, Decimal | float) and isinstance(expected, float):
        return Decimal(str(found)) == Decimal(repr(expected))
    return type(found) is type(expected) and bool(found == expected)
