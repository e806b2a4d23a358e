"""The MQTT codec: round trips, arbitrary bytes, and packets that real clients send."""

from __future__ import annotations

import contextlib
import io
import struct
from typing import Any

import paho.mqtt.client as paho
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties as PahoProperties
from paho.mqtt.subscribeoptions import SubscribeOptions

from simulator.cloud import mqtt_codec as codec
from simulator.cloud import mqtt_properties as props
from simulator.cloud.mqtt_codec import V5, V311, Framer
from simulator.cloud.mqtt_properties import MqttError, Reason

LIMIT = 146 * 1024
VERSIONS = st.sampled_from([V311, V5])
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
LONGS = st.integers(0, 0xFFFFFFFF)
PROPERTIES = st.fixed_dictionaries(
    {},
    optional={
        props.PAYLOAD_FORMAT: st.integers(0, 1),
        props.MESSAGE_EXPIRY: LONGS,
        props.CONTENT_TYPE: TEXTS,
        props.CORRELATION_DATA: st.binary(max_size=40),
        props.TOPIC_ALIAS: st.integers(1, 0xFFFF),
        props.USER_PROPERTY: st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4),
        props.SUBSCRIPTION_ID: st.lists(st.integers(1, codec.MAX_REMAINING_BYTES), min_size=1, max_size=3),
    },
)


def frames(data: bytes, size: int | None = None) -> list[tuple[int, bytes]]:
    framer = Framer(LIMIT)
    step = size or len(data) or 1
    return [one for at in range(0, len(data), step) for one in framer.feed(data[at : at + step])]


@given(VERSIONS, TEXTS, st.binary(max_size=300), st.integers(0, 2), st.integers(1, 0xFFFF), st.booleans(), PROPERTIES)
def test_publish_round_trip(
    version: int, topic: str, payload: bytes, qos: int, packet_id: int, retain: bool, properties: dict[int, Any]
) -> None:
    data = codec.publish_packet(
        version, topic.encode(), payload, qos=qos, packet_id=packet_id, retain=retain, properties=properties
    )
    ((first, body),) = frames(data)
    found = codec.read_publish(first, body, version)
    assert (found.topic, found.payload, found.qos, found.retain) == (topic, payload, qos, retain)
    assert found.packet_id == (packet_id if qos else 0)
    assert found.properties == (properties if version == V5 else {})


def read_all(data: bytes, size: int | None = None) -> tuple[list[tuple[int, bytes]], Reason | None]:
    """The packets of ``data`` and how it ended."""
    framer, found = Framer(LIMIT), []
    step = size or len(data) or 1
    try:
        for at in range(0, len(data), step):
            for one in framer.feed(data[at : at + step]):
                found.append(one)  # noqa: PERF402 (a list() would lose what came before the error)
    except MqttError as error:
        return found, error.reason
    return found, None


ANY_BYTES = st.one_of(
    st.binary(max_size=200),
    st.lists(st.binary(max_size=12).map(lambda body: bytes((0x30, len(body))) + body), max_size=8).map(b"".join),
)


@given(ANY_BYTES, st.integers(1, 7))
def test_pieces_give_the_same_packets_as_the_whole(data: bytes, size: int) -> None:
    assert read_all(data) == read_all(data, 1) == read_all(data, size)


@given(st.integers(0, 255), st.binary(max_size=120), VERSIONS)
def test_arbitrary_bytes_raise_nothing_else(first: int, body: bytes, version: int) -> None:
    mqtt = b"\0\4MQTT" + bytes((version,))
    for read in (
        lambda: codec.read_connect(body),
        lambda: codec.read_connect(mqtt + body),
        lambda: codec.read_publish(first, body, version),
        lambda: codec.read_puback(body),
        lambda: codec.read_subscribe(0x82, body, version),
        lambda: codec.read_subscribe(first, body, version),
        lambda: codec.read_unsubscribe(0xA2, body, version),
        lambda: codec.read_disconnect(body, version),
    ):
        with contextlib.suppress(MqttError):
            read()


def test_a_packet_too_large_is_refused_before_it_is_buffered() -> None:
    framer = Framer(1_000)
    assert list(framer.feed(b"\x30" + codec.varint(997) + b"x" * 100)) == []
    assert framer.buffered_bytes == 103
    with pytest.raises(MqttError) as caught:
        list(Framer(1_000).feed(b"\x30" + codec.varint(998)))
    assert caught.value.reason is Reason.PACKET_TOO_LARGE
    with pytest.raises(MqttError):
        list(Framer(1_000).feed(b"\x30\xff\xff\xff\xff"))


@given(st.integers(0, codec.MAX_REMAINING_BYTES))
def test_variable_byte_integers(value: int) -> None:
    data = codec.varint(value)
    assert len(data) == 1 + (value > 127) + (value > 16_383) + (value > 2_097_151)
    assert props.Reader(data).varint() == value


@pytest.mark.parametrize(
    "body",
    [b"\0\4MQTT\4\1\0\0\0\1a", b"\0\4MQTT\4\x1e\0\0\0\1a", b"\0\4MQTT\4\x08\0\0\0\1a", b"\0\4MQTT\4\x40\0\0\0\1a\0\0"],
    ids=["reserved flag", "will QoS 3", "will QoS without a will", "password alone"],
)
def test_contradictions_in_connect(body: bytes) -> None:
    with pytest.raises(MqttError):
        codec.read_connect(body)


