"""Names of other libraries, against numbers that these gave (tests/golden/foreign)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from fvcore.common.config import CfgNode
from helpers.documents import ROOT
from helpers.golden_rule import GOLDEN, golden_json, golden_randn, relative_error
from helpers.hugging_face import foreign_state
from helpers.tiny_teachers import tiny_config
from torch import Tensor, nn

from slowfast_maskfeat.builders import build_model
from slowfast_maskfeat.builders.weights import model_facts
from slowfast_maskfeat.checkpoints import load_weights, save_checkpoint
from slowfast_maskfeat.checkpoints.naming import NAMINGS, ModelFacts, recognize
from slowfast_maskfeat.checkpoints.naming.videomae import sinusoid_positions
from slowfast_maskfeat.config import default_config, load_config
from slowfast_maskfeat.shapes import Grid
from slowfast_maskfeat.targets import PixelTarget

SMALL = {
    "DATA.TRAIN_CROP_SIZE": 64,
    "MODEL.NUM_CLASSES": 10,
    "MVIT.MLP_RATIO": 4.0,
    "MVIT.EMBED_DIM": 16,
}
IMAGE = {
    "DATA.NUM_FRAMES": 1,
    "MVIT.PATCH_2D": True,
    "MVIT.PATCH_KERNEL": [7, 7],
    "MVIT.PATCH_STRIDE": [4, 4],
    "MVIT.PATCH_PADDING": [3, 3],
    "MVIT.POOL_KVQ_KERNEL": [1, 3, 3],
}
VIDEO = {
    "MVIT.PATCH_PADDING": [1, 3, 3],
    "MVIT.POOL_KVQ_KERNEL": [3, 3, 3],
}
RELATIVE = {
    "MVIT.USE_ABS_POS": False,
    "MVIT.REL_POS_SPATIAL": True,
    "MVIT.RESIDUAL_POOLING": True,
    "MVIT.DIM_MUL_IN_ATT": True,
}
PLAIN = {
    **SMALL,
    "MVIT.EMBED_DIM": 32,
    "MVIT.NUM_HEADS": 2,
    "MVIT.DEPTH": 3,
}
PLAIN_IMAGE = {
    **PLAIN,
    "DATA.NUM_FRAMES": 1,
    "MVIT.PATCH_2D": True,
    "MVIT.PATCH_KERNEL": [16, 16],
    "MVIT.PATCH_STRIDE": [16, 16],
    "MVIT.PATCH_PADDING": [0, 0],
}
PLAIN_VIDEO = {
    **PLAIN,
    "DATA.NUM_FRAMES": 8,
    "MVIT.PATCH_KERNEL": [2, 16, 16],
    "MVIT.PATCH_STRIDE": [2, 16, 16],
    "MVIT.PATCH_PADDING": [0, 0, 0],
    "MVIT.CLS_EMBED_ON": False,
    "MVIT.USE_MEAN_POOLING": True,
}
AUTOENCODER = {
    "MODEL.ARCH": "maskmvit",
    "MODEL.MODEL_NAME": "MaskMViT",
    "MASK.ENABLE": True,
    "MASK.MAE_ON": True,
    "MASK.MAE_RND_MASK": True,
    "MASK.PRETRAIN_DEPTH": [2],
    "MASK.HEAD_TYPE": "separate_xformer",
    "MASK.DECODER_DEPTH": 2,
    "MASK.DECODER_EMBED_DIM": 48,
    "MASK.DECODER_NUM_HEADS": 3,
    "MASK.TIME_STRIDE_LOSS": False,
    "AUG.MASK_RATIO": 0.75,
}
BEIT = {**PLAIN_IMAGE, "MVIT.KEY_BIAS": False}
SCALED = {"MVIT.LAYER_SCALE": 0.1, "MVIT.USE_ABS_POS": False}


def stages(depth: int, grown: list[int]) -> dict[str, Any]:
    """Blocks at which width and heads double and rows and columns halve."""
    steps = {block: [1, 2, 2] for block in grown}
    factors = [[block, 2.0] for block in grown]
    return {
        "MVIT.DEPTH": depth,
        "MVIT.DIM_MUL": factors,
        "MVIT.HEAD_MUL": factors,
        "MVIT.POOL_Q_STRIDE": [[b, *steps.get(b, [1, 1, 1])] for b in range(depth)],
        "MVIT.POOL_KV_STRIDE_ADAPTIVE": [1, 4, 4],
    }


# 18 rows and columns of patches: the tables of relative positions are interpolated in places.
MMACTION = {
    **SMALL,
    **VIDEO,
    **RELATIVE,
    **stages(4, [1, 3]),
    "DATA.TRAIN_CROP_SIZE": 72,
    "MVIT.REL_POS_TEMPORAL": True,
}
CASES: dict[str, dict[str, Any]] = {
    "timm_attention": {
        **SMALL,
        **IMAGE,
        **RELATIVE,
        **stages(6, [1, 3, 5]),
        "MVIT.CLS_EMBED_ON": False,
    },
    "timm_mlp": {
        **SMALL,
        **IMAGE,
        **RELATIVE,
        **stages(6, [1, 3, 5]),
        "MVIT.CLS_EMBED_ON": False,
        "MVIT.USE_ABS_POS": True,
        "MVIT.DIM_MUL_IN_ATT": False,
    },
    "timm_cls": {
        **SMALL,
        **IMAGE,
        **RELATIVE,
        **stages(6, [1, 3, 5]),
        "MVIT.USE_ABS_POS": True,
        "MVIT.DIM_MUL_IN_ATT": False,
        "MVIT.RESIDUAL_POOLING": False,
    },
    "torchvision_v1": {
        **SMALL,
        **VIDEO,
        **stages(4, [1, 3]),
        "MVIT.SEP_POS_EMBED": True,
        "MVIT.POOL_Q_STRIDE": [[1, 1, 2, 2], [3, 1, 2, 2]],
    },
    "torchvision_v2": {
        **SMALL,
        **VIDEO,
        **RELATIVE,
        **stages(4, [1, 3]),
        "MVIT.REL_POS_TEMPORAL": True,
    },
    "mmaction_mvit_attention": MMACTION,
    "mmaction_mvit_mlp": {**MMACTION, "MVIT.USE_ABS_POS": True, "MVIT.DIM_MUL_IN_ATT": False},
    "mmaction_vit": {**PLAIN_VIDEO, "MVIT.LAYER_SCALE": 0.1},
    "hf_beit_pretraining": {
        **BEIT,
        **SCALED,
        "MVIT.REL_POS_BIAS": "shared",
        "MODEL.ARCH": "maskmvit",
        "MODEL.MODEL_NAME": "MaskMViT",
        "MASK.ENABLE": True,
        "MASK.PRETRAIN_DEPTH": [2],
        "MASK.TARGET": "pseudo_labels",
        "MASK.LABEL_MAPS": "maps",
        "MODEL.NUM_CLASSES": 24,
    },
    "hf_beit_classifier": {
        **BEIT,
        **SCALED,
        "MVIT.REL_POS_BIAS": "block",
        "MVIT.USE_MEAN_POOLING": True,
    },
    "hf_beit_class_token": BEIT,
    "vit_classifier": PLAIN_IMAGE,
    "vitmae_pretraining": {**PLAIN_IMAGE, **AUTOENCODER},
    "videomae_classifier": PLAIN_VIDEO,
    "videomae_pretraining": {**PLAIN_VIDEO, **AUTOENCODER, "MVIT.USE_MEAN_POOLING": False},
}
# The libraries' own models, and where these are published for PySlowFast.
FULL_SIZE = {
    "timm_mvitv2_tiny": "ImageNet/MVITv2_T",
    "torchvision_mvit_v1_b": "Kinetics/MVIT_B_16x4_CONV",
    "torchvision_mvit_v2_s": "Kinetics/MVITv2_S_16x4",
    "mmaction_mvit_small": "Kinetics/MVITv2_S_16x4",
}
# Rounding of the libraries themselves, and the epsilon of their layer norms: 1e-12 or 1e-5.
LARGEST_ERROR = 1e-5
OF_BEIT = 1e-6  # both have the same epsilon: rounding alone
OF_TRANSFORMERS = ("hf_beit", "vitmae", "videomae")
PRETRAINING = [name for name in CASES if name.endswith("_pretraining")]


def naming_of(name: str) -> str:
    if name == "vit_classifier":
        return "vitmae"
    return next(naming for naming in NAMINGS if name.startswith(f"{naming}_"))


def configuration(name: str, **changes: Any) -> CfgNode:
    """Of the model here; in ``changes``, two underscores stand for a dot."""
    if name in FULL_SIZE:
        return load_config([ROOT / f"configs/{FULL_SIZE[name]}.yaml"])
    cfg = default_config()
    given = {key.replace("__", "."): value for key, value in changes.items()}
    for key, value in (CASES[name] | given).items():
        cfg.merge_from_list([key, value])
    return cfg


def converted(name: str) -> tuple[nn.Module, dict[str, Tensor], ModelFacts]:
    """Our model, the library's weights in the published names, and what a naming asks for."""
    cfg = configuration(name)
    model = build_model(cfg).eval()
    facts = model_facts(cfg, model)
    return model, NAMINGS[naming_of(name)].to_published(foreign_state(name), facts), facts


