"""What figures are made of: measures (a name and a unit), points, ranges, operators."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from hwsim.units import scales, show

SI = {
    "bytes": "byte", "bytes_per_s": "byte/s", "flops_per_s": "FLOP/s", "flops": "FLOP", "s": "s", "w": "W", "j": "J",
    "hz": "Hz", "usd": "USD", "usd_per_s": "USD/s", "days": "days", "kg": "kg",
}  # fmt: skip
"""Units of the numbers in a figure's data."""
MOST_SAID = 12
"""Things named in a description."""


@dataclass(frozen=True)
class Measure:
    """What an axis shows: a name and either a dimension of `hwsim.units` or a count of some unit.

    Examples
    --------
    >>> Measure("Memory", "bytes").text(80 * 2**30), Measure("Speed", unit="tokens/s").text(1234)
    ('80 GiB', '1.23k tokens/s')
    """

    name: str
    dimension: str = "count"
    unit: str = ""

    def text(self, value: float, digits: int = 3) -> str:
        """A value for a person, with its unit; ``n/a`` if it is none."""
        shown = show(value, self.dimension, digits)
        return f"{shown} {self.unit}" if self.unit and math.isfinite(value) else shown

    @property
    def column(self) -> str:
        """Name and SI unit, heading the numbers in a figure's data."""
        unit = self.unit or SI.get(self.dimension, "")
        return f"{self.name} [{unit}]" if unit else self.name

    def scale(self, largest: float) -> tuple[float, str]:
        """The unit, and its size in SI, in which an axis up to a value reads best; counts and shares say it by tick."""
        if self.dimension in ("count", "fraction"):
            return 1.0, self.unit
        steps = scales(self.dimension)
        size, symbol = next((step for step in steps if abs(largest) >= step[0]), steps[-1])
        return size, symbol.strip()


@dataclass(frozen=True)
class Point:
    """A plan in the plane."""

    name: str
    x: float
    y: float
    best: bool = False
    """On the Pareto front: the front is drawn through these."""
    chosen: bool = False
    """The one the report is about."""


@dataclass(frozen=True)
class Range:
    """A low, an expected and a high value of something."""

    name: str
    low: float
    expected: float
    high: float
    measure: Measure


@dataclass(frozen=True)
class Operator:
    """A kernel under the roofline: FLOPs per byte, FLOP/s reached, and its share of the time."""

    name: str
    flops_per_byte: float
    flops_per_s: float
    share: float
    bound: str = ""
    """What limits it."""


def said(parts: Iterable[str]) -> str:
    """The first of many things, and how many more there are, for a description.

    Examples
    --------
    >>> said(str(i) for i in range(14))
    '0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 2 more'
    """
    every = list(parts)
    more = len(every) - MOST_SAID
    return ", ".join(every[:MOST_SAID]) + (f" and {more:,} more" if more > 0 else "")


def percent(change: float) -> str:
    """A relative change with its sign: two digits, three above 100 %, a multiple above 900 %.

    Examples
    --------
    >>> percent(-0.0512), percent(0.0), percent(0.283), percent(12.34)
    ('−5.1%', '0%', '+28%', '×13')
    """
    if not math.isfinite(change):
        return "n/a"
    if change > 9.0:
        return f"×{change + 1.0:,.0f}"
    return f"{'+' if change > 0 else ''}{show(100 * change, 'count', 2 if abs(change) < 0.995 else 3)}%".replace(
        "-", "\u2212"
    )
