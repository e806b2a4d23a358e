"""How a race's messages get in: records of each second, and the producer that sends them."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import botocore.session
import numpy as np
import numpy.typing as npt

from producers import KinesisProducer, Record, TlsSettings
from simulator.fleet import Fleet
from simulator.race import Race
from simulator.target import Target, TargetError, reaching

if TYPE_CHECKING:
    from simulator.league import RaceSettings

PARTITION_KEYS = ("random", "racer", "race", "class", "timestamp")
KEY_TEMPLATES = {
    "random": "${newuuid()}",
    "racer": "${racerId}",
    "race": "${raceId}",
    "class": "${classId}",
    "timestamp": "${timestamp()}",
}
"""What each of :data:`PARTITION_KEYS` is in a rule's Kinesis action."""
KEY_PARAMETER = "PartitionKeyTemplate"
"""The template's parameter that takes one of :data:`KEY_TEMPLATES`."""

KeyOf = Callable[[int, int], str]


def partition_key_of(kind: str, race: Race) -> KeyOf:
    """A function of (biker's index, due ms) that gives the partition key. One of :data:`PARTITION_KEYS`."""
    racers = [str(racer) for racer in race.racer_ids.tolist()]
    if kind == "racer":
        return lambda index, due_ms: racers[index]
    if kind == "race":
        return lambda index, due_ms: str(race.race_id)
    if kind == "class":
        return lambda index, due_ms: str(race.class_id)
    if kind == "timestamp":
        return lambda index, due_ms: str(due_ms)
    draw = random.Random(uuid.uuid4().int)
    return lambda index, due_ms: f"{draw.getrandbits(64):016x}"


def records_of(race: Race, second: int, key: KeyOf, sends: npt.NDArray[np.bool_]) -> list[Record]:
    """One second's messages in due order. Each biker's stay in order whatever the partition key.

    :param sends: which bikers send in that second, shape (racers,).
    """
    messages = race.messages(second)
    due_ms = race.due_ms(second).tolist()
    racers = race.racer_ids.tolist()
    order = race.send_order
    return [
        Record(messages[index], key(index, due_ms[index]), due_ms[index] / 1000, racers[index])
        for index in (order if sends.all() else order[sends[order]]).tolist()
    ]


def open_producer(settings: RaceSettings, stream: str, target: Target, racer_ids: Sequence[int], spool: Path) -> Any:
    """The producer for ``settings.via``, not entered yet.

    :raises TargetError: when there is no broker to connect to.
    """
    if settings.via == "kinesis":
        session = botocore.session.Session()
        if target.keys:
            session.set_credentials(*target.keys.values())
        return KinesisProducer(
            stream=stream,
            region=target.region,
            endpoint_url=target.endpoint_url,
            session=session,
            deadline_s=settings.deadline_s,
            spool=spool,
        )
    return open_bikes(settings, target, racer_ids, spool)


def open_bikes(settings: RaceSettings, target: Target, racer_ids: Sequence[int], spool: Path) -> Any:
    """One MQTT connection for each racer id. :raises TargetError:"""
    arguments: dict[str, Any] = {
        "url": broker_url(settings, target),
        "topic": settings.topic,
        "qos": settings.qos,
        "connect_rate_per_s": settings.connect_rate,
        "deadline_s": settings.deadline_s,
    }
    return Fleet(
        processes=settings.processes,
        client=settings.client,
        devices=list(racer_ids),
        spool=spool,
        tls=settings.tls,
        arguments=arguments,
    )


def broker_options(url: str | None, tls: TlsSettings | None) -> dict[str, str | None] | None:
    """What the embedded cloud needs to know of another broker."""
    if url is None:
        return None
    files = tls or TlsSettings()
    ca, certificate, key = (
        None if one is None else str(one) for one in (files.ca_file, files.cert_file, files.key_file)
    )
    return {"url": url, "ca": ca, "certificate": certificate, "key": key}


def broker_url(settings: RaceSettings, target: Target) -> str:
    """Where bikes connect: what was asked for, else the target's own broker. :raises TargetError:"""
    if settings.broker is not None:
        return settings.broker
    if target.kind == "aws":
        return iot_endpoint(target, settings)
    if target.mqtt_url is None:
        raise TargetError("the target has no MQTT broker; name one with --broker mqtts://HOST:8883")
    return target.mqtt_url


def iot_endpoint(target: Target, settings: RaceSettings) -> str:
    """The account's own endpoint: with a certificate on 8883, without one by a signed WebSocket.

    :raises TargetError: when it cannot be asked for, or the client cannot sign.
    """
    with reaching(target, "asking for IoT Core's endpoint"):
        host = target.client("iot").describe_endpoint(endpointType="iot:Data-ATS")["endpointAddress"]
    if settings.tls is not None and settings.tls.cert_file is not None:
        return f"mqtts://{host}:8883"
    if settings.client != "awsiotsdk":
        raise TargetError(
            "aiomqtt needs a device certificate for IoT Core: give --cert and --key, or sign with your AWS credentials "
            "by --client awsiotsdk"
        )
    return f"wss://{host}/mqtt"
