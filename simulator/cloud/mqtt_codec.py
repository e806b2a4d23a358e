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
from enum import IntEnum
from struct import Struct
from typing import Any, Final

V311: Final = 4
V5: Final = 5

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = range(1, 8)
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT, AUTH = range(8, 16)

PINGRESP_PACKET: Final = bytes((PINGRESP << 4, 0))
MAX_REMAINING_BYTES: Final = 268_435_455
"""The largest length that a fixed header can tell (2.2.3)."""

_SHORT = Struct("!H")
_LONG = Struct("!I")


class Reason(IntEnum):
    """MQTT 5's reason codes (2.4) that this broker sends or acts on."""

    SUCCESS = 0x00
    DISCONNECT_WITH_WILL = 0x04
    NO_SUBSCRIPTION = 0x11
    UNSPECIFIED = 0x80
    MALFORMED = 0x81
    PROTOCOL_ERROR = 0x82
    UNSUPPORTED_VERSION = 0x84
    CLIENT_ID_INVALID = 0x85
    NOT_AUTHORIZED = 0x87
    SERVER_BUSY = 0x89
    SHUTTING_DOWN = 0x8B
    KEEP_ALIVE_TIMEOUT = 0x8D
    TAKEN_OVER = 0x8E
    TOPIC_FILTER_INVALID = 0x8F
    TOPIC_NAME_INVALID = 0x90
    RECEIVE_MAXIMUM_EXCEEDED = 0x93
    TOPIC_ALIAS_INVALID = 0x94
    PACKET_TOO_LARGE = 0x95
    QUOTA_EXCEEDED = 0x97
    QOS_NOT_SUPPORTED = 0x9B
    MAXIMUM_CONNECT_TIME = 0xA0


class MqttError(Exception):
    """A packet that breaks the protocol or a limit: the connection ends with ``reason``."""

    def __init__(self, message: str, reason: Reason = Reason.MALFORMED) -> None:
        super().__init__(message)
        self.reason = reason


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


# -- fields --------------------------------------------------------------------------------------------


class _Reader:
    """Fields of a body, in order."""

    __slots__ = ("at", "body")

    def __init__(self, body: bytes, at: int = 0) -> None:
        self.body, self.at = body, at

    def byte(self) -> int:
        if self.at >= len(self.body):
            raise MqttError("the packet ends too early")
        self.at += 1
        return self.body[self.at - 1]

    def short(self) -> int:
        return self.byte() << 8 | self.byte()

    def long(self) -> int:
        return self.short() << 16 | self.short()

    def take(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self.body):
            raise MqttError("the packet ends too early")
        found = self.body[self.at : end]
        self.at = end
        return found

    def binary(self) -> bytes:
        return self.take(self.short())

    def text(self) -> str:
        return text_of(self.binary())

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if not byte & 0x80:
                return value
            shift += 7
            if shift > 21:
                raise MqttError("a variable byte integer has more than four bytes")

    @property
    def is_at_end(self) -> bool:
        return self.at >= len(self.body)


