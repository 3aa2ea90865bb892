"""Images through the same command as video: pre-train, fine-tune, test; weights there and back.

The configurations are those of the project, made narrow; the images and videos tiny.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.load_tool import run_tool
from helpers.tiny_run import ROOT, events, make_videos, pairs
from PIL import Image
from torch import Tensor

from slowfast_maskfeat.checkpoints import load_checkpoint

# Four blocks of 16 channels on 4x4 patches; of MViT all blocks, which its strides belong to.
SMALL = {
    "DATA.TRAIN_CROP_SIZE": 64,
    "DATA.TEST_CROP_SIZE": 64,
    "MVIT.EMBED_DIM": 16,
    "MVIT.NUM_HEADS": 1,
    "TRAIN.BATCH_SIZE": 4,
    "TEST.BATCH_SIZE": 4,
    "TEST.ENABLE": True,
    "SOLVER.MAX_EPOCH": 1,
    "SOLVER.WARMUP_EPOCHS": 0,
    "TRAIN.CHECKPOINT_PERIOD": 1,
    "DATA_LOADER.NUM_WORKERS": 0,
    "LOG_PERIOD": 1,
    "LOG_MODEL_INFO": False,
    "NUM_GPUS": 0,
}
SHALLOW = {"MVIT.DEPTH": 4}
SHALLOW_MASKED = {
    **SHALLOW,
    "MASK.PRETRAIN_DEPTH": [3],
    "MASK.DECODER_EMBED_DIM": 16,
    "MASK.DECODER_NUM_HEADS": 1,
}
SHORT_CLIPS = {"DATA.NUM_FRAMES": 4, "TEST.NUM_TEMPORAL_CLIPS": [1], "TEST.NUM_SPATIAL_CROPS": 1}
# Steps that change nothing, so that the checkpoint after them is what was loaded.
STILL = {
    "SOLVER.LR_POLICY": "steps_with_relative_lrs",
    "SOLVER.STEPS": [0],
    "SOLVER.LRS": [0.0],
}
METHODS = [
    ("in1k_VIT_B_MaskFeat_PT", "in1k_VIT_B_MaskFeat_FT"),
    ("in1k_VIT_L_MaskFeat_PT", "in1k_VIT_L_MaskFeat_FT"),
    ("in1k_VIT_B_MAE_PT", "in1k_VIT_B_MAE_FT"),
    ("in1k_VIT_L_MAE_PT", "in1k_VIT_L_MAE_FT"),
    ("in1k_VIT_B_SimMIM_PT", "in1k_VIT_B_SimMIM_FT"),
]
FROM_SCRATCH = sorted(path.stem for path in (ROOT / "configs/ImageNet").glob("*.yaml"))
CLASSES = ("n01440764", "n01443537")

pytestmark = pytest.mark.filterwarnings("ignore")  # fewer GPUs than the files ask for


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of six training and two validation images."""
    folder = tmp_path_factory.mktemp("imagenet")
    generator = np.random.default_rng(0)
    for split, number in (("train", 6), ("val", 2)):
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True)
            for index in range(number):
                coarse = generator.integers(0, 256, (5, 6, 3), dtype=np.uint8)
                picture = Image.fromarray(coarse).resize((84, 70), Image.Resampling.BICUBIC)
                picture.save(folder / split / name / f"{name}_{index}.JPEG")
    return folder


@pytest.fixture(scope="module")
def kinetics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videos(tmp_path_factory.mktemp("kinetics"), num_videos=4, num_classes=2)


def command(name: str, data: Path, output: Path, *options: dict) -> str:
    """Run `tools/run_net.py --cfg configs/NAME.yaml KEY VALUE ...`, made small; its messages."""
    folders = {"DATA.PATH_TO_DATA_DIR": data, "OUTPUT_DIR": output}
    words = ["--cfg", ROOT / f"configs/{name}.yaml", *pairs(SMALL, folders, *options)]
    done = run_tool("tools/run_net.py", *words)
    assert done.returncode == 0, done.stderr
    return done.stderr


def checkpoint(output: Path) -> Path:
    (path,) = (output / "checkpoints").iterdir()
    return path


def weights(output: Path) -> dict[str, Tensor]:
    return load_checkpoint(checkpoint(output))["model_state"]


