"""Kinesis's HTTP front: what AWS says before an operation is reached, and the long answers of SubscribeToShard.

The order of the checks (method, content type, body, operation, authorization) and their texts are as kinesalite's
author recorded them on AWS.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

from simulator.cloud import event_stream, request_model
from simulator.cloud.errors import AwsError
from simulator.cloud.fan_out import Event, Subscription
from simulator.cloud.kinesis_api import KinesisApi
from simulator.cloud.kinesis_reads import subscription_event
from simulator.cloud.kinesis_wire import CBOR_WIRE, JSON_WIRE, WIRES, Wire

Headers = dict[str, str]
Answer = tuple[int, Headers, bytes]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]

_PLAIN_JSON = "application/json"
_NO_OPERATION = "Unable to determine service/operation name to be authorized"
_AUTH_PARTS = ("Credential", "Signature", "SignedHeaders")
_AUTH_QUERY = ("X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Signature", "X-Amz-SignedHeaders", "X-Amz-Date")


def front_error(method: str, headers: Headers, query: str, body: bytes) -> Answer | None:
    """The answer to a request that reaches no operation; None when it may go on."""
    if method != "POST":
        return _xml(403, "AccessDeniedException", _NO_OPERATION)
    content_type = headers.get("content-type", "").partition(";")[0].strip()
    operation = headers.get("x-amz-target", "").partition(".")[2]
    is_known = operation in request_model.operations("kinesis")
    if not body:
        wire = JSON_WIRE if content_type == JSON_WIRE.content_type else CBOR_WIRE
        return _refuse(wire, AwsError("SerializationException" if is_known else "UnknownOperationException", None))
    if content_type == _PLAIN_JSON:
        return _output(body)
    wire_or_none = WIRES.get(content_type)
    if wire_or_none is None:
        return (
            _xml(404, "UnknownOperationException", None)
            if operation
            else _xml(403, "AccessDeniedException", _NO_OPERATION)
        )
    if not is_known:
        try:
            is_readable = isinstance(wire_or_none.decode(body), dict | list)
        except ValueError:
            is_readable = False
        code = "UnknownOperationException" if is_readable else "SerializationException"
        return _refuse(wire_or_none, AwsError(code, None))
    error = _authorization_error(headers, query)
    return _refuse(wire_or_none, error) if error is not None else None


def _authorization_error(headers: Headers, query: str) -> AwsError | None:
    """Any credentials are good. What names none at all is refused in AWS's words; AWS asks for the rest as well."""
    given = headers.get("authorization", "")
    parameters = parse_qs(query, keep_blank_values=True)
    signed_query = "X-Amz-Algorithm" in parameters
    if given and signed_query:
        return AwsError(
            "InvalidSignatureException",
            "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header.",
        )
    if not given and not signed_query:
        return AwsError("MissingAuthenticationTokenException", "Missing Authentication Token")
    if signed_query:
        missing = [name for name in _AUTH_QUERY if not parameters.get(name, [""])[0]]
        told = [f"AWS query-string parameters must include '{name}'. " for name in missing]
        hint = "Re-examine the query-string parameters."
    else:
        parts = dict(part.strip().partition("=")[::2] for part in re.split(r"[, ]", given)[1:] if part.strip())
        if parts.get("Credential"):
            return None
        told = [f"Authorization header requires '{name}' parameter. " for name in _AUTH_PARTS if not parts.get(name)]
        if "x-amz-date" not in headers and "date" not in headers:
            told.append("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. ")
        hint = f"Authorization={given}"
    return AwsError("IncompleteSignatureException", "".join(told) + hint) if told else None


def _refuse(wire: Wire, error: AwsError) -> Answer:
    # The Java and Go SDKs read the error's name from a header.
    headers = {"content-type": wire.content_type, "x-amzn-errortype": error.code}
    return error.status, headers, wire.error(error)


def respond(api: KinesisApi, operation: str, body: bytes, region: str, wire: Wire) -> Answer:
    """The answer of an operation that is not SubscribeToShard."""
    try:
        return 200, {"content-type": wire.content_type}, api.answer(operation, body, region, wire)
    except AwsError as error:
        return _refuse(wire, error)


