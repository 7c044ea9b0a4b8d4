"""Pareto fronts: what nothing else beats in every respect."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def pareto_front(costs: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Rows of `costs` (points, objectives; less is better) that no other row dominates, cheapest first.

    Of equal rows the first is kept.

    Examples
    --------
    >>> pareto_front(np.array([[1.0, 3.0], [2.0, 2.0], [2.0, 3.0], [3.0, 1.0]])).tolist()
    [0, 1, 3]
    """
    order = np.lexsort(costs.T[::-1])
    kept: list[int] = []
    for index in order:
        if not kept or not np.any(np.all(costs[kept] <= costs[index], axis=1)):
            kept.append(int(index))
    return np.array(kept, dtype=np.int64)
