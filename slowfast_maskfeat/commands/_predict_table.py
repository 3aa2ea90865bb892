"""The table of a prediction of many videos, which the same command resumes if interrupted."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slowfast_maskfeat.cli import print_written
from slowfast_maskfeat.commands._options import pairs_of
from slowfast_maskfeat.curation.jobs import Failure, Journal
from slowfast_maskfeat.curation.output_files import print_first, write_table
from slowfast_maskfeat.datasets.excerpt_list import ExcerptList
from slowfast_maskfeat.log import Progress
from slowfast_maskfeat.runs.predict import Prediction, Predictor


def write_predictions(
    predictor: Predictor,
    videos: ExcerptList,
    reasons: dict[int, str],
    options: argparse.Namespace,
) -> int:
    """Predict the rows that are not in the journal yet, and write the table of all.

    Args:
        predictor: of the model.
        videos: samples, a row each.
        reasons: of samples that are known to be lost, by row.
        options: of `maskfeat predict`.

    Returns:
        The exit code: 0, or 1 if a row has no prediction.
    """
    table: Path = options.output
    settings = {
        "samples_sha256": videos.fingerprint,
        "weights_sha256": predictor.weights_sha256,
        "names": predictor.names,
        "top": options.top,
        "opts": pairs_of(options),
        "configuration_sha256": hashlib.sha256(predictor.cfg.dump().encode()).hexdigest(),
    }
    file = table.with_name(f".{table.name}_predict.jsonl")
    with Journal(file, settings, force=options.force) as journal:
        left = [row for row in range(len(videos)) if str(row) not in journal.done]
        predict_all(predictor, videos, reasons, options, left, journal)
        found = [_recorded(videos, row, journal.done[str(row)]) for row in range(len(videos))]
        width = max([len(prediction.labels) for prediction in found], default=options.top)
        best = [name for n in range(1, width + 1) for name in (f"label_{n}", f"score_{n}")]
        columns = ["path", "begin", "end", *best, "error"]
        write_table(table, columns, [_cells(prediction, width) for prediction in found])
    lost = [prediction for prediction in found if prediction.reason]
    rows = "1 row" if len(found) == 1 else f"{len(found)} rows"
    print(f"{rows}, {len(lost)} without a prediction")
    print_first([f"{prediction.path}: {prediction.reason}" for prediction in lost], table)
    print_written([table])
    return 1 if lost else 0


def _recorded(videos: ExcerptList, row: int, result: Any) -> Prediction:
    path, span = videos.path(row), videos.spans[row]
    if isinstance(result, Failure):
        begin, end = span or (float("nan"), float("nan"))
        return Prediction(path, begin, end, reason=result.reason)
    begin, end, num_views, classes, labels, scores = result
    return Prediction(path, begin, end, num_views, tuple(classes), tuple(labels), tuple(scores))


def _cells(prediction: Prediction, width: int) -> list[str]:
    """Cells of a row; those that a lost video does not have are empty.

    Bytes of a file name that are not UTF-8 are escaped, so that the table is UTF-8.
    """
    pairs = zip(prediction.labels, prediction.scores, strict=True)
    cells = [cell for label, score in pairs for cell in (label, f"{score:.6f}")]
    cells += [""] * (2 * width - len(cells))
    times = (_seconds(prediction.begin), _seconds(prediction.end))
    row = [prediction.path, *times, *cells, prediction.reason]
    return [cell.encode("utf-8", "backslashreplace").decode("utf-8") for cell in row]


def _seconds(time: float) -> str:
    return "" if np.isnan(time) else f"{time:.3f}"


def predict_all(
    predictor: Predictor,
    videos: ExcerptList,
    reasons: dict[int, str],
    options: argparse.Namespace,
    rows: Sequence[int],
    journal: Journal | None = None,
) -> list[Prediction]:
    """Predict rows with a progress bar.

    Args:
        predictor: of the model.
        videos: samples.
        reasons: of samples that are known to be lost, by row.
        options: of `maskfeat predict`.
        rows: the samples to predict.
        journal: that records each prediction.

    Returns:
        The predictions in the order of `rows`.
    """
    found: dict[int, Prediction] = {}
    progress = Progress(len(videos), "predict", initial=len(videos) - len(rows))
    predictions = predictor.predict(videos, top=options.top, reasons=reasons, rows=rows)
    for row, prediction in predictions if rows else ():
        found[row] = prediction
        if journal is not None:
            result = Failure(prediction.reason) if prediction.reason else prediction[1:-1]
            journal.add(str(row), result)
        progress.update()
    progress.close()
    return [found[row] for row in rows]
