"""MQTT 3.1.1 and MQTT 5 packets, as a broker reads and writes them. No I/O.

:class:`Framer` cuts a byte stream into packets; the ``read_...`` functions take a packet's body apart, the
``..._packet`` functions build what a broker sends. Sections in comments are those of the OASIS standards, which both
give the same numbers to the same packets.

The codec is written here because IoT Core's limits are decisions about single packets (which to leave unacknowledged,
which to refuse with which code), and no kept package gives the bare packets of both versions without a client or a
broker around them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from struct import Struct
from typing import Final

from simulator.cloud.mqtt_properties import (
    NO_PROPERTIES,
    SUBSCRIPTION_ID,
    WILL_DELAY,
    MqttError,
    Properties,
    Reader,
    Reason,
    pack_properties,
    read_properties,
    text_of,
    varint,
)

V311: Final = 4
V5: Final = 5

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = range(1, 8)
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT, AUTH = range(8, 16)

PINGRESP_PACKET: Final = bytes((PINGRESP << 4, 0))
MAX_REMAINING_BYTES: Final = 268_435_455
"""The largest length that a fixed header can tell (2.2.3)."""

_SHORT = Struct("!H")
_LONG = Struct("!I")


class Framer:
    """Cuts what arrives into packets. Holds at most one incomplete packet of ``max_packet_bytes``."""

    __slots__ = ("_rest", "max_packet_bytes")

    def __init__(self, max_packet_bytes: int) -> None:
        self.max_packet_bytes = max_packet_bytes
        self._rest = b""

    @property
    def buffered_bytes(self) -> int:
        return len(self._rest)

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """``(first byte, body)`` of every packet that is complete with ``data``.

        :raises MqttError: a length that no packet can have, or one above ``max_packet_bytes``, before it is buffered.
        """
        buffer = self._rest + data if self._rest else data
        self._rest = b""
        at, size = 0, len(buffer)
        while size - at >= 2:
            length = buffer[at + 1]
            start = at + 2
            if length & 0x80:
                length &= 0x7F
                shift = 7
                while True:
                    if shift > 21:
                        raise MqttError("the remaining length has more than four bytes")
                    if start >= size:
                        self._rest = buffer[at:]
                        return
                    byte = buffer[start]
                    start += 1
                    length |= (byte & 0x7F) << shift
                    if not byte & 0x80:
                        break
                    shift += 7
            if start - at + length > self.max_packet_bytes:
                raise MqttError(f"a packet of {start - at + length} bytes", Reason.PACKET_TOO_LARGE)
            end = start + length
            if end > size:
                break
            yield buffer[at], buffer[start:end]
            at = end
        self._rest = buffer[at:] if at else buffer


# -- from clients --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Will:
    """The message that a broker sends for a client that is gone. ``delay_s`` is MQTT 5's Will Delay Interval."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    delay_s: int = 0
    properties: Properties = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Connect:
    """CONNECT (3.1). ``version`` is :data:`V311` or :data:`V5`; ``clean`` is Clean Session or Clean Start."""

    version: int
    client_id: str
    clean: bool
    keep_alive_s: int
    will: Will | None
    username: str | None
    properties: Properties


def read_connect(body: bytes) -> Connect:
    """:raises MqttError: with UNSUPPORTED_VERSION for another protocol than MQTT 3.1.1 or 5."""
    reader = Reader(body)
    name, version = reader.text(), reader.byte()
    if name != "MQTT" or version not in (V311, V5):
        raise MqttError(f"protocol {name!r} level {version}", Reason.UNSUPPORTED_VERSION)
    flags = reader.byte()
    if flags & 1:
        raise MqttError("the reserved flag of CONNECT is set")
    has_will, will_qos, will_retain = bool(flags & 4), flags >> 3 & 3, bool(flags & 32)
    if will_qos == 3 or (not has_will and (will_qos or will_retain)):
        raise MqttError("the will flags of CONNECT contradict one another")
    if version == V311 and flags & 64 and not flags & 128:
        raise MqttError("a password without a user name")
    keep_alive_s = reader.short()
    properties = read_properties(reader) if version == V5 else NO_PROPERTIES
    client_id = reader.text()
    will = None
    if has_will:
        will_properties = read_properties(reader) if version == V5 else NO_PROPERTIES
        topic, payload = reader.text(), reader.binary()
        will = Will(topic, payload, will_qos, will_retain, will_properties.get(WILL_DELAY, 0), will_properties)
    username = reader.text() if flags & 128 else None
    if flags & 64:
        reader.binary()
    if not reader.is_at_end:
        raise MqttError("CONNECT is longer than its fields")
    return Connect(version, client_id, bool(flags & 2), keep_alive_s, will, username, properties)


