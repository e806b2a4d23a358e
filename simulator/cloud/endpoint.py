"""The HTTP front of the embedded cloud: one ASGI application for every service.

Kinesis is answered by our own engine on the event loop, so its calls are atomic and in order. DynamoDB (capacity
ours, semantics moto's), CloudWatch and every other service (moto) are synchronous and not thread-safe: one worker
thread takes them in turn, so that a slow scan never holds up a PutRecords. Under ``/_alleycat/`` the cloud speaks of
itself: ``health``, ``metrics``, ``prometheus``, ``capacity``, ``iot``, and forgets everything at a
POST of ``reset``. MQTT over WebSocket is at ``/mqtt``, MQTT itself on a port of its own.

Requests are told apart as AWS's clients send them: by ``X-Amz-Target`` first, then by the service in the SigV4
credential scope. Any credentials are accepted, none at all are refused as AWS refuses them.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol
from urllib.parse import parse_qs, urlencode

import orjson

from simulator.cloud import kinesis_http, metrics_intake
from simulator.cloud.auto_scaling import PERIOD_S, AutoScaling
from simulator.cloud.aws_protocols import JSON_TARGET as CLOUDWATCH_TARGET
from simulator.cloud.cloudwatch import CloudWatch
from simulator.cloud.dynamodb_api import DynamoDBApi
from simulator.cloud.dynamodb_streams_api import TARGET as STREAMS_TARGET
from simulator.cloud.errors import AwsError
from simulator.cloud.iot import Iot, new_trace_id
from simulator.cloud.kinesis_api import TARGET, KinesisApi
from simulator.cloud.kinesis_wire import JSON_WIRE, WIRES
from simulator.cloud.limits import LimitSettings
from simulator.cloud.metrics import Metrics
from simulator.cloud.mqtt_listener import serve_websocket

ACCOUNT_ID = "123456789012"
DEFAULT_REGION = "us-east-1"
DYNAMODB_TARGET = "DynamoDB_20120810"
# The largest request any simulated operation takes is a PutRecords of 10 MiB, a third larger in base64.
MAX_REQUEST_BYTES = 64 * 1024 * 1024
ALARM_INTERVAL_S = 10.0

_SWEEP_S = 10.0
log = logging.getLogger(__name__)

Headers = dict[str, str]
Answer = tuple[int, Headers, bytes]
Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_CREDENTIAL = re.compile(r"Credential=[^/,\s]+/\d{8}/([^/,\s]+)/([^/,\s]+)/aws4_request")


class OtherServices(Protocol):
    """Whatever answers the services that are not simulated here."""

    def call(self, method: str, url: str, headers: Headers, body: bytes) -> Answer: ...


class Cloud:
    """The embedded AWS account: its services, their limits and metrics, as one ASGI application."""

    def __init__(
        self,
        settings: LimitSettings | None = None,
        *,
        dynamodb: DynamoDBApi | None = None,
        others: OtherServices | None = None,
        account_id: str = ACCOUNT_ID,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings or LimitSettings()
        self.metrics = Metrics()
        self.account_id = account_id
        self.clock = clock
        self.started_at = clock()
        self.kinesis = KinesisApi(account_id, self.settings, self.metrics, clock)
        self.iot = Iot(account_id, self.settings, self.metrics, self.kinesis, self._put_object, clock)
        self.cloudwatch = CloudWatch(self.metrics, account_id, self._publish, clock)
        self.auto_scaling = AutoScaling(
            self.metrics,
            lambda policy: self.dynamodb.provisioned(policy),
            lambda policy, units: self.dynamodb.scale(policy, units),
        )
        self._alarm_clock: asyncio.Task[None] | None = None
        self._dynamodb = dynamodb
        self._others = others
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="alleycat-moto")
        self._sweeping: asyncio.Task[None] | None = None

    def close(self) -> None:
        """Stop the worker thread; what is stored is gone with the process."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        self.iot.close()
        self._worker.shutdown(wait=False, cancel_futures=True)

    # moto takes a second to import, and a stream alone does not need it.

    @property
    def dynamodb(self) -> DynamoDBApi:
        if self._dynamodb is None:
            from simulator.cloud.moto_store import MotoStore

            self._dynamodb = DynamoDBApi(MotoStore(), settings=self.settings, metrics=self.metrics, clock=self.clock)
        return self._dynamodb

    @property
    def others(self) -> OtherServices:
        if self._others is None:
            from simulator.cloud.moto_store import MotoServices

            self._others = MotoServices()
        return self._others

    # -- ASGI ------------------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        if self._sweeping is None:
            self._sweeping = asyncio.create_task(self._sweep(), name="alleycat-sweep")
        body = await _read_body(receive)
        if body is None:
            status, headers, answer = 413, {"content-type": "text/plain"}, b"Request larger than 64 MiB\n"
        else:
            answered = await self._answer(scope, body, receive, send)
            if answered is None:
                return
            status, headers, answer = answered
        if scope["method"] != "HEAD":
            # An answer to HEAD tells the length of what GET would give.
            headers["content-length"] = str(len(answer))
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
            }
        )
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer})

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """MQTT over WebSocket is at /mqtt, as at IoT Core; signatures in the query are not checked."""
        if scope["path"] == "/mqtt":
            await serve_websocket(self.iot.listener, scope, receive, send)
            return
        await receive()
        await send({"type": "websocket.close", "code": 1000})

    async def _sweep(self) -> None:
        """Retention ends also for streams that nobody writes to or reads; tables are scaled once a minute."""
        minute = int(self.clock() // PERIOD_S)
        while True:
            await asyncio.sleep(_SWEEP_S)
            self.kinesis.sweep()
            now = self.clock()
            if int(now // PERIOD_S) != minute:
                minute = int(now // PERIOD_S)
                try:
                    await asyncio.get_running_loop().run_in_executor(self._worker, self.scale_tables, now)
                except Exception:
                    # What a client registered may be anything; retention must go on.
                    log.exception("auto scaling failed")

    def scale_tables(self, now: float) -> None:
        """One minute of auto scaling, and of the streams' retention; on the worker thread."""
        if self._dynamodb is not None:
            self._dynamodb.sweep()
        if self._others is None or self._dynamodb is None:
            return  # Nobody can have registered a policy, or there is no table.
        from simulator.cloud.moto_store import scaling_policies

        self.auto_scaling.evaluate(scaling_policies(), now)

    async def _answer(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> Answer | None:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        path = scope["path"]
        if (scope["method"], path) in (("POST", "/_alleycat/reset"), ("POST", "/moto-api/reset")):
            return await self._reset()
        if path.startswith("/_alleycat/"):
            page, query = path.removeprefix("/_alleycat/"), scope.get("query_string", b"").decode()
            if scope["method"] == "POST":
                return await self._take(page, body)
            return await self._own(page, query)
        service, _, operation = headers.get("x-amz-target", "").partition(".")
        scope_match = _CREDENTIAL.search(headers.get("authorization", ""))
        region = scope_match[1] if scope_match else DEFAULT_REGION
        if service == TARGET or (scope_match and scope_match[2] == "kinesis"):
            return await self._kinesis(scope, headers, body, region, receive, send)
        loop = asyncio.get_running_loop()
        if service == DYNAMODB_TARGET:
            if scope_match is None:
                return _missing_token("application/x-amz-json-1.0")
            answer = await loop.run_in_executor(
                self._worker, lambda: self.dynamodb.handle(operation, body, region, headers)
            )
            return answer.status, dict(answer.headers), answer.body
        if service == STREAMS_TARGET:
            if scope_match is None:
                return _missing_token("application/x-amz-json-1.0")
            answer = await loop.run_in_executor(
                self._worker, lambda: self.dynamodb.handle_streams(operation, body, region)
            )
            return answer.status, dict(answer.headers), answer.body
        query = scope.get("query_string", b"").decode()
        if service == CLOUDWATCH_TARGET and scope_match is None:
            return _missing_token("application/x-amz-json-1.0")
        if scope_match and scope_match[2] == "monitoring":
            return await self._ask_cloudwatch(path, query, headers, body, region)
        if scope_match and scope_match[2] in ("iot", "iotdata"):
            answered = self._iot(scope, headers, query, body, region, scope_match[2])
            if answered is not None:
                return answered
        url = f"http://{headers.get('host', 'localhost')}{_raw_path(scope)}{'?' + query if query else ''}"
        return await loop.run_in_executor(self._worker, lambda: self.others.call(scope["method"], url, headers, body))

    async def _kinesis(
        self, scope: Scope, headers: Headers, body: bytes, region: str, receive: Receive, send: Send
    ) -> Answer | None:
        """None when the answer was sent piece by piece."""
        operation = headers.get("x-amz-target", "").partition(".")[2]
        query = scope.get("query_string", b"").decode()
        told = {**request_ids(), **kinesis_http.cross_origin(headers)}
        if scope["method"] == "OPTIONS" and "origin" in headers:
            return kinesis_http.preflight(headers)
        answer: Answer | None = kinesis_http.front_error(scope["method"], headers, query, body)
        if answer is None:
            wire = WIRES[headers["content-type"].partition(";")[0].strip()]
            if operation == "SubscribeToShard":
                answer = await kinesis_http.push_subscription(self.kinesis, body, region, wire, told, receive, send)
                if answer is None:
                    return None
            else:
                answer = kinesis_http.respond(self.kinesis, operation, body, region, wire)
        status, answer_headers, content = answer
        return status, {**answer_headers, **told}, content

    def _iot(self, scope: Scope, headers: Headers, query: str, body: bytes, region: str, service: str) -> Answer | None:
        """IoT Core's two faces; what its control plane has beside rules is moto's."""
        ids = request_ids()
        if service == "iotdata":
            answer: Answer | None = self.iot.answer_data(
                scope["method"], _raw_path(scope), query, headers, body, new_trace_id()
            )
        else:
            address = headers.get("host", "localhost")
            answer = self.iot.answer_control(scope["method"], _raw_path(scope), query, body, region, address)
        if answer is None:
            return None
        return answer[0], {**answer[1], **ids}, answer[2]

    def _put_object(
        self, region: str, bucket: str, key: str, body: bytes, acl: str | None, done: Callable[[int, bytes], None]
    ) -> None:
        """An S3 action of a rule, by the S3 of the other services on the worker thread."""
        headers = {
            "host": "localhost",
            "content-type": "application/octet-stream",
            "content-length": str(len(body)),
            "authorization": f"AWS4-HMAC-SHA256 Credential=test/20000101/{region}/s3/aws4_request",
            **({"x-amz-acl": acl} if acl else {}),
        }
        url = f"http://localhost/{bucket}/{key}"
        call = asyncio.get_running_loop().run_in_executor(
            self._worker, lambda: self.others.call("PUT", url, headers, body)
        )

        def finished(answered: asyncio.Future[Answer]) -> None:
            if answered.cancelled():
                return
            error = answered.exception()
            done(*((500, str(error).encode()) if error else (answered.result()[0], answered.result()[2])))

        call.add_done_callback(finished)

    async def _reset(self) -> Answer:
        """Forget everything, as between two tests. moto's clients know this page under their own name."""
        self.kinesis.reset()
        self.iot.reset()
        await asyncio.get_running_loop().run_in_executor(self._worker, self._reset_others)
        return 200, {"content-type": "application/json"}, b'{"status": "ok"}'

    def _reset_others(self) -> None:
        if self._dynamodb is not None or self._others is not None:
            from simulator.cloud.moto_store import reset

            reset()
        self._dynamodb = None
        self.metrics.clear()
        self.cloudwatch = CloudWatch(self.metrics, self.account_id, self._publish, self.clock)

    async def _ask_cloudwatch(self, path: str, query: str, headers: Headers, body: bytes, region: str) -> Answer:
        loop = asyncio.get_running_loop()
        answer = await loop.run_in_executor(
            self._worker, lambda: self.cloudwatch.handle(path, query, headers, body, region)
        )
        if self.cloudwatch.has_alarms() and (self._alarm_clock is None or self._alarm_clock.done()):
            self._alarm_clock = asyncio.create_task(self._watch_alarms(), name="alleycat-alarms")
        return answer

    async def _watch_alarms(self) -> None:
        """So that topics are told of an alarm that nobody asks for."""
        while self.cloudwatch.has_alarms():
            await asyncio.sleep(ALARM_INTERVAL_S)
            await asyncio.get_running_loop().run_in_executor(self._worker, self.cloudwatch.evaluate_alarms)

    def _publish(self, region: str, topic_arn: str, subject: str, message: str) -> None:
        """An alarm's action, by the SNS of the other services; on the worker thread."""
        form = {"Action": "Publish", "Version": "2010-03-31", "TopicArn": topic_arn, "Subject": subject[:100]}
        headers = {
            "content-type": "application/x-www-form-urlencoded",
            "authorization": f"AWS4-HMAC-SHA256 Credential=test/20000101/{region}/sns/aws4_request",
        }
        self.others.call("POST", "http://localhost/", headers, urlencode({**form, "Message": message}).encode())

    async def _own(self, page: str, query: str) -> Answer:
        """What the cloud says of itself, as JSON."""
        now = self.clock()
        if page == "health":
            told: Any = {"status": "ok", "uptime_s": round(now - self.started_at, 3), "services": _services()}
        elif page == "metrics":
            since = parse_qs(query).get("since", ["0"])[0]
            try:
                told = self.metrics.to_json(float(since))
            except ValueError:
                return 400, {"content-type": "text/plain"}, f"since={since}: give seconds since the epoch\n".encode()
        elif page == "prometheus":
            from simulator.cloud import prometheus

            text = await asyncio.get_running_loop().run_in_executor(self._worker, prometheus.render, self.metrics, now)
            return 200, {"content-type": prometheus.CONTENT_TYPE}, text
        elif page == "iot":
            told = self.iot.describe()
        elif page == "capacity":
            told = await asyncio.get_running_loop().run_in_executor(self._worker, self._capacity, now)
        else:
            pages = ", ".join(f"/_alleycat/{page}" for page in ("health", "metrics", "prometheus", "capacity", "iot"))
            return 404, {"content-type": "text/plain"}, f"No such page. There are {pages}\n".encode()
        return 200, {"content-type": "application/json"}, orjson.dumps(told)

    async def _take(self, page: str, body: bytes) -> Answer:
        """Metrics from outside, stored by the worker thread as CloudWatch's are."""
        if page != "metrics":
            return 405, {"content-type": "text/plain", "allow": "GET"}, b"POST is for /_alleycat/metrics\n"
        try:
            stored = await asyncio.get_running_loop().run_in_executor(
                self._worker, metrics_intake.take, self.metrics, body
            )
        except metrics_intake.IntakeError as error:
            return 400, {"content-type": "text/plain"}, f"{error}\n".encode()
        return 200, {"content-type": "application/json"}, orjson.dumps({"stored": stored})

    def _capacity(self, now: float) -> dict[str, Any]:
        """Provisioned units and burst left of every table and index; levels of every shard."""
        streams = {
            stream.name: [
                {
                    "ShardId": shard.shard_id,
                    "Open": shard.is_open,
                    "RecordsStored": shard.log.end - shard.log.first,
                    "BytesStored": shard.log.bytes_stored,
                }
                for shard in stream.shards
            ]
            for kinesis in self.kinesis.regions.values()
            for stream in kinesis.streams.values()
        }
        tables = self._dynamodb.describe_capacity(now) if self._dynamodb is not None else {}
        return {"streams": streams, "tables": tables}


def request_ids() -> Headers:
    """The two ids that every answer of AWS carries."""
    return {"x-amzn-requestid": str(uuid.uuid4()), "x-amz-id-2": uuid.uuid4().hex * 2}


def _services() -> Iterable[str]:
    return ["kinesis", "dynamodb", "cloudwatch", "iot", "everything else by moto"]


def _missing_token(content_type: str) -> Answer:
    error = AwsError("MissingAuthenticationTokenException", "Missing Authentication Token")
    return error.status, {"content-type": content_type, **request_ids()}, JSON_WIRE.error(error)


def _raw_path(scope: Scope) -> str:
    """The path as sent: S3 keys keep their percent-encoding."""
    raw = scope.get("raw_path")
    return str(raw.decode("latin-1").partition("?")[0]) if raw else str(scope["path"])


async def _read_body(receive: Receive) -> bytes | None:
    """The whole request body; None when it is larger than anything an operation takes."""
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        return body
    parts = [body]
    size = len(body)
    while message.get("more_body"):
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_REQUEST_BYTES:
            return None
    return b"".join(parts)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
