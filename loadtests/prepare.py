"""What must be there before a scenario starts: the resources themselves, and something to read."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.exceptions import BotoCoreError

from loadtests.payloads import Messages
from loadtests.resources import Resources
from loadtests.scenarios import Scenario
from loadtests.settings import LoadSettings
from loadtests.table_items import TableItems
from simulator.cloud.limits import BATCH_WRITE_ITEMS, SHARD_WRITE_BYTES
from simulator.deployment import Deployment, load_deployment
from simulator.target import Target, TargetError, aws_target, provision, reaching

FILL_BYTES = 1_500_000
"""What a shard is filled with, so that pages of 700 KB can be read from it."""
FILL_RECORD_BYTES = 10_000


def create(target: Target, parameters: dict[str, str]) -> Deployment:
    """Create the template's stream and table where they are missing; for emulators, not for an account.

    :raises TargetError: when that fails for another reason than that they are there.
    """
    deployment = load_deployment(None, "default", parameters)
    only = _only_stream_and_table(deployment)
    # One by one: where the stream is already there the table may still be missing.
    for one in (replace(only, tables=()), replace(only, streams=())):
        try:
            provision(target, one)
        except TargetError as error:
            if "ResourceInUseException" not in str(error):
                raise
    return deployment


def _only_stream_and_table(deployment: Deployment) -> Deployment:
    return replace(
        deployment,
        consumers=(),
        buckets=(),
        queues=(),
        topics=(),
        topic_rules=(),
        scalable_targets=(),
        scaling_policies=(),
    )


def environment_target(endpoint_url: str | None) -> Target:
    """What AWS's own variables name, as Locust's users will see it."""
    found = aws_target()
    return replace(found, endpoint_url=endpoint_url) if endpoint_url else found


def endpoint_of(service: str, region: str) -> str:
    """Where boto3 would send this service's requests. :raises TargetError: when that is no address."""
    try:
        url: str = boto3.session.Session(region_name=region).client(service).meta.endpoint_url
    except (BotoCoreError, ValueError) as error:
        raise TargetError(f"cannot use {service}: {error} (AWS_ENDPOINT_URL, AWS_REGION?)") from None
    return url


def kind_of(endpoint: str) -> str:
    """``aws`` for an address of Amazon's, ``emulator`` for any other."""
    host = urlsplit(endpoint).hostname or ""
    return "aws" if host.endswith((".amazonaws.com", ".amazonaws.com.cn")) else "emulator"


def seed(target: Target, scenario: Scenario, settings: LoadSettings, resources: Resources) -> None:
    """Give readers something to read. :raises TargetError:"""
    operations = {one.operation for one in scenario.traffic}
    if "Query" in operations and resources.table is not None:
        _seed_table(target, TableItems(resources.table, settings.item_racers, settings.seed, 0))
    if scenario.extra.get("fill"):
        _fill_stream(target, settings, resources)


def _seed_table(target: Target, items: TableItems) -> None:
    dynamodb = target.client("dynamodb", retries={"mode": "standard", "total_max_attempts": 10})
    pending: list[Any] = items.seeds()
    give_up = time.monotonic() + 300
    while pending:
        with reaching(target, f"writing items to the table {items.table.name} for readers"):
            told = dynamodb.batch_write_item(RequestItems={items.table.name: pending[: int(BATCH_WRITE_ITEMS)]})
        left = told["UnprocessedItems"].get(items.table.name, [])
        pending = [*left, *pending[int(BATCH_WRITE_ITEMS) :]]
        if left:
            time.sleep(0.5)
        if time.monotonic() > give_up:
            raise TargetError(
                f"the table {items.table.name} took no more items within 5 min; it may have too few WCU to be filled"
            )


def _fill_stream(target: Target, settings: LoadSettings, resources: Resources) -> None:
    kinesis = target.client("kinesis")
    messages = Messages(
        start_ms=int(time.time() * 1000), racers=settings.racers, seed=settings.seed, record_bytes=FILL_RECORD_BYTES
    )
    for shard in resources.shards:
        left = FILL_BYTES
        while left > 0:
            entries: Sequence[Any] = [
                {"Data": one.data, "PartitionKey": one.partition_key, "ExplicitHashKey": shard.hash_key}
                for one in messages.take(20)
            ]
            with reaching(target, f"filling the stream {resources.stream} for readers"):
                told = kinesis.put_records(StreamName=resources.stream, Records=entries)
            stored = sum(
                len(one["Data"]) for one, end in zip(entries, told["Records"], strict=True) if "ErrorCode" not in end
            )
            left -= stored
            # Half of the shard's rate: filling is not the test.
            time.sleep(stored / (SHARD_WRITE_BYTES.value / 2) + (0.5 if told["FailedRecordCount"] else 0))
