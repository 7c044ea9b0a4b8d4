"""Changes and their ranges: sensitivity, scenarios against a base, low-expected-high."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING, Literal

from hwsim.report.document import Figure
from hwsim.report.figures.axes import WIDTH, beside, linear_limits, mark, measure_axis, rows_axes, swatches, zero_line
from hwsim.report.figures.values import Measure, Range, percent, said
from hwsim.report.style import Theme, fit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

Better = Literal["less", "more"]
LEAST = 0.01
"""Change that an axis of none shows."""
ROOM = 0.13
"""Of the width on either side of bars, for their numbers."""


def tornado(
    name: str,
    title: str,
    effects: Mapping[str, tuple[float, float]],
    what: str,
    caption: str = "",
    better: Better = "less",
    sides: tuple[str, str] = ("10 % less", "10 % more"),
) -> Figure:
    """Relative change of `what` (0.05 is 5 % more) when a parameter is lowered and raised, largest effect on top."""
    ordered = sorted(effects.items(), key=lambda item: -max(abs(each) for each in (*item[1], 0.0) if isfinite(each)))
    told = [f"{key} {percent(low)} and {percent(high)}" for key, (low, high) in ordered]
    hover = [
        f"{key}, {side}: {what} {percent(change)}"
        for key, pair in ordered
        for side, change in zip(sides, pair, strict=True)
    ]
    return Figure(
        name=name, title=title, caption=caption,
        alt=f"Change of {what} with {sides[0]} and with {sides[1]} of a parameter: {said(told)}.",
        size=(WIDTH, 0.42 * len(ordered) + 1.15), draw=partial(_draw_tornado, dict(ordered), what, better, sides),
        data=tuple({"parameter": key, sides[0]: low, sides[1]: high} for key, (low, high) in ordered),
        hover=tuple(hover),
    )  # fmt: skip


def _draw_tornado(
    effects: Mapping[str, tuple[float, float]], what: str, better: Better, sides: tuple[str, str],
    canvas: Canvas, theme: Theme,
) -> None:  # fmt: skip
    axes = canvas.subplots()
    _change_axes(axes, list(effects), [change for pair in effects.values() for change in pair], what, better, theme)
    colours = (theme.series[5], theme.series[1])
    for row, pair in enumerate(effects.values()):
        for side, change in enumerate(pair):
            where = row + (0.19, -0.19)[1 - side]
            (bar,) = axes.barh(where, change, height=0.36, color=colours[side])
            mark(bar, 2 * row + side)
            beside(axes, percent(change), (change, where), -1 if change < 0 else 1, theme.ink)
    swatches(axes, dict(zip(sides, colours, strict=True)))


def delta_bars(
    name: str,
    title: str,
    changes: Mapping[str, float],
    base: str,
    what: str,
    caption: str = "",
    better: Better = "less",
) -> Figure:
    """Relative change of `what` in every scenario against the base (-0.25 is 25 % less)."""
    told = [f"{key} {percent(change)}" for key, change in changes.items()]
    return Figure(
        name=name, title=title, caption=caption, alt=f"Change of {what} against {base}: {said(told)}.",
        size=(WIDTH, 0.34 * len(changes) + 0.95), draw=partial(_draw_deltas, changes, what, better),
        data=tuple({"scenario": key, f"change of {what} against {base}": change} for key, change in changes.items()),
        hover=tuple(f"{key}: {what} {percent(change)} against {base}" for key, change in changes.items()),
    )  # fmt: skip


def _draw_deltas(changes: Mapping[str, float], what: str, better: Better, canvas: Canvas, theme: Theme) -> None:
    axes = canvas.subplots()
    _change_axes(axes, list(changes), list(changes.values()), what, better, theme)
    for row, change in enumerate(changes.values()):
        good = (change < 0) is (better == "less")
        (bar,) = axes.barh(row, change, height=0.62, color=theme.series[2] if good else theme.series[1])
        mark(bar, row)
        beside(axes, percent(change), (change, row), -1 if change < 0 else 1, theme.ink)


def _change_axes(
    axes: Axes, names: Sequence[str], changes: Sequence[float], what: str, better: Better, theme: Theme
) -> None:
    """Rows with names around zero, with room for a number on either side."""
    rows_axes(axes, names, theme)
    low, high = linear_limits([*changes, 0.0], 0.0, zero=False)
    high = high if high > low else low + LEAST
    room = ROOM * (high - low)
    axes.set_xlim(low - room * (low < 0), high + room * (high > 0))
    measure_axis(axes.xaxis, Measure(f"Change of {fit(what, 36)}; {better} is better", "fraction"))
    zero_line(axes, theme)


def ranges(name: str, title: str, rows: Sequence[Range], caption: str = "") -> Figure:
    """Low, expected and high as bars; rows of one measure share an axis, each measure has its panel."""
    panels: dict[Measure, list[Range]] = {}
    for row in rows:
        panels.setdefault(row.measure, []).append(row)
    ordered = [row for panel in panels.values() for row in panel]
    told = said(_row_text(row) for row in ordered)
    return Figure(
        name=name, title=title, caption=caption, alt=f"Expected values and their ranges: {told}.",
        size=(WIDTH, 0.36 * len(rows) + 0.72 * len(panels) + 0.1), draw=partial(_draw_ranges, panels),
        data=tuple(
            {"what": row.name, "low": row.low, "expected": row.expected, "high": row.high, "unit": row.measure.column}
            for row in ordered
        ),
        hover=tuple(_row_text(row) for row in ordered),
    )  # fmt: skip


def _draw_ranges(panels: Mapping[Measure, Sequence[Range]], canvas: Canvas, theme: Theme) -> None:
    grid = canvas.subplots(len(panels), 1, squeeze=False, height_ratios=[len(panel) + 0.6 for panel in panels.values()])
    place = 0
    for axes, (measure, rows) in zip(grid[:, 0], panels.items(), strict=True):
        rows_axes(axes, [row.name for row in rows], theme)
        axes.set_xlim(*linear_limits([row.high for row in rows] + [row.low for row in rows], 0.02))
        measure_axis(axes.xaxis, measure)
        zero_line(axes, theme)
        for height, row in enumerate(rows):
            start = row.low if row.high > row.low else 0.0
            (bar,) = axes.barh(
                height, row.high - start, left=start, height=0.34, color=theme.series[0], alpha=0.35, linewidth=0
            )
            mark(bar, place)
            place += 1
            axes.plot([row.expected], [height], "o", color=theme.series[0], markersize=6.5)
            text = (
                f"{measure.text(row.expected)}\n{_between(row)}" if row.high > row.low else measure.text(row.expected)
            )
            beside(axes, text, (max(axes.get_xlim()), height), 1, theme.ink)


def _row_text(row: Range) -> str:
    """A row in words; a value without a range is just that."""
    within = f", {_between(row)}" if row.high > row.low else ""
    return f"{row.name}: {row.measure.text(row.expected)}{within}"


def _between(row: Range) -> str:
    return f"{row.measure.text(row.low)} to {row.measure.text(row.high)}"
