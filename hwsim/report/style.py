"""How figures look: colours that most eyes tell apart, one font, nothing that is not data."""

from __future__ import annotations

from dataclasses import dataclass

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999", "#8c564b", "#4b0082")
"""Okabe and Ito's colours and four more that most eyes tell apart."""
MARKERS = "osD^vP*X<>"


@dataclass(frozen=True)
class Theme:
    """Colours of a figure."""

    ink: str
    muted: str
    grid: str
    paper: str
    series: tuple[str, ...]
    good: str
    bad: str
