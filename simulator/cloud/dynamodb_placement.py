"""Which partitions a request touches: where its items and their index entries lie.

Everything is told lazily, as :data:`Touches`: a table of one partition, the usual case, never asks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from simulator.cloud.dynamodb_costs import Cost, TableSpec, index_moves
from simulator.cloud.dynamodb_partitions import Position, Touches, position
from simulator.cloud.item_size import Item

TouchMap = Mapping[str | None, Touches]
"""By global index; ``None`` is the table."""


def write_touches(spec: TableSpec, before: Item | None, after: Item | None, key: Item, cost: Cost) -> TouchMap:
    """A write's item, and on each global index the entries that go and come. ``key`` holds the item's key."""

    def entries_of(name: str, units: float) -> Touches:
        index = next(one for one in spec.global_indexes if one.name == name)

        def entries() -> Sequence[tuple[Position, float]]:
            moves = index_moves(index, before, after)
            # A transaction pays twice.
            factor = units / (sum(amount for _, amount in moves) or 1)
            return [(position(item, index.key_attributes), amount * factor) for item, amount in moves]

        return entries

    touches: dict[str | None, Touches] = {None: item_touches(spec, key, cost.table_units)}
    touches.update((name, entries_of(name, units)) for name, units in cost.global_.items())
    return touches


def item_touches(spec: TableSpec, key: Item, units: float) -> Touches:
    """One item of the table, named by its key or as a whole. Asked several times, it is placed once."""
    known: list[tuple[Position, float]] = []

    def touches() -> Sequence[tuple[Position, float]]:
        if not known:
            known.append((position(key, spec.key_attributes), units))
        return known

    return touches


def joined(maps: Iterable[TouchMap]) -> TouchMap:
    """What several items of one request touch together."""
    found: dict[str | None, list[Touches]] = {}
    for one in maps:
        for name, touches in one.items():
            found.setdefault(name, []).append(touches)

    def together(parts: list[Touches]) -> Touches:
        return lambda: [touch for part in parts for touch in part()]

    return {name: together(parts) for name, parts in found.items()}


def query_touches(spec: TableSpec, params: Mapping[str, Any], index_name: str | None, units: float) -> Touches | None:
    """The partition key that a Query names; None when it cannot be told, as of a Scan."""
    index = next((one for one in spec.global_indexes if one.name == index_name), None)
    keys = index.key_attributes if index is not None else spec.key_attributes
    value = _key_value(params, keys[0])
    if value is None:
        return None
    return lambda: [(position({keys[0]: value}, keys[:1]), units)]


def _key_value(params: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """The value that the request's key condition wants ``name`` to equal."""
    legacy = (params.get("KeyConditions") or {}).get(name)
    if legacy:
        return next(iter(legacy.get("AttributeValueList", ())), None)
    names = params.get("ExpressionAttributeNames") or {}
    values = params.get("ExpressionAttributeValues") or {}
    for left, right in re.findall(r"([#\w.-]+)\s*=\s*(:\w+)", params.get("KeyConditionExpression") or ""):
        if names.get(left, left) == name:
            value: dict[str, Any] | None = values.get(right)
            return value
    return None
