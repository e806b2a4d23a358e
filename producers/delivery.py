"""What is delivered and what became of it: records, the ledger, latencies.

Every record that a producer takes ends in exactly one bucket of its :class:`Ledger`: delivered, or lost with a
reason. Latencies start at the intended send time, so a late sender shows up instead of hiding.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

DEADLINE: Final = "deadline"
"""Lost: not accepted within the producer's ``deadline_s`` after it was due."""
REJECTED: Final = "rejected"
"""Lost: the record is not valid, or the service refuses every call."""
INTERRUPTED: Final = "interrupted"
"""Lost: the producer was closed without draining."""
QUEUE_FULL: Final = "queue_full"
"""Lost: its device was offline or not acknowledged for longer than its queue could hold; the oldest goes first."""

RECORD_MAX_BYTES: Final = 1024 * 1024
"""Data before base64 plus partition key in UTF-8 (AWS, PutRecords; streams can opt in to more)."""
PARTITION_KEY_MAX_CHARS: Final = 256
"""AWS, PutRecords: a partition key has 1 to 256 characters."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """One message on its way.

    ``due_s`` is the intended send time in seconds since the epoch: it is not sent before, and latencies start
    there. Records of the same ``order_key`` are accepted in the order of their due times (of equals, the order
    in which they were put); ``None`` is unordered. A msgspec struct because load generators make millions.
    """

    data: bytes
    partition_key: str
    due_s: float
    order_key: Hashable = None

    @property
    def size_bytes(self) -> int:
        """What the service's limits count: the data plus the partition key in UTF-8."""
        key = self.partition_key
        return len(self.data) + (len(key) if key.isascii() else len(key.encode()))

    def problem(self) -> str | None:
        """Why no stream would take this record, or ``None``."""
        key = self.partition_key
        if not 1 <= len(key) <= PARTITION_KEY_MAX_CHARS:
            return f"a partition key has 1 to {PARTITION_KEY_MAX_CHARS} characters, this one {len(key):,}"
        try:
            size = self.size_bytes
        except UnicodeEncodeError:
            return "the partition key is not valid Unicode (a lone surrogate)"
        if size > RECORD_MAX_BYTES:
            return f"data and partition key together are {size:,} bytes, at most {RECORD_MAX_BYTES:,} are allowed"
        return None


def total_bytes(records: Sequence[Record]) -> int:
    """The sizes of all ``records``, in a few operations for all of them."""
    text = "".join([record.partition_key for record in records])
    key_bytes = len(text) if text.isascii() else len(text.encode())
    return sum([len(record.data) for record in records]) + key_bytes


class Sizes(NamedTuple):
    """Of some records: bytes in all, and at most how many one of them has."""

    total_bytes: int
    largest_bytes: int


def checked_sizes(records: Sequence[Record]) -> Sizes | None:
    """Sizes of one or more records; ``None`` when some may have a :meth:`Record.problem`.

    :raises TypeError: when a record is not what its annotations say.
    :raises ValueError: for a due time that is not finite.
    """
    try:
        data = [record.data for record in records]
        if set(map(type, data)) != {bytes}:
            raise TypeError("data is not bytes")
        lengths = list(map(len, data))
        keys = [record.partition_key for record in records]
        text = "".join(keys)
        frozenset([record.order_key for record in records])
        # A sum is finite only when every part of it is.
        finite = math.isfinite(sum([record.due_s for record in records]))
    except TypeError as error:
        raise TypeError(
            f"a record needs data: bytes, partition_key: str, due_s: float and a hashable order_key: {error}"
        ) from None
    if not finite:
        raise ValueError("due_s of a record must be a finite number of seconds since the epoch")
    longest_key = max(map(len, keys))
    # A character is at most 4 bytes of UTF-8.
    largest = max(lengths) + 4 * longest_key
    if not all(keys) or longest_key > PARTITION_KEY_MAX_CHARS or largest > RECORD_MAX_BYTES:
        return None
    try:
        return Sizes(sum(lengths) + (len(text) if text.isascii() else len(text.encode())), largest)
    except UnicodeEncodeError:
        return None


