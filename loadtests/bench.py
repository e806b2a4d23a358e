"""``make bench``: how fast the parts are, beside their peers in the same run.

Every figure is a median of rounds on whatever machine this is, printed with versions. Servers are driven by one
connection with one call at a time, so none of them uses more than a core; rates are by the wall clock. A peer
that needs longer than the budget to be filled to a level is reported as far as it got. Absolute numbers do not
travel between machines; ratios in one run do.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import http.client
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from loadtests.bike_bench import bench_bikes, bench_fleet, bench_race
from loadtests.generator_bench import bench_generators
from loadtests.limit_cost import dynamodb_cost, kinesis_cost
from loadtests.mqtt_bench import bench_brokers
from loadtests.peers import Peer, alleycat, installed, peer
from loadtests.plan_bench import bench_plans

RECORDS_A_CALL = 500
RECORD_BYTES = 170
LEVELS = (10_000, 300_000, 3_000_000)
ROUND_CALLS = 10
STREAM = "bench"
ROOT = Path(__file__).resolve().parents[1]
PARTS = ("local", "limits", "producers", "generator", "mqtt", "plans", "servers")


class Wire:
    """A lean client: prepared bodies over one connection, so that the server is what is measured."""

    def __init__(self, server: Peer) -> None:
        self.connection = http.client.HTTPConnection(server.host, server.port, timeout=120)

    def call(self, operation: str, body: bytes) -> bytes:
        headers = {
            "X-Amz-Target": f"Kinesis_20131202.{operation}",
            "Content-Type": "application/x-amz-json-1.1",
            "X-Amz-Date": "20260101T000000Z",
            "Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/kinesis/aws4_request, "
            "SignedHeaders=host;x-amz-date;x-amz-target, Signature=" + "0" * 64,
        }
        self.connection.request("POST", "/", body, headers)
        answer = self.connection.getresponse()
        told = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{operation}: HTTP {answer.status}: {told[:200]!r}")
        return told

    def ask(self, operation: str, **members: Any) -> Any:
        return json.loads(self.call(operation, json.dumps(members).encode()) or b"{}")


def put_body() -> bytes:
    """One PutRecords of 500 records of 170 bytes with a thousand bikers' keys."""
    data = base64.b64encode(os.urandom(RECORD_BYTES)).decode()
    records = [{"Data": data, "PartitionKey": str(100 + index)} for index in range(RECORDS_A_CALL)]
    return json.dumps({"StreamName": STREAM, "Records": records}).encode()


def measure(server: Peer, budget_s: float) -> list[tuple[int, float, float]]:
    """``(stored, records/s, GetRecords(1000) ms)`` at each level that the budget reaches."""
    wire = Wire(server)
    wire.ask("CreateStream", StreamName=STREAM, ShardCount=1)
    while wire.ask("DescribeStream", StreamName=STREAM)["StreamDescription"]["StreamStatus"] != "ACTIVE":
        time.sleep(0.05)
    body = put_body()
    stored, found = 0, []
    latest = ""
    for level in LEVELS:
        # The first calls of a connection and a process are not what is asked for.
        answer = wire.call("PutRecords", body)
        stored += RECORDS_A_CALL
        give_up = time.monotonic() + budget_s
        while stored < level and time.monotonic() < give_up:
            answer = wire.call("PutRecords", body)
            stored += RECORDS_A_CALL
        latest = json.loads(answer)["Records"][-1]["SequenceNumber"]
        rates = []
        for _ in range(5):
            began = time.perf_counter()
            calls = 0
            while calls < ROUND_CALLS and time.perf_counter() - began < 5:
                wire.call("PutRecords", body)
                calls += 1
            rates.append(calls * RECORDS_A_CALL / (time.perf_counter() - began))
            stored += calls * RECORDS_A_CALL
        found.append((stored, statistics.median(rates), read_ms(wire, latest)))
        if stored < level:
            break
    return found


def read_ms(wire: Wire, after: str) -> float:
    """Median of GetRecords(1000) from ``after``, at a pace that no read limit refuses."""
    iterator = wire.ask(
        "GetShardIterator",
        StreamName=STREAM,
        ShardId="shardId-000000000000",
        ShardIteratorType="AFTER_SEQUENCE_NUMBER",
        StartingSequenceNumber=after,
    )["ShardIterator"]
    request = json.dumps({"ShardIterator": iterator, "Limit": 1000}).encode()
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        wire.call("GetRecords", request)
        taken.append((time.perf_counter() - began) * 1000)
        time.sleep(0.25)
    return statistics.median(taken)


