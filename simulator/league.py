"""Runs races on a target: provision, start the consumers, ride, drain, judge, report.

The generator hands each second's messages to the producer a little ahead of time; the producer sends each when it
is due. When the last message is settled, the drain waits until the consumers have read to the tip of every shard
and closed every window; only then is the table read back and judged.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import logging
import random
import signal
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import botocore.session
import msgspec
import numpy as np

from consumers.runtime import Runtime, RuntimeStatistics
from producers import KinesisProducer, Ledger, ProducerError, Record, read_spool
from simulator import verdict
from simulator.cloud.limits import LimitSettings
from simulator.cloud.server import DEFAULT_HOST, DEFAULT_PORT, CloudProcess
from simulator.deployment import Deployment
from simulator.diagnosis import diagnose
from simulator.local_functions import runtime_on
from simulator.progress import MetricsFeed, Progress
from simulator.race import FIRST_RACER_ID, Race, RaceCalendar, plan_race
from simulator.report import Report, utc
from simulator.runtime_metrics import RuntimeMetrics
from simulator.target import Target, TargetError, aws_target, local_target, provision, reaching, require
from simulator.utilisation import limit_use
from simulator.verdict import Allowed, Check, Expectation, Verdict

AHEAD_S = 0.5
"""How long before a second begins its messages are handed to the producer."""
LEAD_S = 1.5
"""Between the consumers being ready and the first message."""
PARTITION_KEYS = ("random", "racer", "race", "class", "timestamp")

Show = Callable[[Progress], None]
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class RaceSettings:
    """What ``alleycat race`` was asked for."""

    racers: int = 1000
    seconds: int = 60
    races: int = 1
    classes: tuple[int, ...] = (1,)
    seed: int = 7
    via: str = "kinesis"
    phase: str = "spread"
    partition_key: str = "racer"
    target: str = "local"
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    limits: LimitSettings = field(default_factory=LimitSettings)
    run_consumers: bool = True
    deadline_s: float = 300.0
    drain_timeout_s: float = 3600.0
    out: Path | None = None


@dataclass(slots=True)
class Outcome:
    """How a run ended: the report, and whether the user cut it short."""

    report: Report
    interrupted: bool


class Interrupts:
    """Ctrl-C: the first asks for the end of the ride, the second cancels everything."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self._task = asyncio.current_task()

    @contextlib.contextmanager
    def listening(self) -> Any:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._hit)
        try:
            yield self
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def _hit(self) -> None:
        if self.first.is_set() and self._task is not None:
            self._task.cancel()
        self.first.set()


def partition_key_of(kind: str, race: Race) -> Callable[[int, int], str]:
    """A function of (biker's index, due ms) that gives the partition key. One of :data:`PARTITION_KEYS`."""
    racers = [str(racer) for racer in race.racer_ids.tolist()]
    if kind == "racer":
        return lambda index, due_ms: racers[index]
    if kind == "race":
        return lambda index, due_ms: str(race.race_id)
    if kind == "class":
        return lambda index, due_ms: str(race.class_id)
    if kind == "timestamp":
        return lambda index, due_ms: str(due_ms)
    draw = random.Random(uuid.uuid4().int)
    return lambda index, due_ms: f"{draw.getrandbits(64):016x}"


async def run(settings: RaceSettings, deployment: Deployment, show: Show) -> Outcome:
    """Ride and judge.

    :raises TargetError: the target cannot be reached or lacks something.
    :raises simulator.cloud.server.CloudError: the embedded cloud cannot be started.
    :raises asyncio.CancelledError: after a second Ctrl-C.
    """
    interrupts = Interrupts()
    with interrupts.listening(), tempfile.TemporaryDirectory(prefix="alleycat-") as scratch:
        async with _opened(settings, deployment) as target:
            run = _Run(settings, deployment, target, show, interrupts, Path(scratch))
            return await run.run()


@contextlib.asynccontextmanager
async def _opened(settings: RaceSettings, deployment: Deployment) -> AsyncIterator[Target]:
    """The target, with everything of the deployment in place."""
    if settings.target == "aws":
        target = aws_target()
        await asyncio.to_thread(require, target, deployment)
        yield target
        return
    cloud = CloudProcess(host=settings.host, port=settings.port, settings=settings.limits)
    await asyncio.to_thread(cloud.start)
    try:
        target = local_target(cloud, deployment.region)
        await asyncio.to_thread(provision, target, deployment)
        yield target
    finally:
        cloud.stop()


