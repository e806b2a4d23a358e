"""Lambda function: live results, by tumbling window or by batch.

With windows, an invocation adds its batch to the window's ``state`` and writes nothing; the window's last one
merges the state into the table. Without, every batch is merged straight away. A merge takes the maximum by
racer, so a replay, a duplicate or another shard's function cannot spoil it; and whatever kills the function
between two writes, the next attempt makes the same ones.
"""

from __future__ import annotations

import random
import time
from typing import Any

from consumers import rejected
from consumers.store import LambdaContext, race_table
from consumers.telemetry import State, aggregate, decode

# A throttled write keeps trying until Lambda's Timeout ends the function; botocore backs off up to 20 s between.
TOTAL_MAX_ATTEMPTS = 20
CONFLICT_PAUSE_S = 0.02
CONFLICT_PAUSE_MAX_S = 1.0


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer ``{"state": ...}`` with windows, ``{"batchItemFailures": []}`` without.

    Raises :class:`consumers.store.StoreError` when the table would not take a merge; Lambda then sends the batch,
    with its incoming state, again.
    """
    batch = decode(event.get("Records") or [])
    if batch.rejected:
        rejected.keep(batch.rejected, rejected.shard_of(event))
    if "window" not in event:
        state: State = {}
        aggregate(batch.messages, state)
        _merge(state)
        return {"batchItemFailures": []}
    state = event.get("state") or {}
    aggregate(batch.messages, state)
    if event.get("isFinalInvokeForWindow") or event.get("isWindowTerminatedEarly"):
        _merge(state)
        return {"state": {}}
    return {"state": state}


def _merge(state: State) -> None:
    for race_and_class, best in state.items():
        race_id, class_id = map(int, race_and_class.split("|"))
        merge = race_table(TOTAL_MAX_ATTEMPTS).merge_results(
            race_id, class_id, {int(racer): output for racer, output in best.items()}, _pause
        )
        if merge.conflicts:
            rejected.log("merge conflict", raceId=race_id, classId=class_id, conflicts=merge.conflicts)


def _pause(conflicts: int) -> None:
    """Let writers that met once not meet again: windows of all shards end at the same moment."""
    time.sleep(random.random() * min(CONFLICT_PAUSE_MAX_S, CONFLICT_PAUSE_S * 2 ** min(conflicts, 10)))
