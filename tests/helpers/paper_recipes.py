"""The values of the experiments that papers describe, each with where it is said.

MAE: He et al., arXiv 2111.06377, appendix A.1 (tables 8 and 9); PRETRAIN.md, FINETUNE.md,
main_pretrain.py, main_finetune.py and models_vit.py of github.com/facebookresearch/mae. SimMIM: Xie
et al., arXiv 2111.09886, and of github.com/microsoft/SimMIM configs/vit_base__800ep, config.py,
data/, optimizer.py and models/.

Learning rates there are for 256 or 512 images in all; here they are for the 256 of a machine, and
`SOLVER.BASE_LR_SCALE_NUM_SHARDS` multiplies them by the machines, the first and last rate, too.
"""

from __future__ import annotations

from typing import Any

Values = dict[str, Any]

# Of this project: sizes of machines and files, and what says which task it is.
COMMON: Values = {
    "DATA.TEST_CROP_SIZE": 224,
    "DATA.TRAIN_CROP_SIZE": 224,
    "NUM_GPUS": 8,
    "RNG_SEED": 0,
    "TEST.ENABLE": False,
    "MODEL.DROPOUT_RATE": 0.0,
    # Both papers: AdamW, decay 0.05 but for biases and norms.
    "SOLVER.OPTIMIZING_METHOD": "adamw",
    "SOLVER.WEIGHT_DECAY": 0.05,
    "SOLVER.ZERO_WD_1D_PARAM": True,
    "SOLVER.BASE_LR_SCALE_NUM_SHARDS": True,
    "SOLVER.COSINE_AFTER_WARMUP": True,
    "AUG.ENABLE": True,
}
IMAGES: Values = {
    "TRAIN.DATASET": "imagenet",
    "TEST.DATASET": "imagenet",
    "TRAIN.BATCH_SIZE": 256,
    "TEST.BATCH_SIZE": 256,
    "DATA.NUM_FRAMES": 1,
    "DATA.MEAN": [0.485, 0.456, 0.406],
    "DATA.STD": [0.229, 0.224, 0.225],
    "DATA.IN_VAL_CROP_RATIO": 0.875,
    "MVIT.PATCH_2D": True,
    "MVIT.PATCH_KERNEL": [16, 16],
    "MVIT.PATCH_STRIDE": [16, 16],
    "MVIT.PATCH_PADDING": [0, 0],
}
VIT_B: Values = {"MVIT.DEPTH": 12, "MVIT.EMBED_DIM": 768, "MVIT.NUM_HEADS": 12}
VIT_L: Values = {"MVIT.DEPTH": 24, "MVIT.EMBED_DIM": 1024, "MVIT.NUM_HEADS": 16}

