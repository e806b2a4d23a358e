"""The race: calendar, messages and truth, against slow and independent computations."""

from __future__ import annotations

import ast
import dataclasses
import itertools
import json
import re
import uuid
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import peloton, race
from simulator.peloton import Ride
from simulator.race import Place, Race, RaceCalendar, Truth, plan_race

START_MS = 1_790_000_000_000
PREFIX = "6f1c0e52-8a34-4d07-9b1e-"
KEYS = [
    "uuid",
    "event",
    "deviceTimestamp",
    "second",
    "raceId",
    "name",
    "racerId",
    "classId",
    "cadence",
    "resistance",
]

races = st.builds(
    plan_race,
    start_ms=st.integers(1000, 2**52),
    racers=st.integers(1, 40),
    seconds=st.integers(1, 20),
    class_id=st.integers(1, 6),
    seed=st.integers(0, 2**64 - 1),
    race_index=st.integers(0, 1000),
    first_racer_id=st.integers(0, 2**32 - 40),
    phase=st.sampled_from(["spread", "burst"]),
)


def by_second(ridden: Race) -> list[list[bytes]]:
    return [ridden.messages(second) for second in range(1, ridden.seconds + 1)]


def everything(ridden: Race) -> list[bytes]:
    return list(itertools.chain.from_iterable(by_second(ridden)))


def naive_output(message: bytes) -> Decimal:
    """The output a message stands for, from its text alone, in decimal arithmetic."""
    read = json.loads(message, parse_float=Decimal)
    exact = (read["cadence"] + 35) * (read["resistance"] + 65) / 100
    return exact.quantize(Decimal("0.01"), rounding=ROUND_HALF_UP)  # type: ignore[no-any-return]


# -- messages ----------------------------------------------------------------------------------------


@given(races)
@settings(max_examples=80, deadline=None)
def test_every_message_is_what_the_standard_library_would_write(ridden: Race) -> None:
    for second, messages in enumerate(by_second(ridden), start=1):
        assert len(messages) == len(ridden.racer_ids)
        for biker, message in enumerate(messages):
            racer_id = int(ridden.racer_ids[biker])
            expected: dict[str, Any] = {
                "uuid": f"{ridden.uuid_prefix}{racer_id:08x}{second:04x}",
                "event": "final" if second == ridden.seconds else "update",
                "deviceTimestamp": ridden.start_ms + (second - 1) * 1000 + int(ridden.phases_ms[biker]),
                "second": second,
                "raceId": ridden.start_ms // (ridden.seconds * 1000),
                "name": ridden.names[biker],
                "racerId": racer_id,
                "classId": ridden.class_id,
                "cadence": int(ridden.ride.cadence_tenths[second - 1, biker]) / 10,
                "resistance": int(ridden.ride.resistance_tenths[second - 1, biker]) / 10,
            }
            assert message == json.dumps(expected, ensure_ascii=False, separators=(",", ":")).encode()


def test_a_full_race_is_valid_json_within_bounds_and_of_the_size_planned_for() -> None:
    ridden = plan_race(start_ms=START_MS, racers=1000, seconds=60)
    sizes = []
    uuids = set()
    for second, messages in enumerate(by_second(ridden), start=1):
        for racer_id, message in enumerate(messages, start=100):
            read = json.loads(message)
            assert list(read) == KEYS
            assert (read["racerId"], read["second"], read["classId"]) == (racer_id, second, 1)
            assert 30.0 <= read["cadence"] <= 90.0
            assert 33.0 <= read["resistance"] <= 86.0
            assert isinstance(read["cadence"], float)
            assert isinstance(read["resistance"], float)
            sizes.append(len(message))
            uuids.add(read["uuid"])
    assert len(uuids) == 60_000
    assert min(sizes) >= 170
    assert max(sizes) <= 210


def test_whole_numbers_keep_their_decimal() -> None:
    ridden = plan_race(start_ms=START_MS, racers=3, seconds=1)
    ridden = dataclasses.replace(
        ridden,
        ride=Ride(np.array([[800, 300, 900]], np.int16), np.array([[330, 860, 501]], np.int16)),
    )
    tails = [message[message.index(b'"cadence"') :] for message in ridden.messages(1)]
    assert tails == [
        b'"cadence":80.0,"resistance":33.0}',
        b'"cadence":30.0,"resistance":86.0}',
        b'"cadence":90.0,"resistance":50.1}',
    ]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5))
@settings(deadline=None)
def test_any_name_arrives(names: list[str]) -> None:
    ridden = plan_race(start_ms=START_MS, racers=len(names), seconds=1)
    ridden = dataclasses.replace(ridden, names=tuple(names))
    assert [json.loads(message)["name"] for message in ridden.messages(1)] == names


