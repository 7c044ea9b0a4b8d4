"""The points of a sweep: drawn as far as two axes allow, and as a table."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.report import figures
from hwsim.report.document import Block, Cell, Column, Figure, Section, Table
from hwsim.report.figures import Measure, Range
from hwsim.report.whatif import constant_line, extremes, field_name, main_figure, varying
from hwsim.report.writing import capital
from hwsim.scenarios.measures import MEASURES
from hwsim.units import DAY_S, show

if TYPE_CHECKING:
    from hwsim.scenarios.axes import AxisPoint
    from hwsim.scenarios.sweep import Swept

SHOWN_POINTS = 60
"""Points in a table of the report; `hwsim whatif --format csv` has all."""
HEADS = {"days": "time", "owned_cost": "owned", "memory": "memory"}
"""Short heads of columns."""


def sweep_section(swept: Swept, serving: bool) -> Section:
    """The points, drawn as far as two axes allow, and as a table."""
    name = main_figure(swept, serving)
    blocks: list[Block] = list(_sweep_figures(swept, name)) if name else []
    blocks.append(_points_table(swept, serving))
    fitting = int(np.count_nonzero(swept.fits))
    told = "all fit" if fitting == swept.grid.points else f"{fitting:,} fit"
    lead = f"{swept.grid.points:,} points; {told}. {constant_line(swept, serving)}"
    return Section("The sweep", tuple(blocks), lead)


def _sweep_figures(swept: Swept, name: str) -> list[Figure]:
    measure = MEASURES[name]
    shown = _drawn(name)
    best, worst = extremes(swept, name) if swept.any_fits else (0, 0)
    ends = [measure.shown(float(swept.measures[name][i])) for i in (best, worst)]
    title = f"{capital(shown.name)}: {ends[0]} at best, {ends[1]} at worst"
    values = np.where(swept.fits, swept.measures[name] * scale_of(name), np.nan)
    axes = list(swept.grid.axes.items())
    moving = [(path, axis) for path, axis in axes if len(axis) > 1]
    better: Any = "more" if measure.rises else "less"
    if len(moving) == 2 and swept.grid.crossed:
        (down, rows), (across, columns) = moving
        field = np.full((len(rows), len(columns)), np.nan)
        field[swept.grid.index[down], swept.grid.index[across]] = values
        named = [_sides(path, points) for path, points in ((across, columns), (down, rows))]
        return [
            figures.sweep_heatmap(
                "sweep",
                title,
                named[0][1],
                named[1][1],
                field.tolist(),
                shown,
                (named[0][0], named[1][0]),
                better=better,
            )
        ]
    path, axis = moving[0] if moving else axes[0]
    numbers = [point.value for point in axis]
    if len(moving) > 1 and len({len(a) for _, a in moving}) > 1:
        return []
    if all(map(_is_number, numbers)):
        line = [(float(axis[i].value), float(values[k])) for k, i in enumerate(swept.grid.index[path].tolist())]
        wide = min(numbers) > 0 and max(numbers) > 8 * min(numbers)
        x = Measure(field_name(path), unit=swept.grid.units.get(path) or "")
        return [
            figures.sweep_lines(
                "sweep", title, {measure.title: line}, x, shown, log=(wide, wide and bool(np.nanmin(values) > 0))
            )
        ]
    places = [(k, i) for k, i in enumerate(swept.grid.index[path].tolist()) if np.isfinite(values[k])]
    bars = [Range(axis[i].shown, float(values[k]), float(values[k]), float(values[k]), shown) for k, i in places]
    return [figures.ranges("sweep", title, bars)]


def _sides(path: str, points: tuple[AxisPoint, ...]) -> tuple[str, list[str]]:
    """The name of an axis, and its values: with the unit in the name where they share one."""
    shown = [point.shown.rpartition(" ") for point in points]
    units = {unit for number, _, unit in shown if number}
    if len(units) != 1 or not all(number for number, _, _ in shown):
        return field_name(path), [point.shown for point in points]
    return f"{field_name(path)} [{units.pop()}]", [_three(number) for number, _, _ in shown]


def _three(number: str) -> str:
    """A number to three digits."""
    try:
        return show(float(number.replace(",", "")), "count")
    except ValueError:
        return number


def _drawn(name: str) -> Measure:
    """A figure as an axis shows it."""
    measure = MEASURES[name]
    if measure.dimension == "days":
        return Measure("Time", "s")
    if measure.dimension == "whole":
        return Measure(capital(measure.title))
    return Measure(capital(measure.title), measure.dimension)


def scale_of(name: str) -> float:
    """The unit of a figure in the SI of its axis: days are drawn as time."""
    return DAY_S if MEASURES[name].dimension == "days" else 1.0


def _points_table(swept: Swept, serving: bool) -> Table:
    names = varying(swept, serving)
    columns = [Column(field_name(path)) for path in swept.grid.axes]
    all_fit = bool(np.all(swept.fits))
    columns += [
        *(() if all_fit else (Column("fits"),)),
        *(Column(MEASURES[name].title, kind="number") for name in names),
    ]
    columns += [Column("strategy")] if swept.layouts else []
    rows = []
    chosen = thinned(swept)
    for i in chosen:
        at = [_at(axis[swept.grid.index[path][i]]) for path, axis in swept.grid.axes.items()]
        values = {name: float(swept.measures[name][i]) for name in names}
        figures_at = [
            Cell(MEASURES[name].shown(value), value if math.isfinite(value) else math.inf)
            for name, value in values.items()
        ]
        layout = [swept.layouts[i]] if swept.layouts else []
        verdict = () if all_fit else ("yes" if swept.fits[i] else swept.why_not.get(i, "no"),)
        rows.append((*at, *verdict, *figures_at, *layout))
    notes = (
        (f"{len(chosen)} of {swept.grid.points:,} points, evenly spaced; hwsim whatif --format csv lists all.",)
        if len(chosen) < swept.grid.points
        else ()
    )
    return Table("Points", tuple(columns), tuple(rows), notes)


def thinned(swept: Swept) -> list[int]:
    """Points for a table: all of few; of many, those at evenly spaced values of every axis."""
    count, lengths = swept.grid.points, [len(axis) for axis in swept.grid.axes.values()]
    if count <= SHOWN_POINTS:
        return list(range(count))
    moving = sum(length > 1 for length in lengths) if swept.grid.crossed else 0
    if not moving:
        return sorted({round(float(i)) for i in np.linspace(0, count - 1, SHOWN_POINTS)})
    most = max(2, int(SHOWN_POINTS ** (1.0 / moving)))
    kept = np.ones(count, dtype=bool)
    for length, index in zip(lengths, swept.grid.index.values(), strict=True):
        kept &= np.isin(index, np.linspace(0, length - 1, most).round().astype(int))
    return [int(i) for i in np.flatnonzero(kept)[:SHOWN_POINTS]]


def _at(point: Any) -> Cell:
    return Cell(point.shown, float(point.value) if _is_number(point.value) else point.shown)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
