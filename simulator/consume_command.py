"""The command ``alleycat consume``: its flags, checked."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from simulator.cloud.server import DEFAULT_PORT, CloudError
from simulator.flags import (
    EXIT_INTERRUPTED,
    EXIT_TARGET,
    AsJson,
    ConfigEnv,
    Settings,
    Template,
    UsageError,
    complain,
    flag,
    one_of,
    seconds,
    settings_of,
)


def consume(
    template: Template = None,
    config_env: ConfigEnv = "default",
    settings: Settings = None,
    target: Annotated[str, flag("--target", env="TARGET", help="local (an embedded cloud) or aws.")] = "local",
    endpoint_url: Annotated[
        str | None,
        flag("--endpoint-url", env="ENDPOINT_URL", help="Where the streams are; AWS_ENDPOINT_URL by default."),
    ] = None,
    port: Annotated[
        int,
        flag(
            "--port",
            env="PORT",
            help="Port of a running embedded cloud, or else of the one to start; 0 starts one on a free port.",
            min=0,
            max=65535,
        ),
    ] = DEFAULT_PORT,
    functions: Annotated[
        str | None, flag("--functions", env="FUNCTIONS", help="Only these, such as A,B; all that have a stream.")
    ] = None,
    start: Annotated[
        str | None,
        flag("--from", env="FROM", help="TRIM_HORIZON or LATEST, instead of the template's StartingPosition."),
    ] = None,
    state: Annotated[
        Path | None, flag("--state", env="STATE", help="Directory of checkpoints, to go on where it stopped.")
    ] = None,
    run_time: Annotated[
        str | None, flag("-t", "--run-time", env="RUN_TIME", help="How long: 60s, 5m; until Ctrl-C by default.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run a template's functions from their streams, as Lambda would: your own code, on this machine."""
    from consumers.runtime import CheckpointError, ConfigurationError
    from simulator.consume import ConsumeSettings, Consumption, Killed
    from simulator.consume_view import ConsumeView, print_summary
    from simulator.target import TargetError

    options = ConsumeSettings(
        template=template,
        config_env=config_env,
        overrides=settings_of(settings),
        target=one_of("--target", target, ("local", "aws")),
        endpoint_url=_url(endpoint_url or os.environ.get("AWS_ENDPOINT_URL") or None),
        port=port,
        functions=tuple(one.strip() for one in functions.split(",")) if functions is not None else None,
        starting_position=one_of("--from", start, ("TRIM_HORIZON", "LATEST")) if start is not None else None,
        state_dir=_state(state),
        run_time_s=seconds("--run-time", run_time) if run_time is not None else None,
    )
    with ConsumeView() as view:
        try:
            summary = Consumption(options, view).run()
        except (CloudError, TargetError) as error:
            raise typer.Exit(complain(str(error), EXIT_TARGET)) from None
        except (CheckpointError, ConfigurationError) as error:
            raise UsageError(str(error)) from None
        except Killed:
            raise typer.Exit(complain("interrupted; what was running was killed", EXIT_INTERRUPTED)) from None
    _print(summary, as_json, print_summary)
    raise typer.Exit(EXIT_INTERRUPTED if summary.interrupted else 0)


def _print(summary: Any, as_json: bool, print_summary: Any) -> None:
    if as_json:
        print(json.dumps(summary.to_json(), ensure_ascii=False), flush=True)
    else:
        print_summary(summary, Console())
    sys.stdout.flush()


def _url(url: str | None) -> str | None:
    if url is not None and not url.startswith(("http://", "https://")):
        raise UsageError(f"--endpoint-url {url!r}: give a URL such as http://127.0.0.1:{DEFAULT_PORT}")
    return url


def _state(state: Path | None) -> Path | None:
    if state is None:
        return None
    try:
        state.mkdir(parents=True, exist_ok=True)
        probe = state / ".alleycat"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(f"--state {state}: {error.strerror}; choose a directory that can be written") from None
    return state
