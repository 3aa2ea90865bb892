"""Frozen blocks: what is trained, what stays as it is, and what is refused before a step."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny_cases import config_of, tiny_options
from helpers.tiny_run import (
    FINETUNING,
    MODEL,
    PRETRAINING,
    events,
    last_checkpoint,
    losses,
    make_videos,
    pairs,
    run,
    run_two_processes,
)
from helpers.toy_backbone import ToyBackbone
from torch import nn

from slowfast_maskfeat.backbones import Classifier
from slowfast_maskfeat.builders import build_model, build_optimizer
from slowfast_maskfeat.builders.freezing import check_frozen_blocks, freeze_blocks
from slowfast_maskfeat.checkpoints import find_checkpoints, load_checkpoint
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.frozen import evaluating

CASES = ("v2_ft_nocls", "img_vit_ft", "v1_sep", "v1_normstem", "vid_vit_sincos")
DROPS = {"MVIT__DROPPATH_RATE": 0.5, "MVIT__DROPOUT_RATE": 0.5}


def _case(name: str, number: int, **changes):
    options = tiny_options(name, **DROPS, **changes)
    cfg = config_of({**options, "TRAIN.FREEZE_BLOCKS": number})
    torch.manual_seed(0)
    model = build_model(cfg)
    check_frozen_blocks(cfg)
    freeze_blocks(cfg, model)
    return cfg, model


def _trained(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def _is_of_first(name: str, number: int) -> bool:
    """Whether a parameter is before the blocks or in one of the first."""
    first, _, rest = name.partition(".")
    if first == "blocks":
        return int(rest.partition(".")[0]) < number
    return first not in ("norm", "head")


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("number", [1, 2, -1])
def test_the_optimizer_has_only_what_is_trained(name, number):
    cfg, model = _case(name, number)
    names = [name for name, _ in model.named_parameters()]
    expected = {name for name in names if not _is_of_first(name, number)}
    if number == -1:
        expected = {name for name in names if name.startswith("head.")}
    assert 0 < len(expected) < len(names)
    assert _trained(model) == expected
    groups = build_optimizer(cfg, model).param_groups
    assert {name for group in groups for name in group["names"]} == expected


def test_layer_decay_counts_from_the_head_as_before():
    cfg, model = _case("v2_ft_nocls", 1, SOLVER__LAYER_DECAY=0.5)
    groups = build_optimizer(cfg, model).param_groups
    scales = {name: group["lr_scale"] for group in groups for name in group["names"]}
    assert scales["head.projection.weight"] == 1
    assert scales["blocks.1.norm1.weight"] == 0.5 ** (cfg.MVIT.DEPTH - 1)


def test_a_shared_table_of_relative_positions_is_frozen_with_the_blocks():
    options = tiny_options("img_vit_ft", MVIT__REL_POS_BIAS="shared")
    cfg = config_of({**options, "TRAIN.FREEZE_BLOCKS": 1})
    model = build_model(cfg)
    freeze_blocks(cfg, model)
    assert [n for n, _ in model.named_parameters() if n.startswith("rel_pos_bias")]
    assert not [name for name in _trained(model) if name.startswith("rel_pos_bias")]


def test_nothing_changes_without_frozen_blocks():
    _, model = _case("v2_ft_nocls", 0)
    assert all(module.training for module in model.modules())
    assert _trained(model) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("number", [2, -1])
def test_frozen_modules_stay_in_evaluation_mode(number):
    cfg, model = _case("v2_ft_nocls", number)
    size = cfg.DATA.TRAIN_CROP_SIZE
    clips = torch.randn(2, 3, cfg.DATA.NUM_FRAMES, size, size)
    modes = [module.training for module in model.modules()]

    def frozen_tokens() -> torch.Tensor:
        tokens, grid = model.embed(clips)
        for index in range(len(model.blocks) if number == -1 else number):
            tokens, grid = model.run_block(index, tokens, grid, None)
        return tokens

    first = frozen_tokens()
    assert not first.requires_grad
    assert frozen_tokens().equal(first)  # neither dropout nor drop path
    with evaluating(model):
        assert not any(module.training for module in model.modules())
        assert frozen_tokens().equal(first)
    assert [module.training for module in model.modules()] == modes
    assert model.head.dropout.training
    if number == 2 and len(model.blocks) > 2:
        assert model.blocks[2].training


def test_a_detector_is_frozen_as_a_classifier_is():
    cfg = config_of({**tiny_options("ava_aligned"), "TRAIN.FREEZE_BLOCKS": 1})
    model = build_model(cfg)
    check_frozen_blocks(cfg)
    freeze_blocks(cfg, model)
    names = {name for name, _ in model.named_parameters()}
    assert _trained(model) == {name for name in names if not _is_of_first(name, 1)}


@pytest.mark.parametrize("number", [1, -1])
def test_a_backbone_from_outside_is_frozen_with_its_batch_norms(number):
    backbone = ToyBackbone()
    backbone.blocks = nn.ModuleList(
        nn.Sequential(nn.Linear(12, 12), nn.Flatten(0, 1), nn.BatchNorm1d(12)) for _ in range(2)
    )
    model = Classifier(backbone, 3)
    freeze_blocks(config_of({"TRAIN.FREEZE_BLOCKS": number}), model)
    trained = _trained(model)
    expected = {"head.projection.weight", "head.projection.bias"}
    if number == 1:
        of_backbone = ("backbone.blocks.1.", "backbone.norm.")
        expected |= {n for n, _ in model.named_parameters() if n.startswith(of_backbone)}
    assert trained == expected
    modes = [block[2].training for block in backbone.blocks]
    assert modes == ([False, True] if number == 1 else [False, False])


@pytest.mark.parametrize("number", [-2, 99])
def test_a_number_beyond_the_depth_is_refused(number):
    options = tiny_options("v2_ft_nocls")
    cfg = config_of({**options, "TRAIN.FREEZE_BLOCKS": number})
    depth = cfg.MVIT.DEPTH
    message = rf"^TRAIN\.FREEZE_BLOCKS must be in \[0, {depth}\] for a network of {depth} blocks"
    with pytest.raises(ValueError, match=rf"{message}, or -1 .* head only, got {number}$"):
        check_frozen_blocks(cfg)


def test_a_pre_training_has_no_frozen_blocks():
    cfg = load_config([], pairs(MODEL, PRETRAINING, {"TRAIN.FREEZE_BLOCKS": 1}))
    with pytest.raises(ValueError, match=r"^TRAIN\.FREEZE_BLOCKS must be 0 for .*MaskMViT.*got 1$"):
        check_frozen_blocks(cfg)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_videos(tmp_path_factory.mktemp("data"))


SHORT = {**FINETUNING, "TEST.ENABLE": False, "SOLVER.WEIGHT_DECAY": 0.1, "LOG_MODEL_INFO": True}


@pytest.fixture(scope="module")
def frozen(data, tmp_path_factory):
    """A training of the second block and the head, from random weights."""
    output = tmp_path_factory.mktemp("frozen")
    done = run(data, output, SHORT, {"TRAIN.FREEZE_BLOCKS": 1})
    assert done.returncode == 0, done.stderr
    return output, done.stderr


def test_a_run_leaves_frozen_weights_as_they_were(data, frozen):
    output, stderr = frozen
    cfg = load_config([], pairs(MODEL, SHORT, {"DATA.PATH_TO_DATA_DIR": data}))
    torch.manual_seed(cfg.RNG_SEED)
    first = build_model(cfg).state_dict()
    content = load_checkpoint(last_checkpoint(output, "ssl_eval"))
    assert content["model_state"].keys() == first.keys()
    for name, weight in content["model_state"].items():
        assert weight.equal(first[name]) == _is_of_first(name, 1), name
    trained = sum(w.numel() for name, w in first.items() if not _is_of_first(name, 1))
    start = events(output, "start")[0]
    assert start["num_trained"] == trained < start["num_parameters"]
    assert f"M parameters ({trained / 1e6:.2f} M trained)" in stderr
    assert "warning: TRAIN.FREEZE_BLOCKS 1: the frozen weights stay random" in stderr


@pytest.mark.parametrize(
    "options",
    [
        {"MODEL.ACT_CHECKPOINT": True},
        {"TRAIN.ACCUMULATION_STEPS": 2},
        pytest.param({"TRAIN.COMPILE": "block"}, marks=pytest.mark.slow),
        pytest.param({"TRAIN.COMPILE": "model"}, marks=pytest.mark.slow),
    ],
)
def test_other_ways_to_compute_give_the_same(data, frozen, tmp_path, options):
    still = {"MODEL.DROPOUT_RATE": 0.0, "MVIT.DROPPATH_RATE": 0.0, "SOLVER.MAX_EPOCH": 1}
    still["TRAIN.FREEZE_BLOCKS"] = 1
    plain, other = tmp_path / "plain", tmp_path / "other"
    for output, further in ((plain, {}), (other, options)):
        done = run(data, output, SHORT, still, further)
        assert done.returncode == 0, done.stderr
    assert losses(other) == pytest.approx(losses(plain), rel=1e-4)


@pytest.mark.slow
def test_two_processes_equal_one(data, tmp_path):
    still = {"MODEL.DROPOUT_RATE": 0.0, "TRAIN.FREEZE_BLOCKS": -1}
    one, two = tmp_path / "one", tmp_path / "two"
    assert run(data, one, SHORT, still).returncode == 0
    done = run_two_processes(data, two, SHORT, still)
    assert done.returncode == 0, done.stderr
    assert "find_unused_parameters" not in done.stderr
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)


def test_another_number_does_not_resume(data, frozen, tmp_path):
    output, _ = frozen
    start = {"TRAIN.CHECKPOINT_FILE_PATH": find_checkpoints(output / "checkpoints", "ssl_eval")[-1]}
    done = run(data, tmp_path, SHORT, start)
    assert done.returncode == 2
    assert "the optimizer must have the parameters of the checkpoint" in done.stderr
    done = run(data, tmp_path, SHORT, start, {"TRAIN.CHECKPOINT_EPOCH_RESET": True})
    assert done.returncode == 0, done.stderr
