"""Clients of a target, where settings make none."""

from __future__ import annotations

import pytest

from simulator.target import Target, TargetError


def test_an_endpoint_that_is_no_address_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "nonsense")
    with pytest.raises(TargetError, match="Invalid endpoint: nonsense"):
        Target("aws", "us-east-1").client("kinesis")
