"""CloudWatch's metric alarms as a state machine that takes ``now``.

An alarm looks at its last ``EvaluationPeriods`` whole periods each time that one ends (at most once in ten seconds)
and goes to ALARM when ``DatapointsToAlarm`` of them breach. Evaluation is caught up with when somebody asks: the data
of the past is still there, so the transitions and their times are those that a timer would have found.

``TreatMissingData``: ``breaching`` and ``notBreaching`` count a period without data as such; ``ignore`` keeps the state
and ``missing`` gives INSUFFICIENT_DATA when no period has data, and otherwise they judge those that have. (AWS also
looks at some older periods then; here it is exactly the last ``EvaluationPeriods``.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

from simulator.cloud.errors import AwsError
from simulator.cloud.metric_data import evaluate
from simulator.cloud.metric_query import check_period, check_statistic
from simulator.cloud.metrics import Metrics

HISTORY_MAX = 1000
CATCH_UP_S = 3600
"""Older evaluations that nobody asked for are skipped."""
_INTERVAL_S = 10
_BREACHES: dict[str, Callable[[float, float], bool]] = {
    "GreaterThanOrEqualToThreshold": lambda value, threshold: value >= threshold,
    "GreaterThanThreshold": lambda value, threshold: value > threshold,
    "LessThanThreshold": lambda value, threshold: value < threshold,
    "LessThanOrEqualToThreshold": lambda value, threshold: value <= threshold,
}
_TREATMENTS = ("missing", "notBreaching", "breaching", "ignore")
_ACTIONS = {"ALARM": "AlarmActions", "OK": "OKActions", "INSUFFICIENT_DATA": "InsufficientDataActions"}
_NOT_SHOWN = ("Tags",)

Notify = Callable[[str, str, str], None]
"""``(ARN of an SNS topic, subject, message)``."""


@dataclass(slots=True)
class Alarm:
    """One alarm: its settings as PutMetricAlarm had them, its state, its history (newest last)."""

    settings: dict[str, Any]
    arn: str
    configured_at: float
    evaluated_at: float
    state: str = "INSUFFICIENT_DATA"
    reason: str = "Unchecked: Initial alarm creation"
    reason_data: str | None = None
    updated_at: float = 0.0
    history: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=HISTORY_MAX))

    @property
    def name(self) -> str:
        return str(self.settings["AlarmName"])

    def period(self) -> int:
        """Seconds; of the longest query for an alarm on several."""
        if "Period" in self.settings:
            return int(self.settings["Period"])
        return max((query.get("MetricStat", query).get("Period", 60) for query in self.settings["Metrics"]), default=60)

    def interval(self) -> int:
        """Seconds between evaluations."""
        return max(_INTERVAL_S, min(self.period(), 60))

    def queries(self) -> list[dict[str, Any]]:
        """What it watches, as GetMetricData's queries."""
        if "Metrics" in self.settings:
            return list(self.settings["Metrics"])
        metric = {name: self.settings[name] for name in ("Namespace", "MetricName", "Dimensions") if name in
                  self.settings}  # fmt: skip
        stat = self.settings.get("Statistic") or self.settings.get("ExtendedStatistic")
        unit = {"Unit": self.settings["Unit"]} if "Unit" in self.settings else {}
        return [{"Id": "m", "MetricStat": {"Metric": metric, "Period": self.period(), "Stat": stat, **unit}}]

    def describe(self) -> dict[str, Any]:
        """As DescribeAlarms tells it."""
        shown = {name: value for name, value in self.settings.items() if name not in _NOT_SHOWN}
        return {
            "OKActions": [],
            "AlarmActions": [],
            "InsufficientDataActions": [],
            "Dimensions": [],
            **shown,
            "AlarmArn": self.arn,
            "AlarmConfigurationUpdatedTimestamp": self.configured_at,
            "StateValue": self.state,
            "StateReason": self.reason,
            "StateReasonData": self.reason_data,
            "StateUpdatedTimestamp": self.updated_at,
            "StateTransitionedTimestamp": self.updated_at,
        }


