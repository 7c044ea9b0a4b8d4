"""`hwsim report`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hwsim.cli import options as o
from hwsim.cli import planning as p
from hwsim.cli import simulate as s
from hwsim.cli.output import check_report, write_report
from hwsim.cli.whatif import answered
from hwsim.errors import UsageError

OWN = ("scenario", "output", "assets", "settings", "profiles", "task")
"""Flags that are no fields of a question as they are, or go with a scenario too."""


def report(
    scenario: Annotated[
        str | None,
        typer.Argument(
            help="A scenario file, or the name of one that ships; or --model.", autocompletion=o.complete_scenarios
        ),
    ] = None,
    model: o.MaybeModelFlag = None,
    gpus: p.GpusFlag = None,
    hardware: o.MaybeHardwareFlag = None,
    task: p.TaskFlag = "train",
    tokens: p.TokensFlag = None,
    qps: s.Qps = None,
    ttft_ms: s.TtftMs = None,
    tpot_ms: s.TpotMs = None,
    seq_len: o.SeqFlag = None,
    global_batch: o.BatchFlag = None,
    precision: o.PrecisionFlag = None,
    settings: o.SetFlag = [],  # noqa: B006
    profiles: o.ProfilesFlag = None,
    output: o.ReportOutFlag = "report.html",
    assets: o.AssetsFlag = None,
) -> None:
    """Write a report, of a scenario file or of one plan: a page that is whole in itself and prints to A4, or Markdown.

    Example: hwsim report buy-h200-or-a100 -o buy.html   |   hwsim report --model 70b --gpus 64 --tokens 15T

    Python: hwsim.write_report(hwsim.whatif("buy-h200-or-a100"), "buy.html")
    """
    flags = o.given(**locals())
    check_report(output, assets, {}, "-o")
    asked: dict[str, Any] = {name: value for name, value in flags.items() if name not in OWN}
    if (scenario is None) == (model is None):
        msg = "give a scenario file, or --model (hwsim report memory-and-network, hwsim report --model 70b --gpus 64)"
        raise UsageError(msg)
    if scenario is not None:
        if asked or task != "train":
            word = next(iter(asked), "task").replace("_", "-")
            msg = f"--{word}: the scenario says that; change it with --set"
            raise UsageError(msg)
        from hwsim import scenario_api as api

        loaded = api.resolve_scenario(scenario, api.settings_of(settings), profiles)
        write_report(answered(loaded, profiles), output, assets, profiles)
        return
    from hwsim.reporting import answer_of, fields_of

    asked |= {"task": task, "settings": settings} | o.given(tokens=p.token_count(tokens))
    write_report(answer_of(fields_of(asked), profiles), output, assets, profiles)
