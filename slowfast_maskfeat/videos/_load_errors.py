"""Why a package with compiled parts does not load, from the errors of the system's loader."""

from __future__ import annotations

import re

from slowfast_maskfeat.log import first_line

# Messages of the loaders of Linux, macOS and Windows for a library that they do not find.
_MISSING = re.compile(
    r"([^\s:]+): cannot open shared object file"
    r"|Library not loaded: (\S+)"
    r"|Could not find module '([^']+)'"
)
# A library that was found, but is another version of it.
_MISMATCHED = re.compile(r"undefined symbol: \S+|Symbol not found: \S+|The specified procedure")
_FFMPEG = re.compile(r"(lib)?(av(util|codec|format|device|filter)|sw(scale|resample))\b")
_CUDA = re.compile(r"lib(nvrtc|cudart|c10_cuda|torch_cuda|npp|cu|nv)|(nvrtc|cudart|c10_cuda)")


def load_reason(error: BaseException) -> str:
    """The reason why an import failed, in one line that names the missing libraries.

    torchcodec tries one build of its library for each version of FFmpeg, and its message contains
    the error of each of them. What else is missing or mismatched is the reason; FFmpeg is, if
    nothing else is.
    """
    texts = []
    current: BaseException | None = error
    while current is not None:
        texts.append(str(current))
        current = current.__cause__ or current.__context__
    text = "\n".join(texts)
    found = [name for match in _MISSING.finditer(text) for name in match.groups() if name]
    names = [re.split(r"[/\\]", name)[-1] for name in dict.fromkeys(found)]
    others = [name for name in dict.fromkeys(names) if not _FFMPEG.match(name)]
    mismatched = _MISMATCHED.search(text)
    if others:
        reason = f"{', '.join(others)} is missing"
        if any(map(_CUDA.match, others)):
            reason += (
                ", a library of CUDA: install torch and this package both for one release of CUDA, "
                "or both without it (INSTALL.md)"
            )
    elif mismatched:
        reason = f"{mismatched[0]}: the package is built for another torch (INSTALL.md)"
    elif names:
        reason = (
            f"FFmpeg's shared libraries are missing: one of {', '.join(names)} is required "
            "(INSTALL.md)"
        )
    else:
        reason = first_line(error)
    return f"{type(error).__name__}: {reason}"
