"""Kinesis's wire: CBOR as the Java SDKs speak it, what the HTTP front refuses, and the event stream's frames."""

from __future__ import annotations

import http.client
import json
from typing import Any

import cbor2
import pytest
from botocore.eventstream import EventStreamBuffer
from conftest import client_of
from hypothesis import given
from hypothesis import strategies as st

from simulator.cloud import event_stream
from simulator.cloud.kinesis_wire import CBOR, CBOR_WIRE, JSON
from simulator.cloud.server import CloudProcess

AUTHORIZATION = (
    "AWS4-HMAC-SHA256 Credential=test/20261120/us-east-1/kinesis/aws4_request, SignedHeaders=host, Signature=0"
)


def send(
    cloud: CloudProcess, operation: str | None, body: bytes, content_type: str = JSON, method: str = "POST", **more: str
) -> tuple[int, dict[str, str], bytes]:
    headers = {"content-type": content_type, "authorization": AUTHORIZATION}
    if operation is not None:
        headers["x-amz-target"] = f"Kinesis_20131202.{operation}"
    headers |= {name.replace("_", "-"): value for name, value in more.items()}
    connection = http.client.HTTPConnection(cloud.host, cloud.port, timeout=30)
    try:
        connection.request(method, more.pop("path", "/"), body, {k: v for k, v in headers.items() if v})
        answer = connection.getresponse()
        told = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, told, answer.read()
    finally:
        connection.close()


# -- CBOR ----------------------------------------------------------------------------------------------


def cbor(cloud: CloudProcess, operation: str, **members: Any) -> tuple[int, Any]:
    status, headers, body = send(cloud, operation, cbor2.dumps(members), CBOR)
    assert headers["content-type"] == CBOR
    # A tag hook is no use for tag 1, which every library reads as seconds: milliseconds are read by their tag here.
    raw = {1: lambda value, _: ("ms", value)}
    return status, cbor2.loads(body, semantic_decoders=raw) if body else None


def test_a_stream_lives_in_cbor(cloud: CloudProcess, stream: str) -> None:
    assert cbor(cloud, "CreateStream", StreamName=stream, ShardCount=1) == (200, None)
    records = [{"Data": bytes([0, 255, index]), "PartitionKey": f"k{index}"} for index in range(3)]
    status, answer = cbor(cloud, "PutRecords", StreamName=stream, Records=records)
    assert (status, answer["FailedRecordCount"], len(answer["Records"])) == (200, 0, 3)
    _, described = cbor(cloud, "DescribeStream", StreamName=stream)
    kind, created_ms = described["StreamDescription"]["StreamCreationTimestamp"]
    assert kind == "ms"
    assert isinstance(created_ms, int)
    _, told = cbor(
        cloud,
        "GetShardIterator",
        StreamName=stream,
        ShardId="shardId-000000000000",
        ShardIteratorType="AT_TIMESTAMP",
        Timestamp=cbor2.CBORTag(1, created_ms),
    )
    _, read = cbor(cloud, "GetRecords", ShardIterator=told["ShardIterator"])
    assert [record["Data"] for record in read["Records"]] == [record["Data"] for record in records]
    kind, arrival_ms = read["Records"][0]["ApproximateArrivalTimestamp"]
    assert kind == "ms"
    assert created_ms <= arrival_ms < created_ms + 60_000


def test_the_wires_own_example_is_read() -> None:
    """Captured from an unmodified Java client: Timestamp, tag 1, milliseconds (floci #2368)."""
    assert CBOR_WIRE.decode(bytes.fromhex("a16954696d657374616d70c11b000001a013accc38")) == {
        "Timestamp": 1787036486.712
    }


def test_errors_in_cbor(cloud: CloudProcess) -> None:
    """The body is a map of __type and message, as recorded on AWS (LocalStack, test_cbor_exceptions)."""
    assert cbor(cloud, "DescribeStream", StreamName="nix") == (
        400,
        {"__type": "ResourceNotFoundException", "message": "Stream nix under account 123456789012 not found."},
    )
    status, told = cbor(cloud, "PutRecords", StreamName="s", Records=[{"Data": 7, "PartitionKey": "k"}])
    assert (status, told["__type"]) == (400, "SerializationException")
    for broken in (b"\xff", b"\xc1\x61x", b"\x9f" * 50, b"\xa1\xc1"):
        status, _, body = send(cloud, "ListStreams", broken, CBOR)
        assert (status, cbor2.loads(body)) == (400, {"__type": "SerializationException"})


