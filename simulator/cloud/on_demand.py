"""How an on-demand stream grows: a state machine without I/O.

AWS (how-do-i-size-a-stream): a new on-demand stream takes 4 MB/s and 4,000 records/s, that is four shards; it
"splits a shard when it exceeds 500 KB/s for 15 minutes"; each shard keeps its own limits, so a hot key throttles
here as well. Doubling the shards that run at half of their rate is what makes the stream take twice its previous
peak. AWS shrinks a stream by the peak of the last 30 days; nothing here runs that long, so nothing is merged.

The record rate is judged like the byte rate, at half of a shard's 1,000 records/s (ours: AWS names bytes only).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from simulator.cloud import limits
from simulator.cloud.shard import Shard

_MINUTE_S = 60
_RECORDS_PER_MINUTE = limits.SHARD_WRITE_RECORDS.value / 2 * _MINUTE_S
_BYTES_PER_MINUTE = limits.ON_DEMAND_SPLIT_BYTES.value * _MINUTE_S


class _Load:
    """What one shard took in the current minute, and for how many minutes in a row it was too much."""

    __slots__ = ("bytes", "hot_minutes", "minute", "records")

    def __init__(self) -> None:
        self.minute = -1
        self.bytes = self.records = self.hot_minutes = 0

    def turn(self, minute: int) -> None:
        """Close the minutes before ``minute``; one without any traffic ends a hot streak."""
        if minute <= self.minute:
            return
        hot = self.bytes > _BYTES_PER_MINUTE or self.records > _RECORDS_PER_MINUTE
        self.hot_minutes = self.hot_minutes + 1 if hot else 0
        if minute > self.minute + 1:
            self.hot_minutes = 0
        self.minute, self.bytes, self.records = minute, 0, 0


class OnDemandScaling:
    """Counts per shard and minute; O(1) a put. :meth:`due` names the shards to split, once a minute."""

    def __init__(self, shards: Iterable[Shard]) -> None:
        self._loads = {shard.index: _Load() for shard in shards}
        self._looked_at = -1

    def added(self, shard: Shard) -> None:
        """A child begins with a clean record."""
        self._loads[shard.index] = _Load()

    def count(self, shard: Shard, records: int, nbytes: int, now: float) -> None:
        """One put stored so much in ``shard``."""
        load = self._loads[shard.index]
        load.turn(int(now // _MINUTE_S))
        load.bytes += nbytes
        load.records += records

    def due(self, open_shards: Sequence[Shard], now: float) -> list[Shard]:
        """The open shards that were too busy for fifteen minutes and are wide enough to be split."""
        minute = int(now // _MINUTE_S)
        if minute == self._looked_at:
            return []
        self._looked_at = minute
        for shard in open_shards:
            self._loads[shard.index].turn(minute)
        return [
            shard
            for shard in open_shards
            if self._loads[shard.index].hot_minutes >= limits.ON_DEMAND_SPLIT_MINUTES.value
            and shard.ending_hash_key - shard.starting_hash_key >= 2
        ]
