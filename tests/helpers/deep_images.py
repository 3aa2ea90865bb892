"""PNG and TIFF files with more than 8 bits, which Pillow cannot write."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

_PNG_COLORS = {1: 0, 2: 4, 3: 2, 4: 6}  # channels -> color type
_TIFF_TYPES = {1: "B", 3: "H", 4: "I", 11: "f"}


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """One chunk of a PNG file."""
    size, check = struct.pack(">I", len(content)), struct.pack(">I", zlib.crc32(kind + content))
    return size + kind + content + check


def png_16(values: NDArray[np.integer], significant_bits: bytes = b"", exif: bytes = b"") -> bytes:
    """A PNG of 16 bits.

    Args:
        values: (H, W, C), C = 1 gray, 2 gray and alpha, 3 RGB, 4 RGBA.
        significant_bits: Content of the chunk sBIT.
        exif: Content of the chunk eXIf.
    """
    height, width, channels = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, _PNG_COLORS[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            png_chunk(b"IHDR", header),
            png_chunk(b"sBIT", significant_bits) if significant_bits else b"",
            png_chunk(b"eXIf", exif) if exif else b"",
            png_chunk(b"IDAT", zlib.compress(rows)),
            png_chunk(b"IEND", b""),
        ]
    )


def tiff(
    values: NDArray[np.generic],
    *,
    order: str = "<",
    photometric: int | None = None,
    bits: int | None = None,
    deflate: bool = False,
    planes: bool = False,
    tags: dict[int, tuple[int, float]] | None = None,
) -> bytes:
    """A TIFF file in one strip, or one per channel.

    Args:
        values: (H, W, C), C = 1 gray, 3 RGB, 4 RGBA; its type is stored in the tags.
        order: "<" or ">", the order of the bytes.
        photometric: PhotometricInterpretation; by default black is zero, or RGB.
        bits: 12 packs gray values.
        deflate: Compress.
        planes: Store channel after channel.
        tags: Number -> (type, value) of further tags.
    """
    height, width, channels = values.shape
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    depth = bits or values.dtype.itemsize * 8
    if bits == 12:
        strips = [_packed(values)]
    else:
        stored = values.astype(values.dtype.newbyteorder(order))
        parts = stored.transpose(2, 0, 1) if planes else [stored]
        strips = [part.tobytes() for part in parts]
    if deflate:
        strips = [zlib.compress(strip) for strip in strips]
    starts = 8 + np.cumsum([0, *map(len, strips)])
    entries: dict[int, tuple[int, tuple[float, ...]]] = {
        256: (3, (width,)),
        257: (3, (height,)),
        258: (3, (depth,) * channels),
        259: (3, (8 if deflate else 1,)),
        262: (3, ((1 if channels == 1 else 2) if photometric is None else photometric,)),
        273: (4, tuple(starts[:-1].tolist())),
        277: (3, (channels,)),
        278: (3, (height,)),
        279: (4, tuple(map(len, strips))),
        284: (3, (2 if planes else 1,)),
        339: (3, (kind,) * channels),
    }
    if channels == 4:
        entries[338] = (3, (2,))
    entries |= {tag: (type_, (value,)) for tag, (type_, value) in (tags or {}).items()}
    begin = int(starts[-1])
    outside = begin + 2 + 12 * len(entries) + 4
    table, further = b"", b""
    for tag, (type_, content) in sorted(entries.items()):
        packed = struct.pack(f"{order}{len(content)}{_TIFF_TYPES[type_]}", *content)
        if len(packed) > 4:
            place = struct.pack(f"{order}I", outside + len(further))
            further += packed
        else:
            place = packed.ljust(4, b"\0")
        table += struct.pack(f"{order}HHI", tag, type_, len(content)) + place
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, begin)
    count = struct.pack(f"{order}H", len(entries))
    return b"".join([head, *strips, count, table, b"\0\0\0\0", further])


def _packed(values: NDArray[np.generic]) -> bytes:
    """Gray values with 12 bits: two of them in three bytes; the width must be even."""
    pairs = values.reshape(-1, 2).astype(np.uint32)
    both = pairs[:, 0] << 12 | pairs[:, 1]
    return np.stack([both >> 16, both >> 8, both], axis=1).astype(np.uint8).tobytes()
