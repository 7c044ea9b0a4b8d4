"""The report of a size: how many devices a target needs, what else was considered, and the plan on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hwsim.analytic.estimate import TrainingEstimate
from hwsim.report import figures
from hwsim.report.document import Block, Cell, Column, Document, Facts, Figure, Reproduce, Section, Table
from hwsim.report.documents import serving, training
from hwsim.report.documents.parts import PER_OUTPUT, money_line, provenance, words
from hwsim.report.figures import Measure
from hwsim.report.plan import job_line, strategy_line
from hwsim.report.serving_plan import replica_line
from hwsim.report.size import (
    answer_line,
    asked,
    cost_line,
    headroom_line,
    latency_line,
    least_line,
    runner_line,
    verdict,
)
from hwsim.report.writing import capital
from hwsim.units import DAY_S, show

if TYPE_CHECKING:
    from hwsim.scenarios.dossier import Dossier
    from hwsim.search.sensitivity import Sensitivity
    from hwsim.search.sizing import Sizing
    from hwsim.search.targets import Verdict

DEVICES = Measure("Devices")
TIME, COST = Measure("Time for the tokens", "s"), Measure("Rent", "usd")
RATE, POWER = Measure("Mean rate", unit="tokens/s"), Measure("Mean power", "w")
SHOWN = 60
"""Options in the table."""
WIDE = 8.0
"""From this ratio of the most to the fewest devices on, they stand on a log axis."""


def sizing_document(
    found: Sizing, plan: Dossier, sensitivity: Sensitivity | None, command: str, python: str
) -> Document:
    """A size on a few pages: the answer first, then everything behind it."""
    made: Any = found.answer.option.plan
    trains = isinstance(made, TrainingEstimate)
    behind = (
        training.explained(plan, sensitivity, bill_basis(found)) if trains else serving.explained(plan, sensitivity)
    )
    sections = [
        Section("What was asked", (Facts(tuple(asked_facts(found).items())),)),
        answer_section(found),
        considered_section(found),
        *behind,
    ]
    option = found.answer.option
    return Document(
        title=f"{capital(asked(found))}: how many devices?",
        subtitle=f"{_model(plan, made)} on {' or '.join(machine.title for machine in found.machines)}",
        answer=answer_lines(found, plan),
        sections=tuple(sections),
        reproduce=Reproduce(command, python),
        provenance=provenance(
            {"targets": found.targets.to_dict(), "headroom": found.headroom, **found.asked},
            hardware=option.hardware, calibration=made.calibration,
        ),
    )  # fmt: skip


def _model(plan: Dossier, made: Any) -> str:
    setting = plan.outcome.setting
    return (setting.model.title if setting is not None else "") or str(made.model["name"])


def bill_basis(found: Sizing) -> str:
    """What the bill is of."""
    tokens = found.targets.tokens
    lost = f", {found.headroom:.0%} of the time lost" if found.headroom else ""
    return f"for {show(tokens, 'count')} tokens{lost}" if tokens is not None else f"for 1T tokens{lost}"


def answer_lines(found: Sizing, plan: Dossier) -> tuple[str, ...]:
    """The answer box."""
    made: Any = found.answer.option.plan
    priced = found.answer.option.rent_usd_per_s is not None
    lines = [f"{answer_line(found)}{' at the listed rent' if priced else ''}"]
    lines += [latency_line(found)] if made.kind != "training" else []
    least = least_line(found)
    lines += [f"At least {least}"] if least else []
    lines += [f"Headroom: {headroom_line(found)}", f"Runner-up: {runner_line(found)}"]
    bill = plan.outcome.bill
    if bill is not None:
        lines.append(money_line(bill, bill_basis(found) if made.kind == "training" else PER_OUTPUT))
    return tuple(lines)


def asked_facts(found: Sizing) -> dict[str, str]:
    """The targets, and the arguments that are none."""
    t = found.targets
    promised = {"TTFT": t.ttft_s, "TPOT": t.tpot_s}
    facts = {"target": asked(found), "headroom": f"{found.headroom:.0%}"}
    if any(promised.values()):
        said = " and ".join(f"{name} up to {show(bound, 's')}" for name, bound in promised.items() if bound)
        facts["promise"] = f"{said} for {t.percentile or 95}% of the requests"
    named = {"tokens", "target_days", "budget_usd", "target_tokens_per_s", "qps", "ttft_ms", "tpot_ms", "percentile",
             "power_cap", "headroom"}  # fmt: skip
    more = {words(name): value for name, value in found.asked.items() if name not in named}
    return facts | {name: ", ".join(map(str, v)) if isinstance(v, list | tuple) else str(v) for name, v in more.items()}


def answer_section(found: Sizing) -> Section:
    """The plan, what it costs, what headroom and theory say, and the runner-up."""
    made: Any = found.answer.option.plan
    trains = made.kind == "training"
    facts = {"plan": strategy_line(made), "job": job_line(made)} if trains else {"plan": replica_line(made)}
    facts |= {"costs, at the listed rent": cost_line(found.answer)}
    facts |= {"headroom": headroom_line(found), "at least": least_line(found), "runner-up": runner_line(found)}
    facts |= {f"not {machine.name}": machine.binds for machine in found.machines if machine.binds}
    return Section("The answer", (Facts(tuple((name, text) for name, text in facts.items() if text)),))


def considered_section(found: Sizing) -> Section:
    """What was tried: against every target as a figure, and as a table."""
    blocks: list[Block] = [figure for aim in aims(found) if (figure := _figure(found, *aim)) is not None]
    blocks.append(_table(found))
    every = found.considered
    lead = f"{len(every):,} plans were made, {sum(one.meets for one in every):,} of them meet every target."
    return Section("What was considered", tuple(blocks), lead)


Aim = tuple[str, Measure, Callable[["Verdict"], float | None], float, str]
"""Name, measure, how it is read, the target, and its name."""


def aims(found: Sizing) -> list[Aim]:
    """Every target as something to draw."""
    t = found.targets
    result: list[Aim] = []
    if t.days is not None:
        result.append(("deadline", TIME, lambda one: one.days and one.days * DAY_S, t.days * DAY_S, "deadline"))
    elif t.needed is not None:
        result.append(("rate", RATE, lambda one: one.rate or None, t.needed, "asked for"))
    if t.budget_usd is not None:
        result.append(("budget", COST, lambda one: one.cost_usd, t.budget_usd, "budget"))
    if t.power_w is not None:
        result.append(("power", POWER, lambda one: one.option.power_w, t.power_w, "power cap"))
    return result


def _figure(
    found: Sizing, name: str, measure: Measure, read: Callable[[Verdict], float | None], target: float, word: str
) -> Figure | None:
    """Options against a target, a line for each kind of hardware."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for machine in found.machines:
        best: dict[int, tuple[float, float]] = {}
        for one in (one for one in found.considered if one.option.hardware == machine.name):
            value = read(one)
            if value is not None and one.rate >= best.get(one.option.devices, (0.0, 0.0))[0]:
                best[one.option.devices] = (one.rate, value)
        if best:
            lines[machine.title] = [(float(devices), best[devices][1]) for devices in sorted(best)]
    counts = [devices for line in lines.values() for devices, _ in line]
    if not counts:
        return None
    wide = max(counts) > WIDE * min(counts)
    low, high = (min(counts) / 1.2, max(counts) * 1.2) if wide else (0.0, max(counts) * 1.15)
    lines[word] = [(low, target), (high, target)]
    made = found.answer.option
    title = f"{made.devices:,} × {made.title}: {measure.text(read(found.answer) or 0.0)}, {word} {measure.text(target)}"
    values = [value for line in lines.values() for _, value in line]
    tall = min(values) > 0 and max(values) > WIDE * min(values)
    caption = "The best plan on each number of devices that was tried."
    return figures.sweep_lines(f"considered-{name}", title, lines, DEVICES, measure, caption, log=(wide, tall))


