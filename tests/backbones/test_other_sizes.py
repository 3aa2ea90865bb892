"""Published models meet clips of other lengths and sizes than they are configured for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers.golden_rule import GOLDEN
from helpers.load_tool import load_tool

from slowfast_maskfeat.augment import normalize
from slowfast_maskfeat.builders.methods import build_model
from slowfast_maskfeat.checkpoints import load_weights
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.shapes import Grid

NUM_CLIPS = 32
CONFIGS = Path(__file__).resolve().parents[2] / "configs"
VIDEO = [
    "masked_ssl/k400_MVITv2_S_16x4_FT",
    "masked_ssl/k400_VIT_B_16x4_FT",
    "Kinetics/MVIT_B_16x4_CONV",
]
SIZES = [(160, 160), (224, 320), (312, 312), (352, 240)]

pytestmark = pytest.mark.filterwarnings("ignore")  # keys that concern the data


@pytest.fixture(scope="module", params=VIDEO)
def classifier(request: pytest.FixtureRequest) -> torch.nn.Module:
    """A published model on the meta device: every shape is worked out, no number is."""
    with torch.device("meta"):
        return build_model(load_config([str(CONFIGS / f"{request.param}.yaml")])).eval()


@pytest.mark.parametrize("num_frames", [1, 8, 16, 32, 40])
def test_a_classifier_takes_clips_of_any_length_and_size(
    classifier: torch.nn.Module, num_frames: int
) -> None:
    model = classifier
    for height, width in SIZES:
        clips = torch.empty(1, 3, num_frames, height, width, device="meta")
        with torch.no_grad():
            assert model(clips).shape == (1, 400)
        grid = model.patch_grid((num_frames, height, width))
        stride = model.patch_embed.stride
        assert grid == Grid(-(-num_frames // stride[0]), height // stride[1], width // stride[2])


@pytest.mark.parametrize("num_frames", [1, 8, 40])
@pytest.mark.parametrize(
    "name", ["k400_MVITv2_S_16x4_MaskFeat_PT", "k400_VIT_B_16x4_MAE_PT", "in1k_VIT_B_MaskFeat_PT"]
)
def test_a_masked_model_takes_clips_of_any_length_and_size(name: str, num_frames: int) -> None:
    model = build_model(load_config([str(CONFIGS / "masked_ssl" / f"{name}.yaml")])).eval()
    num_frames = 1 if "in1k" in name else num_frames
    size = (num_frames, 64, 96)
    (grid,) = model.prediction_grids(size)
    assert grid == Grid(-(-num_frames // 2), 4, 6)
    mask = torch.zeros(1, *grid, dtype=torch.bool)
    mask[:, :, ::2, 1:4] = True
    with torch.no_grad():
        (prediction,) = model(torch.randn(1, 3, *size), mask)
    assert len(prediction) == int(mask.sum())
    assert prediction.isfinite().all()


def motion_clips(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The first demo validation clips, rendered at a size: (B, C, T, H, W) normalized, labels."""
    generator = load_tool("datasets/motion_rendering.py")
    clips = []
    for index in range(NUM_CLIPS):
        motion, look = generator.sample_clip(0, "val", index)
        frames = generator.render_frames(motion, look, 24, size)[4:20:2]  # the center 8 of 24
        clips.append(torch.from_numpy(frames).permute(3, 0, 1, 2))
    labels = torch.arange(NUM_CLIPS) % 8
    return normalize(torch.stack(clips), [0.45] * 3, [0.225] * 3), labels


@pytest.fixture(scope="module")
def trained() -> torch.nn.Module:
    """The fine-tuned network of the demo (seed 0), its weights rounded to half precision."""
    cfg = load_config([str(CONFIGS / "demo/finetune.yaml")], ["MODEL.NUM_CLASSES", "8"])
    model = build_model(cfg).eval()
    load_weights(model, GOLDEN / "demo" / "finetuned.safetensors", complete=True)
    return model


def test_a_trained_model_says_nearly_the_same_of_a_larger_input(trained: torch.nn.Module) -> None:
    """Trained at 48 pixels: the same clips with more pixels, and with more room around them."""
    clips, labels = motion_clips(48)
    with torch.no_grad():
        logits = trained(clips)
        assert (logits.argmax(1) == labels).float().mean() > 0.7  # chance is 0.125
        wider = F.pad(clips, (8, 8, 8, 8, 0, 0), mode="replicate")
        for larger in (motion_clips(56)[0], motion_clips(64)[0], motion_clips(80)[0], wider):
            others = trained(larger)
            assert F.cosine_similarity(logits, others).mean() > 0.9, larger.shape
            assert (others.argmax(1) == labels).float().mean() > 0.7, larger.shape
