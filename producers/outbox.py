"""Which records go into the next call, and when: the producer's state machine.

``now`` (seconds since the epoch) is an argument, nothing here waits or does I/O. Its owner puts records in with
:meth:`Outbox.add`, sends every :class:`Batch` that :meth:`Outbox.take` gives, tells what became of it with one of
``accepted``, ``partly_failed``, ``failed`` or ``isolate``, and sleeps until :meth:`Outbox.next_wake`.

A record moves like this::

    future ──due──> ready ──────────────> in flight ──> delivered
                      │  ▲                 │     ▲
       its order_key  │  │ the one before  │     │ back-off over
       is busy        ▼  │ it is settled   ▼     │
                     blocked               retrying

An ``order_key`` is busy from the moment that one of its records is taken until no record of it is in flight,
retrying, or next in line. PutRecords promises no order, not even within a call, so there is never more than one.

Costs: everything is done for a whole batch with set and list operations, O(1) a record and well under a
microsecond, when no key of the batch is busy; about twice that when many are. A record is looked at once when it
becomes due, once when it is blocked and once when it is taken, however many others wait.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import Counter, deque
from collections.abc import Callable, Hashable, Sequence
from operator import attrgetter

import numpy as np
import numpy.typing as npt

from producers.delivery import DEADLINE, REJECTED, Ledger, Record, Samples, Sizes, total_bytes
from producers.due import DueQueue
from producers.put_records import shard_of
from producers.retry import FAULT, THROTTLE, Backoff, Meaning

OnLost = Callable[[Sequence[Record], str], None]


class Retry:
    """A record that failed at least once. ``uncertain``: its latest send may have been stored all the same."""

    __slots__ = ("faults", "record", "throttles", "uncertain")

    def __init__(self, record: Record) -> None:
        self.record = record
        self.throttles = 0
        self.faults = 0
        self.uncertain = False


class Batch:
    """The records of one call. The first ``len(retries)`` of ``records`` are those of ``retries``."""

    __slots__ = ("dues", "keys", "number", "records", "retries", "size_bytes")

    def __init__(self, number: int, records: list[Record], retries: list[Retry]) -> None:
        self.number = number
        self.records = records
        self.retries = retries
        self.size_bytes = total_bytes(records)
        self.dues = np.array([record.due_s for record in records])
        self.keys: set[Hashable] = {record.order_key for record in records}

    def retry(self, index: int) -> Retry:
        return self.retries[index] if index < len(self.retries) else Retry(self.records[index])


class Outbox:
    """Holds records from when they are put until they are delivered or lost.

    :param max_retrying: while so many records wait to be sent again, no new ones are sent: a full shard or a dead
        endpoint costs that many attempts per back-off, and not the whole buffer's.
    :param on_lost: called with the records that were lost and the reason, after they are counted.
    """

    def __init__(
        self,
        *,
        max_batch_records: int,
        max_batch_bytes: int,
        linger_s: float,
        deadline_s: float,
        max_retrying: int,
        rng: random.Random,
        on_lost: OnLost = lambda records, reason: None,
        throttle: Backoff = THROTTLE,
        fault: Backoff = FAULT,
    ) -> None:
        self.ledger = Ledger()
        self.send_lateness = Samples()
        self.accepted_latency = Samples()
        self.throttled_by_shard: Counter[str] = Counter()
        self.outstanding_bytes = 0
        self.last_problem: str | None = None
        self._max_batch_records = max_batch_records
        self._max_batch_bytes = max_batch_bytes
        self._linger_s = linger_s
        self._deadline_s = deadline_s
        self._max_retrying = max_retrying
        self._rng = rng
        self._on_lost = on_lost
        self._throttle = throttle
        self._fault = fault
        self._numbers = itertools.count(1)

        self._future = DueQueue()
        self._ready: deque[Record] = deque()
        # No record is larger.
        self._largest_bytes = 0
        self._busy: set[Hashable] = set()
        self._blocked: dict[Hashable, deque[Record]] = {}
        self._unblocked: deque[Record] = deque()
        # Groups of records that failed together: (when, group number, retries).
        self._backing_off: list[tuple[float, int, list[Retry]]] = []
        self._again: deque[Retry] = deque()
        self._retrying = 0
        self._halves: deque[Batch] = deque()
        self._in_flight: dict[int, Batch] = {}
        # Since when the oldest of what could be sent has been waiting for company.
        self._since = math.inf

    @property
    def outstanding(self) -> int:
        """Records put and not settled."""
        return self.ledger.in_flight

    @property
    def retrying(self) -> int:
        """Records waiting to be sent again."""
        return self._retrying

    # -- in --------------------------------------------------------------------------------------------

    def add(self, records: Sequence[Record], now: float, sizes: Sizes) -> None:
        """Take over ``records`` that passed :meth:`Record.problem`; ``sizes`` are theirs."""
        self.ledger.generated += len(records)
        self.outstanding_bytes += sizes.total_bytes
        self._largest_bytes = max(self._largest_bytes, sizes.largest_bytes)
        ordered = sorted(records, key=_due)
        if ordered[-1].due_s > now:
            self._future.add(ordered)
        else:
            # Late already; company to share a call with may still come.
            self._ready.extend(ordered)
            self._since = min(self._since, now)

    def reject(self, record: Record) -> None:
        """Count a record that no stream would take."""
        self.ledger.generated += 1
        self.ledger.count_lost(1, REJECTED)
        self._on_lost([record], REJECTED)

    def lose_unseen(self, records: Sequence[Record], reason: str) -> None:
        """Count valid records that were handed over and could not be taken."""
        if records:
            self.ledger.generated += len(records)
            self.ledger.count_lost(len(records), reason)
            self._on_lost(records, reason)

    # -- out -------------------------------------------------------------------------------------------

    def take(self, now: float, *, hurry: bool = False) -> Batch | None:
        """The next batch to send, or ``None`` when nothing is to be sent yet.

        ``hurry``: no more will be put, so what is there lingers only for what is about to become due.
        Records past their deadline are counted lost on the way.
        """
        if self._halves:
            return self._launch(self._halves.popleft())
        self._release(now)
        new_count = 0 if self._retrying >= self._max_retrying else len(self._ready) + len(self._unblocked)
        count = len(self._again) + new_count
        if not count:
            return None
        # Bytes by the mean size of what is outstanding: being a little wrong costs part of a linger.
        if not (
            (hurry and self._next_event() > self._since + self._linger_s)
            or count >= self._max_batch_records
            or now >= self._since + self._linger_s
            or count * self.outstanding_bytes >= self.outstanding * self._max_batch_bytes
        ):
            return None
        batch = self._fill(now, new_count > 0)
        self._since = now if self._again or self._ready or self._unblocked else math.inf
        return batch and self._launch(batch)

    def next_wake(self, now: float, *, hurry: bool = False) -> float | None:
        """When :meth:`take` may next give a batch if nothing else happens until then; ``None``: never."""
        if self._halves:
            return now
        wake = event = self._next_event()
        if event != math.inf:
            wake = event + self._linger_s
        if self._again or ((self._ready or self._unblocked) and self._retrying < self._max_retrying):
            alone = hurry and event > self._since + self._linger_s
            wake = min(wake, self._since if alone else self._since + self._linger_s)
        elif hurry:
            wake = event
        return None if wake == math.inf else wake

    def _next_event(self) -> float:
        """When more becomes ready to be sent; ``inf``: not by time alone."""
        next_due = self._future.next_due()
        next_retry = self._backing_off[0][0] if self._backing_off else math.inf
        return next_retry if next_due is None else min(next_due, next_retry)

    def _release(self, now: float) -> None:
        """Move what has become due to ``_ready`` and ``_again``."""
        while self._backing_off and self._backing_off[0][0] <= now:
            at, _, group = heapq.heappop(self._backing_off)
            self._again.extend(group)
            self._since = min(self._since, at)
        due = self._future.pop_due(now)
        if due:
            self._since = min(self._since, due[0].due_s)
            self._ready.extend(due)

    def _fill(self, now: float, new: bool) -> Batch | None:
        """A batch of what there is: first what is sent again, then, if ``new``, what is sent for the first time."""
        horizon = now - self._deadline_s
        batch = None
        if new and not (self._again or self._blocked or self._unblocked):
            batch = self._fill_free(horizon)
        if batch is None:
            expired: list[Record] = []
            retries, bytes_left = self._fill_again(horizon, expired)
            records = [retry.record for retry in retries]
            if new:
                self._fill_new(records, bytes_left, horizon, expired)
            if expired:
                self._lose(expired, DEADLINE, now)
            if not records:
                return None
            batch = Batch(next(self._numbers), records, retries)
        self.send_lateness.add((now - batch.dues[len(batch.retries) :]) * 1e3)
        return batch

    def _fill_free(self, horizon: float) -> Batch | None:
        """The head of ``_ready``, when nothing stands in the way of any of it; else nothing is moved."""
        ready = self._ready
        count = min(self._max_batch_records, len(ready))
        batch = Batch(next(self._numbers), list(itertools.islice(ready, count)), [])
        keys = batch.keys
        distinct = len(keys)
        if None in keys:
            distinct += [record.order_key for record in batch.records].count(None) - 1
        if (
            distinct != count
            or not keys.isdisjoint(self._busy)
            or batch.dues.min() <= horizon
            or batch.size_bytes > self._max_batch_bytes
        ):
            return None
        if count == len(ready):
            ready.clear()
        else:
            popleft = ready.popleft
            for _ in itertools.repeat(None, count):
                popleft()
        self._busy |= keys
        self._busy.discard(None)
        return batch

    def _fill_again(self, horizon: float, expired: list[Record]) -> tuple[list[Retry], int]:
        retries: list[Retry] = []
        bytes_left = self._max_batch_bytes
        while self._again and len(retries) < self._max_batch_records:
            retry = self._again[0]
            size = retry.record.size_bytes
            if size > bytes_left and retries:
                break
            self._again.popleft()
            self._retrying -= 1
            if retry.record.due_s <= horizon:
                expired.append(retry.record)
                continue
            bytes_left -= size
            retries.append(retry)
            self.ledger.retried += 1
            if retry.uncertain:
                retry.uncertain = False
                self.ledger.duplicates += 1
        return retries, bytes_left

    def _fill_new(self, records: list[Record], bytes_left: int, horizon: float, expired: list[Record]) -> None:
        """Unblocked ones first, then ``_ready``, setting aside those whose key is busy.

        As many at a time as there is room for, until one is expired or the bytes run out; then one by one.
        """
        # Lost before their turn: when their key is busy, it is so for another record.
        late: list[Record] = []
        step = self._max_batch_records
        while (room := self._max_batch_records - len(records)) and (self._unblocked or self._ready):
            source = self._unblocked or self._ready
            head = list(itertools.islice(source, min(room, step)))
            # Sizes are added up only where they could matter.
            is_tight = room * self._largest_bytes > bytes_left
            is_large = is_tight and total_bytes(head) > bytes_left
            is_late = min([record.due_s for record in head]) <= horizon
            if is_late or is_large:
                if len(head) > 1:
                    step = 1
                    continue
                if not is_late and records:
                    break
            for _ in itertools.repeat(None, len(head)):
                source.popleft()
            if is_late:
                (expired if source is self._unblocked else late).extend(head)
                continue
            taken = head if source is self._unblocked else self._unless_busy(head)
            if is_tight:
                bytes_left -= total_bytes(taken)
            records += taken
        if late:
            self._count_lost(late, DEADLINE)

    def _unless_busy(self, records: list[Record]) -> list[Record]:
        """Those whose key is free, which becomes busy; the others are blocked."""
        busy, blocked = self._busy, self._blocked
        free = []
        for record in records:
            key = record.order_key
            if key is None:
                free.append(record)
            elif key not in busy:
                busy.add(key)
                free.append(record)
            elif key in blocked:
                blocked[key].append(record)
            else:
                blocked[key] = deque((record,))
        return free

    def _launch(self, batch: Batch) -> Batch:
        self._in_flight[batch.number] = batch
        return batch

    # -- what became of it -----------------------------------------------------------------------------

    def accepted(self, batch: Batch, now: float) -> None:
        """All of it was stored."""
        if self._land(batch):
            self._deliver(len(batch.records), batch.size_bytes, batch.dues, batch.keys, now)

    def partly_failed(self, batch: Batch, failures: Sequence[tuple[int, Meaning, str]], now: float) -> None:
        """The entries in ``failures`` (as :func:`producers.put_records.failures` gives them) failed, the rest not."""
        if not self._land(batch):
            return
        failed = {index for index, _, _ in failures}
        stored = [index for index in range(len(batch.records)) if index not in failed]
        if stored:
            records = [batch.records[index] for index in stored]
            keys = {record.order_key for record in records}
            self._deliver(len(records), total_bytes(records), batch.dues[stored], keys, now)
        for problem, count in Counter(problem for _, meaning, problem in failures).items():
            self.last_problem = problem
            shard = shard_of(problem)
            if shard is not None:
                self.throttled_by_shard[shard] += count
        self._back_off([(batch.retry(index), meaning) for index, meaning, _ in failures], now)

    def failed(self, batch: Batch, meaning: Meaning, problem: str, now: float) -> None:
        """The whole call was ``THROTTLED``, ``FAILED`` or ``UNCERTAIN``."""
        if self._land(batch):
            self.last_problem = problem
            self._back_off([(batch.retry(index), meaning) for index in range(len(batch.records))], now)

    def isolate(self, batch: Batch, problem: str, now: float) -> None:
        """The call is ``INVALID``, for one record or more in it: halve it until they stand alone, and lose those."""
        if not self._land(batch):
            return
        self.last_problem = problem
        if len(batch.records) == 1:
            self._lose(batch.records, REJECTED, now)
            return
        self.ledger.retried += len(batch.records)
        middle = len(batch.records) // 2
        for part, retries in (
            (batch.records[:middle], batch.retries[:middle]),
            (batch.records[middle:], batch.retries[middle:]),
        ):
            self._halves.append(Batch(next(self._numbers), part, retries))

    def abandon(self, reason: str) -> None:
        """Lose everything that is left. What is in flight may be stored all the same; it is counted lost."""
        left = [record for batch in self._in_flight.values() for record in batch.records]
        left += [record for batch in self._halves for record in batch.records]
        left += [retry.record for retry in self._again]
        left += [retry.record for _, _, group in sorted(self._backing_off) for retry in group]
        left += self._unblocked
        left += [record for queue in self._blocked.values() for record in queue]
        left += self._ready
        left += self._future.clear()
        for queue in (self._halves, self._again, self._unblocked, self._ready):
            queue.clear()
        self._in_flight.clear()
        self._backing_off.clear()
        self._blocked.clear()
        self._busy.clear()
        self._retrying = 0
        self._since = math.inf
        if left:
            self._count_lost(left, reason)

    def _land(self, batch: Batch) -> bool:
        """Whether the batch was still in flight: an answer after :meth:`abandon` changes nothing."""
        return self._in_flight.pop(batch.number, None) is not None

    def _deliver(
        self, count: int, size_bytes: int, dues: npt.NDArray[np.float64], keys: set[Hashable], now: float
    ) -> None:
        self.ledger.delivered += count
        self.outstanding_bytes -= size_bytes
        self.accepted_latency.add((now - dues) * 1e3)
        self._free_keys(keys, now)

    def _back_off(self, failures: list[tuple[Retry, Meaning]], now: float) -> None:
        """Schedule retries. What failed together with equal histories waits together, so a batch stays a batch."""
        groups: dict[tuple[bool, int], list[Retry]] = {}
        for retry, meaning in failures:
            throttled = meaning is Meaning.THROTTLED
            if throttled:
                retry.throttles += 1
                self.ledger.throttled += 1
            else:
                retry.faults += 1
                retry.uncertain = meaning is Meaning.UNCERTAIN
            groups.setdefault((throttled, retry.throttles if throttled else retry.faults), []).append(retry)
        for (throttled, times), group in groups.items():
            delay_s = (self._throttle if throttled else self._fault).delay_s(times, self._rng)
            # Not beyond the first deadline of the group, so that a loss is counted when it happens.
            at = min(now + delay_s, max(now, min(retry.record.due_s for retry in group) + self._deadline_s))
            heapq.heappush(self._backing_off, (at, next(self._numbers), group))
            self._retrying += len(group)

    def _lose(self, records: list[Record], reason: str, now: float) -> None:
        """Lose records whose turn it was."""
        self._count_lost(records, reason)
        self._free_keys({record.order_key for record in records}, now)

    def _count_lost(self, records: list[Record], reason: str) -> None:
        self.ledger.count_lost(len(records), reason)
        self.outstanding_bytes -= total_bytes(records)
        self._on_lost(records, reason)

    def _free_keys(self, keys: set[Hashable], now: float) -> None:
        if self._blocked:
            held = keys.intersection(self._blocked)
            for key in held:
                queue = self._blocked[key]
                self._unblocked.append(queue.popleft())
                if not queue:
                    del self._blocked[key]
            keys = keys - held
            if held:
                self._since = min(self._since, now)
        self._busy -= keys


_due = attrgetter("due_s")
