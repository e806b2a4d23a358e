"""A race: when it is, what every bike sends, and what is true of it.

:func:`plan_race` turns arguments and a seed into a :class:`Race`. The race encodes its messages second by
second (:meth:`Race.messages`) and knows every right answer (:attr:`Race.truth`), computed in integers from
the arrays that the messages are made of and never by the code that is on trial.

The seconds of a race are numbered 1..T. The message of second ``s`` of biker ``i`` is due at
``start_ms + (s - 1) * 1000 + phases_ms[i]``, which is also its ``deviceTimestamp``; so the ``final`` message,
that of second T, is sent within the last second of the race.
"""

from __future__ import annotations

import itertools
import json
import operator
import re
import uuid
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from simulator import peloton
from simulator.peloton import (
    CADENCE_MAX_TENTHS,
    CADENCE_MIN_TENTHS,
    COURSES,
    RESISTANCE_MAX_TENTHS,
    RESISTANCE_MIN_TENTHS,
    Ids,
    Ride,
)

PUBLISH_TOPIC = "alleycat-publish"
"""MQTT topic from the bikes to the backend."""
SUBSCRIBE_TOPIC = "alleycat-subscribe"
"""MQTT topic from the backend to the screens."""
FIRST_RACER_ID = 100
OFFICIAL_SECONDS = 300

MAX_RACERS = 1_000_000
MAX_SECONDS = 0xFFFF
MAX_SAMPLES = 500_000_000
"""Racers times seconds. A ride holds 4 bytes a sample, its truth 4 more: this many take 4 GB."""
MAX_SEED = 2**64 - 1
MAX_RACER_ID = 0xFFFF_FFFF
MAX_TIME_MS = 2**53 - 1

Hundredths = npt.NDArray[np.int32]
Phase = Literal["spread", "burst"]
_Array = TypeVar("_Array", bound=npt.NDArray[Any])


@dataclass(frozen=True, slots=True)
class RaceCalendar:
    """Races of one length in a row: race ``index`` starts at ``first_start_ms + index * length``.

    Starts are one length apart, so no two races of a calendar share an id. Classes that ride at the same time
    do share it.

    :raises ValueError: for a length that no race can have.
    """

    first_start_ms: int
    seconds: int = OFFICIAL_SECONDS

    def __post_init__(self) -> None:
        _whole("seconds", self.seconds, 1, MAX_SECONDS)

    @property
    def race_length_ms(self) -> int:
        return self.seconds * 1000

    def start_ms(self, index: int) -> int:
        """Start of race ``index`` in ms since the epoch."""
        return self.first_start_ms + index * self.race_length_ms

    def race_id(self, index: int) -> int:
        """``raceId`` of race ``index``: its start counted in whole race lengths."""
        return self.start_ms(index) // self.race_length_ms


class Place(NamedTuple):
    """A line of the leaderboard; ``place`` counts from 1, ``output`` has two decimals."""

    place: int
    racer_id: int
    output: float


@dataclass(frozen=True, eq=False)
class Truth:
    """What every leaderboard must say. Integers in hundredths of output are the truth, floats their face.

    ``output_by_second`` has shape (seconds, racers); row ``s - 1`` is the output *at* second ``s``, which is
    what a history compares across races. :attr:`best_so_far` is its running maximum: what a live board shows
    *after* that second.
    """

    racer_ids: Ids
    output_by_second: Hundredths

    @classmethod
    def of(cls, racer_ids: Ids, ride: Ride) -> Truth:
        """``(cadence + 35) * (resistance + 65) / 100`` to hundredths, half up, in integers."""
        output = ride.cadence_tenths.astype(np.int32)
        output += 350
        output *= ride.resistance_tenths + np.int16(650)
        output += 50
        output //= 100
        return cls(racer_ids, _read_only(output))

    @cached_property
    def best_hundredths(self) -> Hundredths:
        """Best output of each racer over the race, shape (racers,)."""
        return _read_only(self.output_by_second.max(axis=0))

    @property
    def final_hundredths(self) -> Hundredths:
        """Output of each racer in the last second, shape (racers,)."""
        final: Hundredths = self.output_by_second[-1]
        return final

    @property
    def best(self) -> npt.NDArray[np.float64]:
        """:attr:`best_hundredths` as the numbers that consumers store."""
        return self.best_hundredths / 100

    @property
    def final(self) -> npt.NDArray[np.float64]:
        """:attr:`final_hundredths` as the numbers that consumers store."""
        return self.final_hundredths / 100

    @cached_property
    def best_so_far(self) -> Hundredths:
        """Best output up to and including each second, shape (seconds, racers)."""
        return _read_only(np.maximum.accumulate(self.output_by_second, axis=0))

    def best_among(self, counted: npt.NDArray[np.bool_]) -> Hundredths:
        """Best of each racer over the messages marked in ``counted``, (seconds, racers); -1 where none is.

        :raises ValueError: when ``counted`` has another shape than the race.
        """
        shape = self.output_by_second.shape
        if counted.shape != shape:
            raise ValueError(f"counted must have the shape {shape} (seconds, racers), not {counted.shape}")
        best: Hundredths = np.max(self.output_by_second, axis=0, initial=-1, where=counted)
        return best

    def leaderboard(self, top: int, second: int | None = None) -> list[Place]:
        """The ``top`` racers by best output, over the race or up to ``second``; of equals the lower id leads.

        :raises ValueError: when ``top`` is below 1 or the race has no such ``second``.
        """
        best = self.best_hundredths
        if second is not None:
            seconds = len(self.output_by_second)
            best = self.output_by_second[: _whole("second", second, 1, seconds)].max(axis=0)
        order = np.lexsort((self.racer_ids, -best))[: _whole("top", top, 1, MAX_RACERS)]
        return [
            Place(place, racer_id, output / 100)
            for place, (racer_id, output) in enumerate(
                zip(self.racer_ids[order].tolist(), best[order].tolist(), strict=True), start=1
            )
        ]


