"""Bytes on the worst device: every part, per stage, per phase of a step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, cast

import numpy as np

from hwsim.analytic.backward import Events, workspace_bytes
from hwsim.analytic.blocks import NO_WEIGHTS, BlockCost, Weights
from hwsim.formulas import pipeline
from hwsim.formulas.types import Numeric
from hwsim.ops.axes import data, expert
from hwsim.ops.axes.pipeline import STAGE_CLASSES, stage_number
from hwsim.ops.stacks import Segment
from hwsim.specs.hardware import Accelerator
from hwsim.specs.job import TrainingJob
from hwsim.specs.strategy import Strategies

PARTS = ("weights", "gradients", "optimizer", "activations", "workspace", "runtime")
GATHERED_LAYERS = 2.0
"""Unsharded layers that ZeRO 3 keeps at a time: the one in use and the one fetched ahead. What lies outside the layers
stays whole from its forward to its backward pass."""


HELD_LAYERS = 3.0
"""Layers that stay on the device when the rest is kept in the host's memory: in use, coming, going."""


@dataclass(frozen=True)
class StageBlocks:
    """The blocks of a stage: its layers by segment, and whether it holds the embedding and the head."""

    counts: tuple[int, ...]
    """Layers of each segment of the whole model."""
    layers: tuple[BlockCost, ...]
    """The mean layer of each segment."""
    embedding: BlockCost
    head: BlockCost
    tied_parameters: Numeric
    """Embedding rows that a stage with both ends holds once."""
    loss_bytes: Numeric
    """Logits alive between the loss and its backward pass."""
    transient_bytes: tuple[Numeric, ...]
    """Gradients of activations alive inside one layer of each segment."""
    loss_saved_bytes: Numeric = 0.0
    """Activations that the loss saves: gone when the backward passes of the layers begin."""
    events: Events | None = None
    """What the backward pass holds at each of its events; none: a fused one, which is told by the above."""

    @property
    def has_experts(self) -> bool:
        """Whether any block holds experts."""
        return any(np.any(block.experts.parameters) for block in (*self.layers, self.head))


@dataclass(frozen=True)
class Share:
    """What one stage holds: its number, its layers of each segment, and 1 or 0 for the embedding and the head."""

    stage: Numeric
    layers: tuple[Numeric, ...]
    embedding: Numeric
    head: Numeric

    @property
    def all_layers(self) -> Numeric:
        """Layers of any segment."""
        return added(self.layers)

    def of(self, layers: Sequence[Any], embedding: Any, head: Any) -> Any:
        """Sum a quantity of each segment's layer and of the ends over the stage."""
        total = self.layers[0] * layers[0]
        for count, layer in zip(self.layers[1:], layers[1:], strict=True):
            total = total + count * layer
        return total + self.embedding * embedding + self.head * head

    @property
    def inner(self) -> Share:
        """Its layers alone."""
        return Share(self.stage, self.layers, 0.0 * self.embedding, 0.0 * self.head)

    def weights(self, blocks: StageBlocks, which: str) -> Weights:
        """Parameters on one device of the stage, before ZeRO; `which`: dense or experts.

        Tied embeddings are held once where a stage has both ends.
        """
        if which == "experts" and not blocks.has_experts:
            return NO_WEIGHTS
        ends = getattr(blocks.embedding, which).times(self.embedding) + getattr(blocks.head, which).times(self.head)
        held = replace(ends, matrices=0.0)
        for count, layer in zip(self.layers, blocks.layers, strict=True):
            held = getattr(layer, which).times(count) + held
        if which == "experts":
            return cast("Weights", held)
        return cast("Weights", held.less(self.embedding * self.head * blocks.tied_parameters))

    def choose(self, other: Share, mask: Numeric) -> Share:
        """`other` where the mask holds."""
        layers = tuple(np.where(mask, b, a) for a, b in zip(self.layers, other.layers, strict=True))
        ends = (np.where(mask, getattr(other, n), getattr(self, n)) for n in ("embedding", "head"))
        return Share(np.where(mask, other.stage, self.stage), layers, *ends)


@dataclass(frozen=True)
class Stage:
    """A stage as a sum of blocks: every quantity of `BlockCost`, by the same name, summed when asked for."""

    blocks: StageBlocks
    share: Share

    def __getattr__(self, name: str) -> Numeric:
        layers = [getattr(layer, name) for layer in self.blocks.layers]
        total: Numeric = self.share.of(layers, getattr(self.blocks.embedding, name), getattr(self.blocks.head, name))
        return total


def added(values: Sequence[Numeric]) -> Numeric:
    """Sum of some columns, in order."""
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total


@dataclass(frozen=True)
class StageMemory:
    """Bytes by part for one stage, and the peaks of the phases of a step."""

    parts: dict[str, Numeric]
    allocated_bytes: Numeric
    """What tensors take: the sum of the parts, and what an allocator reports as its peak."""
    reserved_bytes: Numeric
    """What is taken from the device: context, and what the allocator keeps beyond its tensors, included."""
    context_bytes: Numeric
    """Runtime context and communicators, outside the allocator."""
    phases: dict[str, Numeric]


