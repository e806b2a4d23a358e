"""What a shard holds in virtual time: who sent it and when it came, not the bytes.

Records that arrived at one time from one race and class are alike, so a :class:`Group` keeps one
:class:`consumers.runtime.event.Record` for all of them, and a reader gets it as often as there are records. The
consumer runtime's own state machines then cut batches of it as they do of any other.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from consumers.runtime.event import Record
from simulator.cloud import limits

_HELD_GROUPS = 4096


class Kind(NamedTuple):
    """What a record is, as functions need to know it: the race and class by their places in the workload."""

    race: int
    class_place: int
    is_final: bool


class Group(NamedTuple):
    """``size`` records that are alike; ``first`` is the position of the first of them."""

    record: Record
    kind: Kind
    first: int
    size: int


class Arrivals:
    """The records of one shard. ``updates`` and ``finals`` are an event's entries that stand for all of theirs."""

    def __init__(self, updates: bytes, finals: bytes, record_bytes: int) -> None:
        self.end = 0
        self.kinds: dict[str, Kind] = {}
        self._encoded = (updates, finals)
        self._record_bytes = record_bytes
        self._groups: list[Group] = []
        self._firsts: list[int] = []
        self._limit = min(int(limits.GET_RECORDS_MAX_RECORDS), int(limits.GET_RECORDS_MAX_BYTES) // record_bytes)

    def append(self, now: float, kind: Kind, count: int, partition_key: str = "") -> None:
        """``count`` records were accepted at ``now``."""
        number = str(self.end)
        record = Record(number, now, self._encoded[kind.is_final], partition_key)
        self.kinds[number] = kind
        self._groups.append(Group(record, kind, self.end, count))
        self._firsts.append(self.end)
        self.end += count

    def read(self, position: int) -> tuple[list[Record], int]:
        """What one GetRecords at ``position`` returns, and its bytes."""
        until = min(self.end, position + self._limit)
        records: list[Record] = []
        index = bisect_right(self._firsts, position) - 1
        while position < until:
            group = self._groups[index]
            count = min(until, group.first + group.size) - position
            records += [group.record] * count
            position += count
            index += 1
        return records, len(records) * self._record_bytes

    def kinds_between(self, begin: int, end: int) -> dict[Kind, int]:
        """How many records of each kind there are from position ``begin`` up to ``end``: O(groups)."""
        found: dict[Kind, int] = {}
        index = bisect_right(self._firsts, begin) - 1
        while begin < end:
            group = self._groups[index]
            until = min(end, group.first + group.size)
            found[group.kind] = found.get(group.kind, 0) + until - begin
            begin, index = until, index + 1
        return found

    def forget(self, position: int) -> None:
        """Nobody asks for what lies before ``position`` any more. Costs nothing until some thousand groups are held."""
        if len(self._groups) < _HELD_GROUPS:
            return
        until = bisect_right(self._firsts, position) - 1
        if until < len(self._groups) // 2:
            return
        for group in self._groups[:until]:
            del self.kinds[group.record.sequence_number]
        del self._groups[:until]
        del self._firsts[:until]

    def millis_behind(self, position: int, now: float) -> int:
        """As :meth:`simulator.cloud.shard.Shard.millis_behind`."""
        if position >= self.end:
            return 0
        group = self._groups[bisect_right(self._firsts, position) - 1]
        return max(1, int((now - group.record.arrival_s) * 1000))
