"""Rendering of a moving blob: random motions and looks, frames, and their H.264 encoding.

`make_motion_clips.py` explains what is drawn from which distribution, and why.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from slowfast_maskfeat.files import atomic_write

# By the angle of the velocity, in eighths of a turn; rows run downwards.
CLASS_NAMES = (
    "move_right",
    "move_down_right",
    "move_down",
    "move_down_left",
    "move_left",
    "move_up_left",
    "move_up",
    "move_up_right",
)
# The coordinates of a state, each counted in periods, so that all four live on [0, 1).
COORDINATES = ("x", "y", "angle", "log_radius")
# Random streams: a clip of one stream does not depend on the number of clips in another.
STREAMS = ("train", "val", "test")

# Radii as fractions of the frame's side; with the contour's bumps (at most 35 %) the blob is
# narrower than the frame, so that it never overlaps itself across the border.
RADIUS_RANGE = (0.13, 0.34)
_SPEED_RANGE = (0.025, 0.05)  # frame sides per frame: 1.2 to 2.4 pixels of 48
_WOBBLE_AMPLITUDE = (0.010, 0.010, 0.010, 0.020)
_WOBBLE_FREQUENCY_RANGE = (0.03, 0.10)  # cycles per frame
_NUM_HARMONICS = 3  # of the contour: 2, 3 and 4 bumps per turn
CONTOUR_BUMPS = 0.35
# Background and blob are shaded, steeply enough that neighboring pixels differ by at least two of
# 255 levels: on flat surfaces HOG would only contain compression artifacts.
_BACKGROUND_TONE_RANGE = (0.4, 0.6)
_BACKGROUND_SLOPE_RANGE = (0.5, 0.8)  # change of a color across the frame
_BACKGROUND_BEND = 0.6  # how much steeper the bright end is
_BLOB_SHADE_RANGE = (0.12, 0.2)  # change of brightness per radius
LUMA = np.array([0.299, 0.587, 0.114])
_BLOB_LUMA_LEVELS = (0.2, 0.8)
_EDGE_PIXELS = 1.5  # width of the antialiased edge

FloatArray = NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Look:
    """Static appearance of a clip, drawn independently of the class.

    Args:
        contour: (K,) complex, Fourier coefficients of the contour from harmonic 2 on.
        split: offset and bend of the line between the two tones, in radii.
        tones: (3, 3) mean colors (R, G, B) of the background and of the blob's two tones.
        heading: (2,) unit vector (y, x) of increasing brightness of the background.
        slopes: (3,) change of each color channel across the frame.
        shade: complex, direction and strength per radius of the blob's shading, which moves and
            turns with the blob.
    """

    contour: NDArray[np.complex128]
    split: NDArray[np.float64]
    tones: NDArray[np.float64]
    heading: NDArray[np.float64]
    slopes: NDArray[np.float64]
    shade: complex


@dataclasses.dataclass(frozen=True)
class Motion:
    """Motion of the blob's state, in periods (of the frame side, a turn, the size range).

    Args:
        start: (4,) state at frame 0, uniform on the torus; the order of COORDINATES.
        velocity: (4,) periods per frame; the direction of its first two entries is the class.
        wobble: (4,) amplitude of a small sinusoid on each coordinate.
        wobble_frequency: (4,) its frequency in cycles per frame.
        wobble_phase: (4,) its phase at frame 0 in cycles.
    """

    start: NDArray[np.float64]
    velocity: NDArray[np.float64]
    wobble: NDArray[np.float64]
    wobble_frequency: NDArray[np.float64]
    wobble_phase: NDArray[np.float64]

    def states(self, num_frames: int) -> NDArray[np.float64]:
        """State in each frame: (T, 4), in [0, 1)."""
        frame = np.arange(num_frames)[:, None]
        cycles = self.wobble_phase + self.wobble_frequency * frame
        moved = self.velocity * frame + self.wobble * np.sin(2 * math.pi * cycles)
        return np.mod(self.start + moved, 1.0)

    def reversed(self, num_frames: int) -> Motion:
        """Motion in a clip of `num_frames` frames when played backwards."""
        last = num_frames - 1
        return Motion(
            start=np.mod(self.start + self.velocity * last, 1.0),
            velocity=-self.velocity,
            wobble=self.wobble,
            wobble_frequency=self.wobble_frequency,
            # sin(a - b) = sin(b + pi - a): half a cycle ahead, from the other end.
            wobble_phase=np.mod(0.5 - self.wobble_phase - self.wobble_frequency * last, 1.0),
        )

    @property
    def label(self) -> int:
        """The class: the direction of the velocity, in eighths of a turn."""
        turns = math.atan2(self.velocity[1], self.velocity[0]) / (2 * math.pi)
        return round(turns * len(CLASS_NAMES)) % len(CLASS_NAMES)


def sample_motion(label: int, generator: np.random.Generator) -> Motion:
    """Draw the motion of one clip; the class determines only the direction of the velocity."""
    start = generator.random(4)
    speed = generator.uniform(*_SPEED_RANGE)
    angle = 2 * math.pi * label / len(CLASS_NAMES)
    velocity = speed * np.array([math.cos(angle), math.sin(angle), 0.0, 0.0])
    return Motion(
        start=start,
        velocity=velocity,
        wobble=np.array(_WOBBLE_AMPLITUDE) * generator.random(4),
        wobble_frequency=generator.uniform(*_WOBBLE_FREQUENCY_RANGE, size=4),
        wobble_phase=generator.random(4),
    )


def hue(color: NDArray[np.float64]) -> NDArray[np.float64]:
    """Color (..., 3) without its brightness."""
    return np.asarray(color - (color @ LUMA)[..., None])


def sample_look(generator: np.random.Generator) -> Look:
    """Draw shape, colors and background of one clip, independently of the class."""
    weight = generator.dirichlet(np.ones(_NUM_HARMONICS))  # bumps sum to at most CONTOUR_BUMPS
    phase = np.exp(2j * math.pi * generator.random(_NUM_HARMONICS))
    contour = CONTOUR_BUMPS * generator.uniform(0.5, 1.0) * weight * phase
    # The blob's tones differ in brightness (in random order), so that their edge survives chroma
    # subsampling.
    luma = generator.permutation(_BLOB_LUMA_LEVELS) + generator.uniform(-0.06, 0.06, size=2)
    blob_tones = luma[:, None] + 0.5 * hue(generator.random((2, 3)))
    background_tone = generator.uniform(*_BACKGROUND_TONE_RANGE, size=(1, 3))
    tones = np.concatenate([background_tone, np.clip(blob_tones, 0.03, 0.97)])
    angle, light = 2 * math.pi * generator.random(2)
    return Look(
        contour=contour,
        split=generator.uniform(-0.25, 0.25, size=2),
        tones=tones,
        heading=np.array([np.sin(angle), np.cos(angle)]),
        slopes=generator.uniform(*_BACKGROUND_SLOPE_RANGE, size=3),
        shade=complex(np.exp(1j * light) * generator.uniform(*_BLOB_SHADE_RANGE)),
    )


def sample_clip(seed: int, stream: str, index: int) -> tuple[Motion, Look]:
    """Draw the parameters of clip `index` of a stream; its class is `index` modulo 8."""
    generator = np.random.default_rng([seed, STREAMS.index(stream), index])
    look = sample_look(generator)
    return sample_motion(index % len(CLASS_NAMES), generator), look


def radius_of(log_radius: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map the state's last coordinate in [0, 1) to a radius in frame sides."""
    low, high = RADIUS_RANGE
    return low * (high / low) ** log_radius


