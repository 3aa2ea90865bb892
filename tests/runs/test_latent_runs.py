"""Prediction of EMA latents, from end to end."""

from __future__ import annotations

import pytest
import torch
from helpers.load_tool import run_tool
from helpers.tiny_run import (
    FINETUNING,
    MODEL,
    PRETRAINING,
    assert_same_training,
    events,
    kill_and_resume,
    last_checkpoint,
    losses,
    make_videos,
    pairs,
    run,
    run_two_processes,
)

from slowfast_maskfeat import from_pretrained
from slowfast_maskfeat.builders import build_model
from slowfast_maskfeat.checkpoints import load_checkpoint, save_checkpoint
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.runs.predictions import load_networks

PREFIX = "targets.0.teacher.teacher.network."
ONE_EPOCH = {"SOLVER.MAX_EPOCH": 1}
TOKENS = {**PRETRAINING, "MASK.TARGET": "latents", "MASK.TEACHER_MOMENTUM": [0.9, 1.0]}
VIT = {
    **TOKENS,
    "MVIT.PATCH_KERNEL": [2, 8, 8],
    "MVIT.PATCH_STRIDE": [2, 8, 8],
    "MVIT.PATCH_PADDING": [0, 0, 0],
    "MVIT.POOL_Q_STRIDE": [],
    "MVIT.POOL_KVQ_KERNEL": None,
    "MVIT.POOL_KV_STRIDE_ADAPTIVE": None,
    "MVIT.RESIDUAL_POOLING": False,
    "MVIT.REL_POS_SPATIAL": False,
    "MVIT.REL_POS_TEMPORAL": False,
    "MVIT.USE_FIXED_SINCOS_POS": True,
    "MVIT.EMBED_DIM": 32,
    "MVIT.NUM_HEADS": 2,
    "MVIT.CLS_EMBED_ON": False,
}
VISIBLE = {
    **VIT,
    "MASK.MAE_ON": True,
    "MASK.HEAD_TYPE": "separate_xformer",
    "MASK.DECODER_DEPTH": 1,
    "MASK.DECODER_EMBED_DIM": 16,
    "MASK.DECODER_NUM_HEADS": 2,
    "MASK.DECODER_FIXED_SINCOS_POS": True,
    "MASK.FEATURE_LOSS": "l1",
    "AUG.MASK_KIND": "multiblock",
    "AUG.MASK_RATIO": 0.0,
    "AUG.MASK_BLOCKS": [[2, 0.25], [1, 0.6]],
}
FORMS = [pytest.param(TOKENS, id="tokens"), pytest.param(VISIBLE, id="visible")]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_videos(tmp_path_factory.mktemp("data"), num_videos=8, num_classes=2)


@pytest.fixture(scope="module", params=FORMS)
def trained(request, data, tmp_path_factory):
    """The options and folder of a pre-training of two epochs."""
    output = tmp_path_factory.mktemp("whole")
    done = run(data, output, request.param)
    assert done.returncode == 0, done.stderr
    return request.param, output


@pytest.mark.parametrize(("options", "num_layers"), [(TOKENS, 1), (VIT, 2)])
def test_a_teacher_that_stays_gives_the_loss_of_features(data, tmp_path, options, num_layers):
    hog = {**options, "MASK.TARGET": "hog"}
    assert run(data, tmp_path / "hog", hog, ONE_EPOCH).returncode == 0
    path = last_checkpoint(tmp_path / "hog")
    start = {
        "TRAIN.CHECKPOINT_FILE_PATH": path,
        "TRAIN.CHECKPOINT_EPOCH_RESET": True,
        "MASK.FEATURE_LOSS": "cosine",
        "MASK.TEACHER_NUM_LAYERS": num_layers,
        "TRAIN.CHECKPOINT_MIN_COVERAGE": 0.9,  # two blocks, without the last norm
    }
    targets = {
        "latents": {"MASK.TARGET": "latents", "MASK.TEACHER_MOMENTUM": [1, 1]},
        "features": {"MASK.TARGET": "features", "MASK.TEACHER_CHECKPOINT": path},
    }
    for name, target in targets.items():
        done = run(data, tmp_path / name, options, start, target)
        assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "latents") == losses(tmp_path / "features")
    ours, theirs = (
        load_checkpoint(last_checkpoint(tmp_path / name))["model_state"] for name in targets
    )
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert value.equal(ours[name]), name


def test_the_last_norm_of_the_start_is_that_of_the_teacher(data, tmp_path):
    """A masked model with mask tokens has no last norm, so that only the teacher loads it."""
    class_token = {"MVIT.CLS_EMBED_ON": True, "MVIT.USE_MEAN_POOLING": False}
    cfg = load_config([], pairs(MODEL, FINETUNING, class_token))
    torch.manual_seed(1)
    first = build_model(cfg).state_dict()
    weights = {name: value + 0.1 * torch.randn_like(value) for name, value in first.items()}
    masked = build_model(load_config([], pairs(MODEL, TOKENS)))
    assert not any(name.startswith("norm.") for name in masked.state_dict())
    path = save_checkpoint(tmp_path / "with.pyth", {"model_state": weights, "cfg": cfg.dump()})
    cosine = {"MASK.FEATURE_LOSS": "cosine", "TRAIN.CHECKPOINT_MIN_COVERAGE": 0.9, **ONE_EPOCH}
    latents = {"TRAIN.CHECKPOINT_FILE_PATH": path, "MASK.TEACHER_MOMENTUM": [1, 1]}
    features = {**latents, "MASK.TARGET": "features", "MASK.TEACHER_CHECKPOINT": path}
    for name, options in {"latents": latents, "features": features}.items():
        done = run(data, tmp_path / name, TOKENS, cosine, options)
        assert done.returncode == 0, done.stderr
        assert "the teacher keeps" not in done.stderr
    assert losses(tmp_path / "latents") == losses(tmp_path / "features")
    teacher = load_checkpoint(last_checkpoint(tmp_path / "latents"))["task_state"]
    for name in ("norm.weight", "norm.bias", "blocks.0.attn.proj.weight", "blocks.1.norm1.bias"):
        assert teacher[PREFIX + name].equal(weights[name]), name

    bare = {name: value for name, value in weights.items() if not name.startswith("norm.")}
    path = save_checkpoint(tmp_path / "without.pyth", {"model_state": bare})
    done = run(data, tmp_path / "none", TOKENS, cosine, {"TRAIN.CHECKPOINT_FILE_PATH": path})
    assert done.returncode == 0, done.stderr
    said = "without.pyth has no norm.weight, norm.bias: the teacher keeps its initial values"
    assert said in done.stderr
    teacher = load_checkpoint(last_checkpoint(tmp_path / "none"))["task_state"]
    for name in ("norm.weight", "norm.bias"):
        assert teacher[PREFIX + name].equal(first[name])  # the same for any seed


