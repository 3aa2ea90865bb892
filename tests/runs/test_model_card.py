"""Model cards: what is known of a model, in a form that the Hugging Face hub reads."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from helpers.documents import blocks
from helpers.hugging_face import write_folder
from helpers.tiny_run import FINETUNING, MODEL, PRETRAINING, events, make_videos, pairs, run

from slowfast_maskfeat import build_model, from_pretrained, load_config, save_pretrained
from slowfast_maskfeat.builders.model_card import card_facts
from slowfast_maskfeat.checkpoints import find_checkpoints

# A plain transformer of images.
IMAGES = {
    "DATA.NUM_FRAMES": 1,
    "TEST.NUM_ENSEMBLE_VIEWS": 10,  # the default, which images do not have
    "MVIT.PATCH_2D": True,
    "MVIT.PATCH_KERNEL": [8, 8],
    "MVIT.PATCH_STRIDE": [8, 8],
    "MVIT.PATCH_PADDING": [0, 0],
    "MVIT.POOL_Q_STRIDE": [],
    "MVIT.POOL_KVQ_KERNEL": None,
    "MVIT.POOL_KV_STRIDE_ADAPTIVE": None,
    "MVIT.REL_POS_TEMPORAL": False,
}
DINO = {"MODEL.MODEL_NAME": "ContrastiveModel", "CONTRASTIVE.TYPE": "dino", "CONTRASTIVE.DIM": 16}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_videos(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A fine-tuning with two checkpoints, the last of which was tested."""
    output = tmp_path_factory.mktemp("trained")
    done = run(data, output, FINETUNING, {"TRAIN.CHECKPOINT_PERIOD": 1})
    assert done.returncode == 0, done.stderr
    return output


def card_of(folder: Path) -> tuple[dict[str, object], dict[str, str], str]:
    """The metadata, the rows of all tables by their titles, and the whole text."""
    text = (folder / "README.md").read_text(encoding="utf-8")
    _, metadata, body = text.split("---\n", 2)
    rows = dict(re.findall(r"^\| ([^|]+?) \| (.*) \|$", body, re.MULTILINE))
    return yaml.safe_load(metadata), rows, text


def model_of(*options: dict[str, object]) -> torch.nn.Module:
    cfg = load_config([], pairs(*options))
    model = build_model(cfg)
    model.cfg = cfg
    return model


def test_the_card_of_a_trained_model_has_data_recipe_and_results(trained, tmp_path):
    save_pretrained(from_pretrained(trained), tmp_path / "actions")
    metadata, rows, text = card_of(tmp_path / "actions")
    assert metadata == {
        "library_name": "slowfast_maskfeat",
        "pipeline_tag": "video-classification",
        "tags": ["slowfast_maskfeat", "video", "classification"],
    }
    assert rows["Classes"] == "3, with names"
    assert rows["Input"].startswith("clips of 4 frames of 32x32 pixels; sampling rate 2 at 30")
    assert rows["Network"].startswith("multiscale vision transformer (MViT), 2 blocks, 8 channels")
    assert rows["Test"] == "1x2 (crops x clips) of 32x32 pixels"
    (test,) = events(trained, "test")
    validation = events(trained, "validation")[-1]
    assert rows["List"] == f"`train.csv`, SHA-256 `{events(trained, 'start')[0]['list_sha256']}`"
    assert rows["Finished epochs"] == "2"
    assert rows["First weights"] == "random"
    assert rows["`SOLVER.BASE_LR`"] == "`0.003`"
    assert rows["test, 1x2 (crops x clips)"] == (
        f"top-1 {test['top1']:.2f} %, top-5 {test['top5']:.2f} %, loss {test['loss']:.4f}, "
        "12 videos"
    )
    assert rows["validation"].startswith(f"top-1 {validation['top1']:.2f} %")
    assert str(trained) not in text
    assert "/tmp" not in text


def test_the_network_is_multiscale_if_a_block_pools_or_widens():
    """A model that pools keys and values alone keeps its grid and its width, as the demo's."""
    plain = MODEL | {
        "MVIT.POOL_Q_STRIDE": [],
        "MVIT.POOL_KVQ_KERNEL": None,
        "MVIT.POOL_KV_STRIDE_ADAPTIVE": None,
        "MVIT.RESIDUAL_POOLING": False,
    }
    kernel = {"MVIT.POOL_KVQ_KERNEL": [3, 3, 3]}
    for options, name in (
        ({}, "vision transformer (ViT)"),
        ({"MVIT.POOL_Q_STRIDE": [[1, 1, 1, 1]]}, "vision transformer (ViT)"),  # no kernel
        ({"MVIT.POOL_Q_STRIDE": [[1, 1, 1, 1]]} | kernel, "multiscale"),
        ({"MVIT.POOL_KV_STRIDE": [[0, 1, 2, 2]]}, "multiscale"),
        ({"MVIT.POOL_KV_STRIDE_ADAPTIVE": [1, 2, 2]} | kernel, "multiscale"),
        ({"MVIT.DIM_MUL": [[1, 2.0]]}, "multiscale"),
    ):
        facts = card_facts(load_config([], pairs(plain, options)))
        assert facts.network.startswith(name), options


