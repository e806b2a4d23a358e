"""Kinesis sequence numbers, version 2, and the hash key space.

A sequence number is opaque by contract and increases per shard. AWS's own are 186-bit numbers of 56 decimal
digits; read as hexadecimal they are laid out (most significant first)::

    "2" | create time s (36 bits) | last nibble of shard index | seqIx (64) | 00 | time s (36) | shard index (32) | "2"

Source: the layout was found by kinesalite's author against AWS and holds for AWS's own published samples
(``tests/test_sequence.py`` decodes one). Position ``n`` of a shard is ``seqIx = n + 1``; ``seqIx = 0`` is the
start of the shard, ``0x7fffffffffffffff`` the end of a closed one.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

HASH_KEY_SPACE = 1 << 128
MAX_HASH_KEY = HASH_KEY_SPACE - 1

_VERSION = 2
_LEAD = 2
_SHARD_SHIFT = 4
_TIME_SHIFT = 36
_SEQ_SHIFT = 80
_NIBBLE_SHIFT = 144
_CREATE_SHIFT = 148
_LEAD_SHIFT = 184
_MASK_36 = (1 << 36) - 1
_MASK_64 = (1 << 64) - 1

# What a sequence number grows by from one record, and from one second, to the next.
SEQ_STEP = 1 << _SEQ_SHIFT
TIME_STEP = 1 << _TIME_SHIFT
SEQ_IX_END = 0x7FFF_FFFF_FFFF_FFFF


class SequenceNumber(NamedTuple):
    """The fields of a sequence number. Times are whole seconds since the epoch."""

    created_s: int
    shard_index: int
    seq_ix: int
    time_s: int

    def to_int(self) -> int:
        """The 186-bit number."""
        return (
            (_LEAD << _LEAD_SHIFT)
            | (self.created_s << _CREATE_SHIFT)
            | ((self.shard_index & 0xF) << _NIBBLE_SHIFT)
            | (self.seq_ix << _SEQ_SHIFT)
            | (self.time_s << _TIME_SHIFT)
            | (self.shard_index << _SHARD_SHIFT)
            | _VERSION
        )

    def __str__(self) -> str:
        return str(self.to_int())


def parse(text: str) -> SequenceNumber:
    """The fields of a version 2 sequence number.

    :raises ValueError: when ``text`` is not one.
    """
    if not text.isascii() or not text.isdigit() or len(text) > 129:
        raise ValueError(f"not a sequence number: {text[:140]!r}")
    number = int(text)
    if number >> _LEAD_SHIFT != _LEAD or number & 0xF != _VERSION or (number >> 72) & 0xFF:
        raise ValueError(f"not a version 2 sequence number: {text}")
    fields = SequenceNumber(
        created_s=(number >> _CREATE_SHIFT) & _MASK_36,
        shard_index=(number >> _SHARD_SHIFT) & 0xFFFF_FFFF,
        seq_ix=(number >> _SEQ_SHIFT) & _MASK_64,
        time_s=(number >> _TIME_SHIFT) & _MASK_36,
    )
    if fields.to_int() != number:
        raise ValueError(f"not a version 2 sequence number: {text}")
    return fields


def hash_key(partition_key: str) -> int:
    """MD5 of the UTF-8 partition key as an unsigned 128-bit big-endian number (source: PutRecord's reference)."""
    return int.from_bytes(hashlib.md5(partition_key.encode(), usedforsecurity=False).digest(), "big")


def uniform_ranges(count: int) -> list[tuple[int, int]]:
    """The hash key ranges of ``count`` equal shards; the last one takes what the division leaves over."""
    width = HASH_KEY_SPACE // count
    return [(width * i, width * (i + 1) - 1 if i < count - 1 else MAX_HASH_KEY) for i in range(count)]
