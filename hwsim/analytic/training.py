"""One training step of every strategy: time by part, memory, traffic, utilisation.

All columns at once, each term at the shape of the columns it depends on; the same code serves one strategy, a table and an
open grid of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hwsim.analytic.blocks import BlockCost, Machine, block_cost
from hwsim.analytic.memory import Memory, StageBlocks, memory, stage_parameters, stage_share
from hwsim.costs.compute import Device, device
from hwsim.costs.energy import energy_j
from hwsim.costs.money import cost_usd
from hwsim.costs.network import Network, network
from hwsim.formulas import pipeline
from hwsim.formulas.training import adam_bytes, exposed_s, model_flops, utilization
from hwsim.formulas.types import Numeric
from hwsim.ops import block as block_ops
from hwsim.ops.axes import context, data, tensor
from hwsim.ops.axes import pipeline as pipeline_axis
from hwsim.ops.count import Parameters, parameters
from hwsim.ops.operator import Formats
from hwsim.ops.work import Collective, Stream
from hwsim.specs.hardware import Hardware
from hwsim.specs.job import OPTIMIZER_STATE_BYTES, PRECISIONS, Precision, TrainingJob
from hwsim.specs.model import Model
from hwsim.specs.strategy import Strategies

TIME_PARTS = ("forward", "backward", "recompute", "tp", "cp", "pp", "dp", "bubble", "optimizer", "launch")
TRAFFIC_AXES = ("tp", "pp", "dp", "cp", "ep")


@dataclass(frozen=True)
class Setting:
    """Everything but the strategy: what is trained, on which machine, how."""

    model: Model
    hardware: Hardware
    job: TrainingJob
    devices: int

    @cached_property
    def precision(self) -> Precision:
        """Bytes per number by role."""
        return PRECISIONS[self.job.precision]

    @cached_property
    def device(self) -> Device:
        """Kernel curves at the job's compute dtype."""
        return device(self.hardware.accelerator, self.precision.compute)

    @cached_property
    def network(self) -> Network:
        """The cluster laid out for this many devices."""
        return network(self.hardware.cluster, self.devices)

    @cached_property
    def parameters(self) -> Parameters:
        """Parameter counts."""
        return parameters(self.model)

    @cached_property
    def formats(self) -> Formats:
        """Bytes per number in the operators."""
        return Formats(self.precision.activation, self.precision.gemm_input, self.job.framework.gradient_bytes)


