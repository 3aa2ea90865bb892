"""A folder of small videos of which a tenth is broken, in ten ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from helpers.stalling import serve
from helpers.videos_on_disk import numbered_frames, write_video

NUM_FRAMES = 10
NUM_CLASSES = 4


class BrokenFolder(NamedTuple):
    """The list's rows (path and label) and, of those that are broken, way and path."""

    rows: list[tuple[str, int]]
    broken: dict[str, str]


def _index_of(content: bytes, name: bytes) -> int:
    place = content.index(name)
    return place - 4  # a box begins with its size


def _write_audio(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        for begin in range(0, 8192, 1024):
            samples = np.sin(np.arange(begin, begin + 1024) * 0.2).astype(np.float32)[None]
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16_000, begin
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _zero_middle(content: bytes) -> bytes:
    """The bytes of the frames in the middle become zeros."""
    begin = _index_of(content, b"mdat") + 8
    size = len(content) - begin
    first, last = begin + size // 3, begin + size * 2 // 3
    return content[:first] + bytes(last - first) + content[last:]


def make_pieces(folder: Path) -> tuple[bytes, dict[str, Callable[[Path], object]]]:
    """The bytes of a whole video, and for each way of being broken what writes such a file.

    "missing" writes nothing, and "stalling" a whole file, for a server that stops.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Noise, so that every frame has bytes to be damaged.
    noise = np.random.default_rng(1).integers(0, 60, (NUM_FRAMES, 32, 32, 1), dtype=np.uint8)
    frames = numbered_frames(NUM_FRAMES, 32, 32) // 2 + noise
    front = {"movflags": "faststart"}
    plain = write_video(folder / "plain.mp4", frames).read_bytes()
    whole = write_video(folder / "front.mp4", frames, container_options=front).read_bytes()
    _write_audio(folder / "audio.mp4")
    audio = (folder / "audio.mp4").read_bytes()
    pictures = _index_of(whole, b"mdat")
    cut = pictures + (len(whole) - pictures) // 2
    garbage = np.random.default_rng(0).bytes(4000)
    contents = {
        "truncated": whole[:cut],
        "empty": b"",
        "text": b"<html><body>404 Not Found</body></html>\n",
        "zeroed middle": _zero_middle(whole),
        "audio only": audio,
        "garbage": garbage,
        "header only": whole[: pictures + 8],
        "no index": plain[: _index_of(plain, b"moov")],
    }
    ways: dict[str, Callable[[Path], object]] = {
        way: (lambda path, content=content: path.write_bytes(content))
        for way, content in contents.items()
    }
    ways["missing"] = lambda path: None
    ways["stalling"] = lambda path: path.write_bytes(whole)
    return whole, ways


@contextmanager
def broken_folder(folder: Path, num_videos: int = 400) -> Iterator[BrokenFolder]:
    """Write the folder and serve those of its files that stall, which stop half-way."""
    whole, ways = make_pieces(folder / "pieces")
    videos = folder / "videos"
    videos.mkdir()
    kinds = list(ways)
    every = num_videos // (num_videos // 10)
    rows: list[tuple[str, int]] = []
    broken: dict[str, str] = {}
    stalls = tuple(f"{number:03d}.mp4" for number in range(num_videos))
    with serve(videos, stalling=stalls) as address:
        for number in range(num_videos):
            path = videos / f"{number:03d}.mp4"
            place, is_whole = str(path), number % every != every // 2
            if is_whole:
                path.write_bytes(whole)
            else:
                way = kinds[number // every % len(kinds)]
                ways[way](path)
                if way == "stalling":
                    place = f"{address}/{path.name}"
                broken[place] = way
            rows.append((place, number % NUM_CLASSES))
        yield BrokenFolder(rows, broken)


def write_list(path: Path, rows: list[tuple[str, int]]) -> Path:
    """A list file of rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{video} {label}\n" for video, label in rows))
    return path
