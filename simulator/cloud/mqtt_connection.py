"""One MQTT connection to the embedded IoT Core: its packets, its limits, its end. No I/O.

The listener gives it what arrives (:meth:`Connection.feed`) and the time now and then (:meth:`Connection.check`); it
answers through a :class:`Link`. What goes out is collected until :meth:`Connection.flush`, so that the
acknowledgements of everything that arrived together leave in one write.
"""

from __future__ import annotations

from typing import Protocol

from simulator.cloud import limits
from simulator.cloud import mqtt_codec as codec
from simulator.cloud import mqtt_properties as props
from simulator.cloud.iot_admission import ConnectionRates
from simulator.cloud.mqtt_broker import RESERVED_FOR_RULES, Broker, new_session_identifier
from simulator.cloud.mqtt_codec import V5, Framer, Publish
from simulator.cloud.mqtt_properties import MqttError, Reason
from simulator.cloud.mqtt_session import Delivery, Session, next_wanted
from simulator.cloud.topic_filters import problem_with_topic

OUT_MAX_BYTES = 4 * 1024 * 1024
"""What may wait for a client that reads slowly; further messages to it are discarded. Not published by AWS."""
CONNECT_TIMEOUT_S = 30.0
"""A connection without CONNECT so long after it was opened is closed. Not published by AWS."""

CLOSE_TIMEOUT_S = 5.0
"""How long a closed connection's client may take what was written to it, before the transport is dropped."""

_CLOCKS_DIFFER_S = 0.002
# A clock that is set back must not keep a connection still for as long.
_LONGEST_REST_S = 5.0
_IN_FLIGHT = int(limits.IOT_IN_FLIGHT)
_PAYLOAD_MAX = int(limits.IOT_PAYLOAD_MAX_BYTES)


class Link(Protocol):
    """The transport under a connection."""

    def write(self, data: bytes) -> None: ...

    def buffered_bytes(self) -> int:
        """What was written and the client has not taken."""

    def close(self) -> None:
        """After what was written."""

    def abort(self) -> None:
        """At once."""

    def rest(self, seconds: float) -> None:
        """Stop reading for so long, then call :meth:`Connection.rested`."""


