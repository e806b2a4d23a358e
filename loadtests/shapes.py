"""Load over time as plans: what rate to offer next, given what became of the last.

A plan is a generator. It yields a :class:`Step`, hears the step's :class:`Outcome` when the step has ended, and
yields the next; so a search that doubles and bisects reads like one, and a test can play the service. Rates are in
the scenario's unit a second, over all workers. Nothing here knows Locust or a clock.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace

Plan = Generator["Step", "Outcome", None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step showed. ``reason`` says why the objectives broke, None when they held.

    ``saturated``: the load was not delivered as planned, so a break says nothing of the service's limits.
    ``throttled_seconds`` is for how long refusals have come, ``accepted_per_second`` the rate over the last seconds.
    """

    offered_per_second: float = 0.0
    accepted_per_second: float = 0.0
    throttled_share: float = 0.0
    throttled_seconds: float = 0.0
    seconds: float = 0.0
    reason: str | None = None
    saturated: bool = False

    @property
    def held(self) -> bool:
        return self.reason is None and not self.saturated


@dataclass(frozen=True, slots=True)
class Step:
    """``rate`` for ``seconds``, moving to ``end_rate`` when that is given; over at once when ``until`` says so.

    ``purpose``: rest, climb, hold, prime, trial, step, ramp, spike, soak or burst.
    Only some are judged: a prime is meant to break, a rest has nothing to break.
    """

    purpose: str
    rate: float
    seconds: float
    name: str = ""
    end_rate: float | None = None
    until: Callable[[Outcome], bool] | None = None

    def rate_at(self, elapsed_s: float) -> float:
        if self.end_rate is None or self.seconds <= 0:
            return self.rate
        return self.rate + (self.end_rate - self.rate) * min(max(elapsed_s / self.seconds, 0.0), 1.0)

    @property
    def top(self) -> float:
        """The highest of its rates."""
        return max(self.rate, self.end_rate or 0.0)

    def units(self, elapsed_s: float) -> float:
        """How many units the step offers in its first ``elapsed_s`` seconds."""
        passed_s = min(elapsed_s, self.seconds) if self.purpose == "burst" or self.end_rate is not None else elapsed_s
        return (self.rate + self.rate_at(passed_s)) / 2 * passed_s + self.rate_at(passed_s) * (elapsed_s - passed_s) * (
            self.purpose != "burst"
        )

    @property
    def lasts_s(self) -> float:
        """A burst ends by its number; its last arrivals may be due at the very end of its time."""
        return self.seconds + (0.25 if self.purpose == "burst" else 0.0)

    @property
    def judged(self) -> bool:
        return self.purpose not in ("rest", "prime", "hold")


