"""The peloton: who rides how, and that it looks like racing."""

from __future__ import annotations

import hashlib
import itertools
import random
import tracemalloc
import unicodedata

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.peloton import COURSES, FIRST_NAMES, Ride, racer_names, ride, spread_phases_ms, traits

CLASSES = sorted(COURSES)
FIELD = np.arange(100, 1100, dtype=np.int64)

seeds = st.integers(0, 2**64 - 1)


def output(ridden: Ride) -> npt.NDArray[np.float64]:
    return (ridden.cadence_tenths / 10 + 35) * (ridden.resistance_tenths / 10 + 65) / 100


def five_minutes(class_id: int, seed: int = 7) -> Ride:
    return ride(FIELD, seconds=300, class_id=class_id, seed=seed)


@given(
    seed=seeds,
    class_id=st.sampled_from(CLASSES),
    seconds=st.integers(1, 80),
    first=st.integers(0, 2**32 - 200),
    racers=st.integers(1, 150),
    race_index=st.integers(0, 2**40),
)
@settings(max_examples=60, deadline=None)
def test_every_sample_is_on_the_dial(
    seed: int, class_id: int, seconds: int, first: int, racers: int, race_index: int
) -> None:
    ids = np.arange(first, first + racers, dtype=np.int64)
    ridden = ride(ids, seconds=seconds, class_id=class_id, seed=seed, race_index=race_index)
    for tenths, low, high in ((ridden.cadence_tenths, 300, 900), (ridden.resistance_tenths, 330, 860)):
        assert tenths.shape == (seconds, racers)
        assert tenths.dtype == np.int16
        assert tenths.min() >= low
        assert tenths.max() <= high


@given(seed=seeds, class_id=st.sampled_from(CLASSES), cut=st.integers(1, 59), shuffle=st.randoms())
@settings(max_examples=30, deadline=None)
def test_a_biker_rides_the_same_whoever_else_rides(
    seed: int,
    class_id: int,
    cut: int,
    shuffle: random.Random,
) -> None:
    ids = np.arange(100, 160, dtype=np.int64)
    whole = ride(ids, seconds=12, class_id=class_id, seed=seed)
    parts = [ride(part, seconds=12, class_id=class_id, seed=seed) for part in (ids[:cut], ids[cut:])]
    assert np.array_equal(whole.cadence_tenths, np.hstack([part.cadence_tenths for part in parts]))
    assert np.array_equal(whole.resistance_tenths, np.hstack([part.resistance_tenths for part in parts]))
    order = list(range(len(ids)))
    shuffle.shuffle(order)
    assert np.array_equal(
        whole.cadence_tenths[:, order],
        ride(ids[order], seconds=12, class_id=class_id, seed=seed).cadence_tenths,
    )


def test_seed_race_and_class_each_make_another_race() -> None:
    rides = [
        ride(FIELD, seconds=10, class_id=class_id, seed=seed, race_index=race_index)
        for class_id, seed, race_index in itertools.product((1, 5), (7, 8, 2**64 - 1), (0, 1))
    ]
    for one, other in itertools.combinations(rides, 2):
        assert np.mean(one.cadence_tenths == other.cadence_tenths) < 0.05


def test_the_same_race_on_every_machine_and_version() -> None:
    """Seeds are written down in reports: a model that changes them is a change users must be told of."""
    digest = hashlib.sha256()
    for class_id in CLASSES:
        ridden = ride(FIELD, seconds=60, class_id=class_id, seed=7)
        digest.update(ridden.cadence_tenths.astype("<i2").tobytes())
        digest.update(ridden.resistance_tenths.astype("<i2").tobytes())
    assert digest.hexdigest() == "33bca7345ebe91e00d6dcd38d29a63d34784289144f08752089044b104d17670"


def test_a_ride_cannot_be_changed() -> None:
    ridden = ride(FIELD, seconds=1, class_id=1, seed=7)
    with pytest.raises(ValueError, match="read-only"):
        ridden.cadence_tenths[0, 0] = 0
    with pytest.raises(ValueError, match="read-only"):
        ridden.resistance_tenths[0, 0] = 0


