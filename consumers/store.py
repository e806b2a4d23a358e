"""The table's items. The only module that knows PK, SK and GSI.

======================  =====================  ====================================================  =============
PK                      SK                     attributes                                            write
======================  =====================  ====================================================  =============
``race-{raceId}``       ``results``            GSI = classId, results = {racerId: best output}, ts   read, merge
``race-{raceId}``       ``results-{classId}``  the same, for further classes of the same race id     read, merge
``race-{raceId}``       ``racer-{racerId}``    GSI = final output, ts                                overwrite
``class-{classId}``     ``racer-{racerId}``    GSI = best output ever, ts, raceId                    only if better
======================  =====================  ====================================================  =============

``ts`` is in ms. On a results item it is the time of the write and strictly increasing, which makes it the version
that writers compare. On the others it is the bike's own time of the final message, so that writing the same finish
again changes no byte: a replay costs a write unit on the table, and nothing on the indexes.

Every write may be repeated, and writers may meet: a results item only ever grows (the maximum by racer, put on
condition that nobody wrote in between), a class best likewise.

Errors, with botocore's mapped here so that no handler sees them::

    StoreError              wrong table, permission, foreign item: trying again will not help
    +-- TemporaryError      trying again may help
    |   +-- ThrottledError    the table or an index has no capacity left
    |   +-- UnavailableError  no answer, or the service failed
    +-- OutOfTimeError      the function must answer now
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NoReturn, Protocol

import boto3
import botocore.exceptions
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from msgspec import DecodeError
from msgspec.json import Decoder

BATCH_WRITE_MAX_ITEMS = 25  # BatchWriteItem's limit in the DynamoDB API reference
DEFAULT_TABLE = "alleycat-races"

_THROTTLES = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "ThrottlingException",
        "RequestLimitExceeded",
        "Throttling",
    }
)
_Item = dict[str, dict[str, str]]


class StoreError(Exception):
    """A call on the table failed. ``operation`` and ``code`` are AWS's names."""

    def __init__(self, message: str, *, operation: str = "", code: str = "") -> None:
        super().__init__(message)
        self.operation = operation
        self.code = code


class TemporaryError(StoreError):
    """Trying again may help."""


class ThrottledError(TemporaryError):
    """The table or one of its indexes has no capacity left."""


class UnavailableError(TemporaryError):
    """DynamoDB gave no answer, or failed."""


class OutOfTimeError(StoreError):
    """The function must answer now, or be killed."""


class _ConditionFailedError(Exception):
    """Somebody else wrote first, or something better."""


class LambdaContext(Protocol):
    """What the handlers use of Lambda's context object."""

    def get_remaining_time_in_millis(self) -> int:
        """Time until Lambda kills the function, in ms."""


