"""Images with more than 8 bits: which value is white, in every place where files store them."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.deep_images import png_16, tiff
from PIL import Image

from slowfast_maskfeat.videos.decode import DecodeError, open_video

RAMP = np.linspace(0, 1, 24 * 40).reshape(24, 40, 1)
COLORS = np.concatenate([RAMP, RAMP[::-1], RAMP / 2], axis=2)


def _read(content: bytes, name: str = "x.tif") -> np.ndarray:
    with open_video(name, content=content) as video:
        return video.frames([0])[0]


def _values(bits: int, channels: int) -> np.ndarray:
    """All values from 0 to the largest of these bits; opaque alpha."""
    values = np.rint(COLORS * (2**bits - 1)).astype(np.uint16)
    if channels in (1, 2):
        values = values[..., :1]
    if channels in (2, 4):
        values = np.concatenate([values, np.full_like(values[..., :1], 65535)], axis=2)
    return values


def _upper_8(values: np.ndarray, bits: int) -> np.ndarray:
    channels = 3 if values.shape[2] >= 3 else 1
    return np.broadcast_to(values[..., :channels] >> (bits - 8), (24, 40, 3))


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_values_of_a_png_have_the_bits_that_hold_the_largest(bits, channels):
    values = _values(bits, channels)
    pixels = _read(png_16(values), "x.png")
    assert np.array_equal(pixels, _upper_8(values, bits))
    assert pixels.max() == 255


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("deflate", [False, True])
def test_values_of_a_tiff_have_the_bits_that_hold_the_largest(bits, channels, order, deflate):
    values = _values(bits, channels)
    pixels = _read(tiff(values, order=order, deflate=deflate))
    assert np.array_equal(pixels, _upper_8(values, bits))


@pytest.mark.parametrize(
    ("kind", "largest", "bits"),
    [
        ("u4", 1023, 10),
        ("u4", 2**32 - 1, 32),
        ("i4", 4095, 12),
        ("i4", 2**31 - 1, 31),  # the sign is not counted
        ("i2", 1023, 10),
        ("i2", 32767, 15),
    ],
)
def test_integers_of_other_types(kind, largest, bits):
    values = np.rint(RAMP * largest).astype(kind)
    pixels = _read(tiff(values))
    assert np.array_equal(pixels, np.broadcast_to(values >> (bits - 8), pixels.shape))
    assert pixels.max() == 255


@pytest.mark.parametrize(
    ("significant", "scale", "expected"),
    [
        (b"\x0c", 4095, 255),  # as they are
        (b"\x0c", 65535, 255),  # scaled to 16 bits, as PNG requires
        (b"\x0c", 900, 900 >> 4),  # a dark one of 12 bits, which is no bright one of 10
        (b"\x10", 4095, 4095 >> 8),
        (b"\x63", 4095, 255),  # invalid: 99
    ],
)
def test_the_bits_that_a_png_states(significant, scale, expected):
    gray = np.rint(RAMP * scale).astype(np.uint16)
    assert _read(png_16(gray, significant), "x.png").max() == expected
    colors = np.rint(COLORS * scale).astype(np.uint16)
    assert _read(png_16(colors, significant * 3), "x.png").max() == expected


@pytest.mark.parametrize("tag", [281, 341])  # MaxSampleValue, SMaxSampleValue
def test_the_largest_value_that_a_tiff_states(tag):
    values = np.rint(RAMP * 900).astype(np.uint16)
    assert _read(tiff(values, tags={tag: (3, 4095)})).max() == 900 >> 4
    assert _read(tiff(values, tags={tag: (3, 0)})).max() == 900 >> 2
    floats = RAMP.astype(np.float32)
    assert _read(tiff(floats, tags={281: (3, 4095)})).max() == 255  # of integers only
    assert _read(tiff(floats * 100, tags={341: (11, 1023.0)})).max() == 25


def test_12_bits_packed_in_a_tiff():
    values = np.rint(RAMP * 4095).astype(np.uint16)
    assert np.array_equal(_read(tiff(values, bits=12)), _upper_8(values, 12))
    assert _read(tiff(values // 16, bits=12)).max() == 15


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("largest", "white"), [(1, 1), (0.5, 1), (255, 255), (200, 255), (1000, 1023), (65535, 65535)]
)
def test_floats(order, largest, white):
    values = (RAMP * largest).astype(np.float32)
    pixels = _read(tiff(values, order=order))
    expected = np.broadcast_to(values * (255 / white), pixels.shape)
    assert np.abs(pixels - expected).max() <= 0.5001


@pytest.mark.parametrize("kind", ["u2", "u4", "i4", "f4"])
def test_a_black_image_is_black(kind):
    assert _read(tiff(np.zeros((24, 40, 1), kind))).max() == 0
    assert _read(png_16(np.zeros((24, 40, 3), np.uint16)), "x.png").max() == 0


def test_white_is_zero_in_a_tiff_that_says_so():
    values = np.rint(RAMP * 1023).astype(np.uint16)
    assert np.array_equal(_read(tiff(values, photometric=0)), 255 - _upper_8(values, 10))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (tiff((RAMP * 1000 - 500).astype(np.int32)), "must be >= 0, got -500"),
        (tiff((RAMP * 1000 - 500).astype(np.int16)), "must be >= 0, got -500"),
        (tiff((RAMP - 0.5).astype(np.float32)), r"must be >= 0, got -0\.5"),
        (tiff(np.where(RAMP > 0.5, np.nan, RAMP).astype(np.float32)), "finite, got 480 that"),
        (tiff(np.where(RAMP > 0.5, np.inf, RAMP).astype(np.float32)), "finite, got 480 that"),
        (tiff((RAMP * 3.7).astype(np.float32)), r"in 0\.\.1, .* got a largest of 3\.7"),
        (tiff((RAMP * 1e6).astype(np.float32)), "got a largest of 1e\\+06"),
        (tiff((RAMP * 1e-4).astype(np.float32)), r"become black: the largest is 0\.0001"),
        (png_16((RAMP * 200).astype(np.uint16), b"\x10"), "largest is 200, and white is 65536"),
        (tiff(_values(10, 3), planes=True), "separate planes of more than 8 bits"),
        (tiff(_values(10, 3), planes=True, deflate=True), "separate planes .* below 16384"),
        (tiff(COLORS.astype(np.float32)), "TIFF: unknown pixel mode"),
    ],
)
def test_what_cannot_be_scaled_is_lost_with_the_reason(content, reason):
    name = "x.png" if content.startswith(b"\x89PNG") else "x.tif"
    with pytest.raises(DecodeError, match=reason):
        _read(content, name)


def test_planes_of_16_bits_are_read_where_pillow_can():
    values = _values(16, 3)
    assert np.array_equal(_read(tiff(values, planes=True, deflate=True)), _upper_8(values, 16))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_deep_image_is_upright(channels):
    exif = Image.Exif()
    exif[0x0112] = 6
    values = _values(12, channels)
    turned = _read(png_16(values, exif=exif.tobytes().removeprefix(b"Exif\0\0")), "x.png")
    assert np.array_equal(turned, np.rot90(_upper_8(values, 12), -1))


def test_the_maximum_of_pnm_and_the_precision_of_jpeg_2000_are_white(tmp_path):
    stored = np.rint(RAMP * 4095).astype(">u2")
    assert _read(b"P5 40 24 4095\n" + stored.tobytes(), "x.pgm").max() == 255
    assert _read(b"P5 40 24 65535\n" + stored.tobytes(), "x.pgm").max() == 15
    values = np.rint(RAMP[..., 0] * 65535).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "x.jp2")
    assert np.array_equal(_read((tmp_path / "x.jp2").read_bytes(), "x.jp2")[..., 0], values >> 8)
