"""BEiT by the command line: files of its authors, and pre-training on images and video."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.golden_rule import golden_array, golden_json, golden_randn, relative_error
from helpers.load_tool import run_tool
from helpers.tiny_run import ROOT, events, make_videos, pairs
from helpers.tiny_teachers import save_tokenizer
from PIL import Image
from torch import Tensor

from slowfast_maskfeat.checkpoints import load_checkpoint, save_checkpoint
from slowfast_maskfeat.checkpoints.naming import NAMINGS, ModelFacts
from slowfast_maskfeat.shapes import Grid

# The models of golden/foreign/hf_beit_*.json.
SMALL = {
    "DATA.TRAIN_CROP_SIZE": 64,
    "DATA.TEST_CROP_SIZE": 64,
    "MVIT.DEPTH": 3,
    "MVIT.EMBED_DIM": 32,
    "MVIT.NUM_HEADS": 2,
    "MODEL.NUM_CLASSES": 10,
}
RUN = {
    "TRAIN.BATCH_SIZE": 4,
    "TEST.BATCH_SIZE": 4,
    "TEST.ENABLE": False,
    "SOLVER.MAX_EPOCH": 1,
    "SOLVER.WARMUP_EPOCHS": 0,
    "TRAIN.CHECKPOINT_PERIOD": 1,
    "DATA_LOADER.NUM_WORKERS": 0,
    "LOG_PERIOD": 1,
    "LOG_MODEL_INFO": False,
    "NUM_GPUS": 0,
}
MASKED = {"MASK.PRETRAIN_DEPTH": [2], "TOKENIZER.CROP_SIZE": 32}
# Steps that change nothing, so that the checkpoint after them is what was loaded.
STILL = {
    "SOLVER.LR_POLICY": "steps_with_relative_lrs",
    "SOLVER.STEPS": [0],
    "SOLVER.LRS": [0.0],
}
FINETUNING = ROOT / "configs/masked_ssl/in1k_VIT_B_BEiT_FT.yaml"

pytestmark = pytest.mark.filterwarnings("ignore")  # fewer GPUs than the files ask for


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten classes of two training images and a validation image."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for split, number in (("train", 2), ("val", 1)):
        for label in range(10):
            (folder / split / f"n{label:08d}").mkdir(parents=True)
            for index in range(number):
                coarse = generator.integers(0, 256, (5, 6, 3), dtype=np.uint8)
                picture = Image.fromarray(coarse).resize((84, 70), Image.Resampling.BICUBIC)
                picture.save(folder / split / f"n{label:08d}" / f"{index}.JPEG")
    return folder


def theirs(golden: str, *, mean_pooling: bool) -> dict[str, Tensor]:
    """Weights of the golden rule by the names of BEiT's code, with the buffers it saves."""
    weights = {
        name: torch.from_numpy(golden_array(name, shape=tuple(shape)))
        for name, shape in golden_json(f"foreign/{golden}.json")["state"]
    }
    facts = ModelFacts(Grid(1, 4, 4), mean_pooling=mean_pooling)
    ours = NAMINGS["hf_beit"].to_published(weights, facts)
    official = NAMINGS["beit"].from_published(ours, facts)
    index = torch.zeros(17, 17, dtype=torch.int64)
    buffers = {
        name.replace("bias_table", "index"): index for name in official if "bias_table" in name
    }
    return {**official, **buffers}


