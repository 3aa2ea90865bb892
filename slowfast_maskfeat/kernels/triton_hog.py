"""The Triton kernel of `hog.py`: histograms of oriented gradients in one pass over the pixels."""

import triton
import triton.language as tl


@triton.jit
def hog_tokens(
    frames, thresholds, profile, tokens,
    stride_sample, stride_frame, stride_channel, stride_row, stride_column,
    num_cells, T, C, rows, columns, window,
    BINS: tl.constexpr, CELL: tl.constexpr, HAS_WINDOW: tl.constexpr,
    TOKEN_ROWS: tl.constexpr, TOKEN_COLUMNS: tl.constexpr,
    CELLS: tl.constexpr, PIXELS: tl.constexpr, PADDED_BINS: tl.constexpr,
):  # fmt: skip
    """Write the histograms of CELLS cells, in the order (sample, frame, channel, row, column).

    Args:
        frames: (B, T, C, H, W) of any dtype, with strides.
        thresholds: (BINS,), see `bin_thresholds` of `targets/hog.py`.
        profile: (window,) of the Gaussian windows; not read without HAS_WINDOW.
        tokens: (B, T, h, w, C, BINS, TOKEN_ROWS, TOKEN_COLUMNS) float32, contiguous.
        stride_sample, stride_frame, stride_channel, stride_row, stride_column: of `frames`.
        num_cells: of all frames and channels.
        T, C: frames and channels.
        rows, columns: cells of a frame.
        window: pixels per side of a Gaussian window.
        BINS: orientations.
        CELL: pixels per side of a cell.
        HAS_WINDOW: whether the magnitudes are weighted by windows.
        TOKEN_ROWS, TOKEN_COLUMNS: cells of a token.
        CELLS, PIXELS, PADDED_BINS: powers of 2; the latter two at least CELL * CELL and BINS.
    """
    cells = tl.program_id(0) * CELLS + tl.arange(0, CELLS)
    is_cell = cells < num_cells
    column, row = cells % columns, cells // columns % rows
    plane = cells // (columns * rows)
    channel, frame, sample = plane % C, plane // C % T, plane // (C * T)
    pixels = tl.arange(0, PIXELS)
    y = row[:, None] * CELL + (pixels // CELL)[None, :]
    x = column[:, None] * CELL + (pixels % CELL)[None, :]
    start = sample.to(tl.int64) * stride_sample + frame.to(tl.int64) * stride_frame
    start = start + channel.to(tl.int64) * stride_channel
    mask = is_cell[:, None] & (pixels < CELL * CELL)[None, :]
    across, down = _sobel(
        frames + start[:, None], y, x, rows * CELL, columns * CELL, stride_row, stride_column, mask
    )
    magnitude = tl.sqrt_rn(across * across + down * down)
    if HAS_WINDOW:
        side = tl.load(profile + y % window, mask=mask, other=0.0)
        magnitude = magnitude * (side * tl.load(profile + x % window, mask=mask, other=0.0))
    # 0 / 0 is above no threshold, and its magnitude is 0.
    ratio = tl.div_rn(across, down)
    index = tl.zeros((CELLS, PIXELS), tl.int32)
    for number in range(BINS):
        index += (ratio >= tl.load(thresholds + number)).to(tl.int32)
    bins = tl.arange(0, PADDED_BINS)
    histogram = tl.zeros((CELLS, PADDED_BINS), tl.float32)
    for number in range(BINS + 1):
        # The first and the last bin are the same, and bin 0 is in the middle.
        total = tl.sum(tl.where(index == number, magnitude, 0.0), 1)
        is_bin = bins == (number + BINS - (BINS + 1) // 2) % BINS
        histogram += tl.where(is_bin[None, :], total[:, None], 0.0)
    length = tl.sqrt_rn(tl.sum(histogram * histogram, 1))
    histogram = tl.div_rn(histogram, tl.maximum(length, 1e-12)[:, None])
    token = (sample * T + frame) * (rows // TOKEN_ROWS) + row // TOKEN_ROWS
    token = token * (columns // TOKEN_COLUMNS) + column // TOKEN_COLUMNS
    first = token.to(tl.int64) * (C * BINS) + channel * BINS
    places = (first[:, None] + bins[None, :]) * (TOKEN_ROWS * TOKEN_COLUMNS)
    places = places + (row % TOKEN_ROWS * TOKEN_COLUMNS + column % TOKEN_COLUMNS)[:, None]
    tl.store(tokens + places, histogram, mask=is_cell[:, None] & (bins < BINS)[None, :])


@triton.jit
def _sobel(start, y, x, height, width, stride_row, stride_column, mask):
    """Sobel gradients along x and y, with reflection at the edges."""
    top = start + tl.abs(y - 1) * stride_row
    center = start + y * stride_row
    bottom = start + (height - 1 - tl.abs(height - 2 - y)) * stride_row
    left = tl.abs(x - 1) * stride_column
    middle = x * stride_column
    right = (width - 1 - tl.abs(width - 2 - x)) * stride_column
    top_left, top_right = _pixel(top + left, mask), _pixel(top + right, mask)
    bottom_left, bottom_right = _pixel(bottom + left, mask), _pixel(bottom + right, mask)
    across = (top_left - top_right) + 2 * (
        _pixel(center + left, mask) - _pixel(center + right, mask)
    )
    across = across + (bottom_left - bottom_right)
    down = (top_left + 2 * _pixel(top + middle, mask)) + top_right
    down = down - ((bottom_left + 2 * _pixel(bottom + middle, mask)) + bottom_right)
    return across, down


@triton.jit
def _pixel(place, mask):
    return tl.load(place, mask=mask, other=0).to(tl.float32)
