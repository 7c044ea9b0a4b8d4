"""Memory-bound kernels: norms, activations, residual adds, optimizer steps."""

from __future__ import annotations

from typing import NamedTuple

from hwsim.formulas.types import Numeric


class StreamMachine(NamedTuple):
    """What a device is, for kernels bound by memory.

    Attributes
    ----------
    bandwidth_bytes_per_s
        Data-sheet memory bandwidth [bytes/s].
    efficiency
        Fraction of it that a large kernel reaches.
    latency_s
        Fixed time of the smallest kernel [s].
    """

    bandwidth_bytes_per_s: Numeric
    efficiency: Numeric
    latency_s: Numeric


def stream_s(bytes_moved: Numeric, machine: StreamMachine) -> Numeric:
    """Time of a kernel that reads and writes ``bytes_moved`` in all [s].

    The rate saturates with size: latency + bytes / (efficiency * bandwidth), half of it reached at
    latency * efficiency * bandwidth bytes. Count every pass of an unfused kernel sequence: PyTorch's eager SiLU * mul
    moves five arrays (fused: three), its RMSNorm five (fused: two), a rotary embedding four (fused: two); with these
    counts one efficiency fits them all.

    Parameters
    ----------
    bytes_moved
        Read plus written [bytes].
    machine
        The device.

    Examples
    --------
    >>> machine = StreamMachine(bandwidth_bytes_per_s=2.0e12, efficiency=0.8, latency_s=2e-6)
    >>> stream_s(1.6e9, machine)
    0.001002
    """
    return machine.latency_s + bytes_moved / (machine.bandwidth_bytes_per_s * machine.efficiency)


__all__ = ["StreamMachine", "stream_s"]
