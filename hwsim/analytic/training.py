"""One training step of every strategy: time by part, memory, traffic, utilisation.

All columns at once, each term at the shape of the columns it depends on; the same code serves one strategy, a table
and an open grid of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hwsim.analytic.backward import events
from hwsim.analytic.blocks import Host, Machine, Pace, block_cost, mean_cost, pace
from hwsim.analytic.communication import (
    DataBytes,
    DataTalk,
    SendTalk,
    data_bytes,
    data_talk,
    expert_groups,
    exposed_data,
    exposed_sends,
    send_talk,
)
from hwsim.analytic.counted import recomputed_flops, step_flops
from hwsim.analytic.distinct import per_distinct
from hwsim.analytic.memory import (
    Memory,
    Share,
    Stage,
    StageBlocks,
    expert_fraction,
    memory,
    stage_shares,
    weight_bytes,
)
from hwsim.analytic.setting import Setting, model_plan, tied_parameters
from hwsim.costs.energy import Activity, device_power_w, energy_j
from hwsim.costs.host import node_update_s, transfer_s
from hwsim.costs.money import cost_usd
from hwsim.costs.network import axis_stride
from hwsim.formulas import pipeline
from hwsim.formulas.stragglers import slowest_of
from hwsim.formulas.training import exposed_s
from hwsim.formulas.types import Numeric
from hwsim.ops import block as block_ops
from hwsim.ops.axes import context, data, expert, tensor
from hwsim.ops.axes import pipeline as pipeline_axis
from hwsim.ops.plan import Plan
from hwsim.ops.stacks import count_layers, stacks
from hwsim.specs.model import Model
from hwsim.specs.strategy import Strategies

TIME_PARTS = (
    "forward", "backward", "recompute", "tp", "cp", "ep", "pp", "dp", "bubble", "optimizer", "offload", "launch",
    "straggler",
)  # fmt: skip
TRAFFIC_AXES = ("tp", "pp", "dp", "cp", "ep")


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
    data_bytes: DataBytes
    talk: tuple[Stage, DataTalk, SendTalk]
    """The slowest stage's micro-batch, and what runs once per step and per chunk boundary."""

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
        return step_flops(self.setting, self.strategies)

    @property
    def recomputed_flops(self) -> Numeric:
        """Counted the same way, what recompute adds."""
        return recomputed_flops(self.setting, self.strategies)

    @property
    def mfu(self) -> Numeric:
        """Model FLOPs over dense peak."""
        return self.setting.device.utilization(self.model_flops, self.step_time_s, self.strategies.devices)

    @property
    def hfu(self) -> Numeric:
        """The same with recompute counted."""
        executed = self.model_flops + self.recomputed_flops
        return self.setting.device.utilization(executed, self.step_time_s, self.strategies.devices)

    @property
    def communication_s(self) -> dict[str, Numeric]:
        """Seconds per step that each axis communicates, hidden behind compute or not."""
        stage, gradients, sends = self.talk
        steps, count = self.strategies.micro_batches, data.rounds(self.strategies)
        gathers = gradients.all_gather_s * count.forward_gathers + gradients.again_s * count.backward_gathers
        once = gradients.all_reduce_s + gradients.replica_s + gradients.tied_s
        boundaries = 2.0 * (steps * self.strategies.vpp + self.strategies.pp - 1.0)
        return {
            "tp": steps * stage.tp_busy_s,
            "cp": steps * stage.cp_busy_s,
            "ep": steps * stage.ep_busy_s,
            "pp": boundaries * sends.send_s,
            "dp": once + gradients.reduce_scatter_s * count.reduce_scatters + gathers,
        }

    @property
    def busy_s(self) -> Numeric:
        """Seconds per step in kernels."""
        return self.time_s["forward"] + self.time_s["backward"] + self.time_s["recompute"] + self.time_s["optimizer"]

    @property
    def energy_j(self) -> Numeric:
        """Per step, whole job, at the wall of the nodes."""
        return energy_j(self.setting.hardware, self.strategies.devices, self.activity)

    @property
    def device_power_w(self) -> Numeric:
        """Mean power of the busiest device."""
        return device_power_w(self.setting.hardware, self.activity)

    @property
    def activity(self) -> Activity:
        """What the busiest device does in a step."""
        streaming = np.minimum(self.memory_bound_s, self.busy_s)
        sent: Numeric = 0.0
        for each in self.traffic_bytes.values():
            sent = sent + each
        return Activity(
            seconds=self.step_time_s,
            working_s=self.busy_s - streaming,
            compute_s=self.setting.device.multiplying_s(self.flops_per_device),
            memory_s=0.0,
            streaming_s=streaming,
            sent_bytes=sent,
        )

    @property
    def cost_usd(self) -> Numeric:
        """Rent per step, whole job."""
        return cost_usd(self.setting.hardware.accelerator, self.strategies.devices, self.step_time_s)

    @property
    def traffic_tier_bytes(self) -> dict[str, Numeric]:
        """Sent per device and step, by network tier."""
        net, s, dp = self.setting.network, self.strategies, self.data_bytes
        groups = net.step_groups(s)
        data_group, shard = np.where(s.zero > 0, 0.0, dp.shard), np.where(s.zero > 0, dp.shard, 0.0)
        parts = [(self.traffic_bytes["pp"], net.line_shares(groups["pp"], s.vpp))]
        sent = {"tp": self.traffic_bytes["tp"], "cp": self.traffic_bytes["cp"], "data": data_group, "shard": shard}
        sent |= {"replica": dp.replica, "send": dp.tied}
        parts += [(value, net.ring_shares(groups[name])) for name, value in sent.items()]
        if self.setting.model.experts:
            parts.append((self.traffic_bytes["ep"], net.exchange_shares(expert_groups(self.setting, s)["ep"])))
        result: dict[str, Numeric] = {}
        for value, shares in parts:
            for tier, share in shares.items():
                result[tier] = result.get(tier, 0.0) + value * share
        return result


