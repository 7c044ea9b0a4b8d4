"""The table behind an estimate: every operator of a step, what it does, what bounds it, how near the limit it runs."""

from __future__ import annotations

from typing import Any

import numpy as np

from hwsim.analytic.blocks import Machine
from hwsim.analytic.setting import Setting, model_plan
from hwsim.analytic.training import block_machine
from hwsim.ops.stacks import Kind
from hwsim.ops.work import Collective, Gemm, Work
from hwsim.specs.strategy import Strategies


def operator_rows(setting: Setting, s: Strategies) -> list[dict[str, Any]]:
    """One row per operator, direction and kind of work, for one micro-batch on one device.

    Returns
    -------
    list of dict
        `block`, `count` (blocks of this kind in the model), `operator`, `phase`, `work`, `flops`, `memory_bytes`,
        `wire_bytes`, `time_s`, `bound`, `limit_fraction` (data-sheet roofline over the time), `source`.
    """
    machine, plan = block_machine(setting, s), model_plan(setting, s)
    kinds = [(segment, kind, count, ops) for segment, found in plan.layers() for kind, count, ops in found]
    plain = len(kinds) == 1
    layers = [("layer" if plain else layer_name(segment.stack, kind.kind), n, ops) for segment, kind, n, ops in kinds]
    blocks = [("embedding", 1, plan.start()), *layers, ("head", 1, plan.end())]
    rows = []
    for name, count, operators in blocks:
        for operator in operators:
            for phase, works in (("forward", operator.forward), ("backward", operator.backward)):
                head = {"block": name, "count": count, "operator": operator.name, "phase": phase}
                rows += [head | row for work in works if (row := _row(setting, machine, work))]
    return rows


def layer_name(stack: str, kind: Kind) -> str:
    """What to call a kind of layer where a model has several."""
    words = [stack, "layer"]
    if kind.experts:
        words.insert(1, "expert")
    return " ".join(words) + (f" (window {kind.window:,})" if kind.window else "")


def _row(setting: Setting, machine: Machine, work: Work) -> dict[str, Any] | None:
    """One piece of work; None for a collective that nobody takes part in."""
    if isinstance(work, Collective):
        seconds = float(np.max(machine.collective_s(work)))
        if seconds == 0:
            return None
        sent = float(np.max(machine.sent_bytes(work)))
        link = setting.network.links[0]
        limit = link.least_s(sent) / seconds
        hidden = " (hidden)" if work.hidden else ""
        what = f"{work.kind} over {work.axis}{hidden}"
        status = link.tier.status
        return _filled(what, 0.0, 0.0, sent, seconds, link.tier.name, limit, status)
    seconds, waiting = (float(np.max(value)) for value in machine.device.cost(work))
    limit = float(np.max(machine.device.limit_s(work))) / seconds if seconds else 0.0
    flops, moved = float(np.max(work.flops)), float(np.max(work.memory_bytes))
    status = setting.hardware.accelerator.kernels.status
    return _filled(_title(work), flops, moved, 0.0, seconds, "memory" if waiting > 0 else "compute", limit, status)


def _filled(
    work: str,
    flops: float,
    memory_bytes: float,
    wire_bytes: float,
    time_s: float,
    bound: str,
    limit: float,
    source: str,
) -> dict[str, Any]:
    return {
        "work": work,
        "flops": flops,
        "memory_bytes": memory_bytes,
        "wire_bytes": wire_bytes,
        "time_s": time_s,
        "bound": bound,
        "limit_fraction": limit,
        "source": source,
    }


def _title(work: Work) -> str:
    if isinstance(work, Gemm):
        batch, m, n, k = (int(np.max(size)) for size in (work.batch, work.m, work.n, work.k))
        return f"gemm {f'{batch} x ' if batch > 1 else ''}{m} x {n} x {k}"
    return type(work).__name__.lower()
