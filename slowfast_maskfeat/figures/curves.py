"""Accuracy and training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from slowfast_maskfeat.files import atomic_write

# Okabe and Ito's colors, which color-blind readers can tell apart.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_GRAY = "#777777"


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
        runs: Name -> (epochs, accuracies) of shapes (E,) and (E,) or (S, E), the latter for S
            seeds, drawn as mean and a band of one standard deviation.
        title: Title of the figure.
        x_label: Label of the x axis.
        y_label: Label of the y axis, with the unit.
        chance: Accuracy of guessing, drawn as a thin line; None for no line.
        chance_name: Legend of that line.

    Raises:
        ValueError: There are no runs, or epochs and accuracies differ in length.
    """
    if not runs:
        raise ValueError(f"runs must contain at least one run, got none for {path}")
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axis = figure.subplots()
    for index, (name, (epochs, accuracies)) in enumerate(runs.items()):
        epochs, values = np.asarray(epochs, dtype=float), np.asarray(accuracies, dtype=float)
        if epochs.ndim != 1 or values.shape[-1:] != epochs.shape or values.ndim > 2:
            raise ValueError(
                f"epochs and accuracies of run {name!r} must have the shapes (E,) and (E,) or "
                f"(S, E), got {epochs.shape} and {values.shape}"
            )
        values = np.atleast_2d(values)
        color = _COLORS[index % len(_COLORS)]
        mean, spread = values.mean(axis=0), values.std(axis=0, ddof=min(1, len(values) - 1))
        label = name if len(values) == 1 else f"{name} ({len(values)} seeds)"
        axis.plot(epochs, mean, color=color, linewidth=1.8, label=label, marker="o", markersize=3)
        if len(values) > 1:
            axis.fill_between(
                epochs, mean - spread, mean + spread, color=color, alpha=0.18, linewidth=0
            )
    if chance is not None:
        axis.axhline(chance, color=_GRAY, linewidth=0.9, linestyle=(0, (4, 3)), label=chance_name)
    axis.set_ylim(bottom=0)
    axis.set_xlim(left=0)
    _finish(axis, x_label, y_label)
    axis.legend(edgecolor="none", framealpha=0.9)
    _write(figure, path, title)


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
_LR_PANEL = CurvePanel("lr", "learning rate")


def training_curves(
    path: str | Path,
    events: Sequence[Mapping[str, Any]],
    panels: Sequence[CurvePanel] = (BASELINE_PANEL, TOP1_PANEL, AP_PANEL),
    *,
    title: str = "",
) -> None:
    """Draw what a run logged against epochs and write it as PNG.

    Panels without data are left out; that of the learning rate is always the last one. Training
    and validation events are distinguished by their `event` field. Numbers that are not finite
    leave a gap.

    Args:
        path: PNG file to write; its folder is created.
        events: lines of stats.jsonl in their order. Read are those with a number in `epoch`
            (finished epochs, fractional) and in a field of a panel.
        panels: of the method, beside that of the learning rate.
        title: above the figure.

    Raises:
        ValueError: No event has anything to draw.
    """
    drawn = [panel for panel in (*panels, _LR_PANEL) if _kinds_with(events, panel.field)]
    if not drawn:
        fields = ", ".join(panel.field for panel in (*panels, _LR_PANEL))
        raise ValueError(
            f"at least one event must have `epoch` and one of {fields}, got none for {path}"
        )
    figure = Figure(figsize=(6.4, 1.0 + 2.2 * len(drawn)), layout="constrained")
    axes = figure.subplots(len(drawn), 1, squeeze=False, sharex=True)[:, 0]
    for axis, panel in zip(axes, drawn, strict=True):
        _draw_panel(axis, events, panel)
        _finish(axis, "epoch" if axis is axes[-1] else "", panel.label)
        if panel is not _LR_PANEL:
            axis.legend(frameon=False, fontsize=9)
    _write(figure, path, title)


def _draw_panel(axis: Any, events: Sequence[Mapping[str, Any]], panel: CurvePanel) -> None:
    for index, kind in enumerate(_kinds_with(events, panel.field)):
        _plot_field(axis, events, kind, panel.field, color=_COLORS[index % len(_COLORS)])
    if panel.reference:
        for index, kind in enumerate(_kinds_with(events, panel.reference)):
            style = {"linestyle": (0, (4, 3)) if index == 0 else ":", "color": _GRAY}
            _plot_field(axis, events, kind, panel.reference, name=panel.reference_name, **style)
    if panel.from_zero:
        axis.set_ylim(bottom=0)


def _kinds_with(events: Sequence[Mapping[str, Any]], field: str) -> list[str]:
    """Kinds of events that have `field` and an epoch, in order of appearance."""
    kinds = [str(event.get("event", "")) for event in events if _is_point(event, field)]
    return list(dict.fromkeys(kinds))


def _is_point(event: Mapping[str, Any], field: str) -> bool:
    return all(isinstance(event.get(name), (int, float)) for name in ("epoch", field))


def _plot_field(
    axis: Any,
    events: Sequence[Mapping[str, Any]],
    kind: str,
    field: str,
    name: str = "",
    **style: Any,
) -> None:
    points = [
        (event["epoch"], event[field])
        for event in events
        if _is_point(event, field) and str(event.get("event", "")) == kind
    ]
    label = f"{name} ({kind})" if name else kind
    marker = "o" if len(points) < 40 else ""
    axis.plot(
        *zip(*points, strict=True), label=label, linewidth=1.5, marker=marker, markersize=3, **style
    )


def _finish(axis: Any, x_label: str, y_label: str) -> None:
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.margins(x=0.02)


def _write(figure: Any, path: str | Path, title: str) -> None:
    if title:
        figure.suptitle(title, fontsize=12)
    with atomic_write(path) as part:
        figure.savefig(part, dpi=130, format=Path(path).suffix[1:] or "png")
