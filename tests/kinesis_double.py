"""A Kinesis endpoint for the producer's tests: real HTTP on a local port, scripted answers, strict about requests.

Every PutRecords request is checked against botocore's service model, and for the limits that the model does not
hold. ``reply`` decides what a call gets; what is stored is in ``stored``, in order.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import botocore.session
from aiohttp import web
from botocore.validate import ParamValidator

Entry = tuple[str, bytes]
"""Partition key and data."""

_model = botocore.session.get_session().get_service_model("kinesis")
_put_records = _model.operation_model("PutRecords").input_shape


@dataclass
class Reply:
    """What a PutRecords call gets.

    ``errors`` maps indices of entries to their ErrorCode; or the whole call fails with ``status`` and ``code``; or
    the connection is dropped, with the entries stored or not. ``hold`` keeps the answer back until it is set.
    """

    errors: dict[int, str] = field(default_factory=dict)
    status: int = 200
    code: str = ""
    drop: bool = False
    store: bool = True
    hold: asyncio.Event | None = None


class KinesisDouble:
    """``async with KinesisDouble() as kinesis`` serves at ``kinesis.url``."""

    def __init__(self, reply: Callable[[list[Entry]], Reply] = lambda entries: Reply()) -> None:
        self.reply = reply
        self.describe: tuple[int, dict[str, Any]] = (
            200,
            {"StreamDescriptionSummary": {"StreamStatus": "ACTIVE"}},
        )
        self.calls: list[list[Entry]] = []
        self.stored: list[Entry] = []
        self.sent: Counter[Entry] = Counter()
        self.problems: list[str] = []
        self.url = ""

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._runner.cleanup()
        assert not self.problems, self.problems[:3]

    async def stop(self) -> None:
        """Vanish: close the port and all connections."""
        await self._runner.cleanup()

    @property
    def data(self) -> list[bytes]:
        return [data for _, data in self.stored]

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        service, _, operation = request.headers["X-Amz-Target"].partition(".")
        body = await request.read()
        if service != "Kinesis_20131202" or "/kinesis/aws4_request" not in request.headers["Authorization"]:
            self.problems.append(f"not a signed Kinesis request: {dict(request.headers)}")
        if operation == "DescribeStreamSummary":
            status, answer = self.describe
            return web.json_response(answer, status=status)
        entries = self._validated(json.loads(body))
        self.calls.append(entries)
        self.sent.update(entries)
        reply = self.reply(entries)
        if reply.hold is not None:
            await reply.hold.wait()
        if reply.status == 200 and reply.store:
            self.stored += [entry for index, entry in enumerate(entries) if index not in reply.errors]
        if reply.drop:
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        if reply.status != 200:
            return web.json_response({"__type": reply.code, "message": "as scripted"}, status=reply.status)
        return web.json_response(
            {
                "FailedRecordCount": len(reply.errors),
                "Records": [
                    {"ErrorCode": reply.errors[index], "ErrorMessage": _message(reply.errors[index])}
                    if index in reply.errors
                    else {"SequenceNumber": str(index), "ShardId": "shardId-000000000000"}
                    for index in range(len(entries))
                ],
                "EncryptionType": "NONE",
            }
        )

    def _validated(self, request: dict[str, Any]) -> list[Entry]:
        for record in request["Records"]:
            record["Data"] = base64.b64decode(record["Data"], validate=True)
        report = ParamValidator().validate(request, _put_records)
        if report.has_errors():
            self.problems.append(report.generate_report())
        unknown = set(request) - set(_put_records.members)
        entry_members = set(_put_records.members["Records"].member.members)
        for record in request["Records"]:
            unknown |= set(record) - entry_members
        if unknown:
            self.problems.append(f"members that PutRecords does not have: {unknown}")
        entries = [(record["PartitionKey"], record["Data"]) for record in request["Records"]]
        sizes = [len(key.encode()) + len(data) for key, data in entries]
        if not 1 <= len(entries) <= 500 or sum(sizes) > 10 * 1024 * 1024 or max(sizes) > 1024 * 1024:
            self.problems.append(f"{len(entries)} records of {sum(sizes)} bytes, the largest {max(sizes)}")
        return entries


def _message(code: str) -> str:
    if code == "ProvisionedThroughputExceededException":
        return "Rate exceeded for shard shardId-000000000000 in stream alleycat under account 000000000000."
    return "Internal service failure."


def failing(status: int, code: str) -> tuple[int, dict[str, Any]]:
    """A ``describe`` answer that is an error."""
    return status, {"__type": code, "message": "as scripted"}
