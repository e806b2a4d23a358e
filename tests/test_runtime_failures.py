"""The runtime as a whole, when a mapping has lanes, filters, limits and a destination: threads and real processes."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from test_runtime_mapping import ARN, FAST, HERE, S0, S1, FakeShard, Stage, catch_up, client_error, eventually, shard_of

from consumers.runtime import Backoff, FunctionConfig, MappingConfig, Runtime

QUEUE = "arn:aws:sqs:us-east-1:123456789012:dead"
# Of these keys, each is in a lane of its own when there are three.
KEYS = ("a", "d", "f")


@dataclass
class FakeQueue:
    """SQS behind boto3's calls. ``errors`` are raised one a message."""

    errors: list[Exception] = field(default_factory=list)
    messages: list[Any] = field(default_factory=list)
    is_closed: bool = False

    def get_queue_url(self, **request: str) -> dict[str, str]:
        assert request == {"QueueName": "dead", "QueueOwnerAWSAccountId": "123456789012"}
        return {"QueueUrl": "http://queue"}

    def send_message(self, **request: str) -> None:
        if self.errors:
            raise self.errors.pop(0)
        assert request["QueueUrl"] == "http://queue"
        self.messages.append(json.loads(request["MessageBody"]))

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def stage(tmp_path: Path) -> Any:
    made = Stage(tmp_path)
    yield made
    for runtime in made.runtimes:
        runtime.stop(0.0)


@pytest.fixture
def queue() -> FakeQueue:
    return FakeQueue()


def start(
    stage: Stage, handler: str, queue: FakeQueue | None = None, state_dir: bool = False, **changes: Any
) -> Runtime:
    function = FunctionConfig(
        name="F",
        handler=f"stream.{handler}",
        code_path=HERE,
        timeout_s=10.0,
        environment={"OUT": str(stage.out), "SLOW_S": "0.4"},
        reserved_concurrency=changes.pop("reserved_concurrency", None),
    )
    mapping = MappingConfig(
        **{"name": "m", "function_name": "F", "stream_name": "alleycat", "stream_arn": ARN} | changes
    )

    def client(service: str) -> Any:
        assert service == "sqs"
        return queue

    runtime = Runtime(
        [function],
        [mapping],
        client_factory=lambda: stage.kinesis,
        service_client_factory=client,
        state_dir=stage.tmp_path / "state" if state_dir else None,
        settings=replace(FAST, unreachable=Backoff(0.01, 0.01, 0.01), throttled=Backoff(0.01, 0.02, 0.05)),
        log=lambda source, line: stage.log.append((source, line)),
    )
    stage.runtimes.append(runtime)
    runtime.start()
    return runtime


def put(stage: Stage, key: str, *data: str, age_s: float = 0.0) -> None:
    with stage.kinesis.lock:
        for one in data:
            stage.kinesis._sequence += 1
            record = {
                "SequenceNumber": str(stage.kinesis._sequence),
                "ApproximateArrivalTimestamp": datetime.fromtimestamp(time.time() - age_s, UTC),
                "Data": one.encode(),
                "PartitionKey": key,
            }
            stage.kinesis.shards[S0].records.append(record)


# -- lanes ---------------------------------------------------------------------------------------------


def test_lanes_invoke_at_the_same_time_and_keep_the_order_of_each_key(stage: Stage) -> None:
    for n in range(2):
        for key in KEYS:
            put(stage, key, f"{key}{n}")
    runtime = start(stage, "slow", parallelization_factor=3, batch_size=1)
    catch_up(runtime)
    function = runtime.statistics().functions["F"]
    assert (function.invocations, function.concurrency_max) == (6, 3)
    assert sorted(stage.data()) == ["a0", "a1", "d0", "d1", "f0", "f1"]
    for key in KEYS:
        assert [one for one in stage.data() if one[0] == key] == [f"{key}0", f"{key}1"]
    assert shard_of(runtime).sequence_number == str(stage.kinesis._sequence)


