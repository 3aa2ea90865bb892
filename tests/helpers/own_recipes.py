"""The values of the recipes for somebody's own clips; see target_recipes.py."""

from __future__ import annotations

from helpers.target_recipes import OURS, TARGET_IS, Sourced

OWN_BASE = "masked_ssl/k400_MVITv2_S_16x4_FT"
"""The published file whose values hold for all keys that a table below does not name."""

FINETUNE: Sourced = {
    "NUM_GPUS": (1, OURS),
    "TRAIN.DATASET": ("csv", TARGET_IS),
    "TRAIN.BATCH_SIZE": (8, OURS),
    "TRAIN.EVAL_PERIOD": (1, OURS),
    "TRAIN.CHECKPOINT_PERIOD": (1, OURS),
    "TRAIN.KEEP_CHECKPOINTS": (1, OURS),
    "TRAIN.FREEZE_BLOCKS": (3, f"{OURS}: the blocks before the second widening"),
    "TRAIN.KEEP_BEST": ("validation", OURS),
    "TRAIN.STOP_AFTER": (8, OURS),
    "TEST.DATASET": ("csv", TARGET_IS),
    "TEST.BATCH_SIZE": (8, OURS),
    "TEST.NUM_TEMPORAL_CLIPS": ([5], OURS),
    "SOLVER.BASE_LR": (0.0006 * 8 / 16, f"{OWN_BASE}: 0.0006 for 16 clips"),
    "SOLVER.LAYER_DECAY": (0.65, OURS),
    "SOLVER.MAX_EPOCH": (50, OURS),
    "SOLVER.WARMUP_EPOCHS": (5.0, OURS),
}
LINEAR: Sourced = {
    **FINETUNE,
    "MODEL.LOSS_FUNC": ("cross_entropy", "labels are not mixed"),
    "AUG.ENABLE": (False, OURS),
    "AUG.NUM_SAMPLE": (1, OURS),
    "MIXUP.ENABLE": (False, OURS),
    "DATA.TRAIN_JITTER_SCALES_RELATIVE": ([0.5, 1.0], OURS),
    "TRAIN.FREEZE_BLOCKS": (-1, TARGET_IS),
    "TRAIN.BATCH_SIZE": (16, OURS),
    "SOLVER.BASE_LR": (0.001, OURS),
    "SOLVER.LAYER_DECAY": (1.0, "one layer is trained"),
    "SOLVER.WEIGHT_DECAY": (0.0, OURS),
    "SOLVER.MAX_EPOCH": (100, OURS),
    "SOLVER.WARMUP_EPOCHS": (0.0, OURS),
}
OWN_RECIPES: dict[str, Sourced] = {"own/finetune": FINETUNE, "own/linear": LINEAR}
