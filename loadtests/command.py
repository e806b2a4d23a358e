"""``alleycat loadtest NAME``: a command for each scenario, ``--list``, and ``compare``."""

from __future__ import annotations

import inspect
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from loadtests import foresight
from loadtests.flags import OBJECTIVE_FLAGS, objectives_from
from loadtests.resources import Index, Resources, Shard, Table, look_up
from loadtests.scenarios import SCENARIOS, Scenario, adapted, scenario_of
from loadtests.settings import FLAGS, LoadSettings, settings_from
from simulator.asking import confirm_cost, writable
from simulator.cloud.server import DEFAULT_HOST, CloudError
from simulator.cloud_flags import Host, LimitOptions, Limits, Port, Rcu, Shards, Wcu, deployment_of, host_of, limits_of
from simulator.deployment import Deployment, load_deployment
from simulator.flags import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_TARGET,
    EXIT_USAGE,
    AsJson,
    ConfigEnv,
    Settings,
    Template,
    UsageError,
    complain,
    flag,
    one_of,
)


class _Scenarios(TyperGroup):
    """Says which scenarios there are when one is not."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            scenario_of(args[0])
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_Scenarios,
    help="Find a limit and name it: one command for each scenario.",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def loadtest(
    ctx: typer.Context,
    listed: Annotated[bool, typer.Option("--list", help="Print every scenario with what it is after.")] = False,
) -> None:
    """Find a limit and name it: a scenario, or ``compare`` of two reports."""
    if listed:
        width = max(map(len, SCENARIOS))
        for one in SCENARIOS.values():
            print(f"{one.name:<{width}}  {one.about}")
        raise typer.Exit(0)
    if ctx.invoked_subcommand is None:
        raise UsageError("name a scenario; alleycat loadtest --list explains each")


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="A report.json, or the directory that holds it.")],
    b: Annotated[Path, typer.Argument(help="The one to compare with it, usually the later.")],
    max_regression: Annotated[
        str, flag("--max-regression", env="MAX_REGRESSION", help="Worse by more than this fails: 5%.")
    ] = "5%",
    as_json: AsJson = False,
) -> None:
    """What changed between two reports; exit code 1 when B is worse."""
    from loadtests.compare import compare as compared
    from loadtests.compare import load, render
    from loadtests.objectives import parse_share

    found = compared(load(a), load(b), parse_share(max_regression, "--max-regression"))
    if as_json:
        print(json.dumps(found.to_json(), ensure_ascii=False))
    else:
        render(found, _console())
    raise typer.Exit(0 if found.passed else EXIT_FAILED)


def _run(
    scenario: Scenario,
    *,
    given: Mapping[str, str | None],
    asked: Mapping[str, str | None],
    shards: int | None,
    wcu: int | None,
    rcu: int | None,
    config_env: str,
    template: Path | None,
    settings: list[str] | None,
    target: str,
    stream: str | None,
    table: str | None,
    broker: str | None,
    processes: int,
    limits: str,
    limit: list[str] | None,
    host: str,
    port: int,
    out: Path | None,
    as_json: bool,
    yes: bool,
) -> int:
    from simulator.target import TargetError

    target = one_of("--target", target, ("local", "aws"))
    load = scenario.settings(settings_from(given))
    objectives = objectives_from(asked, scenario.name)
    scenario = adapted(scenario, load, objectives.max_iterator_age_ms is not None)
    if broker is not None and not scenario.broker:
        raise UsageError(f"--broker: the scenario {scenario.name} sends nothing by MQTT")
    if scenario.broker and target == "aws" and broker is None:
        raise UsageError("--target aws with an IoT scenario needs --broker mqtts://ENDPOINT:8883")
    sizes = {"ShardCount": shards, "WriteCapacityUnits": wcu, "ReadCapacityUnits": rcu}
    chosen = _parameters(scenario, config_env, template, settings, sizes)
    deployment = deployment_of(config_env, template, settings, shards, wcu, rcu, None, **chosen)
    if (stream or table) and target == "local":
        raise UsageError("--stream and --table go with --target aws; the embedded cloud has those of the template")
    deployment = _renamed(deployment, stream, table)
    expected = _resources(deployment)
    scenario.plan(load, expected)
    if target == "aws":
        _ask(scenario, load, expected, deployment, yes)
    with tempfile.TemporaryDirectory(prefix="alleycat-") as scratch:
        directory = Path(scratch) if out is None else out
        writable(directory)
        try:
            return _measure(
                scenario,
                _Places(target, broker, host_of(host), port, processes, limits_of(limits, limit)),
                _arguments(scenario, deployment, given, asked),
                deployment,
                directory,
                Path(out) if out is not None else None,
                as_json,
            )
        except (CloudError, TargetError) as error:
            return complain(str(error), EXIT_TARGET)


class _Places:
    """Where a test runs."""

    def __init__(self, target: str, broker: str | None, host: str, port: int, processes: int, limits: Any) -> None:
        self.target, self.broker, self.host, self.port = target, broker, host, port
        self.processes, self.limits = processes, limits


def _measure(
    scenario: Scenario,
    places: _Places,
    arguments: list[str],
    deployment: Deployment,
    directory: Path,
    out: Path | None,
    as_json: bool,
) -> int:
    from loadtests.prepare import endpoint_of
    from simulator.cloud.server import CloudProcess
    from simulator.target import aws_target, local_target, provision

    context = {
        # What AWS's variables point at may be an emulator; Locust looks.
        "target": "local" if places.target == "local" else "",
        "parameters": {name: str(value) for name, value in deployment.parameters.items()},
        "small_region": places.limits.iot_small_region,
    }
    arguments = [*arguments, *(("--processes", str(places.processes)) if places.processes > 1 else ())]
    if places.target == "aws":
        target = aws_target()
        needed = _needed(deployment, scenario)
        for service, names in (("kinesis", needed.streams), ("dynamodb", needed.tables)):
            if names:
                endpoint_of(service, target.region)
        # Before Locust starts, and with fewer attempts than its clients make.
        look_up(
            target,
            needed.streams[0].name if needed.streams else None,
            needed.tables[0].name if needed.tables else None,
        )
        environment = {**os.environ, **target.environment}
        brokers = ["--broker", places.broker] if places.broker else []
        return _follow([*arguments, *brokers, "--context", json.dumps(context)], environment, directory, out, as_json)
    with CloudProcess(host=places.host, port=places.port, settings=places.limits) as cloud:
        provision(local_target(cloud, deployment.region), deployment)
        environment = {**os.environ, **cloud.environment(deployment.region)}
        for name in [one for one in environment if one.startswith("AWS_ENDPOINT_URL_")]:
            del environment[name]
        if scenario.broker:
            arguments += ["--broker", places.broker or cloud.mqtt_url]
        arguments += ["--target-pid", str(cloud.pid), "--context", json.dumps(context)]
        return _follow(arguments, environment, directory, out, as_json)


def _follow(
    arguments: list[str], environment: Mapping[str, str], directory: Path, out: Path | None, as_json: bool
) -> int:
    from loadtests.launch import run_locust
    from loadtests.view import load_view, print_report

    # Flags have been read already; the same names in the environment would be read again, and win.
    plain = {name: value for name, value in environment.items() if not name.startswith(("ALLEYCAT_", "LOCUST_"))}
    try:
        with load_view() as progress:
            ended = run_locust(arguments, plain, directory, progress.show)
    except KeyboardInterrupt:
        return complain("interrupted; nothing was judged", EXIT_INTERRUPTED)
    if ended.report is None:
        why = ended.said or f"locust ended with code {ended.code} and no report; see {directory / 'locust.log'}"
        if ended.interrupted:
            return complain("interrupted before anything was measured", EXIT_INTERRUPTED)
        return complain(why, ended.code if ended.code in (EXIT_USAGE, EXIT_TARGET) else EXIT_TARGET)
    if as_json:
        print(json.dumps(ended.report, ensure_ascii=False))
    else:
        print_report(ended.report, _console())
    if out is not None:
        print(f"report: {out / 'report.html'}", file=sys.stderr)
    if ended.interrupted:
        return EXIT_INTERRUPTED
    return 0 if ended.report["verdict"]["passed"] else EXIT_FAILED


def _console() -> Console:
    """As wide as the terminal; a pipe or a file gets room for long names."""
    console = Console()
    return console if console.is_terminal else Console(width=140)


def _arguments(
    scenario: Scenario, deployment: Deployment, given: Mapping[str, str | None], asked: Mapping[str, str | None]
) -> list[str]:
    """What Locust is told. Names come from the deployment, flags as they were given."""
    found = ["--scenario", scenario.name]
    if deployment.streams:
        found += ["--stream", deployment.streams[0].name]
    if deployment.tables:
        found += ["--table", deployment.tables[0].name]
    for name, (one, _) in FLAGS.items():
        if given.get(name):
            found += [one, str(given[name])]
    for name, (one, _) in OBJECTIVE_FLAGS.items():
        if asked.get(name):
            found += [one, str(asked[name])]
    return found


def _parameters(
    scenario: Scenario,
    config_env: str,
    template: Path | None,
    settings: list[str] | None,
    sizes: Mapping[str, int | None],
) -> dict[str, str]:
    """The scenario's own sizes, where nobody chose others and the template has such parameters."""
    if config_env != "default":
        return {}
    known = load_deployment(template, config_env).parameters
    return {name: value for name, value in scenario.parameters.items() if name in known and sizes.get(name) is None}


