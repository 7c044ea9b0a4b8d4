"""The MLP half of a layer: dense, or a mixture of experts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hwsim.formulas.types import Numeric
from hwsim.ops.axes import expert
from hwsim.ops.operator import Copies, Operator
from hwsim.ops.parts import activation, norm, residual
from hwsim.ops.plan import FP32_BYTES, Plan, with_collectives
from hwsim.ops.work import Stream

ROUTER_KERNELS, PERMUTE_KERNELS = 30, 12
"""Launches of softmax, top-k, counts, probabilities and the loss that balances experts; of putting rows in order."""


PERMUTE_PASSES = 1.75
"""Memory traffic of putting rows in order over that of reading and writing them once: scattered rows come at half the
bandwidth (SimuMax measured 0.50 of 8 TB/s on B200, streaming kernels reach 0.88)."""


def mlp_part(p: Plan) -> list[Operator]:
    """Norm, up (and gate) projection, activation, down projection, residual add."""
    m, z = p.model, p.sizes
    columns = z.ffn * m.gate
    up = p.linear("mlp up", z.tokens, columns, m.hidden, m.mlp_bias, p.entered_rows, parts=1 + m.gated)
    down = p.linear("mlp down", z.tokens, m.hidden, z.ffn, m.mlp_bias, z.tokens)
    return [
        *_norm_before(p),
        up if m.norms == 1 else with_collectives(up, p.boundary.enter),
        activation("activation", p, z.tokens * columns, z.tokens * z.ffn),
        replace(with_collectives(down, p.boundary.leave), last=True),
        *_after(p),
    ]


def expert_part(p: Plan) -> list[Operator]:
    """Norm, router, rows to their experts, experts, rows back, shared experts, residual add.

    Every device routes its own tokens. Probabilities are applied to the activation, so that nothing is saved for them
    but themselves (Megatron-Core), or to the experts' outputs. Rows are put in order by two lists of indices: of the
    tokens, and of the probabilities.
    """
    m, z, e = p.model, p.sizes, p.formats.activation
    rows, width = z.residual_tokens, float(m.hidden)
    routed = rows * m.experts_per_token
    sent = rows * expert.destinations(m, p.habits.dispatch_domain, p.s) * width
    padded = (p.habits.capacity or p.habits.imbalance) * routed * p.s.etp
    each, autograd = padded / z.experts, p.formats.autograd
    kept = padded * width * e * autograd.expert_outputs
    gathered, columns = padded * width, z.expert_ffn * m.gate
    copies = Copies(z.experts, 1.0 if p.habits.grouped else z.experts)
    up = p.linear("expert up", each, columns, m.hidden, m.mlp_bias, padded, copies)
    down = p.linear("expert down", each, m.hidden, z.expert_ffn, m.mlp_bias, padded, copies)
    there = _permute("dispatch", p, expert.dispatch(sent * e, gathered * e, p.s), rows * width, gathered)
    back = _permute("combine", p, expert.combine(sent * e, gathered * e, p.s), gathered, rows * width)
    unneeded = autograd.expert_outputs == 0
    return [
        *_norm_before(p),
        router(p, rows),
        replace(there, saved_bytes=2.0 * routed * autograd.index_bytes),
        up,
        activation("expert activation", p, padded * columns, padded * z.expert_ffn),
        replace(down, last=unneeded),
        replace(back, saved_bytes=kept, last=unneeded),
        *(shared_experts(p) if m.shared_ffn else []),
        *_after(p),
    ]


def router(p: Plan, rows: Numeric) -> Operator:
    """Scores of every expert for every token, the best chosen; the same weights on every device."""
    m = p.model
    scores = rows * m.experts * FP32_BYTES
    linear = p.linear("router", rows, float(m.experts), m.hidden, m.router_bias, rows)
    moved = Stream(6.0 * scores, kernels=ROUTER_KERNELS)
    weight = p.formats.activation if p.formats.autograd.expert_outputs else FP32_BYTES
    chosen = rows * m.experts_per_token * (weight + 8.0)
    return replace(
        linear,
        forward=(*linear.forward, moved),
        backward=(*linear.backward, moved),
        saved_bytes=linear.saved_bytes + scores + chosen,
    )


def shared_experts(p: Plan) -> list[Operator]:
    """A dense MLP that every token goes through."""
    m, z = p.model, p.sizes
    columns = z.shared_ffn * m.gate
    up = p.linear("shared up", z.tokens, columns, m.hidden, m.mlp_bias, parts=1 + m.gated)
    down = p.linear("shared down", z.tokens, m.hidden, z.shared_ffn, m.mlp_bias, z.tokens)
    gate = p.linear("shared gate", z.residual_tokens, 1.0, m.hidden, False)
    return [
        with_collectives(up, p.boundary.enter),
        activation("shared activation", p, z.tokens * columns, z.tokens * z.shared_ffn),
        replace(with_collectives(down, p.boundary.leave), last=True),
        *([gate] if m.shared_gate else []),
    ]


def _permute(name: str, p: Plan, exchange: expert.Exchange, read: Numeric, written: Numeric) -> Operator:
    """Rows put in the order of their experts (or back), and sent; backward the way back.

    What comes from several devices for several experts is put in order once more.
    """
    several = 2.0 * np.maximum(read, written) * ((p.s.ep > 1) & (p.sizes.experts > 1))
    moved = (read + written + several) * p.formats.activation * PERMUTE_PASSES
    order = Stream(moved, kernels=PERMUTE_KERNELS)
    return Operator(name, (order, *exchange), (*reversed(exchange), order))


def _norm_before(p: Plan) -> list[Operator]:
    return [] if p.model.norms == 1 else [norm("mlp norm", p, p.sizes.residual_tokens, p.model.hidden)]


def _after(p: Plan) -> list[Operator]:
    after = [norm("mlp post norm", p, p.sizes.residual_tokens, p.model.hidden)] if p.model.norms == 4 else []
    return [replace(operator, last=True) for operator in (*after, residual("mlp residual", p))]
