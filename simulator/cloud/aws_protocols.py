"""The three protocols of CloudWatch, driven by botocore's service model.

The model lists Smithy's RPC v2 over CBOR first, JSON 1.0 (which boto3 takes) second, and the query protocol of older
SDKs, with answers in XML, third. All three carry the same members; each request is told by its path and headers, and
answered in kind. SDKs compress PutMetricData from 10 KiB on.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

import cbor2
import orjson

from simulator.cloud.errors import AwsError
from simulator.cloud.request_model import operations, service_model

CBOR_PATH = "/service/GraniteServiceVersion20100801/operation/"
JSON_TARGET = "GraniteServiceVersion20100801"
BODY_MAX_BYTES = 16 * 1024 * 1024
"""Of a compressed body; AWS takes 1 MB of PutMetricData."""
_SERVICE = "cloudwatch"
_NUMBERS = ("integer", "long", "float", "double")


@dataclass(frozen=True, slots=True)
class Call:
    """One request: ``protocol`` is ``cbor``, ``json`` or ``query``; timestamps are seconds since the epoch."""

    protocol: str
    operation: str
    parameters: dict[str, Any]


def protocol_of(path: str, headers: dict[str, str]) -> str:
    """How a request for CloudWatch is written."""
    if path.startswith(CBOR_PATH) or headers.get("smithy-protocol") == "rpc-v2-cbor":
        return "cbor"
    return "json" if "x-amz-target" in headers else "query"


def read(protocol: str, path: str, query: str, headers: dict[str, str], body: bytes) -> Call:
    """The request as the model has it: unknown members dropped, required ones there, types checked.

    :raises AwsError: SerializationException, InvalidAction, MissingParameter or InvalidParameterValue.
    """
    try:
        if headers.get("content-encoding") == "gzip":
            body = _unzipped(body)
        if protocol == "cbor":
            operation, told = path.removeprefix(CBOR_PATH), cbor2.loads(body) if body else {}
        elif protocol == "json":
            operation, told = headers["x-amz-target"].partition(".")[2], orjson.loads(body or b"{}")
        else:
            pairs = dict(parse_qsl(query, keep_blank_values=True) + parse_qsl(body.decode(), keep_blank_values=True))
            operation, told = pairs.get("Action", ""), pairs
    except (ValueError, EOFError, RecursionError, zlib.error, cbor2.CBORDecodeError) as error:
        raise AwsError("SerializationException", f"The {protocol} body cannot be read: {error}") from None
    if operation not in operations(_SERVICE):
        raise AwsError("InvalidAction", f"The action {operation or '(none)'} is not valid for this web service.")
    if not isinstance(told, dict):
        raise AwsError("SerializationException", "The body is not an object")
    shape = service_model(_SERVICE).operation_model(operation).input_shape
    if shape is None:
        return Call(protocol, operation, {})
    if protocol == "query":
        told = _from_query(shape, told, "")
    return Call(protocol, operation, _checked(shape, told if told is not None else {}, ""))


def _unzipped(body: bytes) -> bytes:
    inflated = zlib.decompressobj(wbits=31)
    told = inflated.decompress(body, BODY_MAX_BYTES)
    if not inflated.eof:
        raise ValueError(f"it is cut short, or over {BODY_MAX_BYTES:,} bytes")
    return told


def write(call: Call, answer: dict[str, Any], request_id: str) -> tuple[int, dict[str, str], bytes]:
    """A success. Members with the value None are left out."""
    shape = service_model(_SERVICE).operation_model(call.operation).output_shape
    if call.protocol == "query":
        inner = _to_xml(shape, answer) if shape is not None else ""
        result = f"<{call.operation}Result>{inner}</{call.operation}Result>" if shape is not None else ""
        xml = (
            f'<{call.operation}Response xmlns="http://monitoring.amazonaws.com/doc/2010-08-01/">{result}'
            f"<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{call.operation}Response>"
        )
        return 200, {"content-type": "text/xml"}, xml.encode()
    told = _plain(shape, answer, call.protocol) if shape is not None else {}
    return 200, _content_headers(call.protocol), _dump(call.protocol, told)


def write_error(protocol: str, error: AwsError, request_id: str) -> tuple[int, dict[str, str], bytes]:
    """An error; SDKs of a query-compatible service take its code from ``x-amzn-query-error``."""
    fault = "Sender" if error.status < 500 else "Receiver"
    message = error.message or ""
    if protocol == "query":
        xml = (
            '<ErrorResponse xmlns="http://monitoring.amazonaws.com/doc/2010-08-01/"><Error>'
            f"<Type>{fault}</Type><Code>{escape(error.code)}</Code><Message>{escape(message)}</Message></Error>"
            f"<RequestId>{request_id}</RequestId></ErrorResponse>"
        )
        return error.status, {"content-type": "text/xml"}, xml.encode()
    headers = {**_content_headers(protocol), "x-amzn-query-error": f"{error.code};{fault}"}
    return error.status, headers, _dump(protocol, {"__type": _shape_name(error.code), "message": message})


def _content_headers(protocol: str) -> dict[str, str]:
    if protocol == "cbor":
        return {"content-type": "application/cbor", "smithy-protocol": "rpc-v2-cbor"}
    return {"content-type": "application/x-amz-json-1.0"}


def _dump(protocol: str, told: dict[str, Any]) -> bytes:
    return cbor2.dumps(told, datetime_as_timestamp=True) if protocol == "cbor" else orjson.dumps(told)


def _shape_name(code: str) -> str:
    """The model's name of the error whose code in the query protocol is ``code``."""
    for shape in service_model(_SERVICE).error_shapes:
        if shape.metadata.get("error", {}).get("code") == code:
            return str(shape.name)
    return code


