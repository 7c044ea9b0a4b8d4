"""Values of a sweep, held against what their field takes, before any point is worked out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from hwsim import arguments
from hwsim.errors import UsageError, shorten
from hwsim.scenarios.question import COUNTED, Question, counted
from hwsim.specs.library import load_grid, load_hardware, load_model, load_prices
from hwsim.specs.strategy import COLUMN_NAMES, strategies

LARGE = 1e30
"""No plain number that anyone means is larger."""
ALONE = {"devices": 1, "global_batch": 1, "seq_len": 1}
"""What a strategy cannot do without."""


def check_values(question: Question, given: Iterable[Mapping[str, Any]], profiles: str | Path | None) -> None:
    """Refuse values that their field never takes. What does not suit the rest of a question (a batch that does not
    split, a context too long) is a point without an answer instead.

    Raises
    ------
    UsageError, InputFileError
        Naming the field and the value.
    """
    columns: dict[str, list[Any]] = {}
    for fields in given:
        for path, value in fields.items():
            columns.setdefault(path, []).append(value)
    for path, values in columns.items():
        _check_column(question, path, values, profiles)


def _check_column(question: Question, path: str, values: list[Any], profiles: str | Path | None) -> None:
    root, _, inner = path.partition(".")
    loaders: Mapping[str, Callable[[Any], object]] = {
        "model": load_model,
        "hardware": lambda value: load_hardware(value, profiles),
        "grid": lambda value: load_grid(value, profiles),
        "prices": lambda value: load_prices(value, profiles),
    }
    if path in loaders:
        for value in values:
            loaders[path](value)
    elif root in ("job", "strategy") and inner in COLUMN_NAMES and inner != "recompute" and not question.serves:
        strategies(**{**ALONE, inner: arguments.column(inner, values)})
    elif path == "strategy.recompute" and not question.serves:
        for value in values:
            columns = {inner: value}
            arguments.take_modules(columns)
            strategies(**ALONE, **columns)
    elif root == "job" and not question.serves:
        for value in values:
            arguments.job_fields({inner: value})
    else:
        for value in values:
            _check_plain(path, value)


def _check_plain(path: str, value: Any) -> None:
    """A number of a field that is checked with the rest of its question: finite, and not below nothing."""
    if path in COUNTED:
        value = counted(Question({path: value})).get(path)
        if path == "gpus":
            arguments.whole(path, value, arguments.MAX_DEVICES)
        elif value != arguments.OPTIMAL:
            arguments.positive(path, value)
    elif isinstance(value, int | float) and not 0 <= value < LARGE:
        msg = f"{path}: must be a number from 0, not {shorten(value)}"
        raise UsageError(msg)
