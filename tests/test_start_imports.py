"""A training imports none of the large packages that its start does not need."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from helpers.tiny_run import FINETUNING, PRETRAINING, command, make_videos

# The first five belong to torch's compiler and its exports, and take longest.
UNUSED = {
    "torch._dynamo",
    "torch._inductor",
    "torch.distributed.fsdp",
    "torch.onnx",
    "sympy",
    "IPython",
    "matplotlib",
    "pandas",
    "scipy",
    "torch.utils.tensorboard",
    "torchvision",
    "transformers",
    "triton",
}
# Prints what is imported after the first step; figures of the last epoch import more.
CODE = """
import os, sys
from torch.optim.optimizer import register_optimizer_step_post_hook
sys.path.insert(0, os.path.dirname(sys.argv[1]))
import run_net
steps = []
register_optimizer_step_post_hook(lambda *_: steps.append(list(sys.modules)))
code = run_net.main(sys.argv[2:])
print(*steps[0])
sys.exit(code)
"""


@pytest.mark.parametrize("keys", [PRETRAINING, FINETUNING], ids=["pretraining", "finetuning"])
def test_a_training_imports_only_what_it_uses(tmp_path: Path, keys: dict[str, object]) -> None:
    """From the command line to the first step, with the multiply-adds counted."""
    data = make_videos(tmp_path, num_videos=3)
    settings = {
        "SOLVER.MAX_EPOCH": 1,
        "TRAIN.BATCH_SIZE": 3,
        "TEST.ENABLE": False,
        "LOG_MODEL_INFO": True,
    }
    python, *line = command(data, tmp_path / "output", keys, settings)
    done = subprocess.run([python, "-c", CODE, *line], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "multiply-adds per clip" in done.stderr
    imported = set(done.stdout.splitlines()[-1].split())
    assert "torch.optim" in imported
    assert sorted(UNUSED & imported) == []
