"""What happens to a shard, second by second, with the clock in hand.

Each test is a stream, a function, and the expected timeline. A line is one thing that happens: when (seconds since
the beginning), what, and to which records. Reads that find nothing are left out. ``->`` is how an invocation ends,
and it ends a tenth of a second after it began unless it says otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from consumers.runtime.actions import Deliver, Finished, Invoke, Poll, Wait
from consumers.runtime.batches import Outcome, interpret
from consumers.runtime.config import MappingConfig, RuntimeSettings
from consumers.runtime.event import EventBuilder, Record
from consumers.runtime.failure_record import failure_record
from consumers.runtime.shard_schedule import ShardSchedule, lane_of
from consumers.runtime.windows import STATE_MAX_BYTES

ARN = "arn:aws:kinesis:us-east-1:123456789012:stream/alleycat"
QUEUE = "arn:aws:sqs:us-east-1:123456789012:dead"
SHARD = "shardId-000000000000"
T = 1_000_000.0  # a multiple of every window used here

Answers = Callable[[list[int], int], str]


@dataclass
class Timeline:
    """Runs a schedule against a stream of ``(arrival, key)`` and writes down what happens.

    ``answers`` gets an invocation's records and how many came before it, and says how it ends: ``ok``, ``fail``,
    ``throttle``, ``part N`` (record N is reported), or ``big`` (ok, with more state than is allowed).
    """

    arrivals: Sequence[tuple[float, str]]
    answers: Answers = lambda batch, nth: "ok"
    takes: Callable[[list[int]], float] = lambda batch: 0.1
    destination_refuses: int = 0
    ends_at: float | None = None
    data: Callable[[int], bytes] = lambda number: b"{}"
    settings: RuntimeSettings = field(default_factory=RuntimeSettings)
    lines: list[str] = field(default_factory=list)
    now: float = 0.0

    def run(self, until: float, **changes: Any) -> ShardSchedule:
        config = MappingConfig(
            **{"name": "m", "function_name": "f", "stream_name": "alleycat", "stream_arn": ARN} | changes
        )
        events = EventBuilder(config, SHARD)
        self._records = [
            events.record(str(n), key, self.data(n), T + arrival) for n, (arrival, key) in enumerate(self.arrivals, 1)
        ]
        one = ShardSchedule(config, SHARD, self.settings, T, rng=lambda: 0.5)
        self._lanes = config.parallelization_factor
        self._read = self._nth = 0
        returns: list[tuple[float, Invoke, Outcome]] = []
        while self.now <= until:
            due = [entry for entry in returns if entry[0] <= self.now]
            for entry in due:
                returns.remove(entry)
                one.on_invoke_result(entry[2], T + self.now, entry[1].lane)
            match one.next_action(T + self.now):
                case Poll():
                    self._poll(one)
                case Invoke() as invocation:
                    ends, outcome = self._invoke(invocation)
                    returns.append((ends, invocation, outcome))
                    if self._lanes == 1:
                        self.now = ends
                case Deliver(discard, lane):
                    self._deliver(one, discard, lane)
                case Wait(at):
                    # The sum of floats must not stop a hair before the time that was asked for.
                    self.now = max(self.now, min([at - T, *(entry[0] for entry in returns)])) + 1e-9
                case Finished():
                    self._write("finished")
                    break
        return one

    def _write(self, what: str) -> None:
        self.lines.append(f"{self.now:5.1f} {what}")

    def _poll(self, one: ShardSchedule) -> None:
        found = [record for record in self._records[self._read :] if record.arrival_s <= T + self.now]
        self._read += len(found)
        ended = self.ends_at is not None and self.now >= self.ends_at and self._read == len(self._records)
        if found:
            self._write(f"poll {names(found)}")
        one.on_poll_result(T + self.now, T + self.now, found, 0, shard_ended=ended)

    def _invoke(self, invocation: Invoke) -> tuple[float, Outcome]:
        batch = [int(record.sequence_number) for record in invocation.records]
        answer = self.answers(batch, self._nth)
        self._nth += 1
        takes = self.takes(batch)
        lane = f"lane {invocation.lane} " if self._lanes > 1 else ""
        what = f"invoke {names(invocation.records)}" if batch else "final"
        if invocation.window is not None:
            members = json.loads(invocation.members)
            state = "large" if len(invocation.members) > STATE_MAX_BYTES else json.dumps(members["state"])
            early = " early" if members["isWindowTerminatedEarly"] else ""
            start = invocation.window.start_s - int(T)
            what += f" of {start}..{invocation.window.end_s - int(T)}{early}, state {state}"
        until = f" until {self.now + takes:.1f}" if takes != 0.1 else ""
        self._write(f"{lane}{what} -> {answer}{until}")
        return self.now + takes, self._outcome(invocation, batch, answer)

    def _outcome(self, invocation: Invoke, batch: list[int], answer: str) -> Outcome:
        state: bytes | None = None
        if invocation.window is not None:
            seen = json.loads(invocation.members)["state"].get("n", 0)
            size = STATE_MAX_BYTES if answer == "big" else 0
            state = json.dumps({"n": seen + len(batch)} | ({"x": "x" * size} if size else {})).encode()
        match answer.split():
            case ["throttle"]:
                return Outcome(0, is_throttled=True)
            case ["fail"]:
                return Outcome(0, ("ValueError", "no"), request_id="r", function_error="Unhandled")
            case ["part", number]:
                return Outcome(batch.index(int(number)), ("Alleycat.PartialBatch", ""), state, request_id="r")
        return Outcome(len(batch), state=state)

    def _deliver(self, one: ShardSchedule, discard: Any, lane: int) -> None:
        what = f"destination {names(discard.records)} {discard.condition} after {discard.invoke_count}"
        if self.destination_refuses:
            self.destination_refuses -= 1
            self._write(f"{what} -> refused")
            one.on_delivery_failed(T + self.now, lane)
        else:
            self._write(what)
            one.on_delivered(T + self.now, lane)


def names(records: Sequence[Record]) -> str:
    return " ".join(record.sequence_number for record in records)


def same_key(*arrivals: float) -> list[tuple[float, str]]:
    return [(arrival, "k") for arrival in arrivals]


def expect(timeline: Timeline, text: str) -> None:
    assert timeline.lines == [line[4:] for line in text.splitlines() if line.strip()]


def fails_with(*poison: int) -> Answers:
    return lambda batch, nth: "fail" if set(poison) & set(batch) else "ok"


def script(*answers: str) -> Answers:
    return lambda batch, nth: answers[nth] if nth < len(answers) else "ok"


# -- batches -------------------------------------------------------------------------------------------


def test_a_batching_window_ends_with_its_time_or_a_full_batch() -> None:
    line = Timeline(same_key(0, 0.5, 3.2, 3.2, 3.2))
    line.run(8, batch_size=3, batching_window_s=2.5)
    expect(
        line,
        """
      0.0 poll 1
      1.0 poll 2
      2.5 invoke 1 2 -> ok
      4.0 poll 3 4 5
      4.0 invoke 3 4 5 -> ok
