"""The terminal answers of plan, estimate and explain: one screen each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hwsim.analytic.estimate import NAMES, TrainingEstimate
from hwsim.report.terminal import bar, plain, wrapped
from hwsim.units import HOUR_S, TERA, show

if TYPE_CHECKING:
    from hwsim.analytic.inference import InferenceEstimate
    from hwsim.formulas.ranges import Range
    from hwsim.search.plan import Plan

BAR = 24
SIZES = ("tp", "pp", "dp", "ep")
"""Parallel sizes of a deployment."""
NEGLIGIBLE = 0.002
LONGEST_ARGUMENT = 200


def plan_view(plan: Plan, call: Mapping[str, Any]) -> list[Any]:
    """The answer in a line, the best plan with its bars, what binds, what helps, the runners-up, what was rejected."""
    best = plan.best
    return [
        f"[bold]{plain(headline(plan))}[/bold]",
        labelled({"Best plan": strategy_line(best), "": job_line(best)}),
        "",
        bars(best),
        labelled(
            {
                "Limited by": best.bottleneck,
                "Would help": helps_line(plan),
                **cost_lines(plan),
                "Accuracy": accuracy_line(best),
            }
        ),
        *([] if len(plan.plans) < 2 else [runners_up(plan)]),
        labelled({"Considered": considered_line(plan), "Rejected": rejected_line(plan), "Python": python_call(call)}),
    ]


def labelled(lines: Mapping[str, str]) -> Any:
    """Lines of text behind their labels, wrapped beside them."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("", "")
    for label, text in lines.items():
        grid.add_row(plain(label), plain(text))
    return grid


def headline(plan: Plan) -> str:
    """The answer in one line."""
    best, setting = plan.best, plan.setting
    budget = plan.tokens or TERA
    days = show(budget / best.tokens_per_s, "s")
    model, device = setting.model.title or best.model["name"], setting.hardware.accelerator.title
    machine = f"{best.hardware['devices']:,} × {device or best.hardware['accelerator']}"
    speed = f"{show(best.tokens_per_s, 'count')} tokens/s, MFU {best.mfu:.0%}"
    return f"{model} on {machine}: {speed}, {show(budget, 'count')} tokens in {days}"


def sizes_line(strategy: Mapping[str, Any], names: Sequence[str] = SIZES, gap: str = " ", between: str = " · ") -> str:
    """The parallel sizes above 1 in words.

    Examples
    --------
    >>> sizes_line({"tp": 8, "pp": 1, "dp": 2, "ep": 1})
    'tp 8 · dp 2'
    """
    return between.join(f"{name}{gap}{strategy[name]}" for name in names if strategy[name] > 1) or "one device"


def sizes_label(strategy: Mapping[str, Any], names: Sequence[str] = SIZES) -> str:
    """The same where there is little room.

    Examples
    --------
    >>> sizes_label({"tp": 8, "pp": 1, "dp": 2, "ep": 1})
    'tp8 dp2'
    """
    return sizes_line(strategy, names, "", " ")


def strategy_line(estimate: TrainingEstimate) -> str:
    """The strategy in words."""
    s = estimate.strategy
    sizes = sizes_line(s, ("tp", "pp", "vpp", "cp", "dp", "ep", "etp"))
    zero = (
        f" · ZeRO {s['zero']}" + (f" over {s['shard']}" if s["shard"] < s["dp"] * s["cp"] else "") if s["zero"] else ""
    )
    parts = [f"micro-batch {s['micro_batch']}", f"recompute {s['recompute']}"]
    parts += ["sequence parallel"] if s["sequence_parallel"] else []
    parts += [s["schedule"]] if s["schedule"] not in ("1f1b", "interleaved") else []
    return f"{sizes}{zero} · {' · '.join(parts)}"


