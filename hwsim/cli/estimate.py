"""`hwsim estimate train` and `hwsim explain`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hwsim.cli import options as o
from hwsim.cli.output import emit
from hwsim.errors import UsageError


def _size(flag: str, text: str) -> Any:
    return Annotated[int | None, typer.Option(flag, help=text, rich_help_panel=o.MACHINE)]


def _name(flag: str, text: str) -> Any:
    return Annotated[str | None, typer.Option(flag, help=text, rich_help_panel=o.MACHINE)]


Tp, Pp, Vpp = _size("--tp", "Tensor-parallel size."), _size("--pp", "Pipeline stages."), _size("--vpp", "Chunks per stage.")
Cp, Ep, Etp = _size("--cp", "Context-parallel size."), _size("--ep", "Expert-parallel size."), _size("--etp", "Expert-tensor-parallel size.")
Zero, Shard = _size("--zero", "ZeRO stage 0-3 (3: FSDP)."), _size("--shard", "Devices ZeRO shards over (default: dp x cp).")
Micro = _size("--micro-batch", "Sequences per micro-batch.")
Recompute = _name("--recompute", "none, selective or full.")
Schedule = _name("--schedule", "gpipe, 1f1b, interleaved, zb-h1 or dualpipe.")
Order = _name("--order", "Placement, nearest axis first: tp-cp-dp-pp, ...")
SequenceParallel = Annotated[
    bool | None,
    typer.Option("--sequence-parallel/--no-sequence-parallel", help="Shard norms over tp too (default: on).", rich_help_panel=o.MACHINE),
]


def _experts(ep: int | None, etp: int | None) -> None:
    if (ep or 1) != 1 or (etp or 1) != 1:
        msg = "--ep and --etp need a mixture-of-experts model, which is not supported yet: leave them at 1"
        raise UsageError(msg)


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
    graphs: o.GraphsFlag = None,
    framework: o.FrameworkFlag = None,
    settings: o.SetFlag = [],  # noqa: B006
    profiles: o.ProfilesFlag = None,
    out: o.FormatFlag = o.Format.TABLE,
    as_json: o.JsonFlag = False,
    output: o.OutFlag = None,
) -> None:
    """Estimate one training step of one strategy: time, memory, traffic, cost.

    Example: hwsim estimate train --model gpt3 --hardware a100-sxm-80 --gpus 64 --tp 8 --pp 8 --global-batch 64
    """
    import hwsim

    _experts(ep, etp)
    strategy = o.given(
        tp=tp, pp=pp, vpp=vpp, cp=cp, zero=zero, shard=shard, micro_batch=micro_batch, recompute=recompute,
        sequence_parallel=sequence_parallel, schedule=schedule, order=order, global_batch=global_batch, seq_len=seq_len,
    )  # fmt: skip
    job = o.given(precision=precision, attention=attention, optimizer=optimizer, graphs=graphs, framework=framework)
    result = hwsim.estimate_training(model, hardware, gpus, settings=settings, profiles=profiles, **strategy, **job)
    if not result.fits:
        typer.echo("hwsim: warning: this strategy does not fit in device memory", err=True)

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
        tp=tp, pp=pp, cp=cp, micro_batch=micro_batch, sequence_parallel=sequence_parallel, seq_len=seq_len,
        precision=precision, attention=attention, framework=framework,
    )  # fmt: skip
    rows = hwsim.explain(model, hardware, gpus, settings=settings, profiles=profiles, **strategy)

    def table() -> list[object]:
        from hwsim.report.plan import explain_view

        return explain_view(rows)

    emit(lambda: {"schema_version": 1, "kind": "explain", "rows": rows}, lambda: rows, table, (out, as_json, output))
