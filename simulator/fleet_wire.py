"""What a fleet's parent and its processes say to each other: MessagePack, each message with its length before it.

A record is a tuple rather than an object, which halves what encoding a second's thousand costs.
"""

from __future__ import annotations

from typing import Any

import msgspec

from producers import Record

LENGTH_BYTES = 4


class Setup(msgspec.Struct, tag="setup"):
    """The first message to a process. ``arguments`` are the producer's, of JSON's types."""

    client: str
    devices: list[int]
    arguments: dict[str, Any]
    tls: tuple[str | None, str | None, str | None] | None = None


class Put(msgspec.Struct, tag="put"):
    """Records as (data, partition key, due in seconds, device)."""

    records: list[tuple[bytes, str, float, int]]

    @classmethod
    def of(cls, records: list[Record]) -> Put:
        return cls([(one.data, one.partition_key, one.due_s, one.order_key) for one in records])  # type: ignore[misc]

    def to_records(self) -> list[Record]:
        return [Record(*one) for one in self.records]


class Flush(msgspec.Struct, tag="flush"):
    """Answer with :class:`Flushed` once nothing is outstanding."""


class Close(msgspec.Struct, tag="close"):
    """End; answer with :class:`Closed`."""

    drain: bool


class Told(msgspec.Struct, tag="told"):
    """How it stands, once in a while: a ledger's members, and counts of connections."""

    ledger: dict[str, Any]
    counts: dict[str, int]
    last_problem: str | None = None


class Ready(msgspec.Struct, tag="ready"):
    """Every device has been connected once."""


class Flushed(msgspec.Struct, tag="flushed"):
    """Nothing is outstanding."""


class Failed(msgspec.Struct, tag="failed"):
    """The producer has given up, and why."""

    message: str


class Closed(msgspec.Struct, tag="closed"):
    """The last message: the ledger, and all latencies in ms as little-endian 32-bit floats."""

    ledger: dict[str, Any]
    send_lateness: bytes
    accepted: bytes
    cpu_s: float
    peak_memory_bytes: int


ToProcess = Setup | Put | Flush | Close
FromProcess = Ready | Told | Flushed | Failed | Closed

_encoder = msgspec.msgpack.Encoder()
decode_to_process = msgspec.msgpack.Decoder(ToProcess).decode
decode_from_process = msgspec.msgpack.Decoder(FromProcess).decode


def framed(message: ToProcess | FromProcess) -> bytes:
    """``message`` with its length before it."""
    body = _encoder.encode(message)
    return len(body).to_bytes(LENGTH_BYTES, "big") + body
