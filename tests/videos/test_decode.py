"""Every decoder on every kind of file: the right frames, or what docs/decoders.md says."""

from __future__ import annotations

import gc
import os
import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest
from helpers.decoder_outcomes import (
    ERROR,
    EXACT,
    OUTCOMES,
    check_exact,
    outcome_of,
    single,
)
from helpers.kinds_of_files import FILES, NUM_FRAMES, MissingEncoderError, make_file
from helpers.load_tool import load_tool
from helpers.videos_on_disk import read_numbers, write_video

from slowfast_maskfeat.videos.decode import DecodeError, available_backends, open_video
from slowfast_maskfeat.videos.video import reason_of

DECODERS = ("torchcodec", "pyav", "decord")
DOCUMENTED = load_tool("tools/decoder_table.py").read_table(
    (Path(__file__).parents[2] / "docs" / "decoders.md").read_text(encoding="utf-8")
)
# Of the wrong ones, where it is always the same: frame asked for -> frame shown.
WRONG_ANSWERS = {
    ("h264-open-gop", "decord"): {33: 36},
    ("hevc-open-gop", "decord"): {36: 39},
    ("mpeg4-b-frames-avi", "decord"): {39: 29},
}
TABLE = [
    pytest.param(name, decoder, id=f"{name}-{decoder}-{DOCUMENTED[name][decoder]}")
    for name in DOCUMENTED
    for decoder in DECODERS
]


def test_the_documented_table_has_every_kind_of_file():
    assert list(DOCUMENTED) == list(FILES)
    assert {outcome for row in DOCUMENTED.values() for outcome in row.values()} == set(OUTCOMES)


