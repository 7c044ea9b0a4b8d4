"""Terms that depend on few columns are computed on their distinct values and gathered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from hwsim.specs.strategy import Strategies

T = TypeVar("T")
SMALL = 4096
"""Tables below this many rows are computed row by row: finding the distinct ones would cost more."""


def per_distinct(function: Callable[[Strategies], T], s: Strategies, keys: Sequence[npt.NDArray[np.float64]]) -> T:
    """Give ``function(s)``, computed once per distinct row of `keys`, the columns that decide it, in a long table.

    The result is the same to the last bit: every formula is element-wise. Open grids are passed through, since
    broadcasting already computes each term at the shape of what it depends on.
    """
    shape = s.shape
    if len(shape) != 1 or shape[0] < SMALL:
        return function(s)
    columns = [np.broadcast_to(key, shape) for key in keys]
    _, first, inverse = np.unique(_hash(columns), return_index=True, return_inverse=True)
    exact = all(np.array_equal(column[first][inverse], column) for column in columns)
    if not exact or len(first) > shape[0] // 2:
        return function(s)
    gathered: T = _gather(function(s.take(first)), inverse, len(first))
    return gathered


def _hash(columns: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.uint64]:
    """One 64-bit number per row; equal rows give equal numbers (the caller checks the converse)."""
    result = np.zeros(columns[0].shape, dtype=np.uint64)
    for column in columns:
        result = (result ^ column.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        result ^= result >> np.uint64(29)
    return result


def _gather(value: Any, inverse: npt.NDArray[np.int64], count: int) -> Any:
    """Spread every array inside dataclasses, dicts and tuples back to the rows."""
    if isinstance(value, np.ndarray):
        return value[inverse] if value.ndim and value.shape[0] == count and value.ndim == 1 else value
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(**{f.name: _gather(getattr(value, f.name), inverse, count) for f in fields(value)})
    if isinstance(value, dict):
        return {key: _gather(item, inverse, count) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_gather(item, inverse, count) for item in value)
    return value
