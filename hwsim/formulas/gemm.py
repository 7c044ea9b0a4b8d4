"""Matrix multiplies: FLOPs, bytes and device time.

The output y[m, n] is cut into tiles, the tiles are dealt to the compute units in waves, and each tile walks along k.
A library picks large or small tiles, and splits k over idle units (or deals it out evenly, stream-k) at a fixed price,
so the time is a minimum over a few ways. Operands stream from memory meanwhile; the two times join as the root of the
sum of their squares, at most 1.41 times the larger: neither hides the other fully (a plain maximum fits the measured
tables worse). Activations that fit the last-level cache are found there, weights come from memory. A multiply in a
narrow dtype first casts its activations. Boost clocks do not last: main loops of milliseconds run slower.

References
----------
.. [1] Williams, Waterman, Patterson, "Roofline: an insightful visual performance model", CACM 52(4), 2009.
.. [2] NVIDIA, "Matrix multiplication background user's guide" (tile and wave quantisation), 2023.
.. [3] Osama et al., "Stream-K: work-centric parallel decomposition for dense GEMM", PPoPP 2023.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hwsim.formulas.types import Numeric

TILE_EDGES = (1.0, 0.5)
"""Edges of the square output tiles a library chooses from, in units of the machine's tile edge."""
SPLIT_COST = 1.4
"""Main-loop time of dealing out k evenly over all units, relative to whole tiles: partial sums are stored and added."""
THROTTLE_S = 1e-3
"""Main-loop time at which half of the clock that a long multiply loses is lost. [s]"""
RAMP_S = 1e-7
"""Memory time at which half of the latency of the first access shows. [s]"""
CACHED_ACTIVATIONS, CACHED_WEIGHTS = 2.0 / 3.0, 0.1
"""Share of the last-level cache that serves activations, and weights: benchmark loops rotate through several copies."""


class GemmMachine(NamedTuple):
    """What a device is, for matrix multiplies in one compute dtype.

    Attributes
    ----------
    peak_flops_per_s
        Dense peak of the compute dtype [FLOP/s].
    bandwidth_bytes_per_s
        Data-sheet memory bandwidth [bytes/s].
    units
        Compute units (SMs, CUs, MXUs) sharing the output tiles.
    efficiency
        Fraction of the peak reached by many waves of the largest tiles at large k.
    k_half
        Inner dimension at which the main loop runs at half its asymptotic rate (prologue and epilogue of a tile).
    tile
        Edge of the largest tile.
    tile_loss
        Relative time lost by a tile of half the edge (operands are fetched more often).
    memory_efficiency
        Fraction of the memory bandwidth reached by a skinny multiply.
    latency_s
        Fixed time of the smallest kernel [s].
    wave_quantisation
        Weight of whole waves against evenly dealt tiles: 1 where the last wave costs as much as a full one.
    split_latency_s
        Fixed time of dealing out k: the partial sums of a tile are added in a second step [s].
    throttle
        Relative time that long main loops lose to power and heat.
    memory_latency_s
        Time until the first operands arrive from memory [s].
    floor_s
        Time under which no call comes, whatever it computes: the host is not faster [s].
    cache_bytes
        Last-level cache; 0: none [bytes].
    cache_gain
        Rate of activations that fit the cache over the rate of memory.
    weight_cache_gain
        The same for weights of which several copies fit the cache, as they do in a benchmark's loop.
    cast_bytes
        Memory traffic, per element of x, of casting x to the compute dtype in kernels of its own [bytes].
    cast_row_s
        Time that casting takes per row of x beside its traffic [s].
    """

    peak_flops_per_s: Numeric
    bandwidth_bytes_per_s: Numeric
    units: Numeric
    efficiency: Numeric
    k_half: Numeric
    tile: Numeric
    tile_loss: Numeric
    memory_efficiency: Numeric
    latency_s: Numeric
    wave_quantisation: Numeric = 0.0
    split_latency_s: Numeric = 3e-6
    throttle: Numeric = 0.0
    memory_latency_s: Numeric = 0.0
    floor_s: Numeric = 0.0
    cache_bytes: Numeric = 0.0
    cache_gain: Numeric = 1.0
    weight_cache_gain: Numeric = 1.0
    cast_bytes: Numeric = 0.0
    cast_row_s: Numeric = 0.0


