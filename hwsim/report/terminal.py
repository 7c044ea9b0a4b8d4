"""Printing for people: colour on a terminal, plain text elsewhere."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Sequence
from typing import Any

PLAIN_WIDTH = 118
WIDEST = 1000
FULL, EMPTY = "█", "░"
ASCII = str.maketrans(
    {FULL: "#", EMPTY: ".", "·": "-", "–": "-", "×": "x", "─": "-", "━": "-", "…": ".", "±": "+-", "−": "-"}
)


def print_all(things: Sequence[Any]) -> None:
    """Print to stdout: with colour and its own width on a terminal, as plain text of a fixed width elsewhere."""
    terminal = sys.stdout.isatty()
    text = as_text(things, shutil.get_terminal_size().columns if terminal else PLAIN_WIDTH, colour=terminal)
    encoding = sys.stdout.encoding or "ascii"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(ASCII).encode(encoding, "replace").decode(encoding)
    sys.stdout.write(text)


def as_text(things: Sequence[Any], width: int = PLAIN_WIDTH, *, colour: bool = False) -> str:
    """As text: words wrap at `width`, tables are as wide as they need."""
    from rich.console import Console
    from rich.measure import Measurement

    buffer = io.StringIO()
    console = Console(
        file=buffer, width=WIDEST, highlight=False, force_terminal=colour, color_system="auto" if colour else None,
        legacy_windows=False,
    )  # fmt: skip
    for thing in things:
        wraps = isinstance(thing, str) or any(column.overflow == "fold" for column in getattr(thing, "columns", ()))
        needed = 0 if wraps else Measurement.get(console, console.options, thing).maximum
        console.print(thing, width=max(width, needed))
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()).strip("\n") + "\n"


def bar(part: float, whole: float, width: int) -> str:
    """A bar of `width` cells, filled in proportion.

    Examples
    --------
    >>> bar(1, 2, 4)
    '██░░'
    """
    filled = round(width * min(max(part / whole, 0.0), 1.0)) if whole > 0 else 0
    return FULL * filled + EMPTY * (width - filled)
