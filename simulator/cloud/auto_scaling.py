"""DynamoDB's auto scaling: target tracking of a table's or index's provisioned units. No I/O, no clock.

Application Auto Scaling makes two alarms of a target-tracking policy, on one-minute sums of consumed units. ::

    consumed / provisioned   alarm              after                       new units
    above the target         high               2 minutes in a row          consumed / target
    20 points below it       low                15 minutes in a row         consumed / target
    between                  none

The two and the fifteen are AWS's (CAH AutoScaling.md); the 20 points are those of the alarms that AWS was recorded to
make (42 and 30 units a minute for a target of 70 % of one unit). A change takes effect at the minute it is decided;
on AWS it takes minutes more, which is why spikes live on burst either way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from simulator.cloud import limits
from simulator.cloud.dynamodb import Direction
from simulator.cloud.dynamodb_costs import TableSpec, Throughput
from simulator.cloud.metrics import Dimensions, Metrics

PERIOD_S = 60
SCALE_IN_MARGIN_PERCENT = 20.0
"""The low alarm is this far below the target, and never below half of it: a target of 20 % could not scale in."""


@dataclass(frozen=True, slots=True)
class ScalingPolicy:
    """A scalable target with its target-tracking policy. ``target_percent`` is 20 to 90; units are a second's."""

    region: str
    table: str
    index: str | None
    direction: Direction
    least_units: int
    most_units: int
    target_percent: float = 70.0
    scale_in_cooldown_s: float = 0.0
    scale_out_cooldown_s: float = 0.0
    scales_in: bool = True

    @property
    def low_percent(self) -> float:
        """Below this it is too little."""
        return max(self.target_percent - SCALE_IN_MARGIN_PERCENT, self.target_percent / 2)

    @property
    def dimensions(self) -> Dimensions:
        """CloudWatch's, of the resource."""
        table = (("TableName", self.table),)
        return table if self.index is None else (*table, ("GlobalSecondaryIndexName", self.index))

    def throughput(self, spec: TableSpec) -> Throughput | None:
        """Of the table or index that it scales; None when there is none, or it is on-demand."""
        indexes = {index.name: index.throughput for index in spec.global_indexes}
        found = spec.throughput if self.index is None else indexes.get(self.index)
        return None if found is None or found.is_on_demand else found

    def units(self, throughput: Throughput) -> float:
        """Those of ``throughput`` that it scales."""
        return throughput.read_units if self.direction == "Read" else throughput.write_units

    def update_table(self, throughput: Throughput, units: int) -> dict[str, Any]:
        """The request of UpdateTable that makes ``units`` of its own, and keeps the others."""
        wanted = {"ReadCapacityUnits": int(throughput.read_units), "WriteCapacityUnits": int(throughput.write_units)}
        wanted[f"{self.direction}CapacityUnits"] = units
        if self.index is None:
            return {"TableName": self.table, "ProvisionedThroughput": wanted}
        update = {"IndexName": self.index, "ProvisionedThroughput": wanted}
        return {"TableName": self.table, "GlobalSecondaryIndexUpdates": [{"Update": update}]}


class Tracker:
    """One policy's alarms: how many minutes in a row it was too much, or too little."""

    def __init__(self) -> None:
        self._above = self._below = 0
        self._scaled_out_at = self._scaled_in_at = -math.inf

    def observe(self, policy: ScalingPolicy, consumed_per_second: float, provisioned: float, now: float) -> int | None:
        """A minute is over; the units to provision from now on, None for those there are."""
        used_percent = 100 * consumed_per_second / provisioned if provisioned else 0.0
        self._above = self._above + 1 if used_percent > policy.target_percent else 0
        self._below = self._below + 1 if used_percent < policy.low_percent else 0
        wanted = math.ceil(round(consumed_per_second * 100 / policy.target_percent, 6))
        wanted = min(policy.most_units, max(policy.least_units, wanted))
        if self._above >= limits.SCALE_OUT_MINUTES.value and wanted > provisioned:
            return wanted if now - self._scaled_out_at >= policy.scale_out_cooldown_s else None
        if policy.scales_in and self._below >= limits.SCALE_IN_MINUTES.value and wanted < provisioned:
            cooled = now - max(self._scaled_in_at, self._scaled_out_at) >= policy.scale_in_cooldown_s
            return wanted if cooled else None
        return None

    def scaled(self, *, out: bool, now: float) -> None:
        """What :meth:`observe` wanted was done; a change that was refused is wanted again the next minute."""
        if out:
            self._scaled_out_at, self._above = now, 0
        else:
            self._scaled_in_at, self._below = now, 0


class AutoScaling:
    """Evaluates every policy once a minute against the cloud's own metrics.

    ``provisioned(policy)`` tells the units there are, None when the resource is gone or on-demand;
    ``change(policy, units)`` updates the table and says whether it was allowed (decreases are limited).
    """

    def __init__(
        self,
        metrics: Metrics,
        provisioned: Callable[[ScalingPolicy], float | None],
        change: Callable[[ScalingPolicy, int], bool],
    ) -> None:
        self._metrics = metrics
        self._provisioned = provisioned
        self._change = change
        self._trackers: dict[tuple[str, Dimensions, Direction], Tracker] = {}

    def evaluate(self, policies: Iterable[ScalingPolicy], now: float) -> None:
        """Look at the minute that ended at or before ``now``."""
        end = now - now % PERIOD_S
        known = {}
        for policy in policies:
            key = (policy.region, policy.dimensions, policy.direction)
            tracker = known[key] = self._trackers.get(key) or Tracker()
            units = self._provisioned(policy)
            if units is None:
                continue
            name = f"Consumed{policy.direction}CapacityUnits"
            points = self._metrics.points(("AWS/DynamoDB", name, policy.dimensions), end - PERIOD_S, end)
            wanted = tracker.observe(policy, sum(point.sum for _, point in points) / PERIOD_S, units, now)
            if wanted is not None and self._change(policy, wanted):
                tracker.scaled(out=wanted > units, now=now)
        self._trackers = known
