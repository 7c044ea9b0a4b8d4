"""What every figure does with its axes: ticks in a reader's units, rows with names, labels beside what they name."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hwsim.report.style import NORMAL, SMALL, Theme, fit
from hwsim.units import scales, show

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure as Canvas

    from hwsim.report.figures.values import Measure

WIDTH = 9.0
"""Of every figure, in inches."""
ROW_NAME, KEY_NAME, LABEL, ACROSS, UPWARD = 28, 26, 22, 60, 32
"""Characters per line of a row's name, of a name beside a line, of a label beside a point, of an axis' name."""
STACK = (0, 4, 2, 3, 5, 1, 7, 8)
"""Colours of the series in the order of a stack: neighbours differ in lightness too."""
MOST_PARTS = len(STACK)
MOST_TICKS = 8
LINE = 1.2 * NORMAL
MOST_BOXES = 400
KEYS_WIDTH = 92
"""Characters of the names of colours in a row."""
MANTISSAS = ((1, 2, 5), (1, 3), (1,))
SIDES = (
    (7, 5, "left", "bottom"), (7, -5, "left", "top"), (-7, 5, "right", "bottom"), (-7, -5, "right", "top"),
    (0, 9, "center", "bottom"), (0, -9, "center", "top"), (14, 16, "left", "bottom"), (14, -16, "left", "top"),
    (-14, 16, "right", "bottom"), (-14, -16, "right", "top"), (24, 30, "left", "bottom"), (24, -30, "left", "top"),
    (-24, 30, "right", "bottom"), (-24, -30, "right", "top"),
)  # fmt: skip
"""Where a label may stand beside its point, best first."""


def mark(artist: Any, place: int) -> None:
    """Give an artist the hover text of that place."""
    artist.set_gid(f"mark-{place}")


def measure_axis(axis: Axis, measure: Measure, log: bool = False) -> None:
    """Ticks and label of a measure over the limits that the axis has."""
    low, high = sorted(axis.get_view_interval())
    ticks, texts, unit = _log_ticks(low, high, measure) if log else _ticks(low, high, measure)
    fixed_ticks(axis, ticks, [text.replace("-", "\u2212") for text in texts])
    name = fit(measure.name, ACROSS if axis is axis.axes.xaxis else UPWARD)
    axis.set_label_text(f"{name} [{fit(unit, LABEL)}]" if unit else name)


def fixed_ticks(axis: Axis, ticks: Sequence[float], texts: Sequence[str]) -> None:
    """These ticks and no others."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FixedFormatter(texts))
    axis.set_minor_locator(NullLocator())


def _ticks(low: float, high: float, measure: Measure) -> tuple[list[float], list[str], str]:
    from matplotlib.ticker import MaxNLocator

    size, unit = measure.scale(max(abs(low), abs(high)))
    places = MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]).tick_values(low / size, high / size)
    slack = 1e-9 * (high - low)
    kept = [float(place) for place in places if low - slack <= place * size <= high + slack]
    dimension = "fraction" if measure.dimension == "fraction" else "count"
    return [place * size for place in kept], [show(place, dimension) for place in kept], unit


