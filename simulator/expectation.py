"""What a race must leave in the table, given which of its messages were stored."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from simulator.race import Race
from simulator.verdict import Allowed, Expectation

Mask = npt.NDArray[np.bool_]
"""Of a race's messages, shape (seconds, racers)."""


def sends_of(race: Race, interval_s: int = 1) -> Mask:
    """Which messages there are when each biker sends every ``interval_s`` seconds, and in the last one."""
    seconds, racers = np.arange(race.seconds)[:, None], np.arange(len(race.racer_ids))[None, :]
    sends: Mask = (seconds - racers) % interval_s == 0
    sends[-1] = True
    return sends


def expectation(race: Race, certain: Mask, possible: Mask | None = None) -> Expectation:
    """The results that the messages in ``certain`` leave behind.

    Those in ``possible`` may have been stored too (the last attempt at a lost message got no answer): a result with
    or without them is right.
    """
    truth = race.truth
    racers = race.racer_ids.tolist()
    best_of_certain = truth.best_among(certain).tolist()
    maybe: dict[int, list[int]] = {}
    if possible is not None:
        for row, index in np.argwhere(possible).tolist():
            maybe.setdefault(index, []).append(int(truth.output_by_second[row, index]))
    best: dict[int, Allowed] = {}
    final: dict[int, Allowed] = {}
    for index, racer in enumerate(racers):
        sure = best_of_certain[index] if best_of_certain[index] >= 0 else None
        values = {sure, *(one for one in maybe.get(index, ()) if sure is None or one > sure)}
        if values != {None}:
            best[racer] = tuple(values)
        last = int(truth.final_hundredths[index])
        if certain[-1, index]:
            final[racer] = (last,)
        elif possible is not None and possible[-1, index]:
            final[racer] = (None, last)
    return Expectation(race.race_id, race.class_id, best, final)
