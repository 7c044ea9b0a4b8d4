"""One training step of every strategy: time by part, memory, traffic, utilisation.

All columns at once, each term at the shape of the columns it depends on; the same code serves one strategy, a table
and an open grid of them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from hwsim.analytic.blocks import Host, Machine, Pace, block_cost, pace
from hwsim.analytic.communication import (
    DataBytes,
    DataTalk,
    SendTalk,
    data_bytes,
    data_talk,
    exposed_data,
    exposed_sends,
    send_talk,
)
from hwsim.analytic.distinct import per_distinct
from hwsim.analytic.memory import Memory, Share, Stage, StageBlocks, memory, stage_shares
from hwsim.analytic.setting import Setting, block_plan, tied_parameters
from hwsim.costs.energy import energy_j
from hwsim.costs.money import cost_usd
from hwsim.costs.network import axis_stride
from hwsim.formulas import pipeline
from hwsim.formulas.stragglers import slowest_of
from hwsim.formulas.training import model_flops
from hwsim.formulas.types import Numeric
from hwsim.ops import block as block_ops
from hwsim.ops.axes import context, data, tensor
from hwsim.ops.axes import pipeline as pipeline_axis
from hwsim.specs.model import Model
from hwsim.specs.strategy import Strategies

TIME_PARTS = ("forward", "backward", "recompute", "tp", "cp", "pp", "dp", "bubble", "optimizer", "launch", "straggler")
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
        model, s = self.setting.model, self.strategies
        width, counts = model.heads * model.head_dim, self.setting.parameters
        return model_flops(counts.matmul, s.global_batch * s.seq_len, model.layers, width, s.seq_len)

    @property
    def recomputed_flops(self) -> Numeric:
        """Counted the same way, what recompute adds."""
        model, s, rerun = self.setting.model, self.strategies, self.setting.job.rerun
        tokens, counts = s.global_batch * s.seq_len, self.setting.parameters
        attention = 4.0 * model.layers * model.heads * model.head_dim * s.seq_len * tokens
        head = 1.0 * model.vocab * (model.embedding_dim or model.hidden)
        everything = 2.0 * (counts.matmul - head) * tokens + attention
        again = {name: operator.again for name, operator in rerun.items()}
        weights = sum(again.get(name, 0.0) * size for name, size in self.setting.multiplies.items())
        chosen = 2.0 * model.layers * weights * tokens + again.get("attention", 0.0) * attention
        return np.where(s.recompute == 2, everything, np.where(s.recompute == 1, chosen, 0.0))

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
        gathers = count.forward_gathers + count.backward_gathers
        once = gradients.all_reduce_s + gradients.replica_s + gradients.tied_s
        boundaries = 2.0 * (steps * self.strategies.vpp + self.strategies.pp - 1.0)
        return {
            "tp": steps * stage.tp_busy_s,
            "cp": steps * stage.cp_busy_s,
            "pp": boundaries * sends.send_s,
            "dp": once + gradients.reduce_scatter_s * count.reduce_scatters + gradients.all_gather_s * gathers,
        }

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
        net, s, dp = self.setting.network, self.strategies, self.data_bytes
        groups = net.step_groups(s)
        data_group, shard = np.where(s.zero > 0, 0.0, dp.shard), np.where(s.zero > 0, dp.shard, 0.0)
        parts = [(self.traffic_bytes["pp"], net.line_shares(groups["pp"], s.vpp))]
        sent = {"tp": self.traffic_bytes["tp"], "cp": self.traffic_bytes["cp"], "data": data_group, "shard": shard}
        sent |= {"replica": dp.replica, "send": dp.tied}
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
    data_keys = (s.tp, s.cp, s.dp, s.pp, s.vpp, s.order, s.zero, s.shard)
    gradients = per_distinct(lambda rows: data_talk(setting, rows), s, data_keys)
    reduced = data_bytes(setting, s)
    send_keys = (s.tp, s.cp, s.dp, s.pp, s.order, s.micro_batch, s.seq_len, s.sequence_parallel)
    sends = per_distinct(lambda rows: send_talk(setting, rows), s, send_keys)
    shares = stage_shares(setting.model.layers, s)
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
        "pp": exposed_sends(setting, s, sends.send_s, beat),
        "dp": exposed_data(setting, s, gradients, beat),
        "bubble": bubble(blocks, s, beat, host),
        "optimizer": gradients.optimizer_s,
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
        memory_bound_s=steps * micro_batch.memory_bound_s + gradients.optimizer_s,
        memory=memory(blocks, shares, s, setting.job, setting.hardware.accelerator),
        traffic_bytes={
            "tp": steps * busiest(blocks, shares, "tp_bytes", received(s, shares, sends.regather_bytes)),
            "pp": steps * pipeline_axis.sends(s) * sends.send_bytes,
            "dp": reduced.total,
            "cp": steps * busiest(blocks, shares, "cp_bytes", {}),
            "ep": np.zeros_like(steps),
        },
        flops_per_device=steps * micro_batch.flops,
        data_bytes=reduced,
        talk=(micro_batch, gradients, sends),
    )


def host_of(setting: Setting) -> Host:
    """What the host takes to launch a kernel and to turn from one micro-batch to the next."""
    kernels, framework = setting.hardware.accelerator.kernels, setting.job.framework
    graphs = framework.compiled if setting.job.graphs is None else setting.job.graphs
    if graphs:
        return Host(kernels.graph_launch, kernels.graph_launch, framework.micro_batch_host)
    python, autograd = framework.kernel_dispatch, framework.kernel_dispatch * framework.backward_dispatch
    return Host(kernels.launch + python, kernels.launch + autograd, framework.micro_batch_host)


def stage_blocks(setting: Setting, s: Strategies) -> StageBlocks:
    """Cost the three kinds of block once; every stage is a sum of them."""
    groups = setting.network.axis_groups(s, ("tp", "cp"))
    plan, habits = block_plan(setting, s), setting.job.framework
    machine = Machine(setting.device, setting.network, groups, habits.interference, habits.overlap_tensor)
    kept = plan.sizes.residual_tokens * setting.model.hidden * setting.precision.activation
    columns = plan.sizes.ffn * (2.0 if setting.model.gated else 1.0)
    return StageBlocks(
        layers=setting.model.layers,
        layer=block_cost(block_ops.layer(plan), machine, s.recompute, kept, setting.job.rerun, habits.early_stop),
        embedding=block_cost(block_ops.embedding(plan), machine),
        head=block_cost(block_ops.head(plan), machine),
        tied_parameters=tied_parameters(setting, s),
        loss_bytes=block_ops.loss_workspace_bytes(plan),
        transient_bytes=plan.sizes.tokens * (setting.model.hidden + columns) * setting.precision.activation,
    )


def slowest_share(blocks: StageBlocks, shares: dict[str, Share], host: Host) -> Share:
    """The stage that takes longest for a micro-batch."""

    def seconds_of(share: Share) -> Numeric:
        return pace(Stage(blocks, share), host).total_s

    slowest = shares["first"]
    longest = seconds_of(slowest)
    for share in (shares["middle"], shares["last"]):
        seconds = seconds_of(share)
        later = seconds > longest
        slowest = Share(*(np.where(later, getattr(share, f.name), getattr(slowest, f.name)) for f in fields(Share)))
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
    whole = pace(Stage(blocks, Share(0.0, blocks.layers, 1.0, 1.0)), host)
    parts = (slowest.forward_s, slowest.backward_s - slowest.weight_s, slowest.weight_s)
    totals = (whole.total_s, whole.weight_s)
    return pipeline.bubble_s(parts, totals, s.pp, s.vpp, s.micro_batches, s.schedule)
