"""The blocks of a Transformer as lists of operators: embedding, layers, head.

What each operator saves follows Korthikanti et al., "Reducing Activation Recomputation in Large Transformer Models",
2022, section 4: 34 s b h + 5 a s^2 b bytes per layer for a plain GPT in 16-bit with dropout and unfused attention.
"""

from __future__ import annotations

from dataclasses import replace

from hwsim.formulas.types import Numeric
from hwsim.ops.attention import attention_part, cross_part
from hwsim.ops.mlp import expert_part, mlp_part
from hwsim.ops.operator import Operator
from hwsim.ops.parts import activation, norm
from hwsim.ops.plan import FP32_BYTES, MASK_BYTES, Plan, with_collectives
from hwsim.ops.work import Collective, Stream


def layer(p: Plan) -> list[Operator]:
    """One layer of the plan's kind: attention (to itself, to an encoder), then MLP or experts."""
    crossing = cross_part(p) if p.kind.cross else []
    return [*attention_part(p), *crossing, *(expert_part(p) if p.kind.experts else mlp_part(p))]


def embedding(p: Plan) -> list[Operator]:
    """Token look-up (rows of the vocabulary shared out over tp) or patch projection, positions, dropout, projection."""
    m, z = p.model, p.sizes
    width = m.embedding_dim or m.hidden
    rows = z.residual_tokens
    narrow = [p.linear("embedding in", rows, m.hidden, width, False, rows)] if m.embedding_dim else []
    normed = [norm("embedding norm", p, rows, m.hidden)] if m.embedding_norm else []
    return [*(patches(p) if m.patch else look_up(p, width)), *narrow, *normed]


def look_up(p: Plan, width: int) -> list[Operator]:
    """Rows of the token table, and positions and token types added to them."""
    m, z, e = p.model, p.sizes, p.formats.activation
    elements = z.tokens * width
    table = 0.0 if p.stack == "encoder" else z.vocab * width
    weights = table + position_parameters(p)
    masked = z.residual_tokens * width * MASK_BYTES if m.dropout else 0.0
    turned = rotary_bytes(p)
    positions = z.seq * float(m.positions == "learned") + z.seq * z.context * float(m.relative_buckets > 0)
    indices = z.tokens + positions
    gradient = Stream(elements * e + elements * (p.formats.gradient + p.formats.added), kind="embedding")
    found = Operator(
        "embedding",
        forward=(Stream(2.0 * elements * e, kind="embedding"),),
        backward=(gradient,) if p.formats.trains else (),
        saved_bytes=masked + indices * p.formats.autograd.index_bytes + turned,
        parameters=weights,
        trained=weights * p.formats.trains,
        sides=table_sides(p, width) * p.formats.trains,
    )
    return [with_collectives(found, p.boundary_of(width).leave)]


def table_sides(p: Plan, width: int) -> Numeric:
    """Rows and columns of the tables that are looked up."""
    m = p.model
    tables = [(0.0 if p.stack == "encoder" else p.sizes.vocab, width), (m.token_types, m.hidden)]
    tables.append((m.max_positions + m.position_offset if m.positions == "learned" else 0, m.hidden))
    tables.append((m.relative_buckets, p.sizes.heads))
    return sum((rows + columns) * (rows != 0) for rows, columns in tables)


def rotary_bytes(p: Plan) -> Numeric:
    """Cosines and sines that all layers share, where they are tables; a fused kernel makes them as it goes."""
    tables = p.model.positions == "rope" and p.formats.autograd.rotary_tables
    return 2.0 * p.sizes.seq * p.model.head_dim * p.model.rotary_share * p.formats.activation * float(tables)


def position_parameters(p: Plan) -> Numeric:
    """Tables of positions, relative positions and token types; a class token."""
    m = p.model
    rows = m.max_positions + m.position_offset if m.positions == "learned" else 0
    return (rows + m.token_types + m.class_token) * m.hidden + m.relative_buckets * p.sizes.heads


def patches(p: Plan) -> list[Operator]:
    """A linear layer over the pixels of each patch; every tensor-parallel peer does all of it."""
    m, z = p.model, p.sizes
    pixels = m.channels * m.frames * m.patch**2
    projection = p.linear("patches", z.residual_tokens, m.hidden, pixels, m.patch_bias, z.residual_tokens)
    first = replace(projection, backward=projection.backward[1:] if p.formats.trains else ())
    positions = position_parameters(p)
    added = Stream(3.0 * z.residual_tokens * m.hidden * p.formats.activation)
    return [
        first,
        Operator("positions", (added,), parameters=positions, trained=positions * p.formats.trains),
    ]


def head(p: Plan) -> list[Operator]:
    """What follows the last layer: final norm, LM head over this device's share of the vocabulary, loss.

    Tied weights are stored here too. A tower has no head but its norm.
    """
    m, z = p.model, p.sizes
    ends = [norm("final norm", p, z.residual_tokens, m.hidden)] if m.final_norm else []
    if m.head == "none":
        return ends
    width = m.embedding_dim or m.hidden
    rows = z.residual_tokens
    narrow = [p.linear("embedding out", rows, width, m.hidden, False, rows)] if m.embedding_dim else []
    return [*ends, *(masked_head(p) if m.head == "mlm" else []), *narrow, *logits(p, width)]


def masked_head(p: Plan) -> list[Operator]:
    """The dense layer, activation and norm of a masked-token head (BERT)."""
    m, rows = p.model, p.sizes.residual_tokens
    return [
        p.linear("head transform", rows, m.hidden, m.hidden, True, rows),
        activation("head activation", p, rows * m.hidden, rows * m.hidden),
        norm("head norm", p, rows, m.hidden),
    ]


def logits(p: Plan, width: int) -> list[Operator]:
    """Scores of every token or class, and the loss."""
    m, z = p.model, p.sizes
    classes = m.head == "class"
    rows, held = (z.batch * 1.0, z.batch * 1.0) if classes else (z.tokens, p.entered_rows)
    scores = p.linear("lm head", rows, z.vocab, width, m.head_bias, held)
    reduced = Collective("all_reduce", "tp", rows * FP32_BYTES)
    moved = rows * z.vocab * p.habits.logit_traffic_bytes
    loss = Operator(
        "loss",
        forward=(Stream(moved * 0.6, kernels=5, kind="loss"), reduced, reduced, reduced),
        backward=(Stream(moved * 0.4, kernels=2, kind="loss"),),
        saved_bytes=loss_saved_bytes(p) + rows * p.formats.autograd.index_bytes,
    )
    return [with_collectives(scores, p.boundary_of(width).enter), loss]


def loss_workspace_bytes(p: Plan) -> Numeric:
    """Logits and their softmax, alive between the loss and the backward pass of the head."""
    rows = p.sizes.batch if p.model.head == "class" else p.sizes.tokens
    return rows * p.sizes.vocab * p.habits.logit_bytes


def loss_saved_bytes(p: Plan) -> Numeric:
    """What of it the loss itself saves, where that is counted with the activations."""
    rows = p.sizes.batch if p.model.head == "class" else p.sizes.tokens
    return rows * p.sizes.vocab * p.formats.autograd.loss_bytes
