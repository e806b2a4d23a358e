"""``alleycat limits``: nothing that is enforced is left out."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

from simulator.cloud.limits import QUOTAS, LimitSettings
from simulator.limits_view import quotas


def limits(*flags: str) -> subprocess.CompletedProcess[str]:
    code = "from simulator.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, "limits", *flags], capture_output=True, text=True, timeout=60, check=False
    )


def test_every_quota_is_a_line_with_its_value_and_source_and_no_colour() -> None:
    done = limits()
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line}
    for quota in QUOTAS:
        assert quota.source in lines[quota.name]
        value = f"{int(quota.value):,}" if quota.value == int(quota.value) else f"{quota.value:,}"
        assert f" {value} " in lines[quota.name]
    for field in dataclasses.fields(LimitSettings):
        assert field.name in lines
    assert "--limits on|off" in lines["enforced"]


def test_json_holds_the_same_and_one_service_can_be_asked_for() -> None:
    told = json.loads(limits("--json").stdout)
    assert {one["name"] for one in told["quotas"]} == {one.name for one in quotas()}
    assert {one["name"] for one in told["settings"]} == {field.name for field in dataclasses.fields(LimitSettings)}
    only = json.loads(limits("--json", "--service", "lambda").stdout)["quotas"]
    assert {one["name"].partition(".")[0] for one in only} == {"lambda"}


def test_an_unknown_service_is_a_usage_error_that_names_those_there_are() -> None:
    done = limits("--service", "kinesi")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "kinesis" in done.stderr
    assert "dynamodb" in done.stderr
