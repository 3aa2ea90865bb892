"""One vocabulary: options have the same name in every command, a help, and their former names."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from slowfast_maskfeat.checkpoints.naming import NAMINGS
from slowfast_maskfeat.commands import convert
from slowfast_maskfeat.commands._options import OLD_NAMES, CommandParser
from slowfast_maskfeat.commands.main import COMMANDS, main
from slowfast_maskfeat.features.extraction import POOLINGS
from slowfast_maskfeat.runs.export import FORMATS
from slowfast_maskfeat.runs.feature_pictures import ATTENTION, COMPONENTS

# Commands whose model has a configuration, which pairs change.
WITH_PAIRS = {
    *("train", "test", "probe", "predict", "detect", "embed", "compare", "visualize"),
    *("export", "convert", "info"),
}
WITH_CHECKPOINT = (WITH_PAIRS | {"rewrite"}) - {"compare", "info"}
SEVERAL_LISTS = {"data check", "data resize", "data shards", "data summary"}

Parse = Callable[[str], tuple[CommandParser, argparse.Namespace]]


class ParsedError(Exception):
    """Ends a command once its words are understood."""


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch) -> Parse:
    """A command line -> its parser and options; the command itself does not run."""
    found: list[tuple[CommandParser, argparse.Namespace]] = []
    original = CommandParser.parse_args

    def record(self: CommandParser, *words: object) -> argparse.Namespace:
        found.append((self, argparse.Namespace()))
        found.append((self, original(self, *words)))
        raise ParsedError

    monkeypatch.setattr(CommandParser, "parse_args", record)
    monkeypatch.setattr(sys, "argv", list(sys.argv))

    def call(line: str) -> tuple[CommandParser, argparse.Namespace]:
        with pytest.raises((ParsedError, SystemExit)):
            main(line.split())
        return found[-1]

    return call


def _options(parser: CommandParser) -> dict[str, argparse.Action]:
    actions = (action for action in parser._actions if action.option_strings)
    return {action.option_strings[-1]: action for action in actions}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_common_names_mean_the_same_in_every_command(parse: Parse, name: str) -> None:
    options = _options(parse(f"{name} -h")[0])
    has = {option for option in ("--cfg", "--opts", "--checkpoint") if option in options}
    expected = {"--opts"} if name in WITH_PAIRS else set()
    expected |= {"--cfg"} if name in WITH_PAIRS - {"compare"} else set()
    expected |= {"--checkpoint"} if name in WITH_CHECKPOINT else set()
    assert has == expected
    assert ("--output" in options) == (name != "check-install")
    assert ("--prefix" in options) == (name in SEVERAL_LISTS | {"data manifest"})
    assert ("--processes" in options) == (name in SEVERAL_LISTS | {"data check-ava"})
    if "--device" in options:
        assert options["--device"].default == "auto"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_described_with_its_default(parse: Parse, name: str) -> None:
    parser, _ = parse(f"{name} -h")
    formatter = parser._get_formatter()
    for option, action in _options(parser).items():
        assert action.help, option
        text, default = formatter._expand_help(action), str(action.default)
        is_set = action.default not in (None, False, "", " ", [], 0.0, argparse.SUPPRESS)
        assert not is_set or re.search(rf"\(default: .*{re.escape(default)}\)$", text), option
        assert is_set or "None" not in text, option


def test_no_help_imports_torch_or_runs_anything() -> None:
    code = (
        "import sys\n"
        "from slowfast_maskfeat.commands.main import COMMANDS, main\n"
        "for name in COMMANDS:\n"
        "    try: main([*name.split(), '-h'])\n"
        "    except SystemExit as end: assert end.code == 0\n"
        "    assert 'torch' not in sys.modules, name\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("train --cfg_files a.yaml KEY 1", "train --cfg a.yaml KEY 1"),
        ("test --cfg_files a.yaml", "test --cfg a.yaml"),
        ("probe --cfg_files a.yaml b.yaml", "probe --cfg a.yaml b.yaml"),
        (
            "report --scores a.npz --output out --videos 3",
            "report --scores a.npz --output out --num-videos 3",
        ),
        (
            "predict --checkpoint a --video b --csv c.csv",
            "predict --checkpoint a --video b --output c.csv",
        ),
        (
            "visualize --checkpoint a --input b c --output d.png",
            "visualize --checkpoint a --video b c --output d.png",
        ),
        ("info --cfg a.yaml --json=b.json", "info --cfg a.yaml --output=b.json"),
        (
            "convert --cfg a.yaml --input b --output c.pyth KEY 1",
            "convert --cfg a.yaml --checkpoint b --output c.pyth KEY 1",
        ),
        ("rewrite --input a --output b.pyth", "rewrite --checkpoint a --output b.pyth"),
    ],
)
def test_former_names_are_understood_and_not_shown(parse: Parse, old: str, new: str) -> None:
    parser, options = parse(old)
    assert vars(options)
    assert vars(options) == vars(parse(new)[1])
    former = [name for names in OLD_NAMES[old.split()[0]].values() for name in names]
    assert any(f" {name}" in old for name in former)
    text = parser.format_help()
    assert not any(f"{name} " in text or f"{name}," in text for name in former)


@pytest.mark.parametrize("name", sorted(WITH_PAIRS))
def test_pairs_are_at_the_end_or_behind_opts(parse: Parse, name: str) -> None:
    needed = {
        "predict": "--checkpoint a --video b",
        "detect": "--checkpoint a --video b --boxes c",
        "embed": "--checkpoint a",
        "compare": "--recipe a --output b",
        "visualize": "--checkpoint a --video b --output c.png",
        "export": "--checkpoint a --output b.pt2",
        "convert": "--cfg a --checkpoint b --output c.pyth",
    }.get(name, "--cfg a.yaml")
    of_lists = {"predict", "visualize"}  # whose last option here takes the words that follow
    behind = parse(f"{name} {needed} {'-- ' if name in of_lists else ''}KEY 1")[1]
    opts = parse(f"{name} {needed} --opts KEY 1")[1]
    for options in (behind, opts):  # --cfg of several files takes the words behind it
        assert ([*options.words, *options.opts] or options.cfg)[-2:] == ["KEY", "1"]


def test_names_that_need_torch_are_those_of_the_code(parse: Parse) -> None:
    assert set(convert.LIBRARIES) == set(NAMINGS)
    assert set(_options(parse("export -h")[0])["--format"].choices or ()) == set(FORMATS)
    poolings = _options(parse("embed -h")[0])["--pooling"].choices
    assert {"", *(poolings or ())} == set(POOLINGS)
    what = _options(parse("visualize -h")[0])["--what"].choices
    assert set(what or ()) == {"predictions", ATTENTION, COMPONENTS}


@pytest.mark.parametrize(
    ("option", "key"), [("--checkpoint", "TRAIN.CHECKPOINT_FILE_PATH"), ("--output", "OUTPUT_DIR")]
)
def test_an_option_and_its_key_must_not_differ(option, key, capsys, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(b"")
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    assert main(["train", "--cfg", "demo/pretrain", option, one, key, two]) == 2
    expected = f"{key} must be given once, got {two!r} and, by its option, {one!r}"
    assert expected in capsys.readouterr().err


LISTS = "train.csv --output out"
AVA = "data check-ava --label-map actions.pbtxt"
VIDEOS = {
    "predict": "--checkpoint a",
    "embed": "--checkpoint a",
    "visualize": "--checkpoint a --output b.png",
}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("predict --checkpoint a --video b --top 0", "--top: must be >= 1, got 0"),
        (f"data check {LISTS} --max-image-pixels -5", "--max-image-pixels: must be >= 0, got -5"),
        (f"data shards {LISTS} --max-count 0", "--max-count: must be >= 1, got 0"),
        (f"data shards {LISTS} --max-size 1T", "--max-size: must be a number of bytes such as"),
        (f"data shards {LISTS} --seed -1", "--seed: must be >= 0, got -1"),
        (f"data resize {LISTS} --short-side 0", "--short-side: must be >= 2, got 0"),
        (f"data resize {LISTS} --short-side 33", "--short-side: must be even, got 33"),
        (f"data resize {LISTS} --gop 0", "--gop: must be >= 1, got 0"),
        (f"data resize {LISTS} --crf 52", "--crf: must be in 0..51, got 52"),
        ("data manifest --data a --output b --seed -1", "--seed: must be >= 0, got -1"),
        (
            "data manifest --data a --output b --val-share nan",
            "--val-share: must be in (0, 1), got",
        ),
        (f"{AVA} --threshold 1.5", "--threshold: must be in [0, 1], got 1.5"),
        (f"{AVA} --threshold nan", "--threshold: must be in [0, 1], got nan"),
        (f"{AVA} --video-begin nan", "--video-begin: must be finite, got nan"),
        (f"{AVA} --frame-begin inf", "--frame-begin: must be finite, got inf"),
        (f"{AVA} --frame-rate 0", "--frame-rate: must be above 0 frames per second, got 0"),
        (
            "detect --checkpoint a --video b --boxes c --threshold -1",
            "--threshold: must be in [0, 1], got -1",
        ),
        ("compare --recipe a --output b --seeds 0 -1", "--seeds: must be >= 0, got -1"),
        (
            "visualize --checkpoint a --video b --output c.png --seed x",
            "--seed: invalid whole number value: 'x'",
        ),
        *(
            (f"{name} {words} --{option}", f"--{option.split()[0]}: must be {rule}")
            for name, words in {**dict.fromkeys(sorted(SEVERAL_LISTS), LISTS), AVA: ""}.items()
            for option, rule in {
                "processes 0": ">= 1, got 0",
                "timeout 0": "above 0 seconds, got 0",
                "timeout nan": "finite seconds, got nan",
            }.items()
        ),
        *(
            (f"{name} {words} --video=", "--video: must be a name, got an empty one")
            for name, words in VIDEOS.items()
        ),
    ],
)
def test_a_wrong_option_is_one_line(
    capsys: pytest.CaptureFixture[str], line: str, said: str
) -> None:
    with pytest.raises(SystemExit) as end:
        main(line.split())
    assert end.value.code == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith(f"error: {said}")
    assert error.endswith(" -h` describes the options")


@pytest.mark.parametrize("name", ["train", "test", "probe"])
@pytest.mark.parametrize("words", ["", "--cfg", "--cfg --output out", "--checkpoint a.pyth"])
def test_a_run_needs_a_file_or_a_pair(
    capsys: pytest.CaptureFixture[str], name: str, words: str
) -> None:
    with pytest.raises(SystemExit) as end:
        main(f"{name} {words}".split())
    assert end.value.code == 2
    assert capsys.readouterr().err == (
        "error: --cfg must be a YAML file, such as configs/demo/pretrain.yaml, got none; "
        f"`maskfeat {name} -h` describes the options\n"
    )


def test_the_option_of_videos_is_the_same_in_every_command(parse: Parse) -> None:
    found = [_options(parse(f"{name} -h")[0])["--video"] for name in VIDEOS]
    assert len({(option.help, option.metavar, option.nargs) for option in found}) == 1
    assert "DATA.PATH_PREFIX" in str(found[0].help)
