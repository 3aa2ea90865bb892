"""Configuration: merging, checking, and what users see when a file is wrong."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import yaml

from slowfast_maskfeat.config import (
    default_config,
    load_config,
    load_run_config,
    parse_config,
)
from slowfast_maskfeat.config.inert import INERT_KEYS, INERT_SECTIONS
from slowfast_maskfeat.config.load import stored_config


def _write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_later_files_win_over_earlier_and_pairs_over_files(tmp_path):
    first = _write(tmp_path / "a.yaml", "TRAIN: {BATCH_SIZE: 8, EVAL_PERIOD: 3}\nTASK: one\n")
    second = _write(tmp_path / "b.yaml", "TRAIN: {BATCH_SIZE: 16}\n")
    cfg = load_config([first, second], ["TASK", "two"])
    assert (cfg.TRAIN.BATCH_SIZE, cfg.TRAIN.EVAL_PERIOD, cfg.TASK) == (16, 3, "two")


def test_a_string_that_looks_like_a_number_stays(tmp_path):
    path = _write(tmp_path / "a.yaml", "OUTPUT_DIR: '2024_11_29'\nTASK: '1e3'\n")
    cfg = load_config([path])
    assert (cfg.OUTPUT_DIR, cfg.TASK) == ("2024_11_29", "1e3")
    path = _write(tmp_path / "a.yaml", "OUTPUT_DIR: 2024-11-29\n")
    assert load_config([path], {"TASK": np.str_("x")}).OUTPUT_DIR == "2024-11-29"
    path = _write(tmp_path / "a.yaml", "OUTPUT_DIR: 2024_11_29\n")
    with pytest.raises(ValueError, match=r"OUTPUT_DIR must .*got 20241129, an integer; put quotes"):
        load_config([path])


def test_overrides_are_pairs_or_a_mapping():
    pairs = load_config("demo/finetune", ["TRAIN.BATCH_SIZE", 3, "TASK", "x"])
    assert load_config("demo/finetune", {"TRAIN.BATCH_SIZE": 3, "TASK": "x"}) == pairs
    for wrong in ([("TASK", "x")], "TASK x", 3):
        with pytest.raises(ValueError, match=r"overrides must be \['KEY', 'VALUE', \.\.\.\] or"):
            load_config("demo/finetune", wrong)


def test_a_base_may_be_a_shipped_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # whose files are no bases
    _write(tmp_path / "k400_MVITv2_S_16x4_FT.yaml", "TASK: elsewhere\n")
    (tmp_path / "deep").mkdir()
    for name in ("demo/finetune", "k400_MVITv2_S_16x4_FT.yaml"):
        path = _write(tmp_path / "deep" / "a.yaml", f"_BASE_: {name}\nTASK: mine\n")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = load_config(name.removesuffix(".yaml"), ["TASK", "mine"])
            assert load_config(path) == expected
    (tmp_path / "deep" / "demo").mkdir()
    _write(tmp_path / "deep" / "demo" / "finetune", "TASK: beside\n")
    path = _write(tmp_path / "deep" / "a.yaml", "_BASE_: demo/finetune\n")
    assert load_config(path).TASK == "beside"
    path = _write(tmp_path / "deep" / "a.yaml", "_BASE_: k400_MVITv2_S_16x4_F.yaml\n")
    with pytest.raises(ValueError, match=r"does not exist: .*did you mean .*k400_MVITv2_S_16x4_FT"):
        load_config(path)
    path = _write(tmp_path / "deep" / "a.yaml", "_base_: ../b.yaml\n")
    with pytest.raises(ValueError, match=r"unknown key '_base_'; did you mean _BASE_\?"):
        load_config(path)
    with pytest.raises(ValueError, match=r"unknown key '_BASE_'; it belongs in a file"):
        load_config([], ["_BASE_", "demo/finetune"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("len(3)", r"cannot be imported: object of type 'int' .* \(.*odd_module\.py, line 2\)$"),
        (
            "from slowfast_maskfeat.config import add_keys; add_keys({'TRAIN.BATCH_SIZE': 3})",
            r"exists already.* \(.*odd_module\.py, line 2\)$",
        ),
        ("import no_such_thing", r"No module named 'no_such_thing' \(.*odd_module\.py, line 2\)$"),
        (None, r"No module named 'odd_module'; install it, or put its folder into PYTHONPATH$"),
    ],
)
def test_an_import_that_fails_names_its_line(text, message, tmp_path, monkeypatch):
    if text is not None:
        (tmp_path / "odd_module.py").write_text(f"# ours\n{text}\n")
        monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=rf"^IMPORTS: the module 'odd_module' .*{message}"):
        load_config([], ["IMPORTS", "odd_module"])
    if text is None:
        with pytest.raises(ValueError, match=r"takes the name of a module: odd_module$"):
            load_config([], ["IMPORTS", "odd_module.py"])


def test_a_file_starts_from_its_bases_of_which_later_ones_win(tmp_path):
    _write(tmp_path / "a.yaml", "DATA: {NUM_FRAMES: 4, SAMPLING_RATE: 5}\n")
    _write(tmp_path / "b.yaml", "DATA: {SAMPLING_RATE: 6}\n")
    top = _write(tmp_path / "c.yaml", "_BASE_: [a.yaml, b.yaml]\nTASK: x\n")
    cfg = load_config([top])
    assert (cfg.DATA.NUM_FRAMES, cfg.DATA.SAMPLING_RATE, cfg.TASK) == (4, 6, "x")


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("SOLVER.COSINE_END_LR", "1e-6", 1e-6),
        ("SOLVER.WARMUP_EPOCHS", "30", 30.0),
        ("SOLVER.MAX_EPOCH", "20.0", 20),
        ("MVIT.PATCH_KERNEL", "(2, 3, 4)", [2, 3, 4]),
        ("MVIT.DIM_MUL", "[[1, 2.0], (3, 2.0)]", [[1, 2.0], [3, 2.0]]),
        ("MVIT.POOL_KVQ_KERNEL", "None", None),
        ("MVIT.POOL_KVQ_KERNEL", "[3, 3, 3]", [3, 3, 3]),
        ("SOLVER.CLIP_GRAD_L2NORM", "1", 1.0),
        ("DATA.PATH_LABEL_SEPARATOR", ",", ","),
        ("TRAIN.ENABLE", "false", False),
        ("TASK", "123", "123"),
        ("TASK", "2024_11_29", "2024_11_29"),
        ("DATA.PATH_PREFIX", "0x10", "0x10"),
        ("DATA.PATH_PREFIX", "1e3", "1e3"),
        ("DATA.PATH_PREFIX", "...", "..."),
        ("TASK", "1.50", "1.50"),
        ("TASK", "'hog'", "hog"),
        ("TRAIN.CHECKPOINT_FILE_PATH", "None", ""),
        # Lists of texts need no quotes, as in YAML.
        ("LOG.TRACKERS", "[tensorboard, wandb]", ["tensorboard", "wandb"]),
        ("TRAIN.MONITOR", "[knn]", ["knn"]),
        ("TRAIN.MONITOR", "rank", ["rank"]),
        ("TRAIN.MONITOR", "[]", []),
        ("AVA.TRAIN_LISTS", "[a.csv, b.csv]", ["a.csv", "b.csv"]),
        ("AVA.TRAIN_LISTS", "[a.csv, 'b.csv']", ["a.csv", "b.csv"]),
        ("IMPORTS", "[json, math]", ["json", "math"]),
    ],
)
def test_texts_become_values_of_the_keys_type(key, text, value):
    cfg = load_config([], [key, text])
    for part in key.split("."):
        cfg = cfg[part]
    assert cfg == value
    assert type(cfg) is type(value)


@pytest.mark.parametrize(
    ("text", "pairs", "folder"),
    [
        ("", [], "output/pretrain"),
        ("OUTPUT_DIR: .\n", [], "output/pretrain"),
        ("OUTPUT_DIR: ./\n", [], "output/pretrain"),
        ("OUTPUT_DIR: .\n", ["OUTPUT_DIR", "."], "."),
        ("", ["OUTPUT_DIR", ""], "output/pretrain"),
        ("OUTPUT_DIR: runs/a\n", [], "runs/a"),
        ("OUTPUT_DIR: runs/a\n", ["OUTPUT_DIR", "runs/b"], "runs/b"),
    ],
)
def test_a_run_without_output_dir_is_named_after_its_first_file(tmp_path, text, pairs, folder):
    first = _write(tmp_path / "pretrain.yaml", f"RNG_SEED: 1\n{text}")
    second = _write(tmp_path / "more.yaml", "TASK: ssl\n")
    assert folder == load_run_config([first, second], pairs).OUTPUT_DIR


def test_the_configuration_is_frozen():
    cfg = load_config([])
    with pytest.raises(AttributeError):
        cfg.TASK = "x"
    with pytest.raises(AttributeError):
        cfg.TRAIN.BATCH_SIZE = 1


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["TRAIN.BATCHSIZE", "3"], "unknown key 'TRAIN.BATCHSIZE'; did you mean TRAIN.BATCH_SIZE"),
        (["BATCH_SIZE", "3"], "unknown key 'BATCH_SIZE'; did you mean"),
        (["TRAIN", "3"], "TRAIN is a section"),
        (["TRAIN.BATCH_SIZE", "many"], r"TRAIN.BATCH_SIZE must be an integer .*'many', a string"),
        (["TRAIN.BATCH_SIZE", "1.5"], r"TRAIN.BATCH_SIZE must be an integer .*1\.5, a number"),
        (["TRAIN.ENABLE", "1"], r"TRAIN.ENABLE must be True or False .*\b1, an integer"),
        (["DATA.MEAN", "[0.5]"], r"DATA.MEAN .*three values.*\[0\.5\]"),
        (["TRAIN.BATCH_SIZE"], "'TRAIN.BATCH_SIZE' has no value"),
        (["MVIT", "3"], "command line: MVIT is a section.* 3"),
        (["MVIT.EMBED_DIM", "0"], "MVIT.EMBED_DIM must be > 0, got 0"),
        (["MVIT.DROPPATH_RATE", "2"], r"MVIT.DROPPATH_RATE must be in \[0, 1\), got 2.0"),
        (["MASK.HOG_BINS", "0"], "MASK.HOG_BINS .* 0"),
        (["PROBE.LEARNING_RATES", "[0.1, -1.0]"], "PROBE.LEARNING_RATES .*got -1.0"),
        (["MVIT.POS_RESIZE_OFFSET", "1.0"], r"POS_RESIZE_OFFSET must be in \[0, 1\), got 1.0"),
        (["PROBE.LEARNING_RATES", "[0]"], "PROBE.LEARNING_RATES .*got 0"),
        (["PROBE.LEARNING_RATES", "[1e99]"], r"PROBE.LEARNING_RATES .*got 1e\+99"),
        (["PROBE.LEARNING_RATES", "['x']"], "PROBE.LEARNING_RATES .*got 'x'"),
        (["PROBE.NUM_HEADS", "-1"], "PROBE.NUM_HEADS .*got -1"),
        (["TRAIN.BATCH_SIZE", "0"], "TRAIN.BATCH_SIZE .*got 0"),
        (["TEST.NUM_SPATIAL_CROPS", "2"], "TEST.NUM_SPATIAL_CROPS .*1, 3, got 2"),
        (["DATA.ENSEMBLE_METHOD", "median"], "DATA.ENSEMBLE_METHOD .*got 'median'"),
        (["MODEL.LOSS_FUNC", "mse"], "MODEL.LOSS_FUNC .*got 'mse'"),
        (["DATA.DECODE_TIMEOUT", "-1"], "DATA.DECODE_TIMEOUT .*got -1.0"),
        (["TEST.REPORT_VIDEOS", "-1"], "TEST.REPORT_VIDEOS must be >= 0, got -1"),
        (["TEST.REPORT_VIDEOS", "1001"], "TEST.REPORT_VIDEOS must be <= 1000, got 1001"),
        (["SHARD_ID", "1"], r"SHARD_ID .*\[0, 0\], got 1"),
        (["DETECTION.ROI_XFORM_RESOLUTION", "0"], "DETECTION.ROI_XFORM_RESOLUTION .*got 0"),
        (["PROBE.NUM_NEIGHBORS", "0"], "PROBE.NUM_NEIGHBORS .*got 0"),
        (["PROBE.TEMPERATURE", "0"], "PROBE.TEMPERATURE .*got 0.0"),
        (["TRAIN.KEEP_CHECKPOINTS", "-1"], "TRAIN.KEEP_CHECKPOINTS must be >= 0, got -1"),
        (["TRAIN.COMPILE", "blocks"], "TRAIN.COMPILE must be one of '', 'model', 'block', got 'bl"),
        (["TRAIN.PRECISION", "fp32"], "TRAIN.PRECISION must be one of '', 'float32', 'tf32', "),
        (["TRAIN.CHECKPOINT_STEP_PERIOD", "-5"], "TRAIN.CHECKPOINT_STEP_PERIOD .*got -5"),
        (["SOLVER.BETAS", "[0.9]"], r"SOLVER.BETAS must be two numbers in \[0, 1\), got \[0.9\]"),
        (["SOLVER.BETAS", "[0.9, 0.99, 0.999]"], "SOLVER.BETAS .*two numbers"),
        (["SOLVER.BETAS", "[0.9, 1.0]"], r"SOLVER.BETAS .*got \[0.9, 1.0\]"),
        (["SOLVER.BETAS", "[0.9, 'a']"], r"SOLVER.BETAS must be a list like \[0.9, 0.999\]"),
        (["SOLVER.WEIGHT_DECAY", "-0.05"], "SOLVER.WEIGHT_DECAY must be >= 0, got -0.05"),
        (["SOLVER.WARMUP_EPOCHS", "-1"], "SOLVER.WARMUP_EPOCHS must be >= 0, got -1.0"),
        (["OUTPUT_DIR", "s3://bucket/runs"], "OUTPUT_DIR must be a local folder, got 's3://buck"),
        (["RNG_SEED", "-1"], "RNG_SEED must be >= 0, got -1"),
        (["RNG_SEED", str(2**63)], r"RNG_SEED must be below 2\*\*63, got 9223372036854775808"),
        (["SOLVER.BASE_LR", "1e999"], "SOLVER.BASE_LR must be finite, got inf"),
        (["SOLVER.BASE_LR", "0"], "SOLVER.BASE_LR must be > 0, got 0.0"),
        (["SOLVER.BASE_LR", "1" + 400 * "0"], "SOLVER.BASE_LR must be a number"),
        (["SOLVER.WARMUP_START_LR", "-1e999"], "SOLVER.WARMUP_START_LR must be finite, got -inf"),
        (["SOLVER.CLIP_GRAD_L2NORM", "1e999"], "SOLVER.CLIP_GRAD_L2NORM must be finite, got inf"),
        (["SOLVER.MOMENTUM", "1.0"], r"SOLVER.MOMENTUM must be in \[0, 1\), got 1.0"),
        (["MIXUP.ALPHA", "1e999"], "MIXUP.ALPHA must be finite, got inf"),
        (["MVIT.DIM_MUL", "[[1, 1e999]]"], r"MVIT.DIM_MUL must be finite, got \[\[1, inf\]\]"),
        (["SOLVER.LRS", "[1.0, 1e999]"], "SOLVER.LRS must be finite"),
        (["SOLVER.STEPS", "[0, 'a']"], "SOLVER.STEPS must be numbers >= 0"),
        (["DATA.INPUT_CHANNEL_NUM", "[1]"], r"INPUT_CHANNEL_NUM must be \[3\], .*got \[1\]"),
        (["DATA.INPUT_CHANNEL_NUM", "[]"], r"INPUT_CHANNEL_NUM must be \[3\], .*got \[\]"),
        (["DATA.INPUT_CHANNEL_NUM", "[3, 3]"], r"INPUT_CHANNEL_NUM .*got \[3, 3\]"),
        (["DATA.STD", "[0.2, 0.2, 0]"], "DATA.STD must be three values > 0"),
        (["TEST.NUM_TEMPORAL_CLIPS", "[5, 0]"], "TEST.NUM_TEMPORAL_CLIPS must be integers > 0"),
    ],
)
def test_wrong_input_is_one_clear_error(pairs, message):
    with pytest.raises(ValueError, match=message):
        load_config([], pairs)


@pytest.mark.filterwarnings("ignore:.*is set twice")  # NaN does not equal itself
@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan"])
def test_rates_of_a_file_must_be_finite(value, tmp_path):
    path = _write(tmp_path / "a.yaml", f"SOLVER: {{COSINE_END_LR: {value}}}\n")
    with pytest.raises(ValueError, match=r"COSINE_END_LR must be finite, got -?(inf|nan)$"):
        load_config([path])


def test_a_tilde_is_the_home_folder_and_a_bare_one_in_yaml_null(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = _write(
        tmp_path / "a.yaml",
        "OUTPUT_DIR: ~/runs\nTASK: ~\nTRAIN: {CHECKPOINT_FILE_PATH: ~}\n"
        "DATA:\n  PATH_TO_DATA_DIR: '~'\n  PATH_PREFIX: a/~/b\n  TRAIN_SHARDS: ~/{0..9}.tar\n"
        "AVA: {TRAIN_LISTS: [~/a.csv, b.csv]}\nSOLVER: {CLIP_GRAD_VAL: ~}\n",
    )
    cfg = load_config(["~/a.yaml"], ["DATA.SHARD_CACHE", "~/cache", "AVA.FRAME_DIR", "~"])
    assert cfg == load_config(
        [path], ["DATA.SHARD_CACHE", f"{tmp_path}/cache", "AVA.FRAME_DIR", tmp_path]
    )
    stored = parse_config("TRAIN: {CHECKPOINT_FILE_PATH: ~/runs}\n", "x.pyth")
    paths = [
        cfg.OUTPUT_DIR,
        stored.TRAIN.CHECKPOINT_FILE_PATH,
        cfg.DATA.PATH_TO_DATA_DIR,
        *cfg.AVA.TRAIN_LISTS,
    ]
    home = str(tmp_path)
    assert paths == [f"{home}/runs", f"{home}/runs", home, f"{home}/a.csv", "b.csv"]
    shards = cfg.DATA.TRAIN_SHARDS
    assert shards == home + "/{0..9}.tar"
    prefix = cfg.DATA.PATH_PREFIX
    assert prefix == "a/~/b"
    nulls = [cfg.TASK, cfg.TRAIN.CHECKPOINT_FILE_PATH, cfg.SOLVER.CLIP_GRAD_VAL]
    assert nulls == ["", "", None]


def test_an_unknown_home_folder_is_an_error():
    with pytest.raises(ValueError, match=r"OUTPUT_DIR: '~no-one-\w+/x' must begin with .*'\./~no"):
        load_config([], ["OUTPUT_DIR", "~no-one-here/x"])


def test_what_is_never_a_path_keeps_its_tilde():
    patterns = ["~no-one-here."]
    pairs = ["TASK", "~", "TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN", str(patterns)]
    cfg = load_config([], [*pairs, "DATA.PATH_LABEL_SEPARATOR", "~"])
    assert (cfg.TASK, cfg.DATA.PATH_LABEL_SEPARATOR) == ("~", "~")
    assert patterns == cfg.TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN


def test_a_broken_yaml_file_is_named_with_the_line(tmp_path):
    path = _write(tmp_path / "a.yaml", "TRAIN:\n  ENABLE: True\n BATCH_SIZE: 3\n")
    with pytest.raises(ValueError, match=r"a\.yaml:3: not valid YAML: .*indentation"):
        load_config([path])


def test_a_missing_file_and_a_missing_base_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"no configuration file .*nowhere\.yaml"):
        load_config([str(tmp_path / "nowhere.yaml")])
    path = _write(tmp_path / "a.yaml", "_BASE_: nowhere.yaml\n")
    with pytest.raises(ValueError, match=r"a\.yaml: its _BASE_ .*nowhere\.yaml"):
        load_config([path])


def test_yaml_that_would_run_code_is_refused(tmp_path):
    path = _write(tmp_path / "a.yaml", "TASK: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(ValueError, match="not valid YAML"):
        load_config([path])


def test_an_inert_key_that_asks_for_something_warns_once_with_its_name(tmp_path):
    path = _write(tmp_path / "a.yaml", "AUG: {RE_SPLIT: True}\n")
    with pytest.warns(UserWarning, match="AUG.RE_SPLIT: True has no effect") as caught:
        load_config([path, path])
    assert len(caught) == 1


def test_inert_keys_that_ask_for_nothing_are_silent():
    pairs = ["AUG.RE_SPLIT", "False", "MVIT.REV.ENABLE", "False", "BN.NUM_SPLITS", "2"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_config([], pairs)


def test_an_inert_section_warns_when_it_is_switched_on():
    with pytest.warns(UserWarning, match=r"MVIT\.REV\.\* has no effect"):
        load_config([], ["MVIT.REV.PRE_Q_FUSION", "avg", "MVIT.REV.ENABLE", "True"])


IMAGES = ["DATA.NUM_FRAMES", "1"]
MASKED = ["MASK.ENABLE", "True"]
IBOT = ["AUG.MASK_KIND", "ibot"]
MULTIBLOCK = ["AUG.MASK_KIND", "multiblock"]


def views(kind: str) -> list[str]:
    """Select a kind of CONTRASTIVE.TYPE."""
    return ["MODEL.MODEL_NAME", "ContrastiveModel", "CONTRASTIVE.TYPE", kind]


JITTER = ["DATA.SSL_COLOR_JITTER", "True"]
RANDOM = [*MASKED, "MASK.MAE_RND_MASK", "True"]


@pytest.mark.parametrize(
    ("key", "value", "others", "reason"),
    [
        ("AUG.COLOR_JITTER", "0.5", ["AUG.ENABLE", "True"], "on videos"),
        ("AUG.MASK_WINDOW_SIZE", "[8, 7, 7]", [*MASKED, *IMAGES], "on images"),
        ("AUG.MASK_WINDOW_SIZE", "[8, 7, 7]", [*RANDOM, *IMAGES], "on images"),
        ("AUG.MASK_WINDOW_SIZE", "[8, 7, 7]", RANDOM, r"on random masks \(MASK"),
        (
            "AUG.MASK_WINDOW_SIZE",
            "[8, 7, 7]",
            [*MASKED, "AUG.MASK_KIND", "random"],
            r"on random masks \(MASK",
        ),
        ("AUG.MAX_MASK_PATCHES_PER_BLOCK", "9", MASKED, "on random masks"),
        ("AUG.MAX_MASK_PATCHES_PER_BLOCK", "9", IBOT, "on masks of AUG.MASK_KIND ibot"),
        ("AUG.MIN_MASK_PATCHES_PER_BLOCK", "9", MULTIBLOCK, "on masks of AUG.MASK_KIND ibot_r"),
        ("AUG.MASK_WINDOW_SIZE", "[8, 7, 7]", MULTIBLOCK, "on masks of AUG.MASK_KIND ibot_random"),
        ("AUG.MASK_WINDOW_SIZE", "[8, 7, 7]", [*MASKED, *IMAGES, *MULTIBLOCK], "on images"),
        ("AUG.MASK_RATIO", "0.4", IBOT, "on masks of AUG.MASK_KIND ibot"),
        ("AUG.MASK_RATIO_RANGES", "[[0.5, 0.6]]", MULTIBLOCK, "on other masks than"),
        ("AUG.MASK_BLOCKS", "[[2, 0.5]]", IBOT, "on other masks than"),
        ("DATA.COLOR_RND_GRAYSCALE", "0.2", [], "without DATA.SSL_COLOR_JITTER"),
        ("DATA.SSL_BLUR_PROB", "[1.0]", JITTER, "without .* and DATA.SSL_MOCOV2_AUG"),
        ("AUG.MAX_MASK_PATCHES_PER_BLOCK", "9", [*RANDOM, *IMAGES], "on random masks"),
        ("CONTRASTIVE.PATCH_DIM", "12", views("dino"), "unless CONTRASTIVE.TYPE is ibot"),
        ("CONTRASTIVE.HIDDEN_BIAS", "True", views("ibot"), "unless CONTRASTIVE.TYPE is byol"),
        ("CONTRASTIVE.BOTTLENECK_DIM", "8", views("byol"), "unless .* is dino or ibot"),
        ("MASK.DECODER_SEP_POS_EMBED", "True", MASKED, "without MASK.MAE_ON"),
        (
            "TEST.NUM_ENSEMBLE_VIEWS",
            "1",
            ["TEST.NUM_TEMPORAL_CLIPS", "[5]"],
            "beside TEST.NUM_TEMPORAL_CLIPS",
        ),
        ("TEST.NUM_ENSEMBLE_VIEWS", "5", IMAGES, "on images .*TEST.NUM_TEMPORAL_CLIPS"),
    ],
)
def test_a_key_that_others_leave_without_effect_warns_once(key, value, others, reason):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cfg = load_config([], [key, value, *others])
    (message,) = (str(warning.message) for warning in caught)
    assert re.match(f"{re.escape(f'{key}: {value} has no effect ')}{reason}", message)
    section, name = key.split(".")
    assert str(cfg[section][name]) == value


@pytest.mark.parametrize(
    "pairs",
    [
        ["AUG.COLOR_JITTER", "0.5", "AUG.ENABLE", "True", *IMAGES],
        ["AUG.COLOR_JITTER", "0.5"],
        ["AUG.MASK_WINDOW_SIZE", "[8, 7, 7]", *MASKED],
        ["AUG.MASK_WINDOW_SIZE", "[8, 7, 7]", *IMAGES],  # of a training with labels
        ["AUG.MAX_MASK_PATCHES_PER_BLOCK", "9", *MASKED, *IMAGES],
        ["AUG.MIN_MASK_PATCHES_PER_BLOCK", "9", *MASKED, "AUG.MASK_KIND", "bevt"],
        ["MASK.DECODER_SEP_POS_EMBED", "True", "MASK.MAE_ON", "True", *RANDOM],
        ["CONTRASTIVE.PATCH_DIM", "12", *views("ibot")],
        ["CONTRASTIVE.PATCH_DIM", "12"],  # of a classifier that an iBOT network is the start of
        ["AUG.MASK_WINDOW_SIZE", "[8, 7, 7]", *IBOT],
        ["AUG.MIN_MASK_PATCHES_PER_BLOCK", "9", *IBOT, *IMAGES],
        ["DATA.COLOR_RND_GRAYSCALE", "0.2", *JITTER],
        ["TEST.NUM_ENSEMBLE_VIEWS", "1", *IMAGES],
        ["TEST.NUM_ENSEMBLE_VIEWS", "5"],
        ["TEST.NUM_TEMPORAL_CLIPS", "[5]", *IMAGES],
        ["TEST.NUM_TEMPORAL_CLIPS", "[1, 5]", "TEST.NUM_ENSEMBLE_VIEWS", "5"],
    ],
)
def test_a_key_that_has_its_effect_is_silent(pairs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_config([], pairs)


def test_checkpoints_of_former_versions_have_keys_that_were_replaced():
    text = "AUG: {GRAY_PROB: 0.2, VIDEO_COLOR_JITTER: 0.0}"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert parse_config(text, "checkpoint") == parse_config("", "checkpoint")


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (
            ["AUG.GRAY_PROB", "0.2"],
            r"'AUG\.GRAY_PROB'; use DATA\.COLOR_RND_GRAYSCALE with DATA\.SSL_COLOR_JITTER True",
        ),
        (
            ["AUG.VIDEO_COLOR_JITTER", "0.0"],
            r"'AUG\.VIDEO_COLOR_JITTER'; use DATA\.SSL_COLOR_BRI_CON_SAT with .* instead",
        ),
    ],
)
def test_a_key_that_was_replaced_is_unknown_and_names_the_new_one(pair, message):
    with pytest.raises(ValueError, match=f"command line: unknown key {message}"):
        load_config([], pair)


@pytest.mark.parametrize(("former", "value"), [("True", "model"), ("False", ""), ("true", "model")])
def test_a_switch_of_former_versions_means_one_of_the_words_that_replaced_it(
    former, value, tmp_path
):
    file = tmp_path / "run.yaml"
    file.write_text(f"TRAIN: {{COMPILE: {former}}}")
    of_file, of_pair = load_config([str(file)]), load_config([], ["TRAIN.COMPILE", former])
    of_checkpoint = parse_config(file.read_text(), "checkpoint")
    compared = stored_config(file.read_text(), "checkpoint")
    found = {cfg.TRAIN.COMPILE for cfg in (of_file, of_pair, of_checkpoint, compared)}
    assert found == {value}


def test_no_key_is_live_and_inert_at_once():
    live = yaml.safe_load(default_config().dump())
    keys = {
        f"{section}.{name}"
        for section, node in live.items()
        if isinstance(node, dict)
        for name in node
    }
    keys |= {name for name, node in live.items() if not isinstance(node, dict)}
    assert not keys & (set(INERT_KEYS))
    assert not {key for key in keys if any(key.startswith(s + ".") for s in INERT_SECTIONS)}


def test_the_dump_of_a_configuration_reads_back_as_itself():
    cfg = load_config([], ["MVIT.POOL_KV_STRIDE_ADAPTIVE", "[1, 4, 4]", "TASK", "ssl"])
    assert parse_config(cfg.dump(), "checkpoint") == cfg


def test_where_a_training_wrote_is_not_read_from_its_checkpoint():
    written = {
        "OUTPUT_DIR": "/theirs",
        "TEST.SAVE_RESULTS_PATH": "/theirs/scores.npz",
        "TENSORBOARD.LOG_DIR": "/theirs/runs",
        "DATA.SHARD_CACHE": "/theirs/cache",
    }
    words = [word for pair in written.items() for word in pair]
    cfg = load_config([], [*words, "TASK", "ssl"])
    for text in (cfg.dump(), yaml.safe_dump({**written, "TASK": "ssl"})):
        assert parse_config(text, "x.pyth") == load_config([], ["TASK", "ssl"])
        assert parse_config(text, "x.pyth", ["OUTPUT_DIR", "mine"]).OUTPUT_DIR == "mine"


def test_modules_of_a_checkpoint_are_named_and_not_imported():
    text = "IMPORTS: [no_such_module]\nMODEL: {NUM_CLASSES: 3}\n"
    with pytest.warns(UserWarning, match=r"x\.pyth was trained with IMPORTS \['no_such_module'\]"):
        assert parse_config(text, "x.pyth").MODEL.NUM_CLASSES == 3
    with pytest.raises(ValueError, match=r"TOY.*x\.pyth was trained with IMPORTS"):
        parse_config(text + "TOY: {WIDTH: 3}\n", "x.pyth")
