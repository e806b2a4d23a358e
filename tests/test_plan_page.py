"""The page of a plan: complete by itself, safe, and drawn by a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from simulator.capacity.model import Plan, plan
from simulator.capacity.plan_figures import figures
from simulator.capacity.plan_page import page, write_page
from simulator.capacity.workload import Workload
from simulator.deployment import load_deployment

TEMPLATE = Path(__file__).resolve().parents[1] / "template.yaml"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@cache
def broken() -> Plan:
    """Throttled by the shard and by the table."""
    return plan(load_deployment(TEMPLATE, "as-published"), Workload(racers=1100, seconds=20))


@cache
def held() -> Plan:
    return plan(load_deployment(TEMPLATE), Workload(racers=50, seconds=10))


@pytest.mark.parametrize("make", [broken, held])
def test_the_answer_is_on_the_page_and_nothing_is_fetched(make: object, tmp_path: Path) -> None:
    found = broken() if make is broken else held()
    text = write_page(found, tmp_path / "report.html").read_text(encoding="utf-8")
    plain = re.sub(r"<script.*?</script>", "", text, flags=re.S)
    first = found.broken[0].name if found.broken else "It holds"
    # The first limit comes before all that follows from it.
    assert first in plain[: plain.index("Limits that broke")]
    for line in found.bill:
        assert f"{line.usd:,.4f}" in plain
    assert not re.search(r"""(?:src|href)=["']?https?:""", plain)
    assert "default-src 'none'" in plain
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html"]


def test_figures_show_what_the_plan_has() -> None:
    found = broken()
    drawn = {one.title: one.drawing for one in figures(found)}
    incoming = drawn["Incoming records"]
    assert sum(incoming.data[0].y) == found.ledger.delivered
    assert any("limit" in trace.name and set(trace.y) == {1000} for trace in incoming.data)
    assert any("timeout" in trace.name for trace in drawn["Function duration"].data)
    assert {"Iterator age", "Concurrency", "Messages that wait to be sent"} <= set(drawn)
    for resource in ("alleycat-races", "alleycat-races/GSI_Index"):
        consumed, level = drawn[f"Write capacity of {resource}"].data[:2]
        assert sum(consumed.y) == pytest.approx(found.timeline.total("consumed_write_units", resource), abs=0.1)
        assert level.name.startswith("provisioned")
    assert "Messages that wait to be sent" not in {one.title for one in figures(held())}


def test_names_of_a_template_are_text_and_never_markup() -> None:
    attack = "</script><img src=x onerror=alert(1)>"
    deployment = load_deployment(TEMPLATE)
    functions = tuple(replace(one, logical_id=attack, name=attack) for one in deployment.functions[:1])
    found = plan(replace(deployment, functions=functions, config_env=attack), Workload(racers=5, seconds=3))
    text = page(found)
    assert "<img" not in text
    data = re.search(r'id="figures">(.*?)</script>', text, re.S)
    assert data is not None
    names = [trace["name"] for one in json.loads(data[1]).values() for trace in one["data"]]
    assert any("&lt;img" in name for name in names)
    assert not any("<" in name for name in names)


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed; .ci/run installs it")
def test_a_browser_draws_every_figure(tmp_path: Path) -> None:
    path = write_page(broken(), tmp_path / "report.html")
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run")
    flags += ("--disable-background-networking", "--disable-component-update", "--disable-sync")
    done = subprocess.run(
        [
            str(CHROMIUM),
            *flags,
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
    assert f'data-drawn="{len(figures(broken()))}"' in done.stdout, done.stderr[-2000:]
    assert "could not be drawn:" not in re.sub(r"<script.*?</script>", "", done.stdout, flags=re.S)
    assert "Content Security Policy" not in done.stderr
