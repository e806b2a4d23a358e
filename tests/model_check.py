"""Answers held against botocore's service models: what AWS's own description says an answer may hold."""

from __future__ import annotations

import base64
import re
from typing import Any

import botocore.session

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "boolean": (bool,),
    "blob": (str,),
    "timestamp": (int, float),
}


def problems(service: str, operation: str, answer: Any) -> list[str]:
    """What is wrong with a decoded JSON answer; empty when the model would have written it."""
    shape = botocore.session.get_session().get_service_model(service).operation_model(operation).output_shape
    if shape is None or not shape.members:
        return [] if answer in (None, {}) else [f"{operation} answers nothing, got {answer!r}"]
    found: list[str] = []
    _walk(shape, answer, operation, found)
    return found


def _walk(shape: Any, value: Any, path: str, found: list[str]) -> None:
    kind = shape.type_name
    if kind == "structure":
        if not isinstance(value, dict):
            found.append(f"{path} is {value!r}, not a structure")
            return
        found += [f"{path}.{name} is missing" for name in shape.required_members if name not in value]
        for name, member in value.items():
            if name in shape.members:
                _walk(shape.members[name], member, f"{path}.{name}", found)
            else:
                found.append(f"{path}.{name} is not in the model")
    elif kind == "list":
        if not isinstance(value, list):
            found.append(f"{path} is {value!r}, not a list")
            return
        for index, item in enumerate(value):
            _walk(shape.member, item, f"{path}[{index}]", found)
    elif kind == "map":
        if not isinstance(value, dict):
            found.append(f"{path} is {value!r}, not a map")
            return
        for name, item in value.items():
            _walk(shape.value, item, f"{path}.{name}", found)
    else:
        _scalar(shape, kind, value, path, found)


def _scalar(shape: Any, kind: str, value: Any, path: str, found: list[str]) -> None:
    if not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"):
        found.append(f"{path} is {value!r}, not a {kind}")
        return
    rules = shape.metadata
    if kind == "blob":
        base64.b64decode(value, validate=True)
        return
    if "enum" in rules and value not in rules["enum"]:
        found.append(f"{path} is {value!r}, not one of {rules['enum']}")
    if "pattern" in rules and not re.fullmatch(rules["pattern"], value):
        found.append(f"{path} is {value!r}, not of {rules['pattern']}")
    if path.endswith(("FailedRecordCount", "NumberOfDecreasesToday")):
        return  # The model says at least 1, AWS answers 0.
    measured = len(value) if kind == "string" else value
    if kind in ("string", "integer", "long") and not rules.get("min", measured) <= measured <= rules.get(
        "max", measured
    ):
        found.append(f"{path} is {value!r}, out of bounds")
