"""Goldens of other implementations of the training methods: inputs, weights, and what was compared.

A golden is a pair of files: NAME.json (how to make inputs and weights, settings, scalars, and the
shape and stride of each array) and NAME.npz (arrays). Tests read sizes, seeds and settings from it,
so that they also hold for goldens with other ones: METHOD_GOLDENS names their folder.
"""

from __future__ import annotations

import json
import math
import os
import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from helpers.golden_rule import GOLDEN, golden_array
from torch import Tensor

DEFAULT_FOLDER = GOLDEN / "methods"
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}
# Entries of state dicts that the golden rule leaves as they were built.
_LEFT_ALONE = ("num_batches_tracked", "relative_position_index", "weight_g", "initted")


def golden_folder() -> Path:
    """Folder of the goldens: METHOD_GOLDENS, by default tests/golden/methods.

    Raises:
        FileNotFoundError: it has no goldens.
    """
    folder = Path(os.environ.get("METHOD_GOLDENS") or DEFAULT_FOLDER)
    if not any(folder.glob("*.json")):
        raise FileNotFoundError(f"METHOD_GOLDENS must be a folder with goldens, got {folder}")
    return folder


class MethodGolden:
    """One golden, which remembers which of its values were compared.

    Args:
        name: of its files.
        dtype: of the computation under test, float64 or float32.

    Attributes:
        settings: of the implementation that made the numbers.
        is_float32: the golden itself was computed in float32.

    Raises:
        FileNotFoundError: the golden, or its whole folder, is absent.
    """

    def __init__(self, name: str, dtype: torch.dtype = torch.float64) -> None:
        path = golden_folder() / f"{name}.json"
        if not path.exists():
            raise FileNotFoundError(f"the golden {name} must exist, got no file {path}")
        self.name = name
        self.dtype = dtype
        self._content: dict[str, Any] = json.loads(path.read_text())
        with np.load(path.with_suffix(".npz")) as archive:
            self._arrays = {key: archive[key] for key in archive.files}
        self.settings: dict[str, Any] = self._content["settings"]
        self._required: dict[str, Any] = {}
        self._compared: set[str] = set()
        kinds = {array.dtype for array in self._arrays.values() if array.dtype.kind == "f"}
        self.is_float32 = kinds == {np.dtype(np.float32)}

    @property
    def description(self) -> str:
        """Describe the arithmetic of the golden."""
        return self._content["what"]

    @property
    def scalars(self) -> Mapping[str, float]:
        """All scalars by name."""
        return self._content["scalars"]

    @property
    def array_names(self) -> tuple[str, ...]:
        """Names of all arrays."""
        return tuple(self._arrays)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a whole array, of which the file may have every so many-th entry."""
        return tuple(self._content["shape"][name])

    def stride(self, name: str) -> int:
        """Distance of the entries of an array that the file has."""
        return int(self._content["stride"][name])

    def raw(self, name: str) -> np.ndarray:
        """An array as it is in the file, for a comparison of the test's own."""
        return self._arrays[name]

    def input_names(self) -> tuple[str, ...]:
        """Names of all inputs."""
        return tuple(self._content["inputs"])

    def input(self, name: str) -> Tensor:
        """An input by its name, in the dtype of the computation if it is a floating-point one."""
        facts = self._content["inputs"][name]
        generator, shape = pcg64(facts["seed"]), tuple(facts["shape"])
        if facts["kind"] == "integers":
            return torch.from_numpy(generator.integers(facts["low"], facts["high"], shape))
        if facts["kind"] == "rand < p":
            return torch.from_numpy(generator.random(shape, dtype=np.float32) < facts["p"])
        draw = {"randn": generator.standard_normal, "rand": generator.random}[facts["kind"]]
        values = draw(shape, dtype=np.float32)
        values = values * np.float32(facts["scale"]) + np.float32(facts["shift"])
        return torch.from_numpy(values).to(self.dtype)

    def weights(self, names: Mapping[str, Iterable[int]], prefix: str = "") -> dict[str, Tensor]:
        """Weights of the golden rule, in the dtype of the computation.

        Args:
            names: name -> shape, as in the settings of a golden.
            prefix: stands before the names in the strings that seed the weights.
        """
        prefix = self._content["weights_prefix"] + prefix
        return {
            name: torch.from_numpy(_rule(prefix, name, tuple(shape))).to(self.dtype)
            for name, shape in names.items()
            if not name.endswith(_LEFT_ALONE)
        }

    def compare(self, name: str, value: Tensor | float, *, tolerance: float | None = None) -> None:
        """Check a scalar or an array, and the norm of the whole array if the golden has it.

        Args:
            name: of the value in the golden.
            value: computed; integers must be equal.
            tolerance: relative error of the 2-norm; None for that of the dtype, where the golden
                itself has that precision.
        """
        if tolerance is None:
            tolerance = TOLERANCES[torch.float32 if self.is_float32 else self.dtype]
        array = torch.as_tensor(value).detach().numpy()
        if name in self.scalars:
            self._check(name, self.scalars[name], array, tolerance)
            return
        expected = self._arrays[name]
        assert array.shape == self.shape(name), f"{self.name} {name}: {array.shape}"
        stride = self._content["stride"][name]
        part = array.reshape(-1)[::stride].reshape(expected.shape)
        if expected.dtype.kind == "i":
            different = int((part != expected).sum())
            assert not different, f"{self.name} {name}: {different} of {part.size} integers differ"
            self._compared.add(name)
        else:
            self._check(name, expected, part, tolerance)
        if f"{name}/norm" in self.scalars:
            norm = np.linalg.norm(array.astype(np.float64))
            self._check(f"{name}/norm", self.scalars[f"{name}/norm"], norm, tolerance)

    def compare_absolutely(self, name: str, value: Any, *, tolerance: float) -> None:
        """Check that no entry of a scalar, array or required value is further than `tolerance`."""
        sources = (self._required, self.scalars, self._arrays)
        expected = next(source[name] for source in sources if name in source)
        difference = np.abs(np.asarray(value, np.float64) - np.asarray(expected, np.float64))
        assert np.all(difference <= tolerance), (
            f"{self.name} {name}: off by {difference.max():.3g}, allowed {tolerance:g}"
        )
        self._compared.add(name)

    def accept(self, name: str) -> None:
        """Note that a test has compared a value by an assertion of its own."""
        assert name in self._arrays or name in self._required, f"{self.name} has no {name}"
        self._compared.add(name)

    def require(self, values: Mapping[str, Any]) -> None:
        """Add numbers of the settings to those that must be compared."""
        self._required.update(values)

    def finish(self) -> int:
        """Check that every scalar and array was compared.

        Returns:
            How many there are.
        """
        values = {*self.scalars, *self._arrays, *self._required}
        missed = sorted(values - self._compared)
        assert not missed, f"{self.name}: {len(missed)} values were not compared: {missed[:5]}"
        assert values, f"{self.name} has no values"
        return len(values)

    def _check(self, name: str, expected: Any, value: Any, tolerance: float) -> None:
        expected, value = (np.asarray(x, np.float64).reshape(-1) for x in (expected, value))
        assert value.shape == expected.shape, f"{self.name} {name}: {value.shape}"
        difference = float(np.linalg.norm(value - expected))
        size = float(np.linalg.norm(expected))
        assert math.isfinite(difference), f"{self.name} {name}: not finite"
        assert difference <= tolerance * size, (
            f"{self.name} {name}: relative error {difference / max(size, 1e-300):.3g} of {size:.6g}"
            f", allowed {tolerance:g}"
        )
        self._compared.add(name)


