"""Token buckets and quotas."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.cloud.limits import QUOTAS, TokenBucket

steps = st.lists(
    st.tuples(
        st.floats(0, 5, allow_nan=False),  # seconds passed
        st.floats(0, 50, allow_nan=False),  # tokens asked for
    ),
    max_size=60,
)


@given(rate=st.floats(0.5, 100), depth=st.floats(0.5, 10), steps=steps)
def test_never_more_than_capacity_plus_rate_times_time(
    rate: float, depth: float, steps: list[tuple[float, float]]
) -> None:
    capacity = rate * depth
    bucket = TokenBucket(rate, capacity, now=0.0)
    now = taken = 0.0
    for passed, amount in steps:
        now += passed
        if bucket.take(amount, now):
            taken += amount
        assert taken <= capacity + rate * now + 1e-3
        assert -1e-5 <= bucket.tokens <= capacity


@given(rate=st.floats(1, 100), steps=steps)
def test_what_is_refused_could_not_have_been_paid(rate: float, steps: list[tuple[float, float]]) -> None:
    bucket = TokenBucket(rate, rate, now=0.0)
    now = 0.0
    for passed, amount in steps:
        now += passed
        level = bucket.refill(now)
        assert bucket.take(amount, now) == (amount <= level + 1e-6)


def test_the_thousandth_record_of_a_second_passes() -> None:
    bucket = TokenBucket(1000, 1000, now=0.0)
    assert bucket.take(1000, 0.0)
    # A thousand refills of a millisecond each sum to 0.999999...
    now = 0.0
    for _ in range(1000):
        now += 0.001
        assert bucket.take(1, now)


def test_a_clock_that_steps_back_changes_nothing() -> None:
    bucket = TokenBucket(10, 10, now=100.0, tokens=5)
    assert bucket.refill(50.0) == 5
    assert bucket.refill(100.1) == pytest.approx(6)


def test_seconds_until() -> None:
    bucket = TokenBucket(10, 100, now=0.0, tokens=0)
    assert bucket.seconds_until(20, 0.0) == 2
    assert bucket.seconds_until(0, 0.0) == 0
    assert bucket.seconds_until(101, 0.0) == math.inf


def test_resize_keeps_what_was_saved_up_to_the_new_capacity() -> None:
    bucket = TokenBucket(10, 3000, now=0.0, tokens=2000)
    bucket.resize(5, 1500, now=10.0)
    assert bucket.tokens == 1500
    bucket.resize(20, 6000, now=20.0)
    assert bucket.tokens == 1500
    assert bucket.refill(21.0) == 1520


def test_quotas_are_named_once_and_carry_their_source() -> None:
    names = [quota.name for quota in QUOTAS]
    assert len(set(names)) == len(names) >= 15
    assert all(quota.source and quota.unit and quota.confidence in "HML" for quota in QUOTAS)


def test_negative_rates_are_refused() -> None:
    with pytest.raises(ValueError, match="rate and capacity"):
        TokenBucket(-1, 5, now=0.0)
