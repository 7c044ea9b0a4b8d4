"""One block of a model on one device for one micro-batch: its seconds, its launches, its bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from hwsim.costs.compute import Device, launches
from hwsim.costs.network import Group, Network
from hwsim.formulas.collectives import wire_bytes
from hwsim.formulas.training import exposed_s
from hwsim.formulas.types import Numeric
from hwsim.ops.operator import Operator, total
from hwsim.ops.work import Collective, Gemm, Work
from hwsim.specs.hardware import LibraryName
from hwsim.specs.job import Rerun

SELECTIVE, FULL = 1, 2
AXES = ("tp", "cp", "ep")
PART_OF = {"etp": "ep"}
"""Axes that are told with another."""


@dataclass(frozen=True)
class Weights:
    """Parameters that one device holds of a block before ZeRO, dense ones or those of its experts."""

    parameters: Numeric = 0.0
    trained: Numeric = 0.0
    """Those that get a gradient."""
    matrices: Numeric = 0.0
    """Trained ones in the matrices of layers."""
    factors: Numeric = 0.0
    """Rows and columns of trained matrices, and the length of trained vectors."""
    quantised: Numeric = 0.0
    """Frozen ones that are stored in a format of their own."""

    def __add__(self, other: Weights) -> Weights:
        return Weights(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    def times(self, factor: Numeric) -> Weights:
        """As many blocks."""
        return Weights(**{f.name: factor * getattr(self, f.name) for f in fields(self)})

    def less(self, parameters: Numeric) -> Weights:
        """Without some trained parameters that are held elsewhere."""
        return replace(
            self, parameters=self.parameters - parameters, trained=np.maximum(self.trained - parameters, 0.0)
        )


NO_WEIGHTS = Weights()


@dataclass(frozen=True)
class BlockCost:
    """Seconds, launches and bytes of one block; a stage is a sum of blocks."""

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
    ep_forward_s: Numeric = 0.0
    """Exposed expert-parallel communication."""
    ep_backward_s: Numeric = 0.0
    tp_busy_s: Numeric = 0.0
    """All tensor-parallel communication, hidden or not; likewise the next."""
    cp_busy_s: Numeric = 0.0
    ep_busy_s: Numeric = 0.0
    memory_bound_s: Numeric = 0.0
    """Part of the compute above that waits for device memory."""
    forward_kernels: Numeric = 0.0
    """Launches, forward."""
    backward_kernels: Numeric = 0.0
    """Launches, backward."""
    again_kernels: Numeric = 0.0
    """Launches of what is run again."""
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
    ep_bytes: Numeric = 0.0
    """Sent over ep and etp."""
    dense: Weights = NO_WEIGHTS
    experts: Weights = NO_WEIGHTS

    @property
    def forward_total_s(self) -> Numeric:
        """Forward with its exposed communication."""
        return self.forward_s + self.tp_forward_s + self.cp_forward_s + self.ep_forward_s

    @property
    def backward_total_s(self) -> Numeric:
        """Backward and recompute with their exposed communication."""
        compute_s = self.input_s + self.weight_s + self.recompute_s
        return compute_s + self.tp_backward_s + self.cp_backward_s + self.ep_backward_s

    @property
    def parameters(self) -> Numeric:
        """On one device."""
        return self.dense.parameters + self.experts.parameters


@dataclass(frozen=True)
class Pace:
    """How long a stage takes for one micro-batch: in each phase the slower of device and host sets it."""

    forward_s: Numeric
    backward_s: Numeric
    weight_s: Numeric
    """Part of the backward pass that needs no successor."""
    waiting_s: Numeric
    """Part of both in which the device waits for the host."""

    @property
    def total_s(self) -> Numeric:
        """Both phases."""
        return self.forward_s + self.backward_s


@dataclass(frozen=True)
class Host:
    """What the host takes; the device works behind it."""

    launch_s: float
    """Per kernel of the forward pass, also where it is run again."""
    backward_launch_s: float
    """Per kernel of the backward pass."""
    micro_batch_s: float
    """Per micro-batch, half of it in either phase."""


def pace(cost: Any, host: Host) -> Pace:
    """Set the device's time of a stage against that of its host."""
    device_forward, device_backward = cost.forward_total_s, cost.backward_total_s
    around_s = 0.5 * host.micro_batch_s
    forward = np.maximum(device_forward, cost.forward_kernels * host.launch_s + around_s)
    launches_s = cost.backward_kernels * host.backward_launch_s + cost.again_kernels * host.launch_s
    backward = np.maximum(device_backward, launches_s + around_s)
    return Pace(forward, backward, cost.weight_s, (forward - device_forward) + (backward - device_backward))


