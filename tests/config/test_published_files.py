"""The published experiment files load as people have them, with all their ways of writing."""

from __future__ import annotations

import ast
import itertools
import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.published_files import PUBLISHED

from slowfast_maskfeat.config import load_config


def _lines(values: dict[str, Any], twice: dict[str, Any] | None = None) -> list[str]:
    """A file in sections, a key a line; `twice` has values that stand before the real ones."""
    sections: dict[str, list[str]] = {}
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        lines = sections.setdefault(section, [])
        for given in [*([twice[key]] if twice and key in twice else []), value]:
            text = given if isinstance(given, str) and given else json.dumps(given)
            lines.append(f"{'  ' if section else ''}{name}: {text}")
    top = sections.pop("", [])
    return [*(line for s, lines in sections.items() for line in (f"{s}:", *lines)), *top]


def _load(path: Path, content: str, overrides: tuple[str, ...] = ()) -> tuple[Any, list[str]]:
    """The configuration, and the messages of its warnings."""
    path.write_text(content)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cfg = load_config([str(path)], overrides)
    assert {warning.category for warning in caught} <= {UserWarning}
    return cfg, [str(warning.message) for warning in caught]


def _value(cfg: Any, key: str) -> Any:
    for part in key.split("."):
        cfg = cfg.get(part) if hasattr(cfg, "get") else None
    return cfg


def _meant(value: Any) -> Any:
    """What a published value means: texts of tuples, numbers and None are not texts."""
    if isinstance(value, str):
        value = {"torchvision": "auto"}.get(value, value)
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            return value
    return list(value) if isinstance(value, tuple) else value


def _named(messages: list[str]) -> list[str]:
    return [re.split(r": | has no effect", message)[0] for message in messages]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_file_loads_with_its_values(name, tmp_path):
    values = PUBLISHED[name]
    cfg, messages = _load(tmp_path / "a.yaml", "\n".join(_lines(values)))
    live = {key: _value(cfg, key) for key in values if _value(cfg, key) is not None}
    assert live == {key: _meant(values[key]) for key in live}
    assert len(live) > 50
    # The rest does nothing here: it asks for nothing, or one warning says so.
    named = _named(messages)
    assert len(named) == len(set(named))
    assert not {key for key in live if key in named}


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("ImageNet/MVITv2_T", set()),
        ("Kinetics/MVITv2_S_16x4", set()),
        ("SSv2/MVITv2_L_40x3", {"PREFETCH.*"}),
        ("masked_ssl/in1k_VIT_B_MaskFeat_PT", {"BN.*"}),
        (
            "masked_ssl/k400_VIT_L_16x4_MAE_PT",
            {
                "DATA.DECODING_SHORT_SIZE",
                "TRAIN.KILL_LOSS_EXPLOSION_FACTOR",
            },
        ),
    ],
)
def test_each_published_key_without_effect_is_named_once(name, named, tmp_path):
    _, messages = _load(tmp_path / "a.yaml", "\n".join(_lines(PUBLISHED[name])))
    assert sorted(_named(messages)) == sorted(named)


@pytest.mark.parametrize("name", PUBLISHED)
def test_other_ways_of_writing_mean_the_same(name, tmp_path):
    values = PUBLISHED[name]
    plain, _ = _load(tmp_path / "a.yaml", "\n".join(_lines(values)))
    dotted, _ = _load(tmp_path / "b.yaml", yaml.safe_dump(values))
    assert dotted == plain
    texts = {key: value if isinstance(value, str) else str(value) for key, value in values.items()}
    quoted = "\n".join(f"{key}: {json.dumps(text)}" for key, text in texts.items())
    assert _load(tmp_path / "c.yaml", quoted)[0] == plain


def test_of_a_key_given_twice_the_last_wins_and_a_warning_has_both(tmp_path):
    values = PUBLISHED["masked_ssl/k400_MVITv2_S_16x4_FT"]
    twice = {"MVIT.NUM_HEADS": 3, "MVIT.EMBED_DIM": 384, "SOLVER.COSINE_AFTER_WARMUP": True}
    lines = _lines(values, twice)
    cfg, messages = _load(tmp_path / "a.yaml", "\n".join(lines))
    assert (cfg.MVIT.NUM_HEADS, cfg.MVIT.EMBED_DIM) == (1, 96)
    heads, width = (lines.index(line) + 1 for line in ("  NUM_HEADS: 1", "  EMBED_DIM: 96"))
    of_heads, of_width = (message for message in messages if "twice" in message)
    assert of_heads.startswith(f"{tmp_path}/a.yaml:{heads}: MVIT.NUM_HEADS ")
    assert of_width.startswith(f"{tmp_path}/a.yaml:{width}: MVIT.EMBED_DIM ")
    assert "3 and 1;" in of_heads
    assert "384 and 96;" in of_width


