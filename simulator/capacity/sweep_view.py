"""A sweep as a table, as ``sweep.json`` and as the heat maps of ``sweep.html``; and ``alleycat plan --sweep``."""

from __future__ import annotations

import html
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots
from rich.console import Console
from rich.table import Table

from simulator.capacity.functions import Durations
from simulator.capacity.objective import value_text
from simulator.capacity.prices import Price
from simulator.capacity.sweep import Cell, Swept, sweep, sweep_of
from simulator.capacity.trials import Deploy
from simulator.capacity.workload import Workload
from simulator.cloud.limits import LimitSettings

JSON_FILE, PAGE_FILE = "sweep.json", "sweep.html"
_COLOURS = {"holds": "green", "throttles": "yellow", "breaks": "red"}
_VERDICTS = ("breaks", "throttles", "holds")
_GOOD_IS_LOW = "RdYlGn_r"
_MAP_HEIGHT = 380

_Value = Callable[[Cell], float]
_MAPS: tuple[tuple[str, _Value, Callable[[Cell], str]], ...] = (
    ("does it hold", lambda cell: float(_VERDICTS.index(cell.verdict)), lambda cell: cell.verdict),
    (
        "results complete after the finish, s",
        lambda cell: cell.found.values["settled"],
        lambda cell: value_text("settled", cell.found.values["settled"]),
    ),
    (
        "p99 from a biker to a result, s",
        lambda cell: cell.found.values["p99"],
        lambda cell: value_text("p99", cell.found.values["p99"]),
    ),
    (
        "throttled by the stream, %",
        lambda cell: cell.found.values["throttled"] * 100,
        lambda cell: value_text("throttled", cell.found.values["throttled"]),
    ),
    ("bill, USD", lambda cell: cell.found.usd, lambda cell: f"{cell.found.usd:,.4f}"),
)


def run_sweep(
    deploy: Deploy,
    workload: Workload,
    texts: Sequence[str],
    *,
    settings: LimitSettings,
    prices: Mapping[str, Price],
    durations: Durations,
    out: Path | None,
    as_json: bool,
) -> None:
    """What the command does: plan every combination, print, write both files to ``out``.

    :raises SweepError: for what cannot be swept.
    :raises PlanError: for what cannot be planned.
    :raises OSError: when ``out`` cannot be written.
    """
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    found = sweep(
        deploy,
        workload,
        [sweep_of(text) for text in texts],
        settings=settings,
        prices=prices,
        durations=durations,
        progress=_progress if sys.stderr.isatty() else lambda done, of: None,
    )
    told = json.dumps(found.as_json(), ensure_ascii=False)
    if out is not None:
        (out / JSON_FILE).write_text(told, encoding="utf-8")
        (out / PAGE_FILE).write_text(page(found), encoding="utf-8")
    if as_json:
        print(told)
    else:
        Console().print(render(found))


def _progress(done: int, of: int) -> None:
    print(f"\r{done} of {of} plans", end="\n" if done == of else "", file=sys.stderr, flush=True)


def render(swept: Swept) -> Table:
    """Two sweeps are a grid; one, or more than two, are a list."""
    return _matrix(swept) if len(swept.sweeps) == 2 else _list(swept)


def _matrix(swept: Swept) -> Table:
    down, across = swept.sweeps
    cells = {cell.values: cell for cell in swept.cells}
    grid = Table(
        box=None,
        padding=(0, 2, 0, 0),
        header_style="bold",
        title=f"{down.name} down, {across.name} across: does it hold, results complete after the finish, USD",
        title_justify="left",
    )
    grid.add_column(down.name, no_wrap=True)
    for value in across.values:
        grid.add_column(value, no_wrap=True)
    for first in down.values:
        grid.add_row(first, *(_short(cells[first, second]) for second in across.values))
    return grid


def _verdict(cell: Cell) -> str:
    return f"[{_COLOURS[cell.verdict]}]{cell.verdict}[/]"


def _short(cell: Cell) -> str:
    values = cell.found.values
    return f"{_verdict(cell)} {value_text('settled', round(values['settled'], 1))} {cell.found.usd:,.3f}"


