"""The streams of DynamoDB tables: what is recorded of a write, and how long it is kept. No I/O, no clock.

One shard is open at a time, so the order of a table's changes holds, not only that of each item (AWS promises the
latter). It is closed after four hours, as AWS does about that often, and its successor names it as its parent. Records
go 24 hours after they were written, with their memory; a closed shard goes with its last record. A stream that is
switched off, or whose table is deleted, stays readable that long.

No item expires here by TTL, so no record carries ``userIdentity``.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from simulator.cloud import limits
from simulator.cloud.item_size import Item, item_size

# AWS's sequence numbers have 21 to 40 digits.
_FIRST_NUMBER = 10**20
_RETENTION_S = limits.STREAM_RETENTION_HOURS.value * 3600
ROLLOVER_S = 4 * 3600.0
"""How long a shard takes records; about what is seen on AWS, which does not publish it."""


@dataclass(frozen=True, slots=True)
class StreamRecord:
    """One change. ``body`` is the wire's record, ``nbytes`` its SizeBytes."""

    number: int
    created_at: float
    nbytes: int
    body: dict[str, Any]


def change_body(
    before: Item | None, after: Item | None, keys: Iterable[str], view: str, region: str, now: float, number: int
) -> dict[str, Any]:
    """The wire's record of a change of the item with ``keys``, as a stream of ``view`` tells it."""
    image = after or before or {}
    told: dict[str, Any] = {
        "ApproximateCreationDateTime": float(int(now)),
        "Keys": {name: image[name] for name in keys},
    }
    if after is not None and view in ("NEW_IMAGE", "NEW_AND_OLD_IMAGES"):
        told["NewImage"] = after
    if before is not None and view in ("OLD_IMAGE", "NEW_AND_OLD_IMAGES"):
        told["OldImage"] = before
    # Keys and the images that the record holds (computed from AWS's samples: 26, 59, 12 and 70 bytes).
    nbytes = sum(item_size(told[part]) for part in ("Keys", "NewImage", "OldImage") if part in told)
    return {
        "eventID": uuid.uuid4().hex,
        "eventName": "INSERT" if before is None else "REMOVE" if after is None else "MODIFY",
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": region,
        "dynamodb": told | {"SequenceNumber": str(number), "SizeBytes": nbytes, "StreamViewType": view},
    }


@dataclass(slots=True)
class StreamShard:
    """Records from sequence number ``first`` on; ``last`` is set when it is closed."""

    shard_id: str
    parent: str | None
    first: int
    created_at: float
    records: deque[StreamRecord] = field(default_factory=deque)
    last: int | None = None
    closed_at: float | None = None
    trimmed_to: int = 0

    def read(self, number: int, limit: int) -> Iterator[StreamRecord]:
        """Records numbered ``number`` or higher, at most ``limit`` and 1 MB of them; one at least."""
        # Numbers are consecutive within a stream's life, so the place is known.
        skip = max(0, number - self.records[0].number) if self.records else 0
        total = 0
        for index, record in enumerate(islice(self.records, skip, skip + limit)):
            total += record.nbytes
            if index and total > limits.STREAM_READ_BYTES.value:
                return
            yield record


class TableStream:
    """One stream of one table, as long as its StreamSpecification was in force."""

    def __init__(self, description: Mapping[str, Any], region: str, now: float) -> None:
        self.arn = str(description["LatestStreamArn"])
        self.label = str(description["LatestStreamLabel"])
        self.table = str(description["TableName"])
        self.region = region
        self.view = str(description["StreamSpecification"]["StreamViewType"])
        self.key_schema = list(description["KeySchema"])
        self.created_at = now
        self.disabled_at: float | None = None
        self._next = _FIRST_NUMBER
        self.shards: list[StreamShard] = []
        self._open(None, now)

    def _open(self, parent: str | None, now: float) -> None:
        name = f"shardId-{int(now * 1000):020d}-{uuid.uuid4().hex[:8]}"
        self.shards.append(StreamShard(name, parent, self._next, now))

    def settle(self, now: float) -> None:
        """Close a shard whose time has come, and let go what is older than a day."""
        current = self.shards[-1]
        if current.closed_at is None and self.disabled_at is None and now - current.created_at >= ROLLOVER_S:
            self._close(now)
            self._open(current.shard_id, now)
        for shard in self.shards:
            while shard.records and now - shard.records[0].created_at > _RETENTION_S:
                shard.trimmed_to = shard.records.popleft().number + 1
        self.shards = [
            shard
            for shard in self.shards
            if shard.closed_at is None or shard.records or now - shard.closed_at <= _RETENTION_S
        ] or self.shards[-1:]

    def _close(self, now: float) -> None:
        shard = self.shards[-1]
        shard.closed_at = now
        shard.last = self._next - 1 if self._next > shard.first else shard.first

    def disable(self, now: float) -> None:
        """The stream was switched off, or its table deleted."""
        if self.disabled_at is None:
            self.disabled_at = now
            self._close(now)

    def is_gone(self, now: float) -> bool:
        """A day after it ended nothing of it is left."""
        return self.disabled_at is not None and now - self.disabled_at > _RETENTION_S

    def add(self, before: Item | None, after: Item | None, now: float) -> None:
        """Record a change; one that changes nothing leaves no record."""
        if before == after or self.disabled_at is not None:
            return
        self.settle(now)
        keys = [one["AttributeName"] for one in self.key_schema]
        body = change_body(before, after, keys, self.view, self.region, now, self._next)
        self.shards[-1].records.append(StreamRecord(self._next, now, body["dynamodb"]["SizeBytes"], body))
        self._next += 1

    @property
    def next_number(self) -> int:
        """What the next record will be numbered."""
        return self._next


class TableStreams:
    """The streams of every table of an account, those that have ended among them."""

    def __init__(self) -> None:
        self.by_arn: dict[str, TableStream] = {}
        self._current: dict[tuple[str, str], TableStream] = {}

    def follow(self, description: Mapping[str, Any], region: str, now: float) -> None:
        """A table is as ``description`` says from now on."""
        key = (region, str(description["TableName"]))
        specification = description.get("StreamSpecification") or {}
        current = self._current.get(key)
        arn = description.get("LatestStreamArn") if specification.get("StreamEnabled") else None
        if current is not None and current.arn != arn:
            self.end(region, key[1], now)
            current = None
        if current is None and arn is not None:
            self._current[key] = self.by_arn[arn] = TableStream(description, region, now)

    def end(self, region: str, table: str, now: float) -> None:
        """The table has no stream any more."""
        current = self._current.pop((region, table), None)
        if current is not None:
            current.disable(now)

    def add(self, region: str, table: str, before: Item | None, after: Item | None, now: float) -> None:
        """A write of ``table`` was made."""
        current = self._current.get((region, table))
        if current is not None:
            current.add(before, after, now)

    def settle(self, now: float) -> None:
        """Let go what is older than a day."""
        for arn, stream in list(self.by_arn.items()):
            stream.settle(now)
            if stream.is_gone(now):
                del self.by_arn[arn]
