"""Defaults of all configuration keys, with one comment each.

Names and meanings are PySlowFast's, which YAML files, papers and discussions of this field use.
Keys of its published files without effect here are in `inert.py`. Keys marked "new" are not
PySlowFast's.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from fvcore.common.config import CfgNode


def default_config() -> CfgNode:
    """Return a new, unfrozen configuration with the default of every key."""
    cfg = CfgNode()
    cfg.IMPORTS = []  # new: modules to import first, which add methods, targets, ... and keys
    cfg.TASK = ""  # prefix of checkpoint names: "ssl" writes ssl_checkpoint_epoch_00010.pyth
    cfg.OUTPUT_DIR = "."  # of all that a run writes; ".": output/ and the name of the first file
    cfg.RNG_SEED = 1  # seed of the initial weights and of all draws in the data pipeline
    cfg.LOG_PERIOD = 10  # steps between log lines; the device is synchronized only then
    cfg.LOG_MODEL_INFO = True  # print parameters and multiply-adds at the start
    cfg.NUM_GPUS = 1  # GPUs per machine, one process each; 0, or no GPU found: the CPU
    cfg.NUM_SHARDS = 1  # number of machines
    cfg.SHARD_ID = 0  # index of this machine
    cfg.DIST_BACKEND = "nccl"  # torch.distributed backend on GPUs; on the CPU it is gloo
    cfg.LOG = _log()  # new
    cfg.TRAIN = _train()
    cfg.TEST = _test()
    cfg.DATA = _data()
    cfg.DATA_LOADER = _data_loader()
    cfg.AUG = _augmentation()
    cfg.MIXUP = _mixup()
    cfg.MODEL = _model()
    cfg.MVIT = _mvit()
    cfg.MASK = _mask()
    cfg.TOKENIZER = _tokenizer()  # new
    cfg.CONTRASTIVE = _contrastive()
    cfg.DETECTION = _detection()
    cfg.AVA = _ava()
    cfg.PROBE = _probe()
    cfg.SOLVER = _solver()
    cfg.TENSORBOARD = _tensorboard()
    for name, value in _added.items():
        *sections, key = name.split(".")
        node = cfg
        for section in sections:
            node = node.setdefault(section, CfgNode())
        node[key] = copy.deepcopy(value)
    return cfg


_added: dict[str, Any] = {}  # keys of extensions


def add_keys(defaults: Mapping[str, Any]) -> None:
    """Add configuration keys of an extension, see the key IMPORTS.

    Args:
        defaults: dotted key, such as "TOY.WIDTH", -> default. A value given later has its type.

    Raises:
        ValueError: a key exists already, as a key or a section, or lies inside another key, or a
            default is None.
    """
    for name, value in defaults.items():
        if value is None:
            raise ValueError(f"the default of {name!r} must have a type, got None")
        node: Any = default_config()
        for part in name.split("."):
            if not isinstance(node, CfgNode):
                raise ValueError(f"the configuration key {name!r} lies inside another key")
            if part not in node:
                break
            node = node[part]
        else:
            raise ValueError(f"the configuration key {name!r} exists already")
        _added[name] = value


def flatten(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested sections as (dotted key, value)."""
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def key_value(cfg: CfgNode, name: str) -> Any:
    """Return the value of a dotted key.

    Raises:
        KeyError: there is no such key.
    """
    node: Any = cfg
    for part in name.split("."):
        node = node[part]
    return node


def added_keys() -> tuple[str, ...]:
    """Return the keys of extensions, dotted."""
    return tuple(_added)