def bench_servers(budget_s: float) -> None:
    print("\nPutRecords (500 x 170 B, one shard) and GetRecords(1000), by records already stored")
    print(f"{'server':<18}{'stored':>10}{'records/s':>12}{'GetRecords ms':>15}")
    results: dict[str, list[tuple[int, float, float]]] = {}

    def show(name: str, server: Peer) -> None:
        try:
            results[name] = measure(server, budget_s)
        except (RuntimeError, OSError, KeyError, http.client.HTTPException) as error:
            print(f"{name:<18} failed: {error}")
            return
        for stored, rate, read in results[name]:
            print(f"{name:<18}{stored:>10,}{rate:>12,.0f}{read:>15.2f}", flush=True)
        if len(results[name]) < len(LEVELS) or results[name][-1][0] < LEVELS[-1]:
            print(f"{name:<18} was not filled further within {budget_s:.0f} s")

    with alleycat() as ours:
        show("alleycat", ours)
    for name, command, environment in installed():
        with peer(name, command, environment) as other:
            if other is None:
                print(f"{name:<18} did not start")
            else:
                show(name, other)
    mine = results.pop("alleycat", [])
    for place, level in enumerate(LEVELS[:2]):
        best = max((rows[place][1] for rows in results.values() if len(rows) > place), default=0)
        if best and len(mine) > place:
            print(f"alleycat / best peer at {level:,} stored: {mine[place][1] / best:.1f}x")
    if len(mine) == len(LEVELS):
        print(f"alleycat at {LEVELS[-1]:,} / at {LEVELS[0]:,} stored: {mine[-1][1] / mine[0][1]:.2f}")


def rounds(name: str, unit: str, count: int, work: Callable[[], Any], times: int = 5) -> float:
    """Median rate of ``work``, which handles ``count`` things."""
    work()
    rates = []
    for _ in range(times):
        began = time.process_time()
        work()
        rates.append(count / max(time.process_time() - began, 1e-9))
    rate = statistics.median(rates)
    print(f"{name:<48}{rate:>12,.0f} {unit}")
    return rate


def bench_encoder() -> None:
    from simulator.race import plan_race

    race = plan_race(start_ms=1_800_000_000_000, racers=1000, seconds=300)

    def encode() -> None:
        for second in range(1, 201):
            race.messages(second)

    rounds("race encoder, 1,000 bikers", "messages/CPU s", 200_000, encode)


def bench_handler() -> None:
    from consumers.tumbling_window import handler
    from simulator.race import plan_race

    race = plan_race(start_ms=1_800_000_000_000, racers=1000, seconds=60)
    events = []
    for second in range(1, 61):
        records = [
            {
                "kinesis": {
                    "kinesisSchemaVersion": "1.0",
                    "partitionKey": "k",
                    "sequenceNumber": str(10**55 + second * 1000 + index),
                    "data": base64.b64encode(message).decode(),
                    "approximateArrivalTimestamp": 1_800_000_000.0,
                },
                "eventID": f"shardId-000000000000:{second}",
            }
            for index, message in enumerate(race.messages(second))
        ]
        window = {"start": "2027-01-15T08:00:00Z", "end": "2027-01-15T08:01:00Z"}
        events.append(
            {
                "Records": records,
                "window": window,
                "shardId": "shardId-000000000000",
                "isFinalInvokeForWindow": False,
                "isWindowTerminatedEarly": False,
            }
        )

    # A window that is not final touches neither the table nor the time left.
    context: Any = None

    def handle() -> None:
        state: Any = {}
        for event in events:
            state = handler({**event, "state": state}, context)["state"]

    rounds("tumbling-window handler, batches of 1,000", "records/CPU s", 60_000, handle)


