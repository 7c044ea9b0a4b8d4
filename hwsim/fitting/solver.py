"""Coefficients of a formula from measured times: robust least squares on the logarithm of predicted over measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hwsim.errors import UsageError
from hwsim.fitting.fitted import Column

SOFT = 0.05
"""Relative error beyond which a row counts by its size, no longer by its square."""
STARTS = 3
"""Starting points tried: the coefficients' own, and others about it."""
STEPS = 60
NEAR_EDGE = 1e-3
"""How near, in parts of its range, a start may lie to the edge."""


@dataclass(frozen=True)
class Coefficient:
    """One number to find."""

    name: str
    """Field of the curve."""
    start: float
    low: float
    high: float
    unit: str = ""
    """Unit of these numbers; the YAML writes it behind the value."""
    decimals: int = 3
    """Decimals kept."""

    def rounded(self, value: float) -> float:
        """The value as it will be written.

        Examples
        --------
        >>> Coefficient("latency", 2.0, 0.1, 40.0, "us", decimals=2).rounded(2.34567)
        2.35
        """
        return round(float(value), self.decimals)

    def written(self, value: float) -> Any:
        """What the YAML says for a rounded value.

        Examples
        --------
        >>> Coefficient("latency", 2.0, 0.1, 40.0, "us").written(2.35)
        '2.35 us'
        """
        plain = int(value) if value == int(value) else value
        return f"{plain} {self.unit}" if self.unit else plain


def at_bounds(coefficients: Sequence[Coefficient], values: Column) -> tuple[str, ...]:
    """Names of the coefficients that ended at a bound of their range.

    Examples
    --------
    >>> at_bounds([Coefficient("a", 1.0, 0.1, 9.0), Coefficient("b", 1.0, 0.1, 9.0)], np.array([0.1, 3.0]))
    ('a',)
    """
    edges = [NEAR_EDGE * (c.high - c.low) for c in coefficients]
    pairs = zip(coefficients, values, edges, strict=True)
    return tuple(c.name for c, value, edge in pairs if min(value - c.low, c.high - value) <= edge)


def solve(
    predict: Callable[[Column], Column], measured: Column, weight: Column, coefficients: Sequence[Coefficient]
) -> Column:
    """Find the coefficients with the least weighted loss, rounded as they will be written.

    Parameters
    ----------
    predict
        Times of all rows from one value per coefficient.
    measured
        Measured times, in the unit of the prediction.
    weight
        How much each row counts; alike if none does.
    coefficients
        What to find.

    Examples
    --------
    >>> x = np.linspace(1.0, 9.0, 50)
    >>> pair = [Coefficient("a", 1.0, 0.1, 9.0), Coefficient("b", 1.0, 0.1, 9.0)]
    >>> solve(lambda c: c[0] + c[1] * x, 2.0 + 3.0 * x, np.ones(50), pair).tolist()
    [2.0, 3.0]
    """
    least_squares = scipy_least_squares()
    start, low, high = (np.array([getattr(c, name) for c in coefficients]) for name in ("start", "low", "high"))
    weight = weight if weight.any() else np.ones_like(weight)
    share = np.sqrt(weight / weight.mean())
    logs = np.log(measured)

    def values(at: Column) -> Column:
        return np.asarray(low + (high - low) / (1.0 + np.exp(-np.clip(at, -40.0, 40.0))))

    def miss(at: Column) -> Column:
        gap = (np.log(predict(values(at))) - logs) / SOFT
        # the square of this is the soft-L1 loss, so that a weight scales the loss and not the gap
        return np.asarray(share * np.sign(gap) * np.sqrt(2.0 * (np.sqrt(1.0 + gap * gap) - 1.0)))

    part = np.clip((start - low) / (high - low), NEAR_EDGE, 1.0 - NEAR_EDGE)
    first = np.log(part / (1.0 - part))
    rng = np.random.default_rng(0)
    starts = [first, *(first + rng.normal(0.0, 1.0, len(first)) for _ in range(STARTS - 1))]
    tries = [least_squares(miss, begin, diff_step=0.02, max_nfev=STEPS) for begin in starts]
    best = min(tries, key=lambda found: float(found.cost))
    return np.array([c.rounded(v) for c, v in zip(coefficients, values(best.x), strict=True)])


def scipy_least_squares() -> Callable[..., Any]:
    """SciPy's solver; it ships with the extra `fit`."""
    try:
        from scipy.optimize import least_squares
    except ImportError:
        msg = "fitting needs SciPy: pip install 'hwsim[fit]'"
        raise UsageError(msg) from None
    return least_squares  # type: ignore[no-any-return]