def _train() -> CfgNode:
    node = CfgNode()
    node.ENABLE = True  # train
    node.DATASET = (
        # kinetics, csv, ssv2, ucf101, hmdb51, imagenet, folder, webdataset, charades, ava
        "kinetics"
    )
    node.BATCH_SIZE = 64  # clips per step, over all processes of one machine
    node.EVAL_PERIOD = 10  # epochs between validations; the last epoch is always validated
    node.CHECKPOINT_PERIOD = 10  # epochs between checkpoints; the last epoch always writes one
    node.CHECKPOINT_STEP_PERIOD = 0  # new: steps of the run between checkpoints; 0: none
    node.KEEP_CHECKPOINTS = 0  # new: number of latest checkpoints to keep; 0: all
    node.AUTO_RESUME = True  # resume from the last checkpoint of this TASK in OUTPUT_DIR
    node.CHECKPOINT_FILE_PATH = ""  # weights to start from when there is nothing to resume
    node.CHECKPOINT_EPOCH_RESET = False  # load only the weights of that file and start at epoch 0
    node.CHECKPOINT_CLEAR_NAME_PATTERN = []  # strings to remove from weight names, in tests too
    node.CHECKPOINT_LEAVE_OUT = []  # new: prefixes of names in it that are not loaded
    node.CHECKPOINT_MIN_COVERAGE = 0.95  # new: share of the backbone to fill; 0: accept any file
    node.CHECKPOINT_IN_INIT = False  # image to video: repeat kernels along time
    node.CHECKPOINT_INFLATE = False  # image to video: also divide them; the default
    node.CHECKPOINT_INFLATION = ""  # new: image to video: mean, repeat; "": see above
    node.MIXED_PRECISION = False  # without PRECISION: True is bf16, False float32
    node.PRECISION = ""  # new: float32, tf32, bf16, fp16; "": see MIXED_PRECISION
    node.ACCUMULATION_STEPS = 1  # new: parts that each batch is split into, to save memory
    node.COMPILE = ""  # new: torch.compile the whole model, or each block alone: model, block
    node.FREEZE_BLOCKS = 0  # new: first blocks that are not trained; -1: all but the head
    node.CHECKPOINT_WEIGHTS = "teacher"  # new: of a method with a teacher: teacher or student
    node.EMA_DECAY = 0.0  # new: decay per step of the weight average that is validated; 0: none
    node.MAX_NONFINITE = 3  # new: consecutive steps with a non-finite loss that stop training
    node.MONITOR = ["knn", "rank", "std"]  # new: pre-training: figures of the features; []: none
    node.MONITOR_PERIOD = 10  # new: epochs between them; the last epoch always has them; 0: never
    node.MONITOR_MIN_RANK = 2.0  # new: effective rank of the features below which a warning says so
    # new: keep the best checkpoint, too: by knn, rank or std, or by validation, and test that one;
    # "": do not
    node.KEEP_BEST = ""
    node.STOP_AFTER = 0  # new: validations without progress that stop training; 0: it goes on
    node.STOP_MIN_CHANGE = 0.0  # new: progress is more than this, in the unit of the figure
    return node


def _test() -> CfgNode:
    node = CfgNode()
    node.ENABLE = True  # test after training, or alone
    node.DATASET = "kinetics"  # as TRAIN.DATASET
    node.BATCH_SIZE = 8  # clips per forward pass, over all processes of one machine
    node.CHECKPOINT_FILE_PATH = ""  # weights to test; "": the last of this TASK in OUTPUT_DIR
    node.NUM_ENSEMBLE_VIEWS = 10  # temporal clips per video
    node.NUM_SPATIAL_CROPS = 3  # spatial crops per clip: 1 or 3
    node.NUM_TEMPORAL_CLIPS = []  # several values of NUM_ENSEMBLE_VIEWS, tested in turn
    node.SAVE_RESULTS_PATH = ""  # file for the scores of each video; "": test_scores_*.npz
    node.REPORT = True  # new: write report.html and report.json
    node.REPORT_VIDEOS = 8  # new: videos of each kind, or key frames, that the report shows
    return node


