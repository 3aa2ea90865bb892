"""Models as Python objects: what is saved comes back, with its configuration and class names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from slowfast_maskfeat import build_model, from_pretrained, load_config, save_pretrained
from slowfast_maskfeat.checkpoints import save_safetensors
from slowfast_maskfeat.runs.load_trained import load_trained

CONFIG = Path(__file__).parents[2] / "configs" / "demo" / "finetune.yaml"
CLASS_NAMES = ("läuft", "sauter", "turn left")


def new_model(seed: int) -> nn.Module:
    cfg = load_config([str(CONFIG)], ["MODEL.NUM_CLASSES", "3", "MVIT.DROPPATH_RATE", "0.3"])
    torch.manual_seed(seed)
    model = build_model(cfg).eval()
    model.cfg, model.class_names = cfg, CLASS_NAMES
    return model


@pytest.fixture(scope="module")
def clips() -> torch.Tensor:
    return torch.randn(2, 3, 8, 48, 48, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_a_saved_model_comes_back(tmp_path: Path, clips: torch.Tensor) -> None:
    model = new_model(0)
    path = save_pretrained(model, tmp_path / "new")
    assert sorted(os.listdir(tmp_path / "new")) == ["README.md", path.name]
    for source in (path, tmp_path / "new", str(path)):
        loaded = from_pretrained(source)
        assert not loaded.training
        assert loaded.class_names == CLASS_NAMES
        assert loaded.cfg.is_frozen()
        assert loaded.cfg.MVIT.DROPPATH_RATE == 0.3
        assert torch.equal(loaded(clips), model(clips))
    again = from_pretrained(save_pretrained(loaded, tmp_path / "again"))
    assert torch.equal(again(clips), model(clips))


@torch.no_grad()
def test_the_folder_of_a_run_means_its_last_checkpoint(tmp_path: Path, clips: torch.Tensor) -> None:
    (tmp_path / "checkpoints").mkdir()
    models = [new_model(seed) for seed in range(2)]
    for age, model in enumerate(models):  # as if a copy had changed the order in time
        content = {
            "model_state": model.state_dict(),
            "cfg": model.cfg.dump(),
            "class_names": list(CLASS_NAMES),
        }
        path = tmp_path / "checkpoints" / f"ssl_eval_checkpoint_epoch_{2 - age:05d}.pyth"
        torch.save(content, path)
        os.utime(path, (1e9 + age, 1e9 + age))
    assert torch.equal(from_pretrained(tmp_path)(clips), models[0](clips))
    other = tmp_path / "checkpoints" / "ssl_checkpoint_epoch_00001.pyth"
    torch.save({**content, "model_state": models[1].state_dict()}, other)  # of another task
    assert torch.equal(from_pretrained(tmp_path)(clips), models[1](clips))


def test_overrides_and_a_configuration_win(tmp_path: Path) -> None:
    model = new_model(0)
    bare = save_safetensors(tmp_path / "bare.safetensors", model.state_dict())
    with pytest.raises(ValueError, match=r"bare\.safetensors.* no configuration"):
        from_pretrained(bare)
    pairs = ["MODEL.NUM_CLASSES", "3", "MVIT.DROPPATH_RATE", "0.3", "MODEL.DROPOUT_RATE", "0.25"]
    loaded = from_pretrained(bare, config=CONFIG, overrides=pairs)
    assert loaded.class_names == ()
    assert loaded.cfg.MODEL.DROPOUT_RATE == 0.25
    state = loaded.state_dict()
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


def test_errors_say_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Linear must have an attribute `cfg`"):
        save_pretrained(nn.Linear(2, 2), tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(ValueError, match=r"model\.safetensors or checkpoints"):
        from_pretrained(tmp_path)
    missing = tmp_path / "missing.pyth"
    with pytest.raises((ValueError, OSError), match=r"missing\.pyth"):
        from_pretrained(missing)
    path = save_pretrained(new_model(0), tmp_path)
    with pytest.raises(ValueError, match=r"head\.projection\.weight|MODEL\.NUM_CLASSES"):
        from_pretrained(path, overrides=["MODEL.NUM_CLASSES", "5"])


def test_the_shards_of_the_training_need_not_exist(tmp_path: Path) -> None:
    model = new_model(0)
    model.cfg = model.cfg.clone()
    model.cfg.defrost()
    model.cfg.DATA.TRAIN_SHARDS = str(tmp_path / "gone-{0..3}.tar")
    model.cfg.DATA.PATH_TO_DATA_DIR = str(tmp_path / "gone")
    assert from_pretrained(save_pretrained(model, tmp_path)).class_names == CLASS_NAMES


def test_only_a_command_changes_how_torch_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library leaves the settings of a process to it; float32 of a command is exact."""
    path = save_pretrained(new_model(0), tmp_path)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    from_pretrained(path)
    assert torch.backends.cudnn.allow_tf32
    load_trained(str(path), device="cpu")
    assert not torch.backends.cudnn.allow_tf32
