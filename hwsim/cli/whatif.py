"""`hwsim whatif` and `hwsim new`: scenario files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hwsim.cli import options as o
from hwsim.cli.output import check_report, check_targets, emit, progress, write_file, write_report
from hwsim.errors import InfeasibleError, UsageError

if TYPE_CHECKING:
    from hwsim.scenarios.loading import Loaded
    from hwsim.scenarios.run import WhatIf


def whatif(
    scenario: Annotated[
        str, typer.Argument(help="A scenario file, or the name of one that ships.", autocompletion=o.complete_scenarios)
    ],
    settings: Annotated[
        list[str], typer.Option("--set", help="Change a field of the base: gpus=128, job.seq_len=4096. Repeatable.")
    ] = [],  # noqa: B006
    resolved: Annotated[
        bool, typer.Option("--resolved", help="Print what is asked, every override worked out, and do nothing.")
    ] = False,
    report: o.ReportFlag = None,
    assets: o.AssetsFlag = None,
    profiles: o.ProfilesFlag = None,
    out: o.FormatFlag = o.Format.TABLE,
    as_json: o.JsonFlag = False,
    output: o.OutFlag = None,
) -> None:
    """Answer a scenario file: scenarios beside a base, with reasons; sweeps; expectations (exit 4 where one fails).

    Example: hwsim whatif memory-and-network   |   hwsim new scenario -o mine.yaml
    """
    from hwsim import scenario_api as api

    check_report(report, assets, {"-o": output})
    changed = api.settings_of(settings)
    loaded = api.resolve_scenario(scenario, changed, profiles)
    if resolved:
        asked = {"title": loaded.scenario.title} | {a.question.name: a.question.plain() for a in loaded.asked}
        rows = [{"scenario": each.question.name, **each.question.plain()} for each in loaded.asked]
        emit(lambda: asked, lambda: rows, lambda: _asked(rows), (out, as_json, output))
        return
    result = answered(loaded, profiles)
    write_report(result, report, assets, profiles)

    def table() -> list[object]:
        from hwsim.report.whatif import whatif_view

        return whatif_view(result)

    rows_of = result.swept.rows if result.swept else result.rows
    emit(result.to_dict, rows_of, table, (out, as_json, output))
    if not result.holds:
        failed = next(verdict for verdict in result.verdicts if not verdict.holds)
        msg = f"{failed.place}: {failed.scenario}: {failed.what} does not hold: {failed.reached}"
        raise InfeasibleError(msg)


def answered(loaded: Loaded, profiles: str | None) -> WhatIf:
    """The answers to a scenario file, under a bar."""
    from hwsim.scenarios.run import run

    with progress(len(loaded.asked) + bool(loaded.scenario.sweep), "answering") as begin:
        return run(loaded, profiles, begin)


def _asked(rows: list[dict[str, object]]) -> list[object]:
    """The questions, field by field."""
    from hwsim.report.plan import labelled
    from hwsim.report.terminal import plain

    view: list[object] = []
    for row in rows:
        fields = {str(path): str(value) for path, value in row.items() if path != "scenario"}
        view += [f"[bold]{plain(str(row['scenario']))}[/bold]", labelled(fields), ""]
    return view


def new_scenario(
    output: Annotated[str, typer.Option("-o", "--output", help="File to write (-: stdout).")] = "scenario.yaml",
    schema: Annotated[bool, typer.Option("--schema", help="Write the JSON schema for editors instead.")] = False,
) -> None:
    """Write a commented scenario file to start from.

    Example: hwsim new scenario -o mine.yaml
    """
    import sys
    from pathlib import Path

    from hwsim import scenario_api as api
    from hwsim.report.tables import to_json

    text = to_json(api.scenario_schema()) + "\n" if schema else api.scenario_template()
    if output == "-":
        sys.stdout.write(text)
        return
    check_targets({"-o": output})
    if Path(output).exists():
        msg = f"-o {output}: is there already"
        raise UsageError(msg)
    write_file(Path(output), text)
