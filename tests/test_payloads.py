"""What a load is made of: real telemetry, spread over shards as asked, whatever the calls it leaves in."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.payloads import RACE_SECONDS, KeyChoice, Message, Messages, key_choice, zipf_shares
from simulator.flags import UsageError

START_MS = 1_800_000_000_000


def made(**members: Any) -> Messages:
    return Messages(**{"start_ms": START_MS, "racers": 7, **members})


def told(record: Message) -> list[dict[str, Any]]:
    """The telemetry of a record, without the uuid, whose prefix is random."""
    read = json.loads(record.data)
    return [{**one, "uuid": None} for one in (read if isinstance(read, list) else [read])]


def all_told(records: Iterable[Message]) -> list[dict[str, Any]]:
    return [one for record in records for one in told(record)]


# -- telemetry -----------------------------------------------------------------------------------------


def test_a_second_holds_one_message_of_every_biker_under_their_own_key() -> None:
    for first in (100, 5000):
        records = made(first_racer=first).take(7)
        assert [told(record)[0]["racerId"] for record in records] == list(range(first, first + 7))
        assert [record.partition_key for record in records] == [str(first + index) for index in range(7)]
        assert {told(record)[0]["second"] for record in records} == {1}
        assert {record.explicit_hash_key for record in records} == {None}


def test_the_next_race_begins_where_one_ends() -> None:
    messages = all_told(made(racers=2).take(2 * RACE_SECONDS + 2))
    assert [one["second"] for one in messages[::2]] == [*range(1, RACE_SECONDS + 1), 1]
    assert [one["event"] for one in messages[::2]] == [*["update"] * (RACE_SECONDS - 1), "final", "update"]
    assert messages[-1]["raceId"] == messages[0]["raceId"] + 1
    due = [one["deviceTimestamp"] for one in messages if one["racerId"] == 100]
    assert due[0] // 1000 == START_MS // 1000
    # One second apart within a race; another race has another phase.
    assert {later - sooner for sooner, later in itertools.pairwise(due[:-1])} == {1000}
    assert due[-1] > due[-2]


@pytest.mark.parametrize("kind", ["even", "racer", "random", "zipf:1.2"])
@pytest.mark.parametrize("record_bytes", [0, 700])
@settings(max_examples=20)
@given(sizes=st.lists(st.integers(0, 25), min_size=1, max_size=8))
def test_calls_of_any_size_take_one_and_the_same_stream(kind: str, record_bytes: int, sizes: list[int]) -> None:
    def stream() -> Messages:
        return made(key=key_choice(kind), record_bytes=record_bytes, hash_keys=("1", "2", "3"))

    calls, whole = stream(), stream()
    taken = [calls.take(size) for size in sizes]
    assert [len(call) for call in taken] == sizes
    flat, straight = [record for call in taken for record in call], whole.take(sum(sizes))
    assert all_told(flat) == all_told(straight)
    assert [one.partition_key for one in flat] == [one.partition_key for one in straight]
    assert [one.explicit_hash_key for one in flat] == [one.explicit_hash_key for one in straight]


def test_another_seed_rides_otherwise() -> None:
    assert all_told(made(seed=1).take(50)) == all_told(made(seed=1).take(50))
    assert all_told(made(seed=1).take(50)) != all_told(made(seed=2).take(50))


# -- keys ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("record_bytes", [0, 340, 1000])
@given(shards=st.integers(1, 9), sizes=st.lists(st.integers(1, 60), min_size=1, max_size=6))
@settings(max_examples=25)
def test_even_is_even(record_bytes: int, shards: int, sizes: list[int]) -> None:
    """Every shard has the same share after every call, also where several messages share a record."""
    hash_keys = [str(1000 + shard) for shard in range(shards)]
    messages = made(key=KeyChoice("even"), hash_keys=hash_keys, record_bytes=record_bytes)
    count = Counter(dict.fromkeys(hash_keys, 0))
    for size in sizes:
        count.update(record.explicit_hash_key or "none" for record in messages.take(size))
        assert max(count.values()) - min(count.values()) <= 1
    assert set(count) == set(hash_keys)


def test_even_without_shards_that_are_known_names_one_hash_key() -> None:
    assert {record.explicit_hash_key for record in made(key=KeyChoice("even")).take(20)} == {str(2**127)}


def test_random_keys_are_many() -> None:
    keys = [record.partition_key for record in made(key=KeyChoice("random")).take(2000)]
    assert len(set(keys)) == 2000
    numbers = sorted(int(key) for key in keys)
    assert 0 <= numbers[0] < numbers[-1] < 2**63
    # Half of them in each half: 6 standard deviations.
    assert abs(sum(number < 2**62 for number in numbers) - 1000) < 6 * 2000**0.5 / 2


@given(number=st.integers(1, 500), exponent=st.floats(0.1, 5))
def test_zipf_shares(number: int, exponent: float) -> None:
    shares = zipf_shares(number, exponent)
    assert shares.shape == (number,)
    assert shares.sum() == pytest.approx(1.0)
    ranks = np.arange(1, number + 1)
    assert shares * ranks**exponent == pytest.approx(np.full(number, shares[0]))


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_zipf_speaks_as_loudly_as_its_shares(exponent: float) -> None:
    number, racers = 20_000, 10
    records = made(racers=racers, key=KeyChoice("zipf", exponent)).take(number)
    count = Counter(record.partition_key for record in records)
    for rank, share in enumerate(zipf_shares(racers, exponent).tolist()):
        deviation = (number * share * (1 - share)) ** 0.5
        assert abs(count[str(100 + rank)] - number * share) < 6 * deviation
    for record in records[:200]:
        assert told(record)[0]["racerId"] == int(record.partition_key)


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("even", KeyChoice("even")),
        ("racer", KeyChoice("racer")),
        ("random", KeyChoice("random")),
        ("zipf:1", KeyChoice("zipf", 1.0)),
        ("zipf:0.1", KeyChoice("zipf", 0.1)),
    ],
)
def test_key_choices(text: str, choice: KeyChoice) -> None:
    assert key_choice(text) == choice


@pytest.mark.parametrize("text", ["", "zipf", "zipf:", "zipf:x", "zipf:0", "zipf:6", "zipf:nan", "racer:1", "Even"])
def test_no_key_choices(text: str) -> None:
    with pytest.raises(UsageError, match=r"choose even, racer, random or zipf:S \(S from 0.1 to 5\)"):
        key_choice(text)


# -- gathering -----------------------------------------------------------------------------------------


@given(record_bytes=st.integers(1, 3000), racers=st.integers(1, 12), number=st.integers(1, 40))
@settings(max_examples=40)
def test_messages_are_gathered_whole_and_in_order(record_bytes: int, racers: int, number: int) -> None:
    records = made(racers=racers, record_bytes=record_bytes).take(number)
    gathered = all_told(records)
    plain = made(racers=racers).take(len(gathered))
    assert gathered == all_told(plain)
    sizes = iter([len(one.data) for one in plain])
    for record in records:
        parts = list(itertools.islice(sizes, len(told(record))))
        assert len(record.data) == sum(parts) + len(parts) - 1 + len("[]")
        # It is full, and would not be without its last message.
        assert len(record.data) - len("[]") >= record_bytes
        assert sum(parts[:-1]) + len(parts[:-1]) - 1 < record_bytes
        assert record.partition_key == str(told(record)[0]["racerId"])
