"""Three clients that offer PutRecords as fast as they can, each meant for a process of its own.

``generator`` is the load generator as a load test runs it: Locust's runner, users, schedule, meter and statistics.
``boto3`` is the loop of the public Locust files: 500 entries built for each call, and nothing looks at what failed.
``async-kinesis`` is that package's Producer with its limits set out of the way; its throttles still sum up what they
let through in the last second, record by record, so ``async-kinesis-unthrottled`` goes without them: its best case.

All three send the same telemetry, made while they send: making it is part of what a generator costs, and each takes
it from the same :class:`loadtests.payloads.Messages`. Only accepted records count, for all three. Started as
``python -m loadtests.put_clients ROLE URL STREAM RECORDS``; prints one JSON object.

Imports are local, because each role runs where only its own packages are installed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, Self

from loadtests.payloads import Messages

RECORDS_A_CALL = 500
CONNECTIONS = 2
"""Users of the generator: while one waits for its answer the other sends."""
START_MS = 1_800_000_000_000


@dataclass(frozen=True, slots=True)
class Offered:
    """What one client did: ``cpu_s`` is of its process and of the children that it waited for."""

    accepted: int
    cpu_s: float
    wall_s: float
    versions: dict[str, str]


class Stopwatch:
    """CPU and wall seconds since it was made."""

    def __init__(self) -> None:
        self._cpu_s, self._wall_s = cpu_s(), time.perf_counter()

    def stop(self, accepted: int, *packages: str) -> Offered:
        used = cpu_s() - self._cpu_s, time.perf_counter() - self._wall_s
        return Offered(accepted, *used, {name: version(name) for name in packages})


def cpu_s() -> float:
    """CPU seconds of this process, all threads, and of the children that it waited for."""
    children = os.times()
    return time.process_time() + children.children_user + children.children_system


def telemetry() -> Messages:
    return Messages(start_ms=START_MS)


def as_generator(url: str, stream: str, records: int) -> Offered:
    """A GatewayUser a connection, always behind a schedule that asks for more than any process can send."""
    import gevent
    from locust.env import Environment

    from loadtests.generator import Generator
    from loadtests.resources import Resources, Shard
    from loadtests.settings import LoadSettings
    from loadtests.users import GatewayUser

    environment: Any = Environment(user_classes=[GatewayUser])
    generator = Generator(LoadSettings(), Resources(stream, "PROVISIONED", (Shard("shardId-000000000000", "0"),), None))
    environment.alleycat = generator
    runner = environment.create_local_runner()
    runner.start(CONNECTIONS, spawn_rate=CONNECTIONS)
    lane = generator.lane(GatewayUser.operation)

    def accepted() -> int:
        return sum(
            entry.num_requests for (name, _), entry in environment.stats.entries.items() if name.endswith(" accepted")
        )

    def until(number: int) -> int:
        while (done := accepted()) < number:
            if generator.fatal:
                raise RuntimeError(generator.fatal)
            gevent.sleep(0.02)
        return done

    lane.set(0, 1e6, RECORDS_A_CALL, 0.0)
    before = until(RECORDS_A_CALL)
    watch = Stopwatch()
    done = until(before + records) - before
    offered = watch.stop(done, "alleycat", "locust", "gevent", "geventhttpclient", "msgspec")
    lane.set(1, 0.0, 1, 0.0)
    runner.quit()
    generator.close()
    return offered


def as_boto3(url: str, stream: str, records: int) -> Offered:
    import boto3

    client = boto3.client("kinesis", endpoint_url=url)
    messages = telemetry()

    def call() -> int:
        entries = [
            {"Data": message.data, "PartitionKey": message.partition_key} for message in messages.take(RECORDS_A_CALL)
        ]
        answer = client.put_records(StreamName=stream, Records=entries)
        return RECORDS_A_CALL - int(answer["FailedRecordCount"])

    call()
    watch = Stopwatch()
    accepted = sum(call() for _ in range(records // RECORDS_A_CALL))
    return watch.stop(accepted, "boto3", "botocore")


def as_async_kinesis(url: str, stream: str, records: int) -> Offered:
    return asyncio.run(_async_kinesis(url, stream, records, throttled=True))


def as_async_kinesis_unthrottled(url: str, stream: str, records: int) -> Offered:
    return asyncio.run(_async_kinesis(url, stream, records, throttled=False))


class _NoThrottle:
    """In place of the Producer's two throttles, entered for every record; they have no setting that turns them off."""

    def __call__(self, size: int = 1) -> Self:
        return self

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *error: object) -> None:
        pass


async def _async_kinesis(url: str, stream: str, records: int, throttled: bool) -> Offered:
    from kinesis import Producer  # type: ignore[import-not-found, unused-ignore]
    from kinesis.aggregators import SimpleAggregator  # type: ignore[import-not-found, unused-ignore]

    class Bytes(SimpleAggregator):  # type: ignore[misc, unused-ignore]
        """One message a record; it is bytes already, which none of the package's own serializers takes."""

        def serialize(self, item: bytes) -> bytes:
            return item

    accepted = 0

    class Counting(Producer):  # type: ignore[misc, unused-ignore]
        async def process_result(self, result: Any, items: Any) -> None:
            nonlocal accepted
            accepted += len(items) - result["FailedRecordCount"]
            await super().process_result(result, items)

    messages = telemetry()
    producer = Counting(
        stream,
        endpoint_url=url,
        region_name=os.environ["AWS_REGION"],
        processor=Bytes(),
        batch_size=RECORDS_A_CALL,
        put_rate_limit_per_shard=10**9,
        put_bandwidth_limit_per_shard=10**9,
    )
    if not throttled:
        producer.put_rate_throttle = producer.put_bandwidth_throttle = _NoThrottle()
    async with producer:

        async def call() -> None:
            for message in messages.take(RECORDS_A_CALL):
                await producer.put(message.data, partition_key=message.partition_key)
            # The same call sizes as the others: what is buffered leaves now.
            await producer.flush()

        await call()
        accepted = 0
        watch = Stopwatch()
        for _ in range(records // RECORDS_A_CALL):
            await call()
        return watch.stop(accepted, "async-kinesis", "aiobotocore", "botocore")


ROLES: dict[str, Callable[[str, str, int], Offered]] = {
    "generator": as_generator,
    "boto3": as_boto3,
    "async-kinesis": as_async_kinesis,
    "async-kinesis-unthrottled": as_async_kinesis_unthrottled,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=tuple(ROLES))
    parser.add_argument("url")
    parser.add_argument("stream")
    parser.add_argument("records", type=int)
    options = parser.parse_args()
    print(json.dumps(asdict(ROLES[options.role](options.url, options.stream, options.records))))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
