"""The settings of a load test: one list, from which Locust's flags and ``alleycat loadtest``'s are both made."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from loadtests.payloads import key_choice
from simulator.flags import UsageError

SHAPES = ("search", "steps", "ramp", "spike", "soak", "race-day", "burst")
APIS = ("PutRecords", "PutRecord")
ARRIVALS = ("even", "poisson")
READS = ("both", "class", "race")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}


def duration_s(text: str) -> float:
    """Seconds in ``90``, ``1.5s``, ``200ms``, ``5m`` or ``1h``. :raises ValueError:"""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError("give a time such as 200ms, 4s or 5m")
    return float(match[1]) * _SECONDS[match[2]]


def _number(low: float, high: float, whole: bool = False) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            value = int(text) if whole else float(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise ValueError(f"give a {'whole ' if whole else ''}number from {low:,.6g} to {high:,.6g}")
        return value

    return read


def _one_of(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"choose {', '.join(choices[:-1])} or {choices[-1]}")
        return text

    return read


def _key(text: str) -> str:
    try:
        key_choice(text)
    except UsageError as error:
        raise ValueError(str(error).partition(": ")[2]) from None
    return text


def _seconds(text: str) -> float:
    value = duration_s(text)
    if value > 7 * 86_400:
        raise ValueError("give at most 7 days")
    return value


def _some_seconds(text: str) -> float:
    value = _seconds(text)
    if value <= 0:
        raise ValueError("give more than 0 s")
    return value


def _setting(default: Any, help: str, read: Callable[[str], Any]) -> Any:  # noqa: A002 - argparse's own word
    return field(default=default, metadata={"help": help, "read": read})


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """What may be set about any scenario; None leaves it to the scenario. Rates are in the scenario's unit a second.

    Each member is a flag: ``stage_time`` is ``--stage-time`` and ``ALLEYCAT_STAGE_TIME``.
    """

    shape: str | None = _setting(None, f"Load over time: {', '.join(SHAPES)}.", _one_of(*SHAPES))
    rate: float | None = _setting(
        None, "Highest rate: where a search starts to end, a ramp ends, a soak stays.", _number(0.01, 1e8)
    )
    at_least: float | None = _setting(
        None,
        "The rate that must hold, such as race day's: the verdict, and how far the knee is from it.",
        _number(0.01, 1e8),
    )
    start_rate: float | None = _setting(None, "First rate of a search, steps or a ramp.", _number(0.01, 1e8))
    stage_time: float | None = _setting(None, "Length of a stage of a search or of steps: 4s.", _some_seconds)
    hold_time: float | None = _setting(None, "How long a load over the limit is held: 8s.", _seconds)
    rest_time: float | None = _setting(None, "Idle time before, in which a table saves burst: 10s.", _seconds)
    length: float | None = _setting(None, "Length of a ramp, a spike, a soak or each race: 5m.", _some_seconds)
    races: int | None = _setting(None, "Races of a race day.", _number(1, 1000, whole=True))
    steps: int = _setting(5, "Number of steps.", _number(1, 1000, whole=True))
    precision: float = _setting(0.01, "How exactly a search finds the knee: 0.01 is 1 %.", _number(0.001, 0.5))
    api: str = _setting("PutRecords", "How records are put: PutRecords, or PutRecord one by one.", _one_of(*APIS))
    key: str = _setting("", "Where records go: even, racer, random or zipf:S.", _key)
    record_bytes: int = _setting(0, "Gather messages into records of about so many bytes.", _number(0, 1e6, whole=True))
    batch: int = _setting(0, "Records or items a request; 0 fits them to the rate.", _number(0, 500, whole=True))
    racers: int = _setting(1000, "Bikers whose messages a process sends.", _number(1, 1e6, whole=True))
    item_racers: int = _setting(100, "Racers in a results item; it costs 1 WCU a KiB.", _number(1, 28_000, whole=True))
    seed: int = _setting(7, "The same seed sends the same telemetry.", _number(0, 2**31, whole=True))
    arrivals: str = _setting("even", "Arrivals: even, or poisson.", _one_of(*ARRIVALS))
    connections: int | None = _setting(
        None, "Connections (Locust users) in all; a request that finds none free is late.", _number(1, 100_000, True)
    )
    retries: int = _setting(0, "How often what was throttled is sent again.", _number(0, 100, whole=True))
    timeout: float = _setting(10.0, "A request without an answer after this failed: 10s.", _some_seconds)
    read: str = _setting("both", "Leaderboards that readers ask for: class, race or both.", _one_of(*READS))
    consistent: str = _setting("no", "Strongly consistent reads of races: yes or no.", _one_of("yes", "no"))
    qos: int = _setting(1, "MQTT quality of service.", _number(0, 1, whole=True))
    topic: str = _setting("alleycat-publish", "Topic that bikers publish to.", str)

    @property
    def record_key(self) -> str:
        return self.key or "racer"

    @property
    def timeout_s(self) -> float:
        return self.timeout


FLAGS = {one.name: (f"--{one.name.replace('_', '-')}", one.metadata) for one in fields(LoadSettings)}


def settings_from(given: Mapping[str, str | None]) -> LoadSettings:
    """Settings from flags' texts by member name; what is None or empty keeps its default.

    :raises UsageError: naming the flag and what it takes.
    """
    read = {}
    for name, (flag, metadata) in FLAGS.items():
        text = given.get(name)
        if text is None or text == "":
            continue
        try:
            read[name] = metadata["read"](str(text))
        except ValueError as error:
            raise UsageError(f"{flag} {text!r}: {error}") from None
    return LoadSettings(**read)
