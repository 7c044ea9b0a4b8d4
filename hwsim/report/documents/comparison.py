"""The report of a scenario file: scenarios beside the base, why they differ, the sweep, what was expected."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.analytic.estimate import NAMES, TrainingEstimate
from hwsim.report import figures
from hwsim.report.document import Block, Cell, Column, Document, Facts, Figure, Paragraph, Reproduce, Section, Table
from hwsim.report.documents.parts import accuracy_section, bill_section, provenance, range_row
from hwsim.report.figures import Measure, Range
from hwsim.report.whatif import basis_line, constant_line, extremes, figures_of, main_figure, serves, varying
from hwsim.scenarios.measures import MEASURES
from hwsim.units import show

if TYPE_CHECKING:
    from hwsim.scenarios.answers import Outcome
    from hwsim.scenarios.compare import Change
    from hwsim.scenarios.run import WhatIf
    from hwsim.scenarios.sweep import Swept

SHOWN_POINTS = 400
"""Points in a table of the report; `hwsim whatif --format csv` has all."""
COMPARED = {False: ("days", "tokens_per_s", "cost", "energy", "memory"), True: ("cost", "devices", "tpot", "energy")}
"""Figures that are drawn as changes."""


WORDS = {
    "days": ("Fastest", "slowest"), "tokens_per_s": ("Fastest", "slowest"), "tpot": ("Quickest tokens", "slowest"),
    "cost": ("Cheapest to rent", "dearest"), "owned_cost": ("Cheapest to own", "dearest"),
    "energy": ("Least energy", "most"),
}  # fmt: skip
"""The two ends of a figure, as an answer says them."""


def whatif_document(result: WhatIf, command: str, python: str) -> Document:
    """A scenario file's answers on a few pages."""
    scenario, base = result.loaded.scenario, result.base
    sections: list[Section] = []
    several = len(result.outcomes) > 1
    if several or result.swept is None:
        sections.append(comparison_section(result))
    if several:
        sections += [deltas_section(result), why_section(result)]
        sections += [section for section in (memory_section(result), time_section(result)) if section]
    if result.swept is not None:
        sections.append(sweep_section(result.swept, serves(result)))
    if several:
        sections.append(money_section(result))
    if result.verdicts:
        sections.append(expectations_section(result))
    sections.append(asked_section(result))
    if base.bill is not None:
        per = basis_line(result).partition("carbon ")[2].partition(";")[0].rstrip(".")
        sections.append(bill_section(base.bill, f"{per}, base"))
    if isinstance(base.estimate, TrainingEstimate):
        sections.append(accuracy_section(base.estimate))
    asked = {outcome.name: outcome.question.plain() for outcome in result.outcomes}
    return Document(
        title=scenario.title,
        subtitle=scenario.question or "What if?",
        answer=answer_lines(result),
        sections=tuple(sections),
        reproduce=Reproduce(command, python),
        provenance=provenance(asked, **({"notes": scenario.notes} if scenario.notes else {})),
    )


def answer_lines(result: WhatIf) -> tuple[str, ...]:
    """The finding, then what is worth a line each."""
    lines = []
    fitting = [outcome for outcome in result.outcomes if outcome.fits]
    for name, (first, last) in WORDS.items():
        known = [outcome for outcome in fitting if name in outcome.measures]
        if len(known) > 1 and (name != "tokens_per_s" or "days" not in result.base.measures):
            best, worst = _ends(known, name)
            ends = [f"{_called(end)}, {MEASURES[name].shown(end.measures[name])}" for end in (best, worst)]
            lines.append(f"{first}: {ends[0]}; {last}: {ends[1]}")
    lines += [f"{outcome.name}: {outcome.why_not}" for outcome in result.outcomes if outcome.why_not]
    if result.swept is not None and result.swept.any_fits:
        lines.append(_sweep_line(result.swept, serves(result)))
    broken = [verdict for verdict in result.verdicts if not verdict.holds]
    if broken:
        lines.append(f"Not met: {broken[0].scenario}, {broken[0].what} ({broken[0].reached})")
    elif result.verdicts:
        lines.append("Everything expected holds")
    if not lines:
        lines = [f"{MEASURES[key].title}: {MEASURES[key].shown(value)}" for key, value in result.base.measures.items()][
            :3
        ]
    return tuple(lines)


