"""`predict` on folders, lists and windows: every sample has its row, also after a kill."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.load_tool import run_tool
from helpers.tiny_run import make_videos, run, wait_for

from slowfast_maskfeat import from_pretrained, open_video
from slowfast_maskfeat.commands import _predict as _predict_command
from slowfast_maskfeat.datasets.excerpt_list import Span, windows
from slowfast_maskfeat.features import load_features
from slowfast_maskfeat.runs.load_trained import load_trained
from slowfast_maskfeat.runs.predict import Predictor, list_excerpts
from slowfast_maskfeat.videos.excerpt import Excerpt, FramesInMemory
from slowfast_maskfeat.videos.write_video import write_video


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_videos(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def checkpoint(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("trained")
    done = run(data, output, {"SOLVER.MAX_EPOCH": 1, "TEST.ENABLE": False})
    assert done.returncode == 0, done.stderr
    (path,) = (output / "checkpoints").glob("*.pyth")
    return path


def _words(checkpoint: Path, *words: object) -> list[object]:
    return ["--checkpoint", checkpoint, "--device", "cpu", *words]


def _predict(checkpoint: Path, *words: object):
    return run_tool("tools/predict.py", *_words(checkpoint, *words))


def _rows(table: Path) -> list[dict[str, str]]:
    with open(table, newline="") as file:
        return list(csv.DictReader(file))


def _folder(data: Path, folder: Path) -> tuple[list[Path], Path]:
    """Copies of videos, one of them in a folder of its own, and one file that is no video."""
    names = ["a.mp4", "deeper/b.mp4", "c, d.mp4"]
    for name, source in zip(names, ("1.mp4", "2.mp4", "3.mp4"), strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((data / source).read_bytes())
    (folder / "broken.mp4").write_bytes(b"no video")
    (folder / "notes.txt").write_text("not a video")
    return [folder / name for name in names], folder / "broken.mp4"


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_folder_gives_a_row_for_each_video_and_a_reason_for_the_broken_one(
    data, checkpoint, tmp_path, num_workers
):
    videos, broken = _folder(data, tmp_path / "videos")
    table = tmp_path / "out.csv"
    words = ["--video", tmp_path / "videos", "--output", table, "--top", "2"]
    done = _predict(checkpoint, *words, "--", "DATA_LOADER.NUM_WORKERS", num_workers)
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines()[0] == "4 rows, 1 without a prediction"
    assert done.stdout.splitlines()[-1] == f"wrote {table}"
    rows = _rows(table)
    assert [row["path"] for row in rows] == sorted(map(str, [*videos, broken]))
    for row in rows:
        if row["path"] == str(broken):
            assert "cannot be opened" in row["error"]
            assert row["label_1"] == row["score_2"] == row["begin"] == ""
            continue
        expected = Predictor(checkpoint)(row["path"], top=2)
        assert (row["label_1"], row["label_2"]) == expected.labels
        assert float(row["score_1"]) == pytest.approx(expected.scores[0], abs=2e-6)
        assert float(row["end"]) == pytest.approx(expected.end, abs=1e-3)
        assert row["error"] == ""
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_lists_and_several_files_print_a_block_each(data, checkpoint, tmp_path):
    videos, broken = _folder(data, tmp_path / "videos")
    (tmp_path / "list.csv").write_text(f"{videos[0]} 0\n{broken} 1\n")
    done = _predict(checkpoint, "--video", tmp_path / "list.csv", videos[1], "--top", "1")
    assert done.returncode == 1, done.stderr
    first, score, second, third, _ = done.stdout.splitlines()
    assert first.startswith(f"{videos[0]} 0.00-")
    assert (
        score
        == f"{Predictor(checkpoint)(str(videos[0])).scores[0]:.4f}  "
        + (Predictor(checkpoint)(str(videos[0])).labels[0])
    )
    assert second.startswith(f"{broken}: cannot be opened")
    assert third.startswith(f"{videos[1]} 0.00-")
    done = _predict(checkpoint, "--video", tmp_path / "list.csv", "--json")
    found = json.loads(done.stdout)
    assert [row["video"] for row in found] == [str(videos[0]), str(broken)]
    assert found[1]["top"] == []
    assert "cannot be opened" in found[1]["error"]


def test_windows_are_predicted_as_if_each_was_a_video(data, checkpoint, tmp_path):
    table = tmp_path / "windows.csv"
    video = data / "1.mp4"
    with open_video(str(video)) as opened:
        duration = opened.duration
        expected = windows(duration, 0.4, 0.1)
        times = [float(opened.timestamps[0]) + span.begin for span in expected]
    words = ["--video", video, "--window", "0.4", "--stride", "0.1", "--output", table]
    done = _predict(checkpoint, *words)
    assert done.returncode == 0, done.stderr
    rows = _rows(table)
    assert len(expected) > 2
    assert [(float(row["begin"]), float(row["end"])) for row in rows] == [
        (round(span.begin, 3), round(span.end, 3)) for span in expected
    ]
    predictor = Predictor(checkpoint)
    for row, begin in zip(rows, times, strict=True):
        with open_video(str(video)) as opened, Excerpt(opened, begin, begin + 0.4) as part:
            frames = part.frames(range(part.num_frames))
            of_part = predictor(frames, fps=part.fps)
        assert row["label_1"] == of_part.labels[0]
        assert float(row["score_1"]) == pytest.approx(of_part.scores[0], abs=2e-4)


def test_the_last_window_ends_with_the_video():
    assert windows(1.0, 2.0, 1.0) == [Span(0.0, 1.0)]
    assert windows(4.0, 2.0, 1.0) == [Span(0.0, 2.0), Span(1.0, 3.0), Span(2.0, 4.0)]
    assert windows(4.5, 2.0, 2.0) == [Span(0.0, 2.0), Span(2.0, 4.0), Span(2.5, 4.5)]


def test_too_many_windows_cost_the_video_alone(data):
    paths = [str(data / "0.mp4"), str(data / "11.mp4")]  # 0.67 and 1.03 seconds
    videos, reasons = list_excerpts(paths, window=0.8, stride=1e-7)
    assert [videos.path(row) for row in range(len(videos))] == paths
    assert list(reasons) == [1]
    assert "at most 1,000,000 windows of a video, got 2,333,333 in 1.03333 seconds" in reasons[1]


def test_an_excerpt_has_the_frames_of_its_seconds_and_at_least_one():
    frames = np.arange(10, dtype=np.uint8)[:, None, None, None].repeat(3, 3)
    part = Excerpt(FramesInMemory(frames, 10.0), 0.25, 0.6)
    assert part.frames(range(part.num_frames))[:, 0, 0, 0].tolist() == [3, 4, 5]
    assert part.duration == pytest.approx(0.3)
    still = Excerpt(FramesInMemory(frames, 10.0), 0.42, 0.48)
    assert still.frames([0])[0, 0, 0, 0] == 4
    assert still.num_frames == 1


def _write_200_videos(data: Path, folder: Path) -> list[Path]:
    """Write 200 videos, ten of them broken in five ways; return the broken ones."""
    whole = [(data / f"{number}.mp4").read_bytes() for number in range(12)]
    broken = [b"", b"no video", whole[0][:40], whole[1][: len(whole[1]) // 2], whole[2][64:]]
    folder.mkdir()
    for number in range(200):
        is_broken = number % 20 == 7
        content = broken[number // 20 % 5] if is_broken else whole[number % 12]
        (folder / f"{number:03}.mp4").write_bytes(content)
    return [folder / f"{number:03}.mp4" for number in range(7, 200, 20)]


def test_a_killed_prediction_goes_on_without_a_second_row(data, checkpoint, tmp_path, monkeypatch):
    folder = tmp_path / "videos"
    broken = set(map(str, _write_200_videos(data, folder)))
    table, journal = tmp_path / "out.csv", tmp_path / ".out.csv_predict.jsonl"
    words = ["--video", folder, "--output", table, "--top", "1", "--", "TEST.BATCH_SIZE", "8"]
    command = [sys.executable, "-m", "slowfast_maskfeat", "predict", *_words(checkpoint, *words)]
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.DEVNULL)
    wait_for(lambda: journal.exists() and journal.read_bytes().count(b"\n") > 20)
    process.kill()
    process.wait()
    assert not table.exists()
    num_done = journal.read_bytes().count(b"\n") - 1
    assert 19 < num_done < 200
    other = _predict(checkpoint, *words[:3], table, "--top", "2")
    assert other.returncode == 2
    assert len(other.stderr) < 600 + len(str(journal))
    assert (
        "the settings must be those of the interrupted run, but top was 1, and is 2" in other.stderr
    )
    assert "add --force to start over" in other.stderr
    config = tmp_path / "other.yaml"
    config.write_text(from_pretrained(checkpoint, overrides=["DATA.MEAN", "[0, 0, 0]"]).cfg.dump())
    other = _predict(checkpoint, *words[:-3], "--cfg", config, *words[-3:])
    assert other.returncode == 2
    assert "interrupted run, but configuration_sha256 was" in other.stderr
    loaded = []
    monkeypatch.setattr(
        _predict_command, "load_trained", lambda *a, **b: loaded.append(a) or load_trained(*a, **b)
    )
    done = _predict(checkpoint, *words)
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines()[0] == "200 rows, 10 without a prediction"
    assert len(loaded) == 1
    rows = _rows(table)
    assert [row["path"] for row in rows] == [str(folder / f"{n:03}.mp4") for n in range(200)]
    assert {row["path"] for row in rows if row["error"]} == broken
    assert {row["path"] for row in rows if not row["label_1"]} == broken
    for number in range(12):  # copies of a video have its score, before and after the kill
        copies = [row for row in rows[number::12] if row["path"] not in broken]
        assert len({row["score_1"] for row in copies}) == 1
    assert not journal.exists()


def test_names_are_given_and_missed(data, checkpoint, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("run\njump\nsit\n")
    done = _predict(checkpoint, "--video", data / "1.mp4", "--names", names, "--top", "3")
    assert done.returncode == 0, done.stderr
    assert {line.split()[1] for line in done.stdout.splitlines()} == {"run", "jump", "sit"}
    names.write_text("run\njump\n")
    done = _predict(checkpoint, "--video", data / "1.mp4", "--names", names)
    assert done.returncode == 2
    assert "must be as many names as classes of the model, 3, got 2" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--video", "{empty}"], "there are no videos or images in folder"),
        (["--video", "{data}", "--output", "{exists}"], "must not exist, got the existing file"),
        (["--video", "{data}", "--window", "0"], "must be above 0 seconds"),
        (["--video", "{data}/1.mp4", "--stride", "1"], "--stride requires --window"),
        (["--video", "{data}", "--logits", "x.npy"], "--logits requires one video or --clips"),
        (
            ["--video", "{data}", "--output", "x.csv", "--logits", "x.npy"],
            "are for predictions without",
        ),
        (
            ["--video", "{data}", "--output", "x.csv", "--json"],
            "are for predictions without --output",
        ),
        (["--video", "{data}", "--output", ""], "--output: must be a name, got an empty one"),
        (["--video", ""], "--video: must be a name, got an empty one"),
        (["--video", "{data}", "--window", "inf"], "--window: must be finite seconds, got inf"),
        (["--video", "{data}", "--window", "nan"], "--window: must be finite seconds, got nan"),
        (["--video", "{data}/1.mp4", "--names", "{empty}/no.txt"], "no such file of class names"),
        (["--clips", "x.npy", "--csv", "y.csv"], "are for --video"),
    ],
)
def test_wrong_input_is_one_error(data, checkpoint, tmp_path, words, said):
    (tmp_path / "empty").mkdir()
    (tmp_path / "exists.csv").write_text("kept")
    places = {"empty": tmp_path / "empty", "data": data, "exists": tmp_path / "exists.csv"}
    done = _predict(checkpoint, *(word.format(**places) for word in words))
    assert done.returncode == 2
    assert said in done.stderr
    assert (tmp_path / "exists.csv").read_text() == "kept"


def test_frames_in_memory_are_a_video(data, checkpoint):
    predictor = Predictor(checkpoint)
    with open_video(str(data / "1.mp4")) as video:
        frames, fps = video.frames(range(video.num_frames)), video.fps
    of_file, of_frames = predictor(data / "1.mp4"), predictor(frames, fps=fps)
    assert of_frames.classes == of_file.classes
    assert of_frames.scores == pytest.approx(of_file.scores, abs=1e-6)
    of_windows = predictor(frames, fps=fps, window=0.4, stride=0.1)
    for found, expected in zip(
        of_windows, predictor(data / "1.mp4", window=0.4, stride=0.1), strict=True
    ):
        assert (found.begin, found.end) == pytest.approx((expected.begin, expected.end), abs=1e-3)
        assert found.scores == pytest.approx(expected.scores, abs=1e-4)
    with pytest.raises(ValueError, match="stride must be 0 without a window"):
        predictor(frames, stride=0.1)
    with pytest.raises(ValueError, match=r"frames must be uint8 \(T, H, W, 3\)"):
        predictor(frames.astype(np.float32))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length_of_a_video(checkpoint, tmp_path):
    peaks, of_embed = {}, {}
    for seconds in (10, 600):
        video, table = tmp_path / f"{seconds}.mp4", tmp_path / f"{seconds}.csv"
        rows = np.random.default_rng(0).integers(0, 255, (48, 1, 3), np.uint8)
        frames = (np.roll(rows, n, axis=0).repeat(64, 1) for n in range(25 * seconds))
        write_video(video, frames, fps=25.0)
        words = ["--video", video, "--window", "2", "--stride", seconds / 20, "--output", table]
        command = [sys.executable, "-m", "slowfast_maskfeat", "predict", *words]
        peaks[seconds] = _peak_memory([*command, *_words(checkpoint)])
        command[3:] = ["embed", *words[:-2], "--output", tmp_path / f"{seconds}.npz"]
        of_embed[seconds] = _peak_memory([*command, *_words(checkpoint)])
        features = load_features(tmp_path / f"{seconds}.npz").features
        assert len(features) == len(_rows(table))
        assert len(_rows(table)) == (17 if seconds == 10 else 20 + 1)
    for of_command in (peaks, of_embed):
        assert of_command[600] < of_command[10] + 100 * 2**20


def _peak_memory(command: list[object]) -> int:
    """Largest resident set of a program in bytes."""
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    words = [sys.executable, "-c", code, *map(str, command)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return 1024 * int(done.stdout.split()[-1])