def _data() -> CfgNode:
    node = CfgNode()
    node.PATH_TO_DATA_DIR = ""  # folder of the lists train.csv, val.csv, test.csv, classes.txt
    node.PATH_PREFIX = ""  # folder prepended to the paths in the lists, or folder of the videos
    node.PATH_LABEL_SEPARATOR = " "  # between path and label in the lists
    node.TRAIN_SHARDS = ""  # new: tar shards to train on, `a-{000..099}.tar`; "": see webdataset
    node.VAL_SHARDS = ""  # new: to validate on; braces, wildcards, a folder, or a .txt of them
    node.TEST_SHARDS = ""  # new: to test on
    node.SHARD_LABEL = ""  # new: cls, json, json:<field>, txt; none; "": the first that exists
    node.SHARD_CACHE = ""  # new: folder of indices if not writable beside shards; "": ~/.cache
    node.SHUFFLE_BUFFER = 1000  # new: videos of shards in the shuffle buffer
    node.OFFICIAL_SPLIT = 1  # new: which of the three official splits of UCF101 and HMDB51
    node.NUM_FRAMES = 8  # T, frames per clip
    node.SAMPLING_RATE = 8  # stride between frames of a clip, in frames at TARGET_FPS
    node.TARGET_FPS = 30  # frames per second to which SAMPLING_RATE refers
    node.TRAIN_JITTER_FPS = 0.0  # training adds a uniform draw up to this to TARGET_FPS
    node.USE_OFFSET_SAMPLING = False  # spread test views from the first to the last frame
    node.DECODING_BACKEND = "auto"  # auto, torchcodec, pyav, decord, torchcodec_cuda (new)
    node.DECODE_TIMEOUT = 60.0  # new: seconds after which a hanging worker is ended; 0: never
    node.DECODING_THREADS = 1  # new: threads per decoder; 1 is best with several workers
    node.MAX_IMAGE_PIXELS = 64_000_000  # new: larger images are lost, not decoded; 0: no limit
    node.MAX_BAD_FRACTION = 0.05  # new: share of undecodable videos at which training stops
    node.MEAN = [0.45, 0.45, 0.45]  # per channel, subtracted from values in 0..1
    node.STD = [0.225, 0.225, 0.225]  # per channel, divides the result
    node.REVERSE_INPUT_CHANNEL = False  # feed BGR; ssv2 is always RGB
    node.INPUT_CHANNEL_NUM = [3]  # channels of a clip
    node.TRAIN_CROP_SIZE = 224  # height and width of a training clip
    node.TEST_CROP_SIZE = 256  # height and width of a test clip
    node.TRAIN_JITTER_SCALES = [
        256,
        320,
    ]  # range of the short side before the crop; tests use the first
    node.TRAIN_JITTER_SCALES_RELATIVE = []  # area of random resized crops; []: by short side
    node.TRAIN_JITTER_ASPECT_RELATIVE = []  # aspect ratio of the random resized crop
    node.TRAIN_CROP_NUM_TEMPORAL = 1  # random clips that training samples per decoded video
    node.TRAIN_CROP_NUM_SPATIAL = 1  # crops of each of these clips, besides AUG.NUM_SAMPLE
    node.INV_UNIFORM_SAMPLE = False  # draw the inverse of the short side uniformly
    node.RANDOM_FLIP = True  # flip half of the training clips left to right
    node.ANTIALIAS = True  # new: antialias when a resize shrinks; False is the published form
    node.TIME_DIFF_PROB = 0.0  # training clips: probability of gray differences of frames
    node.COLOR_RND_GRAYSCALE = 0.0  # with SSL_COLOR_JITTER: probability of grayscale
    node.SSL_COLOR_JITTER = False  # color operations of contrastive learning on training clips
    node.SSL_COLOR_BRI_CON_SAT = [0.4, 0.4, 0.4]  # strength: brightness, contrast, saturation
    node.SSL_COLOR_HUE = 0.1  # largest shift of the hue, of which 1 is the whole color wheel
    node.SSL_COLOR_FORM = "blend"  # new: blend: as Pillow; additive: as BYOL's code
    node.SSL_MOCOV2_AUG = False  # the jitter in 80 % of the views, with blur and solarization
    node.SSL_BLUR_SIGMA_MIN = [0.0, 0.1]  # standard deviation in (time, pixels); time: 0
    node.SSL_BLUR_SIGMA_MAX = [0.0, 2.0]
    node.SSL_BLUR_PROB = [0.5]  # new: one for all views; or first, second, and local ones
    node.SSL_SOLARIZE_PROB = [0.0]  # new: likewise
    node.SSL_GLOBAL_SPAN = []  # new: range of the fraction of a video; []: SAMPLING_RATE
    node.SSL_LOCAL_VIEWS = 0  # new: small views of two-view methods
    node.SSL_LOCAL_CROP_SIZE = 96  # new: their height and width
    node.SSL_LOCAL_SCALES_RELATIVE = [0.05, 0.4]  # new: their area
    node.SSL_LOCAL_SPAN = [0.125, 0.125]  # new: their fraction of a video; []: SAMPLING_RATE
    node.IN_VAL_CROP_RATIO = 0.875  # images: test crop size over the short side before the crop
    node.ENSEMBLE_METHOD = "sum"  # combination of the scores of a video's views: sum or max
    return node


def _data_loader() -> CfgNode:
    node = CfgNode()
    node.NUM_WORKERS = 8  # loading processes beside each training process
    node.PIN_MEMORY = True  # copy batches to the GPU from pinned memory
    node.PREFETCH_FACTOR = 2  # new: batches that each worker prepares ahead
    return node


