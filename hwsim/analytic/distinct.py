"""Terms that depend on few columns are computed on their distinct values and gathered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from hwsim.specs.strategy import Strategies

T = TypeVar("T")
SMALL = 512
"""Shorter tables are computed row by row: finding the distinct ones would cost more."""


def per_distinct(function: Callable[[Strategies], T], s: Strategies, keys: Sequence[npt.NDArray[np.float64]]) -> T:
    """Give ``function(s)``, computed once per distinct set of `keys` along the last axis where that is long.

    `keys` are the columns that decide the result; on an open grid every position of the other axes counts. The result
    is the same to the last bit, since every formula is element-wise.
    """
    length = s.shape[-1] if s.shape else 1
    if length < SMALL:
        return function(s)
    rows = [row for key in keys if key.ndim and key.shape[-1] == length for row in key.reshape(-1, length)]
    _, first, inverse = np.unique(_hash(rows, length), return_index=True, return_inverse=True)
    exact = all(np.array_equal(row[first][inverse], row) for row in rows)
    if not exact or len(first) > length // 2:
        return function(s)
    gathered: T = _gather(function(s.along(first)), inverse, len(first))
    return gathered


def _hash(rows: Sequence[npt.NDArray[np.float64]], length: int) -> npt.NDArray[np.uint64]:
    """One 64-bit number per position; equal keys give equal numbers (the caller checks the converse)."""
    result = np.zeros(length, dtype=np.uint64)
    for row in rows:
        result = (result ^ row.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        result ^= result >> np.uint64(29)
    return result


def _gather(value: Any, inverse: npt.NDArray[np.int64], count: int) -> Any:
    """Spread every array inside dataclasses, dicts and tuples back along the last axis."""
    if isinstance(value, np.ndarray):
        return value[..., inverse] if value.ndim and value.shape[-1] == count > 1 else value
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(**{f.name: _gather(getattr(value, f.name), inverse, count) for f in fields(value)})
    if isinstance(value, dict):
        return {key: _gather(item, inverse, count) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_gather(item, inverse, count) for item in value)
    return value
