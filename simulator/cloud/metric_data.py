"""GetMetricData's queries: statistics and expressions by id, and what an alarm on them sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simulator.cloud import metric_math
from simulator.cloud.errors import AwsError
from simulator.cloud.metric_math import Series
from simulator.cloud.metric_query import NoPercentile, check_period, stat_values, whole
from simulator.cloud.metrics import Metrics

QUERIES_MAX = 500


@dataclass(frozen=True, slots=True)
class Result:
    """One query's values in order of time; ``message`` says why there are none although there is data."""

    id: str
    label: str
    series: Series
    message: str | None = None


def evaluate(metrics: Metrics, queries: Sequence[Mapping[str, Any]], start: float, end: float) -> list[Result]:
    """Every query, in the order given, those with ``ReturnData`` false left out. An array gives several results.

    :raises AwsError: ValidationError and others, for queries that make no sense.
    """
    if len(queries) > QUERIES_MAX:
        raise AwsError("ValidationError", f"There are {len(queries)} queries; {QUERIES_MAX} are the most.")
    by_id = {query["Id"]: query for query in queries}
    if len(by_id) != len(queries):
        raise AwsError("ValidationError", "The ids of the queries must be different.")
    work = _Work(metrics, by_id, start, end)
    return [result for query in queries if query.get("ReturnData", True) for result in work.results(query)]


class _Work:
    def __init__(self, metrics: Metrics, queries: Mapping[str, Mapping[str, Any]], start: float, end: float) -> None:
        self.metrics, self.queries, self.start, self.end = metrics, queries, start, end
        self.done: dict[str, Series | list[Series] | float] = {}
        self.messages: dict[str, str] = {}
        self.open: list[str] = []

    def results(self, query: Mapping[str, Any]) -> list[Result]:
        name = query["Id"]
        value = self.of(name)
        label = query.get("Label") or self.label(query)
        found = value if isinstance(value, list) else [self.spread(query, value)]
        return [Result(name, label, one, self.messages.get(name)) for one in found]

    def label(self, query: Mapping[str, Any]) -> str:
        stat = query.get("MetricStat")
        return str(stat["Metric"]["MetricName"]) if stat else str(query["Id"])

    def spread(self, query: Mapping[str, Any], value: Series | float) -> Series:
        """A number as a series that is that number in every period."""
        if isinstance(value, Series):
            return value
        like = self.series({}, self.period_of(query))
        return Series(dict.fromkeys(like.times(), value), like.period, like.start, like.end)

    def period_of(self, query: Mapping[str, Any]) -> int:
        """An expression's own, or the longest of what it is made of."""
        if "Period" in query:
            check_period(query["Period"])
            return int(query["Period"])
        below = [one.period for value in self.done.values() for one in _flat(value)]
        return max(below, default=60)

    def series(self, values: dict[int, float], period: int) -> Series:
        return Series(values, period, *whole(self.start, self.end, period))

    def of(self, name: str) -> Series | list[Series] | float:
        if name in self.done:
            return self.done[name]
        if name in self.open:
            raise AwsError("ValidationError", f"The expressions {' -> '.join([*self.open, name])} need each other.")
        self.open.append(name)
        query = self.queries[name]
        stat, expression = query.get("MetricStat"), query.get("Expression")
        if (stat is None) == (expression is None):
            raise AwsError("ValidationError", f"The query {name} must have either MetricStat or Expression.")
        value = self.statistic(name, stat) if stat is not None else self.expression(name, str(expression))
        self.open.pop()
        self.done[name] = value
        return value

    def statistic(self, name: str, stat: Mapping[str, Any]) -> Series:
        try:
            values = stat_values(self.metrics, stat, self.start, self.end)
        except NoPercentile:
            self.messages[name] = f"{stat['Stat']} needs single observations; these were recorded as statistic sets"
            values = {}
        return self.series(values, stat["Period"])

    def expression(self, name: str, expression: str) -> Series | list[Series] | float:
        wanted = metric_math.names(expression)
        stats = [one for one, query in self.queries.items() if "MetricStat" in query]
        needed = [one for one in self.queries if one in wanted or ("METRICS" in wanted and one in stats)]
        known: dict[str, Series] = {}
        for one in needed:
            value = self.of(one)
            if isinstance(value, list):
                raise AwsError("ValidationError", f"{one} is an array; use it inside of a function of {name}.")
            known[one] = self.spread(self.queries[one], value)
        return metric_math.evaluate(expression, known, {one: known[one] for one in stats if one in known})


def _flat(value: Series | list[Series] | float) -> list[Series]:
    if isinstance(value, list):
        return value
    return [value] if isinstance(value, Series) else []
