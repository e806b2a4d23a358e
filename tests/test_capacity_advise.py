"""Advice: it holds when planned again, nothing one step smaller does, and what nothing can keep is said so."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_plan_command import run, told

from simulator.capacity.advise import Advice, advise
from simulator.capacity.advise_view import AdviceError, advice_json, headroom_of
from simulator.capacity.choices import (
    BILLING_MODE,
    COSTLY,
    INDEX_WCU,
    LANES,
    SHARDS,
    SIZES,
    STREAM_MODE,
    UNITS,
    WCU,
    WINDOW,
    WINDOWS,
    step_down,
    step_up,
)
from simulator.capacity.functions import Durations
from simulator.capacity.model import Plan, PlanError, plan
from simulator.capacity.objective import NAMES, SHARES, Objective, ObjectiveError, measured, objective_of, value_text
from simulator.capacity.prices import total_usd
from simulator.capacity.trials import Trial
from simulator.capacity.workload import Workload
from simulator.cloud.limits import LimitSettings
from simulator.deployment import Deployment, load_deployment

TEMPLATE = Path(__file__).resolve().parents[1] / "template.yaml"
SLOW_SHARDS = LimitSettings(shard_rate_factor=0.05)
"""A shard takes 50 records/s, so that few bikers need many."""
OBJECTIVE = objective_of("p99=10s,throttled=0,settled=10s")


def deploy(parameters: Mapping[str, str]) -> Deployment:
    return load_deployment(TEMPLATE, "default", parameters)


def sized(parameters: Mapping[str, str]) -> Deployment:
    """As a template would be that has sizes only, and nothing to choose on demand."""
    found = deploy(parameters)
    modes = (STREAM_MODE, BILLING_MODE)
    return replace(found, parameters={name: one for name, one in found.parameters.items() if name not in modes})


def again(trial: Trial, workload: Workload, **changes: int) -> Plan:
    """Planned by itself, as ``alleycat plan`` does."""
    chosen = {**trial.parameters, **changes}
    deployment = deploy({name: str(value) for name, value in chosen.items()})
    return plan(deployment, workload, settings=SLOW_SHARDS)


def keeps(found: Plan, objective: Objective) -> bool:
    return not measured(found).misses(objective)


def advised(workload: Workload, objective: Objective = OBJECTIVE, headroom: float = 0.0) -> Advice:
    return advise(sized, workload, objective, headroom=headroom, settings=SLOW_SHARDS)


def assert_nothing_smaller_holds(trial: Trial, workload: Workload, objective: Objective) -> None:
    for size in (*COSTLY, LANES):
        less = step_down(size, trial.sizes[size]) if size in trial.sizes else None
        assert less is None or not keeps(again(trial, workload, **{size: less}), objective), size


WORKLOADS: dict[str, tuple[Workload, str]] = {
    "one shard": (Workload(racers=40, seconds=20), "p99=10s,throttled=0,settled=10s"),
    "skewed over shards": (Workload(racers=150, seconds=10), "p99=10s,throttled=0,settled=10s"),
    "classes": (Workload(racers=40, seconds=10, classes=(1, 2, 5)), "p99=10s,throttled=0,settled=8s"),
    "races in a row": (Workload(racers=60, seconds=6, races=3, partition_key="random"), "settled=12s,throttled=1%"),
    "results at once": (Workload(racers=40, seconds=10), "p99=2s,settled=5s"),
    "only settled": (Workload(racers=60, seconds=10), "settled=20s"),
    "tables untroubled": (Workload(racers=40, seconds=10), "throttled=0,settled=20s,table_throttled=0"),
    "by MQTT": (
        Workload(racers=60, seconds=8, transport="mqtt", partition_key="random"),
        "throttled=0,settled=15s,age=5s",
    ),
}


@pytest.mark.parametrize("name", WORKLOADS)
def test_advice_holds_and_nothing_one_step_smaller_does(name: str) -> None:
    workload, objective = WORKLOADS[name][0], objective_of(WORKLOADS[name][1])
    found = advised(workload, objective)
    assert found.best is not None
    assert found.best is found.just_holds
    planned = again(found.best, workload)
    assert keeps(planned, objective)
    assert total_usd(list(planned.bill)) == pytest.approx(found.best.usd)
    assert_nothing_smaller_holds(found.best, workload, objective)


def test_the_same_question_has_the_same_answer() -> None:
    workload = Workload(racers=40, seconds=10)
    assert advice_json(advised(workload, headroom=0.2)) == advice_json(advised(workload, headroom=0.2))


@pytest.mark.parametrize("number", range(4))
def test_any_advice_holds_and_is_minimal(number: int) -> None:
    rng = random.Random(number)
    workload = Workload(
        racers=rng.randint(1, 70),
        seconds=rng.randint(5, 10),
        partition_key=rng.choice(["racer", "random"]),
        phase=rng.choice(["spread", "burst"]),
        seed=number,
    )
    objective = objective_of("p99=15s,settled=15s")
    found = advised(workload, objective)
    if found.best is None:
        assert found.closest
        assert not any(trial.holds for trial in found.closest)
        return
    assert keeps(again(found.best, workload), objective)
    assert_nothing_smaller_holds(found.best, workload, objective)


def test_nothing_on_a_grid_around_it_is_cheaper() -> None:
    """Every combination of some sizes, planned one by one."""
    workload = Workload(racers=80, seconds=15)
    found = advised(workload)
    assert found.best is not None
    best = found.best.sizes
    shards = [one for one in (best[SHARDS] - 1, best[SHARDS], best[SHARDS] + 1) if one]
    wcu, index_wcu = ([one for one in UNITS if limit / 3 <= one <= limit] for limit in (best[WCU], best[INDEX_WCU]))
    cheaper = []
    for count in shards:
        for units in wcu[::2]:
            for index_units in index_wcu[::2]:
                planned = again(found.best, workload, **{SHARDS: count, WCU: units, INDEX_WCU: index_units})
                if keeps(planned, OBJECTIVE) and total_usd(list(planned.bill)) < found.best.usd * 0.999:
                    cheaper.append((count, units, index_units))
    assert cheaper == []


def test_a_stricter_objective_never_costs_less() -> None:
    workload = Workload(racers=40, seconds=10)
    bills = []
    for text in ("p99=30s,settled=30s", "p99=10s,settled=10s", "p99=3s,settled=5s"):
        best = advised(workload, objective_of(text)).best
        assert best is not None
        bills.append(best.usd)
    assert bills == sorted(bills)
    assert bills[0] < bills[-1]


def test_headroom_is_capacity_on_top() -> None:
    workload = Workload(racers=80, seconds=15)
    bare, ample = advised(workload), advised(workload, headroom=0.5)
    assert bare.best is not None
    assert ample.best is not None
    assert ample.just_holds is not None
    assert dict(ample.just_holds.sizes) == dict(bare.best.sizes)
    assert ample.headroom_note == ""
    for size in (WCU, INDEX_WCU):
        assert ample.best.sizes[size] == math.ceil(bare.best.sizes[size] * 1.5)
    assert ample.best.usd > bare.best.usd
    assert keeps(again(ample.best, workload), OBJECTIVE)
    # Shards that each take a third less still do.
    sizes = {**ample.best.sizes, WCU: 1000, INDEX_WCU: 1000}
    deployment = deploy({name: str(value) for name, value in sizes.items()})
    slower = replace(SLOW_SHARDS, shard_rate_factor=SLOW_SHARDS.shard_rate_factor / 1.5)
    assert keeps(plan(deployment, workload, settings=slower), OBJECTIVE)


def test_headroom_of_a_full_shard_is_another_one() -> None:
    workload = Workload(racers=48, seconds=10, partition_key="random")
    found = advised(workload, headroom=0.3)
    assert found.best is not None
    assert found.just_holds is not None
    assert found.best.sizes[SHARDS] > found.just_holds.sizes[SHARDS]
    for size in (WCU, INDEX_WCU):
        assert found.best.sizes[size] >= found.just_holds.sizes[size] * 1.3
    assert keeps(again(found.best, workload), OBJECTIVE)


def test_a_shard_with_room_to_spare_needs_no_other() -> None:
    workload = Workload(racers=20, seconds=10)
    found = advised(workload, headroom=0.2)
    assert found.best is not None
    assert found.best.sizes[SHARDS] == 1


def test_runners_up_say_what_they_give_up() -> None:
    found = advised(Workload(racers=60, seconds=20), headroom=0.2)
    assert found.best is not None
    by_title: dict[str, list[Any]] = {}
    for one in found.runners_up:
        by_title.setdefault(one.title, []).append(one)
    cheaper, ampler = by_title["next cheaper"], by_title["50% headroom"][0]
    for one in cheaper:
        assert not one.trial.holds
        assert one.trial.usd < found.best.usd
        assert all(miss in one.note for miss in one.trial.misses)
    assert ampler.trial.holds
    assert ampler.trial.usd > found.best.usd
    assert by_title["just holds"][0].trial.usd < found.best.usd
    for one in by_title.get("results sooner", ()):
        assert one.trial.holds
        assert one.trial.sizes[WINDOW] < found.best.sizes[WINDOW]
        assert one.trial.found.values["p99"] < found.best.found.values["p99"]


def test_the_present_sizes_are_told_as_they_are() -> None:
    workload = Workload(racers=60, seconds=20)
    found = advised(workload)
    parameters = deploy({}).parameters
    assert dict(found.present.sizes) == {name: parameters[name] for name in SIZES}
    present = plan(deploy({}), workload, settings=SLOW_SHARDS)
    assert found.present.usd == pytest.approx(total_usd(list(present.bill)))
    assert found.present.holds == keeps(present, OBJECTIVE)


def test_a_time_that_no_size_gives_names_the_closest() -> None:
    found = advised(Workload(racers=30, seconds=10), objective_of("p99=1ms"))
    assert found.best is None
    assert found.just_holds is None
    assert "polled once a second" in found.forbids
    excesses = [trial.excess for trial in found.closest]
    assert excesses
    assert min(excesses) > 0
    assert all(any("p99 is" in miss for miss in trial.misses) for trial in found.closest)
    assert found.closest[0].sizes[WCU] < 1000, "no more units than it takes"


def test_one_partition_key_cannot_be_spread() -> None:
    found = advised(Workload(racers=60, seconds=5, partition_key="race"), objective_of("throttled=0,settled=5s"))
    assert found.best is None
    assert "kinesis.shard.write.records_per_second" in found.forbids
    assert "go to one shard" in found.forbids
    assert all(trial.found.values["throttled"] > 0 for trial in found.closest)


def test_prices_decide() -> None:
    """Where shards cost next to nothing and units much, the advice may not have more units."""
    from simulator.capacity.prices import PRICES

    workload = Workload(racers=80, seconds=15)
    prices = dict(PRICES)
    prices["kinesis.shard_hour"] = replace(prices["kinesis.shard_hour"], usd=1e-6)
    found = advise(sized, workload, OBJECTIVE, settings=SLOW_SHARDS, prices=prices)
    usual = advised(workload)
    assert found.best is not None
    assert usual.best is not None
    assert found.best.sizes[WCU] + found.best.sizes[INDEX_WCU] <= usual.best.sizes[WCU] + usual.best.sizes[INDEX_WCU]


def test_durations_are_those_given() -> None:
    workload = Workload(racers=30, seconds=10)
    objective = objective_of("settled=4s,p99=60s")
    quick = advise(sized, workload, objective, settings=SLOW_SHARDS)
    slow = advise(sized, workload, objective, settings=SLOW_SHARDS, durations=Durations(call_ms=1000))
    assert quick.best is not None
    assert slow.best is None or slow.best.usd > quick.best.usd


def test_a_template_without_these_sizes_cannot_be_advised(tmp_path: Path) -> None:
    path = tmp_path / "template.yaml"
    path.write_text(
        "Resources:\n  Telemetry:\n    Type: AWS::Kinesis::Stream\n    Properties: {Name: one, ShardCount: 1}\n"
    )
    with pytest.raises(PlanError, match="none of the parameters that are advised: ShardCount"):
        advise(lambda parameters: load_deployment(path, "default", parameters), Workload(), OBJECTIVE)


def test_a_template_with_one_size_is_advised_on_that(tmp_path: Path) -> None:
    path = tmp_path / "template.yaml"
    path.write_text(
        "Parameters:\n  ShardCount: {Type: Number, Default: 1, MaxValue: 20}\n"
        "Resources:\n  Telemetry:\n    Type: AWS::Kinesis::Stream\n"
        "    Properties: {Name: one, ShardCount: !Ref ShardCount}\n"
    )
    workload = Workload(racers=110, seconds=10, partition_key="random")
    found = advise(
        lambda parameters: load_deployment(path, "default", parameters),
        workload,
        objective_of("throttled=0"),
        settings=SLOW_SHARDS,
    )
    assert found.best is not None
    assert set(found.best.sizes) == {SHARDS}
    assert found.best.sizes[SHARDS] >= 110 / 50 * 10 / 11


# -- objectives ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "most"),
    [
        ("p99=2s,throttled=0,settled=10s", {"p99": 2.0, "throttled": 0.0, "settled": 10.0}),
        (" age = 500ms , table_throttled = 0.1% ", {"age": 0.5, "table_throttled": 0.001}),
        ("settled=1.5m", {"settled": 90.0}),
        ("throttled=1", {"throttled": 1.0}),
    ],
)
def test_objectives_are_read(text: str, most: dict[str, float]) -> None:
    assert dict(objective_of(text).most) == most
    assert objective_of(objective_of(text).text).most == objective_of(text).most


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "write NAME=VALUE of p99"),
        ("p98=2s", "'p98=2s': write NAME=VALUE of p99, throttled"),
        ("p99", "write NAME=VALUE"),
        ("p99=2", "p99=2: give a time such as 500ms"),
        ("p99=0s", "more than 0"),
        ("p99=-1s", "give a time"),
        ("settled=9999999s", "up to a day"),
        ("throttled=2s", "throttled=2s: give a share"),
        ("throttled=101%", "up to 100%"),
        ("p99=2s,", "write NAME=VALUE"),
        ("p99=2s,p99=3s", "p99 is there twice"),
    ],
)
def test_other_objectives_are_refused_in_one_line(text: str, says: str) -> None:
    with pytest.raises(ObjectiveError) as refused:
        objective_of(text)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


@given(st.text("p9=,s%m.0 tleabd_hro", max_size=20))
def test_any_text_is_an_objective_or_one_clear_line(text: str) -> None:
    try:
        found = objective_of(text)
    except ObjectiveError as refused:
        assert "\n" not in str(refused)
    else:
        assert set(found.most) <= set(NAMES)
        assert all(0 <= most <= 1 for name, most in found.most.items() if name in SHARES)


@pytest.mark.parametrize(("text", "share"), [("20%", 0.2), ("0.2", 0.2), ("0", 0.0), (" 150% ", 1.5)])
def test_headroom_is_read(text: str, share: float) -> None:
    assert headroom_of(text) == share


@pytest.mark.parametrize("text", ["", "x", "-1%", "nan", "inf", "2000%", "20%%"])
def test_other_headroom_is_refused(text: str) -> None:
    with pytest.raises(AdviceError, match="--headroom"):
        headroom_of(text)


def test_misses_are_judged_as_measured() -> None:
    found = measured(plan(deploy({SHARDS: "2"}), Workload(racers=50, seconds=10)))
    for name in NAMES:
        value = found.values[name]
        assert not found.misses(Objective({name: value}))
        if value:
            assert found.misses(Objective({name: value * 0.9})) == [
                f"{name} is {value_text(name, value)}, more than {value_text(name, value * 0.9)}"
            ]
            assert found.excess(Objective({name: value * 0.5})) > found.excess(Objective({name: value * 0.9})) > 0


def test_a_window_makes_results_wait() -> None:
    workload = Workload(racers=50, seconds=60)
    waits = [measured(plan(deploy({WINDOW: str(window)}), workload)).values["p99"] for window in (0, 1, 2, 5, 10, 30)]
    assert waits == sorted(waits)
    # A message waits for its window at most, for a poll and for an invocation.
    assert 0 < waits[0] < 3
    assert 30 * 0.9 < waits[-1] < 33


def test_what_never_settles_has_no_p99() -> None:
    workload = Workload(racers=100, seconds=20)
    found = measured(plan(deploy({WCU: "1", INDEX_WCU: "1"}), workload, drain_s=1.0))
    assert found.values["settled"] == math.inf
    assert found.backlog > 0
    misses = found.misses(objective_of("settled=10s"))
    assert any("not processed in time" in one for one in misses)
    assert "not settled within 10s" in misses


@pytest.mark.parametrize("name", [SHARDS, WCU, WINDOW])
def test_steps_go_up_and_down(name: str) -> None:
    value: int | None = 0 if name == WINDOW else 1
    assert step_down(name, value or 0) is None
    for _ in range(12):
        assert value is not None
        above = step_up(name, value)
        assert above is not None
        assert above > value
        assert step_down(name, above) == value
        # From between two steps, to the one below.
        assert step_down(name, value + 1) == value
        value = above
    assert step_up(WINDOW, WINDOWS[-1]) is None
    assert step_up(WCU, UNITS[-1]) is None


# -- the command -----------------------------------------------------------------------------------------------

SMALL = ("--advise", "-u", "40", "-t", "10s", "--limit", "shard_rate_factor=0.05")


def test_the_command_prints_advice_that_holds(tmp_path: Path) -> None:
    found = told(*SMALL, "--objective", "p99=8s,throttled=0,settled=10s", "--out", str(tmp_path / "out"))
    assert found == json.loads((tmp_path / "out" / "advice.json").read_text())
    assert found["objective"] == {"p99": 8.0, "throttled": 0.0, "settled": 10.0}
    assert found["headroom"] == 0.2
    assert found["advice"]["holds"]
    flags = [f"--set={name}={value}" for name, value in found["advice"]["parameters"].items()]
    planned = json.loads(run("--json", *SMALL[1:], *flags).stdout)
    assert planned["recovers"]
    assert planned["ledger"]["throttled"] == 0
    assert planned["settled_s"] <= 10
    assert planned["bill"]["total_usd"] == pytest.approx(found["advice"]["usd"], abs=1e-5)


def test_the_command_shows_the_bill_and_what_else_there_is() -> None:
    done = run(*SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    told = " ".join(done.stdout.split())
    assert "ADVICE: StreamMode=PROVISIONED BillingMode=PAY_PER_REQUEST ShardCount=1 " in told
    for text in ("provisioned table", "on-demand stream", "aggregation", "50% headroom", "present", "write units"):
        assert text in told


def test_an_objective_that_nothing_keeps_is_exit_code_1() -> None:
    done = run(*SMALL, "--objective", "p99=1ms")
    assert done.returncode == 1, done.stderr
    assert "NOTHING HOLDS" in done.stdout
    assert "In the way:" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--advise", "--objective", "p99=fast"), "--objective p99=fast: give a time"),
        (("--advise", "--headroom", "lots"), "--headroom 'lots': give a share"),
        (("--objective", "p99=2s"), "--objective goes with --advise"),
        (("--headroom", "20%"), "--headroom goes with --advise"),
        (("--advise", "--sweep", "ShardCount=1..2"), "--advise and --sweep are two questions"),
    ],
)
def test_bad_questions_are_exit_code_2_and_one_line(arguments: tuple[str, ...], says: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
