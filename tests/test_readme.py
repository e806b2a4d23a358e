"""Every command of the README runs. Long ones are shortened by the environment, which flags would override."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.limit_report import write_json
from tests.loadtest_reports import limit

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", README, re.S) for line in block.strip().splitlines()]


def test_there_are_commands_and_the_first_screen_is_the_two() -> None:
    assert len(COMMANDS) >= 5
    assert "$ make race\n$ make test\n" in README.partition("## Ten")[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands(command: str, tmp_path: Path) -> None:
    words = shlex.split(command)
    assert words[0] == "alleycat"
    # The same flags, with fewer bikers and seconds, a free port, and output elsewhere.
    words = [
        {"1000": "20", "60s": "3s", "10s": "3s", "200": "20", "out/report": str(tmp_path)}.get(w, w) for w in words
    ]
    if words[1] in ("race", "cloud", "consume"):
        words += ["--port", "0"]
    if words[1] in ("race", "cloud"):
        words += ["--mqtt-port", "0"]
    words = [str(tmp_path / word) if word.startswith("out/") else word for word in words]
    if words[1:3] == ["loadtest", "compare"]:
        for place in words[3:]:
            write_json(limit(), Path(place))
    elif words[1] == "loadtest" and "--list" not in words:
        words += ["--rate", "40", "--start-rate", "30", "--stage-time", "1s", "--length", "3s", "--rest-time", "1s"]
        words = ["5s" if word == "200ms" else word for word in words]
    process = subprocess.Popen(
        [sys.executable, "-c", "from simulator.cli import main; main()", *words[1:]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    first = ""
    if words[1] == "cloud":
        first = process.stdout.readline()
        assert first.startswith("AWS endpoint: http://127.0.0.1:")
        process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert first + out


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in ("race", "test", "lint", "bench"):
        assert re.search(rf"^{target}:", makefile, re.M)
        assert f"make {target}" in README or target == "lint"
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_python_examples(tmp_path: Path) -> None:
    for_pytest, plain = re.findall(r"```python\n(.*?)```", README, re.S)
    done = subprocess.run(
        [sys.executable, "-c", plain], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("http://127.0.0.1:")
    (tmp_path / "test_example.py").write_text(for_pytest)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_the_sample_output_is_what_the_code_prints() -> None:
    """The words of the sample are those of the terminal, so that it cannot go stale unseen."""
    terminal = (ROOT / "simulator" / "terminal.py").read_text()
    for words in ("PASSED: every stored number is right", "after the intended send time", "messages"):
        assert words in README
        assert words in terminal
