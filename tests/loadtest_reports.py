"""Made-up reports of load tests, as a limit report tells them: plain data, built by a small model of shards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

CLIMB = (250.0, 500.0, 750.0, 1000.0, 1500.0, 2000.0)
TRIALS = (985.0, 1030.0, 1002.0, 995.0)
STAGE_S = 5

Report = dict[str, Any]


def percentiles(p50: float | None, spread: float = 2.5) -> dict[str, float | None]:
    if p50 is None:
        return dict.fromkeys(("p50", "p90", "p99", "p99_9", "max"))
    return {"p50": p50, "p90": p50 * 1.6, "p99": p50 * spread, "p99_9": p50 * spread * 1.5, "max": p50 * spread * 4}


def shard_limit(shards: int = 1, limit: float | None = 1000.0, hottest: float = 1.0) -> Report:
    """A search for the limit of records of ``shards``; the first shard gets ``hottest`` times its part."""
    names = [f"shardId-{index:012d}" for index in range(shards)]
    parts = [hottest if not index else 1.0 for index in range(shards)]
    parts = [part / sum(parts) for part in parts]
    room = math.inf if limit is None else limit
    stages, offered, generator_cpu = [], [], []
    accepted: list[list[float]] = [[] for _ in names]
    throttled: list[list[float]] = [[] for _ in names]
    purposes = [("climb", rate * shards) for rate in CLIMB] + [("rest", 0.0)]
    purposes += [("trial", rate * shards) for rate in TRIALS]
    for index, (purpose, rate) in enumerate(purposes):
        begun = len(offered)
        for second in range(STAGE_S):
            offered.append(rate)
            generator_cpu.append(min(0.05 + rate / 9000 + 0.01 * (second % 3), 1.0))
            for which, part in enumerate(parts):
                here = rate * part * (1 + 0.004 * math.sin(second + which))
                accepted[which].append(round(min(here, room), 1))
                throttled[which].append(round(max(here - room, 0), 1))
        taken = sum(sum(one[begun:]) for one in accepted) / STAGE_S
        refused = sum(sum(one[begun:]) for one in throttled) / STAGE_S
        share = refused / rate if rate else 0.0
        broke = share > 0.001
        stages.append(
            {
                "index": index,
                "name": f"{purpose} {index + 1}",
                "purpose": purpose,
                "start_s": float(begun),
                "end_s": float(len(offered)),
                "offered_per_second": rate,
                "accepted_per_second": round(taken, 1),
                "throttled_share": round(share, 5),
                "failed": 0,
                "late_share": 0.002 if broke else 0.0,
                "unsent": 0,
                "p50_ms": None if not rate else 3.1 + rate / shards / 4000,
                "p99_ms": None if not rate else 8.0 + (30.0 if broke else rate / shards / 500),
                "held": None if purpose == "rest" else not broke,
                "reason": f"{share:.1%} throttled, more than 0.1 %" if broke else None,
                "generator_cpu": generator_cpu[-1],
                "target_cpu": round(min(rate / 20_000, 1.0), 3),
            }
        )
    held = [one["offered_per_second"] for one in stages if one["held"]]
    broken = [one["offered_per_second"] for one in stages if one["held"] is False]
    first = [next((s for s, value in enumerate(one) if value), None) for one in throttled]
    sustained = max(one["accepted_per_second"] for one in stages if one["held"])
    return {
        "schema": 1,
        "kind": "loadtest",
        "run": {
            "scenario": "shard-limit",
            "about": "PutRecords until a shard refuses records: 1,000 a second and shard are published",
            "target": "local",
            "endpoint": "http://127.0.0.1:4566",
            "region": "eu-central-1",
            "started_at": "2026-11-21T08:00:00Z",
            "seconds": float(len(offered)),
            "workers": 1,
            "users": 16,
            "unit": "records",
            "settings": {"batch": 100, "max_throttled": "0.1%", "seed": 7},
            "versions": {"alleycat": "0.1.0", "locust": "2.47.0"},
        },
        "deployment": {"parameters": {"ShardCount": shards, "WriteCapacityUnits": 20}},
        "outcome": "limit" if broken else "no-limit",
        "summary": (
            f"kinesis.shard.write.records_per_second binds: {sustained:,.0f} of {room * shards:,.0f} records/s held"
            if broken
            else f"No limit was found: {sustained:,.0f} records/s were accepted and nothing was refused"
        ),
        "limits": [
            {
                "name": "kinesis.shard.write.records_per_second",
                "resource": name,
                "published": 1000.0,
                "unit": "records/s",
                "sustained": round(sustained * part, 1),
                "ratio": round(sustained * part / 1000, 4),
                "peak": max(taken),
                "first_throttle_at_s": at if at is None else float(at),
                "throttled": round(sum(refused)),
                "binding": bool(broken) and sum(refused) > 0,
            }
            for name, part, at, taken, refused in zip(names, parts, first, accepted, throttled, strict=True)
        ],
        "knee": {
            "held_per_second": max(held),
            "broke_per_second": min(broken),
            "unit": "records/s",
            "reason": "1.2 % throttled, more than 0.1 %",
        }
        if broken
        else None,
        "latency_ms": {
            "before_knee": percentiles(3.1),
            "after_knee": percentiles(4.4 if broken else None, 9),
            "all": percentiles(3.4, 6),
            "lateness": percentiles(0.2),
        },
        "stages": stages,
        "series": {
            "seconds": list(range(len(offered))),
            "offered": offered,
            "iterator_age_ms": None,
            "latency_p99_ms": [8.0 + 6 * math.sin(second / 3) ** 2 for second in range(len(offered))],
            "resources": [
                {
                    "name": name,
                    "operation": "PutRecords",
                    "unit": "records/s",
                    "limit": limit,
                    "accepted": taken,
                    "throttled": refused,
                    "units": None,
                }
                for name, taken, refused in zip(names, accepted, throttled, strict=True)
            ],
            "generator_cpu": generator_cpu,
            "target_cpu": [round(min(rate / 20_000, 1.0), 3) for rate in offered],
        },
        "ceiling": {
            "generator": {"cpu_peak": max(generator_cpu), "cores": 1, "ceiling_per_second": 8300.0},
            "target": {"cpu_peak": 0.2, "ceiling_per_second": 11_000.0},
            "bottleneck": None,
            "text": "Neither was the bottleneck: the generator used 31 % of its core, the embedded cloud 20 %.",
        },
        "ledger": {
            "offered": sum(offered),
            "accepted": sum(map(sum, accepted)),
            "throttled": sum(map(sum, throttled)),
            "failed": 0,
            "unsent": 0,
            "unanswered": 0,
            "late_requests": 3,
            "requests": 520,
        },
        "objectives": [
            {"name": "max-throttled", "limit": "0.1%", "measured": "0.03%", "passed": True, "why": None},
            {"name": "p99", "limit": "200ms", "measured": "8ms", "passed": True, "why": None},
        ],
        "problems": [
            {
                "operation": "PutRecords",
                "resource": name,
                "code": "ProvisionedThroughputExceededException",
                "message": f"Rate exceeded for shard {name} in stream alleycat under account 123456789012.",
                "count": round(sum(refused)),
                "first_at_s": at,
            }
            for name, at, refused in zip(names, first, throttled, strict=True)
            if at is not None
        ],
        "incomplete": [],
        "verdict": {
            "passed": True,
            "checks": [
                {"name": "max-throttled", "passed": True, "text": "0.03% throttled before the knee, at most 0.1%"},
                {"name": "ceiling", "passed": True, "text": "the service refused before generator or cloud were busy"},
            ],
        },
    }


def limit() -> Report:
    """One shard, its limit found."""
    return shard_limit()


def hot_shard() -> Report:
    """Four shards, one with three times the load of another."""
    report = shard_limit(4, hottest=3.0)
    report["run"]["scenario"] = "hot-shard"
    return report


def many_shards() -> Report:
    """64 shards, one of them a little warmer."""
    return shard_limit(64, hottest=1.4)


def no_limit() -> Report:
    """A server that refuses nothing."""
    report = shard_limit(limit=None)
    report["ceiling"]["target"] = None
    report["series"]["target_cpu"] = None
    for stage in report["stages"]:
        stage["target_cpu"] = None
    return report


def generator_bottleneck() -> Report:
    """The generator was busy before the service refused."""
    report = shard_limit(limit=None)
    report.update(
        outcome="generator",
        summary="No service limit is named: the generator used all of its core from 1,500 records/s on",
    )
    report["series"]["generator_cpu"] = [min(1.0, one * 5) for one in report["series"]["generator_cpu"]]
    report["ceiling"] = {
        "generator": {"cpu_peak": 1.0, "cores": 1, "ceiling_per_second": 1480.0},
        "target": {"cpu_peak": 0.1, "ceiling_per_second": 11_000.0},
        "bottleneck": "generator",
        "text": "The generator was the bottleneck: 100 % of 1 core. Give it more with --processes.",
    }
    report["objectives"].append(
        {"name": "max-late", "limit": "1%", "measured": "14%", "passed": False, "why": "14%, more than 1%"}
    )
    report["verdict"] = {
        "passed": False,
        "checks": [{"name": "ceiling", "passed": False, "text": "the generator was the bottleneck, not the service"}],
    }
    return report


def incomplete() -> Report:
    """A worker was lost in the middle; half of the series is missing, much was never measured."""
    report = shard_limit(2)
    series = report["series"]
    series["resources"][1]["accepted"] = series["resources"][1]["accepted"][:12]
    series["resources"][1]["throttled"] = [None] * 12
    series.update(target_cpu=None, latency_p99_ms=[None] * len(series["seconds"]))
    for one in report["limits"]:
        one.update(sustained=None, ratio=None, first_throttle_at_s=None, binding=False)
    report.update(
        outcome="incomplete",
        knee=None,
        summary="No limit is named: a worker was lost in the middle of the test",
        incomplete=[
            "worker host_abc was lost at 12.1 s; what it measured since 11.6 s is missing",
            "the endpoint http://127.0.0.1:4566 answered no more from 40.2 s on",
        ],
        verdict={
            "passed": False,
            "checks": [{"name": "complete", "passed": False, "text": "measurements are missing"}],
        },
    )
    report["latency_ms"] = {kind: percentiles(None) for kind in report["latency_ms"]}
    report["ceiling"]["target"] = None
    return report


def barely_begun() -> Report:
    """Nothing was measured at all: the endpoint was gone in the first second."""
    report = incomplete()
    report["series"] = {
        "seconds": [],
        "offered": [],
        "iterator_age_ms": None,
        "latency_p99_ms": None,
        "resources": [],
        "generator_cpu": [],
        "target_cpu": None,
    }
    report.update(stages=[], limits=[], problems=[], objectives=[], ledger={})
    return report


def race_day() -> Report:
    """Stream, table and index in one test, with the iterator age; no knee was looked for."""
    report = shard_limit(limit=None)
    report["run"].update(scenario="race-day", about="Riders join, five minutes, the finish burst, again", target="aws")
    report["run"]["endpoint"] = None
    seconds = report["series"]["seconds"]
    report["series"]["iterator_age_ms"] = [max(0.0, 900 * math.sin(second / 9)) for second in seconds]
    for name, operation, provisioned in (
        ("alleycat-races", "UpdateItem", 20.0),
        ("alleycat-races/GSI-Class-Output", "UpdateItem", 20.0),
    ):
        written = [8 + 7 * math.sin(second / 5) for second in seconds]
        report["series"]["resources"].append(
            {
                "name": name,
                "operation": operation,
                "unit": "writes/s",
                "limit": provisioned,
                "accepted": written,
                "throttled": [0.0] * len(seconds),
                "units": [2 * one for one in written],
            }
        )
    report.update(outcome="held", summary="Race day's load held: the nearest limit, the table's WCU, was used to 75 %")
    return report


UNICODE = "Straßenbahn-Ligå 🚲 競輪 \u202egnp.exe"


def unicode_report() -> Report:
    """Names and messages of many scripts, with an emoji, a direction override, a control and half a character."""
    report = hot_shard()
    report["run"]["about"] = UNICODE
    for one in (*report["limits"], *report["series"]["resources"]):
        one["resource" if "resource" in one else "name"] = UNICODE
    report["problems"][0]["message"] = f"{UNICODE} \x1b[31m\x00 \ud83d"
    return report


HOSTILE = """</script><script>window.pwned=1</script><img src=x onerror="window.pwned=1">"'&<!--<b>%{x}</b>"""


def spoiled(told: Any, keep: Sequence[str] = ("schema", "kind")) -> Any:
    """``told`` with every text in it, names too, replaced by HTML that wants to run."""
    if isinstance(told, dict):
        return {
            key: value if key in keep or (key, value) == ("purpose", "rest") else spoiled(value, keep)
            for key, value in told.items()
        }
    if isinstance(told, list):
        return [spoiled(one, keep) for one in told]
    return f"{told} {HOSTILE}" if isinstance(told, str) else told


def hostile() -> Report:
    report: Report = spoiled(hot_shard())
    report["deployment"]["parameters"] = {HOSTILE: HOSTILE}
    report["incomplete"] = [HOSTILE]
    return report


ALL = {
    build.__name__: build
    for build in (
        limit,
        hot_shard,
        many_shards,
        no_limit,
        generator_bottleneck,
        incomplete,
        barely_begun,
        race_day,
        unicode_report,
        hostile,
    )
}