@pytest.mark.parametrize(
    "name", [*CASES, *(pytest.param(name, marks=pytest.mark.slow) for name in FULL_SIZE)]
)
def test_the_model_here_computes_what_the_library_computes(name: str) -> None:
    model, published, _ = converted(name)
    model.load_state_dict(published)  # strictly: every name and shape
    golden = golden_json(f"foreign/{name}.json")
    clips = golden_randn(1000, tuple(golden["input_shape"]))
    clips = clips.unsqueeze(2) if clips.ndim == 4 else clips
    with torch.no_grad():
        if name in PRETRAINING:
            mask = torch.tensor(golden["mask"]).bool().reshape(2, *model.configured_grid)
            rows = model(clips, mask)[0]
            if naming_of(name) == "vitmae":  # ours are (color, row, column)
                rows = rows.unflatten(1, (3, 16, 16)).permute(0, 2, 3, 1).flatten(1)
            outputs = rows[:, :: golden["sampled_columns"]]
        else:
            outputs = model(clips)
    largest = OF_BEIT if naming_of(name) == "hf_beit" else LARGEST_ERROR
    assert relative_error(outputs, golden["logits"]) < largest


@pytest.mark.parametrize("name", CASES)
def test_there_and_back_again(name: str) -> None:
    """The way back gives the library's names, shapes and numbers, the second way in ours."""
    _, published, facts = converted(name)
    naming, original = NAMINGS[naming_of(name)], foreign_state(name)
    back = naming.from_published(published, facts)
    assert {key: value.shape for key, value in back.items()} == {
        key: value.shape for key, value in original.items()
    }
    for key, value in original.items():
        assert torch.equal(back[key], value), key
    again = naming.to_published(back, facts)
    assert again.keys() == published.keys()
    for key, value in published.items():
        assert torch.equal(again[key], value), key


