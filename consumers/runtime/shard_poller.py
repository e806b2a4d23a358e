"""The thread that reads one shard for one mapping: does what its schedule says, and survives what happens.

With a ParallelizationFactor of 1 the same thread invokes; with more, each invocation has a thread of a pool, and the
shard's thread goes on reading.

Throttles, lost connections and missing streams are retried and told by :meth:`ShardPoller.statistics`. An exception
nobody expected is recorded there too, and the shard starts again from its checkpoint.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from threading import Event, Lock, Thread

from botocore.exceptions import BotoCoreError, ClientError

from consumers.runtime.checkpoints import Checkpoints
from consumers.runtime.config import MappingConfig, RuntimeSettings
from consumers.runtime.counts import ShardCounts
from consumers.runtime.destinations import Destination
from consumers.runtime.errors import CheckpointError
from consumers.runtime.function import Function
from consumers.runtime.invoking import invoke
from consumers.runtime.shard_schedule import Deliver, Finished, Invoke, Poll, ShardSchedule, Wait
from consumers.runtime.sources import ShardReader, Source, SourceError
from consumers.runtime.statistics import Failure, FunctionMeter, ShardStatistics

TRIM_HORIZON: Mapping[str, str | float] = {"ShardIteratorType": "TRIM_HORIZON"}
FOREIGN_KEYS = "Alleycat.KeysOfOtherShards"
LONGEST_NAP_S = 1.0
"""A thread looks at the clock at least this often, so that a clock set back is noticed."""
LONGEST_NAP_OF_LANES_S = 0.2
"""The same for a shard with several lanes, whose thread waits for them and so is not woken by the runtime's stop."""


@dataclass(frozen=True, slots=True)
class MappingContext:
    """What all threads of a mapping share."""

    mapping: MappingConfig
    settings: RuntimeSettings
    source: Source
    function: Function
    meter: FunctionMeter
    checkpoints: Checkpoints
    clock: Callable[[], float]
    stopping: Event
    log: Callable[[str, str], None]
    destination: Destination | None = None


