"""What the runtime needs of an event source, and what can go wrong with one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from botocore.exceptions import BotoCoreError, ClientError
from botocore.exceptions import ConnectionError as BotoConnectionError

from consumers.runtime.config import RuntimeSettings
from consumers.runtime.event import Record
from consumers.runtime.lineage import ShardInfo

Problem = Literal["throttled", "expired", "trimmed", "gone", "unreachable"]

_PROBLEMS: Mapping[str, Problem] = {
    "ProvisionedThroughputExceededException": "throttled",
    "LimitExceededException": "throttled",
    "KMSThrottlingException": "throttled",
    "ThrottlingException": "throttled",
    # Another subscription of this consumer to this shard is less than five seconds old.
    "ResourceInUseException": "throttled",
    "ExpiredIteratorException": "expired",
    "TrimmedDataAccessException": "trimmed",
    "ResourceNotFoundException": "gone",
    # An iterator or a sequence number of a stream that was deleted and created again is no longer a valid argument.
    "InvalidArgumentException": "gone",
}


class SourceError(Exception):
    """A call that failed. ``code`` is AWS's, or the name of botocore's exception.

    ``problem`` says what helps: ``throttled`` (ask later), ``expired`` (a new iterator at the same place), ``trimmed``
    (the records at this place have expired; go on at the oldest), ``gone`` (the shard or stream is not there or is
    another one: list the shards again), ``unreachable`` (anything else; ask later).
    """

    def __init__(self, problem: Problem, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.problem = problem
        self.code = code
        self.message = message


def from_client_error(error: ClientError) -> SourceError:
    code = error.response["Error"].get("Code", "Unknown")
    return SourceError(_PROBLEMS.get(code, "unreachable"), code, error.response["Error"].get("Message", ""))


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Turn botocore's exceptions into :class:`SourceError`."""
    try:
        yield
    except ClientError as error:
        raise from_client_error(error) from error
    except (BotoCoreError, BotoConnectionError) as error:
        raise SourceError("unreachable", type(error).__name__, str(error)) from error


@dataclass(frozen=True, slots=True)
class Read:
    """What a read found.

    ``began`` (seconds since the epoch): everything that was there then is in this read or in one before it, if
    ``records`` is empty and ``millis_behind`` is 0. ``dropped`` counts user records that were aggregated into a record
    of a shard that their keys do not belong to.
    """

    records: Sequence[Record]
    millis_behind: int
    began: float
    shard_ended: bool = False
    dropped: int = 0


class ShardReader(Protocol):
    """One shard being read, forwards. Used by one thread."""

    def read(self) -> Read | None:
        """The next records; None when nothing came in a short while and nothing is known of the tip.

        :raises SourceError: and unless it is a throttle, the reader is of no more use.
        """

    def close(self) -> None:
        """Let go of connections. Never raises."""


class Source(Protocol):
    """One stream. Thread-safe."""

    def paced(self, settings: RuntimeSettings) -> RuntimeSettings:
        """``settings`` with the pace at which this kind of source is read."""

    def list_shards(self) -> list[ShardInfo]:
        """All shards that the stream has now. :raises SourceError:"""

    def open(self, shard_id: str, position: Mapping[str, str | float]) -> ShardReader:
        """A reader at ``position``: the arguments of Kinesis's GetShardIterator. :raises SourceError:"""
