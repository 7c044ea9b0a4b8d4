"""`hwsim sensitivity`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from hwsim.cli import estimate as e
from hwsim.cli import infer as i
from hwsim.cli import options as o
from hwsim.cli import planning as p
from hwsim.cli import simulate as s
from hwsim.cli.output import check_targets, emit, progress
from hwsim.report.writing import write_with

LEVERS = "Levers"
TURNS = 24
"""About as many as a machine and a job have."""
OWN = ("model", "hardware", "picture", "out", "as_json", "output")
"""Flags that are no keyword arguments of the facade."""


def sensitivity(
    model: o.ModelFlag,
    gpus: p.GpusFlag = None,
    hardware: o.HardwareFlag = "h100-sxm-80",
    task: p.TaskFlag = "train",
    change: Annotated[
        float, typer.Option("--change", help="Share by which each thing is turned.", rich_help_panel=LEVERS)
    ] = 0.1,
    replan: Annotated[
        bool,
        typer.Option(
            "--replan/--no-replan", help="Search again on every changed machine (slower).", rich_help_panel=LEVERS
        ),
    ] = False,
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric", help="Sort by it: step_time_s, tokens_per_s, energy_j_per_token, ...", rich_help_panel=LEVERS
        ),
    ] = None,
    tp: e.Tp = None,
    pp: e.Pp = None,
    vpp: e.Vpp = None,
    cp: e.Cp = None,
    dp: i.Dp = None,
    ep: e.Ep = None,
    etp: e.Etp = None,
    zero: e.Zero = None,
    shard: e.Shard = None,
    micro_batch: e.Micro = None,
    recompute: e.Recompute = None,
    sequence_parallel: e.SequenceParallel = None,
    schedule: e.Schedule = None,
    order: e.Order = None,
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
    batch: i.Batch = None,
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
    qps: s.Qps = None,
    ttft_ms: s.TtftMs = None,
    tpot_ms: s.TpotMs = None,
    percentile: p.PercentileFlag = None,
    objective: Annotated[
        str | None, typer.Option("--objective", help="Of the plan: throughput, latency, cost or energy.",
                                 rich_help_panel=p.TARGET)
    ] = None,
    pin: p.PinFlag = [],  # noqa: B006
    settings: o.SetFlag = [],  # noqa: B006
    profiles: o.ProfilesFlag = None,
    picture: Annotated[
        str | None,
        typer.Option("--plot", help="Draw the tornado into this .png, .svg or .pdf.", rich_help_panel=o.OUTPUT),
    ] = None,
    out: o.FormatFlag = o.Format.TABLE,
    as_json: o.JsonFlag = False,
    output: o.OutFlag = None,
) -> None:  # fmt: skip
    """Turn each thing about machine and job 10 % down and up: what is worth more, of the best plan or a given one.

    Example: hwsim sensitivity --model 70b --gpus 64 --replan --plot tornado.png
    """
    flags = o.given(**locals())
    import hwsim
    from hwsim.asking import call_of

    asked = {name: value for name, value in flags.items() if name not in OWN}
    check_targets({"--plot": picture, "-o": output})
    s.check_picture(picture)
    with turning(replan) as begin:
        found = hwsim.sensitivity(model, hardware, **asked, progress=begin)
    if not found.base.fits:
        typer.echo(f"hwsim: warning: this strategy does not fit in device memory: {found.base.note}", err=True)
    shown = metric or found.metric
    if picture:
        from hwsim.report.sensitivity import plot

        write_with(picture, "--plot", lambda path: plot(found, shown, path))

    def table() -> list[object]:
        from hwsim.report.sensitivity import sensitivity_view

        call = {"model": model, "hardware": hardware, **call_of(hwsim.sensitivity, asked)}
        return sensitivity_view(found, call, shown)

    emit(found.to_dict, found.rows, table, (out, as_json, output))


@contextmanager
def turning(replan: bool) -> Iterator[Callable[[str], None] | None]:
    """A bar where every lever takes a search; nothing where all of them take a blink."""
    if not replan:
        yield None
        return
    with progress(TURNS, "turning") as begin:
        yield begin
