"""Features of a split, in one process or as one of the processes of torchrun."""

from __future__ import annotations

import argparse
import os

from fvcore.common.config import CfgNode

from slowfast_maskfeat import distributed
from slowfast_maskfeat.builders import DataSource, build_model
from slowfast_maskfeat.builders.model_size import check_model_size
from slowfast_maskfeat.builders.preflight import check_files
from slowfast_maskfeat.checkpoints import load_checkpoint
from slowfast_maskfeat.cli import print_written
from slowfast_maskfeat.commands._options import pairs_of
from slowfast_maskfeat.config import default_config, load_config, parse_config
from slowfast_maskfeat.engine.coordination import from_main
from slowfast_maskfeat.features import save_features
from slowfast_maskfeat.features.file import check_suffix, check_writable
from slowfast_maskfeat.runs.features import build_frozen_model, extract_features
from slowfast_maskfeat.runs.load_trained import named_device

_OUTPUT_DIR = "output/extract_features"


def embed(options: argparse.Namespace) -> None:
    """Extract and write features.

    Args:
        options: of `maskfeat embed`.

    Raises:
        ValueError: the weights do not fit the model, lists are malformed, or the file can't be
            written.
    """
    if options.output:
        check_suffix(options.output)
    device = named_device(options.device)
    cfg = _configuration(options)
    distributed.from_environment("gloo" if device.type == "cpu" else cfg.DIST_BACKEND)
    device = distributed.own_device(device.type)
    if options.output:  # fail before the extraction, not after it
        from_main(lambda: check_writable(options.output))
    data = DataSource(cfg)
    check_files(cfg, [data.videos(options.split)])
    frozen = build_frozen_model(cfg, options.checkpoint, device, data=data)
    features = extract_features(
        cfg, options.split, frozen, of_tokens=options.tokens, device=device, data=data
    )
    if features is None:  # not the main process
        return
    if options.output:
        save_features(options.output, features)
    facts, shape = features.facts, "x".join(map(str, features.features.shape))
    print(
        f"{options.output or cfg.OUTPUT_DIR}: {shape}, {facts['num_decoded']} of "
        f"{facts['num_expected']} samples of {facts['list']} decoded, {facts['num_views']} clips "
        f"each, {facts['pooling']}"
    )
    print_written(filter(None, [features.written, options.output]))


def _configuration(options: argparse.Namespace) -> CfgNode:
    """Configuration of --cfg, or of the checkpoint, with the OUTPUT_DIR of this command."""
    folder = os.path.dirname(options.output) or "." if options.output else _OUTPUT_DIR
    output = [] if "OUTPUT_DIR" in pairs_of(options)[::2] else ["OUTPUT_DIR", folder]
    if options.cfg:
        cfg = load_config([options.cfg], pairs_of(options))
        is_unset = cfg.OUTPUT_DIR == default_config().OUTPUT_DIR
        return load_config([options.cfg], [*output, *pairs_of(options)]) if is_unset else cfg
    content = load_checkpoint(options.checkpoint)
    if not isinstance(content.get("cfg"), str):
        raise ValueError(
            f"{options.checkpoint} contains no configuration; give the YAML file of its model with "
            "--cfg"
        )
    cfg = parse_config(content["cfg"], options.checkpoint, [*output, *pairs_of(options)])
    check_model_size(lambda: build_model(cfg), options.checkpoint, content)
    return cfg
