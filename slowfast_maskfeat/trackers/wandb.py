"""Runs of Weights & Biases."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from slowfast_maskfeat.disk import make_folder, writing
from slowfast_maskfeat.log import first_line
from slowfast_maskfeat.trackers.base import TrackedRun, Tracker

_PROJECT = "slowfast_maskfeat"


class WandbTracker(Tracker):
    """Writes a run of wandb, which a resumed training continues.

    Project, name, group, entity and mode are those of wandb's own environment variables, such as
    WANDB_PROJECT and WANDB_MODE. Without them the project is named after this package, and the run
    after its folder. The x-axis is the optimizer step, not wandb's own, which can't go back when a
    resumed run repeats steps. Output of the console is not recorded.
    """

    name = "wandb"
    module = "wandb"

    def __init__(self, run: TrackedRun) -> None:
        import wandb

        self.folder = make_folder(run.folder / "wandb")
        known = self.folder / "_".join(filter(None, ("run_id", run.task)))
        settings = wandb.Settings(console="off", reinit="create_new")
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", _PROJECT),
                name=os.environ.get("WANDB_NAME", run.folder.resolve().name),
                dir=str(run.folder),  # in which wandb makes its own folder
                id=_read_id(known) if run.is_resumed else None,
                resume="allow",
                config=dict(run.config),
                allow_val_change=True,
                settings=settings,
            )
        except (wandb.Error, TimeoutError) as error:
            raise ValueError(
                f"LOG.TRACKERS wandb can't start: {first_line(error)}; with WANDB_MODE=offline in "
                "the environment it needs neither key nor network"
            ) from error
        with writing(known):
            known.write_text(f"{self._run.id}\n", encoding="utf-8")
        self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker.scalars`."""
        self._run.log({"step": step, **values})

    def picture(self, step: int, path: Path) -> None:
        """See `Tracker.picture`."""
        import wandb

        self._run.log({"step": step, path.stem: wandb.Image(str(path))})

    def close(self, *, failed: bool) -> None:
        """See `Tracker.close`."""
        self._run.finish(exit_code=int(failed))


def _read_id(path: Path) -> str | None:
    """Return the id of an earlier run; None if there was none."""
    return path.read_text(encoding="utf-8").strip() or None if path.exists() else None
