"""`hwsim fit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwsim.cli import options as o
from hwsim.cli.output import check_targets, emit, progress
from hwsim.errors import InputFileError, UsageError, did_you_mean, shorten
from hwsim.report.writing import write_with

FIT = "Fit"


def fit(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Folder of measured tables (kernels/gemm.csv.gz, ...).")],
    only: Annotated[
        str | None,
        typer.Option("--only", help="Kinds: gemm,attention,experts,latent,stream,collectives.", rich_help_panel=FIT),
    ] = None,
    profiles: Annotated[
        str, typer.Option("--profiles", help="Folder of the profiles to write into.", rich_help_panel=FIT)
    ] = "hardware_profiles",
    write: Annotated[
        bool, typer.Option("--write/--no-write", help="Write what was found into the profiles.", rich_help_panel=FIT)
    ] = False,
    record: Annotated[
        str | None,
        typer.Option(
            "--record", help="Write the errors left out, for the scoreboard, to this CSV.", rich_help_panel=FIT
        ),
    ] = None,
    date: Annotated[
        str | None, typer.Option("--date", help="Day of the fit in the sources (default: today).", rich_help_panel=FIT)
    ] = None,
    out: o.FormatFlag = o.Format.TABLE,
    as_json: o.JsonFlag = False,
    output: o.OutFlag = None,
) -> None:
    """Fit the curves of the profiles on measured tables, and say how far they are from rows they never saw.

    Example: hwsim fit ./measured --only gemm --write
    """
    from hwsim.fitting import fit as fit_kind
    from hwsim.fitting.profile_writer import write_fits
    from hwsim.report.fits import fit_rows, fits_view
    from hwsim.report.fits import record as errors_record

    kinds, day = _kinds(only), _day(date)
    if not folder.strip():
        msg = "DIR: no folder given"
        raise UsageError(msg)
    check_targets({"--record": record, "-o": output})
    if write and not Path(profiles).is_dir():
        msg = f"--profiles {shorten(profiles, 200)}: no such folder"
        raise UsageError(msg)
    fits = []
    with progress(len(kinds), "fitting") as advance:
        for kind in kinds:
            advance(kind)
            fits += fit_kind(kind, Path(folder))
    if not fits:
        msg = f"{folder}: nothing to fit: no table holds enough rows of a device that has a profile"
        raise InputFileError([msg])
    rows = fit_rows(fits)
    data = {"schema_version": 1, "kind": "fit", "folder": folder, "kinds": kinds, "fits": rows, "written": []}
    if write:
        data["written"] = [str(path) for path in write_fits(fits, Path(profiles), day)]
    if record:
        write_with(record, "--record", lambda path: path.write_text(errors_record(fits), encoding="utf-8"))
    emit(lambda: data, lambda: rows, lambda: fits_view(fits), (out, as_json, output))


def _kinds(only: str | None) -> list[str]:
    """Kinds of fits asked for, in the order they run."""
    from hwsim.fitting import available

    known = available()
    asked = [name.strip() for name in only.split(",")] if only is not None else known
    for name in asked:
        if name not in known:
            msg = f"--only {shorten(name)}: knows {', '.join(known)}{did_you_mean(name, known)}"
            raise UsageError(msg)
    return [name for name in known if name in asked]


def _day(text: str | None) -> str:
    """The day given, or today, as ISO 8601 writes it."""
    from datetime import UTC, date, datetime

    if text is None:
        return datetime.now(UTC).date().isoformat()
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        msg = f"--date {shorten(text)}: must be a day such as 2026-11-25"
        raise UsageError(msg) from None