@pytest.mark.parametrize("name", CASES)
def test_each_library_is_recognized_and_no_other(name: str) -> None:
    model, published, _ = converted(name)
    state = foreign_state(name)
    assert recognize(state) == naming_of(name)
    assert recognize(published) == recognize(model.state_dict()) == ""


@pytest.mark.parametrize("name", [name for name in CASES if naming_of(name) in OF_TRANSFORMERS])
def test_names_that_models_have_in_memory_are_read_too(name: str) -> None:
    """transformers 5 names some weights otherwise than the files that it reads and writes."""
    _, published, facts = converted(name)
    marks = {"q_proj": 1.0, "query": 1.0, "k_proj": 2.0, "key": 2.0, "v_proj": 3.0, "value": 3.0}
    in_memory = {
        key: torch.tensor([next((marks[part] for part in marks if f".{part}." in key), 0.0)])
        for key in golden_json(f"foreign/{name}.json")["names_in_memory"]
    }
    read = NAMINGS[naming_of(name)].to_published(in_memory, facts._replace(color_first=False))
    assert read.keys() == published.keys()
    for key, value in read.items():
        if key.endswith(".attn.qkv.weight"):
            assert value.tolist() == [1, 2, 3]


def test_the_decoder_names_of_one_release_are_read_too() -> None:
    """transformers 5.23 writes ViTMAE's decoder under a name that only it has."""
    _, published, facts = converted("vitmae_pretraining")
    state = {
        key.replace("decoder_layers", "decoder_encoder.layer"): value
        for key, value in foreign_state("vitmae_pretraining").items()
    }
    read = NAMINGS["vitmae"].to_published(state, facts)
    assert all(torch.equal(read[key], value) for key, value in published.items())
    assert read.keys() == published.keys()


