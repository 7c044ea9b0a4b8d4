"""Collectives that run once per step or per chunk boundary: gradients, weights, tied embeddings, pipeline sends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from hwsim.analytic.blocks import Machine, Pace, Weights, block_weights, mean_cost
from hwsim.analytic.memory import Share, StageBlocks, expert_fraction, gathered_bytes, stage_shares
from hwsim.analytic.setting import Setting, model_plan, tied_parameters
from hwsim.costs.network import Group
from hwsim.formulas.collectives import wire_bytes
from hwsim.formulas.training import adam_bytes, exposed_s
from hwsim.formulas.types import Numeric
from hwsim.ops.axes import data, expert
from hwsim.ops.axes import pipeline as pipeline_axis
from hwsim.ops.work import Collective, Gemm, Stream
from hwsim.specs.strategy import Strategies


@dataclass(frozen=True)
class DataTalk:
    """Durations of the collectives of the data-parallel group, of the stage with most parameters, and of its update."""

    all_reduce_s: Numeric
    reduce_scatter_s: Numeric
    replica_s: Numeric
    all_gather_s: Numeric
    again_s: Numeric
    """Gathering weights for the backward pass."""
    tied_s: Numeric
    """Gradients of tied embeddings, between first and last stage."""
    optimizer_s: Numeric


@dataclass(frozen=True)
class Held:
    """Weights on a device of one stage, before ZeRO."""

    dense: Weights
    experts: Weights
    again: Weights
    """Dense ones that ZeRO 3 gathers a second time, for the backward pass."""
    end: Numeric
    """1 where the stage has an end of the model, else 0."""


@dataclass(frozen=True)
class DataBytes:
    """Sent per step by a device of the busiest stage."""

    shard: Numeric
    """Inside the shard group (the whole data group where nothing is sharded)."""
    replica: Numeric
    """Between replicas of a shard."""
    tied: Numeric
    """Between first and last stage."""

    @property
    def total(self) -> Numeric:
        """All of it."""
        return self.shard + self.replica + self.tied


def data_talk(setting: Setting, s: Strategies) -> DataTalk:
    """Cost the collectives of the data-parallel group and the weight update."""
    groups = setting.network.step_groups(s) | expert_groups(setting, s)
    machine = Machine(setting.device, setting.network, groups, 0.0)
    held = stage_held(setting, s)
    dense, again = (_most([getattr(stage, name) for stage in held]) for name in ("dense", "again"))
    seconds = _collective_s(machine, data_collectives(setting, s, dense, again))
    updated = dense.times(data.kept_fraction(1, s))
    if setting.model.experts:
        routed = _most([stage.experts for stage in held])
        apart = _collective_s(machine, expert_collectives(setting, s, routed))
        seconds = [a + b for a, b in zip(seconds, apart, strict=True)]
        updated = updated + routed.times(expert_fraction(1, s))
    reduce, scatter, replica, gather, again_s = seconds
    tied_s = machine.collective_s(tied_collective(setting, s))
    return DataTalk(reduce, scatter, replica, gather, again_s, tied_s, update_s(setting, updated))


def expert_groups(setting: Setting, s: Strategies) -> dict[str, Group]:
    """The groups of experts on the network; none for a dense model."""
    if not setting.model.experts:
        return {}
    return setting.network.expert_groups(s, expert.copies(s), expert.shard(s))


def _collective_s(machine: Machine, works: Sequence[Collective]) -> list[Numeric]:
    return [machine.collective_s(work) for work in works]


def _most(held: Sequence[Weights]) -> Weights:
    """The largest of each count over the stages."""
    most = held[0]
    for weights in held[1:]:
        most = Weights(**{f.name: np.maximum(getattr(most, f.name), getattr(weights, f.name)) for f in fields(Weights)})
    return most


def update_s(setting: Setting, updated: Weights) -> Numeric:
    """Seconds of the optimizer's step for the weights that one device updates.

    Muon multiplies each matrix with itself: five rounds of three multiplies, 6 h FLOPs per weight and round on matrices
    of width h (Jordan et al., "Muon", 2024).
    """
    numbers, state = setting.precision, setting.job.optimizer_state
    gradient = setting.job.gradient_bytes
    others = updated.trained - updated.matrices
    moved = adam_bytes(updated.matrices, gradient, numbers.master, state.matrix, numbers.weight)
    moved = moved + adam_bytes(others, gradient, numbers.master, state.other, numbers.weight)
    seconds = setting.device.seconds(Stream(moved, kind="optimizer"))
    if not state.orthogonalises:
        return seconds
    width = float(setting.model.hidden)
    rounds = Gemm(width, width, width, 15.0 * updated.matrices / width**2)
    return seconds + setting.device.seconds(rounds)


def _traffic(
    setting: Setting, s: Strategies, held: Weights, shard: Numeric, others: Numeric
) -> tuple[Numeric, Numeric, Numeric, Numeric]:
    """Payloads of all-reduce, reduce-scatter, replica all-reduce and all-gather for some weights of one device."""
    job = setting.job
    gathered = np.where(s.zero >= 3, gathered_bytes(held, job), held.trained * job.numbers.wire)
    t = data.gradient_traffic(held.trained * job.reduce_bytes, gathered, shard, others, s)
    return t.all_reduce_bytes, t.reduce_scatter_bytes, t.replica_bytes, t.all_gather_bytes


def data_collectives(setting: Setting, s: Strategies, held: Weights, again: Weights) -> tuple[Collective, ...]:
    """All-reduce, reduce-scatter, replica all-reduce and all-gathers for a device with the dense weights `held`.

    The last one gathers for the backward pass, `again` alone.
    """
    reduce, scatter, replica, gather = _traffic(setting, s, held, s.shard, data.replicas(s))
    return (
        Collective("all_reduce", "data", reduce),
        Collective("reduce_scatter", "shard", scatter),
        Collective("all_reduce", "replica", replica),
        Collective("all_gather", "shard", gather),
        Collective("all_gather", "shard", np.where(s.zero >= 3, gathered_bytes(again, setting.job), 0.0)),
    )


def expert_collectives(setting: Setting, s: Strategies, held: Weights) -> tuple[Collective, ...]:
    """The same for experts, among the devices that hold the same ones."""
    shard = expert.shard(s)
    reduce, scatter, replica, gather = _traffic(setting, s, held, shard, expert.copies(s) / shard)
    return (
        Collective("all_reduce", "expert data", reduce),
        Collective("reduce_scatter", "expert shard", scatter),
        Collective("all_reduce", "expert replica", replica),
        Collective("all_gather", "expert shard", gather),
        Collective("all_gather", "expert shard", np.where(s.zero >= 3, gather, 0.0)),
    )


def tied_collective(setting: Setting, s: Strategies) -> Collective:
    """The all-reduce of tied embeddings' gradients, as much of them as a device holds."""
    gradients = tied_parameters(setting, s) * setting.job.reduce_bytes * data.kept_fraction(2, s)
    return Collective("all_reduce", "send", gradients * (s.pp > 1))