@dataclass(slots=True)
class Ledger:
    """Where every record is. Counts of records; ``generated == delivered + lost + in_flight`` always holds.

    ``throttled`` counts refusals for lack of capacity and ``retried`` repeated sends, so one record can count in
    them many times. ``duplicates`` counts sends repeated after a failure that left open whether the first was
    stored: possible duplicates, not proven ones.
    """

    generated: int = 0
    delivered: int = 0
    lost: int = 0
    lost_by_reason: dict[str, int] = field(default_factory=dict)
    throttled: int = 0
    retried: int = 0
    duplicates: int = 0

    @property
    def in_flight(self) -> int:
        """Taken and not settled yet: waiting, being sent, or to be sent again."""
        return self.generated - self.delivered - self.lost

    def count_lost(self, count: int, reason: str) -> None:
        if count:
            self.lost += count
            self.lost_by_reason[reason] = self.lost_by_reason.get(reason, 0) + count

    def copy(self) -> Ledger:
        return replace(self, lost_by_reason=dict(self.lost_by_reason))

    def __add__(self, other: Ledger) -> Ledger:
        """Both ledgers in one, for several producers of a race."""
        reasons = dict(self.lost_by_reason)
        for reason, count in other.lost_by_reason.items():
            reasons[reason] = reasons.get(reason, 0) + count
        return Ledger(
            self.generated + other.generated,
            self.delivered + other.delivered,
            self.lost + other.lost,
            reasons,
            self.throttled + other.throttled,
            self.retried + other.retried,
            self.duplicates + other.duplicates,
        )

    def to_json(self) -> dict[str, int | dict[str, int]]:
        """The ``ledger`` of ``report.json``."""
        return {
            "generated": self.generated,
            "delivered": self.delivered,
            "lost": self.lost,
            "lost_by_reason": dict(self.lost_by_reason),
            "throttled": self.throttled,
            "retried": self.retried,
            "duplicates": self.duplicates,
        }


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of a latency, in milliseconds; each is a value that occurred (nearest rank). All 0 of nothing."""

    p50: float = 0.0
    p99: float = 0.0
    max: float = 0.0

    def to_json(self) -> dict[str, float]:
        """An entry of ``latency_ms`` in ``report.json``, to microseconds."""
        return {"p50": round(self.p50, 3), "p99": round(self.p99, 3), "max": round(self.max, 3)}


class Samples:
    """Latencies in milliseconds, every one kept: exact percentiles for 4 bytes a sample (amortised 8)."""

    __slots__ = ("_count", "_values")

    def __init__(self) -> None:
        self._values: npt.NDArray[np.float32] = np.empty(1024, np.float32)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, milliseconds: npt.NDArray[np.floating]) -> None:
        end = self._count + len(milliseconds)
        if end > len(self._values):
            grown = np.empty(max(end, 2 * len(self._values)), np.float32)
            grown[: self._count] = self._values[: self._count]
            self._values = grown
        self._values[self._count : end] = milliseconds
        self._count = end

    def values(self) -> npt.NDArray[np.float32]:
        """A copy of all samples, in the order they were added."""
        return self._values[: self._count].copy()

    def percentiles(self) -> Percentiles:
        """O(n) in the number of samples."""
        return percentiles_of([self])


def percentiles_of(parts: Iterable[Samples]) -> Percentiles:
    """Of several producers' samples together."""
    values = np.concatenate([np.empty(0, np.float32), *(part.values() for part in parts)])
    if not len(values):
        return Percentiles()
    p50, p99 = (-(-len(values) * percent // 100) - 1 for percent in (50, 99))
    values.partition(sorted({p50, p99}))
    return Percentiles(float(values[p50]), float(values[p99]), float(values.max()))
