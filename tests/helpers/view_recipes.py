"""The values of the configurations of BYOL, DINO and iBOT, each with its source.

Where no source was read, the source is `OURS`; see target_recipes.py.
"""

from __future__ import annotations

from helpers.target_recipes import IMAGES, OURS, TARGET_IS, USUAL, Sourced

DINO_CODE = "github.com/facebookresearch/dino main_dino.py"
DINO_VIT = "github.com/facebookresearch/dino vision_transformer.py"
DINO_SCHEDULE = "github.com/facebookresearch/dino utils.py, cosine_scheduler; iBOT's is the same"
DINO_README = "github.com/facebookresearch/dino README.md"
IBOT_README = "github.com/bytedance/ibot README.md, ViT-S/16"
IBOT_CODE = "github.com/bytedance/ibot main_ibot.py"
BYOL_CODE = "github.com/google-deepmind/deepmind-research byol/"
MASKFEAT = "configs/masked_ssl/k400_MVITv2_S_16x4_MaskFeat_PT.yaml of PySlowFast"
SVT = "arXiv 2112.01514: nearly the whole video, and an eighth of it; the exact range is our choice"

VIEWS: Sourced = {
    "TASK": ("ssl", USUAL),
    "NUM_GPUS": (8, USUAL),
    "RNG_SEED": (0, USUAL),
    "TEST.ENABLE": (False, "nothing is classified"),
    "TRAIN.EVAL_PERIOD": (10000, OURS),
    "TRAIN.CHECKPOINT_PERIOD": (10, OURS),
    "MODEL.ARCH": ("mvit", "the task"),
    "MODEL.MODEL_NAME": ("ContrastiveModel", "the task"),
    "MODEL.LOSS_FUNC": ("contrastive_loss", "of the task, as PySlowFast's files say"),
    "MODEL.DROPOUT_RATE": (0.0, "there is no classifier"),
    "CONTRASTIVE.MOMENTUM_ANNEALING": (True, f"{BYOL_CODE}; {DINO_CODE}"),
    "DATA.TRAIN_JITTER_ASPECT_RELATIVE": ([0.75, 1.3333], f"{BYOL_CODE}; {DINO_CODE}"),
    "DATA.COLOR_RND_GRAYSCALE": (0.2, f"{BYOL_CODE}; {DINO_CODE}"),
    "DATA.SSL_COLOR_JITTER": (True, f"{BYOL_CODE}; {DINO_CODE}"),
    "DATA.SSL_COLOR_BRI_CON_SAT": ([0.4, 0.4, 0.2], f"{BYOL_CODE}; {DINO_CODE}"),
    "DATA.SSL_COLOR_HUE": (0.1, f"{BYOL_CODE}; {DINO_CODE}"),
    "DATA.SSL_MOCOV2_AUG": (True, f"{BYOL_CODE}; {DINO_CODE}: in 80 % of the views"),
    "DATA.SSL_BLUR_SIGMA_MIN": ([0.0, 0.1], f"{BYOL_CODE}; {DINO_CODE}"),
    "DATA.SSL_BLUR_SIGMA_MAX": ([0.0, 2.0], f"{BYOL_CODE}; {DINO_CODE}"),
    "DATA.TEST_CROP_SIZE": (224, OURS),
    "DATA.TRAIN_CROP_SIZE": (224, f"{BYOL_CODE}; {DINO_CODE}"),
    "SOLVER.OPTIMIZING_METHOD": ("adamw", f"{DINO_CODE}; for BYOL our choice"),
    "SOLVER.LR_POLICY": ("cosine", f"{BYOL_CODE}; {DINO_CODE}"),
    "SOLVER.COSINE_END_LR": (1e-6, f"{DINO_CODE}; for BYOL our choice"),
    "SOLVER.COSINE_AFTER_WARMUP": (True, DINO_CODE),
    "SOLVER.WARMUP_START_LR": (0.0, DINO_CODE),
    "SOLVER.WARMUP_EPOCHS": (10.0, f"{BYOL_CODE}; {DINO_CODE}"),
    "SOLVER.ZERO_WD_1D_PARAM": (True, DINO_CODE),
    "SOLVER.BASE_LR_SCALE_NUM_SHARDS": (True, USUAL),
    "MVIT.ZERO_DECAY_POS_CLS": (False, f"{DINO_CODE}: class token and positions decay"),
}
OF_IMAGES: Sourced = {
    **{key: IMAGES[key] for key in ("TRAIN.DATASET", "TEST.DATASET", "DATA.NUM_FRAMES")},
    "TRAIN.BATCH_SIZE": (512, OURS),
    "TEST.BATCH_SIZE": (256, USUAL),
    "DATA.TRAIN_CROP_NUM_SPATIAL": (2, "two views"),
    "DATA.MEAN": ([0.485, 0.456, 0.406], DINO_CODE),
    "DATA.STD": ([0.229, 0.224, 0.225], DINO_CODE),
    "MVIT.DEPTH": (12, DINO_VIT),
    "MVIT.EMBED_DIM": (768, DINO_VIT),
    "MVIT.NUM_HEADS": (12, DINO_VIT),
    "MVIT.PATCH_2D": (True, DINO_VIT),
    "MVIT.PATCH_KERNEL": ([16, 16], DINO_VIT),
    "MVIT.PATCH_STRIDE": ([16, 16], DINO_VIT),
    "MVIT.PATCH_PADDING": ([0, 0], DINO_VIT),
}
OF_VIT_S: Sourced = {"MVIT.EMBED_DIM": (384, DINO_VIT), "MVIT.NUM_HEADS": (6, DINO_VIT)}
OF_VIDEOS: Sourced = {
    "TRAIN.BATCH_SIZE": (64, OURS),
    "TEST.BATCH_SIZE": (16, OURS),
    "TEST.NUM_SPATIAL_CROPS": (1, MASKFEAT),
    "DATA.NUM_FRAMES": (16, MASKFEAT),
    "DATA.SAMPLING_RATE": (4, MASKFEAT),
    "DATA.USE_OFFSET_SAMPLING": (True, MASKFEAT),
    "DATA.TRAIN_CROP_NUM_TEMPORAL": (2, OURS),
    "MVIT.PATCH_PADDING": ([1, 3, 3], MASKFEAT),
    "MVIT.DIM_MUL": ([[1, 2.0], [3, 2.0], [14, 2.0]], MASKFEAT),
    "MVIT.HEAD_MUL": ([[1, 2.0], [3, 2.0], [14, 2.0]], MASKFEAT),
    "MVIT.POOL_KVQ_KERNEL": ([3, 3, 3], MASKFEAT),
    "MVIT.POOL_Q_STRIDE": (
        [[block, 1, 1 + (block in (1, 3)), 1 + (block in (1, 3))] for block in range(16)],
        MASKFEAT,
    ),
    "MVIT.POOL_KV_STRIDE_ADAPTIVE": ([1, 8, 8], MASKFEAT),
    "MVIT.RESIDUAL_POOLING": (True, MASKFEAT),
    "MVIT.USE_ABS_POS": (False, MASKFEAT),
    "MVIT.REL_POS_SPATIAL": (True, MASKFEAT),
    "MVIT.REL_POS_TEMPORAL": (True, MASKFEAT),
}

