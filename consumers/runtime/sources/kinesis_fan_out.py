"""A Kinesis stream by enhanced fan-out: SubscribeToShard, which pushes a shard to one registered consumer.

A subscription lasts five minutes. When it ends, or its connection is lost, the next one begins after the
ContinuationSequenceNumber of the last event that was taken. Nothing is read ahead without bound: a thread takes events
off the connection and waits while one is not taken from it, so that a function that is slow makes the kernel's buffers
fill up and the sender wait.

Lambda takes aggregated records apart for consumers of this kind, and drops user records whose keys do not belong to the
shard. A position within an aggregated record is its sequence number, a colon, and the index of the user record.
"""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from threading import Event, Thread
from typing import Any

from botocore.exceptions import ClientError

from consumers.runtime.config import MappingConfig, RuntimeSettings
from consumers.runtime.event import EventBuilder, Record
from consumers.runtime.lineage import ShardInfo
from consumers.runtime.sources.aggregation import deaggregate
from consumers.runtime.sources.kinesis_polling import arrival_s, kinesis_record, list_stream_shards
from consumers.runtime.sources.source import Read, SourceError, from_client_error, told

EVENTS_AHEAD = 1
"""Events that wait to be taken, besides the one that the thread holds."""
READ_WAIT_S = 0.1
"""A read waits so long for an event; a batch whose window is over is late by as much."""
SUBSCRIBE_INTERVAL_S = 1.0
"""SubscribeToShard may be called once a second for a consumer and shard (CAH enhanced-consumers)."""
_BLOCKED_S = 0.005
_PACE_S = 0.001


@dataclass(frozen=True, slots=True)
class _Pushed:
    """An event as it came; ``began`` is as in :class:`Read`."""

    event: Mapping[str, Any]
    began: float


@dataclass(frozen=True, slots=True)
class _Over:
    """The subscription ended; ``error`` is None when it just did, or the connection was lost."""

    error: SourceError | None = None


class KinesisFanOut:
    """The consumer whose ARN (``...:stream/NAME/consumer/NAME:TIME``) is the mapping's ``stream_arn``."""

    def __init__(self, mapping: MappingConfig, client: Any, clock: Callable[[], float]) -> None:
        self._mapping = mapping
        self._client = client
        self._clock = clock
        self._hash_key_ranges: dict[str, tuple[int, int] | None] = {}

    def paced(self, settings: RuntimeSettings) -> RuntimeSettings:
        # Reads wait for what is pushed, so nothing waits between them.
        return replace(settings, poll_interval_s=_PACE_S, catch_up_interval_s=_PACE_S)

    def list_shards(self) -> list[ShardInfo]:
        shards = list_stream_shards(self._client, self._mapping.stream_arn.partition("/consumer/")[0])
        self._hash_key_ranges = {shard.shard_id: shard.hash_key_range for shard in shards}
        return shards

    def open(self, shard_id: str, position: Mapping[str, str | float]) -> FanOutReader:
        start: dict[str, Any] = {"Type": position["ShardIteratorType"]}
        done = None
        if "StartingSequenceNumber" in position:
            number, _, index = str(position["StartingSequenceNumber"]).partition(":")
            start["SequenceNumber"] = number
            if index:
                # The rest of an aggregated record comes first.
                start["Type"], done = "AT_SEQUENCE_NUMBER", (number, int(index))
        if "Timestamp" in position:
            start["Timestamp"] = position["Timestamp"]
        user_records = UserRecords(EventBuilder(self._mapping, shard_id), self._hash_key_ranges.get(shard_id), done)
        return FanOutReader(self._client, self._mapping.stream_arn, shard_id, start, user_records, self._clock)


class UserRecords:
    """Takes records of one shard apart; ``dropped`` counts those whose keys belong to another."""

    def __init__(
        self, events: EventBuilder, hash_key_range: tuple[int, int] | None, done: tuple[str, int] | None
    ) -> None:
        """``done``: of the record with this number, the user records up to this index were processed before."""
        self._events, self._range, self._done = events, hash_key_range, done
        self.dropped = 0

    def of(self, record: Mapping[str, Any]) -> list[Record]:
        found = deaggregate(record["Data"])
        if found is None:
            return [kinesis_record(self._events, record)]
        number, at_s = record["SequenceNumber"], arrival_s(record)
        first = self._done[1] + 1 if self._done is not None and self._done[0] == number else 0
        low, high = self._range or (0, 2**128)
        rest = list(enumerate(found))[first:]
        mine = [(index, one) for index, one in rest if low <= one.hash_key <= high]
        self.dropped += len(rest) - len(mine)
        last = mine[-1][0] if mine else None
        return [
            self._events.record(number, one.partition_key, one.data, at_s, None if index == last else index)
            for index, one in mine
        ]