PRETRAINING: Values = {
    "TASK": "ssl",
    "TRAIN.EVAL_PERIOD": 10000,
    "TRAIN.CHECKPOINT_PERIOD": 10,
    "MODEL.ARCH": "maskmvit",
    "MODEL.MODEL_NAME": "MaskMViT",
    "MODEL.LOSS_FUNC": "multi_mse",
    "MASK.ENABLE": True,
    "MASK.TARGET": "pixels",
    "MASK.MAE_RND_MASK": True,
    # Both: random resized crop of the torchvision aspects and flip, nothing else.
    "DATA.TRAIN_JITTER_ASPECT_RELATIVE": [0.75, 1.3333],
    "DATA.RANDOM_FLIP": True,
    "AUG.AA_TYPE": "",
    "AUG.COLOR_JITTER": None,
    "AUG.RE_PROB": 0.0,
    "MIXUP.ENABLE": False,
}
# MAE: table 8; PRETRAIN.md (1.5e-4 for 256, 800 epochs, 40 of warm-up from 0, normalized pixels);
# main_pretrain.py (crops of 0.2 to 1, bicubic; betas; the end at 0; tokens decay: its timm exempts
# biases and norms alone); models_mae.py (decoder, fixed positions). No clipping.
MAE_PT: Values = {
    "MASK.MAE_ON": True,
    "AUG.MASK_RATIO": 0.75,
    "AUG.INTERPOLATION": "bicubic",
    "DATA.TRAIN_JITTER_SCALES_RELATIVE": [0.2, 1.0],
    "MASK.HEAD_TYPE": "separate_xformer",
    "MASK.DECODER_DEPTH": 8,
    "MASK.DECODER_EMBED_DIM": 512,
    "MASK.DECODER_NUM_HEADS": 16,
    "MASK.DECODER_FIXED_SINCOS_POS": True,
    "MASK.NORM_PRED_PIXEL": True,
    "MASK.PIXEL_LOSS": "l2",
    "MVIT.USE_FIXED_SINCOS_POS": True,
    "MVIT.INIT": "xavier",
    "MVIT.SINCOS_POS_TIME": False,
    "MVIT.DROPPATH_RATE": 0.0,
    "MVIT.ZERO_DECAY_POS_CLS": False,
    "SOLVER.LR_POLICY": "cosine",
    "SOLVER.BASE_LR": 1.5e-4,
    "SOLVER.BETAS": [0.9, 0.95],
    "SOLVER.WARMUP_START_LR": 0.0,
    "SOLVER.COSINE_END_LR": 0.0,
    "SOLVER.MAX_EPOCH": 800,
    "SOLVER.WARMUP_EPOCHS": 40.0,
    "SOLVER.CLIP_GRAD_L2NORM": None,
}
# SimMIM: simmim_pretrain__vit_base__img224__800ep.yaml (drop path, ratio, blocks of 32 pixels,
# epochs, rates for 512, a tenth after 700); config.py (layer scale 0.1, clip 5, betas);
# data_simmim.py (crops of 0.67 to 1, torchvision's bilinear); simmim.py (absolute error, raw
# pixels, one linear layer); optimizer.py with vision_transformer.py (positions, class token).
SIMMIM_PT: Values = {
    "MASK.MAE_ON": False,
    "AUG.MASK_RATIO": 0.6,
    "AUG.INTERPOLATION": "bilinear",
    "DATA.TRAIN_JITTER_SCALES_RELATIVE": [0.67, 1.0],
    "MASK.HEAD_TYPE": "separate",
    "MASK.DECODER_DEPTH": 0,
    "MASK.RANDOM_BLOCK": [1, 2, 2],
    "MASK.NORM_PRED_PIXEL": False,
    "MASK.PIXEL_LOSS": "l1",
    "MVIT.LAYER_SCALE": 0.1,
    "MVIT.INIT": "rescaled",
    "MVIT.DROPPATH_RATE": 0.1,
    "MVIT.ZERO_DECAY_POS_CLS": True,
    "SOLVER.LR_POLICY": "steps_with_relative_lrs",
    "SOLVER.LRS": [1.0, 0.1],
    "SOLVER.COSINE_END_LR": 1e-6,  # of the policy that is not used
    "SOLVER.BETAS": [0.9, 0.999],
    "SOLVER.WARMUP_EPOCHS": 10.0,
    "SOLVER.CLIP_GRAD_L2NORM": 5.0,
    "MASK.PRETRAIN_DEPTH": [11],
    **VIT_B,
}

