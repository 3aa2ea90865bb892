"""Training of tokenizers, and pre-training on their codes, from end to end."""

from __future__ import annotations

import pytest
import torch
from helpers.golden_rule import fill_with_golden_weights
from helpers.published_files import write_yaml
from helpers.tiny_run import (
    PRETRAINING,
    assert_same_training,
    events,
    kill_and_resume,
    last_checkpoint,
    losses,
    make_videos,
    run,
    run_two_processes,
)
from helpers.tiny_teachers import save_teacher

from slowfast_maskfeat import tokenizers
from slowfast_maskfeat.checkpoints import load_checkpoint, save_checkpoint

VQ = {
    "TASK": "tok",
    "MODEL.MODEL_NAME": "Tokenizer",
    "TOKENIZER.WIDTHS": [8, 16, 16],
    "TOKENIZER.NUM_CODES": 16,
    "TOKENIZER.CODE_DIM": 4,
    "TOKENIZER.KMEANS_ROUNDS": 3,
}
DVAE = {**VQ, "TOKENIZER.TYPE": "dvae"}
# All of them have 8x8 pixels a code.
DALLE = {
    **DVAE,
    "TOKENIZER.ARCH": "dalle",
    "TOKENIZER.WIDTHS": [4, 8, 8, 16],
    "TOKENIZER.RECONSTRUCTION": "logit_laplace",
}
VQGAN = {
    **VQ,
    "TOKENIZER.ARCH": "vqgan",
    "TOKENIZER.WIDTHS": [32, 32, 32, 32],
    "TOKENIZER.CODEBOOK": "gradient",
    "TOKENIZER.KMEANS_ROUNDS": 0,
}
VQKD = {
    **VQ,
    "TOKENIZER.ARCH": "vit",
    "TOKENIZER.RECONSTRUCTION": "features",
    "TOKENIZER.CODEBOOK": "direction",
    "TOKENIZER.DISTANCE": "cosine",
    "MVIT.PATCH_2D": True,
    "MVIT.PATCH_KERNEL": [8, 8],
    "MVIT.PATCH_STRIDE": [8, 8],
    "MVIT.PATCH_PADDING": [0, 0],
    "MVIT.POOL_Q_STRIDE": [],
    "MVIT.POOL_KVQ_KERNEL": None,
    "MVIT.POOL_KV_STRIDE_ADAPTIVE": None,
    "MVIT.USE_ABS_POS": True,
    "MVIT.REL_POS_SPATIAL": False,
    "MVIT.REL_POS_TEMPORAL": False,
    "MVIT.RESIDUAL_POOLING": False,
}
KINDS = {
    "vq": VQ,
    "vq directions": {
        **VQ,
        "TOKENIZER.CODEBOOK": "direction",
        "TOKENIZER.DISTANCE": "cosine",
        "TOKENIZER.RESTART_AFTER": 2,
    },
    "vq gradient": {**VQ, "TOKENIZER.CODEBOOK": "gradient"},
    "dvae": DVAE,
    "dalle": DALLE,
    "vqgan": VQGAN,
}
ONE_EPOCH = {"SOLVER.MAX_EPOCH": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_videos(tmp_path_factory.mktemp("data"), num_videos=8)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A VQ tokenizer of 8x8 pixels a code, trained for two epochs."""
    output = tmp_path_factory.mktemp("tokenizer")
    done = run(data, output, VQ)
    assert done.returncode == 0, done.stderr
    return output


def test_a_training_shows_the_use_of_its_codes(trained):
    first, last = events(trained, "validation")
    assert last["loss"] > 0
    assert last["loss"] < first["loss"]
    assert 0 < last["usage"] <= 100
    assert 1 <= last["perplexity"] <= 16
    (_, second) = events(trained, "epoch")
    assert 0 < second["usage"] <= 100
    for picture in ("curves.png", "predictions.png"):
        assert (trained / picture).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind == "dvae" else pytest.mark.slow) for kind in KINDS]
)
def test_a_killed_training_goes_on_as_if_nothing_had_happened(data, tmp_path, kind):
    whole, output = tmp_path / "whole", tmp_path / "killed"
    assert run(data, whole, KINDS[kind]).returncode == 0
    kill_and_resume(data, output, KINDS[kind])
    assert_same_training(output, whole, "tok")


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS])
def test_two_processes_equal_one_and_parts_equal_the_batch(data, tmp_path, kind):
    one, two, parts = (tmp_path / name for name in ("one", "two", "parts"))
    options = KINDS[kind]
    assert run(data, one, options).returncode == 0
    done = run_two_processes(data, two, options)
    assert done.returncode == 0, done.stderr
    assert run(data, parts, options, {"TRAIN.ACCUMULATION_STEPS": 2}).returncode == 0
    for output in (two, parts):
        assert losses(output) == pytest.approx(losses(one), rel=1e-4)
        last, expected = (events(folder, "validation")[-1] for folder in (output, one))
        for name in ("loss", "usage", "perplexity"):
            assert last[name] == pytest.approx(expected[name], rel=1e-3), name


def test_masked_tokens_are_predicted_as_codes(data, trained, tmp_path):
    options = {"MASK.TARGET": "tokens", "TOKENIZER.CHECKPOINT": last_checkpoint(trained, "tok")}
    done = run(data, tmp_path, PRETRAINING, ONE_EPOCH, options)
    assert done.returncode == 0, done.stderr
    (validation,) = events(tmp_path, "validation")
    assert validation["loss"] > 0
    assert 0 < validation["baseline"] <= 2.78  # the entropy of 16 codes is at most log(16)
    assert 0 <= validation["accuracy"] <= 100
    assert (tmp_path / "predictions.png").read_bytes().startswith(b"\x89PNG")
    state = load_checkpoint(last_checkpoint(tmp_path))["task_state"]
    assert not any(isinstance(value, torch.Tensor) for value in state.values())


def test_a_tokenizer_sees_the_same_crop_in_its_own_size(data, trained, tmp_path):
    options = {
        "MASK.TARGET": "tokens",
        "TOKENIZER.CHECKPOINT": last_checkpoint(trained, "tok"),
        "TOKENIZER.CROP_SIZE": 64,  # 2 x 2 codes for each of 4 x 4 tokens
        "DATA.TRAIN_JITTER_SCALES_RELATIVE": [0.5, 1.0],
        "MASK.TIME_STRIDE_LOSS": False,
    }
    done = run(data, tmp_path, PRETRAINING, ONE_EPOCH, options)
    assert done.returncode == 0, done.stderr
    weights = load_checkpoint(last_checkpoint(tmp_path))["model_state"]
    assert weights["pred_head.projections.0.weight"].shape[0] == 2 * 2 * 2 * 16
    (validation,) = events(tmp_path, "validation")
    assert 0 < validation["baseline"] <= 2.78


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"TOKENIZER.CHECKPOINT": ""},
            "TOKENIZER.CHECKPOINT must be the checkpoint of a tokenizer",
        ),
        ({"TOKENIZER.CROP_SIZE": 24}, "must have a whole number of codes of 8 pixels"),
        ({"TOKENIZER.CROP_SIZE": 20}, "must have a whole number of codes of 8 pixels"),
    ],
)
def test_what_does_not_fit_is_one_line(data, trained, tmp_path, options, message):
    tokens = {"MASK.TARGET": "tokens", "TOKENIZER.CHECKPOINT": last_checkpoint(trained, "tok")}
    done = run(data, tmp_path, PRETRAINING, ONE_EPOCH, tokens, options)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]


@pytest.fixture(scope="module")
def image_teacher(tmp_path_factory):
    return save_teacher(tmp_path_factory.mktemp("teacher"), "img_vit")


def test_a_perceptual_distance_is_part_of_the_loss(data, image_teacher, tmp_path):
    options = {
        "TOKENIZER.PERCEPTUAL_WEIGHT": 0.5,
        "TOKENIZER.PERCEPTUAL_CHECKPOINT": image_teacher,
        "TOKENIZER.PERCEPTUAL_LAYERS": ["blocks.0", "blocks.2"],
    }
    done = run(data, tmp_path, VQ, ONE_EPOCH, options)
    assert done.returncode == 0, done.stderr
    (validation,) = events(tmp_path, "validation")
    assert validation["perceptual"] > 0
    assert validation["loss"] > validation["reconstruction"] + 0.49 * validation["perceptual"]
    unknown = {**options, "TOKENIZER.PERCEPTUAL_LAYERS": ["blocks.3"]}
    done = run(data, tmp_path / "unknown", VQ, unknown)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert "TOKENIZER.PERCEPTUAL_LAYERS" in last
    assert "blocks.3" in last


def test_a_tokenizer_reconstructs_the_features_of_a_teacher(data, image_teacher, tmp_path):
    options = {"TOKENIZER.RECONSTRUCTION": "features", "MASK.TEACHER_CHECKPOINT": image_teacher}
    done = run(data, tmp_path, VQ, options)
    assert done.returncode == 0, done.stderr
    first, last = events(tmp_path, "validation")
    assert last["reconstruction"] < first["reconstruction"] <= 2  # one minus a cosine
    assert not (tmp_path / "predictions.png").exists()


@pytest.mark.parametrize("options", [DALLE, VQGAN, VQKD], ids=["dalle", "vqgan", "vit"])
def test_published_networks_are_trained_and_their_codes_predicted(
    data, image_teacher, tmp_path, options
):
    """The codes of a teacher's features are predicted without the teacher, and not drawn."""
    of_features = options is VQKD
    teacher = tmp_path / "teacher.pyth"
    teacher.write_bytes(image_teacher.read_bytes())
    features = {"MASK.TEACHER_CHECKPOINT": teacher} if of_features else {}
    done = run(data, tmp_path / "tokenizer", options, features)
    assert done.returncode == 0, done.stderr
    first, last = events(tmp_path / "tokenizer", "validation")
    assert last["loss"] < first["loss"]
    teacher.unlink()
    options = {
        "MASK.TARGET": "tokens",
        "TOKENIZER.CHECKPOINT": last_checkpoint(tmp_path / "tokenizer", "tok"),
    }
    done = run(data, tmp_path, PRETRAINING, ONE_EPOCH, options)
    assert done.returncode == 0, done.stderr
    (validation,) = events(tmp_path, "validation")
    assert 0 < validation["baseline"] <= 2.78
    assert (tmp_path / "predictions.png").exists() != of_features


def _save_part(path, network):
    """A published file: weights under their own names, without a configuration."""
    return save_checkpoint(path, fill_with_golden_weights(network).state_dict())


def test_published_files_of_dalle_give_codes_and_pictures(data, tmp_path):
    encoder = _save_part(
        tmp_path / "encoder.pth",
        tokenizers.DalleEncoder((4, 8, 8, 16), num_blocks=1, out_channels=16),
    )
    decoder = _save_part(
        tmp_path / "decoder.pth",
        tokenizers.DalleDecoder(16, 4, (16, 8, 8, 4), num_blocks=1, out_channels=6),
    )
    file = write_yaml(tmp_path / "dalle.yaml", {**DALLE, "DATA.TRAIN_CROP_SIZE": 32})
    options = {
        "MASK.TARGET": "tokens",
        "TOKENIZER.CHECKPOINT": encoder,
        "TOKENIZER.CFG": file,
    }
    for name, more in {"alone": {}, "both": {"TOKENIZER.DECODER_CHECKPOINT": decoder}}.items():
        done = run(data, tmp_path / name, PRETRAINING, ONE_EPOCH, options, more)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / name / "predictions.png").exists() == bool(more)
    assert losses(tmp_path / "alone") == losses(tmp_path / "both")
    # A decoder does not change what is predicted, so a training may go on with one.
    done = run(data, tmp_path / "alone", PRETRAINING, options, more)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "alone" / "predictions.png").exists()


