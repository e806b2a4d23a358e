"""The function that tells screens: messages that fit, the newest results, nothing lost to an error."""

from __future__ import annotations

import json
import queue
import threading
from typing import Any

import paho.mqtt.client as paho
import pytest
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers import publish
from consumers.store import Results, StoreError, results_of
from simulator.cloud.server import CloudProcess

CONTEXT: Any = None


def image(race: int, class_id: int, ts: int, results: dict[str, float], sort: str = "results") -> dict[str, Any]:
    return {
        "PK": {"S": f"race-{race}"},
        "SK": {"S": sort},
        "GSI": {"N": str(class_id)},
        "ts": {"N": str(ts)},
        "results": {"S": json.dumps(results)},
    }


def record(number: int, new: dict[str, Any] | None) -> dict[str, Any]:
    change: dict[str, Any] = {"SequenceNumber": str(number)}
    if new is not None:
        change["NewImage"] = new
    return {"eventName": "MODIFY", "dynamodb": change}


class FakeIot:
    """Takes what is published; refuses topics of races in ``down``."""

    def __init__(self) -> None:
        self.published: list[dict[str, Any]] = []
        self.down: set[int] = set()

    def publish(self, *, topic: str, qos: int, payload: bytes) -> None:
        message = json.loads(payload)
        if message["raceId"] in self.down:
            raise ClientError({"Error": {"Code": "ThrottlingException", "Message": "Rate exceeded"}}, "Publish")
        assert qos == 1
        self.published.append({"topic": topic, **message})


@pytest.fixture
def iot(monkeypatch: pytest.MonkeyPatch) -> FakeIot:
    fake = FakeIot()
    monkeypatch.setattr(publish, "_client", lambda: fake)
    monkeypatch.setenv("RESULTS_TOPIC", "screens")
    return fake


def test_the_newest_results_of_each_race_and_class_go_out(iot: FakeIot) -> None:
    records = [
        record(1, image(7, 1, 100, {"101": 150.25})),
        record(2, image(7, 2, 101, {"201": 120}, "results-2")),
        record(3, image(7, 1, 105, {"101": 151, "102": 90.5})),
        record(4, image(7, 1, 104, {"101": 150.5})),
        record(5, None),
        record(6, {"PK": {"S": "race-7"}, "SK": {"S": "racer-101"}, "GSI": {"N": "3"}, "ts": {"N": "1"}}),
        record(7, {"PK": {"S": "class-1"}, "SK": {"S": "results"}}),
    ]
    assert publish.handler({"Records": records}, CONTEXT) == {"batchItemFailures": []}
    first = {"topic": "screens", "msg": "results", "classId": 1, "raceId": 7, "ts": 105}
    assert iot.published == [
        first | {"results": {"101": 151, "102": 90.5}},
        {"topic": "screens", "msg": "results", "classId": 2, "raceId": 7, "ts": 101, "results": {"201": 120}},
    ]


def test_an_item_that_cannot_be_read_is_told_and_passed_over(iot: FakeIot, capsys: pytest.CaptureFixture[str]) -> None:
    broken = image(7, 1, 100, {})
    broken["results"] = {"S": "{"}
    answer = publish.handler({"Records": [record(1, broken), record(2, image(8, 1, 1, {"1": 2}))]}, CONTEXT)
    assert answer == {"batchItemFailures": []}
    assert [one["raceId"] for one in iot.published] == [8]
    assert "not a results item" in capsys.readouterr().out
    with pytest.raises(StoreError):
        results_of(broken)


def test_what_could_not_be_published_is_tried_again_from_its_first_record(iot: FakeIot) -> None:
    records = [record(number, image(race, 1, number, {"1": 2})) for number, race in enumerate((1, 2, 3, 2), 10)]
    iot.down = {2, 3}
    answer = publish.handler({"Records": records}, CONTEXT)
    assert answer == {"batchItemFailures": [{"itemIdentifier": "11"}]}
    iot.down = set()
    again = publish.handler({"Records": records[1:]}, CONTEXT)
    assert again == {"batchItemFailures": []}
    assert {(one["raceId"], one["ts"]) for one in iot.published} == {(1, 10), (2, 13), (3, 12)}


@given(
    st.dictionaries(st.integers(0, 10**12), st.integers(0, 10**6), max_size=400),
    st.integers(180, 4_000),
)
@settings(max_examples=150, deadline=None)
def test_parts_fit_and_hold_every_racer_once(best: dict[int, int], max_bytes: int) -> None:
    results = Results(race_id=5_403_307, class_id=1, ts_ms=1_620_240_672_076, best=best)
    parts = [json.loads(one) for one in publish.messages(results, max_bytes) if len(one) <= max_bytes]
    assert len(parts) == len(list(publish.messages(results, max_bytes)))
    seen = [(int(racer), round(output * 100)) for part in parts for racer, output in part["results"].items()]
    assert sorted(seen) == sorted(best.items())
    if len(parts) == 1:
        assert "part" not in parts[0]
    else:
        assert [(part["part"], part["parts"]) for part in parts] == [(n + 1, len(parts)) for n in range(len(parts))]
    for part in parts:
        assert (part["msg"], part["raceId"], part["classId"], part["ts"]) == (
            "results",
            5_403_307,
            1,
            1_620_240_672_076,
        )


def test_one_message_holds_a_thousand_bikers_and_nine_thousand_more_need_two() -> None:
    def sizes(racers: int) -> list[int]:
        best = {100 + racer: 15_000 + racer for racer in range(racers)}
        return [len(one) for one in publish.messages(Results(5_403_307, 1, 1_620_240_672_076, best))]

    assert [size // 1000 for size in sizes(1_000)] == [13]
    assert len(sizes(9_000)) == 1
    assert len(sizes(10_000)) == 2
    assert len(sizes(28_000)) == 4
    assert max(sizes(28_000)) <= 128 * 1024


def test_it_reaches_subscribers_of_the_embedded_cloud(cloud: CloudProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in cloud.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RESULTS_TOPIC", "screens/7")
    heard: queue.Queue[bytes] = queue.Queue()
    connected, subscribed = threading.Event(), threading.Event()
    screen = paho.Client(paho.CallbackAPIVersion.VERSION2)
    screen.on_message = lambda client, data, message: heard.put(message.payload)
    screen.on_subscribe = lambda *told: subscribed.set()
    screen.on_connect = lambda *told: connected.set()
    screen.connect("127.0.0.1", cloud.mqtt_port)
    screen.loop_start()
    publish._client.cache_clear()
    try:
        assert connected.wait(10)
        screen.subscribe("screens/+", qos=1)
        assert subscribed.wait(10)
        answer = publish.handler({"Records": [record(1, image(7, 1, 100, {"101": 150.25}))]}, CONTEXT)
        assert answer == {"batchItemFailures": []}
        assert json.loads(heard.get(timeout=10))["results"] == {"101": 150.25}
    finally:
        publish._client().close()
        publish._client.cache_clear()
        screen.disconnect()
        screen.loop_stop()
