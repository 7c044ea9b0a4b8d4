"""Data parallelism (DP), plain or sharded: ZeRO 1-3, FSDP (ZeRO 3), HSDP (a shard group smaller than dp x cp).

Divides the batch by dp. Gradients are reduced over the dp x cp devices that hold the same weights; ZeRO keeps optimizer
state (1), gradients (2) and weights (3) in `shard` pieces. With gradient accumulation, ZeRO 1 reduces once per step;
ZeRO 2 and 3 reduce every micro-batch, since nobody holds a whole gradient buffer; ZeRO 3 gathers the weights of every
micro-batch forward and backward. Pipelines run many micro-batches at a time: with one, ZeRO 2 too accumulates whole
gradients and reduces once per step.

References: S. Rajbhandari et al., "ZeRO", SC'20; Y. Zhao et al., "PyTorch FSDP", VLDB 2023.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hwsim.formulas.types import Numeric
from hwsim.specs.strategy import Strategies


@dataclass(frozen=True)
class DataTraffic:
    """Payloads of the collectives that one device takes part in (nccl-tests sizes)."""

    all_reduce_bytes: Numeric
    """Whole gradients over the data group, once per step (ZeRO 0)."""
    reduce_scatter_bytes: Numeric
    """Gradients over the shard group."""
    replica_bytes: Numeric
    """Gradient shards over the replicas of a shard group, once per step (HSDP)."""
    all_gather_bytes: Numeric
    """Weights over the shard group."""


@dataclass(frozen=True)
class Rounds:
    """How often each collective of the shard group runs per step."""

    reduce_scatters: Numeric
    forward_gathers: Numeric
    backward_gathers: Numeric


def replicas(s: Strategies) -> Numeric:
    """Copies of every shard."""
    return s.dp * s.cp / s.shard


def gradient_traffic(
    gradient_bytes: Numeric, weight_bytes: Numeric, shard: Numeric, others: Numeric, s: Strategies
) -> DataTraffic:
    """Payloads for the gradients to be summed and the weights to be gathered of one device.

    `shard` and `others`: devices that share one copy of the state, and copies of it.
    """
    sharded = np.where(s.zero > 0, 1.0, 0.0)
    return DataTraffic(
        all_reduce_bytes=gradient_bytes * (1.0 - sharded),
        reduce_scatter_bytes=gradient_bytes * sharded,
        replica_bytes=np.where(others > 1, gradient_bytes / shard * sharded, 0.0),
        all_gather_bytes=weight_bytes * sharded,
    )


def rounds(s: Strategies) -> Rounds:
    """Once per step for ZeRO 1, once per micro-batch where nobody holds a whole buffer."""
    sharded = np.where(s.zero > 0, 1.0, 0.0)
    return Rounds(
        reduce_scatters=np.where(scatters_always(s), s.micro_batches, sharded),
        forward_gathers=np.where(s.zero >= 3, s.micro_batches, sharded),
        backward_gathers=np.where(s.zero >= 3, s.micro_batches, 0.0),
    )


def scatters_always(s: Strategies) -> Numeric:
    """Whether gradients are scattered every micro-batch, so that no device holds them whole."""
    return (s.zero >= 3) | ((s.zero == 2) & (s.pp == 1))


def kept_fraction(stage: int, s: Strategies) -> Numeric:
    """Share of weights (stage 3), gradients (2) or optimizer state (1) that one device keeps."""
    return np.where(is_sharded(stage, s), 1.0 / s.shard, 1.0)


def is_sharded(stage: int, s: Strategies) -> Numeric:
    """Whether weights (stage 3), gradients (2) or optimizer state (1) are sharded."""
    return scatters_always(s) if stage == 2 else s.zero >= stage


def illegal(s: Strategies) -> dict[str, Numeric]:
    """Reasons against a strategy, as masks."""
    ranks = s.tp * s.pp * s.cp * s.dp
    data = s.dp * s.cp
    return {
        "tp x pp x cp x dp is not the number of devices": ranks != s.devices,
        "global batch does not split into dp x micro-batch": np.mod(s.global_batch, s.dp * s.micro_batch) != 0,
        "shard group does not divide dp x cp": (s.zero > 0) & ((np.mod(data, s.shard) != 0) | (s.shard > data)),
    }
