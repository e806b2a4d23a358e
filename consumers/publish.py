"""Lambda function: results as they change, from the table's stream to the topic that screens subscribe to.

A message is ``{"msg": "results", "classId": 1, "raceId": 5403307, "ts": 1620240672076, "results": {"101": 153.2}}``.
``ts`` grows with every change of a race's results, and results only ever grow: a screen that has seen a later ``ts``
drops what comes with an earlier one, which a batch that is tried again may bring.

IoT Core takes payloads of up to 128 KB. At some 14 bytes for a biker that is reached with 9,500 bikers in one class of
one race. Beyond, the results go out in parts that each stand alone: ``{..., "part": 1, "parts": 3, "results": {...}}``,
every racer in exactly one of them; a screen merges the parts of one ``ts``, or just all that it gets, since a racer's
best never falls. (The item itself can have 400 KB, which is 28,000 bikers; DynamoDB refuses more.)

Of several changes to one race and class in a batch, only the last is published: it holds the others.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from consumers.rejected import log
from consumers.store import LambdaContext, Results, StoreError, decimal_text, results_of

PAYLOAD_MAX_BYTES = 128 * 1024
"""AWS IoT Core, message broker limits: "Maximum publish payload size 128 KB"."""
DEFAULT_TOPIC = "alleycat-subscribe"


@dataclass(slots=True)
class _Change:
    """The latest results of a race and class in a batch, and the first record that told of them."""

    results: Results
    sequence_number: str
    place: int


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer ``{"batchItemFailures": [...]}`` with the first record whose results could not be published.

    Lambda goes on from that record, so what was published after it is published once more.
    """
    changes, order = _changes(event.get("Records") or [])
    failed: list[_Change] = []
    for change in changes.values():
        try:
            for payload in messages(change.results):
                _client().publish(topic=os.environ.get("RESULTS_TOPIC", DEFAULT_TOPIC), qos=1, payload=payload)
        except (ClientError, BotoCoreError) as error:
            log("publish failed", raceId=change.results.race_id, classId=change.results.class_id, error=str(error))
            failed.append(change)
    if not failed:
        return {"batchItemFailures": []}
    first = min(failed, key=lambda one: one.place)
    return {"batchItemFailures": [{"itemIdentifier": order[first.place]}]}


def _changes(records: list[Mapping[str, Any]]) -> tuple[dict[tuple[int, int], _Change], list[str]]:
    """The newest results by race and class, and every record's sequence number."""
    changes: dict[tuple[int, int], _Change] = {}
    order: list[str] = []
    for place, record in enumerate(records):
        change = record.get("dynamodb") or {}
        number = str(change.get("SequenceNumber", ""))
        order.append(number)
        image = change.get("NewImage")
        if image is None:
            continue
        try:
            results = results_of(image)
        except StoreError as error:
            log("not a results item", sequenceNumber=number, error=str(error))
            continue
        if results is None:
            continue
        key = (results.race_id, results.class_id)
        known = changes.get(key)
        if known is None:
            changes[key] = _Change(results, number, place)
        elif results.ts_ms >= known.results.ts_ms:
            known.results = results
    return changes, order


def messages(results: Results, max_bytes: int = PAYLOAD_MAX_BYTES) -> Iterator[bytes]:
    """The message of ``results``, or its parts when it has more than ``max_bytes``."""
    head = f'{{"msg":"results","classId":{results.class_id},"raceId":{results.race_id},"ts":{results.ts_ms},'.encode()
    entries = [f'"{racer}":{decimal_text(output)}'.encode() for racer, output in sorted(results.best.items())]
    whole = head + b'"results":{' + b",".join(entries) + b"}}"
    if len(whole) <= max_bytes:
        yield whole
        return
    # As long as the numbers of parts have few digits, this is what stands around the entries of one.
    room = max_bytes - len(head) - len(b'"part":0000,"parts":0000,"results":{}}')
    groups: list[list[bytes]] = [[]]
    used = 0
    for entry in entries:
        if groups[-1] and used + len(entry) + 1 > room:
            groups.append([])
            used = 0
        groups[-1].append(entry)
        used += len(entry) + 1
    for number, group in enumerate(groups, 1):
        told = f'"part":{number},"parts":{len(groups)},'.encode()
        yield head + told + b'"results":{' + b",".join(group) + b"}}"


@cache
def _client() -> Any:
    """One a process. On AWS, an account's endpoint is asked for once; ``IOT_DATA_ENDPOINT`` spares the question."""
    config = Config(retries={"mode": "standard", "total_max_attempts": 4}, connect_timeout=2, read_timeout=5)
    endpoint = os.environ.get("IOT_DATA_ENDPOINT")
    if endpoint is None and not any(os.environ.get(f"AWS_ENDPOINT_URL{one}") for one in ("", "_IOT_DATA_PLANE")):
        endpoint = boto3.client("iot", config=config).describe_endpoint(endpointType="iot:Data-ATS")["endpointAddress"]
    url = f"https://{endpoint}" if endpoint and "://" not in endpoint else endpoint
    return boto3.client("iot-data", config=config, endpoint_url=url)
