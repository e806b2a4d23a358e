"""The tumbling window of a shard. Timelines: a digit is a record of that window, | a window's end, ^ the tip seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.runtime.event import EMPTY_STATE, Window
from consumers.runtime.windows import STATE_MAX_BYTES, Close, Extend, OpenWindow, TumblingWindow

FIRST, SECOND = Window(100, 105), Window(105, 110)
STATE = b'{"n":1}'


def opened(state: bytes = STATE, grace_s: float = 0.5) -> TumblingWindow:
    return TumblingWindow(5, grace_s, OpenWindow(FIRST, state))


def step(window: TumblingWindow, head: float | None, tip: float | None = None, *, ended: bool = False) -> object:
    return window.next_step(head, tip, shard_ended=ended)


def test_nothing_open_and_nothing_buffered_is_nothing_to_do() -> None:
    idle = TumblingWindow(5, 0.5)
    assert step(idle, None, 1e9) is None
    assert step(idle, None, ended=True) is None


# 100     105     110
#  |--1-1--|-------|
#     ?                 the first record opens its window, with empty state
def test_a_record_opens_its_window_with_empty_state() -> None:
    window = TumblingWindow(5, 0.5)
    assert step(window, 102.0) == Extend(FIRST, EMPTY_STATE)
    assert window.open is None, "asking changes nothing: the invocation may fail"
    window.extended(FIRST, STATE)
    assert step(window, 104.999) == Extend(FIRST, STATE)


# 100     105     110
#  |--1-1--|2------|
#          ?            [start, end): the record at 105 is the next window's, so the first one is over
def test_a_record_of_the_next_window_closes_this_one_first() -> None:
    window = opened()
    assert step(window, 105.0) == Close(FIRST, STATE, is_early=False)
    assert step(window, 105.0) == Close(FIRST, STATE, is_early=False), "a failed last invocation is asked for again"
    window.closed()
    assert step(window, 105.0) == Extend(SECOND, EMPTY_STATE)


# 100     105     110     115     120
#  |--1-1--|-------|-------|--4----|
def test_empty_windows_in_between_are_not_invoked() -> None:
    window = opened()
    assert step(window, 117.0) == Close(FIRST, STATE, is_early=False)
    window.closed()
    assert step(window, 117.0) == Extend(Window(115, 120), EMPTY_STATE)


# 100     105      110
#  |--1-1--|-^------|
#         ^  105.5       only a read that began the grace after the end proves that nothing more comes
@pytest.mark.parametrize(("tip", "is_over"), [(None, False), (104.9, False), (105.49, False), (105.5, True)])
def test_without_records_a_late_enough_look_at_the_tip_closes(tip: float | None, is_over: bool) -> None:
    assert (step(opened(), None, tip) is not None) == is_over


def test_the_grace_is_a_setting() -> None:
    assert step(opened(grace_s=0.0), None, 105.0) is not None
    assert step(opened(grace_s=120.0), None, 224.9) is None
    assert step(opened(grace_s=120.0), None, 225.0) is not None


# 100     105     110
#  |--1-1-X             the shard ends at X, in the middle of its window
def test_the_end_of_the_shard_closes_the_window_at_once() -> None:
    assert step(opened(), None, None, ended=True) == Close(FIRST, STATE, is_early=False)
    assert step(opened(), 103.0, None, ended=True) == Extend(FIRST, STATE), "what is buffered comes first"


# 100     105     110
#  |--1!-1-|            at ! the state has grown beyond 1 MB
def test_too_much_state_terminates_early_and_the_window_goes_on_empty() -> None:
    large = b'"' + b"x" * (STATE_MAX_BYTES - 1) + b'"'
    window = opened(large)
    assert step(window, 103.0) == Close(FIRST, large, is_early=True)
    window.closed()
    assert step(window, 103.0) == Extend(FIRST, EMPTY_STATE)
    assert step(opened(large[:-1]), 103.0) == Extend(FIRST, large[:-1])


#  95     100     105
#  |-------|--1-0--|     0 arrived, by its timestamp, before the open window began
def test_a_late_record_joins_the_open_window() -> None:
    assert step(opened(), 99.0) == Extend(FIRST, STATE)


def test_a_late_record_opens_its_window_again_when_none_is_open() -> None:
    window = opened()
    window.closed()
    assert step(window, 104.0) == Extend(FIRST, EMPTY_STATE)


@given(st.floats(0, 4e9), st.integers(1, 900))
def test_windows_are_aligned_to_the_epoch_and_hold_their_record(arrival_s: float, size_s: int) -> None:
    window = TumblingWindow(size_s, 0.5).window_of(arrival_s)
    assert window.start_s <= arrival_s < window.end_s
    assert window.end_s - window.start_s == size_s
    assert window.start_s % size_s == 0
