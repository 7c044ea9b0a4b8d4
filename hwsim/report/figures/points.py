"""Points: plans in the plane, operators under the roofline, predictions against measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hwsim.report.document import Figure
from hwsim.report.figures.values import Measure, Operator, Point


def roofline(
    name: str,
    title: str,
    operators: Sequence[Operator],
    peaks: Mapping[str, float],
    memories: Mapping[str, float],
    caption: str = "",
) -> Figure:
    """Operators by intensity and speed under the peaks (FLOP/s by format) and memories (byte/s by name)."""
    raise NotImplementedError


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
    raise NotImplementedError


def accuracy_strip(
    name: str,
    title: str,
    groups: Mapping[str, Sequence[float]],
    caption: str = "",
    band: float = 0.1,
) -> Figure:
    """Predicted over published, a dot per row, a strip per group, the band of small errors shaded."""
    raise NotImplementedError
