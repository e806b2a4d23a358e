"""Records that the Kinesis Producer Library aggregated: many user records in one of the stream.

The format is ``F3 89 9A C2``, a protocol buffer, and the MD5 of that buffer (aggregation-format.md of
awslabs/amazon-kinesis-producer)::

    message AggregatedRecord {                      message Record {
      repeated string partition_key_table     = 1;    required uint64 partition_key_index     = 1;
      repeated string explicit_hash_key_table = 2;    optional uint64 explicit_hash_key_index = 2;
      repeated Record records                 = 3;    required bytes  data                    = 3;
    }                                                 repeated Tag    tags                    = 4; }

What looks like it and is not is an ordinary record.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import md5

MAGIC = b"\xf3\x89\x9a\xc2"
_MAGIC_TEXT = base64.b64encode(MAGIC).decode()[:5]  # of a text, the characters that depend on the magic alone
_DIGEST_BYTES = 16
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class UserRecord:
    """What a producer's user put; ``hash_key`` (128 bits) says to which shard it belongs."""

    partition_key: str
    hash_key: int
    data: bytes


def deaggregate(data: bytes | str) -> list[UserRecord] | None:
    """The user records of ``data`` (bytes, or base64 text); None when it is not aggregated."""
    if isinstance(data, str):
        if not data.startswith(_MAGIC_TEXT):
            return None
        try:
            data = base64.b64decode(data, validate=True)
        except binascii.Error:
            return None
    if not data.startswith(MAGIC) or len(data) < len(MAGIC) + _DIGEST_BYTES:
        return None
    message, digest = data[len(MAGIC) : -_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    if md5(message, usedforsecurity=False).digest() != digest:
        return None
    try:
        return _records(message)
    except (IndexError, ValueError, KeyError):
        return None


def hash_of(partition_key: str) -> int:
    """Where ``partition_key`` lies among the hash keys of a stream."""
    return int.from_bytes(md5(partition_key.encode(), usedforsecurity=False).digest())


def _records(message: bytes) -> list[UserRecord]:
    partition_keys: list[str] = []
    hash_keys: list[int] = []
    records: list[bytes] = []
    for number, value in _fields(message):
        if number == 1:
            partition_keys.append(_bytes(value).decode())
        elif number == 2:
            hash_keys.append(int(_bytes(value)))
        elif number == 3:
            records.append(_bytes(value))
    found = []
    for record in records:
        members = dict(_fields(record))
        key = partition_keys[_index(members[1])]
        hash_key = hash_keys[_index(members[2])] if 2 in members else hash_of(key)
        found.append(UserRecord(key, hash_key, _bytes(members[3])))
    return found


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of each field. :raises ValueError: and IndexError: it is not a protocol buffer."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            size, at = _varint(message, at)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if at + size > len(message):
            raise ValueError("a field is cut off")
        yield tag >> 3, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a varint is too long")


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number stands where bytes should")
    return value


def _index(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise ValueError("bytes stand where a number should")
    return value
