"""One block of a model on one device for one micro-batch: its seconds, its launches, its bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np

from hwsim.costs.compute import Device, launches
from hwsim.costs.network import Group, Network
from hwsim.formulas.collectives import wire_bytes
from hwsim.formulas.training import exposed_s
from hwsim.formulas.types import Numeric
from hwsim.ops.operator import Operator
from hwsim.ops.work import Collective, Gemm, Work

SELECTIVE, FULL = 1, 2


@dataclass(frozen=True)
class BlockCost:
    """Seconds, launches and bytes of one block; adds up and scales, so that a stage is a sum of blocks."""

    forward_s: Numeric = 0.0
    """Device compute, forward."""
    input_s: Numeric = 0.0
    """Device compute, backward for the inputs."""
    weight_s: Numeric = 0.0
    """Device compute, backward for the weights."""
    recompute_s: Numeric = 0.0
    """Device compute of what is run again."""
    tp_forward_s: Numeric = 0.0
    """Exposed tensor-parallel communication, forward (and again when recomputed)."""
    tp_backward_s: Numeric = 0.0
    cp_forward_s: Numeric = 0.0
    """Exposed context-parallel communication."""
    cp_backward_s: Numeric = 0.0
    memory_bound_s: Numeric = 0.0
    """Part of the compute above that waits for device memory."""
    kernels: Numeric = 0.0
    """Launches, forward and backward and recompute."""
    flops: Numeric = 0.0
    """Executed by the matrix units."""
    saved_bytes: Numeric = 0.0
    """Activations kept until the backward pass."""
    whole_bytes: Numeric = 0.0
    """The same without recompute: what lives while the block is run again."""
    tp_bytes: Numeric = 0.0
    """Sent over tp."""
    cp_bytes: Numeric = 0.0
    """Sent over cp."""
    parameters: Numeric = 0.0

    def __add__(self, other: BlockCost) -> BlockCost:
        return BlockCost(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    def __mul__(self, count: Numeric) -> BlockCost:
        return BlockCost(**{f.name: getattr(self, f.name) * count for f in fields(self)})

    @property
    def forward_total_s(self) -> Numeric:
        """Forward with its exposed communication."""
        return self.forward_s + self.tp_forward_s + self.cp_forward_s

    @property
    def backward_total_s(self) -> Numeric:
        """Backward and recompute with their exposed communication."""
        return self.input_s + self.weight_s + self.recompute_s + self.tp_backward_s + self.cp_backward_s


@dataclass(frozen=True)
class Machine:
    """What durations are asked of: kernels on the device, collectives on the network."""

    device: Device
    network: Network
    groups: dict[str, Group]
    interference: float
    _known: dict[tuple[str, str, int], tuple[Numeric, Numeric]] = field(default_factory=dict, repr=False)
    """Durations by kind, axis and payload object: a layer repeats few different collectives."""

    def collective_s(self, work: Collective) -> Numeric:
        """Duration of one collective on its axis. [s]"""
        key = (work.kind, work.axis, id(work.total_bytes))
        if key not in self._known:
            seconds = self.network.seconds(work.kind, work.total_bytes, self.groups[work.axis])
            self._known[key] = (seconds, work.total_bytes)
        return self._known[key][0]

    def sent_bytes(self, work: Collective) -> Numeric:
        """Bytes this device sends. [byte]"""
        return wire_bytes(work.kind, work.total_bytes, self.groups[work.axis].size)


def block_cost(operators: Sequence[Operator], machine: Machine, recompute: Numeric, input_bytes: Numeric) -> BlockCost:
    """Cost of a block under a recompute code; `input_bytes` is all that full recompute saves.

    Blocks outside the layers (embedding, head) pass a recompute of 0.
    """
    result = BlockCost()
    selective, full = np.asarray(recompute) == SELECTIVE, np.asarray(recompute) == FULL
    for operator in operators:
        forward = _phase(operator.forward, machine)
        backward = _phase(operator.backward, machine)
        again = np.where(full | (selective & operator.selective), 1.0, 0.0)
        communicate_again = np.where(full, 1.0, 0.0)
        saved = np.where(selective & operator.selective, operator.kept_bytes, operator.saved_bytes)
        result = result + BlockCost(
            forward_s=forward.compute_s,
            input_s=backward.compute_s - backward.weight_s,
            weight_s=backward.weight_s,
            recompute_s=forward.compute_s * again,
            tp_forward_s=forward.exposed_s["tp"],
            tp_backward_s=backward.exposed_s["tp"] + forward.exposed_s["tp"] * communicate_again,
            cp_forward_s=forward.exposed_s["cp"],
            cp_backward_s=backward.exposed_s["cp"] + forward.exposed_s["cp"] * again,
            memory_bound_s=forward.memory_bound_s * (1.0 + again) + backward.memory_bound_s,
            kernels=forward.kernels * (1.0 + again) + backward.kernels,
            flops=forward.flops * (1.0 + again) + backward.flops,
            saved_bytes=saved,
            whole_bytes=operator.saved_bytes,
            tp_bytes=forward.sent_bytes["tp"] * (1.0 + communicate_again) + backward.sent_bytes["tp"],
            cp_bytes=forward.sent_bytes["cp"] * (1.0 + again) + backward.sent_bytes["cp"],
            parameters=operator.parameters,
        )
    kept = np.where(full, input_bytes, result.saved_bytes)
    return BlockCost(**{f.name: getattr(result, f.name) for f in fields(result)} | {"saved_bytes": kept})


@dataclass(frozen=True)
class _Phase:
    """One direction of one operator."""

    compute_s: Numeric
    weight_s: Numeric
    memory_bound_s: Numeric
    kernels: int
    flops: Numeric
    exposed_s: dict[str, Numeric]
    sent_bytes: dict[str, Numeric]


def _phase(works: Sequence[Work], machine: Machine) -> _Phase:
    compute_s: Numeric = 0.0
    weight_s: Numeric = 0.0
    memory_bound_s: Numeric = 0.0
    flops: Numeric = 0.0
    kernels = 0
    exposed: dict[str, Numeric] = {"tp": 0.0, "cp": 0.0}
    hidden: dict[str, Numeric] = {"tp": 0.0, "cp": 0.0}
    sent: dict[str, Numeric] = {"tp": 0.0, "cp": 0.0}
    for work in works:
        if isinstance(work, Collective):
            seconds = machine.collective_s(work)
            lane = hidden if work.hidden else exposed
            lane[work.axis] = lane[work.axis] + seconds
            sent[work.axis] = sent[work.axis] + machine.sent_bytes(work)
            continue
        seconds = machine.device.seconds(work)
        compute_s = compute_s + seconds
        weight_s = weight_s + (seconds if isinstance(work, Gemm) and work.weight_gradient else 0.0)
        memory_bound_s = memory_bound_s + machine.device.memory_bound_s(work)
        flops = flops + work.flops
        kernels += launches(work)
    for axis, seconds in hidden.items():
        exposed[axis] = exposed[axis] + exposed_s(seconds, compute_s, machine.interference)
    return _Phase(compute_s, weight_s, memory_bound_s, kernels, flops, exposed, sent)
