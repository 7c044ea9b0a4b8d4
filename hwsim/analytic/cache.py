"""Memory of a served model on its fullest device: weights, KV cache, activations, runtime, and what batch fits."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor

import numpy as np

from hwsim.analytic.serving import Served, source_of
from hwsim.formulas.serving import cache_blocks
from hwsim.ops import serving
from hwsim.ops.operator import Operator, total
from hwsim.ops.serving import Routing
from hwsim.ops.sparse import KEY_BYTES
from hwsim.specs.engine import WEIGHT_BYTES, InferenceJob
from hwsim.specs.library import load_model
from hwsim.specs.model import Model
from hwsim.specs.strategy import Strategies

HALF_BYTES = WEIGHT_BYTES["bf16"]
LOGIT_BYTES = 6.0
"""Of a score between the head and the choice of a token: half precision, and single for the softmax."""
LIVE_STREAMS = 3.0
"""Copies of the residual stream that are alive at once."""
KEPT_PLAIN = ("router",)
"""Multiplies inside the layers that are not quantised."""


@dataclass(frozen=True)
class CacheRoom:
    """What a replica's fullest device holds, and what it leaves for the KV cache."""

    weights_bytes: float
    activations_bytes: float
    runtime_bytes: float
    room_bytes: float
    """Left for the cache; below 0: the weights alone do not fit."""
    capacity_bytes: float
    preallocates: bool


def layer_share(model: Model, s: Strategies) -> float:
    """Layers on the fullest stage over all layers of the decoder."""
    return ceil(model.layers / float(np.max(s.pp))) / model.layers


def cache_bytes(served: Served, s: Strategies, tokens: float) -> float:
    """Of one request with so many tokens in the cache, on the fullest device. [byte]"""
    model, plan = served.model, serving.step_plan(served.model, s, served.formats, served.habits, 1.0)
    width = model.kv_rank + model.rope_dim if model.is_mla else 2.0 * plan.sizes.kv_heads * model.head_dim
    kept: float = 0.0
    block = served.job.engine.block_tokens
    for segment in serving.decoder(model):
        for kind, count in segment.kinds:
            seen = tokens if kind.window is None else min(tokens, kind.window + block)
            kept += count * float(cache_blocks(seen, block)) * block
    if model.encoder is not None:
        kept += model.layers * served.source_len
    each = float(np.max(width)) * served.job.cache_bytes + model.index_dim * KEY_BYTES
    return kept * each * layer_share(model, s)


def held_bytes(served: Served, s: Strategies, tokens: float) -> float:
    """Memory that one request takes for so many tokens, at the peak of a step, on the fullest device. [byte]"""
    return served.job.engine.cache_copies * cache_bytes(served, s, tokens)


def weights_bytes(served: Served, s: Strategies) -> float:
    """Of the weights on the fullest device: matrices of layers in their format, all else in half precision. [byte]"""
    plan, model = serving.step_plan(served.model, s, served.formats, served.habits, 1.0), served.model
    inside = 0.0
    for _, count, operators in serving.layers(plan, Routing(), source_of(served, s, plan)):
        inside += count * sum(_operator_bytes(operator, served.job) for operator in operators)
    if model.encoder is not None or model.vision is not None:
        shape = serving.other_stacks(model, s, served.formats, served.habits, served.lengths)
        inside += sum(count * float(np.max(total(ops, "parameters"))) * HALF_BYTES for count, ops in shape)
    start, end = (float(np.max(total(ops, "parameters"))) for ops in (serving.embedding(plan), serving.head(plan, 1.0)))
    table = float(np.max(plan.sizes.vocab)) * (model.embedding_dim or model.hidden)
    one_stage = float(np.max(s.pp)) == 1
    ends = start + end - table * model.is_tied if one_stage else max(start, end)
    return inside * layer_share(model, s) + ends * HALF_BYTES


