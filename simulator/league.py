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
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import msgspec
import numpy as np

from consumers.runtime import Runtime, RuntimeStatistics
from producers import Ledger, ProducerError, TlsSettings
from producers.mqtt_settings import Broker
from simulator import accounting, verdict
from simulator.accounting import Account
from simulator.cloud.limits import LimitSettings, changed_settings
from simulator.cloud.server import DEFAULT_HOST, DEFAULT_PORT, CloudProcess
from simulator.deployment import Deployment
from simulator.diagnosis import Finding, diagnose, hot_shards
from simulator.expectation import Mask, sends_of
from simulator.function_report import function_report, largest_iterator_age_ms
from simulator.interrupts import Interrupts
from simulator.local_functions import runtime_on
from simulator.progress import MetricsFeed, Progress
from simulator.race import FIRST_RACER_ID, Race, RaceCalendar, plan_race
from simulator.report import Report, utc
from simulator.results_feed import Feed, listening
from simulator.riders import broker_options, open_producer, partition_key_of, records_of
from simulator.runtime_metrics import RuntimeMetrics
from simulator.target import Target, TargetError, aws_target, local_target, provision, reaching, require
from simulator.utilisation import MetricsView, balances, limit_use
from simulator.verdict import Check, Verdict
from simulator.visibility import Visibility, percentiles

AHEAD_S = 0.5
"""How long before a second begins its messages are handed to the producer."""
LEAD_S = 1.5
SUBSCRIBE_TIMEOUT_S = 10.0
"""How long the race waits for its subscription to the results; then it rides without hearing them."""
LAST_RESULTS_S = 5.0
"""How long after the drain the last results message may take."""
"""Between the consumers being ready and the first message."""

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
    mqtt_port: int = 0
    client: str = "aiomqtt"
    qos: int = 1
    topic: str = "alleycat-publish"
    results_topic: str = "alleycat-subscribe"
    broker: str | None = None
    tls: TlsSettings | None = None
    connect_rate: float = 500.0
    interval_s: int = 1
    processes: int = 1
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


async def run(settings: RaceSettings, deployment: Deployment, show: Show, *, with_board: bool = True) -> Outcome:
    """Ride and judge. Looks at the live board take read units of the table; they are left out without ``with_board``.

    :raises TargetError: the target cannot be reached or lacks something.
    :raises simulator.cloud.server.CloudError: the embedded cloud cannot be started.
    :raises asyncio.CancelledError: after a second Ctrl-C.
    """
    interrupts = Interrupts()
    with interrupts.listening(), tempfile.TemporaryDirectory(prefix="alleycat-") as scratch:
        async with _opened(settings, deployment) as target:
            run = _Run(settings, deployment, target, show, interrupts, Path(scratch), with_board)
            return await run.run()


