"""Builder of the frozen network that describes clips for a prediction target."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fvcore.common.config import CfgNode

from slowfast_maskfeat.backbones import Backbone, FeatureModel, LayerTokens
from slowfast_maskfeat.builders.backbones import find_backbone
from slowfast_maskfeat.builders.datasets import reverses_channels
from slowfast_maskfeat.builders.model_size import check_model_size
from slowfast_maskfeat.builders.trained_config import trained_config
from slowfast_maskfeat.checkpoints import load_checkpoint, load_weights, read_header
from slowfast_maskfeat.config.shipped import shipped_file
from slowfast_maskfeat.frozen import FrozenNetwork
from slowfast_maskfeat.targets.teacher_tokens import Describe, TeacherTokens


class Teacher(NamedTuple):
    """A network to describe clips with, before it is built.

    Attributes:
        cfg: its configuration, frozen.
        path: its checkpoint.
        num_classes: K of its classifier.
        class_names: of the classes; empty if unknown.
        is_of_images: it takes clips of one frame.
    """

    cfg: CfgNode
    path: str
    num_classes: int
    class_names: tuple[str, ...]
    is_of_images: bool

    def num_frames(self, cfg: CfgNode, token_frames: int) -> int:
        """Count the frames of a token that it describes one by one.

        Args:
            cfg: configuration of the prediction.
            token_frames: frames that a token of the prediction covers.
        """
        return 1 if cfg.MASK.TIME_STRIDE_LOSS or not self.is_of_images else token_frames


def find_teacher(cfg: CfgNode, user: str = "") -> Teacher:
    """Find the network that MASK.TEACHER_CHECKPOINT and MASK.TEACHER_CFG name.

    Args:
        cfg: configuration; not modified.
        user: key and value that need the network, for messages; empty: MASK.TARGET.

    Raises:
        ValueError: see `find_network`.
    """
    return find_network(
        cfg.MASK.TEACHER_CHECKPOINT,
        cfg.MASK.TEACHER_CFG,
        key="MASK.TEACHER",
        user=user or f"MASK.TARGET {cfg.MASK.TARGET!r}",
    )


def find_network(path: str, config_name: str, *, key: str, user: str) -> Teacher:
    """Find a frozen network by its checkpoint, of which only the header is read.

    Args:
        path: of the checkpoint.
        config_name: YAML file, or the name of a shipped one; empty: the checkpoint's own.
        key: of both in the configuration, without `_CHECKPOINT` and `_CFG`, for messages.
        user: key and value that need the network, for messages.

    Raises:
        ValueError: there is no such file, it has no configuration and no name is given, or it is
            of a tokenizer.
    """
    if not path:
        raise ValueError(
            f"{key}_CHECKPOINT must be the checkpoint of a frozen network with {user}, got ''"
        )
    header = read_header(path)
    file = shipped_file(config_name, f"{key}_CFG") if config_name else None
    own = trained_config(path, header, file, key=f"{key}_CFG")
    if own.MODEL.MODEL_NAME == "Tokenizer":
        raise ValueError(
            f"{key}_CHECKPOINT must be of a network that describes tokens by features with {user}, "
            f"got {path} with MODEL.MODEL_NAME 'Tokenizer'"
        )
    names = tuple(header.get("class_names") or ())
    return Teacher(
        own,
        path,
        len(names) or own.MODEL.NUM_CLASSES,
        names,
        is_of_images=own.DATA.NUM_FRAMES == 1,
    )


def teacher_layers(cfg: CfgNode, teacher: Teacher) -> list[int]:
    """Return the blocks, from 0, whose tokens are averaged.

    Args:
        cfg: configuration; uses MASK.TEACHER_LAYER and MASK.TEACHER_NUM_LAYERS.
        teacher: from `find_teacher`.

    Raises:
        ValueError: there is no such block, or the blocks differ in width or grid.
    """
    backbone = find_backbone(teacher.cfg).build_on_meta(teacher.cfg)
    grids = backbone.grids(_clip_size(teacher.cfg))
    depth = len(grids)
    last = cfg.MASK.TEACHER_LAYER
    if not -depth <= last < depth:
        raise ValueError(
            f"MASK.TEACHER_LAYER must be a block of {teacher.path}, in [{-depth}, {depth}), got "
            f"{last}"
        )
    last %= depth
    count = cfg.MASK.TEACHER_NUM_LAYERS
    layers = list(range(last - count + 1, last + 1))
    if layers != [depth - 1] and not isinstance(backbone, LayerTokens):
        raise ValueError(
            f"MASK.TEACHER_LAYER must be -1 and MASK.TEACHER_NUM_LAYERS 1 with MODEL.ARCH "
            f"{teacher.cfg.MODEL.ARCH!r}, which shows only its last tokens, got "
            f"{cfg.MASK.TEACHER_LAYER} and {count}"
        )
    equal = _num_equal(backbone, grids, last)
    if not 1 <= count <= equal:
        raise ValueError(
            f"MASK.TEACHER_NUM_LAYERS must be in [1, {equal}], the blocks up to {last} of equal "
            f"width and grid in {teacher.path}, got {count}"
        )
    return layers


def _num_equal(backbone: Backbone, grids: Sequence[object], last: int) -> int:
    """Count the blocks up to `last` that have its width and grid."""
    if not isinstance(backbone, LayerTokens):
        return 1
    shapes = list(zip(backbone.layer_widths(), grids, strict=True))
    equal = 0
    while equal <= last and shapes[last - equal] == shapes[last]:
        equal += 1
    return equal


def teacher_width(teacher: Teacher, layer: int) -> int:
    """Return the width of the tokens after a block.

    Args:
        teacher: from `find_teacher`.
        layer: block, from 0.
    """
    backbone = find_backbone(teacher.cfg).build_on_meta(teacher.cfg)
    return backbone.layer_widths()[layer] if isinstance(backbone, LayerTokens) else backbone.width


def build_teacher(
    cfg: CfgNode, teacher: Teacher, describe: Describe, *, needs_classifier: bool
) -> TeacherTokens:
    """Build a teacher with its weights.

    Args:
        cfg: configuration of the prediction; not modified.
        teacher: from `find_teacher`.
        describe: gives the tokens of the network.
        needs_classifier: its classifier must be in the checkpoint, too.

    Raises:
        ValueError: the weights do not fit the network, see `load_weights`.
    """
    own = teacher.cfg
    return TeacherTokens(
        load_network(
            teacher,
            min_coverage=cfg.TRAIN.CHECKPOINT_MIN_COVERAGE,
            needs_classifier=needs_classifier,
        ),
        describe,
        is_of_images=teacher.is_of_images,
        crop_size=own.DATA.TRAIN_CROP_SIZE,
        mean=own.DATA.MEAN,
        std=own.DATA.STD,
        clip_mean=cfg.DATA.MEAN,
        clip_std=cfg.DATA.STD,
        is_reversed=reverses_channels(cfg, "train") != reverses_channels(own, "train"),
    )


def load_network(
    found: Teacher, *, min_coverage: float, needs_classifier: bool = False
) -> FrozenNetwork:
    """Build a network with its weights, frozen; it is a `FeatureModel`.

    Args:
        found: from `find_network`.
        min_coverage: see `load_weights`.
        needs_classifier: its classifier must be in the checkpoint, too.

    Raises:
        ValueError: the weights do not fit the network, see `load_weights`.
    """
    content = load_checkpoint(found.path)

    def build() -> FeatureModel:
        backbone = find_backbone(found.cfg)
        return backbone.classifier(
            found.cfg, found.num_classes, mean_pooling=found.cfg.MVIT.USE_MEAN_POOLING
        )

    check_model_size(build, found.path, content)
    network = build()
    load_weights(
        network,
        found.path,
        complete=needs_classifier,
        average=True,
        min_coverage=min_coverage,
        content=content,
    )
    return FrozenNetwork(network, source=str(Path(found.path)))


def _clip_size(cfg: CfgNode) -> tuple[int, int, int]:
    return cfg.DATA.NUM_FRAMES, cfg.DATA.TRAIN_CROP_SIZE, cfg.DATA.TRAIN_CROP_SIZE
