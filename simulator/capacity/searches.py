"""``alleycat plan --advise`` and ``--sweep``: many plans for one question, and the one line that answers bad ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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
    if not asked.advise and (asked.objective is not None or asked.headroom is not None):
        raise UsageError(f"{'--objective' if asked.objective is not None else '--headroom'} goes with --advise")
    # plotly takes a while, and only one of them needs it.
    from simulator.capacity.advise_view import AdviceError, run_advise
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
    except (AdviceError, PlanError) as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        raise UsageError(f"--out {out}: {error.strerror}") from None
    return True
