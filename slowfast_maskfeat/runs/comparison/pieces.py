"""Pieces of a comparison: its runs, and which needs which."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fvcore.common.config import CfgNode

from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.runs.comparison.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One run of a comparison.

    Attributes:
        name: such as `seed_0/hog/finetune`.
        title: for messages.
        kind: stage or judge.
        folder: of the run, relative to that of the comparison; the probes of a network share one.
        task: TASK of the run, which names its checkpoints.
        file: YAML file.
        keys: over the file.
        checkpoints: key -> name of the piece whose last checkpoint is its value.
        rates: pieces of the grid -> learning rate that they stand for; the rate of the one with the
            best validation accuracy is SOLVER.BASE_LR of this piece.
        problem: why it cannot be made; empty: nothing is known.
    """

    name: str
    title: str
    kind: str
    folder: str
    task: str
    file: str
    keys: Mapping[str, str]
    checkpoints: Mapping[str, str] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)
    problem: str = ""

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the pieces whose checkpoints it takes."""
        return tuple(dict.fromkeys(self.checkpoints.values()))

    @property
    def files_and_pairs(self) -> tuple[list[str], list[str]]:
        """Files and pairs for `load_config`, without the keys that other pieces determine."""
        return [self.file], [word for pair in self.keys.items() for word in pair]

    def config(self) -> CfgNode:
        """Load its configuration, without the keys that other pieces determine."""
        return quiet_config(*self.files_and_pairs)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All pieces of a comparison.

    Attributes:
        recipe: what is compared.
        pieces: name -> piece.
    """

    recipe: Recipe
    pieces: Mapping[str, Piece]

    def makers(self, name: str) -> tuple[str, ...]:
        """Return the pieces that a piece needs, directly or not, in the order of the plan."""
        found: set[str] = set()
        todo = [name]
        while todo:
            needs = set(self.pieces[todo.pop()].needs) - found
            found |= needs
            todo.extend(needs)
        return tuple(piece for piece in self.pieces if piece in found)


def quiet_config(files: Sequence[str], pairs: Sequence[str]) -> CfgNode:
    """Load a configuration without its warnings, which the run itself prints."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_config(files, pairs)


def piece_name(seed: int, method: str, kind: str) -> str:
    """Return the name of a piece of a method."""
    return f"seed_{seed}/{method}/{kind}"