def _xml(status: int, kind: str, message: str | None) -> Answer:
    told = f"<{kind}/>\n" if message is None else f"<{kind}>\n  <Message>{message}</Message>\n</{kind}>\n"
    return status, {}, told.encode()


def _output(body: bytes) -> Answer:
    """What AWS's other front end says to plain JSON."""
    try:
        is_readable = isinstance(JSON_WIRE.decode(body), dict | list)
    except ValueError:
        is_readable = False
    status, code = (404, "UnknownOperationException") if is_readable else (400, "SerializationException")
    told = {"Output": {"__type": f"com.amazon.coral.service#{code}"}, "Version": "1.0"}
    return status, {"content-type": _PLAIN_JSON}, JSON_WIRE.encode(told)


def cross_origin(headers: Headers) -> Headers:
    """CORS headers for a browser; none without an Origin."""
    if "origin" not in headers:
        return {}
    return {
        "access-control-allow-origin": "*",
        "access-control-expose-headers": "x-amzn-RequestId,x-amzn-ErrorType,x-amz-request-id,x-amz-id-2,"
        "x-amzn-ErrorMessage,Date",
    }


def preflight(headers: Headers) -> Answer:
    """The answer to a browser's OPTIONS."""
    allowed = {"access-control-allow-origin": "*", "access-control-max-age": "172800"}
    for asked, told in (
        ("access-control-request-headers", "access-control-allow-headers"),
        ("access-control-request-method", "access-control-allow-methods"),
    ):
        if asked in headers:
            allowed[told] = headers[asked]
    return 200, allowed, b""


# -- SubscribeToShard ----------------------------------------------------------------------------------


async def push_subscription(
    api: KinesisApi, body: bytes, region: str, wire: Wire, answer_headers: Headers, receive: Receive, send: Send
) -> Answer | None:
    """Answer SubscribeToShard until it ends or the client goes; an :data:`Answer` when it was refused."""
    try:
        stream, consumer, subscription = api.subscribe(body, region, wire)
    except AwsError as error:
        return _refuse(wire, error)
    woken = asyncio.Event()
    subscription.wake = woken.set
    subscription.shard.listeners.append(woken.set)
    headers = {**answer_headers, "content-type": event_stream.CONTENT_TYPE}
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
        }
    )

    async def write(message: bytes) -> None:
        await send({"type": "http.response.body", "body": message, "more_body": True})

    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await write(event_stream.event("initial-response", wire.content_type, wire.encode({})))
        while not gone.done():
            now = api.clock()
            stream.settle(now)
            if subscription.is_over(now):
                why = _end_of(subscription, consumer)
                if why is not None:
                    await write(event_stream.exception(why.code, wire.content_type, wire.error(why)))
                break
            woken.clear()
            told = subscription.next_event(now, subscription.shard.horizon(stream.retention_hours, now))
            if isinstance(told, Event):
                content = wire.encode(subscription_event(stream, consumer, subscription, told, now))
                await write(event_stream.event("SubscribeToShardEvent", wire.content_type, content))
                if told.ended:
                    break
                continue
            await _first_of(gone, woken, told - now)
    finally:
        subscription.shard.listeners.remove(woken.set)
        gone.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await gone
    await send({"type": "http.response.body", "body": b""})
    return None


def _end_of(subscription: Subscription, consumer: str) -> AwsError | None:
    """What a subscription that is over tells its reader; nothing when its five minutes have passed."""
    if subscription.replaced:
        return AwsError("ResourceInUseException", f"Another subscription of consumer {consumer} has taken over.")
    if subscription.cancelled:
        return AwsError("ResourceNotFoundException", f"Consumer {consumer} or its stream was deleted.")
    return None


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _first_of(gone: asyncio.Future[None], woken: asyncio.Event, timeout_s: float) -> None:
    """Wait until the client has gone, there is something new, or the time has come."""
    waking = asyncio.ensure_future(woken.wait())
    awaited: set[asyncio.Future[Any]] = {gone, waking}
    try:
        await asyncio.wait(awaited, timeout=max(0.0, timeout_s), return_when=asyncio.FIRST_COMPLETED)
    finally:
        waking.cancel()
