"""Folders of Hugging Face's transformers: the model of config.json, with the library's outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.golden_rule import golden_json, golden_randn, relative_error
from helpers.hugging_face import IMAGENET, NAMES, foreign_state, write_folder
from helpers.load_tool import run_tool
from helpers.videos_on_disk import numbered_frames, write_video
from torch import Tensor, nn

from slowfast_maskfeat import Embedder, Predictor, build_task, from_pretrained, save_pretrained

CASES = [name for names in NAMES.values() for name in names]
CLASSIFIERS = [name for name in CASES if not name.endswith("_pretraining")]
LARGEST_ERROR = 1e-5  # rounding, and the epsilon of the library's layer norms


def outputs(model: nn.Module, name: str) -> tuple[Tensor, list[float]]:
    """The outputs for the input of a golden file, and those of the library."""
    golden = golden_json(f"foreign/{name}.json")
    clips = golden_randn(1000, tuple(golden["input_shape"]))
    clips = clips.unsqueeze(2) if clips.ndim == 4 else clips
    with torch.no_grad():
        if "mask" not in golden:
            return model(clips), golden["logits"]
        mask = torch.tensor(golden["mask"]).bool().reshape(2, *model.configured_grid)
        return model(clips, mask)[0][:, :: golden["sampled_columns"]], golden["logits"]


@pytest.mark.parametrize("name", CASES)
def test_a_folder_computes_what_the_library_computes(name: str, tmp_path: Path) -> None:
    """Pixels of ViTMAE are in the library's order, too."""
    folder = write_folder(tmp_path / name, name, as_pickle=name == "vit_classifier")
    model = from_pretrained(folder)
    found, expected = outputs(model, name)
    assert relative_error(found, expected) < LARGEST_ERROR
    assert not model.training
    assert list(IMAGENET.values()) == [model.cfg.DATA.MEAN, model.cfg.DATA.STD]
    assert model.class_names == ()
    again = from_pretrained(save_pretrained(model, tmp_path / "ours"))
    assert torch.equal(outputs(again, name)[0], found)
    build_task(model.cfg, model)  # the configuration is complete


