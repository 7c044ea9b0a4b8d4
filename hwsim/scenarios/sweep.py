"""Sweeps: points that differ in numbers alone are columns of one evaluation; others are worked out one by one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from hwsim import arguments
from hwsim.analytic.distinct import SMALL
from hwsim.analytic.setting import Setting
from hwsim.analytic.training import TrainingColumns, evaluate
from hwsim.asking import asked_rows
from hwsim.costs.bill import bill
from hwsim.defaults import DEFAULT_DEVICES
from hwsim.errors import InfeasibleError, InputFileError, UsageError, shorten
from hwsim.formulas.ranges import certain
from hwsim.scenarios.answers import Outcome, answer, ask, books_of, subject_of, token_budget
from hwsim.scenarios.axes import AxisPoint, Grid, lay_out
from hwsim.scenarios.loading import Loaded
from hwsim.scenarios.measures import MEASURES
from hwsim.scenarios.question import Question, counted, located
from hwsim.specs.economy import Grid as Place
from hwsim.specs.economy import Prices
from hwsim.specs.fields import field_at, with_values
from hwsim.specs.library import with_own_prices
from hwsim.specs.strategy import COLUMN_NAMES, ORDERS, Strategies
from hwsim.units import DAY_S, TERA

if TYPE_CHECKING:
    import pandas as pd

MOST_SEARCHES, MOST_SINGLE = 200, 5_000
"""Points worked out one by one: with a search each, and without."""
CHUNK_ROWS = 1 << 16
COLUMNS = (
    "accelerator.peak.", "accelerator.memory.bandwidth", "accelerator.memory.capacity", "accelerator.power.",
    "accelerator.price.", "accelerator.vector", "accelerator.kernels.launch", "accelerator.kernels.graph_launch",
    "cluster.node.nic_bandwidth", "cluster.node.max_power", "cluster.tiers.",
)  # fmt: skip
"""Numbers of a machine that may be a column (of a tier: its bandwidth and latency)."""
TIER_COLUMNS = ("bandwidth", "latency", "oversubscription")
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Swept:
    """The points of a sweep, and what became of each."""

    grid: Grid
    fits: npt.NDArray[np.bool_]
    measures: Mapping[str, npt.NDArray[np.float64]]
    """Figures by name; NaN where there is none."""
    why_not: Mapping[int, str]
    """Point to what binds there."""
    strategy: Mapping[str, Any]
    """What all points share, where nothing was searched ..."""
    layouts: tuple[str, ...]
    """... and the strategy of each, where something was."""
    elapsed_s: float

    @property
    def any_fits(self) -> bool:
        """Whether there is any answer."""
        return bool(np.any(self.fits))

    def rows(self) -> list[dict[str, Any]]:
        """One row per point."""
        names = {MEASURES[name].key: column for name, column in self.measures.items()}
        return [
            {**point, "fits": bool(self.fits[i]), **{key: float(column[i]) for key, column in names.items()}}
            | ({"strategy": self.layouts[i]} if self.layouts else {})
            | ({"infeasible": self.why_not.get(i)} if self.why_not else {})
            for i, point in enumerate(self.grid.values())
        ]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        shared = {"strategy": dict(self.strategy), "elapsed_s": self.elapsed_s}
        return {"axes": dict(self.grid.units), "points": self.rows(), **shared}

    def to_frame(self) -> pd.DataFrame:
        """One row per point."""
        import pandas as pd

        return pd.DataFrame(self.rows())


def run_sweep(loaded: Loaded, base: Outcome, profiles: str | Path | None) -> Swept:
    """Work out every point of a file's sweep.

    Raises
    ------
    InputFileError
        For axes and values that are wrong, and for more searches than anyone waits for.
    """
    sweep = loaded.sweep
    kept = {} if sweep.replan or base.question.group("strategy") else base.kept_strategy()
    return swept(loaded.base, lay_out(loaded, profiles), kept, profiles)


def swept(base: Question, grid: Grid, kept: Mapping[str, Any], profiles: str | Path | None = None) -> Swept:
    """Work out every point of a grid; `kept` are fields of a strategy that all points share, if they do.

    Raises
    ------
    InputFileError
        As `run_sweep`.
    """
    started = time.perf_counter()
    question = _keeping(base, kept)
    single = bool(question.group("strategy"))
    result = _Points(grid.points)
    if single and not question.serves:
        _by_columns(question, grid, profiles, result)
    else:
        most = MOST_SINGLE if single else MOST_SEARCHES
        if grid.points > most:
            what = "estimates" if single else "searches (say `replan: false`, or name the strategy)"
            raise InputFileError([f"{grid.place}: sweep: {grid.points:,} points are more than {most} {what}"])
        for i in range(grid.points):
            _one(_at(question, grid, i), profiles, result, i)
    shared = {path.removeprefix("strategy."): value for path, value in kept.items()}
    layouts = tuple(result.layouts.get(i, "") for i in range(grid.points)) if result.layouts else ()
    elapsed = time.perf_counter() - started
    return Swept(grid, result.fits, result.measures(), result.why_not, shared, layouts, elapsed)


class _Points:
    """What is known of each point so far."""

    def __init__(self, count: int) -> None:
        self.fits = np.zeros(count, dtype=bool)
        self.found = {name: np.full(count, np.nan) for name in MEASURES}
        self.why_not: dict[int, str] = {}
        self.layouts: dict[int, str] = {}

    def measures(self) -> dict[str, npt.NDArray[np.float64]]:
        """The figures that any point has."""
        return {name: column for name, column in self.found.items() if not np.all(np.isnan(column))}


def _keeping(question: Question, kept: Mapping[str, Any]) -> Question:
    fields = {path: value for path, value in question.fields.items() if not (kept and path.startswith("pin."))}
    return replace(question, fields={**fields, **kept})


def _at(question: Question, grid: Grid, i: int) -> Question:
    """The question at one point."""
    for path, axis in grid.axes.items():
        question = question.over(axis[grid.index[path][i]].fields, {}, f"point {i + 1}", grid.place)
    return question


def _one(question: Question, profiles: str | Path | None, result: _Points, i: int) -> None:
    """One point by itself; a wrong one (a batch that does not split) has no answer, and says why."""
    try:
        outcome = answer(ask(question, profiles))
    except (InputFileError, UsageError, InfeasibleError) as error:
        result.why_not[i] = str(error)
        return
    result.fits[i] = outcome.fits
    if outcome.why_not:
        result.why_not[i] = outcome.why_not
    if outcome.plan is not None:
        result.layouts[i] = layout(outcome.kept_strategy())
    for name, value in outcome.measures.items():
        result.found[name][i] = value


def layout(strategy: Mapping[str, Any]) -> str:
    """A strategy in a few words: what is not the plain choice."""
    plain = (1, 0, False, True, "none", "1f1b", "interleaved", ORDERS[0])
    parts = {path.removeprefix("strategy.").replace("_", "-"): value for path, value in strategy.items()}
    return " · ".join(f"{name} {value}" for name, value in parts.items() if value not in plain) or "one device"


def _by_columns(question: Question, grid: Grid, profiles: str | Path | None, result: _Points) -> None:
    """Points in groups that share everything but numbers."""
    numeric = [path for path, axis in grid.axes.items() if all(map(_is_numeric, axis))]
    others = [path for path in grid.axes if path not in numeric]
    groups: dict[tuple[int, ...], list[int]] = {}
    for i in range(grid.points):
        groups.setdefault(tuple(int(grid.index[path][i]) for path in others), []).append(i)
    for key, members in groups.items():
        at = question
        for path, position in zip(others, key, strict=True):
            at = at.over(grid.axes[path][position].fields, {}, f"sweep: {path}", grid.place)
        rows = np.array(members)
        columns = [(grid.axes[path], grid.index[path][rows]) for path in numeric]
        _group(at, columns, profiles, result, rows)


def _is_numeric(point: AxisPoint) -> bool:
    """Whether a value of an axis may be a number in a column."""
    return all(_columnable(path) for path in point.fields)


def _columnable(path: str) -> bool:
    root, _, inner = path.partition(".")
    if root == "strategy":
        return inner in COLUMN_NAMES and inner != "recompute"
    if path in ("job.seq_len", "job.global_batch"):
        return True
    known = any(path == name or (name.endswith(".") and path.startswith(name)) for name in COLUMNS)
    return known and (not path.startswith("cluster.tiers.") or path.rpartition(".")[2] in TIER_COLUMNS)


Axes = list[tuple[tuple[AxisPoint, ...], npt.NDArray[np.intp]]]
Column = tuple[list[Any], npt.NDArray[np.intp]]
"""Values of a field, and which of them each point has."""


def _group(question: Question, axes: Axes, profiles: str | Path | None, result: _Points, rows: Array) -> None:
    """Points that differ in numbers alone."""
    job: dict[str, Any] = {}
    others: dict[str, Column] = {}
    for points, index in axes:
        for path in dict.fromkeys(path for point in points for path in point.fields):
            values = [point.fields.get(path) for point in points]
            root, _, inner = path.partition(".")
            if root in ("strategy", "job"):
                job[inner] = np.array(values)[index]
            else:
                others[path] = (values, index)
    machine = _machine(question, others, profiles)
    given = {**question.group("job"), **question.group("strategy"), **job}
    gpus = counted(question).get("gpus", DEFAULT_DEVICES)
    try:
        setting, s = located(question, lambda: asked_rows(gpus=gpus, **subject_of(question, profiles), **given))
    except InputFileError as error:
        result.why_not.update(dict.fromkeys(map(int, rows), str(error)))
        return
    books = books_of(question, profiles)
    table = Strategies(**{name: np.broadcast_to(getattr(s, name), (len(rows),)) for name in COLUMN_NAMES})
    size = SMALL - 1 if machine else CHUNK_ROWS
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        _evaluate(question, _nudged(setting, machine, part), table.take(part), books, result, rows[part])


def _nudged(setting: Setting, machine: Mapping[str, Array], part: slice) -> Setting:
    """The setting with some numbers of its machine as columns; another capacity is all visible, as when it is set."""
    values: dict[str, Any] = {path: column[part] for path, column in machine.items()}
    if "accelerator.memory.capacity" in values:
        values["accelerator.memory.visible"] = None
    own = [path.rpartition(".")[2] for path in values if path.startswith("accelerator.price.")]
    if own:
        values["accelerator.sources"] = with_own_prices(setting.hardware.accelerator.sources, own)
    return Setting(setting.model, with_values(setting.hardware, values), setting.job, setting.devices)


def _machine(question: Question, columns: Mapping[str, Column], profiles: str | Path | None) -> dict[str, Array]:
    """Numbers of the machine, point by point, in SI."""
    if not columns:
        return {}
    hardware = ask(question, profiles).setting.hardware
    readers = {path: TypeAdapter[Any](field_at(hardware, path)) for path in columns}
    return {
        path: _checked(question, path, values, readers[path], profiles)[index]
        for path, (values, index) in columns.items()
    }


def _checked(
    question: Question, path: str, values: list[Any], reader: TypeAdapter[Any], profiles: str | Path | None
) -> npt.NDArray[np.float64]:
    """The values of a field in SI, each held against its range, the outermost against all the rest of the machine."""
    numbers = []
    for value in values:
        try:
            numbers.append(float(reader.validate_python(value)))
        except (ValidationError, TypeError) as error:
            said = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "expected a number"
            raise InputFileError([f"{question.place}: sweep: {path}: {said} (given {shorten(value)})"]) from None
    for position in {int(np.argmin(numbers)), int(np.argmax(numbers))}:
        places = {path: f"{question.place}: sweep"}
        ask(question.over({path: values[position]}, places, question.name, question.place), profiles)
    return np.array(numbers)


def _evaluate(
    question: Question, setting: Setting, s: Strategies, books: tuple[Prices, Place], result: _Points, rows: Array
) -> None:
    """Time, memory and money of some rows, and why others are not legal."""
    columns = evaluate(setting, s)
    legal = np.ones(len(rows), dtype=bool)
    for reason, mask in arguments.broken_rules(setting.model, s).items():
        broken = np.broadcast_to(mask, legal.shape) & legal
        result.why_not.update(dict.fromkeys(map(int, rows[broken]), reason))
        legal &= ~broken
    fits = np.broadcast_to(columns.fits, legal.shape)
    result.why_not.update(dict.fromkeys(map(int, rows[legal & ~fits]), "out of memory"))
    result.fits[rows] = legal & fits
    for name, value in _figures(question, columns, books).items():
        if value is not None:
            result.found[name][rows] = np.where(legal, np.broadcast_to(value, legal.shape), np.nan)


def _figures(question: Question, columns: TrainingColumns, books: tuple[Prices, Place]) -> dict[str, Any]:
    """The figures of every row, by name."""
    setting, s = columns.setting, columns.strategies
    tokens = token_budget(question, setting.model)
    budget = tokens or TERA
    seconds = budget / columns.tokens_per_s
    power = columns.energy_j / columns.step_time_s
    parameters = setting.parameters.total
    spent = bill(setting.hardware, s.devices, certain(seconds), certain(seconds * power), *books, parameters)
    rent = spent.rent_usd["on_demand"]
    return {
        "step_time": columns.step_time_s,
        "tokens_per_s": columns.tokens_per_s,
        "mfu": columns.mfu,
        "days": None if tokens is None else seconds / DAY_S,
        "devices": s.devices,
        "memory": columns.memory.reserved_bytes,
        "cost": None if rent is None else rent.expected,
        "owned_cost": None if spent.owned_usd is None else spent.owned_usd.expected,
        "energy": spent.facility_energy_j.expected,
        "carbon": spent.total_carbon_kg.expected,
        "power": power,
    }
