"""Interface of trackers, and the trackers of a run together."""

from __future__ import annotations

import importlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import ClassVar

from slowfast_maskfeat.disk import write_error
from slowfast_maskfeat.log import first_line


@dataclass(frozen=True)
class TrackedRun:
    """Facts of a run that its trackers start with.

    Attributes:
        folder: OUTPUT_DIR; its name is that of the run.
        task: TASK; runs of several tasks may share a folder.
        config: dotted key -> value.
        is_resumed: the run continues an earlier one of its task and folder.
        event_folder: of TensorBoard's files.
    """

    folder: Path
    task: str
    config: Mapping[str, object]
    is_resumed: bool
    event_folder: Path


class Tracker(ABC):
    """Program that shows scalars, pictures and the configuration of runs.

    A subclass is built from a `TrackedRun`, and writes its configuration then.

    Attributes:
        name: value of LOG.TRACKERS, and the extra of this package that installs it.
        module: that must be installed.
        folder: where it writes.

    Raises:
        ValueError: from the constructor: it can't start for a reason that a user can fix.
        OSError: from any method: the disk is full.
    """

    name: ClassVar[str]
    module: ClassVar[str]
    folder: Path

    @abstractmethod
    def __init__(self, run: TrackedRun) -> None: ...

    @abstractmethod
    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write numbers by name, such as `train/loss`, at an optimizer step."""

    @abstractmethod
    def picture(self, step: int, path: Path) -> None:
        """Write a picture from a PNG file, under the name of the file without its suffix."""

    @abstractmethod
    def close(self, *, failed: bool) -> None:
        """Write what is left; `failed` if the run did not come to its end."""

    @classmethod
    def check(cls) -> None:
        """Import the module.

        Raises:
            ValueError: it is not installed, or can't be imported.
        """
        reason = "is not installed"
        try:
            module = importlib.import_module(cls.module)
            # A folder of this name beside the program is a module, too, but has no file.
            if getattr(module, "__file__", None):
                return
        except ImportError as error:
            if not isinstance(error, ModuleNotFoundError):
                reason = f"can't be imported ({first_line(error)})"
        raise ValueError(
            f"LOG.TRACKERS {cls.name} requires a package that {reason}: "
            f"pip install 'slowfast_maskfeat[{cls.name}]'"
        )


class Trackers:
    """The trackers of a run, as a context in which it runs; none in processes but the main one.

    A tracker that fails during the run is dropped with one warning. Only a full disk ends the run,
    as it does elsewhere.

    Attributes:
        step: the last optimizer step, at which pictures and the test are written.
    """

    def __init__(self) -> None:
        self.step = 0
        self._trackers: list[Tracker] = []

    def add(self, tracker: Tracker) -> None:
        """Add a tracker; it is closed at the end of the context."""
        self._trackers.append(tracker)

    @property
    def folders(self) -> list[Path]:
        """Where the trackers write."""
        return [tracker.folder for tracker in self._trackers]

    def scalars(self, values: Mapping[str, float], *, step: int | None = None) -> None:
        """Write numbers by name; tensors among them synchronize with their device.

        Args:
            values: such as `{"train/loss": 0.5}`.
            step: optimizer step; None: the last one.
        """
        self.step = self.step if step is None else step
        if not self._trackers:
            return
        numbers = {name: float(value) for name, value in values.items()}
        self._each(lambda tracker: tracker.scalars(self.step, numbers))

    def picture(self, path: Path) -> None:
        """Write a picture, a PNG file, at the last step."""
        self._each(lambda tracker: tracker.picture(self.step, path))

    def __enter__(self) -> Trackers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        failed = kind is not None
        with suppress(OSError) if failed else nullcontext():
            self._each(lambda tracker: tracker.close(failed=failed))

    def _each(self, work: Callable[[Tracker], None]) -> None:
        for tracker in list(self._trackers):
            try:
                work(tracker)
            except Exception as error:  # each library raises errors of its own types
                if write_error(error) is not None:
                    raise
                self._trackers.remove(tracker)
                message = f"{type(error).__name__}: {first_line(error)}"
                print(
                    f"warning: {tracker.name} tracks this run no longer: {message}",
                    file=sys.stderr,
                )