""",
    )


def test_what_is_filtered_out_waits_for_nobody_and_counts_for_no_batch() -> None:
    line = Timeline(same_key(0, 0, 0, 0, 3), data=lambda n: b'{"even":%d}' % (n % 2 == 0))
    one = line.run(2, batch_size=2, filter_patterns=('{"data":{"even":[1]}}',))
    expect(
        line,
        """
      0.0 poll 1 2 3 4
      0.0 invoke 2 4 -> ok
""",
    )
    assert one.checkpoint.sequence_number == "4"
    assert one.counts.event_counts() == {
        "PolledEventCount": 4,
        "FilteredOutEventCount": 2,
        "InvokedEventCount": 2,
        "FailedInvokeEventCount": 0,
        "DroppedEventCount": 0,
        "OnFailureDestinationDeliveredEventCount": 0,
    }
    everything = Timeline(same_key(0, 0))
    assert everything.run(1, filter_patterns=('{"data":{"x":[1]}}',)).checkpoint.sequence_number == "2"
    assert everything.lines == ["  0.0 poll 1 2"], "the checkpoint passes what nobody is asked to process"


# -- failures ------------------------------------------------------------------------------------------


def test_a_failed_batch_is_retried_at_once_then_ever_more_rarely() -> None:
    line = Timeline(same_key(0, 0, 0.5), script(*["fail"] * 9))
    one = line.run(18)
    expect(
        line,
        """
      0.0 poll 1 2
      0.0 invoke 1 2 -> fail
      0.1 invoke 1 2 -> fail
      0.3 invoke 1 2 -> fail
      0.6 invoke 1 2 -> fail
      1.1 invoke 1 2 -> fail
      2.0 invoke 1 2 -> fail
      3.7 invoke 1 2 -> fail
      7.0 invoke 1 2 -> fail
     12.1 invoke 1 2 -> fail
     17.2 invoke 1 2 -> ok
     17.3 poll 3
     17.3 invoke 3 -> ok
