"""A scenario file's answers for people: scenarios beside the base, why they differ, what was expected, the sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.report.plan import labelled, simple_table
from hwsim.report.terminal import plain
from hwsim.scenarios.compare import SAME
from hwsim.scenarios.measures import MEASURES
from hwsim.scenarios.sweep import layout
from hwsim.units import scales, show

if TYPE_CHECKING:
    from hwsim.scenarios.answers import Outcome
    from hwsim.scenarios.run import WhatIf
    from hwsim.scenarios.sweep import Swept

SHOWN = {
    False: ("devices", "tokens_per_s", "mfu", "days", "cost", "owned_cost", "energy", "carbon", "memory"),
    True: (
        "devices", "ttft", "tpot", "output_tokens_per_s", "output_tokens_per_s_per_device", "cost", "energy", "memory",
    ),
}  # fmt: skip
"""Figures of the comparison, for training and for serving."""
MAIN = {
    False: ("days", "tokens_per_s", "carbon", "cost", "owned_cost", "energy"),
    True: ("cost", "output_tokens_per_s_per_device"),
}
"""What a sweep is judged by: the first that is not the same everywhere."""
SCREEN = 118
"""Characters of a row."""
PLAIN = ("job", "strategy", "accelerator", "cluster", "tiers", "node")
"""Parts of a field's path that a reader does not need."""
WHY = {False: ("tokens_per_s", "memory", "cost"), True: ("tpot", "memory", "cost")}
MOST_ROWS, MOST_CELLS, SIDE_BY_SIDE = 24, 8, 5


WORDS = (("nic ", "NIC "), ("gpus", "GPUs"), ("seq len", "sequence length"))
"""Names of fields as a reader writes them."""


def whatif_view(result: WhatIf) -> list[Any]:
    """Everything on a screen or two."""
    from hwsim.report.findings import answer_lines

    scenario = result.loaded.scenario
    view: list[Any] = [f"[bold]{plain(scenario.title)}[/bold]"]
    view += [plain(scenario.question), ""] if scenario.question else [""]
    view += [f"- {plain(line)}" for line in answer_lines(result)]
    if len(result.outcomes) > 1 or result.swept is None:
        view += [comparison(result), *([line] if (line := same_line(result)) else []), basis_line(result)]
    reasons = why(result)
    if reasons:
        view += ["", "[bold]Why[/bold]", labelled(reasons)]
    if result.swept is not None:
        view += ["", *sweep_view(result.swept, serves(result))]
    if result.verdicts:
        view += ["", "[bold]Expected[/bold]", *expected(result)]
    return view


def serves(result: WhatIf) -> bool:
    """Whether the base is about inference."""
    return result.base.question.serves


def figures_of(outcomes: Sequence[Outcome], serving: bool) -> list[str]:
    """The figures that any of them has."""
    return [name for name in SHOWN[serving] if any(name in outcome.measures for outcome in outcomes)]


def shown_figures(result: WhatIf) -> list[str]:
    """The figures that tell the scenarios apart: not the same in all, and no throughput beside the days it takes."""
    names = figures_of(result.outcomes, serves(result))
    names = [name for name in names if name != "tokens_per_s" or "days" not in names]
    differ = [name for name in names if not _same(result.outcomes, name)]
    return differ if len(result.outcomes) > 1 and differ else names


def _same(outcomes: Sequence[Outcome], name: str) -> bool:
    values = [outcome.measures[name] for outcome in outcomes if name in outcome.measures]
    return max(values) - min(values) <= SAME * abs(values[0])


def same_line(result: WhatIf) -> str:
    """The figures that are the same in all scenarios."""
    names, left = figures_of(result.outcomes, serves(result)), shown_figures(result)
    same = [name for name in names if name not in left and _same(result.outcomes, name)]
    values = {name: next(each.measures[name] for each in result.outcomes if name in each.measures) for name in same}
    figures = [f"{MEASURES[name].title} {MEASURES[name].shown(value)}" for name, value in values.items()]
    return f"The same in all: {', '.join(figures)}." if figures and len(result.outcomes) > 1 else ""


def comparison(result: WhatIf) -> Any:
    """Figures of the scenarios, and how far each is from the base: a few side by side, many below each other."""
    names = shown_figures(result)
    verdicts = {outcome.name: "yes" if outcome.fits else "no" for outcome in result.outcomes}
    if len(result.outcomes) <= SIDE_BY_SIDE:
        rows = [{"": "fits", **verdicts}] if "no" in verdicts.values() else []
        for name in names:
            cells = {outcome.name: cell(result, outcome, name) for outcome in result.outcomes}
            rows.append({"": MEASURES[name].title, **cells})
        return within(rows)
    rows = []
    for outcome in result.outcomes:
        row = {"scenario": outcome.name}
        row |= {"fits": verdicts[outcome.name]} if "no" in verdicts.values() else {}
        row |= {MEASURES[name].title: cell(result, outcome, name) for name in names}
        rows.append(row)
    return within(rows)


