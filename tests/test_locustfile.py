"""``locust -f loadtests/locustfile.py`` as people who live in Locust use it: alone, with workers, from its web page."""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
from load_processes import (
    KEYS,
    MOST_S,
    SHORT,
    Run,
    Started,
    cloud_with_stream,
    gone,
    is_plain,
    limit,
    locust,
    processes_of,
    run,
    started,
    until,
)
from test_mqtt_producer import free_port

from simulator.cloud.server import CloudProcess

RECORDS = "kinesis.shard.write.records_per_second"
STEPS = ("--shape", "steps", "--stage-time", "3s")
LONG = ("--shape", "steps", "--steps", "1", "--rate", "600", "--stage-time", "120s")
"""A load that is only ever ended by what happens to it."""


@pytest.fixture(scope="module")
def cloud() -> Iterator[CloudProcess]:
    with cloud_with_stream() as process:
        yield process


def rows(path: Path) -> dict[str, dict[str, str]]:
    """Locust's CSV of requests by name."""
    with path.open(encoding="utf-8", newline="") as file:
        return {one["Name"]: one for one in csv.DictReader(file)}


def ledger_closes(report: Any) -> bool:
    ledger = report["ledger"]
    return bool(
        ledger["offered"] == sum(ledger[end] for end in ("accepted", "throttled", "failed", "unsent"))
        and ledger["unanswered"] == 0
    )


# -- One process ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def headless(cloud: CloudProcess, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Twice the limit for three seconds, with all that Locust writes."""
    directory = tmp_path_factory.mktemp("headless")
    wanted = ("--csv", "locust", "--html", "locust.html", "--report", "report")
    load = (*STEPS, "--steps", "1", "--rate", "2000", "--max-throttled", "90%")
    return run(locust("--headless", *load, *wanted), directory, cloud.environment())


def test_headless_with_locust_s_own_files(headless: Run) -> None:
    assert headless.code == 0, headless.out + headless.err
    ledger = headless.report["ledger"]
    table = rows(headless.directory / "locust_stats.csv")
    shard = "PutRecords shardId-000000000000"
    assert set(table) == {"PutRecords alleycat", f"{shard} accepted", f"{shard} throttled", "Aggregated"}
    assert int(table[f"{shard} accepted"]["Request Count"]) == ledger["accepted"] > 0
    assert int(table[f"{shard} accepted"]["Failure Count"]) == 0
    assert int(table[f"{shard} throttled"]["Request Count"]) == ledger["throttled"] > 0
    assert int(table[f"{shard} throttled"]["Failure Count"]) == ledger["throttled"]
    assert int(table["PutRecords alleycat"]["Request Count"]) == ledger["requests"]
    # Records are no requests: Locust's total is of requests.
    assert int(table["Aggregated"]["Request Count"]) == ledger["requests"]
    assert "PutRecords shardId-000000000000 throttled" in (headless.directory / "locust.html").read_text("utf-8")
    assert (headless.directory / "report" / "report.html").exists()


def test_headless_prints_the_answer(headless: Run) -> None:
    assert headless.report["summary"] in headless.out
    assert headless.report["run"]["target"] == "emulator"
    assert headless.report["run"]["workers"] == 1
    assert ledger_closes(headless.report)
    assert is_plain(headless.out + headless.err)


