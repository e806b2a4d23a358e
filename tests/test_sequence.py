"""Sequence numbers and hash keys, against numbers that AWS published."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.cloud import sequence
from simulator.cloud.sequence import MAX_HASH_KEY, SEQ_STEP, SequenceNumber

fields = st.builds(
    SequenceNumber,
    created_s=st.integers(0, 2**36 - 1),
    shard_index=st.integers(0, 2**31 - 1),
    seq_ix=st.integers(0, 2**63 - 1),
    time_s=st.integers(0, 2**36 - 1),
)


def test_awss_own_sample_decodes() -> None:
    # From the DynamoDB/Kinesis event sample whose approximateArrivalTimestamp is 1545084650.987, shard 6.
    found = sequence.parse("49590338271490256608559692538361571095921575989136588898")
    assert (found.shard_index, found.time_s, found.seq_ix) == (6, 1545084650, 1734642199)


def test_the_first_number_of_a_shard() -> None:
    number = SequenceNumber(created_s=1763596800, shard_index=0, seq_ix=0, time_s=1763596800)
    assert str(number) == "49669129673624347014257798306111400843028145059483615234"


@given(fields)
def test_parse_inverts_str(number: SequenceNumber) -> None:
    assert sequence.parse(str(number)) == number


@given(fields, st.integers(1, 10_000), st.integers(-5, 5))
def test_numbers_of_a_shard_increase_with_position_whatever_the_clock_does(
    number: SequenceNumber, later: int, drift_s: int
) -> None:
    if number.seq_ix + later >= 2**63:
        return
    following = number._replace(seq_ix=number.seq_ix + later, time_s=max(0, min(2**36 - 1, number.time_s + drift_s)))
    assert following.to_int() > number.to_int()
    same_second = number._replace(seq_ix=number.seq_ix + later)
    assert same_second.to_int() == number.to_int() + later * SEQ_STEP


@pytest.mark.parametrize("text", ["", "0", "-1", "12a", "49", "9" * 200, "٣", str(1 << 184)])
def test_what_is_not_a_sequence_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a"):
        sequence.parse(text)


@given(st.integers(1, 500))
def test_uniform_ranges_cover_the_space_once(count: int) -> None:
    ranges = sequence.uniform_ranges(count)
    assert ranges[0][0] == 0
    assert ranges[-1][1] == MAX_HASH_KEY
    assert all(end + 1 == start for (_, end), (start, _) in pairwise(ranges))


def test_three_shards_as_aws_divides_them() -> None:
    assert sequence.uniform_ranges(3) == [
        (0, 113427455640312821154458202477256070484),
        (113427455640312821154458202477256070485, 226854911280625642308916404954512140969),
        (226854911280625642308916404954512140970, 340282366920938463463374607431768211455),
    ]


def test_hash_key_is_md5_read_big_endian() -> None:
    # md5("a") = 0cc175b9c0f1b6a831c399e269772661
    assert sequence.hash_key("a") == 0x0CC175B9C0F1B6A831C399E269772661
