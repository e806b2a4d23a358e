"""Shard iterators: opaque, self-contained, and rejected when they are not ours.

An iterator carries the stream, its creation time, the shard, the position and the time of issue, signed with a
key that lives as long as the process. Nothing is remembered per iterator, so a million cost nothing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
import struct
from typing import NamedTuple

_KEY = secrets.token_bytes(32)
_HEAD = struct.Struct(">8xIQQd")
_TAG_BYTES = 16
# AWS's iterators begin with these eight bytes.
_PREFIX = b"\0\0\0\0\0\0\0\1"


class Iterator(NamedTuple):
    """``position`` is the log position to read next; times are epoch seconds."""

    stream: str
    created_ms: int
    shard_index: int
    position: int
    issued_at: float


def issue(iterator: Iterator) -> str:
    """The text handed to a client (under the model's 512 characters for any stream name)."""
    head = _HEAD.pack(iterator.shard_index, iterator.position, iterator.created_ms, iterator.issued_at)
    body = _PREFIX + head[8:] + iterator.stream.encode()
    return base64.b64encode(body + _tag(body)).decode()


def read(text: str) -> Iterator | None:
    """The iterator behind ``text``; None when this process did not issue it."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    body, tag = raw[:-_TAG_BYTES], raw[-_TAG_BYTES:]
    if len(body) < _HEAD.size or not secrets.compare_digest(tag, _tag(body)):
        return None
    shard_index, position, created_ms, issued_at = _HEAD.unpack(body[: _HEAD.size])
    return Iterator(body[_HEAD.size :].decode(), created_ms, shard_index, position, issued_at)


def _tag(body: bytes) -> bytes:
    return hashlib.blake2b(body, key=_KEY, digest_size=_TAG_BYTES).digest()
