"""Markup for a load test's page: what is not :class:`Html` is text, and is escaped on its way in."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

from loadtests.report_series import number, printable

MOST_ROWS = 12
"""Rows of a table that are shown unfolded."""


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def escaped(value: Any) -> Html:
    """``value`` as markup: markup stays, None is a dash, anything else is text."""
    if isinstance(value, Html):
        return value
    return Html("–" if value is None else html.escape(printable(value)))


def join(*parts: str) -> Html:
    return Html("".join(map(escaped, parts)))


def said(text: Any) -> Html:
    """A service's or a user's words: code, whose direction of writing stays its own."""
    return Html(f"<code><bdi>{escaped(text)}</bdi></code>")


def amount(value: Any, unit: str = "", digits: int = 1) -> str | None:
    """``value`` for people: 1,000 records/s, 1 MiB/s; None when it is no number."""
    known = number(value)
    if known is None:
        return None
    if unit.startswith("bytes"):
        for power, prefix in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
            if abs(known) >= 1024**power:
                return f"{_short(known / 1024**power, 3)} {prefix}{unit.removeprefix('bytes')}"
    return f"{_short(known, digits)} {unit}".rstrip()


def _short(value: float, digits: int) -> str:
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def share(value: Any, digits: int = 2) -> str | None:
    known = number(value)
    return None if known is None else f"{_short(known * 100, digits)} %"


def seconds(value: Any) -> str | None:
    return amount(value, "s")


def section(title: str, intro: str, *parts: str) -> Html:
    about = f'<p class="soft">{escaped(intro)}</p>' if intro else ""
    return Html(f"<section><h2>{escaped(title)}</h2>{about}{join(*parts)}</section>\n")


def table(headers: Sequence[str], rows: Sequence[Sequence[Any]], marked: Iterable[int] = ()) -> Html:
    """``headers`` that start with ``#`` are of numbers, with ``~`` of long texts; ``marked`` rows stand out."""
    classes = [{"#": ' class="n"', "~": ' class="long"'}.get(one[:1], "") for one in headers]
    head = "".join(f"<th{c}>{escaped(one.lstrip('#~'))}</th>" for c, one in zip(classes, headers, strict=True))
    strong = set(marked)
    lines = [
        f"<tr{' class=binding' if at in strong else ''}>"
        + "".join(f"<td{c}>{escaped(cell)}</td>" for c, cell in zip(classes, row, strict=True))
        + "</tr>"
        for at, row in enumerate(rows)
    ]

    def of(some: list[str]) -> str:
        return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(some)}</tbody></table></div>'

    more = len(lines) - MOST_ROWS
    if more <= 1:
        return Html(of(lines))
    return Html(f"{of(lines[:MOST_ROWS])}<details><summary>{more} more</summary>{of(lines[MOST_ROWS:])}</details>")


def facts(facts: Iterable[tuple[str, Any]]) -> Html:
    pairs = [f"<div><dt>{escaped(k)}</dt><dd>{escaped(v)}</dd></div>" for k, v in facts if v is not None]
    return Html(f"<dl>{''.join(pairs)}</dl>" if pairs else "")
