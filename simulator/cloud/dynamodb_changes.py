"""How often a table may be changed: decreases of throughput and switches of its billing mode. No I/O, no clock.

AWS allows four decreases a UTC day and then one an hour, 27 a day at most, for each table and each global index by
itself; and four switches from provisioned to on-demand in 24 hours (CAH quotas).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from simulator.cloud import limits
from simulator.cloud.dynamodb_costs import TableSpec, Throughput
from simulator.cloud.errors import AwsError

_DAY_S = 86_400
_HOUR_S = 3_600


class ChangeHistory:
    """The changes of one table."""

    def __init__(self) -> None:
        self._decreases: dict[str | None, deque[float]] = {}
        self._to_on_demand: deque[float] = deque()

    def decreases_today(self, index_name: str | None, now: float) -> int:
        """NumberOfDecreasesToday of the table (None) or an index."""
        return sum(at // _DAY_S == now // _DAY_S for at in self._decreases.get(index_name, ()))

    def check(self, spec: TableSpec, params: Mapping[str, Any], now: float, *, enforced: bool) -> None:
        """Whether UpdateTable with ``params`` is allowed now; it is counted by :meth:`count`.

        :raises AwsError: LimitExceededException, or ValidationException when nothing would change.
        """
        if set(params) <= {"TableName", "AttributeDefinitions"}:
            raise AwsError(
                "ValidationException",
                "At least one of ProvisionedThroughput, BillingMode, UpdateStreamEnabled, GlobalSecondaryIndexUpdates "
                "or SSESpecification or ReplicaUpdates is required",
            )
        if set(params) <= {"TableName", "ProvisionedThroughput"}:
            _require_change(spec.throughput, params.get("ProvisionedThroughput") or {})
        if not enforced:
            return
        for index_name in _decreased(spec, params):
            made = self._decreases.get(index_name, ())
            today = self.decreases_today(index_name, now)
            last = made[-1] if made else -_DAY_S
            too_many = today >= limits.DECREASES_PER_DAY.value
            if too_many or (today >= limits.DECREASES_FREE.value and now - last < _HOUR_S):
                next_at = (now // _DAY_S + 1) * _DAY_S if too_many else last + _HOUR_S
                raise AwsError(
                    "LimitExceededException",
                    "Subscriber limit exceeded: Provisioned throughput decreases are limited within a given UTC day. "
                    f"After the first {int(limits.DECREASES_FREE)} decreases, each subsequent decrease in the same UTC "
                    f"day can be performed at most once every {_HOUR_S} seconds. Number of decreases today: {today}. "
                    f"Last decrease at {_date(last)}. Next decrease can be made at {_date(next_at)}",
                )
        if _to_on_demand(spec, params):
            recent = [at for at in self._to_on_demand if now - at < _DAY_S]
            if len(recent) >= limits.MODE_CHANGES_PER_DAY.value:
                raise AwsError(
                    "LimitExceededException",
                    "Subscriber limit exceeded: Update to PayPerRequest mode are limited to "
                    f"{int(limits.MODE_CHANGES_PER_DAY)} in 1 day(s). Last update at {_date(recent[-1])}. Next update "
                    f"can be made at {_date(recent[0] + _DAY_S)}",
                )

    def count(self, spec: TableSpec, params: Mapping[str, Any], now: float) -> None:
        """An UpdateTable of ``spec`` as it was has succeeded."""
        for index_name in _decreased(spec, params):
            made = self._decreases.setdefault(index_name, deque(maxlen=int(limits.DECREASES_PER_DAY)))
            made.append(now)
        if _to_on_demand(spec, params):
            self._to_on_demand.append(now)
            while now - self._to_on_demand[0] >= _DAY_S:
                self._to_on_demand.popleft()


def _decreased(spec: TableSpec, params: Mapping[str, Any]) -> list[str | None]:
    """The table (None) and indexes whose units would get fewer."""
    current: dict[str | None, Throughput | None] = {index.name: index.throughput for index in spec.global_indexes}
    current[None] = spec.throughput
    asked: dict[str | None, Any] = {None: params.get("ProvisionedThroughput")}
    for change in params.get("GlobalSecondaryIndexUpdates") or ():
        update = change.get("Update") or {}
        asked[update.get("IndexName")] = update.get("ProvisionedThroughput")
    found = []
    for name, wanted in asked.items():
        before = current.get(name)
        if before is None or before.is_on_demand or not wanted:
            continue
        is_less = (
            wanted.get("ReadCapacityUnits", before.read_units) < before.read_units
            or wanted.get("WriteCapacityUnits", before.write_units) < before.write_units
        )
        if is_less:
            found.append(name)
    return found


def _to_on_demand(spec: TableSpec, params: Mapping[str, Any]) -> bool:
    return params.get("BillingMode") == "PAY_PER_REQUEST" and not spec.throughput.is_on_demand


def _require_change(current: Throughput, wanted: Mapping[str, Any]) -> None:
    asked = (wanted.get("ReadCapacityUnits"), wanted.get("WriteCapacityUnits"))
    if asked == (current.read_units, current.write_units):
        read, write = asked
        raise AwsError(
            "ValidationException",
            "The provisioned throughput for the table will not change. The requested value equals the current value. "
            f"Current ReadCapacityUnits provisioned for the table: {read}. Requested ReadCapacityUnits: {read}. "
            f"Current WriteCapacityUnits provisioned for the table: {write}. Requested WriteCapacityUnits: {write}. "
            "Refer to the Amazon DynamoDB Developer Guide for current limits and how to request higher limits.",
        )


def _date(at: float) -> str:
    """``Thursday, December 14, 2017 3:11:34 AM UTC``."""
    day = time.gmtime(at)
    clock = time.strftime("%I:%M:%S %p UTC", day).lstrip("0")
    return f"{time.strftime('%A, %B', day)} {day.tm_mday}, {day.tm_year} {clock}"
