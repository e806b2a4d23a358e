"""Handlers for streams. They append what they saw to the file ``OUT``, one JSON document a line."""

from __future__ import annotations

import base64
import json
import os
import time
from pathlib import Path
from typing import Any


def _write(document: object) -> None:
    with Path(os.environ["OUT"]).open("a") as out:
        out.write(json.dumps(document) + "\n")


def _data(event: dict[str, Any]) -> list[str]:
    return [base64.b64decode(record["kinesis"]["data"]).decode() for record in event["Records"]]


def batch(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Write the batch's data."""
    _write({"shard": event["Records"][0]["eventID"].split(":")[0], "data": _data(event)})
    return {"batchItemFailures": []}


def one_by_one(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Handle two records, then report the third."""
    _write({"data": _data(event)[:2]})
    rest = event["Records"][2:3]
    return {"batchItemFailures": [{"itemIdentifier": record["kinesis"]["sequenceNumber"]} for record in rest]}


def window(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Collect data in the state, write it at the window's end."""
    seen = event["state"].get("seen", []) + _data(event)
    if event["isFinalInvokeForWindow"]:
        _write({"shard": event["shardId"], "window": event["window"], "seen": seen})
        return {}
    return {"state": {"seen": seen}}


def poison(event: dict[str, Any], context: object) -> None:
    """Fail for a batch that holds ``bad``."""
    data = _data(event)
    if "bad" in data:
        raise ValueError("a bad record")
    _write({"data": data})


def slow(event: dict[str, Any], context: object) -> None:
    """Take ``SLOW_S``."""
    _write({"began": _data(event)})
    time.sleep(float(os.environ["SLOW_S"]))
    _write({"data": _data(event)})


def events(event: dict[str, Any], context: object) -> None:
    """Write the whole event."""
    _write(event)


def report_first(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Report the first record, every time."""
    return {"batchItemFailures": [{"itemIdentifier": event["Records"][0]["kinesis"]["sequenceNumber"]}]}


def table_window(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Collect the keys of items in the state, write them at the window's end."""
    seen = event["state"].get("seen", []) + [record["dynamodb"]["Keys"]["id"]["S"] for record in event["Records"]]
    if event["isFinalInvokeForWindow"]:
        _write({"window": event["window"], "seen": seen, "arn": event["eventSourceARN"]})
        return {}
    return {"state": {"seen": seen}}
