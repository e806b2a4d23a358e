"""The embedded Kinesis Data Streams: streams, their shards and their resharding. No I/O, no clock.

Prior art and why this differs: kinesalite and the general emulators store records in a database or a Python
list of dicts that every call walks, take everything they are offered, and lose records at a reshard. Here a
shard is two token buckets and an append-only log (:mod:`simulator.cloud.shard`,
:mod:`simulator.cloud.shard_log`), so a call costs O(records in it) however much is stored, and a stream only
routes: an entry's MD5 picks the open shard by bisection.

Resharding replaces shards by children and never moves a record: parents close, stay readable until retention
ends, and name their children to readers that reach their end. UpdateShardCount is done as AWS documents it, as
splits and merges: every open shard is split where a target range begins inside it, then the pieces of each
target range are merged. The short-lived shards in between exist and are listed, as on AWS.

Timing is lazy: a reshard is due at a time, and the first call that sees that time pass applies it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence

import msgspec

from simulator.cloud import limits
from simulator.cloud.errors import AwsError
from simulator.cloud.limits import LimitSettings
from simulator.cloud.metrics import Dimensions, Metrics
from simulator.cloud.sequence import MAX_HASH_KEY, SEQ_STEP, hash_key, uniform_ranges
from simulator.cloud.shard import Shard

NAMESPACE = "AWS/Kinesis"
DAY_S = 86_400
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


class Stream:
    """One provisioned stream. Every method that can change something takes ``now``."""

    def __init__(
        self,
        name: str,
        arn: str,
        account_id: str,
        shard_count: int,
        now: float,
        settings: LimitSettings,
        metrics: Metrics,
    ) -> None:
        self.name = name
        self.arn = arn
        self.account_id = account_id
        self.settings = settings
        self.metrics = metrics
        self.created_at = now
        self.retention_hours = limits.RETENTION_DEFAULT_HOURS.value
        self.tags: dict[str, str] = {}
        self.shards = [
            Shard(index, hash_range, now, settings) for index, hash_range in enumerate(uniform_ranges(shard_count))
        ]
        self._dimensions: Dimensions = (("StreamName", name),)
        self._reshard: tuple[float, int] | None = None
        self._update_calls: deque[float] = deque()
        self._hashes: dict[str, int] = {}
        self._route()

    # -- routing ---------------------------------------------------------------------------------------

    def _route(self) -> None:
        self._open = sorted((s for s in self.shards if s.is_open), key=lambda s: s.starting_hash_key)
        self._starts = [s.starting_hash_key for s in self._open]

    def open_shards(self, now: float) -> list[Shard]:
        """Open shards by hash key, with a reshard that has become due applied."""
        self.settle(now)
        return self._open

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
        else:
            cached = self._hashes.get(entry.PartitionKey)
            if cached is None:
                if len(self._hashes) >= _HASH_CACHE_KEYS:
                    self._hashes.clear()
                cached = self._hashes[entry.PartitionKey] = hash_key(entry.PartitionKey)
            key = cached
        return bisect_right(self._starts, key) - 1

    # -- writing ---------------------------------------------------------------------------------------

    def put_records(self, entries: Sequence[PutEntry], now: float, operation: str = "PutRecords") -> list[PutResult]:
        """Admit and store one call's entries; results are in the order of the entries.

        O(entries), whatever is stored.
        """
        open_shards = self.open_shards(now)
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
                ErrorCode="ProvisionedThroughputExceededException",
                ErrorMessage=(
                    f"Rate exceeded for shard {shard.shard_id} in stream {self.name} under account {self.account_id}."
                ),
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
            shard.log.trim(int((now - self.retention_hours * 3600) * 1000))
        return len(chosen), total

    def _record_put(
        self, operation: str, offered: int, accepted: int, accepted_bytes: int, throttled: int, now: float
    ) -> None:
        record, dimensions = self.metrics.record, self._dimensions
        record(NAMESPACE, "IncomingRecords", dimensions, accepted, now)
        record(NAMESPACE, "IncomingBytes", dimensions, accepted_bytes, now)
        record(NAMESPACE, f"{operation}.Success", dimensions, 1 if accepted else 0, now)
        record(NAMESPACE, f"{operation}.Bytes", dimensions, accepted_bytes, now)
        if throttled:
            record(NAMESPACE, "WriteProvisionedThroughputExceeded", dimensions, throttled, now)
        if operation == "PutRecords":
            record(NAMESPACE, "PutRecords.TotalRecords", dimensions, offered, now)
            record(NAMESPACE, "PutRecords.SuccessfulRecords", dimensions, accepted, now)
            record(NAMESPACE, "PutRecords.ThrottledRecords", dimensions, throttled, now)

    # -- resharding ------------------------------------------------------------------------------------

    def status(self, now: float) -> str:
        self.settle(now)
        return "ACTIVE" if self._reshard is None else "UPDATING"

    def settle(self, now: float) -> None:
        """Apply a reshard whose time has come."""
        if self._reshard is not None and now >= self._reshard[0]:
            _, target = self._reshard
            self._reshard = None
            self._scale(target, now)

    def require_active(self, now: float) -> None:
        status = self.status(now)
        if status != "ACTIVE":
            raise AwsError(
                "ResourceInUseException",
                f"Stream {self.name} under account {self.account_id} not ACTIVE, instead in state {status}",
            )

    def update_shard_count(self, target: int, now: float) -> int:
        """Begin a uniform reshard to ``target`` shards; returns the current open shard count.

        :raises AwsError: LimitExceededException by AWS's rules (double, half, ten a day), ResourceInUseException
            while another reshard runs.
        """
        self.require_active(now)
        current = len(self._open)
        if target > 2 * current:
            raise AwsError(
                "LimitExceededException",
                "UpdateShardCount cannot scale up over double your current open shard count. "
                f"Current open shard count: {current}, Target shard count: {target}",
            )
        if target < current / 2:
            raise AwsError(
                "LimitExceededException",
                "UpdateShardCount cannot scale down below half your current open shard count. "
                f"Current open shard count: {current}, Target shard count: {target}",
            )
        while self._update_calls and now - self._update_calls[0] >= DAY_S:
            self._update_calls.popleft()
        if self.settings.enforced and len(self._update_calls) >= limits.UPDATE_SHARD_COUNT_PER_DAY.value:
            raise AwsError(
                "LimitExceededException",
                f"UpdateShardCount was called {len(self._update_calls)} times on stream {self.name} in the last "
                f"24 hours, which is the limit.",
            )
        self._update_calls.append(now)
        self._reshard = (now + self.settings.reshard_seconds, target)
        self.settle(now)
        return current

    def _scale(self, target: int, now: float) -> None:
        ranges = uniform_ranges(target)
        if [(s.starting_hash_key, s.ending_hash_key) for s in self._open] == ranges:
            return
        for start, _ in ranges[1:]:
            index = bisect_right(self._starts, start) - 1
            if self._starts[index] != start:
                self.split(self._open[index], start, now)
        for start, end in ranges:
            index = bisect_right(self._starts, start) - 1
            while self._open[index].ending_hash_key < end:
                self.merge(self._open[index], self._open[index + 1], now)

    def split(self, parent: Shard, new_starting_hash_key: int, now: float) -> tuple[Shard, Shard]:
        """Replace ``parent`` by two children, the second beginning at ``new_starting_hash_key``."""
        low = (parent.starting_hash_key, new_starting_hash_key - 1)
        high = (new_starting_hash_key, parent.ending_hash_key)
        return self._child(low, now, parent), self._child(high, now, parent)

    def merge(self, left: Shard, right: Shard, now: float) -> Shard:
        """Replace two neighbours by one child."""
        return self._child((left.starting_hash_key, right.ending_hash_key), now, left, right)

    def _child(self, hash_range: tuple[int, int], now: float, parent: Shard, adjacent: Shard | None = None) -> Shard:
        child = Shard(len(self.shards), hash_range, now, self.settings, parent=parent, adjacent_parent=adjacent)
        for one in (parent, adjacent):
            if one is not None:
                if one.is_open:
                    one.close(now)
                one.children.append(child)
        self.shards.append(child)
        self._route()
        return child

    # -- lookup ----------------------------------------------------------------------------------------

    def shard(self, name: str) -> Shard:
        """The shard of that id, open or closed.

        :raises AwsError: ResourceNotFoundException.
        """
        digits = name.partition("-")[2] or name
        if digits.isascii() and digits.isdigit() and int(digits) < len(self.shards):
            return self.shards[int(digits)]
        raise AwsError(
            "ResourceNotFoundException",
            f"Could not find shard {name} in stream {self.name} under account {self.account_id}.",
        )


class Kinesis:
    """The streams of one account and region."""

    def __init__(self, region: str, account_id: str, settings: LimitSettings, metrics: Metrics) -> None:
        self.region = region
        self.account_id = account_id
        self.settings = settings
        self.metrics = metrics
        self.streams: dict[str, Stream] = {}

    def create_stream(self, name: str, shard_count: int, now: float) -> Stream:
        """:raises AwsError: ResourceInUseException, LimitExceededException."""
        if name in self.streams:
            raise AwsError("ResourceInUseException", f"Stream {name} under account {self.account_id} already exists.")
        in_use = sum(len(stream.open_shards(now)) for stream in self.streams.values())
        limit = int(limits.SHARDS_PER_ACCOUNT)
        if in_use + shard_count > limit:
            raise AwsError(
                "LimitExceededException",
                f"This request would exceed the shard limit for the account {self.account_id} in {self.region}. "
                f"Current shard count for the account: {in_use}. Limit: {limit}. Number of additional shards that "
                f"would have resulted from this request: {shard_count}. Refer to the AWS Service Limits page "
                "(http://docs.aws.amazon.com/general/latest/gr/aws_service_limits.html) for current limits and how "
                "to request higher limits.",
            )
        arn = f"arn:aws:kinesis:{self.region}:{self.account_id}:stream/{name}"
        stream = Stream(name, arn, self.account_id, shard_count, now, self.settings, self.metrics)
        self.streams[name] = stream
        return stream

    def stream(self, name: str) -> Stream:
        """:raises AwsError: ResourceNotFoundException."""
        try:
            return self.streams[name]
        except KeyError:
            raise AwsError(
                "ResourceNotFoundException", f"Stream {name} under account {self.account_id} not found."
            ) from None

    def resolve(self, name: str | None, arn: str | None) -> Stream:
        """The stream of that name or ARN; an ARN must be of this region and account.

        :raises AwsError: InvalidArgumentException when neither is given, ResourceNotFoundException.
        """
        if arn is None:
            if name is None:
                raise AwsError("InvalidArgumentException", "Either StreamName or StreamARN must be provided.")
            return self.stream(name)
        stream = self.streams.get(arn.partition("/")[2])
        if stream is None or stream.arn != arn or name not in (None, stream.name):
            raise AwsError("ResourceNotFoundException", f"Stream {arn} under account {self.account_id} not found.")
        return stream

    def delete_stream(self, name: str) -> None:
        self.stream(name)
        del self.streams[name]
