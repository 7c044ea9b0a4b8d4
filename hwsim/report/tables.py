"""Estimates as frames, CSV and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hwsim.analytic.estimate import TrainingEstimate

if TYPE_CHECKING:
    import pandas as pd


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots.

    Examples
    --------
    >>> flatten({"a": 1, "b": {"c": 2}})
    {'a': 1, 'b.c': 2}
    """
    result: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            result |= flatten(value, f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}"] = value
    return result


def frame(estimates: Sequence[TrainingEstimate]) -> pd.DataFrame:
    """One row per estimate; nested keys become dotted columns, the strategy's stand without prefix."""
    import pandas as pd

    rows = [flatten(estimate.to_dict()) for estimate in estimates]
    return pd.DataFrame([{key.removeprefix("strategy."): value for key, value in row.items()} for row in rows])


def to_json(value: Any) -> str:
    """JSON text; numbers that are not finite become null."""
    return json.dumps(_finite(value), indent=2)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """CSV text of flattened rows; columns in order of first appearance."""
    import csv
    import io

    flat = [flatten(row) for row in rows]
    names = list(dict.fromkeys(key for row in flat for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()