class Walk:
    """One plan walked through in time: :meth:`rate` while a step lasts, :meth:`advance` when it is over."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.index = -1
        self.step: Step | None = None
        self.started_at = 0.0

    def begin(self, now: float) -> Step | None:
        """The first step."""
        return self._enter(next(self._plan, None), now)

    def over(self, now: float, outcome: Outcome) -> bool:
        """Whether the step has ended, by its time or by what it was to wait for."""
        if self.step is None:
            return False
        return now - self.started_at >= self.step.lasts_s or bool(self.step.until and self.step.until(outcome))

    def advance(self, now: float, outcome: Outcome) -> Step | None:
        """The next step, or None at the end."""
        try:
            step: Step | None = self._plan.send(outcome)
        except StopIteration:
            step = None
        return self._enter(step, now)

    def rate(self, now: float) -> float:
        return self.step.rate_at(now - self.started_at) if self.step is not None else 0.0

    def _enter(self, step: Step | None, now: float) -> Step | None:
        self.step, self.started_at = step, now
        if step is not None:
            self.index += 1
        return step


def steps(rates: Sequence[float], seconds: float) -> Plan:
    """Each rate for ``seconds``; goes on after a break, so that what lies beyond is seen too."""
    for rate in rates:
        yield Step("step", rate, seconds, f"step {rate:,.6g}/s")


def ramp(start: float, end: float, seconds: float) -> Plan:
    """From one rate to another in a straight line."""
    yield Step("ramp", start, seconds, f"ramp to {end:,.6g}/s", end_rate=end)


def spike(base: float, peak: float, seconds: float, base_seconds: float) -> Plan:
    """Quiet, a sudden peak, quiet again: does it come back?"""
    yield Step("step", base, base_seconds, "before the spike")
    yield Step("spike", peak, seconds, f"spike of {peak:,.6g}/s")
    yield Step("step", base, base_seconds, "after the spike")


def soak(rate: float, seconds: float, slice_s: float = 60.0) -> Plan:
    """One rate for long, judged slice by slice, so that a slow decay is seen as one."""
    slices = max(1, round(seconds / slice_s))
    for index in range(slices):
        yield Step("soak", rate, seconds / slices, f"soak {index + 1} of {slices}")


def race_day(bikers: float, races: int, join_s: float, race_s: float, finish_factor: float = 1.0) -> Plan:
    """Riders join in a straight line, ride, finish all at once, leave; then the next race.

    One biker offers one unit a second. ``finish_factor`` times that comes in the last second, for the final messages.
    """
    for race in range(1, races + 1):
        if join_s > 0:
            yield Step("ramp", 0.0, join_s, f"race {race}: joining", end_rate=bikers)
        yield Step("step", bikers, max(race_s - 1, 0), f"race {race}: riding")
        yield Step("burst", bikers * finish_factor, 1.0, f"race {race}: finish")
        if race < races:
            yield Step("rest", 0.0, max(join_s, 5.0), f"race {race}: over")


def burst(number: float, rest_s: float, watch_s: float) -> Plan:
    """Save capacity for ``rest_s``, offer ``number`` units within a second, and watch what becomes of them."""
    if rest_s > 0:
        yield Step("rest", 0.0, rest_s, "rest")
    yield Step("burst", number, 1.0, f"burst of {number:,.6g}")
    yield Step("rest", 0.0, watch_s, "afterwards")


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """How to look for the knee.

    :param start: first rate; each climb multiplies by ``factor`` until something breaks or ``ceiling`` is reached.
    :param stage_s: length of a climb and of a trial.
    :param rest_s: idle time before, in which a table saves burst.
    :param hold_s: after the break, how long to hold the load over the limit while it is being refused.
    :param drain_s: how long, at most, a saved burst may take to be spent.
    :param precision: the bisection ends when the rates that held and broke are so close, as a share.
    """

    start: float
    ceiling: float
    factor: float = 1.5
    stage_s: float = 4.0
    rest_s: float = 0.0
    hold_s: float = 8.0
    drain_s: float = 30.0
    precision: float = 0.01

    def __post_init__(self) -> None:
        if not (0 < self.start <= self.ceiling and self.factor > 1 and 0 < self.precision < 1 and self.stage_s > 0):
            raise ValueError(
                f"a search goes from 0 < start <= ceiling by a factor above 1 to a precision between 0 and 1: {self}"
            )


def search(how: SearchSettings) -> Plan:
    """Climb until the objectives break, hold the load there, then bisect to the knee.

    A limit behind a token bucket does not show at once: what it saved is spent first, so a rate above the limit
    holds for a while and would pass for the knee. Two things keep the search honest. The hold goes on until refusals
    have come for ``hold_s`` without a pause, and its accepted rate is the sustained one. And before every trial of the
    bisection the bucket is emptied (``prime``: well above the limit until it refuses), so that a trial above the limit
    breaks within its own seconds. Trials below the limit save a little again; the next prime spends that.

    A break without refusals (latency, iterator age) is bisected the same way, without primes. A saturated step ends
    the search: the generator or the target was the bottleneck, and bisecting that would name a limit that is none.
    """
    if how.rest_s > 0:
        yield Step("rest", 0.0, how.rest_s, "rest")
    rate, held = how.start, 0.0
    while True:
        outcome = yield Step("climb", rate, how.stage_s, f"climb to {rate:,.6g}/s")
        if not outcome.held:
            break
        held = rate
        if rate >= how.ceiling:
            return
        rate = min(rate * how.factor, how.ceiling)
    throttles = outcome.throttled_share > 0
    if outcome.saturated and not throttles:
        return
    broke = rate
    if throttles:
        # Twice the sustained rate refuses half of what comes, and empties any bucket soon.
        outcome = yield Step(
            "hold", broke, how.drain_s + how.hold_s, f"hold {broke:,.6g}/s", until=_refused_for(how.hold_s)
        )
        sustained = outcome.accepted_per_second
        if outcome.saturated or sustained <= 0:
            return
        # A burst may have let the climb run past the knee, or the climb began above it: what was sustained is the
        # better guess, and the lower end is tried first.
        held, broke = sustained * 0.9, min(broke, sustained * 1.1)
    low, high = held, broke
    low_is_proved = not throttles and held > 0
    for _ in range(12):
        if low > 0 and high / low <= 1 + how.precision and low_is_proved:
            return
        trial = (low + high) / 2 if low_is_proved or not throttles else low
        if trial <= 0:
            return
        if throttles:
            yield Step("prime", max(broke, trial) * 1.5, how.drain_s, "prime", until=_refused_for(1.0))
        outcome = yield Step("trial", trial, how.stage_s, f"trial at {trial:,.6g}/s")
        if outcome.held:
            low, low_is_proved = trial, True
        elif low_is_proved or trial > low:
            high = trial
        else:
            high, low = trial, trial * 0.8


def _refused_for(seconds: float) -> Callable[[Outcome], bool]:
    return lambda outcome: outcome.throttled_seconds >= seconds


def scaled(step: Step, factor: float) -> Step:
    """The same step at ``factor`` times its rates."""
    return replace(step, rate=step.rate * factor, end_rate=None if step.end_rate is None else step.end_rate * factor)


def rates_between(start: float, end: float, count: int) -> list[float]:
    """``count`` rates from ``start`` to ``end``, evenly apart."""
    if count < 2 or math.isclose(start, end):
        return [end]
    return [start + (end - start) * index / (count - 1) for index in range(count)]
