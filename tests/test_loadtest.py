"""``alleycat loadtest`` as people use it: real processes, real sockets, the embedded cloud's real limits."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from load_processes import (
    KEYS,
    MOST_S,
    SHORT,
    Run,
    cloud_with_stream,
    gone,
    is_plain,
    limit,
    loadtest,
    processes_of,
    run,
    started,
    until,
)
from test_mqtt_producer import free_port

from loadtests.scenarios import SCENARIOS
from simulator.cloud.server import CloudProcess

SEARCHES = {
    "shard-limit": ("--shards", "2", "--start-rate", "1800"),
    "wcu-limit": ("--rest-time", "3s", "--start-rate", "50"),
    "gsi-limit": ("--rest-time", "1s", "--start-rate", "25"),
    "read-limit": ("--stage-time", "3s", "--precision", "0.05", "--start-rate", "4"),
    "iot-connection-limit": ("--start-rate", "90"),
}
"""Scenarios that look for their limit from near to it."""
STEP = ("shard-limit", "--shape", "steps", "--steps", "1", "--stage-time", "3s")


@pytest.fixture(scope="module")
def searches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Run]]]:
    """All of :data:`SEARCHES`, three at a time: none of them needs a quarter of a core."""
    directory = tmp_path_factory.mktemp("searches")

    def search(name: str) -> Run:
        out = str(directory / name / "report")
        # The later of a flag that is given twice counts.
        return run(loadtest(name, *SHORT, *SEARCHES[name], "--out", out, "--json"), directory / name)

    pool = ThreadPoolExecutor(3)
    yield {name: pool.submit(search, name) for name in SEARCHES}
    pool.shutdown(cancel_futures=True)


# -- Limits ---------------------------------------------------------------------------------------------------


def test_shard_limit_finds_a_thousand_records_a_second_of_every_shard_and_names_it(
    searches: dict[str, Future[Run]],
) -> None:
    report = searches["shard-limit"].result().report
    rows = limit(report, "kinesis.shard.write.records_per_second")
    assert [one["resource"] for one in rows] == ["shardId-000000000000", "shardId-000000000001"]
    for one in rows:
        assert one["sustained"] == pytest.approx(1000, rel=0.03)
        assert one["binding"]
    assert report["knee"]["held_per_second"] == pytest.approx(2000, rel=0.05)
    assert report["summary"].startswith("The limit is kinesis.shard.write.records_per_second of shardId-00000000000")


def test_wcu_limit_finds_what_an_item_costs_after_a_burst_that_it_shows(searches: dict[str, Future[Run]]) -> None:
    report = searches["wcu-limit"].result().report
    (row,) = limit(report, "dynamodb.table.write.units_per_second")
    assert row["binding"]
    assert row["published"] == 100
    assert row["sustained"] == pytest.approx(100, rel=0.03)
    # Three idle seconds saved 300 units: above the limit for as long as they last.
    assert row["peak"] > 150
    # A results item of 100 racers measures between 1 and 2 KiB, and is written to the table and its local index.
    (series,) = [one for one in report["series"]["resources"] if one["name"] == row["resource"]]
    assert series["unit"] == "WCU/s"
    assert sum(series["accepted"]) / report["ledger"]["accepted"] == pytest.approx(4)
    assert report["knee"]["held_per_second"] == pytest.approx(25, rel=0.06)


def test_gsi_limit_names_the_index_that_throttles_its_table(searches: dict[str, Future[Run]]) -> None:
    report = searches["gsi-limit"].result().report
    (row,) = limit(report, "dynamodb.index.write.units_per_second")
    assert row["resource"] == "alleycat-races/GSI_Index"
    assert row["binding"]
    assert row["sustained"] == pytest.approx(25, rel=0.03)
    assert "alleycat-races/GSI_Index" in report["summary"]
    assert not any(one["binding"] for one in limit(report, "dynamodb.table.write.units_per_second"))


def test_read_limit_finds_five_reads_a_second(searches: dict[str, Future[Run]]) -> None:
    report = searches["read-limit"].result().report
    (row,) = limit(report, "kinesis.shard.read.get_records_per_second")
    assert row["binding"]
    assert row["sustained"] == pytest.approx(5, rel=0.1)
    assert report["knee"]["held_per_second"] == pytest.approx(5, rel=0.1)


def test_iot_connection_limit_finds_a_hundred_messages_a_second(searches: dict[str, Future[Run]]) -> None:
    report = searches["iot-connection-limit"].result().report
    (row,) = limit(report, "iot.connection.publishes_per_second")
    assert row["binding"]
    assert row["sustained"] == pytest.approx(100, rel=0.03)


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_tells_where_it_ran_leaves_its_report_and_no_process(
    name: str, searches: dict[str, Future[Run]]
) -> None:
    ended = searches[name].result()
    assert ended.code == 0, ended.err
    assert json.loads(ended.out) == ended.report, "--json prints the report and nothing else"
    assert {one.name for one in (ended.directory / "report").iterdir()} == {
        "report.json",
        "report.html",
        "locust.log",
    }
    assert is_plain(ended.out + ended.err)
    report = ended.report
    assert report["run"]["scenario"] == name
    assert report["run"]["target"] == "local"
    assert report["ledger"]["offered"] == sum(
        report["ledger"][end] for end in ("accepted", "throttled", "failed", "unsent")
    )
    assert report["ledger"]["unanswered"] == 0
    assert report["ceiling"]["generator"]["cpu_peak"] > 0
    assert report["ceiling"]["target"]["cpu_peak"] > 0
    assert report["series"]["seconds"][-1] == pytest.approx(report["run"]["seconds"], abs=2)
    page = (ended.directory / "report" / "report.html").read_text(encoding="utf-8")
    assert name in page
    assert gone(ended.mark)


# -- Verdicts and exit codes ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def missed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A load above the limit, of which too much is asked."""
    directory = tmp_path_factory.mktemp("missed")
    objectives = directory / "objectives.toml"
    objectives.write_text('[objectives]\nmax_throttled = "0.1%"\np99 = "60s"\n', encoding="utf-8")
    out = str(directory / "report")
    asked = ("--objectives", str(objectives), "--at-least", "1400")
    return run(loadtest(*STEP, "--rate", "1500", *asked, "--out", out), directory)


