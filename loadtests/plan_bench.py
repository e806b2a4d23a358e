"""What a plan costs: time and memory, each measured in a process of its own, beside the time that it plans.

The ceiling that a plan is held against is the race itself: a five-minute race takes five minutes to ride, whatever
rides it. Growth is shown by the shard-second: as many bikers a shard, more shards or more races.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BIKERS_A_SHARD = 833
"""A million bikers on 1,200 shards."""


@dataclass(frozen=True, slots=True)
class Case:
    """``sizes`` are template parameters over the default ones."""

    name: str
    racers: int
    shards: int
    races: int = 1
    seconds: int = 300
    rounds: int = 3

    @property
    def shard_seconds(self) -> int:
        return self.shards * self.races * self.seconds


CASES = (
    Case("5 minutes, 1,000 bikers, 2 shards", 1000, 2, rounds=5),
    Case("a day: 288 races of 1,000 bikers", 1000, 2, races=288, rounds=1),
    Case("5 minutes, 1,000,000 bikers, 1,200 shards", 1_000_000, 1200),
)
GROWTH = (
    *(Case(f"{shards} shards", BIKERS_A_SHARD * shards, shards, rounds=3) for shards in (150, 300, 600, 1200)),
    *(Case(f"{races} races", 1000, 2, races=races, rounds=3) for races in (4, 8, 16, 32)),
)


def run(case: Case) -> tuple[float, float]:
    """Seconds of :func:`simulator.capacity.model.plan` and the process's largest memory, MiB. For a child process."""
    from simulator.capacity.model import plan
    from simulator.capacity.workload import Workload
    from simulator.deployment import load_deployment

    deployment = load_deployment(ROOT / "template.yaml", "default", {"ShardCount": str(case.shards)})
    began = time.perf_counter()
    plan(deployment, Workload(racers=case.racers, seconds=case.seconds, races=case.races))
    taken_s = time.perf_counter() - began
    # Kibibytes, except on macOS.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024 * 1024)
    return taken_s, peak


def measured(case: Case) -> tuple[float, float]:
    """Medians of ``case.rounds`` child processes."""
    members = {name: getattr(case, name) for name in Case.__slots__}
    command = [sys.executable, "-m", "loadtests.plan_bench", json.dumps(members)]
    found = []
    for _ in range(case.rounds):
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        found.append(json.loads(done.stdout))
    return statistics.median(one[0] for one in found), statistics.median(one[1] for one in found)


def bench_plans() -> None:
    print("\nPlans: seconds and memory, medians of processes; times faster than the race that is planned")
    for case in CASES:
        taken_s, peak = measured(case)
        planned_s = case.races * case.seconds
        print(f"{case.name:<48}{taken_s:>12.3f} s{peak:>10.0f} MiB{planned_s / taken_s:>12,.0f} x")
    print("\nGrowth: microseconds a shard-second, which stays the same where cost is linear")
    for case in GROWTH:
        taken_s, _ = measured(case)
        each_us = taken_s / case.shard_seconds * 1e6
        print(f"{case.name:<28}{case.shard_seconds:>12,} shard-seconds{taken_s:>10.3f} s{each_us:>12.1f} us")


def main() -> None:
    members: dict[str, Any] = json.loads(sys.argv[1])
    print(json.dumps(run(Case(**members))))


if __name__ == "__main__":
    main()