class Deadline:
    """The time a function has left, less a margin for its answer: 2 s, or 20 % of a short Timeout."""

    MARGIN_MS = 2000
    MARGIN_SHARE = 0.2
    PAUSE_BASE_MS = 50.0
    PAUSE_MAX_MS = 1000.0

    def __init__(
        self,
        context: LambdaContext,
        *,
        sleep: Callable[[float], None] = time.sleep,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self._remaining_ms = context.get_remaining_time_in_millis
        self._margin_ms = min(self.MARGIN_MS, self._remaining_ms() * self.MARGIN_SHARE)
        self._sleep = sleep
        self._rng = rng

    def check(self) -> None:
        """Raise :class:`OutOfTimeError` when nothing more should be started."""
        if self._remaining_ms() <= self._margin_ms:
            raise OutOfTimeError("no time left for another call before the function's Timeout")

    def pause(self, attempt: int) -> None:
        """Back off before attempt ``attempt`` (1, 2, ...): at least half of 50 ms doubling up to 1 s, jittered.

        Raises :class:`OutOfTimeError` at once when the pause would not leave time for a call.
        """
        ceiling_ms = min(self.PAUSE_MAX_MS, self.PAUSE_BASE_MS * 2 ** min(attempt - 1, 10))
        pause_ms = ceiling_ms * (0.5 + 0.5 * self._rng())
        if self._remaining_ms() - pause_ms <= self._margin_ms:
            raise OutOfTimeError("no time left for another attempt before the function's Timeout")
        self._sleep(pause_ms / 1000)


@dataclass(frozen=True, slots=True)
class Finish:
    """A biker's final reading: ``output`` in hundredths, ``ts_ms`` as the bike sent it."""

    race_id: int
    class_id: int
    racer_id: int
    output: int
    ts_ms: int


@dataclass(frozen=True, slots=True)
class Merge:
    """What a merge did: whether it had to write, and how often another writer came first."""

    written: bool
    conflicts: int


class RaceTable:
    """The races table behind a low-level DynamoDB client. Holds no state but what it may forget."""

    def __init__(
        self,
        client: Any,
        name: str,
        *,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.name = name
        self._client = client
        self._clock_ms = clock_ms
        # (race id, class id) known not to own SK=results; an owner never changes. Saves reading the owner's item.
        self._second: set[tuple[int, int]] = set()

    def merge_results(
        self, race_id: int, class_id: int, best: Mapping[int, int], pause: Callable[[int], None]
    ) -> Merge:
        """Raise the race's results to ``best`` (hundredths by racer id); equal or lower values change nothing.

        Reads the item consistently, and puts the merged one on condition that it is still the one read; if not,
        calls ``pause(conflicts)``, reads again and merges again, until it succeeds or ``pause`` raises.
        """
        conflicts = 0
        second = (race_id, class_id) in self._second
        key = _results_key(race_id, class_id if second else None)
        item = self._get(key)
        while True:
            if item is not None and not second and _class_of(item) != class_id:
                second = True
                if len(self._second) >= 1000:
                    self._second.clear()
                self._second.add((race_id, class_id))
                key = _results_key(race_id, class_id)
                item = self._get(key)
                continue
            stored, seen_ts = _read_results(item) if item is not None else ({}, None)
            better = {racer: output for racer, output in best.items() if output > stored.get(racer, -1)}
            if not better:
                return Merge(written=False, conflicts=conflicts)
            try:
                self._put_results(key, class_id, stored | better, seen_ts)
                return Merge(written=True, conflicts=conflicts)
            except _ConditionFailedError:
                conflicts += 1
                pause(conflicts)
                item = self._get(key)

    def put_finishes(self, finishes: Sequence[Finish]) -> list[Finish]:
        """Write the race items of up to 25 finishes in one BatchWriteItem; return those not processed.

        BatchWriteItem takes an item once: of several finishes of a racer in a race, the last stands.
        """
        by_key = {(f"race-{f.race_id}", f"racer-{f.racer_id}"): f for f in finishes}
        requests = [
            {"PutRequest": {"Item": _item(pk, sk, GSI=decimal_text(f.output), ts=f.ts_ms)}}
            for (pk, sk), f in by_key.items()
        ]
        answer = self._call("batch_write_item", RequestItems={self.name: requests})
        items = [entry["PutRequest"]["Item"] for entry in answer.get("UnprocessedItems", {}).get(self.name, [])]
        unprocessed = {(item["PK"]["S"], item["SK"]["S"]) for item in items}
        return [f for f in finishes if (f"race-{f.race_id}", f"racer-{f.racer_id}") in unprocessed]

    def put_class_best(self, finish: Finish) -> bool:
        """Write the racer's best of the class if this finish is better; return whether it was."""
        output = decimal_text(finish.output)
        item = _item(f"class-{finish.class_id}", f"racer-{finish.racer_id}", GSI=output, ts=finish.ts_ms)
        item["raceId"] = {"N": str(finish.race_id)}
        try:
            self._call(
                "put_item",
                TableName=self.name,
                Item=item,
                ConditionExpression="attribute_not_exists(PK) OR GSI < :new",
                ExpressionAttributeValues={":new": {"N": output}},
            )
        except _ConditionFailedError:
            return False
        return True

    def _get(self, key: _Item) -> _Item | None:
        answer = self._call("get_item", TableName=self.name, Key=key, ConsistentRead=True)
        item: _Item | None = answer.get("Item")
        return item

    def _put_results(self, key: _Item, class_id: int, results: Mapping[int, int], seen_ts: int | None) -> None:
        ts = self._clock_ms() if seen_ts is None else max(self._clock_ms(), seen_ts + 1)
        item = _item(key["PK"]["S"], key["SK"]["S"], GSI=str(class_id), ts=ts)
        item["results"] = {"S": results_text(results)}
        condition: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(PK)"}
        if seen_ts is not None:
            condition = {
                "ConditionExpression": "ts = :seen",
                "ExpressionAttributeValues": {":seen": {"N": str(seen_ts)}},
            }
        self._call("put_item", TableName=self.name, Item=item, **condition)

    def _call(self, method: str, **arguments: Any) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = getattr(self._client, method)(**arguments)
        except ClientError as error:
            self._raise(error)
        except (botocore.exceptions.ConnectionError, HTTPClientError) as error:
            raise UnavailableError(f"{method} on table {self.name}: {error}", operation=method) from error
        except BotoCoreError as error:
            raise StoreError(f"{method} on table {self.name}: {error}", operation=method) from error
        return answer

    def _raise(self, error: Any) -> NoReturn:
        """Map an error answer of DynamoDB to ours."""
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        operation = str(error.operation_name)
        if code == "ConditionalCheckFailedException":
            raise _ConditionFailedError from None
        kind = StoreError
        if code in _THROTTLES:
            kind = ThrottledError
        elif status >= 500:
            kind = UnavailableError
        raise kind(f"{operation} on table {self.name}: {error}", operation=operation, code=code) from error


def decimal_text(hundredths: int) -> str:
    """Hundredths as the shortest exact decimal: 12345 is ``123.45``, 12350 ``123.5``, 12300 ``123``."""
    whole, rest = divmod(hundredths, 100)
    return f"{whole}.{rest:02d}".rstrip("0") if rest else str(whole)


def results_text(results: Mapping[int, int]) -> str:
    """Compact JSON ``{"racerId":output}``, racers in numeric order, outputs in units from hundredths."""
    return "{" + ",".join([f'"{racer}":{decimal_text(results[racer])}' for racer in sorted(results)]) + "}"


@dataclass(frozen=True, slots=True)
class Results:
    """A results item as a table's stream has it: outputs in hundredths by racer id."""

    race_id: int
    class_id: int
    ts_ms: int
    best: Mapping[int, int]


def results_of(image: _Item) -> Results | None:
    """The results item in ``image`` (DynamoDB JSON); None for an item of another kind.

    Raises :class:`StoreError` for one that has a results item's key and not its attributes.
    """
    try:
        partition, sort = image["PK"]["S"], image["SK"]["S"]
    except (KeyError, TypeError):
        return None
    if not partition.startswith("race-") or not (sort == "results" or sort.startswith("results-")):
        return None
    best, ts_ms = _read_results(image)
    try:
        return Results(int(partition.removeprefix("race-")), _class_of(image), ts_ms, best)
    except ValueError as error:
        raise _foreign(image, error) from error


_results = Decoder(dict[int, float])


def _read_results(item: _Item) -> tuple[dict[int, int], int]:
    """Results in hundredths by racer id, and the item's ``ts``."""
    try:
        outputs = _results.decode(item["results"]["S"])
        return {racer: round(output * 100) for racer, output in outputs.items()}, int(item["ts"]["N"])
    except (KeyError, ValueError, DecodeError) as error:
        raise _foreign(item, error) from error


def _class_of(item: _Item) -> int:
    try:
        return int(item["GSI"]["N"])
    except (KeyError, ValueError) as error:
        raise _foreign(item, error) from error


def _foreign(item: _Item, error: Exception) -> StoreError:
    keys = f"PK={item['PK']['S']}, SK={item['SK']['S']}"
    return StoreError(f"the item {keys} is not a results item ({error!r}): move it away or delete it")


def _results_key(race_id: int, class_id: int | None) -> _Item:
    """The item of the first class (``None``) or of another one."""
    sk = "results" if class_id is None else f"results-{class_id}"
    return {"PK": {"S": f"race-{race_id}"}, "SK": {"S": sk}}


def _item(pk: str, sk: str, *, GSI: str, ts: int) -> _Item:  # noqa: N803
    return {"PK": {"S": pk}, "SK": {"S": sk}, "GSI": {"N": GSI}, "ts": {"N": str(ts)}}


@cache
def race_table(total_max_attempts: int) -> RaceTable:
    """The table named by ``TABLE_NAME``, with a client that makes up to ``total_max_attempts`` of each call.

    One a process, made at the first use: a function that only carries its window's state never pays for it.
    """
    config = Config(
        # Requests are built here from checked values; botocore's check costs more than signing them.
        parameter_validation=False,
        retries={"mode": "standard", "total_max_attempts": total_max_attempts},
        connect_timeout=2,
        read_timeout=10,
    )
    try:
        client = boto3.client("dynamodb", config=config)
    except BotoCoreError as error:
        raise StoreError(f"no DynamoDB client: {error}") from error
    return RaceTable(client, os.environ.get("TABLE_NAME", DEFAULT_TABLE))
