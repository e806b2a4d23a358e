"""The Lambda handlers against moto, and against a table that throttles by the limits of the design."""

from __future__ import annotations

import base64
import functools
import gzip
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto import mock_aws

from consumers import final_results, rejected, store, tumbling_window
from consumers.final_results import Written, settle
from consumers.store import Deadline, Finish, RaceTable
from simulator.cloud.limits import TokenBucket

TABLE = "alleycat-races"
BUCKET = "alleycat-rejected"
SHARD = "shardId-000000000003"


class Cloud:
    """The mocked account, and every call made to it."""

    def __init__(self) -> None:
        self.dynamodb = boto3.client("dynamodb")
        self.s3 = boto3.client("s3")
        self.calls: list[str] = []

    def items(self, pk: str) -> dict[str, Any]:
        answer = self.dynamodb.query(
            TableName=TABLE, KeyConditionExpression="PK = :pk", ExpressionAttributeValues={":pk": {"S": pk}}
        )
        return {item["SK"]["S"]: item for item in answer["Items"]}

    def results(self, race_id: int, sk: str = "results") -> Any:
        items = self.items(f"race-{race_id}")
        return json.loads(items[sk]["results"]["S"]) if sk in items else None

    def objects(self) -> list[str]:
        return [entry["Key"] for entry in self.s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])]


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("TABLE_NAME", TABLE)
    monkeypatch.setenv("REJECTED_BUCKET", BUCKET)
    forget()
    with mock_aws():
        cloud = Cloud()
        cloud.dynamodb.create_table(
            TableName=TABLE,
            KeySchema=[{"AttributeName": "PK", "KeyType": "HASH"}, {"AttributeName": "SK", "KeyType": "RANGE"}],
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("PK", "SK")],
            BillingMode="PAY_PER_REQUEST",
        )
        cloud.s3.create_bucket(Bucket=BUCKET)
        for client in (store.race_table(tumbling_window.TOTAL_MAX_ATTEMPTS)._client, rejected._s3()):
            client.meta.events.register("before-call", lambda model, **_: cloud.calls.append(model.name))
        final = store.race_table(final_results.TOTAL_MAX_ATTEMPTS)._client
        final.meta.events.register("before-call", lambda model, **_: cloud.calls.append(model.name))
        yield cloud
    forget()


def forget() -> None:
    """A cold start."""
    store.race_table.cache_clear()
    rejected._s3.cache_clear()
    final_results._unfinished.clear()


class Clock:
    """A Lambda context on a clock in hand: time passes only by sleeping, and by calls that take their time."""

    def __init__(self, timeout_ms: float) -> None:
        self.now = 0.0
        self.ends = timeout_ms / 1000

    def get_remaining_time_in_millis(self) -> int:
        return round((self.ends - self.now) * 1000)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def deadline(self) -> Deadline:
        return Deadline(self, sleep=self.sleep, rng=lambda: 0.5)


CONTEXT = Clock(900_000)


def telemetry(racer: int, cadence: float = 60.0, race: int = 7, class_id: int = 1, event: str = "update") -> bytes:
    message = {
        "uuid": f"u-{racer}",
        "event": event,
        "deviceTimestamp": 1_620_240_672_000 + racer,
        "second": 17,
        "raceId": race,
        "name": "Hubert",
        "racerId": racer,
        "classId": class_id,
        "cadence": cadence,
        "resistance": 35.0,
    }
    return json.dumps(message).encode()


def kinesis_event(payloads: list[bytes], first: int = 0, **window: Any) -> dict[str, Any]:
    records = [
        {
            "kinesis": {
                "kinesisSchemaVersion": "1.0",
                "partitionKey": f"key-{number}",
                "sequenceNumber": str(number),
                "data": base64.b64encode(data).decode(),
                "approximateArrivalTimestamp": 1_620_240_672.5,
            },
            "eventSource": "aws:kinesis",
            "eventID": f"{SHARD}:{number}",
        }
        for number, data in enumerate(payloads, first)
    ]
    event: dict[str, Any] = {"Records": records}
    if window:
        event |= {"window": {"start": "2020-07-30T17:00:00Z", "end": "2020-07-30T17:00:05Z"}, "shardId": SHARD}
        event |= {"state": {}, "isFinalInvokeForWindow": False, "isWindowTerminatedEarly": False} | window
    return event


# -- tumbling_window ----------------------------------------------------------------------------------


