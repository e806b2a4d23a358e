"""A Kinesis producer: batches, retries what failed, keeps each key's order, and says what became of every record.

::

    async with KinesisProducer(stream="alleycat") as producer:
        await producer.put_many(records)
    print(producer.statistics().ledger)

Prior art is Amazon's KPL (a C++ daemon beside a Java process: batching, retries, a rate limiter a shard, and a time
to live for records) and the plain boto3 loop. From the KPL come batching by count, bytes and time, and the deadline.
What differs:

* **Order.** The KPL gives none, a boto3 loop loses it at the first retry. Here at most one record of an
  ``order_key`` is on its way at a time; the price is that one key carries one record a round trip.
* **Due times.** A record is not sent before it is due, so a load generator can put a race's next seconds ahead.
* **Cost.** boto3 spends about 5 ms of CPU on a call of 500 records, most of it on validating, serialising and parsing
  by a generic model. Here botocore says where to send and signs (0.15 ms), msgspec encodes (0.1 ms), aiohttp sends
  (0.2 ms), and bookkeeping is done for a batch at a time, not for a record.
* **Idleness.** One timer, set for when something is to be sent. With nothing to send there is no timer.

:mod:`producers.outbox` decides; this module only gives it the time, sends what it says and tells it the answers. A
call whose answer never came may have been stored: its records are sent again and counted as possible
``duplicates``, so consumers must take a record twice (as they must with Kinesis anyway).
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

from producers.delivery import (
    INTERRUPTED,
    RECORD_MAX_BYTES,
    REJECTED,
    Ledger,
    Percentiles,
    Record,
    Samples,
    Sizes,
    checked_sizes,
    total_bytes,
)
from producers.errors import ConfigurationError, ProducerClosed, ProducerError
from producers.outbox import Batch, Outbox
from producers.put_records import MAX_BYTES, MAX_RECORDS, AnswerUnreadable, Encoder, error_of, failures
from producers.retry import Meaning, meaning_of_call
from producers.spool import Spool
from producers.transport import Transport, Unanswered

_GRACE_S = 0.5
"""How long an undrained close waits for the answers of calls that are already out."""


@dataclass(frozen=True, slots=True)
class ProducerStatistics:
    """A producer at one moment. Cheap to ask for; for latencies see :meth:`KinesisProducer.latencies`."""

    ledger: Ledger
    calls: int
    """PutRecords calls made."""
    calls_in_flight: int
    retrying: int
    """Records waiting out a back-off."""
    outstanding_bytes: int
    throttled_by_shard: Mapping[str, int]
    """Entries refused for lack of a shard's capacity, by shard id."""
    last_problem: str | None
    """What the service or the network said last, when something failed."""
    spool_problem: str | None
    """Why lost records could not be spooled, the latest."""


@dataclass(frozen=True, slots=True)
class Latencies:
    """Of all records so far, in ms from the time each was due: to its first send, and to its acceptance."""

    send_lateness: Percentiles
    accepted: Percentiles


