"""What became of every message that went through IoT Core: read back from the stream and from the error action.

A Kinesis producer knows by the answer what was stored. A bike does not: at QoS 0 nothing is answered at all, and a
PUBACK says that IoT Core has the message, not that the rule could put it on the stream. So after a race by MQTT the
stream is read through its public API, and every message that was generated is found there, or in the destination of
the rule's error action, or was given up by its bike, or is unaccounted for, which fails the race.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from consumers.runtime import kinesis_client
from producers import Ledger, read_spool
from simulator.deployment import Deployment
from simulator.race import Race
from simulator.target import Target, reaching

RULE_FAILED = "rule action failed"
DISCARDED = "discarded by IoT Core"
QOS0 = "QoS 0, lost on the way"
UNACCOUNTED = "unaccounted for"
EARLY_S = 5.0
"""How long before the first message the stream is read from: clocks differ."""
_THROTTLED_PAUSE_S = 0.25

Key = tuple[int, int]
"""Race id and class id."""
Mask = npt.NDArray[np.bool_]


class _Message(msgspec.Struct):
    raceId: int  # noqa: N815 - the wire's name
    classId: int  # noqa: N815
    racerId: int  # noqa: N815
    second: int


class _ErrorPayload(msgspec.Struct):
    base64OriginalPayload: str  # noqa: N815


_decode = msgspec.json.Decoder(_Message).decode
_decode_error = msgspec.json.Decoder(_ErrorPayload).decode


class Counts:
    """How often each message of some races was found, by race and class: shape (seconds, racers)."""

    def __init__(self, races: Iterable[Race]) -> None:
        self._races = {(race.race_id, race.class_id): race for race in races}
        self.by_key = {
            key: np.zeros((race.seconds, len(race.racer_ids)), np.int32) for key, race in self._races.items()
        }
        self.others = 0
        """Records that are no message of these races."""

    def add(self, data: bytes) -> None:
        """One record found."""
        try:
            message = _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self.others += 1
            return
        race = self._races.get((message.raceId, message.classId))
        index = message.racerId - int(race.racer_ids[0]) if race is not None else -1
        if race is None or not 0 <= index < len(race.racer_ids) or not 1 <= message.second <= race.seconds:
            self.others += 1
            return
        self.by_key[message.raceId, message.classId][message.second - 1, index] += 1


@dataclass(slots=True)
class Settled:
    """The end of every message: the ledger, which arrived, and how many nothing explains."""

    ledger: Ledger
    arrived: dict[Key, Mask]
    unaccounted: int = 0
    others: int = 0


@dataclass(slots=True)
class Known:
    """What is known beside the stream: error payloads, what bikes gave up, what IoT Core says it discarded."""

    failed: Counts
    given_up: dict[str, Counts] = field(default_factory=dict)
    discarded: int = 0


def read_stream(target: Target, stream_arns: Iterable[str], since_s: float, take: Callable[[bytes], None]) -> None:
    """Give the data of every record that arrived since ``since_s`` to ``take``, all shards, closed ones too.

    :raises TargetError: when the stream cannot be read.
    """
    client = kinesis_client(region_name=target.region, endpoint_url=target.endpoint_url, **target.keys)
    try:
        with reaching(target, "reading the stream back"):
            for arn in stream_arns:
                for shard_id in _shard_ids(client, arn):
                    for data in _records(client, arn, shard_id, since_s - EARLY_S):
                        take(data)
    finally:
        client.close()


def _shard_ids(client: Any, arn: str) -> Iterator[str]:
    request: dict[str, Any] = {"StreamARN": arn}
    while True:
        page = client.list_shards(**request)
        yield from (shard["ShardId"] for shard in page["Shards"])
        if not page.get("NextToken"):
            return
        request = {"NextToken": page["NextToken"]}


def _records(client: Any, arn: str, shard_id: str, since_s: float) -> Iterator[bytes]:
    iterator = _patiently(
        client,
        lambda: client.get_shard_iterator(
            StreamARN=arn, ShardId=shard_id, ShardIteratorType="AT_TIMESTAMP", Timestamp=since_s
        ),
    )["ShardIterator"]
    while iterator:
        asked = iterator
        answer = _patiently(client, lambda asked=asked: client.get_records(ShardIterator=asked))
        yield from (base64.b64decode(record["Data"]) for record in answer["Records"])
        if not answer["Records"] and not answer["MillisBehindLatest"]:
            return
        iterator = answer.get("NextShardIterator")


def _patiently(client: Any, call: Callable[..., Any]) -> Any:
    """Other readers share the shard's five calls and 2 MiB a second."""
    while True:
        try:
            return call()
        except client.exceptions.ProvisionedThroughputExceededException:
            time.sleep(_THROTTLED_PAUSE_S)