@dataclass(frozen=True)
class TrainingColumns:
    """The answers, one per strategy (arrays that broadcast to the shape of the strategies)."""

    setting: Setting
    strategies: Strategies
    time_s: dict[str, Numeric]
    """Exposed seconds per step by part; they sum to the step time."""
    step_time_s: Numeric
    memory_bound_s: Numeric
    """Part of the compute that waits for device memory."""
    memory: Memory
    traffic_bytes: dict[str, Numeric]
    """Sent per device and step, by axis."""
    flops_per_device: Numeric
    """Executed by the matrix units per step."""
    machine: Machine
    shard_bytes: Numeric
    """Part of the dp traffic that stays in the shard group."""

    @property
    def fits(self) -> Numeric:
        """Whether the worst device has room for what the runtime reserves."""
        return self.memory.reserved_bytes <= self.memory.capacity_bytes

    @property
    def tokens_per_s(self) -> Numeric:
        """Of the whole job."""
        return self.strategies.global_batch * self.strategies.seq_len / self.step_time_s

    @property
    def model_flops(self) -> Numeric:
        """Of the whole job per step, as the Megatron papers count them."""
        model, s = self.setting.model, self.strategies
        width, counts = model.heads * model.head_dim, self.setting.parameters
        return model_flops(counts.matmul, s.global_batch * s.seq_len, model.layers, width, s.seq_len)

    @property
    def recomputed_flops(self) -> Numeric:
        """Counted the same way, what recompute adds."""
        model, s = self.setting.model, self.strategies
        tokens, counts = s.global_batch * s.seq_len, self.setting.parameters
        attention = 4.0 * model.layers * model.heads * model.head_dim * s.seq_len * tokens
        head = 1.0 * model.vocab * (model.embedding_dim or model.hidden)
        everything = 2.0 * (counts.matmul - head) * tokens + attention
        return np.where(s.recompute == 2, everything, np.where(s.recompute == 1, attention, 0.0))

    @property
    def mfu(self) -> Numeric:
        """Model FLOPs over dense peak."""
        return utilization(self.model_flops, self.step_time_s, self.strategies.devices, self._peak)

    @property
    def hfu(self) -> Numeric:
        """The same with recompute counted."""
        executed = self.model_flops + self.recomputed_flops
        return utilization(executed, self.step_time_s, self.strategies.devices, self._peak)

    @property
    def _peak(self) -> Numeric:
        return self.setting.device.gemm.peak_flops_per_s

    @property
    def busy_s(self) -> Numeric:
        """Seconds per step in kernels."""
        return self.time_s["forward"] + self.time_s["backward"] + self.time_s["recompute"] + self.time_s["optimizer"]

    @property
    def energy_j(self) -> Numeric:
        """Per step, whole job, at the wall of the nodes."""
        return energy_j(self.setting.hardware, self.strategies.devices, self.step_time_s, self.busy_s)

    @property
    def cost_usd(self) -> Numeric:
        """Rent per step, whole job."""
        return cost_usd(self.setting.hardware.accelerator, self.strategies.devices, self.step_time_s)

    @property
    def traffic_tier_bytes(self) -> dict[str, Numeric]:
        """Sent per device and step, by network tier."""
        groups, share = self.machine.groups, self.setting.network.tier_shares
        replica = self.traffic_bytes["dp"] - self.shard_bytes
        pairs = [("tp", self.traffic_bytes["tp"]), ("cp", self.traffic_bytes["cp"]), ("pp", self.traffic_bytes["pp"])]
        pairs += [("shard", self.shard_bytes), ("replica", replica)]
        result: dict[str, Numeric] = {}
        for name, sent in pairs:
            for tier, part in share(groups[name]).items():
                result[tier] = result.get(tier, 0.0) + sent * part
        return result


def illegal(model: Model, s: Strategies) -> dict[str, Numeric]:
    """Every reason against a strategy, as masks that broadcast to the shape of the strategies."""
    return data.illegal(s) | tensor.illegal(model, s) | context.illegal(s) | pipeline_axis.illegal(model, s)


def evaluate(setting: Setting, s: Strategies) -> TrainingColumns:
    """Time, memory and traffic of one step for every strategy. Legality is not asked here (see `illegal`)."""
    machine = Machine(setting.device, setting.network, setting.network.groups(s), setting.job.framework.interference)
    blocks = stage_blocks(setting, s, machine)
    slowest = slowest_stage(blocks, s)
    micro_batch = stage_cost(blocks, s, slowest)
    steps = s.micro_batches
    send_s, send_bytes = pipeline_send(setting, s, machine)
    chunk_sends = 2.0 * s.vpp * np.where(setting.job.framework.overlap_pipeline & (s.vpp > 1), 0.0, 1.0)
    data_s, data_bytes, shard_bytes = data_parallel(setting, s, machine, blocks, micro_batch)
    launch = setting.hardware.accelerator.kernels
    per_kernel_s = launch.graph_launch if setting.job.graphs else launch.launch + setting.job.framework.kernel_dispatch
    device_s = micro_batch.forward_total_s + micro_batch.backward_total_s
    compute_s = micro_batch.forward_s + micro_batch.input_s + micro_batch.weight_s + micro_batch.recompute_s
    waiting_s = np.maximum(micro_batch.kernels * per_kernel_s - device_s, 0.0)
    time_s = {
        "forward": steps * micro_batch.forward_s,
        "backward": steps * (micro_batch.input_s + micro_batch.weight_s),
        "recompute": steps * micro_batch.recompute_s,
        "tp": steps * (micro_batch.tp_forward_s + micro_batch.tp_backward_s),
        "cp": steps * (micro_batch.cp_forward_s + micro_batch.cp_backward_s),
        "pp": (steps * chunk_sends + 2.0 * (s.pp - 1.0)) * send_s,
        "dp": data_s,
        "bubble": bubble(blocks, s, micro_batch, waiting_s),
        "optimizer": optimizer_step(setting, s, blocks),
        "launch": steps * waiting_s,
    }
    step: Numeric = 0.0
    for part in TIME_PARTS:
        step = step + time_s[part]
    sends = np.where(s.pp > 2, 2.0 * s.vpp, 2.0 * s.vpp - 1.0) * np.where(s.pp > 1, 1.0, 0.0)
    return TrainingColumns(
        setting=setting,
        strategies=s,
        time_s=time_s,
        step_time_s=step,
        memory_bound_s=np.minimum(steps * micro_batch.memory_bound_s, steps * compute_s),
        memory=memory(blocks, s, setting.job, setting.precision, setting.hardware.accelerator),
        traffic_bytes={
            "tp": steps * busiest(blocks, s, "tp_bytes"),
            "pp": steps * sends * send_bytes,
            "dp": data_bytes,
            "cp": steps * busiest(blocks, s, "cp_bytes"),
            "ep": np.zeros_like(steps),
        },
        flops_per_device=steps * micro_batch.flops,
        machine=machine,
        shard_bytes=shard_bytes,
    )


