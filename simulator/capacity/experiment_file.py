"""A file of an experiment: one workload, and cases that differ from it, each by its own sizes.

::

    [experiment]
    name = "more-shards"
    about = "Whether a second shard is enough."
    config_env = "as-published"        # of samconfig.toml, for all cases that name none

    [workload]                         # what is not said is as `alleycat plan` has it
    racers = 1000
    run_time = "5m"

    [[case]]
    name = "two shards"
    parameters = { ShardCount = 2 }    # of the template
    workload = { phase = "burst" }     # instead of the one above
    properties = { ParallelizationFactor = 10 }

``properties`` are what the template has no parameter for: they are put on everything that they can be put on.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from simulator.capacity.workload import PARTITION_KEYS, Workload
from simulator.deployment import Deployment, DeploymentError, load_deployment
from simulator.flags import UsageError, seconds

MOST_CASES = 50
_TOP = ("experiment", "workload", "case")
_EXPERIMENT = ("name", "about", "config_env")
_CASE = ("name", "about", "config_env", "parameters", "workload", "properties")
_NUMBERS = ("racers", "races", "batch_records", "seed", "qos", "message_bytes", "extra_bytes", "linger")
_SWITCHES = {"aggregate": "aggregation"}
_SHARES = ("late_share", "dropout_share", "skew")
_TIMES = {"run_time": "seconds", "deadline": "deadline_s", "interval": "interval_s"}
_CHOICES = {"via": ("kinesis", "mqtt"), "partition_key": PARTITION_KEYS, "phase": ("spread", "burst")}
_WORKLOAD = (*_NUMBERS, *_SWITCHES, *_SHARES, *_TIMES, *_CHOICES, "classes")
_MODES = {"StreamMode": ("PROVISIONED", "ON_DEMAND"), "BillingMode": ("PROVISIONED", "PAY_PER_REQUEST")}
_PROPERTIES = ("ParallelizationFactor", *_MODES)
_MOST_PARALLEL = 10


class ExperimentError(ValueError):
    """A file of an experiment cannot be used; the text is one line with file, table, key and what is allowed."""


@dataclass(frozen=True, slots=True)
class Case:
    """One deployment under one workload; ``parameters`` and ``properties`` as the file has them."""

    name: str
    about: str
    config_env: str
    workload: Workload
    deployment: Deployment
    parameters: Mapping[str, str] = field(default_factory=dict)
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Experiment:
    """What a file asks for, checked."""

    name: str
    about: str
    cases: tuple[Case, ...]


def load_experiment(path: Path, template: Path | None = None) -> Experiment:
    """The experiment in ``path``, on ``template`` or the project's own.

    :raises ExperimentError: for whatever is wrong with it, a size that the template refuses included.
    """
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ExperimentError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ExperimentError(f"{path} is not TOML: {error}") from None
    where = str(path)
    _known(told, _TOP, where)
    about = _table(told, "experiment", where)
    head = f"{where}: [experiment]"
    _known(about, _EXPERIMENT, head)
    config_env = _text(about, "config_env", head, "default")
    shared = _workload(_table(told, "workload", where), Workload(), f"{where}: [workload]")
    given = told.get("case", [])
    if not isinstance(given, list) or not 1 <= len(given) <= MOST_CASES:
        raise ExperimentError(f"{where}: give 1 to {MOST_CASES} cases, each a table [[case]] with a name")
    cases: list[Case] = []
    for number, one in enumerate(given, 1):
        case = _case(one, f"{where}: [[case]] {number}", where, config_env, shared, template)
        if case.name in (known.name for known in cases):
            raise ExperimentError(f"{where}: [[case]] {number}: name {case.name!r} is taken by another case")
        cases.append(case)
    return Experiment(_text(about, "name", head, path.stem), _text(about, "about", head, ""), tuple(cases))


def _case(given: Any, head: str, where: str, config_env: str, shared: Workload, template: Path | None) -> Case:
    if not isinstance(given, dict):
        raise ExperimentError(f"{head}: a case is a table, not {given!r}")
    name = _text(given, "name", head, "")
    if not name:
        raise ExperimentError(f"{head}: give the case a name")
    head = f"{where}: [[case]] {name!r}"
    _known(given, _CASE, head)
    config_env = _text(given, "config_env", head, config_env)
    workload = _workload(_table(given, "workload", head), shared, f"{head}: workload")
    parameters = {}
    for key, value in _table(given, "parameters", head).items():
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ExperimentError(f"{head}: parameters: {key} must be a number or a text, not {value!r}")
        parameters[key] = str(value)
    try:
        deployment = load_deployment(template, config_env, parameters)
    except DeploymentError as error:
        raise ExperimentError(f"{head}: {error}") from None
    properties = _table(given, "properties", head)
    deployment = _with_properties(deployment, properties, f"{head}: properties")
    return Case(name, _text(given, "about", head, ""), config_env, workload, deployment, parameters, properties)


# -- the parts of a table ------------------------------------------------------------------------------------


def _known(given: Mapping[str, Any], allowed: Sequence[str], head: str) -> None:
    for key in given:
        if key not in allowed:
            near = difflib.get_close_matches(key, allowed, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ExperimentError(f"{head}: there is no key {key!r}; {hint}allowed are {', '.join(allowed)}")


def _table(given: Mapping[str, Any], key: str, head: str) -> dict[str, Any]:
    value = given.get(key, {})
    if not isinstance(value, dict):
        raise ExperimentError(f"{head}: {key} must be a table of keys and values, not {value!r}")
    return value


def _text(given: Mapping[str, Any], key: str, head: str, default: str) -> str:
    value = given.get(key, default)
    if not isinstance(value, str) or not (value.strip() or key not in given):
        raise ExperimentError(f"{head}: {key} must be a text that is not empty, not {value!r}")
    if not value.isprintable():
        raise ExperimentError(f"{head}: {key} must be one line of printable text")
    return value


def _workload(given: Mapping[str, Any], base: Workload, head: str) -> Workload:
    """``base`` with what is given instead, in the words of ``alleycat plan``'s flags."""
    _known(given, _WORKLOAD, head)
    changes: dict[str, Any] = {}
    for key, value in given.items():
        if key in _NUMBERS:
            if isinstance(value, bool) or not isinstance(value, int):
                raise ExperimentError(f"{head}: {key} must be a whole number, not {value!r}")
            changes["linger_ms" if key == "linger" else key] = value
        elif key in _SWITCHES:
            if not isinstance(value, bool):
                raise ExperimentError(f"{head}: {key} must be true or false, not {value!r}")
            changes[_SWITCHES[key]] = value
        elif key in _SHARES:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ExperimentError(f"{head}: {key} must be a number, not {value!r}")
            changes[key] = float(value)
        elif key in _TIMES:
            try:
                changes[_TIMES[key]] = seconds(key, value if isinstance(value, str) else repr(value))
            except UsageError as error:
                raise ExperimentError(f"{head}: {error}") from None
        elif key == "classes":
            if not isinstance(value, list) or not all(type(one) is int for one in value):
                raise ExperimentError(f"{head}: classes must be a list of numbers from 1 to 6, not {value!r}")
            changes[key] = tuple(value)
        elif value not in _CHOICES[key]:
            raise ExperimentError(f"{head}: {key} must be one of {', '.join(_CHOICES[key])}, not {value!r}")
        elif key == "via":
            changes["transport"] = "mqtt" if value == "mqtt" else "putrecords"
        else:
            changes[key] = value
    try:
        return replace(base, **changes)
    except ValueError as error:
        raise ExperimentError(f"{head}: {error}") from None