def test_an_objective_that_is_missed_is_exit_code_1(missed: Run) -> None:
    assert missed.code == 1, missed.err
    assert missed.report["verdict"]["passed"] is False
    checks = {one["name"]: one["passed"] for one in missed.report["verdict"]["checks"]}
    assert checks == {
        "max-throttled": False,
        "p99": True,
        "complete": True,
        "ledger": True,
        "offered": True,
        "at-least": False,
    }


def test_the_report_on_a_pipe_is_plain_text(missed: Run) -> None:
    assert is_plain(missed.out + missed.err)
    assert "FAILED max-throttled" in missed.out
    assert "FAILED at-least: 0 records/s held, 0.00 times the 1,400 asked for" in missed.out
    assert missed.report["summary"].split()[0] in missed.out
    assert f"report: {missed.directory / 'report' / 'report.html'}" in missed.err


def test_workers_on_one_machine(tmp_path: Path) -> None:
    ended = run(
        loadtest(*STEP, "--rate", "500", "--processes", "2", "--out", str(tmp_path / "report")),
        tmp_path,
    )
    assert ended.code == 0, ended.err + ended.out
    assert ended.report["run"]["workers"] == 2
    assert ended.report["ledger"]["accepted"] == ended.report["ledger"]["offered"] > 1000
    assert gone(ended.mark)


def test_list_explains_every_scenario(tmp_path: Path) -> None:
    ended = run(loadtest("--list"), tmp_path)
    assert ended.code == 0
    assert [line.split()[0] for line in ended.out.splitlines()] == list(SCENARIOS)
    assert all(len(line.split()) > 4 for line in ended.out.splitlines())


