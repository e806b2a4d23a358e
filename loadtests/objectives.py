"""What a load test must keep: objectives from flags and a TOML file, and the judgement of what was measured.

    [objectives]
    max_throttled = "0.1%"
    p99 = "200ms"
    max_iterator_age = "5s"

    [scenarios.wcu-limit]          # overrides, key by key, for this scenario
    p99 = "50ms"
    max_iterator_age = "off"       # not asked of this scenario

Shares are of what was answered, 0 to 1; times are milliseconds. A flag wins over the file. An objective that was
asked for and not measured is missed: a test that saw nothing must not pass.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from pathlib import Path
from typing import Any

from simulator.flags import UsageError

LONGEST_MS = 86_400_000.0
"""No objective on a time may be longer: a day."""
OFF = "off"
_NUMBER = r"\d+(?:\.\d*)?|\.\d+"
_SHARE = re.compile(rf"({_NUMBER})\s*(%?)", re.ASCII)
_TIME = re.compile(rf"({_NUMBER})\s*(ms|s|m)", re.ASCII)
_UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000}


@dataclass(frozen=True, slots=True)
class Objectives:
    """Each the most that is allowed, None when it is not asked for.

    ``max_throttled``, ``max_failed`` and ``max_late`` are shares, 0 to 1.
    """

    max_throttled: float | None = None
    p99_ms: float | None = None
    max_iterator_age_ms: float | None = None
    max_failed: float | None = None
    max_late: float | None = None

    def __bool__(self) -> bool:
        """Whether anything is asked for."""
        return any(getattr(self, one.name) is not None for one in fields(self))


@dataclass(frozen=True, slots=True)
class Judgement:
    """One objective against what was measured; ``why`` it is missed, None when it is kept."""

    name: str
    limit_text: str
    measured_text: str
    passed: bool
    why: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "limit": self.limit_text,
            "measured": self.measured_text,
            "passed": self.passed,
            "why": self.why,
        }


def parse_share(text: str, name: str = "share") -> float:
    """The share, 0 to 1, of ``0.1%`` or ``0.001``. :raises UsageError: that starts with ``name``."""
    match = _SHARE.fullmatch(text.strip())
    if match:
        share = float(Decimal(match[1]) / (100 if match[2] else 1))
        if share <= 1:
            return share
    raise UsageError(f"{name} {text!r}: give a share such as 0.1% or 0.001, from 0% to 100%")


def parse_ms(text: str, name: str = "time") -> float:
    """The milliseconds of ``200ms``, ``1.5s`` or ``2m``. :raises UsageError: that starts with ``name``."""
    match = _TIME.fullmatch(text.strip())
    if match:
        value_ms = float(Decimal(match[1]) * _UNITS_MS[match[2]])
        if 0 < value_ms <= LONGEST_MS:
            return value_ms
    raise UsageError(f"{name} {text!r}: give a time with its unit such as 200ms, 1.5s or 2m, more than 0, up to a day")


def format_share(share: float) -> str:
    """``0.001`` as ``0.1%``; :func:`parse_share` gives exactly ``share`` again."""
    return f"{_plain(Decimal(repr(share)) * 100)}%"


def format_ms(value_ms: float) -> str:
    """``200.0`` as ``200ms``, ``1500.0`` as ``1.5s``; :func:`parse_ms` gives exactly ``value_ms`` again."""
    exact = Decimal(repr(value_ms))
    return f"{_plain(exact / 1000)}s" if exact >= 1000 else f"{_plain(exact)}ms"


def _plain(number: Decimal) -> str:
    """Without exponent and without zeros at the end."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


@dataclass(frozen=True, slots=True)
class _Kind:
    """How values of one kind are read and written."""

    parse: Callable[[str, str], float]
    show: Callable[[float], str]
    allowed: str


_SHARES = _Kind(parse_share, format_share, 'a share such as "0.1%" or 0.001, from 0% to 100%')
_TIMES = _Kind(parse_ms, format_ms, 'a time with its unit such as "200ms" or "1.5s"')
_KEYS: Mapping[str, tuple[str, _Kind]] = {
    "max_throttled": ("max_throttled", _SHARES),
    "p99": ("p99_ms", _TIMES),
    "max_iterator_age": ("max_iterator_age_ms", _TIMES),
    "max_failed": ("max_failed", _SHARES),
    "max_late": ("max_late", _SHARES),
}
"""The file's keys: the member they set, and its kind. Flags are the same with dashes."""