def stage_blocks(setting: Setting, s: Strategies, machine: Machine) -> StageBlocks:
    """Cost the three kinds of block once; every stage is a sum of them."""
    job, framework = setting.job, setting.job.framework
    flash = job.attention == "flash"
    plan = block_ops.block_plan(
        setting.model, s, setting.formats, flash, framework.logit_bytes, framework.logit_traffic_bytes
    )
    kept = plan.sizes.residual_tokens * setting.model.hidden * setting.precision.activation
    columns = plan.sizes.ffn * (2.0 if setting.model.gated else 1.0)
    width = setting.model.embedding_dim or setting.model.hidden
    return StageBlocks(
        layers=setting.model.layers,
        layer=block_cost(block_ops.layer(plan), machine, s.recompute, kept),
        embedding=block_cost(block_ops.embedding(plan), machine, 0.0, 0.0),
        head=block_cost(block_ops.head(plan), machine, 0.0, 0.0),
        tied_parameters=plan.sizes.vocab * width if setting.model.tied_embeddings else 0.0,
        loss_bytes=block_ops.loss_workspace_bytes(plan),
        transient_bytes=plan.sizes.tokens * (setting.model.hidden + columns) * setting.precision.activation,
    )


def stage_cost(blocks: StageBlocks, s: Strategies, stage: Numeric) -> BlockCost:
    """One micro-batch through one stage."""
    count, first, last = stage_share(blocks.layers, s, stage)
    return blocks.layer * count + blocks.embedding * first + blocks.head * last


def slowest_stage(blocks: StageBlocks, s: Strategies) -> Numeric:
    """Number of the stage that takes longest for a micro-batch."""
    slowest: Numeric = np.zeros_like(s.pp)
    longest: Numeric = -1.0
    for name in pipeline_axis.STAGE_CLASSES:
        stage = pipeline_axis.stage_number(name, s)
        count, first, last = stage_share(blocks.layers, s, stage)
        seconds = count * block_s(blocks.layer) + first * block_s(blocks.embedding) + last * block_s(blocks.head)
        slowest = np.where(seconds > longest, stage, slowest)
        longest = np.maximum(seconds, longest)
    return slowest


def block_s(block: BlockCost) -> Numeric:
    """Forward and backward of one micro-batch through one block."""
    return block.forward_total_s + block.backward_total_s


def busiest(blocks: StageBlocks, s: Strategies, field: str) -> Numeric:
    """The largest value of a block quantity over the stages, per micro-batch."""
    most: Numeric = 0.0
    for name in pipeline_axis.STAGE_CLASSES:
        count, first, last = stage_share(blocks.layers, s, pipeline_axis.stage_number(name, s))
        layer, start, end = (getattr(part, field) for part in (blocks.layer, blocks.embedding, blocks.head))
        most = np.maximum(most, count * layer + first * start + last * end)
    return most


