"""An event source mapping: finds a stream's shards and reads each on a thread, parents before children.

One thread per mapping lists the shards at the start, whenever a shard ends, and every ten seconds. It survives a
stream that is missing or does not answer, and tells so in its statistics. When the stream was deleted and created
again under its name, the checkpoints are of no use any more: the new stream is read from its oldest record (or its
starting timestamp), and that is told too.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from threading import Event, Lock, Thread

from consumers.runtime.checkpoints import ShardCheckpoint
from consumers.runtime.lineage import Lineage, ShardInfo
from consumers.runtime.shard_poller import MappingContext, ShardPoller
from consumers.runtime.sources import SourceError
from consumers.runtime.statistics import Failure, MappingStatistics

STREAM_REPLACED = "Alleycat.StreamReplaced"


class EventSourceMapping:
    """Runs one mapping until it is stopped. ``context.stopping`` is set first, then :meth:`wake`."""

    def __init__(self, context: MappingContext) -> None:
        self._context = context
        self._lock = Lock()
        self._wake = Event()
        checkpoints = context.checkpoints.all()
        self._lineage = Lineage(name for name, checkpoint in checkpoints.items() if checkpoint.finished)
        self._is_new = not checkpoints
        self._pollers: dict[str, ShardPoller] = {}
        # Shards that had ended when the latest listing began; those that ended later may have unlisted children.
        self._ended_count = 0
        self._ended_count_listed = -1
        self._failures = 0
        self._status = "starting"
        self._last_error: Failure | None = None
        self._thread = Thread(target=self._run, name=context.mapping.name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        self._wake.set()

    def join(self, deadline: float) -> bool:
        """Wait for all threads until ``deadline`` (monotonic); returns whether all have ended."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            return False
        return all(poller.join(deadline - time.monotonic()) for poller in self._pollers.values())

    def caught_up(self, since: float) -> bool:
        """Whether everything that was in the stream at ``since`` is processed, its windows included."""
        with self._lock:
            if self._ended_count_listed != self._ended_count or self._lineage.is_waiting():
                return False
            ended = self._ended_count
            pollers = list(self._pollers.values())
        # A shard that ends while the others are asked may have children that nobody was asked about.
        return all(poller.caught_up(since) for poller in pollers) and ended == self._ended_count

    def statistics(self) -> MappingStatistics:
        with self._lock:
            pollers = dict(self._pollers)
        return MappingStatistics(
            status=self._status,
            function_name=self._context.mapping.function_name,
            shards={shard_id: poller.statistics() for shard_id, poller in sorted(pollers.items())},
            last_error=self._last_error,
        )

    # -- the thread ------------------------------------------------------------------------------------

    def _run(self) -> None:
        context = self._context
        while not context.stopping.is_set():
            self._wake.clear()
            pause_s = context.settings.list_shards_interval_s
            try:
                self._discover()
                self._failures = 0
                self._status = "running"
            except SourceError as error:
                status = "throttled" if error.problem == "throttled" else "unreachable"
                pause_s = self._failed(status, error.code, error.message)
            except Exception as error:
                pause_s = self._failed("crashed", type(error).__name__, str(error))
            # A shard that ended in the meantime has set the event.
            self._wake.wait(pause_s)
        self._status = "stopped"

    def _failed(self, status: str, error_type: str, message: str) -> float:
        self._failures += 1
        self._status = status
        now = self._context.clock()
        if self._last_error is None or self._last_error.type != error_type or self._failures == 1:
            self._context.log(self._context.mapping.name, f"{error_type}: {message}")
        self._last_error = Failure(now, error_type, message)
        settings = self._context.settings
        return (settings.throttled if status == "throttled" else settings.unreachable).delay_s(self._failures)

    def _discover(self) -> None:
        """List the shards and start those that may be read."""
        context = self._context
        with self._lock:
            ended = self._ended_count
        shards = context.source.list_shards()
        self._replace(shards)
        start_at_latest = self._is_new and context.mapping.starting_position == "LATEST"
        if start_at_latest:
            for shard in shards:
                if not shard.is_open:
                    # At LATEST a closed shard has nothing left.
                    self._lineage.on_finished(shard.shard_id)
                    context.checkpoints.save(shard.shard_id, ShardCheckpoint(finished=True))
        with self._lock:
            self._lineage.on_listing(shards)
            startable = self._lineage.startable()
            expired = self._lineage.expired(context.checkpoints.all())
        if expired:
            context.checkpoints.forget(expired)
        for shard_id in startable:
            poller = ShardPoller(
                context,
                shard_id,
                start_at_latest=start_at_latest,
                on_finished=self._shard_finished,
                on_gone=self.wake,
            )
            with self._lock:
                self._pollers[shard_id] = poller
                self._lineage.on_started(shard_id)
            poller.start()
        with self._lock:
            self._ended_count_listed = ended
        self._is_new = False

    def _replace(self, shards: Sequence[ShardInfo]) -> None:
        """Forget the shards of a stream that was deleted, when ``shards`` are those of another with its name."""
        context, known = self._context, self._context.checkpoints.all()
        others = [
            shard.shard_id
            for shard in shards
            if (old := known.get(shard.shard_id)) and shard.is_other_than(old.sequence_number, old.finished)
        ]
        if not others:
            return
        listed = {shard.shard_id for shard in shards}
        with self._lock:
            gone = {
                name: self._pollers.pop(name) for name in list(self._pollers) if name in others or name not in listed
            }
        for poller in gone.values():
            poller.abandon()
        # A running invocation ends first, so that its checkpoint is not set after it was forgotten.
        while not context.stopping.is_set() and not all(poller.join(0.1) for poller in gone.values()):
            pass
        if context.stopping.is_set():
            return
        context.checkpoints.forget({*others, *(known.keys() - listed)})
        with self._lock:
            self._lineage.on_replaced({*others, *gone, *known})
            for shard_id in self._pollers:
                self._lineage.on_started(shard_id)
        message = f"{context.mapping.stream_name} was deleted and created again; it is read from its beginning"
        self._last_error = Failure(context.clock(), STREAM_REPLACED, message)
        context.log(context.mapping.name, f"{STREAM_REPLACED}: {message}")

    def _shard_finished(self, shard_id: str) -> None:
        with self._lock:
            self._lineage.on_finished(shard_id)
            self._ended_count += 1
        self._wake.set()
