"""Which shards of a stream may be read yet: parents before children. No I/O, no clock.

After a reshard a key's records continue in a child shard, so a child is read only when its parents are drained;
that is what keeps the order of a key. Parents that the stream no longer lists have expired and count as drained.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """One shard as it is listed; ``parents`` are its parent and adjacent parent, if any.

    ``starting_sequence_number`` never changes in the life of a shard, and no record of it has a smaller one.
    ``hash_key_range`` is a Kinesis shard's, both ends included.
    """

    shard_id: str
    parents: tuple[str, ...]
    is_open: bool
    starting_sequence_number: str = "0"
    hash_key_range: tuple[int, int] | None = None

    def is_other_than(self, sequence_number: str | None, is_finished: bool) -> bool:
        """Whether a shard of this name that was read up to ``sequence_number``, or to its end, was another one.

        That is so when its stream was deleted and created again: shards are then numbered from 0 once more.
        """
        if is_finished and self.is_open:
            return True
        return sequence_number is not None and int(sequence_number.partition(":")[0]) < int(
            self.starting_sequence_number
        )


class Lineage:
    """The shards of one mapping: listed, started, finished."""

    def __init__(self, finished: Iterable[str] = ()) -> None:
        self._listed: dict[str, ShardInfo] = {}
        self._started: set[str] = set()
        self._finished: set[str] = set(finished)

    def on_listing(self, shards: Iterable[ShardInfo]) -> None:
        """The stream's shards, all of them, as listed now."""
        self._listed = {shard.shard_id: shard for shard in shards}

    def on_started(self, shard_id: str) -> None:
        self._started.add(shard_id)

    def on_replaced(self, shard_ids: Iterable[str]) -> None:
        """These shards are others than before: neither started nor finished."""
        self._started.difference_update(shard_ids)
        self._finished.difference_update(shard_ids)

    def on_finished(self, shard_id: str) -> None:
        """The shard is closed and drained."""
        self._finished.add(shard_id)

    def startable(self) -> list[str]:
        """Shards to start now, oldest first."""
        return sorted(
            shard.shard_id
            for shard in self._listed.values()
            if shard.shard_id not in self._started
            and shard.shard_id not in self._finished
            and all(parent in self._finished or parent not in self._listed for parent in shard.parents)
        )

    def is_waiting(self) -> bool:
        """Whether a listed shard is neither started nor finished."""
        return any(shard_id not in self._started and shard_id not in self._finished for shard_id in self._listed)

    def expired(self, known: Iterable[str]) -> list[str]:
        """Those of ``known`` that are finished and no longer listed, so that nothing depends on them."""
        return [shard_id for shard_id in known if shard_id in self._finished and shard_id not in self._listed]
