"""The tumbling window of one shard, as a state machine: no I/O, no clock.

Lambda cuts time into windows aligned to the epoch. A record belongs to the window its approximate arrival
timestamp falls in, a batch never spans two windows, and the state a function returns comes back with its next
batch of the same window. The window's last invocation carries no records and says so; its state is then
dropped. State is per shard, so a window of a stream ends once per shard.

When is a window over? Lambda publishes only that it waits "up to 2 minutes" when no records come. Here:

* a record of a later window is next: nothing of this window can follow on the shard;
* or the shard's tip was seen (an empty read, nothing behind it) by a read that *began* at least the grace after
  the window's end: whatever had arrived in the window was already delivered;
* or the shard is closed and drained: windows do not outlive their shard;
* or the state grew beyond 1 MB: the window is terminated early and goes on with empty state.

Arrival timestamps come without an accuracy guarantee. A record older than the open window joins it: reopening a
past window in the middle of another would make both restart for ever on a shard whose clock jitters. When no
window is open, a late record opens its own window again, so its function must merge, not overwrite.
"""

from __future__ import annotations

from dataclasses import dataclass

from consumers.runtime.event import EMPTY_STATE, Window

STATE_MAX_BYTES = 1024 * 1024
"""A shard's window state may have 1 MB; beyond, Lambda terminates the window early (CAH services-kinesis-windows)."""


@dataclass(frozen=True, slots=True)
class OpenWindow:
    """The window a shard is in the middle of; ``state`` is what the function returned, as JSON."""

    window: Window
    state: bytes


@dataclass(frozen=True, slots=True)
class Extend:
    """The next invocation is a batch of ``window``, and gets ``state``."""

    window: Window
    state: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """The next invocation is the last of ``window``. ``is_early``: its state grew too large."""

    window: Window
    state: bytes
    is_early: bool


class TumblingWindow:
    """Decides which window the next invocation belongs to.

    :meth:`next_step` changes nothing, so a failed invocation is simply asked for again with the same state;
    :meth:`extended` and :meth:`closed` are called when it succeeded.
    """

    __slots__ = ("_grace_s", "_size_s", "open")

    def __init__(self, size_s: int, grace_s: float, open_window: OpenWindow | None = None) -> None:
        self._size_s = size_s
        self._grace_s = grace_s
        self.open = open_window

    def window_of(self, arrival_s: float) -> Window:
        start_s = int(arrival_s // self._size_s) * self._size_s
        return Window(start_s, start_s + self._size_s)

    def next_step(
        self,
        head_arrival_s: float | None,
        tip_seen_at: float | None,
        *,
        shard_ended: bool,
        latest_filtered_arrival_s: float | None = None,
    ) -> Extend | Close | None:
        """What to invoke next, or None when there is nothing to do.

        ``head_arrival_s`` is the arrival of the next record to process, None when none is buffered.
        ``tip_seen_at`` is when the latest read that found the tip began. ``latest_filtered_arrival_s`` is the
        arrival of the latest record that was filtered out; it ends a window like any other.
        """
        current = self.open
        if current is None:
            return None if head_arrival_s is None else Extend(self.window_of(head_arrival_s), EMPTY_STATE)
        if len(current.state) > STATE_MAX_BYTES:
            return Close(current.window, current.state, is_early=True)
        if head_arrival_s is not None:
            over = head_arrival_s >= current.window.end_s
        else:
            seen_s, end_s = latest_filtered_arrival_s, current.window.end_s
            over = (
                shard_ended
                or (tip_seen_at is not None and tip_seen_at >= end_s + self._grace_s)
                or (seen_s is not None and seen_s >= end_s)
            )
        if over:
            return Close(current.window, current.state, is_early=False)
        return Extend(current.window, current.state) if head_arrival_s is not None else None

    def extended(self, window: Window, state: bytes) -> None:
        """A batch of ``window`` succeeded and left ``state``."""
        self.open = OpenWindow(window, state)

    def closed(self) -> None:
        """The last invocation of the open window succeeded, or was given up."""
        self.open = None
