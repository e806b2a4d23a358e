"""Calls of AWS's JSON protocols from gevent: one kept-alive connection, signed, and never retried.

boto3 spends milliseconds of CPU on a call of 500 records and retries behind the caller's back; a load generator may
do neither. botocore still says where to send and with which credentials; geventhttpclient, which Locust brings, sends.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from http.client import HTTPException
from typing import Any, NamedTuple, Self

import botocore.session
import gevent
import msgspec
from botocore.exceptions import BotoCoreError
from geventhttpclient import HTTPClient

from loadtests.signing import Signer
from producers.put_records import error_of
from simulator.target import TargetError

_SERVICES = {
    "kinesis": ("application/x-amz-json-1.1", "Kinesis_20131202."),
    "dynamodb": ("application/x-amz-json-1.0", "DynamoDB_20120810."),
}
NO_ANSWER = "NoAnswer"
"""The code of a call that got no HTTP answer."""
BLOCK_BYTES = 64 * 1024
"""Read at once. An answer to 500 records is 60 KB, which the library's own 4 KiB would cost 15 system calls."""


class Answer(NamedTuple):
    """``code`` and ``message`` are empty when the call succeeded, else the service's words, or the network's."""

    status: int
    body: bytes
    code: str
    message: str


def decoded(body: bytes) -> Any:
    """The JSON of an answer, an empty object when it is none."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}


class Endpoint:
    """Where a service is, and how requests to it are signed. Shared by all users of a process."""

    def __init__(
        self, service: str, region: str, url: str, credentials: Any, clock: Callable[[], float] = time.time
    ) -> None:
        self.service, self.region, self.url = service, region, url
        self._signer = Signer(service, region, url, *_SERVICES[service])
        self.path = self._signer.path
        self._credentials, self._clock = credentials, clock

    @classmethod
    def resolve(cls, service: str, session: Any = None) -> Self:
        """As boto3 would: ``AWS_ENDPOINT_URL``, ``AWS_REGION``, profiles. :raises TargetError: what is missing."""
        session = session or botocore.session.get_session()
        try:
            # botocore reads AWS_DEFAULT_REGION only; the other SDKs and aws_target mean AWS_REGION.
            client = session.create_client(service, region_name=os.environ.get("AWS_REGION") or None)
            credentials = session.get_credentials()
        except (BotoCoreError, ValueError) as error:
            raise TargetError(f"cannot use {service}: {error} (AWS_REGION, AWS_PROFILE?)") from None
        if credentials is None:
            raise TargetError("no AWS credentials were found; set AWS_PROFILE, or run `aws configure`")
        try:
            return cls(service, client.meta.region_name, client.meta.endpoint_url, credentials)
        except ValueError as error:
            raise TargetError(f"cannot use {service}: {error}") from None

    def headers(self, operation: str, body: bytes) -> dict[str, str]:
        """Of a request signed with Signature Version 4."""
        return self._signer.headers(self._credentials.get_frozen_credentials(), operation, body, self._clock())


class Caller:
    """One user's connection to an :class:`Endpoint`."""

    def __init__(self, endpoint: Endpoint, timeout_s: float = 10.0) -> None:
        self._endpoint, self._timeout_s = endpoint, timeout_s
        self._http = HTTPClient.from_url(
            endpoint.url,
            concurrency=1,
            block_size=BLOCK_BYTES,
            connection_timeout=timeout_s,
            network_timeout=timeout_s,
        )

    def call(self, operation: str, body: bytes) -> Answer:
        """Never raises for what the other side does."""
        try:
            # The library's own timeout is of each read: an answer that trickles in would never be late.
            with gevent.Timeout(self._timeout_s, TimeoutError("timed out")):
                response = self._http.post(self._endpoint.path, body, self._endpoint.headers(operation, body))
                data = bytes(response.read())
            status = response.status_code
        except (OSError, BotoCoreError, ValueError, EOFError, HTTPException) as error:
            return Answer(0, b"", NO_ANSWER, f"{self._endpoint.url}: {error or type(error).__name__}")
        if status == 200:
            return Answer(status, data, "", "")
        headers: Mapping[str, str] = {"x-amzn-ErrorType": response.get("x-amzn-errortype") or ""}
        code, message = error_of(data, headers)
        return Answer(status, data, code or f"HTTP{status}", message)

    def ask(self, operation: str, request: Mapping[str, Any]) -> tuple[Answer, Any]:
        """A call with a plain request; the second is the decoded answer, None when there is none."""
        answer = self.call(operation, msgspec.json.encode(request))
        try:
            return answer, msgspec.json.decode(answer.body) if answer.status == 200 else None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return Answer(answer.status, b"", "AnswerUnreadable", str(error)), None

    def close(self) -> None:
        self._http.close()
