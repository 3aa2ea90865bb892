"""tools/convert_checkpoint.py: every form in and out, what is kept, and wrong input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.golden_rule import golden_array, golden_json, golden_randn, relative_error
from helpers.load_tool import Done, run_tool
from helpers.published_files import write_yaml
from helpers.tiny_run import pairs
from safetensors import safe_open
from torch import Tensor, nn

from slowfast_maskfeat.builders import build_model
from slowfast_maskfeat.checkpoints import load_checkpoint, load_weights, save_checkpoint
from slowfast_maskfeat.config import load_config, parse_config

CLASSES = [f"class {number}" for number in range(10)]
# A plain transformer of videos, as VideoMAE's golden case has it.
VIDEOMAE = {
    "DATA.NUM_FRAMES": 8,
    "DATA.TRAIN_CROP_SIZE": 64,
    "MODEL.NUM_CLASSES": 10,
    "MVIT.EMBED_DIM": 32,
    "MVIT.NUM_HEADS": 2,
    "MVIT.DEPTH": 3,
    "MVIT.PATCH_KERNEL": [2, 16, 16],
    "MVIT.PATCH_STRIDE": [2, 16, 16],
    "MVIT.PATCH_PADDING": [0, 0, 0],
    "MVIT.CLS_EMBED_ON": False,
    "MVIT.USE_MEAN_POOLING": True,
}
TORCHVISION = {
    "DATA.NUM_FRAMES": 8,
    "DATA.TRAIN_CROP_SIZE": 64,
    "MODEL.NUM_CLASSES": 10,
    "MVIT.EMBED_DIM": 16,
    "MVIT.DEPTH": 4,
    "MVIT.PATCH_PADDING": [1, 3, 3],
    "MVIT.POOL_KVQ_KERNEL": [3, 3, 3],
    "MVIT.USE_ABS_POS": False,
    "MVIT.REL_POS_SPATIAL": True,
    "MVIT.REL_POS_TEMPORAL": True,
    "MVIT.RESIDUAL_POOLING": True,
    "MVIT.DIM_MUL_IN_ATT": True,
    "MVIT.DIM_MUL": [[1, 2.0], [3, 2.0]],
    "MVIT.HEAD_MUL": [[1, 2.0], [3, 2.0]],
    "MVIT.POOL_Q_STRIDE": [[0, 1, 1, 1], [1, 1, 2, 2], [2, 1, 1, 1], [3, 1, 2, 2]],
    "MVIT.POOL_KV_STRIDE_ADAPTIVE": [1, 4, 4],
}

Convert = Callable[..., Done]


def foreign_state(name: str, seed_prefix: str = "") -> dict[str, Tensor]:
    return {
        key: torch.from_numpy(golden_array(key, seed_prefix, shape=tuple(shape)))
        for key, shape in golden_json(f"foreign/{name}.json")["state"]
    }


@pytest.fixture
def convert(tmp_path: Path) -> Convert:
    """Calls the tool in this process: (options, input, output, words) -> code, output, errors."""

    def call(options: dict[str, Any], source: Path, output: Path, *words: Any) -> Done:
        config = write_yaml(tmp_path / "model.yaml", options)
        files = ["--cfg", config, "--input", source, "--output", output]
        return run_tool("tools/convert_checkpoint.py", *files, *words)

    return call


def model_from(options: dict[str, Any], path: Path) -> nn.Module:
    """The model with the weights of a file of ours."""
    model = build_model(load_config([], pairs(options))).eval()
    load_weights(model, path, complete=True)
    return model


def check_logits(model: nn.Module, name: str) -> None:
    golden = golden_json(f"foreign/{name}.json")
    with torch.no_grad():
        logits = model(golden_randn(1000, tuple(golden["input_shape"])))
    assert relative_error(logits, golden["logits"]) < 1e-5


@pytest.mark.parametrize("suffix", [".pyth", ".safetensors"])
@pytest.mark.parametrize(
    ("name", "options"),
    [("videomae_classifier", VIDEOMAE), ("torchvision_v2", TORCHVISION)],
)
def test_in_and_out_again(
    name: str, options: dict[str, Any], suffix: str, convert: Convert, tmp_path: Path
) -> None:
    state = foreign_state(name)
    theirs = save_checkpoint(tmp_path / "theirs.bin", state)
    ours = tmp_path / f"ours{suffix}"
    code, printed, errors = convert(options, theirs, ours)
    assert code == 0, errors
    assert "100.0% of the backbone" in printed
    assert str(ours) in printed
    check_logits(model_from(options, ours), name)

    naming = name.partition("_")[0]
    for back in (tmp_path / "back.pth", tmp_path / "back.safetensors"):
        code, _, errors = convert(options, ours, back, "--to", naming)
        assert code == 0, errors
        written = load_checkpoint(back)
        written = written.get("model_state", written)
        assert written.keys() == state.keys()
        assert all(torch.equal(written[key], value) for key, value in state.items())
    assert sorted(path.name for path in tmp_path.glob(".*")) == []  # no parts are left


def test_what_goes_with_the_weights(convert: Convert, tmp_path: Path) -> None:
    """Class names, token grid and configuration, in both forms of our own."""
    model = build_model(load_config([], pairs(VIDEOMAE)))
    content = {"model_state": model.state_dict(), "class_names": CLASSES}
    source = save_checkpoint(tmp_path / "source.pyth", content)
    assert convert(VIDEOMAE, source, tmp_path / "a.safetensors")[0] == 0
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert yaml.safe_load(metadata["class_names"]) == CLASSES
    assert metadata["token_grid"] == "[4, 4, 4]"
    cfg = parse_config(metadata["config"], "header")
    assert cfg.MVIT.EMBED_DIM == 32
    assert convert(VIDEOMAE, tmp_path / "a.safetensors", tmp_path / "b.pyth")[0] == 0
    written = load_checkpoint(tmp_path / "b.pyth")
    assert written["class_names"] == CLASSES
    assert written["token_grid"] == [4, 4, 4]
    assert parse_config(written["cfg"], "b.pyth") == cfg
    for key, value in model.state_dict().items():
        assert torch.equal(written["model_state"][key], value)


def test_a_vit_whose_head_alone_has_other_names(convert: Convert, tmp_path: Path) -> None:
    """Of timm, DeiT and MAE; the number of classes is that of the file."""
    image = {"DATA.NUM_FRAMES": 1, "MVIT.PATCH_2D": True, "MVIT.CLS_EMBED_ON": True}
    flat = {f"MVIT.PATCH_{name}": [side] * 2 for name, side in (("KERNEL", 16), ("STRIDE", 16))}
    options = {**VIDEOMAE, **image, **flat, "MVIT.PATCH_PADDING": [0, 0]}
    options |= {"MVIT.USE_MEAN_POOLING": False}
    model = build_model(load_config([], pairs(options)))
    names = [name.replace("head.projection", "head") for name in model.state_dict()]
    theirs = dict(zip(names, map(torch.randn_like, model.state_dict().values()), strict=True))
    torch.save({"model": theirs}, tmp_path / "theirs.pth")
    wrong = {**options, "MODEL.NUM_CLASSES": 400}
    assert convert(wrong, tmp_path / "theirs.pth", tmp_path / "ours.pyth")[0] == 0
    assert model_from(options, tmp_path / "ours.pyth").head.projection.weight.equal(
        theirs["head.weight"]
    )


def own_classes(folder: Path, **further: Any) -> tuple[Path, nn.Module]:
    """A checkpoint of a classifier of the ten classes, and its model."""
    model = build_model(load_config([], pairs(VIDEOMAE)))
    nn.init.normal_(model.head.projection.weight)
    content = {"model_state": model.state_dict(), **further}
    return save_checkpoint(folder / "run.pyth", content), model


# What a published configuration says, and another program's lists.
PUBLISHED = {**VIDEOMAE, "MODEL.NUM_CLASSES": 400, "DATA.PATH_TO_DATA_DIR": "lists"}


@pytest.mark.parametrize("names", [CLASSES, None])
def test_the_classes_are_those_of_the_file(
    names: list[str] | None, convert: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the 400 of --cfg, nor those of the lists that it names."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/classes.txt").write_text("a\nb\n")
    source, model = own_classes(tmp_path, **({"class_names": names} if names else {}))
    code, printed, errors = convert(PUBLISHED, source, tmp_path / "out.pyth")
    assert code == 0, errors
    assert "classifier" not in printed
    written = load_checkpoint(tmp_path / "out.pyth")
    assert written["class_names"] == (names or [])
    weights = written["model_state"]
    assert torch.equal(weights["head.projection.weight"], model.head.projection.weight)
    assert parse_config(written["cfg"], "out.pyth").MODEL.NUM_CLASSES == 10


def test_the_classes_of_another_library_count_as_well(convert: Convert, tmp_path: Path) -> None:
    theirs = save_checkpoint(tmp_path / "theirs.bin", foreign_state("videomae_classifier"))
    code, _, errors = convert(PUBLISHED, theirs, tmp_path / "ours.pyth")
    assert code == 0, errors
    check_logits(model_from(VIDEOMAE, tmp_path / "ours.pyth"), "videomae_classifier")


def test_another_number_of_classes_must_be_asked_for(convert: Convert, tmp_path: Path) -> None:
    source, _ = own_classes(tmp_path, class_names=CLASSES)
    code, printed, errors = convert(
        PUBLISHED, source, tmp_path / "out.pyth", "MODEL.NUM_CLASSES", 7
    )
    assert code == 0, errors
    assert "classifier left as initialized: the file has 10 classes, the model 7" in printed
    written = load_checkpoint(tmp_path / "out.pyth")
    assert written["class_names"] == []
    assert written["model_state"]["head.projection.weight"].shape[0] == 7


def test_names_may_come_from_lists(convert: Convert, tmp_path: Path) -> None:
    """Those that a pair names, for a file that has none; others than the file's are refused."""
    lists = ("DATA.PATH_TO_DATA_DIR", tmp_path)
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    source, _ = own_classes(tmp_path)
    code, printed, errors = convert(PUBLISHED, source, tmp_path / "out.pyth", *lists)
    assert code == 0, errors
    assert "the order of its classes could not be checked" in printed
    assert load_checkpoint(tmp_path / "out.pyth")["class_names"] == CLASSES
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES[:3]))
    for names, message in (([], "the file has 10 classes, the model 3"), (CLASSES, "10 classes")):
        source, _ = own_classes(tmp_path, class_names=names)
        code, _, errors = convert(PUBLISHED, source, tmp_path / "other.pyth", *lists)
        assert code == 2
        assert message in errors.splitlines()[-1]
        assert "MODEL.NUM_CLASSES 3" in errors.splitlines()[-1]


