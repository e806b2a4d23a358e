"""What a function and its event source mapping are told: Lambda's own settings, checked.

Ranges and defaults are Lambda's (``CreateFunction``, ``CreateEventSourceMapping``). Where AWS does not publish
a number, it is a field of :class:`RuntimeSettings` and its docstring says what was chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from consumers.runtime.errors import ConfigurationError
from consumers.runtime.filtering import Pattern

StartingPosition = Literal["TRIM_HORIZON", "LATEST", "AT_TIMESTAMP"]
SourceKind = Literal["Kinesis", "DynamoDB"]

FILTERS_MAX = 10
"""Filters of a mapping: 5, and 10 by a raised quota (CAH invocation-eventfiltering)."""
FILTER_PATTERN_MAX_CHARACTERS = 4096
DESTINATION_SERVICES = ("sqs", "sns", "s3")

WINDOW_CLOSE_MAX_S = 120.0
"""Lambda waits "up to 2 minutes" without new records before it assumes that a window is over."""


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise ConfigurationError(what)


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionConfig:
    """One Lambda function.

    ``handler`` is ``package.module.attribute`` under ``code_path``. ``environment`` is laid over the environment
    of this process, so credentials and ``AWS_ENDPOINT_URL`` reach the function. A function that uses more than
    ``memory_mb`` is killed (on Linux). ``reserved_concurrency=None`` is unlimited, 0 refuses every invocation.
    ``init_timeout_s`` bounds a cold start and is not part of ``timeout_s`` (Lambda: 10 s).
    """

    name: str
    handler: str
    code_path: Path
    timeout_s: float = 3.0
    memory_mb: int = 128
    environment: Mapping[str, str] = field(default_factory=dict)
    reserved_concurrency: int | None = None
    init_timeout_s: float = 10.0
    region: str = "us-east-1"
    account_id: str = "000000000000"

    def __post_init__(self) -> None:
        who = f"function {self.name!r}"
        _require(bool(self.name), "a function needs a name")
        module, _, attribute = self.handler.rpartition(".")
        _require(bool(module and attribute), f"{who}: handler {self.handler!r} must be 'module.attribute'")
        _require(0 < self.timeout_s <= 900, f"{who}: timeout_s must be in 0..900, got {self.timeout_s}")
        _require(128 <= self.memory_mb <= 10_240, f"{who}: memory_mb must be in 128..10240, got {self.memory_mb}")
        _require(self.code_path.is_dir(), f"{who}: code_path {self.code_path} is not a directory")
        reserved = self.reserved_concurrency
        _require(reserved is None or reserved >= 0, f"{who}: reserved_concurrency must be >= 0, got {reserved}")

    @property
    def arn(self) -> str:
        return f"arn:aws:lambda:{self.region}:{self.account_id}:function:{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingConfig:
    """One event source mapping: a stream and the function that its batches go to.

    ``name`` names the checkpoint file, so it must stay the same for a restart to resume. ``stream_arn`` is the ARN
    of a Kinesis stream, of one of its registered consumers (enhanced fan-out), or of a table's stream; in the last
    case ``source_kind`` is DynamoDB. ``starting_timestamp`` is in seconds since the epoch and goes with AT_TIMESTAMP.
    ``maximum_retry_attempts=-1`` is for ever, and ``maximum_record_age_s=-1`` (MaximumRecordAgeInSeconds) is until the
    stream's retention ends.

    ``filter_patterns`` are the Pattern texts of FilterCriteria; a record that matches none is not sent.
    ``on_failure_destination`` is the ARN of an SQS queue, an SNS topic or an S3 bucket, which gets a document about
    each batch that is given up.
    """

    name: str
    function_name: str
    stream_name: str
    stream_arn: str
    batch_size: int = 100
    batching_window_s: float = 0.0
    tumbling_window_s: int = 0
    starting_position: StartingPosition = "TRIM_HORIZON"
    starting_timestamp: float | None = None
    maximum_retry_attempts: int = -1
    report_batch_item_failures: bool = False
    parallelization_factor: int = 1
    maximum_record_age_s: int = -1
    bisect_batch_on_function_error: bool = False
    filter_patterns: tuple[str, ...] = ()
    on_failure_destination: str | None = None
    source_kind: SourceKind = "Kinesis"

    def __post_init__(self) -> None:
        who = f"mapping {self.name!r}"
        _require(bool(self.name), "a mapping needs a name")
        _require(self.stream_arn.count(":") >= 5, f"{who}: stream_arn {self.stream_arn!r} is not an ARN")
        ranges: tuple[tuple[str, float, float], ...] = (
            ("batch_size", 1, 10_000),
            ("batching_window_s", 0, 300),
            ("tumbling_window_s", 0, 900),
            ("maximum_retry_attempts", -1, 10_000),
            ("parallelization_factor", 1, 10),
            ("maximum_record_age_s", -1, 604_800),
        )
        for name, low, high in ranges:
            value = getattr(self, name)
            _require(low <= value <= high, f"{who}: {name} must be in {low}..{high}, got {value}")
        _require(
            self.starting_position in ("TRIM_HORIZON", "LATEST", "AT_TIMESTAMP"),
            f"{who}: starting_position must be TRIM_HORIZON, LATEST or AT_TIMESTAMP, got {self.starting_position!r}",
        )
        _require(
            (self.starting_position == "AT_TIMESTAMP") == (self.starting_timestamp is not None),
            f"{who}: starting_timestamp goes with starting_position AT_TIMESTAMP, and only with it",
        )
        _require(
            self.parallelization_factor == 1 or not self.tumbling_window_s,
            f"{who}: parallelization_factor must be 1 with tumbling windows, got {self.parallelization_factor}",
        )
        age_s = self.maximum_record_age_s
        _require(age_s == -1 or age_s >= 60, f"{who}: maximum_record_age_s must be -1 or in 60..604800, got {age_s}")
        kind = self.source_kind
        _require(kind in ("Kinesis", "DynamoDB"), f"{who}: source_kind must be Kinesis or DynamoDB, got {kind!r}")
        _require(
            kind == "Kinesis" or self.starting_position != "AT_TIMESTAMP",
            f"{who}: a DynamoDB stream cannot be read from AT_TIMESTAMP",
        )
        _require(
            (kind == "DynamoDB") == (self.stream_arn.split(":")[2] == "dynamodb"),
            f"{who}: stream_arn {self.stream_arn!r} does not go with source_kind {kind}",
        )
        self._check_filters(who)
        if self.on_failure_destination is not None:
            parts = self.on_failure_destination.split(":", 5)
            _require(
                len(parts) == 6 and parts[0] == "arn" and parts[2] in DESTINATION_SERVICES and bool(parts[5]),
                f"{who}: on_failure_destination must be the ARN of an SQS queue, an SNS topic or an S3 bucket, "
                f"got {self.on_failure_destination!r}",
            )
            _require(
                not self.on_failure_destination.endswith(".fifo"),
                f"{who}: on_failure_destination must be a standard queue or topic, got {self.on_failure_destination!r}",
            )

    def _check_filters(self, who: str) -> None:
        count = len(self.filter_patterns)
        _require(count <= FILTERS_MAX, f"{who}: at most {FILTERS_MAX} filters are allowed, got {count}")
        for pattern in self.filter_patterns:
            _require(
                len(pattern) <= FILTER_PATTERN_MAX_CHARACTERS,
                f"{who}: a filter pattern has at most {FILTER_PATTERN_MAX_CHARACTERS} characters, got {len(pattern)}",
            )
            try:
                Pattern(pattern, self.source_kind)
            except ConfigurationError as error:
                raise ConfigurationError(f"{who}: {error}") from error

    @property
    def region(self) -> str:
        return self.stream_arn.split(":")[3]

    @property
    def account_id(self) -> str:
        return self.stream_arn.split(":")[4]


@dataclass(frozen=True, slots=True)
class Backoff:
    """``first_s`` before the first retry (may be 0), then ``base_s`` doubling up to ``cap_s``."""

    first_s: float
    base_s: float
    cap_s: float

    def delay_s(self, attempt: int) -> float:
        """The pause before retry ``attempt`` (1, 2, ...)."""
        if attempt <= 1:
            return self.first_s
        return float(min(self.cap_s, self.base_s * 2 ** min(attempt - 2, 30)))


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeSettings:
    """What Lambda does not let its users set, and mostly does not publish.

    ``poll_interval_s``: Lambda's base rate, once a second a shard (published). ``catch_up_interval_s``: between
    polls while there is more to read; a shard answers 5 calls/s, so faster would only be refused.
    ``dynamodb_poll_interval_s``: four times a second a shard of a table's stream (published).
    ``window_close_grace_s``: a window whose records have stopped is closed by the first empty poll at the tip that
    began this long after the window's end; it covers the propagation delay of a put (AWS: 70 to 200 ms on average)
    and some clock skew. Lambda takes up to 120 s, which is the upper bound here. ``retry``: a failed batch is
    retried at once, then after 0.1 s doubling up to 5 s. ``throttled``: an invocation or a read that was refused.
    ``unreachable``: the stream does not answer, or is not there. ``destination_attempts``: an on-failure
    destination that refuses is tried so often, with ``unreachable``'s pauses, before its records are dropped and
    counted. ``read_ahead_max_records``: with a ParallelizationFactor above 1, a shard is not read further while so
    many records wait in its lanes, most of them behind one that is blocked.
    """

    poll_interval_s: float = 1.0
    catch_up_interval_s: float = 0.2
    dynamodb_poll_interval_s: float = 0.25
    get_records_limit: int = 10_000
    list_shards_interval_s: float = 10.0
    window_close_grace_s: float = 0.5
    retry: Backoff = Backoff(0.0, 0.1, 5.0)
    throttled: Backoff = Backoff(0.2, 0.4, 5.0)
    unreachable: Backoff = Backoff(0.2, 0.5, 10.0)
    destination_attempts: int = 5
    read_ahead_max_records: int = 20_000

    def __post_init__(self) -> None:
        grace = self.window_close_grace_s
        _require(
            0 <= grace <= WINDOW_CLOSE_MAX_S,
            f"window_close_grace_s must be in 0..{WINDOW_CLOSE_MAX_S}, got {grace}",
        )
        _require(self.poll_interval_s > 0, f"poll_interval_s must be > 0, got {self.poll_interval_s}")
        _require(self.dynamodb_poll_interval_s > 0, "dynamodb_poll_interval_s must be > 0")
        _require(self.catch_up_interval_s > 0, f"catch_up_interval_s must be > 0, got {self.catch_up_interval_s}")
        _require(self.destination_attempts >= 1, f"destination_attempts must be >= 1, got {self.destination_attempts}")
        ahead = self.read_ahead_max_records
        _require(ahead >= 1, f"read_ahead_max_records must be >= 1, got {ahead}")
        limit = self.get_records_limit
        _require(1 <= limit <= 10_000, f"get_records_limit must be in 1..10000, got {limit}")
