"""One training step of every strategy: time by part, memory, traffic, utilisation.

All columns at once, each term at the shape of the columns it depends on; the same code serves one strategy, a table and an
open grid of them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from hwsim.analytic.blocks import BlockCost, Machine, block_cost
from hwsim.analytic.distinct import per_distinct
from hwsim.analytic.memory import Memory, Share, StageBlocks, memory, stage_parameters, stage_shares
from hwsim.costs.compute import Device, device
from hwsim.costs.energy import energy_j
from hwsim.costs.money import cost_usd
from hwsim.costs.network import Network, axis_stride, network
from hwsim.formulas import pipeline
from hwsim.formulas.training import adam_bytes, exposed_s, model_flops, utilization
from hwsim.formulas.types import Numeric
from hwsim.ops import block as block_ops
from hwsim.ops.axes import context, data, tensor
from hwsim.ops.axes import pipeline as pipeline_axis
from hwsim.ops.count import Parameters, parameters
from hwsim.ops.operator import Formats, total
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
    """Executed by the matrix units of the slowest stage per step."""
    gradients: DataTalk

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
        net, s, dp = self.setting.network, self.strategies, self.gradients
        groups = net.step_groups(s)
        data_group, shard = np.where(s.zero > 0, 0.0, dp.shard_bytes), np.where(s.zero > 0, dp.shard_bytes, 0.0)
        parts = [(self.traffic_bytes["pp"], net.line_shares(groups["pp"], s.vpp))]
        sent = {"tp": self.traffic_bytes["tp"], "cp": self.traffic_bytes["cp"], "data": data_group, "shard": shard}
        sent |= {"replica": dp.replica_bytes, "send": dp.tied_bytes}
        parts += [(value, net.ring_shares(groups[name])) for name, value in sent.items()]
        result: dict[str, Numeric] = {}
        for value, shares in parts:
            for tier, share in shares.items():
                result[tier] = result.get(tier, 0.0) + value * share
        return result


def illegal(model: Model, s: Strategies) -> dict[str, Numeric]:
    """Every reason against a strategy, as masks that broadcast to the shape of the strategies."""
    return data.illegal(s) | tensor.illegal(model, s) | context.illegal(s) | pipeline_axis.illegal(model, s)


def evaluate(setting: Setting, s: Strategies) -> TrainingColumns:
    """Time, memory and traffic of one step for every strategy. Legality is not asked here (see `illegal`)."""
    layer_keys = (s.tp, s.cp, axis_stride("cp", s), s.sequence_parallel, s.micro_batch, s.seq_len, s.recompute)
    blocks = per_distinct(lambda rows: stage_blocks(setting, rows), s, layer_keys)
    data_keys = (s.tp, s.cp, s.dp, s.pp, s.vpp, s.order, s.zero, s.shard, s.micro_batches)
    gradients = per_distinct(lambda rows: data_talk(setting, rows), s, data_keys)
    send_keys = (s.tp, s.cp, s.dp, s.pp, s.order, s.micro_batch, s.seq_len, s.sequence_parallel)
    sends = per_distinct(lambda rows: send_talk(setting, rows), s, send_keys)
    shares = stage_shares(setting.model.layers, s)
    micro_batch = stage_cost(blocks, slowest_share(blocks, shares))
    waiting_s = host_wait(setting, micro_batch)
    steps = s.micro_batches
    time_s = {
        "forward": steps * micro_batch.forward_s,
        "backward": steps * (micro_batch.input_s + micro_batch.weight_s),
        "recompute": steps * micro_batch.recompute_s,
        "tp": steps * (micro_batch.tp_forward_s + micro_batch.tp_backward_s),
        "cp": steps * (micro_batch.cp_forward_s + micro_batch.cp_backward_s),
        "pp": exposed_sends(setting, s, sends.send_s, micro_batch),
        "dp": exposed_data(setting, s, gradients, micro_batch),
        "bubble": bubble(blocks, s, micro_batch, waiting_s),
        "optimizer": gradients.optimizer_s,
        "launch": steps * waiting_s,
    }
    step: Numeric = 0.0
    for part in TIME_PARTS:
        step = step + time_s[part]
    return TrainingColumns(
        setting=setting,
        strategies=s,
        time_s=time_s,
        step_time_s=step,
        memory_bound_s=steps * micro_batch.memory_bound_s + gradients.optimizer_s,
        memory=memory(blocks, shares, s, setting.job, setting.hardware.accelerator),
        traffic_bytes={
            "tp": steps * busiest(blocks, shares, "tp_bytes", received(s, shares, sends.regather_bytes)),
            "pp": steps * pipeline_axis.sends(s) * sends.send_bytes,
            "dp": gradients.shard_bytes + gradients.replica_bytes + gradients.tied_bytes,
            "cp": steps * busiest(blocks, shares, "cp_bytes", {}),
            "ep": np.zeros_like(steps),
        },
        flops_per_device=steps * micro_batch.flops,
        gradients=gradients,
    )


@dataclass(frozen=True)
class DataTalk:
    """Durations and bytes of each collective of the data-parallel group, and the weight update."""

    all_reduce_s: Numeric
    reduce_scatter_s: Numeric
    replica_s: Numeric
    all_gather_s: Numeric
    tied_s: Numeric
    """Gradients of tied embeddings, between first and last stage."""
    shard_bytes: Numeric
    """Sent per step inside the shard group (the whole data group where nothing is sharded) by the busiest stage."""
    replica_bytes: Numeric
    """Sent per step between replicas of a shard."""
    tied_bytes: Numeric
    """Sent per step between first and last stage."""
    optimizer_s: Numeric


def data_talk(setting: Setting, s: Strategies) -> DataTalk:
    """Cost the collectives of the data-parallel group and the weight update."""
    machine = Machine(setting.device, setting.network, setting.network.step_groups(s), 0.0)
    framework, precision = setting.job.framework, setting.precision
    tied_weights = tied_parameters(setting, s) * framework.reduce_bytes * (s.pp > 1) * data.kept_fraction(2, s)
    tied = Collective("all_reduce", "send", tied_weights)
    held, ends = stage_held(setting, s)
    sent = [data_sent(setting, s, machine, mine, machine.sent_bytes(tied) * end) for mine, end in zip(held, ends, strict=True)]
    busiest_sent = sent[0]
    for other in sent[1:]:
        more = sum(other) > sum(busiest_sent)
        busiest_sent = tuple(np.where(more, new, old) for new, old in zip(other, busiest_sent, strict=True))
    most = np.maximum(np.maximum(held[0], held[1]), held[2])
    updated, state = most * data.kept_fraction(1, s), OPTIMIZER_STATE_BYTES[setting.job.optimizer]
    moved = adam_bytes(updated, framework.gradient_bytes, precision.master, state, precision.weight)
    return DataTalk(
        *(machine.collective_s(work) for work in (*data_collectives(setting, s, most), tied)),
        *busiest_sent,
        optimizer_s=setting.device.seconds(Stream(moved)),
    )


def data_collectives(setting: Setting, s: Strategies, held: Numeric) -> tuple[Collective, ...]:
    """All-reduce, reduce-scatter, replica all-reduce and all-gather for a device with `held` parameters."""
    t = data.gradient_traffic(held, setting.job.framework.reduce_bytes, setting.precision.weight, s)
    return (
        Collective("all_reduce", "data", t.all_reduce_bytes),
        Collective("reduce_scatter", "shard", t.reduce_scatter_bytes),
        Collective("all_reduce", "replica", t.replica_bytes),
        Collective("all_gather", "shard", t.all_gather_bytes),
    )


def data_sent(setting: Setting, s: Strategies, machine: Machine, held: Numeric, tied: Numeric) -> tuple[Numeric, ...]:
    """Bytes a device with `held` parameters sends per step: in its shard group, between replicas, for tied weights."""
    count = data.rounds(s)
    reduce, scatter, replica, gather = (machine.sent_bytes(work) for work in data_collectives(setting, s, held))
    gathers = count.forward_gathers + count.backward_gathers
    return reduce + scatter * count.reduce_scatters + gather * gathers, replica, tied


@dataclass(frozen=True)
class SendTalk:
    """Handing one micro-batch over one chunk boundary."""

    send_s: Numeric
    send_bytes: Numeric
    regather_bytes: Numeric
    """Sent over tp to put a received boundary together again, without sequence parallelism."""


def send_talk(setting: Setting, s: Strategies) -> SendTalk:
    """Cost a send between stages, and the all-gather that puts it together again without sequence parallelism."""
    machine = Machine(setting.device, setting.network, setting.network.step_groups(s), 0.0)
    residual = s.micro_batch * s.seq_len / s.cp * setting.model.hidden * setting.precision.activation
    send = Collective("send_recv", "send", pipeline_axis.send_bytes(residual, s))
    regather = Collective("all_gather", "tp", residual * (1.0 - s.sequence_parallel) * (s.pp > 1))
    seconds = machine.collective_s(send) + machine.collective_s(regather)
    return SendTalk(seconds, send.total_bytes, machine.sent_bytes(regather))


def tied_parameters(setting: Setting, s: Strategies) -> Numeric:
    """Embedding rows on one device that the LM head shares; none where it has its own."""
    model = setting.model
    return tensor.local_vocab(model.vocab, s) * (model.embedding_dim or model.hidden) * float(model.tied_embeddings)


def stage_held(setting: Setting, s: Strategies) -> tuple[list[Numeric], list[Numeric]]:
    """Parameters on a device of each stage class, and whether that class holds an end of the model."""
    plan = block_plan(setting, s)
    blocks = [total(part(plan), "parameters") for part in (block_ops.layer, block_ops.embedding, block_ops.head)]
    shares = stage_shares(setting.model.layers, s).values()
    tied = tied_parameters(setting, s)
    return [stage_parameters(share, blocks, tied) for share in shares], [np.maximum(share.embedding, share.head) for share in shares]


def host_wait(setting: Setting, micro_batch: BlockCost) -> Numeric:
    """Seconds per micro-batch that the device waits for the host to launch its kernels."""
    kernels, framework = setting.hardware.accelerator.kernels, setting.job.framework
    graphs = framework.compiled if setting.job.graphs is None else setting.job.graphs
    per_kernel_s = kernels.graph_launch if graphs else kernels.launch + framework.kernel_dispatch
    return np.maximum(micro_batch.kernels * per_kernel_s - block_s(micro_batch), 0.0)


def exposed_sends(setting: Setting, s: Strategies, send_s: Numeric, micro_batch: BlockCost) -> Numeric:
    """Seconds per step of stage-to-stage sends that nothing hides.

    One send each way per chunk and micro-batch; interleaved schedules run them beside the next chunk where the framework
    overlaps them. Filling and draining hides none.
    """
    framework = setting.job.framework
    beside = np.where(framework.overlap_pipeline & (s.vpp > 1), 1.0, 0.0) / s.vpp
    forward = exposed_s(send_s, beside * micro_batch.forward_total_s, framework.interference)
    backward = exposed_s(send_s, beside * micro_batch.backward_total_s, framework.interference)
    return s.micro_batches * s.vpp * (forward + backward) + 2.0 * (s.pp - 1.0) * send_s


def exposed_data(setting: Setting, s: Strategies, talk: DataTalk, micro_batch: BlockCost) -> Numeric:
    """Exposed seconds per step of reducing gradients and gathering weights."""
    framework, count = setting.job.framework, data.rounds(s)
    beside_forward = micro_batch.forward_total_s * float(framework.overlap_parameters)
    beside_backward = micro_batch.backward_total_s * float(framework.overlap_gradients)
    streaming = np.where(s.zero >= 3, 1.0, 0.0)
    first_gather = streaming * talk.all_gather_s / np.maximum(setting.model.layers / s.pp, 1.0)
    once = exposed_s(talk.all_reduce_s + talk.replica_s, beside_backward, framework.interference)
    backward = exposed_s(talk.reduce_scatter_s + talk.all_gather_s * streaming, beside_backward, framework.interference)
    forward = exposed_s(talk.all_gather_s, beside_forward, framework.interference) + first_gather
    return once + count.reduce_scatters * backward + count.forward_gathers * forward + talk.tied_s


def block_plan(setting: Setting, s: Strategies) -> block_ops.Plan:
    """What the operators of this setting are built from."""
    framework = setting.job.framework
    flash = setting.job.attention == "flash"
    return block_ops.block_plan(
        setting.model, s, setting.formats, flash, framework.logit_bytes, framework.logit_traffic_bytes
    )


def stage_blocks(setting: Setting, s: Strategies) -> StageBlocks:
    """Cost the three kinds of block once; every stage is a sum of them."""
    groups = setting.network.axis_groups(s, ("tp", "cp"))
    machine = Machine(setting.device, setting.network, groups, setting.job.framework.interference)
    plan = block_plan(setting, s)
    kept = plan.sizes.residual_tokens * setting.model.hidden * setting.precision.activation
    columns = plan.sizes.ffn * (2.0 if setting.model.gated else 1.0)
    return StageBlocks(
        layers=setting.model.layers,
        layer=block_cost(block_ops.layer(plan), machine, s.recompute, kept),
        embedding=block_cost(block_ops.embedding(plan), machine, 0.0, 0.0),
        head=block_cost(block_ops.head(plan), machine, 0.0, 0.0),
        tied_parameters=tied_parameters(setting, s),
        loss_bytes=block_ops.loss_workspace_bytes(plan),
        transient_bytes=plan.sizes.tokens * (setting.model.hidden + columns) * setting.precision.activation,
    )


def stage_cost(blocks: StageBlocks, share: Share) -> BlockCost:
    """One micro-batch through one stage."""
    return blocks.layer * share.layers + blocks.embedding * share.embedding + blocks.head * share.head


def slowest_share(blocks: StageBlocks, shares: dict[str, Share]) -> Share:
    """The stage that takes longest for a micro-batch."""
    per_block = [block_s(block) for block in (blocks.layer, blocks.embedding, blocks.head)]
    slowest = shares["first"]
    longest = slowest.of(*per_block)
    for share in (shares["middle"], shares["last"]):
        seconds = share.of(*per_block)
        slowest = Share(*(np.where(seconds > longest, getattr(share, f.name), getattr(slowest, f.name)) for f in fields(Share)))
        longest = np.maximum(seconds, longest)
    return slowest


def block_s(block: BlockCost) -> Numeric:
    """Forward and backward of one micro-batch through one block."""
    return block.forward_total_s + block.backward_total_s


def busiest(blocks: StageBlocks, shares: dict[str, Share], field: str, extra: dict[str, Numeric]) -> Numeric:
    """The largest value of a block quantity (and what `extra` adds to a stage) over the stages, per micro-batch."""
    most: Numeric = 0.0
    per_block = [getattr(part, field) for part in (blocks.layer, blocks.embedding, blocks.head)]
    for name, share in shares.items():
        most = np.maximum(most, share.of(*per_block) + extra.get(name, 0.0))
    return most


def received(s: Strategies, shares: dict[str, Share], regather_bytes: Numeric) -> dict[str, Numeric]:
    """Bytes each stage sends over tp per micro-batch to put its received boundaries together again."""
    return {name: (2.0 * s.vpp - np.maximum(share.embedding, share.head)) * regather_bytes for name, share in shares.items()}


def bubble(blocks: StageBlocks, s: Strategies, slowest: BlockCost, waiting_s: Numeric) -> Numeric:
    """Seconds the slowest stage waits while the pipeline fills and drains."""
    total = blocks.layers * block_s(blocks.layer) + block_s(blocks.embedding) + block_s(blocks.head)
    backward_input = slowest.backward_total_s - slowest.weight_s + waiting_s
    parts = (slowest.forward_total_s, backward_input, slowest.weight_s)
    return pipeline.bubble_s(parts, total + waiting_s * s.pp, s.pp, s.vpp, s.micro_batches, s.schedule)
