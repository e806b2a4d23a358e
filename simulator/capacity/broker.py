"""Bikes before IoT Core's broker: what the account may publish a second, and what becomes of the rest.

A publish over the rate is discarded. At QoS 0 that is the end of it. At QoS 1 it is not acknowledged (MQTT 3.1.1), so
the bike publishes it again after :data:`ACK_TIMEOUT_S`, and what it has to say in between waits: it has one message in
flight, as :class:`producers.DeviceProducer` does. A message past its deadline is lost when its turn comes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator.capacity.arrivals import LINGER_MS, TICKS, Indices
from simulator.capacity.offers import Offer, Offers
from simulator.cloud.iot_admission import AccountRates
from simulator.cloud.limits import LimitSettings, TokenBucket

ACK_TIMEOUT_S = 5.0
"""DeviceProducer's ``ack_timeout_s``."""
_ACK_TICKS = round(ACK_TIMEOUT_S * 1000) // LINGER_MS


@dataclass(frozen=True, eq=False, slots=True)
class Published:
    """What a tick's publishes came to: the bikers whose messages the broker took, of which seconds, and counts of
    publishes that were repeated, discarded, and of messages given up by the bikes (``late``) or with their publish
    (``unheard``)."""

    members: Indices
    heads: Indices
    again: int = 0
    discarded: int = 0
    late: int = 0
    unheard: int = 0


class Broker:
    """The account's rate of publishes, and the bikes that wait for it."""

    def __init__(self, offers: Offers, settings: LimitSettings, now: float) -> None:
        self._offers = offers
        self._rates = AccountRates(settings, now)
        self._workload = offers.riders.workload
        count = self._workload.bikers
        self._backlog = np.zeros(count, np.int32)
        self._head = np.zeros(count, np.int64)
        # Bikers with a message that the broker has not taken.
        self._waiting = 0
        self._ready: list[Indices] = []
        self._again: dict[int, list[Indices]] = {}
        self._phases_s = np.zeros(count)
        self._foreseen: tuple[float, float] | None = None
        self.is_steady = False

    @property
    def bucket(self) -> TokenBucket:
        return self._rates.publishes_in

    # -- in bulk, while nobody waits --------------------------------------------------------------------

    def may_pass(self, offer: Offer, moments: list[float]) -> bool:
        """Whether the broker takes a whole second's publishes; nothing is spent until :meth:`passed`."""
        bucket = self.bucket
        before = bucket.tokens, bucket.updated_at
        passes = all(
            self._rates.take_many(bucket, count, now) == count
            for count, now in zip(np.diff(offer.bounds).tolist(), moments, strict=True)
        )
        self._foreseen = bucket.tokens, bucket.updated_at
        self.is_steady = before[0] == bucket.tokens
        bucket.tokens, bucket.updated_at = before
        return passes

    def passed(self) -> None:
        """The second of :meth:`may_pass` did pass."""
        assert self._foreseen is not None
        self.bucket.tokens, self.bucket.updated_at = self._foreseen

    def skip(self, seconds: int) -> None:
        """So many more like it did."""
        self.bucket.updated_at += seconds

    # -- tick by tick ----------------------------------------------------------------------------------

    def publish(self, number: int, offer: Offer | None, now: float) -> Published:
        """All publishes of tick ``number``."""
        second, tick = divmod(number, TICKS)
        senders = np.zeros(0, np.int64)
        if offer is not None:
            senders = offer.senders(tick)
            if tick == 0:
                self._phases_s = offer.phases_ms / 1000
        if not self._waiting and self.bucket.refill(now) >= len(senders):
            self._rates.take_many(self.bucket, len(senders), now)
            return Published(senders, np.full(len(senders), second))
        self._backlog[senders] += 1
        idle = senders[self._backlog[senders] == 1]
        self._head[idle] = second
        self._waiting += len(idle)
        again = self._again.pop(number, [])
        first, self._ready = [*self._ready, idle], []
        repeated = sum(map(len, again))
        tries = np.concatenate([*again, *first])
        late = (
            self._head[tries] + self._phases_s[tries]
            <= now - self._workload.start_ms / 1000 - self._workload.deadline_s
        )
        given_up = tries[late]
        repeated -= int(np.count_nonzero(late[:repeated]))
        self._settle(given_up)
        tries = tries[~late]
        if repeated:
            # Within a tick they come as they come.
            tries = tries[self._offers.shuffled(len(tries))]
        taken = self._rates.take_many(self.bucket, len(tries), now)
        accepted, refused = tries[:taken], tries[taken:]
        heads = self._head[accepted]
        self._settle(accepted)
        unheard = 0
        if self._workload.qos == 0:
            unheard = len(refused)
            self._settle(refused)
        elif len(refused):
            self._again.setdefault(number + _ACK_TICKS, []).append(refused)
        return Published(accepted, heads, repeated, len(refused), len(given_up), unheard)

    def _settle(self, members: Indices) -> None:
        left = self._backlog[members] - 1
        self._backlog[members] = left
        following = members[left > 0]
        self._waiting -= len(members) - len(following)
        if len(following):
            self._head[following] = self._offers.following(following, self._head[following])
            self._ready.append(following)
