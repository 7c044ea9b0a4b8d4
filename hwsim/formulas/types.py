"""The one type every formula takes and gives: a number, or an array of them."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]
Numeric: TypeAlias = Any
"""float | int | Array: shapes broadcast. (`Any`, since NumPy's own stubs type mixed arithmetic as `Any`.)"""
