"""The scoreboard for people: groups, rows that are off, and a picture of predicted against published."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim.report.plan import simple_table
from hwsim.report.style import COLOURS, MARKERS

if TYPE_CHECKING:
    from hwsim.validation.kernels import KernelErrors
    from hwsim.validation.published import Group, Row, Scoreboard

OFF = 0.25
"""Rows further off than this are listed."""
MOST_ROWS = 12


def view(board: Scoreboard, kernels: Sequence[KernelErrors], every_row: bool) -> list[Any]:
    """Kernels and collectives out of sample, groups of published runs, and the rows that are off."""
    off = sorted((row for row in board.rows if abs(row.error) > OFF), key=lambda row: -abs(row.error))
    shown = board.rows if every_row else off[:MOST_ROWS]
    more = "" if every_row or len(off) <= MOST_ROWS else f" (the worst {MOST_ROWS} of {len(off)}; --rows lists all)"
    reasons = [f"{group.name}: {group.why}" for group in board.groups if group.why]
    return [
        "[bold]Published runs[/bold]. Training: mean error per group, every source counted alike (left out: with "
        "constants chosen without the source). Serving: median error of every source, model and device, their mean",
        simple_table([group_line(group) for group in board.groups]),
        *(["[bold]Kernels and collectives[/bold], on shapes left out of the fit", kernel_table(kernels)]
          if kernels else []),
        *(["[bold]What is missing[/bold]", *reasons] if reasons else []),
        *([f"\n[bold]{'Rows' if every_row else f'Rows off by more than {OFF:.0%}'}[/bold]{more}",
           simple_table([row_line(row) for row in shown])] if shown else []),
    ]  # fmt: skip


def group_line(group: Group) -> dict[str, str]:
    """One group in a line of the table."""
    return {
        "group": group.name,
        "rows": str(group.rows),
        "sources": str(group.sources),
        "mean": f"{group.mean:.1%}",
        "left out": "" if group.left_out is None else f"{group.left_out:.1%}",
        "median": f"{group.median:.1%}",
        "worst": f"{group.worst:.0%}",
        "bias": f"{group.bias:+z.1%}",
        "in band": f"{group.coverage:.0%}",
        "tolerance": f"{group.tolerance:.1%}",
        "holds": "yes" if group.holds else "NO",
    }


def kernel_table(kernels: Sequence[KernelErrors]) -> Any:
    """Fits by kind: worst and mean of the devices' medians."""
    return simple_table(
        [
            {
                "kernel": kind.name,
                "devices": str(kind.devices),
                "rows": f"{kind.rows:,}",
                "median": f"{kind.median:.1%}",
                "90th percentile": f"{kind.p90:.1%}",
                "worst device": f"{kind.worst:.1%} ({kind.worst_device})",
            }
            for kind in kernels
        ]
    )


def row_line(row: Row) -> dict[str, str]:
    """One row in a line of the table."""
    given = row.fact.given
    sizes = " ".join(f"{axis}{given[axis]}" for axis in ("tp", "pp", "cp") if given.get(axis, 1) > 1) or "dp"
    name = row.fact.model if isinstance(row.fact.model, str) else row.fact.model["name"]
    return {
        "id": row.fact.id,
        "model": name,
        "on": f"{row.fact.devices} {row.fact.hardware}",
        "split": sizes,
        "metric": row.fact.metric.removesuffix("_per_device"),
        "error": f"{row.error:+z.0%}",
        "note": row.fact.note,
    }


TICKS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 2.5)
WIDE, WIDE_TICKS = 10.0, (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.7, 1.0, 1.4, 2.0, 5.0, 10.0, 20.0, 50.0)
"""From this spread on fewer marks have room."""


def plot(board: Scoreboard, path: Path) -> None:
    """Draw predicted over published, row by row, in one band per group, and save it."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    from hwsim.validation.published import seconds_ratio

    figure, axes = plt.subplots(figsize=(9, 0.62 * len(board.groups) + 1.6), layout="constrained")
    for place, group in enumerate(reversed(board.groups)):
        ratios = [seconds_ratio(row) for row in board.rows if row.fact.group == group.name]
        spread = [place + 0.3 * ((7 * i) % 11 / 10 - 0.5) for i in range(len(ratios))]
        colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
        axes.scatter(ratios, spread, s=14, color=colour, marker=marker, alpha=0.6, linewidths=0)
    axes.axvspan(0.9, 1.1, color="#999999", alpha=0.2, label="within 10 %")
    axes.axvline(1.0, color="black", linewidth=0.8)
    labels = [f"{group.name}\n{group.rows} rows, mean error {group.mean:.0%}" for group in reversed(board.groups)]
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.set_xscale("log")
    every = [seconds_ratio(row) for row in board.rows]
    wide = max(*every, 1.0) > WIDE * min(*every, 1.0)
    ticks = [tick for tick in (WIDE_TICKS if wide else TICKS) if 0.9 * min(every) <= tick <= 1.1 * max(every)]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], fontsize=8)
    axes.set_xticks([], minor=True)
    axes.set_xlim(0.95 * min(0.9, *every), 1.05 * max(1.1, *every))
    axes.set_xlabel("predicted / published time, memory or power (rates turned round)")
    inside = sum(abs(ratio - 1.0) <= 0.1 for ratio in every) / len(every)
    axes.set_title(f"{inside:.0%} of {len(board.rows)} published figures are predicted within 10 %", fontsize=11)
    axes.legend(loc="lower right", fontsize=8, frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)
