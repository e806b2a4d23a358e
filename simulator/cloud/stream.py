"""One Kinesis data stream: its shards, its life, and where a record goes. No I/O, no clock.

Prior art and why this differs: kinesalite and the general emulators store records in a database or a Python
list of dicts that every call walks, take everything they are offered, and lose records at a reshard. Here a
shard is two token buckets and an append-only log (:mod:`simulator.cloud.shard`,
:mod:`simulator.cloud.shard_log`), so a call costs O(records in it) however much is stored, and a stream only
routes: an entry's MD5 picks the open shard by bisection.

Timing is lazy: a transition (CREATING, UPDATING, DELETING) is due at a time, and the first call that sees that
time pass applies it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from simulator.cloud import limits
from simulator.cloud.errors import AwsError
from simulator.cloud.limits import LimitSettings
from simulator.cloud.metrics import Dimensions, Metrics
from simulator.cloud.on_demand import OnDemandScaling
from simulator.cloud.sequence import MAX_HASH_KEY, SEQ_STEP, hash_key, uniform_ranges
from simulator.cloud.shard import Shard, shard_id

if TYPE_CHECKING:
    from simulator.cloud.fan_out import Consumer

NAMESPACE = "AWS/Kinesis"
Mode = Literal["PROVISIONED", "ON_DEMAND"]
_HASH_CACHE_KEYS = 65_536


class PutEntry(msgspec.Struct, gc=False):
    """One PutRecordsRequestEntry; ``Data`` is decoded."""

    Data: bytes
    PartitionKey: str
    ExplicitHashKey: str | None = None


class PutResult(msgspec.Struct, gc=False, omit_defaults=True):
    """One PutRecordsResultEntry: either the first two members or the last two are set."""

    SequenceNumber: str | None = None
    ShardId: str | None = None
    ErrorCode: str | None = None
    ErrorMessage: str | None = None


def key_bytes(partition_key: str) -> int:
    """Bytes a partition key counts for: its UTF-8."""
    return len(partition_key) if partition_key.isascii() else len(partition_key.encode())


class Transition(NamedTuple):
    """A change that is under way: until ``due`` the stream is in ``status``, then ``apply(now)`` runs."""

    due: float
    status: str
    apply: Callable[[float], object]


class Stream:
    """Every method that can change something takes ``now``, in seconds since the epoch."""

    def __init__(
        self,
        name: str,
        arn: str,
        account_id: str,
        shard_count: int,
        now: float,
        settings: LimitSettings,
        metrics: Metrics,
        mode: Mode = "PROVISIONED",
        max_record_bytes: int = int(limits.RECORD_MAX_BYTES),
    ) -> None:
        self.name = name
        self.arn = arn
        self.account_id = account_id
        self.settings = settings
        self.metrics = metrics
        self.created_at = now
        self.mode: Mode = mode
        self.retention_hours = limits.RETENTION_DEFAULT_HOURS.value
        self.max_record_bytes = max_record_bytes
        self.encryption_key: str | None = None
        self.tags: dict[str, str] = {}
        self.shard_level_metrics: list[str] = []
        self.consumers: dict[str, Consumer] = {}
        self.transition: Transition | None = None
        # When calls that are counted over a day were made, by operation.
        self.calls: dict[str, deque[float]] = {}
        self.shards = [
            Shard(index, hash_range, now, settings, max_record_bytes=max_record_bytes)
            for index, hash_range in enumerate(uniform_ranges(shard_count))
        ]
        self.on_demand = OnDemandScaling(self.shards) if mode == "ON_DEMAND" else None
        self._dimensions: Dimensions = (("StreamName", name),)
        self._hashes: dict[str, int] = {}
        self._route()
        self.begin("CREATING", settings.stream_transition_seconds, lambda _: None, now)

    # -- life ------------------------------------------------------------------------------------------

    def begin(self, status: str, seconds: float, apply: Callable[[float], object], now: float) -> None:
        """Enter ``status`` for ``seconds``, after which ``apply`` runs; at once when that is none."""
        self.transition = Transition(now + seconds, status, apply)
        self.settle(now)

    def settle(self, now: float) -> None:
        """Apply whatever has become due."""
        if self.transition is not None and now >= self.transition.due:
            due, self.transition = self.transition, None
            due.apply(now)
        if self.on_demand is not None:
            for shard in self.on_demand.due(self._open, now):
                self.split(shard, (shard.starting_hash_key + shard.ending_hash_key) // 2 + 1, now)

    def status(self, now: float) -> str:
        """StreamStatus: CREATING, ACTIVE, UPDATING or DELETING."""
        self.settle(now)
        return "ACTIVE" if self.transition is None else self.transition.status

    def require_active(self, now: float) -> None:
        """:raises AwsError: ResourceInUseException."""
        status = self.status(now)
        if status != "ACTIVE":
            raise AwsError(
                "ResourceInUseException",
                f"Stream {self.name} under account {self.account_id} not ACTIVE, instead in state {status}",
            )

    def require_usable(self, now: float) -> None:
        """Records are taken and given while ACTIVE or UPDATING. :raises AwsError: ResourceNotFoundException."""
        if self.status(now) in ("CREATING", "DELETING"):
            raise not_found(self.name, self.account_id)

    def count_call(self, operation: str, limit: limits.Quota, now: float) -> None:
        """Count a call that is limited over 24 hours.

        :raises AwsError: LimitExceededException.
        """
        made = self.calls.setdefault(operation, deque())
        while made and now - made[0] >= 86_400:
            made.popleft()
        if self.settings.enforced and len(made) >= limit.value:
            raise AwsError(
                "LimitExceededException",
                f"{operation} was called {len(made)} times on stream {self.name} in the last 24 hours, "
                "which is the limit.",
            )
        made.append(now)

    # -- routing ---------------------------------------------------------------------------------------

    def _route(self) -> None:
        self._open = sorted((s for s in self.shards if s.is_open), key=lambda s: s.starting_hash_key)
        self._starts = [s.starting_hash_key for s in self._open]

    def open_shards(self, now: float) -> list[Shard]:
        """Open shards by hash key, with everything applied that has become due."""
        self.settle(now)
        return self._open

    @property
    def open_now(self) -> list[Shard]:
        """Open shards as they are, without applying what is due."""
        return self._open

    def owner(self, key: int) -> int:
        """Index into the open shards of the one whose range holds hash key ``key``."""
        return bisect_right(self._starts, key) - 1

    def shard_of(self, entry: PutEntry) -> int:
        """Index into the open shards of the one that takes ``entry``.

        :raises AwsError: InvalidArgumentException when the explicit hash key is out of range.
        """
        if entry.ExplicitHashKey is not None:
            key = int(entry.ExplicitHashKey)
            if key > MAX_HASH_KEY:
                raise AwsError(
                    "InvalidArgumentException",
                    "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. "
                    f"Specified value was {entry.ExplicitHashKey}",
                )
            return self.owner(key)
        cached = self._hashes.get(entry.PartitionKey)
        if cached is None:
            if len(self._hashes) >= _HASH_CACHE_KEYS:
                self._hashes.clear()
            cached = self._hashes[entry.PartitionKey] = hash_key(entry.PartitionKey)
        return self.owner(cached)

    # -- writing ---------------------------------------------------------------------------------------

    def put_records(self, entries: Sequence[PutEntry], now: float, operation: str = "PutRecords") -> list[PutResult]:
        """Admit and store one call's entries; results are in the order of the entries.

        O(entries), whatever is stored.
        """
        open_shards = self.open_shards(now)
        by_shard: dict[int, Sequence[int]]
        if len(open_shards) == 1 and not any(entry.ExplicitHashKey for entry in entries):
            # One shard owns every hash key, so no key needs hashing.
            by_shard = {0: range(len(entries))}
        else:
            routed: dict[int, list[int]] = {}
            for position, entry in enumerate(entries):
                routed.setdefault(self.shard_of(entry), []).append(position)
            by_shard = routed  # type: ignore[assignment]
        results: list[PutResult] = [None] * len(entries)  # type: ignore[list-item]
        accepted_bytes = accepted = throttled = 0
        for index, positions in by_shard.items():
            stored, stored_bytes = self._put_slice(open_shards[index], entries, positions, results, now)
            accepted += stored
            accepted_bytes += stored_bytes
            throttled += len(positions) - stored
        self._record_put(operation, len(entries), accepted, accepted_bytes, throttled, now)
        return results

    def _put_slice(
        self,
        shard: Shard,
        entries: Sequence[PutEntry],
        positions: Sequence[int],
        results: list[PutResult],
        now: float,
    ) -> tuple[int, int]:
        """The entries of one call that belong to one shard; returns records and bytes stored."""
        chosen = [entries[position] for position in positions]
        sizes = [len(entry.Data) + key_bytes(entry.PartitionKey) for entry in chosen]
        total = sum(sizes)
        dimensions = (*self._dimensions, ("ShardId", shard.shard_id))
        by_count, by_bytes = shard.refused_by_count, shard.refused_by_bytes
        refused = shard.admit(sizes, now)
        if refused:
            failure = PutResult(
                ErrorCode="ProvisionedThroughputExceededException", ErrorMessage=self.rate_exceeded(shard)
            )
            out = set(refused)
            for place in refused:
                results[positions[place]] = failure
            total -= sum(sizes[place] for place in refused)
            chosen = [entry for place, entry in enumerate(chosen) if place not in out]
            positions = [position for place, position in enumerate(positions) if place not in out]
            record = self.metrics.record
            record(NAMESPACE, "WriteProvisionedThroughputExceeded", dimensions, len(refused), now)
            record("Alleycat/Kinesis", "RefusedByRecords", dimensions, shard.refused_by_count - by_count, now)
            record("Alleycat/Kinesis", "RefusedByBytes", dimensions, shard.refused_by_bytes - by_bytes, now)
        if chosen:
            number = shard.append([entry.Data for entry in chosen], [entry.PartitionKey for entry in chosen], now)
            name = shard.shard_id
            for position in positions:
                results[position] = PutResult(str(number), name)
                number += SEQ_STEP
            self.metrics.record(NAMESPACE, "IncomingRecords", dimensions, len(chosen), now)
            self.metrics.record(NAMESPACE, "IncomingBytes", dimensions, total, now)
            shard.log.trim(self.trim_horizon_ms(now))
            if self.on_demand is not None:
                self.on_demand.count(shard, len(chosen), total, now)
        return len(chosen), total

    def rate_exceeded(self, shard: Shard) -> str:
        """AWS's words for a refused put or read."""
        return f"Rate exceeded for shard {shard.shard_id} in stream {self.name} under account {self.account_id}."

    def _record_put(
        self, operation: str, offered: int, accepted: int, accepted_bytes: int, throttled: int, now: float
    ) -> None:
        record, dimensions = self.metrics.record, self._dimensions
        if accepted:
            record(NAMESPACE, "IncomingRecords", dimensions, accepted, now)
            record(NAMESPACE, "IncomingBytes", dimensions, accepted_bytes, now)
        # An operation is a success when it stored at least one record; the sum is how many were.
        record(NAMESPACE, f"{operation}.Success", dimensions, float(accepted > 0), now)
        record(NAMESPACE, f"{operation}.Bytes", dimensions, accepted_bytes, now)
        if throttled:
            record(NAMESPACE, "WriteProvisionedThroughputExceeded", dimensions, throttled, now)
        if operation == "PutRecords":
            record(NAMESPACE, "PutRecords.TotalRecords", dimensions, offered, now)
            record(NAMESPACE, "PutRecords.SuccessfulRecords", dimensions, accepted, now)
            record(NAMESPACE, "PutRecords.ThrottledRecords", dimensions, throttled, now)
            record(NAMESPACE, "PutRecords.FailedRecords", dimensions, 0, now)

    # -- retention -------------------------------------------------------------------------------------

    def trim_horizon_ms(self, now: float) -> int:
        """What arrived before is gone."""
        return int((now - self.retention_hours * 3600) * 1000)

    def sweep(self, now: float) -> None:
        """Free the memory of every record that retention has ended, also in shards that take none any more."""
        before_ms = self.trim_horizon_ms(now)
        for shard in self.shards:
            shard.log.trim(before_ms)

    def listed(self, now: float) -> list[Shard]:
        """Shards that are open, or closed and not yet EXPIRED; none while the stream is created or deleted."""
        if self.status(now) in ("CREATING", "DELETING"):
            return []
        horizon = now - self.retention_hours * 3600
        return [shard for shard in self.shards if shard.closed_at is None or shard.closed_at >= horizon]

    def resize_records(self, max_record_bytes: int, now: float) -> None:
        """Change MaxRecordSizeInKiB: the byte bucket of a shard holds at least one record."""
        self.max_record_bytes = max_record_bytes
        for shard in self.shards:
            shard.resize_records(max_record_bytes, now)

    # -- shards ----------------------------------------------------------------------------------------

    def split(self, parent: Shard, new_starting_hash_key: int, now: float) -> tuple[Shard, Shard]:
        """Replace ``parent`` by two children, the second beginning at ``new_starting_hash_key``."""
        low = (parent.starting_hash_key, new_starting_hash_key - 1)
        high = (new_starting_hash_key, parent.ending_hash_key)
        return self._child(low, now, parent), self._child(high, now, parent)

    def merge(self, left: Shard, right: Shard, now: float) -> Shard:
        """Replace two neighbours by one child."""
        return self._child((left.starting_hash_key, right.ending_hash_key), now, left, right)

    def _child(self, hash_range: tuple[int, int], now: float, parent: Shard, adjacent: Shard | None = None) -> Shard:
        child = Shard(
            len(self.shards),
            hash_range,
            now,
            self.settings,
            parent=parent,
            adjacent_parent=adjacent,
            max_record_bytes=self.max_record_bytes,
        )
        for one in (parent, adjacent):
            if one is not None:
                if one.is_open:
                    one.close(now)
                one.children.append(child)
        self.shards.append(child)
        if self.on_demand is not None:
            self.on_demand.added(child)
        self._route()
        return child

    def shard(self, name: str) -> Shard:
        """The shard of that id, open or closed; ``shardId-7`` and ``7`` are the same, as on AWS.

        :raises AwsError: ResourceNotFoundException.
        """
        index = shard_index(name)
        if index is not None and index < len(self.shards):
            return self.shards[index]
        raise AwsError(
            "ResourceNotFoundException",
            f"Could not find shard {name if index is None else shard_id(index)} in stream {self.name} "
            f"under account {self.account_id}.",
        )


def shard_index(name: str) -> int | None:
    """The index that a shard id tells; None when it tells none."""
    digits = name.partition("-")[2] or name
    if digits.isascii() and digits.isdigit() and int(digits) < 1 << 31:
        return int(digits)
    return None


def not_found(name: str, account_id: str) -> AwsError:
    """The stream is not there, or not yet."""
    return AwsError("ResourceNotFoundException", f"Stream {name} under account {account_id} not found.")


def open_count(streams: Iterable[Stream], now: float) -> int:
    """Open shards of all ``streams``."""
    return sum(len(stream.open_shards(now)) for stream in streams)
