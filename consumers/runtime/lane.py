"""One lane of a shard: records in their order, one invocation at a time. A state machine: no I/O, no clock.

A shard has ``ParallelizationFactor`` lanes (see :mod:`consumers.runtime.shard_schedule`), and each is blocked by its
own failures only. What becomes of a batch that fails:

* throttled: it was not invoked, so it is no attempt; it is sent again later, until it is too old;
* failed, with BisectBatchOnFunctionError and more than one record: it is split in half, and each half is a batch
  with attempts of its own. A split does not consume the retry quota;
* failed otherwise: an attempt; after ``MaximumRetryAttempts`` retries its records are given up;
* partly failed: the records before the lowest reported one are done, the others are a batch with attempts of its own.

Records that are older than ``MaximumRecordAgeInSeconds`` when they would be sent are given up too. Given-up records
stay in the lane until the on-failure destination, if there is one, was told, so a checkpoint never passes them
before.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice, takewhile

from consumers.runtime.actions import Condition, Deliver, Discard, Invoke
from consumers.runtime.batches import PAYLOAD_MAX_BYTES, Outcome, cut
from consumers.runtime.config import MappingConfig, RuntimeSettings
from consumers.runtime.counts import ShardCounts
from consumers.runtime.event import EMPTY_STATE, EventBuilder, Record, Window, envelope_bytes
from consumers.runtime.windows import Close, TumblingWindow

LONGEST_WAIT_S = 60.0
"""No pause is longer than this; a clock set back cannot stall a shard beyond it."""


class Lane:
    """Decides what is sent next, and what the answer means. ``window`` is None without tumbling windows."""

    def __init__(
        self,
        number: int,
        mapping: MappingConfig,
        settings: RuntimeSettings,
        events: EventBuilder,
        counts: ShardCounts,
        window: TumblingWindow | None,
        now: float,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self.number = number
        self.window = window
        self.buffer: deque[Record] = deque()
        self.buffered = 0
        self.last_done: str | None = None
        self.last_failure: tuple[str, str] | None = None
        self.latest_filtered_arrival_s: float | None = None
        self._mapping = mapping
        self._settings = settings
        self._events = events
        self._counts = counts
        self._new_id = new_id
        # Sizes of the batches that the head of the buffer was split into; the first is next.
        self._parts: deque[int] = deque()
        self._attempts = self._throttles = self._delivery_attempts = 0
        self._retry_at = now
        self._batch_opened_at = now
        self._in_flight: Invoke | None = None
        self._discard: Discard | None = None
        self._is_delivering = False

    @property
    def is_busy(self) -> bool:
        """An invocation or a delivery was handed out and not reported back."""
        return self._in_flight is not None or self._is_delivering

    @property
    def is_blocked(self) -> bool:
        """A batch failed or was refused and waits for its retry, or its destination does not answer."""
        return self._attempts > 0 or self._throttles > 0 or self._delivery_attempts > 0

    @property
    def is_idle(self) -> bool:
        """Nothing is buffered, in flight or open."""
        return not self.buffer and not self.is_busy and (self.window is None or self.window.open is None)

    def is_pausing(self, now: float) -> bool:
        """Whether a retry is due later than ``now``."""
        return now < self._retry_at

    def push(self, records: Sequence[Record], now: float) -> None:
        """Records were read."""
        if records:
            if not self.buffer:
                self._batch_opened_at = now
            self.buffer.extend(records)
            self.buffered += sum(record.count for record in records)

    def _head(self, count: int) -> tuple[Record, ...]:
        """The first ``count`` records of the buffer."""
        if self.buffered == len(self.buffer):
            return tuple(islice(self.buffer, count))
        taken = []
        for record in self.buffer:
            if count <= record.count:
                taken.append(record.first(count))
                break
            taken.append(record)
            count -= record.count
        return tuple(taken)

    # -- deciding --------------------------------------------------------------------------------------

    def next_step(self, now: float, tip_seen_at: float | None, *, shard_ended: bool) -> Invoke | Deliver | float | None:
        """What to do at ``now``, or when to ask again, or None when there is nothing to do.

        What is handed out must be reported back before the next call.
        """
        self._retry_at = min(self._retry_at, now + LONGEST_WAIT_S)
        if self.is_pausing(now):
            return self._retry_at
        while True:
            if self._discard is not None:
                self._is_delivering = True
                return Deliver(self._discard, self.number)
            found = self._next_invocation(tip_seen_at, shard_ended=shard_ended)
            if found is None:
                return None
            is_ready, invocation = found
            if invocation is None:
                continue
            ready_at = now if is_ready else min(self._batch_opened_at, now) + self._mapping.batching_window_s
            if ready_at > now:
                return ready_at
            expired = self._expired(invocation, now)
            if expired:
                self._give_up(expired, "RecordAgeExceeded", Outcome(0), invocation.members)
                continue
            self._in_flight = invocation
            return invocation

    def _next_invocation(self, tip_seen_at: float | None, *, shard_ended: bool) -> tuple[bool, Invoke | None] | None:
        """The next invocation and whether it need not wait for more records; None when there is none.

        The invocation is None when something that fits no event was given up instead.
        """
        window, state = None, EMPTY_STATE
        if self.window is not None:
            head = self.buffer[0].arrival_s if self.buffer else None
            step = self.window.next_step(
                head, tip_seen_at, shard_ended=shard_ended, latest_filtered_arrival_s=self.latest_filtered_arrival_s
            )
            if step is None:
                return None
            window, state = step.window, step.state
            if isinstance(step, Close):
                members = self._events.window_members(window, state, is_final=True, is_early=step.is_early)
                if envelope_bytes(members) > PAYLOAD_MAX_BYTES:
                    self.last_failure = ("Alleycat.StateTooLarge", "a window's state fits no event and was dropped")
                    self._drop_window()
                    return True, None
                return True, Invoke((), window, True, members, self.number)
        if not self.buffer:
            return None
        members = EMPTY_STATE
        if window is not None:
            members = self._events.window_members(window, state, is_final=False, is_early=False)
        batch = cut(
            self.buffer,
            batch_size=self._parts[0] if self._parts else self._mapping.batch_size,
            envelope_bytes=envelope_bytes(members),
            window_end_s=window.end_s if window is not None else None,
        )
        if batch.count == 0:
            if window is not None and state != EMPTY_STATE and self._fits(window):
                # It is the state that is in the way.
                members = self._events.window_members(window, state, is_final=True, is_early=True)
                return True, Invoke((), window, True, members, self.number)
            number = self.buffer[0].sequence_number
            problem = f"record {number} makes an event larger than 6 MB and was dropped"
            self.last_failure = ("Alleycat.RecordTooLarge", problem)
            self._give_up(1, "RetryAttemptsExhausted", Outcome(0), members)
            return True, None
        is_ready = batch.is_closed or shard_ended or bool(self._parts)
        return is_ready, Invoke(self._head(batch.count), window, False, members, self.number)

    def _fits(self, window: Window) -> bool:
        """Whether the next record fits an event of ``window`` without state."""
        members = self._events.window_members(window, EMPTY_STATE, is_final=False, is_early=False)
        return cut(islice(self.buffer, 1), batch_size=1, envelope_bytes=envelope_bytes(members)).count == 1

    def _expired(self, invocation: Invoke, now: float) -> int:
        """How many of the batch's first records are too old to be sent."""
        limit_s = self._mapping.maximum_record_age_s
        if limit_s < 0:
            return 0
        expired = takewhile(lambda record: now - record.arrival_s > limit_s, invocation.records)
        return sum(record.count for record in expired)

    # -- invoking --------------------------------------------------------------------------------------

    def on_invoke_result(self, outcome: Outcome, now: float) -> None:
        """The invocation in flight returned."""
        invocation, self._in_flight = self._in_flight, None
        if invocation is None:
            raise RuntimeError("no invocation is in flight")
        self._batch_opened_at = now
        sent = invocation.count
        if not outcome.is_stopped:
            self._counts.invoked += sent
        if outcome.is_throttled or outcome.failure is not None:
            if not outcome.is_stopped:
                self._counts.failed_invoke += sent - outcome.processed
            if sent and not self._parts:
                # Whatever else is read meanwhile, the same records are sent again.
                self._parts.append(sent)
        if outcome.is_throttled:
            self._throttles += 1
            self._retry_at = now + self._settings.throttled.delay_s(self._throttles)
            return
        self._throttles = 0
        self.last_failure = outcome.failure or self.last_failure
        if outcome.failure is None or outcome.processed > 0:
            self._advance(invocation, outcome, sent)
        else:
            self._failed(invocation, outcome, sent, now)

    def _advance(self, invocation: Invoke, outcome: Outcome, sent: int) -> None:
        """The first ``outcome.processed`` records are done, the others of the batch come next."""
        self._attempts = 0
        if self.window is not None and invocation.window is not None:
            if invocation.is_final:
                self.window.closed()
            else:
                self.window.extended(invocation.window, outcome.state or EMPTY_STATE)
        self._counts.retries += outcome.processed < sent
        self._pass(outcome.processed)

    def _failed(self, invocation: Invoke, outcome: Outcome, sent: int, now: float) -> None:
        if self._mapping.bisect_batch_on_function_error and sent > 1:
            whole = self._parts.popleft()
            self._parts.extendleft([whole - sent // 2, sent // 2])
            self._attempts = 0
            self._counts.retries += 1
            self._retry_at = now + self._settings.retry.delay_s(1)
            return
        self._attempts += 1
        if 0 <= self._mapping.maximum_retry_attempts < self._attempts:
            if invocation.is_final:
                self._drop_window()
            else:
                self._give_up(sent, "RetryAttemptsExhausted", outcome, invocation.members)
            return
        self._counts.retries += 1
        self._retry_at = now + self._settings.retry.delay_s(self._attempts)

    def _drop_window(self) -> None:
        assert self.window is not None
        self.window.closed()
        self._attempts = 0
        self._counts.dropped_windows += 1

    # -- giving up -------------------------------------------------------------------------------------

    def _give_up(self, count: int, condition: Condition, last: Outcome, members: bytes) -> None:
        discard = Discard(
            self._head(count),
            condition,
            self._attempts,
            last.request_id or self._new_id(),
            last.function_error,
            members,
        )
        if self._mapping.on_failure_destination is None:
            self._counts.dropped += count
            self._settle(discard)
        else:
            self._discard = discard

    def on_delivered(self, now: float) -> None:
        """The destination was told."""
        self._counts.delivered += self._delivering().count
        self._settle(self._delivering())

    def on_delivery_failed(self, now: float) -> None:
        """The destination could not be told. After some attempts the records are dropped, as Lambda does."""
        discard = self._delivering()
        self._is_delivering = False
        self._delivery_attempts += 1
        self._counts.delivery_failures += 1
        if self._delivery_attempts >= self._settings.destination_attempts:
            self._counts.dropped += discard.count
            self._settle(discard)
        else:
            self._retry_at = now + self._settings.unreachable.delay_s(self._delivery_attempts)

    def _delivering(self) -> Discard:
        if self._discard is None or not self._is_delivering:
            raise RuntimeError("no delivery is in flight")
        return self._discard

    def _settle(self, discard: Discard) -> None:
        self._discard = None
        self._is_delivering = False
        self._delivery_attempts = 0
        if discard.condition == "RetryAttemptsExhausted":
            self._attempts = 0
        self._counts.dropped_records += discard.count
        self._pass(discard.count)

    def _pass(self, count: int) -> None:
        """Take ``count`` records off the buffer."""
        self.buffered -= count
        left = count
        while left:
            record = self.buffer[0]
            if left < record.count:
                self.buffer[0] = record.first(record.count - left)
                break
            left -= record.count
            self.last_done = self.buffer.popleft().sequence_number
        if self._parts:
            self._parts[0] -= count
            if self._parts[0] <= 0:
                self._parts.popleft()
                self._attempts = 0
