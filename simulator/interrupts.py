"""Ctrl-C: the first asks for the end of the ride, the second cancels everything."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from typing import Self


class Interrupts:
    """``first`` is set by the first SIGINT or SIGTERM; the second cancels the task that made this object."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self._task = asyncio.current_task()

    @contextlib.contextmanager
    def listening(self) -> Iterator[Self]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._hit)
        try:
            yield self
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def _hit(self) -> None:
        if self.first.is_set() and self._task is not None:
            self._task.cancel()
        self.first.set()