def test_memory_is_the_two_result_arrays_and_little_more() -> None:
    ids = np.arange(100, 10_100, dtype=np.int64)
    tracemalloc.start()
    try:
        ridden = ride(ids, seconds=300, class_id=5, seed=7)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    results_bytes = ridden.cadence_tenths.nbytes + ridden.resistance_tenths.nbytes
    assert results_bytes == 300 * 10_000 * 4
    assert peak_bytes - results_bytes < 4 * 1024 * 1024


def test_traits_belong_to_the_racer_id_alone() -> None:
    field = traits(FIELD)
    alone = traits(np.array([500], np.int64))
    for name in ("ability", "endurance", "climbing", "sprint", "style"):
        assert getattr(field, name)[400] == getattr(alone, name)[0]


def test_traits_are_about_normal_and_do_not_go_together() -> None:
    many = traits(np.arange(100, 50_100, dtype=np.int64))
    columns = np.array([many.ability, many.endurance, many.climbing, many.sprint, many.style])
    assert np.abs(columns.mean(axis=1)).max() < 0.02
    assert np.abs(columns.std(axis=1) - 1).max() < 0.02
    assert np.abs(columns).max() < 3.5
    assert np.abs(np.corrcoef(columns) - np.eye(5)).max() < 0.02
    # Nor with the neighbour's.
    assert abs(np.corrcoef(many.ability[:-1], many.ability[1:])[0, 1]) < 0.02


# -- does it look like a race ------------------------------------------------------------------------


@pytest.mark.parametrize("class_id", CLASSES)
@pytest.mark.parametrize("seconds", [60, 300])
def test_hardly_anybody_is_stuck_at_a_bound(class_id: int, seconds: int) -> None:
    ridden = ride(FIELD, seconds=seconds, class_id=class_id, seed=7)
    at_bound = np.isin(ridden.cadence_tenths, (300, 900)) | np.isin(ridden.resistance_tenths, (330, 860))
    assert at_bound.mean() < 0.001
    # Not even in the hardest second or for the strongest rider.
    assert at_bound.mean(axis=1).max() < 0.02
    assert at_bound.mean(axis=0).max() < 0.25


@pytest.mark.parametrize("class_id", CLASSES)
def test_the_field_is_spread_out_and_the_lead_changes(class_id: int) -> None:
    best_so_far = np.maximum.accumulate(output(five_minutes(class_id)), axis=0)
    final_best = best_so_far[-1]
    assert 6 < final_best.std() < 20
    assert np.ptp(final_best) > 40
    assert len(np.unique(np.round(final_best, 2))) > 600
    leaders = best_so_far.argmax(axis=1)
    assert np.count_nonzero(np.diff(leaders)) >= 2


@pytest.mark.parametrize("class_id", CLASSES)
def test_the_strong_are_strong_in_every_race_but_do_not_always_win(class_id: int) -> None:
    bests = [output(ride(FIELD, seconds=60, class_id=class_id, seed=seed)).max(axis=0) for seed in range(8)]
    correlations = [np.corrcoef(one, other)[0, 1] for one, other in itertools.combinations(bests, 2)]
    assert min(correlations) > 0.5
    assert max(correlations) < 0.95
    assert len({int(best.argmax()) for best in bests}) >= 3
    ability = traits(FIELD).ability
    assert min(np.corrcoef(best, ability)[0, 1] for best in bests) > 0.5


def test_records_mean_something_across_classes_and_form_differs_between_days() -> None:
    flat, hills = (output(five_minutes(class_id)).mean(axis=0) for class_id in (1, 4))
    assert np.corrcoef(flat, hills)[0, 1] > 0.6
    days = [ride(FIELD, seconds=300, class_id=1, seed=7, race_index=index) for index in (0, 1)]
    today, tomorrow = (output(day).mean(axis=0) for day in days)
    assert np.std(today - tomorrow) > 2


