"""Features on the disk: what is there stays, however a process ends, and is read row by row."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch

from slowfast_maskfeat.features import FeatureStore

SHAPE = (2, 3)
ROW_BYTES = 2 * 3 * 2


def _clips(*numbers: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Numbers, features and times of clips, from which each can be told."""
    clips = torch.tensor(numbers, dtype=torch.long)
    features = clips[:, None, None] + torch.arange(6).view(SHAPE) / 8
    return clips, features, torch.stack((clips, clips + 0.5), dim=1).double()


def _store(folder: Path) -> FeatureStore:
    folder.mkdir(exist_ok=True)
    return FeatureStore(folder, SHAPE)


def _assert_these(store: FeatureStore, *numbers: int) -> None:
    found = store.read(store.parts())
    clips, features, times = _clips(*numbers)
    assert found.clips.equal(clips)
    assert found.features[:].equal(features.half())
    assert found.times.equal(times)


def test_parts_are_read_in_the_order_of_the_clips(tmp_path):
    store = _store(tmp_path)
    with store.writer(0, 2) as one, store.writer(1, 2) as other:
        one.put(*_clips(4, 5))
        other.put(*_clips(2, 3))
        one.put(*_clips(0, 1))
    with store.writer(2, 2):
        pass  # a process without a share leaves no part
    assert store.parts() == [0, 1]
    _assert_these(store, 0, 1, 2, 3, 4, 5)
    assert store.facts() is None
    store.finish({"key": "k"}, store.parts())
    assert store.facts() == {"key": "k"}
    assert store.read_all().clips.tolist() == [0, 1, 2, 3, 4, 5]


def test_rows_are_there_as_a_whole_or_not_at_all(tmp_path):
    store = _store(tmp_path)

    def work() -> None:
        with store.writer(0, 3) as writer:
            writer.put(*_clips(0, 1, 2))
            writer.put(*_clips(3, 4))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    _assert_these(store, 0, 1, 2)
    assert (tmp_path / "part_0000.rows").stat().st_size == 3 * ROW_BYTES


def test_a_killed_process_loses_what_the_index_does_not_name(tmp_path):
    store = _store(tmp_path / "a")
    with store.writer(0, 1, save_seconds=0) as writer:
        writer.put(*_clips(0, 1))
        # What a kill leaves: the index of the last save, rows that came after it, and a part whose
        # index was never written.
        killed = tmp_path / "b"
        shutil.copytree(store.folder, killed)
    with open(killed / "part_0000.rows", "ab") as file:
        file.write(b"x" * (ROW_BYTES + 5))
    (killed / "part_0001.rows").write_bytes(b"y" * 7)
    store = _store(killed)
    _assert_these(store, 0, 1)
    store.clean()
    assert (killed / "part_0000.rows").stat().st_size == 2 * ROW_BYTES
    assert (killed / "part_0001.rows").stat().st_size == 0
    assert (store.parts(), store.next_part()) == ([0], 2)
    _assert_these(store, 0, 1)


def test_two_runs_at_once_do_each_other_no_harm(tmp_path):
    store, other = _store(tmp_path), _store(tmp_path)
    with store.writer(store.next_part(), 2) as writer:
        writer.put(*_clips(0, 1))
        writer.put(*_clips(2))  # of a row that is not whole
        other.clean()
        with other.writer(other.next_part(), 2) as second:
            second.put(*_clips(0, 1))
            second.put(*_clips(4, 5))
        store.clean()
        writer.put(*_clips(3))
    assert store.parts() == [0, 1]
    _assert_these(store, 0, 1, 2, 3, 4, 5)


def test_nothing_is_there_at_first(tmp_path):
    _assert_these(_store(tmp_path))
    assert FeatureStore(tmp_path / "none", SHAPE).facts() is None


def test_a_clip_takes_its_bytes(tmp_path):
    assert FeatureStore(tmp_path, (196, 768)).clip_bytes == 196 * 768 * 2 + 24
    assert FeatureStore(tmp_path, (768,)).clip_bytes == 768 * 4 + 24


def test_facts_without_their_parts_are_damaged(tmp_path):
    store = _store(tmp_path)
    (tmp_path / "facts.json").write_text('{"facts": {}}')
    with pytest.raises(ValueError, match=r"facts\.json is damaged or missing"):
        store.read_all()


@pytest.mark.parametrize("name", ["part_0000.rows", "part_0000.npy", "facts.json"])
@pytest.mark.parametrize("is_gone", [True, False])
def test_damage_is_told_with_what_helps(tmp_path, name, is_gone):
    store = _store(tmp_path)
    with store.writer(0, 1) as writer:
        writer.put(*_clips(0, 1))
    store.finish({}, [0])
    path = tmp_path / name
    if is_gone and name == "facts.json":
        path.unlink()
        assert store.facts() is None
        return
    if is_gone:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-3])

    def read() -> None:
        store.facts()
        store.read_all()

    with pytest.raises(ValueError, match="damaged or missing") as caught:
        read()
    assert str(tmp_path) in str(caught.value)


def test_a_part_of_another_process_is_not_written_over(tmp_path):
    store = _store(tmp_path)
    with store.writer(0, 1) as writer:
        writer.put(*_clips(0))
    with pytest.raises(ValueError, match=r"part_0000\.rows: File exists"), store.writer(0, 1):
        pass
    _assert_these(store, 0)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_one_clear_error(tmp_path):
    store = _store(tmp_path)

    def fill() -> None:
        with store.writer(0, 1) as writer:
            full = os.open("/dev/full", os.O_WRONLY)
            os.dup2(full, writer._file.fileno())
            os.close(full)
            writer.put(*_clips(0))

    with pytest.raises(ValueError, match=r"part_0000\.rows: No space left on device"):
        fill()
