"""The MQTT producer that AWS's own devices would be: ``awsiotsdk`` on the AWS Common Runtime, MQTT 5.

::

    async with IotDeviceProducer(
        url="mqtts://example-ats.iot.eu-west-1.amazonaws.com:8883",
        tls=TlsSettings(cert_file="bike.pem.crt", key_file="bike.pem.key"),
        topic="alleycat-publish", devices=racer_ids,
    ) as producer:
        await producer.put_many(records)

It is used as :class:`producers.MqttProducer` is. What differs:

* **Who it is.** ``mqtts://`` shows the client certificate (on port 443 with ALPN ``x-amzn-mqtt-ca``); ``wss://``
  without one signs with Signature Version 4, with credentials from where boto3 takes them, for ``region``;
  ``mqtt://`` and ``ws://`` are for local brokers.
* **MQTT 5.** A broker that throttles may say so (PUBACK 0x97, Quota exceeded): that is counted in ``throttled``, and
  is no possible duplicate. One that refuses a record for good (0x87, 0x90, 0x99) loses it, reason ``rejected``.
* **Threads.** The runtime does its I/O on a thread of its own and calls back there. What it says is gathered, and
  handed to the event loop with one wake-up for all that came since the last.
  A message costs 0.25 ms of CPU on both threads (0.13 ms at 5,000 a second, when more share a wake-up), a
  connection 35 KB and, silent or not, 20 to 50 µs a second.
* **Connecting again** is the runtime's: after 1 s at first and 30 s at most, with jitter. Within the connection it
  keeps to AWS IoT Core's 100 publishes and 512 KiB a second, as the SDK's devices do by default.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import os
import re
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from awscrt import auth, io, mqtt5  # type: ignore[import-untyped]
from awscrt.exceptions import AwsCrtError  # type: ignore[import-untyped]
from awsiot import mqtt5_client_builder  # type: ignore[import-untyped]

from producers.device import Device, Publish
from producers.device_producer import DeviceProducer
from producers.errors import ConfigurationError

_RECONNECT_MIN_MS = 1000
"""One CONNECT a second and client id (AWS IoT Core, message broker limits)."""
_RECONNECT_MAX_MS = 30_000
_SHUTDOWN_S = 2.0
_SESSION_EXPIRY_S = 3600
"""AWS IoT Core's default for persistent sessions."""
_QUOTA_EXCEEDED = 0x97
_NEVER = (0x87, 0x90, 0x99)
"""PUBACK: not authorized, topic name invalid, payload format invalid."""
_CLIENT_REFUSED = (0x81, 0x82, 0x84, 0x85, 0x86, 0x87, 0x8A, 0x8C)
"""CONNACK: what is wrong is the client's; anything else is the broker's or its load's."""

Event = Callable[[], bool | None]
"""To be called on the loop; true when there may be more to do then."""


