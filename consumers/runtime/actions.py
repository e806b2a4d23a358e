"""What a shard's schedule can ask for: read, invoke, tell a destination, wait, or end. Plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from consumers.runtime.event import Record, Window, assemble

Condition = Literal["RetryAttemptsExhausted", "RecordAgeExceeded"]


@dataclass(frozen=True, slots=True)
class Position:
    """Where to get an iterator: ``arguments`` of GetShardIterator besides stream and shard."""

    arguments: dict[str, str | float]


@dataclass(frozen=True, slots=True)
class Poll:
    """Read the shard; ``position`` is where to get an iterator if there is none."""

    position: Position


@dataclass(frozen=True, slots=True)
class Invoke:
    """Invoke the function. ``records`` is empty for a window's last invocation; ``window`` is None without windows.

    ``lane`` goes back with the result. Invocations of different lanes may run at the same time.
    """

    records: tuple[Record, ...]
    window: Window | None
    is_final: bool
    members: bytes
    lane: int = 0

    @property
    def count(self) -> int:
        """How many records that is."""
        return sum(record.count for record in self.records)

    def event(self) -> bytes:
        """The event as JSON."""
        return assemble(self.records, self.members)


@dataclass(frozen=True, slots=True)
class Discard:
    """Records that are given up. ``invoke_count`` is how often they were tried; ``request_id`` and
    ``function_error`` are of the last try, and ``members`` what its event had besides the records."""

    records: tuple[Record, ...]
    condition: Condition
    invoke_count: int
    request_id: str = ""
    function_error: str | None = None
    members: bytes = b"{}"

    @property
    def count(self) -> int:
        """How many records that is."""
        return sum(record.count for record in self.records)

    def event(self) -> bytes:
        """The event that was, or would have been, sent, as JSON."""
        return assemble(self.records, self.members)


@dataclass(frozen=True, slots=True)
class Deliver:
    """Tell the on-failure destination of ``discard``; ``lane`` goes back with the result."""

    discard: Discard
    lane: int = 0


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before ``until`` (seconds since the epoch)."""

    until: float


@dataclass(frozen=True, slots=True)
class Finished:
    """The shard is closed and everything in it is processed."""


Action = Poll | Invoke | Deliver | Wait | Finished