def test_an_encoder_alone_has_no_prefix() -> None:
    """Files of the models without a head lack what stands in front of the others' names."""
    for name, prefix in (("vit_classifier", "vit."), ("videomae_classifier", "videomae.")):
        _, published, facts = converted(name)
        state = foreign_state(name)
        bare = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        assert recognize(bare) == naming_of(name)
        read = NAMINGS[naming_of(name)].to_published(bare, facts)
        heads = ("head.", "norm.") if name.startswith("videomae") else ("head.",)
        assert read.keys() == {key for key in published if not key.startswith(heads)}


def _as_videomae_code(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of Hugging Face's VideoMAE by the names of its authors' code."""
    names = {
        r"videomae\.embeddings\.patch_embeddings\.projection": "encoder.patch_embed.proj",
        r"videomae\.encoder\.layer": "encoder.blocks",
        r"videomae\.layernorm": "encoder.norm",
        r"decoder\.decoder_layers": "decoder.blocks",
        r"attention\.attention\.([qv])_bias": r"attn.\1_bias",
        r"attention\.attention\.(query|key|value)": r"attn.\1",
        r"attention\.output\.dense": "attn.proj",
        r"intermediate\.dense": "mlp.fc1",
        r"output\.dense": "mlp.fc2",
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
        "classifier": "head",
    }
    renamed = {}
    for name, value in state.items():
        for theirs, own in names.items():
            name = re.sub(theirs, own, name)
        renamed[name] = value
    for name in [name for name in renamed if name.endswith("attn.query.weight")]:
        front = name.removesuffix("query.weight")
        parts = [renamed.pop(f"{front}{part}.weight") for part in ("query", "key", "value")]
        renamed[f"{front}qkv.weight"] = torch.cat(parts)
    if "head.weight" in renamed:
        return {name.removeprefix("encoder."): value for name, value in renamed.items()}
    return renamed


@pytest.mark.parametrize("name", ["videomae_classifier", "videomae_pretraining"])
def test_files_of_the_authors_of_videomae_are_the_same_model(name: str, tmp_path: Path) -> None:
    """Both libraries have the same weights: one is compared with outputs of the library above."""
    model, published, facts = converted(name)
    theirs = _as_videomae_code(foreign_state(name))
    assert recognize(theirs) == "videomae_code"
    naming = NAMINGS["videomae_code"]
    read = naming.to_published(theirs, facts)
    assert read.keys() == published.keys()
    for key, value in published.items():
        assert torch.equal(read[key], value), key
    back = naming.from_published(published, facts)
    assert back.keys() == theirs.keys()
    for key, value in theirs.items():
        assert torch.equal(back[key], value), key
    path = save_checkpoint(tmp_path / "theirs.pth", {"module": theirs})
    same_names = build_model(configuration(name, MVIT__KEY_BIAS=False))  # but other positions
    for receiver in (model, same_names):
        with pytest.raises(ValueError, match=r"look like those of VideoMAE's code; convert it"):
            load_weights(receiver, path)


def test_a_bias_of_the_keys_changes_nothing() -> None:
    """VideoMAE has none: what it adds to one query's products is the same for all keys."""
    model, published, facts = converted("videomae_classifier")
    clips = golden_randn(1000, (2, 3, 8, 64, 64)).double()
    model.double().load_state_dict(published)
    with torch.no_grad():
        without = model(clips)
        biased = dict(published)
        for key, value in published.items():
            if key.endswith(".attn.qkv.bias"):
                query, _, own = value.chunk(3)
                biased[key] = torch.cat((query, torch.randn_like(query), own))
        model.load_state_dict(biased)
        assert relative_error(model(clips), without) < 1e-12
    theirs = NAMINGS["videomae"].from_published(biased, facts)
    for key, value in foreign_state("videomae_classifier").items():
        assert torch.equal(theirs[key], value), key


def test_sinusoid_positions() -> None:
    """Position 3 of 4 channels: angles 3 and 3 / 100."""
    expected = [0.14112001, -0.9899925, 0.0299955, 0.99955003]
    torch.testing.assert_close(sinusoid_positions(5, 4)[0, 3], torch.tensor(expected))


def test_predicted_pixels_keep_their_meaning() -> None:
    """The reordered prediction and our target of images have their pixels in one order."""
    clips = torch.randn(1, 3, 1, 32, 32)
    ours = PixelTarget((1, 16, 16), norm=False, color_first=True)
    theirs = PixelTarget((1, 16, 16), norm=False)  # (row, column, color)
    grid = Grid(1, 2, 2)
    state = {
        "decoder.decoder_pred.bias": theirs.encode(clips, grid)[0, 1],
        "vit.embeddings.patch_embeddings.projection.weight": torch.zeros(8, 3, 16, 16),
    }
    facts = ModelFacts(grid=grid, color_first=True)
    read = NAMINGS["vitmae"].to_published(state, facts)
    assert torch.equal(read["pred_head.projections.0.bias"], ours.encode(clips, grid)[0, 1])


@pytest.mark.parametrize(
    ("name", "naming", "changes", "message"),
    [
        ("torchvision_v2", "timm", {}, "its patches are two-dimensional"),
        ("timm_attention", "torchvision", {}, "its patches are three-dimensional"),
        ("timm_attention", "timm", {"MVIT__USE_MEAN_POOLING": True}, "normalizes the mean"),
        ("timm_attention", "timm", {"MVIT__NORM_STEM": True}, r"no names for 2 .*norm_stem"),
        ("timm_mlp", "timm", {"MVIT__SEP_POS_EMBED": True}, "no names for 2 .*pos_embed_spatial"),
        ("timm_attention", "timm", {"MVIT__POOL_KVQ_KERNEL": [3, 3, 3]}, "this one time too"),
        ("timm_cls", "timm", {"MVIT__RESIDUAL_POOLING": True}, "adds the pooled query to that"),
        ("torchvision_v2", "torchvision", {"MVIT__CLS_EMBED_ON": False}, "classifies the class"),
        ("torchvision_v2", "torchvision", {"MVIT__LAYER_SCALE": 0.1}, "no names for 8 .*gamma_1"),
        ("timm_attention", "mmaction", {}, "its patches are three-dimensional"),
        (
            "mmaction_mvit_attention",
            "mmaction",
            {"MVIT__USE_MEAN_POOLING": True},
            "normalizes the mean",
        ),
        ("mmaction_mvit_mlp", "mmaction", {"MVIT__LAYER_SCALE": 0.1}, "no names for 8 .*gamma_1"),
        ("mmaction_mvit_mlp", "mmaction", {"MVIT__SEP_POS_EMBED": True}, "no names for 3 .*_class"),
        ("mmaction_mvit_mlp", "mmaction", {"MVIT__REL_POS_TEMPORAL": False}, "or none"),
        ("torchvision_v1", "mmaction", {}, "all its blocks pool queries, keys and values"),
        ("mmaction_vit", "mmaction", {"MVIT__CLS_EMBED_ON": True}, "has no class token"),
        ("mmaction_vit", "mmaction", {"MVIT__USE_MEAN_POOLING": False}, "POOLING True"),
        ("mmaction_vit", "mmaction", {"MVIT__SEP_POS_EMBED": True}, "one table of positions"),
        ("vit_classifier", "vitmae", {"MVIT__CLS_EMBED_ON": False}, "has a class token"),
        (
            "vit_classifier",
            "vitmae",
            {"MVIT__USE_MEAN_POOLING": True},
            "classifies the class token",
        ),
        ("vit_classifier", "vitmae", {"MVIT__REL_POS_SPATIAL": True}, "no names for 6 .*rel_pos_h"),
        (
            "vitmae_pretraining",
            "vitmae",
            {"MASK__MAE_ON": False, "MASK__HEAD_TYPE": "separate"},
            "this one encodes mask tokens",
        ),
        ("hf_beit_classifier", "hf_beit", {"MVIT__KEY_BIAS": True}, "its keys have none"),
        ("hf_beit_classifier", "hf_beit", {"MVIT__NORM_STEM": True}, r"no names for 2 .*norm_stem"),
        ("hf_beit_classifier", "beit", {"MVIT__CLS_EMBED_ON": False}, "has a class token"),
        ("videomae_classifier", "beit", {}, "its patches are two-dimensional"),
        ("videomae_classifier", "videomae", {"MVIT__CLS_EMBED_ON": True}, "has no class token"),
        ("videomae_classifier", "videomae", {"MVIT__USE_MEAN_POOLING": False}, "POOLING True"),
        ("videomae_classifier", "videomae", {}, "'pos_embed' here differs"),
        (
            "videomae_classifier",
            "videomae",
            {"MVIT__SEP_POS_EMBED": True},
            "position embeddings are fixed",
        ),
    ],
)
def test_models_that_a_library_does_not_have_are_refused(
    name: str, naming: str, changes: dict[str, Any], message: str
) -> None:
    cfg = configuration(name, **changes)
    model = build_model(cfg)
    with pytest.raises(ValueError, match=message):
        NAMINGS[naming].from_published(model.state_dict(), model_facts(cfg, model))


def test_a_bias_before_the_decoder_is_refused() -> None:
    _, published, facts = converted("videomae_pretraining")
    published["decoder_embed.bias"][0] = 1
    with pytest.raises(ValueError, match="before the decoder has no bias"):
        NAMINGS["videomae"].from_published(published, facts)


def test_timm_files_that_the_model_would_misread_are_refused() -> None:
    cfg = configuration("timm_cls", MVIT__RESIDUAL_POOLING=True)
    facts = model_facts(cfg, build_model(cfg))
    with pytest.raises(ValueError, match="adds the pooled query to that token"):
        NAMINGS["timm"].to_published(foreign_state("timm_cls"), facts)


def test_separable_positions_of_an_image_are_added_up() -> None:
    cfg = configuration("vit_classifier", MVIT__SEP_POS_EMBED=True)
    model = build_model(cfg).eval()
    for key in ("class", "spatial", "temporal"):
        torch.nn.init.normal_(model.get_parameter(f"pos_embed_{key}"))
    joint = build_model(configuration("vit_classifier")).eval()
    facts, naming = model_facts(cfg, model), NAMINGS["vitmae"]
    theirs = naming.from_published(model.state_dict(), facts)
    joint.load_state_dict(naming.to_published(theirs, facts))
    clips = torch.randn(2, 3, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(joint(clips), model(clips))


def test_a_layer_without_its_keys_is_an_error() -> None:
    _, _, facts = converted("vit_classifier")
    state = foreign_state("vit_classifier")
    del state["vit.encoder.layer.1.attention.attention.key.weight"]
    with pytest.raises(ValueError, match=r"queries of 'blocks\.1\.attn', but not the keys"):
        NAMINGS["vitmae"].to_published(state, facts)


# Networks that DINO and iBOT trained, which have the published names

METHOD_FILES = json.loads((GOLDEN / "method_checkpoint_names.json").read_text())


def _small_vit() -> nn.Module:
    with torch.device("meta"):
        return build_model(load_config([str(ROOT / "configs/teachers/VIT_S_16.yaml")]))


@pytest.mark.parametrize(
    ("file", "prefix"),
    [("dino_vit_small_backbone", ""), ("ibot_vit_small_student_shared", "backbone.")],
)
def test_their_small_network_is_the_shipped_one(file: str, prefix: str) -> None:
    theirs = {
        name.removeprefix(prefix): tuple(shape)
        for name, shape in METHOD_FILES[file]["names"].items()
        if name.startswith(prefix) and not name.endswith("masked_embed")
    }
    ours = {name: tuple(value.shape) for name, value in _small_vit().state_dict().items()}
    flat = {name: shape for name, shape in ours.items() if not name.startswith("head.")}
    assert theirs == flat


@pytest.mark.parametrize("teacher", [True, False])
def test_a_training_file_gives_the_backbone_of_teacher_or_student(tmp_path, teacher) -> None:
    cfg = tiny_config("img_vit")
    networks = {name: build_model(cfg).state_dict() for name in ("teacher", "student")}
    content = {
        "teacher": {f"backbone.{name}": value for name, value in networks["teacher"].items()},
        "student": {
            f"module.backbone.{name}": value for name, value in networks["student"].items()
        },
        "epoch": 3,
    }
    content["student"]["module.head.mlp.0.weight"] = torch.zeros(2, 2)
    path = save_checkpoint(tmp_path / "checkpoint.pth", content)
    model = build_model(cfg)
    report = load_weights(model, path, teacher=teacher)
    assert report.coverage == 1.0
    expected = networks["teacher" if teacher else "student"]
    assert all(value.equal(expected[name]) for name, value in model.state_dict().items())
