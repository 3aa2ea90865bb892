"""Estimate of the time of a comparison, from a rehearsal of it on a few batches."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from slowfast_maskfeat.builders.data_source import DataSource
from slowfast_maskfeat.datasets import MissingListError
from slowfast_maskfeat.log import event_log_path, read_events
from slowfast_maskfeat.runs.comparison.execute import Executor, Outcome
from slowfast_maskfeat.runs.comparison.pieces import Piece, Plan
from slowfast_maskfeat.runs.comparison.plan import make_plan
from slowfast_maskfeat.runs.comparison.recipe import PROBES, Grid, Recipe
from slowfast_maskfeat.runs.comparison.study import Programs, StageData, prepare_data, read_stages

_NUM_BATCHES = 4  # of each split in the rehearsal; the first step is left out of the measurement
_SHORT = {
    "SOLVER.MAX_EPOCH": "1",
    "SOLVER.WARMUP_EPOCHS": "0",
    "TRAIN.EVAL_PERIOD": "1",
    "LOG_PERIOD": "1",
}
_TRAININGS = ("pretrain", "tokenizer")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Cost of a rehearsed run.

    Attributes:
        start: seconds before and after its steps, of any length of training.
        step: seconds of a training step.
        validation: seconds of a validation sample.
        test: seconds of a test sample.
        samples: samples of a probe, over all splits.
        probe: seconds of the probe of these samples.
    """

    start: float
    step: float = 0.0
    validation: float = 0.0
    test: float = 0.0
    samples: int = 0
    probe: float = 0.0


def estimate_minutes(
    recipe: Recipe, output: Path, programs: Programs, pairs: Sequence[str] = ()
) -> tuple[str, list[str]]:
    """Rehearse each kind of run on a few batches, and scale what it took.

    Nothing of the comparison itself is made, but for the lists or shards of its data. Runs that
    former calls have made are left out.

    Args:
        recipe: what is compared.
        output: folder of the comparison.
        programs: commands to start.
        pairs: see `run_comparison`.

    Returns:
        Lines to print, minutes of each kind of run and in all; and what could not be measured and
        is not in them, with the reason.

    Raises:
        ValueError: see `run_comparison`.
    """
    stages = read_stages(recipe, pairs)
    plan = make_plan(recipe, prepare_data(recipe, stages, output / "data"), pairs)
    with tempfile.TemporaryDirectory() as folder:
        measured, failed = _rehearse(recipe, stages, Path(folder), programs, pairs)
    made = Executor(plan, output, programs.run).collect()
    counts = _Counts()
    minutes: dict[str, list[float]] = {}
    missing: dict[str, str] = {}
    for piece in plan.pieces.values():
        key = _key(piece)
        if piece.name in made:
            continue
        if key in measured:
            minutes.setdefault(key, []).append(_seconds(piece, measured[key], counts) / 60)
        else:
            reason = failed.get(key) or piece.problem or "it was not rehearsed"
            missing.setdefault(key, reason)
    lines = [
        f"{key:32} {len(of_key):4} runs {sum(of_key):8.1f} min" for key, of_key in minutes.items()
    ]
    total = sum(sum(of_key) for of_key in minutes.values())
    lines.append(f"{'in all':32} {sum(map(len, minutes.values())):4} runs {total:8.1f} min")
    lines += [f"{'made already':32} {len(made):4} runs"] if made else []
    return "\n".join(lines), [f"{key}: {reason}" for key, reason in missing.items()]


def _key(piece: Piece) -> str:
    """Return which measurement holds for a piece."""
    if piece.kind in _TRAININGS:
        return f"{piece.name.split('/')[1]}, {piece.kind}"
    return "finetune" if piece.kind == "grid" else piece.kind


def _rehearse(
    recipe: Recipe,
    stages: Mapping[str, StageData],
    folder: Path,
    programs: Programs,
    pairs: Sequence[str],
) -> tuple[dict[str, Measured], dict[str, str]]:
    """Run one piece of each kind on a few batches.

    Returns:
        Kind -> measurement, and kind -> why it failed.
    """
    short = replace(recipe, seeds=recipe.seeds[:1], grid=Grid())
    data = prepare_data(short, stages, folder / "data", num_batches=_NUM_BATCHES)
    words = [word for pair in _SHORT.items() for word in pair]
    whole = make_plan(short, data, [*pairs, *words])
    kept: dict[str, Piece] = {}
    for name, piece in whole.pieces.items():
        if _key(piece) not in {_key(other) for other in kept.values()}:
            kept |= {needed: whole.pieces[needed] for needed in whole.makers(name)}
            kept[name] = piece
    plan = Plan(recipe=short, pieces=kept)
    outcomes = Executor(plan, folder, programs.run).make_all()
    measured: dict[str, Measured] = {}
    failed: dict[str, str] = {}
    for name, piece in kept.items():
        if outcomes[name].is_done:
            measured.setdefault(_key(piece), _measure(folder, piece, outcomes[name]))
        else:
            failed[_key(piece)] = outcomes[name].reason
    return measured, {key: reason for key, reason in failed.items() if key not in measured}


def _measure(folder: Path, piece: Piece, outcome: Outcome) -> Measured:
    """Read what a rehearsed piece took."""
    if piece.kind in PROBES:
        return Measured(
            start=0.0,
            samples=sum(_count(piece, split) for split in ("train", "val", "test")),
            probe=outcome.seconds,
        )
    events = read_events(event_log_path(folder / piece.folder))
    steps = [event["seconds"] for event in events if event["event"] == "train"]
    seconds = {
        kind: (event["seconds"], event["num_expected"])
        for kind in ("validation", "test")
        for event in events
        if event["event"] == kind
    }
    each = {kind: of / max(number, 1) for kind, (of, number) in seconds.items()}
    inside = sum(steps) + sum(of for of, _ in seconds.values())
    return Measured(
        start=max(outcome.seconds - inside, 0.0),
        step=statistics.median(steps[1:] or steps),
        validation=each.get("validation", 0.0),
        test=each.get("test", 0.0),
    )


def _seconds(piece: Piece, measured: Measured, counts: _Counts) -> float:
    """Scale a measurement to a whole piece."""
    if piece.kind in PROBES:
        samples = sum(counts(piece, split) for split in ("train", "val", "test"))
        return measured.probe * max(samples / max(measured.samples, 1), 1.0)
    cfg = piece.config()
    solver, train = cfg.SOLVER, cfg.TRAIN
    num_steps = max(counts(piece, "train") // train.BATCH_SIZE, 1) * solver.MAX_EPOCH
    num_validations = max(-(-solver.MAX_EPOCH // train.EVAL_PERIOD), 1)
    return (
        measured.start
        + num_steps * measured.step
        + num_validations * counts(piece, "val") * measured.validation
        + (counts(piece, "test") * measured.test if cfg.TEST.ENABLE else 0.0)
    )


class _Counts:
    """Numbers of samples, each data set read once."""

    def __init__(self) -> None:
        self._known: dict[tuple[tuple[str, str], ...], int] = {}

    def __call__(self, piece: Piece, split: str) -> int:
        of_data = tuple(
            (key, value)
            for key, value in piece.keys.items()
            if key.startswith("DATA.") or key.endswith(".DATASET")
        )
        key = (("split", split), ("file", piece.file), *of_data)
        if key not in self._known:
            self._known[key] = _count(piece, split)
        return self._known[key]


def _count(piece: Piece, split: str) -> int:
    """Return the number of samples of a split; 0 without one."""
    try:
        return len(DataSource(piece.config()).videos(split))
    except MissingListError:
        return 0