def _augmentation() -> CfgNode:
    node = CfgNode()
    node.ENABLE = False  # RandAugment, random erasing and color jitter in training
    node.AA_TYPE = "rand-m9-mstd0.5-inc1"  # policy of RandAugment; "": none
    node.INTERPOLATION = "bicubic"  # of RandAugment: bicubic, bilinear, random; and of images
    node.COLOR_JITTER = 0.4  # of images without AA_TYPE: brightness, contrast, saturation
    node.RE_PROB = 0.25  # probability of random erasing
    node.RE_MODE = "pixel"  # erased with: pixel, noise; rand, one value per channel; const, zeros
    node.RE_COUNT = 1  # largest number of rectangles erased in a clip
    node.ON_DEVICE = False  # new: RandAugment, resize and color on the device, not in workers
    node.NUM_SAMPLE = 1  # augmented clips per decoded clip; a step has NUM_SAMPLE * BATCH_SIZE
    # new: cube, tube, block, frame, random, bevt, ibot, ibot_random, multiblock; "": as the
    # published keys say
    node.MASK_KIND = ""
    node.MASK_RATIO = 0.0  # share of tokens masked in pre-training
    node.MASK_RATIO_RANGES = [[0.0, 0.0], [0.1, 0.5]]  # new: of ibot masks, one drawn per view
    node.MASK_BLOCKS = [[8, 0.15], [2, 0.7]]  # new: multiblock: [number, area] of each mask's
    node.MASK_WINDOW_SIZE = []  # grid (t, h, w) of the masks; []: derived from the model
    node.MASK_TUBE = False  # the same mask in all frames
    node.MASK_FRAMES = False  # mask whole frames
    node.MAX_MASK_PATCHES_PER_BLOCK = None  # largest block of a block-wise mask; None: the quota
    node.MIN_MASK_PATCHES_PER_BLOCK = None  # new: least block; None: the mask type's own
    return node


def _mixup() -> CfgNode:
    node = CfgNode()
    node.ENABLE = False  # mixup, cutmix and label smoothing in training
    node.ALPHA = 0.8  # parameter of mixup's Beta distribution; 0: no mixup
    node.CUTMIX_ALPHA = 1.0  # the same for cutmix; 0: no cutmix
    node.PROB = 1.0  # probability that a batch is mixed
    node.SWITCH_PROB = 0.5  # probability of cutmix where both are on
    node.LABEL_SMOOTH_VALUE = 0.1  # share of a label that is spread over all classes
    return node


def _model() -> CfgNode:
    node = CfgNode()
    node.ARCH = "mvit"  # mvit; maskmvit for MaskMViT; or a registered backbone
    # MViT; pre-training: MaskMViT (masked prediction) and ContrastiveModel (BYOL, DINO, iBOT);
    # Tokenizer; or a registered method
    node.MODEL_NAME = "MViT"
    node.NUM_CLASSES = 400  # K; class names beside the lists take precedence
    # cross_entropy, soft_cross_entropy; MaskMViT: multi_mse; ContrastiveModel: contrastive_loss;
    # detection, and several labels per video: bce, bce_logit, of logits both
    node.LOSS_FUNC = "cross_entropy"
    node.HEAD_ACT = "softmax"  # from logits to scores when testing: softmax, sigmoid, none
    node.DROPOUT_RATE = 0.5  # before the classifier
    node.ACT_CHECKPOINT = False  # recompute the blocks in the backward pass, to save memory
    node.ACT_CHECKPOINT_BLOCKS = []  # new: numbers of the blocks to recompute; []: all
    node.KERNELS = "plain"  # new: plain, or triton for pooling with its norm and HOG on a GPU
    return node


