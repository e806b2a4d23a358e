"""Listens to the results topic as a screen does, and remembers when each message came."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiomqtt

RETRY_S = 1.0
"""IoT Core lets a client id connect once a second."""


@dataclass(slots=True)
class Feed:
    """``problem`` is why nothing can be heard at the moment."""

    problem: str | None = None
    subscribed: asyncio.Event | None = None


@contextlib.asynccontextmanager
async def listening(
    url: str, topic: str, seen: Callable[[bytes, float], None], *, client_id: str, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Feed]:
    """Give every message on ``topic`` and its time to ``seen`` until the block ends; reconnects by itself."""
    feed = Feed(subscribed=asyncio.Event())
    task = asyncio.create_task(_listen(url, topic, seen, client_id, tls, feed), name="alleycat-results")
    try:
        yield feed
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _listen(
    url: str, topic: str, seen: Callable[[bytes, float], None], client_id: str, tls: ssl.SSLContext | None, feed: Feed
) -> None:
    while True:
        try:
            async with aiomqtt.Client(**_address(url, tls), identifier=client_id, keepalive=60) as client:
                await client.subscribe(topic, qos=1)
                feed.problem = None
                assert feed.subscribed is not None
                feed.subscribed.set()
                async for message in client.messages:
                    if isinstance(message.payload, bytes | bytearray):
                        seen(bytes(message.payload), time.time())
        except (aiomqtt.MqttError, OSError, ValueError) as error:
            feed.problem = f"the results topic {topic} cannot be heard at {url}: {error}"
            await asyncio.sleep(RETRY_S)


def _address(url: str, tls: ssl.SSLContext | None) -> dict[str, Any]:
    parts = urlsplit(url)
    secure = parts.scheme in ("mqtts", "wss")
    found: dict[str, Any] = {"hostname": parts.hostname, "port": parts.port or (8883 if secure else 1883)}
    if parts.scheme in ("ws", "wss"):
        found |= {"transport": "websockets", "websocket_path": parts.path or "/mqtt"}
    if secure:
        found["tls_context"] = tls or ssl.create_default_context()
    return found
