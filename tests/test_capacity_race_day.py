"""``race-day`` of samconfig.toml: written by the planner, and it holds for what its command asks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from simulator.capacity.environment import made_by
from simulator.capacity.model import plan
from simulator.capacity.objective import measured, objective_of
from simulator.capacity.workload import Workload
from simulator.deployment import load_deployment

ROOT = Path(__file__).resolve().parents[1]
SAMCONFIG = ROOT / "samconfig.toml"


@pytest.fixture(scope="module")
def command() -> list[str]:
    found = made_by(SAMCONFIG, "race-day")
    assert found is not None, "race-day is not as --write-env wrote it"
    return found


def value(command: list[str], flag: str) -> str:
    return command[command.index(flag) + 1]


def test_it_is_for_six_classes_of_a_thousand_at_once(command: list[str]) -> None:
    assert command[:2] == ["alleycat", "plan"]
    assert "--advise" in command
    assert value(command, "--classes") == "1,2,3,4,5,6"
    assert value(command, "--racers") == "1000"
    assert value(command, "--write-env") == "race-day"
    # Flags that the test below does not know would change what is asked.
    known = {"--classes", "--racers", "--objective", "--write-env", "--set", "--advise"}
    assert {word for word in command if word.startswith("--")} <= known


def test_it_holds(command: list[str]) -> None:
    deployment = load_deployment(ROOT / "template.yaml", "race-day")
    assert deployment.stack_name == "alleycat"
    found = plan(deployment, Workload(racers=1000, classes=(1, 2, 3, 4, 5, 6)))
    assert measured(found).misses(objective_of(value(command, "--objective"))) == []


def test_it_has_only_parameters_of_the_template() -> None:
    deployment = load_deployment(ROOT / "template.yaml", "race-day")
    text = SAMCONFIG.read_text().partition("[race-day.deploy.parameters]")[2]
    names = re.findall(r'^    "(\w+)=', text, re.MULTILINE)
    assert names
    assert set(names) <= set(deployment.parameters)
    assert all(deployment.origins[name] == "samconfig.toml [race-day]" for name in names)
