"""Graphs, breaks and recompilations of every method's network, counted with the eager backend."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from fvcore.common.config import CfgNode
from helpers.tiny_cases import tiny_options
from helpers.tiny_views import view_batch, view_options
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.nn.parallel import DistributedDataParallel

from slowfast_maskfeat.backbones import compiled, masking
from slowfast_maskfeat.builders import build_model, build_task
from slowfast_maskfeat.builders.methods import METHODS, find_method
from slowfast_maskfeat.clips import ClipBatch
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.engine.launch import launch
from slowfast_maskfeat.tasks.base import unwrap

TINY = {
    "DATA.TRAIN_CROP_SIZE": 32,
    "DATA.TEST_CROP_SIZE": 32,
    "MVIT.DEPTH": 2,
    "MVIT.EMBED_DIM": 8,
}
FRAMES = {"DATA.NUM_FRAMES": 4}
LATENTS = {"MASK__TARGET": "latents", "MASK__PRED_HOG": False, "AUG__MASK_RATIO": 0.5}
TOKENIZER = {
    "MODEL.MODEL_NAME": "Tokenizer",
    "MODEL.ARCH": "mvit",
    "DATA.NUM_FRAMES": 1,
    "TOKENIZER.NUM_CODES": 16,
    "TOKENIZER.CODE_DIM": 8,
    "TOKENIZER.WIDTHS": [8, 8],
    "TOKENIZER.NUM_BLOCKS": 0,
    **{key: TINY[key] for key in ("DATA.TRAIN_CROP_SIZE", "DATA.TEST_CROP_SIZE")},
}
IN_MASK = {"MASK.PRETRAIN_DEPTH": [1], "AUG.MASK_RATIO": 0.4}
STRIDES = {"MVIT.POOL_Q_STRIDE": [[1, 1, 2, 2]], "MVIT.DIM_MUL": [[1, 2.0]]}
MVIT = {**TINY, **FRAMES, **STRIDES, "MVIT.HEAD_MUL": [[1, 2.0]]}
CASES: dict[str, dict[str, Any]] = {
    "classification": {**tiny_options("v2_k400"), **MVIT},
    "detection": {**tiny_options("ava_aligned", DETECTION__SPATIAL_SCALE_FACTOR=0), **MVIT},
    "masked prediction": {**tiny_options("pt_video_hog"), **MVIT, **IN_MASK},
    "with decoder blocks": {**tiny_options("pt_video_hog_xformer"), **MVIT, **IN_MASK},
    "autoencoder": tiny_options("mae_sincos_decsep"),
    "autoencoder without cls": tiny_options("mae_sincos_decsep", MVIT__CLS_EMBED_ON=False),
    "latents": tiny_options("pt_video_hog", **LATENTS) | MVIT | IN_MASK,
    "byol": view_options("byol"),
    "dino": view_options("dino"),
    "ibot": view_options("ibot"),
    "dvae": {**TOKENIZER, "TOKENIZER.TYPE": "dvae"},
    "vq": {**TOKENIZER, "TOKENIZER.TYPE": "vq"},
}
NUM_BATCHES = 50
MOST_RECOMPILATIONS = 2


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def config_of(name: str, **changes: Any) -> CfgNode:
    options = {**CASES[name], **{key.replace("__", "."): value for key, value in changes.items()}}
    return load_config([], [str(word) for pair in options.items() for word in pair])


def batch_of(cfg: CfgNode, seed: int) -> ClipBatch:
    """Two samples; masks and numbers of boxes differ from seed to seed."""
    if cfg.MODEL.MODEL_NAME == "ContrastiveModel":
        return view_batch(cfg, 2, seed=seed)
    draws = torch.Generator().manual_seed(seed)
    side, frames = cfg.DATA.TRAIN_CROP_SIZE, cfg.DATA.NUM_FRAMES
    clips = torch.randn((2, 3, frames, side, side), generator=draws)
    ids = {"index": torch.arange(2), "view": torch.zeros(2, dtype=torch.long)}
    batch = ClipBatch(clips, labels=torch.tensor([1, 3]), **ids)
    if cfg.DETECTION.ENABLE:
        return with_boxes(batch, draws)
    if cfg.MASK.ENABLE:
        return replace(batch, mask=mask_of(cfg, draws))
    return batch


def with_boxes(batch: ClipBatch, draws: torch.Generator) -> ClipBatch:
    count = int(torch.randint(2, 9, (), generator=draws))
    clip = torch.randint(2, (count, 1), generator=draws).float()
    corners = torch.rand((count, 2, 2), generator=draws).sort(dim=1).values.flatten(1)
    labels = (torch.rand((count, 20), generator=draws) < 0.2).float()
    return replace(batch, boxes=torch.cat((clip, 30 * corners), dim=1), labels=labels)


def mask_of(cfg: CfgNode, draws: torch.Generator) -> Tensor:
    """(2, t, 4, 4); an autoencoder's hides as many tokens of both clips."""
    steps = cfg.DATA.NUM_FRAMES // 2
    order = torch.rand((2, steps * 16), generator=draws).argsort(dim=1)
    counts = torch.randint(1, steps * 16, (2, 1), generator=draws)
    return (order < (counts[:1] if cfg.MASK.MAE_ON else counts)).view(2, steps, 4, 4)


