"""`hwsim estimate train` and `hwsim explain`."""

from __future__ import annotations

from typing import Annotated

import typer

from hwsim.cli import options as o
from hwsim.cli.output import check_report, emit, write_report

Tp = Annotated[int | None, typer.Option("--tp", help="Tensor-parallel size.", rich_help_panel=o.MACHINE)]
Pp = Annotated[int | None, typer.Option("--pp", help="Pipeline stages.", rich_help_panel=o.MACHINE)]
Vpp = Annotated[int | None, typer.Option("--vpp", help="Chunks per pipeline stage.", rich_help_panel=o.MACHINE)]
Cp = Annotated[int | None, typer.Option("--cp", help="Context-parallel size.", rich_help_panel=o.MACHINE)]
Ep = Annotated[int | None, typer.Option("--ep", help="Expert-parallel size.", rich_help_panel=o.MACHINE)]
Etp = Annotated[int | None, typer.Option("--etp", help="Expert-tensor-parallel size.", rich_help_panel=o.MACHINE)]
Zero = Annotated[int | None, typer.Option("--zero", help="ZeRO stage 0-3 (3: FSDP).", rich_help_panel=o.MACHINE)]
Shard = Annotated[
    int | None, typer.Option("--shard", help="Devices ZeRO shards over (default: dp x cp).", rich_help_panel=o.MACHINE)
]
Micro = Annotated[
    int | None, typer.Option("--micro-batch", help="Sequences per micro-batch.", rich_help_panel=o.MACHINE)
]
Recompute = Annotated[
    str | None,
    typer.Option(
        "--recompute",
        help="none, selective, full, or modules: core_attn,mlp_act,layernorm,mlp,attn.",
        rich_help_panel=o.MACHINE,
    ),
]
Schedule = Annotated[
    str | None,
    typer.Option("--schedule", help="gpipe, 1f1b, interleaved, zb-h1 or dualpipe.", rich_help_panel=o.MACHINE),
]
Order = Annotated[
    str | None,
    typer.Option("--order", help="Placement, nearest axis first: tp-cp-dp-pp, ...", rich_help_panel=o.MACHINE),
]
SequenceParallel = Annotated[
    bool | None,
    typer.Option(
        "--sequence-parallel/--no-sequence-parallel",
        help="Shard norms over tp too (default: on).",
        rich_help_panel=o.MACHINE,
    ),
]


def train(
    model: o.ModelFlag,
    gpus: o.GpusFlag = 8,
    hardware: o.HardwareFlag = "h100-sxm-80",
    tp: Tp = None,
    pp: Pp = None,
    vpp: Vpp = None,
    cp: Cp = None,
    ep: Ep = None,
    etp: Etp = None,
    zero: Zero = None,
    shard: Shard = None,
    micro_batch: Micro = None,
    recompute: Recompute = None,
    sequence_parallel: SequenceParallel = None,
    schedule: Schedule = None,
    order: Order = None,
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
    settings: o.SetFlag = [],  # noqa: B006
    profiles: o.ProfilesFlag = None,
    report: o.ReportFlag = None,
    assets: o.AssetsFlag = None,
    out: o.FormatFlag = o.Format.TABLE,
    as_json: o.JsonFlag = False,
    output: o.OutFlag = None,
) -> None:
    """Estimate one training step of one strategy: time, memory, traffic, cost.

    Example: hwsim estimate train --model gpt3 --hardware a100-sxm-80 --gpus 64 --tp 8 --pp 8 --global-batch 64
    """
    import hwsim

    check_report(report, assets, {"-o": output})
    strategy = o.given(
        tp=tp, pp=pp, vpp=vpp, cp=cp, ep=ep, etp=etp, zero=zero, shard=shard, micro_batch=micro_batch,
        recompute=recompute, sequence_parallel=sequence_parallel, schedule=schedule, order=order,
        global_batch=global_batch, seq_len=seq_len,
    )  # fmt: skip
    job = o.given(
        precision=precision, attention=attention, optimizer=optimizer, graphs=graphs, framework=framework,
        method=method, rank=rank, frozen=frozen, offload=offload,
        source_len=source_len, images=images, imbalance=imbalance, capacity=capacity,
    )  # fmt: skip
    result = hwsim.estimate_training(model, hardware, gpus, settings=settings, profiles=profiles, **strategy, **job)
    if not result.fits:
        typer.echo("hwsim: warning: this strategy does not fit in device memory", err=True)
    if report:
        from hwsim.reporting import fields_of, outcome_of

        asked = {"model": model, "hardware": hardware, "gpus": gpus, "settings": settings, **strategy, **job}
        write_report(outcome_of(result, fields_of(asked, result), profiles), report, assets, profiles)

    def table() -> list[object]:
        from hwsim.report.plan import estimate_view

        return estimate_view(result)

    emit(result.to_dict, lambda: [result.to_dict()], table, (out, as_json, output))


def explain(
    model: o.ModelFlag,
    gpus: o.GpusFlag = 8,
    hardware: o.HardwareFlag = "h100-sxm-80",
    tp: Tp = None,
    pp: Pp = None,
    cp: Cp = None,
    ep: Ep = None,
    etp: Etp = None,
    micro_batch: Micro = None,
    sequence_parallel: SequenceParallel = None,
    seq_len: o.SeqFlag = None,
    precision: o.PrecisionFlag = None,
    attention: o.AttentionFlag = None,
    framework: o.FrameworkFlag = None,
    settings: o.SetFlag = [],  # noqa: B006
    profiles: o.ProfilesFlag = None,
    out: o.FormatFlag = o.Format.TABLE,
    as_json: o.JsonFlag = False,
    output: o.OutFlag = None,
) -> None:
    """Show the operators behind an estimate: FLOPs, bytes, wire, time, bound and % of the device's limit.

    Example: hwsim explain --model 70b --gpus 64 --tp 8 --micro-batch 1
    """
    import hwsim

    strategy = o.given(
        tp=tp, pp=pp, cp=cp, ep=ep, etp=etp, micro_batch=micro_batch, sequence_parallel=sequence_parallel,
        seq_len=seq_len, precision=precision, attention=attention, framework=framework,
    )  # fmt: skip
    rows = hwsim.explain(model, hardware, gpus, settings=settings, profiles=profiles, **strategy)

    def table() -> list[object]:
        from hwsim.report.plan import explain_view

        return explain_view(rows)

    emit(lambda: {"schema_version": 1, "kind": "explain", "rows": rows}, lambda: rows, table, (out, as_json, output))