def test_names_travel_as_utf8() -> None:
    ridden = plan_race(start_ms=START_MS, racers=400, seconds=1)
    joined = b"".join(ridden.messages(1))
    assert '"name":"Zoë"'.encode() in joined
    assert '"name":"Łukasz"'.encode() in joined
    assert b"\\" not in joined


def test_uuids_are_version_4_and_never_repeat_between_races() -> None:
    ridden = [plan_race(start_ms=START_MS, racers=20, seconds=5) for _ in range(3)]
    uuids = [json.loads(message)["uuid"] for one in ridden for message in everything(one)]
    assert len(set(uuids)) == 3 * 20 * 5
    for text in uuids:
        parsed = uuid.UUID(text)
        assert str(parsed) == text
        assert parsed.version == 4
        assert parsed.variant == uuid.RFC_4122


def test_update_until_the_last_second_then_final() -> None:
    ridden = plan_race(start_ms=START_MS, racers=3, seconds=4)
    events = [[json.loads(message)["event"] for message in messages] for messages in by_second(ridden)]
    assert events == [["update"] * 3] * 3 + [["final"] * 3]


# -- the same race again -----------------------------------------------------------------------------


@given(
    seed=st.integers(0, 2**64 - 1),
    starts=st.tuples(st.integers(1000, 2**50), st.integers(1000, 2**50)),
    class_id=st.integers(1, 6),
)
@settings(max_examples=30, deadline=None)
def test_one_seed_is_one_race_but_for_timestamps_and_uuids(
    seed: int,
    starts: tuple[int, int],
    class_id: int,
) -> None:
    def told(start_ms: int) -> list[bytes]:
        ridden = plan_race(start_ms=start_ms, racers=30, seconds=3, seed=seed, class_id=class_id)
        clock = rb'"uuid":"[^"]+"|"deviceTimestamp":\d+|"raceId":\d+'
        return [re.sub(clock, b"", message) for message in everything(ridden)]

    assert told(starts[0]) == told(starts[1])


def test_with_prefix_and_start_given_it_is_the_same_to_the_byte() -> None:
    one, other = (plan_race(start_ms=START_MS, racers=50, seconds=5, uuid_prefix=PREFIX) for _ in range(2))
    assert everything(one) == everything(other)


@pytest.mark.parametrize("change", [{"seed": 8}, {"race_index": 1}, {"class_id": 2}])
def test_another_seed_race_or_class_is_another_race(change: dict[str, int]) -> None:
    one = plan_race(start_ms=START_MS, racers=100, seconds=5)
    other = plan_race(start_ms=START_MS, racers=100, seconds=5, **change)  # type: ignore[arg-type]
    assert np.mean(one.truth.output_by_second == other.truth.output_by_second) < 0.05
    assert not np.array_equal(one.phases_ms, other.phases_ms)


@given(cut=st.integers(1, 49))
@settings(max_examples=10, deadline=None)
def test_two_generators_share_a_race_out(cut: int) -> None:
    def part(first: int, racers: int) -> Race:
        return plan_race(
            start_ms=START_MS,
            racers=racers,
            seconds=4,
            first_racer_id=first,
            uuid_prefix=PREFIX,
        )

    whole, left, right = part(100, 50), part(100, cut), part(100 + cut, 50 - cut)
    for second in range(1, 5):
        assert left.messages(second) + right.messages(second) == whole.messages(second)


# -- when --------------------------------------------------------------------------------------------


@given(races)
@settings(max_examples=40, deadline=None)
def test_messages_are_stamped_with_their_due_time_within_their_second(ridden: Race) -> None:
    for second in (1, ridden.seconds):
        due = ridden.due_ms(second)
        assert due.dtype == np.int64
        stamped = [json.loads(message)["deviceTimestamp"] for message in ridden.messages(second)]
        assert stamped == due.tolist()
        assert due.min() >= ridden.start_ms + (second - 1) * 1000
        assert due.max() < ridden.start_ms + second * 1000
    assert ridden.due_ms(ridden.seconds).max() < ridden.end_ms
    assert sorted(ridden.send_order.tolist()) == list(range(len(ridden.racer_ids)))
    assert np.all(np.diff(ridden.due_ms(1)[ridden.send_order]) >= 0)


def test_phases_are_spread_or_all_zero() -> None:
    spread = plan_race(start_ms=START_MS, racers=1000, seconds=1).phases_ms
    assert 0 <= spread.min() < 20
    assert 980 < spread.max() <= 999
    burst = plan_race(start_ms=START_MS, racers=1000, seconds=1, phase="burst")
    assert not burst.phases_ms.any()
    assert burst.send_order.tolist() == list(range(1000))


