"""How far each shard of a mapping has been processed, kept in one JSON file a mapping.

The file is replaced whole and atomically (write beside it, ``os.replace``), after every successful invocation and
before the next one of that shard, so a killed process repeats at most one batch a shard. It is not fsynced: it
survives the process, not the power supply. Without a directory, checkpoints live in memory only.

::

    {"version": 1, "mapping": "...", "streamArn": "...", "shards": {"shardId-000000000000": {
        "sequenceNumber": "4959...", "since": null, "finished": false,
        "window": {"start": 1596128400, "end": 1596128460, "state": {...}}}}}
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from threading import Lock

import msgspec

from consumers.runtime.errors import CheckpointError
from consumers.runtime.event import Window
from consumers.runtime.windows import OpenWindow

VERSION = 1


class ShardCheckpoint(msgspec.Struct, frozen=True):
    """Everything up to ``sequence_number`` is processed, ``window`` is what is open then.

    ``since`` (seconds since the epoch) stands in for a sequence number while a shard that was started at LATEST
    has not delivered any record. ``finished``: the shard is closed and drained.
    """

    sequence_number: str | None = None
    since: float | None = None
    finished: bool = False
    window: OpenWindow | None = None


class _Window(msgspec.Struct):
    start: int
    end: int
    state: msgspec.Raw


class _Shard(msgspec.Struct):
    sequenceNumber: str | None  # noqa: N815
    since: float | None
    finished: bool
    window: _Window | None


class _File(msgspec.Struct):
    version: int
    mapping: str
    streamArn: str  # noqa: N815
    shards: dict[str, _Shard]


class Checkpoints:
    """The checkpoints of one mapping. Thread-safe.

    :raises CheckpointError: the file is corrupted or belongs to another stream, on construction; it could not be
        written, from :meth:`save` (what was to be saved is then kept in memory and in the next successful write).
    """

    def __init__(self, mapping_name: str, stream_arn: str, state_dir: Path | None) -> None:
        self._mapping_name = mapping_name
        self._stream_arn = stream_arn
        self._lock = Lock()
        self._shards: dict[str, ShardCheckpoint] = {}
        # What is saved changes one shard at a time; the others' JSON is kept.
        self._encoded: dict[str, msgspec.Raw] = {}
        self.path: Path | None = None
        if state_dir is not None:
            self.path = state_dir / _file_name(mapping_name)
            self._load(self.path)

    def get(self, shard_id: str) -> ShardCheckpoint | None:
        with self._lock:
            return self._shards.get(shard_id)

    def all(self) -> Mapping[str, ShardCheckpoint]:
        with self._lock:
            return dict(self._shards)

    def save(self, shard_id: str, checkpoint: ShardCheckpoint) -> None:
        with self._lock:
            self._shards[shard_id] = checkpoint
            if self.path is not None:
                self._encoded[shard_id] = _encode(checkpoint)
                self._write(self.path)

    def forget(self, shard_ids: Iterable[str]) -> None:
        """Drop shards that the stream no longer lists."""
        with self._lock:
            gone = [shard_id for shard_id in shard_ids if self._shards.pop(shard_id, None) is not None]
            for shard_id in gone:
                self._encoded.pop(shard_id, None)
            if gone and self.path is not None:
                self._write(self.path)

    def _load(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            text = path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise CheckpointError(path, f"cannot be read: {error.strerror}", "Check the state directory.") from error
        restart = "Delete this file to start the mapping again from its starting position."
        try:
            content = msgspec.json.decode(text, type=_File)
            if content.version != VERSION:
                raise CheckpointError(path, f"has version {content.version}, this runtime reads {VERSION}", restart)
            if content.streamArn != self._stream_arn:
                problem = f"belongs to {content.streamArn}, this mapping reads {self._stream_arn}"
                raise CheckpointError(path, problem, restart)
            for shard_id, shard in content.shards.items():
                checkpoint = self._shards[shard_id] = _checkpoint(shard)
                self._encoded[shard_id] = _encode(checkpoint)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise CheckpointError(path, f"is not a checkpoint file ({error})", restart) from error

    def _write(self, path: Path) -> None:
        content = {
            "version": VERSION,
            "mapping": self._mapping_name,
            "streamArn": self._stream_arn,
            "shards": self._encoded,
        }
        temporary = path.with_suffix(".tmp")
        try:
            temporary.write_bytes(msgspec.json.encode(content))
            os.replace(temporary, path)  # noqa: PTH105 - the name of what makes it atomic
        except OSError as error:
            raise CheckpointError(
                path, f"cannot be written: {error.strerror}", "Free space or give another state directory."
            ) from error


def _encode(checkpoint: ShardCheckpoint) -> msgspec.Raw:
    opened = checkpoint.window
    window = None
    if opened is not None:
        window = _Window(opened.window.start_s, opened.window.end_s, msgspec.Raw(opened.state))
    shard = _Shard(checkpoint.sequence_number, checkpoint.since, checkpoint.finished, window)
    return msgspec.Raw(msgspec.json.encode(shard))


def _checkpoint(shard: _Shard) -> ShardCheckpoint:
    opened = shard.window
    window = None
    if opened is not None:
        window = OpenWindow(Window(opened.start, opened.end), bytes(opened.state))
    return ShardCheckpoint(shard.sequenceNumber, shard.since, shard.finished, window)


def _file_name(mapping_name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", mapping_name)
    if plain == mapping_name and not plain.startswith(".") and len(plain) <= 200:
        return f"{plain}.json"
    # Two names must not share a file only because a file system cannot spell them.
    return f"{plain[:100].lstrip('.')}-{sha256(mapping_name.encode()).hexdigest()[:12]}.json"
