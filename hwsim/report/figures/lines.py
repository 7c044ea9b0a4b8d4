"""Lines and fields: scaling, sweeps, distributions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hwsim.report.document import Figure
from hwsim.report.figures.values import Measure

Curve = Sequence[tuple[float, float]]


def scaling(
    name: str,
    title: str,
    lines: Mapping[str, Curve],
    x: Measure,
    y: Measure,
    caption: str = "",
) -> Figure:
    """`y` against devices on log axes with the ideal line of the first point, and the parallel efficiency below."""
    raise NotImplementedError


def sweep_lines(
    name: str,
    title: str,
    lines: Mapping[str, Curve],
    x: Measure,
    y: Measure,
    caption: str = "",
    log: tuple[bool, bool] = (False, False),
) -> Figure:
    """`y` against `x`, one line per name, labelled at its end; a point that is not finite breaks its line."""
    raise NotImplementedError


def sweep_heatmap(
    name: str,
    title: str,
    columns: Sequence[str],
    rows: Sequence[str],
    values: Sequence[Sequence[float]],
    measure: Measure,
    axes: tuple[str, str],
    caption: str = "",
    better: str = "less",
) -> Figure:
    """`measure` over two axes (`values[row][column]`), written in the cells; not finite is drawn as infeasible."""
    raise NotImplementedError


def latency_cdf(
    name: str,
    title: str,
    samples: Mapping[str, Sequence[float]],
    caption: str = "",
    measure: Measure = Measure("Latency", "s"),
    target: float | None = None,
) -> Figure:
    """Share of requests served within a time, one curve per name, with the target and p50, p90, p99."""
    raise NotImplementedError