DINO: Sourced = {
    "CONTRASTIVE.TYPE": ("dino", TARGET_IS),
    "CONTRASTIVE.DIM": (65536, DINO_CODE),
    "CONTRASTIVE.NUM_MLP_LAYERS": (3, DINO_VIT),
    "CONTRASTIVE.MLP_DIM": (2048, DINO_VIT),
    "CONTRASTIVE.BOTTLENECK_DIM": (256, DINO_VIT),
    "CONTRASTIVE.NORM_LAST_LAYER": (True, DINO_CODE),
    "CONTRASTIVE.FREEZE_LAST_LAYER_EPOCHS": (1, DINO_CODE),
    "CONTRASTIVE.MOMENTUM": (0.996, DINO_CODE),
    "CONTRASTIVE.CENTER_MOMENTUM": (0.9, DINO_CODE),
    "CONTRASTIVE.T": (0.1, DINO_CODE),
    "CONTRASTIVE.TEACHER_T": ([0.04, 0.07], OURS),
    "CONTRASTIVE.TEACHER_T_EPOCHS": (30, OURS),
    "DATA.TRAIN_JITTER_SCALES_RELATIVE": ([0.4, 1.0], DINO_CODE),
    "DATA.SSL_LOCAL_VIEWS": (8, DINO_CODE),
    "DATA.SSL_LOCAL_CROP_SIZE": (96, DINO_CODE),
    "DATA.SSL_LOCAL_SCALES_RELATIVE": ([0.05, 0.4], DINO_CODE),
    "DATA.SSL_BLUR_PROB": ([1.0, 0.1, 0.5], DINO_CODE),
    "DATA.SSL_SOLARIZE_PROB": ([0.0, 0.2, 0.0], DINO_CODE),
    "MVIT.DROPPATH_RATE": (0.1, DINO_CODE),
    "SOLVER.BASE_LR": (0.001, f"{DINO_CODE}: 5e-4 for 256 samples, here 512"),
    "SOLVER.MAX_EPOCH": (100, DINO_README),
    "SOLVER.WARMUP_INCLUDES_END": (True, DINO_SCHEDULE),
    "SOLVER.WEIGHT_DECAY": (0.04, DINO_CODE),
    "SOLVER.WEIGHT_DECAY_END": (0.4, DINO_CODE),
    "SOLVER.CLIP_GRAD_L2NORM": (3.0, DINO_CODE),
    "SOLVER.CLIP_GRAD_PER_PARAM": (True, DINO_CODE),
}
POSITIONS: Sourced = {"MVIT.POS_RESIZE_OFFSET": (0.1, DINO_VIT)}
LEARNED_LENGTH: Sourced = {
    "CONTRASTIVE.NORM_LAST_LAYER": (False, f"{DINO_CODE}: recommended for ViT-S")
}
IBOT: Sourced = {
    **DINO,
    "TRAIN.BATCH_SIZE": (512, f"{IBOT_README}: 1024 in all, here of two machines"),
    "CONTRASTIVE.TYPE": ("ibot", TARGET_IS),
    "CONTRASTIVE.DIM": (8192, IBOT_CODE),
    "CONTRASTIVE.PATCH_DIM": (0, f"{IBOT_README}: --shared_head true"),
    "CONTRASTIVE.PATCH_CENTER": ("all", IBOT_CODE),
    "CONTRASTIVE.VIEW_WEIGHT": (1.0, IBOT_CODE),
    "CONTRASTIVE.PATCH_WEIGHT": (1.0, IBOT_CODE),
    "CONTRASTIVE.TEACHER_T": ([0.04, 0.07], IBOT_README),
    "CONTRASTIVE.PATCH_TEACHER_T": ([0.04, 0.07], IBOT_CODE),
    "CONTRASTIVE.TEACHER_T_EPOCHS": (30, IBOT_README),
    "AUG.MASK_KIND": ("ibot", TARGET_IS),
    "AUG.MASK_RATIO_RANGES": ([[0.0, 0.0], [0.1, 0.5]], IBOT_README),
    "DATA.TRAIN_JITTER_SCALES_RELATIVE": ([0.25, 1.0], IBOT_README),
    "DATA.SSL_LOCAL_VIEWS": (10, IBOT_README),
    "DATA.SSL_LOCAL_SCALES_RELATIVE": ([0.05, 0.25], IBOT_README),
    "SOLVER.BASE_LR": (0.001, f"{IBOT_README}: 5e-4 for 256 samples, here 512 of a machine"),
    "SOLVER.MAX_EPOCH": (800, IBOT_README),
}
BYOL: Sourced = {
    "CONTRASTIVE.TYPE": ("byol", TARGET_IS),
    "CONTRASTIVE.DIM": (256, BYOL_CODE),
    "CONTRASTIVE.NUM_MLP_LAYERS": (2, BYOL_CODE),
    "CONTRASTIVE.MLP_DIM": (4096, BYOL_CODE),
    "CONTRASTIVE.BN_MLP": (True, BYOL_CODE),
    "CONTRASTIVE.BN_SYNC_MLP": (True, BYOL_CODE),
    "CONTRASTIVE.HIDDEN_BIAS": (True, BYOL_CODE),
    "CONTRASTIVE.LAST_BIAS": (False, BYOL_CODE),
    "CONTRASTIVE.PREDICTOR_DEPTHS": ([2], BYOL_CODE),
    "CONTRASTIVE.MOMENTUM": (0.99, f"{BYOL_CODE}: of 300 epochs"),
    "CONTRASTIVE.T": (0.5, "(1 - cosine) / 0.5 is the loss of arXiv 2006.07733, section 3.1"),
    "DATA.TRAIN_JITTER_SCALES_RELATIVE": ([0.08, 1.0], OURS),
    "DATA.SSL_LOCAL_VIEWS": (0, BYOL_CODE),
    "DATA.SSL_COLOR_FORM": ("additive", BYOL_CODE),
    "DATA.SSL_BLUR_PROB": ([1.0, 0.1], BYOL_CODE),
    "DATA.SSL_SOLARIZE_PROB": ([0.0, 0.2], BYOL_CODE),
    "MVIT.DROPPATH_RATE": (0.0, OURS),
    "SOLVER.BASE_LR": (3e-4, OURS),
    "SOLVER.MAX_EPOCH": (300, BYOL_CODE),
    "SOLVER.WEIGHT_DECAY": (0.05, OURS),
}
IN_TIME: Sourced = {
    "DATA.SSL_GLOBAL_SPAN": ([0.8, 1.0], SVT),
    "DATA.SSL_LOCAL_SPAN": ([0.125, 0.125], SVT),
    "DATA.SSL_LOCAL_VIEWS": (8, "arXiv 2112.01514"),
    "SOLVER.BASE_LR": (1.25e-4, f"{OURS}: 5e-4 for 256 samples, here 64"),
    "SOLVER.MAX_EPOCH": (100, OURS),
}

