"""IoT Core's data plane over HTTP (boto3's ``iot-data``): publish, retained messages, connections.

Names, paths and error codes are the service model's. Device shadows and direct messages are not simulated and say so.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, unquote

import orjson

from simulator.cloud import limits
from simulator.cloud import mqtt_properties as props
from simulator.cloud.errors import AwsError
from simulator.cloud.iot_meter import HTTP
from simulator.cloud.mqtt_broker import RESERVED_FOR_RULES, Broker, Retained
from simulator.cloud.mqtt_properties import Properties, Reason
from simulator.cloud.topic_filters import problem_with_topic

PAGE_MAX = 200
_TEXT_MAX_BYTES = 0xFFFF
_LONG_MAX = 0xFFFFFFFF
Answer = tuple[int, dict[str, str], bytes]


class IotDataApi:
    """Answers requests that are signed for ``iotdata``."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def handle(
        self, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes, trace_id: str, now: float
    ) -> Answer:
        """``path`` is percent-encoded as it was sent. Never raises for anything a client sent."""
        try:
            told = self._answer(method, path, parse_qs(query), headers, body, trace_id, now)
            return 200, {"content-type": "application/json"}, orjson.dumps(told)
        except AwsError as error:
            answer = orjson.dumps({"message": error.message, "traceId": trace_id})
            return error.status, {"content-type": "application/json", "x-amzn-errortype": error.code}, answer

    def _answer(
        self,
        method: str,
        path: str,
        query: Mapping[str, list[str]],
        headers: Mapping[str, str],
        body: bytes,
        trace_id: str,
        now: float,
    ) -> dict[str, Any]:
        first, _, rest = path.lstrip("/").partition("/")
        name = unquote(rest)
        match first, method:
            case "topics", "POST":
                self._publish(name, query, headers, body, now)
                return {"message": "OK", "traceId": trace_id}
            case "retainedMessage", "GET":
                return self._retained(name, now) if name else self._list_retained(query, now)
            case "connections", _:
                return self._connection(method, rest, query, now)
            case (("topics" | "retainedMessage"), _):
                raise AwsError("MethodNotAllowedException", f"{method} is not allowed here.", 405)
            case "things" | "api", _:
                raise AwsError("InvalidRequestException", "Device shadows are not simulated here.", 501)
        raise AwsError("InvalidRequestException", f"There is no {path} in the data plane of IoT Core.", 404)

    # -- publishing ------------------------------------------------------------------------------------

    def _publish(
        self, topic: str, query: Mapping[str, list[str]], headers: Mapping[str, str], body: bytes, now: float
    ) -> None:
        broker = self._broker
        problem = problem_with_topic(topic)
        if problem is None and topic.startswith("$") and not topic.startswith(RESERVED_FOR_RULES):
            problem = f"{topic!r} is reserved, and reserved topics are not simulated"
        qos = _one(query, "qos", "0")
        if qos not in ("0", "1"):
            problem = f"qos is 0 or 1, not {qos!r}"
        if problem is not None:
            broker.meter.count("PublishIn.ClientError", now, protocol=HTTP)
            raise AwsError("InvalidRequestException", problem)
        if len(body) > int(limits.IOT_PAYLOAD_MAX_BYTES):
            broker.meter.count("PublishIn.ClientError", now, protocol=HTTP)
            raise AwsError("RequestEntityTooLargeException", "The payload is larger than 128 KB.", 413)
        properties = _properties(query, headers)
        if not broker.rates.take(broker.rates.publishes_in, now):
            broker.meter.count("PublishIn.Throttle", now, protocol=HTTP)
            raise AwsError("ThrottlingException", "Rate exceeded", 429)
        broker.meter.count("PublishIn.Success", now, protocol=HTTP)
        retain = _one(query, "retain", "false") == "true"
        broker.publish(topic, body, int(qos), "", now, retain, properties)

    # -- retained messages -----------------------------------------------------------------------------

    def _retained(self, topic: str, now: float) -> dict[str, Any]:
        kept = self._broker.retained.get(topic)
        if kept is None or _has_expired(kept, now):
            raise AwsError("ResourceNotFoundException", f"No retained message on topic {topic}.", 404)
        told = _summary(topic, kept)
        del told["payloadSize"]
        told["payload"] = base64.b64encode(kept.payload).decode()
        users = kept.properties.get(props.USER_PROPERTY)
        if users:
            told["userProperties"] = base64.b64encode(orjson.dumps([{name: value} for name, value in users])).decode()
        return told

    def _list_retained(self, query: Mapping[str, list[str]], now: float) -> dict[str, Any]:
        kept = [topic for topic, one in self._broker.retained.items() if not _has_expired(one, now)]
        topics, token = _page(sorted(kept), query)
        return _with_token({"retainedTopics": [_summary(one, self._broker.retained[one]) for one in topics]}, token)

    # -- connections -----------------------------------------------------------------------------------

    def _connection(self, method: str, rest: str, query: Mapping[str, list[str]], now: float) -> dict[str, Any]:
        """``rest`` is a client id, percent-encoded, and perhaps ``/subscriptions``."""
        broker = self._broker
        encoded, _, part = rest.partition("/")
        client_id = unquote(encoded)
        session, client = broker.sessions.get(client_id), broker.clients.get(client_id)
        if part not in ("", "subscriptions") or (method, part) not in (("GET", ""), ("GET", part), ("DELETE", "")):
            raise AwsError("InvalidRequestException", f"{method} /connections/{rest} is not simulated here.", 501)
        if session is None:
            raise AwsError("ResourceNotFoundException", f"No connection or session of client {client_id}.", 404)
        if part:
            names, token = _page(sorted(session.subscriptions), query)
            told = [{"topicFilter": one, "qos": session.subscriptions[one].qos} for one in names]
            return _with_token({"subscriptions": told}, token)
        if method == "GET":
            return {
                "connected": client is not None,
                "clientId": client_id,
                "cleanSession": session.expiry_s <= 0,
                "sessionExpiry": int(session.expiry_s),
            }
        if client is None:
            raise AwsError("ResourceNotFoundException", f"Client {client_id} is not connected.", 404)
        if _one(query, "preventWillMessage", "false") == "true":
            session.will = None
        if _one(query, "cleanSession", "false") == "true":
            session.expiry_s = 0.0
        client.end("API_INITIATED_DISCONNECT", Reason.UNSPECIFIED, now)
        return {}