def _smoothstep(distance: FloatArray) -> FloatArray:
    """Convert a signed distance in pixels, negative inside, to a coverage in [0, 1]."""
    x = np.clip(0.5 - distance / np.float32(_EDGE_PIXELS), 0.0, 1.0)
    return x * x * (3 - 2 * x)


def render_blob(
    states: NDArray[np.float64], look: Look, size: int
) -> tuple[FloatArray, FloatArray]:
    """Render the blob: its coverage (T, H, W) in [0, 1] and color (T, 3, H, W)."""
    pixel = (np.arange(size) + 0.5) / size
    # Offsets to the nearest copy of the blob on the torus, in [-0.5, 0.5) frame sides.
    dx = np.mod(pixel[None] - states[:, :1] + 0.5, 1.0) - 0.5  # (T, W)
    dy = np.mod(pixel[None] - states[:, 1:2] + 0.5, 1.0) - 0.5  # (T, H)
    offset = (dx[:, None, :] + 1j * dy[:, :, None]).astype(np.complex64)  # (T, H, W)
    turn = np.exp(-2j * math.pi * states[:, 2])
    radius = radius_of(states[:, 3])
    local = offset * (turn / radius).astype(np.complex64)[:, None, None]  # the blob's own frame
    distance = np.abs(local)
    direction = local / np.maximum(distance, np.float32(1e-6))

    # Contour r(phi) = 1 + Re sum c_k e^(i k phi) and its derivative, by powers of e^(i phi).
    contour = np.ones_like(distance)
    slope = np.zeros_like(distance)
    power = direction
    for order, coefficient in enumerate(look.contour, start=2):
        power = power * direction
        term = power * np.complex64(coefficient)
        contour += term.real
        slope -= np.float32(order) * term.imag
    # First-order distance to the curve distance = r(phi), in pixels.
    pixels_per_radius = (radius * size).astype(np.float32)[:, None, None]
    steepness = np.sqrt(1 + (slope / np.maximum(distance, np.float32(0.3))) ** 2)
    coverage = _smoothstep((distance - contour) / steepness * pixels_per_radius)

    shift, bend = (np.float32(value) for value in look.split)
    second = _smoothstep((local.real - shift - bend * local.imag**2) * pixels_per_radius)
    first_tone, second_tone = look.tones[1:].astype(np.float32)[:, :, None, None]  # (3, 1, 1)
    shade = (local * np.complex64(look.shade.conjugate())).real
    return coverage, first_tone + second[:, None] * (second_tone - first_tone) + shade[:, None]


