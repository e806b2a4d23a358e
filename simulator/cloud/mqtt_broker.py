"""IoT Core's message broker: sessions, subscriptions, retained messages, wills, lifecycle events. No I/O.

What differs from the MQTT standards is IoT Core's own behaviour (developer guide, *MQTT* and *Lifecycle events*):
QoS 2 is not there, a subscription to ``sensor/#`` does not match ``sensor``, messages over a rate are discarded and
not acknowledged, stored messages come at ten a second, and whoever connects or leaves is told on ``$aws/events/``.

Why a broker of its own and not amqtt or mosquitto: each limit is a decision about one packet between reading and
acknowledging it, which neither lets anybody make from outside; amqtt has no MQTT 5, which AWS's device SDK speaks,
and ends at about half of the 20,000 publishes a second that the account limit has to be reached with. ``make bench``
prints the three side by side.

Where overlapping subscriptions of one client match, the message is delivered once, at the highest QoS granted.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

import orjson

from simulator.cloud import limits
from simulator.cloud import mqtt_properties as props
from simulator.cloud.iot_admission import AccountRates
from simulator.cloud.iot_meter import IotMeter
from simulator.cloud.limits import LimitSettings
from simulator.cloud.mqtt_codec import Connect, Filter, Will
from simulator.cloud.mqtt_properties import NO_PROPERTIES, Properties, Reason
from simulator.cloud.mqtt_session import Delivery, Session, Subscription
from simulator.cloud.topic_filters import FilterTree, problem_with_filter

_FORWARDED = (
    props.PAYLOAD_FORMAT,
    props.CONTENT_TYPE,
    props.RESPONSE_TOPIC,
    props.CORRELATION_DATA,
    props.USER_PROPERTY,
)
VERSION_SECONDS = 3_600.0
"""How long after its end a client's versionNumber counts on (developer guide, *Lifecycle events*: about an hour)."""
RESERVED_FOR_RULES = "$aws/rules/"
ENDS_WITH_CONNECTION = 0.0


@dataclass(frozen=True, slots=True)
class Retained:
    """The message that new subscribers of its topic get at once."""

    payload: bytes
    qos: int
    updated_at: float
    properties: Properties = field(default_factory=dict)
    expires_at: float | None = None


class Client(Protocol):
    """A connection, as the broker needs it."""

    version: int
    client_id: str

    def deliver(self, delivery: Delivery, now: float) -> None:
        """Send a message, or discard it for a rate, or store it in the session."""

    def end(self, disconnect_reason: str, reason: Reason, now: float) -> None:
        """Close from this side."""

    def flush(self, now: float) -> None:
        """Write what was collected."""


Rules = Callable[[str, bytes, int, str, float], None]
"""What takes every accepted publish: topic, payload, QoS, client id, now."""


