"""Messages that wait for a PUBACK: each ends once, however ids are reused."""

from __future__ import annotations

import math

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from loadtests.unacknowledged import Unacknowledged

TIMEOUT_S = 1.0
PACKET_IDS = st.integers(1, 4)


def waiting(*packet_ids: int, at: float = 0.0) -> Unacknowledged[str]:
    found: Unacknowledged[str] = Unacknowledged(TIMEOUT_S)
    for packet_id in packet_ids:
        found.add(packet_id, f"message {packet_id}", at)
    return found


def test_a_puback_ends_its_message_and_no_other() -> None:
    messages = waiting(1, 2)
    assert messages.acknowledged(2) == "message 2"
    assert len(messages) == 1
    assert 1 in messages


def test_a_second_puback_ends_nothing() -> None:
    messages = waiting(1)
    assert messages.acknowledged(1) == "message 1"
    assert messages.acknowledged(1) is None


def test_a_message_waits_until_the_timeout_and_no_longer() -> None:
    messages = waiting(1)
    messages.add(2, "message 2", 0.5)
    assert messages.expire(math.nextafter(TIMEOUT_S, 0)) == []
    assert messages.expire(TIMEOUT_S) == [(1, "message 1")]
    assert messages.expire(10.0) == [(2, "message 2")]
    assert messages.expire(10.0) == []


def test_a_puback_after_the_timeout_ends_nothing() -> None:
    messages = waiting(1)
    messages.expire(TIMEOUT_S)
    assert messages.acknowledged(1) is None


def test_an_id_is_free_again_however_its_message_ended() -> None:
    messages = waiting(1, 2, 3)
    messages.acknowledged(1)
    messages.add(1, "acknowledged before", 0.5)
    messages.expire(TIMEOUT_S)
    messages.add(2, "expired before", TIMEOUT_S)
    assert messages.drop_all() == ["acknowledged before", "expired before"]
    messages.add(1, "dropped before", TIMEOUT_S)
    assert messages.acknowledged(1) == "dropped before"


def test_an_id_that_waits_is_not_given_to_another_message() -> None:
    messages = waiting(1)
    with pytest.raises(ValueError, match="packet id 1 belongs to a message"):
        messages.add(1, "another", 0.1)
    assert messages.acknowledged(1) == "message 1"


def test_without_a_timeout_messages_wait_for_ever() -> None:
    messages: Unacknowledged[str] = Unacknowledged(math.inf)
    messages.add(1, "one", 0.0)
    assert messages.expire(1e12) == []
    assert messages.drop_all() == ["one"]


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, math.nan])
def test_a_timeout_that_gives_no_time_is_refused(timeout_s: float) -> None:
    with pytest.raises(ValueError, match="some time"):
        Unacknowledged(timeout_s)


class Ledger(RuleBasedStateMachine):
    """Four packet ids, so that they are reused all the time; every message is a number of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: Unacknowledged[int] = Unacknowledged(TIMEOUT_S)
        self.now = 0.0
        self.sent: dict[int, tuple[int, float]] = {}
        self.ended: list[int] = []

    def end(self, *messages: int) -> None:
        self.ended += messages

    @rule(packet_id=PACKET_IDS)
    def publish(self, packet_id: int) -> None:
        number = len(self.sent)
        if packet_id in self.messages:
            with pytest.raises(ValueError, match="belongs to a message"):
                self.messages.add(packet_id, number, self.now)
        else:
            self.messages.add(packet_id, number, self.now)
            self.sent[number] = (packet_id, self.now)

    @rule(packet_id=PACKET_IDS)
    def puback(self, packet_id: int) -> None:
        ended = self.messages.acknowledged(packet_id)
        if ended is not None:
            assert self.sent[ended][0] == packet_id
            self.end(ended)

    @rule(elapsed_s=st.floats(0, 1.5))
    def time_passes(self, elapsed_s: float) -> None:
        self.now += elapsed_s

    @rule()
    def expire(self) -> None:
        was_due = self.messages.is_due(self.now)
        expired = self.messages.expire(self.now)
        assert was_due == bool(expired)
        for packet_id, number in expired:
            assert self.sent[number][0] == packet_id
            assert self.sent[number][1] + TIMEOUT_S <= self.now
        self.end(*(number for _, number in expired))
        for number in set(self.sent) - set(self.ended):
            assert self.sent[number][1] + TIMEOUT_S > self.now

    @rule()
    def connection_lost(self) -> None:
        self.end(*self.messages.drop_all())
        assert set(self.ended) == set(self.sent)

    @invariant()
    def every_message_waits_or_ended_once(self) -> None:
        assert len(set(self.ended)) == len(self.ended)
        assert len(self.messages) == len(self.sent) - len(self.ended)
        waiting = [self.sent[number][0] for number in set(self.sent) - set(self.ended)]
        assert all(packet_id in self.messages for packet_id in waiting)


TestLedger = Ledger.TestCase
