"""The methods that a comparison knows, one row each, and the networks that they need.

A row has only what makes a method: its target, the share that it masks, and the networks that must
be trained before. Data, backbone, budget and batch size are the recipe's and the same for all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

Keys = Mapping[str, object]

SCRATCH = "scratch"
BASELINE = "hog"
"""The method that the others are compared with, seed by seed."""

MASKFEAT = "MaskFeat (2112.09133) and its published configurations"
STUDY = f"masks of {MASKFEAT}; the target is our choice of form"
BEIT = "BEiT (2106.08254): 75 of 196 tokens in blocks, beit/README.md; on video BEVT (2112.01529)"


@dataclass(frozen=True, kw_only=True)
class ComparedNetwork:
    """A row: a method, or a network that only makes targets.

    Attributes:
        title: for tables and figures.
        stage: section of the recipe whose configuration it starts from: "pretrain", "tokenizer", or
            "finetune" for networks that learn from labels.
        keys: of this method, for images and videos.
        image_keys: further keys for images.
        video_keys: further keys for videos.
        needs: key -> row whose last checkpoint is its value. A recipe may name another row.
        rate: published learning rate for 256 samples; None: there is none for this optimizer, and
            the recipe's rate is used as it is.
        source: of these values.
    """

    title: str
    stage: str = "pretrain"
    keys: Keys = field(default_factory=dict)
    image_keys: Keys = field(default_factory=dict)
    video_keys: Keys = field(default_factory=dict)
    needs: Mapping[str, str] = field(default_factory=dict)
    rate: float | None = None
    source: str = "our choice"


_TOKENS = {"MASK.TARGET": "tokens"}
_BLOCKS = {"AUG.MASK_KIND": "block", "AUG.MASK_RATIO": 75 / 196}
# BEVT (2112.01529): half of a step's tokens, in half of the steps to all of them.
_BEVT = {"AUG.MASK_KIND": "bevt", "AUG.MASK_RATIO": 0.5}
_PIXELS = {"MASK.TARGET": "pixels", "MASK.NORM_PRED_PIXEL": True}
# Two whole views of a sample, with the colors of BYOL, which the others took over.
_VIEWS = {
    "MODEL.ARCH": "mvit",
    "MODEL.MODEL_NAME": "ContrastiveModel",
    "MODEL.LOSS_FUNC": "contrastive_loss",
    "MASK.ENABLE": False,
    "CONTRASTIVE.MOMENTUM_ANNEALING": True,
    "DATA.COLOR_RND_GRAYSCALE": 0.2,
    "DATA.SSL_COLOR_JITTER": True,
    "DATA.SSL_COLOR_BRI_CON_SAT": [0.4, 0.4, 0.2],
    "DATA.SSL_COLOR_HUE": 0.1,
    "DATA.SSL_MOCOV2_AUG": True,
}
_IN_SPACE = {"DATA.TRAIN_CROP_NUM_SPATIAL": 2}
_IN_TIME = {"DATA.TRAIN_CROP_NUM_TEMPORAL": 2}
_SPANS = {"DATA.SSL_GLOBAL_SPAN": [0.8, 1.0], "DATA.SSL_LOCAL_SPAN": [0.125, 0.125]}
# With small views beside the whole ones; `local_crop_size` is their size.
_DINO = {
    **_VIEWS,
    "CONTRASTIVE.NUM_MLP_LAYERS": 3,
    "CONTRASTIVE.MLP_DIM": 2048,
    "CONTRASTIVE.BOTTLENECK_DIM": 256,
    "CONTRASTIVE.FREEZE_LAST_LAYER_EPOCHS": 1,
    "CONTRASTIVE.MOMENTUM": 0.996,
    "CONTRASTIVE.T": 0.1,
    "CONTRASTIVE.TEACHER_T": [0.04, 0.07],
    "CONTRASTIVE.TEACHER_T_EPOCHS": 30,
    "DATA.SSL_BLUR_PROB": [1.0, 0.1, 0.5],
    "DATA.SSL_SOLARIZE_PROB": [0.0, 0.2, 0.0],
}
_LATENTS = {"MASK.TARGET": "latents", "MASK.FEATURE_NORM": "layer"}

METHODS: Mapping[str, ComparedNetwork] = MappingProxyType(
    {
        "hog": ComparedNetwork(
            title="HOG (MaskFeat)",
            keys={"MASK.TARGET": "hog", "AUG.MASK_RATIO": 0.4},
            rate=2e-4,
            source=MASKFEAT,
        ),
        "pixels": ComparedNetwork(
            title="pixels, as MaskFeat",
            keys={**_PIXELS, "AUG.MASK_RATIO": 0.4},
            rate=2e-4,
            source=STUDY,
        ),
        "mae": ComparedNetwork(
            title="pixels (MAE)",
            keys={
                **_PIXELS,
                "MASK.MAE_ON": True,
                "MASK.MAE_RND_MASK": True,
                "MASK.HEAD_TYPE": "separate_xformer",
            },
            image_keys={
                "AUG.MASK_RATIO": 0.75,
                "MASK.DECODER_DEPTH": 8,
                "MASK.DECODER_EMBED_DIM": 512,
                "MASK.DECODER_NUM_HEADS": 16,
            },
            video_keys={
                "AUG.MASK_RATIO": 0.9,
                "MASK.DECODER_DEPTH": 4,
                "MASK.DECODER_EMBED_DIM": 512,
            },
            rate=1.5e-4,
            source="MAE (2111.06377), on video 2205.09113",
        ),
        "simmim": ComparedNetwork(
            title="pixels (SimMIM)",
            keys={
                "MASK.TARGET": "pixels",
                "MASK.NORM_PRED_PIXEL": False,
                "MASK.PIXEL_LOSS": "l1",
                "MASK.MAE_RND_MASK": True,
                "MASK.RANDOM_BLOCK": [1, 2, 2],
                "AUG.MASK_RATIO": 0.6,
            },
            rate=5e-5,
            source="SimMIM (2111.09886): its ViT-B configuration, blocks of two tokens a side",
        ),
        "beit": ComparedNetwork(
            title="tokens of a dVAE (BEiT)",
            keys={**_TOKENS, **_BLOCKS},
            video_keys=_BEVT,
            needs={"TOKENIZER.CHECKPOINT": "dvae"},
            rate=1.5e-3 / 8,
            source=BEIT,
        ),
        "peco": ComparedNetwork(
            title="perceptual tokens (PeCo)",
            keys={**_TOKENS, **_BLOCKS},
            video_keys=_BEVT,
            needs={"TOKENIZER.CHECKPOINT": "perceptual_vq"},
            rate=1.5e-3 / 8,
            source=f"masks of {BEIT}; PeCo (2111.12710)",
        ),
        "features": ComparedNetwork(
            title="features of a frozen network",
            keys={
                "MASK.TARGET": "features",
                "MASK.FEATURE_NORM": "unit",
                "MASK.FEATURE_LOSS": "cosine",
                "AUG.MASK_RATIO": 0.4,
            },
            needs={"MASK.TEACHER_CHECKPOINT": "dino"},
            rate=2e-4,
            source=STUDY,
        ),
        "pseudo_labels": ComparedNetwork(
            title="pseudo-labels of a classifier",
            keys={
                "MASK.TARGET": "pseudo_labels",
                "MASK.PSEUDO_LABELS": "soft",
                "AUG.MASK_RATIO": 0.4,
            },
            needs={"MASK.TEACHER_CHECKPOINT": "classifier"},
            rate=2e-4,
            source=STUDY,
        ),
        "byol": ComparedNetwork(
            title="two views (BYOL)",
            keys={
                **_VIEWS,
                "CONTRASTIVE.TYPE": "byol",
                "CONTRASTIVE.DIM": 256,
                "CONTRASTIVE.NUM_MLP_LAYERS": 2,
                "CONTRASTIVE.MLP_DIM": 4096,
                "CONTRASTIVE.BN_MLP": True,
                "CONTRASTIVE.BN_SYNC_MLP": True,
                "CONTRASTIVE.HIDDEN_BIAS": True,
                "CONTRASTIVE.LAST_BIAS": False,
                "CONTRASTIVE.PREDICTOR_DEPTHS": [2],
                "CONTRASTIVE.MOMENTUM": 0.99,
                "CONTRASTIVE.T": 0.5,
                "DATA.SSL_COLOR_FORM": "additive",
                "DATA.SSL_BLUR_PROB": [1.0, 0.1],
                "DATA.SSL_SOLARIZE_PROB": [0.0, 0.2],
            },
            image_keys=_IN_SPACE,
            video_keys=_IN_TIME,
            source="BYOL (2006.07733) and its code for 300 epochs; AdamW is our choice",
        ),
        "dino": ComparedNetwork(
            title="views (DINO)",
            keys={
                **_DINO,
                "CONTRASTIVE.TYPE": "dino",
                "CONTRASTIVE.DIM": 65536,
                "DATA.SSL_LOCAL_VIEWS": 8,
                "DATA.SSL_LOCAL_SCALES_RELATIVE": [0.05, 0.4],
            },
            image_keys=_IN_SPACE,
            video_keys={**_IN_TIME, **_SPANS},
            rate=5e-4,
            source="DINO (2104.14294): main_dino.py; on video spans as SVT (2112.01514)",
        ),
        "ibot": ComparedNetwork(
            title="views and online tokens (iBOT)",
            keys={
                **_DINO,
                "CONTRASTIVE.TYPE": "ibot",
                "CONTRASTIVE.DIM": 8192,
                "CONTRASTIVE.PATCH_TEACHER_T": [0.04, 0.07],
                "DATA.SSL_LOCAL_VIEWS": 10,
                "DATA.SSL_LOCAL_SCALES_RELATIVE": [0.05, 0.25],
                "AUG.MASK_KIND": "ibot",
                "AUG.MASK_RATIO_RANGES": [[0.0, 0.0], [0.1, 0.5]],
            },
            image_keys=_IN_SPACE,
            video_keys={**_IN_TIME, **_SPANS},
            rate=5e-4,
            source="iBOT (2111.07832): its README for ViT-S; on video spans as SVT (2112.01514)",
        ),
        "latents": ComparedNetwork(
            title="latents of its own average",
            keys={
                **_LATENTS,
                "MASK.FEATURE_LOSS": "smooth_l1",
                "MASK.TEACHER_MOMENTUM": [0.998, 1.0],
                "AUG.MASK_RATIO": 0.4,
            },
            rate=2e-4,
            source=f"momentum of V-JEPA (2404.08471), masks of {MASKFEAT}",
        ),
        "vjepa": ComparedNetwork(
            title="latents, predictor (V-JEPA)",
            keys={
                **_LATENTS,
                "MASK.FEATURE_LOSS": "l1",
                "MASK.TEACHER_MOMENTUM": [0.998, 0.9996],
                "MASK.MAE_ON": True,
                "MASK.HEAD_TYPE": "separate_xformer",
                "MASK.DECODER_DEPTH": 12,
                "MASK.DECODER_EMBED_DIM": 384,
                "AUG.MASK_KIND": "multiblock",
                "AUG.MASK_BLOCKS": [[8, 0.15], [2, 0.7]],
            },
            rate=6.25e-4 / 12,
            source="V-JEPA (2404.08471): vitl16.yaml of its code, 6.25e-4 for 3,072 clips",
        ),
        SCRATCH: ComparedNetwork(title="from scratch", stage="finetune", source="no pre-training"),
    }
)
"""Methods by name. A new one is a row here."""

NETWORKS: Mapping[str, ComparedNetwork] = MappingProxyType(
    {
        "dvae": ComparedNetwork(
            title="dVAE tokenizer", stage="tokenizer", keys={"TOKENIZER.TYPE": "dvae"}
        ),
        "perceptual_vq": ComparedNetwork(
            title="perceptual VQ tokenizer",
            stage="tokenizer",
            keys={"TOKENIZER.TYPE": "vq", "TOKENIZER.PERCEPTUAL_WEIGHT": 1.0},
            needs={"TOKENIZER.PERCEPTUAL_CHECKPOINT": "mae"},
        ),
        # The training from scratch itself: it sees the labels that fine-tuning has, and no others.
        "classifier": ComparedNetwork(title="classifier from scratch", stage="finetune"),
    }
)
"""Networks that only make targets, by name."""

EQUAL_KEYS = (
    "MASK.TIME_STRIDE_LOSS",
    "SOLVER.MAX_EPOCH",
    "SOLVER.WARMUP_EPOCHS",
    "SOLVER.OPTIMIZING_METHOD",
    "TRAIN.BATCH_SIZE",
    "DATA.NUM_FRAMES",
    "DATA.SAMPLING_RATE",
    "DATA.TRAIN_CROP_SIZE",
    "MVIT.DEPTH",
    "MVIT.EMBED_DIM",
    "MVIT.NUM_HEADS",
    "MVIT.PATCH_KERNEL",
    "MVIT.PATCH_STRIDE",
)
"""Keys of pre-training with one value for all methods."""

RATE_RULE = (
    "Each method has its paper's share of masked tokens. The learning rate of its pre-training is "
    "the recipe's times the ratio of its published rate for 256 samples to MaskFeat's (2e-4); "
    "where none is published for AdamW, it is the recipe's. Epochs, warm-up, batch size and "
    "optimizer are the recipe's for all."
)


def rate_factor(network: ComparedNetwork) -> float:
    """Return the factor on the recipe's learning rate of pre-training, see `RATE_RULE`."""
    baseline = METHODS[BASELINE].rate
    assert baseline is not None
    return 1.0 if network.rate is None else network.rate / baseline


def local_crop_size(crop_size: int, patch: int) -> int:
    """Return the size in pixels of small views: DINO's 96 for 224, a whole number of patches.

    Args:
        crop_size: of whole views, in pixels.
        patch: its stride, in pixels.
    """
    return patch * max(round(crop_size * 96 / 224 / patch), 1)


def find_network(name: str) -> ComparedNetwork:
    """Return the row of a method or a network.

    Raises:
        ValueError: there is no such row.
    """
    rows = {**METHODS, **NETWORKS}
    if name not in rows:
        raise ValueError(f"needs: a network must be one of {_listed(rows)}, got {name!r}")
    return rows[name]


def check_methods(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names without repetitions.

    Raises:
        ValueError: there is no method of a name.
    """
    found = tuple(dict.fromkeys(names))
    for name in found:
        if name not in METHODS:
            raise ValueError(f"methods must be among {_listed(METHODS)}, got {name!r}")
    if not found:
        raise ValueError(f"methods must have at least one of {_listed(METHODS)}, got none")
    return found


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
