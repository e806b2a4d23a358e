"""The aiomqtt producer against real sockets: mosquitto, and a scripted broker that misbehaves on demand."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import getpass
import ipaddress
import random
import shutil
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiomqtt
import pytest

from producers import (
    DEADLINE,
    INTERRUPTED,
    QUEUE_FULL,
    REJECTED,
    AccessRefused,
    ConfigurationError,
    EndpointUnreachable,
    KinesisProducer,
    MqttProducer,
    Producer,
    ProducerClosed,
    Record,
    TlsSettings,
    Will,
    read_spool,
)

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed (apt install mosquitto)")


# -- brokers -------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Mosquitto:
    """A real broker. ``listeners`` are lines of its configuration after ``listener PORT 127.0.0.1``."""

    def __init__(self, directory: Path, *listeners: str) -> None:
        self.ports = [free_port() for _ in range(1 + len(listeners))]
        # Started by root, it would become somebody who may not read the test's certificates.
        text = f"persistence false\nallow_anonymous true\nuser {getpass.getuser()}\n"
        for port, lines in zip(self.ports, ("", *listeners), strict=True):
            text += f"listener {port} 127.0.0.1\n{lines}\n"
        self.config = directory / "mosquitto.conf"
        self.config.write_text(text)
        self.url = f"mqtt://127.0.0.1:{self.ports[0]}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert MOSQUITTO is not None
        self._process = subprocess.Popen(
            [MOSQUITTO, "-c", str(self.config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for port in self.ports:
            while True:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert self._process.poll() is None, "mosquitto did not start"
                time.sleep(0.01)

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@contextlib.asynccontextmanager
async def listening(port: int, topics: str = "#") -> AsyncIterator[list[tuple[str, bytes]]]:
    """Everything that arrives at a broker, as it comes in."""
    heard: list[tuple[str, bytes]] = []

    async def listen() -> None:
        async for message in client.messages:
            assert isinstance(message.payload, bytes)
            heard.append((str(message.topic), message.payload))

    async with aiomqtt.Client("127.0.0.1", port) as client:
        await client.subscribe(topics, qos=1)
        task = asyncio.create_task(listen())
        try:
            yield heard
        finally:
            task.cancel()
            await asyncio.wait([task])
    # aiomqtt's own task was told to end just now.
    await asyncio.sleep(0.001)


@dataclass
class Packet:
    """A PUBLISH as a broker saw it."""

    client: str
    topic: str
    payload: bytes
    qos: int


@dataclass
class FakeBroker:
    """Speaks enough MQTT 3.1.1 and 5 to answer wrongly: ``async with FakeBroker(...) as it`` serves at ``it.url``.

    ``connack`` says for a client id and its how manyeth CONNECT what to return: a code, ``None`` for nothing at all,
    or ``"close"``. ``puback`` says for the n-th PUBLISH (from 1): true, false, ``"close"``, a delay in seconds, or (of
    MQTT 5) a reason code.
    """

    connack: Callable[[str, int], int | str | None] = lambda client, count: 0
    puback: Callable[[int, Packet], bool | str | float] = lambda count, packet: True
    connects: Counter[str] = field(default_factory=Counter)
    connect_packets: list[bytes] = field(default_factory=list)
    packets: list[Packet] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    url: str = ""
    port: int = 0

    async def __aenter__(self) -> Self:
        self._writers: set[asyncio.StreamWriter] = set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"mqtt://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in list(self._writers):
            writer.close()
        while self._writers:
            await asyncio.sleep(0.001)
        await self._server.wait_closed()

    def cut(self) -> None:
        """Close all connections."""
        for writer in self._writers:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                await self._talk(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            self._writers.discard(writer)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = ""
        five = False
        while True:
            head = (await reader.readexactly(1))[0]
            size = shift = 0
            while True:
                byte = (await reader.readexactly(1))[0]
                size |= (byte & 127) << shift
                shift += 7
                if not byte & 128:
                    break
            body = await reader.readexactly(size)
            kind = head >> 4
            if kind == 1:
                five = body[6] == 5
                at = 11 + body[10] if five else 10
                length = int.from_bytes(body[at : at + 2], "big")
                client = body[at + 2 : at + 2 + length].decode()
                self.connects[client] += 1
                self.connect_packets.append(body)
                answer = self.connack(client, self.connects[client])
                if answer == "close":
                    return
                if isinstance(answer, int):
                    writer.write(bytes([0x20, 3, 0, answer, 0] if five else [0x20, 2, 0, answer]))
                    if answer:
                        return
            elif kind == 3:
                length = int.from_bytes(body[:2], "big")
                qos = head >> 1 & 3
                end = 2 + length + (2 if qos else 0)
                payload = body[end + 1 + body[end] :] if five else body[end:]
                packet = Packet(client, body[2 : 2 + length].decode(), payload, qos)
                self.packets.append(packet)
                verdict = self.puback(len(self.packets), packet)
                if verdict == "close":
                    return
                if qos and verdict is not False:
                    puback = bytes([0x40, 2]) + body[end - 2 : end]
                    if verdict is True:
                        writer.write(puback)
                    elif isinstance(verdict, int):
                        writer.write(bytes([0x40, 3]) + body[end - 2 : end] + bytes([verdict]))
                    else:
                        asyncio.get_running_loop().call_later(float(verdict), writer.write, puback)
            elif kind == 12:
                writer.write(bytes([0xD0, 0]))
            elif kind == 14:
                self.left.append(client)
                return


@dataclass(frozen=True)
class Certificates:
    ca: Path
    cert: Path
    key: Path
    server_cert: Path
    server_key: Path

    @property
    def mutual(self) -> TlsSettings:
        return TlsSettings(self.ca, self.cert, self.key)

    @property
    def listener(self) -> str:
        return (
            f"cafile {self.ca}\ncertfile {self.server_cert}\nkeyfile {self.server_key}\n"
            "require_certificate true\nuse_identity_as_username true"
        )


def make_certificates(directory: Path) -> Certificates:
    """A CA, a broker's certificate for 127.0.0.1 and a device's, all of today."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    now = datetime.datetime.now(datetime.UTC)

    def make(name: str, issuer: Any = None, signer: Any = None, *extensions: Any) -> tuple[Any, Any]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, name)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.subject if issuer else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        certificate = builder.sign(signer or key, hashes.SHA256())
        (directory / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (directory / f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return certificate, key

    ca, ca_key = make("ca", None, None, x509.BasicConstraints(ca=True, path_length=None))
    address = x509.SubjectAlternativeName(
        [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
    )
    make("server", ca, ca_key, address)
    make("device", ca, ca_key)
    return Certificates(
        directory / "ca.pem",
        directory / "device.pem",
        directory / "device.key",
        directory / "server.pem",
        directory / "server.key",
    )


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path) as broker:
        yield broker


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


# -- helpers -------------------------------------------------------------------------------------------


class Impatient(random.Random):
    """Draws small numbers, so back-offs are a twentieth of what they would be."""

    def random(self) -> float:
        return super().random() / 20


def producer(url: str, devices: Any = (0,), **settings: Any) -> MqttProducer:
    arguments: dict[str, Any] = {"topic": "telemetry", "rng": Impatient(7), "connect_timeout_s": 3.0}
    return MqttProducer(url=url, devices=devices, **(arguments | settings))


def record(number: int, device: Any = 0, in_s: float = 0.0) -> Record:
    return Record(b"%06d" % number, "key", time.time() + in_s, device)


def numbers(packets: list[Packet]) -> list[int]:
    return [int(packet.payload) for packet in packets]


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(30):
            await main()
        # A leaked task or transport would be reported only at interpreter exit.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not others, others

    asyncio.run(limited())


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


# -- delivery ------------------------------------------------------------------------------------------


@needs_mosquitto
@pytest.mark.parametrize("qos", [0, 1])
def test_every_device_publishes_its_records_in_order(mosquitto: Mosquitto, qos: int) -> None:
    async def main() -> None:
        async with listening(mosquitto.ports[0]) as heard:
            async with producer(mosquitto.url, range(20), qos=qos) as it:
                assert it.statistics().connected == 20
                await it.put_many(
                    [record(10 * second + 1000 * n, n, 0.05 * second) for second in range(5) for n in range(20)]
                )
                await it.flush()
                statistics = it.statistics()
                assert statistics.ledger.generated == statistics.ledger.delivered == statistics.published == 100
                assert (statistics.in_flight, statistics.queued, statistics.disconnects) == (0, 0, 0)
                assert statistics.throttled_by_shard == {}
                assert len(it.samples[0]) == len(it.samples[1]) == 100
                assert it.latencies().send_lateness.p50 >= 0
            await until(lambda: len(heard) == 100)
        for device in range(20):
            of_device = [int(payload) for _, payload in heard if int(payload) // 1000 == device]
            assert of_device == [1000 * device + 10 * second for second in range(5)]

    run(main)


@needs_mosquitto
def test_on_uvloop(mosquitto: Mosquitto) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        async with producer(mosquitto.url, range(5)) as it:
            await it.put_many([record(second, n, 0.02 * second) for second in range(5) for n in range(5)])
            await it.flush()
            assert it.statistics().ledger.delivered == 25
        with pytest.raises(EndpointUnreachable):
            async with producer(f"mqtt://127.0.0.1:{free_port()}"):
                pass

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


@needs_mosquitto
def test_devices_may_have_topics_of_their_own(mosquitto: Mosquitto) -> None:
    async def main() -> None:
        async with listening(mosquitto.ports[0]) as heard:
            async with producer(mosquitto.url, {"a": "bikes/a", "b": "bikes/b"}) as it:
                await it.put_many([record(1, "a"), record(2, "b")])
            await until(lambda: len(heard) == 2)
            assert sorted(heard) == [("bikes/a", b"000001"), ("bikes/b", b"000002")]

    run(main)


@needs_mosquitto
def test_a_broker_killed_and_started_again_loses_nothing(mosquitto: Mosquitto) -> None:
    async def main() -> None:
        async with producer(mosquitto.url, range(5), deadline_s=20.0) as it:
            await it.put_many([record(second, n, 0.1 * second) for second in range(10) for n in range(5)])
            await until(lambda: it.statistics().ledger.delivered >= 10)
            mosquitto.stop()
            await until(lambda: it.statistics().connected == 0)
            mosquitto.start()
            await it.flush()
            statistics = it.statistics()
        assert statistics.ledger.delivered == 50
        assert statistics.ledger.lost == 0
        assert statistics.disconnects == statistics.reconnects == 5
        assert statistics.last_problem

    run(main)


@needs_mosquitto
@pytest.mark.parametrize("scheme", ["mqtts", "ws", "wss"])
def test_over_tls_and_websocket(tmp_path: Path, certificates: Certificates, scheme: str) -> None:
    listener = {
        "mqtts": certificates.listener,
        "ws": "protocol websockets",
        "wss": "protocol websockets\n" + certificates.listener,
    }[scheme]

    async def main(broker: Mosquitto) -> None:
        tls = certificates.mutual if scheme in ("mqtts", "wss") else None
        url = f"{scheme}://127.0.0.1:{broker.ports[1]}"
        async with listening(broker.ports[0]) as heard:
            async with producer(url, range(3), tls=tls) as it:
                await it.put_many([record(second, n, 0.02 * second) for second in range(5) for n in range(3)])
            await until(lambda: len(heard) == 15)
            assert it.statistics().ledger.delivered == 15

    with Mosquitto(tmp_path, listener) as broker:
        run(lambda: main(broker))


@needs_mosquitto
def test_a_broker_that_wants_a_certificate_says_no_without_one(tmp_path: Path, certificates: Certificates) -> None:
    async def main(url: str) -> None:
        with pytest.raises(EndpointUnreachable, match="certificate"):
            async with producer(url, tls=TlsSettings(ca_file=certificates.ca)):
                pass

    with Mosquitto(tmp_path, certificates.listener) as broker:
        run(lambda: main(f"mqtts://127.0.0.1:{broker.ports[1]}"))


# -- brokers in trouble --------------------------------------------------------------------------------


def test_what_is_not_acknowledged_is_published_again() -> None:
    async def main() -> None:
        # The first two publishes are thrown away, as AWS IoT Core does beyond its limits.
        async with FakeBroker(puback=lambda count, packet: count > 2) as broker:
            async with producer(broker.url, ack_timeout_s=0.05) as it:
                await it.put_many([record(1), record(2)])
            assert numbers(broker.packets) == [1, 1, 1, 2]
        ledger = it.statistics().ledger
        assert (ledger.delivered, ledger.retried, ledger.duplicates) == (2, 2, 2)

    run(main)


def test_a_late_puback_counts() -> None:
    async def main() -> None:
        async with (
            FakeBroker(puback=lambda count, packet: 0.15 if count == 1 else False) as broker,
            producer(broker.url, ack_timeout_s=0.1, deadline_s=5.0) as it,
        ):
            await it.put(record(1))
            await it.flush()
            assert it.statistics().ledger.delivered == 1
            assert len(broker.packets) > 1

    run(main)


def test_without_any_puback_the_deadline_ends_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            FakeBroker(puback=lambda count, packet: False) as broker,
            producer(broker.url, ack_timeout_s=0.05, deadline_s=0.2, spool=tmp_path / "spool") as it,
        ):
            await it.put_many([record(1), record(2)])
            await it.flush()
            assert it.statistics().ledger.lost_by_reason == {DEADLINE: 2}
        assert sorted(one.data for one in read_spool(tmp_path / "spool")) == [b"000001", b"000002"]

    run(main)


def test_a_device_cut_off_comes_back_with_its_queue() -> None:
    async def main() -> None:
        async with FakeBroker(puback=lambda count, packet: "close" if count == 3 else True) as broker:
            async with producer(broker.url) as it:
                await it.put_many([record(number, 0, 0.02 * number) for number in range(8)])
            assert numbers(broker.packets) == [0, 1, 2, 2, 3, 4, 5, 6, 7]
            assert broker.connects["alleycat-0"] == 2
        statistics = it.statistics()
        assert statistics.ledger.delivered == 8
        assert (statistics.ledger.duplicates, statistics.disconnects, statistics.reconnects) == (1, 1, 1)

    run(main)


class NoJitter(random.Random):
    def random(self) -> float:
        return 0.0


def test_a_connection_that_acknowledges_nothing_is_replaced() -> None:
    async def main() -> None:
        # The limit of 100 unacknowledged publishes is used up; the next connection gets its answer.
        async with FakeBroker(puback=lambda count, packet: count > 100) as broker:
            async with producer(broker.url, ack_timeout_s=0.005, rng=NoJitter()) as it:
                await it.put(record(1))
            assert len(broker.packets) == 101
            assert broker.connects.total() == 2
        statistics = it.statistics()
        assert (statistics.ledger.delivered, statistics.disconnects, statistics.reconnects) == (1, 1, 1)
        assert "100 publishes" in (statistics.last_problem or "")

    run(main)


def test_an_offline_device_keeps_only_what_its_queue_holds(tmp_path: Path) -> None:
    async def main() -> None:
        # Device 1 gets in at its second try, a second later.
        refuse_once = FakeBroker(connack=lambda client, count: 3 if client == "d1" and count == 1 else 0)
        async with refuse_once as broker:
            settings: dict[str, Any] = {"client_id": "d", "max_queued_per_device": 3, "spool": tmp_path / "spool"}
            async with producer(broker.url, range(2), **settings) as it:
                assert (it.statistics().connected, it.statistics().connecting) == (1, 1)
                await it.put_many([record(number, 1) for number in range(5)])
                assert it.statistics().queued == 3
                await it.flush()
                assert it.statistics().ledger.lost_by_reason == {QUEUE_FULL: 2}
            assert numbers(broker.packets) == [2, 3, 4]
        assert [one.data for one in read_spool(tmp_path / "spool")] == [b"000000", b"000001"]

    run(main)


@pytest.mark.parametrize("code", [4, 5])
def test_a_refused_first_device_is_one_clear_error(code: int) -> None:
    async def main() -> None:
        async with FakeBroker(connack=lambda client, count: code) as broker:
            with pytest.raises(AccessRefused, match="alleycat-0.*user name"):
                async with producer(broker.url, range(50)):
                    pass
            assert broker.connects.total() == 1

    run(main)


@pytest.mark.parametrize("answer", [3, "close", None], ids=["unavailable", "closed", "silent"])
def test_a_broker_that_does_not_take_anyone_is_unreachable(answer: int | str | None) -> None:
    async def main() -> None:
        async with FakeBroker(connack=lambda client, count: answer) as broker:
            with pytest.raises(EndpointUnreachable, match="MQTT broker at mqtt://127.0.0.1"):
                async with producer(broker.url, range(3), connect_timeout_s=0.2):
                    pass

    run(main)


@needs_mosquitto
def test_trouble_is_told_in_the_statistics_and_not_on_stderr(
    mosquitto: Mosquitto, capfd: pytest.CaptureFixture[str]
) -> None:
    async def main() -> None:
        async with producer(mosquitto.url, range(3), deadline_s=0.3, ack_timeout_s=0.1) as it:
            mosquitto.stop()
            await it.put_many([record(n, n) for n in range(3)])
            await it.flush()
            assert it.statistics().ledger.lost_by_reason == {DEADLINE: 3}
            assert it.statistics().last_problem

    run(main)
    assert capfd.readouterr() == ("", "")


def test_a_server_that_speaks_no_websocket() -> None:
    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"GET /mqtt HTTP/1.1\r\n")
            assert b"Sec-Websocket-Protocol: mqtt\r\n" in head
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            await writer.wait_closed()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            with pytest.raises(EndpointUnreachable, match="WebSocket"):
                async with producer(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"):
                    pass

    run(main)


def test_nobody_there() -> None:
    async def main() -> None:
        with pytest.raises(EndpointUnreachable, match="refused.*is it running"):
            async with producer(f"mqtt://127.0.0.1:{free_port()}"):
                pass

    run(main)


def test_a_late_connack_is_waited_for() -> None:
    async def main() -> None:
        broker = FakeBroker(connack=lambda client, count: None)
        async with broker:
            entering = asyncio.create_task(producer(broker.url).__aenter__())
            await until(lambda: broker.connects)
            (writer,) = broker._writers
            writer.write(bytes([0x20, 2, 0, 0]))
            it = await entering
            await it.put(record(1))
            await it.close()
            assert it.statistics().ledger.delivered == 1

    run(main)


# -- leaving -------------------------------------------------------------------------------------------


def test_leaving_says_goodbye_so_the_will_is_not_published() -> None:
    async def main() -> None:
        async with FakeBroker() as broker:
            will = Will("offline", b"gone-7", qos=1)
            async with producer(broker.url, (7, 8), will=lambda device: will, username="bike", password="secret"):
                pass
            await until(lambda: len(broker.left) == 2)
            assert sorted(broker.left) == ["alleycat-7", "alleycat-8"]
            for packet in broker.connect_packets:
                assert b"offline" in packet
                assert b"gone-7" in packet
                assert packet.endswith(b"\x00\x04bike\x00\x06secret")

    run(main)


@needs_mosquitto
def test_the_will_of_a_device_that_vanishes_is_published(mosquitto: Mosquitto) -> None:
    async def main() -> None:
        async with (
            listening(mosquitto.ports[0], "offline") as heard,
            producer(mosquitto.url, (7,), will=Will("offline", b"gone")) as it,
        ):
            it._drop(next(iter(it._clients)))
            await until(lambda: heard == [("offline", b"gone")])

    run(main)


def test_leaving_by_an_exception_gives_the_rest_up() -> None:
    async def main() -> None:
        async with FakeBroker(puback=lambda count, packet: False) as broker:
            it = producer(broker.url)
            with pytest.raises(RuntimeError, match="enough"):
                async with it:
                    await it.put_many([record(1), record(2), record(3, in_s=60)])
                    raise RuntimeError("enough")
            assert it.statistics().ledger.lost_by_reason == {INTERRUPTED: 3}
            await until(lambda: broker.left == ["alleycat-0"])

    run(main)


def test_an_acknowledgement_on_its_way_is_waited_for() -> None:
    async def main() -> None:
        async with FakeBroker(puback=lambda count, packet: 0.1) as broker:
            it = await producer(broker.url).__aenter__()
            await it.put(record(1))
            await until(lambda: broker.packets)
            await it.close(drain=False)
            assert it.statistics().ledger.delivered == 1

    run(main)


@needs_mosquitto
def test_a_frozen_broker_does_not_hold_anyone(mosquitto: Mosquitto) -> None:
    async def main() -> None:
        it = await producer(mosquitto.url, range(10)).__aenter__()
        mosquitto.signal(signal.SIGSTOP)
        try:
            await it.put_many([record(n, n) for n in range(10)])
            await until(lambda: it.statistics().in_flight == 10)
            draining = asyncio.create_task(it.close())
            await asyncio.sleep(0.05)
            draining.cancel()
            await asyncio.wait([draining])
            assert draining.cancelled()
            assert it.statistics().ledger.lost_by_reason == {INTERRUPTED: 10}
            with pytest.raises(EndpointUnreachable, match="CONNACK"):
                async with producer(mosquitto.url, connect_timeout_s=0.2):
                    pass
        finally:
            mosquitto.signal(signal.SIGCONT)

    run(main)


@needs_mosquitto
@pytest.mark.parametrize("connected", [1, 5, 40])
def test_entering_can_be_cancelled_at_any_time(mosquitto: Mosquitto, connected: int) -> None:
    async def main() -> None:
        trouble: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: trouble.append(context))
        it = producer(mosquitto.url, range(100))
        entering = asyncio.create_task(it.__aenter__())
        while it.statistics().connected < connected:
            await asyncio.sleep(0)
        entering.cancel()
        await asyncio.wait([entering])
        assert entering.cancelled()
        await until(lambda: len(asyncio.all_tasks()) == 1)
        assert trouble == []

    run(main)


def test_entering_can_be_cancelled_while_a_thread_waits_for_a_handshake() -> None:
    """A TLS handshake runs in a thread, which nobody can cancel: its socket must be closed all the same."""

    async def main() -> None:
        greeted = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            greeted.set()
            while await reader.read(1000):
                pass
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"mqtts://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        entering = asyncio.create_task(producer(url, connect_timeout_s=0.3).__aenter__())
        await greeted.wait()
        entering.cancel()
        await asyncio.wait([entering])
        assert entering.cancelled()
        with pytest.raises(EndpointUnreachable, match="timed out"):
            async with producer(url, connect_timeout_s=0.1):
                pass
        server.close()
        await server.wait_closed()
        await until(lambda: len(asyncio.all_tasks()) == 1)

    run(main)


def test_a_closed_producer_takes_nothing() -> None:
    async def main() -> None:
        async with FakeBroker() as broker:
            it = producer(broker.url)
            with pytest.raises(ProducerClosed, match="async with"):
                await it.put(record(1))
            async with it:
                pass
            await it.close()
            with pytest.raises(ProducerClosed):
                await it.put(record(1))
            with pytest.raises(ProducerClosed, match="once"):
                async with it:
                    pass

    run(main)


# -- what goes in --------------------------------------------------------------------------------------


def test_put_many_waits_while_the_buffer_is_full() -> None:
    async def main() -> None:
        async with FakeBroker() as broker, producer(broker.url, max_buffered_records=2) as it:
            most = 0
            putting = asyncio.create_task(it.put_many([record(number) for number in range(20)]))
            while not putting.done():
                most = max(most, it.statistics().ledger.in_flight)
                await asyncio.sleep(0)
            await it.flush()
            assert most == 2
            assert it.statistics().ledger.delivered == 20

    run(main)


def test_a_cancelled_put_accounts_for_what_it_did_not_take() -> None:
    async def main() -> None:
        async with FakeBroker(puback=lambda count, packet: False) as broker:
            it = await producer(broker.url, max_buffered_records=2).__aenter__()
            putting = asyncio.create_task(it.put_many([record(number) for number in range(5)]))
            await until(lambda: it.statistics().ledger.generated == 2)
            putting.cancel()
            await asyncio.wait([putting])
            assert it.statistics().ledger.generated == 5
            await it.close(drain=False)
            assert it.statistics().ledger.lost_by_reason == {INTERRUPTED: 5}

    run(main)


def test_records_that_nobody_could_publish() -> None:
    async def main() -> None:
        async with FakeBroker() as broker, producer(broker.url) as it:
            with pytest.raises(ValueError, match="99.*none of this producer's devices"):
                await it.put_many([record(1), record(2, 99)])
            with pytest.raises(ValueError, match="finite"):
                await it.put(Record(b"1", "k", float("nan"), 0))
            with pytest.raises(TypeError, match="bytes"):
                await it.put(Record("text", "k", 0.0, 0))  # type: ignore[arg-type]
            assert it.statistics().ledger.generated == 0
            await it.put_many([Record(bytes(128 * 1024 + 1), "k", time.time(), 0), record(1)])
            await it.flush()
            assert it.statistics().ledger.lost_by_reason == {REJECTED: 1}
            assert "131,072" in (it.statistics().last_problem or "")
            assert numbers(broker.packets) == [1]

    run(main)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "http://127.0.0.1"}, "must start with mqtt://"),
        ({"url": "mqtt://"}, "names no host"),
        ({"url": "mqtt://127.0.0.1:99999"}, "is not a URL"),
        ({"url": "mqtt://127.0.0.1/path"}, "has a path"),
        ({"url": "mqtt://me:you@127.0.0.1"}, "arguments of their own"),
        ({"qos": 2}, "qos must be 0 or 1"),
        ({"devices": ()}, "at least one"),
        ({"devices": (1, 1)}, "twice"),
        ({"topic": "a/#"}, "wildcards"),
        ({"topic": "a/b/c/d/e/f/g/h/i"}, "8 slashes"),
        ({"topic": "x" * 257}, "257 bytes"),
        ({"client_id": "x" * 128}, "129 bytes"),
        ({"client_id": lambda device: "same", "devices": (1, 2)}, "same client id"),
        ({"tls": TlsSettings()}, "not encrypted"),
        ({"url": "mqtts://127.0.0.1", "tls": TlsSettings(ca_file="/nowhere.pem")}, "nowhere.pem"),
        ({"url": "mqtts://127.0.0.1", "tls": TlsSettings(cert_file=__file__)}, "belong together"),
        ({"max_in_flight": 101}, "max_in_flight must be from 1 to 100"),
        ({"keep_alive_s": 1201}, "keep_alive_s"),
        ({"max_buffered_records": 0}, "max_buffered_records"),
        ({"will": Will("a/+")}, "will's topic"),
        ({"will": Will("a", qos=2)}, "will's qos"),
        ({"password": "alone"}, "needs a username"),
        ({"spool": "/nowhere/at/all"}, "cannot spool"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        MqttProducer(**({"topic": "t", "devices": (0,)} | settings))


def test_more_devices_than_this_process_may_have_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1024, 4096))

    async def main() -> None:
        with pytest.raises(ConfigurationError, match="1,000 devices.*ulimit -n 1032"):
            async with producer("mqtt://127.0.0.1:1", range(1000)):
                pass

    run(main)


def test_files_that_hold_no_certificate(tmp_path: Path) -> None:
    async def main() -> None:
        file = tmp_path / "not.pem"
        file.write_text("nothing")
        for tls in (TlsSettings(ca_file=file), TlsSettings(cert_file=file, key_file=file)):
            with pytest.raises(ConfigurationError, match=r"not\.pem"):
                async with producer("mqtts://127.0.0.1:1", tls=tls):
                    pass

    run(main)


def test_both_are_producers() -> None:
    every: list[Producer] = [
        MqttProducer(topic="t", devices=(0,)),
        KinesisProducer(stream="s"),
    ]
    assert all(one.statistics().ledger.generated == 0 for one in every)
    assert all(one.statistics().throttled_by_shard == {} for one in every)
