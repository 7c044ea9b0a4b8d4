"""Sparse attention of served models: an indexer scores all keys, and the attention looks at the best of them.

DeepSeek-V3.2 and GLM-5 (DeepSeek-AI, "DeepSeek-V3.2", 2025, section 2.1). The indexer has queries of a few narrow
heads, made from the latent of the queries, and one key a token, in 8 bits; tensor-parallel peers all run all of it.
The launches are those of SGLang (sglang/srt/layers/attention/nsa/nsa_indexer.py), where the keys are made on a second
stream beside the queries. Trained models leave the indexer out.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hwsim.formulas.attention import windowed_keys
from hwsim.ops.operator import Operator
from hwsim.ops.plan import FP32_BYTES, Cached, Plan
from hwsim.ops.work import Attention, Stream, either

KEY_BYTES = 1.0 + 4.0 / 128.0
"""Of a number of an indexer's key in the cache: 8 bits, and a single-precision scale for 128."""
ASSEMBLY = ("turned", "query back", "key back", "transformed", "quantised", "weighed")
"""Kernels one after the other between an indexer's projections and its scores: rotary embedding, two copies back into
queries and keys, Hadamard transform, 8 bits, weights of the heads."""


def indexer(p: Plan) -> list[Operator]:
    """Queries, keys and head weights of the indexer for the rows of a step."""
    m, rows = p.model, p.sizes.tokens
    width = m.index_heads * m.index_dim
    moved = 2.0 * rows * width * p.formats.activation
    beside = p.linear("index key", rows, m.index_dim, m.hidden, False)
    return [
        p.linear("index query", rows, width, m.q_rank or m.hidden, False),
        replace(beside, forward=()),
        p.linear("index weights", rows, m.index_heads, m.hidden, False),
        Operator("index assembly", tuple(Stream(moved) for _ in ASSEMBLY)),
    ]


def scores(p: Plan, cached: Cached) -> Operator:
    """Every query against the indexer's keys of all earlier tokens, and the best of them found.

    Half the width of a head stands for scores without values: as many FLOPs, and the keys read once.
    """
    m = p.model
    looked = Attention(
        cached.sequences, cached.queries, 1.0 * cached.keys, float(m.index_heads), 1.0, 0.5 * m.index_dim,
        causal=1.0, element_bytes=1.0, kv_bytes=KEY_BYTES,
    )  # fmt: skip
    found = 1.0 * cached.sequences * cached.queries * cached.keys * FP32_BYTES
    return Operator("index scores", (looked, Stream(2.0 * found)))


def chosen(p: Plan, cached: Cached, dense: Attention, latent: Attention) -> Attention:
    """Attention to the keys that the indexer chose: each query reads its own latents, where there are more of them."""
    most = float(p.model.index_keys)
    each = windowed_keys(cached.queries, 1.0 * cached.keys, most)
    sparse = replace(latent, batch=1.0 * cached.sequences * cached.queries, q_len=1.0, kv_len=each, causal=0.0)
    return either(np.less_equal(cached.keys, most), dense, sparse)
