"""Installs the package `slowfast_maskfeat`; the settings of the tools stand in pyproject.toml."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def read_version() -> str:
    """Reads the version without importing the package, which would need its dependencies."""
    text = (ROOT / "slowfast_maskfeat" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if found is None:
        raise ValueError("slowfast_maskfeat/__init__.py has no line __version__ = ...")
    return found.group(1)


# decord has wheels for these two platforms only and cannot be built by pip.
HAS_DECORD_WHEEL = (
    "(sys_platform == 'linux' and platform_machine == 'x86_64')"
    " or (sys_platform == 'win32' and platform_machine == 'AMD64')"
)

DOCS = ["mkdocs-material>=9.5", "mkdocstrings[python]>=0.27", "ruff>=0.6"]
WANDB = ["wandb>=0.20"]
EXPORT = ["onnx>=1.16", "onnxruntime>=1.18", "onnxscript>=0.1"]

TEST = [
    *EXPORT,
    # The checkers are here because the suite runs them too.
    "import-linter>=2.0",
    "mypy>=1.10",
    "pytest>=8.0",
    "pytest-xdist>=3.5",
    "ruff>=0.6",
    "tensorboard>=2.12",
    # Interprets the kernels on a CPU. Builds of torch for CUDA bring their own; the interpreter of
    # later ones does not take all masks.
    "triton>=3.0,<3.8; sys_platform == 'linux' and platform_machine == 'x86_64'",
    "types-PyYAML",
    "types-simplejson",
    # The pinned releases of these need Python 3.11; without them their tests are skipped.
    *(f"{name}; python_version >= '3.11'" for name in (*DOCS, *WANDB)),
]

setup(
    name="slowfast_maskfeat",
    version=read_version(),
    description="Self-supervised video models: MaskFeat pre-training, fine-tuning and evaluation",
    license="Apache-2.0",
    packages=[
        *find_packages(include=["slowfast_maskfeat", "slowfast_maskfeat.*"]),
        "slowfast_maskfeat.configs",
    ],
    package_dir={"slowfast_maskfeat.configs": "configs"},
    package_data={"slowfast_maskfeat": ["py.typed"], "slowfast_maskfeat.configs": ["**/*.yaml"]},
    entry_points={"console_scripts": ["maskfeat = slowfast_maskfeat.commands.main:main"]},
    python_requires=">=3.10",
    install_requires=[
        "torch>=2.4",
        "numpy>=1.26",
        "av>=15.0",
        f"decord>=0.6.0; {HAS_DECORD_WHEEL}",
        "fsspec>=2023.1",
        "fvcore>=0.1.5.post20221221",
        "iopath>=0.1.9",
        "matplotlib>=3.8",
        "pillow>=10.1",
        "pytorchvideo>=0.1.5",
        "pyyaml>=6.0",
        "safetensors>=0.4.3",
        "simplejson>=3.17",
        "tqdm>=4.60",
    ],
    extras_require={
        # INSTALL.md says which builds of it and of torch go together.
        "torchcodec": ["torchcodec>=0.13"],
        "tensorboard": ["tensorboard>=2.12"],
        "wandb": WANDB,
        "export": EXPORT,
        "docs": DOCS,
        "test": TEST,
        "dev": [*TEST, "pre-commit>=3.0"],
    },
)
