"""Files of features: what goes in comes out, and nothing half written is taken for whole."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from slowfast_maskfeat.features import FeatureRows, Features, load_features, save_features


def _features(labeled: bool = True) -> Features:
    return Features(
        features=torch.randn(3, 2, 4).half(),
        rows=torch.tensor([0, 0, 2]),
        views=torch.tensor([0, 1, 0]),
        times=torch.tensor([[0.0, 0.5], [0.5, 1.0], [0.1, 0.3]], dtype=torch.float64),
        labels=torch.tensor([1, 1, 0]) if labeled else None,
        paths=["a b.mp4", "lost.mp4", "ü.mp4"],
        class_names=["no", "yes"],
        facts={"list_sha256": "00", "lost": [{"path": "lost.mp4", "reason": "no such file"}]},
    )


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
@pytest.mark.parametrize("labeled", [True, False])
def test_all_comes_back(tmp_path, ending, labeled):
    written = _features(labeled)
    read = load_features(save_features(tmp_path / "new" / f"f{ending}", written))
    for name in ("features", "rows", "views", "times"):
        expected = getattr(written, name)
        assert getattr(read, name).dtype == expected.dtype
        assert getattr(read, name).equal(expected)
    assert (read.labels is None) == (not labeled)
    if labeled:
        assert read.labels.equal(written.labels)
    assert (read.paths, read.class_names) == (written.paths, written.class_names)
    assert read.facts == written.facts
    assert [path.name for path in (tmp_path / "new").iterdir()] == [f"f{ending}"]


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_a_cut_file_is_one_clear_error(tmp_path, ending):
    path = save_features(tmp_path / f"f{ending}", _features())
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match="not a complete feature file") as caught:
        load_features(path)
    assert str(path) in str(caught.value)


def test_other_endings_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"end in \.npz or \.safetensors, got .*f\.pt"):
        save_features(tmp_path / "f.pt", _features())


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_names_of_files_may_be_longer_than_a_header_of_safetensors(tmp_path, ending):
    # 108 MB; a header of safetensors may have 100 MB.
    paths = [f"{row:06d}".ljust(1800, "x") for row in range(60_000)]
    written = replace(_features(), paths=paths)
    read = load_features(save_features(tmp_path / f"f{ending}", written))
    assert read.paths == paths


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_features_on_the_disk_are_written_as_those_in_memory(tmp_path, ending):
    in_memory = _features()
    values = in_memory.features.numpy()
    parts = (values[2:], values[:2])
    on_disk = replace(in_memory, features=FeatureRows(parts, _array(1, 1, 0), _array(0, 1, 0)))
    one = save_features(tmp_path / f"a{ending}", in_memory)
    other = save_features(tmp_path / f"b{ending}", on_disk)
    assert _content(one) == _content(other)


def test_anyone_can_read_the_texts(tmp_path):
    save_features(tmp_path / "f.npz", _features())
    with np.load(tmp_path / "f.npz", allow_pickle=False) as file:
        assert json.loads(file["facts"].tobytes())["list_sha256"] == "00"
        assert json.loads(file["class_names"].tobytes()) == ["no", "yes"]
        end = file["path_ends"]
        assert file["paths"][end[1] : end[2]].tobytes().decode() == "ü.mp4"


def test_a_folder_that_cannot_be_made_is_an_error_of_the_system(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file") as caught:
        save_features(tmp_path / "file" / "f.safetensors", _features())
    assert not isinstance(caught.value, ValueError)


def test_rows_are_as_those_of_a_tensor():
    values = torch.arange(24).view(6, 4)
    rows = FeatureRows(
        (values[:2].numpy(), values[2:].numpy()), _array(1, 0, 1, 0), _array(3, 1, 0, 0)
    )
    expected = values[[5, 1, 2, 0]]
    assert rows.shape == expected.shape
    assert rows[:].equal(expected)
    assert rows[1:3].equal(expected[1:3])
    chosen = torch.tensor([3, 0, 0])
    assert rows[chosen].equal(expected[chosen])
    assert rows.select(chosen)[1:].equal(expected[chosen][1:])
    assert len(rows[torch.tensor([], dtype=torch.long)]) == 0


def _array(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def _content(path: Path) -> bytes | dict[str, bytes]:
    """All bytes; of a zip, which keeps the time, those in it."""
    if path.suffix != ".npz":
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}
