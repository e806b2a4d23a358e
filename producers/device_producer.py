"""What MQTT producers have in common: the clock, the library's news and the spool around :mod:`producers.device`.

:class:`producers.mqtt.MqttProducer` and :class:`producers.iot_device.IotDeviceProducer` put a client library below.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import math
import random
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

from producers.delivery import INTERRUPTED, REJECTED, Record, Samples, checked_sizes
from producers.device import MAX_UNACKNOWLEDGED, Device, Fleet, Publish
from producers.errors import ConfigurationError, ProducerClosed, ProducerError
from producers.kinesis import Latencies
from producers.mqtt_settings import (
    KEEP_ALIVE_MAX_S,
    PAYLOAD_MAX_BYTES,
    Broker,
    BrokerUnreachable,
    DeviceRefused,
    MqttStatistics,
    TlsSettings,
    Will,
    check_topic,
    client_ids_of,
    topics_of,
)
from producers.spool import Spool

CONNECTS_PER_S = 3000.0
"""CONNECTs a second of an AWS account (AWS IoT Core, message broker limits; 100 in the smaller regions)."""
_GRACE_S = 0.5
"""How long an undrained close waits for acknowledgements."""
_LEAVE_S = 5.0
_OTHER_DESCRIPTORS = 32
"""What else a process has open: its streams, the event loop's, a spool."""
_NOTHING: Mapping[str, int] = MappingProxyType({})


