"""Sweeps: each cell is the plan that it says it is; bad ones are refused before anything is planned."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_plan_command import run, told

from simulator.capacity.model import plan
from simulator.capacity.objective import measured
from simulator.capacity.sweep import MOST_CELLS, Sweep, SweepError, Swept, sweep, sweep_of
from simulator.capacity.sweep_view import figure, page
from simulator.capacity.workload import Workload
from simulator.cloud.limits import LimitSettings
from simulator.deployment import Deployment, load_deployment

TEMPLATE = Path(__file__).resolve().parents[1] / "template.yaml"
SLOW_SHARDS = LimitSettings(shard_rate_factor=0.05)
WORKLOAD = Workload(racers=70, seconds=10)


class Tags(HTMLParser):
    """The elements that a browser would see, with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: dict[str, list[dict[str, str | None]]] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.setdefault(tag, []).append(dict(attrs))


def deploy(parameters: Mapping[str, str]) -> Deployment:
    return load_deployment(TEMPLATE, "default", parameters)


def swept(*texts: str) -> Swept:
    return sweep(deploy, WORKLOAD, [sweep_of(text) for text in texts], settings=SLOW_SHARDS)


@pytest.fixture(scope="module")
def grid() -> Swept:
    return swept("ShardCount=1..3", "WriteCapacityUnits=5,100")


def test_cells_are_single_plans(grid: Swept) -> None:
    assert [cell.values for cell in grid.cells] == list(itertools.product(("1", "2", "3"), ("5", "100")))
    for cell in grid.cells:
        shards, wcu = cell.values
        alone = plan(deploy({"ShardCount": shards, "WriteCapacityUnits": wcu}), WORKLOAD, settings=SLOW_SHARDS)
        assert cell.found == measured(alone)
        assert cell.verdict == ("holds" if alone.holds else "throttles" if alone.recovers else "breaks")
    assert len({cell.verdict for cell in grid.cells}) > 1


def test_more_of_what_costs_costs_more(grid: Swept) -> None:
    usd = {cell.values: cell.found.usd for cell in grid.cells}
    # Ten seconds are billed as an hour; what never settles in it is not.
    for shards in "123":
        assert usd[shards, "5"] < usd[shards, "100"]
    assert usd["1", "100"] < usd["2", "100"] < usd["3", "100"]


def test_json_has_every_cell(grid: Swept) -> None:
    found = json.loads(json.dumps(grid.as_json(), allow_nan=False))
    assert found["sweeps"] == [
        {"name": "ShardCount", "values": ["1", "2", "3"]},
        {"name": "WriteCapacityUnits", "values": ["5", "100"]},
    ]
    assert len(found["cells"]) == 6
    assert found["cells"][1]["parameters"] == {"ShardCount": "1", "WriteCapacityUnits": "100"}


def test_heat_maps_show_the_cells(grid: Swept) -> None:
    maps = figure(grid).data
    by_values = {cell.values: cell for cell in grid.cells}
    verdicts, bill = maps[0], maps[-1]
    assert tuple(verdicts.x) == ("1", "2", "3")
    assert tuple(verdicts.y) == ("5", "100")
    for row, wcu in enumerate(("5", "100")):
        for column, shards in enumerate("123"):
            assert verdicts.text[row][column] == by_values[shards, wcu].verdict
            assert bill.z[row][column] == by_values[shards, wcu].found.usd


def test_one_sweep_and_three_have_pages_too() -> None:
    one, three = swept("BatchSize=100,1000"), swept("ShardCount=1,2", "BatchSize=100", "TumblingWindowInSeconds=0,5")
    assert len(figure(one).data[0].x) == 2
    assert page(one).count("plotly-graph-div") == 1
    text = page(three)
    assert text.count("plotly-graph-div") == 2
    for value in ("0", "5"):
        assert f"TumblingWindowInSeconds {value}" in text
    tags = Tags(text)
    assert tags.found["h1"] == [{}]
    assert not any("src" in one for one in tags.found["script"]), "the page needs no network"
    assert "link" not in tags.found


def test_texts_can_be_swept() -> None:
    found = swept("PartitionKeyTemplate=${racerId},${timestamp()}")
    assert [cell.values for cell in found.cells] == [("${racerId}",), ("${timestamp()}",)]


