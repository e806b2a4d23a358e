"""The runtime as a whole: threads, processes, checkpoints, against a deterministic double of a Kinesis client."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError, NoRegionError

from consumers.runtime import (
    CheckpointError,
    ConfigurationError,
    FunctionConfig,
    MappingConfig,
    Runtime,
    RuntimeSettings,
    ShardStatistics,
    kinesis_client,
)
from consumers.runtime.checkpoints import Checkpoints, ShardCheckpoint

HERE = Path(__file__).with_name("handlers_for_tests")
ARN = "arn:aws:kinesis:us-east-1:123456789012:stream/alleycat"
FAST = RuntimeSettings(poll_interval_s=0.02, catch_up_interval_s=0.005, list_shards_interval_s=0.5)
S0, S1, S2, S3 = (f"shardId-{n:012d}" for n in range(4))


def client_error(code: str, operation: str = "GetRecords") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": f"this is {code}"}}, operation)


@dataclass
class FakeShard:
    parents: tuple[str, ...] = ()
    is_open: bool = True
    records: list[dict[str, Any]] = field(default_factory=list)


class FakeKinesis:
    """One stream behind boto3's three read calls. Errors put into ``errors`` are raised one a call."""

    def __init__(self, shards: int = 1) -> None:
        self.lock = threading.Lock()
        self.shards = {f"shardId-{n:012d}": FakeShard() for n in range(shards)}
        self.errors: dict[str, list[Exception]] = {"get_records": [], "list_shards": [], "get_shard_iterator": []}
        self.down: Exception | None = None
        self.is_closed = False
        self.positions: list[dict[str, Any]] = []
        self._sequence = 100

    def put(self, shard_id: str, *data: str, arrival_s: float | None = None) -> None:
        with self.lock:
            shard = self.shards[shard_id]
            assert shard.is_open
            for one in data:
                self._sequence += 7
                shard.records.append(
                    {
                        "SequenceNumber": str(self._sequence),
                        "ApproximateArrivalTimestamp": datetime.fromtimestamp(arrival_s or time.time(), UTC),
                        "Data": one.encode(),
                        "PartitionKey": "p",
                    }
                )

    def close(self) -> None:
        self.is_closed = True

    def reshard(self, parents: list[str], children: list[str]) -> None:
        with self.lock:
            for parent in parents:
                self.shards[parent].is_open = False
            for child in children:
                self.shards[child] = FakeShard(tuple(parents))

    def end_shard(self, shard_id: str) -> None:
        self.shards[shard_id].is_open = False

    def _fail(self, operation: str) -> None:
        if self.down is not None:
            raise self.down
        if self.errors[operation]:
            raise self.errors[operation].pop(0)

    def list_shards(self, **request: Any) -> dict[str, Any]:
        assert set(request) in ({"StreamARN"}, {"NextToken"})
        with self.lock:
            self._fail("list_shards")
            after = request.get("NextToken", "")
            names = [name for name in sorted(self.shards) if name > after]
            page = []
            for name in names[:2]:
                shard = self.shards[name]
                described: dict[str, Any] = {"ShardId": name, "SequenceNumberRange": {"StartingSequenceNumber": "1"}}
                if not shard.is_open:
                    described["SequenceNumberRange"]["EndingSequenceNumber"] = "9"
                described |= dict(zip(("ParentShardId", "AdjacentParentShardId"), shard.parents, strict=False))
                page.append(described)
            return {"Shards": page} | ({"NextToken": names[1]} if len(names) > 2 else {})

    def get_shard_iterator(self, **request: Any) -> dict[str, Any]:
        with self.lock:
            self._fail("get_shard_iterator")
            self.positions.append(request)
            records = self.shards[request["ShardId"]].records
            match request["ShardIteratorType"]:
                case "TRIM_HORIZON":
                    index = 0
                case "LATEST":
                    index = len(records)
                case "AFTER_SEQUENCE_NUMBER":
                    after = int(request["StartingSequenceNumber"])
                    index = sum(int(record["SequenceNumber"]) <= after for record in records)
                case "AT_TIMESTAMP":
                    at = request["Timestamp"]
                    index = sum(record["ApproximateArrivalTimestamp"].timestamp() < at for record in records)
            return {"ShardIterator": f"{request['ShardId']}/{index}"}

    def get_records(self, **request: Any) -> dict[str, Any]:
        with self.lock:
            self._fail("get_records")
            shard_id, _, index = request["ShardIterator"].partition("/")
            shard = self.shards[shard_id]
            found = shard.records[int(index) :][: request["Limit"]]
            position = int(index) + len(found)
            behind = len(shard.records) - position
            answer: dict[str, Any] = {"Records": found, "MillisBehindLatest": behind * 10}
            if shard.is_open or behind:
                answer["NextShardIterator"] = f"{shard_id}/{position}"
            return answer