VIEW_RECIPES: dict[str, Sourced] = {
    "masked_ssl/in1k_VIT_S_DINO_PT": {
        **VIEWS,
        **OF_IMAGES,
        **OF_VIT_S,
        **DINO,
        **POSITIONS,
        **LEARNED_LENGTH,
    },
    "masked_ssl/in1k_VIT_B_DINO_PT": {
        **VIEWS,
        **OF_IMAGES,
        **DINO,
        **POSITIONS,
        "SOLVER.MAX_EPOCH": (300, OURS),
    },
    "masked_ssl/in1k_VIT_S_iBOT_PT": {
        **VIEWS,
        **OF_IMAGES,
        **OF_VIT_S,
        **IBOT,
        **POSITIONS,
        **LEARNED_LENGTH,
    },
    "masked_ssl/in1k_VIT_B_iBOT_PT": {
        **VIEWS,
        **OF_IMAGES,
        **IBOT,
        **POSITIONS,
        "CONTRASTIVE.NORM_LAST_LAYER": (True, OURS),
        "SOLVER.MAX_EPOCH": (400, OURS),
    },
    "masked_ssl/in1k_VIT_B_BYOL_PT": {**VIEWS, **OF_IMAGES, **BYOL},
    "masked_ssl/k400_MVITv2_S_16x4_DINO_PT": {**VIEWS, **DINO, **OF_VIDEOS, **IN_TIME},
    "masked_ssl/k400_MVITv2_S_16x4_iBOT_PT": {
        **VIEWS,
        **IBOT,
        **OF_VIDEOS,
        **IN_TIME,
        "AUG.MASK_WINDOW_SIZE": ([8, 7, 7], MASKFEAT),
    },
    "masked_ssl/k400_MVITv2_S_16x4_BYOL_PT": {
        **VIEWS,
        **BYOL,
        **OF_VIDEOS,
        "SOLVER.BASE_LR": (1e-4, OURS),
        "SOLVER.MAX_EPOCH": (200, OURS),
    },
}
