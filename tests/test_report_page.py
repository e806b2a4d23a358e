"""The page of a load test's report: complete by itself, safe, and drawn by a real browser."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from loadtests.report_figures import figures
from loadtests.report_page import page, write_page
from tests import loadtest_reports as reports

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MAKES = (
    reports.limit,
    reports.hot_shard,
    reports.many_shards,
    reports.no_limit,
    reports.generator_bottleneck,
    reports.incomplete,
    reports.barely_begun,
    reports.race_day,
)


@pytest.mark.parametrize("make", MAKES)
def test_the_answer_is_on_the_page_and_nothing_is_fetched(make: Any, tmp_path: Path) -> None:
    told = make()
    path = write_page(told, tmp_path / "report.html")
    text = path.read_text(encoding="utf-8")
    plain = re.sub(r"<script.*?</script>", "", text, flags=re.S)
    assert html.escape(told["summary"], quote=False) in plain.replace("&quot;", '"').replace("&#x27;", "'")
    for one in told["problems"]:
        assert one["code"] in plain
    for one in told["incomplete"]:
        assert html.escape(one, quote=False)[:40] in plain.replace("&quot;", '"').replace("&#x27;", "'")
    assert not re.search(r"""(?:src|href)=["']https?:""", plain)
    assert "Content-Security-Policy" in plain
    assert "default-src" in plain


def test_what_a_service_says_is_text_and_never_markup() -> None:
    told = reports.limit()
    attack = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    told["problems"][0]["message"] = attack
    told["summary"] = attack
    told["limits"][0]["resource"] = attack
    told["series"]["resources"][0]["name"] = attack
    told["run"]["endpoint"] = attack
    text = page(told)
    assert "<img src=x" not in text
    assert "<script>alert" not in text


def test_a_table_and_its_index_are_not_added_up() -> None:
    told = reports.limit()
    series = told["series"]
    one = series["resources"][0]
    series["resources"] = [
        {**one, "name": "alleycat-races", "operation": "PutItem", "unit": "WCU/s"},
        {**one, "name": "alleycat-races/GSI_Index", "operation": "PutItem", "unit": "WCU/s"},
    ]
    titles = [figure.title for figure in figures(told)]
    assert not any("together" in title for title in titles)
    assert any("PutItem over time: each" in title for title in titles)


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed; .ci/run installs it")
@pytest.mark.parametrize("make", [reports.limit, reports.many_shards, reports.incomplete])
def test_a_browser_draws_every_figure(make: Any, tmp_path: Path) -> None:
    told = make()
    path = write_page(told, tmp_path / "report.html")
    # Errors of scripts are caught into the document, where the dump shows them.
    text = path.read_text(encoding="utf-8")
    assert "<head>" in text
    done = subprocess.run(
        [
            str(CHROMIUM),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--enable-logging=stderr",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=20000",
            "--dump-dom",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    drawn = done.stdout.count('class="main-svg"')
    assert drawn >= len(figures(told)), done.stderr[-2000:]
    assert "Uncaught" not in done.stderr
    assert "Content Security Policy" not in done.stderr
