"""Lambda function: each biker's final output, and the class records.

Two writes a finisher: the race's item, 25 in one BatchWriteItem, and the class best, on condition that it is
better. Against a throttled table the batch advances finisher by finisher from its start; shortly before the
Timeout the function answers with the first record that is not complete, and Lambda continues there
(``ReportBatchItemFailures``). A batch that exceeds the table many times over is worked off in slices.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from consumers.rejected import log, shard_of
from consumers.store import (
    BATCH_WRITE_MAX_ITEMS,
    Deadline,
    Finish,
    LambdaContext,
    OutOfTimeError,
    RaceTable,
    TemporaryError,
    ThrottledError,
    UnavailableError,
    race_table,
)
from consumers.telemetry import decode, output_hundredths

# One attempt a call: this function paces itself, botocore's back-off of up to 20 s would outlast the Timeout.
TOTAL_MAX_ATTEMPTS = 1


@dataclass(slots=True)
class Written:
    """The writes of a batch that is not complete yet, so that continuing it does not pay for them again."""

    races: set[Finish] = field(default_factory=set)
    bests: set[Finish] = field(default_factory=set)

    def keep_only(self, finishes: Iterable[Finish]) -> None:
        """Forget what is not in this batch: it is complete, or another environment went on with it."""
        self.races.intersection_update(finishes)
        self.bests.intersection_update(self.races)


# By shard, kept only from an unfinished invocation to its continuation: a later replay of the stream, say into a
# restored table, writes everything again.
_unfinished: dict[str, Written] = {}


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer ``{"batchItemFailures": [...]}``: empty, or the first record that is not complete.

    Raises :class:`consumers.store.StoreError` for what waiting will not cure, such as a missing table, and when
    DynamoDB did not answer at all: an invocation that only failed must say why.
    """
    deadline = Deadline(context)
    records = event.get("Records") or []
    batch = decode(records)
    shard_id = shard_of(event)
    if batch.rejected:
        log("skipped", shardId=shard_id, count=len(batch.rejected))
    finishes: list[Finish] = []
    positions: list[int] = []
    for position, message in zip(batch.positions(), batch.messages, strict=True):
        if message.event == "final":
            output = output_hundredths(message.cadence, message.resistance)
            finishes.append(Finish(message.raceId, message.classId, message.racerId, output, message.deviceTimestamp))
            positions.append(position)
    if not finishes:
        return {"batchItemFailures": []}
    written = _unfinished.setdefault(shard_id, Written())
    written.keep_only(finishes)
    completed = settle(finishes, written, race_table(TOTAL_MAX_ATTEMPTS), deadline)
    if completed == len(finishes):
        del _unfinished[shard_id]
        return {"batchItemFailures": []}
    sequence_number = records[positions[completed]]["kinesis"]["sequenceNumber"]
    return {"batchItemFailures": [{"itemIdentifier": sequence_number}]}


def settle(finishes: Sequence[Finish], written: Written, table: RaceTable, deadline: Deadline) -> int:
    """Write ``finishes`` from the first on, and return how many of them, from the first on, are complete.

    That is all of them unless time ran out. ``written`` holds what earlier attempts wrote, and is added to. Work
    goes forward in slices: 1, 2, 4, ... up to 25 as long as the table takes them, halved by a throttle. So what
    little capacity there is completes the first finishers instead of starting all of them, and a function that
    lost its memory repeats little: it advances if it can spend 3 write units in one invocation.
    """
    completed = attempt = 0
    size = 1
    while completed < len(finishes):
        before = completed
        try:
            chunk = finishes[completed : completed + size]
            unprocessed = _put_races(chunk, written, table, deadline)
            for finish in chunk:
                if finish in written.races and finish not in written.bests:
                    deadline.check()
                    table.put_class_best(finish)
                    written.bests.add(finish)
            completed = _advance(finishes, completed, written)
            if unprocessed:
                raise ThrottledError(f"{unprocessed} race items were not processed", operation="BatchWriteItem")
            size, attempt = min(size * 2, BATCH_WRITE_MAX_ITEMS), 0
        except TemporaryError as error:
            completed = _advance(finishes, completed, written)
            size = max(1, size // 2)
            attempt = 1 if completed > before else attempt + 1
            try:
                deadline.pause(attempt)
            except OutOfTimeError:
                if completed == 0 and isinstance(error, UnavailableError):
                    raise error from None
                break
        except OutOfTimeError:
            break
    return _advance(finishes, completed, written)


def _put_races(chunk: Sequence[Finish], written: Written, table: RaceTable, deadline: Deadline) -> int:
    """Write the race items still missing; return how many were not processed."""
    wanted = [finish for finish in chunk if finish not in written.races]
    if not wanted:
        return 0
    deadline.check()
    unprocessed = set(table.put_finishes(wanted))
    written.races.update(finish for finish in wanted if finish not in unprocessed)
    return len(unprocessed)


def _advance(finishes: Sequence[Finish], completed: int, written: Written) -> int:
    while completed < len(finishes) and finishes[completed] in written.bests and finishes[completed] in written.races:
        completed += 1
    return completed
