"""How long to wait before trying again, and what an answer means for that.

Full jitter: the wait is uniform between 0 and a ceiling that doubles with each failure. A throttle means that
the shard is full for about a second, so its ceiling starts higher and ends lower than that of a fault, which
says nothing about when the service will be back.
"""

from __future__ import annotations

import enum
import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential back-off with full jitter: after ``n`` failures ``uniform(0, min(cap_s, base_s * 2**(n-1)))``."""

    base_s: float
    cap_s: float

    def ceiling_s(self, failures: int) -> float:
        """The longest wait after that many failures in a row, ``failures >= 1``."""
        if failures < 1:
            raise ValueError(f"a wait follows at least one failure, not {failures}")
        # Beyond 2**60 the cap has long been reached, and floats would overflow at 2**1024.
        return min(self.cap_s, self.base_s * 2.0 ** min(failures - 1, 60))

    def delay_s(self, failures: int, rng: random.Random) -> float:
        """A random wait in seconds, from 0 to :meth:`ceiling_s`."""
        return rng.random() * self.ceiling_s(failures)


THROTTLE = Backoff(base_s=0.1, cap_s=2.0)
FAULT = Backoff(base_s=0.05, cap_s=5.0)


class Meaning(enum.Enum):
    """What an error answer, of a call or of one entry, means for the records in it."""

    THROTTLED = "throttled"
    """Refused for lack of capacity: certainly not stored, later it may."""
    FAILED = "failed"
    """Not stored, through no fault of the request."""
    UNCERTAIN = "uncertain"
    """Failed in a way that leaves open whether anything was stored."""
    INVALID = "invalid"
    """Something in the request is wrong; it may be a single record of it."""
    STREAM_MISSING = "stream missing"
    ACCESS = "access"
    REFUSED = "refused"
    """No later call will fare better."""


_THROTTLES = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "RequestThrottledException",
        "RequestLimitExceeded",
        "TooManyRequestsException",
        "LimitExceededException",
        "KMSThrottlingException",
        "SlowDown",
    }
)
_INVALID = frozenset({"ValidationException", "InvalidArgumentException", "SerializationException"})
_ACCESS = frozenset(
    {
        "UnrecognizedClientException",
        "InvalidClientTokenId",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "IncompleteSignature",
        "IncompleteSignatureException",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "ExpiredToken",
        "ExpiredTokenException",
        "AccessDenied",
        "AccessDeniedException",
        "NotAuthorized",
        "OptInRequired",
    }
)


def meaning_of_entry(code: str) -> Meaning:
    """Of an ``ErrorCode`` in a PutRecords answer: the entry was not stored, and it can be sent again."""
    return Meaning.THROTTLED if code in _THROTTLES else Meaning.FAILED


def meaning_of_call(status: int, code: str) -> Meaning:
    """Of a whole call's HTTP status and error code (short name; empty when the body named none)."""
    if code in _THROTTLES or status == 429:
        return Meaning.THROTTLED
    # 503 is said at the door; any other 5xx may come after something was stored.
    if status == 503:
        return Meaning.FAILED
    if status >= 500 or status == 408:
        return Meaning.UNCERTAIN
    if code in _INVALID or status == 413:
        return Meaning.INVALID
    if code == "ResourceNotFoundException":
        return Meaning.STREAM_MISSING
    if code in _ACCESS or status in (401, 403):
        return Meaning.ACCESS
    return Meaning.REFUSED
