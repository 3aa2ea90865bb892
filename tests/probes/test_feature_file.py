"""Files of features: what goes in comes out, and nothing half written is taken for whole."""

from __future__ import annotations

import pytest
import torch

from slowfast_maskfeat.probes import Features, load_features, save_features


def _features(labelled: bool = True) -> Features:
    return Features(
        features=torch.randn(3, 2, 4).half(),
        rows=torch.tensor([0, 0, 2]),
        views=torch.tensor([0, 1, 0]),
        times=torch.tensor([[0.0, 0.5], [0.5, 1.0], [0.1, 0.3]], dtype=torch.float64),
        labels=torch.tensor([1, 1, 0]) if labelled else None,
        paths=["a b.mp4", "lost.mp4", "ü.mp4"],
        class_names=["no", "yes"],
        facts={"list_sha256": "00", "lost": [{"path": "lost.mp4", "reason": "no such file"}]},
    )


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
@pytest.mark.parametrize("labelled", [True, False])
def test_all_comes_back(tmp_path, ending, labelled):
    written = _features(labelled)
    read = load_features(save_features(tmp_path / "new" / f"f{ending}", written))
    for name in ("features", "rows", "views", "times"):
        expected = getattr(written, name)
        assert getattr(read, name).dtype == expected.dtype
        assert getattr(read, name).equal(expected)
    assert (read.labels is None) == (not labelled)
    if labelled:
        assert read.labels.equal(written.labels)
    assert (read.paths, read.class_names) == (written.paths, written.class_names)
    assert read.facts == written.facts
    assert [path.name for path in (tmp_path / "new").iterdir()] == [f"f{ending}"]


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_a_cut_file_is_one_clear_error(tmp_path, ending):
    path = save_features(tmp_path / f"f{ending}", _features())
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"no complete file of features") as caught:
        load_features(path)
    assert str(path) in str(caught.value)


def test_other_endings_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"end in \.npz or \.safetensors"):
        save_features(tmp_path / "f.pt", _features())