def test_sprinters_finish_fast_and_the_field_tires_before() -> None:
    field = output(five_minutes(1))
    assert field[200:260].mean() < field[20:80].mean() - 1
    assert field[-5:].mean() > field[240:270].mean() + 5
    gain = field[-5:].mean(axis=0) - field[240:270].mean(axis=0)
    assert np.corrcoef(gain, traits(FIELD).sprint)[0, 1] > 0.5


def test_endurance_pays_at_the_end() -> None:
    field = output(five_minutes(1))
    lasting = field[240:270].mean(axis=0) - field[:30].mean(axis=0)
    assert np.corrcoef(lasting, traits(FIELD).endurance)[0, 1] > 0.2


def test_climbs_take_cadence_ask_for_resistance_and_suit_climbers() -> None:
    ridden = five_minutes(2)
    flat, climb = slice(10, 45), slice(220, 265)
    assert ridden.resistance_tenths[climb].mean() > ridden.resistance_tenths[flat].mean() + 60
    assert ridden.cadence_tenths[climb].mean() < ridden.cadence_tenths[flat].mean() - 40
    gain = output(ridden)[climb].mean(axis=0) - output(ridden)[flat].mean(axis=0)
    assert np.corrcoef(gain, traits(FIELD).climbing)[0, 1] > 0.3


def test_intervals_alternate() -> None:
    field = output(five_minutes(3)).mean(axis=1)
    period = 300 / 8
    hard = (np.arange(300) % period) < period * 2 / 3
    assert field[hard].min() > field[~hard].max()
    assert np.count_nonzero(np.diff(hard)) == 15


def test_criterium_surges_out_of_each_corner() -> None:
    field = output(five_minutes(5)).mean(axis=1)
    assert all(field[lap + 10] > field[lap + 9] + 10 for lap in range(0, 264, 24))


def test_time_trial_gets_faster() -> None:
    thirds = output(five_minutes(6)).mean(axis=1).reshape(3, 100).mean(axis=1)
    assert thirds[0] < thirds[1] < thirds[2]


def test_there_are_six_courses_and_each_is_its_own() -> None:
    assert CLASSES == [1, 2, 3, 4, 5, 6]
    assert all(course.class_id == class_id and course.about for class_id, course in COURSES.items())
    assert len({course.name for course in COURSES.values()}) == 6
    field = {class_id: output(five_minutes(class_id)).mean(axis=1) for class_id in CLASSES}
    for one, other in itertools.combinations(CLASSES, 2):
        assert np.abs(field[one] - field[other]).max() > 3


@pytest.mark.parametrize("class_id", CLASSES)
@pytest.mark.parametrize("seconds", [1, 2, 3, 2000])
def test_any_length_can_be_ridden(class_id: int, seconds: int) -> None:
    ridden = ride(FIELD[:20], seconds=seconds, class_id=class_id, seed=1)
    assert ridden.cadence_tenths.shape == (seconds, 20)
    assert 80 < output(ridden).mean() < 160


# -- names and phases --------------------------------------------------------------------------------


def test_names_belong_to_the_racer_id_and_are_not_all_ascii() -> None:
    names = racer_names(FIELD)
    assert names[300:310] == racer_names(FIELD[300:310])
    assert set(names) == set(FIRST_NAMES)
    assert {"Zoë", "Łukasz"} <= set(names)
    assert 0.2 < np.mean([not name.isascii() for name in names]) < 0.6


def test_names_are_distinct_printable_and_composed() -> None:
    assert len(set(FIRST_NAMES)) == len(FIRST_NAMES)
    for name in FIRST_NAMES:
        assert name.isprintable()
        assert unicodedata.is_normalized("NFC", name)


def test_phases_are_spread_over_the_second() -> None:
    phases = spread_phases_ms(np.arange(100, 100_100, dtype=np.int64), seed=7)
    assert phases.min() == 0
    assert phases.max() == 999
    counts = np.bincount(phases // 100, minlength=10)
    assert counts.min() > 9_500
    assert counts.max() < 10_500
    assert not np.array_equal(phases[:100], spread_phases_ms(FIELD[:100], seed=8))
    assert not np.array_equal(phases[:100], spread_phases_ms(FIELD[:100], seed=7, race_index=1))
