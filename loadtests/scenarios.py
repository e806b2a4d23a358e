"""The named scenarios: what each sends, to what, over which load, and which limit it is after."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from loadtests import shapes
from loadtests.pacing import batch_for
from loadtests.resources import Resources
from loadtests.settings import LoadSettings
from simulator.cloud import limits
from simulator.flags import UsageError

MESSAGE_BYTES = 180.0
"""About what a message of telemetry and its key measure; only for where to start looking."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """One kind of user's part of the load.

    :param user: class name in :mod:`loadtests.users` or :mod:`loadtests.mqtt_users`.
    :param share: units for each unit of the scenario's rate.
    :param fixed: units a second as long as there is any load, in place of a share.
    :param during: purposes of steps in which it runs; empty for all.
    :param most: units a request, at most.
    :param per_shard: ``fixed`` is for each shard.
    """

    user: str
    operation: str
    share: float = 1.0
    fixed: float | None = None
    during: tuple[str, ...] = ()
    most: int = 1
    per_shard: bool = False

    def rate(self, step: shapes.Step, rate: float, resources: Resources) -> float:
        """Units a second of this kind when the scenario's rate is ``rate``."""
        if rate <= 0 or (self.during and step.purpose not in self.during):
            return 0.0
        if self.fixed is not None:
            return self.fixed * (len(resources.shards) if self.per_shard else 1)
        return rate * self.share


@dataclass(frozen=True, slots=True)
class Scenario:
    """One named load test.

    :param expected: the rate, in ``unit`` a second, at which these resources should give out; where a search starts
        is a fraction of it, and where it gives up a multiple. It decides nothing else.
    :param parameters: of the template, where they differ from the environment's, so that the limit that the scenario
        is after is the one it meets.
    """

    name: str
    about: str
    unit: str
    traffic: tuple[Traffic, ...]
    expected: Callable[[LoadSettings, Resources], float]
    shape: str = "search"
    stream: bool = False
    table: bool = False
    broker: bool = False
    parameters: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, object] = field(default_factory=dict)
    connections: int = 32
    extra: Mapping[str, str] = field(default_factory=dict)
    """Of readers: ``read_from``, ``read_again``, ``read_limit``; ``fill`` puts something there to read."""

    @property
    def main(self) -> Traffic:
        """The traffic whose throttles and latencies are judged: that of the scenario's unit."""
        return self.traffic[0]

    def settings(self, given: LoadSettings) -> LoadSettings:
        """``given`` with this scenario's defaults where nothing was said."""
        plain = LoadSettings()
        changed = {name: value for name, value in self.defaults.items() if getattr(given, name) == getattr(plain, name)}
        settings = replace(given, **changed)  # type: ignore[arg-type]
        if settings.shape is None:
            settings = replace(settings, shape=self.shape)
        if settings.connections is None:
            settings = replace(settings, connections=self.connections)
        return settings

    def plan(self, settings: LoadSettings, resources: Resources) -> shapes.Plan:
        """The load over time.

        :raises UsageError: when the settings make no load.
        """
        expected = self.expected(settings, resources)
        peak, first = settings.rate, settings.start_rate
        stage_s = settings.stage_time or 4.0
        rest_s = settings.rest_time or 0.0
        try:
            match settings.shape:
                case "search":
                    start = first or min(expected * 0.3, peak or expected)
                    if peak is not None and start > peak:
                        raise UsageError(f"--start-rate {start:,.6g} is above --rate {peak:,.6g}, where a search ends")
                    how = shapes.SearchSettings(
                        start=start,
                        ceiling=peak or expected * 8,
                        stage_s=stage_s,
                        rest_s=rest_s,
                        hold_s=8.0 if settings.hold_time is None else settings.hold_time,
                        drain_s=max(30.0, 3 * rest_s),
                        precision=settings.precision,
                    )
                    return shapes.search(how)
                case "steps":
                    rates = shapes.rates_between(first or expected * 0.5, peak or expected * 1.5, settings.steps)
                    return shapes.steps(rates, stage_s)
                case "ramp":
                    return shapes.ramp(first or expected * 0.1, peak or expected * 1.5, settings.length or 60.0)
                case "spike":
                    return shapes.spike(first or expected * 0.5, peak or expected * 3, settings.length or 5.0, 10.0)
                case "soak":
                    return shapes.soak(peak or expected * 0.8, settings.length or 1800.0)
                case "race-day":
                    join_s = 30.0 if settings.rest_time is None else settings.rest_time
                    return shapes.race_day(peak or 1000.0, settings.races or 2, join_s, settings.length or 300.0)
                case _:
                    return shapes.burst(peak or expected, rest_s, settings.length or 10.0)
        except ValueError as error:
            raise UsageError(f"--rate, --start-rate: {error}") from None

    def batch(self, traffic: Traffic, settings: LoadSettings, rate: float) -> int:
        """Units a request of ``traffic`` at ``rate`` units a second of one process."""
        if traffic.most > 1 and settings.batch:
            return min(settings.batch, traffic.most)
        return batch_for(rate, traffic.most, calls_per_second=50.0)


