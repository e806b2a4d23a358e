"""The producer's state machine, with time moved by hand."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.delivery import DEADLINE, INTERRUPTED, RECORD_MAX_BYTES, REJECTED, Record, checked_sizes
from producers.outbox import Batch, Outbox
from producers.retry import Meaning

T0 = 1_800_000_000.0
THROTTLED = "ProvisionedThroughputExceededException: Rate exceeded for shard shardId-000000000003 in stream a."


def outbox(**settings_: Any) -> Outbox:
    arguments: dict[str, Any] = {
        "max_batch_records": 500,
        "max_batch_bytes": 5 * RECORD_MAX_BYTES,
        "linger_s": 0.02,
        "deadline_s": 60.0,
        "max_retrying": 4000,
        "rng": random.Random(7),
    }
    return Outbox(**(arguments | settings_))


def add(box: Outbox, records: list[Record], now: float = T0) -> None:
    sizes = checked_sizes(records)
    assert sizes is not None
    box.add(records, now, sizes)


def record(number: int, key: object = None, due_s: float = T0, size: int = 4) -> Record:
    return Record(b"%04d" % number + bytes(size - 4), "pk", due_s, key)


def numbers(batch: Batch | None) -> list[int]:
    assert batch is not None
    return [int(record.data[:4]) for record in batch.records]


def fail(box: Outbox, batch: Batch, indices: list[int], now: float, meaning: Meaning = Meaning.THROTTLED) -> None:
    box.partly_failed(batch, [(index, meaning, THROTTLED) for index in indices], now)


# -- batches -------------------------------------------------------------------------------------------


def test_lingers_for_company_then_sends_what_is_there() -> None:
    #  put 1      put 2       linger of 1 ends
    #  |----------|-----------|
    #  0          10          20 ms
    box = outbox()
    add(box, [record(1)], T0)
    assert box.take(T0) is None
    assert box.next_wake(T0) == T0 + 0.02
    add(box, [record(2)], T0 + 0.01)
    assert box.take(T0 + 0.01) is None
    assert numbers(box.take(T0 + 0.0201)) == [1, 2]
    assert box.next_wake(T0 + 0.03) is None


def test_full_batches_do_not_linger() -> None:
    box = outbox(max_batch_records=3)
    add(box, [record(number) for number in range(7)])
    assert numbers(box.take(T0)) == [0, 1, 2]
    assert numbers(box.take(T0)) == [3, 4, 5]
    assert box.take(T0) is None
    assert numbers(box.take(T0, hurry=True)) == [6]


def test_bytes_fill_a_batch() -> None:
    box = outbox(max_batch_bytes=2 * RECORD_MAX_BYTES)
    add(box, [record(number, size=900_000) for number in range(5)])
    assert numbers(box.take(T0)) == [0, 1]
    assert numbers(box.take(T0)) == [2, 3]
    assert box.take(T0) is None
    assert numbers(box.take(T0 + 1)) == [4]


def test_holds_a_record_until_it_is_due() -> None:
    box = outbox()
    add(box, [record(2, due_s=T0 + 2), record(1, due_s=T0 + 1)])
    assert box.take(T0 + 0.999, hurry=True) is None
    assert box.next_wake(T0) == T0 + 1 + 0.02
    assert box.next_wake(T0, hurry=True) == T0 + 1
    assert numbers(box.take(T0 + 1.02)) == [1]
    assert numbers(box.take(T0 + 2.5)) == [2]
    assert box.send_lateness.values() == pytest.approx([20, 500], abs=1)


def test_in_a_hurry_lingers_only_for_what_is_about_to_be_due() -> None:
    #  due: 1   2          3
    #       |---|----------|
    #       0   10        100 ms
    box = outbox()
    add(box, [record(1, due_s=T0), record(2, due_s=T0 + 0.01), record(3, due_s=T0 + 0.1)])
    assert box.take(T0, hurry=True) is None
    assert box.next_wake(T0, hurry=True) == T0 + 0.02
    assert numbers(box.take(T0 + 0.01, hurry=True)) == [1, 2]
    assert box.next_wake(T0 + 0.01, hurry=True) == T0 + 0.1
    assert numbers(box.take(T0 + 0.1, hurry=True)) == [3]


def test_due_order_across_puts_with_ties_in_put_order() -> None:
    box = outbox()
    add(box, [record(3, due_s=T0 + 5), record(5, due_s=T0 + 7)])
    add(box, [record(1, due_s=T0 + 3), record(6, due_s=T0 + 7)])
    add(box, [record(2, due_s=T0 + 4), record(4, due_s=T0 + 5)])
    assert numbers(box.take(T0 + 10)) == [1, 2, 3, 4, 5, 6]


# -- failures ------------------------------------------------------------------------------------------


def test_only_failed_entries_are_sent_again() -> None:
    box = outbox()
    add(box, [record(number) for number in range(6)])
    batch = box.take(T0 + 1)
    assert batch
    fail(box, batch, [1, 4], T0 + 1.1)
    assert (box.ledger.delivered, box.ledger.throttled, box.retrying) == (4, 2, 2)
    assert box.throttled_by_shard == {"shardId-000000000003": 2}
    again = box.take(T0 + 1.1 + 0.1 + 0.02)
    assert numbers(again) == [1, 4]
    assert again
    box.accepted(again, T0 + 2)
    assert (box.ledger.delivered, box.ledger.retried, box.ledger.duplicates) == (6, 2, 0)
    assert box.outstanding == box.outstanding_bytes == 0


def test_uncertain_failures_count_as_possible_duplicates_when_sent_again() -> None:
    box = outbox()
    add(box, [record(number) for number in range(3)])
    batch = box.take(T0 + 1)
    assert batch
    box.failed(batch, Meaning.UNCERTAIN, "connection reset", T0 + 1)
    assert box.ledger.duplicates == 0
    batch = box.take(T0 + 2)
    assert batch
    box.failed(batch, Meaning.FAILED, "connection refused", T0 + 2)
    assert box.ledger.duplicates == 3
    assert numbers(box.take(T0 + 3)) == [0, 1, 2]
    assert (box.ledger.duplicates, box.ledger.retried) == (3, 6)


def test_new_records_wait_while_too_many_retry() -> None:
    box = outbox(max_batch_records=2, max_retrying=2)
    add(box, [record(number) for number in range(4)])
    batch = box.take(T0)
    assert batch
    fail(box, batch, [0, 1], T0)
    # Two records are ready, but it is the retries that decide when to wake.
    assert box.take(T0, hurry=True) is None
    wake = box.next_wake(T0)
    assert wake is not None
    assert numbers(box.take(wake)) == [0, 1]


def test_deadline_counts_lost_and_tells() -> None:
    lost: list[tuple[int, str]] = []
    box = outbox(deadline_s=10.0, on_lost=lambda records, reason: lost.append((len(records), reason)))
    add(box, [record(1, "a"), record(2, "b", T0 + 5)])
    batch = box.take(T0 + 5.1)
    assert batch
    fail(box, batch, [0, 1], T0 + 9.99)
    wake = box.next_wake(T0 + 9.99)
    assert wake is not None
    assert wake <= T0 + 10.03
    assert numbers(box.take(T0 + 10.03)) == [2]
    assert lost == [(1, DEADLINE)]
    assert box.ledger.lost_by_reason == {DEADLINE: 1}
    assert box.ledger.in_flight == 1


def test_an_invalid_call_loses_only_the_culprit() -> None:
    box = outbox()
    add(box, [record(number, number) for number in range(100)])
    calls = 0
    pending = [box.take(T0 + 1)]
    while pending:
        batch = pending.pop()
        assert batch
        calls += 1
        if 42 in numbers(batch):
            box.isolate(batch, "ValidationException: no", T0 + 1)
        else:
            box.accepted(batch, T0 + 1)
        while (half := box.take(T0 + 1)) is not None:
            pending.append(half)
    assert box.ledger.delivered == 99
    assert box.ledger.lost_by_reason == {REJECTED: 1}
    assert calls < 20


def test_answers_after_the_end_change_nothing() -> None:
    box = outbox()
    add(box, [record(number, number % 2) for number in range(5)])
    batch = box.take(T0 + 1)
    assert batch
    box.abandon(INTERRUPTED)
    assert box.ledger.lost_by_reason == {INTERRUPTED: 5}
    box.accepted(batch, T0 + 2)
    fail(box, batch, [0], T0 + 2)
    box.failed(batch, Meaning.FAILED, "", T0 + 2)
    assert box.ledger.lost == 5
    assert box.next_wake(T0 + 3) is None
    assert box.outstanding_bytes == 0


# -- order ---------------------------------------------------------------------------------------------


def test_one_record_of_a_key_at_a_time() -> None:
    box = outbox()
    add(box, [record(1, "a"), record(2, "a"), record(3, "b"), record(4), record(5), record(6, "a")])
    first = box.take(T0 + 1)
    assert numbers(first) == [1, 3, 4, 5]
    assert first
    assert box.take(T0 + 2, hurry=True) is None
    fail(box, first, [0], T0 + 2)
    retry = box.take(T0 + 3)
    assert numbers(retry) == [1]
    assert retry
    box.accepted(retry, T0 + 3)
    second = box.take(T0 + 3.1)
    assert numbers(second) == [2]


class Service:
    """Accepts, throttles, fails or forgets to answer, as drawn; the truth about what it stored."""

    def __init__(self, rng: random.Random, trouble: float) -> None:
        self.rng = rng
        self.trouble = trouble
        self.stored: list[int] = []

    def answer(self, box: Outbox, batch: Batch, now: float) -> None:
        ids = numbers(batch)
        keys = [record.order_key for record in batch.records if record.order_key is not None]
        assert len(keys) == len(set(keys)), "two records of one key in a call"
        if self.rng.random() >= self.trouble:
            self.stored += ids
            box.accepted(batch, now)
            return
        kind = self.rng.choice(["entries", "fault", "throttle", "died", "invalid"])
        if kind == "entries":
            failed = sorted(self.rng.sample(range(len(ids)), self.rng.randint(1, len(ids))))
            self.stored += [number for index, number in enumerate(ids) if index not in failed]
            meanings = [self.rng.choice([Meaning.THROTTLED, Meaning.FAILED]) for _ in failed]
            problems = [(index, meaning, THROTTLED) for index, meaning in zip(failed, meanings, strict=True)]
            box.partly_failed(batch, problems, now)
        elif kind == "died":
            if self.rng.random() < 0.5:
                self.stored += ids
            box.failed(batch, Meaning.UNCERTAIN, "reset", now)
        elif kind == "invalid" and len(ids) > 1:
            box.isolate(batch, "ValidationException", now)
        else:
            box.failed(batch, Meaning.THROTTLED if kind == "throttle" else Meaning.FAILED, "", now)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    trouble=st.sampled_from([0.0, 0.3, 0.8, 1.0]),
    keys=st.sampled_from([1, 3, 50]),
    deadline_s=st.sampled_from([0.5, 5.0, 60.0]),
    max_batch_records=st.sampled_from([1, 7, 500]),
    concurrency=st.integers(1, 4),
)
def test_every_record_ends_once_and_in_order(
    seed: int, trouble: float, keys: int, deadline_s: float, max_batch_records: int, concurrency: int
) -> None:
    rng = random.Random(seed)
    lost: list[Record] = []
    box = outbox(
        deadline_s=deadline_s,
        max_batch_records=max_batch_records,
        max_retrying=20,
        rng=rng,
        on_lost=lambda records, reason: lost.extend(records),
    )
    service = Service(rng, trouble)
    now = T0
    key_of = {}
    flying: list[Batch] = []
    number = 0
    for _ in range(6):
        puts = []
        for _ in range(rng.randint(0, 30)):
            key = rng.choice([None, *range(keys)])
            puts.append(record(number, key, T0 + number * 0.01, rng.choice([4, 100, 700_000])))
            key_of[number] = key
            number += 1
        if puts:
            add(box, puts, now)
        for _ in range(20):
            while len(flying) < concurrency and (batch := box.take(now)) is not None:
                flying.append(batch)
            assert box.ledger.generated == box.ledger.delivered + box.ledger.lost + box.outstanding
            if flying:
                service.answer(box, flying.pop(rng.randrange(len(flying))), now)
            now += rng.random() * 0.05
    steps = 0
    while box.outstanding:
        steps += 1
        assert steps < 20_000, "it does not come to an end"
        while len(flying) < concurrency and (batch := box.take(now, hurry=True)) is not None:
            flying.append(batch)
        if flying:
            service.answer(box, flying.pop(rng.randrange(len(flying))), now)
            now += 0.001
        elif (wake := box.next_wake(now, hurry=True)) is not None:
            now = max(now + 1e-6, wake)
        else:
            assert not box.outstanding, "records are left and nothing will ever happen"
    assert box.outstanding_bytes == 0
    assert box.retrying == 0
    assert box.next_wake(now) is None
    assert not box._busy
    lost_numbers = [int(record.data[:4]) for record in lost]
    assert len(lost_numbers) == len(set(lost_numbers)) == box.ledger.lost
    assert set(service.stored) | set(lost_numbers) == set(range(number))
    assert box.ledger.delivered + box.ledger.lost == box.ledger.generated == number
    if trouble == 0 and deadline_s == 60.0:
        assert box.ledger.lost == 0
    # The first time that each record of a key was stored is in order; repeats are only what uncertainty explains.
    first_seen: dict[int, list[int]] = defaultdict(list)
    for stored in dict.fromkeys(service.stored):
        if key_of[stored] is not None:
            first_seen[key_of[stored]].append(stored)
    for order in first_seen.values():
        assert order == sorted(order)
    repeats = len(service.stored) - len(set(service.stored))
    assert repeats <= box.ledger.duplicates