def _list(swept: Swept) -> Table:
    grid = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for one in swept.sweeps:
        grid.add_column(one.name, justify="right", no_wrap=True)
    for title in ("", "settled", "p99", "throttled", "table throttled", "USD"):
        grid.add_column(title, justify="right", no_wrap=True)
    grid.add_column("first limit")
    for cell in swept.cells:
        found, limit = cell.found, cell.found.first_limit
        grid.add_row(
            *cell.values,
            _verdict(cell),
            *(value_text(name, found.values[name]) for name in ("settled", "p99", "throttled", "table_throttled")),
            f"{found.usd:,.4f}",
            f"{limit.name} of {limit.resource}" if limit else "",
        )
    return grid


# -- the page ----------------------------------------------------------------------------------------------


def page(swept: Swept) -> str:
    """One file that needs no network: heat maps of the first two sweeps, for each combination of the others."""
    workload = swept.workload
    title = f"{workload.bikers:,} bikers, {workload.seconds:,} s: " + ", ".join(one.name for one in swept.sweeps)
    figures = [
        figure(swept, rest).to_html(
            full_html=False, include_plotlyjs=place == 0, config={"displaylogo": False, "responsive": True}
        )
        for place, rest in enumerate(dict.fromkeys(cell.values[2:] for cell in swept.cells))
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>Sweep: {html.escape(title)}</title>"
        "<style>body{font-family:system-ui,sans-serif;margin:1.5rem}</style></head>\n"
        f"<body><h1>{html.escape(title)}</h1>\n{''.join(figures)}</body></html>\n"
    )


def figure(swept: Swept, rest: tuple[str, ...] = ()) -> Any:
    """Heat maps of what matters, one below the other; ``rest`` are the values of the sweeps after the second."""
    down, across = swept.sweeps[0], swept.sweeps[1] if len(swept.sweeps) > 1 else None
    cells = {cell.values[:2]: cell for cell in swept.cells if cell.values[2:] == rest}
    columns = across.values if across else ("",)
    # One sweep alone lies across.
    grid = [[cells[(first, second) if across else (first,)] for first in down.values] for second in columns]
    drawing = make_subplots(
        rows=len(_MAPS), cols=1, subplot_titles=[name for name, _, _ in _MAPS], vertical_spacing=0.28 / len(_MAPS)
    )
    for row, (name, value, text) in enumerate(_MAPS, 1):
        is_verdict = value is _MAPS[0][1]
        drawing.add_trace(
            go.Heatmap(
                x=[_label(one) for one in down.values],
                y=[_label(one) for one in columns],
                z=[[_finite(value(cell)) for cell in line] for line in grid],
                text=[[text(cell) for cell in line] for line in grid],
                texttemplate="%{text}",
                hovertemplate=f"{_label(down.name)} %{{x}}"
                + (f", {_label(across.name)} %{{y}}" if across else "")
                + f"<br>{name}: %{{text}}<extra></extra>",
                colorscale="RdYlGn" if is_verdict else _GOOD_IS_LOW,
                zmin=0 if is_verdict else None,
                zmax=len(_VERDICTS) - 1 if is_verdict else None,
                showscale=False,
                xgap=2,
                ygap=2,
            ),
            row=row,
            col=1,
        )
    drawing.update_xaxes(type="category", title_text=_label(down.name))
    drawing.update_yaxes(type="category", title_text=_label(across.name) if across else "")
    height = _MAP_HEIGHT if len(columns) > 1 else _MAP_HEIGHT // 2
    others = ", ".join(f"{one.name} {value}" for one, value in zip(swept.sweeps[2:], rest, strict=True))
    drawing.update_layout(
        height=height * len(_MAPS), template="plotly_white", title_text=_label(others) if others else None
    )
    return drawing


def _finite(value: float) -> float | None:
    """Plotly leaves out what is None; what never ended has only its text."""
    return value if math.isfinite(value) else None


def _label(text: str) -> str:
    """Plotly reads some HTML in its texts."""
    return html.escape(text)
