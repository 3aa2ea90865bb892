"""Files of DINO and iBOT as a start of their training, and of others, under old and new names."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from helpers.golden_rule import GOLDEN
from helpers.load_tool import ROOT
from helpers.tiny_views import view_config, view_state
from torch import nn

from slowfast_maskfeat.backbones import DINOHead
from slowfast_maskfeat.builders import build_model
from slowfast_maskfeat.checkpoints import load_checkpoint, load_weights, save_checkpoint
from slowfast_maskfeat.config import load_config

NAMES = json.loads((GOLDEN / "method_checkpoint_names.json").read_text())


def _random_state(kind: str) -> dict[str, torch.Tensor]:
    """Weights of a network that are not those of any other."""
    state = build_model(view_config(kind)).state_dict()
    drawn = {name: torch.randn_like(value) for name, value in state.items()}
    # Two names of one tensor.
    return drawn | {n: drawn[n.replace("layer2", "layer")] for n in drawn if "layer2" in n}


@pytest.mark.parametrize(
    ("config", "backbone", "heads"),
    [
        ("in1k_VIT_S_DINO_PT", "dino_vit_small_backbone", "dino_head_65536"),
        ("in1k_VIT_S_iBOT_PT", "ibot_vit_small_student_shared", ""),
    ],
)
def test_the_shipped_networks_have_the_published_names(config, backbone, heads):
    """And shapes, so that published files fill all of them."""
    with torch.device("meta"):
        model = build_model(load_config([str(ROOT / f"configs/masked_ssl/{config}.yaml")]))
    ours = {name: list(value.shape) for name, value in model.state_dict().items()}
    theirs = dict(NAMES[backbone]["names"])
    if heads:
        theirs = {f"backbone.{name}": shape for name, shape in theirs.items()}
        theirs |= {f"head.{name}": shape for name, shape in NAMES[heads]["names"].items()}
    assert ours == theirs


@pytest.mark.parametrize("network", ["teacher", "student"])
@pytest.mark.parametrize("kind", ["dino", "ibot"])
def test_a_training_file_is_a_start(tmp_path, kind, network):
    """Its student has `module.` in front, its teacher no mask token; the options are in it."""
    student, teacher = _random_state(kind), _random_state(kind)
    teacher.pop("backbone.masked_embed", None)
    content = {
        "student": {f"module.{name}": value for name, value in student.items()},
        "teacher": teacher,
        "epoch": 3,
        "args": Namespace(arch="vit_small", lr=0.0005, local_crops_scale=(0.05, 0.4)),
        f"{kind}_loss": {"center": torch.zeros(1, 8)},
    }
    path = tmp_path / "checkpoint.pth"
    torch.save(content, path)
    assert load_checkpoint(path)["args"] == vars(content["args"])
    state = view_state(view_config(kind))
    report = load_weights(state.model, path, teacher=network == "teacher")
    assert report.coverage == 1.0
    assert report.unexpected == ()
    assert report.missing == ()
    expected = {"student": student, "teacher": {**student, **teacher}}[network]
    for name, value in state.model.state_dict().items():
        assert value.equal(expected[name]), name
    state.task.start(state.model)
    for name, value in state.task.teacher.network.state_dict().items():
        assert value.equal(expected[name]), name


def test_prototypes_of_patches_do_not_replace_those_of_views(tmp_path):
    """A file with a head of each, and a model that shares one."""
    path = tmp_path / "checkpoint.pth"
    separate = build_model(view_config("ibot", PATCH_DIM=24)).state_dict()
    save_checkpoint(path, {"model_state": separate})
    model = build_model(view_config("ibot"))
    report = load_weights(model, path)
    assert model.head.last_layer.weight_v.equal(separate["head.last_layer.weight_v"])
    (reason,) = {report.refused[name] for name in ("head.last_layer2.weight_v",)}
    assert reason == (
        "the model shares this weight with head.last_layer.weight_v, the file does not"
    )


@pytest.mark.parametrize("envelope", ["bare", "state_dict"])
@pytest.mark.parametrize("kind", ["byol", "dino", "ibot"])
def test_a_file_of_the_backbone_is_a_start(tmp_path, kind, envelope):
    """DINO's backbone files are bare; iBOT's checkpoint_teacher.pth has a state_dict."""
    weights = {
        name.removeprefix("backbone."): value
        for name, value in _random_state("dino").items()
        if name.startswith("backbone.")
    }
    content = weights if envelope == "bare" else {"state_dict": weights}
    path = save_checkpoint(tmp_path / "backbone.pth", content)
    model = build_model(view_config(kind))
    report = load_weights(model, path)
    assert report.coverage == 1.0
    assert report.unexpected == ()
    assert all(
        name.startswith(("head.", "projector.", "predictor.", "backbone.masked_embed"))
        for name in report.missing
    )
    for name, value in weights.items():
        assert model.state_dict()[f"backbone.{name}"].equal(value)


def test_newer_names_of_a_weight_norm(tmp_path: Path):
    head = DINOHead(8, 6, hidden_dim=4, bottleneck_dim=3, norm_last_layer=False)
    with torch.no_grad():
        head.last_layer.weight_g.uniform_(0.5, 2.0)
    newer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 6, bias=False))
    with torch.no_grad():
        newer.parametrizations.weight.original0.copy_(head.last_layer.weight_g)
        newer.parametrizations.weight.original1.copy_(head.last_layer.weight_v)
    mlp = {f"mlp.{name}": value for name, value in head.mlp.state_dict().items()}
    last = {f"last_layer.{name}": value for name, value in newer.state_dict().items()}
    path = save_checkpoint(tmp_path / "head.pth", {"state_dict": {**mlp, **last}})
    other = DINOHead(8, 6, hidden_dim=4, bottleneck_dim=3, norm_last_layer=False)
    report = load_weights(other, path)
    assert report.missing == ()
    rows = torch.randn(5, 8)
    with torch.no_grad():
        torch.testing.assert_close(other(rows), newer(head.bottleneck(rows)))


def test_weights_of_images_start_a_video(tmp_path: Path):
    """A joint position table becomes separable ones, as for a model without heads of its own."""
    image = build_model(view_config("dino"))
    path = save_checkpoint(tmp_path / "image.pyth", {"model_state": image.state_dict()})
    video = {
        "DATA__NUM_FRAMES": 4,
        "MVIT__PATCH_2D": False,
        "MVIT__PATCH_KERNEL": [2, 16, 16],
        "MVIT__PATCH_STRIDE": [2, 16, 16],
        "MVIT__PATCH_PADDING": [0, 0, 0],
        "MVIT__SEP_POS_EMBED": True,
    }
    model = build_model(view_config("dino", **video))
    report = load_weights(model, path)
    assert report.coverage == 1.0
    spatial = model.state_dict()["backbone.pos_embed_spatial"]
    assert spatial.equal(image.state_dict()["backbone.pos_embed"][:, 1:])
    assert "backbone.pos_embed_spatial" in report.reshaped