# -- what paho-mqtt (and aiomqtt, which stands on it) sends ---------------------------------------------


class Wire(io.BytesIO):
    """A socket that keeps what is sent to it."""

    def send(self, data: bytes) -> int:
        return self.write(data)


def client_of(version: int) -> tuple[paho.Client, Wire]:
    protocol = MQTTProtocolVersion.MQTTv5 if version == V5 else MQTTProtocolVersion.MQTTv311
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="kart-é", protocol=protocol)
    wire = Wire()
    client._sock = wire  # type: ignore[assignment]
    return client, wire


def sent(client: paho.Client, wire: Wire) -> tuple[int, bytes]:
    client._packet_write()
    (found,) = frames(wire.getvalue(), 3)
    client._sock = None
    return found


@pytest.mark.parametrize("version", [V311, V5])
def test_connect_of_paho(version: int) -> None:
    client, wire = client_of(version)
    client.username_pw_set("user", "secret")
    properties = None
    if version == V5:
        properties = PahoProperties(PacketTypes.WILLMESSAGE)
        properties.WillDelayInterval = 7
        client._connect_properties = PahoProperties(PacketTypes.CONNECT)
        client._connect_properties.SessionExpiryInterval = 99
    client.will_set("gone", b"\0\1", qos=1, retain=True, properties=properties)
    client._send_connect(77)
    first, body = sent(client, wire)
    found = codec.read_connect(body)
    assert first == 0x10
    assert (found.version, found.client_id, found.keep_alive_s, found.username) == (version, "kart-é", 77, "user")
    assert found.will is not None
    will = (found.will.topic, found.will.payload, found.will.qos, found.will.retain, found.will.delay_s)
    assert will == ("gone", b"\0\1", 1, True, 7 if version == V5 else 0)
    assert found.properties.get(props.SESSION_EXPIRY) == (99 if version == V5 else None)


@pytest.mark.parametrize("version", [V311, V5])
def test_publish_and_subscribe_of_paho(version: int) -> None:
    client, wire = client_of(version)
    properties = None
    if version == V5:
        properties = PahoProperties(PacketTypes.PUBLISH)
        properties.UserProperty = ("k", "v")
        properties.MessageExpiryInterval = 9
    client._send_publish(5, b"a/\xc3\xa9", b"payload", qos=1, retain=True, properties=properties)
    first, body = sent(client, wire)
    found = codec.read_publish(first, body, version)
    assert (found.topic, found.payload, found.qos, found.retain, found.packet_id) == ("a/é", b"payload", 1, True, 5)
    wanted = {props.USER_PROPERTY: [("k", "v")], props.MESSAGE_EXPIRY: 9} if version == V5 else {}
    assert found.properties == wanted

    client, wire = client_of(version)
    options: Any = SubscribeOptions(1, noLocal=True, retainAsPublished=True, retainHandling=2) if version == V5 else 1
    client._send_subscribe(False, [(b"a/+", options)])
    first, body = sent(client, wire)
    asked = codec.read_subscribe(first, body, version)
    extra = (True, True, 2) if version == V5 else ()
    assert asked.filters == (codec.Filter("a/+", 1, *extra),)

    client, wire = client_of(version)
    client._send_unsubscribe(False, [b"a/+"])
    first, body = sent(client, wire)
    assert codec.read_unsubscribe(first, body, version)[1] == ("a/+",)


@given(PROPERTIES)
def test_paho_reads_our_properties(properties: dict[int, Any]) -> None:
    if properties.get(props.TOPIC_ALIAS) == 0:
        # No broker sends alias 0, and paho would not take it.
        properties = {name: value for name, value in properties.items() if name != props.TOPIC_ALIAS}
    packed = props.pack_properties(properties)
    found = PahoProperties(PacketTypes.PUBLISH)
    _, length = found.unpack(packed)
    assert length == len(packed)
    assert getattr(found, "UserProperty", []) == properties.get(props.USER_PROPERTY, [])
    assert getattr(found, "MessageExpiryInterval", None) == properties.get(props.MESSAGE_EXPIRY)


def test_answers() -> None:
    assert codec.connack_packet(V311, Reason.SUCCESS, session_present=True) == b"\x20\2\1\0"
    assert codec.connack_packet(V311, Reason.QUOTA_EXCEEDED) == b"\x20\2\0\3"
    assert codec.connack_packet(V5, Reason.QUOTA_EXCEEDED) == b"\x20\3\0\x97\0"
    assert codec.puback_packet(V311, 258, Reason.QUOTA_EXCEEDED) == b"\x40\2\1\2"
    assert codec.puback_packet(V5, 258, Reason.QUOTA_EXCEEDED) == b"\x40\3\1\2\x97"
    assert codec.suback_packet(V311, 1, [0, 1, 0x97]) == b"\x90\5\0\1\0\1\x80"
    assert codec.suback_packet(V5, 1, [0x97]) == b"\x90\4\0\1\0\x97"
    assert codec.unsuback_packet(V311, 1, [0]) == b"\xb0\2\0\1"
    assert codec.disconnect_packet(Reason.TAKEN_OVER) == b"\xe0\2\x8e\0"
    assert struct.unpack("!H", codec.publish_packet(V311, b"a", b"", qos=1, packet_id=3)[-2:]) == (3,)
