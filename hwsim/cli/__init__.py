"""The command line: parse, call the API, print."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run a command; errors become one clear message on stderr and a documented exit code."""
    from hwsim.cli.app import run

    debug = "--debug" in sys.argv[1:]
    code = run([argument for argument in sys.argv[1:] if argument != "--debug"], debug=debug)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
