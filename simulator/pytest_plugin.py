"""pytest fixtures for people who test their own code against the embedded cloud. Loaded by pytest itself.

``aws``
    An empty embedded AWS for one test. Plain ``boto3.client("kinesis")`` reaches it, in the test and in processes it
    starts: the usual environment variables are set. The process is started once and emptied between tests.

``aws_process``
    The same process for the whole session, as :class:`simulator.cloud.server.CloudProcess`.

Limits are set in pytest's configuration, by the names of :class:`simulator.cloud.limits.LimitSettings`::

    [tool.pytest.ini_options]
    alleycat_limits = ["reshard_seconds=0", "shard_burst_seconds=2"]
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from simulator.cloud.server import CloudProcess


def pytest_addoption(parser: pytest.Parser) -> None:
    """Registers ``alleycat_limits``."""
    parser.addini("alleycat_limits", "Limits of the embedded AWS, NAME=VALUE each.", type="args", default=[])


@pytest.fixture(scope="session")
def aws_process(pytestconfig: pytest.Config) -> Iterator[CloudProcess]:
    """One embedded AWS for all tests of the session; nothing of it is emptied."""
    # Imported here: a session that does not use the fixture pays nothing.
    from simulator.cloud.limits import with_settings
    from simulator.cloud.server import CloudError, CloudProcess

    try:
        settings = with_settings(pytestconfig.getini("alleycat_limits"))
    except ValueError as error:
        raise pytest.UsageError(f"alleycat_limits: {error}") from None
    try:
        with CloudProcess(settings=settings) as process:
            yield process
    except CloudError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture
def aws(aws_process: CloudProcess, monkeypatch: pytest.MonkeyPatch) -> CloudProcess:
    """An empty embedded AWS; the environment makes every AWS client use it."""
    aws_process.reset()
    for name, value in aws_process.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    # boto3 keeps a session with the credentials it found first.
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
    return aws_process