@given(first_start_ms=st.integers(0, 2**50), seconds=st.integers(1, 65_535))
def test_races_in_a_row_never_share_an_id(first_start_ms: int, seconds: int) -> None:
    calendar = RaceCalendar(first_start_ms, seconds)
    ids = [calendar.race_id(index) for index in range(50)]
    assert len(set(ids)) == 50
    starts = [calendar.start_ms(index) for index in range(50)]
    assert starts == [first_start_ms + index * seconds * 1000 for index in range(50)]
    assert ids == [start // (seconds * 1000) for start in starts]


def test_the_official_race_is_five_minutes() -> None:
    assert RaceCalendar(1_620_240_672_076).race_id(0) == 5_400_802
    planned = plan_race(start_ms=RaceCalendar(START_MS, 60).start_ms(3), racers=1, seconds=60)
    assert planned.race_id == RaceCalendar(START_MS, 60).race_id(3)


def test_a_planned_race_says_what_it_holds() -> None:
    ridden = plan_race(start_ms=START_MS, racers=7, seconds=9, first_racer_id=500)
    assert ridden.racer_ids.tolist() == list(range(500, 507))
    assert ridden.generated == 63
    assert ridden.end_ms == START_MS + 9000
    assert plan_race(start_ms=START_MS, racers=1, seconds=1).racer_ids.tolist() == [100]
    assert (race.PUBLISH_TOPIC, race.SUBSCRIBE_TOPIC) == ("alleycat-publish", "alleycat-subscribe")


# -- truth -------------------------------------------------------------------------------------------


@given(races)
@settings(max_examples=50, deadline=None)
def test_truth_is_what_the_messages_say(ridden: Race) -> None:
    outputs = [[naive_output(message) for message in messages] for messages in by_second(ridden)]
    truth = ridden.truth
    assert truth.output_by_second.tolist() == [[int(one * 100) for one in row] for row in outputs]
    columns = list(zip(*outputs, strict=True))
    assert truth.best.tolist() == [float(max(column)) for column in columns]
    assert truth.final.tolist() == [float(column[-1]) for column in columns]
    assert truth.best_hundredths.tolist() == [int(max(column) * 100) for column in columns]
    assert truth.final_hundredths.tolist() == [int(column[-1] * 100) for column in columns]
    running = [list(itertools.accumulate(column, max)) for column in columns]
    assert (truth.best_so_far / 100).T.tolist() == [[float(one) for one in column] for column in running]


def test_every_pair_of_readings_rounds_half_up() -> None:
    """All 319,131 of them; 30.5 rpm at 34.0 is 64.845, for one, and has to become 64.85."""
    cadence, resistance = np.meshgrid(np.arange(300, 901), np.arange(330, 861), indexing="ij")
    ridden = Ride(cadence.astype(np.int16), resistance.astype(np.int16))
    truth = Truth.of(np.arange(531), ridden)
    halves = 0
    for c, row in zip(range(300, 901), truth.output_by_second.tolist(), strict=True):
        for r, hundredths in zip(range(330, 861), row, strict=True):
            whole, rest = divmod((c + 350) * (r + 650), 100)
            halves += rest == 50
            assert hundredths == whole + (rest >= 50)
    assert halves > 1000
    # And the integers mean what the design's sentence says in decimals.
    for c, r in ((305, 340), (310, 335), (900, 860), (300, 330), (455, 355)):
        exact = (Decimal(c) / 10 + 35) * (Decimal(r) / 10 + 65) / 100
        expected = exact.quantize(Decimal("0.01"), rounding=ROUND_HALF_UP)
        assert Decimal(int(truth.output_by_second[c - 300, r - 330])) / 100 == expected


def test_floats_are_the_shortest_two_decimals() -> None:
    truth = plan_race(start_ms=START_MS, racers=1000, seconds=10).truth
    assert all(re.fullmatch(r"\d+\.\d{1,2}", repr(one)) for one in truth.best.tolist() + truth.final.tolist())


def test_leaderboard_over_the_race_and_after_a_second() -> None:
    ridden = plan_race(start_ms=START_MS, racers=200, seconds=20, class_id=5)
    for second in (None, 1, 7, 20):
        rows = ridden.truth.output_by_second[:second].tolist()
        best = {racer: max(column) for racer, column in enumerate(zip(*rows, strict=True), start=100)}
        order = sorted(best, key=lambda racer: (-best[racer], racer))
        expected = [Place(place, racer, best[racer] / 100) for place, racer in enumerate(order, start=1)]
        assert ridden.truth.leaderboard(10, second) == expected[:10]
        assert ridden.truth.leaderboard(1000, second) == expected


def test_of_equals_the_lower_id_leads() -> None:
    flat = np.full((2, 3), 500, np.int16)
    truth = Truth.of(np.array([102, 100, 101]), Ride(flat, flat))
    assert truth.leaderboard(2) == [Place(1, 100, 97.75), Place(2, 101, 97.75)]


def test_best_among_the_messages_that_counted() -> None:
    truth = plan_race(start_ms=START_MS, racers=30, seconds=12).truth
    counted = np.random.default_rng(1).random(truth.output_by_second.shape) < 0.3
    counted[:, 4] = False
    expected = [
        max((out for out, ok in zip(column, oks, strict=True) if ok), default=-1)
        for column, oks in zip(truth.output_by_second.T.tolist(), counted.T.tolist(), strict=True)
    ]
    assert truth.best_among(counted).tolist() == expected
    assert expected[4] == -1
    assert np.array_equal(truth.best_among(np.ones_like(counted)), truth.best_hundredths)
    with pytest.raises(ValueError, match=r"counted must have the shape \(12, 30\)"):
        truth.best_among(counted[:5])


def test_truth_cannot_be_changed() -> None:
    ridden = plan_race(start_ms=START_MS, racers=2, seconds=2)
    truth = ridden.truth
    for array in (
        *(truth.output_by_second, truth.best_hundredths, truth.final_hundredths, truth.best_so_far),
        *(ridden.phases_ms, ridden.racer_ids, ridden.send_order),
    ):
        assert not array.flags.writeable
    with pytest.raises(dataclasses.FrozenInstanceError):
        ridden.seconds = 3  # type: ignore[misc]
    assert ridden.truth is truth


@pytest.mark.parametrize("module", [race, peloton])
def test_truth_shares_no_code_with_those_it_judges(module: Any) -> None:
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    packages = {name.split(".")[0] for name in imported}
    assert "numpy" in packages
    assert not packages & {"consumers", "producers", "loadtests"}


# -- what cannot be ridden ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"racers": 0}, "racers must be from 1 to 1,000,000, not 0"),
        ({"racers": 1_000_001}, "racers must be from 1 to 1,000,000, not 1,000,001"),
        ({"racers": 1.5}, "racers must be a whole number, not 1.5"),
        ({"racers": "10"}, "racers must be a whole number, not '10'"),
        ({"seconds": 0}, "seconds must be from 1 to 65,535, not 0"),
        ({"seconds": 65_536}, "seconds must be from 1 to 65,535, not 65,536"),
        ({"class_id": 0}, "class_id must be from 1 to 6, not 0"),
        ({"class_id": 7}, "class_id must be from 1 to 6, not 7"),
        ({"seed": -1}, "seed must be from 0 to"),
        ({"seed": 2**64}, "seed must be from 0 to"),
        ({"race_index": -1}, "race_index must be from 0 to"),
        ({"first_racer_id": -1}, "first_racer_id must be from 0 to"),
        ({"first_racer_id": 2**32 - 1, "racers": 2}, "first_racer_id must be from 0 to 4,294,967,294"),
        ({"start_ms": 999}, r"start_ms \(milliseconds since the epoch\) must be from 1,000 to"),
        ({"start_ms": 1.79e12}, r"start_ms \(milliseconds since the epoch\) must be a whole number"),
        ({"phase": "wild"}, "phase must be 'spread' or 'burst', not 'wild'"),
        ({"uuid_prefix": "abc"}, "uuid_prefix must be the first 24 characters .* not 'abc'"),
        ({"uuid_prefix": PREFIX.replace("4d07", "1d07")}, "uuid_prefix must be"),
        ({"uuid_prefix": PREFIX + "\n"}, "uuid_prefix must be"),
        (
            {"racers": 1_000_000, "seconds": 501},
            "1,000,000 racers for 501 seconds make 501,000,000 messages; a race holds at most 500,000,000",
        ),
    ],
)
def test_bad_arguments_get_a_sentence(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        plan_race(**{"start_ms": START_MS, **arguments})


@pytest.mark.parametrize("second", [0, 6, -1])
def test_a_second_outside_the_race_is_refused(second: int) -> None:
    ridden = plan_race(start_ms=START_MS, racers=2, seconds=5)
    for ask in (ridden.messages, ridden.due_ms, lambda at: ridden.truth.leaderboard(1, at)):
        with pytest.raises(ValueError, match=f"second must be from 1 to 5, not {second}"):
            ask(second)


def test_a_calendar_needs_a_length_and_a_leaderboard_a_place() -> None:
    with pytest.raises(ValueError, match="seconds must be from 1 to 65,535, not 0"):
        RaceCalendar(START_MS, 0)
    with pytest.raises(ValueError, match="top must be from 1"):
        plan_race(start_ms=START_MS, racers=1, seconds=1).truth.leaderboard(0)


def test_numpy_integers_are_whole_numbers() -> None:
    ridden = plan_race(start_ms=np.int64(START_MS), racers=np.int32(2), seconds=np.uint8(3))  # type: ignore[arg-type]
    assert len(ridden.messages(3)) == 2
