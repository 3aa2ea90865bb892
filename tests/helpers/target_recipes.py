"""The values of the configurations whose targets come from a network, each with its source.

A configuration whose other values are those of a published file names it in `BASE_OF`. Where no
source was read, the source is `OURS`.
"""

from __future__ import annotations

from typing import Any

from helpers.paper_recipes import EXEMPT, PAPERS

Sourced = dict[str, tuple[Any, str]]

OURS = "our choice"
USUAL = "as the other configurations of this project"
BEIT_README = "github.com/microsoft/unilm beit/README.md (pre-training on ImageNet-1k)"
BEIT_WEIGHTS = "beit/README.md: flags of the released weights of 800 epochs on ImageNet-1k"
BEIT_MASKS = "beit/masking_generator.py"
BEIT_DATA = "beit/datasets.py, beit/transforms.py"
BEIT_MODEL = "beit/modeling_pretrain.py"
BEIT_SCHEDULE = "beit/utils.py: cosine_scheduler"
BEVT_MASKS = "the authors' code of BEVT (arXiv 2112.01529): MaskedPositionGenerate and its settings"
BEIT_V2 = "github.com/microsoft/unilm beit2/TOKENIZER.md"
VJEPA_FILE = "github.com/facebookresearch/jepa configs/pretrain/vitl16.yaml"
VJEPA_NETWORK = "facebookresearch/jepa app/vjepa/utils.py"
MVD = "github.com/ruiwang2021/mvd: smooth L1 of layer-normed features"
BEIT_V2_CODES = "beit2/norm_ema_quantizer.py, beit2/modeling_vqkd.py"

BEIT_V2_NETWORK = "beit2/modeling_vqkd.py"
BEIT_V2_RUN = "beit2/run_vqkd_training.py"
BEIT_V2_DATA = "beit2/datasets.py: build_vqkd_dataset"
DALLE = "github.com/openai/DALL-E"
DALLE_MEMORY = "from memory of DALL-E's paper (2102.12092), which was not read"
PECO = "the abstract of PeCo (2111.12710)"
PECO_MEMORY = "from memory of PeCo's paper (2111.12710), which was not read"

# Published file whose values hold for all keys that a table below does not name.
BASE_OF = {
    "masked_ssl/in1k_VIT_B_DINO_features_PT": "masked_ssl/in1k_VIT_B_MaskFeat_PT",
    "masked_ssl/in1k_VIT_B_supervised_features_PT": "masked_ssl/in1k_VIT_B_MaskFeat_PT",
    "masked_ssl/in1k_VIT_B_pseudo_labels_PT": "masked_ssl/in1k_VIT_B_MaskFeat_PT",
    "masked_ssl/in1k_VIT_B_SaGe_features_PT": "masked_ssl/in1k_VIT_B_MaskFeat_PT",
    "masked_ssl/k400_MVITv2_S_16x4_tokens_PT": "masked_ssl/k400_MVITv2_S_16x4_MaskFeat_PT",
    "masked_ssl/k400_MVITv2_S_16x4_features_PT": "masked_ssl/k400_MVITv2_S_16x4_MaskFeat_PT",
    "masked_ssl/k400_MVITv2_S_16x4_pseudo_labels_PT": "masked_ssl/k400_MVITv2_S_16x4_MaskFeat_PT",
    "masked_ssl/in1k_VIT_B_EMA_latents_PT": "masked_ssl/in1k_VIT_B_MaskFeat_PT",
    "masked_ssl/k400_MVITv2_S_16x4_EMA_latents_PT": "masked_ssl/k400_MVITv2_S_16x4_MaskFeat_PT",
}

TARGET_IS = "the name of the configuration"
FEATURES: Sourced = {
    "MASK.TARGET": ("features", TARGET_IS),
    "MASK.PRED_HOG": (False, TARGET_IS),
    "MASK.FEATURE_NORM": ("unit", OURS),
    "MASK.FEATURE_LOSS": ("cosine", OURS),
}
OF_DINO: Sourced = {**FEATURES, "MASK.TEACHER_CFG": ("VIT_B_16", OURS)}
PSEUDO_LABELS: Sourced = {
    "MASK.TARGET": ("pseudo_labels", TARGET_IS),
    "MASK.PRED_HOG": (False, TARGET_IS),
    "MASK.PSEUDO_LABELS": ("soft", OURS),
}
TOKENS: Sourced = {
    "MASK.TARGET": ("tokens", TARGET_IS),
    "MASK.PRED_HOG": (False, TARGET_IS),
    "TOKENIZER.CROP_SIZE": (0, OURS),
}

