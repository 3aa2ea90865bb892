"""Key frames through the one loader: equal batches from anywhere, boxes, labels, lost videos."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.ava_data import SECONDS, extract_frames, make_ava
from helpers.tiny_run import MODEL, pairs
from helpers.videos_on_disk import read_numbers

from slowfast_maskfeat.builders import DataSource, build_model
from slowfast_maskfeat.builders.augment import build_batch_transform
from slowfast_maskfeat.builders.data import build_loader
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.datasets import MissingListError
from slowfast_maskfeat.metrics.ava_map import Detections, evaluate_detections

ODD = {"DATA.NUM_FRAMES": 4, "DATA.SAMPLING_RATE": 5}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ava")
    return folder, make_ava(folder)


@pytest.fixture(scope="module")
def frames(made):
    return extract_frames(made[0])


def _config(made, *options: dict):
    return load_config([], pairs(MODEL, made[1], *options))


def _content(batches) -> list[tuple]:
    names = ("clips", "boxes", "labels", "box_index", "index")
    return [tuple(getattr(batch, name) for name in names) for batch in batches]


def _assert_same(batches, expected) -> None:
    assert len(batches) == len(expected) > 0
    for batch, other in zip(batches, expected, strict=True):
        for mine, its in zip(batch, other, strict=True):
            assert mine.equal(its)


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")
def test_a_seed_gives_the_same_boxes_whatever_loads_them(made):
    augmented = {"AUG.ENABLE": True, "AUG.NUM_SAMPLE": 2}
    loader = build_loader(_config(made, augmented), "train")
    expected = _content(loader.epoch(1))
    for clips, boxes, labels, numbers, index in expected:
        assert clips.shape == (8, 3, 4, 32, 32)
        assert boxes.shape == (len(numbers), 5)
        assert labels.shape == (len(numbers), 4)
        assert labels.dtype == boxes.dtype == torch.float32
        rows = loader.dataset.videos.rows_of_boxes(numbers.numpy())
        assert index[boxes[:, 0].long()].tolist() == rows.tolist()
        assert boxes[:, 0].equal(boxes[:, 0].sort().values)
    _assert_same(_content(loader.epoch(1, first_batch=1)), expected[1:])
    for num_workers in (1, 4):
        cfg = _config(made, augmented, {"DATA_LOADER.NUM_WORKERS": num_workers})
        _assert_same(_content(build_loader(cfg, "train").epoch(1)), expected)
    other = _content(build_loader(_config(made, augmented, {"RNG_SEED": 9}), "train").epoch(1))
    assert not other[0][0].equal(expected[0][0])


def test_labels_are_all_actions_of_a_box(made):
    cfg = _config(made)
    assert DataSource(cfg).class_names == ("walk", "action 2", "run", "sit")
    loader = build_loader(cfg, "train")
    (folder, _), found = made, {}
    for batch in loader.epoch(0):
        for number, label in zip(batch.box_index.tolist(), batch.labels.tolist(), strict=True):
            found[number] = {c + 1 for c, hot in enumerate(label) if hot}
    table = loader.dataset.videos
    expected = {}
    for line in (folder / "train.csv").read_text().split():
        video, second, *box, action, _ = line.split(",")
        key = (video, float(second), tuple(np.float32(side) for side in box))
        expected.setdefault(key, set()).add(int(action))
    for number, actions in found.items():
        row = int(table.rows_of_boxes(np.array([number]))[0])
        box = tuple(table.table.boxes[number])
        name = table.media.names[table.video[row]]
        assert expected[(name, table.seconds[row], box)] == actions
    assert len(found) >= 16  # of 18: a last batch that is not full is left out


@pytest.mark.parametrize("source", ["videos", "frames", "folders"])
def test_clips_are_about_the_key_frame_wherever_they_come_from(source, made, frames):
    options = {"videos": {}, "frames": frames, "folders": {**frames, "AVA.TEST_LISTS": []}}[source]
    sizes = {"DATA.TEST_CROP_SIZE": 48}
    cfg = _config(made, options, sizes, ODD)
    loader = build_loader(cfg, "test")
    assert "12 of 27" not in "".join(loader.dataset.videos.notes)
    seen = []
    for batch in loader.epoch(0):
        for part in batch.split(1):
            shown = read_numbers(part.clips[0].permute(1, 2, 3, 0).numpy())
            key = 30 * SECONDS[int(part.index) % 3]
            assert shown == [key - 10, key - 5, key, key + 5]
            assert part.clips.shape[-2:] == ((48, 64), (64, 48), (48, 64))[int(part.index) // 3]
            height, width = part.clips.shape[-2:]
            shares = part.boxes[:, 1:] / torch.tensor([width, height, width, height])
            expected = torch.tensor([[0.1, 0.2, 0.6, 0.9], [0.5, 0.1, 0.95, 0.8]])
            torch.testing.assert_close(shares, expected, rtol=0, atol=1e-6)
            seen.append(int(part.index))
    assert sorted(seen) == list(range(9))


def test_parts_of_films_begin_where_they_are_said_to(tmp_path):
    made = (tmp_path, make_ava(tmp_path, begin=900))
    begin = {"AVA.VIDEO_BEGIN": 900, "DATA.TEST_CROP_SIZE": 48}
    (first, *_) = build_loader(_config(made, begin, ODD), "test").epoch(0)
    part = first.split(1)[0]
    assert read_numbers(part.clips[0].permute(1, 2, 3, 0).numpy())[2] == 30
    (first, *_) = build_loader(_config(made, ODD), "test").epoch(0)
    assert len(first) == 0
    assert (
        "the key frame at 901 s is outside of the file, which is 5.0 s long" in first.lost[0].reason
    )


def test_validation_is_of_the_training_size_and_of_every_fourth_second(made):
    cfg = _config(made, {"AVA.FULL_TEST_ON_VAL": False, "DATA.TEST_CROP_SIZE": 48})
    loader = build_loader(cfg, "val")
    assert loader.dataset.videos.seconds.tolist() == [4, 4, 4]
    (batch,) = loader.epoch(0)
    assert {min(part.clips.shape[-2:]) for part in batch.split(1)} == {32}
    assert len(DataSource(cfg).ground_truth(loader.dataset.videos).frames) == 3
    tested = build_loader(cfg, "test").dataset.videos
    assert len(DataSource(cfg).ground_truth(tested).frames) == 9


def test_colors_and_sides_can_be_turned_round(made):
    plain = next(build_loader(_config(made), "test").epoch(0)).split(1)[0]
    blue = next(build_loader(_config(made, {"AVA.BGR": True}), "test").epoch(0)).split(1)[0]
    assert blue.clips.equal(plain.clips.flip(1))
    cfg = _config(made, {"AVA.TEST_FORCE_FLIP": True})
    flipped = next(build_loader(cfg, "test").epoch(0)).split(1)[0]
    assert flipped.clips.equal(plain.clips.flip(-1))
    width = plain.clips.shape[-1]
    expected = width - 1 - plain.boxes[:, [3, 1]]
    torch.testing.assert_close(flipped.boxes[:, [1, 3]], expected)


def test_single_labels_are_class_numbers(made):
    folder, options = made
    lines = [line for line in (folder / "train.csv").read_text().split() if ",2," not in line]
    (folder / "single.csv").write_text("\n".join(lines))
    single = {"AVA.MULTI_LABEL": False, "AVA.TRAIN_GT_BOX_LISTS": ["single.csv"]}
    for batch in build_loader(_config(made, single), "train").epoch(0):
        assert batch.labels.dtype == torch.int64
        assert batch.labels.shape == batch.box_index.shape
        assert set(batch.labels.tolist()) <= {0, 2, 3}
    batch = next(build_loader(_config(made, single), "test").epoch(0))
    assert set(batch.labels.tolist()) == {-1}
    assert options["AVA.LABEL_MAP_FILE"] == "actions.pbtxt"


@pytest.fixture
def broken(made, tmp_path):
    (tmp_path / "videos").mkdir()
    for path in (made[0] / "videos").iterdir():
        (tmp_path / "videos" / path.name).symlink_to(path)
    (tmp_path / "videos" / "vid1.mp4").unlink()
    (tmp_path / "videos" / "vid1.mp4").write_bytes(b"no video")
    return {"AVA.VIDEO_DIR": tmp_path / "videos"}


def test_a_lost_video_is_replaced_in_training_and_told_in_a_test(made, broken):
    cfg = _config(made, broken)
    batches = list(build_loader(cfg, "test").epoch(0))
    assert sum(len(batch) for batch in batches) == 6
    assert sorted({lost.row for batch in batches for lost in batch.lost}) == [3, 4, 5]
    assert sorted(n for batch in batches for n in batch.box_index.tolist()) == [
        *range(6),
        *range(12, 18),
    ]
    for batch in build_loader(cfg, "train").epoch(0):
        assert len(batch) == 4
        assert batch.boxes[:, 0].max() <= 3


def test_boxes_go_through_the_model_and_to_the_figure(made):
    """A detector that knows the answers is right, whatever parts the batches come in."""
    cfg = _config(made)
    loader = build_loader(cfg, "test")
    rows, model = loader.dataset.videos, build_model(cfg).eval()
    truth = DataSource(cfg).ground_truth(rows)
    answers = {}
    train = build_loader(cfg, "train").dataset.videos
    for number in range(len(train.table)):
        key = int(train.rows_of_boxes(np.array([number]))[0])
        answers[(key, tuple(train.table.boxes[number]))] = train.table.labels(np.array([number]))[0]
    scores = np.zeros((len(rows.table), 4), np.float32)
    for batch in loader.epoch(0):
        for part in batch.split(3):
            with torch.no_grad():
                logits = model(part.clips.float() / 255, part.boxes)
            assert logits.shape == (len(part.box_index), 4)
            assert bool(logits.isfinite().all())
            for number in part.box_index.tolist():
                key = int(rows.rows_of_boxes(np.array([number]))[0])
                scores[number] = answers[(key, tuple(rows.table.boxes[number]))]
    of_box = rows.rows_of_boxes(np.arange(len(scores)))
    found = Detections(
        rows.media.names, rows.video[of_box], rows.seconds[of_box], rows.table.boxes, scores
    )
    result = evaluate_detections(truth, found)
    assert result.mean_ap == 1
    assert (result.num_classes_counted, result.num_frames_matched) == (3, 9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"DETECTION.ENABLE": False}, r"TRAIN\.DATASET must be .*without.* got 'ava'"),
        ({"TRAIN.DATASET": "kinetics"}, r"TRAIN\.DATASET must be .*with boxes.* got 'kinetics'"),
        ({"DATA.PATH_TO_DATA_DIR": ""}, r"DATA\.PATH_TO_DATA_DIR must be .*annotations, got ''"),
        ({"AVA.ANNOTATION_DIR": "gone"}, r"AVA\.ANNOTATION_DIR must be .*got 'gone'"),
        ({"AVA.LABEL_MAP_FILE": "gone.pbtxt"}, r"gone\.pbtxt does not exist"),
        ({"AVA.LABEL_MAP_FILE": ""}, r"AVA\.LABEL_MAP_FILE must be .*got ''"),
        ({"AVA.TRAIN_GT_BOX_LISTS": ["gone.csv"]}, r"gone\.csv does not exist"),
        ({"AVA.VIDEO_DIR": "gone"}, r"AVA\.VIDEO_DIR must be .*got 'gone'"),
        ({"AVA.VIDEO_DIR": ""}, r"AVA\.VIDEO_DIR must .*AVA\.FRAME_DIR .*got '' and ''"),
    ],
)
def test_what_does_not_go_together_is_one_clear_error(made, options, message):
    cfg = {"MODEL.LOSS_FUNC": "cross_entropy"} if "DETECTION.ENABLE" in options else {}
    with pytest.raises(ValueError, match=message):
        build_loader(_config(made, options, cfg), "train")


def test_ground_truth_of_another_split_and_missing_files_are_told_before_the_work(made):
    folder, _ = made
    rows = build_loader(_config(made), "test").dataset.videos
    (folder / "other.csv").write_text("vid9,0001,0,0,1,1,1\n")
    other = {"AVA.GROUNDTRUTH_FILE": "other.csv"}
    with pytest.raises(ValueError, match=r"test_boxes\.csv: .*share no key frame.*other\.csv"):
        DataSource(_config(made, other)).ground_truth(rows)
    excluded = {"AVA.EXCLUSION_FILE": "gone.csv"}
    with pytest.raises(MissingListError, match=r"gone\.csv does not exist"):
        DataSource(_config(made, excluded)).ground_truth(rows)


def test_boxes_are_not_mixed(made):
    with pytest.raises(ValueError, match=r"MIXUP\.ENABLE must be False"):
        build_batch_transform(_config(made, {"MIXUP.ENABLE": True}))


def test_erasing_leaves_boxes_alone(made):
    cfg = _config(made, {"AUG.ENABLE": True, "AUG.AA_TYPE": "", "AUG.RE_PROB": 1.0})
    transform = build_batch_transform(cfg)
    batch = next(build_loader(cfg, "train").epoch(0))
    erased = transform(batch, torch.device("cpu"), epoch=0, step=0)
    assert erased.boxes.equal(batch.boxes)
    assert erased.labels.equal(batch.labels)
    assert erased.clips.dtype == torch.float32


def test_a_list_shorter_than_a_batch_counts_key_frames(made):
    num_rows = len(build_loader(_config(made), "train").dataset)
    with pytest.raises(ValueError, match=f"at least 100 key frames, .* got {num_rows}"):
        build_loader(_config(made, {"TRAIN.BATCH_SIZE": 100}), "train")
