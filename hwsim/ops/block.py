"""The blocks of a decoder-only Transformer as lists of operators: embedding, layer, head.

What each operator saves follows Korthikanti et al., "Reducing Activation Recomputation in Large Transformer Models",
2022, section 4: 34 s b h + 5 a s^2 b bytes per layer for a plain GPT in 16-bit with dropout and unfused attention.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from hwsim.formulas.types import Numeric
from hwsim.ops.axes import context, tensor
from hwsim.ops.operator import Formats, Operator, linear
from hwsim.ops.sizes import Sizes, local_sizes
from hwsim.ops.work import Attention, Collective, Gemm, Stream
from hwsim.specs.model import Model
from hwsim.specs.strategy import Strategies

FP32_BYTES = 4.0
MASK_BYTES = 1.0


@dataclass(frozen=True)
class Plan:
    """What every operator of a block is built from."""

    model: Model
    s: Strategies
    sizes: Sizes
    formats: Formats
    flash: bool
    logit_bytes: float
    logit_traffic_bytes: float

    @cached_property
    def boundary(self) -> tensor.Boundary:
        """What a tensor-parallel region exchanges: the whole residual stream of a micro-batch."""
        return self.boundary_of(self.model.hidden)

    def boundary_of(self, width: int) -> tensor.Boundary:
        """The same for a stream of another width."""
        return tensor.boundary(self.sizes.tokens * width, self.formats.gathered, self.formats.activation, self.s)


def block_plan(
    model: Model, s: Strategies, formats: Formats, flash: bool, logit_bytes: float, logit_traffic_bytes: float
) -> Plan:
    """Gather what the block builders need."""
    return Plan(model, s, local_sizes(model, s), formats, flash, logit_bytes, logit_traffic_bytes)


def layer(p: Plan) -> list[Operator]:
    """One dense Transformer layer: attention, then MLP, each with its norm and residual add."""
    return [*attention_part(p), *mlp_part(p)]


def attention_part(p: Plan) -> list[Operator]:
    """Norm, query-key-value projection, position encoding, attention, output projection, residual add."""
    m, z = p.model, p.sizes
    width, kv_width = z.heads * m.head_dim, z.kv_heads * m.head_dim
    qkv = linear("qkv", z.tokens, width + 2.0 * kv_width, m.hidden, m.qkv_bias, p.formats, z.residual_tokens)
    output = linear("attention output", z.tokens, m.hidden, width, m.output_bias, p.formats, z.tokens)
    return [
        norm("attention norm", p, z.residual_tokens, m.hidden),
        with_collectives(qkv, p.boundary.enter),
        *([head_norm(p, z.tokens * (width + kv_width))] if m.qk_norm else []),
        *([rotary(p, z.tokens * (width + kv_width))] if m.positions == "rope" else []),
        with_collectives(core(p), context.exchange(2.0 * z.batch * z.context * kv_width * p.formats.activation)),
        with_collectives(output, p.boundary.leave),
        residual("attention residual", p),
    ]


def mlp_part(p: Plan) -> list[Operator]:
    """Norm, up (and gate) projection, activation, down projection, residual add."""
    m, z = p.model, p.sizes
    columns = z.ffn * (2.0 if m.gated else 1.0)
    up = linear("mlp up", z.tokens, columns, m.hidden, m.mlp_bias, p.formats, z.residual_tokens)
    down = linear("mlp down", z.tokens, m.hidden, z.ffn, m.mlp_bias, p.formats, z.tokens)
    return [
        norm("mlp norm", p, z.residual_tokens, m.hidden),
        with_collectives(up, p.boundary.enter),
        activation(p, z.tokens * columns, z.tokens * z.ffn),
        replace(with_collectives(down, p.boundary.leave), last=True),
        replace(residual("mlp residual", p), last=True),
    ]


def embedding(p: Plan) -> list[Operator]:
    """Token look-up (rows of the vocabulary shared out over tp), positions, dropout, projection."""
    m, z, e = p.model, p.sizes, p.formats.activation
    width = m.embedding_dim or m.hidden
    elements = z.tokens * width
    table = z.vocab * width
    positions = (m.max_positions + m.position_offset) * m.hidden if m.positions == "learned" else 0
    masked = z.residual_tokens * width * MASK_BYTES if m.dropout else 0.0
    lookup = Operator(
        "embedding",
        forward=(Stream(2.0 * elements * e, kind="embedding"),),
        backward=(Stream(elements * e + elements * (p.formats.gradient + p.formats.added), kind="embedding"),),
        saved_bytes=masked,
        parameters=table + positions,
    )
    return [
        with_collectives(lookup, p.boundary_of(width).leave),
        *(
            [linear("embedding in", z.residual_tokens, m.hidden, width, False, p.formats, z.residual_tokens)]
            if m.embedding_dim
            else []
        ),
        *([norm("embedding norm", p, z.residual_tokens, m.hidden)] if m.embedding_norm else []),
    ]


def head(p: Plan) -> list[Operator]:
    """Final norm, LM head over this device's share of the vocabulary, loss. Tied weights are stored here too."""
    m, z = p.model, p.sizes
    width = m.embedding_dim or m.hidden
    logits = linear("lm head", z.tokens, z.vocab, width, m.head_bias, p.formats, z.residual_tokens)
    reduced = Collective("all_reduce", "tp", z.tokens * FP32_BYTES)
    moved = z.tokens * z.vocab * p.logit_traffic_bytes
    loss = Operator(
        "loss",
        forward=(Stream(moved * 0.6, kernels=5, kind="loss"), reduced, reduced, reduced),
        backward=(Stream(moved * 0.4, kernels=2, kind="loss"),),
    )
    return [
        *([norm("final norm", p, z.residual_tokens, m.hidden)] if m.final_norm else []),
        *(
            [linear("embedding out", z.residual_tokens, width, m.hidden, False, p.formats, z.residual_tokens)]
            if m.embedding_dim
            else []
        ),
        with_collectives(logits, p.boundary_of(width).enter),
        loss,
    ]