@dataclass(frozen=True, eq=False)
class Race:
    """One race of one class. Everything per racer is in the same order; arrays are read-only.

    Not slotted: the truth and the encoder's pieces are made when first asked for, and kept.
    """

    race_id: int
    class_id: int
    start_ms: int
    seconds: int
    racer_ids: Ids
    names: tuple[str, ...]
    phases_ms: Ids
    ride: Ride
    uuid_prefix: str
    """The first 24 characters of every message's uuid, up to and with the fourth hyphen."""

    @property
    def end_ms(self) -> int:
        """End of the last second; every message is due before."""
        return self.start_ms + self.seconds * 1000

    @property
    def generated(self) -> int:
        """How many messages the race sends: one a biker and second."""
        return self.seconds * len(self.racer_ids)

    @cached_property
    def send_order(self) -> Ids:
        """Indices of racers in the order in which their messages fall due within any second."""
        return _read_only(np.argsort(self.phases_ms, kind="stable"))

    @cached_property
    def truth(self) -> Truth:
        """What is right, computed from the arrays."""
        return Truth.of(self.racer_ids, self.ride)

    def due_ms(self, second: int) -> Ids:
        """When each message of ``second`` is due, ms since the epoch, in racer order."""
        return self.phases_ms + (self.start_ms + (self._checked(second) - 1) * 1000)

    def messages(self, second: int) -> list[bytes]:
        """Every biker's message of ``second`` as UTF-8 JSON, in racer order."""
        row = self._checked(second) - 1
        pieces = self._pieces
        event = b"final" if second == self.seconds else b"update"
        clocks = [
            b'%04x","event":"%b","deviceTimestamp":%d' % (second, event, pieces.start_s + row + carry)
            for carry in (0, 1)
        ]
        cadence = (self.ride.cadence_tenths[row] - _CADENCE_BASE).tolist()
        resistance = (self.ride.resistance_tenths[row] - _RESISTANCE_BASE).tolist()
        parts = zip(
            pieces.heads,
            map(clocks.__getitem__, pieces.carries),
            pieces.millis,
            itertools.repeat(b"%d" % second, len(pieces.heads)),
            pieces.riders,
            map(_CADENCE_JSON.__getitem__, cadence),
            map(_RESISTANCE_JSON.__getitem__, resistance),
            strict=True,
        )
        return list(map(b"".join, parts))

    def _checked(self, second: int) -> int:
        return _whole("second", second, 1, self.seconds)

    @cached_property
    def _pieces(self) -> _Pieces:
        start_s, start_rest_ms = divmod(self.start_ms, 1000)
        carries, millis = np.divmod(self.phases_ms + start_rest_ms, 1000)
        millis_json = [b'%03d,"second":' % ms for ms in range(1000)]
        # Many racers share a name; each is escaped once.
        names_json = {name: json.dumps(name, ensure_ascii=False).encode() for name in set(self.names)}
        racer_ids = self.racer_ids.tolist()
        prefix = self.uuid_prefix.encode()
        return _Pieces(
            start_s=start_s,
            heads=[b'{"uuid":"%b%08x' % (prefix, racer_id) for racer_id in racer_ids],
            carries=carries.tolist(),
            millis=[millis_json[ms] for ms in millis.tolist()],
            riders=[
                b',"raceId":%d,"name":%b,"racerId":%d,"classId":%d,"cadence":'
                % (self.race_id, names_json[name], racer_id, self.class_id)
                for name, racer_id in zip(self.names, racer_ids, strict=True)
            ],
        )