def render_background(look: Look, size: int) -> FloatArray:
    """Render the shaded background: (3, H, W)."""
    pixel = (np.arange(size) + 0.5) / size - 0.5
    along = look.heading[0] * pixel[:, None] + look.heading[1] * pixel  # (H, W)
    along = along + _BACKGROUND_BEND * along**2
    field = look.tones[0][:, None, None] + look.slopes[:, None, None] * along
    return np.asarray(field, dtype=np.float32)


def render_frames(motion: Motion, look: Look, num_frames: int, size: int) -> NDArray[np.uint8]:
    """Render one clip.

    Returns:
        (T, H, W, 3) uint8, RGB.
    """
    coverage, blob = render_blob(motion.states(num_frames), look, size)
    background = render_background(look, size)
    picture = background + coverage[:, None] * (blob - background)
    pixels = np.clip(picture * np.float32(255) + np.float32(0.5), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))


def write_video(path: Path, frames: NDArray[np.uint8], fps: int, crf: int) -> None:
    """Encode RGB frames (T, H, W, 3) as H.264 in MP4, atomically."""
    options = {"fflags": "+bitexact"}
    with (
        atomic_write(path, shared=True) as part,
        av.open(str(part.absolute()), mode="w", format="mp4", options=options) as file,
    ):
        stream = file.add_stream("libx264", rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        # x264's macroblock tree encodes the same frames differently on some processors.
        stream.options = {"crf": str(crf), "preset": "veryfast", "x264-params": "mbtree=0"}
        stream.codec_context.thread_count = 1  # processes run in parallel instead
        for picture in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode(None))
