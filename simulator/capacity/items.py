"""The items that our functions write, with the sizes that they really have (:mod:`consumers.store`).

How many racers a results item holds is counted, not followed one by one: a batch of ``n`` records has seen at most
``n`` racers of those whose messages come to its shard.
"""

from __future__ import annotations

import numpy as np

from simulator.capacity.arrivals import Indices, Kind
from simulator.capacity.improving import Improvements
from simulator.capacity.workload import START_MS, Riders
from simulator.cloud.item_size import Item, item_size, read_units


def _item(pk: str, sk: str, gsi: str, ts_ms: int = START_MS + 123) -> dict[str, dict[str, str]]:
    return {"PK": {"S": pk}, "SK": {"S": sk}, "GSI": {"N": gsi}, "ts": {"N": str(ts_ms)}}


class ResultsItem:
    """A race's results: how many racers it holds, by the shard that they come from (one where any shard has all)."""

    def __init__(self, key: Item, class_id: int, racers: int, result_bytes: float, *, by_shard: bool) -> None:
        self.key = key
        self.version = 0
        self._class_id = str(class_id)
        self._racers = racers
        self._result_bytes = result_bytes
        self._by_shard = by_shard
        self._known: dict[int, int] = {}
        self._image_now: Item | None = None
        self.read_units = read_units(0, consistent=True)

    @property
    def racers(self) -> int:
        return min(self._racers, sum(self._known.values()))

    def _with(self, shard: int, racers: int) -> dict[int, int]:
        place = shard if self._by_shard else 0
        return self._known | {place: max(racers, self._known.get(place, 0))}

    def lacks(self, shard: int, racers: int) -> bool:
        """Whether some of ``racers`` of that shard are not in it."""
        return self._known.get(shard if self._by_shard else 0, 0) < racers

    def take(self, shard: int, racers: int) -> None:
        """It was put with ``racers`` of that shard merged into it."""
        self._known = self._with(shard, racers)
        self.version += 1
        self._image_now = self._image(self.racers, self.version)
        self.read_units = read_units(item_size(self._image_now), consistent=True)

    def image(self) -> Item | None:
        """As it is; None before the first put. ``read_units`` is what a consistent read of it takes."""
        return self._image_now

    def image_with(self, shard: int, racers: int) -> Item:
        """As it would be with ``racers`` of that shard merged into it."""
        return self._image(min(self._racers, sum(self._with(shard, racers).values())), self.version + 1)

    def _image(self, racers: int, version: int) -> Item:
        """``ts`` is of the write, so that every put changes the entries of indexes too."""
        text = "x" * (1 + round(racers * self._result_bytes))
        keys = {name: value["S"] for name, value in self.key.items()}
        item = _item(keys["PK"], keys["SK"], self._class_id, START_MS + 123 + version)
        return item | {"results": {"S": text}}


class League:
    """The items of all races of a workload. ``seed`` is of what is drawn about them."""

    def __init__(self, riders: Riders, seed: int = 0) -> None:
        self._riders = riders
        self.improves = Improvements(riders, seed).any
        self._results: dict[tuple[int, int], ResultsItem] = {}
        self._outputs = 0
        workload = riders.workload
        # With a racer's key, each racer's messages come to one shard.
        self._by_shard = workload.partition_key == "racer"
        self._on_shard: dict[tuple[int, int], int] = {}
        shards = riders.shards_of_race(0) if self._by_shard else None
        if shards is not None:
            pairs = np.stack([shards, riders.class_place])
            for (shard, place), count in zip(*_counted(pairs), strict=True):
                self._on_shard[shard, place] = count

    def racers_on(self, shard: int) -> int:
        """At most how many racers' messages come to ``shard`` in a race."""
        if not self._by_shard:
            return self._riders.workload.bikers
        return sum(self._on_shard.get((shard, place), 0) for place in range(len(self._riders.workload.classes)))

    def racers_seen(self, shard: int, of: tuple[int, int], records: int) -> int:
        """At most how many racers of race and class ``of`` are behind ``records`` that came to ``shard``."""
        racers = self._riders.workload.racers
        return min(records, self._on_shard.get((shard, of[1]), 0) if self._by_shard else racers)

    def results(self, of: tuple[int, int]) -> ResultsItem:
        """The results item of that race and class."""
        known = self._results.get(of)
        if known is None:
            race, place = of
            workload = self._riders.workload
            class_id = workload.classes[place]
            sort_key = "results" if place == 0 else f"results-{class_id}"
            key = {"PK": {"S": self._race_key(race)}, "SK": {"S": sort_key}}
            result_bytes = self._riders.sizes.result_bytes
            known = ResultsItem(key, class_id, workload.racers, result_bytes, by_shard=self._by_shard)
            self._results[of] = known
        return known

    def all_results(self) -> list[ResultsItem]:
        """Those of every race and class."""
        workload = self._riders.workload
        return [self.results((race, place)) for race in range(workload.races) for place in range(len(workload.classes))]

    def finish_item(self, kind: Kind) -> Item:
        """A biker's item of a race."""
        return _item(self._race_key(kind.race), f"racer-{self._last_racer}", self._output())

    def best_item(self, kind: Kind) -> Item:
        """A biker's best of a class: two of them differ in it."""
        class_id = self._riders.workload.classes[kind.class_place]
        race_id = str(self._riders.calendar.race_id(kind.race))
        item = _item(f"class-{class_id}", f"racer-{self._last_racer}", self._output())
        return item | {"raceId": {"N": race_id}}

    def _output(self) -> str:
        """One after the other: the global index is spread by them."""
        self._outputs += 1
        return f"{40 + self._outputs % 59}.{self._outputs % 9 + 1}{self._outputs % 7 + 1}"

    @property
    def _last_racer(self) -> int:
        return int(self._riders.racer_ids[-1])

    def _race_key(self, race: int) -> str:
        return f"race-{self._riders.calendar.race_id(race)}"


def _counted(pairs: Indices) -> tuple[list[tuple[int, int]], list[int]]:
    found, counts = np.unique(pairs, axis=1, return_counts=True)
    return [(int(shard), int(place)) for shard, place in found.T.tolist()], counts.tolist()
