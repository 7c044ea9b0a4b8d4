"""Deployments that serve a model, for people: the answer, the runners-up, and throughput against speed as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim.report.inference import memory_bars, phase_bars
from hwsim.report.plan import SIZES, labelled, python_call, simple_table, sizes_label, sizes_line
from hwsim.report.terminal import plain
from hwsim.units import show

if TYPE_CHECKING:
    from hwsim.analytic.inference import InferenceEstimate
    from hwsim.search.serving_plan import ServingPlan

WIDTH, HEIGHT = 64, 12
"""Of the picture in the terminal. [character]"""
MARK = "●"


def serving_plan_view(plan: ServingPlan, call: Mapping[str, Any]) -> list[Any]:
    """The answer in a line, the best deployment with its bars, runners-up, the front, what was rejected."""
    from rich.table import Table

    best = plan.best
    grid = Table.grid(padding=(0, 4))
    grid.add_row(memory_bars(best), phase_bars(best, "decode"))
    lines = {"Promise": promise_line(plan), "Limited by": best.bottleneck, "Costs": cost_line(best)}
    rejected = " · ".join(f"{count:,} {reason}" for reason, count in plan.rejected.items()) or "none"
    return [
        f"[bold]{plain(headline(plan))}[/bold]",
        labelled({"Replica": replica_line(best)}),
        "",
        grid,
        labelled(lines),
        runners_up(plan),
        "Throughput of a device against the speed of a user (every layout and batch that fits; steady traffic):",
        *front_picture(plan),
        labelled(
            {
                "Considered": f"{plan.candidates:,} layouts and batches in {show(plan.elapsed_s, 's', 2)}, "
                f"{plan.feasible:,} within the promise",
                "Rejected": rejected,
                "Python": python_call(call, "plan_inference"),
            }
        ),
    ]


def headline(plan: ServingPlan) -> str:
    """The answer in one line."""
    best, served = plan.best, plan.request.served
    made = best.deployment
    machine = f"{made['devices']:,} × {served.hardware.accelerator.title or served.hardware.accelerator.name}"
    load = f"{made['qps']:.3g} requests/s, {show(made['output_tokens_per_s'], 'count')} output tokens/s"
    rent = made["rent_usd_per_hour"]
    return f"{served.model.title or served.model.name} on {machine}: {load}" + (
        f", {rent:,.3g} USD/h" if rent and rent < 100 else f", {rent:,.0f} USD/h" if rent else ""
    )


def replica_line(best: InferenceEstimate) -> str:
    """How the devices are used."""
    s, made = best.strategy, best.deployment
    job = f"{s['input_len']:,} tokens in, {s['output_len']:,} out · weights {s['weights']} · KV cache {s['kv']}"
    count = made["replicas"]
    return f"{count} replica{'s' if count > 1 else ''} of {sizes_line(s)} · {job} · {s['engine']}"


def promise_line(plan: ServingPlan) -> str:
    """The latencies at the traffic that the deployment can take."""
    made, promise = plan.best.deployment, plan.request.promise
    if made["ttft_s"] is None:
        return "none asked for (--qps, --ttft-ms, --tpot-ms): steady traffic without queues"
    at = f"p{promise.percentile}"
    parts = []
    for name, key, bound in (("TTFT", "ttft_s", promise.ttft_s), ("TPOT", "tpot_s", promise.tpot_s)):
        reached = made[key].get(at)
        parts.append(f"{at} {name} {show(reached, 's')}" + (f" of {show(bound, 's')}" if bound else ""))
    room = f"at its limit of {made['qps_capacity']:.3g} requests/s; loaded to {made['utilisation']:.0%} of it"
    return f"{', '.join(parts)} {room}"


def cost_line(best: InferenceEstimate) -> str:
    """Rent and power."""
    made = best.deployment
    dollars = made["cost_usd_per_million_output_tokens"]
    rent = "rent unknown" if dollars is None else f"{show(dollars, 'usd')} rent per million output tokens"
    joules = made["power_w"] / made["output_tokens_per_s"]
    return f"{rent} · {show(made['power_w'], 'w')} ({show(joules, 'j')} a token)"


def runners_up(plan: ServingPlan) -> Any:
    """The deployments as a table."""
    at = f"p{plan.request.promise.percentile}"
    rows = []
    for place, one in enumerate(plan.plans, 1):
        s, made = one.strategy, one.deployment
        timed = made["ttft_s"] is not None
        ttft = made["ttft_s"].get(at) if timed else one.ttft_s
        tpot = made["tpot_s"].get(at) if timed else one.tpot_s
        rows.append(
            {
                "#": place,
                "devices": made["devices"],
                "replicas": made["replicas"],
                **{name: s[name] for name in SIZES},
                "batch": s["batch"],
                "requests/s": f"{made['qps_capacity']:.3g}",
                f"TTFT {at}" if timed else "TTFT": show(ttft, "s"),
                f"TPOT {at}" if timed else "TPOT": show(tpot, "s"),
                "tokens/s/device": f"{made['output_tokens_per_s_per_device']:,.0f}",
                "USD/M tokens": "n/a" if made["cost_usd_per_million_output_tokens"] is None
                else f"{made['cost_usd_per_million_output_tokens']:.3g}",
                "limited by": one.bottleneck.partition(": ")[2],
            }
        )  # fmt: skip
    return simple_table(rows)


def front_picture(plan: ServingPlan) -> list[str]:
    """The front in characters: users' speed to the right, devices' throughput upwards."""
    users = [point["output_tokens_per_s_per_user"] for point in plan.pareto]
    devices = [point["output_tokens_per_s_per_device"] for point in plan.pareto]
    wide, high = max(users), max(devices)
    cells = [[" "] * WIDTH for _ in range(HEIGHT)]
    for user, device in zip(users, devices, strict=True):
        column = min(int(user / wide * (WIDTH - 1)), WIDTH - 1)
        row = min(int(device / high * (HEIGHT - 1)), HEIGHT - 1)
        cells[HEIGHT - 1 - row][column] = MARK
    top, bottom = f"{high:,.0f}", "0"
    margin = len(top)
    lines = [f"{top if row == 0 else '':>{margin}} │{''.join(cells[row]).rstrip()}" for row in range(HEIGHT)]
    axis = f"{bottom:>{margin}} └{'─' * WIDTH}"
    right = f"{wide:,.0f}"
    return [
        f"{'':>{margin}}  output tokens/s of a device",
        *lines,
        axis,
        f"{'':>{margin}}  0{right:>{WIDTH - 1}} tokens/s of a user",
    ]


def plot(plan: ServingPlan, path: Path) -> None:
    """Draw the front, layout by layout, and save it."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    from hwsim.report.style import COLOURS, MARKERS

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    groups: dict[str, list[dict[str, Any]]] = {}
    for point in plan.pareto:
        groups.setdefault(sizes_label(point), []).append(point)
    every = sorted(plan.pareto, key=lambda point: point["output_tokens_per_s_per_user"])
    xs, ys = ([point[f"output_tokens_per_s_per_{of}"] for point in every] for of in ("user", "device"))
    axes.plot(xs, ys, color="#999999", linewidth=0.8, zorder=1)
    for place, (sizes, points) in enumerate(groups.items()):
        axes.scatter(
            [point["output_tokens_per_s_per_user"] for point in points],
            [point["output_tokens_per_s_per_device"] for point in points],
            s=28, color=COLOURS[place % len(COLOURS)], marker=MARKERS[place % len(MARKERS)], label=sizes, zorder=2,
        )  # fmt: skip
    best = max(every, key=lambda point: point["output_tokens_per_s_per_device"])
    served = plan.request.served
    axes.set_title(
        f"{served.model.title or served.model.name} on {served.hardware.accelerator.title}: up to "
        f"{best['output_tokens_per_s_per_device']:,.0f} tokens/s a device, up to {max(xs):,.0f} tokens/s a user",
        fontsize=10,
    )
    axes.set_xlabel("output tokens/s of a user")
    axes.set_ylabel("output tokens/s of a device")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8, frameon=False, title="replica", title_fontsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)
