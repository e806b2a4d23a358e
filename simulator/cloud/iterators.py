"""Shard iterators: opaque, self-contained, and rejected when they are not ours.

An iterator carries the stream, its creation time, the shard, the position and the time of issue, signed with a
key that lives as long as the process. Nothing is remembered per iterator, so a million cost nothing.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from simulator.cloud import signed

_HEAD = struct.Struct(">8sIQQd")
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
    head = _HEAD.pack(_PREFIX, iterator.shard_index, iterator.position, iterator.created_ms, iterator.issued_at)
    return signed.seal(head + iterator.stream.encode())


def read(text: str) -> Iterator | None:
    """The iterator behind ``text``; None when this process did not issue it."""
    body = signed.open_(text)
    if body is None or len(body) < _HEAD.size or not body.startswith(_PREFIX):
        return None
    _, shard_index, position, created_ms, issued_at = _HEAD.unpack(body[: _HEAD.size])
    return Iterator(body[_HEAD.size :].decode(), created_ms, shard_index, position, issued_at)
