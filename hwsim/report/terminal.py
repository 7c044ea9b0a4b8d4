"""Printing for people: colour on a terminal, plain text elsewhere."""

from __future__ import annotations

import io
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

from hwsim.errors import printable

PLAIN_WIDTH = 118
WIDEST = 1000
TABLE_WIDTH, LEAST_WIDTH, GAP = 120, 18, 2
"""Widest table, narrowest column that a cell is broken for, and what lies between two columns. [character]"""
FULL, EMPTY = "█", "░"
ASCII = str.maketrans(
    {FULL: "#", EMPTY: ".", "·": "-", "–": "-", "×": "x", "─": "-", "━": "-", "…": ".", "±": "+-", "−": "-"}
    | {"│": "|", "→": ">"}
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

    buffer = io.StringIO()
    console = Console(
        file=buffer, width=WIDEST, highlight=False, emoji=False, force_terminal=colour,
        color_system="auto" if colour else None, legacy_windows=False,
    )  # fmt: skip
    for thing in things:
        wraps = isinstance(thing, str) or any(column.overflow == "fold" for column in getattr(thing, "columns", ()))
        console.print(thing, width=width if wraps else WIDEST)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()).strip("\n") + "\n"


def wrapped(rows: Sequence[Mapping[str, Any]], width: int = TABLE_WIDTH) -> list[dict[str, str]]:
    """Rows of text, the longest cells broken into lines where a table of them would be wider than `width`.

    Examples
    --------
    >>> wrapped([{"id": "a", "note": "forty two characters are more than thirty."}], 30)
    [{'id': 'a', 'note': 'forty two characters are\\nmore than thirty.'}]
    """
    names = list(rows[0])
    widths = {name: max(len(name), *(len(str(row[name])) for row in rows)) for name in names}
    for name in sorted(names, key=lambda name: -widths[name]):
        excess = sum(widths.values()) + GAP * len(names) - 1 - width
        if excess > 0:
            widths[name] = max(widths[name] - excess, min(widths[name], LEAST_WIDTH), len(name))
    return [{name: "\n".join(wrap(str(row[name]), widths[name])) for name in names} for row in rows]


def folded(path: str, width: int) -> str:
    """A dotted path on lines of at most `width`, broken behind dots.

    Examples
    --------
    >>> folded("cluster.tiers.nvlink", 14)
    'cluster.tiers.\\n  nvlink'
    """
    lines = [""]
    for part in re.split(r"(?<=\.)", path):
        if lines[-1].strip() and len(lines[-1] + part) > width:
            lines.append("  ")
        lines[-1] += part
    return "\n".join(lines)


def plain(text: str) -> str:
    """Text from a file or a user as rich prints it unchanged: no markup in it, nothing that a terminal would obey.

    Examples
    --------
    >>> plain("[/bold] \x1b[2J")
    '\\\\[/bold] \\\\x1b[2J'
    """
    from rich.markup import escape

    return escape("\n".join(printable(line, len(line)) for line in text.split("\n")))


def bar(part: float, whole: float, width: int) -> str:
    """A bar of `width` cells, filled in proportion.

    Examples
    --------
    >>> bar(1, 2, 4)
    '██░░'
    """
    filled = round(width * min(max(part / whole, 0.0), 1.0)) if whole > 0 else 0
    return FULL * filled + EMPTY * (width - filled)
