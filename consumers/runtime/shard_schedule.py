"""What Lambda's poller does next with one shard, as a state machine: no I/O, no clock, no threads.

Whoever drives it (a thread in :mod:`consumers.runtime.shard_poller`, a loop in a test) repeats

1. ask :meth:`ShardSchedule.next_action`,
2. do what it says: read, invoke, or wait,
3. report back with the matching ``on_...`` method.

The rules it keeps, as Lambda does: one read a second while the shard's tip is in sight, faster while it is not; one
invocation in flight; a failed batch blocks its shard and is retried until ``MaximumRetryAttempts``; a partial
failure is taken up again at the reported record; a checkpoint moves only past what succeeded (or was given up and
counted). Lambda's choices that are not published: the records left over from a partial failure that made progress
are a new batch, retried at once with a fresh count of attempts; a record too large for any event is dropped and
counted.

Costs: O(records of a batch) for an invocation, O(1) otherwise. Memory is bounded by one response of GetRecords
and one batch.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

from consumers.runtime.batches import Cut, Outcome, cut
from consumers.runtime.checkpoints import ShardCheckpoint
from consumers.runtime.config import MappingConfig, RuntimeSettings
from consumers.runtime.event import EMPTY_STATE, EventBuilder, Record, Window, assemble, envelope_bytes
from consumers.runtime.windows import Close, TumblingWindow

LONGEST_WAIT_S = 60.0
"""No pause is longer than this; a clock set back cannot stall a shard beyond it."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where to get an iterator: ``arguments`` of GetShardIterator besides stream and shard."""

    arguments: dict[str, str | float]


@dataclass(frozen=True, slots=True)
class Poll:
    """Read the shard; ``position`` is where to get an iterator if there is none."""

    position: Position