def gemm_flops(m: Numeric, n: Numeric, k: Numeric, batch: Numeric = 1.0) -> Numeric:
    """FLOPs of ``batch`` multiplies y[m, n] = x[m, k] w[k, n]: a multiply and an add per product. [FLOP]

    Examples
    --------
    >>> gemm_flops(4096, 4096, 4096)
    137438953472.0
    """
    return 2.0 * batch * m * n * k


def gemm_bytes(
    m: Numeric,
    n: Numeric,
    k: Numeric,
    batch: Numeric,
    input_bytes: Numeric,
    output_bytes: Numeric,
    weight_bytes: Numeric | None = None,
) -> Numeric:
    """Bytes through device memory when each operand moves once [bytes].

    Parameters
    ----------
    m, n, k, batch
        Shape, and how many independent multiplies.
    input_bytes, output_bytes
        Size of one element of x and w, and of y [bytes].
    weight_bytes
        Size of one element of w where it is stored in another format [bytes].

    Examples
    --------
    >>> gemm_bytes(1024, 1024, 1024, 1.0, 2.0, 2.0)
    6291456.0
    """
    if weight_bytes is not None:
        return batch * (input_bytes * (1.0 * m * k) + weight_bytes * (1.0 * k * n) + output_bytes * (1.0 * m * n))
    inputs = input_bytes * (1.0 * m * k + 1.0 * k * n)
    return batch * (inputs + output_bytes * (1.0 * m * n))


def _tiled_s(edge: float, m: Numeric, n: Numeric, k: Numeric, machine: GemmMachine, batch: Numeric) -> Numeric:
    """Time of the main loops with tiles of one size, before any throttling [s]."""
    side = edge * machine.tile
    slowdown = 1.0 + machine.tile_loss * (1.0 / edge - 1.0)
    step_s = 2.0 * side * side * slowdown * machine.units / (machine.peak_flops_per_s * machine.efficiency)
    waves = np.ceil(m / side) * np.ceil(n / side) * (batch / machine.units)
    dealt = np.maximum(waves, 1.0)
    hard = machine.wave_quantisation
    whole = (hard * np.ceil(waves) + (1.0 - hard) * dealt) * (step_s * k)
    split = (SPLIT_COST * step_s) * (waves * k) + machine.split_latency_s
    return np.minimum(whole, split) + (step_s * machine.k_half) * dealt


def gemm_compute_s(m: Numeric, n: Numeric, k: Numeric, machine: GemmMachine, batch: Numeric = 1.0) -> Numeric:
    """Time of the main loops with the best tiles, operands at hand [s].

    Examples
    --------
    One full wave of 100 ideal units at 1 TFLOP/s each, tiles of 128 x 128 over k = 1000:

    >>> machine = GemmMachine(100e12, 2e12, 100, 1.0, 0.0, 128, 0.0, 1.0, 0.0)
    >>> round(1e6 * float(gemm_compute_s(1280, 1280, 1000, machine)), 3)
    32.768
    """
    best: Numeric = _tiled_s(TILE_EDGES[0], m, n, k, machine, batch)
    for edge in TILE_EDGES[1:]:
        best = np.minimum(best, _tiled_s(edge, m, n, k, machine, batch))
    return best * (1.0 + machine.throttle * (best / (best + THROTTLE_S)))


def _cold_bytes(moved_bytes: Numeric, cached_bytes: Numeric, gain: Numeric) -> Numeric:
    """Bytes from memory that take as long as `moved_bytes`, which come `gain` times faster up to `cached_bytes`."""
    over = moved_bytes / np.maximum(cached_bytes, 1.0)
    return moved_bytes * np.minimum(np.maximum(over * over, 1.0) / gain, 1.0)


