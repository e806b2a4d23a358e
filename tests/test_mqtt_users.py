"""Bikers of a load test against the embedded IoT Core, on real sockets; Locust lives in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from test_mqtt_producer import free_port, make_certificates

from loadtests.measurements import Counts, Measurements
from simulator.cloud.limits import LimitSettings
from simulator.cloud.server import CloudProcess

ROOT = Path(__file__).parents[1]
WITHIN_S = 60.0

DRIVER = """
import json, sys, time
import gevent
from locust.env import Environment
from loadtests.generator import Generator
from loadtests.measurements import Measurements
from loadtests.mqtt_users import BikerUser
from loadtests.resources import Resources
from loadtests.settings import LoadSettings

options = json.loads(sys.argv[1])
environment = Environment(user_classes=[BikerUser])
generator = Generator(LoadSettings(**options["settings"]), Resources(extra=options["extra"]))
environment.alleycat = generator
generator.messages.take(1)
runner = environment.create_local_runner()
runner.start(options["settings"]["connections"], spawn_rate=100)
seen = Measurements()
while True:
    line = gevent.get_hub().threadpool.apply(sys.stdin.readline)
    asked = json.loads(line) if line else {"stop": True}
    if "rate" in asked:
        load = {"stage": asked["stage"], "offset": 0.5, "rates": {"Publish": [asked["rate"], asked["batch"]]}}
        load["seconds"] = None
        generator.apply(load)
    if "stop" in asked:
        runner.quit()
    told = generator.tell()
    seen.add(told.pop("meter"))
    told["seen"] = seen.to_json()
    told["table"] = {name: entry.num_requests for (name, _), entry in environment.stats.entries.items()}
    told["total"] = environment.stats.total.num_requests
    print(json.dumps(told), flush=True)
    if "stop" in asked:
        break
