"""Results as CSV and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from hwsim.analytic.estimate import flatten


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

    flat = [{key: _cell(value) for key, value in flatten(row).items()} for row in rows]
    names = list(dict.fromkeys(key for row in flat for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _cell(value: Any) -> Any:
    """A value as CSV has it: a list as its entries with commas between."""
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else value
