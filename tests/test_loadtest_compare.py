"""Two reports beside each other: what counts as worse, and what does not."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from loadtests.compare import compare, load, render
from simulator.flags import UsageError
from tests import loadtest_reports as reports


def changed(told: dict[str, Any], **deep: Any) -> dict[str, Any]:
    found = copy.deepcopy(told)
    for path, value in deep.items():
        *way, last = path.split("__")
        place = found
        for step in way:
            place = place[step]
        place[last] = value
    return found


def test_a_report_is_not_worse_than_itself() -> None:
    for make in (reports.limit, reports.no_limit, reports.many_shards, reports.race_day, reports.hot_shard):
        found = compare(make(), make())
        assert found.passed, found.failures
        assert not found.notes
        assert all(one.change in (None, 0) for one in found.lines)


def test_a_lower_knee_fails_beyond_the_allowance() -> None:
    a = reports.limit()
    held = a["knee"]["held_per_second"]
    assert compare(a, changed(a, knee__held_per_second=held * 0.96)).passed
    found = compare(a, changed(a, knee__held_per_second=held * 0.94))
    assert any("knee" in one for one in found.failures)
    assert compare(a, changed(a, knee__held_per_second=held * 0.94), 0.1).passed
    assert compare(a, changed(a, knee__held_per_second=held * 2)).passed


def test_a_limit_that_sustains_less_fails() -> None:
    a, b = reports.limit(), reports.limit()
    (binding,) = [one for one in b["limits"] if one["binding"]]
    binding["sustained"] *= 0.9
    found = compare(a, b)
    assert any("sustained" in one for one in found.failures)
    assert not found.passed


def test_the_rate_of_what_met_no_limit_is_only_told() -> None:
    a, b = reports.no_limit(), reports.no_limit()
    for one in b["limits"]:
        if one["sustained"]:
            one["sustained"] *= 0.5
    assert compare(a, b).passed


def test_small_latencies_may_wobble_and_large_ones_may_not() -> None:
    a = reports.limit()
    a["latency_ms"]["before_knee"]["p99"] = 1.0
    assert compare(a, changed(a, latency_ms__before_knee__p99=2.0)).passed
    a["latency_ms"]["before_knee"]["p99"] = 100.0
    assert not compare(a, changed(a, latency_ms__before_knee__p99=120.0)).passed


def test_what_differs_is_listed() -> None:
    a = reports.limit()
    b = changed(a, run__workers=4)
    b["deployment"]["parameters"]["ShardCount"] = 9
    b["run"]["settings"]["key"] = "zipf:1.5"
    b["run"]["scenario"] = "hot-shard"
    notes = " | ".join(compare(a, b).notes)
    for words in ("workers", "parameter ShardCount", "setting key", "different scenarios"):
        assert words in notes


def test_an_incomplete_report_proves_nothing() -> None:
    assert any("B is incomplete" in one for one in compare(reports.limit(), reports.incomplete()).failures)
    assert any("A is incomplete" in one for one in compare(reports.incomplete(), reports.limit()).failures)


def test_a_busy_generator_is_no_comparison() -> None:
    assert any("bottleneck" in one for one in compare(reports.limit(), reports.generator_bottleneck()).failures)


def test_it_is_printed_and_plain_json() -> None:
    a = reports.limit()
    found = compare(a, changed(a, knee__held_per_second=1.0))
    out = io.StringIO()
    render(found, Console(file=out, width=140))
    assert "FAILED knee: held became worse" in out.getvalue()
    assert json.loads(json.dumps(found.to_json()))["passed"] is False
    out = io.StringIO()
    render(compare(a, a), Console(file=out, width=140))
    assert "passed: B is not worse than A" in out.getvalue()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "No such file"),
        ("{", "not JSON"),
        ("[]", "no report of a load test"),
        ('{"schema": 1, "verdict": {}}', "no report of a load test"),
        ('{"kind": "loadtest", "schema": 99}', "its schema is 99"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "report.json"
    if text is not None:
        path.write_text(text)
    for given in (path, tmp_path):
        with pytest.raises(UsageError, match=words) as caught:
            load(given)
        assert str(path) in str(caught.value)


def test_a_directory_is_as_good_as_its_report(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps(reports.limit()))
    assert load(tmp_path) == load(tmp_path / "report.json") == json.loads(json.dumps(reports.limit()))