def _records(settings: LoadSettings, resources: Resources) -> float:
    """Records a second before a shard's records or its bytes give out."""
    size = max(float(settings.record_bytes), MESSAGE_BYTES)
    a_shard = min(limits.SHARD_WRITE_RECORDS.value, limits.SHARD_WRITE_BYTES.value / size)
    return a_shard * max(len(resources.shards), 1)


def _reads(settings: LoadSettings, resources: Resources) -> float:
    return limits.SHARD_READ_CALLS.value * max(len(resources.shards), 1)


def _page_reads(settings: LoadSettings, resources: Resources) -> float:
    """2 MiB/s in pages of about 700 KB."""
    return 3.0 * max(len(resources.shards), 1)


def _results_writes(settings: LoadSettings, resources: Resources) -> float:
    """Writes of a results item a second: 1 WCU a KiB on the table, as much on its local index, and on the global."""
    table = resources.table
    units = max(1.0, round((settings.item_racers * 14 + 100) / 1024 + 0.5))
    if table is None:
        return 25.0
    rates = [table.wcu / (2 * units)] if table.wcu else []
    rates += [index.wcu / units for index in table.indexes if index.kind == "GSI" and index.wcu]
    return min(rates, default=500.0)


def _queries(settings: LoadSettings, resources: Resources) -> float:
    """An eventual query of ten small items costs 0.5 RCU."""
    table = resources.table
    return max(table.rcu, 1.0) if table is not None and table.rcu else 20.0


def _bikers(settings: LoadSettings, resources: Resources) -> float:
    return settings.rate or 1000.0


def _finishers(settings: LoadSettings, resources: Resources) -> float:
    return settings.rate or 1000.0


def _publishes(settings: LoadSettings, resources: Resources) -> float:
    return limits.IOT_CONNECTION_PUBLISHES.value * (settings.connections or 1)


def _account_publishes(settings: LoadSettings, resources: Resources) -> float:
    quota = limits.IOT_SMALL_PUBLISH_IN if resources.small_region else limits.IOT_PUBLISH_IN
    return quota.value


_GATEWAY = Traffic("GatewayUser", "PutRecords", most=500)
_READER = Traffic("StreamReader", "GetRecords")
_FOLLOWER = Traffic("StreamReader", "GetRecords", fixed=2.0, per_shard=True)
_RACE = (
    _GATEWAY,
    # One results item each window of 5 s, one screen in ten asking every 5 s, and the last second's finishes.
    Traffic("ResultsWriter", "PutItem", fixed=0.2),
    Traffic("LeaderboardReader", "Query", fixed=2.0),
    Traffic("FinishWriter", "BatchWriteItem", during=("burst",), most=25),
    _FOLLOWER,
)