def from_toml(path: Path, scenario: str | None = None, known_scenarios: Collection[str] = ()) -> Objectives:
    """The objectives of the file at ``path`` for ``scenario``.

    Tables of other scenarios are checked too, so that a mistake shows in every run. When ``known_scenarios`` are
    given, a table of any other name is refused.

    :raises UsageError: one line with file, key and what is allowed.
    """
    told = _read(path)
    for key in told:
        if key not in ("objectives", "scenarios"):
            raise UsageError(f"{path}: {key!r} is not known; write [objectives] and [scenarios.NAME]")
    general = _table(path, "objectives", told.get("objectives", {}))
    scenarios = told.get("scenarios", {})
    if not isinstance(scenarios, dict):
        raise UsageError(f"{path}: scenarios: write a table [scenarios.NAME] for each")
    overrides = {}
    for name, table in scenarios.items():
        if known_scenarios and name not in known_scenarios:
            raise UsageError(f"{path}: scenarios.{name}: no such scenario; choose {', '.join(known_scenarios)}")
        overrides[name] = _table(path, f"scenarios.{name}", table)
    if not general and not any(overrides.values()):
        raise UsageError(f"{path}: sets no objective; write [objectives] with some of {', '.join(_KEYS)}")
    return Objectives(**{**general, **overrides.get(scenario or "", {})})


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such file of objectives") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is not UTF-8 text; TOML must be") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{path}: is not TOML: {' '.join(str(error).split())}") from None


def _table(path: Path, where: str, table: Any) -> dict[str, float | None]:
    """The members that one table sets; None for ``off``."""
    if not isinstance(table, dict):
        raise UsageError(f"{path}: {where}: write a table [{where}], not {table!r}")
    found: dict[str, float | None] = {}
    for key, value in table.items():
        if key not in _KEYS:
            raise UsageError(f"{path}: {where}.{key}: no such objective; choose {', '.join(_KEYS)}")
        member, kind = _KEYS[key]
        found[member] = _value(f"{path}: {where}.{key}", value, kind)
    return found


def _value(where: str, value: Any, kind: _Kind) -> float | None:
    """:param where: file and key, for the error."""
    if value == OFF:
        return None
    if isinstance(value, str):
        return kind.parse(value, where)
    # A bare number is a share; as a time it would leave open whether seconds or milliseconds are meant.
    if kind is _SHARES and isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    raise UsageError(f'{where} {value!r}: give {kind.allowed}, or "{OFF}"')


def merged(file: Objectives, flags: Objectives) -> Objectives:
    """Both together; where both ask, the flag wins."""
    found = {}
    for one in fields(Objectives):
        flag = getattr(flags, one.name)
        found[one.name] = getattr(file, one.name) if flag is None else flag
    return Objectives(**found)


def judge(
    objectives: Objectives,
    *,
    throttled_share: float | None,
    failed_share: float | None,
    late_share: float | None,
    p99_ms: float | None,
    iterator_age_ms: float | None,
) -> list[Judgement]:
    """One judgement for each objective that was asked for, in the order of the flags.

    Shares are 0 to 1; None, as NaN, is what was not measured, and misses its objective.
    """
    measured = {
        "max_throttled": throttled_share,
        "p99": p99_ms,
        "max_iterator_age": iterator_age_ms,
        "max_failed": failed_share,
        "max_late": late_share,
    }
    found = []
    for key, (member, kind) in _KEYS.items():
        limit = getattr(objectives, member)
        if limit is not None:
            found.append(_judged(key.replace("_", "-"), limit, measured[key], kind))
    return found


def _judged(name: str, limit: float, measured: float | None, kind: _Kind) -> Judgement:
    if measured is None or measured != measured:
        return Judgement(name, kind.show(limit), "not measured", False, "not measured")
    passed = measured <= limit
    text = kind.show(_rounded(measured, limit))
    return Judgement(name, kind.show(limit), text, passed, None if passed else f"{text}, more than {kind.show(limit)}")


def _rounded(measured: float, limit: float) -> float:
    """``measured`` to three significant digits, or as many more as keep it on its side of ``limit``."""
    for digits in range(3, 17):
        rounded = float(f"{measured:.{digits}g}")
        if rounded == limit and measured != limit:
            continue
        if (rounded <= limit) == (measured <= limit):
            return rounded
    return measured
