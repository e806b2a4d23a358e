"""The MQTT client of a load test: Locust's, driven by gevent's hub instead of a thread of its own.

paho's thread waits in ``select`` and is woken for each publish; under gevent that is two switches, a new selector and
a socket pair for every message. Here a publish writes itself, the hub calls when there is something to read, and what
has arrived is read at once. A second of CPU sends 13,000 to 16,000 messages at QoS 1 over 1 to 200 connections and
10,000 over 2,000, with measurements and Locust's statistics (CPython 3.11, two cores, the other for the broker).
"""

from __future__ import annotations

import socket
from typing import Any

import gevent
import paho.mqtt.client as paho
from locust.contrib.mqtt import MqttClient
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from simulator.cloud import limits

KEEP_ALIVE_S = int(limits.IOT_KEEP_ALIVE_MIN_SECONDS)
_READ_BYTES = 65_536


class BikerClient(MqttClient):
    """Locust's client without its thread, its window and its own bookkeeping.

    paho looks at the socket whenever gevent's hub says that it can be read, so nothing called from here may wait.
    The attributes with underscores are paho's own, as in Locust's client: no public call forgets a single message.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        settings.update(callback_api_version=CallbackAPIVersion.VERSION2, reconnect_on_failure=False)
        super().__init__(*arguments, **settings)
        self.max_inflight_messages = 0
        self.on_socket_open = self._watch
        self.on_socket_close = self._unwatch
        self._watcher: Any = None
        self._buffer, self._at, self._is_drained = b"", 0, False
        self.late_pubacks = 0
        """PUBACKs of messages that had been given up."""
        self._is_plain = self.transport == "tcp"

    def connect_async(self, host: str, port: int = 1883, *_: Any, **__: Any) -> None:
        """As the constructor of Locust's user calls it."""
        self.connect_timeout = self.environment.alleycat.settings.timeout_s  # type: ignore[attr-defined]
        super().connect_async(host, port, keepalive=KEEP_ALIVE_S)

    def loop_start(self) -> MQTTErrorCode:
        """No thread: the hub does what it would do."""
        return paho.MQTT_ERR_SUCCESS

    def publish(self, topic: str, payload: Any = None, qos: int = 0, *_: Any, **__: Any) -> paho.MQTTMessageInfo:
        """Write a message to the socket, or into the queue of a socket that is full. Fires no event."""
        return paho.Client.publish(self, topic, payload, qos)

    def forget(self, packet_id: int) -> None:
        """Do not publish a message again after a reconnect, and let its id be used again."""
        if self._out_messages.pop(packet_id, None) is not None:
            self._inflight_messages -= 1

    def read(self) -> None:
        """Handle all packets that have arrived."""
        self._is_drained = False
        while self.loop_read() == paho.MQTT_ERR_SUCCESS and self._has_unread():
            pass

    def drop(self) -> None:
        """Close the socket now, without a DISCONNECT."""
        self._sock_close()

    def _has_unread(self) -> bool:
        """Bytes that the hub does not know of, because they have left the kernel."""
        pending = getattr(self._sock, "pending", None)
        return self._at < len(self._buffer) or (pending is not None and pending() > 0)

    def _sock_recv(self, bufsize: int) -> bytes:
        """paho reads a PUBACK in three calls; here all that has arrived comes in one."""
        if not self._is_plain:
            return super()._sock_recv(bufsize)
        if self._at >= len(self._buffer):
            if self._is_drained:
                raise BlockingIOError
            self._buffer, self._at = super()._sock_recv(_READ_BYTES), 0
            # TLS hands out records, so that only a plain socket is empty after less than was asked for.
            self._is_drained = 0 < len(self._buffer) < _READ_BYTES and self._ssl_context is None
        start = self._at
        self._at = start + bufsize
        return self._buffer[start : self._at]

    def _handle_pubackcomp(self, cmd: Any) -> MQTTErrorCode:
        if int.from_bytes(self._in_packet["packet"][:2], "big") not in self._out_messages:
            self.late_pubacks += 1
        return super()._handle_pubackcomp(cmd)

    def _watch(self, client: Any, userdata: Any, sock: Any) -> None:
        self._buffer, self._at = b"", 0
        # A discarded message is not answered, and the next one would wait 40 ms for TCP's delayed acknowledgement.
        getattr(sock, "_socket", sock).setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._watcher = gevent.get_hub().loop.io(sock.fileno(), 1)
        self._watcher.start(self.read)

    def _unwatch(self, client: Any, userdata: Any, sock: Any) -> None:
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None
