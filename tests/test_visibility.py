"""The visible latency: from the intended send time to the first results message that shows it."""

from __future__ import annotations

import json
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.race import Race, plan_race
from simulator.visibility import Visibility, percentiles

SECONDS, RACERS = 8, 4


def a_race(class_id: int = 1) -> Race:
    return plan_race(start_ms=1_800_000_000_000, racers=RACERS, seconds=SECONDS, class_id=class_id)


def everything(race: Race) -> dict[int, np.ndarray]:
    return {id(race): np.ones((SECONDS, RACERS), dtype=bool)}


def message(race: Race, up_to: int, racers: list[int] | None = None) -> bytes:
    """What the publish function sends when it knows the first ``up_to`` seconds."""
    best = race.truth.output_by_second[:up_to].max(axis=0)
    chosen = range(RACERS) if racers is None else racers
    results = {str(int(race.racer_ids[index])): int(best[index]) / 100 for index in chosen}
    return json.dumps({"msg": "results", "raceId": race.race_id, "classId": race.class_id, "results": results}).encode()


@given(st.lists(st.integers(1, SECONDS), min_size=1, max_size=5).map(sorted))
@settings(max_examples=60, deadline=None)
def test_a_message_is_visible_from_the_first_results_that_hold_it(shown: list[int]) -> None:
    race = a_race()
    visibility = Visibility([race], everything(race))
    for number, up_to in enumerate(shown):
        visibility.seen(message(race, up_to), race.start_ms / 1000 + 100 + number)
    arrived = {(race.race_id, 1): np.ones((SECONDS, RACERS), dtype=bool)}
    found = sorted(visibility.latencies_ms(arrived).tolist())

    expected = []
    outputs = np.asarray(race.truth.output_by_second)
    for index in range(RACERS):
        for second in range(SECONDS):
            if second and outputs[second, index] <= outputs[:second, index].max():
                continue
            first = next((n for n, up_to in enumerate(shown) if up_to > second), None)
            if first is not None:
                due_ms = race.start_ms + 1000 * second + int(race.phases_ms[index])
                expected.append(race.start_ms + 100_000 + 1000 * first - due_ms)
    assert np.allclose(found, sorted(expected), atol=1e-3)
    changes = sum(
        int(not second or outputs[second, index] > outputs[:second, index].max())
        for index in range(RACERS)
        for second in range(SECONDS)
    )
    assert visibility.unseen(arrived) == changes - len(expected)


def test_lost_messages_and_other_races_are_not_measured() -> None:
    race, other = a_race(), a_race(class_id=2)
    visibility = Visibility([race], everything(race))
    visibility.seen(message(other, SECONDS), 1_800_000_100.0)
    for junk in (b"", b"{}", b"\xff", b'{"raceId": "x"}', json.dumps({"msg": "hello"}).encode()):
        visibility.seen(junk, 1_800_000_100.0)
    assert visibility.messages == 0
    visibility.seen(message(race, SECONDS), 1_800_000_100.0)
    assert visibility.messages == 1
    nothing = {(race.race_id, 1): np.zeros((SECONDS, RACERS), dtype=bool)}
    assert len(visibility.latencies_ms(nothing)) == 0
    assert visibility.unseen(nothing) == 0


def test_parts_of_one_results_message_add_up() -> None:
    race = a_race()
    visibility = Visibility([race], everything(race))
    visibility.seen(message(race, SECONDS, [0, 1]), 1_800_000_100.0)
    arrived = {(race.race_id, 1): np.ones((SECONDS, RACERS), dtype=bool)}
    assert visibility.unseen(arrived) > 0
    visibility.seen(message(race, SECONDS, [2, 3]), 1_800_000_101.0)
    assert visibility.unseen(arrived) == 0


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300))
def test_percentiles_are_values_that_occurred(values: list[float]) -> None:
    found = percentiles(np.array(values))
    ordered = sorted(values)
    assert math.isclose(found["p50"], ordered[math.ceil(0.5 * len(ordered)) - 1], abs_tol=1e-3)
    assert math.isclose(found["p99"], ordered[math.ceil(0.99 * len(ordered)) - 1], abs_tol=1e-3)
    assert math.isclose(found["max"], ordered[-1], abs_tol=1e-3)
    assert percentiles(np.zeros(0)) == {}