BAD = {
    "scenario": (("--scenario", "shard-limits"), 2, "there is no scenario 'shard-limits'"),
    "setting": (("--rate", "fast"), 2, "--rate 'fast'"),
    "objective": (("--max-throttled", "1000%"), 2, "--max-throttled '1000%'"),
    "broker": (("--scenario", "iot-connection-limit"), 2, "needs --broker"),
    "stream": (("--stream", "none"), 3, "there is no stream none"),
    "table": (("--scenario", "wcu-limit", "--table", "none"), 3, "there is no table none"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_is_one_line(name: str, cloud: CloudProcess, tmp_path: Path) -> None:
    arguments, code, says = BAD[name]
    ended = run(locust("--headless", *arguments), tmp_path, cloud.environment())
    assert ended.code == code
    told = [line for line in (ended.err + ended.out).splitlines() if line.startswith("alleycat: ")]
    assert len(told) == 1
    assert says in told[0]
    assert "Traceback" not in ended.err + ended.out


def test_the_endpoint_that_goes_in_the_middle_is_told(tmp_path: Path) -> None:
    with (
        cloud_with_stream() as cloud,
        started(locust("--headless", *LONG, "--progress", "--report", "report"), tmp_path, cloud.environment()) as one,
    ):
        until(lambda: is_loading(one), MOST_S)
        os.kill(cloud.pid, signal.SIGKILL)
        began = time.monotonic()
        ended = one.ended(90)
        assert time.monotonic() - began < 90
    assert ended.code == 1
    assert ended.report["outcome"] == "incomplete"
    assert "the endpoint stopped answering" in ended.report["summary"]
    assert ended.report["verdict"]["passed"] is False
    assert ended.report["ledger"]["accepted"] > 0
    assert ended.report["ledger"]["failed"] > 0
    assert ledger_closes(ended.report)


def is_loading(one: Started) -> bool:
    """Whether records have been accepted for a while, by what the process prints of its progress."""
    told = [
        json.loads(line.partition(" ")[2]) for line in one.out.splitlines() if line.startswith("alleycat-progress ")
    ]
    return sum(report["accepted_per_second"] > 0 for report in told) > 3


# -- An emulator without limits -------------------------------------------------------------------------------


def test_no_limit_is_invented_where_there_is_none(tmp_path: Path) -> None:
    port = free_port()
    server = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    given = {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    with started(server, tmp_path / "server") as moto:
        until(lambda: answers(given["AWS_ENDPOINT_URL"]), MOST_S)
        load = ("--start-rate", "1000", "--rate", "1500", "--stage-time", "2s")
        wanted = ("--create", "--report", "report")
        ended = run(locust("--headless", *load, *wanted), tmp_path / "first", given)
        # What is there already is no obstacle.
        again = run(
            locust(
                "--headless",
                *load,
                *wanted,
                "--scenario",
                "wcu-limit",
                "--rate",
                "60",
                "--start-rate",
                "50",
                "--rest-time",
                "0s",
            ),
            tmp_path / "second",
            given,
        )
        assert moto.process.poll() is None
    for one in (ended, again):
        assert one.report["summary"].startswith("No limit was found"), one.out + one.err
        assert not any(row["binding"] or row["throttled"] for row in one.report["limits"])
        assert one.report["knee"] is None
        assert ledger_closes(one.report)
        assert one.code == 0, one.report["verdict"]
        assert one.report["ceiling"]["target"]["cpu_peak"] > 0
    peak = next(row["peak"] for row in ended.report["limits"] if row["name"] == RECORDS)
    assert ended.report["outcome"] == "target" or peak > 1200, "beyond what AWS would take"


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return True
    except OSError:
        return False


# -- Workers --------------------------------------------------------------------------------------------------


class Crowd:
    """A master and its workers, each a process that was started by itself."""

    def __init__(
        self,
        stack: ExitStack,
        directory: Path,
        cloud: CloudProcess,
        *arguments: str,
        workers: int = 2,
        without: tuple[str, ...] = (),
    ) -> None:
        given, port = cloud.environment(), str(free_port())
        bind = ("--master-bind-host", "127.0.0.1", "--master-bind-port", port)
        self.master = stack.enter_context(
            started(locust("--master", *bind, *arguments, "--report", "report"), directory / "master", given)
        )
        self.workers = [
            stack.enter_context(
                started(
                    locust("--worker", "--master-host", "127.0.0.1", "--master-port", port),
                    directory / f"worker-{index}",
                    {name: value for name, value in given.items() if name not in without},
                )
            )
            for index in range(workers)
        ]


@pytest.fixture(scope="module")
def crowd(cloud: CloudProcess, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, list[Run]]:
    """A search by one master and two workers."""
    directory = tmp_path_factory.mktemp("crowd")
    search = (*SHORT, "--start-rate", "900", "--csv", "locust")
    with ExitStack() as stack:
        found = Crowd(stack, directory, cloud, "--headless", "--expect-workers", "2", *search)
        return found.master.ended(), [one.ended(60) for one in found.workers]


def test_two_workers_measure_what_one_would(crowd: tuple[Run, list[Run]]) -> None:
    master, workers = crowd
    assert master.code == 0, master.out + master.err
    assert [one.code for one in workers] == [0, 0]
    report = master.report
    assert report["run"]["workers"] == 2
    assert ledger_closes(report)
    (row,) = limit(report, RECORDS)
    assert row["binding"]
    assert row["sustained"] == pytest.approx(1000, rel=0.03)
    assert report["knee"]["held_per_second"] == pytest.approx(1000, rel=0.05)


def test_records_of_both_workers_add_up_in_locust_s_table_too(crowd: tuple[Run, list[Run]]) -> None:
    master, _ = crowd
    table = rows(master.directory / "locust_stats.csv")
    ledger = master.report["ledger"]
    shard = "PutRecords shardId-000000000000"
    assert int(table[f"{shard} accepted"]["Request Count"]) == ledger["accepted"]
    assert int(table[f"{shard} throttled"]["Request Count"]) == ledger["throttled"]
    assert int(table["Aggregated"]["Request Count"]) == ledger["requests"]


def test_a_worker_that_is_killed_makes_the_report_incomplete(cloud: CloudProcess, tmp_path: Path) -> None:
    with ExitStack() as stack:
        found = Crowd(stack, tmp_path, cloud, "--headless", "--expect-workers", "2", "--progress", *LONG)
        until(lambda: is_loading(found.master), MOST_S)
        found.workers[0].process.kill()
        ended = found.master.ended(90)
        assert found.workers[1].ended(60).code == 0
    assert ended.code == 1
    report = ended.report
    assert report["outcome"] == "incomplete"
    lost = [line for line in found.master.err.splitlines() if "failed to send heartbeat" in line]
    (said,) = report["incomplete"]
    assert "was lost" in said
    assert lost, "Locust noticed too"
    name = lost[0].partition("Worker ")[2].split()[0]
    assert name in said
    assert report["verdict"]["passed"] is False
    assert report["ledger"]["accepted"] > 0


def test_a_worker_without_credentials_ends_the_test_and_says_so(cloud: CloudProcess, tmp_path: Path) -> None:
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    with ExitStack() as stack:
        found = Crowd(stack, tmp_path, cloud, "--headless", *LONG, workers=1, without=keys)
        ended = found.master.ended(90)
        assert "Traceback" not in found.workers[0].out + found.workers[0].err
    assert ended.code == 1
    assert ended.report["outcome"] == "incomplete"
    assert "no AWS credentials were found" in ended.report["summary"]


def test_a_process_of_processes_that_is_killed(cloud: CloudProcess, tmp_path: Path) -> None:
    """``--processes 2`` forks its workers."""
    command = locust("--headless", "--processes", "2", "--progress", *LONG, "--report", "report")
    with started(command, tmp_path, cloud.environment()) as one:
        until(lambda: is_loading(one), MOST_S)
        workers = psutil.Process(one.process.pid).children()
        assert len(workers) == 2
        workers[0].kill()
        ended = one.ended(90)
    assert ended.code != 0
    assert ended.report is not None, ended.out + ended.err
    assert ended.report["outcome"] == "incomplete"
    assert ended.report["run"]["workers"] == 2
    assert ended.report["verdict"]["passed"] is False
    assert gone(ended.mark)


# -- The web page ---------------------------------------------------------------------------------------------


class Page:
    """Locust's web page, as its script uses it."""

    def __init__(self, port: int) -> None:
        self._base = f"http://127.0.0.1:{port}"

    def get(self, path: str, form: dict[str, str] | None = None) -> str:
        data = None if form is None else urllib.parse.urlencode(form).encode()
        with urllib.request.urlopen(urllib.request.Request(self._base + path, data), timeout=60) as answer:
            text: str = answer.read().decode()
            return text

    def is_up(self) -> bool:
        return answers(self._base)

    def swarm(self, **changed: str) -> bool:
        """What the page's start button does; false while an earlier test is still ending."""
        self.get("/swarm", {"user_count": "1", "spawn_rate": "1", "host": "", **changed})
        return True

    def stats(self) -> dict[str, int]:
        return {one["name"]: one["num_requests"] for one in json.loads(self.get("/stats/requests"))["stats"]}


def report_after(path: Path, earlier: Any, log: Started) -> Any:
    """The report that is not ``earlier``."""

    def read() -> Any:
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return told if told != earlier else None

    try:
        return until(read, MOST_S)
    except BaseException:
        print(log.out, log.err)
        raise


@pytest.mark.parametrize("workers", [0, 2])
def test_the_web_page_starts_ends_and_starts_again(workers: int, cloud: CloudProcess, tmp_path: Path) -> None:
    port = free_port()
    load = ("--web-host", "127.0.0.1", "--web-port", str(port), *STEPS, "--steps", "1", "--rate", "300")
    page = Page(port)
    with ExitStack() as stack:
        if workers:
            found = Crowd(stack, tmp_path, cloud, *load, workers=workers)
            master = found.master
            until(page.is_up, MOST_S)
            until(lambda: len(json.loads(page.get("/stats/requests"))["workers"]) == workers, MOST_S)
        else:
            master = stack.enter_context(
                started(locust(*load, "--report", "report"), tmp_path / "master", cloud.environment())
            )
            until(page.is_up, MOST_S)
        assert "load_rate" in page.get("/"), "settings are fields of the page"
        path = master.directory / "report" / "report.json"

        # A run that ends by itself.
        page.swarm()
        first = report_after(path, None, master)
        assert first["outcome"] == "held"
        assert first["run"]["workers"] == max(workers, 1)
        assert first["ledger"]["accepted"] == first["ledger"]["offered"] >= 800
        assert until(
            lambda: page.stats().get("PutRecords shardId-000000000000 accepted", 0) == first["ledger"]["accepted"]
        )

        # Another, with a setting that the page changed, stopped from the page.
        until(lambda: "ready" in state(page) or "stopped" in state(page))
        page.swarm(load_rate="450", load_stage_time="60s")
        until(lambda: "running" in state(page), MOST_S)
        # The page shows the figures of the run before until workers have told new ones, so they say nothing yet.
        time.sleep(6)
        page.get("/stop", {})
        second = report_after(path, first, master)
        assert second["outcome"] == "incomplete"
        assert second["run"]["settings"]["rate"] == 450
        assert second["ledger"]["accepted"] > 0
        assert ledger_closes(second)

        # A setting that makes no test starts none and is told in the log.
        until(lambda: "stopped" in state(page))
        time.sleep(1)
        page.swarm(load_rate="fast")
        until(lambda: "--rate 'fast'" in master.err, MOST_S)
        os.kill(master.process.pid, signal.SIGINT)
        ended = master.ended(60)
    assert ended.code == 1, "the last test's verdict"
    assert "Traceback" not in ended.out + ended.err
    assert not processes_of(ended.mark)


def state(page: Page) -> str:
    return str(json.loads(page.get("/stats/requests"))["state"])
