"""The physical partitions of a table or index: 1,000 write and 3,000 read units a second each. No I/O, no clock.

AWS publishes the limit of a partition and that "adaptive capacity" lets a hot one use all of its table's
throughput up to that limit, at once; and that partitions which stay hot are split ("split for heat"), down to a
single item, but never within an item collection of a table with a local index, and to no avail when all writes go
to the end of a sort key. It publishes neither how many partitions there are nor when one splits. The model:

* As many partitions as the provisioned units need at 1,000 and 3,000 each; four for a new on-demand table.
* Adaptive capacity: no partition has a share of its own. All draw on the table's bucket, and each has its limit.
* A partition that was refused again and again for ``dynamodb_split_seconds`` is cut where half of what it is asked for
  lies on either side, in the order of (hash of the partition key, sort key). Where that would cut an item collection
  of a table with local indexes, it is cut beside it. A single hot item, or a growing sort key, gains nothing.

One partition, the usual case here, costs one bucket a request; keys are hashed only where there are several.
"""

from __future__ import annotations

import hashlib
import struct
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from simulator.cloud import limits
from simulator.cloud.limits import EPSILON, LimitSettings, TokenBucket

HASH_BYTES = 16
_SAMPLE = 64
_COOLS_AFTER_S = 60.0
"""A partition that was not refused for so long is not hot any more."""


class Position(NamedTuple):
    """Where an item lies: partitions are ranges of these, in this order."""

    hash: bytes
    sort_key: bytes = b""


FIRST = Position(b"\0" * HASH_BYTES)

Touches = Callable[[], Sequence[tuple[Position, float]]]
"""Which positions a request touches, with the units at each; asked only where there are several partitions."""


def position(item: Mapping[str, Any], key_attributes: Sequence[str]) -> Position:
    """The position of ``item`` under a partition key and perhaps a sort key."""
    name, *rest = key_attributes
    digest = hashlib.md5(_ordered(item.get(name, {"NULL": True})), usedforsecurity=False).digest()
    return Position(digest, _ordered(item[rest[0]]) if rest and rest[0] in item else b"")


def _ordered(value: Mapping[str, Any]) -> bytes:
    """A key attribute's value as bytes that sort as DynamoDB sorts it (numbers to a float's precision)."""
    ((kind, content),) = value.items()
    if kind == "N":
        (bits,) = struct.unpack(">Q", struct.pack(">d", float(content)))
        return struct.pack(">Q", bits ^ (0xFFFFFFFFFFFFFFFF if bits >> 63 else 1 << 63))
    return content if isinstance(content, bytes) else str(content).encode()


class CapacityBucket(TokenBucket):
    """A token bucket that can go into debt for a cost larger than itself. ``rate`` 0 is no limit."""

    __slots__ = ()

    def missing(self, units: float, now: float) -> float:
        """Units short of paying ``units`` now; 0 when it can."""
        if self.rate == 0:
            return 0.0
        short = min(units, self.capacity) - self.refill(now)
        return short if short > EPSILON else 0.0

    def spend(self, units: float) -> None:
        if self.rate:
            self.tokens -= units


class _Partition:
    """``start`` is its first position; it ends where the next one starts."""

    __slots__ = ("asked", "buckets", "hot_since", "refused_at", "start")

    def __init__(self, start: Position, now: float) -> None:
        self.start = start
        self.buckets = {
            "Read": CapacityBucket(limits.PARTITION_READ_UNITS.value, limits.PARTITION_READ_UNITS.value, now),
            "Write": CapacityBucket(limits.PARTITION_WRITE_UNITS.value, limits.PARTITION_WRITE_UNITS.value, now),
        }
        self.hot_since = self.refused_at = -_COOLS_AFTER_S
        # What was asked of it lately, served or refused.
        self.asked: deque[Position] = deque(maxlen=_SAMPLE)


