"""Small operators that blocks share: norms, rotary embedding, activation, residual add."""

from __future__ import annotations

from hwsim.formulas.types import Numeric
from hwsim.ops.operator import Operator
from hwsim.ops.plan import FP32_BYTES, MASK_BYTES, Plan
from hwsim.ops.work import Collective, Stream


def norm(name: str, p: Plan, rows: Numeric, width: int) -> Operator:
    """Layernorm or RMSNorm: saves its input; backward reads input and gradient and writes a gradient."""
    shift = p.model.norm == "layernorm" and p.model.norm_bias
    size = rows * width * p.formats.activation
    forward, backward = norm_streams(p, size, kernels=1)
    weights = width * (2.0 if shift else 1.0)
    return Operator(
        name,
        (forward,),
        (backward,),
        norm_saved_bytes(p, rows, width, p.model.norm),
        weights,
        trained=weights * p.formats.trains,
    )


def norm_saved_bytes(p: Plan, rows: Numeric, width: int, kind: str) -> Numeric:
    """The input, its statistics, and what a norm that is no single kernel keeps beside them."""
    each, apart = p.formats.activation, kind == "rmsnorm" and p.formats.autograd.normalised
    statistics = rows * p.formats.statistics * (2.0 if kind == "layernorm" else 1.0)
    return rows * width * (each + FP32_BYTES if apart else each) + statistics


def norm_streams(p: Plan, size: Numeric, kernels: int) -> tuple[Stream, Stream]:
    """Kernels of a normalisation of `size` bytes, forward and backward."""
    moved = size * p.formats.norm_passes
    if p.habits.fused_residual and kernels == 1:
        return Stream(4.0 * moved, kernels=kernels, kind="norm"), Stream(5.0 * moved, kernels=2, kind="norm")
    return Stream(2.0 * moved, kernels=kernels, kind="norm"), Stream(3.0 * moved, kernels=2, kind="norm")


def head_norm(p: Plan, elements: Numeric) -> Operator:
    """RMSNorm of every query and key head; two vectors of head_dim, the same on every device.

    Where it spans all heads, peers add up the sums of squares of queries and keys, between a kernel that makes them and
    one that applies the norm, and each peer has the weights of its heads.
    """
    size = elements * p.formats.activation
    forward, backward = norm_streams(p, size, kernels=2)
    weights = 2.0 * p.model.head_dim
    if p.model.qk_norm_wide:
        return wide_norm(p, elements, backward)
    saved = norm_saved_bytes(p, elements / p.model.head_dim, p.model.head_dim, "rmsnorm")
    return Operator("qk norm", (forward,), (backward,), saved, weights, trained=weights * p.formats.trains)


def wide_norm(p: Plan, elements: Numeric, backward: Stream) -> Operator:
    """RMSNorm over the queries, and over the keys, of all heads (vLLM: MiniMaxText01RMSNormTP, SGLang: RMSNormTP)."""
    z, size = p.sizes, elements * p.formats.activation
    rows = 1.0 * z.tokens
    summed = Collective("all_reduce", "tp", 2.0 * rows * FP32_BYTES)
    first, second = (Stream(passes * size * p.formats.norm_passes, kind="norm") for passes in (1.0, 2.0))
    weights = (z.heads + z.kv_heads) * p.model.head_dim
    saved = size + 2.0 * rows * p.formats.statistics
    trained = weights * p.formats.trains
    return Operator("qk norm", (first, summed, second), (summed, backward), saved, weights, trained=trained)


def rotary(p: Plan, elements: Numeric) -> Operator:
    """Rotary embedding of queries and keys; its backward needs nothing saved."""
    moved = Stream(2.0 * elements * p.formats.activation * p.formats.rope_passes, kernels=2)
    return Operator("rope", (moved,), (moved,))


def activation(name: str, p: Plan, inputs: Numeric, outputs: Numeric) -> Operator:
    """GELU or the gated product; saves its inputs, and the activated gate where the product is a kernel of its own."""
    e, passes = p.formats.activation, p.formats.activation_passes
    gates = outputs * float(p.model.gated and p.formats.autograd.gates)
    forward, backward = (inputs + outputs) * e * passes, (2.0 * inputs + outputs) * e * passes
    forward_work, backward_work = (Stream(moved, kind="activation") for moved in (forward, backward))
    return Operator(name, (forward_work,), (backward_work,), (inputs + gates) * e)


def residual(name: str, p: Plan) -> Operator:
    """Dropout (where the model has it) and residual add; backward also sums the two branches' gradients."""
    if p.habits.fused_residual:
        return Operator(name)
    elements, e = p.sizes.residual_tokens * p.model.hidden, p.formats.activation
    mask = elements * MASK_BYTES if p.model.dropout else 0.0
    branches = Stream(elements * 3.0 * e, kind="residual")
    dropped = (Stream(elements * 2.0 * e + mask, kind="residual"),) if p.model.dropout else ()
    return Operator(name, (Stream(elements * 3.0 * e + mask, kind="residual"),), (*dropped, branches), saved_bytes=mask)
