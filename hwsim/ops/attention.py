"""The attention half of a layer: plain (MHA, GQA, MQA), latent (MLA), and cross-attention to an encoder."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hwsim.formulas.types import Numeric
from hwsim.ops.axes import context
from hwsim.ops.operator import Operator
from hwsim.ops.parts import head_norm, norm, residual, rotary
from hwsim.ops.plan import FP32_BYTES, MASK_BYTES, Plan, with_collectives
from hwsim.ops.sizes import Sizes
from hwsim.ops.work import Attention, Gemm, Stream


def attention_part(p: Plan) -> list[Operator]:
    """Norm, query-key-value projection, position encoding, attention, output projection, residual add."""
    m, z = p.model, p.sizes
    projections = latent_projections(p) if m.is_mla else plain_projections(p)
    output = p.linear("attention output", z.tokens, m.hidden, z.heads * value_dim(p), m.output_bias, z.tokens)
    closed = output if m.parallel else with_collectives(output, p.boundary.leave)
    exchanged = z.batch * z.context * kv_width(p) * p.formats.activation
    return [
        norm("attention norm", p, z.residual_tokens, m.hidden),
        *projections,
        with_collectives(core(p), context.exchange(exchanged)),
        closed,
        *([norm("attention post norm", p, z.residual_tokens, m.hidden)] if m.norms == 4 else []),
        *([] if m.parallel else [residual("attention residual", p)]),
    ]


def plain_projections(p: Plan) -> list[Operator]:
    """Queries, keys and values in one multiply, head norms, rotary embedding."""
    m, z = p.model, p.sizes
    width, keys = z.heads * m.head_dim, z.kv_heads * m.head_dim
    qkv = p.linear("qkv", z.tokens, width + 2.0 * keys, m.hidden, m.qkv_bias, p.entered_rows, parts=3)
    turned = z.tokens * (width + keys) * m.rotary_share
    return [
        with_collectives(qkv, p.boundary.enter),
        *([head_norm(p, z.tokens * (width + keys))] if m.qk_norm else []),
        *([rotary(p, turned)] if m.positions == "rope" else []),
    ]


def latent_projections(p: Plan) -> list[Operator]:
    """Queries through their latent (or at once), keys and values through theirs, rotary embedding of a part.

    The way down is the same on all tensor-parallel peers, each on its own tokens; latents are gathered, not the
    residual stream (DeepSeek-AI, "DeepSeek-V2", 2024, section 2.1; Megatron-Core multi_latent_attention).
    """
    m, z = p.model, p.sizes
    query = z.heads * (m.nope_dim + m.rope_dim)
    rows, latent = z.residual_tokens, m.kv_rank + m.rope_dim
    if m.q_rank:
        wide = p.linear("q up", z.tokens, query, m.q_rank, False, p.entered_rows)
        queries = [
            p.linear("q down", rows, m.q_rank, m.hidden, False, rows),
            norm("q latent norm", p, rows, m.q_rank),
            with_collectives(wide, p.boundary_of(m.q_rank).enter),
        ]
    else:
        queries = [with_collectives(p.linear("q", z.tokens, query, m.hidden, False, p.entered_rows), p.boundary.enter)]
    up = p.linear("kv up", z.tokens, z.heads * (m.nope_dim + m.v_dim), m.kv_rank, False, p.entered_rows)
    return [
        *queries,
        p.linear("kv down", rows, latent, m.hidden, False),
        norm("kv latent norm", p, rows, m.kv_rank),
        with_collectives(up, p.boundary_of(latent).enter),
        assembly(p),
    ]


def assembly(p: Plan) -> Operator:
    """Rotary embedding of a part of each head, and queries, keys and values put together for the attention kernel."""
    z = p.sizes
    moved = 2.0 * z.tokens * z.heads * (2.0 * key_dim(p) + value_dim(p)) * p.formats.activation
    return Operator(
        "rope", (Stream(moved * p.formats.rope_passes, kernels=4),), (Stream(moved * p.formats.rope_passes, kernels=4),)
    )


def cross_part(p: Plan) -> list[Operator]:
    """Attention of a decoder layer to the encoder's output: norm, queries, keys and values, attention, output, add.

    The encoder's output is saved once for all layers (see `hwsim.ops.block.head`).
    """
    if p.source is None:
        return []
    m, z, there = p.model, p.sizes, p.source.sizes
    width = z.heads * m.head_dim
    queries = p.linear("cross q", z.tokens, width, m.hidden, m.qkv_bias, p.entered_rows)
    keys = p.linear("cross kv", there.tokens, kv_width(p), p.source.model.hidden, m.qkv_bias, parts=2)
    output = p.linear("cross output", z.tokens, m.hidden, width, m.output_bias, z.tokens)
    return [
        norm("cross norm", p, z.residual_tokens, m.hidden),
        with_collectives(queries, p.boundary.enter),
        with_collectives(keys, p.source.boundary.enter),
        cross_core(p, there),
        with_collectives(output, p.boundary.leave),
        residual("cross residual", p),
    ]


def core(p: Plan) -> Operator:
    """Attention of a stack to itself: fused, or scores and probabilities written to memory."""
    keys, masked = attended_keys(p)
    tokens = p.sizes.tokens
    if p.habits.flash:
        return fused_core(p, keys, masked, qkv_bytes(p, tokens))
    return unfused_core(p, p.sizes.context, unfused_bytes(p, tokens))


def cross_core(p: Plan, there: Sizes) -> Operator:
    """The same over the keys of an encoder."""
    if p.habits.flash:
        whole = fused_core(p, there.context, 0.0, qkv_bytes(p, there.tokens))
    else:
        whole = unfused_core(p, there.context, unfused_bytes(p, there.tokens))
    return replace(whole, name="cross attention")


def fused_core(p: Plan, keys: Numeric, masked: float, inputs_bytes: Numeric) -> Operator:
    """FlashAttention: saves q, k, v and the fp32 log-sum-exp of each row.

    Backward kernels pad values to the width of keys where those differ (FlashAttention 2, cuDNN).
    """
    m, z, e = p.model, p.sizes, p.formats.activation
    shares = z.context / z.seq  # balanced chunks: each device does an even part of the triangle of every sequence
    kv_heads = z.heads if m.is_mla else z.kv_heads
    forward = Attention(
        z.batch / shares, z.context, keys, z.heads, kv_heads, m.attention_dim, causal=masked, element_bytes=e
    )
    sinks = z.heads * float(m.sinks)
    return Operator(
        "attention",
        forward=(forward,),
        backward=(replace(forward, backward=True, head_dim=float(max(key_dim(p), value_dim(p)))),),
        saved_bytes=inputs_bytes + z.tokens * z.heads * FP32_BYTES,
        parameters=sinks,
        trained=sinks * p.formats.trains,
        kept_bytes=inputs_bytes,
    )


def unfused_core(p: Plan, keys: Numeric, inputs_bytes: Numeric) -> Operator:
    """Scores, mask and softmax, dropout and weighted sum as kernels of their own, over the full square of scores."""
    m, z, e = p.model, p.sizes, p.formats.activation
    matrices, scores = z.batch * z.heads, z.batch * z.heads * z.seq * keys
    passes, value_width = p.formats.score_passes, value_dim(p)
    query_key = Gemm(z.seq, keys, key_dim(p), matrices, p.formats.gemm_input, e)
    weighted = Gemm(z.seq, value_width, keys, matrices, p.formats.gemm_input, e)
    drop = (Stream(scores * (2.0 * e + MASK_BYTES)),) if m.dropout else ()
    kept = scores * (2.0 * e + MASK_BYTES) if m.dropout else scores * e
    sinks = z.heads * float(m.sinks)
    return Operator(
        "attention",
        forward=(query_key, Stream(scores * 2.0 * e * passes), *drop, weighted),
        backward=(
            replace(query_key, k=value_width),
            replace(weighted, m=keys, k=z.seq),
            *drop,
            Stream(scores * 3.0 * e * passes),
            replace(weighted, n=key_dim(p)),
            replace(weighted, m=keys, n=key_dim(p), k=z.seq),
        ),
        saved_bytes=inputs_bytes + kept,
        parameters=sinks,
        trained=sinks * p.formats.trains,
        kept_bytes=inputs_bytes,
    )


def attended_keys(p: Plan) -> tuple[Numeric, float]:
    """Keys per query for the fused kernel, and whether it skips later ones.

    All of them (bidirectional), the causal triangle, or the mean width of a causal sliding window's band.
    """
    context, model = p.sizes.context, p.model
    if p.kind.window is None:
        return context, float(model.causal)
    window = np.minimum(context, 1.0 * p.kind.window)
    return window - window * (window - 1.0) / (2.0 * context) * float(model.causal), 0.0


def key_dim(p: Plan) -> int:
    """Width of a query or key head."""
    return p.model.nope_dim + p.model.rope_dim if p.model.is_mla else p.model.head_dim


def value_dim(p: Plan) -> int:
    """Width of a value head."""
    return p.model.v_dim if p.model.is_mla else p.model.head_dim


def kv_width(p: Plan) -> Numeric:
    """Numbers that one token's keys and values take on this device, as attention reads them."""
    if p.model.is_mla:
        return p.sizes.heads * (key_dim(p) + value_dim(p))
    return 2.0 * p.sizes.kv_heads * p.model.head_dim


def qkv_bytes(p: Plan, key_tokens: Numeric) -> Numeric:
    """Queries, keys and values of a micro-batch on this device."""
    z = p.sizes
    return (z.tokens * z.heads * key_dim(p) + key_tokens * kv_width(p)) * p.formats.activation


def unfused_bytes(p: Plan, key_tokens: Numeric) -> Numeric:
    """The same where keys and values are repeated for every query head before they are multiplied."""
    copies = p.sizes.heads / p.sizes.kv_heads
    if not p.formats.autograd.repeated_keys or p.model.is_mla:
        return qkv_bytes(p, key_tokens)
    return qkv_bytes(p, key_tokens * copies)
