"""MODEL.KERNELS: what is switched on, what is checked first, and what is an error."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from helpers.kernel_cases import HAS_TRITON, NEEDS_INTERPRETER, NEEDS_TRITON
from helpers.tiny_run import MODEL, PRETRAINING, losses, make_videos, pairs, run

from slowfast_maskfeat.builders.data_source import DataSource
from slowfast_maskfeat.builders.kernels import check_kernels, switch_on_kernels
from slowfast_maskfeat.builders.methods import build_model, build_task
from slowfast_maskfeat.config import load_config

if HAS_TRITON:
    from slowfast_maskfeat.kernels import switch

TRITON = {"MODEL.KERNELS": "triton"}
# One block, and no positions, whose gradients have nothing to do with kernels.
SMALL = {
    "MVIT.DEPTH": 1,
    "MASK.PRETRAIN_DEPTH": [0],
    "MVIT.REL_POS_SPATIAL": False,
    "MVIT.REL_POS_TEMPORAL": False,
    "DATA.NUM_FRAMES": 2,
}
CPU = torch.device("cpu")
# Infinite ratios are meant: numpy, which interprets the kernel, warns of them.
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in divide:RuntimeWarning")


def _config(*options):
    return load_config([], pairs(MODEL, PRETRAINING, SMALL, *options))


def _build(cfg):
    data = DataSource(cfg)
    model = build_model(cfg, data=data)
    return model, build_task(cfg, model, data=data)


def test_plain_is_the_default_and_needs_no_triton():
    code = (
        "import sys, torch\n"
        "from slowfast_maskfeat.builders.kernels import switch_on_kernels\n"
        "from slowfast_maskfeat.config import load_config\n"
        "import slowfast_maskfeat.runs.run\n"
        "switch_on_kernels(load_config([]), torch.device('cpu'), torch.nn.Linear(1, 1))\n"
        "assert 'triton' not in sys.modules\n"
        "assert 'slowfast_maskfeat.kernels.pooling' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_machine_without_triton_is_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(ValueError, match=r"MODEL\.KERNELS must be 'plain' where Triton is not"):
        check_kernels(_config(TRITON), torch.device("cuda"))


@NEEDS_TRITON
def test_a_run_without_cuda_is_one_line_before_any_work(monkeypatch, tmp_path):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    done = run(tmp_path / "no data", tmp_path / "output", PRETRAINING, TRITON)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "MODEL.KERNELS must be 'plain' on device 'cpu', got 'triton'" in line
    assert not (tmp_path / "output").exists()


def test_another_value_is_an_error():
    with pytest.raises(ValueError, match=r"MODEL\.KERNELS must be one of 'plain', 'triton'"):
        _config({"MODEL.KERNELS": "cuda"})


@NEEDS_INTERPRETER
def test_poolings_and_targets_are_switched_on_and_nothing_else_changes():
    cfg = _config(TRITON)
    torch.manual_seed(0)
    model, task = _build(cfg)
    names, state = list(model.state_dict()), torch.get_rng_state()
    switch_on_kernels(cfg, CPU, model, task)
    assert torch.equal(torch.get_rng_state(), state)
    assert list(model.state_dict()) == names
    attention = model.blocks[0].attn
    for pool in (attention.pool_q, attention.pool_k, attention.pool_v):
        assert pool.fused is switch.pool_and_norm
        assert pool.weight.grad is None
    assert all(target.fused is not None for target in task.targets)


@NEEDS_INTERPRETER
def test_keys_without_effect_are_a_warning():
    cfg = _config(TRITON)
    with pytest.warns(UserWarning, match=r"MODEL\.KERNELS triton has no effect"):
        switch_on_kernels(cfg, CPU, torch.nn.Linear(2, 2))


@NEEDS_INTERPRETER
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            lambda pooled, grid: (pooled * 1.01, grid),
            r"kernel \(3, 3, 3\) and stride \(1, 2, 2\) of tokens .* differs from the plain form "
            r"by 0\.01 of the largest value in the result, more than 0\.0001; set MODEL\.KERNELS p",
        ),
        (
            lambda pooled, grid: (1.01 * pooled - 0.01 * pooled.detach(), grid),
            r"by 0\.01 of the largest value in the gradient of the tokens",
        ),
        (lambda pooled, grid: (pooled * torch.nan, grid), r"differs from the plain form by nan"),
        (lambda pooled, grid: 1 / 0, r"does not run: ZeroDivisionError: division by zero; set"),
    ],
)
def test_a_wrong_pooling_is_one_error(monkeypatch, wrong, message):
    cfg = _config(TRITON)
    right = switch.pool_and_norm
    monkeypatch.setattr(
        switch, "pool_and_norm", lambda *args, **options: wrong(*right(*args, **options))
    )
    model, _ = _build(cfg)
    with pytest.raises(ValueError, match=message):
        switch_on_kernels(cfg, CPU, model)


@NEEDS_INTERPRETER
def test_a_wrong_hog_is_one_error(monkeypatch):
    cfg = _config(TRITON)
    _, task = _build(cfg)
    right = switch.bin_thresholds
    monkeypatch.setattr(switch, "bin_thresholds", lambda bins: right(bins) + 0.1)
    message = r"HOG with 9 bins and cell 8 of clips \(2, 3, 2, 32, 32\) .* largest value in the res"
    with pytest.raises(ValueError, match=message):
        switch_on_kernels(cfg, CPU, task)


@NEEDS_INTERPRETER
@pytest.mark.slow
def test_a_training_with_kernels_has_the_losses_of_a_plain_one(tmp_path):
    (tmp_path / "data").mkdir()
    data = make_videos(tmp_path / "data", num_videos=4)
    for name in ("plain", "triton"):
        options = {"MODEL.KERNELS": name, "SOLVER.MAX_EPOCH": 1, "TRAIN.BATCH_SIZE": 2}
        done = run(data, tmp_path / name, PRETRAINING, SMALL, options)
        assert done.returncode == 0, done.stderr
    assert len(losses(tmp_path / "plain")) == 2
    assert losses(tmp_path / "triton") == pytest.approx(losses(tmp_path / "plain"), rel=1e-5)
