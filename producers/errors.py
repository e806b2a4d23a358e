"""What a producer raises.

::

    ProducerError
    ├── ConfigurationError    a setting is out of its range, or no region or credentials were found; nothing was sent
    ├── EndpointUnreachable   nobody answered at the start; carries ``endpoint_url`` and ``problem``
    ├── RequestRefused        the service refuses every call; carries ``code``, ``message``, ``status``
    │   ├── StreamNotFound    also ``stream`` and ``region``
    │   └── AccessRefused     the credentials are unknown, expired or not allowed to write
    └── ProducerClosed        a record was put after the producer was closed

Throttles, faults and connections that die after the start are not exceptions: they are retried until each
record's deadline and told by ``statistics()``.
"""

from __future__ import annotations


class ProducerError(Exception):
    """Anything this package raises."""


class ConfigurationError(ProducerError):
    """A setting is out of its range or missing."""


class EndpointUnreachable(ProducerError):  # noqa: N818 - reads as what happened
    """The endpoint did not answer when the producer started."""

    def __init__(self, endpoint_url: str, problem: str) -> None:
        super().__init__(
            f"cannot reach Kinesis at {endpoint_url}: {problem}; is it running, "
            "and is AWS_ENDPOINT_URL (or endpoint_url) right?"
        )
        self.endpoint_url = endpoint_url
        self.problem = problem


class RequestRefused(ProducerError):  # noqa: N818
    """The service answered that no call of this kind will succeed. ``status`` is the HTTP status."""

    def __init__(self, code: str, message: str, status: int, advice: str = "") -> None:
        super().__init__(f"Kinesis refuses to take records: {code}: {message.rstrip('.')}{advice and '; ' + advice}")
        self.code = code
        self.message = message
        self.status = status


class StreamNotFound(RequestRefused):
    """The stream does not exist, or was deleted under the producer."""

    def __init__(self, code: str, message: str, status: int, stream: str, region: str) -> None:
        super().__init__(code, message, status, f"create the stream {stream!r} in {region}, or name another")
        self.stream = stream
        self.region = region


class AccessRefused(RequestRefused):
    """The credentials are unknown, expired or lack ``kinesis:PutRecords``."""

    def __init__(self, code: str, message: str, status: int) -> None:
        super().__init__(code, message, status, "check AWS_PROFILE or AWS_ACCESS_KEY_ID and what they may do")


class ProducerClosed(ProducerError):  # noqa: N818
    """The producer takes no more records."""