def test_names_are_not_html() -> None:
    found = swept("PartitionKeyTemplate=<b>x</b>,<script>alert(1)</script>")
    text = page(found)
    assert "<script>alert" not in text
    assert "<b>x" not in text


def test_progress_is_told() -> None:
    seen: list[tuple[int, int]] = []
    sweep(deploy, Workload(racers=2, seconds=2), [sweep_of("ShardCount=1..3")], progress=lambda *one: seen.append(one))
    assert seen == [(1, 3), (2, 3), (3, 3)]


# -- what can be swept -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("A=1..3", ("1", "2", "3")),
        ("A=5", ("5",)),
        (" A = 20, 50 ,100..102", ("20", "50", "100", "101", "102")),
        ("A=x,y=z", ("x", "y=z")),
        ("A=-1..1", ("-1", "0", "1")),
    ],
)
def test_sweeps_are_read(text: str, values: tuple[str, ...]) -> None:
    assert sweep_of(text) == Sweep("A", values)


@given(st.integers(-50, 50), st.integers(0, 60))
def test_ranges_have_both_ends(low: int, more: int) -> None:
    values = sweep_of(f"A={low}..{low + more}").values
    assert [int(one) for one in values] == list(range(low, low + more + 1))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ShardCount", "write NAME=VALUES"),
        ("=1..2", "write NAME=VALUES"),
        ("ShardCount=", "is no value and no range"),
        ("ShardCount=1,,2", "is no value and no range"),
        ("ShardCount=1..", "is no value and no range"),
        ("ShardCount=1..x", "is no value and no range"),
        ("ShardCount=1.5..3", "is no value and no range"),
        ("ShardCount=8..1", "write 1..8"),
        ("ShardCount=1..5000", f"at most {MOST_CELLS:,} plans"),
        ("ShardCount=1..3,2", "2 is there twice"),
    ],
)
def test_other_sweeps_are_refused(text: str, says: str) -> None:
    with pytest.raises(SweepError) as refused:
        sweep_of(text)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (("Shards=1..2",), "there is no parameter Shards; there are ShardCount, TumblingWindowInSeconds"),
        (("ShardCount=1,0",), "'0' is less than 1"),
        (("ShardCount=1,many",), "is not a number"),
        (("ShardCount=1..2", "ShardCount=3"), "ShardCount is swept twice"),
        (("ShardCount=1..40", "BatchSize=1..40"), "1,600 combinations"),
    ],
)
def test_bad_sweeps_are_refused_before_any_plan(texts: tuple[str, ...], says: str) -> None:
    planned: list[int] = []
    with pytest.raises(SweepError, match=says):
        sweep(deploy, WORKLOAD, [sweep_of(one) for one in texts], progress=lambda done, of: planned.append(done))
    assert planned == []


# -- the command -----------------------------------------------------------------------------------------------

SMALL = ("-u", "40", "-t", "10s", "--limit", "shard_rate_factor=0.05")


def test_the_command_writes_both_files(tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = told(*SMALL, "--sweep", "ShardCount=1..2", "--sweep", "WriteCapacityUnits=20,50", "--out", str(out))
    assert found == json.loads((out / "sweep.json").read_text())
    assert len(found["cells"]) == 4
    assert "plotly" in (out / "sweep.html").read_text()
    # A sweep wins over the flag and over --set.
    again = told(*SMALL, "--shards", "5", "--set", "ShardCount=4", "--sweep", "ShardCount=1..2")
    alone = told(*SMALL, "--shards", "1")
    assert again["cells"][0]["usd"] == pytest.approx(alone["bill"]["total_usd"], abs=1e-5)


def test_the_command_prints_a_table() -> None:
    done = run(*SMALL, "--sweep", "ShardCount=1..2", "--sweep", "WriteCapacityUnits=5,50")
    assert done.returncode == 0, done.stderr
    assert "ShardCount down, WriteCapacityUnits across" in done.stdout
    done = run(*SMALL, "--sweep", "TumblingWindowInSeconds=0,5")
    assert "settled" in done.stdout
    assert "p99" in done.stdout


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Nothing=1", "--sweep: there is no parameter Nothing; there are ShardCount"),
        ("ShardCount=3..1", "write 1..3"),
        ("ShardCount=0..2", "'0' is less than 1"),
    ],
)
def test_bad_sweeps_are_exit_code_2_and_one_line(text: str, says: str) -> None:
    done = run("--sweep", text)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
