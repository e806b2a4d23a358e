"""``alleycat limits``: every quota in force, with its source, and what may be set about them.

Quotas are read from ``simulator.cloud.limits.QUOTAS``; those of Lambda from the constants that the runtime enforces.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from simulator.cloud.limits import QUOTAS, LimitSettings, Quota

HOW_TO_SET = {
    "enforced": "--limits on|off, ALLEYCAT_LIMITS",
}
CONFIDENCE = {"H": "published", "M": "one good source", "L": "inferred"}


def lambda_quotas() -> tuple[Quota, ...]:
    """Those that the runtime enforces; imported when asked for, as the runtime takes a while."""
    from consumers.runtime.batches import PAYLOAD_MAX_BYTES
    from consumers.runtime.environment import RESPONSE_MAX_BYTES
    from consumers.runtime.windows import STATE_MAX_BYTES

    return (
        Quota("lambda.invoke.payload_max_bytes", PAYLOAD_MAX_BYTES, "bytes", "CAH gettingstarted-limits: 6 MB request"),
        Quota("lambda.invoke.response_max_bytes", RESPONSE_MAX_BYTES, "bytes", "Lambda's own error text", "M"),
        Quota("lambda.tumbling_window.state_max_bytes", STATE_MAX_BYTES, "bytes", "CAH services-kinesis-windows: 1 MB"),
    )


def quotas(service: str | None = None) -> tuple[Quota, ...]:
    """Every quota that the code enforces, or those whose name begins with ``service``."""
    return tuple(one for one in (*QUOTAS, *lambda_quotas()) if service is None or one.name.partition(".")[0] == service)


def services() -> list[str]:
    """The services that have quotas here."""
    return sorted({one.name.partition(".")[0] for one in quotas()})


def settings() -> list[dict[str, Any]]:
    """The members of :class:`LimitSettings`, their values when nothing is set, and how each is set."""
    return [
        {
            "name": field.name,
            "value": getattr(LimitSettings(), field.name),
            "set_by": HOW_TO_SET.get(field.name, f"--limit {field.name}=..., ALLEYCAT_LIMIT"),
        }
        for field in dataclasses.fields(LimitSettings)
    ]


def show_limits(
    service: Annotated[
        str | None,
        typer.Option(
            "--service", envvar="ALLEYCAT_SERVICE", help="Only those of one service: kinesis, dynamodb, lambda, ..."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", envvar="ALLEYCAT_JSON", help="Print JSON on stdout.")] = False,
) -> None:
    """Print every quota in force with its source, and the settings about them."""
    if service is not None and service not in services():
        raise typer.BadParameter(f"{service!r}: choose one of {', '.join(services())}", param_hint="'--service'")
    found = quotas(service)
    if as_json:
        print(json.dumps({"quotas": [dataclasses.asdict(one) for one in found], "settings": settings()}))
        return
    quota_rows = [(one.name, _number(one.value), one.unit, one.confidence, one.source) for one in found]
    setting_rows = [(one["name"], _number(one["value"]), one["set_by"]) for one in settings()]
    quota_head = ("quota", "value", "unit", "sure", "source")
    setting_head = ("setting", "value", "set by")
    legend = ", ".join(f"{letter} {meaning}" for letter, meaning in CONFIDENCE.items())
    console = Console()
    # A narrow terminal would leave the sources a few letters a line.
    if sys.stdout.isatty() and console.width >= 110:
        console.print(_table(quota_head, quota_rows), _table(setting_head, setting_rows), f"sure: {legend}", sep="\n")
        return
    print(*_aligned(quota_head, quota_rows), "", *_aligned(setting_head, setting_rows), "", f"sure: {legend}", sep="\n")


def _number(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value).lower()
    return f"{int(value):,}" if value == int(value) else f"{value:,}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for title in head:
        # Names and numbers are there to be copied: only the prose folds.
        prose = title in ("source", "set by")
        justify: Literal["left", "right"] = "right" if title == "value" else "left"
        table.add_column(title, justify=justify, overflow="fold", no_wrap=not prose)
    for row in rows:
        table.add_row(*row)
    return table


def _aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """One line a row for grep and awk: never folded, never coloured."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return [
        "  ".join(
            cell.rjust(width) if title == "value" else cell.ljust(width)
            for cell, width, title in zip(line, widths, head, strict=True)
        ).rstrip()
        for line in lines
    ]
