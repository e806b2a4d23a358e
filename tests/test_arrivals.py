"""Every message that went through IoT Core ends in one bucket, and the truth is taken over those that arrived."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from producers import Ledger, Record
from producers.spool import Spool
from simulator.accounting import Account
from simulator.arrivals import (
    DISCARDED,
    QOS0,
    RULE_FAILED,
    UNACCOUNTED,
    Counts,
    Known,
    lost_masks,
    read_given_up,
    settle,
)
from simulator.expectation import expectation, sends_of
from simulator.race import Race, plan_race

SECONDS, RACERS = 6, 5


def a_race() -> Race:
    return plan_race(start_ms=1_800_000_000_000, racers=RACERS, seconds=SECONDS)


FATES = st.lists(
    st.sampled_from(["arrived", "twice", "error", "given up", "nothing"]),
    min_size=SECONDS * RACERS,
    max_size=SECONDS * RACERS,
)


def played(race: Race, fates: list[str]) -> tuple[Counts, Known]:
    """What would be found if each message had its fate."""
    arrivals, failed, given_up = Counts([race]), Counts([race]), Counts([race])
    for second in range(1, SECONDS + 1):
        for index, message in enumerate(race.messages(second)):
            match fates[(second - 1) * RACERS + index]:
                case "arrived":
                    arrivals.add(message)
                case "twice":
                    arrivals.add(message)
                    arrivals.add(message)
                case "error":
                    failed.add(message)
                case "given up":
                    given_up.add(message)
    return arrivals, Known(failed, {"deadline": given_up}, discarded=3)


@given(FATES)
@settings(max_examples=60, deadline=None)
def test_every_message_ends_in_exactly_one_bucket(fates: list[str]) -> None:
    race = a_race()
    key = (race.race_id, race.class_id)
    sent = {key: np.ones((SECONDS, RACERS), dtype=bool)}
    count = {name: fates.count(name) for name in ("arrived", "twice", "error", "given up", "nothing")}

    arrivals, known = played(race, fates)
    at_qos_1 = settle(sent, arrivals, known, Ledger(retried=4, throttled=2), acknowledged=True)
    ledger = at_qos_1.ledger
    assert ledger.generated == len(fates) == ledger.delivered + ledger.lost
    assert ledger.delivered == count["arrived"] + count["twice"]
    assert ledger.duplicates == count["twice"]
    assert ledger.lost_by_reason == {
        reason: n
        for reason, n in (
            (RULE_FAILED, count["error"]),
            ("deadline", count["given up"]),
            (UNACCOUNTED, count["nothing"]),
        )
        if n
    }
    assert at_qos_1.unaccounted == count["nothing"]
    assert (ledger.retried, ledger.throttled) == (4, 2)
    assert at_qos_1.arrived[key].sum() == ledger.delivered

    arrivals, known = played(race, fates)
    at_qos_0 = settle(sent, arrivals, known, Ledger(), acknowledged=False)
    assert at_qos_0.unaccounted == 0
    assert at_qos_0.ledger.lost_by_reason.get(DISCARDED, 0) == min(3, count["nothing"])
    assert at_qos_0.ledger.lost_by_reason.get(QOS0, 0) == max(0, count["nothing"] - 3)


def test_only_what_nothing_explains_fails_the_ledger() -> None:
    explained = Ledger(generated=10, delivered=7, lost=3, lost_by_reason={RULE_FAILED: 2, QOS0: 1})
    assert Account(explained, {}, ()).check(10).passed
    vanished = Ledger(generated=10, delivered=7, lost=3, lost_by_reason={RULE_FAILED: 2, UNACCOUNTED: 1})
    check = Account(vanished, {}, ()).check(10)
    assert not check.passed
    assert (check.matched, check.missing) == (9, 1)
    assert not Account(explained, {}, ()).check(11).passed


def test_what_was_not_sent_is_neither_lost_nor_delivered() -> None:
    race = a_race()
    key = (race.race_id, race.class_id)
    sent = np.zeros((SECONDS, RACERS), dtype=bool)
    sent[0] = True
    arrivals = Counts([race])
    for message in race.messages(1):
        arrivals.add(message)
    ledger = settle({key: sent}, arrivals, Known(Counts([race])), Ledger(), acknowledged=True).ledger
    assert (ledger.generated, ledger.delivered, ledger.lost) == (RACERS, RACERS, 0)


def test_strangers_on_the_stream_are_counted_apart() -> None:
    race = a_race()
    counts = Counts([race])
    good = json.loads(race.messages(1)[0])
    for data in (
        b"not json",
        b"[]",
        b"\xff\xfe",
        json.dumps(good | {"raceId": 1}).encode(),
        json.dumps(good | {"classId": 6}).encode(),
        json.dumps(good | {"racerId": 99}).encode(),
        json.dumps(good | {"racerId": 100 + RACERS}).encode(),
        json.dumps(good | {"second": 0}).encode(),
        json.dumps(good | {"second": SECONDS + 1}).encode(),
    ):
        counts.add(data)
    assert counts.others == 9
    assert not counts.by_key[race.race_id, race.class_id].any()


def test_the_spool_says_what_bikes_gave_up_and_why(tmp_path: Path) -> None:
    race = a_race()
    spool = Spool(tmp_path / "spool.jsonl")
    assert read_given_up(spool.path, [race]) == {}
    first, second = race.messages(1), race.messages(2)
    spool.append([Record(first[0], "k", 1.0, 100), Record(first[1], "k", 1.0, 101)], "deadline")
    spool.append([Record(second[4], "k", 1.0, 104)], "queue_full")
    found = read_given_up(spool.path, [race])
    assert set(found) == {"deadline", "queue_full"}
    lost = lost_masks(found, [race])[id(race)]
    assert np.argwhere(lost).tolist() == [[0, 0], [0, 1], [1, 4]]


@given(FATES)
@settings(max_examples=30, deadline=None)
def test_the_truth_is_taken_over_what_arrived(fates: list[str]) -> None:
    race = a_race()
    arrived = np.array([fate in ("arrived", "twice") for fate in fates]).reshape(SECONDS, RACERS)
    found = expectation(race, arrived)
    outputs = np.asarray(race.truth.output_by_second)
    for index, racer in enumerate(race.racer_ids.tolist()):
        kept = outputs[arrived[:, index], index]
        assert found.best.get(racer) == ((int(kept.max()),) if len(kept) else None)
        assert found.final.get(racer) == ((int(outputs[-1, index]),) if arrived[-1, index] else None)


@given(st.integers(1, 9), st.integers(1, 40), st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_an_interval_spreads_bikers_over_seconds_and_everybody_finishes(
    interval_s: int, seconds: int, racers: int
) -> None:
    race = plan_race(start_ms=1_800_000_000_000, racers=racers, seconds=seconds)
    sends = sends_of(race, interval_s)
    assert sends[-1].all()
    before = sends[:-1]
    for index in range(racers):
        gaps = np.diff(np.flatnonzero(before[:, index]))
        assert (gaps == interval_s).all()
    if interval_s == 1:
        assert sends.all()