generator.close()
"""


class Load:
    """A process with bikers in it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._stage = -1
        self.told: dict[str, Any] = {}
        self.seen = Measurements()

    def ask(self, **asked: Any) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the process with the bikers has gone"
        self.told = json.loads(line)
        self.seen = Measurements.from_json(self.told["seen"])

    def pause(self) -> None:
        """Let the process do nothing, as on a machine that is busy with another."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def offer(self, rate: float, batch: int = 1) -> float:
        """Begin a stage; returns when, in seconds since the epoch."""
        self._stage += 1
        self.ask(rate=rate, batch=batch, stage=self._stage)
        return float(self.told["at"])

    def hold(self, rate: float, seconds: float) -> float:
        """Offer a rate for so long, and then nothing; returns how long it was."""
        began = self.offer(rate)
        time.sleep(seconds)
        return self.offer(0) - began

    def until(self, is_true: Any, what: str) -> None:
        give_up_at = time.monotonic() + WITHIN_S
        while not is_true():
            assert time.monotonic() < give_up_at, f"not within {WITHIN_S:g} s: {what}; {self.published}, {self.codes}"
            time.sleep(0.1)
            self.ask()

    def connected(self, number: int) -> None:
        self.until(lambda: self.connects.accepted >= number, f"{number} connections")

    def settled(self) -> None:
        """Until every message has ended."""
        self.until(lambda: not self.told["in_flight"] and not self.told["waiting"], "the end of every message")

    def stop(self) -> str:
        """End the test; returns what was said on stderr."""
        self.ask(stop=True)
        _, errors = self._process.communicate(timeout=WITHIN_S)
        assert self._process.returncode == 0
        assert "Traceback" not in errors, errors
        return errors

    @property
    def published(self) -> Counts:
        return self.seen.total(operation="Publish")

    @property
    def connects(self) -> Counts:
        return self.seen.total(operation="Connect")

    @property
    def codes(self) -> dict[str, int]:
        """How often each problem of a message was met."""
        found: dict[str, int] = {}
        for one in self.seen.problems.values():
            found[one.code] = found.get(one.code, 0) + one.count
        return found

    def resources(self) -> set[str]:
        """Whatever messages were accepted by."""
        return {key.resource for key, one in self.seen.counts.items() if key.operation == "Publish" and one.answered}

    def assert_every_message_ended_once(self) -> None:
        assert self.told["in_flight"] == 0
        for counts in (self.published, self.connects):
            assert counts.answered + counts.unsent == counts.offered


@contextmanager
def bikers(connections: int, extra: dict[str, str], **settings: Any) -> Iterator[Load]:
    options = {"extra": extra, "settings": {"connections": connections, "racers": 100, **settings}}
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, json.dumps(options)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    watchdog = threading.Timer(4 * WITHIN_S, process.kill)
    watchdog.start()
    try:
        yield Load(process)
    finally:
        watchdog.cancel()
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def iot() -> Iterator[CloudProcess]:
    with CloudProcess() as process:
        yield process


def at(cloud: CloudProcess) -> dict[str, str]:
    return {"mqtt_url": cloud.mqtt_url}


def skip_unless_offered(counts: Counts) -> None:
    """A machine that could not send in time has measured itself and not the broker."""
    if counts.unsent + counts.late > 0.1 * counts.offered:
        pytest.skip(f"this machine sent {counts.late:g} late and {counts.unsent:g} not at all of {counts.offered:g}")


def overdue(codes: dict[str, int]) -> int:
    """Messages whose PUBACK a slow machine was late with."""
    return codes.get("LatePuback", 0)


# -- Limits --------------------------------------------------------------------------------------------


def test_a_connection_within_its_limit_has_everything_accepted(iot: CloudProcess) -> None:
    with bikers(1, at(iot)) as load:
        load.connected(1)
        load.hold(50, 3)
        load.settled()
        load.stop()
        counts = load.published
        assert counts.offered >= 140
        assert counts.accepted >= counts.offered - counts.unsent - overdue(load.codes)
        assert counts.bytes > 100 * counts.accepted
        (client_id,) = load.resources()
        assert client_id.startswith("alleycat-load-0-1-")
        assert load.told["table"][f"Publish {client_id} accepted"] == counts.accepted
        # Requests are Locust's own total: every message, and the connection.
        assert load.told["total"] == counts.answered + 1
        load.assert_every_message_ended_once()


def test_a_connection_over_its_limit_finds_100_a_second(iot: CloudProcess) -> None:
    with bikers(1, at(iot)) as load:
        load.connected(1)
        took_s = load.hold(200, 5)
        load.settled()
        load.stop()
        counts, codes = load.published, load.codes
        load.assert_every_message_ended_once()
        assert counts.accepted <= 100 + 100 * (took_s + 0.1)
        assert counts.throttled == codes["NoPuback"]
        (problem,) = (one for one in load.seen.problems.values() if one.code == "NoPuback")
        assert "discards what is over a connection's 100 publishes/s or the account's 20,000" in problem.message
        skip_unless_offered(counts)
        assert counts.accepted + overdue(codes) == pytest.approx(100 + 100 * took_s, rel=0.05)


def test_many_connections_find_the_limit_of_the_account() -> None:
    with CloudProcess(settings=LimitSettings(iot_small_region=True)) as small, bikers(40, at(small)) as load:
        load.connected(40)
        took_s = load.hold(3_000, 5)
        load.settled()
        load.stop()
        counts, codes = load.published, load.codes
        load.assert_every_message_ended_once()
        assert load.resources() == {"IoT Core"}
        assert counts.accepted <= 2_000 + 2_000 * (took_s + 0.1)
        skip_unless_offered(counts)
        assert (counts.accepted + overdue(codes) - 2_000) / took_s == pytest.approx(2_000, rel=0.03)


def test_qos_0_cannot_see_what_is_discarded(iot: CloudProcess) -> None:
    with bikers(1, at(iot), qos=0) as load:
        load.connected(1)
        load.hold(300, 2)
        load.settled()
        load.stop()
        counts = load.published
        assert counts.accepted == counts.offered - counts.unsent > 500
        load.assert_every_message_ended_once()


def test_an_arrival_of_several_messages_is_that_many_publishes(iot: CloudProcess) -> None:
    with bikers(2, at(iot)) as load:
        load.connected(2)
        load.offer(60, batch=3)
        load.until(lambda: load.published.answered >= 60, "60 messages")
        load.offer(0)
        load.settled()
        load.stop()
        assert load.published.offered % 3 == 0
        assert load.published.calls == load.published.offered - load.published.unsent
        load.assert_every_message_ended_once()


# -- Trouble -------------------------------------------------------------------------------------------


def test_a_puback_that_comes_too_late_is_told_and_not_counted_again() -> None:
    with CloudProcess() as cloud, bikers(2, at(cloud)) as load:
        load.connected(2)
        load.offer(40)
        load.until(lambda: load.published.accepted > 10, "some messages")
        os.kill(cloud.pid, signal.SIGSTOP)
        load.until(lambda: load.published.throttled > 10, "messages that nobody acknowledges")
        os.kill(cloud.pid, signal.SIGCONT)
        load.until(lambda: load.codes.get("LatePuback", 0) > 10, "their PUBACKs")
        load.offer(0)
        load.settled()
        load.stop()
        assert load.codes["NoPuback"] >= load.codes["LatePuback"]
        load.assert_every_message_ended_once()


def test_pubacks_that_a_busy_process_has_not_read_yet_are_no_throttles(iot: CloudProcess) -> None:
    with bikers(1, at(iot)) as load:
        load.connected(1)
        load.offer(40)
        load.until(lambda: load.published.accepted > 10, "some messages")
        before = time.monotonic()
        os.kill(iot.pid, signal.SIGSTOP)
        try:
            load.until(lambda: load.told["in_flight"] > 2, "messages in flight")
        finally:
            load.pause()
            os.kill(iot.pid, signal.SIGCONT)
        took_s = time.monotonic() - before
        time.sleep(1.2)
        load.resume()
        load.offer(0)
        load.settled()
        load.stop()
        load.assert_every_message_ended_once()
        if took_s > 0.8:
            pytest.skip(f"the broker was away for {took_s:.1f} s")
        assert load.codes == {}


def test_a_broker_that_dies_fails_what_is_in_flight_and_what_comes_after() -> None:
    with CloudProcess() as cloud, bikers(2, at(cloud)) as load:
        load.connected(2)
        load.offer(40)
        load.until(lambda: load.published.accepted > 10, "some messages")
        os.kill(cloud.pid, signal.SIGSTOP)
        load.until(lambda: load.told["in_flight"] > 5, "messages in flight")
        os.kill(cloud.pid, signal.SIGKILL)
        load.until(lambda: load.codes.get("NotConnected", 0) > 10, "messages without a connection")
        load.until(lambda: load.codes.get("ConnectFailed", 0) >= 2, "another try")
        load.offer(0)
        load.settled()
        load.stop()
        assert load.codes["ConnectionLost"] > 0
        counts = load.published
        assert counts.failed == load.codes["ConnectionLost"] + load.codes["NotConnected"]
        assert load.told["fatal"] is None
        load.assert_every_message_ended_once()


def test_a_broker_that_comes_back_is_found_again() -> None:
    with bikers(2, {"mqtt_url": f"mqtt://127.0.0.1:{(port := free_port())}"}) as load:
        load.offer(40)
        load.until(lambda: load.codes.get("NotConnected", 0) > 10, "messages without a connection")
        for lives in (1, 2):
            before = load.published.accepted
            with CloudProcess(mqtt_port=port):
                load.connected(2 * lives)
                load.until(lambda before=before: load.published.accepted > before + 20, "messages")
        load.offer(0)
        load.settled()
        load.stop()
        load.assert_every_message_ended_once()


def test_a_broker_that_does_not_answer_a_connect_is_told_and_tried_again() -> None:
    with CloudProcess() as cloud:
        os.kill(cloud.pid, signal.SIGSTOP)
        with bikers(1, at(cloud), timeout=1.0) as load:
            load.until(lambda: load.codes.get("ConnectTimeout"), "the end of a connect")
            os.kill(cloud.pid, signal.SIGCONT)
            load.connected(1)
            load.stop()
            assert load.connects.failed >= 1
            load.assert_every_message_ended_once()
        os.kill(cloud.pid, signal.SIGSTOP)
        with bikers(1, at(cloud)) as load:
            load.until(lambda: load.connects.offered, "a connect")
            load.stop()
            assert load.codes == {"Stopped": 1}
            load.assert_every_message_ended_once()


def test_a_connection_whose_socket_is_full_takes_nothing_more_until_it_is_written() -> None:
    with (
        CloudProcess(settings=LimitSettings(enforced=False)) as cloud,
        bikers(1, at(cloud), qos=0, record_bytes=100_000) as load,
    ):
        load.connected(1)
        load.offer(100)
        load.until(lambda: load.published.accepted > 10, "some messages")
        os.kill(cloud.pid, signal.SIGSTOP)
        load.until(lambda: load.told["waiting"] > 20, "messages that wait for the connection")
        assert load.told["in_flight"] == 1
        os.kill(cloud.pid, signal.SIGCONT)
        load.until(lambda: not load.told["waiting"], "messages that go on")
        load.offer(0)
        load.settled()
        load.stop()
        assert load.published.late > 20
        assert load.published.accepted == load.published.calls
        load.assert_every_message_ended_once()


def test_what_is_in_flight_when_the_test_stops_has_an_end() -> None:
    with CloudProcess() as cloud, bikers(1, at(cloud)) as load:
        load.connected(1)
        load.offer(50)
        load.until(lambda: load.published.accepted > 5, "some messages")
        os.kill(cloud.pid, signal.SIGSTOP)
        load.until(lambda: load.told["in_flight"] > 5, "messages in flight")
        load.stop()
        counts = load.published
        assert counts.throttled > 0
        assert load.told["in_flight"] == 0
        # What fell due after the bikers had gone still waits.
        assert counts.answered + counts.unsent + load.told["waiting"] == counts.offered


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        ({}, "need the address of an MQTT broker"),
        ({"mqtt_url": "http://127.0.0.1"}, "mqtt://"),
        ({"mqtt_url": "mqtts://127.0.0.1", "ca": "no-such.pem"}, "no-such.pem"),
    ],
)
def test_an_address_that_cannot_be_used_is_told_once(extra: dict[str, str], told: str) -> None:
    with bikers(3, extra) as load:
        load.until(lambda: load.told.get("fatal"), "a reason")
        load.stop()
        assert told in load.told["fatal"]


# -- A broker by script --------------------------------------------------------------------------------


class Script:
    """A broker that answers its CONNECTs as told, one after the other, and never sends a PUBACK.

    ``answers``: the return code of a CONNACK, or None to close instead. An accepted connection is closed after
    ``publishes`` messages, but for the last, which stays open.
    """

    def __init__(self, answers: list[int | None], publishes: int) -> None:
        self._answers, self._publishes = answers, publishes
        self.messages: list[list[tuple[int, bytes]]] = []
        """Of each accepted connection: first byte and body of each PUBLISH."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(WITHIN_S)
        self.extra = {"mqtt_url": f"mqtt://127.0.0.1:{self._listener.getsockname()[1]}"}
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Script:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(WITHIN_S)
        self._listener.close()

    def _run(self) -> None:
        for number, answer in enumerate(self._answers, 1):
            connection, _ = self._listener.accept()
            with connection, connection.makefile("rb") as packets:
                connection.settimeout(WITHIN_S)
                next_packet(packets)
                if answer is None:
                    continue
                connection.sendall(bytes((0x20, 2, 0, answer)))
                if answer:
                    continue
                self.messages.append([])
                for first, body in iter(lambda packets=packets: next_packet(packets), None):
                    if first >> 4 == 3:
                        self.messages[-1].append((first, body))
                        if number < len(self._answers) and len(self.messages[-1]) == self._publishes:
                            break


