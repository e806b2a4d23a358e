"""Progress for people who wait: one redrawn block on a terminal, a line every few seconds elsewhere. All on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar

from rich.console import Console, RenderableType
from rich.live import Live

LINE_EVERY_S = 5.0
T = TypeVar("T")


class LiveView(Generic[T]):
    """Shows progress as it comes. A context manager.

    :param block: what a terminal shows of it.
    :param line: what a pipe or a file gets.
    """

    def __init__(
        self, block: Callable[[T], RenderableType], line: Callable[[T], str], console: Console | None = None
    ) -> None:
        self.console = console or Console(stderr=True)
        self._block, self._line = block, line
        self._live: Live | None = None
        self._last_line = 0.0

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live = Live(console=self.console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def show(self, progress: T) -> None:
        if self._live is not None:
            self._live.update(self._block(progress))
        elif time.time() - self._last_line >= LINE_EVERY_S:
            self._last_line = time.time()
            print(self._line(progress), file=sys.stderr, flush=True)
