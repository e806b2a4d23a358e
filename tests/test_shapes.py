"""Loads over time: what they add up to, and a search against a bucket whose limit is known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests import shapes
from loadtests.shapes import Outcome, SearchSettings, Step, Walk


def walked(plan: shapes.Plan, outcome: Outcome | None = None) -> list[Step]:
    found = []
    step = next(plan, None)
    while step is not None:
        found.append(step)
        try:
            step = plan.send(outcome or Outcome())
        except StopIteration:
            break
    return found


def test_steps_go_on_after_a_break() -> None:
    broken = Outcome(reason="throttled")
    assert [one.rate for one in walked(shapes.steps([100, 200, 300], 5), broken)] == [100, 200, 300]


def test_a_ramp_is_a_straight_line() -> None:
    (step,) = walked(shapes.ramp(100, 300, 10))
    assert [step.rate_at(second) for second in (0, 2.5, 5, 10, 99)] == [100, 150, 200, 300, 300]
    assert step.units(10) == pytest.approx(2000)
    assert step.units(11) == pytest.approx(2300)


def test_a_spike_comes_back_to_where_it_began() -> None:
    assert [(one.rate, one.seconds) for one in walked(shapes.spike(10, 90, 5, 20))] == [(10, 20), (90, 5), (10, 20)]


@given(rate=st.floats(1, 1e5), seconds=st.floats(1, 86_400))
def test_a_soak_is_judged_in_slices_that_add_up(rate: float, seconds: float) -> None:
    found = walked(shapes.soak(rate, seconds))
    assert sum(one.seconds for one in found) == pytest.approx(seconds)
    assert all(one.rate == rate and one.judged for one in found)


def test_a_race_day_is_two_races_with_joining_riding_finish_and_a_pause() -> None:
    found = walked(shapes.race_day(1000, 2, join_s=30, race_s=300))
    assert [one.purpose for one in found] == ["ramp", "step", "burst", "rest", "ramp", "step", "burst"]
    assert sum(one.seconds for one in found if one.purpose in ("step", "burst")) == 600
    ridden = sum(one.units(one.seconds) for one in found if one.purpose != "ramp")
    assert ridden == pytest.approx(2 * 300 * 1000)


def test_a_burst_is_a_number_however_long_its_step_takes() -> None:
    rest, burst, afterwards = walked(shapes.burst(1000, 10, 5))
    assert burst.units(1.25) == burst.units(1.0) == 1000
    assert not rest.judged
    assert not afterwards.judged
    assert burst.judged


class Bucket:
    """A service of one limit: answers each step as it would."""

    def __init__(self, limit: float, burst: float) -> None:
        self.limit, self.level, self.burst = limit, burst, burst

    def answer(self, step: Step) -> Outcome:
        refused_at = None
        elapsed, refused = 0.0, 0.0
        while elapsed < step.seconds:
            self.level = min(self.level + self.limit * 0.1, self.burst)
            taken = min(step.rate * 0.1, self.level)
            self.level -= taken
            short = step.rate * 0.1 - taken
            elapsed += 0.1
            if short > 1e-9:
                refused += short
                refused_at = elapsed if refused_at is None else refused_at
                seen = Outcome(throttled_seconds=elapsed - refused_at)
                if step.until is not None and step.until(seen):
                    break
        share = refused / (step.rate * elapsed) if step.rate else 0.0
        return Outcome(
            offered_per_second=step.rate,
            accepted_per_second=self.limit if refused else step.rate,
            throttled_share=share,
            reason="throttled" if share > 0.01 else None,
        )


@given(
    limit=st.floats(1, 1e6),
    burst_s=st.floats(0.1, 60),
    start=st.floats(0.05, 5),
    precision=st.floats(0.005, 0.1),
)
def test_a_search_ends_at_the_knee(limit: float, burst_s: float, start: float, precision: float) -> None:
    how = SearchSettings(start=limit * start, ceiling=limit * 50, rest_s=1, precision=precision, drain_s=200)
    bucket = Bucket(limit, limit * burst_s)
    plan = shapes.search(how)
    step = next(plan)
    held, broke, steps = 0.0, float("inf"), 0
    while True:
        outcome = bucket.answer(step)
        if step.purpose == "trial":
            if outcome.held:
                held = max(held, step.rate)
            else:
                broke = min(broke, step.rate)
        steps += 1
        assert steps < 60
        try:
            step = plan.send(outcome)
        except StopIteration:
            break
    # A trial is broken from 1 % above the limit on.
    assert held == pytest.approx(limit * 1.01, rel=precision + 0.02)
    assert held < broke


def test_a_search_that_meets_no_limit_ends_at_its_ceiling() -> None:
    found = walked(shapes.search(SearchSettings(start=100, ceiling=1000)), Outcome())
    assert [one.purpose for one in found] == ["climb"] * len(found)
    assert found[-1].rate == 1000


def test_a_search_that_is_not_delivered_ends_without_bisecting() -> None:
    found = walked(shapes.search(SearchSettings(start=100, ceiling=1000)), Outcome(saturated=True))
    assert len(found) == 1


@pytest.mark.parametrize(
    "given",
    [
        {"start": 0.0, "ceiling": 1.0},
        {"start": 2.0, "ceiling": 1.0},
        {"start": 1.0, "ceiling": 2.0, "factor": 1.0},
        {"start": 1.0, "ceiling": 2.0, "precision": 1.0},
        {"start": 1.0, "ceiling": 2.0, "stage_s": 0.0},
    ],
)
def test_a_search_that_cannot_be_is_refused(given: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="a search goes from"):
        SearchSettings(**given)


def test_a_walk_ends_a_step_by_time_or_by_what_it_waited_for() -> None:
    walk = Walk(shapes.search(SearchSettings(start=10, ceiling=10, stage_s=4)))
    walk.begin(100.0)
    assert not walk.over(103.9, Outcome())
    assert walk.over(104.0, Outcome())
    throttled = Outcome(throttled_share=0.5, throttled_seconds=1, accepted_per_second=5, reason="throttled")
    hold = walk.advance(104.0, throttled)
    assert hold is not None
    assert hold.purpose == "hold"
    assert not walk.over(105.0, throttled)
    assert walk.over(105.0, Outcome(throttled_seconds=8))
