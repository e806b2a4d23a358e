"""An experiment: every case planned, and all of them in one table.

What stands in a row is worked out once (:func:`compared`), so that the screen, ``experiment.json`` and the Markdown
that documents quote cannot say different things.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from simulator.capacity.delays import slowest_s
from simulator.capacity.experiment_file import Case, Experiment, ExperimentError
from simulator.capacity.model import DRAIN_S, Plan, PlanError, plan
from simulator.capacity.prices import PRICES, Price
from simulator.capacity.report import as_json as plan_as_json
from simulator.capacity.view import clock_text
from simulator.cloud.limits import SHARD_WRITE_BYTES, SHARD_WRITE_RECORDS, LimitSettings
from simulator.deployment import to_dict

SCHEMA = 1
SERVICES = {"iot": "IoT Core", "kinesis": "Kinesis", "lambda": "Lambda", "dynamodb": "DynamoDB"}
_LATE = f"> {DRAIN_S:,.0f}"


@dataclass(frozen=True, slots=True)
class Compared:
    """A case and what its plan came to. Times are seconds from the start of the first race, or, ``settled_s``, from
    the finish; None where the plan gave up first. Peaks are of one second, of reads and writes of one minute, and
    of the busiest shard, function and table.
    ``told`` is the plan's own JSON, without its timeline."""

    case: Case
    told: Mapping[str, Any]
    first_limit: str | None
    first_s: float | None
    throttled_records: int
    throttled_writes: int
    timeouts: int
    iterator_age_s: float
    settled_s: float | None
    p99_s: float | None
    lost: int
    records_peak: int
    bytes_share: float
    concurrency: int
    duration_s: float
    writes_peak: float
    reads_peak: float
    usd: float
    usd_by_service: Mapping[str, float]

    @property
    def holds(self) -> bool:
        return bool(self.told["holds"])


def run(
    experiment: Experiment,
    *,
    settings: LimitSettings | None = None,
    prices: Mapping[str, Price] = PRICES,
) -> list[Compared]:
    """All cases, one after the other.

    :raises ExperimentError: a case that the planner does not know.
    """
    return [compared(case, settings, prices) for case in experiment.cases]


def compared(case: Case, settings: LimitSettings | None = None, prices: Mapping[str, Price] = PRICES) -> Compared:
    """:raises ExperimentError:"""
    try:
        result = plan(case.deployment, case.workload, settings=settings, prices=prices)
    except PlanError as error:
        raise ExperimentError(f"[[case]] {case.name!r}: {error}") from None
    told = plan_as_json(result, with_timeline=False)
    functions, first = told["functions"], told["first_limit"]
    peak = max(int(one["peak_accepted_per_second"]) for one in told["shards"])
    return Compared(
        case=case,
        told=told,
        first_limit=f"{first['name']} of {first['resource']}" if first else None,
        first_s=first["first_s"] if first else None,
        throttled_records=told["ledger"]["throttled"],
        throttled_writes=sum(one["throttled_writes"] for one in told["tables"]),
        timeouts=sum(one["timeouts"] for one in functions),
        iterator_age_s=max((one["iterator_age_ms_max"] for one in functions), default=0) / 1e3,
        settled_s=told["settled_s"],
        p99_s=slowest_s(result),
        lost=told["ledger"]["lost"],
        records_peak=peak,
        bytes_share=peak * told["run"]["record_bytes"] / SHARD_WRITE_BYTES.value,
        concurrency=max((one["concurrency_max"] for one in functions), default=0),
        duration_s=max((one["duration_ms"]["max"] for one in functions), default=0) / 1e3,
        writes_peak=max(
            (_busiest_minute(result, "consumed_write_units", one.name) for one in result.tables), default=0
        ),
        reads_peak=max((_busiest_minute(result, "consumed_read_units", one.name) for one in result.tables), default=0),
        usd=told["bill"]["total_usd"],
        usd_by_service=_by_service(told["bill"]["lines"]),
    )


def _busiest_minute(result: Plan, metric: str, table: str) -> float:
    """Units a second, as a mean over a minute: what monitoring pages show."""
    series = result.timeline.series(metric, table, result.seconds)
    return max((sum(series[at : at + 60]) / 60 for at in range(0, len(series), 60)), default=0.0)


