"""Event files of TensorBoard."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from slowfast_maskfeat.disk import make_folder, write_error, writing
from slowfast_maskfeat.trackers.base import TrackedRun, Tracker


class TensorBoardTracker(Tracker):
    """Writes event files; the configuration is the text `configuration`."""

    name = "tensorboard"
    module = "torch.utils.tensorboard"

    def __init__(self, run: TrackedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.folder = run.event_folder
        self._hook_before, threading.excepthook = threading.excepthook, self._on_thread_error
        # Indented, it is a block of code in TensorBoard's Markdown.
        text = "".join(f"    {key}: {value}\n" for key, value in run.config.items())
        with writing(make_folder(self.folder)):
            self._writer = SummaryWriter(str(self.folder))
            self._writer.add_text("configuration", text)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker.scalars`."""
        with writing(self.folder):
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def picture(self, step: int, path: Path) -> None:
        """See `Tracker.picture`."""
        pixels = np.asarray(Image.open(path).convert("RGB"))
        with writing(self.folder):
            self._writer.add_image(path.stem, pixels, step, dataformats="HWC")

    def close(self, *, failed: bool) -> None:
        """See `Tracker.close`."""
        try:
            with writing(self.folder):
                self._writer.flush()  # unlike `close`, it raises the errors of the thread
                self._writer.close()
        finally:
            threading.excepthook = self._hook_before

    def _on_thread_error(self, args: threading.ExceptHookArgs) -> None:
        # The thread in which TensorBoard writes: its error is raised again in the next call.
        if args.exc_value is None or write_error(args.exc_value) is None:
            self._hook_before(args)
