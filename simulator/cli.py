"""The commands: ``alleycat race``, ``cloud``, ``consume``, ``loadtest``, ``plan``, ``template``, ``limits``.

Exit codes: 0 all well, 1 the run failed its verdict or the plan does not hold, 2 usage or configuration, 3 the target
could not be reached or started, 130 interrupted. Nothing prints a traceback at a user.
"""

from __future__ import annotations

import json
import signal
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from simulator.cloud.server import DEFAULT_HOST, DEFAULT_MQTT_PORT, DEFAULT_PORT, CloudError
from simulator.cloud_flags import (
    Host,
    LimitOptions,
    Limits,
    MqttPort,
    Port,
    Rcu,
    Shards,
    Wcu,
    Window,
    deployment_of,
    host_of,
    limits_of,
    warn_of_not_run,
)
from simulator.consume_command import consume
from simulator.deployment import Deployment, DeploymentError, to_dict
from simulator.flags import (
    EXIT_INTERRUPTED,
    EXIT_TARGET,
    EXIT_USAGE,
    AsJson,
    ConfigEnv,
    Settings,
    Template,
    UsageError,
)
from simulator.flags import complain as _complain
from simulator.flags import flag as _flag
from simulator.limits_view import show_limits
from simulator.plan_command import plan
from simulator.race_command import race

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


@app.callback()
def _commands() -> None:
    """Keeps subcommands named even while there are few."""


@app.command()
def cloud(
    host: Host = DEFAULT_HOST,
    port: Port = DEFAULT_PORT,
    mqtt_port: MqttPort = DEFAULT_MQTT_PORT,
    tls_port: Annotated[
        int, _flag("--mqtt-tls-port", env="MQTT_TLS_PORT", help="MQTT with client certificates; 0 takes a free port.")
    ] = 8883,
    ca: Annotated[
        Path | None, _flag("--ca", env="CA", help="PEM file of the CA of clients; with it, TLS is on.")
    ] = None,
    cert: Annotated[Path | None, _flag("--cert", env="CERT", help="PEM file of the broker's certificate.")] = None,
    key: Annotated[Path | None, _flag("--key", env="KEY", help="PEM file of its private key.")] = None,
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
    """Run the embedded AWS until Ctrl-C: Kinesis, DynamoDB, IoT Core, CloudWatch with limits, the rest by moto."""
    from simulator.cloud.server import CloudProcess
    from simulator.target import TargetError, local_target, provision

    deployment = None if empty else deployment_of(config_env, template, settings, shards, wcu, rcu, window)
    # Waited for from here on, so that a Ctrl-C during the start is seen too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    tls = None
    if ca is not None:
        if cert is None or key is None:
            raise UsageError("--ca goes with --cert and --key: TLS needs the broker's own certificate too")
        tls = {"port": tls_port, "certificate": str(cert), "key": str(key), "ca": str(ca)}
    process = CloudProcess(
        host=host_of(host), port=port, mqtt_port=mqtt_port or 0, settings=limits_of(limits, limit), tls=tls
    )
    try:
        with process:
            if deployment is not None:
                provision(local_target(process, deployment.region), deployment)
                warn_of_not_run(deployment)
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
                deployment.topic_rules,
            )
            for one in group
        ]
        if deployment
        else []
    )
    if as_json:
        told = {"endpoint_url": process.endpoint_url, "mqtt_url": process.mqtt_url, "resources": names}
        if process.mqtt_tls_port:
            told["mqtt_tls_port"] = process.mqtt_tls_port
        print(json.dumps(told), flush=True)
        return
    print(f"AWS endpoint: {process.endpoint_url} (any credentials; Ctrl-C stops it and forgets everything)")
    tls = f", with client certificates on port {process.mqtt_tls_port}" if process.mqtt_tls_port else ""
    print(f"MQTT: {process.mqtt_url}{tls}, WebSocket: {process.endpoint_url.replace('http', 'ws', 1)}/mqtt")
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

    deployment = deployment_of(config_env, template, settings, shards, wcu, rcu, window)
    if as_json:
        print(json.dumps(to_dict(deployment), ensure_ascii=False))
    else:
        Console().print(render(deployment))


app.command()(race)
app.command()(consume)
app.command()(plan)
app.command("limits")(show_limits)

# What stands above this package, the load tests, adds its commands by entry point: arrows point down.
for _point in entry_points(group="alleycat.commands"):
    app.add_typer(_point.load(), name=_point.name)


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