""",
    )
    assert (one.counts.invoked, one.counts.failed_invoke, one.counts.dropped_records) == (21, 18, 0)


def test_a_throttled_batch_is_no_attempt_so_it_is_not_given_up() -> None:
    line = Timeline(same_key(0, 0, 0.5), script("throttle", "throttle", "throttle"))
    line.run(3, maximum_retry_attempts=0)
    expect(
        line,
        """
      0.0 poll 1 2
      0.0 invoke 1 2 -> throttle
      0.3 invoke 1 2 -> throttle
      0.8 invoke 1 2 -> throttle
      1.7 invoke 1 2 -> ok
      1.8 poll 3
      1.8 invoke 3 -> ok
""",
    )


def test_bisecting_finds_the_bad_record_and_gives_up_that_alone() -> None:
    line = Timeline(same_key(0, 0, 0, 0, 0, 0), fails_with(4))
    one = line.run(
        3,
        batch_size=5,
        maximum_retry_attempts=1,
        bisect_batch_on_function_error=True,
        on_failure_destination=QUEUE,
    )
    # No split counts as a retry: the bad record alone has its one retry at the end.
    expect(
        line,
        """
      0.0 poll 1 2 3 4 5 6
      0.0 invoke 1 2 3 4 5 -> fail
      0.1 invoke 1 2 -> ok
      0.2 invoke 3 4 5 -> fail
      0.3 invoke 3 -> ok
      0.4 invoke 4 5 -> fail
      0.5 invoke 4 -> fail
      0.6 invoke 4 -> fail
      0.7 destination 4 RetryAttemptsExhausted after 2
      0.7 invoke 5 -> ok
      0.8 invoke 6 -> ok
""",
    )
    assert one.checkpoint.sequence_number == "6"
    assert one.counts.event_counts() == {
        "PolledEventCount": 6,
        "FilteredOutEventCount": 0,
        "InvokedEventCount": 17,
        "FailedInvokeEventCount": 12,
        "DroppedEventCount": 0,
        "OnFailureDestinationDeliveredEventCount": 1,
    }


def test_without_retries_a_batch_is_split_all_the_same() -> None:
    line = Timeline(same_key(0, 0), fails_with(1))
    line.run(2, maximum_retry_attempts=0, bisect_batch_on_function_error=True)
    expect(
        line,
        """
      0.0 poll 1 2
      0.0 invoke 1 2 -> fail
      0.1 invoke 1 -> fail
      0.2 invoke 2 -> ok
""",
    )


def test_each_half_has_attempts_of_its_own() -> None:
    line = Timeline(same_key(0, 0), fails_with(1, 2))
    one = line.run(2, maximum_retry_attempts=1, bisect_batch_on_function_error=True)
    expect(
        line,
        """
      0.0 poll 1 2
      0.0 invoke 1 2 -> fail
      0.1 invoke 1 -> fail
      0.2 invoke 1 -> fail
      0.3 invoke 2 -> fail
      0.4 invoke 2 -> fail
