"""What a comparison with PyTorch found: rows, groups of rows, and all of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hwsim.live.cases import CONVENTIONS

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Row:
    """One number of PyTorch's and hwsim's."""

    id: str
    group: str
    metric: str
    unit: str
    source: str
    measured: float
    predicted: float
    tolerance: float | None
    """Largest relative error; 0: equal; None: reported only."""

    @property
    def error(self) -> float:
        """Relative error: positive where the prediction is too high."""
        if self.measured == self.predicted:
            return 0.0
        return self.predicted / self.measured - 1.0 if self.measured else 1.0

    @property
    def holds(self) -> bool:
        """Whether the error is within its tolerance."""
        return self.tolerance is None or abs(self.error) <= self.tolerance

    def to_dict(self) -> dict[str, Any]:
        """As the contract's JSON has it, and more."""
        numbers = {"published": self.measured, "predicted": self.predicted, "error": self.error}
        head = {name: getattr(self, name) for name in ("id", "source", "group", "metric", "unit")}
        return head | numbers | {"tolerance": self.tolerance, "holds": self.holds}


@dataclass(frozen=True)
class Group:
    """How the rows of a group fare."""

    name: str
    rows: int
    equal: int
    """Rows without any difference."""
    worst: float
    """Largest error of the rows that have a tolerance."""
    holds: bool


@dataclass(frozen=True)
class Comparison:
    """All rows, by group."""

    rows: tuple[Row, ...]
    conventions: tuple[str, ...] = CONVENTIONS

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups, in order."""
        names = dict.fromkeys(row.group for row in self.rows)
        return tuple(_group(name, [row for row in self.rows if row.group == name]) for name in names)

    @property
    def holds(self) -> bool:
        """Whether every row is within its tolerance."""
        return all(row.holds for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """The JSON of `hwsim validate pytorch`."""
        return {
            "schema_version": 1,
            "kind": "validation",
            "holds": self.holds,
            "groups": [vars(group) for group in self.groups],
            "rows": [row.to_dict() for row in self.rows],
            "conventions": list(self.conventions),
        }

    def to_frame(self) -> pd.DataFrame:
        """The rows as a table."""
        import pandas as pd

        return pd.DataFrame([row.to_dict() for row in self.rows])


def _group(name: str, rows: list[Row]) -> Group:
    judged = [abs(row.error) for row in rows if row.tolerance is not None]
    equal = sum(row.error == 0.0 or (row.tolerance is not None and row.tolerance < 1e-3 and row.holds) for row in rows)
    return Group(name, len(rows), equal, max(judged, default=0.0), all(row.holds for row in rows))
