"""Probes from the command line, and the features they stand on: real videos, tiny networks."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import tiny_run
from helpers.load_tool import run_tool

from slowfast_maskfeat.augment import normalize
from slowfast_maskfeat.checkpoints import find_checkpoints
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.features import Features, load_features
from slowfast_maskfeat.features.extraction import FeatureKind
from slowfast_maskfeat.runs.feature_facts import FrozenModel
from slowfast_maskfeat.runs.features import build_frozen_model, extract_features

CPU = torch.device("cpu")
PROBING = {**tiny_run.FINETUNING, "PROBE.NUM_NEIGHBORS": 5}


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    return tiny_run.make_videos(tmp_path_factory.mktemp("videos"))


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory, videos) -> Path:
    output = tmp_path_factory.mktemp("pretrained")
    no_cls = {"MVIT.CLS_EMBED_ON": False}
    done = tiny_run.run(videos, output, tiny_run.PRETRAINING, {"SOLVER.MAX_EPOCH": 1, **no_cls})
    assert done.returncode == 0, done.stderr
    return find_checkpoints(output / "checkpoints", "ssl")[-1]


def _cfg(videos: Path, output: Path, *options: dict):
    folders = {"DATA.PATH_TO_DATA_DIR": videos, "OUTPUT_DIR": output}
    return load_config([], tiny_run.pairs(tiny_run.MODEL, PROBING, folders, *options))


def _kept(cfg, frozen: FrozenModel, split: str = "test", *, of_tokens: bool = False) -> Features:
    kind = FeatureKind(pooling="none" if of_tokens else "")
    found = extract_features(cfg, split, frozen, kind=kind, device=CPU)
    assert found is not None
    return found


def _probe(videos: Path, output: Path, checkpoint: Path, *options: dict) -> tuple[int, str]:
    start = {"TRAIN.CHECKPOINT_FILE_PATH": checkpoint}
    done = tiny_run.run(videos, output, PROBING, start, *options)
    return done.returncode, done.stderr


@pytest.mark.parametrize("kind", ["linear", "attentive", "knn"])
def test_a_probe_is_an_event_with_its_counts(videos, pretrained, tmp_path, kind):
    code, said = _probe(videos, tmp_path, pretrained, {"PROBE.KIND": kind, "PROBE.EPOCHS": 2})
    assert code == 0, said
    (event,) = tiny_run.events(tmp_path, "probe")
    assert event["kind"] == kind
    assert event["num_videos"] == event["num_videos_scored"] == event["num_decoded"] == 12
    assert event["num_clips"] == 24  # two views
    assert event["num_train_decoded"] == 12
    assert 0 <= event["top1"] <= event["top5"] == 100.0  # of three classes
    assert f"{kind} probe of {pretrained}: top-1 {event['top1']:.2f}" in said
    # The lists are the same, so a part of the training rows chooses.
    if kind != "knn":
        assert event["chosen_on"] == "every tenth training row"


def test_features_are_kept_and_only_what_is_missing_is_made(videos, pretrained, tmp_path):
    knn = {"PROBE.KIND": "knn"}
    _probe(videos, tmp_path, pretrained, knn)
    kept = sorted((tmp_path / "features").iterdir())
    assert [path.name.rsplit("_", 1)[0] for path in kept] == ["test_pooled", "train_pooled"]
    # As after an interruption: one list is done, the other is not.
    shutil.rmtree(kept[0])
    before = (kept[1] / "facts.json").stat().st_mtime_ns
    _, said = _probe(videos, tmp_path, pretrained, knn)
    assert f"features of train: reusing {kept[1]}" in said
    assert "features of test: reusing" not in said
    assert sorted(path.name for path in kept[0].iterdir()) == [
        "facts.json",
        "part_0000.npy",
        "part_0000.rows",
    ]
    assert (kept[1] / "facts.json").stat().st_mtime_ns == before
    first, second = tiny_run.events(tmp_path, "probe")
    assert first["top1"] == second["top1"]
    # Another view, and other features: the old ones are not taken for them.
    _probe(videos, tmp_path, pretrained, knn, {"DATA.SAMPLING_RATE": 1})
    assert len(list((tmp_path / "features").iterdir())) == 4


def test_features_do_not_depend_on_batches_or_workers(videos, pretrained, tmp_path):
    found = []
    for options in (
        {"TEST.BATCH_SIZE": 4, "DATA_LOADER.NUM_WORKERS": 0},
        {"TEST.BATCH_SIZE": 24, "DATA_LOADER.NUM_WORKERS": 2},
    ):
        cfg = _cfg(videos, tmp_path / str(options["TEST.BATCH_SIZE"]), options)
        found.append(_kept(cfg, build_frozen_model(cfg, str(pretrained), CPU)))
    one, other = found
    assert torch.allclose(one.features[:], other.features[:], atol=1e-5)
    assert one.rows.equal(other.rows)
    assert one.views.equal(other.views)
    assert one.times.equal(other.times)
    assert one.facts["key"] == other.facts["key"]
    assert one.rows.tolist() == [row for row in range(12) for _ in range(2)]
    # Videos of 20 + n frames at 30 a second; a clip spreads 4 frames over 4 times 2 of them, and
    # rounds each down.
    span = one.times[:, 1] - one.times[:, 0]
    assert ((span >= 6 / 30 - 1e-6) & (span <= 7 / 30 + 1e-6)).all()
    assert (one.times[one.views == 0, 0] == 0).all()
    last = one.times[one.views == 1, 1]
    assert (last <= (19 + torch.arange(12)) / 30 + 1e-6).all()
    assert (one.times[one.views == 1, 0] > one.times[one.views == 0, 0]).all()
    assert len(one.facts["list_sha256"]) == len(one.facts["checkpoint_sha256"]) == 64


def test_pooled_features_are_what_the_classifier_classifies(videos, tmp_path):
    cfg = _cfg(videos, tmp_path)
    frozen = build_frozen_model(cfg, "", CPU)
    model = frozen.model
    clips = torch.randint(0, 256, (2, 3, 4, 32, 32), dtype=torch.uint8)
    seen = normalize(clips, cfg.DATA.MEAN, cfg.DATA.STD)
    with torch.no_grad():
        logits = model(seen)
        assert model.features(seen).shape == (2, 8)
        assert torch.allclose(model.head(model.features(seen)), logits)
        tokens = model.token_features(seen)
    assert tokens.shape == (2, 2 * 4 * 4, 8)
    # Each token is normalized by itself; the norm starts with a bias.
    expected = model.norm.bias.mean().expand(2, 32)
    assert torch.allclose(tokens.mean(-1), expected, atol=1e-5)


def test_pre_training_gives_its_encoder(videos, pretrained, tmp_path):
    output = tmp_path / "features.safetensors"
    words = ["--checkpoint", str(pretrained), "--split", "val", "--tokens", "--output", str(output)]
    done = run_tool("tools/extract_features.py", *words)
    assert done.returncode == 0, done.stderr
    assert f"{output}: 12x32x8, 12 of 12 samples" in done.stdout
    found = load_features(output)
    assert found.facts["model"] == "MaskMViT"
    assert found.class_names == ["class 0", "class 1", "class 2"]
    payload = torch.load(pretrained, weights_only=True)["model_state"]
    cfg = _cfg(videos, tmp_path)
    state = build_frozen_model(cfg, str(pretrained), CPU).model.state_dict()
    shared = [name for name in payload if name.startswith(("blocks.", "patch_embed."))]
    assert len(shared) > 20
    assert all(torch.equal(state[name], payload[name]) for name in shared)


def test_lost_videos_are_counted_and_told(videos, pretrained, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(videos, folder)
    for name in ("train.csv", "val.csv", "test.csv"):
        rows = (folder / name).read_text().replace(str(videos), str(folder))
        (folder / name).write_text(rows)
    (folder / "3.mp4").write_bytes(b"no video")
    code, said = _probe(folder, tmp_path / "out", pretrained, {"PROBE.KIND": "knn"})
    assert code == 0
    (event,) = tiny_run.events(tmp_path / "out", "probe")
    assert (event["num_expected"], event["num_decoded"]) == (12, 11)
    assert event["num_train_decoded"] == event["num_videos_scored"] == 11
    assert [Path(lost["path"]).name for lost in event["lost"]] == ["3.mp4"]
    assert "lost: " in said


def test_lists_without_labels_are_extracted_but_not_probed(videos, pretrained, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("train.csv", "test.csv"):
        rows = (videos / name).read_text().splitlines()
        (bare / name).write_text("".join(f"{row.split()[0]}\n" for row in rows))
    cfg = _cfg(bare, tmp_path / "a")
    frozen = build_frozen_model(cfg, str(pretrained), CPU)
    assert _kept(cfg, frozen).labels is None
    code, said = _probe(bare, tmp_path / "b", pretrained, {"PROBE.KIND": "knn"})
    assert code == 2
    assert "error: " in said
    assert "train.csv must have labels" in said


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (
            ["{} 0", "{} 1", "{} 2"],
            {"PROBE.NUM_NEIGHBORS": 4},
            "NUM_NEIGHBORS must be at most the 3 rows of",
        ),
        (["{} 1", "{} 1", "{} 1"], {}, "train.csv must have at least two classes"),
        (["{}", "{}", "{}"], {}, "train.csv must have labels"),
        (["{} 0", "{} 1", "{} 7"], {}, "line 3: the label must be in [0, 3), got 7"),
    ],
)
def test_what_can_not_be_learned_is_told_before_the_work(
    videos, pretrained, tmp_path, rows, options, message
):
    folder = tmp_path / "lists"
    folder.mkdir()
    lines = [row.format(videos / f"{number}.mp4") for number, row in enumerate(rows)]
    (folder / "train.csv").write_text("\n".join(lines) + "\n")
    for name in ("test.csv", "classes.txt"):
        shutil.copy(videos / name, folder)
    knn = {"PROBE.KIND": "knn", **options}
    code, said = _probe(folder, tmp_path / "out", pretrained, knn)
    assert code == 2
    (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert message in error
    assert not (tmp_path / "out" / "features").exists()


def test_the_validation_list_chooses_and_is_made_only_then(videos, pretrained, tmp_path):
    linear = {"PROBE.KIND": "linear", "PROBE.EPOCHS": 1}
    _probe(videos, tmp_path / "same", pretrained, linear)
    lists = {path.name.split("_")[0] for path in (tmp_path / "same" / "features").iterdir()}
    assert lists == {"train", "test"}
    folder = tmp_path / "lists"
    folder.mkdir()
    for name in ("train.csv", "test.csv", "classes.txt"):
        shutil.copy(videos / name, folder)
    (folder / "val.csv").write_text(f"{videos / '1.mp4'} 1\n{videos / '2.mp4'} 2\n")
    code, said = _probe(folder, tmp_path / "other", pretrained, linear)
    assert code == 0, said
    (event,) = tiny_run.events(tmp_path / "other", "probe")
    assert event["chosen_on"] == "val"
    assert set(event["validation_top1"].values()) <= {0.0, 50.0, 100.0}


class _Interrupted:
    """Counts the clips that a network sees, and ends the work before one of its batches."""

    def __init__(self, frozen: FrozenModel, before_batch: int = -1) -> None:
        self.num_batches, self.num_clips = 0, 0
        self._before_batch = before_batch
        frozen.model.patch_embed.register_forward_pre_hook(self._see)

    def _see(self, module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        if self.num_batches == self._before_batch:
            raise KeyboardInterrupt
        self.num_batches += 1
        self.num_clips += len(inputs[0])


@pytest.mark.parametrize("of_tokens", [False, True])
def test_an_interrupted_extraction_goes_on(videos, pretrained, tmp_path, capsys, of_tokens):
    data = tmp_path / "data"
    data.mkdir()
    shutil.copy(videos / "classes.txt", data)
    lost = tmp_path / "lost.mp4"
    lost.write_bytes(b"no video")
    rows = (videos / "test.csv").read_text().splitlines()
    (data / "test.csv").write_text("\n".join([rows[0], f"{lost} 0", *rows[1:]]) + "\n")
    whole_cfg, cut_cfg = (_cfg(data, tmp_path / name) for name in ("whole", "cut"))
    whole = _kept(
        whole_cfg, build_frozen_model(whole_cfg, str(pretrained), CPU), of_tokens=of_tokens
    )
    for before_batch in (3, 0, 2):  # two rows of two clips a batch, so 4 clips
        frozen = build_frozen_model(cut_cfg, str(pretrained), CPU)
        _Interrupted(frozen, before_batch)
        with pytest.raises(KeyboardInterrupt):
            _kept(cut_cfg, frozen, of_tokens=of_tokens)
    capsys.readouterr()
    frozen = build_frozen_model(cut_cfg, str(pretrained), CPU)
    seen = _Interrupted(frozen)
    found = _kept(cut_cfg, frozen, of_tokens=of_tokens)
    # 2 clips of the batch with the lost video, then two of 4; and once more two of 4.
    assert seen.num_clips == 24 - (2 + 4 + 4) - (4 + 4)
    assert "reusing 18 of 26 clips" in capsys.readouterr().err
    assert found.features[:].equal(whole.features[:])
    for name in ("rows", "views", "times", "labels"):
        assert getattr(found, name).equal(getattr(whole, name))
    differ = {name for name in whole.facts if whole.facts[name] != found.facts[name]}
    assert differ <= {"seconds", "extracted_at"}
    assert found.facts["num_clips"] == 24
    assert (found.facts["num_expected"], found.facts["num_decoded"]) == (13, 12)


def test_too_little_room_is_told_before_the_work(videos, pretrained, tmp_path):
    lists = tmp_path / "lists"
    lists.mkdir()
    for name, times in (("train.csv", 1), ("test.csv", 10_000), ("classes.txt", 1)):
        (lists / name).write_text((videos / name).read_text() * times)
    views = {"TEST.NUM_ENSEMBLE_VIEWS": 10_000, "PROBE.KIND": "attentive"}
    code, said = _probe(lists, tmp_path, pretrained, views)
    assert code == 2
    (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
    # 32 tokens of 8 channels of two bytes, and 24 bytes of number and times.
    assert f"{120_000 * 10_000 * (32 * 8 * 2 + 24):,} bytes free" in error
    assert str(tmp_path / "features") in error
    for key in ("TEST.NUM_ENSEMBLE_VIEWS", "TEST.NUM_SPATIAL_CROPS", "PROBE.KIND linear"):
        assert key in error


def test_a_probe_takes_what_the_tool_has_made(videos, pretrained, tmp_path):
    folders = {"DATA.PATH_TO_DATA_DIR": videos, "OUTPUT_DIR": tmp_path}
    # The tool starts from the checkpoint's configuration, which is of its pre-training.
    keys = tiny_run.pairs(tiny_run.MODEL, PROBING, folders, {"MASK.ENABLE": False})
    for split in ("train", "test"):
        words = ["--checkpoint", str(pretrained), "--split", split, *keys]
        done = run_tool("tools/extract_features.py", *words)
        assert done.returncode == 0, done.stderr
    assert f"{tmp_path}: 24x8, 12 of 12 samples" in done.stdout
    code, said = _probe(videos, tmp_path, pretrained, {"PROBE.KIND": "knn"})
    assert code == 0
    assert said.count(": reusing ") == 2


def test_a_folder_that_cannot_be_written_is_told(videos, pretrained, tmp_path):
    (tmp_path / "file").write_text("")
    words = ["--checkpoint", str(pretrained), "OUTPUT_DIR", str(tmp_path / "file")]
    done = run_tool("tools/extract_features.py", *words)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if "error: " in line]
    assert line.startswith("error: OUTPUT_DIR must be writable")
    assert f"got {tmp_path / 'file'}" in line


def test_an_impossible_ending_is_told_before_the_work(pretrained, tmp_path):
    words = ["--checkpoint", str(pretrained), "--output", str(tmp_path / "f.pt")]
    done = run_tool("tools/extract_features.py", *words)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert ".safetensors" in line


def test_a_file_of_features_is_plain_arrays(videos, pretrained, tmp_path):
    path = tmp_path / "f.npz"
    words = ["--checkpoint", str(pretrained), "--output", str(path)]
    done = run_tool("tools/extract_features.py", *words)
    assert done.returncode == 0, done.stderr
    with np.load(path, allow_pickle=False) as file:
        assert file["features"].shape == (24, 8)
        assert file["times"].shape == (24, 2)
