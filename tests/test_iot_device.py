"""The awsiotsdk producer against real sockets: mosquitto (mutual TLS, MQTT 5), and a broker that misbehaves."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_mqtt_producer import (
    Certificates,
    FakeBroker,
    Mosquitto,
    NoJitter,
    free_port,
    listening,
    make_certificates,
    needs_mosquitto,
    numbers,
    record,
    run,
    until,
)

from producers import (
    DEADLINE,
    INTERRUPTED,
    QUEUE_FULL,
    REJECTED,
    AccessRefused,
    ConfigurationError,
    EndpointUnreachable,
    IotDeviceProducer,
    Producer,
    TlsSettings,
    Will,
    read_spool,
)


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path) as broker:
        yield broker


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def producer(url: str, devices: Any = (0,), **settings: Any) -> IotDeviceProducer:
    arguments: dict[str, Any] = {"topic": "telemetry", "connect_timeout_s": 3.0}
    return IotDeviceProducer(url=url, devices=devices, **(arguments | settings))


# -- delivery ------------------------------------------------------------------------------------------


@needs_mosquitto
@pytest.mark.parametrize("qos", [0, 1])
def test_every_device_publishes_its_records_in_order(mosquitto: Mosquitto, qos: int) -> None:
    async def main() -> None:
        async with listening(mosquitto.ports[0]) as heard:
            async with producer(mosquitto.url, range(20), qos=qos) as it:
                assert it.statistics().connected == 20
                await it.put_many([record(1000 * n + s, n, 0.05 * s) for s in range(5) for n in range(20)])
                await it.flush()
                statistics = it.statistics()
                assert statistics.ledger.generated == statistics.ledger.delivered == statistics.published == 100
                assert len(it.samples[0]) == len(it.samples[1]) == 100
            await until(lambda: len(heard) == 100)
        for device in range(20):
            of_device = [int(payload) for _, payload in heard if int(payload) // 1000 == device]
            assert of_device == [1000 * device + second for second in range(5)]

    run(main)


@needs_mosquitto
@pytest.mark.parametrize("scheme", ["mqtts", "ws"])
def test_over_mutual_tls_and_websocket(tmp_path: Path, certificates: Certificates, scheme: str) -> None:
    async def main(broker: Mosquitto) -> None:
        tls = certificates.mutual if scheme == "mqtts" else None
        async with listening(broker.ports[0]) as heard:
            async with producer(f"{scheme}://127.0.0.1:{broker.ports[1]}", range(3), tls=tls) as it:
                await it.put_many([record(second, n, 0.02 * second) for second in range(5) for n in range(3)])
            await until(lambda: len(heard) == 15)
            assert it.statistics().ledger.delivered == 15

    with Mosquitto(tmp_path, certificates.listener if scheme == "mqtts" else "protocol websockets") as broker:
        run(lambda: main(broker))


@needs_mosquitto
def test_a_broker_that_wants_a_certificate_says_no_without_one(tmp_path: Path, certificates: Certificates) -> None:
    async def main(url: str) -> None:
        with pytest.raises(EndpointUnreachable):
            async with producer(url, tls=TlsSettings(ca_file=certificates.ca)):
                pass

    with Mosquitto(tmp_path, certificates.listener) as broker:
        run(lambda: main(f"mqtts://127.0.0.1:{broker.ports[1]}"))


@needs_mosquitto
def test_a_broker_killed_and_started_again_loses_nothing(mosquitto: Mosquitto) -> None:
    async def main() -> None:
        async with producer(mosquitto.url, range(5), deadline_s=25.0) as it:
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

    run(main)


# -- brokers in trouble --------------------------------------------------------------------------------


def test_what_is_not_acknowledged_is_published_again() -> None:
    async def main() -> None:
        async with FakeBroker(puback=lambda count, packet: count > 2) as broker:
            async with producer(broker.url, ack_timeout_s=0.05) as it:
                await it.put_many([record(1), record(2)])
            assert numbers(broker.packets) == [1, 1, 1, 2]
        ledger = it.statistics().ledger
        assert (ledger.delivered, ledger.retried, ledger.duplicates) == (2, 2, 2)

    run(main)


def test_a_connection_that_acknowledges_nothing_is_replaced() -> None:
    async def main() -> None:
        async with FakeBroker(puback=lambda count, packet: packet.client in acknowledging) as broker:
            acknowledging: set[str] = set()
            async with producer(broker.url, ack_timeout_s=0.005, rng=NoJitter()) as it:
                await it.put(record(1))
                await until(lambda: broker.connects.total() == 2)
                acknowledging.add("alleycat-0")
        statistics = it.statistics()
        assert (statistics.ledger.delivered, statistics.disconnects, statistics.reconnects) == (1, 1, 1)

    run(main)


def test_a_broker_that_says_it_throttles_is_asked_again() -> None:
    async def main() -> None:
        async with FakeBroker(puback=lambda count, packet: 0x97 if count < 3 else True) as broker:
            async with producer(broker.url) as it:
                await it.put(record(1))
            assert numbers(broker.packets) == [1, 1, 1]
        statistics = it.statistics()
        ledger = statistics.ledger
        assert (ledger.delivered, ledger.throttled, ledger.retried, ledger.duplicates) == (1, 2, 2, 0)
        assert statistics.last_problem == "PUBACK 0x97 quota exceeded"

    run(main)


def test_a_record_refused_for_good_is_lost_and_the_next_goes_on() -> None:
    async def main() -> None:
        async with FakeBroker(puback=lambda count, packet: 0x87 if packet.payload == b"000001" else True) as broker:
            async with producer(broker.url) as it:
                await it.put_many([record(1), record(2)])
            assert numbers(broker.packets) == [1, 2]
        assert it.statistics().ledger.lost_by_reason == {REJECTED: 1}
        assert "0x87 not authorized" in (it.statistics().last_problem or "")

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
            async with producer(broker.url, max_queued_per_device=4) as it:
                await it.put_many([record(number, 0, 0.02 * number) for number in range(8)])
            # 2 was in flight when the connection ended; of 2 to 7 the queue kept the last four.
            assert numbers(broker.packets) == [0, 1, 2, 4, 5, 6, 7]
        statistics = it.statistics()
        assert statistics.ledger.lost_by_reason == {QUEUE_FULL: 2}
        assert (statistics.disconnects, statistics.reconnects) == (1, 1)

    run(main)


@pytest.mark.parametrize(
    ("answer", "error"),
    [(0x87, AccessRefused), (0x85, AccessRefused), (0x88, EndpointUnreachable), ("close", EndpointUnreachable)],
)
def test_a_first_device_that_does_not_get_in_is_one_clear_error(answer: int | str, error: type[Exception]) -> None:
    async def main() -> None:
        async with FakeBroker(connack=lambda client, count: answer) as broker:
            with pytest.raises(error, match="MQTT broker at mqtt://127.0.0.1"):
                async with producer(broker.url, range(50)):
                    pass
            assert set(broker.connects) == {"alleycat-0"}

    run(main)


def test_nobody_there() -> None:
    async def main() -> None:
        with pytest.raises(EndpointUnreachable, match="CONNECTION_REFUSED"):
            async with producer(f"mqtt://127.0.0.1:{free_port()}"):
                pass

    run(main)


# -- leaving -------------------------------------------------------------------------------------------


def test_leaving_says_goodbye_so_the_will_is_not_published() -> None:
    async def main() -> None:
        async with FakeBroker() as broker:
            async with producer(broker.url, (7, 8), will=Will("offline", b"gone-7"), username="bike"):
                pass
            await until(lambda: len(broker.left) == 2)
            for packet in broker.connect_packets:
                assert b"offline" in packet
                assert b"gone-7" in packet
                assert packet.endswith(b"\x00\x04bike")

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

    run(main)


@needs_mosquitto
def test_a_frozen_broker_does_not_hold_anyone(mosquitto: Mosquitto) -> None:
    async def main() -> None:
        it = await producer(mosquitto.url, range(10)).__aenter__()
        mosquitto.signal(signal.SIGSTOP)
        try:
            await it.put_many([record(n, n) for n in range(10)])
            await until(lambda: it.statistics().in_flight == 10)
            await it.close(drain=False)
            assert it.statistics().ledger.lost_by_reason == {INTERRUPTED: 10}
            with pytest.raises(EndpointUnreachable, match="CONNACK"):
                async with producer(mosquitto.url, connect_timeout_s=0.2):
                    pass
        finally:
            mosquitto.signal(signal.SIGCONT)

    run(main)


@needs_mosquitto
def test_a_program_that_used_it_ends(mosquitto: Mosquitto) -> None:
    program = f"""
