"""The report of a training plan or estimate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from hwsim.analytic.estimate import NAMES
from hwsim.report import figures
from hwsim.report.document import Block, Cell, Column, Document, Facts, Figure, Paragraph, Reproduce, Section, Table
from hwsim.report.documents.parts import (
    accuracy_section,
    bill_section,
    money_line,
    provenance,
    question_facts,
    sensitivity_section,
)
from hwsim.report.figures import Measure, Operator, Point
from hwsim.report.plan import job_line, memory_parts, sizes_label, strategy_line
from hwsim.report.writing import capital
from hwsim.search.plan import Plan
from hwsim.units import TERA, show

if TYPE_CHECKING:
    from hwsim.analytic.estimate import TrainingEstimate
    from hwsim.analytic.setting import Setting
    from hwsim.scenarios.dossier import Dossier
    from hwsim.scenarios.sweep import Swept
    from hwsim.search.sensitivity import Sensitivity

MEMORY, TOKENS = Measure("Memory per device", "bytes"), Measure("Throughput", unit="tokens/s")
DEVICES, CONTEXT, STEP = Measure("Devices"), Measure("Sequence length", unit="tokens"), Measure("Time per step", "s")
SHOWN_PLANS = 3
NEARLY = 0.9
"""Share of the best throughput that a smaller plan should keep."""


def training_document(
    found: Dossier, sensitivity: Sensitivity | None, command: str, python: str, questions: Section | None = None
) -> Document:
    """A plan or an estimate on a few pages: the answer first, then everything behind it."""
    outcome = found.outcome
    best, setting, plan = _best(found), _setting(found), outcome.plan if isinstance(outcome.plan, Plan) else None
    sections = [
        Section("What was asked", (question_facts(outcome), Paragraph(job_line(best)))),
        plan_section(best, plan),
        *explained(found, sensitivity, per(found)),
    ]
    sections[-1:-1] = [questions] if questions is not None else []
    hardware = setting.hardware
    about = f"{best.hardware['devices']:,} × {hardware.accelerator.title or hardware.accelerator.name}"
    model = setting.model.title or setting.model.name
    return Document(
        title=f"{model} on {about}",
        subtitle=f"Training plan {per(found)}",
        answer=answer_lines(found, best, plan),
        sections=tuple(sections),
        reproduce=Reproduce(command, python),
        provenance=provenance(outcome.question.plain(), hardware=hardware.name, calibration=best.calibration),
    )


def explained(found: Dossier, sensitivity: Sensitivity | None, what: str) -> list[Section]:
    """Everything behind a plan: memory, time, traffic, kernels, levers, scaling, its bill (of `what`) and accuracy."""
    outcome, best = found.outcome, _best(found)
    plan = outcome.plan if isinstance(outcome.plan, Plan) else None
    sections = [memory_section(best, plan), time_section(best), traffic_section(best)]
    sections.append(roofline_section(found, _setting(found)))
    if plan is not None and len(plan.pareto) > 1:
        sections.append(pareto_section(plan))
    if sensitivity is not None:
        sections.append(sensitivity_section(sensitivity))
    sections.append(scaling_section(found, best))
    if outcome.bill is not None:
        sections.append(bill_section(outcome.bill, what))
    return [*sections, accuracy_section(best)]


def _best(found: Dossier) -> TrainingEstimate:
    return cast("TrainingEstimate", found.outcome.estimate)


def _setting(found: Dossier) -> Setting:
    return cast("Setting", found.outcome.setting)


def per(found: Dossier) -> str:
    """What costs are of."""
    plan = found.outcome.plan
    tokens = plan.tokens if isinstance(plan, Plan) else found.outcome.question.fields.get("tokens")
    tokens = tokens or TERA
    return f"for {show(tokens, 'count') if isinstance(tokens, int | float) else tokens} tokens"


def answer_lines(found: Dossier, best: TrainingEstimate, plan: Plan | None) -> tuple[str, ...]:
    """The answer box."""
    bill = found.outcome.bill
    tokens = plan.tokens if plan is not None and plan.tokens else TERA
    long = show(tokens / best.tokens_per_s, "s")
    speed = f"{show(best.tokens_per_s, 'count')} tokens/s, {best.mfu:.0%} MFU"
    room = f"{show(best.memory_reserved_bytes, 'bytes')} of {show(best.memory_capacity_bytes, 'bytes')} a device"
    lines = [
        f"{show(tokens, 'count')} tokens take {long}: {speed}" if best.fits else f"It does not fit: {room}",
        f"{'Best strategy' if plan is not None else 'Strategy'}: {strategy_line(best)}",
        f"Memory {room}; limited by {best.bottleneck}",
    ]
    lines += [money_line(bill, per(found))] if bill is not None else []
    return tuple(lines)


def plan_section(best: TrainingEstimate, plan: Plan | None) -> Section:
    """The strategy, and the ones that come next."""
    if plan is None:
        return Section("The strategy", (Facts((("strategy", strategy_line(best)),)),))
    columns = (
        Column("#"), Column("strategy"), Column("step", kind="number"), Column("tokens/s", kind="number"),
        Column("MFU", kind="number"), Column("memory", kind="number"), Column("limited by"),
    )  # fmt: skip
    rows = tuple(
        (
            Cell(f"{place}", float(place)), strategy_line(one), Cell.of(one.step_time_s, "s"),
            Cell.of(one.tokens_per_s, "count"), Cell(f"{one.mfu:.1%}", one.mfu),
            Cell.of(one.memory_reserved_bytes, "bytes"), one.bottleneck.split(" (")[0],
        )
        for place, one in enumerate(plan.plans, 1)
    )  # fmt: skip
    rejected = "; ".join(f"{count:,} {reason}" for reason, count in list(plan.rejected.items())[:6])
    lead = f"Of {plan.candidates:,} candidates {plan.feasible:,} fit. Rejected: {rejected}."
    return Section("The plan and the next best", (Table("The best plans, best first", columns, rows),), lead)


def memory_section(best: TrainingEstimate, plan: Plan | None) -> Section:
    """Memory by part against the capacity, of the best plans."""
    chosen = [best] if plan is None else list(plan.plans[:SHOWN_PLANS])
    names = [_short(one, i) for i, one in enumerate(chosen)]
    names = names if len(names) > 1 else [names[0].partition(" ")[2]]
    stacks = {name: memory_parts(one) for name, one in zip(names, chosen, strict=True)}
    used, capacity = best.memory_reserved_bytes, best.memory_capacity_bytes
    largest = max(memory_parts(best).items(), key=lambda item: item[1])
    title = (
        f"{show(used, 'bytes')} of {show(capacity, 'bytes')} are taken ({used / capacity:.0%}); "
        f"{largest[0]} are most of it" if largest[0].endswith("s") else
        f"{show(used, 'bytes')} of {show(capacity, 'bytes')} are taken ({used / capacity:.0%}), most of it {largest[0]}"
    )  # fmt: skip
    caption = (
        "The fullest device. Slack is what the allocator reserves beyond the tensors; context is the runtime's own."
    )
    return Section("Memory", (figures.memory_bars("memory", title, stacks, capacity, caption),))


def _short(one: TrainingEstimate, place: int) -> str:
    """A plan in a few words, told apart from the others by its place."""
    return f"#{place + 1} {sizes_label(one.strategy, ('tp', 'pp', 'cp', 'dp', 'ep'))}"


def time_section(best: TrainingEstimate) -> Section:
    """Where a step goes."""
    parts = {NAMES.get(name, name): seconds for name, seconds in best.time_s.items() if seconds > 0}
    total = best.step_time_s
    longest = max(parts, key=lambda name: parts[name])
    title = f"{longest.capitalize()} takes {parts[longest] / total:.0%} of a step of {show(total, 's')}"
    hidden = {axis: busy - best.time_s[axis] for axis, busy in best.communication_s.items()}
    behind = [f"{NAMES.get(axis, axis)} {show(value, 's')}" for axis, value in hidden.items() if value > 0.001 * total]
    caption = f"Exposed time. Hidden behind compute: {', '.join(behind)}." if behind else "Exposed time."
    return Section("Time", (figures.time_waterfall("time", title, parts, caption),))


def traffic_section(best: TrainingEstimate) -> Section:
    """What travels, and over which tier."""
    tiers = {tier: {"sent": sent} for tier, sent in best.traffic_tier_bytes.items() if sent > 0}
    axes = {NAMES.get(axis, axis): {"sent": sent} for axis, sent in best.traffic_bytes.items() if sent > 0}
    if not tiers:
        return Section("Traffic", (Paragraph("Nothing is sent between devices."),))
    total = sum(part["sent"] for part in tiers.values())
    most = max(tiers, key=lambda tier: tiers[tier]["sent"])
    share = tiers[most]["sent"] / total if total else 0.0
    part_of = "all" if len(tiers) == 1 else f"{share:.0%}"
    title = f"A device sends {show(total, 'bytes')} a step, {part_of} of it over {most}"
    busiest = max(axes, key=lambda axis: axes[axis]["sent"])
    part = axes[busiest]["sent"] / sum(each["sent"] for each in axes.values())
    blocks = [figures.traffic_bars("traffic-tiers", title, tiers)]
    if len(axes) > 1:
        blocks.append(figures.traffic_bars("traffic-axes", f"{capital(busiest)} sends {part:.0%} of that", axes))
    return Section("Traffic", tuple(blocks))


def roofline_section(found: Dossier, setting: Setting) -> Section:
    """The kernels of a micro-batch under the limits of the device."""
    accelerator, compute = setting.hardware.accelerator, setting.precision.compute
    peak, memory = getattr(accelerator.peak, compute), accelerator.memory.bandwidth
    total = sum(row["time_s"] * row["count"] for row in found.operators)
    operators = [_operator(row, total) for row in found.operators if row["memory_bytes"] > 0]
    reached = [each for each in operators if each.flops_per_s > 0]
    heavy = max(reached, key=lambda each: each.share)
    share = f"{heavy.flops_per_s / peak:.0%} of the {compute} peak"
    title = f"{capital(heavy.name)} takes {heavy.share:.0%} of a micro-batch and reaches {share}"
    caption = "One micro-batch on one device. Marks grow with the share of the time; collectives are left out."
    kind = accelerator.memory.kind or "memory"
    figure = figures.roofline("roofline", title, reached, {compute: peak}, {kind: memory}, caption)
    return Section("Roofline", (figure,))


def _operator(row: Mapping[str, Any], total: float) -> Operator:
    seconds = row["time_s"]
    return Operator(
        name=f"{row['operator']} {row['phase']}".replace("mlp", "MLP").replace("lm ", "LM "),
        flops_per_byte=row["flops"] / row["memory_bytes"],
        flops_per_s=row["flops"] / seconds if seconds else 0.0,
        share=seconds * row["count"] / total if total else 0.0,
        bound=row["bound"],
    )


def pareto_section(plan: Plan) -> Section:
    """Plans that no other beats in both time and memory (and devices)."""
    best = plan.best
    points = [
        Point(
            _short(one, i).partition(" ")[2],
            one.memory_reserved_bytes,
            one.tokens_per_s,
            True,
            one.strategy == best.strategy,
        )
        for i, one in enumerate(plan.pareto)
        if one.hardware["devices"] == best.hardware["devices"]
    ]
    if len(points) < 2:
        return Section("Speed against memory", (Paragraph("One plan is both the fastest and the smallest."),))
    near = [point for point in points if point.y >= NEARLY * best.tokens_per_s]
    least = min(near if len(near) > 1 else points, key=lambda point: point.x)
    saved, lost = best.memory_reserved_bytes - least.x, 1.0 - least.y / best.tokens_per_s
    title = f"{show(saved, 'bytes')} a device can be saved for {lost:.0%} of the throughput ({least.name})"
    caption = "Plans that no other beats in both."
    return Section("Speed against memory", (figures.pareto("pareto", title, points, MEMORY, TOKENS, caption),))


def scaling_section(found: Dossier, best: TrainingEstimate) -> Section:
    """More devices, longer sequences: the same strategy."""
    blocks: list[Block] = []
    lines = {
        name: curve
        for name, swept in (("same batch", found.strong), ("batch grows", found.weak))
        if (curve := _curve(swept, "gpus", "tokens_per_s"))
    }
    if lines and max(map(len, lines.values())) > 1:
        last, first = max(lines.values(), key=len)[-1], max(lines.values(), key=len)[0]
        kept = last[1] / first[1] * first[0] / last[0]
        times = last[1] / first[1]
        title = f"{last[0]:,.0f} devices are {times:.3g} times as fast as {first[0]:,.0f}: {kept:.0%} of ideal"
        blocks.append(
            figures.scaling("scaling", title, lines, DEVICES, TOKENS, "The strategy is kept; only what fits is drawn.")
        )
    blocks += _context_figures(found.context, best)
    if not blocks:
        return Section("Scaling", (Paragraph("No other number of devices takes this strategy."),))
    return Section("Scaling", tuple(blocks))


def _curve(swept: Swept | None, axis: str, name: str, fitting: bool = True) -> list[tuple[float, float]]:
    if swept is None or name not in swept.measures:
        return []
    values = zip(swept.grid.values(), swept.measures[name].tolist(), swept.fits.tolist(), strict=True)
    return [(float(at[axis]), value) for at, value, fits in values if math.isfinite(value) and (fits or not fitting)]


def _context_figures(swept: Swept | None, best: TrainingEstimate) -> list[Figure]:
    """Memory and throughput against the sequence length."""
    memory = _curve(swept, "job.seq_len", "memory", fitting=False)
    speed = _curve(swept, "job.seq_len", "tokens_per_s", fitting=False)
    if len(memory) < 2:
        return []
    capacity = best.memory_capacity_bytes
    fitting = [length for length, used in memory if used <= capacity]
    longest = f"{max(fitting):,.0f} tokens are the longest that fit" if fitting else "No length fits"
    lines = {"needed": memory, "capacity": [(length, capacity) for length, _ in memory]}
    return [
        figures.sweep_lines(
            "context-memory", f"{longest} with this strategy", lines, CONTEXT, MEMORY, log=(True, True)
        ),
        figures.sweep_lines(
            "context-speed", _speed_title(speed), {"throughput": speed}, CONTEXT, TOKENS,
            "The same tokens per step, whether it fits or not.", log=(True, False),
        ),
    ]  # fmt: skip


def _speed_title(speed: Sequence[tuple[float, float]]) -> str:
    best, fast = max(speed, key=lambda point: point[1])
    longest, slow = speed[-1]
    if best == longest:
        return f"The longer, the faster: {fast / speed[0][1]:.2g} times the speed of {speed[0][0]:,.0f} at {best:,.0f}"
    return f"Fastest at {best:,.0f} tokens; {longest:,.0f} run at {slow / fast:.0%} of that speed"
