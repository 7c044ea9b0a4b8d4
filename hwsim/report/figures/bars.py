"""Bars: memory against capacity, the parts of a step, traffic by tier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hwsim.report.document import Figure
from hwsim.report.figures.values import Measure


def memory_bars(
    name: str,
    title: str,
    plans: Mapping[str, Mapping[str, float]],
    capacity_bytes: float | Mapping[str, float],
    caption: str = "",
) -> Figure:
    """Stacked parts of memory, one bar per plan, against the capacity (one for all, or one per plan)."""
    raise NotImplementedError


def time_waterfall(
    name: str,
    title: str,
    parts: Mapping[str, float],
    caption: str = "",
    measure: Measure = Measure("Time", "s"),
) -> Figure:
    """Parts of a step, each beginning where the one before ends, down to their total."""
    raise NotImplementedError


def traffic_bars(
    name: str,
    title: str,
    tiers: Mapping[str, Mapping[str, float]],
    caption: str = "",
    measure: Measure = Measure("Sent per device and step", "bytes"),
) -> Figure:
    """Bytes on every tier of the machine, stacked by what sends them (tensor, pipeline, data, ...)."""
    raise NotImplementedError