class DeviceProducer(abc.ABC):
    """What MQTT producers have in common. An async context manager: entering connects, leaving drains.

    :param url: ``mqtt://host:port``, ``mqtts://`` (TLS), ``ws://host:port/path``, ``wss://`` (MQTT over WebSocket).
    :param devices: who may publish: the values of ``Record.order_key``, or a mapping of them to a topic each.
    :param topic: what devices publish to that have none of their own.
    :param qos: 0 or 1; AWS IoT Core has no 2.
    :param client_id: of a device, or a prefix to put before it.
    :param connect_rate_per_s: CONNECTs a second, of all devices together.
    :param keep_alive_s: up to 1,200 s; a connection that is silent for longer is probed, and ended without an answer.
    :param will: what the broker publishes for devices that vanish; or a function of the device.
    :param max_in_flight: unacknowledged records of a device. With 1 its records arrive in order.
    :param max_queued_per_device: records of a device that may be due and not settled. Of more, the oldest that is
        not in flight is lost, reason ``queue_full``.
    :param max_buffered_records: what may be outstanding before :meth:`put_many` waits; by default twice what all the
        devices' queues hold, and at least 50,000.
    :param deadline_s: a record not acknowledged so long after it was due is lost, reason ``deadline``. One that was
        published shortly before gets ``ack_timeout_s`` for its answer.
    :param ack_timeout_s: without a PUBACK for so long a record is published again.
    :param connect_timeout_s: after this an attempt to connect is given up.
    :param spool: file to append lost records to (:mod:`producers.spool`).
    :param tls: for ``mqtts`` and ``wss``.
    :param clean_session: whether the broker is to forget a device when it leaves.
    :param clock: seconds since the epoch.
    :param rng: for the jitter of back-offs.

    Entering connects one device and raises :class:`EndpointUnreachable`, :class:`AccessRefused` or
    :class:`ConfigurationError` when that fails; then it gives each other device one attempt. Devices that fail
    then or later connect again, with full-jitter back-off of up to 30 s and at most once a second each. Leaving by
    an exception does not drain.
    """

    _reconnects = True

    def __init__(
        self,
        *,
        topic: str,
        devices: Sequence[Hashable] | Mapping[Hashable, str],
        url: str = "mqtt://127.0.0.1:1883",
        qos: int = 1,
        client_id: str | Callable[[Hashable], str] = "alleycat-",
        connect_rate_per_s: float = CONNECTS_PER_S,
        keep_alive_s: int = 60,
        will: Will | Callable[[Hashable], Will] | None = None,
        max_in_flight: int = 1,
        max_queued_per_device: int = 120,
        max_buffered_records: int | None = None,
        deadline_s: float = 60.0,
        ack_timeout_s: float = 5.0,
        connect_timeout_s: float = 5.0,
        spool: str | Path | None = None,
        tls: TlsSettings | None = None,
        clean_session: bool = True,
        username: str | None = None,
        password: str | None = None,
        clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        if qos not in (0, 1):
            raise ConfigurationError(f"qos must be 0 or 1 (AWS IoT Core has no QoS 2), not {qos!r}")
        _within("connect_rate_per_s", connect_rate_per_s, 0.001, 1e6)
        _within("keep_alive_s", keep_alive_s, 5, KEEP_ALIVE_MAX_S)
        _within("max_in_flight", max_in_flight, 1, MAX_UNACKNOWLEDGED)
        _within("max_queued_per_device", max_queued_per_device, 1, math.inf)
        _within("deadline_s", deadline_s, 0.001, 86_400 * 365)
        _within("ack_timeout_s", ack_timeout_s, 0.001, 3600)
        _within("connect_timeout_s", connect_timeout_s, 0.001, 3600)
        if password is not None and username is None:
            raise ConfigurationError("a password needs a username (MQTT 3.1.1)")
        self.broker = Broker.of(url)
        if tls is not None and not self.broker.tls:
            raise ConfigurationError(f"tls is given, but {url!r} is not encrypted: use mqtts:// or wss://")
        self.tls = tls or TlsSettings()
        self.tls.check()
        topics = topics_of(devices, topic)
        self.client_ids = client_ids_of(list(topics), client_id)
        self.qos = qos
        self._wills = {device: will(device) if callable(will) else will for device in topics} if will else {}
        for one in set(self._wills.values()):
            check_topic("the will's topic", one.topic)
            if one.qos not in (0, 1):
                raise ConfigurationError(f"the will's qos must be 0 or 1, not {one.qos!r}")
        if max_buffered_records is None:
            max_buffered_records = max(50_000, 2 * len(topics) * max_queued_per_device)
        _within("max_buffered_records", max_buffered_records, 1, math.inf)
        self._max_buffered_records = max_buffered_records
        self._connect_rate_per_s = connect_rate_per_s
        self._keep_alive_s = keep_alive_s
        self._ack_timeout_s = ack_timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._clean_session = clean_session
        self._username = username
        self._password = password
        self._clock = clock
        self._spool = Spool(spool) if spool is not None else None
        self._spool_problem: str | None = None
        self._fleet = Fleet(
            topics,
            qos=qos,
            max_in_flight=max_in_flight,
            max_queued=max_queued_per_device,
            ack_timeout_s=ack_timeout_s,
            deadline_s=deadline_s,
            connect_rate_per_s=connect_rate_per_s,
            rng=rng or random.Random(),
            reconnects=self._reconnects,
            on_lost=self._lost,
        )
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._pumping = False
        self._progress = asyncio.Event()
        self._waiters = 0
        self._turn = asyncio.Lock()
        # Devices that have not yet been connected or failed to; the first one's failure is the producer's.
        self._untried: set[Hashable] = set()
        self._first_failure: ProducerError | None = None
        self._error: ProducerError | None = None
        self._told = False
        self._entered = False
        self._open = False
        self._stopping = False

    # -- what a client library does --------------------------------------------------------------------

    @abc.abstractmethod
    def _prepare(self) -> None:
        """Get ready to connect. :raises ConfigurationError: for files that are not what they should be."""

    @abc.abstractmethod
    def _connect(self, device: Device) -> None:
        """Start to connect; calls :meth:`_connected` or :meth:`_connect_failed`, and later :meth:`_disconnected`."""

    @abc.abstractmethod
    def _publish(self, one: Publish) -> None:
        """Start to publish; calls ``departed`` of the fleet and then :meth:`_acked`."""

    @abc.abstractmethod
    def _drop(self, device: Device) -> None:
        """End the device's connection without a word, and tell nothing of it."""

    @abc.abstractmethod
    async def _leave(self) -> None:
        """Send DISCONNECT for every device and wait until it left."""

    @abc.abstractmethod
    async def _shut_down(self) -> None:
        """End everything that :meth:`_leave` did not, without waiting for anyone else."""

    # -- lifecycle -------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._entered:
            raise ProducerClosed("a producer is opened once; make another one")
        self._entered = True
        _check_descriptors(len(self.client_ids))
        self._prepare()
        keys = list(self._fleet.devices)
        try:
            try:
                # Name, socket, TLS and CONNACK each have a time limit of their own.
                async with asyncio.timeout(3 * self._connect_timeout_s):
                    await self._attempt(keys[:1])
            except TimeoutError:
                silence = "no answer in time" + (", or a TLS handshake that failed" if self.broker.tls else "")
                raise self._unreachable(self._fleet.last_problem or silence) from None
            if self._first_failure is not None:
                raise self._first_failure
            # A broker that stops answering now must not keep everyone else waiting: stragglers go on connecting.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._connect_timeout_s + len(keys) / min(self._connect_rate_per_s, 200.0)):
                    await self._attempt(keys[1:])
            if self._error is not None:
                raise self._error
        except BaseException:
            self._stop()
            await self._shut_down()
            raise
        self._open = True
        return self

    async def _attempt(self, keys: Sequence[Hashable]) -> None:
        """Until each of ``keys`` is connected or has failed to."""
        self._untried.update(keys)
        self._fleet.start(self._clock(), keys)
        self._pump()
        while self._untried:
            await self._wait()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            await self.close()
        else:
            self._told = True
            await self.close(drain=False)

    async def close(self, *, drain: bool = True) -> None:
        """Stop taking records; deliver or lose what is left; disconnect.

        :param drain: go on until every record is delivered or past its deadline. Otherwise what is in flight gets
            half a second for its acknowledgement, and the rest is lost with reason ``interrupted``. Cancelling a
            drain does the same.
        """
        if not self._open:
            return
        self._open = False
        try:
            if drain:
                await self._settled()
        finally:
            try:
                self._stop()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_GRACE_S):
                        while self._fleet.in_flight_count:
                            await self._wait()
                self._fleet.abandon(INTERRUPTED)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LEAVE_S):
                        await self._leave()
            finally:
                self._fleet.abandon(INTERRUPTED)
                self._wake_waiters()
                await self._shut_down()
        self._tell()

    def _stop(self) -> None:
        """Nothing new goes out."""
        self._stopping = True
        self._stop_timer()

    # -- in --------------------------------------------------------------------------------------------

    async def put(self, record: Record) -> None:
        """:meth:`put_many` of one record."""
        await self.put_many((record,))

    async def put_many(self, records: Sequence[Record]) -> None:
        """Take over ``records``; wait while ``max_buffered_records`` are outstanding. Callers are served in turn.

        A record of more than 128 KiB is counted lost, reason ``rejected``: AWS IoT Core would end the connection.
        When the call is cancelled while it waits, what was not yet taken over is counted lost: every record ends in
        the ledger.

        :raises ProducerClosed: before anything is taken, as is the error of a producer that has failed.
        :raises TypeError: for data that is not bytes; nothing is taken.
        :raises ValueError: for an ``order_key`` that is none of the devices, or a due time that is not finite;
            nothing is taken.
        """
        self._check_open()
        if not records:
            return
        checked_sizes(records)
        strangers = {record.order_key for record in records} - self._fleet.devices.keys()
        if strangers:
            raise ValueError(f"order_key {next(iter(strangers))!r} of a record is none of this producer's devices")
        records = self._valid(records)
        if not self._turn.locked() and self._room() >= len(records):
            self._fleet.add(records)
            if self._pump():
                # Gives publishes a chance to leave when the caller never waits for anything else.
                await asyncio.sleep(0)
            return
        taken = 0
        try:
            async with self._turn:
                while taken < len(records):
                    room = self._room()
                    if room <= 0:
                        await self._wait()
                        self._check_open()
                        continue
                    part = records[taken : taken + room]
                    self._fleet.add(part)
                    taken += len(part)
                    if self._pump():
                        await asyncio.sleep(0)
        except BaseException as error:
            self._fleet.lose_unseen(records[taken:], REJECTED if error is self._error else INTERRUPTED)
            raise

    def _valid(self, records: Sequence[Record]) -> Sequence[Record]:
        """Those that a broker takes; the others are rejected."""
        large = [record for record in records if len(record.data) > PAYLOAD_MAX_BYTES]
        if not large:
            return records
        self._fleet.last_problem = (
            f"a payload has at most {PAYLOAD_MAX_BYTES:,} bytes, one of device {large[0].order_key!r} "
            f"has {len(large[0].data):,}"
        )
        self._fleet.lose_unseen(large, REJECTED)
        return [record for record in records if len(record.data) <= PAYLOAD_MAX_BYTES]

    def _room(self) -> int:
        return self._max_buffered_records - self._fleet.outstanding

    async def flush(self) -> None:
        """Wait until nothing is outstanding: all that was put is delivered or lost. Nothing is sent before it is
        due."""
        self._check_open()
        await self._settled()
        self._tell()

    # -- out -------------------------------------------------------------------------------------------

    def statistics(self) -> MqttStatistics:
        """Counts as of now; also after the producer was closed."""
        fleet = self._fleet
        return MqttStatistics(
            ledger=fleet.ledger.copy(),
            connected=fleet.connected_count,
            connecting=fleet.connecting_count,
            disconnects=fleet.disconnects,
            reconnects=fleet.reconnect_count,
            published=fleet.published,
            in_flight=fleet.in_flight_count,
            queued=fleet.queued_count,
            throttled_by_shard=_NOTHING,
            last_problem=fleet.last_problem,
            spool_problem=self._spool_problem,
        )

    def latencies(self) -> Latencies:
        """Exact percentiles; O(n) in the number of records so far."""
        lateness, accepted = self._fleet.samples
        return Latencies(lateness.percentiles(), accepted.percentiles())

    @property
    def samples(self) -> tuple[Samples, Samples]:
        """All latencies, as in :class:`Latencies`, for :func:`producers.percentiles_of` over several producers."""
        return self._fleet.samples

    # -- the pump --------------------------------------------------------------------------------------

    def _pump(self) -> int:
        """Do what is to be done now and set the timer for the rest; how many publishes were started."""
        if self._stopping or self._pumping:
            return 0
        # A library may tell of a failure from within what is asked of it here.
        self._pumping = True
        try:
            now = self._clock()
            lost_before = self._fleet.ledger.lost
            todo = self._fleet.take(now)
            for device in todo.drop:
                self._drop(device)
            for one in todo.publish:
                self._publish(one)
            for device in todo.connect:
                self._connect(device)
        finally:
            self._pumping = False
        self._set_timer(now)
        if self._fleet.ledger.lost != lost_before:
            self._wake_waiters()
        return len(todo.publish)

    def _set_timer(self, now: float) -> None:
        wake = self._fleet.next_wake(now)
        if wake is None:
            self._stop_timer()
            return
        loop = asyncio.get_running_loop()
        at = loop.time() + max(0.0, wake - now)
        # A timer that fires early costs less than replacing it; a wall clock that is set must not move it far.
        if self._timer is not None and self._timer_at <= at:
            return
        self._stop_timer()
        # Remembered here, because uvloop does not tell the time of a timer that is due at once.
        self._timer_at = at
        self._timer = loop.call_at(at, self._timer_fired)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _timer_fired(self) -> None:
        self._timer = None
        try:
            self._pump()
        except Exception as error:
            self._fail(error)

    # -- what the client library tells -----------------------------------------------------------------

    def _connected(self, device: Device) -> None:
        self._fleet.connected(device, self._clock())
        self._tried(device)
        self._pump()

    def _connect_failed(self, device: Device, problem: str, error: ProducerError) -> None:
        """``error`` is what entering raises if this was the first attempt of all."""
        if not self._open and self._fleet.connected_count == 0 and device.connected_at is None:
            self._first_failure = self._first_failure or error
        self._fleet.connect_failed(device, problem, self._clock())
        self._tried(device)
        self._pump()

    def _disconnected(self, device: Device, problem: str) -> None:
        self._fleet.disconnected(device, problem, self._clock())
        self._pump()
        self._wake_waiters()

    def _acked(self, one: Publish) -> None:
        if self._fleet.acked(one, self._clock()):
            self._pump()
        if self._waiters:
            self._wake_waiters()

    def _unreachable(self, problem: str) -> BrokerUnreachable:
        return BrokerUnreachable(self.broker.url, problem)

    def _refused(self, device: Device, code: str, status: int) -> DeviceRefused:
        return DeviceRefused(self.broker.url, self.client_ids[device.key], code, status)

    def _tried(self, device: Device) -> None:
        self._untried.discard(device.key)
        if not self._untried:
            self._wake_waiters()

    # -- endings ---------------------------------------------------------------------------------------

    def _lost(self, records: Sequence[Record], reason: str) -> None:
        if self._spool is not None:
            try:
                self._spool.append(records, reason)
            except OSError as error:
                self._spool_problem = f"{self._spool.path}: {error.strerror or error}"

    def _fail(self, error: BaseException) -> None:
        """Something that nobody foresaw: better a producer that stops than one that waits for ever."""
        if self._error is None:
            self._error = error if isinstance(error, ProducerError) else ProducerError(f"the producer broke: {error!r}")
            self._first_failure = self._error
            self._untried.clear()
            self._stop()
            self._fleet.abandon(REJECTED)
            self._wake_waiters()

    async def _settled(self) -> None:
        """Until nothing is outstanding."""
        while self._fleet.outstanding:
            await self._wait()

    async def _wait(self) -> None:
        self._waiters += 1
        try:
            await self._progress.wait()
        finally:
            self._waiters -= 1

    def _wake_waiters(self) -> None:
        # Everyone who waits looks for himself whether it was this that he waited for.
        self._progress.set()
        self._progress.clear()

    def _check_open(self) -> None:
        if self._error is not None:
            self._told = True
            raise self._error
        if not self._open:
            raise ProducerClosed(f"the producer of {self.broker.url} is not open: put records inside `async with`")

    def _tell(self) -> None:
        if self._error is not None and not self._told:
            self._told = True
            raise self._error


def _check_descriptors(count: int) -> None:
    """:raises ConfigurationError: when the process may not have so many connections."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit != resource.RLIM_INFINITY and count + _OTHER_DESCRIPTORS > limit:
        raise ConfigurationError(
            f"{count:,} devices need a connection each, and this process may have {limit:,} files open: raise the "
            f"limit (ulimit -n {count + _OTHER_DESCRIPTORS}), or spread the devices over several processes"
        )


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigurationError(f"{name} must be from {low:,} to {high:,}, not {value!r}")
