"""The embedded IoT Core's broker, its connections and their limits, with the clock in hand and no sockets."""

from __future__ import annotations

import struct
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from simulator.cloud import mqtt_codec as codec
from simulator.cloud import mqtt_properties as props
from simulator.cloud.iot_meter import IotMeter
from simulator.cloud.limits import LimitSettings
from simulator.cloud.metrics import Metrics
from simulator.cloud.mqtt_broker import Broker
from simulator.cloud.mqtt_codec import V5, V311, Framer
from simulator.cloud.mqtt_connection import CLOSE_TIMEOUT_S, CONNECT_TIMEOUT_S, OUT_MAX_BYTES, Connection
from simulator.cloud.mqtt_properties import Reason
from simulator.cloud.topic_filters import matches

START = 1_700_000_000.0


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("!H", len(data)) + data


def packet(first: int, body: bytes) -> bytes:
    return bytes((first,)) + props.varint(len(body)) + body


class Place:
    """A broker, its clock and what it counted."""

    def __init__(self, **given: Any) -> None:
        self.now = START
        self.metrics = Metrics()
        self.ruled: list[tuple[str, bytes, int, str]] = []
        self.broker = Broker(
            LimitSettings(**given),
            IotMeter(self.metrics),
            lambda topic, payload, qos, client_id, now: self.ruled.append((topic, payload, qos, client_id)),
            self.now,
        )
        self.clients: list[Client] = []

    def counted(self, name: str) -> float:
        return self.metrics.total("AWS/IoT", name, (("Protocol", "MQTT"),))

    def wait(self, seconds: float, step_s: float = 0.5) -> None:
        """Let the time pass as the listener does."""
        until = self.now + seconds
        while self.now < until - 1e-9:
            self.now = min(until, self.now + step_s)
            for one in self.clients:
                one.wake()
                one.connection.check(self.now)
            self.broker.tick(self.now)
            self.broker.flush(self.now)

    def client(self, client_id: str = "kart", **given: Any) -> Client:
        client = Client(self)
        client.connect(client_id, **given)
        return client

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [orjson.loads(body) for topic, body, _, _ in self.ruled if topic.startswith(f"$aws/events/{kind}/")]


class Client:
    """The other end of a connection: bytes in, packets out."""

    def __init__(self, place: Place, **given: Any) -> None:
        self.place = place
        self.written = bytearray()
        self.unread = 0
        self.closed = self.aborted = False
        self.rests_until = 0.0
        self.version = V311
        self.packet_id = 0
        self.connection = Connection(place.broker, self, place.now, **given)
        place.clients.append(self)

    # -- Link
    def write(self, data: bytes) -> None:
        assert not self.closed
        self.written += data

    def buffered_bytes(self) -> int:
        return self.unread

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True

    def rest(self, seconds: float) -> None:
        self.rests_until = self.place.now + seconds

    def wake(self) -> None:
        if self.rests_until and self.place.now >= self.rests_until:
            self.rests_until = 0.0
            self.connection.rested(self.place.now)

    # -- as a client
    def send(self, data: bytes) -> list[tuple[int, bytes]]:
        self.connection.feed(data, self.place.now)
        self.place.broker.flush(self.place.now)
        return self.got()

    def got(self) -> list[tuple[int, bytes]]:
        """Packets since the last call."""
        framer = Framer(codec.MAX_REMAINING_BYTES)
        found = [(first, body) for first, body in framer.feed(bytes(self.written))]
        assert not framer.buffered_bytes
        self.written.clear()
        return found

    def messages(self) -> list[codec.Publish]:
        return [
            codec.read_publish(first, body, self.version) for first, body in self.got() if first >> 4 == codec.PUBLISH
        ]

    def connect(
        self,
        client_id: str = "kart",
        version: int = V311,
        clean: bool = True,
        keep_alive_s: int = 60,
        will: tuple[str, bytes, int, bool] | None = None,
        properties: dict[int, Any] | None = None,
        will_properties: dict[int, Any] | None = None,
    ) -> tuple[bool, int, dict[int, Any]]:
        """Session present, code, properties."""
        self.version = version
        flags = clean << 1
        if will:
            flags |= 4 | will[2] << 3 | will[3] << 5
        body = text("MQTT") + bytes((version, flags)) + struct.pack("!H", keep_alive_s)
        body += props.pack_properties(properties or {}) if version == V5 else b""
        body += text(client_id)
        if will:
            body += props.pack_properties(will_properties or {}) if version == V5 else b""
            body += text(will[0]) + struct.pack("!H", len(will[1])) + will[1]
        answers = self.send(packet(0x10, body))
        if not answers:
            return False, -1, {}
        first, told = answers[0]
        assert first == 0x20
        found = dict(props.read_properties(props.Reader(told, 2))) if version == V5 else {}
        return bool(told[0]), told[1], found

    def publish(
        self, topic: str, payload: bytes = b"x", qos: int = 0, retain: bool = False, **properties: Any
    ) -> list[tuple[int, bytes]]:
        self.packet_id += 1
        known = properties.get("properties", {})
        return self.send(
            codec.publish_packet(
                self.version,
                topic.encode(),
                payload,
                qos=qos,
                packet_id=self.packet_id,
                retain=retain,
                properties=known,
            )
        )

    def subscribe(self, *filters: str, qos: int = 1, options: int = 0, subscription_id: int = 0) -> list[int]:
        """The codes of SUBACK; messages that come behind it stay in :attr:`after`."""
        body = b"\0\7"
        if self.version == V5:
            body += props.pack_properties({props.SUBSCRIPTION_ID: [subscription_id]} if subscription_id else {})
        for one in filters:
            body += text(one) + bytes((qos | options,))
        answers = self.send(packet(0x82, body))
        self.after = [codec.read_publish(first, one, self.version) for first, one in answers[1:] if first >> 4 == 3]
        if not answers or answers[0][0] != 0x90:
            return []
        return list(answers[0][1][3 if self.version == V5 else 2 :])

    def unsubscribe(self, topic_filter: str) -> list[tuple[int, bytes]]:
        return self.send(packet(0xA2, b"\0\7" + (b"\0" if self.version == V5 else b"") + text(topic_filter)))

    def ack(self, packet_id: int) -> None:
        self.connection.feed(codec.puback_packet(self.version, packet_id), self.place.now)
        self.place.broker.flush(self.place.now)

    def vanish(self) -> None:
        self.connection.lost(self.place.now)
        self.place.broker.flush(self.place.now)

    def ended_with(self) -> int | None:
        """The reason of MQTT 5's DISCONNECT among what was written; the connection is closed."""
        assert self.closed
        reasons = [body[0] for first, body in self.got() if first == 0xE0]
        return reasons[0] if reasons else None


