"""Which weights a run starts from, by its configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fvcore.common.config import CfgNode
from helpers.tiny_cases import model_of, tiny_options
from helpers.tiny_checkpoints import IMAGE, receiver, source_file, source_state

from slowfast_maskfeat.builders.weights import (
    check_resumable,
    inflation,
    load_first_weights,
    load_tested_weights,
)
from slowfast_maskfeat.checkpoints import save_checkpoint
from slowfast_maskfeat.config import load_config

NAMES = [f"class {number}" for number in range(20)]


def configuration(*pairs: object) -> CfgNode:
    return load_config([], [str(word) for word in pairs])


@pytest.mark.parametrize(
    ("given", "in_init", "inflate", "expected"),
    [
        ("", False, False, "mean"),
        ("", True, False, "repeat"),
        ("", False, True, "mean"),
        ("mean", True, False, "mean"),
        ("repeat", False, True, "repeat"),
        ("mean", True, True, "mean"),
    ],
)
def test_the_new_key_wins_over_the_two_published_ones(
    given: str, in_init: bool, inflate: bool, expected: str
) -> None:
    cfg = configuration(
        *("TRAIN.CHECKPOINT_INFLATION", given),
        *("TRAIN.CHECKPOINT_IN_INIT", in_init),
        *("TRAIN.CHECKPOINT_INFLATE", inflate),
    )
    assert inflation(cfg) == expected


def test_the_two_published_keys_contradict_each_other() -> None:
    both = ("TRAIN.CHECKPOINT_IN_INIT", True, "TRAIN.CHECKPOINT_INFLATE", True)
    with pytest.raises(
        ValueError, match=r"CHECKPOINT_IN_INIT and .*CHECKPOINT_INFLATE must .* True and True"
    ):
        inflation(configuration(*both))


def test_a_word_that_is_no_inflation_is_refused() -> None:
    with pytest.raises(ValueError, match=r"CHECKPOINT_INFLATION .*got 'sum'"):
        configuration("TRAIN.CHECKPOINT_INFLATION", "sum")


@pytest.mark.parametrize("in_init", [False, True])
def test_an_image_checkpoint_grows_as_the_keys_say(tmp_path: Path, in_init: bool) -> None:
    path = source_file(tmp_path, tiny_options("v2_k400", **IMAGE))
    model = receiver(tiny_options("v2_k400"))
    load_first_weights(configuration("TRAIN.CHECKPOINT_IN_INIT", in_init), model, path)
    kernel = source_state(tiny_options("v2_k400", **IMAGE))["patch_embed.proj.weight"]
    sums = model.state_dict()["patch_embed.proj.weight"].sum(dim=2)
    torch.testing.assert_close(sums, 3 * kernel if in_init else kernel)


def test_how_much_must_be_filled_is_a_key(tmp_path: Path) -> None:
    path = source_file(tmp_path, tiny_options("img_vit"))
    with pytest.raises(ValueError, match=r"95\.0% of TRAIN\.CHECKPOINT_MIN_COVERAGE"):
        load_first_weights(configuration(), receiver(tiny_options("v2_ft")), path)
    cfg = configuration("TRAIN.CHECKPOINT_MIN_COVERAGE", 0.0)
    assert load_first_weights(cfg, receiver(tiny_options("v2_ft")), path).coverage < 0.5


def test_names_are_cleared_by_a_key(tmp_path: Path) -> None:
    state = {f"net.{name}": x for name, x in source_state(tiny_options("img_vit")).items()}
    path = save_checkpoint(tmp_path / "s.pyth", {"model_state": state})
    cfg = configuration("TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN", ["net."])
    for load in (load_first_weights, load_tested_weights):
        assert not load(cfg, receiver(tiny_options("img_vit")), path).missing


def test_what_training_starts_anew_is_a_key(tmp_path: Path) -> None:
    """Of the names' beginnings, and said; a test takes everything all the same."""
    path = source_file(tmp_path, tiny_options("img_vit"))
    cfg = configuration("TRAIN.CHECKPOINT_LEAVE_OUT", ["norm.", "head."])
    model = receiver(tiny_options("img_vit"))
    before = model.state_dict()["norm.weight"].clone()
    cfg_small = configuration(
        "TRAIN.CHECKPOINT_LEAVE_OUT", ["norm."], "TRAIN.CHECKPOINT_MIN_COVERAGE", 0.9
    )
    report = load_first_weights(cfg_small, model, path)
    assert report.missing == report.left_out == ("norm.weight", "norm.bias")
    assert report.unexpected == ()
    assert "left out                     2  norm.* (2)" in str(report)
    assert torch.equal(model.state_dict()["norm.weight"], before)
    assert not load_tested_weights(cfg, model, path).missing


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    state = source_state(tiny_options("v2_ft"))
    return save_checkpoint(tmp_path / "s.pyth", {"model_state": state, "class_names": NAMES})


def data(folder: Path, names: list[str], *pairs: object) -> CfgNode:
    """A configuration of a data set with these classes."""
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in names))
    return configuration("DATA.PATH_TO_DATA_DIR", folder, *pairs)


def test_fine_tuning_compares_the_classes(tmp_path: Path, classifier: Path) -> None:
    model = receiver(tiny_options("v2_ft"))
    assert load_first_weights(data(tmp_path, NAMES), model, classifier).classifier == ""
    other = data(tmp_path, [*NAMES[:19], "juggling"])
    assert "'juggling'" in load_first_weights(other, model, classifier).classifier
    turned = data(tmp_path, NAMES[::-1])
    with pytest.raises(ValueError, match="in another order"):
        load_first_weights(turned, model, classifier)
    alone = data(tmp_path, NAMES[::-1], "TRAIN.CHECKPOINT_LEAVE_OUT", "['head.']")
    assert "head.projection.weight" in load_first_weights(alone, model, classifier).missing


def test_testing_compares_the_classes(tmp_path: Path, classifier: Path) -> None:
    model = receiver(tiny_options("v2_ft"))
    assert not load_tested_weights(data(tmp_path, NAMES), model, classifier).missing
    assert not load_tested_weights(configuration(), model, classifier).missing
    for names in (NAMES[::-1], [*NAMES[:19], "juggling"]):
        with pytest.raises(ValueError, match="the data set's is"):
            load_tested_weights(data(tmp_path, names), model, classifier)


def test_testing_needs_everything(tmp_path: Path) -> None:
    path = source_file(tmp_path, tiny_options("pt_video_hog"))
    with pytest.raises(ValueError, match="does not fill the whole model"):
        load_tested_weights(configuration(), model_of(tiny_options("v2_ft")), path)


def test_going_on_compares_the_classes_of_a_classifier_only(tmp_path: Path) -> None:
    payload = {"class_names": NAMES}
    check_resumable(data(tmp_path, NAMES), payload, "p")
    check_resumable(data(tmp_path, NAMES[:2]), {}, "p")
    for names in (NAMES[::-1], NAMES[:2], ["juggling", *NAMES[1:]]):
        with pytest.raises(ValueError, match=r"^p: "):
            check_resumable(data(tmp_path, names), payload, "p")
    check_resumable(
        data(tmp_path, NAMES[:2], "MASK.ENABLE", True, "MODEL.MODEL_NAME", "MaskMViT"), payload, "p"
    )
