"""What Lambda's poller does next with one shard, as a state machine: no I/O, no clock, no threads.

Whoever drives it (a thread in :mod:`consumers.runtime.shard_poller`, a loop in a test) repeats

1. ask :meth:`ShardSchedule.next_action`,
2. do what it says: read, invoke, tell a destination, or wait,
3. report back with the matching ``on_...`` method.

The rules it keeps, as Lambda does: one read a second while the shard's tip is in sight, faster while it is not; up
to ParallelizationFactor invocations in flight, records of one partition key never in two of them; a batch that
fails blocks its lane, which is the whole shard when there is one lane (:mod:`consumers.runtime.lane`); a checkpoint
is everything below the lowest record that is neither processed, nor filtered out, nor given up and counted.

Lambda does not publish how keys are laid on lanes. Here it is the MD5 of the partition key, as for shards, modulo
the factor. Records left over from a partial failure that made progress are a new batch, retried at once with a fresh
count of attempts; that is not published either.

Costs: O(records of a batch) for an invocation, O(1) otherwise. Memory is bounded by one response of GetRecords
and, with one lane, one batch, else ``RuntimeSettings.read_ahead_max_records``.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from hashlib import md5

from consumers.runtime.actions import Action, Deliver, Discard, Finished, Invoke, Poll, Position, Wait
from consumers.runtime.batches import Outcome
from consumers.runtime.checkpoints import ShardCheckpoint
from consumers.runtime.config import MappingConfig, RuntimeSettings
from consumers.runtime.counts import ShardCounts
from consumers.runtime.event import EventBuilder, Record
from consumers.runtime.filtering import Filters
from consumers.runtime.lane import LONGEST_WAIT_S, Lane
from consumers.runtime.windows import OpenWindow, TumblingWindow

__all__ = [
    "LONGEST_WAIT_S",
    "Action",
    "Deliver",
    "Discard",
    "Finished",
    "Invoke",
    "Poll",
    "Position",
    "ShardSchedule",
    "Wait",
    "lane_of",
]


def lane_of(partition_key: str, lanes: int) -> int:
    """The lane of a partition key, 0..``lanes`` - 1."""
    return int.from_bytes(md5(partition_key.encode(), usedforsecurity=False).digest(), "big") % lanes


class ShardSchedule:
    """The state of one shard under one mapping. ``checkpoint`` is where a successor would resume.

    ``counts`` outlives a schedule that is replaced; None begins at zero.
    """

    def __init__(
        self,
        mapping: MappingConfig,
        shard_id: str,
        settings: RuntimeSettings,
        now: float,
        checkpoint: ShardCheckpoint | None = None,
        *,
        rng: Callable[[], float] = random.random,
        counts: ShardCounts | None = None,
    ) -> None:
        self.checkpoint = checkpoint or ShardCheckpoint()
        self.events = EventBuilder(mapping, shard_id)
        self.counts = counts or ShardCounts()
        self.millis_behind: int | None = None
        self._mapping = mapping
        self._settings = settings
        self._rng = rng
        self._filters = Filters(mapping.filter_patterns, mapping.source_kind)
        self._window: TumblingWindow | None = None
        if mapping.tumbling_window_s:
            self._window = TumblingWindow(
                mapping.tumbling_window_s, settings.window_close_grace_s, self.checkpoint.window
            )
        self._lanes = [
            Lane(number, mapping, settings, self.events, self.counts, self._window, now)
            for number in range(mapping.parallelization_factor)
        ]
        self._first_lane = 0
        # With several lanes, the records that were read and are not below the checkpoint, with their lanes; None for
        # one that was filtered out.
        self._order: deque[tuple[str, Lane | None]] = deque()
        self._read_up_to = self.checkpoint.sequence_number
        self._since = self.checkpoint.since
        self._is_latest = False
        self._tip_seen_at: float | None = None
        self._ended = self.checkpoint.finished
        self._next_poll_at = now
        self._poll_failures = 0

    # -- what others ask -------------------------------------------------------------------------------

    @property
    def buffered(self) -> int:
        """Records read and not processed."""
        return sum(lane.buffered for lane in self._lanes)

    @property
    def in_flight(self) -> int:
        """Invocations and deliveries that were not reported back."""
        return sum(lane.is_busy for lane in self._lanes)

    @property
    def is_blocked(self) -> bool:
        """A batch failed or was refused and waits for its retry."""
        return any(lane.is_blocked for lane in self._lanes)

    @property
    def poll_failures(self) -> int:
        """Reads that failed in a row."""
        return self._poll_failures

    @property
    def retries(self) -> int:
        return self.counts.retries

    @property
    def dropped_records(self) -> int:
        return self.counts.dropped_records

    @property
    def dropped_windows(self) -> int:
        return self.counts.dropped_windows

    @property
    def last_failure(self) -> tuple[str, str] | None:
        """Of the first lane that has one."""
        return next((lane.last_failure for lane in self._lanes if lane.last_failure is not None), None)

    def caught_up(self, since: float) -> bool:
        """Whether everything that was in the shard at ``since`` is processed, its windows included."""
        if self.checkpoint.finished:
            return True
        idle = all(lane.is_idle for lane in self._lanes)
        return idle and self._tip_seen_at is not None and self._tip_seen_at >= since

    @property
    def is_at_rest(self) -> bool:
        """Nothing is to be done before the next read, whatever that brings; an open window may be waiting."""
        lane = self._lanes[0]
        return (
            len(self._lanes) == 1
            and not self._filters
            and not self._ended
            and not self._poll_failures
            and not lane.buffer
            and not lane.is_busy
            and not lane.is_blocked
        )

    @property
    def next_poll_at(self) -> float:
        """When the next read is due."""
        return self._next_poll_at

    @property
    def open_window(self) -> OpenWindow | None:
        return self._window.open if self._window is not None else None

    def resume(self, next_poll_at: float, tip_seen_at: float | None, window: OpenWindow | None) -> None:
        """For whoever knows what reads at rest bring and carried them out without asking: all of it was processed at
        once, the next read is due at ``next_poll_at``, the last one began at ``tip_seen_at`` if it found the tip."""
        assert self.is_at_rest, "something is to be done"
        self._next_poll_at = next_poll_at
        self._tip_seen_at = tip_seen_at
        if self._window is not None:
            self._window.open = window
        self._move_checkpoint()

    # -- deciding --------------------------------------------------------------------------------------

    def next_action(self, now: float) -> Action:
        """What to do at ``now``. With one lane, an :class:`Invoke` or a :class:`Deliver` must be reported back before
        the next call; with several, others may be handed out meanwhile, and a :class:`Wait` may end early, when one
        of them is reported back."""
        if self.checkpoint.finished:
            return Finished()
        lanes, count = self._lanes, len(self._lanes)
        if count == 1 and lanes[0].is_busy:
            raise RuntimeError("the invocation in flight was not reported back")
        wake_at = now + LONGEST_WAIT_S
        for offset in range(count):
            number = (self._first_lane + offset) % count
            if lanes[number].is_busy:
                continue
            step = lanes[number].next_step(now, self._tip_seen_at, shard_ended=self._ended)
            if isinstance(step, (Invoke, Deliver)):
                # No lane starves behind a busy one.
                self._first_lane = (number + 1) % count
                self._move_checkpoint()
                return step
            if step is not None:
                wake_at = min(wake_at, step)
        self._move_checkpoint()
        if self._ended:
            if all(lane.is_idle for lane in lanes):
                self.checkpoint = ShardCheckpoint(self.checkpoint.sequence_number, self._since, finished=True)
                return Finished()
            return Wait(wake_at)
        if all(lane.is_busy or lane.is_pausing(now) for lane in lanes) or self._is_full():
            return Wait(wake_at)
        self._next_poll_at = min(self._next_poll_at, now + LONGEST_WAIT_S)
        if now >= self._next_poll_at:
            position = self._position()
            # Whatever happens to this read, LATEST would later be another place than now.
            self._is_latest = False
            return Poll(position)
        return Wait(min(self._next_poll_at, wake_at))

    def _is_full(self) -> bool:
        return len(self._lanes) > 1 and self.buffered >= self._settings.read_ahead_max_records

    def _position(self) -> Position:
        if self._read_up_to is not None:
            return Position({"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": self._read_up_to})
        if self._is_latest:
            return Position({"ShardIteratorType": "LATEST"})
        timestamp = self._since if self._since is not None else self._mapping.starting_timestamp
        if timestamp is not None:
            return Position({"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": timestamp})
        # Also for LATEST: a shard that appeared after the mapping started is later as a whole.
        return Position({"ShardIteratorType": "TRIM_HORIZON"})

    # -- reading ---------------------------------------------------------------------------------------

    def start_at(self, since: float) -> None:
        """Begin at LATEST. ``since`` is now: until a record was read, later iterators begin at that time
        (which boto3 sends in whole seconds: up to one more is read, none is missed)."""
        self._since = since
        self._is_latest = True
        self.checkpoint = ShardCheckpoint(None, since)

    def on_poll_result(
        self, began: float, now: float, records: Sequence[Record], millis_behind: int, *, shard_ended: bool
    ) -> None:
        """A read that began at ``began`` returned. ``shard_ended``: there is no next iterator."""
        settings = self._settings
        self._poll_failures = 0
        self.millis_behind = millis_behind
        self._ended = shard_ended
        count = 0
        if records:
            self._read_up_to = records[-1].sequence_number
            count = self._distribute(records, now)
            self._tip_seen_at = None
        elif millis_behind == 0:
            self._tip_seen_at = began
        more = millis_behind > 0 or count >= settings.get_records_limit
        self._next_poll_at = began + (settings.catch_up_interval_s if more else settings.poll_interval_s)

    def _distribute(self, records: Sequence[Record], now: float) -> int:
        count = sum(record.count for record in records)
        self.counts.polled += count
        passing = self._passing(records) if self._filters else records
        if len(self._lanes) == 1:
            self._lanes[0].push(passing, now)
        else:
            shares: list[list[Record]] = [[] for _ in self._lanes]
            for record in passing:
                shares[lane_of(record.partition_key, len(shares))].append(record)
            for lane, share in zip(self._lanes, shares, strict=True):
                lane.push(share, now)
            owners = {
                record.sequence_number: lane
                for lane, share in zip(self._lanes, shares, strict=True)
                for record in share
            }
            self._order.extend((record.sequence_number, owners.get(record.sequence_number)) for record in records)
        self._move_checkpoint()
        return count

    def _passing(self, records: Sequence[Record]) -> list[Record]:
        passing = []
        for record in records:
            if self._filters.passes(record.encoded):
                passing.append(record)
            else:
                self.counts.filtered_out += record.count
                self._lanes[0].latest_filtered_arrival_s = record.arrival_s
        return passing

    def on_poll_throttled(self, now: float) -> None:
        """The read was refused: the shard's five calls or two MiB a second are used up, by whomever."""
        self._poll_failures += 1
        # Consumers that collided must not meet again.
        delay_s = self._settings.throttled.delay_s(self._poll_failures) * (0.5 + self._rng())
        self._next_poll_at = now + delay_s

    def on_poll_failed(self, now: float) -> None:
        """The stream could not be read at all."""
        self._poll_failures += 1
        self._next_poll_at = now + self._settings.unreachable.delay_s(self._poll_failures)

    def on_iterator_expired(self, now: float) -> None:
        """The iterator was too old; the next read takes a new one after the last record read."""
        self._next_poll_at = now + self._settings.catch_up_interval_s

    # -- invoking --------------------------------------------------------------------------------------

    def on_invoke_result(self, outcome: Outcome, now: float, lane: int = 0) -> None:
        """The invocation in flight in ``lane`` returned."""
        self._lanes[lane].on_invoke_result(outcome, now)
        self._move_checkpoint()

    def on_delivered(self, now: float, lane: int = 0) -> None:
        """The on-failure destination took what :class:`Deliver` had for it."""
        self._lanes[lane].on_delivered(now)
        self._move_checkpoint()

    def on_delivery_failed(self, now: float, lane: int = 0) -> None:
        """The on-failure destination could not be told."""
        self._lanes[lane].on_delivery_failed(now)
        self._move_checkpoint()

    def _move_checkpoint(self) -> None:
        """Set the checkpoint behind the last record below which nothing is left to do."""
        number = self._lowest_number() if len(self._lanes) > 1 else self._number_of_one_lane()
        opened: OpenWindow | None = self._window.open if self._window is not None else None
        if number != self.checkpoint.sequence_number or opened is not self.checkpoint.window:
            self.checkpoint = ShardCheckpoint(number, self._since, False, opened)

    def _number_of_one_lane(self) -> str | None:
        lane = self._lanes[0]
        if not lane.buffer:
            # Beyond the last record done, there may be some that were filtered out.
            lane.last_done = self._read_up_to
        return lane.last_done or self.checkpoint.sequence_number

    def _lowest_number(self) -> str | None:
        number, order = self.checkpoint.sequence_number, self._order
        while order:
            candidate, lane = order[0]
            # A lane works in order, so its oldest record here is at its head or done.
            if lane is not None and lane.buffer and lane.buffer[0].sequence_number == candidate:
                break
            number = candidate
            order.popleft()
        return number
