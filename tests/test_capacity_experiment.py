"""Experiments: a bad file is told in one line, and the published story is what the model says today."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from simulator.capacity import experiment as experiments
from simulator.capacity.delays import slowest_s
from simulator.capacity.experiment_file import Experiment, ExperimentError, load_experiment
from simulator.capacity.model import plan
from simulator.capacity.workload import Workload
from simulator.cli import main as alleycat
from simulator.deployment import load_deployment

ROOT = Path(__file__).resolve().parents[1]
STORY, DOCUMENT = ROOT / "experiments" / "blog-part-5.toml", ROOT / "docs" / "blog-part-5.md"
TEMPLATE = ROOT / "template.yaml"
SMALL = """
[experiment]
name = "small"
[workload]
racers = 20
run_time = "10s"
[[case]]
name = "one shard"
parameters = { ShardCount = 1 }
[[case]]
name = "a | b <i>"
workload = { racers = 30 }
"""


def main(arguments: list[str]) -> int:
    """``alleycat`` with ``arguments``; its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["alleycat", *arguments])
        with pytest.raises(SystemExit) as stopped:
            alleycat()
    return int(stopped.value.code or 0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["[[case]]"]),
        ("x = 1\n[[case]]\nname='a'", ["'x'", "allowed are experiment, workload, case"]),
        ("[workload]\nracer = 3\n[[case]]\nname='a'", ["[workload]", "'racer'", "did you mean racers"]),
        ("[workload]\nracers = 0\n[[case]]\nname='a'", ["[workload]", "racers must be from 1 to"]),
        ("[workload]\nraces = true\n[[case]]\nname='a'", ["races must be a whole number"]),
        ("[workload]\nvia = 'pigeon'\n[[case]]\nname='a'", ["via must be one of kinesis, mqtt"]),
        ("[workload]\nrun_time = -5\n[[case]]\nname='a'", ["run_time", "give a time"]),
        ("[workload]\nskew = 'much'\n[[case]]\nname='a'", ["[workload]", "skew must be a number"]),
        ("[workload]\naggregate = 1\n[[case]]\nname='a'", ["[workload]", "aggregate must be true or false"]),
        ("[workload]\nlate_share = 2\n[[case]]\nname='a'", ["[workload]", "late_share must be from 0 to 1"]),
        ("[[case]]\nname='a'\nparameter = {}", ["[[case]] 'a'", "did you mean parameters"]),
        ("[[case]]\nname='a'\nparameters = {ShardCount = 0}", ["[[case]] 'a'", "ShardCount", "less than 1"]),
        ("[[case]]\nname='a'\nparameters = {Shards = 2}", ["[[case]] 'a'", "no parameter Shards"]),
        ("[[case]]\nname='a'\nparameters = {ShardCount = [1]}", ["ShardCount must be a number or a text"]),
        ("[[case]]\nname='a'\nworkload = {phase = 1}", ["[[case]] 'a': workload", "spread, burst"]),
        ("[[case]]\nname='a'\nproperties = {ParallelizationFactor = 11}", ["from 1 to 10"]),
        ("[[case]]\nname='a'\nproperties = {ParallelizationFactor = 2}", ["tumbling window"]),
        ("[[case]]\nname='a'\nproperties = {StreamMode = 'X'}", ["PROVISIONED, ON_DEMAND"]),
        ("[[case]]\nname='a'\nconfig_env = 'b'", ["[[case]] 'a'", "no environment 'b'"]),
        ("[[case]]\nname='a'\n[[case]]\nname='a'", ["[[case]] 2", "taken"]),
        ("[[case]]\nabout='a'", ["[[case]] 1", "name"]),
        ("case = 3", ["[[case]]"]),
        ("[[case]\n", ["not TOML"]),
    ],
)
def test_a_bad_file_is_told_in_one_line(
    text: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ExperimentError) as error:
        load_experiment(path, TEMPLATE)
    told = str(error.value)
    assert str(path) in told
    assert all(word in told for word in words), told
    assert main(["plan", "--experiment", str(path), "--template", str(TEMPLATE)]) == 2
    printed = capsys.readouterr()
    assert len(printed.err.strip().splitlines()) == 1
    assert not printed.out


