"""Requests checked against AWS's own service model, in AWS's words.

botocore ships each service's model: members, types, required members, lengths, patterns, enums. Checking a
request against it gives the two errors that AWS's front end gives before an operation runs: SerializationException
for a wrong JSON type, ValidationException for a broken constraint. Texts as kinesalite's author recorded them
from AWS: ``Value '…' at 'streamName' failed to satisfy constraint: Member must …``, ten at most, joined by ``; ``.
"""

from __future__ import annotations

import base64
import binascii
import functools
import re
from typing import Any

import botocore.session

from simulator.cloud.errors import AwsError

_MAX_ERRORS = 10
_NUMBERS = {"integer": "Integer", "long": "Long", "float": "Float", "double": "Double"}
_TEXTS = {"string": "String", "blob": "Blob"}


@functools.cache
def service_model(service: str) -> Any:
    """botocore's ServiceModel of ``service``; loading one takes a few milliseconds, once."""
    return botocore.session.get_session().get_service_model(service)


@functools.cache
def operations(service: str) -> frozenset[str]:
    """Every operation that AWS's model names."""
    return frozenset(service_model(service).operation_names)


def check(service: str, operation: str, data: Any) -> dict[str, Any]:
    """A decoded request as the model sees it: unknown members dropped, blobs decoded, constraints checked.

    ``data`` is None when nothing could be decoded. Blobs may be base64 text or bytes.

    :raises AwsError: SerializationException or ValidationException.
    """
    if not isinstance(data, dict):
        raise AwsError("SerializationException", None)
    shape = service_model(service).operation_model(operation).input_shape
    if shape is None:
        return {}
    checked = _convert(shape, data)
    errors: list[str] = []
    _check(shape, checked, "", errors)
    if errors:
        plural = "s" if len(errors) > 1 else ""
        raise AwsError("ValidationException", f"{len(errors)} validation error{plural} detected: {'; '.join(errors)}")
    return checked  # type: ignore[no-any-return]


def _convert(shape: Any, value: Any) -> Any:
    """``value`` with the types of ``shape``; :raises AwsError: SerializationException."""
    kind = shape.type_name
    if kind == "structure":
        if not isinstance(value, dict):
            raise AwsError("SerializationException", _misplaced(value, "Expected null"))
        return {
            name: _convert(member, value[name]) for name, member in shape.members.items() if value.get(name) is not None
        }
    if kind == "list":
        if not isinstance(value, list):
            raise AwsError("SerializationException", _misplaced(value, "Expected list or null"))
        return [_convert(shape.member, item) for item in value]
    if kind == "map":
        if not isinstance(value, dict):
            raise AwsError("SerializationException", _misplaced(value, "Expected map or null"))
        return {key: _convert(shape.value, item) for key, item in value.items()}
    return _convert_scalar(shape, kind, value)


def _misplaced(value: Any, otherwise: str) -> str:
    if isinstance(value, list):
        return "Start of list found where not expected"
    if isinstance(value, dict):
        return "Start of structure or map found where not expected."
    return otherwise