def test_results_are_those_of_the_saved_checkpoint_alone(trained, tmp_path):
    first, _ = find_checkpoints(trained / "checkpoints", "ssl_eval")
    save_pretrained(from_pretrained(first), tmp_path / "first")
    _, rows, text = card_of(tmp_path / "first")
    assert rows["Finished epochs"] == "1"
    assert f"loss {events(trained, 'validation')[0]['loss']:.4f}" in rows["validation"]
    assert "| test" not in text
    alone = tmp_path / "copied.pyth"
    shutil.copy(first, alone)
    save_pretrained(from_pretrained(alone), tmp_path / "alone")
    _, rows, text = card_of(tmp_path / "alone")
    assert "## Results" not in text
    assert rows["List reader (`TRAIN.DATASET`)"] == "`kinetics`"


def test_a_model_of_unknown_training_has_no_recipe(trained, tmp_path):
    save_pretrained(from_pretrained(trained), tmp_path / "once")
    save_pretrained(from_pretrained(tmp_path / "once"), tmp_path / "twice")
    theirs = write_folder(tmp_path / "theirs", "vit_classifier")
    save_pretrained(from_pretrained(theirs), tmp_path / "ours")
    save_pretrained(model_of(MODEL, FINETUNING), tmp_path / "mine")
    for name in ("twice", "ours", "mine"):
        metadata, rows, text = card_of(tmp_path / name)
        assert "## Training" not in text
        assert "## Results" not in text
        assert "Network" in rows
        kind = "image" if name == "ours" else "video"
        assert metadata["pipeline_tag"] == f"{kind}-classification"
    assert rows["Classes"] == "3, without names"


@pytest.mark.parametrize(
    ("options", "pipeline", "task"),
    [
        (PRETRAINING, None, "self-supervised pre-training on videos: masked prediction of hog"),
        (IMAGES, "image-classification", "classification of images"),
        ({"MODEL.MODEL_NAME": "Tokenizer", "TOKENIZER.WIDTHS": [8]}, None, "tokenizer (vq) of"),
        ({"DETECTION.ENABLE": True, "MODEL.LOSS_FUNC": "bce"}, None, "detection of actions"),
        ({**IMAGES, **DINO}, "image-feature-extraction", "self-supervised pre-training on images"),
        (DINO, None, "self-supervised pre-training on videos: dino"),
    ],
)
def test_the_task_follows_from_the_configuration(options, pipeline, task, tmp_path):
    save_pretrained(model_of(MODEL, options), tmp_path / "model")
    metadata, rows, _ = card_of(tmp_path / "model")
    assert metadata.get("pipeline_tag") == pipeline
    assert rows["Task"].startswith(task)


@pytest.mark.parametrize("name", ["actions", 'with "quotes" and \n lines', "läuft"])
def test_the_lines_of_the_card_load_the_model(name, data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copy(data / "1.mp4", "my_video.mp4")
    for options, printed in ((FINETUNING, "('0', '1', '2')"), (PRETRAINING, "torch.Size([2, 8])")):
        folder = tmp_path / name
        save_pretrained(model_of(MODEL, options), folder)
        (block,) = blocks(folder / "README.md")
        assert block.language == "python"
        assert len(block.lines) == 3
        exec(compile("\n".join(block.lines), name, "exec"), {})
        shown = capsys.readouterr().out.strip()
        assert sorted(shown) == sorted(printed)
        shutil.rmtree(folder)


def test_a_card_that_exists_is_kept(tmp_path):
    model = model_of(MODEL, FINETUNING)
    (tmp_path / "README.md").write_text("license: mine")
    with pytest.warns(UserWarning, match=r"README\.md exists and is kept"):
        save_pretrained(model, tmp_path)
    assert (tmp_path / "README.md").read_text() == "license: mine"
    assert from_pretrained(tmp_path).cfg.MODEL.NUM_CLASSES == 3


def test_the_card_of_another_model_is_replaced_unless_it_was_edited(tmp_path):
    folder = tmp_path / "model"
    first, second = model_of(MODEL, FINETUNING), model_of(MODEL, PRETRAINING)
    save_pretrained(first, folder)
    save_pretrained(second, folder)
    assert card_of(folder)[1]["Task"].startswith("self-supervised pre-training")
    weights, card = (folder / "model.safetensors").read_bytes(), folder / "README.md"
    edited = card.read_text(encoding="utf-8").replace("tags:", "license: mit\ntags:")
    for text in (edited, "mine", ""):
        card.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=r"with a README\.md that was edited or is no card"):
            save_pretrained(first, folder)
        assert card.read_text(encoding="utf-8") == text
        assert (folder / "model.safetensors").read_bytes() == weights


def test_a_file_in_the_place_of_the_folder_is_one_error(tmp_path):
    (tmp_path / "rel.txt").write_text("kept")
    with pytest.raises(ValueError, match=r"folder must be a folder, got the file .*rel\.txt$"):
        save_pretrained(model_of(MODEL, FINETUNING), tmp_path / "rel.txt")
    assert (tmp_path / "rel.txt").read_text() == "kept"
