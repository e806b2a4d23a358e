"""The verdict must see every kind of mistake: a judge that cannot fail is no judge."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.expectation import expectation
from simulator.race import plan_race
from simulator.verdict import Check, Expectation, StoredResults, Verdict, hundredths, judge


def stored(best: Mapping[int, int | None], final: Mapping[int, int | None]) -> StoredResults:
    return StoredResults({(7, 1): dict(best)}, {7: dict(final)}, {1: dict(final)})


TRUTH = Expectation(7, 1, {100: (15_000,), 101: (16_001,)}, {100: (14_000,), 101: (16_001,)})
BEST, FINAL = {100: 15_000, 101: 16_001}, {100: 14_000, 101: 16_001}


def test_right_results_pass() -> None:
    checks = judge([TRUTH], stored(BEST, FINAL))
    assert all(check.passed for check in checks)
    assert [(check.name, check.expected, check.matched) for check in checks] == [
        ("race results", 2, 2),
        ("final results", 2, 2),
        ("class records", 2, 2),
    ]


@pytest.mark.parametrize(
    ("best", "final", "failing"),
    [
        ({100: 15_000}, FINAL, {"race results"}),
        (BEST | {101: 16_000}, FINAL, {"race results"}),
        (BEST | {999: 1}, FINAL, {"race results"}),
        (BEST | {100: None}, FINAL, {"race results"}),
        (BEST, {100: 14_000}, {"final results", "class records"}),
        ({}, {}, {"race results", "final results", "class records"}),
    ],
)
def test_every_mistake_fails(
    best: Mapping[int, int | None], final: Mapping[int, int | None], failing: set[str]
) -> None:
    checks = judge([TRUTH], stored(best, final))
    assert {check.name for check in checks if not check.passed} == failing
    assert all(check.examples for check in checks if not check.passed)
    assert not Verdict(tuple(checks)).passed


def test_no_checks_is_not_passed() -> None:
    assert not Verdict(()).passed
    assert Verdict((Check("x", 0, 0, 0, 0),)).passed


def test_a_class_record_may_be_an_older_one() -> None:
    good = StoredResults({(7, 1): BEST}, {7: FINAL}, {1: {100: 20_000, 101: 16_001, 555: 9_000}})  # type: ignore[dict-item]
    baseline = {1: {100: 20_000, 101: 15_000, 555: 9_000}}
    assert all(check.passed for check in judge([TRUTH], good, baseline))
    assert not judge([TRUTH], good, {1: {100: 19_000, 101: 15_000, 555: 9_000}})[2].passed


def test_a_message_of_unknown_fate_allows_both() -> None:
    either = Expectation(7, 1, {100: (15_000, 15_500)}, {100: (None, 14_000)})
    for best, final in (({100: 15_000}, {100: 14_000}), ({100: 15_500}, {})):
        assert all(check.passed for check in judge([either], stored(best, final)))
    assert not judge([either], stored({100: 15_250}, {}))[0].passed


def test_two_races_of_one_id_are_told_apart_by_class() -> None:
    other = Expectation(7, 2, {200: (1_000,)}, {200: (900,)})
    found = StoredResults(
        {(7, 1): dict(BEST), (7, 2): {200: 1_000}}, {7: FINAL | {200: 900}}, {1: dict(FINAL), 2: {200: 900}}
    )
    assert all(check.passed for check in judge([TRUTH, other], found))


@given(st.integers(-(10**9), 10**9))
def test_hundredths_are_exact(value: int) -> None:
    assert hundredths(f"{value / 100:.2f}") == value


@pytest.mark.parametrize("text", ["", "x", "1.234", "NaN", "Infinity", None, [], {}])
def test_what_is_no_hundredths(text: object) -> None:
    assert hundredths(text) is None


@given(st.sets(st.tuples(st.integers(0, 9), st.integers(1, 12)), max_size=40), st.integers(0, 12))
def test_expectations_leave_out_what_was_lost(lost: set[tuple[int, int]], seconds: int) -> None:
    race = plan_race(start_ms=1_800_000_000_000, racers=10, seconds=12)
    lost = {(index, second) for index, second in lost if second <= seconds}
    sent, gone = np.zeros((12, 10), dtype=bool), np.zeros((12, 10), dtype=bool)
    sent[:seconds] = True
    for index, second in lost:
        gone[second - 1, index] = True
    found = expectation(race, sent & ~gone, sent & gone)
    outputs = np.asarray(race.truth.output_by_second)
    for index, racer in enumerate(race.racer_ids.tolist()):
        kept = [int(outputs[s - 1, index]) for s in range(1, seconds + 1) if (index, s) not in lost]
        missed = [int(outputs[s - 1, index]) for s in range(1, seconds + 1) if (index, s) in lost]
        if kept:
            assert max(kept) in found.best[racer]
        if kept or missed:
            assert max(kept + missed) in found.best[racer]
            assert (None in found.best[racer]) == (not kept)
        else:
            assert racer not in found.best
        assert (racer in found.final) == (seconds == 12)
