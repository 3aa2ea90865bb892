"""Training on a GPU: the same steps as on a CPU, no wait in them, NCCL, and resuming.

What needs no GPU is tested on the CPU, too: bfloat16 against float32, and on fake CUDA tensors that
a step waits for nothing.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from helpers import tiny_run
from helpers.load_tool import load_tool

steps, settings = (load_tool(f"tools/{name}.py") for name in ("benchmark_steps", "gpu_settings"))
CPU = torch.device("cpu")
ON_GPU = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
TRAININGS = {
    "MaskFeat": settings.S,
    "fine-tuning": settings.FINETUNING,
    "MAE": settings.MAE,
    "iBOT": settings.IBOT,
}
KEEP_ALL = ("MVIT.DROPPATH_RATE", "0.0")  # a GPU draws other random numbers


def _config(name):
    setting = settings.Setting(CPU, quick=True)
    return TRAININGS[name].read(setting, KEEP_ALL)


def _losses(name: str, device: torch.device, precision: str) -> tuple[list[float], float]:
    """Losses of three steps on one batch, and the gradient norm of the first."""
    cfg = _config(name)
    step = steps.make_step(cfg, steps.FAST, steps.make_batch(cfg, 4), device, precision)
    results = [step(number) for number in range(3)]
    losses = [float(sums[1] / sums[0]) for _, sums, _ in results]
    return losses, float(results[0][2].gradient_norm)


@pytest.mark.parametrize(
    ("device", "precision", "tolerance"),
    [
        pytest.param("cpu", "bfloat16", 0.05),
        pytest.param("cuda", "float32", 2e-3, marks=ON_GPU),  # with TF32 in convolutions
        pytest.param("cuda", "bfloat16", 0.05, marks=ON_GPU),
    ],
)
@pytest.mark.parametrize("name", TRAININGS)
def test_steps_are_those_in_float32_on_a_cpu(name, device, precision, tolerance):
    losses, norm = _losses(name, torch.device(device), precision)
    expected, expected_norm = _losses(name, CPU, "float32")
    assert losses == pytest.approx(expected, rel=tolerance)
    assert norm == pytest.approx(expected_norm, rel=tolerance)


# The bicubic positions of iBOT's small views can't be traced without CUDA.
@pytest.mark.parametrize("name", [name for name in TRAININGS if name != "iBOT"])
def test_a_step_on_fake_tensors_waits_for_nothing(name):
    counts = steps.count_traffic(_config(name), 2)  # raises an error at the first wait
    assert counts["backward"]["matrix products"].launches > 0


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", TRAININGS)
def test_a_step_on_a_gpu_waits_for_nothing(name):
    cfg, device = _config(name), torch.device("cuda")
    batch = steps.make_batch(cfg, 4).pin_memory()
    step = steps.make_step(cfg, steps.FAST, batch, device, "bfloat16")
    for number in range(2):
        step(number)  # what is set up once may wait
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        result = step(2)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert bool(result[2].taken)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return tiny_run.make_videos(tmp_path_factory.mktemp("videos"))


@pytest.fixture(scope="module")
def whole(videos, tmp_path_factory):
    """A pre-training on the GPU, not interrupted."""
    output = tmp_path_factory.mktemp("whole")
    done = tiny_run.run(videos, output, tiny_run.PRETRAINING, {"NUM_GPUS": 1})
    assert done.returncode == 0, done.stderr
    return output


def _assert_same_losses(output, whole):
    losses, expected = tiny_run.losses(output), tiny_run.losses(whole)
    assert losses.keys() == expected.keys()
    assert losses == pytest.approx(expected, rel=1e-3)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_resumed_run_is_the_uninterrupted_one(videos, whole, tmp_path):
    tiny_run.kill_and_resume(videos, tmp_path, tiny_run.PRETRAINING, {"NUM_GPUS": 1})
    _assert_same_losses(tmp_path, whole)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_one_process_with_nccl(videos, whole, tmp_path):
    python, *words = tiny_run.command(videos, tmp_path, tiny_run.PRETRAINING, {"NUM_GPUS": 1})
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1"]
    done = subprocess.run([python, *launcher, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    _assert_same_losses(tmp_path, whole)


NCCL = """
import sys, torch
from torch import nn
from slowfast_maskfeat import distributed

distributed.setup(0, 0, 1, "nccl", f"file://{sys.argv[1]}/meeting")
model = nn.parallel.DistributedDataParallel(nn.Linear(3, 2).cuda())
model(torch.ones(4, 3, device="cuda")).sum().backward()
assert model.module.weight.grad.tolist() == [[4.0] * 3] * 2
assert float(distributed.all_reduce(torch.tensor(3.0), "sum")) == 3
assert distributed.gather_objects("a") == ["a"]
distributed.barrier()
print(torch.distributed.get_backend())
"""


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gradients_pass_through_nccl(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", NCCL, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["nccl"]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    "options",
    [{"MODEL.KERNELS": "triton"}, {"TRAIN.COMPILE": True}, {"AUG.ON_DEVICE": True}],
    ids=["kernels", "compiled", "cropped on the device"],
)
def test_fast_forms_train_alike(options, videos, whole, tmp_path):
    done = tiny_run.run(videos, tmp_path, tiny_run.PRETRAINING, {"NUM_GPUS": 1}, options)
    assert done.returncode == 0, done.stderr
    losses, expected = tiny_run.losses(tmp_path), tiny_run.losses(whole)
    assert losses == pytest.approx(expected, rel=0.02)