def _operator_bytes(operator: Operator, job: InferenceJob) -> float:
    """Weights of one operator as they are stored, and of its adapters in half precision."""
    adapter = float(np.max(operator.trained_parameters)) if job.adapters and operator.trained is not None else 0.0
    matrices = 0.0 if operator.name in KEPT_PLAIN else float(np.max(operator.matmul_parameters)) - adapter
    plain = float(np.max(operator.parameters)) - adapter - matrices
    return matrices * job.weight_bytes + (plain + job.adapters * adapter) * HALF_BYTES


def activation_bytes(served: Served, s: Strategies) -> float:
    """Alive at once in the largest step. [byte]"""
    model, job, engine = served.model, served.job, served.job.engine
    sizes = serving.step_plan(model, s, served.formats, served.habits, 1.0).sizes
    rows = min(float(engine.token_budget), float(job.batch * served.prompt_len))
    made = min(engine.max_sequences, job.batch)
    if engine.preallocates:
        rows, made = float(engine.token_budget), engine.max_sequences
    if engine.prompt_logits:
        made = round(rows)
    attention = (sizes.heads + 2.0 * sizes.kv_heads) * model.head_dim
    dense = sizes.ffn * (1.0 + model.gate) if not model.experts or model.dense_layers else 0.0
    routed = model.experts_per_token * (sizes.expert_ffn * (1.0 + model.gate) + model.hidden) if model.experts else 0.0
    widest = float(np.max(np.maximum(np.maximum(attention, dense), routed)))
    outputs = made * float(np.max(sizes.vocab)) * LOGIT_BYTES
    return rows * (LIVE_STREAMS * model.hidden + widest) * HALF_BYTES + outputs


def room(served: Served, s: Strategies) -> CacheRoom:
    """What is left for the KV cache on the fullest device."""
    engine, memory = served.job.engine, served.hardware.accelerator.memory
    groups = sum(float(np.max(size)) > 1 for size in (s.tp, s.pp, s.ep))
    runtime = engine.context + engine.communicator * groups + engine.workspace
    runtime += engine.graph_bytes if engine.graph_batch else 0.0
    weights, activations = weights_bytes(served, s) + drafter_bytes(served, s), activation_bytes(served, s)
    slack = 1.0 + engine.allocator_slack
    usable = memory.usable * (engine.memory_fraction if engine.preallocates else 1.0)
    left = (usable - runtime - weights) / slack - activations
    return CacheRoom(weights, activations, runtime, left, memory.usable, engine.preallocates)


def drafter_bytes(served: Served, s: Strategies) -> float:
    """Weights of a model that guesses ahead. [byte]"""
    if not served.job.draft_tokens or served.job.draft is None:
        return 0.0
    job = served.job.model_copy(update={"weights": "bf16", "draft_tokens": 0})
    return weights_bytes(Served(load_model(served.job.draft), served.hardware, job, served.devices), s)


def most_sequences(served: Served, s: Strategies, left: CacheRoom, tokens: float) -> int:
    """Requests of so many tokens whose caches fit on one device with requests of its own."""
    each = held_bytes(served, s, tokens)
    return max(floor(left.room_bytes / each), 0) if each > 0 else served.job.engine.max_sequences


def cache_tokens(served: Served, s: Strategies, left: CacheRoom) -> int:
    """Tokens of the KV cache, in whole blocks, of one device with requests of its own."""
    length = served.prompt_len + served.job.output_len
    block = served.job.engine.block_tokens
    per_token = held_bytes(served, s, float(length)) / (ceil(length / block) * block)
    return max(floor(left.room_bytes / (per_token * block)), 0) * block


def most_tokens(served: Served, s: Strategies, left: CacheRoom) -> int:
    """Longest context that one request can have."""
    longest = served.model.max_positions
    low, high = 0, longest
    while low < high:
        middle = (low + high + 1) // 2
        fits = held_bytes(served, s, float(middle)) <= left.room_bytes
        low, high = (middle, high) if fits else (low, middle - 1)
    return low