def test_names_that_are_not_of_the_classifier_are_refused(convert: Convert, tmp_path: Path) -> None:
    source, _ = own_classes(tmp_path, class_names=CLASSES[:3])
    code, _, errors = convert(PUBLISHED, source, tmp_path / "out.pyth")
    assert code == 2
    assert "the 10 outputs of its classifier, got 3" in errors


def test_the_input_is_brought_to_the_size_of_the_model(convert: Convert, tmp_path: Path) -> None:
    theirs = save_checkpoint(tmp_path / "theirs.pth", foreign_state("torchvision_v2"))
    larger = {**TORCHVISION, "DATA.TRAIN_CROP_SIZE": 96}
    code, printed, errors = convert(larger, theirs, tmp_path / "ours.pyth")
    assert code == 0, errors
    assert "blocks.0.attn.rel_pos_h" in printed
    written = load_checkpoint(tmp_path / "ours.pyth")["model_state"]
    assert written["blocks.0.attn.rel_pos_h"].shape == (47, 16)


def test_what_the_input_lacks_comes_from_another_file(convert: Convert, tmp_path: Path) -> None:
    """A pre-trained encoder gets the classifier, with its class names, of another file."""
    other = build_model(load_config([], pairs(VIDEOMAE)))
    nn.init.normal_(other.head.projection.weight)
    content = {"model_state": other.state_dict(), "class_names": CLASSES}
    onto = save_checkpoint(tmp_path / "classifier.pyth", content)
    state = foreign_state("videomae_pretraining")
    theirs = save_checkpoint(tmp_path / "pretrained.bin", state)
    code, printed, errors = convert(PUBLISHED, theirs, tmp_path / "ours.pyth", "--onto", onto)
    assert code == 0, errors
    assert "pred_head.*" in printed
    # What the second report leaves is what the first file gave.
    first, second = printed.split(f"weights from {theirs}")
    assert "left as" not in first
    assert "left as they were            2  head.* (2)" in second
    assert "classifier left as it was: the file has none" in second
    assert "initialized" not in printed
    written = load_checkpoint(tmp_path / "ours.pyth")
    assert written["class_names"] == CLASSES
    weights = written["model_state"]
    assert torch.equal(weights["head.projection.weight"], other.head.projection.weight)
    assert torch.equal(weights["norm.weight"], state["videomae.layernorm.weight"])
    # A classifier of the input wins, and the names of another one do not go with it.
    full = save_checkpoint(tmp_path / "full.bin", foreign_state("videomae_classifier"))
    words = ("--onto", onto, "--force")
    assert convert(VIDEOMAE, full, tmp_path / "ours.pyth", *words)[0] == 0
    check_logits(model_from(VIDEOMAE, tmp_path / "ours.pyth"), "videomae_classifier")
    assert load_checkpoint(tmp_path / "ours.pyth")["class_names"] == []