class Connection:
    """A client from its first byte to its last. ``principal`` is the certificate's id, empty without one."""

    def __init__(
        self, broker: Broker, link: Link, now: float, *, principal: str = "", address: str = "", lifetime_s: float = 0
    ) -> None:
        self.version = codec.V311
        self.client_id = ""
        self.is_open = True
        self._broker, self._link = broker, link
        self._settings = broker.settings
        self._principal, self._address = principal, address
        self._framer = Framer(int(limits.IOT_PACKET_MAX_BYTES))
        self._rates = ConnectionRates(broker.settings, now)
        self._session: Session | None = None
        self._session_identifier = ""
        self._keep_alive_s = 0.0
        self._heard_at = now
        self._closed_at: float | None = None
        self._ends_at = now + lifetime_s if lifetime_s else None
        self._aliases: dict[int, str] = {}
        self._receive_maximum = _IN_FLIGHT
        self._max_packet_bytes = codec.MAX_REMAINING_BYTES
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._is_dirty = False
        self._rests_until = 0.0

    # -- what the listener calls -----------------------------------------------------------------------

    def feed(self, data: bytes, now: float) -> None:
        """Bytes arrived."""
        if self._session is not None:
            self._heard_at = now
        try:
            if self._session is None and not self._framer.buffered_bytes and data[:1] not in (b"", b"\x10"):
                # Said at the first byte: what speaks HTTP here would else wait for an answer until the timeout.
                raise MqttError("the first packet is not CONNECT", Reason.PROTOCOL_ERROR)
            for first, body in self._framer.feed(data):
                if not self.is_open:
                    return
                self._packet(first, body, now)
        except MqttError as error:
            self._broken(error, now)
            return
        wait_s = self._rates.spend_bytes(len(data), now)
        if wait_s and self.is_open:
            self._rest(wait_s, now)

    def flush(self, now: float) -> None:
        """Write what has been collected, unless the connection is over its throughput."""
        self._is_dirty = False
        if not self._out or now < self._rests_until:
            return
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        self._out_bytes = 0
        self._link.write(data)
        wait_s = self._rates.spend_bytes(len(data), now)
        if wait_s and self.is_open:
            self._rest(wait_s, now)

    def rested(self, now: float) -> None:
        """The time of :meth:`Link.rest` is over, unless more came meanwhile."""
        left_s = self._rests_until - now
        if left_s > _CLOCKS_DIFFER_S:
            self._rests_until = min(self._rests_until, now + _LONGEST_REST_S)
            self._link.rest(min(left_s, _LONGEST_REST_S))
            return
        self._rests_until = 0.0
        self.flush(now)

    @property
    def is_resting(self) -> bool:
        """Whether the connection waits because it was over its throughput."""
        return self._rests_until > 0

    def abandon(self) -> None:
        """The broker ends: drop the transport."""
        self._link.abort()

    def lost(self, now: float) -> None:
        """The transport is gone."""
        self._leave("CONNECTION_LOST", now, send_will=True)

    def check(self, now: float) -> None:
        """Keep-alive, waiting and stored messages, redelivery. To be called about once a second."""
        if not self.is_open:
            # A client that takes nothing would keep a closed transport, and what was written to it, for ever.
            self._closed_at = now if self._closed_at is None else self._closed_at
            if now - self._closed_at > CLOSE_TIMEOUT_S:
                self._link.abort()
            return
        if self._session is None:
            if now - self._heard_at > CONNECT_TIMEOUT_S:
                self._close()
            return
        if now - self._heard_at > 1.5 * self._keep_alive_s:
            self.end("MQTT_KEEP_ALIVE_TIMEOUT", Reason.KEEP_ALIVE_TIMEOUT, now)
            return
        if self._ends_at is not None and now >= self._ends_at:
            self.end("WEBSOCKET_TTL_EXPIRATION", Reason.MAXIMUM_CONNECT_TIME, now)
            return
        if self._out_bytes + self._link.buffered_bytes() > 2 * OUT_MAX_BYTES:
            # Messages end at the bound; these are answers to a client that asks and never reads.
            self._leave("CONNECTION_LOST", now, send_will=True)
            self._link.abort()
            return
        if self._session.waiting:
            self._send_waiting(self._session, now)
        if self._session.stored:
            self._send_stored(self._session, now)
        if self._session.in_flight and self.version != V5:
            self._send_again(self._session, now)

    def end(self, disconnect_reason: str, reason: Reason, now: float) -> None:
        """Close from this side; the will is sent."""
        if self.version == V5 and self._session is not None and self.is_open:
            self._write(codec.disconnect_packet(reason))
        self._leave(disconnect_reason, now, send_will=True)
        self._close()

    # -- the end ---------------------------------------------------------------------------------------

    def _broken(self, error: MqttError, now: float) -> None:
        if self._session is None:
            self._broker.meter.count("Connect.ClientError", now)
            if error.reason is Reason.UNSUPPORTED_VERSION:
                self._write(codec.connack_packet(codec.V311, error.reason))
            self._close()
            return
        self.end("CLIENT_ERROR", error.reason, now)

    def _leave(self, disconnect_reason: str, now: float, *, send_will: bool) -> None:
        if not self.is_open:
            return
        self.is_open = False
        session, self._session = self._session, None
        if session is None:
            return
        broker = self._broker
        broker.meter.disconnects[disconnect_reason] += 1
        broker.leave(self, disconnect_reason, now, send_will=send_will)
        broker.tell(
            "presence/disconnected",
            self.client_id,
            now,
            clientInitiatedDisconnect=disconnect_reason == "CLIENT_INITIATED_DISCONNECT",
            sessionIdentifier=self._session_identifier,
            principalIdentifier=self._principal,
            disconnectReason=disconnect_reason,
        )

    def _close(self) -> None:
        self.is_open = False
        if self._out:
            self._link.write(b"".join(self._out))
            self._out.clear()
        self._link.close()

    def _rest(self, seconds: float, now: float) -> None:
        was_resting = self.is_resting
        self._rests_until = max(self._rests_until, now + seconds)
        if not was_resting:
            self._link.rest(min(seconds, _LONGEST_REST_S))

    def _write(self, data: bytes) -> None:
        self._out.append(data)
        self._out_bytes += len(data)
        if not self._is_dirty:
            self._is_dirty = True
            self._broker.dirty.append(self)

    # -- what arrives ----------------------------------------------------------------------------------

    def _packet(self, first: int, body: bytes, now: float) -> None:
        kind, session = first >> 4, self._session
        if session is None:
            if kind != codec.CONNECT:
                raise MqttError("the first packet is not CONNECT", Reason.PROTOCOL_ERROR)
            self._connect(body, now)
        elif kind == codec.PUBLISH:
            self._publish(codec.read_publish(first, body, self.version), now)
        elif kind == codec.PUBACK:
            if session.acknowledge(codec.read_puback(body)):
                self._send_waiting(session, now)
        elif kind == codec.PINGREQ:
            self._broker.meter.count("Ping.Success", now)
            self._write(codec.PINGRESP_PACKET)
        elif kind == codec.SUBSCRIBE:
            self._subscribe(session, first, body, now)
        elif kind == codec.UNSUBSCRIBE:
            packet_id, filters = codec.read_unsubscribe(first, body, self.version)
            codes = [self._broker.unsubscribe(session, one, now) for one in filters]
            self._write(codec.unsuback_packet(self.version, packet_id, codes))
            self._tell_subscriptions("unsubscribed", list(filters), now)
        elif kind == codec.DISCONNECT:
            self._disconnect(session, body, now)
        else:
            # A second CONNECT, and the packets of QoS 2 and AUTH, which IoT Core does not take.
            raise MqttError(f"packet type {kind}", Reason.PROTOCOL_ERROR)

    def _connect(self, body: bytes, now: float) -> None:
        asked = codec.read_connect(body)
        broker, rates = self._broker, self._broker.rates
        self.version = asked.version
        client_id = asked.client_id
        properties: dict[int, object] = {}
        if not client_id:
            if asked.version == codec.V311 and not asked.clean:
                self._refuse(Reason.CLIENT_ID_INVALID, "Connect.ClientError", now)
                return
            client_id = f"$GEN/{new_session_identifier()}"
            properties[props.ASSIGNED_CLIENT_ID] = client_id
        if len(client_id.encode()) > int(limits.IOT_CLIENT_ID_MAX_BYTES) or (
            client_id.startswith("$") and not client_id.startswith("$GEN/")
        ):
            self._refuse(Reason.CLIENT_ID_INVALID, "Connect.ClientError", now)
        elif asked.will is not None and problem_with_topic(asked.will.topic) is not None:
            self._refuse(Reason.TOPIC_NAME_INVALID, "Connect.ClientError", now)
        elif asked.will is not None and _is_reserved(asked.will.topic):
            self._refuse(Reason.NOT_AUTHORIZED, "Connect.ClientError", now)
        elif asked.will is not None and asked.will.qos > 1:
            self._refuse(Reason.QOS_NOT_SUPPORTED, "Connect.ClientError", now)
        elif not rates.take(rates.connects, now):
            self._refuse(Reason.QUOTA_EXCEEDED, "Connect.Throttle", now)
        elif not rates.client_may_connect(client_id, now):
            self._refuse(Reason.QUOTA_EXCEEDED, "Connect.ClientIDThrottle", now)
        elif 0 in (asked.properties.get(props.RECEIVE_MAXIMUM), asked.properties.get(props.MAXIMUM_PACKET_SIZE)):
            self._refuse(Reason.PROTOCOL_ERROR, "Connect.ClientError", now)
        else:
            self.client_id = client_id
            self._accept(asked, properties, now)
            broker.meter.count("Connect.Success", now)

    def _refuse(self, reason: Reason, metric: str, now: float) -> None:
        self._broker.meter.count(metric, now)
        self._write(codec.connack_packet(self.version, reason))
        self._close()

    def _accept(self, asked: codec.Connect, properties: dict[int, object], now: float) -> None:
        maximum_s = limits.IOT_KEEP_ALIVE_MAX_SECONDS.value
        keep_alive_s = asked.keep_alive_s or maximum_s
        keep_alive_s = max(limits.IOT_KEEP_ALIVE_MIN_SECONDS.value, min(maximum_s, keep_alive_s))
        self._keep_alive_s = keep_alive_s
        if asked.version == V5:
            wanted_s = asked.properties.get(props.SESSION_EXPIRY, 0)
            expiry_s = min(wanted_s, limits.IOT_SESSION_SECONDS.value)
            self._receive_maximum = min(_IN_FLIGHT, asked.properties.get(props.RECEIVE_MAXIMUM, 0xFFFF))
            self._max_packet_bytes = asked.properties.get(props.MAXIMUM_PACKET_SIZE, codec.MAX_REMAINING_BYTES)
            properties |= {
                props.RECEIVE_MAXIMUM: _IN_FLIGHT,
                props.MAXIMUM_QOS: 1,
                props.MAXIMUM_PACKET_SIZE: int(limits.IOT_PACKET_MAX_BYTES),
                props.TOPIC_ALIAS_MAXIMUM: int(limits.IOT_TOPIC_ALIASES),
            }
            if keep_alive_s != asked.keep_alive_s:
                properties[props.SERVER_KEEP_ALIVE] = int(keep_alive_s)
            if expiry_s != wanted_s:
                properties[props.SESSION_EXPIRY] = int(expiry_s)
        else:
            expiry_s = 0.0 if asked.clean else limits.IOT_SESSION_SECONDS.value
        broker = self._broker
        self._session, present = broker.connect(self, asked, expiry_s, now)
        self._heard_at = now
        self._session.next_stored_at = now + 1 / limits.IOT_STORED_PER_SECOND.value
        self._session_identifier = new_session_identifier()
        self._write(codec.connack_packet(self.version, Reason.SUCCESS, session_present=present, properties=properties))
        broker.tell(
            "presence/connected",
            self.client_id,
            now,
            sessionIdentifier=self._session_identifier,
            principalIdentifier=self._principal,
            ipAddress=self._address,
        )

    def _publish(self, message: Publish, now: float) -> None:
        """Judge one PUBLISH: refuse and close, discard without PUBACK, or accept."""
        broker, meter = self._broker, self._broker.meter
        topic = message.topic
        if self.version == V5 and message.properties:
            topic = self._resolve_alias(topic, message.properties)
        problem, reason = None, Reason.UNSPECIFIED
        if len(message.payload) > _PAYLOAD_MAX:
            problem, reason = "the payload is over 128 KB", Reason.PACKET_TOO_LARGE
        elif (told := problem_with_topic(topic)) is not None:
            problem, reason = told, Reason.TOPIC_NAME_INVALID
        elif _is_reserved(topic):
            problem, reason = "reserved topics are not simulated", Reason.NOT_AUTHORIZED
        elif message.qos == 2 and self.version == V5:
            problem, reason = "QoS 2", Reason.QOS_NOT_SUPPORTED
        if problem is not None:
            meter.count("PublishIn.ClientError", now)
            raise MqttError(problem, reason)
        if message.qos == 2:
            # To an MQTT 3.1.1 client, IoT Core just does not acknowledge.
            meter.count("PublishIn.ClientError", now)
            return
        rates = broker.rates
        if not self._rates.may_publish(now):
            meter.count("Throttle.Exceeded", now)
        elif rates.take(rates.publishes_in, now):
            meter.count("PublishIn.Success", now)
            if message.qos:
                self._write(codec.puback_packet(self.version, message.packet_id))
            broker.publish(topic, message.payload, message.qos, self.client_id, now, message.retain, message.properties)
            return
        meter.count("PublishIn.Throttle", now)
        if message.qos and self.version == V5:
            self._write(codec.puback_packet(V5, message.packet_id, Reason.QUOTA_EXCEEDED))

    def _resolve_alias(self, topic: str, properties: props.Properties) -> str:
        users = properties.get(props.USER_PROPERTY, ())
        size = sum(len(name.encode()) + len(value.encode()) for name, value in users)
        if size > int(limits.IOT_USER_PROPERTIES_BYTES):
            raise MqttError("user properties over 8 KB", Reason.PACKET_TOO_LARGE)
        alias = properties.get(props.TOPIC_ALIAS)
        if alias is None:
            return topic
        if not 1 <= alias <= int(limits.IOT_TOPIC_ALIASES):
            raise MqttError(f"topic alias {alias}", Reason.TOPIC_ALIAS_INVALID)
        if topic:
            self._aliases[alias] = topic
            return topic
        if alias not in self._aliases:
            raise MqttError(f"topic alias {alias} stands for nothing", Reason.PROTOCOL_ERROR)
        return self._aliases[alias]

    def _subscribe(self, session: Session, first: int, body: bytes, now: float) -> None:
        asked = codec.read_subscribe(first, body, self.version)
        if any(one.qos == 2 for one in asked.filters):
            self._broker.meter.count("Subscribe.ClientError", now)
            if self.version == V5:
                raise MqttError("a subscription at QoS 2", Reason.QOS_NOT_SUPPORTED)
            return
        if len(asked.filters) > int(limits.IOT_TOPICS_PER_SUBSCRIBE):
            self._broker.meter.count("Subscribe.ClientError", now)
            codes = [int(Reason.QUOTA_EXCEEDED)] * len(asked.filters)
            self._write(codec.suback_packet(self.version, asked.packet_id, codes))
            return
        # The acknowledgement goes out before the retained messages that the subscription brings.
        place = len(self._out)
        codes = [self._broker.subscribe(session, one, asked.subscription_id, now) for one in asked.filters]
        self._write(codec.suback_packet(self.version, asked.packet_id, codes))
        self._out.insert(place, self._out.pop())
        granted = [one.topic_filter for one, code in zip(asked.filters, codes, strict=True) if code < 0x80]
        if granted:
            self._tell_subscriptions("subscribed", granted, now)

    def _tell_subscriptions(self, event: str, topics: list[str], now: float) -> None:
        self._broker.tell(
            f"subscriptions/{event}",
            self.client_id,
            now,
            sessionIdentifier=self._session_identifier,
            principalIdentifier=self._principal,
            topics=topics,
        )

    def _disconnect(self, session: Session, body: bytes, now: float) -> None:
        reason, properties = codec.read_disconnect(body, self.version)
        if props.SESSION_EXPIRY in properties and session.expiry_s:
            session.expiry_s = min(properties[props.SESSION_EXPIRY], limits.IOT_SESSION_SECONDS.value)
        self._leave("CLIENT_INITIATED_DISCONNECT", now, send_will=reason != Reason.SUCCESS)
        self._close()

    # -- what is sent ----------------------------------------------------------------------------------

    def deliver(self, delivery: Delivery, now: float) -> None:
        """Send a message to this client, or discard or store it as the limits say."""
        session, broker = self._session, self._broker
        if session is None:
            return
        if delivery.qos and (session.waiting or len(session.in_flight) >= self._receive_maximum):
            if not session.wait(delivery):
                broker.meter.count("PublishOut.Throttle", now)
            return
        rates = broker.rates
        if not self._rates.may_publish(now):
            broker.meter.count("Throttle.Exceeded", now)
        elif self._out_bytes + self._link.buffered_bytes() <= OUT_MAX_BYTES and rates.take(rates.publishes_out, now):
            self._send(session, delivery, now)
            return
        broker.meter.count("PublishOut.Throttle", now)
        if delivery.qos and session.expiry_s:
            broker.store(session, delivery, now)

    def _send(self, session: Session, delivery: Delivery, now: float) -> None:
        properties = delivery.properties
        if delivery.expires_at is not None:
            properties = {**properties, props.MESSAGE_EXPIRY: max(1, int(delivery.expires_at - now))}
        is_again = delivery.first_sent_at > 0
        packet_id = session.begin(delivery, now) if delivery.qos else 0
        packet = self._encode(delivery, packet_id, is_again, properties)
        if len(packet) > self._max_packet_bytes:
            # The client said that it takes none so large; the standard (3.1.2.11.4) has it dropped.
            session.in_flight.pop(packet_id, None)
            self._broker.meter.count("PublishOut.ClientError", now)
            return
        self._broker.meter.count("PublishOut.Success", now)
        self._write(packet)

    def _encode(self, delivery: Delivery, packet_id: int, dup: bool, properties: props.Properties) -> bytes:
        return codec.publish_packet(
            self.version,
            delivery.topic,
            delivery.payload,
            qos=delivery.qos,
            packet_id=packet_id,
            retain=delivery.retain,
            dup=dup,
            properties=properties,
        )

    def _may_send_kept(self, session: Session, now: float) -> bool:
        """Whether a waiting or stored message may go out; over a rate it is not lost but stays where it is."""
        return (
            len(session.in_flight) < self._receive_maximum
            and self._out_bytes + self._link.buffered_bytes() <= OUT_MAX_BYTES
            and self._rates.may_publish(now)
            and self._broker.rates.take(self._broker.rates.publishes_out, now)
        )

    def _send_waiting(self, session: Session, now: float) -> None:
        while session.waiting and self._may_send_kept(session, now):
            delivery = next_wanted(session.waiting, now)
            if delivery is None:
                return
            self._send(session, delivery, now)

    def _send_stored(self, session: Session, now: float) -> None:
        """Stored messages go out ten a second, beside new ones."""
        pause_s = 1 / limits.IOT_STORED_PER_SECOND.value if self._settings.enforced else 0.0
        session.next_stored_at = max(session.next_stored_at, now - 1.0 + pause_s)
        while session.stored and session.next_stored_at <= now + limits.EPSILON:
            if not self._may_send_kept(session, now):
                return
            delivery = next_wanted(session.stored, now)
            if delivery is None:
                return
            session.next_stored_at += pause_s
            self._send(session, delivery, now)

    def _send_again(self, session: Session, now: float) -> None:
        """What an MQTT 3.1.1 client did not acknowledge is repeated for an hour; MQTT 5 forbids that."""
        for packet_id, delivery in list(session.in_flight.items()):
            if now - delivery.first_sent_at > limits.IOT_REDELIVERY_SECONDS.value:
                del session.in_flight[packet_id]
            elif now - delivery.sent_at >= self._settings.iot_redelivery_seconds:
                delivery.sent_at = now
                self._write(self._encode(delivery, packet_id, True, delivery.properties))


def _is_reserved(topic: str) -> bool:
    """Topics that only AWS publishes to; those of rules (Basic Ingest) are for everybody."""
    return topic.startswith("$") and not topic.startswith(RESERVED_FOR_RULES)