@pytest.fixture
def place() -> Place:
    return Place()


def pubacks(answers: list[tuple[int, bytes]]) -> list[int]:
    """The reason of each PUBACK, 0 when it has none."""
    return [body[2] if len(body) > 2 else 0 for first, body in answers if first == 0x40]


# -- rates ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [V311, V5])
def test_a_connection_publishes_a_hundred_a_second_and_the_rest_is_not_acknowledged(place: Place, version: int) -> None:
    client = place.client(version=version)
    answers = [code for _ in range(130) for code in pubacks(client.publish("a", qos=1))]
    assert answers == [0] * 100 + ([0x97] * 30 if version == V5 else [])
    assert len([one for one in place.ruled if one[0] == "a"]) == 100
    assert place.counted("Throttle.Exceeded") == place.counted("PublishIn.Throttle") == 30
    assert place.counted("PublishIn.Success") == 100
    assert client.connection.is_open
    place.wait(0.5)
    assert len([code for _ in range(60) for code in pubacks(client.publish("a", qos=1)) if not code]) == 50


def test_what_a_connection_receives_counts_to_its_hundred(place: Place) -> None:
    reader = place.client("reader")
    reader.subscribe("a")
    for number in range(3):
        writer = place.client(f"writer-{number}")
        for _ in range(50):
            writer.publish("a")
    assert len(reader.messages()) == 100
    assert place.counted("PublishOut.Throttle") == 50
    assert not pubacks(reader.publish("b", qos=1))


def test_limits_off_lets_everything_through() -> None:
    place = Place(enforced=False)
    client = place.client()
    assert sum(not code for _ in range(300) for code in pubacks(client.publish("a", qos=1))) == 300
    client.publish("a", bytes(120_000))
    assert not client.rests_until


def test_the_account_takes_20000_publishes_a_second(place: Place) -> None:
    clients = [place.client(f"c{number}") for number in range(201)]
    for client in clients:
        data = codec.publish_packet(V311, b"a", b"", qos=0) * 100
        client.send(data)
    assert place.counted("PublishIn.Success") == 20_000
    assert place.counted("PublishIn.Throttle") == 100
    assert not place.counted("Throttle.Exceeded")


@pytest.mark.parametrize(("version", "code"), [(V311, 3), (V5, 0x97)])
def test_the_account_takes_3000_connects_a_second(place: Place, version: int, code: int) -> None:
    codes = [Client(place).connect(f"c{number}", version=version)[1] for number in range(3_005)]
    assert codes == [0] * 3_000 + [code] * 5
    assert place.counted("Connect.Throttle") == 5
    assert place.counted("Connect.Success") == 3_000
    assert all(one.closed for one in place.clients[3_000:])


def test_a_client_id_connects_once_a_second(place: Place) -> None:
    first = place.client()
    second = Client(place)
    assert second.connect()[1] == 3
    assert second.closed
    assert not first.closed
    assert place.counted("Connect.ClientIDThrottle") == 1
    place.wait(1.0)
    assert Client(place).connect()[1] == 0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 0.4), st.integers(1, 120_000)), min_size=1, max_size=40))
