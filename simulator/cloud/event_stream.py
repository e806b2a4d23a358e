"""AWS's event-stream framing, ``application/vnd.amazon.eventstream``, the writing side.

A message is: total length, headers length, CRC32 of those eight bytes, headers, payload, CRC32 of all before; all
numbers big-endian. A header is: length of its name, name, type 7 (string), length of its value, value. Tests read it
back with botocore's parser.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

CONTENT_TYPE = "application/vnd.amazon.eventstream"
_PRELUDE = struct.Struct(">II")
_CRC = struct.Struct(">I")
_STRING = 7


def message(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One message; ``headers`` are strings."""
    packed = b"".join(_header(name.encode(), value.encode()) for name, value in headers.items())
    prelude = _PRELUDE.pack(16 + len(packed) + len(payload), len(packed))
    body = prelude + _CRC.pack(zlib.crc32(prelude)) + packed + payload
    return body + _CRC.pack(zlib.crc32(body))


def _header(name: bytes, value: bytes) -> bytes:
    return struct.pack(">B", len(name)) + name + struct.pack(">BH", _STRING, len(value)) + value


def event(kind: str, content_type: str, payload: bytes) -> bytes:
    """An event named ``kind``; ``initial-response`` is the first of every stream."""
    return message({":message-type": "event", ":event-type": kind, ":content-type": content_type}, payload)


def exception(kind: str, content_type: str, payload: bytes) -> bytes:
    """An exception of the model, after which the stream ends."""
    return message({":message-type": "exception", ":exception-type": kind, ":content-type": content_type}, payload)
