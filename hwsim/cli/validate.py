"""`hwsim validate published` and `hwsim validate pytorch`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwsim.cli import options as o
from hwsim.cli.output import check_targets, emit, progress
from hwsim.errors import ToleranceError, UsageError, shorten
from hwsim.report.writing import write_with

PICTURES = (".png", ".svg", ".pdf")


def published(
    group: Annotated[
        str | None, typer.Option("--group", help="Only groups and sources named like this.", rich_help_panel=o.WORK)
    ] = None,
    rows: Annotated[bool, typer.Option("--rows", help="List every row, not only those that are off.")] = False,
    picture: Annotated[
        str | None, typer.Option("--plot", help="Draw predicted against published into this PNG, SVG or PDF.")
    ] = None,
    write_bands: Annotated[
        str | None,
        typer.Option("--write-bands", help="Write the bands that estimates print, from these rows, to this YAML."),
    ] = None,
    write_left_out: Annotated[
        str | None,
        typer.Option(
            "--write-left-out",
            help="Choose the constants again without each source, and write the errors to this CSV (2 min).",
        ),
    ] = None,
    write_scores: Annotated[
        str | None,
        typer.Option("--write-scores", help="Write the serving groups, which reports print, to this CSV."),
    ] = None,
    out: o.FormatFlag = o.Format.TABLE,
    as_json: o.JsonFlag = False,
    output: o.OutFlag = None,
) -> None:
    """Hold the predictions against every published measurement that ships with hwsim.

    Exits with 5 when a group leaves its stated tolerance. Example: hwsim validate published --plot scoreboard.png
    """
    import hwsim
    from hwsim.validation.kernels import kernel_errors
    from hwsim.validation.serving import serving_sources

    if write_bands is not None and group is not None:
        msg = "--write-bands: bands come from every row: leave out --group"
        raise UsageError(msg)
    written = {"--write-bands": write_bands, "--write-left-out": write_left_out, "--write-scores": write_scores}
    check_targets({"--plot": picture, **written, "-o": output})
    if picture and Path(picture).suffix.lower() not in PICTURES:
        msg = f"--plot needs .png, .svg or .pdf, not {shorten(picture, 200)}"
        raise UsageError(msg)
    if write_left_out:
        _leave_out(write_left_out)
    with progress(len(serving_sources()), "serving runs of") as begin:
        board = hwsim.validate_published(group, begin)
    if picture:
        from hwsim.report.scoreboard import plot

        write_with(picture, "--plot", lambda path: plot(board, path))

    if write_bands:
        from hwsim.validation.bands import bands_file

        write_with(write_bands, "--write-bands", lambda path: path.write_text(bands_file(board.rows), encoding="utf-8"))

    if write_scores:
        from hwsim.validation.serving import scores_file

        text = scores_file(board.groups)
        write_with(write_scores, "--write-scores", lambda path: path.write_text(text, encoding="utf-8"))

    def table() -> list[object]:
        from hwsim.report.scoreboard import view

        return view(board, [] if group else kernel_errors(), rows)

    emit(board.to_dict, lambda: [row.to_dict() for row in board.rows], table, (out, as_json, output))
    if not board.holds:
        names = ", ".join(f"{g.name} ({g.mean:.1%} of {g.tolerance:.1%})" for g in board.groups if not g.holds)
        msg = f"out of tolerance: {names}"
        raise ToleranceError(msg)


def pytorch(
    short: Annotated[bool, typer.Option("--short", help="Fewer models, in under a minute.")] = False,
    hardware: Annotated[
        str | None,
        typer.Option("--hardware", help="Profile of this machine (hwsim calibrate): compare step times too."),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="cpu or cuda.")] = "cpu",
    rows: Annotated[bool, typer.Option("--rows", help="List every row, equal states too.")] = False,
    out: o.FormatFlag = o.Format.TABLE,
    as_json: o.JsonFlag = False,
    output: o.OutFlag = None,
) -> None:
    """Hold the predictions against PyTorch: parameters, state, FLOPs, saved bytes, peak memory, number by number.

    Builds and trains small models on this machine, and runs large presets without memory. Exits with 5 when a number
    is out of tolerance. Example: hwsim validate pytorch --short
    """
    import hwsim
    from hwsim.live.compare import parts

    check_targets({"-o": output})
    with progress(len(parts(short)), "running") as begin:
        found = hwsim.validate_pytorch(short, hardware, device=device, begin=begin)

    def table() -> list[object]:
        from hwsim.report.pytorch import view

        return view(found, rows)

    emit(found.to_dict, lambda: [row.to_dict() for row in found.rows], table, (out, as_json, output))
    if not found.holds:
        off = [f"{row.id} ({row.error:+.2%})" for row in found.rows if not row.holds]
        msg = f"out of tolerance: {', '.join(off)}"
        raise ToleranceError(msg)


def _leave_out(path: str) -> None:
    """Predict every source with constants chosen without it, under a bar, and write the errors."""
    from hwsim.validation.left_out import leave_out, record, sources_of_steps

    with progress(len(sources_of_steps()), "leaving out") as advance:
        text = record(leave_out(advance))
    write_with(path, "--write-left-out", lambda target: target.write_text(text, encoding="utf-8"))
