"""What a fit found: the values, where they belong, and how far they are from the rows, in and out of sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Column = npt.NDArray[np.float64]
FOLDS = 5


@dataclass(frozen=True)
class Errors:
    """Relative errors of predictions, as shares of the measurement."""

    rows: int
    median: float
    p90: float
    bias: float
    """Median of the signed error: negative where predictions are too fast."""


@dataclass(frozen=True)
class Fit:
    """Coefficients for one place in one profile."""

    profile: str
    """Accelerator or cluster id."""
    path: tuple[str, ...]
    """Field path in its YAML, e.g. ("kernels", "libraries", "vllm", "gemm")."""
    values: dict[str, Any]
    """Fields at that path as the YAML writes them: quantities as text with a unit."""
    data: str
    """The rows it was fitted on, in words: table, sources, library."""
    inside: Errors
    """On the rows it was fitted on."""
    outside: Errors
    """On rows left out of the fit, each part of the shapes left out in turn."""
    relative: str = ""
    """Profile of a relative with rows of its own."""
    unseen: Errors | None = None
    """On all rows, with the relative's curve and this device's data sheet: as if it had not been measured."""
    parts: dict[str, Errors] = field(default_factory=dict)
    """On rows left out of the fit, by kind of row."""
    distant: bool = False
    """The relative is of another family: nothing nearer was measured."""
    at_bound: tuple[str, ...] = ()
    """Coefficients that ended at a bound of their range: the rows ask for more than it allows, or say nothing."""


def errors(predicted: Column, measured: Column) -> Errors:
    """Compare predictions with measurements.

    Examples
    --------
    >>> errors(np.array([1.1, 0.9, 2.0]), np.array([1.0, 1.0, 2.0])).median
    0.1
    """
    ratio = predicted / measured - 1.0
    if not len(ratio):
        return Errors(0, float("nan"), float("nan"), float("nan"))
    size = np.abs(ratio)
    return Errors(len(ratio), float(np.median(size)), float(np.quantile(size, 0.9)), float(np.median(ratio)))


def parts_of(predicted: Column, measured: Column, parts: dict[str, npt.NDArray[np.bool_]]) -> dict[str, Errors]:
    """Errors by kind of row, those without rows left out."""
    return {name: errors(predicted[kept], measured[kept]) for name, kept in parts.items() if kept.any()}


def left_out(shapes: npt.NDArray[Any], fit: Callable[[npt.NDArray[np.bool_]], Callable[[], Column]]) -> Column:
    """Predictions for every row from fits that never saw its shape.

    `shapes` gives a row's shape group (equal shapes stay together); ``fit(kept)`` fits on the kept rows and returns
    what predicts all rows. Groups are dealt to `FOLDS` parts in a fixed order. Nothing predicts a single shape: NaN.
    """
    _, group = np.unique(shapes, return_inverse=True)
    part = np.random.default_rng(0).permutation(group.max() + 1)[group] % FOLDS
    predicted = np.full(len(part), np.nan)
    for fold in range(FOLDS):
        out = part == fold
        if out.any() and not out.all():
            predicted[out] = fit(~out)()[out]
    return predicted


def fit_rows(fits: Sequence[Fit]) -> list[dict[str, Any]]:
    """Every fit with its errors and values, as `hwsim fit --format json` gives them."""
    return [
        {
            "profile": fit.profile,
            "place": ".".join(fit.path),
            "data": fit.data,
            "rows": fit.inside.rows,
            **_errors("inside", fit.inside),
            **_errors("outside", fit.outside),
            **({"relative": fit.relative, **_errors("unseen", fit.unseen)} if fit.unseen else {}),
            "values": fit.values,
            "at_bound": list(fit.at_bound),
        }
        for fit in fits
    ]


def _errors(name: str, found: Errors) -> dict[str, float]:
    return {f"{name}_median": found.median, f"{name}_p90": found.p90, f"{name}_bias": found.bias}
