"""Features of a split or of videos, in one process or as one of the processes of torchrun."""

from __future__ import annotations

import argparse
import os
from contextlib import ExitStack

import torch
from fvcore.common.config import CfgNode

from slowfast_maskfeat import distributed
from slowfast_maskfeat.builders import DataSource, build_model
from slowfast_maskfeat.builders.model_size import check_model_size
from slowfast_maskfeat.builders.preflight import check_files
from slowfast_maskfeat.builders.trained_config import trained_config
from slowfast_maskfeat.cli import print_written
from slowfast_maskfeat.commands._options import check_output, only_writer, pairs_of
from slowfast_maskfeat.config import default_config, load_config, parse_config
from slowfast_maskfeat.engine.coordination import from_main
from slowfast_maskfeat.features import save_features
from slowfast_maskfeat.features.extraction import FeatureKind
from slowfast_maskfeat.features.file import check_suffix
from slowfast_maskfeat.runs.embed import find_excerpts
from slowfast_maskfeat.runs.features import Excerpts, build_frozen_model, extract_features
from slowfast_maskfeat.runs.inputs import input_paths
from slowfast_maskfeat.runs.load_trained import TrainedFile, named_device, read_trained

_OUTPUT_DIR = "output/extract_features"
_NAME_OF_VIDEOS = "videos"  # of features that are not of a split


def embed(options: argparse.Namespace) -> int:
    """Extract and write features.

    Args:
        options: of `maskfeat embed`.

    Returns:
        The exit code, in each process: 0, or 1 if a part of --video has no features.

    Raises:
        ValueError: the weights do not fit the model, lists are malformed, or the file can't be
            written.
    """
    if options.output:
        check_suffix(options.output)
    device = named_device(options.device)
    trained = read_trained(options.checkpoint)
    cfg = _configuration(options, trained)
    distributed.from_environment("gloo" if device.type == "cpu" else cfg.DIST_BACKEND)
    device = distributed.own_device(device.type)
    with ExitStack() as held:
        if options.output:  # fail before the extraction, not after it
            from_main(lambda: _reserve(options, held))
        return _extract(options, cfg, trained, device)


def _reserve(options: argparse.Namespace, held: ExitStack) -> None:
    """Check that the file can be written, and lock it as long as the stack is open."""
    check_output(options.output, options)
    held.enter_context(only_writer(options.output))


def _extract(
    options: argparse.Namespace, cfg: CfgNode, trained: TrainedFile, device: torch.device
) -> int:
    data = DataSource(cfg)
    excerpts = _excerpts(options, cfg) if options.video else None
    check_files(cfg, [data.videos(options.split)] if excerpts is None else [excerpts.videos])
    content = trained.content
    frozen = build_frozen_model(cfg, trained.path, device, data=data, content=content)
    features = extract_features(
        cfg,
        options.split if excerpts is None else _NAME_OF_VIDEOS,
        frozen,
        kind=FeatureKind(options.layer, options.pooling),
        device=device,
        data=data,
        excerpts=excerpts,
    )
    facts = {} if features is None else features.facts
    is_lost = bool(facts) and facts["num_decoded"] < facts["num_expected"]
    code = int(excerpts is not None and from_main(lambda: is_lost))
    if features is None:  # not the main process
        return code
    if options.output:
        save_features(options.output, features)
    shape = "x".join(map(str, features.features.shape))
    print(
        f"{options.output or cfg.OUTPUT_DIR}: {shape}, {facts['num_decoded']} of "
        f"{facts['num_expected']} samples of {facts['list']} decoded, {facts['num_views']} clips "
        f"each, {facts['pooling']}"
    )
    print_written(filter(None, [features.written, options.output]))
    return code


def _excerpts(options: argparse.Namespace, cfg: CfgNode) -> Excerpts:
    """List the videos of --video, or their windows, once for all processes."""
    paths = input_paths(cfg, options.video, "--video", pairs=pairs_of(options))

    def find() -> Excerpts:
        source = " ".join(options.video)
        return find_excerpts(
            cfg, paths, window=options.window, stride=options.stride, source=source
        )

    return from_main(find)


def _configuration(options: argparse.Namespace, trained: TrainedFile) -> CfgNode:
    """Configuration of --cfg, or of the checkpoint, with the OUTPUT_DIR of this command."""
    folder = os.path.dirname(options.output) or "." if options.output else _OUTPUT_DIR
    output = [] if "OUTPUT_DIR" in pairs_of(options)[::2] else ["OUTPUT_DIR", folder]
    if options.cfg:
        cfg = load_config([options.cfg], pairs_of(options))
        is_unset = cfg.OUTPUT_DIR == default_config().OUTPUT_DIR
        return load_config([options.cfg], [*output, *pairs_of(options)]) if is_unset else cfg
    path, content = trained
    if options.video:  # the lists of the training need not exist
        cfg = trained_config(path, content, None, [*output, *pairs_of(options)])
    elif not isinstance(content.get("cfg"), str):
        raise ValueError(
            f"{path} contains no configuration; give the YAML file of its model with --cfg"
        )
    else:
        cfg = parse_config(content["cfg"], path, [*output, *pairs_of(options)])
    check_model_size(lambda: build_model(cfg), path, content)
    return cfg