def _by_service(lines: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    found = dict.fromkeys(SERVICES.values(), 0.0)
    for line in lines:
        found[SERVICES[str(line["line"]).partition(".")[0]]] += line["usd"]
    return found


# -- one table, three ways -----------------------------------------------------------------------------------

Row = Sequence[str]
OUTCOMES = (
    "case",
    "breaks first",
    "at",
    "throttled records",
    "throttled writes",
    "timeouts",
    "iterator age, s",
    "settled, s",
    "p99, s",
    "USD",
)
_SHORT = ("case", "breaks first", "at", "records", "writes", "killed", "age s", "settled", "p99 s", "USD")
PRESSURE = (
    "case",
    "records/s of a shard",
    "bytes/s of a shard",
    "writes, units/s",
    "reads, units/s",
    "invocations at once",
    "longest, s",
)
BILL = ("case", *SERVICES.values(), "together, USD")


def outcomes(found: Iterable[Compared]) -> list[Row]:
    """What broke, what came of it, and what it costs: a row a case, as :data:`OUTCOMES` heads them."""
    return [
        (
            one.case.name,
            _limit_text(one.told["first_limit"]),
            "" if one.first_s is None else clock_text(one.first_s),
            f"{one.throttled_records:,}",
            f"{one.throttled_writes:,}",
            f"{one.timeouts:,}",
            f"{one.iterator_age_s:,.1f}",
            _seconds(one.settled_s),
            _seconds(one.p99_s),
            f"{one.usd:,.2f}",
        )
        for one in found
    ]


def pressure(found: Iterable[Compared]) -> list[Row]:
    """How near the busiest shard and function came to their limits, as :data:`PRESSURE` heads them."""
    return [
        (
            one.case.name,
            f"{one.records_peak:,} of {SHARD_WRITE_RECORDS.value:,.0f}",
            f"{one.bytes_share:.0%}",
            f"{one.writes_peak:,.0f} of {_provisioned(one, 'write')}",
            f"{one.reads_peak:,.0f} of {_provisioned(one, 'read')}",
            f"{one.concurrency}",
            f"{one.duration_s:,.1f}",
        )
        for one in found
    ]


def _provisioned(one: Compared, direction: str) -> str:
    """Of the tables, without their indexes."""
    tables = [table for table in one.told["tables"] if "/" not in table["resource"]]
    units = max((float(table[f"provisioned_{direction}_units"]) for table in tables), default=0.0)
    return f"{units:,.0f}" if units else "any"


def bills(found: Iterable[Compared]) -> list[Row]:
    """USD by service, as :data:`BILL` heads them."""
    return [
        (one.case.name, *(f"{usd:,.3f}" for usd in one.usd_by_service.values()), f"{one.usd:,.3f}") for one in found
    ]


def _limit_text(first: Mapping[str, Any] | None) -> str:
    """``kinesis.shard.write.records_per_second`` and a resource, in a few words."""
    if first is None:
        return "nothing"
    service, *parts = str(first["name"]).split(".")
    index = str(first["resource"]).partition("/")[2]
    if service == "dynamodb":
        key = ", of one key" if "partition" in parts else ""
        return f"{'index' if index else 'table'} {parts[1]}s{key}"
    if service == "kinesis":
        return f"shard {parts[1]}s, {parts[2].partition('_')[0]}"
    return f"{service} {' '.join(parts)}".replace("_seconds", "").replace("_", " ")


def _seconds(value: float | None) -> str:
    return _LATE if value is None else f"{value:,.1f}"


def as_json(experiment: Experiment, found: Iterable[Compared]) -> dict[str, Any]:
    """``experiment.json``: each case with what was asked for and the plan, without timelines."""
    return {
        "schema": SCHEMA,
        "experiment": {"name": experiment.name, "about": experiment.about},
        "cases": [
            {
                "name": one.case.name,
                "about": one.case.about,
                "config_env": one.case.config_env,
                "parameters": dict(one.case.parameters),
                "properties": to_dict(one.case.properties),
                "holds": one.holds,
                "first_limit": one.told["first_limit"],
                "throttled_records": one.throttled_records,
                "throttled_writes": one.throttled_writes,
                "timeouts": one.timeouts,
                "iterator_age_s_max": round(one.iterator_age_s, 3),
                "settled_s": one.settled_s,
                "p99_s": None if one.p99_s is None else round(one.p99_s, 3),
                "lost": one.lost,
                "concurrency_max": one.concurrency,
                "duration_s_max": round(one.duration_s, 3),
                "usd": one.usd,
                "usd_by_service": {name: round(usd, 6) for name, usd in one.usd_by_service.items()},
                "plan": one.told,
            }
            for one in found
        ],
    }


def as_markdown(experiment: Experiment, found: Sequence[Compared]) -> str:
    """``experiment.md``: the tables as documents quote them."""
    titles = (
        ("What breaks, and what it costs", OUTCOMES, outcomes(found)),
        ("How near the limits", PRESSURE, pressure(found)),
        ("The bill by service", BILL, bills(found)),
    )
    parts = [f"# {experiment.name}", experiment.about]
    parts += [f"## {title}\n\n{_markdown(head, rows)}" for title, head, rows in titles]
    return "\n\n".join(part for part in parts if part) + "\n"


def _markdown(head: Row, rows: Iterable[Row]) -> str:
    ruled = (":--", *("--:" for _ in head[1:]))
    return "\n".join(f"| {' | '.join(_cell(one) for one in row)} |" for row in (head, ruled, *rows))


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def render(experiment: Experiment, found: Sequence[Compared]) -> RenderableType:
    """The table on a terminal, and what was left out."""
    grid = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for place, title in enumerate(_SHORT):
        # Words may wrap on a narrow terminal, numbers may not.
        if place < 2:
            grid.add_column(title, min_width=12)
        else:
            grid.add_column(title, justify="right", no_wrap=True)
    for row, one in zip(outcomes(found), found, strict=True):
        grid.add_row(*map(Text, row), style=None if one.holds else "red" if not one.told["recovers"] else "yellow")
    left_out = sorted({line for one in found for line in one.told["not_modelled"]})
    notes = [Text(f"not planned: {line}", style="dim") for line in left_out]
    return Group(Text(f"{experiment.name}: {experiment.about}" if experiment.about else experiment.name), grid, *notes)
