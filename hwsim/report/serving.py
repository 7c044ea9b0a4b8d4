"""What a simulation of traffic found: a screen of text, and a picture of latencies, queue and cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.report.plan import labelled, simple_table
from hwsim.units import show

if TYPE_CHECKING:
    from hwsim.search.simulation import ServingSimulation

COLUMNS = ("mean", "p50", "p90", "p95", "p99")
LATENCIES = {"ttft_s": "time to first token", "tpot_s": "time per further token", "e2e_s": "whole request",
             "queue_s": "waiting in the queue"}  # fmt: skip
BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#666666"


def serving_view(found: ServingSimulation) -> list[Any]:
    """The answer, latencies by percentile, use of batch and cache, energy and rent."""
    v = found.values
    rows = [
        {"latency": name, **{column: _seconds(v[key][column]) for column in COLUMNS}} for key, name in LATENCIES.items()
    ]
    lines = {"Serves": served_line(v), "Uses": use_line(v), "Costs": cost_line(v)}
    lines |= {"Promise": promise_line(v)} if "slo_share" in v else {}
    lines |= {"Warning": str(v["overload"])} if v["overload"] else {}
    lines |= {"Stopped": f"{v['stopped']}: {v['unfinished']:,} requests did not finish"} if v["stopped"] else {}
    lines["Simulated"] = f"{v['requests']:,} requests in {show(v['elapsed_s'], 's')}, seed {v['workload']['seed']}"
    return [f"[bold]{headline(found)}[/bold]", simple_table(rows), labelled(lines)]


def headline(found: ServingSimulation) -> str:
    """The answer in one line."""
    v = found.values
    where = f"{v['model']['name']} on {v['hardware']['devices']:,} × {v['hardware']['accelerator']}"
    if v["overload"]:
        return f"{where}: [red]overload[/red], {show(v['output_tokens_per_s'], 'count')} output tokens/s at most"
    ttft, tpot = _seconds(v["ttft_s"]["p95"]), _seconds(v["tpot_s"]["p95"])
    return f"{where}: {show(v['output_tokens_per_s'], 'count')} output tokens/s, p95 TTFT {ttft}, p95 TPOT {tpot}"


def served_line(v: Mapping[str, Any]) -> str:
    """What became of the requests."""
    means = v["workload"]["mean"]
    lengths = f"{means['input_tokens']:,.0f} tokens in and {means['output_tokens']:,.0f} out on average"
    lost = "".join(f", {v[name]:,} {name}" for name in ("rejected", "unfinished", "preemptions") if v[name])
    return f"{v['completed']:,} of {v['requests']:,} requests in {show(v['makespan_s'], 's')}{lost}; {lengths}"


def use_line(v: Mapping[str, Any]) -> str:
    """How full batch and cache were."""
    batch, cache = v["batch"], v["kv_use"]
    return (
        f"batch {batch['mean']:.1f} on average, {batch['max']:,} at most · KV cache {cache['mean']:.0%} on average, "
        f"{cache['max']:.0%} at most · {v['replicas']} replica{'s' if v['replicas'] > 1 else ''}"
    )


def cost_line(v: Mapping[str, Any]) -> str:
    """Rent and energy of the run."""
    dollars, joules = v["cost_usd_per_million_output_tokens"], v["energy_j_per_output_token"]
    rent = "rent unknown" if dollars is None else f"{show(dollars, 'usd')} rent per million output tokens"
    return f"{rent} · {'n/a' if joules is None else show(joules, 'j')} a token"


def promise_line(v: Mapping[str, Any]) -> str:
    """What share of the requests kept the promise."""
    return f"{v['slo_share']:.1%} of the requests keep it: goodput {v['goodput_per_s']:.3g} requests/s"


def _seconds(value: float | None) -> str:
    return "n/a" if value is None else show(value, "s")


def plot(found: ServingSimulation, path: Path) -> None:
    """Draw latency distributions, the queue and the cache over time, and save them."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(10, 6.4), layout="constrained")
    _distribution(axes[0, 0], found.result.ttft_s, "TTFT", found.values["ttft_s"], BLUE)
    _distribution(axes[0, 1], found.result.tpot_s, "TPOT", found.values["tpot_s"], ORANGE)
    _over_time(axes[1, 0], found, ("queue", "batch"))
    _over_time(axes[1, 1], found, ("cache",))
    v = found.values
    figure.suptitle(
        f"{v['model']['name']} on {v['hardware']['devices']} × {v['hardware']['accelerator']}: "
        f"{v['output_tokens_per_s']:,.0f} output tokens/s" + (" (overload)" if v["overload"] else ""),
        fontsize=12,
    )
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _distribution(axes: Any, seconds: np.ndarray[Any, Any], name: str, spread: Mapping[str, Any], colour: str) -> None:
    """The share of requests below each latency."""
    values = np.sort(seconds[np.isfinite(seconds)]) * 1e3
    if not len(values):
        axes.set_title(f"no request has a {name}")
        return
    axes.step(values, (np.arange(len(values)) + 1) / len(values), where="post", color=colour, linewidth=1.8)
    for mark in ("p50", "p95", "p99"):
        axes.axvline(1e3 * spread[mark], color=GREY, linewidth=0.8, linestyle=":")
        axes.text(1e3 * spread[mark], 0.02, f" {mark}", fontsize=8, color=GREY, rotation=90, va="bottom", ha="right")
    if values[-1] > 20 * values[0]:
        axes.set_xscale("log")
        low, high = (int(np.floor(np.log10(edge))) for edge in (values[0], values[-1]))
        marks = [step * 10.0**power for power in range(low, high + 1) for step in (1, 2, 5)]
        shown = [mark for mark in marks if values[0] <= mark <= values[-1]]
        axes.set_xticks(shown, [f"{mark:g}" for mark in shown])
        axes.set_xticks([], minor=True)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel(f"{name} [ms]")
    axes.set_ylabel("share of requests")
    axes.set_title(f"{name}: median {show(spread['p50'], 's')}, p99 {show(spread['p99'], 's')}", fontsize=10)
    _plain(axes)


