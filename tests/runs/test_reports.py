"""The report that a test writes: its page has the numbers of its JSON file and of the log."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from helpers import tiny_detection
from helpers.report_page import numbers, read_report
from helpers.tiny_run import (
    FINETUNING,
    MODEL,
    events,
    last_checkpoint,
    make_videos,
    pairs,
    run,
    run_two_processes,
)
from PIL import Image

from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.metrics.intervals import wilson
from slowfast_maskfeat.runs import run as build_run

HOSTILE = "</script><b>'a' & \"b\""
ONE_EPOCH = {"SOLVER.MAX_EPOCH": 1, "TRAIN.EVAL_PERIOD": 5}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Twelve videos of three classes with hostile names, one of which is no video."""
    folder = make_videos(tmp_path_factory.mktemp("videos"))
    (folder / "7.mp4").write_text("no video")
    (folder / "classes.txt").write_text(f"jump\n{HOSTILE}\nrun\n")
    return folder


@pytest.fixture(scope="module")
def tested(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("tested")
    done = run(data, output, FINETUNING, ONE_EPOCH, {"DATA.MAX_BAD_FRACTION": 0.5})
    assert done.returncode == 0, done.stderr
    assert f"wrote {output / 'report.html'}\nwrote {output / 'report.json'}" in done.stdout
    assert "warning: " not in done.stderr.split("test, 1 crops")[1]
    return output


def _test_again(data, trained, output, *options):
    """Test the trained model in another folder."""
    weights = {
        "TRAIN.ENABLE": False,
        "TEST.CHECKPOINT_FILE_PATH": last_checkpoint(trained, "ssl_eval"),
    }
    return run(data, output, FINETUNING, weights, *options)


def test_page_json_and_log_have_the_same_numbers(data, tested):
    content, page = read_report(tested)
    (event,) = events(tested, "test")
    assert content["num_videos"] == event["num_videos"] == 12
    assert content["num_videos_scored"] == event["num_videos_scored"] == 11
    assert content["lost"] == event["lost"]
    assert [lost["path"] for lost in content["lost"]] == [str(data / "7.mp4")]
    assert any(text.startswith(f"{data / '7.mp4'}: ") for text in page.texts)
    for name in ("top1", "top5"):
        found = content[name]
        assert found["percent"] == event[name] == float(page.tiles[name])
        bounds = wilson(found["num_right"], 11)
        assert (found["low"], found["high"]) == pytest.approx([100 * x for x in bounds])
        assert f"95 % interval {found['low']:.2f} to {found['high']:.2f}" in " ".join(page.texts)
    assert float(page.tiles["ece"]) == content["calibration"]["error"]
    facts = content["facts"]
    with np.load(event["scores"]) as file:
        assert json.loads(str(file["facts"])) == facts
    assert facts.items() <= event.items()
    assert facts["class_names_source"] == str(data / "classes.txt")
    weights = last_checkpoint(tested, "ssl_eval").read_bytes()
    assert facts["checkpoint_sha256"] == hashlib.sha256(weights).hexdigest()
    for value in ("list_sha256", "checkpoint_sha256", "class_names_source"):
        assert any(facts[value] in text for text in page.texts)


def test_classes_and_confusions_are_those_of_the_scores(tested):
    content, page = read_report(tested)
    with np.load(events(tested, "test")[0]["scores"]) as file:
        scores, labels, paths = file["scores"], file["labels"], file["paths"].tolist()
    kept = labels >= 0
    matrix = np.zeros((3, 3), int)
    np.add.at(matrix, (labels[kept], scores[kept].argmax(1)), 1)
    table = page.tables["classes"]
    assert [row["class"][1] for row in table.values()] == ["jump", HOSTILE, "run"]
    assert numbers(table, "support") == matrix.sum(1).tolist() == [4, 3, 4]
    assert numbers(table, "num_right") == np.diag(matrix).tolist()
    assert numbers(table, "accuracy") == [of["accuracy"] for of in content["classes"]]
    data = page.matrix
    assert data is not None
    assert data["names"] == ["jump", HOSTILE, "run"]
    assert sorted(data["order"]) == [0, 1, 2]
    assert data["cells"] == [[t, p, matrix[t, p]] for t, p in np.argwhere(matrix).tolist()]
    assert data["cells"] == content["confusion"]["cells"]
    wrong = matrix.sum() - np.trace(matrix)
    assert sum(numbers(page.tables["confusions"], "num_videos")) == wrong
    assert sum(numbers(page.tables["calibration"], "num_videos")) == 11
    ranked = sorted(np.flatnonzero(kept), key=lambda row: -scores[row].max())
    is_right = scores.argmax(1) == labels
    for kind, right in (("worst", False), ("best", True)):
        rows = [row for row in ranked if is_right[row] == right][:8]
        assert [of["row"] for of in content[kind]] == rows
        assert [of["path"] for of in content[kind]] == [paths[row] for row in rows]


def test_videos_are_shown_with_three_frames(tested):
    content, page = read_report(tested)
    shown = content["worst"] + content["best"]
    assert {of["not_drawn"] for of in shown} == {""}
    assert page.pictures == [f"frames of {of['path']}" for of in shown]
    assert len(page.pictures) == len(shown) == 11
    picture = page.addresses[0].partition("base64,")[2]
    with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
        pixels = np.asarray(image.convert("L"), dtype=float)
    white = np.flatnonzero((pixels > 250).all(0))  # between the frames
    assert (np.diff(white) > 20).sum() >= 1
    assert pixels.shape[1] > 2.9 * pixels.shape[0]


def test_the_page_has_no_html_of_names(tested):
    text = (tested / "report.html").read_text()
    assert HOSTILE not in text
    assert "<b>'a'" not in text
    assert text.count("<script") == text.count("</script>") == 2
    assert "http" not in text


@pytest.mark.parametrize("number", [0, 2])
def test_keys_switch_the_report_and_its_videos(data, tested, tmp_path, number):
    done = _test_again(data, tested, tmp_path / "on", {"TEST.REPORT_VIDEOS": number})
    assert done.returncode == 0, done.stderr
    content, page = read_report(tmp_path / "on")
    assert len(page.pictures) == len(content["worst"]) + len(content["best"])
    assert len(content["worst"]) == number
    if number:
        return
    done = _test_again(data, tested, tmp_path / "off", {"TEST.REPORT": False})
    assert done.returncode == 0, done.stderr
    assert events(tmp_path / "off", "test")
    assert not list((tmp_path / "off").glob("report*"))


def test_several_tests_have_a_report_each(data, tested, tmp_path):
    done = _test_again(data, tested, tmp_path, {"TEST.NUM_TEMPORAL_CLIPS": [1, 2]})
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.glob("report*")) == [
        *("report_1.html", "report_1.json", "report_2.html", "report_2.json")
    ]
    for event in events(tmp_path, "test"):
        content, _ = read_report(tmp_path, f"report_{event['num_views']}")
        assert content["top1"]["percent"] == event["top1"]
        assert content["facts"]["num_views"] == event["num_views"]


