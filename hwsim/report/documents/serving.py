"""The report of a served model: a plan of deployments, or one deployment."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from hwsim.analytic.inference import NAMES
from hwsim.report import figures
from hwsim.report.document import Block, Cell, Column, Document, Facts, Figure, Reproduce, Section, Table
from hwsim.report.documents.parts import (
    PER_OUTPUT,
    bill_section,
    money_line,
    provenance,
    question_facts,
    sensitivity_section,
)
from hwsim.report.documents.served import accuracy_section
from hwsim.report.figures import Measure, Point
from hwsim.report.inference import batch_line, room_line, sends_line, strategy_line
from hwsim.report.plan import SIZES, memory_parts, sizes_label
from hwsim.report.serving_plan import headline, promise_line, replica_line
from hwsim.report.writing import capital
from hwsim.search.serving_plan import ServingPlan
from hwsim.units import show

if TYPE_CHECKING:
    from hwsim.analytic.inference import InferenceEstimate
    from hwsim.analytic.serving import Served
    from hwsim.scenarios.dossier import Dossier
    from hwsim.search.sensitivity import Sensitivity

USER = Measure("Output speed of a user", unit="tokens/s")
DEVICE = Measure("Output of a device", unit="tokens/s")
SHOWN_PLANS = 3


def serving_document(found: Dossier, sensitivity: Sensitivity | None, command: str, python: str) -> Document:
    """A deployment on a few pages: the answer first, then everything behind it."""
    outcome = found.outcome
    best = cast("InferenceEstimate", outcome.estimate)
    served = cast("Served", outcome.setting)
    plan = outcome.plan if isinstance(outcome.plan, ServingPlan) else None
    sections = [Section("What was asked", (question_facts(outcome), Facts(tuple(how_facts(best).items()))))]
    sections += [deployments_section(plan)] if plan is not None else []
    sections += explained(found, sensitivity)
    hardware, model = served.hardware, served.model
    about = f"{best.hardware['devices']:,} × {hardware.accelerator.title or hardware.accelerator.name}"
    return Document(
        title=f"{model.title or model.name} served by {about}",
        subtitle=f"{'Serving plan' if plan is not None else 'One deployment'}: {layout_line(best)}",
        answer=answer_lines(found, best, plan),
        sections=tuple(sections),
        reproduce=Reproduce(command, python),
        provenance=provenance(outcome.question.plain(), hardware=hardware.name, calibration=best.calibration),
    )


def explained(found: Dossier, sensitivity: Sensitivity | None) -> list[Section]:
    """Everything behind a deployment: memory, time, what else fits, levers, its bill and accuracy."""
    outcome, best = found.outcome, cast("InferenceEstimate", found.outcome.estimate)
    plan = outcome.plan if isinstance(outcome.plan, ServingPlan) else None
    sections = [memory_section(best, plan), time_section(best)]
    sections += [pareto_section(found, best)] if len(found.points) > 1 else []
    sections += [sensitivity_section(sensitivity)] if sensitivity is not None else []
    sections += [bill_section(outcome.bill, PER_OUTPUT)] if outcome.bill is not None else []
    return [*sections, accuracy_section(cast("Served", outcome.setting))]


def answer_lines(found: Dossier, best: InferenceEstimate, plan: ServingPlan | None) -> tuple[str, ...]:
    """The answer box."""
    bill = found.outcome.bill
    if plan is not None:
        made = best.deployment
        lines = [headline(plan) + (" at the listed rent" if made["rent_usd_per_hour"] else "")]
        lines += [f"Promise: {promise_line(plan)}", f"Best deployment: {layout_line(best)}"]
        watts, rate = made["power_w"], made["output_tokens_per_s"]
    else:
        verdict = "It fits" if best.fits else f"It does not fit (largest batch: {best.max_batch:,})"
        speed = f"{show(best.output_tokens_per_s, 'count')} output tokens/s"
        lines = [f"{verdict}: TTFT {show(best.ttft_s, 's')}, TPOT {show(best.tpot_s, 's')}, {speed}", batch_line(best)]
        watts, rate = best.average_power_w_per_device * best.hardware["devices"], best.output_tokens_per_s
    used, capacity = best.memory_allocated_bytes, best.memory_capacity_bytes
    lines.append(f"Memory {show(used, 'bytes')} of {show(capacity, 'bytes')} a device; limited by {best.bottleneck}")
    lines += [money_line(bill, PER_OUTPUT)] if bill is not None else []
    lines.append(f"{show(watts, 'w')} on average, {show(watts / rate, 'j')} a token (nodes, without cooling)")
    return tuple(lines)


def layout_line(best: InferenceEstimate) -> str:
    """How the devices are used."""
    return replica_line(best) if "deployment" in best.to_dict() else strategy_line(best)


def how_facts(best: InferenceEstimate) -> dict[str, str]:
    """The deployment, what else it holds, and what it sends."""
    return {"deployment": layout_line(best), "holds": room_line(best), "sends": sends_line(best)}


def deployments_section(plan: ServingPlan) -> Section:
    """The best deployments, best first."""
    at = f"p{plan.request.promise.percentile}"
    timed = plan.best.deployment["ttft_s"] is not None
    names = (f"{at} TTFT", f"{at} TPOT") if timed else ("TTFT", "TPOT")
    numbers = ("devices", "batch", "requests/s", *names, "tokens/s a device", "USD/M tokens", "power")
    columns = (Column("replicas"), *(Column(name, kind="number") for name in numbers), Column("limited by"))
    rows = tuple(_row(one, at) for one in plan.plans)
    rejected = "; ".join(f"{count:,} {reason}" for reason, count in plan.rejected.items()) or "none"
    kept = "keep the promise without queues" if plan.request.promise.given else "fit"
    lead = f"Of {plan.candidates:,} layouts and batches {plan.feasible:,} {kept}. Rejected: {rejected}."
    most = "the most within the promise, held against random arrivals" if timed else "steady traffic without queues"
    notes = (f"Requests/s: {most}. USD at the listed rent.",)
    return Section(
        "The plan and the next best", (Table("The best deployments, best first", columns, rows, notes),), lead
    )


def _row(one: InferenceEstimate, at: str) -> tuple[Cell | str, ...]:
    made = one.deployment
    timed = made["ttft_s"] is not None
    ttft, tpot = (made["ttft_s"].get(at), made["tpot_s"].get(at)) if timed else (one.ttft_s, one.tpot_s)
    capacity, device = made["qps_capacity"], made["output_tokens_per_s_per_device"]
    return (
        f"{made['replicas']:,} × {sizes_label(one.strategy)}",
        *(Cell(f"{count:,}", float(count)) for count in (made["devices"], one.strategy["batch"])),
        Cell(f"{capacity:.3g}", capacity), Cell.of(ttft, "s"), Cell.of(tpot, "s"), Cell(f"{device:,.0f}", device),
        Cell.of(made["cost_usd_per_million_output_tokens"], "usd"), Cell.of(made["power_w"], "w"),
        one.bottleneck.partition(": ")[2],
    )  # fmt: skip


def memory_section(best: InferenceEstimate, plan: ServingPlan | None) -> Section:
    """Memory by part against the capacity, of the best deployments."""
    chosen = [best] if plan is None else list(plan.plans[:SHOWN_PLANS])
    places = [f"#{place} " if len(chosen) > 1 else "" for place in range(1, len(chosen) + 1)]
    stacks = {f"{place}{_short(one)}": memory_parts(one) for place, one in zip(places, chosen, strict=True)}
    used, capacity = best.memory_allocated_bytes, best.memory_capacity_bytes
    largest, size = max(memory_parts(best).items(), key=lambda item: item[1])
    share = f"{size / used:.0%} of that is {'the ' if largest.startswith('KV') else ''}{largest}"
    title = f"{show(used, 'bytes')} of {show(capacity, 'bytes')} are taken ({used / capacity:.0%}); {share}"
    caption = (
        f"The fullest device with {best.strategy['batch']:,} requests in flight; what is left holds more of them, "
        f"{best.max_batch:,} at most."
    )
    return Section("Memory", (figures.memory_bars("memory", title, stacks, capacity, caption),))


def _short(one: InferenceEstimate) -> str:
    return f"{sizes_label(one.strategy)}, batch {one.strategy['batch']:,}"


def time_section(best: InferenceEstimate) -> Section:
    """Where the first token and the further ones go."""
    batch = best.strategy["batch"]
    many = f"All {batch:,} requests of a full batch start together" if batch > 1 else "One request"
    caption = f"{many}: nothing waits in a queue."
    under = best.to_dict().get("deployment", {}).get("ttft_s")
    if under is not None:
        caption = f"{many}, which traffic hardly ever does: under it the p95 TTFT is {show(under['p95'], 's')}."
    blocks: list[Block] = [_waterfall(best, "prefill", "the first token", caption)]
    if best.strategy["output_len"] > 1:
        said = "Prompts of others: steps that read a prompt take longer." if best.time_s["decode"]["prompts"] else ""
        blocks.append(_waterfall(best, "decode", "each further token", said))
    return Section("Time", tuple(blocks))


def _waterfall(best: InferenceEstimate, phase: str, word: str, caption: str) -> Figure:
    parts = {NAMES[name]: seconds for name, seconds in best.time_s[phase].items() if seconds > 0}
    total = sum(parts.values())
    longest = max(parts, key=lambda name: parts[name])
    title = f"{capital(word)} takes {show(total, 's')}, {parts[longest] / total:.0%} of it {longest}"
    return figures.time_waterfall(f"time-{phase}", title, parts, caption)


def pareto_section(found: Dossier, best: InferenceEstimate) -> Section:
    """Throughput of a device against the speed of a user: all that fits, the chosen one marked."""
    s, points = best.strategy, []
    for each in found.points:
        name = f"{sizes_label(each)}, batch {each['batch']:,}"
        chosen = each["batch"] == s["batch"] and all(each[size] == s[size] for size in (*SIZES, "etp"))
        at = each["output_tokens_per_s_per_user"], each["output_tokens_per_s_per_device"]
        points.append(Point(name, *at, bool(each["best"]), chosen))
    fastest, most = max(points, key=_user), max(points, key=_device)
    marked = next((point for point in points if point.chosen), most)
    title = (
        f"{show(marked.y, 'count')} tokens/s a device at {show(marked.x, 'count')} a user; the fastest layout "
        f"gives a user {show(fastest.x, 'count')}, at {show(fastest.y, 'count')} a device"
    )
    plan = found.outcome.plan
    promised = isinstance(plan, ServingPlan) and plan.request.promise.given
    keeps = f"; {sum(bool(each['keeps']) for each in found.points):,} keep the promise" if promised else ""
    caption = (
        f"Each of the {len(points):,} layouts and batches that fit, under steady traffic without queues{keeps}. "
        "Diamond: the chosen one."
    )
    figure = figures.pareto("pareto", title, points, USER, DEVICE, caption, log=(True, True))
    return Section("Throughput against speed", (figure,))


def _user(point: Point) -> float:
    return point.x


def _device(point: Point) -> float:
    return point.y
