"""A plan's figures, as the services' own monitoring pages draw them: what came against the line of what may come.

plotly reads some HTML in its texts, so every name goes through :func:`label`. Long plans are drawn in steps: a rate is
the mean of its step, a peak the largest, a level the last.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from simulator.capacity.model import Plan
from simulator.cloud.limits import SHARD_WRITE_BYTES, SHARD_WRITE_RECORDS

MOST_POINTS = 900
MOST_SHARDS = 8
BLUE, ORANGE, RED, GREY = "#2f7fd8", "#f08c00", "#e03131", "#8a8f98"
PALETTE = (BLUE, "#0ca678", "#9c5de0", "#d6336c", "#1098ad", "#a07900", "#6c7a89", "#e8590c")
Values = list[float | None]


@dataclass(frozen=True, slots=True)
class Figure:
    """``name`` is its id in the page, ``caption`` plain text."""

    name: str
    title: str
    caption: str
    drawing: Any


def figures(plan: Plan) -> list[Figure]:
    """All of them, in the order that a message takes. What never happened has none."""
    found = [_incoming(plan), _waiting(plan), _iterator_age(plan), _duration(plan), _concurrency(plan), _errors(plan)]
    for table in plan.tables:
        for resource, units in table.provisioned().items():
            found.append(_capacity(plan, resource, "write", units["write"], f"{len(found)}"))
        found.append(_capacity(plan, table.name, "read", table.provisioned()[table.name]["read"], f"{len(found)}"))
    found.append(_delivered(plan))
    drawn = [one for one in found if one is not None]
    for one in drawn:
        _leave_room(one.drawing)
    return drawn


def label(text: str) -> str:
    """A name for plotly: short, and none of it markup."""
    clean = "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)
    return html.escape(clean if len(clean) <= 60 else f"{clean[:59]}…", quote=False)


class _Series:
    """A plan's series, in steps few enough to draw."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.step = max(1, math.ceil(plan.seconds / MOST_POINTS))
        self.seconds = list(range(0, plan.seconds, self.step))
        self.note = f" A point is {self.step} s." if self.step > 1 else ""

    def rate(self, metric: str, resource: str) -> Values:
        return self._of(metric, resource, lambda part: sum(part) / len(part))

    def count(self, metric: str, resource: str) -> Values:
        return self._of(metric, resource, sum)

    def level(self, metric: str, resource: str) -> Values:
        return self._of(metric, resource, lambda part: part[-1])

    def peak(self, metric: str, resource: str) -> Values:
        return self._of(metric, resource, max)

    def measured(self, metric: str, resource: str) -> Values:
        """Peaks of what is only known when something happened: a second without is no 0."""
        return [value or None for value in self.peak(metric, resource)]

    def _of(self, metric: str, resource: str, fold: Callable[[Sequence[float]], float]) -> Values:
        values = self.plan.timeline.series(metric, resource, self.plan.seconds)
        return [round(fold(values[at : at + self.step]), 3) for at in self.seconds]


def _incoming(plan: Plan) -> Figure:
    series, timeline = _Series(plan), plan.timeline
    pressed = sorted(
        plan.shards,
        key=lambda one: (timeline.total("throttled", one.shard_id), timeline.highest("accepted", one.shard_id)),
        reverse=True,
    )[:MOST_SHARDS]
    drawing = _drawing("records/s")
    shown = sorted(pressed, key=lambda one: one.shard_id)
    for colour, shard in zip(PALETTE, shown, strict=False):
        name = f"shard {shard.shard_id.removeprefix('shardId-').lstrip('0') or '0'}"
        _line(drawing, series, series.rate("accepted", shard.shard_id), name, colour)
        if timeline.total("throttled", shard.shard_id):
            refused = series.rate("throttled", shard.shard_id)
            _line(drawing, series, refused, f"{name}, throttled", colour, dash="dot")
    _level(drawing, plan, SHARD_WRITE_RECORDS.value, f"limit of a shard, {SHARD_WRITE_RECORDS.value:,.0f}/s")
    peak = max(timeline.highest("accepted", one.shard_id) for one in plan.shards)
    share = peak * plan.riders.sizes.record_bytes / SHARD_WRITE_BYTES.value
    most = (
        f" The {MOST_SHARDS} most pressed of {len(plan.shards):,} are drawn." if len(plan.shards) > len(shown) else ""
    )
    caption = (
        f"Accepted records of each shard. In bytes, the busiest second is {share:.0%} of what a shard takes. "
        f"Dotted is throttled.{most}{series.note}"
    )
    return Figure("incoming", "Incoming records", caption, drawing)