IMAGES: Sourced = {
    "TRAIN.DATASET": ("imagenet", TARGET_IS),
    "TEST.DATASET": ("imagenet", TARGET_IS),
    "TEST.BATCH_SIZE": (256, USUAL),
    "TEST.ENABLE": (False, "nothing is classified"),
    "DATA.NUM_FRAMES": (1, TARGET_IS),
    "NUM_GPUS": (8, USUAL),
    "RNG_SEED": (0, USUAL),
    "SOLVER.BASE_LR_SCALE_NUM_SHARDS": (True, USUAL),
    "SOLVER.COSINE_AFTER_WARMUP": (True, USUAL),
}

BEIT: Sourced = {
    **IMAGES,
    **TOKENS,
    "TASK": ("ssl", USUAL),
    "TRAIN.BATCH_SIZE": (2048 // 8, f"{BEIT_README}: 2048 in all, here of eight machines"),
    "TRAIN.EVAL_PERIOD": (10000, OURS),
    "TRAIN.CHECKPOINT_PERIOD": (10, OURS),
    "MODEL.ARCH": ("maskmvit", "the task"),
    "MODEL.MODEL_NAME": ("MaskMViT", "the task"),
    "MODEL.LOSS_FUNC": ("multi_mse", "of the task; the target has its own loss"),
    "MODEL.DROPOUT_RATE": (0.0, BEIT_MODEL),
    "MASK.ENABLE": (True, "the task"),
    "MASK.PRETRAIN_DEPTH": ([11], f"{BEIT_MODEL}: after the last block"),
    "MVIT.DEPTH": (12, BEIT_MODEL),
    "MVIT.EMBED_DIM": (768, BEIT_MODEL),
    "MVIT.NUM_HEADS": (12, BEIT_MODEL),
    "MVIT.PATCH_2D": (True, BEIT_MODEL),
    "MVIT.PATCH_KERNEL": ([16, 16], BEIT_MODEL),
    "MVIT.PATCH_STRIDE": ([16, 16], BEIT_MODEL),
    "MVIT.PATCH_PADDING": ([0, 0], BEIT_MODEL),
    "MVIT.DROPPATH_RATE": (0.1, BEIT_README),
    "MVIT.INIT": ("rescaled", f"{BEIT_MODEL}: fix_init_weight"),
    "MVIT.LAYER_SCALE": (0.0, BEIT_WEIGHTS),
    "MVIT.USE_ABS_POS": (True, BEIT_WEIGHTS),
    "MVIT.ZERO_DECAY_POS_CLS": (True, f"{BEIT_MODEL}: no_weight_decay"),
    "DATA.TRAIN_CROP_SIZE": (224, BEIT_DATA),
    "DATA.TEST_CROP_SIZE": (224, OURS),
    "DATA.MEAN": ([0.485, 0.456, 0.406], BEIT_DATA),
    "DATA.STD": ([0.229, 0.224, 0.225], BEIT_DATA),
    "DATA.TRAIN_JITTER_SCALES_RELATIVE": ([0.08, 1.0], BEIT_DATA),
    "DATA.TRAIN_JITTER_ASPECT_RELATIVE": ([0.75, 1.3333], BEIT_DATA),
    "DATA.RANDOM_FLIP": (True, BEIT_DATA),
    "AUG.ENABLE": (True, BEIT_DATA),
    "AUG.COLOR_JITTER": (0.4, BEIT_DATA),
    "AUG.AA_TYPE": ("", BEIT_DATA),
    "AUG.RE_PROB": (0.0, BEIT_DATA),
    "AUG.INTERPOLATION": ("bicubic", BEIT_DATA),
    "AUG.MASK_KIND": ("block", BEIT_MASKS),
    "AUG.MASK_RATIO": (0.38265306, f"{BEIT_README}: 75 of 196 tokens"),
    "AUG.MIN_MASK_PATCHES_PER_BLOCK": (16, BEIT_MASKS),
    "MIXUP.ENABLE": (False, BEIT_DATA),
    "SOLVER.OPTIMIZING_METHOD": ("adamw", BEIT_README),
    "SOLVER.LR_POLICY": ("cosine", BEIT_README),
    "SOLVER.BASE_LR": (1.5e-3 / 8, f"{BEIT_README}: 1.5e-3, here of eight machines"),
    "SOLVER.COSINE_END_LR": (1e-5 / 8, f"{BEIT_README}: 1e-5, here of eight machines"),
    "SOLVER.WARMUP_START_LR": (0.0, BEIT_README),
    "SOLVER.WARMUP_EPOCHS": (10.0, BEIT_README),
    "SOLVER.MAX_EPOCH": (800, BEIT_README),
    "SOLVER.BETAS": ([0.9, 0.999], BEIT_README),
    "SOLVER.WEIGHT_DECAY": (0.05, BEIT_README),
    "SOLVER.ZERO_WD_1D_PARAM": (True, BEIT_README),
    "SOLVER.CLIP_GRAD_L2NORM": (3.0, BEIT_README),
}

BEIT_BACKBONE: Sourced = {
    **BEIT,
    "TOKENIZER.CROP_SIZE": (112, f"{BEIT_DATA}: second_input_size"),
    "MVIT.USE_ABS_POS": (False, f"{BEIT_MODEL}: beit_base_patch16_224_8k_vocab"),
    "MVIT.REL_POS_BIAS": ("shared", f"{BEIT_MODEL}: use_shared_rel_pos_bias"),
    "MVIT.LAYER_SCALE": (0.1, f"{BEIT_README}: layer_scale_init_value of the base model"),
    "MVIT.KEY_BIAS": (False, f"{BEIT_MODEL}: q_bias and v_bias"),
    "MVIT.INIT": ("beit", f"{BEIT_MODEL}: _init_weights, fix_init_weight"),
    "MVIT.DECAY_MASK_TOKEN": (True, f"{BEIT_MODEL}: no_weight_decay"),
    "SOLVER.WARMUP_INCLUDES_END": (True, BEIT_SCHEDULE),
}
BEIT_L: Sourced = {
    **BEIT_BACKBONE,
    **{key: (value, OURS) for key, (value, _) in BEIT.items() if key.startswith("SOLVER.")},
    "MASK.PRETRAIN_DEPTH": ([23], f"{BEIT_MODEL}: after the last block"),
    "MVIT.DEPTH": (24, f"{BEIT_MODEL}: beit_large_patch16_224_8k_vocab"),
    "MVIT.EMBED_DIM": (1024, f"{BEIT_MODEL}: beit_large_patch16_224_8k_vocab"),
    "MVIT.NUM_HEADS": (16, f"{BEIT_MODEL}: beit_large_patch16_224_8k_vocab"),
    "MVIT.LAYER_SCALE": (1e-5, f"{BEIT_README}: layer_scale_init_value of the large model"),
    "MVIT.DROPPATH_RATE": (0.1, OURS),
}
POSITIONS_OF_VIDEO = "k400_VIT_B: declared, there is no such model of the authors"
BEIT_ON_VIDEO: Sourced = {
    **BEIT_BACKBONE,
    "TRAIN.DATASET": ("kinetics", TARGET_IS),
    "TEST.DATASET": ("kinetics", TARGET_IS),
    "TRAIN.BATCH_SIZE": (64, OURS),
    "TEST.BATCH_SIZE": (8, USUAL),
    "TEST.NUM_SPATIAL_CROPS": (1, USUAL),
    "DATA.NUM_FRAMES": (16, TARGET_IS),
    "DATA.SAMPLING_RATE": (4, TARGET_IS),
    "DATA.USE_OFFSET_SAMPLING": (True, USUAL),
    "DATA.MEAN": ([0.45, 0.45, 0.45], USUAL),
    "DATA.STD": ([0.225, 0.225, 0.225], USUAL),
    "DATA.TRAIN_JITTER_SCALES_RELATIVE": ([0.5, 1.0], OURS),
    "MASK.TIME_STRIDE_LOSS": (False, BEVT_MASKS),
    "MVIT.PATCH_2D": (False, POSITIONS_OF_VIDEO),
    "MVIT.PATCH_KERNEL": ([2, 16, 16], POSITIONS_OF_VIDEO),
    "MVIT.PATCH_STRIDE": ([2, 16, 16], POSITIONS_OF_VIDEO),
    "MVIT.PATCH_PADDING": ([0, 0, 0], POSITIONS_OF_VIDEO),
    "MVIT.USE_ABS_POS": (True, POSITIONS_OF_VIDEO),
    "MVIT.SEP_POS_EMBED": (True, POSITIONS_OF_VIDEO),
    "MVIT.REL_POS_BIAS": ("", POSITIONS_OF_VIDEO),
    "AUG.MASK_KIND": ("bevt", BEVT_MASKS),
    "AUG.MASK_RATIO": (0.5, f"{BEVT_MASKS}: 98 of 196 tokens"),
    "AUG.MIN_MASK_PATCHES_PER_BLOCK": (16, BEVT_MASKS),
    "AUG.COLOR_JITTER": (None, OURS),
    "SOLVER.BASE_LR": (1.5e-3 / 32, "BEiT's for the 64 clips of a machine: our choice"),
    "SOLVER.COSINE_END_LR": (1e-5 / 32, "BEiT's for the 64 clips of a machine: our choice"),
    "SOLVER.MAX_EPOCH": (300, OURS),
}

VQ: Sourced = {
    **IMAGES,
    "TASK": ("tokenizer", OURS),
    "TRAIN.BATCH_SIZE": (8 * 64, BEIT_V2),
    "TRAIN.EVAL_PERIOD": (10, OURS),
    "TRAIN.CHECKPOINT_PERIOD": (10, OURS),
    "MODEL.MODEL_NAME": ("Tokenizer", TARGET_IS),
    "TOKENIZER.TYPE": ("vq", TARGET_IS),
    "TOKENIZER.NUM_CODES": (8192, BEIT_V2),
    "TOKENIZER.CODE_DIM": (32, BEIT_V2_CODES),
    "TOKENIZER.CODEBOOK": ("direction", BEIT_V2_CODES),
    "TOKENIZER.DISTANCE": ("cosine", BEIT_V2_CODES),
    "TOKENIZER.DECAY": (0.99, BEIT_V2_CODES),
    "TOKENIZER.BETA": (1.0, BEIT_V2_CODES),
    "TOKENIZER.KMEANS_ROUNDS": (10, BEIT_V2_CODES),
    "TOKENIZER.RESTART_AFTER": (0, BEIT_V2_CODES),
    "TOKENIZER.WIDTHS": ([64, 128, 256, 256], OURS),
    "TOKENIZER.NUM_BLOCKS": (1, OURS),
    "TOKENIZER.RECONSTRUCTION": ("l2", OURS),
    "TOKENIZER.PERCEPTUAL_WEIGHT": (0.0, OURS),
    "DATA.TRAIN_CROP_SIZE": (224, BEIT_V2),
    "DATA.TEST_CROP_SIZE": (224, BEIT_V2),
    "DATA.MEAN": ([0.485, 0.456, 0.406], OURS),
    "DATA.STD": ([0.229, 0.224, 0.225], OURS),
    "DATA.TRAIN_JITTER_SCALES_RELATIVE": ([0.5, 1.0], OURS),
    "DATA.TRAIN_JITTER_ASPECT_RELATIVE": ([0.75, 1.3333], OURS),
    "DATA.RANDOM_FLIP": (True, OURS),
    "AUG.ENABLE": (False, OURS),
    "MIXUP.ENABLE": (False, OURS),
    "SOLVER.OPTIMIZING_METHOD": ("adamw", BEIT_V2),
    "SOLVER.LR_POLICY": ("cosine", OURS),
    "SOLVER.BASE_LR": (5e-5 * 512 / 128, f"{BEIT_V2_RUN}: 5e-5 for 128 images"),
    "SOLVER.COSINE_END_LR": (1e-6, OURS),
    "SOLVER.WARMUP_START_LR": (1e-6, OURS),
    "SOLVER.WARMUP_EPOCHS": (10.0, BEIT_V2),
    "SOLVER.MAX_EPOCH": (100, BEIT_V2),
    "SOLVER.BETAS": ([0.9, 0.99], BEIT_V2),
    "SOLVER.WEIGHT_DECAY": (1e-4, BEIT_V2),
    "SOLVER.ZERO_WD_1D_PARAM": (True, OURS),
    "SOLVER.CLIP_GRAD_L2NORM": (None, OURS),
}

DVAE: Sourced = {
    **IMAGES,
    "TASK": ("tokenizer", OURS),
    "TRAIN.BATCH_SIZE": (512, DALLE_MEMORY),
    "TRAIN.EVAL_PERIOD": (10, OURS),
    "TRAIN.CHECKPOINT_PERIOD": (10, OURS),
    "TRAIN.EMA_DECAY": (0.999, DALLE_MEMORY),
    "MODEL.MODEL_NAME": ("Tokenizer", TARGET_IS),
    "TOKENIZER.TYPE": ("dvae", TARGET_IS),
    "TOKENIZER.ARCH": ("dalle", f"{DALLE}: dall_e/encoder.py, dall_e/decoder.py"),
    "TOKENIZER.NUM_CODES": (8192, f"{DALLE}: vocab_size of dall_e/encoder.py"),
    "TOKENIZER.CODE_DIM": (128, f"{DALLE}: n_init of dall_e/decoder.py"),
    "TOKENIZER.WIDTHS": ([256, 512, 1024, 2048], f"{DALLE}: n_hid of dall_e/encoder.py"),
    "TOKENIZER.NUM_BLOCKS": (2, f"{DALLE}: n_blk_per_group of dall_e/encoder.py"),
    "TOKENIZER.RECONSTRUCTION": ("logit_laplace", DALLE_MEMORY),
    "TOKENIZER.TEMPERATURE": ([1.0, 0.0625], DALLE_MEMORY),
    "TOKENIZER.ANNEALING": (0.5, OURS),
    "TOKENIZER.KL_WEIGHT": ([0.0, 0.034375], f"{DALLE_MEMORY}: 6.6 / 192"),
    "TOKENIZER.KL_WARMUP": (0.01, OURS),
    "TOKENIZER.HARD": (False, OURS),
    "TOKENIZER.PERCEPTUAL_WEIGHT": (0.0, DALLE_MEMORY),
    "DATA.TRAIN_CROP_SIZE": (112, f"{OURS}: as BEiT gives it images"),
    "DATA.TEST_CROP_SIZE": (112, OURS),
    "DATA.MEAN": ([0.485, 0.456, 0.406], OURS),
    "DATA.STD": ([0.229, 0.224, 0.225], OURS),
    "DATA.TRAIN_JITTER_SCALES_RELATIVE": ([0.5, 1.0], OURS),
    "DATA.TRAIN_JITTER_ASPECT_RELATIVE": ([0.75, 1.3333], OURS),
    "DATA.RANDOM_FLIP": (True, OURS),
    "AUG.ENABLE": (False, OURS),
    "MIXUP.ENABLE": (False, OURS),
    "SOLVER.OPTIMIZING_METHOD": ("adamw", DALLE_MEMORY),
    "SOLVER.LR_POLICY": ("cosine", DALLE_MEMORY),
    "SOLVER.BASE_LR": (1e-4, DALLE_MEMORY),
    "SOLVER.COSINE_END_LR": (1.25e-6, DALLE_MEMORY),
    "SOLVER.WARMUP_START_LR": (1e-6, "without effect"),
    "SOLVER.WARMUP_EPOCHS": (0.0, OURS),
    "SOLVER.MAX_EPOCH": (100, OURS),
    "SOLVER.BETAS": ([0.9, 0.999], DALLE_MEMORY),
    "SOLVER.WEIGHT_DECAY": (1e-4, DALLE_MEMORY),
    "SOLVER.ZERO_WD_1D_PARAM": (True, OURS),
    "SOLVER.CLIP_GRAD_L2NORM": (None, OURS),
}

PECO_VQ: Sourced = {
    **VQ,
    "TRAIN.BATCH_SIZE": (512, PECO_MEMORY),
    "TOKENIZER.NUM_CODES": (8192, "BEVT's README: as many as DALL-E's"),
    "TOKENIZER.CODE_DIM": (256, PECO_MEMORY),
    "TOKENIZER.CODEBOOK": ("ema", PECO_MEMORY),
    "TOKENIZER.DISTANCE": ("euclidean", PECO_MEMORY),
    "TOKENIZER.DECAY": (0.99, OURS),
    "TOKENIZER.BETA": (0.25, PECO_MEMORY),
    "TOKENIZER.KMEANS_ROUNDS": (10, OURS),
    "TOKENIZER.RESTART_AFTER": (100, OURS),
    "TOKENIZER.PERCEPTUAL_WEIGHT": (1.0, PECO_MEMORY),
    "TOKENIZER.PERCEPTUAL_CFG": ("VIT_B_16", f"{PECO}: a self-supervised transformer"),
    "TOKENIZER.PERCEPTUAL_LAYERS": (
        ["blocks.2", "blocks.5", "blocks.8", "blocks.10"],
        f"{PECO_MEMORY}: layers 3, 6, 9 and 11",
    ),
    "DATA.TRAIN_CROP_SIZE": (224, PECO_MEMORY),
    "DATA.TEST_CROP_SIZE": (224, OURS),
    "SOLVER.OPTIMIZING_METHOD": ("adamw", OURS),
    "SOLVER.BASE_LR": (5e-5, PECO_MEMORY),
    "SOLVER.WARMUP_EPOCHS": (10.0, OURS),
    "SOLVER.MAX_EPOCH": (100, PECO_MEMORY),
    "SOLVER.BETAS": ([0.9, 0.99], OURS),
    "SOLVER.WEIGHT_DECAY": (1e-4, OURS),
}

PECO_PT: Sourced = {
    **BEIT_BACKBONE,
    "TOKENIZER.CROP_SIZE": (0, f"{PECO_MEMORY}: 14x14 codes of 224 pixels"),
}
PECO_FT: Sourced = {
    key: (value, f"{OURS}: BEiT's fine-tuning, with its sources in paper_recipes.py")
    for key, value in PAPERS["masked_ssl/in1k_VIT_B_BEiT_FT"].items()
}

VQKD: Sourced = {
    **VQ,
    "MASK.TEACHER_CFG": ("VIT_B_16", f"{BEIT_V2}: weights with DINO's ViT-B/16"),
    "TOKENIZER.ARCH": ("vit", BEIT_V2_NETWORK),
    "TOKENIZER.NUM_BLOCKS": (1, f"{BEIT_V2}: weights with DINO's ViT-B/16"),
    "TOKENIZER.RECONSTRUCTION": ("features", BEIT_V2_NETWORK),
    "MVIT.DEPTH": (12, BEIT_V2_NETWORK),
    "MVIT.EMBED_DIM": (768, BEIT_V2_NETWORK),
    "MVIT.NUM_HEADS": (12, BEIT_V2_NETWORK),
    "MVIT.PATCH_2D": (True, BEIT_V2_NETWORK),
    "MVIT.PATCH_KERNEL": ([16, 16], BEIT_V2_NETWORK),
    "MVIT.PATCH_STRIDE": ([16, 16], BEIT_V2_NETWORK),
    "MVIT.PATCH_PADDING": ([0, 0], BEIT_V2_NETWORK),
    "MVIT.USE_ABS_POS": (True, BEIT_V2_NETWORK),
    "MVIT.DROPPATH_RATE": (0.0, BEIT_V2_NETWORK),
    "MVIT.LAYER_SCALE": (0.0, BEIT_V2_NETWORK),
    "MVIT.KEY_BIAS": (False, f"{BEIT_V2_NETWORK}: qkv_bias of beit2/modeling_finetune.py"),
    "MVIT.INIT": ("rescaled", OURS),
    "MVIT.ZERO_DECAY_POS_CLS": (True, f"{BEIT_V2_NETWORK}: no_weight_decay"),
    "DATA.TRAIN_JITTER_SCALES_RELATIVE": ([0.08, 1.0], BEIT_V2),
    "DATA.TRAIN_JITTER_ASPECT_RELATIVE": ([0.75, 1.3333], BEIT_V2_DATA),
    "DATA.RANDOM_FLIP": (True, BEIT_V2_DATA),
    "AUG.ENABLE": (True, BEIT_V2_DATA),
    "AUG.COLOR_JITTER": (0.0, BEIT_V2_RUN),
    "AUG.AA_TYPE": ("", BEIT_V2_DATA),
    "AUG.RE_PROB": (0.0, BEIT_V2_DATA),
    "AUG.INTERPOLATION": ("bicubic", BEIT_V2),
    "SOLVER.BASE_LR": (5e-5 * 512 / 128, f"{BEIT_V2_RUN}: 5e-5 for 128 images"),
    "SOLVER.COSINE_END_LR": (1e-5, BEIT_V2_RUN),
    "SOLVER.WARMUP_START_LR": (0.0, BEIT_V2_RUN),
    "SOLVER.CLIP_GRAD_L2NORM": (None, BEIT_V2_RUN),
}

EMA_LATENTS: Sourced = {
    "MASK.TARGET": ("latents", TARGET_IS),
    "MASK.PRED_HOG": (False, TARGET_IS),
    "MASK.TEACHER_MOMENTUM": ([0.998, 1.0], VJEPA_FILE),
    "MASK.FEATURE_NORM": ("layer", MVD),
    "MASK.FEATURE_LOSS": ("smooth_l1", MVD),
}

VJEPA: Sourced = {
    "TASK": ("ssl", USUAL),
    "TRAIN.BATCH_SIZE": (8 * 24, f"{VJEPA_FILE}: of one of 16 machines"),
    "TRAIN.EVAL_PERIOD": (100000, OURS),
    "TRAIN.CHECKPOINT_PERIOD": (10, OURS),
    "TEST.ENABLE": (False, "nothing is classified"),
    "TEST.NUM_SPATIAL_CROPS": (1, USUAL),
    "TRAIN.DATASET": ("kinetics", OURS),
    "DATA.NUM_FRAMES": (16, VJEPA_FILE),
    "DATA.SAMPLING_RATE": (4, VJEPA_FILE),
    "DATA.TRAIN_CROP_SIZE": (224, VJEPA_FILE),
    "DATA.TEST_CROP_SIZE": (224, USUAL),
    "DATA.USE_OFFSET_SAMPLING": (True, USUAL),
    "DATA.MEAN": ([0.485, 0.456, 0.406], "facebookresearch/jepa app/vjepa/transforms.py"),
    "DATA.STD": ([0.229, 0.224, 0.225], "facebookresearch/jepa app/vjepa/transforms.py"),
    "DATA.TRAIN_JITTER_SCALES_RELATIVE": ([0.3, 1.0], VJEPA_FILE),
    "DATA.TRAIN_JITTER_ASPECT_RELATIVE": ([0.75, 1.35], VJEPA_FILE),
    "DATA.RANDOM_FLIP": (True, "facebookresearch/jepa app/vjepa/train.py"),
    "AUG.ENABLE": (True, "without effect beside the next three"),
    "AUG.AA_TYPE": ("", f"{VJEPA_FILE}: auto_augment"),
    "AUG.COLOR_JITTER": (None, "facebookresearch/jepa app/vjepa/transforms.py"),
    "AUG.RE_PROB": (0.0, VJEPA_FILE),
    "AUG.MASK_KIND": ("multiblock", VJEPA_FILE),
    "AUG.MASK_BLOCKS": ([[8, 0.15], [2, 0.7]], VJEPA_FILE),
    "MODEL.ARCH": ("maskmvit", "the task"),
    "MODEL.MODEL_NAME": ("MaskMViT", "the task"),
    "MODEL.LOSS_FUNC": ("multi_mse", "of the task; the target has its own loss"),
    "MODEL.DROPOUT_RATE": (0.0, "of a classifier, which the task does not have"),
    "MVIT.DROPPATH_RATE": (0.0, f"{VJEPA_NETWORK}: none is set"),
    "MVIT.CLS_EMBED_ON": (False, VJEPA_NETWORK),
    "MVIT.PATCH_KERNEL": ([2, 16, 16], VJEPA_FILE),
    "MVIT.PATCH_STRIDE": ([2, 16, 16], VJEPA_FILE),
    "MVIT.PATCH_PADDING": ([0, 0, 0], VJEPA_FILE),
    "MVIT.USE_FIXED_SINCOS_POS": (True, VJEPA_NETWORK),
    "MVIT.ZERO_DECAY_POS_CLS": (False, f"{VJEPA_NETWORK}: mask tokens decay"),
    "MASK.ENABLE": (True, "the task"),
    "MASK.TARGET": ("latents", TARGET_IS),
    "MASK.MAE_ON": (True, TARGET_IS),
    "MASK.HEAD_TYPE": ("separate_xformer", VJEPA_NETWORK),
    "MASK.DECODER_DEPTH": (12, VJEPA_FILE),
    "MASK.DECODER_EMBED_DIM": (384, VJEPA_FILE),
    "MASK.DECODER_FIXED_SINCOS_POS": (True, VJEPA_NETWORK),
    "MASK.FEATURE_NORM": ("layer", "facebookresearch/jepa app/vjepa/train.py"),
    "MASK.FEATURE_LOSS": ("l1", f"{VJEPA_FILE}: loss_exp"),
    "MASK.TEACHER_NUM_LAYERS": (1, "facebookresearch/jepa app/vjepa/train.py"),
    "MASK.TEACHER_MOMENTUM": (
        [0.998, 0.998 + 0.002 / 1.25],
        f"{VJEPA_FILE}: ema, of which ipe_scale leaves 1 / 1.25",
    ),
    "NUM_GPUS": (8, VJEPA_FILE),
    "RNG_SEED": (0, USUAL),
    "SOLVER.OPTIMIZING_METHOD": ("adamw", VJEPA_NETWORK),
    "SOLVER.BASE_LR": (6.25e-4 / 16, f"{VJEPA_FILE}: of one of 16 machines"),
    "SOLVER.BASE_LR_SCALE_NUM_SHARDS": (True, USUAL),
    "SOLVER.WARMUP_START_LR": (2e-4 / 16, f"{VJEPA_FILE}: of one of 16 machines"),
    "SOLVER.COSINE_END_LR": (1e-6 / 16, f"{VJEPA_FILE}: of one of 16 machines"),
    "SOLVER.COSINE_AFTER_WARMUP": (True, USUAL),
    "SOLVER.WARMUP_EPOCHS": (40.0, VJEPA_FILE),
    "SOLVER.MAX_EPOCH": (300, f"{OURS}: as many as in {VJEPA_FILE}, whose epochs are shorter"),
    "SOLVER.BETAS": ([0.9, 0.999], VJEPA_NETWORK),
    "SOLVER.WEIGHT_DECAY": (0.04, VJEPA_FILE),
    "SOLVER.WEIGHT_DECAY_END": (0.4, VJEPA_FILE),
    "SOLVER.ZERO_WD_1D_PARAM": (True, VJEPA_NETWORK),
    "SOLVER.CLIP_GRAD_L2NORM": (10.0, VJEPA_FILE),
}
VJEPA_B: Sourced = {
    **VJEPA,
    "MVIT.DEPTH": (12, OURS),
    "MVIT.EMBED_DIM": (768, OURS),
    "MVIT.NUM_HEADS": (12, OURS),
    "MASK.PRETRAIN_DEPTH": ([11], "after the last block"),
    "MASK.DECODER_NUM_HEADS": (12, f"{VJEPA_NETWORK}: those of the encoder"),
}
VJEPA_L: Sourced = {
    **VJEPA,
    "MVIT.DEPTH": (24, VJEPA_FILE),
    "MVIT.EMBED_DIM": (1024, VJEPA_FILE),
    "MVIT.NUM_HEADS": (16, VJEPA_FILE),
    "MASK.PRETRAIN_DEPTH": ([23], "after the last block"),
    "MASK.DECODER_NUM_HEADS": (16, f"{VJEPA_NETWORK}: those of the encoder"),
}

TARGET_RECIPES: dict[str, Sourced] = {
    "masked_ssl/in1k_VIT_B_DINO_features_PT": OF_DINO,
    "masked_ssl/in1k_VIT_B_supervised_features_PT": {
        **FEATURES,
        "MASK.TEACHER_CFG": ("", "the checkpoint has it"),
    },
    "masked_ssl/in1k_VIT_B_pseudo_labels_PT": PSEUDO_LABELS,
    "masked_ssl/in1k_VIT_B_SaGe_features_PT": {
        **FEATURES,
        "MASK.TEACHER_CFG": ("", "the checkpoint has it"),
    },
    "masked_ssl/in1k_VQ": VQ,
    "masked_ssl/in1k_DVAE": DVAE,
    "masked_ssl/in1k_PeCo_VQ": PECO_VQ,
    "masked_ssl/in1k_VQKD": VQKD,
    "masked_ssl/in1k_VIT_B_tokens_PT": BEIT,
    "masked_ssl/k400_MVITv2_S_16x4_tokens_PT": TOKENS,
    "masked_ssl/k400_MVITv2_S_16x4_features_PT": OF_DINO,
    "masked_ssl/k400_MVITv2_S_16x4_pseudo_labels_PT": PSEUDO_LABELS,
    "masked_ssl/in1k_VIT_B_BEiT_PT": BEIT_BACKBONE,
    "masked_ssl/in1k_VIT_L_BEiT_PT": BEIT_L,
    "masked_ssl/k400_VIT_B_16x4_BEiT_PT": BEIT_ON_VIDEO,
    "masked_ssl/in1k_VIT_B_EMA_latents_PT": {
        **EMA_LATENTS,
        "MASK.TEACHER_NUM_LAYERS": (6, OURS),
    },
    "masked_ssl/k400_MVITv2_S_16x4_EMA_latents_PT": {
        **EMA_LATENTS,
        "MASK.TEACHER_NUM_LAYERS": (3, OURS),
    },
    "masked_ssl/k400_VIT_B_16x4_VJEPA_PT": VJEPA_B,
    "masked_ssl/k400_VIT_L_16x4_VJEPA_PT": VJEPA_L,
    "masked_ssl/in1k_VIT_B_PeCo_PT": PECO_PT,
    "masked_ssl/in1k_VIT_B_PeCo_FT": PECO_FT,
}

# Matrices and tables that do not decay. BEiT's mask token decays, that of in1k_VIT_B_tokens_PT does
# not.
TARGET_EXEMPT: dict[str, set[str]] = {
    **{name: set[str]() for name in TARGET_RECIPES},
    "masked_ssl/in1k_VIT_B_tokens_PT": {"cls_token", "pos_embed", "mask_token"},
    "masked_ssl/in1k_VQKD": {
        f"{part}.{name}" for part in ("encoder", "decoder") for name in ("cls_token", "pos_embed")
    },
    "masked_ssl/in1k_VIT_B_BEiT_PT": {"cls_token"},
    "masked_ssl/in1k_VIT_L_BEiT_PT": {"cls_token"},
    "masked_ssl/in1k_VIT_B_PeCo_PT": {"cls_token"},
    "masked_ssl/in1k_VIT_B_PeCo_FT": EXEMPT["masked_ssl/in1k_VIT_B_BEiT_FT"],
    "masked_ssl/k400_VIT_B_16x4_BEiT_PT": {
        "cls_token",
        "pos_embed_class",
        "pos_embed_spatial",
        "pos_embed_temporal",
    },
}
