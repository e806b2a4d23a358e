"""Records, the ledger, percentiles, the spool."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import producers
from producers import ConfigurationError, Ledger, Percentiles, Record, Samples, percentiles_of, read_spool
from producers.delivery import RECORD_MAX_BYTES, checked_sizes, total_bytes
from producers.spool import Spool

DUE = 1_800_000_000.125


def test_public_names() -> None:
    assert sorted(producers.__all__) == [
        "AccessRefused",
        "BrokerUnreachable",
        "ConfigurationError",
        "DEADLINE",
        "DeviceRefused",
        "EndpointUnreachable",
        "INTERRUPTED",
        "IotDeviceProducer",
        "KinesisProducer",
        "Latencies",
        "Ledger",
        "MqttProducer",
        "MqttStatistics",
        "Percentiles",
        "Producer",
        "ProducerClosed",
        "ProducerError",
        "ProducerStatistics",
        "QUEUE_FULL",
        "REJECTED",
        "Record",
        "RequestRefused",
        "Samples",
        "SpoolReader",
        "Statistics",
        "StreamNotFound",
        "TlsSettings",
        "Will",
        "percentiles_of",
        "read_spool",
    ]
    assert all(hasattr(producers, name) for name in producers.__all__)


texts = st.one_of(st.text(max_size=300), st.just("\ud800"), st.just("é" * 256))


@given(st.lists(st.tuples(st.integers(0, 40), texts), min_size=1, max_size=5))
def test_checking_many_agrees_with_checking_each(parts: list[tuple[int, str]]) -> None:
    records = [Record(bytes(size), key, DUE) for size, key in parts]
    sizes = checked_sizes(records)
    problems = [record.problem() for record in records]
    # Nothing with a problem passes; what is near the limit may be looked at one by one.
    assert (sizes is None) == any(problems)
    if sizes is not None:
        assert sizes.total_bytes == total_bytes(records) == sum(record.size_bytes for record in records)
        assert sizes.largest_bytes >= max(record.size_bytes for record in records)


def test_record_size_limit_counts_key_bytes() -> None:
    assert Record(bytes(RECORD_MAX_BYTES - 2), "é", DUE).problem() is None
    assert "1,048,577 bytes" in str(Record(bytes(RECORD_MAX_BYTES - 1), "é", DUE).problem())
    assert "this one 0" in str(Record(b"", "", DUE).problem())
    assert "this one 257" in str(Record(b"", "k" * 257, DUE).problem())


@pytest.mark.parametrize(
    "record",
    [
        Record("text", "k", DUE),  # type: ignore[arg-type]
        Record(b"", 7, DUE),  # type: ignore[arg-type]
        Record(b"", "k", "now"),  # type: ignore[arg-type]
        Record(b"", "k", DUE, []),  # type: ignore[arg-type]
        Record(bytearray(b"x"), "k", DUE),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_record_is_a_type_error(record: Record) -> None:
    with pytest.raises(TypeError, match="a record needs data: bytes"):
        checked_sizes([Record(b"", "k", DUE), record])


@pytest.mark.parametrize("due_s", [math.nan, math.inf, -math.inf])
def test_due_time_must_be_finite(due_s: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        checked_sizes([Record(b"", "k", DUE), Record(b"", "k", due_s)])


def test_ledger_adds_up_and_copies() -> None:
    one = Ledger(generated=10, delivered=6, throttled=3)
    one.count_lost(2, "deadline")
    one.count_lost(0, "rejected")
    copy = one.copy()
    one.count_lost(1, "deadline")
    assert (copy.lost_by_reason, copy.in_flight, one.in_flight) == ({"deadline": 2}, 2, 1)
    both = one + Ledger(generated=1, lost=1, lost_by_reason={"interrupted": 1})
    assert both.to_json() == {
        "generated": 11,
        "delivered": 6,
        "lost": 4,
        "lost_by_reason": {"deadline": 3, "interrupted": 1},
        "throttled": 3,
        "retried": 0,
        "duplicates": 0,
    }


@given(st.lists(st.lists(st.floats(-1e6, 1e6, width=32), max_size=50), max_size=8))
def test_percentiles_are_nearest_ranks(parts: list[list[float]]) -> None:
    samples = Samples()
    for part in parts:
        samples.add(np.array(part))
    values = sorted(value for part in parts for value in part)
    assert len(samples) == len(values)
    if not values:
        assert samples.percentiles() == Percentiles(0, 0, 0)
        return
    expected = [values[math.ceil(len(values) * q / 100) - 1] for q in (50, 99, 100)]
    got = samples.percentiles()
    assert [got.p50, got.p99, got.max] == expected
    assert percentiles_of([samples, Samples()]) == got


def test_many_samples_are_kept_exactly() -> None:
    samples = Samples()
    for start in range(0, 10_000, 100):
        samples.add(np.arange(start, start + 100, dtype=np.float64))
    assert samples.percentiles() == Percentiles(4999, 9899, 9999)
    assert (samples.values() == np.arange(10_000)).all()


# -- spool ---------------------------------------------------------------------------------------------

keys = st.one_of(st.none(), st.text(max_size=5), st.integers(-(2**63), 2**63 - 1))


lost_records = st.builds(Record, st.binary(max_size=50), st.text(min_size=1, max_size=9), st.just(DUE), keys)


@given(st.lists(lost_records, max_size=20))
def test_spool_gives_back_what_it_took(tmp_path_factory: pytest.TempPathFactory, records: list[Record]) -> None:
    path = tmp_path_factory.mktemp("spool") / "lost.jsonl"
    spool = Spool(path)
    spool.append(records[:7], "deadline")
    spool.append(records[7:], "interrupted")
    reader = read_spool(path)
    assert list(reader) == records
    assert reader.damaged_lines == 0
    assert sum(reader.reasons.values()) == len(records)
    assert [record.due_s for record in read_spool(path, due_s=5.0)] == [5.0] * len(records)


def test_a_line_cut_short_is_told_and_costs_no_other(tmp_path: Path) -> None:
    path = tmp_path / "lost.jsonl"
    Spool(path).append([Record(b"one", "k", DUE), Record(b"two", "k", DUE)], "deadline")
    path.write_bytes(path.read_bytes()[:-9])
    reader = read_spool(path)
    assert [record.data for record in reader] == [b"one"]
    assert reader.damaged_lines == 1
    assert "line 2 is not a spooled record (the file ends within it)" in str(reader.first_damage)
    Spool(path).append([Record(b"three", "k", DUE)], "deadline")
    assert [record.data for record in reader] == [b"one", b"three"]
    assert reader.damaged_lines == 1
    assert "line 2 is not a spooled record:" in str(reader.first_damage)


def test_spool_takes_what_was_rejected_for_its_key(tmp_path: Path) -> None:
    path = tmp_path / "lost.jsonl"
    Spool(path).append([Record(b"x", "\ud800", DUE, "\ud800"), Record(b"y", "", DUE, 2**70)], "rejected")
    assert [(record.data, record.order_key) for record in read_spool(path)] == [(b"x", "?"), (b"y", None)]


def test_spool_in_a_missing_directory_is_a_configuration_error(tmp_path: Path) -> None:
    for path in (tmp_path / "missing" / "lost.jsonl", tmp_path):
        with pytest.raises(ConfigurationError, match="name a file in a directory that exists"):
            Spool(path)
