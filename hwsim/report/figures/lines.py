"""Lines: scaling, sweeps, distributions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from hwsim.report.document import Figure, Value
from hwsim.report.figures.axes import (
    WIDTH,
    fixed_ticks,
    keys_beside,
    linear_limits,
    log_limits,
    mark,
    measure_axis,
)
from hwsim.report.figures.values import Measure, said
from hwsim.report.style import MARKERS, SMALL, Theme
from hwsim.units import show

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

Curve = Sequence[tuple[float, float]]
Curves = Mapping[str, Curve]
LATENCY = Measure("Latency", "s")
EFFICIENCY = Measure("Efficiency", "fraction")
ORDER = (0, 1, 2, 3, 4, 5, 8, 7, 9, 6)
"""Colours of the series in the order of lines."""
MOST_QUANTILES = 100
WIDE = 20.0
"""From this ratio of the largest to the smallest on, an axis of latencies is logarithmic."""
PERCENTILES = (0.5, 0.9, 0.99)
MOST_EXACT = 100_000
MOST_MARKED = 40
"""Points that are marked one by one, with a text under the pointer; a line of more is a line alone."""
MOST_DIRECT = 9
"""Values of `x` that get a tick of their own."""


def scaling(
    name: str,
    title: str,
    lines: Curves,
    x: Measure,
    y: Measure,
    caption: str = "",
) -> Figure:
    """`y` against devices on log axes with the ideal line of the first point, and the parallel efficiency below."""
    curves = {key: _positive(curve) for key, curve in lines.items()}
    efficiency = {
        key: [(size, _efficiency(curve, i)) for i, (size, _) in enumerate(curve)] for key, curve in curves.items()
    }
    told = [
        f"{key} {EFFICIENCY.text(curve[-1][1])} at {x.text(curve[-1][0])}" for key, curve in efficiency.items() if curve
    ]
    data: list[dict[str, Value]] = [
        {"line": key, x.column: size, y.column: value, "efficiency": efficiency[key][i][1]}
        for key, curve in curves.items()
        for i, (size, value) in enumerate(curve)
    ]
    hover = [
        f"{key}, {x.text(size)}: {y.text(value)}, efficiency {EFFICIENCY.text(efficiency[key][i][1])}"
        for key, curve in curves.items()
        for i, (size, value) in enumerate(curve)
    ]
    return Figure(
        name=name, title=title, caption=caption, alt=f"{y.name} against {x.name}; efficiency: {said(told)}.",
        size=(WIDTH, 4.7), draw=partial(_draw_scaling, curves, efficiency, x, y), data=tuple(data), hover=tuple(hover),
    )  # fmt: skip


def _draw_scaling(curves: Curves, efficiency: Curves, x: Measure, y: Measure, canvas: Canvas, theme: Theme) -> None:
    upper, lower = canvas.subplots(2, 1, sharex=True, height_ratios=(2.4, 1))
    sizes = [size for curve in curves.values() for size, _ in curve]
    values = [value for curve in curves.values() for _, value in curve]
    for axes in (upper, lower):
        axes.grid(True)
        axes.set_xscale("log")
    ideals = [(curve[0], max(size for size, _ in curve)) for curve in curves.values() if len(curve) > 1]
    for (start, value), last in ideals:
        upper.plot([start, last], [value, value * last / start], "--", color=theme.muted, linewidth=1.0)
    upper.set_yscale("log")
    upper.set_xlim(*log_limits(sizes))
    upper.set_ylim(*log_limits([*values, *(value * last / start for (start, value), last in ideals)]))
    colours = _draw_curves(upper, curves, theme, True)
    _draw_curves(lower, efficiency, theme, False)
    lower.axhline(1.0, color=theme.muted, linestyle="--", linewidth=1.0)
    lower.set_ylim(0, max([1.0, *(value for curve in efficiency.values() for _, value in curve)]) * 1.08)
    measure_axis(upper.yaxis, y, log=True)
    measure_axis(lower.yaxis, EFFICIENCY)
    _size_axis(lower, x, sizes, True)
    upper.tick_params(axis="x", which="both", length=0)
    keys_beside(upper, {key: curve[-1] for key, curve in curves.items() if curve}, colours, 2.6)
    lower.text(1.012, 1.0, "ideal", transform=lower.get_yaxis_transform(), va="center", fontsize=SMALL)


def _efficiency(curve: Curve, place: int) -> float:
    """Speed per device against that of the smallest machine."""
    (first, base), (size, value) = curve[0], curve[place]
    return value / base * first / size


def _positive(curve: Curve) -> list[tuple[float, float]]:
    return [(a, b) for a, b in curve if a > 0 and b > 0 and math.isfinite(a * b)]


def sweep_lines(
    name: str,
    title: str,
    lines: Curves,
    x: Measure,
    y: Measure,
    caption: str = "",
    log: tuple[bool, bool] = (False, False),
) -> Figure:
    """`y` against `x`, one line per name, labelled at its end; a point that is not finite breaks its line."""
    points = [(key, a, b) for key, curve in lines.items() for a, b in curve if math.isfinite(a) and math.isfinite(b)]
    told = []
    for key in lines:
        own = [(a, b) for line, a, b in points if line == key]
        told += [f"{key} {y.text(own[0][1])} to {y.text(own[-1][1])}"] if own else [f"{key} without values"]
    return Figure(
        name=name, title=title, caption=caption, alt=f"{y.name} against {x.name}: {said(told)}.",
        size=(WIDTH, 3.6), draw=partial(_draw_sweep, lines, x, y, log),
        data=tuple({"line": key, x.column: a, y.column: b} for key, curve in lines.items() for a, b in curve),
        hover=tuple(
            f"{key}, {x.text(a)}: {y.text(b)}" for key, a, b in points if len(lines[key]) <= MOST_MARKED
        ),
    )  # fmt: skip


def _draw_sweep(lines: Curves, x: Measure, y: Measure, log: tuple[bool, bool], canvas: Canvas, theme: Theme) -> None:
    axes = canvas.subplots()
    axes.grid(True)
    finite = [(a, b) for curve in lines.values() for a, b in curve if math.isfinite(a) and math.isfinite(b)]
    across, up = [a for a, _ in finite], [b for _, b in finite]
    for wanted, scale, limit, values in (
        (log[0], axes.set_xscale, axes.set_xlim, across),
        (log[1], axes.set_yscale, axes.set_ylim, up),
    ):
        if wanted:
            scale("log")
        limit(*(log_limits(values) if wanted else linear_limits(values, zero=values is up)))
    colours = _draw_curves(axes, lines, theme, True)
    _size_axis(axes, x, across, log[0])
    measure_axis(axes.yaxis, y, log[1])
    ends = {
        key: next(((a, b) for a, b in reversed(curve) if math.isfinite(b)), (math.nan, 0.0))
        for key, curve in lines.items()
    }
    if len(lines) > 1:
        keys_beside(axes, ends, colours, 2.75)


def _draw_curves(axes: Axes, lines: Curves, theme: Theme, marked: bool) -> list[str]:
    """Lines with a mark at every point; their colours."""
    colours = [theme.series[ORDER[i % len(ORDER)]] for i in range(len(lines))]
    place = 0
    for i, curve in enumerate(lines.values()):
        good = [(a, b if math.isfinite(b) else math.nan) for a, b in curve]
        axes.plot([a for a, _ in good], [b for _, b in good], color=colours[i], solid_joinstyle="round")
        for a, b in curve if len(curve) <= MOST_MARKED else ():
            if math.isfinite(a) and math.isfinite(b):
                (dot,) = axes.plot([a], [b], MARKERS[i % len(MARKERS)], color=colours[i], markersize=5)
                if marked:
                    mark(dot, place)
                place += 1
    return colours


def _size_axis(axes: Axes, x: Measure, values: Sequence[float], log: bool) -> None:
    """An axis with a tick at every value if they are few."""
    own = sorted(set(values))
    measure_axis(axes.xaxis, x, log)
    if log and 1 < len(own) <= MOST_DIRECT:
        fixed_ticks(axes.xaxis, own, [_exact(value, x) for value in own])


def _exact(value: float, x: Measure) -> str:
    """A count as it is, if it is short."""
    whole = x.dimension == "count" and value == round(value) and value < MOST_EXACT
    return f"{value:,.0f}" if whole else show(value, x.dimension)


def latency_cdf(
    name: str,
    title: str,
    samples: Mapping[str, Sequence[float]],
    caption: str = "",
    measure: Measure = LATENCY,
    target: float | None = None,
) -> Figure:
    """Share of requests served within a time, one curve per name, with the target and p50, p90, p99."""
    curves = {key: quantiles(values) for key, values in samples.items()}
    found = {key: [_at(curve, share) for share in PERCENTILES] for key, curve in curves.items()}
    texts = {
        key: [f"p{100 * p:.0f} {measure.text(v)}" for p, v in zip(PERCENTILES, found[key], strict=True)]
        for key in found
    }
    told = said(f"{key} {', '.join(parts)}" for key, parts in texts.items())
    data: list[dict[str, Value]] = [
        {"line": key, measure.column: value, "share": share} for key, curve in curves.items() for value, share in curve
    ]
    return Figure(
        name=name, title=title, caption=caption, alt=f"Distribution of {measure.name}: {told}.",
        size=(WIDTH, 3.6), draw=partial(_draw_cdf, curves, found, measure, target), data=tuple(data),
        hover=tuple(f"{key}: {part}" for key, parts in texts.items() for part in parts),
    )  # fmt: skip


def quantiles(values: Sequence[float]) -> list[tuple[float, float]]:
    """Values and the share of samples up to each, at most `MOST_QUANTILES` of them."""
    ordered = sorted(value for value in values if math.isfinite(value))
    count = len(ordered)
    kept = min(count, MOST_QUANTILES)
    places = sorted({-(-(i + 1) * count // kept) - 1 for i in range(kept)})
    return [(ordered[place], (place + 1) / count) for place in places]


def _at(curve: Curve, share: float) -> float:
    return next((value for value, up_to in curve if up_to >= share - 1e-12), math.nan)


def _draw_cdf(
    curves: Curves, found: Mapping[str, Sequence[float]], measure: Measure, target: float | None,
    canvas: Canvas, theme: Theme,
) -> None:  # fmt: skip
    axes = canvas.subplots()
    axes.grid(True)
    times = [value for curve in curves.values() for value, _ in curve] + ([target] if target else [])
    log = min(times, default=0.0) > 0 and max(times) > WIDE * min(times)
    axes.set_xscale("log" if log else "linear")
    axes.set_xlim(*(log_limits(times) if log else linear_limits(times)))
    axes.set_ylim(0, 1.04)
    colours = [theme.series[ORDER[i % len(ORDER)]] for i in range(len(curves))]
    for i, (key, curve) in enumerate(curves.items()):
        axes.plot([v for v, _ in curve], [share for _, share in curve], color=colours[i])
        for j, (share, value) in enumerate(zip(PERCENTILES, found[key], strict=True)):
            (dot,) = axes.plot([value], [share], "o", color=colours[i], markersize=5)
            mark(dot, len(PERCENTILES) * i + j)
    measure_axis(axes.xaxis, measure, log)
    measure_axis(axes.yaxis, Measure("Share of requests", "fraction"))
    if target is not None:
        axes.axvline(target, color=theme.ink, linestyle="--", linewidth=1.1)
        axes.annotate(
            f"target {measure.text(target)}", (target, 1.04), (0, 3), textcoords="offset points", ha="center",
            va="bottom", fontsize=SMALL, annotation_clip=False,
        )  # fmt: skip
    notes = [f"p50 {measure.text(half)}, p99 {measure.text(most)}" for half, _, most in found.values()]
    keys_beside(axes, {key: (half, 0.5) for key, (half, _, _) in found.items()}, colours, 2.75, notes)
