"""Images and video go one way: nothing behind readers and patch embedding asks which it is."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "slowfast_maskfeat"
ROOMS = ("backbones", "clips", "engine", "losses", "masks", "metrics", "targets", "tasks")
ASKS_FOR_IMAGES = re.compile(r"\b(is_|has_|of_)?(still_|single_)?(image|2d|images_only)(_data)?\b")


def _conditions(source: str) -> list[str]:
    """What a file decides by."""
    kinds = (ast.If, ast.IfExp, ast.While, ast.Match)
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]
    return [ast.unparse(n.subject if isinstance(n, ast.Match) else n.test) for n in nodes]


def _asking(path: Path) -> list[str]:
    return [text for text in _conditions(path.read_text()) if ASKS_FOR_IMAGES.search(text)]


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_asks_whether_a_clip_is_an_image(room: str) -> None:
    files = sorted((PACKAGE / room).rglob("*.py"))
    assert files
    assert {p.name: _asking(p) for p in files if _asking(p) and p.name != "patch_embed.py"} == {}


def test_the_patch_embedding_does() -> None:
    assert "self.is_2d" in _asking(PACKAGE / "backbones/patch_embed.py")
