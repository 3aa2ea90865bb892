"""Why a decoder does not load: the library that is missing is named, in one line."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.load_tool import tool_command

from slowfast_maskfeat.videos._load_errors import load_reason

ABSENT = "{}: cannot open shared object file: No such file or directory"
FFMPEG = "\n".join(
    f"FFmpeg version {version}:\nOSError: {ABSENT.format(f'libavutil.so.{version + 52}')}"
    for version in (8, 7, 6, 5, 4)
)


def _raised(text: str, cause: Exception | None = None) -> Exception:
    try:
        raise RuntimeError(text) from cause
    except RuntimeError as error:
        return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            _raised("Could not load libtorchcodec. Likely causes:\n" + FFMPEG),
            r"FFmpeg's shared libraries are missing: one of libavutil\.so\.60, .*libavutil\.so\.56",
        ),
        (
            _raised("Could not load:\n" + FFMPEG.replace("libavutil.so.57", "libnvrtc.so.13")),
            r"libnvrtc\.so\.13 is missing, a library of CUDA: .*both without it",
        ),
        (
            _raised("Could not load this library: /x/lib.so", OSError(ABSENT.format("libnpp.so"))),
            r"libnpp\.so is missing, a library of CUDA",
        ),
        (
            _raised(FFMPEG + "\nOSError: /x/libtorchcodec_core5.so: undefined symbol: _ZN3c10"),
            "undefined symbol: _ZN3c10: the package is built for another torch",
        ),
        (
            _raised("dlopen(/x/core7.dylib): Library not loaded: @rpath/libavutil.59.dylib"),
            r"one of libavutil\.59\.dylib is required",
        ),
        (
            _raised("Could not find module 'C:\\x\\cudart64_13.dll' (or one of its dependencies)"),
            r"cudart64_13\.dll is missing, a library of CUDA",
        ),
        (_raised("Could not find module 'C:\\x\\y.dll'"), r"y\.dll is missing$"),
        (ModuleNotFoundError("No module named 'x'"), "^ModuleNotFoundError: No module named 'x'$"),
    ],
)
def test_the_reason_names_the_library(error, reason):
    with pytest.raises(AssertionError, match=reason) as caught:
        raise AssertionError(load_reason(error))
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the loader of Linux")
def test_the_loader_of_this_system_is_understood():
    with pytest.raises(OSError, match="nvrtc") as caught:
        ctypes.CDLL("libnvrtc.so.99")
    assert load_reason(caught.value).startswith("OSError: libnvrtc.so.99 is missing, a library of")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the loader of Linux")
def test_check_install_names_the_missing_library(tmp_path: Path):
    package = tmp_path / "torchcodec"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import ctypes\n"
        "try:\n    ctypes.CDLL('libnvrtc.so.99')\n"
        "except OSError as error:\n    raise OSError('Could not load this library: x') from error\n"
    )
    tool, *words = tool_command("tools/check_install.py")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.argv = sys.argv[1:]\n"
    code += "import runpy; runpy.run_path(sys.argv[0], run_name='__main__')"
    ended = subprocess.run([tool, "-c", code, *words], capture_output=True, text=True)
    (line,) = [line for line in ended.stdout.splitlines() if line.startswith("decoder torchcodec")]
    assert "absent: OSError: libnvrtc.so.99 is missing, a library of CUDA" in line
    assert (ended.returncode, ended.stderr) == (0, "")
