"""Fields and properties of MQTT packets: what :mod:`simulator.cloud.mqtt_codec` builds packets of."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from struct import Struct
from typing import Any, Final

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


# -- fields --------------------------------------------------------------------------------------------


class Reader:
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


def packed_text(value: str) -> bytes:
    data = value.encode()
    return _SHORT.pack(len(data)) + data


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


def read_properties(reader: Reader) -> Properties:
    length = reader.varint()
    if not length:
        return NO_PROPERTIES
    part = Reader(reader.take(length))
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


def pack_properties(properties: Properties) -> bytes:
    out = bytearray()
    for name, value in properties.items():
        for one in value if name in (USER_PROPERTY, SUBSCRIPTION_ID) else (value,):
            out.append(name)
            if name == USER_PROPERTY:
                out += packed_text(one[0]) + packed_text(one[1])
            elif name == SUBSCRIPTION_ID:
                out += varint(one)
            elif name in _BYTES:
                out.append(one)
            elif name in _SHORTS:
                out += _SHORT.pack(one)
            elif name in _LONGS:
                out += _LONG.pack(one)
            elif name in _TEXTS:
                out += packed_text(one)
            else:
                out += _SHORT.pack(len(one)) + one
    return varint(len(out)) + bytes(out)
