"""Probes from the command line, and the features they stand on: real videos, tiny networks."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_run
import torch
from load_tool import load_tool

from slowfast_maskfeat.build.features import build_frozen_model, extract_features, kept_features
from slowfast_maskfeat.checkpoints import find_checkpoints
from slowfast_maskfeat.clips import normalise
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.probes import load_features

CPU = torch.device("cpu")
FINETUNING = {
    "PROBE.NUM_NEIGHBOURS": 5,
    "TASK": "ssl_eval",
    "MODEL.ARCH": "mvit",
    "MODEL.MODEL_NAME": "MViT",
    "MODEL.NUM_CLASSES": 3,
    "MVIT.CLS_EMBED_ON": False,
    "MVIT.USE_MEAN_POOLING": True,
}


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
    return load_config([], tiny_run.pairs(tiny_run.MODEL, FINETUNING, folders, *options))


def _probe(videos: Path, output: Path, checkpoint: Path, capsys, *options: dict):
    folders = {
        "DATA.PATH_TO_DATA_DIR": videos,
        "OUTPUT_DIR": output,
        "TRAIN.CHECKPOINT_FILE_PATH": checkpoint,
    }
    words = tiny_run.pairs(tiny_run.MODEL, FINETUNING, folders, *options)
    code = load_tool("tools/run_net.py").main(["--cfg", *words])
    return code, capsys.readouterr().err


@pytest.mark.parametrize("kind", ["linear", "attentive", "knn"])
def test_a_probe_is_an_event_with_its_counts(videos, pretrained, tmp_path, capsys, kind):
    code, said = _probe(
        videos, tmp_path, pretrained, capsys, {"PROBE.KIND": kind, "PROBE.EPOCHS": 2}
    )
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


def test_features_are_kept_and_only_what_is_missing_is_made(videos, pretrained, tmp_path, capsys):
    knn = {"PROBE.KIND": "knn"}
    _probe(videos, tmp_path, pretrained, capsys, knn)
    kept = sorted((tmp_path / "features").iterdir())
    assert [path.name.rsplit("_", 1)[0] for path in kept] == ["test_pooled", "train_pooled"]
    # As after an interruption: one list is done, the other is not.
    kept[0].unlink()
    before = kept[1].stat().st_mtime_ns
    _, said = _probe(videos, tmp_path, pretrained, capsys, knn)
    assert f"features of train: those in {kept[1]}" in said
    assert "features of test: those in" not in said
    assert kept[0].is_file()
    assert kept[1].stat().st_mtime_ns == before
    first, second = tiny_run.events(tmp_path, "probe")
    assert first["top1"] == second["top1"]
    # Another view, and other features: the old ones are not taken for them.
    _probe(videos, tmp_path, pretrained, capsys, knn, {"DATA.SAMPLING_RATE": 1})
    assert len(list((tmp_path / "features").iterdir())) == 4


def test_features_do_not_depend_on_batches_or_workers(videos, pretrained, tmp_path):
    found = []
    for options in (
        {"TEST.BATCH_SIZE": 4, "DATA_LOADER.NUM_WORKERS": 0},
        {"TEST.BATCH_SIZE": 24, "DATA_LOADER.NUM_WORKERS": 2},
    ):
        cfg = _cfg(videos, tmp_path, options)
        frozen = build_frozen_model(cfg, str(pretrained), CPU)
        found.append(extract_features(cfg, "test", frozen, of_tokens=False, device=CPU))
    one, other = found
    assert torch.allclose(one.features, other.features, atol=1e-5)
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
    seen = normalise(clips, cfg.DATA.MEAN, cfg.DATA.STD)
    with torch.no_grad():
        logits = model(seen)
        assert model.features(seen).shape == (2, 8)
        assert torch.allclose(model.head(model.features(seen)), logits)
        tokens = model.token_features(seen)
    assert tokens.shape == (2, 2 * 4 * 4, 8)
    # Each token is normalised by itself; the norm starts with a bias.
    expected = model.norm.bias.mean().expand(2, 32)
    assert torch.allclose(tokens.mean(-1), expected, atol=1e-5)


def test_pre_training_gives_its_encoder(videos, pretrained, tmp_path, capsys):
    output = tmp_path / "features.safetensors"
    words = ["--checkpoint", str(pretrained), "--split", "val", "--tokens", "--output", str(output)]
    assert load_tool("tools/extract_features.py").main(words) == 0
    said = capsys.readouterr()
    assert f"{output}: 12x32x8, 12 of 12 rows" in said.out
    found = load_features(output)
    assert found.facts["model"] == "MaskMViT"
    assert found.class_names == ["class 0", "class 1", "class 2"]
    payload = torch.load(pretrained, weights_only=True)["model_state"]
    cfg = _cfg(videos, tmp_path)
    state = build_frozen_model(cfg, str(pretrained), CPU).model.state_dict()
    shared = [name for name in payload if name.startswith(("blocks.", "patch_embed."))]
    assert len(shared) > 20
    assert all(torch.equal(state[name], payload[name]) for name in shared)


def test_lost_videos_are_counted_and_told(videos, pretrained, tmp_path, capsys):
    folder = tmp_path / "data"
    shutil.copytree(videos, folder)
    for name in ("train.csv", "val.csv", "test.csv"):
        rows = (folder / name).read_text().replace(str(videos), str(folder))
        (folder / name).write_text(rows)
    (folder / "3.mp4").write_bytes(b"no video")
    code, said = _probe(folder, tmp_path / "out", pretrained, capsys, {"PROBE.KIND": "knn"})
    assert code == 0
    (event,) = tiny_run.events(tmp_path / "out", "probe")
    assert (event["num_expected"], event["num_decoded"]) == (12, 11)
    assert event["num_train_decoded"] == event["num_videos_scored"] == 11
    assert [Path(lost["path"]).name for lost in event["lost"]] == ["3.mp4"]
    assert "lost: " in said


def test_lists_without_labels_are_extracted_but_not_probed(videos, pretrained, tmp_path, capsys):
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("train.csv", "test.csv"):
        rows = (videos / name).read_text().splitlines()
        (bare / name).write_text("".join(f"{row.split()[0]}\n" for row in rows))
    cfg = _cfg(bare, tmp_path / "a")
    frozen = build_frozen_model(cfg, str(pretrained), CPU)
    assert kept_features(cfg, "test", frozen, of_tokens=False, device=CPU).labels is None
    code, said = _probe(bare, tmp_path / "b", pretrained, capsys, {"PROBE.KIND": "knn"})
    assert code == 2
    assert "error: " in said
    assert "the rows have no labels" in said


def test_an_impossible_ending_is_told_before_the_work(pretrained, tmp_path, capsys):
    words = ["--checkpoint", str(pretrained), "--output", str(tmp_path / "f.pt")]
    assert load_tool("tools/extract_features.py").main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert ".safetensors" in line


def test_a_file_of_features_is_plain_arrays(videos, pretrained, tmp_path):
    path = tmp_path / "f.npz"
    words = ["--checkpoint", str(pretrained), "--output", str(path)]
    assert load_tool("tools/extract_features.py").main(words) == 0
    with np.load(path, allow_pickle=False) as file:
        assert file["features"].shape == (24, 8)
        assert file["times"].shape == (24, 2)
