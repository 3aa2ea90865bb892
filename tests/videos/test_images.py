"""Still images as videos of one frame: orientation, odd kinds, damage."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tracemalloc
import zlib

import numpy as np
import PIL
import pytest
from helpers.deep_images import png_chunk
from PIL import Image

from slowfast_maskfeat.videos._numbered_frames import NumberedFrames
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


@pytest.mark.parametrize("ending", ["jfif", "jpe", "jp2", "avif", "ppm", "BMP", "tif", "gif.png"])
def test_images_of_every_format_of_the_field(ending, tmp_path):
    formats = {"jfif": "JPEG", "jpe": "JPEG", "gif.png": "GIF"}
    if ending == "avif" and tuple(map(int, PIL.__version__.split(".")[:2])) < (11, 3):
        pytest.skip("this Pillow has no AVIF")
    path = tmp_path / f"x.{ending}"
    Image.fromarray(PIXELS).save(path, format=formats.get(ending), quality=100)
    assert np.abs(_read(path)[0].astype(int) - PIXELS).mean() <= 2


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_several_images_in_a_file_the_first_is_read(kind, tmp_path):
    first, second = Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)
    path = tmp_path / "x.png"
    options = {"lossless": True} if kind == "WEBP" else {}
    first.save(path, format=kind, save_all=True, append_images=[second], **options)
    assert np.abs(_read(path)[0].astype(int) - PIXELS).max() <= 3


def test_an_image_starts_no_program(tmp_path, monkeypatch):
    started = tmp_path / "started"
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {started}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    Image.fromarray(PIXELS).save(tmp_path / "x.jpg", format="EPS")
    with pytest.raises(DecodeError, match="no image format that is supported"):
        _read(tmp_path / "x.jpg")
    assert not started.exists()


@pytest.mark.parametrize("kind", ["EPS", "PDF", "ICO", "ICNS", "PCX", "SGI", "DDS", "TGA"])
def test_other_formats_are_not_read(kind, tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "x.png", format=kind)
    with pytest.raises(DecodeError, match="no image format that is supported") as caught:
        _read(tmp_path / "x.png")
    assert "JPEG, PNG" in caught.value.reason


def test_the_package_that_a_heic_file_needs_is_named():
    content = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 64
    if importlib.util.find_spec("pillow_heif") is not None:
        pytest.skip("HEIC can be read here")
    with pytest.raises(DecodeError, match="requires the package pillow-heif"):
        open_video("x.heic", content=content)


def test_an_image_with_too_many_pixels_is_not_decoded(tmp_path):
    path = _write(tmp_path / "x.png", PIXELS)
    for limit in (0, 24 * 40):
        with open_video(path, max_image_pixels=limit) as video:
            assert np.array_equal(video.frames([0])[0], PIXELS)
    with pytest.raises(DecodeError, match=r"at most 959 pixels .*MAX_IMAGE_PIXELS.* got 40x24"):
        open_video(path, max_image_pixels=959)
    images = NumberedFrames(str(tmp_path / "x"), 0, ".png", first=0, num_frames=1, fps=1)
    path.rename(images.path(0))
    with (
        images.open(max_image_pixels=959) as video,
        pytest.raises(DecodeError, match="at most 959 pixels"),
    ):
        video.frames([0])


def test_an_image_that_a_resize_would_make_huge_is_lost(tmp_path):
    for size, fits in (((1, 100), True), ((100, 1), True), ((1, 101), False), ((5000, 4), False)):
        Image.new("L", size).save(tmp_path / "x.png")
        if fits:
            open_video(tmp_path / "x.png").close()
        else:
            with pytest.raises(DecodeError, match=rf"at most 100 times .* {size[0]}x{size[1]}"):
                open_video(tmp_path / "x.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "GIF"])
def test_the_header_of_a_bomb_suffices_to_refuse_it(kind, tmp_path):
    path = tmp_path / "x.png"
    Image.new("1" if kind in ("PNG", "TIFF", "BMP") else "L", (9000, 9000)).save(path, format=kind)
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError, match=r"at most 64,000,000 pixels .* got 9000x9000"):
            open_video(path)
        assert tracemalloc.get_traced_memory()[1] < 2 * path.stat().st_size + (4 << 20)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("chunk", [b"zTXt", b"iTXt", b"iCCP"])
def test_a_chunk_that_unpacks_to_much_costs_no_memory(chunk, tmp_path):
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(b"\0" * (1 << 20)) for _ in range(1 << 7)) + packer.flush()
    heads = {b"zTXt": b"key\0\0", b"iTXt": b"key\0\1\0\0\0", b"iCCP": b"name\0\0"}
    whole = _write(tmp_path / "x.png", PIXELS).read_bytes()
    after_header = 8 + 25
    content = whole[:after_header] + png_chunk(chunk, heads[chunk] + packed) + whole[after_header:]
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError, match=r"(?i)too large"):
            open_video("x.png", content=content)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a limit of memory")
@pytest.mark.parametrize(("side", "num_frames"), [(5000, 1), (1000, 64)])
def test_an_image_that_exceeds_memory_is_lost_with_the_reason(side, num_frames, tmp_path):
    Image.new("RGB", (side, side)).save(tmp_path / "x.png")
    script = f"""
import resource
from slowfast_maskfeat.videos.decode import DecodeError, open_video
with open_video({str(tmp_path / "x.png")!r}, "pyav") as video:
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (40 << 20), resource.RLIM_INFINITY))
    try:
        video.frames([0] * {num_frames})
    except DecodeError as error:
        print(error.reason)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.stdout == f"{num_frames} frames do not fit into memory\n", ended.stderr
