"""The operators of one inference step: rows of decodes and prompt chunks together, over cached keys and values.

Multiplies, norms and collectives see rows and nothing else; attention sees which queries look at how many keys. Every
tensor-parallel peer holds the whole residual stream and sums it after attention and after the MLP. Experts are split
among the peers by width or dealt out whole; where other devices serve requests of their own (attention data
parallelism), the rows of all of them meet at the experts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from hwsim.formulas.attention import windowed_keys
from hwsim.formulas.types import Numeric
from hwsim.ops import block, sparse
from hwsim.ops.attention import attention_part, cross_part
from hwsim.ops.axes.expert import destinations
from hwsim.ops.mlp import mlp_part, shared_experts
from hwsim.ops.operator import Formats, Operator
from hwsim.ops.parts import norm, residual
from hwsim.ops.plan import FP32_BYTES, Cached, Habits, Plan, block_plan, with_collectives
from hwsim.ops.sizes import local_sizes
from hwsim.ops.stacks import Kind, Segment, segments
from hwsim.ops.whole import Lengths, whole
from hwsim.ops.work import Attention, Collective, Experts, Stream, either
from hwsim.specs.model import Model
from hwsim.specs.strategy import Strategies

SCORE_PASSES = 6.0
"""Times that scores in memory are moved: written, masked and normalised, copied, read."""
ABSORBED = 64
"""Most queries of a sequence that latent attention serves from the latents."""
EXPERT_KERNELS, LOOKED_KERNELS = 8.0, 1.5
"""Launches of an expert with rows where they are multiplied one after the other (its rows gathered, three multiplies,
activation, weights, rows added up), and of looking whether any expert has rows."""
FUSED_NORMS, FUSED_SUM_BYTES = ("attention norm", "mlp norm"), 8e6
"""Norms that follow a sum over peers, and the largest sum that they are part of (the workspace of TensorRT-LLM's own
all-reduce, CustomAllReduceHelper)."""
BESIDE_ROWS = 1024
"""Rows from which on the shared experts wait for the routed ones (DUAL_STREAM_TOKEN_THRESHOLD of SGLang; vLLM and
TensorRT-LLM run them beside each other too)."""
ROUTER_FUSED = 3
"""Launches of the routing kernels of an engine: softmax and top-k, alignment of rows, weights applied."""


@dataclass(frozen=True)
class Routing:
    """How rows meet their experts."""

    exchange: str = "all_gather"
    """all_gather or all_to_all, where several devices serve requests of their own."""
    skew: float = 0.0
    """Exponent of the experts' popularity."""
    domain: float = 1.0
    """Devices of a node: they pass rows on among themselves (DeepEP)."""


def step_plan(model: Model, s: Strategies, formats: Formats, habits: Habits, rows: Numeric) -> Plan:
    """What the operators of a step with `rows` rows on each device are built from."""
    sizes = replace(local_sizes(model, s), batch=1.0, seq=rows, context=rows, residual_seq=rows)
    return replace(block_plan(model, s, formats, habits), sizes=sizes, cached=())


def sharing(s: Strategies) -> Numeric:
    """Devices with requests of their own whose rows meet at the same experts."""
    return np.maximum(s.ep * s.etp / s.tp, 1.0)


def layer(p: Plan, routing: Routing) -> list[Operator]:
    """One decoder layer of the plan's kind, its attention to the cache left out (see `attention`)."""
    half = [operator for operator in attention_part(p) if operator.name != "attention"]
    half = latent_multiplies(p, half) if p.model.is_mla else half
    half += sparse.indexer(p) if p.model.index_heads else []
    crossing = [operator for operator in cross_part(p) if operator.name not in ("cross attention", "cross kv")]
    second = expert_part(p, routing) if p.kind.experts else mlp_part(p)
    whole_layer = [*half, *(crossing if p.kind.cross else []), *second]
    return [summed_norm(p, operator) for operator in whole_layer] if p.habits.fused_sum else whole_layer


def latent_multiplies(p: Plan, operators: list[Operator]) -> list[Operator]:
    """Multiplies of latent attention as engines run them: the latents of queries and of keys and values come from one
    (fused_qkv_a_proj of vLLM, SGLang and TensorRT-LLM); keys and values have one each, before and after the absorbed
    attention.
    """
    m, rows = p.model, p.sizes.tokens
    down = p.linear("down", rows, m.q_rank + m.kv_rank + m.rope_dim, m.hidden, False, parts=2)
    up = [
        p.linear(f"{name} up", rows, p.sizes.heads * width, m.kv_rank, False)
        for name, width in (("keys", m.nope_dim), ("values", m.v_dim))
    ]
    there = {"kv up": up} | ({"q down": [down], "kv down": []} if m.q_rank else {})
    return [found for operator in operators for found in there.get(operator.name, [operator])]


