"""`hwsim estimate infer`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hwsim.cli import options as o
from hwsim.cli.output import check_report, emit, write_report

Tp = Annotated[
    int | None, typer.Option("--tp", help="Tensor-parallel size (default: as fits a node).", rich_help_panel=o.MACHINE)
]
Pp = Annotated[int | None, typer.Option("--pp", help="Pipeline stages.", rich_help_panel=o.MACHINE)]
Dp = Annotated[
    int | None,
    typer.Option("--dp", help="Copies; with ep > tp: devices with requests of their own.", rich_help_panel=o.MACHINE),
]
Ep = Annotated[
    int | None, typer.Option("--ep", help="Expert-parallel size, within tp x dp.", rich_help_panel=o.MACHINE)
]
DevicesFlag = Annotated[
    int | None,
    typer.Option("--gpus", "--devices", "--chips", help="How many devices (default: tp x pp x dp).",
                 rich_help_panel=o.WORK),
]  # fmt: skip
Batch = Annotated[int | None, typer.Option("--batch", help="Requests that start together.", rich_help_panel=o.JOB)]
InputLen = Annotated[int | None, typer.Option("--input-len", help="Prompt tokens (1024).", rich_help_panel=o.JOB)]
OutputLen = Annotated[int | None, typer.Option("--output-len", help="Generated tokens (128).", rich_help_panel=o.JOB)]
Weights = Annotated[
    str | None, typer.Option("--weights", help="Format: bf16, fp8, int8, int4 or fp4.", rich_help_panel=o.JOB)
]
Kv = Annotated[str | None, typer.Option("--kv", help="KV cache: bf16, fp8 or int8.", rich_help_panel=o.JOB)]
EngineFlag = Annotated[
    str | None,
    typer.Option("--engine", help="Software assumed: vllm, sglang, tensorrt-llm, ...", rich_help_panel=o.JOB),
]
Overhead = Annotated[
    bool,
    typer.Option("--engine-overhead/--no-engine-overhead", help="Count the host, or the device alone.",
                 rich_help_panel=o.JOB),
]  # fmt: skip
PrefixHit = Annotated[
    float | None, typer.Option("--prefix-hit", help="Share of a prompt in the prefix cache.", rich_help_panel=o.JOB)
]
DraftTokens = Annotated[
    int | None,
    typer.Option("--draft-tokens", help="Tokens guessed ahead per step (speculation).", rich_help_panel=o.JOB),
]
AcceptanceFlag = Annotated[
    float | None, typer.Option("--acceptance", help="Chance that a guess is right (0.7).", rich_help_panel=o.JOB)
]
Draft = Annotated[
    str | None, typer.Option("--draft", help="Model that guesses (default: MTP layers).", rich_help_panel=o.JOB)
]
Adapters = Annotated[
    int | None,
    typer.Option("--adapters", help="LoRA adapters in memory, one for every request.", rich_help_panel=o.JOB),
]
Skew = Annotated[
    float | None, typer.Option("--skew", help="Exponent of the experts' popularity (0: even).", rich_help_panel=o.JOB)
]


def infer(
    model: o.ModelFlag,
    gpus: DevicesFlag = None,
    hardware: o.HardwareFlag = "h100-sxm-80",
    tp: Tp = None,
    pp: Pp = None,
    dp: Dp = None,
    ep: Ep = None,
    batch: Batch = None,
    input_len: InputLen = None,
    output_len: OutputLen = None,
    weights: Weights = None,
    kv: Kv = None,
    precision: o.PrecisionFlag = None,
    engine: EngineFlag = None,
    engine_overhead: Overhead = True,
    prefix_hit: PrefixHit = None,
    draft_tokens: DraftTokens = None,
    acceptance: AcceptanceFlag = None,
    draft: Draft = None,
    skew: Skew = None,
    adapters: Adapters = None,
    rank: o.RankFlag = None,
    source_len: o.SourceFlag = None,
    images: o.ImagesFlag = None,
    settings: o.SetFlag = [],  # noqa: B006
    profiles: o.ProfilesFlag = None,
    report: o.ReportFlag = None,
    assets: o.AssetsFlag = None,
    out: o.FormatFlag = o.Format.TABLE,
    as_json: o.JsonFlag = False,
    output: o.OutFlag = None,
) -> None:
    """Estimate a static batch on an inference engine: TTFT, TPOT, throughput, memory, cost.

    Example: hwsim estimate infer --model 70b --gpus 4 --batch 16 --input-len 1024 --output-len 128
    """
    import hwsim

    check_report(report, assets, {"-o": output})
    asked: dict[str, Any] = o.given(
        tp=tp, pp=pp, dp=dp, ep=ep, batch=batch, input_len=input_len, output_len=output_len, weights=weights, kv=kv,
        precision=precision, engine=engine, prefix_hit=prefix_hit, draft_tokens=draft_tokens, acceptance=acceptance,
        draft=draft, skew=skew, adapters=adapters, rank=rank, source_len=source_len, images=images,
    )  # fmt: skip
    result = hwsim.estimate_inference(
        model, hardware, gpus, settings=settings, profiles=profiles, engine_overhead=engine_overhead, **asked
    )
    if not result.fits:
        typer.echo(f"hwsim: warning: does not fit in device memory (largest batch: {result.max_batch:,})", err=True)
    if report:
        from hwsim.reporting import fields_of, outcome_of

        given = {"task": "infer", "model": model, "hardware": hardware, "gpus": result.hardware["devices"], **asked}
        given |= {"settings": settings} | ({} if engine_overhead else {"engine_overhead": False})
        write_report(outcome_of(result, fields_of(given, result), profiles), report, assets, profiles)

    def table() -> list[object]:
        from hwsim.report.inference import inference_view

        return inference_view(result)

    emit(result.to_dict, lambda: [result.to_dict()], table, (out, as_json, output))
