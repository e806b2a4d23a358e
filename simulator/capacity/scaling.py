"""Auto scaling in virtual time: the cloud's own policies and alarms, looked at once a minute of the clock.

What a minute consumed is recorded in the cloud's own metrics, :class:`simulator.cloud.auto_scaling.AutoScaling` looks
at them, and a change of units asks the table, which keeps to DynamoDB's rule of decreases a day. ::

    Table --consumed a minute--> Metrics --> AutoScaling --units--> Table.scale

The embedded cloud looks up to ten seconds after a minute has ended; here it is at once. On AWS an alarm and its
UpdateTable take minutes more.
"""

from __future__ import annotations

from collections.abc import Mapping

from simulator.capacity.clock import Clock
from simulator.capacity.tables import Table
from simulator.capacity.timeline import Timeline
from simulator.cloud.auto_scaling import PERIOD_S, AutoScaling, ScalingPolicy
from simulator.cloud.dynamodb import Direction
from simulator.cloud.metrics import Metrics
from simulator.deployment import Deployment


def policies_of(deployment: Deployment) -> list[ScalingPolicy]:
    """What a template asks for, each policy with the bounds of its target."""
    targets = {(one.resource_id, one.dimension): one for one in deployment.scalable_targets}
    found = []
    for one in deployment.scaling_policies:
        target = targets[one.resource_id, one.dimension]
        # table/NAME or table/NAME/index/INDEX
        _, table, *index = one.resource_id.split("/")
        direction: Direction = "Read" if "Read" in one.dimension else "Write"
        found.append(
            ScalingPolicy(
                deployment.region,
                table,
                index[1] if index else None,
                direction,
                target.least_units,
                target.most_units,
                float(one.target_percent),
                float(one.scale_in_cooldown_s),
                float(one.scale_out_cooldown_s),
            )
        )
    return found


class Scaling:
    """Scales ``tables`` (by name) as the policies of ``deployment`` say, from the next minute of ``clock`` on.

    Series of the timeline: ``provisioned_write_units`` and ``provisioned_read_units``, of what has a policy.
    """

    def __init__(self, deployment: Deployment, tables: Mapping[str, Table], clock: Clock, timeline: Timeline) -> None:
        self._tables = tables
        self._clock = clock
        self._timeline = timeline
        self._policies = [one for one in policies_of(deployment) if one.table in tables]
        for one in self._policies:
            tables[one.table].scales_to[one.direction, one.index] = one.most_units
        self._metrics = Metrics()
        self._counted: dict[ScalingPolicy, float] = {}
        self._scaling = AutoScaling(self._metrics, self._provisioned, self._change)
        if self._policies:
            self._look_ahead()

    def _minute(self) -> None:
        now = self._clock.now
        for policy in self._policies:
            consumed = self._tables[policy.table].consumed(policy.direction, policy.index)
            units = consumed - self._counted.get(policy, 0.0)
            self._counted[policy] = consumed
            name = f"Consumed{policy.direction}CapacityUnits"
            self._metrics.record("AWS/DynamoDB", name, policy.dimensions, units, now - PERIOD_S)
        self._scaling.evaluate(self._policies, now)
        self._look_ahead()

    def _look_ahead(self) -> None:
        """Nothing changes before the next minute."""
        now, timeline = self._clock.now, self._timeline
        until = (now // PERIOD_S + 1) * PERIOD_S
        for policy in self._policies:
            units = self._provisioned(policy)
            if units is None:
                continue
            resource = self._tables[policy.table].resource(policy.index)
            for second in range(timeline.second(now), timeline.second(until - 1e-3) + 1):
                timeline.level(
                    f"provisioned_{policy.direction.lower()}_units", resource, timeline.start + second, units
                )
        self._clock.at(until, self._minute)

    def _provisioned(self, policy: ScalingPolicy) -> float | None:
        throughput = policy.throughput(self._tables[policy.table].spec)
        return None if throughput is None else policy.units(throughput)

    def _change(self, policy: ScalingPolicy, units: int) -> bool:
        return self._tables[policy.table].scale(policy, units, self._clock.now)
