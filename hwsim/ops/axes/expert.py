"""Expert parallelism (EP), with tensor parallelism inside each expert (ETP).

Divides experts by ep and their inner width by etp. The devices of a pipeline stage are dealt out anew for the
experts: etp nearest, then ep, and copies of the experts over the rest (Megatron-Core's parallel folding); ep lies
inside dp where tp and cp are 1. Tokens travel to their experts and back by all-to-all over ep.

References: D. Lepikhin et al., "GShard", ICLR 2021; D. Liu et al., "MoE Parallel Folding", 2025.
"""

from __future__ import annotations

import numpy as np

from hwsim.formulas.types import Numeric
from hwsim.ops.work import Collective
from hwsim.specs.model import Model
from hwsim.specs.strategy import Strategies

Exchange = tuple[Collective, ...]


def copies(s: Strategies) -> Numeric:
    """Devices that hold the same part of the same experts."""
    return s.tp * s.cp * s.dp / (s.ep * s.etp)


def shard(s: Strategies) -> Numeric:
    """Devices over which ZeRO shards an expert: as many of its copies as the shard group of other weights spans."""
    return np.maximum(np.minimum(s.shard * s.tp / (s.ep * s.etp), copies(s)), 1.0)


def destinations(model: Model, domain: float, s: Strategies) -> Numeric:
    """Copies of a token's row that are sent: one per expert, or one per domain of devices that holds any of them.

    `domain`: devices that pass rows on among themselves (a node, for DeepEP), 0 where nobody does. Experts are drawn
    evenly: of n domains a token needs ``n (1 - (1 - 1/n)^k)`` on average.
    """
    if not domain:
        return float(model.experts_per_token) * np.ones_like(s.ep)
    nodes = s.ep * s.etp / domain
    spans = np.where(nodes > 1, nodes, s.ep)
    drawn = spans * (1.0 - (1.0 - 1.0 / spans) ** model.experts_per_token)
    return np.where(nodes > 1, np.minimum(drawn, model.routed_nodes or np.inf), drawn)


def dispatch(row_bytes: Numeric, gathered_bytes: Numeric, s: Strategies) -> Exchange:
    """Rows to the devices of their experts, then to all that share an expert."""
    return (
        Collective("all_to_all", "ep", row_bytes * (s.ep > 1)),
        Collective("all_gather", "etp", gathered_bytes * (s.etp > 1)),
    )


def combine(row_bytes: Numeric, gathered_bytes: Numeric, s: Strategies) -> Exchange:
    """The way back."""
    return (
        Collective("reduce_scatter", "etp", gathered_bytes * (s.etp > 1)),
        Collective("all_to_all", "ep", row_bytes * (s.ep > 1)),
    )


def illegal(model: Model, s: Strategies) -> dict[str, Numeric]:
    """Reasons against a strategy, as masks."""
    spread = (s.ep > 1) | (s.etp > 1)
    experts, width = max(model.experts, 1), max(model.expert_ffn, 1)
    return {
        "ep needs a mixture-of-experts model": spread & (model.experts == 0),
        "ep does not divide the experts": (model.experts > 0) & (np.mod(experts, s.ep) != 0),
        "etp does not divide the expert's ffn": (model.experts > 0) & (np.mod(width, s.etp) != 0),
        "ep x etp does not divide tp x cp x dp": spread & (np.mod(s.tp * s.cp * s.dp, s.ep * s.etp) != 0),
        "experts with tp need sequence parallelism": (s.tp > 1) & (s.sequence_parallel == 0) & (model.experts > 0),
    }