class Broker:
    """One account's broker. Whoever has had it do something calls :meth:`flush` afterwards."""

    def __init__(self, settings: LimitSettings, meter: IotMeter, rules: Rules, now: float) -> None:
        self.settings = settings
        self.meter = meter
        self.rates = AccountRates(settings, now)
        self.sessions: dict[str, Session] = {}
        self.clients: dict[str, Client] = {}
        self.retained: dict[str, Retained] = {}
        self.dirty: list[Client] = []
        # Takes what would go to subscribers when they are at another broker.
        self.elsewhere: Callable[[str, bytes, int, bool], None] | None = None
        self._rules = rules
        self._tree: FilterTree[Subscription] = FilterTree()
        self._versions: dict[str, int] = {}
        # When clients left that have not come back, the longest gone first.
        self._left_at: dict[str, float] = {}
        # Sessions that nobody is connected to, with an end; wills that wait.
        self._away: set[str] = set()

    def flush(self, now: float) -> None:
        """Let every connection that has something to send write it."""
        while self.dirty:
            dirty, self.dirty = self.dirty, []
            for client in dirty:
                client.flush(now)

    # -- coming and going ------------------------------------------------------------------------------

    def connect(self, client: Client, asked: Connect, expiry_s: float, now: float) -> tuple[Session, bool]:
        """``client`` takes its session, after whoever else had its id was sent away.

        :returns: the session, and whether it was there already.
        """
        client_id = client.client_id
        other = self.clients.get(client_id)
        if other is not None:
            other.end("DUPLICATE_CLIENTID", Reason.TAKEN_OVER, now)
        session = self.sessions.get(client_id)
        if session is not None and (asked.clean or (session.ends_at is not None and session.ends_at <= now)):
            self._forget(session, now)
            session = None
        present = session is not None
        if session is None:
            session = self.sessions[client_id] = Session(client_id, asked.version, expiry_s)
        session.version, session.expiry_s = asked.version, expiry_s
        session.ends_at, session.will, session.will_at = None, asked.will, None
        self._away.discard(client_id)
        self.clients[client_id] = client
        return session, present

    def leave(self, client: Client, disconnect_reason: str, now: float, *, send_will: bool) -> None:
        """The connection of ``client`` has ended."""
        client_id = client.client_id
        if self.clients.get(client_id) is not client:
            return
        del self.clients[client_id]
        session = self.sessions[client_id]
        session.put_back()
        will = session.will if send_will else None
        session.will = will
        if will is not None and (will.delay_s == 0 or session.expiry_s <= 0):
            self._send_will(session, will, now)
        elif will is not None:
            session.will_at = now + min(will.delay_s, session.expiry_s)
        if session.expiry_s <= ENDS_WITH_CONNECTION:
            self._forget(session, now)
        else:
            session.ends_at = now + session.expiry_s
            self._away.add(client_id)

    def tick(self, now: float) -> None:
        """End sessions and send wills whose time has come. To be called about once a second."""
        for client_id in [one for one in self._away if self._is_due(self.sessions[one], now)]:
            session = self.sessions[client_id]
            if session.will is not None and session.will_at is not None and session.will_at <= now:
                self._send_will(session, session.will, now)
            if session.ends_at is not None and session.ends_at <= now:
                self._forget(session, now)
        while self._left_at:
            client_id, left_at = next(iter(self._left_at.items()))
            if left_at + VERSION_SECONDS > now:
                break
            del self._left_at[client_id]
            self._versions.pop(client_id, None)

    @staticmethod
    def _is_due(session: Session, now: float) -> bool:
        return min(session.ends_at or now, session.will_at or now + 1) <= now

    def forget(self) -> None:
        """Drop every session that is away, and what is retained. For a broker that nobody is connected to."""
        self.sessions.clear()
        self.retained.clear()
        self._away.clear()
        self._versions.clear()
        self._tree = FilterTree()

    def _forget(self, session: Session, now: float) -> None:
        for subscription in session.subscriptions.values():
            self._tree.remove(subscription.topic_filter, self._key(subscription))
        if session.will is not None and session.will_at is not None:
            self._send_will(session, session.will, now)
        self._away.discard(session.client_id)
        self.sessions.pop(session.client_id, None)

    def _send_will(self, session: Session, will: Will, now: float) -> None:
        session.will, session.will_at = None, None
        self.meter.count("PublishIn.Success", now)
        self.publish(will.topic, will.payload, will.qos, session.client_id, now, will.retain, will.properties)

    # -- subscribing -----------------------------------------------------------------------------------

    def subscribe(self, session: Session, asked: Filter, subscription_id: int | None, now: float) -> int:
        """Grant one filter; the code for SUBACK. Retained messages follow at once."""
        topic_filter, group = asked.topic_filter, None
        if topic_filter.startswith("$share/"):
            _, group, topic_filter = (*topic_filter.split("/", 2), "", "")[:3]
            if not group or "+" in group or "#" in group or asked.no_local:
                return self._refuse(Reason.TOPIC_FILTER_INVALID, now)
        if problem_with_filter(topic_filter) is not None:
            return self._refuse(Reason.TOPIC_FILTER_INVALID, now)
        known = asked.topic_filter in session.subscriptions
        if not known and len(session.subscriptions) >= int(limits.IOT_SUBSCRIPTIONS):
            return self._refuse(Reason.QUOTA_EXCEEDED, now)
        if not self.rates.take(self.rates.subscribes, now):
            self.meter.count("Subscribe.Throttle", now)
            return Reason.QUOTA_EXCEEDED
        subscription = Subscription(
            session.client_id,
            topic_filter,
            min(asked.qos, 1),
            asked.no_local,
            asked.retain_as_published,
            subscription_id,
            group,
        )
        session.subscriptions[asked.topic_filter] = subscription
        self._tree.add(topic_filter, self._key(subscription), subscription)
        self.meter.count("Subscribe.Success", now)
        if group is None and (asked.retain_handling == 0 or (asked.retain_handling == 1 and not known)):
            self._send_retained(subscription, now)
        return subscription.qos

    def _refuse(self, reason: Reason, now: float) -> int:
        self.meter.count("Subscribe.ClientError", now)
        return reason

    def unsubscribe(self, session: Session, topic_filter: str, now: float) -> int:
        """Take one filter back; the code for UNSUBACK."""
        subscription = session.subscriptions.pop(topic_filter, None)
        self.meter.count("Unsubscribe.Success", now)
        if subscription is None:
            return Reason.NO_SUBSCRIPTION
        self._tree.remove(subscription.topic_filter, self._key(subscription))
        return Reason.SUCCESS

    @staticmethod
    def _key(subscription: Subscription) -> tuple[str, str | None]:
        return subscription.client_id, subscription.group

    def _send_retained(self, subscription: Subscription, now: float) -> None:
        if not self.retained:
            return
        one: FilterTree[None] = FilterTree()
        one.add(subscription.topic_filter, "", None)
        for topic, kept in list(self.retained.items()):
            if kept.expires_at is not None and kept.expires_at <= now:
                del self.retained[topic]
            elif one.match(topic):
                self._hand(
                    subscription, topic.encode(), kept.payload, kept.qos, True, kept.properties, kept.expires_at, now
                )

    # -- publishing ------------------------------------------------------------------------------------

    def publish(
        self,
        topic: str,
        payload: bytes,
        qos: int,
        client_id: str,
        now: float,
        retain: bool = False,
        properties: Properties = NO_PROPERTIES,
    ) -> None:
        """Give an accepted message to the rules, and to the subscribers unless it is Basic Ingest."""
        if not topic.startswith(RESERVED_FOR_RULES):
            if self.elsewhere is not None:
                # It comes back from there to the rules that want it.
                self.elsewhere(topic, payload, qos, retain)
                return
            if retain:
                self._retain(topic, payload, qos, properties, now)
            found = self._tree.match(topic)
            if found:
                self._fan_out(found, topic.encode(), payload, qos, retain, client_id, properties, now)
        self._rules(topic, payload, qos, client_id, now)

    def _retain(self, topic: str, payload: bytes, qos: int, properties: Properties, now: float) -> None:
        """Keep it for later subscribers; one over a rate is delivered all the same, but not kept."""
        rates = self.rates
        if not rates.topic_may_retain(topic, now) or not rates.take(rates.retained, now):
            self.meter.count("PublishRetained.Throttle", now)
            return
        self.meter.count("PublishRetained.Success", now)
        if payload:
            self.retained[topic] = Retained(payload, qos, now, _forwarded(properties), _expiry(properties, now))
        else:
            self.retained.pop(topic, None)

    def _fan_out(
        self,
        found: list[Subscription],
        topic: bytes,
        payload: bytes,
        qos: int,
        retain: bool,
        client_id: str,
        properties: Properties,
        now: float,
    ) -> None:
        expires_at = None
        if properties:
            expires_at = _expiry(properties, now)
            properties = _forwarded(properties)
        for subscription in found if len(found) == 1 else _once_each(found, self.clients, client_id):
            if subscription.no_local and subscription.client_id == client_id:
                continue
            kept = retain and subscription.retain_as_published
            self._hand(subscription, topic, payload, qos, kept, properties, expires_at, now)

    def _hand(
        self,
        subscription: Subscription,
        topic: bytes,
        payload: bytes,
        qos: int,
        retain: bool,
        properties: Properties,
        expires_at: float | None,
        now: float,
    ) -> None:
        if subscription.subscription_id is not None:
            properties = {**properties, props.SUBSCRIPTION_ID: [subscription.subscription_id]}
        delivery = Delivery(topic, payload, min(qos, subscription.qos), retain, properties, expires_at)
        client = self.clients.get(subscription.client_id)
        if client is not None:
            client.deliver(delivery, now)
        elif delivery.qos:
            self.store(self.sessions[subscription.client_id], delivery, now)

    def store(self, session: Session, delivery: Delivery, now: float) -> None:
        """Keep a message of QoS 1 for a client that is away or has too many unacknowledged."""
        if not self.rates.take(self.rates.queued, now):
            self.meter.count("Queued.Throttle", now)
        elif session.store(delivery):
            self.meter.count("Queued.Success", now)
        else:
            self.meter.count("Queued.ServerError", now)

    # -- lifecycle events ------------------------------------------------------------------------------

    def tell(self, event: str, client_id: str, now: float, **members: object) -> None:
        """Publish a lifecycle event: ``event`` is such as ``presence/connected``. Costs little if nobody listens."""
        if "+" in client_id or "#" in client_id:
            return
        topic = f"$aws/events/{event}/{client_id}"
        if event == "presence/connected":
            self._versions[client_id] = self._versions.get(client_id, -1) + 1
            self._left_at.pop(client_id, None)
        elif event == "presence/disconnected":
            self._left_at[client_id] = now
        if event.startswith("presence/"):
            members["versionNumber"] = self._versions.get(client_id, 0)
        body = {
            "clientId": client_id,
            "timestamp": int(now * 1000),
            "eventType": event.rpartition("/")[2],
            **members,
        }
        self.publish(topic, orjson.dumps(body), 0, client_id, now)


