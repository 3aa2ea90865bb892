"""Fonts for names in any script: class and file names are drawn as they are written."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

_FIRST_FAMILY = "DejaVu Sans"  # comes with matplotlib
# Fonts that have a glyph for everything, which shows only that the character is unknown.
_PLACEHOLDERS = ("last resort", "lastresort", "fallback", "blank")


class Fonts(NamedTuple):
    """Fonts that together have the characters of some texts.

    Attributes:
        families: names of the fonts, the first one first.
        missing: characters that no installed font has.
    """

    families: list[str]
    missing: frozenset[str]

    def drawable(self, text: str) -> str:
        r"""A text without characters that can't be drawn: they become escapes such as `\u6253`.

        Characters without a shape, such as those for the direction of writing, are left out.
        """
        shaped = (c for c in text if unicodedata.category(c) != "Cf")
        return "".join(_escape(c) if self._is_missing(c) else c for c in shaped)

    def _is_missing(self, character: str) -> bool:
        return character in self.missing or not (character.isprintable() or character == "\n")


def find_fonts(texts: Iterable[str]) -> Fonts:
    """Find installed fonts for the characters of texts, DejaVu Sans first."""
    return _fonts_for(frozenset(c for text in texts for c in text if c.isprintable()))


def font_file(fonts: Fonts) -> str:
    """File of the one font that has most of the characters, for libraries that draw with one."""
    from matplotlib.font_manager import findfont

    # A font of another script has Latin letters, too.
    path: str = findfont(fonts.families[-1])
    return path


@cache
def _fonts_for(characters: frozenset[str]) -> Fonts:
    from matplotlib.font_manager import findfont

    missing = characters - _covered(findfont(_FIRST_FAMILY), characters)
    families = [_FIRST_FAMILY]
    others = _installed() if missing else {}
    while missing:
        found = {name: _covered(path, missing) for name, path in others.items()}
        best = max(found, key=lambda name: len(found[name]), default="")
        if not best or not found[best]:
            break
        families.append(best)
        missing -= found[best]
        others = {name: path for name, path in others.items() if found[name]}
    return Fonts(families, missing)


def _installed() -> dict[str, str]:
    """Name -> path of the upright regular fonts, in the order of their names."""
    from matplotlib.font_manager import fontManager

    regular = (400, "normal", "regular", "book", "roman")
    return {
        entry.name: entry.fname
        for entry in sorted(fontManager.ttflist, key=lambda entry: (entry.name, entry.fname))
        if entry.style == "normal"
        and entry.weight in regular
        and not any(word in entry.name.lower() for word in _PLACEHOLDERS)
    }


def _covered(path: str, characters: frozenset[str]) -> frozenset[str]:
    """Those of some characters that a font file has as outlines."""
    from matplotlib.font_manager import get_font

    try:
        font = get_font(path)
        return frozenset(c for c in characters if font.get_char_index(ord(c)) and font.scalable)
    except Exception:  # matplotlib raises errors of many types for font files that it can't read
        return frozenset()


def _escape(character: str) -> str:
    return ascii(character)[1:-1]