""",
    )
    assert (one.counts.dropped_records, one.counts.dropped) == (2, 2)


def test_a_partial_failure_is_taken_up_at_the_lowest_reported_record() -> None:
    line = Timeline(same_key(0, 0, 0, 0, 0, 0), script("part 3", "part 3", "part 5"))
    one = line.run(2, batch_size=5, maximum_retry_attempts=2)
    expect(
        line,
        """
      0.0 poll 1 2 3 4 5 6
      0.0 invoke 1 2 3 4 5 -> part 3
      0.1 invoke 3 4 5 -> part 3
      0.2 invoke 3 4 5 -> part 5
      0.3 invoke 5 -> ok
      0.4 invoke 6 -> ok
""",
    )
    assert one.counts.failed_invoke == 3 + 3 + 1


def test_with_both_a_batch_is_bisected_at_the_reported_record() -> None:
    line = Timeline(same_key(0, 0, 0, 0, 0), script("part 3", "part 3", "ok", "part 5"))
    line.run(2, maximum_retry_attempts=2, bisect_batch_on_function_error=True)
    # At 0.1 the reported record is the first, which splits nothing off, so the batch is halved.
    expect(
        line,
        """
      0.0 poll 1 2 3 4 5
      0.0 invoke 1 2 3 4 5 -> part 3
      0.1 invoke 3 4 5 -> part 3
      0.2 invoke 3 -> ok
      0.3 invoke 4 5 -> part 5
      0.4 invoke 5 -> ok
""",
    )


def test_records_that_are_too_old_are_given_up_without_an_invocation() -> None:
    line = Timeline(same_key(0, 0, 10), lambda batch, nth: "throttle" if nth < 17 else "ok")
    one = line.run(70, maximum_record_age_s=60, on_failure_destination=QUEUE)
    assert line.lines[:3] == ["  0.0 poll 1 2", "  0.0 invoke 1 2 -> throttle", "  0.3 invoke 1 2 -> throttle"]
    line.lines = line.lines[-6:]
    expect(
        line,
        """
     52.6 invoke 1 2 -> throttle
     57.7 invoke 1 2 -> throttle
     62.8 destination 1 2 RecordAgeExceeded after 0
     62.8 poll 3
     62.8 invoke 3 -> throttle
     67.9 invoke 3 -> ok
""",
    )
    assert (one.counts.dropped_records, one.counts.dropped, one.counts.delivered) == (2, 0, 2)


def test_only_the_records_that_are_too_old_leave_a_batch() -> None:
    line = Timeline([(0, "k"), (30, "k"), (50, "k")], fails_with(1, 2))
    one = line.run(95, maximum_record_age_s=60, batching_window_s=57)
    # The batch of all three fails from 57 on; at 60.7 only the first is beyond its minute.
    expect(
        line,
        """
      0.0 poll 1
     30.0 poll 2
     50.0 poll 3
     57.0 invoke 1 2 3 -> fail
     57.1 invoke 1 2 3 -> fail
     57.3 invoke 1 2 3 -> fail
     57.6 invoke 1 2 3 -> fail
     58.1 invoke 1 2 3 -> fail
     59.0 invoke 1 2 3 -> fail
     60.7 invoke 2 3 -> fail
     64.0 invoke 2 3 -> fail
     69.1 invoke 2 3 -> fail
     74.2 invoke 2 3 -> fail
     79.3 invoke 2 3 -> fail
     84.4 invoke 2 3 -> fail
     89.5 invoke 2 3 -> fail
     94.6 invoke 3 -> ok
""",
    )
    assert (one.counts.dropped_records, one.counts.dropped) == (2, 2)


def test_a_destination_that_refuses_blocks_its_shard_for_a_while() -> None:
    line = Timeline(same_key(0, 0), fails_with(1), destination_refuses=2)
    one = line.run(5, batch_size=1, maximum_retry_attempts=0, on_failure_destination=QUEUE)
    expect(
        line,
        """
      0.0 poll 1 2
      0.0 invoke 1 -> fail
      0.1 destination 1 RetryAttemptsExhausted after 1 -> refused
      0.3 destination 1 RetryAttemptsExhausted after 1 -> refused
      0.8 destination 1 RetryAttemptsExhausted after 1
      0.8 invoke 2 -> ok