def loss_workspace_bytes(p: Plan) -> Numeric:
    """Logits and their softmax, alive between the loss and the backward pass of the head."""
    return p.sizes.tokens * p.sizes.vocab * p.logit_bytes


def core(p: Plan) -> Operator:
    """Attention itself: fused, or scores and probabilities written to memory."""
    return fused_core(p) if p.flash else unfused_core(p)


def fused_core(p: Plan) -> Operator:
    """FlashAttention: saves q, k, v and the fp32 log-sum-exp of each row."""
    m, z, e = p.model, p.sizes, p.formats.activation
    keys, masked = attended_keys(p)
    shares = z.context / z.seq  # balanced chunks: each device does an even part of the triangle of every sequence
    forward = Attention(
        z.batch / shares, z.context, keys, z.heads, z.kv_heads, m.head_dim, causal=masked, element_bytes=e
    )
    return Operator(
        "attention",
        forward=(forward,),
        backward=(replace(forward, backward=True),),
        saved_bytes=qkv_bytes(p) + z.tokens * z.heads * FP32_BYTES,
        kept_bytes=qkv_bytes(p),
    )


def unfused_core(p: Plan) -> Operator:
    """Scores, mask and softmax, dropout and weighted sum as kernels of their own, over the full square of scores."""
    m, z, e = p.model, p.sizes, p.formats.activation
    matrices, scores = z.batch * z.heads, z.batch * z.heads * z.seq * z.context
    passes = p.formats.score_passes
    query_key = Gemm(z.seq, z.context, m.head_dim, matrices, p.formats.gemm_input, e)
    weighted = Gemm(z.seq, m.head_dim, z.context, matrices, p.formats.gemm_input, e)
    drop = (Stream(scores * (2.0 * e + MASK_BYTES)),) if m.dropout else ()
    kept = scores * (2.0 * e + MASK_BYTES) if m.dropout else scores * e
    return Operator(
        "attention",
        forward=(query_key, Stream(scores * 2.0 * e * passes), *drop, weighted),
        backward=(
            weighted,
            replace(weighted, m=z.context, k=z.seq),
            *drop,
            Stream(scores * 3.0 * e * passes),
            query_key,
            weighted,
        ),
        saved_bytes=qkv_bytes(p) + kept,
        kept_bytes=qkv_bytes(p),
    )


