"""A Locust user that is a biker's MQTT connection, in an open model: it publishes when the schedule says so.

:class:`BikerUser` is Locust's own ``MqttUser`` with two things taken out of its way. It does not wait for a PUBACK
before it takes its next arrival, so a connection is busy only while its socket is full; and its client has no thread:
paho's external-loop functions are called from gevent's hub when the socket is readable, and a publish writes itself.

**What a broker discards it does not mention.** AWS IoT Core discards what is over 100 publishes a second of a
connection, or 20,000 of an account (2,000 in smaller regions), and sends no PUBACK. So at QoS 1 a message without
PUBACK within :data:`ACK_TIMEOUT_S` counts as throttled, in the second in which that was known; one that comes later
is noted as ``LatePuback`` and not counted again, and says that throttles are overstated. At QoS 0 there is no PUBACK:
accepted means written to the socket, and discards cannot be seen from here.

Every message ends once: accepted, throttled, or failed because its connection was lost or there was none.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import random
import secrets
import ssl
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import gevent
import gevent.event
import gevent.socket
import paho.mqtt.client as paho
from locust import task
from locust.contrib.mqtt import MqttUser
from locust.exception import StopUser
from locust.stats import bucket_response_time

from loadtests.generator import Generator, Lane
from loadtests.locust_statistics import fire, log_failures, log_many
from loadtests.mqtt_users_client import BikerClient
from loadtests.pacing import Arrival
from loadtests.unacknowledged import Unacknowledged
from producers.errors import ConfigurationError
from producers.mqtt_settings import Broker, TlsSettings
from producers.retry import Backoff
from simulator.cloud import limits
from simulator.cloud.server import allow_many_connections

ACK_TIMEOUT_S = 1.0
"""No PUBACK means discarded once it would have come: a second is several times the way around the world. It is short
beside a search's stages of seconds, so that throttles are known soon; the settings' timeout would be too late."""
NAMED_CONNECTIONS = 20
"""Up to so many connections are counted each by its client id; more would be a row each, second by second."""
ACCOUNT = "IoT Core"
"""The resource of messages of more connections, as in :func:`loadtests.resources.iot_limits`."""
CONNECT_PAUSE_S = 1 / limits.IOT_CLIENT_CONNECTS.value
"""A client id may connect once a second."""
_TICK_S = 0.02
_SWEEP_TICKS, _MISC_TICKS = 5, 50
_NO_PUBACK = (
    f"no PUBACK within {ACK_TIMEOUT_S:g} s: IoT Core discards what is over a connection's "
    f"{limits.IOT_CONNECTION_PUBLISHES.value:,.0f} publishes/s or the account's {limits.IOT_PUBLISH_IN.value:,.0f} "
    f"({limits.IOT_SMALL_PUBLISH_IN.value:,.0f} in smaller regions)"
)
_LATE_PUBACK = (
    f"PUBACKs came more than {ACK_TIMEOUT_S:g} s after their messages, which had been counted as throttled by then; "
    "the broker, the network or this generator was behind"
)
_CLOSED = (
    "{} closed the connection instead of sending CONNACK; does it want another certificate, or does its policy forbid "
    "this client id?"
)
_UNWELL = (136, 151)
"""CONNACK "server unavailable", as MQTT 3.1.1 answers a throttled CONNECT, and "quota exceeded", as paho names them."""
_DENIED = (134, 135)
"""CONNACK "bad user name or password", "not authorised"."""
CONNECT = "Connect"
BACKOFF = Backoff(base_s=1.0, cap_s=10.0)
_RNG = random.Random()


class Sent(NamedTuple):
    """A message on its way."""

    arrival: Arrival
    size_bytes: int


class End(NamedTuple):
    """What became of a message; ``code`` is empty when it was accepted."""

    sent: Sent
    resource: str
    code: str
    message: str
    done_at: float


def _broker_of(extra: Mapping[str, str]) -> tuple[Broker, ssl.SSLContext | None]:
    """:raises ConfigurationError: for an address or TLS files that cannot be used."""
    if "mqtt_url" not in extra:
        raise ConfigurationError("bikers need the address of an MQTT broker, and this target has none")
    broker = Broker.of(extra["mqtt_url"])
    if not broker.tls:
        return broker, None
    tls = TlsSettings(extra.get("ca"), extra.get("cert"), extra.get("key"))
    tls.check()
    context = tls.context(broker)
    # gevent's sockets, also when the settings were imported before gevent took the place of the standard library's.
    context.sslsocket_class = ssl.SSLSocket
    return broker, context


class Bikes:
    """What the connections of one process share: where they connect to, and one greenlet that looks after them all.

    Callbacks in the hub note in ``ended`` what became of messages; reporting it is left to the greenlet, because
    Locust's listeners may wait, and because many messages go into Locust's tables as cheaply as one.
    """

    def __init__(self, environment: Any, generator: Generator) -> None:
        self.broker: Broker | None = None
        self.tls_context: ssl.SSLContext | None = None
        self.problem = ""
        """Why there is no broker, when an address or a TLS file cannot be used."""
        try:
            self.broker, self.tls_context = _broker_of(generator.resources.extra)
        except ConfigurationError as error:
            self.problem = str(error)
        self.up = 0
        """Connections that can publish now."""
        self.ended: list[End] = []
        self._environment, self._generator = environment, generator
        self._lane = generator.lane(BikerUser.operation)
        self._users: set[BikerUser] = set()
        self._numbers = itertools.count(1)
        self._keeper: Any = None
        allow_many_connections()

    def new_client_id(self) -> str:
        """IoT Core closes a connection when another comes with its client id."""
        return f"alleycat-load-{self._generator.index}-{next(self._numbers)}-{secrets.token_hex(4)}"

    def add(self, user: BikerUser) -> None:
        self._users.add(user)
        if not self._keeper:
            self._keeper = gevent.spawn(self._look_after_all)

    def remove(self, user: BikerUser) -> None:
        self._users.discard(user)
        self.report()

    def _look_after_all(self) -> None:
        for tick in itertools.count():
            gevent.sleep(_TICK_S)
            if not self._users:
                break
            if not tick % _SWEEP_TICKS:
                for user in list(self._users):
                    user.look_after(tick % _MISC_TICKS == 0)
            self.report()

    def report(self) -> None:
        """Into the meter and Locust's statistics: what ended since the last time."""
        ended, self.ended = self.ended, []
        meter, method, operation = self._generator.meter, BikerUser.method, BikerUser.operation
        rows: dict[tuple[str, str, int], list[int]] = {}
        problems: dict[tuple[str, str], list[Any]] = {}
        for (arrival, size), resource, code, message, done_at in ended:
            end = _end_of(code)
            meter.answered(
                arrival.stage,
                operation,
                resource,
                arrival.due_at,
                done_at,
                size_bytes=0 if code else size,
                **{end: 1},
            )
            response_ms = (done_at - arrival.due_at) * 1000
            fire(self._environment, method, f"{operation} {resource}", response_ms, size, code or None)
            row = rows.setdefault((resource, end, bucket_response_time(response_ms)), [0, 0])
            row[0] += 1
            row[1] += size
            if code:
                problems.setdefault((resource, code), [0, message, done_at])[0] += 1
        for (resource, end, response_ms), (number, size) in rows.items():
            name = f"{operation} {resource} {end}"
            if end == "accepted":
                log_many(self._environment, method, name, number, response_ms, size)
            else:
                log_failures(self._environment, method, name, number, response_ms, end)
        for (resource, code), (number, message, at) in problems.items():
            meter.problem(operation, resource, code, message, number, at)
        self._lane.in_flight -= len(ended)