@contextlib.asynccontextmanager
async def _opened(settings: RaceSettings, deployment: Deployment) -> AsyncIterator[Target]:
    """The target, with everything of the deployment in place."""
    if settings.target == "aws":
        target = aws_target()
        await asyncio.to_thread(require, target, deployment)
        yield target
        return
    cloud = CloudProcess(
        host=settings.host,
        port=settings.port,
        mqtt_port=settings.mqtt_port,
        settings=settings.limits,
        broker=broker_options(settings.broker, settings.tls),
    )
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
        with_board: bool,
    ) -> None:
        self.settings, self.deployment, self.target = settings, deployment, target
        self.show, self.interrupts, self.scratch = show, interrupts, scratch
        self.with_board = with_board
        self.stream = deployment.streams[0].name
        self.table = deployment.tables[0].name
        self.spool = (settings.out or scratch) / "spool.jsonl"
        self.logs = (settings.out or scratch) / "functions.log"
        self.logs.parent.mkdir(parents=True, exist_ok=True)
        self.spool.unlink(missing_ok=True)
        self.feed = MetricsFeed()
        self.metrics: dict[str, Any] = {"metrics": []}
        self.runtime_metrics = RuntimeMetrics()
        self.progress = Progress(settings.racers * len(settings.classes), settings.seconds * settings.races)
        # Which messages there are, and which were handed to the producer, by id(race).
        self.planned: dict[int, Mask] = {}
        self.sent: dict[int, Mask] = {}
        self.races: list[Race] = []
        self.stands_since = self.started_at = self.judged_at = 0.0
        self.visibility: Visibility | None = None
        self.account = Account(Ledger(), {}, ())
        self.heard: Feed | None = None
        self.ledger = Ledger()
        self.latency: dict[str, dict[str, float]] = {}
        self.final_functions: list[dict[str, Any]] = []
        self.rejected: dict[str, int] = {}
        self.settled_s = 0.0

    # -- the course of a run ---------------------------------------------------------------------------

    async def run(self) -> Outcome:
        self.stands_since = time.time()
        baseline = await asyncio.to_thread(self._baseline)
        runtime = await asyncio.to_thread(self._runtime)
        watching: asyncio.Task[None] | None = None
        with self.logs.open("w", encoding="utf-8") as log:
            self._log = log
            try:
                if runtime is not None:
                    await asyncio.to_thread(runtime.start)
                watching = asyncio.create_task(self._watch(runtime), name="alleycat-watch")
                async with self._listening():
                    finished_at = await self._while_alive(self._ride())
                    drained = await self._while_alive(self._drain(runtime, finished_at))
                    self.settled_s = time.time() - finished_at
                    self.progress.phase = "judging"
                    # What is read back from here on is not the race's.
                    with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
                        await self._read_metrics()
                    self.metrics, self.judged_at = self.feed.recent(0), time.time()
                    if runtime is not None:
                        self.final_functions = function_report(runtime.statistics(), self.deployment)
                    checks = await self._while_alive(self._judge(baseline, drained))
            finally:
                if watching is not None:
                    watching.cancel()
                    await asyncio.gather(watching, return_exceptions=True)
                if runtime is not None:
                    await asyncio.to_thread(runtime.stop, 5.0)
        if self.target.kind == "local":
            self.rejected = await asyncio.to_thread(self._rejected)
        self.progress.phase = "finished"
        report = self._report(Verdict(tuple(checks)))
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

    def _plan(self, started_at: float) -> None:
        self.started_at = started_at
        self.races = self._races(started_at)
        for race in self.races:
            self.planned[id(race)] = sends_of(race, self.settings.interval_s)
            self.sent[id(race)] = np.zeros_like(self.planned[id(race)])
        self.visibility = Visibility(self.races, self.planned)

    @contextlib.asynccontextmanager
    async def _listening(self) -> AsyncIterator[None]:
        """Hear what screens hear, from before the first message; on AWS only with a broker that was named."""
        settings = self.settings
        url = settings.broker or self.target.mqtt_url
        if url is None:
            yield
            return

        def seen(payload: bytes, at_s: float) -> None:
            if self.visibility is not None:
                self.visibility.seen(payload, at_s)

        tls = settings.tls.context(Broker.of(url)) if settings.tls is not None else None
        name = f"alleycat-screen-{uuid.uuid4().hex[:8]}"
        async with listening(url, settings.results_topic, seen, client_id=name, tls=tls) as feed:
            assert feed.subscribed is not None
            self.heard = feed
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(feed.subscribed.wait(), SUBSCRIBE_TIMEOUT_S)
            yield

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

    async def _ride(self) -> float:
        """Connect, plan, and produce every message; returns when the last was settled."""
        settings = self.settings
        self.progress.phase = "connecting" if settings.via == "mqtt" else "riding"
        racer_ids = range(FIRST_RACER_ID, FIRST_RACER_ID + settings.racers * len(settings.classes))
        producer = open_producer(settings, self.stream, self.target, racer_ids, self.spool)
        try:
            async with producer:
                # A thousand bikes need a while to connect; the races begin when they are there.
                self._plan(time.time() + LEAD_S)
                self.progress.producer = producer
                self.progress.phase = "riding"
                await self._hand_over(self.races, producer)
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

    async def _hand_over(self, races: Sequence[Race], producer: Any) -> None:
        settings = self.settings
        by_start: dict[int, list[Race]] = {}
        for race in races:
            by_start.setdefault(race.start_ms, []).append(race)
        for start_ms, together in sorted(by_start.items()):
            keys = [partition_key_of(settings.partition_key, race) for race in together]
            self.progress.race_id = together[0].race_id
            for second in range(1, settings.seconds + 1):
                if not await self._until(start_ms / 1000 + second - 1 - AHEAD_S):
                    return
                for race, key in zip(together, keys, strict=True):
                    sends = self.planned[id(race)][second - 1]
                    await producer.put_many(records_of(race, second, key, sends))
                    self.sent[id(race)][second - 1] = sends
                self.progress.second += 1
        self.progress.second = settings.seconds * settings.races

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
        # What functions of the stream wrote last, functions of the table's stream read after that.
        since = finished_at
        for _ in range(2):
            while not runtime.caught_up(since):
                if time.time() > give_up:
                    return False
                await asyncio.sleep(0.1)
            since = time.time()
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

    async def _judge(self, baseline: Mapping[int, Mapping[int, int | None]], drained: bool) -> list[Check]:
        races = self.races
        account = self.account = await asyncio.to_thread(self._account)
        self.ledger = self.progress.ledger = account.ledger
        checks = [account.check(sum(int(self.sent[id(race)].sum()) for race in races))]
        self.latency["visible"] = await self._visible()
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
        return checks + verdict.judge(account.expectations, stored, baseline)

    def _account(self) -> Account:
        if self.settings.via == "kinesis":
            return accounting.of_kinesis(self.races, self.sent, self.spool, self.ledger)
        return accounting.of_mqtt(
            self.races,
            self.sent,
            self.spool,
            self.ledger,
            self.target,
            self.deployment,
            self.metrics,
            qos=self.settings.qos,
        )

    async def _visible(self) -> dict[str, float]:
        """Latencies to the results topic, once nothing more is to come."""
        assert self.visibility is not None
        give_up = time.time() + LAST_RESULTS_S
        while self.visibility.messages and self.visibility.unseen(self.account.arrived) and time.time() < give_up:
            await asyncio.sleep(0.1)
        return percentiles(self.visibility.latencies_ms(self.account.arrived))

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
                progress.functions = function_report(statistics, self.deployment)
                progress.behind = largest_iterator_age_ms(statistics)
                with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
                    await self._tell_metrics(statistics)
            progress.limits = limit_use(self.feed.recent(began - 4), self.deployment)
            lately = limit_use(self.feed.recent(began - 10), self.deployment)
            progress.findings = diagnose(lately, 10.0, progress.functions, self.deployment)
            if self.with_board and int(began) % 3 == 0 and progress.phase in ("riding", "draining"):
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

    # -- the report ------------------------------------------------------------------------------------

    def _report(self, judged: Verdict) -> Report:
        settings = self.settings
        uses = limit_use(self.metrics, self.deployment)
        spread = balances(self.metrics, self.deployment)
        window_s = max(1.0, self.judged_at - self.started_at)
        return Report(
            run={
                "racers": settings.racers,
                "run_time_s": settings.seconds,
                "races": settings.races,
                "classes": list(settings.classes),
                "via": settings.via,
                **({"client": settings.client, "qos": settings.qos} if settings.via == "mqtt" else {}),
                "interval_s": settings.interval_s,
                "phase": settings.phase,
                "partition_key": settings.partition_key,
                "deadline_s": settings.deadline_s,
                "limit_settings": changed_settings(settings.limits),
                "seed": settings.seed,
                "target": settings.target,
                "interrupted": self.interrupts.first.is_set(),
                "started_at": utc(self.started_at),
                # How long everything had stood by then: tables save what they do not use.
                "lead_s": round(self.started_at - self.stands_since, 3),
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
            findings=[
                str(one)
                for one in (
                    *diagnose(uses, window_s, self.final_functions, self.deployment),
                    *hot_shards(spread),
                    *self._unheard(),
                )
            ],
            extra={
                "rejected": self.rejected,
                "balance": [one.to_json() for one in spread],
                **self._bikes(),
            },
        )

    def _unheard(self) -> list[Finding]:
        if self.heard is None or self.heard.problem is None:
            return []
        return [Finding(f"{self.heard.problem}.", "So the visible latency was not measured, or not to the end.")]

    def _bikes(self) -> dict[str, Any]:
        """What only a race by MQTT has to tell."""
        if self.settings.via != "mqtt":
            return {}
        assert self.visibility is not None
        view = MetricsView(self.metrics)
        names = ("Connect.Success", "Connect.Throttle", "PublishIn.Success", "PublishIn.Throttle", "Throttle.Exceeded")
        return {
            "iot": {
                **{name: int(view.total("AWS/IoT", name, Protocol="MQTT")) for name in names},
                "results_messages": self.visibility.messages,
                "results_largest_bytes": self.visibility.largest_bytes,
                "never_visible": self.visibility.unseen(self.account.arrived),
                "foreign_records": self.account.foreign_records,
            }
        }

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
