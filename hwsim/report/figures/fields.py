"""Fields: one measure over two swept values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

from hwsim.report.document import Figure
from hwsim.report.figures.axes import WIDTH, mark
from hwsim.report.figures.values import Measure
from hwsim.report.style import SMALL, Theme, fit, readable_on
from hwsim.units import show

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

MOST_WRITTEN, MOST_CELLS, MOST_TICKS = 14, 30, 14
"""Columns up to which numbers stand in the cells, cells a side up to which each is a shape, names on a side."""
COLOUR_MAP = "cividis"
"""Even to the colour-blind, from dark to light."""


def sweep_heatmap(
    name: str,
    title: str,
    columns: Sequence[str],
    rows: Sequence[str],
    values: Sequence[Sequence[float]],
    measure: Measure,
    axes: tuple[str, str],
    caption: str = "",
    better: Literal["less", "more"] = "less",
) -> Figure:
    """`measure` over two axes (`values[row][column]`), written in the cells; not finite is drawn as infeasible."""
    cells = [(r, c, values[i][j]) for i, r in enumerate(rows) for j, c in enumerate(columns)]
    finite = [cell for cell in cells if math.isfinite(cell[2])]
    key = (min if better == "less" else max) if finite else None
    best = key(finite, key=lambda cell: cell[2]) if key else None
    told = f"best is {measure.text(best[2])} at {axes[1]} {best[0]}, {axes[0]} {best[1]}" if best else "none feasible"
    lacking = f"{len(cells) - len(finite)} of {len(cells)} infeasible"
    return Figure(
        name=name, title=title, caption=caption,
        alt=f"{measure.name} by {axes[0]} and {axes[1]}: {told}; {lacking}.",
        size=(WIDTH, min(max(0.36 * len(rows) + 1.2, 2.2), 7.0)),
        draw=partial(_draw, columns, rows, values, measure, axes, better),
        data=tuple({axes[1]: r, axes[0]: c, measure.column: value} for r, c, value in cells),
        hover=tuple(f"{axes[1]} {r}, {axes[0]} {c}: {measure.text(value)}" for r, c, value in cells),
    )  # fmt: skip


def _draw(
    columns: Sequence[str], rows: Sequence[str], values: Sequence[Sequence[float]], measure: Measure,
    names: tuple[str, str], better: str, canvas: Canvas, theme: Theme,
) -> None:  # fmt: skip
    import matplotlib as mpl
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm, Normalize

    axes = canvas.subplots()
    finite = [value for row in values for value in row if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    high = high if high > low else low + (abs(low) or 1.0)
    norm = LogNorm(low, high) if low > 0 and high > 30 * low else Normalize(low, high)
    colours = ScalarMappable(norm, mpl.colormaps[COLOUR_MAP + ("_r" if better == "less" else "")])
    size, unit = measure.scale(high)
    if max(len(columns), len(rows)) > MOST_CELLS:
        grid = axes.pcolormesh(values, norm=norm, cmap=colours.get_cmap(), rasterized=True)
        grid.set_antialiased(False)
    else:
        _draw_cells(axes, values, colours, size, theme)
    _name_sides(axes, columns, rows, names)
    bar = canvas.colorbar(colours, ax=axes, fraction=0.035, pad=0.015, aspect=30)
    ticks = [norm.inverse(share) for share in (0.0, 0.5, 1.0)]
    bar.set_ticks([float(tick) for tick in ticks], labels=[show(float(tick) / size, "count") for tick in ticks])
    bar.ax.minorticks_off()
    bar.outline.set_visible(False)
    bar.set_label(f"{fit(measure.name, 40)} [{unit}]" if unit else fit(measure.name, 40))


def _draw_cells(axes: Axes, values: Sequence[Sequence[float]], colours: object, size: float, theme: Theme) -> None:
    """A rectangle per cell, with its number if there is room; a cross where nothing is feasible."""
    from matplotlib.colors import to_hex
    from matplotlib.patches import Rectangle

    place = 0
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            good = math.isfinite(value)
            colour = to_hex(colours.to_rgba(value)) if good else theme.surface  # type: ignore[attr-defined]
            cell = Rectangle((j, i), 1, 1, facecolor=colour, edgecolor=theme.paper, linewidth=1.2)
            axes.add_patch(cell)
            mark(cell, place)
            place += 1
            if len(row) <= MOST_WRITTEN:
                text, ink = (show(value / size, "count"), readable_on(colour)) if good else ("–", theme.muted)
                axes.text(j + 0.5, i + 0.5, text, ha="center", va="center", fontsize=SMALL, color=ink)


def _name_sides(axes: Axes, columns: Sequence[str], rows: Sequence[str], names: tuple[str, str]) -> None:
    axes.set_xlim(0, len(columns))
    axes.set_ylim(len(rows), 0)
    stride = -(-len(columns) // MOST_TICKS)
    width = max(4, 80 // max(min(len(columns), MOST_TICKS), 1))
    axes.set_xticks([i + 0.5 for i in range(0, len(columns), stride)], [fit(c, width, 2) for c in columns[::stride]])
    stride = -(-len(rows) // (MOST_TICKS + 4))
    axes.set_yticks([i + 0.5 for i in range(0, len(rows), stride)], [fit(r, 20) for r in rows[::stride]])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(fit(names[0], 60))
    axes.set_ylabel(fit(names[1], 30))
