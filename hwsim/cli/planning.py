"""`hwsim plan`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hwsim.cli import options as o
from hwsim.cli.output import emit

TARGET = "Target"


def plan(
    model: o.ModelFlag,
    gpus: o.GpusFlag = 8,
    hardware: o.HardwareFlag = "h100-sxm-80",
    task: Annotated[
        str, typer.Option("--task", help="train or finetune (infer is not built yet).", rich_help_panel=o.JOB)
    ] = "train",
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
    tokens: Annotated[
        str | None,
        typer.Option(
            "--tokens", help="Token budget, e.g. 15T, or optimal: adds days and cost.", rich_help_panel=TARGET
        ),
    ] = None,
    target_days: Annotated[
        float | None, typer.Option("--target-days", help="Deadline for --tokens.", rich_help_panel=TARGET)
    ] = None,
    target_tokens_per_s: Annotated[
        float | None,
        typer.Option("--target-tokens-per-s", help="Slowest throughput that will do.", rich_help_panel=TARGET),
    ] = None,
    objective: Annotated[
        str, typer.Option("--objective", help="throughput, latency, cost or energy.", rich_help_panel=TARGET)
    ] = "throughput",
    top: Annotated[int, typer.Option("--top", help="Plans to show.", rich_help_panel=TARGET)] = 10,
    pin: Annotated[
        list[str],
        typer.Option(
            "--pin", help="Fix a choice: tp=8, recompute=full, micro_batch=1,2. Repeatable.", rich_help_panel=TARGET
        ),
    ] = [],  # noqa: B006
    settings: o.SetFlag = [],  # noqa: B006
    profiles: o.ProfilesFlag = None,
    out: o.FormatFlag = o.Format.TABLE,
    as_json: o.JsonFlag = False,
    output: o.OutFlag = None,
) -> None:
    """Search every legal strategy and print the best ones.

    Example: hwsim plan --model 70b --gpus 64 --tokens 15T
    """
    import hwsim

    job = o.given(
        global_batch=global_batch, seq_len=seq_len, precision=precision, attention=attention, optimizer=optimizer,
        graphs=graphs, framework=framework, method=method, rank=rank, frozen=frozen, offload=offload,
        source_len=source_len, images=images, imbalance=imbalance, capacity=capacity,
    )  # fmt: skip
    budget = tokens if tokens == "optimal" else o.count("--tokens", tokens)
    asked = o.given(tokens=budget, target_days=target_days, target_tokens_per_s=target_tokens_per_s)
    search: dict[str, Any] = {
        "objective": objective, "top": top, "pin": pin, "settings": settings, "profiles": profiles, "task": task,
    }  # fmt: skip
    result = hwsim.plan(model, hardware, gpus, **search, **asked, **job)

    def table() -> list[object]:
        from hwsim.report.plan import plan_view

        call = {"model": model, "hardware": hardware, "gpus": gpus, **job, **asked}
        call |= {name: value for name, value in search.items() if value and PLAIN.get(name) != value}
        return plan_view(result, call)

    emit(result.to_dict, lambda: [plan.to_dict() for plan in result.plans], table, (out, as_json, output))


PLAIN = {"objective": "throughput", "top": 10, "task": "train"}
"""Defaults that the equivalent Python call leaves out."""
