"""NextToken of the listing operations: opaque, signed, and good for five minutes.

Like shard iterators they carry everything themselves, so nothing is remembered per listing.
"""

from __future__ import annotations

import json
from typing import Any

from simulator.cloud import limits, signed
from simulator.cloud.errors import AwsError


def issue(operation: str, position: dict[str, Any], now: float) -> str:
    """A token that continues ``operation`` at ``position``."""
    return signed.seal(json.dumps([operation, now, position]).encode())


def read(operation: str, token: str, now: float) -> dict[str, Any]:
    """The position of a token of ``operation``.

    :raises AwsError: InvalidArgumentException when it is not one, ExpiredNextTokenException after 300 s.
    """
    content = signed.open_(token)
    issued_for, issued_at, position = json.loads(content) if content is not None else ("", 0.0, {})
    if issued_for != operation:
        raise AwsError("InvalidArgumentException", "NextToken is invalid.")
    lifetime_ms = int(limits.PAGE_TOKEN_LIFETIME)
    if (now - issued_at) * 1000 > lifetime_ms:
        raise AwsError(
            "ExpiredNextTokenException",
            f"The NextToken was issued {now - issued_at:.0f} seconds ago, which is longer than the tolerated "
            f"{lifetime_ms} milliseconds.",
        )
    return dict(position)