def _mvit() -> CfgNode:
    node = CfgNode()
    node.DEPTH = 16  # number of blocks
    node.EMBED_DIM = 96  # D of the first block
    node.NUM_HEADS = 1  # attention heads of the first block
    node.MLP_RATIO = 4.0  # hidden width of the MLP over D
    node.QKV_BIAS = True  # bias of the query, key and value projections
    node.KEY_BIAS = True  # new: also of the keys, where it has no effect on the output; BEiT: False
    node.SEPARATE_QKV = False  # three projections instead of one
    node.NORM = "layernorm"  # only layernorm is supported
    node.NORM_STEM = False  # normalize the patch embeddings
    node.DROPPATH_RATE = 0.1  # of the last block, rising linearly from 0
    node.DROPOUT_RATE = 0.0  # of the embeddings, attention output and MLP
    # pooling of queries, keys and values: conv, conv_unshared (with POOL_FIRST), avg, max
    node.MODE = "conv"
    node.POOL_FIRST = False  # pool before the projections
    node.CLS_EMBED_ON = True  # class token
    node.PATCH_2D = False  # 2-D patches; the clip has one frame
    node.PATCH_KERNEL = [3, 7, 7]  # of the patch embedding, in (frames, rows, columns)
    node.PATCH_STRIDE = [2, 4, 4]
    node.PATCH_PADDING = [2, 4, 4]
    node.DIM_MUL = []  # [[block, factor], ...]: where the width grows
    node.HEAD_MUL = []  # [[block, factor], ...]: where the number of heads grows
    node.DIM_MUL_IN_ATT = False  # the width grows in the attention instead of the MLP before
    node.POOL_KVQ_KERNEL = None  # kernel of the pooling; None: the stride plus 1 where it pools
    node.POOL_Q_STRIDE = []  # [[block, t, h, w], ...]
    node.POOL_KV_STRIDE = []  # [[block, t, h, w], ...]
    node.POOL_KV_STRIDE_ADAPTIVE = None  # (t, h, w) of the first block, shrinking with the queries
    node.RESIDUAL_POOLING = False  # add the pooled queries to the attention output
    node.LAYER_SCALE = 0.0  # new: initial value of layer scale; 0: no layer scale
    node.USE_ABS_POS = True  # absolute position embeddings
    node.SEP_POS_EMBED = False  # separate ones for space and time, which are added
    node.USE_FIXED_SINCOS_POS = False  # fixed sin-cos ones instead of learned ones
    node.SINCOS_POS_TIME = True  # new: a quarter of their channels encodes time; False: none
    node.SINCOS_POS_TWICE = False  # new: add them twice, as the published classifier does
    # new: added to rows and columns when absolute ones are resized to other clips; DINO's code has
    # 0.1
    node.POS_RESIZE_OFFSET = 0.0
    node.REL_POS_SPATIAL = False  # relative position embeddings of rows and columns
    node.REL_POS_TEMPORAL = False  # relative position embeddings of time
    node.REL_POS_ZERO_INIT = False  # initialize them to zero
    # new: BEiT's bias of attention by head and relative position, on images: shared by all blocks,
    # one per block; "": none
    node.REL_POS_BIAS = ""
    node.ZERO_DECAY_POS_CLS = True  # no weight decay on position embeddings and class token
    node.DECAY_MASK_TOKEN = False  # new: but on the mask token, as in BEiT
    node.USE_MEAN_POOLING = False  # classify the mean token instead of the class token
    node.INIT = "published"  # new: initialization: published, xavier (MAE), rescaled (SimMIM), beit
    node.HEAD_INIT_SCALE = 1.0  # factor on the initial classifier
    return node