def test_bytes_are_delayed_and_never_lost(steps: list[tuple[float, int]]) -> None:
    place = Place()
    client = place.client()
    rate = 512 * 1024
    # As a socket does: nothing is read while the connection rests.
    taken: list[tuple[float, int]] = []
    for pause_s, size in steps:
        place.now += pause_s
        if client.rests_until > place.now:
            place.now = client.rests_until
        client.wake()
        assert not client.connection.is_resting
        data = codec.publish_packet(V311, b"a", bytes(size))
        client.send(data)
        taken.append((place.now, len(data)))
    largest = max(size for _, size in taken)
    for start in range(len(taken)):
        for end in range(start, len(taken)):
            total = sum(size for _, size in taken[start : end + 1])
            # Two milliseconds of the rate are the tolerance of timers.
            assert total <= rate + rate * (taken[end][0] - taken[start][0]) + largest + rate * 0.002 + 1
    assert place.counted("PublishIn.Success") == len([one for one in place.ruled if one[0] == "a"]) == len(steps)


def test_a_clock_that_is_set_back_does_not_keep_a_connection_still(place: Place) -> None:
    client = place.client()
    for _ in range(6):
        client.send(codec.publish_packet(V311, b"a", bytes(120_000)))
    assert client.connection.is_resting
    place.now -= 3_600
    for _ in range(4):
        place.now += 5.0
        client.connection.rested(place.now)
    assert not client.connection.is_resting


# -- sizes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [V311, V5])
def test_128_kb_pass_and_one_byte_more_closes(place: Place, version: int) -> None:
    client = place.client(version=version)
    client.publish("a", bytes(128 * 1024))
    assert client.connection.is_open
    place.wait(2)
    client.got()
    client.connection.feed(codec.publish_packet(version, b"a", bytes(128 * 1024 + 1)), place.now)
    assert client.ended_with() == (0x95 if version == V5 else None)
    assert place.events("presence/disconnected")[0]["disconnectReason"] == "CLIENT_ERROR"
    assert place.counted("PublishIn.ClientError") == 1
    assert len([one for one in place.ruled if one[0] == "a"]) == 1


@pytest.mark.parametrize(
    ("topic", "is_taken"),
    [
        ("a" * 256, True),
        ("a" * 257, False),
        ("é" * 128, True),
        ("é" * 129, False),
        ("a/b/c/d/e/f/g/h", True),
        ("a/b/c/d/e/f/g/h/i", False),
        ("$aws/rules/laps/a/b/c/d/e/f/g/h", True),
        ("$aws/rules/laps/a/b/c/d/e/f/g/h/i", False),
        ("$aws/rules/laps/" + "a" * 256, True),
        ("$aws/things/x/shadow/update", False),
        ("$SYS/x", False),
        ("a/+", False),
        ("a/#", False),
        ("", False),
    ],
)
def test_topics_to_publish_to(place: Place, topic: str, is_taken: bool) -> None:
    client = place.client(version=V5)
    client.connection.feed(codec.publish_packet(V5, topic.encode(), b"x", qos=1, packet_id=1), place.now)
    assert client.connection.is_open is is_taken
    assert ((topic, b"x", 1, "kart") in place.ruled) is is_taken


def test_client_ids(place: Place) -> None:
    assert Client(place).connect("a" * 128)[1] == 0
    assert Client(place).connect("a" * 129)[1] == 2
    assert Client(place).connect("é" * 65, version=V5)[1] == 0x85
    assert Client(place).connect("$aws", version=V5)[1] == 0x85
    assert Client(place).connect("", clean=False)[1] == 2
    assert Client(place).connect("")[1] == 0
    _, code, told = Client(place).connect("", version=V5)
    assert code == 0
    assert told[props.ASSIGNED_CLIENT_ID] in place.broker.clients


def test_eight_topics_a_subscribe_and_fifty_subscriptions(place: Place) -> None:
    client = place.client(version=V5)
    assert client.subscribe(*(f"n{number}" for number in range(9))) == [0x97] * 9
    codes = [code for part in range(7) for code in client.subscribe(*(f"t{part}/{number}" for number in range(8)))]
    assert codes == [1] * 50 + [0x97] * 6
    assert client.subscribe("t0/0", qos=0) == [0]
    assert client.unsubscribe("t0/0")[0][0] == 0xB0
    assert client.subscribe("one/more") == [1]


# -- keep-alive, silence, garbage ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "used"), [(0, 1_200), (10, 30), (30, 30), (700, 700), (1_200, 1_200), (5_000, 1_200)]
)
def test_keep_alive_is_clamped_and_told(asked: int, used: int) -> None:
    place = Place()
    client = Client(place)
    _, _, told = client.connect(version=V5, keep_alive_s=asked)
    assert told.get(props.SERVER_KEEP_ALIVE, asked) == used
    place.wait(used * 1.5, step_s=used / 4)
    assert client.connection.is_open
    place.wait(1)
    assert client.ended_with() == 0x8D
    assert place.events("presence/disconnected")[0]["disconnectReason"] == "MQTT_KEEP_ALIVE_TIMEOUT"


