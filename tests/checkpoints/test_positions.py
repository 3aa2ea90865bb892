"""The row of a class token in position tables, where only one of two models has the token."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.golden_rule import golden_randn, relative_error
from helpers.tiny_cases import tiny_options
from helpers.tiny_checkpoints import VIDEO_VIT, receiver, source_file, source_state
from torch import Tensor

from slowfast_maskfeat.checkpoints import LoadReport, load_weights, save_checkpoint
from slowfast_maskfeat.checkpoints.positions import exchange_class_row
from slowfast_maskfeat.checkpoints.reshape import TokenLayout
from slowfast_maskfeat.shapes import Grid

NO_CLS = {"MVIT__CLS_EMBED_ON": False}
JOINT = {"MVIT__SEP_POS_EMBED": False}
LARGER = {"DATA__TRAIN_CROP_SIZE": 96, "DATA__TEST_CROP_SIZE": 96}
OWN = "the class token's row is the model's own"
WITHOUT = "without the class token's row"


def load(folder: Path, source: dict, target: dict) -> tuple[LoadReport, dict[str, Tensor]]:
    """What is said of a checkpoint of one model in another, and the weights then."""
    model = receiver(target)
    report = load_weights(model, source_file(folder, source))
    return report, model.state_dict()


@pytest.mark.parametrize("video", [{}, VIDEO_VIT | JOINT], ids=["image", "video"])
def test_a_row_without_token_is_dropped(tmp_path: Path, video: dict) -> None:
    source = tiny_options("img_vit", **video)
    report, state = load(tmp_path, source, tiny_options("img_vit", **video | NO_CLS))
    assert torch.equal(state["pos_embed"], source_state(source)["pos_embed"][:, 1:])
    assert report.reshaped["pos_embed"] == WITHOUT
    assert not report.missing
    assert report.unexpected == ("cls_token",)


@pytest.mark.parametrize("video", [{}, VIDEO_VIT | JOINT], ids=["image", "video"])
def test_a_row_that_the_file_lacks_is_the_models_own(tmp_path: Path, video: dict) -> None:
    source = tiny_options("img_vit", **video | NO_CLS)
    target = tiny_options("img_vit", **video)
    before = receiver(target).state_dict()["pos_embed"]
    report, state = load(tmp_path, source, target)
    assert torch.equal(state["pos_embed"][:, 1:], source_state(source)["pos_embed"])
    assert torch.equal(state["pos_embed"][:, :1], before[:, :1])
    assert report.reshaped["pos_embed"] == OWN
    assert report.missing == ("cls_token",)
    # As that of separable tables.
    separable = tiny_options("img_vit", **VIDEO_VIT)
    report, _ = load(tmp_path, tiny_options("img_vit", **VIDEO_VIT | NO_CLS), separable)
    assert report.missing == ("cls_token", "pos_embed_class")


def test_the_rest_is_brought_to_another_size(tmp_path: Path) -> None:
    """As it is where both have the token, or both have none."""
    with_token, without = tiny_options("img_vit"), tiny_options("img_vit", **NO_CLS)
    larger, larger_without = (tiny_options("img_vit", **LARGER | more) for more in ({}, NO_CLS))
    _, both = load(tmp_path, with_token, larger)
    report, dropped = load(tmp_path, with_token, larger_without)
    assert relative_error(dropped["pos_embed"], both["pos_embed"][:, 1:]) < 1e-6
    assert report.reshaped["pos_embed"].startswith(f"{WITHOUT}; (1, 16, ")
    assert "bicubic" in report.reshaped["pos_embed"]
    _, neither = load(tmp_path, without, larger_without)
    report, added = load(tmp_path, without, larger)
    assert relative_error(added["pos_embed"][:, 1:], neither["pos_embed"]) < 1e-6
    assert report.reshaped["pos_embed"].startswith(f"{OWN}; (1, 17, ")


def test_a_table_made_of_separable_ones_gets_or_loses_it_too(tmp_path: Path) -> None:
    separable, joint = VIDEO_VIT, VIDEO_VIT | JOINT
    for source, target, what in (
        (separable, joint | NO_CLS, WITHOUT),
        (separable | NO_CLS, joint, OWN),
    ):
        report, state = load(
            tmp_path, tiny_options("img_vit", **source), tiny_options("img_vit", **target)
        )
        said = "the sum of pos_embed_spatial and pos_embed_temporal; "
        assert report.reshaped["pos_embed"] == said + what
        tables = {"pos_embed_spatial", "pos_embed_temporal", "pos_embed_class"}
        assert not tables & set(report.unexpected)  # they are of use
        tables = source_state(tiny_options("img_vit", **source))
        total = tables["pos_embed_temporal"][:, :, None] + tables["pos_embed_spatial"][:, None]
        got = state["pos_embed"][:, -64:]
        torch.testing.assert_close(got, total.flatten(1, 2))


def test_a_decoders_table_does_as_well(tmp_path: Path) -> None:
    options = tiny_options("mae_sincos_decsep") | {
        "MASK.DECODER_SEP_POS_EMBED": False,
        "MVIT.SEP_POS_EMBED": False,
    }
    source = {**options, "MVIT.CLS_EMBED_ON": True}
    target = {**options, "MVIT.CLS_EMBED_ON": False}
    report, state = load(tmp_path, source, target)
    table = source_state(source)["decoder_pos_embed"]
    assert torch.equal(state["decoder_pos_embed"], table[:, 1:])
    assert report.reshaped["decoder_pos_embed"] == WITHOUT


def test_what_is_not_exchanged() -> None:
    table = golden_randn(0, (1, 5, 8))
    with_row, without = TokenLayout(True, Grid(1, 2, 2)), TokenLayout(False, Grid(1, 2, 2))
    cases = [
        ("pos_embed", table, table[:, :4], with_row, with_row),
        ("pos_embed_spatial", table, table[:, :4], with_row, without),
        ("pos_embed", table, table[:, :4, :6], with_row, without),
        ("pos_embed", table[0], table[:, :4], with_row, without),
    ]
    for name, value, own, source, target in cases:
        assert exchange_class_row(name, value, own, source=source, target=target) is None


def test_a_table_without_a_row_for_the_token_of_its_file_stays(tmp_path: Path) -> None:
    """Some models do not add positions to their class token."""
    source = tiny_options("img_vit")
    state = source_state(source)
    state["pos_embed"] = state["pos_embed"][:, 1:]
    path = save_checkpoint(tmp_path / "s.pyth", {"model_state": state})
    model = receiver(tiny_options("img_vit", **NO_CLS))
    report = load_weights(model, path, complete=True)
    assert torch.equal(model.state_dict()["pos_embed"], state["pos_embed"])
    assert not report.reshaped
