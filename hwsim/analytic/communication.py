"""Collectives that run once per step or per chunk boundary: gradients, weights, tied embeddings, pipeline sends."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from hwsim.analytic.blocks import Machine, Pace
from hwsim.analytic.memory import stage_parameters, stage_shares
from hwsim.analytic.setting import Setting, block_plan, tied_parameters
from hwsim.formulas.collectives import wire_bytes
from hwsim.formulas.training import adam_bytes, exposed_s
from hwsim.formulas.types import Numeric
from hwsim.ops import block as block_ops
from hwsim.ops.axes import data
from hwsim.ops.axes import pipeline as pipeline_axis
from hwsim.ops.operator import total
from hwsim.ops.work import Collective, Stream
from hwsim.specs.job import OPTIMIZER_STATE_BYTES
from hwsim.specs.strategy import Strategies


@dataclass(frozen=True)
class DataTalk:
    """Durations of the collectives of the data-parallel group, of the stage with most parameters, and of its update."""

    all_reduce_s: Numeric
    reduce_scatter_s: Numeric
    replica_s: Numeric
    all_gather_s: Numeric
    tied_s: Numeric
    """Gradients of tied embeddings, between first and last stage."""
    optimizer_s: Numeric


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
    machine = Machine(setting.device, setting.network, setting.network.step_groups(s), 0.0)
    held, _ = stage_held(setting, s)
    most = np.maximum(np.maximum(held[0], held[1]), held[2])
    updated, state = most * data.kept_fraction(1, s), OPTIMIZER_STATE_BYTES[setting.job.optimizer]
    numbers, framework = setting.precision, setting.job.framework
    moved = adam_bytes(updated, framework.gradient_bytes, numbers.master, state, numbers.weight)
    reduce, scatter, replica, gather = data_collectives(setting, s, most)
    return DataTalk(
        all_reduce_s=machine.collective_s(reduce),
        reduce_scatter_s=machine.collective_s(scatter),
        replica_s=machine.collective_s(replica),
        all_gather_s=machine.collective_s(gather),
        tied_s=machine.collective_s(tied_collective(setting, s)),
        optimizer_s=setting.device.seconds(Stream(moved, kind="optimizer")),
    )


def data_collectives(setting: Setting, s: Strategies, held: Numeric) -> tuple[Collective, ...]:
    """All-reduce, reduce-scatter, replica all-reduce and all-gather for a device with `held` parameters."""
    t = data.gradient_traffic(held, setting.job.framework.reduce_bytes, setting.precision.wire, s)
    return (
        Collective("all_reduce", "data", t.all_reduce_bytes),
        Collective("reduce_scatter", "shard", t.reduce_scatter_bytes),
        Collective("all_reduce", "replica", t.replica_bytes),
        Collective("all_gather", "shard", t.all_gather_bytes),
    )


def tied_collective(setting: Setting, s: Strategies) -> Collective:
    """The all-reduce of tied embeddings' gradients, as much of them as a device holds."""
    gradients = tied_parameters(setting, s) * setting.job.framework.reduce_bytes * data.kept_fraction(2, s)
    return Collective("all_reduce", "send", gradients * (s.pp > 1))


def data_bytes(setting: Setting, s: Strategies) -> DataBytes:
    """Bytes per step of the collectives of the data-parallel group, for the stage that sends most."""
    sizes = {"data": s.dp * s.cp, "shard": s.shard, "replica": data.replicas(s), "send": np.minimum(s.pp, 2.0)}
    count = data.rounds(s)
    gathers = count.forward_gathers + count.backward_gathers

    def sent(work: Collective) -> Numeric:
        return wire_bytes(work.kind, work.total_bytes, sizes[work.axis])

    tied = sent(tied_collective(setting, s))
    busiest = DataBytes(0.0, 0.0, 0.0)
    for held, end in zip(*stage_held(setting, s), strict=True):
        reduce, scatter, replica, gather = (sent(work) for work in data_collectives(setting, s, held))
        in_shard = reduce + scatter * count.reduce_scatters + gather * gathers
        busiest = _more(DataBytes(in_shard, replica, tied * end), busiest)
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
    residual = s.micro_batch * s.seq_len / s.cp * setting.model.hidden * setting.precision.activation
    scatters = np.maximum(s.sequence_parallel, float(setting.job.framework.scatter_sends))
    send = Collective("send_recv", "send", pipeline_axis.send_bytes(residual, s, scatters))
    regather = Collective("all_gather", "tp", residual * (scatters - s.sequence_parallel) * (s.pp > 1))
    seconds = machine.collective_s(send) + machine.collective_s(regather)
    return SendTalk(seconds, send.total_bytes, machine.sent_bytes(regather))


def stage_held(setting: Setting, s: Strategies) -> tuple[list[Numeric], list[Numeric]]:
    """Parameters on a device of each stage class, and whether that class holds an end of the model."""
    plan = block_plan(setting, s)
    blocks = [total(part(plan), "parameters") for part in (block_ops.layer, block_ops.embedding, block_ops.head)]
    shares = stage_shares(setting.model.layers, s).values()
    tied = tied_parameters(setting, s)
    return [stage_parameters(share, blocks, tied) for share in shares], [
        np.maximum(share.embedding, share.head) for share in shares
    ]


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
    first_gather = streaming * talk.all_gather_s / np.maximum(setting.model.layers / s.pp, 1.0)
    each = talk.reduce_scatter_s + talk.all_gather_s * streaming
    last = exposed_s(talk.all_reduce_s + talk.replica_s + each, beside_backward, framework.interference)
    earlier = np.maximum(count.reduce_scatters - 1.0, 0.0) * exposed_s(each, beside_backward, framework.interference)
    forward = exposed_s(talk.all_gather_s, beside_forward, framework.interference) + first_gather
    return last + earlier + count.forward_gathers * forward + talk.tied_s
