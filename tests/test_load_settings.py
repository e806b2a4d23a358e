"""Settings and scenarios: what is read, what is refused, and what each scenario makes of it."""

from __future__ import annotations

import pytest

from loadtests.flags import breaks, objectives_from
from loadtests.foresight import foresee
from loadtests.objectives import Objectives
from loadtests.resources import Index, Resources, Shard, Table, limits_of
from loadtests.scenarios import SCENARIOS, adapted, scenario_of
from loadtests.settings import FLAGS, LoadSettings, duration_s, settings_from
from simulator.flags import UsageError

THERE = Resources(
    stream="alleycat",
    shards=(Shard("shardId-000000000000", "1"), Shard("shardId-000000000001", "2")),
    table=Table("alleycat-races", 100, 20, (Index("GSI_PK_Index", "LSI"), Index("GSI_Index", "GSI", 50, 10))),
)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1.5s", 1.5), ("200ms", 0.2), ("5m", 300), ("1h", 3600), (" 4s ", 4)]
)
def test_times(text: str, seconds: float) -> None:
    assert duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("rate", "abc", "--rate 'abc': give a number from 0.01"),
        ("rate", "0", "--rate '0'"),
        ("rate", "nan", "--rate 'nan'"),
        ("rate", "inf", "--rate 'inf'"),
        ("shape", "zigzag", "choose search, steps, ramp"),
        ("stage_time", "soon", "give a time such as 200ms"),
        ("stage_time", "8000h", "at most 7 days"),
        ("key", "zipf:9", "choose even, racer, random or zipf:S"),
        ("key", "colour", "choose even, racer, random or zipf:S"),
        ("batch", "501", "from 0 to 500"),
        ("batch", "1.5", "give a whole number"),
        ("arrivals", "bursty", "choose even or poisson"),
        ("consistent", "maybe", "choose yes or no"),
        ("qos", "2", "from 0 to 1"),
    ],
)
def test_bad_values_name_the_flag_and_what_it_takes(name: str, text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        settings_from({name: text})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_not_given_keeps_its_default() -> None:
    assert settings_from({}) == LoadSettings()
    assert settings_from(dict.fromkeys(FLAGS, "")) == LoadSettings()


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_has_a_line_and_a_plan_that_can_be_foreseen(name: str) -> None:
    scenario = SCENARIOS[name]
    assert 20 < len(scenario.about) < 120
    settings = scenario.settings(LoadSettings())
    ahead = foresee(scenario, settings, THERE)
    assert 10 < ahead.seconds < 4000
    assert ahead.units[scenario.main.operation] > 0


@pytest.mark.parametrize("shape", ["search", "steps", "ramp", "spike", "soak", "race-day", "burst"])
def test_every_shape_goes_with_every_scenario(shape: str) -> None:
    for scenario in SCENARIOS.values():
        settings = scenario.settings(LoadSettings(shape=shape, length=60.0, rest_time=5.0))
        assert foresee(scenario, settings, THERE).units[scenario.main.operation] > 0


def test_what_is_asked_for_wins_over_the_scenario() -> None:
    scenario = scenario_of("shard-limit")
    assert scenario.settings(LoadSettings()).key == "even"
    assert scenario.settings(LoadSettings(key="racer")).key == "racer"
    assert scenario.settings(LoadSettings()).shape == "search"
    assert scenario.settings(LoadSettings(shape="ramp")).shape == "ramp"


def test_an_unknown_scenario_names_those_there_are() -> None:
    with pytest.raises(UsageError, match="shard-limit, shard-bytes"):
        scenario_of("shard-limits")


def test_a_search_that_starts_above_its_ceiling_is_refused() -> None:
    scenario = scenario_of("shard-limit")
    with pytest.raises(UsageError, match="--start-rate"):
        scenario.plan(scenario.settings(LoadSettings(start_rate=500.0, rate=100.0)), THERE)


def test_the_iterator_age_brings_a_reader_and_needs_a_stream() -> None:
    with_one = adapted(scenario_of("shard-limit"), LoadSettings(), follow=True)
    assert [one.operation for one in with_one.traffic] == ["PutRecords", "GetRecords"]
    assert adapted(scenario_of("read-limit"), LoadSettings(), follow=True) == scenario_of("read-limit")
    with pytest.raises(UsageError, match="no stream"):
        adapted(scenario_of("wcu-limit"), LoadSettings(), follow=True)


def test_records_may_be_put_one_by_one() -> None:
    found = adapted(scenario_of("race-day"), LoadSettings(api="PutRecord"), follow=False)
    assert (found.main.user, found.main.operation, found.main.most) == ("PutRecordUser", "PutRecord", 1)
    assert found.batch(found.main, LoadSettings(batch=500), 5000.0) == 1
    assert [one.operation for one in found.traffic[1:]] == [
        one.operation for one in scenario_of("race-day").traffic[1:]
    ]


def test_limits_are_those_of_what_is_there() -> None:
    found = {(one.name, one.resource): one.value for one in limits_of(THERE)}
    assert found["kinesis.shard.write.records_per_second", "shardId-000000000001"] == 1000
    assert found["kinesis.shard.read.get_records_per_second", "shardId-000000000000"] == 5
    assert found["dynamodb.table.write.units_per_second", "alleycat-races"] == 100
    assert found["dynamodb.index.write.units_per_second", "alleycat-races/GSI_Index"] == 50
    assert found["dynamodb.index.read.units_per_second", "alleycat-races/GSI_Index"] == 10
    assert len(found) == 2 * 4 + 2 + 2


def test_on_demand_has_no_line_to_draw() -> None:
    on_demand = Resources(stream="s", mode="ON_DEMAND", shards=THERE.shards, table=Table("t", 0, 0))
    assert {one.operations for one in limits_of(on_demand)} == {("GetRecords",)}


def test_resources_travel_to_workers_unchanged() -> None:
    import json

    assert Resources.from_json(json.loads(json.dumps(THERE.to_json()))) == THERE


def test_objectives_come_from_flags_and_a_file(tmp_path: object) -> None:
    from pathlib import Path

    file = Path(str(tmp_path)) / "objectives.toml"
    file.write_text('[objectives]\nmax_throttled = "0.1%"\np99 = "200ms"\n')
    found = objectives_from({"objectives": str(file), "p99": "50ms"}, "shard-limit")
    assert found == Objectives(max_throttled=0.001, p99_ms=50.0)


def test_a_step_breaks_at_a_percent_unless_asked_otherwise() -> None:
    quiet = {"failed_share": 0.0, "p99_ms": 5.0, "iterator_age_ms": None}
    assert breaks(Objectives(), throttled_share=0.009, **quiet) is None
    assert "max-throttled" in (breaks(Objectives(), throttled_share=0.02, **quiet) or "")
    assert breaks(Objectives(max_throttled=0.5), throttled_share=0.02, **quiet) is None
    assert "p99" in (breaks(Objectives(p99_ms=4.0), throttled_share=0.0, **quiet) or "")
    assert "max-failed" in (breaks(Objectives(), throttled_share=0.0, **{**quiet, "failed_share": 0.5}) or "")
