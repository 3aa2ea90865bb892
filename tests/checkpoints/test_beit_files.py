"""Files of BEiT's authors: their names, the start of a fine-tuning, and the way back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.documents import ROOT
from helpers.golden_rule import GOLDEN, golden_array
from helpers.tiny_teachers import networks_of, save_tokenizer
from torch import Tensor, nn

from slowfast_maskfeat.builders import build_model
from slowfast_maskfeat.builders.weights import model_facts
from slowfast_maskfeat.checkpoints import LoadReport, load_weights, save_checkpoint
from slowfast_maskfeat.checkpoints.naming import NAMINGS
from slowfast_maskfeat.checkpoints.report import LoadError
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.position_tables import resize_bias_table

NAMES = json.loads((GOLDEN / "method_checkpoint_names.json").read_text())
PRETRAINING, FINETUNING = "in1k_VIT_B_BEiT_PT", "in1k_VIT_B_BEiT_FT"
TABLE = "attn.relative_position_bias_table"
NARROW = {
    "MVIT.DEPTH": 2,
    "MVIT.EMBED_DIM": 32,
    "MVIT.NUM_HEADS": 2,
    "DATA.TRAIN_CROP_SIZE": 64,
    "MODEL.NUM_CLASSES": 5,
}


def configuration(name: str, folder: Path, **changes: Any) -> Any:
    """A configuration of BEiT, with a tokenizer if it needs one; two underscores are a dot."""
    file = str(ROOT / f"configs/masked_ssl/{name}.yaml")
    given = {key.replace("__", "."): value for key, value in changes.items()}
    words = [str(word) for pair in given.items() for word in pair]
    return load_config([file], [*networks_of([file], folder), *words])


def narrow(name: str, folder: Path, **changes: Any) -> Any:
    """The same, of two narrow blocks on 4x4 patches."""
    options = {key.replace(".", "__"): value for key, value in NARROW.items()}
    if name == PRETRAINING:
        options |= {"MASK__PRETRAIN_DEPTH": [1], "TOKENIZER__CROP_SIZE": 32}
    return configuration(name, folder, **{**options, **changes})


def in_their_names(cfg: Any, model: nn.Module) -> dict[str, Tensor]:
    """Weights of a model by the names of BEiT's code."""
    return NAMINGS["beit"].from_published(model.state_dict(), model_facts(cfg, model))


def save_theirs(path: Path, cfg: Any, *, key: str = "model") -> dict[str, Tensor]:
    """Write a file as BEiT's code does, with the weights of the golden rule; returns these."""
    weights = {
        name: torch.from_numpy(golden_array(name, shape=tuple(value.shape)))
        for name, value in in_their_names(cfg, build_model(cfg)).items()
    }
    index = {"rel_pos_bias.relative_position_index": torch.zeros(17, 17, dtype=torch.int64)}
    save_checkpoint(path, {key: {**weights, **index}, "epoch": 7})
    return weights


def load(cfg: Any, path: Path) -> tuple[nn.Module, LoadReport]:
    """A model of the configuration with the weights of a file."""
    model = build_model(cfg)
    return model, load_weights(model, path, min_coverage=0.9)


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        (PRETRAINING, "beit_base_patch16_224_8k_vocab"),
        (FINETUNING, "beit_base_patch16_224_finetune"),
    ],
)
def test_the_models_have_the_names_and_shapes_of_the_authors(
    name: str, theirs: str, tmp_path: Path
) -> None:
    (tmp_path / "large").mkdir()
    tokenizer = save_tokenizer(tmp_path / "large", NUM_CODES=8192)
    cfg = configuration(name, tmp_path, TOKENIZER__CHECKPOINT=tokenizer)
    with torch.device("meta"):
        model = build_model(cfg)
    ours = {key: list(value.shape) for key, value in in_their_names(cfg, model).items()}
    expected: Mapping[str, list[int]] = NAMES[theirs]["names"]
    assert ours == {k: v for k, v in expected.items() if not k.endswith("_index")}
    assert sum(parameter.numel() for parameter in model.parameters()) == NAMES[theirs]["parameters"]


@pytest.mark.parametrize("key", ["model", "module"])
def test_a_fine_tuning_starts_with_a_copy_of_the_shared_biases(key: str, tmp_path: Path) -> None:
    path = tmp_path / "beit.pth"
    theirs = save_theirs(path, narrow(PRETRAINING, tmp_path), key=key)
    model, report = load(narrow(FINETUNING, tmp_path), path)
    state = model.state_dict()
    for block in range(2):
        copied = state[f"blocks.{block}.{TABLE}"]
        assert torch.equal(copied, theirs["rel_pos_bias.relative_position_bias_table"])
        assert "copy of the one for all blocks" in report.reshaped[f"blocks.{block}.{TABLE}"]
        assert torch.equal(state[f"blocks.{block}.gamma_1"], theirs[f"blocks.{block}.gamma_1"])
        assert torch.equal(
            state[f"blocks.{block}.attn.v_bias"], theirs[f"blocks.{block}.attn.v_bias"]
        )
    new = {"norm.weight", "norm.bias", "head.projection.weight", "head.projection.bias"}
    assert set(report.missing) == new
    assert (state["norm.weight"] == 1).all()  # a new norm, not that of pre-training
    assert all(name.startswith(("pred_head.", "mask_token")) for name in report.unexpected)
    assert float(state["head.projection.weight"].abs().max()) < 0.001  # the scale of a new head


