"""The data plane of IoT Core over HTTP: requests that boto3 makes, answers that botocore reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import boto3
import orjson
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from simulator.cloud import mqtt_properties as props
from simulator.cloud.iot_data_api import IotDataApi
from simulator.cloud.iot_meter import IotMeter
from simulator.cloud.limits import LimitSettings
from simulator.cloud.metrics import Metrics
from simulator.cloud.mqtt_broker import Broker, Retained
from simulator.cloud.mqtt_codec import V311, Connect, Filter, Will
from simulator.cloud.mqtt_properties import Reason
from simulator.cloud.mqtt_session import Delivery

START = 1_700_000_000.0


class Raw:
    """A body as botocore reads it."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def stream(self, *given: Any, **more: Any) -> Any:
        yield self.body


class Client:
    """A client of the broker that keeps what it is sent."""

    version = V311

    def __init__(self, broker: Broker, client_id: str, **given: Any) -> None:
        self.broker, self.client_id = broker, client_id
        self.found: list[Delivery] = []
        self.ended: list[str] = []
        asked = Connect(V311, client_id, True, 60, given.get("will"), None, {})
        self.session, _ = broker.connect(self, asked, given.get("expiry_s", 0.0), START)

    def deliver(self, delivery: Delivery, now: float) -> None:
        self.found.append(delivery)

    def end(self, disconnect_reason: str, reason: Reason, now: float) -> None:
        self.ended.append(disconnect_reason)
        self.broker.leave(self, disconnect_reason, now, send_will=True)

    def flush(self, now: float) -> None:
        pass


