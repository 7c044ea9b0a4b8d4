"""`hwsim calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwsim.cli import options as o
from hwsim.cli.output import emit, progress, refuse_unwritable, write_file
from hwsim.errors import UsageError

MEASURING = "Measuring"
BUSY = 0.15
"""Share of the moments in which others may use the machine before the user is told."""


def calibrate(
    device: Annotated[str, typer.Option("--device", help="cpu or cuda.", rich_help_panel=MEASURING)] = "cpu",
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads", min=1, help="Threads of one process (default: a core each).", rich_help_panel=MEASURING
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Id of the profile (default: my-cpu, my-cuda).", rich_help_panel=MEASURING),
    ] = None,
    out: o.FormatFlag = o.Format.TABLE,
    as_json: o.JsonFlag = False,
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="Write the profile to this YAML.", rich_help_panel=o.OUTPUT)
    ] = None,
) -> None:
    """Measure this machine with PyTorch, fit a hardware profile on it, and say how far the profile is from what it
    never saw.

    Example: hwsim calibrate -o my-machine.yaml, then hwsim estimate train --hardware my-machine.yaml --precision fp32
    """
    from hwsim.live.calibrate import PARTS
    from hwsim.live.calibrate import calibrate as measured
    from hwsim.report.calibration import calibration_view

    if output == "-":
        msg = "-o -: the profile needs a file of its own, as the table goes to stdout"
        raise UsageError(msg)
    if output is not None:
        refuse_unwritable(output, "-o")
    with progress(len(PARTS), "measuring") as advance:
        found = measured(device, threads=threads, name=name, advance=advance)
    if found.facts.busy > BUSY:
        often = f"in {found.facts.busy:.0%} of the moments looked at"
        typer.echo(f"hwsim: others used the machine {often}: calibrate again when it is quiet", err=True)
    if output is not None:
        write_file(Path(output), found.text)
    data = found.to_dict() | {"written": output}
    emit(lambda: data, lambda: data["fits"], lambda: calibration_view(found, output), (out, as_json, None))
