"""Something-Something v2: official JSON labels, and videos `<id>.webm`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from slowfast_maskfeat.datasets.list_file import read_own_list
from slowfast_maskfeat.datasets.row_collector import RowCollector, RowError
from slowfast_maskfeat.datasets.video_list import DataFolder, MissingListError, VideoList
from slowfast_maskfeat.files import open_text
from slowfast_maskfeat.text import quoted

# The archives have used two naming schemes; the labels may be in a subfolder.
_FILE_FORMS = ("something-something-v2-{}.json", "{}.json", "labels/{}.json")
_VIDEO_FOLDERS = ("20bn-something-something-v2", "videos")
# The labels of the test set are not published, so the validation set is tested.
_PARTS = {"train": "train", "val": "validation", "test": "validation"}


def read_ssv2(data: DataFolder, split: str, class_names: Sequence[str] | None = None) -> VideoList:
    """Read Something-Something v2.

    The files are `something-something-v2-train.json` and `-validation.json`, or `train.json` and
    `validation.json`, in the folder or its `labels/`; so are the templates (`ssv2_class_names`).
    A test reads the validation set, as published. Videos are `<id>.webm` in DATA.PATH_PREFIX, or
    in `20bn-something-something-v2` or `videos`.

    Raises:
        MissingListError: there is neither such a file nor a list `<split>.csv`.
        ValueError: see `read_ssv2_labels`.
    """
    own = read_own_list(data, split, class_names)
    if own is not None:
        return own
    part = _PARTS[split]
    path = data.find(*(form.format(part) for form in _FILE_FORMS))
    if path is None:
        raise MissingListError(
            f"{data.path} has neither {split}.csv nor something-something-v2-{part}.json or "
            f"{part}.json"
        )
    names = class_names or ssv2_class_names(data)
    return read_ssv2_labels(path, data.videos(*_VIDEO_FOLDERS), class_names=names)


def ssv2_class_names(data: DataFolder) -> tuple[str, ...] | None:
    """Templates by number, from `something-something-v2-labels.json` or `labels.json`.

    Raises:
        ValueError: the file is malformed.
    """
    path = data.find(*(form.format("labels") for form in _FILE_FORMS))
    if path is None:
        return None
    templates = _load(path, dict)
    try:
        numbers = {_bare(name): int(number) for name, number in templates.items()}
    except (TypeError, ValueError):
        raise ValueError(f"{path} must map templates to numbers") from None
    if not numbers or sorted(numbers.values()) != list(range(len(templates))):
        raise ValueError(
            f"{path} must map its {len(templates)} templates to 0..{len(templates) - 1}"
        )
    return tuple(sorted(numbers, key=numbers.__getitem__))


def read_ssv2_labels(
    path: str, folder: str, *, class_names: Sequence[str] | None = None
) -> VideoList:
    """Read an official JSON file.

    Args:
        path: a list of objects with `id` and, except in the test set, `template`.
        folder: folder of the videos.
        class_names: templates by number; without it they are numbered in sorted order.

    Raises:
        ValueError: entries are malformed; the message names the file and their numbers.
    """
    rows = RowCollector(path, class_names, unit="entry")
    is_labeled: bool | None = None
    for number, entry in enumerate(_load(path, list), 1):
        with rows.row(number):
            if not isinstance(entry, dict):
                raise RowError(f"an entry must be an object, got {quoted(entry)}")
            identity, template = str(entry.get("id") or "").strip(), entry.get("template")
            if not identity:
                raise RowError("no id")
            if is_labeled is None:
                is_labeled = template is not None
            if (template is not None) != is_labeled:
                raise RowError(
                    "no template" if is_labeled else "a template, unlike earlier entries"
                )
            label = rows.named(_bare(str(template))) if is_labeled else None
            rows.add(number, f"{identity}.webm", label)
    return rows.finish(folder)


def _bare(template: str) -> str:
    """Remove the brackets of `Holding [something]`, which the list of templates lacks."""
    return template.replace("[", "").replace("]", "").strip()


def _load(path: str, kind: type) -> Any:
    try:
        with open_text(path) as file:
            content = json.load(file)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} must be valid JSON: {error}") from error
    if not isinstance(content, kind):
        expected = "an object" if kind is dict else "a list"
        raise ValueError(f"{path} must contain {expected}, got {type(content).__name__}")
    return content
