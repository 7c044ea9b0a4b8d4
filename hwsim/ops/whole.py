"""A whole model as operators: its stacks in order, what stands before their layers and what after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from hwsim.formulas.types import Numeric
from hwsim.ops import block
from hwsim.ops.operator import Formats, Operator
from hwsim.ops.parts import activation, norm
from hwsim.ops.plan import Habits, Plan, block_plan
from hwsim.ops.stacks import Kind, Segment, segments
from hwsim.specs.model import Model
from hwsim.specs.strategy import Strategies


@dataclass(frozen=True)
class Lengths:
    """What the other stacks of a model read beside the tokens of a sequence."""

    source: Numeric | None = None
    """Tokens of the source that an encoder reads; none: as many as the decoder's."""
    images: float = 1.0
    """Images in a sequence."""


@dataclass(frozen=True)
class Whole:
    """The plans of a model's stacks."""

    decoder: Plan
    encoder: Plan | None
    vision: Plan | None
    frozen: frozenset[str]
    """Stacks that no gradient goes through."""

    def plan(self, stack: str) -> Plan:
        """The plan of a stack."""
        plan: Plan = getattr(self, stack)
        return plan

    def layers(self) -> list[tuple[Segment, list[tuple[Plan, int, list[Operator]]]]]:
        """Every segment with its kinds of layer: the plan of the kind, how many, and its operators."""
        found = []
        for segment in segments(self.decoder.model):
            plans = [(self.plan(segment.stack).of(kind), count) for kind, count in segment.kinds]
            kinds = [(plan, count, self._passed(segment.stack, block.layer(plan))) for plan, count in plans]
            found.append((segment, kinds))
        return found

    def start(self) -> list[Operator]:
        """What stands before the decoder's layers: its embedding, and the ends of the stacks before it."""
        operators = block.embedding(self.decoder.outside)
        for stack, plan in (("encoder", self.encoder), ("vision", self.vision)):
            if plan:
                operators = operators + self._passed(stack, [*block.embedding(plan.outside), *block.head(plan.outside)])
        return [*operators, *(projector(self.decoder.outside, self.vision.outside) if self.vision else [])]

    def end(self) -> list[Operator]:
        """What stands after the layers: final norm, LM head, loss, the layers that predict further tokens."""
        p = self.decoder.outside
        extra = [operator for _ in range(p.model.mtp_layers) for operator in further_token(p)]
        return [*block.head(p), *extra, *([remembered(p, self.encoder)] if self.encoder else [])]

    def _passed(self, stack: str, operators: list[Operator]) -> list[Operator]:
        """Operators of a stack; a frozen one is run forward and forgotten."""
        if stack not in self.frozen:
            return operators
        return [replace(operator, backward=(), saved_bytes=0.0, kept_bytes=None) for operator in operators]


def whole(
    model: Model,
    s: Strategies,
    formats: Mapping[str, Formats],
    habits: Habits,
    lengths: Lengths,
    frozen: frozenset[str] = frozenset(),
) -> Whole:
    """Gather the plans of a model's stacks; `formats` by stack."""
    encoder = vision = None
    if model.encoder:
        source = s if lengths.source is None else replace(s, seq_len=0.0 * s.seq_len + lengths.source)
        encoder = block_plan(model.encoder, source, formats["encoder"], habits, "encoder")
    if model.vision:
        tower = model.vision.tower
        seen = replace(s, seq_len=0.0 * s.seq_len + tower.image_tokens, micro_batch=s.micro_batch * lengths.images)
        vision = block_plan(tower, seen, formats["vision"], habits, "vision")
    decoder = replace(block_plan(model, s, formats["decoder"], habits), source=encoder)
    return Whole(decoder, encoder, vision, frozen)


def projector(p: Plan, tower: Plan) -> list[Operator]:
    """Linear layers from the tower's width to the decoder's, for the tokens that are left of each image."""
    vision = p.model.vision
    if vision is None:
        return []
    rows = tower.sizes.residual_tokens * (vision.tokens / tower.model.image_tokens)
    inner = tower.model.hidden * vision.merge
    normed = [norm("projector norm", p, rows * vision.merge, tower.model.hidden)] if vision.projector_norm else []
    operators: list[Operator] = []
    for number, out in enumerate(vision.projector):
        between = [activation("projector activation", p, rows * inner, rows * inner)] if number else []
        operators += [*between, p.linear("projector", rows, float(out), inner, vision.projector_bias, rows)]
        inner = out
    return [*normed, *operators]


def further_token(p: Plan) -> list[Operator]:
    """A layer that predicts one more token: norms, a projection of state and embedding, a layer, the shared head.

    Gloeckle et al. 2024; DeepSeek-AI, "DeepSeek-V3", 2024, section 2.2. Its embedding and LM head are the model's own.
    """
    m, rows = p.model, p.sizes.residual_tokens
    layers = block.layer(p.of(Kind(None, m.experts > 0, False)))
    shared = [replace(op, parameters=0.0, trained=0.0) if op.name == "lm head" else op for op in block.head(p)]
    return [
        norm("mtp norm", p, 2.0 * rows, m.hidden),
        norm("mtp norm", p, 0.0 * rows, m.hidden),
        p.linear("mtp projection", rows, m.hidden, 2.0 * m.hidden, False, rows),
        *[replace(operator, name=f"mtp {operator.name}") for operator in layers],
        *[replace(operator, name=f"mtp {operator.name}") for operator in shared],
    ]


def remembered(p: Plan, encoder: Plan) -> Operator:
    """The encoder's output, saved once for all layers that attend to it."""
    size = encoder.sizes.residual_tokens * encoder.model.hidden * p.formats.saved
    return Operator("encoder output", saved_bytes=size)