def illegal(model: Model, s: Strategies) -> dict[str, Numeric]:
    """Every reason against a strategy, as masks that broadcast to the shape of the strategies."""
    layers = count_layers(model)
    found = data.illegal(s) | context.illegal(s) | pipeline_axis.illegal(layers, s) | expert.illegal(model, s)
    for stack in stacks(model):
        for reason, mask in tensor.illegal(stack, s).items():
            found[reason] = found.get(reason, False) | mask
    return found


def evaluate(setting: Setting, s: Strategies) -> TrainingColumns:
    """Time, memory and traffic of one step for every strategy. Legality is not asked here (see `illegal`)."""
    layer_keys = [s.tp, s.cp, axis_stride("cp", s), s.sequence_parallel, s.micro_batch, s.seq_len, s.recompute]
    layer_keys += [s.ep, s.etp, s.dp, s.pp, axis_stride("pp", s)] if setting.model.experts else []
    blocks = per_distinct(lambda rows: stage_blocks(setting, rows), s, layer_keys)
    data_keys = (s.tp, s.cp, s.dp, s.pp, s.vpp, s.ep, s.etp, s.order, s.zero, s.shard)
    gradients = per_distinct(lambda rows: data_talk(setting, rows), s, data_keys)
    reduced = data_bytes(setting, s)
    send_keys = (s.tp, s.cp, s.dp, s.pp, s.order, s.micro_batch, s.seq_len, s.sequence_parallel)
    sends = per_distinct(lambda rows: send_talk(setting, rows), s, send_keys)
    shares = stage_shares(setting.segments, s)
    host, framework = host_of(setting), setting.job.framework
    micro_batch = Stage(blocks, slowest_share(blocks, shares, host))
    beat = pace(micro_batch, host)
    steps = s.micro_batches
    time_s = {
        "forward": steps * micro_batch.forward_s,
        "backward": steps * (micro_batch.input_s + micro_batch.weight_s),
        "recompute": steps * micro_batch.recompute_s,
        "tp": steps * (micro_batch.tp_forward_s + micro_batch.tp_backward_s),
        "cp": steps * (micro_batch.cp_forward_s + micro_batch.cp_backward_s),
        "ep": steps * (micro_batch.ep_forward_s + micro_batch.ep_backward_s),
        "pp": exposed_sends(setting, s, sends.send_s, beat),
        "dp": exposed_data(setting, s, gradients, beat),
        "bubble": bubble(blocks, s, beat, host),
        "optimizer": gradients.optimizer_s * float("optimizer" not in setting.job.offload),
        "offload": offload_s(setting, s, micro_batch, beat),
        "launch": steps * beat.waiting_s + framework.step_host,
    }
    step: Numeric = 0.0
    for seconds in time_s.values():
        step = step + seconds
    nodes = np.ceil(s.devices / setting.hardware.cluster.node.devices)
    time_s["straggler"] = step * slowest_of(nodes, framework.straggler)
    step = step + time_s["straggler"]
    return TrainingColumns(
        setting=setting,
        strategies=s,
        time_s=time_s,
        step_time_s=step,
        memory_bound_s=steps * micro_batch.memory_bound_s + time_s["optimizer"],
        memory=memory(blocks, shares, s, setting.job, setting.hardware.accelerator),
        traffic_bytes={
            "tp": steps * busiest(blocks, shares, "tp_bytes", received(s, shares, sends.regather_bytes)),
            "pp": steps * pipeline_axis.sends(s) * sends.send_bytes,
            "dp": reduced.total,
            "cp": steps * busiest(blocks, shares, "cp_bytes", {}),
            "ep": steps * busiest(blocks, shares, "ep_bytes", {}),
        },
        flops_per_device=steps * micro_batch.flops,
        data_bytes=reduced,
        talk=(micro_batch, gradients, sends),
    )


