"""Seconds that a device needs for a kernel: the accelerator's numbers meet the formulas here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from hwsim.errors import UsageError, did_you_mean
from hwsim.formulas.attention import AttentionMachine, attention_backward_s, attention_forward_s
from hwsim.formulas.experts import ExpertsMachine, experts_compute_s, experts_memory_s, experts_s, experts_serial_s
from hwsim.formulas.gemm import GemmMachine, gemm_compute_s, gemm_memory_s, gemm_s, gemm_serial_s, joined_s
from hwsim.formulas.power import sustained_share
from hwsim.formulas.stream import StreamMachine, stream_s
from hwsim.formulas.training import utilization
from hwsim.formulas.types import Numeric
from hwsim.ops.work import Attention, Collective, Experts, Gemm, Stream, Work
from hwsim.specs.base import Spec
from hwsim.specs.hardware import Accelerator, Library


@dataclass(frozen=True)
class Device:
    """The machine tuples of one accelerator at one compute dtype."""

    gemm: GemmMachine
    attention: AttentionMachine
    stream: StreamMachine
    kinds: Mapping[str, StreamMachine] = field(default_factory=dict)
    """Memory-bound kernels that were measured apart, by kind."""
    cached: AttentionMachine | None = None
    """Decode over a KV cache of another dtype; none: as `attention`."""
    experts: Mapping[str, ExpertsMachine] = field(default_factory=dict)
    """Fused experts by format, as far as they were measured; none: as `gemm` would have them."""
    latent: AttentionMachine | None = None
    """Multi-head latent attention; none: as `attention`."""
    latent_cached: AttentionMachine | None = None
    """The same for decode over a KV cache of another dtype; none: as `latent`."""

    def utilization(self, flops: Numeric, seconds: Numeric, devices: Numeric) -> Numeric:
        """Fraction of the dense peak of `devices` that `flops` in `seconds` amount to. [-]"""
        return utilization(flops, seconds, devices, self.gemm.peak_flops_per_s)

    def at_clock(self, share: Numeric) -> Device:
        """The same device with its matrix units at a share of their clock."""
        gemm = self.gemm._replace(efficiency=self.gemm.efficiency * share)
        forward, backward = self.attention.forward_efficiency * share, self.attention.backward_efficiency * share
        attention = self.attention._replace(forward_efficiency=forward, backward_efficiency=backward)
        return replace(self, gemm=gemm, attention=attention)

    def running(self, compute_share: float, memory_share: float, tile: float | None = None) -> Device:
        """The same device inside an engine: multiplies reach these shares of their rates, with tiles up to `tile`;
        weights come from memory, not from the cache where a benchmark's loop finds them.
        """
        gemm = self.gemm._replace(
            efficiency=self.gemm.efficiency * compute_share,
            memory_efficiency=self.gemm.memory_efficiency * memory_share,
            tile=self.gemm.tile if tile is None else min(tile, self.gemm.tile),
            weight_cache_gain=1.0,
        )
        return replace(self, gemm=gemm)

    def casting_like(self, plain: Device) -> Device:
        """The same device where inputs come cast by the kernel before: no time of their own for it."""
        latency_s = min(self.gemm.latency_s, plain.gemm.latency_s)
        return replace(self, gemm=self.gemm._replace(latency_s=latency_s, cast_bytes=0.0, cast_row_s=0.0))

    def seconds(self, work: Work) -> Numeric:
        """Device time of one kernel; a collective takes none here. [s]"""
        if isinstance(work, Gemm):
            sizes = (work.m, work.n, work.k, self.gemm, work.batch)
            return gemm_s(*sizes, work.input_bytes, work.output_bytes, work.weight_bytes)
        if isinstance(work, Attention):
            return self._attention_s(work)
        if isinstance(work, Experts):
            layer = (work.present, work.routing, work.hidden, work.ffn, work.gated, work.weight_bytes)
            return experts_s(*layer, self._experts(work))
        if isinstance(work, Stream):
            machine = self.kinds.get(work.kind or "", self.stream)
            return np.where(np.asarray(work.memory_bytes) > 0, stream_s(work.memory_bytes, machine), 0.0)
        return 0.0

    def _experts(self, work: Experts) -> ExpertsMachine:
        """What runs some experts."""
        measured = (self.experts[kind] for kind in experts_kinds(work) if kind in self.experts)
        return next(measured, None) or experts_like(self.gemm)

    def _attention_s(self, work: Attention) -> Numeric:
        """A few queries that share latents are rows of one head more: kernels pack them like the heads. [s]"""
        q_len = np.where(work.shared, 1.0, work.q_len)
        heads = np.where(work.shared, work.heads * work.q_len, work.heads)
        shape = (work.batch, q_len, work.kv_len, heads, work.kv_heads, work.width, work.causal)
        if work.backward:
            return attention_backward_s(*shape, self.attention)
        usual, cached = self.attention, self.cached
        if work.value_dim is not None and self.latent is not None:
            usual, cached = self.latent, self.latent_cached
        kv_bytes = work.cached_bytes
        seconds = attention_forward_s(*shape, usual, kv_bytes)
        if cached is None:
            return seconds
        return np.where(np.less_equal(q_len, 1.0), attention_forward_s(*shape, cached, kv_bytes), seconds)

    def cost(self, work: Work) -> tuple[Numeric, Numeric]:
        """Device time of a kernel, and the same again if memory holds it back, else 0. [s]"""
        if isinstance(work, Stream):
            seconds = self.seconds(work)
            return seconds, seconds
        if isinstance(work, Gemm):
            compute = gemm_compute_s(work.m, work.n, work.k, self.gemm, work.batch)
            sizes = (work.m, work.n, work.k, self.gemm, work.batch)
            memory = gemm_memory_s(*sizes, work.input_bytes, work.output_bytes, work.weight_bytes)
            serial = gemm_serial_s(work.m, work.k, self.gemm, work.batch)
            seconds = joined_s(compute, memory, serial, self.gemm.floor_s)
            return seconds, np.where(memory > compute, seconds, 0.0)
        if isinstance(work, Experts):
            routed, machine, widths = work.routing, self._experts(work), (work.hidden, work.ffn, work.gated)
            compute = experts_compute_s(routed.rows, routed.active, *widths, machine)
            memory = experts_memory_s(work.present, routed, *widths, work.weight_bytes, machine)
            seconds = joined_s(compute, memory, experts_serial_s(work.hidden, work.ffn, machine), 0.0)
            return seconds, np.where(memory > compute, seconds, 0.0)
        return self.seconds(work), 0.0

    def limits_s(self, flops: Numeric, memory_bytes: Numeric) -> tuple[Numeric, Numeric]:
        """Data-sheet time of the matrix units alone, and of the memory alone. [s]"""
        return flops / self.gemm.peak_flops_per_s, memory_bytes / self.gemm.bandwidth_bytes_per_s

    def multiplying_s(self, flops: Numeric) -> Numeric:
        """Time of operations at the rate that the largest multiplies reach. [s]"""
        return flops / (self.gemm.peak_flops_per_s * self.gemm.efficiency)

    def limit_s(self, work: Work) -> Numeric:
        """The data-sheet roofline of the kernel: no machine does it faster. [s]"""
        if isinstance(work, Collective):
            return 0.0
        return np.maximum(*self.limits_s(work.flops, work.memory_bytes))


PACKED = 0.8
"""Weights narrower than this share of what is multiplied by them are unpacked as they come."""
EXPERTS_NEAR = {
    "fp8": ("fp8_block",), "fp8_block": ("fp8",), "int4": ("mxfp4",), "mxfp4": ("int4",),
    "fp4": ("mxfp4_fp8", "fp8_block"), "mxfp4_fp8": ("fp4", "fp8_block"),
}  # fmt: skip
"""Formats of experts whose curves stand in for one that was not measured, before that of half precision does."""
EXPERT_SHARE, EXPERT_LATENCIES, EXPERT_PASSES, EXPERT_TOKEN_PASSES, EXPERT_REMOTE = 0.53, 15.0, 1.6, 4.6, 0.07
"""Experts where they were not measured: their efficiency over that of plain multiplies, their fixed time in latencies
of one, passes of rows and tokens, share of rows elsewhere. Medians of 15 measured curves (6 devices, bf16)."""
HALF = "bf16"
"""The dtype that a curve without a dtype of its own stands for."""


def experts_kinds(work: Experts) -> tuple[str, ...]:
    """Formats whose kernels may run some experts: their own, else what the widths of their elements suggest."""
    if work.kind is not None:
        return (work.kind,)
    narrow = work.input_bytes < 2.0
    if work.weight_bytes < PACKED * work.input_bytes:
        return ("mxfp4_fp8",) if narrow else ("int4", "mxfp4")
    return (("fp4",) if work.input_bytes < 1.0 else ("fp8_block", "fp8")) if narrow else (HALF,)


def experts_like(gemm: GemmMachine) -> ExpertsMachine:
    """Experts of a device whose plain multiplies alone are known."""
    return ExpertsMachine(
        peak_flops_per_s=gemm.peak_flops_per_s,
        bandwidth_bytes_per_s=gemm.bandwidth_bytes_per_s,
        efficiency=gemm.efficiency * EXPERT_SHARE,
        pad_rows=0.0,
        memory_efficiency=gemm.memory_efficiency,
        latency_s=EXPERT_LATENCIES * gemm.latency_s,
        passes=EXPERT_PASSES,
        remote_share=EXPERT_REMOTE,
        token_passes=EXPERT_TOKEN_PASSES,
    )


def half_dtype(accelerator: Accelerator) -> str:
    """The half precision that a device multiplies in; single where it has none."""
    return first_dtype(accelerator, ("bf16", "fp16", "fp32"))


def first_dtype(accelerator: Accelerator, names: Sequence[str]) -> str:
    """The first of some dtypes that a device has a rate for; the first of all where it has none."""
    return next((name for name in names if getattr(accelerator.peak, name, None) is not None), names[0])


def launches(work: Work) -> Numeric:
    """Kernels the host enqueues for one piece of work."""
    return work.kernels if isinstance(work, Stream | Gemm | Experts) else 1.0


def device(
    accelerator: Accelerator,
    compute: str,
    libraries: Sequence[str] = (),
    training: bool = False,
    cache: str | None = None,
) -> Device:
    """Bind an accelerator's curves at the compute dtype `compute`.

    Parameters
    ----------
    accelerator, compute
        The device, and a dtype of its `peak`.
    libraries
        Kernel libraries in order of preference: the first with curves of its own is taken, for multiplies and for
        attention; else the device's curves.
    training
        As training runs: for hours on end at the power limit, attention in half precision whatever is multiplied.
    cache
        Dtype of the KV cache, which decode kernels go by; default: that of the attention.

    Raises
    ------
    UsageError
        If the device has no peak for that dtype.
    """
    peaks = {name: value for name, value in accelerator.peak if value is not None}
    if compute not in peaks:
        msg = f"{accelerator.name} has no {compute} rate (it has {', '.join(peaks)}){did_you_mean(compute, peaks)}"
        raise UsageError(msg)
    known = [accelerator.kernels.libraries[name] for name in libraries if name in accelerator.kernels.libraries]
    gemm = _first(accelerator.kernels.gemm, [library.gemm for library in known], compute)
    narrow = HALF if training else compute
    attention = _first(accelerator.kernels.attention, [library.attention for library in known], narrow)
    half = _first_known(accelerator.peak.bf16, accelerator.peak.fp16, peaks[compute])
    shared = {
        "bandwidth_bytes_per_s": accelerator.memory.bandwidth,
        "units": float(accelerator.compute_units),
        "cache_bytes": _first_known(accelerator.cache, 0.0),
    }

    def fused(dtype: str) -> AttentionMachine:
        own = {} if training else {str(name): curve for name, curve in attention.dtypes.items()}
        rate = peaks.get(dtype, half)
        peak = {"peak_flops_per_s": rate if dtype in own else np.minimum(half, rate)}
        return _bind(AttentionMachine, own.get(dtype, attention), shared | peak)

    streams = accelerator.kernels.stream
    result = Device(
        gemm=_bind(GemmMachine, _of_dtype(gemm, compute), shared | {"peak_flops_per_s": peaks[compute]}),
        attention=fused(compute),
        stream=_bind(StreamMachine, streams, shared),
        kinds={str(kind): _bind(StreamMachine, curve, shared) for kind, curve in streams.kinds.items()},
        cached=fused(cache) if cache and cache != compute else None,
    )
    latent = _latent(accelerator, known, cache or compute, shared)
    result = replace(result, experts=_experts(accelerator, known, shared), latent=latent[0], latent_cached=latent[1])
    return result.at_clock(_clock_share(accelerator)) if training else result


def _experts(accelerator: Accelerator, known: Sequence[Library], given: dict[str, float]) -> dict[str, ExpertsMachine]:
    """Machines of fused experts by format: the first library's that measured it, or the device's; else the nearest."""
    curves = [curve for curve in (*(each.experts for each in known), accelerator.kernels.experts) if curve]
    peaks, found = accelerator.peak, {}
    half = _first_known(peaks.bf16, peaks.fp16)
    rates = {"fp8": peaks.fp8, "fp8_block": peaks.fp8, "mxfp4_fp8": peaks.fp8, "fp4": peaks.fp4}
    for kind in (HALF, *EXPERTS_NEAR) if curves else ():
        order: tuple[Any, ...] = (kind, *EXPERTS_NEAR.get(kind, ()), HALF)
        fit = next((curve.dtypes[name] for name in order for curve in curves if name in curve.dtypes), None)
        rate = rates.get(kind, half)
        if fit is not None and rate is not None:
            found[kind] = _bind(ExpertsMachine, fit, given | {"peak_flops_per_s": rate})
    return found


def _latent(
    accelerator: Accelerator, known: Sequence[Library], cache: str, given: dict[str, float]
) -> tuple[AttentionMachine | None, AttentionMachine | None]:
    """Machines of multi-head latent attention, in half precision and with a cache in `cache`, as far as measured."""
    curves = [curve for curve in (*(each.latent for each in known), accelerator.kernels.latent) if curve]
    if not curves:
        return None, None
    peaks = {name: value for name, value in accelerator.peak if value is not None}
    half = _first_known(peaks.get("bf16"), peaks.get("fp16"), *peaks.values())
    narrow: list[Any] = [curve.dtypes[name] for curve in curves for name in curve.dtypes if name == cache]
    usual = _bind(AttentionMachine, curves[0], given | {"peak_flops_per_s": half})
    rate = {"peak_flops_per_s": peaks.get(cache, half)}
    return usual, _bind(AttentionMachine, narrow[0], given | rate) if narrow else None


def _clock_share(accelerator: Accelerator) -> Numeric:
    """Share of the boost clock held under the power limit; all of it where nobody knows better."""
    power = accelerator.power
    return sustained_share(power.tdp, power.idle, _first_known(power.unlimited, power.tdp))


def _first_known(*values: Any) -> Any:
    """The first value that is given."""
    return next((value for value in values if value is not None), None)


def _first(own: Any, curves: Sequence[Any], compute: str) -> Any:
    """The first curve that was measured at a dtype, the device's own where none was."""
    apart = compute in own.dtypes
    return next((curve for curve in curves if curve and (compute in curve.dtypes or not apart)), own)


def _of_dtype(curve: Any, compute: str) -> Any:
    """The curve of a dtype that was measured apart, else the half-precision one."""
    return curve.dtypes.get(compute, curve)


MachineT = TypeVar("MachineT", GemmMachine, AttentionMachine, ExpertsMachine, StreamMachine)


def _bind(machine: type[MachineT], curve: Spec, given: Mapping[str, Any]) -> MachineT:
    """Fill a machine tuple from `given` values, else from the curve's field of the same name; columns stay columns."""
    values = {
        name: given[name] if name in given else getattr(curve, name.removesuffix("_s")) for name in machine._fields
    }
    return machine(**{name: value if isinstance(value, np.ndarray) else float(value) for name, value in values.items()})
