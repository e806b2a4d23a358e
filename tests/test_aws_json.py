"""Signed calls over real sockets: signatures as botocore's, and every way in which an answer can fail to come."""

from __future__ import annotations

import contextlib
import datetime
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import CredentialRetrievalError
from hypothesis import given
from hypothesis import strategies as st

from loadtests.aws_json import BLOCK_BYTES, NO_ANSWER, Answer, Caller, Endpoint, decoded
from simulator.cloud.server import CloudProcess
from simulator.target import TargetError

KEYS = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
NOW_S = 1_800_000_000.0


# -- signatures ----------------------------------------------------------------------------------------


def signed_by_botocore(
    credentials: Credentials, service: str, region: str, url: str, sent: dict[str, str], body: bytes, at_s: float
) -> dict[str, str]:
    request = AWSRequest(
        method="POST",
        url=url,
        headers={"X-Amz-Target": sent["X-Amz-Target"], "Content-Type": sent["Content-Type"]},
        data=body,
    )
    frozen = datetime.datetime.fromtimestamp(int(at_s), datetime.UTC).replace(tzinfo=None)
    with mock.patch("botocore.auth.get_current_datetime", return_value=frozen):
        SigV4Auth(credentials.get_frozen_credentials(), service, region).add_auth(request)
    return dict(request.headers.items())


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://kinesis.eu-west-1.amazonaws.com", "kinesis.eu-west-1.amazonaws.com"),
        ("https://kinesis.eu-west-1.amazonaws.com:443/", "kinesis.eu-west-1.amazonaws.com"),
        ("http://127.0.0.1:4566", "127.0.0.1:4566"),
        ("http://localhost", "localhost"),
        ("https://LocalHost:80", "localhost:80"),
        ("http://[::1]:4566", "[::1]:4566"),
        ("http://proxy.example:8080/a b/~kinesis%20/../x//", "proxy.example:8080"),
    ],
)
@pytest.mark.parametrize("service", ["kinesis", "dynamodb"])
@given(
    body=st.binary(max_size=300),
    token=st.none() | st.text("abc/+=123", min_size=1),
    region=st.sampled_from(["us-east-1", "eu-west-1"]),
    at_s=st.floats(0, 4e9),
)
def test_signatures_are_botocores(
    service: str, url: str, host: str, body: bytes, token: str | None, region: str, at_s: float
) -> None:
    credentials = Credentials(KEYS.access_key, KEYS.secret_key, token)
    headers = Endpoint(service, region, url, credentials, clock=lambda: at_s).headers("PutRecords", body)
    assert headers.pop("Host") == host
    assert headers == signed_by_botocore(credentials, service, region, url, headers, body, at_s)


def test_keys_that_change_sign_otherwise_at_once() -> None:
    """What is kept between signatures must not outlive a day, a rotation of keys, or a region."""
    credentials = Credentials("one", "first")
    clock = [NOW_S]
    here = Endpoint("kinesis", "us-east-1", "http://127.0.0.1:1", credentials, clock=lambda: clock[0])
    for change in (
        lambda: None,
        lambda: setattr(credentials, "secret_key", "second"),
        lambda: setattr(credentials, "access_key", "two"),
        lambda: setattr(credentials, "token", "t"),
        lambda: clock.__setitem__(0, NOW_S + 1),
        lambda: clock.__setitem__(0, NOW_S + 86_400),
    ):
        change()
        headers = here.headers("GetRecords", b"{}")
        told = signed_by_botocore(credentials, "kinesis", "us-east-1", here.url, headers, b"{}", clock[0])
        assert headers["Authorization"] == told["Authorization"]


def test_headers_say_what_boto3s_do(cloud: CloudProcess) -> None:
    """Target and content type of a call that boto3 itself makes."""
    client = cloud.client("kinesis")
    sent: list[Any] = []
    client.meta.events.register("before-send.kinesis", lambda request, **_: sent.append(request))
    client.list_streams()
    client.close()
    ours = Endpoint("kinesis", "us-east-1", cloud.endpoint_url, KEYS).headers("ListStreams", b"{}")
    theirs = {name.lower(): value for name, value in sent[0].headers.items()}
    for name in ("X-Amz-Target", "Content-Type"):
        assert ours[name].encode() == theirs[name.lower()]


