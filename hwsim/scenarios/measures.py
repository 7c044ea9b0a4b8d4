"""What a question's answer is measured by: names, units, which way is better, and how each is read off an answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hwsim.errors import UsageError, did_you_mean, shorten
from hwsim.units import DAY_S, parse, show

Values = Mapping[str, Any]
LARGEST = 1e100
"""Of a bound."""


@dataclass(frozen=True)
class Measure:
    """One figure of an answer."""

    name: str
    """As files say it."""
    key: str
    """In JSON, with its unit."""
    title: str
    dimension: str
    """As `hwsim.units.show` writes it."""
    rises: bool
    """Whether more is better."""
    of: Callable[[Values], float | None]
    """The figure in the values of a training or an inference estimate, and of its bill; None where it has none."""

    def shown(self, value: float | None) -> str:
        """The figure for a person."""
        if value is None or not math.isfinite(value):
            return "n/a"
        if self.dimension == "days":
            return show(value * DAY_S, "s")
        return f"{value:,.0f}" if self.dimension == "whole" else show(value, self.dimension)

    def moved(self, base: float, value: float) -> str:
        """A change for a person: in points for a fraction, else relative, large ones as a multiple."""
        if self.dimension == "fraction":
            said = f"{100.0 * (value - base):+.1f} pt"
        else:
            change = value / base - 1.0 if base else 0.0
            said = f"×{change + 1.0:,.0f}" if change > 9.0 else f"{change:+.0%}"
        return said.replace("-", "−")


def _at(*path: str) -> Callable[[Values], float | None]:
    """The figure at a path of the values."""

    def read(values: Values) -> float | None:
        found: Any = values
        for part in path:
            found = found.get(part) if isinstance(found, Mapping) else None
        return None if found is None else float(found)

    return read


def _first(*readers: Callable[[Values], float | None]) -> Callable[[Values], float | None]:
    """The first figure that is there."""

    def read(values: Values) -> float | None:
        return next((found for reader in readers if (found := reader(values)) is not None), None)

    return read


_ALL = (
    Measure("step_time", "step_time_s", "step time", "s", False, _at("step_time_s")),
    Measure("tokens_per_s", "tokens_per_s", "tokens/s", "count", True, _at("tokens_per_s")),
    Measure("mfu", "mfu", "MFU", "fraction", True, _at("mfu")),
    Measure("days", "days", "days", "days", False, _at("days")),
    Measure("ttft", "ttft_s", "TTFT", "s", False, _first(_at("promised", "ttft_s"), _at("ttft_s"))),
    Measure("tpot", "tpot_s", "TPOT", "s", False, _first(_at("promised", "tpot_s"), _at("tpot_s"))),
    Measure(
        "output_tokens_per_s", "output_tokens_per_s", "output tokens/s", "count", True,
        _first(_at("deployment", "output_tokens_per_s"), _at("output_tokens_per_s")),
    ),
    Measure(
        "output_tokens_per_s_per_device", "output_tokens_per_s_per_device", "tokens/s a device", "count", True,
        _first(_at("deployment", "output_tokens_per_s_per_device"), _at("output_tokens_per_s_per_device")),
    ),
    Measure("devices", "devices", "devices", "whole", False, _at("hardware", "devices")),
    Measure(
        "memory", "memory_bytes", "memory a device", "bytes", False,
        _first(_at("memory_reserved_bytes"), _at("memory_allocated_bytes")),
    ),
    Measure("cost", "cost_usd", "rent", "usd", False, _at("run", "cost_usd")),
    Measure("owned_cost", "owned_cost_usd", "cost if owned", "usd", False, _at("run", "owned_cost_usd")),
    Measure("energy", "energy_j", "energy", "j", False, _at("run", "energy_j")),
    Measure("carbon", "carbon_kg", "carbon", "kg", False, _at("run", "carbon_kg")),
    Measure("power", "power_w", "power", "w", False, _at("run", "power_w")),
)  # fmt: skip
MEASURES: Mapping[str, Measure] = {measure.name: measure for measure in _ALL}
"""Measures by the name that files use."""


def measured(values: Values) -> dict[str, float]:
    """The figures that an answer has, by name."""
    found = {name: measure.of(values) for name, measure in MEASURES.items()}
    return {name: value for name, value in found.items() if value is not None and math.isfinite(value)}


def measure_named(name: str) -> Measure:
    """A measure by its name, or by its key with the unit.

    Raises
    ------
    UsageError
        With the nearest names.
    """
    keys = {measure.key: known for known, measure in MEASURES.items()}
    found = MEASURES.get(keys.get(name, name))
    if found is None:
        hint = did_you_mean(name, MEASURES) or f" (known: {', '.join(MEASURES)})"
        msg = f"{shorten(name)} is no measure{hint}"
        raise UsageError(msg)
    return found


def bound(measure: Measure, value: Any) -> float:
    """A bound as a number in SI: a plain number, 5M, or a quantity with its unit.

    Raises
    ------
    UsageError
        For anything else.
    """
    number = _number(measure, value)
    if not math.isfinite(number):
        msg = f"a bound must be a finite number, not {shorten(value)}"
        raise UsageError(msg)
    return number


def _number(measure: Measure, value: Any) -> float:
    """A bound as files write it."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if abs(value) < LARGEST else math.nan
    said = ""
    for way in ("count", "s" if measure.dimension == "days" else measure.dimension):
        try:
            number = parse(str(value), "count" if way == "whole" else way)
            return number / DAY_S if way == "s" and measure.dimension == "days" else number
        except ValueError as error:
            said = str(error)
    raise UsageError(said)
