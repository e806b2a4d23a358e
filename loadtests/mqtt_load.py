"""A lean MQTT 3.1.1 load: bytes prepared beforehand over many connections, so that the broker is what is measured.

The load generators of the field are written in C, Go or Erlang and are not on every machine; this one is asyncio on
uvloop and offers a few hundred thousand messages a second from one core, which is more than any broker here takes.
"""

from __future__ import annotations

import asyncio
import struct
import time
from dataclasses import dataclass, field
from functools import partial

import numpy as np

TOPIC = "alleycat-publish"
PAYLOAD_BYTES = 170
WINDOW = 50
"""Unacknowledged messages of a connection at QoS 1; IoT Core allows 100."""


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("!H", len(data)) + data


def packet(first: int, body: bytes) -> bytes:
    length, out = len(body), bytearray((first,))
    while True:
        length, byte = length >> 7, length & 0x7F
        out.append(byte | 0x80 if length else byte)
        if not length:
            return bytes(out) + body


def connect(client_id: str) -> bytes:
    return packet(0x10, text("MQTT") + bytes((4, 2)) + struct.pack("!H", 60) + text(client_id))


def publish(payload: bytes, qos: int, packet_id: int = 1) -> bytes:
    head = text(TOPIC) + (struct.pack("!H", packet_id) if qos else b"")
    return packet(0x30 | qos << 1, head + payload)


class _Flood(asyncio.Protocol):
    """Sends ``count`` messages as fast as they are taken; ``done`` is set when the broker has had them all."""

    def __init__(self, client_id: str, qos: int, count: int) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._client_id, self._qos, self._count = client_id, qos, count
        self._messages = [publish(b"x" * PAYLOAD_BYTES, qos, number) for number in range(1, WINDOW + 1)]
        self._sent = self._acknowledged_bytes = 0
        self._is_connected = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._write(connect(self._client_id))

    def _write(self, data: bytes) -> None:
        self._transport.write(data)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        if not self._is_connected:
            self._is_connected = True
            if self._qos:
                self._push()
            else:
                # The answer to a ping behind them all says that they were read.
                self._write(self._messages[0] * self._count + b"\xc0\x00")
            return
        if self._qos:
            self._acknowledged_bytes += len(data)
            if self._acknowledged_bytes < 4 * self._count:
                self._push()
                return
        if not self.done.done():
            self.done.set_result(None)

    def _push(self) -> None:
        room = min(WINDOW - (self._sent - self._acknowledged_bytes // 4), self._count - self._sent)
        start = self._sent % WINDOW
        chosen = (self._messages * 2)[start : start + max(0, room)]
        self._sent += len(chosen)
        self._write(b"".join(chosen))

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(ConnectionError(f"the broker closed the connection: {error}"))


async def flood(port: int, qos: int, messages: int, connections: int = 50) -> float:
    """Messages a second that the broker on ``port`` took. :raises OSError:"""
    loop = asyncio.get_running_loop()
    made = [
        await loop.create_connection(partial(_Flood, f"flood-{n}", qos, messages // connections), "127.0.0.1", port)
        for n in range(connections)
    ]
    # Connections were started one after the other; what is timed begins with the first message all the same.
    began = time.perf_counter()
    await asyncio.gather(*(protocol.done for _, protocol in made))
    taken = time.perf_counter() - began
    for transport, _ in made:
        transport.close()
    return messages / taken


@dataclass(slots=True)
class _Times:
    """When the subscriber had each message, from the time that its payload tells."""

    latencies_ms: list[float] = field(default_factory=list)


class _Subscriber(asyncio.Protocol):
    def __init__(self, times: _Times) -> None:
        self._times, self._rest = times, b""
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        transport.write(connect("subscriber"))  # type: ignore[attr-defined]
        transport.write(packet(0x82, struct.pack("!H", 1) + text(TOPIC) + b"\0"))  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        data = self._rest + data
        at = 0
        while len(data) - at >= 2:
            length, start, shift = 0, at + 1, 0
            while start < len(data) and data[start] & 0x80:
                length |= (data[start] & 0x7F) << shift
                start, shift = start + 1, shift + 7
            if start >= len(data):
                break
            length |= data[start] << shift
            start += 1
            if start + length > len(data):
                break
            if data[at] >> 4 == 3:
                (sent,) = struct.unpack("!d", data[start + length - PAYLOAD_BYTES : start + length - PAYLOAD_BYTES + 8])
                self._times.latencies_ms.append((now - sent) * 1000)
            elif data[at] >> 4 == 9 and not self.ready.done():
                self.ready.set_result(None)
            at = start + length
        self._rest = data[at:]


class _Sender(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Acknowledgements are not looked at."""


async def ride(port: int, qos: int, connections: int, seconds: int) -> tuple[float, float, int]:
    """``connections`` at one message a second, spread over it, to one subscriber.

    :returns: p50 and p99 in ms from the write of a publish to its arrival at the subscriber, and how many arrived.
    """
    loop = asyncio.get_running_loop()
    times = _Times()
    transport, subscriber = await loop.create_connection(lambda: _Subscriber(times), "127.0.0.1", port)
    await subscriber.ready
    senders = []
    for number in range(connections):
        sender, _ = await loop.create_connection(_Sender, "127.0.0.1", port)
        sender.write(connect(f"ride-{number}"))
        senders.append(sender)
    await asyncio.sleep(1.0)
    rest = b"x" * (PAYLOAD_BYTES - 8)
    began = loop.time()
    for step in range(seconds * connections):
        wait_s = began + step / connections - loop.time()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        body = struct.pack("!d", time.perf_counter()) + rest
        senders[step % connections].write(publish(body, qos, step // connections % 0xFFFF + 1))
    await asyncio.sleep(0.5)
    for sender in (*senders, transport):
        sender.close()
    found = np.array(times.latencies_ms)
    return float(np.percentile(found, 50)), float(np.percentile(found, 99)), len(found)
