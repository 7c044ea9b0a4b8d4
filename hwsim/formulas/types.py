"""The one type every formula takes and gives: a number, or an array of them."""

from __future__ import annotations

from typing import Any, TypeAlias

Numeric: TypeAlias = Any
"""float | int | float64 array: shapes broadcast. (`Any`, since NumPy's own stubs type mixed arithmetic as `Any`.)"""
