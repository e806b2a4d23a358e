"""MQTT producers: one connection a device, and a word for every record. This one is on ``aiomqtt`` (MQTT 3.1.1).

::

    async with MqttProducer(url="mqtt://127.0.0.1:1883", topic="alleycat-publish", devices=racer_ids) as producer:
        await producer.put_many(records)
    print(producer.statistics().ledger)

It is used as :class:`producers.KinesisProducer` is; ``order_key`` of a record names the device that publishes it.
:mod:`producers.device` decides; :class:`DeviceProducer` gives it the time, does what it says and tells it what came
of that; :class:`MqttProducer` and :class:`producers.iot_device.IotDeviceProducer` put a client library below.

**QoS 1** is delivered when the broker's PUBACK came. AWS IoT Core discards what is beyond its limits without a word,
so no PUBACK within ``ack_timeout_s`` means to publish again, and consumers must take a record twice. **QoS 0** is
delivered as far as a producer can know when the socket took it: what the network or a broker's limits lost then is
known to the receiver alone, so a ledger of QoS 0 must be compared with what arrived.

Choices, measured with CPython 3.11 on one core of two, 1,000 devices, a message a second each, QoS 1:

* A publish is a task of its own, because a publish that is not acknowledged keeps waiting (a late PUBACK counts)
  while the next one is made. A long-lived task a device, fed by a queue, costs the same: 0.16 ms a message either
  way, nearly all of it paho's and aiomqtt's. With everything here it is 0.17 ms, and the 99th percentile of being
  late is 1.2 ms. aiomqtt's own timeout is not used: it would be a second task a message.
* One timer for all devices, set for when something is due.
* aiomqtt looks after each connection once a second, 13 µs each time, or 6 % of a core for 5,000 connections. Here
  that is done a few times within the keep-alive time, which is what it is for. A connection takes 18 KB.
* A client is used for one connection. paho keeps what was not acknowledged and would publish it again on its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
import threading
from collections.abc import Callable

import aiomqtt
import paho.mqtt.client as paho

from producers.device import MAX_UNACKNOWLEDGED, Device, Publish
from producers.device_producer import DeviceProducer
from producers.errors import ProducerError

_log = logging.getLogger(__name__)
_log.setLevel(logging.WARNING)
# What happens to connections is in the statistics; nobody wants a line on stderr for each of thousands.
_log.addHandler(logging.NullHandler())

_GRACE_S = 0.5
"""How long a client waits for its DISCONNECT to leave."""
_LEAVING_TOGETHER = 100
_BROKER_UNWELL = (3, 136, 137)
"""Server unavailable (MQTT 3.1.1, and as paho translates it), server busy: not the client's fault."""


class MqttProducer(DeviceProducer):
    """Publishes with ``aiomqtt``. For parameters and errors see :class:`DeviceProducer`."""

    def _prepare(self) -> None:
        self._context = self.tls.context(self.broker) if self.broker.tls else None
        self._clients: dict[Device, _Client] = {}
        self._lives: dict[Device, asyncio.Task[None]] = {}
        # Tasks of connections and publishes that may still be on their way out.
        self._ends: set[asyncio.Task[None]] = set()

    def _connect(self, device: Device) -> None:
        life = asyncio.get_running_loop().create_task(
            self._live(device), name=f"MQTT connection {self.client_ids[device.key]}"
        )
        self._lives[device] = life
        life.add_done_callback(self._life_done)

    def _life_done(self, life: asyncio.Task[None]) -> None:
        if not life.cancelled() and (error := life.exception()) is not None:
            self._fail(error)

    async def _live(self, device: Device) -> None:
        """One connection, from CONNECT to its end."""
        client = self._client(device)
        try:
            try:
                await client.__aenter__()
            except aiomqtt.MqttCodeError as error:
                code, status = _reason(error)
                self._connect_failed(device, f"CONNECT was refused: {code}", self._refusal(device, code, status))
                return
            except (aiomqtt.MqttError, OSError, ValueError) as error:
                problem = "no CONNACK came" if str(error) == "Operation timed out" else str(error)
                self._connect_failed(device, problem, self._unreachable(problem))
                return
            if self._stopping:
                await client.leave()
                return
            self._clients[device] = client
            self._connected(device)
            problem = "the connection ended"
            try:
                # Nothing is subscribed to: this is how aiomqtt tells that the connection ended.
                async for _ in client.messages:
                    pass
            except aiomqtt.MqttError as error:
                problem = str(error.__cause__ or error)
            if self._clients.get(device) is client:
                del self._clients[device]
                self._disconnected(device, f"device {device.key!r}: {problem}")
        finally:
            client.drop()
            if self._lives.get(device) is asyncio.current_task():
                del self._lives[device]

    def _refusal(self, device: Device, code: str, status: int) -> ProducerError:
        if status in _BROKER_UNWELL:
            return self._unreachable(code)
        return self._refused(device, code, status)

    def _client(self, device: Device) -> _Client:
        will = self._wills.get(device.key)
        broker = self.broker
        return _Client(
            broker.host,
            broker.port,
            logger=_log,
            identifier=self.client_ids[device.key],
            username=self._username,
            password=self._password,
            will=aiomqtt.Will(will.topic, will.payload, will.qos, will.retain) if will else None,
            clean_session=self._clean_session,
            transport="websockets" if broker.websocket else "tcp",
            websocket_path=broker.path if broker.websocket else None,
            timeout=self._connect_timeout_s,
            keepalive=self._keep_alive_s,
            max_inflight_messages=MAX_UNACKNOWLEDGED,
            tls_context=self._context,
        )

    def _publish(self, one: Publish) -> None:
        client = self._clients.get(one.device)
        if client is None:
            return
        task = asyncio.get_running_loop().create_task(self._send(client, one))
        client.sends.add(task)
        task.add_done_callback(client.sends.discard)

    async def _send(self, client: _Client, one: Publish) -> None:
        self._fleet.departed(one, self._clock())
        try:
            await client.publish(one.device.topic, one.record.data, self.qos, timeout=math.inf)
        except aiomqtt.MqttError as error:
            # The connection is about to be found dead; if it is not, the acknowledgement's timer goes off.
            self._fleet.last_problem = str(error)
        except Exception as error:
            self._fail(error)
        else:
            self._acked(one)

    def _drop(self, device: Device) -> None:
        client = self._clients.pop(device, None)
        if client is not None:
            client.drop()
        life = self._lives.pop(device, None)
        if life is not None:
            life.cancel()
            self._ends.add(life)
            life.add_done_callback(self._ends.discard)

    async def _leave(self) -> None:
        clients = list(self._clients.values())
        self._clients.clear()
        for start in range(0, len(clients), _LEAVING_TOGETHER):
            together = clients[start : start + _LEAVING_TOGETHER]
            await asyncio.gather(*(client.leave() for client in together))

    async def _shut_down(self) -> None:
        tasks = [*self._lives.values(), *self._ends]
        for device in list(self._lives):
            self._drop(device)
        if tasks:
            await asyncio.wait(tasks, timeout=_GRACE_S)
        # For the tasks within aiomqtt that were cancelled just now.
        for _ in range(3):
            await asyncio.sleep(0)