def command(name: str, data: Path, output: Path, *options: dict) -> str:
    """Run `tools/run_net.py --cfg configs/masked_ssl/NAME.yaml KEY VALUE ...`; its messages."""
    folders = {"DATA.PATH_TO_DATA_DIR": data, "OUTPUT_DIR": output}
    words = pairs(SMALL, RUN, folders, *options)
    done = run_tool("tools/run_net.py", "--cfg", ROOT / f"configs/masked_ssl/{name}.yaml", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def logits_of(checkpoint: Path, folder: Path, *words: str) -> Tensor:
    """Logits that `tools/predict.py --logits` writes for the clips of the golden."""
    golden = golden_json("foreign/hf_beit_classifier.json")
    clips, logits = folder / "clips.npy", folder / "logits.npy"
    np.save(clips, golden_randn(1000, tuple(golden["input_shape"])).unsqueeze(2).numpy())
    given = ["--checkpoint", checkpoint, "--clips", clips, "--logits", logits, "--device", "cpu"]
    given.append("--force")
    done = run_tool("tools/predict.py", *given, *words)
    assert done.returncode == 0, done.stderr
    return torch.from_numpy(np.load(logits))


def test_a_file_of_the_authors_predicts_and_starts_a_fine_tuning(
    images: Path, tmp_path: Path
) -> None:
    """Both give the golden logits, and so does the file after conversion there and back."""
    expected = golden_json("foreign/hf_beit_classifier.json")["logits"]
    path = save_checkpoint(
        tmp_path / "beit.pth", {"model": theirs("hf_beit_classifier", mean_pooling=True)}
    )
    configured = ["--cfg", str(FINETUNING), *pairs(SMALL)]
    assert relative_error(logits_of(path, tmp_path, *configured), expected) < 1e-6

    output = tmp_path / "ft"
    command(FINETUNING.stem, images, output, STILL, {"TRAIN.CHECKPOINT_FILE_PATH": path})
    (trained,) = (output / "checkpoints").iterdir()
    assert relative_error(logits_of(trained, tmp_path), expected) < 1e-6

    back = tmp_path / "back.pth"
    convert = ["--cfg", FINETUNING, "--input", trained, "--output", back, "--to", "beit"]
    done = run_tool("tools/convert_checkpoint.py", *convert, *pairs(SMALL))
    assert done.returncode == 0, done.stderr
    assert "100.0% of the backbone" in done.stdout
    assert relative_error(logits_of(back, tmp_path, *configured), expected) < 1e-6


def test_a_pre_trained_file_of_the_authors_starts_a_fine_tuning(
    images: Path, tmp_path: Path
) -> None:
    weights = theirs("hf_beit_pretraining", mean_pooling=False)
    path = save_checkpoint(tmp_path / "beit.pth", {"model": weights})
    output = tmp_path / "ft"
    said = command(FINETUNING.stem, images, output, STILL, {"TRAIN.CHECKPOINT_FILE_PATH": path})
    assert "a copy of the one for all blocks" in said
    (trained,) = (output / "checkpoints").iterdir()
    state = load_checkpoint(trained)["model_state"]
    for block in range(3):
        copied = state[f"blocks.{block}.attn.relative_position_bias_table"]
        assert torch.equal(copied, weights["rel_pos_bias.relative_position_bias_table"])
    assert (state["norm.weight"] == 1).all()


def test_images_are_pre_trained_and_fine_tuned(images: Path, tmp_path: Path) -> None:
    """The start has what pre-training learned, down to the tables."""
    first, second = tmp_path / "pt", tmp_path / "ft"
    tokenizer = {"TOKENIZER.CHECKPOINT": save_tokenizer(tmp_path)}
    warmup = {"SOLVER.WARMUP_EPOCHS": 1.0, "SOLVER.BASE_LR": 0.004}
    command("in1k_VIT_B_BEiT_PT", images, first, MASKED, tokenizer, warmup)
    (epoch,) = events(first, "epoch")
    assert 0 < epoch["loss"] < 10
    # The last of the five steps of the warm-up has the rate.
    rates = [event["lr"] for event in events(first, "train")]
    assert rates == pytest.approx([0.0, 0.001, 0.002, 0.003, 0.004])
    (pretrained,) = (first / "checkpoints").iterdir()
    before = load_checkpoint(pretrained)["model_state"]
    table = before["rel_pos_bias.relative_position_bias_table"]
    assert table.abs().max() > 0
    start = {"TRAIN.CHECKPOINT_FILE_PATH": pretrained}
    command(FINETUNING.stem, images, second, STILL, start)
    (trained,) = (second / "checkpoints").iterdir()
    after = load_checkpoint(trained)["model_state"]
    assert torch.equal(after["blocks.2.attn.relative_position_bias_table"], table)
    kept = {name for name in after if not name.startswith(("norm.", "head."))}
    kept -= {name for name in kept if "bias_table" in name}
    assert kept
    assert all(torch.equal(after[name], before[name]) for name in kept)


def test_videos_are_pre_trained(tmp_path: Path) -> None:
    """The codes of both frames of a token are predicted at BEVT's masks."""
    (tmp_path / "videos").mkdir()
    videos = make_videos(tmp_path / "videos", num_videos=4)
    tokenizer = {"TOKENIZER.CHECKPOINT": save_tokenizer(tmp_path)}
    output = tmp_path / "pt"
    command("k400_VIT_B_16x4_BEiT_PT", videos, output, MASKED, tokenizer, {"DATA.NUM_FRAMES": 4})
    (epoch,) = events(output, "epoch")
    assert 0 < epoch["loss"] < 10
    (trained,) = (output / "checkpoints").iterdir()
    state = load_checkpoint(trained)["model_state"]
    assert state["pred_head.projections.0.weight"].shape == (2 * 16, 32)
    assert "pos_embed_temporal" in state
    assert "blocks.0.attn.q_bias" in state
