"""What a limit check costs: the same calls with the limits on and off, in one process, turn by turn.

On and off take turns within milliseconds, so what the machine does meanwhile meets both; the figure is the median of
the pairs' ratios. With limits on, rates are set so high that nothing is refused: it is the arithmetic that is
measured, not the refusals.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable

from simulator.cloud.kinesis_api import KinesisApi
from simulator.cloud.limits import LimitSettings
from simulator.cloud.metrics import Metrics

PAIRS = 40
REGION = "us-east-1"
STREAM = "bench"
TABLE = "bench"


def compare(work: Callable[[bool], object], pairs: int = PAIRS) -> float:
    """Time with limits over time without, as the median over ``pairs``; ``work(True)`` is with."""
    ratios = []
    for index in range(pairs):
        taken = {}
        # Who goes first changes, so that neither always finds warm caches.
        for enforced in (True, False) if index % 2 else (False, True):
            began = time.process_time()
            work(enforced)
            taken[enforced] = time.process_time() - began
        ratios.append(taken[True] / taken[False])
    return statistics.median(ratios)


def kinesis_cost(body: bytes, calls: int = 40) -> float:
    """Ratio for PutRecords, from the request's bytes to the answer's."""
    apis = {
        enforced: KinesisApi(
            "123456789012", LimitSettings(enforced=enforced, shard_rate_factor=1e9), Metrics(), time.time
        )
        for enforced in (True, False)
    }
    for api in apis.values():
        api.handle("CreateStream", json.dumps({"StreamName": STREAM, "ShardCount": 2}).encode(), REGION)

    def put(enforced: bool) -> None:
        api = apis[enforced]
        for _ in range(calls):
            status, answer = api.handle("PutRecords", body, REGION)
            assert status == 200
            assert b'"FailedRecordCount":0' in answer

    put(True)
    put(False)
    return compare(put)


def dynamodb_cost(calls: int = 20) -> float:
    """Ratio for PutItem of a kilobyte."""
    from simulator.cloud.dynamodb_api import DynamoDBApi
    from simulator.cloud.moto_store import MotoStore

    table = {
        "KeySchema": [{"AttributeName": "PK", "KeyType": "HASH"}],
        "AttributeDefinitions": [{"AttributeName": "PK", "AttributeType": "S"}],
        "ProvisionedThroughput": {"ReadCapacityUnits": 10_000, "WriteCapacityUnits": 40_000},
    }
    # The two share moto's tables, so each has a name of its own.
    apis = {}
    for enforced in (True, False):
        api = DynamoDBApi(MotoStore(), settings=LimitSettings(enforced=enforced), metrics=Metrics(), clock=time.time)
        name = f"{TABLE}-{enforced}"
        made = api.handle("CreateTable", json.dumps({**table, "TableName": name}).encode(), REGION, {})
        assert made.status == 200, made.body
        item = {"PK": {"S": "race"}, "results": {"S": "x" * 900}}
        apis[enforced] = api, json.dumps({"TableName": name, "Item": item}).encode()

    def put(enforced: bool) -> None:
        api, body = apis[enforced]
        for _ in range(calls):
            assert api.handle("PutItem", body, REGION, {}).status == 200

    put(True)
    put(False)
    return compare(put)
