"""CloudWatch's API over the cloud's own metrics: GetMetricData, GetMetricStatistics, ListMetrics, PutMetricData and
alarms.

Answers any of the protocols of :mod:`simulator.cloud.aws_protocols`. Dashboards, composite and log alarms, tags,
streams and insight rules are told as not implemented. Runs on one thread. Metrics are those of the
account whatever the region, as the cloud's metrics know no region; alarms belong to their region.
"""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from simulator.cloud import aws_protocols
from simulator.cloud.alarms import Alarm, Alarms
from simulator.cloud.aws_protocols import Call
from simulator.cloud.errors import AwsError
from simulator.cloud.metric_data import evaluate
from simulator.cloud.metric_query import (
    STATISTICS,
    NoPercentile,
    check_period,
    check_statistic,
    find,
    statistic,
    value_of,
    whole,
)
from simulator.cloud.metrics import CLIENT_SERIES_MAX, Key, Metrics

DATAPOINTS_MAX = 1440
DATA_POINTS_OF_A_CALL = 100_800
LIST_PAGE = 500
PUT_MAX_DATUMS = 1000
_PAST_S, _FUTURE_S = 14 * 86_400, 2 * 3600

Answer = tuple[int, dict[str, str], bytes]
Notify = Callable[[str, str, str, str], None]
"""``(region, ARN of an SNS topic, subject, message)``."""


