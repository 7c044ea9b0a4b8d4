"""Seconds that a device needs for a kernel: the accelerator's numbers meet the formulas here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from hwsim.errors import UsageError, did_you_mean, shorten
from hwsim.formulas.attention import AttentionMachine, attention_backward_s, attention_forward_s
from hwsim.formulas.gemm import GemmMachine, gemm_compute_s, gemm_memory_s, gemm_s, joined_s
from hwsim.formulas.stream import StreamMachine, stream_s
from hwsim.formulas.training import utilization
from hwsim.formulas.types import Numeric
from hwsim.ops.work import Attention, Collective, Gemm, Stream, Work
from hwsim.specs.base import Spec
from hwsim.specs.hardware import Accelerator, AttentionCurve, GemmCurve

DEFAULT_LIBRARY = "default"
"""The mix of kernels that training frameworks and other users run."""


@dataclass(frozen=True)
class Device:
    """The machine tuples of one accelerator at one compute dtype."""

    gemm: GemmMachine
    attention: AttentionMachine
    stream: StreamMachine

    def utilization(self, flops: Numeric, seconds: Numeric, devices: Numeric) -> Numeric:
        """Fraction of the dense peak of `devices` that `flops` in `seconds` amount to. [-]"""
        return utilization(flops, seconds, devices, self.gemm.peak_flops_per_s)

    def seconds(self, work: Work) -> Numeric:
        """Device time of one kernel; a collective takes none here. [s]"""
        if isinstance(work, Gemm):
            return gemm_s(work.m, work.n, work.k, self.gemm, work.batch, work.input_bytes, work.output_bytes)
        if isinstance(work, Attention):
            time = attention_backward_s if work.backward else attention_forward_s
            shape = (work.batch, work.q_len, work.kv_len, work.heads, work.kv_heads, work.head_dim, work.causal)
            return time(*shape, self.attention)
        if isinstance(work, Stream):
            return np.where(np.asarray(work.memory_bytes) > 0, stream_s(work.memory_bytes, self.stream), 0.0)
        return 0.0

    def cost(self, work: Work) -> tuple[Numeric, Numeric]:
        """Device time of a kernel, and the same again if memory holds it back, else 0. [s]"""
        if isinstance(work, Stream):
            seconds = self.seconds(work)
            return seconds, seconds
        if isinstance(work, Gemm):
            compute = gemm_compute_s(work.m, work.n, work.k, self.gemm, work.batch)
            memory = gemm_memory_s(work.m, work.n, work.k, self.gemm, work.batch, work.input_bytes, work.output_bytes)
            seconds = joined_s(compute, memory, self.gemm.latency_s)
            return seconds, np.where(memory > compute, seconds, 0.0)
        return self.seconds(work), 0.0

    def limit_s(self, work: Work) -> Numeric:
        """The data-sheet roofline of the kernel: no machine does it faster. [s]"""
        if isinstance(work, Collective):
            return 0.0
        return np.maximum(work.flops / self.gemm.peak_flops_per_s, work.memory_bytes / self.gemm.bandwidth_bytes_per_s)


def launches(work: Work) -> int:
    """Kernels the host enqueues for one piece of work."""
    return work.kernels if isinstance(work, Stream) else 1


def device(accelerator: Accelerator, compute: str, library: str | None = None) -> Device:
    """Bind an accelerator's curves at the compute dtype `compute`, those of a kernel library where it has its own.

    Raises
    ------
    UsageError
        If the device has no peak for that dtype, or no library of that name.
    """
    peaks = {name: value for name, value in accelerator.peak.model_dump().items() if value}
    if compute not in peaks:
        msg = f"{accelerator.name} has no {compute} rate (it has {', '.join(peaks)}){did_you_mean(compute, peaks)}"
        raise UsageError(msg)
    gemm, attention = _curves(accelerator, library)
    half = peaks.get("bf16") or peaks.get("fp16") or peaks[compute]
    shared = {"bandwidth_bytes_per_s": accelerator.memory.bandwidth, "units": float(accelerator.compute_units)}
    measured = {str(name): curve for name, curve in attention.dtypes.items()}
    attention_peak = peaks[compute] if compute in measured else min(half, peaks[compute])
    return Device(
        gemm=_bind(GemmMachine, _of_dtype(gemm, compute), shared | {"peak_flops_per_s": peaks[compute]}),
        attention=_bind(AttentionMachine, _of_dtype(attention, compute), shared | {"peak_flops_per_s": attention_peak}),
        stream=_bind(StreamMachine, accelerator.kernels.stream, shared),
    )


def _curves(accelerator: Accelerator, library: str | None) -> tuple[GemmCurve, AttentionCurve]:
    """The curves of a library, the device's own for what it was not measured on."""
    kernels = accelerator.kernels
    if library in (None, DEFAULT_LIBRARY):
        return kernels.gemm, kernels.attention
    if library not in kernels.libraries:
        known = [DEFAULT_LIBRARY, *kernels.libraries]
        msg = f"{accelerator.name} has no kernel library {shorten(library)} (it has {', '.join(known)})"
        raise UsageError(msg + did_you_mean(str(library), known))
    own = kernels.libraries[library]
    return own.gemm or kernels.gemm, own.attention or kernels.attention


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
