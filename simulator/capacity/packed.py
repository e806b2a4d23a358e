"""What aggregation by the Kinesis Producer Library would save beside an advice.

Packed records are fewer: fewer shards, payload units and, on demand, kilobytes begun. But Lambda hands them to
functions as they are, and a function that does not unpack them, as this project's do not, is left without messages. So
it is shown and never advised: the stream is planned with packed records, the rest of the bill is that of the advice.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace

from simulator.capacity.alternatives import RunnerUp, difference
from simulator.capacity.choices import SHARDS
from simulator.capacity.trials import Runs, Trial

_STREAM = "kinesis."


def aggregation_of(runs: Runs, best: Trial, headroom: float) -> RunnerUp | None:
    """The advice ``best`` with producers that aggregate; None where they cannot, do already, or save nothing."""
    workload = runs.workload
    if workload.transport == "mqtt" or workload.aggregation:
        return None
    settings = runs.limit_settings
    slower = replace(settings, shard_rate_factor=settings.shard_rate_factor / (1 + headroom))
    packing = replace(runs, workload=replace(workload, aggregation=True), limit_settings=slower, trials={})
    trial = _fewest_shards(packing, best)
    if trial is None:
        return None
    # Functions that get packed records write nothing, so that only the stream's lines are of use.
    bill = [
        *(line for line in trial.found.bill if line.price.name.startswith(_STREAM)),
        *(line for line in best.found.bill if not line.price.name.startswith(_STREAM)),
    ]
    found = replace(best, sizes=trial.sizes, found=replace(best.found, bill=tuple(bill)))
    if found.usd >= best.usd:
        return None
    note = f"{difference(found, best)}; only the stream is planned; gives up functions that do not unpack records"
    return RunnerUp("aggregation", found, note)


def _fewest_shards(packing: Runs, best: Trial) -> Trial | None:
    def at(shards: int) -> Trial | None:
        return packing.at({**best.sizes, SHARDS: shards} if SHARDS in best.sizes else best.sizes)

    def is_taken(shards: int) -> bool:
        trial = at(shards)
        return trial is not None and not trial.refused

    counts = range(1, best.sizes.get(SHARDS, 1) + 1)
    place = bisect_left(counts, True, key=is_taken)
    return at(counts[place]) if place < len(counts) else None