def _ends(outcomes: list[Outcome], name: str) -> tuple[Outcome, Outcome]:
    ranked = sorted(outcomes, key=lambda outcome: outcome.measures[name], reverse=MEASURES[name].rises)
    return ranked[0], ranked[-1]


def _called(outcome: Outcome) -> str:
    return "the base" if outcome.name == "base" else outcome.name


def _sweep_line(swept: Swept, serving: bool) -> str:
    name = main_figure(swept, serving)
    best, _ = extremes(swept, name)
    at = ", ".join(
        f"{_axis(path)} {axis[swept.grid.index[path][best]].shown}" for path, axis in swept.grid.axes.items()
    )
    value = MEASURES[name].shown(float(swept.measures[name][best]))
    word = WORDS[name][0] if name in WORDS else f"Best {MEASURES[name].title}"
    return f"{word} of {swept.grid.points:,} points: {value} at {at}"


def _axis(path: str) -> str:
    """A field as a reader calls it."""
    parts = [part for part in path.split(".") if part not in ("job", "strategy", "accelerator", "cluster", "tiers")]
    return " ".join(parts[-2:]).replace("_", " ").replace("nic ", "NIC ")


def comparison_section(result: WhatIf) -> Section:
    """The table of scenarios with their changes."""
    names = figures_of(result.outcomes, serves(result))
    columns = [Column("scenario"), Column("fits"), *(Column(MEASURES[name].title, kind="number") for name in names)]
    rows = []
    for outcome in result.outcomes:
        cells = [_cell(result, outcome, name) for name in names]
        rows.append((outcome.name, "yes" if outcome.fits else "no", *cells))
    return Section(
        "Scenarios beside the base",
        (Table("Figures, and their change", tuple(columns), tuple(rows)),),
        basis_line(result),
    )


def _cell(result: WhatIf, outcome: Outcome, name: str) -> Cell:
    if name not in outcome.measures:
        return Cell("n/a", math.inf)
    value = outcome.measures[name]
    change = _change(result, outcome, name)
    shown = MEASURES[name].shown(value)
    return Cell(f"{shown} ({change.shown})" if change and change.better is not None else shown, value)


def _change(result: WhatIf, outcome: Outcome, name: str) -> Change | None:
    return next((each for each in result.changes.get(outcome.name, ()) if each.measure.name == name), None)


def deltas_section(result: WhatIf) -> Section:
    """Relative changes drawn, figure by figure."""
    blocks: list[Block] = []
    for name in COMPARED[serves(result)]:
        found = {
            o.name: each.ratio - 1.0 for o in result.outcomes[1:] if (each := _change(result, o, name)) and each.base
        }
        moved = {key: value for key, value in found.items() if abs(value) > 0.005}
        if not moved or (name == "tokens_per_s" and blocks):
            continue
        measure = MEASURES[name]
        most = max(moved, key=lambda key: abs(moved[key]))
        title = f"{most[:1].upper()}{most[1:]} moves {measure.title} most: {_signed(moved[most])}"
        better: Any = "more" if measure.rises else "less"
        blocks.append(
            figures.delta_bars(
                f"delta-{name.replace('_', '-')}", title, found, _called(result.base), measure.title, better=better
            )
        )
    return Section("How far each is from the base", tuple(blocks) or (Paragraph("Nothing moves."),))


def _signed(change: float) -> str:
    return f"{change:+.0%}".replace("-", "−")


def why_section(result: WhatIf) -> Section:
    """What moved and because of which part."""
    rows = []
    for outcome in result.outcomes[1:]:
        if outcome.why_not:
            rows.append((outcome.name, "no answer", "", outcome.why_not))
        for each in result.changes[outcome.name]:
            if each.better is not None and each.reason:
                rows.append((outcome.name, each.measure.title, each.shown, each.reason))
    columns = (Column("scenario"), Column("figure"), Column("change", kind="number"), Column("because"))
    return Section("Why", (Table("What moved, and which part of it", columns, tuple(rows)),))