@dataclass
class Stage:
    """A fake stream, a file that functions write to, and runtimes on both."""

    tmp_path: Path
    kinesis: FakeKinesis = field(default_factory=FakeKinesis)
    log: list[tuple[str, str]] = field(default_factory=list)
    runtimes: list[Runtime] = field(default_factory=list)

    def runtime(self, handler: str = "batch", state_dir: bool = False, start: bool = True, **changes: Any) -> Runtime:
        function = FunctionConfig(
            name="F",
            handler=f"stream.{handler}",
            code_path=HERE,
            timeout_s=changes.pop("timeout_s", 10.0),
            environment={"OUT": str(self.out), "SLOW_S": "0.5"},
        )
        mapping = MappingConfig(
            **{"name": "m", "function_name": "F", "stream_name": "alleycat", "stream_arn": ARN} | changes
        )
        runtime = Runtime(
            [function],
            [mapping],
            client_factory=lambda: self.kinesis,
            state_dir=self.tmp_path / "state" if state_dir else None,
            settings=FAST,
            log=lambda source, line: self.log.append((source, line)),
        )
        self.runtimes.append(runtime)
        if start:
            runtime.start()
        return runtime

    @property
    def out(self) -> Path:
        return self.tmp_path / "out"

    def written(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.read_text().splitlines()] if self.out.exists() else []

    def data(self) -> list[str]:
        return [one for document in self.written() for one in document.get("data", [])]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    for runtime in made.runtimes:
        runtime.stop(0.0)


def eventually(condition: Callable[[], object], what: str = "") -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, f"it never came true: {what}"
        time.sleep(0.005)


def catch_up(runtime: Runtime) -> None:
    since = time.time()
    eventually(lambda: runtime.caught_up(since), "caught up")


def shard_of(runtime: Runtime, shard_id: str = S0) -> ShardStatistics:
    return runtime.statistics().mappings["m"].shards[shard_id]


# -- the ordinary course -------------------------------------------------------------------------------


def test_records_reach_the_function_in_batches_and_in_order(stage: Stage) -> None:
    everything = [f"r{n}" for n in range(25)]
    stage.kinesis.put(S0, *everything)
    runtime = stage.runtime(batch_size=10)
    catch_up(runtime)
    assert [len(document["data"]) for document in stage.written()] == [10, 10, 5]
    assert stage.data() == everything
    function = runtime.statistics().functions["F"]
    assert (function.invocations, function.errors, function.cold_starts, function.records_processed) == (3, 0, 1, 25)
    assert (function.concurrency, function.concurrency_max) == (0, 1)
    assert 0 < function.duration_ms_p50 <= function.duration_ms_p99 <= function.duration_ms_max
    assert 0 < function.iterator_age_ms <= function.iterator_age_ms_max
    shard = shard_of(runtime)
    assert (shard.status, shard.sequence_number, shard.buffered, shard.millis_behind) == ("reading", "275", 0, 0)
    series = runtime.statistics().series
    assert sum(value for _, name, metric, value in series if (name, metric) == ("F", "Invocations")) == 3
    assert {metric for _, _, metric, _ in series} == {"Invocations", "Duration", "IteratorAge"}


def test_caught_up_means_since(stage: Stage) -> None:
    runtime = stage.runtime(start=False)
    assert not runtime.caught_up(0.0), "it has not started"
    runtime.start()
    catch_up(runtime)
    stage.kinesis.put(S0, "late")
    assert not runtime.caught_up(time.time() + 60)
    catch_up(runtime)
    assert stage.data() == ["late"]


def test_each_shard_has_its_own_thread_and_environment(stage: Stage) -> None:
    stage.kinesis.shards[S1] = FakeShard()
    stage.kinesis.shards[S2] = FakeShard()
    for shard_id in (S0, S1, S2):
        stage.kinesis.put(shard_id, shard_id)
    runtime = stage.runtime("slow")
    catch_up(runtime)
    function = runtime.statistics().functions["F"]
    assert function.concurrency_max == 3
    assert sorted(stage.data()) == [S0, S1, S2]