def bench_producers() -> None:
    """Our producer and a plain boto3 loop, each in a process of its own, against the same endpoint."""
    print("\nAccepted records per CPU second of the client (calls of 500 x 170 B)")
    rates: dict[str, list[float]] = {"boto3": [], "ordered": [], "unordered": []}
    with alleycat() as ours:
        Wire(ours).ask("CreateStream", StreamName=STREAM, ShardCount=1)
        url = f"http://{ours.host}:{ours.port}"
        for _ in range(3):
            for role in rates:
                done = subprocess.run(
                    [sys.executable, "-m", "loadtests.bench", "--role", role, "--url", url],
                    capture_output=True,
                    text=True,
                    check=True,
                    cwd=ROOT,
                    env={**os.environ, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"},
                )
                rates[role].append(float(done.stdout))
    medians = {role: statistics.median(found) for role, found in rates.items()}
    print(f"{'plain boto3 loop':<48}{medians['boto3']:>12,.0f} records/CPU s")
    for role in ("ordered", "unordered"):
        ratio = medians[role] / medians["boto3"]
        print(f"{f'KinesisProducer, {role}':<48}{medians[role]:>12,.0f} records/CPU s, {ratio:.1f}x boto3")


def bench_limits() -> None:
    print("\nWhat the limits cost: CPU time with them over CPU time without, median of pairs")
    print(f"{'PutRecords (500 x 170 B)':<48}{kinesis_cost(put_body()):>12.3f}")
    print(f"{'PutItem (1 KB)':<48}{dynamodb_cost():>12.3f}")


def as_boto3(url: str, calls: int = 200) -> float:
    import boto3

    client = boto3.client("kinesis", region_name="us-east-1", endpoint_url=url)
    data = [os.urandom(RECORD_BYTES) for _ in range(RECORDS_A_CALL)]
    records = [{"Data": one, "PartitionKey": str(100 + place)} for place, one in enumerate(data)]
    client.put_records(StreamName=STREAM, Records=records)
    began = time.process_time()
    accepted = 0
    for _ in range(calls):
        answer = client.put_records(StreamName=STREAM, Records=records)
        accepted += RECORDS_A_CALL - answer["FailedRecordCount"]
    return accepted / (time.process_time() - began)


def as_alleycat(url: str, ordered: bool, calls: int = 600) -> float:
    from producers import KinesisProducer, Record

    async def send() -> float:
        data = [os.urandom(RECORD_BYTES) for _ in range(RECORDS_A_CALL)]
        keys = [str(100 + biker) for biker in range(50_000)]
        async with KinesisProducer(
            stream=STREAM, region="us-east-1", endpoint_url=url, max_buffered_records=20_000
        ) as producer:
            began = time.process_time()
            for call in range(calls):
                due = time.time()
                # Enough bikers that order by biker never leaves a call short.
                base = call * RECORDS_A_CALL % 50_000
                await producer.put_many(
                    [
                        Record(one, keys[base + place], due, base + place if ordered else None)
                        for place, one in enumerate(data)
                    ]
                )
            await producer.flush()
            used = time.process_time() - began
            return producer.statistics().ledger.delivered / used

    return asyncio.run(send())


def versions() -> str:
    from importlib.metadata import version

    names = ("alleycat", "granian", "msgspec", "botocore", "aiohttp", "numpy", "moto", "aiomqtt", "paho-mqtt", "awscrt")
    return ", ".join(f"{name} {version(name)}" for name in names)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--budget", type=float, default=30.0, help="seconds to fill a server to a level")
    parser.add_argument("--only", choices=PARTS, help="run a part")
    parser.add_argument("--role", choices=("boto3", "ordered", "unordered"), help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        rate = as_boto3(options.url) if options.role == "boto3" else as_alleycat(options.url, options.role == "ordered")
        print(rate)
        return
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}; {versions()}")
    if options.only in (None, "local"):
        bench_encoder()
        bench_handler()
    if options.only in (None, "limits"):
        bench_limits()
    if options.only in (None, "producers"):
        bench_producers()
    if options.only in (None, "generator"):
        bench_generators(lambda server: Wire(server).ask)
    if options.only in (None, "mqtt"):
        bench_brokers()
        bench_bikes()
        bench_race()
        bench_fleet()
    if options.only in (None, "plans"):
        bench_plans()
    if options.only in (None, "servers"):
        bench_servers(options.budget)


if __name__ == "__main__":
    main()
