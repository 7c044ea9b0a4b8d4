"""Axes of a sweep: the values of each, as fields of a question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import InputFileError, UsageError, did_you_mean, printable, shorten
from hwsim.scenarios.loading import Loaded
from hwsim.scenarios.question import Question, checked_files, flattened, located, overlaps
from hwsim.scenarios.subject import Subject
from hwsim.scenarios.values import check_values
from hwsim.specs.reading import Document
from hwsim.specs.scenario import MOST_POINTS, Axis, Sweep, spaced
from hwsim.units import SI, parse, show, write

SCENARIO = "scenario"
"""The axis of a file's own scenarios."""
LARGEST_END = 1e100
"""Of a range."""


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

    @property
    def crossed(self) -> bool:
        """Whether every value of an axis meets every one of the others."""
        return self.points == prod(len(axis) for axis in self.axes.values())


def side_by_side(columns: Mapping[str, Sequence[Any]]) -> Grid:
    """A grid whose points take the first values of all columns, the second ones, ...; plain numbers and words."""
    axes = {path: tuple(_point(path, value, None) for value in values) for path, values in columns.items()}
    count = len(next(iter(axes.values())))
    return Grid(axes, {path: np.arange(count) for path in axes}, dict.fromkeys(axes), "")


def lay_out(loaded: Loaded, profiles: str | Path | None = None) -> Grid:
    """Every point of a file's sweep.

    Raises
    ------
    InputFileError
        Naming line and axis; also for more points than anyone waits for.
    """
    sweep, document = loaded.sweep, loaded.document
    subject = Subject(loaded.asked[0])
    axes = {path: _axis(loaded, subject, path, profiles) for path in sweep.axes}
    place = document.where(("sweep",))
    _refuse_overlap(axes, place)
    units = {path: None if axis.times else _unit(subject.dimension(path)) for path, axis in sweep.axes.items()}
    return Grid(axes, _index(sweep, axes, place), units, place)


def _axis(loaded: Loaded, subject: Subject, path: str, profiles: str | Path | None) -> tuple[AxisPoint, ...]:
    """The values of one axis, each one that its field takes."""
    document, axis = loaded.document, loaded.sweep.axes[path]
    place = document.where(("sweep", "axes", path))
    question = Question(loaded.base.fields, {path: place}, "sweep", place)
    if path == SCENARIO:
        return located(question, lambda: _scenarios(loaded, axis))
    flattened(_alone(path, place), ("axis",))
    points = located(question, lambda: _points(subject, path, axis))
    folder = document.path.parent if document.path else None
    given = [checked_files(point.fields, dict.fromkeys(point.fields, place), folder) for point in points]
    located(question, lambda: check_values(question, given, profiles))
    return tuple(replace(point, fields=fields) for point, fields in zip(points, given, strict=True))


def _scenarios(loaded: Loaded, axis: Axis) -> tuple[AxisPoint, ...]:
    """The axis of a file's own scenarios."""
    if axis.values is None:
        msg = "scenario: takes a list of names of scenarios"
        raise UsageError(msg)
    return tuple(_scenario(loaded, name) for name in axis.values)


def _refuse_overlap(axes: Mapping[str, Sequence[AxisPoint]], place: str) -> None:
    """Refuse two axes that change one field: what a point has would depend on their order."""
    taken: dict[str, str] = {}
    for path, points in axes.items():
        own = list(dict.fromkeys(name for point in points for name in point.fields))
        other = next((known for known in taken if any(overlaps(known, name) for name in own)), None)
        if other is not None:
            raise InputFileError([f"{place}: sweep: {path} and {taken[other]} both change {printable(other)}"])
        taken |= dict.fromkeys(own, path)


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


def _points(subject: Subject, path: str, axis: Axis) -> list[AxisPoint]:
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
    try:
        plain = isinstance(value, int | float) and not isinstance(value, bool) and dimension is None
        number = float(value) if plain else parse(str(value), dimension or "count")
    except (ValueError, OverflowError) as error:
        msg = f"{path}: {error}"
        raise UsageError(msg) from None
    if not abs(number) <= LARGEST_END:
        msg = f"{path}: must be a finite number, not {shorten(value)}"
        raise UsageError(msg)
    return number
