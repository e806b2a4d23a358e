"""Objectives: read from flags and TOML, merged, judged."""

from __future__ import annotations

import math
import string
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.objectives import (
    LONGEST_MS,
    Judgement,
    Objectives,
    format_ms,
    format_share,
    from_toml,
    judge,
    merged,
    parse_ms,
    parse_share,
)
from simulator.flags import UsageError

shares = st.floats(0, 1, allow_nan=False)
times_ms = st.floats(0, LONGEST_MS, exclude_min=True, allow_nan=False)
NOTHING: dict[str, Any] = dict.fromkeys(("throttled_share", "failed_share", "late_share", "p99_ms", "iterator_age_ms"))


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "objectives.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "share"),
    [("0.1%", 0.001), ("0.001", 0.001), ("0%", 0), ("0", 0), ("100%", 1), ("1", 1), (" 5 % ", 0.05), (".5%", 0.005)],
)
def test_shares_are_read(text: str, share: float) -> None:
    assert parse_share(text) == share


@pytest.mark.parametrize(
    ("text", "value_ms"), [("200ms", 200), ("5s", 5000), ("1.5s", 1500), ("0.5 ms", 0.5), ("2m", 120_000)]
)
def test_times_are_read(text: str, value_ms: float) -> None:
    assert parse_ms(text) == value_ms


