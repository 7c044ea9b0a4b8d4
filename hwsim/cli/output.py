"""Print a result, or write it to a file all at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hwsim.cli.options import Format
from hwsim.errors import UsageError, shorten
from hwsim.report.writing import resolved, write_with


def emit(
    data: Callable[[], Any],
    rows: Callable[[], Sequence[Mapping[str, Any]]],
    table: Callable[[], Sequence[Any]],
    wanted: tuple[Format, bool, str | None],
) -> None:
    """Print one result: `data` for JSON, `rows` for CSV, `table` (things rich can print) for people."""
    how, as_json, path = wanted
    if as_json and how is Format.CSV:
        msg = "--json and --format csv contradict each other"
        raise UsageError(msg)
    how = Format.JSON if as_json else how
    if path not in (None, "-"):
        write_file(Path(path), _text(how, data, rows, table))
    elif how is Format.TABLE:
        from hwsim.report.terminal import print_all

        print_all(table())
    else:
        sys.stdout.write(_text(how, data, rows, table))


def _text(how: Format, data: Callable[[], Any], rows: Callable[[], Any], table: Callable[[], Any]) -> str:
    from hwsim.report.tables import to_csv, to_json

    if how is Format.JSON:
        return to_json(data()) + "\n"
    if how is Format.CSV:
        return to_csv(rows())
    from hwsim.report.terminal import as_text

    return as_text(table())


def write_file(path: Path, text: str) -> None:
    """Write text to `path`: never half a file."""
    write_with(path, "-o", lambda target: target.write_text(text, encoding="utf-8"))


def check_targets(targets: Mapping[str, str | None]) -> None:
    """Refuse, before long work, flags whose file has no name, cannot be written, or is that of another flag.

    Raises
    ------
    UsageError
        Naming the flag.
    """
    written: dict[Path, str] = {}
    for flag, path in targets.items():
        if path is None or (flag == "-o" and path == "-"):
            continue
        if not path.strip():
            msg = f"{flag}: no file name given"
            raise UsageError(msg)
        refuse_unwritable(path, flag)
        other = written.setdefault(resolved(path, flag), flag)
        if other != flag:
            msg = f"{flag} {shorten(path, 200)}: {other} writes that file too"
            raise UsageError(msg)


def refuse_unwritable(path: str | Path, flag: str) -> None:
    """Refuse a path that could not be written, before long work and not after it.

    Raises
    ------
    UsageError
        If it is a folder, or its folder is missing or closed.
    """
    target = resolved(path, flag)
    device = target.exists() and not target.is_file()  # such as /dev/null: written in place
    if not device and not os.access(target.parent, os.W_OK):
        msg = f"{flag} {shorten(path, 200)}: no folder there that can be written"
        raise UsageError(msg)


def check_report(
    path: str | None, assets: str | None, others: Mapping[str, str | None], flag: str = "--report"
) -> None:
    """Refuse, before long work, a report (whose file `flag` names) or figures that could not be written.

    Raises
    ------
    UsageError
        Naming the flag.
    """
    from hwsim.report.assets import check_suffix

    if assets is not None and path is None:
        msg = "--assets needs --report: the figures are those of a report"
        raise UsageError(msg)
    if path is not None:
        check_suffix(path, flag)
    if assets is not None:
        _check_folder(assets, "--assets")
    check_targets({flag: path, **others})


def _check_folder(path: str, flag: str) -> None:
    """Refuse a folder that is none, or that cannot be made or written."""
    try:
        place = Path(path).resolve()
        there = next(each for each in (place, *place.parents) if each.exists())
        good = bool(path.strip()) and there.is_dir() and os.access(there, os.W_OK)
    except (OSError, RuntimeError, ValueError):
        good = False
    if not good:
        msg = f"{flag} {shorten(path, 200)}: no folder there that can be written"
        raise UsageError(msg)


def write_report(subject: Any, path: str | None, assets: str | None, profiles: str | None) -> None:
    """Write the report that was asked for, if one was; the command line is how to get it again."""
    if path is None:
        return
    import shlex

    from hwsim.reporting import report

    command = f"hwsim {shlex.join(sys.argv[1:])}"
    report(subject, path, command=command, assets=assets, profiles=profiles)
    sys.stderr.write(f"report: {path}\n")


@contextmanager
def progress(total: int, doing: str) -> Iterator[Callable[[str], None]]:
    """A bar on stderr, silent when nobody watches; what it gives is called with the name of each part as it begins."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(doing, total=total, completed=-1)

        def begin(name: str) -> None:
            bar.update(task, description=f"{doing} {name}", advance=1)

        yield begin
