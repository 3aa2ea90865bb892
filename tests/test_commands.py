"""The program `maskfeat`: every command is found, described and starts; a wrong word is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from helpers.load_tool import ROOT, run_command

import slowfast_maskfeat
from slowfast_maskfeat.commands import main as program
from slowfast_maskfeat.commands.main import COMMANDS, main
from slowfast_maskfeat.config import load_config, split_words


def test_every_command_is_listed_with_its_summary(capsys):
    assert main(["-h"]) == 0
    printed = capsys.readouterr().out
    modules = {path.stem for path in Path(program.__file__).parent.glob("[!_]*.py")}
    assert modules - {"main"} == {name.replace(" ", "_").replace("-", "_") for name in COMMANDS}
    for name in COMMANDS:
        (line,) = (row for row in printed.splitlines() if row.startswith(f"  {name}  "))
        assert line.endswith(".")


def test_the_help_and_version_import_no_torch():
    code = (
        "import sys; from slowfast_maskfeat.commands.main import main\n"
        "main(['-h']); main(['--version']); print('torch' in sys.modules)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    assert printed.splitlines()[-2:] == [f"maskfeat {slowfast_maskfeat.__version__}", "False"]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_runs_nothing(name, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    with pytest.raises(SystemExit) as end:
        main([*name.split(), "-h"])
    assert end.value.code == 0
    printed = capsys.readouterr().out
    assert f"maskfeat {name}" in printed.split("\n\n")[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tain"], "error: no command 'tain'; did you mean 'train'?"),
        (["data", "shard"], "error: no command 'data shard'; did you mean 'data shards'?"),
        (["7"], "error: no command '7'; `maskfeat -h` lists them"),
    ],
)
def test_a_wrong_command_is_one_line(words, said, capsys):
    assert main(words) == 2
    assert capsys.readouterr().err == said + "\n"


@pytest.mark.parametrize("words", [[], ["data"]])
def test_no_command_is_answered_with_the_list(words, capsys):
    assert main(words) == 2
    assert "data summary" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["k400_MVITv2_S_16x4_FT", "masked_ssl/k400_MVITv2_S_16x4_FT.yaml"])
def test_a_shipped_configuration_is_found_by_name_from_any_folder(name, tmp_path, monkeypatch):
    expected = load_config([str(ROOT / "configs/masked_ssl/k400_MVITv2_S_16x4_FT.yaml")])
    monkeypatch.chdir(tmp_path)
    words = [name, "SOLVER.MAX_EPOCH", "3"]
    assert split_words(words) == ([name], words[1:])
    assert load_config([name]).dump() == expected.dump()


def test_a_file_of_the_current_folder_is_before_a_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("pretrain.yaml").write_text("SOLVER: {MAX_EPOCH: 7}\n")
    assert load_config(["pretrain.yaml"]).SOLVER.MAX_EPOCH == 7


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["k400_MVITv2_S_16x4_FTT"], "did you mean k400_MVITv2_S_16x4_FT"),
        (["k400_MVITv2_S_16x4_FTT.yaml"], "did you mean k400_MVITv2_S_16x4_FT"),
        (["MVITv2_S_16x4"], "several configurations: Kinetics/MVITv2_S_16x4 or SSv2/MVITv2_S"),
        (["../demo/pretrain.yaml"], "no configuration file or .* '../demo/pretrain.yaml'"),
        (["nope"], "no configuration file or shipped configuration named 'nope'$"),
        (["own/finetun", "OUTPUT_DIR", "/x"], "named 'own/finetun'; did you mean .*finetune"),
        (["own/linear", "k400_VIT_FT", "OUTPUT_DIR", "/x"], "named 'k400_VIT_FT'"),
        (["SOLVER.MAX_EPOCH", "3", "nope"], "named 'nope'$"),
        (["solver.max_epochs", "3"], "unknown key 'solver.max_epochs'; .*SOLVER.MAX_EPOCH"),
        (["max_epoch", "3"], "unknown key 'max_epoch'; .*SOLVER.MAX_EPOCH"),
        (["Train.Batch", "3"], "unknown key 'Train.Batch'"),
        (["DATA.MEAN", "0.5", "0.4"], "'0.4' has no value"),
    ],
)
def test_a_name_without_a_file_is_one_error(words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=said):
        load_config(*split_words(words))


@pytest.mark.parametrize("command", ["train", "info"])
def test_a_command_names_the_configuration_that_does_not_exist(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output = "t1" if command == "train" else "t1.json"
    done = run_command(command, "--cfg", "k400_MVITv2_S_16x4_FTT", "--output", output)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        "error: no configuration file or shipped configuration named 'k400_MVITv2_S_16x4_FTT'; "
        "did you mean k400_MVITv2_S_16x4_FT"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_single_file_need_not_be_a_list(tmp_path):
    expected = load_config(["own/finetune"])
    assert load_config("own/finetune").dump() == expected.dump()
    (tmp_path / "a.yaml").write_text("SOLVER: {MAX_EPOCH: 7}\n")
    assert load_config(tmp_path / "a.yaml").SOLVER.MAX_EPOCH == 7
    assert load_config([tmp_path / "a.yaml"]).SOLVER.MAX_EPOCH == 7
