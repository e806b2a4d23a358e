"""What was measured beside what plans say, on one screen."""

from __future__ import annotations

import math

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from simulator.capacity.calibration import NAMES, Calibration
from simulator.capacity.comparison import Row, Span

_UNITS = {"invocation_ms": "ms an invocation", "record_us": "us a record", "call_ms": "ms a call of the table"}


def durations_line(calibration: Calibration) -> str:
    """``measured: 1.9 ms an invocation (was 3); assumed: 8 us a record``, in one line."""
    before, after = calibration.before, calibration.after
    measured = [f"{getattr(after, one):.3g} {_UNITS[one]} (was {getattr(before, one):g})" for one in calibration.fitted]
    left = [f"{getattr(after, one):g} {_UNITS[one]}" for one in NAMES if one not in calibration.fitted]
    parts = [f"measured: {', '.join(measured)}"] if measured else []
    return "; ".join([*parts, *([f"as assumed: {', '.join(left)}"] if left else [])])


def render(calibration: Calibration) -> RenderableType:
    """The durations, the table, and what to know about it."""
    parts: list[RenderableType] = [Text(f"calibrated by {calibration.measurement.path}", style="bold")]
    parts.append(Text(durations_line(calibration)))
    rows = [row for row in calibration.rows if row.measured or row.off(row.before) or row.off(row.after)]
    if rows:
        table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
        for place, head in enumerate(("", "measured", "before", "off", "after", "off")):
            table.add_column(head, justify="right" if place else "left", no_wrap=True)
        last = ""
        for row in rows:
            if row.of != last:
                table.add_row(Text(row.of, style="bold"))
                last = row.of
            figures = [_number(row.measured)]
            for span in (row.before, row.after):
                figures += [_span(span), _off(row, span)]
            table.add_row(f"  {row.figure}", *figures)
        parts.append(table)
    parts += [Text(f"note: {line}", style="dim") for line in calibration.notes]
    parts.append(Text(""))
    return Group(*parts)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 100 else f"{value:,.1f}"


def _span(span: Span | None) -> str:
    if span is None:
        return "never"
    low, high = (_number(one) for one in span)
    return low if low == high else f"{low}..{high}"


def _off(row: Row, span: Span | None) -> str:
    """How far the nearest plan is from the measurement, in shares of that; in its unit where that is 0."""
    off = row.off(span)
    if off is None:
        return ""
    if not off:
        return "="
    share = off / row.measured if row.measured else math.inf
    if abs(share) >= 10:
        return f"{'+' if off > 0 else '-'}{_number(abs(off))}"
    return f"{share:+.1%}" if abs(share) < 0.1 else f"{share:+.0%}"
