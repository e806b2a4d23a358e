"""The table's items: shapes, merges under concurrency, conditions, and botocore's errors mapped."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import botocore.exceptions
import pytest
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws

from consumers import store
from consumers.store import Deadline, Finish, Merge, RaceTable, decimal_text, results_text

TABLE = "alleycat-races"


def create_table(client: Any) -> None:
    """The design's table."""

    def key(*names: str) -> list[dict[str, str]]:
        kinds = ["HASH", "RANGE"]
        return [{"AttributeName": name, "KeyType": kind} for name, kind in zip(names, kinds, strict=True)]

    client.create_table(
        TableName=TABLE,
        KeySchema=key("PK", "SK"),
        AttributeDefinitions=[
            {"AttributeName": "PK", "AttributeType": "S"},
            {"AttributeName": "SK", "AttributeType": "S"},
            {"AttributeName": "GSI", "AttributeType": "N"},
        ],
        LocalSecondaryIndexes=[
            {"IndexName": "GSI_PK_Index", "KeySchema": key("PK", "GSI"), "Projection": {"ProjectionType": "ALL"}}
        ],
        GlobalSecondaryIndexes=[
            {"IndexName": "GSI_Index", "KeySchema": key("GSI", "SK"), "Projection": {"ProjectionType": "ALL"}}
        ],
        BillingMode="PAY_PER_REQUEST",
    )


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    store.race_table.cache_clear()
    with mock_aws():
        dynamodb = boto3.client("dynamodb", config=Config(parameter_validation=False))
        create_table(dynamodb)
        yield dynamodb
    store.race_table.cache_clear()


@pytest.fixture
def table(client: Any) -> RaceTable:
    return RaceTable(client, TABLE, clock_ms=lambda: 1_700_000_000_000)


def item(client: Any, pk: str, sk: str) -> Any:
    return client.get_item(TableName=TABLE, Key={"PK": {"S": pk}, "SK": {"S": sk}}).get("Item")


def never(conflicts: int) -> None:
    raise AssertionError(f"conflict {conflicts} with nobody there")