class Partitions:
    """The partitions of one table or global index, for reads and writes together."""

    def __init__(self, count: int, has_local_indexes: bool, settings: LimitSettings, now: float) -> None:
        self._settings = settings
        self.has_local_indexes = has_local_indexes
        self._partitions = [_Partition(FIRST, now)]
        # Whether any partition was ever refused something: only then is it worth knowing what is asked for.
        self._is_hot = False
        self.grow(count, now)

    def __len__(self) -> int:
        return len(self._partitions)

    def grow(self, count: int, now: float) -> None:
        """Have at least ``count``: more throughput was provisioned. Partitions are never merged, as on AWS."""
        while len(self._partitions) < count:
            widths = [self._end(index) - _number(one.start) for index, one in enumerate(self._partitions)]
            widest = widths.index(max(widths))
            middle = _number(self._partitions[widest].start) + widths[widest] // 2
            self._cut(widest, Position(middle.to_bytes(HASH_BYTES, "big")), now)

    def _end(self, index: int) -> int:
        following = index + 1
        return _number(self._partitions[following].start) if following < len(self) else 1 << (8 * HASH_BYTES)

    def missing_seconds(self, direction: str, units: float, touches: Touches | None, now: float) -> float:
        """How long until every partition touched could pay; 0 when all can now."""
        return max(
            (bucket.missing(amount, now) / bucket.rate for bucket, amount in self._amounts(direction, units, touches)),
            default=0.0,
        )

    def spend(self, direction: str, units: float, touches: Touches | None) -> None:
        """Spend what :meth:`missing_seconds` allowed at this very time."""
        for bucket, amount in self._amounts(direction, units, touches):
            bucket.spend(amount)
        if self._is_hot and touches is not None:
            for where, _ in touches():
                self._partitions[self._index(where)].asked.append(where)

    def _amounts(self, direction: str, units: float, touches: Touches | None) -> Sequence[tuple[CapacityBucket, float]]:
        partitions = self._partitions
        if len(partitions) == 1:
            return ((partitions[0].buckets[direction], units),)
        if touches is None:
            # A scan goes through all of them.
            return [(one.buckets[direction], units / len(partitions)) for one in partitions]
        found = touches()
        if len(found) == 1:
            return ((partitions[self._index(found[0][0])].buckets[direction], found[0][1]),)
        amounts: dict[int, float] = {}
        for where, amount in found:
            index = self._index(where)
            amounts[index] = amounts.get(index, 0.0) + amount
        return [(partitions[index].buckets[direction], amount) for index, amount in amounts.items()]

    def _index(self, where: Position) -> int:
        return bisect_right(self._partitions, where, key=lambda one: one.start) - 1

    # -- split for heat --------------------------------------------------------------------------------

    def refused(self, touches: Touches | None, now: float) -> None:
        """A request was refused for a partition; split those that have been hot for long enough."""
        for where, _ in touches() if touches is not None else ():
            index = self._index(where)
            partition = self._partitions[index]
            if now - partition.refused_at >= _COOLS_AFTER_S:
                partition.hot_since, self._is_hot = now, True
                partition.asked.clear()
            partition.refused_at = now
            partition.asked.append(where)
            if now - partition.hot_since >= self._settings.dynamodb_split_seconds:
                self._split(index, now)

    def _split(self, index: int, now: float) -> None:
        partition = self._partitions[index]
        boundary = sorted(partition.asked)[len(partition.asked) // 2]
        if self.has_local_indexes:
            boundary = Position(boundary.hash)
        if boundary <= partition.start:
            # All of the heat is at its first key; what lies behind it can still go.
            boundary = Position((_number(boundary) + 1).to_bytes(HASH_BYTES + 1, "big")[-HASH_BYTES:])
        partition.hot_since = now
        is_inside = index + 1 == len(self) or boundary < self._partitions[index + 1].start
        if boundary > partition.start and is_inside:
            self._cut(index, boundary, now)

    def _cut(self, index: int, boundary: Position, now: float) -> None:
        self._partitions.insert(index + 1, _Partition(boundary, now))


def _number(where: Position) -> int:
    return int.from_bytes(where.hash, "big")


def partitions_for(read_units: float, write_units: float) -> int:
    """How many partitions a throughput needs."""
    share = read_units / limits.PARTITION_READ_UNITS.value + write_units / limits.PARTITION_WRITE_UNITS.value
    return max(1, -int(-share // 1))
