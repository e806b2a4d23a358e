"""The scenarios of ``make fidelity``: each limit, under, at and over it.

Shards are slowed down to a fifth (``shard_rate_factor``), so that a small machine meets their limits without effort;
what decides is the same bucket. A shard's bytes have no scenario: a message of telemetry has some 200 of them, so the
records' limit is five times nearer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SLOW = ("shard_rate_factor=0.2",)
AMPLE = {"WriteCapacityUnits": 1000, "IndexWriteCapacityUnits": 1000, "ReadCapacityUnits": 1000}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One race, for the planner and for the embedded cloud. ``sizes`` are template parameters over those of
    ``config_env``, ``limits`` are of ``--limit``. ``first`` is the limit that must break first, empty for none, None
    where what the plans say is not known beforehand. How fast functions are decides what comes of those that are
    ``is_timed``; ``is_short`` ones run in the tests, ``is_long`` ones only when they are asked for."""

    name: str
    about: str
    racers: int
    seconds: int = 12
    races: int = 1
    classes: tuple[int, ...] = (1,)
    via: str = "kinesis"
    partition_key: str = "racer"
    config_env: str = "default"
    sizes: Mapping[str, object] = field(default_factory=dict)
    limits: tuple[str, ...] = ()
    first: str | None = ""
    is_timed: bool = False
    is_short: bool = False
    is_long: bool = False


RECORDS = "kinesis.shard.write.records_per_second"
TABLE, INDEX = "dynamodb.table.write.units_per_second", "dynamodb.index.write.units_per_second"
TABLE_READ, PARTITION = "dynamodb.table.read.units_per_second", "dynamodb.partition.write.units_per_second"

CASES = (
    Case(
        name="shard-under",
        about="180 of 200 records a second on one shard",
        racers=180,
        sizes={"ShardCount": 1, **AMPLE},
        limits=SLOW,
    ),
    Case(
        name="shard-at",
        about="200 of 200 records a second on one shard",
        racers=200,
        sizes={"ShardCount": 1, **AMPLE},
        limits=SLOW,
    ),
    Case(
        name="shard-over",
        about="260 of 200 records a second, sent again until accepted",
        racers=260,
        sizes={"ShardCount": 1, **AMPLE},
        limits=SLOW,
        first=RECORDS,
    ),
    Case(
        name="shards-over",
        about="480 of 400 records a second on two shards",
        racers=480,
        sizes={"ShardCount": 2, **AMPLE},
        limits=SLOW,
        first=RECORDS,
    ),
    Case(
        name="hot-key",
        about="a class a key: of four shards, two have all records, one of them too many",
        racers=230,
        classes=(1, 2),
        partition_key="class",
        sizes={"ShardCount": 4, **AMPLE},
        limits=SLOW,
        first=RECORDS,
    ),
    Case(
        name="mqtt-under",
        about="180 of 200 messages a second by MQTT, a PutRecord each",
        racers=180,
        via="mqtt",
        sizes={"ShardCount": 1, **AMPLE},
        limits=SLOW,
    ),
    Case(
        name="mqtt-over",
        about="260 of 200 by MQTT: three attempts, then the error action",
        racers=260,
        via="mqtt",
        sizes={"ShardCount": 1, **AMPLE},
        limits=SLOW,
        first=RECORDS,
        is_short=True,
    ),
    Case(
        name="no-window",
        about="results after every batch, two classes, two races, capacity to spare",
        racers=120,
        seconds=8,
        races=2,
        classes=(1, 2),
        sizes={"TumblingWindowInSeconds": 0, **AMPLE},
        is_short=True,
    ),
    Case(
        name="table-under",
        about="merges of up to 16 WCU a second on a table of 200",
        racers=100,
        sizes={"ShardCount": 4, "TumblingWindowInSeconds": 0, **AMPLE, "WriteCapacityUnits": 200},
    ),
    Case(
        name="table-over",
        about="merges of up to 16 WCU a second on a table of 12",
        racers=100,
        sizes={"ShardCount": 4, "TumblingWindowInSeconds": 0, **AMPLE, "WriteCapacityUnits": 12},
        first=TABLE,
    ),
    Case(
        name="finish-at",
        about="a finish of 100, 400 WCU, on a table of 36 that has saved about as many",
        racers=100,
        seconds=8,
        sizes={**AMPLE, "WriteCapacityUnits": 36},
        first=None,
    ),
    Case(
        name="finish-over",
        about="a finish of 150, 600 WCU, on a table of 40 that has saved half of them",
        racers=150,
        seconds=6,
        sizes={**AMPLE, "WriteCapacityUnits": 40},
        first=TABLE,
        is_short=True,
    ),
    Case(
        name="index-over",
        about="merges of up to 8 WCU a second on an index of 6",
        racers=100,
        sizes={"ShardCount": 4, "TumblingWindowInSeconds": 0, **AMPLE, "IndexWriteCapacityUnits": 6},
        first=INDEX,
    ),
    Case(
        name="reads-over",
        about="a look at an item of 14 KB after every batch, on a table of 2 RCU",
        racers=1000,
        sizes={"TumblingWindowInSeconds": 0, **AMPLE, "ReadCapacityUnits": 2},
        first=TABLE_READ,
    ),
    Case(
        name="partition-over",
        about="a finish of 1,000: 4,000 WCU that are saved, of which the one partition gives 1,000 a second",
        racers=1000,
        seconds=8,
        sizes={"ShardCount": 4, "WriteCapacityUnits": 900, "IndexWriteCapacityUnits": 500},
        first=PARTITION,
        is_timed=True,
    ),
    Case(
        name="killed",
        about="no window, a table of 15 and a timeout of 2 s: functions killed, results half a minute late",
        racers=150,
        seconds=8,
        config_env="as-published",
        sizes={"FunctionTimeout": 2, "WriteCapacityUnits": 15, "IndexWriteCapacityUnits": 20},
        first=TABLE,
    ),
    Case(
        name="as-published",
        about="1,000 bikers on the published sizes: functions killed, results minutes late",
        racers=1000,
        config_env="as-published",
        first=TABLE,
        is_long=True,
    ),
)
