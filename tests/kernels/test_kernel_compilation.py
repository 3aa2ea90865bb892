"""Triton compiles the kernels for NVIDIA GPUs, which needs none; whether they are fast does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from helpers.kernel_cases import NEEDS_TRITON

ROOT = Path(__file__).parents[2]
# In a process of its own, where Triton does not interpret.
PROGRAM = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from slowfast_maskfeat.kernels import triton_hog, triton_pooling

POOLING = dict(CLS=1, KT=3, KH=3, KW=3, ST=1, SH=2, SW=2, ROWS=16, WIDTH=128, TAPS=4)
HOG = dict(BINS=9, CELL=8, HAS_WINDOW=True, TOKEN_ROWS=2, TOKEN_COLUMNS=2, CELLS=16, PIXELS=64,
           PADDED_BINS=16)
OF_TOKENS = ("tokens", "pooled", "gradient", "before_norm", "grad_tokens")
WEIGHTS = ("weight", "gamma", "beta", "sums", "thresholds", "profile")


def compile_kernel(function, constants, dtype):
    types = {name: dtype for name in OF_TOKENS} | {name: "*fp32" for name in WEIGHTS}
    types |= {"frames": "*u8", "epsilon": "fp32"}
    if function is triton_hog.hog_tokens:
        types["tokens"] = "*fp32"
    names = function.arg_names
    signature = {n: "constexpr" if n in constants else types.get(n, "i32") for n in names}
    divisible = [n for n in names if types.get(n, "").startswith("*")]
    divisible += [n for n in names if n.startswith(("stride", "grad_")) or n == "width"]
    attributes = {(names.index(n),): [["tt.divisibility", 16]] for n in divisible}
    values = {(names.index(n),): value for n, value in constants.items() if n in names}
    source = ASTSource(function, signature, values, attributes)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32))


compile_kernel(triton_hog.hog_tokens, HOG, "*u8")
for name in ("pool_forward", "norm_backward", "tokens_backward", "weight_backward"):
    compiled = compile_kernel(getattr(triton_pooling, name), POOLING, "*bf16")
    print(name, compiled.asm["ptx"].count("ld.global.v4.b32"), len(compiled.asm["cubin"]))
"""


@NEEDS_TRITON
def test_every_kernel_compiles_for_an_h100_and_reads_sixteen_bytes_at_once(tmp_path):
    environment = {
        **os.environ,
        "TRITON_INTERPRET": "0",
        "TRITON_CACHE_DIR": str(tmp_path),
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert len(rows) == 4
    for name, wide_loads, size in rows:
        assert int(wide_loads) > 0, name
        assert int(size) > 0, name