def test_what_nothing_fills_is_the_same_each_time(convert: Convert, tmp_path: Path) -> None:
    theirs = save_checkpoint(tmp_path / "t.bin", foreign_state("videomae_pretraining"))
    for name in ("a.pyth", "b.pyth"):
        code, printed, _ = convert(VIDEOMAE, theirs, tmp_path / name)
        assert code == 0
        assert "head.* (2)" in printed
    a, b = (load_checkpoint(tmp_path / name)["model_state"] for name in ("a.pyth", "b.pyth"))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_of_averaged_weights_the_average_is_taken(convert: Convert, tmp_path: Path) -> None:
    state = build_model(load_config([], pairs(VIDEOMAE))).state_dict()
    average = {key: value + 1 for key, value in state.items()}
    content = {"model_state": state, "average_state": {"weights": average}}
    source = save_checkpoint(tmp_path / "run.pyth", content)
    assert convert(VIDEOMAE, source, tmp_path / "out.safetensors")[0] == 0
    written = load_checkpoint(tmp_path / "out.safetensors")["model_state"]
    assert all(torch.equal(written[key], value) for key, value in average.items())


def test_fixed_positions_stay_what_they_are(convert: Convert, tmp_path: Path) -> None:
    """With MVIT.USE_FIXED_SINCOS_POS a model has VideoMAE's positions and does not train them."""
    options = {**VIDEOMAE, "MVIT.USE_FIXED_SINCOS_POS": True}
    theirs = save_checkpoint(tmp_path / "theirs.bin", foreign_state("videomae_classifier"))
    assert convert(options, theirs, tmp_path / "ours.pyth")[0] == 0
    model = model_from(options, tmp_path / "ours.pyth")
    assert not model.pos_embed.requires_grad
    check_logits(model, "videomae_classifier")
    code, _, errors = convert(
        options, tmp_path / "ours.pyth", tmp_path / "b.bin", "--to", "videomae"
    )
    assert code == 0, errors


