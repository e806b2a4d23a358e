"""What the load is made of: telemetry of a real peloton, spread over a stream's shards as asked.

Payloads are the messages that bikes would send, second by second of races that follow one another, so their size,
names and numbers vary as they do in a race. Keys decide where records go: ``even`` gives every shard the same
share (by explicit hash keys), ``racer`` and ``random`` fall as they fall, ``zipf:S`` makes some riders far louder.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from simulator.flags import UsageError
from simulator.race import FIRST_RACER_ID, Race, plan_race

RACE_SECONDS = 300
KEYS = "even, racer, random or zipf:S (S from 0.1 to 5)"
HASH_KEYS = 2**128


class Message(NamedTuple):
    """One record to be: its data, its partition key, and a hash key where the key alone should not decide."""

    data: bytes
    partition_key: str
    explicit_hash_key: str | None


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
        self._plain = self._rides()
        self._records = self._gathered() if record_bytes else self._plain

    def take(self, number: int) -> list[Message]:
        """The next ``number`` records."""
        return list(itertools.islice(self._records, number))

    def _rides(self) -> Iterator[Message]:
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
                yield from self._keyed(race, race.messages(second))

    def _keyed(self, race: Race, messages: list[bytes]) -> Iterator[Message]:
        """One second's messages with their keys."""
        ids = [str(racer_id) for racer_id in race.racer_ids.tolist()]
        if self._key.kind == "even":
            return (Message(data, key, hash_key) for data, key, hash_key in zip(messages, ids, self._hash_keys))  # noqa: B905 - the last is endless
        if self._key.kind == "random":
            keys = self._rng.integers(0, 2**63, len(messages)).tolist()
            return (Message(data, str(key), None) for data, key in zip(messages, keys, strict=True))
        if self._key.kind == "zipf":
            # The loud riders speak more often; what they say is still their own.
            chosen = self._rng.choice(len(ids), len(ids), p=zipf_shares(len(ids), self._key.exponent)).tolist()
            return (Message(messages[index], ids[index], None) for index in chosen)
        return (Message(data, key, None) for data, key in zip(messages, ids, strict=True))

    def _gathered(self) -> Iterator[Message]:
        while True:
            first = next(self._plain)
            parts, size = [first.data], len(first.data)
            while size < self._record_bytes:
                one = next(self._plain)
                parts.append(one.data)
                size += len(one.data) + 1
            yield Message(b"[" + b",".join(parts) + b"]", first.partition_key, first.explicit_hash_key)


def zipf_shares(number: int, exponent: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The share of each of ``number`` keys, the loudest first: proportional to 1 / rank ** exponent."""
    weights = 1.0 / np.arange(1, number + 1, dtype=np.float64) ** exponent
    shares: np.ndarray[tuple[int], np.dtype[np.float64]] = weights / weights.sum()
    return shares
