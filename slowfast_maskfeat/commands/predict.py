"""Classify the actions in videos.

    maskfeat predict --checkpoint checkpoint_epoch_00100.pyth --video x.mp4
    maskfeat predict --checkpoint checkpoint_epoch_00100.pyth --video folder list.csv \\
        --csv scores.csv
    maskfeat predict --checkpoint checkpoint_epoch_00100.pyth --video long.mp4 --window 2 \\
        --stride 1 --csv scores.csv

The score of a video is the mean over all views of the model's test; that of a window likewise, as
if the window were a video. Windows begin every --stride seconds, and the last one ends with the
video. With --csv each video or window has a row: path, begin and end in seconds, the best classes
with their scores, and the reason if it could not be decoded; the same command resumes an
interrupted prediction. The exit code is 0, or 1 if a video could not be decoded.

The checkpoint contains its configuration and class names; weights without a configuration need
--cfg, and weights without class names can be given them by --names. To compare outputs with another
program, give both the same array of clips instead of a video:

    maskfeat predict --checkpoint weights.pyth --cfg model.yaml --clips clips.npy \\
        --logits logits.npy
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fvcore.common.config import CfgNode
from torch import Tensor

from slowfast_maskfeat.cli import exit_code, print_written, seconds_above_0
from slowfast_maskfeat.curation.jobs import Failure, Journal
from slowfast_maskfeat.datasets import named_by
from slowfast_maskfeat.datasets.class_names import read_names
from slowfast_maskfeat.datasets.excerpt_list import ExcerptList
from slowfast_maskfeat.files import atomic_write
from slowfast_maskfeat.log import Progress
from slowfast_maskfeat.runs.inputs import input_paths
from slowfast_maskfeat.runs.load_trained import load_trained
from slowfast_maskfeat.runs.predict import Prediction, Predictor, list_excerpts
from slowfast_maskfeat.text import printable
from slowfast_maskfeat.videos.decode import DecodeError


def main(arguments: Sequence[str]) -> int:
    """Print the best classes, or write them to a file.

    Returns:
        The exit code: 0, 1 if a video of several could not be decoded, or 2 for invalid input.
    """
    warnings.simplefilter("ignore")  # training has already shown these warnings
    options = _parse(arguments)
    return exit_code(
        lambda: _predict(options), output=options.csv or options.logits, resumable=bool(options.csv)
    )


def _predict(options: argparse.Namespace) -> int:
    if options.csv and Path(options.csv).exists() and not options.force:
        raise ValueError(f"--csv: {options.csv} exists; --force overwrites it")
    predictor = _load(options)
    if options.clips:
        logits = predictor.clip_logits(_read_clips(options.clips, predictor.cfg))
        best = predictor.best(logits, options.clips, options.top)
        return _show([best], options, logits)
    paths = [p for given in options.video for p in input_paths(predictor.cfg, given, "--video")]
    videos, reasons = list_excerpts(
        paths,
        window=options.window,
        stride=options.stride,
        processes=max(predictor.cfg.DATA_LOADER.NUM_WORKERS, 1),
        timeout=predictor.cfg.DATA.DECODE_TIMEOUT or 60.0,
        source=" ".join(options.video),
    )
    if options.csv:
        return _write_table(predictor, videos, reasons, options)
    if len(videos) > 1:
        if options.logits:
            raise ValueError(f"--logits requires one video or --clips, got {len(videos)} samples")
        rows = range(len(videos))
        return _show(_predict_all(predictor, videos, reasons, options, rows), options)
    ((_, of_video, times, reason),) = predictor.logits(videos, reasons=reasons)
    if of_video is None:
        raise DecodeError(videos.path(0), reason)
    span = videos.spans[0] or times
    best = predictor.best(of_video, videos.path(0), options.top)
    return _show([best._replace(begin=span.begin, end=span.end)], options, of_video)


def _load(options: argparse.Namespace) -> Predictor:
    names = read_names(options.names) if options.names else ()
    trained = load_trained(
        options.checkpoint, device=options.device, config_file=options.cfg, pairs=options.opts
    )
    with named_by(options.checkpoint):
        predictor = Predictor(trained.model, names=names)
    if not predictor.names:
        print(
            f"{options.checkpoint} has no class names: classes are numbers; --names gives a file "
            "with a name per line",
            file=sys.stderr,
        )
    return predictor


def _predict_all(
    predictor: Predictor,
    videos: ExcerptList,
    reasons: dict[int, str],
    options: argparse.Namespace,
    rows: Sequence[int],
    journal: Journal | None = None,
) -> list[Prediction]:
    """Predict rows with a progress bar; each is recorded in the journal."""
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


def _write_table(
    predictor: Predictor,
    videos: ExcerptList,
    reasons: dict[int, str],
    options: argparse.Namespace,
) -> int:
    """Predict the rows that are not in the journal yet, and write the table of all."""
    table = Path(options.csv)
    settings = {
        "samples_sha256": videos.fingerprint,
        "weights_sha256": predictor.weights_sha256,
        "names": predictor.names,
        "top": options.top,
        "opts": options.opts,
    }
    journal = Journal(table.with_name(f".{table.stem}_predict.jsonl"), settings)
    try:
        left = [row for row in range(len(videos)) if str(row) not in journal.done]
        _predict_all(predictor, videos, reasons, options, left, journal)
        found = [_recorded(videos, row, journal.done[str(row)]) for row in range(len(videos))]
        with atomic_write(table) as part:
            part.write_bytes(_table(found, options.top).encode("utf-8", "surrogateescape"))
    except BaseException:
        journal.close()
        raise
    journal.remove()
    lost = [prediction for prediction in found if prediction.reason]
    print(f"{len(found)} rows, {len(lost)} without a prediction")
    for prediction in lost[:10]:
        print(printable(f"  {prediction.path}: {prediction.reason}"))
    if len(lost) > 10:
        print(f"  ... all in {table}")
    print_written([table])
    return 1 if lost else 0


def _recorded(videos: ExcerptList, row: int, result: Any) -> Prediction:
    path, span = videos.path(row), videos.spans[row]
    if isinstance(result, Failure):
        begin, end = span or (float("nan"), float("nan"))
        return Prediction(path, begin, end, reason=result.reason)
    begin, end, num_views, classes, labels, scores = result
    return Prediction(path, begin, end, num_views, tuple(classes), tuple(labels), tuple(scores))


def _table(found: Sequence[Prediction], top: int) -> str:
    """Rows of CSV; cells that a lost video does not have are empty."""
    width = max([len(prediction.labels) for prediction in found], default=top)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    best = [name for n in range(1, width + 1) for name in (f"label_{n}", f"score_{n}")]
    writer.writerow(["path", "begin", "end", *best, "error"])
    for prediction in found:
        pairs = zip(prediction.labels, prediction.scores, strict=True)
        cells = [cell for label, score in pairs for cell in (label, f"{score:.6f}")]
        cells += [""] * (2 * width - len(cells))
        times = [_seconds(prediction.begin), _seconds(prediction.end)]
        writer.writerow([prediction.path, *times, *cells, prediction.reason])
    return text.getvalue()


def _seconds(time: float) -> str:
    return "" if np.isnan(time) else f"{time:.3f}"


def _show(
    found: Sequence[Prediction], options: argparse.Namespace, logits: Tensor | None = None
) -> int:
    """Print the predictions; of a single one the logits are written if requested."""
    if options.logits and logits is not None:
        _save_array(options.logits, logits)
    if options.json:
        rows = [_as_dict(prediction) for prediction in found]
        print(json.dumps(rows[0] if len(rows) == 1 else rows))
    else:
        for prediction in found:
            if len(found) > 1:
                print(_heading(prediction))
            for label, score in zip(prediction.labels, prediction.scores, strict=True):
                name = printable(label).replace("\n", "\\n")  # a row is one line
                print(f"{score:.4f}  {name}")
    if options.logits:
        print_written([options.logits], stream=sys.stderr if options.json else None)
    return 1 if any(prediction.reason for prediction in found) else 0


def _heading(prediction: Prediction) -> str:
    span = f" {prediction.begin:.2f}-{prediction.end:.2f} s" if prediction.begin >= 0 else ""
    return printable(
        f"{prediction.path}{span}:{' ' if prediction.reason else ''}{prediction.reason}"
    )


def _as_dict(prediction: Prediction) -> dict[str, Any]:
    named = zip(prediction.classes, prediction.labels, prediction.scores, strict=True)
    row: dict[str, Any] = {"video": prediction.path, "num_views": prediction.num_views}
    if prediction.begin >= 0:
        row |= {"begin": round(prediction.begin, 3), "end": round(prediction.end, 3)}
    row["top"] = [
        {"class": number, "name": name, "score": round(score, 6)} for number, name, score in named
    ]
    return row | ({"error": prediction.reason} if prediction.reason else {})


def _read_clips(path: str, cfg: CfgNode) -> Tensor:
    """Read clips (V, C, T, H, W), uint8 or normalized float32, from a .npy file."""
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"--clips: {path} can't be read as a .npy array: {error}") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"--clips must be a .npy file of one array, got the archive {path}")
    channels = cfg.DATA.INPUT_CHANNEL_NUM[0]
    if (
        array.ndim != 5
        or not len(array)
        or array.shape[1] != channels
        or (array.dtype != np.uint8 and array.dtype.kind != "f")
    ):
        raise ValueError(
            f"--clips must be (clips, {channels} channels, frames, height, width), uint8 or floats "
            f"already normalized, got {array.dtype} of shape {array.shape} in {path}"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"--clips must be finite, got NaN or infinity in {path}")
    return torch.from_numpy(array if array.dtype == np.uint8 else array.astype(np.float32))


def _save_array(path: str, logits: Tensor) -> None:
    """Write an array atomically."""
    try:
        with atomic_write(Path(path)) as temporary, open(temporary, "wb") as file:
            np.save(file, logits.numpy())
    except OSError as error:
        raise ValueError(f"--logits: {path} can't be written: {error.strerror}") from error


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be >= 1, got {text}")
    return number


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--checkpoint", required=True, help="checkpoint of a clip classifier")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--video", nargs="+", help="videos, images, folders of them, or lists of them"
    )
    source.add_argument(
        "--clips",
        help=".npy file of (clips, channels, frames, height, width), channels in the model's order",
    )
    add("--csv", help="CSV file to write instead of printing")
    add("--force", action="store_true", help="overwrite the CSV file")
    add("--window", type=seconds_above_0, default=0.0, help="seconds of a window of a video")
    add(
        "--stride",
        type=seconds_above_0,
        default=0.0,
        help="seconds from one window to the next (default: --window)",
    )
    add("--names", help="file of the class names, one per line, or JSON")
    add("--cfg", help="YAML file of the model, for weights without a configuration")
    add("--logits", help=".npy file to write the logits of each clip to")
    add("--json", action="store_true", help="print JSON instead of lines of text")
    add("--top", type=_count, default=5, help="number of classes (default: %(default)s)")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    add("opts", nargs="*", default=[], metavar="KEY VALUE")
    options = parser.parse_args(arguments)
    if options.clips and (options.csv or options.window or options.stride):
        parser.error("--csv, --window and --stride are for --video")
    return options
