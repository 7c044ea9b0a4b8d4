"""How many parameters a model has, read off the same operators that everything else is."""

from __future__ import annotations

from typing import NamedTuple

from hwsim.ops.block import Plan, block_plan, embedding, head, layer
from hwsim.ops.operator import Formats, total
from hwsim.specs.model import Model
from hwsim.specs.strategy import strategies

_BYTES = Formats(2.0, 2.0, 2.0, 2.0, 8.0)


class Parameters(NamedTuple):
    """Parameter counts of a model, each tied weight once."""

    total: int
    """All of them."""
    active: int
    """Used by one token."""
    non_embedding: int
    """Without token and position tables and the LM head."""
    matmul: int
    """Read by matrix multiplies, LM head included."""
    layer: int
    """One layer."""


def whole_model(model: Model) -> Plan:
    """The model on one device: one sequence of one token."""
    return block_plan(model, strategies(devices=1, global_batch=1, seq_len=1, zero=0), _BYTES, True, 6.0, 30.0)


def multiplies(model: Model) -> dict[str, float]:
    """Weights of each multiply of a layer, by operator."""
    return {each.name: float(each.matmul_parameters) for each in layer(whole_model(model)) if each.matmul_parameters}


def parameters(model: Model) -> Parameters:
    """Count the parameters of a model.

    Examples
    --------
    GPT-2 as nanoGPT prints it:

    >>> parameters(Model(layers=12, hidden=768, heads=12, max_positions=1024)).total
    124439808
    """
    plan = whole_model(model)
    per_layer, matrices = (int(total(layer(plan), field)) for field in ("parameters", "matmul_parameters"))
    start, end = (int(total(part, "parameters")) for part in (embedding(plan), head(plan)))
    head_matrix = int(total(head(plan), "matmul_parameters"))
    table = model.vocab * (model.embedding_dim or model.hidden)
    shared = table if model.tied_embeddings else 0
    count = model.layers * per_layer + start + end - shared
    positions = (model.max_positions + model.position_offset) * model.hidden if model.positions == "learned" else 0
    outside = positions + (table if model.tied_embeddings else 2 * table)
    return Parameters(count, count, count - outside, model.layers * matrices + head_matrix, per_layer)