def _log_ticks(low: float, high: float, measure: Measure) -> tuple[list[float], list[str], str]:
    """Round numbers of the units that the axis passes, as dense as there is room."""
    steps = [size for size, _ in scales(measure.dimension)]
    steps += [steps[-1] / 1000**n for n in range(1, 4)] if measure.dimension in ("count", "fraction") else []
    decades = sorted({size * 10.0**n for i, size in enumerate(steps) for n in range(_decades(steps, i))})
    for mantissas in MANTISSAS:
        ticks = [place for place in (d * m for d in decades for m in mantissas) if low <= place <= high]
        if len(ticks) <= MOST_TICKS:
            break
    ticks = ticks[:: max(-(-len(ticks) // MOST_TICKS), 1)] or [math.sqrt(low * high)]
    return ticks, [show(tick, measure.dimension) for tick in ticks], measure.unit


def _decades(steps: Sequence[float], place: int) -> int:
    """Powers of ten between a unit and the next larger one."""
    return max(round(math.log10(steps[place - 1] / steps[place])), 1) if place else 6


def log_limits(values: Sequence[float], room: float = 0.06) -> tuple[float, float]:
    """Limits of a log axis around positive values."""
    good = [value for value in values if value > 0 and math.isfinite(value)] or [1.0]
    low, high = min(good), max(good)
    share = max(math.log10(high / low), 0.3) * room
    return low / 10**share, high * 10**share


def linear_limits(values: Sequence[float], room: float = 0.06, zero: bool = True) -> tuple[float, float]:
    """Limits of a linear axis around values, from zero unless all of them are far from it."""
    good = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(good), max(good)
    if zero and low >= 0:
        return 0.0, high * (1 + room) or 1.0
    span = (high - low) or abs(high) or 1.0
    return low - span * room, high + span * room


def rows_axes(axes: Axes, names: Sequence[str], theme: Theme) -> None:
    """Rows from the top, their names on the left, faint lines at the ticks below."""
    fixed_ticks(axes.yaxis, [], [])
    for row, name in enumerate(names):
        lines = (fit(name, ROW_NAME, 2) or "-").split("\n")
        for place, line in enumerate(lines):  # one by one, as each is set against the axis in the reader's own font
            axes.annotate(
                line, (0, row), (-6, LINE * ((len(lines) - 1) / 2 - place)), xycoords=axes.get_yaxis_transform(),
                textcoords="offset points", ha="right", va="center", annotation_clip=False,
            )  # fmt: skip
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="x", length=0)
    axes.grid(True, axis="x")


def zero_line(axes: Axes, theme: Theme, at: float = 0.0) -> None:
    """The line that bars start from."""
    axes.axvline(at, color=theme.muted, linewidth=0.9, zorder=1.5)


def beside(axes: Axes, text: str, at: tuple[float, float], side: int, colour: str) -> None:
    """Text to the right (1) or left (-1) of the end of a bar."""
    end = at if math.isfinite(at[0]) else (0.0, at[1])
    axes.annotate(
        text, end, (5 * side, 0), textcoords="offset points", va="center", ha="left" if side > 0 else "right",
        fontsize=SMALL, color=colour, annotation_clip=False,
    )  # fmt: skip


def swatches(axes: Axes, colours: Mapping[str, str], gap: float = 0.6) -> None:
    """Names of the colours in rows above the axes, so many lines of text away."""
    from matplotlib.patches import Rectangle

    if not colours:
        return
    names = [fit(name, KEY_NAME) or "-" for name in colours]
    rows = -(-sum(len(name) + 5 for name in names) // KEYS_WIDTH)
    columns = -(-len(names) // rows)
    order = [i for column in range(columns) for i in range(column, len(names), columns)]
    squares = [Rectangle((0, 0), 1, 1, color=colour) for colour in colours.values()]
    axes.legend(
        [squares[i] for i in order], [names[i] for i in order], loc="lower left",
        bbox_to_anchor=(0, 1), ncols=columns, handlelength=0.9, handleheight=0.9, columnspacing=1.4, handletextpad=0.5,
        borderaxespad=gap, borderpad=0,
    )  # fmt: skip


def keys_beside(
    axes: Axes,
    ends: Mapping[str, tuple[float, float]],
    colours: Sequence[str],
    height: float,
    notes: Sequence[str] = (),
) -> None:
    """Names on the right of lines (below them a note), each as near to the height of its end as the others allow."""
    gap = 1.25 * SMALL / 72 / height
    texts = {name: fit(name, KEY_NAME, 1 if notes else 2) or "-" for name in ends}
    texts |= {name: f"{texts[name]}\n{note}" for name, note in zip(ends, notes, strict=False)}
    heights: dict[str, float] = {}
    for name, (x, y) in ends.items():
        _, place = axes.transAxes.inverted().transform(axes.transData.transform((x, y)))
        heights[name] = float(place) if math.isfinite(place) else 0.0
    order = {name: place for place, name in enumerate(ends)}
    floor, ordered = -math.inf, sorted(heights, key=lambda name: (heights[name], -order[name]))
    for name in ordered:
        half = gap * (1 + texts[name].count("\n")) / 2
        heights[name] = max(heights[name], floor + half)
        floor = heights[name] + half
    excess = max(0.0, floor - 1.0)
    for place, name in enumerate(ends):
        y = heights[name] - excess
        axes.plot([1.012, 1.03], [y, y], color=colours[place], transform=axes.transAxes, clip_on=False, linewidth=2.4)
        axes.text(1.038, y, texts[name], transform=axes.transAxes, va="center", fontsize=SMALL)


def label_points(
    canvas: Canvas,
    axes: Axes,
    labels: Sequence[tuple[str, float, float, bool]],
    taken: Sequence[tuple[float, float]],
    theme: Theme,
) -> None:
    """Labels beside their points where nothing is covered; one for which no place is left is dropped unless it must be.

    The layout is settled first, so that what is free now stays free.
    """
    canvas.draw_without_rendering()
    canvas.set_layout_engine("none")
    inside = axes.get_window_extent()
    full = [_around(place) for place in axes.transData.transform(list(taken))] if taken else []
    full += [box for line in axes.lines for box in _along(axes, line)]
    full += [text.get_window_extent() for text in axes.texts]
    for text, x, y, wanted in labels:
        best, least = None, math.inf
        for dx, dy, across, up in SIDES:
            leader = {"arrowstyle": "-", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2, "color": theme.muted}
            label = axes.annotate(
                fit(text, LABEL, 2), (x, y), (dx, dy), textcoords="offset points", ha=across, va=up, fontsize=SMALL,
                arrowprops=leader if abs(dx) > 7 else None,
            )  # fmt: skip
            label.set_clip_on(False)
            box = _text_extent(label)
            hidden = _covered(box, full) + 10 * (box.width * box.height - _covered(box, [inside]))
            if hidden < least - 1e-6:
                if best is not None:
                    best.remove()
                best, least = label, hidden
            else:
                label.remove()
            if least <= 1e-6:
                break
        if best is not None and least > 1e-6 and not wanted:
            best.remove()
        elif best is not None:
            full.append(_text_extent(best))


def _text_extent(label: Any) -> Any:
    """Where the words of a label are, without its line."""
    from matplotlib.text import Text

    label.update_positions(label.get_figure().canvas.get_renderer())
    return Text.get_window_extent(label)


def _around(place: Sequence[float], half: float = 4.0) -> Any:
    from matplotlib.transforms import Bbox

    x, y = place
    return Bbox.from_extents(x - half, y - half, x + half, y + half)


def _along(axes: Axes, line: Any) -> list[Any]:
    """Small boxes along the part of a line that is seen."""
    import numpy as np

    corners = axes.transData.transform(np.column_stack(line.get_data()))
    boxes: list[Any] = []
    for (x0, y0), (x1, y1) in itertools.pairwise(corners[np.isfinite(corners).all(axis=1)]):
        count = min(int(math.hypot(x1 - x0, y1 - y0) / 6) + 2, MOST_BOXES)
        boxes += [
            _around(place, 2.0) for place in zip(np.linspace(x0, x1, count), np.linspace(y0, y1, count), strict=True)
        ]
    return boxes


def _covered(one: Any, others: Sequence[Any]) -> float:
    """Area that a box shares with each of some others, all together."""
    import numpy as np

    corners = np.array([other.get_points() for other in others]).reshape(-1, 4)
    x0, y0, x1, y1 = corners.T
    width = np.minimum(one.x1, x1) - np.maximum(one.x0, x0)
    height = np.minimum(one.y1, y1) - np.maximum(one.y0, y0)
    return float(np.sum(np.maximum(width, 0.0) * np.maximum(height, 0.0)))
