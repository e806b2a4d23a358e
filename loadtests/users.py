"""Locust users of Kinesis and DynamoDB, in an open model: they send when the schedule says so, not when they are free.

A user is a connection. It takes the next arrival of its operation, sends, and reports every record, item or read by
what became of it: accepted, throttled, failed. A PutRecords that answers 200 with failed entries, or a BatchWriteItem
with UnprocessedItems, is not a success here. What was throttled is sent again only when ``--retries`` says so.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Mapping
from typing import Any

import gevent
from locust import User, task
from locust.exception import StopUser

from loadtests import kinesis_wire
from loadtests.aws_json import Answer, Caller, decoded
from loadtests.generator import Generator, Lane
from loadtests.locust_statistics import fire, log_failures, log_many
from loadtests.pacing import Arrival
from loadtests.payloads import Message
from loadtests.table_items import TableItems, capacity_of, refused_resource
from producers.retry import THROTTLE, Meaning, meaning_of_call
from simulator.target import TargetError

_FATAL = (Meaning.ACCESS, Meaning.STREAM_MISSING)
_RNG = random.Random()


class OpenModelUser(User):
    """Sends what falls due, on a connection of its own."""

    abstract = True
    operation = ""
    method = ""
    """How Locust's tables name the service."""

    generator: Generator
    lane: Lane
    is_able = True
    """False when it cannot send at all; :attr:`Generator.fatal` says why."""

    def on_start(self) -> None:
        self.generator = self.environment.alleycat
        self.lane = self.generator.lane(self.operation)
        self.lane.users += 1

    def on_stop(self) -> None:
        self.lane.users -= 1

    @task
    def take_next(self) -> None:
        """One arrival. What it raises is a fault of ours and is counted, never swallowed."""
        if not self.is_able:
            raise StopUser
        arrival = self.lane.take()
        self.lane.in_flight += 1
        try:
            sent_at = time.time()
            self.generator.meter.sent(arrival.stage, self.operation, arrival.due_at, sent_at)
            self.send(arrival)
        finally:
            self.lane.in_flight -= 1

    def send(self, arrival: Arrival) -> None:
        """Do the request of ``arrival`` and report what became of each of its units."""
        raise NotImplementedError

    def report(self, arrival: Arrival, resource: str, done_at: float, **counts: Any) -> None:
        """Into the meter, and into Locust's table by resource and end."""
        self.generator.meter.answered(arrival.stage, self.operation, resource, arrival.due_at, done_at, **counts)
        response_ms = (done_at - arrival.due_at) * 1000
        name = f"{self.operation} {resource}".strip()
        log_many(
            self.environment,
            self.method,
            f"{name} accepted",
            counts.get("accepted", 0),
            response_ms,
            counts.get("size_bytes", 0),
        )
        for end in ("throttled", "failed"):
            log_failures(self.environment, self.method, f"{name} {end}", counts.get(end, 0), response_ms, end)

    def problem(self, resource: str, code: str, message: str, number: int, status: int = 200) -> None:
        """Remember a refusal in the service's words; one that no later call can escape ends the test."""
        self.generator.meter.problem(self.operation, resource, code, message, number, time.time())
        if status not in (0, 200) and meaning_of_call(status, code) in _FATAL:
            self.generator.fatal = self.generator.fatal or f"{code}: {message}"

    def pause(self, attempt: int) -> None:
        """Back off, with full jitter, before what was throttled is sent again."""
        gevent.sleep(THROTTLE.delay_s(attempt, _RNG))


class _AwsUser(OpenModelUser):
    abstract = True
    service = ""

    caller: Caller

    def on_start(self) -> None:
        super().on_start()
        try:
            self.caller = self.generator.caller(self.service)
        except TargetError as error:
            # A worker's machine may lack what the master's has: credentials, a region.
            self.generator.fatal = self.generator.fatal or str(error)
            self.is_able = False

    def on_stop(self) -> None:
        super().on_stop()
        if self.is_able:
            self.caller.close()

    def call(self, arrival: Arrival, operation: str, body: bytes, resource: str) -> Answer:
        """One signed request, told to Locust's listeners."""
        answer = self.caller.call(operation, body)
        response_ms = (time.time() - arrival.due_at) * 1000
        fire(
            self.environment, self.method, f"{operation} {resource}", response_ms, len(answer.body), answer.code or None
        )
        return answer


