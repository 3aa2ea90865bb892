"""Targets that a frozen network gives: features and pseudo-labels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers.golden_rule import golden_randn
from helpers.tiny_teachers import save_teacher, save_tokenizer, tiny_config
from torch import nn

from slowfast_maskfeat.builders import build_model
from slowfast_maskfeat.builders.model import prediction_dims
from slowfast_maskfeat.builders.task import build_targets
from slowfast_maskfeat.checkpoints import load_weights, save_checkpoint
from slowfast_maskfeat.frozen import FrozenNetwork
from slowfast_maskfeat.shapes import Grid
from slowfast_maskfeat.targets import FeatureTarget, PseudoLabelTarget
from slowfast_maskfeat.targets.teacher_tokens import TeacherTokens

IMAGE, VIDEO = "pt_image_hog", "pt_video_vit_hog_rnd"
MEAN, STD = (0.45, 0.4, 0.5), (0.2, 0.25, 0.3)


@pytest.fixture(scope="module")
def image_teacher(tmp_path_factory) -> Path:
    return save_teacher(tmp_path_factory.mktemp("teachers"), "img_vit")


@pytest.fixture(scope="module")
def video_teacher(tmp_path_factory) -> Path:
    return save_teacher(tmp_path_factory.mktemp("teachers"), "v2_k400")


def _target(case: str, teacher: Path, **changes):
    changes = {"MASK__TARGET": "features", **changes}
    (target,) = build_targets(tiny_config(case, MASK__TEACHER_CHECKPOINT=str(teacher), **changes))
    return target


def _clips(seed: int, num_frames: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (2, 3, num_frames, 64, 64)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def _normalized(clips: torch.Tensor, mean, std) -> torch.Tensor:
    mean, std = (torch.tensor(x).view(1, 3, 1, 1, 1) for x in (mean, std))
    return (clips.float() / 255 - mean) / std


def _network(case: str, teacher: Path):
    cfg = tiny_config(case)
    model = build_model(cfg)
    load_weights(model, teacher, complete=True)
    return model.eval(), cfg


# Values


@torch.no_grad()
def test_features_of_images_are_the_normed_tokens(image_teacher):
    network, cfg = _network("img_vit", image_teacher)
    clips = _clips(1, 1)
    tokens = network.token_features(_normalized(clips, cfg.DATA.MEAN, cfg.DATA.STD))
    expected = F.layer_norm(tokens, (32,), eps=1e-6)
    target = _target(IMAGE, image_teacher)
    torch.testing.assert_close(target.encode(clips, Grid(1, 4, 4)), expected)
    unit = _target(IMAGE, image_teacher, MASK__FEATURE_NORM="unit").encode(clips, Grid(1, 4, 4))
    torch.testing.assert_close(unit, F.normalize(tokens, dim=-1))


@torch.no_grad()
def test_pseudo_labels_classify_each_token(image_teacher):
    network, cfg = _network("img_vit", image_teacher)
    clips = _clips(2, 1)
    tokens = network.token_features(_normalized(clips, cfg.DATA.MEAN, cfg.DATA.STD))
    target = _target(IMAGE, image_teacher, MASK__TARGET="pseudo_labels")
    labels = target.encode(clips, Grid(1, 4, 4))
    torch.testing.assert_close(labels, network.head.projection(tokens).softmax(-1))


@torch.no_grad()
def test_a_network_of_videos_sees_the_whole_clip(video_teacher):
    network, cfg = _network("v2_k400", video_teacher)
    clips = _clips(3, cfg.DATA.NUM_FRAMES)
    tokens = network.token_features(_normalized(clips, cfg.DATA.MEAN, cfg.DATA.STD))
    grid = network.grids(clips.shape[2:])[-1]
    target = _target(VIDEO, video_teacher, MASK__FEATURE_NORM="none")
    torch.testing.assert_close(target.encode(clips, grid), tokens)


@pytest.mark.parametrize("name", ["features", "pseudo_labels"])
def test_every_frame_of_a_still_clip_has_the_target_of_the_image(image_teacher, name):
    picture = _clips(4, 1)
    still = picture.expand(-1, -1, 8, -1, -1)
    image = _target(IMAGE, image_teacher, MASK__TARGET=name)
    every = _target(VIDEO, image_teacher, MASK__TARGET=name, MASK__TIME_STRIDE_LOSS=False)
    first = _target(VIDEO, image_teacher, MASK__TARGET=name)
    of_image = image.encode(picture, Grid(1, 4, 4)).unflatten(1, (1, 16))
    of_first = first.encode(still, Grid(4, 4, 4)).unflatten(1, (4, 16))
    of_every = every.encode(still, Grid(4, 4, 4)).unflatten(1, (4, 16))
    assert every.num_frames == 2
    torch.testing.assert_close(of_first, of_image.expand(-1, 4, -1, -1))
    torch.testing.assert_close(of_every, of_image.repeat(1, 4, 1, 2))


@torch.no_grad()
def test_the_mean_of_the_last_layers(image_teacher):
    network, cfg = _network("img_vit", image_teacher)
    clips = _clips(5, 1)
    inputs = _normalized(clips, cfg.DATA.MEAN, cfg.DATA.STD)
    second, third = network.layer_tokens(inputs, [1, 2])
    torch.testing.assert_close(third, network.token_features(inputs))
    assert not torch.allclose(second, third)
    options = {"MASK__FEATURE_NORM": "none"}
    both = _target(IMAGE, image_teacher, MASK__TEACHER_NUM_LAYERS=2, **options)
    torch.testing.assert_close(both.encode(clips, Grid(1, 4, 4)), (second + third) / 2)
    inner = _target(IMAGE, image_teacher, MASK__TEACHER_LAYER=-2, **options)
    torch.testing.assert_close(inner.encode(clips, Grid(1, 4, 4)), second)


# Input and grid of the network


class _Positions(nn.Module):
    """A network whose tokens are the means of its 8x8 pixel patches, with a bit of time."""


def _patch_means(network: nn.Module, clips: torch.Tensor) -> tuple[torch.Tensor, Grid]:
    maps = F.avg_pool3d(clips, (1, 8, 8))
    return maps.flatten(2).transpose(1, 2), Grid(*maps.shape[2:])


def _tokens(**changes) -> TeacherTokens:
    options = {
        "is_of_images": False,
        "crop_size": 32,
        "mean": (0.0,) * 3,
        "std": (1.0,) * 3,
        "clip_mean": MEAN,
        "clip_std": STD,
    }
    return TeacherTokens(FrozenNetwork(_Positions()), _patch_means, **{**options, **changes})


def test_cells_that_divide_are_averaged():
    clips = _clips(6, 4)[..., :32, :32]
    found = _tokens()(clips, Grid(4, 2, 2), all_frames=False)  # 4x4 cells on 2x2 tokens
    expected = F.avg_pool3d(clips.float() / 255, (1, 16, 16)).permute(0, 2, 3, 4, 1)
    torch.testing.assert_close(found.squeeze(4), expected)


def test_other_cells_and_steps_are_interpolated():
    clips = _clips(7, 2)[..., :32, :32]
    found = _tokens()(clips, Grid(1, 3, 3), all_frames=False)
    steps = F.avg_pool3d(clips.float() / 255, (1, 8, 8)).mean(dim=2)
    expected = F.interpolate(steps, (3, 3), mode="bilinear").permute(0, 2, 3, 1)
    torch.testing.assert_close(found[:, 0, :, :, 0], expected)


def test_clips_are_resized_to_the_network():
    clips = torch.full((1, 3, 1, 48, 48), 128, dtype=torch.uint8)
    found = _tokens(is_of_images=True)(clips, Grid(1, 4, 4), all_frames=False)
    assert found.shape == (1, 1, 4, 4, 1, 3)
    torch.testing.assert_close(found, torch.full_like(found, 128 / 255))


def test_normalized_clips_are_those_of_the_pixels():
    clips = _clips(8, 2)[..., :32, :32]
    teacher = _tokens(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), is_reversed=True)
    of_pixels = teacher(clips, Grid(2, 4, 4), all_frames=False)
    of_floats = teacher(_normalized(clips, MEAN, STD), Grid(2, 4, 4), all_frames=False)
    torch.testing.assert_close(of_floats, of_pixels, atol=1e-5, rtol=1e-5)
    reverse = _tokens(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    torch.testing.assert_close(reverse(clips.flip(1), Grid(2, 4, 4), all_frames=False), of_pixels)


def test_frames_that_the_steps_do_not_divide_are_an_error():
    with pytest.raises(ValueError, match="multiple of 3 frames for 3x4x4 tokens, got 4"):
        _tokens()(_clips(9, 4), Grid(3, 4, 4), all_frames=False)


# Losses


@pytest.mark.parametrize("loss", ["l2", "cosine"])
def test_no_other_constant_is_better_than_the_baseline(loss):
    target = FeatureTarget(_tokens(), num_features=6, num_frames=2, norm="none", loss=loss)
    rows = golden_randn(3, (50, 12)).exp()
    best = target.baseline_loss(rows)
    constant = target.constant_prediction(rows)
    for seed in range(20):
        other = constant + 0.1 * golden_randn(100 + seed, (12,))
        assert target.loss(other.expand(50, -1), rows).mean() > best


@pytest.mark.parametrize("is_hard", [True, False])
def test_the_baseline_of_labels_is_that_of_the_class_frequencies(is_hard):
    target = PseudoLabelTarget(_tokens(), num_classes=5, num_frames=2, is_hard=is_hard)
    rows = golden_randn(4, (60, 2, 5)).softmax(-1)
    labels = F.one_hot(rows.argmax(-1), 5).float() if is_hard else rows
    frequencies = labels.mean(0)
    expected = -(labels * frequencies.log()).sum(-1).mean()
    torch.testing.assert_close(target.baseline_loss(rows.flatten(1)), expected)


def test_gradients_reach_the_prediction_alone(image_teacher):
    target = _target(IMAGE, image_teacher)
    rows = target.encode(_clips(10, 1), Grid(1, 4, 4))[0]
    prediction = torch.zeros_like(rows, requires_grad=True)
    target.loss(prediction, rows).mean().backward()
    assert prediction.grad is not None
    assert prediction.grad.abs().sum() > 0
    network = target.teacher.teacher.network
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    assert not list(target.parameters())
    assert not rows.requires_grad


# What users get wrong


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"MASK__TEACHER_CHECKPOINT": ""},
            r"MASK\.TEACHER_CHECKPOINT must be the checkpoint of a frozen network",
        ),
        ({"MASK__TEACHER_CHECKPOINT": "/none.pyth"}, "there is no checkpoint at /none.pyth"),
        ({"MASK__TEACHER_LAYER": 3}, r"MASK\.TEACHER_LAYER must be a block .* in \[-3, 3\), got 3"),
        ({"MASK__TEACHER_NUM_LAYERS": 4}, r"TEACHER_NUM_LAYERS must be in \[1, 3\], .* got 4"),
        ({"MASK__TEACHER_NUM_LAYERS": 0}, r"TEACHER_NUM_LAYERS must be in \[1, 3\], .* got 0"),
        ({"MASK__TEACHER_CFG": "none"}, r"MASK\.TEACHER_CFG must be a YAML file .* got 'none'"),
    ],
)
def test_wrong_keys_are_found_before_the_model_is_built(image_teacher, changes, message):
    cfg = tiny_config(
        IMAGE,
        **{"MASK__TARGET": "features", "MASK__TEACHER_CHECKPOINT": str(image_teacher), **changes},
    )
    with pytest.raises(ValueError, match=message):
        prediction_dims(cfg)


def test_a_file_without_configuration_needs_one(image_teacher, tmp_path):
    network, _ = _network("img_vit", image_teacher)
    bare = save_checkpoint(tmp_path / "bare.pyth", {"model_state": network.state_dict()})
    with pytest.raises(ValueError, match=r"no configuration.*MASK\.TEACHER_CFG"):
        _target(IMAGE, bare)
    given = tmp_path / "given.yaml"
    given.write_text(tiny_config("img_vit").dump())
    target = _target(IMAGE, bare, MASK__TEACHER_CFG=str(given))
    expected = _target(IMAGE, image_teacher)
    clips = _clips(11, 1)
    grid = Grid(1, 4, 4)
    torch.testing.assert_close(target.encode(clips, grid), expected.encode(clips, grid))


@pytest.mark.parametrize("target", ["features", "pseudo_labels"])
def test_a_tokenizer_is_no_teacher(tmp_path, target):
    tokenizer = save_tokenizer(tmp_path)
    with pytest.raises(ValueError, match=r"MASK\.TEACHER_CHECKPOINT must be .* 'Tokenizer'"):
        _target(IMAGE, tokenizer, MASK__TARGET=target)


def test_pseudo_labels_need_a_classifier(tmp_path):
    pretrained = save_teacher(tmp_path, IMAGE)
    _target(IMAGE, pretrained)  # features of its encoder
    with pytest.raises(ValueError, match="does not fill the whole model"):
        _target(IMAGE, pretrained, MASK__TARGET="pseudo_labels")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_names": 3}, "'class_names' must be"),
        ({"class_names": [1, 2]}, "'class_names' must be"),
        ({"cfg": ["a"]}, "has no configuration"),
    ],
)
def test_a_file_with_parts_of_other_types_is_one_error(image_teacher, tmp_path, change, message):
    path = tmp_path / "changed.pyth"
    torch.save({**torch.load(image_teacher, weights_only=True), **change}, path)
    with pytest.raises(ValueError, match=message):
        _target(IMAGE, path)