def test_a_window_writes_once_at_its_end(cloud: Cloud) -> None:
    first = kinesis_event([telemetry(100), telemetry(101, 70.0)], state={})
    answer = tumbling_window.handler(first, CONTEXT)
    assert answer == {"state": {"7|1": {"100": 9500, "101": 10500}}}
    second = kinesis_event([telemetry(100, 80.1), telemetry(101, 50.0)], state=answer["state"])
    answer = tumbling_window.handler(second, CONTEXT)
    assert answer == {"state": {"7|1": {"100": 11510, "101": 10500}}}
    assert cloud.calls == [], "a window in progress is state, and nothing else"

    final = kinesis_event([], state=answer["state"], isFinalInvokeForWindow=True)
    assert tumbling_window.handler(final, CONTEXT) == {"state": {}}
    assert cloud.results(7) == {"100": 115.1, "101": 105}
    assert cloud.calls == ["GetItem", "PutItem"]


@pytest.mark.parametrize("flag", ["isFinalInvokeForWindow", "isWindowTerminatedEarly"])
def test_records_of_the_last_invocation_count_too(cloud: Cloud, flag: str) -> None:
    event = kinesis_event([telemetry(101)], state={"7|1": {"100": 9500}}, **{flag: True})
    assert tumbling_window.handler(event, CONTEXT) == {"state": {}}
    assert cloud.results(7) == {"100": 95, "101": 95}


def test_without_a_window_each_batch_is_merged(cloud: Cloud) -> None:
    batch = [telemetry(100), telemetry(200, race=8), telemetry(300, class_id=2)]
    assert tumbling_window.handler(kinesis_event(batch), CONTEXT) == {"batchItemFailures": []}
    assert cloud.results(7) == {"100": 95}
    assert cloud.results(7, "results-2") == {"300": 95}
    assert cloud.results(8) == {"200": 95}


def test_an_empty_window_touches_nothing(cloud: Cloud) -> None:
    event = kinesis_event([], state={}, isFinalInvokeForWindow=True)
    assert tumbling_window.handler(event, CONTEXT) == {"state": {}}
    assert cloud.calls == []


def test_a_conflict_is_logged_in_one_line(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    client = store.race_table(tumbling_window.TOTAL_MAX_ATTEMPTS)._client
    rival = RaceTable(cloud.dynamodb, TABLE)
    bests = iter([{100: 20_000}])

    def rival_first(**_: Any) -> None:
        for best in bests:
            rival.merge_results(7, 1, best, lambda _: None)

    client.meta.events.register("before-call.dynamodb.PutItem", rival_first)
    tumbling_window.handler(kinesis_event([telemetry(100), telemetry(101)]), CONTEXT)
    assert cloud.results(7) == {"100": 200, "101": 95}
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {"event": "merge conflict", "raceId": 7, "classId": 1, "conflicts": 1}


def test_a_throttled_merge_keeps_trying(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    refuse(store.race_table(tumbling_window.TOTAL_MAX_ATTEMPTS), "PutItem", monkeypatch, times=10)
    tumbling_window.handler(kinesis_event([telemetry(100)]), CONTEXT)
    assert cloud.results(7) == {"100": 95}
    assert len(pauses) == 10


def refuse(
    table: RaceTable,
    operation: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    code: str = "ProvisionedThroughputExceededException",
    status: int = 400,
    times: int = 10**9,
) -> None:
    """DynamoDB answers the next ``times`` attempts of ``operation`` with an error and does nothing."""
    endpoint = table._client._endpoint
    answer = endpoint._get_response
    left = iter(range(times))

    def answer_or_refuse(request: Any, operation_model: Any, context: Any) -> Any:
        if operation_model.name != operation or next(left, None) is None:
            return answer(request, operation_model, context)
        parsed = {"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": status}}
        return (AWSResponse(request.url, status, {}, None), parsed), None

    monkeypatch.setattr(endpoint, "_get_response", answer_or_refuse)


rides = st.lists(
    st.tuples(st.integers(100, 104), st.integers(300, 900), st.sampled_from([1, 2]), st.integers(0, 1)),
    min_size=1,
    max_size=20,
)
race_ids = iter(range(1000, 10**9))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rides, st.data())
def test_any_split_duplicate_and_replay_gives_the_same_results(cloud: Cloud, rides: Any, data: Any) -> None:
    """Shards, batches and windows cut as they like; invocations repeated, as after a Timeout that hit late."""
    race = next(race_ids)
    expected: dict[int, dict[str, float]] = {}
    shards: list[list[bytes]] = [[], []]
    for racer, tenths, class_id, shard in rides:
        best = expected.setdefault(class_id, {})
        # Resistance 35 makes the factor 100/100, so an output is cadence + 35.
        best[str(racer)] = max(best.get(str(racer), 0), (tenths + 350) / 10)
        payload = telemetry(racer, tenths / 10, race, class_id)
        shards[shard] += [payload] * data.draw(st.integers(1, 2), label="copies")
    for shard in shards:
        windowed = data.draw(st.booleans(), label="windowed")
        state: dict[str, Any] = {}
        while shard:
            size = data.draw(st.integers(1, len(shard)), label="batch size")
            last = data.draw(st.booleans(), label="window ends") or size == len(shard)
            window = {"state": state, "isFinalInvokeForWindow": last} if windowed else {}
            event = json.dumps(kinesis_event(shard[:size], **window))
            for _ in range(data.draw(st.integers(1, 2), label="attempts")):
                answer = tumbling_window.handler(json.loads(event), CONTEXT)
            state = answer.get("state", {})
            del shard[:size]
    stored = {int(item["GSI"]["N"]): json.loads(item["results"]["S"]) for item in cloud.items(f"race-{race}").values()}
    assert stored == expected