class GatewayUser(_AwsUser):
    """A gateway that gathers many bikers' messages into each PutRecords."""

    operation = "PutRecords"
    service = "kinesis"
    method = "Kinesis"

    def send(self, arrival: Arrival) -> None:
        messages = self.generator.messages.take(arrival.number)
        for attempt in range(1, self.generator.settings.retries + 2):
            last = attempt > self.generator.settings.retries
            ends = self._put(arrival, messages)
            done_at = time.time()
            for shard, end in ends.by_shard.items():
                self.report(
                    arrival,
                    shard,
                    done_at,
                    accepted=end.accepted,
                    throttled=end.throttled if last else 0,
                    retried=0 if last else end.throttled,
                    failed=end.failed,
                    size_bytes=end.size_bytes,
                )
            messages = ends.refused
            if last or not messages:
                return
            self.pause(attempt)

    def _put(self, arrival: Arrival, messages: list[Message]) -> kinesis_wire.Ends:
        stream = self.generator.resources.stream
        answer = self.call(arrival, self.operation, self.encoded(stream, messages), stream)
        code, message = answer.code, answer.message
        if not code:
            try:
                ends = self.ends(answer.body, messages)
            except ValueError as error:
                code, message = "AnswerUnreadable", str(error)
        if code:
            throttled = meaning_of_call(answer.status, code) is Meaning.THROTTLED if answer.status else False
            ends = kinesis_wire.refused_whole(code, message, messages, throttled)
        for (shard, told, words), number in ends.problems.items():
            self.problem(shard, told, words, number, answer.status)
        return ends

    def encoded(self, stream: str, messages: list[Message]) -> bytes:
        return kinesis_wire.encode(stream, messages)

    def ends(self, body: bytes, messages: list[Message]) -> kinesis_wire.Ends:
        return kinesis_wire.read(body, messages)


class PutRecordUser(GatewayUser):
    """A bike that sends each message by itself."""

    operation = "PutRecord"

    def encoded(self, stream: str, messages: list[Message]) -> bytes:
        return kinesis_wire.encode_one(stream, messages[0])

    def ends(self, body: bytes, messages: list[Message]) -> kinesis_wire.Ends:
        return kinesis_wire.read_one(body, messages[0])


class StreamReader(_AwsUser):
    """A consumer that polls the shards in turn, and knows how old what it reads is."""

    operation = "GetRecords"
    service = "kinesis"
    method = "Kinesis"

    def on_start(self) -> None:
        super().on_start()
        self._turns = self.generator.shared("reader turns", itertools.count)
        self._iterators: dict[str, str] = self.generator.shared("reader iterators", dict)

    def send(self, arrival: Arrival) -> None:
        shards = self.generator.resources.shards
        shard = shards[next(self._turns) % len(shards)].shard_id
        iterator = self._iterators.get(shard) or self._start(arrival, shard)
        if iterator is None:
            return
        request = b'{"ShardIterator":"%b","Limit":%d}' % (iterator.encode(), self.generator.read_limit)
        answer = self.call(arrival, self.operation, request, shard)
        done_at = time.time()
        if answer.code == "ExpiredIteratorException":
            self._iterators.pop(shard, None)
        if answer.code:
            self._refused(arrival, shard, answer, done_at)
            return
        try:
            told = kinesis_wire.read_page(answer.body)
        except ValueError as error:
            self._refused(arrival, shard, Answer(0, b"", "AnswerUnreadable", str(error)), done_at)
            return
        if self.generator.read_again:
            # The same records again: what is measured is how fast they may be read.
            self._iterators[shard] = iterator
        elif told.next_iterator:
            self._iterators[shard] = told.next_iterator
        self.report(arrival, shard, done_at, accepted=1, size_bytes=told.size_bytes)
        self.generator.iterator_age_ms = max(self.generator.iterator_age_ms or 0.0, told.behind_ms)

    def _start(self, arrival: Arrival, shard: str) -> str | None:
        answer, told = self.caller.ask(
            "GetShardIterator",
            {
                "StreamName": self.generator.resources.stream,
                "ShardId": shard,
                "ShardIteratorType": self.generator.read_from,
            },
        )
        if answer.code or told is None:
            self._refused(arrival, shard, answer, time.time())
            return None
        iterator: str = self._iterators.setdefault(shard, told["ShardIterator"])
        return iterator

    def _refused(self, arrival: Arrival, shard: str, answer: Answer, done_at: float) -> None:
        throttled = answer.status != 0 and meaning_of_call(answer.status, answer.code) is Meaning.THROTTLED
        self.problem(shard, answer.code, answer.message, 1, answer.status)
        self.report(arrival, shard, done_at, throttled=int(throttled), failed=int(not throttled))


