"""Launches and bytes: exact on small modules, and limits for a step of pre-training."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers.load_tool import load_tool
from torch import nn

from slowfast_maskfeat.host_copies import copy_to_device

benchmark, report, traffic = (
    load_tool(f"tools/{name}.py") for name in ("benchmark", "benchmark_report", "benchmark_traffic")
)
DEVICE = traffic.DEVICE


class Step:
    """A forward and backward pass of a module on a fake GPU, under bfloat16 autocast."""

    def __init__(self, module: nn.Module, *shape: int) -> None:
        self.gpu, self.module, self.shape = traffic.FakeGpu(), module, shape
        self.gpu.move(module)

    def __call__(self, _: int) -> None:
        clips = torch.empty(self.shape, device=DEVICE)
        with torch.autocast("cuda", torch.bfloat16):
            out = self.module(clips)
        out.float().sum().backward()

    def count(self):
        return self.gpu.count(self, self.module)


def test_a_linear_layer_is_counted_to_the_byte():
    module = nn.Linear(8, 16, bias=False)
    counts = Step(module, 4, 8).count()
    bf16, fp32 = 2, 4
    inputs, weights, outputs = 4 * 8, 8 * 16, 4 * 16
    casts = (inputs + weights) * (bf16 + fp32)
    product = (inputs + weights + outputs) * bf16
    assert counts["forward"] == {
        "casts between dtypes": report.Count(2, casts),
        "matrix products": report.Count(1, product),
    }
    assert counts["backward"]["matrix products"] == report.Count(1, product)
    # That of the result, written and read once again from one value, and that of the weights.
    assert counts["backward"]["casts between dtypes"] == report.Count(
        2, fp32 + outputs * bf16 + weights * (bf16 + fp32)
    )
    gradient = module.weight.grad
    assert (gradient.shape, gradient.dtype, gradient.device) == ((16, 8), torch.float32, DEVICE)


class Attention(nn.Module):
    def forward(self, clips):
        return F.scaled_dot_product_attention(clips, clips, clips.transpose(0, 1).transpose(0, 1))


def test_attention_is_the_fused_kernel_and_views_are_free():
    with torch.no_grad():
        gpu, module = traffic.FakeGpu(), Attention()
        clips = []

        def step(_):
            clips.append(torch.empty(2, 3, 50, 8, device=DEVICE, dtype=torch.bfloat16))
            module(clips[0])

        counts = gpu.count(step, module)["forward"]
    assert set(counts) == {"attention"}
    assert counts["attention"].launches == 1
    assert counts["attention"].num_bytes < 4.5 * 2 * 3 * 50 * 8 * 2  # and a float32 sum per query


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).all()),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.cpu(),
        lambda x: x.tolist(),
    ],
    ids=["item", "bool", "nonzero", "masked", "cpu", "tolist"],
)
def test_waiting_is_an_error(read):
    gpu = traffic.FakeGpu()
    # A mask as an index fails before torch reaches the operator that waits.
    with pytest.raises(RuntimeError, match=r"waits for the GPU|not linked with support for cuda"):
        gpu.count(lambda _: read(torch.empty(4, 5, device=DEVICE)), nn.Identity())


def test_copies_from_page_locked_memory_are_told_apart():
    def step(_):
        numbers = torch.arange(6).view(2, 3)
        copy_to_device(numbers, DEVICE)
        numbers.to(DEVICE, non_blocking=True)
        numbers.pin_memory().to(DEVICE)

    counts = traffic.FakeGpu().count(step, nn.Identity())["input"]
    assert counts == {
        traffic.FROM_HOST: report.Count(2, 4 * 6 * 8),
        traffic.FROM_PAGES: report.Count(1, 2 * 6 * 8),
    }


def test_a_step_of_the_demo_waits_for_nothing():
    cfg = benchmark.read_config(benchmark.QUICK_CONFIG)
    counts = benchmark.count_traffic(cfg, 2)
    assert set(counts) == set(report.PHASES)
    for phase in counts.values():  # indices of masked tokens, constants of HOG and normalization
        assert traffic.FROM_PAGES not in phase
    # One kernel for all parameters, and one norm, scale and update.
    assert report.total(counts["optimizer"]).launches <= 40


def test_another_method_is_one_line(capsys):
    file = "configs/masked_ssl/in1k_VIT_B_DINO_PT.yaml"
    assert benchmark.main(["--only", "traffic", "--config", file]) == 2
    printed = capsys.readouterr()
    assert not printed.out
    assert printed.err.startswith("benchmark.py: error: --config must be of masked pre-training")
    assert printed.err.rstrip().endswith(f"got {file}")


@pytest.mark.slow  # thousands of operators, each traced in Python
def test_the_traffic_of_pretraining_stays_low():
    """MaskFeat with S 16x4 in bfloat16, batch 32: launches, bytes of a clip, share of casts."""
    cfg = benchmark.read_config(benchmark.CONFIG)
    counts = benchmark.count_traffic(cfg, 32)
    limits = {
        "input": (3, 17e6),
        "forward": (620, 1.91e9),
        "target and loss": (134, 0.301e9),
        "backward": (1006, 4.08e9),
        "optimizer": (40, 50e6),
    }
    assert set(counts) == set(limits)
    for phase, (launches, num_bytes) in limits.items():
        total = report.total(counts[phase])
        assert total.launches <= launches, phase
        assert total.num_bytes / 32 <= num_bytes, phase
    casts = counts["forward"]["casts between dtypes"]
    assert casts.num_bytes < 0.04 * report.total(counts["forward"]).num_bytes