@dataclass(frozen=True, slots=True)
class Publish:
    """PUBLISH (3.3). ``packet_id`` is 0 at QoS 0; ``topic`` is empty when MQTT 5 sends an alias alone."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    packet_id: int
    properties: Properties = field(default_factory=dict)


def read_publish(first: int, body: bytes, version: int) -> Publish:
    """:raises MqttError: malformed. QoS 2 is read like QoS 1; what to do with it is the broker's matter."""
    qos = first >> 1 & 3
    if qos == 3:
        raise MqttError("QoS 3")
    if len(body) < 2:
        raise MqttError("the packet ends too early")
    at = 2 + (body[0] << 8 | body[1])
    if at > len(body):
        raise MqttError("the packet ends too early")
    topic = text_of(body[2:at])
    packet_id = 0
    if qos:
        if at + 2 > len(body):
            raise MqttError("the packet ends too early")
        packet_id = body[at] << 8 | body[at + 1]
        at += 2
        if not packet_id:
            raise MqttError("packet identifier 0", Reason.PROTOCOL_ERROR)
    properties = NO_PROPERTIES
    if version == V5:
        reader = Reader(body, at)
        properties = read_properties(reader)
        at = reader.at
    return Publish(topic, body[at:], qos, bool(first & 1), packet_id, properties)


def read_puback(body: bytes) -> int:
    """The packet identifier; what else MQTT 5 says changes nothing for a broker."""
    return Reader(body).short()


@dataclass(frozen=True, slots=True)
class Filter:
    """One topic filter of SUBSCRIBE (3.8.3) with its options; the last three are MQTT 5's."""

    topic_filter: str
    qos: int
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0


@dataclass(frozen=True, slots=True)
class Subscribe:
    packet_id: int
    filters: tuple[Filter, ...]
    subscription_id: int | None = None


def read_subscribe(first: int, body: bytes, version: int) -> Subscribe:
    """:raises MqttError: malformed, or without a filter."""
    reader = _acknowledged(first, body)
    packet_id = reader.short()
    properties = read_properties(reader) if version == V5 else NO_PROPERTIES
    filters = []
    while not reader.is_at_end:
        topic_filter, options = reader.text(), reader.byte()
        if options & 3 == 3 or options & (0xC0 if version == V5 else 0xFC):
            raise MqttError("subscription options that do not exist")
        handling = options >> 4 & 3
        if handling == 3:
            raise MqttError("Retain Handling 3", Reason.PROTOCOL_ERROR)
        filters.append(Filter(topic_filter, options & 3, bool(options & 4), bool(options & 8), handling))
    if not filters or not packet_id:
        raise MqttError("a SUBSCRIBE without a topic filter or packet identifier", Reason.PROTOCOL_ERROR)
    identifiers = properties.get(SUBSCRIPTION_ID)
    return Subscribe(packet_id, tuple(filters), identifiers[0] if identifiers else None)


