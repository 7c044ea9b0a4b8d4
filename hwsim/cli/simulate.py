"""`hwsim simulate serving`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hwsim.cli import infer as i
from hwsim.cli import options as o
from hwsim.cli.output import check_report, emit, write_report
from hwsim.errors import UsageError
from hwsim.report.writing import write_with

TRAFFIC, FLEET = "Traffic", "Fleet"
Qps = Annotated[float | None, typer.Option("--qps", help="Requests per second, at random.", rich_help_panel=TRAFFIC)]
TtftMs = Annotated[
    float | None, typer.Option("--ttft-ms", help="Promised time to first token.", rich_help_panel=TRAFFIC)
]
TpotMs = Annotated[
    float | None, typer.Option("--tpot-ms", help="Promised time per further token.", rich_help_panel=TRAFFIC)
]
Seed = Annotated[int, typer.Option("--seed", help="The same seed gives the same bits.", rich_help_panel=TRAFFIC)]
PICTURES = (".png", ".svg", ".pdf")


def check_picture(picture: str | None) -> None:
    """Refuse a picture of a kind that cannot be drawn."""
    if picture and not picture.lower().endswith(PICTURES):
        msg = f"--plot needs .png, .svg or .pdf, not {picture[:200]!r}"
        raise UsageError(msg)


def serving(
    model: o.ModelFlag,
    gpus: i.DevicesFlag = None,
    hardware: o.HardwareFlag = "h100-sxm-80",
    qps: Qps = None,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", help="Clients that each wait for an answer.", rich_help_panel=TRAFFIC)
    ] = None,
    trace_csv: Annotated[
        str | None,
        typer.Option("--trace-csv", help="Replay arrival_s,input_tokens,output_tokens.", rich_help_panel=TRAFFIC),
    ] = None,
    requests: Annotated[int, typer.Option("--requests", help="How many.", rich_help_panel=TRAFFIC)] = 1000,
    input_len: i.InputLen = None,
    output_len: i.OutputLen = None,
    length_spread: Annotated[
        float,
        typer.Option(
            "--length-spread", help="Lengths vary evenly by this share (0: all alike).", rich_help_panel=TRAFFIC
        ),
    ] = 0.1,
    arrival_cv: Annotated[
        float,
        typer.Option("--arrival-cv", help="Variation of gaps: 1 Poisson, more is bursty.", rich_help_panel=TRAFFIC),
    ] = 1.0,
    ttft_ms: TtftMs = None,
    tpot_ms: TpotMs = None,
    seed: Seed = 0,
    tp: i.Tp = None,
    pp: i.Pp = None,
    dp: i.Dp = None,
    ep: i.Ep = None,
    routing: Annotated[
        str | None,
        typer.Option(
            "--routing", help="least_outstanding, round_robin, kv_aware or power_of_two.", rich_help_panel=FLEET
        ),
    ] = None,
    prefill_replicas: Annotated[
        int | None,
        typer.Option(
            "--prefill-replicas", help="Replicas that only read prompts; the others only decode.", rich_help_panel=FLEET
        ),
    ] = None,
    most_replicas: Annotated[
        int | None, typer.Option("--most-replicas", help="Scale up to so many replicas.", rich_help_panel=FLEET)
    ] = None,
    cold_start_s: Annotated[
        float | None, typer.Option("--cold-start-s", help="Until a new replica serves.", rich_help_panel=FLEET)
    ] = None,
    mtbf_s: Annotated[
        float | None, typer.Option("--mtbf-s", help="Mean time between failures of a replica.", rich_help_panel=FLEET)
    ] = None,
    mttr_s: Annotated[
        float | None, typer.Option("--mttr-s", help="Mean time to its return (600).", rich_help_panel=FLEET)
    ] = None,
    preemption: Annotated[
        str | None, typer.Option("--preemption", help="recompute or swap.", rich_help_panel=FLEET)
    ] = None,
    weights: i.Weights = None,
    kv: i.Kv = None,
    engine: i.EngineFlag = None,
    engine_overhead: i.Overhead = True,
    prefix_hit: i.PrefixHit = None,
    draft_tokens: i.DraftTokens = None,
    acceptance: i.AcceptanceFlag = None,
    draft: i.Draft = None,
    skew: i.Skew = None,
    settings: o.SetFlag = [],  # noqa: B006
    profiles: o.ProfilesFlag = None,
    trace: Annotated[
        str | None, typer.Option("--trace", help="Write a timeline that opens in Perfetto.", rich_help_panel=o.OUTPUT)
    ] = None,
    picture: Annotated[
        str | None, typer.Option("--plot", help="Draw latencies, queue and cache (.png).", rich_help_panel=o.OUTPUT)
    ] = None,
    requests_csv: Annotated[
        str | None, typer.Option("--requests-csv", help="Write one row per request.", rich_help_panel=o.OUTPUT)
    ] = None,
    report: o.ReportFlag = None,
    assets: o.AssetsFlag = None,
    out: o.FormatFlag = o.Format.TABLE,
    as_json: o.JsonFlag = False,
    output: o.OutFlag = None,
) -> None:
    """Serve traffic on the discrete-event model: continuous batching, a paged KV cache, queues, replicas.

    Example: hwsim simulate serving --model llama-3-8b --hardware a100-sxm-80 --qps 10 --trace run.json --plot run.png
    """
    import hwsim

    others = {"--trace": trace, "--plot": picture, "--requests-csv": requests_csv, "-o": output}
    check_report(report, assets, others)
    check_picture(picture)
    asked: dict[str, Any] = o.given(
        qps=qps, concurrency=concurrency, trace=trace_csv, input_len=input_len, output_len=output_len, ttft_ms=ttft_ms,
        tpot_ms=tpot_ms, tp=tp, pp=pp, dp=dp, ep=ep, routing=routing, prefill_replicas=prefill_replicas,
        most_replicas=most_replicas, cold_start_s=cold_start_s, mtbf_s=mtbf_s, mttr_s=mttr_s, preemption=preemption,
        weights=weights, kv=kv, engine=engine, prefix_hit=prefix_hit, draft_tokens=draft_tokens,
        acceptance=acceptance, draft=draft, skew=skew,
    )  # fmt: skip
    found = hwsim.simulate_serving(
        model, hardware, gpus, requests=requests, length_spread=length_spread, arrival_cv=arrival_cv, seed=seed,
        settings=settings, profiles=profiles, engine_overhead=engine_overhead, **asked,
    )  # fmt: skip
    if found.overload:
        typer.echo(f"hwsim: warning: {found.overload}", err=True)
    if trace:
        from hwsim.report.serving import trace_text

        write_with(trace, "--trace", lambda path: path.write_text(trace_text(found), encoding="utf-8"))
    if picture:
        from hwsim.report.serving import plot

        write_with(picture, "--plot", lambda path: plot(found, path))
    if requests_csv:
        write_with(requests_csv, "--requests-csv", lambda path: found.to_frame().to_csv(path, index=False))

    write_report(found, report, assets, profiles)

    def table() -> list[object]:
        from hwsim.report.serving import serving_view

        return serving_view(found)

    emit(found.to_dict, lambda: [found.to_dict()], table, (out, as_json, output))
