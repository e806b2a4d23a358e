"""One Kinesis shard: admission and storage. No I/O, no clock of its own.

How a shard says no
-------------------

AWS publishes two write limits per shard, 1,000 records/s and 1 MiB/s with partition keys counted, and does not
publish how a second is measured. Field reports (kinesalite's author on AWS; the documentation's picture of "a
tank that refills at a steady rate") fit a token bucket per limit that holds about one second's worth, which is
the model here; its depth is a setting. Size is rounded up to whole KiB once per call and shard: a PutRecord is
rounded alone, a PutRecords "on the cumulative sum of records in each call" (AWS, troubleshooting producers).

Within a call entries are looked at in order, each against what the ones before it left. A refused entry spends
nothing, so a smaller one after it may still pass: that is how AWS reorders records under throttling.

The planner asks the same buckets through :meth:`Shard.admit_many`, which costs O(1) for any number of equal
records; a property test holds it equal to :meth:`Shard.admit`.

Reading has five calls a second and 2 MiB/s. A call may return up to 10 MiB, far more than a second's worth, so
the read bucket goes into debt and refuses calls until it is out of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from simulator.cloud import limits
from simulator.cloud.limits import EPSILON, KIB, LimitSettings, TokenBucket
from simulator.cloud.sequence import SEQ_IX_END, SEQ_STEP, TIME_STEP, SequenceNumber
from simulator.cloud.shard_log import ShardLog


@dataclass(frozen=True, slots=True)
class ShardStatistics:
    """What one shard has done since it was created."""

    shard_id: str
    open: bool
    records_stored: int
    bytes_stored: int
    records_accepted: int
    records_refused_by_count: int
    records_refused_by_bytes: int


def shard_id(index: int) -> str:
    """``shardId-`` and twelve digits, as AWS names them."""
    return f"shardId-{index:012d}"


def whole_kib(nbytes: int) -> int:
    """``nbytes`` rounded up to KiB, as throttling counts them."""
    return -(-nbytes // KIB) * KIB


class Shard:
    """Admits, stores and hands out the records of one hash key range."""

    def __init__(
        self,
        index: int,
        hash_range: tuple[int, int],
        now: float,
        settings: LimitSettings,
        *,
        parent: Shard | None = None,
        adjacent_parent: Shard | None = None,
        max_record_bytes: int = int(limits.RECORD_MAX_BYTES),
    ) -> None:
        self.index = index
        self.shard_id = shard_id(index)
        self.starting_hash_key, self.ending_hash_key = hash_range
        self.parent = parent
        self.adjacent_parent = adjacent_parent
        self.children: list[Shard] = []
        self.created_at = now
        # AWS's children begin a second after their reshard, as kinesalite's author recorded.
        self.created_s = int(now) + (parent is not None)
        self._number_base = SequenceNumber(self.created_s, index, 0, 0).to_int()
        self.closed_at: float | None = None
        self.log = ShardLog()
        self.settings = settings
        records = limits.SHARD_WRITE_RECORDS.value * settings.shard_rate_factor
        nbytes = limits.SHARD_WRITE_BYTES.value * settings.shard_rate_factor
        depth = settings.shard_burst_seconds
        self.write_records = TokenBucket(records, records * depth, now)
        # A bucket shallower than one whole record could never admit it: a shard of large records is "a tank that
        # bursts up to 10 MiB, averaging 1 MiB/s" (CAH large-records).
        self.write_bytes = TokenBucket(nbytes, max(nbytes * depth, max_record_bytes), now)
        calls = limits.SHARD_READ_CALLS.value
        self.read_calls = TokenBucket(calls, calls, now)
        self.read_bytes = TokenBucket(limits.SHARD_READ_BYTES.value, limits.SHARD_READ_BYTES.value, now)
        iterators = limits.GET_SHARD_ITERATOR_CALLS.value
        self.iterator_calls = TokenBucket(iterators, iterators, now)
        self.refused_by_count = 0
        self.refused_by_bytes = 0
        # Called after an append or a close: whoever waits for records without asking again and again.
        self.listeners: list[Callable[[], object]] = []

    # -- writing ---------------------------------------------------------------------------------------

    def admit(self, sizes: Sequence[int], now: float) -> list[int]:
        """Spend capacity for the records of one call, in order; returns the positions refused.

        ``sizes`` are bytes of data plus partition key. O(1) when all fit, O(records) when some do not.
        """
        available_records = self.write_records.refill(now) + EPSILON
        available_bytes = self.write_bytes.refill(now) + EPSILON
        count = len(sizes)
        cost = whole_kib(sum(sizes))
        if not self.settings.enforced:
            return []
        if count <= available_records and cost <= available_bytes:
            self.write_records.tokens -= count
            self.write_bytes.tokens -= cost
            return []
        refused: list[int] = []
        taken = total = 0
        for position, nbytes in enumerate(sizes):
            if taken + 1 > available_records:
                refused.extend(range(position, count))
                self.refused_by_count += count - position
                break
            if whole_kib(total + nbytes) > available_bytes:
                refused.append(position)
                self.refused_by_bytes += 1
                continue
            taken += 1
            total += nbytes
        self.write_records.tokens -= taken
        self.write_bytes.tokens -= whole_kib(total)
        return refused

    def admit_many(self, count: int, nbytes: int, now: float) -> int:
        """As :meth:`admit` for ``count`` records of ``nbytes`` each in one call; returns how many pass. O(1)."""
        available_records = self.write_records.refill(now) + EPSILON
        available_bytes = self.write_bytes.refill(now) + EPSILON
        if not self.settings.enforced:
            return count
        by_count = min(count, int(available_records))
        by_bytes = int(available_bytes // KIB) * KIB // nbytes
        taken = min(by_count, by_bytes)
        self.write_records.tokens -= taken
        self.write_bytes.tokens -= whole_kib(taken * nbytes)
        if by_bytes < by_count:
            self.refused_by_bytes += count - taken
        else:
            self.refused_by_count += count - taken
        return taken

    def append(self, data: Sequence[bytes], keys: Sequence[str], now: float) -> int:
        """Store admitted records; returns the integer sequence number of the first.

        Each following one is ``sequence.SEQ_STEP`` higher.
        """
        position = self.log.append(data, keys, int(now * 1000))
        for tell in self.listeners:
            tell()
        return SequenceNumber(self.created_s, self.index, position + 1, self.log.last_arrival_ms // 1000).to_int()

    # -- reading ---------------------------------------------------------------------------------------

    def admit_read(self, now: float) -> bool:
        """Whether one GetRecords may run now; spends a call when it may."""
        if not self.settings.enforced:
            return True
        if self.read_bytes.refill(now) + EPSILON < 0:
            return False
        return self.read_calls.take(1, now)

    def charge_read(self, nbytes: int, now: float) -> None:
        """Account for what a GetRecords returned; the bucket may go into debt."""
        self.read_bytes.refill(now)
        self.read_bytes.tokens -= nbytes
        if nbytes >= limits.GET_RECORDS_MAX_BYTES.value - limits.RECORD_MAX_BYTES.value:
            # "If a call returns 10 MiB, subsequent calls within the next 5 seconds throw" (GetRecords reference):
            # a full answer stops one record short of the bound. The debt then takes that long to pay.
            debt = limits.GET_RECORDS_FULL_PENALTY.value * self.read_bytes.rate
            self.read_bytes.tokens = min(self.read_bytes.tokens, -debt)

    def horizon(self, retention_hours: float, now: float) -> int:
        """The oldest position still readable under the retention period."""
        return max(self.log.first, self.log.position_at(int((now - retention_hours * 3600) * 1000)))

    def millis_behind(self, end: int, now: float) -> int:
        """0 at the tip; otherwise how long ago the next unread record arrived (at least 1)."""
        if end >= self.log.end:
            return 0
        return max(1, int(now * 1000) - self.log.arrival_ms_at(end))

    def sequence_number(self, position: int, arrival_ms: int) -> str:
        """The sequence number of the record stored at ``position``."""
        # As SequenceNumber(created_s, index, position + 1, arrival_s), of which only the last two differ by record.
        return str(self._number_base + (position + 1) * SEQ_STEP + arrival_ms // 1000 * TIME_STEP)

    def position_number(self, position: int, now: float) -> str:
        """The sequence number after which ``position`` is the next record."""
        if position == 0:
            return self.starting_sequence_number()
        arrival_ms = self.log.arrival_ms_at(position - 1) if position > self.log.first else int(now * 1000)
        return self.sequence_number(position - 1, arrival_ms)

    # -- life ------------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        return self.closed_at is None

    def close(self, now: float) -> None:
        """Stop taking records; what is stored stays readable until retention ends."""
        self.closed_at = now
        for tell in self.listeners:
            tell()

    def resize_records(self, max_record_bytes: int, now: float) -> None:
        """The stream's MaxRecordSizeInKiB changed; an enlarged bucket begins with what it held."""
        rate = self.write_bytes.rate
        self.write_bytes.resize(rate, max(rate * self.settings.shard_burst_seconds, max_record_bytes), now)

    def starting_sequence_number(self) -> str:
        return str(SequenceNumber(self.created_s, self.index, 0, self.created_s))

    def ending_sequence_number(self) -> str | None:
        """None while the shard is open."""
        if self.closed_at is None:
            return None
        return str(SequenceNumber(self.created_s, self.index, SEQ_IX_END, int(self.closed_at)))

    def statistics(self) -> ShardStatistics:
        return ShardStatistics(
            shard_id=self.shard_id,
            open=self.is_open,
            records_stored=self.log.end - self.log.first,
            bytes_stored=self.log.bytes_stored,
            records_accepted=self.log.end,
            records_refused_by_count=self.refused_by_count,
            records_refused_by_bytes=self.refused_by_bytes,
        )
