"""The command line: parse, call the API, print."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run a command; errors become one clear message on stderr and a documented exit code."""
    from hwsim.cli.app import run

    if sys.stdout is None:  # closed by the caller: writing must fail, and say so
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), encoding="utf-8")
    debug = "--debug" in sys.argv[1:]
    code = run([argument for argument in sys.argv[1:] if argument != "--debug"], debug=debug)
    try:
        sys.stdout.flush()
    except OSError:  # said already; what is left must not fail again when Python ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
