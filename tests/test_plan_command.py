"""``alleycat plan`` as people run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
ALLEYCAT = [sys.executable, "-c", "from simulator.cli import main; main()"]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*ALLEYCAT, "plan", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "120", **environment},
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done


def told(*arguments: str, code: int = 0, **environment: str) -> dict[str, Any]:
    done = run("--json", *arguments, **environment)
    assert done.returncode == code, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_race_that_holds(tmp_path: Path) -> None:
    done = run("-u", "50", "-t", "10s", "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "HOLDS: 500 of 500 messages on the stream" in done.stdout
    saved = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert saved["schema"] == 1
    assert saved["holds"]
    assert saved["first_limit"] is None
    assert saved["ledger"]["delivered"] == 500
    assert saved["bill"]["total_usd"] == pytest.approx(sum(line["usd"] for line in saved["bill"]["lines"]), abs=1e-5)
    series = saved["timeline"]["series"]
    assert sum(sum(values) for values in series["accepted"].values()) == 500
    assert {len(values) for by_resource in series.values() for values in by_resource.values()} == {
        saved["timeline"]["seconds"]
    }


def test_a_race_that_does_not_hold_names_the_first_limit() -> None:
    done = run("-u", "1300", "-t", "60s", "--shards", "1")
    assert done.returncode == 1
    assert "THROTTLES at 0:03" in done.stdout
    assert "kinesis.shard.write.records_per_second of shardId-000000000000, 1,000 records/s" in done.stdout


def test_sizes_come_from_flags_environment_and_samconfig() -> None:
    found = told("-u", "30", "-t", "5s", "--config-env", "as-published", "--wcu", "77", "--set", "ShardCount=3", code=0)
    parameters = found["deployment"]["parameters"]
    assert (parameters["WriteCapacityUnits"], parameters["ShardCount"], parameters["IndexWriteCapacityUnits"]) == (
        77,
        3,
        10,
    )
    assert len(found["shards"]) == 3
    assert told(ALLEYCAT_RACERS="12", ALLEYCAT_RUN_TIME="4s", ALLEYCAT_SHARDS="2")["ledger"]["generated"] == 48


def test_prices_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text('"kinesis.shard_hour" = 1.5\n')
    found = told("-u", "10", "-t", "2s", "--prices", str(path))
    line = next(one for one in found["bill"]["lines"] if one["line"] == "kinesis.shard_hour")
    assert line["usd"] == 3.0
    assert line["price_source"] == "given by the user: prices.toml"


def test_slower_functions_take_longer() -> None:
    times = []
    for call_ms in (1, 50):
        found = told("-u", "100", "-t", "10s", "--duration", f"call_ms={call_ms}", "--duration", "invocation_ms=1")
        (final,) = (one for one in found["functions"] if "Final" in one["name"])
        times.append(final["duration_ms"]["max"])
    # Some 50 finishers a shard, one call each for the class best, in turn.
    assert times[1] > 20 * times[0] > 0


def test_mqtt_pays_for_messages_and_connections() -> None:
    found = told("-u", "100", "-t", "10s", "--via", "mqtt")
    lines = {one["line"] for one in found["bill"]["lines"]}
    assert {"iot.message", "iot.connection_minute", "iot.rule", "iot.rule_action"} <= lines


def test_the_workload_in_all_its_words() -> None:
    words = "--interval 2s --late-share 0.2 --dropout-share 0.1 --skew 1.1 --extra-bytes 50 --linger 40 --aggregate"
    # Our functions reject packed records, so that it does not hold.
    found = told("-u", "100", "-t", "10s", *words.split(), code=1)
    plain = told("-u", "100", "-t", "10s")
    run_, ledger = found["run"], found["ledger"]
    assert (run_["interval_s"], run_["late_share"], run_["dropout_share"], run_["skew"]) == (2, 0.2, 0.1, 1.1)
    assert (run_["aggregation"], run_["linger_ms"]) == (True, 40)
    assert run_["message_bytes"] == plain["run"]["message_bytes"] + 50
    # 600 if all rode from start to end.
    assert 450 <= ledger["generated"] < 600
    assert sum(one["accepted"] for one in found["shards"]) < ledger["delivered"] == ledger["generated"]
    assert any("hold several messages" in line for line in found["not_modelled"])
    assert not found["tables"][0]["consumed_write_units"]
    assert not found["holds"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("-u", "0"), "--racers"),
        (("-u", "2000000"), "racers must be from 1 to 1,000,000"),
        (("-t", "soon"), "--run-time 'soon'"),
        (("--classes", "1,9"), "classes must be different numbers from 1 to 6"),
        (("--classes", "x"), "--classes 'x'"),
        (("--via", "pigeon"), "--via 'pigeon'"),
        (("--phase", "new"), "--phase 'new'"),
        (("--partition-key", "colour"), "partition_key must be one of"),
        (("--config-env", "nowhere"), "nowhere"),
        (("--template", "none.yaml"), "none.yaml"),
        (("--set", "Shards=1"), "Shards"),
        (("--limit", "speed=1"), "--limit"),
        (("--duration", "speed=1"), "--duration 'speed=1'"),
        (("--duration", "call_ms=slow"), "--duration 'call_ms=slow'"),
        (("--duration", "call_ms=-1"), "call_ms must be from 0"),
        (("--prices", "none.toml"), "--prices: none.toml cannot be read"),
        (("--skew", "1.1", "--partition-key", "race"), "skew is of keys of racers"),
        (("--linger", "30"), "linger_ms must be a multiple of 20"),
        (("--via", "mqtt", "--aggregate"), "a rule puts each by itself"),
        (("--out", "/dev/null/x", "-u", "2", "-t", "1s"), "--out /dev/null/x"),
    ],
)
def test_usage_errors_are_one_line(arguments: tuple[str, ...], complaint: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