def job_line(estimate: TrainingEstimate) -> str:
    """The batch and the formats."""
    s, job = estimate.strategy, estimate.job
    source = f" from {job['source_len']:,}" if job["source_len"] else ""
    adapters = f" · {job['method']} of rank {job['rank']}" if job["rank"] else ""
    frozen = f" · {' and '.join(job['frozen'])} frozen" if job["frozen"] else ""
    away = f" · {' and '.join(job['offload'])} in host memory" if job["offload"] else ""
    return (
        f"batch {s['global_batch']:,} × {s['seq_len']:,} tokens{source} · {s['precision']} · {s['optimizer']}{adapters}"
        f"{frozen}{away} · {job['attention']} attention · {job['framework']} · placed {s['order']}"
    )


def bars(estimate: TrainingEstimate) -> Any:
    """Memory against capacity and the time split, side by side."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 4))
    grid.add_row(memory_bars(estimate), time_bars(estimate))
    return grid


def memory_parts(estimate: TrainingEstimate | InferenceEstimate) -> dict[str, float]:
    """Memory of the worst device by part; of a training job with the runtime's own, and what the allocator reserves
    beyond all of them.
    """
    if not isinstance(estimate, TrainingEstimate):
        return {name.replace("kv_cache", "KV cache"): value for name, value in estimate.memory_bytes.items()}
    context = estimate.memory_context_bytes
    slack = estimate.memory_reserved_bytes - estimate.memory_allocated_bytes - context
    return {**estimate.memory_bytes, "context": context, "slack": slack}


def memory_bars(estimate: TrainingEstimate) -> Any:
    """Parts of memory on the worst device."""
    capacity, reserved = estimate.memory_capacity_bytes, estimate.memory_reserved_bytes
    parts = memory_parts(estimate)
    title = f"Memory {show(reserved, 'bytes')} of {show(capacity, 'bytes')} a device"
    return part_bars(title, {name: (value, show(value, "bytes")) for name, value in parts.items()}, capacity)


def time_bars(estimate: TrainingEstimate) -> Any:
    """Exposed parts of a step."""
    step = estimate.step_time_s
    low, high = estimate.step_time_low_s / step - 1.0, estimate.step_time_high_s / step - 1.0
    title = f"Step {show(step, 's')} ({low:+z.0%} to {high:+z.0%})".replace("-", "−")
    parts = {NAMES.get(name, name): (value, show(value, "s")) for name, value in estimate.time_s.items()}
    return part_bars(title, {name: part for name, part in parts.items() if part[0] > NEGLIGIBLE * step}, step)


def part_bars(title: str, parts: Mapping[str, tuple[float, str]], whole: float, width: int = BAR) -> Any:
    """Parts with their values and bars."""
    from rich.table import Table

    grid = Table(
        title=title, title_justify="left", title_style="bold", box=None, show_header=False, padding=(0, 1, 0, 0)
    )
    grid.add_column(no_wrap=True)
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(no_wrap=True, style="cyan")
    for name, (value, text) in parts.items():
        grid.add_row(name, text, bar(value, whole, width))
    return grid


def helps_line(plan: Plan) -> str:
    """Throughput gained from 10 % more of each resource."""
    gains = [f"{name} {gain:+.1%}" for name, gain in plan.helps.items() if gain > 0.0005][:4]
    return f"10 % more of: {', '.join(gains)}" if gains else "10 % more of any one resource changes nothing"


def cost_lines(plan: Plan) -> dict[str, str]:
    """What the token budget, or a trillion tokens, cost: money and footprint, each with its range."""
    best, budget = plan.best, plan.tokens or TERA
    hours = show(budget / best.tokens_per_s / HOUR_S * best.hardware["devices"], "count")
    per = f"{hours} device-hours for {show(budget, 'count')} tokens"
    made = plan.bill
    if made is None:
        return {"Costs": per}
    rent, owned = ranged(made.rent_usd["on_demand"], "usd"), ranged(made.owned_usd, "usd")
    energy, carbon = ranged(made.facility_energy_j, "j"), ranged(made.total_carbon_kg, "kg")
    return {
        "Costs": f"rent {rent} · owned {owned} · {per} ({made.prices})",
        "Footprint": f"{energy} with cooling · {carbon} CO2e ({made.grid})",
    }


def ranged(value: Range | None, dimension: str) -> str:
    """A range for a person: the expected value, and where it may lie."""
    if value is None:
        return "unknown"
    low, expected, high = (show(float(each), dimension) for each in value)
    if low == high:
        return expected
    *numbers, unit = expected.split(" ")
    if numbers and low.endswith(f" {unit}") and high.endswith(f" {unit}"):
        end = len(unit) + 1
        return f"{expected[:-end]} ({low[:-end]} to {high[:-end]}) {unit}"
    return f"{expected} ({low} to {high})"


def accuracy_line(estimate: TrainingEstimate) -> str:
    """Where the range of the step time comes from, and what the kernel curves rest on."""
    band, step = estimate.band, estimate.step_time_s
    low, high = (f"{edge / step - 1.0:+z.0%}" for edge in (estimate.step_time_low_s, estimate.step_time_high_s))
    runs = f"{band['rows']} published runs of {band['groups']} models"
    span = f"{low} to {high} of the prediction".replace("-", "−")
    if band["measured"]:
        known = f"{band['family']}: of {runs}, {band['coverage']:.0%} took {span}"
    else:
        of_family = "" if band["family"] == "any" else f" of {band['family']} elsewhere"
        known = f"no run like this was published; from {runs}{of_family}, widened: {span}"
    return f"{known} · kernel curves {estimate.calibration}"


def runners_up(plan: Plan) -> Any:
    """The plans as a table."""
    several = len({p.hardware["devices"] for p in plan.plans}) > 1
    rows = [
        {
            "#": i,
            **({"devices": p.hardware["devices"]} if several else {}),
            **{name: p.strategy[name] for name in ("tp", "pp", "vpp", "cp", "dp")},
            **({"ep": p.strategy["ep"]} if plan.setting.model.experts else {}),
            "zero": p.strategy["zero"],
            "micro": p.strategy["micro_batch"],
            "recompute": p.strategy["recompute"],
            "step": show(p.step_time_s, "s"),
            "tokens/s": show(p.tokens_per_s, "count"),
            "MFU": f"{p.mfu:.1%}",
            "memory": show(p.memory_reserved_bytes, "bytes"),
            "limited by": p.bottleneck.split(" (")[0],
        }
        for i, p in enumerate(plan.plans, 1)
    ]
    return simple_table(rows)


def simple_table(rows: Sequence[Mapping[str, Any]]) -> Any:
    """A table with numbers to the right and words to the left, long ones over several lines."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for name in rows[0]:
        numbers = all(str(row[name])[:1] in "0123456789-+" or str(row[name]) == "n/a" for row in rows)
        table.add_column(plain(name), justify="right" if numbers else "left", no_wrap=True)
    for row in wrapped(rows):
        table.add_row(*map(plain, row.values()))
    return table


