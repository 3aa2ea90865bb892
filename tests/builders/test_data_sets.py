"""Every kind of data set through the one loader: equal batches, colors, sampling, counts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.stalling import serve
from helpers.tar_shards import write_shard
from helpers.tiny_run import MODEL, PRETRAINING, events, pairs, run
from helpers.videos_on_disk import numbered_frames, read_numbers, write_video
from PIL import Image

from slowfast_maskfeat.builders import DataSource, build_loader
from slowfast_maskfeat.checkpoints import find_checkpoints, load_checkpoint
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.datasets import (
    DataSetKind,
    dataset_names,
    find_dataset,
    read_csv,
    register_dataset,
    registry,
)

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = json.loads((ROOT / "tests/golden/data_temporal.json").read_text())
NUM_ROWS, BATCH_SIZE = 9, 4
CLASSES = ("hop", "jump high")
# Two-dimensional patches, and no positions along a time that images lack.
IMAGE_MODEL = {
    "DATA.NUM_FRAMES": 1,
    "MVIT.PATCH_2D": True,
    "MVIT.PATCH_KERNEL": [7, 7],
    "MVIT.PATCH_STRIDE": [4, 4],
    "MVIT.PATCH_PADDING": [3, 3],
    "MVIT.POOL_KVQ_KERNEL": [1, 3, 3],
    "MVIT.REL_POS_TEMPORAL": False,
}


def _names(form: str = "{}.mp4") -> list[tuple[str, int]]:
    return [(form.format(number), number % 2) for number in range(NUM_ROWS)]


def _videos(folder: Path, names: list[str], **options) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(folder / name, numbered_frames(14 + number, 40, 56), **options)


def _images(folder: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(numbered_frames(number + 1, 40, 56)[-1]).save(folder / name)


def _kinetics(folder: Path) -> None:
    rows = _names("id{}")
    content = "".join(f"{CLASSES[label]},{name},3,13,train\n" for name, label in rows)
    (folder / "train.csv").write_text("label,youtube_id,time_start,time_end,split\n" + content)
    spelled = [name.replace(" ", "_") for name in CLASSES]
    _videos(folder, [f"train/{spelled[label]}/{name}_000003_000013.mp4" for name, label in rows])


def _csv(folder: Path) -> None:
    rows = "".join(f'{CLASSES[label]},"{folder}/{name}"\r\n' for name, label in _names("é {}.mp4"))
    (folder / "train.csv").write_text(f"label,path\r\n{rows}")
    _videos(folder, [name for name, _ in _names("é {}.mp4")])


def _ssv2(folder: Path) -> None:
    (folder / "labels.json").write_text(json.dumps({"Hopping something": "1", "Jumping": "0"}))
    templates = ["Jumping", "Hopping [something]"]
    entries = [
        {"id": str(n), "template": templates[label]} for n, (_, label) in enumerate(_names())
    ]
    for part in ("train", "validation"):
        (folder / f"{part}.json").write_text(json.dumps(entries))
    _videos(folder, [f"videos/{n}.webm" for n in range(NUM_ROWS)], codec="libvpx", fps=12)


def _ucf101(folder: Path) -> None:
    (folder / "classInd.txt").write_text("1 Hop\n2 Jump\n")
    rows = [(f"{('Hop', 'Jump')[label]}/v_{name}", label + 1) for name, label in _names("{}.avi")]
    (folder / "trainlist01.txt").write_text("".join(f"{name} {n}\n" for name, n in rows))
    _videos(folder / "UCF-101", [name for name, _ in rows], codec="mpeg4")


def _hmdb51(folder: Path) -> None:
    for label, name in enumerate(("hop", "jump")):
        mine = [video for video, its in _names("[x]_{}.avi") if its == label]
        content = "".join(f"{video} 1 \n" for video in mine)
        (folder / f"{name}_test_split1.txt").write_text(content)
        _videos(folder / "videos", [f"{name}/{video}" for video in mine], codec="mpeg4")


def _imagenet(folder: Path) -> None:
    for part in ("train", "val"):
        wordnet = ("n00000001", "n00000002")
        _images(folder / part, [f"{wordnet[label]}/{name}" for name, label in _names("{}.JPEG")])


def _folder(folder: Path) -> None:
    names = [f"{CLASSES[label]}/{name}" for name, label in _names()]
    _videos(folder / "train", names[:6])
    _images(folder / "train", [name.replace(".mp4", ".png") for name in names[6:]])


def _webdataset(folder: Path) -> None:
    """Two shards of videos, whose labels are names; one lies in a folder inside."""
    members = []
    for number, (name, label) in enumerate(_names("a/{}.mp4")):
        video = write_video(folder / "loose.mp4", numbered_frames(14 + number, 40, 56))
        members.append({name: video.read_bytes(), f"a/{number}.cls": CLASSES[label].encode()})
    for number, part in enumerate((members[:5], members[5:])):
        merged = {name: content for one in part for name, content in one.items()}
        write_shard(folder / f"train-{number}.tar", merged)


MAKERS = {
    "kinetics": (_kinetics, {}),
    "csv": (_csv, {}),
    "ssv2": (_ssv2, {"TEST.NUM_ENSEMBLE_VIEWS": 1}),
    "ucf101": (_ucf101, {}),
    "hmdb51": (_hmdb51, {}),
    "imagenet": (_imagenet, IMAGE_MODEL),
    "folder": (_folder, {}),
    # Fewer than the rows, so that shards are left one after the other.
    "webdataset": (_webdataset, {"DATA.SHUFFLE_BUFFER": 3}),
}


def _config(folder: Path, name: str, *options: dict):
    names = {"TRAIN.DATASET": name, "TEST.DATASET": name, "DATA.PATH_TO_DATA_DIR": folder}
    return load_config([], pairs(MODEL, names, MAKERS[name][1], *options))


def _content(batches) -> list[tuple]:
    return [
        (batch.index.tolist(), batch.labels.tolist(), batch.clips.clone(), batch.mask)
        for batch in batches
    ]


def _assert_same(batches, expected) -> None:
    assert len(batches) == len(expected)
    for batch, other in zip(batches, expected, strict=True):
        assert batch[:2] == other[:2]
        assert batch[2].equal(other[2])
        assert (batch[3] is None) == (other[3] is None)
        assert batch[3] is None or batch[3].equal(other[3])


def test_every_reader_is_tried_here():
    boxes = {name for name in dataset_names() if find_dataset(name, "").has_boxes}
    # test_key_frames.py has these; test_charades.py has those with several labels per video.
    assert set(MAKERS) == set(dataset_names()) - boxes - {"charades"}


@pytest.mark.parametrize("name", MAKERS)
def test_a_seed_gives_the_same_batches_whatever_loads_them(name, tmp_path):
    MAKERS[name][0](tmp_path)
    # Masks in one of the kinds of video; images have other masks.
    options = {**PRETRAINING} if name == "csv" else {}
    cfg = _config(tmp_path, name, options, {"TRAIN.BATCH_SIZE": BATCH_SIZE})
    loader = build_loader(cfg, "train")
    expected = _content(loader.epoch(1))
    assert len(expected) == NUM_ROWS // BATCH_SIZE
    labels = loader.dataset.videos.labels
    for index, batch_labels, clips, _ in expected:
        assert [labels[row] for row in index] == batch_labels
        assert clips.shape == (BATCH_SIZE, 3, cfg.DATA.NUM_FRAMES, 32, 32)
    assert len(DataSource(cfg).class_names) == 2
    _assert_same(_content(build_loader(cfg, "train").epoch(1, first_batch=1)), expected[1:])
    for num_workers in (1, 4):
        options["DATA_LOADER.NUM_WORKERS"] = num_workers
        cfg = _config(tmp_path, name, options, {"TRAIN.BATCH_SIZE": BATCH_SIZE})
        loader = build_loader(cfg, "train")
        _assert_same(_content(loader.epoch(1)), expected)
        _assert_same(_content(loader.epoch(1, first_batch=1)), expected[1:])
    other = _content(build_loader(_config(tmp_path, name, {"RNG_SEED": 9}), "train").epoch(1))
    assert not other[0][2].equal(expected[0][2])


def test_a_batch_splits_into_equal_parts(tmp_path):
    MAKERS["csv"][0](tmp_path)
    for steps, fits in ((1, True), (2, True), (3, False), (8, False)):
        settings = {"TRAIN.BATCH_SIZE": 4, "TRAIN.ACCUMULATION_STEPS": steps}
        cfg = _config(tmp_path, "csv", {}, settings)
        if fits:
            assert len(build_loader(cfg, "train")) == NUM_ROWS // 4
            continue
        message = rf"TRAIN\.BATCH_SIZE .*TRAIN\.ACCUMULATION_STEPS {steps}\b.*\b4\b"
        with pytest.raises(ValueError, match=message):
            build_loader(cfg, "train")


def test_shards_of_a_known_data_set_are_cut_as_it_is(tmp_path):
    """The shards are named by a key; TRAIN.DATASET says how clips are cut and what classes are."""
    templates = {"Jumping": "0", "Hopping something": "1"}
    (tmp_path / "labels.json").write_text(json.dumps(templates))
    video = write_video(tmp_path / "1.webm", numbered_frames(60, 48, 48), codec="libvpx", fps=12)
    members = {"1.webm": video.read_bytes(), "1.cls": b"Hopping something"}
    shard = write_shard(tmp_path / "elsewhere" / "a-07.tar", members)
    shards = {"DATA.TRAIN_SHARDS": f"{shard.parent}/a-{{07..07}}.tar", "DATA.NUM_FRAMES": 4}
    cfg = _config(tmp_path, "ssv2", SQUARE, shards)
    assert DataSource(cfg).class_names == ("Jumping", "Hopping something")
    loader = build_loader(cfg, "train")
    (batch,) = loader.epoch(0)
    assert batch.labels.tolist() == [1]
    assert all(15 * n - 1 <= shown <= 15 * n + 15 for n, shown in enumerate(_shown(batch.clips)))
    # Without a folder of lists the names in the shards are the classes.
    cfg = _config("", "webdataset", SQUARE, shards)
    assert DataSource(cfg).class_names == ("Hopping something",)
    (again,) = build_loader(cfg, "train").epoch(0)
    assert again.labels.tolist() == [0]
    with pytest.raises(ValueError, match=r"DATA.PATH_TO_DATA_DIR must be .* got ''"):
        build_loader(cfg, "val")
    with pytest.raises(ValueError, match=r"DATA\.SHUFFLE_BUFFER must be at least 1, got 0"):
        build_loader(_config("", "webdataset", shards, {"DATA.SHUFFLE_BUFFER": 0}), "train")


SQUARE = {"DATA.TRAIN_CROP_SIZE": 48, "DATA.TEST_CROP_SIZE": 48, "DATA.RANDOM_FLIP": False}
SQUARE |= {"DATA.TRAIN_JITTER_SCALES": [48, 48], "TRAIN.BATCH_SIZE": 1, "TEST.BATCH_SIZE": 1}


def _one_webm(folder: Path, frames: np.ndarray) -> None:
    (folder / "labels.json").write_text('{"Jumping": "0"}')
    for part in ("train", "validation"):
        (folder / f"{part}.json").write_text('[{"id": "1", "template": "Jumping"}]')
    write_video(folder / "1.webm", frames, codec="libvpx", fps=12)


def _shown(clips) -> list[int]:
    (clip,) = clips
    return read_numbers(clip.permute(1, 2, 3, 0).numpy())


@pytest.mark.parametrize(
    "case",
    [case for case in GOLDEN["ssv2_test"] if case["video_frames"] <= 60 and case["frames"] != 16],
    ids=lambda case: f"{case['video_frames']}f-{case['frames']}",
)
def test_something_something_takes_a_frame_of_each_part_of_a_video(case, tmp_path):
    num_frames = case["frames"]
    _one_webm(tmp_path, numbered_frames(case["video_frames"], 48, 48))
    cfg = _config(tmp_path, "ssv2", SQUARE, {"DATA.NUM_FRAMES": num_frames})
    for split in ("test", "val"):
        (batch,) = build_loader(cfg, split).epoch(0)
        assert _shown(batch.clips) == case["seq"]
    loader, drawn = build_loader(cfg, "train"), set()
    borders = np.round(np.arange(num_frames + 1) * (case["video_frames"] - 1) / num_frames)
    for epoch in range(6):
        (batch,) = loader.epoch(epoch)
        shown = np.array(_shown(batch.clips))
        assert (borders[:-1] <= shown).all()
        assert (shown <= borders[1:]).all()
        drawn.add(tuple(shown.tolist()))
    assert len(drawn) > 1 or case["video_frames"] == 1
    with pytest.raises(ValueError, match=r"NUM_ENSEMBLE_VIEWS .* must be 1 for ssv2, .* got 2"):
        build_loader(cfg, "test", num_views=2)


@pytest.mark.parametrize(("name", "first"), [("ssv2", 0), ("folder", 2)])
def test_published_something_something_feeds_red_first(name, first, tmp_path):
    frames = np.full((12, 48, 48, 3), 20, np.uint8)
    frames[..., 0] = 220
    _one_webm(tmp_path, frames)
    (tmp_path / "train" / "x").mkdir(parents=True)
    for split in ("train", "val"):
        (tmp_path / split / "x").mkdir(parents=True, exist_ok=True)
        (tmp_path / split / "x" / "1.webm").symlink_to(tmp_path / "1.webm")
    names = {"TRAIN.DATASET": name, "DATA.PATH_TO_DATA_DIR": tmp_path}
    cfg = load_config([ROOT / "configs/SSv2/MVITv2_S_16x4.yaml"], pairs(MODEL, SQUARE, names))
    assert cfg.DATA.REVERSE_INPUT_CHANNEL
    for split in ("train", "val"):
        (batch,) = build_loader(cfg, split).epoch(0)
        means = batch.clips.float().mean((0, 2, 3, 4))
        assert means.argmax() == first
        assert means[first] > 180


def test_a_data_set_from_outside_brings_its_reader_and_its_flags(tmp_path, monkeypatch):
    """A video of 60 numbered frames over a red strip, in a list that this reader alone finds."""
    monkeypatch.setattr(registry, "_KINDS", dict(registry._KINDS))
    frames = numbered_frames(60, 48, 48)
    frames[:, -8:, :, 0] = 220
    write_video(tmp_path / "a.mp4", frames, fps=12)
    (tmp_path / "own_val.csv").write_text(f"{tmp_path / 'a.mp4'} 1\n")

    def read(data, split, class_names):
        return read_csv(data, f"own_{split}", class_names)

    kinds = {
        "plain": DataSetKind(read=read, class_names=lambda _: ("one", "two")),
        "odd": DataSetKind(
            read=read, class_names=lambda _: ("one", "two"), segmented=True, blue_first=True
        ),
    }
    shown = {}
    for name, kind in kinds.items():
        register_dataset(name, kind)
        names = {"TRAIN.DATASET": name, "DATA.PATH_TO_DATA_DIR": tmp_path}
        reversed_ = {"DATA.REVERSE_INPUT_CHANNEL": True, "DATA.NUM_FRAMES": 4}
        cfg = load_config([], pairs(MODEL, SQUARE, names, reversed_, {"DATA.SAMPLING_RATE": 1}))
        assert DataSource(cfg).class_names == ("one", "two")
        (batch,) = build_loader(cfg, "val").epoch(0)
        assert batch.labels.tolist() == [1]
        strip = batch.clips.float()[0, :, :, -6:].mean((1, 2, 3))
        assert strip.argmax() == (0 if kind.blue_first else 2)
        shown[name] = np.diff(_shown(batch.clips))
    assert shown["plain"].max() < 5  # neighbors, see DATA.TARGET_FPS
    assert shown["odd"].min() > 10  # one of each of 4 parts


@pytest.mark.slow
def test_images_are_trained_on_and_counted(tmp_path):
    folder, output = tmp_path / "data", tmp_path / "run"
    _imagenet(folder)
    whole = folder / "train" / "n00000001" / "0.JPEG"
    broken = folder / "val" / "n00000002" / "3.JPEG"
    broken.write_bytes(whole.read_bytes()[:300])
    names = {"TRAIN.DATASET": "imagenet", "TEST.DATASET": "imagenet", "NUM_GPUS": 0}
    images = {**IMAGE_MODEL, "TEST.NUM_ENSEMBLE_VIEWS": 1, "DATA.MAX_BAD_FRACTION": 0.5}
    done = run(folder, output, names, images, {"SOLVER.MAX_EPOCH": 1})
    assert done.returncode == 0, done.stderr
    (tested,) = events(output, "test")
    assert (tested["num_expected"], tested["num_found"], tested["num_decoded"]) == (9, 9, 8)
    assert [Path(lost["path"]).name for lost in tested["lost"]] == ["3.JPEG"]
    assert "truncated" in tested["lost"][0]["reason"].lower()
    assert tested["decoders"]["pillow"]
    (trained,) = events(output, "epoch")
    assert (trained["num_expected"], trained["num_found"], trained["num_decoded"]) == (9, 9, 9)


@pytest.mark.slow
def test_results_say_which_clips_they_stand_on(tmp_path):
    folder, output = tmp_path / "data", tmp_path / "run"
    _videos(folder, [name for name, _ in _names()])
    rows = "".join(f"{folder / name} {label}\n" for name, label in _names())
    for split in ("train", "val", "test"):
        (folder / f"{split}.csv").write_text(rows + rows.splitlines()[4] + "\n")
    (folder / "classes.txt").write_text("a\nb\n")
    (folder / "2.mp4").unlink()
    (folder / "3.mp4").write_bytes(b"no video")
    options = {"DATA.MAX_BAD_FRACTION": 0.5, "SOLVER.MAX_EPOCH": 3, "NUM_GPUS": 0}
    done = run(folder, output, options)
    assert done.returncode == 0, done.stderr
    note = "1 rows repeat a path"
    assert f"warning: {folder / 'train.csv'}: {note}" in done.stderr
    (start,), validated, (tested,) = (
        events(output, kind) for kind in ("start", "validation", "test")
    )
    for event in (start, *validated, tested):
        assert event["list_sha256"] == start["list_sha256"]
        assert event["list_notes"][0].startswith(note)
        assert set(event["decoders"]) >= {"pyav", "pillow"}
    counts = {"num_expected": 10, "num_found": 9, "num_decoded": 8}
    for event in (events(output, "epoch")[-1], *validated, tested):
        assert {name: event[name] for name in counts} == counts
    with np.load(tested["scores"]) as scores:
        facts = json.loads(str(scores["facts"]))
    assert facts.items() >= {**counts, "list_sha256": start["list_sha256"]}.items()
    state = load_checkpoint(find_checkpoints(output / "checkpoints", "")[-1])
    assert state["data"]["list_sha256"] == start["list_sha256"]
    assert "differs from the training split" not in done.stderr
    (folder / "train.csv").write_text(rows)
    done = run(folder, output, options, {"SOLVER.MAX_EPOCH": 4, "TEST.ENABLE": False})
    assert done.returncode == 0, done.stderr
    assert f"warning: {folder / 'train.csv'} differs from the training split" in done.stderr


@pytest.mark.slow
def test_shards_on_a_server_are_trained_on_and_tested(tmp_path):
    folder, output = tmp_path / "data", tmp_path / "run"
    _videos(folder, [name for name, _ in _names()])
    videos = {name: (folder / name).read_bytes() for name, _ in _names()}
    videos["3.mp4"] = b"no video"
    labels = {f"{number}.cls": b"%d" % label for number, (_, label) in enumerate(_names())}
    for split in ("train", "val"):
        for number, rows in enumerate((range(5), range(5, NUM_ROWS))):
            members = {f"{row}.mp4": videos[f"{row}.mp4"] for row in rows}
            members |= {f"{row}.cls": labels[f"{row}.cls"] for row in rows}
            write_shard(folder / f"{split}-{number}.tar", members)
    (folder / "classes.txt").write_text("a\nb\n")
    with serve(folder) as address:
        names = {
            "DATA.TRAIN_SHARDS": "train-{0..1}.tar",
            "DATA.VAL_SHARDS": "val-{0..1}.tar",
            "DATA.TEST_SHARDS": f"{address}/val-{{0..1}}.tar",
            "DATA.SHARD_CACHE": tmp_path / "cache",
            "DATA.MAX_BAD_FRACTION": 0.5,
            "DATA_LOADER.NUM_WORKERS": 2,
        }
        done = run(address, output, names)
    assert done.returncode == 0, done.stderr
    (tested,) = events(output, "test")
    assert (tested["num_expected"], tested["num_found"], tested["num_decoded"]) == (9, 9, 8)
    assert [lost["path"] for lost in tested["lost"]] == [f"{address}/val-0.tar/3.mp4"]
    assert len(list((tmp_path / "cache").iterdir())) == 4
    (start,) = events(output, "start")
    assert start["list"] == "train-{0..1}.tar"
