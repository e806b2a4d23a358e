"""A plan as JSON, in the words of ``report.json`` where it says the same."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from simulator.capacity.catching_up import GIVEN_UP
from simulator.capacity.delays import SHARES, slowest_s
from simulator.capacity.delivering import Delivery
from simulator.capacity.functions import Function
from simulator.capacity.model import LEAD_S, Plan
from simulator.capacity.prices import total_usd
from simulator.capacity.tables import Table
from simulator.deployment import to_dict

SCHEMA = 1


def as_json(plan: Plan, *, with_timeline: bool = True) -> dict[str, Any]:
    """Everything there is to know of a plan. The timeline has one number a second from the start of the first race."""
    workload, ledger, sizes = plan.workload, plan.ledger, plan.riders.sizes
    told: dict[str, Any] = {
        "schema": SCHEMA,
        "run": {
            "racers": workload.racers,
            "run_time_s": workload.seconds,
            "races": workload.races,
            "classes": list(workload.classes),
            "via": "mqtt" if workload.transport == "mqtt" else "kinesis",
            "partition_key": workload.partition_key,
            "phase": workload.phase,
            "interval_s": workload.interval_s,
            "late_share": workload.late_share,
            "dropout_share": workload.dropout_share,
            "skew": workload.skew,
            "qos": workload.qos,
            "aggregation": workload.aggregation,
            "linger_ms": workload.lingers_ms,
            "deadline_s": workload.deadline_s,
            "seed": workload.seed,
            "target": "plan",
            "message_bytes": sizes.message_bytes,
            "record_bytes": sizes.record_bytes,
        },
        "deployment": {
            "template": plan.deployment.path.name,
            "config_env": plan.deployment.config_env,
            "parameters": to_dict(plan.deployment.shown_parameters()),
        },
        "holds": plan.holds,
        "recovers": plan.recovers,
        "first_limit": plan.broken[0].as_json() if plan.broken else None,
        "limits": [one.as_json() for one in plan.broken],
        "settled_s": None if plan.settled_s is None else round(plan.settled_s, 1),
        "never_settles_because": plan.never,
        "backlog": plan.backlog,
        "given_up": {metric: int(plan.timeline.total(metric)) for metric in GIVEN_UP},
        "ledger": {
            "generated": ledger.generated,
            "delivered": ledger.delivered,
            "lost": ledger.lost,
            "lost_by": dict(ledger.lost_by),
            "throttled": ledger.throttled,
            "retried": ledger.retried,
        },
        "latency_ms": {"accepted": dict(plan.accepted_ms), "visible": _visible(plan)},
        "shards": [_shard(plan, shard.shard_id) for shard in plan.shards],
        "functions": [_function(plan, function) for function in plan.functions],
        "deliveries": [_delivery(plan, one) for one in plan.deliveries],
        "tables": [one for table in plan.tables for one in _table(plan, table)],
        "bill": {
            "total_usd": round(total_usd(list(plan.bill)), 6),
            "seconds": round(plan.usage.seconds, 1),
            "lines": [line.as_json() for line in plan.bill],
        },
        "assumed_durations": asdict(plan.durations),
        "not_modelled": list(plan.not_modelled),
    }
    if with_timeline:
        told["timeline"] = {"lead_s": LEAD_S, "seconds": plan.seconds, "series": plan.timeline.as_json(plan.seconds)}
    return told


def _visible(plan: Plan) -> dict[str, Any]:
    """Of all messages, by the slowest function that shows each one's effect; None where it never did."""
    delays = {name: slowest_s(plan, share) for name, share in SHARES.items()}
    return {name: None if delay_s is None else round(delay_s * 1e3) for name, delay_s in delays.items()}


def _shard(plan: Plan, shard_id: str) -> dict[str, Any]:
    timeline = plan.timeline
    return {
        "shard": shard_id,
        "offered": int(timeline.total("offered", shard_id)),
        "accepted": int(timeline.total("accepted", shard_id)),
        "throttled": int(timeline.total("throttled", shard_id)),
        "peak_accepted_per_second": int(timeline.highest("accepted", shard_id)),
    }


def _function(plan: Plan, function: Function) -> dict[str, Any]:
    totals, timeline = function.totals, plan.timeline
    durations = sorted(totals.durations_s)
    return {
        "name": function.spec.name,
        "writes_modelled": function.is_modelled,
        "invocations": totals.invocations,
        "errors": totals.errors,
        "timeouts": totals.timeouts,
        "throttles": totals.throttles,
        "publishes": int(timeline.total("publishes", function.spec.name)),
        "concurrency_max": int(timeline.highest("concurrency", function.spec.name)),
        "seen_ms": dict(function.delays.as_ms()),
        "duration_ms": {
            name: round(durations[min(len(durations) - 1, int(share * len(durations)))] * 1e3, 1) if durations else 0
            for name, share in SHARES.items()
        },
        "iterator_age_ms_max": round(
            max((timeline.highest("iterator_age_s", source.name) for source in function.spec.event_sources), default=0)
            * 1e3
        ),
    }


def _delivery(plan: Plan, delivery: Delivery) -> dict[str, Any]:
    totals = delivery.totals
    return {
        "name": delivery.spec.name,
        "records": totals.records,
        "failed": totals.failed,
        "objects": totals.objects,
        "bytes": totals.nbytes,
        "age_s_max": round(plan.timeline.highest("delivery_age_s", delivery.spec.name), 1),
    }


def _table(plan: Plan, table: Table) -> list[dict[str, Any]]:
    """Provisioned units are those that were deployed; ``scaled`` is what auto scaling made of them."""
    timeline, found = plan.timeline, []
    for resource, units in table.provisioned().items():
        left = timeline.series("burst_left_write", resource, plan.seconds)
        found.append(
            {
                "resource": resource,
                "provisioned_write_units": units["write"],
                "consumed_write_units": round(timeline.total("consumed_write_units", resource), 1),
                "peak_write_units_per_second": round(timeline.highest("consumed_write_units", resource), 1),
                "throttled_writes": int(timeline.total("throttled_writes", resource)),
                "least_burst_left_write": round(min(left, default=0.0), 1),
                "provisioned_read_units": units["read"],
                "consumed_read_units": round(timeline.total("consumed_read_units", resource), 1),
                "throttled_reads": int(timeline.total("throttled_reads", resource)),
                "scaled": [one.as_json() for one in table.scaled if one.resource == resource],
            }
        )
    return found