def offload_s(setting: Setting, s: Strategies, stage: Stage, beat: Pace) -> Numeric:
    """Seconds per step that nothing hides of moving what is kept in the host's memory, and of updating it there.

    Activations go in the forward pass and come back in the backward pass, weights come in both; gradients go and
    updated weights come after the last one.
    """
    job, machine = setting.job, setting.hardware
    if not job.offload:
        return 0.0
    moved = stage.saved_bytes * float("activations" in job.offload)
    for which in ("dense", "experts"):
        moved = moved + weight_bytes(stage.share.weights(stage.blocks, which), job) * float("weights" in job.offload)
    forward = exposed_s(transfer_s(machine, moved), beat.forward_s, 0.0)
    backward = exposed_s(transfer_s(machine, moved), beat.backward_s, 0.0)
    updated = sum(
        stage.share.weights(stage.blocks, which).trained * kept
        for which, kept in (("dense", data.kept_fraction(1, s)), ("experts", expert_fraction(1, s)))
    )
    swapped = transfer_s(machine, updated * (job.reduce_bytes + job.numbers.wire))
    update = swapped + node_update_s(machine, updated, s.devices)
    return s.micro_batches * (forward + backward) + update * float("optimizer" in job.offload)


def host_of(setting: Setting) -> Host:
    """What the host takes to launch a kernel and to turn from one micro-batch to the next."""
    kernels, framework = setting.hardware.accelerator.kernels, setting.job.framework
    graphs = framework.compiled if setting.job.graphs is None else setting.job.graphs
    if graphs:
        return Host(kernels.graph_launch, kernels.graph_launch, framework.micro_batch_host)
    python, autograd = framework.kernel_dispatch, framework.kernel_dispatch * framework.backward_dispatch
    return Host(kernels.launch + python, kernels.launch + autograd, framework.micro_batch_host)


