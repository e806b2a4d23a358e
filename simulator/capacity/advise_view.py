"""Advice on one screen and as JSON, and ``alleycat plan --advise``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from simulator.capacity.advise import Advice, advise
from simulator.capacity.choices import BATCH, INDEX_RCU, INDEX_WCU, LANES, RCU, SHARDS, WCU, WINDOW
from simulator.capacity.environment import FILE, Written, check_environment, overrides_of, write_environment
from simulator.capacity.functions import Durations
from simulator.capacity.objective import NAMES, ObjectiveError, objective_of, value_text
from simulator.capacity.prices import Price
from simulator.capacity.trials import Deploy, Trial
from simulator.capacity.workload import Workload
from simulator.cloud.limits import LimitSettings

SCHEMA = 1
ADVICE_FILE = "advice.json"
_ON_DEMAND = {"ON_DEMAND": "any", "PAY_PER_REQUEST": "any"}
_COLUMNS = (
    ("shards", (SHARDS,), True),
    ("window s", (WINDOW,), True),
    ("batch", (BATCH,), False),
    ("lanes", (LANES,), False),
    ("WCU", (WCU, INDEX_WCU), True),
    ("RCU", (RCU, INDEX_RCU), True),
)
"""Titles, sizes, and whether they are shown even where all rows have the same. Units are of the table and its index."""


class AdviceError(ValueError):
    """What was asked of the adviser cannot be; the text is one line and names the flag."""


def headroom_of(text: str) -> float:
    """The share of ``20%`` or ``0.2``. :raises AdviceError:"""
    number, percent = text.strip().removesuffix("%"), text.strip().endswith("%")
    try:
        value = float(number) / (100 if percent else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 10:
        raise AdviceError(f"--headroom {text!r}: give a share such as 20% or 0.2, from 0% to 1000%")
    return value


def run_advise(
    deploy: Deploy,
    workload: Workload,
    *,
    objective: str,
    headroom: str,
    settings: LimitSettings,
    prices: Mapping[str, Price],
    durations: Durations,
    out: Path | None,
    as_json: bool,
    write_env: str | None = None,
    command: str = "",
) -> bool:
    """What the command does: search, print, write :data:`ADVICE_FILE` to ``out``. Whether something holds.

    ``write_env`` is an environment of ``samconfig.toml`` beside the template, which gets the advice and ``command``.

    :raises WriteError: when it cannot.
    :raises AdviceError: an objective or headroom that cannot be read.
    :raises PlanError: what cannot be planned.
    :raises OSError: when ``out`` cannot be written.
    """
    try:
        asked = objective_of(objective)
    except ObjectiveError as error:
        raise AdviceError(f"--objective {error}") from None
    share = headroom_of(headroom)
    if write_env is not None:
        before = deploy({})
        check_environment(before.path.parent / FILE, write_env, before.config_env)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    found = advise(deploy, workload, asked, headroom=share, settings=settings, prices=prices, durations=durations)
    text = json.dumps(advice_json(found), ensure_ascii=False)
    if out is not None:
        (out / ADVICE_FILE).write_text(text, encoding="utf-8")
    if as_json:
        print(text)
    else:
        Console().print(render(found))
    if write_env is not None and found.best is not None:
        path = _write(write_env, command, deploy, found, found.best)
        print(f"alleycat: wrote [{write_env}] of {path}", file=sys.stderr)
    return found.best is not None


def _write(name: str, command: str, deploy: Deploy, advice: Advice, best: Trial) -> Path:
    deployment = deploy({size: str(value) for size, value in best.parameters.items()})
    limits = [f"{one.name} of {one.resource} refuses {one.refused:,}" for one in best.found.limits]
    about = (
        f"{_question(advice)}, with {advice.headroom:.0%} headroom; {best.usd:,.2f} USD for the hours begun",
        f"{_measured(best).plain}; {'; '.join(limits) or 'no limit refuses anything'}",
    )
    path = deployment.path.parent / FILE
    written = Written(name, best.kind.sizes_of(overrides_of(deployment)), command, about, date.today())
    write_environment(path, deployment.config_env, written)
    return path


def _question(advice: Advice) -> str:
    workload = advice.workload
    in_a_row = f", {workload.races:,} races in a row" if workload.races > 1 else ""
    return f"{workload.bikers:,} bikers, {workload.seconds:,} s{in_a_row}: {advice.objective.text}, nothing lost"


def advice_json(advice: Advice) -> dict[str, Any]:
    """Everything that an advice says. ``advice`` is null when nothing holds."""
    workload = advice.workload
    return {
        "schema": SCHEMA,
        "run": {
            "racers": workload.racers,
            "run_time_s": workload.seconds,
            "races": workload.races,
            "classes": list(workload.classes),
            "via": "mqtt" if workload.transport == "mqtt" else "kinesis",
            "partition_key": workload.partition_key,
            "phase": workload.phase,
            "seed": workload.seed,
        },
        "objective": dict(advice.objective.most),
        "headroom": advice.headroom,
        "headroom_note": advice.headroom_note,
        "advice": advice.best.as_json() if advice.best else None,
        "just_holds": advice.just_holds.as_json() if advice.just_holds else None,
        "present": advice.present.as_json() if advice.present else None,
        "runners_up": [{"title": one.title, "note": one.note, **one.trial.as_json()} for one in advice.runners_up],
        "closest": [one.as_json() for one in advice.closest],
        "forbids": advice.forbids,
        "not_modelled": list(advice.best.found.not_modelled) if advice.best else [],
        "plans": advice.plans,
    }


def render(advice: Advice) -> RenderableType:
    """The advice first, then its bill, then what else there is."""
    question = Text(f"{_question(advice)}; {advice.plans} plans")
    parts: list[RenderableType] = [question]
    if advice.best is None:
        parts.append(Text.assemble(("NOTHING HOLDS", "bold red"), ". These come closest:"))
        parts.append(_grid(("closest", one, "; ".join(one.misses)) for one in advice.closest))
        parts.append(Text(f"In the way: {advice.forbids}"))
        if advice.present is not None:
            parts.append(_grid([("present", advice.present, _verdict(advice.present))]))
        return Group(*parts)
    best = advice.best
    flags = " ".join(f"{name}={value}" for name, value in best.parameters.items())
    parts.append(Text.assemble(("ADVICE", "bold green"), f": {flags}"))
    headroom = f"with {advice.headroom:.0%} headroom" if advice.headroom else "without headroom"
    rows = [("advice", best, headroom)]
    rows += [(one.title, one.trial, one.note) for one in advice.runners_up]
    if advice.present is not None:
        rows.append(("present", advice.present, f"{_verdict(advice.present)}; {_change(advice.present, best)}"))
    parts.append(_grid(rows))
    if advice.headroom_note:
        parts.append(Text(advice.headroom_note, style="yellow"))
    parts.append(_measured(best))
    parts.append(_bill(best))
    parts += [Text(f"not planned: {line}", style="dim") for line in best.found.not_modelled]
    return Group(*parts)


def _verdict(trial: Trial) -> str:
    return "holds" if trial.holds else f"does not hold: {'; '.join(trial.misses)}"


def _change(present: Trial, best: Trial) -> str:
    """How far the present parameters are from the advice."""
    changes = []
    for name, value in best.parameters.items():
        before = present.parameters.get(name)
        if before is None:
            changes.append(f"{name} {_number(value)}")
        elif value != before:
            changes.append(f"{name} {_number(before)} to {_number(value)}")
    usd = best.usd - present.usd
    if not changes:
        return "already as advised"
    return f"change {', '.join(changes)}: {abs(usd):,.4f} USD {'less' if usd < 0 else 'more'}"


def _number(value: str | int) -> str:
    return value if isinstance(value, str) else f"{value:,}"


def _cell(trial: Trial, names: tuple[str, ...]) -> str:
    """The sizes, ``any`` where AWS sees to them, nothing where the template does not have them."""
    modes = [trial.kind.stream if SHARDS in names else None, trial.kind.table if WCU in names or RCU in names else None]
    on_demand = next((_ON_DEMAND[mode] for mode in modes if mode in _ON_DEMAND), None)
    return on_demand or " / ".join(f"{trial.sizes[name]:,}" for name in names if name in trial.sizes)


def _grid(rows: Iterable[tuple[str, Trial, str]]) -> Table:
    grid = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    grid.add_column("")
    shown = list(rows)
    columns = []
    for title, names, always in _COLUMNS:
        cells = [_cell(trial, names) for _, trial, _ in shown]
        if any(cells) if always else len(set(cells)) > 1:
            grid.add_column(title, justify="right", no_wrap=True)
            columns.append(cells)
    grid.add_column("USD", justify="right", no_wrap=True)
    grid.add_column("")
    for place, (title, trial, note) in enumerate(shown):
        grid.add_row(title, *(cells[place] for cells in columns), f"{trial.usd:,.4f}", note)
    return grid


def _measured(trial: Trial) -> Text:
    values = trial.found.values
    return Text("advice: " + ", ".join(f"{name} {value_text(name, values[name])}" for name in NAMES))


def _bill(trial: Trial) -> Table:
    grid = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    grid.add_column("bill of the advice, by the hour begun")
    grid.add_column("")
    grid.add_column("USD", justify="right")
    for line in trial.found.bill:
        quantity = f"{line.quantity:,.{0 if line.quantity >= 100 else 1}f} {line.price.unit}"
        grid.add_row(line.resource, quantity, f"{line.usd:,.4f}")
    grid.add_row("together", "", f"{trial.usd:,.4f}")
    return grid
