"""comparison.html, comparison.md and comparison.json of a comparison."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from slowfast_maskfeat.figures import page
from slowfast_maskfeat.files import atomic_write
from slowfast_maskfeat.log import event_log_path
from slowfast_maskfeat.runs.comparison import facts, tables
from slowfast_maskfeat.runs.comparison.execute import Outcome, last_checkpoint
from slowfast_maskfeat.runs.comparison.methods import METHODS, SCRATCH
from slowfast_maskfeat.runs.comparison.pieces import Plan
from slowfast_maskfeat.runs.comparison.results import (
    Curves,
    MethodResult,
    Statistic,
    read_chance,
    read_environment,
    read_results,
)

PANEL = "predictions.png"


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
    chance = read_chance(plan, output, outcomes)
    picture = output / PANEL
    content = _content(plan, output, outcomes, results, chance)
    texts = {
        "comparison.html": _html(plan, output, outcomes, results, chance, picture),
        "comparison.md": _markdown(plan, outcomes, results, chance),
        "comparison.json": json.dumps(content, indent=1) + "\n",
    }
    for name, text in texts.items():
        with atomic_write(output / name) as part:
            part.write_text(text, encoding="utf-8")
    return [output / name for name in texts]


def _content(
    plan: Plan,
    output: Path,
    outcomes: Mapping[str, Outcome],
    results: Mapping[str, MethodResult],
    chance: float | None,
) -> dict[str, Any]:
    """Return all that is known, as numbers, strings, lists and dicts."""
    return {
        "title": plan.recipe.title,
        "seeds": list(plan.recipe.seeds),
        "judges": list(plan.recipe.judges),
        "chance": chance,
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
        "environment": read_environment(plan, output, outcomes),
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


def _html(
    plan: Plan,
    output: Path,
    outcomes: Mapping[str, Outcome],
    results: Mapping[str, MethodResult],
    chance: float | None,
    picture: Path,
) -> str:
    recipe = plan.recipe
    return page.html_page(
        recipe.title,
        page.paragraph(_summary(plan, outcomes)),
        *(page.paragraph(note) for note in recipe.notes),
        page.section(
            "Results",
            page.sortable_table("results", *tables.result_table(plan, results)),
            page.paragraph(
                f"{_accuracy_note(chance)} A click on a heading sorts the table.",
                is_soft=True,
            ),
        ),
        page.section(
            "Differences from HOG, seed by seed",
            _table("paired", tables.paired_table(plan, results)),
        ),
        page.section("Cost before fine-tuning", _table("cost", tables.cost_table(results))),
        page.section("What is not comparable", page.bullets(facts.not_comparable(plan, results))),
        page.section(
            "What was tuned",
            page.paragraph(facts.tuning(plan)),
            _table("rates", tables.rate_table(results)),
        ),
        _curve_section(results),
        _picture_section(picture),
        _published_section(plan),
        _settings_section(plan),
        page.section("Made with", page.bullets(_environment(plan, output, outcomes))),
        page.section("Failures", page.bullets(_failures(outcomes))),
        page.section("Files", _files(plan, output, outcomes)),
    )


def _summary(plan: Plan, outcomes: Mapping[str, Outcome]) -> str:
    done = sum(outcome.is_done for outcome in outcomes.values())
    failed = sum(bool(outcome.reason) for outcome in outcomes.values())
    rest = "" if done + failed == len(plan.pieces) else ", others are not made yet"
    return (
        "The same network, data, epochs and seeds for all; what is predicted differs. "
        f"{done} of {len(plan.pieces)} runs are done{f', {failed} failed' if failed else ''}{rest}."
    )


def _accuracy_note(chance: float | None) -> str:
    note = "Accuracy on the test split: mean and standard deviation over the seeds."
    return note if chance is None else f"{note} Always the most frequent class: {chance:.1f} %."


def _table(name: str, table: tables.Table) -> str:
    """Return a table as HTML; nothing without rows."""
    return page.sortable_table(name, *table) if table[1] else ""


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
    equal = page.bullets(
        f"{key} {_value(value)}" for key, value in facts.equal_values(plan).items()
    )
    different = [
        page.details(
            f"{METHODS[method].title}: {'keys of fine-tuning' if method == SCRATCH else 'keys'} "
            f"that differ from HOG's ({len(found)})",
            page.bullets(
                f"{of.key} {_value(of.value)} instead of {_value(of.baseline)}" for of in found
            ),
            page.paragraph(f"Values from: {METHODS[method].source}.", is_soft=True),
        )
        for method, found in facts.differences(plan).items()
    ]
    return page.section(
        "Settings of pre-training", page.details("The same for all", equal), *different
    )


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else repr(value)


def _environment(plan: Plan, output: Path, outcomes: Mapping[str, Outcome]) -> list[str]:
    return [f"{name} {value}" for name, value in read_environment(plan, output, outcomes).items()]


def _failures(outcomes: Mapping[str, Outcome]) -> list[str]:
    return [f"{name}: {outcome.reason}" for name, outcome in outcomes.items() if outcome.reason]


def _files(plan: Plan, output: Path, outcomes: Mapping[str, Outcome]) -> str:
    """Return links to the configuration, log and last checkpoint of each run that is done."""
    found = {}
    for name, outcome in outcomes.items():
        piece, folder = plan.pieces[name], output / plan.pieces[name].folder
        if outcome.is_done:
            files = [
                ("configuration", folder / f"{piece.kind}.yaml"),
                ("log", event_log_path(folder)),
            ]
            if last := last_checkpoint(folder, piece):
                files.append(("checkpoint", last))
            found[name] = [
                (text, file.relative_to(output).as_posix())
                for text, file in files
                if file.is_file()
            ]
    return page.details(f"{len(found)} runs", page.link_rows(found)) if found else ""


def _markdown(
    plan: Plan,
    outcomes: Mapping[str, Outcome],
    results: Mapping[str, MethodResult],
    chance: float | None,
) -> str:
    """Return the table and the statements as Markdown."""
    lines = [f"# {plan.recipe.title}", "", _summary(plan, outcomes), ""]
    lines += [note + "\n" for note in plan.recipe.notes]
    lines += tables.markdown_lines(*tables.result_table(plan, results))
    lines += ["", _accuracy_note(chance), "", "## Cost before fine-tuning", ""]
    lines += tables.markdown_lines(*tables.cost_table(results))
    parts = {
        "What is not comparable": facts.not_comparable(plan, results),
        "What was tuned": [facts.tuning(plan)],
        "Failures": _failures(outcomes),
    }
    for title, sentences in parts.items():
        if sentences:
            lines += ["", f"## {title}", "", *(f"- {tables.one_line(s)}" for s in sentences)]
    return "\n".join(lines) + "\n"