def test_what_is_printed_and_what_goes_wrong_is_logged(stage: Stage) -> None:
    stage.kinesis.put(S0, "bad")
    runtime = stage.runtime("poison", maximum_retry_attempts=2)
    catch_up(runtime)
    assert ("F", "[ERROR] ValueError: a bad record") in stage.log
    assert stage.log.count(("m", f"{S0}: ValueError: a bad record")) == 1, "said once, not at each retry"


# -- windows -------------------------------------------------------------------------------------------


def test_a_window_closes_after_its_end_and_holds_its_records(stage: Stage) -> None:
    runtime = stage.runtime("window", tumbling_window_s=1, batch_size=2)
    start_s = int(time.time())
    stage.kinesis.put(S0, "a", "b", "c", arrival_s=start_s + 0.25)
    stage.kinesis.put(S0, "d", arrival_s=start_s + 1.25)
    since = time.time()
    eventually(lambda: len(stage.written()) == 2 and runtime.caught_up(since), "both windows closed")
    assert [document["seen"] for document in stage.written()] == [["a", "b", "c"], ["d"]]
    # The first window was closed by the second's record, the second by the tip, the grace after its end.
    assert time.time() >= start_s + 2 + FAST.window_close_grace_s


def test_a_restart_resumes_in_the_middle_of_a_window(stage: Stage) -> None:
    # A window of the future: its end does not come in the middle of the test.
    start_s = int(time.time() // 900 + 1) * 900
    stage.kinesis.put(S0, "a", "b", arrival_s=start_s + 1.0)
    first = stage.runtime("window", state_dir=True, tumbling_window_s=900)
    eventually(lambda: shard_of(first).window_start_s == start_s, "open window")
    assert first.stop()
    assert stage.written() == []

    stage.kinesis.put(S0, "c", arrival_s=start_s + 2.0)
    stage.kinesis.end_shard(S0)
    second = stage.runtime("window", state_dir=True, tumbling_window_s=900)
    catch_up(second)
    assert [document["seen"] for document in stage.written()] == [["a", "b", "c"]]


# -- resharding ----------------------------------------------------------------------------------------


def test_parents_are_drained_before_their_children_are_read(stage: Stage) -> None:
    stage.kinesis.put(S0, *[f"p{n}" for n in range(40)])
    runtime = stage.runtime(batch_size=4)
    eventually(lambda: stage.data(), "started")
    stage.kinesis.reshard([S0], [S1, S2])
    stage.kinesis.put(S1, "c1")
    stage.kinesis.put(S2, "c2")
    catch_up(runtime)
    assert stage.data()[:40] == [f"p{n}" for n in range(40)]
    assert sorted(stage.data()[40:]) == ["c1", "c2"]
    stage.kinesis.reshard([S1, S2], [S3])
    stage.kinesis.put(S3, "grandchild")
    catch_up(runtime)
    assert stage.data()[42:] == ["grandchild"]
    statuses = {name: shard.status for name, shard in runtime.statistics().mappings["m"].shards.items()}
    assert statuses == {S0: "finished", S1: "finished", S2: "finished", S3: "reading"}


def test_a_parent_that_is_drained_is_no_end_before_its_children_are_known(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = stage.runtime(state_dir=True, start=False)
    asked: list[bool] = []
    save = Checkpoints.save

    def save_and_ask(self: Checkpoints, shard_id: str, checkpoint: ShardCheckpoint) -> None:
        save(self, shard_id, checkpoint)
        if checkpoint.finished:
            asked.append(runtime.caught_up(0.0))

    monkeypatch.setattr(Checkpoints, "save", save_and_ask)
    stage.kinesis.put(S0, "parent")
    runtime.start()
    eventually(lambda: shard_of(runtime).sequence_number, "read")
    stage.kinesis.reshard([S0], [S1])
    stage.kinesis.put(S1, "child")
    catch_up(runtime)
    assert asked == [False]
    assert stage.data() == ["parent", "child"]


def test_a_blocked_parent_holds_its_children_back(stage: Stage) -> None:
    stage.kinesis.put(S0, "bad")
    stage.kinesis.reshard([S0], [S1])
    stage.kinesis.put(S1, "child")
    runtime = stage.runtime("poison")
    eventually(lambda: shard_of(runtime).retries >= 3, "retries")
    assert set(runtime.statistics().mappings["m"].shards) == {S0}
    assert not runtime.caught_up(0.0)
    assert stage.data() == []


def test_a_restart_after_a_reshard_does_not_read_the_parent_again(stage: Stage) -> None:
    stage.kinesis.put(S0, "parent")
    stage.kinesis.reshard([S0], [S1])
    first = stage.runtime(state_dir=True)
    catch_up(first)
    first.stop()
    stage.kinesis.put(S1, "child")
    del stage.kinesis.shards[S0]  # its retention is over
    second = stage.runtime(state_dir=True)
    catch_up(second)
    assert stage.data() == ["parent", "child"]
    assert set(second.statistics().mappings["m"].shards) == {S1}
    state = json.loads((stage.tmp_path / "state" / "m.json").read_text())
    assert set(state["shards"]) == {S1}


# -- starting positions, restarts ----------------------------------------------------------------------


def test_a_restart_continues_after_the_checkpoint(stage: Stage) -> None:
    stage.kinesis.put(S0, "a", "b")
    first = stage.runtime(state_dir=True)
    catch_up(first)
    assert first.stop()
    stage.kinesis.put(S0, "c")
    catch_up(stage.runtime(state_dir=True))
    assert stage.data() == ["a", "b", "c"]
    last = stage.kinesis.positions[-1]
    assert (last["ShardIteratorType"], last["StartingSequenceNumber"]) == ("AFTER_SEQUENCE_NUMBER", "114")


def test_latest_skips_what_was_there_and_misses_nothing_later(stage: Stage) -> None:
    stage.kinesis.put(S0, "old", arrival_s=time.time() - 60)
    stage.kinesis.reshard([S0], [S1])
    stage.kinesis.put(S1, "old too", arrival_s=time.time() - 60)
    first = stage.runtime(state_dir=True, starting_position="LATEST")
    catch_up(first)
    first.stop()
    stage.kinesis.put(S1, "written while it was stopped")
    stage.kinesis.reshard([S1], [S2])
    stage.kinesis.put(S2, "child")
    catch_up(stage.runtime(state_dir=True, starting_position="LATEST"))
    assert stage.data() == ["written while it was stopped", "child"]


def test_a_timestamp_is_a_place_to_start(stage: Stage) -> None:
    now = time.time()
    stage.kinesis.put(S0, "before", arrival_s=now - 60)
    stage.kinesis.put(S0, "after", arrival_s=now)
    catch_up(stage.runtime(starting_position="AT_TIMESTAMP", starting_timestamp=now - 30))
    assert stage.data() == ["after"]


def test_an_unusable_checkpoint_file_is_an_error_at_the_start(stage: Stage) -> None:
    (stage.tmp_path / "state").mkdir()
    (stage.tmp_path / "state" / "m.json").write_text("{")
    runtime = stage.runtime(state_dir=True, start=False)
    with pytest.raises(CheckpointError, match="Delete this file"), runtime:
        pass


# -- failing functions ---------------------------------------------------------------------------------


def test_partial_failures_advance_through_the_batch(stage: Stage) -> None:
    stage.kinesis.put(S0, *"abcdefg")
    runtime = stage.runtime("one_by_one", report_batch_item_failures=True)
    catch_up(runtime)
    assert stage.data() == list("abcdefg")
    assert runtime.statistics().functions["F"].invocations == 4
    assert runtime.statistics().functions["F"].errors == 0


def test_a_poisoned_batch_blocks_its_shard_until_it_is_given_up(stage: Stage) -> None:
    stage.kinesis.put(S0, "a", "bad", "b", "c")
    runtime = stage.runtime("poison", batch_size=2, maximum_retry_attempts=3)
    catch_up(runtime)
    assert stage.data() == ["b", "c"]
    shard = shard_of(runtime)
    assert (shard.retries, shard.dropped_records) == (3, 2)
    assert shard.last_error is not None
    assert (shard.last_error.type, shard.last_error.message) == ("ValueError", "a bad record")
    assert runtime.statistics().functions["F"].errors == 4


def test_a_timeout_is_counted_and_the_batch_is_retried(stage: Stage) -> None:
    stage.kinesis.put(S0, "a")
    runtime = stage.runtime("slow", timeout_s=0.1, maximum_retry_attempts=1)
    catch_up(runtime)
    function = runtime.statistics().functions["F"]
    assert (function.invocations, function.timeouts, function.errors, function.cold_starts) == (2, 2, 2, 2)
    assert [document for document in stage.written() if "data" in document] == []


# -- a stream in trouble -------------------------------------------------------------------------------


def test_throttled_reads_and_expired_iterators_are_retried(stage: Stage) -> None:
    stage.kinesis.put(S0, "a")
    stage.kinesis.errors["get_records"] = [
        client_error("ProvisionedThroughputExceededException"),
        client_error("ExpiredIteratorException"),
    ]
    runtime = stage.runtime()
    catch_up(runtime)
    assert stage.data() == ["a"]
    assert shard_of(runtime).read_throttles == 1
    assert len(stage.kinesis.positions) == 2
    stage.kinesis.errors["get_records"] = [client_error("ExpiredIteratorException")]
    stage.kinesis.put(S0, "b")
    catch_up(runtime)
    assert stage.data() == ["a", "b"]


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (client_error("ResourceNotFoundException"), "ResourceNotFoundException"),
        (EndpointConnectionError(endpoint_url="http://127.0.0.1:1"), "EndpointConnectionError"),
    ],
)
def test_a_stream_that_goes_away_is_told_and_waited_for(stage: Stage, error: Exception, name: str) -> None:
    stage.kinesis.down = error
    stage.kinesis.put(S0, "a")
    runtime = stage.runtime()
    eventually(lambda: runtime.statistics().mappings["m"].status == "unreachable", "unreachable at the start")
    mapping = runtime.statistics().mappings["m"]
    assert mapping.last_error is not None
    assert mapping.last_error.type == name
    assert not runtime.caught_up(0.0)
    stage.kinesis.down = None
    catch_up(runtime)
    assert runtime.statistics().mappings["m"].status == "running"

    stage.kinesis.down = error
    stage.kinesis.put(S0, "b")
    eventually(lambda: shard_of(runtime).status == "unreachable", "unreachable in the middle")
    last_error = shard_of(runtime).last_error
    assert last_error is not None
    assert last_error.type == name
    stage.kinesis.down = None
    catch_up(runtime)
    assert stage.data() == ["a", "b"]


