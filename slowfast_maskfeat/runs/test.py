"""Test of a model on all views of the test split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import nn

from slowfast_maskfeat import distributed
from slowfast_maskfeat.builders.data import (
    build_loader,
    clips_at_once,
    num_clips_of_tests,
    num_clips_per_video,
    num_crops,
)
from slowfast_maskfeat.builders.data_source import DataSource
from slowfast_maskfeat.builders.kernels import switch_on_kernels
from slowfast_maskfeat.builders.methods import build_model, build_task
from slowfast_maskfeat.builders.precision import autocast_precision
from slowfast_maskfeat.builders.preflight import check_files
from slowfast_maskfeat.builders.weights import (
    finished_checkpoint,
    load_tested_weights,
)
from slowfast_maskfeat.checkpoints import checkpoint_folder
from slowfast_maskfeat.cli import system_error
from slowfast_maskfeat.clips import ClipLoader
from slowfast_maskfeat.disk import probe_file
from slowfast_maskfeat.engine.coordination import from_main
from slowfast_maskfeat.engine.evaluate import evaluate
from slowfast_maskfeat.engine.stop_signals import StopSignals
from slowfast_maskfeat.figures import draw_or_warn
from slowfast_maskfeat.files import atomic_write
from slowfast_maskfeat.log import EventLog
from slowfast_maskfeat.metrics.box_scores import BoxScores
from slowfast_maskfeat.metrics.saved_scores import SavedScores
from slowfast_maskfeat.runs.report import data_facts, file_sha256, print_main, print_notes
from slowfast_maskfeat.runs.test_report import (
    Report,
    list_frames,
    report_boxes,
    report_scores,
    write_report,
)
from slowfast_maskfeat.tasks import Evaluation, Task, scalar_metrics
from slowfast_maskfeat.trackers import Trackers


def check_results_path(cfg: CfgNode) -> None:
    """Check that the file of TEST.SAVE_RESULTS_PATH can be written.

    All processes of a run must call it; the main one looks.

    Raises:
        ValueError: it is a folder, or its folder can't be written.
    """

    def look() -> None:
        path = Path(cfg.OUTPUT_DIR) / cfg.TEST.SAVE_RESULTS_PATH
        try:
            probe_file(path)
        except OSError as error:
            raise ValueError(
                f"TEST.SAVE_RESULTS_PATH must be a file that can be written, got {path}: "
                f"{system_error(error)}"
            ) from error

    if cfg.TEST.SAVE_RESULTS_PATH:
        from_main(look)


def run_test(
    cfg: CfgNode, device: torch.device, log: EventLog, data: DataSource, trackers: Trackers
) -> list[Path]:
    """Test with each number of views; save the scores of each video, or of each box.

    Args:
        cfg: frozen configuration.
        device: of this process.
        log: receives one `test` event per number of views.
        data: data of the run.
        trackers: of the training before the test; receive its metrics and pictures.

    Returns:
        The files that were written, in the main process.

    Raises:
        ValueError: there are no weights to test, or something else that a user can fix.
        StoppedError: after a signal.
    """
    model = build_model(cfg, data=data).to(device)
    task = build_task(cfg, model, data=data).to(device)
    switch_on_kernels(cfg, device, model)
    path = finished_checkpoint(cfg)
    if not path:
        raise ValueError(
            "TEST.CHECKPOINT_FILE_PATH must name a checkpoint, since "
            f"{checkpoint_folder(cfg.OUTPUT_DIR)} has none of TASK {cfg.TASK!r}"
        )
    report = load_tested_weights(cfg, model, path, data=data)
    sha256 = file_sha256(path) if distributed.is_main() else ""
    written: list[Path] = []
    with StopSignals() as signals:
        print_main(str(report))
        for num_views in num_clips_of_tests(cfg):
            loader = build_loader(cfg, "test", num_views=num_views, data=data)
            print_notes(loader)
            check_files(cfg, [loader.dataset.videos])
            results, evaluation = evaluate_split(
                cfg, model, task, loader, "test", device, signals=signals, num_views=num_views
            )
            if distributed.is_main():
                facts = {
                    "checkpoint": str(path),
                    "checkpoint_sha256": sha256,
                    "num_views": num_views,
                    "num_crops": num_crops(cfg, "test"),
                    **data_facts(cfg, loader),
                    "class_names_source": data.class_names_source,
                }
                recorded = _record(cfg, log, evaluation, results, facts)
                _track(trackers, results, recorded, _numbered(cfg, "test", num_views))
                written += recorded
                if cfg.TEST.REPORT:
                    written += _write_report(cfg, loader, evaluation, results, facts)
    return written


def _record(
    cfg: CfgNode,
    log: EventLog,
    evaluation: Evaluation,
    results: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> list[Path]:
    """Save, log, print and draw the results of a test; return the files."""
    crops, num_views = facts["num_crops"], facts["num_views"]
    scores = _scores_path(cfg, evaluation, num_views)
    if scores is not None:
        with atomic_write(scores) as part:
            evaluation.save(str(part), {**facts, **_counts(results)})
    paths = {} if scores is None else {"scores": str(scores)}
    log.write("test", **paths, **facts, **results)
    print_main(f"test, {crops} crops x {num_views} views: {evaluation.summary(results)}")
    details = evaluation.details(results)
    if details:
        print_main(details)
    for lost in results["lost"]:
        print_main(f"lost: {lost['path']}: {lost['reason']}")
    drawn = evaluation.draw(results, Path(cfg.OUTPUT_DIR), cfg.TASK)
    return [*drawn] if scores is None else [scores, *drawn]


def _track(
    trackers: Trackers, results: Mapping[str, Any], files: Sequence[Path], name: str
) -> None:
    """Track the metrics of a test, and those of its files that are pictures."""
    metrics = scalar_metrics(results)
    trackers.scalars({f"{name}/{metric}": value for metric, value in metrics.items()})
    for path in files:
        if path.suffix == ".png":
            trackers.picture(path)


def _numbered(cfg: CfgNode, name: str, num_views: int) -> str:
    """Return a name for each of several tests; of a single one `name` itself."""
    return f"{name}_{num_views}" if len(num_clips_of_tests(cfg)) > 1 else name


def _counts(results: Mapping[str, Any]) -> dict[str, Any]:
    """Counts of videos, and the lost ones with their reasons."""
    names = ("num_expected", "num_found", "num_decoded", "lost")
    return {name: results[name] for name in names}


def _write_report(
    cfg: CfgNode,
    loader: ClipLoader,
    evaluation: Evaluation,
    results: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> list[Path]:
    """Write report.html and report.json of a test; a failure is a warning. Return the files."""
    folder, name = Path(cfg.OUTPUT_DIR), _numbered(cfg, "report", facts["num_views"])
    written: list[Path] = []

    def write() -> bool:
        report = _report(cfg, loader, evaluation, results, facts)
        if report is None:
            return False
        written.extend(write_report(report, folder, name))
        return True

    draw_or_warn(folder / f"{name}.html", write)
    return written


def _report(
    cfg: CfgNode,
    loader: ClipLoader,
    evaluation: Evaluation,
    results: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> Report | None:
    """Report the test of a task that has scores."""
    scores = evaluation.scores({**facts, **_counts(results)})
    title, count = f"Test: {cfg.TASK or 'model'}", cfg.TEST.REPORT_VIDEOS
    if isinstance(scores, SavedScores):
        return report_scores(scores, title, list_frames(loader.dataset), count)
    if isinstance(scores, BoxScores):
        read = list_frames(loader.dataset)
        return report_boxes(scores, results, facts, title, read, count)
    return None


def evaluate_split(
    cfg: CfgNode,
    model: nn.Module,
    task: Task,
    loader: ClipLoader,
    split: str,
    device: torch.device,
    *,
    signals: StopSignals,
    num_views: int | None = None,
) -> tuple[dict[str, Any], Evaluation]:
    """Evaluate a model on a split, see `engine.evaluate`.

    Args:
        cfg: configuration; not modified.
        model: on the device.
        task: of the model.
        loader: of the split.
        split: "val" or "test".
        device: of the model.
        signals: end the evaluation, see `evaluate`.
        num_views: temporal clips per video in "test", see `num_clips_of_tests`.
    """
    results, evaluation = evaluate(
        model,
        task,
        loader,
        signals=signals,
        num_views=num_clips_per_video(cfg, split, num_views),
        chunk_size=clips_at_once(cfg),
        device=device,
        precision=autocast_precision(cfg, device),
        description="validate" if split == "val" else "test",
    )
    warning = evaluation.warning(results)
    if warning:
        print_main(f"warning: {loader.dataset.videos.source}: {warning}")
    return results, evaluation


def _scores_path(cfg: CfgNode, evaluation: Evaluation, num_views: int) -> Path | None:
    """Return the file of the scores; None if the evaluation has none."""
    if not evaluation.file_name:
        return None
    name = evaluation.file_name.format(crops=num_crops(cfg, "test"), views=num_views)
    if not cfg.TEST.SAVE_RESULTS_PATH:
        return Path(cfg.OUTPUT_DIR) / name
    path = Path(cfg.OUTPUT_DIR) / cfg.TEST.SAVE_RESULTS_PATH
    path = path.with_stem(_numbered(cfg, path.stem, num_views))
    return path.with_suffix(Path(name).suffix)
