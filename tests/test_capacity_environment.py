"""Environments that ``--write-env`` puts into samconfig.toml: what is written, what is kept, what is refused."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from datetime import date
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from test_plan_command import run

from simulator.capacity.environment import WriteError, Written, check_environment, made_by, write_environment
from simulator.deployment import load_deployment
from simulator.template.samconfig import read_environment

ROOT = Path(__file__).resolve().parents[1]
BEFORE = """\
version = 0.1   # kept

# Of the default.
[default.deploy.parameters]
stack_name = "club"
resolve_s3 = true
parameter_overrides = "A=1 B=2"

# Of another, which comes later.
[other]
deploy = { parameters = { parameter_overrides = ["A=3"] } }
"""


def written(overrides: dict[str, str], name: str = "race-day", command: str = "alleycat plan --advise") -> Written:
    return Written(name, overrides, command, ("what it came to",), date(2026, 11, 28))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "samconfig.toml"
    found.write_bytes(BEFORE.encode())
    return found


def test_an_environment_is_added_and_nothing_else_changes(path: Path) -> None:
    write_environment(path, "default", written({"ShardCount": "8", "Key": "${racerId} x"}))
    after = path.read_text()
    assert after == BEFORE + (
        "\n# Written by alleycat plan on 2026-11-28: change the command and run it again, rather than the numbers.\n"
        "# alleycat plan --advise\n"
        "# what it came to\n"
        "[race-day.deploy.parameters]\n"
        'stack_name = "club"\n'
        "resolve_s3 = true\n"
        "parameter_overrides = [\n"
        '    "ShardCount=8",\n'
        '    "Key=\\"${racerId} x\\"",\n'
        "]\n"
    )
    assert read_environment(path, "race-day").overrides == {"ShardCount": "8", "Key": "${racerId} x"}
    assert read_environment(path, "race-day").stack_name == "club"


@pytest.mark.parametrize("ending", ["", "\n# Behind it.\n[more.deploy.parameters]\nparameter_overrides = []\n"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_only_its_own_block_is_replaced(path: Path, ending: str, newline: str) -> None:
    path.write_bytes(BEFORE.replace("\n", newline).encode())
    write_environment(path, "default", written({"A": "1"}, command="alleycat plan -u 1"))
    path.write_bytes(path.read_bytes() + ending.replace("\n", newline).encode())
    before = path.read_bytes()
    write_environment(path, "default", written({"A": "2", "B": "3"}, command="alleycat plan -u 2"))
    after = path.read_bytes()
    assert after.startswith(BEFORE.replace("\n", newline).encode())
    assert after.endswith(ending.replace("\n", newline).encode())
    assert read_environment(path, "race-day").overrides == {"A": "2", "B": "3"}
    assert made_by(path, "race-day") == ["alleycat", "plan", "-u", "2"]
    write_environment(path, "default", written({"A": "1"}, command="alleycat plan -u 1"))
    assert path.read_bytes() == before


def test_without_a_file_there_is_one(tmp_path: Path) -> None:
    path = tmp_path / "samconfig.toml"
    write_environment(path, "default", written({"A": "1"}))
    assert tomllib.loads(path.read_text())["version"] == 0.1
    assert read_environment(path, "race-day").overrides == {"A": "1"}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("other", "an environment 'other' that was not written by --write-env"),
        ("default", "'default' is where the search begins"),
        ("a.b", "'a.b' cannot be an environment"),
        ("", "'' cannot be an environment"),
        ("x]\n[y", "cannot be an environment"),
    ],
)
def test_what_is_not_its_own_is_not_touched(path: Path, name: str, told: str) -> None:
    with pytest.raises(WriteError) as caught:
        check_environment(path, name, "default")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == BEFORE.encode()


@pytest.mark.parametrize(
    "addition",
    ["\nmore = 1\n", "\n[race-day.build.parameters]\ncached = true\n"],
    ids=["a key of its table", "another table"],
)
def test_what_somebody_added_to_it_is_not_lost(path: Path, addition: str) -> None:
    write_environment(path, "default", written({"A": "1"}))
    path.write_text(path.read_text() + addition)
    before = path.read_bytes()
    with pytest.raises(WriteError, match="not written by --write-env"):
        write_environment(path, "default", written({"A": "2"}))
    assert path.read_bytes() == before


def test_a_broken_file_is_left_as_it_is(path: Path) -> None:
    path.write_bytes(b"[default\n")
    with pytest.raises(WriteError, match="is not TOML"):
        write_environment(path, "default", written({"A": "1"}))
    assert path.read_bytes() == b"[default\n"


def test_a_command_of_two_lines_does_not_leave_its_comment(path: Path) -> None:
    with pytest.raises(WriteError, match="in a comment of one line"):
        write_environment(path, "default", written({"A": "1"}, command="alleycat\n[default]"))
    assert path.read_bytes() == BEFORE.encode()


@example("\\")
@example('say "x"')
@given(st.text(max_size=30))
def test_any_value_is_read_as_it_was_or_refused(tmp_path_factory: pytest.TempPathFactory, value: str) -> None:
    path = tmp_path_factory.mktemp("any") / "samconfig.toml"
    try:
        write_environment(path, "default", written({"A": value, "B": "1"}))
    except WriteError as error:
        assert str(error).isprintable()
        assert not path.exists()
    else:
        assert read_environment(path, "race-day").overrides == {"A": value, "B": "1"}


# -- the command -----------------------------------------------------------------------------------------------


def advised(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """``alleycat plan --advise`` of few bikers, on a copy of our template in ``folder``."""
    few = ("--advise", "-u", "40", "-t", "10s", "--limit", "shard_rate_factor=0.05", "--template")
    return run(*few, str(folder / "template.yaml"), *flags)


def test_the_command_writes_what_it_advises(tmp_path: Path) -> None:
    for name in ("template.yaml", "samconfig.toml"):
        shutil.copy(ROOT / name, tmp_path)
    for folder in ("consumers", "simulator"):
        (tmp_path / folder).mkdir()
    before = (tmp_path / "samconfig.toml").read_text()
    done = advised(tmp_path, "--write-env", "sunday", "--set", "FunctionTimeout=60", "--json")
    assert done.returncode == 0, done.stderr
    assert "wrote [sunday] of " in done.stderr
    path = tmp_path / "samconfig.toml"
    assert path.read_text().startswith(before)
    command = made_by(path, "sunday")
    assert command is not None
    assert command[:2] == ["alleycat", "plan"]
    assert "--json" not in command
    assert command[command.index("--set") + 1] == "FunctionTimeout=60"
    import json

    chosen = json.loads(done.stdout)["advice"]["parameters"]
    overrides = read_environment(path, "sunday").overrides
    assert overrides.items() >= {name: str(value) for name, value in chosen.items()}.items()
    assert overrides["FunctionTimeout"] == "60"
    # Units mean nothing on demand.
    assert ("WriteCapacityUnits" in overrides) == (overrides["BillingMode"] == "PROVISIONED")
    deployment = load_deployment(tmp_path / "template.yaml", "sunday")
    assert deployment.stack_name == "alleycat"
    # The command that the comment tells writes the same.
    first = path.read_text()
    again = subprocess.run(
        [sys.executable, "-c", "from simulator.cli import main; main()", *command[1:]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 0, again.stderr
    assert path.read_text() == first


def test_what_nothing_holds_is_not_written(tmp_path: Path) -> None:
    shutil.copy(ROOT / "template.yaml", tmp_path)
    for folder in ("consumers", "simulator"):
        (tmp_path / folder).mkdir()
    done = advised(tmp_path, "--write-env", "sunday", "--objective", "p99=1ms")
    assert done.returncode == 1
    assert not (tmp_path / "samconfig.toml").exists()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--write-env", "x"), "--write-env goes with --advise"),
        (("--advise", "--write-env", "as-published"), "not written by --write-env"),
        (("--advise", "--write-env", "a b"), "'a b' cannot be an environment"),
    ],
)
def test_impossible_names_are_told_before_anything_is_planned(flags: tuple[str, ...], told: str) -> None:
    done = run("-u", "30000", "-t", "1h", *flags)
    assert done.returncode == 2
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
