"""Trainings and forms that `gpu_report.py` measures, and how it measures a call."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from benchmark import QUICK_CONFIG, QUICK_MAE_CONFIG, ROOT, read_config
from benchmark_steps import FAST
from benchmark_steps import PLAIN as PLAIN_STEP
from fvcore.common.config import CfgNode
from gpu_records import (
    B_IBOT,
    COMPILED,
    COMPILED_KERNELS,
    EAGER,
    KERNELS,
    L_AUTOENCODER,
    L_PRETRAINING,
    PLAIN,
    S_FINETUNING,
    S_PRETRAINING,
    Record,
)

from slowfast_maskfeat.log import first_line

COMPILE = ("TRAIN.COMPILE", "model")
_TRITON = ("MODEL.KERNELS", "triton")
# Form -> that of `benchmark_steps`, and its keys.
FORMS: dict[str, tuple[str, tuple[str, ...]]] = {
    EAGER: (FAST, ()),
    PLAIN: (PLAIN_STEP, ()),
    KERNELS: (FAST, _TRITON),
    COMPILED: (FAST, COMPILE),
    COMPILED_KERNELS: (FAST, (*COMPILE, *_TRITON)),
}
_MASKED_SSL = ROOT / "configs/masked_ssl"
_TINY_MVIT = (  # kernels that are interpreted on a CPU take a minute for a larger one
    *("DATA.NUM_FRAMES", "2", "DATA.TRAIN_CROP_SIZE", "16", "MVIT.DEPTH", "1"),
    *("MVIT.EMBED_DIM", "8", "MVIT.POOL_Q_STRIDE", "[[0, 1, 1, 1]]"),
)
_TINY_MASKFEAT = (*_TINY_MVIT, "MASK.PRETRAIN_DEPTH", "[0]")
_TINY_IBOT = (
    *("DATA.TRAIN_CROP_SIZE", "32", "DATA.SSL_LOCAL_CROP_SIZE", "16", "DATA.SSL_LOCAL_VIEWS", "2"),
    *("MVIT.DEPTH", "1", "MVIT.EMBED_DIM", "24", "MVIT.NUM_HEADS", "2", "CONTRASTIVE.DIM", "16"),
    *("MVIT.PATCH_KERNEL", "[8, 8]", "MVIT.PATCH_STRIDE", "[8, 8]"),
)


@dataclass(frozen=True)
class Setting:
    """Where and how long to measure.

    Attributes:
        device: device of the steps.
        quick: tiny sizes, as a smoke test.
    """

    device: torch.device
    quick: bool = False

    @property
    def precision(self) -> str:
        """bfloat16; on a CPU, where few have fast products in it, float32."""
        return "float32" if self.device.type == "cpu" else "bfloat16"

    @property
    def pairs(self) -> list[str]:
        """Keys of all configurations."""
        return ["TRAIN.PRECISION", "float32" if self.precision == "float32" else "bf16"]

    @property
    def synchronize(self) -> Callable[[], None]:
        """Waits for the device."""
        if self.device.type == "cpu":
            return lambda: None
        return partial(torch.cuda.synchronize, self.device)

    def seconds_of(self, call: Callable[[int], object], *, window: float = 0.4) -> float:
        """Seconds of a call: the median of windows of calls that are not waited for one by one.

        Args:
            call: function of the number of the call.
            window: seconds of a window, about.
        """
        if self.quick:
            return self._window(call, 1)
        for _ in range(2):  # the first round warms up
            lasted = self._window(call, 3)
        num_calls = max(1, round(window / max(lasted, 1e-7)))
        return statistics.median(self._window(call, num_calls) for _ in range(5))

    def _window(self, call: Callable[[int], object], num_calls: int) -> float:
        self.synchronize()
        start = time.perf_counter()
        for number in range(num_calls):
            call(number)
        self.synchronize()
        return (time.perf_counter() - start) / num_calls


@dataclass(frozen=True)
class Training:
    """A training whose step is measured.

    Attributes:
        name: row of the table.
        config: YAML file.
        batch: samples of a step.
        quick_config: YAML file of tiny sizes.
        quick_pairs: keys that make it tiny.
    """

    name: str
    config: Path
    batch: int
    quick_config: Path
    quick_pairs: tuple[str, ...] = ()

    def read(self, setting: Setting, pairs: Sequence[str] = ()) -> CfgNode:
        """Configuration with further keys."""
        file, tiny = (
            (self.config, ()) if not setting.quick else (self.quick_config, self.quick_pairs)
        )
        return read_config(file, [*tiny, *setting.pairs, *pairs])

    def size(self, setting: Setting) -> int:
        """Samples of a step."""
        return 2 if setting.quick else self.batch


def _published(name: str) -> Path:
    return _MASKED_SSL / f"{name}.yaml"


S = Training(
    S_PRETRAINING, _published("k400_MVITv2_S_16x4_MaskFeat_PT"), 32, QUICK_CONFIG, _TINY_MASKFEAT
)
L = Training(
    L_PRETRAINING, _published("k400_MVITv2_L_16x4_MaskFeat_PT"), 8, QUICK_CONFIG, _TINY_MASKFEAT
)
FINETUNING = Training(
    S_FINETUNING,
    _published("k400_MVITv2_S_16x4_FT"),
    32,
    QUICK_CONFIG.with_name("finetune.yaml"),
    ("MODEL.NUM_CLASSES", "3", *_TINY_MVIT),
)
MAE = Training(L_AUTOENCODER, _published("k400_VIT_L_16x4_MAE_PT"), 64, QUICK_MAE_CONFIG)
IBOT = Training(
    B_IBOT, _published("in1k_VIT_B_iBOT_PT"), 32, _published("in1k_VIT_S_iBOT_PT"), _TINY_IBOT
)


def attempt(
    table: str, row: str, form: str, setting: str, measure: Callable[[], Mapping[str, float]]
) -> Record:
    """Record of a measurement, or of the reason why it failed: that costs this row alone."""
    try:
        return Record(table, row, form, setting, measure())
    except torch.OutOfMemoryError:
        error = "out of memory"
    except Exception as failure:  # whatever torch, its compiler or the driver raises
        error = f"{type(failure).__name__}: {first_line(failure)}"
        if "out of memory" in str(failure):
            error = f"out of memory ({error})"
    finally:
        torch.compiler.reset()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return Record(table, row, form, setting, error=error)
