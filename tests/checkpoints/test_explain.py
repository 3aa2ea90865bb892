"""What is said of weights that do not go with a model, and what is done about it."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import pytest
import torch
from helpers.tiny_cases import tiny_options
from helpers.tiny_checkpoints import receiver, source_state

from slowfast_maskfeat.checkpoints import LoadError, LoadReport, load_weights, save_checkpoint


def test_the_error_has_the_report(tmp_path: Path) -> None:
    state = dict(list(source_state(tiny_options("img_vit")).items())[:9])
    path = save_checkpoint(tmp_path / "s.pyth", {"model_state": state})
    for complete in (False, True):
        least = 0.0 if complete else 0.95
        with pytest.raises(LoadError) as caught:
            load_weights(
                receiver(tiny_options("img_vit")), path, complete=complete, min_coverage=least
            )
        error = caught.value
        assert len(error.report.loaded) == 9
        assert "\n" not in error.summary
        assert str(error) == f"{error.summary}\n{error.report}"
        again = pickle.loads(pickle.dumps(error))  # from a process to another
        assert (again.summary, again.report) == (error.summary, error.report)


@pytest.mark.parametrize("prefix", ["encoder.", "model.", "student.encoder."])
def test_what_names_have_in_front_is_told(tmp_path: Path, prefix: str) -> None:
    state = source_state(tiny_options("img_vit"))
    theirs = {f"{prefix}{name}": x for name, x in state.items() if not name.startswith("head.")}
    theirs["cls_head.fc_cls.weight"] = torch.zeros(3, 3)
    path = save_checkpoint(tmp_path / "s.pyth", {"state_dict": theirs})
    model = receiver(tiny_options("img_vit"))
    with pytest.raises(LoadError) as caught:
        load_weights(model, path)
    assert f" {prefix!r}" in caught.value.summary
    assert f"TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN \"['{prefix}']\"" in caught.value.summary
    report = load_weights(model, path, clear_names=[prefix])
    assert report.missing == ("head.projection.weight", "head.projection.bias")


def test_what_few_names_have_in_front_is_not(tmp_path: Path) -> None:
    state = source_state(tiny_options("img_vit"))
    few = {f"x.{name}": value for name, value in list(state.items())[:9]}
    path = save_checkpoint(tmp_path / "s.pyth", {"model_state": few})
    with pytest.raises(LoadError, match=r"MIN_COVERAGE\. Is it .* of this model\?\n"):
        load_weights(receiver(tiny_options("img_vit")), path)


# Deep enough that what does not fit is less than 5 % of the backbone.
DEEP = {"MVIT__DEPTH": 12}


@pytest.mark.parametrize(
    ("case", "theirs", "ours", "message"),
    [
        (
            "v2_ft",
            {"MVIT__DIM_MUL_IN_ATT": False},
            {"MVIT__DIM_MUL_IN_ATT": True},
            r"Shapes differ: blocks\.\d+\.\S+ is \(.*\) in the file, .*, and \d+ more; set "
            r"MVIT\.DIM_MUL_IN_ATT False",
        ),
        (
            "v2_ft",
            {"MVIT__DIM_MUL_IN_ATT": True},
            {"MVIT__DIM_MUL_IN_ATT": False},
            r"set MVIT\.DIM_MUL_IN_ATT True",
        ),
        (
            "img_vit",
            DEEP,
            {**DEEP, "MVIT__PATCH_KERNEL": [8, 8], "MVIT__PATCH_STRIDE": [8, 8]},
            r"does not fit: shapes differ: patch_embed\.proj\.weight is "
            r"\(\d+, 3, 16, 16\) in the file, "
            r"\(\d+, 3, 8, 8\) in the model\. TRAIN\.CHECKPOINT_MIN_COVERAGE 0 accepts it",
        ),
    ],
)
def test_weights_of_another_shape_are_named(tmp_path, case, theirs, ours, message):
    """They are few, but all tokens pass through them."""
    path = save_checkpoint(tmp_path / "s.pyth", source_state(tiny_options(case, **theirs)))
    model = receiver(tiny_options(case, **ours))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(LoadError, match=message):
        load_weights(model, path)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert load_weights(model, path, min_coverage=0.0).refused


@pytest.mark.parametrize(
    ("absent", "message"),
    [
        ("patch_embed", r"does not fit: it has no patch embedding \(patch_embed\.proj\.weight\)"),
        ("pos_embed", r"does not fit: it has no position tables \(pos_embed\)"),
    ],
)
def test_the_first_layer_must_be_filled_whatever_the_share(tmp_path, absent, message):
    options = tiny_options("img_vit", **DEEP)
    whole = source_state(options)
    part = {name: value for name, value in whole.items() if not name.startswith(absent)}
    path = save_checkpoint(tmp_path / "s.pyth", part)
    with pytest.raises(LoadError, match=message):
        load_weights(receiver(options), path, min_coverage=0.5)
    path = save_checkpoint(tmp_path / "s.pyth", whole)
    report = load_weights(receiver(options), path, min_coverage=0.5, leave_out=[absent])
    assert report.left_out


def test_a_test_says_what_it_needs_and_names_no_key_of_training(tmp_path):
    options = tiny_options("img_vit", **DEEP)
    part = {name: x for name, x in source_state(options).items() if name != "pos_embed"}
    path = save_checkpoint(tmp_path / "s.pyth", part)
    message = r"which testing needs \(it has no position tables \(pos_embed\)\); use a checkpoint"
    with pytest.raises(LoadError, match=message):
        load_weights(receiver(options), path, complete=True, min_coverage=0.5)


def test_a_head_of_the_models_own_keeps_its_name(tmp_path):
    """A network of an extension may name its parts as timm does."""
    model = torch.nn.ModuleDict(
        {
            "patch_embed": torch.nn.ModuleDict({"proj": torch.nn.Conv2d(3, 4, 2)}),
            "blocks": torch.nn.ModuleList([torch.nn.ModuleDict({"norm1": torch.nn.LayerNorm(4)})]),
            "fc_norm": torch.nn.LayerNorm(4),
            "head": torch.nn.Linear(4, 2),
        }
    )
    theirs = {name: torch.randn_like(value) for name, value in model.state_dict().items()}
    path = save_checkpoint(tmp_path / "s.pyth", theirs)
    report = load_weights(model, path, complete=True)
    assert not report.missing
    assert model["head"].weight.equal(theirs["head.weight"])


def test_position_tables_that_are_not_learned_may_be_absent(tmp_path):
    options = tiny_options(
        "mae_sincos_decsep", MVIT__SEP_POS_EMBED=False, MVIT__USE_FIXED_SINCOS_POS=True
    )
    state = {name: x for name, x in source_state(options).items() if name != "pos_embed"}
    path = save_checkpoint(tmp_path / "s.pyth", state)
    assert "pos_embed" in load_weights(receiver(options), path, min_coverage=0.5).missing


def test_names_that_were_brought_here_are_not_advised_to_be(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "s.pyth", {"vit.embeddings.other": torch.zeros(1)})
    model = receiver(tiny_options("img_vit"))
    with pytest.raises(LoadError, match=r"maskfeat convert"):
        load_weights(model, path)
    with pytest.raises(LoadError, match=r"Is it .* of this model\?"):
        load_weights(model, path, rename=lambda weights: weights)


@pytest.mark.parametrize(
    "kind", [torch.int32, torch.int8, torch.bool, torch.complex64, torch.float8_e4m3fn]
)
def test_weights_of_another_kind_of_number_are_refused(tmp_path: Path, kind: torch.dtype) -> None:
    state = source_state(tiny_options("img_vit"))
    for name in ("patch_embed.proj.weight", "blocks.0.mlp.fc1.weight"):
        state[name] = state[name].to(kind)
    path = save_checkpoint(tmp_path / "s.pyth", {"model_state": state})
    message = (
        rf"s\.pyth .*floating-point .*got {str(kind).removeprefix('torch.')} "
        r"\(patch_embed\.proj\.weight, blocks\.0\.mlp\.fc1\.weight\)"
    )
    with pytest.raises(ValueError, match=message):
        load_weights(receiver(tiny_options("img_vit")), path)


def test_sparse_weights_are_refused(tmp_path: Path) -> None:
    state = source_state(tiny_options("img_vit"))
    state["norm.weight"] = state["norm.weight"].to_sparse()
    path = save_checkpoint(tmp_path / "s.pyth", {"model_state": state})
    with pytest.raises(ValueError, match=r"s\.pyth .*got sparse_coo \(norm\.weight\)"):
        load_weights(receiver(tiny_options("img_vit")), path)


def test_nested_tensors_are_refused(tmp_path: Path) -> None:
    state = source_state(tiny_options("img_vit"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nested tensors are a prototype
        state["norm.weight"] = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])
    torch.save({"model_state": state}, path := tmp_path / "s.pyth")
    with pytest.raises(ValueError, match=r"s\.pyth .*got nested tensors \(norm\.weight\)"):
        load_weights(receiver(tiny_options("img_vit")), path)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_any_precision_are_read(tmp_path: Path, kind: torch.dtype) -> None:
    state = source_state(tiny_options("img_vit"))
    path = save_checkpoint(
        tmp_path / "s.pyth", {"model_state": {n: x.to(kind) for n, x in state.items()}}
    )
    load_weights(model := receiver(tiny_options("img_vit")), path, complete=True)
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name].to(kind).float())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "it is empty$"),
        ({"state_dict": {}, "epoch": 2}, "its 'state_dict' is empty$"),
        ({"teacher": {"x": 1}, "epoch": 2}, "it has the keys teacher, epoch$"),
        ({"model": {"depth": 3}}, "its 'model' has the keys depth$"),
        ({7: torch.zeros(2)}, "it has the keys 7$"),
    ],
)
def test_a_file_without_weights(tmp_path: Path, content: dict, message: str) -> None:
    path = save_checkpoint(tmp_path / "s.pyth", content)
    with pytest.raises(ValueError, match=f"s.pyth .*{message}"):
        load_weights(receiver(tiny_options("img_vit")), path)


def test_the_words_for_what_stays() -> None:
    facts = {
        "path": Path("p"),
        "loaded": (),
        "missing": ("head.projection.weight",),
        "unexpected": (),
        "classifier": "the file has none",
    }
    first, second = (str(LoadReport(**facts, initialized=known)) for known in (True, False))
    assert "  left as initialized          1  head.projection.weight" in first
    assert first.endswith("  classifier left as initialized: the file has none")
    assert "  left as they were            1  head.projection.weight" in second
    assert second.endswith("  classifier left as it was: the file has none")
