"""A document as Markdown."""

from __future__ import annotations

from hwsim.report.document import Document


def to_markdown(document: Document, assets: str | None = None) -> str:
    """The document as Markdown; figures link into the folder `assets` or, without one, show their data."""
    raise NotImplementedError