def test_a_blocked_lane_holds_the_checkpoint_and_nobody_else(stage: Stage) -> None:
    put(stage, "a", "a0")
    put(stage, "a", "bad")
    put(stage, "d", "d0", "d1")
    runtime = start(stage, "poison", parallelization_factor=3, batch_size=1, state_dir=True)
    eventually(lambda: "d1" in stage.data() and shard_of(runtime).retries >= 3, "the other lane goes on")
    assert shard_of(runtime).sequence_number == "101"
    assert not runtime.caught_up(0.0)
    assert runtime.stop()
    # What was processed beyond the checkpoint comes again: at least once.
    again = start(stage, "poison", parallelization_factor=3, state_dir=True, maximum_retry_attempts=0)
    catch_up(again)
    assert stage.data().count("a0") == 1
    assert stage.data().count("d1") == 2


def test_stop_lets_all_lanes_finish_and_remembers_it(stage: Stage) -> None:
    for key in KEYS:
        put(stage, key, key)
    runtime = start(stage, "slow", parallelization_factor=3, state_dir=True)
    eventually(lambda: len(stage.written()) == 3, "all are running")
    assert runtime.stop(5.0)
    assert sorted(stage.data()) == ["a", "d", "f"]
    assert '"sequenceNumber":"103"' in (stage.tmp_path / "state" / "m.json").read_text()
    assert shard_of(runtime).status == "stopped"


def test_a_crash_waits_for_the_lanes_and_starts_again_from_the_checkpoint(stage: Stage) -> None:
    put(stage, "a", "a0")
    runtime = start(stage, "slow", parallelization_factor=2)
    eventually(lambda: stage.written(), "running")
    stage.kinesis.errors["get_records"] = [ZeroDivisionError("a bug")]
    eventually(lambda: shard_of(runtime).crashes == 1, "crash")
    put(stage, "d", "d0")
    catch_up(runtime)
    assert sorted(stage.data()) == ["a0", "d0"], "what was in flight at the crash was checkpointed"


# -- destinations --------------------------------------------------------------------------------------


