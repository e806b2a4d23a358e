"""Lost records on disk, and back.

One JSON object a line: ``data`` (base64), ``partition_key``, ``due_ms`` (ms since the epoch), ``reason``, and
``order_key`` where it is a string or a number. Appending keeps what earlier runs left; a crash can cut the last
line short, and the next append starts a line of its own after it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path

import msgspec

from producers.delivery import Record
from producers.errors import ConfigurationError


class SpooledRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line of the spool."""

    data: bytes
    partition_key: str
    due_ms: float
    reason: str
    order_key: str | int | None = None


class Spool:
    """Appends lost records to a file, which is made when the first one is lost.

    :raises ConfigurationError: when the file's directory does not exist or the path is a directory.
    """

    __slots__ = ("path",)

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.is_dir() or not self.path.parent.is_dir():
            raise ConfigurationError(f"cannot spool to {self.path}: name a file in a directory that exists")

    def append(self, records: Sequence[Record], reason: str) -> None:
        """Write ``records`` and close the file.

        :raises OSError: when the disk does not take it.
        """
        lines = _encode_lines(
            [
                SpooledRecord(
                    record.data,
                    _unicode(record.partition_key),
                    round(record.due_s * 1000, 3),
                    reason,
                    _portable(record.order_key),
                )
                for record in records
            ]
        )
        with self.path.open("a+b") as file:
            if file.seek(0, 2):
                file.seek(-1, 2)
                if file.read(1) != b"\n":
                    lines = b"\n" + lines
            file.write(lines)


class SpoolReader:
    """Iterates over the records of a spool; see :func:`read_spool`. The attributes tell of the latest pass."""

    def __init__(self, path: Path, due_s: float | None) -> None:
        self.path = path
        self.due_s = due_s
        self.reasons: dict[str, int] = {}
        """How many of the records read were lost for which reason."""
        self.reason = ""
        """Why the record given last was lost."""
        self.damaged_lines = 0
        """Lines that are no record, skipped; one at the end is what a crash leaves."""
        self.first_damage: str | None = None
        """Where the first of them is, and what is wrong with it."""

    def __iter__(self) -> Iterator[Record]:
        self.reasons, self.damaged_lines, self.first_damage = {}, 0, None
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    spooled = _decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    self.damaged_lines += 1
                    if self.first_damage is None:
                        cut = "" if line.endswith(b"\n") else " (the file ends within it)"
                        self.first_damage = f"{self.path}, line {number} is not a spooled record{cut}: {error}"
                    continue
                self.reason = spooled.reason
                self.reasons[spooled.reason] = self.reasons.get(spooled.reason, 0) + 1
                due_s = spooled.due_ms / 1000 if self.due_s is None else self.due_s
                yield Record(spooled.data, spooled.partition_key, due_s, spooled.order_key)


def read_spool(path: str | Path, *, due_s: float | None = None) -> SpoolReader:
    """The records of a spool, to be put again.

    :param due_s: when all of them are to be sent, seconds since the epoch. Without it they keep the time at which
        they were due first, which a producer's deadline has usually passed.

    A line cut short is skipped and told in ``damaged_lines`` and ``first_damage`` of the reader. Iterating raises
    ``OSError`` when the file cannot be read.
    """
    return SpoolReader(Path(path), due_s)


def _unicode(text: str) -> str:
    # A lone surrogate, for which a record was rejected, has no UTF-8.
    return text.encode(errors="replace").decode()


def _portable(order_key: Hashable) -> str | int | None:
    if isinstance(order_key, str):
        return _unicode(order_key)
    if isinstance(order_key, int) and -(2**63) <= order_key < 2**63:
        return int(order_key)
    return None


_encode_lines = msgspec.json.Encoder().encode_lines
_decode = msgspec.json.Decoder(SpooledRecord).decode
