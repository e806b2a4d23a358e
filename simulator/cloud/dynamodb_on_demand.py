"""How much an on-demand table or index serves: a state machine without I/O.

AWS (on-demand-capacity-mode): a new one serves 4,000 write and 12,000 read request units a second; it "instantly
accommodates up to double the previous peak", and throttles who exceeds that within 30 minutes. So there is a level,
and every 30 minutes it becomes twice the peak of the half hour before, if that is more. A peak is the most units of
one second. The level never falls here (on AWS it is kept, too) and never passes the table's quota of 40,000.
"""

from __future__ import annotations

from simulator.cloud import limits
from simulator.cloud.dynamodb_partitions import CapacityBucket

WINDOW_S = limits.ON_DEMAND_DOUBLING.value * 60


class OnDemandLevel:
    """One direction of one table or index. ``max_units`` is its OnDemandThroughput, 0 for none."""

    def __init__(self, initial: float, max_units: float, now: float) -> None:
        self.level = CapacityBucket(initial, initial, now)
        self.maximum = CapacityBucket(max_units, max_units, now)
        self._window_began = now
        self._second = int(now)
        self._units_in_second = self._peak = 0.0

    def resize(self, max_units: float, now: float) -> None:
        """OnDemandThroughput was changed."""
        if max_units != self.maximum.rate:
            self.maximum = CapacityBucket(max_units, max_units, now)

    def settle(self, now: float) -> None:
        """Raise the level when half an hour has passed."""
        if now - self._window_began < WINDOW_S:
            return
        self._close_second(int(now))
        grown = min(limits.TABLE_MAX_UNITS.value, 2 * self._peak)
        if grown > self.level.rate:
            self.level.resize(grown, grown, now)
        self._window_began, self._peak = now, 0.0

    def spend(self, units: float, now: float) -> None:
        """``units`` were served."""
        if int(now) != self._second:
            self._close_second(int(now))
        self._units_in_second += units
        self.level.spend(units)
        self.maximum.spend(units)

    def _close_second(self, second: int) -> None:
        self._peak = max(self._peak, self._units_in_second)
        self._second, self._units_in_second = second, 0.0