@dataclass(frozen=True)
class Machine:
    """What durations are asked of: kernels on the device, collectives on the network."""

    device: Device
    network: Network
    groups: dict[str, Group]
    interference: float
    overlap_tensor: float = 0.0
    """Share of tensor-parallel communication that runs beside its multiply."""
    overlap_experts: float = 0.0
    """Share of expert-parallel communication that runs beside the compute of another micro-batch."""
    library: LibraryName | None = "training"
    """Whose collectives are called; none: NCCL's."""
    _known: dict[tuple[str, str, int], tuple[Numeric, Numeric]] = field(default_factory=dict, repr=False)
    """Durations by kind, axis and payload object: a layer repeats few different collectives."""

    def collective_s(self, work: Collective) -> Numeric:
        """Duration of one collective on its axis. [s]"""
        key = (work.kind, work.axis, id(work.total_bytes))
        if key not in self._known:
            seconds = self.network.seconds(work.kind, work.total_bytes, self.groups[work.axis], self.library)
            self._known[key] = (seconds, work.total_bytes)
        return self._known[key][0]

    def sent_bytes(self, work: Collective) -> Numeric:
        """Bytes this device sends. [byte]"""
        return wire_bytes(work.kind, work.total_bytes, self.groups[work.axis].size)


NOTHING = Rerun()
"""What selective recompute does with an operator that nobody names."""


def block_cost(
    operators: Sequence[Operator],
    machine: Machine,
    recompute: Numeric = 0.0,
    input_bytes: Numeric = 0.0,
    rerun: Mapping[str, Rerun] = MappingProxyType({}),
    early_stop: bool = False,
) -> BlockCost:
    """Cost of a block under a recompute code; `input_bytes` is all that full recompute saves.

    `rerun` says what selective recompute runs again and keeps, by operator; `early_stop`: full recompute leaves out
    what no backward pass needs.
    """
    forward, again, backward, needed = _Phase(), _Phase(), _Phase(), _Phase()
    saved: Numeric = 0.0
    kept: Numeric = 0.0
    for operator in operators:
        phase = _phase(operator.forward, machine)
        forward, backward = forward + phase, backward + _phase(operator.backward, machine)
        needed = needed if operator.last and early_stop else needed + phase
        selected = rerun.get(operator.name, NOTHING)
        again = again + phase.share(selected.again) if selected.again else again
        saved = saved + operator.saved_bytes
        inputs = operator.saved_bytes if operator.kept_bytes is None else operator.kept_bytes
        kept = kept + selected.keep * (inputs if selected.again else operator.saved_bytes)
    held = block_weights(operators)
    forward, backward = forward.beside_others(machine), backward.beside_others(machine)
    selective, full = np.asarray(recompute) == SELECTIVE, np.asarray(recompute) == FULL

    def repeated(everything: Numeric, chosen: Numeric) -> Numeric:
        if _is_nothing(everything) and _is_nothing(chosen):
            return 0.0
        return np.where(full, everything, np.where(selective, chosen, 0.0))

    return BlockCost(
        forward_s=forward.compute_s,
        input_s=backward.compute_s - backward.weight_s,
        weight_s=backward.weight_s,
        recompute_s=repeated(needed.compute_s, again.compute_s),
        tp_forward_s=forward.tp_s,
        tp_backward_s=backward.tp_s + repeated(needed.tp_s, again.tp_s),
        cp_forward_s=forward.cp_s,
        cp_backward_s=backward.cp_s + repeated(needed.cp_s, again.cp_s),
        ep_forward_s=forward.ep_s,
        ep_backward_s=backward.ep_s + repeated(needed.ep_s, again.ep_s),
        tp_busy_s=forward.tp_busy_s + backward.tp_busy_s + repeated(needed.tp_busy_s, again.tp_busy_s),
        cp_busy_s=forward.cp_busy_s + backward.cp_busy_s + repeated(needed.cp_busy_s, again.cp_busy_s),
        ep_busy_s=forward.ep_busy_s + backward.ep_busy_s + repeated(needed.ep_busy_s, again.ep_busy_s),
        memory_bound_s=forward.memory_bound_s
        + backward.memory_bound_s
        + repeated(needed.memory_bound_s, again.memory_bound_s),
        forward_kernels=1.0 * forward.kernels,
        backward_kernels=1.0 * backward.kernels,
        again_kernels=repeated(needed.kernels, again.kernels),
        flops=forward.flops + backward.flops + repeated(needed.flops, again.flops),
        saved_bytes=np.where(full, input_bytes, np.where(selective, kept, saved)),
        whole_bytes=saved,
        tp_bytes=forward.tp_bytes + backward.tp_bytes + repeated(needed.tp_bytes, again.tp_bytes),
        cp_bytes=forward.cp_bytes + backward.cp_bytes + repeated(needed.cp_bytes, again.cp_bytes),
        ep_bytes=forward.ep_bytes + backward.ep_bytes + repeated(needed.ep_bytes, again.ep_bytes),
        dense=held.dense,
        experts=held.experts,
    )


