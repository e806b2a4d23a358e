"""Delivery streams in a plan: they read beside the functions, gather, transform, write, and every record is counted."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from delivery_templates import DELIVERY, TRANSFORM, ours_with
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from simulator.capacity.clock import Clock
from simulator.capacity.delivering import MIB, Gathering
from simulator.capacity.handlers import Durations
from simulator.capacity.model import Plan, plan
from simulator.capacity.plan_figures import figures
from simulator.capacity.plan_page import page
from simulator.capacity.report import as_json
from simulator.capacity.view import render
from simulator.capacity.workload import Workload
from simulator.deployment import Deployment, load_deployment

READ_CALLS = "kinesis.shard.read.get_records_per_second"


@settings(deadline=None, max_examples=200)
@given(
    each=st.integers(1, 400),
    most_bytes=st.integers(1, 4000),
    most_s=st.sampled_from([0.0, 0.5, 3.0, 60.0]),
    adds=st.lists(st.tuples(st.integers(0, 4000), st.integers(1, 60)), max_size=40),
)
def test_a_buffer_ends_by_size_or_time_and_loses_nothing(
    each: int, most_bytes: int, most_s: float, adds: list[tuple[int, int]]
) -> None:
    clock, full = Clock(0.0), []
    gathering = Gathering(clock, each, most_bytes, most_s, lambda *one: full.append((clock.now, *one)))
    for pause_ms, records in adds:
        clock.run_until(clock.now + pause_ms / 1e3)
        gathering.add(records, clock.now)
        assert gathering.records * each < most_bytes
    clock.run_until(clock.now + most_s)
    assert gathering.records == 0
    assert sum(records for _, records, _ in full) == sum(records for _, records in adds)
    for at, records, oldest_s in full:
        assert records <= math.ceil(most_bytes / each)
        assert at - oldest_s <= most_s + 1e-9
        assert records == math.ceil(most_bytes / each) or at - oldest_s == pytest.approx(most_s)


def delivered(folder: Path, extra: str = "", old: str = "", new: str = "", **sizes: object) -> Deployment:
    path = ours_with((DELIVERY + extra.lstrip("\n")).replace(old, new), folder)
    return load_deployment(path, overrides={name: str(value) for name, value in sizes.items()})


def told_of(found: Plan) -> dict[str, Any]:
    (told,) = as_json(found)["deliveries"]
    return dict(told)


def lines_of(found: Plan) -> dict[tuple[str, str], float]:
    return {(line.price.name, line.resource): line.quantity for line in found.bill}


def test_every_record_is_in_an_object(tmp_path: Path) -> None:
    """1,000 bikers for two minutes: an object is 1 MiB, which comes in about six seconds; the last is delivered after
    the plan."""
    found = plan(delivered(tmp_path), Workload(racers=1000, seconds=120))
    each = found.riders.sizes.message_bytes
    told = told_of(found)
    assert told["records"] == found.ledger.delivered == 120_000
    assert told["bytes"] == 120_000 * each
    most_records = math.ceil(MIB / each)
    assert told["objects"] == math.ceil(120_000 / most_records)
    assert found.timeline.total("delivered_records", "raw") == 120_000 // most_records * most_records
    assert 5 < told["age_s_max"] < 9
    assert lines_of(found)["s3.put", "raw"] == told["objects"]
    assert lines_of(found)["firehose.gb", "raw"] == pytest.approx(120_000 * 5120 / 1e9)
    assert not any("deliver" in line for line in found.not_modelled)


def test_the_page_has_a_figure_and_a_table_of_it(tmp_path: Path) -> None:
    found = plan(delivered(tmp_path), Workload(racers=300, seconds=60))
    (drawn,) = [one for one in figures(found) if one.name == "delivered"]
    assert max(age for age in drawn.drawing.data[0].y if age) == pytest.approx(told_of(found)["age_s_max"], abs=0.1)
    text = page(found)
    assert "<h2>Deliveries</h2>" in text
    assert "<td>18,000</td>" in text


def test_small_objects_wait_for_their_minute(tmp_path: Path) -> None:
    found = plan(delivered(tmp_path), Workload(racers=20, seconds=150))
    assert found.timeline.highest("delivery_age_s", "raw") == pytest.approx(61, abs=1.1)
    series = found.timeline.series("delivered_objects", "raw", found.seconds)
    at = [second for second, objects in enumerate(series) if objects]
    assert len(at) == 2
    # A minute from the first record of each.
    assert 60 <= at[0] <= 62
    assert 60 <= at[1] - at[0] <= 62
    assert told_of(found)["objects"] == 3


def test_it_takes_one_of_the_reads_of_every_shard(tmp_path: Path) -> None:
    """
    ::

        reads/s of a shard   2 functions + 1 delivery = 3      5 functions + 1 delivery = 6 > 5
    """
    deployment = delivered(tmp_path)
    found = plan(deployment, Workload(racers=50, seconds=60))
    for shard in found.shards:
        assert found.timeline.series("read_calls", shard.shard_id, 60)[5:] == [3] * 55
    assert not found.timeline.total("read_throttled")
    readers = [one for one in deployment.functions if any(of.kind == "Kinesis" for of in one.event_sources)]
    more = tuple(
        replace(readers[1], name=f"more-{number}", logical_id=f"More{number}", handler="other.handler")
        for number in range(3)
    )
    crowded = plan(replace(deployment, functions=(*readers, *more)), Workload(racers=50, seconds=60))
    assert {one.name for one in crowded.broken} == {READ_CALLS}
    assert told_of(crowded)["records"] == 3000


@pytest.mark.parametrize("extra", ["", TRANSFORM])
def test_functions_rest_beside_it_as_if_they_did_not(tmp_path: Path, extra: str) -> None:
    deployment = delivered(tmp_path, extra, ShardCount=2)
    rested, stepped = (plan(deployment, Workload(racers=120, seconds=40), rests=rests) for rests in (True, False))
    bills = [{(line.price.name, line.resource): line.quantity for line in one.bill} for one in (rested, stepped)]
    # The sum of many durations, each a difference of two times.
    assert bills[0] == pytest.approx(bills[1], rel=1e-4)
    told, like = ({name: value for name, value in as_json(one).items() if name != "bill"} for one in (rested, stepped))
    assert told == like


def test_a_transform_is_invoked_by_half_megabytes(tmp_path: Path) -> None:
    """One shard, 1,000 records a second: 0.5 MB are three seconds of them, and a call lasts 3 ms and 8 us a record."""
    deployment = delivered(tmp_path, TRANSFORM, ShardCount=1)
    found = plan(deployment, Workload(racers=1000, seconds=60))
    each = found.riders.sizes.message_bytes
    most_records = math.ceil(MIB / 2 / each)
    calls = math.ceil(60_000 / most_records)
    transform = next(one for one in found.functions if one.spec.logical_id == "Transform")
    assert transform.totals.invocations == calls
    assert transform.totals.durations_s == pytest.approx([0.003 + most_records * 8e-6] * (calls - 1), abs=1e-6)
    assert transform.totals.duration_s == pytest.approx(calls * 0.003 + 60_000 * 8e-6, abs=1e-5)
    assert lines_of(found)["lambda.request", transform.spec.name] == calls
    assert lines_of(found)["lambda.gb_second", transform.spec.name] == pytest.approx(transform.totals.duration_s / 2)
    told = told_of(found)
    assert (told["records"], told["failed"], told["bytes"]) == (60_000, 0, 60_000 * each)
    assert any("transforms what it gets" in line for line in found.not_modelled)


def test_a_transform_that_is_killed_fails_its_records(tmp_path: Path) -> None:
    """Three attempts (two retries) of each call, all of which take longer than the function may."""
    deployment = delivered(tmp_path, TRANSFORM, "MemorySize: 512", "MemorySize: 512, Timeout: 1", ShardCount=1)
    found = plan(deployment, Workload(racers=1000, seconds=30), durations=Durations(record_us=400))
    told = told_of(found)
    transform = next(one for one in found.functions if one.spec.logical_id == "Transform")
    most_records = math.ceil(MIB / 2 / found.riders.sizes.message_bytes)
    assert told["failed"] > 0
    assert told["failed"] % most_records == 0
    assert transform.totals.timeouts == told["failed"] // most_records * 3
    assert told["bytes"] == 30_000 * found.riders.sizes.message_bytes
    console = Console(width=150)
    with console.capture() as screen:
        console.print(render(found))
    assert f"raw delivers 30,000 records in {told['objects']} objects" in screen.get()
    assert f"{told['failed']:,} failed in the transform" in screen.get()


def test_another_streams_delivery_is_left_out(tmp_path: Path) -> None:
    deployment = delivered(tmp_path)
    (delivery,) = deployment.delivery_streams
    other = replace(delivery, name="other", stream_arn=f"{delivery.stream_arn}-2")
    found = plan(replace(deployment, delivery_streams=(other,)), Workload(racers=5, seconds=5))
    assert "other delivers alleycat-2, not alleycat" in found.not_modelled
    assert as_json(found)["deliveries"] == []