def test_a_tokenizer_starts_from_a_published_file(data, tmp_path):
    options = {"num_blocks": 1, "attends": True}
    vqgan = tokenizers.VQGAN(
        tokenizers.VQGANEncoder((32,) * 4, out_channels=4, **options),
        tokenizers.LearnedQuantizer(16, 4),
        tokenizers.VQGANDecoder(4, (32,) * 4, out_channels=3, **options),
        reconstruction=tokenizers.PixelReconstruction("l2"),
    )
    state = fill_with_golden_weights(vqgan).state_dict()
    state["quantize.embedding.weight"] = state["quantizer.codebook"]
    theirs = {name: value for name, value in state.items() if not name.startswith("quantizer.")}
    path = save_checkpoint(tmp_path / "last.pth", {"state_dict": theirs})
    start = {"TRAIN.CHECKPOINT_FILE_PATH": path, "TRAIN.CHECKPOINT_MIN_COVERAGE": 1.0}
    done = run(data, tmp_path / "run", VQGAN, ONE_EPOCH, start, {"SOLVER.BASE_LR": 1e-12})
    assert done.returncode == 0, done.stderr
    trained = load_checkpoint(last_checkpoint(tmp_path / "run", "tok"))["model_state"]
    for name, value in vqgan.state_dict().items():
        if value.is_floating_point():
            assert torch.allclose(trained[name], value, atol=1e-4), name


def test_a_checkpoint_of_another_model_is_named(data, tmp_path):
    assert run(data, tmp_path, PRETRAINING, ONE_EPOCH).returncode == 0
    options = {"MASK.TARGET": "tokens", "TOKENIZER.CHECKPOINT": last_checkpoint(tmp_path)}
    done = run(data, tmp_path / "tokens", PRETRAINING, ONE_EPOCH, options)
    assert done.returncode == 2
    assert "MODEL.MODEL_NAME 'Tokenizer'" in done.stderr.splitlines()[-1]


def test_an_unused_codebook_is_a_warning(data, tmp_path):
    done = run(data, tmp_path, VQ, {"TOKENIZER.MIN_USAGE": 1.0, "TOKENIZER.NUM_CODES": 500})
    assert done.returncode == 0, done.stderr
    warnings = [line for line in done.stderr.splitlines() if "TOKENIZER.MIN_USAGE 100%" in line]
    num_epochs = len(events(tmp_path, "epoch"))
    assert len(warnings) == num_epochs  # the last one, which counts for the result, too
    assert all(f"epoch {n} used" in line for n, line in enumerate(warnings, 1))