@pytest.mark.parametrize(("pretraining", "finetuning"), METHODS, ids=lambda name: name)
def test_images_are_pretrained_fine_tuned_and_tested(
    pretraining: str, finetuning: str, imagenet: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "pt", tmp_path / "ft"
    command(f"masked_ssl/{pretraining}", imagenet, first, SHALLOW_MASKED)
    (epoch,), (validated,) = events(first, "epoch"), events(first, "validation")
    assert 0 < epoch["loss"] < 10
    assert 0 < validated["baseline"] < 10
    assert len(events(first, "train")) == 3  # 12 images, 4 a step
    assert (first / "predictions.png").read_bytes().startswith(b"\x89PNG")
    start = {"TRAIN.CHECKPOINT_FILE_PATH": checkpoint(first)}
    report = command(f"masked_ssl/{finetuning}", imagenet, second, SHALLOW, start)
    assert f"weights from {checkpoint(first)}" in report
    assert "reshaped" not in report
    assert "head.* (2)" in report
    (begun,), (tested,) = events(second, "start"), events(second, "test")
    assert begun["started_from"] == str(checkpoint(first))
    assert tested["num_videos_scored"] == tested["num_videos"] == 4
    assert tested["num_views"] == tested["num_crops"] == 1
    assert math.isfinite(tested["loss"])


@pytest.mark.parametrize("name", FROM_SCRATCH)
def test_models_of_images_are_trained_from_scratch(
    name: str, imagenet: Path, tmp_path: Path
) -> None:
    command(f"ImageNet/{name}", imagenet, tmp_path)
    (epoch,), (tested,) = events(tmp_path, "epoch"), events(tmp_path, "test")
    assert 0 < epoch["loss"] < 10
    assert tested["num_videos_scored"] == 4
    assert tested["top5"] == 100.0  # of two classes


def test_a_vit_of_images_becomes_one_of_video(
    imagenet: Path, kinetics: Path, tmp_path: Path
) -> None:
    image, video = tmp_path / "image", tmp_path / "video"
    command("masked_ssl/in1k_VIT_B_MaskFeat_PT", imagenet, image, SHALLOW_MASKED)
    start = {"TRAIN.CHECKPOINT_FILE_PATH": checkpoint(image)}
    report = command(
        "masked_ssl/k400_VIT_B_16x4_FT", kinetics, video, SHALLOW, SHORT_CLIPS, STILL, start
    )
    assert f"weights from {checkpoint(image)}" in report
    for line in ("patch_embed.proj.weight", "pos_embed_spatial", "pos_embed_temporal"):
        assert line in report, report
    before, after = weights(image), weights(video)
    kernel = before["patch_embed.proj.weight"]
    for step in range(2):
        torch.testing.assert_close(after["patch_embed.proj.weight"][:, :, step], kernel / 2)
    assert torch.equal(after["pos_embed_spatial"], before["pos_embed"][:, 1:])
    assert torch.equal(after["pos_embed_class"], before["pos_embed"][:, :1])
    assert not after["pos_embed_temporal"].any()
    same = [name for name in before if name.startswith(("blocks.", "cls_token"))]
    assert len(same) == 4 * 12 + 1
    assert all(torch.equal(after[name], before[name]) for name in same)


@pytest.mark.parametrize("method", ["MAE", "SimMIM"])
def test_a_vit_of_video_becomes_one_of_images(
    method: str, imagenet: Path, kinetics: Path, tmp_path: Path
) -> None:
    video, image = tmp_path / "video", tmp_path / "image"
    options = (SHALLOW_MASKED, SHORT_CLIPS, {"DATA.TRAIN_CROP_NUM_TEMPORAL": 1})
    command(f"masked_ssl/k400_VIT_B_16x4_{method}_PT", kinetics, video, *options)
    start = {"TRAIN.CHECKPOINT_FILE_PATH": checkpoint(video)}
    report = command(f"masked_ssl/in1k_VIT_B_{method}_FT", imagenet, image, SHALLOW, STILL, start)
    assert f"weights from {checkpoint(video)}" in report
    assert "summed over 2 times" in report
    before, after = weights(video), weights(image)
    kernel = before["patch_embed.proj.weight"].sum(dim=2)
    torch.testing.assert_close(after["patch_embed.proj.weight"], kernel)
    table = torch.cat((before["pos_embed_class"], before["pos_embed_spatial"]), dim=1)
    assert torch.equal(after["pos_embed"], table)
    same = [name for name in before if name.startswith("blocks.")]
    # MAE's last norm, of single tokens, is not that of their mean.
    assert ("norm.weight" in before) == ("  left out  " in report) == (method == "MAE")
    assert torch.equal(after["norm.weight"], torch.ones(16))
    assert all(torch.equal(after[name], before[name]) for name in same)


def test_an_mvit_of_images_becomes_one_of_video_and_comes_back(
    imagenet: Path, kinetics: Path, tmp_path: Path
) -> None:
    image, video, back = (tmp_path / name for name in ("image", "video", "back"))
    command("ImageNet/MVITv2_S", imagenet, image)
    clips = {"TEST.NUM_ENSEMBLE_VIEWS": 1, **SHORT_CLIPS}
    reset = {"TRAIN.CHECKPOINT_EPOCH_RESET": True}
    for name, source, target, options in (
        ("Kinetics/MVITv2_S_16x4", image, video, (clips, {"DATA.SAMPLING_RATE": 2})),
        ("ImageNet/MVITv2_S", video, back, ()),
    ):
        start = {"TRAIN.CHECKPOINT_FILE_PATH": checkpoint(source), **reset}
        data = kinetics if target == video else imagenet
        report = command(name, data, target, *options, STILL, start)
        assert f"weights from {checkpoint(source)}" in report
        assert "patch_embed.proj.weight" in report
    before, between, after = weights(image), weights(video), weights(back)
    assert before.keys() == after.keys()
    temporal = {name for name in between if name.endswith("rel_pos_t")}
    assert temporal | {"cls_token"} == between.keys() - before.keys()
    assert not any(between[name].any() for name in temporal)
    # Tables of other lengths were resized there and back; what is left of them is another thing.
    resized = {n for n in before if "rel_pos" in n and before[n].shape != between[n].shape}
    kept = {name for name in before if not name.startswith("head.")} - resized
    assert len(resized) < len(kept) / 10
    for name in kept:
        torch.testing.assert_close(after[name], before[name], rtol=1e-5, atol=1e-6, msg=name)
