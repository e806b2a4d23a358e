"""What the load is made of: telemetry of a real peloton, spread over a stream's shards as asked.

Payloads are the messages that bikes would send, second by second of races that follow one another, so their size,
names and numbers vary as they do in a race. Keys decide where records go: ``even`` gives every shard the same
share (by explicit hash keys), ``racer`` and ``random`` fall as they fall, ``zipf:S`` makes some riders far louder.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from simulator.flags import UsageError
from simulator.race import FIRST_RACER_ID, plan_race

RACE_SECONDS = 300
KEYS = "even, racer, random or zipf:S (S from 0.1 to 5)"
HASH_KEYS = 2**128


class Message(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, rename="pascal"):
    """One record to be: its data, its partition key, and a hash key where the key alone should not decide.

    Encodes as an entry of PutRecords, so that a call costs no second object a record.
    """

    data: bytes
    partition_key: str
    explicit_hash_key: str | None = None


@dataclass(frozen=True, slots=True)
class KeyChoice:
    """How records get their keys. ``exponent`` belongs to ``zipf``."""

    kind: str
    exponent: float = 0.0


def key_choice(text: str) -> KeyChoice:
    """:raises UsageError:"""
    kind, _, rest = text.partition(":")
    if kind in ("even", "racer", "random") and not rest:
        return KeyChoice(kind)
    try:
        exponent = float(rest)
    except ValueError:
        exponent = -1.0
    if kind == "zipf" and 0.1 <= exponent <= 5:
        return KeyChoice(kind, exponent)
    raise UsageError(f"--key {text!r}: choose {KEYS}")


class Messages:
    """An endless stream of messages of ``racers`` bikers, the next race beginning where one ends.

    :param first_racer: racer id of the first, so that workers ride different bikers.
    :param hash_keys: for ``even``: a hash key in the middle of each shard.
    :param record_bytes: messages are gathered into one record (a JSON array) until it has about so many bytes;
        0 sends one message a record, as gateways without aggregation do.
    """

    def __init__(
        self,
        *,
        start_ms: int,
        racers: int = 1000,
        first_racer: int = FIRST_RACER_ID,
        seed: int = 7,
        key: KeyChoice | None = None,
        hash_keys: Sequence[str] = (),
        record_bytes: int = 0,
    ) -> None:
        self._key = key or KeyChoice("racer")
        self._record_bytes = record_bytes
        self._rng = np.random.default_rng([seed, first_racer])
        self._hash_keys = itertools.cycle(hash_keys or (str(HASH_KEYS // 2),))
        self._where = (start_ms, racers, first_racer, seed)
        self._ids = [str(first_racer + index) for index in range(racers)]
        self._shares = zipf_shares(racers, self._key.exponent)
        self._seconds = self._records()
        self._second: list[Message] = []
        self._taken = 0

    def take(self, number: int) -> list[Message]:
        """The next ``number`` records."""
        found: list[Message] = []
        while (missing := number - len(found)) > 0:
            if self._taken == len(self._second):
                self._second, self._taken = next(self._seconds), 0
            part = self._second[self._taken : self._taken + missing]
            self._taken += len(part)
            found = found + part if found else part
        return found

    def _records(self) -> Iterator[list[Message]]:
        """Records, by the second in which they are complete.

        Whole seconds at a time: what is done once a record in Python bounds what a core can offer.
        """
        spoken = map(self._spoken, self._rides())
        for data, keys in self._gathered(spoken) if self._record_bytes else spoken:
            if self._key.kind == "even":
                yield list(map(Message, data, keys, self._hash_keys))
            else:
                yield list(map(Message, data, keys))

    def _spoken(self, messages: list[bytes]) -> tuple[list[bytes], list[str]]:
        """One second's messages as they are sent, with their partition keys."""
        if self._key.kind == "random":
            return messages, list(map(str, self._rng.integers(0, 2**63, len(messages)).tolist()))
        if self._key.kind == "zipf":
            # The loud riders speak more often; what they say is still their own.
            chosen = self._rng.choice(len(messages), len(messages), p=self._shares).tolist()
            return [messages[index] for index in chosen], [self._ids[index] for index in chosen]
        return messages, self._ids

    def _gathered(self, spoken: Iterable[tuple[list[bytes], list[str]]]) -> Iterator[tuple[list[bytes], list[str]]]:
        """Messages gathered into records of ``record_bytes`` or just above; each has its first message's key."""
        parts: list[bytes] = []
        size, first_key = 0, ""
        for messages, message_keys in spoken:
            data: list[bytes] = []
            keys: list[str] = []
            for message, key in zip(messages, message_keys, strict=True):
                if not parts:
                    first_key = key
                parts.append(message)
                size += len(message) + 1
                if size > self._record_bytes:
                    data.append(b"[" + b",".join(parts) + b"]")
                    keys.append(first_key)
                    parts, size = [], 0
            yield data, keys

    def _rides(self) -> Iterator[list[bytes]]:
        """The messages of each second of race after race."""
        start_ms, racers, first_racer, seed = self._where
        for race_index in itertools.count():
            race = plan_race(
                start_ms=start_ms + race_index * RACE_SECONDS * 1000,
                racers=racers,
                seconds=RACE_SECONDS,
                seed=seed,
                race_index=race_index,
                first_racer_id=first_racer,
            )
            for second in range(1, RACE_SECONDS + 1):
                yield race.messages(second)


def zipf_shares(number: int, exponent: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The share of each of ``number`` keys, the loudest first: proportional to 1 / rank ** exponent."""
    weights = 1.0 / np.arange(1, number + 1, dtype=np.float64) ** exponent
    shares: np.ndarray[tuple[int], np.dtype[np.float64]] = weights / weights.sum()
    return shares