def test_what_nobody_expected_is_told_and_the_shard_starts_again_from_its_checkpoint(stage: Stage) -> None:
    stage.kinesis.put(S0, "a")
    runtime = stage.runtime()
    catch_up(runtime)
    stage.kinesis.put(S0, "b")
    stage.kinesis.errors["get_records"] = [ZeroDivisionError("a bug")]
    eventually(lambda: shard_of(runtime).crashes == 1, "crash")
    last_error = shard_of(runtime).last_error
    assert last_error is not None
    assert (last_error.type, last_error.message) == ("ZeroDivisionError", "a bug")
    catch_up(runtime)
    assert stage.data() == ["a", "b"]
    stage.kinesis.errors["list_shards"] = [ZeroDivisionError("another bug")]
    eventually(lambda: runtime.statistics().mappings["m"].last_error is not None, "listing crashed")
    eventually(lambda: runtime.statistics().mappings["m"].status == "running", "listing again")


# -- stopping ------------------------------------------------------------------------------------------


def test_stop_lets_the_invocation_finish(stage: Stage) -> None:
    stage.kinesis.put(S0, "a")
    runtime = stage.runtime("slow", state_dir=True)
    eventually(lambda: stage.written(), "running")
    assert runtime.stop(5.0)
    assert stage.data() == ["a"]
    assert shard_of(runtime).status == "stopped"
    assert stage.kinesis.is_closed
    assert '"sequenceNumber":"107"' in (stage.tmp_path / "state" / "m.json").read_text()
    assert not [thread for thread in threading.enumerate() if thread.name.split("/")[0] == "m"]


