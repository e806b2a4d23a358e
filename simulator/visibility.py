"""When each result could be read on the results topic: the ``visible`` latency of a race.

A results message shows each racer's best output so far. A telemetry message changes what is shown when its output is
above everything the racer sent before; it is visible from the first results message that shows at least that output.
Messages that change nothing are never seen by anybody and are not measured.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from simulator.race import Race


class _Results(msgspec.Struct):
    """A message of the publish function."""

    raceId: int  # noqa: N815 - the wire's name
    classId: int  # noqa: N815
    results: dict[str, float]
    msg: str = ""


_decode = msgspec.json.Decoder(_Results).decode


class _Board:
    """What has been shown of one class of one race."""

    def __init__(self, race: Race, sent: npt.NDArray[np.bool_]) -> None:
        truth = np.where(sent, race.truth.output_by_second, -1)
        self.best = np.maximum.accumulate(truth, axis=0)
        before = np.vstack([np.full((1, truth.shape[1]), -1, truth.dtype), self.best[:-1]])
        self.changes = self.best > before
        self.due_ms = race.phases_ms[None, :] + (race.start_ms + 1000 * np.arange(race.seconds))[:, None]
        self.visible_ms = np.full(truth.shape, np.nan)
        self.first_racer_id = int(race.racer_ids[0])
        self.shown = np.zeros(truth.shape[1], np.int64)

    def show(self, results: Mapping[str, float], at_ms: float) -> None:
        ids = np.fromiter(map(int, results), np.int64, len(results)) - self.first_racer_id
        values = np.rint(np.fromiter(results.values(), np.float64, len(results)) * 100).astype(np.int64)
        inside = (ids >= 0) & (ids < len(self.shown))
        ids, values = ids[inside], values[inside]
        # Seconds whose best is at or below what is shown: a running maximum never falls, so they are a prefix.
        reached = (self.best[:, ids] <= values).sum(axis=0)
        for racer in np.flatnonzero(reached > self.shown[ids]).tolist():
            column, start, end = ids[racer], self.shown[ids[racer]], reached[racer]
            self.visible_ms[start:end, column] = at_ms
            self.shown[column] = end


class Visibility:
    """Takes every message of the results topic, for the races it was made for."""

    def __init__(self, races: Sequence[Race], sent: Mapping[int, npt.NDArray[np.bool_]]) -> None:
        """``sent``: by ``id(race)``, which messages there are, shape (seconds, racers)."""
        self._boards = {(race.race_id, race.class_id): _Board(race, sent[id(race)]) for race in races}
        self.messages = 0
        self.largest_bytes = 0

    def seen(self, payload: bytes, at_s: float) -> None:
        """A message came at ``at_s``. What is no results message of these races is passed over."""
        with contextlib.suppress(msgspec.DecodeError, ValueError, UnicodeDecodeError):
            message = _decode(payload)
            board = self._boards.get((message.raceId, message.classId))
            if board is not None:
                self.messages += 1
                self.largest_bytes = max(self.largest_bytes, len(payload))
                board.show(message.results, at_s * 1000)

    def unseen(self, arrived: Mapping[tuple[int, int], npt.NDArray[np.bool_]]) -> int:
        """Arrived messages that changed a best and were not shown yet."""
        return sum(
            int((board.changes & arrived[key] & np.isnan(board.visible_ms)).sum())
            for key, board in self._boards.items()
            if key in arrived
        )

    def latencies_ms(self, arrived: Mapping[tuple[int, int], npt.NDArray[np.bool_]]) -> npt.NDArray[np.float64]:
        """From the intended send time to the results message, of every arrived message that changed a best."""
        parts = []
        for key, board in self._boards.items():
            if key in arrived:
                chosen = board.changes & arrived[key] & ~np.isnan(board.visible_ms)
                parts.append((board.visible_ms - board.due_ms)[chosen])
        return np.concatenate(parts) if parts else np.zeros(0)


def percentiles(values: npt.NDArray[np.float64]) -> dict[str, float]:
    """p50, p99 and max as report.json has them, nearest rank; empty of nothing."""
    if not len(values):
        return {}
    ordered = np.sort(values)
    return {
        name: round(float(ordered[max(0, int(np.ceil(share * len(ordered))) - 1)]), 3)
        for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
    }