def _end_of(code: str) -> str:
    """The member of :class:`loadtests.measurements.Counts` for a message that ended with ``code``."""
    return "throttled" if code == "NoPuback" else "failed" if code else "accepted"


class BikerUser(MqttUser):
    """A bike: one connection that publishes telemetry when it falls due, whatever became of the last message."""

    operation = "Publish"
    method = "MQTT"
    client_cls = BikerClient

    client: BikerClient
    lane: Lane

    def __init__(self, environment: Any) -> None:
        self.generator: Generator = environment.alleycat
        self.bikes = self.generator.shared("bikes", lambda: Bikes(environment, self.generator))
        if (broker := self.bikes.broker) is not None:
            self.host, self.port = broker.host, broker.port
            self.transport = "websockets" if broker.websocket else "tcp"
            self.ws_path = broker.path
        self.tls_context = self.bikes.tls_context
        client_id = self.client_id = self.bikes.new_client_id()
        super().__init__(environment)
        settings = self.generator.settings
        connections = settings.connections
        self.resource = client_id if connections and connections <= NAMED_CONNECTIONS else ACCOUNT
        self.unacknowledged: Unacknowledged[Sent] = Unacknowledged(ACK_TIMEOUT_S if settings.qos else math.inf)
        self.is_up = False
        self._failures = 0
        self._stage = -1
        self._connack: Any = None
        self._connecting: Any = None
        self._lost = gevent.event.Event()
        self._up = gevent.event.Event()
        self.client.on_connect = self._on_connack
        self.client.on_disconnect = self._on_lost
        self.client.on_publish = self._on_published

    def on_start(self) -> None:
        self.lane = self.generator.lane(self.operation)
        self.lane.users += 1
        if self.bikes.problem:
            self.generator.fatal = self.generator.fatal or self.bikes.problem
            return
        self.bikes.add(self)
        self._connecting = gevent.spawn(self._stay_connected, time.time())

    def on_stop(self) -> None:
        """Wait for the PUBACKs that may still come, then leave."""
        self.lane.users -= 1
        try:
            give_up_at = time.monotonic() + ACK_TIMEOUT_S + 3 * _TICK_S
            while self.unacknowledged and time.monotonic() < give_up_at:
                gevent.sleep(_TICK_S)
        finally:
            if self._connecting is not None:
                self._connecting.kill(block=False)
            self._fail_all("Stopped", "the test ended before the message was acknowledged")
            if self.is_up:
                self.client.disconnect()
            self.client.drop()
            self._tell_late_pubacks()
            self.bikes.remove(self)

    @task
    def take_next(self) -> None:
        """One arrival, for this connection if it is up. When none is, arrivals fail rather than wait for ever."""
        if self.bikes.problem:
            raise StopUser
        if not self.is_up and (self.bikes.up or not self._failures):
            self._up.wait(0.2)
            return
        arrival = self.lane.take()
        self._stage = arrival.stage
        for message in self.generator.messages.take(arrival.number):
            self._publish(arrival, message.data)
        while self.is_up and self.client.want_write():
            self._wait_until_writable()

    def _publish(self, arrival: Arrival, data: bytes) -> None:
        self.lane.in_flight += 1
        sent, now, qos = Sent(arrival, len(data)), time.time(), self.generator.settings.qos
        if not self.is_up:
            self._ended(sent, now, "NotConnected", "the message was due when there was no connection to publish it on")
            return
        self.generator.meter.sent(arrival.stage, self.operation, arrival.due_at, now)
        info = self.client.publish(self.generator.settings.topic, data, qos)
        if info.rc != paho.MQTT_ERR_SUCCESS:
            self.client.forget(info.mid)
            self._ended(sent, now, "ConnectionLost", f"the connection was lost: {paho.error_string(info.rc)}")
        elif not qos and not self.client.want_write():
            self._ended(sent, time.time())
        else:
            self.unacknowledged.add(info.mid, sent, time.monotonic())

    def _wait_until_writable(self) -> None:
        """The socket is full: until it takes more, arrivals are for other connections."""
        sock = self.client.socket()
        if sock is not None:
            with contextlib.suppress(TimeoutError):
                gevent.socket.wait_write(sock.fileno(), timeout=0.5)
            self.client.loop_write()

    def look_after(self, is_misc_due: bool) -> None:
        """Give up what was not acknowledged in time; pings and the like when ``is_misc_due``."""
        if self.unacknowledged.is_due(time.monotonic()):
            # What has arrived and was not read, because this process was busy, is no fault of the broker's.
            self.client.read()
            now = time.time()
            for packet_id, sent in self.unacknowledged.expire(time.monotonic()):
                self.client.forget(packet_id)
                self._ended(sent, now, "NoPuback", _NO_PUBACK)
        if is_misc_due:
            self._tell_late_pubacks()
            self.client.loop_misc()

    def _tell_late_pubacks(self) -> None:
        number, self.client.late_pubacks = self.client.late_pubacks, 0
        if number:
            meter = self.generator.meter
            meter.problem(self.operation, self.resource, "LatePuback", _LATE_PUBACK, number, time.time())

    def _ended(self, sent: Sent, now: float, code: str = "", message: str = "") -> None:
        self.bikes.ended.append(End(sent, self.resource, code, message, now))

    def _fail_all(self, code: str, message: str) -> None:
        now = time.time()
        for sent in self.unacknowledged.drop_all():
            self._ended(sent, now, code, message)
        self.client.drop_out_messages()

    # Callbacks of paho, in the hub: they note and return.

    def _on_published(self, client: Any, userdata: Any, packet_id: int, reason: Any, properties: Any) -> None:
        sent = self.unacknowledged.acknowledged(packet_id)
        if sent is not None:
            self._ended(sent, time.time())

    def _on_connack(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.value == 0:
            self.is_up = True
            self.bikes.up += 1
            self._lost.clear()
            self._up.set()
        self._connack.set(reason)

    def _on_lost(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if self.is_up:
            self.is_up = False
            self.bikes.up -= 1
            self._up.clear()
            self._lost.set()
            self._fail_all("ConnectionLost", f"the connection was lost: {reason}")
        elif not self._connack.ready():
            self._connack.set(None)

    # The greenlet that keeps the connection.

    def _stay_connected(self, due_at: float) -> None:
        while True:
            self._connect(due_at)
            if self.is_up:
                self._failures = 0
                self._lost.wait()
            self._failures += 1
            gevent.sleep(CONNECT_PAUSE_S + BACKOFF.delay_s(self._failures, _RNG))
            due_at = time.time()

    def _connect(self, due_at: float) -> None:
        """Try once, and report what became of it."""
        stage, meter = self._stage, self.generator.meter
        meter.due(stage, CONNECT, due_at, 1)
        meter.sent(stage, CONNECT, due_at, time.time())
        try:
            end, code, message = self._try_to_connect()
        except gevent.GreenletExit:
            meter.answered(stage, CONNECT, self.resource, due_at, time.time(), failed=1)
            meter.problem(CONNECT, self.resource, "Stopped", "the test ended before CONNACK came", 1, time.time())
            raise
        done_at = time.time()
        meter.answered(stage, CONNECT, self.resource, due_at, done_at, **{end: 1})
        if code:
            meter.problem(CONNECT, self.resource, code, message, 1, done_at)
        fire(self.environment, self.method, CONNECT, (done_at - due_at) * 1000, 0, code or None)

    def _try_to_connect(self) -> tuple[str, str, str]:
        """What became of it as in :class:`loadtests.measurements.Counts`, a code and a message."""
        where, timeout_s = f"{self.host}:{self.port}", self.generator.settings.timeout_s
        self._connack = gevent.event.AsyncResult()
        try:
            self.client.reconnect()
            reason = self._connack.get(timeout=timeout_s)
        except gevent.Timeout:
            self.client.drop()
            return "failed", "ConnectTimeout", f"no CONNACK from {where} within {timeout_s:g} s"
        except (OSError, ValueError) as error:
            self.client.drop()
            if isinstance(error, ssl.SSLCertVerificationError):
                self.generator.fatal = self.generator.fatal or f"{where}: {error}"
            return "failed", "ConnectFailed", f"{where}: {error}"
        if reason is None:
            return "failed", "ConnectFailed", _CLOSED.format(where)
        if reason.value == 0:
            return "accepted", "", ""
        if reason.value in _DENIED:
            self.generator.fatal = self.generator.fatal or f"{where} refused the connection: {reason}"
        return "throttled" if reason.value in _UNWELL else "failed", "ConnectRefused", f"CONNACK of {where}: {reason}"
