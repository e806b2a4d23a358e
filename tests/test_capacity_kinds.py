"""Advice on what is not a size: on demand or provisioned, lanes, batches, reads; and what else it shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_capacity_advise import SLOW_SHARDS, again, assert_nothing_smaller_holds, deploy, keeps, sized

from simulator.capacity.advise import Advice, advise
from simulator.capacity.alternatives import forbids_of, with_headroom
from simulator.capacity.choices import (
    BATCH,
    BATCHES,
    BILLING_MODE,
    INDEX_RCU,
    INDEX_WCU,
    LANES,
    RCU,
    SHARDS,
    SIZES,
    STREAM_MODE,
    UNITS,
    WCU,
    WINDOW,
    Kind,
)
from simulator.capacity.functions import Durations
from simulator.capacity.model import PlanError, plan
from simulator.capacity.objective import objective_of
from simulator.capacity.prices import PRICES, total_usd
from simulator.capacity.timeline import Broken
from simulator.capacity.trials import Deploy, Runs, Trial, smallest_near
from simulator.capacity.workload import Workload
from simulator.cloud.limits import ITEM_MAX_BYTES
from simulator.deployment import Deployment, load_deployment

SMALL = Workload(racers=40, seconds=10)
OBJECTIVE = objective_of("p99=10s,throttled=0,settled=10s")


def advised(
    workload: Workload = SMALL, objective: str = OBJECTIVE.text, deployed: Deploy = deploy, **more: object
) -> Advice:
    return advise(deployed, workload, objective_of(objective), settings=SLOW_SHARDS, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def plain() -> Advice:
    """Without headroom, on our template."""
    return advised()


@pytest.fixture(scope="module")
def ample() -> Advice:
    return advised(headroom=0.2)


@pytest.fixture(scope="module")
def trial() -> Trial:
    found = Runs(deploy, SMALL, OBJECTIVE, SLOW_SHARDS).at({SHARDS: 1})
    assert found is not None
    return found


def priced(**usd: float) -> dict[str, object]:
    """Our prices with some others, ``__`` for a dot."""
    changed = {name.replace("__", "."): value for name, value in usd.items()}
    return {name: replace(price, usd=changed.get(name, price.usd)) for name, price in PRICES.items()}


# -- on demand or provisioned ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prices", "kind"),
    [
        ({}, ("PROVISIONED", "PAY_PER_REQUEST")),
        ({"dynamodb__on_demand__write_unit": 1000.0}, ("PROVISIONED", "PROVISIONED")),
        ({"kinesis__on_demand__stream_hour": 0.001}, ("ON_DEMAND", "PAY_PER_REQUEST")),
        (
            {"kinesis__on_demand__stream_hour": 0.001, "dynamodb__on_demand__write_unit": 1000.0},
            ("ON_DEMAND", "PROVISIONED"),
        ),
    ],
)
def test_the_kind_is_the_one_that_is_cheapest(prices: dict[str, float], kind: tuple[str, str]) -> None:
    found = advised(prices=priced(**prices))
    assert found.best is not None
    assert found.best.kind == Kind(*kind)
    assert (SHARDS in found.best.sizes) == (kind[0] == "PROVISIONED")
    assert (WCU in found.best.sizes) == (RCU in found.best.sizes) == (kind[1] == "PROVISIONED")
    assert keeps(again(found.best, SMALL), OBJECTIVE)
    assert_nothing_smaller_holds(found.best, SMALL, OBJECTIVE)
    others = {one.title: one.trial for one in found.runners_up if one.trial.kind != found.best.kind}
    assert len(others) == 2
    assert all(not one.holds or one.usd >= found.best.usd for one in others.values())


def test_the_bill_is_that_of_its_own_plan(plain: Advice) -> None:
    assert plain.best is not None
    assert plain.best.usd == pytest.approx(total_usd(list(again(plain.best, SMALL).bill)))


def test_runners_up_of_other_kinds_say_what_they_cost_and_give_up(plain: Advice, ample: Advice) -> None:
    assert ample.best is not None
    notes = {one.title: one for one in ample.runners_up}
    for title in ("provisioned table", "on-demand stream"):
        assert "USD more; " in notes[title].note
        assert "gives up" in notes[title].note
        assert notes[title].trial.usd > ample.best.usd
    # They have their headroom too.
    table = notes["provisioned table"].trial
    bare = {one.title: one.trial for one in plain.runners_up}["provisioned table"]
    assert table.sizes[WCU] > bare.sizes[WCU]


def test_four_shards_on_demand_are_no_answer_to_more() -> None:
    """On demand begins with four shards: what takes more than those does not hold, whatever it costs."""
    workload = Workload(racers=260, seconds=6, partition_key="random")
    cheap = priced(kinesis__on_demand__stream_hour=0.0, kinesis__on_demand__gb_in=0.0)
    found = advised(workload, "throttled=0,settled=5s,p99=4s", prices=cheap)
    assert found.best is not None
    assert found.best.kind.stream == "PROVISIONED"
    assert found.best.sizes[SHARDS] > 4
    (on_demand,) = (one for one in found.runners_up if one.title == "on-demand stream")
    assert not on_demand.trial.holds
    assert "gives up: throttled is" in on_demand.note


def test_a_template_without_modes_is_not_advised_on_them() -> None:
    found = advised(deployed=sized)
    assert found.best is not None
    assert set(found.best.parameters) == set(SIZES)
    assert not {"on-demand table", "on-demand stream"} & {one.title for one in found.runners_up}


def test_a_template_with_modes_only_is_advised_on_those() -> None:
    def modes_only(parameters: Mapping[str, str]) -> Deployment:
        found = deploy(parameters)
        return replace(found, parameters={name: found.parameters[name] for name in (STREAM_MODE, BILLING_MODE)})

    found = advised(deployed=modes_only)
    assert found.best is not None
    assert set(found.best.parameters) == {STREAM_MODE, BILLING_MODE}
    assert found.best.kind.table == "PAY_PER_REQUEST"


def test_the_present_kind_is_told_as_it_is() -> None:
    found = advised(deployed=lambda chosen: deploy({BILLING_MODE: "PAY_PER_REQUEST"} | dict(chosen)))
    assert found.present is not None
    assert found.present.kind == Kind("PROVISIONED", "PAY_PER_REQUEST")
    assert WCU not in found.present.sizes


def test_what_cannot_be_planned_at_all_is_an_error() -> None:
    def without_rule(parameters: Mapping[str, str]) -> Deployment:
        return replace(deploy(parameters), topic_rules=())

    with pytest.raises(PlanError, match="has no rule that puts messages on stream"):
        advised(replace(SMALL, transport="mqtt"), deployed=without_rule)


# -- functions that are too slow -------------------------------------------------------------------------------

SLOW_CALLS = Durations(call_ms=80)


def test_functions_that_are_too_slow_run_side_by_side() -> None:
    """Of one shard, finishes of 40 bikers take 3.2 s one after the other; lanes cost nothing, shards do."""
    found = advised(SMALL, "settled=3s", durations=SLOW_CALLS)
    assert found.best is not None
    assert found.best.sizes[SHARDS] == 1
    assert found.best.sizes[LANES] > 1
    without = advised(
        SMALL,
        "settled=3s",
        lambda chosen: replace(found := deploy(chosen), parameters=_without(found.parameters, LANES, BATCH)),
        durations=SLOW_CALLS,
    )
    assert without.best is not None
    assert without.best.sizes[SHARDS] > 1
    assert without.best.usd > found.best.usd


def _without(parameters: Mapping[str, object], *names: str) -> dict[str, object]:
    return {name: value for name, value in parameters.items() if name not in names}


def test_functions_that_are_quick_enough_do_not(plain: Advice) -> None:
    assert plain.best is not None
    assert plain.best.sizes[LANES] == 1
    assert plain.best.sizes[BATCH] == deploy({}).parameters[BATCH]


def test_batches_that_are_too_small_get_larger() -> None:
    """A function that takes 0.5 s for each batch of ten falls behind 40 records/s, whatever reads side by side."""

    def small_batches(chosen: Mapping[str, str]) -> Deployment:
        found = deploy({BATCH: "10"} | dict(chosen))
        return replace(found, parameters=_without(found.parameters, LANES))

    workload = Workload(racers=45, seconds=20, partition_key="random")
    found = advised(workload, "settled=4s", small_batches, durations=Durations(invocation_ms=500))
    assert found.best is not None
    assert found.best.sizes[SHARDS] == 1
    assert found.best.sizes[BATCH] in BATCHES
    assert found.best.sizes[BATCH] > 10


# -- reads -----------------------------------------------------------------------------------------------------


def test_reads_are_what_is_consumed() -> None:
    workload = Workload(racers=80, seconds=15)
    found = advised(workload, deployed=sized)
    assert found.best is not None
    assert found.best.sizes[INDEX_RCU] == 1, "nothing reads the index"
    consumed = sum(found.best.usage.read_units.values()) / found.best.usage.seconds
    assert found.best.sizes[RCU] <= consumed + 5
    less = found.best.sizes[RCU] - 1
    assert not less or not keeps(again(found.best, workload, **{RCU: less}), OBJECTIVE)


@given(st.integers(1, len(UNITS)), st.integers(0, 50_000), st.sampled_from(UNITS))
def test_looking_near_a_guess_finds_the_smallest(place: int, guess: int, most: int) -> None:
    least = min(UNITS[place - 1], most)
    asked = []

    class Known(Runs):
        def holds(self, sizes: Mapping[str, int]) -> bool:
            asked.append(sizes[RCU])
            return sizes[RCU] >= least

    runs = Known(deploy, SMALL, OBJECTIVE)
    assert smallest_near(runs, {RCU: most}, RCU, guess) == least
    assert len(asked) <= 20


# -- aggregation -------------------------------------------------------------------------------------------------


def test_aggregation_is_shown_with_what_its_stream_costs_and_never_advised() -> None:
    """Three shards' worth of records by their number fit one when they are packed."""
    workload = Workload(racers=120, seconds=10, partition_key="random")
    found = advised(workload, "throttled=0,settled=8s,p99=4s", sized)
    assert found.best is not None
    assert found.best.sizes[SHARDS] > 2
    (packed,) = (one for one in found.runners_up if one.title == "aggregation")
    fewer = packed.trial.sizes[SHARDS]
    assert fewer < found.best.sizes[SHARDS]
    assert "gives up functions that do not unpack" in packed.note
    # What is not the stream's is as in the advice.
    rest = [line for line in packed.trial.found.bill if not line.price.name.startswith("kinesis.")]
    assert rest == [line for line in found.best.found.bill if not line.price.name.startswith("kinesis.")]
    saved = (found.best.sizes[SHARDS] - fewer) * 0.015
    assert found.best.usd - packed.trial.usd == pytest.approx(saved, abs=workload.messages * 0.014 / 1e6)
    # One shard less is too few for packed records too.
    if fewer > 1:
        chosen = {name: str(value) for name, value in found.best.parameters.items()} | {SHARDS: str(fewer - 1)}
        refused = plan(deploy(chosen), replace(workload, aggregation=True), settings=SLOW_SHARDS)
        assert refused.ledger.throttled or refused.ledger.lost