class CloudWatch:
    """Not thread-safe; ``metrics`` may be recorded into by others meanwhile."""

    def __init__(
        self, metrics: Metrics, account_id: str, notify: Notify, clock: Callable[[], float] = time.time
    ) -> None:
        self.metrics, self.account_id, self.clock = metrics, account_id, clock
        self._notify = notify
        self._alarms: dict[str, Alarms] = {}
        self._operations: dict[str, Callable[[dict[str, Any], str], dict[str, Any]]] = {
            "GetMetricData": self.get_metric_data,
            "GetMetricStatistics": self.get_metric_statistics,
            "ListMetrics": self.list_metrics,
            "PutMetricData": self.put_metric_data,
            "PutMetricAlarm": self.put_metric_alarm,
            "DescribeAlarms": self.describe_alarms,
            "DescribeAlarmsForMetric": self.describe_alarms_for_metric,
            "DescribeAlarmHistory": self.describe_alarm_history,
            "SetAlarmState": self.set_alarm_state,
            "DeleteAlarms": self.delete_alarms,
            "EnableAlarmActions": lambda told, region: self._enable(told, region, True),
            "DisableAlarmActions": lambda told, region: self._enable(told, region, False),
        }

    def handle(self, path: str, query: str, headers: dict[str, str], body: bytes, region: str) -> Answer:
        """Answer one HTTP request."""
        request_id = str(uuid.uuid4())
        protocol = aws_protocols.protocol_of(path, headers)
        try:
            call = aws_protocols.read(protocol, path, query, headers, body)
            status, answer_headers, answer = aws_protocols.write(call, self._answer(call, region), request_id)
        except AwsError as error:
            status, answer_headers, answer = aws_protocols.write_error(protocol, error, request_id)
        return status, {**answer_headers, "x-amzn-requestid": request_id}, answer

    def has_alarms(self) -> bool:
        """Whether there is anything for a timer to evaluate."""
        return any(len(alarms) for alarms in self._alarms.values())

    def evaluate_alarms(self) -> None:
        """Catch up with all evaluations that are due."""
        for alarms in self._alarms.values():
            alarms.evaluate(self.clock())

    def _answer(self, call: Call, region: str) -> dict[str, Any]:
        operation = self._operations.get(call.operation)
        if operation is None:
            there = ", ".join(self._operations)
            raise AwsError(
                "InvalidAction", f"{call.operation} is not implemented by the embedded cloud; it has {there}."
            )
        if "Alarm" in call.operation:
            self.evaluate_alarms()
        return operation(call.parameters, region)

    # -- metrics ---------------------------------------------------------------------------------------

    def get_metric_data(self, told: dict[str, Any], _: str) -> dict[str, Any]:
        start, end = _span(told)
        offset = _offset(told)
        most = told.get("MaxDatapoints", DATA_POINTS_OF_A_CALL)
        if not 1 <= most <= DATA_POINTS_OF_A_CALL:
            raise AwsError("ValidationError", f"MaxDatapoints must be from 1 to {DATA_POINTS_OF_A_CALL:,}.")
        descending = told.get("ScanBy", "TimestampDescending") == "TimestampDescending"
        results = []
        left, skipped = most, 0
        complete = True
        for one in evaluate(self.metrics, told["MetricDataQueries"], start, end):
            # An expression may reach further than the time asked for (AWS cuts it too).
            points = sorted(one.series.values.items(), reverse=descending)
            begin = min(len(points), max(0, offset - skipped))
            skipped += len(points)
            page = points[begin : begin + left]
            left -= len(page)
            partial = begin + len(page) < len(points)
            complete = complete and not partial
            results.append(
                {
                    "Id": one.id,
                    "Label": one.label,
                    "Timestamps": [at for at, _ in page],
                    "Values": [value for _, value in page],
                    "StatusCode": "PartialData" if partial else "Complete",
                    "Messages": [{"Code": "NoPercentile", "Value": one.message}] if one.message else None,
                }
            )
        token = None if complete else _token(offset + most)
        return {"MetricDataResults": results, "NextToken": token, "Messages": []}

    def get_metric_statistics(self, told: dict[str, Any], _: str) -> dict[str, Any]:
        start, end = _span(told)
        period = told["Period"]
        check_period(period)
        names, extended = told.get("Statistics", []), told.get("ExtendedStatistics", [])
        if not names and not extended:
            raise AwsError("MissingParameter", "At least one of Statistics and ExtendedStatistics is required.")
        for name in names:
            if name not in STATISTICS:
                raise AwsError("InvalidParameterValue", f"The statistic {name} is not one of {', '.join(STATISTICS)}.")
        wanted = int((end - start) // period)
        if wanted > DATAPOINTS_MAX:
            raise AwsError(
                "InvalidParameterCombination",
                f"You have requested up to {wanted:,} datapoints, which exceeds the limit of {DATAPOINTS_MAX:,}. You "
                "may reduce the datapoints requested by increasing Period, or decreasing the time range.",
            )
        key = find(self.metrics, told["Namespace"], told["MetricName"], told.get("Dimensions", ()))
        unit = self.metrics.unit(key) if key is not None else None
        if told.get("Unit", unit) != unit:
            key = None
        answer: dict[str, Any] = {"Label": told["MetricName"], "Datapoints": []}
        if key is None:
            return answer
        percentiles = {name: self._percentile(key, name, start, end, period) for name in extended}
        for at, one in self.metrics.periods(key, *whole(start, end, period), period).items():
            point: dict[str, Any] = {"Timestamp": at, "Unit": unit, **{name: value_of(one, name) for name in names}}
            if extended:
                point["ExtendedStatistics"] = {name: values[at] for name, values in percentiles.items() if at in values}
            answer["Datapoints"].append(point)
        return answer

    def _percentile(self, key: Key, name: str, start: float, end: float, period: int) -> dict[int, float]:
        check_statistic(name)
        if name in STATISTICS:
            raise AwsError("InvalidParameterValue", f"{name} goes into Statistics.")
        try:
            return statistic(self.metrics, key, name, start, end, period)
        except NoPercentile:
            raise AwsError(
                "InvalidParameterCombination",
                f"{name} of {key[1]} needs single observations; these were recorded as statistic sets.",
            ) from None

    def list_metrics(self, told: dict[str, Any], _: str) -> dict[str, Any]:
        filters = told.get("Dimensions", [])
        found = [
            key
            for key in sorted(self.metrics.keys(told.get("Namespace"), told.get("MetricName")))
            if all(_has_dimension(key, one) for one in filters)
        ]
        offset = _offset(told)
        page = found[offset : offset + LIST_PAGE]
        return {
            "Metrics": [
                {
                    "Namespace": namespace,
                    "MetricName": name,
                    "Dimensions": [{"Name": label, "Value": value} for label, value in dimensions],
                }
                for namespace, name, dimensions in page
            ],
            "NextToken": _token(offset + LIST_PAGE) if offset + LIST_PAGE < len(found) else None,
        }

    def put_metric_data(self, told: dict[str, Any], _: str) -> dict[str, Any]:
        namespace = told["Namespace"]
        if namespace.startswith("AWS/"):
            raise AwsError("InvalidParameterValue", "The value AWS/ for parameter Namespace is invalid.")
        datums = [*told.get("MetricData", ()), *(one for group in told.get("EntityMetricData", ()) for one in
                                                group.get("MetricData", ()))]  # fmt: skip
        if not datums:
            raise AwsError("MissingParameter", "The parameter MetricData is required.")
        if len(datums) > PUT_MAX_DATUMS:
            raise AwsError("InvalidParameterValue", f"MetricData must have at most {PUT_MAX_DATUMS:,} items.")
        now = self.clock()
        checked = [
            (_key(namespace, one), _observations(one), _when(one, now), one.get("Unit", "None")) for one in datums
        ]
        if len({*self.metrics.keys(), *(key for key, *_ in checked)}) > CLIENT_SERIES_MAX:
            raise AwsError("LimitExceeded", f"Over {CLIENT_SERIES_MAX:,} metrics; use fewer dimensions.")
        for key, observations, at, unit in checked:
            for samples, total, low, high in observations:
                self.metrics.record(*key, total, at, samples=samples, minimum=low, maximum=high)
            self.metrics.set_unit(key, unit)
        return {}

    # -- alarms ----------------------------------------------------------------------------------------

    def put_metric_alarm(self, told: dict[str, Any], region: str) -> dict[str, Any]:
        arn = f"arn:aws:cloudwatch:{region}:{self.account_id}:alarm:{told['AlarmName']}"
        alarms = self._of(region)
        alarms.put(told, arn, self.clock())
        alarms.evaluate(self.clock())
        return {}

    def describe_alarms(self, told: dict[str, Any], region: str) -> dict[str, Any]:
        names, prefix = told.get("AlarmNames"), told.get("AlarmNamePrefix", "")
        if names is not None and prefix:
            raise AwsError("ValidationError", "AlarmNamePrefix and AlarmNames exclude each other.")
        found = [
            alarm
            for alarm in (self._of(region).all() if names is None else self._of(region).get(names))
            if alarm.name.startswith(prefix)
            and told.get("StateValue", alarm.state) == alarm.state
            and _acts_on(alarm, told.get("ActionPrefix"))
        ]
        if "AlarmTypes" in told and "MetricAlarm" not in told["AlarmTypes"]:
            found = []
        offset, most = _offset(told), told.get("MaxRecords", 50)
        return {
            "MetricAlarms": [alarm.describe() for alarm in found[offset : offset + most]],
            "CompositeAlarms": [],
            "NextToken": _token(offset + most) if offset + most < len(found) else None,
        }

    def describe_alarms_for_metric(self, told: dict[str, Any], region: str) -> dict[str, Any]:
        wanted = {(one["Name"], one["Value"]) for one in told.get("Dimensions", ())}
        names = ("Namespace", "MetricName", "Statistic", "ExtendedStatistic", "Period", "Unit")
        return {
            "MetricAlarms": [
                alarm.describe()
                for alarm in self._of(region).all()
                if all(told.get(name, alarm.settings.get(name)) == alarm.settings.get(name) for name in names)
                and {(one["Name"], one["Value"]) for one in alarm.settings.get("Dimensions", ())} == wanted
            ]
        }

    def describe_alarm_history(self, told: dict[str, Any], region: str) -> dict[str, Any]:
        alarms = self._of(region).get([told["AlarmName"]]) if "AlarmName" in told else self._of(region).all()
        ascending = told.get("ScanBy", "TimestampDescending") == "TimestampAscending"
        # Newest first, also among items of one moment: history has them in order.
        items = [item for alarm in alarms for item in (alarm.history if ascending else reversed(alarm.history))]
        found = sorted(
            (
                item
                for item in items
                if told.get("HistoryItemType", item["HistoryItemType"]) == item["HistoryItemType"]
                and told.get("StartDate", 0) <= item["Timestamp"] <= told.get("EndDate", float("inf"))
            ),
            key=lambda item: item["Timestamp"] if ascending else -item["Timestamp"],
        )
        offset, most = _offset(told), told.get("MaxRecords", 100)
        return {
            "AlarmHistoryItems": found[offset : offset + most],
            "NextToken": _token(offset + most) if offset + most < len(found) else None,
        }

    def set_alarm_state(self, told: dict[str, Any], region: str) -> dict[str, Any]:
        reason_data = told.get("StateReasonData")
        self._of(region).set_state(
            told["AlarmName"], told["StateValue"], told["StateReason"], reason_data, self.clock()
        )
        return {}

    def delete_alarms(self, told: dict[str, Any], region: str) -> dict[str, Any]:
        self._of(region).delete(told["AlarmNames"])
        return {}

    def _enable(self, told: dict[str, Any], region: str, enabled: bool) -> dict[str, Any]:
        for alarm in self._of(region).get(told["AlarmNames"]):
            alarm.settings["ActionsEnabled"] = enabled
        return {}

    def _of(self, region: str) -> Alarms:
        found = self._alarms.get(region)
        if found is None:
            found = Alarms(self.metrics, lambda arn, subject, text: self._notify(region, arn, subject, text))
            self._alarms[region] = found
        return found


def _span(told: dict[str, Any]) -> tuple[float, float]:
    start, end = told["StartTime"], told["EndTime"]
    if start >= end:
        raise AwsError("InvalidParameterValue", "The parameter StartTime must be less than the parameter EndTime.")
    return start, end


def _token(offset: int) -> str:
    return base64.urlsafe_b64encode(orjson.dumps({"offset": offset})).decode()


def _offset(told: dict[str, Any]) -> int:
    token = told.get("NextToken")
    if token is None:
        return 0
    try:
        offset = orjson.loads(base64.urlsafe_b64decode(token))["offset"]
    except (ValueError, KeyError, TypeError):
        offset = -1
    if not isinstance(offset, int) or offset < 0:
        raise AwsError("InvalidNextToken", "The next token is not valid.")
    return offset


def _has_dimension(key: Key, wanted: dict[str, str]) -> bool:
    return any(name == wanted["Name"] and wanted.get("Value", value) == value for name, value in key[2])


def _acts_on(alarm: Alarm, prefix: str | None) -> bool:
    kinds = ("AlarmActions", "OKActions", "InsufficientDataActions")
    return prefix is None or any(arn.startswith(prefix) for kind in kinds for arn in alarm.settings.get(kind, ()))


def _key(namespace: str, datum: dict[str, Any]) -> Key:
    dimensions = sorted((one["Name"], one["Value"]) for one in datum.get("Dimensions", ()))
    return namespace, datum["MetricName"], tuple(dimensions)


def _when(datum: dict[str, Any], now: float) -> float:
    at = float(datum.get("Timestamp", now))
    if not now - _PAST_S <= at <= now + _FUTURE_S:
        raise AwsError(
            "InvalidParameterValue",
            "The parameter Timestamp must specify a time within the past two weeks and no more than two hours in the "
            "future.",
        )
    return at


def _observations(datum: dict[str, Any]) -> Sequence[tuple[float, float, float, float]]:
    """``(SampleCount, Sum, Minimum, Maximum)`` for each different value of a datum."""
    given = [name for name in ("Value", "Values", "StatisticValues") if name in datum]
    if len(given) != 1:
        raise AwsError("InvalidParameterCombination", "Give one of Value, Values and StatisticValues.")
    if "Value" in datum:
        value = datum["Value"]
        return [(1, value, value, value)]
    if "StatisticValues" in datum:
        one = datum["StatisticValues"]
        if one["SampleCount"] <= 0 or one["Minimum"] > one["Maximum"]:
            raise AwsError("InvalidParameterValue", "StatisticValues: SampleCount > 0 and Minimum <= Maximum.")
        return [(one["SampleCount"], one["Sum"], one["Minimum"], one["Maximum"])]
    values = datum["Values"]
    counts = datum.get("Counts", [1.0] * len(values))
    if len(counts) != len(values) or not 1 <= len(values) <= 150 or min(counts) <= 0:
        raise AwsError("InvalidParameterValue", "Values takes 1 to 150 numbers, Counts as many, each over 0.")
    return [(count, value * count, value, value) for value, count in zip(values, counts, strict=True)]
