"""Writing reports and their figures, never half a file."""

from __future__ import annotations

from pathlib import Path

from hwsim.report.document import Document


def write_report(document: Document, path: str | Path, flag: str = "--report") -> None:
    """Write a document as its suffix says (.html, .htm, .md), all at once.

    Raises
    ------
    UsageError
        If the suffix is another, or the path, which `flag` gave, cannot be written.
    """
    raise NotImplementedError


def write_assets(document: Document, folder: str | Path, flag: str = "--assets") -> tuple[Path, ...]:
    """Write every figure as NAME.png, NAME.svg and NAME.csv; which files were written.

    Raises
    ------
    UsageError
        If the folder, which `flag` gave, cannot be made or written.
    """
    raise NotImplementedError
