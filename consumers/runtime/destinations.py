"""Delivers what is given up to a mapping's on-failure destination: an SQS queue, an SNS topic or an S3 bucket."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from threading import Lock
from typing import Any

import boto3
from botocore.config import Config

from consumers.runtime.actions import Discard
from consumers.runtime.config import MappingConfig
from consumers.runtime.failure_record import failure_record, object_key

ClientFactory = Callable[[str], Any]
"""Makes a boto3 client of the service it is given: ``sqs``, ``sns`` or ``s3``."""


def service_client(service: str, **arguments: Any) -> Any:
    """A client of the default boto3 session that fails fast; the runtime tries again by itself."""
    config = Config(connect_timeout=5, read_timeout=15, retries={"mode": "standard", "total_max_attempts": 2})
    return boto3.Session().client(service, config=config, **arguments)


class Destination:
    """The on-failure destination of one mapping. Thread-safe; its client is made when it is first needed."""

    def __init__(self, mapping: MappingConfig, function_arn: str, client_factory: ClientFactory) -> None:
        assert mapping.on_failure_destination is not None
        self.arn = mapping.on_failure_destination
        self._mapping = mapping
        self._function_arn = function_arn
        self._client_factory = client_factory
        self._lock = Lock()
        self._client: Any = None
        self._queue_url: str | None = None
        _, _, self._service, _, self._account_id, self._name = self.arn.split(":", 5)

    def deliver(self, discard: Discard, shard_id: str, now: float) -> None:
        """Send the document about ``discard``.

        :raises botocore.exceptions.ClientError: the destination refused it, or is not there.
        :raises botocore.exceptions.BotoCoreError: it could not be reached, or no client could be made.
        """
        client = self._connected()
        is_s3 = self._service == "s3"
        body = failure_record(discard, self._mapping, shard_id, self._function_arn, now, with_payload=is_s3)
        match self._service:
            case "sqs":
                if self._queue_url is None:
                    answer = client.get_queue_url(QueueName=self._name, QueueOwnerAWSAccountId=self._account_id)
                    self._queue_url = answer["QueueUrl"]
                client.send_message(QueueUrl=self._queue_url, MessageBody=body.decode())
            case "sns":
                client.publish(TopicArn=self.arn, Message=body.decode())
            case _:
                key = object_key(self._mapping, shard_id, now, str(uuid.uuid4()))
                client.put_object(Bucket=self._name, Key=key, Body=body, ContentType="application/json")

    def close(self) -> None:
        with self._lock:
            if self._client is not None:
                self._client.close()

    def _connected(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = self._client_factory(self._service)
            return self._client
