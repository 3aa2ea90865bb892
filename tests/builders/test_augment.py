"""Which keys switch which augmentation on, for videos and images."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from slowfast_maskfeat.augment import ColorRecipe
from slowfast_maskfeat.builders.augment import (
    build_batch_transform,
    build_erase_sampler,
)
from slowfast_maskfeat.builders.data import build_test_views
from slowfast_maskfeat.builders.train_view import build_train_transform
from slowfast_maskfeat.config import load_config

CONFIGS = Path(__file__).resolve().parent.parent.parent / "configs"


def _cfg(name=None, **options):
    words = [str(word) for pair in options.items() for word in pair]
    files = [str(CONFIGS / f"{name}.yaml")] if name else []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_config(files, [word.replace("__", ".") for word in words])


def test_nothing_is_augmented_by_default():
    cfg = _cfg()
    transform = build_train_transform(cfg)
    assert transform.randaugment is None
    assert transform.colors is None
    assert build_erase_sampler(cfg) is None
    assert build_batch_transform(cfg) is None


def test_the_published_recipe_of_videos():
    cfg = _cfg("Kinetics/MVITv2_S_16x4")
    transform = build_train_transform(cfg)
    policy = transform.randaugment
    assert (policy.magnitude, policy.num_operations, policy.magnitude_std) == (7, 4, 0.5)
    assert policy.increasing
    assert policy.fill == (128, 128, 128)
    assert not transform.augment_crop
    assert transform.colors is None  # AUG.COLOR_JITTER 0.4 is not for videos
    assert transform.interpolation == "bilinear"
    eraser = build_erase_sampler(cfg)
    assert (eraser.probability, eraser.max_count, eraser.num_tries) == (0.25, 1, 100)
    assert eraser.size == (224, 224)
    batch = build_batch_transform(cfg)
    assert batch.erase_mode == "pixel"
    mix = batch.mix
    assert (mix.num_classes, mix.mixup_alpha, mix.cutmix_alpha) == (400, 0.8, 1.0)
    assert (mix.probability, mix.switch_probability, mix.label_smoothing) == (1.0, 0.5, 0.1)


def test_the_published_recipe_of_images():
    cfg = _cfg("masked_ssl/in1k_VIT_B_MaskFeat_FT")
    transform = build_train_transform(cfg)
    assert transform.area == (0.08, 1.0)
    assert transform.augment_crop
    assert transform.interpolation == "bicubic"
    # The data set's mean, 0.485, 0.456, 0.406.
    assert transform.randaugment.fill == (124, 116, 104)
    assert transform.randaugment.magnitude == 9
    assert transform.colors is None  # RandAugment takes its place
    assert build_erase_sampler(cfg).num_tries == 10
    views = build_test_views(cfg)
    assert (views.transform.short_side, views.transform.crop_size) == (256, 224)
    assert views.transform.interpolation == "bicubic"
    plain = build_train_transform(_cfg("masked_ssl/in1k_VIT_B_MaskFeat_FT", AUG__AA_TYPE=""))
    assert plain.colors == ColorRecipe(brightness=0.4, contrast=0.4, saturation=0.4)


@pytest.mark.parametrize(
    "name", ["masked_ssl/k400_MVITv2_S_16x4_MaskFeat_PT", "masked_ssl/in1k_VIT_B_MaskFeat_PT"]
)
def test_the_published_pre_training_crops_and_flips_alone(name):
    cfg = _cfg(name)
    transform = build_train_transform(cfg)
    assert transform.area == (0.5, 1.0)
    assert transform.flip
    assert transform.randaugment is None
    assert transform.colors is None
    assert build_batch_transform(cfg) is None


def test_the_device_crops_as_the_workers_would():
    cfg = _cfg("masked_ssl/in1k_VIT_B_MaskFeat_FT", AUG__ON_DEVICE=True)
    transform, (crop,) = build_train_transform(cfg), build_batch_transform(cfg).crops
    assert (crop.crop_size, crop.antialias) == (transform.crop_size, transform.antialias)
    assert crop.interpolation == transform.interpolation == "bicubic"
    cfg = _cfg("Kinetics/MVITv2_S_16x4", AUG__ON_DEVICE=True, DATA__REVERSE_INPUT_CHANNEL=True)
    assert build_batch_transform(cfg).crops[0].reverse_channels
    # Without anything to erase or mix, too: the resize moves.
    cfg = _cfg("masked_ssl/k400_MVITv2_S_16x4_MaskFeat_PT", AUG__ON_DEVICE=True)
    batch = build_batch_transform(cfg)
    assert len(batch.crops) == 1
    assert batch.mix is None
    with pytest.raises(ValueError, match=r"AUG.ON_DEVICE must be False"):
        build_batch_transform(_cfg(AUG__ON_DEVICE=True, DETECTION__ENABLE=True))


def test_smoothing_without_mixing_needs_no_partner():
    cfg = _cfg("Kinetics/MVITv2_L_40x3_test", TRAIN__BATCH_SIZE=1)
    assert build_batch_transform(cfg).mix.probability == 0


def test_colors_of_contrastive_learning():
    """The published defaults of PySlowFast, with and without those of MoCo v2."""
    on = {"DATA__SSL_COLOR_JITTER": True}
    jitter = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
    assert build_train_transform(_cfg(**on)).colors == ColorRecipe(**jitter)
    colors = build_train_transform(
        _cfg(**on, DATA__SSL_MOCOV2_AUG=True, DATA__COLOR_RND_GRAYSCALE=0.2)
    ).colors
    assert colors == ColorRecipe(
        **jitter,
        jitter_probability=0.8,
        gray_probability=0.2,
        blur_probability=0.5,
        blur_sigma=(0.1, 2.0),
    )
    byol = {"DATA__SSL_COLOR_FORM": "additive", "DATA__SSL_COLOR_BRI_CON_SAT": [0.4, 0.4, 0.2]}
    assert build_train_transform(_cfg(**on, **byol)).colors == ColorRecipe(
        brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, form="additive"
    )


@pytest.mark.parametrize("jitter", [False, True])
def test_differences_of_frames_need_no_jitter(jitter):
    options = {"DATA__SSL_COLOR_JITTER": jitter, "DATA__TIME_DIFF_PROB": 0.5}
    plain = build_train_transform(_cfg(DATA__SSL_COLOR_JITTER=jitter)).colors or ColorRecipe()
    colors = build_train_transform(_cfg(**options)).colors
    assert colors == replace(plain, difference_probability=0.5)
    with pytest.warns(UserWarning, match="no effect on images"):
        cfg = load_config([], ["DATA.TIME_DIFF_PROB", "0.5", "DATA.NUM_FRAMES", "1"])
    assert build_train_transform(cfg).colors is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"AUG__ENABLE": True, "AUG__AA_TYPE": "", "DATA__NUM_FRAMES": 1},
            r"AUG\.COLOR_JITTER must be null with DATA\.SSL_COLOR_JITTER True, got 0\.4",
        ),
        ({"DATA__SSL_BLUR_SIGMA_MAX": [0.5, 2.0]}, r"must begin with 0, .* got \[0\.0, 0\.1\] and"),
        ({"DATA__SSL_BLUR_SIGMA_MIN": [0.0, 3.0]}, r"must not exceed .* got \[0\.0, 3\.0\] and"),
        ({"DATA__SSL_BLUR_PROB": []}, r"DATA\.SSL_BLUR_PROB must .* got \[\]"),
    ],
)
def test_colors_that_contradict_each_other(options, message):
    with pytest.raises(ValueError, match=message):
        build_train_transform(
            _cfg(**options, DATA__SSL_COLOR_JITTER=True, DATA__SSL_MOCOV2_AUG=True)
        )


def test_colors_of_images():
    options = {"AUG__ENABLE": True, "AUG__AA_TYPE": ""}
    assert build_train_transform(_cfg(**options, AUG__COLOR_JITTER=0.5)).colors is None
    with pytest.raises(ValueError, match=r"AUG\.COLOR_JITTER must be >= 0, got -0\.3"):
        build_train_transform(_cfg(**options, AUG__COLOR_JITTER=-0.3, DATA__NUM_FRAMES=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"TRAIN__BATCH_SIZE": 1},
            r"TRAIN.BATCH_SIZE must .* got 1 for 1",
        ),
        (
            {"MASK__ENABLE": True, "MODEL__MODEL_NAME": "MaskMViT"},
            r"MIXUP\.ENABLE must .* got True",
        ),
        (
            {"MIXUP__ALPHA": -1},
            r"MIXUP.ALPHA .* must be >= 0, got -1\.0 and 1\.0",
        ),
    ],
)
def test_what_can_not_be_mixed_is_a_clear_error(options, message):
    with pytest.raises(ValueError, match=message):
        build_batch_transform(_cfg(MIXUP__ENABLE=True, **options))


def test_a_batch_of_one_is_enough_where_each_video_gives_two_clips():
    options = {"MIXUP__ENABLE": True, "TRAIN__BATCH_SIZE": 1, "AUG__NUM_SAMPLE": 2}
    assert build_batch_transform(_cfg(**options)).mix is not None


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("AUG.RE_PROB", 1.2, r"got 1\.2"),
        ("DATA.COLOR_RND_GRAYSCALE", -0.1, r"got -0\.1"),
        ("DATA.TIME_DIFF_PROB", 1.5, r"got 1\.5"),
        ("DATA.SSL_COLOR_BRI_CON_SAT", [0.4, 0.4], r"three numbers in \[0, 1\], got"),
        ("DATA.SSL_SOLARIZE_PROB", [1.2], r"probabilities in \[0, 1\], got \[1\.2\]"),
        ("DATA.SSL_LOCAL_SPAN", [0.0, 0.5], r"fractions in \(0, 1\], got"),
        ("MIXUP.PROB", 2, r"got 2\.0"),
        ("AUG.NUM_SAMPLE", 0, "got 0"),
        ("AUG.RE_MODE", "noise", "'pixel', 'rand', 'const', got 'noise'"),
        ("AUG.INTERPOLATION", "lanczos", "'bicubic', 'bilinear', 'random', got"),
    ],
)
def test_values_out_of_range_name_their_key(key, value, message):
    with pytest.raises(ValueError, match=f"{key} .*{message}"):
        load_config([], [key, str(value)])
