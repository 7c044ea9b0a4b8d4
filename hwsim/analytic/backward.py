"""What an eager backward pass holds beside saved activations, event by event: loss, head, layer, embedding, update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hwsim.analytic.setting import Setting
from hwsim.formulas.types import Numeric
from hwsim.ops.operator import Operator, total
from hwsim.ops.plan import Plan
from hwsim.ops.whole import Whole

LayerKind = tuple[Plan, int, list[Operator]]
CROSS = "cross attention"
TABLES_OF_TIED, TABLES_OF_UPDATE = 3.0, 2.0
"""Tables of token size alive at once: the gradients of both uses of a tied one and their sum; a square root and a
quotient of Adam's second moment, where it updates one parameter after the other."""


@dataclass(frozen=True)
class Events:
    """Bytes of gradients and temporaries of one device at each event, beside what is saved then."""

    head: Numeric
    """Gradient of the logits, of the head's weights, of its input."""
    held: Numeric
    """Gradient of a tied table by the head, kept until the embedding's is there."""
    layers: tuple[Numeric, ...]
    """Of a layer of each segment."""
    embedding: Numeric
    """Gradients of the token table."""
    update: Numeric
    """Temporaries of the optimizer for its largest parameter."""


def events(setting: Setting, plan: Whole, kinds: Sequence[Sequence[LayerKind]]) -> Events:
    """Gradients at each event; `kinds`: every segment's kinds of layer."""
    p, gradient = plan.decoder, setting.precision.gradient
    m, z = p.model, p.sizes
    table = z.vocab * (m.embedding_dim or m.hidden) * gradient
    logits = z.tokens * z.vocab * p.formats.autograd.loss_bytes
    tied = m.is_tied
    adam = setting.job.optimizer == "adam"
    return Events(
        head=logits + table + z.tokens * m.hidden * p.formats.activation,
        held=table * float(tied),
        layers=tuple(
            _most([_layer_bytes(kind, operators, gradient) for kind, _, operators in found]) for found in kinds
        ),
        embedding=table * (TABLES_OF_TIED if tied else 1.0),
        update=table * (TABLES_OF_UPDATE if adam else 0.0),
    )


def _most(values: Sequence[Numeric]) -> Numeric:
    most: Numeric = 0.0
    for value in values:
        most = np.maximum(most, value)
    return most


def _layer_bytes(p: Plan, operators: Sequence[Operator], gradient: float) -> Numeric:
    """The most of some moments of a layer: its MLP, and where scores are written, their softmax."""
    scores = [] if p.habits.flash else [_softmax_bytes(p, operators, name) for name in ("attention", CROSS)]
    return _most([_mlp_bytes(p, gradient), *scores])


def _softmax_bytes(p: Plan, operators: Sequence[Operator], name: str) -> Numeric:
    """Gradients of probabilities and of scores (or of probabilities before and after dropout), less all that is freed
    by then: what later operators saved, and what dropout let through.
    """
    place = next((index for index, operator in enumerate(operators) if operator.name == name), None)
    if place is None:
        return 0.0
    m, z, e = p.model, p.sizes, p.formats.activation
    keys = p.source.sizes.context if p.source and name == CROSS else z.context
    scores = z.batch * z.heads * z.seq * keys
    freed = total(operators[place + 1 :], "saved_bytes") + scores * e * float(m.dropout)
    return 2.0 * (scores + z.tokens * m.hidden) * e - freed


def _mlp_bytes(p: Plan, gradient: float) -> Numeric:
    """The more of two moments of a layer's MLP: its activation's gradients, or its last multiply with its weight's."""
    m, z, e = p.model, p.sizes, p.formats.activation
    inner, rows, gate = z.ffn, z.tokens, m.gate
    if p.kind.experts:
        inner, rows = z.expert_ffn, z.tokens * m.experts_per_token
    widest = np.maximum(rows * inner * gate * e, rows * inner * e + inner * m.hidden * gradient)
    return z.tokens * m.hidden * e + widest


def workspace_bytes(found: Events, share: Any, blocks: Any, again: Sequence[Numeric], loss: Numeric) -> Numeric:
    """The most that any event of a stage's backward pass needs beyond all that the stage saves.

    `again`: what a layer of each segment makes again beside what it saved. Events after the loss find freed what came
    before them.
    """
    freed = blocks.loss_saved_bytes
    saved = share.of([layer.saved_bytes for layer in blocks.layers], blocks.embedding.saved_bytes,
                     blocks.head.saved_bytes)  # fmt: skip
    most = np.maximum(loss, share.head * (found.head - freed))
    gone: Numeric = share.head * (blocks.head.saved_bytes - found.held)
    for count, block, layer, rerun in reversed(
        list(zip(share.layers, blocks.layers, found.layers, again, strict=True))
    ):
        most = np.maximum(most, np.where(count > 0, rerun + layer - gone, 0.0))
        gone = gone + count * block.saved_bytes
    return np.maximum(most, np.maximum(share.embedding * found.embedding, found.update) - saved)
