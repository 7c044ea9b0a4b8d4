"""Points: plans in the plane, operators under the roofline, predictions against measurements."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from hwsim.report.document import Figure, Value
from hwsim.report.figures.axes import (
    LABEL,
    WIDTH,
    fixed_ticks,
    label_points,
    linear_limits,
    log_limits,
    mark,
    measure_axis,
    rows_axes,
    swatches,
)
from hwsim.report.figures.values import Measure, Operator, Point, said
from hwsim.report.style import MARKERS, SMALL, Theme, fit
from hwsim.units import show

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

INTENSITY = Measure("Intensity", unit="FLOP/byte")
SPEED = Measure("Speed", "flops_per_s")
MOST_LABELS = 7
MOST_HOVERS = 300
"""Points beyond these have no hover text and are drawn as one."""
MOST_BOUNDS = 4
SLOPE = 0.3
"""Of the intensity at a ridge, where the axis begins at the latest: room for the name of the memory."""
RATIOS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 2.5)
WIDE, WIDE_RATIOS = 8.0, (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
"""From this spread on fewer marks have room."""


def roofline(
    name: str,
    title: str,
    operators: Sequence[Operator],
    peaks: Mapping[str, float],
    memories: Mapping[str, float],
    caption: str = "",
) -> Figure:
    """Operators by intensity and speed under the peaks (FLOP/s by format) and memories (byte/s by name)."""
    kept = sorted((o for o in operators if _drawable(o)), key=lambda o: -o.share)
    told = said(f"{o.name} {SPEED.text(o.flops_per_s)}, {show(o.share, 'fraction')} of the time" for o in kept)
    data: list[dict[str, Value]] = [
        {"operator": o.name, INTENSITY.column: o.flops_per_byte, SPEED.column: o.flops_per_s, "share": o.share,
         "bound": o.bound}
        for o in operators
    ]  # fmt: skip
    return Figure(
        name=name, title=title, caption=caption, alt=f"Speed of operators against their FLOPs per byte: {told}.",
        size=(WIDTH, 4.5), draw=partial(_draw_roofline, kept, peaks, memories), data=tuple(data),
        hover=tuple(
            f"{o.name}: {INTENSITY.text(o.flops_per_byte)}, {SPEED.text(o.flops_per_s)}, "
            f"{show(o.share, 'fraction')} of the time{', ' * bool(o.bound)}{o.bound}"
            for o in kept
        ),
    )  # fmt: skip


def _drawable(operator: Operator) -> bool:
    both = operator.flops_per_byte, operator.flops_per_s
    return all(value > 0 and math.isfinite(value) for value in both)


def _draw_roofline(
    operators: Sequence[Operator], peaks: Mapping[str, float], memories: Mapping[str, float],
    canvas: Canvas, theme: Theme,
) -> None:  # fmt: skip
    axes = canvas.subplots()
    axes.grid(True)
    axes.set_xscale("log")
    axes.set_yscale("log")
    ridges = [peak / memory for peak in peaks.values() for memory in memories.values()]
    across = [*(o.flops_per_byte for o in operators), *(SLOPE * ridge for ridge in ridges)]
    axes.set_xlim(*log_limits([*across, 3 * max(ridges)], 0.05))
    floor = [o.flops_per_s for o in operators] or [min(peaks.values()) / 100]
    axes.set_ylim(*log_limits([*floor, max(peaks.values())], 0.07))
    bounds = list(dict.fromkeys(o.bound for o in operators))[:MOST_BOUNDS]
    series = (theme.series[0], theme.series[1], theme.series[2], theme.series[3])
    for place, o in enumerate(operators):
        kind = bounds.index(o.bound) if o.bound in bounds else MOST_BOUNDS - 1
        size = 4 + 14 * math.sqrt(min(max(o.share, 0.0), 1.0))
        (dot,) = axes.plot(
            [o.flops_per_byte], [o.flops_per_s], MARKERS[kind], color=series[kind], markersize=size, alpha=0.85,
            markeredgecolor=theme.paper, markeredgewidth=0.6,
        )  # fmt: skip
        mark(dot, place)
    measure_axis(axes.xaxis, INTENSITY, True)
    measure_axis(axes.yaxis, SPEED, True)
    if len(bounds) > 1:
        swatches(axes, {bound or "not said": series[i] for i, bound in enumerate(bounds)})
    _draw_ceilings(canvas, axes, peaks, memories, theme)
    labels = [
        (f"{fit(o.name, LABEL)} {show(o.share, 'fraction', 2)}", o.flops_per_byte, o.flops_per_s, False)
        for o in operators[:MOST_LABELS]
    ]
    label_points(canvas, axes, labels, [(o.flops_per_byte, o.flops_per_s) for o in operators], theme)


def _draw_ceilings(
    canvas: Canvas, axes: Axes, peaks: Mapping[str, float], memories: Mapping[str, float], theme: Theme
) -> None:
    """The peaks as level lines, the memories as slopes up to the highest of them, each with its name on it."""
    (left, right), bottom = axes.get_xlim(), axes.get_ylim()[0]
    fastest, top = max(memories.values()), max(peaks.values())
    for peak_name, peak in peaks.items():
        axes.plot([peak / fastest, right], [peak, peak], color=theme.ink, linewidth=1.3)
        text = f"{fit(peak_name, LABEL)} {SPEED.text(peak)}"
        axes.annotate(text, (right, peak), (-2, 2), textcoords="offset points", ha="right", va="bottom", fontsize=SMALL)
    canvas.draw_without_rendering()
    for memory_name, memory in memories.items():
        axes.plot([left, top / memory], [left * memory, top], color=theme.ink, linewidth=1.3)
        start = max(left, bottom / memory) * 1.15
        one, other = axes.transData.transform([(start, start * memory), (10 * start, 10 * start * memory)])
        angle = math.degrees(math.atan2(other[1] - one[1], other[0] - one[0]))
        axes.annotate(
            f"{fit(memory_name, LABEL)} {show(memory, 'bytes_per_s')}", (start, start * memory), (-2, 3),
            textcoords="offset points", rotation=angle, rotation_mode="anchor", ha="left", va="bottom", fontsize=SMALL,
        )  # fmt: skip


def pareto(
    name: str,
    title: str,
    points: Sequence[Point],
    x: Measure,
    y: Measure,
    caption: str = "",
    log: tuple[bool, bool] = (False, False),
) -> Figure:
    """Plans by two measures, the front drawn through the best of them, the chosen one labelled."""
    kept = sorted((p for p in points if math.isfinite(p.x) and math.isfinite(p.y)), key=lambda p: (p.chosen, p.best))
    front = sorted((p for p in kept if p.best), key=lambda p: p.x)
    told = said(f"{p.name} ({x.text(p.x)}, {y.text(p.y)})" for p in front)
    return Figure(
        name=name, title=title, caption=caption,
        alt=f"{len(points):,} plans by {x.name} and {y.name}; the front: {told}.",
        size=(WIDTH, 4.0), draw=partial(_draw_pareto, kept, front, x, y, log),
        data=tuple(
            {"plan": p.name, x.column: p.x, y.column: p.y, "on the front": "yes" if p.best else "no"} for p in points
        ),
        hover=tuple(f"{p.name}: {x.text(p.x)}, {y.text(p.y)}" for p in kept),
    )  # fmt: skip


def _draw_pareto(
    points: Sequence[Point], front: Sequence[Point], x: Measure, y: Measure, log: tuple[bool, bool],
    canvas: Canvas, theme: Theme,
) -> None:  # fmt: skip
    axes = canvas.subplots()
    axes.grid(True)
    for wanted, scale, limit, values in (
        (log[0], axes.set_xscale, axes.set_xlim, [p.x for p in points]),
        (log[1], axes.set_yscale, axes.set_ylim, [p.y for p in points]),
    ):
        scale("log" if wanted else "linear")
        limit(*(log_limits(values, 0.1) if wanted else linear_limits(values, 0.1, zero=False)))
    axes.plot([p.x for p in front], [p.y for p in front], color=theme.series[0], linewidth=1.4)
    many = [p for p in points if not p.best and not p.chosen] if len(points) > MOST_HOVERS else []
    axes.plot([p.x for p in many], [p.y for p in many], "o", color=theme.muted, markersize=3, alpha=0.5)
    for place, p in enumerate(points):
        if many and not p.best and not p.chosen:
            continue
        colour = theme.series[1] if p.chosen else theme.series[0] if p.best else theme.muted
        (dot,) = axes.plot(
            [p.x], [p.y], "D" if p.chosen else "o", color=colour, markersize=8 if p.chosen else 5.5 if p.best else 4,
            alpha=1.0 if p.best or p.chosen else 0.6, linewidth=0,
        )  # fmt: skip
        mark(dot, place)
    measure_axis(axes.xaxis, x, log[0])
    measure_axis(axes.yaxis, y, log[1])
    named = [p for p in points if p.chosen] + _spread([p for p in front if not p.chosen], MOST_LABELS)
    label_points(
        canvas, axes, [(p.name, p.x, p.y, p.chosen) for p in named], [(p.x, p.y) for p in points[-200:]], theme
    )


def _spread(points: Sequence[Point], most: int) -> list[Point]:
    """At most so many of the points, evenly chosen, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    return [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]


