"""The table that people read after loading."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.tiny_cases import tiny_options
from helpers.tiny_checkpoints import IMAGE, receiver, source_file

from slowfast_maskfeat.checkpoints import LoadReport, load_weights, save_checkpoint


def table(path: Path, options: dict, **arguments: object) -> list[str]:
    """The lines without the path."""
    report = load_weights(receiver(options), path, **arguments)
    first, *rest = str(report).splitlines()
    assert first == f"weights from {path}"
    assert max(map(len, rest)) < 150
    return rest


def test_pre_training_to_classifier(tmp_path: Path) -> None:
    filters = {f"hogs.0.weight_{axis}": torch.zeros(3, 1, 3, 3) for axis in "xy"}
    path = source_file(tmp_path, tiny_options("pt_video_hog"), **filters)
    assert table(path, tiny_options("v2_ft")) == [
        "  loaded                     127  100.0% of the backbone",
        "  left as initialized          4  norm.* (2), head.* (2)",
        "  unused (pre-training)        7  mask_token, pred_head.* (4), hogs.* (2)",
        "  classifier left as initialized: the file has none",
    ]


def test_image_to_video(tmp_path: Path) -> None:
    path = source_file(tmp_path, tiny_options("v2_k400", **IMAGE))
    divided = "repeated 3 times, divided by it"
    assert table(path, tiny_options("v2_k400")) == [
        "  loaded                     131  100.0% of the backbone",
        f"  reshaped                    21  patch_embed.proj.weight: (16, 3, 7, 7) -> "
        f"(16, 3, 3, 7, 7), {divided}",
        f"{'':34}blocks.0.attn.rel_pos_t and 4 more: zeros, as an image has no time",
        f"{'':34}blocks.0.attn.pool_q.weight and 14 more: (16, 1, 1, 3, 3) -> "
        f"(16, 1, 3, 3, 3), {divided}",
    ]


def test_what_lies_within_blocks_is_told_by_its_last_parts(tmp_path: Path) -> None:
    """A classifier whose blocks have relative positions along time, from one whose have none."""
    flat = {"MVIT__REL_POS_TEMPORAL": False}
    times = "5  blocks.*.attn.rel_pos_t (5)"
    path = source_file(tmp_path, tiny_options("v2_k400", **flat))
    assert table(path, tiny_options("v2_k400"), min_coverage=0.9) == [
        "  loaded                     126  96.1% of the backbone",  # 124 of its 129 entries
        f"  left as initialized          {times}",
    ]
    path = source_file(tmp_path, tiny_options("v2_k400"))
    assert table(path, tiny_options("v2_k400", **flat))[1:] == [
        f"  unused (not in model)        {times}"
    ]


def test_a_classifier_of_another_size(tmp_path: Path) -> None:
    path = source_file(tmp_path, tiny_options("v2_ft"))
    width = receiver(tiny_options("v2_ft")).head.projection.in_features
    assert table(path, tiny_options("v2_ft", MODEL__NUM_CLASSES=7)) == [
        "  loaded                     129  100.0% of the backbone",
        "  left as initialized          2  head.* (2)",
        f"  does not fit                 2  head.projection.weight: (20, {width}) -> (7, {width})",
        f"{'':34}head.projection.bias: (20,) -> (7,)",
        "  classifier left as initialized: the file has 20 classes, the model 7",
    ]


def test_masked_autoencoder_to_classifier(tmp_path: Path) -> None:
    """The decoder is passed over; the encoder's last layer norm is used, unlike MaskFeat's."""
    pretraining = tiny_options("mae_sincos_decsep")
    backbone = {k: v for k, v in pretraining.items() if not k.startswith(("MASK.", "AUG."))}
    classifier = {**backbone, "MODEL.ARCH": "mvit", "MODEL.MODEL_NAME": "MViT"}
    path = source_file(tmp_path, pretraining)
    assert table(path, classifier) == [
        "  loaded                      44  100.0% of the backbone",
        "  left as initialized          2  head.* (2)",
        "  unused (pre-training)       22  dec_pos_embed_spatial, dec_pos_embed_temporal, "
        "dec_pos_embed_class, mask_token, and 2 more",
        "  classifier left as initialized: the file has none",
    ]


def test_long_lists_are_cut() -> None:
    report = LoadReport(
        path=Path("p"),
        loaded=tuple(f"a{n}" for n in range(9)),
        missing=(
            *(f"b{n}.c" for n in range(4)),
            "blocks.3.norm.bias",
            "x.blocks.10.a",
            "x.blocks.9.a",
        ),
        unexpected=(),
        reshaped={f"a{n}": f"({n},) -> (1,)" for n in range(9)},
    )
    lines = str(report).splitlines()
    assert lines[2] == "  reshaped                     9  a0: (0,) -> (1,)"
    assert lines[8] == f"{'':34}and 3 more kinds"
    assert lines[9] == "  left as initialized          7  b0.c, b1.c, b2.c, b3.c, and 2 more"
    # One name stays whole; blocks of a decoder are told from the encoder's.
    short = replace(report, missing=report.missing[4:])
    assert "  left as initialized          3  blocks.3.norm.bias, x.blocks.*.a (2)" in str(short)
    assert len(lines) == 10


@pytest.mark.parametrize(
    ("library", "names"),
    [
        ("timm", ["stages.0.blocks.0.attn.qkv.weight", "patch_embed.proj.bias"]),
        ("torchvision", ["conv_proj.weight", "blocks.0.attn.qkv.weight"]),
        ("torchvision", ["pos_encoding.class_token"]),
        ("Hugging Face", ["vit.embeddings.cls_token"]),
        ("Hugging Face", ["videomae.encoder.layer.0.attention.attention.query.weight"]),
        ("Hugging Face", ["encoder.layer.0.output.dense.weight"]),
    ],
)
def test_the_names_of_other_libraries_are_recognized(
    tmp_path: Path, library: str, names: list[str]
) -> None:
    state = {f"module.{name}": torch.zeros(3) for name in names}
    path = save_checkpoint(tmp_path / "theirs.pth", state)
    message = (
        rf"names look like those of {library}.* maskfeat convert --cfg CFG --checkpoint "
        rf"{path} --output {tmp_path / 'theirs_converted.pyth'}"
    )
    with pytest.raises(ValueError, match=message):
        load_weights(receiver(tiny_options("img_vit")), path)
