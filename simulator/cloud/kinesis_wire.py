"""How Kinesis's requests and answers look on the wire: JSON 1.1 and CBOR.

The two differ in more than their syntax. In JSON blobs are base64 and timestamps are seconds with a fraction; in
CBOR blobs are bytes and timestamps are whole *milliseconds* under tag 1, against RFC 8949 but as every Java SDK
writes and expects them (aws-sdk-java-v2 #4661). Inside the cloud, requests have bytes and seconds.

CBOR is cbor2's: it is the maintained library, and lets one tag be read in another way.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import cbor2
import msgspec

from simulator.cloud.errors import AwsError

JSON = "application/x-amz-json-1.1"
CBOR = "application/x-amz-cbor-1.1"

_TIMESTAMPS = frozenset({"ApproximateArrivalTimestamp", "StreamCreationTimestamp", "ConsumerCreationTimestamp"})
_EPOCH_TAG = 1


class Wire(NamedTuple):
    """One encoding: ``decode`` raises ValueError for what it cannot read; ``encode`` takes Structs and dicts."""

    content_type: str
    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]

    def error(self, error: AwsError) -> bytes:
        """``{"__type", "message"}``; a message of None is left out."""
        body = {"__type": error.code}
        if error.message is not None:
            # The front end that reads the body spells it otherwise than the services behind it.
            body["Message" if error.code == "SerializationException" else "message"] = error.message
        return self.encode(body)


def _decode_json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(str(error)) from None


def _decode_cbor(body: bytes) -> Any:
    try:
        return cbor2.loads(body, semantic_decoders={_EPOCH_TAG: _epoch})
    except (cbor2.CBORDecodeError, ValueError, RecursionError, EOFError, TypeError) as error:
        raise ValueError(str(error)) from None


def _epoch(milliseconds: Any, immutable: bool) -> float:
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, int | float):
        raise ValueError(f"a timestamp is a number of milliseconds, not {milliseconds!r}")
    return milliseconds / 1000


def _encode_cbor(answer: Any) -> bytes:
    return cbor2.dumps(_tagged(msgspec.to_builtins(answer, builtin_types=(bytes,))))


def _tagged(value: Any) -> Any:
    """``value`` with its timestamps as tagged milliseconds."""
    if isinstance(value, dict):
        return {
            name: cbor2.CBORTag(_EPOCH_TAG, round(member * 1000)) if name in _TIMESTAMPS else _tagged(member)
            for name, member in value.items()
        }
    return [_tagged(item) for item in value] if isinstance(value, list) else value


JSON_WIRE = Wire(JSON, _decode_json, msgspec.json.Encoder().encode)
CBOR_WIRE = Wire(CBOR, _decode_cbor, _encode_cbor)
WIRES = {JSON: JSON_WIRE, CBOR: CBOR_WIRE}
