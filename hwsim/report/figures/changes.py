"""Changes and their ranges: sensitivity, scenarios against a base, low-expected-high."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from hwsim.report.document import Figure
from hwsim.report.figures.values import Range

Better = Literal["less", "more"]


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
    raise NotImplementedError


def ranges(name: str, title: str, rows: Sequence[Range], caption: str = "") -> Figure:
    """Low, expected and high as bars; rows of one measure share an axis, each measure has its panel."""
    raise NotImplementedError


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
    raise NotImplementedError
