"""The messages of one connection that wait for their PUBACK: each leaves exactly once. No I/O, no clock.

MQTT knows a message by its packet id, of which there are 65,535, and a broker that discards a message says nothing.
So an id is free again when its message was acknowledged, was given up after ``timeout_s``, or went down with its
connection; a PUBACK for an id that is free came too late and ends nothing.
"""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class Unacknowledged(Generic[T]):
    """Messages by packet id, the oldest first. All calls are O(1) for each message that leaves.

    :param timeout_s: how long a message waits; ``inf`` is for ever.
    """

    __slots__ = ("_messages", "timeout_s")

    def __init__(self, timeout_s: float) -> None:
        if not timeout_s > 0:
            raise ValueError(f"a message must be given some time to be acknowledged, not {timeout_s} s")
        self.timeout_s = timeout_s
        self._messages: dict[int, tuple[float, T]] = {}

    def add(self, packet_id: int, message: T, now: float) -> None:
        """``message`` was published at ``now``, in seconds of a clock that never goes back.

        :raises ValueError: when another message has that id; it would never end.
        """
        if packet_id in self._messages:
            raise ValueError(f"packet id {packet_id} belongs to a message that was not acknowledged yet")
        self._messages[packet_id] = (now, message)

    def acknowledged(self, packet_id: int) -> T | None:
        """The message that this PUBACK ends; None when there is none any more."""
        found = self._messages.pop(packet_id, None)
        return None if found is None else found[1]

    def is_due(self, now: float) -> bool:
        """Whether :meth:`expire` would give up anything."""
        for sent_at, _ in self._messages.values():
            return sent_at + self.timeout_s <= now
        return False

    def expire(self, now: float) -> list[tuple[int, T]]:
        """Give up what was published ``timeout_s`` ago or before: packet ids and messages."""
        expired = []
        for packet_id, (sent_at, message) in self._messages.items():
            if sent_at + self.timeout_s > now:
                break
            expired.append((packet_id, message))
        for packet_id, _ in expired:
            del self._messages[packet_id]
        return expired

    def drop_all(self) -> list[T]:
        """All that wait, because nothing can acknowledge them any more."""
        dropped = [message for _, message in self._messages.values()]
        self._messages.clear()
        return dropped

    def __len__(self) -> int:
        return len(self._messages)

    def __contains__(self, packet_id: int) -> bool:
        return packet_id in self._messages