class _Run:
    """One call of ``alleycat race``, from the first message to the report."""

    def __init__(
        self,
        settings: RaceSettings,
        deployment: Deployment,
        target: Target,
        show: Show,
        interrupts: Interrupts,
        scratch: Path,
    ) -> None:
        self.settings, self.deployment, self.target = settings, deployment, target
        self.show, self.interrupts, self.scratch = show, interrupts, scratch
        self.stream = deployment.streams[0].name
        self.table = deployment.tables[0].name
        self.spool = (settings.out or scratch) / "spool.jsonl"
        self.logs = (settings.out or scratch) / "functions.log"
        self.logs.parent.mkdir(parents=True, exist_ok=True)
        self.spool.unlink(missing_ok=True)
        self.feed = MetricsFeed()
        self.runtime_metrics = RuntimeMetrics()
        self.progress = Progress(settings.racers * len(settings.classes), settings.seconds * settings.races)
        self.handed_over: dict[int, int] = {}
        self.ledger = Ledger()
        self.latency: dict[str, dict[str, float]] = {}
        self.final_functions: list[dict[str, Any]] = []
        self.rejected: dict[str, int] = {}
        self.settled_s = 0.0

    # -- the course of a run ---------------------------------------------------------------------------

    async def run(self) -> Outcome:
        baseline = await asyncio.to_thread(self._baseline)
        runtime = await asyncio.to_thread(self._runtime)
        started_at = time.time() + LEAD_S
        races = self._races(started_at)
        watching: asyncio.Task[None] | None = None
        with self.logs.open("w", encoding="utf-8") as log:
            self._log = log
            try:
                if runtime is not None:
                    await asyncio.to_thread(runtime.start)
                watching = asyncio.create_task(self._watch(runtime), name="alleycat-watch")
                finished_at = await self._while_alive(self._ride(races))
                drained = await self._while_alive(self._drain(runtime, finished_at))
                self.settled_s = time.time() - finished_at
                self.progress.phase = "judging"
                self.final_functions = self._functions(runtime.statistics()) if runtime is not None else []
                checks = await self._judge(races, baseline, drained)
            finally:
                if watching is not None:
                    watching.cancel()
                    await asyncio.gather(watching, return_exceptions=True)
                if runtime is not None:
                    await asyncio.to_thread(runtime.stop, 5.0)
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            await self._read_metrics()
        if self.target.kind == "local":
            self.rejected = await asyncio.to_thread(self._rejected)
        self.progress.phase = "finished"
        report = self._report(started_at, Verdict(tuple(checks)))
        return Outcome(report, self.interrupts.first.is_set())

    async def _while_alive(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Do ``work``, but not past the death of the embedded cloud: its clients would retry for minutes.

        :raises TargetError: when the cloud died.
        """
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=0.5)
                cloud = self.target.cloud
                if cloud is not None and (code := cloud.poll()) is not None and not task.done():
                    raise TargetError(f"the embedded cloud died (exit code {code}) and its data is gone; run again")
            return task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _races(self, started_at: float) -> list[Race]:
        settings = self.settings
        calendar = RaceCalendar(int(started_at * 1000), settings.seconds)
        return [
            plan_race(
                start_ms=calendar.start_ms(number),
                racers=settings.racers,
                seconds=settings.seconds,
                class_id=class_id,
                seed=settings.seed,
                race_index=number,
                first_racer_id=FIRST_RACER_ID + place * settings.racers,
                phase="burst" if settings.phase == "burst" else "spread",
            )
            for number in range(settings.races)
            for place, class_id in enumerate(settings.classes)
        ]

    def _baseline(self) -> Mapping[int, Mapping[int, int | None]]:
        """Class records from earlier races: only a table that outlives the run can have them."""
        if self.target.kind == "local":
            return {}
        with reaching(self.target, "reading the class records"):
            client = self.target.client("dynamodb")
            return verdict.read_results(client, self.table, (), self.settings.classes).records

    def _runtime(self) -> Runtime | None:
        if not self.settings.run_consumers:
            return None
        return runtime_on(self.target, self.deployment, self.deployment.functions, log=self._write_log)

    def _write_log(self, source: str, line: str) -> None:
        with contextlib.suppress(ValueError):  # a line that comes after the file was closed
            self._log.write(f"{utc(time.time())} {source} {line}\n")

    async def _ride(self, races: Sequence[Race]) -> float:
        """Produce every message; returns when the last was settled."""
        settings = self.settings
        session = botocore.session.Session()
        if self.target.keys:
            session.set_credentials(*self.target.keys.values())
        self.progress.phase = "riding"
        producer = KinesisProducer(
            stream=self.stream,
            region=self.target.region,
            endpoint_url=self.target.endpoint_url,
            session=session,
            deadline_s=settings.deadline_s,
            spool=self.spool,
        )
        try:
            async with producer:
                self.progress.producer = producer
                await self._hand_over(races, producer)
                # Nothing is generated any more: a Ctrl-C during the flush leaves the rest to the deadline.
                await producer.flush()
        except ProducerError as error:
            raise TargetError(str(error)) from None
        finally:
            self.ledger = producer.statistics().ledger
            found = producer.latencies()
            self.latency = {
                name: {"p50": one.p50, "p99": one.p99, "max": one.max}
                for name, one in (("send_lateness", found.send_lateness), ("accepted", found.accepted))
            }
            self.progress.producer = None
            self.progress.ledger = self.ledger
        return time.time()

    async def _hand_over(self, races: Sequence[Race], producer: KinesisProducer) -> None:
        by_start: dict[int, list[Race]] = {}
        for race in races:
            by_start.setdefault(race.start_ms, []).append(race)
        for start_ms, together in sorted(by_start.items()):
            keys = [partition_key_of(self.settings.partition_key, race) for race in together]
            self.progress.race_id = together[0].race_id
            for second in range(1, self.settings.seconds + 1):
                if not await self._until(start_ms / 1000 + second - 1 - AHEAD_S):
                    return
                for race, key in zip(together, keys, strict=True):
                    await producer.put_many(_records(race, second, key))
                    self.handed_over[id(race)] = second
                self.progress.second += 1
        self.progress.second = self.settings.seconds * self.settings.races

    async def _until(self, at: float) -> bool:
        """Wait for the time ``at``; False when the ride was interrupted."""
        delay = at - time.time()
        if delay > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.interrupts.first.wait(), delay)
        return not self.interrupts.first.is_set()

    async def _drain(self, runtime: Runtime | None, finished_at: float) -> bool:
        """Wait until the consumers have caught up; False when they did not in time."""
        self.progress.phase = "draining"
        self.progress.finished_at = finished_at
        if runtime is None:
            return await self._drain_elsewhere(finished_at)
        give_up = finished_at + self.settings.drain_timeout_s
        while not runtime.caught_up(finished_at):
            if time.time() > give_up:
                return False
            await asyncio.sleep(0.1)
        return True

    async def _drain_elsewhere(self, finished_at: float) -> bool:
        """Functions that run in Lambda cannot be asked; the table is read until it stops changing for a minute."""
        quiet_since, before = time.time(), -1
        while time.time() < finished_at + self.settings.drain_timeout_s:
            counted = await asyncio.to_thread(self._count_items)
            if counted != before:
                quiet_since, before = time.time(), counted
            if time.time() - quiet_since > 60:
                return True
            await asyncio.sleep(5)
        return False

    def _count_items(self) -> int:
        with reaching(self.target, "reading the table"):
            client = self.target.client("dynamodb")
            pages = client.get_paginator("query").paginate(
                TableName=self.table,
                KeyConditionExpression="PK = :pk",
                ExpressionAttributeValues={":pk": {"S": f"class-{self.settings.classes[0]}"}},
                Select="COUNT",
            )
            return sum(page["Count"] for page in pages)

    # -- the verdict -----------------------------------------------------------------------------------

    async def _judge(
        self, races: Sequence[Race], baseline: Mapping[int, Mapping[int, int | None]], drained: bool
    ) -> list[Check]:
        lost = _lost_messages(self.spool)
        expectations = [_expectation(race, self.handed_over.get(id(race), 0), lost) for race in races]
        generated = sum(self.handed_over.get(id(race), 0) * len(race.racer_ids) for race in races)
        ledger = self.ledger
        accounted = ledger.delivered + ledger.lost
        off = abs(generated - accounted) + abs(generated - ledger.generated)
        checks = [Check("ledger", generated, min(accounted, generated), max(generated - accounted, 0), off)]
        if not drained:
            waited = f"consumers had not caught up {self.settings.drain_timeout_s:.0f} s after the finish"
            checks.append(Check("drained", 1, 0, 1, 0, (f"{waited}; --drain-timeout waits longer",)))

        def read() -> verdict.StoredResults:
            with reaching(self.target, "reading the results"):
                client = self.target.client("dynamodb", retries={"mode": "standard", "total_max_attempts": 30})
                return verdict.read_results(
                    client, self.table, sorted({race.race_id for race in races}), self.settings.classes
                )

        stored = await asyncio.to_thread(read)
        return checks + verdict.judge(expectations, stored, baseline)

    # -- watching --------------------------------------------------------------------------------------

    async def _watch(self, runtime: Runtime | None) -> None:
        """Once a second, gather what the terminal shows. Nothing that goes wrong here may stop a race."""
        table_reader = self.target.client("dynamodb", retries={"mode": "standard", "total_max_attempts": 1})
        while True:
            began = time.time()
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
                await self._read_metrics()
            progress = self.progress
            if progress.producer is not None:
                progress.ledger = progress.producer.statistics().ledger
            if runtime is not None:
                statistics = runtime.statistics()
                progress.functions = self._functions(statistics)
                progress.behind = _behind(statistics)
                with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
                    await self._tell_metrics(statistics)
            progress.limits = limit_use(self.feed.recent(began - 4), self.deployment)
            lately = limit_use(self.feed.recent(began - 10), self.deployment)
            progress.findings = diagnose(lately, 10.0, progress.functions, self.deployment)
            if int(began) % 3 == 0 and progress.phase in ("riding", "draining"):
                progress.leaders = await asyncio.to_thread(self._leaders, table_reader, progress.leaders)
            self.show(progress)
            await asyncio.sleep(max(0.2, 1.0 - (time.time() - began)))

    def _leaders(self, client: Any, before: list[tuple[int, float]]) -> list[tuple[int, float]]:
        """The live board, read from the table as a screen would: one eventually consistent GetItem."""
        try:
            race_id = self.progress.race_id
            item = client.get_item(
                TableName=self.table, Key={"PK": {"S": f"race-{race_id}"}, "SK": {"S": "results"}}
            ).get("Item")
            if item is None:
                return before
            found: dict[str, float] = msgspec.json.decode(item["results"]["S"])
        except Exception as error:  # a board that cannot be read is shown as it was
            logging.getLogger("alleycat").debug("board: %s", error)
            return before
        return sorted(((int(racer), output) for racer, output in found.items()), key=lambda one: -one[1])[:10]

    async def _read_metrics(self) -> None:
        if self.target.cloud is None:
            return
        url = f"{self.target.endpoint_url}/_alleycat/metrics?since={self.feed.newest() - 2}"
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
            session.get(url) as answer,
        ):
            self.feed.merge(msgspec.json.decode(await answer.read()))

    async def _tell_metrics(self, statistics: RuntimeStatistics) -> None:
        """AWS/Lambda for whoever asks the embedded cloud's CloudWatch during the race."""
        if self.target.cloud is None:
            return
        body = msgspec.json.encode(self.runtime_metrics.body(statistics, time.time()))
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            await session.post(f"{self.target.endpoint_url}/_alleycat/metrics", data=body)

    def _functions(self, statistics: RuntimeStatistics) -> list[dict[str, Any]]:
        by_name = {function.name: function.logical_id for function in self.deployment.functions}
        return [
            {
                "name": by_name.get(name, name),
                "invocations": one.invocations,
                "errors": one.errors,
                "timeouts": one.timeouts,
                "duration_ms": {
                    "p50": round(one.duration_ms_p50, 3),
                    "p99": round(one.duration_ms_p99, 3),
                    "max": round(one.duration_ms_max, 3),
                },
                "iterator_age_ms": round(one.iterator_age_ms),
                "iterator_age_ms_max": round(one.iterator_age_ms_max),
                "cold_starts": one.cold_starts,
                "concurrency_max": one.concurrency_max,
                "records": one.records_processed,
                **({"last_error": f"{one.last_error.type}: {one.last_error.message}"} if one.last_error else {}),
            }
            for name, one in statistics.functions.items()
        ]

    # -- the report ------------------------------------------------------------------------------------

    def _report(self, started_at: float, judged: Verdict) -> Report:
        settings = self.settings
        uses = limit_use(self.feed.recent(0), self.deployment)
        window_s = max(1.0, time.time() - started_at)
        return Report(
            run={
                "racers": settings.racers,
                "run_time_s": settings.seconds,
                "races": settings.races,
                "classes": list(settings.classes),
                "via": settings.via,
                "phase": settings.phase,
                "partition_key": settings.partition_key,
                "seed": settings.seed,
                "target": settings.target,
                "interrupted": self.interrupts.first.is_set(),
                "started_at": utc(started_at),
                "settled_s": round(self.settled_s, 1),
            },
            deployment={
                "config_env": self.deployment.config_env,
                "parameters": dict(self.deployment.shown_parameters()),
            },
            ledger=self.ledger.to_json(),
            latency_ms=self.latency,
            limits=uses,
            functions=self.final_functions,
            verdict=judged,
            findings=[str(one) for one in diagnose(uses, window_s, self.final_functions, self.deployment)],
            extra={"rejected": self.rejected},
        )

    def _rejected(self) -> dict[str, int]:
        """Records that were no telemetry and that the functions kept in S3, by reason."""
        reasons: Counter[str] = Counter()
        with reaching(self.target, "reading the rejected records"):
            client = self.target.client("s3")
            for bucket in self.deployment.buckets:
                for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket.name, Prefix="rejected/"):
                    for item in page.get("Contents", ()):
                        body = client.get_object(Bucket=bucket.name, Key=item["Key"])["Body"].read()
                        lines = gzip.decompress(body).splitlines()
                        reasons.update(str(msgspec.json.decode(line)["reason"]) for line in lines)
        return dict(reasons)