class Spy:
    """A client that counts calls, and runs something before chosen ones."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.calls: list[str] = []
        self.before: dict[str, Callable[[], object]] = {}

    def __getattr__(self, method: str) -> Any:
        def call(**arguments: Any) -> Any:
            self.calls.append(method)
            if act := self.before.get(method):
                act()
            return getattr(self.client, method)(**arguments)

        return call


# -- results items ------------------------------------------------------------------------------------


def test_a_results_item(client: Any, table: RaceTable) -> None:
    assert table.merge_results(7, 3, {1000: 10_050, 101: 9_999, 99: 12_300}, never) == Merge(True, 0)
    assert item(client, "race-7", "results") == {
        "PK": {"S": "race-7"},
        "SK": {"S": "results"},
        "GSI": {"N": "3"},
        "results": {"S": '{"99":123,"101":99.99,"1000":100.5}'},
        "ts": {"N": "1700000000000"},
    }


def test_a_merge_takes_the_best_of_each_racer(client: Any, table: RaceTable) -> None:
    table.merge_results(7, 1, {100: 5_000, 101: 6_000}, never)
    table.merge_results(7, 1, {101: 6_001, 102: 0, 100: 4_999}, never)
    stored = item(client, "race-7", "results")
    assert json.loads(stored["results"]["S"]) == {"100": 50, "101": 60.01, "102": 0}
    # The clock stands still here, the version must not.
    assert stored["ts"]["N"] == "1700000000001"


def test_a_merge_that_changes_nothing_does_not_write(client: Any) -> None:
    spy = Spy(client)
    table = RaceTable(spy, TABLE)
    table.merge_results(7, 1, {100: 5_000}, never)
    assert table.merge_results(7, 1, {100: 5_000}, never) == Merge(written=False, conflicts=0)
    assert table.merge_results(7, 1, {100: 4_000}, never) == Merge(written=False, conflicts=0)
    assert spy.calls == ["get_item", "put_item", "get_item", "get_item"]


def test_writers_that_meet_lose_nothing(client: Any) -> None:
    spy = Spy(client)
    table, rival = RaceTable(spy, TABLE), RaceTable(client, TABLE)
    rounds = iter([{100: 7_000}, {101: 7_000}, {102: 1}])

    def rival_writes_first() -> None:
        for best in itertools.islice(rounds, 1):
            rival.merge_results(7, 1, best, never)

    spy.before["put_item"] = rival_writes_first
    paused: list[int] = []
    merge = table.merge_results(7, 1, {100: 6_000, 101: 6_000, 102: 6_000}, paused.append)
    assert merge == Merge(written=True, conflicts=3)
    assert paused == [1, 2, 3]
    assert json.loads(item(client, "race-7", "results")["results"]["S"]) == {"100": 70, "101": 70, "102": 60}


def test_a_writer_whom_a_rival_has_overtaken_does_not_write(client: Any) -> None:
    spy = Spy(client)
    rival = RaceTable(client, TABLE)
    spy.before["put_item"] = lambda: rival.merge_results(7, 1, {100: 9_000}, never)
    merge = RaceTable(spy, TABLE).merge_results(7, 1, {100: 8_000}, lambda _: None)
    assert merge == Merge(written=False, conflicts=1)


def test_classes_of_one_race_id_keep_their_own_items(client: Any) -> None:
    spy = Spy(client)
    table = RaceTable(spy, TABLE)
    table.merge_results(7, 4, {100: 1_000}, never)
    table.merge_results(7, 2, {200: 2_000}, never)
    spy.calls.clear()
    table.merge_results(7, 2, {200: 3_000}, never)
    assert spy.calls == ["get_item", "put_item"], "a second class is remembered, the owner's item not read again"
    table.merge_results(7, 4, {101: 4_000}, never)
    items = client.query(
        TableName=TABLE,
        KeyConditionExpression="PK = :pk AND begins_with(SK, :sk)",
        ExpressionAttributeValues={":pk": {"S": "race-7"}, ":sk": {"S": "results"}},
    )["Items"]
    assert {(i["SK"]["S"], i["GSI"]["N"], i["results"]["S"]) for i in items} == {
        ("results", "4", '{"100":10,"101":40}'),
        ("results-2", "2", '{"200":30}'),
    }


def test_two_classes_that_both_find_no_item_do_not_share_it(client: Any) -> None:
    spy = Spy(client)
    rival = RaceTable(client, TABLE)
    spy.before["put_item"] = lambda: rival.merge_results(7, 5, {500: 9_000}, never)
    RaceTable(spy, TABLE).merge_results(7, 1, {100: 8_000}, lambda _: None)
    assert item(client, "race-7", "results")["results"]["S"] == '{"500":90}'
    assert item(client, "race-7", "results-1")["results"]["S"] == '{"100":80}'


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(1, 2), st.dictionaries(st.integers(100, 103), st.integers(0, 99_999))),
        max_size=12,
    ),
    st.integers(0, 2**32),
)
def test_any_interleaving_of_writers_ends_in_the_maximum(merges: Any, seed: int) -> None:
    """Writers interrupt one another between read and put, nested as deep as there are merges."""
    server = MemoryTable()
    pending = list(merges)
    expected: dict[tuple[int, int], int] = {}
    for _, class_id, best in merges:
        for racer, output in best.items():
            expected[class_id, racer] = max(expected.get((class_id, racer), -1), output)

    def run_one() -> None:
        if pending:
            _, class_id, best = pending.pop()
            RaceTable(spy, TABLE, clock_ms=lambda: seed).merge_results(7, class_id, best, lambda _: None)

    spy = Spy(server)
    spy.before["put_item"] = run_one
    while pending:
        run_one()
    stored = {
        (int(i["GSI"]["N"]), int(racer)): round(output * 100)
        for i in server.items.values()
        for racer, output in json.loads(i["results"]["S"]).items()
    }
    assert stored == expected
    owners = [i["GSI"]["N"] for i in server.items.values()]
    assert len(owners) == len(set(owners))


class MemoryTable:
    """GetItem and the two conditions of a results item, for interleavings by the hundred."""

    def __init__(self) -> None:
        self.items: dict[tuple[str, str], Any] = {}

    def get_item(self, *, Key: Any, ConsistentRead: bool, **_: Any) -> Any:  # noqa: N803
        assert ConsistentRead
        found = self.items.get((Key["PK"]["S"], Key["SK"]["S"]))
        return {"Item": found} if found else {}

    def put_item(self, *, Item: Any, ConditionExpression: str, **arguments: Any) -> Any:  # noqa: N803
        key = (Item["PK"]["S"], Item["SK"]["S"])
        found = self.items.get(key)
        if ConditionExpression == "attribute_not_exists(PK)":
            holds = found is None
        else:
            assert ConditionExpression == "ts = :seen"
            holds = found is not None and found["ts"] == arguments["ExpressionAttributeValues"][":seen"]
        if not holds:
            raise client_error("ConditionalCheckFailedException")
        self.items[key] = Item
        return {}


def test_a_foreign_item_is_named(client: Any, table: RaceTable) -> None:
    key = {"PK": {"S": "race-7"}, "SK": {"S": "results"}}
    client.put_item(TableName=TABLE, Item=key | {"GSI": {"N": "1"}, "results": {"S": "x"}, "ts": {"N": "1"}})
    with pytest.raises(store.StoreError, match="PK=race-7, SK=results is not a results item"):
        table.merge_results(7, 1, {100: 1}, never)


# -- finishes -----------------------------------------------------------------------------------------


def test_the_items_of_a_finish(client: Any, table: RaceTable) -> None:
    finish = Finish(race_id=7, class_id=2, racer_id=101, output=12_345, ts_ms=1_620_240_672_076)
    assert table.put_finishes([finish]) == []
    assert table.put_class_best(finish)
    assert item(client, "race-7", "racer-101") == {
        "PK": {"S": "race-7"},
        "SK": {"S": "racer-101"},
        "GSI": {"N": "123.45"},
        "ts": {"N": "1620240672076"},
    }
    assert item(client, "class-2", "racer-101") == {
        "PK": {"S": "class-2"},
        "SK": {"S": "racer-101"},
        "GSI": {"N": "123.45"},
        "ts": {"N": "1620240672076"},
        "raceId": {"N": "7"},
    }


def test_a_class_best_only_rises(client: Any, table: RaceTable) -> None:
    outcomes = [
        table.put_class_best(Finish(race, 2, 101, output, race))
        for race, output in [(1, 9_999), (2, 9_998), (3, 10_000), (4, 10_000), (5, 9_000)]
    ]
    assert outcomes == [True, False, True, False, False]
    stored = item(client, "class-2", "racer-101")
    assert (stored["GSI"]["N"], stored["raceId"]["N"]) == ("100", "3")


def test_unprocessed_items_come_back_as_finishes(client: Any) -> None:
    finishes = [Finish(7, 1, racer, 5_000, 1) for racer in range(100, 125)]

    class Partial:
        def batch_write_item(self, *, RequestItems: Any) -> Any:  # noqa: N803
            requests = RequestItems[TABLE]
            assert len(requests) == 25
            return {"UnprocessedItems": {TABLE: requests[3:5]}}

    assert RaceTable(Partial(), TABLE).put_finishes(finishes) == finishes[3:5]


@given(st.integers(0, 200_000))
def test_decimals_are_exact_and_short(hundredths: int) -> None:
    text = decimal_text(hundredths)
    assert round(float(text) * 100) == hundredths
    assert text == f"{hundredths / 100:.10g}"


@given(st.dictionaries(st.integers(0, 2**53), st.integers(0, 122_275)))
def test_results_text_round_trips_in_numeric_order(results: dict[int, int]) -> None:
    text = results_text(results)
    read = store._read_results({"results": {"S": text}, "ts": {"N": "5"}})
    assert read == (results, 5)
    assert list(map(int, json.loads(text))) == sorted(results)


# -- errors and time ----------------------------------------------------------------------------------


def client_error(code: str, status: int = 400) -> ClientError:
    answer: Any = {"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "PutItem")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (client_error("ProvisionedThroughputExceededException"), store.ThrottledError),
        (client_error("ThrottlingException"), store.ThrottledError),
        (client_error("RequestLimitExceeded"), store.ThrottledError),
        (client_error("InternalServerError", 500), store.UnavailableError),
        (client_error("ServiceUnavailable", 503), store.UnavailableError),
        (client_error("ResourceNotFoundException"), store.StoreError),
        (client_error("ValidationException"), store.StoreError),
        (botocore.exceptions.EndpointConnectionError(endpoint_url="x"), store.UnavailableError),
        (botocore.exceptions.ReadTimeoutError(endpoint_url="x"), store.UnavailableError),
        (botocore.exceptions.ConnectionClosedError(endpoint_url="x"), store.UnavailableError),
        (botocore.exceptions.NoCredentialsError(), store.StoreError),
    ],
)
def test_errors_are_mapped_at_the_border(error: Exception, expected: type[Exception]) -> None:
    class Failing:
        def put_item(self, **_: Any) -> Any:
            raise error

    with pytest.raises(store.StoreError, match=f"on table {TABLE}") as caught:
        RaceTable(Failing(), TABLE).put_class_best(Finish(1, 1, 1, 1, 1))
    assert type(caught.value) is expected


def test_a_missing_table_is_named(client: Any) -> None:
    with pytest.raises(store.StoreError, match="GetItem on table nowhere") as caught:
        RaceTable(client, "nowhere").merge_results(7, 1, {100: 1}, never)
    assert caught.value.code == "ResourceNotFoundException"
    assert not isinstance(caught.value, store.TemporaryError)


def test_the_client_makes_as_many_attempts_as_asked(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TABLE_NAME", TABLE)
    monkeypatch.setattr("time.sleep", lambda _: None)
    for attempts in (1, 5):
        table = store.race_table(attempts)
        assert table is store.race_table(attempts)
        seen: list[str] = []

        def throttle(request: Any, operation_model: Any, context: Any, seen: list[str] = seen) -> Any:
            seen.append(operation_model.name)
            error = client_error("ProvisionedThroughputExceededException")
            return (AWSResponse(request.url, 400, {}, None), error.response), None

        monkeypatch.setattr(table._client._endpoint, "_get_response", throttle)
        with pytest.raises(store.ThrottledError):
            table.put_class_best(Finish(1, 1, 1, 1, 1))
        assert seen == ["PutItem"] * attempts


class Clock:
    """A Lambda context whose time passes only when somebody sleeps."""

    def __init__(self, remaining_ms: float) -> None:
        self.remaining_ms = remaining_ms

    def get_remaining_time_in_millis(self) -> int:
        return int(self.remaining_ms)

    def sleep(self, seconds: float) -> None:
        self.remaining_ms -= seconds * 1000


@pytest.mark.parametrize(("timeout_ms", "margin_ms"), [(1000, 200), (3000, 600), (10_000, 2000), (900_000, 2000)])
def test_the_margin_of_a_deadline(timeout_ms: int, margin_ms: int) -> None:
    clock = Clock(timeout_ms)
    deadline = Deadline(clock, sleep=clock.sleep)
    clock.remaining_ms = margin_ms + 1
    deadline.check()
    clock.remaining_ms = margin_ms
    with pytest.raises(store.OutOfTimeError):
        deadline.check()


@given(st.integers(1, 900_000), st.floats(0, 1, exclude_max=True), st.integers(1, 3))
def test_pauses_back_off_and_never_cross_the_margin(timeout_ms: int, luck: float, first: int) -> None:
    clock = Clock(timeout_ms)
    deadline = Deadline(clock, sleep=clock.sleep, rng=lambda: luck)
    pauses: list[float] = []
    for attempt in range(first, 10_000):
        before = clock.remaining_ms
        try:
            deadline.pause(attempt)
        except store.OutOfTimeError:
            break
        pauses.append(before - clock.remaining_ms)
    assert clock.remaining_ms >= min(2000, 0.2 * timeout_ms)
    assert all(24 <= pause <= 1000.001 for pause in pauses), "never a busy loop, never a long sleep"
    assert pauses == sorted(pauses) or pauses[-1] > 499
