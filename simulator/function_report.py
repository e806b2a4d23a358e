"""What functions did, as report.json and the terminal show it."""

from __future__ import annotations

from typing import Any

from consumers.runtime import RuntimeStatistics
from simulator.deployment import Deployment


def function_report(statistics: RuntimeStatistics, deployment: Deployment) -> list[dict[str, Any]]:
    """Entries of report.json's ``functions``, by their logical ids."""
    by_name = {function.name: function.logical_id for function in deployment.functions}
    return [
        {
            "name": by_name.get(name, name),
            "invocations": one.invocations,
            "errors": one.errors,
            "timeouts": one.timeouts,
            "duration_ms": {
                "p50": round(one.duration_ms_p50, 3),
                "p99": round(one.duration_ms_p99, 3),
                "max": round(one.duration_ms_max, 3),
            },
            "warm_duration_ms": [
                {
                    "records_most": group.most,
                    "records_mean": round(group.records, 2),
                    "invocations": group.invocations,
                    "p50": round(group.duration_ms_p50, 3),
                    "sum": round(group.duration_ms_sum, 3),
                }
                for group in one.by_records
            ],
            "iterator_age_ms": round(one.iterator_age_ms),
            "iterator_age_ms_max": round(one.iterator_age_ms_max),
            "cold_starts": one.cold_starts,
            "concurrency_max": one.concurrency_max,
            "records": one.records_processed,
            **({"last_error": f"{one.last_error.type}: {one.last_error.message}"} if one.last_error else {}),
        }
        for name, one in statistics.functions.items()
    ]


def largest_iterator_age_ms(statistics: RuntimeStatistics) -> int:
    """The largest iterator age now.

    A shard is not read while its batch is tried again, so how far the last invocation was behind counts too.
    """
    shards = [shard.millis_behind or 0 for one in statistics.mappings.values() for shard in one.shards.values()]
    functions = [round(one.iterator_age_ms) for one in statistics.functions.values()]
    return max([*shards, *functions], default=0)