def test_a_section_given_twice_is_named(tmp_path):
    content = "TRAIN: {BATCH_SIZE: 3}\nTRAIN: {EVAL_PERIOD: 7}\n"
    cfg, (message,) = _load(tmp_path / "a.yaml", content)
    assert (cfg.TRAIN.BATCH_SIZE, cfg.TRAIN.EVAL_PERIOD) == (64, 7)
    assert "a.yaml:2: TRAIN " in message
    assert "{'BATCH_SIZE': 3} and {'EVAL_PERIOD': 7};" in message


def test_a_key_given_twice_in_a_base_is_named_with_the_base(tmp_path):
    (tmp_path / "base.yaml").write_text("TASK: x\nTASK: y\n")
    cfg, (message,) = _load(tmp_path / "a.yaml", "_BASE_: base.yaml\n")
    assert cfg.TASK == "y"
    assert message.startswith(f"{tmp_path}/base.yaml:2: TASK ")
    assert "'x' and 'y';" in message


@pytest.mark.parametrize(
    ("content", "batch_size", "line", "other"),
    [
        ("TRAIN: {BATCH_SIZE: 3}\nTRAIN.BATCH_SIZE: 8\n", 8, 2, "3 and 8"),
        ("TRAIN.BATCH_SIZE: 8\nTRAIN: {BATCH_SIZE: 3}\n", 3, 2, "8 and 3"),
        ("TRAIN.BATCH_SIZE: 8\nTRAIN:\n  EVAL_PERIOD: 7\n  BATCH_SIZE: 3\n", 3, 4, "8 and 3"),
    ],
)
def test_a_section_and_a_dotted_key_are_the_same_key(content, batch_size, line, other, tmp_path):
    cfg, (message,) = _load(tmp_path / "a.yaml", content)
    assert _value(cfg, "TRAIN.BATCH_SIZE") == batch_size
    assert message.startswith(f"{tmp_path}/a.yaml:{line}: TRAIN.BATCH_SIZE ")
    assert f"{other};" in message


def test_of_three_forms_in_one_file_the_last_wins(tmp_path):
    content = "TRAIN: {BATCH_SIZE: 3}\nTRAIN.BATCH_SIZE: 8\nTRAIN: {BATCH_SIZE: 16}\n"
    cfg, messages = _load(tmp_path / "a.yaml", content)
    assert cfg.TRAIN.BATCH_SIZE == 16
    assert [re.findall(r"yaml:(\d): (\S+) is", message) for message in messages] == [
        [("3", "TRAIN")],
        [("3", "TRAIN.BATCH_SIZE")],
    ]


def test_a_file_wins_over_its_bases_in_whatever_form_they_are(tmp_path):
    forms = ("TRAIN: {{BATCH_SIZE: {}, EVAL_PERIOD: {}}}", "TRAIN.BATCH_SIZE: {}\nTASK: x{}")
    for below, middle, above in itertools.product(forms, repeat=3):
        (tmp_path / "below.yaml").write_text(below.format(32, 5))
        (tmp_path / "middle.yaml").write_text("_BASE_: below.yaml\n" + middle.format(8, 6))
        content = "_BASE_: middle.yaml\n" + above.format(16, 7)
        cfg, messages = _load(tmp_path / "a.yaml", content)
        assert (cfg.TRAIN.BATCH_SIZE, messages) == (16, [])
        given = zip((5, 6, 7), (below, middle, above), strict=True)
        periods = [10, *(period for period, form in given if "EVAL_PERIOD" in form)]
        assert _value(cfg, "TRAIN.EVAL_PERIOD") == periods.pop()


def test_an_empty_section_leaves_that_of_the_base(tmp_path):
    (tmp_path / "base.yaml").write_text("TRAIN: {BATCH_SIZE: 3}\nMVIT:\n")
    cfg, _ = _load(tmp_path / "a.yaml", "_BASE_: base.yaml\nTRAIN:\nMVIT: {DEPTH: 7}\n")
    assert (cfg.TRAIN.BATCH_SIZE, cfg.MVIT.DEPTH) == (3, 7)