def beside(p: Plan, shared: list[Operator]) -> list[Operator]:
    """Shared experts of few rows: on a second stream, behind the routed ones but for reading their weights."""
    if not shared or np.max(p.sizes.tokens) >= BESIDE_ROWS:
        return shared
    read = sum(op.matmul_parameters for op in shared) * (p.formats.weight or p.formats.gemm_input)
    first, *others = (replace(op, forward=()) for op in shared)
    return [replace(first, forward=(Stream(read),)), *others]


def summed_norm(p: Plan, operator: Operator) -> Operator:
    """A norm inside the kernel of the sum before it; any other operator as it is."""
    if operator.name not in FUSED_NORMS:
        return operator
    size = p.sizes.tokens * p.model.hidden * p.formats.activation
    inside = (p.s.tp > 1) & (size <= FUSED_SUM_BYTES)
    streams = [work for work in operator.forward if isinstance(work, Stream)]
    return replace(operator, forward=tuple(replace(work, memory_bytes=work.memory_bytes * ~inside) for work in streams))


def layers(p: Plan, routing: Routing, source: Plan | None = None) -> Iterator[tuple[Kind, int, list[Operator]]]:
    """Every kind of decoder layer, how many there are, and its operators."""
    whole_plan = replace(p, source=source)
    for segment in decoder(p.model):
        for kind, count in segment.kinds:
            yield kind, count, layer(whole_plan.of(kind), routing)


def decoder(model: Model) -> list[Segment]:
    """The segments of the stack that makes tokens."""
    return [segment for segment in segments(model) if segment.stack == "decoder"]


def attention(p: Plan, cached: Cached) -> list[tuple[Kind, int, Operator]]:
    """Attention of some queries to the cache, by kind of layer."""
    found = []
    for segment in decoder(p.model):
        for kind, count in segment.kinds:
            found.append((kind, count, core(p.of(kind), cached)))
            if p.model.index_heads:
                found.append((kind, count, sparse.scores(p, cached)))
    return found


def core(p: Plan, cached: Cached) -> Operator:
    """One attention kernel: queries over keys, a sliding window taken into account."""
    m, z = p.model, p.sizes
    keys, causal = 1.0 * cached.keys, float(m.causal)
    if p.kind.window is not None:
        keys, causal = windowed_keys(cached.queries, cached.keys, float(p.kind.window)), 0.0
    work = Attention(
        cached.sequences, cached.queries, keys, z.heads, z.kv_heads, m.head_dim, causal=causal,
        element_bytes=p.formats.activation, kv_bytes=cached.bytes,
    )  # fmt: skip
    if m.is_mla:
        work = sparse.chosen(p, cached, latent(p, work), absorbed(p, work)) if m.index_heads else latent(p, work)
    beside: list[Stream] = []
    if p.habits.cache_passes:
        repeated = 2.0 * cached.sequences * cached.keys * z.heads * m.head_dim * cached.bytes
        beside.append(Stream(p.habits.cache_passes * repeated, kernels=4))
    if not p.habits.flash:
        scores = 1.0 * cached.sequences * z.heads * cached.queries * keys
        beside.append(Stream(SCORE_PASSES * FP32_BYTES * scores, kernels=3))
    return Operator("attention", (work, *beside))


def latent(p: Plan, work: Attention) -> Attention:
    """Multi-head latent attention: few queries look at the latents themselves, which all heads share; many at the keys
    and values that are made from them (DeepSeek-AI, "DeepSeek-V2", 2024, section 2.1.2 and appendix).
    """
    m = p.model
    made = replace(work, kv_heads=work.heads, head_dim=float(m.nope_dim + m.rope_dim), value_dim=float(m.v_dim))
    return either(np.less_equal(work.q_len, ABSORBED), absorbed(p, work), made)


def absorbed(p: Plan, work: Attention) -> Attention:
    """Attention to the latents themselves, which all heads share."""
    m = p.model
    wide = float(m.kv_rank + m.rope_dim)
    return replace(work, kv_heads=1.0, head_dim=wide, value_dim=float(m.kv_rank), shared=True)


def cross(p: Plan, cached: Cached) -> Operator:
    """Attention of some queries to an encoder's output."""
    z = p.sizes
    work = Attention(
        cached.sequences, cached.queries, cached.keys, z.heads, z.kv_heads, p.model.attention_dim, causal=0.0,
        element_bytes=p.formats.activation, kv_bytes=cached.bytes,
    )  # fmt: skip
    return Operator("cross attention", (work,))


