"""How many devices a target needs, for people: the answer, what it rests on, the runner-up, what was tried."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hwsim.report.plan import accuracy_line, job_line, labelled, python_call, simple_table, strategy_line
from hwsim.report.serving_plan import replica_line
from hwsim.report.terminal import plain
from hwsim.units import HOUR_S, show

if TYPE_CHECKING:
    from hwsim.search.sizing import Sizing
    from hwsim.search.targets import Verdict

MOST_ROWS = 12


def size_view(found: Sizing, call: Mapping[str, Any]) -> list[Any]:
    """The answer in a line, the plan, what headroom and theory say, costs, runner-up, what was tried."""
    plan: Any = found.answer.option.plan
    if plan.kind == "training":
        lines = {"Best plan": strategy_line(plan), "": job_line(plan)}
    else:
        lines = {"Best plan": replica_line(plan), "": latency_line(found)}
    lines |= {
        "Headroom": headroom_line(found),
        "At least": least_line(found),
        "Costs": cost_line(found.answer),
        "Runner-up": runner_line(found),
        **({"Accuracy": accuracy_line(plan)} if plan.kind == "training" else {}),
    }
    no = {f"Not {machine.name}": machine.binds for machine in found.machines if machine.binds}
    return [
        f"[bold]{plain(headline(found))}[/bold]",
        labelled({label: text for label, text in lines.items() if text}),
        *considered(found),
        labelled(no | {"Python": python_call(call, "size")}),
    ]


def _does(found: Sizing) -> list[str]:
    """What the answer reaches, and what it costs."""
    made, answer = found.answer.option, found.answer
    plan: Any = made.plan
    does = [f"{show(answer.days, 'days')}"] if answer.days is not None else []
    able = "tokens/s" if plan.kind == "training" else "output tokens/s at most"
    does += [] if answer.days is not None else [f"{show(answer.rate, 'count')} {able}"]
    if answer.cost_usd is not None:
        does.append(show(answer.cost_usd, "usd"))
    elif made.rent_usd_per_s is not None:
        does.append(_hourly(made.rent_usd_per_s))
    return does


def headline(found: Sizing) -> str:
    """The answer in one line, with the question."""
    plan: Any = found.answer.option.plan
    return f"{plan.model['name']}, {asked(found)}: {machine_line(found)}, {', '.join(_does(found))}"


def answer_line(found: Sizing) -> str:
    """The answer in one line, below the question."""
    return f"{machine_line(found)}: {', '.join(_does(found))}"


def machine_line(found: Sizing) -> str:
    """How many of what."""
    made = found.answer.option
    return f"{made.devices:,} × {made.title} ({nodes(made.nodes)})"


def nodes(count: int) -> str:
    """A number of nodes in words."""
    return f"{count:,} node{'s' if count > 1 else ''}"


def asked(found: Sizing) -> str:
    """The targets in words."""
    t = found.targets
    parts = [f"{show(t.tokens, 'count')} tokens"] if t.tokens is not None else []
    parts += [f"in {show(t.days, 'days')}"] if t.days is not None else []
    parts += [f"for {show(t.budget_usd, 'usd')}"] if t.budget_usd is not None else []
    if t.qps is not None:
        parts.append(f"{t.qps:.4g} requests/s")
    elif t.tokens_per_s is not None:
        parts.append(f"{show(t.tokens_per_s, 'count')} tokens/s")
    parts += [f"within {show(t.power_w, 'w')}"] if t.power_w is not None else []
    return " ".join(parts)


def headroom_line(found: Sizing) -> str:
    """What is lost to failures, and what the answer would be if nothing were."""
    if not found.headroom:
        return "none: nothing fails, restarts or waits for a straggler (--headroom 0.1: a tenth of the time is lost)"
    lost = f"{found.headroom:.0%} of the time is taken as lost to failures, restarts and stragglers (--headroom)"
    without = found.without
    if without is None:
        return lost
    made = without.option
    if made.devices != found.answer.option.devices:
        return f"{lost}; were it not, {made.devices:,} devices ({nodes(made.nodes)}) would be the answer"
    sooner = f"{show(without.days, 'days')}" if without.days is not None else f"{show(without.rate, 'count')} tokens/s"
    return f"{lost}; were it not, the same devices would reach {sooner}"


def least_line(found: Sizing) -> str:
    """The closed form."""
    least = found.machine.least
    if least is None:
        return ""
    share = least / found.answer.option.devices
    return f"{least:,.0f} devices even at 100 % MFU and with nothing lost ({share:.0%} of the answer)"


def cost_line(verdict: Verdict) -> str:
    """Rent, energy and power."""
    made = verdict.option
    parts = ["rent unknown" if made.rent_usd_per_s is None else _hourly(made.rent_usd_per_s)]
    parts += [f"{show(verdict.cost_usd, 'usd')} rent in all"] if verdict.cost_usd is not None else []
    parts += [show(verdict.energy_j, "j")] if verdict.energy_j is not None else []
    parts += [f"{show(made.power_w, 'w')} on average (nodes, without cooling)"] if made.power_w is not None else []
    return " · ".join(parts)


def _hourly(rent_usd_per_s: float) -> str:
    """Rent by the hour: whole dollars where there are many."""
    hourly = rent_usd_per_s * HOUR_S
    return f"{hourly:,.0f} USD/h" if hourly >= 100.0 else f"{hourly:.3g} USD/h"


def runner_line(found: Sizing) -> str:
    """The next best, and why it lost."""
    runner = found.runner_up
    if runner is None:
        return "none: nothing else was tried that runs"
    made = runner.option
    return f"{made.devices:,} × {made.title} ({nodes(made.nodes)}): {found.why}"


def latency_line(found: Sizing) -> str:
    """What the deployment promises, and what it was asked for."""
    plan: Any = found.answer.option.plan
    made, t = plan.deployment, found.targets
    if made["ttft_s"] is None:
        return f"TTFT {show(plan.ttft_s, 's')}, TPOT {show(plan.tpot_s, 's')} of a batch of {plan.strategy['batch']:,}"
    at, parts = f"p{t.percentile or 95}", []
    for name, key, bound in (("TTFT", "ttft_s", t.ttft_s), ("TPOT", "tpot_s", t.tpot_s)):
        reached = made[key].get(at)
        if reached is not None:
            parts.append(f"{at} {name} {show(reached, 's')}" + (f" of {show(bound, 's')}" if bound else ""))
    return f"{', '.join(parts)} at its limit of {made['qps_capacity']:.3g} requests/s"


def considered(found: Sizing) -> list[Any]:
    """What was tried: those nearest the answer where there are many."""
    answer = found.answer.option
    every = found.considered
    near = sorted(every, key=lambda one: (one.option != answer, one.option.devices < 1,
                                          abs(one.option.devices / answer.devices - 1.0)))[:MOST_ROWS]  # fmt: skip
    kept = {id(one) for one in near}
    rows = [
        {
            "": "→" if one.option == answer else "",
            "hardware": one.option.hardware,
            "devices": f"{one.option.devices:,}",
            "nodes": f"{one.option.nodes:,}",
            "tokens/s": show(one.rate, "count") if one.rate else "n/a",
            **({"days": "n/a" if one.days is None else f"{one.days:,.1f}"} if found.targets.tokens else {}),
            **({"cost": "n/a" if one.cost_usd is None else show(one.cost_usd, "usd")} if found.targets.tokens else {}),
            "power": "n/a" if one.option.power_w is None else show(one.option.power_w, "w"),
            "verdict": verdict(one),
        }
        for one in every
        if id(one) in kept
    ]
    more = len(every) - len(rows)
    said = f"Tried {len(every)}" + (f", the {len(rows)} nearest the answer" if more else "")
    lost = f"; tokens/s with {found.headroom:.0%} of the time lost" if found.headroom else ""
    return ["", f"{said}{lost}:", simple_table(rows)]


def verdict(one: Verdict) -> str:
    """Whether an option meets the targets, in a few words."""
    if one.meets:
        return "meets"
    if one.option.why:
        return "out of memory" if "out of memory" in one.option.why else "no legal strategy"
    return one.why
