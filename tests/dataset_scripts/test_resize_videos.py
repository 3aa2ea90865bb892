"""Copies are small, upright and quick to seek in, and show the frames of the originals."""

from __future__ import annotations

import json
import os
from pathlib import Path

import av
import numpy as np
import pytest
from helpers import dataset_scripts
from helpers.broken_videos import make_pieces, write_list
from helpers.videos_on_disk import numbered_frames, read_numbers, write_video
from PIL import Image

from slowfast_maskfeat.curation.resize_videos import resize_video
from slowfast_maskfeat.datasets import read_list
from slowfast_maskfeat.datasets.list_file import separator_of
from slowfast_maskfeat.videos import open_video
from slowfast_maskfeat.videos.transcode import resized


def _copy(source: Path, target: Path, short_side: int = 32, gop: int = 8) -> None:
    failure = resize_video(str(source), target, short_side=short_side, gop=gop, crf=18)
    assert failure is None, failure


@pytest.mark.parametrize(
    ("size", "short_side", "wanted"),
    [
        ((340, 256), 128, (170, 128)),
        ((256, 340), 128, (128, 170)),
        ((1920, 1080), 320, (568, 320)),
        ((101, 57), 320, (100, 56)),
        ((64, 48), 320, (64, 48)),
    ],
)
def test_sizes_are_even_and_never_larger(size, short_side, wanted):
    assert resized(*size, short_side) == wanted


