"""Bars: memory against capacity, the parts of a step, traffic by tier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING

from hwsim.report.document import Figure, Value
from hwsim.report.figures.axes import (
    MOST_PARTS,
    STACK,
    WIDTH,
    beside,
    linear_limits,
    mark,
    measure_axis,
    rows_axes,
    swatches,
    zero_line,
)
from hwsim.report.figures.values import Measure, said
from hwsim.report.style import SMALL, Theme
from hwsim.units import show

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

OTHER = "other"
TINY = 0.003
"""Parts of a step below this share are drawn together."""
LEAST_SHARE = 0.001
ROOM = 0.055
"""A part that takes this share of the axis has its number written on it."""
MEMORY = Measure("Memory per device", "bytes")
TIME = Measure("Time", "s")
TRAFFIC = Measure("Sent per device and step", "bytes")
Stacks = Mapping[str, Mapping[str, float]]


def memory_bars(
    name: str,
    title: str,
    plans: Stacks,
    capacity_bytes: float | Mapping[str, float],
    caption: str = "",
) -> Figure:
    """Stacked parts of memory, one bar per plan, against the capacity (one for all, or one per plan)."""
    stacks = folded(plans)
    limits = {
        plan: capacity_bytes if isinstance(capacity_bytes, int | float) else capacity_bytes[plan] for plan in plans
    }
    totals = {plan: sum(parts.values()) for plan, parts in plans.items()}
    sums = [f"{plan} needs {MEMORY.text(totals[plan])} of {MEMORY.text(limits[plan])}" for plan in plans]
    data: list[dict[str, Value]] = [
        {"plan": plan, "part": part, MEMORY.column: value, "capacity [byte]": limits[plan]}
        for plan, parts in plans.items()
        for part, value in parts.items()
    ]
    return Figure(
        name=name, title=title, caption=caption, alt=f"Memory by part, one bar per plan: {said(sums)}.",
        size=(WIDTH, 0.44 * len(plans) + 1.35), draw=partial(_draw_memory, stacks, limits, totals), data=tuple(data),
        hover=_stack_hover(stacks, MEMORY),
    )  # fmt: skip


def _draw_memory(
    stacks: Stacks, limits: Mapping[str, float], totals: Mapping[str, float], canvas: Canvas, theme: Theme
) -> None:
    axes = canvas.subplots()
    _prepare(axes, list(stacks), [*limits.values(), *totals.values()], MEMORY, theme)
    swatches(axes, draw_stacks(axes, stacks, MEMORY, theme), 2.2)
    for row, plan in enumerate(stacks):
        limit, total = limits[plan], totals[plan]
        half = 0.5 if len(set(limits.values())) == 1 else 0.44
        axes.plot([limit, limit], [row - half, row + half], color=theme.ink, linewidth=1.6, solid_capstyle="butt")
        over = total > limit
        text = f"{MEMORY.text(total - limit)} too much" if over else f"{show(total / limit, 'fraction', 2)} full"
        place = (max(axes.get_xlim()), row)
        beside(axes, f"{MEMORY.text(total)}, {text}", place, 1, theme.bad if over else theme.ink)
    first = next(iter(limits.values()), 0.0)
    same = len(set(limits.values())) == 1
    label = f"capacity {MEMORY.text(first)}" if same else "capacity of each"
    axes.annotate(
        label, (first, -0.5), (0, 3), textcoords="offset points", ha="center", va="bottom", fontsize=SMALL,
        annotation_clip=False,
    )  # fmt: skip


def time_waterfall(
    name: str,
    title: str,
    parts: Mapping[str, float],
    caption: str = "",
    measure: Measure = TIME,
) -> Figure:
    """Parts of a step, each beginning where the one before ends, down to their total."""
    total = sum(parts.values())
    kept = {part: value for part, value in parts.items() if abs(value) >= TINY * abs(total)}
    rest = total - sum(kept.values())
    kept |= {OTHER: kept.get(OTHER, 0.0) + rest} if abs(rest) > 1e-9 * abs(total) else {}
    shares = {
        part: f"{measure.text(value)}, {_share(value, total)}".replace("-", "\u2212") for part, value in kept.items()
    }
    told = said(f"{part} {text}" for part, text in shares.items())
    return Figure(
        name=name, title=title, caption=caption,
        alt=f"Parts of a total of {measure.text(total)}, one after the other: {told}.",
        size=(WIDTH, 0.31 * (len(kept) + 1) + 0.75), draw=partial(_draw_waterfall, kept, shares, total, measure),
        data=tuple({"part": part, measure.column: value} for part, value in parts.items()),
        hover=tuple(f"{part}: {text}" for part, text in shares.items()),
    )  # fmt: skip


def _draw_waterfall(
    parts: Mapping[str, float], shares: Mapping[str, str], total: float, measure: Measure, canvas: Canvas, theme: Theme
) -> None:
    axes = canvas.subplots()
    _prepare(axes, [*parts, "total"], [total, *accumulate(parts.values())], measure, theme)
    start = 0.0
    for row, (part, value) in enumerate(parts.items()):
        (bar,) = axes.barh(row, value, left=start, height=0.66, color=theme.series[0 if value >= 0 else 2])
        mark(bar, row)
        start += value
        axes.plot([start, start], [row - 0.33, row + 1.33], color=theme.muted, linewidth=0.6)
        beside(axes, shares[part], (max(start, start - value), row), 1, theme.ink)
    axes.barh(len(parts), total, height=0.66, color=theme.muted)
    beside(axes, measure.text(total), (total, len(parts)), 1, theme.ink)


def traffic_bars(
    name: str,
    title: str,
    tiers: Stacks,
    caption: str = "",
    measure: Measure = TRAFFIC,
) -> Figure:
    """Bytes on every tier of the machine, stacked by what sends them (tensor, pipeline, data, ...)."""
    stacks = folded(tiers)
    totals = {tier: sum(kinds.values()) for tier, kinds in tiers.items()}
    told = said(f"{tier} {measure.text(total)}" for tier, total in totals.items())
    data: list[dict[str, Value]] = [
        {"tier": tier, "kind": kind, measure.column: value}
        for tier, kinds in tiers.items()
        for kind, value in kinds.items()
    ]
    return Figure(
        name=name, title=title, caption=caption, alt=f"{measure.name} by tier: {told}.",
        size=(WIDTH, 0.44 * len(tiers) + (1.15 if _parts(stacks) > 1 else 0.85)),
        draw=partial(_draw_traffic, stacks, totals, measure), data=tuple(data),
        hover=_stack_hover(stacks, measure),
    )  # fmt: skip


def _draw_traffic(stacks: Stacks, totals: Mapping[str, float], measure: Measure, canvas: Canvas, theme: Theme) -> None:
    axes = canvas.subplots()
    _prepare(axes, list(stacks), list(totals.values()), measure, theme)
    colours = draw_stacks(axes, stacks, measure, theme, numbers=_parts(stacks) > 1)
    if len(colours) > 1:
        swatches(axes, colours)
    for row, total in enumerate(totals.values()):
        beside(axes, measure.text(total), (total, row), 1, theme.ink)


def folded(stacks: Stacks) -> dict[str, dict[str, float]]:
    """Stacks of the largest parts in their order, what does not get a colour of its own together as the last."""
    names = list(dict.fromkeys(part for parts in stacks.values() for part in parts))
    sizes = {name: max(parts.get(name, 0.0) for parts in stacks.values()) for name in names}
    names = [name for name in names if sizes[name] > 0]
    if len(names) > MOST_PARTS:
        largest = sorted(names, key=lambda name: -sizes[name])[: MOST_PARTS - 1]
        names = [name for name in names if name in largest]
    kept = {row: {name: parts.get(name, 0.0) for name in names} for row, parts in stacks.items()}
    rest = {row: sum(stacks[row].values()) - sum(parts.values()) for row, parts in kept.items()}
    if any(value > 1e-9 * sum(stacks[row].values()) for row, value in rest.items()):
        kept = {row: {**parts, OTHER: parts.get(OTHER, 0.0) + rest[row]} for row, parts in kept.items()}
    return kept


def _parts(stacks: Stacks) -> int:
    """How many kinds of parts there are."""
    return len({part for parts in stacks.values() for part in parts})


def draw_stacks(axes: Axes, stacks: Stacks, measure: Measure, theme: Theme, numbers: bool = True) -> dict[str, str]:
    """Bars of parts with their numbers where there is room; the colour of each part."""
    names = list(dict.fromkeys(part for parts in stacks.values() for part in parts))
    width = max(axes.get_xlim())
    size, _ = measure.scale(width)
    place = 0
    for row, parts in enumerate(stacks.values()):
        start = 0.0
        for part, value in parts.items():
            series = STACK[names.index(part) % len(STACK)]
            (bar,) = axes.barh(
                row, value, left=start, height=0.66, color=theme.series[series], edgecolor=theme.paper, linewidth=0.8
            )
            mark(bar, place)
            place += 1
            if numbers and value > ROOM * width:
                where, text = start + value / 2, show(value / size, "count")
                axes.text(where, row, text, ha="center", va="center", fontsize=SMALL, color=theme.on[series])
            start += value
    return {name: theme.series[STACK[i % len(STACK)]] for i, name in enumerate(names)}


def _prepare(axes: Axes, names: Sequence[str], values: Sequence[float], measure: Measure, theme: Theme) -> None:
    """Rows with names over an axis from zero that holds the values."""
    rows_axes(axes, names, theme)
    axes.set_xlim(*linear_limits(values, 0.02))
    measure_axis(axes.xaxis, measure)
    zero_line(axes, theme)


def _stack_hover(stacks: Stacks, measure: Measure) -> tuple[str, ...]:
    return tuple(
        f"{row}: {part} {measure.text(value)}" for row, parts in stacks.items() for part, value in parts.items()
    )


def _share(value: float, total: float) -> str:
    share = value / total if total else 0.0
    return "<0.1%" if 0 < share < LEAST_SHARE else show(share, "fraction", 2)
