"""Tensor parallelism (TP), with sequence parallelism (SP) of the regions between.

Divides heads, ffn and vocab by tp; with SP also the sequence of norms, dropouts and residuals. Column-parallel layers open
a tensor-parallel region and row-parallel layers close it: an all-reduce each way without SP, an all-gather and a
reduce-scatter with it (Korthikanti et al., 2022, figures 4 and 5).
"""

from __future__ import annotations

import numpy as np

from hwsim.formulas.types import Numeric
from hwsim.ops.work import Collective
from hwsim.specs.model import Model
from hwsim.specs.strategy import Strategies


def residual_seq(seq: Numeric, s: Strategies) -> Numeric:
    """Tokens per sequence in the norm and residual regions."""
    return seq / np.where(s.sequence_parallel > 0, s.tp, 1.0)


def local_kv_heads(kv_heads: int, s: Strategies) -> Numeric:
    """Key/value heads on one device: copied where tp exceeds them."""
    return np.maximum(kv_heads / s.tp, 1.0)


def local_vocab(vocab: int, s: Strategies) -> Numeric:
    """Rows of the embedding on one device, rounded up."""
    return np.ceil(vocab / s.tp)


def enter(payload_bytes: Numeric, s: Strategies) -> tuple[tuple[Collective, ...], tuple[Collective, ...]]:
    """Open a region: forward and backward collectives over tp.

    With SP the input is gathered forward, and again backward for the weight gradient (hidden behind the input-gradient
    multiply, as Megatron does), and its gradient is reduce-scattered; without, the gradient is all-reduced.
    """
    sharded, whole = payload_bytes * s.sequence_parallel, payload_bytes * (1.0 - s.sequence_parallel)
    forward = (Collective("all_gather", "tp", sharded),)
    backward = (
        Collective("all_gather", "tp", sharded, hidden=True),
        Collective("reduce_scatter", "tp", sharded),
        Collective("all_reduce", "tp", whole),
    )
    return forward, backward


def leave(payload_bytes: Numeric, s: Strategies) -> tuple[tuple[Collective, ...], tuple[Collective, ...]]:
    """Close a region: reduce-scatter (SP) or all-reduce forward, all-gather (SP) or nothing backward."""
    sharded, whole = payload_bytes * s.sequence_parallel, payload_bytes * (1.0 - s.sequence_parallel)
    forward = (Collective("reduce_scatter", "tp", sharded), Collective("all_reduce", "tp", whole))
    return forward, (Collective("all_gather", "tp", sharded),)


def illegal(model: Model, s: Strategies) -> dict[str, Numeric]:
    """Reasons against a strategy, as masks."""
    kv_fits = np.where(s.tp <= model.kv_heads, np.mod(model.kv_heads, s.tp), np.mod(s.tp, model.kv_heads)) == 0
    divides = (np.mod(model.heads, s.tp) == 0) & (np.mod(model.ffn, s.tp) == 0)
    tokens = np.mod(s.seq_len, s.cp * s.tp) == 0
    return {
        "tp does not divide heads and ffn": ~divides,
        "tp does not fit the kv heads": ~kv_fits,
        "sequence parallelism needs tp > 1": (s.sequence_parallel > 0) & (s.tp == 1),
        "tp does not divide the sequence (sequence parallelism)": (s.sequence_parallel > 0) & ~tokens,
    }
