"""report.html of a load test: one file that explains itself, without network.

Much of what it shows was said by a service, so nothing is trusted: every text is escaped on its way into
:class:`Html`, the figures' data cannot end its element, and the page's own policy lets a browser run exactly the
two scripts that were put there, named by their hashes, and load nothing at all.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from loadtests.report_figures import Figure, figures
from loadtests.report_html import Html, amount, escaped, facts, join, said, seconds, section, share, table
from loadtests.report_series import number, printable
from loadtests.report_style import SCRIPT, STYLE

TARGETS = {"local": "the embedded cloud", "aws": "a real AWS account", "emulator": "an emulator"}
OUTCOMES = {
    "limit": ("good", "A limit of the service was found."),
    "held": ("good", "The service held all of the load that was offered."),
    "no-limit": ("warn", "No limit was found."),
    "generator": ("warn", "The load generator was the bottleneck: these figures are not the service's limit."),
    "target": ("warn", "The embedded cloud was short of CPU: these figures are not the service's limit."),
    "incomplete": ("bad", "Measurements are missing: these figures prove nothing."),
}


KEPT, MISSED = Html('<span class="good">✓ kept</span>'), Html('<span class="bad">✗ missed</span>')


def write_page(told: Mapping[str, Any], path: Path) -> Path:
    """Write the page of ``report.json`` (``told``) to ``path``, whole or not at all; returns ``path``.

    :raises OSError: when it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.part")
    draft.write_text(page(told), encoding="utf-8")
    draft.replace(path)
    return path


def page(told: Mapping[str, Any]) -> str:
    """The page's text."""
    drawings = {one.name: one for one in figures(told)}
    places = [_figure(one) for one in drawings.values()]
    data = ",".join(f"{json.dumps(name)}:{one.drawing.to_json()}" for name, one in drawings.items())
    plotly, script = _plotly(), Html(SCRIPT)
    policy = f"default-src 'none'; script-src {_hash(plotly)} {_hash(script)}; style-src 'unsafe-inline'; img-src data:"
    body = join(
        _header(told),
        _limits(told),
        _knee(told),
        section("Over time and by stage", "Point at a line for its values.", *places) if places else "",
        _objectives(told),
        _stages(told),
        _problems(told),
        _ledger(told),
        _settings(told),
    )
    scenario = escaped(_of(told, "run").get("scenario", "?"))
    return "".join(
        (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>Load test {scenario}</title><style>{STYLE}</style></head>\n<body><main>{body}</main>\n",
            # No < in the data: nothing in it can end the element.
            f'<script type="application/json" id="figures">{_inert("{" + data + "}")}</script>\n',
            f"<script>{plotly}</script>\n<script>{script}</script></body></html>\n",
        )
    )


@cache
def _plotly() -> Html:
    """plotly.js as it comes with plotly; a browser's hash is of text whose line ends are \\n."""
    return Html(get_plotlyjs().replace("\r\n", "\n").replace("\r", "\n"))


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _inert(data: str) -> str:
    return data.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _figure(one: Figure) -> Html:
    return Html(
        f"<figure><h3>{escaped(one.title)}</h3><figcaption>{escaped(one.caption)}</figcaption>"
        f'<div class="drawing" id="{escaped(one.name)}"></div></figure>'
    )


def _of(told: Any, key: str) -> Mapping[str, Any]:
    found = told.get(key)
    return found if isinstance(found, Mapping) else {}


def _rows(told: Any, key: str) -> list[Mapping[str, Any]]:
    return [one for one in told.get(key) or () if isinstance(one, Mapping)]


# -- Sections, from top to bottom -----------------------------------------------------------------------------


def is_incomplete(told: Mapping[str, Any]) -> bool:
    """Whether measurements are missing, by the report's outcome or its own list."""
    outcome = str(told.get("outcome"))
    return outcome not in OUTCOMES or outcome == "incomplete" or bool(told.get("incomplete"))