def memory_section(result: WhatIf) -> Section | None:
    """Memory of every scenario against its capacity."""
    known = [(o.name, o.estimate) for o in result.outcomes if o.estimate is not None]
    stacks = {name: _memory(estimate) for name, estimate in known}
    limits = {name: float(estimate.memory_capacity_bytes) for name, estimate in known}
    if not stacks:
        return None
    fullest = max(stacks, key=lambda name: sum(stacks[name].values()) / limits[name])
    share = sum(stacks[fullest].values()) / limits[fullest]
    title = f"{'The base' if fullest == 'base' else fullest} fills its devices most: {share:.0%}"
    return Section("Memory", (figures.memory_bars("memory", title, stacks, limits, "The fullest device of each."),))


def _memory(estimate: Any) -> dict[str, float]:
    parts = dict(estimate.memory_bytes)
    if isinstance(estimate, TrainingEstimate):
        context = estimate.memory_context_bytes
        slack = estimate.memory_reserved_bytes - estimate.memory_allocated_bytes - context
        parts |= {"context": context, "slack": slack}
    return parts


def time_section(result: WhatIf) -> Section | None:
    """Where a million tokens' worth of device time goes, scenario by scenario."""
    stacks: dict[str, dict[str, float]] = {}
    for outcome in result.outcomes:
        found = outcome.estimate
        if isinstance(found, TrainingEstimate):
            tokens = found.strategy["global_batch"] * found.strategy["seq_len"]
            scale = found.hardware["devices"] / tokens * 1000.0
            stacks[outcome.name] = {
                NAMES.get(k, k): v * scale for k, v in found.time_s.items() if v > 0.002 * found.step_time_s
            }
    if not stacks:
        return None
    least = min(stacks, key=lambda name: sum(stacks[name].values()))
    title = f"{'The base' if least == 'base' else least} needs least device time for a token"
    measure = Measure("Device time per thousand tokens", "s")
    return Section("Time", (figures.traffic_bars("time", title, stacks, "Exposed time of all devices.", measure),))


def money_section(result: WhatIf) -> Section:
    """Rent and ownership of every scenario with their ranges."""
    rows = []
    for outcome in result.outcomes:
        bill = outcome.bill
        rent = bill.rent_usd["on_demand"] if bill else None
        if rent is not None:
            rows.append(range_row(outcome.name, rent, Measure("Rent on demand", "usd")))
    for outcome in result.outcomes:
        if outcome.bill is not None and outcome.bill.owned_usd is not None:
            rows.append(range_row(outcome.name, outcome.bill.owned_usd, Measure("Cost if owned", "usd")))
    if not rows:
        return Section("Money", (Paragraph("No price of this hardware is known."),))
    rents = [row for row in rows if row.measure.name.startswith("Rent")] or rows
    least = min(rents, key=lambda row: row.expected)
    title = (
        f"{'The base' if least.name == 'base' else least.name} is the cheapest to rent: {show(least.expected, 'usd')}"
    )
    return Section(
        "Money", (figures.ranges("money-scenarios", title, rows, "Low, expected and high."),), basis_line(result)
    )


def sweep_section(swept: Swept, serving: bool) -> Section:
    """The points, drawn as far as two axes allow, and as a table."""
    name = main_figure(swept, serving)
    blocks: list[Block] = list(_sweep_figures(swept, name)) if name else []
    blocks.append(_points_table(swept, serving))
    lead = f"{swept.grid.points:,} points, {int(np.count_nonzero(swept.fits)):,} fit. {constant_line(swept, serving)}"
    return Section("The sweep", tuple(blocks), lead)


