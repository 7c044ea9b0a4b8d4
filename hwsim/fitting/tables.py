"""Measured tables from a folder the user names: read, with everything wrong in them said by file, row and column."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hwsim.errors import InputFileError, printable, shorten
from hwsim.units import TERA

FIRST_ROW = 2
"""Line of the first row below the header, as editors and spreadsheets count."""
LARGEST = TERA
"""Largest number that a table may hold, be it a size or a latency in microseconds."""


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read a CSV file (plain or gzip) that must have `columns`; others stay.

    The index is the line of each row in the file, so that rows picked out of it can still be named.

    Raises
    ------
    InputFileError
        If there is no such file, it is no CSV, or a column is missing.
    """
    place = printable(path)
    try:
        table = pd.read_csv(path, low_memory=False)
    except (OSError, EOFError, zlib.error) as error:  # gzip raises the last two for half a file and for wrong bytes
        raise InputFileError([f"{place}: {getattr(error, 'strerror', None) or error}"]) from None
    except ValueError as error:  # no columns, rows of different lengths, not UTF-8
        raise InputFileError([f"{place}: is no CSV table: {' '.join(str(error).split())}"]) from None
    missing = [name for name in columns if name not in table]
    if missing:
        raise InputFileError([f"{place}: has no column {', '.join(missing)} (it has {', '.join(map(str, table))})"])
    table.index = pd.RangeIndex(FIRST_ROW, FIRST_ROW + len(table))
    return table


def texts(table: pd.DataFrame, path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """The same table with `columns` as text, also where they look like numbers.

    Raises
    ------
    InputFileError
        Naming the file, row and column of every empty value.
    """
    empty = table[list(columns)].isna()
    if empty.to_numpy().any():
        raise InputFileError(
            f"{printable(path)}: row {row}: {name}: must be text, found nothing" for row, name in _places(empty)
        )
    return table.assign(**{name: table[name].astype(str) for name in columns})


def not_negative(table: pd.DataFrame, path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """The same table with `columns` as numbers, none of which may be below zero; raises as `positive` does."""
    return _numbers(table, path, columns, f"a number from 0 to {LARGEST:g}", lambda numbers: numbers >= 0)


def positive(table: pd.DataFrame, path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """The same table with `columns` as numbers, all of which must be above zero, none larger than `LARGEST`.

    Raises
    ------
    InputFileError
        Naming the file, row and column of every value that is no such number.
    """
    return _numbers(table, path, columns, f"a positive number up to {LARGEST:g}", lambda numbers: numbers > 0)


def _numbers(
    table: pd.DataFrame, path: Path, columns: Sequence[str], wanted: str, holds: Callable[[pd.DataFrame], pd.DataFrame]
) -> pd.DataFrame:
    numbers = table[list(columns)].apply(pd.to_numeric, errors="coerce").astype(float)
    wrong = ~(holds(numbers) & (numbers <= LARGEST))
    if wrong.to_numpy().any():
        raise InputFileError(
            f"{printable(path)}: row {row}: {name}: must be {wanted}, found {shorten(table.at[row, name])}"
            for row, name in _places(wrong)
        )
    return table.assign(**{name: numbers[name].astype(float) for name in columns})


def _places(bad: Any) -> Any:
    """Row and column of everything that is wrong."""
    return bad.stack().loc[lambda wrong: wrong].index
