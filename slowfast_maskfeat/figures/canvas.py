"""Figures of matplotlib: their style, size and files. matplotlib is imported on use."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from slowfast_maskfeat.cli import StoppedError
from slowfast_maskfeat.figures.fonts import find_fonts
from slowfast_maskfeat.files import atomic_write
from slowfast_maskfeat.log import first_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colors, which color-blind readers can tell apart.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
GRAY = "#777777"
DPI = 130


@contextmanager
def own_style(texts: Iterable[str]) -> Iterator[Callable[[str], str]]:
    """Draw in matplotlib's default style, whatever the user's settings, with fonts for all texts.

    Args:
        texts: all that will be written and that comes from users: names of classes, files, runs.
            They are never formulas: `$` is a character.

    Yields:
        Function that makes one of the texts drawable, see `Fonts.drawable`.
    """
    import matplotlib

    fonts = find_fonts(texts)
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"font.family": fonts.families, "text.parse_math": False})
        yield fonts.drawable


def new_figure(width: float, height: float) -> Figure:
    """Make an empty figure of a size in inches, whose parts get room for their texts."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def write_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure completely or not at all, in the format of the suffix: PNG, PDF, SVG ...

    Raises:
        OSError: the file can't be written.
        ValueError: there is no such format.
    """
    with atomic_write(path) as part:
        figure.savefig(part, dpi=DPI, format=Path(path).suffix[1:] or "png")


def draw_or_warn(path: str | Path, draw: Callable[[], bool | None]) -> bool:
    """Draw a figure that goes with the results of a run; if that fails, print one warning.

    A run never ends because of a figure: whatever is missing or broken (data, matplotlib, fonts,
    memory, the disk) is the reason in the warning.

    Args:
        path: file of the figure, for the warning.
        draw: draws and writes it; returns False if there is no such figure.

    Returns:
        Whether the figure was drawn.
    """
    try:
        return draw() is not False
    except StoppedError:  # a signal stops the run
        raise
    except Exception as error:  # each library raises errors of its own types
        print(f"warning: {path} is not drawn: {_reason(error)}", file=sys.stderr)
        return False


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    message = first_line(error)
    is_plain = isinstance(error, (ValueError, ImportError, OSError)) or not str(error).strip()
    return message if is_plain else f"{type(error).__name__}: {message}"
