"""Accuracy and training curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from slowfast_maskfeat.figures.canvas import COLORS, GRAY, new_figure, own_style, write_figure
from slowfast_maskfeat.figures.names import shorten

_Event = Mapping[str, Any]
_DASHED = (0, (4, 3))
_MAX_TITLE_LENGTH = 60  # characters
# Kind of events -> its name in the legend.
_TRAIN, _EPOCH, _VALIDATION, _MONITOR = "train", "epoch", "validation", "monitor"
_KIND_NAMES = {
    _TRAIN: "training (mean of a log period)",
    _EPOCH: "training (mean of an epoch)",
    _VALIDATION: "validation",
    _MONITOR: "features of training clips",
}
# More points than these are drawn without markers.
_MAX_MARKERS = 40


def accuracy_curves(
    path: str | Path,
    runs: Mapping[str, tuple[Any, Any]],
    *,
    title: str = "",
    x_label: str = "fine-tuning epoch",
    y_label: str = "top-1 accuracy (%)",
    chance: float | None = None,
    chance_name: str = "chance",
) -> None:
    """Plot the accuracy of several runs over epochs and write the figure as PNG.

    Args:
        path: PNG file to write; its folder is created.
        runs: name -> (epochs, accuracies) of shapes (E,) and (E,) or (S, E), the latter for S
            seeds, drawn as mean and a band of one standard deviation.
        title: title of the figure.
        x_label: label of the x axis.
        y_label: label of the y axis, with the unit.
        chance: accuracy of guessing, drawn as a thin line; None for no line.
        chance_name: legend of that line.

    Raises:
        ValueError: there are no runs, or epochs and accuracies differ in length.
    """
    if not runs:
        raise ValueError(f"runs must contain at least one run, got none for {path}")
    with own_style([*runs, title]) as drawable:
        figure = new_figure(6.4, 4.0)
        axis = figure.subplots()
        for index, (name, (epochs, accuracies)) in enumerate(runs.items()):
            values = _of_seeds(name, epochs, accuracies)
            label = drawable(name) + (f" ({len(values)} seeds)" if len(values) > 1 else "")
            color = COLORS[index % len(COLORS)]
            _plot_run(axis, np.asarray(epochs, dtype=float), values, label, color)
        if chance is not None:
            axis.axhline(chance, color=GRAY, linewidth=0.9, linestyle=_DASHED, label=chance_name)
        axis.set_ylim(bottom=0)
        _finish(axis, x_label, y_label)
        _set_epochs(axis, [0.0, *(float(epoch) for epochs, _ in runs.values() for epoch in epochs)])
        axis.legend(edgecolor="none", framealpha=0.9)
        _set_title(figure, drawable(title))
        write_figure(figure, path)


def _of_seeds(name: str, epochs: Any, accuracies: Any) -> Any:
    """Accuracies (S, E) of a run."""
    shape, values = np.shape(epochs), np.asarray(accuracies, dtype=float)
    if len(shape) != 1 or values.shape[-1:] != shape or values.ndim > 2:
        raise ValueError(
            f"epochs and accuracies of run {name!r} must have the shapes (E,) and (E,) or "
            f"(S, E), got {shape} and {values.shape}"
        )
    return np.atleast_2d(values)


def _plot_run(axis: Any, epochs: Any, values: Any, label: str, color: str) -> None:
    mean, spread = values.mean(axis=0), values.std(axis=0, ddof=min(1, len(values) - 1))
    axis.plot(epochs, mean, color=color, linewidth=1.8, label=label, marker="o", markersize=3)
    if len(values) > 1:
        low, high = mean - spread, mean + spread
        axis.fill_between(epochs, low, high, color=color, alpha=0.18, linewidth=0)


class CurvePanel(NamedTuple):
    """A panel of `training_curves`.

    Attributes:
        field: of the events, drawn for each kind of event.
        label: of the axis, with the unit.
        reference: field drawn dashed beside it, such as the loss of a constant prediction.
        reference_name: in the legend.
        from_zero: the axis begins at 0.
    """

    field: str
    label: str
    reference: str = ""
    reference_name: str = ""
    from_zero: bool = True


LOSS_PANEL = CurvePanel("loss", "loss", from_zero=False)
BASELINE_PANEL = LOSS_PANEL._replace(reference="baseline", reference_name="constant prediction")
TOP1_PANEL = CurvePanel("top1", "top-1 accuracy (%)")
AP_PANEL = CurvePanel("mean_ap", "mean average precision")
TOKENIZER_PANELS = (
    LOSS_PANEL,
    CurvePanel("usage", "codes in use (%)"),
    CurvePanel("perplexity", "perplexity of the codes"),
)
MONITOR_PANELS = (
    CurvePanel("knn", "kNN top-1 (%)", "knn_chance", "most frequent class"),
    CurvePanel("rank", "effective rank"),
    CurvePanel("std", "standard deviation"),
)
PROTOTYPE_PANELS = (
    LOSS_PANEL,
    *(
        CurvePanel(f"{name}_entropy", label, f"{name}_mean_entropy", "of the mean distribution")
        for name, label in (
            ("teacher", "entropy of the teacher (% of uniform)"),
            ("patch", "entropy of masked tokens (% of uniform)"),
        )
    ),
)
_LR_PANEL = CurvePanel("lr", "learning rate")


def training_curves(
    path: str | Path,
    events: Sequence[_Event],
    panels: Sequence[CurvePanel] = (BASELINE_PANEL, TOP1_PANEL, AP_PANEL),
    *,
    title: str = "",
) -> None:
    """Draw what a run logged against epochs and write it as PNG.

    Panels without data are left out; that of the learning rate is always the last one. Training
    and validation events are distinguished by their `event` field. Numbers that are not finite
    leave a gap. Where a run was resumed from an earlier epoch or started again, the later events
    replace the earlier ones.

    Args:
        path: PNG file to write; its folder is created.
        events: lines of stats.jsonl in their order. Read are those with a number in `epoch`
            (finished epochs, fractional) and in a field of a panel.
        panels: of the method, beside that of the learning rate.
        title: above the figure.

    Raises:
        ValueError: no event has anything to draw.
    """
    events = _latest(events)
    curves = {panel: _curves(events, panel.field) for panel in (*panels, _LR_PANEL)}
    drawn = [panel for panel in curves if curves[panel]]
    if not drawn:
        fields = ", ".join(panel.field for panel in curves)
        raise ValueError(
            f"at least one event must have `epoch` and one of {fields}, got none for {path}"
        )
    with own_style([title, *(kind for of_panel in curves.values() for kind in of_panel)]) as letter:
        figure = new_figure(6.4, 1.0 + 2.2 * len(drawn))
        axes = figure.subplots(len(drawn), 1, squeeze=False, sharex=True)[:, 0]
        for axis, panel in zip(axes, drawn, strict=True):
            if panel == _LR_PANEL:
                _plot_rate(axis, curves[panel])
            else:
                references = _curves(events, panel.reference) if panel.reference else {}
                _plot_panel(axis, panel, curves[panel], references, letter)
            if panel.from_zero:
                axis.set_ylim(bottom=0)
            _finish(axis, "epoch" if axis is axes[-1] else "", panel.label)
        _set_epochs(axes[-1], [x for panel in drawn for c in curves[panel].values() for x, _ in c])
        _set_title(figure, letter(title))
        write_figure(figure, path)


# Kind of events -> its points (epoch, value) in the order of the epochs.
_Curves = dict[str, list[tuple[float, float]]]


def _latest(events: Sequence[_Event]) -> list[_Event]:
    """Leave out the events after the epoch from which a later run goes on, or starts again."""
    latest: list[_Event] = []
    for event in events:
        epoch = _number(event.get("epoch"))
        if event.get("event") == "start" and epoch is not None:
            # Steps of the epoch that was not finished are replaced one by one, see `_curves`.
            done = epoch + bool(event.get("step"))
            latest = [old for old in latest if not (_number(old.get("epoch")) or 0) > done]
        latest.append(event)
    return latest


def _curves(events: Sequence[_Event], field: str) -> _Curves:
    """Points of a field for each kind of events that has a number in it."""
    curves: _Curves = {}
    for event in events:
        epoch, value = _number(event.get("epoch")), _number(event.get(field, "absent"))
        if epoch is None or value is None or not math.isfinite(epoch):
            continue
        points = curves.setdefault(str(event.get("event", "")), [])
        while points and points[-1][0] >= epoch:  # the steps after a checkpoint were repeated
            points.pop()
        points.append((epoch, value))
    has_number = {k: any(math.isfinite(y) for _, y in points) for k, points in curves.items()}
    return {kind: points for kind, points in curves.items() if has_number[kind]}


def _number(value: Any) -> float | None:
    """A number of a log, NaN for null; None for anything else."""
    if value is None:  # the log writes numbers that are not finite as null
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else math.nan
    except OverflowError:  # an integer beyond any float
        return None


def _plot_panel(
    axis: Any,
    panel: CurvePanel,
    curves: _Curves,
    references: _Curves,
    drawable: Callable[[str], str],
) -> None:
    """Draw the curves of a panel by the kinds of their events, and its references in gray."""
    known = [kind for kind in _KIND_NAMES if kind in curves]
    others = [kind for kind in curves if kind not in _KIND_NAMES]
    colors = {_TRAIN: COLORS[0], _EPOCH: COLORS[0], _VALIDATION: COLORS[1], _MONITOR: COLORS[0]}
    for number, kind in enumerate((*known, *others)):
        style: dict[str, Any] = {"color": colors.get(kind) or COLORS[(2 + number) % len(COLORS)]}
        if kind == _TRAIN and _EPOCH in curves:
            # Noisy: behind the means of the epochs, in the same color.
            style |= {"alpha": 0.4, "linewidth": 1.0, "marker": ""}
        _plot(axis, curves[kind], label=_KIND_NAMES.get(kind) or drawable(kind), **style)
    training = _EPOCH if _EPOCH in references else _TRAIN
    splits = {training: " (training)", _VALIDATION: " (validation)"}
    for kind, dashes in ((training, _DASHED), (_VALIDATION, ":"), (_MONITOR, _DASHED)):
        if kind in references:
            label = f"{panel.reference_name}{splits.get(kind, '')}"
            # Of a single epoch, whose lines can't be seen, the markers differ.
            is_point = len(references[kind]) == 1
            style = {"marker": ("x" if kind == _VALIDATION else "s") if is_point else ""}
            _plot(axis, references[kind], label=label, color=GRAY, linestyle=dashes, **style)
    axis.legend(frameon=False, fontsize=8)


def _plot_rate(axis: Any, curves: _Curves) -> None:
    """Draw the learning rate as one curve: all kinds of events log the same one."""
    points = dict(sorted(point for points in curves.values() for point in points))
    _plot(axis, list(points.items()), color=COLORS[0])


def _plot(axis: Any, points: Sequence[tuple[float, float]], **style: Any) -> None:
    marker = "o" if len(points) < _MAX_MARKERS else ""
    axis.plot(
        *zip(*points, strict=True), **{"linewidth": 1.5, "marker": marker, "markersize": 3, **style}
    )


def _finish(axis: Any, x_label: str, y_label: str) -> None:
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axis.set_axisbelow(True)


def _set_epochs(axis: Any, epochs: Sequence[float]) -> None:
    """Let an axis reach from the begin of the first epoch to the end of the last one."""
    from matplotlib.ticker import MaxNLocator

    first = max(math.ceil(min(epochs)) - 1, 0)
    last = max(math.ceil(max(epochs)), first + 1)
    margin = 0.02 * (last - first)
    axis.set_xlim(first - margin, last + margin)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))


def _set_title(figure: Any, title: str) -> None:
    if title:
        figure.suptitle(shorten(title, _MAX_TITLE_LENGTH), fontsize=12)
