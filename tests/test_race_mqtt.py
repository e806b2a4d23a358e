"""Races whose bikes come by MQTT: through the embedded IoT Core, through another broker, with losses and without."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import BotoCoreError, ClientError
from test_mqtt_producer import Mosquitto, free_port, make_certificates

ROOT = Path(__file__).resolve().parents[1]
ALLEYCAT = [sys.executable, "-c", "from simulator.cli import main; main()"]
MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
# Tables so large that a short race settles at once.
ROOMY = ("--wcu", "3000", "--set", "IndexWriteCapacityUnits=1500")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*ALLEYCAT, "race", "--port", "0", "--mqtt-port", "0", *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        cwd=ROOT,
        env=dict(os.environ),
        check=False,
    )


def race(*arguments: str) -> tuple[int, dict[str, Any]]:
    done = run("--via", "mqtt", "--json", *ROOMY, *arguments)
    assert "Traceback" not in done.stderr
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def check_passed(code: int, told: dict[str, Any], messages: int) -> None:
    assert told["verdict"]["passed"], told["verdict"]
    assert code == 0
    assert told["ledger"]["generated"] == told["ledger"]["delivered"] == messages
    assert (told["ledger"]["lost"], told["ledger"]["duplicates"]) == (0, 0)


@pytest.mark.parametrize("flags", [(), ("--qos", "0"), ("--client", "awsiotsdk"), ("--processes", "2")], ids=str)
def test_a_race_by_mqtt_passes_and_its_results_are_seen(flags: tuple[str, ...]) -> None:
    code, told = race("-u", "40", "-t", "6s", "--window", "2", *flags)
    check_passed(code, told, 240)
    assert told["run"]["via"] == "mqtt"
    assert (told["run"]["client"], told["run"]["qos"]) == (
        "awsiotsdk" if "awsiotsdk" in flags else "aiomqtt",
        0 if "--qos" in flags else 1,
    )
    iot = told["iot"]
    # The bikes, and the screen that hears the results.
    assert iot["Connect.Success"] == 41
    assert iot["PublishIn.Success"] == 240
    assert iot["results_messages"] >= 2
    assert iot["never_visible"] == iot["foreign_records"] == 0
    visible = told["latency_ms"]["visible"]
    assert 0 < visible["p50"] <= visible["p99"] <= visible["max"] < 60_000
    assert {one["name"] for one in told["functions"]} >= {"TumblingWindowFunction", "PublishFunction"}


def test_what_the_rule_cannot_put_on_the_stream_is_in_the_ledger(tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, told = race("-u", "1400", "-t", "4s", "--shards", "1", "--limit", "iot_action_attempts=1", "--out", str(out))
    ledger = told["ledger"]
    assert told["verdict"]["passed"], told["verdict"]
    assert code == 0
    assert ledger["lost"] > 0
    assert ledger["lost_by_reason"] == {"rule action failed": ledger["lost"]}
    assert ledger["generated"] == 5600 == ledger["delivered"] + ledger["lost"]
    assert ledger["throttled"] == ledger["lost"], "each was refused once and not tried again"


def test_a_timestamp_as_key_moves_load_between_shards_and_a_racer_does_not() -> None:
    flags = ("-u", "300", "-t", "10s", "--shards", "4", "--phase", "burst")
    _, by_time = race(*flags, "--partition-key", "timestamp")
    _, by_racer = race(*flags, "--partition-key", "racer")
    (moving,), (steady,) = by_time["balance"], by_racer["balance"]
    # Both are 1 only if the same shard is the hottest of every second, which chance does not do ten times.
    assert moving["hottest_share"] > 1.01 * moving["steady_share"]
    assert moving["worst_share"] > steady["worst_share"]
    assert steady["hottest_share"] < 1.05 * steady["steady_share"]
    assert not any("moves load from shard to shard" in one for one in by_racer["findings"])
    assert by_time["verdict"]["passed"]
    assert by_racer["verdict"]["passed"]


def test_bikers_may_send_less_often() -> None:
    code, told = race("-u", "30", "-t", "7s", "--interval", "3s", "--classes", "1,2")
    # Every third second, and everybody in the last.
    check_passed(
        code, told, 2 * sum((second - index) % 3 == 0 or second == 6 for second in range(7) for index in range(30))
    )


def test_basic_ingest_reaches_the_rule_without_the_broker() -> None:
    code, told = race("-u", "20", "-t", "4s", "--topic", "$aws/rules/alleycatIngest/bikes")
    check_passed(code, told, 80)


def test_bikes_cut_off_and_junk_on_their_topic_cost_nothing(tmp_path: Path) -> None:
    """Half of the bikes are sent away twice in the middle, while strangers publish what is no telemetry."""
    port = free_port()
    flags = ("--via", "mqtt", "--json", "--port", str(port), "--mqtt-port", "0", "-u", "30", "-t", "9s", *ROOMY)
    process = subprocess.Popen(
        [*ALLEYCAT, "race", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    data = boto3.client(
        "iot-data",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="y",
    )
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(ClientError, BotoCoreError):
            if all(data.get_connection(clientId=f"alleycat-{100 + bike}")["connected"] for bike in range(30)):
                break
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(2.5)
    for _ in range(2):
        for bike in range(0, 30, 2):
            with contextlib.suppress(data.exceptions.ResourceNotFoundException):
                data.delete_connection(clientId=f"alleycat-{100 + bike}")
        for junk in (
            b"no json",
            b"\xff\x00",
            b"{}",
            b'{"racerId": 101, "odd": [1, {"deep": null}]}',
            b"x" * 100_000,
        ):
            data.publish(topic="alleycat-publish", qos=1, payload=junk)
        time.sleep(2.0)
    data.close()
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err
    told = json.loads(out)
    assert told["verdict"]["passed"], told["verdict"]
    ledger = told["ledger"]
    assert ledger["generated"] == 270 == ledger["delivered"]
    assert told["iot"]["foreign_records"] == 10
    assert told["iot"]["Connect.Success"] >= 31 + 15
    assert sum(told["rejected"].values()) > 0


@pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")
@pytest.mark.parametrize("client", ["aiomqtt", "awsiotsdk"])
def test_the_same_race_over_mutual_tls_through_mosquitto(tmp_path: Path, client: str) -> None:
    files = make_certificates(tmp_path)
    queues = "max_queued_messages 0\nmax_inflight_messages 0\n"
    with Mosquitto(tmp_path, f"{files.listener}\n{queues}") as broker:
        code, told = race(
            *("-u", "50", "-t", "6s", "--window", "2", "--client", client),
            *("--broker", f"mqtts://localhost:{broker.ports[1]}"),
            *("--ca", str(files.ca), "--cert", str(files.cert), "--key", str(files.key)),
        )
    check_passed(code, told, 300)
    assert told["iot"]["results_messages"] >= 2
    assert told["iot"]["never_visible"] == 0
    # The embedded broker saw none of the bikes: the rule took them from the other one.
    assert told["iot"]["Connect.Success"] == 0


def test_an_account_elsewhere_by_certificate(tmp_path: Path) -> None:
    """`--target aws`, with the embedded cloud in the place of the account and its listener for client certificates."""
    files = make_certificates(tmp_path)
    command = ["cloud", "--port", "0", "--mqtt-port", "0", "--mqtt-tls-port", "0", "--json", *ROOMY]
    tls = ["--ca", str(files.ca), "--cert", str(files.server_cert), "--key", str(files.server_key)]
    cloud = subprocess.Popen([*ALLEYCAT, *command, *tls], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert cloud.stdout is not None
        told = json.loads(cloud.stdout.readline())
        done = subprocess.run(
            [
                *(*ALLEYCAT, "race", "--target", "aws", "--consumers", "local", "--yes", "--json"),
                *("-u", "30", "-t", "4s", "--via", "mqtt", "--broker", f"mqtts://localhost:{told['mqtt_tls_port']}"),
                *("--ca", str(files.ca), "--cert", str(files.cert), "--key", str(files.key)),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=ROOT,
            env={
                **os.environ,
                "AWS_ENDPOINT_URL": told["endpoint_url"],
                "AWS_ACCESS_KEY_ID": "x",
                "AWS_SECRET_ACCESS_KEY": "y",
                "AWS_REGION": "us-east-1",
            },
            check=False,
        )
    finally:
        cloud.send_signal(signal.SIGINT)
        cloud.communicate(timeout=30)
    assert "120 MQTT messages" in done.stderr
    assert done.stdout, done.stderr
    check_passed(done.returncode, json.loads(done.stdout), 120)


# -- bad input -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "code", "told"),
    [
        (("--via", "carrier-pigeon"), 2, "choose kinesis or mqtt"),
        (("--via", "mqtt", "--client", "paho"), 2, "choose aiomqtt or awsiotsdk"),
        (("--via", "mqtt", "--qos", "2"), 2, "--qos"),
        (("--via", "mqtt", "--broker", "http://x"), 2, "--broker 'http://x'"),
        (("--via", "mqtt", "--broker", "mqtt://127.0.0.1:1"), 3, "mqtt://127.0.0.1:1"),
        (("--via", "mqtt", "--cert", "nowhere.pem"), 2, "--cert"),
        (("--via", "mqtt", "--topic", "somewhere/else"), 2, "no rule of the template"),
        (("--via", "mqtt", "--topic", "$aws/rules/nobody/x"), 2, "alleycat-publish (alleycatIngest)"),
        (("--via", "mqtt", "--topic", "a/#"), 2, "wildcards"),
        (("--via", "mqtt", "--processes", "0"), 2, "--processes"),
        (("--via", "mqtt", "--interval", "0s"), 2, "--interval"),
        (("--via", "kinesis", "--broker", "mqtt://x"), 2, "--via mqtt"),
    ],
)
def test_bad_flags_are_one_clear_line(flags: tuple[str, ...], code: int, told: str) -> None:
    done = run("-u", "3", "-t", "2s", *flags)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if not line.startswith(("starting", "connecting"))]
    assert len(lines) == 1
    assert told in lines[0]
