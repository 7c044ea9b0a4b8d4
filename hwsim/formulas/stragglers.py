"""Waiting for the slowest."""

from __future__ import annotations

import numpy as np

from hwsim.formulas.types import Numeric


def slowest_of(count: Numeric, delay: Numeric) -> Numeric:
    """By how much the slowest of `count` nodes holds up a step, over the step. [-]

    Delays are rare and long: with exponentially distributed ones the largest of n exceeds the mean by ``H(n) - 1``,
    about ``ln n``, times the mean.
    (Normal noise would give ``sqrt(2 ln n)``; throughput of measured jobs falls as ``ln n``.)

    Parameters
    ----------
    count : numeric
        Nodes that wait for each other every step. [-]
    delay : numeric
        Mean delay of a node, over the step. [-]

    References
    ----------
    .. [1] H. David, H. Nagaraja, "Order Statistics", 3rd ed., 2003, section 4.6.

    Examples
    --------
    >>> float(slowest_of(1, 0.01)), round(float(slowest_of(64, 0.01)), 4)
    (0.0, 0.0416)
    """
    return delay * np.log(np.maximum(1.0 * count, 1.0))
