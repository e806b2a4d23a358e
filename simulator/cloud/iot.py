"""IoT Core in the embedded cloud: the message broker, the rules, and the HTTP faces of both.

A publish goes to the subscribers and to the rules of every region: the broker's port has no region of its own. Rules
reach the other services of this process directly: a Kinesis action puts its record on the event loop, as a
PutRecord over HTTP would; an S3 action is handed to the worker thread of the services that moto answers.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import orjson

from simulator.cloud.errors import AwsError
from simulator.cloud.iot_bridge import Bridge, BridgeSettings
from simulator.cloud.iot_data_api import IotDataApi
from simulator.cloud.iot_meter import IotMeter
from simulator.cloud.iot_rules import Failure, Message, RuleEngine
from simulator.cloud.iot_rules_api import RulesApi
from simulator.cloud.kinesis_api import KinesisApi
from simulator.cloud.limits import LimitSettings
from simulator.cloud.metrics import Metrics
from simulator.cloud.mqtt_broker import Broker
from simulator.cloud.mqtt_listener import Listener
from simulator.cloud.mqtt_properties import Reason
from simulator.cloud.stream import PutEntry, key_bytes

Answer = tuple[int, dict[str, str], bytes]
PutObject = Callable[[str, str, str, bytes, str | None, Callable[[int, bytes], None]], None]
"""Region, bucket, key, body, canned ACL, and what takes the status and body of the answer, on the event loop."""

_RETRYABLE = frozenset({"ProvisionedThroughputExceededException", "InternalFailure", "KMSThrottlingException"})


class Iot:
    """One account's IoT Core."""

    def __init__(
        self,
        account_id: str,
        settings: LimitSettings,
        metrics: Metrics,
        kinesis: KinesisApi,
        put_object: PutObject,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.account_id, self.settings, self.metrics, self.clock = account_id, settings, metrics, clock
        self.meter = IotMeter(metrics)
        self.broker = Broker(settings, self.meter, self._on_publish, clock())
        self.listener = Listener(self.broker, clock)
        self.data = IotDataApi(self.broker)
        self.engines: dict[str, RuleEngine] = {}
        self.bridge: Bridge | None = None
        self._bridging: asyncio.Task[None] | None = None
        self._kinesis, self._put_object = kinesis, put_object
        # Of the message that a Republish action is publishing right now.
        self._depth = 0

    async def bridge_to(self, settings: BridgeSettings) -> None:
        """Use another broker in place of this one. :raises BridgeError: when it cannot be connected to now."""
        self.bridge = Bridge(settings, self._topic_filters, self._from_bridge, self.clock)
        await self.bridge.connect_once()
        self._bridging = asyncio.create_task(self.bridge.run(), name="alleycat-bridge")
        self.broker.elsewhere = self.bridge.publish

    def close(self) -> None:
        """Stop listening, drop every connection."""
        if self._bridging is not None:
            self._bridging.cancel()
        self.listener.close()

    def _topic_filters(self) -> set[str]:
        return {one for engine in self.engines.values() for one in engine.topic_filters()}

    def _from_bridge(self, topic: str, payload: bytes, qos: int, now: float) -> None:
        self.meter.count("PublishIn.Success", now)
        self._on_publish(topic, payload, qos, "", now)

    def engine(self, region: str) -> RuleEngine:
        """The rules of ``region``."""
        found = self.engines.get(region)
        if found is None:
            found = self.engines[region] = RuleEngine(
                region, self.account_id, self.metrics, self.settings, self, self.clock, self._later
            )
        return found

    def _later(self, delay_s: float, callback: Callable[[], None]) -> None:
        def run() -> None:
            callback()
            self.broker.flush(self.clock())

        asyncio.get_running_loop().call_later(delay_s, run)

    def _on_publish(self, topic: str, payload: bytes, qos: int, client_id: str, now: float) -> None:
        if not self.engines:
            return
        message = Message(topic, payload, client_id, int(now * 1000), qos, depth=self._depth)
        for engine in self.engines.values():
            engine.handle(message, now)

    # -- HTTP ------------------------------------------------------------------------------------------

    def answer_data(
        self, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes, trace_id: str
    ) -> Answer:
        """A request signed for ``iotdata``."""
        now = self.clock()
        answer = self.data.handle(method, path, query, headers, body, trace_id, now)
        self.broker.flush(now)
        return answer

    def answer_control(
        self, method: str, path: str, query: str, body: bytes, region: str, address: str
    ) -> Answer | None:
        """A request signed for ``iot``; None for one that is not answered here. ``address`` is this endpoint's."""
        if (method, path) == ("GET", "/endpoint"):
            return 200, {"content-type": "application/json"}, orjson.dumps({"endpointAddress": address})
        return RulesApi(self.engine(region), self.clock).handle(method, path, query, body)

    def describe(self) -> dict[str, Any]:
        """What ``/_alleycat/iot`` tells."""
        return {
            "connections": len(self.broker.clients),
            "sessions": len(self.broker.sessions),
            "retained": len(self.broker.retained),
            "disconnects": dict(self.meter.disconnects),
            **(
                {"broker": {"subscribed": sorted(self.bridge.subscribed), "problem": self.bridge.problem}}
                if self.bridge
                else {}
            ),
            "rules": {region: sorted(engine.rules) for region, engine in self.engines.items()},
        }

    def reset(self) -> None:
        """Forget rules, sessions and retained messages; whoever is connected is sent away."""
        now = self.clock()
        self.engines.clear()
        for client in list(self.broker.clients.values()):
            client.end("SERVER_INITIATED_DISCONNECT", Reason.SHUTTING_DOWN, now)
        self.broker.flush(now)
        self.meter.disconnects.clear()
        self.broker.forget()

    # -- Outlets: what rules may do --------------------------------------------------------------------

    def put_record(self, region: str, stream: str, data: bytes, partition_key: str, now: float) -> Failure | None:
        """One PutRecord of the Kinesis action."""
        try:
            found = self._kinesis.region(region).stream(stream)
            found.require_usable(now)
            size = len(data) + key_bytes(partition_key)
            if size > found.max_record_bytes:
                return Failure("ValidationException", f"a record of {size} bytes", False)
            (result,) = found.put_records((PutEntry(data, partition_key),), now, "PutRecord")
        except AwsError as error:
            return Failure(error.code, error.message or "", error.code in _RETRYABLE)
        if result.ErrorCode is None:
            return None
        return Failure(result.ErrorCode, result.ErrorMessage or "", result.ErrorCode in _RETRYABLE)

    def republish(self, message: Message, now: float) -> None:
        """The Republish action. The account's publish rate is the publisher's, not the rule's."""
        self._depth = message.depth
        try:
            self.broker.publish(message.topic, message.payload, message.qos, message.client_id, now)
        finally:
            self._depth = 0

    def put_object(
        self, region: str, bucket: str, key: str, body: bytes, acl: str | None, done: Callable[[Failure | None], None]
    ) -> None:
        """The S3 action."""

        def answered(status: int, answer: bytes) -> None:
            told = answer[:300].decode(errors="replace")
            done(None if status < 300 else Failure(f"HTTP {status}", told, status >= 500))
            self.broker.flush(self.clock())

        self._put_object(region, bucket, quote(key), body, acl, answered)


def new_trace_id() -> str:
    """The id under which AWS finds a message in its logs."""
    return str(uuid.uuid4())