def _table(found: Sizing) -> Table:
    """What was tried, those nearest the answer where there are many."""
    answer, budget = found.answer.option, found.targets.tokens is not None
    every = found.considered
    near = sorted(every, key=lambda one: (one.option != answer, abs(one.option.devices / answer.devices - 1.0)))
    kept = {id(one) for one in near[:SHOWN]}
    numbers = ["devices", "nodes", "tokens/s", *(["days", "rent"] if budget else ["USD/h"]), "power"]
    columns = (Column("hardware"), *(Column(name, kind="number") for name in numbers), Column("verdict"))
    rows = tuple(_row(one, one.option == answer, budget) for one in every if id(one) in kept)
    notes = [f"{len(every) - SHOWN:,} more were tried."] if len(every) > SHOWN else []
    notes += [f"Tokens/s: {found.headroom:.0%} of the time counted as lost."] if found.headroom else []
    notes += ["Rent as it is listed; the bill below has its range."]
    return Table("Options, and whether they meet the targets", columns, rows, tuple(notes))


def _row(one: Verdict, chosen: bool, budget: bool) -> tuple[Cell | str, ...]:
    made = one.option
    rent = made.rent_usd_per_s
    money = (
        (Cell("n/a" if one.days is None else f"{one.days:,.1f}", one.days), Cell.of(one.cost_usd, "usd"))
        if budget
        else (Cell("n/a") if rent is None else Cell(show(rent, "usd_per_s"), rent),)
    )
    return (
        made.title, Cell(f"{made.devices:,}", float(made.devices)), Cell(f"{made.nodes:,}", float(made.nodes)),
        Cell.of(one.rate or None, "count"), *money, Cell.of(made.power_w, "w"),
        f"{verdict(one)}{' (the answer)' if chosen else ''}",
    )  # fmt: skip
