"""``alleycat plan``: what a race does to a deployment, in virtual time.

Exit codes: 0 it holds, 1 a limit refused something or messages were lost or consumers did not catch up, 2 usage.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from simulator.cloud_flags import LimitOptions, Rcu, Shards, Wcu, Window, deployment_of, limits_of
from simulator.deployment import Deployment
from simulator.flags import EXIT_FAILED, AsJson, ConfigEnv, Settings, Template, UsageError, flag, one_of, seconds

PLAN_FILE, PAGE_FILE = "plan.json", "report.html"


def plan(
    context: typer.Context,
    racers: Annotated[int, flag("--racers", "-u", env="RACERS", help="Bikers a class.", min=1)] = 1000,
    run_time: Annotated[str, flag("--run-time", "-t", env="RUN_TIME", help="Length of a race: 60s, 5m.")] = "5m",
    races: Annotated[int, flag("--races", env="RACES", help="Races in a row.", min=1)] = 1,
    classes: Annotated[str, flag("--classes", env="CLASSES", help="Classes riding at once, such as 1,2,6.")] = "1",
    via: Annotated[str, flag("--via", env="VIA", help="kinesis or mqtt.")] = "kinesis",
    partition_key: Annotated[
        str, flag("--partition-key", env="PARTITION_KEY", help="random, racer, race, class or timestamp.")
    ] = "racer",
    phase: Annotated[str, flag("--phase", env="PHASE", help="spread over the second, or burst.")] = "spread",
    deadline: Annotated[str, flag("--deadline", env="DEADLINE", help="When the producer gives a message up.")] = "5m",
    interval: Annotated[
        str, flag("--interval", env="INTERVAL", help="How often each biker sends; all send in the last second.")
    ] = "1s",
    late_share: Annotated[float, flag("--late-share", env="LATE_SHARE", help="Share of bikers who join late.")] = 0.0,
    dropout_share: Annotated[
        float, flag("--dropout-share", env="DROPOUT_SHARE", help="Share of bikers who drop out; they send no final.")
    ] = 0.0,
    skew: Annotated[
        float, flag("--skew", env="SKEW", help="Unequal keys of racers: Zipf's exponent, such as 1.1; 0 for equal.")
    ] = 0.0,
    qos: Annotated[int, flag("--qos", env="QOS", help="MQTT quality of service.")] = 1,
    aggregate: Annotated[
        bool, flag("--aggregate", env="AGGREGATE", help="Pack messages into records as the Kinesis Producer Library.")
    ] = False,
    linger: Annotated[
        int | None, flag("--linger", env="LINGER", help="How many ms messages wait for company: 20, 40 ...")
    ] = None,
    message_bytes: Annotated[
        int | None, flag("--message-bytes", env="MESSAGE_BYTES", help="Mean message, instead of the encoder's.")
    ] = None,
    extra_bytes: Annotated[int, flag("--extra-bytes", env="EXTRA_BYTES", help="Payload on top of each message.")] = 0,
    seed: Annotated[int, flag("--seed", env="SEED", help="Of phases and jitter.", min=0)] = 7,
    shards: Shards = None,
    wcu: Wcu = None,
    rcu: Rcu = None,
    window: Window = None,
    config_env: ConfigEnv = "default",
    template: Template = None,
    settings: Settings = None,
    limit: LimitOptions = None,
    prices: Annotated[
        Path | None, flag("--prices", env="PRICES", help="TOML or JSON file of prices to use instead.")
    ] = None,
    duration: Annotated[
        list[str] | None,
        flag("--duration", env="DURATION", help="Of functions: invocation_ms, record_us or call_ms=VALUE; repeatable."),
    ] = None,
    calibrate: Annotated[
        Path | None,
        flag("--calibrate", env="CALIBRATE", help="report.json of a race or load test: plan what it measured."),
    ] = None,
    advise: Annotated[
        bool, flag("--advise", env="ADVISE", help="Search for the cheapest deployment that keeps --objective.")
    ] = False,
    objective: Annotated[
        str | None,
        flag(
            "--objective",
            env="OBJECTIVE",
            help="Of --advise: the most of p99, throttled, table_throttled, settled, age; "
            "p99=10s,throttled=0,settled=10s when not given.",
        ),
    ] = None,
    headroom: Annotated[
        str | None,
        flag("--headroom", env="HEADROOM", help="Of --advise: capacity on top of what just holds; 20% when not given."),
    ] = None,
    write_env: Annotated[
        str | None,
        flag("--write-env", env="WRITE_ENV", help="Of --advise: write it to samconfig.toml, as this environment."),
    ] = None,
    sweep: Annotated[
        list[str] | None,
        flag("--sweep", env="SWEEP", help="NAME=1..8 or NAME=20,50: plan each value of a parameter; repeatable."),
    ] = None,
    out: Annotated[
        Path | None,
        flag(
            "--out", env="OUT", help=f"Directory for {PLAN_FILE} or the experiment's, advice's or sweep's, and pages."
        ),
    ] = None,
    as_json: AsJson = False,
    experiment: Annotated[
        Path | None, flag("--experiment", env="EXPERIMENT", help="TOML file of named cases, planned and compared.")
    ] = None,
) -> None:
    """Say in seconds, without a cloud, whether a race holds on a deployment, what breaks first, and what it costs."""
    if experiment is not None:
        from simulator.experiment_command import run_experiment

        run_experiment(context, experiment, template=template, limit=limit, prices=prices, out=out, as_json=as_json)
        return
    # Imported when asked for: numpy and the runtime take a while.
    from simulator.capacity.functions import Durations
    from simulator.capacity.model import LEAD_S, PlanError
    from simulator.capacity.model import plan as run
    from simulator.capacity.prices import PRICES, PricesError, load_prices
    from simulator.capacity.report import as_json as told
    from simulator.capacity.view import render
    from simulator.capacity.workload import Workload

    one_of("--via", via, ("kinesis", "mqtt"))
    try:
        workload = Workload(
            racers=racers,
            seconds=seconds("--run-time", run_time),
            races=races,
            classes=_classes(classes),
            partition_key=partition_key,
            transport="mqtt" if via == "mqtt" else "putrecords",
            phase="burst" if one_of("--phase", phase, ("spread", "burst")) == "burst" else "spread",
            deadline_s=seconds("--deadline", deadline),
            interval_s=seconds("--interval", interval),
            late_share=late_share,
            dropout_share=dropout_share,
            skew=skew,
            qos=qos,
            aggregation=aggregate,
            linger_ms=linger,
            message_bytes=message_bytes,
            extra_bytes=extra_bytes,
            seed=seed,
        )
        chosen = PRICES if prices is None else load_prices(prices)
        pinned = _durations(duration, Durations.__slots__)
        durations = Durations(**pinned)
        lead_s, calibration = LEAD_S, None
        if calibrate is not None:
            from simulator.calibrate_command import measured_by, show

            measured = measured_by(context, calibrate)
            workload, lead_s = measured.workload(workload), measured.lead_s
            config_env, settings = measured.sizes(config_env, settings)
            limit = measured.limits(limit)
            calibration = measured.durations(durations, tuple(pinned), template)
            durations = calibration.after
            show(calibration, as_json=as_json)
    except PricesError as error:
        raise UsageError(f"--prices: {error}") from None
    except ValueError as error:
        raise UsageError(str(error)) from None
    if advise or sweep or any(one is not None for one in (objective, headroom, write_env)):
        from simulator.capacity.searches import Searches, command_of, search

        def deploy(parameters: Mapping[str, str]) -> Deployment:
            chosen_last = [f"{name}={value}" for name, value in parameters.items()]
            return deployment_of(config_env, template, [*(settings or ()), *chosen_last], shards, wcu, rcu, window)

        asked = Searches(advise, objective, headroom, tuple(sweep or ()), write_env, command_of(context))
        if not search(asked, deploy, workload, limits_of("on", limit), chosen, durations, out, as_json=as_json):
            raise typer.Exit(EXIT_FAILED)
        return
    deployment = deployment_of(config_env, template, settings, shards, wcu, rcu, window)
    began = time.perf_counter()
    try:
        found = run(
            deployment, workload, settings=limits_of("on", limit), prices=chosen, durations=durations, lead_s=lead_s
        )
    except PlanError as error:
        raise UsageError(str(error)) from None
    taken_s = time.perf_counter() - began
    answer = told(found) | ({} if calibration is None else {"calibration": calibration.as_json()})
    if out is not None:
        from simulator.capacity.plan_page import write_page

        try:
            out.mkdir(parents=True, exist_ok=True)
            (out / PLAN_FILE).write_text(json.dumps(answer, ensure_ascii=False), encoding="utf-8")
            write_page(found, out / PAGE_FILE)
        except OSError as error:
            raise UsageError(f"--out {out}: {error.strerror}") from None
    if as_json:
        print(json.dumps(answer, ensure_ascii=False))
    else:
        Console().print(render(found))
    print(f"alleycat: planned in {taken_s:.2f} s", file=sys.stderr)
    if not found.holds:
        raise typer.Exit(EXIT_FAILED)


def _durations(given: Sequence[str] | None, known: Sequence[str]) -> dict[str, float]:
    found = {}
    for text in given or ():
        name, _, value = text.partition("=")
        try:
            if name not in known:
                raise ValueError
            found[name] = float(value)
        except ValueError:
            raise UsageError(f"--duration {text!r}: give NAME=NUMBER, where NAME is {' or '.join(known)}") from None
    return found


def _classes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(one) for one in text.split(","))
    except ValueError:
        raise UsageError(f"--classes {text!r}: give different numbers from 1 to 6, such as 1 or 1,2,6") from None
