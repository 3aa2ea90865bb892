"""YAML that would take any amount of time, memory or stack: one clear line at once."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from slowfast_maskfeat.config.load import load_config, parse_config
from slowfast_maskfeat.config.yaml_file import read_yaml


def _bomb(first: str, step: str) -> str:
    """Each of 30 lines repeats the one before several times."""
    return f"A: &a0 {first}\n" + "".join(step.format(i, i + 1) for i in range(30))


BOMBS = {
    "lists": _bomb("[x, x, x]", "B{0}: &a{1} [*a{0}, *a{0}, *a{0}]\n"),
    "sections": _bomb("{x: 1}", "B{0}: &a{1} {{p: *a{0}, q: *a{0}, r: *a{0}}}\n"),
    "merge keys": _bomb("{x: 1, y: 2}", "B{0}: &a{1}\n  <<: [*a{0}, *a{0}, *a{0}]\n"),
    "merge keys in values": _bomb("{x: 1}", "B{0}: &a{1}\n  <<: *a{0}\n  z{0}: [*a{0}, *a{0}]\n"),
    "a long chain": "A: &a0 {x: 1}\n"
    + "".join(f"B{i}: &a{i + 1} {{<<: *a{i}}}\n" for i in range(2000)),
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_aliases_that_stand_for_too_much(text: str) -> None:
    begin = time.monotonic()
    with pytest.raises(ValueError, match=r"x\.yaml:\d+: .* what its aliases \(\*\) stand for"):
        parse_config(text, "x.yaml")
    assert time.monotonic() - begin < 30


WRONG = {
    "a list in itself": ("A: &a [*a]", r"x\.yaml:1: an alias"),
    "a merge of itself": ("A: &a\n  <<: *a", r"x\.yaml:2: an alias"),
    "deep lists": ("TRAIN: " + "[" * 5000, "more than 32 levels"),
    "deep sections": ("A: " + "{a: " * 5000, "more than 32 levels"),
    "deep lines": ("\n".join(f"{' ' * i}k:" for i in range(300)), "more than 32 levels"),
    "a deep key": (f"? {'.'.join('A' * 500)}\n: 1", "at most 32 sections"),
    "no bool": ("TRAIN:\n  ENABLE: !!bool foo", r"x\.yaml:2: .*not a valid bool"),
    "no timestamp": ("TASK: !!timestamp x", r"x\.yaml:1: .*not a valid timestamp"),
    "no date": ("TASK: 2001-99-99", r"x\.yaml:1: .*not a valid timestamp"),
    "no integer": ("RNG_SEED: !!int x", r"x\.yaml:1: .*not a valid int"),
    "no number": ("SOLVER:\n  BASE_LR: !!float x", r"x\.yaml:2: .*not a valid float"),
    "no base64": ("TASK: !!binary é", r"x\.yaml:1: not valid YAML"),
    "no set": ("TASK: !!set [a]", r"x\.yaml:1: not valid YAML"),
    "100,000 digits": (f"RNG_SEED: {'1' * 100_000}", r"x\.yaml:1: .*not a valid int"),
    "100,000 quoted digits": (f"RNG_SEED: '{'1' * 100_000}'", "must be an integer"),
    "hexadecimal digits": (f"RNG_SEED: 0x{'f' * 9000}", r"x\.yaml:1: .*not a valid int"),
    "base 60": (f"RNG_SEED: 1{':1' * 5000}", r"x\.yaml:1: .*not a valid int"),
    "base 60 with a point": (f"SOLVER:\n  BASE_LR: 1{':1' * 5000}.5", "not a valid float"),
    "64 bits": ("LOG_PERIOD: '18446744073709551616'", "at most 63 bits"),
    "more than float32": ("MVIT:\n  LAYER_SCALE: 1e308", "at most 3.4e[+]?38"),
    "a NUL": ("TASK: 'a\0b'", "not valid YAML"),
    "a long text": ("TASK: " + "x" * 10**6, "at most 262144 characters"),
    "a long key": (f"? {'x' * 10**5}\n: 1", "unknown key"),
    "names in a list": ("DATA:\n  MEAN: [a, b, c]", "DATA.MEAN must be"),
    "modules": ("IMPORTS: 3", "IMPORTS must be a list"),
    "modules in a list": ("IMPORTS: [3]", "IMPORTS must be a list"),
    "a huge model": ("MVIT:\n  DEPTH: 1000000000", r"MVIT\.DEPTH must be <= 1000"),
    "huge clips": ("DATA:\n  NUM_FRAMES: 1000000000", r"DATA\.\w+_CROP_SIZE must be <="),
}


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=WRONG)
def test_what_no_configuration_has_is_one_short_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        parse_config(text, "x.yaml")
    assert len(str(error.value)) < 450
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", ["(" * 5000, "-" * 9000 + "1", "{[]: 1}", "'" * 10**5, "[" * 150])
def test_a_text_that_is_no_literal_stays_a_text(value: str) -> None:
    cfg = load_config([], ["DATA.PATH_PREFIX", value])
    assert len(cfg.DATA.PATH_PREFIX) == len(value)


def test_keys_with_escape_sequences_are_printed_escaped() -> None:
    text = '"\\e[31mA": {x: 1, x: 2}'
    with pytest.raises(ValueError, match=r"unknown key '\\x1b\[31mA.x'"):
        parse_config(text, "x.yaml")
    with pytest.warns(UserWarning, match=r"TASK is set twice, to '\\x1b\[31m' and 'b'"):
        parse_config('TASK: "\\e[31m"\nTASK: b', "x.yaml")


def test_bases_that_repeat_each_other_are_read_a_limited_number_of_times(tmp_path: Path) -> None:
    for number in range(30):
        bases = [f"{number + 1}.yaml"] * 3
        (tmp_path / f"{number}.yaml").write_text(f"_BASE_: {bases}\n")
    (tmp_path / "30.yaml").write_text("TASK: x\n")
    with pytest.raises(ValueError, match=r"0\.yaml: its _BASE_ must lead to at most 100 files"):
        read_yaml(tmp_path / "0.yaml")


def test_a_base_with_a_name_of_any_length_is_one_short_line(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(f"_BASE_: {'y' * 100_000}\n")
    with pytest.raises(ValueError, match="_BASE_ names a file that does not exist: ") as error:
        read_yaml(tmp_path / "x.yaml")
    assert len(str(error.value)) < len(str(tmp_path)) + 300


@pytest.mark.parametrize("kind", ["FIFO", "folder", "device"])
def test_what_is_no_file_is_named_without_waiting(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.yaml"
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=rf"x\.yaml: a configuration .* this is a {kind}"):
        load_config([str(path)])