@dataclass(frozen=True)
class Memory:
    """The worst stage's memory, and every stage class's."""

    parts: dict[str, Numeric]
    allocated_bytes: Numeric
    reserved_bytes: Numeric
    context_bytes: Numeric
    phases: dict[str, Numeric]
    stages: dict[str, StageMemory]
    capacity_bytes: float


def stage_shares(segments: Sequence[Segment], s: Strategies) -> dict[str, Share]:
    """Shares of the first, the fullest middle and the last stage, and of the first that is all of a later stack."""
    stages = {**{name: stage_number(name, s) for name in STAGE_CLASSES}, **_later(segments, s)}
    return {name: stage_share(segments, s, stage) for name, stage in stages.items()}


def stage_share(segments: Sequence[Segment], s: Strategies, stage: Numeric) -> Share:
    """What one stage holds."""
    counts = [segment.layers for segment in segments]
    layers = sum(counts)
    held = pipeline.stage_layers(layers, s.pp, s.vpp, stage)
    parts: tuple[Numeric, ...] = (held,)
    if len(counts) > 1:
        ends = [pipeline.layers_before(sum(counts[:n]), layers, s.pp, s.vpp, stage) for n in range(1, len(counts))]
        parts = tuple(b - a for a, b in zip([0.0, *ends], [*ends, held], strict=True))
    return Share(stage, parts, np.where(stage == 0, 1.0, 0.0), np.where(stage == s.pp - 1.0, 1.0, 0.0))


def _later(segments: Sequence[Segment], s: Strategies) -> dict[str, Numeric]:
    """First stages that hold layers of one stack alone, for every stack but the first."""
    layers, found, before = sum(segment.layers for segment in segments), {}, 0
    for last, segment in pairwise(segments):
        before += last.layers
        if segment.stack != last.stack:
            found[segment.stack] = np.minimum(np.ceil(s.pp * (before / layers)), s.pp - 1.0)
    return found


def memory(
    blocks: StageBlocks, shares: dict[str, Share], s: Strategies, job: TrainingJob, accelerator: Accelerator
) -> Memory:
    """Memory of the first, a middle and the last stage, and of the worst of them."""
    stages = {name: _stage_memory(blocks, share, s, job) for name, share in shares.items()}
    worst = stages["first"]
    for name in list(stages)[1:]:
        worst = _larger(worst, stages[name])
    return Memory(
        worst.parts,
        worst.allocated_bytes,
        worst.reserved_bytes,
        worst.context_bytes,
        worst.phases,
        stages,
        accelerator.memory.usable,
    )


def _larger(a: StageMemory, b: StageMemory) -> StageMemory:
    swap = b.allocated_bytes > a.allocated_bytes
    parts = {name: np.where(swap, b.parts[name], a.parts[name]) for name in a.parts}
    phases = {name: np.where(swap, b.phases[name], a.phases[name]) for name in a.phases}
    names = ("allocated_bytes", "reserved_bytes", "context_bytes")
    totals = {name: np.where(swap, getattr(b, name), getattr(a, name)) for name in names}
    return StageMemory(parts=parts, phases=phases, **totals)


def expert_fraction(stage: int, s: Strategies) -> Numeric:
    """Share of the experts' weights (stage 3), gradients (2) or optimizer state (1) that one device keeps."""
    return np.where(data.is_sharded(stage, s), 1.0 / expert.shard(s), 1.0)


def state_bytes(weights: Weights, job: TrainingJob) -> Numeric:
    """Master copies and optimizer state of some weights before ZeRO. [byte]"""
    state, master = job.optimizer_state, job.numbers.master
    others = weights.trained - weights.matrices
    return weights.matrices * (master + state.matrix) + others * (master + state.other) + weights.factors * state.factor


def weight_bytes(weights: Weights, job: TrainingJob) -> Numeric:
    """Weights as they are stored, before ZeRO. [byte]"""
    plain = weights.parameters - weights.trained - weights.quantised
    frozen = plain * job.numbers.wire + weights.quantised * job.frozen_bytes
    return weights.trained * job.numbers.weight + frozen


def gathered_bytes(weights: Weights, job: TrainingJob) -> Numeric:
    """Weights as ZeRO 3 gathers them. [byte]"""
    plain = weights.parameters - weights.quantised
    return plain * job.numbers.wire + weights.quantised * job.frozen_bytes


