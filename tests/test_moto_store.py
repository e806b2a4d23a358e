"""Everything but DynamoDB, by moto in-process: over a real socket, with boto3 as people use it."""

from __future__ import annotations

import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from simulator.cloud.moto_store import MotoServices

REGION = "eu-west-1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    services: MotoServices
    one_at_a_time = threading.Lock()

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        url = f"http://{self.headers['host']}{self.path}"
        with self.one_at_a_time:
            status, headers, answer = self.services.call(self.command, url, dict(self.headers.items()), body)
        self.send_response(status)
        told = {name: value for name, value in headers.items() if name.lower() != "content-length"}
        length = str(len(answer))
        if self.command == "HEAD":
            length = next((value for name, value in headers.items() if name.lower() == "content-length"), "0")
        for name, value in {**told, "content-length": length}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    Handler.services = MotoServices()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        server.daemon_threads = True
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def client(service: str, endpoint: str) -> Any:
    config = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1})
    session = boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name=REGION)
    return session.client(service, endpoint_url=endpoint, config=config)


@pytest.fixture
def s3(endpoint: str) -> Iterator[Any]:
    made = client("s3", endpoint)
    yield made
    made.close()


@pytest.mark.parametrize("name", ["races/class-1.gz", "with space", "\u00fc+c%2F/x", "a//b"])
def test_s3_keeps_objects_under_any_key(s3: Any, name: str) -> None:
    bucket = f"bucket-{abs(hash(name))}"
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    content = bytes(range(256)) * 40
    s3.put_object(Bucket=bucket, Key=name, Body=content, Metadata={"race_id": "7"})
    got = s3.get_object(Bucket=bucket, Key=name)
    assert got["Body"].read() == content
    assert got["Metadata"] == {"race_id": "7"}
    assert s3.head_object(Bucket=bucket, Key=name)["ContentLength"] == len(content)
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]] == [name]
    presigned = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": name})
    with urllib.request.urlopen(presigned, timeout=5) as answer:
        assert answer.read() == content
    s3.delete_object(Bucket=bucket, Key=name)
    with pytest.raises(ClientError, match="NoSuchKey"):
        s3.get_object(Bucket=bucket, Key=name)


def test_sqs_queue_urls_lead_back_to_this_endpoint(endpoint: str) -> None:
    sqs = client("sqs", endpoint)
    url = sqs.create_queue(QueueName="failures")["QueueUrl"]
    assert url.startswith(endpoint)
    sqs.send_message(QueueUrl=url, MessageBody="lost and found")
    (message,) = sqs.receive_message(QueueUrl=url)["Messages"]
    assert message["Body"] == "lost and found"
    sqs.close()


def test_other_services_answer_in_the_region_they_are_signed_for(endpoint: str) -> None:
    sts, logs = client("sts", endpoint), client("logs", endpoint)
    assert sts.get_caller_identity()["Account"] == "123456789012"
    logs.create_log_group(logGroupName="/aws/lambda/window")
    (group,) = logs.describe_log_groups()["logGroups"]
    assert group["arn"].startswith(f"arn:aws:logs:{REGION}:")
    sts.close()
    logs.close()


def test_an_unknown_service_is_named() -> None:
    scope = "AWS4-HMAC-SHA256 Credential=test/20261120/us-east-1/teleport/aws4_request"
    status, _, body = MotoServices().call("POST", "http://127.0.0.1:4566/", {"Authorization": scope}, b"")
    assert status == 501
    assert b"no teleport" in body


def test_moto_is_imported_on_first_use_and_intercepts_nobody() -> None:
    program = """
import sys
import simulator.cloud.dynamodb_api, simulator.cloud.moto_store
assert "moto" not in sys.modules
from simulator.cloud.moto_store import MotoServices, MotoStore
MotoStore(), MotoServices()
assert "moto" in sys.modules and "flask" not in sys.modules
import boto3, botocore.exceptions
from botocore.config import Config
config = Config(retries={"total_max_attempts": 1}, connect_timeout=1)
kwargs = dict(region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b", config=config)
try:
    boto3.client("sqs", endpoint_url="http://127.0.0.1:9", **kwargs).list_queues()
except botocore.exceptions.EndpointConnectionError:
    print("went to the socket")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "went to the socket\n", done.stderr