def _resources(deployment: Deployment) -> Resources:
    """What the deployment will be, for plans and costs before it is there."""
    stream = deployment.streams[0] if deployment.streams else None
    table = deployment.tables[0] if deployment.tables else None
    return Resources(
        stream=stream.name if stream else "",
        shards=tuple(Shard(f"shardId-{index:012d}", "0") for index in range(stream.shard_count)) if stream else (),
        table=None
        if table is None
        else Table(
            table.name,
            table.wcu or 0.0,
            table.rcu or 0.0,
            tuple(Index(one.name, one.kind, one.wcu or 0.0, one.rcu or 0.0) for one in table.indexes),
        ),
    )


def _needed(deployment: Deployment, scenario: Scenario) -> Deployment:
    return replace(
        deployment,
        streams=deployment.streams if scenario.stream else (),
        tables=deployment.tables if scenario.table else (),
    )


def _renamed(deployment: Deployment, stream: str | None, table: str | None) -> Deployment:
    """The deployment with the names of what is really there."""
    if stream and deployment.streams:
        deployment = replace(deployment, streams=(replace(deployment.streams[0], name=stream),))
    if table and deployment.tables:
        deployment = replace(deployment, tables=(replace(deployment.tables[0], name=table),))
    return deployment


def _ask(scenario: Scenario, load: LoadSettings, resources: Resources, deployment: Deployment, yes: bool) -> None:
    """Show what the test may cost, and ask."""
    from simulator.cost import estimate

    ahead = foresight.foresee(scenario, load, resources)
    records = sum(ahead.units.get(one, 0.0) for one in ("PutRecords", "PutRecord", "Publish"))
    bikes = load.connections or 0 if scenario.broker else 0
    lines = estimate(_needed(deployment, scenario), round(records), round(ahead.seconds), bikes)
    lines = [one for one in lines if one.usd > 0]
    confirm_cost(lines, "a load test", yes, f" for up to {ahead.seconds / 60:.0f} min")