def _is_nothing(value: Numeric) -> bool:
    """Whether no column went into a sum: an axis that nothing of the block uses."""
    return isinstance(value, float) and value == 0.0


def block_weights(operators: Sequence[Operator]) -> BlockCost:
    """The weights of a block, and nothing else of it."""
    return BlockCost(
        dense=_weights([operator for operator in operators if not operator.experts]),
        experts=_weights([operator for operator in operators if operator.experts]),
    )


def mean_cost(kinds: Sequence[tuple[int, BlockCost]]) -> BlockCost:
    """The mean of some kinds of layer, of which there are so many each."""
    if len(kinds) == 1:
        return kinds[0][1]
    layers = sum(count for count, _ in kinds)
    mean: dict[str, Any] = {}
    for f in fields(BlockCost):
        parts = [(getattr(cost, f.name), count / layers) for count, cost in kinds]
        scaled = [part.times(share) if isinstance(part, Weights) else share * part for part, share in parts]
        mean[f.name] = scaled[0]
        for part in scaled[1:]:
            mean[f.name] = mean[f.name] + part
    return BlockCost(**mean)


def _weights(operators: Sequence[Operator]) -> Weights:
    return Weights(
        total(operators, "parameters"),
        total(operators, "trained_parameters"),
        total(operators, "trained_matrices"),
        total(operators, "factors"),
        total(operators, "quantised"),
    )


@dataclass(frozen=True)
class _Phase:
    """One direction of one operator, or a sum of several."""

    compute_s: Numeric = 0.0
    weight_s: Numeric = 0.0
    memory_bound_s: Numeric = 0.0
    kernels: Numeric = 0.0
    flops: Numeric = 0.0
    tp_s: Numeric = 0.0
    """Exposed, like the next."""
    cp_s: Numeric = 0.0
    ep_s: Numeric = 0.0
    tp_busy_s: Numeric = 0.0
    cp_busy_s: Numeric = 0.0
    ep_busy_s: Numeric = 0.0
    tp_bytes: Numeric = 0.0
    cp_bytes: Numeric = 0.0
    ep_bytes: Numeric = 0.0

    def __add__(self, other: _Phase) -> _Phase:
        return _Phase(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    def beside_others(self, machine: Machine) -> _Phase:
        """With part of the expert-parallel communication hidden behind the compute of another micro-batch."""
        if not machine.overlap_experts:
            return self
        beside = machine.overlap_experts * self.ep_s
        left = self.ep_s - beside + exposed_s(beside, self.compute_s, machine.interference)
        return replace(self, ep_s=left)

    def share(self, part: float) -> _Phase:
        """Part of it."""
        return self if part == 1.0 else _Phase(**{f.name: getattr(self, f.name) * part for f in fields(self)})


def _phase(works: Sequence[Work], machine: Machine) -> _Phase:
    compute_s: Numeric = 0.0
    weight_s: Numeric = 0.0
    memory_bound_s: Numeric = 0.0
    flops: Numeric = 0.0
    kernels: Numeric = 0.0
    exposed: dict[str, Numeric] = dict.fromkeys(AXES, 0.0)
    hidden: dict[str, Numeric] = {}
    busy: dict[str, Numeric] = dict.fromkeys(AXES, 0.0)
    sent: dict[str, Numeric] = dict.fromkeys(AXES, 0.0)
    for work in works:
        if isinstance(work, Collective):
            axis, seconds = PART_OF.get(work.axis, work.axis), machine.collective_s(work)
            beside = 1.0 if work.hidden else machine.overlap_tensor if axis == "tp" else 0.0
            if beside:
                hidden[axis] = hidden.get(axis, 0.0) + beside * seconds
            if beside < 1.0:
                exposed[axis] = exposed[axis] + (1.0 - beside) * seconds
            busy[axis] = busy[axis] + seconds
            sent[axis] = sent[axis] + machine.sent_bytes(work)
            continue
        seconds, bound_s = machine.device.cost(work)
        compute_s = compute_s + seconds
        weight_s = weight_s + (seconds if isinstance(work, Gemm) and work.weight_gradient else 0.0)
        memory_bound_s = memory_bound_s + bound_s
        flops = flops + work.flops
        kernels = kernels + launches(work)
    for axis, seconds in hidden.items():
        exposed[axis] = exposed[axis] + exposed_s(seconds, compute_s, machine.interference)
    comm = [values[axis] for values in (exposed, busy, sent) for axis in AXES]
    return _Phase(compute_s, weight_s, memory_bound_s, kernels, flops, *comm)