def _convert_scalar(shape: Any, kind: str, value: Any) -> Any:
    if isinstance(value, list | dict):
        raise AwsError("SerializationException", _misplaced(value, ""))
    wanted = "Boolean" if kind == "boolean" else _NUMBERS.get(kind) or _TEXTS.get(kind)
    if kind == "timestamp":
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise AwsError("SerializationException", f"{_java(value)} can not be converted to milliseconds since epoch")
        return float(value)
    if wanted == "Boolean":
        if not isinstance(value, bool):
            shown = f"'{value.upper()}'" if isinstance(value, str) else _java(value)
            raise AwsError("SerializationException", f"{shown} can not be converted to an Boolean")
        return value
    if wanted in _NUMBERS.values():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise AwsError("SerializationException", f"{_java(value)} can not be converted to an {wanted}")
        return value if wanted in ("Double", "Float") else int(value // 1)
    if wanted == "Blob" and isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        article = "a" if wanted == "Blob" else "an"
        raise AwsError("SerializationException", f"{_java(value)} can not be converted to {article} {wanted}")
    return _decode_blob(value) if wanted == "Blob" else value


def _java(value: Any) -> str:
    if isinstance(value, bool):
        return "class java.lang.Boolean"
    if isinstance(value, str):
        return "class java.lang.String"
    return "class com.amazon.coral.value.json.numbers.TruncatingBigNumber"


def _decode_blob(text: str) -> bytes:
    prefix = f"'{text[:200]}' can not be converted to a Blob: "
    if len(text) % 4:
        raise AwsError(
            "SerializationException",
            f"{prefix}Base64 encoded length is expected a multiple of 4 bytes but found: {len(text)}",
        )
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        bad = re.search(r"[^a-zA-Z0-9+/=]|=[^=]", text)
        what = (
            f"Invalid Base64 character: '{bad.group()[0]}'"
            if bad
            else "Invalid last non-pad Base64 character dectected"
        )
        raise AwsError("SerializationException", prefix + what) from None
    if base64.b64encode(data).decode() != text:
        raise AwsError("SerializationException", f"{prefix}Invalid last non-pad Base64 character dectected")
    return data


def _check(shape: Any, value: Any, path: str, errors: list[str]) -> None:
    """Append a text for every constraint of ``shape`` that ``value`` breaks."""
    if len(errors) >= _MAX_ERRORS:
        return
    kind = shape.type_name
    if kind == "structure":
        for name in shape.required_members:
            if name not in value:
                _fail(None, _join(path, name), "Member must not be null", errors)
        for name, member in shape.members.items():
            if name in value:
                _check(member, value[name], _join(path, name), errors)
        return
    _check_constraints(shape, kind, value, path, errors)
    if kind == "list" and shape.member.type_name == "string" and "enum" not in shape.member.metadata:
        _check_texts(value, shape.member, value, "Member must satisfy constraint", path, errors)
    elif kind == "list":
        for index, item in enumerate(value, 1):
            _check(shape.member, item, f"{path}.{index}.member", errors)
    elif kind == "map":
        _check_texts(value, shape.key, list(value), "Map keys must satisfy constraint", path, errors)
        _check_texts(value, shape.value, list(value.values()), "Map value must satisfy constraint", path, errors)
        if shape.value.type_name in ("structure", "list", "map"):
            for key, item in value.items():
                _check(shape.value, item, f"{path}.{key}.member", errors)


def _check_texts(value: Any, shape: Any, texts: list[Any], what: str, path: str, errors: list[str]) -> None:
    """Texts or lists inside a list or map: AWS names the whole of it, once, with both bounds of the length."""
    if shape.type_name not in ("string", "list"):
        return
    least, most = shape.metadata.get("min", 0), shape.metadata.get("max")
    if most is not None and not all(least <= len(text) <= most for text in texts):
        bounds = (
            f"[Member must have length less than or equal to {most}, "
            f"Member must have length greater than or equal to {least}]"
        )
        _fail(value, path, f"{what}: {bounds}", errors)


def _check_constraints(shape: Any, kind: str, value: Any, path: str, errors: list[str]) -> None:
    rules = shape.metadata
    if "enum" in rules and value not in rules["enum"]:
        _fail(value, path, f"Member must satisfy enum value set: [{', '.join(rules['enum'])}]", errors)
        return
    if "pattern" in rules and not re.fullmatch(rules["pattern"], value):
        # AWS shows the pattern without the anchors that some of botocore's have.
        shown = re.sub(r"^\^\((.*)\)\$$", r"\1", rules["pattern"])
        _fail(value, path, f"Member must satisfy regular expression pattern: {shown}", errors)
    if kind in _NUMBERS:
        measured, noun = value, "value"
    elif kind in ("string", "blob", "list", "map"):
        measured, noun = len(value), "length"
    else:
        return
    if "min" in rules and measured < rules["min"]:
        _fail(value, path, f"Member must have {noun} greater than or equal to {rules['min']}", errors)
    if "max" in rules and measured > rules["max"]:
        _fail(value, path, f"Member must have {noun} less than or equal to {rules['max']}", errors)


def _join(path: str, name: str) -> str:
    name = name[0].lower() + name[1:]
    return f"{path}.{name}" if path else name


def _fail(value: Any, path: str, constraint: str, errors: list[str]) -> None:
    if len(errors) < _MAX_ERRORS:
        errors.append(f"Value {_show(value)} at '{path}' failed to satisfy constraint: {constraint}")


def _show(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bytes):
        return f"'java.nio.HeapByteBuffer[pos=0 lim={len(value)} cap={len(value)}]'"
    if isinstance(value, list):
        # AWS prints all members; of a list that is absurdly long this prints the first thousand.
        shown = ", ".join(str(_member(item)) for item in value[:1000])
        return f"'[{shown}{', …' if len(value) > 1000 else ''}]'"
    if isinstance(value, dict):
        # AWS prints its own classes' texts for what is not a text itself.
        shown = ", ".join(f"{key}={item if isinstance(item, str) else '…'}" for key, item in value.items())
        return f"'{{{shown}}}'"
    return f"'{value}'"


def _member(item: Any) -> Any:
    return "com.amazonaws.kinesis.v20131202.PutRecordsRequestEntry@c965e310" if isinstance(item, dict) else item
