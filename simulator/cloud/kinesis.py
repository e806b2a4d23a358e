"""The Kinesis streams of one account and region. No I/O, no clock."""

from __future__ import annotations

from simulator.cloud import limits
from simulator.cloud.control_rates import ControlRates
from simulator.cloud.errors import AwsError
from simulator.cloud.limits import LimitSettings
from simulator.cloud.metrics import Metrics
from simulator.cloud.stream import Mode, Stream, not_found, open_count


class Kinesis:
    """Creates, finds and forgets streams."""

    def __init__(self, region: str, account_id: str, settings: LimitSettings, metrics: Metrics) -> None:
        self.region = region
        self.account_id = account_id
        self.settings = settings
        self.metrics = metrics
        self.streams: dict[str, Stream] = {}
        self.rates = ControlRates(account_id, settings)

    def create_stream(
        self,
        name: str,
        shard_count: int | None,
        now: float,
        *,
        mode: Mode = "PROVISIONED",
        max_record_bytes: int = int(limits.RECORD_MAX_BYTES),
    ) -> Stream:
        """``shard_count`` is of provisioned streams; an on-demand one begins with four.

        :raises AwsError: ResourceInUseException, LimitExceededException.
        """
        self.settle(now)
        if name in self.streams:
            raise AwsError("ResourceInUseException", f"Stream {name} under account {self.account_id} already exists.")
        creating = sum(stream.status(now) == "CREATING" for stream in self.streams.values())
        if self.settings.enforced and creating >= limits.STREAMS_CREATING.value:
            raise AwsError(
                "LimitExceededException",
                f"Account {self.account_id} already has {creating} streams in the CREATING state, the most there can "
                "be at a time.",
            )
        if mode == "ON_DEMAND":
            shard_count = int(limits.ON_DEMAND_SHARDS)
            self.require_on_demand()
        assert shard_count is not None
        self.require_shards(shard_count, now)
        arn = f"arn:aws:kinesis:{self.region}:{self.account_id}:stream/{name}"
        stream = Stream(
            name, arn, self.account_id, shard_count, now, self.settings, self.metrics, mode, max_record_bytes
        )
        self.streams[name] = stream
        return stream

    def require_on_demand(self) -> None:
        """:raises AwsError: LimitExceededException when the account has all on-demand streams it may have."""
        count = self.on_demand_count()
        if self.settings.enforced and count >= limits.ON_DEMAND_STREAMS.value:
            raise AwsError(
                "LimitExceededException",
                f"Account {self.account_id} already has {count} on-demand streams in {self.region}, "
                "which is the limit.",
            )

    def on_demand_count(self) -> int:
        return sum(stream.mode == "ON_DEMAND" for stream in self.streams.values())

    def require_shards(self, additional: int, now: float) -> None:
        """:raises AwsError: LimitExceededException when the account may not have so many shards more."""
        in_use = open_count(self.streams.values(), now)
        limit = int(limits.SHARDS_PER_ACCOUNT)
        if in_use + additional > limit:
            raise AwsError(
                "LimitExceededException",
                f"This request would exceed the shard limit for the account {self.account_id} in {self.region}. "
                f"Current shard count for the account: {in_use}. Limit: {limit}. Number of additional shards that "
                f"would have resulted from this request: {additional}. Refer to the AWS Service Limits page "
                "(http://docs.aws.amazon.com/general/latest/gr/aws_service_limits.html) for current limits and how "
                "to request higher limits.",
            )

    def stream(self, name: str) -> Stream:
        """:raises AwsError: ResourceNotFoundException."""
        try:
            return self.streams[name]
        except KeyError:
            raise not_found(name, self.account_id) from None

    def resolve(self, name: str | None, arn: str | None) -> Stream:
        """The stream of that name or ARN; an ARN must be of this region and account.

        :raises AwsError: InvalidArgumentException when neither is given, ResourceNotFoundException.
        """
        if arn is None:
            if name is None:
                raise AwsError("InvalidArgumentException", "Either StreamName or StreamARN must be provided.")
            return self.stream(name)
        stream = self.streams.get(arn.partition("/")[2])
        if stream is None and arn.startswith(f"arn:aws:kinesis:{self.region}:{self.account_id}:stream/"):
            raise not_found(arn.partition("/")[2], self.account_id)
        if stream is None or stream.arn != arn or name not in (None, stream.name):
            raise AwsError("ResourceNotFoundException", f"Stream {arn} under account {self.account_id} not found.")
        return stream

    def delete_stream(self, name: str, now: float) -> None:
        """Begin the deletion; records, consumers and subscriptions go with it."""
        stream = self.stream(name)
        for consumer in stream.consumers.values():
            consumer.end()
        for shard in stream.shards:
            shard.close(now)
        stream.begin("DELETING", self.settings.stream_transition_seconds, lambda _: self.streams.pop(name, None), now)

    def settle(self, now: float) -> None:
        """Apply what has become due to every stream; deletions among it."""
        for stream in list(self.streams.values()):
            stream.settle(now)

    def sweep(self, now: float) -> None:
        """What runs once in a while: deletions, and the memory of what retention has ended."""
        self.settle(now)
        for stream in self.streams.values():
            stream.sweep(now)
