"""What features are kept under, how a clip's tokens are pooled, and what is tried again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from helpers import tiny_run

from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.features import Features
from slowfast_maskfeat.features.extraction import FeatureKind
from slowfast_maskfeat.runs.features import build_frozen_model, extract_features

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """Lists with paths inside the folder of the videos, as DATA.PATH_PREFIX wants them."""
    folder = tiny_run.make_videos(tmp_path_factory.mktemp("videos"), num_videos=3)
    for name in ("train.csv", "val.csv", "test.csv"):
        text = (folder / name).read_text().replace(f"{folder}/", "")
        (folder / name).write_text(text)
    return folder


def _cfg(videos: Path, output: Path, *options: dict):
    folders = {
        "DATA.PATH_TO_DATA_DIR": videos,
        "DATA.PATH_PREFIX": videos,
        "OUTPUT_DIR": output,
    }
    return load_config([], tiny_run.pairs(tiny_run.MODEL, tiny_run.FINETUNING, folders, *options))


def _kept(cfg, checkpoint: Path | str = "", *, of_tokens: bool = False) -> Features:
    frozen = build_frozen_model(cfg, str(checkpoint), CPU)
    kind = FeatureKind(pooling="none" if of_tokens else "")
    found = extract_features(cfg, "test", frozen, kind=kind, device=CPU)
    assert found is not None
    return found


def _folders(output: Path) -> int:
    return len(list((output / "features").iterdir()))


@pytest.fixture(scope="module")
def image_weights(videos, tmp_path_factory) -> Path:
    """Those of an image, which have no time in their first kernel; block 1 has another name."""
    output = tmp_path_factory.mktemp("weights")
    model = build_frozen_model(_cfg(videos, output, {"RNG_SEED": 7}), "", CPU).model
    state = model.state_dict()
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"][:, :, 0].clone()
    named = {name.replace("blocks.1.", "mine.blocks.1."): value for name, value in state.items()}
    torch.save({"model_state": named}, output / "image.pyth")
    return output / "image.pyth"


@pytest.mark.parametrize(
    "changed",
    [
        {"TRAIN.CHECKPOINT_INFLATION": "repeat"},
        {"TRAIN.CHECKPOINT_IN_INIT": True},
        {"TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN": ("mine.",)},
    ],
)
def test_however_weights_are_loaded_their_features_are_others(
    videos, image_weights, tmp_path, changed
):
    partly = {"TRAIN.CHECKPOINT_MIN_COVERAGE": 0.0}
    usual = _kept(_cfg(videos, tmp_path, partly), image_weights)
    other = _kept(_cfg(videos, tmp_path, partly, changed), image_weights)
    assert usual.facts["key"] != other.facts["key"]
    assert not torch.equal(usual.features[:], other.features[:])
    # What asks for the weights that there are already, gets their features.
    same = {"TRAIN.CHECKPOINT_INFLATE": True}
    again = _kept(_cfg(videos, tmp_path, partly, same), image_weights)
    assert again.facts["key"] == usual.facts["key"]
    assert _folders(tmp_path) == 2


def test_random_weights_have_a_key_by_seed_but_not_by_classes(videos, tmp_path):
    keys = [
        _kept(_cfg(videos, tmp_path, changed)).facts["key"]
        for changed in ({"RNG_SEED": 1}, {"RNG_SEED": 2}, {"RNG_SEED": 1, "MODEL.NUM_CLASSES": 9})
    ]
    assert keys[0] != keys[1]
    assert keys[0] == keys[2]


def test_a_copy_elsewhere_has_features_of_its_own(videos, tmp_path):
    copy = tmp_path / "small"
    shutil.copytree(videos, copy)
    for number in range(3):  # another video under each name
        shutil.copy(videos / f"{(number + 1) % 3}.mp4", copy / f"{number}.mp4")
    output = tmp_path / "out"
    first = _kept(_cfg(videos, output))
    other = _kept(_cfg(videos, output, {"DATA.PATH_PREFIX": copy}))
    assert first.facts["list_sha256"] == other.facts["list_sha256"]
    assert not torch.equal(first.features[:], other.features[:])
    # Another list of the same rows is of the same videos.
    lists = tmp_path / "lists"
    lists.mkdir()
    for name in ("test.csv", "classes.txt"):
        shutil.copy(videos / name, lists)
    _kept(_cfg(lists, output, {"DATA.PATH_PREFIX": f"{videos}/../{videos.name}"}))
    assert _folders(output) == 2


def test_lost_videos_are_tried_again_and_named_again(videos, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(videos, data)
    (data / "1.mp4").unlink()
    cfg = _cfg(data, tmp_path / "out")
    for _ in range(2):
        found = _kept(cfg)
        assert found.rows.tolist() == [0, 0, 2, 2]
        assert f"lost: {data / '1.mp4'}: " in capsys.readouterr().err
    shutil.copy(videos / "1.mp4", data)
    found = _kept(cfg)
    assert found.rows.tolist() == [0, 0, 1, 1, 2, 2]
    assert found.facts["lost"] == []
    assert found.facts["num_decoded"] == 3
    assert "lost: " not in capsys.readouterr().err
    whole = _kept(_cfg(data, tmp_path / "whole"))
    assert torch.allclose(whole.features[:], found.features[:], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "of_tokens", "pooling"),
    [
        (tiny_run.PRETRAINING, False, "norm of the mean token"),
        ({}, False, "norm of the mean token"),
        ({"MVIT.USE_MEAN_POOLING": False}, False, "mean of the normed tokens"),
        ({"MVIT.USE_MEAN_POOLING": False, "MVIT.CLS_EMBED_ON": True}, False, "class token"),
        (tiny_run.PRETRAINING, True, "every token but the class token"),
    ],
)
def test_pooling_is_what_the_facts_say(videos, tmp_path, capsys, options, of_tokens, pooling):
    published = {"MVIT.USE_MEAN_POOLING": False, "MVIT.CLS_EMBED_ON": True}
    changed = {**published, **options} if "MASK.ENABLE" in options else options
    cfg = _cfg(videos, tmp_path, changed)
    model = build_frozen_model(cfg, "", CPU).model
    features = _kept(cfg, of_tokens=of_tokens)
    assert features.facts["pooling"] == pooling
    assert f"free); {pooling}" in capsys.readouterr().err
    clips = torch.rand(2, 3, 4, 32, 32)
    with torch.no_grad():
        tokens, _ = model.encode(clips)
        given = model.token_features(clips) if of_tokens else model.features(clips)
        patches = tokens[:, int(model.has_cls) :]
        expected = {
            "norm of the mean token": model.norm(patches.mean(1)),
            "mean of the normed tokens": model.norm(patches).mean(1),
            "class token": model.norm(tokens[:, 0]),
            "every token but the class token": model.norm(patches),
        }
    assert torch.allclose(given, expected[pooling])
