"""`hwsim faq`."""

from __future__ import annotations

from typing import Annotated

import typer

from hwsim.cli import options as o
from hwsim.cli.output import check_targets, emit


def faq(
    model: Annotated[
        str,
        typer.Argument(
            help="Preset, alias, model YAML, or Hugging Face config.json.", autocompletion=o.complete_models
        ),
    ],
    gpus: Annotated[
        int | None,
        typer.Option("--gpus", "--devices", "--chips", help="Devices to train on (default: enough for 30 days)."),
    ] = None,
    hardware: o.HardwareFlag = "h100-sxm-80",
    tokens: Annotated[
        str | None, typer.Option("--tokens", help="Training tokens, e.g. 15T (default: compute-optimal).")
    ] = None,
    grid: Annotated[
        str | None, typer.Option("--grid", help="Where the electricity comes from (hwsim grids list).")
    ] = None,
    profiles: o.ProfilesFlag = None,
    out: o.FormatFlag = o.Format.TABLE,
    as_json: o.JsonFlag = False,
    output: o.OutFlag = None,
) -> None:
    """Answer what everybody asks: how much data, how long, how many devices, how fast, how much energy and carbon.

    Example: hwsim faq 70b --tokens 15T --gpus 1024
    """
    import hwsim

    check_targets({"-o": output})
    budget = tokens if tokens == "optimal" else o.count("--tokens", tokens)
    found = hwsim.faq(model, hardware, gpus, tokens=budget, grid=grid, profiles=profiles)

    def table() -> list[object]:
        from hwsim.report.faq import faq_view

        return faq_view(found)

    emit(found.to_dict, found.rows, table, (out, as_json, output))
