"""Model cards: README.md of a saved model, as the Hugging Face hub reads it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import yaml
from fvcore.common.config import CfgNode
from torch import nn

from slowfast_maskfeat.builders.model_card import CardFacts, card_facts
from slowfast_maskfeat.checkpoints import folder_of_run
from slowfast_maskfeat.log import event_log_path, read_events
from slowfast_maskfeat.runs.load_trained import Origin
from slowfast_maskfeat.runs.report import file_sha256
from slowfast_maskfeat.text import cut, printable

CARD = "README.md"
"""Name of the file."""

_LIBRARY = "slowfast_maskfeat"
_MARK = "<!-- written by slowfast_maskfeat; SHA-256 of the lines above: {} -->"


def model_card(model: nn.Module, cfg: CfgNode, name: str) -> str:
    """Write the card of a model.

    Its last line has its hash, so that `is_unchanged` knows a card that nobody has edited.

    It names no folder: of the data the reader, the name of the list and its hash, of the weights
    that the training started from the name of the file.

    Args:
        model: as `from_pretrained` returns it. Without an attribute `origin`, or if that is no
            checkpoint of a training, the card has neither data nor recipe nor results.
        cfg: its configuration.
        name: of the folder, for the heading and the example.

    Returns:
        Markdown, with metadata in YAML before it.
    """
    facts = card_facts(cfg)
    origin: Origin | None = getattr(model, "origin", None)
    parts = [_metadata(facts), f"# {_cell(name)}\n", _table(_rows(model, facts)), _use(facts, name)]
    if origin is not None and origin.num_epochs is not None:
        parts += _training(facts, origin)
        results = _results(origin)
        if results:
            parts += ["## Results\n", _table(results, ("Split", "Result"))]
    text = "\n".join(parts)
    return f"{text}\n{_MARK.format(_digest(text))}\n"


def is_unchanged(card: Path) -> bool:
    """Whether a file is a card as `model_card` wrote it, which a new one may replace."""
    try:
        text, _, mark = card.read_text(encoding="utf-8").removesuffix("\n").rpartition("\n")
    except (OSError, UnicodeDecodeError):
        return False
    return mark == _MARK.format(_digest(text))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _metadata(facts: CardFacts) -> str:
    fields: dict[str, Any] = {"library_name": _LIBRARY}
    if facts.pipeline:
        fields["pipeline_tag"] = facts.pipeline
    fields["tags"] = list(facts.tags)
    return f"---\n{yaml.safe_dump(fields, sort_keys=False)}---\n"


def _rows(model: nn.Module, facts: CardFacts) -> list[tuple[str, str]]:
    size = sum(parameter.numel() for parameter in model.parameters())
    names: Sequence[str] = getattr(model, "class_names", ())
    rows = [
        ("Task", facts.task),
        ("Network", facts.network),
        ("Parameters", f"{size:,}"),
        ("Input", facts.clip),
        ("Normalization", f"RGB in 0..1, mean {facts.mean}, standard deviation {facts.std}"),
    ]
    if facts.test:
        rows.append(("Test", facts.test))
        count = f"{len(names)}, with names" if names else f"{facts.num_classes}, without names"
        rows.append(("Classes", count))
    return rows


def _use(facts: CardFacts, name: str) -> str:
    """Show how to load the model, in three lines."""
    folder = _quoted(name)
    example = "my_image.jpg" if facts.clip.startswith("images") else "my_video.mp4"
    if facts.is_predicted:
        used = ("Predictor", f'print(Predictor({folder})("{example}").labels)')
    elif facts.is_embedded:
        used = ("Embedder", f'print(Embedder({folder})("{example}").features.shape)')
    else:
        used = ("from_pretrained", f"model = from_pretrained({folder})")
    code = f"```python\nfrom slowfast_maskfeat import {used[0]}\n\n{used[1]}\n```\n"
    return f"## Use\n\n`{_LIBRARY}` loads the folder of this file:\n\n{code}"


def _quoted(name: str) -> str:
    """Return a string literal of Python in one line."""
    literal = ascii(name)
    is_plain = literal == f"'{name}'" and '"' not in name
    return f'"{name}"' if is_plain else literal


def _training(facts: CardFacts, origin: Origin) -> list[str]:
    rows = [("List reader (`TRAIN.DATASET`)", f"`{_cell(facts.reader)}`")]
    source, digest = origin.data.get("list"), origin.data.get("list_sha256")
    if source:
        digest = f", SHA-256 `{digest}`" if digest else ""
        rows.append(("List", f"`{_cell(PurePath(str(source)).name)}`{digest}"))
    start = f"`{_cell(facts.start)}`" if facts.start else "random"
    rows += [("First weights", start), ("Finished epochs", str(origin.num_epochs))]
    rows += [(f"`{key}`", f"`{_cell(value)}`") for key, value in facts.recipe.items()]
    return ["## Training\n", _table(rows)]


def _results(origin: Origin) -> list[tuple[str, str]]:
    """Read the results of a checkpoint from the log of its training."""
    file = Path(origin.path)
    log = event_log_path(folder_of_run(file))
    if not log.is_file() or not file.is_file():
        return []
    events = read_events(log)
    rows = []
    validations = [
        event
        for event in events
        if event["event"] == "validation" and event.get("checkpoint") == file.name
    ]
    if validations:
        rows.append(("validation", _figures(validations[-1])))
    digest = file_sha256(str(file))
    tests: dict[tuple[Any, Any], dict[str, Any]] = {}
    for event in events:
        if event["event"] == "test" and event.get("checkpoint_sha256") == digest:
            tests[event.get("num_crops"), event.get("num_views")] = event
    for (crops, views), event in tests.items():
        rows.append((f"test, {crops}x{views} (crops x clips)", _figures(event)))
    return [(title, text) for title, text in rows if text]


def _figures(event: Mapping[str, Any]) -> str:
    """Describe the results of an evaluation that are numbers."""
    forms = {
        "top1": "top-1 {:.2f} %",
        "top5": "top-5 {:.2f} %",
        "mean_ap": "mAP {:.4f}",
        "loss": "loss {:.4f}",
        "baseline": "baseline {:.4f}",
        "num_videos_scored": "{} videos",
        "num_frames_matched": "{} key frames",
    }
    return ", ".join(
        form.format(event[name])
        for name, form in forms.items()
        if isinstance(event.get(name), (int, float))
    )


def _table(rows: Sequence[tuple[str, str]], head: tuple[str, str] = ("", "")) -> str:
    lines = [f"| {head[0]} | {head[1]} |", "|---|---|"]
    lines += [f"| {title} | {text} |" for title, text in rows]
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    """Return a value as text in a line of Markdown."""
    text = printable(cut(" ".join(str(value).split())))
    return text.replace("|", "\\|").replace("`", "'")
