"""Checkpoints that survive, and shards in the order of their family."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.runtime.checkpoints import Checkpoints, ShardCheckpoint
from consumers.runtime.errors import CheckpointError
from consumers.runtime.event import Window
from consumers.runtime.lineage import Lineage, ShardInfo
from consumers.runtime.windows import OpenWindow

ARN = "arn:aws:kinesis:us-east-1:123456789012:stream/alleycat"
ONE = ShardCheckpoint("495", window=OpenWindow(Window(5, 10), b'{"1|2":{"7":9}}'))
TWO = ShardCheckpoint(None, since=12.5)
THREE = ShardCheckpoint("7", finished=True)


def test_what_is_saved_is_there_after_a_restart(tmp_path: Path) -> None:
    state_dir = tmp_path / "new" / "directory"
    first = Checkpoints("live", ARN, state_dir)
    assert first.all() == {}
    for shard_id, checkpoint in (("a", TWO), ("a", ONE), ("b", TWO), ("c", THREE)):
        first.save(shard_id, checkpoint)
    second = Checkpoints("live", ARN, state_dir)
    assert second.all() == {"a": ONE, "b": TWO, "c": THREE}
    assert second.get("a") == ONE
    assert second.get("z") is None
    second.save("b", THREE)
    assert Checkpoints("live", ARN, state_dir).all() == {"a": ONE, "b": THREE, "c": THREE}
    assert [path.name for path in state_dir.iterdir()] == ["live.json"]


def test_the_file_is_what_its_description_says(tmp_path: Path) -> None:
    Checkpoints("live", ARN, tmp_path).save("a", ONE)
    assert json.loads((tmp_path / "live.json").read_text()) == {
        "version": 1,
        "mapping": "live",
        "streamArn": ARN,
        "shards": {
            "a": {
                "sequenceNumber": "495",
                "since": None,
                "finished": False,
                "window": {"start": 5, "end": 10, "state": {"1|2": {"7": 9}}},
            }
        },
    }


def test_shards_that_expired_are_forgotten(tmp_path: Path) -> None:
    checkpoints = Checkpoints("live", ARN, tmp_path)
    checkpoints.save("a", ONE)
    checkpoints.save("b", THREE)
    checkpoints.forget(["b", "never seen"])
    assert Checkpoints("live", ARN, tmp_path).all() == {"a": ONE}


def test_without_a_directory_they_live_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoints = Checkpoints("live", ARN, None)
    checkpoints.save("a", ONE)
    assert checkpoints.get("a") == ONE
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"null", b"[]", b'{"version":1}', b"\xff\xfe", b"[" * 5000, b'{"version":1,"mapping":"live"'],
    ids=["empty", "cut off", "null", "list", "members missing", "binary", "deep", "truncated"],
)
def test_a_corrupted_file_says_what_to_delete(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "live.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="is not a checkpoint file") as raised:
        Checkpoints("live", ARN, tmp_path)
    assert raised.value.path == path
    assert str(path) in str(raised.value)
    assert "Delete this file to start the mapping again from its starting position." in str(raised.value)


def test_every_truncation_of_a_file_is_noticed(tmp_path: Path) -> None:
    Checkpoints("live", ARN, tmp_path).save("a", ONE)
    path = tmp_path / "live.json"
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            Checkpoints("live", ARN, tmp_path)


def test_another_streams_or_versions_file_is_refused(tmp_path: Path) -> None:
    Checkpoints("live", ARN, tmp_path).save("a", ONE)
    with pytest.raises(CheckpointError, match=r"belongs to arn:.*stream/alleycat, this mapping reads .*/other"):
        Checkpoints("live", ARN.replace("alleycat", "other"), tmp_path)
    path = tmp_path / "live.json"
    path.write_text(path.read_text().replace('"version":1', '"version":2'))
    with pytest.raises(CheckpointError, match="has version 2, this runtime reads 1"):
        Checkpoints("live", ARN, tmp_path)


def test_a_save_that_fails_keeps_the_old_file_and_is_made_up_for(tmp_path: Path) -> None:
    checkpoints = Checkpoints("live", ARN, tmp_path)
    checkpoints.save("a", TWO)
    obstacle = tmp_path / "live.tmp"
    obstacle.mkdir()
    with pytest.raises(CheckpointError, match="cannot be written"):
        checkpoints.save("a", ONE)
    assert Checkpoints("live", ARN, tmp_path).all() == {"a": TWO}
    obstacle.rmdir()
    checkpoints.save("b", THREE)
    assert Checkpoints("live", ARN, tmp_path).all() == {"a": ONE, "b": THREE}


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=40), min_size=2, max_size=2, unique=True))
def test_no_two_mappings_share_a_file(names: list[str]) -> None:
    from consumers.runtime.checkpoints import _file_name

    first, second = (_file_name(name) for name in names)
    assert first != second
    assert "/" not in first
    assert not first.startswith(".")


# -- families ------------------------------------------------------------------------------------------


def shard(shard_id: str, *parents: str, is_open: bool = True) -> ShardInfo:
    return ShardInfo(shard_id, parents, is_open)


def test_children_start_when_all_their_parents_are_drained() -> None:
    family = Lineage()
    family.on_listing([shard("0"), shard("1"), shard("2", "0", "1"), shard("3", "2")])
    assert family.startable() == ["0", "1"]
    family.on_started("0")
    family.on_started("1")
    assert family.startable() == []
    assert family.is_waiting()
    family.on_finished("0")
    assert family.startable() == []
    family.on_finished("1")
    assert family.startable() == ["2"]
    family.on_started("2")
    family.on_finished("2")
    family.on_started("3")
    assert not family.is_waiting()


def test_parents_that_expired_hold_nobody_back() -> None:
    family = Lineage()
    family.on_listing([shard("5", "1", "2")])
    assert family.startable() == ["5"]


def test_what_was_finished_before_a_restart_stays_finished() -> None:
    family = Lineage(finished=["0"])
    family.on_listing([shard("0"), shard("1", "0")])
    assert family.startable() == ["1"]
    assert family.expired(["0", "1"]) == []
    family.on_listing([shard("1", "0")])
    assert family.expired(["0", "1"]) == ["0"]


@given(st.data())
def test_no_child_before_its_parents_and_nobody_forgotten(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    shards = []
    for n in range(count):
        parents = data.draw(st.lists(st.integers(0, n - 1), max_size=2, unique=True)) if n else []
        shards.append(shard(f"{n:02}", *(f"{parent:02}" for parent in parents)))
    family, running, finished = Lineage(), set[str](), set[str]()
    family.on_listing(shards)
    while len(finished) < count:
        for shard_id in family.startable():
            assert set(next(s.parents for s in shards if s.shard_id == shard_id)) <= finished
            family.on_started(shard_id)
            running.add(shard_id)
        assert running, "there is always someone to read"
        ended = data.draw(st.sampled_from(sorted(running)))
        running.remove(ended)
        finished.add(ended)
        family.on_finished(ended)
    assert not family.is_waiting()
