"""Label maps of detection data sets: numbers and names of actions as protocol buffer text."""

from __future__ import annotations

import os
import re

from slowfast_maskfeat.files import is_file, open_text
from slowfast_maskfeat.text import quoted

_MAX_ID = 2**16  # every number up to the highest becomes an output of the classifier
_ITEM = re.compile(r"\b(?:item|label)\s*\{([^{}]*)\}")
_START = re.compile(r"\b(?:item|label)\s*\{")
_NUMBER = re.compile(r"\b(?:label_)?id\s*:\s*(-?\d{1,18})\b")
_NAME = re.compile(r"""\bname\s*:\s*(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)')""")
_QUOTED = re.compile(r""""(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'""")
_COMMENT = re.compile(rf"({_QUOTED.pattern})|#[^\n]*")
_ESCAPE = re.compile(
    rb"\\([0-7]{1,3}|[xX][0-9a-fA-F]{1,2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL
)
_CONTROLS = {b"a": 7, b"b": 8, b"t": 9, b"n": 10, b"v": 11, b"f": 12, b"r": 13}


def read_labelmap(path: str | os.PathLike[str]) -> dict[int, str]:
    """Read a label map in AVA's format.

    It consists of `item { name: "walk" id: 14 }` for each evaluated action, or of
    `label { name: "walk" label_id: 14 label_type: PERSON_MOVEMENT }`. The map of AVA's challenge
    has 60 of the 80 numbers.

    Args:
        path: the `.pbtxt` file.

    Returns:
        Number (from 1) -> name of each action, in the order of the file.

    Raises:
        ValueError: the file does not exist, is not UTF-8 or has no action, or an action has no
            number, no name, a number outside 1..65536, or the number or name of another one.
    """
    path = os.fspath(path)
    if not is_file(path):
        raise ValueError(f"label map {path} does not exist")
    try:
        with open_text(path) as file:
            text = file.read()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be UTF-8 text: {error}") from error
    text = _COMMENT.sub(lambda found: found[1] or " " * len(found[0]), text)
    # Braces inside names do not end an item.
    bare = _QUOTED.sub(lambda quoted: "_" * len(quoted[0]), text)
    names: dict[int, str] = {}
    taken: set[str] = set()
    for item in _ITEM.finditer(bare):
        line = 1 + text.count("\n", 0, item.start())
        content = text[item.start(1) : item.end(1)]
        number, name = _NUMBER.search(bare, *item.span(1)), _NAME.search(content)
        if number is None or name is None:
            raise ValueError(f'{path}, line {line}: an item must have `name: "..."` and `id: 1`')
        key = int(number[1])
        try:
            value = _unescaped(name[1] or name[2] or "")
        except (ValueError, OverflowError) as error:  # no character has these bytes or number
            raise ValueError(f"{path}, line {line}: the name must be UTF-8: {error}") from error
        if not value.isprintable():
            raise ValueError(f"{path}, line {line}: the name must be printable, got {value!r}")
        if not 1 <= key <= _MAX_ID:
            raise ValueError(f"{path}, line {line}: the id must be in [1, {_MAX_ID}], got {key}")
        if key in names:
            first = quoted(names[key])
            raise ValueError(f"{path}, line {line}: ids must be unique, got {key} as for {first}")
        if value in taken:
            raise ValueError(
                f"{path}, line {line}: names must be unique, got {quoted(value)} twice"
            )
        names[key] = value
        taken.add(value)
    if len(_START.findall(bare)) > len(names):
        raise ValueError(f"{path} must have items without braces in them, and a }} after each")
    if not names:
        raise ValueError(f'{path} must contain `item {{ name: "..." id: 1 }}`, got none')
    return names


def _unescaped(text: str) -> str:
    """Replace the escapes of protocol buffer text, which are those of C and of single bytes.

    Raises:
        UnicodeDecodeError: the bytes are not UTF-8.
    """

    def character(found: re.Match[bytes]) -> bytes:
        code = found[1]
        if code[:1].isdigit() and code < b"8":
            return bytes([int(code, 8) & 255])
        if code[:1] in b"xX" and len(code) > 1:
            return bytes([int(code[1:], 16)])
        if code[:1] in b"uU" and len(code) > 1:
            return chr(int(code[1:], 16)).encode("utf-8", "surrogatepass")
        return bytes([_CONTROLS[code]]) if code in _CONTROLS else code

    return _ESCAPE.sub(character, text.encode()).decode()