def _mask() -> CfgNode:
    node = CfgNode()
    node.ENABLE = False  # pre-train by masked prediction
    # new: hog, pixels, features, pseudo_labels, tokens, latents; "": as PRED_HOG says, in the
    # published order
    node.TARGET = ""
    node.TEACHER_CHECKPOINT = ""  # new: features, pseudo_labels: weights of the frozen network
    node.TEACHER_CFG = ""  # new: its YAML file, or a name in configs/; "": the checkpoint's own
    # new: latents: momentum of the moving average of the encoder, first and last, linear between
    node.TEACHER_MOMENTUM = [0.998, 1.0]
    node.TEACHER_LAYER = -1  # new: features, latents: block that gives them, from 0; -1: the last
    node.TEACHER_NUM_LAYERS = 1  # new: features, latents: mean over this many blocks up to it
    # new: features, latents: layer (mean 0, variance 1), unit (length), none
    node.FEATURE_NORM = "layer"
    node.FEATURE_LOSS = "smooth_l1"  # new: features, latents: l2, l1, smooth_l1, cosine
    # new: pseudo_labels of images: folder of stored label maps, instead of a frozen network
    node.LABEL_MAPS = ""
    node.PSEUDO_LABELS = "soft"  # new: soft, the distribution; hard, the most likely class
    node.PRED_HOG = False  # predict HOG, else pixels
    node.PRETRAIN_DEPTH = [15]  # blocks after which targets are predicted
    node.HEAD_TYPE = "separate"  # separate: norm and linear; separate_xformer: blocks before them
    node.MAE_ON = False  # encode only visible tokens; else all, with mask tokens
    node.DECODER_DEPTH = 0  # blocks of separate_xformer
    node.DECODER_EMBED_DIM = 512  # width of these blocks, and of MAE's decoder without any
    node.DECODER_NUM_HEADS = 0  # new: their attention heads; 0: one for every 64 channels
    node.DECODER_SEP_POS_EMBED = False  # MAE_ON: decoder positions for space and time, added
    node.DECODER_FIXED_SINCOS_POS = False  # new: MAE_ON: fixed sin-cos ones
    node.DEC_KV_KERNEL = []  # pooling kernel of keys and values in them
    node.DEC_KV_STRIDE = []  # pooling stride of keys and values in them
    node.MAE_RND_MASK = False  # mask random tokens
    node.RANDOM_BLOCK = []  # new: then mask blocks of (t, h, w) tokens; []: single tokens
    node.PER_FRAME_MASKING = False  # the same number of random tokens in every frame
    # predict the first frame of a token, not every one (not for HOG, which has only the first)
    node.TIME_STRIDE_LOSS = True
    node.NORM_PRED_PIXEL = True  # pixels: normalize each token's pixels
    node.PIXEL_LOSS = "l2"  # new: pixels: l2 (squared error) or l1 (absolute error)
    node.HOG_BINS = 9  # new: orientations in 0..180 degrees
    node.HOG_CELL = 8  # new: side of a cell in pixels
    node.HOG_GAUSSIAN_WINDOW = 0  # new: side of the weighting window in pixels; 0: none
    return node


def _tokenizer() -> CfgNode:
    node = CfgNode()
    node.TYPE = "vq"  # vq: nearest code of a codebook; dvae: Gumbel-softmax over the codes
    # network: convolutional; dalle: DALL-E's; vqgan: VQGAN's; vit: BEiT v2's, by the keys of MVIT
    node.ARCH = "convolutional"
    node.CHECKPOINT = ""  # MASK.TARGET tokens: a trained tokenizer
    node.CFG = ""  # MASK.TARGET tokens: its YAML file, or a name in configs/; "": its own
    node.DECODER_CHECKPOINT = ""  # MASK.TARGET tokens: decoder of dalle, for pictures
    # MASK.TARGET tokens: side of its input in pixels, resized from the same crop; 0: as the clip
    node.CROP_SIZE = 0
    node.NUM_CODES = 8192  # K
    node.CODE_DIM = 32  # width of a code
    node.WIDTHS = [64, 128, 256, 256]  # channels of each stage, which halves rows and columns
    node.NUM_BLOCKS = 1  # residual blocks in each stage; vit: blocks of the decoder
    node.ATTENTION = True  # vqgan: attention on the grid of the codes
    # pixels: l1, l2, smooth_l1, logit_laplace; features: of the network of MASK.TEACHER_CHECKPOINT
    node.RECONSTRUCTION = "l2"
    node.MIN_USAGE = 0.05  # warn if an epoch uses a smaller share of the codes
    # vq: codebook by moving averages of sums (ema) or directions (direction), or by gradients
    node.CODEBOOK = "ema"
    node.DISTANCE = "euclidean"  # vq: nearest code: euclidean, cosine
    node.BETA = 0.25  # vq: weight of the commitment loss
    node.BETA_ON_CODEBOOK = False  # vq, gradient: BETA weights the codebook's loss instead
    node.DECAY = 0.99  # vq: of the moving averages per step
    node.KMEANS_ROUNDS = 10  # vq: rounds of k-means on the first step; 0: a random codebook
    node.RESTART_AFTER = 0  # vq: move a code that so many steps did not use; 0: never
    node.TEMPERATURE = [1.0, 0.0625]  # dvae: at the start and from ANNEALING of the training on
    node.KL_WEIGHT = [0.0, 0.01]  # dvae: at the start and from KL_WARMUP of the training on
    node.ANNEALING = 0.5  # dvae: share of the training in which the temperature falls
    node.KL_WARMUP = 0.1  # dvae: share of the training in which the weight rises
    node.HARD = False  # dvae: decode one code per cell, with the gradient of the soft weights
    node.PERCEPTUAL_WEIGHT = 0.0  # of the distance of a frozen network's features; 0: none
    node.PERCEPTUAL_CHECKPOINT = ""  # its weights
    # its YAML file, or a name in configs/; "": the checkpoint's own; lpips: VGG-16 and the weights
    # of LPIPS
    node.PERCEPTUAL_CFG = ""
    node.PERCEPTUAL_LAYERS = []  # names of its modules whose outputs are compared: ['blocks.11']
    return node


