"""Fixtures: one embedded cloud for all tests that want real sockets."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config

from simulator.cloud.limits import LimitSettings
from simulator.cloud.server import CloudProcess


@pytest.fixture(autouse=True)
def _no_alleycat_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flags read ALLEYCAT_*, clients read AWS_*: neither may leak in from whoever runs the tests."""
    import os

    for name in list(os.environ):
        if name.startswith(("ALLEYCAT_", "AWS_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def cloud() -> Iterator[CloudProcess]:
    with CloudProcess(settings=LimitSettings(reshard_seconds=0.0, control_rate_factor=1000.0)) as process:
        yield process


def client_of(cloud: CloudProcess, service: str, region: str = "us-east-1") -> Any:
    """A boto3 client that never retries, so that what the cloud says is what a test sees."""
    return boto3.session.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name=region).client(
        service,
        endpoint_url=cloud.endpoint_url,
        config=Config(retries={"mode": "standard", "total_max_attempts": 1}, s3={"addressing_style": "path"}),
    )


@pytest.fixture
def kinesis(cloud: CloudProcess) -> Iterator[Any]:
    client = client_of(cloud, "kinesis")
    yield client
    client.close()


@pytest.fixture
def stream() -> str:
    """A stream name that no other test uses."""
    return f"s-{uuid.uuid4().hex[:12]}"