# -- rejected -----------------------------------------------------------------------------------------


def test_rejected_records_are_kept_with_their_reasons(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    event = kinesis_event([telemetry(100), b"junk", telemetry(101), telemetry(102, class_id=9)], 40, state={})
    answer = tumbling_window.handler(event, CONTEXT)
    assert answer == {"state": {"7|1": {"100": 9500, "101": 9500}}}
    assert cloud.calls == ["PutObject"]
    assert cloud.objects() == [f"rejected/{SHARD}/41.jsonl.gz"]
    body = cloud.s3.get_object(Bucket=BUCKET, Key=f"rejected/{SHARD}/41.jsonl.gz")["Body"].read()
    first, second = map(json.loads, gzip.decompress(body).decode().splitlines())
    assert first == {
        "sequenceNumber": "41",
        "partitionKey": "key-41",
        "approximateArrivalTimestamp": 1_620_240_672.5,
        "reason": "not JSON: invalid character (byte 0)",
        "data": base64.b64encode(b"junk").decode(),
    }
    assert second["reason"] == "`classId` out of range: Expected `int` <= 6"
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["count"] == 2


def test_a_replay_overwrites_its_object(cloud: Cloud) -> None:
    key = f"rejected/{SHARD}/41.jsonl.gz"
    bodies = set()
    for _ in range(2):
        tumbling_window.handler(kinesis_event([b"junk", b"{}"], 41), CONTEXT)
        bodies.add(cloud.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())
    assert cloud.objects() == [key]
    (body,) = bodies
    assert body[4:8] == bytes(4), "no time in the gzip header"


@pytest.mark.parametrize("bucket", ["", "no-such-bucket"])
def test_without_a_bucket_rejected_records_go_to_the_log(
    cloud: Cloud, bucket: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REJECTED_BUCKET", bucket)
    event = kinesis_event([b"\xff" * 2**20, telemetry(100)], 41)
    assert tumbling_window.handler(event, CONTEXT) == {"batchItemFailures": []}
    assert cloud.results(7) == {"100": 95}
    (line,) = capsys.readouterr().out.splitlines()
    logged = json.loads(line)
    assert ("NoSuchBucket" if bucket else "REJECTED_BUCKET is not set") in logged["notStored"]
    assert logged["records"][0]["sequenceNumber"] == "41"
    assert len(line) < 1000


def test_a_local_endpoint_is_addressed_by_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    for variable, url in [("AWS_ENDPOINT_URL", "http://localhost:4566"), ("AWS_ENDPOINT_URL_S3", "http://localhost:1")]:
        rejected._s3.cache_clear()
        with monkeypatch.context() as patch:
            patch.setenv(variable, url)
            made = rejected._s3().generate_presigned_url("get_object", Params={"Bucket": "b", "Key": "k"})
        assert made.startswith(f"{url}/b/k?")
    rejected._s3.cache_clear()


# -- final_results ------------------------------------------------------------------------------------


def test_only_final_messages_are_stored(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    batch = [telemetry(100), telemetry(101, event="final"), b"junk", telemetry(102, 70.0, event="final")]
    assert final_results.handler(kinesis_event(batch), CONTEXT) == {"batchItemFailures": []}
    assert set(cloud.items("race-7")) == {"racer-101", "racer-102"}
    assert {sk: item["GSI"]["N"] for sk, item in cloud.items("class-1").items()} == {
        "racer-101": "95",
        "racer-102": "105",
    }
    assert cloud.objects() == []
    assert json.loads(capsys.readouterr().out) == {"event": "skipped", "shardId": SHARD, "count": 1}


def test_a_batch_without_finishes_makes_no_call(cloud: Cloud) -> None:
    assert final_results.handler(kinesis_event([telemetry(100)] * 3), CONTEXT) == {"batchItemFailures": []}
    assert final_results.handler({"Records": []}, CONTEXT) == {"batchItemFailures": []}
    assert cloud.calls == []


def test_calls_for_a_hundred_finishers(cloud: Cloud) -> None:
    batch = [telemetry(racer, event="final") for racer in range(100, 200)]
    final_results.handler(kinesis_event(batch), CONTEXT)
    assert Counter(cloud.calls) == {"BatchWriteItem": 8, "PutItem": 100}


def test_a_replay_and_a_duplicate_change_nothing(cloud: Cloud) -> None:
    batch = [telemetry(racer, event="final") for racer in (100, 101, 100, 102)]
    for _ in range(2):
        final_results.handler(kinesis_event(batch), CONTEXT)
        race, best = cloud.items("race-7"), cloud.items("class-1")
        assert len(race) == len(best) == 3
    final_results.handler(kinesis_event(batch), CONTEXT)
    assert (cloud.items("race-7"), cloud.items("class-1")) == (race, best)


def test_a_second_different_finish_overwrites_the_race_but_not_the_record(cloud: Cloud) -> None:
    batch = [telemetry(100, 80.0, event="final"), telemetry(101, event="final"), telemetry(100, 50.0, event="final")]
    final_results.handler(kinesis_event(batch), CONTEXT)
    assert cloud.items("race-7")["racer-100"]["GSI"]["N"] == "85"
    assert cloud.items("class-1")["racer-100"]["GSI"]["N"] == "115"


def test_a_missing_table_is_an_error_and_not_a_patient_wait(cloud: Cloud) -> None:
    cloud.dynamodb.delete_table(TableName=TABLE)
    with pytest.raises(store.StoreError, match="ResourceNotFoundException"):
        final_results.handler(kinesis_event([telemetry(100, event="final")]), CONTEXT)


class ThrottlingTable:
    """BatchWriteItem and conditional PutItem on a table with one index each kind, and their capacity.

    The arithmetic is the design's: a finish costs 4 write units on the table and 2 on the index. A new table
    has no burst saved. Each call takes ``call_s`` of the function's time.
    """

    def __init__(self, clock: Clock, table_wcu: float, index_wcu: float, call_s: float = 0.003) -> None:
        self.clock = clock
        self.call_s = call_s
        self.table = TokenBucket(table_wcu, 300 * table_wcu, clock.now, 0)
        self.index = TokenBucket(index_wcu, 300 * index_wcu, clock.now, 0)
        self.items: dict[tuple[str, str], Any] = {}
        self.calls: Counter[str] = Counter()
        self.table_units = 0
        self.index_units = 0

    def batch_write_item(self, *, RequestItems: Any) -> Any:  # noqa: N803
        self._called("BatchWriteItem")
        requests = RequestItems[TABLE]
        keys = [_key(request["PutRequest"]["Item"]) for request in requests]
        assert len(set(keys)) == len(keys) <= 25
        unprocessed = [r for r in requests if not self._write(r["PutRequest"]["Item"])]
        if len(unprocessed) == len(requests):
            raise self._throttled("BatchWriteItem")
        return {"UnprocessedItems": {TABLE: unprocessed} if unprocessed else {}}

    def put_item(self, *, Item: Any, ExpressionAttributeValues: Any, **_: Any) -> Any:  # noqa: N803
        self._called("PutItem")
        stored = self.items.get(_key(Item))
        if stored and float(stored["GSI"]["N"]) >= float(ExpressionAttributeValues[":new"]["N"]):
            if not self.table.take(1, self.clock.now):
                raise self._throttled("PutItem")
            answer: Any = {"Error": {"Code": "ConditionalCheckFailedException", "Message": "m"}}
            raise ClientError(answer, "PutItem")
        if not self._write(Item):
            raise self._throttled("PutItem")
        return {}

    def _called(self, operation: str) -> None:
        self.calls[operation] += 1
        self.clock.now += self.call_s

    def _write(self, item: Any) -> bool:
        changed = self.items.get(_key(item)) != item
        if self.table.refill(self.clock.now) < 1 + changed or self.index.refill(self.clock.now) < changed:
            return False
        self.table.take(1 + changed, self.clock.now)
        self.index.take(changed, self.clock.now)
        self.table_units += 1 + changed
        self.index_units += changed
        self.items[_key(item)] = item
        return True

    def _throttled(self, operation: str) -> ClientError:
        self.calls["throttled"] += 1
        answer: Any = {"Error": {"Code": "ProvisionedThroughputExceededException", "Message": "m"}}
        return ClientError(answer, operation)


def _key(item: Any) -> tuple[str, str]:
    return item["PK"]["S"], item["SK"]["S"]


def complete(server: ThrottlingTable, finish: Finish) -> bool:
    keys = [
        (f"race-{finish.race_id}", f"racer-{finish.racer_id}"),
        (f"class-{finish.class_id}", f"racer-{finish.racer_id}"),
    ]
    return all(key in server.items for key in keys)


FINISHES = [Finish(7, 1, racer, 9_500 + racer, racer) for racer in range(100, 200)]


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
@pytest.mark.parametrize("timeout_ms", [1_000, 3_000, 15_000])
def test_a_hundred_finishers_on_an_index_of_ten_write_units(timeout_ms: int, warm: bool) -> None:
    clock = Clock(0)
    server = ThrottlingTable(clock, table_wcu=20, index_wcu=10)
    table = RaceTable(server, TABLE)
    written, start, invocations, ahead = Written(), 0, 0, 0
    while start < len(FINISHES):
        invocations += 1
        clock.ends = clock.now + timeout_ms / 1000
        batch = FINISHES[start:]
        written.keep_only(batch)
        done = settle(batch, written if warm else Written(), table, clock.deadline())
        assert clock.now < clock.ends, "a function that stops in time is never killed"
        start += done
        assert all(complete(server, finish) for finish in FINISHES[:start])
        ahead = max(ahead, sum(pk.startswith("race") for pk, _ in server.items) - start)
        assert invocations < 200
    # 400 units at 20 a second and 200 at 10 a second are 20 s; what is spent on starting over comes on top.
    assert clock.now < (23 if warm else 30)
    assert ahead <= 4, "little capacity completes finishers, it does not start all of them"
    assert server.index_units == 200, "the index is paid once, whatever is repeated"
    assert sum(server.calls.values()) < 1000, "waiting is not polling"


def test_when_the_burst_is_spent_what_was_started_is_completed_first() -> None:
    clock = Clock(3_000)
    server = ThrottlingTable(clock, table_wcu=1_000, index_wcu=10)
    server.table.tokens, server.index.tokens = 1_000, 70
    completed = settle(FINISHES, Written(), RaceTable(server, TABLE), clock.deadline())
    started = sum(pk.startswith("race") for pk, _ in server.items)
    # 70 units of burst and 10 a second for 2.4 s are 94 units: 47 finishers, had none been started in vain.
    assert completed >= 43
    assert started - completed <= 4


def test_a_throttled_first_finisher_is_reported_first(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(3_000)
    refuse(store.race_table(final_results.TOTAL_MAX_ATTEMPTS), "BatchWriteItem", monkeypatch)
    monkeypatch.setattr(final_results, "Deadline", functools.partial(Deadline, sleep=clock.sleep))
    batch = [telemetry(100), b"junk", telemetry(101, event="final"), telemetry(102, event="final")]
    answer = final_results.handler(kinesis_event(batch, 40), clock)
    assert answer == {"batchItemFailures": [{"itemIdentifier": "42"}]}
    assert 0 < clock.get_remaining_time_in_millis() < 3_000


def test_no_answer_at_all_is_an_error_that_says_so(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(3_000)
    table = store.race_table(final_results.TOTAL_MAX_ATTEMPTS)
    refuse(table, "BatchWriteItem", monkeypatch, code="ServiceUnavailable", status=503)
    monkeypatch.setattr(final_results, "Deadline", functools.partial(Deadline, sleep=clock.sleep))
    with pytest.raises(store.UnavailableError, match="ServiceUnavailable"):
        final_results.handler(kinesis_event([telemetry(101, event="final")]), clock)


def test_the_handler_goes_on_where_it_stopped(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(0)
    server = ThrottlingTable(clock, table_wcu=20, index_wcu=10)
    monkeypatch.setattr(final_results, "race_table", lambda attempts: RaceTable(server, TABLE))
    monkeypatch.setattr(final_results, "Deadline", functools.partial(Deadline, sleep=clock.sleep))
    payloads = [telemetry(racer, event="final") for racer in range(100, 200)]
    first, answers = 0, []
    while True:
        clock.ends = clock.now + 3
        answer = final_results.handler(kinesis_event(payloads[first:], first), clock)
        if not answer["batchItemFailures"]:
            break
        (failure,) = answer["batchItemFailures"]
        answers.append(int(failure["itemIdentifier"]))
        first = answers[-1]
    assert answers == sorted(answers)
    assert len(set(answers)) > 4
    assert len(server.items) == 200
    assert (server.table_units, server.index_units) == (400, 200), "a warm function pays nothing twice"
    assert final_results._unfinished == {}


def test_items_that_are_not_processed_hold_their_finishers_back() -> None:
    clock = Clock(60_000)
    server = EveryOther(clock, table_wcu=10_000, index_wcu=10_000)
    clock.now = 1.0
    written = Written()
    assert settle(FINISHES, written, RaceTable(server, TABLE), clock.deadline()) == len(FINISHES)
    assert all(complete(server, finish) for finish in FINISHES)
    assert server.calls["PutItem"] == len(FINISHES)
    assert server.class_before_race == 0, (
        "a class best waits for the race item, so that one pass over a slice tells its state"
    )


class EveryOther(ThrottlingTable):
    """Processes every other item of a BatchWriteItem, from the second on, or a lone one every other time."""

    class_before_race = 0

    def batch_write_item(self, *, RequestItems: Any) -> Any:  # noqa: N803
        requests = RequestItems[TABLE]
        if len(requests) == 1 and self.calls["BatchWriteItem"] % 2:
            return super().batch_write_item(RequestItems=RequestItems)
        if chosen := requests[1::2]:
            super().batch_write_item(RequestItems={TABLE: chosen})
        else:
            self._called("BatchWriteItem")
        return {"UnprocessedItems": {TABLE: requests[::2]}}

    def put_item(self, *, Item: Any, **arguments: Any) -> Any:  # noqa: N803
        race = ("race-" + Item["raceId"]["N"], Item["SK"]["S"])
        self.class_before_race += race not in self.items
        return super().put_item(Item=Item, **arguments)


@given(
    st.lists(st.tuples(st.integers(100, 110), st.integers(1, 2), st.integers(0, 3)), max_size=40, unique=True),
    st.integers(1, 2),
    st.integers(5, 30),
    st.integers(1, 30),
    st.integers(1_000, 5_000),
    st.booleans(),
)
def test_settling_always_advances_to_the_end(
    finishers: Any, copies: int, table_wcu: int, index_wcu: int, timeout_ms: int, warm: bool
) -> None:
    """Any batch, any capacity, any Timeout: the prefix that is reported is stored, and the end is reached."""
    finishes = [
        Finish(7, class_id, racer, 9_000 + output, output)
        for racer, class_id, output in finishers
        for _ in range(copies)
    ]
    clock = Clock(0)
    server = ThrottlingTable(clock, table_wcu, index_wcu)
    written, start = Written(), 0
    for _ in range(500):
        clock.ends = clock.now + timeout_ms / 1000
        start += settle(finishes[start:], written if warm else Written(), RaceTable(server, TABLE), clock.deadline())
        assert all(complete(server, finish) for finish in finishes[:start])
        if start == len(finishes):
            break
    assert start == len(finishes)
    best: dict[tuple[str, str], int] = {}
    for finish in finishes:
        key = (f"class-{finish.class_id}", f"racer-{finish.racer_id}")
        best[key] = max(best.get(key, 0), finish.output)
    stored = {key: round(float(item["GSI"]["N"]) * 100) for key, item in server.items.items() if "class" in key[0]}
    assert stored == best
    for finish in {finish.racer_id: finish for finish in finishes}.values():
        race_item = server.items["race-7", f"racer-{finish.racer_id}"]
        assert race_item["GSI"]["N"] == store.decimal_text(finish.output), "the last final message stands"