def test_a_report_that_cannot_be_written_is_a_warning(data, tested, tmp_path):
    (tmp_path / "report.html").mkdir()
    done = _test_again(data, tested, tmp_path)
    assert done.returncode == 0, done.stderr
    warning = f"warning: {tmp_path / 'report.html'} is not drawn: Is a directory"
    assert warning in done.stderr.splitlines()
    assert events(tmp_path, "test")
    written = [Path(line.removeprefix("wrote ")).name for line in done.stdout.splitlines()]
    assert written == ["stats.jsonl", "test_scores_1x2.npz"]


@pytest.mark.slow
def test_two_processes_write_one_report(data, tested, tmp_path):
    weights = {
        "TRAIN.ENABLE": False,
        "TEST.CHECKPOINT_FILE_PATH": last_checkpoint(tested, "ssl_eval"),
    }
    done = run_two_processes(data, tmp_path, FINETUNING, weights)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("report.html") == 1
    two, one = read_report(tmp_path).content, read_report(tested).content
    for name in ("top1", "top5", "lost", "classes", "confusion"):
        assert two[name] == one[name]


@pytest.fixture(scope="module")
def detected(tmp_path_factory):
    boxes = tiny_detection.make_boxes(tmp_path_factory.mktemp("boxes"))
    output = tmp_path_factory.mktemp("detected")
    options = {**tiny_detection.DETECTION, **tiny_detection.folders(boxes), **ONE_EPOCH}
    options |= {"OUTPUT_DIR": output, "TEST.REPORT_VIDEOS": 4}
    build_run.run(load_config([], pairs(MODEL, options)))
    return boxes, output


def test_the_report_of_a_detector_has_the_numbers_of_its_log(detected):
    _, output = detected
    (event,) = events(output, "test")
    content, page = read_report(output)
    assert content["mean_ap"] == event["mean_ap"] == float(page.tiles["mean_ap"])
    recall = content["box_recall"]
    assert recall["percent"] == pytest.approx(100 * event["hit_share"])
    assert float(page.tiles["box_recall"]) == recall["percent"]
    assert (recall["num_right"], recall["num_videos"]) == (
        event["num_boxes_hit"],
        event["num_boxes_expected"],
    )
    table = page.tables["classes"]
    assert list(table) == list(event["per_class_ap"])
    shares = [None if x is None else 100 * x for x in event["per_class_ap"].values()]
    assert numbers(table, "ap") == shares
    assert numbers(table, "num_boxes") == list(event["per_class_boxes"].values())
    assert page.matrix is None


def test_the_examples_of_a_detector_are_the_rows_of_its_files(detected):
    boxes, output = detected
    content, page = read_report(output)
    truth = (boxes / "annotations" / "motion_val.csv").read_text().splitlines()
    (event,) = events(output, "test")
    found = [row.split(",") for row in Path(event["scores"]).read_text().splitlines()]
    assert len(content["examples"]) == 4
    assert len(page.pictures) == 8  # truth and detections of each
    for example in content["examples"]:
        place = example["video"], f"{example['second']:04g}"
        rows = [row.split(",") for row in truth]
        annotated = [row for row in rows if row[0] == place[0] and float(row[1]) == float(place[1])]
        assert sum(len(box["actions"]) for box in example["truth"]) == len(annotated)
        sides = {tuple(float(x) for x in row[2:6]) for row in annotated}
        assert {tuple(box["box"]) for box in example["truth"]} == sides
        of_frame = [row for row in found if (row[0], f"{float(row[1]):04g}") == place]
        assert len(of_frame) == 10 * len(example["detected"])
        for box in example["detected"]:
            scores = [score for _, score in box["actions"]]
            written = [
                float(row[7])
                for row in of_frame
                if [float(x) for x in row[2:6]] == pytest.approx(box["box"], abs=1e-6)
            ]
            assert scores == pytest.approx(sorted(written)[::-1][:3], abs=1e-6)
