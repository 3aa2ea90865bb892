"""A comparison from its recipe to its page."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from fvcore.common.config import CfgNode

from slowfast_maskfeat.builders.data_source import DataSource
from slowfast_maskfeat.datasets import MissingListError, VideoList
from slowfast_maskfeat.engine.coordination import locked
from slowfast_maskfeat.files import atomic_write
from slowfast_maskfeat.runs.comparison.execute import Executor, Outcome, last_checkpoint
from slowfast_maskfeat.runs.comparison.lists import Part, held_out, per_class, write_part
from slowfast_maskfeat.runs.comparison.methods import METHODS
from slowfast_maskfeat.runs.comparison.pieces import Plan, piece_name, quiet_config
from slowfast_maskfeat.runs.comparison.plan import make_plan, stage_keys
from slowfast_maskfeat.runs.comparison.recipe import Recipe
from slowfast_maskfeat.runs.comparison.report import PANEL, write_report
from slowfast_maskfeat.runs.figures import spread_rows
from slowfast_maskfeat.runs.programs import run_program


class StageData(NamedTuple):
    """Configuration of pre-training or fine-tuning, its data, and its training list."""

    cfg: CfgNode
    data: DataSource
    videos: VideoList


@dataclass(frozen=True, kw_only=True)
class Programs:
    """Commands that a comparison starts.

    Attributes:
        run: words that run a configuration, such as `python tools/run_net.py`.
        draw: words that draw predictions, such as `python tools/visualize.py`.
    """

    run: Sequence[str]
    draw: Sequence[str]


def run_comparison(
    recipe: Recipe,
    output: Path,
    programs: Programs,
    pairs: Sequence[str] = (),
    *,
    only_page: bool = False,
) -> tuple[list[Path], list[str]]:
    """Make what is missing of a comparison, and write its page.

    Args:
        recipe: what is compared.
        output: folder of the comparison; an interrupted one resumes.
        programs: commands to start.
        pairs: `["KEY", "VALUE", ...]` over the keys of all runs.
        only_page: make nothing, and write the page of what is there.

    Returns:
        The files that were written, and a line for each piece that failed.

    Raises:
        ValueError: the recipe, its configurations or its data are not valid, or the folder has
            another comparison.
        CalledProcessError: a signal stopped a piece.
    """
    stages = read_stages(recipe, pairs)  # before the folder is created
    with locked(output):
        plan = make_plan(recipe, prepare_data(recipe, stages, output / "data"), pairs)
        executor = Executor(plan, output, programs.run)

        def report() -> list[Path]:
            return write_report(plan, output, executor.outcomes())

        if only_page:
            outcomes = executor.collect(with_failures=True)
        else:
            outcomes = executor.make_all(after_piece=report)
        drawn = _draw_predictions(plan, output, programs.draw, outcomes)
        written = [*report(), *drawn]
    failed = [f"{name}: {of.reason}" for name, of in outcomes.items() if of.reason]
    return written, failed


def read_stages(recipe: Recipe, pairs: Sequence[str] = ()) -> dict[str, StageData]:
    """Read the training lists of pre-training and fine-tuning.

    Args:
        recipe: what is compared.
        pairs: see `run_comparison`.

    Returns:
        Stage -> its configuration and data.

    Raises:
        ValueError: the data are not valid.
    """
    found = {}
    for stage in ("pretrain", "finetune"):
        keys = {**stage_keys(recipe, stage), **recipe.data.get(stage, {})}
        words = [word if isinstance(word, str) else repr(word) for p in keys.items() for word in p]
        cfg = quiet_config([str(recipe.configs[stage])], [*words, *pairs])
        data = DataSource(cfg)
        found[stage] = StageData(cfg, data, data.videos("train"))
    return found


def prepare_data(
    recipe: Recipe, stages: Mapping[str, StageData], folder: Path, *, num_batches: int = 0
) -> dict[str, Mapping[str, Any]]:
    """Write the parts of the data that the recipe names, unless they are there.

    Args:
        recipe: what is compared.
        stages: from `read_stages`.
        folder: of the lists and shards.
        num_batches: largest number of batches of each split; 0: all.

    Returns:
        Part of the data -> the keys that name it, see `DataKeys`.

    Raises:
        ValueError: the data have no labels to select by, or the grid has no validation split.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for stage, (cfg, data, videos) in stages.items():
        count = num_batches * cfg.TRAIN.BATCH_SIZE
        if stage == "finetune" and (recipe.grid.pretrain or recipe.grid.finetune):
            _check_validation(recipe, data)
        rows, val = np.arange(len(videos)), None
        if recipe.hold_out:
            rows, val = held_out(videos, recipe.hold_out)
        if stage == "finetune" and recipe.labels_per_class:
            rows = per_class(videos, rows, recipe.labels_per_class)
        found[stage] = recipe.data.get(stage, {})
        if len(rows) < len(videos) or count:
            part = Part(rows, val, count)
            found[stage] = {**found[stage], **write_part(cfg, data, part, folder / stage)}
        if stage == "finetune" and "few" in recipe.judges:
            part = Part(per_class(videos, rows, recipe.few_labels), val, count)
            few = write_part(cfg, data, part, folder / "few")
            found["few"] = {**recipe.data.get(stage, {}), **few}
    return found


