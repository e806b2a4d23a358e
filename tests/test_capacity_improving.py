"""Which batches of a plan write results: those in which somebody is better than ever, as the store decides it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.capacity import improving as module
from simulator.capacity.arrivals import LINGER_MS, TICKS
from simulator.capacity.improving import Improvements, improving
from simulator.capacity.model import plan
from simulator.capacity.workload import Riders, Workload
from simulator.cloud.limits import LimitSettings
from simulator.cloud.sequence import uniform_ranges
from simulator.deployment import load_deployment
from simulator.race import plan_race

TEMPLATE = Path(__file__).resolve().parents[1] / "template.yaml"


def _riders(shards: int = 2, **given: object) -> Riders:
    workload = Workload(**{"racers": 30, "seconds": 40, "classes": (2, 5), "races": 2} | given)  # type: ignore[arg-type]
    return Riders(workload, [low for low, _ in uniform_ranges(shards)])


def _writes(riders: Riders, shard: int, race: int, place: int, first_tick: int, last_tick: int) -> bool:
    """By keeping every racer's best, message by message, as the table does."""
    workload = riders.workload
    ridden = plan_race(
        start_ms=riders.calendar.start_ms(race),
        racers=workload.racers,
        seconds=workload.seconds,
        class_id=workload.classes[place],
        seed=workload.seed,
        race_index=race,
        first_racer_id=100 + place * workload.racers,
    )
    shards = riders.shards_of_race(race)
    assert shards is not None
    for index in range(workload.racers):
        if shards[place * workload.racers + index] != shard:
            continue
        best = -1
        for second, output in enumerate(ridden.truth.output_by_second[:, index].tolist()):
            tick = (race * workload.seconds + second) * TICKS + int(ridden.phases_ms[index]) // LINGER_MS
            if output > best and first_tick <= tick <= last_tick:
                return True
            best = max(best, output)
    return False


@settings(max_examples=25, deadline=None)
@given(
    key=st.sampled_from(["racer", "class", "race"]),
    shard=st.integers(0, 1),
    race=st.integers(0, 1),
    place=st.integers(0, 1),
    second=st.floats(0, 40),
    length=st.floats(0, 3),
)
def test_a_batch_writes_when_a_message_in_it_beats_its_racers_best(
    key: str, shard: int, race: int, place: int, second: float, length: float
) -> None:
    riders = _riders(partition_key=key)
    first = int((race * 40 + second) * TICKS)
    last = first + int(length * TICKS)
    expected = _writes(riders, shard, race, place, first, last)
    assert Improvements(riders, 1).any(shard, (race, place), first, last) == expected


def test_messages_that_were_not_sent_beat_nobody() -> None:
    output = np.array([[50], [60], [55], [58], [61]], np.int32)
    assert improving(output)[:, 0].tolist() == [True, True, False, False, True]
    sent = np.array([[False], [False], [True], [True], [False]])
    assert improving(output, sent)[:, 0].tolist() == [False, False, True, True, False]


def test_with_an_interval_only_what_is_sent_counts() -> None:
    riders = _riders(shards=1, racers=7, classes=(1,), races=1, interval_s=10)
    found = Improvements(riders, 1)
    sent = {second: riders.attendance.sending(second)[1] for second in range(40)}
    nobody = [second for second in range(40) if sent[second] is not None and not sent[second].any()]
    assert len(nobody) > 5
    assert not any(found.any(0, (0, 0), second * TICKS, second * TICKS + TICKS - 1) for second in nobody)
    first = [found.any(0, (0, 0), second * TICKS, second * TICKS + TICKS - 1) for second in range(10)]
    # Everybody's first message counts, and the seven come one a second.
    assert first == [sent[second] is None or bool(sent[second].any()) for second in range(10)]


@pytest.mark.parametrize("key", ["racer", "random"])
def test_of_many_some_ride_and_the_others_are_drawn_as_often(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """The seconds in which a shard writes are as many, by both ways, within a few of a hundred."""
    counts = {}
    for way, limit in (("exact", module.EXACT_RIDE), ("drawn", 0)):
        monkeypatch.setattr(module, "EXACT_RIDE", limit)
        riders = _riders(racers=400, seconds=100, classes=(1,), races=1, shards=4, partition_key=key)
        found = Improvements(riders, 3)
        counts[way] = sum(
            found.any(shard, (0, 0), second * TICKS, second * TICKS + TICKS - 1)
            for second in range(100)
            for shard in range(4)
        )
    assert counts["exact"] < 380
    assert counts["drawn"] == pytest.approx(counts["exact"], abs=0.06 * 400)


def test_a_plan_writes_results_as_often_as_its_only_biker_improves() -> None:
    """A message a second, polled once a second, and no window: a write for each second that beats those before. The
    item is small, so it takes a unit of the table, one of the local index and one of the global."""
    workload = Workload(racers=1, seconds=60, start_ms=1_700_000_000_000)
    race = plan_race(start_ms=workload.start_ms, racers=1, seconds=60, seed=workload.seed)
    better = int(improving(race.truth.output_by_second).sum())
    assert 3 < better < 40
    found = plan(load_deployment(TEMPLATE, overrides={"ShardCount": "1", "TumblingWindowInSeconds": "0"}), workload)
    table, index = "alleycat-races", "alleycat-races/GSI_Index"
    assert found.timeline.total("consumed_write_units", table) == 4 + 2 * better
    assert found.timeline.total("consumed_write_units", index) == 2 + better
    # Every batch is a look at it, whether it writes or not.
    assert found.timeline.total("consumed_read_units", table) == found.functions[0].totals.invocations == 60


def test_windows_write_less_than_batches_and_never_nothing_while_somebody_improves() -> None:
    workload = Workload(racers=3, seconds=60, start_ms=1_700_000_000_000)
    race = plan_race(start_ms=workload.start_ms, racers=3, seconds=60, seed=workload.seed)
    better = improving(race.truth.output_by_second).any(axis=1)
    windows = int(better.reshape(12, 5).any(axis=1).sum())
    assert windows < 12
    found = plan(load_deployment(TEMPLATE, overrides={"ShardCount": "1"}), workload)
    assert found.timeline.total("consumed_write_units", "alleycat-races/GSI_Index") == 3 * 2 + windows


@pytest.mark.parametrize("seed", [1, 2, 3, 5])
def test_what_is_sent_again_improves_in_the_window_that_it_comes_in(seed: int) -> None:
    """260 messages a second for a shard of 200: the last windows hold only what was due before them, and are written.
    An item of 260 racers takes 4 units of the index, and each of their finishes 2."""
    deployment = load_deployment(TEMPLATE, overrides={"ShardCount": "1"})
    workload = Workload(racers=260, seconds=12)
    found = plan(deployment, workload, settings=LimitSettings(shard_rate_factor=0.2), jitter_seed=seed)
    windows = found.functions[0].totals.records.count(0)
    late = found.timeline.series("accepted", found.shards[0].shard_id, 20)[15:]
    assert windows == (4 if sum(late) else 3)
    assert found.timeline.total("consumed_write_units", "alleycat-races/GSI_Index") == 260 * 2 + 4 * windows
