"""Resharding: SplitShard, MergeShards, UpdateShardCount, by AWS's rules and in its words. No I/O, no clock.

Shards are replaced by children and no record moves: parents close, stay readable until retention ends, and name
their children to readers that reach their end. UpdateShardCount is done as AWS documents it, as splits and merges:
every open shard is split where a target range begins inside it, then the pieces of each target range are merged.
The short-lived shards in between exist and are listed, as on AWS.
"""

from __future__ import annotations

from simulator.cloud import limits
from simulator.cloud.errors import AwsError
from simulator.cloud.sequence import uniform_ranges
from simulator.cloud.shard import Shard
from simulator.cloud.stream import Stream


def update_shard_count(stream: Stream, target: int, now: float) -> int:
    """Begin a uniform reshard to ``target`` shards; returns the current open shard count.

    :raises AwsError: LimitExceededException by AWS's rules (double, half, 10,000, ten calls a day),
        ResourceInUseException while another change runs, ValidationException for an on-demand stream.
    """
    require_provisioned(stream)
    stream.require_active(now)
    current = len(stream.open_shards(now))
    counts = f"Current open shard count: {current}, Target shard count: {target}"
    if target > 2 * current:
        raise _limit(f"UpdateShardCount cannot scale up over double your current open shard count. {counts}")
    if target < current / 2:
        raise _limit(f"UpdateShardCount cannot scale down below half your current open shard count. {counts}")
    most = int(limits.UPDATE_SHARD_COUNT_MAX)
    if target > most or (current > most and target >= most):
        raise _limit(f"Target shard count or number of open shards cannot be greater than {most}. {counts}")
    stream.count_call("UpdateShardCount", limits.UPDATE_SHARD_COUNT_PER_DAY, now)
    stream.begin("UPDATING", stream.settings.reshard_seconds, lambda at: scale(stream, target, at), now)
    return current


def scale(stream: Stream, target: int, now: float) -> None:
    """Split and merge until ``target`` equal shards are open."""
    ranges = uniform_ranges(target)
    # Not open_shards(): this runs inside settle().
    if [(s.starting_hash_key, s.ending_hash_key) for s in stream.open_now] == ranges:
        return
    for start, _ in ranges[1:]:
        shard = stream.open_now[stream.owner(start)]
        if shard.starting_hash_key != start:
            stream.split(shard, start, now)
    for start, end in ranges:
        while (left := stream.open_now[stream.owner(start)]).ending_hash_key < end:
            stream.merge(left, stream.open_now[stream.owner(start) + 1], now)


def split_shard(stream: Stream, name: str, new_starting_hash_key: str, now: float) -> None:
    """Begin SplitShard. :raises AwsError: as AWS words it."""
    require_provisioned(stream)
    stream.require_active(now)
    shard = stream.shard(name)
    key = int(new_starting_hash_key)
    if not shard.starting_hash_key + 1 < key < shard.ending_hash_key:
        raise AwsError(
            "InvalidArgumentException",
            f"NewStartingHashKey {new_starting_hash_key} used in SplitShard() on shard {shard.shard_id} in stream "
            f"{stream.name} under account {stream.account_id} is not both greater than one plus the shard's "
            f"StartingHashKey {shard.starting_hash_key} and less than the shard's EndingHashKey "
            f"{shard.ending_hash_key}.",
        )
    if not shard.is_open:
        raise _closed(stream, shard)
    stream.begin("UPDATING", stream.settings.reshard_seconds, lambda at: stream.split(shard, key, at), now)


def merge_shards(stream: Stream, name: str, adjacent_name: str, now: float) -> None:
    """Begin MergeShards: ``adjacent_name`` begins where ``name`` ends. :raises AwsError: as AWS words it."""
    require_provisioned(stream)
    stream.require_active(now)
    left, right = stream.shard(name), stream.shard(adjacent_name)
    if left.ending_hash_key + 1 != right.starting_hash_key:
        raise AwsError(
            "InvalidArgumentException",
            f"Shards {left.shard_id} and {right.shard_id} in stream {stream.name} under account "
            f"{stream.account_id} are not an adjacent pair of shards eligible for merging",
        )
    for shard in (left, right):
        if not shard.is_open:
            raise _closed(stream, shard)
    stream.begin("UPDATING", stream.settings.reshard_seconds, lambda at: stream.merge(left, right, at), now)


def require_provisioned(stream: Stream) -> None:
    """:raises AwsError: ValidationException when AWS itself manages the shards."""
    if stream.mode != "PROVISIONED":
        raise AwsError(
            "ValidationException",
            f"Request is invalid. Stream {stream.name} under account {stream.account_id} is in On-Demand mode.",
        )


def _limit(text: str) -> AwsError:
    return AwsError("LimitExceededException", text)


def _closed(stream: Stream, shard: Shard) -> AwsError:
    return AwsError(
        "InvalidArgumentException",
        f"Shard {shard.shard_id} in stream {stream.name} under account {stream.account_id} has already been "
        "merged or split, and thus is not eligible for merging or splitting.",
    )
