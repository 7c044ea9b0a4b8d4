"""What reports share: how to reproduce them, what they rest on, money with its ranges, how good predictions are."""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from hwsim.formulas.ranges import Range as Bounds
from hwsim.report import figures
from hwsim.report.document import Block, Cell, Column, Facts, Paragraph, Section, Table
from hwsim.report.figures import Measure, Range
from hwsim.report.writing import capital
from hwsim.search.cases import METRICS
from hwsim.specs.library import DATA
from hwsim.units import MILLION, show

if TYPE_CHECKING:
    from hwsim.analytic.estimate import TrainingEstimate
    from hwsim.costs.bill import Bill
    from hwsim.scenarios.answers import Outcome
    from hwsim.search.sensitivity import Effect, Sensitivity

LIBRARIES = ("numpy", "pandas", "simpy", "matplotlib")
USD, ENERGY, CARBON = Measure("Cost", "usd"), Measure("Energy", "j"), Measure("Carbon", "kg")
RENTS = {"on_demand": "rent, on demand", "committed": "rent, a year committed", "spot": "rent, spot"}
PER_OUTPUT = "per million output tokens"
"""What the bill of a deployment is of."""
FEW = 100.0
"""Device-hours below which digits count."""
CONSTANTS = {"rent_usd": "rent", "pue": "PUE (cooling)", "used": "share of time used", "life": "years of use"}
"""Constants whose field says little."""
MANY = MILLION
"""Numbers of what was asked that are written with a letter."""
WAYS = {RENTS["on_demand"]: "Rent on demand", RENTS["committed"]: "Committed rent", RENTS["spot"]: "Spot rent",
        "owned": "Owning"}  # fmt: skip
LEVERS, SEEN = 12, 5e-4
"""Levers in a tornado, and the least change that is drawn."""
LEFT_OUT = DATA / "validation" / "left_out.csv"


def provenance(inputs: Any, **more: str) -> dict[str, str]:
    """Versions, and a hash of everything that was asked: never a clock."""
    text = json.dumps(inputs, sort_keys=True, default=str)
    known = {"hwsim": _version("hwsim"), "input hash": hashlib.sha256(text.encode()).hexdigest()[:16], **more}
    return known | {name: _version(name) for name in LIBRARIES}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


def question_facts(outcome: Outcome) -> Facts:
    """What was asked, with the defaults that were taken."""
    pairs = [(words(path), plainly(value)) for path, value in outcome.question.plain().items()]
    return Facts(tuple(pairs))