# -- the front -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "body", "content_type", "method", "status", "told"),
    [
        ("ListStreams", b"{}", JSON, "GET", 403, b"<AccessDeniedException>"),
        ("ListStreams", b"{}", "text/plain", "POST", 404, b"<UnknownOperationException/>\n"),
        (None, b"{}", "text/plain", "POST", 403, b"Unable to determine service/operation name to be authorized"),
        ("ListStreams", b"", JSON, "POST", 400, b'{"__type":"SerializationException"}'),
        ("Nonsense", b"", JSON, "POST", 400, b'{"__type":"UnknownOperationException"}'),
        ("Nonsense", b"{}", JSON, "POST", 400, b'{"__type":"UnknownOperationException"}'),
        ("Nonsense", b"{", JSON, "POST", 400, b'{"__type":"SerializationException"}'),
        ("ListStreams", b"{}", "application/json", "POST", 404, b"com.amazon.coral.service#UnknownOperationException"),
        ("ListStreams", b"{", "application/json", "POST", 400, b"com.amazon.coral.service#SerializationException"),
    ],
)
def test_what_reaches_no_operation(
    cloud: CloudProcess, operation: str | None, body: bytes, content_type: str, method: str, status: int, told: bytes
) -> None:
    answer = send(cloud, operation, body, content_type, method)
    assert (answer[0], told in answer[2]) == (status, True), answer
    assert {"x-amzn-requestid", "x-amz-id-2"} <= set(answer[1])


def test_authorization(cloud: CloudProcess) -> None:
    def kind(**headers: str) -> tuple[str, str]:
        _, _, body = send(cloud, "ListStreams", b"{}", **headers)
        told = json.loads(body)
        return told["__type"], told["message"]

    assert kind(authorization="") == ("MissingAuthenticationTokenException", "Missing Authentication Token")
    assert kind(path="/?X-Amz-Algorithm=a") == (
        "InvalidSignatureException",
        "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header.",
    )
    assert kind(authorization="AWS4-HMAC-SHA256 x") == (
        "IncompleteSignatureException",
        "Authorization header requires 'Credential' parameter. Authorization header requires 'Signature' parameter. "
        "Authorization header requires 'SignedHeaders' parameter. Authorization header requires existence of either a "
        "'X-Amz-Date' or a 'Date' header. Authorization=AWS4-HMAC-SHA256 x",
    )


def test_browsers_may_ask(cloud: CloudProcess) -> None:
    status, headers, body = send(
        cloud,
        "ListStreams",
        b"",
        method="OPTIONS",
        origin="https://example.com",
        access_control_request_headers="x-amz-target",
        access_control_request_method="POST",
    )
    assert (status, body) == (200, b"")
    assert headers["access-control-allow-origin"] == "*"
    assert headers["access-control-allow-headers"] == "x-amz-target"
    assert headers["access-control-max-age"] == "172800"


# -- event streams -------------------------------------------------------------------------------------


@given(st.dictionaries(st.text(min_size=1, max_size=20), st.text(max_size=50), max_size=4), st.binary(max_size=500))
def test_botocore_reads_our_frames(headers: dict[str, str], payload: bytes) -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(event_stream.message(headers, payload) + event_stream.event("e", JSON, payload))
    first, second = list(buffer)
    assert (first.headers, first.payload) == (headers, payload)
    assert second.headers == {":message-type": "event", ":event-type": "e", ":content-type": JSON}


def test_dry_runs_and_what_came_in_2026_are_not_simulated(cloud: CloudProcess, stream: str) -> None:
    client = client_of(cloud, "kinesis")
    client.create_stream(StreamName=stream, ShardCount=1)
    for call in (
        lambda: client.put_record(StreamName=stream, Data=b"x", PartitionKey="k", DryRun=True),
        lambda: client.put_records(StreamName=stream, Records=[{"Data": b"x", "PartitionKey": "k"}], DryRun=True),
        lambda: client.list_channels(),
        lambda: client.list_queues(),
        lambda: client.create_stream(StreamName="w", WarmThroughputMiBps=100),
    ):
        with pytest.raises(client.exceptions.ClientError, match="is not implemented by the embedded cloud"):
            call()
    client.close()
