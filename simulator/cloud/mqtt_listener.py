"""Sockets under the embedded IoT Core: TCP, TLS with client certificates, and WebSocket.

Each gives a :class:`~simulator.cloud.mqtt_connection.Connection` what arrives and the time. Everything runs on the
event loop of the process, so the broker needs no lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulator.cloud import limits
from simulator.cloud.mqtt_broker import Broker
from simulator.cloud.mqtt_connection import Connection
from simulator.cloud.mqtt_properties import Reason

DEFAULT_PORT = 1883
CHECK_INTERVAL_S = 0.1
CHECK_PARTS = 10
"""Connections are looked at in so many parts, one an interval, so that 10,000 of them never hold up the loop."""
SUBPROTOCOLS = ("mqtt", "mqttv3.1", "mqttv3.1.1")


class ListenError(Exception):
    """The port cannot be had, or a certificate is of no use; one line that says what to do."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of a listener that wants client certificates signed by ``ca``."""

    port: int
    certificate: str
    key: str
    ca: str

    def context(self) -> ssl.SSLContext:
        """:raises ListenError:"""
        for file in (self.certificate, self.key, self.ca):
            if not Path(file).is_file():
                raise ListenError(f"there is no file {file}; TLS needs a certificate, its key and the CA of clients")
        try:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.ca)
            context.load_cert_chain(self.certificate, self.key)
        except (ssl.SSLError, OSError) as error:
            raise ListenError(f"{self.certificate}, {self.key}, {self.ca}: {error}") from None
        context.verify_mode = ssl.CERT_REQUIRED
        with contextlib.suppress(NotImplementedError):
            context.set_alpn_protocols(["x-amzn-mqtt-ca", "mqtt"])
        return context