@pytest.mark.parametrize("change", [{"transport": "mqtt", "partition_key": "random"}, {"aggregation": True}])
def test_aggregation_is_not_shown_where_it_cannot_be_or_is(change: dict[str, Any]) -> None:
    found = advised(Workload(racers=20, seconds=5, **change), "throttled=0,settled=20s")
    assert found.best is not None
    assert "aggregation" not in {one.title for one in found.runners_up}
    if "aggregation" in change:
        assert any("records that hold several messages" in line for line in found.best.found.not_modelled)


# -- headroom ----------------------------------------------------------------------------------------------------


def test_headroom_that_makes_writes_late_shortens_the_window(trial: Trial) -> None:
    """More shards write more, and what just held its time does not any more: a shorter window makes room."""

    class Known(Runs):
        def at(self, sizes: Mapping[str, int]) -> Trial:
            # As full shards do, one holds only as long as it takes its whole rate.
            is_full = self.limit_settings != SLOW_SHARDS and sizes[SHARDS] < 2
            is_late = sizes[SHARDS] > 1 and sizes[WINDOW] > 3
            return replace(trial, sizes=dict(sizes), misses=("full",) * is_full + ("late",) * is_late)

    runs = Known(deploy, SMALL, OBJECTIVE, SLOW_SHARDS, kind=trial.kind)
    found, note = with_headroom(runs, replace(trial, sizes={SHARDS: 1, WINDOW: 10}), 0.2)
    assert dict(found.sizes) == {SHARDS: 2, WINDOW: 3}
    assert note == ""
    # Where no shorter one does either, the note says what has no headroom.
    found, note = with_headroom(runs, replace(trial, sizes={SHARDS: 1, WINDOW: 30}), 0.2)
    assert dict(found.sizes) == {SHARDS: 1, WINDOW: 30}
    assert note == "no headroom in ShardCount: 2 do not hold: late"