@dataclass(frozen=True, slots=True)
class _Pieces:
    """What of a message stays the same all race, cut where something changes.

    A message is seven byte strings joined::

        {"uuid":"(prefix)(biker) | (second, hex)","event":"update","deviceTimestamp":(s) | (ms),"second": |
        17 | ,"raceId":(...),"cadence": | 80.4,"resistance": | 78.1}

    The timestamp is cut into seconds and milliseconds: a biker's milliseconds never change, and the seconds
    take one of two values, by whether the biker's phase carries over a whole second (``carries``).
    """

    start_s: int
    heads: list[bytes]
    carries: list[int]
    millis: list[bytes]
    riders: list[bytes]


def _tenths_json(form: bytes, low: int, high: int) -> list[bytes]:
    return [form % divmod(tenths, 10) for tenths in range(low, high + 1)]


_CADENCE_BASE = np.int16(CADENCE_MIN_TENTHS)
_RESISTANCE_BASE = np.int16(RESISTANCE_MIN_TENTHS)
_CADENCE_JSON = _tenths_json(b'%d.%d,"resistance":', CADENCE_MIN_TENTHS, CADENCE_MAX_TENTHS)
_RESISTANCE_JSON = _tenths_json(b"%d.%d}", RESISTANCE_MIN_TENTHS, RESISTANCE_MAX_TENTHS)


def plan_race(
    *,
    start_ms: int,
    racers: int = 1000,
    seconds: int = 60,
    class_id: int = 1,
    seed: int = 7,
    race_index: int = 0,
    first_racer_id: int = FIRST_RACER_ID,
    phase: Phase = "spread",
    uuid_prefix: str | None = None,
) -> Race:
    """Plan and ride one race.

    The same arguments give the same race, byte for byte; with another ``start_ms`` or without ``uuid_prefix``
    it differs in timestamps, race id and uuids alone. A biker rides the same whoever else is in the race, so
    a race can be shared out by ``first_racer_id`` and ``racers``. Classes that ride at the same time share
    the race id and need disjoint racer ids.

    :param start_ms: start of second 1, in ms since the epoch.
    :param race_index: which race of a league this is: the form of the day changes with it.
    :param phase: ``"spread"``: each biker sends at its own millisecond; ``"burst"``: all at the full second.
    :param uuid_prefix: the first 24 characters of a version 4 UUID; a random one when left out.
    :raises ValueError: one sentence on the first argument that is out of its range.
    """
    racers = _whole("racers", racers, 1, MAX_RACERS)
    seconds = _whole("seconds", seconds, 1, MAX_SECONDS)
    if racers * seconds > MAX_SAMPLES:
        raise ValueError(
            f"{racers:,} racers for {seconds:,} seconds make {racers * seconds:,} messages; a race holds at "
            f"most {MAX_SAMPLES:,}: ride fewer racers, or several shorter races"
        )
    class_id = _whole("class_id", class_id, min(COURSES), max(COURSES))
    start_ms = _whole("start_ms (milliseconds since the epoch)", start_ms, 1000, MAX_TIME_MS - seconds * 1000)
    seed = _whole("seed", seed, 0, MAX_SEED)
    race_index = _whole("race_index", race_index, 0, MAX_SEED)
    first_racer_id = _whole("first_racer_id", first_racer_id, 0, MAX_RACER_ID - racers + 1)
    if phase not in ("spread", "burst"):
        raise ValueError(f"phase must be 'spread' or 'burst', not {phase!r}")
    if uuid_prefix is None:
        uuid_prefix = str(uuid.uuid4())[:_UUID_PREFIX_CHARS]
    elif not _UUID_PREFIX.fullmatch(uuid_prefix):
        raise ValueError(
            f"uuid_prefix must be the first {_UUID_PREFIX_CHARS} characters of a lower-case version 4 UUID, "
            f"such as '6f1c0e52-8a34-4d07-9b1e-', not {uuid_prefix!r}"
        )
    racer_ids = _read_only(np.arange(first_racer_id, first_racer_id + racers, dtype=np.int64))
    if phase == "spread":
        phases_ms = peloton.spread_phases_ms(racer_ids, seed=seed, race_index=race_index, class_id=class_id)
    else:
        phases_ms = np.zeros(racers, np.int64)
    return Race(
        race_id=RaceCalendar(start_ms, seconds).race_id(0),
        class_id=class_id,
        start_ms=start_ms,
        seconds=seconds,
        racer_ids=racer_ids,
        names=peloton.racer_names(racer_ids),
        phases_ms=_read_only(phases_ms),
        ride=peloton.ride(racer_ids, seconds=seconds, class_id=class_id, seed=seed, race_index=race_index),
        uuid_prefix=uuid_prefix,
    )


_UUID_PREFIX_CHARS = 24
_UUID_PREFIX = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-")


def _whole(name: str, value: Any, low: int, high: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"{name} must be a whole number, not {value!r}") from None
    if not low <= number <= high:
        raise ValueError(f"{name} must be from {low:,} to {high:,}, not {number:,}")
    return number


def _read_only(array: _Array) -> _Array:
    array.flags.writeable = False
    return array
