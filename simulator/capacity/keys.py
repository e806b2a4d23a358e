"""Partition keys by their hashes, many at once. A million MD5s take most of a second, so those of racers are kept
from one plan to the next: searches plan the same racers again and again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from simulator.capacity.arrivals import Indices

Words = npt.NDArray[np.uint64]
"""Hash keys as their upper and lower 64 bits, shape (keys, 2)."""
_LOW = 2**64 - 1


def words_of(keys: Sequence[str]) -> Words:
    """The MD5 of each key."""
    digests = b"".join([hashlib.md5(key.encode(), usedforsecurity=False).digest() for key in keys])
    return np.frombuffer(digests, ">u8").reshape(-1, 2).astype(np.uint64)


@lru_cache(maxsize=4)
def words_of_numbers(first: int, count: int) -> Words:
    """Of the decimal numbers from ``first`` on; 16 bytes each are kept. Read-only."""
    words = words_of([str(number) for number in range(first, first + count)])
    words.flags.writeable = False
    return words


def places_of(words: Words, starts: Sequence[int]) -> Indices:
    """Which range of hash keys each lies in, of those that begin at ``starts``, in order; as
    :meth:`simulator.cloud.stream.Stream.owner` has it. Compared by the upper 64 bits, and by the lower ones where those
    are equal."""
    upper = words[:, 0]
    uppers = np.array([start >> 64 for start in starts], np.uint64)
    places = np.searchsorted(uppers, upper, side="right").astype(np.int64) - 1
    for index in np.flatnonzero(upper == uppers[places]).tolist():
        if int(words[index, 1]) < starts[places[index]] & _LOW:
            places[index] -= 1
    return places


def lanes_of(words: Words, lanes: int) -> Indices:
    """As :func:`consumers.runtime.shard_schedule.lane_of`."""
    count = np.uint64(lanes)
    # Remainders are below 2**32 for any number of lanes that there can be, so that nothing overflows.
    of_upper = words[:, 0] % count * np.uint64(2**64 % lanes) % count
    found: Indices = ((of_upper + words[:, 1] % count) % count).astype(np.int64)
    return found


@dataclass(frozen=True, eq=False, slots=True)
class Keys:
    """The partition keys of all bikers: their hashes, and which of them each biker's is; None: one each."""

    words: Words
    of_biker: Indices | None

    def shards(self, starts: Sequence[int]) -> Indices:
        """The shard of each biker, by the beginnings of their hash key ranges."""
        return self._spread(places_of(self.words, starts))

    def lanes(self, lanes: int) -> Indices:
        """The lane of each biker."""
        return self._spread(lanes_of(self.words, lanes))

    def _spread(self, of_keys: Indices) -> Indices:
        return of_keys if self.of_biker is None else of_keys[self.of_biker]


def zipf_ranks(number: int, exponent: float) -> Indices:
    """Which of ``number`` keys each of as many bikers has, when the key of rank ``k`` (from 0) has a share of them
    proportional to ``1 / (k + 1) ** exponent``: a draw without chance, in which every key has its share, rounded."""
    shares = np.arange(1, number + 1) ** -exponent
    return np.searchsorted(np.cumsum(shares) / shares.sum(), (np.arange(number) + 0.5) / number).astype(np.int64)
