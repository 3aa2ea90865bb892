"""Text for messages and terminals: values cut to a length, control characters escaped."""

from __future__ import annotations

import re
import reprlib

MAX_QUOTED = 200
"""Longest quotation of a value in a message, in characters."""

_CUT = "..."
# Besides what Python calls printable: spaces, and the joiners of letters and of emoji.
_SAFE = frozenset("\n\t\xa0\u3000\u200c\u200d")
# A quoted string that is too long. The apostrophe of "can't" opens none.
_LONG_QUOTE = re.compile(
    rf"""(?<![\w'"\\])(?:'(?:[^'\\]|\\.){{{MAX_QUOTED},}}'|"(?:[^"\\]|\\.){{{MAX_QUOTED},}}")""",
    re.DOTALL,
)
_LONG_WORD = re.compile(r"\S{4097,}")  # longer than any path: PATH_MAX of Linux is 4096


def printable(text: str) -> str:
    """Escape the characters of a text that would control a terminal.

    Control characters, also those that reverse the direction of writing, and bytes of a file name
    that are not UTF-8 become escapes as in a Python string; newlines and tabs stay.

    Args:
        text: any text, such as a class name from a file.
    """
    if text.isprintable():
        return text
    return "".join(
        letter
        if letter.isprintable() or letter in _SAFE
        else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )


def cut(text: str, limit: int = MAX_QUOTED) -> str:
    """Shorten a text to at most `limit` characters; the last three of a cut one are dots."""
    return text if len(text) <= limit else text[: limit - len(_CUT)] + _CUT


def quoted(value: object, limit: int = MAX_QUOTED) -> str:
    """Quote a value in a message: its `repr` in at most `limit` characters.

    Args:
        value: any value; large ones are not converted as a whole.
        limit: number of characters.
    """
    if isinstance(value, str) and len(value) > limit:
        mark = repr(value[:limit])[0]
        return cut(repr(value[:limit]), limit - 1) + mark
    return cut(_short.repr(value), limit)


def cut_quotes(message: str) -> str:
    """Shorten the quoted strings of a message, and words that are longer than any path."""
    message = _LONG_QUOTE.sub(_cut_quote, message)
    return _LONG_WORD.sub(lambda word: cut(word[0]), message)


def _cut_quote(found: re.Match[str]) -> str:
    mark = found[0][0]
    return f"{mark}{cut(found[0][1:-1], MAX_QUOTED - 2)}{mark}"


class _Short(reprlib.Repr):
    """Representations whose cost and length do not grow with the value."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 8
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = 64
        self.maxstring = self.maxlong = self.maxother = MAX_QUOTED

    def repr_int(self, x: int, level: int) -> str:
        if x.bit_length() > 4 * MAX_QUOTED:  # Python itself refuses to write those of 4300 digits
            return f"an integer of {x.bit_length()} bits"
        return repr(x)


_short = _Short()