def over_time(found: ServingSimulation, points: int = 400) -> tuple[Any, dict[str, Any]]:
    """Times, and there the requests that wait and run, and the share of the KV cache in use, of all replicas."""
    records = [record for record in found.result.replicas if record.points]
    end_s = max((record.points[-1].end_s for record in records), default=0.0)
    grid = np.linspace(0.0, end_s, points)
    sums = {name: np.zeros_like(grid) for name in ("queue", "batch", "cache")}
    for record in records:
        times = np.array([point.end_s for point in record.points])
        place = np.clip(np.searchsorted(times, grid), 0, len(times) - 1)
        columns = {
            "queue": [point.queue for point in record.points],
            "batch": [point.decodes + point.chunks for point in record.points],
            "cache": [point.blocks / record.kv_blocks / len(records) for point in record.points],
        }
        for name, column in columns.items():
            sums[name] += np.array(column, dtype=np.float64)[place]
    return grid, sums


def _over_time(axes: Any, found: ServingSimulation, what: Sequence[str]) -> None:
    """Queue and batch, or the cache, of all replicas together."""
    grid, sums = over_time(found)
    looks = {"queue": ("waiting", ORANGE), "batch": ("running", BLUE), "cache": ("KV cache", GREEN)}
    for name in what:
        label, colour = looks[name]
        axes.plot(grid, sums[name] * (100.0 if name == "cache" else 1.0), color=colour, linewidth=1.2, label=label)
    axes.set_xlabel("time [s]")
    axes.set_ylim(bottom=0)
    if what == ("cache",):
        axes.set_ylabel("KV cache in use [%]")
        axes.set_title(f"KV cache: {found.values['kv_use']['max']:.0%} at most", fontsize=10)
    else:
        axes.set_ylabel("requests")
        axes.set_title(f"Requests running and waiting: {int(sums['queue'].max()):,} waited at most", fontsize=10)
        axes.legend(fontsize=8, frameon=False)
    _plain(axes)


def _plain(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def trace_text(found: ServingSimulation) -> str:
    """The run as a file that opens in Perfetto."""
    import json

    from hwsim.events.chrome_trace import chrome_trace

    return json.dumps({"displayTimeUnit": "ms", "traceEvents": chrome_trace(found.result)})