def read_errors(target: Target, deployment: Deployment, take: Callable[[bytes], None]) -> None:
    """Give the original payload of everything that error actions wrote to S3 to ``take``.

    :raises TargetError: when a bucket cannot be read.
    """
    client = target.client("s3", max_pool_connections=4)
    with reaching(target, "reading what the rule could not deliver"):
        for bucket in sorted(error_buckets(deployment)):
            for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
                for item in page.get("Contents", ()):
                    body = client.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
                    try:
                        take(base64.b64decode(_decode_error(body).base64OriginalPayload))
                    except (msgspec.DecodeError, ValueError):
                        take(b"")


def error_buckets(deployment: Deployment) -> set[str]:
    """Buckets that the template's error actions write to."""
    actions = (rule.payload.get("errorAction") or {} for rule in deployment.topic_rules)
    return {action["s3"]["bucketName"] for action in actions if "s3" in action}


def read_given_up(spool: Path, races: Sequence[Race]) -> dict[str, Counts]:
    """What bikes gave up, by reason."""
    found: dict[str, Counts] = {}
    if spool.exists():
        reader = read_spool(spool)
        for record in reader:
            found.setdefault(reader.reason, Counts(races)).add(record.data)
    return found


def lost_masks(given_up: Mapping[str, Counts], races: Sequence[Race]) -> dict[int, Mask]:
    """Which messages were given up for whatever reason, by ``id(race)``."""
    found = {}
    for race in races:
        lost = np.zeros((race.seconds, len(race.racer_ids)), dtype=bool)
        for counts in given_up.values():
            lost |= counts.by_key[race.race_id, race.class_id] > 0
        found[id(race)] = lost
    return found


def settle(
    sent: Mapping[Key, Mask], arrivals: Counts, known: Known, from_bikes: Ledger, *, acknowledged: bool
) -> Settled:
    """Where every message ended.

    :param sent: which messages were handed to the producer.
    :param acknowledged: whether bikes wait for a PUBACK (QoS 1), so that what nothing explains is an error.
    """
    ledger = Ledger(throttled=from_bikes.throttled, retried=from_bikes.retried)
    settled = Settled(ledger, {}, others=arrivals.others)
    for key, was_sent in sent.items():
        counts = arrivals.by_key[key]
        arrived = counts > 0
        settled.arrived[key] = arrived
        ledger.generated += int(was_sent.sum())
        ledger.delivered += int((arrived & was_sent).sum())
        ledger.duplicates += int(np.maximum(counts - 1, 0).sum())
        missing = was_sent & ~arrived
        for reason, where in ((RULE_FAILED, known.failed), *known.given_up.items()):
            explained = missing & (where.by_key[key] > 0)
            ledger.count_lost(int(explained.sum()), reason)
            missing &= ~explained
        left = int(missing.sum())
        if acknowledged:
            settled.unaccounted += left
            ledger.count_lost(left, UNACCOUNTED)
        else:
            discarded = min(left, known.discarded)
            known.discarded -= discarded
            ledger.count_lost(discarded, DISCARDED)
            ledger.count_lost(left - discarded, QOS0)
    return settled
