"""Axes of a sweep: the values of each, as fields of a question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import InputFileError, UsageError, did_you_mean, printable, shorten
from hwsim.scenarios.loading import Loaded
from hwsim.scenarios.question import Question, flattened, located
from hwsim.scenarios.subject import Subject
from hwsim.specs.reading import Document
from hwsim.specs.scenario import MOST_POINTS, Axis, Sweep, spaced
from hwsim.units import SI, parse, show, write

SCENARIO = "scenario"
"""The axis of a file's own scenarios."""


@dataclass(frozen=True)
class AxisPoint:
    """One value of an axis."""

    value: Any
    """In SI for quantities, a factor, or as it was written."""
    shown: str
    """For a person."""
    fields: Mapping[str, Any]
    """What it changes."""


@dataclass(frozen=True)
class Grid:
    """The points of a sweep: for each axis its values, and which of them each point has."""

    axes: Mapping[str, tuple[AxisPoint, ...]]
    index: Mapping[str, npt.NDArray[np.intp]]
    units: Mapping[str, str | None]
    """Axis to the SI unit of its values; None for words and plain numbers."""
    place: str

    def values(self) -> list[dict[str, Any]]:
        """The values of every point, by axis."""
        return [{path: axis[self.index[path][i]].value for path, axis in self.axes.items()} for i in range(self.points)]

    @property
    def points(self) -> int:
        """How many there are."""
        return len(next(iter(self.index.values())))


def side_by_side(columns: Mapping[str, Sequence[Any]]) -> Grid:
    """A grid whose points take the first values of all columns, the second ones, ...; plain numbers and words."""
    axes = {path: tuple(_point(path, value, None) for value in values) for path, values in columns.items()}
    count = len(next(iter(axes.values())))
    return Grid(axes, {path: np.arange(count) for path in axes}, dict.fromkeys(axes), "")


def lay_out(loaded: Loaded) -> Grid:
    """Every point of a file's sweep.

    Raises
    ------
    InputFileError
        Naming line and axis; also for more points than anyone waits for.
    """
    sweep, document = loaded.sweep, loaded.document
    subject = Subject(loaded.asked[0])
    axes: dict[str, tuple[AxisPoint, ...]] = {}
    for path, axis in sweep.axes.items():
        place = document.where(("sweep", "axes", path))
        if path != SCENARIO:
            flattened(_alone(path, place), ("axis",))
        question = Question(loaded.base.fields, loaded.base.places, f"sweep: {path}", place)
        axes[path] = located(question, lambda path=path, axis=axis: tuple(_points(loaded, subject, path, axis)))  # type: ignore[misc]
    place = document.where(("sweep",))
    units = {path: None if axis.times else _unit(subject.dimension(path)) for path, axis in sweep.axes.items()}
    return Grid(axes, _index(sweep, axes, place), units, place)


def _unit(dimension: str | None) -> str | None:
    """SI unit of a dimension."""
    return None if dimension is None else SI[dimension]


def _alone(path: str, place: str) -> Document:
    """A field by itself: is there such a one?"""
    return Document({"axis": {path: None}}, place, {("axis", path): place})


def _index(sweep: Sweep, axes: Mapping[str, Sequence[AxisPoint]], place: str) -> dict[str, npt.NDArray[np.intp]]:
    """Position along each axis, point by point."""
    lengths = {path: len(points) for path, points in axes.items()}
    if sweep.combine == "zip":
        if len(set(lengths.values())) > 1:
            raise InputFileError([f"{place}: sweep: zipped axes differ in length: {lengths}"])
        count = next(iter(lengths.values()))
        return {path: np.arange(count) for path in axes}
    count = prod(lengths.values())
    if count > MOST_POINTS:
        sizes = " x ".join(f"{length:,}" for length in lengths.values())
        raise InputFileError([f"{place}: sweep: {sizes} = {count:,} points are more than {MOST_POINTS:,}"])
    return dict(zip(axes, np.unravel_index(np.arange(count), tuple(lengths.values())), strict=True))


def _points(loaded: Loaded, subject: Subject, path: str, axis: Axis) -> list[AxisPoint]:
    if path == SCENARIO:
        return [_scenario(loaded, name) for name in axis.values or ()]
    if axis.times is not None:
        return [AxisPoint(factor, f"× {factor:.4g}", subject.multiples(path, factor)) for factor in axis.times]
    dimension = subject.dimension(path)
    values = axis.values if axis.values is not None else _range(path, axis, dimension)
    return [_point(path, value, dimension) for value in values]


def _point(path: str, value: Any, dimension: str | None) -> AxisPoint:
    """A value of a field: a quantity as a number in SI, and as a person reads it."""
    if dimension is None:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return AxisPoint(value, f"{value:,}" if whole else printable(value, 60), {path: value})
    number = _number(path, value, dimension)
    return AxisPoint(number, show(number, dimension, 4), {path: value})


def _scenario(loaded: Loaded, name: Any) -> AxisPoint:
    known = [each.question.name for each in loaded.asked]
    if name not in known:
        msg = f"scenario: no scenario {shorten(name)}{did_you_mean(str(name), known)}"
        raise UsageError(msg)
    base, other = loaded.base.fields, loaded.question(str(name)).fields
    return AxisPoint(name, str(name), {path: value for path, value in other.items() if base.get(path) != value})


def _range(path: str, axis: Axis, dimension: str | None) -> list[Any]:
    """The values of a range, as files write them."""
    start, stop = (_number(path, value, dimension) for value in (axis.start, axis.stop))
    points = axis.points
    if points is None:
        step = _number(path, axis.step, dimension)
        if not step > 0 or (stop - start) / step > MOST_POINTS:
            msg = f"{path}: step must be positive, and lead from {start:g} to {stop:g} in at most {MOST_POINTS:,} steps"
            raise UsageError(msg)
        points = int((stop - start) / step + 1e-9) + 1
        stop = start + (points - 1) * step
    if axis.spacing == "log" and not (start > 0 and stop > 0):
        msg = f"{path}: a log range needs positive ends"
        raise UsageError(msg)
    values = spaced(start, stop, points, axis.spacing) if points > 1 else [start]
    if dimension is not None:
        return [write(value, dimension) for value in values]
    if all(isinstance(end, int) for end in (axis.start, axis.stop)) or path in ("gpus", "tokens"):
        return list(dict.fromkeys(round(value) for value in values))
    return values


def _number(path: str, value: Any, dimension: str | None) -> float:
    """One end of a range in SI."""
    if isinstance(value, int | float) and not isinstance(value, bool) and dimension is None:
        return float(value)
    try:
        return parse(str(value), dimension or "count")
    except ValueError as error:
        msg = f"{path}: {error}"
        raise UsageError(msg) from None
