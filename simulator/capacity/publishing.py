"""What :mod:`consumers.publish` does with a batch of a table's stream: a message to IoT Core for each race and class.

Of several changes to one results item in a batch, the last is published; beyond 128 KB in parts. A message costs as
much time as a call of the table. Series of the timeline, by function: ``publishes``, messages a second.

What screens get of them is not known here, nor charged: who subscribes is not in a template.
"""

from __future__ import annotations

import math

from consumers.publish import PAYLOAD_MAX_BYTES
from consumers.runtime.actions import Invoke
from consumers.runtime.batches import Outcome
from simulator.capacity.clock import Clock, Process
from simulator.capacity.delays import Delays
from simulator.capacity.handlers import Durations, ReadOnly, complete
from simulator.capacity.prices import IOT_METER_BYTES
from simulator.capacity.table_feed import Change
from simulator.capacity.timeline import Timeline

PUBLISH = "consumers.publish.handler"
_HEAD = '{"msg":"results","classId":1,"raceId":%s,"ts":1700000000000,'
_BODY = '"results":'
_PART = '"part":0000,"parts":0000,'


def payloads(race_id: str, text_bytes: int) -> list[int]:
    """The sizes in bytes of the messages that tell of results whose JSON text has ``text_bytes``."""
    around = len(_HEAD % race_id) + len(_BODY) + len("}")
    if around + text_bytes <= PAYLOAD_MAX_BYTES:
        return [around + text_bytes]
    around += len(_PART) + len("{}")
    room = PAYLOAD_MAX_BYTES - around
    parts, rest = divmod(text_bytes - len("{}"), room)
    return [PAYLOAD_MAX_BYTES] * parts + ([around + rest] if rest else [])


class Publish(ReadOnly):
    """``metered`` is what it published, in IoT Core's steps of 5 KB of topic and payload."""

    def __init__(
        self, durations: Durations, clock: Clock, delays: Delays, timeline: Timeline, function: str, topic: str
    ) -> None:
        super().__init__(durations, clock, delays)
        self.metered = 0
        self._call_s = durations.call_ms / 1e3
        self._timeline = timeline
        self._function = function
        self._topic_bytes = len(topic.encode())

    def read(self, action: Invoke) -> Process[Outcome]:
        yield self.base_s(action.count)
        # The last change of each item, in the order of the first.
        changes = {one.results: one for one in action.records if isinstance(one, Change) and one.results}
        for key, change in changes.items():
            race_id = key.partition("/")[0].removeprefix("race-")
            for nbytes in payloads(race_id, change.text_bytes):
                yield self._call_s
                self.metered += math.ceil((nbytes + self._topic_bytes) / IOT_METER_BYTES)
                self._timeline.add("publishes", self._function, self._clock.now, 1)
        return complete(action, b"{}")