def test_aliases_and_merged_mappings_are_read_as_yaml_means_them(tmp_path):
    (tmp_path / "base.yaml").write_text("TRAIN: &sizes {BATCH_SIZE: 3}\nTEST: *sizes\n")
    content = "_BASE_: base.yaml\nTEST: {<<: &more {NUM_SPATIAL_CROPS: 1}, <<: {BATCH_SIZE: 5}}\n"
    cfg, messages = _load(tmp_path / "a.yaml", content)
    assert (cfg.TRAIN.BATCH_SIZE, cfg.TEST.BATCH_SIZE, cfg.TEST.NUM_SPATIAL_CROPS) == (3, 5, 1)
    assert messages == []


@pytest.mark.parametrize(("indentation", "line"), [(0, 29), (1, 28)])
def test_the_file_that_is_no_yaml_is_named_with_the_line(indentation, line, tmp_path):
    # ImageNet/MVITv2_B: line 28 of the published file stands further left than its neighbors.
    values = PUBLISHED["ImageNet/MVITv2_B"]
    lines = _lines(values)
    lines.insert(lines.index("DATA:") + 1, "  # a comment line, as in the published file")
    assert lines[27] == "  DROPPATH_RATE: 0.3"
    lines[27] = " " * indentation + lines[27].strip()
    path = tmp_path / "MVITv2_B.yaml"
    with pytest.raises(ValueError, match=r"MVITv2_B\.yaml:\d+: not valid YAML") as caught:
        _load(path, "\n".join(lines))
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert "indentation" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("MVIT: {EMBED_DIMS: 96}", "unknown key 'MVIT.EMBED_DIMS'; did you mean MVIT.EMBED_DIM?"),
        ("PRETRAIN_DEPTH: [15]", "unknown key 'PRETRAIN_DEPTH'; did you mean MASK.PRETRAIN_DEPTH"),
        ("_BASE_: a.yaml", r"a\.yaml: its _BASE_ leads back"),
        ("_BASE_: 3", "_BASE_ must be a path or a list of paths, got 3"),
        (
            "_BASE_: other.yaml\nTRAIN: {ENABLE: True}",
            r"a\.yaml and its _BASE_: TRAIN .*section",
        ),
        ("TRAIN: 3\nTRAIN.ENABLE: True", r"a\.yaml: TRAIN .*section"),
        ("TRAIN.ENABLE: True\nTRAIN: 3", r"a\.yaml: TRAIN .*section"),
        ("TRAIN:\n  ENABLE: True\nTASK: &a\n  x: *a", r"a\.yaml:4: an alias"),
        ("TASK: &a [1, [*a]]", r"a\.yaml:1: an alias"),
        ("? [TASK]\n: 3", "not valid YAML"),
        ("- TASK", r"a\.yaml: must be a mapping .*'TASK'"),
        ("", r"a\.yaml: a configuration must have sections or keys, got none"),
        ("# a comment", r"a\.yaml: a configuration must have sections or keys, got none"),
        ("{}", r"a\.yaml: a configuration must have sections or keys, got none"),
        ("TASK: [", r"a\.yaml:1: not valid YAML"),
        ("TASK: \ufffe", "not valid YAML"),
    ],
)
def test_a_mistake_in_a_file_is_one_clear_error(content, message, tmp_path):
    (tmp_path / "other.yaml").write_text("TRAIN: 3\n")
    with pytest.raises(ValueError, match=message):
        _load(tmp_path / "a.yaml", content)


def test_a_mistake_in_a_base_is_named_with_the_base(tmp_path):
    (tmp_path / "base.yaml").write_text("TRAIN:\n  ENABLE: True\n BATCH_SIZE: 3\n")
    with pytest.raises(ValueError, match=r"base\.yaml:3: not valid YAML"):
        _load(tmp_path / "a.yaml", "_BASE_: base.yaml\n")


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"a\.yaml must be text in UTF-8 or UTF-16, got .*UTF-16"):
        load_config([str(tmp_path / "a.yaml")])


def test_a_later_value_takes_the_warning_back(tmp_path):
    content = "AUG: {RE_SPLIT: True}\nVIS_MASK: {ENABLE: True}\n"
    overrides = ("AUG.RE_SPLIT", "False", "VIS_MASK.ENABLE", "False")
    assert _named(_load(tmp_path / "a.yaml", content)[1]) == ["AUG.RE_SPLIT", "VIS_MASK.*"]
    assert _load(tmp_path / "a.yaml", content, overrides)[1] == []