class Alarms:
    """The alarms of one region. Not thread-safe: one thread asks and evaluates."""

    def __init__(self, metrics: Metrics, notify: Notify) -> None:
        self._metrics, self._notify = metrics, notify
        self._alarms: dict[str, Alarm] = {}

    def __len__(self) -> int:
        return len(self._alarms)

    def put(self, settings: Mapping[str, Any], arn: str, now: float) -> None:
        """Make an alarm or change one; a changed one keeps its state until the next evaluation.

        :raises AwsError: settings that contradict each other, or that are not supported here.
        """
        _check(settings)
        told = {"ActionsEnabled": True, "TreatMissingData": "missing", **settings}
        before = self._alarms.get(settings["AlarmName"])
        alarm = Alarm(told, arn, now, evaluated_at=now, updated_at=now)
        # One evaluation back, so that what has already happened counts at once.
        alarm.evaluated_at -= alarm.interval()
        if before is not None:
            alarm.state, alarm.reason, alarm.updated_at = before.state, before.reason, before.updated_at
            alarm.history = before.history
        self._alarms[alarm.name] = alarm
        verb = "updated" if before is not None else "created"
        _remember(alarm, "ConfigurationUpdate", f'Alarm "{alarm.name}" {verb}', {"type": verb.title()[:-1]}, now)

    def get(self, names: Iterable[str]) -> list[Alarm]:
        """Those of ``names`` that there are."""
        return [self._alarms[name] for name in names if name in self._alarms]

    def all(self) -> list[Alarm]:
        """By name."""
        return [self._alarms[name] for name in sorted(self._alarms)]

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            self._alarms.pop(name, None)

    def set_state(self, name: str, state: str, reason: str, reason_data: str | None, now: float) -> None:
        """Until the next evaluation.

        :raises AwsError: ResourceNotFound.
        """
        alarm = self._alarms.get(name)
        if alarm is None:
            raise AwsError("ResourceNotFound", None, 404)
        alarm.evaluated_at = max(alarm.evaluated_at, now)
        self._enter(alarm, state, reason, reason_data, now)

    def evaluate(self, now: float) -> None:
        """Catch up with every evaluation that was due up to ``now``."""
        for alarm in self._alarms.values():
            interval = alarm.interval()
            due = int(max(alarm.evaluated_at, now - CATCH_UP_S)) // interval * interval + interval
            while due <= now:
                alarm.evaluated_at = due
                self._evaluate(alarm, due)
                due += interval

    def _evaluate(self, alarm: Alarm, now: int) -> None:
        period, count = alarm.period(), alarm.settings["EvaluationPeriods"]
        end = now // period * period
        start = end - count * period
        try:
            results = evaluate(self._metrics, alarm.queries(), start, end)
        except AwsError as error:
            self._enter(alarm, "INSUFFICIENT_DATA", f"The metric cannot be evaluated: {error.message}", None, now)
            return
        values = results[0].series.values if results else {}
        told = [values.get(at) for at in range(start, end, period)]
        verdict = _judge(alarm.settings, told)
        if verdict is None or verdict == alarm.state:
            return
        known = [value for value in told if value is not None]
        data = orjson.dumps(
            {
                "version": "1.0",
                "queryDate": _iso(now),
                "startDate": _iso(start),
                "period": period,
                "recentDatapoints": known,
                "threshold": alarm.settings["Threshold"],
            }
        ).decode()
        self._enter(alarm, verdict, _reason(alarm.settings, verdict, told), data, now)

    def _enter(self, alarm: Alarm, state: str, reason: str, reason_data: str | None, at: float) -> None:
        now = max(at, alarm.configured_at)
        before, alarm.state, alarm.reason, alarm.reason_data = alarm.state, state, reason, reason_data
        if before == state:
            return
        alarm.updated_at = now
        change = {"oldState": {"stateValue": before}, "newState": {"stateValue": state, "stateReason": reason}}
        _remember(alarm, "StateUpdate", f"Alarm updated from {before} to {state}", change, now)
        if not alarm.settings["ActionsEnabled"]:
            return
        for arn in alarm.settings.get(_ACTIONS[state], ()):
            if arn.split(":")[2:3] != ["sns"]:
                summary = f"Failed to execute action {arn}: only SNS topics are told here"
            else:
                self._notify(arn, f'{state}: "{alarm.name}"', _message(alarm, before, now))
                summary = f"Successfully executed action {arn}"
            _remember(alarm, "Action", summary, {"actionState": summary.partition(" ")[0], "resource": arn}, now)


