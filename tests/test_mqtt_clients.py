"""The embedded IoT Core under real clients on real sockets."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import shutil
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiomqtt
import orjson
import pytest
from awscrt import mqtt5
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from simulator.cloud import mqtt_codec as codec
from simulator.cloud.iot_meter import IotMeter
from simulator.cloud.limits import LimitSettings
from simulator.cloud.metrics import Metrics
from simulator.cloud.mqtt_broker import Broker
from simulator.cloud.mqtt_codec import V311
from simulator.cloud.mqtt_listener import Listener, ListenError, TlsFiles, serve_websocket

V5 = aiomqtt.ProtocolVersion.V5
VERSIONS = [aiomqtt.ProtocolVersion.V311, V5]


class Place:
    def __init__(self, **given: Any) -> None:
        self.metrics = Metrics()
        self.ruled: list[tuple[str, bytes]] = []
        self.broker = Broker(
            LimitSettings(**given),
            IotMeter(self.metrics),
            lambda topic, payload, qos, client_id, now: self.ruled.append((topic, payload)),
            0.0,
        )
        self.listener = Listener(self.broker)
        self.port = 0

    def counted(self, name: str) -> float:
        return self.metrics.total("AWS/IoT", name, (("Protocol", "MQTT"),))

    def client(self, client_id: str, **given: Any) -> aiomqtt.Client:
        return aiomqtt.Client("127.0.0.1", self.port, identifier=client_id, **given)

    def left(self, client_id: str) -> list[dict[str, Any]]:
        topic = f"$aws/events/presence/disconnected/{client_id}"
        return [orjson.loads(payload) for name, payload in self.ruled if name == topic]


@asynccontextmanager
async def listening(tls: ssl.SSLContext | None = None, **given: Any) -> AsyncIterator[Place]:
    place = Place(**given)
    place.port = await place.listener.open("127.0.0.1", 0, tls)
    try:
        yield place
    finally:
        place.listener.close()
        await until(lambda: not place.listener.connections)


async def until(is_true: Callable[[], Any]) -> None:
    """Wait for something that has to come; the test fails when it does not in 20 s."""
    async with asyncio.timeout(20):
        while not is_true():
            await asyncio.sleep(0.01)


async def first(client: aiomqtt.Client, count: int = 1) -> list[aiomqtt.Message]:
    found = []
    async with asyncio.timeout(20):
        async for message in client.messages:
            found.append(message)
            if len(found) == count:
                break
    return found


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def go() -> None:
        async with asyncio.timeout(60):
            await scenario()

    asyncio.run(go())


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("qos", [0, 1])
def test_aiomqtt_publishes_and_reads(version: aiomqtt.ProtocolVersion, qos: int) -> None:
    async def scenario() -> None:
        async with (
            listening() as place,
            place.client("reader", protocol=version) as reader,
            place.client("writer", protocol=version) as writer,
        ):
            await writer.publish("laps/kept", b"kept", qos=qos, retain=True)
            await until(lambda: place.broker.retained)
            await reader.subscribe("laps/#", qos=qos)
            for number in range(20):
                await writer.publish("laps/é", str(number), qos=qos)
            found = await first(reader, 21)
            assert [one.payload for one in found] == [b"kept", *(str(number).encode() for number in range(20))]
            assert [one.retain for one in found] == [True] + [False] * 20
            assert {one.qos for one in found} == {qos}

    run(scenario)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_persistent_session_of_aiomqtt(version: aiomqtt.ProtocolVersion) -> None:
    given: dict[str, Any] = {"protocol": version}
    if version == V5:
        given |= {"clean_start": False, "properties": Properties(PacketTypes.CONNECT)}
        given["properties"].SessionExpiryInterval = 100
    else:
        given |= {"clean_session": False}

    async def scenario() -> None:
        async with listening() as place:
            async with place.client("reader", **given) as reader:
                await reader.subscribe("a", qos=1)
            async with place.client("writer") as writer:
                for number in range(3):
                    await writer.publish("a", str(number), qos=1)
            place.broker.rates._clients._latest.clear()
            async with place.client("reader", **given) as reader:
                assert [one.payload for one in await first(reader, 3)] == [b"0", b"1", b"2"]

    run(scenario)


def test_a_client_that_vanishes_leaves_its_will() -> None:
    async def scenario() -> None:
        async with listening() as place, place.client("reader") as reader:
            await reader.subscribe("gone")
            _, raw = await asyncio.open_connection("127.0.0.1", place.port)
            body = b"\0\4MQTT\4\x06\0\x3c" + b"\0\4kart" + b"\0\4gone" + b"\0\4dead"
            raw.write(b"\x10" + bytes((len(body),)) + body)
            await until(lambda: "kart" in place.broker.clients)
            sock = raw.get_extra_info("socket")
            # Linger of 0 s: the socket ends with RST.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raw.transport.abort()
            assert [one.payload for one in await first(reader)] == [b"dead"]
            assert place.left("kart")[0]["disconnectReason"] == "CONNECTION_LOST"

    run(scenario)


def test_awscrt_mqtt5_over_tcp() -> None:
    async def scenario() -> None:
        async with listening() as place:
            connected: Future[Any] = Future()
            stopped: Future[None] = Future()
            received: Future[Any] = Future()
            client = mqtt5.Client(
                mqtt5.ClientOptions(
                    host_name="127.0.0.1",
                    port=place.port,
                    connect_options=mqtt5.ConnectPacket(client_id="kart", keep_alive_interval_sec=60),
                    on_lifecycle_event_connection_success_fn=lambda data: connected.set_result(data),
                    on_lifecycle_event_connection_failure_fn=lambda data: connected.set_exception(data.exception),
                    on_lifecycle_event_stopped_fn=lambda data: stopped.set_result(None),
                    on_publish_callback_fn=lambda data: received.set_result(data.publish_packet),
                )
            )
            client.start()
            told = await asyncio.wrap_future(connected)
            assert told.negotiated_settings.receive_maximum_from_server == 100
            assert told.negotiated_settings.maximum_qos == mqtt5.QoS.AT_LEAST_ONCE
            asked = mqtt5.SubscribePacket([mqtt5.Subscription("a/#", mqtt5.QoS.AT_LEAST_ONCE)])
            await asyncio.wrap_future(client.subscribe(asked))
            packet = mqtt5.PublishPacket(
                topic="a/b",
                payload=b"lap",
                qos=mqtt5.QoS.AT_LEAST_ONCE,
                user_properties=[mqtt5.UserProperty("k", "v")],
            )
            await asyncio.wrap_future(client.publish(packet))
            found = await asyncio.wrap_future(received)
            assert (found.topic, found.payload) == ("a/b", b"lap")
            assert [(one.name, one.value) for one in found.user_properties] == [("k", "v")]
            client.stop()
            await asyncio.wrap_future(stopped)

    run(scenario)


@pytest.mark.skipif(not shutil.which("mosquitto_pub"), reason="mosquitto's clients are not installed")
@pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
def test_mosquitto_clients(version: str) -> None:
    async def scenario() -> None:
        async with listening() as place:
            common = ["-h", "127.0.0.1", "-p", str(place.port), "-V", version, "-t", "a/b", "-q", "1"]
            reader = await asyncio.create_subprocess_exec(
                "mosquitto_sub", *common, "-C", "1", "-i", "reader", stdout=asyncio.subprocess.PIPE
            )
            await until(lambda: "reader" in place.broker.sessions and place.broker.sessions["reader"].subscriptions)
            writer = await asyncio.create_subprocess_exec("mosquitto_pub", *common, "-m", "lap", "-i", "writer")
            assert (await reader.communicate())[0] == b"lap\n"
            assert await writer.wait() == 0

    run(scenario)


# -- TLS -----------------------------------------------------------------------------------------------


def certificate(
    folder: Path, name: str, issuer: tuple[x509.Certificate, Any] | None = None
) -> tuple[x509.Certificate, Any]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    )
    made = builder.sign(issuer[1] if issuer else key, hashes.SHA256())
    (folder / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return made, key


def test_tls_with_client_certificates(tmp_path: Path) -> None:
    authority = certificate(tmp_path, "ca")
    certificate(tmp_path, "server", authority)
    kart, _ = certificate(tmp_path, "kart", authority)
    principal = hashlib.sha256(kart.public_bytes(serialization.Encoding.DER)).hexdigest()
    files = [str(tmp_path / name) for name in ("server.pem", "server.key", "ca.pem")]

    async def scenario() -> None:
        async with listening(TlsFiles(0, *files).context()) as place:
            trusted = ssl.create_default_context(cafile=files[2])
            trusted.load_cert_chain(tmp_path / "kart.pem", tmp_path / "kart.key")
            async with aiomqtt.Client("localhost", place.port, identifier="kart", tls_context=trusted) as client:
                await client.publish("a", b"lap", qos=1)
            await until(lambda: place.left("kart"))
            assert place.left("kart")[0]["principalIdentifier"] == principal
            assert ("a", b"lap") in place.ruled
            nameless = ssl.create_default_context(cafile=files[2])
            nameless.maximum_version = ssl.TLSVersion.TLSv1_2
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await asyncio.open_connection("localhost", place.port, ssl=nameless)

    run(scenario)


def test_tls_files_that_are_of_no_use(tmp_path: Path) -> None:
    with pytest.raises(ListenError, match="there is no file"):
        TlsFiles(0, *[str(tmp_path / "none")] * 3).context()
    (tmp_path / "empty").write_text("")
    with pytest.raises(ListenError, match="empty"):
        TlsFiles(0, *[str(tmp_path / "empty")] * 3).context()


def test_a_port_that_is_taken_is_told() -> None:
    async def scenario() -> None:
        async with listening() as place:
            with pytest.raises(ListenError, match="--mqtt-port"):
                await Listener(place.broker).open("127.0.0.1", place.port)

    run(scenario)


# -- WebSocket -----------------------------------------------------------------------------------------


def connect_packet(client_id: str) -> bytes:
    body = b"\0\4MQTT\4\2\0\x3c" + struct.pack("!H", len(client_id)) + client_id.encode()
    return b"\x10" + bytes((len(body),)) + body


def websocket_scope(*protocols: str) -> dict[str, Any]:
    return {"type": "websocket", "subprotocols": list(protocols), "client": ("192.0.2.7", 1)}


@pytest.mark.parametrize("end", ["client", "text", "garbage", "stuck"])
def test_mqtt_over_a_websocket(end: str) -> None:
    async def scenario() -> None:
        place = Place()
        arriving: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        sent: list[dict[str, Any]] = []
        stuck = False

        async def send(message: dict[str, Any]) -> None:
            if stuck:
                await asyncio.Event().wait()
            sent.append(message)

        serving = asyncio.create_task(serve_websocket(place.listener, websocket_scope("mqtt"), arriving.get, send))
        arriving.put_nowait({"type": "websocket.connect"})
        data = connect_packet("kart")
        for part in (data[:5], data[5:]):
            arriving.put_nowait({"type": "websocket.receive", "bytes": part})
        await until(lambda: len(sent) == 2)
        assert sent[0] == {"type": "websocket.accept", "subprotocol": "mqtt"}
        assert sent[1]["bytes"] == b"\x20\2\0\0"
        if end == "client":
            arriving.put_nowait({"type": "websocket.disconnect"})
        elif end == "text":
            arriving.put_nowait({"type": "websocket.receive", "text": "hello"})
        elif end == "garbage":
            arriving.put_nowait({"type": "websocket.receive", "bytes": b"\xff" * 8})
        else:
            stuck = True
            arriving.put_nowait({"type": "websocket.receive", "bytes": b"\xc0\0"})
            await until(arriving.empty)
            await asyncio.sleep(0.05)
            next(iter(place.listener.connections)).abandon()
        await serving
        assert not place.listener.connections
        assert not place.broker.clients
        reason = "CONNECTION_LOST" if end in ("client", "stuck") else "CLIENT_ERROR"
        assert [one["disconnectReason"] for one in place.left("kart")] == [reason]
        place.listener.close()

    run(scenario)


def test_a_websocket_of_another_protocol_is_refused() -> None:
    async def scenario() -> None:
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "websocket.connect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await serve_websocket(Place().listener, websocket_scope("chat"), receive, send)
        assert [one["type"] for one in sent] == ["websocket.close"]

    run(scenario)


# -- crowds --------------------------------------------------------------------------------------------


def test_500_connections_with_one_client_id_leave_one() -> None:
    async def scenario() -> None:
        async with listening() as place:
            opened = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", place.port) for _ in range(500)))
            for _, writer in opened:
                writer.write(connect_packet("kart"))
            answers = await asyncio.gather(*(reader.readexactly(4) for reader, _ in opened))
            assert {one[3] for one in answers} == {0, 3}
            accepted = sum(not one[3] for one in answers)
            assert place.counted("Connect.Success") == accepted
            assert place.counted("Connect.ClientIDThrottle") == 500 - accepted
            assert len(place.broker.clients) == len(place.broker.sessions) == 1
            assert len(place.left("kart")) == accepted - 1
            for _, writer in opened:
                writer.close()
            await until(lambda: not place.broker.sessions)

    run(scenario)


def test_one_loud_client_and_20_well_behaved() -> None:
    async def scenario() -> None:
        async with listening() as place:
            loud_reader, loud = await asyncio.open_connection("127.0.0.1", place.port)
            loud.write(connect_packet("loud"))
            await loud_reader.readexactly(4)
            good = [place.client(f"good-{number}") for number in range(20)]
            for one in good:
                await one.__aenter__()
            for _ in range(20):
                loud.write(codec.publish_packet(V311, b"loud", b"x") * 50)
                await asyncio.gather(*(one.publish("good", b"x", qos=1) for one in good))
            for one in good:
                await one.__aexit__(None, None, None)
            await until(lambda: place.counted("PublishIn.Success") + place.counted("PublishIn.Throttle") == 1_400)
            assert len([one for one in place.ruled if one[0] == "good"]) == 400
            assert len([one for one in place.ruled if one[0] == "loud"]) < 1_000
            loud.close()

    run(scenario)


def test_a_reader_that_does_not_read_harms_nobody_else() -> None:
    async def scenario() -> None:
        async with listening(enforced=False) as place:
            _, slow = await asyncio.open_connection("127.0.0.1", place.port, limit=1_024)
            slow.transport.pause_reading()
            slow.write(connect_packet("slow") + b"\x82\6\0\1\0\1a\0")
            await until(lambda: "slow" in place.broker.sessions and place.broker.sessions["slow"].subscriptions)
            async with place.client("reader") as reader, place.client("writer") as writer:
                await reader.subscribe("a", qos=1)
                for _ in range(300):
                    await writer.publish("a", bytes(100_000), qos=1)
                assert len(await first(reader, 300)) == 300
            assert place.counted("PublishOut.Throttle") > 0
            slow.transport.abort()

    run(scenario)
