"""Files of mmaction2: their names, what is read of them, the way back, and the command."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.golden_rule import golden_json, golden_randn, relative_error
from helpers.hugging_face import foreign_state
from helpers.load_tool import run_tool
from helpers.published_files import write_yaml
from helpers.tiny_run import pairs
from torch import Tensor, nn

from slowfast_maskfeat.builders import build_model
from slowfast_maskfeat.builders.weights import model_facts
from slowfast_maskfeat.checkpoints import load_weights, save_checkpoint
from slowfast_maskfeat.checkpoints.naming import NAMINGS, ModelFacts, recognize
from slowfast_maskfeat.checkpoints.naming.videomae import sinusoid_positions
from slowfast_maskfeat.checkpoints.report import LoadError
from slowfast_maskfeat.config import load_config

NAMING = NAMINGS["mmaction"]
MVIT = {
    "DATA.NUM_FRAMES": 4,
    "DATA.TRAIN_CROP_SIZE": 32,
    "MODEL.NUM_CLASSES": 5,
    "MVIT.EMBED_DIM": 8,
    "MVIT.DEPTH": 2,
    "MVIT.PATCH_PADDING": [1, 3, 3],
    "MVIT.POOL_KVQ_KERNEL": [3, 3, 3],
    "MVIT.REL_POS_SPATIAL": True,
    "MVIT.REL_POS_TEMPORAL": True,
    "MVIT.USE_ABS_POS": False,
    "MVIT.RESIDUAL_POOLING": True,
    "MVIT.DIM_MUL_IN_ATT": True,
    "MVIT.DIM_MUL": [[1, 2.0]],
    "MVIT.HEAD_MUL": [[1, 2.0]],
    "MVIT.POOL_Q_STRIDE": [[0, 1, 1, 1], [1, 1, 2, 2]],
    "MVIT.POOL_KV_STRIDE_ADAPTIVE": [1, 2, 2],
}
VIT = {
    "DATA.NUM_FRAMES": 4,
    "DATA.TRAIN_CROP_SIZE": 32,
    "MODEL.NUM_CLASSES": 5,
    "MVIT.EMBED_DIM": 32,
    "MVIT.NUM_HEADS": 2,
    "MVIT.DEPTH": 1,
    "MVIT.PATCH_KERNEL": [2, 16, 16],
    "MVIT.PATCH_STRIDE": [2, 16, 16],
    "MVIT.PATCH_PADDING": [0, 0, 0],
    "MVIT.CLS_EMBED_ON": False,
    "MVIT.USE_MEAN_POOLING": True,
}
NO_CLASS_TOKEN = {"MVIT.CLS_EMBED_ON": False}
BOTH = ("weight", "bias")


def made(options: dict[str, Any]) -> tuple[nn.Module, ModelFacts]:
    cfg = load_config([], pairs(options))
    model = build_model(cfg)
    return model, model_facts(cfg, model)


def in_their_names(options: dict[str, Any]) -> dict[str, Tensor]:
    model, facts = made(options)
    return NAMING.from_published(model.state_dict(), facts)


def as_published_there(weights: dict[str, Tensor], path: Path) -> Path:
    """A file as mmaction2 writes it."""
    meta = {"epoch": 3, "cfg": "model = dict()", "dataset_meta": {"classes": ("a", "b")}}
    return save_checkpoint(path, {"meta": meta, "state_dict": weights})


def names_of_mvit(num_blocks: int, *, widened: int, stage: int) -> set[str]:
    attention = ["qkv", "proj", *(f"norm_{name}" for name in "qkv")]
    modules = ["patch_embed.projection", f"norm{stage}", f"blocks.{widened}.proj"]
    single = ["cls_token"]
    for number in range(num_blocks):
        front = f"blocks.{number}"
        modules += [f"{front}.{part}" for part in ("norm1", "norm2", "mlp.fc1", "mlp.fc2")]
        modules += [f"{front}.attn.{part}" for part in attention]
        single += [f"{front}.attn.rel_pos_{axis}" for axis in "thw"]
        single += [f"{front}.attn.pool_{name}.weight" for name in "qkv"]
    names = [*single, *(f"{module}.{last}" for module in modules for last in BOTH)]
    return {f"backbone.{name}" for name in names} | {f"cls_head.fc_cls.{last}" for last in BOTH}


@pytest.mark.parametrize(("in_attention", "widened"), [(True, 1), (False, 0)])
@pytest.mark.parametrize("others", [{}, NO_CLASS_TOKEN])
def test_the_names_of_an_mvit(in_attention: bool, widened: int, others: dict[str, Any]) -> None:
    """Its class token is in files even if it is not used."""
    theirs = in_their_names({**MVIT, "MVIT.DIM_MUL_IN_ATT": in_attention, **others})
    assert theirs.keys() == names_of_mvit(2, widened=widened, stage=1)
    assert theirs["backbone.norm1.weight"].shape == (16,)
    assert bool(theirs["backbone.cls_token"].any()) == (not others)


def test_the_names_of_a_vit() -> None:
    block = ("norm1", "norm2", "attn.proj", "mlp.layers.0.0", "mlp.layers.1")
    modules = ["patch_embed.projection", "fc_norm", *(f"blocks.0.{part}" for part in block)]
    single = [
        "pos_embed",
        *(f"blocks.0.attn.{name}" for name in ("qkv.weight", "q_bias", "v_bias")),
    ]
    names = [*single, *(f"{module}.{last}" for module in modules for last in BOTH)]
    expected = {f"backbone.{name}" for name in names} | {f"cls_head.fc_cls.{x}" for x in BOTH}
    assert in_their_names(VIT).keys() == expected
    scaled = in_their_names({**VIT, "MVIT.LAYER_SCALE": 0.1})
    assert scaled.keys() - expected == {"backbone.blocks.0.gamma_1", "backbone.blocks.0.gamma_2"}


@pytest.mark.parametrize("positions", [{}, {"MVIT.USE_ABS_POS": True}])
@pytest.mark.parametrize("class_token", [{}, NO_CLASS_TOKEN])
@pytest.mark.parametrize("in_attention", [True, False])
def test_an_mvit_there_and_back(
    in_attention: bool, class_token: dict[str, Any], positions: dict[str, Any]
) -> None:
    options = {**MVIT, "MVIT.DIM_MUL_IN_ATT": in_attention, **class_token, **positions}
    check_there_and_back(options)


@pytest.mark.parametrize(
    "others", [{}, {"MVIT.LAYER_SCALE": 0.1}, {"MVIT.USE_FIXED_SINCOS_POS": True}]
)
def test_a_vit_there_and_back(others: dict[str, Any]) -> None:
    check_there_and_back({**VIT, **others})


def check_there_and_back(options: dict[str, Any]) -> None:
    model, facts = made(options)
    for name, value in model.named_parameters():
        if facts.mean_pooling and name.endswith(".attn.qkv.bias"):
            nn.init.zeros_(value.data[32:64])  # of the keys, which the ViT there does not have
    theirs = NAMING.from_published(model.state_dict(), facts)
    assert recognize(theirs) == "mmaction"
    back = NAMING.to_published(theirs, facts)
    assert back.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(back[name], value), name


@pytest.mark.parametrize("options", [MVIT, VIT])
def test_a_backbone_alone_has_no_prefix(options: dict[str, Any]) -> None:
    model, facts = made(options)
    bare = {
        name.removeprefix("backbone."): value
        for name, value in NAMING.from_published(model.state_dict(), facts).items()
        if name.startswith("backbone.")
    }
    assert recognize(bare) == "mmaction"
    read = NAMING.to_published(bare, facts)
    assert read.keys() == {name for name in model.state_dict() if not name.startswith("head.")}


def test_networks_of_images_are_not_recognized() -> None:
    theirs = in_their_names(MVIT)
    for change in ("backbone.patch_embed.projection.weight", "backbone.blocks.0.norm1.weight"):
        other = {name: value for name, value in theirs.items() if name != change}
        other |= {change: torch.zeros(8, 3, 7, 7)} if "patch_embed" in change else {}
        assert recognize(other) == ""


@pytest.mark.parametrize("options", [MVIT, VIT])
@pytest.mark.parametrize("prefix", ["backbone.", ""])
def test_the_error_of_a_training_names_the_command(
    options: dict[str, Any], prefix: str, tmp_path: Path
) -> None:
    weights = {
        re.sub(r"^backbone\.", prefix, name): value
        for name, value in in_their_names(options).items()
    }
    path = as_published_there(weights, tmp_path / "theirs.pth")
    message = r"look like those of mmaction2; convert it with maskfeat convert --cfg CFG "
    with pytest.raises(LoadError, match=message):
        load_weights(made(options)[0], path)


@pytest.mark.parametrize(("name", "options"), [("mvit_attention", MVIT), ("vit", VIT)])
def test_the_command_reads_and_writes(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    """A file as mmaction2 writes it gives its outputs, and is written again."""
    state, golden = foreign_state(f"mmaction_{name}"), golden_json(f"foreign/mmaction_{name}.json")
    source = as_published_there(state, tmp_path / "theirs.pth")
    of_size = {"DATA.NUM_FRAMES": 8, "DATA.TRAIN_CROP_SIZE": golden["input_shape"][-1]}
    grown: dict[str, Any] = {"MVIT.DEPTH": 3, "MVIT.LAYER_SCALE": 0.1}
    if name == "mvit_attention":
        grown = {
            "MVIT.EMBED_DIM": 16,
            "MVIT.DEPTH": 4,
            "MVIT.DIM_MUL": [[1, 2.0], [3, 2.0]],
            "MVIT.HEAD_MUL": [[1, 2.0], [3, 2.0]],
            "MVIT.POOL_Q_STRIDE": [[0, 1, 1, 1], [1, 1, 2, 2], [2, 1, 1, 1], [3, 1, 2, 2]],
            "MVIT.POOL_KV_STRIDE_ADAPTIVE": [1, 4, 4],
        }
    model = {**options, **of_size, **grown}
    config = write_yaml(tmp_path / "model.yaml", model)
    words = ["tools/convert_checkpoint.py", "--cfg", config]
    ours, again = tmp_path / "ours.pyth", tmp_path / "again.pth"
    done = run_tool(*words, "--checkpoint", source, "--output", ours)
    assert done.returncode == 0, done.stderr
    assert "100.0% of the backbone" in done.stdout
    network, _ = made({**model, "MODEL.NUM_CLASSES": 10})
    load_weights(network.eval(), ours, complete=True)
    with torch.no_grad():
        logits = network(golden_randn(1000, tuple(golden["input_shape"])))
    assert relative_error(logits, golden["logits"]) < 1e-5
    done = run_tool(*words, "--checkpoint", ours, "--output", again, "--to", "mmaction")
    assert done.returncode == 0, done.stderr
    written = torch.load(again, weights_only=True)
    assert written.keys() == state.keys()
    assert all(torch.equal(written[key], value) for key, value in state.items())


def test_the_norm_of_the_last_stage_is_read() -> None:
    """Those of other stages are there for dense predictions, and have no place here."""
    model, facts = made(MVIT)
    theirs = NAMING.from_published(model.state_dict(), facts)
    theirs |= {f"backbone.norm0.{last}": torch.zeros(8) for last in BOTH}
    read = NAMING.to_published(theirs, facts)
    assert read.keys() - model.state_dict().keys() == {"norm0.weight", "norm0.bias"}
    assert torch.equal(read["norm.weight"], model.state_dict()["norm.weight"])


@pytest.mark.parametrize(
    ("written", "read", "message"),
    [
        (MVIT, {**MVIT, "MVIT.USE_MEAN_POOLING": True}, "but this one normalizes the mean"),
        (MVIT, {**MVIT, **NO_CLASS_TOKEN}, "the class token; set MVIT.CLS_EMBED_ON True"),
        ({**MVIT, **NO_CLASS_TOKEN}, MVIT, "is zero; set MVIT.CLS_EMBED_ON False"),
    ],
)
def test_a_head_is_not_read_for_other_tokens(
    written: dict[str, Any], read: dict[str, Any], message: str
) -> None:
    theirs, (model, facts) = in_their_names(written), made(read)
    with pytest.raises(ValueError, match=message):
        NAMING.to_published(theirs, facts)
    backbone = {name: value for name, value in theirs.items() if not name.startswith("cls_head.")}
    found = NAMING.to_published(backbone, facts)
    assert found.keys() == {name for name in model.state_dict() if not name.startswith("head.")}


def test_positions_that_a_file_lacks_are_the_fixed_ones() -> None:
    _, facts = made(VIT)
    theirs = in_their_names(VIT)
    del theirs["backbone.pos_embed"]
    read = NAMING.to_published(theirs, facts)
    assert torch.equal(read["pos_embed"], sinusoid_positions(8, 32))


def test_a_vit_that_classifies_its_first_patch_is_refused() -> None:
    """The backbone of a detector has the same norm, which follows all tokens."""
    _, facts = made(VIT)
    theirs = {name.replace("fc_norm", "norm"): x for name, x in in_their_names(VIT).items()}
    with pytest.raises(ValueError, match="classifies its first patch"):
        NAMING.to_published(theirs, facts)
    backbone = {name: value for name, value in theirs.items() if not name.startswith("cls_head.")}
    assert "norm.weight" in NAMING.to_published(backbone, facts)


def test_one_bias_without_the_other_is_an_error() -> None:
    _, facts = made(VIT)
    theirs = in_their_names(VIT)
    del theirs["backbone.blocks.0.attn.v_bias"]
    with pytest.raises(ValueError, match="it is incomplete"):
        NAMING.to_published(theirs, facts)