def _stage_memory(blocks: StageBlocks, share: Share, s: Strategies, job: TrainingJob) -> StageMemory:
    framework = job.framework
    dense, routed = share.weights(blocks, "dense"), share.weights(blocks, "experts")
    copies = np.where(s.schedule == pipeline.DUALPIPE, 2.0, 1.0)
    sets = pipeline.in_flight_chunks(s.pp, s.vpp, s.micro_batches, share.stage, s.schedule)
    kept = added([count * layer.saved_bytes for count, layer in zip(share.layers, blocks.layers, strict=True)])
    saved = kept / s.vpp * sets
    if "activations" in job.offload:
        saved = np.minimum(saved, HELD_LAYERS * _largest(blocks, share, "saved_bytes"))
    interleaved = s.vpp > 1
    first_sets = np.where(interleaved, np.minimum(2.0 * s.pp, s.micro_batches), sets)
    start = share.embedding * blocks.embedding.saved_bytes * first_sets
    end = share.head * blocks.head.saved_bytes * np.where(interleaved, 1.0, sets)
    communicates = np.where(s.dp * s.cp > 1, framework.bucket_bytes, 0.0)
    buffers = _unsharded(blocks, share, s, job) + communicates
    waiting_losses = np.where(s.schedule == pipeline.GPIPE, s.micro_batches, 1.0)
    loss = share.head * blocks.loss_bytes * waiting_losses
    workspace = buffers + _backward_bytes(blocks, share, loss)
    groups = sum(np.where(size > 1, 1.0, 0.0) for size in (s.tp, s.cp, s.dp, s.pp, s.ep))

    def kept_of(stage: int, bytes_of: Callable[[Weights], Numeric]) -> Numeric:
        shared = bytes_of(dense) * data.kept_fraction(stage, s)
        return shared + bytes_of(routed) * expert_fraction(stage, s) if blocks.has_experts else shared

    parts = {
        "weights": copies * kept_of(3, lambda weights: weight_bytes(weights, job)),
        "gradients": copies * kept_of(2, lambda weights: weights.trained * job.gradient_bytes),
        "optimizer": kept_of(1, lambda weights: state_bytes(weights, job)),
        "activations": saved + start + end,
        "workspace": workspace,
        "runtime": np.zeros_like(groups) + framework.library_workspace,
    }
    few = HELD_LAYERS * _largest(blocks, share, "parameters")
    if "optimizer" in job.offload:
        parts["optimizer"] = np.zeros_like(groups)
        parts["gradients"] = np.minimum(parts["gradients"], few * job.gradient_bytes)
    if "weights" in job.offload:
        parts["weights"] = np.minimum(parts["weights"], few * job.numbers.wire)
    lasting = parts["weights"] + parts["gradients"] + parts["optimizer"] + parts["runtime"]
    phases = {
        "forward": lasting + parts["activations"] + buffers + loss,
        "backward": lasting + parts["activations"] + workspace,
        "optimizer": lasting + communicates,
    }
    allocated: Numeric = 0.0
    for part in PARTS:
        allocated = allocated + parts[part]
    context = framework.context + framework.communicator * groups
    reserved = context + allocated + framework.allocator_slack * allocated
    return StageMemory(parts, allocated, reserved, context, phases)


def _unsharded(blocks: StageBlocks, share: Share, s: Strategies, job: TrainingJob) -> Numeric:
    """Weights and gradients that ZeRO 3 holds whole: a layer in use, one fetched ahead, and all outside the layers."""
    half = 0.5 * job.reduce_bytes
    ends = Share(share.stage, tuple(0.0 * count for count in share.layers), share.embedding, share.head)
    outside = gathered_bytes(ends.weights(blocks, "dense"), job)

    def at_a_time(which: str) -> Numeric:
        most: Numeric = 0.0
        for count, layer in zip(share.layers, blocks.layers, strict=True):
            weights: Weights = getattr(layer, which)
            whole = gathered_bytes(weights, job) + weights.trained * half
            most = np.maximum(most, np.minimum(GATHERED_LAYERS, count) * whole)
        return most

    dense: Numeric = np.where((s.zero >= 3) & (s.shard > 1), at_a_time("dense") + outside, 0.0)
    if not blocks.has_experts:
        return dense
    return dense + np.where((s.zero >= 3) & (expert.shard(s) > 1), at_a_time("experts"), 0.0)


def _largest(blocks: StageBlocks, share: Share, name: str) -> Numeric:
    """The largest value of a quantity among the layers of a stage."""
    most: Numeric = 0.0
    for count, layer in zip(share.layers, blocks.layers, strict=True):
        most = np.maximum(most, np.where(count > 0, getattr(layer, name), 0.0))
    return most


def _backward_bytes(blocks: StageBlocks, share: Share, loss: Numeric) -> Numeric:
    """What the backward pass holds beside what is saved: the gradients of the loss, or of a layer."""
    if blocks.events is None:
        return np.maximum(loss, _rerun_bytes(blocks, share))
    again = [np.maximum(layer.whole_bytes - layer.saved_bytes, 0.0) for layer in blocks.layers]
    return workspace_bytes(blocks.events, share, blocks, again, loss)


def _rerun_bytes(blocks: StageBlocks, share: Share) -> Numeric:
    """What the backward pass of one layer holds beside what is saved: what is run again, and gradients."""
    most: Numeric = 0.0
    for count, layer, transient in zip(share.layers, blocks.layers, blocks.transient_bytes, strict=True):
        rerun = np.maximum(layer.whole_bytes - layer.saved_bytes, 0.0) + transient
        most = np.maximum(most, np.where(count > 0, rerun, 0.0))
    return most
