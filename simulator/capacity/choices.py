"""What an adviser may choose: sizes, which go by steps, and kinds of capacity, which are one thing or another.

A choice is a parameter of the template, as far as the template has it, so that the answer can be deployed as it is.
A *kind* makes some sizes meaningless: a stream on demand has no shards to choose, a table on demand no units.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

SHARDS, WINDOW, BATCH, LANES = "ShardCount", "TumblingWindowInSeconds", "BatchSize", "ParallelizationFactor"
WCU, INDEX_WCU = "WriteCapacityUnits", "IndexWriteCapacityUnits"
RCU, INDEX_RCU = "ReadCapacityUnits", "IndexReadCapacityUnits"
WRITES, READS = (WCU, INDEX_WCU), (RCU, INDEX_RCU)
SIZES = (SHARDS, WINDOW, BATCH, LANES, *WRITES, *READS)
"""Template parameters that the adviser chooses, as far as the template has them; the others stay."""
COSTLY = (SHARDS, *WRITES, *READS)
"""Sizes that cost something, the dearest first."""
STREAM_MODE, BILLING_MODE = "StreamMode", "BillingMode"

Sizes = Mapping[str, int]
T = TypeVar("T")

MOST_UNITS = 40_000
"""AWS's default quota of a table's write units."""
AMPLE_READS = 3000
"""What one partition reads in a second. More would buy partitions, and those serve writes too."""
UNITS = (
    *range(1, 20),
    *range(20, 100, 5),
    *range(100, 500, 10),
    *range(500, 2000, 50),
    *range(2000, 10_000, 500),
    *range(10_000, MOST_UNITS + 1, 1000),
)
WINDOWS = (0, 1, 2, 3, 5, 10, 15, 20, 30, 60, 120, 300, 900)
BATCHES = (10, 100, 200, 500, 1000, 2000, 5000, 10_000)
MOST_LANES = 10
"""Lambda's largest ParallelizationFactor."""
_LADDERS = {WINDOW: WINDOWS, BATCH: BATCHES, LANES: tuple(range(1, MOST_LANES + 1))}


def step_down(name: str, value: int) -> int | None:
    """The next smaller size that the adviser knows; None below the smallest."""
    if name == SHARDS:
        return value - 1 if value > 1 else None
    ladder = _LADDERS.get(name, UNITS)
    place = bisect_left(ladder, value) - 1
    return ladder[place] if place >= 0 else None


def step_up(name: str, value: int) -> int | None:
    """The next larger one; None above the largest."""
    if name == SHARDS:
        return value + 1
    ladder = _LADDERS.get(name, UNITS)
    place = bisect_right(ladder, value)
    return ladder[place] if place < len(ladder) else None


def writes_of(sizes: Sizes) -> list[str]:
    """Those of the write units that there are to choose."""
    return [name for name in WRITES if name in sizes]


@dataclass(frozen=True, slots=True)
class Kind:
    """``stream`` is PROVISIONED or ON_DEMAND, ``table`` PROVISIONED or PAY_PER_REQUEST; None where the template has no
    parameter for it, so that nothing can be chosen."""

    stream: str | None = None
    table: str | None = None

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Kind:
        """As a deployment's parameters have it."""
        return cls(parameters.get(STREAM_MODE), parameters.get(BILLING_MODE))

    @property
    def provisioned(self) -> Kind:
        """The same with everything provisioned that may be."""
        return Kind(self.stream and "PROVISIONED", self.table and "PROVISIONED")

    @property
    def parameters(self) -> dict[str, str]:
        """For the template."""
        modes = {STREAM_MODE: self.stream, BILLING_MODE: self.table}
        return {name: mode for name, mode in modes.items() if mode is not None}

    def sizes_of(self, sizes: Mapping[str, T]) -> dict[str, T]:
        """``sizes`` without those that mean nothing."""
        without = (SHARDS,) * (self.stream == "ON_DEMAND") + (*WRITES, *READS) * (self.table == "PAY_PER_REQUEST")
        return {name: size for name, size in sizes.items() if name not in without}

    def others(self) -> Iterator[Kind]:
        """Those that differ in one thing."""
        if self.table is not None:
            yield replace(self, table="PROVISIONED" if self.table == "PAY_PER_REQUEST" else "PAY_PER_REQUEST")
        if self.stream is not None:
            yield replace(self, stream="PROVISIONED" if self.stream == "ON_DEMAND" else "ON_DEMAND")

    def title(self, other: Kind) -> str:
        """What ``other``, one of :meth:`others`, is in a few words."""
        if other.table != self.table:
            return "on-demand table" if other.table == "PAY_PER_REQUEST" else "provisioned table"
        return "on-demand stream" if other.stream == "ON_DEMAND" else "provisioned stream"
