"""Folders of models of Hugging Face's transformers: their files, and the fields of their JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from slowfast_maskfeat.log import first_line
from slowfast_maskfeat.text import cut, quoted

CONFIG = "config.json"
"""Name of the file with the configuration of a model."""

PROCESSOR = "preprocessor_config.json"
"""Name of the file with the normalization of its inputs."""

_VIDEO_PROCESSOR = "video_preprocessor_config.json"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_INDEX = ".index.json"  # behind the name of the weights, if they are in several files
_NO_DEFAULTS: Mapping[str, Any] = MappingProxyType({})
# transformers subtracts the mean from pixel values times this factor.
_RESCALE, _TOLERANCE = 1 / 255, 1e-3


class Fields:
    """Fields of a JSON file. Errors name the file and the field.

    Args:
        path: of the file, which holds an object.
        defaults: values of fields that the file may lack.

    Raises:
        ValueError: the file can't be read, or is not a JSON object.
    """

    def __init__(self, path: Path, defaults: Mapping[str, Any] = _NO_DEFAULTS) -> None:
        self.path = path
        self._values: dict[str, Any] = {**defaults, **_read_object(path)}

    def get(self, name: str) -> Any:
        """Return the value of a field; None if there is none."""
        return self._values.get(name)

    def integer(self, name: str) -> int:
        """Return a field that is a whole number >= 1."""
        value = self.get(name)
        if type(value) is not int or value < 1:
            raise self.error(name, "a whole number >= 1")
        return value

    def number(self, name: str, low: float, high: float) -> float:
        """Return a field that is a number in [low, high]."""
        value = self.get(name)
        if type(value) not in (int, float) or not low <= value <= high:
            raise self.error(name, f"a number in [{low:g}, {high:g}]")
        return float(value)

    def flag(self, name: str) -> bool:
        """Return a field that is true or false."""
        value = self.get(name)
        if type(value) is not bool:
            raise self.error(name, "true or false")
        return value

    def side(self, name: str) -> int:
        """Return the side of a square in pixels, stored once or for rows and columns."""
        value = self.get(name)
        sides = value if isinstance(value, list) and len(value) == 2 else [value]
        if any(type(side) is not int or side < 1 or side != sides[0] for side in sides):
            raise self.error(name, "the side of a square in pixels")
        return int(sides[0])

    def colors(self, name: str, *, low: float) -> list[float]:
        """Return a field with a number for red, green and blue, each above `low`."""
        value = self.get(name)
        numbers = value if isinstance(value, list) else []
        if len(numbers) != 3 or not all(
            type(number) in (int, float) and math.isfinite(number) and number > low
            for number in numbers
        ):
            raise self.error(name, "three numbers, for red, green and blue")
        return [float(number) for number in numbers]

    def require(self, name: str, accepted: Sequence[Any], reason: str = "") -> None:
        """Check that a field has one of some values.

        Args:
            name: of the field.
            accepted: the values.
            reason: why, for the message.

        Raises:
            ValueError: it has another value.
        """
        if self.get(name) not in accepted:
            values = " or ".join(json.dumps(value) for value in accepted)
            raise self.error(name, f"{values}{reason and f', since {reason}'}")

    def error(self, name: str, expected: str) -> ValueError:
        """Return the error for a field with another value than expected."""
        got = quoted(self.get(name)) if name in self._values else "no such field"
        return ValueError(f"{self.path}: {name!r} must be {expected}, got {got}")


def is_hugging_face(path: Path) -> bool:
    """Whether a path is a folder with the configuration of a model of transformers."""
    return path.is_dir() and (path / CONFIG).is_file()


def weights_file(folder: Path) -> Path:
    """Find the weights in a folder of transformers.

    Returns:
        The file, or the index of several ones, which `load_checkpoint` refuses.

    Raises:
        ValueError: there are none.
    """
    names = [*_WEIGHTS, *(f"{name}{_INDEX}" for name in _WEIGHTS)]
    found = [folder / name for name in names if (folder / name).is_file()]
    if not found:
        raise ValueError(f"{folder} must have {' or '.join(_WEIGHTS)} beside {CONFIG}, got neither")
    return found[0]


def read_class_names(fields: Fields, num_classes: int) -> tuple[str, ...]:
    """Read the class names of config.json, in the order of the logits.

    Args:
        fields: of config.json.
        num_classes: outputs of the classifier.

    Returns:
        The names; empty if there are none but the placeholders `LABEL_0`, `LABEL_1`, ...

    Raises:
        ValueError: `id2label` is not a name for each output.
    """
    named = fields.get("id2label")
    if named is None:
        return ()
    numbers = [str(number) for number in range(num_classes)]
    if (
        not isinstance(named, dict)
        or set(named) != set(numbers)
        or not all(isinstance(name, str) for name in named.values())
    ):
        count = f"{len(named)} entries" if isinstance(named, dict) else quoted(named)
        raise ValueError(
            f"{fields.path}: 'id2label' must have a name for each of the {num_classes} outputs of "
            f"the classifier, from '0' to '{num_classes - 1}', got {count}"
        )
    if all(named[number] == f"LABEL_{number}" for number in numbers):
        return ()
    return tuple(named[number] for number in numbers)


def read_normalization(folder: Path) -> tuple[list[float], list[float]] | None:
    """Read mean and standard deviation of the pixel values in 0..1, of red, green and blue.

    Args:
        folder: of transformers.

    Returns:
        Both; None if the folder has no file with them.

    Raises:
        ValueError: the file is malformed, or pixel values are not divided by 255.
    """
    files = [folder / name for name in (PROCESSOR, _VIDEO_PROCESSOR)]
    path = next((file for file in files if file.is_file()), None)
    if path is None:
        return None
    defaults = {"do_rescale": True, "rescale_factor": _RESCALE, "do_normalize": True}
    fields = Fields(path, defaults)
    fields.require("do_rescale", [True], "pixel values are divided by 255 here")
    fields.number("rescale_factor", _RESCALE * (1 - _TOLERANCE), _RESCALE * (1 + _TOLERANCE))
    if not fields.flag("do_normalize"):
        return [0.0] * 3, [1.0] * 3
    return fields.colors("image_mean", low=-math.inf), fields.colors("image_std", low=0.0)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} must be a JSON file, but {cut(first_line(error))}") from error
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error.strerror}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, got a {type(content).__name__}")
    return content
