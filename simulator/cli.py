"""The commands: ``alleycat race``, ``cloud``, ``consume``, ``template``, ``limits``.

Exit codes: 0 all well, 1 the run failed its verdict, 2 usage or configuration, 3 the target could not be reached
or started, 130 interrupted. Nothing prints a traceback at a user.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from simulator.cloud.limits import LimitSettings, with_settings
from simulator.cloud.server import DEFAULT_HOST, DEFAULT_PORT, CloudError
from simulator.consume_command import consume
from simulator.deployment import Deployment, DeploymentError, load_deployment, to_dict
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
    settings_of,
)
from simulator.flags import complain as _complain
from simulator.flags import flag as _flag
from simulator.flags import one_of as _one_of
from simulator.flags import seconds as _seconds
from simulator.limits_view import show_limits

_LOOPBACK = ("127.0.0.1", "::1", "localhost")

# typer brings its own copy of click or uses the installed one, by version; this is its UsageError in either case.
_ParserError: Any = typer.BadParameter.__mro__[1]


app = typer.Typer(
    name="alleycat",
    help="Race simulator and load generator for streaming backends on AWS.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


Host = Annotated[str, _flag("--host", env="HOST", help="Address to listen on.")]
Port = Annotated[
    int, _flag("--port", env="PORT", help="Port of the embedded cloud; 0 takes a free one.", min=0, max=65535)
]
Limits = Annotated[str, _flag("--limits", env="LIMITS", help="on, or off to admit everything.")]
LimitOptions = Annotated[
    list[str] | None,
    _flag("--limit", env="LIMIT", help="A setting of the limits, NAME=VALUE, such as reshard_seconds=5; repeatable."),
]
Shards = Annotated[int | None, _flag("--shards", env="SHARDS", help="Shards of the stream.")]
Wcu = Annotated[int | None, _flag("--wcu", env="WCU", help="Write capacity units of the table.")]
Rcu = Annotated[int | None, _flag("--rcu", env="RCU", help="Read capacity units of the table.")]
Window = Annotated[int | None, _flag("--window", env="WINDOW", help="Tumbling window in seconds; 0 for none.")]


@app.callback()
def _commands() -> None:
    """Keeps subcommands named even while there are few."""


@app.command()
def race(
    racers: Annotated[
        int, _flag("-u", "--racers", env="RACERS", help="Bikers in each class.", min=1, max=1_000_000)
    ] = 1000,
    run_time: Annotated[str, _flag("-t", "--run-time", env="RUN_TIME", help="Length of a race: 60s, 5m.")] = "60s",
    races: Annotated[int, _flag("--races", env="RACES", help="Races in a row.", min=1, max=10_000)] = 1,
    classes: Annotated[str, _flag("--classes", env="CLASSES", help="Classes riding at once, such as 1,2,6.")] = "1",
    seed: Annotated[int, _flag("--seed", env="SEED", help="The same seed rides the same race.", min=0)] = 7,
    via: Annotated[str, _flag("--via", env="VIA", help="How messages get in: kinesis.")] = "kinesis",
    phase: Annotated[
        str, _flag("--phase", env="PHASE", help="spread over the second, or burst at its tick.")
    ] = "spread",
    partition_key: Annotated[
        str, _flag("--partition-key", env="PARTITION_KEY", help="random, racer, race, class or timestamp.")
    ] = "racer",
    shards: Shards = None,
    wcu: Wcu = None,
    rcu: Rcu = None,
    window: Window = None,
    config_env: ConfigEnv = "default",
    template: Template = None,
    settings: Settings = None,
    target: Annotated[str, _flag("--target", env="TARGET", help="local (the embedded cloud) or aws.")] = "local",
    consumers: Annotated[
        str | None,
        _flag("--consumers", env="CONSUMERS", help="Functions run here (local) or are deployed (deployed)."),
    ] = None,
    limits: Limits = "on",
    limit: LimitOptions = None,
    host: Host = DEFAULT_HOST,
    port: Port = DEFAULT_PORT,
    deadline: Annotated[
        str, _flag("--deadline", env="DEADLINE", help="A message not accepted so long after it was due is lost.")
    ] = "5m",
    drain_timeout: Annotated[
        str, _flag("--drain-timeout", env="DRAIN_TIMEOUT", help="How long to wait for the consumers.")
    ] = "1h",
    out: Annotated[Path | None, _flag("--out", env="OUT", help="Directory for report.json and logs.")] = None,
    as_json: AsJson = False,
    yes: Annotated[bool, _flag("--yes", env="YES", help="Do not ask before a run that costs money.")] = False,
) -> None:
    """Ride a race, then check every stored number."""
    from simulator.league import PARTITION_KEYS, RaceSettings

    deployment = _deployment(config_env, template, settings, shards, wcu, rcu, window)
    _complete(deployment)
    if out is not None:
        _writable(out)
    options = RaceSettings(
        racers=racers,
        seconds=_seconds("--run-time", run_time, most=65_535),
        races=races,
        classes=_classes(classes),
        seed=seed,
        via=_one_of("--via", via, ("kinesis",), "mqtt comes with the MQTT producer"),
        phase=_one_of("--phase", phase, ("spread", "burst")),
        partition_key=_one_of("--partition-key", partition_key, PARTITION_KEYS),
        target=_one_of("--target", target, ("local", "aws")),
        host=_host(host),
        port=port,
        limits=_limits(limits, limit),
        run_consumers=_one_of(
            "--consumers", consumers or ("local" if target == "local" else "deployed"), ("local", "deployed")
        )
        == "local",
        deadline_s=_seconds("--deadline", deadline),
        drain_timeout_s=_seconds("--drain-timeout", drain_timeout),
        out=out,
    )
    if options.target == "local" and not options.run_consumers:
        raise UsageError("--consumers deployed goes with --target aws; the embedded cloud runs no functions")
    if options.racers * options.seconds * len(options.classes) > 100_000_000:
        raise UsageError("that race has over 100,000,000 messages; use fewer --racers or a shorter --run-time")
    if options.target == "aws":
        _confirm_cost(
            deployment,
            options.racers * options.seconds * options.races * len(options.classes),
            options.seconds * options.races,
            yes,
        )
    raise typer.Exit(_ride(options, deployment, as_json, out))


def _ride(options: Any, deployment: Deployment, as_json: bool, out: Path | None) -> int:
    from simulator.league import run
    from simulator.report import write_json
    from simulator.target import TargetError
    from simulator.terminal import View, print_report

    async def riding() -> Any:
        return await run(options, deployment, view.show)

    try:
        with View() as view:
            outcome = asyncio.run(riding())
    except (CloudError, TargetError) as error:
        return _complain(str(error), EXIT_TARGET)
    except (KeyboardInterrupt, asyncio.CancelledError):
        return _complain("interrupted; nothing was judged", EXIT_INTERRUPTED)
    told = outcome.report.to_json()
    if as_json:
        print(json.dumps(told, ensure_ascii=False))
    else:
        print_report(outcome.report, Console())
    if out is not None:
        path = write_json(told, out)
        print(f"report: {path}", file=sys.stderr)
    if outcome.interrupted:
        return EXIT_INTERRUPTED
    return 0 if outcome.report.verdict.passed else EXIT_FAILED


@app.command()
def cloud(
    host: Host = DEFAULT_HOST,
    port: Port = DEFAULT_PORT,
    limits: Limits = "on",
    limit: LimitOptions = None,
    shards: Shards = None,
    wcu: Wcu = None,
    rcu: Rcu = None,
    window: Window = None,
    config_env: ConfigEnv = "default",
    template: Template = None,
    settings: Settings = None,
    empty: Annotated[bool, _flag("--empty", env="EMPTY", help="Start without the template's resources.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run the embedded AWS until Ctrl-C: Kinesis, DynamoDB and CloudWatch with their limits, the rest by moto."""
    from simulator.cloud.server import CloudProcess
    from simulator.target import TargetError, local_target, provision

    deployment = None if empty else _deployment(config_env, template, settings, shards, wcu, rcu, window)
    # Waited for from here on, so that a Ctrl-C during the start is seen too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    process = CloudProcess(host=_host(host), port=port, settings=_limits(limits, limit))
    try:
        with process:
            if deployment is not None:
                provision(local_target(process, deployment.region), deployment)
            _announce(process, deployment, as_json)
            while (code := process.poll()) is None:
                signal.sigtimedwait([], 0.5) if hasattr(signal, "sigtimedwait") else signal.pause()
            raise typer.Exit(_complain(f"the embedded cloud died (exit code {code})", EXIT_TARGET))
    except (CloudError, TargetError) as error:
        raise typer.Exit(_complain(str(error), EXIT_TARGET)) from None
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _announce(process: Any, deployment: Deployment | None, as_json: bool) -> None:
    names = (
        [
            one.name
            for group in (
                deployment.streams,
                deployment.tables,
                deployment.buckets,
                deployment.queues,
                deployment.topics,
            )
            for one in group
        ]
        if deployment
        else []
    )
    if as_json:
        print(json.dumps({"endpoint_url": process.endpoint_url, "resources": names}), flush=True)
        return
    print(f"AWS endpoint: {process.endpoint_url} (any credentials; Ctrl-C stops it and forgets everything)")
    if names:
        print(f"it has: {', '.join(names)}")
    print(f"try: AWS_ENDPOINT_URL={process.endpoint_url} aws kinesis list-streams", flush=True)