def pcg64(seed: int) -> np.random.Generator:
    """The generator of all draws in goldens."""
    return np.random.Generator(np.random.PCG64(seed))


def numbers_in(words: str, pattern: str) -> tuple[str, ...]:
    """Groups of a pattern in the words of a golden, which state some of its sizes and seeds."""
    match = re.search(pattern, words)
    assert match, f"{pattern} must be in the words {words!r}"
    return match.groups()


def seed_offset(words: str) -> int:
    """Return the offset to the base of all seeds, 630 in "PCG64(BASE+630)"."""
    (offset,) = numbers_in(words, r"BASE\+(\d+)")
    return int(offset)


def gumbel(seed: int, shape: Iterable[int], dtype: torch.dtype) -> Tensor:
    """Gumbel noise as in goldens: -log(e), e = -log1p(-uniform), in float64 and then cast."""
    exponential = -np.log1p(-pcg64(seed).random(tuple(shape)))
    return torch.from_numpy(-np.log(exponential)).to(dtype)


def _rule(prefix: str, name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name.endswith("running_var"):
        generator = pcg64(zlib.crc32((prefix + name).encode()))
        normal = generator.standard_normal(shape, dtype=np.float32)
        return np.float32(1) + np.float32(0.1) * np.abs(normal)
    return golden_array(name, prefix, shape=shape)