# -- requests ------------------------------------------------------------------------------------------


def _from_query(shape: Any, pairs: dict[str, str], prefix: str) -> Any:
    """``A.member.1.B=x`` as ``{"A": [{"B": "x"}]}``; None for a member that is not there."""
    below = f"{prefix}." if prefix else ""
    if shape.type_name == "structure":
        return {
            name: _from_query(member, pairs, below + name)
            for name, member in shape.members.items()
            if _mentioned(pairs, below + name)
        }
    if shape.type_name == "list":
        items: list[Any] = []
        while _mentioned(pairs, place := f"{below}member.{len(items) + 1}"):
            items.append(_from_query(shape.member, pairs, place))
        return items
    if shape.type_name == "map":
        entries: dict[str, Any] = {}
        while _mentioned(pairs, place := f"{below}entry.{len(entries) + 1}"):
            entries[pairs.get(f"{place}.key", "")] = _from_query(shape.value, pairs, f"{place}.value")
        return entries
    text = pairs.get(prefix)
    if text is None:
        return None
    try:
        if shape.type_name in ("integer", "long"):
            return int(text)
        if shape.type_name in ("float", "double"):
            return float(text)
    except ValueError:
        raise AwsError("InvalidParameterValue", f"The value {text} for parameter {prefix} is not a number.") from None
    return {"true": True, "false": False}.get(text.lower(), text) if shape.type_name == "boolean" else text


def _mentioned(pairs: dict[str, str], prefix: str) -> bool:
    return prefix in pairs or any(name.startswith(prefix + ".") for name in pairs)


def _checked(shape: Any, value: Any, path: str) -> Any:
    where = path or "the request"
    kind = shape.type_name
    if kind == "structure":
        _require(isinstance(value, dict), where, "a structure")
        for name in shape.required_members:
            if value.get(name) is None:
                raise AwsError("MissingParameter", f"The parameter {path + '.' if path else ''}{name} is required.")
        return {
            name: _checked(member, value[name], f"{path}.{name}" if path else name)
            for name, member in shape.members.items()
            if value.get(name) is not None
        }
    if kind == "list":
        _require(isinstance(value, list), where, "a list")
        _measure(shape, len(value), where, "items")
        return [_checked(shape.member, one, f"{path}.member.{index + 1}") for index, one in enumerate(value)]
    if kind == "map":
        _require(isinstance(value, dict), where, "a map")
        return {str(key): _checked(shape.value, one, f"{path}.{key}") for key, one in value.items()}
    if kind == "timestamp":
        return _seconds(value, where)
    if kind in _NUMBERS:
        _require(isinstance(value, int | float) and not isinstance(value, bool), where, "a number")
        _require(math.isfinite(value), where, "a finite number")
        _measure(shape, value, where, "")
        return int(value) if kind in ("integer", "long") else float(value)
    if kind == "boolean":
        _require(isinstance(value, bool), where, "true or false")
        return value
    _require(isinstance(value, str), where, "a string")
    _measure(shape, len(value), where, "characters")
    if shape.enum and value not in shape.enum:
        raise AwsError(
            "InvalidParameterValue", f"The value {value} for parameter {where} is not one of {', '.join(shape.enum)}."
        )
    return value


def _require(holds: bool, where: str, what: str) -> None:
    if not holds:
        raise AwsError("InvalidParameterValue", f"The parameter {where} must be {what}.")


def _measure(shape: Any, amount: float, where: str, unit: str) -> None:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    _require(least is None or amount >= least, where, f"at least {least} {unit}".strip())
    _require(most is None or amount <= most, where, f"at most {most} {unit}".strip())


def _seconds(value: Any, where: str) -> float:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            try:
                value = float(value)
            except ValueError:
                value = None
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    _require(isinstance(value, int | float) and 0 <= value < 253_402_300_800, where, "a timestamp")
    return float(value)


# -- answers -------------------------------------------------------------------------------------------


def _plain(shape: Any, value: Any, protocol: str) -> Any:
    """``value`` with the types of the wire; members that the model does not know would be a mistake of ours."""
    kind = shape.type_name
    if kind == "structure":
        return {name: _plain(shape.members[name], one, protocol) for name, one in value.items() if one is not None}
    if kind == "list":
        return [_plain(shape.member, one, protocol) for one in value]
    if kind == "map":
        return {key: _plain(shape.value, one, protocol) for key, one in value.items()}
    if kind == "timestamp":
        return datetime.fromtimestamp(value, UTC) if protocol == "cbor" else value
    return float(value) if kind in ("float", "double") else value


def _to_xml(shape: Any, value: Any) -> str:
    kind = shape.type_name
    if kind == "structure":
        return "".join(
            f"<{name}>{_to_xml(shape.members[name], one)}</{name}>" for name, one in value.items() if one is not None
        )
    if kind == "list":
        return "".join(f"<member>{_to_xml(shape.member, one)}</member>" for one in value)
    if kind == "map":
        return "".join(
            f"<entry><key>{escape(key)}</key><value>{_to_xml(shape.value, one)}</value></entry>"
            for key, one in value.items()
        )
    if kind == "timestamp":
        return datetime.fromtimestamp(value, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if kind == "boolean":
        return "true" if value else "false"
    return escape(str(float(value)) if kind in ("float", "double") else str(value))
