"""How the Kinesis Producer Library packs messages into records, and what these weigh.

Its format is ``F3 89 9A C2``, a protocol buffer and the MD5 of that buffer (aggregation-format.md of
awslabs/amazon-kinesis-producer; :mod:`consumers.runtime.sources.aggregation` reads it). A record that holds a single
message is an ordinary one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import md5

import numpy as np

from simulator.capacity.arrivals import Indices

AGGREGATE_MAX_BYTES = 51_200
"""AggregationMaxSize (KPL's default)."""
BUFFERED_MS = 100
"""RecordMaxBufferedTime (KPL's default)."""
RATE_LIMIT = 1.5
"""RateLimit: what is offered to a shard, as a share of what it takes (KPL's default of 150 %)."""
OUTER_KEY = "a"
"""The partition key of a record with several messages; its explicit hash key decides the shard."""
_MAGIC = b"\xf3\x89\x9a\xc2"
_DIGEST_BYTES = 16


def encode(records: Sequence[tuple[str, bytes]]) -> bytes:
    """The data of a Kinesis record that holds ``records``: partition keys and data."""
    keys = list(dict.fromkeys(key for key, _ in records))
    places = {key: place for place, key in enumerate(keys)}
    message = b"".join(_field(1, key.encode()) for key in keys)
    for key, data in records:
        message += _field(3, b"\x08" + _varint(places[key]) + _field(3, data))
    return _MAGIC + message + md5(message, usedforsecurity=False).digest()


def _field(number: int, value: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes(found) + bytes([value])


@dataclass(frozen=True)
class Packing:
    """Of messages of one size. Without ``one_key`` each has another partition key of ``key_bytes``."""

    message_bytes: int
    key_bytes: int
    one_key: bool

    @cached_property
    def sizes(self) -> Indices:
        """Bytes of a record with 0, 1, 2 ... messages, its partition key included, up to the most that fit into one."""
        most = max(2, AGGREGATE_MAX_BYTES // max(1, self.message_bytes))
        indexes = np.zeros(most, np.int64) if self.one_key else np.arange(most)
        inner = 1 + _varint_bytes(indexes) + 1 + _varint_bytes(self.message_bytes) + self.message_bytes
        of_key = 1 + int(_varint_bytes(self.key_bytes)) + self.key_bytes
        each = 1 + _varint_bytes(inner) + inner + (0 if self.one_key else of_key)
        data = len(_MAGIC) + _DIGEST_BYTES + np.cumsum(each) + (of_key if self.one_key else 0)
        fits = max(1, int(np.searchsorted(data, AGGREGATE_MAX_BYTES, side="right")))
        sizes = np.concatenate([[0], data[:fits] + len(OUTER_KEY)])
        sizes[1] = self.message_bytes + self.key_bytes
        return sizes

    @property
    def most(self) -> int:
        """Messages in a full record."""
        return len(self.sizes) - 1

    @property
    def most_bytes(self) -> int:
        """Of a full record."""
        return int(self.sizes[-1])

    def split(self, messages: Indices) -> tuple[Indices, Indices]:
        """Full records, and messages in one more; 0 when there is none."""
        full, rest = np.divmod(messages, self.most)
        return full, rest

    def units(self, messages: Indices, unit_bytes: int) -> Indices:
        """Units of so many bytes that the records are, each rounded up."""
        full, rest = self.split(messages)
        found: Indices = full * -(-self.most_bytes // unit_bytes) + -(-self.sizes[rest] // unit_bytes)
        return found

    def records(self, messages: Indices) -> Indices:
        """How many records hold so many messages."""
        return -(-messages // self.most)

    def nbytes(self, messages: Indices) -> Indices:
        """Their bytes."""
        full, rest = self.split(messages)
        found: Indices = full * self.most_bytes + self.sizes[rest]
        return found


def _varint_bytes(values: Indices | int) -> Indices:
    """How long numbers below 2**21 are."""
    numbers = np.asarray(values)
    found: Indices = 1 + (numbers > 127).astype(np.int64) + (numbers > 16_383)
    return found
