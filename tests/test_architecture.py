"""The arrows between packages, and what consumers may need in Lambda."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("simulator", "producers", "consumers", "loadtests")
FORBIDDEN = {
    "producers": ("simulator", "consumers", "loadtests"),
    "consumers": ("simulator", "producers", "loadtests"),
    "simulator": ("loadtests",),
    "simulator/cloud": (
        "producers",
        "consumers",
        "simulator.league",
        "simulator.race",
        "simulator.peloton",
        "simulator.deployment",
        "simulator.template",
        "simulator.cli",
        "simulator.verdict",
    ),
    "simulator/peloton.py": ("consumers", "producers", "simulator.cloud"),
    "simulator/race.py": ("consumers", "producers", "simulator.cloud", "simulator.league"),
    "simulator/verdict.py": ("consumers", "producers", "simulator.cloud"),
    "simulator/template": ("simulator.cloud", "simulator.league", "producers", "consumers"),
}
LAMBDA_HAS = {"boto3", "botocore", "msgspec", "consumers"}


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def sources(place: str) -> list[Path]:
    path = ROOT / place
    return [path] if path.is_file() else sorted(path.rglob("*.py"))


@pytest.mark.parametrize("place", FORBIDDEN)
def test_arrows_point_down(place: str) -> None:
    found = sources(place)
    assert found
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in found
        for name in imports(path)
        for forbidden in FORBIDDEN[place]
        if name == forbidden or name.startswith(forbidden + ".")
    ]
    assert wrong == []


def test_the_check_sees_an_arrow_that_is_there() -> None:
    assert any(name.startswith("simulator.cloud") for path in sources("simulator/cli.py") for name in imports(path))


def test_handlers_need_only_what_lambda_has() -> None:
    import sys

    for path in sorted((ROOT / "consumers").glob("*.py")):
        roots = {name.partition(".")[0] for name in imports(path)}
        assert roots <= LAMBDA_HAS | sys.stdlib_module_names, path


def test_moto_is_met_in_one_place() -> None:
    users = [path.name for path in sources("simulator") if any(n.partition(".")[0] == "moto" for n in imports(path))]
    assert users == ["moto_store.py"]
