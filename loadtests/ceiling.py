"""How busy the generator and the target are, so that neither passes for a service's limit.

A Python process does one thing at a time: at 90 % of a core it is its own bottleneck, and what it measures then is
itself. The target's CPU can be known only on the same machine; there, whoever listens on the endpoint's port is it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import time
from collections.abc import Iterable
from urllib.parse import urlsplit

import psutil

BUSY = 0.9
"""Of one core. Locust warns at the same share."""


def listener_pid(url: str | None) -> int | None:
    """Which process of this machine listens where ``url`` points; None when that is elsewhere or cannot be told."""
    if not url:
        return None
    parts = urlsplit(url)
    port = parts.port or {"https": 443, "mqtt": 1883, "mqtts": 8883}.get(parts.scheme, 80)
    if not _is_loopback(parts.hostname or ""):
        return None
    with contextlib.suppress(psutil.Error, OSError):
        for one in psutil.net_connections(kind="tcp"):
            if one.status == psutil.CONN_LISTEN and one.laddr.port == port and one.pid:
                return int(one.pid)
    return None


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return any(
            ipaddress.ip_address(info[4][0]).is_loopback
            for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        )
    return False


class CpuWatch:
    """CPU of a process and its children since the last time it was asked, as a share of one core."""

    def __init__(self, pid: int | None) -> None:
        self._process = None
        with contextlib.suppress(psutil.Error):
            self._process = psutil.Process(pid) if pid else None
        self._seconds, self._at = self._cpu_seconds(), time.monotonic()

    @property
    def known(self) -> bool:
        return self._process is not None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.is_running()

    def share(self) -> float | None:
        """None when there is nothing to watch."""
        if self._process is None:
            return None
        now, seconds = time.monotonic(), self._cpu_seconds()
        passed, spent = now - self._at, seconds - self._seconds
        self._seconds, self._at = seconds, now
        return max(spent, 0.0) / passed if passed > 0 else 0.0

    def _cpu_seconds(self) -> float:
        if self._process is None:
            return 0.0
        total = 0.0
        with contextlib.suppress(psutil.Error):
            for one in (self._process, *self._process.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    times = one.cpu_times()
                    total += times.user + times.system
        return total


def busiest(shares: Iterable[float | None]) -> float:
    """The highest of the shares that are known, 0 when none is."""
    return max((one for one in shares if one is not None), default=0.0)
