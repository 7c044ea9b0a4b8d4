"""`hwsim size`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hwsim.cli import infer as i
from hwsim.cli import options as o
from hwsim.cli import planning as p
from hwsim.cli import simulate as s
from hwsim.cli.output import check_report, emit, progress, write_report

MOST_TRIALS = 20
"""About as many plans as one kind of hardware takes."""
OWN = ("model", "hardware", "tokens", "budget_usd", "report", "assets", "out", "as_json", "output")
"""Flags that are no keyword arguments of the facade as they are."""


def size(
    model: o.ModelFlag,
    hardware: o.HardwaresFlag = ["h100-sxm-80"],  # noqa: B006
    task: p.TaskFlag = "train",
    tokens: p.TokensFlag = None,
    target_days: p.DaysFlag = None,
    budget_usd: Annotated[
        str | None,
        typer.Option("--budget-usd", help="Most rent for --tokens, e.g. 5M: the fastest.", rich_help_panel=p.TARGET),
    ] = None,
    target_tokens_per_s: p.RateFlag = None,
    qps: s.Qps = None,
    ttft_ms: s.TtftMs = None,
    tpot_ms: s.TpotMs = None,
    percentile: p.PercentileFlag = None,
    power_cap: Annotated[
        str | None,
        typer.Option("--power-cap", help="Most mean power of the nodes, e.g. '2 MW'.", rich_help_panel=p.TARGET),
    ] = None,
    headroom: Annotated[
        float,
        typer.Option("--headroom", help="Share of time lost to failures, restarts, stragglers.",
                     rich_help_panel=p.TARGET),
    ] = 0.1,
    max_gpus: Annotated[
        int | None,
        typer.Option("--max-gpus", "--max-devices", "--max-chips", help="Most devices.", rich_help_panel=p.TARGET),
    ] = None,
    global_batch: o.BatchFlag = None,
    seq_len: o.SeqFlag = None,
    precision: o.PrecisionFlag = None,
    attention: o.AttentionFlag = None,
    optimizer: o.OptimizerFlag = None,
    method: o.MethodFlag = None,
    rank: o.RankFlag = None,
    frozen: o.FrozenFlag = None,
    offload: o.OffloadFlag = None,
    source_len: o.SourceFlag = None,
    images: o.ImagesFlag = None,
    imbalance: o.ImbalanceFlag = None,
    capacity: o.CapacityFlag = None,
    graphs: o.GraphsFlag = None,
    framework: o.FrameworkFlag = None,
    input_len: i.InputLen = None,
    output_len: i.OutputLen = None,
    weights: i.Weights = None,
    kv: i.Kv = None,
    engine: i.EngineFlag = None,
    prefix_hit: i.PrefixHit = None,
    draft_tokens: i.DraftTokens = None,
    acceptance: i.AcceptanceFlag = None,
    draft: i.Draft = None,
    skew: i.Skew = None,
    pin: p.PinFlag = [],  # noqa: B006
    settings: o.SetFlag = [],  # noqa: B006
    profiles: o.ProfilesFlag = None,
    report: o.ReportFlag = None,
    assets: o.AssetsFlag = None,
    out: o.FormatFlag = o.Format.TABLE,
    as_json: o.JsonFlag = False,
    output: o.OutFlag = None,
) -> None:  # fmt: skip
    """Find how many devices a deadline, a budget, a throughput, traffic or a power cap needs, and which.

    Example: hwsim size --model 70b --tokens 15T --target-days 60 --hardware h100-sxm-80 --hardware b200-sxm
    """
    flags = o.given(**locals())
    import hwsim

    asked: dict[str, Any] = {name: value for name, value in flags.items() if name not in OWN}
    asked |= o.given(tokens=p.token_count(tokens), budget_usd=o.count("--budget-usd", budget_usd))
    check_report(report, assets, {"-o": output})
    machines = hardware[0] if len(hardware) == 1 else hardware
    with progress(MOST_TRIALS * len(hardware), "planning") as begin:
        found = hwsim.size(model, machines, **asked, progress=begin)
    write_report(found, report, assets, profiles)

    def table() -> list[object]:
        from hwsim.report.size import size_view

        return size_view(found, {"model": model, "hardware": machines, **found.asked})

    emit(found.to_dict, found.rows, table, (out, as_json, output))
