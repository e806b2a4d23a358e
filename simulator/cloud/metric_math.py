"""The part of CloudWatch's metric math that dashboards of streams use.

Numbers, ids, ``+ - * /``, unary minus, brackets, arrays, and ABS, AVG, CEIL, DIFF, FILL, FLOOR, MAX, METRICS, MIN,
PERIOD, RATE, SUM. A function of one series gives one number; of an array, a series. An operation on two series has a
value where both have one. Anything else (SEARCH, IF, anomaly detection, Metrics Insights) is a clear error.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from simulator.cloud.errors import AwsError

Values = dict[int, float]
_REDUCE: dict[str, Callable[[Sequence[float]], float]] = {
    "SUM": math.fsum,
    "AVG": lambda values: math.fsum(values) / len(values),
    "MIN": min,
    "MAX": max,
}
_EACH: dict[str, Callable[[float], float]] = {"ABS": abs, "CEIL": math.ceil, "FLOOR": math.floor}
TIMES_MAX = 100_800
FUNCTIONS = (*_REDUCE, *_EACH, "DIFF", "FILL", "METRICS", "PERIOD", "RATE")


@dataclass(frozen=True, slots=True)
class Series:
    """Values by time, ``period`` seconds apart where there are any, from ``start`` to before ``end``."""

    values: Values
    period: int
    start: int
    end: int

    def times(self) -> range:
        """:raises AwsError: more of them than GetMetricData answers with."""
        found = range(self.start, self.end, self.period)
        if len(found) > TIMES_MAX:
            raise AwsError("ValidationError", f"{len(found):,} periods, {TIMES_MAX:,} are the most; ask for less time.")
        return found


Term = float | Series | list["Series"]


def names(expression: str) -> set[str]:
    """The ids that ``expression`` mentions, and ``METRICS`` when it uses all of them.

    :raises AwsError: it cannot be read.
    """
    tree = _parse(expression)
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    found = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - called
    return found | ({"METRICS"} & called)


def evaluate(expression: str, series: Mapping[str, Series], metrics: Mapping[str, Series]) -> Term:
    """The value of ``expression``; ``metrics`` are those that ``METRICS()`` means.

    :raises AwsError: ValidationError, for what is not supported and for ids that are not there.
    """
    try:
        return _Evaluation(expression, series, metrics).value(_parse(expression))
    except RecursionError:
        raise _wrong(expression, "it is nested too deeply") from None
    except OverflowError:
        raise _wrong(expression, "a number is too large") from None


def _parse(expression: str) -> ast.expr:
    try:
        return ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _wrong(expression, "it cannot be read") from None


def _wrong(expression: str, why: str) -> AwsError:
    return AwsError("ValidationError", f"Error in expression '{expression}': {why}")


class _Evaluation:
    def __init__(self, expression: str, series: Mapping[str, Series], metrics: Mapping[str, Series]) -> None:
        self.expression, self.series, self.metrics = expression, series, metrics

    def value(self, node: ast.expr) -> Term:
        match node:
            case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
                return float(number)
            case ast.Name(id=name):
                if name not in self.series:
                    raise self.wrong(f"there is no query with the id {name}")
                return self.series[name]
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self.binary(ast.Sub(), 0.0, self.value(operand))
            case ast.BinOp(left=left, op=operator, right=right):
                return self.binary(operator, self.value(left), self.value(right))
            case ast.List(elts=items):
                return [self.one_series(self.value(item)) for item in items]
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
                return self.call(name, arguments)
        raise self.wrong("only numbers, ids, + - * /, arrays and functions are supported here")

    def wrong(self, why: str) -> AwsError:
        return _wrong(self.expression, why)

    def one_series(self, term: Term) -> Series:
        if not isinstance(term, Series):
            raise self.wrong("a series was expected")
        return term

    def binary(self, operator: ast.operator, left: Term, right: Term) -> Term:
        if not isinstance(operator, ast.Add | ast.Sub | ast.Mult | ast.Div):
            raise self.wrong("of the operators + - * / are supported here")
        if isinstance(left, list):
            return [self.one_series(self.binary(operator, one, right)) for one in left]
        if isinstance(right, list):
            return [self.one_series(self.binary(operator, left, one)) for one in right]
        if isinstance(left, Series) and isinstance(right, Series):
            both = [at for at in left.values if at in right.values]
            pairs = {at: (left.values[at], right.values[at]) for at in both}
            return self.mapped(left, operator, pairs)
        if isinstance(left, Series):
            return self.mapped(left, operator, {at: (value, right) for at, value in left.values.items()})
        if isinstance(right, Series):
            return self.mapped(right, operator, {at: (left, value) for at, value in right.values.items()})
        found = self.operate(operator, left, right)
        if found is None:
            raise self.wrong("division by zero, or a number too large")
        return found

    def mapped(self, like: Series, operator: ast.operator, pairs: Mapping[int, tuple[Any, Any]]) -> Series:
        found = {at: self.operate(operator, *pair) for at, pair in pairs.items()}
        # AWS drops the points that were divided by zero; ours that are too large go the same way.
        return _with(like, {at: value for at, value in found.items() if value is not None})

    def operate(self, operator: ast.operator, left: float, right: float) -> float | None:
        match operator:
            case ast.Add():
                found = left + right
            case ast.Sub():
                found = left - right
            case ast.Mult():
                found = left * right
            case _:
                found = left / right if right else math.nan
        return found if math.isfinite(found) else None

    def call(self, name: str, arguments: list[ast.expr]) -> Term:
        if name not in FUNCTIONS:
            raise self.wrong(f"{name} is not supported here; there are {', '.join(sorted(FUNCTIONS))}")
        if name == "METRICS":
            return self.all_metrics(arguments)
        if len(arguments) != (2 if name == "FILL" else 1):
            raise self.wrong(f"{name} takes {'two arguments' if name == 'FILL' else 'one argument'}")
        term = self.value(arguments[0])
        if name == "FILL":
            return self.each(term, lambda one: self.filled(one, arguments[1]))
        if name in _REDUCE:
            return self.reduced(_REDUCE[name], term)
        if name == "PERIOD":
            return float(self.one_series(term).period)
        if name in ("RATE", "DIFF"):
            return self.each(term, lambda one: _differences(one, per_second=name == "RATE"))
        each = _EACH[name]
        if isinstance(term, float):
            return float(each(term))
        return self.each(term, lambda one: _with(one, {at: float(each(value)) for at, value in one.values.items()}))

    def all_metrics(self, arguments: list[ast.expr]) -> list[Series]:
        match arguments:
            case []:
                return list(self.metrics.values())
            case [ast.Constant(value=str() as part)]:
                return [one for name, one in self.metrics.items() if part in name]
        raise self.wrong("METRICS takes nothing or a part of the ids")

    def each(self, term: Term, of: Callable[[Series], Series]) -> Term:
        return [of(one) for one in term] if isinstance(term, list) else of(self.one_series(term))

    def reduced(self, reduce: Callable[[Sequence[float]], float], term: Term) -> Term:
        if isinstance(term, list):
            if not term:
                raise self.wrong("there is nothing to add up")
            times = sorted({at for one in term for at in one.values})
            return _with(term[0], {at: reduce([one.values[at] for one in term if at in one.values]) for at in times})
        values = list(self.one_series(term).values.values())
        return float(reduce(values)) if values else _with(self.one_series(term), {})

    def filled(self, series: Series, how: ast.expr) -> Series:
        if isinstance(how, ast.Name) and how.id in ("REPEAT", "LINEAR"):
            if how.id == "LINEAR":
                raise self.wrong("FILL takes a number or REPEAT here")
            values: Values = {}
            last: float | None = None
            for at in series.times():
                last = series.values.get(at, last)
                if last is not None:
                    values[at] = last
            return _with(series, values)
        filler = self.value(how)
        if not isinstance(filler, float):
            raise self.wrong("FILL takes a number or REPEAT here")
        return _with(series, {at: series.values.get(at, filler) for at in series.times()})


def _with(like: Series, values: Values) -> Series:
    return Series(dict(sorted(values.items())), like.period, like.start, like.end)


def _differences(series: Series, *, per_second: bool) -> Series:
    times = list(series.values)
    return _with(
        series,
        {
            at: (series.values[at] - series.values[before]) / ((at - before) if per_second else 1)
            for before, at in pairwise(times)
        },
    )