class IotDeviceProducer(DeviceProducer):
    """Publishes with ``awsiotsdk``. For other parameters and errors see :class:`producers.mqtt.DeviceProducer`.

    :param region: to sign for; ``None`` takes it from the endpoint's name, or from ``AWS_REGION``.
    """

    _reconnects = False

    def __init__(self, *, region: str | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        broker = self.broker
        self._region = region or _region_of(broker.host) or os.environ.get("AWS_REGION", "")
        if self._is_signed and not self._region:
            raise ConfigurationError(f"no region to sign for is known from {broker.host}: give region, or AWS_REGION")
        if broker.tls and broker.websocket and broker.path != "/mqtt":
            raise ConfigurationError(f"the path of a signed wss:// url must be /mqtt, not {broker.path!r}")
        if self._is_signed and self.tls.cert_file is not None:
            raise ConfigurationError("wss:// is signed with credentials: use mqtts:// to show a client certificate")
        if self.tls.alpn is not None:
            raise ConfigurationError("alpn is the SDK's to choose here: x-amzn-mqtt-ca on port 443, else none")
        self._events: deque[Event] = deque()
        self._waking = False
        self._leaving = False
        self._clients: dict[Device, mqtt5.Client] = {}
        self._running: set[Device] = set()
        self._to_start: set[Device] = set()

    @property
    def _is_signed(self) -> bool:
        return self.broker.tls and self.broker.websocket

    # -- clients ---------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        if self.broker.tls:
            # Reads the files once, for an error that names them; the runtime's says only that it failed.
            self.tls.context(self.broker)
        self._loop = asyncio.get_running_loop()
        group = io.EventLoopGroup(1)
        self._group_ended = group.shutdown_event
        self._bootstrap: io.ClientBootstrap | None = io.ClientBootstrap(group, io.DefaultHostResolver(group))
        # Of the first client: the others share its TLS context and how it signs.
        self._template: mqtt5.ClientOptions | None = None

    def _connect(self, device: Device) -> None:
        try:
            client = self._client(device)
        except AwsCrtError as error:
            problem = _problem(error)
            self._connect_failed(device, problem, ConfigurationError(f"the AWS runtime does not take this: {problem}"))
            return
        self._clients[device] = client
        self._running.add(device)
        client.start()

    def _client(self, device: Device) -> mqtt5.Client:
        options = self._options(device)
        if self._template is not None:
            options.tls_ctx = self._template.tls_ctx
            options.websocket_handshake_transform = self._template.websocket_handshake_transform
            return mqtt5.Client(options)
        self._template = options
        broker, tls = self.broker, self.tls
        common = {
            "endpoint": broker.host,
            "client_options": options,
            "username": self._username,
            "ca_filepath": None if tls.ca_file is None else str(tls.ca_file),
            "enable_metrics_collection": False,
        }
        if self._is_signed:
            return mqtt5_client_builder.websockets_with_default_aws_signing(
                self._region, auth.AwsCredentialsProvider.new_default_chain(self._bootstrap), **common
            )
        if tls.cert_file is not None:
            return mqtt5_client_builder.mtls_from_path(str(tls.cert_file), str(tls.key_file), **common)
        if broker.tls:
            trust = io.TlsContextOptions()
            if tls.ca_file is not None:
                trust.override_default_trust_store_from_path(None, str(tls.ca_file))
            options.tls_ctx = io.ClientTlsContext(trust)
        elif broker.websocket:
            options.websocket_handshake_transform = functools.partial(_set_path, broker.path)
        return mqtt5.Client(options)

    def _options(self, device: Device) -> mqtt5.ClientOptions:
        will = self._wills.get(device.key)
        clean = self._clean_session
        connect = mqtt5.ConnectPacket(
            client_id=self.client_ids[device.key],
            keep_alive_interval_sec=self._keep_alive_s,
            username=self._username,
            password=self._password,
            session_expiry_interval_sec=None if clean else _SESSION_EXPIRY_S,
            will=None
            if will is None
            else mqtt5.PublishPacket(
                topic=will.topic, payload=will.payload, qos=mqtt5.QoS(will.qos), retain=will.retain
            ),
        )
        return mqtt5.ClientOptions(
            host_name=self.broker.host,
            port=self.broker.port,
            bootstrap=self._bootstrap,
            socket_options=_socket_options(self._connect_timeout_s),
            connect_options=connect,
            session_behavior=mqtt5.ClientSessionBehaviorType.CLEAN
            if clean
            else mqtt5.ClientSessionBehaviorType.REJOIN_POST_SUCCESS,
            extended_validation_and_flow_control_options=(
                mqtt5.ExtendedValidationAndFlowControlOptions.AWS_IOT_CORE_DEFAULTS
            ),
            # What is not acknowledged when a connection ends goes back to the device's queue, which is ours.
            offline_queue_behavior=mqtt5.ClientOperationQueueBehaviorType.FAIL_ALL_ON_DISCONNECT,
            retry_jitter_mode=mqtt5.ExponentialBackoffJitterMode.DECORRELATED,
            min_reconnect_delay_ms=_RECONNECT_MIN_MS,
            max_reconnect_delay_ms=_RECONNECT_MAX_MS,
            ping_timeout_ms=min(30_000, self._keep_alive_s * 500),
            connack_timeout_ms=math.ceil(self._connect_timeout_s * 1000),
            # Beyond ours, so that a late PUBACK still counts.
            ack_timeout_sec=math.ceil(3 * self._ack_timeout_s),
            on_lifecycle_event_connection_success_fn=functools.partial(self._on_success, device),
            on_lifecycle_event_connection_failure_fn=functools.partial(self._on_failure, device),
            on_lifecycle_event_disconnection_fn=functools.partial(self._on_disconnection, device),
            on_lifecycle_event_stopped_fn=functools.partial(self._on_stopped, device),
            disable_metrics=True,
        )

    # -- publishes -------------------------------------------------------------------------------------

    def _publish(self, one: Publish) -> None:
        client = self._clients.get(one.device)
        if client is None:
            return
        self._fleet.departed(one, self._clock())
        try:
            future = client.publish(
                mqtt5.PublishPacket(topic=one.device.topic, payload=one.record.data, qos=mqtt5.QoS(self.qos))
            )
        except AwsCrtError as error:
            self._fleet.rejected(one, _problem(error))
        else:
            future.add_done_callback(functools.partial(self._on_published, one))

    def _published(self, one: Publish, done: Future[mqtt5.PublishCompletionData]) -> bool:
        fleet = self._fleet
        error = done.exception()
        if error is not None:
            # The connection is about to be reported dead; if it is not, the acknowledgement's timer goes off.
            fleet.last_problem = _problem(error)
            return False
        puback = done.result().puback
        reason = int(puback.reason_code or 0) if self.qos and puback is not None else 0
        if reason < 0x80:
            return fleet.acked(one, self._clock())
        problem = f"PUBACK 0x{reason:02X} {_name(puback.reason_code)}"
        if puback.reason_string:
            problem += f": {puback.reason_string}"
        if reason == _QUOTA_EXCEEDED:
            fleet.throttled(one, problem, self._clock())
        elif reason in _NEVER:
            fleet.rejected(one, problem)
        else:
            fleet.failed(one, problem, self._clock())
        return True

    # -- on the runtime's thread -----------------------------------------------------------------------

    def _hand_over(self, event: Event) -> None:
        self._events.append(event)
        if not self._waking:
            self._waking = True
            # A loop that was closed wants to know nothing any more.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._collect)

    def _on_published(self, one: Publish, done: Future[mqtt5.PublishCompletionData]) -> None:
        self._hand_over(functools.partial(self._published, one, done))

    def _on_success(self, device: Device, data: mqtt5.LifecycleConnectSuccessData) -> None:
        self._hand_over(functools.partial(self._connected, device))

    def _on_failure(self, device: Device, data: mqtt5.LifecycleConnectFailureData) -> None:
        connack = data.connack_packet
        self._hand_over(
            functools.partial(self._failed, device, data.exception, None if connack is None else connack.reason_code)
        )

    def _on_disconnection(self, device: Device, data: mqtt5.LifecycleDisconnectData) -> None:
        packet = data.disconnect_packet
        said = _problem(data.exception) if packet is None else f"DISCONNECT {_name(packet.reason_code)}"
        self._hand_over(functools.partial(self._interrupted, device, f"device {device.key!r}: {said}"))

    def _on_stopped(self, device: Device, data: mqtt5.LifecycleStoppedData) -> None:
        self._hand_over(functools.partial(self._stopped, device))

    # -- on the loop -----------------------------------------------------------------------------------

    def _collect(self) -> None:
        """Take in what the runtime's thread has said."""
        # First, so that what is said from now on wakes the loop again.
        self._waking = False
        more = False
        try:
            while self._events:
                more = bool(self._events.popleft()()) or more
            if more:
                self._pump()
        except Exception as error:
            self._fail(error)
        if self._waiters:
            self._wake_waiters()

    def _interrupted(self, device: Device, problem: str) -> None:
        # That we ended it ourselves is told in the same way.
        if not self._leaving:
            self._disconnected(device, problem)

    def _stopped(self, device: Device) -> None:
        if device in self._to_start and not self._leaving:
            self._to_start.discard(device)
            self._clients[device].start()
        else:
            self._running.discard(device)

    def _failed(self, device: Device, error: Exception, reason: Any) -> None:
        if reason is None:
            problem = _problem(error)
            self._connect_failed(device, problem, self._unreachable(problem))
            return
        problem = f"CONNACK 0x{int(reason):02X} {_name(reason)}"
        refused = int(reason) in _CLIENT_REFUSED
        self._connect_failed(
            device, problem, self._refused(device, problem, int(reason)) if refused else self._unreachable(problem)
        )

    # -- endings ---------------------------------------------------------------------------------------

    def _drop(self, device: Device) -> None:
        # A start right after it would undo the stop.
        self._to_start.add(device)
        self._clients[device].stop()

    async def _leave(self) -> None:
        self._leaving = True
        for client in self._clients.values():
            # Without a packet to send it would just close, and the broker would publish the will.
            client.stop(mqtt5.DisconnectPacket())
        while self._running:
            await self._wait()

    async def _shut_down(self) -> None:
        self._leaving = True
        for device in self._running:
            self._clients[device].stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SHUTDOWN_S):
                while self._running:
                    await self._wait()
        # The runtime's thread ends when nobody holds anything of it.
        self._clients.clear()
        self._template = None
        self._bootstrap = None
        await self._loop.run_in_executor(None, self._group_ended.wait, _SHUTDOWN_S)
        self._events.clear()


def _region_of(host: str) -> str | None:
    """Of an endpoint like ``a1b2-ats.iot.eu-west-1.amazonaws.com``."""
    found = re.search(r"\.iot\.([a-z0-9-]+)\.amazonaws\.com", host)
    return found.group(1) if found else None


def _set_path(path: str, transform_args: mqtt5.WebsocketHandshakeTransformArgs) -> None:
    # The runtime passes the argument by this name.
    transform_args.http_request.path = path
    transform_args.set_done()


def _socket_options(connect_timeout_s: float) -> io.SocketOptions:
    options = io.SocketOptions()
    options.connect_timeout_ms = math.ceil(connect_timeout_s * 1000)
    return options


def _problem(error: BaseException) -> str:
    return f"{error.name}: {error.message}" if isinstance(error, AwsCrtError) else str(error)


def _name(reason: Any) -> str:
    """``NOT_AUTHORIZED`` as people write it."""
    name = getattr(reason, "name", None)
    return name.replace("_", " ").lower() if name else ""