def _contrastive() -> CfgNode:
    node = CfgNode()
    # ContrastiveModel: byol, dino or ibot; mem, the published default, does not exist here
    node.TYPE = "mem"
    node.DIM = 128  # byol: width of a projection; dino, ibot: prototypes K of a view
    node.NUM_MLP_LAYERS = 1  # linear layers of the projector, or before the prototypes
    node.MLP_DIM = 2048  # width between them
    node.BN_MLP = False  # batch norm between them
    node.BN_SYNC_MLP = False  # with statistics over all processes
    node.HIDDEN_BIAS = False  # new: byol: layers before a batch norm have a bias
    node.LAST_BIAS = True  # new: byol: the last layers have a bias
    node.PREDICTOR_DEPTHS = []  # byol: [linear layers of the predictor]
    node.MOMENTUM = 0.5  # of the teacher, per step
    node.MOMENTUM_ANNEALING = False  # it rises to 1 by a cosine over the training
    node.T = 0.07  # dino, ibot: temperature of the student; byol: the loss is (1 - cosine) / T
    # new: dino, ibot: temperature of the teacher for whole views, in the first epoch and after
    # TEACHER_T_EPOCHS
    node.TEACHER_T = [0.04, 0.07]
    node.PATCH_TEACHER_T = [0.04, 0.07]  # new: ibot: the same for patch tokens
    node.TEACHER_T_EPOCHS = 0  # new: epochs in which both rise linearly
    node.CENTER_MOMENTUM = 0.9  # new: dino, ibot: of the centers of the teacher's outputs, per step
    node.BOTTLENECK_DIM = 256  # new: dino, ibot: width before the prototypes
    node.NORM_LAST_LAYER = True  # new: dino, ibot: prototypes of length 1; else they learn it
    node.FREEZE_LAST_LAYER_EPOCHS = 0  # new: dino, ibot: first epochs without updates of them
    node.PATCH_DIM = 0  # new: ibot: prototypes of a patch token; 0: those of views, shared
    node.PATCH_CENTER = "all"  # new: ibot: center over all patch tokens, or masked as in DINOv2
    node.KOLEO_WEIGHT = 0.0  # new: weight of KoLeo, which keeps features of samples apart (DINOv2)
    node.VIEW_WEIGHT = 1.0  # new: ibot: weight of the loss of views
    node.PATCH_WEIGHT = 1.0  # new: ibot: weight of the loss of masked patch tokens
    return node


def _detection() -> CfgNode:
    node = CfgNode()
    node.ENABLE = False  # classify boxes in clips instead of whole clips
    node.ALIGNED = True  # boxes are shifted by -0.5 token, as by ROIAlign with aligned=True
    node.SPATIAL_SCALE_FACTOR = 0  # pixels per output token; 0: derived, other values must agree
    node.ROI_XFORM_RESOLUTION = 7  # bins along each side of a box
    return node


