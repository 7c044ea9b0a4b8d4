"""What a report says, independent of how it is shown: sections of text, facts, tables and figures.

Nothing here knows HTML, Markdown or a clock: the same inputs give the same document, hence the same bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from hwsim.units import show

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

    from hwsim.report.style import Theme

NAME = re.compile("[a-z][a-z0-9-]{0,60}")
"""Names of figures: parts of ids and of file names."""
Value = str | float | int | None
"""What a row of a figure's data may hold."""


@dataclass(frozen=True)
class Paragraph:
    """Plain text; a blank line starts a new paragraph."""

    text: str


@dataclass(frozen=True)
class Facts:
    """Names and their values, such as assumptions: a definition list."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Column:
    """A column of a table. Numbers are set to the right and sort by value."""

    name: str
    unit: str = ""
    kind: Literal["text", "number"] = "text"


@dataclass(frozen=True)
class Cell:
    """What a cell shows, and what it sorts by (its text, if nothing else is given)."""

    text: str
    sort: float | str | None = None

    @classmethod
    def of(cls, value: float | None, dimension: str, digits: int = 3) -> Cell:
        """A quantity with its unit that sorts by its SI value; ``n/a`` if there is none.

        Examples
        --------
        >>> Cell.of(1234.0, "count").text, Cell.of(None, "usd").text
        ('1.23k', 'n/a')
        """
        if value is None or not math.isfinite(value):
            return cls("n/a")
        return cls(show(value, dimension, digits), float(value))


@dataclass(frozen=True)
class Table:
    """Rows under named columns; a row's plain text counts as a cell. Notes stand below."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell | str, ...], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Figure:
    """A picture whose title states the finding.

    `draw` puts it on a matplotlib figure in the colours of a theme; an artist whose gid is ``mark-3`` shows `hover[3]`
    under the pointer. `data` are the numbers behind it, as rows.
    """

    name: str
    """Short and unique in the document: file name of the assets, root of the ids."""
    title: str
    caption: str
    alt: str
    """What a reader who cannot see it should know."""
    size: tuple[float, float]
    """Width and height in inches."""
    draw: Callable[[Canvas, Theme], None] = field(compare=False)
    data: tuple[Mapping[str, Value], ...]
    hover: tuple[str, ...] = ()


@dataclass(frozen=True)
class Code:
    """A command or a piece of a program."""

    text: str
    language: str = ""


Block = Paragraph | Facts | Table | Figure | Code


@dataclass(frozen=True)
class Section:
    """Blocks under a heading, after a sentence that says what they show."""

    title: str
    blocks: tuple[Block, ...]
    lead: str = ""


@dataclass(frozen=True)
class Reproduce:
    """How to get the same document again."""

    command: str
    python: str = ""


@dataclass(frozen=True)
class Document:
    """A report."""

    title: str
    subtitle: str
    answer: tuple[str, ...]
    """The answer box; its first line is the headline."""
    sections: tuple[Section, ...]
    reproduce: Reproduce
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Versions, input hash, dates of prices: never the current time."""

    def __post_init__(self) -> None:
        names = [figure.name for figure in self.figures]
        wrong = [name for name in names if names.count(name) > 1 or not NAME.fullmatch(name)]
        if wrong:
            msg = f"figures need names of their own, of small letters, digits and hyphens: {wrong}"
            raise ValueError(msg)

    @property
    def figures(self) -> tuple[Figure, ...]:
        """Every figure, in order."""
        return tuple(block for section in self.sections for block in section.blocks if isinstance(block, Figure))
