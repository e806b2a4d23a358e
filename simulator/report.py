"""report.json: what a run was, what it did, what it used, and whether it was right."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from simulator.utilisation import LimitUse
from simulator.verdict import Verdict

SCHEMA = 1


@dataclass(slots=True)
class Report:
    """The members of report.json, schema 1."""

    run: dict[str, Any]
    deployment: dict[str, Any]
    ledger: dict[str, Any]
    latency_ms: dict[str, dict[str, float]]
    limits: Sequence[LimitUse]
    functions: list[dict[str, Any]]
    verdict: Verdict
    findings: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "run": self.run,
            "deployment": self.deployment,
            "ledger": self.ledger,
            "latency_ms": self.latency_ms,
            "limits": [use.to_json() for use in self.limits],
            "functions": self.functions,
            "findings": self.findings,
            **self.extra,
            "verdict": self.verdict.to_json(),
        }


def write_json(report: Mapping[str, Any], directory: Path) -> Path:
    """Write ``report.json`` whole or not at all; returns its path.

    :raises OSError: when the directory cannot be made or written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "report.json"
    draft = path.with_suffix(".json.part")
    draft.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    draft.replace(path)
    return path


def utc(at_s: float) -> str:
    """ISO 8601 with ``Z`` and milliseconds."""
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
