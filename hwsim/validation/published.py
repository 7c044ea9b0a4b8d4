"""The scoreboard: every published figure against its prediction, by group."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.analytic.estimate import TrainingEstimate, estimates
from hwsim.analytic.training import evaluate
from hwsim.asking import asked
from hwsim.validation.facts import FOLDER, MEMORY, Fact, facts, tolerances

if TYPE_CHECKING:
    import pandas as pd

LEFT_OUT = "left_out.csv"
"""Written by `hwsim validate published --write-left-out`."""


@dataclass(frozen=True)
class Row:
    """One figure, published and predicted."""

    fact: Fact
    predicted: float
    """In the unit of the fact."""
    inside: bool
    """Whether the published figure lies in the printed band (memory: whether "fits" is no lie)."""

    @property
    def error(self) -> float:
        """Relative error: positive where the prediction is too high."""
        return self.predicted / self.fact.published - 1.0

    def to_dict(self) -> dict[str, Any]:
        """As the contract's JSON has it, and more."""
        fact = self.fact
        return {
            "id": fact.id,
            "source": fact.source,
            "group": fact.group,
            "metric": fact.metric,
            "published": fact.published,
            "predicted": self.predicted,
            "error": self.error,
            "inside_band": self.inside,
            "note": fact.note,
        }


@dataclass(frozen=True)
class Group:
    """How a group of rows fares: sources count alike, however many rows they have."""

    name: str
    rows: int
    sources: int
    mean: float
    """Mean of the sources' mean errors."""
    left_out: float | None
    """The same with constants chosen without each source, as last recorded; None for memory and parts of a group."""
    median: float
    worst: float
    bias: float
    """Mean of the sources' mean signed errors in time or bytes: negative where predictions are optimistic."""
    coverage: float
    """Share of rows inside their printed band."""
    tolerance: float
    why: str

    @property
    def holds(self) -> bool:
        """Whether the mean error is within the stated tolerance."""
        return self.mean <= self.tolerance


@dataclass(frozen=True)
class Scoreboard:
    """All rows and groups."""

    rows: tuple[Row, ...]
    groups: tuple[Group, ...]

    @property
    def holds(self) -> bool:
        """Whether every group is within its tolerance."""
        return all(group.holds for group in self.groups)

    def to_dict(self) -> dict[str, Any]:
        """The JSON of `hwsim validate published`."""
        return {
            "schema_version": 1,
            "kind": "validation",
            "holds": self.holds,
            "groups": [vars(group) | {"holds": group.holds} for group in self.groups],
            "rows": [row.to_dict() for row in self.rows],
        }

    def joined(self, other: Scoreboard) -> Scoreboard:
        """The rows and groups of two."""
        return Scoreboard((*self.rows, *other.rows), (*self.groups, *other.groups))

    def to_frame(self) -> pd.DataFrame:
        """The rows as a table."""
        import pandas as pd

        return pd.DataFrame([row.to_dict() for row in self.rows])


def scoreboard(chosen: Iterable[Fact] | None = None) -> Scoreboard:
    """Predict every fact (or the chosen ones) and score the groups."""
    rows = tuple(predict(fact) for fact in (facts() if chosen is None else chosen))
    names = dict.fromkeys(row.fact.group for row in rows)
    return Scoreboard(rows, tuple(score(name, [row for row in rows if row.fact.group == name]) for name in names))


def predict(fact: Fact) -> Row:
    """The prediction for one fact."""
    setting, strategies = asked(fact.model, fact.hardware, fact.devices, settings=fact.settings, **fact.given)
    estimate = estimates(evaluate(setting, strategies))[0]
    return Row(fact, value_of(estimate, fact.metric), _inside(estimate, fact))


def value_of(estimate: TrainingEstimate, metric: str) -> float:
    """A figure of an estimate in the convention of the metric."""
    if metric == "hardware_tflops_per_device":
        return float(estimate.model_tflops_per_device * estimate.hfu / estimate.mfu)
    if metric == "activation_memory":
        return float(estimate.memory_bytes["activations"])
    field = {
        "step_time": "step_time_s",
        "tokens_per_s_per_device": "tokens_per_s_per_device",
        "model_tflops_per_device": "model_tflops_per_device",
        "allocated_memory": "memory_allocated_bytes",
        "device_memory": "memory_reserved_bytes",
    }[metric]
    return float(getattr(estimate, field))


def seconds_ratio(row: Row) -> float:
    """Predicted over published time (or bytes, or energy): rates turned round. [-]"""
    ratio = row.predicted / row.fact.published
    is_rate = "_per_s" in row.fact.metric or "tflops" in row.fact.metric
    return 1.0 / ratio if is_rate else ratio


def _inside(estimate: TrainingEstimate, fact: Fact) -> bool:
    """Whether the published step time lies in the estimate's band; a run that was measured did fit."""
    if fact.metric in MEMORY:
        return bool(estimate.fits)
    step, value = estimate.step_time_s, value_of(estimate, fact.metric)
    seconds = fact.published if fact.metric == "step_time" else step * value / fact.published
    return bool(estimate.step_time_low_s <= seconds <= estimate.step_time_high_s)


def left_out_errors() -> Mapping[str, float]:
    """Source to its mean error under constants that were chosen without it, as last recorded."""
    path = FOLDER / LEFT_OUT
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {row["source"]: float(row["mean"]) for row in csv.DictReader(file)}


def score(name: str, rows: Sequence[Row]) -> Group:
    """Score one group: errors in step time or bytes, averaged by source first."""
    ratios = np.array([seconds_ratio(row) - 1.0 for row in rows])
    origin = np.array([row.fact.source for row in rows])
    names, known, timed = sorted(set(origin)), left_out_errors(), rows[0].fact.metric not in MEMORY
    by_source = [ratios[origin == source] for source in names]
    limit = tolerances().get(name)
    return Group(
        name=name,
        rows=len(rows),
        sources=len(by_source),
        mean=float(np.mean([np.mean(np.abs(errors)) for errors in by_source])),
        left_out=float(np.mean([known[name] for name in names])) if set(names) <= known.keys() and timed else None,
        median=float(np.median(np.abs(ratios))),
        worst=float(np.abs(ratios).max()),
        bias=float(np.mean([np.mean(errors) for errors in by_source])),
        coverage=float(np.mean([row.inside for row in rows])),
        tolerance=limit.mean if limit else float("inf"),
        why=limit.why if limit else "",
    )


__all__ = ["Group", "Row", "Scoreboard", "predict", "score", "scoreboard", "seconds_ratio", "value_of"]