def next_packet(packets: BinaryIO) -> tuple[int, bytes] | None:
    """First byte and the rest of the next MQTT packet, without its length; None at the end."""
    first = packets.read(1)
    if not first:
        return None
    length, shift = 0, 0
    while True:
        byte = packets.read(1)[0]
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return first[0], packets.read(length)


def test_a_lost_connection_s_messages_fail_and_are_not_published_again() -> None:
    with Script([0, 0], publishes=10) as script, bikers(1, script.extra) as load:
        load.connected(1)
        load.offer(40)
        load.connected(2)
        load.until(lambda: load.published.throttled >= 10, "messages that were never acknowledged")
        load.offer(0)
        load.settled()
        load.stop()
        load.assert_every_message_ended_once()
    assert load.codes["ConnectionLost"] >= 10
    assert len(script.messages[0]) == 10
    assert not {body for _, body in script.messages[0]} & {body for _, body in script.messages[1]}
    # At QoS 1, without DUP and RETAIN.
    assert {first for one in script.messages for first, _ in one} == {0x32}
    assert load.published.calls >= len(script.messages[0]) + len(script.messages[1])
    assert load.published.accepted == 0


def test_a_connect_that_is_refused_for_now_is_throttled_and_tried_again() -> None:
    with Script([3, None, 0], publishes=1) as script, bikers(1, script.extra) as load:
        load.connected(1)
        load.stop()
        assert (load.connects.throttled, load.connects.failed, load.connects.accepted) == (1, 1, 1)
        assert load.codes == {"ConnectRefused": 1, "ConnectFailed": 1}
        assert load.told["fatal"] is None
        load.assert_every_message_ended_once()


