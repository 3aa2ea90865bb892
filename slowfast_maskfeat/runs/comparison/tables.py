"""Tables of a comparison: the same rows for its page and for Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from slowfast_maskfeat.figures import page
from slowfast_maskfeat.runs.comparison.methods import SCRATCH
from slowfast_maskfeat.runs.comparison.pieces import Plan
from slowfast_maskfeat.runs.comparison.recipe import JUDGES
from slowfast_maskfeat.runs.comparison.results import MethodResult, Paired, Statistic
from slowfast_maskfeat.text import cut

Table = tuple[Sequence[page.Head], Sequence[page.Row]]

_NONE = "-"
_NOTE = 90  # characters of a reason in a table; it stands in full below


def _result_heads(plan: Plan) -> list[page.Head]:
    """Return the heads of the table of results."""
    few = f"{plan.recipe.few_labels} a class"
    return [
        page.Head("method", "Target"),
        *(
            page.Head(judge, JUDGES[judge], few if judge == "few" else "top-1, %")
            for judge in plan.recipe.judges
        ),
        page.Head("against_hog", "against HOG", "fine-tuned, points"),
        page.Head("gap", "gap", "training minus validation"),
        page.Head("labels", "labels seen", "before fine-tuning"),
        page.Head("seconds", "cost", "seconds, all networks"),
        page.Head("seeds", "seeds"),
    ]


_GPU = page.Head("gpu_memory", "GPU memory", "peak, MiB")
_COST_HEADS = (
    page.Head("method", "Target"),
    page.Head("own_seconds", "pre-training", "seconds"),
    page.Head("seconds", "with its networks", "seconds"),
    page.Head("multiply_adds", "multiply-adds", "millions, forward, a sample"),
    page.Head("memory", "memory", "peak, MiB"),
    _GPU,
    page.Head("networks", "further networks", "millions of parameters"),
)


def result_table(plan: Plan, results: Mapping[str, MethodResult]) -> Table:
    """Return what judges found about each method."""
    return _result_heads(plan), _result_rows(plan, results)


def paired_table(plan: Plan, results: Mapping[str, MethodResult]) -> Table:
    """Return the differences from the baseline, for each judge."""
    heads = [page.Head("method", "Target")]
    heads += [page.Head(judge, JUDGES[judge], "points") for judge in plan.recipe.judges]
    return heads, [
        page.Row(
            result.name,
            result.title,
            [_against(result.paired.get(judge)) for judge in plan.recipe.judges],
        )
        for result in results.values()
        if result.paired
    ]


def rate_table(results: Mapping[str, MethodResult]) -> Table:
    """Return the learning rates that a grid chose."""
    stages = {"pretrain": "pre-training", "finetune": "fine-tuning"}
    heads = [page.Head("method", "Target")]
    heads += [page.Head(stage, title, "chosen rate") for stage, title in stages.items()]
    return heads, [
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


def _result_rows(plan: Plan, results: Mapping[str, MethodResult]) -> list[page.Row]:
    judges = plan.recipe.judges
    best = {
        judge: max(
            (x for r in results.values() if (x := r.accuracy[judge].mean) is not None), default=None
        )
        for judge in judges
    }
    return [
        page.Row(
            result.name,
            result.title,
            [
                *(_accuracy(result, judge, best[judge]) for judge in judges),
                _against(result.paired.get("finetune")),
                _statistic(result.gap, 1),
                page.Cell(
                    f"{result.cost.labels:,}" if result.cost.labels else "none", result.cost.labels
                ),
                _cost(result, result.cost.seconds, 0),
                page.Cell(*_number_of_seeds(result)),
            ],
        )
        for result in results.values()
    ]


def cost_table(results: Mapping[str, MethodResult]) -> Table:
    """Return the table of cost; a column without a GPU is left out."""
    rows = [_cost_row(result) for result in results.values()]
    left_out = () if any(r.cost.gpu_memory.values for r in results.values()) else (_GPU,)
    kept = [number for number, head in enumerate(_COST_HEADS) if head not in left_out]
    heads = [_COST_HEADS[number] for number in kept]
    return heads, [row._replace(cells=[row.cells[n - 1] for n in kept[1:]]) for row in rows]


def _cost_row(result: MethodResult) -> page.Row:
    cost = result.cost
    networks = "; ".join(f"{title} {number:.2f}" for title, number in cost.networks.items())
    return page.Row(
        result.name,
        result.title,
        [
            _cost(result, cost.own_seconds, 0),
            _cost(result, cost.seconds, 0),
            _cost(result, cost.multiply_adds, 1),
            _cost(result, cost.memory, 0),
            _cost(result, cost.gpu_memory, 0),
            page.Cell(networks or "none", sum(cost.networks.values()), kind="text"),
        ],
    )


def _cost(result: MethodResult, found: Statistic, digits: int) -> page.Cell:
    """Return a cost before fine-tuning, which training from scratch does not have."""
    return page.Cell("none", 0) if result.name == SCRATCH else _statistic(found, digits)


def _accuracy(result: MethodResult, judge: str, best: float | None) -> page.Cell:
    found = result.accuracy[judge]
    if found.mean is None:
        names = [n for n in result.failures if n.startswith("seed_") and n.endswith(f"/{judge}")]
        if not names:
            return page.Cell(_NONE)
        return page.Cell("failed", note=cut(result.failures[names[0]], _NOTE), kind="failed")
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


def markdown_lines(heads: Sequence[page.Head], rows: Sequence[page.Row]) -> list[str]:
    """Return the lines of a table in Markdown."""
    lines = ["| " + " | ".join(map(_titled, heads)) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join([row.title, *map(_plain, row.cells)]) + " |" for row in rows]
    return lines


def _titled(head: page.Head) -> str:
    return f"{head.title} ({head.note})" if head.note else head.title


def _plain(cell: page.Cell) -> str:
    text = one_line(f"{cell.text} {cell.note}".strip())
    return f"**{text}**" if cell.kind == "best" else text


def one_line(text: str) -> str:
    """Return a text as it can stand in a cell or an item of a list in Markdown."""
    return " ".join(text.replace("|", "\\|").split())
