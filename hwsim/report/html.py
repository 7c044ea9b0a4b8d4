"""A document as one self-contained HTML page."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from hwsim.report.document import Block, Cell, Column, Document, Figure, Table, Value
from hwsim.report.figures.values import SI
from hwsim.report.style import DARK, LIGHT, Theme, clean
from hwsim.units import show

if TYPE_CHECKING:
    from markupsafe import Markup

SANS = (
    'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, "Noto Sans", "Liberation Sans", sans-serif'
)
DIMENSIONS = {unit: dimension for dimension, unit in SI.items()}
"""Of the units in a figure's data, which a reader is shown in larger ones."""
LONG = 24
"""Characters from which a text is given room in its table."""
MOST_NUMBERS = 60
"""Rows of a figure's data that the page has; its CSV has all."""


def to_html(document: Document) -> str:
    """The page: styles, script and figures inside, nothing loaded from anywhere."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hwsim.report", "templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined, finalize=_shown,
    )  # fmt: skip
    environment.filters |= {
        "cells": as_cells,
        "kinds": _kinds, "sorts": _sort_value, "numbers": numbers, "paragraphs": paragraphs, "picture": _picture,
        "kind": _kind,
    }  # fmt: skip
    script = _resource("page.js")
    page = environment.get_template("page.html.j2")
    return (
        page.render(document=document, policy=_policy(script), css=Markup(stylesheet()), script=Markup(script)) + "\n"
    )


def stylesheet() -> str:
    """The page's CSS, its variables in light and in dark."""
    dark = f"@media screen and (prefers-color-scheme: dark) {{ {_variables(DARK, 'dark')} }}"
    return f"{_variables(LIGHT, 'light')}\n{dark}\n{_resource('page.css')}"


def _variables(theme: Theme, scheme: str) -> str:
    colours = " ".join(f"--{name}: {colour};" for name, colour in theme.variables().items())
    return f":root {{ color-scheme: {scheme}; --sans: {SANS}; {colours} }}"


def _resource(name: str) -> str:
    return files("hwsim.report").joinpath("templates", name).read_text(encoding="utf-8")


def _policy(script: str) -> str:
    """What the page may load: nothing, but its own styles, its one script and pictures inside it."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


def _shown(value: Any) -> Any:
    """Text from files and people without its control characters; what is already markup stays."""
    return clean(value) if type(value) is str else value


def _kind(block: Block) -> str:
    return type(block).__name__


def _picture(figure: Figure) -> Markup:
    from markupsafe import Markup

    from hwsim.report.rendering import inline_svg

    return Markup(inline_svg(figure))


def _sort_value(cell: Cell) -> Markup:
    """The attribute a cell sorts by."""
    from markupsafe import Markup

    if cell.sort is None or (isinstance(cell.sort, float) and not math.isfinite(cell.sort)):
        return Markup("")
    return Markup(' data-sort="{}"').format(_shown(str(cell.sort)))


def as_cells(row: Iterable[Cell | str]) -> list[Cell]:
    """A row whose plain texts are cells too."""
    return [Cell(cell) if isinstance(cell, str) else cell for cell in row]


def _kinds(table: Table) -> list[str]:
    """Classes of the cells of each column: those of sentences are given room."""
    every = [[cell.text for cell in as_cells(row)] for row in table.rows]
    longest = [max((len(row[place]) for row in every), default=0) for place in range(len(table.columns))]
    return [
        f"{column.kind} long" if column.kind == "text" and length > LONG else column.kind
        for column, length in zip(table.columns, longest, strict=True)
    ]


def paragraphs(text: str) -> list[str]:
    """Text cut at its blank lines."""
    return [part for part in (part.strip() for part in text.split("\n\n")) if part]


def numbers(figure: Figure, most: int = MOST_NUMBERS) -> Table:
    """The data of a figure as a table."""
    names = list(dict.fromkeys(name for row in figure.data for name in row))
    units = {name: DIMENSIONS.get(name.rpartition(" [")[2].removesuffix("]"), "") for name in names}
    columns = tuple(
        Column(name.rpartition(" [")[0] if units[name] else name, kind=_column_kind(name, figure.data))
        for name in names
    )
    rows = tuple(tuple(_number(row.get(name), units[name]) for name in names) for row in figure.data[:most])
    more = len(figure.data) - most
    notes = (f"{more:,} more rows are in the CSV of this figure.",) if more > 0 else ()
    return Table(f"Numbers of: {figure.title}", columns, rows, notes)


def _column_kind(name: str, rows: Iterable[Mapping[str, Value]]) -> Any:
    return "text" if any(isinstance(row.get(name), str) for row in rows) else "number"


def _number(value: Value, dimension: str) -> Cell:
    if value is None or isinstance(value, str):
        return Cell(value or "")
    if dimension:
        return Cell.of(value, dimension)
    if not math.isfinite(value):
        return Cell("n/a")
    plain = 0.01 <= abs(value) < 1e5 or value == 0
    return Cell(show(value, "count", 4) if plain and abs(value) < 1000 else f"{value:.4g}", float(value))