class _TableUser(_AwsUser):
    abstract = True
    service = "dynamodb"
    method = "DynamoDB"

    def on_start(self) -> None:
        super().on_start()
        self.items: TableItems = self.generator.shared("table items", self._items)

    def _items(self) -> TableItems:
        table = self.generator.resources.table
        if table is None:
            raise RuntimeError(f"{type(self).__name__} needs a table")
        settings = self.generator.settings
        return TableItems(table, settings.item_racers, settings.seed, self.generator.index)

    def spent(self, arrival: Arrival, told: Mapping[str, Any], done_at: float, accepted: int, size: int) -> None:
        """Report ``accepted`` units of work with the capacity that table and indexes say they cost."""
        capacity = capacity_of(told)
        table = self.items.table.name
        self.report(arrival, table, done_at, accepted=accepted, size_bytes=size, units=capacity.pop(table, 0.0))
        for resource, units in capacity.items():
            self.generator.meter.answered(arrival.stage, self.operation, resource, arrival.due_at, done_at, units=units)

    def refused(self, arrival: Arrival, answer: Answer, number: int, done_at: float, last: bool) -> bool:
        """Report a call that failed as one; says whether it was throttled."""
        throttled = answer.status != 0 and meaning_of_call(answer.status, answer.code) is Meaning.THROTTLED
        resource = (
            refused_resource(answer.body, answer.message, self.items.table) if throttled else self.items.table.name
        )
        self.problem(resource, answer.code, answer.message, number, answer.status)
        self.report(
            arrival,
            resource,
            done_at,
            throttled=number if throttled and last else 0,
            retried=number if throttled and not last else 0,
            failed=0 if throttled else number,
        )
        return throttled


class ResultsWriter(_TableUser):
    """The tumbling window function's write: the results item of a race, overwritten window after window."""

    operation = "PutItem"

    def send(self, arrival: Arrival) -> None:
        body = self.items.results()
        for attempt in range(1, self.generator.settings.retries + 2):
            last = attempt > self.generator.settings.retries
            answer = self.call(arrival, self.operation, body, self.items.table.name)
            done_at = time.time()
            if not answer.code:
                self.spent(arrival, decoded(answer.body), done_at, 1, len(body))
                return
            if not self.refused(arrival, answer, 1, done_at, last) or last:
                return
            self.pause(attempt)


class FinishWriter(_TableUser):
    """The final results function's burst: one item a racer, 25 a BatchWriteItem."""

    operation = "BatchWriteItem"

    def send(self, arrival: Arrival) -> None:
        pending = self.items.finishes(arrival.number)
        table = self.items.table.name
        for attempt in range(1, self.generator.settings.retries + 2):
            last = attempt > self.generator.settings.retries
            body = self.items.batch(pending)
            answer = self.call(arrival, self.operation, body, table)
            done_at = time.time()
            if answer.code:
                if not self.refused(arrival, answer, len(pending), done_at, last):
                    return
            else:
                told = decoded(answer.body)
                left = told.get("UnprocessedItems", {}).get(table, [])
                self.spent(arrival, told, done_at, len(pending) - len(left), len(body))
                if left:
                    self.problem(table, "UnprocessedItems", "items that BatchWriteItem left unprocessed", len(left))
                    self.report(
                        arrival, table, done_at, throttled=len(left) if last else 0, retried=0 if last else len(left)
                    )
                pending = left
            if last or not pending:
                return
            self.pause(attempt)


class LeaderboardReader(_TableUser):
    """Screens that show a race's ten best (local index) and a class's ten best ever (global index)."""

    operation = "Query"

    def send(self, arrival: Arrival) -> None:
        settings = self.generator.settings
        index, body = self.items.query(settings.read, settings.consistent == "yes")
        resource = f"{self.items.table.name}/{index.name}" if index.kind == "GSI" else self.items.table.name
        for attempt in range(1, settings.retries + 2):
            last = attempt > settings.retries
            answer = self.call(arrival, self.operation, body, resource)
            done_at = time.time()
            if not answer.code:
                units = sum(capacity_of(decoded(answer.body)).values())
                self.report(arrival, resource, done_at, accepted=1, size_bytes=len(answer.body), units=units)
                return
            if not self.refused(arrival, answer, 1, done_at, last) or last:
                return
            self.pause(attempt)