class Listener:
    """The broker's sockets. :meth:`open` any number of ports, :meth:`close` all of them."""

    def __init__(self, broker: Broker, clock: Callable[[], float] = time.time) -> None:
        self.broker = broker
        self.clock = clock
        self.connections: dict[Connection, None] = {}
        self._servers: list[asyncio.Server] = []
        self._checking: asyncio.Task[None] | None = None

    async def open(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Listen; the port that it became. :raises ListenError: when it cannot be had."""
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(lambda: _Tcp(self), host, port, ssl=tls, backlog=4096)
        except OSError as error:
            raise ListenError(
                f"cannot listen for MQTT on {host}:{port} ({error.strerror or error}); stop what listens there, or "
                "choose another with --mqtt-port (0 takes a free one)"
            ) from None
        self._servers.append(server)
        self.start()
        return int(server.sockets[0].getsockname()[1])

    def start(self) -> None:
        """Begin to look after connections; for those that come by WebSocket, without a port."""
        if self._checking is None:
            self._checking = asyncio.get_running_loop().create_task(self._check(), name="alleycat-mqtt")

    def close(self) -> None:
        """Stop listening and drop every connection."""
        if self._checking is not None:
            self._checking.cancel()
        for server in self._servers:
            server.close()
        for connection in list(self.connections):
            connection.abandon()

    async def _check(self) -> None:
        part = 0
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            now = self.clock()
            part = (part + 1) % CHECK_PARTS
            for connection in list(self.connections)[part::CHECK_PARTS]:
                connection.check(now)
            if not part:
                self.broker.tick(now)
            self.broker.flush(now)


class _Tcp(asyncio.Protocol):
    """One TCP or TLS connection."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._transport: Any = None
        self._connection: Connection | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        peer = transport.get_extra_info("peername")
        listener = self._listener
        self._connection = Connection(
            listener.broker,
            self,
            listener.clock(),
            principal=_principal(transport.get_extra_info("ssl_object")),
            address=str(peer[0]) if peer else "",
        )
        listener.connections[self._connection] = None

    def data_received(self, data: bytes) -> None:
        assert self._connection is not None
        now = self._listener.clock()
        self._connection.feed(data, now)
        self._listener.broker.flush(now)

    def connection_lost(self, error: Exception | None) -> None:
        assert self._connection is not None
        self._listener.connections.pop(self._connection, None)
        now = self._listener.clock()
        self._connection.lost(now)
        self._listener.broker.flush(now)

    # -- Link ------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def buffered_bytes(self) -> int:
        return int(self._transport.get_write_buffer_size())

    def close(self) -> None:
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def rest(self, seconds: float) -> None:
        with contextlib.suppress(RuntimeError):
            self._transport.pause_reading()
        asyncio.get_running_loop().call_later(seconds, self._rested)

    def _rested(self) -> None:
        assert self._connection is not None
        if self._transport.is_closing():
            return
        self._connection.rested(self._listener.clock())
        if not self._connection.is_resting:
            with contextlib.suppress(RuntimeError):
                self._transport.resume_reading()


def _principal(tls: Any) -> str:
    """The certificate's id: the SHA-256 of its DER form, as IoT Core names certificates."""
    certificate = tls.getpeercert(binary_form=True) if tls is not None else None
    return hashlib.sha256(certificate).hexdigest() if certificate else ""


class WebSocketLink:
    """An ASGI WebSocket as a transport: what is written is sent by one task, in order."""

    def __init__(self, send: Callable[[dict[str, Any]], Awaitable[None]], clock: Callable[[], float]) -> None:
        self.connection: Connection
        self.reading = asyncio.Event()
        self.reading.set()
        self._send, self._clock = send, clock
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._bytes = 0
        self._pumping: asyncio.Task[None] | None = None

    def start(self) -> asyncio.Task[None]:
        """Begin to send."""
        self._pumping = asyncio.create_task(self._pump(), name="alleycat-websocket")
        return self._pumping

    def write(self, data: bytes) -> None:
        self._bytes += len(data)
        self._queue.put_nowait(data)

    def buffered_bytes(self) -> int:
        return self._bytes

    def close(self) -> None:
        self._queue.put_nowait(None)

    def abort(self) -> None:
        # The task may be stuck in a send that the client never takes.
        if self._pumping is not None:
            self._pumping.cancel()

    def rest(self, seconds: float) -> None:
        self.reading.clear()
        asyncio.get_running_loop().call_later(seconds, self._rested)

    def _rested(self) -> None:
        self.connection.rested(self._clock())
        if not self.connection.is_resting:
            self.reading.set()

    async def _pump(self) -> None:
        """Send until the end, then close the socket."""
        while (data := await self._queue.get()) is not None:
            self._bytes -= len(data)
            await self._send({"type": "websocket.send", "bytes": data})
        await self._send({"type": "websocket.close", "code": 1000})


async def serve_websocket(
    listener: Listener,
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """MQTT over one ASGI WebSocket (subprotocol ``mqtt``), until either side ends it."""
    await receive()
    offered = [one for one in scope.get("subprotocols", ()) if one in SUBPROTOCOLS]
    if not offered:
        await send({"type": "websocket.close", "code": 1002})
        return
    await send({"type": "websocket.accept", "subprotocol": offered[0]})
    listener.start()
    link = WebSocketLink(send, listener.clock)
    client = scope.get("client")
    connection = link.connection = Connection(
        listener.broker,
        link,
        listener.clock(),
        address=str(client[0]) if client else "",
        lifetime_s=limits.IOT_WEBSOCKET_SECONDS.value,
    )
    listener.connections[connection] = None
    pump = link.start()
    try:
        while connection.is_open:
            await link.reading.wait()
            reading = asyncio.ensure_future(receive())
            # A client that we end may never send again.
            await asyncio.wait({reading, pump}, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                reading.cancel()
                break
            message = reading.result()
            if message["type"] != "websocket.receive":
                break
            now = listener.clock()
            data = message.get("bytes")
            # MQTT goes in binary frames; a text frame ends the connection (MQTT 6).
            if data is None:
                connection.end("CLIENT_ERROR", Reason.MALFORMED, now)
            else:
                connection.feed(bytes(data), now)
            listener.broker.flush(now)
    finally:
        listener.connections.pop(connection, None)
        now = listener.clock()
        connection.lost(now)
        listener.broker.flush(now)
        link.close()
        await asyncio.wait({pump}, timeout=1.0)
        pump.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await pump