def test_pings_keep_a_connection(place: Place) -> None:
    client = place.client(keep_alive_s=30)
    for _ in range(5):
        place.wait(44)
        assert client.send(b"\xc0\0") == [(0xD0, b"")]
    assert place.counted("Ping.Success") == 5


@pytest.mark.parametrize("data", [b"", b"\x10", b"\x10\x20\0\4MQ"], ids=["silence", "half a header", "half a packet"])
def test_without_connect_a_connection_is_closed(place: Place, data: bytes) -> None:
    client = Client(place)
    for byte in data:
        place.wait(CONNECT_TIMEOUT_S / 10)
        client.send(bytes((byte,)))
    place.wait(CONNECT_TIMEOUT_S - len(data) * CONNECT_TIMEOUT_S / 10)
    assert not client.closed
    place.wait(1)
    assert client.closed


def test_a_closed_connection_that_nobody_reads_is_dropped(place: Place) -> None:
    client = place.client(keep_alive_s=30)
    place.wait(46)
    assert client.closed
    assert not client.aborted
    place.wait(CLOSE_TIMEOUT_S + 1)
    assert client.aborted


def test_a_client_that_asks_and_never_reads_is_dropped(place: Place) -> None:
    client = place.client()
    client.unread = 2 * OUT_MAX_BYTES + 1
    client.connection.check(place.now)
    assert client.aborted
    assert place.events("presence/disconnected")[0]["disconnectReason"] == "CONNECTION_LOST"


@pytest.mark.parametrize("data", [b"\xc0\0", b"\x30\3\0\1a", b"\xff" * 10, b"GET / HTTP/1.1\r\n", b"\x10\0"])
def test_anything_but_connect_first_is_closed(place: Place, data: bytes) -> None:
    client = Client(place)
    assert client.send(data) == []
    assert client.closed
    assert not place.broker.clients


def test_a_protocol_of_another_version_is_told_so(place: Place) -> None:
    client = Client(place)
    assert client.send(packet(0x10, text("MQIsdp") + b"\3\2\0\x3c" + text("a"))) == [(0x20, b"\0\1")]
    assert client.closed


def test_a_second_connect_ends_the_connection(place: Place) -> None:
    client = place.client(version=V5)
    client.connection.feed(packet(0x10, text("MQTT") + b"\5\2\0\x3c\0" + text("kart")), place.now)
    assert client.ended_with() == 0x82


def test_a_websocket_ends_after_a_day(place: Place) -> None:
    client = Client(place, lifetime_s=86_400)
    client.connect(version=V5, keep_alive_s=1_200)
    for _ in range(96):
        client.send(b"\xc0\0")
        place.wait(899, step_s=450)
    assert client.connection.is_open
    place.wait(100)
    assert client.ended_with() == 0xA0
    assert place.events("presence/disconnected")[0]["disconnectReason"] == "WEBSOCKET_TTL_EXPIRATION"


# -- QoS 2 ---------------------------------------------------------------------------------------------


def test_qos_2_is_not_answered_to_3_1_1(place: Place) -> None:
    client = place.client()
    assert client.publish("a", qos=2) == []
    assert client.subscribe("a", qos=2) == []
    assert client.connection.is_open
    assert not [one for one in place.ruled if one[0] == "a"]


@pytest.mark.parametrize("kind", ["publish", "subscribe"])
def test_qos_2_ends_an_mqtt_5_connection(place: Place, kind: str) -> None:
    client = place.client(version=V5)
    data = (
        codec.publish_packet(V5, b"a", b"", qos=2, packet_id=1)
        if kind == "publish"
        else packet(0x82, b"\0\7\0" + text("a") + b"\2")
    )
    client.connection.feed(data, place.now)
    assert client.ended_with() == 0x9B


# -- sessions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [V311, V5])
def test_the_newest_connection_of_a_client_id_takes_over(place: Place, version: int) -> None:
    first = place.client(version=version)
    place.wait(1)
    second = place.client(version=version)
    assert first.ended_with() == (0x8E if version == V5 else None)
    assert second.connection.is_open
    left, came = place.events("presence/disconnected"), place.events("presence/connected")
    assert [one["disconnectReason"] for one in left] == ["DUPLICATE_CLIENTID"]
    assert [one["versionNumber"] for one in came] == [0, 1]
    assert left[0]["versionNumber"] == 0
    assert place.broker.clients == {"kart": second.connection}
    first.vanish()
    assert place.broker.clients == {"kart": second.connection}