def _with_properties(deployment: Deployment, given: Mapping[str, Any], head: str) -> Deployment:
    _known(given, _PROPERTIES, head)
    for key, value in given.items():
        if key in _MODES:
            if value not in _MODES[key]:
                raise ExperimentError(f"{head}: {key} must be one of {', '.join(_MODES[key])}, not {value!r}")
        elif type(value) is not int or not 1 <= value <= _MOST_PARALLEL:
            raise ExperimentError(f"{head}: {key} must be from 1 to {_MOST_PARALLEL}, not {value!r}")
    if "ParallelizationFactor" in given:
        deployment = _parallel(deployment, given["ParallelizationFactor"], head)
    if "StreamMode" in given:
        streams = tuple(replace(one, mode=given["StreamMode"]) for one in deployment.streams)
        deployment = replace(deployment, streams=streams)
    if given.get("BillingMode") == "PAY_PER_REQUEST":
        tables = tuple(
            replace(
                table,
                billing_mode="PAY_PER_REQUEST",
                rcu=0,
                wcu=0,
                indexes=tuple(replace(index, rcu=0, wcu=0) for index in table.indexes),
            )
            for table in deployment.tables
        )
        deployment = replace(deployment, tables=tables)
    return deployment


def _parallel(deployment: Deployment, factor: int, head: str) -> Deployment:
    """Every event source of a Kinesis stream reads by ``factor`` lanes a shard."""
    functions = []
    for function in deployment.functions:
        for one in function.event_sources:
            if one.kind == "Kinesis" and one.tumbling_window_s and factor > 1:
                raise ExperimentError(
                    f"{head}: ParallelizationFactor must be 1 with a tumbling window, which {function.logical_id} has; "
                    "set TumblingWindowInSeconds to 0"
                )
        sources = tuple(
            replace(one, parallelization_factor=factor) if one.kind == "Kinesis" else one
            for one in function.event_sources
        )
        functions.append(replace(function, event_sources=sources))
    return replace(deployment, functions=tuple(functions))
