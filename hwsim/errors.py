"""What can go wrong, each with the exit code that scripts rely on."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HwsimError(Exception):
    """An error that a user can act on: one clear message, no traceback."""

    exit_code = 1


class UsageError(HwsimError):
    """A wrong flag, argument or name."""

    exit_code = 2


class InputFileError(HwsimError):
    """A file (or a dict of fields) that does not describe what it should; carries every problem found in it."""

    exit_code = 3

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


class InfeasibleError(HwsimError):
    """Nothing legal fits; the message names the binding constraint and the nearest change that would help."""

    exit_code = 4


class ToleranceError(HwsimError):
    """Predictions left their stated tolerance."""

    exit_code = 5


def did_you_mean(word: str, options: Iterable[str], count: int = 3) -> str:
    """Return `` - did you mean a, b?`` for the options nearest to `word`, or an empty string.

    Examples
    --------
    >>> did_you_mean("bandwith", ["bandwidth", "capacity"])
    ' - did you mean bandwidth?'
    """
    near = difflib.get_close_matches(word[:200].lower(), list(options), n=count, cutoff=0.6)
    return f" - did you mean {', '.join(near)}?" if near else ""


def shorten(text: object, limit: int = 60) -> str:
    """Show a value a user typed, cut to `limit` characters, control characters escaped.

    Examples
    --------
    >>> shorten("a" * 100, 5)
    "'aaaaa…'"
    """
    shown = repr(str(text)[: limit + 1])
    return shown if len(str(text)) <= limit else shown[: limit + 1] + "…'"
