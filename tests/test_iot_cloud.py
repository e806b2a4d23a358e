"""IoT Core of the embedded cloud as its clients meet it: MQTT, WebSocket, boto3, real streams and buckets behind."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import queue
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import aiomqtt
import paho.mqtt.client as paho
import pytest
from botocore.exceptions import ClientError
from conftest import client_of

from simulator.cloud.limits import LimitSettings
from simulator.cloud.server import CloudProcess

ROLE = "arn:aws:iam::123456789012:role/r"


@pytest.fixture(scope="module")
def iot_cloud() -> Iterator[CloudProcess]:
    with CloudProcess(settings=LimitSettings(iot_action_retry_seconds=0.02)) as cloud:
        yield cloud


@pytest.fixture
def clients(iot_cloud: CloudProcess) -> Iterator[Callable[[str], Any]]:
    made: dict[str, Any] = {}

    def get(service: str) -> Any:
        if service not in made:
            made[service] = client_of(iot_cloud, service)
        return made[service]

    iot_cloud.reset()
    yield get
    for one in made.values():
        one.close()


class Screen:
    """A paho client on a thread of its own that hears topics."""

    def __init__(self, cloud: CloudProcess, *topics: str, websocket: bool = False, client_id: str = "") -> None:
        self.heard: queue.Queue[tuple[str, bytes]] = queue.Queue()
        connected, granted = threading.Event(), threading.Event()
        transport = "websockets" if websocket else "tcp"
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id, transport=transport)
        self.client.on_message = lambda client, data, message: self.heard.put((message.topic, message.payload))
        self.client.on_connect = lambda *told: connected.set()
        self.client.on_subscribe = lambda *told: granted.set()
        if websocket:
            self.client.ws_set_options(path="/mqtt")
        self.client.connect(cloud.host, cloud.port if websocket else cloud.mqtt_port)
        self.client.loop_start()
        assert connected.wait(10)
        if topics:
            self.client.subscribe([(topic, 1) for topic in topics])
            assert granted.wait(10)

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def hear(self) -> tuple[str, Any]:
        topic, payload = self.heard.get(timeout=10)
        return topic, payload

    def publish(self, topic: str, payload: bytes | str, qos: int = 1) -> None:
        self.client.publish(topic, payload, qos).wait_for_publish(10)


def records(kinesis: Any, stream: str) -> list[tuple[bytes, str]]:
    found = []
    for shard in kinesis.list_shards(StreamName=stream)["Shards"]:
        iterator = kinesis.get_shard_iterator(
            StreamName=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        found += [(one["Data"], one["PartitionKey"]) for one in kinesis.get_records(ShardIterator=iterator)["Records"]]
    return found


def eventually(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 20
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)
    return found


def own_metrics(cloud: CloudProcess) -> dict[tuple[str, str], float]:
    """Sums of AWS/IoT by metric and the value of its last dimension."""
    with urllib.request.urlopen(f"{cloud.endpoint_url}/_alleycat/metrics") as answer:
        found = json.loads(answer.read())["metrics"]
    return {
        (one["MetricName"], ",".join(one["Dimensions"].values())): sum(point[2] for point in one["Points"])
        for one in found
        if one["Namespace"] == "AWS/IoT"
    }


def rule(iot: Any, name: str, sql: str, actions: list[dict[str, Any]], **more: Any) -> None:
    payload = {"sql": sql, "awsIotSqlVersion": "2016-03-23", "actions": actions, **more}
    iot.create_topic_rule(ruleName=name, topicRulePayload=payload)


def test_a_publish_goes_through_the_rule_into_the_stream(
    iot_cloud: CloudProcess, clients: Callable[[str], Any]
) -> None:
    kinesis, iot = clients("kinesis"), clients("iot")
    kinesis.create_stream(StreamName="s", ShardCount=2)
    to_stream = {"kinesis": {"roleArn": ROLE, "streamName": "s", "partitionKey": "${racerId}"}}
    rule(iot, "in", "SELECT *, topic(2) AS bike FROM 'bikes/+'", [to_stream])
    with Screen(iot_cloud, "bikes/#") as screen:
        screen.publish("bikes/7", b'{"racerId": 7}')
        screen.publish("bikes/8", b'{"racerId": 8}', qos=0)
        clients("iot-data").publish(topic="bikes/9", qos=1, payload=b'{"racerId": 9}')
        assert {screen.hear() for _ in range(3)} == {
            ("bikes/7", b'{"racerId": 7}'),
            ("bikes/8", b'{"racerId": 8}'),
            ("bikes/9", b'{"racerId": 9}'),
        }
    found = sorted(records(kinesis, "s"))
    assert found == [(f'{{"racerId":{n},"bike":"{n}"}}'.encode(), str(n)) for n in (7, 8, 9)]
    told = own_metrics(iot_cloud)
    assert told["Success", "in,Kinesis"] == 3
    assert (told["PublishIn.Success", "MQTT"], told["PublishIn.Success", "HTTP"]) == (2, 1)
    statistics = clients("cloudwatch").get_metric_statistics(
        Namespace="AWS/IoT",
        MetricName="TopicMatch",
        Dimensions=[{"Name": "RuleName", "Value": "in"}],
        StartTime=time.time() - 120,
        EndTime=time.time() + 60,
        Period=60,
        Statistics=["Sum"],
    )
    assert sum(one["Sum"] for one in statistics["Datapoints"]) == 3


def test_what_a_full_shard_refuses_ends_in_the_bucket(iot_cloud: CloudProcess, clients: Callable[[str], Any]) -> None:
    kinesis, iot, bucket = clients("kinesis"), clients("iot"), clients("s3")
    kinesis.create_stream(StreamName="small", ShardCount=1)
    bucket.create_bucket(Bucket="lost")
    rule(
        iot,
        "in",
        "SELECT * FROM 'big'",
        [{"kinesis": {"roleArn": ROLE, "streamName": "small", "partitionKey": "k"}}],
        errorAction={"s3": {"roleArn": ROLE, "bucketName": "lost", "key": "${topic()}/${n}"}},
    )
    # 100 KB each: the eleventh is over the shard's 1 MiB a second, and three attempts are over in 0.1 s. By HTTP,
    # because a connection's 512 KB a second would slow it down to what the shard takes.
    for number in range(14):
        payload = json.dumps({"n": number, "fill": "x" * 100_000})
        clients("iot-data").publish(topic="big", qos=1, payload=payload.encode())

    def settled() -> bool:
        told = own_metrics(iot_cloud)
        return told.get(("Success", "in,Kinesis"), 0) + told.get(("ErrorActionSuccess", "in,S3"), 0) == 14

    eventually(settled)
    lost = [one["Key"] for one in bucket.list_objects_v2(Bucket="lost")["Contents"]]
    assert lost
    told = json.loads(bucket.get_object(Bucket="lost", Key=lost[0])["Body"].read())
    assert told["failures"][0]["failedAction"] == "KinesisAction"
    assert "ProvisionedThroughputExceededException" in told["failures"][0]["errorMessage"]
    assert json.loads(base64.b64decode(told["base64OriginalPayload"]))["n"] == int(lost[0].partition("/")[2])
    on_stream = {json.loads(data)["n"] for data, _ in records(kinesis, "small")}
    assert on_stream | {int(key.partition("/")[2]) for key in lost} == set(range(14))
    assert own_metrics(iot_cloud)["ErrorActionSuccess", "in,S3"] == len(lost)


def test_mqtt_over_websocket_is_where_iot_core_has_it(iot_cloud: CloudProcess, clients: Callable[[str], Any]) -> None:
    with Screen(iot_cloud, "results", websocket=True) as screen, Screen(iot_cloud) as bike:
        bike.publish("results", b"x" * 100_000)
        assert screen.hear() == ("results", b"x" * 100_000)
        screen.publish("results", b"from a browser")
        assert screen.hear() == ("results", b"from a browser")


def test_republish_retained_and_connections_over_http(iot_cloud: CloudProcess, clients: Callable[[str], Any]) -> None:
    rule(
        clients("iot"), "again", "SELECT n FROM 'in'", [{"republish": {"roleArn": ROLE, "topic": "out/${n}", "qos": 1}}]
    )
    data = clients("iot-data")
    with Screen(iot_cloud, "out/#", client_id="screen-1") as screen:
        data.publish(topic="in", qos=0, payload=b'{"n": 4, "m": 5}')
        assert screen.hear() == ("out/4", b'{"n":4}')
        assert data.get_connection(clientId="screen-1")["connected"] is True
        data.publish(topic="kept/ä b", qos=1, retain=True, payload=b"first")
        kept = data.get_retained_message(topic="kept/ä b")
        assert (kept["payload"], kept["qos"]) == (b"first", 1)
        with Screen(iot_cloud, "kept/+") as late:
            assert late.hear() == ("kept/ä b", b"first")
        assert [one["topic"] for one in data.list_retained_messages()["retainedTopics"]] == ["kept/ä b"]
    with pytest.raises(ClientError, match="InvalidRequestException"):
        data.publish(topic="a/#", payload=b"")
    with pytest.raises(ClientError, match="RequestEntityTooLargeException"):
        data.publish(topic="a", payload=b"x" * (128 * 1024 + 1))
    with pytest.raises(ClientError, match="not simulated"):
        data.get_thing_shadow(thingName="bike")


def test_a_reset_forgets_rules_and_sends_clients_away(iot_cloud: CloudProcess, clients: Callable[[str], Any]) -> None:
    iot = clients("iot")
    rule(iot, "in", "SELECT * FROM 'x'", [{"republish": {"roleArn": ROLE, "topic": "y"}}])
    gone = threading.Event()
    with Screen(iot_cloud, "y") as screen:
        screen.client.on_disconnect = lambda *told: gone.set()
        iot_cloud.reset()
        assert gone.wait(10)
    assert iot.list_topic_rules()["rules"] == []
    assert iot.describe_endpoint(endpointType="iot:Data-ATS")["endpointAddress"].endswith(f":{iot_cloud.port}")


def test_other_parts_of_the_control_plane_say_what_they_are(clients: Callable[[str], Any]) -> None:
    # moto knows things; the rules are ours.
    clients("iot").create_thing(thingName="bike")
    assert [one["thingName"] for one in clients("iot").list_things()["things"]] == ["bike"]


# -- bad clients ---------------------------------------------------------------------------------------


def test_bad_clients_harm_nobody_else(iot_cloud: CloudProcess, clients: Callable[[str], Any]) -> None:
    """A device at 1,000 messages a second, 500 with one client id, garbage and giants, beside 20 who behave."""
    kinesis = clients("kinesis")
    kinesis.create_stream(StreamName="s", ShardCount=4)
    rule(
        clients("iot"),
        "in",
        "SELECT * FROM 'good/+'",
        [{"kinesis": {"roleArn": ROLE, "streamName": "s", "partitionKey": "${topic(2)}"}}],
    )
    host, port = iot_cloud.host, iot_cloud.mqtt_port

    async def good(number: int) -> None:
        async with aiomqtt.Client(host, port, identifier=f"good-{number}") as client:
            for second in range(10):
                await client.publish(f"good/{number}", json.dumps({"second": second}), qos=1)
                await asyncio.sleep(0.2)

    async def eager() -> None:
        with contextlib.suppress(aiomqtt.MqttError):
            async with aiomqtt.Client(host, port, identifier="eager") as client:
                for _ in range(1_000):
                    await client.publish("noise", b"x", qos=0)
                    await asyncio.sleep(0.001)

    async def same_id() -> None:
        with contextlib.suppress(aiomqtt.MqttError, OSError, TimeoutError):
            async with aiomqtt.Client(host, port, identifier="same", timeout=5):
                await asyncio.sleep(0.3)

    async def raw(*parts: bytes) -> None:
        reader, writer = await asyncio.open_connection(host, port)
        for part in parts:
            writer.write(part)
        with contextlib.suppress(OSError, TimeoutError):
            await writer.drain()
            async with asyncio.timeout(5):
                while await reader.read(1000):
                    pass
        writer.close()

    async def everything() -> None:
        hello = b"\x10\x11\x00\x04MQTT\x04\x02\x00\x3c\x00\x05giant"
        huge = b"\x30" + b"\x8c\x80\x08" + b"\x00\x05noise" + b"x" * (131_084 - 7)
        await asyncio.gather(
            *(good(number) for number in range(20)),
            eager(),
            *(same_id() for _ in range(500)),
            raw(b"GET / HTTP/1.1\r\n\r\n"),
            raw(b"\xff" * 100),
            raw(hello, huge),
            raw(hello.replace(b"giant", b"other"), b"\x34\x0a\x00\x01a\x00\x01binary"[:12]),
        )

    asyncio.run(everything())
    found = [json.loads(data)["second"] for data, _ in records(kinesis, "s")]
    assert sorted(found) == sorted(list(range(10)) * 20)
    told = own_metrics(iot_cloud)
    assert told["Connect.ClientIDThrottle", "MQTT"] > 400
    assert told["Throttle.Exceeded", "MQTT"] > 100
    assert told["Connect.ClientError", "MQTT"] >= 2
    assert told["PublishIn.ClientError", "MQTT"] >= 1
    with urllib.request.urlopen(f"{iot_cloud.endpoint_url}/_alleycat/iot") as answer:
        state = json.loads(answer.read())
    assert state["connections"] == 0
    assert state["disconnects"]["CLIENT_ERROR"] >= 1
