"""The figures of a load test's report: throughput against the limit, the knee, latency, CPU.

Each function takes ``report.json`` as plain data and gives plotly figures, or none when there is nothing to draw.
Names come from a service, and plotly reads some HTML in its texts, so each one passes :func:`label`.
Long tests are drawn in steps, each the mean of its seconds (:class:`~loadtests.report_series.Steps`).
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from loadtests.report_series import Series, Steps, label, number, pressure, total

MOST_LINES = 8
"""More resources than this are drawn as a map; the most pressed ones keep their line."""
ACCEPTED, THROTTLED, OFFERED, LIMIT, UNITS = "#2f7fd8", "#f08c00", "#8a8f98", "#e03131", "#0ca678"
LINES = ("#2f7fd8", "#0ca678", "#9c5de0", "#d6336c", "#1098ad", "#a07900", "#6c7a89", "#e8590c")


@dataclass(frozen=True, slots=True)
class Figure:
    """``name`` is its id in the page; ``caption`` is plain text, read below the title."""

    name: str
    title: str
    caption: str
    drawing: Any


def figures(told: Mapping[str, Any]) -> list[Figure]:
    """All figures of the report ``told``, in the order they are read."""
    return [*throughput(told), *knee(told), *waiting(told), *cpu(told)]


def throughput(told: Mapping[str, Any]) -> list[Figure]:
    """Accepted, throttled and offered over time against the limit: together, each resource, and a map of many."""
    series = told.get("series") or {}
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for one in series.get("resources") or ():
        groups.setdefault((str(one.get("operation")), str(one.get("unit"))), []).append(one)
    found: list[Figure] = []
    for index, ((operation, unit), resources) in enumerate(groups.items()):
        # What was offered is known for the whole test, in the scenario's unit: it fits beside one group of that unit.
        counted = f"{(told.get('run') or {}).get('unit')}/s"
        offered = series.get("offered") if len(groups) == 1 and unit == counted else None
        name = f"throughput-{index}"
        # A table and its indexes are no parts of one whole; shards are.
        parts = not any("/" in str(one.get("name")) for one in resources)
        if parts or len(resources) == 1:
            found.append(_together(name, series, operation, unit, resources, offered))
        if len(resources) > 1:
            found.append(_each(f"{name}-each", series, operation, unit, resources))
        if len(resources) > MOST_LINES:
            found.extend(_maps(f"{name}-map", series, operation, resources))
    return found


def _together(
    name: str, series: Any, operation: str, unit: str, resources: Sequence[Mapping[str, Any]], offered: Any
) -> Figure:
    drawing = _drawing(f"{label(unit)}")
    time = Steps(series, resources)
    if offered:
        _line(drawing, time, offered, "offered", OFFERED, width=1.5)
    _line(drawing, time, total(one.get("accepted") for one in resources), "accepted", ACCEPTED, width=2.5)
    refused = total(one.get("throttled") for one in resources)
    _line(drawing, time, refused, "throttled", THROTTLED, width=2)
    if any(one.get("units") for one in resources):
        _line(drawing, time, total(one.get("units") for one in resources), "capacity units consumed", UNITS, width=2)
    limits = [number(one.get("limit")) for one in resources]
    most = sum(limit for limit in limits if limit is not None) if None not in limits else None
    if most is not None:
        _level(drawing, time, most, "limit")
    first = next((at for at, value in zip(time.seconds, refused, strict=False) if value), None)
    if first is not None:
        drawing.add_vline(x=first, line={"color": THROTTLED, "dash": "dot", "width": 1})
        drawing.add_annotation(x=first, y=1, yref="paper", text="first throttle", showarrow=False, xanchor="left")
    what = label(resources[0].get("name")) if len(resources) == 1 else f"all {len(resources)} together"
    caption = "Accepted counts only what the service took. " + (
        "The dashed line is the limit."
        if most is not None and len(resources) == 1
        else f"The dashed line is the limits of all {len(resources)} added up."
        if most is not None
        else "No limit is known to draw."
    )
    return Figure(name, f"{operation} over time: {html.unescape(what)}", caption + time.note, drawing)


def _each(name: str, series: Any, operation: str, unit: str, resources: Sequence[Mapping[str, Any]]) -> Figure:
    drawing = _drawing(label(unit))
    time = Steps(series, resources)
    shown = sorted(resources, key=pressure, reverse=True)[:MOST_LINES]
    # In the order of the report, which is that of the names: colours then stay with their resource.
    for colour, one in zip(LINES, [one for one in resources if any(one is kept for kept in shown)], strict=False):
        title = label(one.get("name"))
        _line(drawing, time, one.get("accepted"), title, colour, group=title)
        if any(one.get("throttled") or ()):
            _line(drawing, time, one["throttled"], f"{title}, throttled", colour, dash="dot", group=title, legend=False)
    limits = sorted({number(one.get("limit")) for one in shown} - {None}, key=float)  # type: ignore[arg-type]
    for limit in limits:
        named = [label(one.get("name")) for one in shown if number(one.get("limit")) == limit]
        _level(drawing, time, limit, "limit of one" if len(limits) == 1 else f"limit of {', '.join(named)}")
    which = f"the {len(shown)} most pressed of {len(resources)}" if len(shown) < len(resources) else "each"
    # Capacity is what accepted work consumed; what was refused consumed none, and is counted.
    dotted = "refusals a second" if unit.endswith("CU/s") else "throttled"
    caption = f"Solid lines are accepted, dotted ones {dotted}, dashed is the limit of one."
    drawing.update_layout(height=460)
    return Figure(name, f"{operation} over time: {which}", caption + time.note, drawing)


def _maps(name: str, series: Any, operation: str, resources: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """A row a resource, a column a second: which are hot shows at a glance, however many there are."""
    time = Steps(series, resources)
    limits = [number(one.get("limit")) for one in resources]
    relative = all(limits)
    rows = [
        [value if value is None or not relative else value / (limit or 1) for value in time.of(one.get("accepted"))]
        for one, limit in zip(resources, limits, strict=True)
    ]
    what = "accepted, as a share of its limit" if relative else "accepted"
    found = [_map(name, f"{operation}: {what}", rows, time, resources, "Blues", ".0%" if relative else ",.0f")]
    if any(any(one.get("throttled") or ()) for one in resources):
        refused = [time.of(one.get("throttled")) for one in resources]
        title = f"{operation}: throttled a second"
        found.append(_map(f"{name}-throttled", title, refused, time, resources, "Oranges", ",.0f"))
    return found


def _map(
    name: str, title: str, rows: list[Series], time: Steps, resources: Sequence[Any], scale: str, form: str
) -> Figure:
    drawing = _drawing("")
    drawing.add_heatmap(
        x=time.seconds,
        z=rows,
        y=_names(resources),
        zmin=0,
        colorscale=scale,
        colorbar={"orientation": "h", "y": -0.32, "yanchor": "top", "thickness": 12, "tickformat": form},
        hovertemplate="%{y}<br>second %{x}: %{z:" + form + "}<extra></extra>",
    )
    drawing.update_layout(height=440, hovermode="closest")
    # So many names would take a phone's whole width; the pointer tells each.
    drawing.update_yaxes(type="category", autorange="reversed", showticklabels=False)
    first, last = (html.unescape(label(resources[at].get("name"))) for at in (0, -1))
    caption = f"A row for each of {len(resources)} resources, from {first} down to {last}; a stronger colour is more."
    return Figure(name, title, caption + time.note, drawing)


def _names(resources: Sequence[Mapping[str, Any]]) -> list[str]:
    """One for each row: plotly would lay rows of equal names on top of each other."""
    names = [label(one.get("name")) for one in resources]
    return [f"{name} ({at})" if names.count(name) > 1 else name for at, name in enumerate(names)]


def knee(told: Mapping[str, Any]) -> list[Figure]:
    """Offered against accepted by stage, and the p99 beside it."""
    stages = [
        one
        for one in told.get("stages") or ()
        if one.get("purpose") not in ("rest", "prime") and number(one.get("offered_per_second"))
    ]
    if not stages:
        return []
    stages.sort(key=lambda one: float(one["offered_per_second"]))
    offered = [number(one["offered_per_second"]) for one in stages]
    unit = f"{label((told.get('run') or {}).get('unit', ''))}/s"
    drawing = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08, row_heights=[0.6, 0.4])
    _style(drawing)
    most = max(filter(None, offered))
    drawing.add_scatter(
        x=[0, most],
        y=[0, most],
        mode="lines",
        name="all of it accepted",
        line={"color": OFFERED, "dash": "dot", "width": 1},
        hoverinfo="skip",
        row=1,
        col=1,
    )
    for held, name, colour, symbol in (
        (True, "held", UNITS, "circle"),
        (False, "broke", LIMIT, "x"),
        (None, "not judged", OFFERED, "circle-open"),
    ):
        some = [one for one in stages if one.get("held") is held]
        if some:
            drawing.add_scatter(
                x=[number(one["offered_per_second"]) for one in some],
                y=[number(one.get("accepted_per_second")) for one in some],
                customdata=[[label(one.get("name")), label(one.get("reason") or "", 120)] for one in some],
                mode="markers",
                name=name,
                marker={"color": colour, "symbol": symbol, "size": 9},
                hovertemplate="%{customdata[0]}: %{y:,.1f} of %{x:,.1f}<br>%{customdata[1]}<extra></extra>",
                row=1,
                col=1,
            )
    for key, name, colour in (("p50_ms", "p50", ACCEPTED), ("p99_ms", "p99", LINES[2])):
        drawing.add_scatter(
            x=offered,
            y=[number(one.get(key)) for one in stages],
            mode="lines+markers",
            name=name,
            line={"color": colour, "width": 2},
            row=2,
            col=1,
        )
    found = told.get("knee") or {}
    low, high = number(found.get("held_per_second")), number(found.get("broke_per_second"))
    if low is not None and high is not None:
        drawing.add_vrect(x0=low, x1=high, fillcolor=LIMIT, opacity=0.25, line={"color": LIMIT, "width": 1})
        drawing.add_annotation(
            x=low, y=1, yref="paper", text="knee", showarrow=False, xanchor="right", yanchor="bottom"
        )
    drawing.update_layout(height=560, hovermode="closest")
    drawing.update_yaxes(title_text=f"accepted, {unit}", row=1, col=1)
    drawing.update_yaxes(title_text="latency, ms", row=2, col=1)
    drawing.update_xaxes(title_text=f"offered, {unit}", row=2, col=1)
    caption = "One point a stage. Where the points leave the dotted line, the service takes no more: that is the knee."
    return [Figure("knee", "Offered against accepted, and latency, by stage", caption, drawing)]


def waiting(told: Mapping[str, Any]) -> list[Figure]:
    """p99 and iterator age over time, as far as they were measured."""
    series = told.get("series") or {}
    time = Steps(series, ())
    found = []
    for key, title, caption in (
        ("latency_p99_ms", "Latency over time", "99 of 100 answers came within this time from when they were due."),
        ("iterator_age_ms", "Iterator age over time", "How far the consumers of the stream were behind."),
    ):
        values = series.get(key)
        if values and any(number(one) is not None for one in values):
            drawing = _drawing("ms")
            _line(drawing, time, values, "p99" if key == "latency_p99_ms" else "iterator age", LINES[2])
            drawing.update_layout(height=260)
            found.append(Figure(key.replace("_", "-"), title, caption + time.note, drawing))
    return found


def cpu(told: Mapping[str, Any]) -> list[Figure]:
    """CPU of generator and target over time."""
    series = told.get("series") or {}
    drawing = _drawing("share of its cores")
    time = Steps(series, ())
    for key, name, colour in (("generator_cpu", "generator", ACCEPTED), ("target_cpu", "target", LINES[2])):
        if series.get(key):
            _line(drawing, time, series[key], name, colour, form=".0%")
    if not drawing.data:
        return []
    _level(drawing, time, 1.0, "all of its cores")
    drawing.update_layout(height=300)
    drawing.update_yaxes(tickformat=".0%", range=[0, 1.08])
    caption = "A figure of the service only counts while both are well below 100 %."
    return [Figure("cpu", "CPU of generator and target over time", caption + time.note, drawing)]


def _drawing(unit: str) -> Any:
    drawing = go.Figure()
    _style(drawing)
    drawing.update_yaxes(title_text=unit)
    drawing.update_xaxes(title_text="seconds from the start")
    return drawing


def _style(drawing: Any) -> None:
    """What does not depend on light or dark; the page's script sets the colours of text and grid."""
    drawing.update_layout(
        template="none",
        height=380,
        margin={"l": 64, "r": 12, "t": 24, "b": 48},
        legend={"orientation": "h", "y": -0.22, "yanchor": "top", "x": 0},
        hovermode="x unified",
    )
    drawing.update_xaxes(rangemode="tozero", automargin=True)
    drawing.update_yaxes(rangemode="tozero", automargin=True, tickformat=",~s")


def _line(
    drawing: Any,
    time: Steps,
    values: Sequence[Any] | None,
    name: str,
    colour: str,
    *,
    width: float = 2,
    dash: str = "solid",
    group: str | None = None,
    legend: bool = True,
    form: str = ",.1f",
) -> None:
    drawing.add_scatter(
        x=time.seconds,
        y=time.of(values),
        mode="lines",
        name=name,
        line={"color": colour, "width": width, "dash": dash},
        legendgroup=group,
        showlegend=legend,
        hovertemplate="%{y:" + form + "}",
    )


def _level(drawing: Any, time: Steps, value: float | None, name: str) -> None:
    """A dashed line over the whole test."""
    drawing.add_scatter(
        x=[time.seconds[0], time.seconds[-1]] if time.seconds else [0, 1],
        y=[value, value],
        mode="lines",
        name=name,
        line={"color": LIMIT, "width": 1.5, "dash": "dash"},
        hovertemplate="%{y:,.1f}",
        showlegend=True,
    )
