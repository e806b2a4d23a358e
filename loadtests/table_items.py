"""What load tests write to and read from the table: results items, finishes, leaderboards, in the table's own form.

The numbers are a race's truth, so sizes are those of real items; see :mod:`consumers.store` for what the keys mean.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from consumers.store import decimal_text
from loadtests.aws_json import decoded
from loadtests.resources import Index, Table
from simulator.race import FIRST_RACER_ID, Race, plan_race

RACES = 32
"""Race ids in turn, so that no partition of the table gets all; a partition takes 1,000 WCU/s whatever is bought."""
_WINDOW_S, _RACE_S = 5, 100

Item = dict[str, dict[str, str]]


class TableItems:
    """Requests to ``table`` about races of ``racers`` bikers. Every worker (``index``) has races of its own."""

    def __init__(self, table: Table, racers: int, seed: int, index: int) -> None:
        self.table = table
        self._race: Race = plan_race(
            start_ms=1_620_240_600_000 + index * RACES * _RACE_S * 1000,
            racers=racers,
            seconds=_RACE_S,
            seed=seed,
            first_racer_id=FIRST_RACER_ID + index * racers,
        )
        self._results = itertools.cycle(self._windows())
        self._finish = itertools.cycle(self._finishes())
        self._races = itertools.cycle(range(self._race.race_id, self._race.race_id + RACES))
        self._reads = itertools.count()

    def results(self) -> bytes:
        """The body of the next PutItem of a results item."""
        item = self._item(f"race-{next(self._races)}", "results", str(self._race.class_id))
        item["results"] = {"S": next(self._results)}
        return msgspec.json.encode({"TableName": self.table.name, "Item": item, "ReturnConsumedCapacity": "INDEXES"})

    def finishes(self, number: int) -> list[dict[str, Any]]:
        """The next ``number`` racers' finishes, as BatchWriteItem takes them."""
        return [
            {"PutRequest": {"Item": self._item(f"race-{self._race.race_id}", f"racer-{racer_id}", output)}}
            for racer_id, output in itertools.islice(self._finish, number)
        ]

    def batch(self, requests: Sequence[Mapping[str, Any]]) -> bytes:
        """The body of a BatchWriteItem."""
        return msgspec.json.encode({"RequestItems": {self.table.name: requests}, "ReturnConsumedCapacity": "INDEXES"})

    def query(self, read: str, consistent: bool) -> tuple[Index, bytes]:
        """The next leaderboard query and its index: ``race`` asks the local one, ``class`` the global, or in turn."""
        kind = {"race": "LSI", "class": "GSI"}.get(read) or ("LSI", "GSI")[next(self._reads) % 2]
        index = self.table.index(kind) or self.table.index("LSI") or self.table.index("GSI")
        if index is None:
            raise ValueError(f"the table {self.table.name} has no index to ask for a leaderboard")
        request: dict[str, Any] = {
            "TableName": self.table.name,
            "IndexName": index.name,
            "ReturnConsumedCapacity": "INDEXES",
        }
        if index.kind == "LSI":
            request |= {
                "KeyConditionExpression": "PK = :pk",
                "ExpressionAttributeValues": {":pk": {"S": f"race-{self._race.race_id}"}},
                "ScanIndexForward": False,
                "Limit": 10,
                "ConsistentRead": consistent,
            }
        else:
            # A global index answers eventually or not at all: strong reads are refused there.
            request |= {
                "KeyConditionExpression": "GSI = :class AND begins_with(SK, :results)",
                "ExpressionAttributeValues": {":class": {"N": str(self._race.class_id)}, ":results": {"S": "results"}},
                "Limit": 10,
            }
        return index, msgspec.json.encode(request)

    def seeds(self) -> list[dict[str, Any]]:
        """Items that queries find: a race's finishes, and the results of some races, as BatchWriteItem takes them."""
        races = range(self._race.race_id, self._race.race_id + 10)
        results = [self._item(f"race-{race_id}", "results", str(self._race.class_id)) for race_id in races]
        return [
            *self.finishes(len(self._race.racer_ids)),
            *({"PutRequest": {"Item": {**one, "results": {"S": next(self._results)}}}} for one in results),
        ]

    def _item(self, pk: str, sk: str, gsi: str) -> Item:
        return {"PK": {"S": pk}, "SK": {"S": sk}, "GSI": {"N": gsi}, "ts": {"N": str(time.time_ns() // 1_000_000)}}

    def _windows(self) -> list[str]:
        """The text of ``results`` as it stands after each window of the race."""
        ids = [str(racer_id) for racer_id in self._race.racer_ids.tolist()]
        so_far = self._race.truth.best_so_far[_WINDOW_S - 1 :: _WINDOW_S] / 100
        return [msgspec.json.encode(dict(zip(ids, row.tolist(), strict=True))).decode() for row in so_far]

    def _finishes(self) -> list[tuple[int, str]]:
        hundredths = self._race.truth.final_hundredths.tolist()
        return [
            (racer_id, decimal_text(output))
            for racer_id, output in zip(self._race.racer_ids.tolist(), hundredths, strict=True)
        ]


def capacity_of(told: Mapping[str, Any]) -> dict[str, float]:
    """Units by resource in an answer's ``ConsumedCapacity``: the table with its local indexes, and each GSI."""
    found: dict[str, float] = {}
    consumed = told.get("ConsumedCapacity") or []
    for one in consumed if isinstance(consumed, list) else [consumed]:
        table = one["TableName"].rpartition("/")[2]
        glob = {name: units["CapacityUnits"] for name, units in (one.get("GlobalSecondaryIndexes") or {}).items()}
        for name, units in glob.items():
            found[f"{table}/{name}"] = found.get(f"{table}/{name}", 0.0) + units
        found[table] = found.get(table, 0.0) + one["CapacityUnits"] - sum(glob.values())
    return found


def refused_resource(body: bytes, message: str, table: Table) -> str:
    """Which resource a throttle is about: by its ``ThrottlingReasons``, else by the words of the message."""
    told = decoded(body)
    reasons = told.get("ThrottlingReasons") or told.get("throttlingReasons") or []
    if reasons:
        # The first is what the message speaks of.
        _, is_index, index = str(reasons[0].get("resource", "")).partition("/index/")
        return f"{table.name}/{index}" if is_index else table.name
    index_named = table.index("GSI")
    if index_named is not None and "global secondary index" in message:
        return f"{table.name}/{index_named.name}"
    return table.name
