"""``make fidelity`` without the rides: what it compares, and that each figure can be out of its bounds."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from loadtests import fidelity
from loadtests.fidelity import LiveError, Row, compare, judge, main, planned, ride
from loadtests.fidelity_cases import CASES, RECORDS, TABLE, Case
from simulator.capacity.model import Plan

OVER = Case(
    name="over",
    about="",
    racers=90,
    seconds=4,
    sizes={"ShardCount": 1},
    limits=("shard_rate_factor=0.05",),
    first=RECORDS,
)
RUN = {"started_at": "2026-06-01T12:00:01.500+00:00", "lead_s": 3.25}
Report = dict[str, Any]


def _limit(name: str, resource: str, total: float, throttled: float, first_s: float | None) -> Report:
    at = None if first_s is None else 1_780_315_201 + int(first_s)
    return {"name": name, "resource": resource, "total": total, "throttled": throttled, "first_throttled_at": at}


def _report_of(plan: Plan) -> Report:
    """What a ridden race's report would say if the race went as planned."""
    timeline = plan.timeline
    firsts = {(one.name, one.resource): one.first_s for one in plan.broken}
    limits = [
        _limit(
            RECORDS,
            shard,
            timeline.total("accepted", shard),
            timeline.total("throttled", shard),
            firsts.get((RECORDS, shard)),
        )
        for shard in (one.shard_id for one in plan.shards)
    ]
    for name, resource in (
        (TABLE, "alleycat-races"),
        ("dynamodb.index.write.units_per_second", "alleycat-races/GSI_Index"),
    ):
        units, refused = (timeline.total(one, resource) for one in ("consumed_write_units", "throttled_writes"))
        limits.append(_limit(name, resource, units, refused, firsts.get((name, resource))))
    return {
        "run": RUN,
        "ledger": {"lost": plan.ledger.lost},
        "limits": limits,
        "functions": [
            {
                "name": one.spec.logical_id,
                "timeouts": one.totals.timeouts,
                "iterator_age_ms_max": 1000
                * max(timeline.highest("iterator_age_s", source.name) for source in one.spec.event_sources),
            }
            for one in plan.functions
        ],
        "verdict": {"passed": True},
    }


@pytest.fixture(scope="module")
def plan() -> Plan:
    return planned(OVER, {"run": RUN}, [3])[0]


def _differing(rows: list[Row]) -> list[str]:
    return [row.name for row in rows if not row.agrees]


def test_a_race_that_went_as_planned_agrees(plan: Plan) -> None:
    rows = compare(OVER, _report_of(plan), [plan])
    assert _differing(rows) == []
    assert all(row.off in (0, None) for row in rows)
    by_name = {row.name: row for row in rows}
    assert {"accepted", "throttled", "lost", "table WCU", "index WCU", "first limit", "verdict"} <= set(by_name)
    assert by_name["accepted"].live == 360
    assert by_name["throttled"].live > 50
    assert (by_name["accepted"].slack, by_name["age s, FinalResults"].slack) == (7.2, 1.0)
    assert by_name["table WCU"].slack == pytest.approx(0.01 * float(by_name["table WCU"].live))


def _scaled(name: str, member: str, by: float) -> Callable[[Report], None]:
    def change(report: Report) -> None:
        for one in report["limits"]:
            if one["name"] == name:
                one[member] *= by

    return change


def _aged(report: Report, by_ms: float) -> None:
    report["functions"][0]["iterator_age_ms_max"] += by_ms


@pytest.mark.parametrize(
    ("figure", "within", "outside"),
    [
        ("accepted", _scaled(RECORDS, "total", 0.985), _scaled(RECORDS, "total", 0.975)),
        ("throttled", _scaled(RECORDS, "throttled", 1.015), _scaled(RECORDS, "throttled", 1.03)),
        ("table WCU", _scaled(TABLE, "total", 1.009), _scaled(TABLE, "total", 1.012)),
        (
            "index WCU",
            _scaled("dynamodb.index.write.units_per_second", "total", 0.992),
            _scaled("dynamodb.index.write.units_per_second", "total", 0.985),
        ),
        ("age s, TumblingWindow", lambda report: _aged(report, 990), lambda report: _aged(report, 1010)),
    ],
)
def test_a_figure_may_be_off_by_so_much(
    plan: Plan, figure: str, within: Callable[[Report], None], outside: Callable[[Report], None]
) -> None:
    for change, differing in ((within, []), (outside, [figure])):
        report = _report_of(plan)
        change(report)
        rows = compare(OVER, report, [plan])
        assert _differing(rows) == differing
        assert next(row for row in rows if row.name == figure).off