# -- limits of a template --------------------------------------------------------------------------------------


def test_a_template_that_takes_fewer_units_is_advised_within_them(tmp_path: Path) -> None:
    text = (Path(__file__).resolve().parents[1] / "template.yaml").read_text()
    path = tmp_path / "template.yaml"
    for folder in ("consumers", "simulator"):
        (tmp_path / folder).mkdir()
    for name in (WCU, INDEX_WCU, RCU, INDEX_RCU):
        text = text.replace(f"  {name}:\n    Type: Number\n", f"  {name}:\n    Type: Number\n    MaxValue: 300\n")
    path.write_text(text)
    found = advised(
        deployed=lambda chosen: load_deployment(path, "default", {BILLING_MODE: "PROVISIONED"} | dict(chosen))
    )
    assert found.best is not None


# -- what nothing can meet -------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", ["p99=1ms", "settled=0s"])
def test_times_that_nothing_meets_name_the_closest_of_all_kinds(objective: str) -> None:
    found = advised(Workload(racers=20, seconds=5), objective)
    assert found.best is None
    assert found.closest
    assert "polled once a second" in found.forbids
    assert all(not one.holds for one in found.closest)
    name = objective.partition("=")[0]
    assert all(any(f"{name} is" in miss for miss in one.misses) for one in found.closest)


def test_an_item_that_is_too_large_is_named_whatever_else_refuses(trial: Trial) -> None:
    """No size makes it smaller; where it is among what refuses, the rest is beside the point."""
    partition = Broken("dynamodb.table.write.partition.units_per_second", "races", 1000, "units/s", 1.0, 2.0, 30)
    item = Broken(ITEM_MAX_BYTES.name, "races", ITEM_MAX_BYTES.value, "bytes", 5.0, 6.0, 2)
    refusing = replace(trial, found=replace(trial.found, limits=(partition, item)))

    class Known(Runs):
        def at(self, sizes: Mapping[str, int]) -> Trial:
            return refusing

    told = forbids_of(Known(deploy, SMALL, OBJECTIVE), refusing)
    assert told.startswith("dynamodb.item.max_bytes of races (409,600 bytes) refuses 2, whatever the sizes; ")
    assert "partition" in told
