"""Lanes of ParallelizationFactor, as far as producers must tell records apart by them.

A mapping puts a record into the lane that its partition key decides (:func:`consumers.runtime.shard_schedule.lane_of`).
Mappings of one stream may have different factors; a key's lane modulo their least common multiple decides all of them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np

from consumers.runtime.shard_schedule import lane_of
from simulator.capacity.arrivals import Indices


class Lanes:
    """``factors`` are the ParallelizationFactors of all mappings."""

    def __init__(self, factors: Iterable[int]) -> None:
        self.count = math.lcm(1, *factors)
        self._known: dict[str, int] = {}

    def of(self, keys: Sequence[str]) -> Indices:
        """The lane of each partition key, 0..``count`` - 1."""
        known = self._known
        for key in keys:
            if key not in known:
                known[key] = lane_of(key, self.count)
        return np.array([known[key] for key in keys], np.int64)

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """A partition key of each lane, to stand for all of them."""
        found: dict[int, str] = {}
        for number in itertools.count():
            found.setdefault(lane_of(str(number), self.count), str(number))
            if len(found) == self.count:
                return tuple(found[lane] for lane in range(self.count))
        raise AssertionError("counting never ends")