def test_the_101st_message_in_flight_waits_for_a_puback() -> None:
    place = Place(iot_burst_seconds=10)
    reader = place.client("reader")
    reader.subscribe("a")
    writer = place.client("writer")
    for number in range(103):
        writer.publish("a", str(number).encode(), qos=1)
    sent = reader.messages()
    assert [int(one.payload) for one in sent] == list(range(100))
    reader.ack(sent[0].packet_id)
    reader.ack(sent[0].packet_id)
    assert [int(one.payload) for one in reader.messages()] == [100]


def test_waiting_messages_keep_to_the_rate_of_the_connection(place: Place) -> None:
    reader = place.client("reader", version=V5, properties={props.RECEIVE_MAXIMUM: 1})
    reader.subscribe("a")
    for part in range(3):
        writer = place.client(f"writer-{part}")
        for number in range(70):
            writer.publish("a", str(part * 70 + number).encode(), qos=1)
    found: list[codec.Publish] = []

    def drain() -> None:
        while new := reader.messages():
            found.extend(new)
            for one in new:
                reader.ack(one.packet_id)

    drain()
    assert len(found) == 100
    for _ in range(10):
        place.wait(0.5)
        drain()
    assert [int(one.payload) for one in found] == list(range(210))


def test_a_persistent_session_keeps_messages_and_gives_ten_a_second(place: Place) -> None:
    reader = place.client("reader", clean=False)
    reader.subscribe("a/#")
    reader.vanish()
    writer = place.client("writer")
    for number in range(40):
        writer.publish("a/b", str(number).encode(), qos=1)
        writer.publish("a/b", b"lost", qos=0)
    assert place.counted("Queued.Success") == 40
    place.wait(2)
    back = Client(place)
    assert back.connect("reader", clean=False)[:2] == (True, 0)
    counts = []
    found = []
    for _ in range(5):
        place.wait(1)
        new = back.messages()
        counts.append(len(new))
        found += new
    assert counts == [10, 10, 10, 10, 0]
    assert [int(one.payload) for one in found] == list(range(40))


def test_a_session_is_gone_after_an_hour(place: Place) -> None:
    reader = place.client("reader", clean=False)
    reader.subscribe("a")
    reader.vanish()
    place.wait(3_599, step_s=10)
    assert "reader" in place.broker.sessions
    place.wait(2)
    assert "reader" not in place.broker.sessions
    assert place.broker._tree.is_empty
    assert Client(place).connect("reader", clean=False)[:2] == (False, 0)
    assert place.events("presence/connected")[-1]["versionNumber"] == 0


def test_the_account_queues_500_messages_a_second(place: Place) -> None:
    reader = place.client("reader", clean=False)
    reader.subscribe("a")
    reader.vanish()
    for number in range(6):
        writer = place.client(f"writer-{number}")
        for _ in range(100):
            writer.publish("a", qos=1)
    assert (place.counted("Queued.Success"), place.counted("Queued.Throttle")) == (500, 100)


def test_unacknowledged_messages_come_again_to_3_1_1(place: Place) -> None:
    reader = place.client("reader", keep_alive_s=1_200)
    other = place.client("other", version=V5, keep_alive_s=1_200)
    reader.subscribe("a")
    other.subscribe("a")
    place.client("writer").publish("a", b"1", qos=1)
    (first,) = [body for kind, body in reader.got() if kind == 0x32]
    assert len(other.messages()) == 1
    place.wait(10)
    assert [body for kind, body in reader.got() if kind == 0x3A] == [first]
    assert other.messages() == []
    reader.ack(codec.read_publish(0x32, first, V311).packet_id)
    place.wait(30)
    assert reader.messages() == []


def test_what_was_in_flight_comes_again_after_a_reconnect(place: Place) -> None:
    reader = place.client("reader", clean=False)
    reader.subscribe("a")
    place.client("writer").publish("a", b"1", qos=1)
    reader.vanish()
    place.wait(1)
    back = place.client("reader", clean=False)
    place.wait(1)
    ((first, body),) = back.got()
    assert first == 0x3A
    assert codec.read_publish(first, body, V311).payload == b"1"


def test_session_expiry_of_mqtt_5(place: Place) -> None:
    client = Client(place)
    told = client.connect(version=V5, properties={props.SESSION_EXPIRY: 0xFFFFFFFF})[2]
    assert told[props.SESSION_EXPIRY] == 3_600
    client.send(packet(0xE0, b"\0" + props.pack_properties({props.SESSION_EXPIRY: 5})))
    place.wait(4)
    assert place.broker.sessions
    place.wait(2)
    assert not place.broker.sessions


# -- retained ------------------------------------------------------------------------------------------


def test_retained_messages(place: Place) -> None:
    writer = place.client("writer")
    writer.publish("a/b", b"1", retain=True)
    writer.publish("a/b", b"2", retain=True)
    assert place.counted("PublishRetained.Throttle") == 1
    reader = place.client("reader")
    reader.subscribe("a/+")
    assert [(one.payload, one.retain) for one in reader.after] == [(b"1", True)]
    place.wait(1)
    writer.publish("a/b", b"", retain=True)
    assert not place.broker.retained
    assert [one.retain for one in reader.messages()] == [False]


