"""IoT Core's rule in virtual time: a PutRecord a message.

What the shard refuses is tried again as ``LimitSettings.iot_action_attempts`` and ``iot_action_retry_seconds`` say,
each message by itself, then given to the error action, which is lost to the stream. Pauses end with a tick of 20 ms.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simulator.capacity.arrivals import LINGER_MS, TICKS, Arrivals, Indices
from simulator.capacity.gate import Gate
from simulator.capacity.lanes import Lanes
from simulator.capacity.timeline import Timeline
from simulator.capacity.workload import START_MS, RaceOffer, Riders
from simulator.cloud.limits import LimitSettings
from simulator.cloud.shard import Shard


@dataclass(frozen=True, slots=True)
class _Puts:
    """PutRecords of single messages: the shard of each, its biker, the tick it was due in, and attempts made."""

    places: Indices
    members: Indices
    due: Indices
    attempts: Indices

    def chosen(self, which: Indices) -> _Puts:
        return _Puts(self.places[which], self.members[which], self.due[which], self.attempts[which])


class RuleProducer(Gate):
    """IoT Core's rule: each message is a PutRecord of its own, in no order with others."""

    def __init__(
        self,
        riders: Riders,
        shards: Sequence[Shard],
        arrivals: Arrivals,
        timeline: Timeline,
        rng: random.Random,
        settings: LimitSettings,
        lanes: Lanes,
    ) -> None:
        super().__init__(riders, shards, arrivals, timeline, lanes)
        self._settings = settings
        self._rng = np.random.default_rng(rng.getrandbits(64))
        self._total = riders.workload.total_seconds
        # What is tried again, by the tick at whose end it is.
        self._again: dict[int, list[_Puts]] = {}

    def tick(self, number: int, now: float) -> None:
        """As :meth:`PutRecordsProducer.tick`."""
        second, tick = divmod(number, TICKS)
        parts = self._again.pop(number, [])
        retries = sum(len(one.members) for one in parts)
        if retries:
            self.ledger.retried += retries
            self.timeline.add("retried", "producer", now, retries)
        if second < self._total:
            offer = self.offer(second // self.riders.workload.seconds)
            senders = offer.senders(tick)
            self.ledger.generated += len(senders)
            zeros = np.zeros(len(senders), np.int64)
            parts.append(_Puts(self._shards(offer, senders, second), senders, zeros + number, zeros))
        puts = parts[0] if len(parts) == 1 else _joined(parts)
        for place in np.flatnonzero(np.bincount(puts.places, minlength=len(self.shards))).tolist():
            mine = np.flatnonzero(puts.places == place)
            # Within a tick first attempts and others come as they come: none goes first.
            self._put(place, puts.chosen(self._rng.permutation(mine) if retries else mine), number, now)

    def _shards(self, offer: RaceOffer, senders: Indices, second: int) -> Indices:
        if offer.shards is not None:
            return offer.shards[senders]
        if self.riders.workload.partition_key == "random":
            return self._rng.integers(0, len(self.shards), len(senders))
        return self.riders.shards_by_time(START_MS + second * 1000 + offer.phases_ms[senders])

    def _put(self, place: int, puts: _Puts, number: int, now: float) -> None:
        count = len(puts.members)
        taken = self.admit(place, count, now, each=True)
        if taken:
            self.count_waits(place, number + 1 - puts.due[:taken])
            self.store(place, puts.members[:taken], puts.due[:taken] // TICKS)
        if taken == count:
            return
        refused = puts.chosen(np.arange(taken, count))
        refused = _Puts(refused.places, refused.members, refused.due, refused.attempts + 1)
        gives_up = refused.attempts >= self._settings.iot_action_attempts
        if gives_up.any():
            self.ledger.lost += int(gives_up.sum())
            self.timeline.add("lost", "error action", now, int(gives_up.sum()))
            refused = refused.chosen(np.flatnonzero(~gives_up))
        if not len(refused.members):
            return
        jitter = 0.5 + self._rng.random(len(refused.members))
        pauses_s = self._settings.iot_action_retry_seconds * 2.0 ** (refused.attempts - 1) * jitter
        wakes = number + np.maximum(1, np.ceil(pauses_s * 1000 / LINGER_MS).astype(np.int64))
        for wake in np.unique(wakes).tolist():
            self._again.setdefault(wake, []).append(refused.chosen(np.flatnonzero(wakes == wake)))


def _joined(parts: Sequence[_Puts]) -> _Puts:
    if not parts:
        none = np.zeros(0, np.int64)
        return _Puts(none, none, none, none)
    return _Puts(
        np.concatenate([one.places for one in parts]),
        np.concatenate([one.members for one in parts]),
        np.concatenate([one.due for one in parts]),
        np.concatenate([one.attempts for one in parts]),
    )