@pytest.mark.parametrize("text", ["", "%", "5", "101%", "-1%", "nan", "inf", "1e-3", "0,1%", "0.1 percent", "٣%"])
def test_other_shares_are_refused(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_share(text, "--max-throttled")
    assert str(refused.value).startswith(f"--max-throttled {text!r}: give a share such as 0.1%")


@pytest.mark.parametrize("text", ["", "200", "0ms", "0s", "-5s", "5h", "infs", "5 seconds", "ms", "1441m", "٣s"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_ms(text, "--p99")
    assert str(refused.value).startswith(f"--p99 {text!r}: give a time with its unit such as 200ms")


@given(shares)
def test_a_share_comes_back_exactly(share: float) -> None:
    assert parse_share(format_share(share)) == share


@given(times_ms)
def test_a_time_comes_back_exactly(value_ms: float) -> None:
    assert parse_ms(format_ms(value_ms)) == value_ms


@given(st.text(string.digits + ".%msh-+ e", max_size=12))
def test_any_text_is_a_value_in_range_or_one_clear_line(text: str) -> None:
    for parse, most in ((parse_share, 1.0), (parse_ms, LONGEST_MS)):
        try:
            assert 0 <= parse(text) <= most
        except UsageError as refused:
            assert "\n" not in str(refused)
            assert "give a" in str(refused)


def test_formats_are_short() -> None:
    assert [format_share(x) for x in (0.001, 0.05, 1, 0)] == ["0.1%", "5%", "100%", "0%"]
    assert [format_ms(x) for x in (200, 999.5, 1000, 1500, 0.25)] == ["200ms", "999.5ms", "1s", "1.5s", "0.25ms"]


def test_a_file_is_read_and_a_scenario_overrides_key_by_key(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        [objectives]
        max_throttled = "0.1%"
        p99 = "200ms"
        max_iterator_age = "5s"
        max_failed = 0.01
        [scenarios.shard-limit]
        p99 = "1.5s"
        max_late = 1
        max_iterator_age = "off"
        """,
    )
    assert from_toml(path) == Objectives(0.001, 200.0, 5000.0, 0.01, None)
    assert from_toml(path, "soak") == from_toml(path)
    assert from_toml(path, "shard-limit", ("shard-limit",)) == Objectives(0.001, 1500.0, None, 0.01, 1.0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[objectives]\np99 = 200", 'objectives.p99 200: give a time with its unit such as "200ms"'),
        ("[objectives]\np99 = '200'", "objectives.p99 '200': give a time with its unit"),
        ("[objectives]\nmax_throttled = 5", 'objectives.max_throttled 5: give a share such as "0.1%"'),
        ("[objectives]\nmax_throttled = true", "objectives.max_throttled True: give a share"),
        ("[objectives]\nmax_throttled = nan", "objectives.max_throttled nan: give a share"),
        ("[objectives]\nmax_throttled = -0.1", "objectives.max_throttled -0.1: give a share"),
        ("[objectives]\nmax_throttled = ['1%']", "objectives.max_throttled ['1%']: give a share"),
        ("[objectives]\np95 = '1s'", "objectives.p95: no such objective; choose max_throttled, p99,"),
        ("[scenarios.soak]\nmax_late = '2'", "scenarios.soak.max_late '2': give a share"),
        ("[scenarios.sock]\np99 = '1s'", "scenarios.sock: no such scenario; choose shard-limit, soak"),
        ("p99 = '1s'", "'p99' is not known; write [objectives]"),
        ("objectives = 3", "objectives: write a table [objectives], not 3"),
        ("scenarios = 3", "scenarios: write a table [scenarios.NAME]"),
        ("[scenarios]\nsoak = 1", "scenarios.soak: write a table [scenarios.soak], not 1"),
        ("", "sets no objective; write [objectives] with some of max_throttled,"),
        ("[objectives]\n[scenarios.soak]", "sets no objective"),
        ("[objectives\n", "is not TOML: "),
    ],
)
def test_a_bad_file_is_told_in_one_line_with_file_and_key(tmp_path: Path, text: str, says: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UsageError) as refused:
        from_toml(path, "shard-limit", ("shard-limit", "soak"))
    assert str(refused.value).startswith(f"{path}: {says}")
    assert "\n" not in str(refused.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such file"):
        from_toml(tmp_path / "none.toml")
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        from_toml(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"# \xe9\n")
    with pytest.raises(UsageError, match="is not UTF-8"):
        from_toml(tmp_path / "latin.toml")


asked = st.builds(Objectives, *(st.none() | kind for kind in (shares, times_ms, times_ms, shares, shares)))


@given(asked, asked)
def test_flags_win_and_nothing_else_is_lost(file: Objectives, flags: Objectives) -> None:
    both = merged(file, flags)
    for one in fields(Objectives):
        flag = getattr(flags, one.name)
        assert getattr(both, one.name) == (getattr(file, one.name) if flag is None else flag)
    assert bool(both) == (bool(file) or bool(flags))


def test_a_zero_from_a_flag_is_asked_for() -> None:
    assert merged(Objectives(max_failed=0.5), Objectives(max_failed=0.0)) == Objectives(max_failed=0.0)
    assert Objectives(max_failed=0.0)
    assert not Objectives()


def test_judgements_come_in_the_order_of_the_flags_and_only_for_what_is_asked() -> None:
    wanted = Objectives(0.001, 200.0, 5000.0, 0.0, 0.05)
    measured = {
        "throttled_share": 0.0003,
        "p99_ms": 250.04,
        "iterator_age_ms": 5000.0,
        "failed_share": 0.0,
        "late_share": 0.2,
    }
    assert judge(wanted, **measured) == [
        Judgement("max-throttled", "0.1%", "0.03%", True),
        Judgement("p99", "200ms", "250ms", False, "250ms, more than 200ms"),
        Judgement("max-iterator-age", "5s", "5s", True),
        Judgement("max-failed", "0%", "0%", True),
        Judgement("max-late", "5%", "20%", False, "20%, more than 5%"),
    ]
    assert judge(Objectives(), **measured) == []
    assert judge(wanted, **measured)[0].to_json() == {
        "name": "max-throttled",
        "limit": "0.1%",
        "measured": "0.03%",
        "passed": True,
        "why": None,
    }


@pytest.mark.parametrize("nothing", [None, math.nan])
def test_what_was_not_measured_is_missed(nothing: float | None) -> None:
    found = judge(Objectives(1.0, LONGEST_MS, LONGEST_MS, 1.0, 1.0), **dict.fromkeys(NOTHING, nothing))
    assert len(found) == 5
    assert {(one.passed, one.measured_text, one.why) for one in found} == {(False, "not measured", "not measured")}


@given(shares, shares)
def test_the_measured_text_is_on_the_side_the_judgement_says(limit: float, measured: float) -> None:
    """Rounding must not print 0.1% beside a limit of 0.1% that was missed."""
    (found,) = judge(Objectives(max_throttled=limit), **{**NOTHING, "throttled_share": measured})
    assert found.passed == (measured <= limit)
    assert (parse_share(found.measured_text) <= parse_share(found.limit_text)) == found.passed


def test_a_hair_over_the_limit_shows() -> None:
    (found,) = judge(Objectives(p99_ms=200.0), **{**NOTHING, "p99_ms": 200.0004})
    assert (found.passed, found.measured_text) == (False, "200.0004ms")
