"""DATA.DECODING_BACKEND torchcodec_cuda: checks before a run, and frames that stay on the device.

The way of frames that are tensors through crops and batches is tested on the CPU, too.
"""

from __future__ import annotations

import av
import numpy as np
import pytest
import torch
from av.video.reformatter import ColorRange
from helpers import tiny_run
from helpers.videos_on_disk import numbered_frames, write_video

from slowfast_maskfeat.builders.augment import build_batch_transform
from slowfast_maskfeat.builders.data import build_loader
from slowfast_maskfeat.builders.preflight import check_named_decoder
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.videos._suited_for_gpu import check_suited
from slowfast_maskfeat.videos.decode import available_backends, decoder_versions, open_video
from slowfast_maskfeat.videos.device_check import MAX_DIFFERENCE, check_decoder
from slowfast_maskfeat.videos.video import UnsuitedDecoderError, Video

CPU = torch.device("cpu")
ON_DEVICE = {"DATA_LOADER.NUM_WORKERS": 0, "AUG.ON_DEVICE": True}
DECODER = {"DATA.DECODING_BACKEND": "torchcodec_cuda", **ON_DEVICE}
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
NEEDS_NONE = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
NEEDS_TORCHCODEC = pytest.mark.skipif(
    "absent" in available_backends()["torchcodec"], reason="torchcodec is not installed"
)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for number in range(4):  # of several sizes, so that clips are padded
        size = (48 + 16 * number, 64)
        write_video(folder / f"{number}.mp4", numbered_frames(20 + number, *size), fps=30)
    for split in ("train", "val"):
        rows = "".join(f"{folder / f'{number}.mp4'} {number % 3}\n" for number in range(4))
        (folder / f"{split}.csv").write_text(rows)
    return folder


def _config(videos, *options):
    folder = {"DATA.PATH_TO_DATA_DIR": videos}
    pairs = tiny_run.pairs(tiny_run.MODEL, tiny_run.PRETRAINING, folder, *options)
    return load_config([], pairs)


@NEEDS_NONE
def test_without_a_gpu_a_run_ends_before_work_begins(videos, tmp_path):
    done = tiny_run.run(videos, tmp_path / "run", tiny_run.PRETRAINING, DECODER)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(
        "error: DATA.DECODING_BACKEND must be 'auto' here, got 'torchcodec_cuda': this process "
        "runs on device 'cpu'; it needs a GPU"
    )
    assert "pip install torchcodec --index-url https://download.pytorch.org/whl/cu" in done.stderr
    assert not (tmp_path / "run").exists()


@NEEDS_NONE
def test_a_decoder_that_is_absent_is_an_error(videos):
    cfg = _config(videos, DECODER)
    with pytest.raises(ValueError, match=r"'torchcodec_cuda' is absent: .*pip install torchcodec"):
        check_named_decoder(cfg, torch.device("cuda"))
    check_named_decoder(_config(videos), CPU)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"DATA_LOADER.NUM_WORKERS": 2}, r"DATA_LOADER\.NUM_WORKERS must be 0 .*got 2"),
        ({"AUG.ON_DEVICE": False}, r"AUG\.ON_DEVICE must be True .*got False"),
    ],
)
def test_keys_that_it_needs(videos, options, message):
    with pytest.raises(ValueError, match=message):
        _config(videos, DECODER, options)


def test_auto_never_takes_it():
    assert "torchcodec_cuda" not in available_backends()
    assert "torchcodec_cuda" not in decoder_versions("auto")


def test_the_check_compares_with_pyav(monkeypatch):
    check_decoder("pyav")
    frames = Video.frames
    # The second of two videos: that of the decoder that is checked.
    seen: list[object] = []

    def brighter(self, indices):
        seen.append(self)
        return frames(self, indices) + (MAX_DIFFERENCE + 1) * (len(seen) > 1)

    monkeypatch.setattr(Video, "frames", brighter)
    with pytest.raises(ValueError, match="by at most 2 of 255 levels, got 3"):
        check_decoder("pyav")