""",
    )
    assert (one.counts.delivery_failures, one.counts.delivered, one.counts.dropped) == (2, 1, 0)


def test_a_destination_that_never_answers_loses_the_record_but_not_the_fact() -> None:
    line = Timeline(same_key(0, 0), fails_with(1), destination_refuses=99)
    one = line.run(9, batch_size=1, maximum_retry_attempts=0, on_failure_destination=QUEUE)
    expect(
        line,
        """
      0.0 poll 1 2
      0.0 invoke 1 -> fail
      0.1 destination 1 RetryAttemptsExhausted after 1 -> refused
      0.3 destination 1 RetryAttemptsExhausted after 1 -> refused
      0.8 destination 1 RetryAttemptsExhausted after 1 -> refused
      1.8 destination 1 RetryAttemptsExhausted after 1 -> refused
      3.8 destination 1 RetryAttemptsExhausted after 1 -> refused
      3.8 invoke 2 -> ok
""",
    )
    assert (one.counts.delivery_failures, one.counts.delivered, one.counts.dropped) == (5, 0, 1)


def test_a_record_that_fits_no_event_goes_to_the_destination() -> None:
    line = Timeline(same_key(0, 0), data=lambda n: b"x" * (6 * 1024 * 1024 if n == 1 else 1))
    line.run(1, on_failure_destination=QUEUE)
    expect(
        line,
        """
      0.0 poll 1 2
      0.0 destination 1 RetryAttemptsExhausted after 0
      0.0 invoke 2 -> ok
""",
    )


# Recorded against AWS: BatchSize 1, MaximumRetryAttempts 2, and these answers.
@pytest.mark.parametrize(
    "answer", [b"null", b"[]", b"{}", b'""', b'{"batchItemFailures":[]}', b'{"batchItemFailures":null}']
)
def test_recorded_successes_are_one_invocation(answer: bytes) -> None:
    assert recorded(answer) == ["invoked"]


@pytest.mark.parametrize(
    "answer",
    [
        b'{"batchItemFailures":[{"itemIdentifier":""}]}',
        b'{"batchItemFailures":[{"itemIdentifier":null}]}',
        b'{"batchItemFailures":[{"foo":"1"}]}',
        b'{"batchItemFailures":[{"itemIdentifier":"unknown"}]}',
    ],
)
def test_recorded_failures_are_three_invocations_and_a_document_without_a_function_error(answer: bytes) -> None:
    *invocations, document = recorded(answer)
    assert invocations == ["invoked"] * 3
    assert document["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert document["requestContext"]["approximateInvokeCount"] == 3
    assert document["responseContext"] == {"statusCode": 200, "executedVersion": "$LATEST", "functionError": None}
    assert document["KinesisBatchInfo"]["batchSize"] == 1


def recorded(answer: bytes) -> list[Any]:
    """What one record causes whose function always answers ``answer``."""
    config = MappingConfig(
        name="m",
        function_name="f",
        stream_name="alleycat",
        stream_arn=ARN,
        batch_size=1,
        batching_window_s=1.0,
        maximum_retry_attempts=2,
        report_batch_item_failures=True,
        on_failure_destination=QUEUE,
    )
    one = ShardSchedule(config, SHARD, RuntimeSettings(), T, rng=lambda: 0.5)
    now, happened = T, list[Any]()
    while not one.caught_up(T + 1):
        match one.next_action(now):
            case Poll():
                found = [EventBuilder(config, SHARD).record("1", "test", b"hello", T)] if now == T else []
                one.on_poll_result(now, now, found, 0, shard_ended=False)
            case Invoke(records):
                happened.append("invoked")
                numbers = [record.sequence_number for record in records]
                one.on_invoke_result(interpret(answer, numbers, report_batch_item_failures=True), now)
            case Deliver(discard):
                happened.append(json.loads(failure_record(discard, config, SHARD, "arn:f", now)))
                one.on_delivered(now)
            case Wait(until):
                now = until
    return happened


# -- lanes ---------------------------------------------------------------------------------------------
#
# Of the keys used here, e is in lane 0 and a in lane 1 when there are two.


def test_a_keys_lane_is_fixed_and_all_lanes_are_used() -> None:
    assert [lane_of(key, 2) for key in "ea"] == [0, 1]
    assert {lane_of(str(n), 10) for n in range(200)} == set(range(10))
    assert {lane_of(str(n), 1) for n in range(9)} == {0}


def test_lanes_work_at_the_same_time_and_a_key_is_in_one_invocation_at_a_time() -> None:
    line = Timeline(
        [(0, "a"), (0, "e"), (0, "a"), (0, "e"), (0.5, "a")], takes=lambda batch: 2.0 if 1 in batch else 0.3
    )
    one = line.run(6, parallelization_factor=2, batch_size=1)
    expect(
        line,
        """
      0.0 poll 1 2 3 4
      0.0 lane 0 invoke 2 -> ok until 0.3
      0.0 lane 1 invoke 1 -> ok until 2.0
      0.3 lane 0 invoke 4 -> ok until 0.6
      1.0 poll 5
      2.0 lane 1 invoke 3 -> ok until 2.3
      2.3 lane 1 invoke 5 -> ok until 2.6
