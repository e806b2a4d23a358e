"""The control plane's own rates: how often an account, or a stream, may be asked.

AWS refuses the excess with LimitExceededException, which SDKs retry with a back-off; GetShardIterator is the
exception and belongs to the shard. A bucket holds one second's worth, as the shards' do.
"""

from __future__ import annotations

from typing import Final

from simulator.cloud import limits
from simulator.cloud.errors import AwsError
from simulator.cloud.limits import LimitSettings, Quota, TokenBucket

PER_ACCOUNT: Final[dict[str, Quota]] = {
    "CreateStream": limits.CONTROL_CALLS,
    "DeleteStream": limits.CONTROL_CALLS,
    "DescribeLimits": limits.DESCRIBE_LIMITS_CALLS,
    "DescribeStream": limits.DESCRIBE_STREAM_CALLS,
    "DescribeStreamSummary": limits.DESCRIBE_SUMMARY_CALLS,
    "ListStreams": limits.CONTROL_CALLS,
    "MergeShards": limits.CONTROL_CALLS,
    "RegisterStreamConsumer": limits.CONTROL_CALLS,
    "SplitShard": limits.CONTROL_CALLS,
    "UpdateShardCount": limits.UPDATE_SHARD_COUNT_CALLS,
}
PER_STREAM: Final[dict[str, Quota]] = {
    "AddTagsToStream": limits.CONTROL_CALLS,
    "DecreaseStreamRetentionPeriod": limits.CONTROL_CALLS,
    "DeregisterStreamConsumer": limits.CONTROL_CALLS,
    "DescribeStreamConsumer": limits.DESCRIBE_CONSUMER_CALLS,
    "DisableEnhancedMonitoring": limits.CONTROL_CALLS,
    "EnableEnhancedMonitoring": limits.CONTROL_CALLS,
    "IncreaseStreamRetentionPeriod": limits.CONTROL_CALLS,
    "ListShards": limits.LIST_SHARDS_CALLS,
    "ListStreamConsumers": limits.CONTROL_CALLS,
    "ListTagsForResource": limits.CONTROL_CALLS,
    "ListTagsForStream": limits.CONTROL_CALLS,
    "RemoveTagsFromStream": limits.CONTROL_CALLS,
    "StartStreamEncryption": limits.CONTROL_CALLS,
    "StopStreamEncryption": limits.CONTROL_CALLS,
    "TagResource": limits.CONTROL_CALLS,
    "UntagResource": limits.CONTROL_CALLS,
    "UpdateMaxRecordSize": limits.CONTROL_CALLS,
    "UpdateStreamMode": limits.CONTROL_CALLS,
}


class ControlRates:
    """One bucket per operation, or per operation and stream, made when first used."""

    def __init__(self, account_id: str, settings: LimitSettings) -> None:
        self._account_id = account_id
        self._settings = settings
        self._buckets: dict[tuple[str, str], TokenBucket] = {}

    def admit(self, operation: str, stream: str | None, now: float) -> None:
        """Count a call of ``operation`` that names ``stream``.

        :raises AwsError: LimitExceededException.
        """
        quota = PER_ACCOUNT.get(operation)
        whose = ""
        if quota is None:
            quota, whose = PER_STREAM.get(operation), stream or ""
        if quota is None or not self._settings.enforced:
            return
        bucket = self._buckets.get((operation, whose))
        if bucket is None:
            rate = quota.value * self._settings.control_rate_factor
            bucket = self._buckets[operation, whose] = TokenBucket(rate, max(1.0, rate), now)
        if not bucket.take(1, now):
            subject = f"stream {stream} under account {self._account_id}" if stream else f"account {self._account_id}"
            raise AwsError("LimitExceededException", f"Rate exceeded for {subject}.")