BAD = {
    "no scenario": ((), "name a scenario"),
    "unknown scenario": (("shard-limits",), "no scenario 'shard-limits'; there are shard-limit,"),
    "unknown flag": (("shard-limit", "--pace", "5"), "--pace"),
    "bad number": (("shard-limit", "--rate", "fast"), "--rate 'fast'"),
    "no rate at all": (("shard-limit", "--rate", "0"), "--rate '0'"),
    "bad time": (("shard-limit", "--stage-time", "0s"), "--stage-time '0s'"),
    "bad objective": (("shard-limit", "--p99", "200"), "--p99 '200'"),
    "no stream to fall behind": (("wcu-limit", "--max-iterator-age", "5s"), "--max-iterator-age"),
    "ends before it starts": (("shard-limit", "--start-rate", "100", "--rate", "10"), "--start-rate 100 is above"),
    "no such file": (("shard-limit", "--objectives", "none.toml"), "none.toml"),
    "bad file": (("shard-limit", "--objectives", "bad.toml"), "objectives.p98"),
    "broker without need": (("shard-limit", "--broker", "mqtt://127.0.0.1:1"), "--broker"),
    "IoT without broker": (("iot-connection-limit", "--target", "aws", "--yes"), "--broker"),
    "out is a file": (("shard-limit", "--out", "bad.toml"), "--out bad.toml"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_exit_code_2(name: str, tmp_path: Path) -> None:
    arguments, says = BAD[name]
    (tmp_path / "bad.toml").write_text('[objectives]\np98 = "1s"\n', encoding="utf-8")
    ended = run(loadtest(*arguments), tmp_path)
    assert ended.code == 2, ended.err
    assert says in ended.err
    assert ended.err.count("\n") == 1
    assert ended.out == ""
    assert is_plain(ended.err)


# -- AWS ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bare_cloud() -> Iterator[CloudProcess]:
    """What AWS's variables point at; nothing has been deployed there."""
    with CloudProcess() as cloud:
        yield cloud


AWS = {
    "no region": ({"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}, "AWS_REGION"),
    "no credentials": ({"AWS_REGION": "us-east-1"}, "credentials"),
    "nobody listens": ({**KEYS, "AWS_ENDPOINT_URL": "http://127.0.0.1:{port}"}, "gave no answer"),
    "no address": ({**KEYS, "AWS_ENDPOINT_URL": "somewhere"}, "somewhere"),
}


@pytest.mark.parametrize("name", AWS)
def test_an_account_that_cannot_be_used_is_one_line_and_exit_code_3(name: str, tmp_path: Path) -> None:
    given, says = AWS[name]
    port = free_port()
    ended = run(
        loadtest("shard-limit", "--target", "aws", "--yes"),
        tmp_path,
        {key: value.format(port=port) for key, value in given.items()},
    )
    assert ended.code == 3, ended.err
    last = ended.err.splitlines()[-1]
    assert last.startswith("alleycat: ")
    assert says in last
    assert is_plain(ended.err)


def test_a_stream_that_is_not_there_is_exit_code_3(bare_cloud: CloudProcess, tmp_path: Path) -> None:
    ended = run(loadtest("shard-limit", "--target", "aws", "--yes"), tmp_path, bare_cloud.environment())
    assert ended.code == 3, ended.err
    assert "alleycat" in ended.err.splitlines()[-1].removeprefix("alleycat: ")
    assert "deploy" in ended.err.splitlines()[-1]
    assert ended.out == ""


def test_costs_are_shown_and_asked_for(bare_cloud: CloudProcess, tmp_path: Path) -> None:
    ended = run(loadtest("shard-limit", "--target", "aws"), tmp_path, bare_cloud.environment())
    assert ended.code == 2
    *costs, last = ended.err.splitlines()
    assert any(line.strip().startswith("0.") and "USD" in line and "in all" in line for line in costs)
    assert "--yes" in last
    assert ended.out == ""


def test_what_runs_behind_aws_s_variables_is_loaded_and_named(tmp_path: Path) -> None:
    with cloud_with_stream() as cloud:
        ended = run(
            loadtest(*STEP, "--rate", "500", "--target", "aws", "--yes", "--out", str(tmp_path / "report")),
            tmp_path,
            cloud.environment(),
        )
        assert ended.code == 0, ended.err
        assert ended.report["run"]["target"] == "emulator"
        assert ended.report["run"]["endpoint"] == cloud.endpoint_url
    assert ended.report["summary"].startswith("No limit was found")


# -- Ctrl-C ---------------------------------------------------------------------------------------------------


def _interrupt(directory: Path, times: int, *more: str) -> tuple[Run, float]:
    """Ctrl-C in the middle of a search; how long its end took, in seconds."""
    arguments = (*SHORT, "--start-rate", "400", "--out", str(directory / "report"), *more)
    with started(loadtest("shard-limit", *arguments), directory) as one:
        until(lambda: "climb to" in one.err, MOST_S)
        time.sleep(1.0)
        assert len(processes_of(one.mark)) >= 3, "the command, its cloud and its Locust"
        began = time.monotonic()
        for _ in range(times):
            os.kill(one.process.pid, signal.SIGINT)
            time.sleep(0.3)
        ended = one.ended()
        took_s = time.monotonic() - began
    assert gone(ended.mark)
    return ended, took_s


@pytest.mark.parametrize("more", [(), ("--processes", "2")], ids=["one process", "two workers"])
def test_one_ctrl_c_ends_the_load_and_reports_what_was_seen(more: tuple[str, ...], tmp_path: Path) -> None:
    ended, took_s = _interrupt(tmp_path, 1, *more)
    assert ended.code == 130, ended.err
    report = ended.report
    assert report["outcome"] == "incomplete"
    assert "interrupted" in report["summary"]
    assert report["verdict"]["passed"] is False
    assert report["ledger"]["accepted"] > 0
    assert report["ledger"]["unanswered"] == 0
    assert "interrupted" in ended.out
    assert (tmp_path / "report" / "report.html").exists()
    assert took_s < 60
    assert is_plain(ended.out + ended.err)


def test_two_ctrl_cs_end_at_once_and_judge_nothing(tmp_path: Path) -> None:
    ended, _ = _interrupt(tmp_path, 2)
    assert ended.code == 130, ended.err
    assert "interrupted" in ended.err.splitlines()[-1]
    assert is_plain(ended.out + ended.err)