""",
    )
    assert one.checkpoint.sequence_number == "5"


def test_a_lane_that_fails_blocks_itself_alone_and_the_checkpoint_waits_for_it() -> None:
    line = Timeline([(0, "a"), (0, "e"), (1, "e"), (2, "e")], fails_with(1))
    one = line.run(2.5, parallelization_factor=2, maximum_retry_attempts=5)
    expect(
        line,
        """
      0.0 poll 1 2
      0.0 lane 0 invoke 2 -> ok
      0.0 lane 1 invoke 1 -> fail
      0.1 lane 1 invoke 1 -> fail
      0.3 lane 1 invoke 1 -> fail
      0.6 lane 1 invoke 1 -> fail
      1.0 poll 3
      1.0 lane 0 invoke 3 -> ok
      1.1 lane 1 invoke 1 -> fail
      2.0 poll 4
      2.0 lane 0 invoke 4 -> ok
      2.0 lane 1 invoke 1 -> fail
""",
    )
    assert (one.counts.dropped_records, one.checkpoint.sequence_number) == (1, "4")
    blocked = Timeline([(0, "e"), (0, "a"), (1, "e"), (2, "e")], fails_with(2))
    assert blocked.run(2.5, parallelization_factor=2).checkpoint.sequence_number == "1"


def test_reading_pauses_while_too_much_waits_behind_a_blocked_lane() -> None:
    arrivals = [(0, "e"), *[(float(n), "a") for n in range(6)]]
    line = Timeline(arrivals, script("ok", *["fail"] * 6), settings=RuntimeSettings(read_ahead_max_records=3))
    line.run(6, parallelization_factor=2, batch_size=1)
    assert [text for text in line.lines if "poll" in text] == [
        "  0.0 poll 1 2",
        "  1.0 poll 3",
        "  2.0 poll 4",
        "  3.8 poll 5",
        "  4.8 poll 6",
        "  5.8 poll 7",
    ]


# -- windows -------------------------------------------------------------------------------------------


def test_a_window_ends_with_a_later_record_or_half_a_second_after_its_end() -> None:
    line = Timeline(same_key(1, 2, 6))
    line.run(15, tumbling_window_s=5)
    expect(
        line,
        """
      1.0 poll 1
      1.0 invoke 1 of 0..5, state {} -> ok
      2.0 poll 2
      2.0 invoke 2 of 0..5, state {"n": 1} -> ok
      6.0 poll 3
      6.0 final of 0..5, state {"n": 2} -> ok
      6.1 invoke 3 of 5..10, state {} -> ok
     11.0 final of 5..10, state {"n": 1} -> ok
