"""The actions of a detection data set: numbers from 1 and names, in text of protocol buffers."""

from __future__ import annotations

import os
import re

from slowfast_maskfeat.files import is_file, open_text

_ITEM = re.compile(r"\b(?:item|label)\s*\{(.*?)\}", re.DOTALL)
_NUMBER = re.compile(r"\b(?:label_)?id\s*:\s*(-?\d+)")
_NAME = re.compile(r"""\bname\s*:\s*(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)')""")
_QUOTED = re.compile(r""""(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'""")


def read_labelmap(path: str | os.PathLike[str]) -> dict[int, str]:
    """Reads a label map as AVA publishes them.

    It is a text of `item { name: "walk" id: 14 }`, one for each action that counts, or of
    `label { name: "walk" label_id: 14 label_type: PERSON_MOVEMENT }`. AVA's list for its challenge
    has 60 of the 80 numbers.

    Args:
        path: The `.pbtxt` file.

    Returns:
        Number of each action, from 1, to its name, in the order of the file.

    Raises:
        ValueError: There is no such file, it holds no action, or one has no number, no name, a
            number below 1, or the number or name of another one.
    """
    path = os.fspath(path)
    if not is_file(path):
        raise ValueError(f"label map {path} does not exist")
    with open_text(path) as file:
        text = file.read()
    # Braces inside names end no item.
    bare = _QUOTED.sub(lambda quoted: "_" * len(quoted[0]), text)
    names: dict[int, str] = {}
    for item in _ITEM.finditer(bare):
        line = 1 + text.count("\n", 0, item.start())
        content = text[item.start(1) : item.end(1)]
        number, name = _NUMBER.search(bare, *item.span(1)), _NAME.search(content)
        if number is None or name is None:
            raise ValueError(f'{path}, line {line}: an item has `name: "..."` and `id: 1`')
        key, value = int(number[1]), re.sub(r"\\(.)", r"\1", name[1] or name[2] or "")
        if key < 1:
            raise ValueError(f"{path}, line {line}: the id {key}: ids count from 1")
        if key in names:
            raise ValueError(f"{path}, line {line}: the id {key} is that of {names[key]!r}, too")
        if value in names.values():
            raise ValueError(f"{path}, line {line}: the name {value!r} comes twice")
        names[key] = value
    if not names:
        raise ValueError(f'{path} holds no `item {{ name: "..." id: 1 }}`')
    return names