def test_flags_that_would_change_nothing_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    assert main(["plan", "--experiment", str(path), "--races", "2"]) == 2
    assert "--races" in capsys.readouterr().err


def test_cases_are_compared_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "small.toml", tmp_path / "out"
    path.write_text(SMALL)
    assert main(["plan", "--experiment", str(path), "--template", str(TEMPLATE), "--out", str(out)]) == 0
    assert "one shard" in capsys.readouterr().out
    cases = json.loads((out / "experiment.json").read_text())["cases"]
    assert [one["plan"]["ledger"]["generated"] for one in cases] == [200, 300]
    assert cases[0]["plan"]["deployment"]["parameters"]["ShardCount"] == 1
    assert "a \\| b &lt;i>" in (out / "experiment.md").read_text()


def test_delays_follow_the_backlog() -> None:
    small = Workload(racers=50, seconds=20)
    quick = plan(load_deployment(TEMPLATE, "default", {"TumblingWindowInSeconds": "0"}), small)
    windowed = plan(load_deployment(TEMPLATE, "default", {"TumblingWindowInSeconds": "5"}), small)
    assert 0 < (slowest_s(quick, 0.5) or 0) <= 1.5
    # In a window, half of the messages wait for more than half of it.
    assert 2.0 <= (slowest_s(windowed, 0.5) or 0) <= 5.0
    assert (slowest_s(windowed) or 0) >= (slowest_s(windowed, 0.5) or 0)


@pytest.fixture(scope="module")
def story() -> tuple[Experiment, dict[str, experiments.Compared]]:
    asked = load_experiment(STORY, TEMPLATE)
    return asked, {one.case.name: one for one in experiments.run(asked)}


@pytest.mark.timeout(900)
def test_the_published_symptoms_come_out_of_the_model(
    story: tuple[Experiment, dict[str, experiments.Compared]],
) -> None:
    found = story[1]
    published = found["as published"]
    assert 990 <= published.records_peak <= 1010
    assert 0.15 < published.bytes_share < 0.25
    assert published.iterator_age_s > 300
    assert published.timeouts > 10
    assert published.duration_s == pytest.approx(15)
    assert published.concurrency == 1
    assert published.reads_peak < 10 < 20 < published.writes_peak
    assert published.throttled_writes > 1000
    assert published.lost == 0
    # Table and index only together; shards and lanes alone add writers.
    assert found["more WCU on table and index"].holds
    assert not found["more WCU on the table"].holds
    assert found["more shards"].timeouts > published.timeouts
    assert found["parallelization factor"].settled_s is None
    assert found["tumbling window"].holds
    assert found["on-demand"].holds


@pytest.mark.timeout(900)
def test_the_document_quotes_what_the_experiment_says(
    story: tuple[Experiment, dict[str, experiments.Compared]],
) -> None:
    """After a change of the model: alleycat plan --experiment experiments/blog-part-5.toml --out DIR, and quote
    DIR/experiment.md anew."""
    asked, found = story
    told = experiments.as_markdown(asked, list(found.values()))
    text = DOCUMENT.read_text(encoding="utf-8")
    tables = [line for line in told.splitlines() if line.startswith("|")]
    # The document tells the symptoms first, so its tables stand in another order.
    assert sorted(line for line in text.splitlines() if line.startswith("|")) == sorted(tables)
    # What is written between the tables may only say figures of the tables and sizes of the files.
    prose = re.sub(r"```.*?```|`[^`]*`|\([^()]*\.(?:toml|md)\)", "", text, flags=re.S)
    prose = "\n".join(line for line in prose.splitlines() if not line.startswith(("|", "#")))
    number = re.compile(r"\d+(?:[.,]\d+)*")
    sizes = STORY.read_text(encoding="utf-8") + (ROOT / "samconfig.toml").read_text(encoding="utf-8")
    known = set(number.findall("\n".join(tables) + sizes))
    assert [one for one in number.findall(prose) if one not in known] == []
    assert number.findall(prose)