def _header(told: Mapping[str, Any]) -> Html:
    run, verdict = _of(told, "run"), _of(told, "verdict")
    if is_incomplete(told):
        badge, kind = "Incomplete: not a result", "bad"
    elif verdict.get("passed") is True:
        badge, kind = "Passed", "good"
    else:
        badge, kind = "Failed", "bad"
    mood, outcome = OUTCOMES.get(str(told.get("outcome")), OUTCOMES["incomplete"])
    target = TARGETS.get(str(run.get("target")), run.get("target"))
    checks = [
        f'<li><span class="{"good" if one.get("passed") is True else "bad"}">'
        f"{'✓' if one.get('passed') is True else '✗'} {escaped(one.get('name'))}</span>: "
        f"{escaped(one.get('text'))}</li>"
        for one in _rows(verdict, "checks")
    ]
    missing = [f"<li>{escaped(one)}</li>" for one in told.get("incomplete") or ()]
    return join(
        Html(f"<header><h1>Load test {said(run.get('scenario', '?'))}</h1>"),
        Html(f'<p class="soft"><bdi>{escaped(run.get("about", ""))}</bdi></p>'),
        Html(f'<span class="badge {kind}">{badge}</span>'),
        Html(f'<p class="summary"><bdi>{escaped(told.get("summary") or "Nothing was concluded.")}</bdi></p>'),
        Html(
            '<div class="note bad" role="alert"><strong>Measurements are missing. Do not rely on any figure of this '
            f"page.</strong><ul>{''.join(missing) or '<li>The test did not say what is missing.</li>'}</ul></div>"
            if is_incomplete(told)
            else f'<div class="note {mood}"><strong>{outcome}</strong></div>'
        ),
        Html(f'<ul class="checks">{"".join(checks)}</ul>' if checks else ""),
        facts(
            (
                ("Target", target),
                ("Endpoint", run.get("endpoint")),
                ("Region", run.get("region")),
                ("Started", run.get("started_at")),
                ("Took", seconds(run.get("seconds"))),
                ("Workers, users", f"{run.get('workers', '–')}, {run.get('users', '–')}"),
            )
        ),
        Html("<noscript><p>The figures need JavaScript; the tables do not.</p></noscript></header>\n"),
    )


def _limits(told: Mapping[str, Any]) -> Html:
    # What binds first, then what refused most.
    limits = sorted(
        _rows(told, "limits"), key=lambda one: (not one.get("binding"), -(number(one.get("throttled")) or 0))
    )
    rows = []
    for one in limits:
        unit = str(one.get("unit", ""))
        rows.append(
            (
                said(one.get("name")),
                said(one.get("resource")),
                amount(one.get("published"), unit),
                amount(one.get("sustained"), unit),
                share(one.get("ratio")),
                amount(one.get("peak"), unit),
                seconds(one.get("first_throttle_at_s")),
                amount(one.get("throttled"), digits=0),
                "yes" if one.get("binding") else "no",
            )
        )
    headers = ("limit", "of", "#published", "#sustained", "#ratio", "#peak", "#first throttle", "#throttled", "binds")
    return section(
        "Limits",
        "Published is what the service promises or what was provisioned. Sustained is what was accepted in the seconds "
        "in which it refused the rest, without what a burst had saved; where nothing was refused, the best rate that "
        "held. The peak is the busiest second. A limit binds when it is the one that refused.",
        table(headers, rows, [at for at, one in enumerate(limits) if one.get("binding")])
        if rows
        else Html("<p>No limit was measured.</p>"),
    )


def _knee(told: Mapping[str, Any]) -> Html:
    knee, latency = _of(told, "knee"), _of(told, "latency_ms")
    unit = f"{knee.get('unit', '')}/s"
    text = (
        f"It held {amount(knee.get('held_per_second'), unit) or 'an unknown rate'} and broke at "
        f"{amount(knee.get('broke_per_second'), unit) or 'an unknown rate'}: {printable(knee.get('reason'))}."
        if knee
        else "No knee was found in this test."
    )
    kinds = (
        ("before_knee", "before the knee"),
        ("after_knee", "after the knee"),
        ("all", "the whole test"),
        ("lateness", "sent late by"),
    )
    rows = [
        (name, *(amount(_of(latency, kind).get(key), digits=2) for key in ("p50", "p90", "p99", "p99_9", "max")))
        for kind, name in kinds
    ]
    return section(
        "The knee, and latency on both sides of it",
        "Up to the knee the service takes what it is offered; past it, it refuses or answers late. Latency counts "
        "from when a request was due, so a generator that falls behind shows instead of hiding.",
        Html(f"<p><strong>{escaped(text)}</strong></p>"),
        table(("ms", "#p50", "#p90", "#p99", "#p99.9", "#max"), rows),
    )