@pytest.mark.parametrize("name", CASES)
def test_every_folder_has_features(name: str, tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", numbered_frames(20))
    folder = write_folder(tmp_path / name, name)
    of_path, of_model = Embedder(folder), Embedder(from_pretrained(folder))
    found = of_path(str(video), stride=0.3)
    assert found.features.shape[1:] == (32,)
    torch.testing.assert_close(of_model(str(video), stride=0.3).features, found.features)


def test_names_normalization_and_sizes_are_those_of_the_files(tmp_path: Path) -> None:
    names = {str(number): f"class {number}" for number in range(10)}
    video = write_video(tmp_path / "a.mp4", numbered_frames(20))
    folder = write_folder(
        tmp_path / "theirs",
        "videomae_classifier",
        fields={"id2label": dict(reversed(names.items()))},
        processor={"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "size": 64},
    )
    model = from_pretrained(folder, overrides=["TEST.NUM_TEMPORAL_CLIPS", "[1]"])
    assert model.class_names == tuple(names.values())
    cfg = model.cfg
    assert (cfg.DATA.NUM_FRAMES, cfg.DATA.TRAIN_CROP_SIZE, cfg.DATA.TEST_CROP_SIZE) == (8, 64, 64)
    assert cfg.MVIT.PATCH_STRIDE == [2, 16, 16]
    assert (cfg.DATA.MEAN, cfg.DATA.STD) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    best = Predictor(model)(str(video))
    assert set(best.labels) <= set(names.values())
    words = ["--checkpoint", folder, "--video", video, "--json", "--device", "cpu"]
    done = run_tool("tools/predict.py", *words)
    assert done.returncode == 0, done.stderr
    printed = [row["name"] for row in json.loads(done.stdout)["top"]]
    assert printed == list(Predictor(from_pretrained(folder))(str(video)).labels)


def test_without_a_processor_the_normalization_is_that_of_published_models(tmp_path: Path) -> None:
    for name, mean in (
        ("videomae_classifier", IMAGENET["image_mean"]),
        ("vit_classifier", [0.5] * 3),
    ):
        folder = write_folder(tmp_path / name, name, processor=None)
        with pytest.warns(UserWarning, match=r"has no preprocessor_config\.json: DATA\.MEAN"):
            cfg = from_pretrained(folder).cfg
        assert mean == cfg.DATA.MEAN
    raw = write_folder(tmp_path / "raw", "vit_classifier", processor={"do_normalize": False})
    assert from_pretrained(raw).cfg.DATA.STD == [1.0, 1.0, 1.0]


def test_a_larger_crop_resizes_the_positions(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "theirs", "vit_classifier")
    model = from_pretrained(folder, overrides=["DATA.TRAIN_CROP_SIZE", "96"])
    assert model.pos_embed.shape == (1, 37, 32)
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 1, 96, 96)).shape == (1, 10)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("vit_classifier", {"model_type": "swin"}, '\'model_type\' must be .*"vit" or "beit"'),
        ("vit_classifier", {"architectures": ["ViTModel"]}, r"'architectures'.*\['ViTModel'\]"),
        ("vit_classifier", {"architectures": None}, "'architectures' .* got no such field"),
        ("vit_classifier", {"hidden_act": "relu"}, "'hidden_act' must be \"gelu\""),
        ("vit_classifier", {"hidden_dropout_prob": 0.1}, "'hidden_dropout_prob' must be 0.0"),
        ("vit_classifier", {"num_attention_heads": 3}, "'hidden_size' must be a multiple of .* 3"),
        ("vit_classifier", {"layer_norm_eps": 0.1}, r"'layer_norm_eps' .* in \[0, 1e-05\]"),
        ("vit_classifier", {"hidden_size": "32"}, "'hidden_size' must be a whole number >= 1"),
        ("vit_classifier", {"image_size": [64, 32]}, "'image_size' must be the side of a square"),
        ("vit_classifier", {"image_size": 72}, "'image_size' must be a multiple of .* 16"),
        ("vit_classifier", {"num_channels": 1}, "'num_channels' must be 3, since frames"),
        ("vit_classifier", {"qkv_bias": 1}, "'qkv_bias' must be true or false"),
        ("vit_classifier", {"id2label": {"0": "a"}}, "'id2label' must .* 10 outputs"),
        ("vit_classifier", {"problem_type": "regression"}, "'problem_type' must be null or"),
        ("videomae_classifier", {"use_mean_pooling": False}, "'use_mean_pooling' must be true"),
        ("videomae_classifier", {"num_frames": 7}, "'num_frames' must be a multiple of .* 2"),
        ("videomae_pretraining", {"use_mean_pooling": True}, "'use_mean_pooling' must be false"),
        (
            "videomae_pretraining",
            {"decoder_intermediate_size": 96},
            "'decoder_intermediate_size' must be 192",
        ),
        ("vitmae_pretraining", {"decoder_num_attention_heads": 5}, "'decoder_hidden_size' must be"),
        (
            "hf_beit_classifier",
            {"use_shared_relative_position_bias": True},
            "'use_shared_relative_position_bias' must be false",
        ),
        ("hf_beit_pretraining", {"use_mask_token": False}, "'use_mask_token' must be true"),
    ],
)
def test_what_does_not_exist_here_is_named_by_its_field(
    name: str, fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "theirs", name, fields=fields)
    with pytest.raises(ValueError, match=message) as error:
        from_pretrained(folder)
    assert str(error.value).startswith(f"{folder / 'config.json'}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fields", "drop", "message"),
    [
        ({"num_hidden_layers": 4}, "", r"got none for blocks\.3\."),
        ({"num_hidden_layers": 2}, "", r"got others besides: blocks\.2\."),
        ({"intermediate_size": 64}, "", r"'blocks\.0\.mlp\.fc1\.bias' of shape \(64,\)"),
        ({}, "classifier.weight", "got no 'classifier.weight'"),
    ],
)
def test_weights_of_another_model_are_refused(
    fields: dict[str, Any], drop: str, message: str, tmp_path: Path
) -> None:
    state = {key: value for key, value in foreign_state("vit_classifier").items() if key != drop}
    folder = write_folder(tmp_path / "theirs", "vit_classifier", fields=fields, weights=state)
    with pytest.raises(ValueError, match=message):
        from_pretrained(folder)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("config.json", "{", r"config\.json must be a JSON file"),
        ("config.json", "[]", r"config\.json must hold a JSON object, got a list"),
        ("preprocessor_config.json", '{"do_rescale": false}', "'do_rescale' must be true"),
        ("preprocessor_config.json", '{"rescale_factor": 1}', "'rescale_factor' must be a number"),
        ("preprocessor_config.json", '{"image_mean": [0]}', "'image_mean' must be three numbers"),
        ("model.safetensors", None, r"must have model\.safetensors or pytorch_model\.bin"),
        ("model.safetensors.index.json", "{}", "index of a checkpoint in several files"),
    ],
)
def test_a_malformed_folder_is_one_error(
    file: str, text: str | None, message: str, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "theirs", "vit_classifier")
    if text is None or file.endswith("index.json"):
        (folder / "model.safetensors").unlink()
    if text is not None:
        (folder / file).write_text(text)
    with pytest.raises(ValueError, match=message):
        from_pretrained(folder)