def accuracy_strip(
    name: str,
    title: str,
    groups: Mapping[str, Sequence[float]],
    caption: str = "",
    band: float = 0.1,
) -> Figure:
    """Predicted over published, a dot per row, a strip per group, the band of small errors shaded."""
    kept = {
        group: [ratio for ratio in ratios if ratio > 0 and math.isfinite(ratio)] for group, ratios in groups.items()
    }
    errors = {group: sum(abs(r - 1) for r in ratios) / max(len(ratios), 1) for group, ratios in kept.items()}
    told = [f"{group} {len(kept[group])} rows, mean error {show(errors[group], 'fraction', 2)}" for group in kept]
    return Figure(
        name=name, title=title, caption=caption, alt=f"Predicted over published figures: {said(told)}.",
        size=(WIDTH, 0.42 * len(kept) + 1.1), draw=partial(_draw_strip, kept, errors, band),
        data=tuple({"group": g, "predicted / published": ratio} for g, ratios in groups.items() for ratio in ratios),
    )  # fmt: skip


def _draw_strip(
    groups: Mapping[str, Sequence[float]], errors: Mapping[str, float], band: float, canvas: Canvas, theme: Theme
) -> None:
    axes = canvas.subplots()
    rows_axes(axes, list(groups), theme)
    every = [ratio for ratios in groups.values() for ratio in ratios]
    axes.set_xscale("log")
    axes.set_xlim(*log_limits([*every, 1 - 2 * band, 1 + 2 * band], 0.04))
    axes.axvspan(1 - band, 1 + band, color=theme.good, alpha=0.13, linewidth=0)
    axes.axvline(1.0, color=theme.ink, linewidth=0.9)
    for row, ratios in enumerate(groups.values()):
        spread = [row + 0.5 * ((7 * i) % 11 / 10 - 0.5) for i in range(len(ratios))]
        colour, marker = theme.series[row % 4], MARKERS[row % len(MARKERS)]
        axes.plot(ratios, spread, marker, color=colour, markersize=4.6, alpha=0.6, markeredgewidth=0)
    low, high = axes.get_xlim()
    ticks = [ratio for ratio in (WIDE_RATIOS if high > WIDE * low else RATIOS) if low <= ratio <= high]
    fixed_ticks(axes.xaxis, ticks, [show(ratio, "count") for ratio in ticks])
    axes.set_xlabel(f"predicted / published [1]; shaded: within {show(band, 'fraction')}")
    for row, (group, error) in enumerate(errors.items()):
        axes.annotate(
            f"{len(groups[group]):,} rows, mean error {show(error, 'fraction', 2)}", (1.0, row), (6, 0), va="center",
            xycoords=axes.get_yaxis_transform(), textcoords="offset points", fontsize=SMALL, annotation_clip=False,
        )  # fmt: skip