def _objectives(told: Mapping[str, Any]) -> Html:
    rows = [
        (
            said(one.get("name")),
            one.get("limit"),
            one.get("measured"),
            Html(
                '<span class="good">✓ kept</span>' if one.get("passed") is True else '<span class="bad">✗ missed</span>'
            ),
            one.get("why") or "",
        )
        for one in _rows(told, "objectives")
    ]
    return section(
        "Objectives",
        "What was asked of this test, by flags or a file.",
        table(("objective", "#at most", "#measured", "", "~why"), rows)
        if rows
        else Html("<p>No objective was asked for.</p>"),
    )


def _stages(told: Mapping[str, Any]) -> Html:
    rows = [
        (
            one.get("name"),
            f"{seconds(one.get('start_s')) or '–'} to {seconds(one.get('end_s')) or '–'}",
            amount(one.get("offered_per_second")),
            amount(one.get("accepted_per_second")),
            share(one.get("throttled_share")),
            amount(one.get("failed"), digits=0),
            share(one.get("late_share")),
            amount(one.get("unsent"), digits=0),
            amount(one.get("p50_ms"), digits=2),
            amount(one.get("p99_ms"), digits=2),
            share(one.get("generator_cpu"), 0),
            share(one.get("target_cpu"), 0),
            "held" if one.get("held") is True else "broke" if one.get("held") is False else "",
            one.get("reason") or "",
        )
        for one in _rows(told, "stages")
    ]
    headers = (
        "stage",
        "from, to",
        "#offered/s",
        "#accepted/s",
        "#throttled",
        "#failed",
        "#late",
        "#unsent",
        "#p50 ms",
        "#p99 ms",
        "#CPU gen.",
        "#CPU target",
        "",
        "~why",
    )
    return section(
        "Stages",
        "The load was offered in stages; each was judged by itself.",
        table(headers, rows) if rows else Html("<p>No stage was run.</p>"),
    )


def _problems(told: Mapping[str, Any]) -> Html:
    rows = [
        (
            one.get("operation"),
            said(one.get("resource")),
            said(one.get("code")),
            Html(f"<bdi>{escaped(one.get('message'))}</bdi>"),
            amount(one.get("count"), digits=0),
            seconds(one.get("first_at_s")),
        )
        for one in _rows(told, "problems")
    ]
    return section(
        "What the service said",
        "Refusals and failures in the service's own words, the first message of each kind.",
        table(("operation", "of", "code", "~message", "#times", "#first at"), rows)
        if rows
        else Html("<p>Nothing was refused, nothing failed.</p>"),
    )


def _ledger(told: Mapping[str, Any]) -> Html:
    ceiling, ledger = _of(told, "ceiling"), _of(told, "ledger")
    rows = [
        (
            name,
            share(_of(ceiling, name).get("cpu_peak"), 0),
            amount(_of(ceiling, name).get("cores")),
            amount(_of(ceiling, name).get("ceiling_per_second"), "/s", 0),
            "yes" if ceiling.get("bottleneck") == name else "no",
        )
        for name in ("generator", "target")
        if _of(ceiling, name)
    ]
    return section(
        "Could something else have been the limit?",
        "A service's limit is named only when neither the generator nor the embedded cloud was busy.",
        Html(f"<p><strong>{escaped(ceiling.get('text') or 'The ceilings were not measured.')}</strong></p>"),
        table(("", "#CPU at most", "#cores", "#ceiling", "bottleneck"), rows) if rows else "",
        Html("<h3>Where everything that was offered ended</h3>"),
        facts((key.replace("_", " "), amount(value, digits=0)) for key, value in ledger.items())
        or Html("<p>Nothing was counted.</p>"),
    )


def _settings(told: Mapping[str, Any]) -> Html:
    run = _of(told, "run")
    groups = (
        ("Deployment", _of(_of(told, "deployment"), "parameters")),
        ("Settings", _of(run, "settings")),
        ("Versions", _of(run, "versions")),
    )
    return section(
        "How to run it again",
        "",
        *(
            join(Html(f"<h3>{name}</h3>"), facts((k, said(v)) for k, v in told_facts.items()))
            for name, told_facts in groups
        ),
    )