# -- where to send -------------------------------------------------------------------------------------


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """No configuration but what a test sets."""
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return monkeypatch


def test_endpoints_are_found_as_boto3_finds_them(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("AWS_ACCESS_KEY_ID", "a")
    bare.setenv("AWS_SECRET_ACCESS_KEY", "b")
    bare.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    assert Endpoint.resolve("kinesis").url == "https://kinesis.eu-central-1.amazonaws.com"
    bare.setenv("AWS_ENDPOINT_URL_DYNAMODB", "http://127.0.0.1:99")
    found = Endpoint.resolve("dynamodb")
    assert (found.url, found.region, found.service) == ("http://127.0.0.1:99", "eu-central-1", "dynamodb")


def test_what_is_missing_is_said(bare: pytest.MonkeyPatch) -> None:
    with pytest.raises(TargetError, match="AWS_REGION"):
        Endpoint.resolve("kinesis")
    bare.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    with pytest.raises(TargetError, match="no AWS credentials were found"):
        Endpoint.resolve("kinesis")
    bare.setenv("AWS_ACCESS_KEY_ID", "a")
    bare.setenv("AWS_SECRET_ACCESS_KEY", "b")
    bare.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:4566/?a=b")
    with pytest.raises(TargetError, match="is no endpoint"):
        Endpoint.resolve("kinesis")


# -- a server of our own -------------------------------------------------------------------------------


TRICKLE = b"trickle:"
"""Begins an answer that is sent a byte at a time, 20 a second."""


class Server:
    """Answers each request with the next of its answers, byte for byte; None is no answer at all.

    The connection stays open after an answer made by :func:`http`, and is closed after any other.
    """

    def __init__(self, *answers: bytes | None) -> None:
        self.requests: list[tuple[bytes, bytes]] = []
        self._answers = list(answers)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        # Wakes an accept that nobody connects to.
        with contextlib.suppress(OSError):
            socket.create_connection(self._listener.getsockname(), 5).close()
        self._thread.join(10)
        self._listener.close()
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        while self._answers and not self._over.is_set():
            connection, _ = self._listener.accept()
            with connection, connection.makefile("rb") as incoming:
                connection.settimeout(10)
                while self._answers and not self._over.is_set() and self._answer(connection, incoming):
                    pass

    def _answer(self, connection: socket.socket, incoming: Any) -> bool:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = incoming.readline()
            if not line:
                return False
            head += line
        length = next(
            int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
        )
        self.requests.append((head, incoming.read(length)))
        answer = self._answers.pop(0)
        if answer is None:
            self._over.wait(10)
            return False
        if answer.startswith(TRICKLE):
            with contextlib.suppress(OSError):
                for byte in answer.removeprefix(TRICKLE):
                    connection.sendall(bytes([byte]))
                    self._over.wait(0.05)
            return False
        connection.sendall(answer)
        return answer.startswith(b"HTTP/1.1 ") and b"\r\nKeep: yes\r\n" in answer


def http(status: int, body: bytes, *headers: str, length: int | None = None) -> bytes:
    """An answer after which the connection stays open."""
    lines = [
        f"HTTP/1.1 {status} Told",
        f"Content-Length: {len(body) if length is None else length}",
        "Keep: yes",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@contextlib.contextmanager
def calling(url: str, timeout_s: float = 10.0, credentials: Any = KEYS) -> Iterator[Caller]:
    caller = Caller(Endpoint("kinesis", "us-east-1", url, credentials), timeout_s)
    try:
        yield caller
    finally:
        caller.close()


def free_url() -> str:
    """Where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_call_arrives_as_it_was_signed() -> None:
    body = b'{"StreamName":"s"}'
    with Server(http(200, b'{"a":1}')) as server, calling(server.url) as caller:
        assert caller.call("PutRecords", body) == Answer(200, b'{"a":1}', "", "")
    ((head, received),) = server.requests
    assert received == body
    lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:] if line)
    assert lines[0] == "POST / HTTP/1.1"
    assert headers["Host"] == server.url.removeprefix("http://")
    assert headers["X-Amz-Target"] == "Kinesis_20131202.PutRecords"
    at_s = datetime.datetime.strptime(headers["X-Amz-Date"] + "+0000", "%Y%m%dT%H%M%SZ%z").timestamp()
    told = signed_by_botocore(KEYS, "kinesis", "us-east-1", server.url, headers, body, at_s)
    assert headers["Authorization"] == told["Authorization"]


def test_a_path_is_sent_as_it_was_signed() -> None:
    with Server(http(200, b"{}")) as server, calling(server.url + "/a/kinesis") as caller:
        assert caller.call("PutRecords", b"{}").status == 200
    assert server.requests[0][0].startswith(b"POST /a/kinesis HTTP/1.1\r\n")


def test_one_connection_is_kept() -> None:
    with Server(*[http(200, b"%d" % number) for number in range(3)]) as server, calling(server.url) as caller:
        assert [caller.call("PutRecords", b"{}").body for _ in range(3)] == [b"0", b"1", b"2"]


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 5 * BLOCK_BYTES])
def test_answers_of_any_size_are_read_whole(size: int) -> None:
    body = bytes(place % 251 for place in range(size))
    with Server(http(200, body)) as server, calling(server.url) as caller:
        assert caller.call("GetRecords", b"{}") == Answer(200, body, "", "")


@pytest.mark.parametrize(
    ("answer", "code", "message"),
    [
        (
            http(400, b'{"__type":"com.amazonaws.kinesis#ResourceNotFoundException","message":"Stream s not found."}'),
            "ResourceNotFoundException",
            "Stream s not found.",
        ),
        (
            http(400, b'{"__type":"ValidationException","Message":"too long"}', "x-amzn-ErrorType: LimitExceeded:http"),
            "LimitExceeded",
            "too long",
        ),
        (http(500, b"<html>Oops</html>"), "HTTP500", "<html>Oops</html>"),
        (http(503, b""), "HTTP503", ""),
        (http(403, b"\xff\xfe"), "HTTP403", "\ufffd\ufffd"),
        (http(500, b'["a list"]'), "HTTP500", '["a list"]'),
        (http(301, b"", "Location: http://127.0.0.1:1/"), "HTTP301", ""),
    ],
)
def test_refusals_become_codes(answer: bytes, code: str, message: str) -> None:
    with Server(answer, http(200, b"{}")) as server, calling(server.url) as caller:
        told = caller.call("PutRecords", b"{}")
        assert (told.code, told.message) == (code, message)
        assert told.status == int(answer.split()[1])
        assert caller.call("PutRecords", b"{}").code == ""


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x16\x03\x01\x02\x00 this is no HTTP at all\r\n\r\n",
        b"HTTP/1.1 200",
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Len",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=repr,
)
def test_what_is_no_answer_becomes_a_code_and_is_not_sent_again(answer: bytes) -> None:
    with Server(answer, http(200, b"{}")) as server, calling(server.url) as caller:
        told = caller.call("PutRecords", b"{}")
        assert (told.status, told.body, told.code) == (0, b"", NO_ANSWER)
        assert told.message.startswith(f"{server.url}: ")
        assert len(told.message) > len(server.url) + 2
        # A PutRecords that may have been stored is the caller's to send again.
        assert len(server.requests) == 1
        assert caller.call("PutRecords", b"{}") == Answer(200, b"{}", "", "")


def test_nobody_listens() -> None:
    url = free_url()
    with calling(url) as caller:
        for _ in range(3):
            told = caller.call("PutRecords", b"{}")
            assert (told.status, told.code) == (0, NO_ANSWER)
            assert told.message.startswith(f"{url}: ")
            assert "refused" in told.message


def test_no_answer_in_time() -> None:
    with Server(None, http(200, b"late")) as server, calling(server.url, timeout_s=1.0) as caller:
        began = time.monotonic()
        told = caller.call("PutRecords", b"{}")
        assert (told.status, told.code) == (0, NO_ANSWER)
        assert "timed out" in told.message
        assert time.monotonic() - began < 8
        assert len(server.requests) == 1


@pytest.mark.parametrize("length", [50, 400])
def test_an_answer_that_trickles_in(length: int) -> None:
    """Something arrives well within every read's timeout, the answer would take 5 s and more."""
    answer = TRICKLE + http(200, b"x" * length, "Filler: " + "y" * 50)
    with Server(answer, http(200, b"{}")) as server, calling(server.url, timeout_s=0.4) as caller:
        told = caller.call("PutRecords", b"{}")
        assert (told.status, told.code) == (0, NO_ANSWER)
        assert "timed out" in told.message
        # The connection of an answer that was given up is not used again.
        with calling(server.url) as patient:
            assert patient.call("PutRecords", b"{}") == Answer(200, b"{}", "", "")


def test_a_request_that_nobody_reads() -> None:
    """More than the sockets' buffers hold: sending it stops, and the connection is free for the next call."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with calling(url, timeout_s=0.4) as caller:
            for _ in range(2):
                told = caller.call("PutRecords", b"x" * 50_000_000)
                assert (told.status, told.code) == (0, NO_ANSWER)
                assert "timed out" in told.message


def test_a_connection_that_was_closed_meanwhile_is_opened_again() -> None:
    first = http(200, b"1").replace(b"Keep: yes\r\n", b"")
    with Server(first, http(200, b"2")) as server, calling(server.url) as caller:
        assert caller.call("PutRecords", b"{}").body == b"1"
        give_up = time.monotonic() + 10
        answers = []
        # The server's end of connection may not have arrived yet: then the call has no answer, and the next has.
        while b"2" not in answers and time.monotonic() < give_up:
            answers.append(caller.call("PutRecords", b"{}").body)
        assert answers[-1] == b"2"
    assert len(server.requests) == 2


def test_credentials_that_cannot_be_fetched() -> None:
    class Gone:
        def get_frozen_credentials(self) -> None:
            raise CredentialRetrievalError(provider="sso", error_msg="the session has ended")

    with calling(free_url(), credentials=Gone()) as caller:
        told = caller.call("PutRecords", b"{}")
    assert (told.status, told.code) == (0, NO_ANSWER)
    assert "the session has ended" in told.message


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", b'{"a":'])
def test_questions_answered_by_something_else(body: bytes) -> None:
    with Server(http(200, body)) as server, calling(server.url) as caller:
        answer, told = caller.ask("DescribeStream", {"StreamName": "s"})
    assert (answer.code, told) == ("AnswerUnreadable", None)
    assert json.loads(server.requests[0][1]) == {"StreamName": "s"}
    assert decoded(body) == {}


def test_questions_refused() -> None:
    with Server(http(400, b'{"__type":"X","message":"no"}')) as server, calling(server.url) as caller:
        assert caller.ask("DescribeStream", {}) == (Answer(400, b'{"__type":"X","message":"no"}', "X", "no"), None)


def test_the_cloud_is_asked(cloud: CloudProcess, kinesis: Any, stream: str) -> None:
    kinesis.create_stream(StreamName=stream, ShardCount=1)
    with calling(cloud.endpoint_url) as caller:
        answer, told = caller.ask("DescribeStreamSummary", {"StreamName": stream})
        assert (answer.code, told["StreamDescriptionSummary"]["OpenShardCount"]) == ("", 1)
        assert caller.call("DescribeStreamSummary", b'{"StreamName":"nowhere"}').code == "ResourceNotFoundException"
