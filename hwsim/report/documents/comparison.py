"""The report of a scenario file: scenarios beside the base, why they differ, the sweep, what was expected."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from hwsim.analytic.estimate import NAMES, TrainingEstimate
from hwsim.report import figures
from hwsim.report.document import Block, Cell, Column, Document, Facts, Paragraph, Reproduce, Section, Table
from hwsim.report.documents.parts import (
    accuracy_section,
    bill_section,
    digits,
    provenance,
    range_row,
    words,
)
from hwsim.report.documents.sweeping import HEADS, scale_of, sweep_section
from hwsim.report.figures import Measure
from hwsim.report.findings import answer_lines, called, change_sentence, spoken
from hwsim.report.plan import memory_parts
from hwsim.report.whatif import (
    basis_line,
    per,
    same_line,
    serves,
    shown_figures,
)
from hwsim.report.writing import capital
from hwsim.scenarios.measures import MEASURES
from hwsim.units import show

if TYPE_CHECKING:
    from hwsim.analytic.serving import Served
    from hwsim.scenarios.answers import Outcome
    from hwsim.scenarios.run import WhatIf

COMPARED = {False: ("days", "tokens_per_s", "cost", "energy"), True: ("cost", "devices", "tpot", "energy")}
"""Figures that are drawn as changes."""
REASONS = {False: ("tokens_per_s", "memory", "cost", "energy"), True: ("tpot", "memory", "cost", "energy")}
"""Figures whose changes are explained."""
MOST_COLUMNS = 7
"""Figures that a page takes side by side; memory has a figure of its own."""
MOVED, ALIKE = 0.02, 0.015
"""Changes that are worth drawing, and those that are drawn once for two figures."""


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
        whose = f" ({called(base)})" if several else ""
        sections.append(bill_section(base.bill, f"{per(result)}{whose}"))
    if isinstance(base.estimate, TrainingEstimate):
        sections.append(accuracy_section(base.estimate))
    elif base.estimate is not None:
        from hwsim.report.documents import served

        sections.append(served.accuracy_section(cast("Served", base.setting)))
    asked = {outcome.name: outcome.question.plain() for outcome in result.outcomes}
    return Document(
        title=scenario.title,
        subtitle=scenario.question or "What if?",
        answer=answer_lines(result),
        sections=tuple(sections),
        reproduce=Reproduce(command, python),
        provenance=provenance(asked, **({"notes": scenario.notes} if scenario.notes else {})),
    )


def comparison_section(result: WhatIf) -> Section:
    """The table of scenarios with their changes: one unit a column, and only what tells them apart."""
    all_fit = all(outcome.fits for outcome in result.outcomes)
    names = shown_figures(result)[: MOST_COLUMNS - (not all_fit)]
    units = {name: _unit(result, name) for name in names}
    columns = [Column(HEADS.get(name, MEASURES[name].title), units[name][1], "number") for name in names]
    rows = []
    for outcome in result.outcomes:
        verdict = () if all_fit else ("yes" if outcome.fits else "no",)
        rows.append((outcome.name, *verdict, *(_cell(result, outcome, name, units[name][0]) for name in names)))
    head = (Column("scenario"), *(() if all_fit else (Column("fits"),)), *columns)
    first, same = called(result.base), same_line(result)
    notes = (f"In brackets: the change against {first}.",) if len(result.outcomes) > 1 else ()
    lead = f"{basis_line(result)} {same}".strip()
    return Section("Side by side", (Table("Figures of every scenario", head, tuple(rows), notes),), lead)


def _unit(result: WhatIf, name: str) -> tuple[float, str]:
    """The unit of a column, and its size in SI: one in which its smallest value reads well."""
    measure = MEASURES[name]
    least = min(each.measures[name] for each in result.outcomes if name in each.measures)
    if measure.dimension in ("count", "fraction", "whole"):
        return 0.0, ""
    size, unit = Measure("", "s" if measure.dimension == "days" else measure.dimension).scale(
        1.5 * least * scale_of(name)
    )
    return size / scale_of(name), unit


def _cell(result: WhatIf, outcome: Outcome, name: str, size: float) -> Cell:
    if name not in outcome.measures:
        return Cell("n/a", math.inf)
    value = outcome.measures[name]
    change = result.change(outcome, name)
    shown = digits(value / size) if size else MEASURES[name].shown(value)
    return Cell(f"{shown} ({change.shown})" if change and change.better is not None else shown, value)


def deltas_section(result: WhatIf) -> Section:
    """Relative changes drawn, figure by figure; a figure that moves as one before it does is not drawn again."""
    drawn: dict[str, dict[str, float]] = {}
    blocks: list[Block] = []
    first, alike, still = called(result.base), list[str](), list[str]()
    for name in COMPARED[serves(result)]:
        known = {outcome.name: result.change(outcome, name) for outcome in result.outcomes[1:]}
        found = {key: each.ratio - 1.0 for key, each in known.items() if each and each.base > 0 and each.value > 0}
        measure, moved = MEASURES[name], {key: value for key, value in found.items() if abs(value) > MOVED}
        if name == "tokens_per_s" and "days" in drawn:
            continue
        if not moved:
            still += [measure.title] if found else []
            continue
        if any(_as(found, before) for before in drawn.values()):
            alike.append(measure.title)
            continue
        most = max(moved, key=lambda key: abs(math.log(1.0 + moved[key])))
        title = change_sentence(most, name, moved[most], first)
        better: Any = "more" if measure.rises else "less"
        what = "time" if name == "days" else measure.title
        shape = f"delta-{name.replace('_', '-')}"
        blocks.append(figures.delta_bars(shape, title, found, first, what, better=better))
        drawn[name] = found
    if alike:
        blocks.append(Paragraph(capital(f"{' and '.join(alike)} move{'s' * (len(alike) == 1)} in the same way.")))
    if still:
        blocks.append(Paragraph(capital(f"{' and '.join(still)} change{'s' * (len(still) == 1)} by less than 2%.")))
    return Section(f"Changes against {first}", tuple(blocks) or (Paragraph("Nothing moves."),))


def _as(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """Whether two figures move alike in every scenario."""
    return one.keys() == other.keys() and all(abs(one[key] - other[key]) < ALIKE for key in one)


def why_section(result: WhatIf) -> Section:
    """What moved and because of which part."""
    rows = []
    for outcome in result.outcomes[1:]:
        if outcome.why_not:
            rows.append((outcome.name, "no answer", "", outcome.why_not))
        for each in result.changes[outcome.name]:
            if each.measure.name in REASONS[serves(result)] and each.better is not None and each.reason:
                rows.append((outcome.name, each.measure.title, each.shown, each.reason))
    columns = (Column("scenario"), Column("figure"), Column("change", kind="number"), Column("because of"))
    if not rows:
        return Section("Why", (Paragraph("Nothing moves."),))
    return Section("Why", (Table("What moved, and which part of it", columns, tuple(rows)),))


def memory_section(result: WhatIf) -> Section | None:
    """Memory of every scenario against its capacity."""
    known = [(o.name, o.estimate) for o in result.outcomes if o.estimate is not None]
    stacks = {name: memory_parts(estimate) for name, estimate in known}
    limits = {name: float(estimate.memory_capacity_bytes) for name, estimate in known}
    if not stacks:
        return None
    fullest = max(stacks, key=lambda name: sum(stacks[name].values()) / limits[name])
    share = sum(stacks[fullest].values()) / limits[fullest]
    who = capital(spoken(fullest))
    title = f"{who} fills its devices {'most' if len(stacks) > 1 else 'so far'}: {share:.0%}"
    return Section("Memory", (figures.memory_bars("memory", title, stacks, limits, "The fullest device of each."),))


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
    totals = [sum(parts.values()) for parts in stacks.values()]
    title = f"{capital(spoken(least))} needs the least device time for a token"
    if max(totals) - min(totals) < MOVED * max(totals) and len(totals) > 1:
        title = "All need about the same device time for a token"
    caption = "Time that is not hidden behind other work, summed over all devices."
    measure = Measure("Device time per thousand tokens", "s")
    return Section("Time", (figures.traffic_bars("time", title, stacks, caption, measure),))


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
    who = capital(spoken(least.name))
    verb = f"is the cheapest to {'rent' if least.measure.name.startswith('Rent') else 'own'}"
    title = f"{who} {verb}: {show(least.expected, 'usd')} {per(result)}"
    caption = "Low, expected and high. Where ranges overlap, the order may be another."
    return Section("Rent and ownership", (figures.ranges("money-scenarios", title, rows, caption),))


def expectations_section(result: WhatIf) -> Section:
    """What was expected, and whether it holds: one row for all scenarios in which it does."""
    held: dict[str, list[str]] = {}
    for each in result.verdicts:
        if each.holds:
            held.setdefault(each.what, []).append(each.scenario)
    rows = [(each.what, "no", each.scenario, each.reached) for each in result.verdicts if not each.holds]
    rows += [
        (what, "yes", "all" if len(names) == len(result.outcomes) > 1 else "; ".join(names), "")
        for what, names in held.items()
    ]
    head = (Column("expected"), Column("holds"), Column("scenarios"))
    if all(each.holds for each in result.verdicts):
        return Section("What was expected", (Table("Expectations", head, tuple(row[:3] for row in rows)),))
    return Section("What was expected", (Table("Expectations", (*head, Column("reached")), tuple(rows)),))


def asked_section(result: WhatIf) -> Section:
    """The base, and what each scenario changes."""
    base = result.base.question.plain()
    blocks: list[Block] = [Facts(tuple((words(path), _text(value)) for path, value in base.items()))]
    rows = []
    for outcome in result.outcomes[1:]:
        for path, value in outcome.question.plain().items():
            if base.get(path) != value:
                rows.append((outcome.name, words(path), _name(base.get(path, "as usual")), _name(value)))
    if rows:
        columns = (Column("scenario"), Column("field"), Column("in the base"), Column("here"))
        blocks.append(Table("What each scenario changes", columns, tuple(rows)))
    if result.loaded.scenario.notes:
        blocks.append(Paragraph(result.loaded.scenario.notes))
    return Section("What was asked", tuple(blocks))


def _name(value: Any) -> str:
    """A value in a table: a model by its name."""
    return str(value["name"]) if isinstance(value, Mapping) and "name" in value else _text(value)


def _text(value: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)