def expert_part(p: Plan, routing: Routing) -> list[Operator]:
    """Norm, router, experts, shared experts, the sum over all that hold a part of them."""
    m, z, s = p.model, p.sizes, p.s
    rows, others = z.tokens, sharing(s)
    experts = Experts(
        tokens=rows * others, topk=float(m.experts_per_token), experts=z.experts, total_experts=float(m.experts),
        hidden=float(m.hidden), ffn=z.expert_ffn, gated=m.gated, input_bytes=p.formats.gemm_input,
        weight_bytes=p.formats.weight or p.formats.gemm_input, skew=routing.skew,
    )  # fmt: skip
    if routing.exchange == "all_to_all":
        experts = replace(experts, gathered=bool(np.max(others) <= 1))
    if not p.habits.grouped:
        experts = replace(experts, kernels=EXPERT_KERNELS * experts.routing.active + LOOKED_KERNELS * z.experts)
    matrix = z.experts * m.hidden * z.expert_ffn * (1.0 + m.gate)
    biases = z.experts * (z.expert_ffn * m.gate + m.hidden) * float(m.mlp_bias)
    routed = Operator("experts", (experts,), parameters=matrix + biases, matmul_parameters=matrix, experts=True)
    router = p.linear("router", rows, float(m.experts), m.hidden, m.router_bias)
    chosen = Stream(3.0 * rows * m.experts * FP32_BYTES, kernels=ROUTER_FUSED)
    there, back = meeting(p, routing, others)
    shared = [
        replace(op, forward=tuple(work for work in op.forward if not isinstance(work, Collective)))
        for op in (shared_experts(p) if m.shared_ffn else [])
    ]
    return [
        norm("mlp norm", p, rows, m.hidden),
        replace(router, forward=(*router.forward, chosen)),
        with_collectives(Operator("dispatch"), (there, ())),
        routed,
        with_collectives(Operator("combine"), (back, ())),
        *beside(p, shared),
        *([norm("mlp post norm", p, rows, m.hidden)] if m.norms == 4 else []),
        residual("mlp residual", p),
    ]


def meeting(p: Plan, routing: Routing, others: Numeric) -> tuple[tuple[Collective, ...], tuple[Collective, ...]]:
    """Collectives before and after the experts.

    Peers that serve the same requests all hold the same rows: what they make is summed, as after any MLP. Rows of
    devices with requests of their own are gathered (and scattered back summed), or travel to their experts and back,
    once to each of the devices (or of the nodes, where there are several) that hold any.
    """
    size = p.sizes.tokens * p.model.hidden * p.formats.activation
    summed = Collective("all_reduce", "tp", size)
    if routing.exchange == "all_to_all":
        back = size * destinations(p.model, routing.domain, p.s) * (others > 1)
        there = back * (p.formats.gemm_input / p.formats.activation)
        return (Collective("all_to_all", "ep", there),), (Collective("all_to_all", "ep", back), summed)
    gathered = size * others * (others > 1)
    return (Collective("all_gather", "others", gathered),), (
        summed,
        Collective("reduce_scatter", "others", gathered),
    )


def embedding(p: Plan) -> list[Operator]:
    """Look-up of every row."""
    return block.embedding(p.outside)


def head(p: Plan, outputs: Numeric) -> list[Operator]:
    """Final norm, scores of the vocabulary for the rows that give a token, and the choice of one."""
    m = p.model
    sizes = replace(p.sizes, seq=outputs, residual_seq=outputs, context=outputs)
    last = replace(p, sizes=sizes).outside
    operators = [op for op in block.head(last) if op.name != "loss"]
    if m.head in ("none", "class"):
        return operators
    scores = outputs * sizes.vocab
    gathered = Collective("all_gather", "tp", outputs * m.vocab * p.formats.activation)
    chosen = Stream(3.0 * scores * FP32_BYTES, kernels=4)
    return [*operators, Operator("sampling", (gathered, chosen))]


def other_stacks(
    model: Model, s: Strategies, formats: Formats, habits: Habits, lengths: Lengths
) -> list[tuple[int, list[Operator]]]:
    """What runs once per prompt before the decoder: a vision tower, an encoder and the keys of its output."""
    if model.encoder is None and model.vision is None:
        return []
    plans = whole(model, s, dict.fromkeys(("decoder", "encoder", "vision"), formats), habits, lengths)
    found = [(count, ops) for segment, kinds in plans.layers() if segment.stack != "decoder" for _, count, ops in kinds]
    own = len(block.embedding(plans.decoder.outside))
    found.append((1, plans.start()[own:]))
    if plans.encoder is not None:
        found.append((model.layers, [op for op in cross_part(plans.decoder) if op.name == "cross kv"]))
    return found