class _Client(aiomqtt.Client):
    """aiomqtt's client, with two changes: it can be dropped in any state, and it is looked after less often.

    aiomqtt keeps the socket, its reader and a task when the CONNACK never comes or when connecting is cancelled;
    thousands of devices that meet a broker in trouble would leak as many sockets. The attributes with underscores
    that are used here are aiomqtt's and paho's own.
    """

    _in_thread = False
    _dropped = False

    def __init__(self, *arguments: object, **settings: object) -> None:
        super().__init__(*arguments, **settings)  # type: ignore[arg-type]
        self._gate = threading.Lock()
        self.sends: set[asyncio.Task[None]] = set()
        self.pending_calls_threshold = 2 * MAX_UNACKNOWLEDGED
        self._client.connect_timeout = self.timeout
        self._sockets: list[socket.socket] = []
        for name in ("_create_socket_connection", "_ssl_wrap_socket"):
            setattr(self._client, name, self._remembering(getattr(self._client, name)))
        self._look_every_s = max(1.0, self._keepalive / 4)

    def _client_connect(self) -> None:
        """Runs in a thread, which nobody can cancel."""
        with self._gate:
            if self._dropped:
                raise OSError("the connection was given up")
            self._in_thread = True
        try:
            super()._client_connect()
        except BaseException:
            # paho leaves the socket of a failed WebSocket handshake to the garbage collector.
            for one in self._sockets:
                one.close()
            raise
        finally:
            self._sockets.clear()
            with self._gate:
                self._in_thread = False
                dropped = self._dropped
            if dropped:
                with contextlib.suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(self._close_socket)

    def _remembering(self, make: Callable[..., socket.socket]) -> Callable[..., socket.socket]:
        def made(*arguments: object) -> socket.socket:
            one = make(*arguments)
            self._sockets.append(one)
            return one

        return made

    def _on_disconnect(  # type: ignore[no-untyped-def]
        self, client, userdata, flags, reason_code, properties=None
    ) -> None:
        """aiomqtt waits for a CONNACK to the end of its timeout, also when the broker closed the connection."""
        if not self._connected.done() and not self._dropped:
            self._connected.set_exception(
                aiomqtt.MqttError(
                    "the broker closed the connection instead of sending CONNACK; does it want another "
                    "certificate, or does its policy forbid this client id?"
                )
            )
        super()._on_disconnect(client, userdata, flags, reason_code, properties)

    async def _misc_loop(self) -> None:
        while self._client.loop_misc() == paho.MQTT_ERR_SUCCESS:
            await asyncio.sleep(self._look_every_s)

    async def leave(self) -> None:
        """Send DISCONNECT, so that the broker does not publish the will."""
        self.timeout = _GRACE_S
        with contextlib.suppress(aiomqtt.MqttError):
            await self.__aexit__(None, None, None)

    def drop(self) -> None:
        """Close the socket now and forget what is not acknowledged."""
        with self._gate:
            self._dropped = True
            if not self._in_thread:
                # After the callbacks that register the socket with the loop, if they are still to come.
                self._loop.call_soon(self._close_socket)
        for task in self.sends:
            task.cancel()

    def _close_socket(self) -> None:
        self._client._sock_close()


def _reason(error: aiomqtt.MqttCodeError) -> tuple[str, int]:
    """Name and number of a CONNACK's return code."""
    reason = error.rc
    if isinstance(reason, int):
        return paho.connack_string(reason), reason
    return str(reason), reason.value if reason is not None else -1
