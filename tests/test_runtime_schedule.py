"""A shard's schedule with the clock in hand: what it does, and when; then whole lives of shards at random."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.runtime.batches import Outcome
from consumers.runtime.checkpoints import ShardCheckpoint
from consumers.runtime.config import Backoff, MappingConfig, RuntimeSettings
from consumers.runtime.errors import ConfigurationError
from consumers.runtime.event import Record, Window
from consumers.runtime.shard_schedule import Action, Deliver, Finished, Invoke, Poll, ShardSchedule, Wait
from consumers.runtime.windows import STATE_MAX_BYTES

ARN = "arn:aws:kinesis:us-east-1:123456789012:stream/alleycat"
SHARD = "shardId-000000000000"
SETTINGS = RuntimeSettings()
FAILED = Outcome(0, ("ValueError", "no"))
T = 1000.0


def mapping(**changes: Any) -> MappingConfig:
    return MappingConfig(**{"name": "m", "function_name": "f", "stream_name": "alleycat", "stream_arn": ARN} | changes)


def schedule(now: float = T, checkpoint: ShardCheckpoint | None = None, **changes: Any) -> ShardSchedule:
    return ShardSchedule(mapping(**changes), SHARD, SETTINGS, now, checkpoint, rng=lambda: 0.5)


def records(*numbers: int, arrival_s: float = T) -> list[Record]:
    return [Record(str(number), arrival_s, b"{}") for number in numbers]


def numbers(action: Action) -> list[int]:
    assert isinstance(action, Invoke)
    return [int(record.sequence_number) for record in action.records]


def polled(one: ShardSchedule, now: float, *found: Record, behind: int = 0, ended: bool = False) -> None:
    assert isinstance(one.next_action(now), Poll)
    one.on_poll_result(now, now, found, behind, shard_ended=ended)


def done(one: ShardSchedule, now: float, action: Action, state: bytes | None = None) -> None:
    assert isinstance(action, Invoke)
    one.on_invoke_result(Outcome(len(action.records), state=state), now)


# -- reading -------------------------------------------------------------------------------------------


def test_at_the_tip_a_shard_is_read_once_a_second() -> None:
    one = schedule()
    polled(one, T)
    assert one.next_action(T + 0.4) == Wait(T + 1.0)
    polled(one, T + 1.0)
    assert one.next_action(T + 1.0) == Wait(T + 2.0)


def test_behind_the_tip_or_after_a_full_answer_it_is_read_at_once() -> None:
    one = schedule()
    polled(one, T, behind=5000)
    assert one.next_action(T) == Wait(T + 0.2)
    full = schedule()
    polled(full, T, *records(*range(10_000)))
    while isinstance(action := full.next_action(T), Invoke):
        done(full, T, action)
    assert action == Wait(T + 0.2)


def test_a_refused_read_backs_off_and_recovers() -> None:
    one = schedule()
    waits = []
    now = T
    for _ in range(7):
        assert isinstance(one.next_action(now), Poll)
        one.on_poll_throttled(now)
        action = one.next_action(now)
        assert isinstance(action, Wait)
        waits.append(round(action.until - now, 3))
        now = action.until
    assert waits == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    polled(one, now)
    assert one.next_action(now) == Wait(now + 1.0)


def test_an_unreachable_stream_is_asked_again_ever_more_rarely() -> None:
    one = schedule()
    now, waits = T, []
    for _ in range(7):
        assert isinstance(one.next_action(now), Poll)
        one.on_poll_failed(now)
        action = one.next_action(now)
        assert isinstance(action, Wait)
        waits.append(round(action.until - now, 3))
        now = action.until
    assert waits == [0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0]


def test_a_clock_set_back_stalls_nothing_for_long() -> None:
    one = schedule()
    polled(one, T)
    assert one.next_action(T - 86_400) == Wait(T - 86_400 + 60)


def position(one: ShardSchedule, now: float = T) -> dict[str, Any]:
    action = one.next_action(now)
    assert isinstance(action, Poll)
    return dict(action.position.arguments)


def test_where_reading_starts() -> None:
    assert position(schedule()) == {"ShardIteratorType": "TRIM_HORIZON"}
    at = schedule(starting_position="AT_TIMESTAMP", starting_timestamp=7.0)
    assert position(at) == {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": 7.0}
    resumed = schedule(checkpoint=ShardCheckpoint("42"))
    assert position(resumed) == {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": "42"}


def test_latest_is_latest_only_once() -> None:
    one = schedule(starting_position="LATEST")
    one.start_at(T)
    assert one.checkpoint == ShardCheckpoint(None, T)
    assert position(one) == {"ShardIteratorType": "LATEST"}
    one.on_poll_failed(T)
    assert position(one, T + 1) == {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": T}
    restarted = schedule(checkpoint=one.checkpoint, starting_position="LATEST")
    assert position(restarted) == {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": T}
    # A child shard appeared after the mapping started: it is later as a whole.
    assert position(schedule(starting_position="LATEST")) == {"ShardIteratorType": "TRIM_HORIZON"}


def test_an_expired_iterator_continues_after_what_was_read_not_after_what_was_processed() -> None:
    one = schedule(batch_size=2)
    polled(one, T, *records(1, 2, 3))
    action = one.next_action(T)
    done(one, T, action)
    done(one, T, one.next_action(T))
    one.on_iterator_expired(T + 400)
    assert position(one, T + 401) == {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": "3"}


# -- batches -------------------------------------------------------------------------------------------


def test_without_a_batching_window_whatever_there_is_goes_at_once() -> None:
    one = schedule(batch_size=2)
    polled(one, T, *records(1, 2, 3))
    first = one.next_action(T)
    assert numbers(first) == [1, 2]
    done(one, T, first)
    second = one.next_action(T)
    assert numbers(second) == [3]
    assert one.checkpoint.sequence_number == "2"
    done(one, T, second)
    assert one.checkpoint.sequence_number == "3"
    assert one.next_action(T) == Wait(T + 1.0)


def test_a_batching_window_waits_for_a_full_batch_or_its_end() -> None:
    one = schedule(batch_size=3, batching_window_s=2.5)
    polled(one, T, *records(1))
    assert one.next_action(T) == Wait(T + 1.0)
    polled(one, T + 1.0, *records(2))
    polled(one, T + 2.0)
    assert one.next_action(T + 2.0) == Wait(T + 2.5)
    action = one.next_action(T + 2.5)
    assert numbers(action) == [1, 2]
    done(one, T + 2.6, action)
    polled(one, T + 3.0, *records(3, 4, 5, 6))
    full = one.next_action(T + 3.0)
    assert numbers(full) == [3, 4, 5]
    done(one, T + 3.1, full)
    # The next batch's window begins when the invocation returned.
    assert one.next_action(T + 3.9) == Wait(T + 4.0)
    polled(one, T + 4.0)
    polled(one, T + 5.0)
    assert numbers(one.next_action(T + 5.6)) == [6]


def test_the_end_of_a_shard_waits_for_nothing() -> None:
    one = schedule(batching_window_s=300.0)
    polled(one, T, *records(1), ended=True)
    done(one, T, one.next_action(T))
    assert one.next_action(T) == Finished()
    assert one.checkpoint == ShardCheckpoint("1", finished=True)
    assert one.caught_up(T + 1000)


def test_a_record_that_fits_no_event_is_dropped_and_counted() -> None:
    one = schedule()
    polled(one, T, *records(1), Record("2", T, b"x" * (6 * 1024 * 1024)), *records(3))
    done(one, T, one.next_action(T))
    action = one.next_action(T)
    assert numbers(action) == [3]
    assert one.checkpoint.sequence_number == "2"
    assert one.dropped_records == 1
    assert one.last_failure is not None
    assert one.last_failure[0] == "Alleycat.RecordTooLarge"


# -- failures ------------------------------------------------------------------------------------------


def test_a_failed_batch_blocks_its_shard_and_is_retried_at_once_then_ever_more_rarely() -> None:
    one = schedule(batch_size=2)
    polled(one, T, *records(1, 2, 3))
    now, waits = T, []
    for _ in range(9):
        action = one.next_action(now)
        assert numbers(action) == [1, 2], "the same batch, though more is buffered"
        one.on_invoke_result(FAILED, now)
        assert one.is_blocked
        retry = one.next_action(now)
        if isinstance(retry, Wait):
            waits.append(round(retry.until - now, 3))
            now = retry.until
        else:
            waits.append(0)
            one.on_invoke_result(FAILED, now)
            now += 0.1
    assert waits[0] == 0
    assert waits[-1] == 5.0
    assert waits == sorted(waits)
    assert one.checkpoint.sequence_number is None


@pytest.mark.parametrize("attempts", [0, 1, 3])
def test_after_maximum_retry_attempts_a_batch_is_dropped_and_counted(attempts: int) -> None:
    one = schedule(batch_size=2, maximum_retry_attempts=attempts)
    polled(one, T, *records(1, 2, 3))
    now = T
    for _ in range(attempts + 1):
        assert numbers(one.next_action(now)) == [1, 2]
        one.on_invoke_result(FAILED, now)
        now += 10
    assert numbers(one.next_action(now)) == [3]
    assert (one.dropped_records, one.retries, one.checkpoint.sequence_number) == (2, attempts, "2")


def test_throttled_invocations_are_no_attempts() -> None:
    one = schedule(maximum_retry_attempts=0)
    polled(one, T, *records(1))
    now, waits = T, []
    for _ in range(7):
        assert numbers(one.next_action(now)) == [1]
        one.on_invoke_result(Outcome(0, is_throttled=True), now)
        wait = one.next_action(now)
        assert isinstance(wait, Wait)
        waits.append(round(wait.until - now, 3))
        now = wait.until
    assert waits == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    done(one, now, one.next_action(now))
    assert (one.dropped_records, one.retries, one.is_blocked) == (0, 0, False)


def test_an_invocation_that_the_end_of_the_runtime_cut_off_counts_for_nothing() -> None:
    one = schedule(maximum_retry_attempts=0)
    polled(one, T, *records(1))
    one.next_action(T)
    one.on_invoke_result(Outcome(0, is_throttled=True, is_stopped=True), T)
    assert (one.counts.invoked, one.counts.failed_invoke, one.checkpoint.sequence_number) == (0, 0, None)
    assert numbers(one.next_action(T + 1)) == [1]


def test_a_partial_failure_continues_at_the_reported_record_with_the_rest_of_its_batch() -> None:
    one = schedule(batch_size=4, maximum_retry_attempts=1)
    polled(one, T, *records(1, 2, 3, 4, 5, 6))
    assert numbers(one.next_action(T)) == [1, 2, 3, 4]
    one.on_invoke_result(Outcome(2, ("Alleycat.PartialBatch", "")), T)
    assert one.checkpoint.sequence_number == "2"
    assert numbers(one.next_action(T)) == [3, 4]
    # Without progress it is a failure like any other; progress before does not count against it.
    one.on_invoke_result(Outcome(0, ("Alleycat.PartialBatch", "")), T)
    assert numbers(one.next_action(T)) == [3, 4]
    one.on_invoke_result(Outcome(0, ("Alleycat.PartialBatch", "")), T)
    assert numbers(one.next_action(T)) == [5, 6]
    assert one.dropped_records == 2


# -- windows -------------------------------------------------------------------------------------------

W = Window(1000, 1005)


def members(action: Action) -> dict[str, Any]:
    assert isinstance(action, Invoke)
    found: dict[str, Any] = json.loads(action.members)
    return found


# 1000        1005        1010
#   |-1-2-------|-3---------|
#   a batch never spans windows; state goes from batch to batch; the last invocation has no records
def test_a_window_from_its_first_record_to_its_last_invocation() -> None:
    one = schedule(tumbling_window_s=5)
    polled(one, 1006.0, *records(1, arrival_s=1001.0), *records(2, arrival_s=1003.0), *records(3, arrival_s=1006.0))
    batch = one.next_action(1006.0)
    assert numbers(batch) == [1, 2]
    assert members(batch)["state"] == {}
    assert not members(batch)["isFinalInvokeForWindow"]
    done(one, 1006.0, batch, b'{"n":2}')
    assert one.checkpoint.sequence_number == "2"
    assert one.checkpoint.window is not None
    assert one.checkpoint.window.state == b'{"n":2}'

    last = one.next_action(1006.0)
    assert numbers(last) == []
    assert members(last)["state"] == {"n": 2}
    assert members(last)["isFinalInvokeForWindow"]
    assert members(last)["window"] == {"start": "1970-01-01T00:16:40Z", "end": "1970-01-01T00:16:45Z"}
    done(one, 1006.0, last)
    assert one.checkpoint == ShardCheckpoint("2")

    following = one.next_action(1006.0)
    assert numbers(following) == [3]
    assert members(following)["state"] == {}


# 1000        1005        1010
#   |-1---------|-----^     |      the record was read at 1001; the first read at or after 1005.5 sees the tip
def test_without_further_records_the_tip_closes_the_window() -> None:
    one = schedule(1001.0, tumbling_window_s=5)
    polled(one, 1001.0, *records(1, arrival_s=1000.5))
    done(one, 1001.0, one.next_action(1001.0), b"{}")
    for second in (1002.0, 1003.0, 1004.0, 1005.0):
        polled(one, second)
        assert not one.caught_up(1001.0), "a window is open"
        assert isinstance(one.next_action(second), Wait)
    polled(one, 1006.0)
    last = one.next_action(1006.0)
    assert members(last)["isFinalInvokeForWindow"]
    done(one, 1006.1, last)
    assert one.caught_up(1006.0)
    assert not one.caught_up(1006.01), "no read began since"


def test_a_window_resumes_in_the_middle_after_a_restart() -> None:
    one = schedule(tumbling_window_s=5, batch_size=1)
    polled(one, 1002.0, *records(1, arrival_s=1001.0), *records(2, arrival_s=1001.5))
    done(one, 1002.0, one.next_action(1002.0), b'{"n":1}')
    again = schedule(1003.0, one.checkpoint, tumbling_window_s=5, batch_size=1)
    polled(again, 1003.0, *records(2, arrival_s=1001.5))
    batch = again.next_action(1003.0)
    assert numbers(batch) == [2]
    assert members(batch)["state"] == {"n": 1}


def test_a_failed_batch_gets_the_same_state_again_and_a_partial_one_the_new() -> None:
    one = schedule(tumbling_window_s=5)
    polled(one, 1002.0, *records(1, 2, 3, arrival_s=1001.0))
    one.next_action(1002.0)
    one.on_invoke_result(FAILED, 1002.0)
    retried = one.next_action(1002.0)
    assert members(retried)["state"] == {}
    one.on_invoke_result(Outcome(1, ("Alleycat.PartialBatch", ""), b'{"n":1}'), 1002.0)
    rest = one.next_action(1002.0)
    assert numbers(rest) == [2, 3]
    assert members(rest)["state"] == {"n": 1}


def test_a_window_whose_last_invocation_is_given_up_is_counted_and_does_not_stop_the_next() -> None:
    one = schedule(tumbling_window_s=5, maximum_retry_attempts=0)
    polled(one, 1006.0, *records(1, arrival_s=1001.0), *records(2, arrival_s=1006.0))
    done(one, 1006.0, one.next_action(1006.0), b"{}")
    assert members(one.next_action(1006.0))["isFinalInvokeForWindow"]
    one.on_invoke_result(FAILED, 1006.0)
    assert (one.dropped_windows, one.dropped_records) == (1, 0)
    assert numbers(one.next_action(1006.0)) == [2]


def test_too_much_state_terminates_the_window_early() -> None:
    one = schedule(tumbling_window_s=5, batch_size=1)
    polled(one, 1002.0, *records(1, 2, arrival_s=1001.0))
    large = b'{"x":"' + b"x" * STATE_MAX_BYTES + b'"}'
    done(one, 1002.0, one.next_action(1002.0), large)
    early = one.next_action(1002.0)
    assert numbers(early) == []
    assert members(early)["isFinalInvokeForWindow"]
    assert members(early)["isWindowTerminatedEarly"]
    assert len(members(early)["state"]["x"]) == STATE_MAX_BYTES
    done(one, 1002.0, early)
    following = one.next_action(1002.0)
    assert numbers(following) == [2]
    assert members(following)["state"] == {}


def test_state_that_fits_no_event_is_dropped_and_counted_and_stops_nothing() -> None:
    one = schedule(tumbling_window_s=5, batch_size=1)
    polled(one, 1002.0, *records(1, 2, arrival_s=1001.0))
    # An answer may be a hundred bytes larger than a request.
    done(one, 1002.0, one.next_action(1002.0), b'{"x":"' + b"x" * (6 * 1024 * 1024 - 8) + b'"}')
    following = one.next_action(1002.0)
    assert numbers(following) == [2]
    assert members(following)["state"] == {}
    assert one.dropped_windows == 1
    assert one.last_failure is not None
    assert one.last_failure[0] == "Alleycat.StateTooLarge"


def test_a_record_that_fits_without_its_windows_state_terminates_the_window_early() -> None:
    one = schedule(tumbling_window_s=5, batch_size=1)
    large = Record("2", 1001.0, b'"' + b"x" * (6 * 1024 * 1024 - 1000) + b'"')
    polled(one, 1002.0, *records(1, arrival_s=1001.0), large, *records(3, arrival_s=1001.0))
    done(one, 1002.0, one.next_action(1002.0), b'{"x":"' + b"x" * 1000 + b'"}')
    early = one.next_action(1002.0)
    assert numbers(early) == []
    assert members(early)["isWindowTerminatedEarly"]
    assert len(members(early)["state"]["x"]) == 1000
    done(one, 1002.0, early)
    following = one.next_action(1002.0)
    assert numbers(following) == [2]
    assert members(following)["state"] == {}
    assert one.dropped_records == 0


def test_a_delivery_must_be_reported_back_once() -> None:
    one = schedule(maximum_retry_attempts=0, on_failure_destination="arn:aws:s3:::dead")
    with pytest.raises(RuntimeError, match="no delivery"):
        one.on_delivered(T)
    polled(one, T, *records(1))
    one.next_action(T)
    one.on_invoke_result(FAILED, T)
    assert isinstance(one.next_action(T), Deliver)
    assert one.in_flight == 1
    with pytest.raises(RuntimeError, match="not reported back"):
        one.next_action(T)
    assert one.checkpoint.sequence_number is None, "nobody was told yet"
    one.on_delivered(T)
    assert (one.in_flight, one.checkpoint.sequence_number) == (0, "1")


def test_an_ended_shard_closes_its_window_and_finishes() -> None:
    one = schedule(tumbling_window_s=900)
    polled(one, 1002.0, *records(1, arrival_s=1001.0), ended=True)
    done(one, 1002.0, one.next_action(1002.0), b"{}")
    last = one.next_action(1002.0)
    assert members(last)["isFinalInvokeForWindow"]
    done(one, 1002.0, last)
    assert one.next_action(1002.0) == Finished()


def test_misuse_is_told() -> None:
    one = schedule()
    polled(one, T, *records(1))
    one.next_action(T)
    with pytest.raises(RuntimeError, match="not reported back"):
        one.next_action(T)
    with pytest.raises(RuntimeError, match="no invocation"):
        schedule().on_invoke_result(FAILED, T)


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigurationError, match=r"mapping 'm': batch_size must be in 1..10000, got 0"):
        mapping(batch_size=0)
    with pytest.raises(ConfigurationError, match=r"tumbling_window_s must be in 0..900, got 901"):
        mapping(tumbling_window_s=901)
    with pytest.raises(ConfigurationError, match="starting_timestamp goes with"):
        mapping(starting_position="AT_TIMESTAMP")
    with pytest.raises(ConfigurationError, match="not an ARN"):
        mapping(stream_arn="alleycat")
    with pytest.raises(ConfigurationError, match=r"parallelization_factor must be in 1..10, got 11"):
        mapping(parallelization_factor=11)
    with pytest.raises(ConfigurationError, match="parallelization_factor must be 1 with tumbling windows, got 2"):
        mapping(parallelization_factor=2, tumbling_window_s=5)
    with pytest.raises(ConfigurationError, match=r"maximum_record_age_s must be -1 or in 60..604800, got 59"):
        mapping(maximum_record_age_s=59)
    with pytest.raises(ConfigurationError, match="cannot be read from AT_TIMESTAMP"):
        mapping(source_kind="DynamoDB", starting_position="AT_TIMESTAMP", starting_timestamp=1.0)
    with pytest.raises(ConfigurationError, match="source_kind must be Kinesis or DynamoDB, got 'SQS'"):
        mapping(source_kind="SQS")
    with pytest.raises(ConfigurationError, match="at most 10 filters are allowed, got 11"):
        mapping(filter_patterns=("{}",) * 11)
    with pytest.raises(ConfigurationError, match="at most 4096 characters, got 5000"):
        mapping(filter_patterns=("x" * 5000,))
    with pytest.raises(ConfigurationError, match="ARN of an SQS queue, an SNS topic or an S3 bucket, got 'arn:aws:iam"):
        mapping(on_failure_destination="arn:aws:iam::123456789012:role/r")
    with pytest.raises(ConfigurationError, match="must be a standard queue or topic, got 'arn:aws:sqs.*fifo'"):
        mapping(on_failure_destination="arn:aws:sqs:us-east-1:123456789012:dead.fifo")
    with pytest.raises(ConfigurationError, match="destination_attempts must be >= 1, got 0"):
        RuntimeSettings(destination_attempts=0)
    with pytest.raises(ConfigurationError, match="read_ahead_max_records must be >= 1, got 0"):
        RuntimeSettings(read_ahead_max_records=0)
    with pytest.raises(ConfigurationError, match=r"window_close_grace_s must be in 0..120"):
        RuntimeSettings(window_close_grace_s=121)


@given(st.integers(1, 10_000), st.floats(0, 5), st.floats(0.001, 5), st.floats(5, 60))
def test_backoff_grows_to_its_cap(attempt: int, first_s: float, base_s: float, cap_s: float) -> None:
    backoff = Backoff(first_s, base_s, cap_s)
    assert 0 <= backoff.delay_s(attempt) <= cap_s
    assert attempt < 2 or backoff.delay_s(attempt) <= backoff.delay_s(attempt + 1)


# -- whole lives ---------------------------------------------------------------------------------------


@dataclass
class World:
    """A shard, a function that fails by a script, and a machine that dies by it."""

    arrivals: Sequence[float]
    config: MappingConfig
    poll_limit: int
    script: list[str]
    ends_at: float | None
    now: float = T
    delivered: list[int] = field(default_factory=list)
    acknowledged: set[int] = field(default_factory=set)
    windows: dict[int, list[list[int]]] = field(default_factory=dict)
    restarts: int = 0

    def run(self) -> ShardSchedule:
        self._read = 0
        self._saved = ShardCheckpoint()
        one = self._restart()
        last = max([*self.arrivals, T]) + 1
        for _ in range(20_000):
            self._saved = one.checkpoint
            if (self.ends_at is None and one.caught_up(last)) or self._saved.finished:
                return one
            match one.next_action(self.now):
                case Poll(position):
                    self._poll(one, dict(position.arguments))
                case Invoke() as invocation:
                    one = self._invoke(one, invocation)
                case Wait(until):
                    assert until > self.now, "a wait that does not wait is a busy loop"
                    self.now = until
                case Finished():
                    pass
        raise AssertionError("the shard never caught up")

    def _restart(self) -> ShardSchedule:
        self._iterator: int | None = None
        return ShardSchedule(self.config, SHARD, SETTINGS, self.now, self._saved, rng=lambda: 0.5)

    def _next(self) -> str:
        return self.script.pop() if self.script else "ok"

    def _poll(self, one: ShardSchedule, position: dict[str, Any]) -> None:
        match self._next():
            case "fail":
                self._iterator = None
                one.on_poll_failed(self.now)
                return
            case "throttle":
                one.on_poll_throttled(self.now)
                return
        if self._iterator is None:
            self._iterator = int(position.get("StartingSequenceNumber", -1)) + 1
        there = [n for n, arrival in enumerate(self.arrivals) if arrival <= self.now and n >= self._iterator]
        found = there[: self.poll_limit]
        self._iterator += len(found)
        behind = 1000 if len(there) > len(found) else 0
        ended = self.ends_at is not None and self.now >= self.ends_at and self._iterator == len(self.arrivals)
        began, self.now = self.now, self.now + 0.01
        one.on_poll_result(
            began,
            self.now,
            [Record(str(n), self.arrivals[n], b"{}") for n in found],
            behind,
            shard_ended=ended,
        )

    def _invoke(self, one: ShardSchedule, invocation: Invoke) -> ShardSchedule:
        batch = [int(record.sequence_number) for record in invocation.records]
        self._check(batch, invocation)
        self.now += 0.05
        what = self._next()
        if what == "throttle":
            one.on_invoke_result(Outcome(0, is_throttled=True), self.now)
            return one
        count = len(batch) // 2 if what == "partial" else len(batch)
        event = json.loads(invocation.event())
        seen = [*event.get("state", {}).get("seen", []), *batch[:count]]
        self.delivered += batch
        if what == "fail":
            one.on_invoke_result(FAILED, self.now)
            return one
        if invocation.is_final and invocation.window is not None:
            self.windows.setdefault(invocation.window.start_s, []).append(seen)
        if what == "die":
            # The function ran, nobody heard of it.
            self.restarts += 1
            return self._restart()
        failure = ("Alleycat.PartialBatch", "") if count < len(batch) else None
        self.acknowledged.update(batch[:count])
        state = json.dumps({"seen": seen}).encode() if invocation.window is not None else None
        one.on_invoke_result(Outcome(count, failure, state), self.now)
        return one

    def _check(self, batch: list[int], invocation: Invoke) -> None:
        assert len(batch) <= self.config.batch_size
        assert bool(batch) != invocation.is_final
        if batch:
            after = self._saved.sequence_number
            assert batch[0] == (int(after) + 1 if after is not None else 0), "a batch follows its checkpoint"
            assert batch == list(range(batch[0], batch[0] + len(batch))), "in order, without a gap"
        if invocation.window is not None:
            for n in batch:
                assert invocation.window.start_s <= self.arrivals[n] < invocation.window.end_s


worlds = st.builds(
    World,
    # Often several in one read, sometimes none for a while.
    arrivals=st.lists(st.sampled_from([0.0, 0.0, 0.1, 0.7, 2.0]) | st.floats(0, 12), max_size=25).map(
        lambda gaps: [round(T + sum(gaps[: n + 1]), 3) for n in range(len(gaps))]
    ),
    config=st.builds(
        mapping,
        batch_size=st.integers(1, 6),
        batching_window_s=st.sampled_from([0.0, 0.7, 3.0]),
        tumbling_window_s=st.sampled_from([0, 1, 3, 10]),
    ),
    poll_limit=st.integers(1, 8),
    script=st.lists(st.sampled_from(["ok", "ok", "fail", "partial", "throttle", "die"]), min_size=8, max_size=40),
    ends_at=st.none() | st.floats(T, T + 30),
)


@given(worlds)
@settings(max_examples=500, deadline=None)
def test_whatever_happens_every_record_is_processed_in_order_and_every_window_is_whole(world: World) -> None:
    if world.ends_at is not None:
        world.ends_at = max([world.ends_at, *world.arrivals])
    one = world.run()
    everything = list(range(len(world.arrivals)))
    assert sorted(set(world.delivered)) == everything
    assert list(dict.fromkeys(world.delivered)) == everything, "first deliveries are in order"
    assert one.checkpoint.sequence_number == (str(everything[-1]) if everything else None)
    assert one.checkpoint.window is None
    assert one.dropped_records == 0
    if not world.restarts:
        assert world.acknowledged == set(everything)
    size_s = world.config.tumbling_window_s
    if size_s:
        expected: dict[int, list[int]] = {}
        for n, arrival in enumerate(world.arrivals):
            expected.setdefault(int(arrival // size_s) * size_s, []).append(n)
        assert set(world.windows) == set(expected)
        for start_s, emitted in world.windows.items():
            for seen in emitted:
                assert seen == expected[start_s], "each last invocation saw the whole window, each record once"


@given(worlds, st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_with_a_retry_limit_what_is_lost_is_counted(world: World, limit: int) -> None:
    world.config = mapping(batch_size=world.config.batch_size, maximum_retry_attempts=limit)
    world.script = [what for what in world.script if what != "die"]
    world.ends_at = None
    one = world.run()
    assert len(world.acknowledged) + one.dropped_records == len(world.arrivals)