def data_sizes(setting: Setting, s: Strategies) -> dict[str, Numeric]:
    """Members of every group that talks once per step."""
    two = np.minimum(s.pp, 2.0)
    sizes: dict[str, Numeric] = {"data": s.dp * s.cp, "shard": s.shard, "replica": data.replicas(s), "send": two}
    if setting.model.experts:
        sizes |= {"expert data": expert.copies(s), "expert shard": expert.shard(s)}
        sizes["expert replica"] = sizes["expert data"] / sizes["expert shard"]
    return sizes


def data_bytes(setting: Setting, s: Strategies) -> DataBytes:
    """Bytes per step of the collectives of the data-parallel group, for the stage that sends most."""
    sizes, count = data_sizes(setting, s), data.rounds(s)

    def sent(work: Collective) -> Numeric:
        return wire_bytes(work.kind, work.total_bytes, sizes[work.axis])

    def of_group(works: Sequence[Collective]) -> tuple[Numeric, Numeric]:
        reduce, scatter, replica, gather, again = (sent(work) for work in works)
        gathers = gather * count.forward_gathers + again * count.backward_gathers
        return reduce + scatter * count.reduce_scatters + gathers, replica

    tied = sent(tied_collective(setting, s))
    busiest = DataBytes(0.0, 0.0, 0.0)
    for stage in stage_held(setting, s):
        in_shard, replica = of_group(data_collectives(setting, s, stage.dense, stage.again))
        apart: tuple[Numeric, Numeric] = (0.0, 0.0)
        if setting.model.experts:
            apart = of_group(expert_collectives(setting, s, stage.experts))
        busiest = _more(DataBytes(in_shard + apart[0], replica + apart[1], tied * stage.end), busiest)
    return busiest


