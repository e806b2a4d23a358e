"""Who sends in which second: intervals of more than a second, bikers who join late, bikers who drop out.

With an interval a biker sends in every ``interval_s``-th second, each with an offset of its own, and in the last one of
the race, as :func:`simulator.expectation.sends_of` has it. Who is late joins at a second of the race that chance
decides, any but the first; who drops out leaves before a second that chance decides, after having joined, and sends no
final message. Chance is seeded, anew each race.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from simulator.capacity.arrivals import Indices

if TYPE_CHECKING:
    from simulator.capacity.workload import Workload

Mask = npt.NDArray[np.bool_]
_LATE = 0x1A7E
"""Tells these draws from others of the same seed."""


class Attendance:
    """Of a workload's bikers, class by class, racer by racer. Seconds are counted from the start of the first race."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self._seconds = workload.seconds
        self._interval = workload.interval_s
        self.comes_and_goes = bool(workload.late_share or workload.dropout_share)
        """Whether there are bikers who do not ride a whole race."""
        self.is_steady = self._interval == 1 and not self.comes_and_goes
        """Whether everybody sends in every second."""
        self._places = np.tile(np.arange(workload.racers), len(workload.classes))
        # A plan asks for the race that it is in, and for earlier ones while messages of them wait.
        self._stays = lru_cache(maxsize=4)(self._drawn)
        self._turns = lru_cache(maxsize=1)(self._turned)

    def _turned(self, race_index: int) -> Indices:
        """The seconds of the race before which somebody joins or leaves, in order; the last is its end."""
        joins, leaves = self._stays(race_index)
        return np.unique(np.concatenate([np.unique(joins), np.unique(leaves), [self._seconds]]))

    def _drawn(self, race_index: int) -> tuple[Indices, Indices]:
        """The second of the race at which each biker joins, and the one before which it leaves."""
        workload, last = self._workload, self._seconds - 1
        count = workload.bikers
        rng = np.random.default_rng([workload.seed, race_index, _LATE])
        is_late, drops_out = rng.random(count) < workload.late_share, rng.random(count) < workload.dropout_share
        when = rng.random((2, count))
        joins = np.where(is_late, np.minimum(1 + (when[0] * last).astype(np.int64), last), 0)
        leaves = joins + 1 + (when[1] * (last - joins)).astype(np.int64)
        return joins, np.where(drops_out & (joins < last), np.minimum(leaves, last), self._seconds)

    def sending(self, second: int) -> tuple[int, Mask | None]:
        """In how many seconds of its race, from ``second`` on, the same bikers send, and which; None: all of them."""
        race, at = divmod(second, self._seconds)
        alike, sends = self._seconds - at, None
        if self._interval > 1:
            alike = 1
            if at < self._seconds - 1:
                sends = (at - self._places) % self._interval == 0
        if self.comes_and_goes:
            joins, leaves = self._stays(race)
            rides = (joins <= at) & (at < leaves)
            sends = rides if sends is None else sends & rides
            turns = self._turns(race)
            alike = min(alike, int(turns[np.searchsorted(turns, at, side="right")]) - at)
        return alike, sends

    def turn(self, second: int) -> int | None:
        """Those who send in a second send again in all seconds of its race with the same number; None: who knows."""
        at = second % self._seconds
        return (
            at % self._interval if self._interval > 1 and at < self._seconds - 1 and not self.comes_and_goes else None
        )

    def following(self, members: Indices, heads: Indices) -> Indices:
        """The second of each one's next message after the one of second ``heads``; there must be one."""
        if self.is_steady:
            return heads + 1
        last = self._seconds - 1
        races, at = np.divmod(heads, self._seconds)
        # Who has sent its final goes on in the next race.
        after = np.where(at < last, np.minimum(at + self._interval, last), self._seconds)
        found = races * self._seconds + after
        left = np.flatnonzero(self._is_gone(members, races, after))
        while len(left):
            races[left] += 1
            who, race = members[left], races[left]
            joins = self._of_stays(who, race)[0]
            first = np.minimum(joins + (self._places[who] - joins) % self._interval, last)
            found[left] = race * self._seconds + first
            left = left[self._is_gone(who, race, first)]
        return found

    def _is_gone(self, members: Indices, races: Indices, at: Indices) -> Mask:
        gone: Mask = at >= self._of_stays(members, races)[1]
        return gone

    def _of_stays(self, members: Indices, races: Indices) -> tuple[Indices, Indices]:
        if not self.comes_and_goes:
            return np.zeros(len(members), np.int64), np.full(len(members), self._seconds)
        joins, leaves = np.zeros(len(members), np.int64), np.zeros(len(members), np.int64)
        for race in np.unique(races).tolist():
            mine = races == race
            stays = self._stays(min(race, self._workload.races))
            joins[mine], leaves[mine] = stays[0][members[mine]], stays[1][members[mine]]
        return joins, leaves
