"""Parts of the page of a test: numbers with intervals, reliability diagram, videos."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from slowfast_maskfeat.figures.page import escaped

STYLE = """
.tiles { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr));
  margin: 1rem 0; }
.tile { border: 1px solid var(--line); border-radius: 8px; background: var(--card);
  padding: .8rem 1rem; }
.tile b { display: block; font-size: 1.7rem; line-height: 1.25;
  font-variant-numeric: tabular-nums; }
.tile small { display: block; color: var(--soft); }
.range { display: block; position: relative; height: 6px; margin: .6rem 0 .5rem;
  background: var(--line); border-radius: 3px; }
.range i { position: absolute; top: 0; bottom: 0; min-width: 2px; background: var(--accent);
  border-radius: 3px; opacity: .45; }
.range s { position: absolute; top: -3px; bottom: -3px; width: 3px; margin-left: -1px;
  background: var(--accent); border-radius: 2px; }
.range u { position: absolute; top: -3px; bottom: -3px; left: 50%; width: 1px;
  background: var(--soft); }
.tall .scroll { max-height: 32rem; overflow: auto; }
.tall thead th { position: sticky; top: 0; z-index: 1; background: var(--card);
  box-shadow: 0 1px var(--line); }
.tall thead th:first-child { z-index: 2; }
.reliability { max-width: 30rem; margin-bottom: 1rem; }
.reliability rect { fill: var(--accent); opacity: .85; } .reliability rect.above { opacity: .3; }
.reliability rect.below { fill: var(--second); opacity: .5; }
.reliability rect.count { fill: var(--soft); opacity: .6; }
.reliability .even { stroke: var(--soft); stroke-dasharray: 4 4; }
.videos { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(19rem, 1fr)); }
.videos img { width: 100%; height: auto; } .videos figcaption { color: var(--ink); }
.videos code { display: block; color: var(--soft); margin-top: .3rem; }
.wide { grid-template-columns: 1fr; }
.frames { display: grid; gap: .4rem; }
.wide .frames { grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); }
@media (max-width: 30rem) { .videos { grid-template-columns: 1fr; } }
@media print { .tall .scroll { max-height: none; } }
"""

_STRIP_HEIGHT = 150  # pixels of each frame of a video, at most
_STRIP_WIDTH = 720  # of frames side by side
_WIDE = 720  # of an annotated frame
_GAP = 4
_QUALITY = 82


class Tile(NamedTuple):
    """A number that is read first.

    Attributes:
        name: for programs that read the page.
        title: of the number.
        text: the number as shown.
        value: the number in full.
        note: below it.
        span: low, middle and high of an interval in [0, 1]; None for a number without one.
        is_difference: `span` is in [-1, 1], and the bar has a mark at 0.
    """

    name: str
    title: str
    text: str
    value: float | None
    note: str = ""
    span: tuple[float, float, float] | None = None
    is_difference: bool = False


def tiles(items: Sequence[Tile]) -> str:
    """Return numbers side by side, each with its interval as a bar."""
    return f'<div class="tiles">\n{"".join(map(_tile, items))}</div>'


def _tile(item: Tile) -> str:
    value = "" if item.value is None else escaped(item.value)
    return (
        f'<div class="tile" data-tile="{escaped(item.name)}" data-value="{value}">'
        f"{escaped(item.title)}<b>{escaped(item.text)}</b>{_bar(item)}"
        f"<small>{escaped(item.note)}</small></div>\n"
    )


def _bar(item: Tile) -> str:
    if item.span is None:
        return ""
    ends = [50 * x + 50 if item.is_difference else 100 * x for x in item.span]
    low, middle, high = (f"{min(max(x, 0), 100):.2f}" for x in ends)
    zero = "<u></u>" if item.is_difference else ""
    width = f"{max(float(high) - float(low), 0):.2f}"
    return (
        f'<span class="range">{zero}<i style="left:{low}%;width:{width}%"></i>'
        f'<s style="left:{middle}%"></s></span>'
    )


def tall(part: str) -> str:
    """Return a long table in a frame that scrolls, with its heads in sight."""
    return f'<div class="tall">{part}</div>' if part else ""


class ReliabilityBin(NamedTuple):
    """Videos whose top-1 score is in a bin.

    Attributes:
        low: of the bin, in [0, 1].
        high: of the bin.
        num_videos: number of them.
        score: their mean score; None without videos.
        accuracy: share of them that is right; None without videos.
    """

    low: float
    high: float
    num_videos: int
    score: float | None
    accuracy: float | None


def reliability_diagram(bins: Sequence[ReliabilityBin], caption: str) -> str:
    """Return accuracy by top-1 score as bars, and the number of videos below.

    Args:
        bins: of equal width.
        caption: below the diagram.
    """
    width, height, base = 400, 300, 60  # of the upper diagram; of the counts
    left, right, top, bottom = 40, 10, 10, 34
    plot_width, plot_height = width - left - right, height - top

    def across(x: float) -> float:
        return round(left + x * plot_width, 1)

    def down(y: float) -> float:
        return round(top + (1 - y) * plot_height, 1)

    drawn = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        drawn.append(
            f'<line class="grid" x1="{left}" x2="{width - right}" y1="{down(tick)}" '
            f'y2="{down(tick)}"/><text x="{left - 6}" y="{down(tick) + 4}" text-anchor="end">'
            f'{100 * tick:g}</text><text x="{across(tick)}" y="{height + base + 14}" '
            f'text-anchor="middle">{tick:g}</text>'
        )
    most = max((part.num_videos for part in bins), default=0) or 1
    for part in bins:
        if part.accuracy is None or part.score is None:
            continue
        x, wide = across(part.low) + 1, round((part.high - part.low) * plot_width - 2, 1)
        tip = (
            f"score {part.low:.2f} to {part.high:.2f}: {part.num_videos} videos, "
            f"{100 * part.accuracy:.1f} % right, mean score {part.score:.3f}"
        )
        low, high = sorted((part.accuracy, part.score))
        side = "above" if part.accuracy > part.score else "below"
        tall_count = round(part.num_videos / most * (base - 14), 1)
        drawn.append(
            f"<g><title>{escaped(tip)}</title>"
            f'<rect x="{x}" y="{down(low)}" width="{wide}" '
            f'height="{round(down(0) - down(low), 1)}"/>'
            f'<rect class="{side}" x="{x}" y="{down(high)}" width="{wide}" '
            f'height="{round(down(low) - down(high), 1)}"/>'
            f'<rect class="count" x="{x}" y="{round(height + base - tall_count, 1)}" '
            f'width="{wide}" height="{tall_count}"/></g>'
        )
    drawn.append(
        f'<line class="even" x1="{left}" y1="{down(0)}" x2="{width - right}" y2="{down(1)}"/>'
        f'<text x="{left + plot_width / 2}" y="{height + base + bottom - 4}" '
        'text-anchor="middle">top-1 score</text>'
        f'<text transform="translate(10 {top + plot_height / 2}) rotate(-90)" '
        'text-anchor="middle">right, %</text>'
        f'<text transform="translate(10 {height + base / 2 + 6}) rotate(-90)" '
        'text-anchor="middle">videos</text>'
    )
    label = "reliability diagram: accuracy by top-1 score, and the number of videos"
    return (
        f'<figure class="card reliability"><svg viewBox="0 0 {width} {height + base + bottom}" '
        f'role="img" aria-label="{label}">{"".join(drawn)}</svg>'
        f"<figcaption>{escaped(caption)}</figcaption></figure>\n"
    )


class VideoCard(NamedTuple):
    """A video with a few of its frames.

    Attributes:
        frames: uint8 (H, W, 3), shown side by side.
        path: of the video.
        lines: about it.
    """

    frames: Sequence[NDArray[np.uint8]]
    path: str
    lines: Sequence[str]


def video_cards(cards: Sequence[VideoCard], *, is_wide: bool = False) -> str:
    """Return videos side by side, as many as the width has room for; nothing for none."""
    kind = "videos wide" if is_wide else "videos"
    found = "".join(_video(card, is_wide) for card in cards)
    return f'<div class="{kind}">\n{found}</div>' if found else ""


def _video(card: VideoCard, is_wide: bool) -> str:
    alone = [[frame] for frame in card.frames]  # each of an annotated pair, to stand below another
    strips = alone if is_wide else [card.frames]
    limits = (_WIDE, _WIDE) if is_wide else (_STRIP_WIDTH, _STRIP_HEIGHT)
    alt = escaped(f"frames of {card.path}")
    pictures = "".join(
        f'<img alt="{alt}" src="data:image/jpeg;base64,{_strip(strip, *limits)}">'
        for strip in strips
    )
    lines = "".join(f"<div>{escaped(line)}</div>" for line in card.lines)
    return (
        f'<figure class="card"><div class="frames">{pictures}</div><figcaption>{lines}'
        f"<code>{escaped(card.path)}</code></figcaption></figure>\n"
    )


def _strip(frames: Sequence[NDArray[np.uint8]], total: int, highest: int) -> str:
    """Put frames side by side, at most `total` pixels wide and `highest` high: JPEG in base64."""
    from PIL import Image

    width = sum(frame.shape[1] / frame.shape[0] for frame in frames)
    height = max(round(min(highest, total / width)), 1)
    images = [
        Image.fromarray(frame).resize(
            (max(round(frame.shape[1] / frame.shape[0] * height), 1), height),
            Image.Resampling.LANCZOS,
        )
        for frame in frames
    ]
    whole = sum(image.width for image in images) + _GAP * (len(images) - 1)
    sheet = Image.new("RGB", (whole, height), "white")
    left = 0
    for image in images:
        sheet.paste(image, (left, 0))
        left += image.width + _GAP
    file = io.BytesIO()
    sheet.save(file, format="JPEG", quality=_QUALITY, optimize=True)
    return base64.b64encode(file.getvalue()).decode("ascii")
