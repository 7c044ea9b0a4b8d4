"""Seconds that a device needs for a kernel: the accelerator's numbers meet the formulas here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from hwsim.errors import UsageError, did_you_mean
from hwsim.formulas.attention import AttentionMachine, attention_backward_s, attention_forward_s
from hwsim.formulas.gemm import GemmMachine, gemm_compute_s, gemm_memory_s, gemm_s, gemm_serial_s, joined_s
from hwsim.formulas.power import sustained_share
from hwsim.formulas.stream import StreamMachine, stream_s
from hwsim.formulas.training import utilization
from hwsim.formulas.types import Numeric
from hwsim.ops.work import Attention, Collective, Gemm, Stream, Work
from hwsim.specs.base import Spec
from hwsim.specs.hardware import Accelerator


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

    def utilization(self, flops: Numeric, seconds: Numeric, devices: Numeric) -> Numeric:
        """Fraction of the dense peak of `devices` that `flops` in `seconds` amount to. [-]"""
        return utilization(flops, seconds, devices, self.gemm.peak_flops_per_s)

    def at_clock(self, share: float) -> Device:
        """The same device with its matrix units at a share of their clock."""
        gemm = self.gemm._replace(efficiency=self.gemm.efficiency * share)
        forward, backward = self.attention.forward_efficiency * share, self.attention.backward_efficiency * share
        attention = self.attention._replace(forward_efficiency=forward, backward_efficiency=backward)
        return replace(self, gemm=gemm, attention=attention)

    def seconds(self, work: Work) -> Numeric:
        """Device time of one kernel; a collective takes none here. [s]"""
        if isinstance(work, Gemm):
            return gemm_s(work.m, work.n, work.k, self.gemm, work.batch, work.input_bytes, work.output_bytes)
        if isinstance(work, Attention):
            return self._attention_s(work)
        if isinstance(work, Stream):
            machine = self.kinds.get(work.kind or "", self.stream)
            return np.where(np.asarray(work.memory_bytes) > 0, stream_s(work.memory_bytes, machine), 0.0)
        return 0.0

    def _attention_s(self, work: Attention) -> Numeric:
        shape = (work.batch, work.q_len, work.kv_len, work.heads, work.kv_heads, work.head_dim, work.causal)
        if work.backward:
            return attention_backward_s(*shape, self.attention)
        kv_bytes = work.element_bytes if work.kv_bytes is None else work.kv_bytes
        seconds = attention_forward_s(*shape, self.attention, kv_bytes)
        if self.cached is None:
            return seconds
        return np.where(np.less_equal(work.q_len, 1.0), attention_forward_s(*shape, self.cached, kv_bytes), seconds)

    def cost(self, work: Work) -> tuple[Numeric, Numeric]:
        """Device time of a kernel, and the same again if memory holds it back, else 0. [s]"""
        if isinstance(work, Stream):
            seconds = self.seconds(work)
            return seconds, seconds
        if isinstance(work, Gemm):
            compute = gemm_compute_s(work.m, work.n, work.k, self.gemm, work.batch)
            memory = gemm_memory_s(work.m, work.n, work.k, self.gemm, work.batch, work.input_bytes, work.output_bytes)
            serial = gemm_serial_s(work.m, work.k, self.gemm, work.batch)
            seconds = joined_s(compute, memory, serial, self.gemm.floor_s)
            return seconds, np.where(memory > compute, seconds, 0.0)
        return self.seconds(work), 0.0

    def limit_s(self, work: Work) -> Numeric:
        """The data-sheet roofline of the kernel: no machine does it faster. [s]"""
        if isinstance(work, Collective):
            return 0.0
        return np.maximum(work.flops / self.gemm.peak_flops_per_s, work.memory_bytes / self.gemm.bandwidth_bytes_per_s)


HALF = "bf16"
"""The dtype that a curve without a dtype of its own stands for."""


def launches(work: Work) -> Numeric:
    """Kernels the host enqueues for one piece of work."""
    return work.kernels if isinstance(work, Stream | Gemm) else 1.0


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
    peaks = {name: value for name, value in accelerator.peak.model_dump().items() if value}
    if compute not in peaks:
        msg = f"{accelerator.name} has no {compute} rate (it has {', '.join(peaks)}){did_you_mean(compute, peaks)}"
        raise UsageError(msg)
    known = [accelerator.kernels.libraries[name] for name in libraries if name in accelerator.kernels.libraries]
    gemm = _first(accelerator.kernels.gemm, [library.gemm for library in known], compute)
    narrow = HALF if training else compute
    attention = _first(accelerator.kernels.attention, [library.attention for library in known], narrow)
    half = peaks.get("bf16") or peaks.get("fp16") or peaks[compute]
    shared = {
        "bandwidth_bytes_per_s": accelerator.memory.bandwidth,
        "units": float(accelerator.compute_units),
        "cache_bytes": accelerator.cache or 0.0,
    }

    def fused(dtype: str) -> AttentionMachine:
        own = {} if training else {str(name): curve for name, curve in attention.dtypes.items()}
        rate = peaks.get(dtype, half)
        peak = {"peak_flops_per_s": rate if dtype in own else min(half, rate)}
        return _bind(AttentionMachine, own.get(dtype, attention), shared | peak)

    streams = accelerator.kernels.stream
    result = Device(
        gemm=_bind(GemmMachine, _of_dtype(gemm, compute), shared | {"peak_flops_per_s": peaks[compute]}),
        attention=fused(compute),
        stream=_bind(StreamMachine, streams, shared),
        kinds={str(kind): _bind(StreamMachine, curve, shared) for kind, curve in streams.kinds.items()},
        cached=fused(cache) if cache and cache != compute else None,
    )
    return result.at_clock(_clock_share(accelerator)) if training else result


def _clock_share(accelerator: Accelerator) -> float:
    """Share of the boost clock held under the power limit; all of it where nobody knows better."""
    power = accelerator.power
    return float(sustained_share(power.tdp, power.idle, power.unlimited or power.tdp))


def _first(own: Any, curves: Sequence[Any], compute: str) -> Any:
    """The first curve that was measured at a dtype, the device's own where none was."""
    apart = compute in own.dtypes
    return next((curve for curve in curves if curve and (compute in curve.dtypes or not apart)), own)


def _of_dtype(curve: Any, compute: str) -> Any:
    """The curve of a dtype that was measured apart, else the half-precision one."""
    return curve.dtypes.get(compute, curve)


MachineT = TypeVar("MachineT", GemmMachine, AttentionMachine, StreamMachine)


def _bind(machine: type[MachineT], curve: Spec, given: dict[str, float]) -> MachineT:
    """Fill a machine tuple from `given` values, else from the curve's field of the same name."""
    values = {
        name: given[name] if name in given else getattr(curve, name.removesuffix("_s")) for name in machine._fields
    }
    return machine(**{name: float(value) for name, value in values.items()})
