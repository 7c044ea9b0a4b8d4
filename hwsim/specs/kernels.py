"""How the kernels of an accelerator fall short of its data sheet: fitted curves by library and dtype."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hwsim.specs.base import Count, Fraction, Name, NaturalCount, Ratio, Seconds, Spec
from hwsim.specs.tiers import Calibration

DtypeName = Literal["fp32", "tf32", "bf16", "fp16", "fp8", "fp4", "int8"]
"""Compute dtypes, as in `Peak`."""


class GemmFit(Spec):
    """How matrix multiplies of one dtype fall short of the roofline (see hwsim.formulas.gemm)."""

    efficiency: Fraction
    """Fraction of the dense peak that many waves of the largest tiles reach at large k."""
    k_half: NaturalCount
    """Inner dimension at which the main loop runs at half its asymptotic rate."""
    tile: Count = 128
    """Edge of the largest output tile that one compute unit works on."""
    tile_loss: Ratio = 0.3
    """Relative time lost by tiles of half that edge."""
    wave_quantisation: Annotated[float, Field(ge=0, le=1)] = 0.2
    """1: the last, partly filled wave of tiles costs as much as a full one; 0: tiles are dealt out evenly."""
    split_latency: Seconds = 3e-6
    """Fixed time of sharing the k loop of a tile among idle units."""
    throttle: Ratio = 0.0
    """Relative time that main loops of many milliseconds lose to power and heat."""
    memory_efficiency: Fraction
    """Fraction of the memory bandwidth a skinny multiply reaches."""
    memory_latency: Seconds = 0.0
    """Until the first operands arrive from memory."""
    cache_gain: Annotated[float, Field(ge=1, le=50)] = 1.0
    """Rate at which activations that fit the last-level cache come, over that of memory."""
    weight_cache_gain: Annotated[float, Field(ge=1, le=50)] = 1.0
    """The same for weights under a tenth of the cache, where benchmark loops found them there."""
    latency: Seconds
    """Fixed time of the smallest kernel."""
    floor: Seconds = 0.0
    """Least time of a call: the host behind it."""
    cast_bytes: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Memory traffic of casting the activations to a narrow dtype first, per element; 0: they come cast."""
    cast_row: Seconds = 0.0
    """Time that casting takes per row beside its traffic."""


class GemmCurve(GemmFit):
    """Matrix multiplies: the curve of half-precision dtypes, and of those that were measured apart."""

    dtypes: dict[DtypeName, GemmFit] = Field(default_factory=dict)
    """Whole curves of other dtypes; a dtype without one takes the curve above at its own peak."""


