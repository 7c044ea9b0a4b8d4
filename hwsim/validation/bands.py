"""Bands from the residuals of the scoreboard: what share of runs like this lies how far from the prediction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from hwsim.specs.bands import EVERYTHING, Band, family_names
from hwsim.specs.library import load_framework, load_hardware, load_model
from hwsim.validation.facts import MEMORY
from hwsim.validation.published import Row, seconds_ratio

TAIL = 0.1
"""Share of runs left out at either end."""
FEWEST_GROUPS = 3
FEWEST_ROWS = 8
LEAST = 0.03
"""No band is narrower than this to either side: runs repeat no better."""
Column = npt.NDArray[np.float64]
Residuals = list[Column]
"""Published over predicted, one array per group (source and model)."""


def derive_bands(rows: Sequence[Row]) -> dict[str, Band]:
    """Bands of every family with enough runs, from the rows of a scoreboard."""
    pooled: dict[str, dict[tuple[str, str], list[float]]] = {}
    for row in rows:
        if row.fact.metric in MEMORY or "framework" not in row.fact.given:
            continue
        model = row.fact.model if isinstance(row.fact.model, str) else row.fact.model["name"]
        for name in _families(row):
            pooled.setdefault(name, {}).setdefault((row.fact.source, model), []).append(1.0 / seconds_ratio(row))
    result = {}
    for name, groups in sorted(pooled.items()):
        residuals = [np.array(values) for values in groups.values()]
        count = sum(map(len, residuals))
        if (len(residuals) >= FEWEST_GROUPS and count >= FEWEST_ROWS) or name == EVERYTHING:
            low, high = interval(residuals)
            held = left_out_coverage(residuals)
            result[name] = Band(
                low=round(low, 3), high=round(high, 3), coverage=round(held, 2), rows=count, groups=len(residuals)
            )
    return result


def bands_file(rows: Sequence[Row]) -> str:
    """The bands as `hwsim/data/bands.yaml` has them."""
    lines = [
        "# Published over predicted step time, by family: made from the rows of `hwsim validate published` by its",
        "# --write-bands. coverage: share of a model's runs inside the band that is made without them.",
        f'date: "{datetime.now(UTC).date()}"',
        "families:",
    ]
    for name, band in derive_bands(rows).items():
        lines.append(
            f"  {name}: {{low: {band.low}, high: {band.high}, coverage: {band.coverage:.0%}, rows: {band.rows}, "
            f"groups: {band.groups}}}"
        )
    return "\n".join(lines) + "\n"


def _families(row: Row) -> Iterator[str]:
    device = load_hardware(row.fact.hardware).accelerator.family
    framework = load_framework(row.fact.given["framework"])
    experts = bool(load_model(row.fact.model).experts)
    for name in (framework.name, framework.kin):
        if name:
            yield from family_names(name, device, experts)[:-2]
    yield from family_names(framework.name, device, experts)[-2:]


def interval(residuals: Residuals) -> tuple[float, float]:
    """The ratios that leave `TAIL` of the runs out at either end, every group counted alike."""
    values = np.concatenate(residuals)
    weights = np.concatenate([np.full(len(group), 1.0 / len(group)) for group in residuals])
    order = np.argsort(values)
    places = (np.cumsum(weights[order]) - 0.5 * weights[order]) / weights.sum()
    low, high = np.interp((TAIL, 1.0 - TAIL), places, values[order])
    return min(float(low), 1.0 - LEAST), max(float(high), 1.0 + LEAST)


def left_out_coverage(residuals: Residuals) -> float:
    """Mean share of a group's runs inside the interval made without that group."""
    shares = []
    for left, group in enumerate(residuals):
        low, high = interval([other for place, other in enumerate(residuals) if place != left])
        shares.append(float(np.mean((group >= low) & (group <= high))))
    return float(np.mean(shares))
