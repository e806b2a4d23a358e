"""The records of one shard: an append-only log whose cost does not depend on its length.

Records lie in segments of fixed size, each a few columns (data, partition keys, arrival times) rather than an
object per record, so three million records are a few thousand objects for the garbage collector to look at and
an append never moves what is already stored. Appending is O(1) a record, reading O(records returned), finding
a time or the trim horizon O(log n), trimming O(segments dropped).
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import NamedTuple

SEGMENT_RECORDS = 4096


class StoredRecord(NamedTuple):
    """One record as read back; ``arrival_ms`` is ApproximateArrivalTimestamp in ms since the epoch."""

    position: int
    data: bytes
    partition_key: str
    arrival_ms: int


class _Segment:
    __slots__ = ("arrivals_ms", "data", "keys")

    def __init__(self) -> None:
        self.data: list[bytes] = []
        self.keys: list[str] = []
        self.arrivals_ms = array("q")


class ShardLog:
    """Positions count from 0 and are never reused; ``[first, end)`` is what is still stored."""

    __slots__ = ("_first_segment", "_gone", "_segments", "_trimmed", "bytes_stored", "end", "last_arrival_ms")

    def __init__(self) -> None:
        self._segments: list[_Segment] = []
        self._first_segment = 0
        # Records of the first segment whose bytes were let go, and the position below which nothing is stored.
        self._trimmed = 0
        self._gone = 0
        self.end = 0
        self.bytes_stored = 0
        self.last_arrival_ms = 0

    @property
    def first(self) -> int:
        return self._gone

    def append(self, data: Sequence[bytes], keys: Sequence[str], arrival_ms: int) -> int:
        """Store records that arrived together; returns the position of the first.

        Arrival times never go back within a shard, even when the clock does: a reader that asks AT_TIMESTAMP
        relies on their order.
        """
        arrival_ms = max(arrival_ms, self.last_arrival_ms)
        self.last_arrival_ms = arrival_ms
        start = self.end
        taken = 0
        while taken < len(data):
            room = SEGMENT_RECORDS - self.end % SEGMENT_RECORDS
            if room == SEGMENT_RECORDS:
                self._segments.append(_Segment())
            segment = self._segments[-1]
            part = data[taken : taken + room]
            segment.data.extend(part)
            segment.keys.extend(keys[taken : taken + room])
            segment.arrivals_ms.extend([arrival_ms] * len(part))
            taken += len(part)
            self.end += len(part)
        self.bytes_stored += sum(map(len, data))
        return start

    def arrival_ms_at(self, position: int) -> int:
        """When the record at ``position`` arrived. :raises IndexError: when it is not stored."""
        if not self.first <= position < self.end:
            raise IndexError(position)
        index, offset = divmod(position, SEGMENT_RECORDS)
        return self._segments[index - self._first_segment].arrivals_ms[offset]

    def position_at(self, arrival_ms: int) -> int:
        """The first position whose record arrived at ``arrival_ms`` or later; ``end`` when there is none."""
        segments = self._segments
        index = bisect_left(segments, arrival_ms, key=lambda segment: segment.arrivals_ms[-1])
        if index == len(segments):
            return self.end
        offset = bisect_left(segments[index].arrivals_ms, arrival_ms)
        return max(self._gone, (self._first_segment + index) * SEGMENT_RECORDS + offset)

    def read(self, position: int, max_records: int, max_bytes: int) -> Iterator[StoredRecord]:
        """Records from ``position`` on, until either bound; at least one record when there is any.

        Bytes count data and partition key, as GetRecords does.
        """
        position = max(position, self.first)
        remaining = min(max_records, self.end - position)
        size = 0
        first = True
        while remaining > 0:
            index, offset = divmod(position, SEGMENT_RECORDS)
            segment = self._segments[index - self._first_segment]
            count = min(remaining, SEGMENT_RECORDS - offset)
            stop = offset + count
            for data, key, arrival_ms in zip(
                segment.data[offset:stop],
                segment.keys[offset:stop],
                segment.arrivals_ms[offset:stop],
                strict=True,
            ):
                size += len(data) + len(key)
                if size > max_bytes and not first:
                    return
                first = False
                yield StoredRecord(position, data, key, arrival_ms)
                position += 1
            remaining -= count

    def trim(self, before_ms: int) -> int:
        """Drop every record that arrived before ``before_ms``; returns how many went.

        Whole segments go at once. In the first one that stays the dropped records' bytes are let go, so memory
        follows retention record by record; O(segments and records dropped).
        """
        segments = self._segments
        if not segments or segments[0].arrivals_ms[self._trimmed] >= before_ms:
            return 0
        before = self.first
        keep = bisect_left(segments, before_ms, key=lambda segment: segment.arrivals_ms[-1])
        # The segment being written to stays: its position arithmetic is the log's.
        keep = min(keep, len(segments) - 1)
        if keep:
            self.bytes_stored -= sum(len(data) for segment in segments[:keep] for data in segment.data)
            del segments[:keep]
            self._first_segment += keep
            self._trimmed = 0
        head = segments[0]
        gone = bisect_left(head.arrivals_ms, before_ms)
        for index in range(self._trimmed, gone):
            self.bytes_stored -= len(head.data[index])
            head.data[index] = b""
            head.keys[index] = ""
        # At least one arrival time stays to be compared with.
        self._trimmed = min(max(gone, self._trimmed), len(head.arrivals_ms) - 1)
        self._gone = max(self._gone, self._first_segment * SEGMENT_RECORDS + gone)
        return self.first - before
