"""The report of a simulation of traffic: what clients saw, how full batch and cache were, what it cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.report import figures
from hwsim.report.document import Block, Cell, Column, Document, Facts, Figure, Paragraph, Reproduce, Section, Table
from hwsim.report.documents.parts import PER_OUTPUT, bill_section, money_line, plainly, provenance, words
from hwsim.report.documents.served import accuracy_section
from hwsim.report.figures import Measure
from hwsim.report.plan import sizes_line
from hwsim.report.serving import COLUMNS, LATENCIES, over_time, served_line, use_line
from hwsim.units import show

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hwsim.costs.bill import Bill
    from hwsim.search.simulation import ServingSimulation

TIME, REQUESTS = Measure("Time", "s"), Measure("Requests")
CACHE = Measure("KV cache in use", "fraction")
POINTS = 300
"""In a figure over time."""
DRAWN = {"ttft_s": ("TTFT", "The first token"), "tpot_s": ("TPOT", "A further token"), "e2e_s": ("E2E", "A request")}
"""Latencies whose distribution is drawn: in short, and in words."""
SHORTEST = 2
"""Requests without which a distribution says nothing."""


def simulation_document(found: ServingSimulation, bill: Bill | None, command: str, python: str) -> Document:
    """Some traffic on a deployment on a few pages: the answer first, then everything behind it."""
    served, v = found.served, found.values
    sections = [
        Section("What was asked", (Facts(tuple(asked_facts(found).items())),)),
        latency_section(found),
        load_section(found),
        replicas_section(found),
        money_section(v, bill),
        accuracy_section(served),
    ]
    hardware, model = served.hardware, served.model
    about = f"{served.devices:,} × {hardware.accelerator.title or hardware.accelerator.name}"
    return Document(
        title=f"{model.title or model.name} under traffic on {about}",
        subtitle=f"Simulation of {v['requests']:,} requests, seed {v['workload']['seed']}: {layout_line(v)}",
        answer=answer_lines(found, bill),
        sections=tuple(sections),
        reproduce=Reproduce(command, python),
        provenance=provenance(
            {name: v[name] for name in ("model", "hardware", "strategy", "workload", "requests")} | dict(found.asked),
            hardware=hardware.name, calibration=hardware.accelerator.kernels.status,
        ),
    )  # fmt: skip


def answer_lines(found: ServingSimulation, bill: Bill | None) -> tuple[str, ...]:
    """The answer box; overload comes first."""
    v = found.values
    rate = f"{show(v['output_tokens_per_s'], 'count')} output tokens/s"
    at = f"p95 TTFT {_seconds(v['ttft_s']['p95'])}, p95 TPOT {_seconds(v['tpot_s']['p95'])}"
    lines = [v["overload"].capitalize()] if v["overload"] else []
    lines.append(f"{rate}{' at most' if v['overload'] else ''}; {at}")
    lines += [promise_line(found)] if found.slo is not None else []
    lines += [f"Stopped: {v['stopped']}: {v['unfinished']:,} requests did not finish"] if v["stopped"] else []
    lines += [served_line(v), use_line(v)]
    joules = v["energy_j_per_output_token"]
    spent = money_line(bill, PER_OUTPUT) if bill is not None else "rent unknown"
    lines.append(spent if joules is None else f"{spent}; {show(joules, 'j')} a token at the nodes")
    return tuple(lines)


def promise_line(found: ServingSimulation) -> str:
    """What was promised, and what became of it."""
    v = found.values
    said = " and ".join(f"{DRAWN[name][0]} up to {show(bound, 's')}" for name, bound in _bounds(found).items())
    share = f"{v['slo_share']:.1%}" if v["slo_share"] < 1.0 else "100%"
    kept = f"{share} of the requests keep {said}"
    return f"{kept}: goodput {v['goodput_per_s']:.3g} requests/s"


def _bounds(found: ServingSimulation) -> dict[str, float]:
    """What was promised, by latency."""
    slo = found.slo
    bounds = {} if slo is None else {"ttft_s": slo.ttft_s, "tpot_s": slo.tpot_s}
    return {name: bound for name, bound in bounds.items() if np.isfinite(bound)}


def layout_line(v: Mapping[str, Any]) -> str:
    """How the devices are used."""
    s = v["strategy"]
    return f"{sizes_line(s)} · weights {s['weights']} · KV cache {s['kv']} · {s['engine']}"


def asked_facts(found: ServingSimulation) -> dict[str, str]:
    """Deployment and traffic."""
    v, work = found.values, found.workload
    sent = found.result.arrival_s[np.isfinite(found.result.arrival_s)]
    span = float(np.ptp(sent)) if len(sent) else 0.0
    traffic = f"{v['workload']['clients']:,} clients that each wait for an answer" if v["workload"]["clients"] else (
        f"{(len(sent) - 1) / span:.3g} requests/s on average over {show(span, 's')}" if span > 0 else "all at once"
    )  # fmt: skip
    lengths = {name: getattr(work, name) for name in ("input_tokens", "output_tokens")}
    facts = {"deployment": layout_line(v), "replicas": f"{v['replicas']:,}", "traffic": traffic}
    facts |= {
        name.replace("_", " "): f"{np.mean(each):,.0f} on average, {np.min(each):,.0f} to {np.max(each):,.0f}"
        for name, each in lengths.items()
    }
    given = {name: plainly(value) for name, value in found.asked.items() if name != "trace"}
    return facts | {words(name): text for name, text in given.items() if words(name) not in facts}


def latency_section(found: ServingSimulation) -> Section:
    """Latencies by percentile, and their distributions."""
    v = found.values
    columns = (Column("latency"), *(Column(name, kind="number") for name in COLUMNS))
    rows: list[tuple[Cell | str, ...]] = []
    for key, said in LATENCIES.items():
        named = f"{said} ({DRAWN[key][0]})" if key in DRAWN else said
        rows.append((named, *(Cell.of(v[key][name], "s") for name in COLUMNS)))
    table = Table("Latencies of the requests that were served", columns, tuple(rows))
    drawn = [figure for key in DRAWN if (figure := _distribution(found, key)) is not None]
    blocks: list[Block] = [table, *drawn]
    if not drawn:
        blocks.append(Paragraph("Too few requests were served to draw a distribution."))
    return Section("Latency", tuple(blocks))


def _distribution(found: ServingSimulation, key: str) -> Figure | None:
    """Share of requests below each latency, and the promise."""
    seconds = getattr(found.result, key)[found.result.completed]
    known = seconds[np.isfinite(seconds)]
    if len(known) < SHORTEST:
        return None
    short, said = DRAWN[key]
    spread, bound = found.values[key], _bounds(found).get(key)
    title = f"{said} takes more than {_seconds(spread['p95'])} for one request in 20"
    if bound is not None:
        title += f"; {np.mean(known <= bound):.0%} keep the promise of {show(bound, 's')}"
    name = key.removesuffix("_s")
    caption = f"Share of the {len(known):,} requests that were served within a time."
    return figures.latency_cdf(
        f"latency-{name}", title, {short: known.tolist()}, caption, Measure(LATENCIES[key].capitalize(), "s"), bound
    )


def load_section(found: ServingSimulation) -> Section:
    """Requests that run and wait, and the cache, over time."""
    v = found.values
    times, sums = over_time(found, POINTS)
    if not times[-1] > 0:
        return Section("Queue, batch and KV cache", (Paragraph("Nothing was served."),))
    waiting, running = float(sums["queue"].max()), float(max(sums["batch"].max(), v["batch"]["max"]))
    calm = f"Nobody waits; up to {running:,.0f} requests run at once"
    title = f"Up to {waiting:,.0f} requests wait and {running:,.0f} run at once" if waiting else calm
    if v["overload"]:
        title = f"The queue grows without bound: {waiting:,.0f} requests wait at the worst moment"
    lines = {name: list(zip(times.tolist(), sums[key].tolist(), strict=True))
             for name, key in (("running", "batch"), ("waiting", "queue"))}  # fmt: skip
    cache = {"in use": list(zip(times.tolist(), sums["cache"].tolist(), strict=True))}
    blocks = (
        figures.sweep_lines("queue", title, lines, TIME, REQUESTS, f"All replicas together; {_last(found)}."),
        figures.sweep_lines(
            "kv-cache", f"The KV cache is {v['kv_use']['mean']:.0%} full on average and {v['kv_use']['max']:.0%} at "
            "most", cache, TIME, CACHE, "Blocks in use of those that there are, unused prefixes not counted.",
        ),
    )  # fmt: skip
    return Section("Queue, batch and KV cache", blocks)


def _last(found: ServingSimulation) -> str:
    """When the traffic ends."""
    sent = found.result.arrival_s[np.isfinite(found.result.arrival_s)]
    return f"the last request comes after {show(float(np.max(sent, initial=0.0)), 's')}"


def replicas_section(found: ServingSimulation) -> Section:
    """How full the batch of every replica was."""
    numbers = ("replica", "busy", "steps", "mean batch", "most at once", "KV cache, mean", "KV cache, most", "failures")
    rows = tuple(_row(record) for record in found.result.replicas)
    batch = found.values["batch"]
    lead = f"A batch holds {batch['mean']:.1f} requests on average, {batch['max']:,} at most."
    table = Table("What every replica did", tuple(Column(name, kind="number") for name in numbers), rows)
    return Section("Batch occupancy", (table,), lead)


def _row(record: Any) -> tuple[Cell | str, ...]:
    on_s = record.on_s or np.inf
    shares = {"busy": record.busy_s / on_s, "mean": record.blocks_s / on_s / record.kv_blocks}
    most = record.most_blocks / record.kv_blocks
    mean = record.batch_s / on_s
    return (
        Cell(f"{record.number:,}", float(record.number)), _share(shares["busy"]),
        Cell(f"{record.steps:,}", float(record.steps)), Cell(f"{mean:.1f}", mean),
        Cell(f"{record.most_batch:,}", float(record.most_batch)), _share(shares["mean"]), _share(most),
        Cell(f"{record.failures:,}", float(record.failures)),
    )  # fmt: skip


def _share(value: float) -> Cell:
    return Cell(f"{value:.0%}", value)


def money_section(v: Mapping[str, Any], bill: Bill | None) -> Section:
    """What the run cost, and what a million tokens do."""
    dollars = "rent unknown" if v["cost_usd"] is None else f"{show(v['cost_usd'], 'usd')} at the listed rent"
    said = f"The run took {show(v['energy_j'], 'j')} at the nodes and {dollars}; idle time is paid for."
    if bill is None:
        return Section("Money, energy and carbon", (Paragraph(said),))
    section = bill_section(bill, PER_OUTPUT)
    return Section(section.title, section.blocks, f"{said} {section.lead}")


def _seconds(value: float | None) -> str:
    return "n/a" if value is None else show(value, "s")