def text_of(data: bytes) -> str:
    """:raises MqttError: not UTF-8, or with the NUL that 1.5.3 forbids."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise MqttError("a string is not UTF-8") from None
    if "\0" in text:
        raise MqttError("a string has a NUL character")
    return text


def varint(value: int) -> bytes:
    """A variable byte integer (1.5.5)."""
    if value < 128:
        return bytes((value,))
    out = bytearray()
    while True:
        value, byte = value >> 7, value & 0x7F
        if value:
            out.append(byte | 0x80)
        else:
            out.append(byte)
            return bytes(out)


def _text(value: str) -> bytes:
    data = value.encode()
    return _SHORT.pack(len(data)) + data


def _packet(first: int, body: bytes) -> bytes:
    return bytes((first,)) + varint(len(body)) + body


# -- MQTT 5 properties (2.2.2) -------------------------------------------------------------------------

PAYLOAD_FORMAT, MESSAGE_EXPIRY, CONTENT_TYPE, RESPONSE_TOPIC, CORRELATION_DATA = 0x01, 0x02, 0x03, 0x08, 0x09
SUBSCRIPTION_ID, SESSION_EXPIRY, ASSIGNED_CLIENT_ID, SERVER_KEEP_ALIVE = 0x0B, 0x11, 0x12, 0x13
AUTH_METHOD, AUTH_DATA, REQUEST_PROBLEM, WILL_DELAY, REQUEST_RESPONSE = 0x15, 0x16, 0x17, 0x18, 0x19
RESPONSE_INFO, SERVER_REFERENCE, REASON_STRING, RECEIVE_MAXIMUM = 0x1A, 0x1C, 0x1F, 0x21
TOPIC_ALIAS_MAXIMUM, TOPIC_ALIAS, MAXIMUM_QOS, RETAIN_AVAILABLE, USER_PROPERTY = 0x22, 0x23, 0x24, 0x25, 0x26
MAXIMUM_PACKET_SIZE, WILDCARD_AVAILABLE, SUBSCRIPTION_ID_AVAILABLE, SHARED_AVAILABLE = 0x27, 0x28, 0x29, 0x2A

_BYTES = frozenset(
    {
        PAYLOAD_FORMAT,
        REQUEST_PROBLEM,
        REQUEST_RESPONSE,
        MAXIMUM_QOS,
        RETAIN_AVAILABLE,
        WILDCARD_AVAILABLE,
        SUBSCRIPTION_ID_AVAILABLE,
        SHARED_AVAILABLE,
    }
)
_SHORTS = frozenset({SERVER_KEEP_ALIVE, RECEIVE_MAXIMUM, TOPIC_ALIAS_MAXIMUM, TOPIC_ALIAS})
_LONGS = frozenset({MESSAGE_EXPIRY, SESSION_EXPIRY, WILL_DELAY, MAXIMUM_PACKET_SIZE})
_TEXTS = frozenset(
    {
        CONTENT_TYPE,
        RESPONSE_TOPIC,
        ASSIGNED_CLIENT_ID,
        AUTH_METHOD,
        RESPONSE_INFO,
        SERVER_REFERENCE,
        REASON_STRING,
    }
)
_BINARIES = frozenset({CORRELATION_DATA, AUTH_DATA})

Properties = Mapping[int, Any]
"""By identifier. USER_PROPERTY is a list of (name, value), SUBSCRIPTION_ID a list of numbers."""
NO_PROPERTIES: Final[Properties] = {}


def _properties(reader: _Reader) -> Properties:
    length = reader.varint()
    if not length:
        return NO_PROPERTIES
    part = _Reader(reader.take(length))
    found: dict[int, Any] = {}
    while not part.is_at_end:
        name = part.varint()
        value: Any
        if name == USER_PROPERTY:
            found.setdefault(name, []).append((part.text(), part.text()))
            continue
        if name == SUBSCRIPTION_ID:
            found.setdefault(name, []).append(part.varint())
            continue
        if name in _BYTES:
            value = part.byte()
        elif name in _SHORTS:
            value = part.short()
        elif name in _LONGS:
            value = part.long()
        elif name in _TEXTS:
            value = part.text()
        elif name in _BINARIES:
            value = part.binary()
        else:
            raise MqttError(f"there is no property {name:#04x}")
        if name in found:
            raise MqttError(f"property {name:#04x} is there twice", Reason.PROTOCOL_ERROR)
        found[name] = value
    return found


def _pack_properties(properties: Properties) -> bytes:
    out = bytearray()
    for name, value in properties.items():
        for one in value if name in (USER_PROPERTY, SUBSCRIPTION_ID) else (value,):
            out.append(name)
            if name == USER_PROPERTY:
                out += _text(one[0]) + _text(one[1])
            elif name == SUBSCRIPTION_ID:
                out += varint(one)
            elif name in _BYTES:
                out.append(one)
            elif name in _SHORTS:
                out += _SHORT.pack(one)
            elif name in _LONGS:
                out += _LONG.pack(one)
            elif name in _TEXTS:
                out += _text(one)
            else:
                out += _SHORT.pack(len(one)) + one
    return varint(len(out)) + bytes(out)


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
    reader = _Reader(body)
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
    properties = _properties(reader) if version == V5 else NO_PROPERTIES
    client_id = reader.text()
    will = None
    if has_will:
        will_properties = _properties(reader) if version == V5 else NO_PROPERTIES
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
        reader = _Reader(body, at)
        properties = _properties(reader)
        at = reader.at
    return Publish(topic, body[at:], qos, bool(first & 1), packet_id, properties)


def read_puback(body: bytes) -> int:
    """The packet identifier; what else MQTT 5 says changes nothing for a broker."""
    return _Reader(body).short()


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
    properties = _properties(reader) if version == V5 else NO_PROPERTIES
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
        _properties(reader)
    filters = []
    while not reader.is_at_end:
        filters.append(reader.text())
    if not filters or not packet_id:
        raise MqttError("an UNSUBSCRIBE without a topic filter or packet identifier", Reason.PROTOCOL_ERROR)
    return packet_id, tuple(filters)


def _acknowledged(first: int, body: bytes) -> _Reader:
    if first & 0x0F != 2:
        raise MqttError("the flags of the fixed header must be 2")
    return _Reader(body)


def read_disconnect(body: bytes, version: int) -> tuple[int, Properties]:
    """Reason code and properties of DISCONNECT (3.14), which only MQTT 5 has."""
    if version != V5 or not body:
        return Reason.SUCCESS, NO_PROPERTIES
    reader = _Reader(body)
    reason = reader.byte()
    return reason, NO_PROPERTIES if reader.is_at_end else _properties(reader)


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
    return _packet(CONNACK << 4, bytes((session_present, reason)) + _pack_properties(properties))


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
        head += _pack_properties(properties) if properties else b"\0"
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