def new_session_identifier() -> str:
    """IoT Core's sessionIdentifier of a connection."""
    return str(uuid.uuid4())


def _forwarded(properties: Properties) -> Properties:
    """What a publisher's properties become for subscribers."""
    if not properties:
        return NO_PROPERTIES
    return {name: properties[name] for name in _FORWARDED if name in properties}


def _expiry(properties: Properties, now: float) -> float | None:
    """When a message with these properties is of no use any more."""
    lifetime_s = properties.get(props.MESSAGE_EXPIRY)
    return None if lifetime_s is None else now + min(lifetime_s, limits.IOT_MESSAGE_EXPIRY_SECONDS.value)


def _once_each(found: Iterable[Subscription], clients: dict[str, Client], publisher: str) -> Iterable[Subscription]:
    """One subscription a client, the one of highest QoS; one member of each shared group, connected if any is.

    A No Local subscription of the publisher's own is left out, so that it hides no other of its subscriptions.
    """
    chosen: dict[str, Subscription] = {}
    groups: dict[tuple[str, str], list[Subscription]] = {}
    for one in found:
        if one.group is not None:
            groups.setdefault((one.group, one.topic_filter), []).append(one)
        elif one.no_local and one.client_id == publisher:
            continue
        elif one.client_id not in chosen or chosen[one.client_id].qos < one.qos:
            chosen[one.client_id] = one
    yield from chosen.values()
    for members in groups.values():
        yield random.choice([one for one in members if one.client_id in clients] or members)
