"""``alleycat race``: its flags, their checks, and the run."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from rich.console import Console

from producers import ConfigurationError, TlsSettings
from simulator.asking import confirm_cost, writable
from simulator.cloud.iot_rules import basic_ingest
from simulator.cloud.iot_sql import SqlError, parse
from simulator.cloud.server import DEFAULT_HOST, DEFAULT_MQTT_PORT, DEFAULT_PORT, CloudError, check_port
from simulator.cloud.topic_filters import matches, problem_with_topic
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
from simulator.deployment import Deployment, DeploymentError, load_deployment
from simulator.flags import (
    EXIT_FAILED,
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
)
from simulator.flags import seconds as seconds_of


def race(
    racers: Annotated[
        int, flag("-u", "--racers", env="RACERS", help="Bikers in each class.", min=1, max=1_000_000)
    ] = 1000,
    run_time: Annotated[str, flag("-t", "--run-time", env="RUN_TIME", help="Length of a race: 60s, 5m.")] = "60s",
    races: Annotated[int, flag("--races", env="RACES", help="Races in a row.", min=1, max=10_000)] = 1,
    classes: Annotated[str, flag("--classes", env="CLASSES", help="Classes riding at once, such as 1,2,6.")] = "1",
    seed: Annotated[int, flag("--seed", env="SEED", help="The same seed rides the same race.", min=0)] = 7,
    via: Annotated[
        str, flag("--via", env="VIA", help="How messages get in: kinesis (PutRecords) or mqtt (IoT Core).")
    ] = "kinesis",
    client: Annotated[
        str, flag("--client", env="CLIENT", help="MQTT client of the bikes: aiomqtt or awsiotsdk.")
    ] = "aiomqtt",
    qos: Annotated[int, flag("--qos", env="QOS", help="MQTT quality of service.", min=0, max=1)] = 1,
    connect_rate: Annotated[
        float, flag("--connect-rate", env="CONNECT_RATE", help="Bikes that connect in a second.", min=0.1, max=3000)
    ] = 500.0,
    interval: Annotated[
        str, flag("--interval", env="INTERVAL", help="How often each biker sends; all send in the last second.")
    ] = "1s",
    processes: Annotated[
        int, flag("--processes", env="PROCESSES", help="Processes that the bikes' connections are spread over.", min=1)
    ] = 1,
    topic: Annotated[str, flag("--topic", env="TOPIC", help="Topic that bikes publish to.")] = "alleycat-publish",
    broker: Annotated[
        str | None,
        flag("--broker", env="BROKER", help="Another MQTT broker: mqtt://, mqtts://, ws:// or wss://HOST:PORT."),
    ] = None,
    ca: Annotated[Path | None, flag("--ca", env="CA", help="PEM file of the broker's CA.")] = None,
    cert: Annotated[Path | None, flag("--cert", env="CERT", help="PEM file of the bikes' certificate.")] = None,
    key: Annotated[Path | None, flag("--key", env="KEY", help="PEM file of its private key.")] = None,
    phase: Annotated[
        str, flag("--phase", env="PHASE", help="spread over the second, or burst at its tick.")
    ] = "spread",
    partition_key: Annotated[
        str, flag("--partition-key", env="PARTITION_KEY", help="random, racer, race, class or timestamp.")
    ] = "racer",
    shards: Shards = None,
    wcu: Wcu = None,
    rcu: Rcu = None,
    window: Window = None,
    config_env: ConfigEnv = "default",
    template: Template = None,
    settings: Settings = None,
    target: Annotated[str, flag("--target", env="TARGET", help="local (the embedded cloud) or aws.")] = "local",
    consumers: Annotated[
        str | None,
        flag("--consumers", env="CONSUMERS", help="Functions run here (local) or are deployed (deployed)."),
    ] = None,
    limits: Limits = "on",
    limit: LimitOptions = None,
    host: Host = DEFAULT_HOST,
    port: Port = DEFAULT_PORT,
    mqtt_port: MqttPort = None,
    deadline: Annotated[
        str, flag("--deadline", env="DEADLINE", help="A message not accepted so long after it was due is lost.")
    ] = "5m",
    drain_timeout: Annotated[
        str, flag("--drain-timeout", env="DRAIN_TIMEOUT", help="How long to wait for the consumers.")
    ] = "1h",
    out: Annotated[Path | None, flag("--out", env="OUT", help="Directory for report.json and logs.")] = None,
    as_json: AsJson = False,
    yes: Annotated[bool, flag("--yes", env="YES", help="Do not ask before a run that costs money.")] = False,
) -> None:
    """Ride a race, then check every stored number."""
    from simulator.cost import estimate
    from simulator.league import RaceSettings
    from simulator.riders import PARTITION_KEYS

    via = one_of("--via", via, ("kinesis", "mqtt"))
    partition_key = one_of("--partition-key", partition_key, PARTITION_KEYS)
    deployment = deployment_of(
        config_env, template, settings, shards, wcu, rcu, window, **_rule_key(via, partition_key, template, config_env)
    )
    _complete(deployment)
    if via == "mqtt":
        _ingested(deployment, topic)
    elif broker is not None or processes > 1:
        raise UsageError(f"{'--broker' if broker is not None else '--processes'} goes with --via mqtt")
    if out is not None:
        writable(out)
    options = RaceSettings(
        racers=racers,
        seconds=seconds_of("--run-time", run_time, most=65_535),
        races=races,
        classes=_classes(classes),
        seed=seed,
        via=via,
        client=one_of("--client", client, ("aiomqtt", "awsiotsdk")),
        qos=qos,
        connect_rate=connect_rate,
        interval_s=seconds_of("--interval", interval, most=3600),
        topic=topic,
        processes=processes,
        broker=_broker(broker),
        tls=_tls(ca, cert, key),
        mqtt_port=_race_mqtt_port(mqtt_port, host),
        phase=one_of("--phase", phase, ("spread", "burst")),
        partition_key=partition_key,
        target=one_of("--target", target, ("local", "aws")),
        host=host_of(host),
        port=port,
        limits=limits_of(limits, limit),
        run_consumers=one_of(
            "--consumers", consumers or ("local" if target == "local" else "deployed"), ("local", "deployed")
        )
        == "local",
        deadline_s=seconds_of("--deadline", deadline),
        drain_timeout_s=seconds_of("--drain-timeout", drain_timeout),
        out=out,
    )
    if options.target == "local" and not options.run_consumers:
        raise UsageError("--consumers deployed goes with --target aws; the embedded cloud runs no functions")
    if options.racers * options.seconds * len(options.classes) > 100_000_000:
        raise UsageError("that race has over 100,000,000 messages; use fewer --racers or a shorter --run-time")
    if options.target == "aws":
        messages = options.racers * options.seconds * options.races * len(options.classes)
        bikes = options.racers * len(options.classes) if via == "mqtt" else 0
        confirm_cost(estimate(deployment, messages, options.seconds * options.races, bikes), "a run", yes)
    else:
        warn_of_not_run(deployment)
    raise typer.Exit(_ride(options, deployment, as_json, out))


def _ride(options: Any, deployment: Deployment, as_json: bool, out: Path | None) -> int:
    from simulator.league import run
    from simulator.report import write_json
    from simulator.target import TargetError
    from simulator.terminal import print_report, race_view

    async def riding() -> Any:
        # Only a terminal has a board to show.
        return await run(options, deployment, view.show, with_board=view.console.is_terminal)

    try:
        with race_view() as view:
            outcome = asyncio.run(riding())
    except (CloudError, TargetError) as error:
        return complain(str(error), EXIT_TARGET)
    except (KeyboardInterrupt, asyncio.CancelledError):
        return complain("interrupted; nothing was judged", EXIT_INTERRUPTED)
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


def _rule_key(via: str, partition_key: str, template: Path | None, config_env: str) -> dict[str, str]:
    """By MQTT it is the rule that gives a record its key, so --partition-key sets the template's parameter."""
    from simulator.riders import KEY_PARAMETER, KEY_TEMPLATES

    if via != "mqtt" or KEY_PARAMETER not in load_deployment(template, config_env).parameters:
        return {}
    return {KEY_PARAMETER: KEY_TEMPLATES[partition_key]}


