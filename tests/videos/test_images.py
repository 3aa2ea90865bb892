"""Still images as videos of one frame: orientation, odd kinds, damage."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from slowfast_maskfeat.videos.decode import DecodeError, decoder_versions, open_video

# Rows and columns that tell each orientation from every other.
PIXELS = np.zeros((24, 40, 3), np.uint8)
PIXELS[:8] = [200, 30, 40]
PIXELS[:, :10] += np.array([10, 90, 20], np.uint8)
# EXIF orientation -> what a camera that says so has stored of an upright picture.
STORED = {
    1: PIXELS,
    2: PIXELS[:, ::-1],
    3: PIXELS[::-1, ::-1],
    4: PIXELS[::-1],
    5: PIXELS.transpose(1, 0, 2),
    6: PIXELS.transpose(1, 0, 2)[::-1],
    7: PIXELS.transpose(1, 0, 2)[::-1, ::-1],
    8: PIXELS.transpose(1, 0, 2)[:, ::-1],
}


def _write(path, pixels, **options):
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, **options)
    return path


def _read(path, backend="auto"):
    with open_video(path, backend) as video:
        assert (video.num_frames, video.timestamps.tolist()) == (1, [0.0])
        return video.frames([0, 0, 0])


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("ending", ["jpg", "JPEG", "png", "webp"])
def test_images_are_upright(orientation, ending, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": 0} if ending[0] in "jJ" else {"lossless": True}
    path = _write(tmp_path / f"x.{ending}", STORED[orientation], exif=exif, **options)
    frames = _read(path)
    assert frames.dtype == np.uint8
    assert frames.shape == (3, 24, 40, 3)
    assert np.abs(frames.astype(int) - PIXELS).max() <= 3


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("keep", [6, 9, 12, 20])
def test_a_broken_orientation_does_not_cost_the_image(keep, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a camera"
    whole = exif.tobytes()
    _write(tmp_path / "x.png", PIXELS, exif=whole[:keep] + b"\xff" * (len(whole) - keep))
    assert sorted(_read(tmp_path / "x.png").shape) == [3, 3, 24, 40]


@pytest.mark.parametrize("backend", ["pyav", "auto"])
def test_images_do_not_depend_on_the_decoder_of_videos(backend, tmp_path):
    path = _write(tmp_path / "x.png", PIXELS)
    assert np.array_equal(_read(path, backend)[0], PIXELS)
    assert decoder_versions(backend)["pillow"]


def test_odd_kinds_of_images_become_rgb(tmp_path):
    image = Image.fromarray(PIXELS)
    image.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100, subsampling=0)
    image.save(tmp_path / "png_named.JPEG", format="png")
    image.quantize(8).save(tmp_path / "palette.png")
    image.convert("RGBA").save(tmp_path / "alpha.png")
    for name in ("cmyk.jpg", "png_named.JPEG", "palette.png", "alpha.png"):
        assert np.abs(_read(tmp_path / name)[0].astype(int) - PIXELS).max() <= 6, name
    gray = np.arange(24 * 40).reshape(24, 40) % 256
    for name, values in (("8.png", gray.astype(np.uint8)), ("16.png", (gray * 257).astype("u2"))):
        Image.fromarray(values).save(tmp_path / name)
        assert np.array_equal(_read(tmp_path / name)[0], np.repeat(gray[..., None], 3, -1)), name


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda whole: b"", "is empty"),
        (lambda whole: whole[: len(whole) // 2], "cannot be decoded: .*truncated"),
        (lambda whole: b"this is no image", "no image format"),
        (lambda whole: whole[:20], "cannot be opened as an image"),
        (None, "no such file"),
    ],
)
def test_a_damaged_image_is_lost_with_the_reason(content, reason, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = _write(tmp_path / "x.jpg", noise)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content(path.read_bytes()))
    with pytest.raises(DecodeError, match=reason) as caught, open_video(path) as video:
        video.frames([0])
    assert caught.value.path == str(path)
    assert "\n" not in caught.value.reason