def _check_validation(recipe: Recipe, data: DataSource) -> None:
    """Check that the grid can choose learning rates without the test split.

    Raises:
        ValueError: there is no validation split, or it is also the test split.
    """
    if recipe.hold_out:
        return
    test = data.videos("test")
    try:
        is_other = data.videos("val").fingerprint != test.fingerprint
    except MissingListError:
        is_other = False
    if not is_other:
        raise ValueError(
            "grid requires a validation split that is not the test split, to choose the learning "
            f"rate on, but {test.source} is tested and there is no other; set hold_out, such as 0.1"
        )


def _draw_predictions(
    plan: Plan, output: Path, program: Sequence[str], outcomes: Mapping[str, Outcome]
) -> list[Path]:
    """Draw the predictions of the first seed; a picture that fails is a warning."""
    seed = plan.recipe.seeds[0]
    names = {
        method: piece_name(seed, method, "pretrain")
        for method in plan.recipe.methods
        if "MASK.TARGET" in METHODS[method].keys
    }
    checkpoints = {
        method: last_checkpoint(output / plan.pieces[name].folder, plan.pieces[name])
        for method, name in names.items()
        if name in outcomes and outcomes[name].is_done
    }
    drawn = {method: found for method, found in checkpoints.items() if found is not None}
    if not plan.recipe.panel or not drawn:
        return []
    path = output / PANEL
    inputs = _panel_inputs(plan, output, names[next(iter(drawn))])
    command = [*program, "--device", "cpu"]
    command += [
        "--checkpoint",
        *map(str, drawn.values()),
    ]
    command += ["--name", *(METHODS[method].title for method in drawn)]
    command += ["--video", *map(str, inputs), "--output", str(path), "--force"]
    console = output / "predictions.txt"
    try:
        run_program(command, output=console)
    except subprocess.CalledProcessError as error:
        if error.returncode > 128:
            raise
        print(f"warning: {path} is not drawn; {console} says why", file=sys.stderr)
        return []
    return [path]


def _panel_inputs(plan: Plan, output: Path, name: str) -> list[str]:
    """Return files of validation samples, of different classes as far as possible."""
    cfg = plan.pieces[name].config()
    videos = DataSource(cfg).videos("val")
    count = min(plan.recipe.panel, len(videos))
    paths = []
    for row in spread_rows(len(videos), count, videos.labels).tolist():
        path, content = videos.path(row), videos.content(row)
        if content is not None:  # of a shard
            # Names repeat between shards.
            path = str(output / "inputs" / f"{row:08d}_{path.rsplit('/', 1)[-1]}")
            with atomic_write(path) as part:
                part.write_bytes(content)
        paths.append(path)
    return paths