def gemm_memory_s(
    m: Numeric,
    n: Numeric,
    k: Numeric,
    machine: GemmMachine,
    batch: Numeric = 1.0,
    input_bytes: Numeric = 2.0,
    output_bytes: Numeric = 2.0,
    weight_bytes: Numeric | None = None,
) -> Numeric:
    """Time to move each operand once; `weight_bytes` as for `gemm_bytes` [s].

    Examples
    --------
    >>> machine = GemmMachine(100e12, 2e12, 100, 1.0, 0.0, 128, 0.0, 0.5, 0.0)
    >>> round(1e6 * float(gemm_memory_s(1000, 1000, 1000, machine)), 3)
    6.0

    With a cache of 10 MB at twice the rate, the 4 MB of x and y take half of their time:

    >>> cached = machine._replace(cache_bytes=10e6, cache_gain=2.0)
    >>> round(1e6 * float(gemm_memory_s(1000, 1000, 1000, cached)), 3)
    4.0
    """
    weights = (input_bytes if weight_bytes is None else weight_bytes) * batch * (1.0 * k * n)
    activations = batch * (input_bytes * (1.0 * m * k) + output_bytes * (1.0 * m * n))
    cold = _cold_bytes(activations, CACHED_ACTIVATIONS * machine.cache_bytes, machine.cache_gain)
    cold = cold + _cold_bytes(weights, CACHED_WEIGHTS * machine.cache_bytes, machine.weight_cache_gain)
    stream = cold / (machine.bandwidth_bytes_per_s * machine.memory_efficiency)
    return stream + machine.memory_latency_s * (stream / (stream + RAMP_S))


def gemm_serial_s(m: Numeric, k: Numeric, machine: GemmMachine, batch: Numeric = 1.0) -> Numeric:
    """Time that nothing hides: the fixed time of the kernel, and casting x where the dtype needs it [s].

    Examples
    --------
    >>> machine = GemmMachine(100e12, 2e12, 100, 1.0, 0.0, 128, 0.0, 0.5, 3e-6, cast_bytes=3.0, cast_row_s=1e-9)
    >>> round(1e6 * float(gemm_serial_s(1000, 2000, machine)), 3)
    7.0
    """
    row = (machine.cast_bytes / machine.bandwidth_bytes_per_s) * k + machine.cast_row_s
    return machine.latency_s + row * (1.0 * m * batch)


def gemm_s(
    m: Numeric,
    n: Numeric,
    k: Numeric,
    machine: GemmMachine,
    batch: Numeric = 1.0,
    input_bytes: Numeric = 2.0,
    output_bytes: Numeric = 2.0,
    weight_bytes: Numeric | None = None,
) -> Numeric:
    """Device time of ``batch`` independent multiplies y[m, n] = x[m, k] w[k, n] in one launch [s].

    serial + sqrt(compute^2 + memory^2). Non-decreasing in every size, and never below the roofline (that of the cache
    for what the cache serves).

    Examples
    --------
    An A100 with its fitted curve; 3456 x 5120 over k = 6912 was measured at 986 us:

    >>> curve = {"wave_quantisation": 0.67, "throttle": 0.08}
    >>> a100 = GemmMachine(312e12, 2039e9, 108, 0.861, 155, 128, 0.185, 0.907, 2.29e-6, **curve)
    >>> round(1e6 * float(gemm_s(3456, 5120, 6912, a100)))
    973
    """
    compute = gemm_compute_s(m, n, k, machine, batch)
    memory = gemm_memory_s(m, n, k, machine, batch, input_bytes, output_bytes, weight_bytes)
    return joined_s(compute, memory, gemm_serial_s(m, k, machine, batch), machine.floor_s)


def joined_s(compute_s: Numeric, memory_s: Numeric, serial_s: Numeric, floor_s: Numeric) -> Numeric:
    """Time of a kernel whose main loops and memory traffic overlap as far as measured devices let them. [s]

    Parameters
    ----------
    compute_s, memory_s
        Both durations when the other costs nothing [s].
    serial_s
        What comes before and after them [s].
    floor_s
        Least time of a call [s].

    Examples
    --------
    >>> float(joined_s(3.0, 4.0, 1.0, 0.0)), float(joined_s(3.0, 4.0, 1.0, 8.0))
    (6.0, 8.0)
    """
    return np.maximum(floor_s, serial_s + np.sqrt(compute_s * compute_s + memory_s * memory_s))


__all__ = [
    "CACHED_ACTIVATIONS",
    "CACHED_WEIGHTS",
    "RAMP_S",
    "SPLIT_COST",
    "THROTTLE_S",
    "TILE_EDGES",
    "GemmMachine",
    "gemm_bytes",
    "gemm_compute_s",
    "gemm_flops",
    "gemm_memory_s",
    "gemm_s",
    "gemm_serial_s",
    "joined_s",
]
