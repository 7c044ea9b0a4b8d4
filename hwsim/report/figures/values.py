"""What figures are made of: measures (a name and a unit), points, ranges, operators."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hwsim.units import show


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
