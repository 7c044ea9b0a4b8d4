"""What can go wrong, each with the exit code that scripts rely on."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Sequence

MOST_CHARACTERS = 1800
"""Longest message shown."""
MOST_PROBLEMS = 15
"""Most problems of one file shown."""


class HwsimError(Exception):
    """An error that a user can act on: one clear, short message, no traceback."""

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(message if len(message) <= MOST_CHARACTERS else message[:MOST_CHARACTERS] + "…")


class UsageError(HwsimError):
    """A wrong flag, argument or name."""

    exit_code = 2


class InputFileError(HwsimError):
    """A file (or a dict of fields) that does not describe what it should; carries every problem found in it."""

    exit_code = 3

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(_first(self.problems)))


class InfeasibleError(HwsimError):
    """Nothing legal fits; the message names the binding constraint and the nearest change that would help."""

    exit_code = 4


class ToleranceError(HwsimError):
    """Predictions left their stated tolerance."""

    exit_code = 5


def _first(problems: Sequence[str]) -> list[str]:
    """As many problems as fit into a message, and how many more there are."""
    shown: list[str] = []
    for problem in problems[:MOST_PROBLEMS]:
        if shown and sum(map(len, shown)) + len(problem) > MOST_CHARACTERS - 100:
            break
        shown.append(problem)
    more = len(problems) - len(shown)
    return [*shown, f"… and {more:,} more"] if more else shown


def did_you_mean(word: str, options: Collection[str], count: int = 4) -> str:
    """Return `` - did you mean a, b?`` for the options that start with, resemble or hold `word`, or an empty string.

    Examples
    --------
    >>> did_you_mean("bandwith", ["bandwidth", "capacity"])
    ' - did you mean bandwidth?'
    >>> did_you_mean("A100", ["dgx-a100", "a100-sxm-80"])
    ' - did you mean a100-sxm-80, dgx-a100?'
    """
    word = word[:200].lower()
    known = [option.lower() for option in options]
    part = word if len(word) > 2 else "\0"
    near = [option for option in known if option.startswith(part)]
    near += difflib.get_close_matches(word, known, n=count, cutoff=0.6)
    near += [option for option in known if part in option]
    spelt = [option for found in dict.fromkeys(near) for option in options if option.lower() == found]
    return f" - did you mean {', '.join(spelt[:count])}?" if spelt else ""


def printable(value: object, limit: int = 200) -> str:
    """Show a path or a key a user typed on one line: cut to `limit` characters, control characters escaped.

    Examples
    --------
    >>> printable("a\\tb"), printable("a" * 100, 5)
    ('a\\\\tb', 'aaaaa…')
    """
    try:
        text = str(value)
    except ValueError:
        text = "a number too long to show"
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[:limit])
    return shown if len(text) <= limit else shown + "…"


def shorten(value: object, limit: int = 60) -> str:
    """Show a value a user typed in quotes, as `printable` does.

    Examples
    --------
    >>> shorten("a" * 100, 5)
    "'aaaaa…'"
    """
    return f"'{printable(value, limit)}'"
