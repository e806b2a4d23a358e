"""Another MQTT broker in place of the embedded one: its messages go through the rules here.

For people who have a broker that their devices know. Rules, actions and the HTTP publish work as they do with the
embedded broker; the limits of connections do not, because that broker decides about them, and ``clientid()`` is not
known, because a subscriber is not told who published.

The bridge subscribes to the topic filters of the rules at QoS 1 with a session that outlives a lost connection. What
the broker drops when its own queues are full (mosquitto: ``max_queued_messages``) nobody here can see.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiomqtt

CLIENT_ID = "alleycat-rules"
RETRY_S = 1.0
FILTERS_INTERVAL_S = 0.2
QUEUED_MAX = 10_000
"""Publishes that wait for the broker; the oldest go first when there are more."""
log = logging.getLogger(__name__)


class BridgeError(Exception):
    """The broker cannot be used; one line that says why."""


@dataclass(frozen=True, slots=True)
class BridgeSettings:
    """``url``: mqtt://, mqtts://, ws:// or wss://HOST:PORT; the files are PEM."""

    url: str
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None

    def client(self) -> aiomqtt.Client:
        """A client that is not connected yet. :raises BridgeError:"""
        parts = urlsplit(self.url)
        is_secure = parts.scheme in ("mqtts", "wss")
        arguments: dict[str, Any] = {}
        if is_secure:
            try:
                context = ssl.create_default_context(cafile=self.ca)
                if self.certificate:
                    context.load_cert_chain(self.certificate, self.key)
            except (OSError, ssl.SSLError) as error:
                raise BridgeError(f"TLS for {self.url}: {error}") from None
            arguments["tls_context"] = context
        if parts.scheme in ("ws", "wss"):
            arguments |= {"transport": "websockets", "websocket_path": parts.path or "/mqtt"}
        return aiomqtt.Client(
            parts.hostname or "localhost",
            parts.port or (8883 if is_secure else 1883),
            identifier=CLIENT_ID,
            clean_session=False,
            keepalive=60,
            **arguments,
        )


class Bridge:
    """Runs until it is cancelled.

    :param filters: the topic filters that rules have now.
    :param take: gets every message: topic, payload, QoS, time.
    """

    def __init__(
        self,
        settings: BridgeSettings,
        filters: Callable[[], Iterable[str]],
        take: Callable[[str, bytes, int, float], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings, self._filters, self._take, self._clock = settings, filters, take, clock
        self._outgoing: asyncio.Queue[tuple[str, bytes, int, bool]] = asyncio.Queue()
        self.subscribed: frozenset[str] = frozenset()
        self.problem: str | None = None

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        """Send a message to the broker, when it is there."""
        if self._outgoing.qsize() >= QUEUED_MAX:
            self._outgoing.get_nowait()
        self._outgoing.put_nowait((topic, payload, qos, retain))

    async def connect_once(self) -> None:
        """Whether the broker can be had at all. :raises BridgeError:"""
        try:
            async with self._settings.client():
                pass
        except (aiomqtt.MqttError, OSError) as error:
            raise BridgeError(f"the broker {self._settings.url} cannot be used: {error}") from None

    async def run(self) -> None:
        """Connect, subscribe, listen and publish; again whenever the connection is lost."""
        while True:
            try:
                async with self._settings.client() as client:
                    self.problem = None
                    tasks = [
                        asyncio.create_task(one)
                        for one in (self._listen(client), self._follow(client), self._send(client))
                    ]
                    try:
                        await asyncio.gather(*tasks)
                    finally:
                        for task in tasks:
                            task.cancel()
                        await asyncio.gather(*tasks, return_exceptions=True)
            except (aiomqtt.MqttError, OSError, BridgeError) as error:
                self.problem = str(error)
                log.warning("the broker %s: %s", self._settings.url, error)
                await asyncio.sleep(RETRY_S)
            finally:
                self.subscribed = frozenset()

    async def _listen(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            payload = message.payload
            if isinstance(payload, bytes | bytearray):
                self._take(str(message.topic), bytes(payload), message.qos, self._clock())

    async def _follow(self, client: aiomqtt.Client) -> None:
        """Subscribe to what rules want."""
        while True:
            wanted = frozenset(self._filters())
            for one in wanted - self.subscribed:
                await client.subscribe(one, qos=1)
            for one in self.subscribed - wanted:
                await client.unsubscribe(one)
            self.subscribed = wanted
            await asyncio.sleep(FILTERS_INTERVAL_S)

    async def _send(self, client: aiomqtt.Client) -> None:
        while True:
            topic, payload, qos, retain = await self._outgoing.get()
            with contextlib.suppress(ValueError):
                await client.publish(topic, payload, qos=qos, retain=retain)
