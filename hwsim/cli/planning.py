"""`hwsim plan`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from hwsim.cli import infer as i
from hwsim.cli import options as o
from hwsim.cli import simulate as s
from hwsim.cli.output import check_report, emit, write_report
from hwsim.errors import UsageError
from hwsim.report.writing import write_with

if TYPE_CHECKING:
    from hwsim.search.plan import Plan

TARGET = "Target"
GpusFlag = Annotated[
    int | None,
    typer.Option(
        "--gpus",
        "--devices",
        "--chips",
        help="How many devices (8; to serve --qps: up to 256).",
        rich_help_panel=o.WORK,
    ),
]
TaskFlag = Annotated[str, typer.Option("--task", help="train, finetune or infer.", rich_help_panel=o.JOB)]
PercentileFlag = Annotated[
    int | None,
    typer.Option("--percentile", help="Of the requests that must keep the promise (95).", rich_help_panel=s.TRAFFIC),
]
TokensFlag = Annotated[
    str | None,
    typer.Option("--tokens", help="Token budget, e.g. 15T, or optimal: adds days and cost.", rich_help_panel=TARGET),
]
DaysFlag = Annotated[float | None, typer.Option("--target-days", help="Deadline for --tokens.", rich_help_panel=TARGET)]
RateFlag = Annotated[
    float | None,
    typer.Option("--target-tokens-per-s", help="Slowest throughput that will do.", rich_help_panel=TARGET),
]
ObjectiveFlag = Annotated[
    str, typer.Option("--objective", help="throughput, latency, cost or energy.", rich_help_panel=TARGET)
]
PinFlag = Annotated[
    list[str],
    typer.Option(
        "--pin", help="Fix a choice: tp=8, recompute=full, micro_batch=1,2. Repeatable.", rich_help_panel=TARGET
    ),
]


def plan(
    model: o.ModelFlag,
    gpus: GpusFlag = None,
    hardware: o.HardwareFlag = "h100-sxm-80",
    task: TaskFlag = "train",
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
    qps: s.Qps = None,
    ttft_ms: s.TtftMs = None,
    tpot_ms: s.TpotMs = None,
    percentile: PercentileFlag = None,
    tokens: TokensFlag = None,
    target_days: DaysFlag = None,
    target_tokens_per_s: RateFlag = None,
    objective: ObjectiveFlag = "throughput",
    picture: Annotated[
        str | None,
        typer.Option(
            "--plot", help="Draw throughput against speed (task infer) into this .png.", rich_help_panel=o.OUTPUT
        ),
    ] = None,
    top: Annotated[int, typer.Option("--top", help="Plans to show.", rich_help_panel=TARGET)] = 10,
    pin: PinFlag = [],  # noqa: B006
    settings: o.SetFlag = [],  # noqa: B006
    profiles: o.ProfilesFlag = None,
    prices: Annotated[
        str | None,
        typer.Option("--prices", help="Price book of the bill (market-2026-11), or a YAML.", rich_help_panel=TARGET),
    ] = None,
    grid: Annotated[
        str | None,
        typer.Option("--grid", help="Where the electricity comes from (usa), or a YAML.", rich_help_panel=TARGET),
    ] = None,
    report: o.ReportFlag = None,
    assets: o.AssetsFlag = None,
    out: o.FormatFlag = o.Format.TABLE,
    as_json: o.JsonFlag = False,
    output: o.OutFlag = None,
) -> None:
    """Search every legal strategy and print the best ones.

    Example: hwsim plan --model 70b --gpus 64 --tokens 15T
    """
    import hwsim
    from hwsim.defaults import DEFAULT_DEVICES, MOST_SERVING

    check_report(report, assets, {"--plot": picture, "-o": output})
    serving = o.given(
        input_len=input_len, output_len=output_len, weights=weights, kv=kv, engine=engine, prefix_hit=prefix_hit,
        draft_tokens=draft_tokens, acceptance=acceptance, draft=draft, skew=skew, qps=qps, ttft_ms=ttft_ms,
        tpot_ms=tpot_ms, percentile=percentile,
    )  # fmt: skip
    job = o.given(
        global_batch=global_batch, seq_len=seq_len, precision=precision, attention=attention, optimizer=optimizer,
        graphs=graphs, framework=framework, method=method, rank=rank, frozen=frozen, offload=offload,
        source_len=source_len, images=images, imbalance=imbalance, capacity=capacity,
    )  # fmt: skip
    if task == "infer":
        usual = MOST_SERVING if qps else DEFAULT_DEVICES
        given = serving | o.given(gpus=usual if gpus is None else gpus, objective=objective, top=top)
        given |= o.given(precision=precision, source_len=source_len, images=images)
        training = {name: value for name, value in job.items() if name not in given}
        training |= o.given(tokens=tokens, target_days=target_days, target_tokens_per_s=target_tokens_per_s)
        training |= o.given(prices=prices, grid=grid)
        if training:
            word = next(iter(training))
            msg = f"--{word.replace('_', '-')} is for training; --task infer takes --qps, --ttft-ms, --input-len, ..."
            raise UsageError(msg)
        given |= {
            name: value for name, value in (("pin", pin), ("settings", settings), ("profiles", profiles)) if value
        }
        _serve(model, hardware, given, picture, (report, assets), (out, as_json, output))
        return
    if serving:
        msg = f"--{next(iter(serving)).replace('_', '-')} needs --task infer"
        raise UsageError(msg)
    gpus = DEFAULT_DEVICES if gpus is None else gpus
    budget = token_count(tokens)
    asked = o.given(tokens=budget, target_days=target_days, target_tokens_per_s=target_tokens_per_s)
    asked |= o.given(prices=prices, grid=grid)
    search: dict[str, Any] = {
        "objective": objective, "top": top, "pin": pin, "settings": settings, "profiles": profiles, "task": task,
    }  # fmt: skip
    result = hwsim.plan(model, hardware, gpus, **search, **asked, **job)
    if report:
        given = {"model": model, "hardware": hardware, "gpus": gpus, **search, **asked, **job}
        _report(result, given, (report, assets))

    def table() -> list[object]:
        from hwsim.report.plan import plan_view

        call = {"model": model, "hardware": hardware, "gpus": gpus, **job, **asked}
        call |= {name: value for name, value in search.items() if value and PLAIN.get(name) != value}
        return plan_view(cast("Plan", result), call)

    emit(result.to_dict, lambda: [plan.to_dict() for plan in result.plans], table, (out, as_json, output))


def token_count(tokens: str | None) -> float | str | None:
    """A token budget: a number, or the word that stands for one."""
    return tokens if tokens == "optimal" else o.count("--tokens", tokens)


PLAIN = {"objective": "throughput", "top": 10, "task": "train"}
"""Defaults that the equivalent Python call leaves out."""


def _serve(
    model: str, hardware: str, given: dict[str, Any], picture: str | None, paper: tuple[str | None, str | None],
    wanted: tuple[o.Format, bool, str | None],
) -> None:  # fmt: skip
    """Plan for inference: print it, draw it, report it."""
    import hwsim

    s.check_picture(picture)
    result = hwsim.plan_inference(model, hardware, **given)
    if picture:
        from hwsim.report.serving_plan import plot

        write_with(picture, "--plot", lambda path: plot(result, path))
    if paper[0]:
        _report(result, {"task": "infer", "model": model, "hardware": hardware, **given}, paper)

    def table() -> list[object]:
        from hwsim.report.serving_plan import serving_plan_view

        call = {"model": model, "hardware": hardware, **given}
        return serving_plan_view(result, {name: v for name, v in call.items() if v and PLAIN.get(name) != v})

    emit(result.to_dict, lambda: [one.to_dict() for one in result.plans], table, wanted)


def _report(result: Any, given: dict[str, Any], paper: tuple[str | None, str | None]) -> None:
    """Write the report of a plan that was found; nothing is searched again."""
    from hwsim.reporting import fields_of, outcome_of

    plain = {name: value for name, value in given.items() if PLAIN.get(name) != value}
    profiles = given.get("profiles")
    write_report(outcome_of(result, fields_of(plain), profiles), *paper, profiles)
