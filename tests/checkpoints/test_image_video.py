"""Weights of images in models of videos and back: a still clip answers as its image does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.golden_rule import golden_randn, relative_error
from helpers.tiny_cases import tiny_options
from helpers.tiny_checkpoints import IMAGE, VIDEO_VIT, receiver, source_file, source_state
from torch import Tensor, nn

from slowfast_maskfeat.checkpoints.positions import (
    on_another_grid,
    other_form,
    source_layout,
)
from slowfast_maskfeat.checkpoints.reshape import TokenLayout, reshape_weight
from slowfast_maskfeat.checkpoints.save_load import save_checkpoint
from slowfast_maskfeat.checkpoints.transfer import load_weights
from slowfast_maskfeat.shapes import Grid

# A class token meets more patches in a video, so that the mean over them counts more.
NO_CLS = {"MVIT__CLS_EMBED_ON": False}
JOINT = {"MVIT__SEP_POS_EMBED": False}
# Without padding along time no zeros enter a still clip.
UNPADDED = {"MVIT__PATCH_PADDING": [0, 3, 3], "MVIT__POOL_KVQ_KERNEL": [1, 3, 3]}
LEARNED = {"MVIT__USE_ABS_POS": True, "MVIT__SEP_POS_EMBED": True}


def logits(model: nn.Module, clips: Tensor) -> Tensor:
    with torch.no_grad():
        return model.eval()(clips)


@pytest.mark.parametrize("form", [{}, JOINT], ids=["separable", "joint"])
@pytest.mark.parametrize("kind", ["ViT", "MViTv2"])
def test_a_still_clip_answers_as_its_image(tmp_path: Path, form: dict, kind: str) -> None:
    if kind == "ViT":
        image = tiny_options("img_vit", **NO_CLS)
        video = tiny_options("img_vit", **VIDEO_VIT | NO_CLS | form)
    else:
        image = tiny_options("v2_k400", **IMAGE | LEARNED | NO_CLS | form)
        video = tiny_options("v2_k400", **UNPADDED | LEARNED | NO_CLS | form)
    path = source_file(tmp_path, image)
    report = load_weights(model := receiver(video), path, complete=True)
    assert report.coverage == 1.0
    picture = golden_randn(1000, (2, 3, 1, 64, 64))
    expected = logits(load_complete(image, path), picture)
    got = logits(model, picture.expand(-1, -1, 8, -1, -1))
    assert relative_error(got, expected) < 1e-5
    # ... and the published way does not.
    load_weights(model, path, inflate="repeat")
    assert relative_error(logits(model, picture.expand(-1, -1, 8, -1, -1)), expected) > 0.1


def load_complete(options: dict, path: Path) -> nn.Module:
    model = receiver(options)
    load_weights(model, path, complete=True)
    return model


@pytest.mark.parametrize("form", [{}, JOINT], ids=["separable", "joint"])
@pytest.mark.parametrize("cls", [{}, NO_CLS], ids=["cls", "no cls"])
def test_there_and_back_changes_nothing(tmp_path: Path, form: dict, cls: dict) -> None:
    image = tiny_options("img_vit", **cls)
    path = source_file(tmp_path, image)
    video = load_complete(tiny_options("img_vit", **VIDEO_VIT | cls | form), path)
    back_path = save_checkpoint(tmp_path / "video.pyth", {"model_state": video.state_dict()})
    back = load_complete(image, back_path).state_dict()
    for name, value in source_state(image).items():
        torch.testing.assert_close(back[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_an_inflated_patch_kernel_gives_the_response_of_the_image(tmp_path: Path) -> None:
    image = tiny_options("v2_k400", **IMAGE)
    path = source_file(tmp_path, image)
    model = receiver(tiny_options("v2_k400"))
    load_weights(model, path)
    picture = golden_randn(1, (1, 3, 1, 64, 64))
    with torch.no_grad():
        of_image = load_complete(image, path).patch_embed(picture)[0]  # (1, h * w, D)
        of_video, grid = model.patch_embed(picture.expand(-1, -1, 8, -1, -1))
    steps = of_video.unflatten(1, (grid.t, -1))
    for step in range(1, grid.t):  # the first one sees the padding
        assert relative_error(steps[:, step], of_image) < 1e-5
    assert relative_error(steps[:, 0], of_image) > 0.1


def test_images_of_another_size_in_a_joint_table_of_a_video(tmp_path: Path) -> None:
    # 64 tokens are 8x8 of an image, although a clip of this model could have 4 times 4x4.
    small = {"DATA__TRAIN_CROP_SIZE": 128, "DATA__TEST_CROP_SIZE": 128}
    image = tiny_options("img_vit", **small)
    path = source_file(tmp_path, image)
    video = tiny_options("img_vit", **VIDEO_VIT | JOINT)
    report = load_weights(model := receiver(video), path)
    assert model.configured_grid == Grid(4, 4, 4)
    assert "(1, 8, 8) to (4, 4, 4)" in report.reshaped["pos_embed"]
    steps = model.state_dict()["pos_embed"][:, 1:].unflatten(1, (4, 16))
    for step in range(1, 4):
        torch.testing.assert_close(steps[:, step], steps[:, 0])


def sum_of(state: dict[str, Tensor]) -> Tensor:
    """(1, t, h * w, D)"""
    return state["pos_embed_temporal"][:, :, None] + state["pos_embed_spatial"][:, None]


def test_separable_positions_become_joint_and_come_back(tmp_path: Path) -> None:
    separable = tiny_options("img_vit", **VIDEO_VIT)
    source = source_state(separable)
    path = source_file(tmp_path, separable)
    joint = load_complete(tiny_options("img_vit", **VIDEO_VIT | JOINT), path)
    clips = golden_randn(1000, (1, 3, 8, 64, 64))
    expected = logits(load_complete(separable, path), clips)
    assert relative_error(logits(joint, clips), expected) < 1e-5
    path = save_checkpoint(tmp_path / "joint.pyth", {"model_state": joint.state_dict()})
    back = load_complete(separable, path)
    assert relative_error(logits(back, clips), expected) < 1e-5
    torch.testing.assert_close(sum_of(back.state_dict()), sum_of(source))


def test_joint_positions_become_the_nearest_sum(tmp_path: Path) -> None:
    joint = tiny_options("img_vit", **VIDEO_VIT | JOINT)
    path = source_file(tmp_path, joint)
    report = load_weights(model := receiver(tiny_options("img_vit", **VIDEO_VIT)), path)
    assert report.reshaped["pos_embed_temporal"] == "from pos_embed, least squares over (4, 4, 4)"
    assert "pos_embed" not in report.unexpected
    assert "unused (not in model)" not in str(report)
    table = source_state(joint)["pos_embed"]
    state = model.state_dict()
    assert torch.equal(state["pos_embed_class"], table[:, :1])
    # What is left over of the nearest sum has no mean along any axis.
    rest = table[:, 1:].unflatten(1, (4, 16)) - sum_of(state)
    assert rest.mean(dim=1).abs().max() < 1e-6
    assert rest.mean(dim=2).abs().max() < 1e-6
    assert rest.abs().mean() > 0.1


def test_separable_positions_of_another_size_in_a_joint_table(tmp_path: Path) -> None:
    larger = {"DATA__NUM_FRAMES": 16, "DATA__TRAIN_CROP_SIZE": 96, "DATA__TEST_CROP_SIZE": 96}
    separable = tiny_options("img_vit", **VIDEO_VIT)
    path = source_file(tmp_path, separable)
    report = load_weights(
        receiver(tiny_options("img_vit", **VIDEO_VIT | JOINT | larger)), path, complete=True
    )
    assert "(4, 4, 4) to (8, 6, 6)" in report.reshaped["pos_embed"]


def test_what_tells_the_grid_of_a_file() -> None:
    spatial, temporal = torch.zeros(1, 16, 8), torch.zeros(1, 4, 8)
    separable = {"pos_embed_spatial": spatial, "pos_embed_temporal": temporal}
    assert source_layout(separable, None) == TokenLayout(False, Grid(4, 4, 4))
    assert source_layout(separable, Grid(4, 2, 8)).grid == Grid(4, 2, 8)
    oblong = {**separable, "pos_embed_spatial": spatial[:, :15]}
    assert source_layout(oblong, None).grid is None
    image = {
        "patch_embed.proj.weight": torch.zeros(8, 3, 4, 4),
        "cls_token": torch.zeros(1, 1, 8),
        "pos_embed": torch.zeros(1, 17, 8),
    }
    assert source_layout(image, None) == TokenLayout(True, Grid(1, 4, 4))
    image["pos_embed"] = torch.zeros(1, 16, 8)
    assert source_layout(image, None) == TokenLayout(True, None)
    video = {**image, "patch_embed.proj.weight": torch.zeros(8, 3, 2, 4, 4)}
    assert source_layout(video, None) == TokenLayout(True, None)
    assert source_layout(video, None, for_one_step=True).min_steps == 2
    assert source_layout(image, None, for_one_step=True).min_steps == 1


def test_equal_numbers_of_tokens_on_other_grids_are_told_apart() -> None:
    wide, high = TokenLayout(False, Grid(4, 2, 8)), TokenLayout(False, Grid(4, 8, 2))
    unknown = TokenLayout(False, None)
    names = ("pos_embed", "pos_embed_spatial", "decoder_pos_embed", "dec_pos_embed_spatial")
    for name in names:
        assert on_another_grid(name, wide, high)
        assert not on_another_grid(name, wide, wide)
        assert not on_another_grid(name, wide, unknown)
        assert not on_another_grid(name, unknown, wide)
    assert not on_another_grid("pos_embed_temporal", wide, high)
    rows = torch.arange(8.0).repeat_interleave(2).reshape(1, 16, 1)  # each is its row of eight
    change = reshape_weight(
        "pos_embed_spatial", rows, (1, 16, 1), source=high, target=wide, inflate="mean"
    )
    assert change is not None
    assert change.how == "bicubic, 8x2 to 2x8"
    first, second = change.value[0, :8, 0], change.value[0, 8:, 0]
    assert first.max() - first.min() < 1e-5
    assert 1 < first[0] < 2 < 5 < second[0] < 6


def test_tables_that_cannot_be_made_are_not() -> None:
    state = {
        "pos_embed_spatial": torch.zeros(1, 16, 8),
        "pos_embed_temporal": torch.zeros(1, 4, 8),
        "pos_embed_class": torch.zeros(1, 1, 8),
    }
    unknown = TokenLayout(True, None)
    known = TokenLayout(True, Grid(4, 4, 4))
    joint = {"cls_token": torch.zeros(1, 1, 8), "pos_embed": torch.zeros(1, 1 + 6, 8)}
    for source, target in ((known, unknown), (unknown, unknown)):
        made = other_form(joint, state, source=source, target=target, inflate="mean")
        assert set(made) == {"pos_embed_class"}
    spatial_alone = {"pos_embed_spatial": torch.zeros(1, 16, 8)}
    wanted = {"pos_embed": torch.zeros(1, 64, 8)}
    assert not other_form(spatial_alone, wanted, source=known, target=known, inflate="mean")