# MAE's table 9 and SimMIM's config.py agree: the recipe of BEiT.
FINETUNING: Values = {
    "TASK": "ssl_eval",
    "TRAIN.CHECKPOINT_EPOCH_RESET": True,
    "MODEL.ARCH": "mvit",
    "MODEL.MODEL_NAME": "MViT",
    "MODEL.NUM_CLASSES": 1000,
    "MODEL.LOSS_FUNC": "soft_cross_entropy",
    "MVIT.USE_MEAN_POOLING": True,
    "MVIT.HEAD_INIT_SCALE": 0.001,
    "MVIT.ZERO_DECAY_POS_CLS": True,
    "DATA.TRAIN_JITTER_SCALES_RELATIVE": [],  # of images: 0.08 to 1
    "AUG.AA_TYPE": "rand-m9-mstd0.5-inc1",
    "AUG.INTERPOLATION": "bicubic",
    "AUG.RE_PROB": 0.25,
    "AUG.RE_MODE": "pixel",
    "AUG.RE_COUNT": 1,
    "MIXUP.ENABLE": True,
    "MIXUP.ALPHA": 0.8,
    "MIXUP.CUTMIX_ALPHA": 1.0,
    "MIXUP.PROB": 1.0,
    "MIXUP.SWITCH_PROB": 0.5,
    "MIXUP.LABEL_SMOOTH_VALUE": 0.1,
    "SOLVER.LR_POLICY": "cosine",
    "SOLVER.BETAS": [0.9, 0.999],
}
# MAE: FINETUNE.md (rates for 256; drop path, layer decay, epochs of each size), main_finetune.py
# (warm-up from 0, 1e-6 at the end of a batch of 1024, no clipping); models_vit.py (a new norm).
MAE_FT: Values = {
    "TRAIN.CHECKPOINT_LEAVE_OUT": ["norm."],
    "SOLVER.WARMUP_START_LR": 0.0,
    "SOLVER.COSINE_END_LR": 1e-6 / 4,
    "SOLVER.WARMUP_EPOCHS": 5.0,
    "SOLVER.CLIP_GRAD_L2NORM": None,
    "MVIT.LAYER_SCALE": 0.0,
    "MVIT.INIT": "xavier",  # of the new norm and classifier
}
# SimMIM: simmim_finetune__vit_base__img224__800ep.yaml (rates for 512) and config.py.
SIMMIM_FT: Values = {
    "TRAIN.CHECKPOINT_PERIOD": 10,
    "TRAIN.EVAL_PERIOD": 10,
    "SOLVER.BASE_LR": 1.25e-3 / 2,
    "SOLVER.WARMUP_START_LR": 2.5e-7 / 2,
    "SOLVER.COSINE_END_LR": 2.5e-7 / 2,
    "SOLVER.MAX_EPOCH": 100,
    "SOLVER.WARMUP_EPOCHS": 20.0,
    "SOLVER.LAYER_DECAY": 0.65,
    "SOLVER.CLIP_GRAD_L2NORM": 5.0,
    "MVIT.DROPPATH_RATE": 0.1,
    "MVIT.LAYER_SCALE": 0.1,
    "MVIT.INIT": "rescaled",
    **VIT_B,
}
# BEiT: get_started_for_image_classification.md (rates for 1024, epochs, layer decay, drop path) and
# run_class_finetuning.py of github.com/microsoft/unilm, beit (1e-6 at the end, mean pooling with a
# new norm, no clipping); utils.py (warm-up from 0, whose last step has the rate); layer scale of
# README.md; modeling_finetune.py (biases of each block, none of the keys, initialization).
BEIT_FT: Values = {
    "TRAIN.CHECKPOINT_LEAVE_OUT": [],  # the norm of pre-training is not loaded into the new one
    "SOLVER.WARMUP_START_LR": 0.0,
    "SOLVER.WARMUP_INCLUDES_END": True,
    "SOLVER.COSINE_END_LR": 1e-6 / 4,
    "SOLVER.CLIP_GRAD_L2NORM": None,
    "MVIT.USE_ABS_POS": False,
    "MVIT.REL_POS_BIAS": "block",
    "MVIT.KEY_BIAS": False,
    "MVIT.INIT": "beit",
    "MVIT.DECAY_MASK_TOKEN": True,  # there is none in fine-tuning
}

