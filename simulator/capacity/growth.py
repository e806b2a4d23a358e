"""Whether an on-demand stream would have grown under a plan, by the cloud's own state machine.

A plan keeps the shards that its stream begins with: a stream that splits one after fifteen busy minutes could take more
from then on. So what a plan refuses after that, AWS may not; until then they are the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from simulator.capacity.timeline import Timeline
from simulator.cloud.on_demand import OnDemandScaling
from simulator.cloud.shard import Shard


def first_split_s(shards: Sequence[Shard], timeline: Timeline, record_bytes: int, seconds: int) -> float | None:
    """When the first shard would be split, in seconds from the start of the first race; None when none would."""
    accepted = [timeline.series("accepted", shard.shard_id, seconds) for shard in shards]
    scaling = OnDemandScaling(shards)
    for second in range(seconds):
        now = timeline.start + second
        if scaling.due(shards, now):
            return float(second)
        for shard, series in zip(shards, accepted, strict=True):
            if series[second]:
                scaling.count(shard, int(series[second]), int(series[second] * record_bytes), now)
    return None