def _waiting(plan: Plan) -> Figure | None:
    timeline = plan.timeline
    if not timeline.highest("outstanding", "producer"):
        return None
    series, drawing = _Series(plan), _drawing("messages")
    _line(drawing, series, series.level("outstanding", "producer"), "waiting at the producer", ORANGE)
    if timeline.total("lost"):
        _line(drawing, series, series.rate("lost", "producer"), "lost, a second", RED)
    return Figure("waiting", "Messages that wait to be sent", "Refused and not yet taken." + series.note, drawing)


def _iterator_age(plan: Plan) -> Figure | None:
    series, drawing = _Series(plan), _drawing("seconds")
    known = plan.timeline.resources("iterator_age_s")
    for colour, function in zip(PALETTE, plan.functions, strict=False):
        for source in function.spec.event_sources:
            if source.name in known:
                ages = series.measured("iterator_age_s", source.name)
                _line(drawing, series, ages, function.spec.logical_id, colour)
    if not drawing.data:
        return None
    _finishes(drawing, plan)
    caption = "How old the last record of a batch was when its invocation began. Grey lines are finishes."
    return Figure("iterator-age", "Iterator age", caption + series.note, drawing)


def _duration(plan: Plan) -> Figure | None:
    series, drawing = _Series(plan), _drawing("seconds")
    for colour, function in zip(PALETTE, plan.functions, strict=False):
        _line(drawing, series, series.measured("duration_s", function.spec.name), function.spec.logical_id, colour)
    for timeout_s in sorted({function.spec.timeout_s for function in plan.functions}):
        _level(drawing, plan, timeout_s, f"timeout, {timeout_s} s")
    caption = "The longest invocation that ended in each second." + series.note
    return Figure("duration", "Function duration", caption, drawing) if plan.functions else None


def _concurrency(plan: Plan) -> Figure | None:
    series, drawing = _Series(plan), _drawing("invocations at once")
    for place, (colour, function) in enumerate(zip(PALETTE, plan.functions, strict=False)):
        values = series.measured("concurrency", function.spec.name)
        # Often equal: the ones below must show on both sides of those above.
        width = 2 + 3 * (len(plan.functions) - 1 - place)
        _line(drawing, series, values, function.spec.logical_id, colour, shape="hv", width=width)
        if function.spec.reserved_concurrency is not None:
            reserved = function.spec.reserved_concurrency
            _level(drawing, plan, reserved, f"reserved for {function.spec.logical_id}, {reserved}")
    drawing.update_yaxes(tickformat=",d", dtick=1 if plan.timeline.highest("concurrency") < 10 else None)
    caption = "A shard has one invocation at a time for each function that reads it, times its parallelization factor."
    return Figure("concurrency", "Concurrency", caption + series.note, drawing) if plan.functions else None


def _errors(plan: Plan) -> Figure | None:
    series, drawing = _Series(plan), _drawing("invocations")
    for colour, function in zip(PALETTE, plan.functions, strict=False):
        name, words = function.spec.name, function.spec.logical_id
        late = series.count("timeouts", name)
        failed = [(one or 0) - (of or 0) for one, of in zip(series.count("errors", name), late, strict=True)]
        refused = series.count("function_throttles", name)
        for values, fate, shape in ((late, "timed out", ""), (failed, "failed", "/"), (refused, "throttled", ".")):
            if any(values):
                marker = {"color": colour, "line_width": 0, "pattern_shape": shape}
                title = label(f"{words}: {fate}")
                drawing.add_bar(x=series.seconds, y=values, name=title, marker=marker, width=max(2, series.step))
    if not drawing.data:
        return None
    drawing.update_layout(barmode="stack")
    caption = "Invocations that failed, by when they ended. Their batches are tried again." + series.note
    return Figure("errors", "Function errors", caption, drawing)


