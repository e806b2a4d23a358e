"""Many units into Locust's statistics at once, and request events for its listeners.

Locust counts requests; a PutRecords is one request and 500 records, each with an end of its own. So requests go
through Locust's own event, and what became of the records goes into entries of their own, one for each resource and
end: ``accepted``, ``throttled``, ``failed``. Those stay out of Locust's total, which counts requests.
"""

from __future__ import annotations

import time
from typing import Any

from locust.env import Environment
from locust.stats import StatsError, bucket_response_time


def log_many(environment: Environment, method: str, name: str, number: int, response_ms: float, size: float) -> None:
    """``number`` units of one end, ``size`` bytes in all, each ``response_ms`` after it was due."""
    if not number:
        return
    entry: Any = environment.stats.get(name, method)
    now = time.time()
    entry.num_requests += number
    entry.num_reqs_per_sec[int(now)] += number
    entry.last_request_timestamp = now
    entry.total_response_time += response_ms * number
    entry.min_response_time = min(
        response_ms, response_ms if entry.min_response_time is None else entry.min_response_time
    )
    entry.max_response_time = max(entry.max_response_time, response_ms)
    entry.response_times[bucket_response_time(response_ms)] += number
    entry.total_content_length += int(size)


def log_failures(environment: Environment, method: str, name: str, number: int, response_ms: float, error: str) -> None:
    """``number`` units that were refused; each is a failure in Locust's table too."""
    if not number:
        return
    log_many(environment, method, name, number, response_ms, 0)
    entry: Any = environment.stats.get(name, method)
    entry.num_failures += number
    entry.num_fail_per_sec[int(time.time())] += number
    environment.stats.log_error(method, name, error)
    # log_error counted one of them, here and in the total, where units do not belong.
    entry.num_failures -= 1
    entry.num_fail_per_sec[int(time.time())] -= 1
    environment.stats.total.num_failures -= 1
    environment.stats.total.num_fail_per_sec[int(time.time())] -= 1
    found: Any = environment.stats.errors.get(StatsError.create_key(method, name, error))
    if found is not None:
        found.occurrences += number - 1


def fire(environment: Environment, method: str, name: str, response_ms: float, size: int, error: str | None) -> None:
    """One request, as Locust's listeners, statistics and percentiles know it."""
    request: Any = environment.events.request
    request.fire(
        request_type=method,
        name=name,
        response_time=response_ms,
        response_length=size,
        exception=RequestError(error) if error else None,
        context={},
    )


class RequestError(Exception):
    """What a request failed of, in the service's words."""