def test_the_teacher_moves_and_is_measured(trained):
    _, output = trained
    content = load_checkpoint(last_checkpoint(output))
    state = content["model_state"]
    teacher = {
        name.removeprefix(PREFIX): value
        for name, value in content["task_state"].items()
        if name.startswith(PREFIX)
    }
    assert content["teacher_prefix"] == PREFIX
    moved = [name for name in teacher if name in state and name.startswith("blocks.")]
    assert moved
    assert any(not teacher[name].equal(state[name]) for name in moved)
    assert not any(name.startswith(("pred_head", "mask_token", "head")) for name in teacher)
    assert [event["epoch"] for event in events(output, "monitor")] == [0, 2]
    assert all(event["rank"] > 1 for event in events(output, "monitor"))
    assert (output / "predictions.png").read_bytes().startswith(b"\x89PNG")


def test_a_killed_run_goes_on_as_if_nothing_had_happened(data, trained, tmp_path):
    options, whole = trained
    kill_and_resume(data, tmp_path, options)
    assert_same_training(tmp_path, whole)


def test_the_checkpoint_goes_by_its_path_alone(data, trained, tmp_path):
    options, output = trained
    path = last_checkpoint(output)
    content = load_checkpoint(path)
    backbone = {name: options[name] for name in options if name.startswith("MVIT.")}
    finetuning = {**FINETUNING, **backbone, **ONE_EPOCH, "TEST.ENABLE": False}
    started = {"TRAIN.CHECKPOINT_FILE_PATH": path, "SOLVER.BASE_LR": 1e-20}
    done = run(data, tmp_path / "ft", finetuning, started, {
        "MODEL.NUM_CLASSES": 2, "SOLVER.WARMUP_START_LR": 1e-20, "SOLVER.WEIGHT_DECAY": 0.0,
        "TRAIN.CHECKPOINT_EPOCH_RESET": True,
    })  # fmt: skip
    assert done.returncode == 0, done.stderr
    tuned = load_checkpoint(last_checkpoint(tmp_path / "ft", "ssl_eval"))["model_state"]
    name = "blocks.0.attn.proj.weight"
    assert torch.allclose(tuned[name], content["task_state"][PREFIX + name])
    assert not torch.allclose(tuned[name], content["model_state"][name])
    done = run(data, output, options, {"PROBE.KIND": "knn", "PROBE.NUM_NEIGHBORS": 3})
    assert done.returncode == 0, done.stderr
    (probe,) = events(output, "probe")
    assert probe["checkpoint"] == str(path)
    model = from_pretrained(path)
    assert model.state_dict()[name].equal(content["task_state"][PREFIX + name])


def test_predictions_are_drawn_against_the_teacher_of_the_checkpoint(data, trained, tmp_path):
    _, output = trained
    path = tmp_path / "predictions.png"
    words = ["--checkpoint", last_checkpoint(output), "--input", data / "0.mp4", "--output", path]
    done = run_tool("tools/visualize.py", *words)
    assert done.returncode == 0, done.stderr
    assert path.read_bytes().startswith(b"\x89PNG")
    (network,) = load_networks(
        [str(last_checkpoint(output))], [], device="cpu", config_file=None, pairs=[]
    )
    content = load_checkpoint(last_checkpoint(output))
    name = "blocks.0.attn.proj.weight"
    assert network.model.state_dict()[name].equal(content["model_state"][name])
    teacher = network.task.teacher.network.state_dict()
    assert teacher[name].equal(content["task_state"][PREFIX + name])


@pytest.mark.slow
@pytest.mark.parametrize("options", FORMS)
def test_two_processes_equal_one_and_parts_equal_the_batch(data, tmp_path, options):
    still = {**options, **ONE_EPOCH, "MVIT.DROPPATH_RATE": 0.0}
    one, two, parts = (tmp_path / name for name in ("one", "two", "parts"))
    assert run(data, one, still).returncode == 0
    done = run_two_processes(data, two, still)
    assert done.returncode == 0, done.stderr
    assert run(data, parts, still, {"TRAIN.ACCUMULATION_STEPS": 2}).returncode == 0
    expected = load_checkpoint(last_checkpoint(one))["task_state"]
    for other in (two, parts):
        assert losses(other) == pytest.approx(losses(one), rel=1e-5)
        for name, value in load_checkpoint(last_checkpoint(other))["task_state"].items():
            if isinstance(value, torch.Tensor):
                assert torch.allclose(value, expected[name], atol=1e-5), name
