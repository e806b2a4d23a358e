"""Who sends what, when and where: against the league's own races and the cloud's own routing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.runtime.shard_schedule import lane_of
from simulator.capacity.arrivals import LINGER_MS, TICKS, Kind
from simulator.capacity.keys import lanes_of, words_of, zipf_ranks
from simulator.capacity.lanes import Lanes
from simulator.capacity.offers import Offers
from simulator.capacity.workload import START_MS, Riders, Workload
from simulator.cloud.limits import LimitSettings
from simulator.cloud.metrics import Metrics
from simulator.cloud.sequence import uniform_ranges
from simulator.cloud.stream import PutEntry, Stream
from simulator.race import FIRST_RACER_ID, plan_race
from simulator.riders import partition_key_of


def riders_of(shards: int = 2, **workload: object) -> Riders:
    return Riders(Workload(**workload), [low for low, _ in uniform_ranges(shards)])  # type: ignore[arg-type]


def stream_of(shards: int) -> Stream:
    return Stream("s", "arn:aws:kinesis:us-east-1:1:stream/s", "1", shards, 0.0, LimitSettings(), Metrics())


@settings(deadline=None, max_examples=25)
@given(shards=st.integers(1, 50), racers=st.integers(1, 200), key=st.sampled_from(["racer", "race", "class"]))
def test_messages_go_to_the_shards_that_the_stream_routes_them_to(shards: int, racers: int, key: str) -> None:
    riders = riders_of(shards, racers=racers, seconds=10, classes=(2, 5), partition_key=key)
    stream = stream_of(shards)
    expected = []
    for place, class_id in enumerate((2, 5)):
        race = plan_race(
            start_ms=START_MS,
            racers=racers,
            seconds=10,
            class_id=class_id,
            first_racer_id=FIRST_RACER_ID + place * racers,
        )
        key_of = partition_key_of(key, race)
        expected += [stream.shard_of(PutEntry(Data=b"", PartitionKey=key_of(index, 0))) for index in range(racers)]
    found = riders.shards_of_race(0)
    assert found is not None
    assert found.tolist() == expected


@settings(deadline=None, max_examples=50)
@given(keys=st.lists(st.text(max_size=8), min_size=1, max_size=20), lanes=st.integers(1, 100))
def test_lanes_are_those_of_the_runtime(keys: list[str], lanes: int) -> None:
    assert lanes_of(words_of(keys), lanes).tolist() == [lane_of(key, lanes) for key in keys]


def test_a_key_of_time_is_routed_by_the_message_s_time() -> None:
    riders, stream = riders_of(7, partition_key="timestamp"), stream_of(7)
    due_ms = np.array([START_MS, START_MS + 17, START_MS, START_MS + 999])
    expected = [stream.shard_of(PutEntry(Data=b"", PartitionKey=str(one))) for one in due_ms.tolist()]
    assert riders.shards_by_time(due_ms).tolist() == expected
    assert riders.shards_of_race(0) is None


def test_phases_are_those_of_the_races() -> None:
    workload = Workload(racers=50, seconds=5, races=3, classes=(1, 6), seed=11)
    riders = Riders(workload, [0])
    for index in range(3):
        for place, class_id in enumerate(workload.classes):
            race = plan_race(
                start_ms=riders.calendar.start_ms(index),
                racers=50,
                seconds=5,
                class_id=class_id,
                seed=11,
                race_index=index,
                first_racer_id=FIRST_RACER_ID + place * 50,
            )
            mine = riders.class_place == place
            assert riders.phases_ms(index)[mine].tolist() == race.phases_ms.tolist()
            assert riders.racer_ids[mine].tolist() == race.racer_ids.tolist()


@settings(deadline=None, max_examples=25)
@given(
    racers=st.integers(1, 300),
    shards=st.integers(1, 9),
    classes=st.sampled_from([(1,), (3, 1), (1, 2, 3, 4, 5, 6)]),
    phase=st.sampled_from(["spread", "burst"]),
    key=st.sampled_from(["racer", "race", "class", "random"]),
    factors=st.sampled_from([(1,), (2, 3)]),
)
def test_every_biker_sends_once_a_second(
    racers: int, shards: int, classes: tuple[int, ...], phase: str, key: str, factors: tuple[int, ...]
) -> None:
    riders = riders_of(shards, racers=racers, classes=classes, phase=phase, partition_key=key)
    offers = Offers(riders, Lanes(factors), np.random.default_rng(1), batch=500)
    offer = offers.at(0)
    bikers = racers * len(classes)
    senders = np.concatenate([offer.senders(tick) for tick in range(TICKS)])
    assert sorted(senders.tolist()) == list(range(bikers))
    phases = np.sort(riders.phases_ms(0))
    assert offer.phases_ms[senders].tolist() == phases.tolist()
    for tick in range(TICKS):
        assert (offer.phases_ms[offer.senders(tick)] // LINGER_MS == tick).all()
        expected = np.bincount(offer.shards[offer.senders(tick)], minlength=shards)
        assert offer.counts[tick].tolist() == expected.tolist()
    assert offer.alike == (1 if key == "random" else 300)
    by_class = dict.fromkeys(range(len(classes)), 0)
    for kind, counts in offer.parts(299):
        assert kind == Kind(0, kind.class_place, True, kind.lane)
        assert 0 <= kind.lane < 6
        by_class[kind.class_place] += int(counts.sum())
    assert set(by_class.values()) == {racers}
    assert offers.at(0) is offer
    assert offers.at(300).second == 300


def test_sizes_are_those_of_the_real_messages() -> None:
    riders = riders_of(racers=150, seconds=30)
    race = plan_race(start_ms=START_MS, racers=150, seconds=30)
    mean = np.mean([len(one) for second in range(1, 31) for one in race.messages(second)])
    assert riders.sizes.message_bytes == pytest.approx(mean, abs=1)
    assert riders.sizes.record_bytes == riders.sizes.message_bytes + 3  # ids from 100 to 249
    update, final = riders.messages
    assert b'"event":"update"' in update
    assert b'"event":"final"' in final


def test_sizes_may_be_given() -> None:
    plain = riders_of(racers=150, seconds=30).sizes
    padded = riders_of(racers=150, seconds=30, extra_bytes=100)
    assert padded.sizes.message_bytes == plain.message_bytes + 100
    assert padded.sizes.record_bytes == plain.record_bytes + 100
    assert padded.sizes.result_bytes == plain.result_bytes
    for size in (50, 900):
        given_ = riders_of(racers=150, seconds=30, message_bytes=size)
        assert given_.sizes.record_bytes == size + 3
        assert [len(one) for one in given_.messages] == [size, size]


def test_skewed_keys_have_their_shares() -> None:
    """As loud riders of a load test (``zipf:1.1``): the loudest of 1,000 has 18 % of the messages."""
    riders = riders_of(2, racers=1000, skew=1.1)
    shares = np.arange(1, 1001) ** -1.1
    shares /= shares.sum()
    counts = np.bincount(zipf_ranks(1000, 1.1), minlength=1000)
    assert np.abs(np.cumsum(counts) - np.cumsum(shares) * 1000).max() <= 1
    keys = [str(FIRST_RACER_ID + rank) for rank in range(1000)]
    expected = [stream_of(2).shard_of(PutEntry(Data=b"", PartitionKey=key)) for key in keys]
    found = riders.shards_of_race(0)
    assert found is not None
    assert np.bincount(found).tolist() == np.bincount(expected, counts).tolist()


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"racers": 0}, "racers must be from 1 to 1,000,000, not 0"),
        ({"racers": 2_000_000}, "not 2,000,000"),
        ({"seconds": 0}, "seconds"),
        ({"classes": (1, 1)}, "different numbers"),
        ({"classes": ()}, "different numbers"),
        ({"classes": (7,)}, "from 1 to 6"),
        ({"partition_key": "colour"}, "partition_key must be one of racer"),
        ({"transport": "pigeon"}, "putrecords, mqtt"),
        ({"phase": "full moon"}, "spread, burst"),
        ({"deadline_s": 0}, "deadline_s"),
        ({"deadline_s": float("nan")}, "deadline_s"),
        ({"deadline_s": 0.02}, "more than the 20 ms"),
        ({"interval_s": 0}, "interval_s must be from 1 to 3,600, not 0"),
        ({"late_share": 1.5}, "late_share must be from 0 to 1"),
        ({"dropout_share": float("nan")}, "dropout_share must be from 0 to 1"),
        ({"skew": 0.01}, "skew must be 0 or from 0.1 to 5"),
        ({"skew": 1.1, "partition_key": "race"}, "skew is of keys of racers"),
        ({"linger_ms": 50}, "a multiple of 20"),
        ({"linger_ms": 40, "transport": "mqtt"}, "a rule puts each by itself"),
        ({"aggregation": True, "transport": "mqtt"}, "a rule puts each by itself"),
        ({"message_bytes": 0}, "message_bytes must be from 1 to 100,000, not 0"),
        ({"extra_bytes": -1}, "extra_bytes must be from 0"),
        ({"qos": 2}, "qos must be from 0 to 1"),
    ],
)
def test_impossible_numbers_are_refused(wrong: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=".") as caught:
        Workload(**wrong)  # type: ignore[arg-type]
    assert complaint in str(caught.value)