def test_a_connect_that_is_not_authorised_ends_the_test() -> None:
    with Script([5, 5], publishes=1) as script, bikers(1, script.extra) as load:
        load.until(lambda: load.connects.failed == 2, "two refusals")
        load.stop()
        assert "refused the connection: Not authorized" in load.told["fatal"]


# -- TLS and WebSocket ---------------------------------------------------------------------------------


def test_bikers_show_their_certificate_and_refuse_a_stranger_s(tmp_path: Path) -> None:
    files = make_certificates(tmp_path)
    (other := tmp_path / "other").mkdir()
    strangers = make_certificates(other)
    tls = {"port": 0, "certificate": str(files.server_cert), "key": str(files.server_key), "ca": str(files.ca)}
    with CloudProcess(tls=tls) as cloud:
        extra = {"mqtt_url": f"mqtts://127.0.0.1:{cloud.mqtt_tls_port}", "ca": str(files.ca)}
        with bikers(2, {**extra, "cert": str(files.cert), "key": str(files.key)}) as load:
            load.connected(2)
            load.offer(100)
            load.until(lambda: load.published.accepted > 100, "messages")
            load.offer(0)
            load.settled()
            load.stop()
            load.assert_every_message_ended_once()
        with bikers(1, {**extra, "ca": str(strangers.ca)}) as load:
            load.until(lambda: load.told.get("fatal"), "a reason")
            load.stop()
            assert "CERTIFICATE_VERIFY_FAILED" in load.told["fatal"]


@pytest.mark.parametrize("qos", [0, 1])
def test_bikers_over_a_websocket(iot: CloudProcess, qos: int) -> None:
    with bikers(2, {"mqtt_url": f"ws://127.0.0.1:{iot.port}/mqtt"}, qos=qos) as load:
        load.connected(2)
        load.offer(50)
        load.until(lambda: load.published.accepted > 50, "messages")
        load.offer(0)
        load.settled()
        load.stop()
        load.assert_every_message_ended_once()