@pytest.mark.parametrize(
    "kwargs",
    [
        {"bframes": 2},
        {"with_audio": True},
        {"rotation": 90.0},
        {"mirrored": True},
        {"pixel_format": "yuv420p10le"},
        {"pixel_format": "yuvj420p"},
        {"codec": "mpeg4", "bframes": 2},
    ],
    ids=lambda kwargs: "-".join(map(str, kwargs.values())),
)
def test_a_copy_shows_the_frames_of_its_original(tmp_path, kwargs):
    ending = "avi" if kwargs.get("codec") == "mpeg4" else "mp4"
    frames = numbered_frames(30, 96, 128)
    source = write_video(tmp_path / f"a.{ending}", frames, gop=30, **kwargs)
    _copy(source, tmp_path / "copy.mp4", short_side=48)
    with open_video(source, "pyav") as old, open_video(tmp_path / "copy.mp4", "pyav") as new:
        assert new.num_frames == 30
        np.testing.assert_allclose(new.timestamps, old.timestamps - old.timestamps[0], atol=1e-3)
        before, after = old.frames(range(30)), new.frames(range(30))
    assert min(after.shape[1:3]) == 48
    assert (before.shape[1] > before.shape[2]) == (after.shape[1] > after.shape[2])
    shrunk = before.reshape(30, after.shape[1], 2, after.shape[2], 2, 3).mean(axis=(2, 4))
    assert np.abs(shrunk - after).mean() < 4  # gray levels; another frame differs by 25 and more
    with av.open(str(tmp_path / "copy.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        stream = container.streams.video[0]
        assert stream.codec_context.pix_fmt == "yuv420p"
        packets = [packet for packet in container.demux(stream) if packet.size]
    assert [i for i, packet in enumerate(packets) if packet.is_keyframe] == [0, 8, 16, 24]
    assert all(packet.pts == packet.dts for packet in packets)


def test_a_variable_rate_and_odd_sizes_are_kept(tmp_path):
    times = np.cumsum([0, 0.02, 0.2, 0.04, 0.5, 0.03, 0.03, 0.1, 0.02, 0.3])
    frames = numbered_frames(10, 65, 97)
    source = write_video(tmp_path / "a.mkv", frames, times=times, pixel_format="yuv444p")
    _copy(source, tmp_path / "copy.mp4", short_side=320)
    with open_video(tmp_path / "copy.mp4", "pyav") as copy:
        np.testing.assert_allclose(copy.timestamps, times, atol=2e-3)
        shown = copy.frames(range(10))
    assert shown.shape[1:3] == (64, 96)
    assert read_numbers(shown) == list(range(10))


@pytest.mark.parametrize("matrix", [1, 5, 9], ids=["bt709", "bt601", "bt2020"])
def test_colors_are_those_of_the_original_whatever_its_matrix(tmp_path, matrix):
    """Decoders read a file by the matrix that it names."""
    picture = np.zeros((64, 192, 3), np.uint8)
    for third, color in enumerate([(200, 30, 30), (30, 180, 40), (30, 40, 220)]):
        picture[:, 64 * third : 64 * (third + 1)] = color
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 192, 64, "yuv420p"
        stream.codec_context.colorspace = matrix
        for _ in range(10):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace=matrix)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    _copy(tmp_path / "a.mp4", tmp_path / "copy.mp4", short_side=32)
    for decoder in ("pyav", "decord"):
        with (
            open_video(tmp_path / "a.mp4", decoder) as old,
            open_video(tmp_path / "copy.mp4", decoder) as new,
        ):
            middles = [32, 96, 160]
            before = old.frames([5])[0][32, middles].astype(int)
            after = new.frames([5])[0][16, [x // 2 for x in middles]].astype(int)
        assert np.abs(before - after).max() <= 4, decoder


def test_the_delays_of_an_animation_are_kept(tmp_path):
    frames = [Image.fromarray(frame) for frame in numbered_frames(3, 48, 64)]
    first, *others = frames
    source = tmp_path / "a.gif"
    first.save(source, save_all=True, append_images=others, duration=[100, 500, 50])
    _copy(source, tmp_path / "copy.mp4")
    with open_video(tmp_path / "copy.mp4", "pyav") as copy:
        np.testing.assert_allclose(copy.timestamps, [0, 0.1, 0.6], atol=2e-3)


@pytest.fixture
def originals(tmp_path):
    whole, ways = make_pieces(tmp_path / "pieces")
    folder = tmp_path / "videos"
    for name in ("a/1.mp4", "a/2.avi", "b c/1.webm"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(whole)
    for way in ("truncated", "zeroed middle", "text"):
        ways[way](folder / "a" / f"{way.replace(' ', '_')}.mp4")
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))
    (tmp_path / "train.csv").write_text("".join(f"{name},{len(name)}\n" for name in names))
    return folder


def _run(originals, *words, code=0):
    folder = originals.parent
    words = ("--output", folder / "small", "--short-side", 16, "--processes", 1, *words)
    prefix = ("--prefix", originals)
    return dataset_scripts.run("resize_videos.py", folder / "train.csv", *prefix, *words, code=code)


def test_a_list_of_copies_is_written_and_failures_are_named(originals):
    before = {path: path.read_bytes() for path in originals.rglob("*.*")}
    done = _run(originals, code=1)
    small = originals.parent / "small"
    videos = read_list(small / "train.csv", separator=",", prefix=str(small))
    copies = [Path(videos.path(row)) for row in range(len(videos))]
    names = [copy.relative_to(small).as_posix() for copy in copies]
    assert names == ["videos/a/1.mp4", "videos/a/2.mp4", "videos/b c/1.mp4"]
    assert videos.labels.tolist() == [len("a/1.mp4"), len("a/2.avi"), len("b c/1.webm")]
    for copy in copies:
        with open_video(copy) as video:
            assert video.frames([0, 9]).shape == (2, 16, 16, 3)
    refused = (small / "train_refused.csv").read_text()
    assert refused.count("\n") == 4
    for reason in ("by its header", "frames can be decoded", "cannot be opened as a video"):
        assert reason in refused
    assert "6 rows, 3 refused" in done.stdout
    assert {path: path.read_bytes() for path in originals.rglob("*.*")} == before
    assert not [path for path in small.rglob(".*") if path.is_file()]


def test_what_is_there_is_not_made_again(originals):
    _run(originals, code=1)
    small = originals.parent / "small"
    copies = {path: path.stat().st_mtime_ns for path in (small / "videos").rglob("*.mp4")}
    (small / "videos" / "a" / "1.mp4").unlink()
    _run(originals, code=1)
    again = {path: path.stat().st_mtime_ns for path in (small / "videos").rglob("*.mp4")}
    assert set(again) == set(copies)
    assert {path.name for path in copies if copies[path] != again[path]} == {"1.mp4"}
    assert sum(copies[path] != again[path] for path in copies) == 1
    other = _run(originals, "--gop", 4, code=2)
    assert "the settings must be" in other.stderr
    assert json.loads((small / "settings.json").read_text())["gop"] == 16


def test_a_copy_is_that_of_its_original(originals, tmp_path):
    """Not that of another file of the same name, or of one that was replaced since."""
    _run(originals, code=1)
    small = originals.parent / "small"
    copy, first = small / "videos" / "a" / "1.mp4", originals / "a" / "1.mp4"
    made = copy.stat().st_mtime_ns
    (tmp_path / "moved").mkdir()
    originals.rename(tmp_path / "moved" / "originals")  # the same files elsewhere
    _run(tmp_path / "moved" / "originals", "--output", small, code=2)  # its list is missing
    (tmp_path / "moved" / "train.csv").write_text("a/1.mp4,7\n")
    _run(tmp_path / "moved" / "originals", "--output", small)
    assert copy.stat().st_mtime_ns == made
    (tmp_path / "moved" / "originals").rename(originals)
    first.write_bytes((originals / "a" / "2.avi").read_bytes())
    os.utime(first, ns=(1, 1))
    _run(originals, code=1)
    assert copy.stat().st_mtime_ns > made
    other = tmp_path / "other" / "videos"
    (other / "a").mkdir(parents=True)
    (other / "a" / "1.mp4").write_bytes(first.read_bytes() + b"0")
    (tmp_path / "other" / "train.csv").write_text("a/1.mp4,7\n")
    with open(small / "sources.jsonl", "a") as file:  # damaged lines say nothing
        file.write('7\n["videos/a/1.mp4"]\n["videos/a/1.m')
    refused = _run(other, "--output", small, code=2)
    assert f"1.mp4 is the copy of {first}, not of {other / 'a' / '1.mp4'}" in refused.stderr


@pytest.mark.parametrize("beside", [(), ("emu", "dog", "cat")])
def test_numbers_of_named_classes_agree_in_all_lists(tmp_path, beside):
    """A validation list that lacks a class has the numbers of the training list."""
    whole, _ = make_pieces(tmp_path / "pieces")
    rows = {"val": ["4.mp4,dog", "5.mp4,emu"], "train": ["1.mp4,cat", "2.mp4,dog", "3.mp4,emu"]}
    for name, lines in rows.items():
        (tmp_path / f"{name}.csv").write_text("\n".join(["path,label", *lines]))
        for line in lines:
            (tmp_path / line.split(",")[0]).write_bytes(whole)
    if beside:
        (tmp_path / "classes.txt").write_text("\n".join(beside))
    lists = [tmp_path / "val.csv", tmp_path / "train.csv"]
    small = ("--output", tmp_path / "small", "--short-side", 16, "--processes", 1)
    dataset_scripts.run("resize_videos.py", *lists, "--prefix", tmp_path, *small)
    dataset_scripts.run(
        "check_videos.py", *lists, "--prefix", tmp_path, "--output", tmp_path / "checked"
    )
    names = beside or ("cat", "dog", "emu")
    for folder in ("small", "checked"):
        assert (tmp_path / folder / "classes.txt").read_text().split() == list(names)
    for name, lines in rows.items():
        for folder in ("small", "checked"):
            path = tmp_path / folder / f"{name}.csv"
            separator = separator_of(str(path), " ")
            videos = read_list(path, separator=separator, class_names=names)
            expected = [names.index(line.split(",")[1]) for line in lines]
            assert videos.labels.tolist() == expected, (folder, name)
    report = json.loads((tmp_path / "checked" / "val_check.json").read_text())
    whole_list = read_list(
        tmp_path / "val.csv", separator=",", prefix=str(tmp_path), class_names=names
    )
    assert report["list_sha256"] == report["clean_list_sha256"] == whole_list.fingerprint


def test_bad_input_is_one_error(tmp_path):
    whole, _ = make_pieces(tmp_path / "pieces")
    for name in ("1.mp4", "1.avi"):
        (tmp_path / name).write_bytes(whole)
    rows = [(str(tmp_path / name), 0) for name in ("1.mp4", "1.avi")]
    path = write_list(tmp_path / "train.csv", rows)
    for words, message in (
        ((), "the same copy"),
        (("--short-side", 33), "even"),
        (("--crf", 70), "in 0..51"),
    ):
        rows_used = rows if not words else rows[:1]
        write_list(path, rows_used)
        done = dataset_scripts.run(
            "resize_videos.py", path, "--output", tmp_path / "small", *words, code=2
        )
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1
