"""What the DynamoDB front needs of a store of tables and items: the contract that lets another take moto's place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from simulator.cloud.item_size import Item


class StoreAnswer(NamedTuple):
    """``body`` is the JSON of AWS's answer, success or error, as it goes on the wire."""

    status: int
    body: bytes


class Target(NamedTuple):
    """An item that a request names: its table (name or ARN) and its key; the whole item will do as well."""

    table: str
    key: Item


@dataclass(frozen=True, slots=True)
class Change:
    """What a staged write does to one item. When it was refused, ``after`` is ``before``. ``handle`` is the
    store's own."""

    before: Item | None
    after: Item | None
    handle: Any


@dataclass(frozen=True, slots=True)
class Staged:
    """A write that was carried out aside; ``changes`` are in the order of its targets."""

    answer: StoreAnswer
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Read:
    """A read that was carried out; ``evaluated_bytes`` are the item sizes it looked at, filtered out or not:
    one a target, or one sum for a Query or Scan."""

    answer: StoreAnswer
    evaluated_bytes: tuple[int, ...]


class Store(Protocol):
    """Tables and items with AWS's semantics and texts; knows nothing of capacity. Not thread-safe.

    ``body`` is the request's JSON, already known to parse. AWS's errors are answers, not exceptions.
    """

    def call(self, operation: str, body: bytes, region: str) -> StoreAnswer:
        """Carry out any operation at once."""

    def stage(self, operation: str, targets: Sequence[Target], body: bytes, region: str) -> Staged:
        """Carry out a write aside, leaving tables and streams as they are."""

    def commit(self, changes: Sequence[Change], region: str) -> None:
        """Make staged changes real, with their stream records. Nothing may have come between."""

    def read(self, operation: str, targets: Sequence[Target], body: bytes, region: str) -> Read:
        """Carry out a read."""

    def describe_table(self, table: str, region: str) -> Mapping[str, Any] | None:
        """The ``Table`` of DescribeTable; ``None`` when there is no such table."""


def table_name_of(name_or_arn: str) -> str:
    """``TableName`` may be an ARN; an index ARN names its table too."""
    return name_or_arn.partition(":table/")[2].partition("/")[0] if ":table/" in name_or_arn else name_or_arn