def test_a_batch_that_is_given_up_is_told_to_the_destination(stage: Stage, queue: FakeQueue) -> None:
    put(stage, "a", "a", "bad", "b")
    runtime = start(stage, "poison", queue, batch_size=2, maximum_retry_attempts=1, on_failure_destination=QUEUE)
    catch_up(runtime)
    assert stage.data() == ["b"]
    (message,) = queue.messages
    assert message["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert message["requestContext"]["approximateInvokeCount"] == 2
    assert message["requestContext"]["functionArn"] == "arn:aws:lambda:us-east-1:000000000000:function:F"
    assert message["responseContext"] == {
        "statusCode": 200,
        "executedVersion": "$LATEST",
        "functionError": "Unhandled",
    }
    info = message["KinesisBatchInfo"]
    assert (info["startSequenceNumber"], info["endSequenceNumber"], info["batchSize"]) == ("101", "102", 2)
    assert info["shardId"] == S0
    assert runtime.statistics().mappings["m"].event_counts == {
        "PolledEventCount": 3,
        "FilteredOutEventCount": 0,
        "InvokedEventCount": 5,
        "FailedInvokeEventCount": 4,
        "DroppedEventCount": 0,
        "OnFailureDestinationDeliveredEventCount": 2,
    }
    assert shard_of(runtime).dropped_records == 2
    runtime.stop()
    assert queue.is_closed


def test_a_bad_record_is_isolated_by_bisecting(stage: Stage, queue: FakeQueue) -> None:
    put(stage, "a", *"abc", "bad", *"defg")
    runtime = start(
        stage,
        "poison",
        queue,
        maximum_retry_attempts=0,
        bisect_batch_on_function_error=True,
        on_failure_destination=QUEUE,
    )
    catch_up(runtime)
    assert stage.data() == list("abcdefg")
    assert [message["KinesisBatchInfo"]["batchSize"] for message in queue.messages] == [1]
    assert queue.messages[0]["KinesisBatchInfo"]["startSequenceNumber"] == "104"


def test_a_reported_failure_is_told_without_a_function_error(stage: Stage, queue: FakeQueue) -> None:
    put(stage, "a", "a", "b")
    runtime = start(
        stage,
        "report_first",
        queue,
        report_batch_item_failures=True,
        maximum_retry_attempts=0,
        on_failure_destination=QUEUE,
    )
    catch_up(runtime)
    (message,) = queue.messages
    assert message["responseContext"]["functionError"] is None
    assert runtime.statistics().functions["F"].errors == 0


def test_records_that_are_too_old_are_told_and_not_processed(stage: Stage, queue: FakeQueue) -> None:
    put(stage, "a", "old", age_s=120)
    put(stage, "a", "new")
    runtime = start(stage, "batch", queue, maximum_record_age_s=60, on_failure_destination=QUEUE)
    catch_up(runtime)
    assert stage.data() == ["new"]
    (message,) = queue.messages
    assert message["requestContext"]["condition"] == "RecordAgeExceeded"
    assert message["requestContext"]["approximateInvokeCount"] == 1, "as recorded, though it was not invoked"
    assert message["KinesisBatchInfo"]["batchSize"] == 1
    assert "responseContext" not in message


@pytest.mark.parametrize(
    "error",
    [
        client_error("AWS.SimpleQueueService.NonExistentQueue", "SendMessage"),
        EndpointConnectionError(endpoint_url="http://127.0.0.1:1"),
    ],
)
def test_a_destination_that_cannot_be_told_is_tried_again(
    stage: Stage, queue: FakeQueue, error: ClientError | EndpointConnectionError
) -> None:
    queue.errors = [error, error]
    put(stage, "a", "bad", "b")
    runtime = start(stage, "poison", queue, batch_size=1, maximum_retry_attempts=0, on_failure_destination=QUEUE)
    catch_up(runtime)
    assert len(queue.messages) == 1
    shard = shard_of(runtime)
    assert (shard.delivery_failures, shard.event_counts["DroppedEventCount"]) == (2, 0)
    assert shard.last_error is not None
    assert shard.last_error.type == "DestinationDeliveryFailure"
    assert QUEUE in shard.last_error.message


def test_a_destination_that_never_answers_does_not_stop_the_stream(stage: Stage, queue: FakeQueue) -> None:
    queue.errors = [client_error("AccessDenied", "SendMessage")] * 99
    put(stage, "a", "bad", "b")
    runtime = start(stage, "poison", queue, batch_size=1, maximum_retry_attempts=0, on_failure_destination=QUEUE)
    catch_up(runtime)
    assert stage.data() == ["b"]
    counts = shard_of(runtime).event_counts
    assert (counts["DroppedEventCount"], counts["OnFailureDestinationDeliveredEventCount"]) == (1, 0)


def test_lanes_tell_the_destination_too(stage: Stage, queue: FakeQueue) -> None:
    put(stage, "a", "bad")
    put(stage, "d", "bad")
    put(stage, "f", "fine")
    runtime = start(
        stage, "poison", queue, parallelization_factor=3, maximum_retry_attempts=0, on_failure_destination=QUEUE
    )
    catch_up(runtime)
    assert sorted(message["KinesisBatchInfo"]["startSequenceNumber"] for message in queue.messages) == ["101", "102"]
    assert stage.data() == ["fine"]


# -- filters, concurrency ------------------------------------------------------------------------------


def test_only_what_passes_the_filters_reaches_the_function(stage: Stage) -> None:
    put(stage, "a", '{"event":"update","n":1}', "not JSON", '{"event":"final","n":2}', '{"event":"update","n":3}')
    runtime = start(stage, "batch", filter_patterns=('{"data":{"event":["final"]}}',))
    catch_up(runtime)
    assert stage.data() == ['{"event":"final","n":2}']
    shard = shard_of(runtime)
    assert (shard.event_counts["PolledEventCount"], shard.event_counts["FilteredOutEventCount"]) == (4, 3)
    assert shard.sequence_number == "104"


def test_what_reserved_concurrency_refuses_is_sent_again_and_is_no_retry(stage: Stage) -> None:
    stage.kinesis.shards[S1] = FakeShard()
    stage.kinesis.put(S0, "first")
    stage.kinesis.put(S1, "second")
    runtime = start(stage, "slow", reserved_concurrency=1, maximum_retry_attempts=0)
    catch_up(runtime)
    function = runtime.statistics().functions["F"]
    assert sorted(stage.data()) == ["first", "second"]
    assert function.throttles > 0
    assert (function.invocations, function.errors, function.cold_starts) == (2, 0, 1), "the second is warm"
    assert shard_of(runtime, S0).retries + shard_of(runtime, S1).retries == 0


def test_the_iterator_age_is_that_of_the_last_record_of_a_batch(stage: Stage) -> None:
    put(stage, "a", "first", age_s=1000)
    put(stage, "a", "last", age_s=100)
    runtime = start(stage, "batch")
    catch_up(runtime)
    assert 100_000 <= runtime.statistics().functions["F"].iterator_age_ms < 1_000_000
