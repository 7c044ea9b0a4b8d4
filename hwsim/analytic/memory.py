"""Bytes on the worst device: every part, per stage, per phase of a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hwsim.analytic.blocks import BlockCost
from hwsim.formulas import pipeline
from hwsim.formulas.types import Numeric
from hwsim.ops.axes import data
from hwsim.ops.axes.pipeline import STAGE_CLASSES, stage_number
from hwsim.specs.hardware import Accelerator
from hwsim.specs.job import OPTIMIZER_STATE_BYTES, TrainingJob
from hwsim.specs.strategy import Strategies

PARTS = ("weights", "gradients", "optimizer", "activations", "workspace", "runtime")
GATHERED_LAYERS = 2.0
"""Unsharded layers that ZeRO 3 keeps at a time: the one in use and the one fetched ahead. What lies outside the layers
stays whole from its forward to its backward pass."""


@dataclass(frozen=True)
class StageBlocks:
    """The blocks of a stage: its layers, and whether it holds the embedding and the head."""

    layers: int
    """Of the whole model."""
    layer: BlockCost
    embedding: BlockCost
    head: BlockCost
    tied_parameters: Numeric
    """Embedding rows that a stage with both ends holds once."""
    loss_bytes: Numeric
    """Logits alive between the loss and its backward pass."""
    transient_bytes: Numeric
    """Gradients of activations alive inside one layer."""


@dataclass(frozen=True)
class Share:
    """What one stage holds: its number, its layers, and 1 or 0 for the embedding and the head."""

    stage: Numeric
    layers: Numeric
    embedding: Numeric
    head: Numeric

    def of(self, layer: Numeric, embedding: Numeric, head: Numeric) -> Numeric:
        """Sum a quantity of the three kinds of block over the stage."""
        return self.layers * layer + self.embedding * embedding + self.head * head


@dataclass(frozen=True)
class Stage:
    """A stage as a sum of blocks: every quantity of `BlockCost`, by the same name, summed when asked for."""

    blocks: StageBlocks
    share: Share

    def __getattr__(self, name: str) -> Numeric:
        kinds = (self.blocks.layer, self.blocks.embedding, self.blocks.head)
        return self.share.of(*(getattr(kind, name) for kind in kinds))


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


def stage_shares(layers: int, s: Strategies) -> dict[str, Share]:
    """Shares of the first, the fullest middle and the last stage."""
    shares = {}
    for name in STAGE_CLASSES:
        stage = stage_number(name, s)
        count = pipeline.stage_layers(layers, s.pp, s.vpp, stage)
        shares[name] = Share(stage, count, np.where(stage == 0, 1.0, 0.0), np.where(stage == s.pp - 1.0, 1.0, 0.0))
    return shares


def memory(
    blocks: StageBlocks, shares: dict[str, Share], s: Strategies, job: TrainingJob, accelerator: Accelerator
) -> Memory:
    """Memory of the first, a middle and the last stage, and of the worst of them."""
    stages = {name: _stage_memory(blocks, share, s, job) for name, share in shares.items()}
    worst = stages["first"]
    for name in STAGE_CLASSES[1:]:
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


def stage_parameters(share: Share, held: Sequence[Numeric], tied: Numeric) -> Numeric:
    """Parameters one device of a stage holds before ZeRO, given those of a layer, the embedding and the head.

    Tied embeddings are held once where a stage has both ends.
    """
    return share.of(*held) - share.embedding * share.head * tied


def _stage_memory(blocks: StageBlocks, share: Share, s: Strategies, job: TrainingJob) -> StageMemory:
    framework, precision = job.framework, job.numbers
    per_block = [block.parameters for block in (blocks.layer, blocks.embedding, blocks.head)]
    held = stage_parameters(share, per_block, blocks.tied_parameters)
    copies = np.where(s.schedule == pipeline.DUALPIPE, 2.0, 1.0)
    state = precision.master + OPTIMIZER_STATE_BYTES[job.optimizer]
    sets = pipeline.in_flight_chunks(s.pp, s.vpp, s.micro_batches, share.stage, s.schedule)
    saved = share.layers * blocks.layer.saved_bytes / s.vpp * sets
    interleaved = s.vpp > 1
    first_sets = np.where(interleaved, np.minimum(2.0 * s.pp, s.micro_batches), sets)
    start = share.embedding * blocks.embedding.saved_bytes * first_sets
    end = share.head * blocks.head.saved_bytes * np.where(interleaved, 1.0, sets)
    ends = share.of(0.0, blocks.embedding.parameters, blocks.head.parameters)
    ends = ends - share.embedding * share.head * blocks.tied_parameters
    at_a_time = np.minimum(GATHERED_LAYERS, share.layers) * blocks.layer.parameters
    streams = (s.zero >= 3) & (s.shard > 1)
    whole = at_a_time * (precision.wire + 0.5 * framework.reduce_bytes) + ends * precision.wire
    gathered = np.where(streams, whole, 0.0)
    communicates = np.where(s.dp * s.cp > 1, framework.bucket_bytes, 0.0)
    buffers = gathered + communicates
    rerun = np.maximum(blocks.layer.whole_bytes - blocks.layer.saved_bytes, 0.0) + blocks.transient_bytes
    again = np.where(share.layers > 0, rerun, 0.0)
    waiting_losses = np.where(s.schedule == pipeline.GPIPE, s.micro_batches, 1.0)
    loss = share.head * blocks.loss_bytes * waiting_losses
    workspace = buffers + np.maximum(loss, again)
    groups = sum(np.where(size > 1, 1.0, 0.0) for size in (s.tp, s.cp, s.dp, s.pp))
    parts = {
        "weights": held * copies * precision.weight * data.kept_fraction(3, s),
        "gradients": held * copies * framework.gradient_bytes * data.kept_fraction(2, s),
        "optimizer": held * state * data.kept_fraction(1, s),
        "activations": saved + start + end,
        "workspace": workspace,
        "runtime": np.zeros_like(groups) + framework.library_workspace,
    }
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