class ShardPoller:
    """Runs one :class:`ShardSchedule` on a thread of its own, until the shard is drained or the runtime stops."""

    def __init__(
        self,
        context: MappingContext,
        shard_id: str,
        *,
        start_at_latest: bool,
        on_finished: Callable[[str], None],
        on_gone: Callable[[], None] = lambda: None,
    ) -> None:
        """``on_finished`` is told when the shard is drained, ``on_gone`` that the stream is not what it was."""
        self.shard_id = shard_id
        self._context = context
        self._on_finished = on_finished
        self._on_gone = on_gone
        self._lock = Lock()
        self._is_abandoned = self._is_trimmed = self._is_finish_told = False
        self._reader: ShardReader | None = None
        self._crashes = self._crashes_in_a_row = self._read_throttles = 0
        self._status = "starting"
        self._last_error: Failure | None = None
        # Outlives schedules that crash, so that counts never go back.
        self._counts = ShardCounts()
        self._saving = Lock()
        # Set when a lane's invocation returned, so that the shard's thread looks again.
        self._returned = Event()
        self._running: set[Future[None]] = set()
        self._pool: ThreadPoolExecutor | None = None
        lanes = context.mapping.parallelization_factor
        if lanes > 1:
            self._pool = ThreadPoolExecutor(lanes, thread_name_prefix=f"{context.mapping.name}/{shard_id}/lane")
        self._schedule = self._new_schedule()
        self._saved = self._schedule.checkpoint
        if start_at_latest and context.checkpoints.get(shard_id) is None:
            self._schedule.start_at(context.clock())
        self._thread = Thread(target=self._run, name=f"{context.mapping.name}/{shard_id}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def abandon(self) -> None:
        """End after what it is doing now: its shard is not there any more."""
        self._is_abandoned = True

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread; returns whether it has ended."""
        self._thread.join(max(0.0, timeout_s))
        return not self._thread.is_alive()

    def caught_up(self, since: float) -> bool:
        with self._lock:
            if self._schedule.checkpoint.finished:
                # Before the mapping knows of the end, it does not know either that there may be children to ask.
                return self._is_finish_told
            return self._schedule.caught_up(since)

    def statistics(self) -> ShardStatistics:
        with self._lock:
            schedule = self._schedule
            opened = schedule.checkpoint.window
            counts = self._counts
            return ShardStatistics(
                status=self._status,
                sequence_number=schedule.checkpoint.sequence_number,
                millis_behind=schedule.millis_behind,
                buffered=schedule.buffered,
                window_start_s=opened.window.start_s if opened is not None else None,
                retries=counts.retries,
                dropped_records=counts.dropped_records,
                dropped_windows=counts.dropped_windows,
                read_throttles=self._read_throttles,
                crashes=self._crashes,
                delivery_failures=counts.delivery_failures,
                event_counts=counts.event_counts(),
                last_error=self._last_error,
            )

    # -- the thread ------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not (self._context.stopping.is_set() or self._is_abandoned):
                try:
                    self._step()
                    if self._status == "finished":
                        self._on_finished(self.shard_id)
                        self._is_finish_told = True
                        return
                except Exception as error:
                    self._crashed(error)
        finally:
            self._let_go()
            if self._pool is not None:
                # Invocations in flight may finish, and are checkpointed.
                self._pool.shutdown()
        if self._status != "crashed":
            self._status = "stopped"

    def _step(self) -> None:
        now = self._context.clock()
        self._returned.clear()
        self._collect()
        with self._lock:
            action = self._schedule.next_action(now)
        self._save()
        match action:
            case Poll():
                self._poll(action)
            case Invoke() | Deliver():
                self._start(action)
            case Wait():
                if self._schedule.is_blocked:
                    self._status = "blocked"
                pause_s = max(0.0, action.until - now)
                if self._pool is None:
                    self._context.stopping.wait(min(LONGEST_NAP_S, pause_s))
                else:
                    self._returned.wait(min(LONGEST_NAP_OF_LANES_S, pause_s))
            case Finished():
                self._status = "finished"

    def _start(self, action: Invoke | Deliver) -> None:
        """Do it here, or on the pool when the shard has several lanes."""
        if self._pool is None:
            self._carry_out(self._schedule, action)
        else:
            future = self._pool.submit(self._carry_out, self._schedule, action)
            self._running.add(future)
            future.add_done_callback(lambda _: self._returned.set())

    def _carry_out(self, schedule: ShardSchedule, action: Invoke | Deliver) -> None:
        # The schedule is the action's: a result must not reach one that took its place after a crash.
        if isinstance(action, Invoke):
            self._invoke(schedule, action)
        else:
            self._deliver(schedule, action)

    def _collect(self) -> None:
        """Raise here what went wrong on the pool."""
        for future in [future for future in self._running if future.done()]:
            self._running.discard(future)
            future.result()

    def _crashed(self, error: Exception) -> None:
        context = self._context
        # What is in flight ends first: no key may be in two invocations.
        wait(self._running)
        self._running.clear()
        with self._lock:
            self._crashes += 1
            self._crashes_in_a_row += 1
            self._schedule = self._new_schedule()
            self._saved = self._schedule.checkpoint
        self._let_go()
        self._status = "crashed"
        self._record_error(type(error).__name__, str(error))
        context.stopping.wait(context.settings.unreachable.delay_s(self._crashes_in_a_row))

    def _new_schedule(self) -> ShardSchedule:
        context = self._context
        return ShardSchedule(
            context.mapping,
            self.shard_id,
            context.settings,
            context.clock(),
            context.checkpoints.get(self.shard_id),
            rng=random.random,
            counts=self._counts,
        )

    def _save(self) -> None:
        """Keep the checkpoint if it moved. A full disk costs a replay later, not the shard."""
        with self._saving:
            checkpoint = self._schedule.checkpoint
            if checkpoint is self._saved:
                return
            self._saved = checkpoint
            try:
                self._context.checkpoints.save(self.shard_id, checkpoint)
            except CheckpointError as error:
                self._record_error("CheckpointError", str(error))

    def _record_error(self, error_type: str, message: str) -> None:
        before = self._last_error
        self._last_error = Failure(self._context.clock(), error_type, message)
        # A failure that repeats every second is said once.
        if before is None or before.type != error_type:
            self._context.log(self._context.mapping.name, f"{self.shard_id}: {error_type}: {message}")

    # -- reading ---------------------------------------------------------------------------------------

    def _poll(self, action: Poll) -> None:
        context = self._context
        try:
            if self._reader is None:
                position = TRIM_HORIZON if self._is_trimmed else action.position.arguments
                self._reader = context.source.open(self.shard_id, position)
                self._is_trimmed = False
            read = self._reader.read()
        except SourceError as error:
            self._poll_failed(error)
            return
        if read is not None:
            if read.dropped:
                problem = f"{read.dropped} aggregated records were dropped: their keys belong to other shards"
                self._record_error(FOREIGN_KEYS, problem)
            with self._lock:
                self._counts.dropped_records += read.dropped
                self._counts.dropped += read.dropped
                self._schedule.on_poll_result(
                    read.began, context.clock(), read.records, read.millis_behind, shard_ended=read.shard_ended
                )
        self._crashes_in_a_row = 0
        self._status = "reading"

    def _poll_failed(self, error: SourceError) -> None:
        now = self._context.clock()
        if error.problem == "throttled":
            self._read_throttles += 1
            self._status = "throttled"
            with self._lock:
                self._schedule.on_poll_throttled(now)
            return
        self._let_go()
        if error.problem in ("expired", "trimmed"):
            if error.problem == "trimmed":
                # What was between the last record read and the oldest that is left is lost, and Lambda does not say so.
                self._record_error(error.code, f"{error.message} Reading goes on at the oldest record.")
                self._is_trimmed = True
            with self._lock:
                self._schedule.on_iterator_expired(now)
            return
        self._status = "unreachable"
        self._record_error(error.code, error.message)
        with self._lock:
            self._schedule.on_poll_failed(now)
        if error.problem == "gone":
            self._on_gone()

    def _let_go(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    # -- invoking --------------------------------------------------------------------------------------

    def _invoke(self, schedule: ShardSchedule, action: Invoke) -> None:
        context = self._context
        self._status = "invoking"
        outcome = invoke(context.function, context.meter, context.mapping, context.clock, action)
        if outcome.failure is not None:
            self._record_error(*outcome.failure)
        with self._lock:
            schedule.on_invoke_result(outcome, context.clock(), action.lane)
        self._save()
        self._status = "blocked" if schedule.is_blocked else "reading"

    def _deliver(self, schedule: ShardSchedule, action: Deliver) -> None:
        """Tell the on-failure destination; the schedule decides what follows from a refusal."""
        context = self._context
        assert context.destination is not None
        try:
            context.destination.deliver(action.discard, self.shard_id, context.clock())
        except (ClientError, BotoCoreError) as error:
            self._record_error("DestinationDeliveryFailure", f"{context.destination.arn}: {error}")
            with self._lock:
                schedule.on_delivery_failed(context.clock(), action.lane)
        else:
            with self._lock:
                schedule.on_delivered(context.clock(), action.lane)
        self._save()