import asyncio, time
from producers import IotDeviceProducer, Record
async def main():
    async with IotDeviceProducer(url={mosquitto.url!r}, topic="t", devices=range(3)) as it:
        await it.put_many([Record(b"1", "k", time.time(), n) for n in range(3)])
    print(it.statistics().ledger.delivered)
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=Path(__file__).parents[1],
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "")


# -- what goes in --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "http://127.0.0.1"}, "must start with mqtt://"),
        ({"url": "wss://127.0.0.1"}, "no region to sign for"),
        ({"url": "wss://127.0.0.1/other", "region": "eu-west-1"}, "must be /mqtt"),
        ({"url": "mqtts://127.0.0.1", "tls": TlsSettings(alpn="mqtt")}, "alpn"),
        (
            {"url": "wss://127.0.0.1", "region": "eu-west-1", "tls": TlsSettings(None, __file__, __file__)},
            "use mqtts://",
        ),
        ({"qos": 2}, "qos must be 0 or 1"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        IotDeviceProducer(**({"topic": "t", "devices": (0,)} | settings))


def test_the_region_to_sign_for_is_in_the_endpoints_name() -> None:
    it = producer("wss://a1b2c3-ats.iot.eu-north-1.amazonaws.com/mqtt")
    assert it._region == "eu-north-1"
    checked: Producer = it
    assert checked.statistics().ledger.generated == 0


def test_a_signed_handshake_is_sent(monkeypatch: pytest.MonkeyPatch, certificates: Certificates) -> None:
    """Nothing local takes it, so what counts is what it says: path, subprotocol, and for which service and region."""
    import ssl

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def main() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates.server_cert, certificates.server_key)
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(EndpointUnreachable, match="WEBSOCKET|HTTP"):
            async with producer(
                f"wss://127.0.0.1:{port}", region="eu-west-1", tls=TlsSettings(ca_file=certificates.ca)
            ):
                pass
        server.close()
        await server.wait_closed()
        await until(lambda: heard)
        head = heard[0].lower()
        assert head.startswith(b"get /mqtt?")
        assert b"x-amz-signature=" in head
        assert b"%2feu-west-1%2fiotdevicegateway%2faws4_request" in head
        assert b"sec-websocket-protocol: mqtt" in head

    run(main)
