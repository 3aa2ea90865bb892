"""The table of methods: which row a configuration selects, and what is wrong where none fits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from slowfast_maskfeat.builders import methods
from slowfast_maskfeat.builders.methods import METHODS, MethodKey, find_method, register_method
from slowfast_maskfeat.config import load_config

PLAIN = METHODS[MethodKey("MaskMViT", masked=True)]
LATENTS, PIXELS = replace(PLAIN, has_labels=True), replace(PLAIN, is_tested=True)
MASKED = ("MODEL.MODEL_NAME", "MaskMViT", "MODEL.ARCH", "maskmvit", "MASK.ENABLE", "True")


@pytest.fixture(autouse=True)
def table(monkeypatch):
    """A copy, so that no other test sees the rows of these."""
    monkeypatch.setattr(methods, "METHODS", dict(METHODS))


def test_the_row_of_a_kind_precedes_the_row_without_one():
    select = {"masked": True, "kind_key": "MASK.TARGET"}
    register_method("MaskMViT", LATENTS, kind="toy latents", **select)
    assert find_method(load_config([], [*MASKED, "MASK.TARGET", "toy latents"])) is LATENTS
    assert find_method(load_config([], [*MASKED, "MASK.TARGET", "hog"])) is PLAIN
    with pytest.raises(ValueError, match=r"already registered for .* MASK\.TARGET 'toy latents'"):
        register_method("MaskMViT", PIXELS, kind="toy latents", **select)


def test_a_name_with_kinds_alone_requires_one_of_them():
    for kind, row in (("tube", LATENTS), ("cube", PIXELS)):
        register_method("Twins", row, kind_key="AUG.MASK_KIND", kind=kind)
    assert (
        find_method(load_config([], ["MODEL.MODEL_NAME", "Twins", "AUG.MASK_KIND", "cube"]))
        is PIXELS
    )
    with pytest.raises(
        ValueError, match=r"AUG\.MASK_KIND must be one of 'tube', 'cube' .* got 'frame'"
    ):
        find_method(load_config([], ["MODEL.MODEL_NAME", "Twins", "AUG.MASK_KIND", "frame"]))


def test_a_kind_is_a_value_of_a_key():
    with pytest.raises(ValueError, match=r"kind_key must be a configuration key, got 'TOY\.TYPE'"):
        register_method("Twins", PLAIN, kind_key="TOY.TYPE", kind="a")


def test_switches_that_contradict_the_name_are_an_error():
    cfg = load_config([], ["MODEL.MODEL_NAME", "MaskMViT", "MODEL.ARCH", "maskmvit"])
    with pytest.raises(ValueError, match=r"requires MASK\.ENABLE True .* got MASK\.ENABLE False"):
        find_method(cfg)
    with pytest.raises(
        ValueError,
        match=r"MODEL_NAME must be one of 'ContrastiveModel', 'MViT', .*, 'Tokenizer', got 'X'",
    ):
        find_method(load_config([], ["MODEL.MODEL_NAME", "X"]))
