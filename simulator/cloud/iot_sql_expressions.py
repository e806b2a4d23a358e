"""Expressions of IoT Core's SQL as closures over a message: what the parser puts together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from simulator.cloud.iot_sql_model import Compiled, Context
from simulator.cloud.iot_sql_values import UNDEFINED, equal, to_boolean, whole


def document(context: Context) -> Any:
    return context.document


def constant(value: Any) -> Compiled:
    return lambda context: value


def field(of: Compiled, name: str) -> Compiled:
    def read(context: Context) -> Any:
        found = of(context)
        return found.get(name, UNDEFINED) if isinstance(found, dict) else UNDEFINED

    return read


def field_or_whole(of: Compiled, name: str) -> Compiled:
    def read(context: Context) -> Any:
        found = of(context)
        value = found.get(name, UNDEFINED) if isinstance(found, dict) else UNDEFINED
        return whole(value) if isinstance(value, float) else value

    return read


def array_of(parts: Sequence[Compiled]) -> Compiled:
    return lambda context: [value for value in (part(context) for part in parts) if value is not UNDEFINED]


def binary(work: Callable[[Any, Any], Any], left: Compiled, right: Compiled) -> Compiled:
    def compute(context: Context) -> Any:
        one, other = left(context), right(context)
        return UNDEFINED if one is UNDEFINED or other is UNDEFINED else work(one, other)

    return compute


def logical(work: Callable[[Any, Any], Any], left: Compiled, right: Compiled) -> Compiled:
    return lambda context: work(left(context), right(context))


def negated(of: Compiled) -> Compiled:
    def compute(context: Context) -> Any:
        value = to_boolean(of(context))
        return UNDEFINED if value is UNDEFINED else not value

    return compute


def object_of(members: Sequence[tuple[str, Compiled]]) -> Compiled:
    def build(context: Context) -> Any:
        values = [(name, value(context)) for name, value in members]
        return {name: value for name, value in values if value is not UNDEFINED}

    return build


def chosen(subject: Compiled, branches: Sequence[tuple[Compiled, Compiled]], otherwise: Compiled) -> Compiled:
    """CASE: the result of the first branch whose value equals the subject's; Undefined if the subject is that."""

    def choose(context: Context) -> Any:
        value = subject(context)
        if value is UNDEFINED:
            return UNDEFINED
        for wanted, result in branches:
            if equal(value, wanted(context)):
                return result(context)
        return otherwise(context)

    return choose
