"""How long messages took to be processed, from what a plan saw second by second.

A plan keeps no times of single records, but the books of every second are enough: so many messages were due, so many
were taken out of the stream by a function. Records of a stream are read in order, so the message that was due as the
n-th is the one that left as the n-th, and the time between is its delay (the two curves' horizontal distance)::

    messages | due      ___----        left
             |      _.-'   <-- delay -->  ___---
             |__.-'_______________..---'''______ s

A delay is at most one second too long for one shard. Several shards count as one queue, so where a single one is far
behind, the p99 is told too short. With a tumbling window nothing can be seen before the window of a record is over.
"""

from __future__ import annotations

import math
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from simulator.capacity.model import Plan
from simulator.capacity.workload import START_MS

Seconds = npt.NDArray[np.float64]
_RANKS = 20_001


def delay_s(plan: Plan, source: str, share: float = 0.99) -> float | None:
    """Within how many seconds of being due ``share`` of all messages were processed by the event source ``source``;
    None when fewer were before the plan gave up. Lost messages count until they were given up."""
    workload = plan.workload
    ends = np.arange(plan.seconds + 1, dtype=float)
    accepted = _summed(plan, "accepted")
    gone = accepted + _summed(plan, "lost")
    backlog = np.array([0.0, *plan.timeline.series("backlog", source, plan.seconds)])
    left = np.maximum.accumulate(np.maximum(0.0, gone - backlog))
    ranks = np.linspace(0, workload.messages, _RANKS)
    due = ranks / workload.bikers
    window_s = _window_s(plan, source)
    if not window_s:
        leaves = _when(ranks, left, ends)
    else:
        arrives = np.interp(ranks, gone, ends)
        offset_s = START_MS / 1000 % window_s
        closes = (np.floor((arrives + offset_s) / window_s) + 1) * window_s - offset_s
        # The last record of its window must have been read too.
        leaves = np.maximum(closes, _when(np.interp(closes, ends, gone), left, ends))
    delay = float(np.quantile(leaves - due, share, method="higher"))
    return delay if math.isfinite(delay) else None


def slowest_s(plan: Plan, share: float = 0.99) -> float | None:
    """:func:`delay_s` of the event source that took longest; None when it did not get there."""
    delays = [delay_s(plan, source, share) for source in plan.timeline.resources("backlog")]
    known = [one for one in delays if one is not None]
    return max(known) if len(known) == len(delays) and known else None


def _summed(plan: Plan, metric: str) -> Seconds:
    """What all resources together came to by the end of each second, from 0 on."""
    series = [plan.timeline.series(metric, one, plan.seconds) for one in plan.timeline.resources(metric)]
    return np.array([0.0, *accumulate(map(sum, zip(*series, strict=True)))] if series else [0.0] * (plan.seconds + 1))


def _when(ranks: Seconds, curve: Seconds, ends: Seconds) -> Seconds:
    """The end of the second in which ``curve`` reaches each of ``ranks``; infinity where it never does."""
    # Ranks are sums of floats: half a message is less than any.
    places = np.searchsorted(curve, ranks - 0.5)
    return np.where(places < len(curve), ends[np.minimum(places, len(curve) - 1)], np.inf)


def _window_s(plan: Plan, source: str) -> int:
    sources = [one for function in plan.deployment.functions for one in function.event_sources]
    return next((one.tumbling_window_s for one in sources if one.name == source), 0)
