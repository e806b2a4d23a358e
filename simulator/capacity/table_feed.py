"""A table's stream in virtual time: what its writes leave for functions to read.

A record is what the embedded cloud would record (:func:`simulator.cloud.dynamodb_streams.change_body`), as the consumer
runtime encodes it, so that filters and the size of an event are the real ones. Writes that are alike and come one after
the other in one second stand in one record. The shards that follow each other are one here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec

from consumers.runtime.event import EventBuilder, Record
from consumers.runtime.sources.dynamodb_stream import GET_RECORDS_MAX_RECORDS
from simulator.cloud.dynamodb_streams import change_body
from simulator.cloud.item_size import Item
from simulator.cloud.limits import STREAM_READ_BYTES
from simulator.deployment import TableSpec


class Change(Record, frozen=True, gc=False):
    """``count`` changes that are ``alike``, of ``nbytes`` each. ``results`` names the results item that it is, as
    ``PK/SK``, and ``text_bytes`` is the length of its results; empty and 0 for every other."""

    alike: str = ""
    nbytes: int = 0
    results: str = ""
    text_bytes: int = 0

    def standing_for(self, count: int) -> Change:
        """It, for so many."""
        return self if count == self.count else msgspec.structs.replace(self, count=count)


class Queue:
    """The records that one reader has not read; ``came`` is called after one came."""

    def __init__(self, came: Callable[[], None]) -> None:
        self._came = came
        self._changes: deque[Change] = deque()
        self.records = 0

    def push(self, change: Change) -> None:
        self.records += 1
        last = self._changes[-1] if self._changes else None
        if change.alike and last is not None and (last.alike, last.arrival_s) == (change.alike, change.arrival_s):
            self._changes[-1] = last.standing_for(last.count + 1)
        else:
            self._changes.append(change)
        self._came()

    def read(self) -> list[Change]:
        """What one GetRecords returns: at most 1,000 records and 1 MB, one at least."""
        found: list[Change] = []
        records, nbytes = GET_RECORDS_MAX_RECORDS, int(STREAM_READ_BYTES.value)
        while self._changes and records > 0:
            change = self._changes[0]
            taken = min(change.count, records, max(nbytes // change.nbytes, 0 if found else 1))
            if not taken:
                break
            found.append(change.standing_for(taken))
            if taken < change.count:
                self._changes[0] = change.standing_for(change.count - taken)
            else:
                self._changes.popleft()
            records -= taken
            nbytes -= taken * change.nbytes
            self.records -= taken
        return found


class TableFeed:
    """The stream of ``table``, with so many records ``written``; ``events`` encodes for whoever reads it."""

    def __init__(self, table: TableSpec, region: str, events: EventBuilder) -> None:
        self.readers: list[Queue] = []
        self._keys = [name for name, _ in table.keys]
        self._view = table.stream_view_type or "NEW_AND_OLD_IMAGES"
        self._region = region
        self._events = events
        self.written = 0
        self._known: dict[str, Change] = {}

    def add(self, before: Item | None, after: Item, now: float, alike: str = "") -> None:
        """An item was put; a write that changes nothing leaves no record. Writes that are ``alike`` are encoded
        once."""
        if before == after:
            return
        self.written += 1
        arrival_s = float(int(now))
        known = self._known.get(alike)
        if known is None:
            body = change_body(before, after, self._keys, self._view, self._region, now, self.written)
            record = self._events.dynamodb_record(body, arrival_s)
            is_results = "results" in after
            known = Change(
                record.sequence_number,
                arrival_s,
                record.encoded,
                record.partition_key,
                1,
                alike,
                body["dynamodb"]["SizeBytes"],
                f"{after['PK']['S']}/{after['SK']['S']}" if is_results else "",
                len(after["results"]["S"]) if is_results else 0,
            )
            if alike:
                self._known[alike] = known
        change = Change(
            str(self.written),
            arrival_s,
            known.encoded,
            known.partition_key,
            1,
            alike,
            known.nbytes,
            known.results,
            known.text_bytes,
        )
        for reader in self.readers:
            reader.push(change)
