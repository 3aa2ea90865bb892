"""A classifier is loaded for its own classes only."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.tiny_cases import tiny_options
from helpers.tiny_checkpoints import receiver, source_state

from slowfast_maskfeat.checkpoints import compare_class_names, load_weights, save_checkpoint

NAMES = [f"class {number}" for number in range(20)]
HEAD = ("head.projection.weight", "head.projection.bias")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A classifier of 20 classes with their names."""
    state = source_state(tiny_options("v2_ft"))
    return save_checkpoint(tmp_path / "s.pyth", {"model_state": state, "class_names": NAMES})


def load(path: Path, **options: object):
    model = receiver(tiny_options("v2_ft"))
    before = model.head.projection.weight.detach().clone()
    report = load_weights(model, path, **options)
    return report, torch.equal(model.head.projection.weight, before)


@pytest.mark.parametrize("names", [(), NAMES, tuple(NAMES)], ids=["unknown", "list", "tuple"])
@pytest.mark.parametrize("complete", [False, True])
def test_the_same_classes(path: Path, names: list[str], complete: bool) -> None:
    report, untouched = load(path, class_names=names, complete=complete)
    assert not untouched
    assert report.classifier == ""
    assert "classifier" not in str(report)


def test_a_file_without_names_is_not_compared_which_is_said(tmp_path: Path) -> None:
    state = source_state(tiny_options("v2_ft"))
    trust = "  the file has no class names: the order of its classes could not be checked"
    for extra in ({}, {"class_names": []}):
        path = save_checkpoint(tmp_path / "s.pyth", {"model_state": state, **extra})
        report, untouched = load(path, class_names=NAMES)
        assert not untouched
        assert report.classifier == ""
        assert str(report).splitlines()[-1] == trust
        # Not where there is nothing to compare with, or no classifier was loaded.
        assert trust not in str(load(path)[0])
        assert trust not in str(load(path, class_names=NAMES, clear_names=["head."])[0])


def test_other_classes_start_anew_when_training(path: Path) -> None:
    other = [*NAMES[:3], "juggling", *NAMES[4:]]
    report, untouched = load(path, class_names=other)
    assert untouched
    assert report.missing == HEAD
    assert report.coverage == 1.0
    assert str(report).endswith(
        "classifier left as initialized: of other classes, its class 3 is 'class 3', the data "
        "set's is 'juggling'"
    )


def test_other_classes_are_an_error_when_testing(path: Path) -> None:
    other = [*NAMES[:3], "juggling", *NAMES[4:]]
    with pytest.raises(ValueError, match=r"class 3 is 'class 3', the data set's is 'juggling'; "):
        load(path, class_names=other, complete=True)


def test_the_same_classes_in_another_order_are_always_an_error(path: Path) -> None:
    turned = NAMES[::-1]
    for complete in (False, True):
        with pytest.raises(ValueError, match="in another order"):
            load(path, class_names=turned, complete=complete)
    with pytest.raises(ValueError, match=r"CHECKPOINT_LEAVE_OUT \"\['head\.'\]\""):
        load(path, class_names=turned)


def test_the_way_out_that_the_error_tells_works(path: Path) -> None:
    report, untouched = load(path, class_names=NAMES[::-1], leave_out=["head."])
    assert untouched
    assert report.missing == HEAD
    assert report.coverage == 1.0


def test_another_number_of_classes_is_told_by_its_sizes(path: Path) -> None:
    model = receiver(tiny_options("v2_ft", MODEL__NUM_CLASSES=7))
    report = load_weights(model, path, class_names=NAMES[:7])
    assert report.classifier == "the file has 20 classes, the model 7"


def test_a_model_without_a_classifier_does_not_care(path: Path) -> None:
    report = load_weights(receiver(tiny_options("pt_video_hog")), path, class_names=["a", "b"])
    assert report.classifier == ""
    assert report.coverage == 1.0


def test_lists_of_names() -> None:
    assert compare_class_names((), ["a"], "p") == ""
    assert compare_class_names(["a"], (), "p") == ""
    assert compare_class_names(["a", "b"], ("a", "b"), "p") == ""
    assert compare_class_names(["a"], ["a", "b"], "p", may_start_anew=True) == (
        "it has 1 classes, the data set has 2"
    )
    with pytest.raises(ValueError, match=r"^p: it has 1 classes, the data set has 2; "):
        compare_class_names(["a"], ["a", "b"], "p")
    with pytest.raises(ValueError, match=r"of the checkpoint$"):
        compare_class_names(["a", "b"], ["b", "a"], "p")