@dataclass(frozen=True, slots=True)
class Invoke:
    """Invoke the function. ``records`` is empty for a window's last invocation; ``window`` is None without windows."""

    records: tuple[Record, ...]
    window: Window | None
    is_final: bool
    members: bytes

    def event(self) -> bytes:
        """The event as JSON."""
        return assemble(self.records, self.members)


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before ``until`` (seconds since the epoch)."""

    until: float


@dataclass(frozen=True, slots=True)
class Finished:
    """The shard is closed and everything in it is processed."""


Action = Poll | Invoke | Wait | Finished


class ShardSchedule:
    """The state of one shard under one mapping. ``checkpoint`` is where a successor would resume."""

    def __init__(
        self,
        mapping: MappingConfig,
        shard_id: str,
        settings: RuntimeSettings,
        now: float,
        checkpoint: ShardCheckpoint | None = None,
        *,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self.checkpoint = checkpoint or ShardCheckpoint()
        self.events = EventBuilder(mapping, shard_id)
        self.millis_behind: int | None = None
        self.retries = self.dropped_records = self.dropped_windows = 0
        self.last_failure: tuple[str, str] | None = None
        self._mapping = mapping
        self._settings = settings
        self._rng = rng
        self._window: TumblingWindow | None = None
        if mapping.tumbling_window_s:
            self._window = TumblingWindow(
                mapping.tumbling_window_s, settings.window_close_grace_s, self.checkpoint.window
            )
        self._buffer: deque[Record] = deque()
        self._read_up_to = self.checkpoint.sequence_number
        self._since = self.checkpoint.since
        self._is_latest = False
        self._tip_seen_at: float | None = None
        self._ended = self.checkpoint.finished
        self._next_poll_at = now
        self._poll_failures = 0
        self._in_flight: Invoke | None = None
        self._retry_count: int | None = None  # records of the batch being retried
        self._attempts = self._throttles = 0
        self._retry_at = now
        self._batch_opened_at = now

    # -- what others ask -------------------------------------------------------------------------------

    @property
    def buffered(self) -> int:
        """Records read and not processed."""
        return len(self._buffer)

    @property
    def is_blocked(self) -> bool:
        """A batch failed or was refused and waits for its retry."""
        return self._attempts > 0 or self._throttles > 0

    @property
    def poll_failures(self) -> int:
        """Reads that failed in a row."""
        return self._poll_failures

    def caught_up(self, since: float) -> bool:
        """Whether everything that was in the shard at ``since`` is processed, its windows included."""
        if self.checkpoint.finished:
            return True
        idle = not self._buffer and self._in_flight is None and (self._window is None or self._window.open is None)
        return idle and self._tip_seen_at is not None and self._tip_seen_at >= since

    # -- deciding --------------------------------------------------------------------------------------

    def next_action(self, now: float) -> Action:
        """What to do at ``now``. An :class:`Invoke` must be reported back before the next call."""
        if self._in_flight is not None:
            raise RuntimeError("the invocation in flight was not reported back")
        if self.checkpoint.finished:
            return Finished()
        self._retry_at = min(self._retry_at, now + LONGEST_WAIT_S)
        if now < self._retry_at:
            return Wait(self._retry_at)
        batch_ready_at = None
        found = self._next_invocation()
        while found is not None and found[1] is None:
            self._drop_oversize(now)
            found = self._next_invocation()
        if found is not None:
            ready, invocation = found
            batch_ready_at = now if ready else min(self._batch_opened_at, now) + self._mapping.batching_window_s
            if batch_ready_at <= now:
                self._in_flight = invocation
                assert invocation is not None
                return invocation
        elif self._ended:
            self.checkpoint = ShardCheckpoint(self.checkpoint.sequence_number, self._since, finished=True)
            return Finished()
        self._next_poll_at = min(self._next_poll_at, now + LONGEST_WAIT_S)
        if now >= self._next_poll_at and not self._ended:
            position = self._position()
            # Whatever happens to this read, LATEST would later be another place than now.
            self._is_latest = False
            return Poll(position)
        return Wait(min(self._next_poll_at, batch_ready_at or self._next_poll_at))

    def _next_invocation(self) -> tuple[bool, Invoke | None] | None:
        """The next invocation and whether it need not wait for more records; None when there is none.

        The invocation is None when the first record fits no event.
        """
        window, state = None, EMPTY_STATE
        if self._window is not None:
            head = self._buffer[0].arrival_s if self._buffer else None
            step = self._window.next_step(head, self._tip_seen_at, shard_ended=self._ended)
            if step is None:
                return None
            window, state = step.window, step.state
            if isinstance(step, Close):
                members = self.events.window_members(window, state, is_final=True, is_early=step.is_early)
                return True, Invoke((), window, True, members)
        if not self._buffer:
            return None
        members = EMPTY_STATE
        if window is not None:
            members = self.events.window_members(window, state, is_final=False, is_early=False)
        batch = self._cut(members, window)
        if batch.count == 0:
            return True, None
        ready = batch.is_closed or self._ended or self._retry_count is not None
        return ready, Invoke(tuple(islice(self._buffer, batch.count)), window, False, members)

    def _cut(self, members: bytes, window: Window | None) -> Cut:
        return cut(
            self._buffer,
            batch_size=self._retry_count or self._mapping.batch_size,
            envelope_bytes=envelope_bytes(members),
            window_end_s=window.end_s if window is not None else None,
        )

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
        if records:
            if not self._buffer:
                self._batch_opened_at = now
            self._buffer.extend(records)
            self._read_up_to = records[-1].sequence_number
            self._tip_seen_at = None
        elif millis_behind == 0:
            self._tip_seen_at = began
        more = millis_behind > 0 or len(records) >= settings.get_records_limit
        self._next_poll_at = began + (settings.catch_up_interval_s if more else settings.poll_interval_s)

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

    def on_invoke_result(self, outcome: Outcome, now: float) -> None:
        """The invocation in flight returned."""
        invocation, self._in_flight = self._in_flight, None
        if invocation is None:
            raise RuntimeError("no invocation is in flight")
        self._batch_opened_at = now
        if outcome.is_throttled:
            self._throttles += 1
            self._retry_count = len(invocation.records) or None
            self._retry_at = now + self._settings.throttled.delay_s(self._throttles)
            return
        self._throttles = 0
        self.last_failure = outcome.failure or self.last_failure
        if outcome.failure is None or outcome.processed > 0:
            self._advance(invocation, outcome)
            return
        self._attempts += 1
        if 0 <= self._mapping.maximum_retry_attempts < self._attempts:
            self._give_up(invocation)
            return
        self.retries += 1
        self._retry_count = len(invocation.records) or None
        self._retry_at = now + self._settings.retry.delay_s(self._attempts)

    def _advance(self, invocation: Invoke, outcome: Outcome) -> None:
        """The first ``outcome.processed`` records are done, the others of the batch come next."""
        self._attempts = 0
        if self._window is not None and invocation.window is not None:
            if invocation.is_final:
                self._window.closed()
            else:
                self._window.extended(invocation.window, outcome.state or EMPTY_STATE)
        left = len(invocation.records) - outcome.processed
        self._retry_count = left or None
        self.retries += left > 0
        self._pass(outcome.processed)

    def _give_up(self, invocation: Invoke) -> None:
        self._attempts = 0
        self._retry_count = None
        if invocation.is_final and self._window is not None:
            self._window.closed()
            self.dropped_windows += 1
        self.dropped_records += len(invocation.records)
        self._pass(len(invocation.records))

    def _drop_oversize(self, now: float) -> None:
        head = self._buffer[0]
        problem = f"record {head.sequence_number} makes an event larger than 6 MB and was dropped"
        self.last_failure = ("Alleycat.RecordTooLarge", problem)
        self.dropped_records += 1
        self._retry_count = None
        self._pass(1)

    def _pass(self, count: int) -> None:
        """Take ``count`` records off the buffer and set the checkpoint behind them."""
        number = self.checkpoint.sequence_number
        for _ in range(count):
            number = self._buffer.popleft().sequence_number
        opened = self._window.open if self._window is not None else None
        self.checkpoint = ShardCheckpoint(number, self._since, False, opened)
