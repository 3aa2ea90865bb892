"""Heat maps over a frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

_FRAME_SHARE = 0.3  # of the gray frame, where the map is dark


def heat_picture(frame: Any, values: Any) -> npt.NDArray[np.uint8]:
    """Draw values as colors from dark to bright over the gray frame, enlarged smoothly.

    Args:
        frame: (H, W, 3) uint8.
        values: (h, w) in 0..1.

    Returns:
        (H, W, 3) uint8.
    """
    from matplotlib import colormaps
    from PIL import Image

    pixels = np.asarray(frame, dtype=np.float64)
    height, width = pixels.shape[:2]
    small = Image.fromarray(np.asarray(values, dtype=np.float32))
    heat = np.asarray(small.resize((width, height), Image.Resampling.BILINEAR)).clip(0, 1)
    gray = pixels.mean(axis=2, keepdims=True) * _FRAME_SHARE
    colors = 255 * colormaps["inferno"](heat)[..., :3]
    mixed = gray * (1 - heat[..., None]) + colors
    return mixed.clip(0, 255).astype(np.uint8)
