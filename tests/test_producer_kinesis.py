"""The producer against real sockets: a strict Kinesis double that throttles, fails, hangs and drops connections."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from kinesis_double import Entry, KinesisDouble, Reply, failing

from producers import (
    DEADLINE,
    INTERRUPTED,
    REJECTED,
    AccessRefused,
    ConfigurationError,
    EndpointUnreachable,
    KinesisProducer,
    ProducerClosed,
    Record,
    RequestRefused,
    StreamNotFound,
    read_spool,
)

PTEE = "ProvisionedThroughputExceededException"


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("CONFIG_FILE", "SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(f"AWS_{name}", str(tmp_path / "none"))
    for name in (
        "AWS_REGION",
        "AWS_PROFILE",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_KINESIS",
        "AWS_SESSION_TOKEN",
    ):
        monkeypatch.delenv(name, raising=False)


class Impatient(random.Random):
    """Draws small numbers, so back-offs are a twentieth of what they would be."""

    def random(self) -> float:
        return super().random() / 20


def producer(kinesis: KinesisDouble, **settings: Any) -> KinesisProducer:
    arguments: dict[str, Any] = {"linger_s": 0.002, "rng": Impatient(7)}
    return KinesisProducer(stream="alleycat", endpoint_url=kinesis.url, **(arguments | settings))


def record(number: int, key: int | None = None, late_s: float = 0.0) -> Record:
    return Record(b"%06d" % number, f"key-{key}", time.time() - late_s, key)


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(30):
            await main()
        # A leaked task or transport would be reported only at interpreter exit.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not others, others

    asyncio.run(limited())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.002)


# -- delivery ------------------------------------------------------------------------------------------


def test_delivers_everything_once() -> None:
    async def main() -> None:
        async with KinesisDouble() as kinesis:
            async with producer(kinesis) as sender:
                await sender.put_many([record(number, number % 700) for number in range(2000)])
                await sender.put(record(2000))
                await sender.flush()
                assert sender.statistics().ledger.delivered == 2001
                await sender.put_many([record(number) for number in range(2001, 2100)])
            statistics = sender.statistics()
            assert statistics.ledger.to_json() == {
                "generated": 2100,
                "delivered": 2100,
                "lost": 0,
                "lost_by_reason": {},
                "throttled": 0,
                "retried": 0,
                "duplicates": 0,
            }
            assert sorted(kinesis.data) == [b"%06d" % number for number in range(2100)]
            assert statistics.calls == len(kinesis.calls) <= 12
            latencies = sender.latencies()
            assert 0 <= latencies.send_lateness.p50 <= latencies.accepted.p50 <= latencies.accepted.max < 10_000

    run(main)


def test_on_uvloop() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        async with KinesisDouble() as kinesis, producer(kinesis) as sender:
            for number in range(50):
                await sender.put(record(number, number % 7))
            await sender.flush()
            assert sender.statistics().ledger.delivered == 50

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def test_bytes_of_a_call_are_bounded() -> None:
    async def main() -> None:
        async with KinesisDouble() as kinesis:
            async with producer(kinesis) as sender:
                big = [Record(bytes(800_000), "k", time.time()) for _ in range(14)]
                await sender.put_many(big)
            # Calls go out side by side, so they may arrive in another order.
            assert sorted(len(call) for call in kinesis.calls) == [2, 6, 6]
            assert sender.statistics().ledger.delivered == 14

    run(main)


def test_no_loss_and_order_per_key_under_random_failures() -> None:
    rng = random.Random(2)

    def reply(entries: list[Entry]) -> Reply:
        draw = rng.random()
        if draw < 0.3:
            count = rng.randint(1, len(entries))
            codes = [PTEE, "InternalFailure"]
            return Reply(errors={index: rng.choice(codes) for index in rng.sample(range(len(entries)), count)})
        if draw < 0.4:
            return Reply(status=500, code="InternalFailure", store=False)
        if draw < 0.5:
            return Reply(status=400, code=rng.choice([PTEE, "ThrottlingException"]))
        if draw < 0.6:
            return Reply(drop=True, store=rng.random() < 0.5)
        return Reply()

    async def main() -> None:
        async with KinesisDouble(reply) as kinesis:
            async with producer(kinesis, max_batch_records=50) as sender:
                for start in range(0, 600, 100):
                    await sender.put_many([record(number, number % 90) for number in range(start, start + 100)])
            ledger = sender.statistics().ledger
            assert (ledger.generated, ledger.delivered, ledger.lost, ledger.in_flight) == (600, 600, 0, 0)
            assert set(kinesis.data) == {b"%06d" % number for number in range(600)}
            assert ledger.throttled > 0
            assert ledger.retried == sum(kinesis.sent.values()) - 600
            assert len(kinesis.stored) - 600 <= ledger.duplicates < ledger.retried
            order: dict[str, list[bytes]] = defaultdict(list)
            for key, data in dict.fromkeys(kinesis.stored):
                order[key].append(data)
            assert all(numbers == sorted(numbers) for numbers in order.values())

    run(main)


def test_only_failed_entries_are_retried_and_shards_are_named() -> None:
    first = True

    def reply(entries: list[Entry]) -> Reply:
        nonlocal first
        if first:
            first = False
            return Reply(errors={1: PTEE, 3: "InternalFailure"})
        return Reply()

    async def main() -> None:
        async with KinesisDouble(reply) as kinesis, producer(kinesis) as sender:
            await sender.put_many([record(number) for number in range(5)])
            await sender.flush()
            assert sorted(kinesis.sent.values()) == [1, 1, 1, 2, 2]
            assert {data for (_, data), sent in kinesis.sent.items() if sent == 2} == {b"000001", b"000003"}
            statistics = sender.statistics()
            assert (statistics.ledger.throttled, statistics.ledger.retried, statistics.ledger.duplicates) == (
                1,
                2,
                0,
            )
            assert statistics.throttled_by_shard == {"shardId-000000000000": 1}

    run(main)


def test_a_call_without_an_answer_is_sent_again_as_a_possible_duplicate() -> None:
    hold = asyncio.Event()
    first = True

    def reply(entries: list[Entry]) -> Reply:
        nonlocal first
        if first:
            first = False
            return Reply(hold=hold)
        return Reply()

    async def main() -> None:
        async with KinesisDouble(reply) as kinesis:
            async with producer(kinesis, request_timeout_s=0.1) as sender:
                await sender.put_many([record(1), record(2)])
            ledger = sender.statistics().ledger
            assert (ledger.delivered, ledger.duplicates) == (2, 2)
            assert "no answer within 0.1 s" in str(sender.statistics().last_problem)
            hold.set()
            await asyncio.sleep(0)

    run(main)


def test_endpoint_that_vanishes_costs_records_only_after_their_deadline(tmp_path: Path) -> None:
    spool = tmp_path / "lost.jsonl"

    async def main() -> None:
        async with KinesisDouble() as kinesis:
            async with producer(kinesis, deadline_s=0.5, spool=spool) as sender:
                await sender.put(record(1))
                await sender.flush()
                await kinesis.stop()
                lost = [record(number, number % 2) for number in range(2, 7)]
                started = time.time()
                await sender.put_many(lost)
            assert 0.45 < time.time() - started < 3
            ledger = sender.statistics().ledger
            assert (ledger.delivered, ledger.lost_by_reason) == (1, {DEADLINE: 5})
            reader = read_spool(spool)
            spooled = sorted(reader, key=lambda record: record.data)
            assert [record.data for record in spooled] == [record.data for record in lost]
            assert [record.order_key for record in spooled] == [record.order_key for record in lost]
            assert reader.reasons == {DEADLINE: 5}

    run(main)


# -- time ----------------------------------------------------------------------------------------------


def test_due_times_are_respected() -> None:
    arrivals: dict[bytes, float] = {}

    def reply(entries: list[Entry]) -> Reply:
        arrivals.update((data, time.time()) for _, data in entries)
        return Reply()

    async def main() -> None:
        async with KinesisDouble(reply) as kinesis:
            async with producer(kinesis) as sender:
                start = time.time()
                records = [Record(b"%d" % index, "k", start + 0.05 * index) for index in (4, 0, 2, 1, 3)]
                await sender.put_many(records)
                # Flushing does not make a record due earlier.
                await sender.flush()
            for sent in records:
                assert sent.due_s <= arrivals[sent.data] < sent.due_s + 0.5
            assert len(kinesis.calls) == 5
            assert sender.latencies().send_lateness.p50 >= 0

    run(main)


def test_an_idle_producer_costs_nothing() -> None:
    turns = 0

    class Counting(asyncio.SelectorEventLoop):
        def _run_once(self) -> None:
            nonlocal turns
            turns += 1
            super()._run_once()  # type: ignore[misc]

    async def main() -> None:
        nonlocal turns
        async with KinesisDouble() as kinesis, producer(kinesis) as sender:
            await sender.put_many([record(number) for number in range(10)])
            await sender.flush()
            # What is due later is waited for by one timer.
            await sender.put_many([Record(b"later", "k", time.time() + 3600)])
            await asyncio.sleep(0.1)
            turns = 0
            await asyncio.sleep(1.0)
            assert turns <= 5
            await sender.close(drain=False)
            assert sender.statistics().ledger.lost_by_reason == {INTERRUPTED: 1}

    with asyncio.Runner(loop_factory=Counting) as runner:
        runner.run(main())


def test_put_waits_while_the_buffer_is_full() -> None:
    hold = asyncio.Event()

    async def main() -> None:
        async with KinesisDouble(lambda entries: Reply(hold=hold)) as kinesis:
            async with producer(kinesis, max_buffered_records=100, max_batch_records=10, max_in_flight=2) as sender:
                putting = asyncio.create_task(sender.put_many([record(number) for number in range(1000)]))
                await until(lambda: len(kinesis.calls) == 2)
                await asyncio.sleep(0.05)
                assert not putting.done()
                statistics = sender.statistics()
                assert (statistics.ledger.generated, statistics.ledger.in_flight) == (100, 100)
                assert statistics.calls_in_flight == 2
                hold.set()
                await putting
                assert sender.statistics().ledger.in_flight <= 100
            assert sorted(kinesis.data) == [b"%06d" % number for number in range(1000)]

    run(main)


def test_buffer_is_bounded_in_bytes() -> None:
    hold = asyncio.Event()

    async def main() -> None:
        async with KinesisDouble(lambda entries: Reply(hold=hold)) as kinesis:
            async with producer(kinesis, max_buffered_bytes=2_000_000) as sender:
                big = [Record(bytes(900_000), "k", time.time()) for _ in range(5)]
                putting = asyncio.create_task(sender.put_many(big))
                await until(lambda: len(kinesis.calls) > 0)
                assert 0 < sender.statistics().outstanding_bytes <= 2_000_000
                assert not putting.done()
                hold.set()
                await putting
            assert len(kinesis.stored) == 5

    run(main)


# -- bad input and refusals ----------------------------------------------------------------------------


def test_an_oversize_record_is_rejected_alone(tmp_path: Path) -> None:
    spool = tmp_path / "lost.jsonl"

    async def main() -> None:
        async with KinesisDouble() as kinesis:
            async with producer(kinesis, spool=spool) as sender:
                now = time.time()
                bad = [
                    Record(bytes(1024 * 1024), "k", now),
                    Record(b"x", "", now),
                    Record(b"y", "\ud800", now),
                ]
                await sender.put_many([record(1), *bad, record(2)])
                await sender.put(bad[0])
                with pytest.raises(TypeError):
                    await sender.put(Record("text", "k", now))  # type: ignore[arg-type]
            ledger = sender.statistics().ledger
            assert (ledger.generated, ledger.delivered, ledger.lost_by_reason) == (6, 2, {REJECTED: 4})
            assert kinesis.data == [b"000001", b"000002"]
            assert len(list(read_spool(spool))) == 4

    run(main)


def test_a_record_that_the_service_finds_invalid_is_rejected_alone() -> None:
    def reply(entries: list[Entry]) -> Reply:
        poisoned = any(data == b"000042" for _, data in entries)
        return Reply(status=400, code="ValidationException") if poisoned else Reply()

    async def main() -> None:
        async with KinesisDouble(reply) as kinesis:
            async with producer(kinesis) as sender:
                await sender.put_many([record(number, number) for number in range(100)])
            ledger = sender.statistics().ledger
            assert (ledger.delivered, ledger.lost_by_reason) == (99, {REJECTED: 1})

    run(main)


@pytest.mark.parametrize(
    ("status", "code", "error", "advice"),
    [
        (400, "ResourceNotFoundException", StreamNotFound, "create the stream 'alleycat' in us-east-1"),
        (400, "UnrecognizedClientException", AccessRefused, "AWS_PROFILE"),
        (400, "MissingAuthenticationTokenException", AccessRefused, "AWS_ACCESS_KEY_ID"),
        (400, "ValidationException", RequestRefused, "as scripted"),
        (500, "InternalFailure", EndpointUnreachable, "HTTP 500 InternalFailure"),
    ],
)
def test_configuration_errors_at_the_start(status: int, code: str, error: type[Exception], advice: str) -> None:
    async def main() -> None:
        async with KinesisDouble() as kinesis:
            kinesis.describe = failing(status, code)
            with pytest.raises(error, match=advice) as raised:
                async with producer(kinesis, start_timeout_s=0.2):
                    pytest.fail("entered")
            if isinstance(raised.value, RequestRefused):
                assert (raised.value.code, raised.value.status) == (code, status)

    run(main)


def test_unreachable_endpoint_missing_region_and_bad_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"

        async def unreachable() -> None:
            with pytest.raises(EndpointUnreachable, match="AWS_ENDPOINT_URL") as raised:
                async with KinesisProducer(stream="alleycat", endpoint_url=url):
                    pytest.fail("entered")
            assert raised.value.endpoint_url == url

        run(unreachable)

    async def entered(**settings: Any) -> None:
        async with KinesisProducer(stream="alleycat", **settings):
            pytest.fail("entered")

    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(ConfigurationError, match="AWS"):
        asyncio.run(entered(endpoint_url=url))
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(ConfigurationError, match="region"):
        asyncio.run(entered())
    for settings in ({"max_batch_records": 501}, {"linger_s": -1}, {"deadline_s": float("nan")}):
        with pytest.raises(ConfigurationError, match=next(iter(settings))):
            KinesisProducer(stream="alleycat", **settings)
    with pytest.raises(ConfigurationError, match="stream"):
        KinesisProducer(stream="")


def test_environment_names_the_endpoint_and_limited_credentials_will_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        async with KinesisDouble() as kinesis:
            kinesis.describe = failing(400, "AccessDeniedException")
            monkeypatch.setenv("AWS_ENDPOINT_URL_KINESIS", kinesis.url)
            async with KinesisProducer(stream="alleycat") as sender:
                await sender.put(record(1))
            assert kinesis.data == [b"000001"]

    run(main)


def test_stream_deleted_underway_fails_everyone(tmp_path: Path) -> None:
    spool = tmp_path / "lost.jsonl"

    async def main() -> None:
        async with KinesisDouble(lambda entries: Reply(status=400, code="ResourceNotFoundException")) as kinesis:
            sender = producer(kinesis, spool=spool, max_buffered_records=100, max_batch_records=10)
            with pytest.raises(StreamNotFound):
                async with sender:
                    await sender.put_many([record(number) for number in range(500)])
            with pytest.raises(StreamNotFound):
                await sender.put(record(1))
            ledger = sender.statistics().ledger
            assert (ledger.generated, ledger.lost_by_reason) == (500, {REJECTED: 500})
            assert len(list(read_spool(spool))) == 500

            # Nobody waits in put: leaving tells.
            sender = producer(kinesis)
            with pytest.raises(StreamNotFound):
                async with sender:
                    await sender.put(record(1))
            assert sender.statistics().ledger.lost_by_reason == {REJECTED: 1}

    run(main)


# -- endings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["put", "flush", "leaving"])
def test_cancelling_leaves_a_ledger_that_adds_up(where: str, tmp_path: Path) -> None:
    spool = tmp_path / "lost.jsonl"
    hold = asyncio.Event()

    async def main() -> None:
        async with KinesisDouble(lambda entries: Reply(hold=hold)) as kinesis:
            sender = producer(kinesis, max_buffered_records=200, max_batch_records=20, max_in_flight=3, spool=spool)

            async def work() -> None:
                async with sender:
                    count = 1000 if where == "put" else 150
                    await sender.put_many([record(number, number % 50) for number in range(count)])
                    if where == "flush":
                        await sender.flush()

            working = asyncio.create_task(work())
            await until(lambda: len(kinesis.calls) >= 3)
            await asyncio.sleep(0.05)
            assert not working.done()
            working.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await working
            assert working.cancelled()
            ledger = sender.statistics().ledger
            assert ledger.generated == (1000 if where == "put" else 150)
            assert ledger.delivered + ledger.lost == ledger.generated
            assert ledger.lost_by_reason == {INTERRUPTED: ledger.lost}
            assert len({record.data for record in read_spool(spool)}) == ledger.lost
            assert sender.statistics().calls_in_flight == 0
            hold.set()

    run(main)


def test_a_quick_close_still_takes_the_answers_that_come() -> None:
    hold = asyncio.Event()

    async def main() -> None:
        async with KinesisDouble(lambda entries: Reply(hold=hold)) as kinesis, producer(kinesis) as sender:
            await sender.put_many([record(number) for number in range(10)])
            await until(lambda: len(kinesis.calls) == 1)
            await sender.put(Record(b"later", "k", time.time() + 3600))
            asyncio.get_running_loop().call_later(0.05, hold.set)
            await sender.close(drain=False)
            ledger = sender.statistics().ledger
            assert (ledger.delivered, ledger.lost_by_reason) == (10, {INTERRUPTED: 1})
            with pytest.raises(ProducerClosed):
                await sender.put(record(1))
            await sender.close()

    run(main)


def test_closing_ends_those_who_wait_to_put() -> None:
    hold = asyncio.Event()

    async def main() -> None:
        async with KinesisDouble(lambda entries: Reply(hold=hold)) as kinesis:
            async with producer(kinesis, max_buffered_records=10, max_batch_records=10) as sender:
                putting = asyncio.create_task(sender.put_many([record(number) for number in range(30)]))
                await until(lambda: len(kinesis.calls) == 1)
                hold.set()
                await sender.close(drain=False)
                with pytest.raises(ProducerClosed):
                    await putting
            ledger = sender.statistics().ledger
            assert ledger.generated == 30
            assert ledger.delivered + ledger.lost_by_reason[INTERRUPTED] == 30

    run(main)


def test_a_spool_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    path = tmp_path / "lost.jsonl"

    async def main() -> None:
        async with KinesisDouble() as kinesis, producer(kinesis, spool=path) as sender:
            path.mkdir()
            await sender.put(Record(b"x", "", time.time()))
            assert str(path) in str(sender.statistics().spool_problem)
            assert sender.statistics().ledger.lost_by_reason == {REJECTED: 1}

    run(main)


def test_opened_once_and_only_inside() -> None:
    async def main() -> None:
        async with KinesisDouble() as kinesis:
            sender = producer(kinesis)
            with pytest.raises(ProducerClosed):
                await sender.put(record(1))
            async with sender:
                with pytest.raises(ProducerClosed):
                    await sender.__aenter__()
                await sender.put_many([])

    run(main)
