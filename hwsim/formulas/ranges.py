"""Numbers that are known to lie in a range, and what becomes of the range when such numbers are combined."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hwsim.formulas.types import Numeric


class Range(NamedTuple):
    """A number as expected, and where it may reasonably lie: low <= expected <= high; not negative."""

    low: Numeric
    expected: Numeric
    high: Numeric


def certain(value: Numeric) -> Range:
    """A number that is known: its range is itself. In the unit of `value`. [any]

    Examples
    --------
    >>> certain(3)
    Range(low=3.0, expected=3.0, high=3.0)
    """
    known = 1.0 * value
    return Range(known, known, known)


def scaled(given: Range, factor: Numeric) -> Range:
    """A range times a known number that is not negative. In the unit of the product. [any]

    Examples
    --------
    >>> scaled(Range(1.0, 2.0, 4.0), 3)
    Range(low=3.0, expected=6.0, high=12.0)
    """
    return Range(given.low * factor, given.expected * factor, given.high * factor)


def inverse(given: Range) -> Range:
    """One over a range of positive numbers. In one over its unit. [any]

    Examples
    --------
    >>> inverse(Range(1.0, 2.0, 4.0))
    Range(low=0.25, expected=0.5, high=1.0)
    """
    return Range(1.0 / given.high, 1.0 / given.expected, 1.0 / given.low)


def rest(share: Range) -> Range:
    """What a share leaves of the whole: one less the share, never less than nothing. [-]

    Examples
    --------
    >>> [float(each) for each in rest(Range(0.0, 0.25, 0.5))]
    [0.5, 0.75, 1.0]
    """
    low, expected, high = (np.maximum(1.0 - each, 0.0) for each in (share.high, share.expected, share.low))
    return Range(low, expected, high)


def plus(*ranges: Range) -> Range:
    """Sum of numbers that err independently of each other: widths add in quadrature. In their unit. [any]

    All lows at once (or all highs) would be a coincidence; the sum's range is never wider than that.

    Parameters
    ----------
    *ranges
        Two or more; not negative, all in one unit.

    References
    ----------
    .. [1] JCGM 100:2008, "Guide to the expression of uncertainty in measurement", section 5.1.2.

    Examples
    --------
    >>> [float(each) for each in plus(Range(7.0, 10.0, 13.0), Range(16.0, 20.0, 24.0))]
    [25.0, 30.0, 35.0]
    """
    lows, expected, highs = together(*ranges)
    down, up = 0.0 * expected, 0.0 * expected
    for each in ranges:
        down, up = np.hypot(down, each.expected - each.low), np.hypot(up, each.high - each.expected)
    return Range(np.maximum(expected - down, lows), expected, np.minimum(expected + up, highs))


def together(*ranges: Range) -> Range:
    """Sum of numbers that err the same way: all low, or all high. In their unit. [any]

    Examples
    --------
    >>> together(Range(7.0, 10.0, 13.0), Range(16.0, 20.0, 24.0))
    Range(low=23.0, expected=30.0, high=37.0)
    """
    low, expected, high = 0.0, 0.0, 0.0
    for each in ranges:
        low, expected, high = low + each.low, expected + each.expected, high + each.high
    return Range(low, expected, high)


def times(*ranges: Range) -> Range:
    """Product of numbers that err independently of each other: widths of their logarithms add in quadrature. [any]

    A factor that may be nothing may make nothing of the product; where the expected product is nothing its high is
    that of all highs. In the product of the units.

    Parameters
    ----------
    *ranges
        Two or more; not negative, and nothing or more than 1e-150.

    References
    ----------
    .. [1] JCGM 100:2008, "Guide to the expression of uncertainty in measurement", section 5.1.6.

    Examples
    --------
    >>> [float(each) for each in times(Range(5.0, 10.0, 20.0), Range(2.0, 2.0, 2.0))]
    [10.0, 20.0, 40.0]
    >>> twice = times(Range(5.0, 10.0, 20.0), Range(5.0, 10.0, 20.0))
    >>> [round(float(each), 1) for each in twice]
    [37.5, 100.0, 266.5]
    """
    lows, expected, highs = _product(ranges)
    down, up = 0.0 * expected, 0.0 * expected
    for each in ranges:
        down, up = np.hypot(down, _spread(each.low, each.expected)), np.hypot(up, _spread(each.expected, each.high))
    low = np.where(np.equal(lows, 0.0), 0.0, np.maximum(expected * np.exp(-down), lows))
    high = np.where(np.equal(expected, 0.0), highs, np.minimum(expected * np.exp(up), highs))
    return Range(low[()], expected, high[()])


def _product(ranges: tuple[Range, ...]) -> Range:
    """All lows, all expected and all highs, multiplied."""
    low, expected, high = 1.0, 1.0, 1.0
    for each in ranges:
        low, expected, high = low * each.low, expected * each.expected, high * each.high
    return Range(low, expected, high)


FAR, LEAST = 100.0, 1e-150
"""The largest logarithm of a ratio that is told apart, and what stands for nothing under a logarithm."""


def _spread(small: Numeric, large: Numeric) -> Numeric:
    """Logarithm of how many times larger one number is than another, within bounds; none where both are nothing."""
    return np.minimum(np.log(np.maximum(large, LEAST) / np.maximum(small, LEAST)), FAR)
