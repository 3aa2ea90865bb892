"""Features of videos, windows and frames, as Python objects and from the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.load_tool import run_tool
from helpers.tiny_run import (
    FINETUNING,
    MODEL,
    PRETRAINING,
    last_checkpoint,
    make_videos,
    pairs,
    run,
)
from helpers.videos_on_disk import numbered_frames, write_video

from slowfast_maskfeat import Embedder, build_model, from_pretrained, load_config, open_video
from slowfast_maskfeat.augment import normalize
from slowfast_maskfeat.builders.data import build_test_views, build_validation_view
from slowfast_maskfeat.datasets.excerpt_list import windows
from slowfast_maskfeat.features import load_features
from slowfast_maskfeat.videos.decode import DecodeError
from slowfast_maskfeat.videos.excerpt import Excerpt

CLIP_SECONDS = 4 * 2 / 30  # DATA.NUM_FRAMES, SAMPLING_RATE, TARGET_FPS of MODEL
CLASS_TOKEN = {"MVIT.CLS_EMBED_ON": True, "MVIT.USE_MEAN_POOLING": False}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = make_videos(tmp_path_factory.mktemp("data"))
    write_video(folder / "long.mp4", numbered_frames(90), fps=30)
    return folder


@pytest.fixture(scope="module")
def pretrained(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("pretrained")
    done = run(data, output, PRETRAINING, {"SOLVER.MAX_EPOCH": 1})
    assert done.returncode == 0, done.stderr
    return last_checkpoint(output)


def classifier(**changes: object) -> torch.nn.Module:
    """Random weights with their configuration; two underscores stand for a dot."""
    options = {key.replace("__", "."): value for key, value in changes.items()}
    cfg = load_config([], pairs(MODEL, FINETUNING, options))
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    model.cfg = cfg
    return model


@pytest.fixture(scope="module")
def model():
    return classifier(**CLASS_TOKEN)


def pixels(cfg, views, video) -> torch.Tensor:
    return normalize(views(video).permute(0, 4, 1, 2, 3), cfg.DATA.MEAN, cfg.DATA.STD)


@torch.no_grad()
def test_a_whole_video_has_the_features_of_all_views_that_its_head_classifies(data, model):
    found = Embedder(model)(data / "long.mp4")
    views = build_test_views(model.cfg)
    with open_video(str(data / "long.mp4")) as video:
        clips, times = pixels(model.cfg, views, video), views.times(video)
    assert found.features.shape == (2, 8)
    torch.testing.assert_close(model.head(found.features), model(clips))
    assert found.times.equal(times)
    assert found.path == str(data / "long.mp4")
    assert found.reason == ""


@torch.no_grad()
def test_each_window_has_the_features_of_its_center_clip(data, model):
    path = str(data / "long.mp4")
    found = Embedder(model)(path, window=0.5, stride=0.4)
    views = build_validation_view(model.cfg)
    with open_video(path) as video:
        spans = windows(video.duration, 0.5, 0.4)
        frames, fps = video.frames(range(video.num_frames)), video.fps
        for number, span in enumerate(spans):
            part = Excerpt(video, span.begin, span.end)
            assert found.times[number].equal(views.times(part)[0])
            expected = model.features(pixels(model.cfg, views, part))
            torch.testing.assert_close(found.features[number : number + 1], expected)
    assert len(spans) == len(found.features) == 8
    streamed = list(Embedder(model).stream(path, window=0.5, stride=0.4))
    assert torch.cat([part.features for part in streamed]).equal(found.features)
    in_memory = Embedder(model)(frames, fps=fps, window=0.5, stride=0.4)
    torch.testing.assert_close(in_memory.features, found.features, atol=1e-5, rtol=0)


def test_windows_are_by_default_as_long_as_a_clip(data, model):
    found = Embedder(model)(data / "long.mp4", stride=0.5)
    expected = Embedder(model)(data / "long.mp4", stride=0.5, window=CLIP_SECONDS)
    assert found.features.equal(expected.features)
    assert found.times[:-1, 0].tolist() == pytest.approx([0.5 * n for n in range(6)], abs=0.04)


@torch.no_grad()
def test_layer_and_pooling_are_those_of_the_tokens(data, model):
    views, path = build_validation_view(model.cfg), str(data / "1.mp4")
    with open_video(path) as video:
        clips = pixels(model.cfg, views, video)
    tokens = model.tokens(clips)
    (first,) = model.layer_tokens(clips, [0], with_cls=True)
    assert first.shape == tokens.shape == (1, 1 + 2 * 4 * 4, 8)
    expected = {
        (-1, ""): (tokens[:, 0], "class token"),
        (1, "cls"): (tokens[:, 0], "class token"),
        (-1, "mean"): (tokens[:, 1:].mean(1), "mean of the normed tokens"),
        (-1, "none"): (tokens[:, 1:].unflatten(1, (2, 4, 4)), "every token but the class token"),
        (0, ""): (first[:, 0], "class token after block 0"),
        (-2, "cls"): (first[:, 0], "class token after block 0"),
        (0, "mean"): (first[:, 1:].mean(1), "mean token after block 0"),
        (0, "none"): (
            first[:, 1:].unflatten(1, (2, 4, 4)),
            "every token but the class token after block 0",
        ),
    }
    for (layer, pooling), (features, words) in expected.items():
        embedder = Embedder(model, layer=layer, pooling=pooling)
        found = embedder(path, window=10.0)
        torch.testing.assert_close(found.features, features, msg=f"{layer} {pooling}")
        assert embedder.pooling == words


@torch.no_grad()
def test_a_classifier_of_the_mean_token_keeps_its_own_form(data):
    """The norm of the mean, as published, is not the mean of the normed tokens."""
    model = classifier()
    own, mean = (Embedder(model, pooling=name) for name in ("", "mean"))
    assert own.pooling == mean.pooling == "norm of the mean token"
    views = build_validation_view(model.cfg)
    with open_video(str(data / "1.mp4")) as video:
        expected = model.features(pixels(model.cfg, views, video))
    torch.testing.assert_close(mean(data / "1.mp4", window=10.0).features, expected)


def test_a_pre_training_gives_its_encoder_by_path_and_as_a_model(data, pretrained):
    by_path = Embedder(pretrained)
    as_model = Embedder(from_pretrained(pretrained))
    found = by_path(data / "long.mp4", stride=1.0)
    assert by_path.pooling == "norm of the mean token"
    assert found.features.shape == (4, 8)
    torch.testing.assert_close(as_model(data / "long.mp4", stride=1.0).features, found.features)
    state = torch.random.get_rng_state()
    Embedder(pretrained)
    assert torch.random.get_rng_state().equal(state)


def test_a_broken_video_of_several_has_a_reason(data, model, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    embedder = Embedder(model)
    paths = [str(data / "1.mp4"), str(broken), str(data / "1.mp4")]
    for options in ({}, {"stride": 0.2}):
        first, lost, again = embedder(paths, **options)
        assert first.features.equal(again.features)
        assert "cannot be opened" in lost.reason
        assert lost.features.shape == (0, 8)
        assert lost.times.shape == (0, 2)
        with pytest.raises(DecodeError, match="cannot be opened"):
            embedder(broken, **options)
    assert embedder([]) == []
    tokens = Embedder(model, pooling="none")([str(broken)])
    assert tokens[0].features.shape == (0, 2, 4, 4, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": 2}, r"layer must be one of the 2 blocks, in \[-2, 2\), got 2"),
        ({"layer": -3}, r"layer must be one of the 2 blocks"),
        ({"pooling": "max"}, "pooling must be one of 'mean', 'cls', 'none', or empty .* got 'max'"),
        ({"layer": "a"}, r"layer must be one of the 2 blocks, in \[-2, 2\), got 'a'"),
        ({"pooling": "cls"}, "must be 'mean' or 'none' for a network without a class token"),
    ],
)
def test_features_that_do_not_exist_are_one_error(options, message):
    with pytest.raises(ValueError, match=message):
        Embedder(classifier(), **options)


def test_wrong_calls_are_one_error(data, model, pretrained):
    embedder = Embedder(model)
    with pytest.raises(ValueError, match=r"window must be at least 0\.267 seconds.*got 0\.1"):
        embedder(data / "1.mp4", window=0.1)
    with pytest.raises(ValueError, match="stride must be seconds, finite and >= 0, got -1"):
        embedder(data / "1.mp4", stride=-1.0)
    with pytest.raises(ValueError, match=r"frames must be uint8 \(T, H, W, 3\)"):
        embedder(np.zeros((3, 8, 8), np.uint8))
    with pytest.raises(ValueError, match="Linear must have an attribute `cfg`"):
        Embedder(torch.nn.Linear(2, 2))
    segmented = classifier(**{"TRAIN.DATASET": "ssv2", "TEST.NUM_ENSEMBLE_VIEWS": 1})
    with pytest.raises(ValueError, match="window must be given with a stride"):
        Embedder(segmented)(data / "1.mp4", stride=1.0)
    assert len(Embedder(segmented)(data / "long.mp4", window=1.0).features) == 3
    tokenizer = {"MODEL.MODEL_NAME": "Tokenizer", "TOKENIZER.WIDTHS": [8], "DATA.NUM_FRAMES": 1}
    with pytest.raises(ValueError, match="must be of a network with features, got 'Tokenizer'"):
        Embedder(classifier(**tokenizer))


def _embed(checkpoint: Path, *words: object):
    return run_tool(
        "tools/extract_features.py", "--checkpoint", checkpoint, "--device", "cpu", *words
    )


def test_the_command_writes_what_the_embedder_returns(data, pretrained, tmp_path):
    output = tmp_path / "windows.npz"
    words = ["--video", data / "long.mp4", data / "1.mp4", "--stride", "0.5", "--output", output]
    done = _embed(pretrained, *words, "--layer", "0", "--pooling", "mean")
    assert done.returncode == 0, done.stderr
    found = load_features(output)
    embedder = Embedder(pretrained, layer=0, pooling="mean")
    expected = embedder([str(data / "long.mp4"), str(data / "1.mp4")], stride=0.5)
    features = torch.cat([embedding.features for embedding in expected])
    torch.testing.assert_close(found.features, features)
    assert found.times.equal(torch.cat([embedding.times for embedding in expected]))
    assert found.facts["pooling"] == embedder.pooling == "mean token after block 0"
    assert found.rows.tolist() == list(range(len(features)))
    assert found.paths == [str(data / "long.mp4")] * 7 + [str(data / "1.mp4")] * 2
    assert f"{output}: {len(features)}x8" in done.stdout
    refused = _embed(pretrained, *words, "--layer", "0", "--pooling", "cls")
    assert refused.returncode == 2
    assert f"--output must not exist, got the existing file {output}; --force" in refused.stderr
    assert load_features(output).facts["pooling"] == found.facts["pooling"]
    again = _embed(pretrained, *words, "--layer", "0", "--pooling", "mean", "--force")
    assert "features of videos: reusing" in again.stderr
    tokens = _embed(pretrained, *words[:5], "--tokens", "--output", tmp_path / "tokens.npz")
    assert tokens.returncode == 0, tokens.stderr
    assert load_features(tmp_path / "tokens.npz").features.shape == (9, 2 * 4 * 4, 8)


def test_the_command_takes_whole_videos_folders_and_names_broken_ones(data, pretrained, tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "a.mp4").write_bytes((data / "1.mp4").read_bytes())
    (folder / "b.mp4").write_bytes(b"no video")
    output = tmp_path / "whole.safetensors"
    for options in ([], ["--window", "0.5"]):
        done = _embed(pretrained, "--video", folder, "--output", output, "--force", *options)
        assert done.returncode == 1, done.stderr
        assert f"lost: {folder / 'b.mp4'}: " in done.stderr
        found = load_features(output)
        expected = Embedder(pretrained)(folder / "a.mp4", **({"window": 0.5} if options else {}))
        torch.testing.assert_close(found.features, expected.features)
        assert [Path(lost["path"]).name for lost in found.facts["lost"]] == ["b.mp4"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--stride", "1"], "--window and --stride are for --video"),
        (["--video", "{}", "--split", "val"], "not allowed with argument"),
        (["--tokens", "--pooling", "mean"], "not allowed with argument"),
        (["--video", "{}", "--window", "0.1"], "window must be at least 0.267 seconds"),
        (["--layer", "9"], "layer must be one of the 2 blocks"),
    ],
)
def test_wrong_words_are_one_error(data, pretrained, tmp_path, words, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = _embed(pretrained, *(word.format(data / "1.mp4") for word in words))
    assert done.returncode == 2
    assert message in done.stderr
    assert not list(tmp_path.glob("**/*.rows"))