@app.command("template")
def show_template(
    shards: Shards = None,
    wcu: Wcu = None,
    rcu: Rcu = None,
    window: Window = None,
    config_env: ConfigEnv = "default",
    template: Template = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Print what was understood of the template, and what is ignored."""
    from simulator.deployment_view import render

    deployment = _deployment(config_env, template, settings, shards, wcu, rcu, window)
    if as_json:
        print(json.dumps(to_dict(deployment), ensure_ascii=False))
    else:
        Console().print(render(deployment))


app.command()(consume)
app.command("limits")(show_limits)


# -- arguments -----------------------------------------------------------------------------------------


def _deployment(
    config_env: str,
    template: Path | None,
    settings: list[str] | None,
    shards: int | None,
    wcu: int | None,
    rcu: int | None,
    window: int | None,
) -> Deployment:
    flags = {
        "ShardCount": shards,
        "WriteCapacityUnits": wcu,
        "ReadCapacityUnits": rcu,
        "TumblingWindowInSeconds": window,
    }
    overrides = {name: str(value) for name, value in flags.items() if value is not None}
    overrides |= settings_of(settings)
    return load_deployment(template, config_env, overrides)


def _complete(deployment: Deployment) -> None:
    """A race needs one stream and one table of the template."""
    for what, found in (
        ("stream", deployment.streams),
        ("table", deployment.tables),
        ("function", deployment.functions),
    ):
        if not found:
            raise DeploymentError(f"{deployment.path}: the template declares no {what}; a race needs one")


def _classes(text: str) -> tuple[int, ...]:
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or len(set(found)) != len(found) or not all(1 <= one <= 6 for one in found):
        raise UsageError(f"--classes {text!r}: give different numbers from 1 to 6, such as 1 or 1,2,6")
    return found


def _limits(value: str, given: list[str] | None) -> LimitSettings:
    settings = LimitSettings(enforced=_one_of("--limits", value, ("on", "off")) == "on")
    try:
        return with_settings(given or [], settings)
    except ValueError as error:
        raise UsageError(f"--limit {error}") from None


def _host(host: str) -> str:
    if host not in _LOOPBACK:
        print(f"alleycat: warning: listening on {host}: anybody who can reach it may use it", file=sys.stderr)
    return host


def _writable(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".alleycat"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(f"--out {out}: {error.strerror}; choose a directory that can be written") from None


def _confirm_cost(deployment: Deployment, messages: int, seconds: int, yes: bool) -> None:
    from simulator.cost import estimate

    lines = estimate(deployment, messages, seconds)
    for line in lines:
        print(f"{line.usd:10.4f} USD  {line.what}", file=sys.stderr)
    print(f"{sum(line.usd for line in lines):10.4f} USD  in all, at us-east-1 prices", file=sys.stderr)
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("a run on AWS costs money; add --yes to go on without being asked")
    if not typer.confirm("Go on?", err=True):
        raise typer.Exit(EXIT_USAGE)


def main() -> None:
    """The console script."""
    try:
        code = app(standalone_mode=False)
    except UsageError as error:
        code = _complain(str(error), EXIT_USAGE)
    except _ParserError as error:
        command = error.ctx.command_path if error.ctx else "alleycat"
        code = _complain(f"{error.format_message()} ({command} --help lists the flags)", EXIT_USAGE)
    except DeploymentError as error:
        code = _complain(str(error), EXIT_USAGE)
    except (KeyboardInterrupt, typer.Abort):
        code = _complain("interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        code = 0
    sys.exit(code if isinstance(code, int) else 0)
