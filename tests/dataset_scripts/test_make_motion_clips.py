"""The demo data: motion alone decides the class, files are whole, runs are repeatable."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import av
import numpy as np
import pytest
from helpers.dataset_scripts import run
from helpers.load_tool import load_tool

clips = load_tool("datasets/make_motion_clips.py")
rendering = load_tool("datasets/motion_rendering.py")
SETTINGS = clips.VideoSettings(seed=3, size=32, frames=8)


def decode(path: Path) -> np.ndarray:
    with av.open(str(path)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


def make(folder: Path, settings: object = SETTINGS, **changes: int) -> int:
    counts = {"num_pretrain": 16, "num_train": 8, "num_val": 8, "num_test": 8, **changes}
    written = clips.make_data_set(folder, settings, **counts)
    assert all(path.is_file() for path in written)
    return sum(path.suffix == ".mp4" for path in written)


@pytest.fixture(scope="module")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("motion") / "data"
    assert make(folder) == 32
    return folder


def ks_distance_from_uniform(values: np.ndarray) -> float:
    """Kolmogorov-Smirnov statistic against the uniform law on [0, 1), times sqrt(n)."""
    ordered = np.sort(values)
    rank = np.arange(1, len(ordered) + 1) / len(ordered)
    return float(np.abs(rank - ordered).max() * np.sqrt(len(ordered)))


@pytest.mark.parametrize("frame", [0, 7, 12, 23])
def test_the_state_at_any_one_frame_has_the_same_law_for_every_class(frame: int) -> None:
    for label in range(8):
        states = np.stack(
            [
                rendering.sample_clip(0, "train", label + 8 * k)[0].states(24)[frame]
                for k in range(400)
            ]
        )
        for axis in range(4):
            # 1.95 is exceeded once in 1,000 times; the seed is fixed, so this cannot flicker.
            distance = ks_distance_from_uniform(states[:, axis])
            assert distance < 1.95, (rendering.CLASS_NAMES[label], rendering.COORDINATES[axis])
        correlation = np.corrcoef(np.cos(2 * np.pi * states).T) - np.eye(4)
        assert np.abs(correlation).max() < 0.2


def test_the_look_is_drawn_before_and_without_the_class() -> None:
    motions = [rendering.sample_motion(label, np.random.default_rng(5)) for label in range(8)]
    for label, motion in enumerate(motions):
        assert motion.label == label
        for name in ("start", "wobble", "wobble_frequency", "wobble_phase"):
            np.testing.assert_array_equal(getattr(motion, name), getattr(motions[0], name))
        opposite = motions[(label + 4) % 8]
        np.testing.assert_allclose(motion.velocity, -opposite.velocity, atol=1e-12)
        assert np.hypot(*motion.velocity[:2]) == pytest.approx(motions[0].velocity[0])


@pytest.mark.parametrize("label", range(8))
def test_played_backwards_a_clip_is_a_clip_of_the_opposite_class(label: int) -> None:
    motion, look = rendering.sample_clip(0, "train", label)
    backwards = motion.reversed(24)
    assert backwards.label == (label + 4) % 8
    difference = backwards.states(24) - motion.states(24)[::-1]
    np.testing.assert_allclose((difference + 0.5) % 1 - 0.5, 0, atol=1e-9)
    shown = rendering.render_frames(motion, look, 24, 48).astype(int)
    reversed_shown = rendering.render_frames(backwards, look, 24, 48).astype(int)
    assert np.abs(reversed_shown - shown[::-1]).max() <= 1


def test_the_pixels_move_as_the_class_name_says() -> None:
    _, look = rendering.sample_clip(0, "train", 0)
    nothing = np.zeros(4)

    def coverage(*velocity: float) -> np.ndarray:
        moved = np.array([*velocity, 0.0, 0.0])
        motion = rendering.Motion(np.array([0.5, 0.5, 0.0, 0.3]), moved, nothing, nothing, nothing)
        return rendering.render_blob(motion.states(7), look, 48)[0]

    first = coverage(0, 0)[0]
    shifts = {
        "move_right": (0, 12),
        "move_down_right": (12, 12),
        "move_down": (12, 0),
        "move_up_left": (-12, -12),
    }
    for name, (down, right) in shifts.items():
        label = rendering.CLASS_NAMES.index(name)
        direction = rendering.sample_motion(label, np.random.default_rng(0)).velocity[:2]
        velocity = np.sign(np.round(direction, 9)) / 24  # 12 pixels of 48 in six frames
        expected = np.roll(first, (down, right), (0, 1))
        np.testing.assert_allclose(coverage(*velocity)[6], expected, atol=1e-4)


def test_the_blob_stands_out_and_has_clean_edges() -> None:
    for index in range(40):
        motion, look = rendering.sample_clip(1, "train", index)
        first, second = look.tones[1:] @ rendering.LUMA
        assert abs(first - second) > 0.4
        coverage, _ = rendering.render_blob(motion.states(24), look, 48)
        share = coverage.mean((1, 2))
        assert share.min() > 0.02
        assert share.max() < 0.6
        assert ((coverage > 0.02) & (coverage < 0.98)).mean() < 0.15


def test_files_hold_what_was_rendered(data_set: Path) -> None:
    motion, look = rendering.sample_clip(SETTINGS.seed, "train", 5)
    rendered = rendering.render_frames(motion, look, SETTINGS.frames, SETTINGS.size)
    path = data_set / clips.video_name("train", 5)
    decoded = decode(path)
    assert decoded.shape == (8, 32, 32, 3)
    error = np.abs(decoded.astype(float) @ rendering.LUMA - rendered.astype(float) @ rendering.LUMA)
    assert error.mean() < 4
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == SETTINGS.fps


def test_lists_have_the_kinetics_form(data_set: Path) -> None:
    def rows(name: str) -> list[list[str]]:
        return [line.split(" ") for line in (data_set / name).read_text().splitlines()]

    pretrain, train = rows("pretrain/train.csv"), rows("finetune/train.csv")
    assert [len(row) for row in pretrain] == [1] * 16
    assert {row[0] for row in train} < {row[0] for row in pretrain}
    assert [len(row) for row in rows("pretrain/val.csv")] == [1] * 8
    for name in ("train", "val", "test"):
        found = rows(f"finetune/{name}.csv")
        assert sorted(int(label) for _, label in found) == list(range(8))
        assert all((data_set / path).is_file() for path, _ in found)
    for folder in ("pretrain", "finetune"):
        names = (data_set / folder / "classes.txt").read_text().splitlines()
        assert tuple(names) == rendering.CLASS_NAMES


def test_bytes_depend_on_seed_and_index_alone(data_set: Path, tmp_path: Path) -> None:
    # Another number of processes and of clips, from the command line.
    words = ["--output", tmp_path, "--processes", 2]
    words += ["--num-pretrain", 24, "--num-train", 8, "--num-val", 8, "--num-test", 8]
    words += ["--seed", 3, "--size", 32, "--frames", 8]
    shown = run("make_motion_clips.py", *words).stdout
    assert "40 clips to make, 0 exist" in shown
    assert "40/40 clips" in shown
    assert shown.splitlines()[-8:] == [
        f"wrote {tmp_path / 'videos'}/ (40 files)",
        *(f"wrote {tmp_path / 'pretrain' / name}" for name in ("train.csv", "val.csv")),
        *(f"wrote {tmp_path / 'finetune' / f'{name}.csv'}" for name in ("train", "val", "test")),
        *(f"wrote {tmp_path / name / 'classes.txt'}" for name in ("pretrain", "finetune")),
    ]
    for path in (data_set / "videos").iterdir():
        assert (tmp_path / "videos" / path.name).read_bytes() == path.read_bytes()
    other, _ = rendering.sample_clip(4, "train", 0)
    assert not np.array_equal(other.start, rendering.sample_clip(3, "train", 0)[0].start)
    assert not np.array_equal(other.start, rendering.sample_clip(4, "val", 0)[0].start)


def test_a_second_run_makes_only_what_is_missing(data_set: Path, tmp_path: Path) -> None:
    make(tmp_path)
    lost = tmp_path / "videos" / "test_00003.mp4"
    lost.unlink()
    # What a killed run leaves behind is no clip.
    (tmp_path / "videos" / "test_00003.mp4.99.partial").write_bytes(b"half")
    kept = tmp_path / "videos" / "test_00004.mp4"
    written = kept.stat().st_mtime_ns
    assert make(tmp_path) == 1
    assert kept.stat().st_mtime_ns == written
    assert lost.read_bytes() == (data_set / "videos" / "test_00003.mp4").read_bytes()
    assert make(tmp_path) == 0


def test_a_failed_encoding_leaves_nothing(tmp_path: Path) -> None:
    odd = np.zeros((2, 31, 31, 3), np.uint8)  # yuv420p needs even sides
    with pytest.raises(av.FFmpegError):
        rendering.write_video(tmp_path / "x.mp4", odd, 30, 18)
    assert list(tmp_path.iterdir()) == []


def test_mistakes_are_named(data_set: Path) -> None:
    with pytest.raises(ValueError, match=r"size must be .*got 47"):
        clips.VideoSettings(size=47)
    with pytest.raises(ValueError, match=r"num_train must be in 1\.\.16.* got 17"):
        make(data_set, num_train=17)
    with pytest.raises(ValueError, match="choose another --output"):
        make(data_set, dataclasses.replace(SETTINGS, crf=30))
    done = run("make_motion_clips.py", "--output", data_set, "--frames", 1, code=2)
    assert "frames must be >= 2, got 1" in done.stderr
