"""IoT Core in virtual time: the broker takes publishes (:mod:`simulator.capacity.broker`), a rule puts each on the
stream by a PutRecord of its own.

What the shard refuses is tried again as ``LimitSettings.iot_action_attempts`` and ``iot_action_retry_seconds`` say,
each message by itself, then given to the error action, which is lost to the stream. Pauses end with a tick of 20 ms.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from simulator.capacity.arrivals import LINGER_MS, TICKS, Arrivals, Indices
from simulator.capacity.broker import Broker, Published
from simulator.capacity.gate import Gate
from simulator.capacity.lanes import Lanes
from simulator.capacity.offers import Offer
from simulator.capacity.producing import first_of_each
from simulator.capacity.timeline import Timeline
from simulator.capacity.workload import Riders
from simulator.cloud import limits
from simulator.cloud.limits import LimitSettings
from simulator.cloud.shard import Shard

_PLACE, _LANE, _MEMBER, _DUE, _ATTEMPTS = range(5)
"""Rows of what is put, a column a message: its shard, its lane, its biker, the tick it was due in, attempts made."""


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
        *,
        in_bulk: bool = True,
    ) -> None:
        super().__init__(riders, shards, arrivals, timeline, rng, lanes, batch=0, in_bulk=in_bulk)
        self._settings = settings
        self._broker = Broker(self.offers, settings, shards[0].created_at)
        self._due_ticks = np.zeros(riders.workload.bikers, np.int64)
        # What is tried again, by the tick at whose end it is.
        self._again: dict[int, list[Indices]] = {}

    def tick(self, number: int, offer: Offer | None, now: float) -> None:
        parts = self._again.pop(number, [])
        retries = sum(one.shape[1] for one in parts)
        self._retried(retries)
        if offer is not None:
            senders = offer.senders(number % TICKS)
            is_idle = not self.ledger.outstanding
            self.ledger.generated += len(senders)
            if is_idle and self._broker.bucket.refill(now) >= len(senders) and self.pass_tick(number, offer, now):
                self._broker.publish(number, offer, now)
                return
            self._due_ticks = offer.ticks
        published = self._broker.publish(number, offer, now)
        self._tell_publishes(published, now)
        if len(published.members):
            parts.append(self._first(published, offer))
        if not parts:
            return
        puts = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        if retries:
            # Within a tick first attempts and others come as they come: none goes first.
            puts = puts[:, self.draws.permutation(puts.shape[1])]
        if puts.size:
            self._put(puts, number, now)

    def _retried(self, count: int) -> None:
        self.ledger.retried += count
        self.count("retried", "producer", count)

    def _tell_publishes(self, published: Published, now: float) -> None:
        self._retried(published.again)
        self.lose(published.late, "producer")
        self.lose(published.unheard, "IoT Core")
        if published.discarded:
            self.ledger.throttled += published.discarded
            self.count("throttled", "IoT Core", published.discarded)
            quota = limits.IOT_SMALL_PUBLISH_IN if self._settings.iot_small_region else limits.IOT_PUBLISH_IN
            self.timeline.broke(quota.name, "IoT Core", quota.value, quota.unit, now, published.discarded)

    def _first(self, published: Published, offer: Offer | None) -> Indices:
        members, heads = published.members, published.heads
        puts = np.zeros((5, len(members)), np.int64)
        if offer is not None and int(heads.min()) >= offer.second:
            puts[_PLACE], lanes = offer.shards[members], None if offer.lanes is None else offer.lanes[members]
        else:
            puts[_PLACE], lanes = self.offers.route(members, heads)
        if lanes is not None:
            puts[_LANE] = lanes
        puts[_MEMBER] = members
        puts[_DUE] = heads * TICKS + self._due_ticks[members]
        return puts

    # -- in bulk ---------------------------------------------------------------------------------------

    def may_pass(self, offer: Offer, moments: list[float]) -> bool:
        return self._broker.may_pass(offer, moments)

    def passed(self, offer: Offer) -> bool:
        self._broker.passed()
        return self._broker.is_steady

    def skipped(self, offer: Offer, seconds: int) -> None:
        self._broker.skip(seconds)

    # -- puts ------------------------------------------------------------------------------------------

    def _put(self, puts: Indices, number: int, now: float) -> None:
        totals = np.bincount(puts[_PLACE], minlength=len(self.shards))
        taken = self.admit(totals.reshape(1, -1), now, each=True)
        if np.array_equal(taken, totals):
            self._accepted(puts, number)
            return
        passes = first_of_each(puts[_PLACE], totals, taken)
        self._accepted(puts[:, passes], number)
        refused = puts[:, ~passes]
        refused[_ATTEMPTS] += 1
        gives_up = refused[_ATTEMPTS] >= self._settings.iot_action_attempts
        if gives_up.any():
            self.lose(int(np.count_nonzero(gives_up)), "error action")
            refused = refused[:, ~gives_up]
        if refused.size:
            self._back_off(refused, number)

    def _accepted(self, puts: Indices, number: int) -> None:
        places, lanes = puts[_PLACE], puts[_LANE] if self.lanes.count > 1 else None
        self.store(number % TICKS, places, puts[_MEMBER], puts[_DUE] // TICKS, lanes)
        self.count_waits(number % TICKS, places, number + 1 - puts[_DUE])

    def _back_off(self, refused: Indices, number: int) -> None:
        jitter = 0.5 + self.draws.random(refused.shape[1])
        pauses_s = self._settings.iot_action_retry_seconds * 2.0 ** (refused[_ATTEMPTS] - 1) * jitter
        wakes = number + np.maximum(1, np.ceil(pauses_s * 1000 / LINGER_MS).astype(np.int64))
        order = np.argsort(wakes, kind="stable")
        refused, wakes = refused[:, order], wakes[order]
        begins = np.flatnonzero(np.diff(wakes, prepend=-1)).tolist()
        for begin, end in zip(begins, [*begins[1:], len(wakes)], strict=True):
            self._again.setdefault(int(wakes[begin]), []).append(refused[:, begin:end])
