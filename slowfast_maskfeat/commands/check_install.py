"""Check an installation: versions, devices, and every decoder on a ten-frame clip.

The exit code is 0 if the package can be used, 1 if a package is missing, no decoder works, or one
returns wrong frames.
"""

from __future__ import annotations

import importlib
import platform
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from slowfast_maskfeat.commands._options import CommandParser

NUM_FRAMES = 10
REQUIRED = (
    "numpy",
    "av",
    "fvcore",
    "iopath",
    "matplotlib",
    "pytorchvideo.layers",
    "simplejson",
    "tqdm",
)


def show(name: str, text: str) -> None:
    """Print one line of the report."""
    print(f"{name:<20} {text}")


def describe_devices() -> str:
    """Names of the CUDA devices that torch detects, or the reason why there are none."""
    import torch

    if not torch.cuda.is_available():
        built_for = torch.version.cuda
        return f"none found (torch is built for CUDA {built_for})" if built_for else "CPU build"
    count = torch.cuda.device_count()
    names = ", ".join(torch.cuda.get_device_name(index) for index in range(count))
    return f"{names} (CUDA {torch.version.cuda})"


def check_imports() -> list[str]:
    """Import the dependencies of the package and return the names of those that fail."""
    failed = []
    for name in REQUIRED:
        package = name.partition(".")[0]
        try:
            importlib.import_module(name)
            show(name, metadata.version(package))
        except Exception as error:  # a broken installation may raise anything
            show(name, f"FAILED: {type(error).__name__}: {error}")
            failed.append(name)
    return failed


def write_clip(path: Path) -> None:
    """Encode ten gray frames, each brighter than the one before, as H.264."""
    import numpy as np

    from slowfast_maskfeat.videos.write_video import write_video

    frames = (np.full((48, 64, 3), brightness(index), np.uint8) for index in range(NUM_FRAMES))
    write_video(path, frames, fps=30)


def brightness(index: int) -> int:
    """Gray value of a frame of the test clip."""
    return 20 + 20 * index


def check_decoder(path: Path, backend: str) -> str | None:
    """Decode the test clip and return the problem, or None."""
    from slowfast_maskfeat.videos._load_errors import load_reason
    from slowfast_maskfeat.videos.decode import open_video

    indices = [7, 0, 9, 3]
    try:
        with open_video(str(path), backend=backend) as video:
            if video.num_frames != NUM_FRAMES:
                return f"number of frames must be {NUM_FRAMES}, got {video.num_frames}"
            frames = video.frames(indices)
    except Exception as error:  # report it and continue with the next decoder
        return load_reason(error)
    found = [round(float(frame.mean())) for frame in frames]
    expected = [brightness(index) for index in indices]
    if any(abs(one - other) > 5 for one, other in zip(found, expected, strict=True)):
        return f"brightness of frames {indices} must be {expected}, got {found}"
    return None


def check_decoders() -> bool:
    """Try every installed decoder; returns whether one works and none fails."""
    from slowfast_maskfeat.videos.decode import available_backends

    num_working = num_wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_clip(path)
        for name, version in available_backends().items():
            if version.startswith("absent"):
                show(f"decoder {name}", version)
                continue
            problem = check_decoder(path, name)
            show(f"decoder {name}", f"{version} " + (f"FAILED: {problem}" if problem else "works"))
            num_working += problem is None
            num_wrong += problem is not None
    return num_working > 0 and num_wrong == 0


def main(arguments: Sequence[str]) -> int:
    """Print the report and return the exit code."""
    CommandParser("check-install", __doc__).parse_args(arguments)
    show("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    try:
        import torch

        import slowfast_maskfeat
    except (ImportError, OSError) as error:
        print(f"{error}; see INSTALL.md", file=sys.stderr)
        return 1
    show("slowfast_maskfeat", slowfast_maskfeat.__version__)
    show("torch", str(torch.__version__))
    show("CUDA devices", describe_devices())
    failed = check_imports()
    if failed:
        print(f"not importable: {', '.join(failed)}; see INSTALL.md", file=sys.stderr)
        return 1
    if not check_decoders():
        print("no decoder works, or one returns wrong frames; see INSTALL.md", file=sys.stderr)
        return 1
    print("The installation works.")
    return 0