def attended_keys(p: Plan) -> tuple[Numeric, float]:
    """Keys per query for the fused kernel: the causal triangle, or the mean width of a sliding window's band."""
    context = p.sizes.context
    if p.model.window is None:
        return context, 1.0
    window = np.minimum(context, 1.0 * p.model.window)
    return window - window * (window - 1.0) / (2.0 * context), 0.0


def qkv_bytes(p: Plan) -> Numeric:
    """Queries, keys and values of a micro-batch on this device."""
    z = p.sizes
    return z.tokens * (z.heads + 2.0 * z.kv_heads) * p.model.head_dim * p.formats.activation


def norm(name: str, p: Plan, rows: Numeric, width: int) -> Operator:
    """Layernorm or RMSNorm: saves its input; backward reads input and gradient and writes a gradient."""
    shift = p.model.norm == "layernorm" and p.model.norm_bias
    size = rows * width * p.formats.activation
    forward, backward = norm_streams(p, size, kernels=1)
    return Operator(name, (forward,), (backward,), saved_bytes=size, parameters=width * (2.0 if shift else 1.0))


def norm_streams(p: Plan, size: Numeric, kernels: int) -> tuple[Stream, Stream]:
    """Kernels of a normalisation of `size` bytes, forward and backward."""
    moved = size * p.formats.norm_passes
    return Stream(2.0 * moved, kernels=kernels, kind="norm"), Stream(3.0 * moved, kernels=2, kind="norm")


def head_norm(p: Plan, elements: Numeric) -> Operator:
    """RMSNorm of every query and key head; two vectors of head_dim, the same on every device."""
    size = elements * p.formats.activation
    forward, backward = norm_streams(p, size, kernels=2)
    return Operator("qk norm", (forward,), (backward,), size, 2.0 * p.model.head_dim)


def rotary(p: Plan, elements: Numeric) -> Operator:
    """Rotary embedding of queries and keys; its backward needs nothing saved."""
    moved = Stream(2.0 * elements * p.formats.activation * p.formats.rope_passes, kernels=2)
    return Operator("rope", (moved,), (moved,))


def activation(p: Plan, inputs: Numeric, outputs: Numeric) -> Operator:
    """GELU or the gated product; saves its inputs."""
    e, passes = p.formats.activation, p.formats.activation_passes
    forward, backward = (inputs + outputs) * e * passes, (2.0 * inputs + outputs) * e * passes
    return Operator(
        "activation", (Stream(forward, kind="activation"),), (Stream(backward, kind="activation"),), inputs * e
    )


def residual(name: str, p: Plan) -> Operator:
    """Dropout (where the model has it) and residual add; backward also sums the two branches' gradients."""
    elements, e = p.sizes.residual_tokens * p.model.hidden, p.formats.activation
    mask = elements * MASK_BYTES if p.model.dropout else 0.0
    branches = Stream(elements * 3.0 * e, kind="residual")
    dropped = (Stream(elements * 2.0 * e + mask, kind="residual"),) if p.model.dropout else ()
    return Operator(name, (Stream(elements * 3.0 * e + mask, kind="residual"),), (*dropped, branches), saved_bytes=mask)


def with_collectives(operator: Operator, collectives: tensor.Collectives) -> Operator:
    """Add the collectives that a parallel axis puts at an operator's door."""
    forward, backward = collectives
    return replace(operator, forward=(*operator.forward, *forward), backward=(*operator.backward, *backward))
