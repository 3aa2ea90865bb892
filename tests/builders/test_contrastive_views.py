"""Views of two-view methods that the keys describe, and what their loader gives."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helpers.tiny_run import MODEL, PRETRAINING, pairs
from helpers.videos_on_disk import numbered_frames, write_video
from PIL import Image

from slowfast_maskfeat.builders.contrastive_views import contrastive_views
from slowfast_maskfeat.builders.data import build_loader
from slowfast_maskfeat.builders.methods import METHODS, MethodKey
from slowfast_maskfeat.clips import RandomFrames, RandomSpan, SameFrames
from slowfast_maskfeat.config import load_config

COLORS = {
    "DATA.SSL_COLOR_JITTER": True,
    "DATA.SSL_MOCOV2_AUG": True,
    "DATA.SSL_COLOR_BRI_CON_SAT": [0.4, 0.4, 0.2],
    "DATA.COLOR_RND_GRAYSCALE": 0.2,
}
# main_dino.py and loader.py of the official codes of DINO and iBOT.
DINO = {
    **COLORS,
    "DATA.TRAIN_CROP_NUM_SPATIAL": 2,
    "DATA.TRAIN_JITTER_SCALES_RELATIVE": [0.4, 1.0],
    "DATA.SSL_BLUR_PROB": [1.0, 0.1, 0.5],
    "DATA.SSL_SOLARIZE_PROB": [0.0, 0.2, 0.0],
    "DATA.SSL_LOCAL_VIEWS": 8,
}
IMAGES = {"DATA.NUM_FRAMES": 1, "DATA.SAMPLING_RATE": 1}
# datasets/decoder.py of SVT's official code: nearly whole videos, and eighths of them.
SVT = {
    **DINO,
    "DATA.TRAIN_CROP_NUM_SPATIAL": 1,
    "DATA.TRAIN_CROP_NUM_TEMPORAL": 2,
    "DATA.SSL_GLOBAL_SPAN": [0.9, 1.0],
    "DATA.SSL_LOCAL_CROP_SIZE": 16,
    "DATA.SSL_LOCAL_VIEWS": 4,
}


def _cfg(*options):
    return load_config([], pairs(*options))


def test_the_recipe_of_dino_for_images():
    views, local = contrastive_views(_cfg(IMAGES, DINO))
    assert (views.count, views.crop_size, views.augmentation.area) == (2, 224, (0.4, 1.0))
    assert (local.count, local.crop_size, local.augmentation.area) == (8, 96, (0.05, 0.4))
    first, second = views.colors
    third = local.augmentation.colors
    assert [colors.blur_probability for colors in (first, second, third)] == [1.0, 0.1, 0.5]
    assert [colors.solarize_probability for colors in (first, second, third)] == [0.0, 0.2, 0.0]
    assert first == replace(second, blur_probability=1.0, solarize_probability=0.0), (
        "the views differ in nothing else"
    )
    assert (first.brightness, first.contrast, first.saturation, first.hue) == (0.4, 0.4, 0.2, 0.1)
    assert (first.jitter_probability, first.gray_probability) == (0.8, 0.2)
    assert first.blur_sigma == (0.1, 2.0)
    assert views.augmentation.interpolation == local.augmentation.interpolation == "bicubic"
    assert local.temporal == SameFrames()


def test_the_recipe_of_byol():
    """Two views with blur in 100 % and 10 %, solarization in the second (paper, table 6)."""
    byol = {
        **COLORS,
        "DATA.SSL_COLOR_FORM": "additive",
        "DATA.TRAIN_CROP_NUM_SPATIAL": 2,
        "DATA.SSL_BLUR_PROB": [1.0, 0.1],
        "DATA.SSL_SOLARIZE_PROB": [0.0, 0.2],
    }
    (views,) = contrastive_views(_cfg(IMAGES, byol))
    assert views.augmentation.area == (0.08, 1.0)
    assert [colors.blur_probability for colors in views.colors] == [1.0, 0.1]
    assert [colors.solarize_probability for colors in views.colors] == [0.0, 0.2]
    assert {colors.form for colors in views.colors} == {"additive"}


def test_colors_of_augmentation_are_those_of_local_views_too():
    """Without DATA.SSL_COLOR_JITTER, AUG.COLOR_JITTER is for all views."""
    options = {
        "DATA.TRAIN_CROP_NUM_SPATIAL": 2,
        "DATA.SSL_LOCAL_VIEWS": 4,
        "AUG.ENABLE": True,
        "AUG.AA_TYPE": "",
        "AUG.COLOR_JITTER": 0.3,
    }
    views, local = contrastive_views(_cfg(IMAGES, options))
    assert views.colors == local.colors == ()
    colors = local.augmentation.colors
    assert colors == views.augmentation.colors
    assert (colors.brightness, colors.contrast, colors.saturation) == (0.3, 0.3, 0.3)


@pytest.mark.parametrize(
    ("options", "views_in_time", "local_in_time"),
    [
        (SVT, RandomSpan(0.9, 1.0), RandomSpan(0.125, 0.125)),
        ({**SVT, "DATA.SSL_GLOBAL_SPAN": []}, RandomFrames(sampling_rate=4), None),
        (
            {
                **SVT,
                "DATA.TRAIN_CROP_NUM_TEMPORAL": 1,
                "DATA.TRAIN_CROP_NUM_SPATIAL": 2,
                "DATA.SSL_LOCAL_SPAN": [],
            },
            SameFrames(RandomSpan(0.9, 1.0)),
            RandomFrames(sampling_rate=4),
        ),
    ],
)
def test_views_of_videos_in_time(options, views_in_time, local_in_time):
    views, local = contrastive_views(_cfg({"DATA.SAMPLING_RATE": 4}, options))
    assert views.temporal == views_in_time
    assert local.temporal == (local_in_time or RandomSpan(0.125, 0.125))
    assert views.num_frames == local.num_frames == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"DATA.TRAIN_CROP_NUM_SPATIAL": 1},
            r"TRAIN_CROP_NUM_SPATIAL must be 2, the global views of a sample, got 1 times 1",
        ),
        (
            {"DATA.SSL_BLUR_PROB": [1.0, 0.1]},
            r"DATA\.SSL_BLUR_PROB must have 1 value for all views, .* local views, got \[1\.0, 0",
        ),
        (
            {"DATA.SSL_LOCAL_VIEWS": 0},
            r"DATA\.SSL_BLUR_PROB must have 1 value .* 2 global views with "
            r"DATA\.SSL_LOCAL_VIEWS 0, got \[1\.0, 0\.1, 0\.5\]",
        ),
        ({"DATA.SSL_LOCAL_SPAN": [0.5, 0.1]}, r"SSL_LOCAL_SPAN must be two ascending numbers"),
        ({"DATA.SSL_LOCAL_SCALES_RELATIVE": [0.5, 0.1]}, r"SSL_LOCAL_SCALES_RELATIVE must be two"),
    ],
)
def test_keys_that_contradict_each_other(options, message):
    with pytest.raises(ValueError, match=message):
        contrastive_views(_cfg(DINO, options))


@pytest.fixture
def loader_of(monkeypatch):
    """A loader of these views for a method that has none yet."""

    def build(cfg, counts_crops=True):
        key = MethodKey(cfg.MODEL.MODEL_NAME, cfg.MASK.ENABLE, cfg.DETECTION.ENABLE)
        changes = {"views": contrastive_views, "masks": lambda _: (), "counts_crops": counts_crops}
        row = replace(METHODS[key], **changes)
        monkeypatch.setitem(METHODS, key, row)
        return build_loader(cfg, "train")

    return build


def test_a_loader_of_videos(loader_of, tmp_path):
    for number in range(2):
        write_video(tmp_path / f"{number}.mp4", numbered_frames(40), fps=30)
    (tmp_path / "train.csv").write_text(f"{tmp_path}/0.mp4 0\n{tmp_path}/1.mp4 1\n")
    data = {"DATA.PATH_TO_DATA_DIR": tmp_path, "TRAIN.BATCH_SIZE": 2}
    cfg = _cfg(MODEL, PRETRAINING, data, SVT)
    (batch,) = loader_of(cfg).epoch(0)
    views, local = batch.views
    assert views.clips.shape == (2 * 2, 3, 4, 32, 32)
    assert local.clips.shape == (2 * 4, 3, 4, 16, 16)
    (same,) = loader_of(cfg).epoch(0)
    assert all(a.clips.equal(b.clips) for a, b in zip(batch.views, same.views, strict=True))
    with pytest.raises(ValueError, match=r"TRAIN_CROP_NUM_TEMPORAL must be 1 .* got 2"):
        loader_of(cfg, counts_crops=False)


def test_a_loader_of_images(loader_of, tmp_path):
    for number in range(2):
        picture = Image.effect_noise((60, 50), 90.0).convert("RGB")
        picture.save(tmp_path / f"{number}.png")
    (tmp_path / "train.csv").write_text(f"{tmp_path}/0.png 0\n{tmp_path}/1.png 1\n")
    data = {"DATA.PATH_TO_DATA_DIR": tmp_path, "TRAIN.BATCH_SIZE": 2, "DATA.TRAIN_CROP_SIZE": 32}
    (batch,) = loader_of(_cfg(MODEL, PRETRAINING, IMAGES, DINO, data)).epoch(0)
    views, local = batch.views
    assert views.clips.shape == (2 * 2, 3, 1, 32, 32)
    assert local.clips.shape == (2 * 8, 3, 1, 96, 96)
