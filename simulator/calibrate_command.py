"""``alleycat plan --calibrate report.json``: what was measured instead of what is assumed.

Without other flags, what the report is of is planned: its racers, its deployment. What a flag or its environment
variable says goes before the report; ``--config-env`` puts the sizes of an environment in the place of the report's.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import typer
from rich.console import Console

from simulator.capacity.calibration import Calibration, calibrate
from simulator.capacity.calibration_view import durations_line, render
from simulator.capacity.functions import Durations
from simulator.capacity.measurement import CalibrationError, Measurement, read_measurement
from simulator.capacity.model import LEAD_S, Plan, PlanError, plan
from simulator.capacity.workload import Workload
from simulator.cloud_flags import deployment_of, limits_of
from simulator.flags import UsageError

_WORKLOAD = {
    "racers": "racers",
    "run_time": "seconds",
    "races": "races",
    "classes": "classes",
    "via": "transport",
    "partition_key": "partition_key",
    "phase": "phase",
    "deadline": "deadline_s",
    "interval": "interval_s",
    "late_share": "late_share",
    "dropout_share": "dropout_share",
    "skew": "skew",
    "qos": "qos",
    "linger": "linger_ms",
    "message_bytes": "message_bytes",
    "extra_bytes": "extra_bytes",
    "seed": "seed",
}
_SIZES = {
    "shards": "ShardCount",
    "wcu": "WriteCapacityUnits",
    "rcu": "ReadCapacityUnits",
    "window": "TumblingWindowInSeconds",
}


@dataclass(frozen=True, slots=True)
class Measured:
    """A report, and which of the flags were given."""

    measurement: Measurement
    given: frozenset[str]

    @property
    def lead_s(self) -> float:
        """How long the deployment stands before the first message."""
        return LEAD_S if self.measurement.lead_s is None else self.measurement.lead_s

    def workload(self, asked: Workload) -> Workload:
        """The report's race, with what flags say of ``asked``."""
        if self.measurement.workload is None:
            return asked
        said = {field: getattr(asked, field) for flag, field in _WORKLOAD.items() if flag in self.given}
        return replace(self.measurement.workload, **{"message_bytes": self.measurement.message_bytes, **said})

    def sizes(self, config_env: str, settings: Sequence[str] | None) -> tuple[str, list[str]]:
        """The environment and the ``--set`` of the report's deployment, with what flags say."""
        said = list(settings or ())
        if self.measurement.workload is None or "config_env" in self.given:
            return config_env, said
        flags = {size for flag, size in _SIZES.items() if flag in self.given}
        reported = [f"{name}={value}" for name, value in self.measurement.parameters.items() if name not in flags]
        return self.measurement.config_env, reported + said

    def limits(self, limit: Sequence[str] | None) -> list[str]:
        """What the race set about limits, then what ``--limit`` does."""
        return [*self.measurement.limit_settings, *(limit or ())]

    def durations(self, before: Durations, pinned: Sequence[str], template: Path | None) -> Calibration:
        """Fitted to the report's own race, whatever else is asked for. :raises UsageError:"""
        measurement = self.measurement

        def planned(durations: Durations, luck: int) -> Plan:
            assert measurement.workload is not None
            workload = measurement.workload
            seed = workload.seed + luck
            return plan(
                deployment, workload, settings=settings, durations=durations, lead_s=self.lead_s, jitter_seed=seed
            )

        own = [f"{name}={value}" for name, value in measurement.parameters.items()]
        deployment = deployment_of(measurement.config_env, template, own, None, None, None, None)
        settings = limits_of("on", list(measurement.limit_settings))
        try:
            with Console(stderr=True).status("calibrating"):
                return calibrate(measurement, planned, before, pinned)
        except (PlanError, ValueError) as error:
            raise UsageError(f"--calibrate {measurement.path}: {error}") from None


def measured_by(context: typer.Context, path: Path) -> Measured:
    """:raises UsageError:"""
    try:
        measurement = read_measurement(path)
    except CalibrationError as error:
        raise UsageError(f"--calibrate {error}") from None
    given = set()
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT"):
            given.add(parameter.name or "")
    return Measured(measurement, frozenset(given))


def show(calibration: Calibration, *, as_json: bool) -> None:
    """The table; where JSON is asked for, the durations alone, on stderr."""
    if as_json:
        print(f"alleycat: {durations_line(calibration)}", file=sys.stderr)
    else:
        Console().print(render(calibration))