def read_unsubscribe(first: int, body: bytes, version: int) -> tuple[int, tuple[str, ...]]:
    """The packet identifier and the filters. :raises MqttError:"""
    reader = _acknowledged(first, body)
    packet_id = reader.short()
    if version == V5:
        read_properties(reader)
    filters = []
    while not reader.is_at_end:
        filters.append(reader.text())
    if not filters or not packet_id:
        raise MqttError("an UNSUBSCRIBE without a topic filter or packet identifier", Reason.PROTOCOL_ERROR)
    return packet_id, tuple(filters)


def _acknowledged(first: int, body: bytes) -> Reader:
    if first & 0x0F != 2:
        raise MqttError("the flags of the fixed header must be 2")
    return Reader(body)


def read_disconnect(body: bytes, version: int) -> tuple[int, Properties]:
    """Reason code and properties of DISCONNECT (3.14), which only MQTT 5 has."""
    if version != V5 or not body:
        return Reason.SUCCESS, NO_PROPERTIES
    reader = Reader(body)
    reason = reader.byte()
    return reason, NO_PROPERTIES if reader.is_at_end else read_properties(reader)


def _packet(first: int, body: bytes) -> bytes:
    return bytes((first,)) + varint(len(body)) + body


# -- to clients ----------------------------------------------------------------------------------------

CONNACK_V311: Final[Mapping[int, int]] = {
    Reason.SUCCESS: 0,
    Reason.UNSUPPORTED_VERSION: 1,
    Reason.CLIENT_ID_INVALID: 2,
    Reason.NOT_AUTHORIZED: 5,
}
"""MQTT 3.1.1's return code for a reason (3.2.2.3); 3, server unavailable, for all others."""


def connack_packet(
    version: int, reason: int, *, session_present: bool = False, properties: Properties = NO_PROPERTIES
) -> bytes:
    """CONNACK (3.2)."""
    if version == V311:
        return bytes((CONNACK << 4, 2, session_present, CONNACK_V311.get(reason, 3)))
    return _packet(CONNACK << 4, bytes((session_present, reason)) + pack_properties(properties))


def publish_packet(
    version: int,
    topic: bytes,
    payload: bytes,
    *,
    qos: int = 0,
    packet_id: int = 0,
    retain: bool = False,
    dup: bool = False,
    properties: Properties = NO_PROPERTIES,
) -> bytes:
    """PUBLISH (3.3); ``topic`` is UTF-8."""
    head = _SHORT.pack(len(topic)) + topic
    if qos:
        head += _SHORT.pack(packet_id)
    if version == V5:
        head += pack_properties(properties) if properties else b"\0"
    first = PUBLISH << 4 | dup << 3 | qos << 1 | retain
    return b"".join((bytes((first,)), varint(len(head) + len(payload)), head, payload))


def puback_packet(version: int, packet_id: int, reason: int = Reason.SUCCESS) -> bytes:
    """PUBACK (3.4)."""
    if reason and version == V5:
        return bytes((PUBACK << 4, 3, packet_id >> 8, packet_id & 0xFF, reason))
    return bytes((PUBACK << 4, 2, packet_id >> 8, packet_id & 0xFF))


def suback_packet(version: int, packet_id: int, codes: list[int]) -> bytes:
    """SUBACK (3.9); ``codes`` are granted QoS or reasons, of which MQTT 3.1.1 knows 0x80 alone."""
    if version == V311:
        return _packet(SUBACK << 4, _SHORT.pack(packet_id) + bytes(min(code, 0x80) for code in codes))
    return _packet(SUBACK << 4, _SHORT.pack(packet_id) + b"\0" + bytes(codes))


def unsuback_packet(version: int, packet_id: int, codes: list[int]) -> bytes:
    """UNSUBACK (3.11); MQTT 3.1.1's has no codes."""
    if version == V311:
        return _packet(UNSUBACK << 4, _SHORT.pack(packet_id))
    return _packet(UNSUBACK << 4, _SHORT.pack(packet_id) + b"\0" + bytes(codes))


def disconnect_packet(reason: int) -> bytes:
    """DISCONNECT from a broker (3.14), which only MQTT 5 has."""
    return bytes((DISCONNECT << 4, 2, reason, 0))
