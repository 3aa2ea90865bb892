"""comparison.html, comparison.md and comparison.json of a comparison."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from slowfast_maskfeat.checkpoints import find_checkpoints
from slowfast_maskfeat.figures import page
from slowfast_maskfeat.files import atomic_write
from slowfast_maskfeat.runs.comparison import facts
from slowfast_maskfeat.runs.comparison.execute import Outcome
from slowfast_maskfeat.runs.comparison.methods import METHODS, SCRATCH
from slowfast_maskfeat.runs.comparison.plan import Plan
from slowfast_maskfeat.runs.comparison.recipe import JUDGES
from slowfast_maskfeat.runs.comparison.results import (
    Curves,
    MethodResult,
    Paired,
    Statistic,
    read_results,
)

PANEL = "predictions.png"
_NONE = "-"


def write_report(plan: Plan, output: Path, outcomes: Mapping[str, Outcome]) -> list[Path]:
    """Write the three files from the logs of the pieces that are done.

    Args:
        plan: of the comparison.
        output: its folder.
        outcomes: how the pieces ended so far.

    Returns:
        The files.
    """
    results = read_results(plan, output, outcomes)
    picture = output / PANEL
    texts = {
        "comparison.html": _html(plan, output, outcomes, results, picture),
        "comparison.md": _markdown(plan, outcomes, results),
        "comparison.json": json.dumps(_content(plan, outcomes, results), indent=1) + "\n",
    }
    for name, text in texts.items():
        with atomic_write(output / name) as part:
            part.write_text(text, encoding="utf-8")
    return [output / name for name in texts]


def _content(
    plan: Plan, outcomes: Mapping[str, Outcome], results: Mapping[str, MethodResult]
) -> dict[str, Any]:
    """Return all that is known, as numbers, strings, lists and dicts."""
    return {
        "title": plan.recipe.title,
        "seeds": list(plan.recipe.seeds),
        "judges": list(plan.recipe.judges),
        "methods": {name: _of_method(result) for name, result in results.items()},
        "equal": facts.equal_values(plan),
        "differences": {
            method: {of.key: [of.value, of.baseline] for of in found}
            for method, found in facts.differences(plan).items()
        },
        "tuning": facts.tuning(plan),
        "not_comparable": facts.not_comparable(plan, results),
        "published": {
            name: {"top1": top1, "source": source}
            for name, (top1, source) in plan.recipe.published.items()
        },
        "pieces": {name: vars(outcome) for name, outcome in outcomes.items()},
    }


def _of_method(result: MethodResult) -> dict[str, Any]:
    cost = result.cost
    return {
        "title": result.title,
        "top1": {judge: found.as_dict() for judge, found in result.accuracy.items()},
        "gap": result.gap.as_dict(),
        "against_hog": {judge: found.as_dict() for judge, found in result.paired.items()},
        "cost": {
            "pretraining_seconds": cost.own_seconds.as_dict(),
            "all_seconds": cost.seconds.as_dict(),
            "million_multiply_adds": cost.multiply_adds.as_dict(),
            "memory_mib": cost.memory.as_dict(),
            "gpu_memory_mib": cost.gpu_memory.as_dict(),
            "million_parameters_of_further_networks": dict(cost.networks),
        },
        "labels_seen_before_finetuning": cost.labels,
        "learning_rates": dict(result.rates),
        "curves": {str(seed): vars(curves) for seed, curves in result.curves.items()},
        "failures": dict(result.failures),
    }


def _columns(plan: Plan) -> list[page.Head]:
    """Return the heads of the table of results."""
    few = f"{plan.recipe.few_labels} a class"
    return [
        page.Head("method", "Target"),
        *(
            page.Head(judge, JUDGES[judge], few if judge == "few" else "top-1, %")
            for judge in plan.recipe.judges
        ),
        page.Head("against_hog", "against HOG", "fine-tuned, points"),
        page.Head("gap", "gap", "training minus validation, points"),
        page.Head("labels", "labels seen", "before fine-tuning"),
        page.Head("own_seconds", "pre-training", "seconds"),
        page.Head("seconds", "with its networks", "seconds"),
        page.Head("multiply_adds", "multiply-adds", "millions, forward"),
        page.Head("memory", "memory", "peak, MiB"),
        page.Head("networks", "further networks", "millions of parameters"),
        page.Head("seeds", "seeds"),
    ]


def _rows(plan: Plan, results: Mapping[str, MethodResult]) -> list[page.Row]:
    judges = plan.recipe.judges
    best = {
        judge: max(
            (x for r in results.values() if (x := r.accuracy[judge].mean) is not None), default=None
        )
        for judge in judges
    }
    return [_row(result, judges, best) for result in results.values()]


def _row(result: MethodResult, judges: Sequence[str], best: Mapping[str, float | None]) -> page.Row:
    cost = result.cost
    networks = "; ".join(f"{title} {number:.2f}" for title, number in cost.networks.items())
    is_cheap = result.name == SCRATCH
    return page.Row(
        result.name,
        result.title,
        [
            *(_accuracy(result, judge, best[judge]) for judge in judges),
            _against(result.paired.get("finetune")),
            _statistic(result.gap, 1),
            page.Cell(f"{cost.labels:,}" if cost.labels else "none", cost.labels),
            page.Cell("none", 0) if is_cheap else _statistic(cost.own_seconds, 0),
            page.Cell("none", 0) if is_cheap else _statistic(cost.seconds, 0),
            page.Cell("none", 0) if is_cheap else _statistic(cost.multiply_adds, 1),
            page.Cell("none", 0) if is_cheap else _statistic(cost.memory, 0),
            page.Cell(networks or "none", sum(cost.networks.values()), kind="text"),
            page.Cell(*_number_of_seeds(result)),
        ],
    )


def _accuracy(result: MethodResult, judge: str, best: float | None) -> page.Cell:
    found = result.accuracy[judge]
    if found.mean is None:
        reasons = list(result.failures.values())
        return page.Cell("failed", note=reasons[0], kind="failed") if reasons else page.Cell(_NONE)
    return _statistic(found, 1)._replace(kind="best" if found.mean == best else "")


def _statistic(found: Statistic, digits: int) -> page.Cell:
    """Return the mean, and the deviation of several seeds."""
    if found.mean is None:
        return page.Cell(_NONE)
    deviation = "" if found.deviation is None else f"± {found.deviation:.{digits}f}"
    return page.Cell(f"{found.mean:,.{digits}f}", found.mean, deviation)


def _against(found: Paired | None) -> page.Cell:
    if found is None or found.mean is None:
        return page.Cell(_NONE)
    number = len(found.differences)
    return page.Cell(f"{found.mean:+.1f}", found.mean, f"wins {found.num_won} of {number}")


def _number_of_seeds(result: MethodResult) -> tuple[str, int]:
    number = max((len(found.values) for found in result.accuracy.values()), default=0)
    return str(number), number


def _html(
    plan: Plan,
    output: Path,
    outcomes: Mapping[str, Outcome],
    results: Mapping[str, MethodResult],
    picture: Path,
) -> str:
    recipe = plan.recipe
    return page.html_page(
        recipe.title,
        page.paragraph(_summary(plan, outcomes)),
        *(page.paragraph(note) for note in recipe.notes),
        page.section(
            "Results",
            page.sortable_table("results", _columns(plan), _rows(plan, results)),
            page.paragraph(
                "Accuracy on the test split: mean and standard deviation over the seeds. A click "
                "on a heading sorts the table.",
                is_soft=True,
            ),
        ),
        _paired_section(plan, results),
        page.section("What is not comparable", page.bullets(facts.not_comparable(plan, results))),
        page.section("What was tuned", page.paragraph(facts.tuning(plan)), _rates(results)),
        _curve_section(results),
        _picture_section(picture),
        _published_section(plan),
        _settings_section(plan),
        page.section("Failures", page.bullets(_failures(outcomes))),
        page.section("Files", *_files(plan, output, outcomes)),
    )


def _summary(plan: Plan, outcomes: Mapping[str, Outcome]) -> str:
    done = sum(outcome.is_done for outcome in outcomes.values())
    failed = sum(bool(outcome.reason) for outcome in outcomes.values())
    text = (
        f"The same network, data, epochs and seeds; only the target differs. {len(plan.pieces)} "
        f"runs, {done} of them done"
    )
    return f"{text}, {failed} failed." if failed else f"{text}."


def _paired_section(plan: Plan, results: Mapping[str, MethodResult]) -> str:
    rows = [
        page.Row(
            result.name,
            result.title,
            [_against(result.paired.get(judge)) for judge in plan.recipe.judges],
        )
        for result in results.values()
        if result.paired
    ]
    heads = [page.Head("method", "Target")]
    heads += [page.Head(judge, JUDGES[judge], "points") for judge in plan.recipe.judges]
    if not rows:
        return ""
    return page.section(
        "Differences from HOG, seed by seed", page.sortable_table("paired", heads, rows)
    )


def _rates(results: Mapping[str, MethodResult]) -> str:
    stages = ("pretrain", "finetune")
    rows = [
        page.Row(
            result.name,
            result.title,
            [
                page.Cell(f"{result.rates[stage]:g}", result.rates[stage])
                if stage in result.rates
                else page.Cell(_NONE)
                for stage in stages
            ],
        )
        for result in results.values()
        if result.rates
    ]
    heads = [
        page.Head("method", "Target"),
        page.Head("pretrain", "pre-training", "chosen rate"),
        page.Head("finetune", "fine-tuning", "chosen rate"),
    ]
    return page.sortable_table("rates", heads, rows) if rows else ""


def _curve_section(results: Mapping[str, MethodResult]) -> str:
    found = [
        page.line_chart(
            result.title,
            [
                page.Line(_mean_curve(result.curves.values(), "validation"), "validation"),
                page.Line(_mean_curve(result.curves.values(), "training"), "training"),
            ],
            caption=_gap_text(result.gap),
        )
        for result in results.values()
        if result.curves
    ]
    if not found:
        return ""
    key = page.chart_key(["validation top-1, %", "training top-1, %, of augmented samples"])
    return page.section("Accuracy while fine-tuning", key, page.charts(found))


def _mean_curve(curves: Iterable[Curves], name: str) -> list[tuple[float, float]]:
    """Return the mean over seeds at the epochs that all of them have."""
    by_seed = [dict(getattr(of_seed, name)) for of_seed in curves]
    common = sorted(set.intersection(*(set(of_seed) for of_seed in by_seed)))
    return [(epoch, sum(of[epoch] for of in by_seed) / len(by_seed)) for epoch in common]


def _gap_text(gap: Statistic) -> str:
    return "" if gap.mean is None else f"gap at the end {gap.mean:+.1f} points"


def _picture_section(picture: Path) -> str:
    if not picture.is_file():
        return ""
    alt = "frames, masked inputs, targets and predictions of the methods"
    caption = (
        "Predictions of the first seed for the same masked inputs, which no network was trained "
        "on: HOG as strokes, pixels, tokens as their decoder draws them, features by three "
        "principal components, labels by color. Methods without such a picture are left out."
    )
    return page.section("Predictions", page.embedded_picture(picture, alt, caption=caption))


def _published_section(plan: Plan) -> str:
    texts = [
        f"{METHODS[name].title}: {top1:g} %; {source}"
        for name, (top1, source) in plan.recipe.published.items()
    ]
    return page.section("Published by others in this setting", page.bullets(texts))


def _settings_section(plan: Plan) -> str:
    equal = page.bullets(f"{key} {value}" for key, value in facts.equal_values(plan).items())
    different = [
        page.details(
            f"{METHODS[method].title}: {len(found)} keys differ from HOG's",
            page.bullets(f"{of.key} {of.value!r} instead of {of.baseline!r}" for of in found),
            page.paragraph(f"Values from: {METHODS[method].source}.", is_soft=True),
        )
        for method, found in facts.differences(plan).items()
    ]
    return page.section(
        "Settings of pre-training", page.details("The same for all", equal), *different
    )


def _failures(outcomes: Mapping[str, Outcome]) -> list[str]:
    return [f"{name}: {outcome.reason}" for name, outcome in outcomes.items() if outcome.reason]


def _files(plan: Plan, output: Path, outcomes: Mapping[str, Outcome]) -> list[str]:
    """Return links to the configuration, log and last checkpoint of each run that is done."""
    found = []
    for name, outcome in outcomes.items():
        folder = output / plan.pieces[name].folder
        if not outcome.is_done:
            continue
        piece = plan.pieces[name]
        files = [folder / f"{piece.kind}.yaml", folder / "stats.jsonl"]
        files += find_checkpoints(folder / "checkpoints", piece.task)[-1:]
        existing = [file.relative_to(output).as_posix() for file in files if file.is_file()]
        found.append(page.details(name, page.links((file, file) for file in existing)))
    return found


def _markdown(
    plan: Plan, outcomes: Mapping[str, Outcome], results: Mapping[str, MethodResult]
) -> str:
    """Return the table and the statements as Markdown."""
    heads = _columns(plan)
    lines = [f"# {plan.recipe.title}", "", _summary(plan, outcomes), ""]
    lines += [note + "\n" for note in plan.recipe.notes]
    lines.append("| " + " | ".join(_titled(head) for head in heads) + " |")
    lines.append("|" + "---|" * len(heads))
    for row in _rows(plan, results):
        cells = [_plain(cell) for cell in row.cells]
        lines.append("| " + " | ".join([row.title, *cells]) + " |")
    parts = {
        "What is not comparable": facts.not_comparable(plan, results),
        "What was tuned": [facts.tuning(plan)],
        "Failures": _failures(outcomes),
    }
    for title, sentences in parts.items():
        if sentences:
            lines += ["", f"## {title}", "", *(f"- {_cell_text(s)}" for s in sentences)]
    return "\n".join(lines) + "\n"


def _titled(head: page.Head) -> str:
    return f"{head.title} ({head.note})" if head.note else head.title


def _plain(cell: page.Cell) -> str:
    text = _cell_text(f"{cell.text} {cell.note}".strip())
    return f"**{text}**" if cell.kind == "best" else text


def _cell_text(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