def test_500_retained_publishes_a_second(place: Place) -> None:
    for number in range(6):
        writer = place.client(f"writer-{number}")
        for one in range(100):
            writer.publish(f"{number}/{one}", retain=True)
    assert len(place.broker.retained) == 500
    assert place.counted("PublishRetained.Throttle") == 100


@pytest.mark.parametrize(("handling", "counts"), [(0, [1, 1]), (1, [1, 0]), (2, [0, 0])])
def test_retain_handling(place: Place, handling: int, counts: list[int]) -> None:
    place.client("writer").publish("a", b"1", retain=True)
    reader = place.client("reader", version=V5)
    found = []
    for _ in range(2):
        assert reader.subscribe("a", options=handling << 4) == [1]
        found.append(len(reader.after))
    assert found == counts


def test_a_retained_message_expires(place: Place) -> None:
    place.client("writer", version=V5).publish("a", b"1", retain=True, properties={props.MESSAGE_EXPIRY: 10})
    reader = place.client("reader", version=V5)
    place.wait(5)
    reader.subscribe("a")
    assert reader.after[0].properties[props.MESSAGE_EXPIRY] == 5
    place.wait(5)
    reader.subscribe("a")
    assert reader.after == []


# -- MQTT 5 --------------------------------------------------------------------------------------------


def test_topic_aliases(place: Place) -> None:
    client = place.client(version=V5)
    client.publish("a", b"1", properties={props.TOPIC_ALIAS: 8})
    client.publish("", b"2", properties={props.TOPIC_ALIAS: 8})
    assert [one[:2] for one in place.ruled if one[3] == "kart"][-2:] == [("a", b"1"), ("a", b"2")]
    client.connection.feed(codec.publish_packet(V5, b"a", b"", properties={props.TOPIC_ALIAS: 9}), place.now)
    assert client.ended_with() == 0x94


@pytest.mark.parametrize(("size", "is_open"), [(8 * 1024, True), (8 * 1024 + 1, False)])
def test_user_properties_have_8_kb(place: Place, size: int, is_open: bool) -> None:
    client = place.client(version=V5)
    properties = {props.USER_PROPERTY: [("n", "v" * (size - 1))]}
    client.connection.feed(codec.publish_packet(V5, b"a", b"", properties=properties), place.now)
    assert client.connection.is_open is is_open


def test_properties_reach_subscribers_and_old_messages_do_not(place: Place) -> None:
    reader = place.client("reader", version=V5, clean=False, properties={props.SESSION_EXPIRY: 600})
    reader.subscribe("a", subscription_id=300)
    writer = place.client("writer", version=V5)
    given = {
        props.USER_PROPERTY: [("k", "v"), ("k", "w")],
        props.CONTENT_TYPE: "text/plain",
        props.CORRELATION_DATA: b"\0\1",
        props.MESSAGE_EXPIRY: 10,
    }
    writer.publish("a", b"1", qos=1, properties=given)
    (found,) = reader.messages()
    assert found.properties == given | {props.SUBSCRIPTION_ID: [300]}
    reader.ack(found.packet_id)
    reader.vanish()
    writer.publish("a", b"2", qos=1, properties=given)
    place.wait(11)
    back = place.client("reader", version=V5, clean=False)
    place.wait(3)
    assert back.messages() == []


def test_receive_maximum_and_maximum_packet_size(place: Place) -> None:
    reader = place.client("reader", version=V5, properties={props.RECEIVE_MAXIMUM: 2, props.MAXIMUM_PACKET_SIZE: 600})
    reader.subscribe("a")
    writer = place.client("writer")
    writer.publish("a", bytes(601), qos=1)
    for _ in range(3):
        writer.publish("a", qos=1)
    assert len(reader.messages()) == 2
    assert place.counted("PublishOut.ClientError") == 1
    assert Client(place).connect("zero", version=V5, properties={props.RECEIVE_MAXIMUM: 0})[1] == 0x82


def test_no_local_hides_only_itself(place: Place) -> None:
    client = place.client(version=V5)
    client.subscribe("a", options=4)
    assert client.publish("a") == []
    client.subscribe("#", qos=0)
    assert len([one for one in client.publish("a") if one[0] >> 4 == 3]) == 1


# -- subscriptions -------------------------------------------------------------------------------------


def test_overlapping_subscriptions_deliver_once_at_the_highest_qos(place: Place) -> None:
    reader = place.client("reader")
    reader.subscribe("a/b", qos=0)
    reader.subscribe("a/+", "#", qos=1)
    place.client("writer").publish("a/b", qos=1)
    assert [one.qos for one in reader.messages() if one.topic == "a/b"] == [1]


