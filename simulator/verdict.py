"""The verdict: what the table says against what really happened.

The simulator generated every message, so it knows every right answer. Expected values come from the generator's
integer arrays (:mod:`simulator.race`), stored ones are read back through DynamoDB's public API, and the two are
compared in exact hundredths. Consumer code is not used anywhere on the way.

Messages that were counted lost are left out of the expectation, so a race with losses is still judged on every
number: a result is right when it is the truth over the messages that were delivered. A message whose fate is
unknown (its last attempt got no answer) may be stored or not; both are right.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

Hundredths = int
# What a racer may show: usually one value, two when a message's fate is unknown; None means "no item".
Allowed = tuple[Hundredths | None, ...]


@dataclass(frozen=True, slots=True)
class Expectation:
    """What one class of one race must leave behind, by racer id."""

    race_id: int
    class_id: int
    best: Mapping[int, Allowed]
    final: Mapping[int, Allowed]


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the verdict. ``wrong`` counts values that differ and values nobody should have."""

    name: str
    expected: int
    matched: int
    missing: int
    wrong: int
    examples: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return self.matched == self.expected and not self.missing and not self.wrong

    def to_json(self) -> dict[str, Any]:
        told: dict[str, Any] = {
            "name": self.name,
            "expected": self.expected,
            "matched": self.matched,
            "missing": self.missing,
            "wrong": self.wrong,
        }
        if self.examples:
            told["examples"] = list(self.examples)
        return told


@dataclass(frozen=True, slots=True)
class Verdict:
    """Passed when every check passed; a verdict without checks has not been reached and is not passed."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        return bool(self.checks) and all(check.passed for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        return {"passed": self.passed, "checks": [check.to_json() for check in self.checks]}


@dataclass(slots=True)
class StoredResults:
    """What the table holds of some races: values in hundredths, None where the stored text is no number."""

    results: dict[tuple[int, int], dict[int, Hundredths | None]] = field(default_factory=dict)
    finals: dict[int, dict[int, Hundredths | None]] = field(default_factory=dict)
    records: dict[int, dict[int, Hundredths | None]] = field(default_factory=dict)


def read_results(client: Any, table: str, races: Iterable[int], classes: Iterable[int]) -> StoredResults:
    """Read back everything that ``races`` and ``classes`` left in ``table``, strongly consistent.

    :param client: a boto3 DynamoDB client; its retries carry throttled reads.
    """
    stored = StoredResults()
    for race_id in races:
        finals = stored.finals.setdefault(race_id, {})
        for item in _query(client, table, f"race-{race_id}"):
            sort_key = item["SK"]["S"]
            if sort_key.startswith("results"):
                class_id = int(item["GSI"]["N"])
                stored.results[race_id, class_id] = _outputs(item)
            elif sort_key.startswith("racer-"):
                finals[int(sort_key.removeprefix("racer-"))] = hundredths(item["GSI"]["N"])
    for class_id in classes:
        stored.records[class_id] = {
            int(item["SK"]["S"].removeprefix("racer-")): hundredths(item["GSI"]["N"])
            for item in _query(client, table, f"class-{class_id}")
            if item["SK"]["S"].startswith("racer-")
        }
    return stored


def _query(client: Any, table: str, partition: str) -> Iterable[dict[str, Any]]:
    pages = client.get_paginator("query").paginate(
        TableName=table,
        KeyConditionExpression="PK = :pk",
        ExpressionAttributeValues={":pk": {"S": partition}},
        ConsistentRead=True,
    )
    for page in pages:
        yield from page["Items"]


def _outputs(item: Mapping[str, Any]) -> dict[int, Hundredths | None]:
    try:
        found = json.loads(item["results"]["S"], parse_float=str, parse_int=str)
        return {int(racer): hundredths(output) for racer, output in found.items()}
    except (KeyError, ValueError, AttributeError, TypeError):
        return {}


def hundredths(text: Any) -> Hundredths | None:
    """Exact hundredths of a decimal number's text; None when it is not one or has more decimals."""
    try:
        scaled = Decimal(text) * 100
    except (InvalidOperation, TypeError, ValueError):
        return None
    return int(scaled) if scaled.is_finite() and scaled == scaled.to_integral_value() else None


def judge(
    expectations: Sequence[Expectation],
    stored: StoredResults,
    baseline: Mapping[int, Mapping[int, Hundredths | None]] | None = None,
) -> list[Check]:
    """Compare results, finals and class records with the truth.

    ``baseline`` holds the class records that stood in the table before the races (class id to racer id to
    hundredths): a record may stand if nobody beat it.
    """
    return [
        _compare(
            "race results",
            ((e.best, stored.results.get((e.race_id, e.class_id), {}), f"race {e.race_id}") for e in expectations),
        ),
        _compare("final results", _finals(expectations, stored)),
        _compare("class records", _records(expectations, stored, baseline or {})),
    ]


Comparison = tuple[Mapping[int, Allowed], Mapping[int, Hundredths | None], str]


def _finals(expectations: Sequence[Expectation], stored: StoredResults) -> Iterable[Comparison]:
    """Racer items of a race id hold every class that rode at that time."""
    by_race: dict[int, dict[int, Allowed]] = {}
    for one in expectations:
        by_race.setdefault(one.race_id, {}).update(one.final)
    for race_id, final in by_race.items():
        yield final, stored.finals.get(race_id, {}), f"race {race_id} final"


def _records(
    expectations: Sequence[Expectation],
    stored: StoredResults,
    baseline: Mapping[int, Mapping[int, Hundredths | None]],
) -> Iterable[Comparison]:
    by_class: dict[int, dict[int, set[Hundredths | None]]] = {}
    for class_id in {one.class_id for one in expectations}:
        by_class[class_id] = {racer: {best} for racer, best in baseline.get(class_id, {}).items()}
    for one in expectations:
        records = by_class[one.class_id]
        for racer, allowed in one.final.items():
            before = records.get(racer, {None})
            records[racer] = {_better(was, now) for was in before for now in allowed}
    for class_id, records in by_class.items():
        expected = {racer: tuple(values) for racer, values in records.items()}
        yield expected, stored.records.get(class_id, {}), f"class {class_id} record"


def _better(one: Hundredths | None, other: Hundredths | None) -> Hundredths | None:
    known = [value for value in (one, other) if value is not None]
    return max(known) if known else None


def _compare(name: str, comparisons: Iterable[Comparison]) -> Check:
    expected = matched = missing = wrong = 0
    examples: list[str] = []
    for truth, found, where in comparisons:
        for racer, allowed in truth.items():
            if racer not in found:
                if None in allowed:
                    continue
                expected += 1
                missing += 1
                examples.append(f"{where}, racer {racer}: expected {_show(allowed)}, nothing stored")
                continue
            expected += 1
            if found[racer] in allowed and found[racer] is not None:
                matched += 1
            else:
                wrong += 1
                examples.append(f"{where}, racer {racer}: expected {_show(allowed)}, stored {_show((found[racer],))}")
        for racer in found.keys() - truth.keys():
            wrong += 1
            examples.append(f"{where}, racer {racer}: nobody of that id rode, stored {_show((found[racer],))}")
    return Check(name, expected, matched, missing, wrong, tuple(examples[:5]))


def _show(values: Allowed) -> str:
    return " or ".join("nothing" if value is None else f"{value / 100:.2f}" for value in values)