def plainly(value: Any) -> str:
    """What was asked, as a person writes it: 1T rather than 1000000000000.0."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return str(value)
    return show(float(value), "count") if abs(value) >= MANY else f"{value:,g}"


def words(path: str) -> str:
    """A field as a reader calls it, with its unit."""
    name = path.removeprefix("job.")
    return f"{name[:-3]} [ms]" if name.endswith("_ms") else name.replace("_", " ").replace("seq len", "sequence length")


def between(value: Bounds, dimension: str) -> str:
    """A range for a person."""
    low, expected, high = map(float, value)
    shown = show(expected, dimension)
    if low == high:
        return shown
    size, unit = Measure("", dimension).scale(expected)
    if shown.endswith(f" {unit}"):  # all three in one unit
        return f"{shown} ({digits(low / size)} to {digits(high / size)})"
    return f"{shown} ({show(low, dimension)} to {show(high, dimension)})"


def digits(number: float) -> str:
    """A number whose unit stands elsewhere."""
    return f"{number:,.0f}" if number >= 1000.0 else show(number, "count")


def money_line(bill: Bill, per: str) -> str:
    """What something costs, in a line."""
    rent = bill.rent_usd["on_demand"]
    money = "rent unknown" if rent is None else f"{between(rent, 'usd')} rent on demand"
    return f"{money}; {between(bill.facility_energy_j, 'j')}; {between(bill.total_carbon_kg, 'kg')} CO2e {per}"


def bill_section(bill: Bill, per: str) -> Section:
    """Rent, ownership, energy and carbon with their ranges, and where each constant is from."""
    rents = {RENTS[kind]: amount for kind, amount in bill.rent_usd.items() if amount is not None}
    owned = {"owned": bill.owned_usd} if bill.owned_usd is not None else {}
    rows = [range_row(name, amount, USD) for name, amount in {**rents, **owned}.items()]
    footprint = [
        range_row("at the nodes", bill.energy_j, ENERGY),
        range_row("with cooling", bill.facility_energy_j, ENERGY),
    ]
    footprint += [range_row("emissions", bill.total_carbon_kg, CARBON)]
    blocks: list[Block] = []
    if rows:
        cheapest = min(rows, key=lambda row: row.expected)
        title = f"{WAYS.get(cheapest.name, cheapest.name)} is the cheapest: {show(cheapest.expected, 'usd')} {per}"
        blocks.append(figures.ranges("money", title, rows, "Low, expected and high; prices vary independently."))
    energy, carbon = show(footprint[1].expected, "j"), show(footprint[2].expected, "kg")
    title = f"{energy} with cooling and {carbon} of CO2e {per}"
    blocks.append(figures.ranges("footprint", title, footprint))
    blocks += [_parts_table(bill), _sources_table(bill.sources)]
    lead = f"All {per}. Prices: {bill.prices} ({bill.date}); electricity: {bill.grid}."
    return Section("Money, energy and carbon", tuple(blocks), lead)


def range_row(name: str, value: Bounds, measure: Measure) -> Range:
    """A range as a row of a figure."""
    return Range(name, float(value.low), float(value.expected), float(value.high), measure)


def _parts_table(bill: Bill) -> Table:
    columns = (Column("part"), *(Column(each, kind="number") for each in ("low", "expected", "high")))
    rows: list[tuple[Cell | str, ...]] = []
    for name, value in bill.ownership_usd.items():
        rows.append((f"owned: {name}", *_cells(value, "usd")))
    for name, value in bill.carbon_kg.items():
        rows.append((f"carbon: {name}", *_cells(value, "kg")))
    hours = [float(each) for each in bill.device_hours]
    rows.append(("device-hours", *(Cell(f"{each:,.0f}" if each >= FEW else f"{each:.3g}", each) for each in hours)))
    return Table("What they consist of", columns, tuple(rows))


def _cells(value: Bounds | None, dimension: str) -> tuple[Cell, ...]:
    return tuple(Cell.of(None if value is None else float(part), dimension) for part in (value or (0.0, 0.0, 0.0)))


def _sources_table(sources: Mapping[str, str]) -> Table:
    rows = tuple((CONSTANTS.get(name, name), text) for name, text in sources.items())
    return Table("Where these constants are from", (Column("constant"), Column("source and date")), rows)


def sensitivity_section(found: Sensitivity) -> Section:
    """What a little more or less of each thing does."""
    metric = METRICS[found.metric]
    effects = {}
    for each in found.levers[:LEVERS]:
        low, high = (_shift(each, found.metric, end) for end in ("low", "high"))
        if any(abs(value) > SEEN for value in (low, high)):
            effects[each.name] = (low, high)
    if not effects:
        return Section("What is worth buying next", (Paragraph("No single thing matters."),))
    sentences = found.sentences()
    finding = sentences[0] if sentences else "Little depends on any one thing"
    share = f"{found.change:.0%}"
    lost = (
        " n/a: it does not fit, or there is no such value." if any(map(math.isnan, sum(effects.values(), ()))) else ""
    )
    figure = figures.tornado(
        "tornado", capital(finding).replace(" %", "%"), effects, metric.word,
        f"The strategy is kept; each thing is changed alone.{lost}", "more" if metric.more_is_better else "less",
        (f"{share} less", f"{share} more"),
    )  # fmt: skip
    return Section("What is worth buying next", (figure,))


def _shift(each: Effect, metric: str, end: str) -> float:
    """Relative change at an end; not a number where it does not run."""
    shift = each.shift(metric, end) if each.runs(end) else None
    return math.nan if shift is None else shift


def accuracy_section(estimate: TrainingEstimate) -> Section:
    """How far predictions like this have been from published runs, constants chosen without each source."""
    band, step = estimate.band, estimate.step_time_s
    low, high = (
        f"{edge / step - 1.0:+.0%}".replace("-", "−") for edge in (estimate.step_time_low_s, estimate.step_time_high_s)
    )
    runs = f"{band['rows']} published runs of {band['groups']} models"
    if band["measured"]:
        said = f"Of {runs} with {band['family']}, {band['coverage']:.0%} took {low} to {high} of the predicted time."
    else:
        said = f"No run like this was published; the range, {low} to {high}, is that of {runs}, widened."
    said += f" Kernel curves of this device are {estimate.calibration}."
    with LEFT_OUT.open(encoding="utf-8", newline="") as file:
        found = [(row["source"], int(row["rows"]), float(row["mean"])) for row in csv.DictReader(file)]
    rows = tuple((source, Cell(f"{count:,}", count), Cell(f"{mean:.1%}", mean)) for source, count, mean in found)
    columns = (Column("source"), Column("published figures", kind="number"), Column("mean error", kind="number"))
    notes = ("Constants of the model were chosen anew without each source before it was predicted.",)
    table = Table("Training throughput predicted against published measurements", columns, rows, notes)
    text = Paragraph("hwsim validate published prints every row, predicted and published.")
    return Section("How accurate predictions like this have been", (table, text), said)


__all__ = [
    "PER_OUTPUT", "accuracy_section", "between", "bill_section", "capital", "digits", "money_line", "provenance",
    "question_facts", "range_row", "sensitivity_section", "words",
]  # fmt: skip