def test_shared_subscriptions_give_each_message_to_one_member(place: Place) -> None:
    members = [place.client(f"m{number}", version=V5) for number in range(3)]
    for one in members:
        assert one.subscribe("$share/pit/laps/#") == [1]
    writer = place.client("writer")
    for number in range(90):
        writer.publish("laps/1", str(number).encode(), qos=1)
    found = [[int(one.payload) for one in member.messages()] for member in members]
    assert sorted(one for part in found for one in part) == list(range(90))
    assert all(found)
    members[0].vanish()
    place.wait(1)
    for number in range(20):
        writer.publish("laps/1", str(number).encode(), qos=1)
    found = [[int(one.payload) for one in member.messages()] for member in members[1:]]
    assert sorted(one for part in found for one in part) == list(range(20))
    assert members[1].subscribe("$share/pit") == members[1].subscribe("$share/p+/a") == [0x8F]


def test_dollar_topics_need_to_be_named(place: Place) -> None:
    everything, events = place.client("everything"), place.client("events")
    everything.subscribe("#", "+/events/#")
    events.subscribe("$aws/events/presence/connected/+")
    place.client("new")
    assert everything.messages() == []
    assert [one.topic for one in events.messages()] == ["$aws/events/presence/connected/new"]


def test_basic_ingest_goes_to_rules_alone(place: Place) -> None:
    reader = place.client("reader")
    reader.subscribe("$aws/rules/laps/#", "#")
    place.client("writer").publish("$aws/rules/laps/a", b"1", retain=True)
    assert reader.messages() == []
    assert ("$aws/rules/laps/a", b"1", 0, "writer") in place.ruled
    assert not place.broker.retained


# -- lifecycle events and wills ------------------------------------------------------------------------


def test_lifecycle_events(place: Place) -> None:
    client = Client(place, principal="ab" * 32, address="192.0.2.1")
    client.connect()
    client.subscribe("a", "b")
    client.unsubscribe("a")
    client.send(b"\xe0\0")
    (came,), (left,) = place.events("presence/connected"), place.events("presence/disconnected")
    (subscribed,), (unsubscribed,) = (
        place.events("subscriptions/subscribed"),
        place.events("subscriptions/unsubscribed"),
    )
    identifier = came["sessionIdentifier"]
    base = {
        "clientId": "kart",
        "timestamp": int(START * 1000),
        "sessionIdentifier": identifier,
        "principalIdentifier": "ab" * 32,
    }
    assert came == base | {"eventType": "connected", "ipAddress": "192.0.2.1", "versionNumber": 0}
    assert left == base | {
        "eventType": "disconnected",
        "clientInitiatedDisconnect": True,
        "disconnectReason": "CLIENT_INITIATED_DISCONNECT",
        "versionNumber": 0,
    }
    assert subscribed == base | {"eventType": "subscribed", "topics": ["a", "b"]}
    assert unsubscribed == base | {"eventType": "unsubscribed", "topics": ["a"]}


@pytest.mark.parametrize(
    ("how", "is_sent"),
    [("disconnect", False), ("disconnect with will", True), ("lost", True), ("silent", True), ("garbage", True)],
)
def test_wills(place: Place, how: str, is_sent: bool) -> None:
    client = place.client(version=V5, will=("gone", b"kart", 1, True), keep_alive_s=30)
    if how.startswith("disconnect"):
        client.send(b"\xe0\0" if how == "disconnect" else b"\xe0\1\4")
    elif how == "lost":
        client.vanish()
    elif how == "silent":
        place.wait(46)
    else:
        client.send(b"\xf3\xff\xff\xff\xff\xff")
    assert (("gone", b"kart", 1, "kart") in place.ruled) is is_sent
    assert ("gone" in place.broker.retained) is is_sent


def test_a_delayed_will_waits_and_a_reconnect_cancels_it(place: Place) -> None:
    given: dict[str, Any] = {
        "version": V5,
        "clean": False,
        "will": ("gone", b"1", 0, False),
        "will_properties": {props.WILL_DELAY: 10},
        "properties": {props.SESSION_EXPIRY: 600},
    }

    def is_sent() -> bool:
        return ("gone", b"1", 0, "kart") in place.ruled

    place.client(**given).vanish()
    place.wait(5)
    client = place.client(**given)
    place.wait(20)
    assert not is_sent()
    client.vanish()
    place.wait(9)
    assert not is_sent()
    place.wait(2)
    assert is_sent()


def test_a_will_to_a_reserved_topic_is_refused(place: Place) -> None:
    assert Client(place).connect(version=V5, will=("$aws/things/x", b"", 0, False))[1] == Reason.NOT_AUTHORIZED


def test_a_slow_reader_loses_its_messages_and_nobody_elses(place: Place) -> None:
    slow, good = place.client("slow"), place.client("good")
    slow.subscribe("a")
    good.subscribe("a")
    slow.unread = OUT_MAX_BYTES + 1
    place.client("writer").publish("a")
    assert (len(slow.messages()), len(good.messages())) == (0, 1)
    assert place.counted("PublishOut.Throttle") == 1