class Place:
    def __init__(self) -> None:
        self.metrics = Metrics()
        self.ruled: list[tuple[str, bytes, int]] = []
        self.broker = Broker(
            LimitSettings(),
            IotMeter(self.metrics),
            lambda topic, payload, qos, client_id, now: self.ruled.append((topic, payload, qos)),
            START,
        )
        self.api = IotDataApi(self.broker)
        self.boto = boto3.client(
            "iot-data",
            region_name="eu-west-1",
            endpoint_url="http://localhost:1",
            aws_access_key_id="a",
            aws_secret_access_key="b",
            config=Config(retries={"total_max_attempts": 1}),
        )
        self.boto.meta.events.register("before-send.iot-data-plane", self.answer)

    def answer(self, request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        url = urlsplit(request.url)
        headers = {
            name.lower(): value.decode() if isinstance(value, bytes) else value
            for name, value in request.headers.items()
        }
        body = request.body or b""
        if not isinstance(body, bytes):
            body = body.encode() if isinstance(body, str) else body.read()
        status, told, answer = self.api.handle(request.method, url.path, url.query, headers, body, "trace", START)
        return AWSResponse(request.url, status, told, Raw(answer))

    def counted(self, name: str) -> float:
        return self.metrics.total("AWS/IoT", name, (("Protocol", "HTTP"),))


@pytest.fixture
def place() -> Any:
    place = Place()
    yield place
    place.boto.close()


def refused(call: Callable[..., Any], **given: Any) -> tuple[str, int]:
    with pytest.raises(ClientError) as caught:
        call(**given)
    return caught.value.response["Error"]["Code"], caught.value.response["ResponseMetadata"]["HTTPStatusCode"]


@pytest.mark.parametrize("topic", ["a", "laps/kart 7/é%2F", "a//b", "/a", "日本/語?x=1&y"])
def test_publish_with_properties(place: Place, topic: str) -> None:
    reader = Client(place.broker, "reader")
    place.broker.subscribe(reader.session, Filter("#", 1), None, START)
    place.boto.publish(
        topic=topic,
        qos=1,
        retain=True,
        payload=b"\0lap",
        userProperties=orjson.dumps([{"k": "v"}, {"k": "é"}]).decode(),
        payloadFormatIndicator="UTF8_DATA",
        contentType="text/plain; a=b",
        responseTopic="answers/1",
        correlationData="AAE=",
        messageExpiry=60,
    )
    assert place.ruled == [(topic, b"\0lap", 1)]
    (found,) = reader.found
    assert (found.topic.decode(), found.payload, found.qos) == (topic, b"\0lap", 1)
    assert found.properties == {
        props.USER_PROPERTY: [("k", "v"), ("k", "é")],
        props.PAYLOAD_FORMAT: 1,
        props.CONTENT_TYPE: "text/plain; a=b",
        props.RESPONSE_TOPIC: "answers/1",
        props.CORRELATION_DATA: b"\0\1",
    }
    assert found.expires_at == START + 60
    kept = place.boto.get_retained_message(topic=topic)
    assert (kept["topic"], kept["payload"], kept["qos"]) == (topic, b"\0lap", 1)
    assert kept["lastModifiedTime"] == START * 1000
    assert orjson.loads(kept["userProperties"]) == [{"k": "v"}, {"k": "é"}]
    assert place.counted("PublishIn.Success") == 1


def test_retained_messages_in_pages(place: Place) -> None:
    names = [f"a/{number:03}" for number in range(25)]
    for name in names:
        place.broker.retained[name] = Retained(b"xyz", 0, START)
    pages = list(place.boto.get_paginator("list_retained_messages").paginate(PaginationConfig={"PageSize": 10}))
    assert [len(one["retainedTopics"]) for one in pages] == [10, 10, 5]
    assert [one["topic"] for page in pages for one in page["retainedTopics"]] == names
    assert pages[0]["retainedTopics"][0]["payloadSize"] == 3
    assert refused(place.boto.get_retained_message, topic="none") == ("ResourceNotFoundException", 404)
    assert refused(place.boto.list_retained_messages, nextToken="é!")[0] == "InvalidRequestException"


def test_an_expired_message_is_not_retained_any_more(place: Place) -> None:
    place.broker.retained["a"] = Retained(b"x", 0, START - 20, {}, START - 1)
    assert refused(place.boto.get_retained_message, topic="a") == ("ResourceNotFoundException", 404)
    assert place.boto.list_retained_messages()["retainedTopics"] == []


def test_connections(place: Place) -> None:
    client = Client(place.broker, "pit/kart é", expiry_s=600.0, will=Will("gone", b"", 0, False))
    for number in range(3):
        place.broker.subscribe(client.session, Filter(f"t/{number}", number % 2), None, START)
    told = place.boto.get_connection(clientId="pit/kart é")
    assert (told["connected"], told["cleanSession"], told["sessionExpiry"]) == (True, False, 600)
    found = place.boto.list_subscriptions(clientId="pit/kart é", maxResults=2)
    assert found["subscriptions"] == [{"topicFilter": "t/0", "qos": 0}, {"topicFilter": "t/1", "qos": 1}]
    rest = place.boto.list_subscriptions(clientId="pit/kart é", nextToken=found["nextToken"])
    assert [one["topicFilter"] for one in rest["subscriptions"]] == ["t/2"]
    place.boto.delete_connection(clientId="pit/kart é", preventWillMessage=True)
    assert client.ended == ["API_INITIATED_DISCONNECT"]
    assert not place.ruled
    assert place.boto.get_connection(clientId="pit/kart é")["connected"] is False
    assert refused(place.boto.delete_connection, clientId="pit/kart é") == ("ResourceNotFoundException", 404)
    assert refused(place.boto.get_connection, clientId="none") == ("ResourceNotFoundException", 404)


def test_deleting_a_connection_and_its_session(place: Place) -> None:
    client = Client(place.broker, "kart", expiry_s=600.0, will=Will("gone", b"", 0, False))
    place.boto.delete_connection(clientId="kart", cleanSession=True)
    assert client.ended
    assert place.ruled == [("gone", b"", 0)]
    assert not place.broker.sessions


@pytest.mark.parametrize("topic", ["a/+", "#", "a" * 257, "a/b/c/d/e/f/g/h/i", "$aws/things/x", "a\0"])
def test_topics_that_are_refused(place: Place, topic: str) -> None:
    assert refused(place.boto.publish, topic=topic) == ("InvalidRequestException", 400)
    assert place.counted("PublishIn.ClientError") == 1
    assert not place.ruled


def test_sizes_and_rates(place: Place) -> None:
    place.boto.publish(topic="a", payload=bytes(128 * 1024))
    assert refused(place.boto.publish, topic="a", payload=bytes(128 * 1024 + 1)) == (
        "RequestEntityTooLargeException",
        413,
    )
    assert refused(place.boto.publish, topic="a", qos=2)[0] == "InvalidRequestException"
    place.broker.rates.publishes_in.tokens = 0
    assert refused(place.boto.publish, topic="a") == ("ThrottlingException", 429)
    assert place.counted("PublishIn.Throttle") == 1
    assert len(place.ruled) == 1


@pytest.mark.parametrize(
    "given_properties",
    [
        {"messageExpiry": -1},
        {"messageExpiry": 2**32},
        {"responseTopic": "a/#"},
        {"contentType": "a" * 70_000},
        {"correlationData": "A" * 100_000},
        {"userProperties": orjson.dumps([{"k": "v" * 8_192}]).decode()},
        {"userProperties": "[1]"},
    ],
    ids=lambda one: next(iter(one)),
)
def test_properties_that_no_packet_could_carry(place: Place, given_properties: dict[str, Any]) -> None:
    assert refused(place.boto.publish, topic="a", **given_properties) == ("InvalidRequestException", 400)
    assert not place.ruled


def test_what_is_not_simulated_says_so(place: Place) -> None:
    for call in (place.boto.get_thing_shadow, place.boto.delete_thing_shadow):
        with pytest.raises(ClientError, match="not simulated"):
            call(thingName="x")
    with pytest.raises(ClientError, match="not simulated"):
        place.boto.send_direct_message(clientId="x", topic="a")


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(
    st.sampled_from(["GET", "POST", "DELETE", "PUT"]),
    st.sampled_from(["/topics/", "/retainedMessage", "/retainedMessage/", "/connections/", "/things/", "/", ""]),
    TEXT,
    st.dictionaries(
        st.sampled_from(["qos", "retain", "maxResults", "nextToken", "messageExpiry", "contentType", "responseTopic"]),
        TEXT,
    ).map(lambda found: "&".join(f"{name}={value}" for name, value in found.items())),
    st.dictionaries(
        st.sampled_from(
            ["x-amz-mqtt5-user-properties", "x-amz-mqtt5-correlation-data", "x-amz-mqtt5-payload-format-indicator"]
        ),
        TEXT,
    ),
)
def test_nothing_that_is_sent_raises(method: str, path: str, rest: str, query: str, headers: dict[str, str]) -> None:
    place = FUZZED
    status, _, body = place.handle(method, path + rest, query, headers, b"x", "trace", START)
    assert status < 600
    orjson.loads(body)


FUZZED = IotDataApi(Broker(LimitSettings(), IotMeter(Metrics()), lambda *_: None, START))


@pytest.mark.parametrize("users", [[{"k": "v"}], '[{"k": "v"}]'], ids=["list", "JSON"])
def test_user_properties_come_as_json_or_as_a_list(place: Place, users: Any) -> None:
    place.boto.publish(topic="a", retain=True, payload=b"x", userProperties=users)
    assert place.broker.retained["a"].properties == {props.USER_PROPERTY: [("k", "v")]}
