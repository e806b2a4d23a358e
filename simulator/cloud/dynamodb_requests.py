"""Requests to DynamoDB under way, and what they must look like before the store sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from simulator.cloud import request_model
from simulator.cloud.errors import AwsError
from simulator.cloud.store import Target


@dataclass(frozen=True, slots=True)
class Call:
    """One request under way."""

    operation: str
    params: dict[str, Any]
    body: bytes
    region: str
    now: float

    @property
    def detail(self) -> str:
        return str(self.params.get("ReturnConsumedCapacity") or "NONE")


@dataclass(frozen=True, slots=True)
class Part:
    """One write or read of a batch or transaction: the request's own words, and the item it names."""

    table: str
    kind: str
    request: dict[str, Any]
    target: Target


def check_request(operation: str, params: Mapping[str, Any]) -> None:
    """Check a request against AWS's service model: required members, lengths, enums, patterns.

    :raises AwsError: ValidationException. Wrong JSON types are left to who reads them.
    """
    if operation not in request_model.operations("dynamodb"):
        return
    try:
        request_model.check("dynamodb", operation, dict(params))
    except AwsError as error:
        if error.code == "ValidationException":
            raise


def as_object(value: Any) -> dict[str, Any]:
    """The JSON object that ``value`` must be; a SerializationException otherwise."""
    if not isinstance(value, dict):
        raise AwsError("SerializationException", f"Expected an object, got {_shown(value)}")
    return value


def as_item(value: Any) -> dict[str, dict[str, Any]]:
    """The item or key in DynamoDB JSON that ``value`` must be; looks at the outermost types only."""
    item = as_object(value)
    for name, typed in item.items():
        if not isinstance(typed, dict):
            raise AwsError("SerializationException", f"Attribute {name}: expected a typed value, got {_shown(typed)}")
        if len(typed) != 1:
            told = "is empty" if not typed else "has more than one datatypes set"
            raise AwsError(
                "ValidationException",
                f"Supplied AttributeValue {told}, must contain exactly one of the supported datatypes",
            )
    return item


def as_list(value: Any) -> list[Any]:
    """The JSON array that ``value`` must be; a SerializationException otherwise."""
    if not isinstance(value, list):
        raise AwsError("SerializationException", f"Expected a list, got {_shown(value)}")
    return value


def as_text(value: Any) -> str:
    """The string that ``value`` must be; a SerializationException otherwise."""
    if not isinstance(value, str):
        raise AwsError("SerializationException", f"Expected a string, got {_shown(value)}")
    return value


def as_single(value: Any) -> tuple[str, Any]:
    """Name and content of the one member that ``value`` must have, as entries of batches and transactions do."""
    members = as_object(value)
    if len(members) != 1:
        raise AwsError("ValidationException", f"Expected exactly one request, got {_shown(value)}")
    return next(iter(members.items()))


def _shown(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= 60 else f"{text[:57]}..."
