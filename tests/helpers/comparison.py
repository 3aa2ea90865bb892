"""Small comparisons: recipes, and programs that stand for trainings where none is needed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import yaml
from helpers.load_tool import ROOT

COUNTS = ["--num-pretrain", "64", "--num-train", "36", "--num-val", "12", "--num-test", "12"]

# One or two epochs of the image demo's trainings.
SMALL_KEYS: dict[str, dict[str, Any]] = {
    "pretrain": {"SOLVER.MAX_EPOCH": 1, "SOLVER.WARMUP_EPOCHS": 0.0, "TRAIN.CHECKPOINT_PERIOD": 1},
    "tokenizer": {
        "MODEL.MODEL_NAME": "Tokenizer",
        "TOKENIZER.NUM_CODES": 16,
        "TOKENIZER.CODE_DIM": 4,
        "TOKENIZER.WIDTHS": [8, 16, 16],
        "SOLVER.MAX_EPOCH": 1,
        "SOLVER.WARMUP_EPOCHS": 0.0,
    },
    "finetune": {
        "SOLVER.MAX_EPOCH": 2,
        "SOLVER.WARMUP_EPOCHS": 0.0,
        "TRAIN.EVAL_PERIOD": 1,
        "TRAIN.CHECKPOINT_PERIOD": 1,
        "PROBE.NUM_NEIGHBORS": 5,
    },
    "linear": {"PROBE.EPOCHS": 2},
    "few": {"TRAIN.BATCH_SIZE": 16},
}


def write_recipe(path: Path, **sections: Any) -> Path:
    """Write a recipe of the image demo's networks; sections replace those of `SMALL_KEYS`' form."""
    demo = ROOT / "configs" / "demo"
    content = {
        "title": "A small comparison",
        "methods": ["hog", "pixels", "scratch"],
        "configs": {
            "pretrain": str(demo / "_base_image_pretrain.yaml"),
            "tokenizer": str(demo / "_base_image.yaml"),
            "finetune": str(demo / "image_finetune.yaml"),
        },
        "data": {
            "pretrain": {
                "DATA.PATH_TO_DATA_DIR": "{data}/pretrain",
                "DATA.PATH_PREFIX": "{data}",
            },
            "finetune": {
                "DATA.PATH_TO_DATA_DIR": "{data}/finetune",
                "DATA.PATH_PREFIX": "{data}",
            },
        },
        "keys": SMALL_KEYS,
        "judges": ["finetune", "knn"],
        "panel": 0,
        **sections,
    }
    path.write_text(yaml.safe_dump(content))
    return path


# Logs what a run logs, from the words of its command line; fails where the test says so.
_STAND_IN = """
import json, pathlib, sys
words = sys.argv[3:]
keys = dict(zip(words[::2], words[1::2]))
folder = pathlib.Path(keys["OUTPUT_DIR"])
if any(word in str(folder) for word in {failing!r}):
    sys.exit("warning: something\\nerror: MASK.TARGET must be another, got this")
rate = float(keys.get("SOLVER.BASE_LR", 0.002))
task, seed = keys["TASK"], int(keys["RNG_SEED"])
top1 = 50 + seed + 1000 * rate * (1 if rate < 0.003 else -1)
lines = [{{"event": "start", "multiply_adds": 2000000, "num_parameters": 3000000, "torch": "t"}}]
if "PROBE.KIND" in keys:
    lines = [{{"event": "probe", "kind": keys["PROBE.KIND"], "top1": top1 - 5}}]
else:
    lines += [{{"event": "epoch", "epoch": 1, "top1": top1 + 20, "num_expected": 36}}]
    lines += [{{"event": "validation", "epoch": 1, "top1": top1 + 10}}]
    if keys.get("TEST.ENABLE") == "True":
        lines += [{{"event": "test", "top1": top1}}]
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    (checkpoints / f"{{task}}_checkpoint_epoch_00001.pyth").touch()
folder.mkdir(parents=True, exist_ok=True)
with open(folder / "stats.jsonl", "a") as log:
    log.writelines(json.dumps(line) + "\\n" for line in lines)
with open(folder / "starts", "a") as starts:
    starts.write("x")
"""


def stand_in(*, failing: Sequence[str] = ()) -> list[str]:
    """The words of a program that stands for `tools/run_net.py` and logs numbers at once.

    Args:
        failing: parts of OUTPUT_DIR with which it fails.
    """
    return [sys.executable, "-c", _STAND_IN.format(failing=list(failing))]


class PageTables(HTMLParser):
    """The tables of a page: id -> row -> column -> (value for sorting, text).

    Attributes:
        tables: what was read.
        addresses: of links, scripts, style sheets and pictures.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: dict[str, dict[str, dict[str, tuple[str, str]]]] = {}
        self.addresses: list[str] = []
        self._columns: list[str] = []
        self._table = self._row = ""
        self._cell: list[str] | None = None
        self._value = ""
        self._place = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.addresses += [found[name] for name in ("href", "src") if name in found]
        if tag == "table":
            self._table, self._columns = found["id"], []
            self.tables[self._table] = {}
        elif tag == "th" and "data-column" in found:
            self._columns.append(found["data-column"])
        elif tag == "tr" and "data-row" in found:
            self._row, self._place = found["data-row"], 0
            self.tables[self._table][self._row] = {}
        elif tag in ("td", "th") and "data-value" in found:
            self._cell, self._value = [], found["data-value"]

    def handle_data(self, data: str) -> None:
        if self._cell is not None:
            self._cell.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th") and self._cell is not None:
            column = self._columns[self._place]
            self.tables[self._table][self._row][column] = self._value, " ".join(self._cell)
            self._cell, self._place = None, self._place + 1
