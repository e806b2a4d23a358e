"""What holds a run up, in a sentence each, and what would fix it.

Read from the limits that refused something lately and from the functions: a drain that takes minutes should say
why. The advice names the flag that changes the setting.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simulator.deployment import Deployment
from simulator.utilisation import Balance, LimitUse

MOVING_LOAD = 1.05
"""How far above its steady share the hottest shard of each second must be to be worth a word."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong and what to change."""

    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.problem} {self.remedy}"


def diagnose(
    recent: Sequence[LimitUse], window_s: float, functions: Iterable[Mapping[str, Any]], deployment: Deployment
) -> list[Finding]:
    """Findings, the most binding first.

    :param recent: limit use over the last ``window_s`` seconds.
    :param functions: entries of report.json's ``functions``.
    """
    findings = [
        finding
        for use in sorted(recent, key=lambda one: -one.throttled)
        if use.throttled and (finding := _finding(use, window_s, deployment))
    ]
    findings.extend(
        Finding(
            f"{function['name']} was killed at its timeout {_times(function['timeouts'])}; its batch starts again.",
            "It waits for the writes above; --set FunctionTimeout=60 gives it longer.",
        )
        for function in functions
        if function["timeouts"]
    )
    return findings


def hot_shards(balances: Iterable[Balance]) -> list[Finding]:
    """Streams whose key moves load between shards: each second another is hot, though over time all are even."""
    return [
        Finding(
            f"{one.stream}: the partition key moves load from shard to shard. Each second's hottest of {one.shards} "
            f"took {one.hottest_share:.0%} of the records ({one.worst_share:.0%} at worst), over the whole time the "
            f"busiest had {one.steady_share:.0%}.",
            "A key that stays with its shard (--partition-key racer) needs that much less headroom.",
        )
        for one in balances
        if one.hottest_share > MOVING_LOAD * one.steady_share
    ]


def _finding(use: LimitUse, window_s: float, deployment: Deployment) -> Finding | None:
    refused = f"{use.throttled:,} refused in {window_s:.0f} s"
    if use.name == "iot.account.connects_per_second":
        return Finding(
            f"IoT Core takes {use.limit:,.0f} connects/s an account and one a second for a client id ({refused}).",
            "A lower --connect-rate, and a client id of its own for each bike.",
        )
    if use.name.startswith("iot.account.publish"):
        return Finding(
            f"IoT Core takes {use.limit:,.0f} {use.unit} an account and 100 a connection ({refused}, discarded).",
            "QoS 1 (--qos 1) sends again what was not acknowledged; fewer messages a second need none of it.",
        )
    parameters = deployment.parameters
    if use.name.startswith("kinesis.shard.write"):
        shards = sum(stream.shard_count for stream in deployment.streams)
        more = f"--shards {2 * shards} doubles it"
        if any(stream.mode == "ON_DEMAND" for stream in deployment.streams):
            more = (
                f"An on-demand stream begins with {shards} shards and splits one only after minutes of load; a "
                f"provisioned one (--set StreamMode=PROVISIONED --shards {2 * shards}) has more at once"
            )
        return Finding(
            f"{use.resource} takes {use.limit:,.0f} {use.unit} and is offered more ({refused}, sent again later).",
            f"{more}; a partition key that spreads (--partition-key racer) helps when only one shard is hot.",
        )
    if use.name.startswith("kinesis.shard.read"):
        return Finding(
            f"{use.resource} gives {use.limit:,.0f} {use.unit} to all readers together ({refused}).",
            "Fewer functions on the stream, or more shards (--shards), read more.",
        )
    word = "write" if ".write." in use.name else "read"
    units = "WCU" if word == "write" else "RCU"
    if use.name.startswith("dynamodb.partition"):
        return Finding(
            f"A partition of {use.resource} gives {use.limit:,.0f} {units} a second, however much is provisioned or "
            f"saved ({refused}, sent again later).",
            "Keys that spread over more partitions would serve more.",
        )
    if use.name.startswith("dynamodb.index"):
        name = f"Index{word.capitalize()}CapacityUnits"
        advice = f"--set {name}={_more(use.limit)}" if name in parameters else f"More {units} on the index"
        problem = f"Index {use.resource} has {use.limit:,.0f} {units} and no burst left ({refused}): every write waits."
    elif use.name.startswith("dynamodb.table"):
        advice = f"--{units.lower()} {_more(use.limit)}"
        problem = f"Table {use.resource} has {use.limit:,.0f} {units} and no burst left ({refused})."
    else:
        return None
    window = parameters.get("TumblingWindowInSeconds")
    fewer = " and fewer result writes (--window 5)" if word == "write" and not window else ""
    return Finding(problem, f"{advice}{fewer} would fix it.")


def _more(limit: float) -> int:
    return int(limit * 5)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"