def cell(result: WhatIf, outcome: Outcome, name: str) -> str:
    """A figure, and its change."""
    if name not in outcome.measures:
        return "n/a"
    shown = figure_text(result.outcomes, outcome, name)
    change = result.change(outcome, name)
    if change is None or change.better is None:
        return shown
    return f"{shown} {change.shown}"


def figure_text(outcomes: Sequence[Outcome], outcome: Outcome, name: str) -> str:
    """A figure; energies in one unit for all, which a change from kJ to kWh would hide."""
    measure, value = MEASURES[name], outcome.measures[name]
    if measure.dimension != "j":
        return measure.shown(value)
    largest = max(each.measures[name] for each in outcomes if name in each.measures)
    size, unit = next((step for step in scales("j") if largest >= step[0]), scales("j")[-1])
    return f"{show(value / size, 'count')}{unit}"


def basis_line(result: WhatIf) -> str:
    """What costs, energy and carbon are of."""
    spent = result.base.bill
    place = f"; prices {spent.prices}, grid {spent.grid}" if spent else ""
    return f"Rent, energy (with cooling) and carbon {per(result)}{place}."


def per(result: WhatIf) -> str:
    """What costs are of."""
    if serves(result):
        return "per million output tokens"
    tokens = result.base.question.fields.get("tokens") or "a trillion"
    return f"for {show(float(tokens), 'count') if isinstance(tokens, int | float) else tokens} tokens"


def field_name(path: str) -> str:
    """A field as a reader calls it."""
    parts = [part for part in path.split(".") if part not in PLAIN]
    name = " ".join(parts[-2:]).replace("_", " ")
    for short, long in WORDS:
        name = name.replace(short, long)
    return name


def why(result: WhatIf) -> dict[str, str]:
    """Scenario to what moved most and because of what."""
    found: dict[str, str] = {}
    for outcome in result.outcomes[1:]:
        if outcome.why_not:
            found[outcome.name] = outcome.why_not
            continue
        said = [
            f"{each.measure.title} {each.shown}: {each.reason}"
            for each in result.changes[outcome.name]
            if each.measure.name in WHY[serves(result)] and each.better is not None and each.reason
        ]
        nothing = "nothing moves" if result.base.measures else f"{result.base.name} has no answer to hold it against"
        found[outcome.name] = "\n".join(said) or nothing
    if result.base.why_not:
        found = {result.base.name: result.base.why_not, **found}
    return found


def expected(result: WhatIf) -> list[str]:
    """What was expected, and whether it holds."""
    said: dict[str, list[str]] = {}
    failed = []
    for verdict in result.verdicts:
        if verdict.holds:
            said.setdefault(verdict.what, []).append(verdict.scenario)
        else:
            reached = f"{verdict.scenario}: {verdict.what} ({verdict.reached})"
            failed.append(f"[red]fails[/red]  {plain(reached)}")
    everywhere = len(result.outcomes)
    held = [
        f"holds  {plain(what)}: {'all' if len(names) == everywhere > 1 else plain('; '.join(names))}"
        for what, names in said.items()
    ]
    return [*held, *failed]


def main_figure(swept: Swept, serving: bool) -> str:
    """What the points are judged by."""
    known = [name for name in MAIN[serving] if name in swept.measures]
    moving = [name for name in known if np.ptp(_fitting(swept, name)) > SAME * np.max(_fitting(swept, name))]
    return next(iter(moving or known or swept.measures), "")


def _fitting(swept: Swept, name: str) -> Any:
    found = _known(swept.measures[name][swept.fits])
    return found if len(found) else np.zeros(1)