class FanOutReader:
    """One shard, over as many subscriptions as it takes."""

    def __init__(
        self,
        client: Any,
        consumer_arn: str,
        shard_id: str,
        start: dict[str, Any],
        user_records: UserRecords,
        clock: Callable[[], float],
    ) -> None:
        self._client, self._consumer_arn, self._shard_id = client, consumer_arn, shard_id
        self._start, self._user_records, self._clock = start, user_records, clock
        self._subscription: _Subscription | None = None
        self._subscribe_at = time.monotonic()

    def read(self) -> Read | None:
        """The next event; None when none came in :data:`READ_WAIT_S`. :raises SourceError: as of SubscribeToShard."""
        if self._subscription is None:
            wait_s = self._subscribe_at - time.monotonic()
            if wait_s > 0:
                time.sleep(min(wait_s, READ_WAIT_S))
                return None
            self._subscription = self._subscribe()
        pushed = self._subscription.take(READ_WAIT_S)
        if pushed is None:
            return None
        if isinstance(pushed, _Over):
            self.close()
            if pushed.error is not None:
                raise pushed.error
            return None
        event = pushed.event
        continuation = event.get("ContinuationSequenceNumber")
        ended = bool(event.get("ChildShards")) or not continuation
        if continuation:
            self._start = {"Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": continuation}
        before = self._user_records.dropped
        records = [one for record in event["Records"] for one in self._user_records.of(record)]
        dropped = self._user_records.dropped - before
        return Read(records, int(event.get("MillisBehindLatest") or 0), pushed.began, ended, dropped)

    def close(self) -> None:
        """End the subscription."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            subscription.end()

    def _subscribe(self) -> _Subscription:
        self._subscribe_at = time.monotonic() + SUBSCRIBE_INTERVAL_S
        began = self._clock()
        with told():
            answer = self._client.subscribe_to_shard(
                ConsumerARN=self._consumer_arn, ShardId=self._shard_id, StartingPosition=self._start
            )
        return _Subscription(answer["EventStream"], self._shard_id, began, self._clock)


class _Subscription:
    """One call of SubscribeToShard, and the thread that takes its events off the connection."""

    def __init__(self, stream: Any, shard_id: str, began: float, clock: Callable[[], float]) -> None:
        self._stream = stream
        self._clock = clock
        self._began = began
        self._ended = Event()
        self._queue: queue.Queue[_Pushed | _Over] = queue.Queue(EVENTS_AHEAD)
        self._thread = Thread(target=self._pump, name=f"fan-out/{shard_id}", daemon=True)
        self._thread.start()

    def take(self, timeout_s: float) -> _Pushed | _Over | None:
        try:
            return self._queue.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def end(self) -> None:
        """Let go of the connection; the thread ends soon."""
        self._ended.set()
        # It may be waiting for the next event, which can take seconds. Another thread may shut a socket, not close it.
        shutdown = getattr(getattr(self._stream, "_raw_stream", None), "shutdown", None)
        if shutdown is not None:
            with contextlib.suppress(OSError, ValueError, RuntimeError):
                shutdown()

    def _pump(self) -> None:
        over = _Over()
        try:
            events = iter(self._stream)
            while not self._ended.is_set():
                waiting_since, asked_at = self._clock(), time.monotonic()
                event = next(events, None)
                if event is None:
                    break
                # When nothing was there to take, all that comes now was sent after that.
                if time.monotonic() - asked_at > _BLOCKED_S:
                    self._began = waiting_since
                if "SubscribeToShardEvent" in event:
                    self._put(_Pushed(event["SubscribeToShardEvent"], self._began))
        except ClientError as error:
            told_error = from_client_error(error)
            # Anything that subscribing again may cure is only an end.
            over = _Over(told_error if told_error.problem != "unreachable" else None)
        except Exception:
            # A lost connection is many kinds of exceptions, down to those of a socket that was shut.
            over = _Over()
        finally:
            with contextlib.suppress(Exception):
                self._stream.close()
            self._put(over)

    def _put(self, item: _Pushed | _Over) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(item, timeout=READ_WAIT_S)
                return