def bubble(blocks: StageBlocks, s: Strategies, slowest: BlockCost, waiting_s: Numeric) -> Numeric:
    """Seconds the slowest stage waits while the pipeline fills and drains."""
    total = blocks.layers * block_s(blocks.layer) + block_s(blocks.embedding) + block_s(blocks.head)
    backward_input = slowest.backward_total_s - slowest.weight_s + waiting_s
    parts = (slowest.forward_total_s, backward_input, slowest.weight_s)
    return pipeline.bubble_s(parts, total + waiting_s * s.pp, s.pp, s.vpp, s.schedule)


def pipeline_send(setting: Setting, s: Strategies, machine: Machine) -> tuple[Numeric, Numeric]:
    """Seconds and bytes of handing one micro-batch to the next chunk."""
    residual = s.micro_batch * s.seq_len / s.cp * setting.model.hidden * setting.precision.activation
    sent = pipeline_axis.send_bytes(residual, s)
    regather = machine.collective_s(Collective("all_gather", "tp", residual * (1.0 - s.sequence_parallel) * (s.pp > 1)))
    return machine.network.seconds("send_recv", sent, machine.groups["send"]) + regather, sent


def data_parallel(
    setting: Setting, s: Strategies, machine: Machine, blocks: StageBlocks, micro_batch: BlockCost
) -> tuple[Numeric, Numeric, Numeric]:
    """Exposed seconds and bytes per step of reducing gradients and gathering weights, and the bytes in the shard group."""
    framework = setting.job.framework
    stages = [pipeline_axis.stage_number(name, s) for name in ("first", "last")]
    held = np.maximum(*(stage_parameters(blocks, s, stage) for stage in stages))
    t = data.gradient_traffic(held, framework.reduce_bytes, setting.precision.weight, s)

    def cost(kind: str, group: str, payload: Numeric) -> tuple[Numeric, Numeric]:
        work = Collective(kind, group, payload)
        return machine.collective_s(work), machine.sent_bytes(work)

    reduce_s, reduce_sent = cost("all_reduce", "data", t.all_reduce_bytes)
    scatter_s, scatter_sent = cost("reduce_scatter", "shard", t.reduce_scatter_bytes)
    replica_s, replica_sent = cost("all_reduce", "replica", t.replica_bytes)
    gather_s, gather_sent = cost("all_gather", "shard", t.all_gather_bytes)
    forward_s, backward_s = micro_batch.forward_total_s, micro_batch.backward_total_s
    beside_forward = forward_s * float(framework.overlap_parameters)
    beside_backward = backward_s * float(framework.overlap_gradients)
    streaming = np.where(s.zero >= 3, 1.0, 0.0)
    backward_comm = scatter_s + gather_s * streaming
    first_gather = gather_s / np.maximum(blocks.layers / s.pp, 1.0) * streaming * t.forward_gathers
    exposed = (
        exposed_s(reduce_s + replica_s, beside_backward, framework.interference)
        + t.reduce_scatters * exposed_s(backward_comm, beside_backward, framework.interference)
        + t.forward_gathers * exposed_s(gather_s, beside_forward, framework.interference)
        + first_gather
    )
    in_shard = scatter_sent * t.reduce_scatters + gather_sent * (t.forward_gathers + t.backward_gathers)
    tied = np.where((s.pp > 1), 1.0, 0.0) * blocks.tied_parameters * framework.reduce_bytes
    tied_s = machine.network.seconds("all_reduce", tied, machine.groups["send"])
    whole = np.where(s.zero > 0, 0.0, reduce_sent)
    return exposed + tied_s, whole + in_shard + replica_sent, whole + in_shard


def optimizer_step(setting: Setting, s: Strategies, blocks: StageBlocks) -> Numeric:
    """Seconds of the weight update on the stage with most parameters."""
    stages = [pipeline_axis.stage_number(name, s) for name in ("first", "last")]
    held = np.maximum(*(stage_parameters(blocks, s, stage) for stage in stages))
    updated = held * data.kept_fraction(1, s)
    state, precision = OPTIMIZER_STATE_BYTES[setting.job.optimizer], setting.precision
    moved = adam_bytes(updated, setting.job.framework.gradient_bytes, precision.master, state, precision.weight)
    return setting.device.seconds(Stream(moved))
