"""Reads a trace of requests from a CSV file, row by row."""

from __future__ import annotations

import csv
import gzip
import zlib
from array import array
from collections.abc import Iterator
from math import nan
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from hwsim.errors import InputFileError, did_you_mean, printable, shorten
from hwsim.events.workload import MOST_PRIORITY, MOST_TOKENS, Workload, arrivals
from hwsim.units import GIB, show

MOST_BYTES = GIB
"""Largest file read."""
MOST_ROWS = 20_000_000
MOST_LINE = 10_000
"""Longest line. [characters]"""
MOST_PROBLEMS = 20
"""Rows with problems after which reading stops."""
LATEST_S = 10_000_000_000
NAMES = {
    "arrival_s": ("arrival_s", "arrived_at"),
    "input_tokens": ("input_tokens", "num_prefill_tokens"),
    "output_tokens": ("output_tokens", "num_decode_tokens"),
    "priority": ("priority",),
}
"""Columns, and what files call them; `priority` may be missing."""
RANGES = {
    "arrival_s": (0, LATEST_S),
    "input_tokens": (1, MOST_TOKENS),
    "output_tokens": (1, MOST_TOKENS),
    "priority": (-MOST_PRIORITY, MOST_PRIORITY),
}


def read_trace(path: Path | str) -> Workload:
    """Read a CSV file (also ``.gz``) with ``arrival_s,input_tokens,output_tokens`` and, if you like, ``priority``.

    Other columns are passed over; the names of the Azure traces in the style of Vidur
    (``arrived_at,num_prefill_tokens,num_decode_tokens``) will do as well.

    Raises
    ------
    InputFileError
        With file, row and column of everything that is wrong.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            msg = f"{printable(path)}: holds {show(size, 'bytes')}, more than {show(MOST_BYTES, 'bytes')}: cut it"
            raise InputFileError([msg])
        with _open(path) as file:
            columns = _read(printable(path), file)
    except (OSError, EOFError, zlib.error) as error:
        raise InputFileError([f"{printable(path)}: {getattr(error, 'strerror', None) or error}"]) from None
    except UnicodeDecodeError:
        raise InputFileError([f"{printable(path)}: is not UTF-8 text"]) from None
    except ValueError as error:
        raise InputFileError([f"{printable(path)}: is no path ({error})"]) from None
    return arrivals(
        columns["arrival_s"],
        columns["input_tokens"],
        columns["output_tokens"],
        priority=columns.get("priority", 0),
    )


def _open(path: Path) -> TextIO:
    if not path.is_file() and path.exists():
        raise InputFileError([f"{printable(path)}: is a {'folder' if path.is_dir() else 'device'}, not a file"])
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _lines(source: str, file: TextIO) -> Iterator[str]:
    """Lines of bounded number and length: a small compressed file may hold a large one."""
    number = 0
    while line := file.readline(MOST_LINE + 1):
        number += 1
        if len(line) > MOST_LINE:
            raise InputFileError([f"{source}: row {number}: longer than {MOST_LINE:,} characters"])
        if number > MOST_ROWS + 1:
            raise InputFileError([f"{source}: more than {MOST_ROWS:,} rows: cut it"])
        yield line


def _read(source: str, file: TextIO) -> dict[str, NDArray[np.float64]]:
    """All columns, or everything that is wrong."""
    rows = csv.reader(_lines(source, file))
    problems: list[str] = []
    try:
        places = _places(source, next(rows, []))
        found = {name: array("d") for name in places}
        for row in rows:
            if row:
                problems += [f"{source}: row {rows.line_num}: {problem}" for problem in _take(row, places, found)]
            if len(problems) >= MOST_PROBLEMS:
                break
    except csv.Error as error:
        raise InputFileError([f"{source}: row {rows.line_num}: {error}"]) from None
    if not problems and not found["arrival_s"]:
        problems.append(f"{source}: holds no requests")
    if problems:
        raise InputFileError(problems)
    return {name: np.frombuffer(column) for name, column in found.items()}


def _take(row: list[str], places: dict[str, int], found: dict[str, array[float]]) -> Iterator[str]:
    """Add a row to the columns; what is wrong with it."""
    last_s = found["arrival_s"][-1] if found["arrival_s"] else 0.0
    for name, place in places.items():
        low, high = RANGES[name]
        text = row[place].strip() if place < len(row) else ""
        try:
            value = float(text)
        except ValueError:
            value = nan
        whole = name == "arrival_s" or value.is_integer()
        if not (low <= value <= high and whole):
            kind = "a number" if name == "arrival_s" else "a whole number"
            yield f"column {name}: expected {kind} from {low:,} to {high:,}, found {shorten(text)}"
            value = last_s if name == "arrival_s" else 1.0
        elif name == "arrival_s" and value < last_s:
            yield f"column arrival_s: {text} is before the row above ({last_s:.12g}): rows must be in order of arrival"
            value = last_s
        found[name].append(value)


def _places(source: str, header: list[str]) -> dict[str, int]:
    """Where the columns are."""
    titles = [title.strip().lower() for title in header]
    places, problems = {}, []
    for name, spellings in NAMES.items():
        at = [place for place, title in enumerate(titles) if title in spellings]
        if len(at) > 1:
            problems.append(f"{source}: row 1: column {name} appears {len(at)} times")
        elif at:
            places[name] = at[0]
        elif name != "priority":
            problems.append(
                f"{source}: row 1: column {' or '.join(spellings)} is missing{did_you_mean(name, titles[:50])} "
                "(expected arrival_s,input_tokens,output_tokens)"
            )
    if problems:
        raise InputFileError(problems)
    return places