def test_stop_kills_at_its_timeout_and_the_batch_comes_again(stage: Stage) -> None:
    stage.kinesis.put(S0, "a")
    runtime = stage.runtime("slow", state_dir=True)
    eventually(lambda: stage.written(), "running")
    assert not runtime.stop(0.1)
    assert stage.data() == []
    assert runtime.statistics().functions["F"].errors == 0
    catch_up(stage.runtime("slow", state_dir=True))
    assert stage.data() == ["a"]


def test_stopping_twice_or_before_the_start_is_harmless(stage: Stage) -> None:
    runtime = stage.runtime(start=False)
    assert runtime.stop()
    assert runtime.stop()
    with pytest.raises(ConfigurationError, match="a runtime starts once"):
        runtime.start()


# -- set up wrongly ------------------------------------------------------------------------------------


def test_names_must_exist_once(stage: Stage) -> None:
    function = FunctionConfig(name="F", handler="stream.batch", code_path=HERE)
    mapping = MappingConfig(name="m", function_name="G", stream_name="alleycat", stream_arn=ARN)
    with pytest.raises(ConfigurationError, match="mapping 'm' invokes 'G', which is not among the functions F"):
        Runtime([function], [mapping])
    with pytest.raises(ConfigurationError, match="function names must be unique; used more than once: F"):
        Runtime([function, function], [])


