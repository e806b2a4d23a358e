"""Lanes of ParallelizationFactor, as far as producers must tell records apart by them.

A mapping puts a record into the lane that its partition key decides (:func:`consumers.runtime.shard_schedule.lane_of`).
Mappings of one stream may have different factors; a key's lane modulo their least common multiple decides all of them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from functools import cached_property

from consumers.runtime.shard_schedule import lane_of


class Lanes:
    """``factors`` are the ParallelizationFactors of all mappings."""

    def __init__(self, factors: Iterable[int]) -> None:
        self.count = math.lcm(1, *factors)

    def of(self, key: str) -> int:
        """The lane of a partition key, 0..``count`` - 1; of many, see :func:`simulator.capacity.keys.lanes_of`."""
        return lane_of(key, self.count)

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """A partition key of each lane, to stand for all of them."""
        found: dict[int, str] = {}
        for number in itertools.count():
            found.setdefault(self.of(str(number)), str(number))
            if len(found) == self.count:
                return tuple(found[lane] for lane in range(self.count))
        raise AssertionError("counting never ends")