def _more(a: DataBytes, b: DataBytes) -> DataBytes:
    """The larger of two, row by row."""
    larger = a.total > b.total
    return DataBytes(*(np.where(larger, getattr(a, f.name), getattr(b, f.name)) for f in fields(DataBytes)))


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
    send, regather = boundary_collectives(setting, s)
    seconds = machine.collective_s(send) + machine.collective_s(regather)
    return SendTalk(seconds, send.total_bytes, machine.sent_bytes(regather))


def boundary_collectives(setting: Setting, s: Strategies) -> tuple[Collective, Collective]:
    """What hands one micro-batch over one chunk boundary: the send, and the all-gather on arrival."""
    source = s.seq_len if setting.job.source_len is None else float(setting.job.source_len)
    tokens = s.seq_len + source if setting.model.encoder else s.seq_len
    residual = s.micro_batch * tokens / s.cp * setting.model.hidden * setting.precision.activation
    scatters = np.maximum(s.sequence_parallel, float(setting.job.framework.scatter_sends))
    send = Collective("send_recv", "send", pipeline_axis.send_bytes(residual, s, scatters))
    return send, Collective("all_gather", "tp", residual * (scatters - s.sequence_parallel) * (s.pp > 1))


def stage_held(setting: Setting, s: Strategies) -> list[Held]:
    """What a device of each stage class holds."""
    blocks = weight_blocks(setting, s)
    return [held_by(setting, blocks, share) for share in stage_shares(setting.segments, s).values()]


def held_by(setting: Setting, blocks: StageBlocks, share: Share) -> Held:
    """What a device of one stage holds."""
    dense = share.weights(blocks, "dense")
    again = share.inner.weights(blocks, "dense") if setting.job.framework.keeps_ends else dense
    return Held(dense, share.weights(blocks, "experts"), again, np.maximum(share.embedding, share.head))


def weight_blocks(setting: Setting, s: Strategies) -> StageBlocks:
    """The blocks of a stage with their weights alone."""
    plan = model_plan(setting, s)
    kinds = [[(count, block_weights(ops)) for _, count, ops in found] for _, found in plan.layers()]
    return StageBlocks(
        counts=tuple(segment.layers for segment in setting.segments),
        layers=tuple(mean_cost(found) for found in kinds),
        embedding=block_weights(plan.start()),
        head=block_weights(plan.end()),
        tied_parameters=tied_parameters(setting, s),
        loss_bytes=0.0,
        transient_bytes=tuple(0.0 for _ in kinds),
    )


def exposed_sends(setting: Setting, s: Strategies, send_s: Numeric, beat: Pace) -> Numeric:
    """Seconds per step of stage-to-stage sends that nothing hides.

    One send each way per chunk and micro-batch; interleaved schedules run them beside the next chunk where the
    framework overlaps them. Filling and draining hides none.
    """
    framework = setting.job.framework
    beside = np.where(framework.overlap_pipeline & (s.vpp > 1), 1.0, 0.0) / s.vpp
    forward = exposed_s(send_s, beside * beat.forward_s, framework.interference)
    backward = exposed_s(send_s, beside * beat.backward_s, framework.interference)
    return s.micro_batches * s.vpp * (forward + backward) + 2.0 * (s.pp - 1.0) * send_s


def exposed_data(setting: Setting, s: Strategies, talk: DataTalk, beat: Pace) -> Numeric:
    """Exposed seconds per step of reducing gradients and gathering weights.

    What runs beside the last backward pass (the whole reduction, or the last reduce-scatter and the replicas'
    all-reduce) shares that one pass; earlier reduce-scatters and every gather have a pass of their own.
    """
    framework, count = setting.job.framework, data.rounds(s)
    beside_forward = beat.forward_s * float(framework.overlap_parameters)
    beside_backward = beat.backward_s * float(framework.overlap_gradients)
    streaming = np.where(s.zero >= 3, 1.0, 0.0)
    first_gather = streaming * talk.all_gather_s / np.maximum(setting.layers / s.pp, 1.0)
    each = talk.reduce_scatter_s + talk.again_s * streaming
    last = exposed_s(talk.all_reduce_s + talk.replica_s + each, beside_backward, framework.interference)
    earlier = np.maximum(count.reduce_scatters - 1.0, 0.0) * exposed_s(each, beside_backward, framework.interference)
    forward = exposed_s(talk.all_gather_s, beside_forward, framework.interference) + first_gather
    return last + earlier + count.forward_gathers * forward + talk.tied_s