def stage_blocks(setting: Setting, s: Strategies) -> StageBlocks:
    """Cost every kind of block once; every stage is a sum of them."""
    plan, machine = model_plan(setting, s), block_machine(setting, s)
    rerun, early = setting.job.rerun, setting.job.framework.early_stop
    layers, transient, stacks = [], [], []
    for segment, kinds in plan.layers():
        rows = kinds[0][0].sizes.residual_tokens
        kept = rows * segment.model.hidden * setting.precision.activation
        costs = [(count, block_cost(ops, machine, s.recompute, kept, rerun, early)) for _, count, ops in kinds]
        layers.append(mean_cost(costs))
        stacks.append(kinds)
        transient.append(transient_bytes([found for found, _, _ in kinds]) * setting.precision.activation)
    return StageBlocks(
        counts=tuple(segment.layers for segment in setting.segments),
        layers=tuple(layers),
        embedding=block_cost(plan.start(), machine),
        head=block_cost(plan.end(), machine),
        tied_parameters=tied_parameters(setting, s),
        loss_bytes=block_ops.loss_workspace_bytes(plan.decoder),
        loss_saved_bytes=block_ops.loss_saved_bytes(plan.decoder),
        events=events(setting, plan, stacks) if setting.job.framework.autograd.weight_gradients else None,
        transient_bytes=tuple(transient),
    )


def block_machine(setting: Setting, s: Strategies) -> Machine:
    """What durations of a block are asked of."""
    framework, net = setting.job.framework, setting.network
    groups = net.axis_groups(s, ("tp", "cp")) | expert_groups(setting, s)
    overlap = (framework.overlap_tensor, framework.overlap_experts)
    return Machine(setting.device, net, groups, framework.interference, *overlap)


def transient_bytes(kinds: list[Plan]) -> Numeric:
    """Elements of activations' gradients alive inside a layer: its output's and those of its widest part."""
    most: Numeric = 0.0
    for plan in kinds:
        model, sizes = plan.model, plan.sizes
        gate = model.gate
        width = sizes.ffn * gate
        if plan.kind.experts:
            routed = model.experts_per_token * plan.s.etp * sizes.expert_ffn * gate / plan.s.tp
            width = sizes.shared_ffn * gate + routed
        most = np.maximum(most, sizes.tokens * (model.hidden + width))
    return most


def slowest_share(blocks: StageBlocks, shares: dict[str, Share], host: Host) -> Share:
    """The stage that takes longest for a micro-batch."""

    def seconds_of(share: Share) -> Numeric:
        return pace(Stage(blocks, share), host).total_s

    slowest, *others = shares.values()
    longest = seconds_of(slowest)
    for share in others:
        seconds = seconds_of(share)
        slowest = slowest.choose(share, seconds > longest)
        longest = np.maximum(seconds, longest)
    return slowest


def busiest(blocks: StageBlocks, shares: dict[str, Share], field: str, extra: dict[str, Numeric]) -> Numeric:
    """The largest value of a block quantity (and what `extra` adds to a stage) over the stages, per micro-batch."""
    most: Numeric = 0.0
    for name, share in shares.items():
        most = np.maximum(most, getattr(Stage(blocks, share), field) + extra.get(name, 0.0))
    return most


def received(s: Strategies, shares: dict[str, Share], regather_bytes: Numeric) -> dict[str, Numeric]:
    """Bytes each stage sends over tp per micro-batch to put its received boundaries together again."""
    return {
        name: (2.0 * s.vpp - np.maximum(share.embedding, share.head)) * regather_bytes for name, share in shares.items()
    }


def bubble(blocks: StageBlocks, s: Strategies, slowest: Pace, host: Host) -> Numeric:
    """Seconds the slowest stage waits while the pipeline fills and drains."""
    whole = pace(Stage(blocks, Share(0.0, tuple(map(float, blocks.counts)), 1.0, 1.0)), host)
    parts = (slowest.forward_s, slowest.backward_s - slowest.weight_s, slowest.weight_s)
    totals = (whole.total_s, whole.weight_s)
    return pipeline.bubble_s(parts, totals, s.pp, s.vpp, s.micro_batches, s.schedule)
