"""report.html of a plan: one file without network, with figures like the services' own monitoring pages.

Names come from templates of anybody, so nothing is trusted: texts are escaped, the figures' data cannot end its
element, and the page's policy lets a browser run the two scripts that were put there, named by their hashes, and load
nothing.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from simulator.capacity.model import DRAIN_S, Plan
from simulator.capacity.plan_figures import Figure, figures
from simulator.capacity.prices import total_usd
from simulator.capacity.report import as_json
from simulator.capacity.view import clock_text

_MOST_SHARDS = 50
_STYLE = """
:root { color-scheme: light dark; --back: #f4f5f7; --card: #fff; --ink: #1c2127; --faint: #5b6570; --rule: #dbe0e6;
  --good: #12703a; --bad: #b4231f; --mark: #fff1d4; }
@media screen and (prefers-color-scheme: dark) { :root { --back: #12161b; --card: #1b2128; --ink: #e6e9ed;
  --faint: #9aa5b1; --rule: #343c46; --good: #6fd69b; --bad: #ff9a94; --mark: #3a2f12; } }
body { margin: 0; padding: 16px; background: var(--back); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1100px; margin: auto; }
section { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 14px 18px;
  margin-bottom: 14px; }
h1, h2, h3, p { margin: 0 0 6px; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.15rem; } h3 { font-size: 1rem; margin-top: 18px; }
.answer { font-size: 1.25rem; font-weight: 700; } .good { color: var(--good); } .bad { color: var(--bad); }
.faint, figcaption { color: var(--faint); font-size: .9rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 5px 0 5px 14px; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th { color: var(--faint); font-weight: 600; } th.text, td.text { text-align: left; padding: 5px 14px 5px 0; }
tr.first td { background: var(--mark); font-weight: 600; } tr:last-child td { border-bottom: 0; }
td:last-child { white-space: normal; } figure { margin: 0; }
@media print { body { background: none; padding: 0; } section { border: 0; padding: 0; } figure { break-inside: avoid; }
  .wide { overflow: visible; } th, td { white-space: normal; } .modebar { display: none !important; } }
"""
_SCRIPT = """
(() => {
  "use strict";
  const drawings = JSON.parse(document.getElementById("figures").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const names = Object.keys(drawings);
  const place = (name) => document.getElementById(name);

  function colours(layout, isDark) {
    const [ink, rule, card] = isDark ? ["#e6e9ed", "#343c46", "#1b2128"] : ["#1c2127", "#dbe0e6", "#ffffff"];
    const found = { "font.color": ink, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      "hoverlabel.bgcolor": card, "hoverlabel.font.color": ink };
    Object.keys(layout).filter((key) => /^[xy]axis/.test(key)).forEach((axis) => {
      for (const part of ["gridcolor", "linecolor", "zerolinecolor"]) found[`${axis}.${part}`] = rule;
    });
    return found;
  }

  const recolour = (name, isDark, more) =>
    Plotly.relayout(place(name), { ...colours(place(name).layout, isDark), ...more });
  const all = names.map((name) =>
    Plotly.newPlot(place(name), drawings[name].data, drawings[name].layout, { responsive: true, displayModeBar: false })
      .then(() => recolour(name, dark.matches))
      .catch((error) => { place(name).textContent = "This figure could not be drawn: " + error; }));
  Promise.all(all).then(() => { document.documentElement.dataset.drawn = String(names.length); });
  dark.addEventListener("change", () => names.forEach((name) => recolour(name, dark.matches)));
  addEventListener("beforeprint", () => names.forEach((name) => recolour(name, false, { width: 680 })));
  addEventListener("afterprint", () =>
    names.forEach((name) => recolour(name, dark.matches, { width: null, autosize: true })));
})();
"""


def write_page(plan: Plan, path: Path) -> Path:
    """Write the page to ``path``, whole or not at all; returns ``path``. :raises OSError:"""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.part")
    draft.write_text(page(plan), encoding="utf-8")
    draft.replace(path)
    return path


def page(plan: Plan) -> str:
    """The page's text."""
    told = as_json(plan, with_timeline=False)
    drawn = figures(plan)
    data = json.dumps({one.name: json.loads(one.drawing.to_json()) for one in drawn})
    # No < in the data: nothing in it can end its element.
    inert = data.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    plotly = _plotly()
    policy = (
        f"default-src 'none'; script-src {_hash(plotly)} {_hash(_SCRIPT)}; style-src 'unsafe-inline'; img-src data:"
    )
    parts = (
        _answer(plan, told),
        _limits(told),
        _bill(plan),
        _section("Second by second", "Point at a line for its values.", *map(_figure, drawn)),
        _shards(told),
        _functions(plan, told),
        _deliveries(told),
        _tables(told),
        _deployment(told),
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Plan for {plan.workload.bikers:,} bikers</title><style>{_STYLE}</style></head>\n"
        f"<body><main>{''.join(parts)}</main>\n"
        f'<script type="application/json" id="figures">{inert}</script>\n'
        f"<script>{plotly}</script>\n<script>{_SCRIPT}</script></body></html>\n"
    )


@cache
def _plotly() -> str:
    """A browser hashes text whose line ends are \\n."""
    return str(get_plotlyjs()).replace("\r\n", "\n").replace("\r", "\n")


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _text(value: Any) -> str:
    return html.escape("".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in str(value)))


def _section(title: str, intro: str, *parts: str) -> str:
    """``parts`` are markup, the others text."""
    about = f'<p class="faint">{_text(intro)}</p>' if intro else ""
    return f"<section><h2>{_text(title)}</h2>{about}{''.join(parts)}</section>\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]], texts: int = 1, *, mark_first: bool = False) -> str:
    """The first ``texts`` columns are words, the others numbers."""

    def line(tag: str, cells: Sequence[Any]) -> str:
        return "".join(
            f"<{tag}{' class=text' if place < texts else ''}>{_text(cell)}</{tag}>" for place, cell in enumerate(cells)
        )

    body = "".join(
        f"<tr{' class=first' if mark_first and not place else ''}>{line('td', row)}</tr>"
        for place, row in enumerate(rows)
    )
    return f'<div class="wide"><table><thead><tr>{line("th", head)}</tr></thead><tbody>{body}</tbody></table></div>'


def _figure(one: Figure) -> str:
    return (
        f"<figure><h3>{_text(one.title)}</h3><figcaption>{_text(one.caption)}</figcaption>"
        f'<div class="drawing" id="{_text(one.name)}"></div></figure>'
    )


# -- from top to bottom --------------------------------------------------------------------------------------


def _answer(plan: Plan, told: dict[str, Any]) -> str:
    run, ledger = told["run"], plan.ledger
    races = f", {run['races']:,} races in a row" if run["races"] > 1 else ""
    asked = (
        f"{plan.workload.bikers:,} bikers, {clock_text(run['run_time_s'])} min{races}, by {run['via']}, partition key "
        f"{run['partition_key']}, on {told['deployment']['config_env']}"
    )
    if plan.holds:
        mood, answer = "good", "It holds: nothing is refused."
    elif plan.broken:
        first = plan.broken[0]
        word = "It throttles and recovers" if plan.recovers else "It breaks"
        limit = f" ({first.limit:,.0f} {first.unit})" if first.limit else ""
        mood, answer = "bad", f"{word}: first {first.name} of {first.resource}{limit}, at {clock_text(first.first_s)}."
    else:
        mood, answer = "bad", "It does not hold."
    fate = f"{ledger.delivered:,} of {ledger.generated:,} messages reached the stream, {ledger.lost:,} are lost. "
    if plan.settled_s is None:
        fate += f"{plan.backlog:,} records are still unprocessed {DRAIN_S / 60:.0f} minutes after the last message."
    else:
        fate += f"Results are complete {plan.settled_s:,.0f} s after the finish."
    return (
        f'<section><h1>Plan</h1><p class="faint">{_text(asked)}</p><p class="answer {mood}">{_text(answer)}</p>'
        f"<p>{_text(fate)} The bill is {total_usd(list(plan.bill)):,.4f} USD.</p>"
        "<noscript><p>The figures need JavaScript; the tables do not.</p></noscript></section>\n"
    )


def _limits(told: dict[str, Any]) -> str:
    rows = [
        (
            one["name"],
            one["resource"],
            f"{one['limit']:,.0f} {one['unit']}" if one["limit"] else "",
            clock_text(one["first_s"]),
            clock_text(one["last_s"]),
            f"{one['refused']:,}",
        )
        for one in told["limits"]
    ]
    head = ("limit", "of", "is", "first", "last", "refused")
    return _section(
        "Limits that broke",
        "In the order in which they did, minutes from the start of the first race. The first one is what to change; "
        "those below may follow from it.",
        _table(head, rows, 2, mark_first=True) if rows else "<p>None.</p>",
    )


def _bill(plan: Plan) -> str:
    rows = [
        (
            line.price.name,
            line.resource,
            f"{line.quantity:,.{0 if line.quantity >= 100 else 2}f} {line.price.unit}",
            f"{line.usd:,.4f}",
            f"{line.price.source}{f', {line.price.date}' if line.price.date else ''}",
        )
        for line in plan.bill
    ]
    rows.append(("together", "", "", f"{total_usd(list(plan.bill)):,.4f}", ""))
    about = "us-east-1, without free tiers, storage and data transfer. What is charged by the hour is in whole hours."
    return _section("The bill", about, _table(("line", "of", "quantity", "USD", "price from"), rows, 2))


def _shards(told: dict[str, Any]) -> str:
    busiest = sorted(told["shards"], key=lambda one: -one["offered"])
    keys = ("offered", "accepted", "throttled", "peak_accepted_per_second")
    rows = [(one["shard"], *(f"{one[key]:,}" for key in keys)) for one in busiest[:_MOST_SHARDS]]
    about = f"The {_MOST_SHARDS} busiest of {len(busiest):,}." if len(busiest) > _MOST_SHARDS else ""
    return _section("Shards", about, _table(("shard", "offered", "accepted", "throttled", "accepted/s, peak"), rows))


def _functions(plan: Plan, told: dict[str, Any]) -> str:
    rows = []
    for function, one in zip(plan.functions, told["functions"], strict=True):
        seen_ms = function.delays.as_ms()
        rows.append(
            (
                one["name"],
                *(f"{one[key]:,}" for key in ("invocations", "errors", "timeouts", "throttles", "concurrency_max")),
                *(f"{one['duration_ms'][key]:,.0f}" for key in ("p50", "p99", "max")),
                f"{one['iterator_age_ms_max'] / 1e3:,.1f}",
                f"{seen_ms['p99'] / 1e3:,.1f}",
            )
        )
    counts = ("calls", "errors", "timeouts", "throttled", "at once")
    head = ("function", *counts, "p50 ms", "p99 ms", "max ms", "age s", "seen within s")
    about = "Seen within: 99 of 100 messages that had their effect, from when they were due."
    return _section("Functions", about, _table(head, rows))


def _deliveries(told: dict[str, Any]) -> str:
    """Nothing where there is no delivery stream."""
    if not told["deliveries"]:
        return ""
    keys = ("records", "failed", "objects", "bytes")
    rows = [(one["name"], *(f"{one[key]:,}" for key in keys), f"{one['age_s_max']:,.1f}") for one in told["deliveries"]]
    about = "Failed: the transform failed on them to its last retry. Bytes are before compression."
    return _section("Deliveries", about, _table(("delivery stream", *keys, "oldest s"), rows))


def _tables(told: dict[str, Any]) -> str:
    rows = [
        (
            one["resource"],
            *(f"{one[key]:,.0f}" for key in ("provisioned_write_units", "consumed_write_units")),
            *(f"{one[key]:,.0f}" for key in ("peak_write_units_per_second", "throttled_writes")),
            *(f"{one[key]:,.0f}" for key in ("provisioned_read_units", "consumed_read_units", "throttled_reads")),
        )
        for one in told["tables"]
    ]
    head = ("table or index", "WCU", "written", "peak/s", "throttled", "RCU", "read", "throttled")
    return _section(
        "Tables", "Capacity of 0 is on-demand, or a local index, which lives on its table's.", _table(head, rows)
    )


def _deployment(told: dict[str, Any]) -> str:
    rows = [*told["deployment"]["parameters"].items(), ("seed", told["run"]["seed"])]
    left_out = "".join(f"<p>Not planned: {_text(line)}.</p>" for line in told["not_modelled"])
    return _section("What was planned", "", _table(("parameter", "value"), rows), left_out)