def _need(decoder: str) -> None:
    version = available_backends()[decoder]
    if version.startswith("absent"):
        pytest.skip(f"{decoder} is {version}")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Path of a kind of file, made once."""
    folder, paths = tmp_path_factory.mktemp("videos"), {}

    def path_of(name: str) -> Path:
        if name not in paths:
            try:
                paths[name] = make_file(folder, name)
            except MissingEncoderError as error:
                pytest.skip(f"this FFmpeg has no encoder {error}")
        return paths[name]

    return path_of


@pytest.mark.parametrize(("name", "decoder"), TABLE)
def test_frames(name, decoder, made):
    _need(decoder)
    path, documented = made(name), DOCUMENTED[name][decoder]
    if documented == EXACT:
        check_exact(path, name, decoder)
    else:
        assert outcome_of(path, name, decoder) == documented, "run tools/decoder_table.py"
    if documented == ERROR:
        with pytest.raises(DecodeError) as caught:
            open_video(path, decoder)
        assert caught.value.path == str(path)
        assert caught.value.reason
    for index, shown in WRONG_ANSWERS.get((name, decoder), {}).items():
        assert single(path, decoder, index) == shown


def test_auto_takes_the_first_that_loads(made):
    available = [name for name, note in available_backends().items() if "absent" not in note]
    assert list(available_backends()) == ["torchcodec", "pyav", "decord"]
    with open_video(made("h264"), "auto") as video:
        assert video.backend == available[0]


@pytest.mark.parametrize("name", FILES)
def test_auto_reads_every_file_as_pyav_does(name, made):
    documented = DOCUMENTED[name]["pyav"]
    assert outcome_of(made(name), name, "auto") == documented
    if documented == EXACT:
        check_exact(made(name), name, "auto")


@pytest.mark.parametrize("decoder", DECODERS)
def test_times_and_rate(decoder, made):
    _need(decoder)
    with open_video(made("h264-b-frames"), decoder) as video:
        assert video.fps == pytest.approx(30, rel=1e-6)
        assert video.duration == pytest.approx(2.0, rel=1e-6)
    with open_video(made("variable-rate"), decoder) as video:
        assert video.duration == pytest.approx(4.0, abs=0.11)
        assert video.fps == pytest.approx(15.0, rel=0.03)


@pytest.mark.parametrize("decoder", DECODERS)
def test_wrong_frame_numbers_and_a_closed_video_are_refused(decoder, made):
    _need(decoder)
    video = open_video(made("h264"), decoder)
    for indices in ([-1], [60], [], [[1]], [1.5]):
        with pytest.raises(ValueError, match="indices must be"):
            video.frames(indices)
    video.close()
    video.close()
    with pytest.raises(ValueError, match="closed"):
        video.frames([0])


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg4", "libvpx-vp9"])
def test_leaving_out_frames_that_are_not_wanted_changes_no_pixel(codec, num_threads, tmp_path):
    random = np.random.default_rng(0)
    still = random.integers(0, 256, (80, 200, 3), np.uint8)
    frames = np.stack([still[2 * (i % 8) :][:64, 3 * i : 3 * i + 96] for i in range(34)])
    bframes = 0 if codec == "libvpx-vp9" else 3
    path = write_video(tmp_path / "scene.mp4", frames, codec=codec, gop=16, bframes=bframes)
    with av.open(str(path)) as container:
        plain = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    with open_video(path, "pyav", num_threads=num_threads) as video:
        for wanted in ([0], [33], [15, 16, 17], [2, 5, 8, 30], list(range(0, 34, 4)), range(34)):
            assert np.array_equal(video.frames(wanted), plain[list(wanted)])


def test_what_is_no_video_file_is_told(tmp_path, made):
    with pytest.raises(DecodeError, match="no such file"):
        open_video(tmp_path / "absent.mp4")
    with pytest.raises(DecodeError, match="is a folder"):
        open_video(tmp_path)
    with pytest.raises(DecodeError, match="empty"):
        open_video(made("zero-bytes"))


def test_a_file_of_sound_alone_is_told(tmp_path):
    path = tmp_path / "tone.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(DecodeError, match="no video stream"):
        open_video(path, "pyav")


def test_a_damaged_frame_is_an_error_and_the_others_decode(tmp_path, made):
    path = tmp_path / "damaged.mp4"
    whole = bytearray(made("h264").read_bytes())
    with av.open(str(made("h264"))) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    begin, size = packets[24]  # the third key frame: its GOP is lost
    whole[begin : begin + size] = bytes(size)
    path.write_bytes(whole)
    with open_video(path, "pyav") as video:
        assert video.num_frames == NUM_FRAMES
        kept = [0, 5, 23, 36, 59]
        assert read_numbers(video.frames(kept)) == kept
        with pytest.raises(DecodeError, match=r"frame 24 of 60 \(at 0.800 s\)") as caught:
            video.frames([3, 24])
        assert caught.value.path == str(path)


def test_packets_without_a_picture_cost_no_frame_that_is_there(made):
    with open_video(made("over-counted"), "pyav") as video:
        assert video.num_frames == NUM_FRAMES + 6  # what the file says
        assert read_numbers(video.frames(range(NUM_FRAMES))) == list(range(NUM_FRAMES))
        with pytest.raises(DecodeError, match=r"frame 60 of 66 .*1 of 2 requested"):
            video.frames([59, 60])


def test_an_unknown_or_absent_decoder_names_the_available(made):
    with pytest.raises(ValueError, match=r"pyav.*, got 'opencv'"):
        open_video(made("h264"), "opencv")
    for name, note in available_backends().items():
        if note.startswith("absent"):
            with pytest.raises(ValueError, match=rf"{name}.*absent.*available: .*pyav"):
                open_video(made("h264"), name)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("colorspace", ["bt709", "smpte170m"])
def test_colors_agree_with_the_encoded_ones(decoder, colorspace, tmp_path):
    _need(decoder)
    height, width = 64, 96
    colors = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200], [120, 160, 60]], np.uint8)
    frame = np.repeat(np.repeat(colors.reshape(2, 2, 3), height // 2, 0), width // 2, 1)
    path = tmp_path / "colors.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "10"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        code = {"bt709": 1, "smpte170m": 6}[colorspace]
        stream.codec_context.colorspace, stream.codec_context.color_range = code, 1
        for _ in range(3):
            source = av.VideoFrame.from_ndarray(frame, format="rgb24")
            source = source.reformat(
                format="yuv420p",
                dst_colorspace={"bt709": "itu709", "smpte170m": "itu601"}[colorspace],
            )
            source.colorspace, source.color_range = code, 1
            container.mux(stream.encode(source))
        container.mux(stream.encode(None))
    with open_video(path, decoder) as video:
        shown = video.frames([1])[0].astype(int)
    for row, top in enumerate((8, height // 2 + 8)):
        for column, left in enumerate((8, width // 2 + 8)):
            patch = shown[top : top + 16, left : left + 32].mean((0, 1))
            assert np.abs(patch - colors.reshape(2, 2, 3)[row, column]).max() < 6


@pytest.mark.parametrize("decoder", DECODERS)
def test_many_openings_leak_neither_files_nor_memory(decoder, made):
    _need(decoder)
    path = made("h264-b-frames")

    def read() -> None:
        with open_video(path, decoder) as video:
            video.frames([3, 30])

    for _ in range(3):
        read()
    gc.disable()  # what needs the collector is a leak for a worker
    try:
        files = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        resident = _resident_bytes()
        tracemalloc.start()
        for _ in range(60):
            read()
        traced = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        if files:
            assert len(os.listdir("/proc/self/fd")) <= files
        assert traced < 1 << 20
        assert _resident_bytes() - resident < 25 << 20
    finally:
        gc.enable()


def _resident_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def test_opened_videos_that_fail_release_their_files(made):
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("counts open files through /proc")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        for name in ("truncated-before-index", "text-named-mp4"):
            with pytest.raises(DecodeError):
                open_video(made(name), "pyav")
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_message_of_decord_has_neither_time_nor_source_line():
    text = "[21:34:08] /github/workspace/src/video/video_reader.cc:430: [x.mp4]Unable to handle EOF"
    assert reason_of(RuntimeError(text)) == "[x.mp4]Unable to handle EOF"
    assert reason_of(RuntimeError("[a] b:3: c")) == "[a] b:3: c"
