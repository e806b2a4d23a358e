"""Signed requests over kept-alive connections, and foreign errors turned into ours."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import Mapping
from typing import Any, Self

import aiohttp
import msgspec
from botocore.exceptions import BotoCoreError

from producers.errors import AccessRefused, EndpointUnreachable, ProducerError, RequestRefused, StreamNotFound
from producers.put_records import error_of, stream_parameter
from producers.retry import FAULT, Meaning, meaning_of_call
from producers.signing import Target

_AIOHTTP_BYTES_MAX = 1024 * 1024
"""Above this aiohttp wants a body as a file, and warns about bytes."""


class Unanswered(Exception):  # noqa: N818 - never leaves this package
    """A request got no answer. ``was_sent``: it may have arrived."""

    def __init__(self, problem: str, *, was_sent: bool) -> None:
        super().__init__(problem)
        self.was_sent = was_sent


class Transport:
    """Up to ``connections`` kept-alive connections to one :class:`producers.signing.Target`."""

    def __init__(self, target: Target, connections: int, request_timeout_s: float) -> None:
        self.target = target
        self._request_timeout_s = request_timeout_s
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections, ssl=True if target.tls is None else target.tls),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=["Accept", "Accept-Encoding"],
            headers={"User-Agent": "alleycat-producer"},
            timeout=aiohttp.ClientTimeout(total=request_timeout_s, sock_connect=request_timeout_s),
        )

    @classmethod
    async def open(
        cls,
        region: str | None,
        endpoint_url: str | None,
        session: Any,
        connections: int,
        request_timeout_s: float,
    ) -> Self:
        """Find the target in a thread, because that reads files. Connects to nothing yet.

        :raises ConfigurationError: see :meth:`producers.signing.Target.resolve`.
        """
        target = await asyncio.to_thread(Target.resolve, region, endpoint_url, session)
        return cls(target, connections, request_timeout_s)

    async def close(self) -> None:
        await self._http.close()

    async def post(self, operation: str, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        """HTTP status, headers and body of the answer.

        :raises Unanswered: when there is none.
        """
        try:
            headers = await self.target.headers(operation, body)
        except (BotoCoreError, OSError) as error:
            raise Unanswered(f"credentials could not be refreshed: {error}", was_sent=False) from None
        try:
            async with self._http.post(
                self.target.endpoint_url,
                data=body if len(body) <= _AIOHTTP_BYTES_MAX else io.BytesIO(body),
                headers=headers,
                proxy=self.target.proxy,
                allow_redirects=False,
            ) as response:
                return response.status, response.headers, await response.read()
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL) as error:
            raise Unanswered(_words(error), was_sent=False) from None
        except TimeoutError:
            raise Unanswered(f"no answer within {self._request_timeout_s:g} s", was_sent=True) from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unanswered(_words(error), was_sent=True) from None

    async def check_stream(self, stream: str, timeout_s: float, rng: random.Random) -> None:
        """Find out what can be known before the first record: endpoint, credentials, stream.

        Faults, and a stream that is being created, are tried again for ``timeout_s``; a connection that is refused
        is not. Credentials that may not describe the stream may still be good for writing to it.

        :raises EndpointUnreachable: or another of the errors of :meth:`refusal`.
        """
        loop = asyncio.get_running_loop()
        give_up = loop.time() + timeout_s
        body = msgspec.json.encode(stream_parameter(stream))
        attempt = 0
        while True:
            attempt += 1
            try:
                async with asyncio.timeout_at(max(give_up, loop.time() + 0.1)):
                    status, headers, answer = await self.post("DescribeStreamSummary", body)
            except Unanswered as error:
                raise EndpointUnreachable(self.target.endpoint_url, str(error)) from None
            except TimeoutError:
                raise EndpointUnreachable(self.target.endpoint_url, f"no answer within {timeout_s:g} s") from None
            if status == 200:
                state = _stream_status(answer)
                if state is None:
                    raise EndpointUnreachable(self.target.endpoint_url, "what answers there is not Kinesis")
                if state != "CREATING":
                    return
                problem = "the stream is still being created"
            else:
                code, message = error_of(answer, headers)
                meaning = meaning_of_call(status, code)
                if meaning is Meaning.THROTTLED or code in (
                    "AccessDeniedException",
                    "UnknownOperationException",
                ):
                    return
                if meaning not in (Meaning.FAILED, Meaning.UNCERTAIN):
                    raise self.refusal(stream, status, code, message)
                problem = f"it answers HTTP {status} {code} {message}".rstrip()
            pause_s = 0.05 + FAULT.delay_s(attempt, rng)
            if loop.time() + pause_s > give_up:
                raise EndpointUnreachable(self.target.endpoint_url, problem)
            await asyncio.sleep(pause_s)

    def refusal(self, stream: str, status: int, code: str, message: str) -> ProducerError:
        """The exception for an answer after which no call will fare better."""
        meaning = meaning_of_call(status, code)
        code = code or f"HTTP {status}"
        if meaning is Meaning.STREAM_MISSING:
            return StreamNotFound(code, message, status, stream, self.target.region)
        if meaning is Meaning.ACCESS:
            return AccessRefused(code, message, status)
        return RequestRefused(code, message, status)


class _Summary(msgspec.Struct):
    StreamStatus: str


class _Description(msgspec.Struct):
    StreamDescriptionSummary: _Summary


def _stream_status(answer: bytes) -> str | None:
    try:
        return msgspec.json.decode(answer, type=_Description).StreamDescriptionSummary.StreamStatus
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _words(error: BaseException) -> str:
    """What went wrong, in the words of the system where there are any."""
    cause = getattr(error, "os_error", error)
    return str(getattr(cause, "strerror", None) or cause) or type(cause).__name__
