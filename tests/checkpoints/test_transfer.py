"""Carrying weights over, against the published conversions (tests/golden/checkpoint)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers.golden_rule import (
    golden_json,
    golden_npz,
    golden_randn,
    relative_error,
)
from helpers.tiny_cases import model_of, tiny_options
from helpers.tiny_checkpoints import (
    IMAGE,
    LARGER,
    VIDEO_VIT,
    put_back,
    receiver,
    source_file,
    source_state,
)
from torch import nn

from slowfast_maskfeat.checkpoints.report import LoadReport
from slowfast_maskfeat.checkpoints.save_load import save_checkpoint
from slowfast_maskfeat.checkpoints.transfer import load_weights


def check_logits(model: nn.Module, name: str) -> None:
    clips = golden_randn(1000, tuple(golden_json(f"checkpoint/{name}.json")["input"]["shape"]))
    clips = clips.unsqueeze(2) if clips.ndim == 4 else clips
    with torch.no_grad():
        logits = model(clips)
    assert relative_error(logits, golden_npz(f"checkpoint/{name}.npz")["logits"]) < 1e-5


def check_converted(model: nn.Module, name: str) -> None:
    state = model.state_dict()
    strides = golden_json(f"checkpoint/{name}.json").get("strides", {})
    for key, expected in golden_npz(f"checkpoint/{name}.npz").items():
        if key.startswith("conv/"):
            got = state[key[5:]].flatten()[:: strides.get(key[5:], 1)]
            kept = expected.flatten()[: got.numel()]
            assert relative_error(got[: kept.size], kept) < 1e-5, key


def check_names(report: LoadReport, name: str) -> None:
    golden = golden_json(f"checkpoint/{name}.json")
    assert sorted(report.missing) == sorted(golden["missing_keys"])
    assert sorted(report.unexpected) == sorted(golden["source_keys_not_in_model"])


def test_pretrained_to_classifier(tmp_path: Path) -> None:
    name = "tiny_pt_to_ft"
    filters = {f"hogs.0.weight_{axis}": torch.zeros(3, 1, 3, 3) for axis in "xy"}
    path = source_file(tmp_path, tiny_options("pt_video_hog"), **filters)
    model = receiver(tiny_options("v2_ft"))
    report = load_weights(model, path)
    check_names(report, name)
    check_logits(model, name)
    assert not report.reshaped
    assert not report.refused
    assert len(report.loaded) == 127
    assert report.coverage == 1.0  # but for the last norm, which the pre-training lacks
    assert {"norm.weight", "norm.bias"} <= set(report.missing)
    text = str(report)
    assert "head.* (2)" in text
    assert "pred_head.* (4)" in text
    assert text.splitlines()[-1] == "  classifier left as initialized: the file has none"
    assert len(text.splitlines()) == 5


def test_larger_clips_with_separate_positions(tmp_path: Path) -> None:
    name = "tiny_v1sep_64to96_8to16f"
    model = receiver(tiny_options("v1_sep", **LARGER))
    report = load_weights(model, source_file(tmp_path, tiny_options("v1_sep")), complete=True)
    check_names(report, name)
    check_converted(model, name)
    check_logits(model, name)
    assert set(report.reshaped) == {"pos_embed_spatial", "pos_embed_temporal"}
    assert "(1, 256, 16) -> (1, 576, 16), bicubic, 16x16 to 24x24" in str(report)


def test_larger_clips_with_joint_positions(tmp_path: Path) -> None:
    # The published code leaves the table as initialized; here it is resized.
    name = "tiny_v1joint_64to96_8to16f"
    model = receiver(tiny_options("v1_joint", **LARGER))
    state = source_state(tiny_options("v1_joint"))
    path = save_checkpoint(tmp_path / "s.pyth", {"model_state": state})
    report = load_weights(model, path, complete=True)
    assert "(4, 16, 16) (taken for the grid of the file) to (8, 24, 24)" in str(report)
    resized = model.state_dict()["pos_embed"]
    assert torch.equal(resized[:, :1], state["pos_embed"][:, :1])  # the class token's stays
    # With that one table put back to its initial values, everything else is as published.
    put_back(model, "pos_embed")
    check_logits(model, name)


def test_prefix_is_cleared(tmp_path: Path) -> None:
    name = "tiny_prefix_cleared"
    state = source_state(tiny_options("v2_k400"))
    for prefix, clear in (("module.", ()), ("module.", ["module."]), ("net.x.", ["net.x."])):
        renamed = {f"{prefix}{key}": value for key, value in state.items()}
        path = save_checkpoint(tmp_path / "s.pyth", {"model_state": renamed})
        model = receiver(tiny_options("v2_k400"))
        report = load_weights(model, path, clear_names=clear, complete=True)
        assert not report.unexpected
        check_logits(model, name)


def test_image_to_video_as_published(tmp_path: Path) -> None:
    name = "tiny_imgv2_to_vid_image_init"
    path = source_file(tmp_path, tiny_options("v2_k400", **IMAGE))
    model = receiver(tiny_options("v2_k400"))
    report = load_weights(model, path, inflate="repeat")
    check_names(report, name)
    assert set(report.missing) == {f"blocks.{i}.attn.rel_pos_t" for i in range(5)}
    check_converted(model, name)
    check_logits(model, name)


@pytest.mark.parametrize(
    ("name", "unconverted"),
    [
        # The published way converts nothing without a flag, and with the one that divides only
        # the patch kernel; the rest stays as initialized.
        ("tiny_imgv2_to_vid_no_flag", ("patch_embed.proj.weight", "rel_pos_t", "pool_q.weight")),
        ("tiny_imgv2_to_vid_inflation", ("rel_pos_t", "pool_q.weight")),
    ],
)
def test_image_to_video_divided(tmp_path: Path, name: str, unconverted: tuple[str, ...]) -> None:
    path = source_file(tmp_path, tiny_options("v2_k400", **IMAGE))
    model = receiver(tiny_options("v2_k400"))
    report = load_weights(model, path, complete=True)
    assert len(report.reshaped) == 1 + 3 * 5 + 5  # patch kernel, pooling kernels, rel_pos_t
    if "inflation" in name:
        key = "patch_embed.proj.weight"
        expected = golden_npz(f"checkpoint/{name}.npz")[f"conv/{key}"]
        assert relative_error(model.state_dict()[key], expected) < 1e-6
    put_back(model, *unconverted, "pool_k.weight", "pool_v.weight")
    check_logits(model, name)


def test_image_positions_move_to_the_separate_tables(tmp_path: Path) -> None:
    # The published code leaves all three tables as initialized.
    name = "tiny_vit_img_to_vid_sep_image_init"
    image = source_state(tiny_options("img_vit"))
    path = save_checkpoint(tmp_path / "s.pyth", {"model_state": image})
    model = receiver(tiny_options("img_vit", **VIDEO_VIT))
    report = load_weights(model, path, inflate="repeat")
    state = model.state_dict()
    assert report.missing == ("pos_embed_temporal",)
    assert torch.equal(state["pos_embed_spatial"], image["pos_embed"][:, 1:])
    assert torch.equal(state["pos_embed_class"], image["pos_embed"][:, :1])
    check_converted(model, name)
    put_back(model, "pos_embed_spatial", "pos_embed_class")
    check_logits(model, name)


def test_video_to_image(tmp_path: Path) -> None:
    name = "tiny_vit_vid_sep_nocls_to_img_image_init"
    no_cls = {"MVIT__CLS_EMBED_ON": False}
    path = source_file(tmp_path, tiny_options("img_vit", **VIDEO_VIT, **no_cls))
    model = receiver(tiny_options("img_vit", **no_cls))
    report = load_weights(model, path, complete=True)
    assert report.unexpected == ("pos_embed_temporal",)
    check_converted(model, name)
    check_logits(model, name)


def test_pooling_video_to_image(tmp_path: Path) -> None:
    # The published code raises a KeyError here, on a table that only the video has.
    assert "KeyError" in golden_json("checkpoint/tiny_vid_to_imgv2_image_init.json")["error"]
    video = source_state(tiny_options("v2_k400"))
    path = source_file(tmp_path, tiny_options("v2_k400"))
    model = receiver(tiny_options("v2_k400", **IMAGE))
    report = load_weights(model, path, complete=True)
    assert set(report.unexpected) == {f"blocks.{i}.attn.rel_pos_t" for i in range(5)}
    # A still clip, away from its ends, has the response of its image.
    picture = golden_randn(1, (1, 3, 64, 64))
    clip = picture[:, :, None].expand(-1, -1, 3, -1, -1)
    patches = F.conv3d(clip, video["patch_embed.proj.weight"], stride=(1, 4, 4), padding=(0, 3, 3))
    with torch.no_grad():
        bias = model.patch_embed.proj.bias[:, None, None]
        assert relative_error(model.patch_embed.proj(picture) - bias, patches[:, :, 0]) < 1e-5
    for name in (f"blocks.{i}.attn.pool_{part}.weight" for i in range(5) for part in "qkv"):
        kernel, pooled = video[name], model.state_dict()[name]
        groups = len(kernel)
        still = golden_randn(2, (1, groups, 1, 9, 9))
        expected = F.conv3d(still.expand(-1, -1, 3, -1, -1), kernel, groups=groups)
        assert relative_error(F.conv3d(still, pooled, groups=groups), expected) < 1e-5, name


def test_relative_positions_grow_with_the_picture(tmp_path: Path) -> None:
    path = source_file(tmp_path, tiny_options("v2_k400"))
    changes = {"DATA__TRAIN_CROP_SIZE": 96, "DATA__TEST_CROP_SIZE": 96}
    model = receiver(tiny_options("v2_k400", **IMAGE, **changes))
    report = load_weights(model, path, complete=True)
    assert report.reshaped["blocks.0.attn.rel_pos_h"].startswith("(31, 16) -> (47, 16), linear")
    assert report.reshaped["patch_embed.proj.weight"].endswith("summed over 3 times")
    assert report.reshaped["blocks.0.attn.pool_k.weight"].endswith("summed over 3 times")


def test_other_classes_keep_their_head(tmp_path: Path) -> None:
    path = source_file(tmp_path, tiny_options("v2_ft"))
    model = receiver(tiny_options("v2_ft", MODEL__NUM_CLASSES=7))
    before = model.head.projection.weight.detach().clone()
    report = load_weights(model, path)
    assert torch.equal(model.head.projection.weight, before)
    assert report.coverage == 1.0
    assert set(report.refused) == {"head.projection.weight", "head.projection.bias"}
    assert "head.projection.bias: (20,) -> (7,)" in str(report)
    assert str(report).endswith("initialized: the file has 20 classes, the model 7")
    with pytest.raises(ValueError, match=r"does not fill the whole model(?s:.*)head\.\* \(2\)"):
        load_weights(model, path, complete=True)


def test_too_little_changes_nothing_and_says_what(tmp_path: Path) -> None:
    path = source_file(tmp_path, tiny_options("img_vit"))
    model = receiver(tiny_options("v2_ft"))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"fills \d+\.\d% of the backbone(?s:.*)left as init"):
        load_weights(model, path)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
    load_weights(model, path, min_coverage=0.0)


def test_containers(tmp_path: Path) -> None:
    state = source_state(tiny_options("img_vit"))
    for content in ({"model_state": state}, {"state_dict": state}, {"model": state}, dict(state)):
        path = save_checkpoint(tmp_path / "s.pyth", content)
        model = receiver(tiny_options("img_vit"))
        load_weights(model, path, complete=True)
        assert torch.equal(model.state_dict()["cls_token"], state["cls_token"])
    with pytest.raises(ValueError, match=r"inflate .*'median'"):
        load_weights(model, path, inflate="median")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = source_state(tiny_options("img_vit"))
    state["cls_token"][0, 0, 0] = float("nan")
    path = tmp_path / "s.pyth"
    torch.save({"model_state": state}, path)
    with pytest.raises(ValueError, match=r"not finite \(cls_token\)"):
        load_weights(receiver(tiny_options("img_vit")), path)


@pytest.mark.parametrize("name", ["stages", "conv_proj", "embeddings"])
def test_names_like_those_of_a_library_may_be_the_models_own(tmp_path: Path, name: str) -> None:
    """As of a backbone that an extension registers."""
    model = nn.ModuleDict({"backbone": nn.ModuleDict({name: nn.Linear(2, 2)})})
    path = save_checkpoint(tmp_path / "own.pyth", {"model_state": model.state_dict()})
    assert load_weights(model, path, complete=True).coverage == 1.0


def test_names_that_collide(tmp_path: Path) -> None:
    state = {"a.cls_token": torch.zeros(1), "cls_token": torch.zeros(1)}
    path = save_checkpoint(tmp_path / "s.pyth", {"model_state": state})
    with pytest.raises(ValueError, match=r"CLEAR_NAME_PATTERN .*'cls_token'"):
        load_weights(nn.Linear(1, 1), path, clear_names=["a."])


def test_the_file_may_tell_its_grid(tmp_path: Path) -> None:
    state = model_of(tiny_options("v1_joint")).state_dict()
    path = save_checkpoint(tmp_path / "s.pyth", {"model_state": state, "token_grid": (16, 8, 8)})
    report = load_weights(receiver(tiny_options("v1_joint", **LARGER)), path)
    assert report.reshaped["pos_embed"].endswith("(16, 8, 8) to (8, 24, 24)")


@pytest.mark.parametrize("num_frames", [1, 2])
def test_a_video_for_clips_of_one_step_keeps_its_rows_and_columns(
    tmp_path: Path, num_frames: int
) -> None:
    """4 x 16 x 16 tokens are as many as 1 x 32 x 32."""
    path = source_file(tmp_path, tiny_options("v1_joint"))
    model = receiver(tiny_options("v1_joint", DATA__NUM_FRAMES=num_frames))
    report = load_weights(model, path, complete=True)
    assert (
        "(4, 16, 16) (taken for the grid of the file) to (1, 16, 16)"
        in (report.reshaped["pos_embed"])
    )


@pytest.mark.parametrize("grid", ["8x8", [1, 4], [1, 4, 4.0], 16])
def test_a_grid_that_cannot_be_meant(tmp_path: Path, grid: object) -> None:
    state = source_state(tiny_options("img_vit"))
    path = save_checkpoint(tmp_path / "s.pyth", {"model_state": state, "token_grid": grid})
    with pytest.raises(ValueError, match="its token_grid must be three integers"):
        load_weights(receiver(tiny_options("img_vit")), path)


def test_the_average_is_taken_where_there_is_one(tmp_path: Path) -> None:
    state = source_state(tiny_options("img_vit"))
    doubled = {name: 2 * value for name, value in state.items()}
    for average in (None, {"weights": doubled, "decay": 0.5}):
        content = {"model_state": state, "average_state": average}
        path = save_checkpoint(tmp_path / "s.pyth", content)
        for complete in (False, True):
            model = receiver(tiny_options("img_vit"))
            load_weights(model, path, complete=complete)
            factor = 2 if complete and average else 1
            assert torch.equal(model.state_dict()["cls_token"], factor * state["cls_token"])


def test_names_may_be_brought_to_ours(tmp_path: Path) -> None:
    state = source_state(tiny_options("img_vit"))
    theirs = {name[::-1]: value for name, value in state.items()}
    path = save_checkpoint(tmp_path / "s.pyth", {"model_state": theirs})
    report = load_weights(
        receiver(tiny_options("img_vit")),
        path,
        complete=True,
        rename=lambda weights: {name[::-1]: value for name, value in weights.items()},
    )
    assert not report.unexpected


def test_a_model_that_is_all_head_has_nothing_to_cover(tmp_path: Path) -> None:
    model = nn.ModuleDict({"head": nn.Linear(2, 3)})
    path = save_checkpoint(tmp_path / "s.pyth", {"model_state": {"other": torch.zeros(1)}})
    assert load_weights(model, path).coverage == 1.0


@pytest.mark.slow
def test_published_small_model_to_classifier(tmp_path: Path) -> None:
    name = "S_pt_to_ft"
    options = golden_json("checkpoint/S_options.json")
    filters = {f"hogs.0.weight_{axis}": torch.zeros(3, 1, 3, 3) for axis in "xy"}
    path = source_file(tmp_path, options["pretraining"], **filters)
    model = receiver(options["classifier"])
    report = load_weights(model, path)
    check_names(report, name)
    assert set(report.reshaped) == {f"blocks.15.attn.rel_pos_{axis}" for axis in "hw"}
    check_converted(model, name)
    check_logits(model, name)