def considered_line(plan: Plan) -> str:
    """How many candidates there were and how many fit."""
    return f"{plan.candidates:,} candidates in {show(plan.elapsed_s, 's', 2)}, {plan.feasible:,} fit"


def rejected_line(plan: Plan) -> str:
    """Why most of the others were rejected."""
    reasons: dict[str, int] = {}
    for reason, count in plan.rejected.items():
        short = reason.split(":")[0]
        reasons[short] = reasons.get(short, 0) + count
    top = sorted(reasons.items(), key=lambda item: -item[1])
    rest = sum(count for _, count in top[5:])
    shown = [f"{count:,} {reason}" for reason, count in top[:5]] + ([f"{rest:,} for other reasons"] if rest else [])
    return " · ".join(shown) or "none"


def python_call(call: Mapping[str, Any], function: str = "plan") -> str:
    """The same question in Python."""
    return f"hwsim.{function}({', '.join(f'{name}={_literal(value)}' for name, value in call.items())})"


def _literal(value: Any) -> str:
    """A value in Python, large round numbers as 15e12, nothing longer than anyone reads."""
    if isinstance(value, float):
        power = 3 * int(math.log10(value) // 3) if value >= 1 else 0
        short = f"{value / 10**power:.12g}e{power}"
        return short if power > 3 and float(short) == value else repr(value)
    shown = repr(value)
    return shown if len(shown) <= LONGEST_ARGUMENT else f"{shown[:LONGEST_ARGUMENT]}…"


def estimate_view(estimate: TrainingEstimate) -> list[Any]:
    """One strategy: the answer, memory and time bars, traffic."""
    verdict = "fits" if estimate.fits else "[red]does not fit[/red]"
    head = (
        f"{estimate.model['name']} on {estimate.hardware['devices']:,} × {estimate.hardware['accelerator']}: "
        f"{show(estimate.step_time_s, 's')} a step, {show(estimate.tokens_per_s, 'count')} tokens/s, "
        f"MFU {estimate.mfu:.1%}, HFU {estimate.hfu:.1%}, {verdict}"
    )
    tiers = ", ".join(f"{tier} {show(sent, 'bytes')}" for tier, sent in estimate.traffic_tier_bytes.items() if sent)
    axes = ", ".join(f"{axis} {show(sent, 'bytes')}" for axis, sent in estimate.traffic_bytes.items() if sent)
    sends = f"{axes or 'nothing'} a device and step" + (f" ({tiers})" if tiers else "")
    tiny = NEGLIGIBLE * NEGLIGIBLE * estimate.step_time_s
    hidden = {axis: busy - estimate.time_s[axis] for axis, busy in estimate.communication_s.items()}
    behind = ", ".join(f"{axis} {show(seconds, 's')}" for axis, seconds in hidden.items() if seconds > tiny)
    covered = f"{behind or 'nothing'} of communication behind compute"
    return [
        f"[bold]{head}[/bold]",
        labelled({"Strategy": strategy_line(estimate), "": job_line(estimate)}),
        "",
        bars(estimate),
        labelled(
            {
                "Limited by": estimate.bottleneck,
                "Sends": sends,
                "Hidden": covered,
                "Accuracy": accuracy_line(estimate),
            }
        ),
    ]


def explain_view(rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The operators of a micro-batch on one device, block by block."""
    view: list[Any] = ["One micro-batch on one device. % of limit: the data-sheet roofline (or link) over the time."]
    for block, count in dict.fromkeys((row["block"], row["count"]) for row in rows):
        mine = [row for row in rows if row["block"] == block]
        seconds = {
            phase: sum(row["time_s"] for row in mine if row["phase"] == phase) for phase in ("forward", "backward")
        }
        times = f"forward {show(seconds['forward'], 's')}, backward {show(seconds['backward'], 's')}"
        view += [
            f"\n[bold]{block}[/bold]{f' × {count}' if count > 1 else ''}: {times}",
            simple_table([_operator(row) for row in mine]),
        ]
    sources = ", ".join(sorted({f"{row['source']}" for row in rows}))
    return [*view, f"Curves: {sources} (see `hwsim hardware show` for the source of each)."]


def _operator(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "operator": row["operator"],
        "phase": row["phase"],
        "work": row["work"],
        "FLOPs": show(row["flops"], "flops") if row["flops"] else "-",
        "memory": show(row["memory_bytes"], "bytes") if row["memory_bytes"] else "-",
        "wire": show(row["wire_bytes"], "bytes") if row["wire_bytes"] else "-",
        "time": show(row["time_s"], "s"),
        "bound": row["bound"],
        "% of limit": f"{row['limit_fraction']:.0%}",
    }
