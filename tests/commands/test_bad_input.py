"""Invalid input of each command: one line, exit code 2, and no file is lost."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import tiny_run
from helpers.ava_data import OPTIONS, make_ava
from helpers.broken_videos import make_pieces
from helpers.load_tool import Done, run_command
from helpers.tiny_detection import DETECTION

from slowfast_maskfeat.builders import DataSource, build_model
from slowfast_maskfeat.checkpoints import save_checkpoint
from slowfast_maskfeat.commands.main import COMMANDS
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.runs import export
from slowfast_maskfeat.videos import decode

KINDS = {
    "classifier": tiny_run.FINETUNING,
    "pretraining": {**tiny_run.PRETRAINING, "MVIT.DROPPATH_RATE": 0.0},
    "detector": {**DETECTION, **OPTIONS},
}
Call = Callable[[str], Done]


def _save(folder: Path, kind: str) -> None:
    keys = {"AVA.ANNOTATION_DIR": folder / "ava"} if kind == "detector" else {}
    cfg = load_config([], tiny_run.pairs(tiny_run.MODEL, KINDS[kind], keys))
    torch.manual_seed(0)
    content = {"model_state": build_model(cfg).state_dict(), "cfg": cfg.dump()}
    names = DataSource(cfg).class_names if kind == "detector" else ()
    names = [f"class {n}" for n in range(3)] if kind == "classifier" else names
    save_checkpoint(folder / f"{kind}.pyth", {**content, "class_names": list(names)})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of each kind, videos and lists, whole and broken."""
    folder = tiny_run.make_videos(tmp_path_factory.mktemp("made"), num_videos=4)
    (folder / "ava").mkdir()
    make_ava(folder / "ava", num_frames=70)
    for kind in KINDS:
        _save(folder, kind)
    cfg = load_config([], tiny_run.pairs(tiny_run.MODEL, tiny_run.FINETUNING))
    (folder / "small.yaml").write_text(cfg.dump())
    _, ways = make_pieces(folder / "pieces")
    ways["zeroed middle"](folder / "broken.mp4")
    (folder / "broken.csv").write_text(f"{folder / '0.mp4'} 0\n{folder / 'broken.mp4'} 1\n")
    (folder / "boxes.csv").write_text("0.0,0.1,0.1,0.9,0.9\n")
    np.savez(folder / "other.npz", features=np.zeros(3))
    (folder / "two.txt").write_text("run\njump\n")
    return folder


