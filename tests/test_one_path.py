"""Images and video go one way: nothing but a record of choices asks which it is.

Readers know what a file is and the patch embedding cuts in two or in three axes; what the published
recipes of images and of videos do otherwise stands in `build/image_recipe.py` alone.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "slowfast_maskfeat"
ROOMS = ("backbones", "clips", "engine", "losses", "masks", "metrics", "targets", "tasks")
ASKS_FOR_IMAGES = re.compile(
    r"\b(is_|has_|of_)?(still_|single_)?(image|2d|images_only)(_data)?\b"
    r"|NUM_FRAMES\b.*==|NUM_FRAMES [<>!]|PATCH_2D"
)
# What in build/ asks all the same: the record, and whether two keys of the patch embedding agree.
RECIPE = "image_recipe.py"
PATCH_KEYS = "(len(keys.PATCH_KERNEL) == 2) != keys.PATCH_2D"


def _conditions(source: str) -> list[str]:
    """What a file decides by: conditions, and the parts of `and` and `or`."""
    conditions: list[ast.expr] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.If | ast.IfExp | ast.While):
            conditions.append(node.test)
        elif isinstance(node, ast.Match):
            conditions.append(node.subject)
        elif isinstance(node, ast.BoolOp):
            conditions += node.values
    return list(dict.fromkeys(map(ast.unparse, conditions)))


def _asking(path: Path) -> list[str]:
    return [text for text in _conditions(path.read_text()) if ASKS_FOR_IMAGES.search(text)]


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_asks_whether_a_clip_is_an_image(room: str) -> None:
    files = sorted((PACKAGE / room).rglob("*.py"))
    assert files
    assert {p.name: _asking(p) for p in files if _asking(p) and p.name != "patch_embed.py"} == {}


def test_the_patch_embedding_does() -> None:
    assert "self.is_2d" in _asking(PACKAGE / "backbones/patch_embed.py")


def test_the_record_of_choices_alone_asks_where_the_configuration_is_read() -> None:
    files = sorted((PACKAGE / "builders").glob("*.py"))
    asking = {path.name: _asking(path) for path in files if _asking(path)}
    assert asking.pop(RECIPE)
    (of_patches,) = asking.pop("encoder.py")
    assert re.sub(r"[()]", "", of_patches) == re.sub(r"[()]", "", PATCH_KEYS)
    assert asking == {}


@pytest.mark.parametrize(
    "source",
    [
        "x = 1 if is_image_data(cfg) else 2",
        "x = data.ANTIALIAS or is_image_data(cfg)",
        "if cfg.DATA.NUM_FRAMES == 1: pass",
        "x = bool(cfg.MVIT.PATCH_2D and y)",
    ],
)
def test_a_question_is_found(source: str, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(source)
    assert _asking(tmp_path / "a.py")