def _sweep_figures(swept: Swept, name: str) -> list[Figure]:
    measure = MEASURES[name]
    shown = _drawn(name)
    best, worst = extremes(swept, name) if swept.any_fits else (0, 0)
    ends = [measure.shown(float(swept.measures[name][i])) for i in (best, worst)]
    title = f"{measure.title.capitalize()} goes from {ends[0]} at best to {ends[1]}"
    values = np.where(swept.fits, swept.measures[name] * _scale(name), np.nan)
    axes = list(swept.grid.axes.items())
    moving = [(path, axis) for path, axis in axes if len(axis) > 1]
    better: Any = "more" if measure.rises else "less"
    if len(moving) == 2 and swept.grid.points == math.prod(len(axis) for _, axis in axes):
        (down, rows), (across, columns) = moving
        field = np.full((len(rows), len(columns)), np.nan)
        field[swept.grid.index[down], swept.grid.index[across]] = values
        names = ([point.shown for point in columns], [point.shown for point in rows])
        return [
            figures.sweep_heatmap(
                "sweep", title, *names, field.tolist(), shown, (_axis(across), _axis(down)), better=better
            )
        ]
    path, axis = moving[0] if moving else axes[0]
    numbers = [point.value for point in axis]
    if len(moving) > 1 and len({len(a) for _, a in moving}) > 1:
        return []
    if all(isinstance(each, int | float) and not isinstance(each, bool) for each in numbers):
        line = [(float(axis[i].value), float(values[k])) for k, i in enumerate(swept.grid.index[path].tolist())]
        wide = min(numbers) > 0 and max(numbers) > 8 * min(numbers)
        x = Measure(_axis(path), unit=swept.grid.units.get(path) or "")
        return [
            figures.sweep_lines(
                "sweep", title, {measure.title: line}, x, shown, log=(wide, wide and bool(np.nanmin(values) > 0))
            )
        ]
    places = [(k, i) for k, i in enumerate(swept.grid.index[path].tolist()) if np.isfinite(values[k])]
    bars = [Range(axis[i].shown, float(values[k]), float(values[k]), float(values[k]), shown) for k, i in places]
    return [figures.ranges("sweep", title, bars)]


def _drawn(name: str) -> Measure:
    """A figure as an axis shows it."""
    measure = MEASURES[name]
    if measure.dimension == "days":
        return Measure("Time", "s")
    if measure.dimension == "whole":
        return Measure(measure.title)
    return Measure(measure.title, measure.dimension)


def _scale(name: str) -> float:
    return 86400.0 if MEASURES[name].dimension == "days" else 1.0


def _points_table(swept: Swept, serving: bool) -> Table:
    names = varying(swept, serving)
    columns = [Column(_axis(path)) for path in swept.grid.axes]
    columns += [Column("fits"), *(Column(MEASURES[name].title, kind="number") for name in names)]
    columns += [Column("strategy")] if swept.layouts else []
    rows = []
    chosen = np.unique(np.linspace(0, swept.grid.points - 1, min(SHOWN_POINTS, swept.grid.points)).round().astype(int))
    for i in chosen.tolist():
        at = [_at(axis[swept.grid.index[path][i]]) for path, axis in swept.grid.axes.items()]
        values = {name: float(swept.measures[name][i]) for name in names}
        figures_at = [
            Cell(MEASURES[name].shown(value), value if math.isfinite(value) else math.inf)
            for name, value in values.items()
        ]
        layout = [swept.layouts[i]] if swept.layouts else []
        verdict = "yes" if swept.fits[i] else swept.why_not.get(i, "no")
        rows.append((*at, verdict, *figures_at, *layout))
    notes = (
        (f"Every {swept.grid.points // SHOWN_POINTS}th point; --format csv lists all.",)
        if len(chosen) < swept.grid.points
        else ()
    )
    return Table("Points", tuple(columns), tuple(rows), notes)


def _at(point: Any) -> Cell:
    number = isinstance(point.value, int | float) and not isinstance(point.value, bool)
    return Cell(point.shown, float(point.value) if number else point.shown)


def expectations_section(result: WhatIf) -> Section:
    """What was expected, and whether it holds."""
    columns = (Column("scenario"), Column("expected"), Column("holds"), Column("reached"))
    rows = tuple((each.scenario, each.what, "yes" if each.holds else "no", each.reached) for each in result.verdicts)
    return Section("What was expected", (Table("Expectations", columns, rows),))


def asked_section(result: WhatIf) -> Section:
    """The base, and what each scenario changes."""
    base = result.base.question.plain()
    blocks: list[Block] = [Facts(tuple((path.replace("_", " "), _text(value)) for path, value in base.items()))]
    rows = []
    for outcome in result.outcomes[1:]:
        for path, value in outcome.question.plain().items():
            if base.get(path) != value:
                rows.append((outcome.name, path, _text(base.get(path, "as usual")), _text(value)))
    if rows:
        columns = (Column("scenario"), Column("field"), Column("in the base"), Column("here"))
        blocks.append(Table("What each scenario changes", columns, tuple(rows)))
    if result.loaded.scenario.notes:
        blocks.append(Paragraph(result.loaded.scenario.notes))
    return Section("What was asked", tuple(blocks))


def _text(value: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)
