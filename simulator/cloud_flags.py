"""Flags that the commands with an embedded cloud share, and what becomes of their values."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from simulator.cloud.limits import LimitSettings, with_settings
from simulator.deployment import Deployment, load_deployment
from simulator.flags import UsageError, flag, one_of, settings_of

_LOOPBACK = ("127.0.0.1", "::1", "localhost")

Host = Annotated[str, flag("--host", env="HOST", help="Address to listen on.")]
Port = Annotated[
    int, flag("--port", env="PORT", help="Port of the embedded cloud; 0 takes a free one.", min=0, max=65535)
]
MqttPort = Annotated[
    int | None,
    flag("--mqtt-port", env="MQTT_PORT", help="MQTT port of the embedded cloud; 0 takes a free one.", max=65535),
]
Limits = Annotated[str, flag("--limits", env="LIMITS", help="on, or off to admit everything.")]
LimitOptions = Annotated[
    list[str] | None,
    flag("--limit", env="LIMIT", help="A setting of the limits, NAME=VALUE, such as reshard_seconds=5; repeatable."),
]
Shards = Annotated[int | None, flag("--shards", env="SHARDS", help="Shards of the stream.")]
Wcu = Annotated[int | None, flag("--wcu", env="WCU", help="Write capacity units of the table.")]
Rcu = Annotated[int | None, flag("--rcu", env="RCU", help="Read capacity units of the table.")]
Window = Annotated[int | None, flag("--window", env="WINDOW", help="Tumbling window in seconds; 0 for none.")]


def deployment_of(
    config_env: str,
    template: Path | None,
    settings: list[str] | None,
    shards: int | None,
    wcu: int | None,
    rcu: int | None,
    window: int | None,
    **parameters: str,
) -> Deployment:
    """The template with the flags' sizes, then ``parameters``, then ``--set`` on top. :raises DeploymentError:"""
    flags = {
        "ShardCount": shards,
        "WriteCapacityUnits": wcu,
        "ReadCapacityUnits": rcu,
        "TumblingWindowInSeconds": window,
    }
    overrides = {name: str(value) for name, value in flags.items() if value is not None}
    overrides |= parameters | settings_of(settings)
    return load_deployment(template, config_env, overrides)


def warn_of_not_run(deployment: Deployment) -> None:
    """Say what of the template the embedded cloud does not run, a line each on stderr."""
    for line in deployment.not_run:
        print(f"alleycat: warning: {line}", file=sys.stderr)


def limits_of(value: str, given: list[str] | None) -> LimitSettings:
    """:raises UsageError:"""
    settings = LimitSettings(enforced=one_of("--limits", value, ("on", "off")) == "on")
    try:
        return with_settings(given or [], settings)
    except ValueError as error:
        raise UsageError(f"--limit {error}") from None


def host_of(host: str) -> str:
    """``host``, with a warning when others than this machine can reach it."""
    if host not in _LOOPBACK:
        print(f"alleycat: warning: listening on {host}: anybody who can reach it may use it", file=sys.stderr)
    return host
