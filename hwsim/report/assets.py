"""Writing reports and their figures, never half a file."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

from hwsim.errors import UsageError, shorten
from hwsim.report.document import Document, Figure, Value
from hwsim.report.style import clean
from hwsim.report.writing import write_with

SUFFIXES = (".html", ".htm", ".md")
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""Text that begins so is run by spreadsheets."""


def check_suffix(path: str | Path, flag: str) -> str:
    """The suffix of a report's file, which says its format.

    Raises
    ------
    UsageError
        If it is none of `SUFFIXES`.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        msg = f"{flag} {shorten(path, 200)}: a report ends in .html or .md"
        raise UsageError(msg)
    return suffix


def report_text(document: Document, path: str | Path, flag: str = "--report", assets: str | Path | None = None) -> str:
    """A document in the format that a file name's suffix says; Markdown links to the pictures in `assets`, if given.

    Raises
    ------
    UsageError
        If the suffix is none of `SUFFIXES`.
    """
    if check_suffix(path, flag) == ".md":
        from hwsim.report.markdown import to_markdown

        return to_markdown(document, None if assets is None else os.path.relpath(assets, Path(path).parent))
    from hwsim.report.html import to_html

    return to_html(document)


def write_report(
    document: Document, path: str | Path, flag: str = "--report", assets: str | Path | None = None
) -> None:
    """Write a document as its suffix says (.html, .htm, .md), all at once; `assets` is where its pictures were written.

    Raises
    ------
    UsageError
        If the suffix is another, or the path, which `flag` gave, cannot be written.
    """
    text = report_text(document, path, flag, assets)
    write_with(path, flag, lambda target: target.write_text(text, encoding="utf-8", newline="\n"))


def write_assets(document: Document, folder: str | Path, flag: str = "--assets") -> tuple[Path, ...]:
    """Write every figure as NAME.png, NAME.svg and NAME.csv; which files were written.

    Raises
    ------
    UsageError
        If the folder, which `flag` gave, cannot be made or written.
    """
    from hwsim.report.rendering import png, svg

    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        msg = f"{flag} {shorten(folder, 200)}: {getattr(error, 'strerror', None) or 'is no folder name'}"
        raise UsageError(msg) from None
    written: list[Path] = []
    for figure in document.figures:
        contents = {".png": png(figure), ".svg": svg(figure).encode(), ".csv": data_csv(figure).encode()}
        for suffix, content in contents.items():
            path = place / f"{figure.name}{suffix}"
            write_with(path, flag, lambda target, content=content: target.write_bytes(content))  # type: ignore[misc]
            written.append(path)
    return tuple(written)


def data_csv(figure: Figure) -> str:
    """A figure's data as CSV; text that a spreadsheet would run begins with an apostrophe."""
    names = list(dict.fromkeys(name for row in figure.data for name in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_plain(name) for name in names])
    writer.writerows([_plain(row.get(name)) for name in names] for row in figure.data)
    return text.getvalue()


def _plain(value: Value) -> Value:
    if not isinstance(value, str):
        return value
    text = clean(value)
    return f"'{text}" if text.startswith(FORMULA) else text
