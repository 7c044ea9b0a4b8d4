"""How many parameters a model has, read off the same operators that everything else is."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from hwsim.ops.operator import Formats, Operator, total
from hwsim.ops.plan import Habits
from hwsim.ops.whole import Lengths, Whole, whole
from hwsim.specs.model import Model
from hwsim.specs.strategy import strategies

_BYTES = Formats(2.0, 2.0, 2.0, 2.0, 8.0)
STACKS = ("decoder", "encoder", "vision")


class Parameters(NamedTuple):
    """Parameter counts of a model, each tied weight once."""

    total: int
    """All of them."""
    active: int
    """Used by one token."""
    non_embedding: int
    """Without token and position tables and the LM head."""
    matmul: int
    """Read by matrix multiplies for one token, LM head included."""
    layer: int
    """The largest layer."""


class Multiply(NamedTuple):
    """A weight multiply of some layers."""

    operator: str
    stack: str
    layers: int
    weights: float
    """Of one layer, as one token reads them."""


def one_token(model: Model) -> Whole:
    """The model on one device: one sequence of one token."""
    s = strategies(devices=1, global_batch=1, seq_len=1, zero=0)
    return whole(model, s, dict.fromkeys(STACKS, _BYTES), Habits(), Lengths())


@lru_cache(maxsize=256)
def multiplies(model: Model) -> tuple[Multiply, ...]:
    """Every weight multiply of the layers."""
    return tuple(
        Multiply(operator.name, segment.stack, count, _read(operator, model))
        for segment, kinds in one_token(model).layers()
        for _, count, operators in kinds
        for operator in operators
        if operator.matmul_parameters
    )


def _read(operator: Operator, model: Model) -> float:
    """Weights of a multiply that one token reads: of the experts, those it goes to."""
    share = model.experts_per_token / model.experts if operator.experts else 1.0
    return float(operator.matmul_parameters) * share


def _active(operators: Iterable[Operator], model: Model) -> float:
    share = model.experts_per_token / model.experts if model.experts else 1.0
    return sum(float(each.parameters) * (share if each.experts else 1.0) for each in operators)


@lru_cache(maxsize=256)
def parameters(model: Model) -> Parameters:
    """Count the parameters of a model.

    Examples
    --------
    GPT-2 as nanoGPT prints it:

    >>> parameters(Model(layers=12, hidden=768, heads=12, max_positions=1024)).total
    124439808
    """
    plans = one_token(model)
    kinds = [(count, operators) for _, found in plans.layers() for _, count, operators in found]
    ends = [*plans.start(), *plans.end()]
    table = model.vocab * (model.embedding_dim or model.hidden)
    shared = table if model.is_tied else 0
    everything = sum(count * int(total(ops, "parameters")) for count, ops in kinds) + int(total(ends, "parameters"))
    active = sum(count * _active(ops, model) for count, ops in kinds) + _active(ends, model)
    read = sum(each.layers * each.weights for each in multiplies(model))
    heads = sum(_read(operator, model) for operator in plans.end() if operator.matmul_parameters)
    tables = sum(int(total(ops, "parameters")) for ops in ([op for op in plans.start() if op.name == "embedding"],))
    head = 0 if model.head == "none" else table
    return Parameters(
        total=everything - shared,
        active=round(active) - shared,
        non_embedding=everything - tables - head,
        matmul=round(read + heads),
        layer=max(int(total(ops, "parameters")) for _, ops in kinds),
    )