def test_an_output_is_overwritten_only_by_force(convert: Convert, tmp_path: Path) -> None:
    theirs = save_checkpoint(tmp_path / "theirs.bin", foreign_state("videomae_classifier"))
    output = tmp_path / "ours.pyth"
    output.write_bytes(b"precious")
    code, _, errors = convert(VIDEOMAE, theirs, output)
    assert code == 2
    assert f"--output must not exist, got the existing file {output}" in errors
    assert output.read_bytes() == b"precious"
    assert convert(VIDEOMAE, theirs, output, "--force")[0] == 0
    check_logits(model_from(VIDEOMAE, output), "videomae_classifier")


@pytest.mark.parametrize(
    ("source", "output", "words", "message"),
    [
        ("absent.bin", "o.pyth", [], "there is no checkpoint at"),
        ("theirs.bin", "o.txt", [], "--output must end in one of .pyth"),
        ("theirs.bin", "o.bin", [], "--to must be one of "),
        (
            "theirs.bin",
            "o.bin",
            ["--to", "published"],
            "--output must end in one of .pyth for --to published",
        ),
        ("theirs.bin", "o.pyth", ["--to", "timm"], "in one of .safetensors, .pth, .bin for"),
        (*("theirs.bin", "o.pyth", ["--from", "timm"]), "got timm; they look like videomae"),
        (*("ours.pyth", "o.safetensors", ["--from", "vitmae"]), "got vitmae; auto"),
        ("theirs.bin", "o.pyth", ["MVIT.NO", "1"], "unknown key 'MVIT.NO'"),
        ("theirs.bin", "o.pyth", ["MVIT.DEPTH", "6"], "of the backbone"),
        ("theirs.bin", "o.pth", ["--to", "timm"], "its patches are two-dimensional"),
        ("theirs.bin", "o.pyth", ["--onto", "head.pyth"], "no weight matches"),
        ("theirs.bin", "no_folder", [], "--output must end in one of"),
        ("theirs.bin", "theirs.bin/o.pyth", [], "must be a folder, but is a file"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    source: str, output: str, words: list[str], message: str, convert: Convert, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "theirs.bin", foreign_state("videomae_classifier"))
    save_checkpoint(tmp_path / "head.pyth", {"model_state": {"other": torch.zeros(1)}})
    save_checkpoint(tmp_path / "ours.pyth", {"model_state": {"norm.weight": torch.zeros(1)}})
    words = [str(tmp_path / word) if word.endswith(".pyth") else word for word in words]
    code, _, errors = convert(VIDEOMAE, tmp_path / source, tmp_path / output, *words)
    assert code == 2
    *report, line = errors.splitlines()
    assert line.startswith("error: ")
    assert message in line
    # The table before it is that of a success.
    assert not report or report[0].startswith("weights from ")
    assert bool(report) == ("of the backbone" in message or "no weight matches" in message)
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"theirs.bin", "head.pyth", "ours.pyth", "model.yaml"}


def test_another_number_of_classes_is_told(convert: Convert, tmp_path: Path) -> None:
    theirs = save_checkpoint(tmp_path / "theirs.pth", foreign_state("torchvision_v2"))
    done = convert(TORCHVISION, theirs, tmp_path / "ours.pyth", "MODEL.NUM_CLASSES", "7")
    assert done.returncode == 0, done.stderr
    assert "the file has 10 classes, the model 7" in done.stdout