SCENARIOS: Mapping[str, Scenario] = {
    one.name: one
    for one in (
        Scenario(
            "shard-limit",
            "how many records a second the shards take: 1,000 each",
            "records",
            (_GATEWAY,),
            _records,
            stream=True,
            parameters={"ShardCount": "1"},
            defaults={"key": "even"},
        ),
        Scenario(
            "shard-bytes",
            "how many bytes a second the shards take: 1 MiB each, with records of about 10 KB",
            "records",
            (_GATEWAY,),
            _records,
            stream=True,
            parameters={"ShardCount": "1"},
            defaults={"key": "even", "record_bytes": 10_000},
        ),
        Scenario(
            "hot-shard",
            "how much of the stream a skewed key leaves: a few loud riders fill one shard (--key zipf:S)",
            "records",
            (_GATEWAY,),
            _records,
            stream=True,
            parameters={"ShardCount": "4"},
            defaults={"key": "zipf:1.1"},
        ),
        Scenario(
            "read-limit",
            "how often a shard may be read: 5 GetRecords a second",
            "reads",
            (_READER,),
            _reads,
            stream=True,
            parameters={"ShardCount": "1"},
            defaults={"stage_time": 6.0, "hold_time": 12.0, "precision": 0.04},
            connections=8,
        ),
        Scenario(
            "read-bytes",
            "how many bytes a second may be read from a shard: 2 MiB",
            "reads",
            (_READER,),
            _page_reads,
            stream=True,
            parameters={"ShardCount": "1"},
            defaults={"stage_time": 6.0, "hold_time": 12.0, "precision": 0.04},
            connections=8,
            extra={"fill": "yes", "read_from": "TRIM_HORIZON", "read_again": "yes", "read_limit": "70"},
        ),
        Scenario(
            "wcu-limit",
            "how many results items a second the table's write capacity takes, after its burst is spent",
            "writes",
            (Traffic("ResultsWriter", "PutItem"),),
            _results_writes,
            table=True,
            parameters={"WriteCapacityUnits": "100", "IndexWriteCapacityUnits": "400"},
            defaults={"rest_time": 10.0},
        ),
        Scenario(
            "gsi-limit",
            "how a global index with too little write capacity throttles its table",
            "writes",
            (Traffic("ResultsWriter", "PutItem"),),
            _results_writes,
            table=True,
            parameters={"WriteCapacityUnits": "400", "IndexWriteCapacityUnits": "25"},
            defaults={"rest_time": 5.0},
        ),
        Scenario(
            "finish-burst",
            "what becomes of 1,000 finishes (--rate) that are written within a second",
            "items",
            (Traffic("FinishWriter", "BatchWriteItem", most=25),),
            _finishers,
            shape="burst",
            table=True,
            defaults={"rest_time": 10.0},
        ),
        Scenario(
            "leaderboard-reads",
            "how many leaderboards a second the read capacity serves, from the local and the global index",
            "queries",
            (Traffic("LeaderboardReader", "Query"),),
            _queries,
            table=True,
            defaults={"rest_time": 5.0},
        ),
        Scenario(
            "iot-connection-limit",
            "how many messages a second one MQTT connection may publish: 100",
            "messages",
            (Traffic("BikerUser", "Publish"),),
            _publishes,
            broker=True,
            defaults={"precision": 0.02},
            connections=1,
        ),
        Scenario(
            "iot-account-limit",
            "how many messages a second an account may publish: 20,000, in smaller regions 2,000",
            "messages",
            (Traffic("BikerUser", "Publish"),),
            _account_publishes,
            broker=True,
            connections=250,
        ),
        Scenario(
            "race-day",
            "bikers (--rate) join, ride for five minutes and finish at once, twice: does everything hold?",
            "records",
            _RACE,
            _bikers,
            shape="race-day",
            stream=True,
            table=True,
        ),
        Scenario(
            "soak",
            "a race without an end (--length): does anything decay?",
            "records",
            _RACE,
            _bikers,
            shape="soak",
            stream=True,
            table=True,
        ),
    )
}


def scenario_of(name: str) -> Scenario:
    """:raises UsageError: naming the scenarios there are."""
    if name not in SCENARIOS:
        raise UsageError(f"there is no scenario {name!r}; there are {', '.join(SCENARIOS)}")
    return SCENARIOS[name]


def adapted(scenario: Scenario, settings: LoadSettings, follow: bool) -> Scenario:
    """The scenario with the users that its settings ask for.

    :param follow: with a consumer that follows the stream, because the iterator age is to be judged.
    :raises UsageError: when there is no stream to follow.
    """
    traffic = scenario.traffic
    if settings.api == "PutRecord":
        one_by_one = {"user": "PutRecordUser", "operation": "PutRecord", "most": 1}
        traffic = tuple(replace(one, **one_by_one) if one.user == "GatewayUser" else one for one in traffic)  # type: ignore[arg-type]
    if follow and not any(one.operation == "GetRecords" for one in traffic):
        if not scenario.stream:
            raise UsageError(f"--max-iterator-age: the scenario {scenario.name} has no stream to fall behind on")
        traffic = (*traffic, _FOLLOWER)
    return replace(scenario, traffic=traffic)