def _judge(settings: Mapping[str, Any], told: list[float | None]) -> str | None:
    """The state that these periods call for; None to stay."""
    treatment = settings["TreatMissingData"]
    known = [value for value in told if value is not None]
    if not known and treatment in ("missing", "ignore"):
        return "INSUFFICIENT_DATA" if treatment == "missing" else None
    breaches = _BREACHES[settings["ComparisonOperator"]]
    breaching = sum(breaches(value, settings["Threshold"]) for value in known)
    if treatment == "breaching":
        breaching += len(told) - len(known)
    return "ALARM" if breaching >= settings.get("DatapointsToAlarm", settings["EvaluationPeriods"]) else "OK"


def _check(settings: Mapping[str, Any]) -> None:
    for name in ("EvaluationPeriods", "ComparisonOperator", "Threshold"):
        if name not in settings:
            raise AwsError("ValidationError", f"{name} is required; anomaly and PromQL alarms are not supported here.")
    if settings["ComparisonOperator"] not in _BREACHES:
        raise AwsError("ValidationError", f"{settings['ComparisonOperator']} needs anomaly detection, not had here.")
    if settings.get("TreatMissingData", "missing") not in _TREATMENTS:
        raise AwsError("ValidationError", f"TreatMissingData must be one of {', '.join(_TREATMENTS)}.")
    if settings.get("DatapointsToAlarm", 1) > settings["EvaluationPeriods"]:
        raise AwsError("ValidationError", "DatapointsToAlarm must not be greater than EvaluationPeriods.")
    if "Metrics" in settings:
        if "MetricName" in settings:
            raise AwsError("ValidationError", "Metrics and MetricName exclude each other.")
        if sum(query.get("ReturnData", True) for query in settings["Metrics"]) != 1:
            raise AwsError("ValidationError", "Exactly one of the Metrics must have ReturnData true.")
        evaluate(Metrics(), settings["Metrics"], 0, 60)
        return
    if ("Statistic" in settings) == ("ExtendedStatistic" in settings):
        raise AwsError("ValidationError", "Give one of Statistic and ExtendedStatistic.")
    for name in ("MetricName", "Namespace", "Period"):
        if name not in settings:
            raise AwsError("ValidationError", f"{name} is required.")
    check_period(settings["Period"])
    check_statistic(settings.get("Statistic") or settings["ExtendedStatistic"])
    if settings["Period"] * settings["EvaluationPeriods"] > 7 * 86_400:
        raise AwsError("ValidationError", "EvaluationPeriods times Period must not exceed seven days.")


def _reason(settings: Mapping[str, Any], state: str, told: list[float | None]) -> str:
    if state == "INSUFFICIENT_DATA":
        return f"Insufficient Data: {len(told)} datapoints were unknown."
    known = [value for value in told if value is not None]
    relation = {
        "GreaterThanOrEqualToThreshold": "greater than or equal to",
        "GreaterThanThreshold": "greater than",
        "LessThanThreshold": "less than",
        "LessThanOrEqualToThreshold": "less than or equal to",
    }[settings["ComparisonOperator"]]
    missing = f", {len(told) - len(known)} missing" if len(known) < len(told) else ""
    how_many = "enough" if state == "ALARM" else "too few"
    return (
        f"Threshold Crossed: of the last {len(told)} datapoints {known[-10:]}{missing}, {how_many} were {relation} "
        f"the threshold ({settings['Threshold']})."
    )


def _message(alarm: Alarm, before: str, now: float) -> str:
    trigger = {
        name: alarm.settings.get(name)
        for name in ("MetricName", "Namespace", "Statistic", "Period", "EvaluationPeriods", "ComparisonOperator",
                     "Threshold", "TreatMissingData", "Dimensions")
    }  # fmt: skip
    return orjson.dumps(
        {
            "AlarmName": alarm.name,
            "AlarmDescription": alarm.settings.get("AlarmDescription"),
            "AWSAccountId": alarm.arn.split(":")[4],
            "NewStateValue": alarm.state,
            "NewStateReason": alarm.reason,
            "StateChangeTime": _iso(now),
            "Region": alarm.arn.split(":")[3],
            "AlarmArn": alarm.arn,
            "OldStateValue": before,
            "Trigger": trigger,
        }
    ).decode()


def _remember(alarm: Alarm, kind: str, summary: str, data: Mapping[str, Any], now: float) -> None:
    alarm.history.append(
        {
            "AlarmName": alarm.name,
            "AlarmType": "MetricAlarm",
            "Timestamp": now,
            "HistoryItemType": kind,
            "HistorySummary": summary[:255],
            "HistoryData": orjson.dumps({"version": "1.0", **data}).decode()[:4095],
        }
    )


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "+0000")
