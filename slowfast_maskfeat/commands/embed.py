"""Extract the features of a split of videos or images with a frozen network.

    maskfeat embed --checkpoint ssl_checkpoint_epoch_00300.pyth --split test \\
        --output features.npz DATA.PATH_TO_DATA_DIR lists OUTPUT_DIR output/probe
    torchrun --nproc_per_node 8 -m slowfast_maskfeat embed --checkpoint ... --split train

Features are saved in OUTPUT_DIR/features during extraction: an interrupted extraction is resumed
from there, and a probe (PROBE.KIND) with the same OUTPUT_DIR, configuration and weights uses them.
Without OUTPUT_DIR that is the folder of --output, else output/extract_features; it is never that of
the checkpoint's training. With --output the features are then written to one file: `features`
(clips, D), or (clips, n, D) with --tokens, `rows`, `views`, `times` (timestamps of each clip in
seconds), `labels`, and as text `paths`, `class_names` and `facts`: annotation file and its hash,
checkpoint and its hash, pooling, decoders, lost videos. The pooled feature of a classifier is its
mean token or class token, according to MVIT.USE_MEAN_POOLING and MVIT.CLS_EMBED_ON; that of a
pre-trained model is the mean of its tokens without the class token. The checkpoint contains its
configuration; weights without a configuration need --cfg.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Sequence

import torch
from fvcore.common.config import CfgNode

from slowfast_maskfeat import distributed
from slowfast_maskfeat.builders import DataSource, build_model
from slowfast_maskfeat.builders.model_size import check_model_size
from slowfast_maskfeat.builders.preflight import check_files
from slowfast_maskfeat.checkpoints import load_checkpoint
from slowfast_maskfeat.cli import exit_code, print_written
from slowfast_maskfeat.config import default_config, load_config, parse_config
from slowfast_maskfeat.engine.coordination import from_main
from slowfast_maskfeat.features import save_features
from slowfast_maskfeat.features.file import check_suffix, check_writable
from slowfast_maskfeat.runs.features import build_frozen_model, extract_features
from slowfast_maskfeat.runs.load_trained import named_device

_OUTPUT_DIR = "output/extract_features"


def main(arguments: Sequence[str]) -> int:
    """Extract and write features, in one process or as one of the processes of torchrun.

    Returns:
        The exit code: 0, 2 for invalid input, or 130 after Ctrl-C.
    """
    warnings.simplefilter("ignore")  # training has already shown these warnings
    options = _parse(arguments)
    code = exit_code(
        lambda: _extract(options), output=options.output or "the features", resumable=True
    )
    if code == 0 and distributed.world_size() > 1:
        distributed.end_process()
    return code


def _extract(options: argparse.Namespace) -> None:
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
    output = [] if "OUTPUT_DIR" in options.opts[::2] else ["OUTPUT_DIR", folder]
    if options.cfg:
        cfg = load_config([options.cfg], options.opts)
        is_unset = cfg.OUTPUT_DIR == default_config().OUTPUT_DIR
        return load_config([options.cfg], [*output, *options.opts]) if is_unset else cfg
    content = load_checkpoint(options.checkpoint)
    if not isinstance(content.get("cfg"), str):
        raise ValueError(
            f"{options.checkpoint} contains no configuration; give the YAML file of its model with "
            "--cfg"
        )
    cfg = parse_config(content["cfg"], options.checkpoint, [*output, *options.opts])
    check_model_size(lambda: build_model(cfg), options.checkpoint, content)
    return cfg


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--checkpoint", required=True, help="checkpoint of a pre-trained or trained model"
    )
    parser.add_argument("--cfg", help="YAML file of the model, for weights without a configuration")
    parser.add_argument(
        "--output",
        help="file ending in .npz or .safetensors; default: only OUTPUT_DIR/features",
    )
    parser.add_argument(
        "--split", default="test", choices=["train", "val", "test"], help="split to extract"
    )
    parser.add_argument(
        "--tokens",
        action="store_true",
        help="features of each token except the class token, instead of one per clip",
    )
    parser.add_argument(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        choices=["cpu", "cuda"],
    )
    parser.add_argument("opts", nargs="*", default=[], metavar="KEY VALUE")
    return parser.parse_args(arguments)
