"""Separators and headers of list files, and what shows them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from slowfast_maskfeat.videos.media import is_media

SEPARATORS = {" ": "a space", ",": "a comma", ";": "a semicolon", "\t": "a tab"}
_PATH_NAMES = (
    *("path", "video", "clip", "image", "file", "name", "filename", "filepath"),
    *("video_path", "clip_path", "image_path", "img_path", "file_path", "relative_path"),
    *("video_name", "clip_name", "image_name", "file_name", "video_file", "image_file"),
)
_LABEL_NAMES = (
    *("label", "labels", "class", "target", "category", "action", "activity"),
    *("label_id", "class_id", "category_id", "action_id", "class_index", "class_idx"),
    *("label_name", "class_name", "category_name", "action_name"),
)
_SEVERAL_LABELS = re.compile(r"(.+) \d+(,\d+)+")
_KINETICS_NAMES = ("youtube_id", "time_start", "time_end")


@dataclass(frozen=True)
class Columns:
    """Number of fields, and their places as named by the header.

    Attributes:
        num: number of fields.
        path: place of the path.
        label: place of the label, or None.
        kinetics: places of the parts of a path in the official Kinetics files.
        is_named: there is a header.
        note: warning for the user about a header that names several columns of a kind, or "".
    """

    num: int
    path: int = 0
    label: int | None = None
    kinetics: tuple[int, ...] = ()
    is_named: bool = True
    note: str = ""


def parse_separator(text: str) -> str:
    """Separator in the configuration; a tab also as a backslash and a t, as shells pass it.

    Raises:
        ValueError: it is none of the separators.
    """
    separator = "\t" if text == "\\t" else text
    if separator not in SEPARATORS:
        *others, last = SEPARATORS.values()
        raise ValueError(
            f"DATA.PATH_LABEL_SEPARATOR must be {', '.join(others)} or {last}, got {text!r}"
        )
    return separator


def find_separator(lines: Sequence[str]) -> str:
    """Separator that the first lines of a list show.

    Args:
        lines: the first two lines that are not blank, or fewer.
    """
    first = lines[0].strip() if lines else ""
    if "\t" in first:
        return "\t"
    # The commas of `a.mp4 3,7` are between its labels.
    for line in lines:
        several = _SEVERAL_LABELS.fullmatch(line.strip())
        if several and is_media(several[1]):
            return " "
    # The comma of `a,b.mp4 3` is in its path.
    others = [first.rpartition(mark)[2].strip() for mark in ",;"]
    is_comment = first.startswith("#")  # `# list of 99` shows nothing
    ends_in_label = first.split(" ")[-1].isdigit() and not is_comment
    if ends_in_label and not any(text.isdigit() for text in others):
        return " "
    for separator in ";,":
        if any(shows_separator(line.strip(), separator) for line in lines):
            return separator
    return "," if "," in first else " "


def shows_separator(text: str, separator: str) -> str:
    """How a line shows that a separator is between its fields, for messages; "" if it does not."""
    fields = [field.strip().strip('"') for field in text.split(separator)]
    name = SEPARATORS[separator]
    if len(fields) < 2:
        return ""
    if fields[-1].isdigit():
        return f"{name} before a number"
    if find_columns(fields) is not None:
        return f"{name} between the names of a header"
    # Names of files often contain spaces.
    if separator != " " and any(map(is_media, fields[:-1])):
        return f"{name} after the name of a file"
    return ""


def is_kinetics_header(fields: Sequence[str]) -> bool:
    """Whether a line is the header of the official Kinetics files."""
    return set(_KINETICS_NAMES) <= set(map(_normalized, fields))


def find_columns(fields: Sequence[str]) -> Columns | None:
    """Columns named by a header row; None if the row is not a header."""
    names = list(map(_normalized, fields))
    label = next((i for i, name in enumerate(names) if name in _LABEL_NAMES), None)
    if is_kinetics_header(names):
        return Columns(
            len(names), label=label, kinetics=tuple(names.index(name) for name in _KINETICS_NAMES)
        )
    path = next((i for i, name in enumerate(names) if name in _PATH_NAMES), None)
    if path is None or (len(names) > 1 and label is None):
        return None
    chosen = [_choice(fields, _PATH_NAMES, "paths"), _choice(fields, _LABEL_NAMES, "labels")]
    return Columns(len(names), path=path, label=label, note="; ".join(filter(None, chosen)))


def _choice(fields: Sequence[str], names: Sequence[str], kind: str) -> str:
    """Report that the first of several columns is read; "" if there is one at most."""
    found = [repr(field.strip()) for field in fields if _normalized(field) in names]
    if len(found) < 2:
        return ""
    return f"the header names the columns {', '.join(found)} for {kind}, of which the first is read"


OF_FRAMES = "extracted frames are read for TRAIN.DATASET charades and ava only"


def frames_hint(fields: Sequence[str]) -> str:
    """A hint at a row of a folder of frames, `folder number label`; "" if it is none."""
    is_row = len(fields) == 3 and not is_media(fields[0])
    if not is_row or not all(field.strip().isdecimal() for field in fields[1:]):
        return ""
    return f"; if it is a folder of frames with their number: {OF_FRAMES}"


def header_hint(fields: Sequence[str]) -> str:
    """Requirements that a row which may be meant as a header does not meet; "" if it is none."""
    if any(is_media(field) or is_number(field) for field in fields):
        return ""
    names = set(map(_normalized, fields))
    lacking = []
    if not names & set(_PATH_NAMES):
        lacking.append(f"the column of the paths ({', '.join(_PATH_NAMES)})")
    if len(fields) > 1 and not names & set(_LABEL_NAMES):
        lacking.append(f"the column of the labels ({', '.join(_LABEL_NAMES)})")
    if not lacking:
        return ""
    return (
        f"if this line is a header, it must name {' and '.join(lacking)}; if it is a title or a "
        "comment, remove it"
    )


def is_first_odd(rows: Sequence[Sequence[str]]) -> bool:
    """Whether only the first row of a list is malformed, such as a title above header or samples.

    It is no header, and its number of fields is not that of the rows below, which agree.

    Args:
        rows: fields of the first rows; three or more tell.
    """
    if len(rows) < 3 or find_columns(rows[0]) is not None:
        return False
    first, *below = rows
    num_fields = len(below[0])
    if len(first) == num_fields or any(len(fields) != num_fields for fields in below):
        return False
    if find_columns(below[0]) is not None:
        return True
    if num_fields == 1:  # a row of path and label is no title
        return not (len(first) == 2 and _is_label(first[1]))
    return num_fields == 2 and all(_is_label(fields[1]) for fields in below)


def _is_label(text: str) -> bool:
    """Whether a field can be the class numbers of a row, valid or not."""
    return all(map(is_number, filter(None, text.strip().strip('"').split(","))))


def is_number(text: str) -> bool:
    """Whether a label is a number, valid or not, instead of a name."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _normalized(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")