def sweep_view(swept: Swept, serving: bool) -> list[Any]:
    """The points as a table, a grid of cells, or the best and the worst of many."""
    name = main_figure(swept, serving)
    count, fitting = swept.grid.points, int(np.count_nonzero(swept.fits))
    told = "all fit" if fitting == count else f"{fitting:,} fit"
    head = f"[bold]Sweep[/bold] {count:,} points in {show(swept.elapsed_s, 's', 2)}, {told}"
    if swept.strategy:
        head += f"; the base's strategy throughout: {plain(layout(swept.strategy))}"
    if not fitting:
        return [head, *map(plain, reasons_of(swept))]
    constant = [line] if (line := constant_line(swept, serving)) else []
    if count <= MOST_ROWS:
        why_not = [plain(f"Not: {reason}") for reason in reasons_of(swept)]
        return [head, *constant, points_table(swept, range(count), serving), *why_not]
    best, worst = extremes(swept, name)
    view = [head, *constant, f"Best and worst {MEASURES[name].title}:", points_table(swept, [best, worst], serving)]
    if len(swept.grid.axes) == 2 and len(swept.measures[name]) == count:
        view += [
            "",
            f"{MEASURES[name].title} along {' (down) and '.join(map(field_name, swept.grid.axes))} (across):",
            cells(swept, name),
        ]
    return [*view, "", "--format csv lists every point."]


def reasons_of(swept: Swept) -> list[str]:
    """The first few reasons why points have no answer."""
    return list(dict.fromkeys(swept.why_not.values()))[:3]


def extremes(swept: Swept, name: str) -> tuple[int, int]:
    """The best and the worst point that fits."""
    sign = -1.0 if MEASURES[name].rises else 1.0
    score = np.where(swept.fits, sign * swept.measures[name], np.nan)
    return int(np.nanargmin(score)), int(np.nanargmax(score))


def points_table(swept: Swept, chosen: Sequence[int], serving: bool) -> Any:
    """Some points with their figures."""
    names = varying(swept, serving)
    rows = []
    for i in chosen:
        at = {field_name(path): axis[swept.grid.index[path][i]].shown for path, axis in swept.grid.axes.items()}
        fits = {} if np.all(swept.fits) else {"fits": "yes" if swept.fits[i] else "no"}
        figures = {MEASURES[name].title: MEASURES[name].shown(float(swept.measures[name][i])) for name in names}
        layout = {"strategy": swept.layouts[i]} if swept.layouts else {}
        rows.append({**at, **fits, **figures, **layout})
    return within(rows, len(swept.grid.axes))


def within(rows: Sequence[Mapping[str, Any]], fixed: int = 1) -> Any:
    """A table; where a screen is too narrow for it, several below each other that repeat the `fixed` first columns."""
    from rich.console import Group

    names = list(rows[0])
    wide = {name: min(max(len(str(each)) for each in (name, *(row[name] for row in rows))), 40) + 1 for name in names}
    first = sum(wide[name] for name in names[:fixed])
    parts: list[list[str]] = [[]]
    for name in names[fixed:]:
        if parts[-1] and first + sum(wide[each] for each in (*parts[-1], name)) > SCREEN:
            parts.append([])
        parts[-1].append(name)
    return Group(
        *(simple_table([{name: row[name] for name in (*names[:fixed], *part)} for row in rows]) for part in parts)
    )


def varying(swept: Swept, serving: bool) -> list[str]:
    """The figures that are not the same at every point."""
    skipped = "tokens_per_s" if "days" in swept.measures else ""  # the same, said twice
    known = {
        name: _known(swept.measures[name]) for name in SHOWN[serving] if name in swept.measures and name != skipped
    }
    return [name for name, values in known.items() if np.ptp(values) > 1e-4 * np.max(np.abs(values))]


def constant_line(swept: Swept, serving: bool) -> str:
    """The figures that are."""
    moving = varying(swept, serving)
    moving += ["tokens_per_s"] if "days" in moving else []
    same = [name for name in SHOWN[serving] if name in swept.measures and name not in moving]
    figures = [
        f"{MEASURES[name].title} {MEASURES[name].shown(float(_known(swept.measures[name])[0]))}" for name in same
    ]
    return f"The same everywhere: {', '.join(figures)}." if figures else ""


def _known(column: Any) -> Any:
    return column[np.isfinite(column)]


def cells(swept: Swept, name: str) -> Any:
    """Two axes as a grid of cells, evenly thinned out to what fits on a screen."""
    (down, rows), (across, columns) = swept.grid.axes.items()
    chosen = [np.unique(np.linspace(0, len(axis) - 1, MOST_CELLS).round().astype(int)) for axis in (rows, columns)]
    values = {
        (int(r), int(c)): i
        for i, (r, c) in enumerate(zip(swept.grid.index[down], swept.grid.index[across], strict=True))
    }
    table = []
    for r in chosen[0]:
        row = {"": rows[r].shown}
        for c in chosen[1]:
            i = values.get((int(r), int(c)))
            fits = i is not None and swept.fits[i]
            row[columns[c].shown] = MEASURES[name].shown(float(swept.measures[name][i])) if fits else "-"
        table.append(row)
    return simple_table(table)