def _summary(topic: str, kept: Retained) -> dict[str, Any]:
    return {
        "topic": topic,
        "payloadSize": len(kept.payload),
        "qos": kept.qos,
        "lastModifiedTime": int(kept.updated_at * 1000),
    }


def _has_expired(kept: Retained, now: float) -> bool:
    return kept.expires_at is not None and kept.expires_at <= now


def _one(query: Mapping[str, list[str]], name: str, default: str) -> str:
    return query.get(name, [default])[0]


def _page(names: list[str], query: Mapping[str, list[str]]) -> tuple[list[str], str | None]:
    """The names after ``nextToken``, at most ``maxResults`` of them, and the token of the next page."""
    asked = _one(query, "maxResults", str(PAGE_MAX))
    if not asked.isdecimal() or len(asked) > 3 or not 1 <= int(asked) <= PAGE_MAX:
        raise AwsError("InvalidRequestException", f"maxResults is a number from 1 to {PAGE_MAX}, not {asked!r}.")
    token = _one(query, "nextToken", "")
    try:
        after = base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise AwsError("InvalidRequestException", f"nextToken {token!r} is not one of ours.") from None
    left = [one for one in names if one > after]
    page = left[: int(asked)]
    more = len(left) > len(page)
    return page, base64.urlsafe_b64encode(page[-1].encode()).decode() if more else None


def _with_token(told: dict[str, Any], token: str | None) -> dict[str, Any]:
    return told if token is None else told | {"nextToken": token}


def _properties(query: Mapping[str, list[str]], headers: Mapping[str, str]) -> Properties:
    """MQTT 5's properties, which the HTTP publish takes from its query and its headers."""
    found: dict[int, Any] = {}
    try:
        if "contentType" in query:
            found[props.CONTENT_TYPE] = _one(query, "contentType", "")
        if "responseTopic" in query:
            found[props.RESPONSE_TOPIC] = _one(query, "responseTopic", "")
        if "messageExpiry" in query:
            found[props.MESSAGE_EXPIRY] = int(_one(query, "messageExpiry", ""))
        if (data := headers.get("x-amz-mqtt5-correlation-data")) is not None:
            found[props.CORRELATION_DATA] = base64.b64decode(data)
        if (indicator := headers.get("x-amz-mqtt5-payload-format-indicator")) is not None:
            found[props.PAYLOAD_FORMAT] = int(indicator == "UTF8_DATA")
        if (users := headers.get("x-amz-mqtt5-user-properties")) is not None:
            pairs = orjson.loads(base64.b64decode(users))
            if isinstance(pairs, str):
                # The SDK encodes what it is given; its documentation asks for a string that is JSON already.
                pairs = orjson.loads(pairs)
            found[props.USER_PROPERTY] = [(str(name), str(value)) for one in pairs for name, value in one.items()]
    except (ValueError, AttributeError, TypeError, binascii.Error) as error:
        raise AwsError("InvalidRequestException", f"a property of the message cannot be read: {error}") from None
    if (problem := _problem_with(found)) is not None:
        raise AwsError("InvalidRequestException", problem)
    return found


def _problem_with(properties: Properties) -> str | None:
    """Why an MQTT packet could not carry ``properties``."""
    users = properties.get(props.USER_PROPERTY, ())
    if sum(len(name.encode()) + len(value.encode()) for name, value in users) > int(limits.IOT_USER_PROPERTIES_BYTES):
        return "the user properties are larger than 8 KB"
    if not 0 <= properties.get(props.MESSAGE_EXPIRY, 0) <= _LONG_MAX:
        return f"messageExpiry is a number of seconds from 0 to {_LONG_MAX}"
    if (topic := properties.get(props.RESPONSE_TOPIC)) is not None and problem_with_topic(topic) is not None:
        return f"responseTopic: {problem_with_topic(topic)}"
    content_type = properties.get(props.CONTENT_TYPE, "")
    if "\0" in content_type or len(content_type.encode()) > _TEXT_MAX_BYTES:
        return f"contentType has at most {_TEXT_MAX_BYTES} bytes and no NUL character"
    if len(properties.get(props.CORRELATION_DATA, b"")) > _TEXT_MAX_BYTES:
        return f"correlationData has at most {_TEXT_MAX_BYTES} bytes"
    return None