""",
    )


def test_a_window_with_too_much_state_is_terminated_early_and_begins_again() -> None:
    line = Timeline(same_key(1, 1, 1), script("ok", "big"))
    line.run(10, tumbling_window_s=5, batch_size=1)
    expect(
        line,
        """
      1.0 poll 1 2 3
      1.0 invoke 1 of 0..5, state {} -> ok
      1.1 invoke 2 of 0..5, state {"n": 1} -> big
      1.2 final of 0..5 early, state large -> ok
      1.3 invoke 3 of 0..5, state {} -> ok
      6.0 final of 0..5, state {"n": 1} -> ok
""",
    )


def test_a_window_ends_with_its_shard() -> None:
    line = Timeline(same_key(1, 2), ends_at=2.0)
    line.run(10, tumbling_window_s=5)
    expect(
        line,
        """
      1.0 poll 1
      1.0 invoke 1 of 0..5, state {} -> ok
      2.0 poll 2
      2.0 invoke 2 of 0..5, state {"n": 1} -> ok
      2.1 final of 0..5, state {"n": 2} -> ok
      2.2 finished
""",
    )


def test_in_a_window_a_retry_gets_the_same_state_and_the_rest_of_a_batch_the_new() -> None:
    line = Timeline(same_key(1, 1, 1, 6), script("fail", "part 3", "throttle", "ok", "fail"))
    line.run(8, tumbling_window_s=5)
    expect(
        line,
        """
      1.0 poll 1 2 3
      1.0 invoke 1 2 3 of 0..5, state {} -> fail
      1.1 invoke 1 2 3 of 0..5, state {} -> part 3
      1.2 invoke 3 of 0..5, state {"n": 3} -> throttle
      1.5 invoke 3 of 0..5, state {"n": 3} -> ok
      6.0 poll 4
      6.0 final of 0..5, state {"n": 4} -> fail
      6.1 final of 0..5, state {"n": 4} -> ok
      6.2 invoke 4 of 5..10, state {} -> ok
""",
    )


def test_in_a_window_a_batch_is_bisected_and_its_bad_record_leaves_no_trace() -> None:
    line = Timeline(same_key(1, 1, 1), fails_with(2))
    line.run(7, tumbling_window_s=5, bisect_batch_on_function_error=True, maximum_retry_attempts=0)
    expect(
        line,
        """
      1.0 poll 1 2 3
      1.0 invoke 1 2 3 of 0..5, state {} -> fail
      1.1 invoke 1 of 0..5, state {} -> ok
      1.2 invoke 2 3 of 0..5, state {"n": 1} -> fail
      1.3 invoke 2 of 0..5, state {"n": 1} -> fail
      1.4 invoke 3 of 0..5, state {"n": 1} -> ok
      6.0 final of 0..5, state {"n": 2} -> ok
""",
    )


def test_in_a_window_old_records_are_given_up_and_the_state_stays() -> None:
    line = Timeline(same_key(1, 2), lambda batch, nth: "throttle" if nth and batch else "ok")
    one = line.run(70, tumbling_window_s=900, maximum_record_age_s=60)
    assert one.counts.dropped_records == 1
    assert one.checkpoint.sequence_number == "2"
    assert one.checkpoint.window is not None
    assert one.checkpoint.window.state == b'{"n": 1}'


def test_a_window_ends_though_every_later_record_is_filtered_out() -> None:
    line = Timeline(
        same_key(1, 5.5, 6, 6.5, 7), data=lambda n: b'{"n":%d}' % n, settings=RuntimeSettings(window_close_grace_s=60)
    )
    line.run(8, tumbling_window_s=5, filter_patterns=('{"data":{"n":[1]}}',))
    expect(
        line,
        """
      1.0 poll 1
      1.0 invoke 1 of 0..5, state {} -> ok
      6.0 poll 2 3
      6.0 final of 0..5, state {"n": 1} -> ok
      7.0 poll 4 5
""",
    )