def _first_batch(cfg, device=CPU):
    batch = next(build_loader(cfg, "train").epoch(0))
    transform = build_batch_transform(cfg)
    assert transform is not None
    return batch.clips, transform(batch, device, epoch=0, step=0)


@pytest.mark.parametrize(
    "options",
    [{}, {"AUG.NUM_SAMPLE": 2}, {"AUG.ENABLE": True, "DATA.SSL_COLOR_JITTER": True}],
    ids=["one", "repeated", "colors"],
)
def test_frames_that_are_tensors_give_the_same_batches(videos, options, monkeypatch):
    cfg = _config(videos, ON_DEVICE, options)
    _, expected = _first_batch(cfg)
    pixels = Video.pixels
    monkeypatch.setattr(Video, "pixels", lambda self, i: torch.from_numpy(pixels(self, i)))
    _, found = _first_batch(cfg)
    assert torch.equal(found.clips, expected.clips)
    assert torch.equal(found.mask, expected.mask)


def test_frames_of_a_device_stay_there(videos, monkeypatch):
    """On the meta device, since there is no other one on every machine."""
    cfg = _config(videos, ON_DEVICE)
    pixels = Video.pixels
    monkeypatch.setattr(
        Video, "pixels", lambda self, i: torch.from_numpy(pixels(self, i)).to("meta")
    )
    source, batch = _first_batch(cfg, torch.device("meta"))
    assert source.device.type == "meta"
    assert (batch.clips.device.type, batch.clips.shape) == ("meta", (4, 3, 4, 32, 32))
    assert batch.mask.device.type == "cpu"


def _frame(pixels: str, color_range=ColorRange.MPEG):
    frame = av.VideoFrame(64, 48, pixels)
    frame.color_range = color_range
    return frame


@pytest.mark.parametrize(
    "frame",
    [_frame("yuv420p10le"), _frame("yuv444p"), _frame("yuv420p", ColorRange.JPEG)],
    ids=["10 bits", "4:4:4", "full range"],
)
def test_only_common_videos_are_given_to_a_gpu(frame):
    check_suited("a.mp4", _frame("yuv420p"))
    with pytest.raises(UnsuitedDecoderError, match="8 bits, 4:2:0 and limited range, got yuv4"):
        check_suited("a.mp4", frame)


@NEEDS_TORCHCODEC
@NEEDS_GPU
@pytest.mark.cuda
def test_a_gpu_gives_the_frames_of_the_cpu(videos):
    check_decoder("torchcodec_cuda")
    with open_video(videos / "1.mp4", "torchcodec_cuda") as video:
        assert video.pixels([0]).device.type == "cuda"
        found = video.frames([7, 0, 19])
    with open_video(videos / "1.mp4", "pyav") as video:
        expected = video.frames([7, 0, 19])
    assert np.abs(found.astype(int) - expected).max() <= MAX_DIFFERENCE


@NEEDS_TORCHCODEC
@NEEDS_GPU
@pytest.mark.cuda
def test_a_gpu_gives_the_batches_of_the_cpu(videos):
    device = torch.device("cuda")
    _, expected = _first_batch(_config(videos, ON_DEVICE, {"DATA.DECODING_BACKEND": "pyav"}))
    source, found = _first_batch(_config(videos, DECODER), device)
    assert source.is_cuda
    assert (found.clips.cpu().int() - expected.clips.int()).abs().max() <= MAX_DIFFERENCE + 1


@NEEDS_TORCHCODEC
@NEEDS_GPU
@pytest.mark.cuda
def test_a_training_decodes_on_a_gpu(videos, tmp_path):
    done = tiny_run.run(videos, tmp_path, tiny_run.PRETRAINING, DECODER, {"NUM_GPUS": 1})
    assert done.returncode == 0, done.stderr
    assert "0 videos lost" in done.stderr