class AttentionFit(Spec):
    """How fused attention of one dtype falls short of the roofline (see hwsim.formulas.attention)."""

    forward_efficiency: Fraction
    """Fraction of the dense peak of the matmuls alone at long sequences, forward."""
    backward_efficiency: Fraction
    """The same, backward."""
    softmax_width: NaturalCount
    """Time of the softmax per query-key pair, in head dimensions of matmul time."""
    query_rows: Count = 64
    """Query rows of one head are padded to a multiple of this."""
    overhead_keys: NaturalCount
    """Time a query block takes beside its keys, in keys."""
    tail: Ratio = 0.5
    """Share of the longest block that does not hide behind the other blocks."""
    memory_efficiency: Fraction
    """Fraction of the memory bandwidth reached when reading the KV cache."""
    latency: Seconds
    """Fixed time of the smallest kernel."""
    split_latency: Seconds = 2e-6
    """Added where long stretches of keys are split and combined."""
    prefill_latency: Seconds = 2e-6
    """Added by the kernels around a prefill."""
    prefill_passes: Annotated[float, Field(ge=1, le=100)] = 2.0
    """Times a prefill moves its tensors: once for the kernel itself, more for writing the cache."""
    decode_rows: Count = 64
    """Heads that share keys are packed into a decode block and padded to a multiple of this."""
    lone_rows: Count = 64
    """Rows that a decode block is charged for a head on its own."""
    packed_heads: Count = 4096
    """Most query heads per key head that the decode kernel packs."""
    decode_overhead_keys: NaturalCount = 500
    """Time a decode block takes beside its keys, in keys."""
    mask_keys: NaturalCount = 0
    """Keys that a causal mask spares together or not at all, where that is more than the query rows of a block."""
    split_keys: Count = 256
    """Shortest stretch of keys given to a unit of its own in a decode; a very large one: keys are not split."""
    decode_passes: Annotated[float, Field(ge=1, le=1000)] = 1.0
    """Times a decode moves its queries and outputs: more than once where parts are written out and combined."""
    decode_rate: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Rate of a decode's multiplies over that of a prefill's."""


class AttentionCurve(AttentionFit):
    """Fused attention: the curve of half-precision dtypes, and of those that were measured apart."""

    dtypes: dict[DtypeName, AttentionFit] = Field(default_factory=dict)
    """Whole curves of other dtypes; a dtype without one takes the curve above at the half-precision peak."""


class ExpertsFit(Spec):
    """How the fused experts of one format fall short of the roofline (see hwsim.formulas.experts)."""

    efficiency: Fraction
    """Fraction of the dense peak that many rows per expert reach."""
    pad_rows: Annotated[float, Field(ge=0, le=10_000)]
    """Rows that every active expert takes beside its own."""
    memory_efficiency: Fraction
    """Fraction of the memory bandwidth at which weights stream."""
    latency: Seconds
    """Fixed time of all kernels of the layer."""
    step: Seconds = 0.0
    """Time per element of the inner dimensions."""
    memory_latency: Seconds = 0.0
    """Until weights stream at their full rate."""
    passes: Annotated[float, Field(ge=1, le=100)] = 1.0
    """Times that rows go through memory, in and out of both multiplies."""
    remote_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of those passes that rows of experts elsewhere make too."""
    token_passes: Annotated[float, Field(ge=0, le=1000)] = 0.0
    """Times that tokens go through memory, as they come and leave."""


ExpertsFormat = Literal["bf16", "fp8", "fp8_block", "fp4", "int4", "mxfp4", "mxfp4_fp8"]
"""Formats of experts: half precision; fp8 scaled by tensor or channel, and by blocks; nvfp4 weights and activations;
int4 weights (GPTQ, AWQ) and mxfp4 weights, both unpacked to half precision; mxfp4 weights with fp8 activations."""


class ExpertsCurve(Spec):
    """Fused experts, by format."""

    dtypes: dict[ExpertsFormat, ExpertsFit] = Field(min_length=1)


class Library(Spec):
    """Curves of one kernel library where it was measured apart from the mix that the device's own curves stand for."""

    gemm: GemmCurve | None = None
    attention: AttentionCurve | None = None
    experts: ExpertsCurve | None = None
    latent: AttentionCurve | None = None
    """Multi-head latent attention (MLA)."""


StreamKind = Literal["norm", "activation", "residual", "bias", "embedding", "loss", "optimizer"]
"""Memory-bound kernels that a device may be slower or faster at than its bandwidth says."""


class StreamFit(Spec):
    """How memory-bound kernels fall short of the memory bandwidth (see hwsim.formulas.stream)."""

    efficiency: Fraction
    """Fraction of the memory bandwidth reached by a large kernel."""
    latency: Seconds
    """Fixed time of the smallest kernel."""


class StreamCurve(StreamFit):
    """Memory-bound kernels: the curve of all of them, and of kinds that were measured apart."""

    kinds: dict[StreamKind, StreamFit] = Field(default_factory=dict)
    """Curves of kinds; a kind without one takes the curve above."""


class Kernels(Spec):
    """Fitted efficiency curves of one device family, with their source."""

    status: Calibration
    """measured, inherited (from a relative) or datasheet (assumed)."""
    gemm: GemmCurve
    attention: AttentionCurve
    stream: StreamCurve
    experts: ExpertsCurve | None = None
    """None: as the multiplies would have it."""
    latent: AttentionCurve | None = None
    """Multi-head latent attention (MLA); none: as any attention."""
    launch: Seconds
    """Host time to enqueue one kernel eagerly."""
    graph_launch: Seconds
    """The same inside a CUDA graph or a compiled program."""
    libraries: dict[Name, Library] = Field(default_factory=dict)
    """Kernel libraries measured apart (vllm, sglang, trtllm, ...)."""
