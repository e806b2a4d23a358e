"""``alleycat plan --experiment FILE``: named cases planned and compared.

Exit codes: 0 compared, whatever the cases came to (they are there to break), 2 usage.
"""

from __future__ import annotations

import json
from pathlib import Path

import typer
from rich.console import Console

from simulator.cloud_flags import limits_of
from simulator.flags import UsageError

EXPERIMENT_FILE, MARKDOWN_FILE = "experiment.json", "experiment.md"
_ALSO = ("experiment", "template", "limit", "prices", "out", "as_json")
"""Flags that an experiment takes; what the others say stands in its file."""


def run_experiment(
    context: typer.Context,
    file: Path,
    *,
    template: Path | None,
    limit: list[str] | None,
    prices: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Plan all cases of ``file``, print the comparison, write it to ``out``. :raises UsageError:"""
    from simulator.capacity import experiment
    from simulator.capacity.experiment_file import ExperimentError, load_experiment
    from simulator.capacity.prices import PRICES, PricesError, load_prices

    _refuse_other_flags(context)
    settings = limits_of("on", limit)
    try:
        chosen = PRICES if prices is None else load_prices(prices)
        asked = load_experiment(file, template)
        with Console(stderr=True).status(f"planning {len(asked.cases)} cases"):
            found = experiment.run(asked, settings=settings, prices=chosen)
    except PricesError as error:
        raise UsageError(f"--prices: {error}") from None
    except ExperimentError as error:
        raise UsageError(f"--experiment: {error}") from None
    told = json.dumps(experiment.as_json(asked, found), ensure_ascii=False)
    if out is not None:
        try:
            out.mkdir(parents=True, exist_ok=True)
            (out / EXPERIMENT_FILE).write_text(told, encoding="utf-8")
            (out / MARKDOWN_FILE).write_text(experiment.as_markdown(asked, found), encoding="utf-8")
        except OSError as error:
            raise UsageError(f"--out {out}: {error.strerror}") from None
    if as_json:
        print(told)
    else:
        Console().print(experiment.render(asked, found))


def _refuse_other_flags(context: typer.Context) -> None:
    """A flag that would change nothing is an error."""
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if name not in _ALSO and source is not None and source.name == "COMMANDLINE":
            raise UsageError(f"{parameter.opts[0]} does not go with --experiment: say it in the experiment's file")
