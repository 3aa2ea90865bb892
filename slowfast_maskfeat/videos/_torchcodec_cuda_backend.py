"""Decode with torchcodec on the GPU of this process; frames stay there.

torchcodec raises errors of its own only when frames are requested; `videos.device_check` tries it
before a run.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from slowfast_maskfeat.videos._remote_file import RemoteFile
from slowfast_maskfeat.videos._suited_for_gpu import check_suited
from slowfast_maskfeat.videos._torchcodec_backend import TorchCodecVideo, open_decoder
from slowfast_maskfeat.videos.video import Video

if not torch.cuda.is_available():
    raise ImportError(f"torch {torch.__version__} finds no CUDA device", name="torchcodec_cuda")


def open_file(
    path: str, *, content: bytes | RemoteFile | None, num_threads: int, read_timeout: float
) -> Video:
    """Open a file; see `open_video`. The number of threads has no meaning."""
    decoder, table = open_decoder(
        path,
        content=content,
        num_threads=1,
        read_timeout=read_timeout,
        device=f"cuda:{torch.cuda.current_device()}",
        check=check_suited,
    )
    return _DeviceVideo(path, decoder, table)


class _DeviceVideo(TorchCodecVideo):
    """A video that torchcodec decodes on a GPU."""

    backend = "torchcodec_cuda"

    def _decode(self, indices: NDArray[np.integer]) -> Any:
        return self._tensor(indices)

    def _to_host(self, pixels: Any) -> NDArray[np.uint8]:
        return pixels.cpu().numpy()