def step(cfg: CfgNode, task: nn.Module, model: nn.Module, seed: int) -> Tensor:
    torch.manual_seed(seed)
    loss: Tensor = task.step(model, batch_of(cfg, seed)).loss  # type: ignore[operator]
    loss.backward()
    return loss.detach()


def test_every_method_is_among_the_cases() -> None:
    found = {id(find_method(config_of(name))) for name in CASES}
    assert found == {id(method) for method in METHODS.values()}


@pytest.mark.parametrize("name", CASES)
def test_a_model_is_one_graph_for_masks_of_all_sizes(name: str) -> None:
    cfg = config_of(name)
    torch.manual_seed(0)
    model = build_model(cfg).train()
    task = build_task(cfg, model)
    whole = compiled(model, "model", backend="eager")
    step(cfg, task, whole, 0)
    num_graphs = 2 if name == "vq" else 1  # encoder and decoder, between which vectors are kept
    assert counters["stats"]["unique_graphs"] == num_graphs
    for seed in range(1, NUM_BATCHES):
        task.step(whole, batch_of(cfg, seed))
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] <= num_graphs + MOST_RECOMPILATIONS


def test_a_graph_is_for_any_number_of_clips_of_one_size() -> None:
    model = build_model(config_of("masked prediction")).train()
    sizes: list[str] = []

    def keep(graph: torch.fx.GraphModule, _: object) -> Any:
        values = [n.meta["example_value"] for n in graph.graph.nodes if n.op == "placeholder"]
        of_clips = [value.shape for value in values if isinstance(value, Tensor)]
        sizes.append(next(str(list(s)) for s in of_clips if len(s) == 5 and s[1] == 3))
        return graph.forward

    whole = compiled(model, "model", backend=keep)
    for count, frames, side in ((2, 4, 32), (3, 4, 32), (4, 4, 32), (2, 2, 48), (5, 2, 48)):
        clips = torch.randn(count, 3, frames, side, side)
        whole(clips, torch.ones(count, frames // 2, side // 8, side // 8, dtype=torch.bool))
    fixed, of_any, of_other = sizes
    assert fixed == "[2, 3, 4, 32, 32]"
    assert re.fullmatch(r"\[s\d+, 3, 4, 32, 32\]", of_any)
    assert re.fullmatch(r"\[s\d+, 3, 2, 48, 48\]", of_other)


@pytest.mark.parametrize("mode", ["model", "block"])
@pytest.mark.parametrize("name", ["masked prediction", "autoencoder", "ibot", "detection"])
def test_loss_and_gradients_are_those_of_the_plain_network(name: str, mode: str) -> None:
    cfg = config_of(name)
    results = []
    for chosen in ("", mode):
        torch.manual_seed(0)
        model = build_model(cfg).train()
        names = list(model.state_dict())
        task = build_task(cfg, model)
        loss = step(cfg, task, compiled(model, chosen, backend="eager"), 1)
        assert list(model.state_dict()) == names
        results.append((loss, [p.grad for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["masked prediction", "autoencoder"])
def test_a_torch_that_breaks_graphs_at_masks_computes_the_same(name: str, monkeypatch) -> None:
    """Before 2.8 a number that is read in a graph ends it, which `fullgraph` would refuse."""
    monkeypatch.setattr(masking, "HAS_UNBROKEN_GRAPHS", False)
    cfg = config_of(name)
    results = []
    for mode in ("", "model"):
        torch.manual_seed(0)
        model = build_model(cfg).train()
        task = build_task(cfg, model)
        results.append(step(cfg, task, compiled(model, mode, backend="eager"), 1))
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-6)


def test_equal_blocks_share_their_graph() -> None:
    """Whatever their rates of drop path are; the first block has none."""
    cfg = config_of("autoencoder", MVIT__DEPTH=5, MASK__PRETRAIN_DEPTH=[4], MVIT__DROPPATH_RATE=0.4)
    model = build_model(cfg).train()
    decoder = len(list(model.pred_head.transforms[0].children())) - 1
    assert decoder > 0
    compiled(model, "block", backend="eager")
    clips = batch_of(cfg, 0).clips
    mask = torch.zeros((2, cfg.DATA.NUM_FRAMES // 2, 4, 4), dtype=torch.bool)
    mask[:, :, 1:] = True
    model(clips, mask)
    assert counters["stats"]["unique_graphs"] == 3  # first block, others, those of the decoder
    assert not counters["graph_break"]


def test_drop_path_of_compiled_blocks_drops_as_often() -> None:
    cfg = config_of("classification", MVIT__DROPPATH_RATE=0.5)
    model = build_model(cfg)
    paths = [block.drop_path for block in compiled(model, "block").blocks]
    ones = torch.ones(20_000, 1, 1)
    kept = paths[1].train()(ones)
    assert set(kept.unique().tolist()) == {0.0, 2.0}
    assert kept.mean().item() == pytest.approx(1.0, abs=0.03)
    assert paths[1].eval()(ones).equal(ones)


def test_compiled_masks_of_unequal_size_are_refused_as_without_it() -> None:
    cfg = config_of("autoencoder")
    model = compiled(build_model(cfg).train(), "model", backend="eager")
    batch = batch_of(cfg, 0)
    mask = torch.zeros((2, cfg.DATA.NUM_FRAMES // 2, 4, 4), dtype=torch.bool)
    mask[:, 0], mask[0, 0, 0, 0] = True, False
    with pytest.raises(ValueError, match="the same number of tokens of each clip visible"):
        model(batch.clips, mask)
    model(batch.clips, batch.mask)
    with pytest.raises(ValueError, match="got one that hides all 64"):
        model(batch.clips, torch.ones_like(mask))


def test_the_network_is_found_inside_the_wrappers_of_torch_compile_and_ddp() -> None:
    model = build_model(config_of("byol"))
    outer = nn.Module()
    outer.module = compiled(model, "model", backend="eager")  # as DDP names what it wraps
    assert unwrap(outer) is model


def test_blocks_alone_need_blocks() -> None:
    with pytest.raises(ValueError, match=r"TRAIN\.COMPILE must be '' or 'model' .* got 'block'"):
        compiled(nn.Linear(2, 2), "block")


def gradients_in_each_process(folder: str) -> None:
    """Gradients, averaged over both processes, and in how many pieces the network was compiled."""
    dist._DEFAULT_FIRST_BUCKET_BYTES = 2_000  # type: ignore[attr-defined] # of DDP and of torch.compile
    results: dict[str, tuple[list[Tensor], int]] = {}
    for mode in ("", "model", "block"):
        torch._dynamo.reset()
        cfg = config_of("masked prediction")
        torch.manual_seed(0)
        model = build_model(cfg).train()
        task = build_task(cfg, model)
        pieces: list[torch.fx.GraphModule] = []

        def keep(graph: torch.fx.GraphModule, _: object, found: list[Any] = pieces) -> Any:
            found.append(graph)
            return graph.forward

        wrapped = DistributedDataParallel(compiled(model, mode, backend=keep), bucket_cap_mb=0.004)
        step(cfg, task, wrapped, 1 + dist.get_rank())
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        results[mode] = gradients, len(pieces)
    torch.save(results, Path(folder) / f"{dist.get_rank()}.pt")


@pytest.mark.slow  # it starts processes that import torch
def test_two_processes_send_gradients_of_a_compiled_network_in_several_buckets(
    tmp_path: Path,
) -> None:
    """The graph of a model is split at the buckets of DDP, and each block is a graph of its own."""
    launch(gradients_in_each_process, 2, (str(tmp_path),))
    for rank in (0, 1):
        results = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        expected, _ = results[""]
        for mode in ("model", "block"):
            gradients, pieces = results[mode]
            torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-6)
            assert pieces > 1