def test_another_first_limit_differs_and_one_in_the_same_second_does_not(plan: Plan) -> None:
    report = _report_of(plan)
    first = min(one["first_throttled_at"] for one in report["limits"] if one["first_throttled_at"] is not None)
    table = next(one for one in report["limits"] if one["name"] == TABLE)
    table["first_throttled_at"] = first
    assert _differing(compare(OVER, report, [plan])) == []
    table["first_throttled_at"] = first - 2
    assert _differing(compare(OVER, report, [plan])) == ["first limit"]
    for one in report["limits"]:
        one["first_throttled_at"] = None
    assert _differing(compare(OVER, report, [plan])) == ["first limit"]


def test_a_race_that_failed_its_verdict_differs(plan: Plan) -> None:
    report = _report_of(plan)
    report["verdict"]["passed"] = False
    assert _differing(compare(OVER, report, [plan])) == ["verdict"]


def test_what_hangs_on_back_offs_is_told_and_not_judged(plan: Plan) -> None:
    report = _report_of(plan)
    _scaled(TABLE, "throttled", 100)(report)
    report["functions"][0]["timeouts"] = 7
    rows = compare(OVER, report, [plan])
    assert _differing(rows) == []
    assert [(row.name, row.verdict) for row in rows if not row.is_judged] == [
        ("refused table writes", "told"),
        ("killed invocations", "told"),
    ]


def test_scenarios_cover_each_limit_from_both_sides() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    short = [case for case in CASES if not case.is_long]
    assert len(short) >= 10
    assert {case.first for case in short} >= {
        "",
        None,
        RECORDS,
        TABLE,
        "dynamodb.index.write.units_per_second",
        "dynamodb.table.read.units_per_second",
        "dynamodb.partition.write.units_per_second",
    }
    # What is said of each must hold in plans, whatever a ridden race does.
    for case in short:
        first = planned(case, {"run": RUN}, [1])[0].broken[:1]
        if case.first is not None:
            assert [one.name for one in first] == ([case.first] if case.first else []), case.name


# -- the course of it -------------------------------------------------------------------------------------


def test_a_race_is_ridden_again_once(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = _report_of(plan), _report_of(plan)
    bad["ledger"]["lost"] = 99
    rides = iter([bad, good, bad, bad])
    monkeypatch.setattr(fidelity, "ride", lambda case: next(rides))
    monkeypatch.setattr(fidelity, "planned", lambda case, report: [plan])
    rows, races = judge(OVER)
    assert (_differing(rows), races) == ([], 2)
    rows, races = judge(OVER)
    assert (_differing(rows), races) == (["lost"], 2)


def test_a_race_that_cannot_be_ridden_does_not_end_the_others(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ridden(case: Case) -> Report:
        if case.name == "shard-at":
            raise LiveError("shard-at: no cloud")
        report = _report_of(plan)
        report["ledger"]["lost"] = 99 if case.name == "shard-over" else 0
        return report

    monkeypatch.setattr(fidelity, "ride", ridden)
    monkeypatch.setattr(fidelity, "planned", lambda case, report: [plan])
    assert main(["--only", "shards-over"]) == 0
    assert main(["--only", "shards-over", "--only", "shard-over"]) == 1
    assert "not: lost of shard-over" in capsys.readouterr().out
    assert main(["--json", "--only", "shard-at", "--only", "shard-over", "--only", "shards-over"]) == 3
    told = capsys.readouterr()
    assert "fidelity: shard-at: no cloud" in told.err
    rows = json.loads(told.out)
    assert {row["case"] for row in rows} == {"shard-over", "shards-over"}
    assert [(row["case"], row["name"], row["off"]) for row in rows if not row["agrees"]] == [("shard-over", "lost", 99)]


def test_a_race_that_hangs_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def hangs(command: list[str], timeout: float, **_: Any) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", hangs)
    with pytest.raises(LiveError, match=r"^over: the race had not ended after 600 s$"):
        ride(OVER)
