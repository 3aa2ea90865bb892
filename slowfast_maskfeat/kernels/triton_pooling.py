"""The Triton kernels of `pooling.py`: a depthwise convolution of tokens and a layer norm.

A row is one token of one head of one sample, in the order (sample, head, token), a class token
first. A program has some rows and all channels, and sums in float32. Padding is half a kernel.

Arguments that the kernels share:
    tokens: (B, heads, N, width) with strides; its channels are contiguous.
    weight: (taps, width), contiguous.
    size: T, H, W of the tokens that come in, and TO, HO, WO of those that go out.
    CLS: 1 with a class token, which passes the convolution unchanged, else 0.
    K*, S*: kernel and stride along t, h, w.
    ROWS, WIDTH: rows and channels of a program, powers of 2.
"""

import triton
import triton.language as tl

# A kernel is compiled once for all of these.
_SIZES = ("num_rows", "heads", "epsilon", "T", "H", "W", "TO", "HO", "WO")


@triton.jit(do_not_specialize=_SIZES)
def pool_forward(
    tokens, weight, gamma, beta, pooled,
    stride_sample, stride_head, stride_token,
    num_rows, heads, width, epsilon, T, H, W, TO, HO, WO,
    CLS: tl.constexpr, KT: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    ST: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Write the normed rows of `pooled`, (B, heads, N', width), contiguous."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channels = tl.arange(0, WIDTH)
    is_channel = channels < width
    is_row = rows < num_rows
    number = rows % (CLS + TO * HO * WO)
    base = _base(rows // (CLS + TO * HO * WO), heads, stride_sample, stride_head)
    values = _convolve(
        tokens, weight, base, stride_token, number, is_row, channels, is_channel, width,
        T, H, W, HO, WO, CLS, KT, KH, KW, ST, SH, SW, ROWS, WIDTH,
    )  # fmt: skip
    normed, _ = _normalize(values, is_channel, width, epsilon)
    scale = tl.load(gamma + channels, mask=is_channel, other=0.0).to(tl.float32)
    shift = tl.load(beta + channels, mask=is_channel, other=0.0).to(tl.float32)
    result = normed * scale[None, :] + shift[None, :]
    places = pooled + rows.to(tl.int64)[:, None] * width + channels[None, :]
    mask = is_row[:, None] & is_channel[None, :]
    tl.store(places, result.to(pooled.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=_SIZES)
def norm_backward(
    tokens, weight, gamma, gradient, before_norm, sums,
    stride_sample, stride_head, stride_token, grad_sample, grad_head, grad_token,
    num_rows, heads, width, epsilon, T, H, W, TO, HO, WO,
    CLS: tl.constexpr, KT: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    ST: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Write the gradient before the norm, and each program's sums for `gamma` and `beta`.

    The convolution is computed again: that reads `tokens` once more, and nothing is kept for it.
    `gradient` has strides, `before_norm` is (B, heads, N', width), contiguous, and `sums` is
    (programs, taps + 2, width), of which the last two rows are written.
    """
    channels = tl.arange(0, WIDTH)
    is_channel = channels < width
    scale = tl.load(gamma + channels, mask=is_channel, other=0.0).to(tl.float32)
    sum_gamma = tl.zeros((WIDTH,), tl.float32)
    sum_beta = tl.zeros((WIDTH,), tl.float32)
    for block in range(tl.program_id(0), tl.cdiv(num_rows, ROWS), tl.num_programs(0)):
        rows = block * ROWS + tl.arange(0, ROWS)
        is_row = rows < num_rows
        mask = is_row[:, None] & is_channel[None, :]
        number = rows % (CLS + TO * HO * WO)
        group = rows // (CLS + TO * HO * WO)
        base = _base(group, heads, stride_sample, stride_head)
        values = _convolve(
            tokens, weight, base, stride_token, number, is_row, channels, is_channel, width,
            T, H, W, HO, WO, CLS, KT, KH, KW, ST, SH, SW, ROWS, WIDTH,
        )  # fmt: skip
        normed, inverse = _normalize(values, is_channel, width, epsilon)
        places = _base(group, heads, grad_sample, grad_head) + number * grad_token
        grad = tl.load(gradient + places[:, None] + channels[None, :], mask=mask, other=0.0)
        grad = grad.to(tl.float32)
        sum_gamma += tl.sum(grad * normed, 0)
        sum_beta += tl.sum(grad, 0)
        grad = grad * scale[None, :]
        along = tl.sum(grad * normed, 1) / width
        mean = tl.sum(grad, 1) / width
        grad = (grad - normed * along[:, None] - mean[:, None]) * inverse[:, None]
        places = before_norm + rows.to(tl.int64)[:, None] * width + channels[None, :]
        tl.store(places, grad.to(before_norm.dtype.element_ty), mask=mask)
    last = sums + ((tl.program_id(0) + 1) * (KT * KH * KW + 2) - 2) * width + channels
    tl.store(last, sum_gamma, mask=is_channel)
    tl.store(last + width, sum_beta, mask=is_channel)


@triton.jit(do_not_specialize=_SIZES)
def tokens_backward(
    before_norm, weight, grad_tokens,
    stride_sample, stride_head, stride_token,
    num_rows, heads, width, T, H, W, TO, HO, WO,
    CLS: tl.constexpr, KT: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    ST: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Write `grad_tokens`, (B, heads, N, width) with strides; here rows are those that came in."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channels = tl.arange(0, WIDTH)
    is_channel = channels < width
    is_row = rows < num_rows
    number = rows % (CLS + T * H * W)
    group = rows // (CLS + T * H * W)
    source = group.to(tl.int64) * (CLS + TO * HO * WO)  # first row of `before_norm`
    position = number - CLS
    t, h, w = position // (H * W), position // W % H, position % W
    is_patch = is_row & (position >= 0)
    total = tl.zeros((ROWS, WIDTH), tl.float32)
    for tap in range(KT * KH):
        # A token went to where (place + padding - tap) is a whole number of strides.
        far_t, far_h = t + KT // 2 - tap // KH, h + KH // 2 - tap % KH
        is_inside = is_patch & (far_t >= 0) & (far_t % ST == 0) & (far_t // ST < TO)
        is_inside = is_inside & (far_h >= 0) & (far_h % SH == 0) & (far_h // SH < HO)
        line = source + CLS + (far_t // ST * HO + far_h // SH) * WO
        for kw in tl.static_range(KW):
            far_w = w + KW // 2 - kw
            is_there = is_inside & (far_w >= 0) & (far_w % SW == 0) & (far_w // SW < WO)
            places = (line + far_w // SW)[:, None] * width + channels[None, :]
            mask = is_there[:, None] & is_channel[None, :]
            grad = tl.load(before_norm + places, mask=mask, other=0.0).to(tl.float32)
            factors = weight + (tap * KW + kw) * width + channels
            factor = tl.load(factors, mask=is_channel, other=0.0).to(tl.float32)
            total += grad * factor[None, :]
    if CLS:
        mask = (is_row & (number == 0))[:, None] & is_channel[None, :]
        places = source[:, None] * width + channels[None, :]
        total += tl.load(before_norm + places, mask=mask, other=0.0).to(tl.float32)
    places = _base(group, heads, stride_sample, stride_head) + number * stride_token
    mask = is_row[:, None] & is_channel[None, :]
    result = total.to(grad_tokens.dtype.element_ty)
    tl.store(grad_tokens + places[:, None] + channels[None, :], result, mask=mask)


@triton.jit(do_not_specialize=_SIZES)
def weight_backward(
    tokens, before_norm, sums,
    stride_sample, stride_head, stride_token,
    num_rows, heads, width, T, H, W, TO, HO, WO,
    CLS: tl.constexpr, KT: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    ST: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, TAPS: tl.constexpr,
):  # fmt: skip
    """Write each program's sums for the taps of one kernel row (t, h) into `sums`.

    Programs are (KT * KH, as many as `sums` has). TAPS is a power of 2, at least KW.
    """
    channels = tl.arange(0, WIDTH)
    is_channel = channels < width
    kt, kh = tl.program_id(0) // KH, tl.program_id(0) % KH
    taps = tl.arange(0, TAPS)
    total = tl.zeros((TAPS, ROWS, WIDTH), tl.float32)
    for block in range(tl.program_id(1), tl.cdiv(num_rows, ROWS), tl.num_programs(1)):
        rows = block * ROWS + tl.arange(0, ROWS)
        is_row = rows < num_rows
        position = rows % (CLS + TO * HO * WO) - CLS
        base = _base(rows // (CLS + TO * HO * WO), heads, stride_sample, stride_head)
        places = before_norm + rows.to(tl.int64)[:, None] * width + channels[None, :]
        mask = is_row[:, None] & is_channel[None, :]
        grad = tl.load(places, mask=mask, other=0.0).to(tl.float32)
        t = position // (HO * WO) * ST + kt - KT // 2
        h = position // WO % HO * SH + kh - KH // 2
        w = (position % WO * SW)[None, :] + taps[:, None] - KW // 2  # (TAPS, ROWS)
        is_inside = is_row & (position >= 0) & (t >= 0) & (t < T) & (h >= 0) & (h < H)
        is_there = is_inside[None, :] & (w >= 0) & (w < W) & (taps < KW)[:, None]
        places = base[None, :] + (CLS + ((t * H + h) * W)[None, :] + w) * stride_token
        mask = is_there[:, :, None] & is_channel[None, None, :]
        places = tokens + places[:, :, None] + channels[None, None, :]
        values = tl.load(places, mask=mask, other=0.0).to(tl.float32)
        total += values * grad[None, :, :]
    first = tl.program_id(1) * (KT * KH * KW + 2) + tl.program_id(0) * KW
    places = sums + (first + taps)[:, None] * width + channels[None, :]
    mask = (taps < KW)[:, None] & is_channel[None, :]
    tl.store(places, tl.sum(total, 1), mask=mask)


@triton.jit
def _base(group, heads, stride_sample, stride_head):
    """Offset of the first token of a head, in 64 bits."""
    return (group // heads).to(tl.int64) * stride_sample + (group % heads) * stride_head


@triton.jit
def _convolve(
    tokens, weight, base, stride_token, number, is_row, channels, is_channel, width,
    T, H, W, HO, WO,
    CLS: tl.constexpr, KT: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    ST: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """The rows `number` of their heads before the norm, (ROWS, WIDTH) in float32."""
    position = number - CLS
    first_t = position // (HO * WO) * ST - KT // 2
    first_h = position // WO % HO * SH - KH // 2
    first_w = position % WO * SW - KW // 2
    is_patch = is_row & (position >= 0)
    total = tl.zeros((ROWS, WIDTH), tl.float32)
    for tap in range(KT * KH):
        t, h = first_t + tap // KH, first_h + tap % KH
        is_inside = is_patch & (t >= 0) & (t < T) & (h >= 0) & (h < H)
        for kw in tl.static_range(KW):
            w = first_w + kw
            mask = (is_inside & (w >= 0) & (w < W))[:, None] & is_channel[None, :]
            places = base + (CLS + (t * H + h) * W + w) * stride_token
            values = tl.load(tokens + places[:, None] + channels[None, :], mask=mask, other=0.0)
            factors = weight + (tap * KW + kw) * width + channels
            factor = tl.load(factors, mask=is_channel, other=0.0).to(tl.float32)
            total += values.to(tl.float32) * factor[None, :]
    if CLS:
        mask = (is_row & (number == 0))[:, None] & is_channel[None, :]
        values = tl.load(tokens + base[:, None] + channels[None, :], mask=mask, other=0.0)
        total += values.to(tl.float32)
    return total


@triton.jit
def _normalize(values, is_channel, width, epsilon):
    """Rows of mean 0 and variance 1, and what they were multiplied by."""
    mean = tl.sum(values, 1) / width
    centered = tl.where(is_channel[None, :], values - mean[:, None], 0.0)
    inverse = 1.0 / tl.sqrt(tl.sum(centered * centered, 1) / width + epsilon)
    return centered * inverse[:, None], inverse
