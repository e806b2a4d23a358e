"""Where every message of a run ended, and what the table must therefore hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from producers import Ledger
from simulator.arrivals import (
    UNACCOUNTED,
    Counts,
    Key,
    Known,
    lost_masks,
    read_errors,
    read_given_up,
    read_stream,
    settle,
)
from simulator.deployment import Deployment
from simulator.expectation import Mask, expectation
from simulator.race import Race
from simulator.target import Target
from simulator.utilisation import MetricsView
from simulator.verdict import Check, Expectation


@dataclass(frozen=True, slots=True)
class Account:
    """``arrived``: which messages are certainly stored; ``foreign_records``: what else was on the stream."""

    ledger: Ledger
    arrived: Mapping[Key, Mask]
    expectations: Sequence[Expectation]
    foreign_records: int = 0

    def check(self, generated: int) -> Check:
        """Of ``generated`` messages, each is delivered or lost with a reason."""
        ledger = self.ledger
        accounted = ledger.delivered + ledger.lost - ledger.lost_by_reason.get(UNACCOUNTED, 0)
        off = abs(generated - accounted) + abs(generated - ledger.generated)
        return Check("ledger", generated, min(accounted, generated), max(generated - accounted, 0), off)


def of_kinesis(races: Sequence[Race], sent: Mapping[int, Mask], spool: Path, ledger: Ledger) -> Account:
    """A Kinesis producer knows what was stored, but for lost messages whose last attempt got no answer.

    :param sent: by ``id(race)``, which messages were handed to the producer.
    """
    lost = lost_masks(read_given_up(spool, races), races)
    stored = {id(race): sent[id(race)] & ~lost[id(race)] for race in races}
    return Account(
        ledger,
        {(race.race_id, race.class_id): stored[id(race)] for race in races},
        [expectation(race, stored[id(race)], sent[id(race)] & lost[id(race)]) for race in races],
    )


def of_mqtt(
    races: Sequence[Race],
    sent: Mapping[int, Mask],
    spool: Path,
    ledger: Ledger,
    target: Target,
    deployment: Deployment,
    metrics: Mapping[str, Any],
    *,
    qos: int,
) -> Account:
    """What went through IoT Core is looked for on the stream and in the rule's error action.

    :param ledger: the bikes'.
    :param metrics: the cloud's, of the race; empty where they are not ours.
    :raises TargetError: when the stream or a bucket cannot be read.
    """
    arrivals, failed = Counts(races), Counts(races)
    stream = deployment.streams[0]
    read_stream(target, [stream.arn], min(race.start_ms for race in races) / 1000, arrivals.add)
    read_errors(target, deployment, failed.add)
    view = MetricsView(metrics)
    discarded = int(view.total("AWS/IoT", "PublishIn.Throttle", Protocol="MQTT"))
    known = Known(failed, read_given_up(spool, races), discarded)
    by_key = {(race.race_id, race.class_id): sent[id(race)] for race in races}
    settled = settle(by_key, arrivals, known, ledger, acknowledged=qos == 1)
    # What a shard refused to the rule is the rule's to try again; bikes never hear of it.
    refused = view.total("AWS/Kinesis", "WriteProvisionedThroughputExceeded", StreamName=stream.name)
    settled.ledger.throttled += int(refused)
    expectations = [expectation(race, settled.arrived[race.race_id, race.class_id]) for race in races]
    return Account(settled.ledger, settled.arrived, expectations, settled.others)
