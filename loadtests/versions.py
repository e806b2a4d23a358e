"""Versions that a figure depends on."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache
def versions() -> dict[str, str]:
    """Of Python and of the packages whose speed or behaviour shows in a load test."""
    found = {"python": platform.python_version()}
    for name in ("alleycat", "locust", "gevent", "geventhttpclient", "botocore", "paho-mqtt"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
