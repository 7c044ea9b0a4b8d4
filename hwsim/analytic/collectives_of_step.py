"""Every collective that a device takes part in during a training step: what the traffic of an estimate is made of.

The same operators and payloads as everywhere else, listed instead of summed: `tests/test_pytorch_parallel.py` holds the
list against the traffic of `hwsim.analytic.training.evaluate`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hwsim.analytic.blocks import FULL, NOTHING, SELECTIVE
from hwsim.analytic.communication import (
    boundary_collectives,
    data_collectives,
    data_sizes,
    expert_collectives,
    held_by,
    tied_collective,
    weight_blocks,
)
from hwsim.analytic.memory import Share, stage_share
from hwsim.analytic.setting import Setting, model_plan
from hwsim.formulas.collectives import wire_bytes
from hwsim.formulas.types import Numeric
from hwsim.ops.axes import data
from hwsim.ops.block import position_parameters
from hwsim.ops.operator import Operator
from hwsim.ops.work import Collective
from hwsim.specs.strategy import Strategies

UNCOUNTED = "uncounted"
"""What no estimate counts, being vectors once per step: see `_partial`."""
TRAFFIC_AXIS = {"etp": "ep", "send": "pp", "tied": "dp", "data": "dp", "shard": "dp", "replica": "dp",
                "expert data": "dp", "expert shard": "dp", "expert replica": "dp", "partial": UNCOUNTED}  # fmt: skip
"""Group of devices to the axis that an estimate counts its traffic under; others are named alike."""


@dataclass(frozen=True)
class StepCollective:
    """One kind of collective over one group of devices, all its calls of a step together."""

    axis: str
    """The group: tp, cp, ep, etp, data, shard, replica, expert data, ..., send (to another stage), tied, partial."""
    kind: str
    calls: float
    """Per step."""
    total_bytes: float
    """Payload of all calls, in the sense of nccl-tests."""
    devices: float
    """Members of the group."""

    @property
    def sent_bytes(self) -> float:
        """Sent by one device."""
        return float(wire_bytes(self.kind, self.total_bytes, self.devices))

    @property
    def traffic_axis(self) -> str:
        """Where an estimate counts it."""
        return TRAFFIC_AXIS.get(self.axis, self.axis)


def collectives_of_step(setting: Setting, s: Strategies, stage: int = 0) -> list[StepCollective]:
    """What a device of one pipeline stage takes part in; `s` is a single strategy.

    Weights that ZeRO 3 gathers and gradients that ZeRO 2 and 3 scatter go by layer, and what lies outside the layers in
    one more call (as FSDP wraps a model); gradients of a whole step in one call.
    """
    share = stage_share(setting.segments, s, np.asarray(float(stage)))
    parts = (_in_blocks, _between_stages, _of_weights, _partial)
    listed = [work for part in parts for work in part(setting, s, share)]
    sizes = _sizes(setting, s)
    found: dict[tuple[str, str], StepCollective] = {}
    for axis, work, calls in listed:
        size, times = float(sizes[axis]), float(np.asarray(calls))
        payload = float(np.asarray(work.total_bytes)) * times
        if payload > 0 and size > 1:
            before = found.get((axis, work.kind), StepCollective(axis, work.kind, 0.0, 0.0, size))
            total = before.total_bytes + payload
            found[axis, work.kind] = replace(before, calls=before.calls + times, total_bytes=total)
    return list(found.values())


Listed = Iterator[tuple[str, Collective, Numeric]]
"""Group, collective, calls per step."""


def _sizes(setting: Setting, s: Strategies) -> dict[str, Numeric]:
    """Members of every group."""
    sizes = data_sizes(setting, s)
    return sizes | {"tp": s.tp, "cp": s.cp, "ep": s.ep, "etp": s.etp, "tied": sizes["send"], "partial": s.tp}


def _in_blocks(setting: Setting, s: Strategies, share: Share) -> Listed:
    """Collectives of operators, as often as the stage has their block, for every micro-batch."""
    plan, steps = model_plan(setting, s), s.micro_batches
    yield from _operators(plan.start(), share.embedding * steps)
    yield from _operators(plan.end(), share.head * steps)
    for (segment, kinds), held in zip(plan.layers(), share.layers, strict=True):
        for _, count, operators in kinds:
            often = held * (count / segment.layers) * steps
            yield from _operators(operators, often)
            for operator in operators:
                again = often * _again(operator, setting, s)
                yield from ((work.axis, work, again) for work in _talk(operator.forward))


def _operators(operators: Sequence[Operator], often: Numeric) -> Listed:
    for operator in operators:
        yield from ((work.axis, work, often) for work in _talk((*operator.forward, *operator.backward)))


def _talk(works: Iterable[object]) -> list[Collective]:
    return [work for work in works if isinstance(work, Collective)]


def _again(operator: Operator, setting: Setting, s: Strategies) -> Numeric:
    """Share of an operator of a layer that recompute runs a second time."""
    whole = float(not (operator.last and setting.job.framework.early_stop))
    chosen = setting.job.rerun.get(operator.name, NOTHING).again
    return np.where(s.recompute == FULL, whole, np.where(s.recompute == SELECTIVE, chosen, 0.0))


def _between_stages(setting: Setting, s: Strategies, share: Share) -> Listed:
    """Sends over chunk boundaries, gathers on arrival, tied embeddings."""
    send, regather = boundary_collectives(setting, s)
    ends = np.where(s.pp > 1, np.maximum(share.embedding, share.head), 0.0)
    boundaries = np.where(s.pp > 1, 2.0 * s.vpp - ends, 0.0) * s.micro_batches
    yield "send", send, boundaries
    yield "tp", regather, boundaries
    yield "tied", tied_collective(setting, s), ends


def _of_weights(setting: Setting, s: Strategies, share: Share) -> Listed:
    """Gradients that are reduced and weights that are gathered."""
    held, count = held_by(setting, weight_blocks(setting, s), share), data.rounds(s)
    sharded, apart = np.where(s.zero > 0, 1.0, 0.0), data.scatters_always(s)
    often = (1.0 - sharded, count.reduce_scatters, sharded, count.forward_gathers, count.backward_gathers)
    inside = np.where(apart, np.maximum(share.all_layers, 1.0), 1.0)
    outside = np.where(apart, held.end, 0.0)
    again = inside if setting.job.framework.keeps_ends else inside + outside
    dense = data_collectives(setting, s, held.dense, held.again)
    yield from _in_units(dense, often, (*[inside + outside] * (len(dense) - 1), again))
    if setting.model.experts:
        experts = expert_collectives(setting, s, held.experts)
        yield from _in_units(experts, often, [inside] * len(experts))


def _in_units(works: Sequence[Collective], often: Sequence[Numeric], units: Sequence[Numeric]) -> Listed:
    """Collectives, so many times a step each, in so many calls each time."""
    for work, times, calls in zip(works, often, units, strict=True):
        yield work.axis, replace(work, total_bytes=work.total_bytes / calls), times * calls


def _partial(setting: Setting, s: Strategies, share: Share) -> Listed:
    """Gradients of weights that all tensor-parallel peers hold whole, which sequence parallelism leaves in parts.

    Norms, routers, biases of row-parallel multiplies, position tables: summed over tp once per step, in one call
    (Megatron-Core, finalize_model_grads). No estimate counts them.
    """
    plan, whole = model_plan(setting, s), model_plan(setting, replace(s, tp=np.ones_like(s.tp)))
    start, end = _common(plan.start(), whole.start()), _common(plan.end(), whole.end())
    layers = []
    for (segment, kinds), (_, others) in zip(plan.layers(), whole.layers(), strict=True):
        pairs = zip(kinds, others, strict=True)
        layers.append(sum(count / segment.layers * _common(a, b) for (_, count, a), (_, _, b) in pairs))
    positions = position_parameters(plan.decoder)
    held = share.of(layers, start + positions, end) * setting.job.reduce_bytes
    yield "partial", Collective("all_reduce", "partial", held * s.sequence_parallel), 1.0


def _common(shared: Sequence[Operator], whole: Sequence[Operator]) -> Numeric:
    """Trained weights of a block that tensor parallelism does not divide, matrices and vectors apart."""
    total: Numeric = 0.0
    for a, b in zip(shared, whole, strict=True):
        matrices, vectors = a.trained_matrices, a.trained_parameters - a.trained_matrices
        others = b.trained_parameters - b.trained_matrices
        found = np.where(np.equal(matrices, b.trained_matrices), matrices, 0.0)
        found = found + np.where(np.equal(vectors, others), vectors, 0.0)
        total = total + found * (1.0 - float(a.experts))
    return total
