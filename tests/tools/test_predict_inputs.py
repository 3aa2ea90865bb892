"""Inputs of `predict` and `embed`, as words of a command and as arguments in Python."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.load_tool import ROOT, run_command
from helpers.tiny_run import FINETUNING, MODEL, make_videos, pairs
from PIL import Image

from slowfast_maskfeat import (
    Embedder,
    Predictor,
    build_model,
    from_pretrained,
    load_config,
    open_video,
    save_pretrained,
)
from slowfast_maskfeat.curation.jobs import Journal
from slowfast_maskfeat.features import load_features


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = make_videos(tmp_path_factory.mktemp("data"), num_videos=3)
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(folder / "still.png")
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A classifier with random weights, whose training had its videos in another folder."""
    folder = tmp_path_factory.mktemp("trained")
    options = {"DATA.PATH_PREFIX": folder / "gone", "TEST.NUM_ENSEMBLE_VIEWS": 1}
    cfg = load_config([], pairs(MODEL, FINETUNING, options))
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    model.cfg = cfg
    save_pretrained(model, folder / "model")
    return folder / "model"


def run(command: str, trained: Path, *words: object, cwd: Path | None = None):
    return run_command(command, "--checkpoint", trained, "--device", "cpu", *words, cwd=cwd)


def rows_of(table: Path) -> list[dict[str, str]]:
    with open(table, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_script_needs_no_guard_for_several_videos(data, trained, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from slowfast_maskfeat import Embedder, Predictor\n"
        "print('begin')\n"
        "model, *videos = sys.argv[1:]\n"
        "workers = ['DATA_LOADER.NUM_WORKERS', '2']\n"
        "print(len(Predictor(model, overrides=workers)(videos, window=0.5)))\n"
        "print(len(list(Embedder(model).stream(videos, stride=0.3))))\n"
    )
    words = [sys.executable, script, trained, data / "0.mp4", data / "1.mp4"]
    done = subprocess.run(
        list(map(str, words)),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["begin", "4", "6"]


def test_a_list_is_relative_to_the_working_directory_or_the_given_prefix(data, trained, tmp_path):
    (tmp_path / "list.csv").write_text("0.mp4 2\n1.mp4 0\n")
    for cwd, name, words in (
        (data, "a.csv", []),
        (tmp_path, "b.csv", ["--", "DATA.PATH_PREFIX", data]),
    ):
        output = tmp_path / name
        words = ["--video", tmp_path / "list.csv", "--output", output, *words]
        done = run("predict", trained, *words, cwd=cwd)
        assert done.returncode == 0, done.stdout
        assert [Path(row["path"]).name for row in rows_of(output)] == ["0.mp4", "1.mp4"]
    output = tmp_path / "x.npz"
    done = run("embed", trained, "--video", tmp_path / "list.csv", "--output", output, cwd=data)
    assert done.returncode == 0, done.stderr
    assert load_features(output).paths == ["0.mp4", "1.mp4"]


def test_a_line_of_a_list_can_be_a_path_with_spaces(data, trained, tmp_path):
    names = ["my first, video.mp4", "b.mp4", "no suffix 1"]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes((data / f"{number}.mp4").read_bytes())
    (tmp_path / "list.txt").write_text("\n".join([*names, ""]))
    done = run("predict", trained, "--video", "list.txt", "--output", "out.csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [row["path"] for row in rows_of(tmp_path / "out.csv")] == names
    (tmp_path / "list.txt").write_text('path,label\n"my first, video.mp4",3\nb.mp4,2\n')
    words = ["--video", "list.txt", "--output", "out.csv", "--force"]
    done = run("predict", trained, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [row["path"] for row in rows_of(tmp_path / "out.csv")] == names[:2]


def test_folders_are_searched_through_links_without_a_circle(data, trained, tmp_path):
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "folder"
    for place in (elsewhere, folder):
        place.mkdir()
    (elsewhere / "a.mp4").write_bytes((data / "0.mp4").read_bytes())
    (folder / "linked").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(folder)
    (folder / "self").symlink_to(folder)
    done = run("predict", trained, "--video", folder, "--output", tmp_path / "out.csv")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "1 row, 0 without a prediction"
    assert [row["path"] for row in rows_of(tmp_path / "out.csv")] == [str(folder / "linked/a.mp4")]


def test_an_image_is_one_window(data, trained, tmp_path):
    paths = [str(data / "still.png"), str(data / "0.mp4")]
    words = ["--video", *paths, "--window", "0.5", "--output", tmp_path / "out.csv"]
    assert run("predict", trained, *words).returncode == 0
    still, *film = rows_of(tmp_path / "out.csv")
    assert (still["begin"], still["end"]) == ("0.000", "0.000")
    assert [row["begin"] for row in film] == ["0.000", "0.167"]
    predictor = Predictor(trained)
    found = predictor(paths, window=0.5)
    assert [prediction.path for prediction in found] == [paths[0], paths[1], paths[1]]
    assert found[0].scores == pytest.approx(predictor(paths[0]).scores)
    assert predictor(paths[0], window=0.5) == [found[0]]
    assert [part.path for part in Embedder(trained).stream(paths, window=0.5)] == [
        paths[0],
        paths[1],
        paths[1],
    ]


def test_predictions_have_the_order_of_the_videos(data, trained, tmp_path):
    """Also of those that can't be decoded, at once or later."""
    (tmp_path / "text.mp4").write_text("this is no video")
    paths = [data / "0.mp4", tmp_path / "text.mp4", data / "still.png", tmp_path / "no.mp4"]
    paths = [str(path) for path in (*paths, data / "1.mp4")]
    for window in (0.0, 0.5):
        found = Predictor(trained)(paths, window=window)
        assert list(dict.fromkeys(prediction.path for prediction in found)) == paths
        lost = {prediction.path for prediction in found if prediction.reason}
        assert lost == set(paths[1::2])


def test_force_starts_over_and_each_table_has_its_own_journal(data, trained, tmp_path):
    video = data / "0.mp4"
    journal = Journal(tmp_path / ".out.csv_predict.jsonl", {"top": 1, "names": ["x" * 500] * 2})
    journal.close()
    table = tmp_path / "out.csv"
    words = ["--video", video, "--output"]
    done = run("predict", trained, *words, table)
    assert done.returncode == 2
    assert "but top was 1, and is 5, and names, " in done.stderr
    assert "add --force to start over" in done.stderr
    assert len(done.stderr) < 400 + len(str(table))
    assert run("predict", trained, *words, tmp_path / "out.txt").returncode == 0
    done = run("predict", trained, *words, table, "--force")
    assert done.returncode == 0, done.stderr
    assert [row["path"] for row in rows_of(table)] == [str(video)]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(("command", "name"), [("predict", "out.csv"), ("embed", "out.npz")])
def test_a_file_that_another_command_writes_is_refused(data, trained, tmp_path, command, name):
    output = tmp_path / name
    holder = (
        "import sys; from pathlib import Path\n"
        "from slowfast_maskfeat.commands._options import only_writer\n"
        "with only_writer(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    words = ["--video", data / "0.mp4", "--output", output]
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(output)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout.readline() == "held\n"
        done = run(command, trained, *words)
        process.stdin.close()
    assert done.returncode == 2
    assert f"{output} is in use by process {process.pid} on " in done.stderr
    assert done.stderr.count("\n") == 1
    assert not output.exists()
    done = run(command, trained, *words)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / f".{name}.lock").exists()


def test_a_table_is_utf_8_whatever_names_files_have(data, trained, tmp_path):
    name = os.fsencode(tmp_path) + b"/caf\xe9 \xc3\xa9.mp4"
    with open(name, "wb") as file:
        file.write((data / "0.mp4").read_bytes())
    done = run("predict", trained, "--video", tmp_path, "--output", tmp_path / "out.csv")
    assert done.returncode == 0, done.stderr
    (row,) = rows_of(tmp_path / "out.csv")
    assert row["path"] == f"{tmp_path}/caf\\udce9 é.mp4"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top": 0}, "top must be a whole number >= 1, got 0"),
        ({"top": 1.5}, r"top must be a whole number >= 1, got 1\.5"),
        ({"window": float("nan")}, "window must be seconds, finite and >= 0, got nan"),
        ({"window": float("inf")}, "window must be seconds, finite and >= 0, got inf"),
        ({"window": 1.0, "stride": -1.0}, "stride must be seconds, finite and >= 0, got -1.0"),
        ({"window": "2"}, "window must be seconds, finite and >= 0, got '2'"),
    ],
)
def test_a_wrong_number_is_an_error_that_says_what_to_change(data, trained, options, message):
    with open_video(data / "0.mp4") as video:
        frames = video.frames(range(video.num_frames))
    for source in (data / "0.mp4", frames):
        with pytest.raises(ValueError, match=message):
            Predictor(trained)(source, **options)
        if "top" not in options:
            with pytest.raises(ValueError, match=message):
                Embedder(trained)(source, **options)


def test_frames_are_an_array_or_a_tensor_and_no_list(data, trained):
    with open_video(data / "0.mp4") as video:
        frames = video.frames(range(video.num_frames))
    for model in (Predictor(trained), Embedder(trained)):
        array, tensor = model(frames, fps=30.0), model(torch.from_numpy(frames), fps=30.0)
        if isinstance(model, Predictor):
            assert array == tensor
        else:
            assert array.features.equal(tensor.features)
        with pytest.raises(ValueError, match=r"one uint8 array of frames.*got ndarray in a list"):
            model([frames, frames])
        with pytest.raises(ValueError, match=r"frames must be uint8 .*, got float32"):
            model(torch.zeros(2, 8, 8, 3))
        with pytest.raises(ValueError, match="fps must be finite and >= 0, got -1"):
            model(frames, fps=-1.0)


def test_a_wrong_device_or_names_are_one_error(trained):
    for make in (Predictor, Embedder, from_pretrained):
        with pytest.raises(ValueError, match="device must be 'cpu', 'cuda' or 'auto', got 'tpu'"):
            make(trained, device="tpu")
    with pytest.raises(ValueError, match="names must be a list of names, one for each class"):
        Predictor(trained, names="run")