# Key -> value of each file: everything in which it differs from the defaults, and what it keeps.
PAPERS: dict[str, Values] = {
    "masked_ssl/in1k_VIT_B_MAE_PT": {
        **COMMON,
        **IMAGES,
        **PRETRAINING,
        **MAE_PT,
        **VIT_B,
        "MASK.PRETRAIN_DEPTH": [11],
    },
    "masked_ssl/in1k_VIT_L_MAE_PT": {
        **COMMON,
        **IMAGES,
        **PRETRAINING,
        **MAE_PT,
        **VIT_L,
        "MASK.PRETRAIN_DEPTH": [23],
    },
    "masked_ssl/in1k_VIT_B_MAE_FT": {
        **COMMON,
        **IMAGES,
        **FINETUNING,
        **MAE_FT,
        **VIT_B,
        "TRAIN.CHECKPOINT_PERIOD": 10,
        "TRAIN.EVAL_PERIOD": 10,
        "SOLVER.BASE_LR": 5e-4,
        "SOLVER.MAX_EPOCH": 100,
        "SOLVER.LAYER_DECAY": 0.65,
        "MVIT.DROPPATH_RATE": 0.1,
    },
    "masked_ssl/in1k_VIT_L_MAE_FT": {
        **COMMON,
        **IMAGES,
        **FINETUNING,
        **MAE_FT,
        **VIT_L,
        "TRAIN.CHECKPOINT_PERIOD": 5,
        "TRAIN.EVAL_PERIOD": 5,
        "SOLVER.BASE_LR": 1e-3,
        "SOLVER.MAX_EPOCH": 50,
        "SOLVER.LAYER_DECAY": 0.75,
        "MVIT.DROPPATH_RATE": 0.2,
    },
    "masked_ssl/in1k_VIT_B_SimMIM_PT": {
        **COMMON,
        **IMAGES,
        **PRETRAINING,
        **SIMMIM_PT,
        "SOLVER.BASE_LR": 1e-4 / 2,
        "SOLVER.WARMUP_START_LR": 5e-7 / 2,
        "SOLVER.MAX_EPOCH": 800,
        "SOLVER.STEPS": [0, 700],
    },
    "masked_ssl/in1k_VIT_B_SimMIM_FT": {**COMMON, **IMAGES, **FINETUNING, **SIMMIM_FT},
    "masked_ssl/in1k_VIT_B_BEiT_FT": {
        **COMMON,
        **IMAGES,
        **FINETUNING,
        **BEIT_FT,
        **VIT_B,
        "TRAIN.CHECKPOINT_PERIOD": 10,
        "TRAIN.EVAL_PERIOD": 10,
        "SOLVER.BASE_LR": 4e-3 / 4,
        "SOLVER.MAX_EPOCH": 100,
        "SOLVER.WARMUP_EPOCHS": 20.0,
        "SOLVER.LAYER_DECAY": 0.65,
        "MVIT.DROPPATH_RATE": 0.1,
        "MVIT.LAYER_SCALE": 0.1,
    },
    "masked_ssl/in1k_VIT_L_BEiT_FT": {
        **COMMON,
        **IMAGES,
        **FINETUNING,
        **BEIT_FT,
        **VIT_L,
        "TRAIN.CHECKPOINT_PERIOD": 5,
        "TRAIN.EVAL_PERIOD": 5,
        "SOLVER.BASE_LR": 1e-3 / 4,
        "SOLVER.MAX_EPOCH": 50,
        "SOLVER.WARMUP_EPOCHS": 5.0,
        "SOLVER.LAYER_DECAY": 0.75,
        "MVIT.DROPPATH_RATE": 0.2,
        "MVIT.LAYER_SCALE": 1e-5,
    },
    # In no paper: SimMIM's setting on the clips of the published video files, 64 of them a machine.
    "masked_ssl/k400_VIT_B_16x4_SimMIM_PT": {
        **COMMON,
        **PRETRAINING,
        **SIMMIM_PT,
        "TRAIN.DATASET": "kinetics",
        "TEST.DATASET": "kinetics",
        "TRAIN.BATCH_SIZE": 64,
        "TEST.NUM_SPATIAL_CROPS": 1,
        "DATA.NUM_FRAMES": 16,
        "DATA.SAMPLING_RATE": 4,
        "DATA.USE_OFFSET_SAMPLING": True,
        "MVIT.PATCH_KERNEL": [2, 16, 16],
        "MVIT.PATCH_STRIDE": [2, 16, 16],
        "MVIT.PATCH_PADDING": [0, 0, 0],
        "MVIT.SEP_POS_EMBED": True,
        "SOLVER.BASE_LR": 1e-4 / 8,
        "SOLVER.WARMUP_START_LR": 5e-7 / 8,
        "SOLVER.MAX_EPOCH": 300,
        "SOLVER.STEPS": [0, 260],
    },
}

# Matrices and tables that do not decay: the class token and learned positions in fine-tuning
# (`no_weight_decay` of timm's ViT and of SimMIM's); SimMIM's own mask token decays, ours does not.
EXEMPT: dict[str, set[str]] = {
    "masked_ssl/in1k_VIT_B_MAE_PT": set(),
    "masked_ssl/in1k_VIT_L_MAE_PT": set(),
    "masked_ssl/in1k_VIT_B_MAE_FT": {"cls_token", "pos_embed"},
    "masked_ssl/in1k_VIT_L_MAE_FT": {"cls_token", "pos_embed"},
    "masked_ssl/in1k_VIT_B_SimMIM_PT": {"cls_token", "pos_embed", "mask_token"},
    "masked_ssl/in1k_VIT_B_SimMIM_FT": {"cls_token", "pos_embed"},
    "masked_ssl/in1k_VIT_B_BEiT_FT": {"cls_token"},
    "masked_ssl/in1k_VIT_L_BEiT_FT": {"cls_token"},
    "masked_ssl/k400_VIT_B_16x4_SimMIM_PT": {
        "cls_token",
        "pos_embed_class",
        "pos_embed_spatial",
        "pos_embed_temporal",
        "mask_token",
    },
}
