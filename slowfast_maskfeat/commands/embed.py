"""Extract the features of videos or images with a frozen network.

    maskfeat embed --checkpoint ssl_checkpoint_epoch_00300.pyth --split test \\
        --output features.npz DATA.PATH_TO_DATA_DIR lists OUTPUT_DIR output/probe
    maskfeat embed --checkpoint ssl_checkpoint_epoch_00300.pyth --video long.mp4 --stride 1 \\
        --pooling mean --output features.npz
    torchrun --nproc_per_node 8 -m slowfast_maskfeat embed --checkpoint ... --split train

The samples are those of a split's list, or with --video any videos, images, folders and lists of
them. Of "test" and of whole videos all views of the test are taken, of "train" and "val" the center
clip. With --stride or --window each window of a video has its center clip; windows begin every
--stride seconds, and the last one ends with the video. Without --window they span a clip.

Features are saved in OUTPUT_DIR/features during extraction: an interrupted extraction is resumed
from there, and a probe (PROBE.KIND) with the same OUTPUT_DIR, configuration and weights uses them.
Without OUTPUT_DIR that is the folder of --output, else output/extract_features; it is never that of
the checkpoint's training. With --output the features are then written to one file: `features`
(clips, D), or with --pooling none (clips, n, D), `rows`, `views`, `times` (timestamps of each clip
in seconds), `labels`, and as text `paths`, `class_names` and `facts`: annotation file and its hash,
checkpoint and its hash, pooling, decoders, lost videos. Without --pooling the feature of a
classifier is its mean token or class token, according to MVIT.USE_MEAN_POOLING and
MVIT.CLS_EMBED_ON; that of a pre-trained model is the mean of its tokens without the class token.
The checkpoint contains its configuration; weights without a configuration need --cfg.
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
from slowfast_maskfeat.builders.trained_config import trained_config
from slowfast_maskfeat.cli import exit_code, print_written, seconds_above_0
from slowfast_maskfeat.config import default_config, load_config, parse_config
from slowfast_maskfeat.engine.coordination import from_main
from slowfast_maskfeat.features import save_features
from slowfast_maskfeat.features.extraction import POOLINGS, FeatureKind
from slowfast_maskfeat.features.file import check_suffix, check_writable
from slowfast_maskfeat.runs.embed import find_excerpts
from slowfast_maskfeat.runs.features import Excerpts, build_frozen_model, extract_features
from slowfast_maskfeat.runs.inputs import input_paths
from slowfast_maskfeat.runs.load_trained import TrainedFile, named_device, read_trained

_OUTPUT_DIR = "output/extract_features"
_NAME_OF_VIDEOS = "videos"  # of features that are not of a split


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
    trained = read_trained(options.checkpoint)
    cfg = _configuration(options, trained)
    distributed.from_environment("gloo" if device.type == "cpu" else cfg.DIST_BACKEND)
    device = distributed.own_device(device.type)
    if options.output:  # fail before the extraction, not after it
        from_main(lambda: check_writable(options.output))
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


def _excerpts(options: argparse.Namespace, cfg: CfgNode) -> Excerpts:
    """List the videos of --video, or their windows, once for all processes."""
    paths = [path for given in options.video for path in input_paths(cfg, given, "--video")]

    def find() -> Excerpts:
        source = " ".join(options.video)
        return find_excerpts(
            cfg, paths, window=options.window, stride=options.stride, source=source
        )

    return from_main(find)


def _configuration(options: argparse.Namespace, trained: TrainedFile) -> CfgNode:
    """Configuration of --cfg, or of the checkpoint, with the OUTPUT_DIR of this command."""
    folder = os.path.dirname(options.output) or "." if options.output else _OUTPUT_DIR
    output = [] if "OUTPUT_DIR" in options.opts[::2] else ["OUTPUT_DIR", folder]
    if options.cfg:
        cfg = load_config([options.cfg], options.opts)
        is_unset = cfg.OUTPUT_DIR == default_config().OUTPUT_DIR
        return load_config([options.cfg], [*output, *options.opts]) if is_unset else cfg
    path, content = trained
    if options.video:  # the lists of the training need not exist
        cfg = trained_config(path, content, None, [*output, *options.opts])
    elif not isinstance(content.get("cfg"), str):
        raise ValueError(
            f"{path} contains no configuration; give the YAML file of its model with --cfg"
        )
    else:
        cfg = parse_config(content["cfg"], path, [*output, *options.opts])
    check_model_size(lambda: build_model(cfg), path, content)
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
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--split",
        default="test",
        choices=["train", "val", "test"],
        help="split to extract (default: %(default)s)",
    )
    source.add_argument(
        "--video", nargs="+", help="videos, images, folders of them, or lists of them"
    )
    parser.add_argument(
        "--window",
        type=seconds_above_0,
        default=0.0,
        help="seconds of a window of a video (default with --stride: those of a clip)",
    )
    parser.add_argument(
        "--stride",
        type=seconds_above_0,
        default=0.0,
        help="seconds from one window to the next (default: --window)",
    )
    parser.add_argument(
        "--layer",
        type=int,
        default=-1,
        help="block whose tokens are taken, from 0; negative: from the last (default: the last)",
    )
    pooling = parser.add_mutually_exclusive_group()
    pooling.add_argument(
        "--pooling",
        default="",
        choices=[name for name in POOLINGS if name],
        help="one feature for each clip, or none: one for each token except the class token "
        "(default: as the classifier of the network takes them)",
    )
    pooling.add_argument(
        "--tokens", action="store_const", dest="pooling", const="none", help="--pooling none"
    )
    parser.add_argument(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        choices=["cpu", "cuda"],
    )
    parser.add_argument("opts", nargs="*", default=[], metavar="KEY VALUE")
    options = parser.parse_args(arguments)
    if not options.video and (options.window or options.stride):
        parser.error("--window and --stride are for --video")
    return options