def test_a_client_that_cannot_be_made_is_one_clear_error(stage: Stage) -> None:
    def no_client() -> Any:
        error: BotoCoreError = NoRegionError()
        raise error

    function = FunctionConfig(name="F", handler="stream.batch", code_path=HERE)
    mapping = MappingConfig(name="m", function_name="F", stream_name="alleycat", stream_arn=ARN)
    with pytest.raises(ConfigurationError, match="no client for the streams could be made: You must specify a region"):
        Runtime([function], [mapping], client_factory=no_client).start()


def test_functions_can_be_invoked_directly() -> None:
    function = FunctionConfig(name="F", handler="basic.handler", code_path=HERE)
    with Runtime([function], []) as runtime:
        assert runtime.invoke("F", {"do": "echo"}).payload == b'{"do": "echo"}'
        assert runtime.statistics().functions["F"].invocations == 1
        assert runtime.caught_up(time.time())
        with pytest.raises(ConfigurationError, match="there is no function 'G'; there are F"):
            runtime.invoke("G", {})


# -- the client ----------------------------------------------------------------------------------------


class _Endpoint(BaseHTTPRequestHandler):
    calls = 0

    def do_POST(self) -> None:
        type(self).calls += 1
        self.rfile.read(int(self.headers["Content-Length"]))
        failing = self.headers["X-Amz-Target"].endswith("ListShards")
        body = (
            b'{"__type":"InternalFailure"}'
            if failing
            else json.dumps(
                {
                    "Records": [
                        {
                            "SequenceNumber": "7",
                            "ApproximateArrivalTimestamp": 1545084650.987,
                            "Data": "AP97fQ==",
                            "PartitionKey": "p",
                        }
                    ],
                    "MillisBehindLatest": 0,
                }
            ).encode()
        )
        self.send_response(500 if failing else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


def test_our_client_leaves_records_as_the_wire_has_them_and_does_not_retry() -> None:
    with HTTPServer(("127.0.0.1", 0), _Endpoint) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        client = kinesis_client(
            endpoint_url=f"http://127.0.0.1:{server.server_port}",
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        (record,) = client.get_records(ShardIterator="x")["Records"]
        assert (record["Data"], record["ApproximateArrivalTimestamp"]) == ("AP97fQ==", 1545084650.987)
        _Endpoint.calls = 0
        with pytest.raises(ClientError):
            client.list_shards(StreamName="alleycat")
        assert _Endpoint.calls == 1
        client.close()
        server.shutdown()


def test_records_that_expired_are_passed_over_and_told(stage: Stage) -> None:
    stage.kinesis.put(S0, "first")
    first = stage.runtime(state_dir=True)
    catch_up(first)
    first.stop()
    stage.kinesis.errors["get_shard_iterator"] = [client_error("TrimmedDataAccessException")]
    stage.kinesis.put(S0, "second")
    second = stage.runtime(state_dir=True)
    catch_up(second)
    assert [position["ShardIteratorType"] for position in stage.kinesis.positions] == ["TRIM_HORIZON"] * 2
    error = shard_of(second).last_error
    assert error is not None
    assert error.message == "this is TrimmedDataAccessException Reading goes on at the oldest record."


def test_a_throttled_listing_is_asked_again(stage: Stage) -> None:
    stage.kinesis.put(S0, "data")
    stage.kinesis.errors["list_shards"] = [client_error("LimitExceededException", "ListShards")]
    runtime = stage.runtime()
    catch_up(runtime)
    mapping = runtime.statistics().mappings["m"]
    assert mapping.status == "running"
    assert mapping.last_error is not None
    assert mapping.last_error.type == "LimitExceededException"
    assert stage.data() == ["data"]
