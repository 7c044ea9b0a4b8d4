"""Tensor parallelism (TP), with sequence parallelism (SP) of the regions between.

Divides heads, ffn and vocab by tp; with SP also the sequence of norms, dropouts and residuals. Column-parallel layers
open a tensor-parallel region and row-parallel layers close it: an all-reduce each way without SP, an all-gather and a
reduce-scatter with it (Korthikanti et al., 2022, figures 4 and 5).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import numpy as np

from hwsim.formulas.types import Numeric
from hwsim.ops.work import Collective
from hwsim.specs.model import Model
from hwsim.specs.strategy import Strategies

Collectives = tuple[tuple[Collective, ...], tuple[Collective, ...]]


def residual_seq(seq: Numeric, s: Strategies) -> Numeric:
    """Tokens per sequence in the norm and residual regions."""
    return seq / np.where(s.sequence_parallel > 0, s.tp, 1.0)


def local_kv_heads(kv_heads: int, s: Strategies) -> Numeric:
    """Key/value heads on one device: copied where tp exceeds them."""
    return np.maximum(kv_heads / s.tp, 1.0)


def local_vocab(vocab: int, s: Strategies) -> Numeric:
    """Rows of the embedding on one device, rounded up."""
    return np.ceil(vocab / s.tp)


@dataclass(frozen=True)
class Boundary:
    """The collectives at the edges of a tensor-parallel region, for one payload."""

    gathered_bytes: Numeric
    """The whole residual stream where sequence parallelism splits it, else 0, in the format it is gathered in."""
    scattered_bytes: Numeric
    """The same in the format it is summed in."""
    whole_bytes: Numeric
    """The residual stream where sequence parallelism does not split it, else 0."""
    again_bytes: Numeric
    """What is gathered a second time, backward: as much as forward, or 0 where that was saved."""

    @property
    def enter(self) -> Collectives:
        """Open a region, forward and backward.

        With SP the input is gathered forward, and again backward for the weight gradient (hidden behind the
        input-gradient multiply, as Megatron does; DTensor saves it whole instead), and its gradient is
        reduce-scattered; without, it is all-reduced.
        """
        forward = (Collective("all_gather", "tp", self.gathered_bytes),)
        backward = (
            Collective("all_gather", "tp", self.again_bytes, hidden=True),
            Collective("reduce_scatter", "tp", self.scattered_bytes),
            Collective("all_reduce", "tp", self.whole_bytes),
        )
        return forward, backward

    @property
    def leave(self) -> Collectives:
        """Close a region: reduce-scatter (SP) or all-reduce forward, all-gather (SP) or nothing backward."""
        forward = (
            Collective("reduce_scatter", "tp", self.scattered_bytes),
            Collective("all_reduce", "tp", self.whole_bytes),
        )
        return forward, (Collective("all_gather", "tp", self.gathered_bytes),)


def boundary(elements: Numeric, gathered: float, summed: float, s: Strategies, again: bool = True) -> Boundary:
    """Split a residual stream by whether sequence parallelism is on.

    `gathered` and `summed` are the bytes of an element when it is gathered and when it is summed; `again`: what is
    gathered forward is not saved.
    """
    sharded = elements * s.sequence_parallel
    whole = elements * (1.0 - s.sequence_parallel) * summed
    return Boundary(sharded * gathered, sharded * summed, whole, sharded * gathered * float(again))


def divided_widths(model: Model) -> tuple[int, ...]:
    """Widths of a stack that tp divides: query heads, the MLP of dense layers, shared experts."""
    mixed = model.layers - model.dense_layers if model.expert_layers is None else model.expert_layers
    dense = model.experts == 0 or mixed < model.layers
    return (model.heads, *((model.ffn,) if dense else ()), *((model.shared_ffn,) if model.shared_ffn else ()))


def illegal(model: Model, s: Strategies) -> dict[str, Numeric]:
    """Reasons against a strategy, as masks."""
    kv_fits = np.where(s.tp <= model.kv_heads, np.mod(model.kv_heads, s.tp), np.mod(s.tp, model.kv_heads)) == 0
    divides = np.equal(np.mod(gcd(*divided_widths(model)), s.tp), 0)
    tokens = np.mod(s.seq_len, s.cp * s.tp) == 0
    return {
        "tp does not divide heads and ffn": ~divides,
        "tp does not fit the kv heads": ~kv_fits,
        "tp does not divide the sequence (sequence parallelism)": (s.sequence_parallel > 0) & ~tokens,
    }
