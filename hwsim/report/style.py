"""How reports look: colours that most eyes tell apart in light and in dark, one font, text that fits its place."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999", "#8c564b", "#4b0082")
"""Okabe and Ito's colours and four more that most eyes tell apart."""
MARKERS = "osD^vP*X<>"
BLACK, WHITE = "#101418", "#ffffff"
SMALL, NORMAL, LARGE = 8.0, 9.0, 11.0
"""Sizes of text in figures, in points."""
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
"""Control characters, half characters, and marks that turn the direction of what follows."""


@dataclass(frozen=True)
class Theme:
    """The colours of a page and of its figures."""

    ink: str
    muted: str
    grid: str
    paper: str
    surface: str
    accent: str
    good: str
    bad: str
    series: tuple[str, ...]
    on: tuple[str, ...]
    """Text on a surface of each colour of the series."""

    def variables(self) -> dict[str, str]:
        """Names of CSS variables and their colours."""
        plain = ("ink", "muted", "grid", "paper", "surface", "accent", "good", "bad")
        numbered = {f"{kind}-{i}": colour for kind in ("series", "on") for i, colour in enumerate(getattr(self, kind))}
        return {name: getattr(self, name) for name in plain} | numbered


def luminance(colour: str) -> float:
    """Relative luminance of a colour such as ``#0072b2``, as WCAG defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Contrast of two colours, 1 to 21, as WCAG defines it.

    Examples
    --------
    >>> round(contrast("#ffffff", "#000000"))
    21
    """
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def readable_on(colour: str) -> str:
    """Black or white, whichever reads better on a colour."""
    return max(BLACK, WHITE, key=lambda text: contrast(text, colour))


_BRIGHT = ("#4aa8e0", "#ff8f4d", "#2fc49c", "#e3a1c6", "#f2b632", "#9ad6f5", "#dfe6ec", "#a6adb4", "#c99285", "#b49bea")
LIGHT = Theme(
    ink="#1b2026", muted="#58616b", grid="#dde2e7", paper="#ffffff", surface="#f3f6f8", accent="#0a5a92",
    good="#00785a", bad="#b84700", series=COLOURS, on=tuple(map(readable_on, COLOURS)),
)  # fmt: skip
DARK = Theme(
    ink="#e7ecf1", muted="#a3aeb9", grid="#323b45", paper="#12171d", surface="#1b222a", accent="#7cc4f5",
    good="#4fd1ae", bad="#ff9d66", series=_BRIGHT, on=tuple(map(readable_on, _BRIGHT)),
)  # fmt: skip
_PLACES = {name: f"#fade{place:02x}" for place, name in enumerate(LIGHT.variables())}
"""Colours that stand for variables until the page has them."""
SCREEN = Theme(
    **{name: _PLACES[name] for name in ("ink", "muted", "grid", "paper", "surface", "accent", "good", "bad")},
    series=tuple(_PLACES[f"series-{i}"] for i in range(len(COLOURS))),
    on=tuple(_PLACES[f"on-{i}"] for i in range(len(COLOURS))),
)
"""A theme whose colours become the CSS variables of the page, which follow the reader's light or dark."""
_VARIABLE = {place: f"var(--{name})" for name, place in _PLACES.items()}


def as_variables(style: str) -> str:
    """A style attribute with the colours of `SCREEN` replaced by their variables."""
    return re.sub("#fade[0-9a-f]{2}", lambda found: _VARIABLE[found.group()], style)


def clean(text: str) -> str:
    """Text without what no reader should meet: control characters and marks that reverse what follows.

    Examples
    --------
    >>> clean("a\\x00b\\u202ec")
    'abc'
    """
    return UNSEEN.sub("", text)


def fit(text: str, width: int, lines: int = 1) -> str:
    """Text on at most so many lines of so many characters, its end replaced by an ellipsis where it is longer.

    Examples
    --------
    >>> fit("waiting for the host to launch kernels", 16, 2)
    'waiting for the\\nhost to launch…'
    """
    parts = textwrap.wrap(" ".join(clean(text).split()), width)
    if len(parts) <= lines:
        return "\n".join(parts)
    last = textwrap.wrap(parts[lines - 1], width - 1)[0]
    return "\n".join([*parts[: lines - 1], last + "…"])
