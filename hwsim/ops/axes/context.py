"""Context parallelism (CP): each device holds 1/cp of every sequence.

Divides seq by cp. Queries stay, keys and values travel round a ring behind the attention of the chunk in hand;
backward their gradients travel with them. Causal work is balanced by giving each device an early and a late chunk, so
the sequence must divide by 2 cp.

References: H. Liu et al., "Ring Attention with Blockwise Transformers", 2023; Megatron-Core context parallelism.
"""

from __future__ import annotations

import numpy as np

from hwsim.formulas.types import Numeric
from hwsim.ops.work import Collective
from hwsim.specs.strategy import Strategies


def local_seq(s: Strategies) -> Numeric:
    """Tokens of a sequence on one device."""
    return s.seq_len / s.cp


def exchange(whole_kv_bytes: Numeric) -> tuple[tuple[Collective, ...], tuple[Collective, ...]]:
    """Rotate keys and values: an all-gather's bytes forward, twice that backward (with their gradients)."""
    forward = (Collective("all_gather", "cp", whole_kv_bytes, hidden=True),)
    backward = (
        Collective("all_gather", "cp", whole_kv_bytes, hidden=True),
        Collective("reduce_scatter", "cp", whole_kv_bytes, hidden=True),
    )
    return forward, backward


def illegal(s: Strategies) -> dict[str, Numeric]:
    """Reasons against a strategy, as masks."""
    return {"cp does not divide the sequence into 2 cp chunks": (s.cp > 1) & (np.mod(s.seq_len, 2.0 * s.cp) != 0)}