# -- all together --------------------------------------------------------------------------------------


class Sessions(RuleBasedStateMachine):
    """Clients come, go, subscribe and publish at random, under every rate, against a model of who gets what."""

    names = st.sampled_from(["k1", "k2"])
    filters = st.sampled_from(["#", "a/#", "a/+", "a"])
    topics = st.sampled_from(["a/b", "a", "a/b/c", "z"])

    def __init__(self) -> None:
        super().__init__()
        self.place = Place()
        self.clients: dict[str, Client] = {}
        # Filters of each session, its kind, and the messages that it must get, or may get.
        self.sessions: dict[str, set[str]] = {}
        self.is_kept: dict[str, bool] = {}
        self.due: dict[str, set[bytes]] = {}
        self.allowed: dict[str, set[bytes]] = {}
        self.number = 0

    @rule(name=names, version=st.sampled_from([V311, V5]), keep=st.sampled_from([True, True, False]))
    def connect(self, name: str, version: int, keep: bool) -> None:
        self.place.wait(1.1)
        for one in self.clients:
            self.collect(one)
        if name in self.clients and not self.is_kept[name]:
            self.forget(name)
        expiry = {props.SESSION_EXPIRY: 600} if keep and version == V5 else {}
        client = Client(self.place)
        present, code, _ = client.connect(name, version, clean=not keep, properties=expiry)
        assert code == 0
        if not keep:
            assert not present
            self.forget(name)
        assert present is (name in self.sessions)
        self.sessions.setdefault(name, set())
        self.is_kept[name] = keep
        self.clients[name] = client

    def forget(self, name: str) -> None:
        for kept in (self.sessions, self.due, self.allowed):
            kept.pop(name, None)

    @rule(name=names, how=st.sampled_from(["lost", "disconnect", "garbage"]))
    def leave(self, name: str, how: str) -> None:
        client = self.clients.pop(name, None)
        if client is None:
            return
        if how == "lost":
            client.vanish()
        else:
            client.connection.feed(b"\xe0\0" if how == "disconnect" else b"\xf0\0", self.place.now)
        if not self.is_kept[name]:
            self.forget(name)

    @rule(name=names, topic_filter=filters)
    def subscribe(self, name: str, topic_filter: str) -> None:
        if name in self.clients:
            self.collect(name)
            assert self.clients[name].subscribe(topic_filter) == [1]
            self.sessions[name].add(topic_filter)

    @rule(name=names, topic_filter=filters)
    def unsubscribe(self, name: str, topic_filter: str) -> None:
        if name in self.clients:
            self.collect(name)
            self.clients[name].unsubscribe(topic_filter)
            self.sessions[name].discard(topic_filter)

    @rule(name=names, topic=topics, qos=st.sampled_from([1, 1, 0]))
    def publish(self, name: str, topic: str, qos: int) -> None:
        if not self.clients:
            return
        name = name if name in self.clients else next(iter(self.clients))
        self.number += 1
        payload = str(self.number).encode()
        client = self.clients[name]
        self.collect(name)
        for other, filters in self.sessions.items():
            if any(matches(one, topic) for one in filters):
                self.allowed.setdefault(other, set()).add(payload)
                if qos:
                    self.due.setdefault(other, set()).add(payload)
        self.place.now += 0.05
        client.packet_id += 1
        data = codec.publish_packet(client.version, topic.encode(), payload, qos=qos, packet_id=client.packet_id)
        client.connection.feed(data, self.place.now)
        self.place.broker.flush(self.place.now)

    @rule(name=names, version=st.sampled_from([V311, V5]))
    def lose_what_is_on_its_way(self, name: str, version: int) -> None:
        """The connection ends after messages were sent and before they were acknowledged; the client comes back."""
        self.connect(name, version, True)
        self.subscribe(name, "#")
        self.publish(name, "a", 1)
        self.leave(name, "lost")
        self.connect(name, version, True)

    @rule()
    def everything_arrives(self) -> None:
        for _ in range(3 + self.number // 5):
            self.place.wait(1)
            for name in self.clients:
                self.collect(name)
        for name in self.clients:
            assert not self.due.get(name)

    def collect(self, name: str) -> None:
        client = self.clients[name]
        for one in client.messages():
            assert one.payload in self.allowed[name]
            self.due.get(name, set()).discard(one.payload)
            if one.qos:
                client.ack(one.packet_id)

    def teardown(self) -> None:
        self.everything_arrives()
        for name in list(self.clients):
            self.leave(name, "lost")
        broker = self.place.broker
        broker.tick(self.place.now + 4_000)
        assert broker._tree.is_empty
        assert not broker.sessions
        assert not broker.clients
        assert not broker._away
        assert not broker._versions
        assert not broker._left_at


TestSessions = Sessions.TestCase
TestSessions.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
