"""A document as one self-contained HTML page."""

from __future__ import annotations

from hwsim.report.document import Document


def to_html(document: Document) -> str:
    """The page: styles, script and figures inside, nothing loaded from anywhere."""
    raise NotImplementedError