@pytest.fixture
def call(made: Path, tmp_path: Path) -> Call:
    """Runs a command line in the folder of the test; {made} in it stands for that of the files."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("kept")
    (tmp_path / "file.npy").write_text("kept, too")

    def run(line: str) -> Done:
        return run_command(*(word.format(made=made) for word in line.split()), cwd=tmp_path)

    return run


def _files(folder: Path) -> dict[Path, bytes]:
    """Content of all files; the log of a run that was refused is none."""
    logs = ("stats.jsonl", ".lock")
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in logs)
    return {path: path.read_bytes() for path in files}


def _check_refused(call: Call, line: str, said: str, *folders: Path) -> None:
    """The command says why in one line, and leaves all files as they were."""
    before = [_files(folder) for folder in folders]
    done = call(line)
    assert done.returncode == 2, done
    errors = done.stderr.splitlines()
    assert [text for text in errors if text.startswith("error: ")] == errors[-1:], done.stderr
    assert said in errors[-1]
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert [_files(folder) for folder in folders] == before


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "check-install"])
def test_nothing_is_one_line(call: Call, tmp_path: Path, name: str) -> None:
    done = call(name)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert line.endswith(f"; `maskfeat {name} -h` describes the options")
    assert done.stdout == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file.npy", "file.txt"]


RUN = "--cfg {made}/small.yaml --output out DATA.PATH_TO_DATA_DIR"
NO_LIST = "error: LIST: must be a list file, got the folder empty"
AVA_FILES = "--label-map {made}/ava/actions.pbtxt --train {made}/ava/train.csv"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"train {RUN} empty", "list file empty/train.csv does not exist"),
        (
            f"test {RUN} empty --checkpoint {{made}}/classifier.pyth",
            "empty/test.csv does not exist",
        ),
        (f"probe {RUN} empty", "list file empty/train.csv does not exist"),
        ("report --scores empty --output out", "--scores: empty must be the .npz"),
        (
            "predict --checkpoint {made}/classifier.pyth --video empty --output out.csv",
            "--video: there are no videos or images in folder empty",
        ),
        (
            "detect --checkpoint {made}/detector.pyth --video empty --boxes {made}/boxes.csv",
            "--video must be a video file, got the folder empty",
        ),
        (
            "embed --checkpoint {made}/classifier.pyth --output out.npz "
            "DATA.PATH_TO_DATA_DIR empty",
            "list file empty/test.csv does not exist",
        ),
        (
            "compare --recipe shapes --data empty --output out",
            "/empty/pretrain', which does not exist",
        ),
        (
            "visualize --checkpoint {made}/pretraining.pyth --video empty --output out.png",
            "--video: there are no videos or images in folder empty",
        ),
        ("data manifest --data empty --output out", "empty has no videos or images"),
        ("data check empty --output out", NO_LIST),
        ("data resize empty --output out", NO_LIST),
        ("data shards empty --output out", NO_LIST),
        ("data summary empty --output out", NO_LIST),
        (f"data check-ava {AVA_FILES} --frames empty --frame-lists empty", "empty"),
    ],
)
def test_a_folder_without_videos(
    call: Call, made: Path, tmp_path: Path, line: str, said: str
) -> None:
    _check_refused(call, line, said, made, tmp_path)


def test_every_row_of_a_video_that_is_missing_is_a_problem(call: Call) -> None:
    done = call(f"data check-ava {AVA_FILES} --videos empty")
    assert done.returncode == 1
    assert "train.csv, line 1: the video 'vid0' is missing in empty" in done.stdout


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            f"train {RUN} {{made}} --checkpoint {{made}}/other.npz",
            "other.npz is not a complete checkpoint",
        ),
        (f"test {RUN} {{made}} --checkpoint {{made}}/pretraining.pyth", "the whole model"),
        (
            "predict --checkpoint {made}/pretraining.pyth --video {made}/0.mp4 --output out.csv",
            "pretraining.pyth: the model must be a clip classifier",
        ),
        (
            "predict --checkpoint {made}/detector.pyth --video {made}/0.mp4",
            "use `maskfeat detect` for detectors",
        ),
        (
            "detect --checkpoint {made}/classifier.pyth --video {made}/0.mp4 "
            "--boxes {made}/boxes.csv --output out",
            "use `maskfeat predict` for clip classifiers",
        ),
        (
            "detect --checkpoint {made}/pretraining.pyth --video {made}/0.mp4 "
            "--boxes {made}/boxes.csv --output out",
            "--checkpoint must be a detector",
        ),
        (
            "visualize --checkpoint {made}/classifier.pyth --video {made}/0.mp4 --output out.png",
            "classifier.pyth must be a checkpoint of masked pre-training",
        ),
        (
            "predict --checkpoint {made}/classifier.pyth --video {made}/0.mp4 --logits file.npy",
            "--logits must not exist, got the existing file file.npy; --force overwrites it",
        ),
        (
            "predict --checkpoint {made}/classifier.pyth --video {made}/0.mp4 --logits file.txt",
            "--logits: must end with .npy, got 'file.txt'",
        ),
        (
            "predict --checkpoint {made}/classifier.pyth --video {made} TEST.NUM_SPATIAL_CROPS 1",
            "got the key TEST.NUM_SPATIAL_CROPS; keys and values follow --video after --opts",
        ),
        (
            "predict --checkpoint {made}/classifier.pyth --video {made}/0.mp4 --window 1e-7",
            "window and stride must give at most 1,000,000 windows of a video",
        ),
        (f"train {RUN}=3", "but 'DATA.PATH_TO_DATA_DIR=3' has no value"),
        ("train --cfg {made}/small.yaml --output= ", "--output: must be a name, got an empty one"),
        (
            "export --checkpoint {made}/pretraining.pyth --output out.pt2",
            "only classifiers and detectors can be exported",
        ),
        (
            "convert --checkpoint {made}/other.npz --cfg {made}/small.yaml --output out.pyth",
            "other.npz is not a complete checkpoint",
        ),
        ("rewrite --checkpoint {made}/two.txt --output out.pyth", "two.txt can't be read"),
        ("report --scores {made}/other.npz --output out", "must be the .npz of a classification"),
    ],
)
def test_a_file_of_another_kind(
    call: Call, made: Path, tmp_path: Path, line: str, said: str
) -> None:
    _check_refused(call, line, said, made, tmp_path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "predict --checkpoint {made}/classifier.pyth --names {made}/two.txt "
            "--video {made}/0.mp4 --output out.csv",
            "there must be as many names as classes of the model, 3, got 2",
        ),
        (
            "visualize --checkpoint {made}/pretraining.pyth --name a b --video {made}/0.mp4 "
            "--output out.png",
            "--name must have 1 names, got 2",
        ),
    ],
)
def test_names_of_another_length(
    call: Call, made: Path, tmp_path: Path, line: str, said: str
) -> None:
    _check_refused(call, line, said, made, tmp_path)


# What each command needs besides an --output that is in its way.
FOLDERS = {
    "report": "--scores {made}/other.npz",
    "detect": "--checkpoint {made}/detector.pyth --video {made}/0.mp4 --boxes {made}/boxes.csv",
    "compare": "--recipe shapes --data {made}",
    "data manifest": "--data {made}",
    "data check": "{made}/train.csv",
    "data check-ava": f"{AVA_FILES} --videos {{made}}/ava/videos",
    "data resize": "{made}/train.csv",
    "data shards": "{made}/train.csv",
    "data summary": "{made}/train.csv",
}
FILES = {
    "predict": "--checkpoint {made}/classifier.pyth --video {made}/0.mp4",
    "embed": "--checkpoint {made}/classifier.pyth --video {made}/0.mp4",
    "visualize": "--checkpoint {made}/pretraining.pyth --video {made}/0.mp4",
    "export": "--checkpoint {made}/classifier.pyth",
    "convert": "--checkpoint {made}/classifier.pyth --cfg {made}/small.yaml",
    "rewrite": "--checkpoint {made}/classifier.pyth",
    "info": "--cfg {made}/small.yaml",
}
# Suffixes of files that are overwritten by --force alone.
KEPT = {
    "predict": "csv",
    "embed": "npz",
    "visualize": "png",
    "export": "pt2",
    "convert": "pyth",
    "rewrite": "pyth",
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_file_in_the_place_of_the_output_folder(
    call: Call, made: Path, tmp_path: Path, name: str
) -> None:
    said = "error: --output: must be a folder, got the file file.txt"
    _check_refused(call, f"{name} {FOLDERS[name]} --output file.txt", said, made, tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_a_folder_in_the_place_of_the_output_file(
    call: Call, made: Path, tmp_path: Path, name: str
) -> None:
    said = "error: --output: must be a file, got the folder empty"
    _check_refused(call, f"{name} {FILES[name]} --output empty", said, made, tmp_path)


@pytest.mark.parametrize("name", [*FILES, "detect"])
def test_an_output_that_cannot_be_written_is_refused_before_the_work(
    call: Call, made: Path, tmp_path: Path, name: str
) -> None:
    words, output = {**FOLDERS, **FILES}[name], f"file.txt/out.{KEPT.get(name, 'json')}"
    if name != "embed":  # which reads the checkpoint first
        words = words.replace("{made}", "none")
    got = f"{output}/detections.csv" if name == "detect" else output
    said = (
        f"error: --output must be a file that can be written, got {got}: file.txt: must be a "
        "folder, but is a file"
    )
    _check_refused(call, f"{name} {words} --output {output}", said, made, tmp_path)


def test_a_file_of_logits_that_cannot_be_written_is_refused_before_the_work(
    call: Call, tmp_path: Path
) -> None:
    line = "predict --checkpoint none.pyth --video 0.mp4 --logits file.txt/out.npy"
    said = "error: --logits must be a file that can be written, got file.txt/out.npy: file.txt"
    _check_refused(call, line, said, tmp_path)


@pytest.mark.parametrize("name", ["predict", "embed"])
def test_a_lock_that_cannot_be_created_is_not_named(
    call: Call, made: Path, tmp_path: Path, name: str
) -> None:
    output = f"{'x' * 246}.{KEPT[name]}"  # its lock has more than the 255 bytes of a name
    said = f"error: --output must be a file that can be written, got {output}: .: File name too"
    _check_refused(call, f"{name} {FILES[name]} --output {output}", said, made, tmp_path)


def test_a_refused_call_creates_no_folder(call: Call, tmp_path: Path) -> None:
    _check_refused(call, "export --checkpoint none.pyth --output new/out.pt2", "none.pyth")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", KEPT)
def test_an_output_that_exists_is_kept_without_force(
    call: Call, made: Path, tmp_path: Path, name: str
) -> None:
    output = tmp_path / f"old.{KEPT[name]}"
    output.write_text("kept")
    said = f"--output must not exist, got the existing file {output.name}; --force overwrites it"
    _check_refused(call, f"{name} {FILES[name]} --output {output.name}", said, made, tmp_path)
    if name == "visualize":
        output.rename(tmp_path / "old.gif")  # of the animation
        gif = said.replace("old.png", "old.gif")
        _check_refused(call, f"{name} {FILES[name]} --output old.png", gif, made, tmp_path)
        output = tmp_path / "old.gif"
    if name in ("rewrite", "visualize"):
        output_name = output.with_suffix(f".{KEPT[name]}").name
        assert call(f"{name} {FILES[name]} --output {output_name} --force").returncode == 0
        assert output.read_bytes() != b"kept"


def test_lists_and_reports_that_exist_are_kept_without_force(
    call: Call, made: Path, tmp_path: Path
) -> None:
    (tmp_path / "train.csv").write_text("kept")
    said = "--output must have no lists, got train.csv; --force overwrites"
    (tmp_path / "data" / "run").mkdir(parents=True)
    (tmp_path / "data" / "run" / "0.mp4").write_bytes((made / "0.mp4").read_bytes())
    _check_refused(call, "data manifest --data data --output .", said, tmp_path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "predict --checkpoint {made}/classifier.pyth --video {made}/broken.mp4 "
            "-- DATA.SAMPLING_RATE 1 TEST.NUM_ENSEMBLE_VIEWS 1",
            "broken.mp4: frame ",
        ),
        (
            "detect --checkpoint {made}/detector.pyth --video {made}/broken.mp4 "
            "--boxes {made}/boxes.csv --output out DATA.NUM_FRAMES 2 DATA.SAMPLING_RATE 1",
            "broken.mp4: frame ",
        ),
        (
            "visualize --checkpoint {made}/pretraining.pyth --video {made}/broken.mp4 "
            "--output out.png --opts DATA.SAMPLING_RATE 1",
            "broken.mp4: frame ",
        ),
    ],
)
def test_a_video_that_breaks_in_the_middle(
    call: Call, made: Path, tmp_path: Path, line: str, said: str
) -> None:
    _check_refused(call, line, said, made, tmp_path)


@pytest.mark.parametrize(
    ("line", "table"),
    [
        (
            "predict --checkpoint {made}/classifier.pyth --video {made}/broken.csv "
            "--output out/broken_refused.csv --opts DATA.SAMPLING_RATE 1",
            "path,begin,end",
        ),
        ("data check {made}/broken.csv --output out --full --processes 1", "path,line,reason"),
        ("data resize {made}/broken.csv --output out --processes 1", "path,reason"),
    ],
)
def test_a_video_that_breaks_in_the_middle_costs_its_own_row(
    call: Call, made: Path, tmp_path: Path, line: str, table: str
) -> None:
    before = _files(made)
    done = call(line)
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    header, *rows = (tmp_path / "out" / "broken_refused.csv").read_text().splitlines()
    assert header.startswith(table)
    (broken,) = (row for row in rows if row.startswith(str(made / "broken.mp4")))
    assert "decoded" in broken
    assert _files(made) == before


@pytest.fixture
def no_extras(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The packages of the extras are not installed."""
    monkeypatch.setattr(export, "_ONNX_PACKAGES", ("no_such_package",))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setitem(decode._BACKENDS, "torchcodec", "slowfast_maskfeat.no_such_module")
    decode._load.cache_clear()
    yield
    decode._load.cache_clear()


@pytest.mark.parametrize(
    ("line", "pip"),
    [
        (
            "export --checkpoint {made}/classifier.pyth --output out.onnx",
            "pip install 'slowfast_maskfeat[export]'",
        ),
        (
            "predict --checkpoint {made}/classifier.pyth --video {made}/0.mp4 "
            "--opts DATA.DECODING_BACKEND torchcodec",
            "pip install 'slowfast_maskfeat[torchcodec]' (INSTALL.md",
        ),
        (
            "data check {made}/train.csv --output out --decoder torchcodec",
            "pip install 'slowfast_maskfeat[torchcodec]' (INSTALL.md",
        ),
        (f"train {RUN} {{made}} TENSORBOARD.ENABLE True", "pip install"),
    ],
)
@pytest.mark.usefixtures("no_extras")
def test_a_missing_extra_is_named_with_its_pip_command(
    call: Call, made: Path, tmp_path: Path, line: str, pip: str
) -> None:
    _check_refused(call, line, pip, made, tmp_path)