_Target = Annotated[str, flag("--target", env="TARGET", help="local (the embedded cloud) or aws.")]
_Broker = Annotated[str | None, flag("--broker", env="BROKER", help="Another MQTT broker: mqtt://HOST:PORT.")]
_Stream = Annotated[str | None, flag("--stream", env="STREAM", help="Another stream of the account.")]
_Table = Annotated[str | None, flag("--table", env="TABLE", help="Another table of the account.")]
_Processes = Annotated[
    int, flag("--processes", env="PROCESSES", help="Locust workers on this machine.", min=1, max=256)
]
_Out = Annotated[Path | None, flag("--out", env="OUT", help="Directory for report.json, report.html and logs.")]
_Yes = Annotated[bool, flag("--yes", env="YES", help="Do not ask before a test that costs money.")]
_RUN: tuple[tuple[str, Any, Any], ...] = (
    ("shards", Shards, None),
    ("wcu", Wcu, None),
    ("rcu", Rcu, None),
    ("config_env", ConfigEnv, "default"),
    ("template", Template, None),
    ("settings", Settings, None),
    ("target", _Target, "local"),
    ("stream", _Stream, None),
    ("table", _Table, None),
    ("broker", _Broker, None),
    ("processes", _Processes, 1),
    ("limits", Limits, "on"),
    ("limit", LimitOptions, None),
    ("host", Host, DEFAULT_HOST),
    ("port", Port, 0),
    ("out", _Out, None),
    ("as_json", AsJson, False),
    ("yes", _Yes, False),
)


def _command(scenario: Scenario) -> Callable[..., None]:
    """The scenario's command. Its flags are the lists of settings and objectives, so none is written twice."""
    given = {f"load_{name}": name for name in FLAGS}
    asked = {f"ask_{name}": name for name in OBJECTIVE_FLAGS}

    def run(**values: Any) -> None:
        raise typer.Exit(
            _run(
                scenario,
                given={name: values.pop(key) for key, name in given.items()},
                asked={name: values.pop(key) for key, name in asked.items()},
                **values,
            )
        )

    options = [
        *(
            (key, Annotated[str | None, flag(FLAGS[name][0], env=name.upper(), help=FLAGS[name][1]["help"])], None)
            for key, name in given.items()
        ),
        *(
            (key, Annotated[str | None, flag(one, env=name.upper(), help=about)], None)
            for key, name in asked.items()
            for one, about in (OBJECTIVE_FLAGS[name],)
        ),
        *_RUN,
    ]
    keyword = inspect.Parameter.KEYWORD_ONLY
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, keyword, default=default, annotation=kind) for name, kind, default in options]
    )
    run.__annotations__ = {name: kind for name, kind, _ in options}
    run.__doc__ = scenario.about[0].upper() + scenario.about[1:] + "."
    return run


for _one in SCENARIOS.values():
    app.command(_one.name)(_command(_one))