def _ingested(deployment: Deployment, topic: str) -> None:
    """Bikes publish to a topic that a rule of the template puts on the stream."""
    problem = problem_with_topic(topic)
    if problem is not None:
        raise UsageError(f"--topic: {problem}")
    stream = deployment.streams[0].name
    filters: dict[str, str] = {}
    for rule in deployment.topic_rules:
        try:
            topic_filter = parse(rule.payload["sql"], rule.payload["awsIotSqlVersion"]).topic_filter
        except SqlError as error:
            raise DeploymentError(f"{deployment.path}: the rule {rule.logical_id}: {error}") from None
        to_stream = any(action.get("kinesis", {}).get("streamName") == stream for action in rule.payload["actions"])
        if to_stream and not rule.payload["ruleDisabled"]:
            filters[rule.name] = topic_filter
    direct = basic_ingest(topic)
    known = direct[0] in filters if direct is not None else any(matches(one, topic) for one in filters.values())
    if not known:
        there = ", ".join(f"{one} ({name})" for name, one in filters.items()) or "none"
        raise UsageError(
            f"--topic {topic!r}: no rule of the template puts it on the stream {stream}; those that do hear {there}"
        )


def _broker(url: str | None) -> str | None:
    if url is None:
        return None
    parts = urlsplit(url)
    if parts.scheme not in ("mqtt", "mqtts", "ws", "wss") or not parts.hostname:
        raise UsageError(
            f"--broker {url!r}: give mqtt://HOST:1883, mqtts://HOST:8883, ws://HOST/mqtt or wss://HOST/mqtt"
        )
    return url


def _tls(ca: Path | None, cert: Path | None, key: Path | None) -> TlsSettings | None:
    if ca is None and cert is None and key is None:
        return None
    try:
        names = [None if file is None else str(file) for file in (ca, cert, key)]
        settings = TlsSettings(names[0], names[1], names[2])
        settings.check()
        return settings
    except ConfigurationError as error:
        raise UsageError(f"--ca, --cert, --key: {error}") from None


def _race_mqtt_port(port: int | None, host: str) -> int:
    """The port asked for; without one 1883, or any other when something else, a broker say, listens there."""
    if port is not None:
        return port
    try:
        check_port(host, DEFAULT_MQTT_PORT)
    except CloudError:
        return 0
    return DEFAULT_MQTT_PORT
