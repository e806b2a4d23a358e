"""Opaque texts that only this process can have written: base64 of the content and a keyed hash of it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets

_KEY = secrets.token_bytes(32)
_TAG_BYTES = 16


def seal(content: bytes) -> str:
    """The text handed to a client."""
    return base64.b64encode(content + _tag(content)).decode()


def open_(text: str) -> bytes | None:
    """The content of a text that :func:`seal` wrote in this process; None otherwise."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    content, tag = raw[:-_TAG_BYTES], raw[-_TAG_BYTES:]
    return content if secrets.compare_digest(tag, _tag(content)) else None


def _tag(content: bytes) -> bytes:
    return hashlib.blake2b(content, key=_KEY, digest_size=_TAG_BYTES).digest()
