"""``alleycat plan --advise`` and ``--sweep``: many plans for one question, and the one line that answers bad ones."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import typer

from simulator.capacity.functions import Durations
from simulator.capacity.model import PlanError
from simulator.capacity.prices import Price
from simulator.capacity.trials import Deploy
from simulator.capacity.workload import Workload
from simulator.cloud.limits import LimitSettings
from simulator.flags import UsageError

DEFAULT_HEADROOM = "20%"


@dataclass(frozen=True, slots=True)
class Searches:
    """The flags as they were given; None and empty when they were not."""

    advise: bool
    objective: str | None
    headroom: str | None
    sweeps: tuple[str, ...]
    write_env: str | None = None
    command: str = ""
    """That asks the same again."""


def command_of(context: typer.Context) -> str:
    """The command line of what was asked, by flags or by the environment; not where to its answer goes."""
    words = ["alleycat", str(context.command.name)]
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        if source is None or source.name not in ("COMMANDLINE", "ENVIRONMENT") or name in ("out", "as_json"):
            continue
        value = context.params[name]
        if value is True:
            words.append(parameter.opts[0])
        elif value is not False:
            for one in value if isinstance(value, list | tuple) else [value]:
                words += [parameter.opts[0], str(one)]
    return shlex.join(words)


def search(
    asked: Searches,
    deploy: Deploy,
    workload: Workload,
    settings: LimitSettings,
    prices: Mapping[str, Price],
    durations: Durations,
    out: Path | None,
    *,
    as_json: bool,
) -> bool:
    """Do what is asked; False when an adviser found nothing that holds. :raises UsageError:"""
    if asked.advise and asked.sweeps:
        raise UsageError("--advise and --sweep are two questions; ask one at a time")
    of_advise = {"--objective": asked.objective, "--headroom": asked.headroom, "--write-env": asked.write_env}
    for flag, value in of_advise.items():
        if not asked.advise and value is not None:
            raise UsageError(f"{flag} goes with --advise")
    # plotly takes a while, and only one of them needs it.
    from simulator.capacity.advise_view import AdviceError, run_advise
    from simulator.capacity.environment import WriteError
    from simulator.capacity.objective import DEFAULT
    from simulator.capacity.sweep import SweepError

    try:
        if asked.advise:
            return run_advise(
                deploy,
                workload,
                objective=DEFAULT if asked.objective is None else asked.objective,
                headroom=DEFAULT_HEADROOM if asked.headroom is None else asked.headroom,
                settings=settings,
                prices=prices,
                durations=durations,
                out=out,
                as_json=as_json,
                write_env=asked.write_env,
                command=asked.command,
            )
        from simulator.capacity.sweep_view import run_sweep

        run_sweep(
            deploy,
            workload,
            asked.sweeps,
            settings=settings,
            prices=prices,
            durations=durations,
            out=out,
            as_json=as_json,
        )
    except SweepError as error:
        raise UsageError(f"--sweep: {error}") from None
    except WriteError as error:
        raise UsageError(f"--write-env: {error}") from None
    except (AdviceError, PlanError) as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        raise UsageError(f"--out {out}: {error.strerror}") from None
    return True