def _capacity(plan: Plan, resource: str, direction: str, units: float, number: str) -> Figure | None:
    """Consumed against provisioned, what was refused below, and what is saved for a burst below that."""
    timeline = plan.timeline
    consumed, throttled = f"consumed_{direction}_units", f"throttled_{direction}s"
    if not timeline.total(consumed, resource) and not timeline.total(throttled, resource):
        return None
    series = _Series(plan)
    rows = 3 if units else 2
    drawing = make_subplots(rows=rows, cols=1, shared_xaxes=True, vertical_spacing=0.06, row_heights=[2, 1, 1][:rows])
    _style(drawing)
    _line(drawing, series, series.rate(consumed, resource), "consumed", BLUE, row=1)
    if units:
        limit = f"provisioned_{direction}_units"
        if resource in timeline.resources(limit):
            _line(
                drawing,
                series,
                series.level(limit, resource),
                "provisioned, scaled",
                RED,
                dash="dash",
                shape="hv",
                row=1,
            )
        else:
            _level(drawing, plan, units, f"provisioned, {units:,.0f}/s", row=1)
        _line(drawing, series, series.level(f"burst_left_{direction}", resource), "saved for bursts", "#0ca678", row=3)
        drawing.update_yaxes(title_text="units", row=3, col=1)
    _line(drawing, series, series.rate(throttled, resource), "throttled calls", ORANGE, row=2)
    drawing.update_yaxes(title_text="units/s", row=1, col=1)
    drawing.update_yaxes(title_text="calls/s", row=2, col=1)
    drawing.update_xaxes(title_text="seconds from the start of the first race", row=rows, col=1)
    drawing.update_layout(height=150 * rows + 110)
    what = f"{direction.capitalize()} capacity of {resource}"
    caption = (
        "Unused capacity of up to five minutes is saved, and spent above the line." if units else "On-demand: no line."
    )
    return Figure(f"capacity-{number}", what, caption + series.note, drawing)


def _delivered(plan: Plan) -> Figure | None:
    series, drawing = _Series(plan), _drawing("seconds")
    for colour, delivery in zip(PALETTE, plan.deliveries, strict=False):
        name = delivery.spec.name
        if plan.timeline.total("delivered_objects", name):
            ages = [value if value else None for value in series.peak("delivery_age_s", name)]
            _line(drawing, series, ages, name, colour, shape="hv")
    if not drawing.data:
        return None
    caption = "How old the oldest record of an object was when it was written. What is left at the end is not drawn."
    return Figure("delivered", "Data freshness of deliveries", caption + series.note, drawing)


# -- drawing -------------------------------------------------------------------------------------------------


def _drawing(unit: str) -> Any:
    drawing = go.Figure()
    _style(drawing)
    drawing.update_yaxes(title_text=unit)
    drawing.update_xaxes(title_text="seconds from the start of the first race")
    return drawing


def _style(drawing: Any) -> None:
    """What is the same on a light screen and a dark one; the page's script colours text and grid."""
    drawing.update_layout(
        template="none",
        height=340,
        margin={"l": 60, "r": 10, "t": 36, "b": 44},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hovermode="x unified",
    )
    drawing.update_xaxes(rangemode="tozero", automargin=True)
    drawing.update_yaxes(rangemode="tozero", automargin=True)


def _line(
    drawing: Any,
    series: _Series,
    values: Values,
    name: str,
    colour: str,
    *,
    dash: str = "solid",
    shape: str = "linear",
    width: float = 1.8,
    row: int | None = None,
) -> None:
    drawing.add_scatter(
        x=series.seconds,
        y=values,
        mode="lines",
        name=label(name),
        connectgaps=True,
        line={"color": colour, "width": width, "dash": dash, "shape": shape},
        hovertemplate="%{y:,.1f}",
        **({} if row is None else {"row": row, "col": 1}),
    )


def _level(drawing: Any, plan: Plan, value: float, name: str, row: int | None = None) -> None:
    """A limit: a dashed line all along."""
    drawing.add_scatter(
        x=[0, plan.seconds - 1],
        y=[value, value],
        mode="lines",
        name=label(name),
        line={"color": RED, "width": 1.5, "dash": "dash"},
        hoverinfo="skip",
        **({} if row is None else {"row": row, "col": 1}),
    )


def _leave_room(drawing: Any) -> None:
    """Above what is drawn, so that a line at its limit is not the frame's."""
    most: dict[str, float] = {}
    for trace in drawing.data:
        axis = trace.yaxis or "y"
        most[axis] = max(most.get(axis, 0.0), *(value or 0.0 for value in trace.y))
    for axis, value in most.items():
        drawing.layout[f"yaxis{axis[1:]}"].range = [0, value * 1.08 or 1]


def _finishes(drawing: Any, plan: Plan) -> None:
    """Where races end, unless they are too many to see."""
    workload = plan.workload
    if workload.races <= 24:
        for race in range(1, workload.races + 1):
            drawing.add_vline(x=race * workload.seconds, line={"color": GREY, "dash": "dot", "width": 1})