class KinesisProducer:
    """Sends records to one stream. An async context manager: entering connects, leaving drains.

    :param stream: the stream's name or ARN.
    :param region: ``endpoint_url``: as in boto3; ``None`` asks the environment and the profile.
    :param session: a botocore session to take configuration and credentials from instead of a new default one.
    :param linger_s: how long a record may wait for others to share its call.
    :param max_batch_records: ``max_batch_bytes``: size of a call, at most AWS's 500 records and 10 MiB. The default
        of 5 MiB is what endpoints took before October 2025.
    :param max_in_flight: calls at a time.
    :param max_buffered_records: ``max_buffered_bytes``: what may be outstanding before :meth:`put_many` waits.
    :param deadline_s: a record not accepted so long after it was due is lost, reason ``deadline``. Records in a call
        at that moment are judged by its answer, so draining ends ``deadline_s`` after the last is due, plus at most
        ``request_timeout_s`` and a back-off.
    :param spool: file to append lost records to (:mod:`producers.spool`).
    :param request_timeout_s: after this a call's answer is given up, and whether it was stored is unknown.
    :param start_timeout_s: how long entering waits for an endpoint that answers with faults, or a stream that is
        being created. One that refuses the connection is given up at once.
    :param clock: seconds since the epoch.
    :param rng: for the jitter of back-offs.

    Entering asks for the stream's summary and raises :class:`EndpointUnreachable`, :class:`StreamNotFound`,
    :class:`AccessRefused` or :class:`ConfigurationError`. (Credentials that may only write are fine.) When the
    service later refuses every call, what is left is lost with reason ``rejected``, and ``put``, ``flush`` and
    leaving raise that error. Leaving by an exception does not drain.
    """

    def __init__(
        self,
        *,
        stream: str,
        region: str | None = None,
        endpoint_url: str | None = None,
        session: Any = None,
        linger_s: float = 0.02,
        max_batch_records: int = MAX_RECORDS,
        max_batch_bytes: int = MAX_BYTES // 2,
        max_in_flight: int = 8,
        max_buffered_records: int = 50_000,
        max_buffered_bytes: int = 128 * 1024 * 1024,
        deadline_s: float = 60.0,
        spool: str | Path | None = None,
        request_timeout_s: float = 10.0,
        start_timeout_s: float = 5.0,
        clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        _within("max_batch_records", max_batch_records, 1, MAX_RECORDS)
        _within("max_batch_bytes", max_batch_bytes, RECORD_MAX_BYTES, MAX_BYTES)
        _within("max_in_flight", max_in_flight, 1, 10_000)
        _within("max_buffered_records", max_buffered_records, 1, math.inf)
        _within("max_buffered_bytes", max_buffered_bytes, RECORD_MAX_BYTES, math.inf)
        _within("linger_s", linger_s, 0, 3600)
        _within("deadline_s", deadline_s, 0.001, 86_400 * 365)
        _within("request_timeout_s", request_timeout_s, 0.001, 3600)
        _within("start_timeout_s", start_timeout_s, 0, 3600)
        if not stream:
            raise ConfigurationError("stream must be the name or ARN of a Kinesis stream, not empty")
        self.stream = stream
        self._where = (region, endpoint_url, session)
        self._max_in_flight = max_in_flight
        self._max_batch_records = max_batch_records
        self._max_buffered_records = max_buffered_records
        self._max_buffered_bytes = max_buffered_bytes
        self._request_timeout_s = request_timeout_s
        self._start_timeout_s = start_timeout_s
        self._clock = clock
        self._rng = rng or random.Random()
        self._spool = Spool(spool) if spool is not None else None
        self._spool_problem: str | None = None
        self._encoder = Encoder(stream)
        self._outbox = Outbox(
            max_batch_records=max_batch_records,
            max_batch_bytes=max_batch_bytes,
            linger_s=linger_s,
            deadline_s=deadline_s,
            max_retrying=max_in_flight * max_batch_records,
            rng=self._rng,
            on_lost=self._lost,
        )
        self._calls: set[asyncio.Task[None]] = set()
        self._call_count = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._hurrying = 0
        self._progress = asyncio.Event()
        self._turn = asyncio.Lock()
        self._error: ProducerError | None = None
        self._told = False
        self._entered = False
        self._open = False
        self._transport: Transport

    # -- lifecycle -------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._entered:
            raise ProducerClosed("a producer is opened once; make another one")
        self._entered = True
        self._transport = await Transport.open(*self._where, self._max_in_flight, self._request_timeout_s)
        try:
            await self._transport.check_stream(self.stream, self._start_timeout_s, self._rng)
        except BaseException:
            await self._transport.close()
            raise
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            await self.close()
        else:
            self._told = True
            await self.close(drain=False)

    async def close(self, *, drain: bool = True) -> None:
        """Stop taking records; deliver or lose what is left.

        :param drain: go on until every record is delivered or past its deadline. Otherwise calls that are out get
            half a second for their answers, and the rest is lost with reason ``interrupted``. Cancelling a drain
            does the same.
        """
        if not self._open:
            return
        self._open = False
        try:
            if drain:
                await self._settled()
        finally:
            await self._shut()
        self._tell()

    async def _shut(self) -> None:
        self._stop_timer()
        # Nothing new goes out while the last answers come in.
        self._max_in_flight = 0
        try:
            if self._calls:
                await asyncio.wait(self._calls, timeout=_GRACE_S)
        finally:
            calls = list(self._calls)
            for call in calls:
                call.cancel()
            self._outbox.abandon(INTERRUPTED)
            self._wake_waiters()
            try:
                await asyncio.gather(*calls, return_exceptions=True)
            finally:
                await self._transport.close()

    # -- in --------------------------------------------------------------------------------------------

    async def put(self, record: Record) -> None:
        """:meth:`put_many` of one record."""
        await self.put_many((record,))

    async def put_many(self, records: Sequence[Record]) -> None:
        """Take over ``records``; wait while the buffer is full. Callers are served in turn.

        A record that no stream would take (1 MiB, partition key of 1 to 256 characters) is counted lost, reason
        ``rejected``, and the others go on. When the call is cancelled or the producer fails while it waits, what
        was not yet taken over is counted lost too: every record ends in the ledger.

        :raises ProducerClosed: before anything is taken, as is the error of a producer that has failed.
        :raises TypeError: for data that is not bytes or a key that is not text; nothing is taken.
        :raises ValueError: for a due time that is not finite; nothing is taken.
        """
        self._check_open()
        if not records:
            return
        sizes = checked_sizes(records)
        if sizes is None:
            records = self._valid(records)
            if not records:
                return
            sizes = Sizes(total_bytes(records), RECORD_MAX_BYTES)
        if not self._turn.locked() and self._fits(len(records), sizes.total_bytes):
            self._outbox.add(records, self._clock(), sizes)
            if self._pump():
                # Gives the calls a chance to leave when the caller never waits for anything else.
                await asyncio.sleep(0)
            return
        taken = 0
        try:
            async with self._turn:
                while taken < len(records):
                    part = await self._room_for(records[taken : taken + self._max_batch_records])
                    self._outbox.add(part, self._clock(), sizes._replace(total_bytes=total_bytes(part)))
                    taken += len(part)
                    if self._pump():
                        await asyncio.sleep(0)
        except BaseException as error:
            self._outbox.lose_unseen(records[taken:], REJECTED if error is self._error else INTERRUPTED)
            raise

    def _valid(self, records: Sequence[Record]) -> list[Record]:
        """Those that a stream can take; the others are rejected."""
        valid = []
        for record in records:
            problem = record.problem()
            if problem is None:
                valid.append(record)
            else:
                self._outbox.last_problem = problem
                self._outbox.reject(record)
        return valid

    async def _room_for(self, part: Sequence[Record]) -> Sequence[Record]:
        """Wait until ``part`` fits into the buffer, or as much of it as an empty buffer takes."""
        while True:
            self._check_open()
            if self._fits(len(part), total_bytes(part)):
                return part
            if not self._outbox.outstanding:
                part = part[: max(1, len(part) // 2)]
            else:
                await self._progress.wait()

    def _fits(self, count: int, size_bytes: int) -> bool:
        return (
            self._outbox.outstanding + count <= self._max_buffered_records
            and self._outbox.outstanding_bytes + size_bytes <= self._max_buffered_bytes
        )

    async def flush(self) -> None:
        """Wait until nothing is outstanding: all that was put is delivered or lost. Nothing lingers meanwhile,
        except for records that are about to become due.

        Records that are due later are still sent when they are due.
        """
        self._check_open()
        await self._settled()
        self._tell()

    # -- out -------------------------------------------------------------------------------------------

    def statistics(self) -> ProducerStatistics:
        """Counts as of now; also after the producer was closed."""
        outbox = self._outbox
        return ProducerStatistics(
            ledger=outbox.ledger.copy(),
            calls=self._call_count,
            calls_in_flight=len(self._calls),
            retrying=outbox.retrying,
            outstanding_bytes=outbox.outstanding_bytes,
            throttled_by_shard=MappingProxyType(dict(outbox.throttled_by_shard)),
            last_problem=outbox.last_problem,
            spool_problem=self._spool_problem,
        )

    def latencies(self) -> Latencies:
        """Exact percentiles; O(n) in the number of records so far."""
        return Latencies(self._outbox.send_lateness.percentiles(), self._outbox.accepted_latency.percentiles())

    @property
    def samples(self) -> tuple[Samples, Samples]:
        """All latencies, as in :class:`Latencies`, for :func:`producers.percentiles_of` over several producers."""
        return self._outbox.send_lateness, self._outbox.accepted_latency

    # -- the pump --------------------------------------------------------------------------------------

    def _pump(self) -> int:
        """Send what is to be sent now and set the timer for the rest; how many calls were started."""
        now = self._clock()
        started = 0
        lost_before = self._outbox.ledger.lost
        while len(self._calls) < self._max_in_flight:
            batch = self._outbox.take(now, hurry=self._hurrying > 0)
            if batch is None:
                break
            started += 1
            self._call_count += 1
            call = asyncio.get_running_loop().create_task(
                self._call(batch), name=f"PutRecords {self._call_count} to {self.stream}"
            )
            self._calls.add(call)
            call.add_done_callback(self._call_done)
        if len(self._calls) < self._max_in_flight:
            self._set_timer(now)
        else:
            self._stop_timer()
        if self._outbox.ledger.lost != lost_before:
            self._wake_waiters()
        return started

    def _set_timer(self, now: float) -> None:
        wake = self._outbox.next_wake(now, hurry=self._hurrying > 0)
        if wake is None:
            self._stop_timer()
            return
        loop = asyncio.get_running_loop()
        at = loop.time() + max(0.0, wake - now)
        # A timer that fires early costs less than replacing it; a wall clock that is set must not move it far.
        if self._timer is not None and self._timer_at <= at:
            return
        self._stop_timer()
        # uvloop's handles do not all tell when they are due.
        self._timer, self._timer_at = loop.call_at(at, self._timer_fired), at

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _timer_fired(self) -> None:
        self._timer = None
        self._pump()

    def _call_done(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        if not call.cancelled() and (error := call.exception()) is not None:
            self._fail(error if isinstance(error, ProducerError) else ProducerError(f"the producer broke: {error!r}"))
        elif self._max_in_flight:
            self._pump()
        self._wake_waiters()

    async def _call(self, batch: Batch) -> None:
        """One PutRecords call and its consequences.

        :raises ProducerError: when no later call will fare better.
        """
        outbox, clock = self._outbox, self._clock
        try:
            status, headers, body = await self._transport.post("PutRecords", self._encoder.encode(batch.records))
        except Unanswered as error:
            outbox.failed(batch, Meaning.UNCERTAIN if error.was_sent else Meaning.FAILED, str(error), clock())
            return
        if status == 200:
            try:
                failed = failures(body, len(batch.records))
            except AnswerUnreadable as error:
                outbox.failed(batch, Meaning.UNCERTAIN, str(error), clock())
                return
            if failed:
                outbox.partly_failed(batch, failed, clock())
            else:
                outbox.accepted(batch, clock())
            return
        code, message = error_of(body, headers)
        meaning = meaning_of_call(status, code)
        problem = f"{code or f'HTTP {status}'}: {message}"
        if meaning in (Meaning.THROTTLED, Meaning.FAILED, Meaning.UNCERTAIN):
            outbox.failed(batch, meaning, problem, clock())
        elif meaning is Meaning.INVALID:
            outbox.isolate(batch, problem, clock())
        else:
            raise self._transport.refusal(self.stream, status, code, message)

    # -- endings ---------------------------------------------------------------------------------------

    def _lost(self, records: Sequence[Record], reason: str) -> None:
        if self._spool is not None:
            try:
                self._spool.append(records, reason)
            except OSError as error:
                self._spool_problem = f"{self._spool.path}: {error.strerror or error}"

    def _fail(self, error: ProducerError) -> None:
        if self._error is None:
            self._error = error
            self._stop_timer()
            self._max_in_flight = 0
            for call in self._calls:
                call.cancel()
            self._outbox.abandon(REJECTED)

    async def _settled(self) -> None:
        """Until nothing is outstanding."""
        self._hurrying += 1
        try:
            if self._max_in_flight:
                self._pump()
            while self._outbox.outstanding:
                await self._progress.wait()
        finally:
            self._hurrying -= 1

    def _wake_waiters(self) -> None:
        # Everyone who waits looks for himself whether it was this that he waited for.
        self._progress.set()
        self._progress.clear()

    def _check_open(self) -> None:
        if self._error is not None:
            self._told = True
            raise self._error
        if not self._open:
            raise ProducerClosed(f"the producer of stream {self.stream!r} is not open: put records inside `async with`")

    def _tell(self) -> None:
        if self._error is not None and not self._told:
            self._told = True
            raise self._error


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigurationError(f"{name} must be from {low:,} to {high:,}, not {value!r}")
