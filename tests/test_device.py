"""The state machine of the MQTT producers, with time moved by hand."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.delivery import DEADLINE, INTERRUPTED, QUEUE_FULL, REJECTED, Record
from producers.device import CLIENT_ID_INTERVAL_S, Device, Fleet, Link, Publish

T0 = 1_800_000_000.0


class Draws(random.Random):
    """Always the same number: no jitter by default."""

    def __init__(self, value: float = 0.0) -> None:
        super().__init__(0)
        self.value = value

    def random(self) -> float:
        return self.value


def fleet(devices: int = 1, *, online: bool = True, **settings_: Any) -> Fleet:
    arguments: dict[str, Any] = {
        "qos": 1,
        "max_in_flight": 1,
        "max_queued": 100,
        "ack_timeout_s": 5.0,
        "deadline_s": 60.0,
        "connect_rate_per_s": 1e6,
        "rng": Draws(),
    }
    made = Fleet({key: f"topic-{key}" for key in range(devices)}, **(arguments | settings_))
    if online:
        made.start(T0)
        for device in made.take(T0).connect:
            made.connected(device, T0)
        made.take(T0)
    return made


def record(number: int, device: int = 0, due_s: float = T0) -> Record:
    return Record(b"%04d" % number, "pk", due_s, device)


def numbers(publishes: list[Publish]) -> list[int]:
    return [int(one.record.data) for one in publishes]


# -- publishing ----------------------------------------------------------------------------------------


def test_publishes_when_due_and_not_before() -> None:
    it = fleet()
    it.add([record(1, due_s=T0 + 1)])
    assert it.take(T0 + 0.999).publish == []
    assert it.next_wake(T0) == T0 + 1
    (one,) = it.take(T0 + 1.002).publish
    it.departed(one, T0 + 1.003)
    it.acked(one, T0 + 1.01)
    lateness, accepted = it.samples
    assert lateness.values() == pytest.approx([3], abs=0.1)
    assert accepted.values() == pytest.approx([10], abs=0.1)
    assert it.ledger.delivered == 1


def test_one_in_flight_a_device_keeps_its_order() -> None:
    it = fleet(2)
    it.add([record(1), record(2), record(11, 1), record(3)])
    first, other = it.take(T0).publish
    assert numbers([first, other]) == [1, 11]
    assert it.take(T0).publish == []
    assert it.acked(first, T0) is True
    assert it.acked(other, T0) is False
    assert numbers(it.take(T0).publish) == [2]


def test_more_in_flight_when_told_so() -> None:
    it = fleet(max_in_flight=3)
    it.add([record(number) for number in range(5)])
    sent = it.take(T0).publish
    assert numbers(sent) == [0, 1, 2]
    assert it.in_flight_count == 3
    assert it.queued_count == 2
    it.acked(sent[1], T0)
    assert numbers(it.take(T0).publish) == [3]


def test_publishes_again_without_a_puback_until_the_deadline() -> None:
    #  due   no PUBACK   again      again      deadline, judged by the last answer
    #  |-----|-----------|----------|----------|
    #  0     5           10   ...   55         60 s
    it = fleet()
    it.add([record(1)])
    (one,) = it.take(T0).publish
    assert it.take(T0 + 4.99).publish == []
    assert it.next_wake(T0) == T0 + 5
    for number in range(1, 12):
        assert it.take(T0 + 5 * number).publish == [one]
    assert it.ledger.retried == it.ledger.duplicates == 11
    assert it.ledger.lost == 0
    assert it.take(T0 + 60).publish == []
    assert it.ledger.lost_by_reason == {DEADLINE: 1}
    assert it.next_wake(T0 + 60) is None


def test_publishing_again_is_spread_by_jitter() -> None:
    it = fleet(rng=Draws(0.5))
    it.add([record(1)])
    it.take(T0)
    assert it.next_wake(T0) == pytest.approx(T0 + 5 + 0.05)


def test_a_late_puback_of_any_publish_settles() -> None:
    it = fleet()
    it.add([record(1)])
    (one,) = it.take(T0).publish
    it.take(T0 + 5)
    it.acked(one, T0 + 5.1)
    it.acked(one, T0 + 5.2)
    assert it.ledger.delivered == 1
    assert it.ledger.in_flight == 0


def test_an_answer_just_after_the_deadline_counts() -> None:
    it = fleet(deadline_s=3.0)
    it.add([record(1)])
    (one,) = it.take(T0 + 2.9).publish
    assert it.take(T0 + 3.5) == ([], [], [])
    it.acked(one, T0 + 4)
    assert it.ledger.delivered == 1


def test_a_broker_that_says_it_throttles_is_no_duplicate() -> None:
    it = fleet(rng=Draws(0.5))
    it.add([record(1)])
    (one,) = it.take(T0).publish
    it.throttled(one, "Quota exceeded", T0 + 0.01)
    assert it.next_wake(T0) == pytest.approx(T0 + 0.06)
    assert it.take(T0 + 0.07).publish == [one]
    assert (it.ledger.throttled, it.ledger.retried, it.ledger.duplicates) == (1, 1, 0)
    assert it.last_problem == "Quota exceeded"


def test_a_rejected_record_makes_room_for_the_next() -> None:
    it = fleet()
    it.add([record(1), record(2)])
    (one,) = it.take(T0).publish
    it.rejected(one, "Not authorized")
    assert it.ledger.lost_by_reason == {REJECTED: 1}
    assert it.next_wake(T0) == T0
    assert numbers(it.take(T0).publish) == [2]


def test_qos_0_is_never_published_again_on_the_same_connection() -> None:
    it = fleet(qos=0)
    it.add([record(1)])
    (one,) = it.take(T0).publish
    assert it.take(T0 + 59).publish == []
    it.disconnected(one.device, "gone", T0 + 59)
    assert it.ledger.duplicates == 0
    assert it.queued_count == 1


# -- offline -------------------------------------------------------------------------------------------


def test_a_cut_off_device_sends_its_queue_in_order_when_it_is_back() -> None:
    it = fleet()
    it.add([record(number, due_s=T0 + number) for number in range(4)])
    (zero,) = it.take(T0).publish
    it.disconnected(zero.device, "cut off", T0 + 0.5)
    assert it.disconnects == 1
    assert it.take(T0 + 3).publish == []
    it.connected(zero.device, T0 + 3)
    order = []
    while publishes := it.take(T0 + 3).publish:
        (one,) = publishes
        order.append(int(one.record.data))
        it.acked(one, T0 + 3)
    assert order == [0, 1, 2, 3]
    assert it.reconnect_count == 1
    # The one that was in flight may have been stored; the others were never out.
    assert (it.ledger.retried, it.ledger.duplicates, it.ledger.delivered) == (1, 1, 4)


def test_beyond_the_bound_the_oldest_is_lost() -> None:
    lost: list[tuple[list[int], str]] = []
    it = fleet(
        online=False,
        max_queued=3,
        on_lost=lambda records, reason: lost.append(([int(one.data) for one in records], reason)),
    )
    it.add([record(number) for number in range(5)])
    it.take(T0)
    assert lost == [([0], QUEUE_FULL), ([1], QUEUE_FULL)]
    assert it.queued_count == 3


def test_what_is_in_flight_is_within_the_bound_so_a_cut_loses_nothing() -> None:
    it = fleet(max_queued=3)
    it.add([record(number) for number in range(3)])
    (zero,) = it.take(T0).publish
    assert (it.queued_count, it.in_flight_count) == (2, 1)
    it.disconnected(zero.device, "cut off", T0)
    assert it.queued_count == 3
    assert it.ledger.lost == 0
    it.add([record(3)])
    it.take(T0)
    assert it.queued_count == 3
    assert it.ledger.lost_by_reason == {QUEUE_FULL: 1}


def test_offline_records_are_lost_at_their_deadlines_and_not_later() -> None:
    it = fleet(online=False, deadline_s=10.0)
    it.add([record(1, due_s=T0), record(2, due_s=T0 + 4)])
    it.take(T0 + 4)
    assert it.next_wake(T0 + 4) == T0 + 10
    it.take(T0 + 10)
    assert it.ledger.lost_by_reason == {DEADLINE: 1}
    assert it.next_wake(T0 + 10) == T0 + 14
    it.take(T0 + 14)
    assert it.ledger.lost == 2


# -- connections ---------------------------------------------------------------------------------------


def test_connects_no_faster_than_the_rate() -> None:
    it = fleet(100, online=False, connect_rate_per_s=10.0)
    it.start(T0)
    at: list[float] = []
    now = T0
    while len(at) < 100:
        at += [now] * len(it.take(now).connect)
        now = max(it.next_wake(now) or now, now)
    for start in range(90):
        assert at[start + 10] - at[start] >= 0.98
    assert at[-1] == pytest.approx(T0 + 9.9, abs=0.2)


def test_a_client_id_connects_at_most_once_a_second() -> None:
    it = fleet(online=False, rng=Draws(0.0))
    it.start(T0)
    now = T0
    at: list[float] = []
    for _ in range(5):
        (device,) = it.take(now).connect
        at.append(now)
        it.connect_failed(device, "refused", now)
        now = it.next_wake(now) or now
    assert [b - a for a, b in itertools.pairwise(at)] == pytest.approx([CLIENT_ID_INTERVAL_S] * 4)


def test_failures_in_a_row_wait_longer_until_a_connection_lasts() -> None:
    it = fleet(rng=Draws(1.0))
    device = it.devices[0]
    now = T0
    waits = []
    for lasted in (1.0, 1.0, 1.0, 11.0):
        now += lasted
        it.disconnected(device, "gone", now)
        wake = it.next_wake(now) or 0.0
        waits.append(wake - now)
        now = wake
        assert it.take(now).connect == [device]
        it.connected(device, now)
        it.take(now)
    assert waits == pytest.approx([1, 2, 4, 1])


def test_a_connection_with_too_many_open_publishes_is_replaced() -> None:
    it = fleet(deadline_s=10_000.0, ack_timeout_s=1.0)
    it.add([record(1)])
    device = it.devices[0]
    it.take(T0)
    dropped_after = next(second for second in range(1, 200) if it.take(T0 + second).drop == [device])
    assert dropped_after == 100
    assert device.link is Link.CONNECTING
    assert it.disconnects == 1
    assert it.queued_count == 1


def test_without_reconnects_the_library_is_waited_for() -> None:
    it = fleet(reconnects=False)
    device = it.devices[0]
    it.disconnected(device, "gone", T0)
    assert it.next_wake(T0) is None
    assert it.connecting_count == 1
    it.connected(device, T0 + 1)
    assert it.connected_count == it.reconnect_count == 1


def test_abandon_loses_everything_once_whatever_comes_later() -> None:
    it = fleet()
    it.add([record(1), record(2), record(3, due_s=T0 + 50)])
    (one,) = it.take(T0).publish
    it.abandon(INTERRUPTED)
    it.acked(one, T0)
    it.throttled(one, "late", T0)
    it.rejected(one, "late")
    assert it.ledger.lost_by_reason == {INTERRUPTED: 3}
    assert it.ledger.delivered == 0
    assert (it.in_flight_count, it.queued_count, it.outstanding) == (0, 0, 0)
    assert it.take(T0 + 100).publish == []


# -- whatever happens ----------------------------------------------------------------------------------

steps = st.lists(
    st.tuples(
        st.sampled_from(["put", "wait", "ack", "late ack", "cut", "back", "throttle", "fail", "reject"]),
        st.integers(0, 2),
        st.floats(0, 8, allow_nan=False),
    ),
    max_size=80,
)


@settings(max_examples=300, deadline=None)
@given(steps, st.sampled_from([0, 1]), st.integers(1, 3), st.integers(1, 5), st.integers(0, 2**32))
def test_every_record_ends_once_in_order_and_within_bounds(
    script: list[tuple[str, int, float]], qos: int, max_in_flight: int, max_queued: int, seed: int
) -> None:
    ends: dict[int, str] = {}

    def end(number: int, how: str) -> None:
        assert number not in ends
        ends[number] = how

    def lost(records: Any, reason: str) -> None:
        for one in records:
            end(int(one.data), reason)

    it = fleet(
        3,
        qos=qos,
        max_in_flight=max_in_flight,
        max_queued=max_queued,
        deadline_s=20.0,
        rng=random.Random(seed),
        on_lost=lost,
    )
    now = T0
    put = 0
    out: dict[Device, list[Publish]] = defaultdict(list)
    ever: list[Publish] = []
    delivered: list[Publish] = []
    first_sends: dict[Any, list[float]] = defaultdict(list)

    def take() -> None:
        todo = it.take(now)
        for one in todo.publish:
            assert one.record.due_s <= now
            assert one.record.due_s + 20.0 > now
            assert one.device.link is Link.UP
            if one.sends == 1:
                it.departed(one, now)
                first_sends[one.device.key].append(one.number)
            if one not in out[one.device]:
                out[one.device].append(one)
            ever.append(one)
        for device in it.devices.values():
            out[device] = [one for one in out[device] if one in device.in_flight]
            assert len(device.in_flight) <= max_in_flight
            assert len(device.in_flight) + len(device.waiting) <= max_queued
        assert it.in_flight_count == sum(len(device.in_flight) for device in it.devices.values())
        assert it.queued_count == sum(len(device.waiting) for device in it.devices.values())
        assert it.connected_count + it.connecting_count == 3
        assert it.ledger.generated == put
        assert it.ledger.lost == sum(1 for how in ends.values() if how != "delivered")

    def ack(one: Publish) -> None:
        before = it.ledger.delivered
        it.acked(one, now)
        if it.ledger.delivered > before:
            end(int(one.record.data), "delivered")
            delivered.append(one)

    for what, which, amount in script:
        device = it.devices[which]
        if what == "put":
            many = [record(put + index, which, now + amount * (index % 2)) for index in range(3)]
            put += 3
            it.add(many)
        elif what == "wait":
            target = now + amount
            # As its owner does: from one wake to the next.
            while (wake := it.next_wake(now)) is not None and wake <= target:
                now = max(now, wake)
                take()
            now = target
        elif what == "late ack" and ever:
            ack(ever[int(amount * 1000) % len(ever)])
        elif what == "cut":
            it.disconnected(device, "cut", now)
        elif what == "back":
            it.connected(device, now)
        elif out[device]:
            one = out[device].pop(0)
            if what == "ack":
                ack(one)
            elif what == "throttle":
                it.throttled(one, "throttled", now)
            elif what == "fail":
                it.failed(one, "failed", now)
            elif what == "reject":
                it.rejected(one, "rejected")
        take()

    if max_in_flight == 1:
        for order in first_sends.values():
            assert order == sorted(order)
        for key in it.devices:
            done = [one.number for one in delivered if one.device.key == key]
            assert done == sorted(done)
    for device in it.devices.values():
        it.connected(device, now)
    for _ in range(10_000):
        wake = it.next_wake(now)
        if wake is None or not it.outstanding:
            break
        now = max(now, wake)
        take()
    # Nobody answers any more, so what is left has run into its deadline.
    assert it.outstanding == 0
    assert sorted(ends) == list(range(put))
    assert it.ledger.delivered == len(delivered)