def _ava() -> CfgNode:
    node = CfgNode()
    node.ANNOTATION_DIR = ""  # folder of the files below; "": DATA.PATH_TO_DATA_DIR
    node.VIDEO_DIR = ""  # new: folder of the videos, <name>.mp4 or another ending
    node.VIDEO_BEGIN = -1.0  # new: second at which they begin; -1: 0, or 900 if 15 minutes long
    node.FRAME_DIR = ""  # folder of extracted frames, where VIDEO_DIR is empty
    node.FRAME_LIST_DIR = ""  # folder of TRAIN_LISTS and TEST_LISTS; "": that of the annotations
    node.TRAIN_LISTS = ["train.csv"]  # lists of frames to train on; []: all in FRAME_DIR/<name>
    node.TEST_LISTS = ["val.csv"]  # lists of frames to validate and test on
    node.FRAME_BEGIN = 900.0  # new: second at which extracted frames begin
    node.FRAME_RATE = 30.0  # new: extracted frames a second
    node.TRAIN_GT_BOX_LISTS = ["ava_train_v2.2.csv"]  # drawn boxes to train on
    node.TRAIN_PREDICT_BOX_LISTS = []  # detected boxes to train on
    node.TEST_PREDICT_BOX_LISTS = ["ava_val_predicted_boxes.csv"]  # boxes to validate and test on
    node.DETECTION_SCORE_THRESH = 0.9  # least score of a detected box
    node.GROUNDTRUTH_FILE = "ava_val_v2.2.csv"  # ground truth of validation and test
    node.EXCLUSION_FILE = "ava_val_excluded_timestamps_v2.2.csv"  # key frames left out; "": none
    node.LABEL_MAP_FILE = "ava_action_list_v2.2_for_activitynet_2019.pbtxt"  # evaluated actions
    node.FULL_TEST_ON_VAL = False  # validate on every key frame instead of every fourth second
    node.MULTI_LABEL = True  # new: a box has any number of actions, else one
    node.BGR = False  # feed BGR
    node.TEST_FORCE_FLIP = False  # validate and test on mirrored clips
    return node


def _probe() -> CfgNode:
    node = CfgNode()
    node.KIND = ""  # new: linear, attentive, knn: evaluate frozen features, do not train
    node.NUM_NEIGHBORS = 20  # new: knn: neighbors that vote, at most the training samples
    node.TEMPERATURE = 0.07  # new: knn: the weight of a vote is exp(cosine / TEMPERATURE)
    node.LEARNING_RATES = []  # new: one head is trained with each, per 256 clips; []: defaults
    node.EPOCHS = 0  # new: epochs of training the heads; 0: 100 linear, 20 attentive
    node.BATCH_SIZE = 256  # new: clips per step
    node.WEIGHT_DECAY = 0.0  # new: of the weight matrices of the heads
    node.NUM_HEADS = 0  # new: attentive: attention heads; 0: one for every 64 channels
    return node


def _solver() -> CfgNode:
    node = CfgNode()
    node.OPTIMIZING_METHOD = "sgd"  # sgd, adam, adamw
    node.BASE_LR = 0.1  # learning rate after the warm-up
    node.BASE_LR_SCALE_NUM_SHARDS = False  # multiply the learning rates by NUM_SHARDS
    node.LR_POLICY = "cosine"  # cosine, steps_with_relative_lrs
    node.COSINE_END_LR = 0.0  # learning rate at the end
    node.COSINE_AFTER_WARMUP = False  # the cosine starts after the warm-up
    node.WARMUP_EPOCHS = 0.0  # length of the linear warm-up
    node.WARMUP_START_LR = 0.01  # learning rate at its start
    node.WARMUP_INCLUDES_END = False  # new: its last step has BASE_LR, as in DINO; else the next
    node.STEPS = []  # epochs at which the stages of the steps policy begin
    node.LRS = []  # factor on BASE_LR of each stage
    node.MAX_EPOCH = 300  # epochs of training
    node.MOMENTUM = 0.9  # of SGD
    node.DAMPENING = 0.0  # of SGD
    node.NESTEROV = True  # SGD
    node.BETAS = [0.9, 0.999]  # of Adam and AdamW
    node.LARS_ON = False  # SGD with LARS; biases and norms are neither scaled nor decayed
    node.LARS_NORM = "sum"  # new: |g| + decay |w|; decayed: |g + decay w|, as in BYOL
    node.WEIGHT_DECAY = 1e-4
    node.WEIGHT_DECAY_END = None  # new: its value at the end of a cosine; None: constant
    node.ZERO_WD_1D_PARAM = False  # no weight decay on biases and norms
    node.LAYER_DECAY = 1.0  # factor on the learning rate from each block to the one before
    node.CLIP_GRAD_VAL = None  # largest absolute value of a gradient
    node.CLIP_GRAD_L2NORM = None  # largest norm of all gradients together
    node.CLIP_GRAD_PER_PARAM = False  # new: of the gradient of each parameter instead
    return node


def _log() -> CfgNode:
    node = CfgNode()
    node.TRACKERS = []  # new: of tensorboard, wandb, each an extra of this package
    return node


def _tensorboard() -> CfgNode:
    node = CfgNode()
    node.ENABLE = False  # the same as tensorboard in LOG.TRACKERS
    node.LOG_DIR = ""  # folder of its events inside OUTPUT_DIR; "": runs
    return node