def _records(race: Race, second: int, key: Callable[[int, int], str]) -> list[Record]:
    """One second's messages in due order. Each biker's stay in order whatever the partition key."""
    messages = race.messages(second)
    due_ms = race.due_ms(second).tolist()
    racers = race.racer_ids.tolist()
    return [
        Record(messages[index], key(index, due_ms[index]), due_ms[index] / 1000, racers[index])
        for index in race.send_order.tolist()
    ]


def _lost_messages(spool: Path) -> dict[tuple[int, int], set[int]]:
    """The seconds that were counted lost, by (race id, racer id)."""
    lost: dict[tuple[int, int], set[int]] = {}
    if spool.exists():
        for record in read_spool(spool):
            message = msgspec.json.decode(record.data)
            lost.setdefault((message["raceId"], message["racerId"]), set()).add(message["second"])
    return lost


def _expectation(race: Race, seconds: int, lost: Mapping[tuple[int, int], set[int]]) -> Expectation:
    """What ``race`` must leave behind when its first ``seconds`` were handed over.

    A lost message may have been stored after all when its last attempt got no answer, so either is allowed.
    """
    truth = race.truth
    counted = np.zeros(truth.output_by_second.shape, dtype=bool)
    counted[:seconds] = True
    racers = race.racer_ids.tolist()
    missing: dict[int, list[int]] = {}
    for index, racer in enumerate(racers):
        for second in lost.get((race.race_id, racer), ()):
            counted[second - 1, index] = False
            missing.setdefault(index, []).append(int(truth.output_by_second[second - 1, index]))
    certain = truth.best_among(counted).tolist()
    best: dict[int, Allowed] = {}
    final: dict[int, Allowed] = {}
    for index, racer in enumerate(racers):
        sure = certain[index] if certain[index] >= 0 else None
        values = {sure, *(one for one in missing.get(index, ()) if sure is None or one > sure)}
        if values != {None}:
            best[racer] = tuple(values)
        if seconds == race.seconds:
            last = int(truth.final_hundredths[index])
            final[racer] = (last,) if counted[-1, index] else (None, last)
    return Expectation(race.race_id, race.class_id, best, final)


def _behind(statistics: RuntimeStatistics) -> int:
    """The largest iterator age now, in ms.

    A shard is not read while its batch is tried again, so how far the last invocation was behind counts too.
    """
    shards = [shard.millis_behind or 0 for one in statistics.mappings.values() for shard in one.shards.values()]
    functions = [round(one.iterator_age_ms) for one in statistics.functions.values()]
    return max([*shards, *functions], default=0)
