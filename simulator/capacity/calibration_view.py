"""What was measured beside what plans say, on one screen."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from simulator.capacity.calibration import NAMES, Calibration, Row

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
    if calibration.rows:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        for place, head in enumerate(("", "", "measured", "before", "off", "after", "off")):
            table.add_column(head, justify="left" if place < 2 else "right", no_wrap=True)
        last = ""
        for row in calibration.rows:
            of, last = ("" if row.of == last else row.of), row.of
            figures = [_number(row.measured)]
            for value in (row.before, row.after):
                figures += [_number(value), _off(row, value)]
            table.add_row(of, row.figure, *figures)
        parts.append(table)
    parts += [Text(f"note: {line}", style="dim") for line in calibration.notes]
    parts.append(Text(""))
    return Group(*parts)


def _number(value: float | None) -> str:
    if value is None:
        return "never"
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:,.1f}"


def _off(row: Row, value: float | None) -> str:
    """How far a plan is from the measurement, of the measurement; in numbers where that is 0."""
    if value is None:
        return ""
    if value == row.measured:
        return "="
    if not row.measured:
        return f"{value:+,.4g}"
    return f"{value / row.measured - 1:+.1%}" if abs(value / row.measured - 1) < 10 else f"x{value / row.measured:,.0f}"