def test_tables_are_resized_to_another_image_size(tmp_path: Path) -> None:
    path = tmp_path / "beit.pth"
    theirs = save_theirs(path, narrow(PRETRAINING, tmp_path))
    cfg = narrow(FINETUNING, tmp_path, DATA__TRAIN_CROP_SIZE=96)
    model, report = load(cfg, path)
    table = theirs["rel_pos_bias.relative_position_bias_table"]
    expected = resize_bias_table(table, source=(4, 4), target=(6, 6), has_cls=True)
    assert torch.equal(model.state_dict()[f"blocks.1.{TABLE}"], expected)
    assert "cubic splines, 4x4 to 6x6" in report.reshaped[f"blocks.1.{TABLE}"]
    # A model resizes its own table where it meets images of another size.
    small, _ = load(narrow(FINETUNING, tmp_path), path)
    for each in (small, model):
        torch.nn.init.normal_(each.head.projection.weight, generator=torch.manual_seed(0))
    images = torch.randn(2, 3, 1, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(small.eval()(images), model.eval()(images))


@pytest.mark.parametrize("name", [PRETRAINING, FINETUNING])
def test_all_weights_go_there_and_back(name: str, tmp_path: Path) -> None:
    path, cfg = tmp_path / "beit.pth", narrow(name, tmp_path)
    theirs = save_theirs(path, cfg)
    model, report = load(cfg, path)
    assert report.coverage == 1.0
    assert not report.missing + report.unexpected
    assert not report.reshaped
    back = in_their_names(cfg, model)
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[key], value) for key, value in theirs.items())


def test_the_released_file_of_imagenet_1k_has_positions_and_no_scale(tmp_path: Path) -> None:
    """It was trained with absolute positions, without layer scale (README of BEiT)."""
    plain = {"MVIT__REL_POS_BIAS": "", "MVIT__USE_ABS_POS": True, "MVIT__LAYER_SCALE": 0.0}
    path = tmp_path / "beit.pth"
    theirs = save_theirs(path, narrow(PRETRAINING, tmp_path, **plain))
    assert "pos_embed" in theirs
    assert not any("gamma" in key or "bias_table" in key for key in theirs)
    model, report = load(narrow(FINETUNING, tmp_path, **plain), path)
    assert {key.partition(".")[0] for key in report.missing} == {"norm", "head"}
    assert torch.equal(model.state_dict()["pos_embed"], theirs["pos_embed"])
    # Without these keys the model has biases and scales that the file lacks.
    with pytest.raises(LoadError, match=r"less than the 90\.0%") as refused:
        load(narrow(FINETUNING, tmp_path), path)
    keys = 'MVIT.USE_ABS_POS True MVIT.REL_POS_BIAS "" MVIT.LAYER_SCALE 0.0'
    assert refused.value.summary.endswith(
        f"It has absolute positions, but no relative position biases and no layer scale; for a "
        f"model like that, set {keys}"
    )
    assert keys in (ROOT / "docs/checkpoints.md").read_text().replace("`", "")
    missing = {key.rpartition(".")[2] for key in refused.value.report.missing if "blocks." in key}
    assert missing == {"gamma_1", "gamma_2", "relative_position_bias_table"}


def test_only_the_keys_that_fill_the_gap_are_named(tmp_path: Path) -> None:
    path = tmp_path / "beit.pth"
    theirs = save_theirs(path, narrow(PRETRAINING, tmp_path, MVIT__LAYER_SCALE=0.0))
    model = build_model(narrow(FINETUNING, tmp_path))
    with pytest.raises(
        LoadError, match=r"\. It has no layer scale; .* set MVIT\.LAYER_SCALE 0\.0\n"
    ):
        load_weights(model, path)
    theirs = {name: value for name, value in theirs.items() if not name.endswith("v_bias")}
    save_checkpoint(path, {"model": theirs})  # these keys would not suffice
    with pytest.raises(LoadError, match=r"Is it a checkpoint of this model\?\n"):
        load_weights(model, path)


def test_beit_v2_gives_the_backbone_without_its_second_head(tmp_path: Path) -> None:
    names = NAMES["beitv2_base_patch16_224_8k_vocab_cls_pt"]["names"]
    cfg = configuration(FINETUNING, tmp_path)
    with torch.device("meta"):
        ours = build_model(cfg).state_dict()
    heads = ("head.", "norm.")
    shared = {name for name in ours if not name.startswith(heads) and TABLE not in name}
    assert shared <= set(names)
    assert all(list(ours[name].shape) == names[name] for name in shared)


@pytest.mark.parametrize("norm", ["norm", "fc_norm"])
def test_the_heads_of_timm_and_mae_have_the_same_names(norm: str, tmp_path: Path) -> None:
    """Of timm's and DeiT's ViT, and of a fine-tuned MAE, which has fc_norm."""
    words = {"MVIT__USE_MEAN_POOLING": norm == "fc_norm", "MVIT__KEY_BIAS": True}
    shape = {key.replace(".", "__"): value for key, value in NARROW.items()}
    cfg = configuration("in1k_VIT_B_MAE_FT", tmp_path, **{**shape, **words})
    model = build_model(cfg)
    names = {"norm": norm, "head.projection": "head"}
    theirs = {}
    for name, value in model.state_dict().items():
        front = next((ours for ours in names if name.startswith(f"{ours}.")), "")
        theirs[names.get(front, front) + name.removeprefix(front)] = torch.randn_like(value)
    path = save_checkpoint(tmp_path / "theirs.pth", {"model": theirs})
    report = load_weights(model, path, complete=True)
    assert not report.missing
    assert model.head.projection.weight.equal(theirs["head.weight"])
    assert model.norm.weight.equal(theirs[f"{norm}.weight"])
